#!/usr/bin/env python3
"""Time to open a large log whose writer was killed with SIGKILL in the middle of appending: goal, below 0.3 s.

A child fills the log and goes on appending until it is killed; then each round a fresh process opens it, reads the
first and the last message, appends again and is killed in turn, so no round finds a log that was closed. --cold also
drops the page cache of the whole machine before every other round (root only).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import race

BATCH = 1000
HEAD = 32  # bytes of a record beside its body
GOAL = 0.3


def fill(home: Path, messages: int, size: int) -> None:
    """The first child: says "full" once everything is there, and appends on until it is killed."""
    import jscore

    log = jscore.open(home, sync="never")
    for _ in range(messages // BATCH):
        log.extend(race.bodies(BATCH, size))
    log.sync()
    print("full", flush=True)
    append(log, size)


def append(log, size: int) -> None:
    pool = race.bodies(BATCH, size)
    print("appending", flush=True)
    while True:
        log.extend(pool)
        for body in pool:
            log.append(body)


def reopen(home: Path, size: int) -> None:
    """A later child: prints seconds to open, seconds to read first and last, CPU seconds of both, private memory."""
    import jscore

    wall, cpu = time.perf_counter(), time.process_time()
    log = jscore.open(home, sync="never")
    opened = time.perf_counter()
    touched = len(log[log.first].data) + len(log[log.last].data)
    read, used = time.perf_counter(), time.process_time() - cpu
    assert touched == 2 * size, touched
    status = Path("/proc/self/status").read_text()
    anonymous = next(int(x.split()[1]) for x in status.splitlines() if x.startswith("RssAnon"))
    print(opened - wall, read - opened, used, anonymous / 1024, log.last, flush=True)
    append(log, size)


def killed(arguments: list[str], words: int) -> list[str]:
    """Runs a child of ours until it said so many lines and appended for a moment; kills it."""
    child = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    try:
        said = [child.stdout.readline().strip() for _ in range(words)]
        if said[-1] != "appending":
            raise SystemExit("the child ended before it was killed")
        time.sleep(0.3)  # somewhere in the middle of an append; where does not matter
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=1, help="size of the log; 10 is the size that the goal means")
    parser.add_argument("--messages", type=int, help="a million for each GiB unless told")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cold", action="store_true", help="drop the page cache before every other round")
    parser.add_argument("--dir", type=Path, default=race.HOME / "reopen")
    parser.add_argument("--child", choices=["fill", "open"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    messages = args.messages or int(args.gib * 1_000_000)
    size = max(int(args.gib * (1 << 30)) // messages - HEAD, 1)
    if args.child:
        return fill(args.dir, messages, size) if args.child == "fill" else reopen(args.dir, size)
    shape = ["--gib", str(args.gib), "--messages", str(messages), "--dir", str(args.dir)]
    shutil.rmtree(args.dir, ignore_errors=True)
    args.dir.mkdir(parents=True)
    times: dict[str, list[float]] = {"warm": [], "cold": []}
    try:
        race.say(f"filling {args.gib} GiB, {messages:,} messages of {size} B")
        began = time.monotonic()
        killed([*shape, "--child", "fill"], 2)
        print(race.machine())
        print(f"filled in {time.monotonic() - began:.1f} s; every open below follows a SIGKILL while appending")
        for at in range(args.rounds):
            cold = args.cold and at % 2 == 1
            if cold:
                os.sync()
                Path("/proc/sys/vm/drop_caches").write_text("3\n")
            line, _ = killed([*shape, "--child", "open"], 2)
            opened, read, cpu, memory, last = map(float, line.split())
            times["cold" if cold else "warm"].append(opened)
            print(
                f"  {'cold' if cold else 'warm'}: open {opened:.4f} s, first and last message {read * 1000:.2f} ms, "
                f"CPU {cpu:.4f} s, private memory {memory:.1f} MiB, {int(last):,} messages"
            )
        for kind, all_of in times.items():
            if all_of:
                middle = statistics.median(all_of)
                verdict = f"goal {GOAL} s {'met' if middle < GOAL else 'MISSED'}"
                print(f"{kind}: median {middle:.4f} s [{min(all_of):.4f}..{max(all_of):.4f}], {verdict}")
    finally:
        shutil.rmtree(args.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
