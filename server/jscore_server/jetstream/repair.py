"""How a replica's log is made whole again from others, and what it gives to them: the rules, without files or links.

A new log is written beside the old one, from what still verifies here and what others sent, and takes its place when it
is complete and synced. Others give only what they know to be committed, so whatever they send for an index that is
known here to be committed is what was here; beyond that it takes the place of all that was. Where their logs begin
later, they offer their snapshot of what came before: the new log begins with it, and takes from the old one only what
is known to be committed, and its end only where that joins. `heal` carries it out; the simulator does, too (tests/sim).
Source: spec/raft.md §5, R-31, R-32, R-34, R-35.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

import jscore

if TYPE_CHECKING:
    from jscore_server.raft import Difference

COPY_BYTES = 1 << 20  # of the own log in one turn of the loop
FETCH_BYTES = 256 << 10
RECORD_MAX = 128 << 20
SNAPSHOT_MAX = 4 << 30
PATIENCE_S = 1.0
AGAIN_S = 0.25
FORM = 2  # of questions and answers; the protocol of that number is the first that knows it
FRUITLESS = 12  # questions in a row that brought nothing

# Head of an answer: number of the question, a position, what follows: raw records up to the position, none: not here;
# nothing beyond the position is committed here; the offer of a snapshot; a piece of it from that offset on.
HEAD = struct.Struct("<QQB")
RECORDS, END, OFFER, PIECE = range(4)

Answer = tuple[int, int, Any]
"""Kind, position, what follows."""


class Question(msgspec.Struct, frozen=True):
    """Raw records [lo, hi] of a group's log, as many as there are and fit; or bytes of its snapshot of record
    `snapshot`, from `at` on. `version`: of this form and of the answer's; another one gets no answer.
    """

    group: str
    lo: int
    hi: int
    number: int
    snapshot: int = 0
    at: int = 0
    version: int = 1


class Offer(msgspec.Struct, frozen=True):
    """A snapshot of the state at record `index`, in a file of `size` bytes."""

    index: int
    size: int


class Log(Protocol):
    """What a repair needs of a log. Raw records are bytes for the engine, something else for a model of it."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    def term(self, index: int) -> int: ...
    def copy(self, lo: int, hi: int, cap: int) -> tuple[Any, int]: ...
    def append_raw(self, raw: Any, from_index: int) -> None: ...
    def submit(self) -> None: ...
    def set_commit(self, index: int) -> None:
        """Up to there it is known to be committed, and the log remembers it."""
        ...


class Ground(Protocol):
    """What surrounds a repair: time, the other servers, the place of the new log."""

    def after(self, seconds: float, call: Callable[[], None]) -> None: ...
    def peers(self) -> Sequence[str]:
        """The servers that can be asked, always in the same order."""
        ...

    def ask(self, peer: str, question: Question) -> None: ...
    def scan(self, raw: Any) -> list[tuple[int, int, int]]:
        """What raw records are, verified: jscore.scan_records. Raises: Corrupt."""
        ...

    def draft(self, first: int, before: int, snapshot: bytes) -> Any:
        """A new log, empty, that begins at `first` behind a record of term `before`, with a snapshot beside it unless
        that is empty. Whatever was drafted before goes.
        """
        ...

    def own_snapshot(self) -> bytes:
        """The snapshot beside the old log. Raises: NotFound, Corrupt, FormatError."""
        ...

    def drop(self) -> None:
        """The draft is not wanted any more."""
        ...

    def install(self) -> None:
        """The draft is whole: syncs it and puts it where the next opening takes it in place of the old one."""
        ...


class Source(Protocol):
    """A replica that gives."""

    @property
    def first(self) -> int: ...
    @property
    def commit(self) -> int: ...
    def copy_committed(self, lo: int, hi: int) -> tuple[Any, int]: ...
    def snapshot(self, index: int) -> tuple[int, bytes]:
        """The snapshot of that record if it is at hand, else the newest; with its index. Raises: NotFound, Corrupt."""
        ...


def give(source: Source, question: Question, cap: int = FETCH_BYTES) -> Answer:
    """What a replica answers. Raises: jscore.Error, OSError: it has not got it, or not whole."""
    if question.snapshot or question.lo < source.first:
        index, data = source.snapshot(question.snapshot)
        if index != question.snapshot:
            return OFFER, 0, msgspec.json.encode(Offer(index, len(data)))
        return PIECE, question.at, data[question.at : question.at + cap]
    if question.lo > source.commit:
        return END, source.commit, b""  # leader or not: who asks may be needed to elect one
    raw, position = source.copy_committed(question.lo, question.hi)
    return RECORDS, position, raw


class Repair:
    """One log on its way. Nobody else uses `old` until `done` is called: then the new one is whole.

    `sure`: records of `old` up to it are committed. `need`: the new one must reach that far, as the old one does not.
    `own`: the snapshot beside the old log, if there is one, may be used. `distrust`: records of the old one that verify
    and are not what a majority holds; what the ground's peers hold takes their place.

    When nobody has what is needed, a log that only ends too early is given back as it is (`given_up`): its replica may
    be the one without which nobody can be elected. One that is damaged is begun anew, with what others have by then.
    """

    def __init__(
        self, ground: Ground, number: int, group: str, old: Log, done: Callable[[Repair], None], sure: int, need: int,
        own: bool, distrust: Difference | None = None,
    ) -> None:  # fmt: skip
        self._ground = ground
        self.number = number
        self.group = group
        self._old = old
        self._done = done
        self._sure = sure
        self._need = self._needed = need
        self._own = own
        self._distrust = distrust
        self._next = 1
        self._fruitless = 0
        self._asked = 0
        self._turn = 0
        self.fetched = 0
        self._ended = False
        self.replaced = need > 0  # what the old log had beyond the new one was never committed
        self.outdated = need > 0  # nothing is wrong with the old log but that it ends too early
        self._anew = need > 0  # the end of the new log is what others know to be committed
        self._unsure = False  # something is damaged that nobody here knows to be committed
        self._offer: tuple[str, Offer] | None = None
        self._pieces = bytearray()
        self._last_peer = ""
        self.given_up = False
        self._begin()

    @property
    def last(self) -> int:
        """Where the new log ends."""
        return self._next - 1

    def _begin(self) -> None:
        self._new: Log = self._ground.draft(1, 0, b"")
        self._next = 1
        self._need = self._needed
        self._anew = self.outdated or self._unsure
        if self._own and not self.outdated:
            self._begin_with_own()

    def _begin_with_own(self) -> None:
        try:
            data = self._ground.own_snapshot()
            head = jscore.snapshot_head(data)
        except (jscore.NotFound, jscore.Corrupt, jscore.FormatError):
            return
        if self._distrust is not None and head.index >= self._distrust.lo:
            return  # it was made of what differs
        if self._old.first <= head.first and head.index <= self._old.last:
            self._begin_with(data, head)

    def _begin_with(self, data: bytes, head: jscore.SnapshotHead) -> None:
        self._new = self._ground.draft(head.first, head.before, data)
        self._next = head.first
        self._need = max(self._need, head.index)

    def cancel(self) -> None:
        """The log is not wanted any more."""
        if not self._ended:
            self._ended = True
            self._ground.drop()

    def step(self) -> None:
        """Copies what is good here, up to what is not."""
        if self._ended:
            return
        until = min(self._sure, self._old.last) if self._anew else self._old.last
        try:
            if self._next > self._old.last and not self._anew:
                self._finish()
                return
            odd = self._distrust
            if odd is not None and odd.lo <= self._next <= odd.hi:
                raise jscore.NotFound
            if odd is not None and self._next < odd.lo:
                until = min(until, odd.lo - 1)
            if self._next > until:
                raise jscore.NotFound
            raw, last = self._copy(until)
        except (jscore.Corrupt, jscore.NotFound):
            self._ask()
            return
        self._take(raw, last)

    def _copy(self, until: int) -> tuple[Any, int]:
        cap = COPY_BYTES
        while True:
            try:
                return self._old.copy(self._next, until, cap)
            except jscore.Full:
                if cap >= RECORD_MAX:
                    raise jscore.Corrupt(f"record {self._next} is too large") from None
                cap = RECORD_MAX

    def _take(self, raw: Any, last: int) -> None:
        try:
            self._new.append_raw(raw, self._next)
            self._new.submit()
        except jscore.Full:
            self._ground.after(AGAIN_S, self.step)  # the disk is behind, or full
            return
        self._next = last + 1
        self._ground.after(0, self.step)

    def _ask(self) -> None:
        """One of the other servers is asked for what is missing from here on: always the same while it gives."""
        if not self._anew and self._next > self._sure:
            # What others have here may follow other records than the old log has before and behind it: from what is
            # sure on all comes from them, and of the old log only what joins that.
            self._anew = self._unsure = True
            if self._next > self._sure + 1:
                self._begin()
                self._ground.after(0, self.step)
                return
        self._fruitless += 1
        if self._fruitless > FRUITLESS:
            self._fruitless = 0
            if self.outdated:
                self.cancel()
                self.given_up = True
                self._done(self)
                return
            self._begin()
            self._ground.after(0, self.step)
            return
        peers = self._ground.peers()
        if not peers:
            self._ground.after(AGAIN_S, self.step)
            return
        peer = self._last_peer = peers[self._turn % len(peers)]
        self._offer = None
        hi = 1 << 62 if self._anew else max(self._old.last, self._next)
        self._put(peer, Question(self.group, self._next, hi, self.number))

    def _put(self, peer: str, question: Question) -> None:
        self._asked += 1
        asked = self._asked
        self._ground.ask(peer, question)

        def unanswered() -> None:
            if self._asked == asked and not self._ended:
                self._turn += 1
                self._ask()

        self._ground.after(PATIENCE_S, unanswered)

    def _ask_later(self) -> None:
        asked = self._asked

        def again() -> None:
            if self._asked == asked and not self._ended:
                self._turn += 1
                self._ask()

        self._ground.after(AGAIN_S, again)

    def answered(self, kind: int, position: int, data: Any) -> None:
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

    def _records(self, last: int, raw: Any) -> None:
        """Nothing: it has not got it, or not whole, or does not know it to be committed."""
        try:
            runs = self._ground.scan(raw) if raw else []
        except jscore.Corrupt:
            runs = []
        if not runs or runs[0][0] != self._next or runs[-1][0] + runs[-1][2] - 1 != last:
            self._ask_later()
            return
        self._asked += 1  # the patience is for nobody any more
        self._fruitless = 0
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
        self._fruitless = 0
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
        self._new.set_commit(at)
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
            self._ground.after(AGAIN_S, self._tail)
            return
        self._finish()

    def _finish(self) -> None:
        self._ended = True
        self._ground.install()
        self._done(self)
