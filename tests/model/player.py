"""Plays a program on a log and on the model of it, side by side; whatever differs is an AssertionError.

The log lies on a simulated disk. Between operations it is closed and opened, its power is cut, its disk fails, fills and
rots. After a power cut the log has to be the model as of some record at or behind the last that was durable.
"""

from __future__ import annotations

import errno
import random
import select
from collections.abc import Callable, Iterable
from typing import Any

import jscore

from .model import Limits, Message, Model
from .program import TABLE, Program, Stop

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


class Player:
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

    def say(self, text: str) -> None:
        if self.trace:
            print(text, flush=True)

    def quietly(self, call: Callable[[], object]) -> None:
        try:
            call()
        except (*NOISE, ValueError):
            pass

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

    @property
    def always(self) -> bool:
        return bool(self.sync == "always")

    # ---- writing ----

    def write(self, call: Callable[[], Any], apply: Callable[[int], Any], sync: bool | None) -> None:
        """call: on the log; apply: the same on the model, told the log's position before it."""
        position = self.log.position
        if not self.trouble:
            got, want = call(), apply(position)
            assert got == want, f"returned {got}, not {want}"
        else:
            failed = self.log.error
            try:
                got = call()
            except NOISE as err:
                self.struck(err)
                # One that raises from waiting was taken.
                if self.log.position > position:
                    assert failed is None, "taken, although the log had failed"
                    apply(position)
                    self.doubt()
                return
            want = apply(position)
            assert got == want, f"returned {got}, not {want}"
            assert failed is None or self.log.position == position, "a log that failed took a record"
        if sync or (sync is None and self.always):
            self.settled()

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

    @staticmethod
    def sync_of(b: int) -> bool | None:
        return (None, False, None, False, False, None, False, True)[b & 7]

    def content(self, b: int, c: int) -> tuple[bytes, bytes]:
        """(headers, data)."""
        self.count += 1
        size = SIZES[c & 15]
        if c == 63:
            size = 20_000
        at = self.count * 7919 & 0xFFFFF
        data = BLOB[at : at + size]
        if c & 16:
            data = b"%d " % self.count * (size // 8)
        headers = BLOB[at : at + (b >> 3 & 15)] if b & 128 else b""
        return headers, data

    def moment(self, a: int) -> int:
        """Times go on, stand, and now and then fall."""
        self.clock += (0, 0, 1, SECOND, 3 * SECOND, 0, 1, 40 * SECOND)[a >> 5 & 7]
        return self.clock - (5 * SECOND if a & 31 == 31 else 0)

    def do_append(self, a: int, b: int, c: int) -> None:
        subject = SUBJECTS[a % len(SUBJECTS)]
        headers, data = self.content(b, c)
        ts: int | None = self.moment(a)
        sync = self.sync_of(b)
        log, model = self.log, self.model
        if self.real_time and a == 255:
            ts = None
        if self.trouble or ts is None:
            self.write(
                lambda: log.append(data, subject, headers=headers, ts=ts, sync=sync),
                lambda _: model.append(log[log.last].ts if ts is None else ts, subject, headers, data),
                sync,
            )
            if ts is None and not self.trouble:
                self.clock = max(self.clock, model.last_ts)
            return
        got = log.append(data, subject, headers=headers, ts=ts, sync=sync)
        assert ts is not None
        want = model.append(ts, subject, headers, data)
        assert got == want, f"returned {got}, not {want}"
        if sync or (sync is None and self.sync == "always"):
            model.settle()

    def do_extend(self, a: int, b: int, c: int) -> None:
        n = a & 15 if c & 32 else a % 40
        items: list[tuple[str, bytes, bytes, int]] = []
        for i in range(n):
            headers, data = self.content(b + i, (c + i) & 31)
            items.append((SUBJECTS[(a + i * b) % len(SUBJECTS)], data, headers, self.moment(b)))
        sync = self.sync_of(b)
        log, model = self.log, self.model
        start = log.last
        try:
            got = log.extend(items, sync=sync)
        except NOISE as err:
            if not self.trouble:
                raise
            self.struck(err)
        else:
            assert got == (range(start + 1, start + 1 + n) if n else range(0))
        for subject, data, headers, ts in items[: log.last - start]:
            model.append(ts, subject, headers, data)
        if self.trouble and log.error is not None:
            self.doubt()
        if not self.trouble and n and (sync or (sync is None and self.always)):
            model.settle()

    def do_delete(self, a: int, b: int, c: int) -> None:
        seq = self.some_seq(a, b)
        log, model = self.log, self.model
        sync = self.sync_of(c)
        if seq in model.live:
            self.write(lambda: log.delete(seq, sync=sync), lambda position: model.delete(seq, position), sync)
            return
        try:
            log.delete(seq, sync=sync)
        except jscore.NotFound:
            return
        except NOISE:
            if self.trouble:
                return
            raise
        raise AssertionError(f"message {seq} was not there, and was deleted")

    def do_purge(self, a: int, b: int, c: int) -> None:
        log, model = self.log, self.model
        keep = (0, 0, 1, 3, 10, 0, 50, 1)[a & 7]
        before = None if a & 8 else max(1, self.some_seq(a, b))
        sync = self.sync_of(c)
        filters: tuple[str, ...] = ()
        if a & 48:
            filters = (FILTERS[b % len(FILTERS)],)
        elif c < 48:
            before, keep = min(before or 1 << 63, model.first + b % 16), 0  # all of everything is rare
        subject = filters[0] if filters else None
        n = 0

        def call() -> int:
            nonlocal n
            n = log.purge(subject, before=before, keep=keep, sync=sync)
            return n

        def apply(position: int) -> int:
            return model.purge(filters, before, keep, position)

        length = len(model.journal)
        self.write(call, apply, False)
        if n and not self.trouble and len(model.journal) > length and (sync or (sync is None and self.always)):
            self.settled()

    def do_limits(self, a: int, b: int, c: int) -> None:
        log, model = self.log, self.model
        now = model.limits
        kind = a & 3
        new = now._replace(
            **{
                Limits._fields[kind]: ((0, 5 + b, 200), (0, 400 + 100 * b, 60_000), (0, 1 + b % 8, 40), AGES)[kind][
                    c % 3
                ]
            }
        )
        if a & 4:  # most limits go again soon, or little is left to test with
            new = Limits()
        sync = self.sync_of(b)
        more = {name: value for name, value in new._asdict().items() if value != getattr(now, name)}
        self.write(
            lambda: log.set_limits(**more, sync=sync),
            lambda position: model.set_limits(new, position),
            False if new == now else sync,
        )

    # ---- durability ----

    def durably(self, call: Callable[[], object]) -> None:
        try:
            call()
        except NOISE as err:
            if not self.trouble:
                raise
            self.struck(err)
        else:
            self.settled()

    def sync_now(self) -> None:
        self.durably(self.log.sync)

    def do_wait(self, a: int, b: int, c: int) -> None:
        log = self.log
        seq = self.some_seq(a, b)
        try:
            log.wait(seq, timeout=30 if c & 7 else None)
        except jscore.NotFound:
            assert not 1 <= seq <= self.model.last
            return
        except NOISE as err:
            if not self.trouble:
                raise
            self.struck(err)
            return
        assert log.durable >= seq
        if seq == self.model.last and self.always:
            # What came behind it need not be.
            assert log.durable_position <= log.position

    def do_submit(self, a: int, b: int, c: int) -> None:
        log = self.log
        try:
            position = log.submit()
        except NOISE as err:
            if not self.trouble:
                raise
            self.struck(err)
            return
        assert position == log.position
        if a & 1:
            log.poll()
        assert log.durable_position <= position
        assert log.durable <= log.last

    def do_sync(self, a: int, b: int, c: int) -> None:
        self.sync_now()

    # ---- reading ----

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

    def do_get(self, a: int, b: int, c: int) -> None:
        seq = self.some_seq(a, b)
        want = self.model.live.get(seq)
        try:
            got = self.reading(lambda: self.log[seq])
        except Unread:
            return
        if want is None:
            assert got is None, f"message {seq} is not to be there"
        else:
            assert got is not None, f"message {seq} is not found"
            self.same(got, want)

    def do_contains(self, a: int, b: int, c: int) -> None:
        model, log = self.model, self.log
        seq = self.some_seq(a, b)
        want = (model.first, model.last, len(model.live), bool(model.live))
        try:
            got = self.reading(lambda: (log.first, log.last, len(log), bool(log)))
            assert got == want, f"first, last, len, bool: {got}, not {want}"
            assert self.reading(lambda: seq in log) == (seq in model.live)
        except Unread:
            pass

    def do_slice(self, a: int, b: int, c: int) -> None:
        log, model = self.log, self.model
        lo = max(0, self.some_seq(a, b))
        hi = lo + (c if b & 3 else 5 * c)
        want = [m for seq in range(lo, hi) if (m := model.live.get(seq)) is not None]
        try:
            if a & 32:
                view = self.reading(lambda: log[lo:hi])
                self.reading(lambda: self.same_all(view, want))
                assert self.reading(lambda: len(view)) == len(want)
            else:
                stop = lo - 1 if lo else None
                if lo == 0:
                    want = [m for seq, m in model.live.items() if seq <= hi - 1]
                view = log[max(0, hi - 1) : stop : -1]
                if hi <= lo:
                    want = []
                    view = log[lo:lo:-1]
                self.reading(lambda: self.same_all(view, reversed(want)))
            if a & 64 and want:
                self.same(self.reading(lambda: log[lo:hi][-1]), want[-1])
        except Unread:
            pass

    def walk_of(self, backward: bool, most: int) -> None:
        want = self.model.live.values()
        order = reversed(want) if backward else iter(want)
        walk = reversed(self.log) if backward else iter(self.log)
        for _ in range(most):
            m, w = next(walk, None), next(order, None)
            if w is None or m is None:
                assert m is None and w is None, f"{m} where {w and w.seq} is to come"
                return
            self.same(m, w)

    def walk_on(self, most: int) -> None:
        """A walk that goes on while the log changes: it gives what lives, never what died before it began."""
        model = self.model
        if self.walk is None:
            self.walk = (iter(self.log), 0, model.tick)
        walk, at, began = self.walk
        for _ in range(most):
            m = next(walk, None)
            stop = model.last + 1 if m is None else m.seq
            for seq in range(at + 1, stop):
                assert model.all[seq - 1].killed, f"the walk left message {seq} out"
            if m is None:
                self.walk = None
                return
            assert m.seq > at
            want = model.all[m.seq - 1]
            self.same(m, want)
            assert not want.killed or want.killed > began, f"message {m.seq} was dead when the walk began"
            at = m.seq
        self.walk = (walk, at, began)

    def do_walk(self, a: int, b: int, c: int) -> None:
        try:
            if a & 1:
                self.reading(lambda: self.walk_of(bool(b & 1), c * 2))
            elif not self.trouble:
                self.walk_on(c)
        except Unread:
            pass

    def filters(self, a: int, b: int) -> tuple[str, ...]:
        n = (1, 1, 1, 1, 2, 1, 3, 0)[a & 7]
        return tuple(FILTERS[(b + i * (a >> 3)) % len(FILTERS)] for i in range(n))

    def do_select(self, a: int, b: int, c: int) -> None:
        filters = self.filters(a, b)
        after = 0 if c & 1 else max(0, self.some_seq(c, a))
        selection = self.log.subject(*filters)
        if after:
            selection = selection.after(after)
        want = self.model.matching(filters, after)
        try:
            if c & 2:
                self.reading(lambda: self.same_all(selection, want))
            else:
                self.reading(lambda: self.same_all(reversed(selection), reversed(want)))
        except Unread:
            pass

    def do_edges(self, a: int, b: int, c: int) -> None:
        """First and last of a selection."""
        filters = self.filters(a, b)
        if c & 3 == 0 and SUBJECTS[b % len(SUBJECTS)] not in ("", "b..c", "a."):
            filters = (SUBJECTS[b % len(SUBJECTS)],)
        after = 0 if c & 4 else max(0, self.some_seq(c, a))
        selection = self.log.subject(*filters)
        if after:
            selection = selection.after(after)
        model = self.model
        if len(filters) == 1 and "*" not in filters[0] and ">" not in filters[0]:
            those = model.by_subject.get(filters[0], {})
            want = [m for m in those.values() if m.seq > after]
        else:
            want = model.matching(filters, after)
        backward = c & 8
        try:
            got = self.reading(selection.last if backward else selection.first)
        except Unread:
            return
        if not want:
            assert got is None, f"{got} where there is none"
        else:
            assert got is not None, f"no message, and {want[-1 if backward else 0].seq} is there"
            self.same(got, want[-1 if backward else 0])

    def do_count(self, a: int, b: int, c: int) -> None:
        filters = self.filters(a, b)
        after = 0 if c & 1 else max(0, self.some_seq(c, a))
        selection = self.log.subject(*filters)
        try:
            got = self.reading(lambda: selection.pending(after) if c & 2 else selection.count(after))
        except Unread:
            return
        want = len(self.model.matching(filters, after))
        assert got == want, f"{got} match, not {want}"

    def do_subjects(self, a: int, b: int, c: int) -> None:
        filters = self.filters(a, b)
        try:
            got = self.reading(lambda: list(self.log.subject(*filters).subjects()))
        except Unread:
            return
        want = self.model.subjects(filters)
        assert got == want, f"{got}, not {want}"

    def do_at(self, a: int, b: int, c: int) -> None:
        log, model = self.log, self.model
        if model.all and c & 3:
            ts = model.all[(b << 8 | a) % model.last].ts + (0, 1, -1, 0)[c >> 2 & 3]
        else:
            ts = 1000 * SECOND + (b << 8 | a) * SECOND // 20
        try:
            got = self.reading(lambda: log.at(ts))
        except Unread:
            return
        want = next((m for m in model.live.values() if m.ts >= ts), None)
        if want is None:
            assert got is None, f"{got} where there is none"
        else:
            assert got is not None, f"no message, and {want.seq} is there"
            self.same(got, want)

    def do_columns(self, a: int, b: int, c: int) -> None:
        try:
            self.reading(lambda: self.see_columns(self.log))
        except Unread:
            pass

    def see_columns(self, log: Any) -> None:
        found: list[tuple[int, int, int]] = []
        for part in log.columns("seq", "ts", "size"):
            rows = zip(*(memoryview(column).tolist() for column in part), strict=True)
            found += [row for row, live in zip(rows, memoryview(part.live).tolist(), strict=True) if live]
        want = [(m.seq, m.ts, len(m.data)) for m in self.model.live.values()]
        for got, row in zip(found, want, strict=False):
            assert got == row, f"column: {got}, not {row}"
        assert len(found) == len(want), f"columns of {len(found)} messages, not {len(want)}"

    def do_follow(self, a: int, b: int, c: int) -> None:
        """What is durable is there at once; what is not, may be."""
        if self.trouble:
            return
        log, model = self.log, self.model
        filters = self.filters(a, b) if c & 1 else ()
        after = max(0, self.some_seq(a, b))
        if c & 2:
            self.sync_now()
        durable = log.durable
        want = model.matching(filters, after)
        at = 0
        for m in log.follow(after=after, subject=filters or None, timeout=0):
            self.same(m, want[at])
            at += 1
            if at == len(want):
                break
        assert at == len(want) or want[at].seq > durable, f"message {want[at].seq} is durable, and was left out"

    def do_hold(self, a: int, b: int, c: int) -> None:
        """Messages outlive what they were read from."""
        if len(self.held) >= 12 or c & 7 == 0:
            self.see_held()
            self.held.clear()
        seq = self.some_seq(a, b)
        want = self.model.live.get(seq)
        if want is None:
            return
        try:
            self.held.append((self.reading(lambda: self.log[seq]), want))
        except Unread:
            pass

    def see_held(self) -> None:
        for got, want in self.held:
            self.same(got, want)

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

    def do_stats(self, a: int, b: int, c: int) -> None:
        model = self.model
        try:
            s = self.reading(self.log.stats)
        except Unread:
            return
        assert (s.first_seq, s.last_seq, s.messages, s.message_bytes) == (
            model.first,
            model.last,
            len(model.live),
            model.bytes,
        )
        assert s.limits == model.limits, f"{s.limits}, not {model.limits}"
        assert s.lost_records == 0
        assert s.first_index <= s.last_index + 1
        assert s.durable_index <= s.last_index
        assert s.durable_seq <= s.last_seq

    def do_verify(self, a: int, b: int, c: int) -> None:
        try:
            found = self.reading(self.log.verify)
            damage = self.reading(self.log.damage)
        except Unread:
            return
        if self.trouble or self.scarred:
            return
        if self.untidy:
            found = [finding for finding in found if finding.what.startswith("damage")]
        assert found == [], found
        assert damage == [], damage

    def do_check(self, a: int, b: int, c: int) -> None:
        try:
            self.reading(lambda: self.see(self.log))
        except Unread:
            pass

    def see(self, log: Any) -> None:
        """The whole of a log."""
        model = self.model
        s = log.stats()
        got = (s.first_seq, s.last_seq, s.messages, s.message_bytes)
        want = (model.first, model.last, len(model.live), model.bytes)
        assert got == want, f"first, last, messages, bytes: {got}, not {want}"
        assert s.limits == model.limits, f"{s.limits}, not {model.limits}"
        self.same_all(log, model.live.values())
        assert [m.seq for m in reversed(log)] == [*reversed(model.live)], "backwards it is another log"
        listed, want_listed = list(log.subject().subjects()), model.subjects(())
        assert listed == want_listed, f"{listed}, not {want_listed}"
        self.see_columns(log)

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
                gone = model.rollback(last, position)
                self.see(reader)
            self.open()
            assert self.log.last == last, f"the reader saw {last} messages, the writer {self.log.last}"
        else:
            self.open()
            gone = model.rollback(self.log.last, self.log.position)
        if gone:
            self.say(f"    {gone} records are gone, {model.last} is the last message")
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

    def heal(self) -> None:
        self.disk.die(0, 0)
        for op in set(FAULTS):
            self.disk.fail(op, 1, 0)
        self.disk.capacity((1 << 64) - 1)
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
        if self.trouble:
            return
        from .rot import Rot

        Rot(self).run(a, b, c)


class Unread(Exception):
    """In trouble: a read failed, and said so."""


def play(program: Program, trace: bool = False) -> int:
    """Runs a program; how many operations it had. Raises what went wrong."""
    player = Player(program, trace)
    player.run()
    return player.operations
