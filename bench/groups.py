#!/usr/bin/env python3
"""What many replicated streams cost: three servers on loopback with N streams of three replicas.

groups.py [--groups 1000] [--json FILE]. Shown: streams created a second, memory a group, CPU of each server while
nothing happens, how long it takes until every stream has a leader, after a start of all three and after SIGKILL of the
one that leads most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from core import cpu_seconds
from jscore_server.demo import ApiError, Cluster, Server, api, connect, daemon, free_ports, ready

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 64
IDLE_S = 10
SETTLE_S = 120


def private_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))


def files(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def led(port: int) -> int:
    """Streams led by the server with that monitoring port; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/jsz?accounts=1", timeout=5) as answer:
            return int(json.load(answer).get("streams_leader", 0))
    except (OSError, ValueError):
        return 0


async def all_led(ports: list[int], groups: int, began: float, seconds: float = SETTLE_S) -> float:
    """Seconds from `began` until the servers together lead all streams. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    while True:
        counts = await asyncio.gather(*(loop.run_in_executor(None, led, port) for port in ports))
        took = time.monotonic() - began
        if sum(counts) >= groups:
            return took
        if took > seconds:
            raise TimeoutError(f"{sum(counts)} of {groups} streams have a leader after {seconds:.0f} s: {counts}")
        await asyncio.sleep(max(0.05, groups / 20_000))  # the answer goes through all streams: asked less often


async def create(cluster: Cluster, groups: int) -> float:
    clients = [await connect(server.url) for server in cluster]
    numbers = iter(range(groups))

    async def some(client: Any) -> None:
        for number in numbers:
            config = {"name": f"S{number}", "subjects": [f"s.{number}"], "num_replicas": 3, "storage": "file"}
            for last in (False, True):
                try:
                    await api(client, f"STREAM.CREATE.S{number}", config, seconds=20)
                    break
                except (TimeoutError, ApiError):
                    if last:
                        raise

    began = time.monotonic()
    await asyncio.gather(*(some(clients[i % len(clients)]) for i in range(AT_ONCE)))
    took = time.monotonic() - began
    for client in clients:
        await client.close()
    return took


async def idle_cpu(servers: list[Server]) -> list[float]:
    """Percent of a core that each server takes while nothing happens."""
    before = [cpu_seconds(server.pid) for server in servers]
    began = time.monotonic()
    await asyncio.sleep(IDLE_S)
    span = time.monotonic() - began
    return [100 * (cpu_seconds(server.pid) - was) / span for server, was in zip(servers, before, strict=True)]


async def settled(servers: list[Server]) -> None:
    """Until the servers are idle, or for long enough to call what they do their idle cost."""
    for _ in range(30):
        before = sum(cpu_seconds(server.pid) for server in servers)
        await asyncio.sleep(1)
        if sum(cpu_seconds(server.pid) for server in servers) - before < 0.05 * len(servers):
            return


def show(result: dict[str, Any], **values: Any) -> None:
    result.update(values)
    for name, value in values.items():
        print(f"{name.replace('_', ' '):32s} {value}", flush=True)


async def measure(cluster: Cluster, monitors: list[int], groups: int) -> dict[str, Any]:
    result: dict[str, Any] = {"groups": groups}
    cluster.start()
    await ready(cluster.servers)
    await asyncio.sleep(1)
    empty = [private_bytes(server) for server in cluster]
    show(result, idle_percent_without_groups=[round(p, 2) for p in await idle_cpu(cluster.servers)])
    took = await create(cluster, groups)
    show(result, created_a_second=round(groups / took))
    await all_led(monitors, groups, time.monotonic())
    await settled(cluster.servers)
    grown = [private_bytes(server) - was for server, was in zip(cluster, empty, strict=True)]
    show(result, kib_a_group=[round(n / groups / 1024, 1) for n in grown], files=[files(server) for server in cluster])
    show(result, idle_percent=[round(p, 2) for p in await idle_cpu(cluster.servers)])

    counts = [led(port) for port in monitors]
    most = max(range(len(counts)), key=counts.__getitem__)
    others = [port for i, port in enumerate(monitors) if i != most]
    left = [server for i, server in enumerate(cluster) if i != most]
    began = time.monotonic()
    cluster.servers[most].kill()
    show(result, failover_led_by_it=counts[most], failover_s=round(await all_led(others, groups, began), 2))
    await settled(left)
    show(result, idle_percent_two_left=[round(p, 2) for p in await idle_cpu(left)])
    began = time.monotonic()
    cluster.servers[most].start()
    await ready([cluster.servers[most]], 60)
    show(result, third_back_s=round(time.monotonic() - began, 2))
    await settled(cluster.servers)
    show(result, idle_percent_three_again=[round(p, 2) for p in await idle_cpu(cluster.servers)])

    cluster.kill()
    began = time.monotonic()
    cluster.start()
    show(result, cold_start_s=round(await all_led(monitors, groups, began), 2))
    await settled(cluster.servers)
    show(result, kib_a_group_restarted=[round((private_bytes(s) - e) / groups / 1024, 1)
                                        for s, e in zip(cluster, empty, strict=True)])  # fmt: skip
    show(result, idle_percent_restarted=[round(p, 2) for p in await idle_cpu(cluster.servers)])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--home", type=Path, help="keep stores and logs there")
    options = parser.parse_args()
    monitors = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="groups-") as home:
        cluster = Cluster(
            ROOT / "server" / "conf",
            options.home or Path(home),
            daemon(),
            edit=lambda i, text: f"{text}\nhttp: 127.0.0.1:{monitors[i]}\n",
        )
        try:
            result = asyncio.run(measure(cluster, monitors, options.groups))
        finally:
            cluster.kill()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
