"""The API of three servers: who answers, who is silent, and what happens when some are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import World
from jscore_server.raft import Role


@pytest.fixture
def world(tmp_path: Path) -> World:
    w = World(tmp_path, ["n0", "n1", "n2"])
    w.start()
    return w


def make(world: World, name: str = "S", replicas: int = 3, **config: Any) -> Any:
    body = {"name": name, "subjects": [f"{name.lower()}.>"], "num_replicas": replicas, **config}
    return world.one(f"STREAM.CREATE.{name}", body, seconds=1)


def error(answer: Any) -> int:
    return int(answer["error"]["err_code"])


def leader_of(world: World, name: str) -> str:
    return next(n for n in world.up if (a := world.engines[n].asset("$G", name)) is not None and a.leading)


def test_a_replicated_stream_is_answered_once_by_its_leader(world: World) -> None:
    answer = make(world)
    assert answer["did_create"] is True
    cluster = answer["cluster"]
    assert cluster["name"] == "C"
    assert cluster["leader"] == leader_of(world, "S")
    assert cluster["raft_group"].startswith("S-R3F-")
    others = [n for n in world.names if n != cluster["leader"]]
    assert [r["name"] for r in cluster["replicas"]] == others
    assert all(r["current"] and len(r["peer"]) == 8 for r in cluster["replicas"])


def test_every_server_answers_for_all_through_the_right_one(world: World) -> None:
    make(world)
    make(world, "T", 1)
    for name in world.names:
        assert world.one("STREAM.INFO.S", at=name, seconds=1)["config"]["name"] == "S"
        assert world.one("STREAM.NAMES", at=name, seconds=1)["streams"] == ["S", "T"]
        assert error(world.one("STREAM.INFO.X", at=name, seconds=1)) == 10059


def test_replicas_have_the_same_configuration_and_consumers(world: World) -> None:
    make(world)
    body = {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}}
    answer = world.one("CONSUMER.CREATE.S.c", body, seconds=1)
    assert answer["cluster"]["leader"] == leader_of(world, "S")
    replicas = [world.engines[n].asset("$G", "S") for n in world.names]
    assert len({a.consumers["c"].id for a in replicas}) == 1
    assert {a.stream.limits["max_msgs"] for a in replicas} == {-1}
    assert world.one("CONSUMER.DELETE.S.c", seconds=1)["success"] is True
    assert all(not a.consumers and not a.stream.consumers for a in replicas)


def test_an_unreplicated_stream_shows_only_its_leader(world: World) -> None:
    answer = make(world, "T", 1)
    assert answer["cluster"] == {"name": "C", "leader": leader_of(world, "T")}


def test_the_same_create_again_gives_the_info_without_did_create(world: World) -> None:
    make(world)
    again = make(world)
    assert "did_create" not in again
    assert again["config"]["name"] == "S"
    assert error(make(world, max_msgs=3)) == 10058


def test_more_replicas_than_servers(world: World) -> None:
    answer = make(world, replicas=5)
    assert error(answer) == 10005
    assert answer["error"]["description"] == "no suitable peers for placement"


def test_a_create_waits_a_moment_for_a_linked_server_that_is_no_member_yet(world: World) -> None:
    world.settle()
    meta = world.engines[world.meta_leader()].meta
    assert meta is not None
    meta.set_members(["n0", "n1"])
    assert error(make(world, "NEVER", 4)) == 10005
    world.timer(0.3, lambda: meta.set_members(["n0", "n1", "n2"]))
    assert make(world, "LATE")["did_create"] is True
    meta.set_members(["n0", "n1"])
    assert error(make(world, "NEVER")) == 10005


def test_a_request_waits_only_until_the_meta_group_has_a_leader(world: World) -> None:
    world.settle()
    group = next(iter(world.rafts["n0"].groups))
    leader = world.rafts[world.meta_leader()].groups[group]
    replicas = [raft.groups[group] for raft in world.rafts.values()]
    for replica in replicas:
        replica.leader, replica.is_leader = None, False

    def elected() -> None:
        for replica in replicas:
            replica.leader, replica.is_leader = leader.raft.name, replica is leader
        leader.on_role(Role.LEADER, 2)

    world.timer(0.1, elected)
    assert len(world.ask("INFO", seconds=0.2)) == 1
    assert world.ask("INFO", seconds=2) != []


def test_update_reaches_all_replicas(world: World) -> None:
    make(world)
    body = {"name": "S", "subjects": ["s.>"], "num_replicas": 3, "max_msgs": 4}
    assert world.one("STREAM.UPDATE.S", body, seconds=1)["config"]["max_msgs"] == 4
    assert {world.engines[n].asset("$G", "S").stream.limits["max_msgs"] for n in world.names} == {4}


def test_replicas_come_and_go(world: World) -> None:
    first = make(world, replicas=1)["cluster"]["leader"]
    world.engines[first].asset("$G", "S").stream.publish("s.x", b"kept")
    body = {"name": "S", "subjects": ["s.>"], "num_replicas": 3}
    grown = world.one("STREAM.UPDATE.S", body, seconds=1)
    assert grown["config"]["num_replicas"] == 3
    assert {first, *(r["name"] for r in grown["cluster"]["replicas"])} == set(world.names)
    assert [len(world.engines[n].asset("$G", "S").stream.messages) for n in world.names] == [1, 1, 1]
    leader = leader_of(world, "S")
    shrunk = world.one("STREAM.UPDATE.S", {**body, "num_replicas": 1}, seconds=3)
    assert shrunk["cluster"] == {"name": "C", "leader": leader}
    assert [n for n in world.names if world.engines[n].asset("$G", "S") is not None] == [leader]
    assert error(world.one("STREAM.UPDATE.S", {**body, "num_replicas": 5}, seconds=1)) == 10005


def test_fewer_replicas_than_a_quorum_of_whole_ones_are_refused(world: World) -> None:
    make(world)
    for name in [n for n in world.names if n != leader_of(world, "S")][:1]:
        world.stop(name)
    body = {"name": "S", "subjects": ["s.>"], "num_replicas": 2}
    kept = world.one("STREAM.UPDATE.S", body, seconds=3)["cluster"]
    assert {kept["leader"], *(r["name"] for r in kept["replicas"])} == set(world.up)


def test_delete_is_answered_once_and_reaches_all(world: World) -> None:
    make(world)
    assert world.one("STREAM.DELETE.S", seconds=2)["success"] is True
    assert all(world.engines[n].asset("$G", "S") is None for n in world.names)
    assert error(world.one("STREAM.INFO.S", seconds=1)) == 10059


def test_list_and_account_info_gather_from_all_leaders(world: World) -> None:
    for i in range(6):
        make(world, f"T{i}", 1)
    assert len({leader_of(world, f"T{i}") for i in range(6)}) == 3
    listed = world.one("STREAM.LIST", seconds=5)
    assert [s["config"]["name"] for s in listed["streams"]] == [f"T{i}" for i in range(6)]
    assert "missing" not in listed
    assert world.one("INFO", seconds=5)["streams"] == 6


def test_a_lost_leader_is_replaced_and_requests_go_on(world: World) -> None:
    make(world)
    lost = leader_of(world, "S")
    world.stop(lost)
    info = world.one("STREAM.INFO.S", seconds=1)
    assert info["cluster"]["leader"] != lost
    assert next(r for r in info["cluster"]["replicas"] if r["name"] == lost)["offline"] is True
    assert "error" not in make(world, "T")


def test_streams_of_absent_servers_are_missing_in_lists_and_offline(world: World) -> None:
    for i in range(3):
        make(world, f"T{i}", 1)
    lost = next(n for n in world.names if n != world.meta_leader())
    gone = next(f"T{i}" for i in range(3) if leader_of(world, f"T{i}") == lost)
    world.stop(lost)
    listed = world.one("STREAM.LIST", seconds=5)
    assert listed["missing"] == [gone]
    assert len(listed["streams"]) == 2
    assert error(world.one(f"STREAM.INFO.{gone}", seconds=1)) == 10118


def test_without_a_quorum_everything_is_unavailable_at_once(world: World) -> None:
    make(world)
    world.stop("n1")
    world.stop("n2")
    for call in ("STREAM.NAMES", "STREAM.INFO.S", "INFO", "STREAM.DELETE.S", "CONSUMER.NAMES.S"):
        assert error(world.one(call)) == 10008
    assert error(world.one("STREAM.CREATE.T", {"name": "T"})) == 10008


def test_a_server_that_was_away_gets_what_it_missed(world: World) -> None:
    make(world, "OLD")
    away = next(n for n in world.names if n != world.meta_leader())
    world.stop(away)
    make(world)
    world.one("STREAM.DELETE.OLD", seconds=2)
    world.start(away)
    assert world.engines[away].asset("$G", "OLD") is None
    assert world.engines[away].asset("$G", "S").config.name == "S"


def test_the_whole_cluster_restarts_with_everything(world: World) -> None:
    make(world)
    make(world, "T", 1)
    world.engines[leader_of(world, "S")].asset("$G", "S").stream.publish("s.a", b"x")
    world.settle()
    for name in world.names:
        world.stop(name)
    world.start()
    assert world.one("STREAM.NAMES", seconds=1)["streams"] == ["S", "T"]
    assert world.one("STREAM.INFO.S", seconds=1)["state"]["messages"] == 1
    assert "error" not in world.one("STREAM.INFO.T", seconds=1)


def test_a_new_server_joins_the_meta_group(tmp_path: Path) -> None:
    world = World(tmp_path, ["n0", "n1", "n2"])
    world.names = ["n0", "n1"]
    world.start("n0", "n1")
    world.names = ["n0", "n1", "n2"]
    world.start("n2")
    assert world.engines["n0"].meta is not None
    assert world.members["_meta_"] == ["n0", "n1", "n2"]
    assert len(make(world)["cluster"]["replicas"]) == 2


def test_step_down_hands_over_to_a_member(world: World) -> None:
    make(world)
    leader = leader_of(world, "S")
    other = next(n for n in world.names if n != leader)
    body = {"placement": {"preferred": other}}
    assert world.one("STREAM.LEADER.STEPDOWN.S", body, seconds=1)["success"] is True
    assert world.engines[leader].asset("$G", "S").group.transfers == [other]
    for wrong in ("nobody", leader):
        answer = world.one("STREAM.LEADER.STEPDOWN.S", {"placement": {"preferred": wrong}}, seconds=1)
        assert error(answer) == 10005


def test_two_creates_that_overlap_in_one_turn(world: World) -> None:
    answers: list[bytes] = []
    plane = world.planes["n1"]
    plane.subscribe("$G", "in", lambda m: answers.append(m.data))
    for name in ("A", "B"):
        body = b'{"name":"%s","subjects":["x.>"]}' % name.encode()
        plane.publish("$G", f"$JS.API.STREAM.CREATE.{name}", body, reply="in")
    world.settle(1)
    assert len(answers) == 2
    assert sum(b"10065" in a for a in answers) == 1
