"""Races: every lane runs once a round, the order rotates, medians and spreads come out. pytest-benchmark's report is
played back from the recording, because by itself it runs all rounds of one lane before those of the next."""

from __future__ import annotations

import gc
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCALE = float(os.environ.get("JSCORE_BENCH_SCALE", "1"))  # 10: the long run
ROUNDS = int(os.environ.get("JSCORE_BENCH_ROUNDS", "5"))
HOME = Path(os.environ.get("JSCORE_BENCH_DIR", ROOT / "build" / "bench"))  # on the disk that is meant
BLOCK = 1000


def scaled(n: int) -> int:
    return max(int(n * SCALE), 1)


def bodies(n: int, size: int) -> list[bytes]:
    """n payloads that no compressor and no deduplication makes smaller."""
    pool = os.urandom(n * size)
    return [pool[at : at + size] for at in range(0, n * size, size)]


def touch(buffers: Iterator[Any]) -> int:
    """Reads every byte, the same cheap way for everybody: joined a thousand at a time, in C. Returns how many bytes.
    The lane `touch alone` shows what it costs with bodies that lie in a list already."""
    total = 0
    while block := b"".join(list(islice(buffers, BLOCK))):
        total += len(block)
    return total


@dataclass
class Lap:
    seconds: float = 0.0
    cpu: float = 0.0  # of all threads of this process


class Watch:
    """Wall clock and the process's CPU clock, since it was made."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def lap(self) -> Lap:
        wall = time.perf_counter() - self.wall
        return Lap(wall, time.process_time() - self.cpu)


@contextmanager
def timed() -> Iterator[Lap]:
    """The block's time, in the lap, without the garbage collector."""
    lap = Lap()
    gc.collect()
    gc.disable()
    watch = Watch()
    try:
        yield lap
    finally:
        done = watch.lap()
        lap.seconds, lap.cpu = done.seconds, done.cpu
        gc.enable()


@dataclass(frozen=True)
class Lane:
    """One contestant. `run` gets a directory of its own and returns laps by the row they belong to."""

    name: str
    run: Callable[[Path], Mapping[str, Lap]]
    role: str = "rival"  # "ours", "rival", "limit" (not a store; no rival) or "note" (shown, not compared)
    promise: str = ""
    units: int | None = None  # messages of a lap where it differs from the row's


@dataclass
class Result:
    """A row: laps by lane."""

    row: str
    units: int
    goal: float | None
    against: str
    lanes: dict[str, Lane] = field(default_factory=dict)
    laps: dict[str, list[Lap]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, name: str) -> int:
        return self.lanes[name].units or self.units

    def rates(self, name: str) -> list[float]:
        return [self.count(name) / lap.seconds for lap in self.laps[name]]

    def rate(self, name: str) -> float:
        return statistics.median(self.rates(name))

    def cpu_us(self, name: str) -> float:
        return statistics.median(lap.cpu for lap in self.laps[name]) / self.count(name) * 1e6

    def best(self) -> str | None:
        """The quickest of those that ours is compared with."""
        names = [name for name, lane in self.lanes.items() if self.against in (lane.role, name)]
        return max(names, key=self.rate, default=None)

    def ratio(self, name: str, other: str) -> tuple[float, float, float]:
        """Median over median; worst over best; best over worst."""
        ours, theirs = self.rates(name), self.rates(other)
        return self.rate(name) / self.rate(other), min(ours) / max(theirs), max(ours) / min(theirs)

    def met(self) -> bool | None:
        """Whether our best lane reached the goal. None: nothing to reach, or nobody to compare."""
        other = self.best()
        ours = [name for name, lane in self.lanes.items() if lane.role == "ours"]
        if self.goal is None or other is None or not ours:
            return None
        return max(self.ratio(name, other)[0] for name in ours) >= self.goal

    def table(self) -> Iterator[str]:
        other = self.best()
        yield f"{self.row}  ({self.units:,} a lap)"
        for name in sorted(self.lanes, key=self.rate, reverse=True):
            rates, role = self.rates(name), self.lanes[name].role
            line = f"  {name:28} {self.rate(name):13,.0f}/s [{min(rates):11,.0f} .. {max(rates):11,.0f}]"
            line += f"  CPU {self.cpu_us(name):8.3f} us"
            if role == "ours" and other:
                middle, low, high = self.ratio(name, other)
                line += f"  {middle:7.2f}x {other} [{low:.2f}..{high:.2f}]"
                if self.goal is not None:
                    line += f"  goal {self.goal:g}x {'met' if middle >= self.goal else 'MISSED'}"
            elif role in ("limit", "note"):
                line += f"  ({'no rival: the limit' if role == 'limit' else 'beside'})"
            yield line
        for note in self.notes:
            yield f"  {note}"


class Course:
    """Where races are run: a directory on the disk, and the results so far."""

    def __init__(self, home: Path) -> None:
        self.home, self.results, self.places = home, dict[str, Result](), count()

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A directory that is empty at first and gone afterwards; the disk is quiet when it is handed out."""
        path = self.home / str(next(self.places))
        path.parent.mkdir(parents=True, exist_ok=True)
        os.sync()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def race(
        self,
        rows: Mapping[str, int],
        lanes: list[Lane],
        *,
        goals: Mapping[str, float] | None = None,
        against: str = "rival",
        rounds: int = ROUNDS,
        notes: Mapping[str, list[str]] | None = None,
    ) -> dict[str, Result]:
        """rows: messages a lap by row; one run of a lane may give laps for several. Runs once for a set of rows."""
        if all(row in self.results for row in rows):
            return {row: self.results[row] for row in rows}
        made = {row: Result(row, n, (goals or {}).get(row), against) for row, n in rows.items()}
        for at in range(rounds):
            turn = at % len(lanes)
            for lane in lanes[turn:] + lanes[:turn]:
                with self.place() as place:
                    for row, lap in lane.run(place).items():
                        made[row].lanes[lane.name] = lane
                        made[row].laps.setdefault(lane.name, []).append(lap)
        for row, result in made.items():
            result.notes += (notes or {}).get(row, [])
            self.results[row] = result
        return made

    def clean(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)


class Playback:
    """A clock that stands still but for the recorded laps that are played on it."""

    def __init__(self) -> None:
        self.now, self.steps = 0.0, list[float]()

    def time(self) -> float:
        return self.now

    def step(self) -> None:
        if self.steps:
            self.now += self.steps.pop(0)


PLAYBACK = Playback()


def recorded_time() -> float:
    """pytest-benchmark's timer: seconds by the recording, one message a second long as it took."""
    return PLAYBACK.time()


def report(benchmark: Any, result: Result, name: str) -> None:
    """Hands one lane of a row to pytest-benchmark: its rounds are our laps, its times those of one message."""
    if name not in result.lanes:
        return
    benchmark.group = result.row
    PLAYBACK.steps = [lap.seconds / result.count(name) for lap in result.laps[name]]
    benchmark.pedantic(PLAYBACK.step, rounds=len(PLAYBACK.steps), iterations=1)
    benchmark.extra_info.update(rate=result.rate(name), cpu_us=result.cpu_us(name), role=result.lanes[name].role)
    other = result.best()
    if other and result.lanes[name].role == "ours":
        benchmark.extra_info.update(ratio=result.ratio(name, other), against=other, goal=result.goal)


def machine() -> str:
    """One line: what the figures were measured on."""
    cpu = next((x.split(":")[1].strip() for x in Path("/proc/cpuinfo").open() if x.startswith("model name")), "?")
    memory = next(int(x.split()[1]) >> 20 for x in Path("/proc/meminfo").open() if x.startswith("MemTotal"))
    HOME.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["stat", "-f", "-c", "%T", HOME], capture_output=True, text=True).stdout.strip()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    stores = ", ".join(f"{name} {version(name)}" for name in ("lmdb", "rocksdict"))
    return (
        f"{os.cpu_count()} x {cpu}, {memory + 1} GiB, {mounted}, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {stores}, "
        f"commit {commit}"
    )


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)
