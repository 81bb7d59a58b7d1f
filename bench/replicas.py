#!/usr/bin/env python3
"""Three replicas beside nats-server, alternating: one synchronous publisher, and a server that catches up.

replicas.py sync [--rounds 5] [--msgs 10000]: `nats bench js pub sync`, 128 B, one client, both lazy (2 min).
replicas.py catchup [--rounds 3] [--mib 1024]: one follower is killed, that much is published without it in messages of
16 KiB, it is started again. Shown: how fast it catches up, and what rate publishers keep meanwhile, beside that with
two servers before. JSCORE_TEST_SERVER names our command; the store is in $TMPDIR.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from core import cpu_seconds
from jscore_server.demo import ApiError, Cluster, Server, api, connect, daemon, eventually, ready

ROOT = Path(__file__).resolve().parent.parent
SIZE = 16 << 10


def lazily(_: int, text: str) -> str:
    return text.replace("jetstream {", "jetstream {\n   sync_interval: 2m", 1)


def publish(url: str, how: str, msgs: int, size: int, *arguments: str) -> float:
    """`nats bench js pub`, to its end: messages a second."""
    command = ["nats", "--no-context", "-s", url, "bench", "js", "pub", how, "b", "--stream", "B", "--no-progress"]
    answer = subprocess.run(
        [*command, "--msgs", str(msgs), "--size", str(size), *arguments], capture_output=True, text=True, timeout=280
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", answer.stdout + answer.stderr)
    found = re.findall(r"stats: ([\d,]+) msgs/sec", text)
    if answer.returncode or not found:
        raise RuntimeError(f"nats bench: {text[-400:]}")
    return float(found[-1].replace(",", ""))


async def opened(cluster: Cluster) -> str:
    """Starts the servers and makes the stream; who leads it."""
    cluster.start()
    await ready(cluster.servers)
    client = await connect(cluster.urls)

    async def made() -> bool:
        try:
            await api(client, "STREAM.CREATE.B", {"name": "B", "subjects": ["b"], "num_replicas": 3, "storage": "file"})
        except ApiError as err:
            if err.err_code != 10058:
                raise
        return True

    await eventually(made, 30, "stream made")
    leader = str((await api(client, "STREAM.INFO.B"))["cluster"]["leader"])
    await client.close()
    return leader


async def current(leader: Server, behind: str, last: int) -> None:
    """Waits until `behind` holds the stream up to `last`."""
    client = await connect(leader.url)

    async def there() -> bool:
        info = await api(client, "STREAM.INFO.B", seconds=30)
        peers = [p for p in info["cluster"]["replicas"] if p["name"] == behind]
        return info["state"]["last_seq"] >= last and bool(peers) and peers[0]["current"] and not peers[0].get("lag", 0)

    await eventually(there, 250, "caught up")
    await client.close()


def sync_once(cluster: Cluster, options: argparse.Namespace) -> list[float]:
    leader = cluster[asyncio.run(opened(cluster))]
    before = sum(cpu_seconds(s.pid) for s in cluster)
    rate = publish(leader.url, "sync", options.msgs, 128)
    return [rate, (sum(cpu_seconds(s.pid) for s in cluster) - before) / options.msgs * 1e6]


def catchup_once(cluster: Cluster, options: argparse.Namespace) -> list[float]:
    leader = cluster[asyncio.run(opened(cluster))]
    behind = next(s for s in cluster if s is not leader)
    count = (options.mib << 20) // SIZE
    behind.kill()
    alone = publish(leader.url, "async", count, SIZE, "--batch", "100")
    begun = time.monotonic()
    behind.start()
    pace = [f"--throughput={options.pace * alone:.0f}"] if options.pace else []
    busy = publish(leader.url, "async", count // 2, SIZE, "--batch", "100", *pace)
    published = time.monotonic() - begun
    asyncio.run(current(leader, behind.name, count + count // 2))
    caught_up = options.mib * 1.5 / (time.monotonic() - begun)
    return [alone * SIZE / 1e6, busy / alone / (options.pace or 1), caught_up, published]


WORK: dict[str, tuple[Callable[[Cluster, argparse.Namespace], list[float]], list[str]]] = {
    "sync": (sync_once, ["messages a second", "CPU s a million, all three"]),
    "catchup": (catchup_once, ["MB/s with two", "share of it kept", "MiB/s caught up", "s of publishing meanwhile"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WORK)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--msgs", type=int, default=10_000)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--pace", type=float, default=0, help="publishers want this share of that rate only")
    parser.add_argument("--alone", action="store_true", help="without nats-server")
    options = parser.parse_args()
    if not shutil.which("nats"):
        sys.exit("needs the nats command: go install github.com/nats-io/natscli/nats@v0.5.1")
    once, columns = WORK[options.what]
    sides = {"jscore-server": daemon()}
    if shutil.which("nats-server") and not options.alone:
        sides["nats-server"] = ["nats-server"]
    found: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, command in sides.items():
            with tempfile.TemporaryDirectory(prefix="replicas-") as home:
                edit = lazily if options.what == "sync" else None
                cluster = Cluster(ROOT / "server" / "conf", Path(home), command, edit=edit)
                try:
                    found[name].append(once(cluster, options))
                finally:
                    cluster.kill()
            print(f"{name:14s}", "  ".join(f"{value:,.2f}" for value in found[name][-1]), flush=True)
    for name, rounds in found.items():
        for i, column in enumerate(columns):
            values = [r[i] for r in rounds]
            spread = f"[{min(values):,.2f}..{max(values):,.2f}]"
            print(f"{name:14s} {column:28s} median {statistics.median(values):,.2f} {spread}")


if __name__ == "__main__":
    main()
