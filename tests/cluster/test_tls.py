"""TLS on the client port: who gets in, who is turned away and how, and that bytes arrive whole however they are cut."""

from __future__ import annotations

import asyncio
import json
import select
import ssl
import time
import urllib.request
from pathlib import Path

import nats
import pytest
from certificates import Authority
from harness import Lab, Server, Wire, free_ports, ours, peer_command, run, run_command, wait_for_log

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"protocol":1}\r\nPING\r\n'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue("server")
    made.issue("client", "/CN=client", "email:client@example.com")
    return made


def start(lab: Lab, authority: Authority, more: str = "", extra: str = "", name: str = "secure") -> Server:
    files = f'cert_file: "{authority.home}/server.pem", key_file: "{authority.home}/server.key"'
    text = f"listen: 127.0.0.1:PORT\ndebug: true\ntls {{ {files}, {more} }}\n{extra}\n"
    server = lab.server(name, text)
    server.start()
    wait_for_log(server, "Server is ready")
    return server


def secured(wire: Wire, context: ssl.SSLContext, name: str = "localhost") -> Wire:
    wire.sock = context.wrap_socket(wire.sock, server_hostname=name)
    wire.seen = b""
    return wire


def enter(server: Server, context: ssl.SSLContext) -> Wire:
    """A client that is taken for one."""
    wire = Wire(server.port)
    wire.until(b"\r\n")
    secured(wire, context)
    wire.send(CONNECT)
    wire.until(b"PONG\r\n")
    wire.seen = b""
    return wire


def test_info_says_that_tls_is_required_and_both_versions_work(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = authority.client()
        context.minimum_version = context.maximum_version = version
        with Wire(server.port) as wire:
            assert b'"tls_required":true' in wire.until(b"\r\n")
            secured(wire, context)
            wire.send(CONNECT)
            assert b'"tls_required":true' in wire.until(b'"connect_info":true')
            wire.send(b"SUB a 1\r\nPUB a 5\r\nhello\r\n")
            wire.until(b"MSG a 1 5\r\nhello\r\n")
    wait_for_log(server, "TLS version 1.2, cipher suite TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
    wait_for_log(server, "TLS version 1.3, cipher suite TLS_AES_128_GCM_SHA256")


def test_large_and_many_messages_arrive_whole(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority)
    with enter(server, authority.client()) as wire:
        body = bytes(range(256)) * 4096
        wire.send(b"SUB a 1\r\nPING\r\n")
        wire.until(b"PONG\r\n")
        wire.seen = b""
        for _ in range(3):
            wire.send(b"PUB a %d\r\n%s\r\n" % (len(body), body))
            assert wire.until(b"\xff\r\n") == b"MSG a 1 %d\r\n%s\r\n" % (len(body), body)
            wire.seen = b""
        wire.send(b"".join(b"PUB a 4\r\n%04d\r\n" % i for i in range(5000)) + b"PING\r\n")
        assert wire.until(b"PONG\r\n") == b"".join(b"MSG a 1 4\r\n%04d\r\n" % i for i in range(5000)) + b"PONG\r\n"


def test_bytes_one_by_one_and_a_reader_who_pauses(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority)
    with enter(server, authority.client()) as slow, enter(server, authority.client()) as other:
        for byte in b"SUB big 7\r\nPING\r\n":
            slow.send(bytes([byte]))
        slow.until(b"PONG\r\n")
        slow.seen = b""
        body = b"x" * 100_000
        for i in range(200):  # more than the sockets hold
            other.send(b"PUB big %d\r\n%06d%s\r\n" % (len(body) + 6, i, body))
        other.send(b"PING\r\n")
        other.until(b"PONG\r\n")
        for i in range(200):
            line = b"MSG big 7 %d\r\n%06d" % (len(body) + 6, i)
            slow.until(b"x\r\n")
            while len(slow.seen) < len(line) + len(body) + 2:
                slow.seen += slow.sock.recv(65536)
            assert slow.seen.startswith(line)
            slow.seen = slow.seen[len(line) + len(body) + 2 :]


@pytest.mark.parametrize("first", [b"CONNECT {}\r\nPING\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 5])
def test_a_client_without_tls_is_closed_without_a_word(lab: Lab, authority: Authority, first: bytes) -> None:
    server = start(lab, authority)
    with Wire(server.port) as wire:
        info = wire.until(b"\r\n")
        wire.send(first)
        assert wire.until_closed() == info
    wait_for_log(server, "TLS handshake error: tls: first record does not look like a TLS handshake")
    wait_for_log(server, "Client connection closed: TLS Handshake Failure")


def test_who_stalls_in_the_handshake_costs_only_itself(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority, "timeout: 2")
    stalled = [Wire(server.port) for _ in range(20)]
    for i, wire in enumerate(stalled):
        wire.until(b"\r\n")
        if i % 2:
            wire.send(b"\x16\x03\x01\x02")
    with enter(server, authority.client()):
        readable, _, _ = select.select([wire.sock for wire in stalled], [], [], 0)
        assert not readable, "who came in waited until the stalled ones had been closed"
    for wire in stalled:
        wire.until_closed()
        wire.sock.close()


def test_verify_wants_a_certificate_of_the_authority(lab: Lab, authority: Authority, tmp_path: Path) -> None:
    server = start(lab, authority, f'ca_file: "{authority.pem}", verify: true')
    with enter(server, authority.client("client")) as wire:
        wire.send(b"PING\r\n")
        wire.until(b"PONG\r\n")
    with Wire(server.port) as wire:
        assert b'"tls_verify":true' in wire.until(b"\r\n")
    stranger = Authority(tmp_path / "other", "other")
    stranger.issue("client", "/CN=client", "email:client@example.com")
    theirs = authority.client()
    theirs.load_cert_chain(str(stranger.home / "client.pem"), str(stranger.home / "client.key"))
    for context, words in (
        (authority.client(), "tls: client didn't provide a certificate"),
        (theirs, "tls: failed to verify certificate: x509: certificate signed by unknown authority"),
    ):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            enter(server, context)
        wait_for_log(server, words)


def test_only_pinned_keys_get_in(lab: Lab, authority: Authority) -> None:
    pins = f'pinned_certs: ["{authority.pin("client")}"]'
    server = start(lab, authority, f'ca_file: "{authority.pem}", verify: true, {pins}')
    with enter(server, authority.client("client")):
        pass
    with pytest.raises((ssl.SSLError, ConnectionError)):
        enter(server, authority.client("server"))


def test_an_old_version_is_refused(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority, 'min_version: "1.3"')
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        enter(server, context)
    wait_for_log(server, "TLS handshake error: tls: client offered only unsupported versions")
    with enter(server, authority.client()):
        pass


def test_cipher_suites_are_those_of_the_file(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority, 'cipher_suites: ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]')
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with enter(server, context) as wire:
        assert wire.sock.cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"  # type: ignore[attr-defined]
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        enter(server, context)


def test_handshake_first_sends_nothing_in_the_clear(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority, "handshake_first: true, timeout: 0.5")
    with Wire(server.port) as wire:
        secured(wire, authority.client())
        assert wire.until(b"\r\n").startswith(b"INFO ")
        wire.send(CONNECT)
        wire.until(b"PONG\r\n")
    with Wire(server.port) as wire:
        assert wire.until_closed() == b""
    with Wire(server.port) as wire:
        wire.send(b"PING\r\n")
        assert wire.until_closed() == b""


@pytest.mark.parametrize("setting", ["auto", '"200ms"'])
def test_handshake_first_falls_back_to_info(lab: Lab, authority: Authority, setting: str) -> None:
    server = start(lab, authority, f"handshake_first: {setting}")
    with Wire(server.port) as wire:
        secured(wire, authority.client())
        assert wire.until(b"\r\n").startswith(b"INFO ")
    with enter(server, authority.client()) as wire:
        wire.send(b"PING\r\n")
        wire.until(b"PONG\r\n")


def test_plain_and_tls_on_one_port(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority, extra="allow_non_tls: true")
    with Wire(server.port) as plain, enter(server, authority.client()) as secret:
        info = plain.until(b"\r\n")
        assert b'"tls_available":true' in info
        assert b"tls_required" not in info
        plain.send(CONNECT + b"SUB a 1\r\nPING\r\n")
        plain.until(b"PONG\r\n")
        plain.until(b"PONG\r\n")
        plain.seen = b""
        secret.send(b"PUB a 2\r\nhi\r\n")
        plain.until(b"MSG a 1 2\r\nhi\r\n")


def test_handshakes_a_second_are_limited(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority, "connection_rate_limit: 3")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        wires = [Wire(server.port) for _ in range(8)]
        answers = []
        for wire in wires:
            wire.until(b"\r\n")
            wire.sock.settimeout(0.2)
            try:
                answers.append(wire.until_closed())
            except TimeoutError:
                answers.append(b"")
            wire.sock.close()
        throttled = [a for a in answers if b"-ERR 'Connection throttling is active. Please try again later.'\r\n" in a]
        if len(throttled) == 5:
            return
    pytest.fail(f"{len(throttled)} of 8 were throttled")


def test_the_certificate_follows_the_name(lab: Lab, authority: Authority) -> None:
    authority.issue("one", "/CN=one.example", "DNS:one.example")
    authority.issue("two", "/CN=two.example", "DNS:*.two.example")
    listed = ", ".join(
        f'{{ cert_file: "{authority.home}/{name}.pem", key_file: "{authority.home}/{name}.key" }}'
        for name in ("one", "two")
    )
    server = lab.server("names", f"listen: 127.0.0.1:PORT\ntls {{ certs: [{listed}] }}\n")
    server.start()
    wait_for_log(server, "Server is ready")
    for name, common in (("one.example", "one.example"), ("a.two.example", "two.example")):
        with Wire(server.port) as wire:
            wire.until(b"\r\n")
            secured(wire, authority.client(), name)
            subject = wire.sock.getpeercert()["subject"]  # type: ignore[attr-defined]
            assert subject == ((("commonName", common),),)


@ours
@pytest.mark.parametrize(
    ("block", "words"),
    [
        ('cert_file: "HOME/none.pem", key_file: "HOME/none.key"', "none.pem"),
        ('cert_file: "{0}/server.pem", key_file: "{0}/client.key"', "server.key|client.key"),
        ('cert_file: "{0}/server.pem"', "missing 'key_file' in TLS configuration"),
        ('cert_file: "{0}/server.pem", key_file: "{0}/server.key", ca_file: "{0}/server.key"', "server.key"),
    ],
)
def test_files_that_cannot_be_used_stop_the_check_and_the_start(
    lab: Lab, authority: Authority, block: str, words: str
) -> None:
    server = lab.server("bad", f"listen: 127.0.0.1:PORT\ntls {{ {block.format(authority.home)} }}\n")
    for arguments in (("-t", "-c", str(server.conf)), ("-c", str(server.conf))):
        answer = run_command(*arguments)
        assert answer.returncode == 1
        assert any(word in answer.stderr for word in words.split("|")), answer.stderr


def test_the_usual_client_over_tls(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority, f'ca_file: "{authority.pem}", verify: true')

    async def talk() -> None:
        context = authority.client("client")
        nc = await nats.connect(f"tls://localhost:{server.port}", tls=context, allow_reconnect=False)
        got: asyncio.Queue[bytes] = asyncio.Queue()

        async def each(msg: nats.aio.msg.Msg) -> None:
            got.put_nowait(msg.data)

        await nc.subscribe("a.*", cb=each)
        for i in range(1000):
            await nc.publish(f"a.{i}", b"%d" % i * 50)
        await nc.flush()
        assert [await got.get() for _ in range(1000)] == [b"%d" % i * 50 for i in range(1000)]
        await nc.close()

    run(talk(), 30)


@ours
def test_jetstream_over_tls(lab: Lab, authority: Authority) -> None:
    server = start(lab, authority, extra='server_name: s\njetstream { store_dir: "HOME/store" }')

    async def talk() -> None:
        nc = await nats.connect(f"tls://localhost:{server.port}", tls=authority.client(), allow_reconnect=False)
        js = nc.jetstream()
        await js.add_stream(name="S", subjects=["s.>"])
        for i in range(50):
            assert (await js.publish("s.a", b"x" * 5000)).seq == i + 1
        sub = await js.pull_subscribe("s.>", "d")
        assert len(await sub.fetch(50)) == 50
        await nc.close()

    run(talk(), 30)


def test_monitoring_over_tls(lab: Lab, authority: Authority) -> None:
    port = free_ports(1)[0]
    start(lab, authority, extra=f'https: "127.0.0.1:{port}"')
    with urllib.request.urlopen(f"https://localhost:{port}/varz", context=authority.client(), timeout=10) as answer:
        assert json.load(answer)["https_port"] == port


@pytest.mark.parametrize("make", ["ours", "peer"])
def test_the_certificate_names_the_user(lab: Lab, authority: Authority, make: str) -> None:
    """Word for word what nats-server takes for a user's name, where it is installed."""
    shown = {
        "email": ("/CN=x", "email:e@x.com,DNS:dns.x.com", "e@x.com"),
        "dns": ("/CN=x", "DNS:nope.com,DNS:dns.x.com", "dns.x.com"),
        "uri": ("/CN=x", "URI:spiffe://x/y,DNS:nope", "spiffe://x/y"),
        "subject": ("/C=US/O=Org/OU=A/OU=B/CN=*.x.com", "DNS:nope", "CN=*.x.com, OU=B,ou=A,O=Org,C=US"),
        "order": ("/CN=*.x.com/OU=B/OU=A/O=Org/C=US", "DNS:nope", "CN=*.x.com, OU=B,ou=A,O=Org,C=US"),
        "escaped": ("/O=a\\,b/CN=q", "DNS:nope", "CN=q,O=a\\,b"),
        "other": ("/CN=l/UID=7/ST=F/L=Paris", "DNS:nope", "CN=l,L=Paris,ST=F"),
        "domain": ("/DC=org/DC=acme/UID=7/CN=n", "DNS:nope", "CN=n,DC=org,DC=acme"),
        "unknown": ("/CN=zzz", "DNS:nope", ""),
        "secret": ("/CN=needs", "DNS:nope", "CN=needs"),
    }
    users = ", ".join(f"{{user: '{user}'}}" for user in {u for _, _, u in shown.values()} - {"", "CN=needs"})
    users += ", {user: 'CN=needs', password: pw}"
    port = free_ports(1)[0]
    more = f'ca_file: "{authority.pem}", verify_and_map: true'
    files = f'cert_file: "{authority.home}/server.pem", key_file: "{authority.home}/server.key"'
    server = lab.server(
        "mapped",
        f"listen: 127.0.0.1:PORT\nhttp: 127.0.0.1:{port}\ntls {{ {files}, {more} }}\n"
        f"accounts {{ A {{ users: [ {users} ] }} }}\n",
        cmd=peer_command() if make == "peer" else None,
    )
    server.start()
    wait_for_log(server, "Server is ready")
    for name, (subject, names, user) in shown.items():
        authority.issue(name, subject, names)
        for password, allowed in (("", user not in ("", "CN=needs")), ("pw", user == "CN=needs")):
            with Wire(server.port) as wire:
                wire.until(b"\r\n")
                secured(wire, authority.client(name))
                wire.send(f'CONNECT {{"verbose":false,"user":"x","pass":"{password}"}}\r\nPING\r\n'.encode())
                if not allowed:
                    assert b"-ERR 'Authorization Violation'" in wire.until_closed(), name
                    continue
                wire.until(b"PONG\r\n")
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/connz?auth=1", timeout=5) as answer:
                    (connection,) = json.load(answer)["connections"]
                assert (connection["account"], connection["authorized_user"]) == ("A", user)
