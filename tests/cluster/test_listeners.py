"""Where a server listens, how it says so, and where its log goes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from harness import Lab, Wire, command, ours, peer_command, wait_for, wait_for_log


@pytest.fixture(params=["ours", "peer"])
def cmd(request: pytest.FixtureRequest) -> list[str]:
    return peer_command() if request.param == "peer" else command()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def reaches(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 10) as sock:
            return sock.recv(5) == b"INFO "
    except ConnectionRefusedError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on loopback")
@pytest.mark.parametrize(
    ("listen", "ipv4", "ipv6"),
    [("127.0.0.1:PORT", True, False), ('"[::1]:PORT"', False, True), ('"[::]:PORT"', True, True), ("PORT", True, True)],
)
def test_addresses_of_both_kinds(lab: Lab, cmd: list[str], listen: str, ipv4: bool, ipv6: bool) -> None:
    server = lab.server("s", f"listen: {listen}\ndebug: true\n", cmd=cmd)
    server.start()
    wait_for_log(server, "Server is ready")
    assert (reaches("127.0.0.1", server.port), reaches("::1", server.port)) == (ipv4, ipv6)
    if ipv4:
        wait_for_log(server, r"DBG\] 127\.0\.0\.1:\d+ - cid")
    if ipv6:
        wait_for_log(server, r"DBG\] \[::1\]:\d+ - cid")


def test_the_ports_file(lab: Lab, cmd: list[str]) -> None:
    text = """
port: -1
host: 127.0.0.1
http: 127.0.0.1:-1
ports_file_dir: "HOME"
websocket { listen: "127.0.0.1:-1", no_tls: true }
cluster { name: c, listen: "127.0.0.1:-1" }
"""
    server = lab.server("s", text, cmd=cmd)
    server.start()
    wait_for_log(server, "Server is ready")
    home = server.conf.parent
    (path,) = wait_for(lambda: [p for p in home.glob("*.ports") if p.read_text().endswith("}")], 10, "the ports file")
    assert server.process is not None
    assert path.name.endswith(f"server_{server.process.pid}.ports")
    found = json.loads(path.read_text())
    assert {kind: [re.sub(r"\d+$", "N", url) for url in urls] for kind, urls in found.items()} == {
        "nats": ["nats://127.0.0.1:N"],
        "monitoring": ["http://127.0.0.1:N"],
        "cluster": ["nats://127.0.0.1:N"],
        "websocket": ["ws://127.0.0.1:N"],
    }
    assert reaches("127.0.0.1", int(found["nats"][0].rpartition(":")[2]))
    (home / "other").mkdir()
    server.conf.write_text(server.conf.read_text().replace(f'"{home}"', f'"{home}/other"'))
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: list(home.glob("other/*.ports")) and not path.exists(), 10, "the file at its new place")
    server.stop()
    assert not list(home.rglob("*.ports"))


HANDS_OVER = """
import os, sys
held = int(sys.argv[1])
if held != 3:
    os.dup2(held, 3)
os.set_inheritable(3, True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@ours
def test_a_socket_that_was_handed_over() -> None:
    """Connections made while no server runs wait in it, and a restart refuses nobody."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen(16)
        port = held.getsockname()[1]
        server = [sys.executable, "-m", "jscore_server.cli", "-a", "127.0.0.1", "-p", str(port)]
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), 30) as early:
                process = subprocess.Popen(
                    [sys.executable, "-c", HANDS_OVER, str(held.fileno()), *server],
                    pass_fds=[held.fileno()],
                    stderr=subprocess.PIPE,
                    env={**os.environ, "LISTEN_FDS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
                )
                try:
                    early.settimeout(30)
                    assert early.recv(5) == b"INFO "
                finally:
                    process.terminate()
                    process.communicate(timeout=30)
            assert process.returncode == 0


def test_lines_to_a_remote_syslog(lab: Lab, cmd: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as syslog:
        syslog.bind(("127.0.0.1", 0))
        syslog.settimeout(20)
        port = syslog.getsockname()[1]
        server = lab.server("s", f'listen: 127.0.0.1:PORT\nremote_syslog: "udp://127.0.0.1:{port}"\n', cmd=cmd)
        server.start()
        lines = []
        while not lines or "Server is ready" not in lines[-1]:
            lines.append(syslog.recv(65536).decode())
    assert server.process is not None
    shape = rf"<5>\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\S+ \S+ \S+-server\[{server.process.pid}\]: .*\n"
    assert [line for line in lines if not re.fullmatch(shape, line)] == []
    assert "Server is ready" not in server.log.read_text()


def test_publishers_are_not_held_up_where_the_file_says_so(lab: Lab, cmd: list[str]) -> None:
    """A subscriber that does not read misses messages then, and is not closed for it."""
    text = "listen: 127.0.0.1:PORT\nno_fast_producer_stall: true\nmax_pending: 8MB\n"
    server = lab.server("s", text + 'write_deadline: "60s"\n', cmd=cmd)
    server.start()
    wait_for_log(server, "Server is ready")
    with Wire(server.port) as slow, Wire(server.port).client() as fast:
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.until(b"\r\n")
        slow.send(b'CONNECT {"verbose":false}\r\nSUB a 1\r\nPING\r\n')
        slow.until(b"PONG\r\n")
        for _ in range(400):
            fast.send(b"PUB a 100000\r\n" + b"x" * 100000 + b"\r\n")
        fast.send(b"PING\r\n")
        fast.until(b"PONG\r\n")
        slow.send(b"PING\r\n")
        slow.seen = b""
        held = len(slow.until(b"PONG\r\n"))
        assert 4_000_000 < held < 30_000_000  # less than was sent, about what may wait
        fast.send(b"PUB a 5\r\nagain\r\n")
        slow.until(b"again\r\n")
