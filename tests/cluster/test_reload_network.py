"""A reload of what a server says and does on the network: certificates, the advertised address, the cluster."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority
from harness import Lab, Server, Wire, command, free_ports, peer_command, wait_for, wait_for_log


@pytest.fixture(params=["ours", "peer"])
def cmd(request: pytest.FixtureRequest) -> list[str]:
    return peer_command() if request.param == "peer" else command()


def started(lab: Lab, name: str, text: str, cmd: list[str] | None = None) -> Server:
    server = lab.server(name, text, cmd=cmd)
    server.start()
    wait_for_log(server, "Server is ready")
    return server


def reload(server: Server, change: Callable[[str], str] = str) -> None:
    """With another text; returns when the log says that it is done."""
    done = server.log.read_text().count("Reloaded server configuration")
    server.conf.write_text(change(server.conf.read_text()))
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.log.read_text().count("Reloaded server configuration") > done, 15, "the reload")


def shown(server: Server, context: ssl.SSLContext) -> tuple[Wire, bytes]:
    """A client over TLS, and the certificate it was shown."""
    wire = Wire(server.port)
    wire.until(b"\r\n")
    secured = context.wrap_socket(wire.sock, server_hostname="localhost")
    wire.sock = secured
    wire.send(b'CONNECT {"verbose":false}\r\nPING\r\n')
    wire.until(b"PONG\r\n")
    der = secured.getpeercert(binary_form=True)
    assert der is not None
    return wire, der


def test_certificates_rotate(lab: Lab, cmd: list[str], tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    authority.issue("server")
    files = f'cert_file: "{authority.home}/server.pem", key_file: "{authority.home}/server.key"'
    server = started(lab, "s", f"listen: 127.0.0.1:PORT\ntls {{ {files} }}\n", cmd)
    before, first = shown(server, authority.client())
    authority.issue("server")
    reload(server)
    after, second = shown(server, authority.client())
    assert first != second
    for wire in (before, after):
        wire.seen = b""
        wire.send(b"PING\r\n")
        wire.until(b"PONG\r\n")
        wire.sock.close()


def test_the_advertised_address_is_told(lab: Lab, cmd: list[str]) -> None:
    ports = free_ports(2)
    cluster = "cluster {{ name: c, listen: 127.0.0.1:{}, routes: [nats://127.0.0.1:{}] }}\n"
    text = "listen: 127.0.0.1:PORT\nserver_name: {}\n{}"
    one = started(lab, "one", text.format("one", cluster.format(*ports)), cmd)
    two = started(lab, "two", text.format("two", cluster.format(*reversed(ports))), cmd)
    for server in (one, two):
        wait_for_log(server, "Route connection created", 20)
    with Wire(two.port) as wire:
        wire.until(b"\r\n")
        wire.send(b'CONNECT {"verbose":false,"protocol":1}\r\nPING\r\n')
        wire.until(b"PONG\r\n")
        reload(one, lambda was: was + 'client_advertise: "example.com:7777"\n')
        if cmd == command():  # nats-server tells only who connects from then on
            wire.until(b'"example.com:7777"')
    with Wire(one.port) as wire:
        info = json.loads(wire.until(b"\r\n")[5:])
    assert (info["host"], info["port"]) == ("example.com", 7777)


def test_routes_come_and_go(lab: Lab, cmd: list[str]) -> None:
    ports = free_ports(2)
    text = "listen: 127.0.0.1:PORT\nserver_name: {}\ncluster {{ name: c, listen: 127.0.0.1:{} }}\n"
    one = started(lab, "one", text.format("one", ports[0]), cmd)
    two = started(lab, "two", text.format("two", ports[1]), cmd)
    with Wire(one.port).client() as near, Wire(two.port).client() as far:
        far.send(b"SUB a 1\r\nPING\r\n")
        far.until(b"PONG\r\n")
        reload(one, lambda was: was.replace("name: c,", f"name: c, routes: [nats://127.0.0.1:{ports[1]}],"))

        def heard() -> bool:
            near.send(b"PUB a 2\r\nhi\r\nPING\r\n")
            near.seen = b""
            near.until(b"PONG\r\n")
            far.send(b"PING\r\n")
            far.until(b"PONG\r\n")
            found = b"MSG a 1 2" in far.seen
            far.seen = b""
            return found

        wait_for(heard, 20, "a message over the new route")
        # Clients of either server stay through it.
        reload(two, lambda was: was + "max_payload: 2000\n")
        wait_for(heard, 20, "a message after the other one's reload")


def test_a_route_in_the_middle_of_its_handshake_does_not_outlive_what_it_was_made_by(lab: Lab) -> None:
    port = free_ports(1)[0]
    said = {"server_id": "X", "server_name": "X", "version": "2.14.5", "proto": 3, "host": "h", "port": 1}
    said |= {"headers": True, "cluster": "c", "lnoc": True, "route_pool_size": 3}
    info = b"INFO " + json.dumps(said).encode() + b"\r\nPING\r\n"
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(15)
        routes = f"routes: [nats://127.0.0.1:{other.getsockname()[1]}],"
        server = started(
            lab, "s", f"listen: 127.0.0.1:PORT\ncluster {{ name: c, listen: 127.0.0.1:{port}, {routes}\n}}\n"
        )
        dialled, _ = other.accept()
        dialled.settimeout(15)
        with dialled, Wire(port) as accepted, Wire(server.port).client() as client:
            while not dialled.recv(4096).endswith(b"\r\n"):
                pass
            accepted.until(b"\r\n")
            accepted.send(b'CONNECT {"name":"X","cluster":"c"}\r\n')
            accepted.seen = b""
            reload(server, lambda was: was.replace(routes, "authorization { user: u, password: p }, pool_size: 5"))
            for sock in (dialled, accepted.sock):
                with contextlib.suppress(ConnectionError):
                    sock.sendall(info)
            with contextlib.suppress(ConnectionResetError):
                assert dialled.recv(4096) == b""  # no INFO of its own, no PONG
            assert accepted.until_closed() == b""
            client.send(b"PING\r\n")
            client.until(b"PONG\r\n")
        with Wire(port) as accepted:
            assert b'"route_pool_size":5' in accepted.until(b"\r\n")
            accepted.send(b'CONNECT {"name":"X","cluster":"c","user":"u","pass":"p"}\r\n' + info)
            accepted.until(b"PONG\r\n")
