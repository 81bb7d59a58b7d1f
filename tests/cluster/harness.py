"""Starts real daemons for the tests: the example's files with hosts and ports substituted, or a file of a test's own.

JSCORE_TEST_SERVER names another server command: with `nats-server` the same tests run against the peer, which shows
that a test asks for what users of the peer have; demands that only we meet are marked `ours`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from jscore_server.demo import (
    ApiError,
    Cluster,
    Server,
    Story,
    api,
    connect,
    eventually,
    free_ports,
    ready,
)
from jscore_server.demo import daemon as command

__all__ = ["ApiError", "Cluster", "Server", "Story", "api", "command", "connect", "eventually", "free_ports", "ready"]

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "server" / "conf"
T = TypeVar("T")


def is_peer() -> bool:
    return "nats-server" in Path(command()[0]).name


ours = pytest.mark.skipif(is_peer(), reason="a demand that nats-server does not meet")


def peer_command() -> list[str]:
    """The real nats-server, where there is one; otherwise the test is skipped with a word."""
    found = shutil.which("nats-server")
    if not found:
        pytest.skip("nats-server is not on PATH")
    answer = subprocess.run([found, "-v"], capture_output=True, text=True, timeout=20)
    if not answer.stdout.startswith("nats-server: v"):
        pytest.skip("the nats-server on PATH is not the peer")
    return [found]


def run(work: Coroutine[Any, Any, T], seconds: float = 120) -> T:
    """Runs a coroutine to its end, bounded; an exception nobody retrieved in the loop fails the test."""
    complaints: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        return await asyncio.wait_for(work, seconds)

    result = asyncio.run(bounded())
    assert not complaints, complaints
    return result


class Hosts(Cluster):
    """A cluster of servers that a test configured itself."""

    def __init__(self, servers: list[Server], home: Path) -> None:
        self.servers = servers
        self.home = home


MEMBER = """server_name={name}
listen=127.0.0.1:PORT
jetstream {{ store_dir=HOME/store {unique} }}
server_tags: [{tags}]
cluster {{ name: many, listen: localhost:{route}, routes: [ {routes} ] }}
accounts {{ $SYS {{ users: [ {{user: sys, password: sys}} ] }} }}
"""


class Lab:
    """Every server one test started."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.servers: list[Server] = []
        self.route_ports: dict[str, int] = {}

    def example(self, **options: Any) -> Cluster:
        """The example's cluster, not started."""
        cluster = Cluster(CONF, self.home / "example", command(), **options)
        self.servers += cluster.servers
        return cluster

    def ready_example(self, **options: Any) -> Cluster:
        cluster = self.example(**options)
        cluster.start()
        asyncio.run(ready(cluster.servers))
        return cluster

    def server(
        self, name: str, text: str, *, port: int = 0, route_port: int = 0, cmd: list[str] | None = None
    ) -> Server:
        """A server with a configuration of its own; `PORT` in the text becomes its client port, `HOME` its folder."""
        port = port or free_ports(1)[0]
        home = self.home / name
        home.mkdir(parents=True, exist_ok=True)
        conf = home / f"{name}.conf"
        conf.write_text(text.replace("PORT", str(port)).replace("HOME", str(home)))
        server = Server(name, cmd or command(), conf, home / f"{name}.log", port, route_port)
        self.servers.append(server)
        return server

    def hosts(self, names: list[str], *, tags: dict[str, str] | None = None, unique: str = "") -> Hosts:
        """A cluster of these servers, not started; `tags` of each by name, `unique`: the tag that names a zone."""
        ports = free_ports(2 * len(names))
        self.route_ports = dict(zip(names, ports[::2], strict=True))
        servers = [
            self.member(name, (tags or {}).get(name, ""), unique, port)
            for name, port in zip(names, ports[1::2], strict=True)
        ]
        return Hosts(servers, self.home)

    def member(self, name: str, tags: str = "", unique: str = "", port: int = 0) -> Server:
        """One more server of the cluster that `hosts` made."""
        ports = self.route_ports
        spare = free_ports(2)
        route = ports.get(name) or spare[0]
        text = MEMBER.format(
            name=name,
            tags=tags,
            unique=f", unique_tag={unique}" if unique else "",
            route=route,
            routes=", ".join(f"nats-route://localhost:{port}" for port in ports.values() if port != route),
        )
        return self.server(name, text, port=port or spare[1])

    def solo(self, extra: str = "") -> Server:
        """One standalone JetStream server, started and ready."""
        text = f'server_name: solo\nlisten: 127.0.0.1:PORT\njetstream {{ store_dir: "HOME/store" }}\n{extra}\n'
        server = self.server("solo", text)
        server.start()
        asyncio.run(ready([server]))
        return server

    def close(self) -> None:
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                server.kill()


def run_command(*arguments: str, seconds: float = 20) -> subprocess.CompletedProcess[str]:
    """The daemon's command, run to its end."""
    return subprocess.run([*command(), *arguments], capture_output=True, text=True, timeout=seconds)


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """As `eventually`, for conditions that ask no network."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


def wait_for_log(server: Server, pattern: str, seconds: float = 15) -> re.Match[str]:
    """Waits until the server's log has a line that matches."""
    found = wait_for(
        lambda: re.search(pattern, server.log.read_text(errors="replace"), re.MULTILINE),
        seconds,
        f"{server.name} logs {pattern!r}",
    )
    assert isinstance(found, re.Match)
    return found


class Wire:
    """A raw connection: bytes out, bytes in until a text appears or the other side closes."""

    def __init__(self, port: int, seconds: float = 10) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), seconds)
        self.sock.settimeout(seconds)
        self.seen = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def until(self, text: bytes) -> bytes:
        """Reads until `text` was seen; returns everything seen so far. Raises: ConnectionError when closed before."""
        while text not in self.seen:
            piece = self.sock.recv(65536)
            if not piece:
                raise ConnectionError(f"closed before {text!r}; seen {self.seen[-300:]!r}")
            self.seen += piece
        return self.seen

    def until_closed(self) -> bytes:
        """Reads until the other side closed; returns everything seen."""
        while True:
            try:
                piece = self.sock.recv(65536)
            except ConnectionResetError:
                return self.seen
            if not piece:
                return self.seen
            self.seen += piece

    def client(self) -> Wire:
        """Introduces itself as a quiet client and waits until it is taken for one."""
        self.until(b"\r\n")
        self.send(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\nPING\r\n')
        self.until(b"PONG\r\n")
        self.seen = b""
        return self


def nats_cli(url: str, *arguments: str, seconds: float = 30) -> str:
    """The `nats` command; its output. Fails the test when it complains, skips it where it is missing."""
    if not shutil.which("nats"):
        pytest.skip("the nats CLI is not on PATH")
    answer = subprocess.run(
        ["nats", "--no-context", "-s", url, *arguments], capture_output=True, text=True, timeout=seconds
    )
    assert answer.returncode == 0, f"nats {' '.join(arguments)}: {answer.stdout}{answer.stderr}"
    return answer.stdout + answer.stderr


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)
