"""Reads from stores that were written, brought into their best shape, closed and opened again; the page cache is warm.
Every lane joins what it reads a thousand at a time, so every byte is touched; all must have read the same bytes."""

from __future__ import annotations

import random
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import race
from race import BLOCK, Lane, Lap, bodies, scaled
from rivals import RIVALS, Jscore, Store

KINDS: tuple[type[Store], ...] = (Jscore, *RIVALS)
SIZES = (128, 1024)
LANES = ("jscore", "lmdb", "sqlite", "rocksdict", "touch alone")


@contextmanager
def opened(course: race.Course, fill: Callable[[Store], None]) -> Iterator[dict[str, Store]]:
    """A filled store of every kind."""
    stores: dict[str, Store] = {}
    root = course.home / "read"
    try:
        for kind in KINDS:
            home = root / kind.name
            home.parent.mkdir(parents=True, exist_ok=True)
            store = kind(home)
            fill(store)
            store.settle()
            store.close()
            stores[kind.name] = kind(home)
        yield stores
    finally:
        for store in stores.values():
            store.close()
        shutil.rmtree(root, ignore_errors=True)


def looked_up(keys: list[Any], look_up: Callable[[Any], Any]) -> Callable[[], Iterator[Any]]:
    return lambda: map(look_up, keys)


def checksum(buffers: Iterator[Any]) -> int:
    total = 0
    for buffer in buffers:
        total = zlib.crc32(buffer, total)
    return total


def read(row: str, name: str, buffers: Callable[[], Iterator[Any]], size: int) -> Lane:
    def run(_: Path) -> Mapping[str, Lap]:
        with race.timed() as lap:
            total = race.touch(buffers())
        assert total == size
        return {row: lap}

    return Lane(name, run, "ours" if name == "jscore" else "limit" if name == "touch alone" else "rival")


def against(course: race.Course, row: str, sources: dict[str, Callable[[], Iterator[Any]]], **how: Any) -> None:
    """Races sources of the same buffers."""
    sums = {name: checksum(source()) for name, source in sources.items()}
    assert len(set(sums.values())) == 1, sums
    size = sum(map(len, sources["touch alone"]()))
    lanes = [read(row, name, source, size) for name, source in sources.items()]
    course.race({row: sum(1 for _ in sources["touch alone"]())}, lanes, **how)


def by_sequence(course: race.Course, size: int) -> tuple[str, str]:
    """Both rows of one set of stores: everything in order, then some by sequence in random order."""
    scan, get = f"scan, {size} B", f"get by random sequence, {size} B"
    if get in course.results:
        return scan, get
    n = scaled(500_000 if size == 128 else 100_000)
    pool = bodies(n, size)
    batches = [pool[at : at + BLOCK] for at in range(0, n, BLOCK)]
    with opened(course, lambda store: store.extender(batches)()) as stores:
        sources: dict[str, Callable[[], Iterator[Any]]] = {name: store.scan for name, store in stores.items()}
        against(course, scan, {**sources, "touch alone": lambda: iter(pool)}, goals={scan: 2.0})
        chosen = [random.randrange(1, n + 1) for _ in range(min(n, scaled(50_000)))]
        found = [pool[seq - 1] for seq in chosen]
        sources = {name: looked_up(store.keys(chosen), store.get()) for name, store in stores.items()}
        against(course, get, {**sources, "touch alone": lambda: iter(found)}, goals={get: 1.0}, against="lmdb")
    return scan, get


@pytest.mark.parametrize("name", LANES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.benchmark(timer=race.recorded_time)
def test_scan(benchmark: Any, course: race.Course, size: int, name: str) -> None:
    race.report(benchmark, course.results[by_sequence(course, size)[0]], name)


@pytest.mark.parametrize("name", LANES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.benchmark(timer=race.recorded_time)
def test_get(benchmark: Any, course: race.Course, size: int, name: str) -> None:
    race.report(benchmark, course.results[by_sequence(course, size)[1]], name)


@pytest.mark.parametrize("name", LANES)
@pytest.mark.benchmark(timer=race.recorded_time)
def test_last_by_subject(benchmark: Any, course: race.Course, name: str) -> None:
    """A million subjects, a message each. Ours is the log itself; the rivals' stores hold the newest of each only."""
    row = "last by subject, a million subjects"
    if row not in course.results:
        n = 1_000_000
        pool = bodies(n, 64)
        subjects = [f"orders.{number:07d}.state" for number in range(n)]
        with opened(course, lambda store: store.put_subjects(subjects, pool)) as stores:
            chosen = [random.randrange(n) for _ in range(scaled(50_000))]
            names = [subjects[at] for at in chosen]
            found = [pool[at] for at in chosen]
            sources = {kind: looked_up(store.subject_keys(names), store.last_of()) for kind, store in stores.items()}
            against(course, row, {**sources, "touch alone": lambda: iter(found)}, goals={row: 1.0}, against="lmdb")
    race.report(benchmark, course.results[row], name)
