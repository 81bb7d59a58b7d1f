"""Users, accounts, permissions and limits of one configuration file, word for word as nats-server answers them.

Each test is played to the daemon and, where it is installed, to the peer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from harness import Lab, Server, Wire, command, peer_command, wait_for_log

BCRYPT = "$2a$04$xgj8HbscCVYw1LvVHwgZIeBTjx9WzRaHZPXjGsvyuQtslmR9CuGhS"  # of "secret"
Start = Callable[[str], "Play"]


class Play:
    """A server and raw connections to it."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.server = server
        self.stack = stack

    def connect(self, line: str | None = None, **fields: object) -> Wire:
        """A connection that sent CONNECT with these fields (`line`: that instead) and has read INFO."""
        wire = self.stack.enter_context(Wire(self.server.port))
        wire.until(b"\r\n")
        if line is None:
            fields = {"verbose": False, "pedantic": False, "protocol": 1} | fields
            line = f"CONNECT {json.dumps(fields)}\r\n"
        wire.seen = b""
        wire.send(line.encode())
        return wire

    def user(self, name: str, password: str = "p", **fields: object) -> Wire:
        """A client that was let in."""
        wire = self.connect(user=name, **{"pass": password}, **fields)
        said(wire)
        return wire


def said(wire: Wire, line: str = "") -> str:
    """What a connection hears up to the PONG of a PING sent behind `line`, without INFO."""
    wire.send(line.encode() + b"PING\r\n")
    text, _, wire.seen = wire.until(b"PONG\r\n").partition(b"PONG\r\n")
    return re.sub(r"INFO .*?\r\n", "", text.decode())


def parting(wire: Wire) -> str:
    """What is heard until the other side closes."""
    return re.sub(r"INFO .*?\r\n", "", wire.until_closed().decode())


@pytest.fixture(params=["ours", "peer"])
def start(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Start]:
    cmd = peer_command() if request.param == "peer" else command()
    with ExitStack() as stack:

        def start(text: str) -> Play:
            server = lab.server(f"s{len(lab.servers)}", f"listen: 127.0.0.1:PORT\n{text}\n", cmd=cmd)
            server.start()
            wait_for_log(server, "Server is ready")
            return Play(server, stack)

        yield start


VIOLATION = "-ERR 'Authorization Violation'\r\n"


def test_one_user_with_a_password(start: Start) -> None:
    play = start("authorization { user: u, password: p }")
    assert said(play.user("u")) == ""
    for wrong in (
        {"user": "u", "pass": "P"},
        {"user": "u"},
        {"user": "v", "pass": "p"},
        {"auth_token": "p"},
        {},
        {"user": "u", "pass": "p\0"},
    ):
        assert parting(play.connect(**wrong)) == VIOLATION
    assert parting(play.connect("PING\r\n")) == VIOLATION
    wait_for_log(play.server, r'\[ERR\] 127.0.0.1:\d+ - cid:\d+ - authentication error - User "v"')
    wait_for_log(play.server, r"\[WRN\] Plaintext passwords detected, use nkeys or bcrypt")


def test_a_token(start: Start) -> None:
    play = start(f"authorization {{ token: '{BCRYPT}' }}")
    assert said(play.connect(auth_token="secret")) == ""
    for wrong in ({"auth_token": "Secret"}, {"auth_token": BCRYPT}, {"pass": "secret"}, {}):
        assert parting(play.connect(**wrong)) == VIOLATION
    wait_for_log(play.server, r'authentication error - Token "\[REDACTED\]"')
    assert "Plaintext" not in play.server.log.read_text()


def test_users_with_hashed_passwords(start: Start) -> None:
    play = start(f"authorization {{ users: [{{user: a, password: {BCRYPT}}}, {{user: b, password: p}}] }}")
    for _ in range(2):
        assert said(play.user("a", "secret")) == ""
        assert parting(play.connect(user="a", **{"pass": "wrong"})) == VIOLATION
    assert said(play.user("b")) == ""
    assert parting(play.connect(user="a", **{"pass": BCRYPT})) == VIOLATION


def test_accounts_hear_nothing_of_each_other(start: Start) -> None:
    play = start("accounts { A { users: [{user: a, pass: p}] }, B { users: [{user: b, pass: p}] } }")
    a, b = play.user("a"), play.user("b")
    said(a, "SUB > 1\r\n")
    said(b, "SUB > 1\r\n")
    said(a, "PUB x 1\r\na\r\n")
    said(b, "PUB y 1\r\nb\r\n")
    assert said(a, "PUB end 0\r\n\r\n") == "MSG end 1 0\r\n\r\n"
    assert said(b, "PUB end 0\r\n\r\n") == "MSG end 1 0\r\n\r\n"
    assert parting(play.connect()) == VIOLATION


def test_who_shows_nothing_is_the_no_auth_user(start: Start) -> None:
    play = start(
        """accounts { A { users: [{user: a, pass: p, permissions: {publish: x}}] }, B { users: [{user: b, pass: p}] } }
        no_auth_user: a"""
    )
    b, a = play.user("b"), play.user("a")
    said(a, "SUB > 1\r\n")
    nobody = play.connect("")
    assert said(nobody, "PUB x 1\r\n1\r\n") == "+OK\r\n"
    assert said(nobody, "PUB y 1\r\n1\r\n") == "-ERR 'Permissions Violation for Publish to \"y\"'\r\n"
    assert said(play.connect(), "PUB x 1\r\n2\r\n") == ""
    assert said(a) == "MSG x 1 1\r\n1\r\nMSG x 1 1\r\n2\r\n"
    assert said(b, "SUB > 1\r\nPUB end 0\r\n\r\n") == "MSG end 1 0\r\n\r\n"
    assert parting(play.connect(user="a", **{"pass": "x"})) == VIOLATION
    assert parting(play.connect(auth_token="x")) == VIOLATION
    with Wire(play.server.port) as wire:
        assert b"auth_required" not in wire.until(b"\r\n")


def test_info_after_connect_names_the_account(start: Start) -> None:
    play = start(
        """accounts { A { users: [{user: a, pass: p}], limits { max_payload: 5 } }
          "$SYS" { users: [{user: s, pass: p}] } }"""
    )
    for name, account, payload in (("a", "A", 5), ("s", "$SYS", 1 << 20)):
        wire = play.connect(user=name, **{"pass": "p"})
        wire.send(b"PING\r\n")
        wire.until(b"PONG\r\n")
        info = json.loads(wire.until(b"} \r\n").partition(b"INFO ")[2])
        assert (info["connect_info"], info["remote_account"], info["max_payload"]) == (True, account, payload)
        assert info["auth_required"] is True
        assert info.get("acc_is_sys", False) == (account == "$SYS")


def test_with_users_of_the_system_account_alone_the_rest_is_open(start: Start) -> None:
    play = start('accounts { "$SYS" { users: [{user: s, pass: p}] } }')
    with Wire(play.server.port) as wire:
        assert b'"auth_required":true' in wire.until(b"\r\n")
    system, other = play.user("s"), play.connect()
    said(system, "SUB x 1\r\n")
    assert said(other, "SUB x 1\r\nPUB x 1\r\n1\r\n") == "MSG x 1 1\r\n1\r\n"
    assert said(system) == ""
    assert parting(play.connect(user="s", **{"pass": "x"})) == VIOLATION


def test_connect_must_come_in_time(start: Start) -> None:
    play = start("authorization { user: u, password: p, timeout: 0.2 }")
    kept = play.user("u")
    assert parting(play.connect("")) == "-ERR 'Authentication Timeout'\r\n"
    assert said(kept) == ""


def test_limits_of_an_account(start: Start) -> None:
    play = start(
        """accounts {
          A { users: [{user: a, pass: p}], limits { max_connections: 2, max_subs: 2, max_payload: 4 } }
          B { users: [{user: b, pass: p}] } }"""
    )
    first, second = play.user("a"), play.user("a")
    assert parting(play.connect(user="a", **{"pass": "p"})) == "-ERR 'maximum account active connections exceeded'\r\n"
    assert said(play.user("b"), "SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n") == ""
    assert said(first, "SUB a 1\r\nSUB b 2\r\nSUB c 3\r\n") == "-ERR 'maximum subscriptions exceeded'\r\n"
    assert said(first, "UNSUB 1\r\nSUB c 3\r\n") == ""
    first.send(b"PUB c 5\r\n12345\r\n")
    assert parting(first) == "-ERR 'Maximum Payload Violation'\r\n"
    assert said(second, "PUB c 4\r\n1234\r\n") == ""
    assert said(play.user("a")) == ""  # in the place of the first


def permitted(start: Start, permissions: str) -> tuple[Wire, Wire]:
    """A user with these permissions, and one without."""
    play = start(f"authorization {{ users: [{{user: u, pass: p, permissions: {permissions}}}, {{user: w, pass: p}}] }}")
    return play.user("u"), play.user("w")


def denied(what: str, subject: str, queue: str = "") -> str:
    in_queue = f' using queue "{queue}"' if queue else ""
    return f"-ERR 'Permissions Violation for {what} \"{subject}\"{in_queue}'\r\n"


def test_publish_permissions(start: Start) -> None:
    user, other = permitted(start, '{ publish: { allow: ["a.>", "b"], deny: ["a.x.*", "a.secret"] } }')
    said(other, "SUB > 1\r\n")
    for subject in ("a.b", "b", "a.x", "a.x.y.z", "a.*"):
        for _ in range(2):
            assert said(user, f"PUB {subject} 1\r\n1\r\n") == ""
    for subject in ("c", "b.c", "a", "a.x.y", "a.secret", "A.b", "a..b"):
        for _ in range(2):
            assert said(user, f"PUB {subject} 1\r\n1\r\n") == denied("Publish to", subject)
    assert said(other).count("MSG") == 10


def test_subscribe_permissions(start: Start) -> None:
    user, other = permitted(start, '{ subscribe: { allow: "b.*", deny: "b.x" } }')
    assert said(user, "SUB b.> 1\r\n") == ""
    assert said(user, "SUB b.x 2\r\n") == denied("Subscription to", "b.x")
    assert said(user, "SUB b.x q 3\r\n") == denied("Subscription to", "b.x", "q")
    assert said(user, "SUB > 4\r\nSUB c 5\r\n") == denied("Subscription to", ">") + denied("Subscription to", "c")
    said(other, "PUB b.x 1\r\n1\r\nPUB b.y 1\r\n2\r\nPUB b.y.z 1\r\n3\r\n")
    assert said(user) == "MSG b.y 1 1\r\n2\r\nMSG b.y.z 1 1\r\n3\r\n"


def test_a_denied_member_of_a_group_is_passed_over(start: Start) -> None:
    user, other = permitted(start, "{ subscribe: { deny: a } }")
    said(user, "SUB * q 1\r\n")
    said(other, "SUB a q 1\r\n")
    assert said(other, "PUB a 1\r\n1\r\n" * 20).count("MSG") == 20


def test_queue_permissions(start: Start) -> None:
    user, _ = permitted(start, '{ subscribe: { allow: ["foo", "foo v1", "foo v1.>", "bar q"] } }')
    assert said(user, "SUB foo 1\r\nSUB foo v1 2\r\nSUB foo v1.x 3\r\nSUB bar q 4\r\n") == ""
    assert said(user, "SUB foo v2 5\r\n") == denied("Subscription to", "foo", "v2")
    assert said(user, "SUB bar 6\r\nSUB bar p 7\r\n") == denied("Subscription to", "bar") + denied(
        "Subscription to", "bar", "p"
    )
    user, other = permitted(start, '{ subscribe: { deny: "foo q" } }')
    assert said(user, "SUB foo 1\r\nSUB foo r 2\r\nSUB * q 3\r\n") == ""
    assert said(user, "SUB foo q 4\r\n") == denied("Subscription to", "foo", "q")
    said(user, "UNSUB 1\r\nUNSUB 2\r\n")
    said(other, "PUB foo 1\r\n1\r\nPUB bar 1\r\n2\r\n")
    assert said(user) == "MSG bar 3 1\r\n2\r\n"


def test_leave_to_answer(start: Start) -> None:
    user, other = permitted(start, "{ publish: b, allow_responses: { max: 2, expires: '1m' } }")
    said(user, "SUB a 1\r\n")
    refused = denied("Publish to", "r")
    assert said(user, "PUB r 1\r\n0\r\nPUB b 1\r\n0\r\n") == refused
    said(other, "SUB r 1\r\nPUB a r 1\r\nx\r\n")
    assert said(user, "PUB r 1\r\n1\r\n") == "MSG a 1 r 1\r\nx\r\n"
    assert said(user, "PUB r 1\r\n2\r\nPUB r 1\r\n3\r\n") == refused
    assert said(other) == "MSG r 1 1\r\n1\r\nMSG r 1 1\r\n2\r\n"
    user, other = permitted(start, "{ allow_responses: { expires: '50ms', max: -1 } }")
    said(user, "SUB a 1\r\n")
    said(other, "PUB a r 1\r\nx\r\n")
    assert said(user) == "MSG a 1 r 1\r\nx\r\n"
    for _ in range(10_000):  # until the time for it is over
        if said(user, "PUB r 1\r\n1\r\n") == refused:
            break
    else:
        pytest.fail("answering was allowed for ever")
    assert said(user, "PUB other 1\r\n1\r\n") == denied("Publish to", "other")


def test_default_permissions_are_for_users_without_their_own(start: Start) -> None:
    play = start(
        """accounts { A { default_permissions { publish: a }
          users: [{user: u, pass: p}, {user: v, pass: p, permissions { publish: b }}] } }"""
    )
    assert said(play.user("u"), "PUB a 1\r\n1\r\nPUB b 1\r\n1\r\n") == denied("Publish to", "b")
    assert said(play.user("v"), "PUB a 1\r\n1\r\nPUB b 1\r\n1\r\n") == denied("Publish to", "a")


def test_connection_types(start: Start) -> None:
    play = start(
        """authorization { users: [{user: u, pass: p, allowed_connection_types: [standard]},
          {user: w, pass: p, allowed_connection_types: [WEBSOCKET]}] }"""
    )
    assert said(play.user("u")) == ""
    assert parting(play.connect(user="w", **{"pass": "p"})) == VIOLATION


def test_a_second_connect_may_bring_another_user(start: Start) -> None:
    play = start(
        """accounts { A { users: [{user: a, pass: p, permissions { publish: a }}] }
          B { users: [{user: b, pass: p}] } }"""
    )
    wire = play.user("a")
    assert said(wire, "SUB x 1\r\nPUB b 1\r\n1\r\n") == denied("Publish to", "b")
    again = 'CONNECT {"user":"b","pass":"p","verbose":false}\r\n'
    assert said(wire, again + "PUB b 1\r\n1\r\nPUB x 1\r\n1\r\n") == ""
    wire.send(b'CONNECT {"user":"b","pass":"x","verbose":false}\r\n')
    assert parting(wire) == VIOLATION


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("no_auth_user: z", 'no_auth_user: "z" present, but users/nkeys are not defined'),
        (
            "authorization { users: [{user: a, pass: b}] }\nno_auth_user: z",
            'no_auth_user: "z" not present as user or nkey in authorization block or account configuration',
        ),
        ("system_account: X", "error resolving system account: account missing"),
        ("authorization { token: t, user: u, pass: p }", "Cannot have a user/pass and token"),
        ("authorization { users: [{user: a, pass: b}, {user: a, pass: c}] }", 'Duplicate user "a" detected'),
        (
            "accounts { A { users: [{user: a, pass: b}] }, B { users: [{user: a, pass: b}] } }",
            'Duplicate user "a" detected',
        ),
    ],
)
def test_what_cannot_be(lab: Lab, text: str, complaint: str) -> None:
    for cmd in (command(), peer_command()):
        server = lab.server(f"s{len(lab.servers)}", f"listen: 127.0.0.1:PORT\n{text}\n", cmd=cmd)
        server.start()
        wait_for_log(server, re.escape(complaint))
        assert server.process is not None
        assert server.process.wait(20) == 1
