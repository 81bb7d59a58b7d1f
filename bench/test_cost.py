"""What compression and encryption cost: append, seal, scan and random reads of the same messages, plain and otherwise,
and the bytes they take. Bodies of two kinds: random ones, which compression only loses time on, and JSON documents."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import race
from race import BLOCK, Lane, Lap, bodies, scaled
from rivals import Jscore

KEY = os.urandom(32)
SEGMENT = 4 << 20  # most of the messages are in sealed segments
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "zstd": {"compression": "zstd"},
    "encrypted": {"keys": KEY},
    "zstd, encrypted": {"compression": "zstd", "keys": KEY},
}
STEPS = ("append in batches of 1000", "seal, per message", "scan", "get by random sequence")


def documents(n: int) -> list[bytes]:
    """JSON as events have it: names that repeat, numbers and identifiers that do not."""
    return [
        json.dumps(
            {
                "id": os.urandom(8).hex(),
                "kind": random.choice(["created", "paid", "shipped", "returned"]),
                "customer": random.randrange(10**6),
                "amount": random.randrange(10**5) / 100,
                "currency": "EUR",
                "note": "left with the neighbours" if at % 3 else "",
            }
        ).encode()
        for at in range(n)
    ]


def lane(name: str, kind: str, pool: list[bytes], chosen: list[int], notes: dict[str, str]) -> Lane:
    batches = [pool[at : at + BLOCK] for at in range(0, len(pool), BLOCK)]
    size, found = sum(map(len, pool)), sum(len(pool[seq - 1]) for seq in chosen)

    def run(place: Path) -> Mapping[str, Lap]:
        laps: dict[str, Lap] = {}
        store = Jscore(place, background=False, segment_bytes=SEGMENT, **WAYS[name])
        extend = store.extender(batches)
        with race.timed() as laps[STEPS[0]]:
            extend()
            store.hand_over()
        with race.timed() as laps[STEPS[1]]:
            store.settle()
        notes[name] = f"{name}: {store.log.disk_bytes / size:.3f} bytes on disk for one of body"
        store.close()
        store = Jscore(place, background=False, segment_bytes=SEGMENT, **WAYS[name])
        with race.timed() as laps[STEPS[2]]:
            assert race.touch(store.scan()) == size
        with race.timed() as laps[STEPS[3]]:
            assert race.touch(map(store.get(), chosen)) == found
        store.close()
        return {f"{step}, {kind}": lap for step, lap in laps.items()}

    return Lane(name, run, "base" if name == "plain" else "ours")


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["random bodies", "documents"])
@pytest.mark.benchmark(timer=race.recorded_time)
def test_cost(benchmark: Any, course: race.Course, kind: str, step: str, name: str) -> None:
    row = f"{step}, {kind}"
    if row not in course.results:
        n = scaled(100_000) // BLOCK * BLOCK or BLOCK
        pool = documents(n) if kind == "documents" else bodies(n, 150)
        chosen = [random.randrange(1, n + 1) for _ in range(min(n, scaled(20_000)))]
        notes: dict[str, str] = {}
        rows = {f"{step}, {kind}": len(chosen) if step == STEPS[-1] else n for step in STEPS}
        made = course.race(rows, [lane(way, kind, pool, chosen, notes) for way in WAYS], against="base")
        made[f"{STEPS[1]}, {kind}"].notes += notes.values()
    race.report(benchmark, course.results[row], name)
