"""Websocket clients: the HTTP upgrade, frames right and wrong, compression, closing."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from harness import Lab, Server, Wire, command, free_ports, ours, peer_command, wait_for, wait_for_log
from websocket_wire import ACCEPT, CLOSE, PING, PONG, TEXT, Web, deflated, frame, request

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"protocol":1}\r\nPING\r\n'


def start(
    lab: Lab, block: str = "no_tls: true", extra: str = "", *, cmd: list[str] | None = None, name: str = "web"
) -> tuple[Server, int]:
    port = free_ports(1)[0]
    text = f'listen: 127.0.0.1:PORT\ndebug: true\nwebsocket {{ listen: "127.0.0.1:{port}", {block} }}\n{extra}\n'
    server = lab.server(name, text, cmd=cmd)
    server.start()
    wait_for_log(server, "Server is ready")
    return server, port


def entered(port: int, *headers: str) -> Web:
    web = Web(port).upgrade(*headers)
    web.until(b"\r\n")
    web.put(CONNECT)
    web.until(b"PONG\r\n")
    web.seen = b""
    return web


def test_a_client_talks_to_one_on_the_other_port(lab: Lab) -> None:
    server, port = start(lab)
    with Web(port) as web, Wire(server.port).client() as plain:
        answer = web.ask(request())
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        assert b"Sec-WebSocket-Accept: " + ACCEPT in answer
        info = web.until(b"\r\n")
        assert b'"port":%d,' % port in info
        web.put(CONNECT)
        web.until(b'"connect_info":true')
        web.seen = b""
        web.put(b"SUB a 1\r\nPING\r\n")
        web.until(b"PONG\r\n")
        web.seen = b""
        plain.send(b"PUB a 5\r\nhello\r\nSUB b 2\r\nPING\r\n")
        plain.until(b"PONG\r\n")
        assert web.until(b"hello\r\n") == b"MSG a 1 5\r\nhello\r\n"
        web.put(b"PUB b 2\r\nhi\r\n")
        plain.until(b"MSG b 2 2\r\nhi\r\n")
        assert {(f.fin, f.opcode) for f in web.frames} == {(True, 2)}
    wait_for_log(server, r"127.0.0.1:\d+ - wid:\d+ - Client connection created")


def test_frames_may_cut_the_stream_anywhere(lab: Lab) -> None:
    _, port = start(lab)
    with entered(port) as web:
        stream = b"SUB a 1\r\nPUB a 5\r\nhello\r\nPING\r\n"
        for i, byte in enumerate(stream):
            piece = frame(bytes([byte]), TEXT if i % 2 else 2)
            for part in piece if i % 3 == 0 else [piece]:
                web.send(bytes([part]) if isinstance(part, int) else part)
        assert web.until(b"PONG\r\n") == b"MSG a 1 5\r\nhello\r\nPONG\r\n"
        web.seen = b""
        parts = [frame(stream[:3], fin=False), frame(b"now", PING), frame(b"", 0, fin=False), frame(stream[3:], 0)]
        web.send(b"".join(parts))
        web.until(b"PONG\r\n")
        assert [f.data for f in web.frames if f.opcode == PONG] == [b"now"]


def test_large_and_many_messages_arrive_whole(lab: Lab) -> None:
    _, port = start(lab)
    with entered(port) as web:
        body = bytes(range(256)) * 4000
        web.put(b"SUB a 1\r\nPUB a %d\r\n%s\r\n" % (len(body), body))
        assert web.until(b"\xff\r\n") == b"MSG a 1 %d\r\n%s\r\n" % (len(body), body)
        web.seen = b""
        web.put(b"".join(b"PUB a 4\r\n%04d\r\n" % i for i in range(9999)) + b"PING\r\n")
        assert web.until(b"PONG\r\n") == b"".join(b"MSG a 1 4\r\n%04d\r\n" % i for i in range(9999)) + b"PONG\r\n"


def test_a_reader_who_pauses_gets_whole_frames(lab: Lab) -> None:
    server, port = start(lab)
    with entered(port) as slow, Wire(server.port).client() as other:
        slow.put(b"SUB a 1\r\nPING\r\n")
        slow.until(b"PONG\r\n")
        slow.seen = b""
        body = b"y" * 100_000
        for _ in range(200):
            other.send(b"PUB a %d\r\n%s\r\n" % (len(body), body))
        other.send(b"PING\r\n")
        other.until(b"PONG\r\n")
        whole = b"MSG a 1 100000\r\n" + body + b"\r\n"
        want = len(whole) * 200
        slow.send(frame(b"still there", PING))
        got: list[bytes] = []
        while sum(map(len, got)) < want:
            piece = slow.next()
            if piece.opcode == 2:
                got.append(piece.data)
        assert b"".join(got) == whole * 200


def test_compressed_both_ways(lab: Lab) -> None:
    _, port = start(lab, "no_tls: true, compression: true")
    with Web(port) as web:
        head = request("/", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
        answer = web.ask(head)
        assert b"permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n" in answer
        web.until(b"\r\n")
        assert web.frames[0].packed
        web.put(CONNECT)
        web.until(b"PONG\r\n")
        web.seen = b""
        body = b"all work and no play " * 20_000
        packed = deflated(b"SUB a 1\r\nPUB a %d\r\n%s\r\nPING\r\n" % (len(body), body))
        half = len(packed) // 2
        web.send(frame(packed[:half], rsv=4, fin=False) + frame(packed[half:], 0))
        web.until(b"PONG\r\n")
        assert web.seen == b"MSG a 1 %d\r\n%s\r\nPONG\r\n" % (len(body), body)
        web.seen = b""
        for _ in range(3):  # small ones are not worth it, and mixed with others
            web.send(frame(deflated(b"PUB a 2\r\nhi\r\n"), rsv=4) + frame(b"PUB a 2\r\nho\r\n") + frame(b"", rsv=0))
        while web.seen.count(b"ho\r\n") < 3:
            web.more()
        assert web.seen == b"MSG a 1 2\r\nhi\r\nMSG a 1 2\r\nho\r\n" * 3


def test_a_compressed_message_may_not_grow_without_end(lab: Lab) -> None:
    _, port = start(lab, "no_tls: true, compression: true", "max_payload: 100000")
    with Web(port).upgrade("Sec-WebSocket-Extensions: permessage-deflate") as web:
        web.until(b"\r\n")
        web.send(frame(deflated(b"PING\r\n" * 1_000_000), rsv=4))
        assert web.closing()[0] == 1009


@pytest.mark.parametrize(
    ("bad", "status", "why"),
    [
        (frame(CONNECT, mask=False), 1002, "mask bit missing"),
        (frame(CONNECT, 3), 1002, "unknown opcode 3"),
        (frame(CONNECT, rsv=1), 1002, "RSV2 and RSV3 must be clear"),
        (frame(CONNECT, rsv=4), 1002, "compressed frame received without negotiated permessage-deflate"),
        (frame(b"x" * 126, PING), 1002, "control frame length bigger than maximum allowed of 125 bytes"),
        (frame(b"x", PING, fin=False), 1002, "control frame does not have final bit set"),
        (frame(CONNECT, 0), 1002, "invalid continuation frame"),
        (
            frame(b"P", fin=False) + frame(b"ING\r\n"),
            1002,
            "new message started before final frame for previous message was received",
        ),
        (b"\x82\xff" + struct.pack(">Q", 1 << 63) + b"mask", 1002, "invalid 64-bit payload length"),
        (frame(b"x", CLOSE), 1002, "close frame payload cannot be 1 byte"),
        (frame(struct.pack(">H", 5), CLOSE), 1002, "invalid close status code"),
        (frame(struct.pack(">H", 1000) + b"\xff", CLOSE), 1007, "invalid utf8 body in close frame"),
    ],
)
@ours  # nats-server closes some of these before its close frame is out
def test_wrong_frames_end_the_connection_with_a_reason(lab: Lab, bad: bytes, status: int, why: str) -> None:
    server, port = start(lab)
    with Web(port).upgrade() as web:
        web.send(bad)
        assert web.closing() == (status, why.encode())
    wait_for_log(server, f"read error: {why}")


def test_close_is_echoed_after_what_came_before(lab: Lab) -> None:
    server, port = start(lab)
    with entered(port) as web, Wire(server.port).client() as plain:
        plain.send(b"SUB a 1\r\nPING\r\n")
        plain.until(b"PONG\r\n")
        web.send(frame(b"PUB a 4\r\nlast\r\n") + frame(struct.pack(">H", 1000) + b"bye", CLOSE))
        assert web.closing() == (1000, b"bye")
        plain.until(b"MSG a 1 4\r\nlast\r\n")
    wait_for_log(server, "Client connection closed: Client Closed")


@ours
def test_a_fault_of_the_protocol_is_told_before_the_close(lab: Lab) -> None:
    _, port = start(lab)
    with entered(port) as web:
        web.put(b"PUB a 2000000\r\n")
        web.until(b"-ERR 'Maximum Payload Violation'\r\n")
        assert web.closing() == (1009, b"Maximum Message Payload Exceeded")
    with entered(port) as web:
        web.put(b"FOO\r\n")
        web.until(b"-ERR 'Unknown Protocol Operation'\r\n")
        assert web.closing()[0] == 1002


def test_a_browser_gets_small_fragments(lab: Lab) -> None:
    _, port = start(lab)
    with entered(port, "User-Agent: Mozilla/5.0") as web:
        web.frames.clear()
        body = b"z" * 20_000
        web.put(b"SUB a 1\r\nPUB a %d\r\n%s\r\nPING\r\n" % (len(body), body))
        web.until(b"PONG\r\n")
        assert max(len(f.data) for f in web.frames) <= 4096
        assert web.frames[-1].fin
        assert web.frames[0].opcode == 2
        assert any(f.opcode == 0 for f in web.frames)


def test_masks_are_not_needed_where_the_client_said_so(lab: Lab) -> None:
    _, port = start(lab)
    with Web(port) as web:
        assert b"Nats-No-Masking: true\r\n" in web.ask(request("/", "Nats-No-Masking: true"))
        web.send(frame(CONNECT, mask=False))
        web.until(b"PONG\r\n")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (request().replace(b"GET", b"POST", 1), 405),
        (request(Host=None), 400),
        (request(Upgrade="h2c"), 400),
        (request(Connection="keep-alive"), 400),
        (request(Sec_WebSocket_Version="12"), 400),
        (request(Sec_WebSocket_Key="AAAA"), 400),
        (request(Sec_WebSocket_Key="?"), 400),
        (request(Origin="http://evil.example"), 403),
        (request(Origin="https://good.example:1"), 403),
        (request("/mqtt"), 404),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_requests_that_do_not_fit(lab: Lab, head: bytes, status: int) -> None:
    _, port = start(lab, 'no_tls: true, allowed_origins: ["https://good.example"]')
    with Web(port) as web:
        assert web.ask(head).startswith(b"HTTP/1.1 %d " % status)


@ours
def test_a_request_without_end_is_cut_off(lab: Lab) -> None:
    _, port = start(lab)
    with Web(port) as web:
        web.sock.settimeout(5)
        assert web.ask(b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000).startswith(b"HTTP/1.1 400 ")


@ours
def test_a_request_that_does_not_come_is_not_waited_for(lab: Lab) -> None:
    _, port = start(lab, 'no_tls: true, handshake_timeout: "300ms"')
    with Wire(port) as idle:
        idle.send(b"GET / HTTP/1.1\r\n")
        assert idle.until_closed() == b""
    entered(port).sock.close()


def test_origins(lab: Lab) -> None:
    _, port = start(lab, "no_tls: true, same_origin: true")
    for origin, status in ((None, 101), ("http://localhost", 101), ("http://localhost:81", 403), ("http://x", 403)):
        with Web(port) as web:
            assert web.ask(request(Origin=origin)).startswith(b"HTTP/1.1 %d " % status), origin


def test_headers_of_the_answer_and_the_forwarded_address(lab: Lab) -> None:
    server, port = start(lab, 'no_tls: true, headers { "X-Site": "one" }')
    with Web(port) as web:
        assert b"X-Site: one\r\n" in web.ask(request("/", "X-Forwarded-For: 10.1.2.3, 127.0.0.1"))
        assert b'"client_ip":"10.1.2.3"' in web.until(b"\r\n")
    wait_for_log(server, r"10\.1\.2\.3:\d+ - wid:")


def test_over_tls(lab: Lab, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    authority.issue("server")
    files = f'cert_file: "{authority.home}/server.pem", key_file: "{authority.home}/server.key"'
    server, port = start(lab, f"tls {{ {files} }}, compression: true")
    for headers in ([], ["Sec-WebSocket-Extensions: permessage-deflate"]):
        with Web(port, authority.client()).upgrade(*headers) as web, Wire(server.port).client() as plain:
            assert b'"tls_required":true' in web.until(b"\r\n")
            web.put(CONNECT + b"SUB a 1\r\nPING\r\n")
            web.until(b"PONG\r\n")
            web.until(b"\r\nPONG\r\n")
            web.seen = b""
            body = bytes(range(256)) * 2000
            plain.send(b"PUB a %d\r\n%s\r\n" % (len(body), body) * 3)
            for _ in range(3):
                line = b"MSG a 1 %d\r\n%s\r\n" % (len(body), body)
                while len(web.seen) < len(line):
                    web.more()
                assert web.seen[: len(line)] == line
                web.seen = web.seen[len(line) :]
            web.send(frame(struct.pack(">H", 1000), CLOSE))
            assert web.closing() == (1000, b"")


# ---- who comes in: each test is played to nats-server, too, where it is installed ----


@pytest.fixture(params=["ours", "peer"])
def cmd(request: pytest.FixtureRequest) -> list[str]:
    return peer_command() if request.param == "peer" else command()


def entry(port: int, *headers: str, line: str = "", **fields: object) -> tuple[dict[str, Any], str]:
    """INFO, and what the answer to a CONNECT with these fields (or to `line`) and a PING is, up to the end or PONG."""
    with Web(port).upgrade(*headers) as web:
        info = json.loads(web.until(b"\r\n")[5:])
        web.seen = b""
        web.put((line or f"CONNECT {json.dumps({'verbose': False, **fields})}\r\n").encode() + b"PING\r\n")
        with contextlib.suppress(ConnectionError):
            web.until(b"PONG\r\n")
        return info, web.seen.decode()


REFUSED = "-ERR 'Authorization Violation'\r\n"
IN = "PONG\r\n"


def test_a_user_of_its_own(lab: Lab, cmd: list[str]) -> None:
    server, port = start(lab, "no_tls: true, authorization { user: w, password: q }", cmd=cmd)
    info, answer = entry(port, user="w", **{"pass": "q"})
    assert (info["auth_required"], answer) == (True, IN)
    for fields in ({}, {"user": "w"}, {"user": "w", "pass": "x"}):
        assert entry(port, **fields)[1] == REFUSED
    assert entry(port, line="PUB a 0\r\n\r\n")[1] == REFUSED
    with Wire(server.port) as plain:
        assert b"auth_required" not in plain.until(b"\r\n")
        plain.send(b"PUB a 0\r\n\r\nPING\r\n")
        plain.until(b"PONG\r\n")


def test_a_token_instead_of_the_servers_user(lab: Lab, cmd: list[str]) -> None:
    extra = "authorization { user: u, password: p }"
    server, port = start(lab, "no_tls: true, authorization { token: t }", extra, cmd=cmd)
    assert entry(port, auth_token="t")[1] == IN
    assert entry(port, user="u", **{"pass": "p"})[1] == REFUSED
    with Wire(server.port) as plain:
        plain.until(b"\r\n")
        plain.send(b'CONNECT {"verbose":false,"user":"u","pass":"p"}\r\nPING\r\n')
        plain.until(b"PONG\r\n")


def test_a_no_auth_user_of_its_own(lab: Lab, cmd: list[str]) -> None:
    users = "accounts { A { users: [{user: a, password: p}] }, B { users: [{user: b, password: p}] } }"
    server, port = start(lab, "no_tls: true, no_auth_user: b", users, cmd=cmd)
    with Web(port).upgrade() as web, Wire(server.port) as plain:
        web.until(b"\r\n")
        web.seen = b""
        web.put(b"SUB x 1\r\nPING\r\n")
        web.until(b"PONG\r\n")
        plain.until(b"\r\n")
        plain.send(b'CONNECT {"verbose":false,"user":"b","pass":"p"}\r\nPUB x 2\r\nhi\r\nPING\r\n')
        plain.until(b"PONG\r\n")
        web.until(b"MSG x 1 2\r\nhi\r\n")
    with Wire(server.port) as plain:
        plain.until(b"\r\n")
        plain.send(b'CONNECT {"verbose":false}\r\nPING\r\n')
        assert REFUSED.encode() in plain.until_closed()


def test_a_cookie_carries_the_password(lab: Lab, cmd: list[str]) -> None:
    block = "no_tls: true, user_cookie: U, pass_cookie: P, authorization { user: w, password: q }"
    _, port = start(lab, block, cmd=cmd)
    assert entry(port, "Cookie: U=w; P=q")[1] == IN
    assert entry(port, "Cookie: U=w; P=x")[1] == REFUSED


def test_connect_must_come_in_its_own_time(lab: Lab, cmd: list[str]) -> None:
    block = "no_tls: true, authorization { timeout: 0.3 }"
    _, port = start(lab, block, "authorization { user: u, password: p, timeout: 50 }", cmd=cmd)
    with Web(port).upgrade() as web:
        assert web.until(b"Timeout'\r\n").endswith(b"-ERR 'Authentication Timeout'\r\n")


def test_pings_at_its_own_interval(lab: Lab, cmd: list[str]) -> None:
    server, port = start(lab, 'no_tls: true, ping_interval: "100ms"', cmd=cmd)
    with Web(port).upgrade() as web, Wire(server.port).client() as plain:
        web.until(b"\r\n")
        web.put(b'CONNECT {"verbose":false}\r\nPING\r\n')
        web.until(b"PONG\r\n")
        web.seen = b""
        for _ in range(2):
            web.until(b"PING\r\n")
            web.seen = web.seen.replace(b"PING\r\n", b"", 1)
            web.put(b"PONG\r\n")
        assert b"PING" not in plain.seen


@pytest.mark.parametrize(
    ("block", "extra", "complaint"),
    [
        ("no_auth_user: x", "", 'no_auth_user: "x" present, but users/nkeys are not defined'),
        (
            "no_auth_user: x",
            "authorization { users: [{user: a, password: p}] }",
            'no_auth_user: "x" not present as user',
        ),
        (
            "authorization { user: w, password: q }",
            "authorization { users: [{user: a, password: p}] }",
            "websocket authentication username not compatible with presence of users/nkeys",
        ),
        (
            "authorization { token: q }",
            "authorization { users: [{user: a, password: p}] }",
            "websocket authentication token not compatible with presence of users/nkeys",
        ),
    ],
)
def test_what_cannot_be_asked_for(lab: Lab, cmd: list[str], block: str, extra: str, complaint: str) -> None:
    server = lab.server(
        "web", f"listen: 127.0.0.1:PORT\nwebsocket {{ port: -1, no_tls: true, {block} }}\n{extra}\n", cmd=cmd
    )
    server.start()
    wait_for_log(server, re.escape(complaint))
    assert server.process is not None
    assert server.process.wait(10) == 1


def test_a_cluster_tells_of_websocket_ports(lab: Lab, cmd: list[str]) -> None:
    """Ours and the other: each learns where the other's clients may come by websocket, and by TCP."""
    routes = free_ports(2)
    found = []
    for at, (advertise, run) in enumerate((("", command()), ('advertise: "example.com:9999"', cmd))):
        cluster = f"cluster {{ name: c, listen: 127.0.0.1:{routes[at]}, routes: [nats://127.0.0.1:{routes[1 - at]}] }}"
        block = f"no_tls: true, {advertise}"
        found.append(start(lab, block, f"server_name: n{at}\n{cluster}", cmd=run, name=f"n{at}"))
    (one, web_one), (two, web_two) = found
    ports = {f"127.0.0.1:{web_one}", "example.com:9999"}
    for port in (web_one, web_two):
        wait_for(lambda p=port: set(entry(p)[0].get("connect_urls", ())) == ports, 20, "all websocket ports in INFO")
    with Wire(one.port) as plain:
        urls = json.loads(plain.until(b"\r\n")[5:])["connect_urls"]
    assert set(urls) == {f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}"}
