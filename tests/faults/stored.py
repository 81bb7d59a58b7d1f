"""What the writers of these tests store: messages that say who wrote them, and prove it."""

from __future__ import annotations

import random


def body(writer: int, number: int) -> bytes:
    """The message number `number` of a writer: its name, then bytes that follow from it; some long, most short."""
    rng = random.Random(writer << 32 | number)
    size = rng.choice((0, 1, 7, 100, 300, 700, 1500)) if rng.random() < 0.98 else 30_000
    return b"%d %d " % (writer, number) + rng.randbytes(size)


def proves(data: bytes) -> tuple[int, int]:
    """Who wrote it; fails when it is not what he wrote, to the last byte."""
    writer, number, _ = data.split(b" ", 2)
    assert data == body(int(writer), int(number)), "a message is not what was written"
    return int(writer), int(number)
