"""Operations that write, and that wait for the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jscore

from .model import Limits
from .state import AGES, BLOB, FILTERS, NOISE, SECOND, SIZES, SUBJECTS, State


class Writing(State):
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

    def time_given(self) -> int:
        """The time of the newest message, which the log took from the real clock; about that, when a limit took it away
        at once: nothing in the model is so young."""
        try:
            return int(self.log[self.log.last].ts)
        except jscore.NotFound:
            return time.time_ns()

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
                lambda _: model.append(self.time_given() if ts is None else ts, subject, headers, data),
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
