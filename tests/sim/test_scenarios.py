"""Every scenario of spec/raft.md §6 (bugs that others shipped), by its number."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import scenarios_leaders, scenarios_log, scenarios_members, scenarios_snapshots, scenarios_streams

ELSEWHERE = {
    43: "the engine syncs directories: csrc/log/test/test_kill.c loses what it did not",
    47: "hosts tell old files by the number of their start: tests/unit/raft/test_raft_host.py, an old copy",
    72: "small frames pass bulk in csrc/wire/link.c: csrc/wire/test/test_wire.c",
}


def scenarios() -> dict[str, Callable[..., None]]:
    found = {}
    for module in (scenarios_members, scenarios_leaders, scenarios_log, scenarios_snapshots, scenarios_streams):
        for name, play in vars(module).items():
            if re.fullmatch(r"k\d+_\w+", name):
                found[name] = play
    return found


def cases() -> list[Any]:
    out = []
    for name, play in scenarios().items():
        number = re.match(r"k(\d+)", name)
        assert number
        axes = [[(m.args[0], v) for v in m.args[1]] for m in getattr(play, "pytestmark", []) if m.name == "parametrize"]
        for choice in itertools.product(*axes):
            values = dict(choice)
            label = "-".join([f"K-{number[1]}", name.split("_", 1)[1], *map(str, values.values())])
            out.append(pytest.param(play, values, id=label))
    return out


@pytest.mark.parametrize(("play", "values"), cases())
def test_scenario(play: Callable[..., None], values: dict[str, Any], tmp_path: Path) -> None:
    if "tmp_path" in play.__code__.co_varnames[: play.__code__.co_argcount]:
        values = {**values, "tmp_path": tmp_path}
    play(**values)


def test_every_scenario_is_played_or_has_its_reason() -> None:
    played = {int(re.match(r"k(\d+)", name)[1]) for name in scenarios()}  # type: ignore[index]
    assert played | ELSEWHERE.keys() == set(range(1, 76))
    assert not played & ELSEWHERE.keys()
