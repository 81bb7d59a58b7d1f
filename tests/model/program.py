"""Programs: lists of 32-bit words, each one operation, so that leaving words out leaves operations out.

A word's low ten bits choose the operation from a table by weight; `a` and `b` are a byte each, `c` has six bits. Word 0
is the simplest append. The first words of a program are not special: how a log is opened is drawn from the program's
`shape`, a number that is part of it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

WEIGHTS = {
    "append": 330,
    "extend": 40,
    "delete": 60,
    "purge": 30,
    "limits": 20,
    "get": 110,
    "contains": 20,
    "slice": 36,
    "walk": 36,
    "select": 44,
    "edges": 60,
    "count": 40,
    "subjects": 18,
    "at": 30,
    "columns": 8,
    "follow": 10,
    "sync": 22,
    "wait": 12,
    "submit": 10,
    "seal": 12,
    "compact": 8,
    "compact_all": 4,
    "scrub": 4,
    "maintain": 4,
    "stats": 10,
    "verify": 2,
    "reader": 8,
    "reopen": 7,
    "crash": 7,
    "fault": 5,
    "die": 5,
    "fill": 1,
    "rot": 3,
    "hold": 6,
    "check": 2,
}
TABLE = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
assert len(TABLE) == 1024, len(TABLE)
WORD_MAX = (1 << 32) - 1


class Stop(Exception):
    """The program ends here: what was done to the disk leaves no telling what the log should be."""


class Program(NamedTuple):
    """`shape` chooses the options of the first opening and seeds the disk."""

    shape: int
    words: Sequence[int]

    def __str__(self) -> str:
        return f"{self.shape:x}:" + "".join(f"{word:08x}" for word in self.words)

    @classmethod
    def parse(cls, text: str) -> Program:
        shape, _, words = text.partition(":")
        return cls(int(shape, 16), [int(words[i : i + 8], 16) for i in range(0, len(words), 8)])

    @classmethod
    def of_seed(cls, seed: int, count: int) -> Program:
        rng = random.Random(seed)
        raw = rng.randbytes(4 * count)
        return cls(rng.getrandbits(32), memoryview(raw).cast("I").tolist())
