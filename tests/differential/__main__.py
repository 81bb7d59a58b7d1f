"""`python -m tests.differential --streams N --first M`: the long run.

A session is a number, and what it sends in one step is a stream; a session that differs is cut down and printed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

from .judge import Judge
from .servers import pair, peer

ROUND = 1_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=int, default=10, help="stop at so many")
    parser.add_argument("--uncut", action="store_true", help="print sessions that differ as they are")
    parser.add_argument("--seconds", type=float, default=86_400, help="stop after so long")
    options = parser.parse_args()
    theirs = peer()
    if theirs is None:
        print("nats-server is not on PATH: nothing to compare with", file=sys.stderr)
        return 0
    began = time.monotonic()
    failed = 0
    with tempfile.TemporaryDirectory() as home, pair(Path(home), theirs) as servers:
        judge = Judge([("127.0.0.1", server.port) for server in servers], options.seed)
        numbers = itertools.count(options.first)
        while judge.streams < options.streams and failed < options.failures:
            if time.monotonic() - began > options.seconds:
                break
            some = itertools.islice(numbers, ROUND)
            for difference in judge.differences(some):
                failed += 1
                print(difference if options.uncut else judge.cut_down(difference), flush=True)
                if failed >= options.failures:
                    break
            took = time.monotonic() - began
            rate = judge.streams / took
            asked = f"{judge.again:,} again, {judge.excused} excused"
            print(f"{judge.streams:,} streams, {asked}, {failed} differ, {rate:,.0f}/s", flush=True)
    last = options.first + judge.played - 1
    print(
        f"{judge.streams:,} streams in sessions {options.first:,} to {last:,} of seed {options.seed}: {failed} differ"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
