"""Many connections, too many, and strangers on the cluster port."""

from __future__ import annotations

import json
import resource
import socket
import subprocess

import pytest
from harness import Lab, Server, Wire, command, free_ports, ours, rss_bytes, wait_for, wait_for_log

IDLE = 3_000  # bench/load.py has ten thousand


def clustered(lab: Lab, name: str, extra: str) -> Server:
    own = free_ports(1)[0]
    server = lab.server(
        name,
        f"server_name: {name}\nlisten: 127.0.0.1:PORT\ncluster {{ name: c1, listen: 127.0.0.1:{own}\n{extra}\n}}\n",
        route_port=own,
    )
    server.start()
    wait_for_log(server, "Server is ready")
    return server


def introduction(name: str) -> bytes:
    info = {
        "server_id": f"N{name}",
        "server_name": name,
        "cluster": "c1",
        "port": 1,
        "version": "2.14.5",
        "headers": True,
    }
    return b"INFO " + json.dumps(info).encode() + b"\r\n"


@ours
def test_a_stranger_without_the_clusters_password_is_no_route(lab: Lab) -> None:
    server = clustered(lab, "guarded", "authorization { user: u, password: secret }")
    stolen = b"RS+ $G >\r\nRMSG $G private 1\r\nx\r\n"
    for hello in (b"", b'CONNECT {"user":"u","pass":"guess"}\r\n'):
        with Wire(server.port) as client, Wire(server.route_port) as stranger:
            client.client()
            client.send(b"SUB private 1\r\nPING\r\n")
            client.until(b"PONG\r\n")
            stranger.until(b"\r\n")
            stranger.send(hello + introduction("stranger") + stolen)
            assert b"Authorization Violation" in stranger.until_closed()
            client.send(b"PING\r\n")
            assert b"MSG private" not in client.until(b"PONG\r\nPONG\r\n")
    with Wire(server.route_port) as friend:
        friend.until(b"\r\n")
        friend.send(b'CONNECT {"user":"u","pass":"secret"}\r\n' + introduction("friend") + b"PING\r\n")
        friend.until(b"PONG\r\n")


@ours
def test_a_connection_that_never_says_who_it_is_is_closed(lab: Lab) -> None:
    server = clustered(lab, "patient", "")
    with Wire(server.route_port, seconds=20) as silent, Wire(server.route_port, seconds=20) as hasty:
        hasty.send(b"RS+ $G >\r\n" * 100)
        silent.until_closed()
        hasty.until_closed()


@ours
def test_without_descriptors_it_waits_and_goes_on(lab: Lab) -> None:
    port = free_ports(1)[0]
    server = lab.server("poor", "server_name: poor\nlisten: 127.0.0.1:PORT\n", port=port)
    with server.log.open("wb") as log:
        server.process = subprocess.Popen(
            [*command(), "-c", str(server.conf)],
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        )
    wait_for_log(server, "Server is ready")
    greeted: list[socket.socket] = []
    waiting: list[socket.socket] = []
    try:
        for _ in range(80):
            sock = socket.create_connection(("127.0.0.1", port), 10)
            waiting.append(sock)
        wait_for_log(server, "Accept error")
        lines = len(server.log.read_text().splitlines())
        for sock in waiting[:45]:
            sock.settimeout(10)
            assert sock.recv(4096).startswith(b"INFO ")
            greeted.append(sock)
        for sock in greeted:
            sock.close()
        with Wire(port) as late:
            late.client()
        assert len(server.log.read_text().splitlines()) - lines < 20
    finally:
        for sock in waiting:
            sock.close()


@pytest.mark.timeout(120)
def test_thousands_of_idle_connections_are_cheap(lab: Lab) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 500:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    socks: list[socket.socket] = []
    server = lab.server("crowded", "server_name: crowded\nlisten: 127.0.0.1:PORT\n")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # what the server starts with: it helps itself
        server.start()
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        wait_for_log(server, "Server is ready")
        before = rss_bytes(server.pid)
        for _ in range(IDLE):
            sock = socket.create_connection(("127.0.0.1", server.port), 20)
            sock.sendall(b'CONNECT {"verbose":false,"name":"idle"}\r\nSUB idle.> 1\r\nPING\r\n')
            socks.append(sock)
        for sock in socks:
            sock.settimeout(20)
            seen = b""
            while b"PONG\r\n" not in seen:
                piece = sock.recv(4096)
                assert piece, seen
                seen += piece
        each = (rss_bytes(server.pid) - before) / IDLE
        print(f"{each:.0f} bytes for each idle connection")
        assert each < 8192
        with Wire(server.port) as busy:
            busy.client()
            busy.send(b"PUB idle.x 1\r\ny\r\nPING\r\n")
            busy.until(b"PONG\r\n")
        for sock in (socks[0], socks[-1]):
            assert sock.recv(4096) == b"MSG idle.x 1 1\r\ny\r\n"
        for sock in socks:
            sock.close()
        socks.clear()
        with Wire(server.port) as after:
            after.client()
        wait_for(lambda: rss_bytes(server.pid) < before + IDLE * 8192, 20, "it has not grown meanwhile")
    finally:
        for sock in socks:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
