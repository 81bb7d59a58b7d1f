"""TLS between servers: routes and replication links, ours and nats-server's, and who is kept out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import pytest
from certificates import Authority
from harness import Lab, Server, free_ports, ours, peer_command, run, wait_for_log


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "certificates")
    for name in ("one", "two", "three"):
        made.issue(name)
    return made


def server(
    lab: Lab,
    authority: Authority,
    name: str,
    port: int,
    routes: list[int],
    extra: str = "",
    cmd: list[str] | None = None,
    tls: str = "",
    cluster: str = "",
) -> Server:
    urls = ", ".join(f'"nats-route://localhost:{other}"' for other in routes)
    files = f'cert_file: "{authority.home}/{name}.pem", key_file: "{authority.home}/{name}.key"'
    text = f"""
server_name: {name}
listen: 127.0.0.1:PORT
debug: true
cluster {{
  name: c, listen: "127.0.0.1:{port}", routes: [{urls}], {cluster}
  tls {{ {files}, ca_file: "{authority.pem}", {tls} }}
}}
{extra}
"""
    made = lab.server(name, text, cmd=cmd)
    made.start()
    return made


async def heard(first: Server, second: Server) -> None:
    """A message published on one arrives at the other, both ways."""
    for here, there in ((first, second), (second, first)):
        a = await nats.connect(f"nats://127.0.0.1:{here.port}", allow_reconnect=False)
        b = await nats.connect(f"nats://127.0.0.1:{there.port}", allow_reconnect=False)
        got: asyncio.Queue[bytes] = asyncio.Queue()

        async def each(msg: nats.aio.msg.Msg, into: asyncio.Queue[bytes] = got) -> None:
            into.put_nowait(msg.data)

        await a.subscribe("x", cb=each)
        await a.flush()
        while got.empty():
            await b.publish("x", b"y" * 100_000)
            await b.flush()
            await asyncio.sleep(0.02)
        assert await got.get() == b"y" * 100_000
        await a.close()
        await b.close()


def test_routes_over_tls(lab: Lab, authority: Authority) -> None:
    ports = free_ports(2)
    one = server(lab, authority, "one", ports[0], [])
    two = server(lab, authority, "two", ports[1], [ports[0]])
    wait_for_log(two, "TLS version 1.3, cipher suite")
    run(heard(one, two), 30)


@ours
@pytest.mark.parametrize("dials", ["we", "they"])
def test_routes_over_tls_with_nats_server(lab: Lab, authority: Authority, dials: str) -> None:
    ports = free_ports(2)
    peer = peer_command()
    one = server(lab, authority, "one", ports[0], [], cmd=peer if dials == "we" else None)
    two = server(lab, authority, "two", ports[1], [ports[0]], cmd=peer if dials == "they" else None)
    run(heard(one, two), 30)


@ours
def test_a_stranger_is_no_route(lab: Lab, authority: Authority, tmp_path: Path) -> None:
    ports = free_ports(3)
    one = server(lab, authority, "one", ports[0], [])
    other = Authority(tmp_path / "other", "other")
    other.issue("two")
    server(lab, other, "two", ports[1], [ports[0]])
    wait_for_log(one, "TLS handshake error: ")
    plain = lab.server(
        "plain",
        f'listen: 127.0.0.1:PORT\ncluster {{ name: c, listen: "127.0.0.1:{ports[2]}", '
        f'routes: ["nats-route://localhost:{ports[0]}"] }}\n',
    )
    plain.start()
    wait_for_log(one, "first record does not look like a TLS handshake")
    assert "Route connection created" not in one.log.read_text()


@ours
def test_a_certificate_for_another_host_is_refused(lab: Lab, authority: Authority) -> None:
    authority.issue("one", "/CN=elsewhere", "DNS:elsewhere")
    ports = free_ports(2)
    server(lab, authority, "one", ports[0], [])
    two = server(lab, authority, "two", ports[1], [ports[0]])
    wait_for_log(
        two, "TLS handshake error: tls: failed to verify certificate: x509: certificate is not valid for the name"
    )


@ours
def test_replication_over_tls(lab: Lab, authority: Authority) -> None:
    ports = free_ports(3)
    extra = 'jetstream { store_dir: "HOME/store" }'
    names = ("one", "two", "three")
    servers = [server(lab, authority, name, port, ports, extra) for name, port in zip(names, ports, strict=True)]

    async def talk() -> None:
        nc = await nats.connect(f"nats://127.0.0.1:{servers[0].port}")
        js = nc.jetstream(timeout=2)
        for _ in range(100):
            try:
                await js.add_stream(name="S", subjects=["s"], num_replicas=3)
                break
            except Exception:
                await asyncio.sleep(0.1)
        for i in range(20):
            assert (await js.publish("s", b"z" * 50_000, timeout=5)).seq == i + 1
        await nc.close()

    run(talk(), 60)
    wait_for_log(servers[0], "Replication link to two is up")


@pytest.mark.parametrize("make", ["ours", "peer"])
def test_only_certificates_of_known_hosts_are_routes(lab: Lab, authority: Authority, make: str) -> None:
    cmd = peer_command() if make == "peer" else None
    authority.issue("two", "/CN=x", "DNS:*.domain,DNS:localhost")
    authority.issue("three", "/CN=x", "DNS:elsewhere")
    ports = free_ports(3)
    known = 'routes: ["nats-route://two.domain:1"]'
    check = "verify_cert_and_check_known_urls: true"
    one = server(lab, authority, "one", ports[0], [], cmd=cmd, tls=check, cluster=known)
    two = server(lab, authority, "two", ports[1], [ports[0]])
    run(heard(one, two), 30)
    three = server(lab, authority, "three", ports[2], [ports[0]])
    wait_for_log(three, "Authorization Violation")


@ours
def test_a_certificate_stands_for_the_user_of_routes(lab: Lab, authority: Authority) -> None:
    ports = free_ports(3)
    authority.issue("two", "/CN=x", "DNS:localhost,email:route@c")
    login = "authorization { user: route@c, password: never-asked }"
    one = server(lab, authority, "one", ports[0], [], tls="verify_and_map: true", cluster=login)
    two = server(lab, authority, "two", ports[1], [ports[0]])
    run(heard(one, two), 30)
    three = server(lab, authority, "three", ports[2], [ports[0]])
    wait_for_log(three, "Authorization Violation")
