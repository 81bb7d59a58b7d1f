"""What a program is played on: a log, its model, the disk, and what is shared by the operations."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import jscore

from .model import Message, Model
from .program import Program

PATH = "/d/log"
KEYS = {1: bytes(range(32)), 2: bytes(range(32, 64))}
SECOND = 1_000_000_000
SIZES = (0, 1, 5, 9, 17, 30, 60, 61, 100, 130, 200, 300, 500, 900, 2000, 5000)
BLOB = random.Random(1).randbytes(1 << 20)
SUBJECTS = [
    "a", "b", "c", "a.a", "a.b", "b.a", "b.c", "c.c", "a.a.a", "a.b.a", "a.b.c", "b.b.b", "b.a.c", "c.a.b.a", "ab.c",
    "a.bc", "", "b..c", "a.", "ü.b",
]  # fmt: skip
FILTERS = [
    "a", "b", "a.a", "a.b", "b.c", "a.b.c", "nobody", ">", "*", "a.>", "*.a", "a.*", "*.*", "*.*.c", "b.>", "*.b.>",
    "a.b.*", "c.*.*.>",
]  # fmt: skip
SEGMENTS = (4096, 4096, 8192, 8192, 16384, 65536)
AGES = (0, 1, 5, 20, 100)
FAULTS = "wwwwssssaaoonrduumz"
NOISE = (jscore.Failed, jscore.Full, OSError)


class Unread(Exception):
    """In trouble: a read failed, and said so."""


class State:
    def __init__(self, program: Program, trace: bool = False) -> None:
        self.program = program
        self.trace = trace
        self.rng = random.Random(program.shape)
        self.model = Model()
        self.disk = jscore.SimDisk(program.shape)
        self.operations = 0
        self.count = 0  # of payloads made
        self.clock = 1_000 * SECOND
        self.log: Any = None
        self.reader: Any = None
        self.walk: tuple[Any, int, int] | None = None
        self.held: list[tuple[jscore.Message, Message]] = []
        self.durable = 0  # records that are, of a log that is no longer open
        self.untidy = False  # remains of jobs cut short, caches to be made anew: no damage
        self.tended = False  # maintained since
        self.broken = False
        self.dropping = False
        self.scarred = False  # there is damage that costs no message
        self.trouble = False  # a fault is armed, or one has struck: calls may fail
        self.fuse = 0  # operations until trouble is over
        shape = program.shape
        self.sync: Any = ("always", "always", "always", "always", "always", "never", 0.001, 30.0)[shape & 7]
        self.background = shape >> 3 & 31 == 0
        # A time of the real clock is above every other, so once is enough to end all tests of age.
        self.real_time = shape >> 8 & 31 == 0
        self.compression = (None, None, "zstd", 1)[shape >> 13 & 3]
        self.keys: Any = (None, None, None, KEYS[1])[shape >> 15 & 3]
        self.segment_bytes = SEGMENTS[(shape >> 17 & 15) % len(SEGMENTS)]
        self.memory = (4096, 1 << 16, 64 << 20, 1)[shape >> 21 & 3]

    def say(self, text: str) -> None:
        if self.trace:
            print(text, flush=True)

    def quietly(self, call: Callable[[], object]) -> None:
        try:
            call()
        except (*NOISE, ValueError):
            pass

    @property
    def always(self) -> bool:
        return bool(self.sync == "always")

    def doubt(self) -> None:
        """A record is in the log, and what it does to the state may have been cut short: then the log has failed, and
        what it says until it is opened anew is not compared."""
        log, model = self.log, self.model
        if log.error is None:
            return
        try:
            s = log.stats()
        except NOISE:
            self.broken = True
        else:
            got = (s.first_seq, s.last_seq, s.messages, s.message_bytes)
            self.broken = got != (model.first, model.last, len(model.live), model.bytes)
        self.say(f"    broken: {self.broken}")

    def settled(self) -> None:
        """A call returned that waits for the disk, so everything before is durable."""
        if self.log.error is None:
            self.model.settle()

    def struck(self, err: BaseException) -> None:
        self.say(f"    {type(err).__name__}: {err}")
        if isinstance(err, jscore.Failed):
            assert err.reason is not None, "failed, and does not say why"

    def some_seq(self, a: int, b: int) -> int:
        """Mostly of a message that is or was there, mostly of a late one."""
        last = self.model.last
        if a & 3 == 0:
            return last - b % 8
        if a & 3 == 1:
            return last + 1 - b % (last + 2)
        return (b << 8 | a) % (last + 2)

    def same(self, got: jscore.Message, want: Message) -> None:
        assert got.seq == want.seq, f"message {got.seq}, not {want.seq}"
        assert bytes(got) == want.data, f"message {want.seq} has a wrong payload"
        assert got.subject == want.subject, f"message {want.seq} has a wrong subject"
        assert got.ts == want.ts, f"message {want.seq} has time {got.ts}, not {want.ts}"
        assert bytes(got.headers) == want.headers, f"message {want.seq} has wrong headers"

    def same_all(self, got: Iterable[jscore.Message], want: Iterable[Message]) -> None:
        want = list(want)
        at = 0
        for m in got:
            assert at < len(want), f"message {m.seq} is one too many"
            self.same(m, want[at])
            at += 1
        assert at == len(want), f"ends before message {want[at].seq}"

    def reading(self, call: Callable[[], Any], missing: Any = None) -> Any:
        """What the call returns; `missing` for NotFound. In trouble a read may fail, but not lie."""
        if self.broken:
            raise Unread
        try:
            return call()
        except jscore.NotFound:
            return missing
        except NOISE as err:
            if not self.trouble:
                raise
            self.struck(err)
            raise Unread from None

    def filters(self, a: int, b: int) -> tuple[str, ...]:
        n = (1, 1, 1, 1, 2, 1, 3, 0)[a & 7]
        return tuple(FILTERS[(b + i * (a >> 3)) % len(FILTERS)] for i in range(n))
