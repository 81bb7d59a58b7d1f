"""Durable appends of 64 concurrent writers, beside a raw file that gets the very same batches with one write and one
fdatasync each: the group commit may cost a tenth of what the disk allows.

The batches are read from the segments that our lane left: a trailer closes each (docs/format.md). The rivals' lanes
have fewer messages, as most of them sync once a message.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import race
from race import Lane, Lap, bodies, scaled
from rivals import RIVALS, Jscore, Store

import jscore
import jscore.aio

WRITERS = 64
SIZES = (128, 1024)
SEGMENT_HEAD, RECORD_HEAD, TRAILER = 64, 32, 255


def batches(home: Path) -> Iterator[bytes]:
    """Each batch's bytes, trailer included, in the order of writing."""
    for segment in sorted(home.glob("*.seg")):
        image, at, start = segment.read_bytes(), SEGMENT_HEAD, SEGMENT_HEAD
        while at + RECORD_HEAD <= len(image):
            length, kind = struct.unpack_from("<I", image, at + 4)[0], image[at + 30]
            if length < RECORD_HEAD:
                break
            at += length + 7 & ~7
            if kind == TRAILER:
                if struct.unpack_from("<I", image, at - 8)[0]:  # 0 records: the mark of a clean close
                    yield image[start:at]
                start = at


def in_threads(appends: Sequence[Callable[[], None]]) -> Lap:
    """All at once; the time from the common start to the last one's end."""
    start = threading.Barrier(len(appends) + 1)

    def run(append: Callable[[], None]) -> None:
        start.wait()
        append()

    threads = [threading.Thread(target=run, args=(append,)) for append in appends]
    for thread in threads:
        thread.start()
    with race.timed() as lap:
        start.wait()
        for thread in threads:
            thread.join()
    return lap


async def in_tasks(home: Path, shares: Sequence[Sequence[bytes]]) -> Lap:
    async with await jscore.aio.open(home) as log:

        async def run(share: Sequence[bytes]) -> None:
            for body in share:
                await log.append(body)

        with race.timed() as lap:
            async with asyncio.TaskGroup() as group:
                for share in shares:
                    group.create_task(run(share))
    return lap


class Replay:
    """The batches of the latest lap of one of our lanes."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []

    def keep(self, home: Path) -> None:
        self.batches = list(batches(home))

    def run(self, place: Path, reserve: bool) -> Lap:
        place.mkdir(parents=True)
        fd = os.open(place / "data", os.O_WRONLY | os.O_CREAT)
        if reserve:
            os.posix_fallocate(fd, 0, sum(map(len, self.batches)) + (16 << 20))
            os.fsync(fd)
        with race.timed() as lap:
            for batch in self.batches:
                os.write(fd, batch)
                os.fdatasync(fd)
        os.close(fd)
        return lap

    def about(self, name: str, n: int) -> str:
        sizes = [len(batch) for batch in self.batches]
        return (
            f"{name}, last lap: {len(sizes):,} batches, {n / len(sizes):.1f} messages and "
            f"{statistics.mean(sizes):,.0f} bytes each"
        )


def ours(row: str, name: str, shares: Sequence[Sequence[bytes]], replay: Replay) -> Lane:
    def run(place: Path) -> Mapping[str, Lap]:
        if name.endswith("tasks"):
            lap = asyncio.run(in_tasks(place, shares))
        else:
            store = Jscore(place, durable=True)
            lap = in_threads([store.appender(share) for share in shares])
            store.close()
        replay.keep(place)
        return {row: lap}

    return Lane(name, run, "ours", Jscore.synced)


def rival(row: str, kind: type[Store], shares: Sequence[Sequence[bytes]]) -> Lane:
    def run(place: Path) -> Mapping[str, Lap]:
        store = kind(place, durable=True)
        lap = in_threads([store.appender(share) for share in shares])
        store.close()
        return {row: lap}

    return Lane(kind.name, run, "note", kind.synced, units=sum(map(len, shares)))


@pytest.mark.parametrize("how", ["threads", "tasks"])
@pytest.mark.parametrize("lane", ["jscore", "raw, growing", "raw, reserved", "lmdb", "sqlite", "rocksdict"])
@pytest.mark.parametrize("size", SIZES, ids=lambda n: f"{n} B")
@pytest.mark.benchmark(timer=race.recorded_time)
def test_durable(benchmark: Any, course: race.Course, size: int, lane: str, how: str) -> None:
    row = f"durable append, {WRITERS} {how}, {size} B"
    name = f"jscore, {WRITERS} {how}" if lane == "jscore" else lane
    n = scaled(300) * WRITERS
    if row not in course.results:
        pool, replay = bodies(n, size), Replay()
        mine = ours(row, f"jscore, {WRITERS} {how}", [pool[at::WRITERS] for at in range(WRITERS)], replay)
        with course.place() as place:
            mine.run(place)  # the first batches to replay
        lanes = [
            mine,
            Lane("raw, growing", lambda place: {row: replay.run(place, False)}, "limit"),
            Lane("raw, reserved", lambda place: {row: replay.run(place, True)}, "limit"),
        ]
        if how == "threads":
            few = bodies(WRITERS * 10, size)
            lanes += [rival(row, kind, [few[at::WRITERS] for at in range(WRITERS)]) for kind in RIVALS]
        result = course.race({row: n}, lanes, goals={row: 0.9}, against="limit")[row]
        result.notes.append(replay.about(mine.name, n))
    result = course.results[row]
    if name not in result.lanes:
        pytest.skip("threads only")
    race.report(benchmark, result, name)
