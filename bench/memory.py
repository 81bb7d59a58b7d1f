#!/usr/bin/env python3
"""Memory of a log: heap per message in the open segment (goal: at most 24 bytes), and a process's private memory
against the budget it set, with many messages and with many subjects. --full is ten million of each."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import race

BATCH = 10_000
GOAL = 24
BUDGET = 64 << 20
SEGMENT = 1 << 30  # holds every message of the first part


def private_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(x.split()[1]) << 10 for x in status.splitlines() if x.startswith("RssAnon"))


def open_segment(home: Path, messages: int, subjects: int) -> dict[str, float]:
    """Heap that the open segment's index takes for each message."""
    import jscore

    with jscore.open(home, sync="never", segment_bytes=SEGMENT) as log:
        for at in range(0, messages, BATCH):
            pool = race.bodies(BATCH, 16)
            log.extend([(f"orders.{(at + i) % subjects}" if subjects else "", body) for i, body in enumerate(pool)])
        log.sync()
        stats = log.stats()
        return {"heap per message": stats.tail_heap / stats.tail_messages, "messages": stats.tail_messages}


def build(home: Path, messages: int, subjects: int) -> dict[str, float]:
    """Fills a log of sealed segments; what the writer's memory grew by."""
    import jscore

    before, began = private_bytes(), time.perf_counter()
    with jscore.open(home, sync="never", memory=BUDGET) as log:
        for at in range(0, messages, BATCH):
            pool = race.bodies(BATCH, 64)
            log.extend([(f"orders.{(at + i) % subjects:08d}.state", body) for i, body in enumerate(pool)])
        log.sync()
        grown, filled = private_bytes() - before, time.perf_counter() - began
        return {"seconds": filled, "grown MiB": grown / (1 << 20), "heap MiB": log.stats().heap_bytes / (1 << 20)}


def use(home: Path, messages: int, subjects: int) -> dict[str, float]:
    """Opens it, then reads in every way; what memory grew by: opened, after random reads, last, listing and a scan."""
    import jscore

    before, out = private_bytes(), dict[str, float]()

    def grown(what: str) -> None:
        out[f"{what} MiB"] = (private_bytes() - before) / (1 << 20)

    with jscore.open(home, sync="never", memory=BUDGET) as log:
        grown("opened")
        for _ in range(100_000):
            assert len(log[random.randrange(1, messages + 1)].data) == 64
        grown("random reads")
        for _ in range(100_000):
            name = f"orders.{random.randrange(min(subjects, messages)):08d}.state"
            assert len(log.subject(name).last().data) == 64
        grown("last by subject")
        assert sum(1 for _ in log.subject("orders.*.state").subjects()) == min(subjects, messages)
        grown("listing")
        assert race.touch(iter(log)) == messages * 64
        grown("scan")
        out["heap MiB"] = log.stats().heap_bytes / (1 << 20)
    return out


PARTS = {"open": open_segment, "build": build, "use": use}


def child(part: str, home: Path, messages: int, subjects: int) -> dict[str, float]:
    """A part in a process of its own, so that memory is that part's."""
    command = [sys.executable, __file__, "--child", part, str(home), str(messages), str(subjects)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def show(what: str, figures: dict[str, float]) -> None:
    print(f"  {what}: " + ", ".join(f"{name} {value:,.1f}" for name, value in figures.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--messages", type=int)
    parser.add_argument("--dir", type=Path, default=race.HOME / "memory")
    parser.add_argument("--child", nargs=4, metavar="X", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        part, home, messages, subjects = args.child
        print(json.dumps(PARTS[part](Path(home), int(messages), int(subjects))))
        return
    many = args.messages or (10_000_000 if args.full else 1_000_000)
    print(race.machine())
    print(f"open segment, 16-byte bodies, goal {GOAL} bytes a message")
    for subjects in (0, 1, 1000):
        shutil.rmtree(args.dir, ignore_errors=True)
        args.dir.mkdir(parents=True)
        show(f"{subjects} subjects", child("open", args.dir / "log", 1_000_000, subjects))
    for subjects in (1000, many):
        shutil.rmtree(args.dir, ignore_errors=True)
        args.dir.mkdir(parents=True)
        print(f"{many:,} messages of 64 B on {subjects:,} subjects, budget {BUDGET >> 20} MiB; private memory grown by")
        show("writer", child("build", args.dir / "log", many, subjects))
        show("reader", child("use", args.dir / "log", many, subjects))
    shutil.rmtree(args.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
