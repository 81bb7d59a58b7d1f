"""`python -m tests.model --operations N --seed S`: many programs; one that fails is cut down and printed for replay."""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback

from .player import Player, play
from .program import Program


def failure(program: Program) -> tuple[str, str]:
    """What goes wrong: where, and as a line; empty: nothing."""
    try:
        play(program)
    except Exception as err:
        return place(err), f"{type(err).__name__}: {err}"
    return "", ""


def place(err: Exception) -> str:
    frames = [f for f in reversed(traceback.extract_tb(err.__traceback__)) if "<lambda>" not in f.name][:3]
    return type(err).__name__ + " in " + " < ".join(f"{f.name.removeprefix('jscore._log.')}:{f.lineno}" for f in frames)


def cut_down(program: Program, where: str, tries: int = 1000) -> Program:
    """A shorter program that fails in the same place."""
    words = list(program.words)
    step = max(1, len(words) // 2)
    while step and tries > 0:
        at = 0
        while at < len(words) and tries > 0:
            tries -= 1
            fewer = words[:at] + words[at + step :]
            if failure(Program(program.shape, fewer))[0] == where:
                words = fewer
            else:
                at += step
        step = min(step // 2, max(1, len(words) // 2)) if step > 1 else 0
    return Program(program.shape, words)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model")
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=int, default=1, help="stop at so many")
    parser.add_argument("--replay", help="a program, as it was printed, or the number of one: operation by operation")
    parser.add_argument("--no-cut", action="store_true", help="print failing programs as they are")
    options = parser.parse_args()
    if options.replay is not None:
        text = options.replay
        program = Program.parse(text) if ":" in text else generated(int(text))
        Player(program, trace=True).run()
        return 0
    began = said = time.monotonic()
    operations = programs = failed = 0
    seed = options.seed << 32
    while operations < options.operations and failed < options.failures:
        program = generated(seed)
        player = Player(program)
        try:
            player.run()
        except Exception as err:
            failed += 1
            print(f"program {seed}: {err}\n  {place(err)}", flush=True)
            if not options.no_cut:
                short = cut_down(Program(program.shape, program.words[: player.operations]), place(err))
                print(f"  {len(short.words)} operations: {failure(short)[1]}")
                print(f"  replay: python -m tests.model --replay {short}", flush=True)
            else:
                print(f"  replay: python -m tests.model --replay {seed}", flush=True)
        operations += player.operations
        programs += 1
        seed += 1
        now = time.monotonic()
        if now - said > 10:
            said = now
            rate = operations / (now - began)
            print(f"{operations:,} operations, {programs:,} programs, {rate:,.0f}/s, {failed} failed", flush=True)
    took = time.monotonic() - began
    print(
        f"{operations:,} operations in {programs:,} programs, {took:.0f} s, {operations / took:,.0f}/s: {failed} failed"
    )
    return 1 if failed else 0


def generated(seed: int) -> Program:
    return Program.of_seed(seed, random.Random(~seed).choice((50, 300, 1000, 3000)))


if __name__ == "__main__":
    sys.exit(main())
