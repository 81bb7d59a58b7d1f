"""A replica's log made whole again: what is damaged or missing here is taken from another replica.

A new log is written beside the damaged one, from what still verifies here and what others sent, and takes its place
when it is complete and synced; a crash at any step leaves the one or the other. The damaged one is kept in lost+found.
Until then the replica neither votes nor counts nor serves. Others give only what they know to be committed, so whatever
they send for an index is what was here. One subject per server takes the question, `$JSC.FETCH.<id>`, another the
answers, `$JSC.FETCHED.<id>`, both in the system account. Source: spec/raft.md §5, R-31, R-35.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

import jscore
from jscore_server.jetstream.between import SYSTEM_ACCOUNT, understood
from jscore_server.raft.hardlog import sync_directory

if TYPE_CHECKING:
    from jscore import RecordLog
    from jscore_server.dataplane import Msg, Subscription
    from jscore_server.jetstream.engine import JetStream

COPY_BYTES = 1 << 20  # of the own log in one turn of the loop
FETCH_BYTES = 256 << 10
RECORD_MAX = 128 << 20
PATIENCE_S = 1.0
AGAIN_S = 0.25
DRAFT = ".heal"
WHOLE = ".healed"

HEAD = struct.Struct("<QQ")  # of an answer: number of the question, last index; raw records follow, none: not here


class Question(msgspec.Struct, frozen=True):
    """Raw records [lo, hi] of a group's log, as many as there are and fit."""

    group: str
    lo: int
    hi: int
    number: int


def settle(path: str, grave: str) -> None:
    """Finishes or undoes what a crash interrupted. Nothing may have the log at `path` open. Raises: OSError."""
    shutil.rmtree(path + DRAFT, ignore_errors=True)
    if os.path.isdir(path + WHOLE):
        if os.path.isdir(path):
            os.makedirs(os.path.dirname(grave), exist_ok=True)
            os.rename(path, grave)
        os.rename(path + WHOLE, path)
        sync_directory(os.path.dirname(path))


class Heal:
    """One log on its way. Nobody else uses `old` until `done` is called: then the new one is whole."""

    def __init__(self, healer: Healer, number: int, group: str, old: RecordLog, done: Callable[[], None]) -> None:
        self._healer = healer
        self._engine = healer.engine
        self.number = number
        self.group = group
        self._old = old
        self._done = done
        self._next = 1
        self._asked = 0
        self._turn = 0
        self.fetched = 0
        self._ended = False
        shutil.rmtree(old.path + DRAFT, ignore_errors=True)
        self._new = self._engine.store.open(old.path + DRAFT)

    def cancel(self) -> None:
        """The log is not wanted any more."""
        if not self._ended:
            self._ended = True
            self._new.abandon()
            shutil.rmtree(self._old.path + DRAFT, ignore_errors=True)

    def step(self) -> None:
        """Copies what is good here, up to what is not."""
        if self._ended:
            return
        try:
            if self._next > self._old.last:
                self._finish()
                return
            raw, last = self._copy()
        except (jscore.Corrupt, jscore.NotFound):
            self._ask()
            return
        self._take(raw, last)

    def _copy(self) -> tuple[bytes, int]:
        cap = COPY_BYTES
        while True:
            try:
                return self._old.copy(max(self._next, 1), self._old.last, cap)
            except jscore.Full:
                if cap >= RECORD_MAX:
                    raise jscore.Corrupt(f"record {self._next} is too large") from None
                cap = RECORD_MAX

    def _take(self, raw: bytes, last: int) -> None:
        try:
            self._new.append_raw(raw, self._next)
            self._new.submit()
        except jscore.Full:
            self._engine.after(AGAIN_S, self.step)  # the disk is behind, or full
            return
        self._next = last + 1
        self._engine.after(0, self.step)

    def _ask(self) -> None:
        """The next of the other servers is asked for what is missing from here on."""
        peers = sorted(self._engine.online)
        if not peers:
            self._engine.after(AGAIN_S, self.step)
            return
        peer = peers[self._turn % len(peers)]
        self._turn += 1
        self._asked += 1
        asked = self._asked
        question = Question(self.group, self._next, max(self._old.last, self._next), self.number)
        self._healer.ask(peer, question)

        def unanswered() -> None:
            if self._asked == asked and not self._ended:
                self._ask()

        self._engine.after(PATIENCE_S, unanswered)

    def answered(self, last: int, raw: bytes) -> None:
        """What a replica sent; nothing: it has not got it, or not whole, or does not know it to be committed."""
        if self._ended:
            return
        asked = self._asked
        try:
            runs = jscore.scan_records(raw) if raw else []
        except jscore.Corrupt:
            runs = []
        if not runs or runs[0][0] != self._next or runs[-1][0] + runs[-1][2] - 1 != last:
            self._engine.after(AGAIN_S, lambda: self._ask() if self._asked == asked and not self._ended else None)
            return
        self._asked += 1  # the patience is for nobody any more
        self.fetched += last - self._next + 1
        self._take(raw, last)

    def _finish(self) -> None:
        self._ended = True
        self._new.close()  # what is left to sync is little
        os.rename(self._old.path + DRAFT, self._old.path + WHOLE)
        self._done()


class Healer:
    """All logs of one server that are being repaired, and what it gives to others."""

    def __init__(self, engine: JetStream) -> None:
        self.engine = engine
        self.open: dict[str, Heal] = {}  # by group
        self._numbers = 0
        self._subscriptions: list[Subscription] = []

    def start(self) -> None:
        me = self.engine.peer_id(self.engine.server_name)
        subscribe = self.engine.plane.subscribe
        self._subscriptions = [
            subscribe(SYSTEM_ACCOUNT, f"$JSC.FETCH.{me}", self._asked),
            subscribe(SYSTEM_ACCOUNT, f"$JSC.FETCHED.{me}", self._answered),
        ]

    def stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = []
        for group in list(self.open):
            self.cancel(group)

    def begin(self, group: str, old: RecordLog, done: Callable[[Heal], None]) -> None:
        """Repairs a log that nobody uses meanwhile. Raises: OSError, jscore.Error."""
        self._numbers += 1

        def finished() -> None:
            del self.open[group]
            done(heal)

        heal = self.open[group] = Heal(self, self._numbers, group, old, finished)
        self.engine.after(0, heal.step)

    def cancel(self, group: str) -> None:
        heal = self.open.pop(group, None)
        if heal is not None:
            heal.cancel()

    def ask(self, peer: str, question: Question) -> None:
        reply = f"$JSC.FETCHED.{self.engine.peer_id(self.engine.server_name)}"
        subject = f"$JSC.FETCH.{self.engine.peer_id(peer)}"
        self.engine.plane.publish(SYSTEM_ACCOUNT, subject, msgspec.json.encode(question), reply=reply)

    def _asked(self, msg: Msg) -> None:
        question = understood(self.engine, "question", msg.data, Question)
        if question is None:
            return
        if not msg.reply or question.number < 0 or question.number >> 63:
            return
        raw, last = b"", 0
        group = self.engine.raft.groups.get(question.group)
        if group is not None and question.group not in self.open:
            try:
                raw, last = group.copy_committed(question.lo, question.hi, FETCH_BYTES)
            except (jscore.Error, OSError):
                raw, last = b"", 0  # not here: damage never becomes absence elsewhere
        self.engine.plane.publish(SYSTEM_ACCOUNT, msg.reply, HEAD.pack(question.number, last) + raw)

    def _answered(self, msg: Msg) -> None:
        if len(msg.data) < HEAD.size:
            return
        number, last = HEAD.unpack_from(msg.data)
        for heal in list(self.open.values()):
            if heal.number == number:
                try:
                    heal.answered(last, msg.data[HEAD.size :])
                except (jscore.Error, OSError) as err:
                    self.engine.lines.error(f"group {heal.group}: cannot be repaired: {err}")
