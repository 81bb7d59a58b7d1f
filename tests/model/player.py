"""Plays a program on a log and on the model of it, side by side; whatever differs is an AssertionError.

The log lies on a simulated disk. Between operations it is closed and opened, its power is cut, its disk fails, fills
and rots. After a power cut the log has to be the model as of some record at or behind the last that was durable.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from typing import Any

import jscore

from .program import TABLE, Program, Stop
from .reading import Reading
from .rot import Rot
from .state import FAULTS, KEYS, NOISE, PATH, SEGMENTS, Unread
from .writing import Writing


class Player(Writing, Reading):
    def __init__(self, program: Program, trace: bool = False) -> None:
        super().__init__(program, trace)
        self.steps: list[Callable[[int, int, int], None]] = [getattr(self, f"do_{name}") for name in TABLE]

    # ---- the frame ----

    def run(self) -> None:
        """Raises whatever went wrong. `operations` says how far it came."""
        try:
            self.open()
            self.body()
        except Stop:
            pass
        finally:
            for log in (self.reader, self.log):
                if log is not None:
                    self.quietly(log.abandon)

    def body(self) -> None:
        steps = self.steps
        for word in self.program.words:
            self.operations += 1
            if self.trouble:
                self.fuse -= 1
                if self.fuse <= 0:
                    self.recover(word >> 10)
            a, b, c = word >> 10 & 255, word >> 18 & 255, word >> 26
            if self.trace:
                self.say(f"{self.operations}: {TABLE[word & 1023]} {a} {b} {c}")
            steps[word & 1023](a, b, c)
        if self.trouble:
            self.recover(0)
        self.do_reopen(0, 0, 0)
        self.see_held()

    def open(self, mode: str = "a", **more: Any) -> None:
        """Opens it for writing; limits in `more` are recorded."""
        self.log = None
        self.log = self.opened(mode, **more)
        self.broken = False

    def opened(self, mode: str, **more: Any) -> Any:
        return jscore.open(
            PATH,
            mode,  # type: ignore[arg-type]
            sync=self.sync,
            segment_bytes=self.segment_bytes,
            memory=self.memory,
            compression=self.compression,
            keys=self.keys,
            background=self.background,
            disk=self.disk,
            **more,
        )

    # ---- care ----

    def care(self, call: Callable[[], object]) -> None:
        try:
            call()
        except NOISE as err:
            if not self.trouble:
                raise
            self.struck(err)
        except (jscore.Corrupt, ValueError) as err:
            if not self.scarred:
                raise
            self.struck(err)
        else:
            self.settled()

    def do_seal(self, a: int, b: int, c: int) -> None:
        self.care(self.log.seal)

    def do_compact(self, a: int, b: int, c: int) -> None:
        self.care(self.log.compact)

    def do_compact_all(self, a: int, b: int, c: int) -> None:
        self.care(self.compact_now)

    def do_maintain(self, a: int, b: int, c: int) -> None:
        self.care(self.log.maintain)
        self.tended = not self.trouble

    def do_scrub(self, a: int, b: int, c: int) -> None:
        try:
            self.reading(self.log.scrub)
        except Unread:
            pass

    # ---- a reader beside the writer ----

    def do_reader(self, a: int, b: int, c: int) -> None:
        if self.trouble:
            return
        model = self.model
        exact = a & 3 != 3
        if exact:
            self.sync_now()
        if self.reader is None:
            self.reader = self.opened("r")
        else:
            self.reader.refresh()
        reader = self.reader
        if not exact or self.background:
            assert reader.last <= model.last
            seq = 1 + b % (reader.last + 1)
            try:
                self.same(reader[seq], model.all[seq - 1])
            except jscore.NotFound:
                assert seq > reader.last or model.all[seq - 1].killed, f"the reader lacks message {seq}"
            return
        got, want_so = (reader.first, reader.last, len(reader)), (model.first, model.last, len(model.live))
        assert got == want_so, f"the reader: first, last, len: {got}, not {want_so}"
        if b & 3 == 0:
            self.see(reader)
        for seq in range(max(1, model.last - 5 - c), model.last + 1, 3):
            want = model.live.get(seq)
            if want is None:
                assert seq not in reader
            else:
                self.same(reader[seq], want)
        if b & 4:
            reader.close()
            self.reader = None

    # ---- the end, and what comes after ----

    def do_reopen(self, a: int, b: int, c: int) -> None:
        if self.trouble:
            self.recover(a | b << 8 | c << 16)
            return
        self.drop()
        self.log.close()
        self.model.settle()
        if self.tended:
            self.untidy = self.tended = False
        self.again(a, b, c)

    def drop(self) -> None:
        """What does not outlive the log."""
        self.walk = None
        if self.reader is not None:
            self.reader.abandon()
            self.reader = None

    def again(self, a: int, b: int, c: int) -> None:
        """Opens it, with other options, and looks whether all is as it was."""
        if c & 1:
            self.compression = (None, "zstd", 1, None)[a & 3]
            self.segment_bytes = SEGMENTS[(a >> 2) % len(SEGMENTS)]
        if c & 2 and self.keys is not None:
            self.keys = (KEYS[1], KEYS)[b & 1]
            if len(self.keys) == 32 and b & 2:
                self.keys = KEYS
            self.keys = KEYS
        self.found()

    def found(self) -> None:
        """Opens what is on the disk: the model as of some record that was written."""
        model = self.model
        controls = any(not entry.seq for entry in model.journal)
        if controls or self.program.shape >> 24 & 7 == 0:
            with self.opened("r") as reader:
                position, last = reader.position, reader.last
                gone = model.rollback(reader.first, last, position)
                self.see(reader)
            self.open()
            assert self.log.last == last, f"the reader saw {last} messages, the writer {self.log.last}"
        else:
            self.open()
            gone = model.rollback(self.log.first, self.log.last, self.log.position)
        if gone:
            self.say(f"    {gone} records are gone, {model.last} is the last message")
        if self.scarred and self.log.stats().lost_records:
            raise Stop  # a file whose head had rotted lived by its sidecar, and a power cut took what made that fit
        model.settle()
        self.durable = 0
        self.see(self.log)

    def cut(self, keep: int, torn: bool) -> None:
        """The log goes without a word, and the power with it."""
        durable = self.abandon()
        self.disk.crash(keep, torn)
        self.untidy, self.tended = True, False
        self.say(f"    cut, keeping {keep} percent{' torn' if torn else ''}; durable was {durable}")
        self.heal()
        self.found()
        assert self.log.position >= durable, f"{durable} records were durable, {self.log.position} are there"

    def abandon(self) -> int:
        """How many records were durable."""
        self.drop()
        durable = self.durable
        if self.log is not None:
            durable = max(durable, self.log.durable_position if self.always else 0)
            self.quietly(self.log.abandon)
            self.log = None
        self.durable = durable
        return durable

    def do_crash(self, a: int, b: int, c: int) -> None:
        self.cut((0, 50, 100, a % 101)[c & 3], bool(c & 4))

    # ---- trouble ----

    def begin_trouble(self, fuse: int) -> None:
        if self.reader is not None:
            self.reader.abandon()
            self.reader = None
        self.walk = None
        self.trouble = self.untidy = True
        self.tended = False
        self.fuse = fuse

    def do_fault(self, a: int, b: int, c: int) -> None:
        if self.trouble:
            return
        op = FAULTS[a % len(FAULTS)]
        err = errno.ENOSPC if op in "wa" and c & 1 else errno.EIO
        if err == errno.ENOSPC:
            self.model.cramp()
        self.begin_trouble(1 + c)
        self.say(f"    call {1 + b % 12} of {op!r} will fail: {errno.errorcode[err]}")
        # After a sync that failed nobody can tell what of it a power cut takes, not even who opens the log anew.
        self.dropping = bool(c & 2)
        self.disk.habits((10, 0, 60, 10)[b >> 4 & 3], 50 if self.dropping else 0)
        self.disk.fail(op, 1 + b % 12, err)

    def do_die(self, a: int, b: int, c: int) -> None:
        if self.trouble:
            return
        self.begin_trouble(1 + (c & 15))
        self.say(f"    the disk dies in {1 + a % 48} calls")
        self.disk.die(1 + a % 48, errno.EIO)
        self.quietly((self.log.sync, self.compact_now, lambda: None, self.log.seal)[b & 3])

    def compact_now(self) -> None:
        self.log.compact(all=True)

    def do_fill(self, a: int, b: int, c: int) -> None:
        if self.trouble:
            return
        self.begin_trouble(3 + c)
        self.say(f"    the disk has room for {a * 64} bytes")
        self.disk.capacity(self.disk.used() + a * 64)
        self.model.cramp()

    def heal(self) -> None:
        self.disk.die(0, 0)
        for op in set(FAULTS):
            self.disk.fail(op, 1, 0)
        self.disk.capacity((1 << 64) - 1)
        self.model.cramped = False
        self.disk.habits(10, 0)
        self.dropping = False
        self.trouble = False

    def recover(self, bits: int) -> None:
        """The end of trouble: by a power cut, by closing, or, on a disk that was only full, by having room again."""
        how = bits & (3 if self.dropping else 7)
        log = self.log
        if how < 3:
            self.cut((0, 50, 100, 30)[bits >> 3 & 3], bool(bits & 32))
            return
        if how == 3:  # the disk is as bad while it closes, and the power goes
            self.drop()
            self.durable = log.durable_position if self.always else 0
            self.quietly(log.close)
            self.log = None
            self.cut((0, 50, 100, 30)[bits >> 3 & 3], bool(bits & 32))
            return
        if how == 4:  # opened while it is as bad
            self.abandon()
            try:
                self.found()
            except NOISE as err:
                self.struck(err)
            self.cut((0, 50, 100, 30)[bits >> 3 & 3], bool(bits & 32))
            return
        self.heal()
        if log.error is None:
            self.drain()
            self.model.settle()
            self.see(log)
            if how == 5:
                self.room_again()
                return
        self.drop()
        failed = log.error
        try:
            log.close()
        except NOISE as err:
            self.struck(err)
            # One that was full a moment ago may not have found out.
            full = isinstance(err, jscore.Full)
            assert failed is not None or full, "closing a sound log on a sound disk failed"
        else:
            assert failed is None, "a failed log closed as if nothing had been"
            self.model.settle()
        self.found()

    def drain(self) -> None:
        """Waits until a log that found its disk full is through."""
        log = self.log
        while log.error is None:
            try:
                log.sync()
                return
            except jscore.Full:
                log.poll()
                if log.stalled:
                    select.select([log.fileno()], [], [], 10)

    def room_again(self) -> None:
        """The disk has room: the log finds out by itself, soon."""
        for _ in range(1000):
            try:
                seq = self.log.append(b"room again", "a", ts=self.clock, sync=True)
            except jscore.Full:
                if self.log.last > self.model.last:
                    self.model.append(self.clock, "a", b"", b"room again")
                self.log.poll()
                select.select([self.log.fileno()], [], [], 0.01)
                continue
            assert seq == self.model.append(self.clock, "a", b"", b"room again")
            self.model.settle()
            return
        raise AssertionError("the disk has room, and the log does not find out")

    # ---- rot ----

    def do_rot(self, a: int, b: int, c: int) -> None:
        """A bit flips in a file of a log at rest: no wrong payload, nothing else lost, and a replica heals it."""
        if self.trouble or self.scarred:  # what one flip spares, two may not
            return
        Rot(self).run(a, b, c)


def play(program: Program, trace: bool = False) -> int:
    """Runs a program; how many operations it had. Raises what went wrong."""
    player = Player(program, trace)
    player.run()
    return player.operations
