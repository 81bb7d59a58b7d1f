"""The two servers, started alike."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jscore_server.demo import Server, free_ports

from .limits import CONFIGURATION

ROOT = Path(__file__).resolve().parents[2]


def peer() -> str | None:
    """Where nats-server is, if it is."""
    return shutil.which("nats-server") or shutil.which("nats-server", path=str(Path.home() / "go" / "bin"))


def ours() -> list[str]:
    named = os.environ.get("JSCORE_TEST_SERVER")
    path = f"PYTHONPATH={ROOT}:{ROOT / 'server'}"
    return named.split() if named else ["env", path, sys.executable, "-m", "jscore_server.cli"]


def listening(server: Server, seconds: float = 30) -> None:
    """Returns once the server greets."""
    deadline = time.monotonic() + seconds
    while True:
        server.must_run()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 5) as sock:
            if sock.recv(5) == b"INFO ":
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{server.name} does not listen:\n{server.tail()}")
        time.sleep(0.02)


@contextlib.contextmanager
def pair(home: Path, theirs: str, configuration: str = CONFIGURATION) -> Iterator[list[Server]]:
    """Ours and the peer's, listening; killed at the end."""
    servers = []
    for name, command, port in zip(("ours", "peer"), (ours(), [theirs]), free_ports(2), strict=True):
        conf = home / f"{name}.conf"
        conf.write_text(configuration.replace("PORT", str(port)))
        servers.append(Server(name, command, conf, home / f"{name}.log", port))
    try:
        for server in servers:
            server.start()
            listening(server)
        yield servers
        for server in servers:
            server.must_run()
    finally:
        for server in servers:
            server.kill()
