"""Message tracing: the same messages played to the daemon and to nats-server give the same events."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from harness import Lab, Server, Wire, command, free_ports, nats_cli, peer_command, wait_for_log

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-1] + "0"
DEST = "Nats-Trace-Dest: tr.x"
ONLY = "Nats-Trace-Only: true"
Event = dict[str, Any]

ACCOUNTS = """
jetstream { store_dir: "HOME/store" }
mappings { "map.*": "foo.$1" }
no_auth_user: dora
accounts {
  $SYS { users: [ {user: sys, password: sys} ] }
  D { jetstream: enabled, users: [ {user: dora, password: p},
       {user: shy, password: p, permissions: {publish: {deny: ["no.>", "tr.>"]}, subscribe: {deny: "foo.deny"}}} ]
       mappings { "map.*": "foo.$1" } }
  T { users: [ {user: tom, password: p} ], msg_trace: {dest: "tr.acc", sampling: 100} }
}
"""


class Peer(Wire):
    """A client that publishes with headers and reads messages one by one."""

    def said(self, *lines: bytes) -> bytes:
        """Everything that came until what was sent is done."""
        self.send(b"".join(lines) + b"PING\r\n")
        self.until(b"PONG\r\n")
        text, _, self.seen = self.seen.partition(b"PONG\r\n")
        return text

    def subscribe(self, *subjects: str) -> None:
        self.said(*(f"SUB {subject} {sid}\r\n".encode() for sid, subject in enumerate(subjects, 1)))

    def publish(self, subject: str, *headers: str, reply: str = "", data: bytes = b"x") -> bytes:
        head = b"NATS/1.0\r\n" + b"".join(f"{line}\r\n".encode() for line in headers) + b"\r\n"
        line = f"HPUB {subject} {reply} {len(head)} {len(head) + len(data)}\r\n"
        text = self.said(line.encode(), head, data, b"\r\n")
        if b"MSG " in text:  # what it got itself is still to be read
            self.seen = text + self.seen
        return text

    def message(self) -> tuple[str, bytes, bytes]:
        """The next message: subject, headers, data."""
        while True:
            self.until(b"\r\n")
            line, _, rest = self.seen.partition(b"\r\n")
            if line.split()[:1] in ([b"MSG"], [b"HMSG"]):
                break
            self.seen = rest
        fields = line.split()
        size = int(fields[-1])
        while len(self.seen) < len(line) + 2 + size + 2:
            piece = self.sock.recv(65536)
            assert piece, "closed"
            self.seen += piece
        body = self.seen[len(line) + 2 :][:size]
        self.seen = self.seen[len(line) + 2 + size + 2 :]
        headers = int(fields[-2]) if fields[0] == b"HMSG" else 0
        return fields[1].decode(), body[:headers], body[headers:]

    def event(self, dest: str = "") -> Event:
        """The next trace, or the next one for that destination."""
        subject, headers, data = self.message()
        while dest and subject != dest:
            subject, headers, data = self.message()
        if b"gzip" in headers:
            data = gzip.decompress(data)
        found: Event = json.loads(data)
        return found


Connect = Callable[..., Peer]


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:

        def connect(server: Server, name: str, user: str = "", **fields: object) -> Peer:
            wire = stack.enter_context(Peer(server.port))
            wire.until(b"\r\n")
            asked = {"verbose": False, "headers": True, "no_responders": True, "name": name} | fields
            if user:
                asked |= {"user": user, "pass": "p"}
            wire.send(f"CONNECT {json.dumps(asked)}\r\n".encode())
            wire.said()
            return wire

        yield connect


def plain(event: Event) -> Event:
    """Without what differs from server to server and run to run."""
    kept = {key: value for key, value in event.items() if key != "server"}
    kept["server"] = event["server"]["name"]
    kept["events"] = [{k: v for k, v in step.items() if k not in ("ts", "cid")} for step in event["events"]]
    assert all(step["ts"].endswith("Z") for step in event["events"])
    assert all(step["cid"] > 0 for step in event["events"] if "kind" in step)
    return kept


def create(wire: Peer, name: str, **config: object) -> None:
    body = json.dumps({"name": name, "subjects": [f"{name}.>"], **config}).encode()
    wire.subscribe("made")
    wire.send(f"PUB $JS.API.STREAM.CREATE.{name} made {len(body)}\r\n".encode() + body + b"\r\n")
    assert b'"error"' not in wire.message()[2]
    wire.said(b"UNSUB 1\r\n")


@pytest.fixture(params=["ours", "peer"])
def solo(lab: Lab, request: pytest.FixtureRequest) -> Server:
    cmd = peer_command() if request.param == "peer" else command()
    server = lab.server("solo", f"server_name: solo\nlisten: 127.0.0.1:PORT\n{ACCOUNTS}", cmd=cmd)
    server.start()
    wait_for_log(server, "Server is ready")
    return server


def came(subject: str, name: str = "pub", account: str = "D", **more: object) -> Event:
    return {"type": "in", "kind": 0, "name": name, "acc": account, "subj": subject, **more}


def went(name: str, pattern: str, **more: object) -> Event:
    return {"type": "eg", "kind": 0, "name": name, "sub": pattern, **more}


def test_who_got_it(solo: Server, connect: Connect) -> None:
    sub, reader, pub = connect(solo, "sub"), connect(solo, "reader"), connect(solo, "pub")
    quiet = connect(solo, "quiet", echo=False)
    sub.subscribe("foo.>", "foo.* q1")
    reader.subscribe("tr.>")

    def traced(subject: str, *headers: str, by: Peer = pub) -> list[Event]:
        by.publish(subject, *headers)
        return list(plain(reader.event())["events"])

    both = [went("sub", "foo.>"), went("sub", "foo.*", queue="q1")]
    assert traced("nobody", DEST) == [came("nobody")]
    assert traced("foo.a", DEST) == [came("foo.a"), *both]
    assert sub.said().count(DEST.encode()) == 2
    assert traced("map.z", DEST) == [came("map.z"), {"type": "sm", "to": "foo.z"}, *both]
    assert sub.said().count(b"HMSG foo.z ") == 2
    assert traced("foo.a", DEST, ONLY) == [came("foo.a"), *both]
    assert sub.said() == b""
    quiet.subscribe("foo.b")
    steps = traced("foo.b", DEST, by=quiet)
    assert steps[0] == came("foo.b", "quiet")
    assert went("quiet", "foo.b", error="Not delivered because of no echo") in steps
    assert sub.said().count(b"HMSG foo.b ") == 2


def test_what_the_event_says_of_the_message(solo: Server, connect: Connect) -> None:
    reader, pub = connect(solo, "reader"), connect(solo, "pub")
    reader.subscribe("tr.>")
    pub.publish("a", DEST, "Z: 1", "B: 2", "Z: 3", data=b"12345")
    event = reader.event()
    assert event["request"] == {"header": {"B": ["2"], "Nats-Trace-Dest": ["tr.x"], "Z": ["1", "3"]}, "msgsize": 58}
    assert event["server"]["name"] == "solo"
    assert "hops" not in event
    assert list(event) == ["server", "request", "events"]
    pub.publish("a", DEST, "Accept-Encoding: br, gzip")
    assert plain(reader.event())["events"] == [came("a")]
    pub.publish("a", DEST, "Accept-Encoding: snappy")
    _, headers, data = reader.message()
    assert b"Content-Encoding: snappy" in headers
    assert data.startswith(b"\xff\x06\x00\x00sNaPpY")


@pytest.mark.parametrize(
    "headers",
    [
        ("nats-trace-dest: tr.x",),
        ("Nats-Trace-Dest: ",),
        ("Nats-Trace-Dest: tr.*",),
        ("Nats-Trace-Dest: trace disabled",),
        ("Nats-Trace-Dest : tr.x",),
        ("odd", DEST),
        (ONLY,),
        (DEST, "Nats-Trace-Origin-Account: T"),
        (f"traceparent: {SAMPLED}",),
    ],
)
def test_what_asks_for_no_trace(solo: Server, connect: Connect, headers: tuple[str, ...]) -> None:
    reader, pub = connect(solo, "reader"), connect(solo, "pub")
    reader.subscribe("tr.>", "foo")
    pub.publish("foo", *headers)
    pub.publish("end", DEST)
    assert reader.message()[0] == "foo"
    assert plain(reader.event())["events"] == [came("end")]


def test_permissions(solo: Server, connect: Connect) -> None:
    reader, shy, pub = connect(solo, "reader"), connect(solo, "shy", "shy"), connect(solo, "pub")
    reader.subscribe("other", "tr.>")
    shy.subscribe("foo.*")
    shy.publish("no.way", "Nats-Trace-Dest: other")
    denied = 'Permissions Violation for Publish to "no.way"'
    assert plain(reader.event())["events"] == [came("no.way", "shy", error=denied)]
    pub.publish("foo.deny", DEST)
    text = "Not delivered because subscription denies this subject"
    assert plain(reader.event())["events"] == [came("foo.deny"), went("shy", "foo.*", error=text)]
    # Where the event may not go, the message does not go either.
    assert b'Permissions Violation for Publish to "tr.x"' in shy.publish("foo.a", DEST)
    pub.publish("end", DEST)
    assert plain(reader.event())["events"] == [came("end")]
    assert shy.said() == b""


def test_an_account_samples(solo: Server, connect: Connect) -> None:
    tom = connect(solo, "tom", "tom")
    tom.subscribe("tr.>", "foo")
    steps = [came("foo", "tom", "T"), went("tom", "foo")]
    for line in (f"traceparent: {SAMPLED}", f"TraceParent: {SAMPLED[:-1]}3"):
        tom.publish("foo", line, ONLY)
        assert {tom.message()[0], tom.message()[0]} == {"foo", "tr.acc"}  # ONLY needs a destination of its own
    for line in (f"traceparent: {UNSAMPLED}", "traceparent: 1-2", "traceparent: a-b-c-ff", f"traceparent: {SAMPLED}0"):
        tom.publish("foo", line)
        assert tom.message()[0] == "foo"
    tom.publish("foo", f"traceparent: {SAMPLED}", "Nats-Trace-Dest: tr.own", ONLY)
    assert plain(tom.event())["events"] == steps
    assert tom.said() == b""


def test_streams(solo: Server, connect: Connect) -> None:
    reader, pub = connect(solo, "reader"), connect(solo, "pub")
    create(pub, "S", max_msg_size=100)
    create(pub, "I", retention="interest")
    create(pub, "D", max_msgs=1, discard="new")
    reader.subscribe("tr.>")
    pub.subscribe("ack")

    def traced(subject: str, *headers: str) -> Event:
        pub.publish(subject, DEST, *headers, reply="ack")
        step = plain(reader.event())["events"][1]
        assert step.pop("type") == "js"
        return dict(step)

    def ack() -> Event:
        return dict(json.loads(pub.message()[2]))

    assert traced("S.a") == {"stream": "S", "subject": "S.a"}
    assert ack()["seq"] == 1
    assert traced("S.a", ONLY) == {"stream": "S", "subject": "S.a"}
    assert traced("S.a", ONLY, "Nats-Expected-Stream: X") == {
        "stream": "S",
        "error": "expected stream does not match",
    }
    assert ack()["error"]["err_code"] == 10060
    for headers, error in {
        ("Nats-Expected-Last-Sequence: 7",): "last sequence mismatch: 7 vs 1",
        ("Nats-Expected-Last-Subject-Sequence: 9",): "last sequence by subject mismatch: 9 vs 1",
        ("Nats-Expected-Last-Msg-Id: z",): 'last msgid mismatch: "z" vs ""',
        (f"Pad: {'y' * 100}",): "maximum payload exceeded",
        ("Nats-Rollup: all",): "rollup not permitted",
        ("Nats-TTL: 1s",): "message TTL disabled",
    }.items():
        assert traced("S.a", *headers) == {"stream": "S", "error": error}
        assert ack()["seq"] == 0
    assert traced("S.a", "Nats-Msg-Id: one") == {"stream": "S", "subject": "S.a"}
    assert traced("S.a", "Nats-Msg-Id: one") == {"stream": "S", "error": "msgid is duplicate"}
    assert [ack()["seq"], ack()["seq"]] == [2, 2]
    assert traced("I.a") == {"stream": "I", "subject": "I.a", "nointerest": True}
    assert traced("D.a") == {"stream": "D", "subject": "D.a"}
    assert traced("D.a") == {"stream": "D", "subject": "D.a", "error": "maximum messages exceeded"}
    assert traced("D.a", ONLY) == {"stream": "D", "subject": "D.a"}  # limits are not asked when nothing is stored


def test_what_is_stored_is_not_traced_again(solo: Server, connect: Connect) -> None:
    reader, pub = connect(solo, "reader"), connect(solo, "pub")
    create(pub, "S")
    reader.subscribe("tr.>", "got")
    pub.publish("S.a", DEST, "Key: value", reply="got")
    answers = dict(reader.message()[::2] for _ in range(2))
    assert json.loads(answers["got"])["seq"] == 1
    request = b'{"last_by_subj":"S.a"}'
    pub.send(f"PUB $JS.API.STREAM.MSG.GET.S got {len(request)}\r\n".encode() + request + b"\r\n")
    stored = json.loads(reader.message()[2])["message"]["hdrs"]
    lines = base64.b64decode(stored).split(b"\r\n")
    assert sorted(lines) == sorted((b"NATS/1.0", b"Key: value", b"Nats-Trace-Dest: trace disabled", b"", b""))


def test_the_api(solo: Server, connect: Connect) -> None:
    reader, pub = connect(solo, "reader"), connect(solo, "pub")
    reader.subscribe("tr.>")
    pub.subscribe("re")
    api = "$JS.API.INFO"
    steps = [came(api), {"type": "si", "acc": "$SYS", "from": api, "to": api}]
    pub.publish(api, DEST, ONLY, reply="re")
    assert plain(reader.event())["events"] == steps
    assert b"503" in pub.message()[1]
    pub.publish(api, DEST, reply="re")
    assert plain(reader.event())["events"] == steps
    assert b"account_info_response" in pub.message()[2]


@pytest.mark.parametrize("makes", ["ours ours", "ours peer", "peer ours"])
def test_hops(lab: Lab, connect: Connect, makes: str) -> None:
    ports = free_ports(2)
    servers = []
    for n, make in enumerate(makes.split()):
        cmd = peer_command() if make == "peer" else command()
        routes = f'name: c1, listen: "127.0.0.1:{ports[n]}", routes: [ nats-route://127.0.0.1:{ports[1 - n]} ]'
        text = f"server_name: n{n}\nlisten: 127.0.0.1:PORT\ncluster {{ {routes} }}\n"
        text += 'accounts { D { users: [{user: dora, password: p}], msg_trace: "tr.acc" } }\nno_auth_user: dora\n'
        servers.append(lab.server(f"n{n}", text, cmd=cmd))
        servers[-1].start()
    for server in servers:
        wait_for_log(server, "Server is ready")
    near, far, pub = connect(servers[0], "near"), connect(servers[1], "far"), connect(servers[0], "pub")
    near.subscribe("tr.>")
    far.subscribe("foo.*", "foo.q q1")
    while True:  # until interest is known on both sides; each try waits for its event
        pub.publish("foo.q", "Nats-Trace-Dest: tr.probe", ONLY)
        if near.event("tr.probe")["server"]["name"] == "n1":
            break
    sent = {"type": "eg", "kind": 1, "name": "n1", "hop": "1"}
    arrived = {"type": "in", "kind": 1, "name": "n0", "acc": "D", "subj": "foo.q"}
    delivered = [went("far", "foo.*"), went("far", "foo.q", queue="q1")]

    def traced(*headers: str, dest: str = "tr.x") -> None:
        pub.publish("foo.q", *headers)
        events = {event["server"]: event for event in (plain(near.event(dest)), plain(near.event(dest)))}
        assert events["n0"]["events"] == [came("foo.q"), sent]
        assert events["n0"]["hops"] == 1
        assert events["n1"]["events"] == [arrived, *delivered]
        assert events["n1"]["request"]["header"]["Nats-Trace-Hop"] == ["1"]
        assert "hops" not in events["n1"]

    traced(DEST, ONLY)
    assert far.said() == b""
    traced(DEST, "Nats-Trace-Hop: 7")
    assert far.said().count(b"Nats-Trace-Hop: 1\r\n") == 2
    traced(f"traceparent: {SAMPLED}", dest="tr.acc")
    assert far.said().count(b"Nats-Trace-Hop: 1\r\n") == 2


def test_the_nats_command_shows_the_path(solo: Server, connect: Connect) -> None:
    connect(solo, "worker").subscribe("orders.*")
    shown = nats_cli(solo.url, "trace", "orders.new")
    assert "worker" in shown
    assert "orders.*" in shown
