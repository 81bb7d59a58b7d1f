#!/usr/bin/env python3
"""SIGKILL of a three-replica stream's leader to the next acknowledged publish: ours beside nats-server, alternating.

failover.py [--runs 10] [--json FILE]. Each run is a fresh cluster of the example's files; 16 publishers never pause.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
from pathlib import Path

from jscore_server.demo import Cluster, Story, connect, daemon, ready

ROOT = Path(__file__).resolve().parent.parent


async def once(command: list[str], home: Path) -> float:
    """Seconds without an acknowledgement after one kill."""
    cluster = Cluster(ROOT / "server" / "conf", home, command)
    try:
        cluster.start()
        await ready(cluster.servers)
        client = await connect(cluster.urls)
        story = Story(cluster, publishers=16)
        await story.create(client)
        await story.current(client, {server.name for server in cluster}, caught_up=False)
        async with story.publishing():
            await story.more(500)
            await story.kill_leader(client)
            await story.more(100)
        await client.close()
        return story.gaps[0]
    finally:
        cluster.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sides = {"jscore-server": daemon()}
    if shutil.which("nats-server"):
        sides["nats-server"] = ["nats-server"]
    gaps: dict[str, list[float]] = {name: [] for name in sides}
    for run in range(options.runs):
        for name, command in sides.items():
            with tempfile.TemporaryDirectory(prefix="failover-") as home:
                gaps[name].append(asyncio.run(once(command, Path(home))))
            print(f"run {run + 1:2d}  {name:14s} {gaps[name][-1]:6.2f} s", flush=True)
    for name, seconds in gaps.items():
        median = statistics.median(seconds)
        print(f"{name:14s} median {median:.2f} s, least {min(seconds):.2f} s, most {max(seconds):.2f} s")
    if options.json:
        options.json.write_text(json.dumps(gaps, indent=1) + "\n")


if __name__ == "__main__":
    main()
