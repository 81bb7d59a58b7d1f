"""Compressed routes: of ours and of nats-server, both ways, over TLS, changed by a reload, and fed with garbage."""

from __future__ import annotations

import json
import random
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from harness import Lab, Server, Wire, command, connect, eventually, free_ports, ours, peer_command, run, wait_for

pytestmark = ours

SYSTEM = "$SYS"
NOISE = random.Random(1).randbytes(100_000)
TEXT = b'{"name":"orders","quantity":12,"price":3.5} ' * 5000


def server(
    lab: Lab, name: str, routes: list[int], port: int, cluster: str, cmd: list[str] | None = None
) -> tuple[Server, int]:
    """Started; with its monitoring port."""
    monitor = free_ports(1)[0]
    urls = ", ".join(f'"nats-route://localhost:{other}"' for other in routes)
    made = lab.server(
        name,
        f"server_name: {name}\nlisten: 127.0.0.1:PORT\nhttp: 127.0.0.1:{monitor}\n"
        f'cluster {{\n name: c, listen: "127.0.0.1:{port}", routes: [{urls}]\n {cluster}\n}}\n',
        route_port=port,
        cmd=cmd or command(),
    )
    made.start()
    return made, monitor


def shown(monitor: int) -> list[str]:
    """The compression of each route, in order."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/routez", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
    except OSError:  # it is starting
        return []
    return sorted(route["compression"] for route in found["routes"])


async def cross(first: Server, second: Server) -> None:
    """Messages of all kinds, both ways: small and large ones, that shrink and that do not, by the hundred."""
    bodies = [b"", b"x", NOISE, TEXT, *(b"%d" % n for n in range(500)), TEXT[:70_000]]
    here = await connect(first.url, allow_reconnect=False)
    there = await connect(second.url, allow_reconnect=False)
    for source, target in ((here, there), (there, here)):
        subject = source.new_inbox()
        listener = await target.subscribe(subject)
        await target.flush()

        async def known(subject: str = subject, source: Any = source, listener: Any = listener) -> bool:
            await source.publish(subject, b"probe")
            await source.flush()
            return bool(listener.pending_msgs)

        await eventually(known, 15, "interest crosses the route")
        for body in bodies:
            await source.publish(subject, body, headers={"Key": "value"} if len(body) == 1 else None)
        got = []
        while len(got) < len(bodies):
            message = await listener.next_msg(timeout=10)
            if message.data != b"probe":
                got.append(message.data)
        assert got == bodies
    await here.close()
    await there.close()


@pytest.mark.parametrize(
    ("dials", "own", "theirs", "shows_own", "shows_theirs"),
    [
        ("own", "s2_better", "{ mode: s2_auto, rtt_thresholds: [0ms, 10s] }", "s2_better", "s2_fast"),
        ("peer", "accept", "s2_best", "s2_best", "s2_best"),
    ],
)
def test_with_nats_server(lab: Lab, dials: str, own: str, theirs: str, shows_own: str, shows_theirs: str) -> None:
    here, there = free_ports(2)
    # Three connections of the pool, and one for each of the two accounts.
    accounts = 'accounts: ["$G"]'
    one, monitor = server(lab, "own", [there] if dials == "own" else [], here, f"compression: {own}, {accounts}")
    two, other = server(
        lab,
        "theirs",
        [here] if dials == "peer" else [],
        there,
        f"compression: {theirs}, {accounts}",
        peer_command(),
    )
    wait_for(lambda: shown(monitor) == [shows_own] * 5, 15, "compressed routes here")
    wait_for(lambda: shown(other) == [shows_theirs] * 5, 15, "compressed routes there")
    run(cross(one, two))
    if dials == "peer":
        return
    one.conf.write_text(one.conf.read_text().replace(own, "off"))
    assert one.process is not None
    one.process.send_signal(signal.SIGHUP)
    wait_for(lambda: shown(monitor) == shown(other) == ["off"] * 5, 20, "routes without compression after a reload")


def test_over_tls_between_ours_at_the_level_that_the_round_trip_time_asks_for(lab: Lab, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    ports = free_ports(2)
    made = []
    for name, port, other in zip(("one", "two"), ports, reversed(ports), strict=True):
        authority.issue(name)
        files = f'cert_file: "{authority.home}/{name}.pem", key_file: "{authority.home}/{name}.key"'
        mode = "{ mode: s2_auto, rtt_thresholds: [0ms, 0ms, 10s] }"
        tls = f'compression: {mode}\n tls {{ {files}, ca_file: "{authority.pem}" }}'
        made.append(server(lab, name, [other], port, tls))
    for _, monitor in made:
        wait_for(lambda monitor=monitor: shown(monitor) == ["s2_better"] * 4, 15, "its own level")
    run(cross(made[0][0], made[1][0]))


def test_garbage_ends_the_route_it_comes_on_and_nothing_else(lab: Lab) -> None:
    port = free_ports(1)[0]
    one, monitor = server(lab, "one", [], port, "compression: s2_fast")
    wait_for(lambda: "Server is ready" in one.log.read_text(), 15, "the start")
    said = {"server_id": "X", "server_name": "X", "version": "2.14.5", "proto": 3, "host": "h", "port": 1}
    said |= {"headers": True, "cluster": "c", "lnoc": True, "route_pool_size": 3, "compression": "s2_fast"}
    with Wire(one.port) as client:
        client.client()
        for garbage in (b"RS+ $G a\r\n", b"\xff\x06\x00\x00S2sTwO\x00\x0a\x00\x00garbage..."):
            with Wire(port) as route:
                assert b'"compression":"s2_fast"' in route.until(b"\r\n")
                route.seen = b""
                route.send(b'CONNECT {"name":"X","cluster":"c"}\r\nINFO ' + json.dumps(said).encode() + b"\r\n")
                route.until(b"S2sTwO")
                route.send(garbage)
                route.sock.settimeout(5)
                route.until_closed()
        client.send(b"SUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n")
        client.until(b"MSG a 1 2\r\nhi\r\nPONG\r\n")
        with Wire(port) as route:  # a word that is no mode is told to the other side
            route.until(b"\r\n")
            said["compression"] = "zip"
            route.send(b'CONNECT {"name":"X","cluster":"c"}\r\nINFO ' + json.dumps(said).encode() + b"\r\n")
            assert b"-ERR 'unsupported route compression mode \"zip\"'" in route.until_closed()
    assert one.log.read_text().count("read error: s2: corrupt input") == 2
    assert shown(monitor) == []
