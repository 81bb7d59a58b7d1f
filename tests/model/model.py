"""What a log of messages is, in plain Python: a list, a dict of the living, and the limits' exact meaning.

Every record (a message, a tombstone, a change of limits) is a tick. Which tick killed a message is remembered, so that
the state as of an earlier record can be had back after a crash: rollback().
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

RECORD_HEAD = 32
HEADERS_HEAD = 8


class Limits(NamedTuple):
    """0: no limit."""

    max_messages: int = 0
    max_bytes: int = 0
    max_per_subject: int = 0
    max_age: int = 0  # seconds


class Message:
    """One message; `born`, `killed` are ticks, killed 0: it lives. `named`: deleted by name, `pushed`: by what counts
    messages, a limit or a purge that keeps some."""

    __slots__ = ("born", "data", "headers", "killed", "named", "pushed", "seq", "size", "subject", "ts")

    def __init__(self, seq: int, ts: int, subject: str, headers: bytes, data: bytes, born: int) -> None:
        self.seq = seq
        self.ts = ts
        self.subject = subject
        self.headers = headers
        self.data = data
        self.born = born
        self.killed = 0
        self.named = self.pushed = False
        n = RECORD_HEAD + (HEADERS_HEAD if headers else 0) + len(subject.encode()) + len(headers) + len(data)
        self.size = (n + 7) & ~7


class Entry(NamedTuple):
    """One record that a crash may take: there when the log has sequence `seq`, or more records than `position`."""

    tick: int
    seq: int
    position: int


class Purge(NamedTuple):
    """Deletes live messages below `end` that match, but for the newest `keep`."""

    tick: int
    filters: tuple[str, ...]
    end: int
    keep: int


def matches(subject: str, filters: tuple[str, ...]) -> bool:
    """Whether a subject matches one of the filters; no filter: everything does."""
    if not filters:
        return True
    if not subject:
        return False
    tokens = subject.split(".")
    for text in filters:
        wanted = text.split(".")
        if wanted[-1] == ">":
            wanted.pop()
            if len(tokens) <= len(wanted):
                continue
        elif len(tokens) != len(wanted):
            continue
        if all(want in ("*", token) for want, token in zip(wanted, tokens, strict=False)):
            return True
    return False


class Model:
    """The log as it must be."""

    def __init__(self) -> None:
        self.all: list[Message] = []  # message n at n - 1, dead ones too
        self.live: dict[int, Message] = {}  # ascending
        self.by_subject: dict[str, dict[int, Message]] = {}
        self.bytes = 0
        self.limits = Limits()
        self.tick = 0
        self.cramped = False  # the disk may be full: files of what is deleted go before the record of it is there
        self.hasty = False  # it was, since the last record that is sure to survive
        # Since the last record that is sure to survive.
        self.journal: list[Entry] = []
        self.kills: list[Message] = []
        self.limits_before: list[tuple[int, Limits]] = []
        self.purges: list[Purge] = []
        self._known: dict[tuple[str, tuple[str, ...]], bool] = {}

    # ---- what is asked ----

    @property
    def last(self) -> int:
        return len(self.all)

    @property
    def first(self) -> int:
        return next(iter(self.live), len(self.all) + 1)

    @property
    def last_ts(self) -> int:
        return self.all[-1].ts if self.all else -(1 << 63)

    def matching(self, filters: tuple[str, ...], after: int = 0) -> list[Message]:
        """Live messages above a sequence that match, ascending."""
        known = self._known
        found = []
        for m in self.live.values():
            if m.seq > after:
                key = (m.subject, filters)
                yes = known.get(key)
                if yes is None:
                    yes = known[key] = matches(m.subject, filters)
                if yes:
                    found.append(m)
        return found

    def subjects(self, filters: tuple[str, ...]) -> list[tuple[str, int, int, int]]:
        """(subject, count, first, last) of those that match, ascending by bytes."""
        found = [
            (text, len(those), next(iter(those)), next(reversed(those)))
            for text, those in self.by_subject.items()
            if those and matches(text, filters)
        ]
        return sorted(found, key=lambda info: info[0].encode())

    # ---- records ----

    def append(self, ts: int, subject: str, headers: bytes, data: bytes) -> int:
        self.tick += 1
        seq = len(self.all) + 1
        m = Message(seq, max(ts, self.last_ts), subject, headers, data, self.tick)
        self.all.append(m)
        self.live[seq] = m
        those = self.by_subject.setdefault(subject, {})
        those[seq] = m
        self.bytes += m.size
        self.journal.append(Entry(self.tick, seq, -1))
        if self.limits != (0, 0, 0, 0):
            if self.limits.max_per_subject:
                self._push_out_of(those)
            self._push_out()
        return seq

    def delete(self, seq: int, position: int) -> None:
        self._control(position)
        self._kill(self.live[seq], named=True)

    def purge(self, filters: tuple[str, ...], before: int | None, keep: int, position: int) -> int:
        """How many went. Nothing is recorded when the log holds no more than `keep` in all."""
        if len(self.live) <= keep:
            return 0
        self._control(position)
        purge = Purge(self.tick, filters, before or 1 << 64, keep)
        self.purges.append(purge)
        gone = self._chosen(purge)
        for m in gone:
            self._kill(m, pushed=keep > 0)
        return len(gone)

    def _chosen(self, purge: Purge) -> list[Message]:
        those = [m for m in self.matching(purge.filters) if m.seq < purge.end]
        return those[: max(0, len(those) - purge.keep)]

    def set_limits(self, limits: Limits, position: int) -> None:
        if limits == self.limits:
            return
        self._control(position)
        self.limits_before.append((self.tick, self.limits))
        was = self.limits.max_per_subject
        self.limits = limits
        if limits.max_per_subject and (not was or limits.max_per_subject < was):
            for those in self.by_subject.values():
                self._push_out_of(those)
        self._push_out()

    def _control(self, position: int) -> None:
        self.tick += 1
        self.journal.append(Entry(self.tick, 0, position))

    def _kill(self, m: Message, named: bool = False, pushed: bool = False) -> None:
        m.killed = self.tick
        m.named = named
        m.pushed = pushed
        self.kills.append(m)
        del self.live[m.seq]
        del self.by_subject[m.subject][m.seq]
        self.bytes -= m.size

    def _push_out_of(self, those: dict[int, Message]) -> None:
        while len(those) > self.limits.max_per_subject:
            self._kill(next(iter(those.values())), pushed=True)

    def _push_out(self) -> None:
        """The oldest go, while they are too old, too many, too much."""
        limits = self.limits
        if limits.max_age:
            oldest = self.last_ts - limits.max_age * 1_000_000_000
            self._kill_first_while(lambda m: m.ts < oldest)
        if limits.max_messages or limits.max_bytes:
            self._kill_first_while(
                lambda _: bool(
                    (limits.max_messages and len(self.live) > limits.max_messages)
                    or (limits.max_bytes and self.bytes > limits.max_bytes)
                )
            )

    def _kill_first_while(self, due: Callable[[Message], bool]) -> None:
        while self.live:
            m = next(iter(self.live.values()))
            if not due(m):
                return
            self._kill(m, pushed=True)

    # ---- what survives ----

    def cramp(self) -> None:
        """The disk may be full from now on."""
        self.cramped = self.hasty = True

    def settle(self) -> None:
        """Everything up to now is sure to survive."""
        self.hasty = self.cramped
        if self.journal:
            self.journal.clear()
            self.kills.clear()
            self.purges.clear()
            self.limits_before.clear()

    def rollback(self, first: int, last: int, position: int) -> int:
        """Back to what a log holds that was found with these sequences and so many records; how many records went.

        At the front also what was deleted on a full disk may be gone, with or without the record that says so.

        Fails when they are no beginning of what was done since the last settle().
        """
        assert last <= self.last, f"the log ends with message {last}, never written; the last one was {self.last}"
        kept = 0
        for entry in self.journal:
            if not (entry.seq <= last if entry.seq else entry.position < position):
                break
            kept += 1
        gone = self.journal[kept:]
        for entry in gone:
            there = entry.seq <= last if entry.seq else entry.position < position
            assert not there, f"{entry} survived, {gone[0]} before it did not: last {last}, position {position}"
        if not gone:
            assert self.last == last, f"message {self.last} was durable, and the log ends with {last}"
            return 0
        until = gone[0].tick - 1
        while self.all and self.all[-1].born > until:
            self.all.pop()
        assert self.last == last, f"message {self.last} was durable, and the log ends with {last}"
        for m in self.kills:
            if m.killed > until:
                m.killed = 0  # `named` stays: its file may be gone
        for tick, limits in reversed(self.limits_before):
            if tick > until:
                self.limits = limits
        self.live = {m.seq: m for m in self.all if not m.killed}
        for purge in self.purges:
            if purge.tick > until:
                for m in self._chosen(purge):  # of what is left: the newest that it keeps stay in any case
                    m.named = True
        while self.hasty and self.first < first and (m := self.live[self.first]).named:
            m.killed = until
            del self.live[m.seq]
        self.by_subject = {}
        for m in self.live.values():
            self.by_subject.setdefault(m.subject, {})[m.seq] = m
        self.bytes = sum(m.size for m in self.live.values())
        return len(gone)
