"""Replicas are compared in the background: what differs is told precisely, and repaired where a majority agrees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jscore_server.raft import Difference, ProtocolError
from jscore_server.raft.compare import BYTES_EACH, EVERY_TICKS
from jscore_server.raft.messages import FRAME_COMPARE
from raft_fakes import Cluster, Server

THREE = ["a", "b", "c"]


class Compared(Cluster):
    """A cluster in which all know the protocol of comparisons; what on_differs was told, by server: all of it is
    `heard`, what is to be repaired there or has no majority is `told`.
    """

    def __init__(self, names: list[str], spoken: int = 2) -> None:
        self.spoken = spoken
        self.told: dict[str, list[Difference]] = {name: [] for name in names}
        self.heard: dict[str, list[Difference]] = {name: [] for name in names}
        super().__init__(names)
        for name in names:
            self.create(name, names)

    def start(self, name: str) -> Server:
        server = super().start(name)
        for one in self.servers.values():
            one.host.spoken = dict.fromkeys(self.servers, self.spoken)
        return server

    def create(self, name: str, voters: list[str]) -> None:
        def on_differs(found: Difference) -> None:
            self.heard[name].append(found)
            if name in found.odd or not found.agreed:
                self.told[name].append(found)

        self.servers[name].create(voters, preferred="a", on_differs=on_differs)

    def alter(self, name: str, index: int) -> None:
        """Another content that verifies, on one disk."""
        self.stores[name].logs["g"].records[index - 1].data = b"other"

    def errors(self, name: str) -> list[str]:
        return [text for level, text in self.servers[name].lines if level == "error"]

    def compared(self, name: str) -> int:
        """Frames of comparisons that wait to be delivered to it."""
        return sum(1 for _, target, kind, _ in self.frames if target == name and kind == FRAME_COMPARE)


def filled(names: list[str], count: int = 20) -> Compared:
    cluster = Compared(names)
    cluster.run(400)
    for number in range(count):
        cluster.leader().group.propose(10, b"%d" % number)
    cluster.settle()
    cluster.run(200)
    return cluster


def test_equal_replicas_are_compared_once_and_then_left_alone() -> None:
    cluster = filled(THREE)
    logs = [cluster.stores[name].logs["g"] for name in THREE]
    cluster.run(4000)
    assert all(log.copied for log in logs)
    before = [log.copied for log in logs]
    cluster.run(60_000)
    assert [log.copied for log in logs] == before
    assert not any(cluster.errors(name) or cluster.told[name] for name in THREE)
    cluster.leader().group.propose(10, b"one more")
    cluster.run(5000)
    grown = [log.copied - copied for log, copied in zip(logs, before, strict=True)]
    assert grown == [len(logs[0].raw(logs[0].last))] * 3  # only what is new


@pytest.mark.parametrize("odd", THREE)
def test_who_differs_from_a_majority_learns_it_and_from_whom_it_is_right(odd: str) -> None:
    """K-53, a log that differs and verifies: on a follower, and on the leader."""
    cluster = filled(THREE)
    cluster.alter(odd, 7)
    cluster.run(3000)
    agreed = tuple(name for name in THREE if name != odd)
    assert cluster.told[odd]
    found = cluster.told[odd][0]
    assert found.lo <= 7 <= found.hi
    assert (found.odd, found.agreed) == ((odd,), agreed)
    assert found in cluster.heard["a"], "the leader tells of it, whoever is wrong"
    assert not any(cluster.told[name] for name in agreed)
    [line] = cluster.errors("a")[:1]
    assert f"records {found.lo} to {found.hi} differ in {odd} from those of {', '.join(agreed)}" in line
    assert cluster.leader().group.difference == found


def test_a_repair_is_looked_at_and_ends_the_report() -> None:
    cluster = filled(THREE)
    cluster.alter("c", 7)
    cluster.run(3000)
    assert cluster.told["c"]
    cluster.stores["c"].logs["g"].records[6].data = cluster.stores["a"].logs["g"].records[6].data
    cluster.run(15_000)
    assert cluster.leader().group.difference is None
    assert len(cluster.told["c"]) == 1
    assert any("are equal everywhere" in text for _, text in cluster.servers["a"].lines)


def test_a_follower_hears_that_no_difference_is_left() -> None:
    cluster = filled(["a", "b"])
    cluster.alter("b", 7)
    cluster.run(5000)
    assert [cluster.servers[name].group.difference is None for name in ("a", "b")] == [False, False]
    cluster.stores["b"].logs["g"].records[6].data = cluster.stores["a"].logs["g"].records[6].data
    leader = cluster.leader()
    assert leader.name == "a"
    leader.host.compare.started("b")
    cluster.run(5000)
    assert [cluster.servers[name].group.difference for name in ("a", "b")] == [None, None]


def test_repairs_that_do_not_help_come_to_an_end() -> None:
    cluster = filled(THREE)
    cluster.alter("c", 7)
    cluster.run(120_000)
    assert 1 < len(cluster.told["c"]) <= 4
    assert cluster.leader().group.difference is not None


def test_without_a_majority_it_is_reported_and_nothing_is_touched() -> None:
    cluster = filled(["a", "b"])
    cluster.alter("b", 7)
    cluster.run(120_000)
    assert [found.agreed for found in cluster.told["a"]] == [()]  # to be told, not to be repaired
    assert not cluster.told["b"]
    assert len(cluster.errors("a")) == len(cluster.errors("b")) == 1
    assert "no majority agrees, so nothing is changed" in cluster.errors("a")[0]
    for name in ("a", "b"):
        found = cluster.servers[name].group.difference
        assert found is not None
        assert found.lo <= 7 <= found.hi


def test_three_that_all_differ_are_no_majority() -> None:
    cluster = filled(THREE)
    cluster.alter("b", 7)
    cluster.stores["c"].logs["g"].records[6].data = b"a third"
    cluster.run(10_000)
    assert [found.agreed for found in cluster.told["a"]] == [()]
    assert not cluster.told["b"] + cluster.told["c"]
    assert "differ in b, c from those of its leader a" in cluster.errors("a")[0]


def test_who_is_away_may_decide_it_later() -> None:
    cluster = filled(THREE)
    cluster.run(10_000)  # all are equal, and compared
    cluster.kill("c")
    cluster.alter("b", 7)
    leader = cluster.leader()
    leader.host.compare.started("b")
    cluster.run(30_000)
    assert len(cluster.errors("a")) == 1
    assert not cluster.told["b"]
    cluster.start("c")
    cluster.create("c", THREE)
    cluster.run(15_000)
    assert cluster.told["b"]
    assert cluster.told["b"][0].agreed == ("a", "c")


def test_what_a_former_leader_found_is_the_next_ones_to_find() -> None:
    cluster = filled(["a", "b"])
    cluster.alter("b", 7)
    cluster.run(5000)
    assert cluster.servers["a"].group.difference is not None
    cluster.stores["b"].logs["g"].records[6].data = cluster.stores["a"].logs["g"].records[6].data
    cluster.servers["a"].group.transfer("b")
    cluster.run(10_000)
    assert cluster.leader().name == "b"
    assert [cluster.servers[name].group.difference for name in ("a", "b")] == [None, None]


def test_a_group_that_is_closed_answers_nothing() -> None:
    cluster = filled(THREE)
    group = cluster.servers["b"].group
    group.drop()
    copied = group.log.copied
    body = json.dumps({"k": "ask", "g": "g", "lo": 1, "hi": 2}).encode()
    cluster.servers["b"].host.receive("a", FRAME_COMPARE, body)
    assert group.log.copied == copied


def test_a_member_that_is_away_is_compared_when_it_is_back() -> None:
    cluster = filled(THREE)
    cluster.kill("c")
    cluster.run(10_000)
    cluster.alter("c", 7)
    cluster.start("c")
    cluster.create("c", THREE)
    cluster.run(15_000)
    assert cluster.told["c"]


def test_a_member_that_was_started_anew_is_compared_anew() -> None:
    cluster = filled(THREE)
    cluster.run(10_000)
    cluster.alter("c", 7)
    cluster.run(10_000)
    assert not cluster.told["c"]
    leader = cluster.leader()
    hello = cluster.servers["c"].host.hello()
    leader.host.peer_hello("c", {**hello, "start": [hello["directory"], 2, "again"]})
    leader.host.spoken["c"] = 2
    cluster.run(5000)
    assert cluster.told["c"]


def test_an_older_peer_is_never_asked() -> None:
    cluster = Compared(THREE, spoken=1)
    cluster.run(400)
    sent: list[int] = []
    for server in cluster.servers.values():
        send = server.host.transport.send

        def watched(peer: str, kind: int, body: bytes, send: Any = send) -> bool:
            sent.append(kind)
            return bool(send(peer, kind, body))

        server.host.transport.send = watched  # type: ignore[method-assign]
    cluster.leader().group.propose(10, b"x")
    cluster.run(10_000)
    assert sent
    assert FRAME_COMPARE not in sent


def test_so_much_is_read_in_a_second_and_no_more() -> None:
    cluster = filled(THREE, 1)
    leader = cluster.leader()
    for number in range(60):
        leader.group.propose(10, bytes(100_000) + b"%d" % number)
    cluster.settle()
    cluster.run(100)
    log = cluster.stores["a"].logs["g"]
    cluster.run(60)
    before = log.copied
    cluster.run(1000)
    assert 0 < log.copied - before <= BYTES_EACH * (1000 // (20 * EVERY_TICKS) + 1)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"\xff", b"{}", b"[" * 100_000, b'{"k":"ask","g":"g","lo":0,"hi":1}',
        b'{"k":"ask","g":"g","lo":5,"hi":4}', b'{"k":"ask","g":7,"lo":1,"hi":4}', b'{"k":"sue","g":"g","lo":1,"hi":4}',
        b'{"k":"ask","g":"g","lo":1,"hi":1e9}', b'{"k":"differs","g":"g","lo":1,"hi":4,"d":"x","with":[1]}',
    ],
)  # fmt: skip
def test_what_is_no_comparison_closes_the_link(body: bytes) -> None:
    cluster = filled(THREE, 1)
    with pytest.raises(ProtocolError):
        cluster.servers["b"].host.receive("a", FRAME_COMPARE, body)


def test_only_the_leader_is_believed_and_only_what_is_true() -> None:
    cluster = filled(THREE)
    host = cluster.servers["b"].host

    def say(peer: str, **fields: Any) -> None:
        body = {"k": "differs", "g": "g", "lo": 2, "hi": 9, "d": "", "with": ["a", "c"], **fields}
        host.receive(peer, FRAME_COMPARE, json.dumps(body).encode())

    say("c", d="00")  # it does not lead
    say("a", d="00", hi=1000)  # not committed here
    say("a", d="00", **{"with": ["a", "b"]})  # it is itself among them
    right = host.compare._of(host.groups["g"], 2, 9)
    say("a", d=right)
    assert not cluster.told["b"]
    say("a", d="00")
    assert [(f.lo, f.hi) for f in cluster.told["b"]] == [(2, 9)]
