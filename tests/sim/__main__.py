"""`python -m tests.sim --seeds N --start S`: many histories; a failing seed is printed and replays with --trace."""

from __future__ import annotations

import argparse
import sys
import time

from .engine import EngineSimulator
from .simulator import Simulator
from .streams import StreamSimulator


def main() -> int:
    """Returns the number of failing seeds, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0, help="no new seed after so long; 0: all of them")
    parser.add_argument("--trace", action="store_true", help="print every event of the (single) seed")
    parser.add_argument("--engine", action="store_true", help="over the real log engine on simulated disks")
    parser.add_argument("--streams", action="store_true", help="and what is applied are real streams over that")
    options = parser.parse_args()
    kind: type[Simulator] = EngineSimulator if options.engine else Simulator
    if options.streams:
        kind = StreamSimulator
    began = time.monotonic()
    events = acked = elections = reads = slept = taken = 0
    played = 0
    for seed in range(options.start, options.start + options.seeds):
        if options.seconds and time.monotonic() - began > options.seconds:
            break
        played += 1
        sim: Simulator | None = None
        try:
            sim = kind(seed, trace=options.trace)
            sim.run()
        except Exception as err:  # a crash of the core is a finding too
            if sim is not None and sim.trace is not None:
                print("\n".join(sim.trace))
            print(f"seed {seed}: {type(err).__name__} {err}")
            over = " --streams" if options.streams else " --engine" if options.engine else ""
            print(f"replay: python -m tests.sim --start {seed} --seeds 1 --trace{over}")
            return 1
        finally:
            if isinstance(sim, EngineSimulator):
                sim.close()
        if sim.trace is not None:
            print("\n".join(sim.trace))
        events += sim.events
        acked += len(sim.acked)
        elections += len(sim.leaders)
        reads += sim.reads_done
        slept += len(sim.slept)
        taken += sim.taken_over
    took = time.monotonic() - began
    print(
        f"{played} seeds from {options.start} on, {events} events, {acked} acked, {reads} read, {elections} elections, "
        f"{slept} terms slept, {taken} states taken over, in {took:.1f} s: {played / took:.0f} seeds/s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
