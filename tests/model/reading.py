"""Operations that read, each compared with the model."""

from __future__ import annotations

from typing import Any

from .state import SECOND, SUBJECTS, State, Unread


class Reading(State):
    # ---- reading ----
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
                assert m is w, f"{m} where {w and w.seq} is to come"
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
