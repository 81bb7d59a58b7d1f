"""JetStream in several accounts: each has its own streams, limits and counts, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes import World
from jscore_server.jetstream.names import account_directory
from jscore_server.jetstream.stream_config import NO_LIMITS, JetStreamLimits

SMALL = JetStreamLimits(max_streams=1, max_consumers=1, max_storage=500, max_memory=0)
ACCOUNTS = {"$G": None, "A": NO_LIMITS, "B": SMALL}


@pytest.fixture
def world(tmp_path: Path) -> World:
    w = World(tmp_path, ["n0"])
    w.start()
    w.engines["n0"].set_accounts(ACCOUNTS)
    return w


def ask(world: World, account: str, call: str, body: Any = b"") -> dict[str, Any]:
    answers: list[Any] = []
    plane = world.planes["n0"]
    heard = plane.subscribe(account, "in.1", lambda m: answers.append(msgspec.json.decode(m.data)))
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    plane.publish(account, f"$JS.API.{call}", data, reply="in.1")
    world.settle()
    heard.close()
    assert len(answers) == 1, answers
    assert isinstance(answers[0], dict)
    return answers[0]


def code(answer: dict[str, Any]) -> int:
    return int(answer["error"]["err_code"])


def test_the_same_name_in_two_accounts_is_two_streams(world: World) -> None:
    for account, most in (("A", 7), ("B", 8)):
        assert ask(world, account, "STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "max_msgs": most})["did_create"]
    assert ask(world, "A", "STREAM.INFO.S")["config"]["max_msgs"] == 7
    assert ask(world, "B", "STREAM.INFO.S")["config"]["max_msgs"] == 8
    assert ask(world, "A", "STREAM.DELETE.S")["success"]
    assert code(ask(world, "A", "STREAM.INFO.S")) == 10059
    assert ask(world, "B", "STREAM.NAMES")["streams"] == ["S"]


def test_all_streams_of_an_account_go_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jscore_server.jetstream.system_api.PURGE_SLICE", 2)
    for account, names in (("A", "STUVW"), ("B", "S")):
        for name in names:
            body = {"name": name, "subjects": [name], "max_bytes": 100}
            assert ask(world, account, f"STREAM.CREATE.{name}", body)["did_create"]
    initiated = {"type": "io.nats.jetstream.api.v1.account_purge_response", "initiated": True}
    assert ask(world, "$SYS", "ACCOUNT.PURGE.A") == initiated
    world.settle(1)
    assert ask(world, "A", "STREAM.NAMES")["streams"] is None
    assert ask(world, "B", "STREAM.NAMES")["streams"] == ["S"]
    assert ask(world, "$SYS", "ACCOUNT.PURGE.unheard-of", {"any": "thing"}) == initiated
    assert ask(world, "B", "STREAM.NAMES")["streams"] == ["S"]


def test_an_account_without_jetstream_is_told_so(world: World) -> None:
    assert code(ask(world, "$G", "INFO")) == 10039
    assert ask(world, "$G", "STREAM.NAMES") == {
        "type": "io.nats.jetstream.api.v1.stream_names_response",
        "error": {"code": 503, "err_code": 10039, "description": "JetStream not enabled for account"},
        "total": 0,
        "offset": 0,
        "limit": 0,
        "streams": None,
    }
    assert code(ask(world, "$G", "STREAM.LEADER.STEPDOWN.S")) == 10010
    assert world.engines["n0"].api.stats("A").total == 0


def test_limits_are_the_accounts_own(world: World) -> None:
    assert code(ask(world, "B", "STREAM.CREATE.M", {"name": "M", "storage": "memory", "max_bytes": 1})) == 10028
    assert code(ask(world, "B", "STREAM.CREATE.M", {"name": "M", "max_bytes": 501})) == 10047
    assert ask(world, "B", "STREAM.CREATE.M", {"name": "M", "max_bytes": 500})["did_create"]
    assert code(ask(world, "B", "STREAM.CREATE.N", {"name": "N"})) == 10027
    for name, expected in (("c", 0), ("d", 10026)):
        body = {"stream_name": "M", "config": {"durable_name": name, "ack_policy": "explicit"}}
        answer = ask(world, "B", f"CONSUMER.CREATE.M.{name}", body)
        assert ("error" in answer and code(answer)) == expected
    for name in ("M", "N"):
        assert ask(world, "A", f"STREAM.CREATE.{name}", {"name": name})["did_create"]


def test_info_counts_and_bounds_one_account(world: World) -> None:
    ask(world, "B", "STREAM.CREATE.M", {"name": "M", "max_bytes": 400})
    code(ask(world, "B", "STREAM.INFO.none"))
    ask(world, "A", "STREAM.NAMES")
    info = ask(world, "B", "INFO")
    assert (info["streams"], info["reserved_storage"]) == (1, 400)
    assert info["limits"]["max_storage"] == 500
    assert info["limits"]["max_streams"] == 1
    assert (info["api"]["total"], info["api"]["errors"]) == (2, 1)
    assert ask(world, "A", "INFO")["limits"]["max_storage"] == -1


def test_two_creates_in_one_turn_keep_to_max_streams(world: World) -> None:
    plane = world.planes["n0"]
    answers: list[bytes] = []
    plane.subscribe("B", "in.*", lambda m: answers.append(m.data))
    for name in ("X", "Y"):
        plane.publish("B", f"$JS.API.STREAM.CREATE.{name}", b'{"name":"%s"}' % name.encode(), reply=f"in.{name}")
    world.settle()
    assert sorted(b"10027" in a for a in answers) == [False, True]


def test_an_account_that_loses_jetstream_keeps_its_streams_on_the_disk(world: World) -> None:
    engine = world.engines["n0"]
    ask(world, "A", "STREAM.CREATE.S", {"name": "S", "subjects": ["s"]})
    engine.set_accounts({"$G": None, "A": None, "B": SMALL})
    assert engine.asset("A", "S") is None
    assert code(ask(world, "A", "STREAM.INFO.S")) == 10039
    engine.set_accounts(ACCOUNTS)
    assert ask(world, "A", "STREAM.INFO.S")["config"]["subjects"] == ["s"]


def test_the_plane_knows_what_may_be_stored(world: World) -> None:
    assert world.planes["n0"].quotas == {"B": (0, 500, 0, 0)}
    world.engines["n0"].set_accounts({"B": NO_LIMITS})
    assert world.planes["n0"].quotas["B"][:2] == (-1, -1)


@pytest.mark.parametrize("name", ["..", "a/b", ".", "", "%", "é", "x" * 300, "a\0b"])
def test_an_accounts_name_never_leaves_the_directory(name: str) -> None:
    made = account_directory(name)
    assert "/" not in made
    assert made
    assert not made.startswith(".")
    assert len(made.encode()) <= 200


def test_plain_names_are_directories_themselves() -> None:
    assert [account_directory(name) for name in ("$G", "A-1_b")] == ["$G", "A-1_b"]
    assert len({account_directory(name) for name in ("a.b", "a%2Eb", "a/b", "a%2e", "%61")}) == 5
