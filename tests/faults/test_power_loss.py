"""Power loss on real files: a writer appends to a log on a file system that then forgets all that was not synced.

JSCORE_POWERLOSS_ROUNDS: how many power cuts, 5 unless told; a fresh file system every 10.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import Disk, require
from stored import proves

import jscore

ROUNDS = int(os.environ.get("JSCORE_POWERLOSS_ROUNDS", "6"))
KEY = bytes(range(32)).hex()
# What a log is opened with; two rounds each, in turn.
KINDS: list[dict[str, object]] = [
    {"segment_bytes": 128 << 10},
    {"segment_bytes": 64 << 10, "compression": 3, "keys": KEY},
    {},
    {"segment_bytes": 64 << 10, "compression": "zstd"},
    {"segment_bytes": 256 << 10, "keys": KEY},
]


def opened(place: Path, kind: dict[str, object]) -> jscore.Log:
    options = dict(kind, keys=bytes.fromhex(KEY)) if "keys" in kind else kind
    return jscore.open(place, **options)  # type: ignore[arg-type]


class History:
    """What the writer said over all rounds: messages durable, deletes begun, deletes durable."""

    def __init__(self) -> None:
        self.durable: dict[int, tuple[int, int]] = {}
        self.deleting: set[int] = set()
        self.deleted: set[int] = set()
        self.failure: str | None = None

    def take(self, line: str, late: bool = False) -> None:
        """late: said when the plug was out. The ioctl has a race that a power cut has not: an fdatasync under way then
        may return success for what is lost, of a plain file too. Such words promise nothing."""
        word, _, rest = line.partition(" ")
        if late and word in ("a", "D"):
            return
        if word == "a":
            seq, writer, number = map(int, rest.split())
            assert seq not in self.durable, f"sequence {seq} was given out twice"
            self.durable[seq] = (writer, number)
        elif word == "d":
            self.deleting.add(int(rest))
        elif word == "D":
            self.deleted.add(int(rest))
        elif word == "F":
            self.failure = rest
        else:
            assert word == "ready", line

    def check(self, log: jscore.Log) -> None:
        """All that was said to be durable is there, in order, with its bytes; nothing is there that nobody wrote."""
        found: dict[int, tuple[int, int]] = {}
        last: dict[int, int] = {}
        before = 0
        for message in log:
            assert message.seq > before
            before = message.seq
            found[message.seq] = writer, number = proves(bytes(message))
            assert message.subject == f"w.{writer}"
            assert number > last.get(writer, -1), "a writer's messages changed their order"
            last[writer] = number
        for seq, who in self.durable.items():
            if seq in self.deleted:
                assert seq not in found, f"message {seq} was deleted for good, and is back"
            elif seq in found:
                assert found[seq] == who
            else:
                assert seq in self.deleting, f"message {seq} was durable, and is gone; the last is {log.last}"
        assert log.damage() == []
        assert log.verify() == []
        # What was found is durable from now on, so it has to stay, whether it was said to be or not.
        self.durable |= found


def lines(writer: subprocess.Popen[bytes], until: float) -> Iterator[str]:
    """What it says, till the time `until`; ends early with the stream."""
    assert writer.stdout is not None
    fd, rest = writer.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if not selector.select(left):
                return
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                return
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line.decode()


def cut(disk: Disk, place: Path, kind: dict[str, object], start: int, history: History, acks: int) -> None:
    """One round: the plug is pulled once so many messages are durable."""
    command = [sys.executable, str(Path(__file__).with_name("writer.py")), str(place), json.dumps(kind)]
    before = len(history.durable)
    writer = subprocess.Popen([*command, str(start)], stdout=subprocess.PIPE)
    try:
        said = lines(writer, time.monotonic() + 60)
        for line in said:
            history.take(line)
            if len(history.durable) >= before + acks:
                break
        assert len(history.durable) >= before + acks, "the writer did not get so far"
        disk.pull_plug()
        for _ in range(3):  # it may go on for a moment
            history.take(next(said, "ready"), late=True)
        writer.kill()
        for line in said:
            history.take(line, late=True)
    finally:
        writer.kill()
        writer.wait(30)
        if writer.stdout:
            writer.stdout.close()


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_what_was_durable_survives_power_loss(tmp_path: Path) -> None:
    require(tmp_path)
    rng = random.Random(int(os.environ.get("JSCORE_POWERLOSS_SEED", "1")))
    for first in range(0, ROUNDS, 2 * len(KINDS)):
        with Disk(tmp_path, 512, f"disk{first}") as disk:
            histories = [History() for _ in KINDS]
            for number in range(first, min(first + 2 * len(KINDS), ROUNDS)):
                which = number // 2 % len(KINDS)
                history, place = histories[which], disk.place / f"log{which}"
                # Numbers of a round start far behind those of the one before.
                cut(disk, place, KINDS[which], 100_000 * number, history, rng.choice((1, 30, 300, 1500)))
                disk.unmount()
                disk.mount()
                with opened(place, KINDS[which]) as log:
                    history.check(log)


def test_a_disk_that_dies_under_a_running_writer(tmp_path: Path) -> None:
    """Every write is refused with the reason, for good; what was read stays readable; the disk back, all is there."""
    require(tmp_path)
    with Disk(tmp_path, 64) as disk:
        log = opened(disk.place / "log", {"segment_bytes": 64 << 10})
        wrote = [log.append(b"%d " % k + bytes(500), "w") for k in range(300)]
        kept = [log[seq] for seq in wrote]
        disk.pull_plug()
        with pytest.raises(jscore.Failed) as caught:
            log.append(bytes(500), "lost")
        assert caught.value.reason is not None
        assert caught.value.reason.errno == 5
        with pytest.raises(jscore.Failed):
            log.append(b"again", "lost")
        with pytest.raises(jscore.Failed):
            log.delete(wrote[3])
        assert log.error is not None
        assert [bytes(message).split()[0] for message in kept] == [b"%d" % k for k in range(300)]
        assert [bytes(log[seq]).split()[0] for seq in wrote] == [b"%d" % k for k in range(300)]
        del kept
        with pytest.raises(jscore.Failed):
            log.close()
        disk.unmount()
        disk.mount()
        with opened(disk.place / "log", {}) as log:
            assert [bytes(log[seq]).split()[0] for seq in wrote] == [b"%d" % k for k in range(300)]
            assert log.damage() == []
            assert log.verify() == []
            assert log.append(b"goes on") > wrote[-1]
