"""The driver over the real log engine: three servers in one process, real files, real syncs."""

from __future__ import annotations

import random
import select
from pathlib import Path
from typing import Any

import pytest

jscore = pytest.importorskip("jscore")

from jscore_server.raft import RaftHost  # noqa: E402

NAMES = ["a", "b", "c"]


class Net:
    """Frames between the servers, delivered in order by `pump`."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, str, int, bytes]] = []
        self.servers: dict[str, Server] = {}

    def pump(self) -> bool:
        moved = bool(self.frames)
        while self.frames:
            source, target, kind, body = self.frames.pop(0)
            if target in self.servers:
                self.servers[target].host.receive(source, kind, body)
        return moved


class Server:
    """One RaftHost, its store, and the transport it sees."""

    def __init__(self, net: Net, name: str, root: Path) -> None:
        self.net = net
        self.name = name
        self.commit = 0
        (root / name).mkdir(exist_ok=True)
        self.store = jscore.Store(sync="always")
        self.log = self.store.open(str(root / name / "log"))
        lines: list[tuple[str, str]] = []
        self.lines = lines
        self.host = RaftHost(
            name, self.store, str(root / name), self, rng=random.Random(name), log_line=lambda *line: lines.append(line)
        )
        self.group = self.host.create_group(
            "g", self.log, NAMES, on_commit=self.on_commit, on_role=lambda role, term: None, preferred="a"
        )
        net.servers[name] = self

    def on_commit(self, index: int) -> None:
        self.commit = index

    def connected(self, peer: str) -> bool:
        return peer in self.net.servers

    def send(self, peer: str, kind: int, body: bytes) -> bool:
        self.net.frames.append((self.name, peer, kind, body))
        return True

    def push(self) -> None:
        pass

    def send_records(self, peer: str, kind: int, head: bytes, log: Any, lo: int, hi: int, cap: int) -> int:
        raw, last = log.copy(lo, hi, cap)
        self.net.frames.append((self.name, peer, kind, head + raw))
        return int(last)

    def close(self) -> None:
        del self.net.servers[self.name]
        self.host.close()
        self.log.close()
        self.store.close()


def run(net: Net, clock: list[int], done: Any) -> None:
    """Lets everything move until `done()`; virtual time passes only when nothing else moves."""
    for _ in range(5000):
        if done():
            return
        moved = net.pump()
        for server in net.servers.values():
            for log in server.store.poll():
                server.host.durable(log)
                moved = True
        if not moved:
            select.select([s.store.fileno() for s in net.servers.values()], [], [], 0.005)
            clock[0] += 20_000_000
            for server in net.servers.values():
                server.host.tick(clock[0])
    pytest.fail("nothing came of it")


def test_records_reach_every_disk_and_survive_a_restart_of_all(tmp_path: Path) -> None:
    net, clock = Net(), [0]
    for name in NAMES:
        Server(net, name, tmp_path)
    run(net, clock, lambda: any(s.group.is_leader for s in net.servers.values()))
    leader = next(s for s in net.servers.values() if s.group.is_leader)
    index = 0
    for i in range(200):
        index = leader.group.propose(jscore.KIND_HOST, b"%d" % i)
    run(net, clock, lambda: all(s.commit >= index for s in net.servers.values()))
    for server in list(net.servers.values()):
        assert server.log.durable >= index or server.log.last >= index
        assert server.log.read(index).data == b"199"
        server.close()
    net.frames.clear()
    for name in NAMES:
        Server(net, name, tmp_path)
    run(net, clock, lambda: all(s.commit >= index and s.group.leader for s in net.servers.values()))
    assert [s.log.read(index).data for s in net.servers.values()] == [b"199"] * 3
    assert not [line for s in net.servers.values() for line in s.lines if line[0] == "error"]
    for server in list(net.servers.values()):
        server.close()


def test_records_of_a_cut_off_leader_give_way(tmp_path: Path) -> None:
    net, clock = Net(), [0]
    for name in NAMES:
        Server(net, name, tmp_path)
    run(net, clock, lambda: any(s.group.is_leader for s in net.servers.values()))
    old = next(s for s in net.servers.values() if s.group.is_leader)
    del net.servers[old.name]
    lost = old.group.propose(jscore.KIND_HOST, b"lost")
    net.frames.clear()
    for server in net.servers.values():
        server.host.link_down(old.name)
    run(net, clock, lambda: any(s.group.is_leader for s in net.servers.values()))
    new = next(s for s in net.servers.values() if s.group.is_leader)
    kept = [new.group.propose(jscore.KIND_HOST, b"kept") for _ in range(3)]
    net.servers[old.name] = old
    run(net, clock, lambda: all(s.commit >= kept[-1] for s in net.servers.values()))
    assert old.log.term(lost) == new.group.term
    assert old.log.read(kept[-1]).data == b"kept"
    for server in list(net.servers.values()):
        server.close()
