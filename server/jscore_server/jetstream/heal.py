"""A replica's log made whole again: what is damaged or missing here is taken from another replica.

A new log is written beside the old one, from what still verifies here and what others sent, and takes its place when it
is complete and synced; a crash at any step leaves the one or the other. The old one is kept in lost+found. Until then
the replica neither votes nor counts nor serves. Others give only what they know to be committed, so whatever they send
for an index is what was here. Where their logs begin later, they offer their snapshot of what came before: the new log
begins with it, and takes from the old one only what is known to be committed, and its end only where that joins. One
subject per server takes the question, `$JSC.FETCH.<id>`, another the answers, `$JSC.FETCHED.<id>`, both in the system
account. Source: spec/raft.md §5, R-31, R-32, R-34, R-35.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
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
    from jscore_server.raft import Group

COPY_BYTES = 1 << 20  # of the own log in one turn of the loop
FETCH_BYTES = 256 << 10
RECORD_MAX = 128 << 20
PATIENCE_S = 1.0
AGAIN_S = 0.25
DRAFT = ".heal"
GONE = ".gone"
WHOLE = ".healed"

SNAPSHOT_MAX = 4 << 30
GIVES_NS = 10_000_000_000  # whoever asked so lately is still at it: nothing is trimmed meanwhile
GIVES_MAX_NS = 600_000_000_000  # nor is it for longer than this

# Head of an answer: number of the question, a position, what follows: raw records up to the position, none: not here;
# nothing beyond the position is committed here; the offer of a snapshot; a piece of it from that offset on.
HEAD = struct.Struct("<QQB")
RECORDS, END, OFFER, PIECE = range(4)


class Question(msgspec.Struct, frozen=True):
    """Raw records [lo, hi] of a group's log, as many as there are and fit; or bytes of its snapshot of record
    `snapshot`, from `at` on.
    """

    group: str
    lo: int
    hi: int
    number: int
    snapshot: int = 0
    at: int = 0


class Offer(msgspec.Struct, frozen=True):
    """A snapshot of the state at record `index`, in a file of `size` bytes."""

    index: int
    size: int


def settle(path: str, grave: str) -> None:
    """Finishes or undoes what a crash interrupted. Nothing may have the log at `path` open. Raises: OSError."""
    for left in (path + DRAFT, path + GONE):
        if os.path.isdir(left):
            shutil.rmtree(left, ignore_errors=True)
    if os.path.isdir(path + WHOLE):
        if os.path.isdir(path):
            os.makedirs(os.path.dirname(grave), exist_ok=True)
            os.rename(path, grave)
        os.rename(path + WHOLE, path)
        sync_directory(os.path.dirname(path))


def discard(path: str) -> None:
    """Erases a log that was whole and that a newer one, whole too, is to follow. Raises: OSError."""
    os.rename(path, path + GONE)
    threading.Thread(target=shutil.rmtree, args=(path + GONE, True), daemon=True).start()  # a large one takes long


class Heal:
    """One log on its way. Nobody else uses `old` until `done` is called: then the new one is whole.

    `sure`: records of `old` up to it are committed. `need`: the new one must reach that far, as the old one does not.
    `own`: the snapshot beside the old log, if there is one, may be used.
    """

    def __init__(
        self, healer: Healer, number: int, group: str, old: RecordLog, done: Callable[[], None], sure: int, need: int,
        own: bool,
    ) -> None:  # fmt: skip
        self._healer = healer
        self._engine = healer.engine
        self.number = number
        self.group = group
        self._old = old
        self._done = done
        self._sure = sure
        self._need = need
        self._next = 1
        self._asked = 0
        self._turn = 0
        self.fetched = 0
        self._ended = False
        self.replaced = need > 0  # what the old log had beyond the new one was never committed
        self.outdated = need > 0  # nothing is wrong with the old log but that it ends too early
        self._anew = need > 0  # the end of the new log is what others know to be committed
        self._offer: tuple[str, Offer] | None = None
        self._pieces = bytearray()
        self._last_peer = ""
        self._new = self._draft()
        if own and not self._anew:
            self._begin_with_own()

    @property
    def last(self) -> int:
        """Where the new log ends."""
        return self._next - 1

    def _draft(self, first: int = 1, first_term: int = 0) -> RecordLog:
        shutil.rmtree(self._old.path + DRAFT, ignore_errors=True)
        return self._engine.store.open(self._old.path + DRAFT, first_index=first, first_term=first_term)

    def _begin_with_own(self) -> None:
        try:
            data, _ = self._engine.store.read_snapshot(self._old.path)
            head = jscore.snapshot_head(data)
        except (jscore.NotFound, jscore.Corrupt, jscore.FormatError):
            return
        if self._old.first <= head.first and head.index <= self._old.last:
            self._begin_with(data, head)

    def _begin_with(self, data: bytes, head: jscore.SnapshotHead) -> None:
        self._new.abandon()
        self._new = self._draft(head.first, head.before)
        self._engine.store.write_snapshot(self._new.path, data)
        self._next = head.first
        self._need = max(self._need, head.index)

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
        until = min(self._sure, self._old.last) if self._anew else self._old.last
        try:
            if self._next > self._old.last and not self._anew:
                self._finish()
                return
            if self._next > until:
                raise jscore.NotFound
            raw, last = self._copy(until)
        except (jscore.Corrupt, jscore.NotFound):
            self._ask()
            return
        self._take(raw, last)

    def _copy(self, until: int) -> tuple[bytes, int]:
        cap = COPY_BYTES
        while True:
            try:
                return self._old.copy(self._next, until, cap)
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
        peer = self._last_peer = peers[self._turn % len(peers)]
        self._turn += 1
        self._offer = None
        hi = 1 << 62 if self._anew else max(self._old.last, self._next)
        self._put(peer, Question(self.group, self._next, hi, self.number))

    def _put(self, peer: str, question: Question) -> None:
        self._asked += 1
        asked = self._asked
        self._healer.ask(peer, question)

        def unanswered() -> None:
            if self._asked == asked and not self._ended:
                self._ask()

        self._engine.after(PATIENCE_S, unanswered)

    def _ask_later(self) -> None:
        asked = self._asked
        self._engine.after(AGAIN_S, lambda: self._ask() if self._asked == asked and not self._ended else None)

    def answered(self, kind: int, position: int, data: bytes) -> None:
        """What a replica sent. Raises: jscore.Error, OSError."""
        if self._ended:
            return
        if kind == RECORDS:
            self._records(position, data)
        elif kind == END and self._anew and position == self._next - 1 and position >= self._need:
            self._asked += 1
            self._join()
        elif kind == OFFER:
            self._offered(data)
        elif kind == PIECE and self._offer is not None:
            self._piece(position, data)
        else:
            self._ask_later()

    def _records(self, last: int, raw: bytes) -> None:
        """Nothing: it has not got it, or not whole, or does not know it to be committed."""
        try:
            runs = jscore.scan_records(raw) if raw else []
        except jscore.Corrupt:
            runs = []
        if not runs or runs[0][0] != self._next or runs[-1][0] + runs[-1][2] - 1 != last:
            self._ask_later()
            return
        self._asked += 1  # the patience is for nobody any more
        self.fetched += last - self._next + 1
        self._take(raw, last)

    def _offered(self, data: bytes) -> None:
        """What is missing here is gone there, too: only what came of it is left."""
        try:
            offer = msgspec.json.decode(data, type=Offer)
        except msgspec.MsgspecError:
            return
        if self._next > offer.index or not 0 < offer.size <= SNAPSHOT_MAX:
            self._ask_later()
            return
        self._offer = self._last_peer, offer
        self._pieces = bytearray()
        self._ask_piece()

    def _ask_piece(self) -> None:
        if self._offer is not None:
            peer, offer = self._offer
            self._put(peer, Question(self.group, 0, 0, self.number, offer.index, len(self._pieces)))

    def _piece(self, at: int, data: bytes) -> None:
        assert self._offer is not None
        _, offer = self._offer
        if at != len(self._pieces) or not data or at + len(data) > offer.size:
            return
        self._asked += 1
        self._pieces += data
        if len(self._pieces) < offer.size:
            self._ask_piece()
            return
        whole, self._pieces, self._offer = bytes(self._pieces), bytearray(), None
        try:
            head = jscore.snapshot_head(whole)
        except (jscore.Corrupt, jscore.FormatError):
            self._ask_later()
            return
        self._anew = True
        self._begin_with(whole, head)
        self.step()

    def _join(self) -> None:
        """The new log ends where others know no more to be committed. What the old one had beyond that was promised to
        a leader, unless it follows another record than the one that was committed.
        """
        old, at = self._old, self._next - 1
        try:
            if at >= self._new.first and old.first <= at < old.last and old.term(at) == self._new.term(at):
                self.replaced = False
                self._tail()
                return
            self.replaced = self.replaced or old.first <= at <= old.last
        except (jscore.Corrupt, jscore.NotFound):
            self.replaced = False  # nobody knows whether it joins: what is not here is counted as lost
        self._finish()

    def _tail(self) -> None:
        if self._ended:
            return
        try:
            while self._next <= self._old.last:
                raw, last = self._copy(self._old.last)
                self._new.append_raw(raw, self._next)
                self._new.submit()
                self._next = last + 1
        except (jscore.Corrupt, jscore.NotFound):
            pass
        except jscore.Full:
            self._engine.after(AGAIN_S, self._tail)
            return
        self._finish()

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
        self._given: dict[str, tuple[int, int]] = {}  # by group: since when, and when last, somebody has been asking
        self._file: tuple[str, int, bytes] = ("", 0, b"")  # the snapshot that is being given
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

    def begin(
        self,
        group: str,
        old: RecordLog,
        done: Callable[[Heal], None],
        *,
        sure: int = 0,
        need: int = 0,
        own: bool = True,
    ) -> None:
        """Repairs a log that nobody uses meanwhile; see Heal. Raises: OSError, jscore.Error."""
        self._numbers += 1

        def finished() -> None:
            del self.open[group]
            done(heal)

        heal = self.open[group] = Heal(self, self._numbers, group, old, finished, sure, need, own)
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
        kind, position, data = RECORDS, 0, b""
        try:
            kind, position, data = self._answer(question)
        except (jscore.Error, OSError):
            pass  # not here: damage never becomes absence elsewhere
        self.engine.plane.publish(SYSTEM_ACCOUNT, msg.reply, HEAD.pack(question.number, position, kind) + data)

    def _answer(self, question: Question) -> tuple[int, int, bytes]:
        """(kind, position, what follows). Raises: jscore.Error, OSError."""
        name = question.group
        group = self.engine.raft.groups.get(name)
        if group is None or name in self.open or question.lo < 0 or question.hi >> 63:
            return RECORDS, 0, b""
        now = self.engine.clock()
        since, last = self._given.get(name, (now, 0))
        self._given[name] = (since if now - last < GIVES_NS else now, now)
        if question.snapshot:
            return self._answer_piece(group, question)
        if question.lo < group.log.first:
            data = self._snapshot(group)
            return OFFER, 0, msgspec.json.encode(Offer(jscore.snapshot_head(data).index, len(data)))
        if question.lo > group.commit:
            return (END, group.commit, b"") if group.leader else (RECORDS, 0, b"")
        raw, position = group.copy_committed(question.lo, question.hi, FETCH_BYTES)
        return RECORDS, position, raw

    def _answer_piece(self, group: Group, question: Question) -> tuple[int, int, bytes]:
        name, index, data = self._file
        if name != question.group or index != question.snapshot:
            data = self._snapshot(group)
            if self._file[1] != question.snapshot:  # another one has taken its place
                return OFFER, 0, msgspec.json.encode(Offer(self._file[1], len(data)))
        return PIECE, question.at, data[question.at : question.at + FETCH_BYTES]

    def _snapshot(self, group: Group) -> bytes:
        data, _ = self.engine.store.read_snapshot(group.log.path)
        self._file = group.id, jscore.snapshot_head(data).index, data
        self.engine.after(GIVES_NS / 1e9, self._let_go)
        return data

    def _let_go(self) -> None:
        if not self.gives(self._file[0]):
            self._file = "", 0, b""
        elif self._file[0]:
            self.engine.after(GIVES_NS / 1e9, self._let_go)

    def gives(self, group: str) -> bool:
        """Whether another replica is taking over what is here."""
        since, last = self._given.get(group, (0, 0))
        now = self.engine.clock()
        if now - last >= GIVES_NS:
            self._given.pop(group, None)
            return False
        return now - since < GIVES_MAX_NS

    def _answered(self, msg: Msg) -> None:
        if len(msg.data) < HEAD.size:
            return
        number, position, kind = HEAD.unpack_from(msg.data)
        for heal in list(self.open.values()):
            if heal.number == number:
                try:
                    heal.answered(kind, position, msg.data[HEAD.size :])
                except (jscore.Error, OSError) as err:
                    self.engine.lines.error(f"group {heal.group}: cannot be repaired: {err}")
