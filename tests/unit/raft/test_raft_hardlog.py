"""The log of terms and votes is replaced by a shorter one at start, and a crash at any step leaves one of the two."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from jscore_server.raft import Birth, RaftHost, hardlog
from raft_fakes import Cluster, Link

import jscore


class World:
    """Hosts over one real directory, one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.lines: list[str] = []

    def start(self) -> tuple[jscore.Store, RaftHost]:
        store = jscore.Store()
        host = RaftHost(
            "a", store, self.path, Link(Cluster([]), "a"), rng=random.Random(1),
            log_line=lambda level, text: self.lines.append(text),
        )  # fmt: skip
        return store, host


def what_it_knows(host: RaftHost) -> list[dict[str, object]]:
    return [body for body in host._bodies() if "start" not in body]  # that one counts on


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    store, host = world.start()
    host.born(Birth("m", ("a", "b"), 2))
    host.meta_elected()
    host.peer_hello("b", {"birth": None, "directory": "bb", "known": {}, "elected": True})
    for name in ("g1", "g2"):
        log = store.open(f"{tmp_path}/{name}")
        group = host.create_group(name, log, ["a", "b"], on_commit=lambda i: None, on_role=lambda r, t: None)
        for term in range(1, 50):
            group.core._set_term(term, "b")
            group.drain()
    host.remove_group("g2")
    host.close()
    store.close()
    return world


def test_a_long_log_is_replaced_and_says_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store, host = world.start()
    before = what_it_knows(host)
    long = host.hard_log.last
    host.close()
    store.close()
    monkeypatch.setattr(hardlog, "REWRITE_BYTES", 1000)
    store, host = world.start()
    assert what_it_knows(host) == before
    assert host.hard_log.last < long / 10
    assert sorted(os.listdir(world.path)) == ["g1", "g2", "hardstate"]
    host.close()
    store.close()
    store, host = world.start()
    assert what_it_knows(host) == before
    host.close()
    store.close()


@pytest.mark.parametrize("step", range(5))
def test_a_crash_in_the_midst_leaves_the_old_or_the_new(
    world: World, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    store, host = world.start()
    before = what_it_knows(host)
    host.close()
    store.close()
    calls = 0

    class Crash(BaseException):
        pass

    def counted(real):  # type: ignore[no-untyped-def]
        def call(*args):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls > step:
                raise Crash
            return real(*args)

        return call

    monkeypatch.setattr(hardlog, "REWRITE_BYTES", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(hardlog.os, "rename", counted(os.rename))
        patch.setattr(hardlog, "sync_directory", counted(hardlog.sync_directory))
        with pytest.raises(Crash):
            world.start()
    store, host = world.start()
    assert what_it_knows(host) == before
    assert sorted(os.listdir(world.path)) == ["g1", "g2", "hardstate"]
    host.close()
    store.close()


def test_a_birth_that_gave_way_does_not_stand_again_when_a_bit_flips(tmp_path: Path) -> None:
    """Two servers bore a group at once, and this one took over the other's: either record of that one tells it."""
    world = World(tmp_path)
    store, host = world.start()
    host.born(Birth("m:2", ("a", "b"), 2))
    host.born(Birth("m:1", ("a", "b"), 2))
    host.meta_elected()
    host.close()
    store.close()
    [name] = [file.name for file in (tmp_path / "hardstate").iterdir() if b"m:1" in file.read_bytes()]
    file = tmp_path / "hardstate" / name
    whole = bytearray(file.read_bytes())
    whole[whole.index(b"m:1")] ^= 1
    file.write_bytes(whole)
    store, host = world.start()
    assert host.birth is not None
    assert (host.birth.group, host.elected) == ("m:1", True)
    assert any("damaged" in line for line in world.lines)
    host.close()
    store.close()
