"""Subject mappings: where messages of clients go instead, played to the daemon and to the peer."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from harness import Lab, Server, Wire, command, free_ports, peer_command, wait_for, wait_for_log

Start = Callable[[str], Server]
Connect = Callable[..., Wire]

FUNCTIONS = {
    "l": "L",
    "w.*.*": "W.{{wildcard(2)}}.$1",
    "p.*.*": "P.{{partition(10,1,2)}}",
    "p1.*.*": "P.{{partition(7)}}",
    "s.*": "S.{{split(1,-)}}",
    "sl.*": "SL.{{splitfromleft(1,3)}}",
    "sr.*": "SR.{{splitFromRight(1,2)}}",
    "cl.*": "CL.{{slicefromleft(1,3)}}",
    "cr.*": "CR.{{SliceFromRight(1,3)}}",
    "r.*": "R.{{random(1)}}",
    "t.*.>": "T.$1.x.>",
    "n.*": "N",
}
SUBJECTS = (
    *("l", "l.a", "w.a.b", "w.a.b.c", "w.*.b", "w.*.>", "p.a.b", "p.foo.bar", "p1.a.b", "s.a-b-c", "s.-a--b-"),
    *("sl.abcdef", "sl.ab", "sr.abcdef", "sr.ab", "cl.abcdefgh", "cl.abc", "cr.abcdefgh", "r.a", "t.a.b.c", "t.a"),
    *("t.a.>", "n.x", "S.plain"),
)


@pytest.fixture(params=["ours", "peer"])
def start(lab: Lab, request: pytest.FixtureRequest) -> Start:
    cmd = peer_command() if request.param == "peer" else command()

    def start(text: str) -> Server:
        server = lab.server(f"s{len(lab.servers)}", f"listen: 127.0.0.1:PORT\n{text}\n", cmd=cmd)
        server.start()
        wait_for_log(server, "Server is ready")
        return server

    return start


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:

        def connect(server: Server, **fields: object) -> Wire:
            wire = stack.enter_context(Wire(server.port))
            wire.until(b"\r\n")
            asked = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True} | fields
            wire.send(f"CONNECT {json.dumps(asked)}\r\n".encode())
            wire.seen = b""
            return wire

        yield connect


def said(wire: Wire, line: str = "") -> str:
    wire.send(line.encode() + b"PING\r\n")
    text, _, wire.seen = wire.until(b"PONG\r\n").partition(b"PONG\r\n")
    return text.decode()


def shares(wire: Wire, subject: str, n: int = 2000) -> dict[str, int]:
    """How many percent of what is published on a subject arrive where."""
    arrived = Counter(line.split()[1] for line in said(wire, f"PUB {subject} 0\r\n\r\n" * n).split("\r\n") if line)
    return {where: round(100 * count / n) for where, count in arrived.items()}


def test_each_function(start: Start, connect: Connect) -> None:
    lines = "\n".join(f'"{source}": "{destination}"' for source, destination in FUNCTIONS.items())
    wire = connect(start(f"mappings {{ {lines} }}"))
    said(wire, "SUB > 1\r\n")
    arrived = {subject: said(wire, f"PUB {subject} 0\r\n\r\n").split(" ")[1] for subject in SUBJECTS}
    assert arrived == {
        **{subject: subject for subject in ("l.a", "w.a.b.c", "w.*.>", "t.a", "S.plain")},
        **{"l": "L", "w.a.b": "W.b.a", "w.*.b": "W.b.*", "p.a.b": "P.6", "p.foo.bar": "P.0", "p1.a.b": "P.0"},
        **{"s.a-b-c": "S.a.b.c", "s.-a--b-": "S.a.b", "sl.abcdef": "SL.abc.def", "sl.ab": "SL.ab"},
        **{"sr.abcdef": "SR.abcd.ef", "sr.ab": "SR.ab", "cl.abcdefgh": "CL.abc.def.gh", "cl.abc": "CL.abc"},
        **{"cr.abcdefgh": "CR.ab.cde.fgh", "r.a": "R.0", "t.a.b.c": "T.a.x.b.c", "t.a.>": "T.a.x.>", "n.x": "N"},
    }


def test_weights(start: Start, connect: Connect) -> None:
    wire = connect(
        start(
            """mappings {
            half: {dest: b, weight: 50%}
            three: [{dest: b, weight: 50}, {dest: c, weight: 20}]
            listed: [{dest: b, weight: 50}, {dest: listed, weight: 20}]
            none: {dest: b, weight: 0}
            "wild.*": [{dest: "b.$1", weight: 30}, {dest: "c.$1", weight: 20}] }"""
        )
    )
    said(wire, "SUB > 1\r\n")
    for subject, expected in {
        "half": {"b": 50, "half": 50},
        "three": {"b": 50, "c": 20, "three": 30},
        "listed": {"b": 50, "listed": 20},
        "none": {"none": 100},
        "wild.x": {"b.x": 30, "c.x": 20, "wild.x": 50},
    }.items():
        found = shares(wire, subject)
        assert found.keys() == expected.keys()
        assert all(abs(found[where] - percent) <= 6 for where, percent in expected.items()), (subject, found)


def test_the_subject_that_counts_is_the_mapped_one(start: Start, connect: Connect) -> None:
    server = start(
        """mappings { a: b, "q.*": "Q.$1", b: c, lost: [{dest: lost, weight: 0}] }
        authorization { users: [{user: u, password: p, permissions: {publish: a}},
          {user: v, password: p, permissions: {publish: b}}, {user: w, password: p}] }"""
    )
    u, v, w = (connect(server, user=name, **{"pass": "p"}) for name in "uvw")
    refused = "-ERR 'Permissions Violation for Publish to \"b\"'\r\n"
    assert said(u, "PUB a 0\r\n\r\n") == refused
    assert said(v, "PUB a 0\r\n\r\n") == ""
    assert said(w, "SUB a 1\r\nSUB b 2\r\nSUB r 3\r\nHPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n") == (
        "HMSG b 2 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
    )
    nobody = "HMSG r 3 {0} {0}\r\nNATS/1.0 503\r\nNats-Subject: {1}\r\n\r\n\r\n"
    assert said(w, "PUB q.7 r 0\r\n\r\n") == nobody.format(35, "Q.7")
    assert said(w, "PUB lost r 0\r\n\r\n") == nobody.format(32, "")


def test_accounts_have_their_own(start: Start, connect: Connect) -> None:
    server = start(
        """mappings { a: top }
        accounts { A { users: [{user: a, password: p}], mappings { a: b } }, B { users: [{user: b, password: p}] } }"""
    )
    for name, expected in (("a", "b"), ("b", "a")):
        wire = connect(server, user=name, **{"pass": "p"})
        assert said(wire, "SUB > 1\r\nPUB a 0\r\n\r\n").split(" ")[1] == expected


def test_a_reload_changes_them(start: Start, connect: Connect) -> None:
    server = start("mappings { a: b }")
    wire = connect(server)
    assert said(wire, "SUB > 1\r\nPUB a 0\r\n\r\n").split(" ")[1] == "b"
    text = server.conf.read_text()
    for now, expected in (("mappings { a: c }", "c"), ("mappings { c: d }", "a")):
        server.conf.write_text(text.replace("mappings { a: b }", now))
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        for _ in range(2000):  # until it has
            if said(wire, "PUB a 0\r\n\r\n").split(" ")[1] == expected:
                break
        else:
            pytest.fail("the reload was not applied")


def test_over_a_route_nothing_is_mapped_again(start: Start, connect: Connect) -> None:
    routes = free_ports(2)
    servers = []
    for at, mappings in enumerate(("a: b, x: [{dest: y, weight: 100, cluster: Q}, {dest: z, weight: 100}]", "b: c")):
        servers.append(
            start(
                f"""mappings {{ {mappings} }}\nserver_name: n{at}
                cluster {{ name: Q, listen: 127.0.0.1:{routes[at]}, routes: [nats://127.0.0.1:{routes[1 - at]}] }}"""
            )
        )
    near, far = (connect(server) for server in servers)
    said(far, "SUB > 1\r\n")
    said(near, "SUB r 1\r\n")
    wait_for(lambda: "503" not in said(near, "PUB there r 0\r\n\r\n"), 20, "the interest crosses")
    said(near, "PUB a 0\r\n\r\nPUB x 0\r\n\r\n")
    text = far.until(b"MSG y 1 ")
    assert b"MSG b 1 " in text
    assert b"MSG c 1 " not in text


def test_a_stream_takes_what_is_mapped_to_it(start: Start, connect: Connect) -> None:
    server = start('jetstream { store_dir: "HOME/store" }\nmappings { "in.*": "out.$1" }')
    wire = connect(server)
    create = json.dumps({"name": "S", "subjects": ["out.>"]})
    said(wire, "SUB r 1\r\n")
    wire.send(f"PUB $JS.API.STREAM.CREATE.S r {len(create)}\r\n{create}\r\n".encode())
    wire.until(b'"did_create":true')
    wire.until(b"\r\n")
    wire.seen = b""
    wire.send(b"PUB in.x r 1\r\n1\r\n")
    wire.until(b'"seq":1')
    wire.seen = b""
    ask = json.dumps({"seq": 1})
    wire.send(f"PUB $JS.API.STREAM.MSG.GET.S r {len(ask)}\r\n{ask}\r\n".encode())
    wire.until(b'"subject":"out.x"')
