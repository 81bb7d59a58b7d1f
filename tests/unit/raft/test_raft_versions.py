"""Records are written in what all who read them know; what is newer is refused, with a word, and changes nothing."""

from __future__ import annotations

import json
import random

import pytest
from jscore_server.jetstream.meta import MetaError, MetaState, RemoveServer, encode_entry
from jscore_server.raft import ProtocolError, RaftHost, hardlog
from jscore_server.raft.members import Members, NewerVersion, members_from_json, members_to_json
from jscore_server.version import Versions
from raft_fakes import ENGINE, Cluster, FakeStore, Link

THREE = ["a", "b", "c"]


@pytest.fixture
def cluster() -> Cluster:
    c = Cluster(THREE)
    for server in c.servers.values():
        server.host.protocol = Versions(1, 1)
        server.create(THREE)
    c.run(2000)
    return c


def meet(c: Cluster) -> None:
    """Everybody says hello to everybody, as links do when they come up."""
    for one in c.servers.values():
        for other in c.servers.values():
            if one is not other:
                one.host.peer_hello(other.name, json.loads(json.dumps(other.host.hello())))


def versions(c: Cluster, name: str) -> list[int]:
    log = c.stores[name].logs["g"]
    return [json.loads(r.data).get("version", 1) for r in log.records if r.kind == 4]


@pytest.mark.parametrize(("one", "other", "common"), [
    ((1, 1), (1, 2), 1), ((1, 2), (1, 2), 2), ((2, 3), (1, 2), 2), ((2, 3), (1, 1), 0),
])  # fmt: skip
def test_two_speak_the_lower_of_their_newest(one: tuple[int, int], other: tuple[int, int], common: int) -> None:
    assert Versions(*one).common(Versions(*other)) == common
    assert Versions(*other).common(Versions(*one)) == common


def test_a_configuration_is_written_as_the_oldest_member_knows(cluster: Cluster) -> None:
    for name in ("a", "b"):
        cluster.servers[name].host.protocol = Versions(1, 2)
    meet(cluster)
    cluster.leader().group.change(["a", "b"])
    cluster.run(1000)
    assert versions(cluster, "a")[-1] == 1, "the third one was to read it"
    cluster.leader().group.change(["a", "b", "c"])
    cluster.run(1000)
    cluster.servers["c"].host.protocol = Versions(1, 2)
    meet(cluster)
    cluster.leader().group.change(["a", "b"])
    cluster.run(1000)
    assert versions(cluster, "b")[-1] == 2
    assert all(not s.group._failed for s in cluster.servers.values())


def test_who_was_never_met_is_taken_to_know_the_first_version_only(cluster: Cluster) -> None:
    for server in cluster.servers.values():
        server.host.protocol = Versions(1, 2)
    assert cluster.leader().host.understood(THREE) == 1
    meet(cluster)
    assert cluster.leader().host.understood(THREE) == 2
    assert cluster.leader().host.understood([*THREE, "d"]) == 1


def test_a_configuration_that_is_too_new_stops_that_replica_alone(cluster: Cluster) -> None:
    for name in ("a", "b"):
        cluster.servers[name].host.protocol = Versions(1, 2)
    for server in cluster.servers.values():
        server.host.spoken = dict.fromkeys([*THREE, "d"], 2)  # nobody ever should have told them so
    if cluster.leader().name == "c":
        cluster.leader().group.transfer("a")
        cluster.run(500)
    cluster.leader().group.change(["a", "b", "c"], ["d"])
    cluster.run(1000)
    assert any("version 2" in text for level, text in cluster.servers["c"].lines if level == "error")
    index = cluster.leader().group.propose(10, b"x")
    cluster.run(100)
    assert cluster.leader().group.commit >= index


def test_members_state_their_version() -> None:
    members = Members(7, ("a",), (), 1)
    assert b"version" not in members_to_json(members)
    newer = members_to_json(members, 2)
    assert members_from_json(7, newer, 2) == members
    with pytest.raises(NewerVersion, match="version 2, known is 1"):
        members_from_json(7, newer)
    with pytest.raises(ValueError, match="version"):
        members_from_json(7, b'{"voters": ["a"], "learners": [], "expected": 1, "version": "x"}')


def test_a_configuration_nested_without_end_is_none() -> None:
    with pytest.raises(ValueError, match="record 7 is no configuration"):
        members_from_json(7, b'{"voters": ' + b"[" * 100_000)


def test_a_meta_entry_of_a_later_version_is_refused_and_changes_nothing() -> None:
    state = MetaState()
    with pytest.raises(MetaError, match="version 2, this server knows 1"):
        state.apply(1, encode_entry(RemoveServer("n1", "d"), 2))
    assert (state.applied, state.removed) == (0, {})
    assert MetaState(2).apply(1, encode_entry(RemoveServer("n1", "d"), 2))


def test_terms_and_votes_of_a_later_version_are_left_alone(cluster: Cluster) -> None:
    store = FakeStore()

    def host(newest: int) -> RaftHost:
        return RaftHost(
            "a", store, "raft", Link(cluster, "a"), rng=random.Random(1), engine=ENGINE,
            log_line=lambda level, text: None, protocol=Versions(1, newest),
        )  # fmt: skip

    host(1)
    host(2)
    before = list(store.logs["raft/hardstate"].records)
    with pytest.raises(hardlog.NewerFormat, match="version 2, this server knows 1"):
        host(1)
    assert store.logs["raft/hardstate"].records == before
    assert host(2).start[1] == 3


@pytest.mark.parametrize("said", [0, 256, "2", None, 1.5])
def test_a_hello_whose_version_cannot_be_is_refused(cluster: Cluster, said: object) -> None:
    host = cluster.servers["a"].host
    with pytest.raises(ProtocolError):
        host.peer_hello("b", {**cluster.servers["b"].host.hello(), "protocol": said})
    assert "b" not in host.spoken


def test_the_newest_version_that_stands_in_the_meta_log_is_remembered() -> None:
    """Who knows only older ones is not made a member."""
    state = MetaState(3)
    state.apply(1, encode_entry(RemoveServer("n1", "d"), 1))
    assert state.written == 1
    state.apply(2, encode_entry(RemoveServer("n2", "d"), 3))
    state.apply(3, encode_entry(RemoveServer("n3", "d"), 2))
    assert state.written == 3
    other = MetaState(3)
    other.configured(members_to_json(Members(1, ("a",), (), 1), 2))
    assert other.written == 2
    other.take_over(9, state.snapshot(0, b"", 3))
    assert other.written == 3
