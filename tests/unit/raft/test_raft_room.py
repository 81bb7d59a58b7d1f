"""A link that takes no more records: who waits for room, and in which order they go on."""

from __future__ import annotations

from typing import Any

import pytest
from jscore_server.raft.messages import FRAME_APPEND, decode_head
from raft_fakes import Cluster, FakeLog, Link, Server

GROUPS = ("g1", "g2", "g3")


class Narrow(Link):
    """A link whose queue takes `room` frames of records, of one record each."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster, name)
        self.room = 1 << 30

    def send_records(self, peer: str, kind: int, head: bytes, log: FakeLog, lo: int, hi: int, cap: int) -> int:
        if self.room == 0:
            return 0
        self.room -= 1
        return super().send_records(peer, kind, head, log, lo, lo, cap)


def appends(cluster: Cluster) -> list[str]:
    return [decode_head(body)[0].group for _, _, kind, body in cluster.frames if kind == FRAME_APPEND]


@pytest.fixture
def pair() -> tuple[Cluster, Server, dict[str, Any]]:
    """Leader "a" of three groups whose only follower is "b"."""
    cluster = Cluster(["a", "b"])
    groups: dict[str, dict[str, Any]] = {}
    for name, server in cluster.servers.items():
        server.host.transport = Narrow(cluster, name)
        groups[name] = {
            g: server.host.create_group(
                g, server.store.open(g), ["a", "b"], preferred="a", on_commit=lambda index: None,
                on_role=lambda role, term: None,
            )
            for g in GROUPS
        }  # fmt: skip
    cluster.run(400)
    assert all(group.is_leader for group in groups["a"].values())
    return cluster, cluster.servers["a"], groups["a"]


def test_groups_go_on_in_turn_when_there_is_room(pair: tuple[Cluster, Server, dict[str, Any]]) -> None:
    cluster, server, groups = pair
    link = server.host.transport
    assert isinstance(link, Narrow)
    link.room = 0
    for g in GROUPS:
        for _ in range(4):
            groups[g].propose(10, b"x")
    assert appends(cluster) == []
    link.room = 5
    server.host.link_room("b")
    assert appends(cluster) == ["g1", "g2", "g3", "g1", "g2"]
    link.room = 3
    groups["g1"].propose(10, b"later")  # does not go before those that wait
    assert len(appends(cluster)) == 5
    server.host.link_room("b")
    assert appends(cluster)[5:] == ["g3", "g1", "g2"]
    link.room = 1 << 30
    server.host.link_room("b")
    cluster.settle()
    assert [group.commit for group in groups.values()] == [group.log.last for group in groups.values()]


def test_who_is_never_told_of_room_tries_again(pair: tuple[Cluster, Server, dict[str, Any]]) -> None:
    cluster, server, groups = pair
    link = server.host.transport
    assert isinstance(link, Narrow)
    link.room = 0
    index = groups["g1"].propose(10, b"x")
    groups["g2"].propose(10, b"x")
    link.room = 1 << 30
    cluster.run(600)
    assert groups["g1"].commit >= index


def test_a_link_that_goes_down_forgets_who_waited(pair: tuple[Cluster, Server, dict[str, Any]]) -> None:
    cluster, server, groups = pair
    link = server.host.transport
    assert isinstance(link, Narrow)
    link.room = 0
    index = groups["g1"].propose(10, b"x")
    server.host.link_down("b")
    link.room = 1 << 30
    server.host.link_up("b")
    cluster.run(600)
    assert groups["g1"].commit >= index


def test_a_commit_index_that_overtakes_its_records_is_not_forgotten() -> None:
    cluster = Cluster(["a", "b", "c"])
    for server in cluster.servers.values():
        server.create(["a", "b", "c"], preferred="a")
    cluster.run(400)
    leader = cluster.leader()
    slow = next(s for s in cluster.servers.values() if s is not leader)
    index = leader.group.propose(10, b"x")
    late = [f for f in cluster.frames if f[1] == slow.name and f[2] == FRAME_APPEND]
    assert late
    cluster.frames = [f for f in cluster.frames if f not in late]
    cluster.settle()
    leader.host.tick(cluster.now_ns + 20_000_000)  # tells the commit index
    cluster.settle()
    assert leader.group.commit == index > slow.group.commit
    cluster.frames = late
    source, target, kind, body = cluster.frames.pop()
    cluster.servers[target].host.receive(source, kind, body)
    assert slow.group.commit == index
