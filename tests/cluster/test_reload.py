"""A reload of a real daemon: what it applies, what it refuses, and who stays connected."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

READY = "Server is ready"


class Daemon:
    """One server with a file that can be rewritten; its log is read line by line."""

    def __init__(self, folder, text, *flags):
        self.path = folder / "s.conf"
        self.path.write_text(text)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jscore_server.cli", "-c", str(self.path), "-a", "127.0.0.1", *flags],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        lines = self.until(READY)
        (port,) = re.findall(r"client connections on 127\.0\.0\.1:(\d+)", "\n".join(lines))
        self.port = int(port)

    def until(self, *words):
        lines = []
        for line in self.process.stderr:
            lines.append(line.rstrip("\n"))
            if any(word in line for word in words):
                return lines
        raise AssertionError("\n".join(lines))

    def reload(self, text):
        """The log's lines about a reload to another text, from the signal on."""
        self.path.write_text(text)
        self.process.send_signal(signal.SIGHUP)
        lines = self.until("Reloaded server configuration", "Failed to reload")
        return [re.sub(r"^\[\d+\] (\S+ \S+ )?\[\w+\] ", "", line) for line in lines]

    def connect(self, **options):
        return Client(self.port, **options)

    def stop(self):
        self.process.kill()
        self.process.communicate(timeout=60)


class Client:
    def __init__(self, port, user="", password=""):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.file = self.sock.makefile("rb")
        self.info = self.line()
        login = f'"user":"{user}","pass":"{password}",' if user else ""
        self.send(f'CONNECT {{{login}"verbose":false}}')
        self.send("PING")
        assert self.line() == "PONG"

    def send(self, line):
        self.sock.sendall(line.encode() + b"\r\n")

    def line(self):
        """The next line; '' when the server closed."""
        return self.file.readline().decode().rstrip("\r\n")

    def alive(self):
        self.send("PING")
        return self.line() == "PONG"


@pytest.fixture
def daemon(tmp_path):
    running = []

    def start(text, *flags):
        running.append(Daemon(tmp_path, text, *flags))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def test_what_may_change_changes_and_nobody_is_dropped(daemon, tmp_path):
    server = daemon("port: -1\n")
    client = server.connect()
    bounds = "port: -1\nmax_payload: 2k\nping_interval: '90s'\nping_max: 5\nmax_connections: 9\n"
    text = f"{bounds}pid_file: '{tmp_path}/pid'\n"
    lines = server.reload(text)
    assert lines[0] == 'Trapped "hangup" signal'
    for line in ("max_payload = 2000", "ping_interval = 1m30s", "ping_max = 5", "max_connections = 9"):
        assert f"Reloaded: {line}" in lines
    assert int((tmp_path / "pid").read_text()) == server.process.pid
    assert client.alive()
    client.send("PUB a 3000\r\n" + "x" * 3000)
    assert client.line() == "-ERR 'Maximum Payload Violation'"
    assert '"max_payload":2000,' in server.connect().info


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("port: -1\nmax_pending: 2MB\n", "config reload not supported for MaxPending: old=67108864, new=2097152"),
        ("port: -1\nlame_duck_duration: 31s\n", "config reload not supported for LameDuckDuration: old=2m0s, new=31s"),
        ("port: -1\nserver_name: b\n", "config reload not supported for ServerName: old=, new=b"),
        ("port: -1\nmax_subs: 5\n", "config reload not supported for MaxSubs: old=0, new=5"),
        ("port: -1\nprot: 1\n", 'unknown field "prot"'),
        ("port: -1\nmax_payload: [\n", "expected"),
    ],
)
def test_one_change_that_cannot_be_made_refuses_all(daemon, text, refusal):
    server = daemon("port: -1\n")
    client = server.connect()
    (failed,) = server.reload("debug: true\nmax_payload: 5\n" + text)[1:]
    assert failed.startswith("Failed to reload server configuration: ")
    assert refusal in failed
    client.send("PUB a 10\r\n0123456789")
    assert client.alive()
    assert '"max_payload":1048576,' in server.connect().info
    assert server.reload("port: -1\n")[-1].startswith("Reloaded server configuration (sha256:")


def test_users(daemon):
    both = "port: -1\nauthorization { users: [ {user: a, password: x}, {user: b, password: y} ] }\n"
    server = daemon(both)
    gone, stays = server.connect(user="a", password="x"), server.connect(user="b", password="y")
    server.reload("port: -1\nauthorization { users: [ {user: b, password: y}, {user: c, password: z} ] }\n")
    assert gone.line() == ""
    assert stays.alive()
    assert server.connect(user="c", password="z").alive()
    server.reload("port: -1\nauthorization { users: [ {user: b, password: other} ] }\n")
    assert stays.line() == "-ERR 'Authorization Violation'"
    assert stays.line() == ""


def test_permissions_of_subscriptions_that_exist(daemon):
    shape = "port: -1\nauthorization { users: [ {user: a, password: x, permissions { subscribe: %s }} ] }\n"
    server = daemon(shape % "[b.*, c]")
    client = server.connect(user="a", password="x")
    client.send("SUB b.2 2\r\nSUB c 3")
    assert client.alive()
    server.reload(shape % "[c]")
    assert client.line() == """-ERR 'Permissions Violation for Subscription to "b.2" (sid "2")'"""
    assert client.alive()


def test_fewer_connections_close_the_excess(daemon):
    server = daemon("port: -1\n")
    clients = [server.connect() for _ in range(3)]
    server.reload("port: -1\nmax_connections: 1\n")
    left = 0
    for client in clients:
        client.send("PING")
        left += client.line() == "PONG"
    assert left == 1


def test_flags_win_over_the_file_again(daemon):
    server = daemon("port: -1\n", "--debug=false")
    assert "Reloaded: debug = true" not in server.reload("port: -1\ndebug: true\n")


def test_the_log_moves_to_a_file(daemon, tmp_path):
    server = daemon("port: -1\n")
    path = tmp_path / "server.log"
    server.path.write_text(f"port: -1\nlog_file: '{path}'\n")
    server.process.send_signal(signal.SIGHUP)
    server.until('Trapped "hangup"')
    deadline = time.monotonic() + 60
    while not (path.exists() and "Reloaded server configuration" in path.read_text()):
        assert time.monotonic() < deadline
        os.sched_yield()
    assert "Reloaded: log_file" in path.read_text()


def test_without_a_file_there_is_nothing_to_reload(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "jscore_server.cli", "-p", "-1", "-a", "127.0.0.1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        said = []
        for line in process.stderr:
            if READY in line:
                process.send_signal(signal.SIGHUP)
            if "Failed" in line:
                said.append(line)
                break
        assert "can only reload config when a file is provided using -c or --config" in said[0]
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate(timeout=60)


ACCOUNT = "port: -1\naccounts {{ A {{ users: [{{user: u, password: p}}], limits {{ {} }} }} }}\n"


def test_limits_of_an_account_hold_at_once(daemon):
    server = daemon(ACCOUNT.format("max_subs: 5, max_payload: 100"))
    client = server.connect(user="u", password="p")
    client.send("SUB a 1\r\nSUB b 2")
    assert client.alive()
    server.reload(ACCOUNT.format("max_subs: 2, max_payload: 10"))
    client.send("SUB c 3")
    assert client.line() == "-ERR 'maximum subscriptions exceeded'"
    assert client.alive()
    server.reload(ACCOUNT.format("max_subs: 5, max_payload: 1000"))
    client.send("SUB c 3\r\nPUB x 500\r\n" + "x" * 500)
    assert client.alive()
    client.send("PUB x 1001\r\n" + "x" * 1001)
    assert client.line() == "-ERR 'Maximum Payload Violation'"


def test_who_is_beyond_an_accounts_limits_is_closed(daemon):
    server = daemon(ACCOUNT.format("max_subs: 5"))
    few, many = [server.connect(user="u", password="p") for _ in range(2)]
    few.send("SUB a 1")
    many.send("SUB a 1\r\nSUB b 2")
    assert few.alive()
    assert many.alive()
    server.reload(ACCOUNT.format("max_subs: 1"))
    assert [many.line(), many.line()] == ["-ERR 'maximum subscriptions exceeded'", ""]
    clients = [few, *(server.connect(user="u", password="p") for _ in range(3))]
    assert all(client.alive() for client in clients)
    server.reload(ACCOUNT.format("max_connections: 2"))
    heard = []
    for client in clients:
        client.send("PING")
        heard.append(client.line())
    assert sorted(heard) == ["-ERR 'maximum account active connections exceeded'"] * 2 + ["PONG"] * 2
