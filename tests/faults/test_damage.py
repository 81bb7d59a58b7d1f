"""Damage to real files: each byte of a small log is flipped in turn, each file cut at each length.

Whatever is damaged: opening and reading never end the process, no payload is ever wrong, what was not damaged is still
read, and verify() names the file and, in a plain segment, the place. As it is a sample is taken; JSCORE_DAMAGE_ALL=1
takes every byte, in two patterns, and every length.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import jscore

ALL = bool(os.environ.get("JSCORE_DAMAGE_ALL"))
SAMPLE = 60  # places in each file unless all are asked for
KEY = bytes(range(32))
HEAD = 64  # bytes of a segment before its first record
RECORD = 32


class Kind(NamedTuple):
    name: str
    options: dict[str, object]

    @property
    def plain(self) -> bool:
        return not self.options


KINDS = [
    Kind("plain", {}),
    Kind("compressed", {"compression": 1}),
    Kind("encrypted", {"keys": KEY}),
    Kind("both", {"compression": 1, "keys": KEY}),
]


def body(seq: int) -> bytes:
    """Bytes that follow from the sequence, unlike those of every other."""
    return hashlib.shake_128(b"%d" % seq).digest(8 + seq * 37 % 150)


def subject(seq: int) -> str:
    return f"s.{seq % 5}"


class Place(NamedTuple):
    """A record of a plain segment: bytes [lo, hi), the batch it is in, its sequence; 0: not a message."""

    lo: int
    hi: int
    batch: int
    seq: int


class Sound(NamedTuple):
    """A log that was closed, and what it holds."""

    kind: Kind
    files: dict[str, bytes]
    live: set[int]
    last: int
    segments: dict[str, set[int]]  # live messages of each segment
    records: dict[str, list[Place]]  # of a plain log

    @property
    def tail(self) -> str:
        return max(self.segments)


def opened(place: Path, kind: Kind, **more: object) -> jscore.Log:
    options = {"segment_bytes": 4096, "background": False, **kind.options, **more}
    return jscore.open(place, **options)  # type: ignore[arg-type]


def build(place: Path, kind: Kind) -> Sound:
    """Sealed segments, some of them with holes and compacted, deletions that are in the checkpoint, an open segment."""
    with opened(place, kind) as log:
        for seq in range(1, 91):
            log.append(body(seq), subject(seq), ts=seq, sync=seq % 3 == 0)
        log.sync()
        for seq in range(12, 24, 2):
            log.delete(seq)
        log.seal()
        log.compact(all=True)
        log.delete(33)
        log.delete(34)
        for seq in range(91, 101):
            log.append(body(seq), subject(seq), ts=seq, sync=seq % 3 == 0)
        live = {message.seq for message in log}
        last = log.last
    with opened(place, kind, mode="r") as log:
        assert log.verify() == []
        parts = [set(map(int, column)) & live for (column,) in log.columns("seq")]
    files = {path.name: path.read_bytes() for path in sorted(place.iterdir())}
    names = [name for name in files if name.endswith(".seg")]
    assert len(names) == len(parts) > 2
    plain = {name: records(files[name]) for name in names} if kind.plain else {}
    return Sound(kind, files, live, last, dict(zip(names, parts, strict=True)), plain)


def records(raw: bytes) -> list[Place]:
    """The records of a plain segment, by walking it as docs/format.md has it.

    Without marks, which are trailers of no batch: damaged at the end of a log, one is as if its writing had been torn.
    """
    found = []
    at, batch, before = HEAD, 0, 0
    while at + RECORD <= len(raw) and (length := struct.unpack_from("<I", raw, at + 4)[0]) >= RECORD:
        kind, ts = raw[at + 30], struct.unpack_from("<q", raw, at + 16)[0]
        # The messages' times are their sequences.
        end = at + (length + 7 & ~7)
        if kind != 255 or before != 255:
            found.append(Place(at, end, batch, ts if kind == jscore.KIND_MESSAGE else 0))
        batch += kind == 255
        at, before = end, kind
    return found


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def sound(request: pytest.FixtureRequest) -> Iterator[Sound]:
    base = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        yield build(base / "log", request.param)
    finally:
        shutil.rmtree(base)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        yield base / "log"
    finally:
        shutil.rmtree(base)


def renew(place: Path, files: dict[str, bytes]) -> None:
    place.mkdir(exist_ok=True)
    for path in place.iterdir():
        path.unlink()
    for name, raw in files.items():
        (place / name).write_bytes(raw)


def places(sound: Sound, what: str) -> Iterator[tuple[str, int]]:
    """(name, offset) for every byte of every file, or a sample with more of the beginning."""
    rng = random.Random(f"{what} {sound.kind.name}")
    for name, raw in sound.files.items():
        chosen: list[int] | range = range(len(raw))
        if not ALL and len(raw) > SAMPLE:
            chosen = sorted({*rng.sample(range(min(128, len(raw))), SAMPLE // 3), *rng.sample(range(len(raw)), SAMPLE)})
        for at in chosen:
            yield name, at


class Seen(NamedTuple):
    good: set[int]
    lost: set[int]


def read_all(log: jscore.Log) -> Seen:
    """Sequences read right, and those that raised Corrupt; by number, by iteration and by subject alike."""
    good, lost = set(), set()
    for seq in range(1, log.last + 1):
        try:
            message = log[seq]
        except jscore.NotFound:
            continue
        except jscore.Corrupt as err:
            lost.add(err.seq)
            continue
        assert bytes(message) == body(seq), f"message {seq} has a wrong payload"
        assert (message.subject, message.ts) == (subject(seq), seq)
        good.add(seq)
    walked = set()
    walk = iter(log)
    for _ in range(1000):
        try:
            message = next(walk)
        except StopIteration:
            break
        except jscore.Corrupt:
            continue
        assert bytes(message) == body(message.seq)
        walked.add(message.seq)
    else:
        pytest.fail("the iteration does not end")
    assert walked == good
    for number in range(5):
        try:
            message = log.subject(f"s.{number}").last()
        except jscore.Corrupt:
            continue
        assert bytes(message) == body(message.seq)
    return Seen(good, lost)


def flip_may_lose(sound: Sound, name: str, at: int) -> set[int]:
    """A flipped byte takes its record along; a length that does not verify, the rest of its batch. In a packed or
    encrypted segment, and these have one block, all of it."""
    if not sound.kind.plain:
        return sound.segments.get(name, set())
    for hit in sound.records.get(name, []):
        if hit.lo + 4 <= at < hit.lo + 8:
            return {r.seq for r in sound.records[name] if r.batch == hit.batch and r.lo >= hit.lo}
        if hit.lo <= at < hit.hi:
            return {hit.seq}
    return set()


def cut_may_lose(sound: Sound, name: str, at: int) -> set[int]:
    """What is behind the cut; at the end of the log, its whole batch, as nobody knows that it was ever durable."""
    if not sound.kind.plain:
        return sound.segments.get(name, set())
    behind = {r.batch for r in sound.records.get(name, []) if r.hi > at}
    return {r.seq for r in sound.records.get(name, []) if r.hi > at or (name == sound.tail and r.batch in behind)}


def judge(sound: Sound, place: Path, name: str, at: int, may_lose: set[int], torn: bool) -> None:
    """The log at `place`, which differs from the sound one from byte `at` of a file on. torn: its end may have gone."""
    with opened(place, sound.kind, mode="r") as log:
        seen = read_all(log)
        missing = sound.live - seen.good
        assert missing <= may_lose, f"a reader: took {sorted(missing - may_lose)} along"
        back = seen.good - sound.live
        assert not back or (torn and back <= {33, 34}), f"deleted, and back: {sorted(back)}"
        # Next to a gap that compaction left, nobody can tell a deleted message from one that is lost.
        assert torn or missing <= seen.lost, f"a reader: {missing - seen.lost} are missing and do not raise"
        findings = [(Path(f.file).name, f.offset) for f in log.verify()]
    behind = name == sound.tail and at >= max((r.hi for r in sound.records.get(name, [])), default=0)  # reserved space
    if not torn and name != "LOCK" and not behind:
        assert name in [file for file, _ in findings], f"nobody names the file: {findings}"
        if name in sound.records:
            start = max((r.lo for r in sound.records[name] if r.lo <= at), default=0)
            places = [offset for file, offset in findings if file == name]
            assert any(start <= offset <= max(at, HEAD) for offset in places), f"{places} should name {start}"
    # A writer goes on behind it, spoils nothing more, and brings caches in order.
    log = opened(place, sound.kind)
    try:
        again = read_all(log)
        assert again.good >= seen.good, f"a writer: took {sorted(seen.good - again.good)} along"
        fresh = log.append(body(log.last + 1), subject(log.last + 1), ts=log.last + 1)
        log.maintain()  # scrubs, too
        told = [f"{d.segment:016x}.seg" for d in log.damage()]
        assert torn or not missing or name in told, f"the damage known is {told}"
    finally:
        log.close()
    with opened(place, sound.kind) as log:
        after = read_all(log)
        assert after.good == again.good | {fresh}, (
            f"after a writer: {sorted((again.good | {fresh}) - after.good)} are gone"
        )
        assert torn or after.lost == seen.lost, f"after a writer: {after.lost} raise, not {seen.lost}"
        if not name.endswith(".seg"):
            findings = [(Path(f.file).name, f.offset) for f in log.verify()]
            assert findings == [], f"after a writer: {findings}"


class Failures:
    """All of them are worth knowing, not the first alone."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as err:
            text = str(err).splitlines() or [""]
            line = traceback.extract_tb(err.__traceback__)[-1]
            self.texts.append(f"{what}: {type(err).__name__}: {text[0]} ({line.name}, line {line.lineno})")

    def none(self) -> None:
        if self.texts:
            shown = "\n".join(self.texts[:60])
            pytest.fail(f"{len(self.texts)} of these:\n{shown}", pytrace=False)


@pytest.mark.timeout(36_000 if ALL else 300)
def test_each_byte_flipped(sound: Sound, place: Path) -> None:
    rng = random.Random(sound.kind.name)
    failures = Failures()
    for name, at in places(sound, "flip"):
        for mask in (0x01, 0x80) if ALL else (rng.choice((0x01, 0x80, 0xFF)),):
            renew(place, sound.files)
            with (place / name).open("r+b") as file:
                file.seek(at)
                file.write(bytes([sound.files[name][at] ^ mask]))
            with failures.of(f"byte {at} of {name} flipped with {mask:#x}"):
                judge(sound, place, name, at, flip_may_lose(sound, name, at), torn=False)
    failures.none()


@pytest.mark.timeout(36_000 if ALL else 300)
def test_each_file_cut_at_each_length(sound: Sound, place: Path) -> None:
    failures = Failures()
    for name, at in places(sound, "cut"):
        renew(place, sound.files)
        os.truncate(place / name, at)
        with failures.of(f"{name} cut at {at}"):
            judge(sound, place, name, at, cut_may_lose(sound, name, at), torn=name == sound.tail)
    failures.none()


def test_caches_may_be_deleted(sound: Sound, place: Path) -> None:
    caches = [name for name in sound.files if not name.endswith(".seg")]
    assert len(caches) > 2
    for gone in [*([name] for name in caches), caches]:
        renew(place, {name: raw for name, raw in sound.files.items() if name not in gone})
        with opened(place, sound.kind) as log:
            assert read_all(log) == (sound.live, set())
            assert log.verify() == []
        with opened(place, sound.kind) as log:
            assert read_all(log) == (sound.live, set())
