"""A page written in pieces reads like one written at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jscore_server.monitoring.monitor import PIECE, Sliced, render, to_json


def whole(work: Sliced[bytes]) -> tuple[bytes, int]:
    """What comes out, and how many pauses there were."""
    pauses = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: bytes = end.value
            return result, pauses
        pauses += 1


BODIES: list[dict[str, Any]] = [
    {},
    {"a": []},
    {"a": None, "b": {}, "list": list(range(3))},
    {
        "id": "<x>&",
        "now": 1.5,
        "rows": [{"n": n, "subs": ["a\n", {}], "none": []} for n in range(PIECE * 3 + 1)],
        "z": {"y": [1]},
    },
    {"first": list(range(PIECE + 1)), "empty": [], "last": ["x"] * (2 * PIECE)},
]


@pytest.mark.parametrize("indent", [0, 2, 3])
@pytest.mark.parametrize("body", BODIES)
def test_pieces_make_the_same_text(body: dict[str, Any], indent: int) -> None:
    text, pauses = whole(render(body, indent))
    assert text == to_json(body, indent)
    assert json.loads(text) == body
    assert (pauses > 1) == any(isinstance(v, list) and len(v) > PIECE for v in body.values())
