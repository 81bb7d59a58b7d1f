"""The API of a single server, from the request to the answer, over fakes of log, plane and Raft."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fakes import World
from jscore_server.jetstream.meta import CreateStream
from jscore_server.jetstream.models import API_LEVEL


@pytest.fixture
def world(tmp_path: Path) -> World:
    w = World(tmp_path, ["n0"])
    w.start()
    return w


def make(world: World, name: str = "S", **config: Any) -> Any:
    return world.one(f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{name.lower()}.>"], **config})


def error(answer: Any) -> int:
    return int(answer["error"]["err_code"])


def test_create_answers_once_with_the_stream(world: World) -> None:
    answer = make(world)
    assert answer["type"] == "io.nats.jetstream.api.v1.stream_create_response"
    assert answer["did_create"] is True
    assert answer["config"]["name"] == "S"
    assert answer["config"]["max_msgs"] == -1
    assert "cluster" not in answer
    assert answer["config"]["metadata"]["_nats.level"] == str(API_LEVEL)


def test_info_shows_the_leader_of_a_standalone_stream(world: World) -> None:
    make(world)
    assert world.one("STREAM.INFO.S")["cluster"] == {"leader": "n0"}


def test_the_same_create_again_succeeds_and_another_does_not(world: World) -> None:
    make(world)
    assert make(world)["did_create"] is True
    assert error(make(world, max_msgs=5)) == 10058


def test_overlapping_subjects_are_refused(world: World) -> None:
    make(world)
    assert error(world.one("STREAM.CREATE.T", {"name": "T", "subjects": ["s.a"]})) == 10065


def test_two_creates_in_one_turn_cannot_overlap(world: World) -> None:
    answers = []
    for name in ("A", "B"):
        world.planes["n0"].subscribe("$G", f"in.{name}", lambda m: answers.append(m.data))
        body = b'{"name":"%s","subjects":["x.>"]}' % name.encode()
        world.planes["n0"].publish("$G", f"$JS.API.STREAM.CREATE.{name}", body, reply=f"in.{name}")
    world.settle()
    assert sum(b"10065" in a for a in answers) == 1
    assert sum(b"did_create" in a for a in answers) == 1


def test_name_and_subject_have_to_agree(world: World) -> None:
    assert error(world.one("STREAM.CREATE.S", {"name": "T"})) == 10056
    assert error(world.one("STREAM.CREATE.S", b"")) == 10056


def test_replicas_need_a_cluster(world: World) -> None:
    assert error(make(world, num_replicas=3)) == 10074


def test_a_subject_outside_the_table_gets_no_answer(world: World) -> None:
    assert world.ask("STREAM.INFO", seconds=5) == []
    assert world.ask("STREAM.FROB.S", seconds=5) == []
    assert world.ask("FROB", seconds=5) == []
    assert world.ask("CONSUMER.INFO.S", seconds=5) == []


def test_missing_streams_are_not_found(world: World) -> None:
    for call in ("INFO", "DELETE", "PURGE"):
        assert error(world.one(f"STREAM.{call}.X")) == 10059
    assert error(world.one("STREAM.UPDATE.X", {"name": "X"})) == 10059
    assert error(world.one("CONSUMER.NAMES.X")) == 10059


def test_update_applies_and_answers(world: World) -> None:
    make(world)
    answer = world.one("STREAM.UPDATE.S", {"name": "S", "subjects": ["s.>"], "max_msgs": 7})
    assert answer["type"].endswith("stream_update_response")
    assert answer["config"]["max_msgs"] == 7
    stream = world.engines["n0"].asset("$G", "S").stream
    assert stream.limits["max_msgs"] == 7


def test_names_and_list_are_sorted_and_paged(world: World) -> None:
    assert world.one("STREAM.NAMES")["streams"] is None
    assert world.one("STREAM.LIST")["streams"] == []
    for name in ("B", "A", "C"):
        make(world, name)
    names = world.one("STREAM.NAMES", {"offset": 1})
    assert (names["streams"], names["total"], names["offset"], names["limit"]) == (["B", "C"], 3, 1, 1024)
    listed = world.one("STREAM.LIST")
    assert [s["config"]["name"] for s in listed["streams"]] == ["A", "B", "C"]
    assert "_nats.ver" not in listed["streams"][0]["config"]["metadata"]
    assert world.one("STREAM.NAMES", {"subject": "b.x"})["streams"] == ["B"]


def test_delete_ends_the_stream_and_keeps_its_directory_aside_for_five_minutes(world: World, tmp_path: Path) -> None:
    make(world)
    assert world.one("STREAM.DELETE.S") == {
        "type": "io.nats.jetstream.api.v1.stream_delete_response",
        "success": True,
    }
    assert error(world.one("STREAM.INFO.S")) == 10059
    kept = list((tmp_path / "n0" / "lost+found").iterdir())
    assert len(kept) == 1
    assert list((tmp_path / "n0" / "streams" / "$G").iterdir()) == []
    assert make(world)["state"]["messages"] == 0
    foreign = tmp_path / "n0" / "lost+found" / "$G.S.1"
    foreign.mkdir()
    segments = [kept[0] / f"{first:016x}.seg" for first in (1, 100, 200)]
    for segment in segments:
        segment.write_bytes(b"x")
    world.settle(280)
    assert all(segment.exists() for segment in segments)
    world.settle(40)
    assert list((tmp_path / "n0" / "lost+found").iterdir()) == [foreign]  # nothing says that it was deleted


def test_what_was_deleted_is_erased_at_once_where_the_disk_is_nearly_full(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(world)
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_bavail=1000, f_frsize=4096))
    world.one("STREAM.DELETE.S")
    world.settle(5)
    assert list((tmp_path / "n0" / "lost+found").iterdir()) == []


def test_what_was_deleted_before_a_restart_is_erased_after_it(world: World, tmp_path: Path) -> None:
    make(world)
    world.one("STREAM.DELETE.S")
    world.stop("n0")
    world.now_ns += 600_000_000_000
    world.start("n0")
    world.settle(20)
    assert list((tmp_path / "n0" / "lost+found").iterdir()) == []


def test_what_cannot_be_erased_is_not_tried_without_end(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "n0" / "lost+found" / "$G.S.1.deleted" / "by hand"
    kept.mkdir(parents=True)
    (kept / "note").write_text("mine")
    looked: list[str] = []
    listed = os.listdir
    monkeypatch.setattr("os.listdir", lambda path: looked.append(str(path)) or listed(path))
    world.settle(100)
    assert (kept / "note").read_text() == "mine"
    assert 0 < sum(path.endswith("lost+found") for path in looked) <= 10


def test_bad_bodies_are_answered_with_their_error(world: World) -> None:
    make(world)
    assert error(world.one("STREAM.CREATE.S", b"{")) == 10025
    assert error(world.one("STREAM.CREATE.S", {"name": "S", "frob": 1})) == 10025
    assert error(world.one("STREAM.DELETE.S", {"a": 1})) == 10038
    assert error(world.one("STREAM.MSG.GET.S", b"")) == 10003
    assert error(world.one("STREAM.PURGE.S", {"seq": 1, "keep": 1})) == 10003


def test_messages_can_be_read_deleted_and_purged(world: World) -> None:
    make(world)
    stream = world.engines["n0"].asset("$G", "S").stream
    for i in range(3):
        stream.publish(f"s.{i}", b"m%d" % i)
    world.settle()
    assert world.one("STREAM.MSG.GET.S", {"seq": 2})["message"]["data"] == "bTE="
    assert world.one("STREAM.MSG.GET.S", {"last_by_subj": "s.>"})["message"]["seq"] == 3
    assert error(world.one("STREAM.MSG.GET.S", {"seq": 9})) == 10037
    assert world.one("STREAM.MSG.DELETE.S", {"seq": 2})["success"] is True
    assert error(world.one("STREAM.MSG.DELETE.S", {"seq": 2})) == 10043
    assert error(world.one("STREAM.MSG.DELETE.S", {"seq": 9})) == 10057
    assert world.one("STREAM.INFO.S", {"subjects_filter": ">"})["state"]["subjects"] == {"s.0": 1, "s.2": 1}
    assert world.one("STREAM.PURGE.S")["purged"] == 2


def test_sealed_and_denied_streams_refuse_deletes(world: World) -> None:
    make(world, deny_delete=True, deny_purge=True)
    world.engines["n0"].asset("$G", "S").stream.publish("s.a", b"x")
    world.settle()
    assert error(world.one("STREAM.MSG.DELETE.S", {"seq": 1})) == 10057
    assert error(world.one("STREAM.PURGE.S")) == 10110


def test_account_info_counts(world: World) -> None:
    make(world, max_bytes=1000)
    world.one("CONSUMER.CREATE.S.c", {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}})
    answer = world.one("INFO")
    assert (answer["streams"], answer["consumers"], answer["reserved_storage"]) == (1, 1, 1000)
    assert answer["api"]["level"] == API_LEVEL
    assert answer["limits"]["max_streams"] == -1


def test_a_needed_api_level_above_ours_is_refused(world: World) -> None:
    make(world)
    headers = b"NATS/1.0\r\nNats-Required-Api-Level: 99\r\n\r\n"
    answer = world.one("STREAM.INFO.S", headers=headers)
    assert error(answer) == 10185
    assert answer["type"].endswith("stream_info_response")
    assert "error" not in world.one("STREAM.INFO.S", headers=headers.replace(b"99", b"0"))


def test_standalone_cluster_calls_need_a_cluster(world: World) -> None:
    make(world)
    assert error(world.one("STREAM.LEADER.STEPDOWN.S")) == 10010
    assert error(world.one("STREAM.PEER.REMOVE.S", {"peer": "x"})) == 10010


# ---- direct get ----


def direct(world: World, subject: str, body: bytes = b"") -> list[tuple[bytes, bytes]]:
    """(headers, data) of what comes back."""
    got: list[tuple[bytes, bytes]] = []
    subscription = world.planes["n0"].subscribe("$G", "direct", lambda m: got.append((m.headers, m.data)))
    world.planes["n0"].publish("$G", f"$JS.API.DIRECT.GET.{subject}", body, reply="direct")
    world.settle(1)
    subscription.close()
    return got


def test_direct_get_by_subject_sequence_and_batch(world: World) -> None:
    make(world, allow_direct=True)
    stream = world.engines["n0"].asset("$G", "S").stream
    for i in range(4):
        stream.publish(f"s.{i % 2}", b"m%d" % i)
    world.settle()
    ((headers, data),) = direct(world, "S.s.1")
    assert data == b"m3"
    assert b"Nats-Stream: S\r\nNats-Subject: s.1\r\nNats-Sequence: 4\r\n" in headers
    assert direct(world, "S", b'{"seq":1}')[0][1] == b"m0"
    assert direct(world, "S", b'{"seq":1,"no_hdr":true}') == [(b"", b"m0")]
    batch = direct(world, "S", b'{"batch":2,"next_by_subj":"s.*","seq":2}')
    assert [data for _, data in batch] == [b"m1", b"m2", b""]
    assert b"Nats-Num-Pending: 1\r\n" in batch[1][0]
    assert batch[2][0].startswith(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 1\r\nNats-Last-Sequence: 3\r\n")
    multi = direct(world, "S", b'{"multi_last":["s.>"]}')
    assert [data for _, data in multi] == [b"m2", b"m3", b""]


def test_direct_get_says_why_it_has_nothing(world: World) -> None:
    make(world, allow_direct=True)
    for subject, body, status in (
        ("S.s.x", b"", b"404 Message Not Found"),
        ("S", b"", b"408 Empty Request"),
        ("S", b"{", b"408 Malformed Request"),
        ("S", b'{"batch":1}', b"408 Empty Request"),
        ("S.s.x", b'{"seq":1}', b"408 Bad Request"),
        ("S", b'{"multi_last":["s.>"]}', b"404 No Results"),
    ):
        assert direct(world, subject, body) == [(b"NATS/1.0 %s\r\n\r\n" % status, b"")]


def test_direct_get_is_there_only_while_it_is_allowed(world: World) -> None:
    make(world)
    plane = world.planes["n0"]
    assert plane.publish("$G", "$JS.API.DIRECT.GET.S", b"{}", reply="x") == 0
    world.one("STREAM.UPDATE.S", {"name": "S", "subjects": ["s.>"], "allow_direct": True})
    assert plane.publish("$G", "$JS.API.DIRECT.GET.S", b"{}", reply="x") == 1
    world.one("STREAM.DELETE.S")
    assert plane.publish("$G", "$JS.API.DIRECT.GET.S", b"{}", reply="x") == 0


# ---- consumers ----


def consume(world: World, name: str = "c", form: str = "", **config: Any) -> Any:
    body = {"stream_name": "S", "config": {"durable_name": name, "ack_policy": "explicit", **config}}
    return world.one(form or f"CONSUMER.CREATE.S.{name}", body)


def test_a_consumer_is_created_told_listed_and_deleted(world: World) -> None:
    make(world)
    answer = consume(world)
    assert answer["type"].endswith("consumer_create_response")
    assert (answer["stream_name"], answer["name"], answer["config"]["max_ack_pending"]) == ("S", "c", 1000)
    assert "cluster" not in answer
    assert world.one("CONSUMER.INFO.S.c")["name"] == "c"
    assert world.one("CONSUMER.NAMES.S")["consumers"] == ["c"]
    assert world.one("CONSUMER.LIST.S")["consumers"][0]["name"] == "c"
    assert world.one("STREAM.INFO.S")["state"]["consumer_count"] == 1
    assert world.one("CONSUMER.DELETE.S.c")["success"] is True
    assert error(world.one("CONSUMER.INFO.S.c")) == 10014
    assert world.one("CONSUMER.NAMES.S")["consumers"] == []


def test_a_pause_that_is_over_is_none(world: World) -> None:
    make(world)
    assert "pause_until" not in consume(world, pause_until="0001-01-01T00:00:00Z")["config"]


def test_all_forms_of_create(world: World) -> None:
    make(world)
    assert consume(world, "d", "CONSUMER.DURABLE.CREATE.S.d")["name"] == "d"
    assert consume(world, "f", "CONSUMER.CREATE.S.f.s.a.b", filter_subject="s.a.b")["name"] == "f"
    assert error(consume(world, "g", "CONSUMER.CREATE.S.g.s.a", filter_subject="s.b")) == 10131
    assert error(consume(world, "h", "CONSUMER.CREATE.S")) == 10020
    assert error(consume(world, "i", "CONSUMER.CREATE.S.other")) == 10017
    ephemeral = world.one("CONSUMER.CREATE.S", {"stream_name": "S", "config": {"ack_policy": "explicit"}})
    assert len(ephemeral["name"]) == 8


def test_the_same_consumer_again_succeeds_and_others_are_told_apart(world: World) -> None:
    make(world)
    consume(world)
    assert "error" not in consume(world)
    assert error(consume(world, ack_policy="none")) == 10012
    assert error(consume(world, max_deliver=3)) == 10012
    assert consume(world, description="new")["config"]["description"] == "new"
    body = {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "all"}, "action": "create"}
    assert error(world.one("CONSUMER.CREATE.S.c", body)) == 10148
    body = {"stream_name": "S", "config": {"durable_name": "z", "ack_policy": "all"}, "action": "update"}
    assert error(world.one("CONSUMER.CREATE.S.z", body)) == 10149


def test_two_creates_of_one_name_in_one_turn_give_one_consumer(world: World) -> None:
    make(world)
    answers = []
    world.planes["n0"].subscribe("$G", "in", lambda m: answers.append(m.data))
    for _ in range(2):
        body = b'{"stream_name":"S","config":{"durable_name":"c","ack_policy":"explicit"}}'
        world.planes["n0"].publish("$G", "$JS.API.CONSUMER.CREATE.S.c", body, reply="in")
    world.settle()
    assert len(answers) == 2
    assert not any(b"error" in a for a in answers)
    assert len(world.engines["n0"].asset("$G", "S").stream.consumers) == 1


def test_max_consumers_counts_those_under_way(world: World) -> None:
    make(world, max_consumers=1)
    consume(world)
    assert error(consume(world, "d")) == 10026


def test_an_expired_consumer_is_deleted(world: World) -> None:
    make(world)
    consume(world)
    engine = world.engines["n0"]
    asset = engine.asset("$G", "S")
    engine.consumer_expired(asset.id, asset.consumers["c"].id)
    world.settle()
    assert error(world.one("CONSUMER.INFO.S.c")) == 10014


# ---- restart and failure ----


def test_streams_consumers_and_messages_are_there_after_a_restart(world: World) -> None:
    make(world)
    make(world, "GONE")
    world.one("STREAM.DELETE.GONE")
    world.engines["n0"].asset("$G", "S").stream.publish("s.a", b"x")
    consume(world)
    world.one("STREAM.UPDATE.S", {"name": "S", "subjects": ["s.>"], "max_msgs": 9})
    term = world.engines["n0"].asset("$G", "S").stream.term
    world.stop("n0")
    world.start("n0")
    info = world.one("STREAM.INFO.S")
    assert info["config"]["max_msgs"] == 9
    assert info["state"]["messages"] == 1
    assert world.one("CONSUMER.NAMES.S")["consumers"] == ["c"]
    assert world.one("STREAM.NAMES")["streams"] == ["S"]
    assert world.engines["n0"].asset("$G", "S").stream.term == term + 1
    assert world.lines["n0"].errors() == []


def test_a_stream_that_cannot_be_opened_is_refused_and_taken_back(world: World, tmp_path: Path) -> None:
    world.stores["n0"].broken.add(str(tmp_path / "n0" / "streams"))
    assert error(make(world)) == 10049
    world.stores["n0"].broken.clear()
    assert "error" not in make(world)


def test_a_stream_that_was_there_before_is_not_taken_back(world: World, tmp_path: Path) -> None:
    """The entry that made it is news to a server whose meta log lost its end, not to the stream's directory."""
    make(world, "T")
    engine = world.engines["n0"]
    like = engine.state.get("$G", "T")
    config = {**like.config, "name": "S", "subjects": ["s.>"]}
    assignment = msgspec.structs.replace(like, name="S", group="S-R1F-abcdefgh", config=config)
    Path(engine.directory_of(assignment)).mkdir()
    world.stores["n0"].broken.add(engine.directory_of(assignment))
    engine.propose_meta(CreateStream(assignment, "_INBOX.late"))
    world.settle(2)
    assert engine.state.get("$G", "S") is not None
    assert Path(engine.directory_of(assignment)).is_dir()


def test_a_failed_log_stops_its_stream_alone(world: World) -> None:
    make(world)
    make(world, "T")
    engine = world.engines["n0"]
    engine.log_failed(engine.asset("$G", "S").id, -28)
    assert error(world.one("STREAM.INFO.S")) == 10194
    assert "error" not in world.one("STREAM.INFO.T")


def test_directories_of_unknown_streams_stay(world: World, tmp_path: Path) -> None:
    make(world)
    world.stop("n0")
    stranger = tmp_path / "n0" / "streams" / "$G" / "S-R1F-stranger"
    stranger.mkdir()
    world.start("n0")
    assert stranger.is_dir()
    assert any("S-R1F-stranger" in text for _, text in world.lines["n0"].lines)
