"""Unsynced appends: one at a time and in batches. Everybody is measured until the operating system has all of it, and
once more until the disk has it too and the store is closed, so that work put off shows; the disk decides there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import race
from race import Lane, Lap, bodies, scaled
from rivals import RIVALS, BufferedFile, Jscore, RawFile, Store

SIZES = (16, 128, 1024, 4096, 8192)
BATCHES = (100, 1000)
BATCH_BODIES = (128, 1024)
CLOSED = ", synced and closed"
LANES = ("jscore", "lmdb", "sqlite", "rocksdict", "raw file", "raw file, buffered")


def size_name(size: int) -> str:
    return f"{size} B" if size < 1024 else f"{size >> 10} KiB"


def lane(kind: type[Store], make: Callable[[Store], Callable[[], None]], row: str) -> Lane:
    def run(place: Path) -> Mapping[str, Lap]:
        store = kind(place)
        append = make(store)
        with race.timed() as closed:
            watch = race.Watch()
            append()
            store.hand_over()
            handed = watch.lap()
            store.sync()
            store.close()
        return {row: handed, f"{row}{CLOSED}": closed}

    role = "ours" if kind is Jscore else "rival" if kind in RIVALS else "limit"
    return Lane(kind.name, run, role, kind.unsynced)


def both(row: str, n: int) -> dict[str, int]:
    return {row: n, f"{row}{CLOSED}": n}


@pytest.mark.parametrize("name", LANES)
@pytest.mark.parametrize("size", SIZES, ids=size_name)
@pytest.mark.benchmark(timer=race.recorded_time)
def test_single(benchmark: Any, course: race.Course, size: int, name: str) -> None:
    row = f"append one by one, {size_name(size)}"
    n = scaled(min(50_000, (80 << 20) // size))
    rows = both(row, n)
    if row not in course.results:
        pool = bodies(n, size)
        lanes = [lane(kind, lambda s: s.appender(pool), row) for kind in (Jscore, *RIVALS, RawFile, BufferedFile)]
        course.race(rows, lanes, goals={row: 2.0})
    race.report(benchmark, course.results[row], name)


@pytest.mark.parametrize("name", LANES[:-1])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("size", BATCH_BODIES, ids=size_name)
@pytest.mark.benchmark(timer=race.recorded_time)
def test_batch(benchmark: Any, course: race.Course, size: int, batch: int, name: str) -> None:
    row = f"append in batches of {batch}, {size_name(size)}"
    n = scaled(min(200_000, (80 << 20) // size)) // batch * batch
    rows = both(row, n)
    if row not in course.results:
        pool = bodies(n, size)
        batches = [pool[at : at + batch] for at in range(0, n, batch)]
        lanes = [lane(kind, lambda s: s.extender(batches), row) for kind in (Jscore, *RIVALS, RawFile)]
        course.race(rows, lanes, goals={row: 3.0})
    race.report(benchmark, course.results[row], name)
