#!/usr/bin/env python3
"""Ten million subjects in one log: time to build, to reopen, to list by wildcard, to count, to find the last of one,
and memory. A million unless told; --full for ten."""

from __future__ import annotations

import argparse
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import race
from memory import private_bytes

import jscore

BATCH = 10_000
BUDGET = 64 << 20
GROUPS = 1000  # second token


def subject(n: int) -> str:
    return f"device.{n % GROUPS:03d}.{n:08d}.temperature"


def timed(what: str, call: Callable[[], int]) -> None:
    """Runs it and says how long it took and how much of each."""
    before, wall, cpu = private_bytes(), time.perf_counter(), time.process_time()
    n = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"  {what:44} {n:12,}  {wall:9.4f} s  {wall / max(n, 1) * 1e6:9.3f} us each  CPU {cpu:8.3f} s  "
        f"memory {(private_bytes() - before) / (1 << 20):+7.1f} MiB",
        flush=True,
    )


def fill(log: jscore.Log, subjects: int) -> int:
    for at in range(0, subjects, BATCH):
        log.extend([(subject(at + i), body) for i, body in enumerate(race.bodies(BATCH, 64))])
    log.sync()
    return subjects


def last(log: jscore.Log, subjects: int, n: int) -> int:
    for _ in range(n):
        assert log.subject(subject(random.randrange(subjects))).last() is not None
    return n


def listed(log: jscore.Log, pattern: str) -> int:
    return sum(1 for _ in log.subject(pattern).subjects())


def ask(log: jscore.Log, subjects: int) -> None:
    one = subject(subjects // 2).rsplit(".", 2)[1]
    timed("last by subject, random", lambda: last(log, subjects, 100_000))
    timed("last by subject, random, again", lambda: last(log, subjects, 100_000))
    timed("list device.007.>", lambda: listed(log, "device.007.>"))
    timed(f"list device.*.{one}.temperature", lambda: listed(log, f"device.*.{one}.temperature"))
    timed("list device.>", lambda: listed(log, "device.>"))
    timed("count device.007.>", lambda: log.subject("device.007.>").count())
    timed("count device.>", lambda: log.subject("device.>").count())
    timed("iterate device.007.>", lambda: sum(1 for _ in log.subject("device.007.>")))
    print(f"  heap by its own count: {log.stats().heap_bytes / (1 << 20):.1f} MiB of {BUDGET >> 20} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=1_000_000)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--dir", type=Path, default=race.HOME / "subjects")
    args = parser.parse_args()
    subjects = 10_000_000 if args.full else args.subjects
    shutil.rmtree(args.dir, ignore_errors=True)
    args.dir.parent.mkdir(parents=True, exist_ok=True)
    print(race.machine())
    try:
        with jscore.open(args.dir, sync="never", memory=BUDGET) as log:
            print(f"{subjects:,} subjects, a message of 64 B each")
            timed("build", lambda: fill(log, subjects))
            print("in the process that built it")
            ask(log, subjects)
            timed("close", lambda: log.close() or 1)
        opened: list[jscore.Log] = []
        timed("open again", lambda: opened.append(jscore.open(args.dir, sync="never", memory=BUDGET)) or 1)
        with opened[0] as log:
            ask(log, subjects)
            print(f"  on disk {log.disk_bytes / (1 << 20):,.0f} MiB for {log.bytes / (1 << 20):,.0f} MiB of records")
    finally:
        shutil.rmtree(args.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
