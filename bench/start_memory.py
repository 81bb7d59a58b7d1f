#!/usr/bin/env python3
"""Start of the process to its first INFO and to JetStream's first answer, and idle memory: ours beside nats-server."""

from __future__ import annotations

import asyncio
import shutil
import socket
import statistics
import tempfile
import time
from pathlib import Path

from jscore_server.demo import Cluster, Server, daemon, free_ports, ready

ROOT = Path(__file__).resolve().parent.parent


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def greeted(server: Server) -> None:
    """Returns when the server sent its INFO."""
    while server.running:
        try:
            with socket.create_connection(("127.0.0.1", server.port), 1) as sock:
                if sock.recv(5) == b"INFO ":
                    return
        except OSError:
            time.sleep(0.002)
    raise SystemExit(f"{server.name} ended:\n{server.tail()}")


def alone(command: list[str], home: Path) -> tuple[float, float]:
    """(seconds to INFO, seconds to a JetStream answer) of one standalone server."""
    port = free_ports(1)[0]
    conf = home / "solo.conf"
    conf.write_text(f'server_name: solo\nlisten: 127.0.0.1:{port}\njetstream {{ store_dir: "{home}/s" }}\n')
    server = Server("solo", command, conf, home / "solo.log", port)
    try:
        began = time.monotonic()
        server.start()
        greeted(server)
        info = time.monotonic() - began
        asyncio.run(ready([server]))
        return info, time.monotonic() - began
    finally:
        server.kill()


def together(command: list[str], home: Path) -> tuple[float, float]:
    """(seconds until all three of the example answer JetStream, MiB of the largest of them)."""
    cluster = Cluster(ROOT / "server" / "conf", home, command)
    try:
        began = time.monotonic()
        cluster.start()
        asyncio.run(ready(cluster.servers))
        return time.monotonic() - began, max(resident_mib(server.pid) for server in cluster)
    finally:
        cluster.kill()


def main() -> None:
    sides = {"jscore-server": daemon()}
    if shutil.which("nats-server"):
        sides["nats-server"] = ["nats-server"]
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in sides}
    for _ in range(5):
        for name, command in sides.items():
            with (
                tempfile.TemporaryDirectory(prefix="start-") as one,
                tempfile.TemporaryDirectory(prefix="start-") as two,
            ):
                rows[name].append(alone(command, Path(one)) + together(command, Path(two)))
    print("medians of 5       INFO s  JetStream s  cluster s  idle MiB")
    for name, found in rows.items():
        info, jetstream, cluster, memory = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name:16s} {info:8.2f} {jetstream:12.2f} {cluster:10.2f} {memory:9.1f}")


if __name__ == "__main__":
    main()
