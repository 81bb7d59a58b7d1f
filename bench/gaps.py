#!/usr/bin/env python3
"""How long publishes to a replicated stream are not acknowledged while its leadership moves.

gaps.py [--runs 20] [--only kill,pause,step-down,lame-duck] [--hints] [--peer] [--json FILE]. Three servers on
loopback, a stream of three replicas, and a client at a server that does not lead: it publishes every 2 ms whatever
comes back. Shown is the longest time between two acknowledgements from the fault on.

kill: SIGKILL of the leader. pause: SIGSTOP for 2.5 s. step-down: the API's request. lame-duck: SIGUSR2 to the leader.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from jscore_server.demo import Cluster, Server, Story, api, connect, daemon, ready

ROOT = Path(__file__).resolve().parent.parent
EVERY_S = 0.002
PAUSE_S = 2.5
WATCH_S = {"kill": 3.0, "pause": 4.0, "step-down": 1.5, "lame-duck": 2.5}
LOOK_S, LOOKS = 0.1, 100  # until something is acknowledged again at all
GOAL_S = {"kill": 0.4, "pause": 2.0, "step-down": 0.05, "lame-duck": 0.1}


class Pulse:
    """Publishes at a steady pace and notes when acknowledgements come."""

    def __init__(self, client: Any, subject: str) -> None:
        self.client = client
        self.subject = subject
        self.acks: list[float] = []

    async def run(self) -> None:
        inbox = self.client.new_inbox()

        async def acked(message: Any) -> None:
            body = json.loads(message.data) if message.data else {}
            if "seq" in body and "error" not in body:
                self.acks.append(time.monotonic())

        await self.client.subscribe(inbox, cb=acked)
        due = time.monotonic()
        while True:
            await self.client.publish(self.subject, b"x" * 128, reply=inbox)
            due = max(due + EVERY_S, time.monotonic() - 0.05)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def gap(self, since: float) -> float:
        before = max((t for t in self.acks if t <= since), default=since)
        times = [before, *(t for t in self.acks if t > since), time.monotonic()]
        return max(b - a for a, b in itertools.pairwise(times))


async def do(word: str, leader: Server, client: Any, stream: str) -> None:
    if word == "kill":
        leader.kill()
    elif word == "pause":
        os.kill(leader.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(PAUSE_S, os.kill, leader.pid, signal.SIGCONT)
    elif word == "step-down":
        await api(client, f"STREAM.LEADER.STEPDOWN.{stream}", seconds=10)
    else:
        os.kill(leader.pid, signal.SIGUSR2)


async def once(word: str, cluster: Cluster, story: Story) -> float:
    client = await connect(cluster.urls)
    await story.current(client, {server.name for server in cluster}, caught_up=False)
    leader = cluster[await story.leader(client)]
    await client.close()
    other = next(server for server in cluster if server is not leader)
    client = await connect(other.url)
    pulse = Pulse(client, story.subject.replace("*", "pulse"))
    running = asyncio.create_task(pulse.run())
    try:
        await asyncio.sleep(1)
        since = time.monotonic()
        await do(word, leader, client, story.stream)
        await asyncio.sleep(WATCH_S[word])
        for _ in range(LOOKS):
            if pulse.acks and pulse.acks[-1] > time.monotonic() - 1:
                break
            await asyncio.sleep(LOOK_S)
        gap = pulse.gap(since)
    finally:
        running.cancel()
        await client.close()
    if word in ("kill", "lame-duck"):
        leader.kill()
        leader.start()
    await ready(cluster.servers, 60)
    return gap


def hinted(_: int, text: str) -> str:
    return text.replace("name: c1", "name: c1\n  udp_hints: true", 1)


async def measure(
    command: list[str], home: Path, words: list[str], runs: int, *, hints: bool
) -> dict[str, list[float]]:
    cluster = Cluster(ROOT / "server" / "conf", home, command, edit=hinted if hints else None)
    gaps: dict[str, list[float]] = {}
    try:
        cluster.start()
        await ready(cluster.servers)
        client = await connect(cluster.urls)
        story = Story(cluster)
        await story.create(client)
        await client.close()
        for word in words:
            for _ in range(runs):
                gaps.setdefault(word, []).append(await once(word, cluster, story))
            found = gaps[word]
            line = f"{word:10s} median {statistics.median(found):.3f} s, least {min(found):.3f}, most {max(found):.3f}"
            print(f"{line}, {runs} runs; goal {GOAL_S[word]} s", flush=True)
    finally:
        cluster.kill()
    return gaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", default="kill,pause,step-down,lame-duck")
    parser.add_argument("--hints", action="store_true", help="with udp_hints")
    parser.add_argument("--peer", action="store_true", help="nats-server of PATH instead of ours")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    command = ["nats-server"] if options.peer else daemon()
    with tempfile.TemporaryDirectory(prefix="gaps-") as home:
        gaps = asyncio.run(measure(command, Path(home), options.only.split(","), options.runs, hints=options.hints))
    if options.json:
        options.json.write_text(json.dumps(gaps, indent=1) + "\n")


if __name__ == "__main__":
    main()
