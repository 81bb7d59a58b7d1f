"""Every answer to a create or update compared, byte for byte, with a live nats-server."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jscore_server.jetstream.consumer_config import (
    check_consumer_config,
    check_consumer_request,
    check_consumer_update,
    shown_consumer_config,
)
from jscore_server.jetstream.decode import decode_json
from jscore_server.jetstream.errors import ApiError
from jscore_server.jetstream.models import (
    ConsumerConfig,
    ConsumerInfo,
    CreateConsumerRequest,
    SequenceInfo,
    StreamConfig,
    StreamConfigRequest,
    StreamInfo,
    StreamState,
    encode_response,
)
from jscore_server.jetstream.stream_config import check_stream_config, check_stream_update, shown_config

S = 1_000_000_000


class Peer:
    """A bare client: one request, one answer."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.sock.makefile("rb")
        info = json.loads(self.file.readline().removeprefix(b"INFO "))
        self.version = info["version"]
        self.level = str(info.get("api_lvl", 0))
        self.sock.sendall(
            b'CONNECT {"verbose":false,"protocol":1,"lang":"test","version":"0"}\r\nSUB inbox.> 1\r\nPING\r\n'
        )
        while self.file.readline() != b"PONG\r\n":
            pass

    def request(self, call: str, body: bytes) -> bytes:
        """The answer; asked again when the peer's own disk work failed, which it does now and then under load."""
        for _ in range(3):
            answer = self._request(call, body)
            if b'"err_code":10049' not in answer:
                break
        return answer

    def _request(self, call: str, body: bytes) -> bytes:
        self.sock.sendall(b"PUB $JS.API.%s inbox.1 %d\r\n%s\r\n" % (call.encode(), len(body), body))
        while True:
            line = self.file.readline()
            assert line, "the peer closed the connection"
            if line.startswith(b"MSG "):
                data = self.file.read(int(line.split()[-1]) + 2)
                return data[:-2]
            if line == b"PING\r\n":
                self.sock.sendall(b"PONG\r\n")

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    binary = shutil.which("nats-server")
    if binary is None:
        pytest.skip("nats-server is not on PATH")
    home: Path = tmp_path_factory.mktemp("peer")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary, "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(home), "-n", "n0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if b"Server is ready" in line:
                    break
            client = Peer(port)
            if not client.version.startswith("2.14."):
                pytest.skip(f"compared with 2.14, found {client.version}")
            yield client
            client.close()
        finally:
            process.terminate()


def masked(answer: bytes) -> bytes:
    """Times differ; everything else must not."""
    return re.sub(rb'"(created|ts)":"[^"]*"', rb'"\1":"-"', answer)


def differ(found: list[str], case: object, ours: bytes, theirs: bytes) -> None:
    """Collects what differs, so that one run shows all of it."""
    if masked(ours) != masked(theirs):
        found.append(f"{str(case)[:200]}\n  ours   {ours[:900]!r}\n  theirs {theirs[:900]!r}")


def error(type_name: str, err: ApiError) -> bytes:
    return encode_response(type_name, error=err)


def stream_answer(peer: Peer, name: str, body: bytes) -> tuple[bytes, StreamConfig | None]:
    try:
        request = decode_json(body, StreamConfigRequest)
        config = check_stream_config(request.config(), pedantic=request.pedantic)
    except ApiError as err:
        return error("stream_create", err), None
    shown = shown_config(config, peer.version)
    shown.metadata["_nats.level"] = peer.level
    first = config.first_seq
    state = StreamState(first_seq=first, last_seq=max(first - 1, 0))
    info = StreamInfo(config=shown, created="-", state=state, ts="-")
    return encode_response("stream_create", info, did_create=True), config


CREATES: list[dict[str, Any]] = [
    {},
    {"subjects": ["{n}.a.>", "{n}.b"], "description": "d<x>&\u00e9\u2028", "retention": "interest", "max_consumers": 5},
    {"max_msgs": 10, "max_bytes": 1000, "max_age": S, "max_msgs_per_subject": 3, "max_msg_size": 100},
    {"discard": "NEW", "discard_new_per_subject": True, "max_msgs_per_subject": 1, "storage": "memory"},
    {"no_ack": True, "compression": "s2", "first_seq": 5, "allow_direct": True, "deny_delete": True},
    {"deny_purge": True, "consumer_limits": {"inactive_threshold": 5, "max_ack_pending": 7}},
    {"allow_rollup_hdrs": True, "metadata": {"b": "1", "a": "2", "_nats.ver": "x", "_nats.req.level": "9"}},
    {"duplicate_window": 200 * S},
    {"placement": {}},
    {"placement": {"cluster": "x", "tags": ["a"]}},
    {"persist_mode": "default"},
    {"max_msgs": -5, "max_bytes": -9, "max_consumers": -2, "max_msgs_per_subject": -3, "max_msg_size": -4},
    {"subjects": ["{n}", "$SYS.ACCOUNT.{n}"]},
    {"subjects": ["$JS.EVENT.ADVISORY.{n}"]},
    {"subjects": ["a", "a"]},
    {"subjects": ["h.a", "h.*"]},
    {"subjects": ["h.*", "h.a"]},
    {"subjects": ["h.>", "x", "h.a.b"]},
    {"subjects": ["a b"]},
    {"subjects": [""]},
    {"subjects": ["a..b"]},
    {"subjects": ["a.>.b"]},
    {"subjects": [">"]},
    {"subjects": ["*.b5"]},
    {"subjects": ["$JS.x"]},
    {"subjects": ["$SYS.a"]},
    {"subjects": ["$JSC.a"]},
    {"subjects": ["$NRG.a"]},
    {"description": "x" * 4097},
    {"metadata": {"a": "x" * 131072}},
    {"max_age": 5},
    {"max_age": -5},
    {"num_replicas": 6},
    {"num_replicas": -1},
    {"num_replicas": 3},
    {"duplicate_window": 5},
    {"duplicate_window": -5},
    {"max_age": S, "duplicate_window": 2 * S},
    {"placement": {"preferred": "a"}},
    {"sealed": True},
    {"discard_new_per_subject": True},
    {"discard": "new", "discard_new_per_subject": True},
    {"deny_purge": True, "allow_rollup_hdrs": True},
    {"mirror_direct": True},
    {"max_msgs": -5, "pedantic": True},
    {"max_msg_size": -5, "pedantic": True},
    {"max_age": S, "pedantic": True},
    {"persist_mode": "async", "storage": "memory"},
    {"persist_mode": "async", "allow_atomic": True},
    {"subject_delete_marker_ttl": 5},
    {"subject_delete_marker_ttl": -5},
    {"subject_delete_marker_ttl": S, "pedantic": True},
    {"allow_msg_schedules": True, "pedantic": True},
    {"allow_msg_counter": True, "discard": "new"},
    {"allow_msg_counter": True, "allow_msg_ttl": True},
    {"allow_msg_counter": True, "retention": "interest"},
    {"allow_msg_counter": True, "allow_msg_schedules": True},
    {"allow_msg_schedules": True, "discard": "new"},
    {"mirror": {"name": "x"}, "subjects": ["k"]},
    {"mirror": {"name": "x"}, "sources": [{"name": "k"}]},
    {"mirror": {"name": "x"}, "first_seq": 3},
    {"mirror": {"name": "x"}, "allow_atomic": True},
    {"mirror": {"name": "x"}, "allow_batched": True},
    {"mirror": {"name": "x"}, "allow_msg_counter": True},
    {"mirror": {"name": "x"}, "allow_msg_schedules": True},
    {"mirror": {"name": "a.b"}},
    {"mirror": {"name": "x"}, "subject_delete_marker_ttl": S},
    {"sources": [{"name": ""}]},
    {"sources": [{"name": "a"}, {"name": "a"}]},
    {"sources": [{"name": "a"}], "allow_msg_schedules": True},
]


def test_create_answers_equal_the_peers(peer: Peer) -> None:
    found: list[str] = []
    for number, case in enumerate(CREATES):
        name = f"c{number}"
        body = json.dumps({"name": name, **case}).replace("{n}", name).encode()
        ours, _ = stream_answer(peer, name, body)
        differ(found, case, ours, peer.request(f"STREAM.CREATE.{name}", body))
        peer.request(f"STREAM.DELETE.{name}", b"")
    assert not found


RAW_BODIES = [
    '{"name":"Z","foo":1}',
    '{"name":1}',
    '{"name":"Z","max_age":1e9}',
    '{"name":"Z","max_age":1.5}',
    '{"name":"Z","max_age":"1s"}',
    '{"name":"Z"}x',
    '{"name":"Z"',
    '{"name":"Z","x":[1,2],"y":',
    "[]",
    '"x"',
    "5",
    "nul",
    "nux",
    '{"name":tru}',
    '{"name":faLse}',
    '{"name":01}',
    "{name:1}",
    '{"name":"Z",}',
    '{"name" "Z"}',
    '{"name":"Z" "x"}',
    '{"subjects":["a" "b"]}',
    '{"name":"Z","subjects":["a',
    '{"name":"Z\tq"}',
    '{"name":"Z\\q"}',
    '[{"name":"Z"}]',
    '{"name":"Z","retention":"foo"}',
    '{"name":"Z","retention":""}',
    '{"name":"Z","retention":1}',
    '{"name":"Z","discard":""}',
    '{"name":"Z","storage":""}',
    '{"name":"Z","compression":"foo"}',
    '{"name":"Z","persist_mode":"x"}',
    '{"name":"Z","subjects":"a"}',
    '{"name":"Z","subjects":[1]}',
    '{"name":"Z","max_msg_size":3000000000}',
    '{"name":"Z","first_seq":-1}',
    '{"name":"Z","max_msgs":99999999999999999999}',
    '{"name":"Z","max_msgs":5.0}',
    '{"name":"Z","max_msgs":true}',
    '{"name":"Z","placement":{"foo":1}}',
    '{"name":"Z","no_ack":"x"}',
    '{"name":"Z","metadata":{"a":1}}',
    '{"name":"Z","sources":{}}',
    '{"name":"Z","mirror":{"name":"a","opt_start_time":"x"}}',
    '{"name":"Z","template_owner":"x"}',
    '{"name":"Z","sources":[null,{}]}',
    # accepted
    '{"NAME":"z0","Max_Msgs":8,"MAX_MSGS":9,"max_msgs":null}',
    '{"name":"z1"} {"max_msgs":7}',
    '{"name":"z2","consumer_limits":{"max_ack_pending":1},"consumer_limits":{"inactive_threshold":2}}',
    '{"name":"z3","subjects":null,"metadata":null,"placement":null}',
    ' \n{"name":"z4","description":"\\ud800\\u00e9\\n\\u0001"}\t',
    '{"name":"z5","metadata":{"a":"1"},"metadata":{"b":"2"}}',
]


@pytest.mark.parametrize("text", RAW_BODIES)
def test_json_is_judged_as_the_peer_judges_it(peer: Peer, text: str) -> None:
    found = re.search(r'"(z\d)"', text)
    name = found[1] if found else "Z"
    ours, _ = stream_answer(peer, name, text.encode())
    assert masked(ours) == masked(peer.request(f"STREAM.CREATE.{name}", text.encode()))


@pytest.mark.parametrize("text", ['{"name":"\\u00zz"}', '{"name":-}', '{"name":NaN}', '{"name":-Infinity}', "\ufeff{}"])
def test_rarer_faults_have_the_peers_number_if_not_its_words(peer: Peer, text: str) -> None:
    ours, _ = stream_answer(peer, "Z", text.encode())
    theirs = peer.request("STREAM.CREATE.Z", text.encode())
    assert json.loads(ours)["error"]["err_code"] == json.loads(theirs)["error"]["err_code"] == 10025


UPDATES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"storage": "memory"}),
    ({"retention": "workqueue"}, {}),
    ({}, {"retention": "workqueue"}),
    ({}, {"retention": "interest"}),
    ({"deny_delete": True}, {}),
    ({"deny_purge": True}, {}),
    ({}, {"sealed": True}),
    ({"allow_rollup_hdrs": True, "max_age": S}, {"sealed": True}),
    ({"max_consumers": 5, "description": "a", "max_msgs": 4}, {"max_consumers": 7}),
    ({"first_seq": 4}, {"first_seq": 6}),
    ({}, {"mirror_direct": True, "allow_direct": True}),
    ({"subjects": ["{n}.a"]}, {"subjects": ["{n}.a", "{n}.b"], "duplicate_window": S}),
]


def test_update_answers_equal_the_peers(peer: Peer) -> None:
    for number, (before, after) in enumerate(UPDATES):
        name = f"u{number}"
        first = json.dumps({"name": name, **before}).replace("{n}", name).encode()
        second = json.dumps({"name": name, **after}).replace("{n}", name).encode()
        _, old = stream_answer(peer, name, first)
        assert old is not None
        peer.request(f"STREAM.CREATE.{name}", first)
        theirs = json.loads(peer.request(f"STREAM.UPDATE.{name}", second))
        try:
            new = check_stream_config(decode_json(second, StreamConfigRequest).config(), update=True)
            shown = shown_config(check_stream_update(old, new), peer.version)
            shown.metadata["_nats.level"] = peer.level
            ours = {"config": msgspec.to_builtins(shown, str_keys=True)}
        except ApiError as err:
            ours = {"error": err.to_dict()}
        assert {key: theirs[key] for key in ours} == ours, (before, after)


CONSUMERS: list[dict[str, Any]] = [
    {},
    {"ack_policy": "explicit"},
    {"durable_name": "{n}", "ack_policy": "explicit", "description": "x", "max_deliver": 5, "backoff": [S, 2 * S]},
    {"filter_subjects": ["a", "b"], "replay_policy": "original", "max_waiting": 9, "headers_only": True},
    {"ack_policy": "explicit", "max_ack_pending": 4, "max_batch": 4, "max_expires": S, "max_bytes": 99},
    {"inactive_threshold": 10 * S, "num_replicas": 1, "mem_storage": True, "metadata": {"q": "r"}},
    {"deliver_policy": "by_start_time", "opt_start_time": "2024-01-01T00:00:00.120Z"},
    {"deliver_policy": "undefined"},
    {"deliver_policy": "last_per_subject", "filter_subject": ">"},
    {"deliver_subject": "dd", "deliver_group": "g", "ack_policy": "explicit", "ack_wait": S, "idle_heartbeat": S},
    {"deliver_subject": "d8", "flow_control": True, "idle_heartbeat": S, "max_batch": 4, "max_expires": 4},
    {"ack_policy": "all", "max_ack_pending": -5},
    {"max_ack_pending": 77},
    {"backoff": [1, 2]},
    {"backoff": [5, 2], "ack_wait": 9, "ack_policy": "explicit"},
    {"max_batch": -3, "max_waiting": -3, "max_expires": -3, "max_bytes": -4, "idle_heartbeat": -1, "max_deliver": -7},
    {"deliver_group": "x"},
    {"sample_freq": "0"},
    {"num_replicas": 2},
    {"num_replicas": -1},
    {"backoff": [-1]},
    {"ack_wait": -1},
    {"backoff": [1, 2, 3], "max_deliver": 2},
    {"backoff": [1, 2, 3], "max_deliver": 3},
    {"deliver_subject": "a.*"},
    {"deliver_subject": "a..b"},
    {"deliver_subject": "pl.x"},
    {"deliver_subject": "d1", "max_waiting": 4},
    {"deliver_subject": "d2", "max_ack_pending": 5},
    {"deliver_subject": "d3", "idle_heartbeat": 5},
    {"rate_limit_bps": 4},
    {"idle_heartbeat": S},
    {"flow_control": True},
    {"max_expires": 5},
    {"direct": True},
    {"durable_name": "{n}", "direct": True, "deliver_subject": "d4"},
    {"filter_subject": "a", "filter_subjects": ["b"]},
    {"filter_subjects": ["b", ""]},
    {"filter_subjects": ["b", "*"]},
    {"filter_subjects": ["b..c"]},
    {"filter_subject": "b..c"},
    {"opt_start_seq": 4},
    {"opt_start_time": "2024-01-01T00:00:00Z"},
    {"deliver_policy": "last", "opt_start_seq": 4},
    {"deliver_policy": "by_start_sequence"},
    {"deliver_policy": "by_start_sequence", "opt_start_seq": 4, "opt_start_time": "2024-01-01T00:00:00Z"},
    {"deliver_policy": "by_start_time"},
    {"deliver_policy": "by_start_time", "opt_start_seq": 4, "opt_start_time": "2024-01-01T00:00:00Z"},
    {"deliver_policy": "last_per_subject"},
    {"deliver_policy": "last_per_subject", "opt_start_seq": 4, "filter_subject": ">"},
    {"sample_freq": "x"},
    {"sample_freq": "-5"},
    {"deliver_subject": "d5", "flow_control": True},
    {"metadata": {"a": "x" * 131072}},
    {"description": "x" * 4097},
    {"priority_policy": "overflow"},
    {"priority_groups": ["a"]},
    {"priority_policy": "overflow", "priority_groups": [""]},
    {"priority_policy": "overflow", "priority_groups": ["a b"]},
    {"deliver_subject": "d6", "priority_policy": "overflow", "priority_groups": ["a"]},
    {"priority_timeout": 5},
    {"ack_policy": "flow_control"},
    {"ack_policy": "foo"},
    {"deliver_policy": ""},
    {"replay_policy": "x"},
    {"priority_policy": ""},
    {"ack_wait": "1"},
    {"backoff": ["x"]},
    {"opt_start_time": "z"},
    {"rate_limit_bps": -1},
    {"foo": 1},
]
PEDANTIC: list[dict[str, Any]] = [
    {"max_batch": -3},
    {"max_waiting": -3},
    {"max_bytes": -3},
    {"inactive_threshold": -3},
    {"priority_timeout": -4},
    {"max_deliver": -3},
    {"max_ack_pending": -3},
    {"ack_wait": 9, "backoff": [5]},
    {},
]


def consumer_answer(peer: Peer, stream: StreamConfig, name: str, body: bytes) -> tuple[bytes, ConsumerConfig | None]:
    try:
        request = decode_json(body, CreateConsumerRequest)
        config = check_consumer_request(request, stream=stream.name, name=name)
        config = check_consumer_config(config, stream, pedantic=request.pedantic)
    except ApiError as err:
        return error("consumer_create", err), None
    shown = shown_consumer_config(config, peer.version)
    shown.metadata["_nats.level"] = peer.level
    info = ConsumerInfo(stream.name, config.name, "-", shown, SequenceInfo(), SequenceInfo(), ts="-")
    return encode_response("consumer_create", info), config


def make_stream(peer: Peer, name: str, **fields: Any) -> StreamConfig:
    body = json.dumps({"name": name, **fields}).encode()
    assert b'"error"' not in peer.request(f"STREAM.CREATE.{name}", body)
    return check_stream_config(decode_json(body, StreamConfigRequest).config())


def test_consumer_answers_equal_the_peers(peer: Peer) -> None:
    stream = make_stream(peer, "PL", subjects=["pl.*"])
    found: list[str] = []
    cases = [(case, False) for case in CONSUMERS] + [(case, True) for case in PEDANTIC]
    for number, (case, pedantic) in enumerate(cases):
        name = f"c{number}"
        body = json.dumps({"stream_name": "PL", "config": case, "pedantic": pedantic}).replace("{n}", name).encode()
        ours, _ = consumer_answer(peer, stream, name, body)
        differ(found, case, ours, peer.request(f"CONSUMER.CREATE.PL.{name}", body))
    assert not found


def test_stream_limits_bear_on_consumers_as_in_the_peer(peer: Peer) -> None:
    stream = make_stream(peer, "CL", consumer_limits={"max_ack_pending": 50, "inactive_threshold": 10 * S})
    found: list[str] = []
    cases: list[dict[str, Any]] = [
        {},
        {"ack_policy": "explicit"},
        {"ack_policy": "explicit", "max_ack_pending": 60},
        {"ack_policy": "explicit", "max_ack_pending": -1},
        {"inactive_threshold": 20 * S},
        {"deliver_subject": "ff"},
        {"durable_name": "{n}", "ack_policy": "explicit"},
    ]
    for number, case in enumerate(cases):
        name = f"c{number}"
        body = json.dumps({"stream_name": "CL", "config": case}).replace("{n}", name).encode()
        ours, _ = consumer_answer(peer, stream, name, body)
        differ(found, case, ours, peer.request(f"CONSUMER.CREATE.CL.{name}", body))
    assert not found


CONSUMER_UPDATES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"deliver_policy": "new"}, {}),
    ({"ack_policy": "explicit"}, {}),
    ({"replay_policy": "original"}, {}),
    ({"deliver_subject": "u1", "idle_heartbeat": S}, {"deliver_subject": "u1"}),
    (
        {"deliver_subject": "u2", "idle_heartbeat": S, "flow_control": True},
        {"deliver_subject": "u2", "idle_heartbeat": S},
    ),
    ({"max_waiting": 4}, {}),
    ({}, {"deliver_subject": "u4"}),
    ({"deliver_subject": "u5"}, {}),
    ({}, {"mem_storage": True}),
    (
        {"deliver_policy": "by_start_sequence", "opt_start_seq": 4},
        {"deliver_policy": "by_start_sequence", "opt_start_seq": 5},
    ),
    (
        {"deliver_policy": "by_start_time", "opt_start_time": "2024-01-01T00:00:00Z"},
        {"deliver_policy": "by_start_time", "opt_start_time": "2024-01-01T00:00:01Z"},
    ),
]


def test_refused_consumer_updates_equal_the_peers(peer: Peer) -> None:
    stream = make_stream(peer, "CU", subjects=["cu.*"])
    for number, (before, after) in enumerate(CONSUMER_UPDATES):
        name = f"c{number}"
        bodies = [json.dumps({"stream_name": "CU", "config": case}).encode() for case in (before, after)]
        old, new = (consumer_answer(peer, stream, name, body)[1] for body in bodies)
        assert old is not None
        assert new is not None
        peer.request(f"CONSUMER.CREATE.CU.{name}", bodies[0])
        with pytest.raises(ApiError) as caught:
            check_consumer_update(old, new)
        assert error("consumer_create", caught.value) == peer.request(f"CONSUMER.CREATE.CU.{name}", bodies[1])


SUBJECT_CASES = [
    ("CREATE.SJ", {"name": "a.b"}),
    ("CREATE.SJ", {"durable_name": "zz"}),
    ("CREATE.SJ", {"name": "x" * 256}),
    ("CREATE.SJ", {"name": "a/b"}),
    ("DURABLE.CREATE.SJ.zz", {"durable_name": "yy"}),
    ("DURABLE.CREATE.SJ.zz", {}),
    ("CREATE.SJ.zz.a.b", {"filter_subject": "a.c"}),
    ("CREATE.SJ.zz.a.b", {"filter_subjects": ["a.c"]}),
    ("CREATE.SJ.zz.a.b", {}),
    ("CREATE.SJ." + "y" * 256, {"durable_name": "y" * 256}),
    ("CREATE.SJ.zz", {"durable_name": "yy"}),
]


def test_subject_and_body_must_agree_as_in_the_peer(peer: Peer) -> None:
    stream = make_stream(peer, "SJ", subjects=["sj.*"])
    for subject, config in SUBJECT_CASES:
        body = json.dumps({"stream_name": "SJ", "config": config}).encode()
        name, _, rest = subject.partition("CREATE.SJ")[2].removeprefix(".").partition(".")
        with pytest.raises(ApiError) as caught:
            check_consumer_config(
                check_consumer_request(
                    decode_json(body, CreateConsumerRequest),
                    stream="SJ",
                    name=name,
                    filter_subject=rest,
                    durable=subject.startswith("DURABLE"),
                ),
                stream,
            )
        assert error("consumer_create", caught.value) == peer.request(f"CONSUMER.{subject}", body), subject
