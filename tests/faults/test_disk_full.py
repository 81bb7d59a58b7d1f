"""A full disk is an error, nothing more: what was durable stays, readers go on, and writing resumes with space."""

from __future__ import annotations

import contextlib
import os
import random
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from disks import Disk, Tmpfs, require

import jscore

SIZE = 8000
BALLAST = 6 << 20


def body(number: int) -> bytes:
    return b"%d " % number + random.Random(number).randbytes(SIZE)


def number_in(data: bytes) -> int:
    number = int(data[: data.index(b" ")])
    assert data == body(number)
    return number


@pytest.fixture(params=["ext4", "tmpfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB, with a file `ballast` on it that a test may remove."""
    require(tmp_path)
    with ExitStack() as stack:
        small = stack.enter_context({"ext4": Disk, "tmpfs": Tmpfs}[request.param](tmp_path, 48))
        (small.place / "ballast").write_bytes(bytes(BALLAST))
        yield small.place


def one_by_one(log: jscore.Log, number: int) -> int:
    log.append(body(number), "full")
    return number + 1


def unsynced(log: jscore.Log, number: int) -> int:
    """Never far ahead of the disk: what waits for space has to fit what a test gives back."""
    log.append(body(number), "full", sync=False)
    if number % 100 == 99:
        log.wait(number - 98)
    return number + 1


def many(log: jscore.Log, number: int) -> int:
    log.extend([("full", body(number + k)) for k in range(100)])
    return number + 100


def until_durable(log: jscore.Log, seq: int) -> None:
    """What waits for space goes through without being asked."""
    end = time.monotonic() + 30
    while log.durable < seq:
        assert time.monotonic() < end, "writing does not resume"
        select.select([log], [], [], 1)
        log.poll()


Write = Callable[[jscore.Log, int], int]
WRITES = pytest.mark.parametrize("write", [one_by_one, unsynced, many])


def fill(log: jscore.Log, write: Write) -> int:
    """Appends until the disk is full; returns the highest sequence known durable then."""
    number = log.last
    try:
        while number < 10_000:
            number = write(log, number)
    except jscore.Full:
        pass
    else:
        pytest.fail("the disk never was full")
    assert log.error is None, "a full disk is not the end of a log"
    return log.durable


def check(log: jscore.Log, first: int, last: int) -> None:
    """Messages first .. last are there; what else is there is what was appended behind them."""
    seqs = []
    for message in log:
        assert number_in(bytes(message)) == message.seq - 1
        seqs.append(message.seq)
    assert seqs == list(range(first, log.last + 1))
    assert log.last >= last


@WRITES
def test_writing_resumes_by_itself_when_there_is_space(place: Path, write: Write) -> None:
    with jscore.open(place / "log", segment_bytes=1 << 20) as log:
        durable = fill(log, write)
        assert durable > 1000
        check(log, 1, durable)
        with pytest.raises(jscore.Full):
            log.append(body(log.last), "full")
        with jscore.open(place / "log", mode="r") as reader:
            check(reader, 1, durable)
            assert reader.subject("full").last().seq >= durable
        (place / "ballast").unlink()
        until_durable(log, log.last)
        before = log.last
        assert log.append(body(before), "full") == before + 1
        check(log, 1, before + 1)
    with jscore.open(place / "log") as log:
        check(log, 1, before + 1)
        assert log.damage() == []
        assert log.verify() == []


@WRITES
def test_deleting_makes_space(place: Path, write: Write) -> None:
    """All that can be done with a full disk is to delete: that must not need space that is not there."""
    with jscore.open(place / "log", segment_bytes=1 << 20) as log:
        durable = fill(log, write)
        used = log.disk_bytes
        assert log.purge(before=durable // 2, sync=False) == durable // 2 - 1
        log.compact()
        until_durable(log, log.last)
        assert log.disk_bytes < used * 3 // 4
        for _ in range(20):
            log.append(body(log.last), "full")
        last = log.last
        check(log, durable // 2, last)
        # Holes inside need compaction: every second message goes.
        for seq in range(durable // 2 + 1, durable, 2):
            log.delete(seq, sync=False)
        log.sync()
        used = log.disk_bytes
        log.compact(all=True)
        assert log.disk_bytes < used * 3 // 4
    with jscore.open(place / "log") as log:
        assert log.last == last
        for seq in range(durable // 2, last + 1):
            if durable // 2 < seq < durable and (seq - durable // 2) % 2:
                assert seq not in log
            else:
                assert number_in(bytes(log[seq])) == seq - 1
        assert log.verify() == []


def test_closing_on_a_full_disk_loses_nothing_that_was_durable(place: Path) -> None:
    log = jscore.open(place / "log", segment_bytes=1 << 20)
    durable = fill(log, one_by_one)
    with pytest.raises(jscore.Full):
        log.close()
    (place / "ballast").unlink()
    with jscore.open(place / "log", segment_bytes=1 << 20) as log:
        check(log, 1, durable)
        assert log.verify() == []
        assert log.append(body(log.last), "full") > durable


def use_up(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
    finally:
        os.close(fd)


def test_a_full_disk_at_opening(place: Path) -> None:
    """Nothing fits any more, not even a checkpoint: the log opens for readers, and for writers once there is space."""
    with jscore.open(place / "log", segment_bytes=1 << 20) as log:
        log.extend([("full", body(k)) for k in range(1000)])
    use_up(place / "rest")
    with jscore.open(place / "log", segment_bytes=1 << 20) as log:
        check(log, 1, 1000)
        fill(log, one_by_one)
        (place / "rest").unlink()
        until_durable(log, log.last)
        log.append(body(log.last), "full")
        check(log, 1, 1001)
