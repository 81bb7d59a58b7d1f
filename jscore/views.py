"""What is read of a log lazily: ranges of sequences, followers, columns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import index
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jscore._log import Log, Message, Messages, Selection

FOREVER = (1 << 63) - 1


class RangeView(Sequence["Message"]):
    """Live messages with sequences of a range, either way; made by slicing a log, and read from it when iterated.

    Indexing walks to the place: view[0] and view[-1] are cheap, the middle of a long view is not.
    """

    def __init__(self, log: Log, part: slice) -> None:
        step = 1 if part.step is None else part.step
        if step not in (1, -1):
            raise ValueError("a log is sliced with step 1 or -1")
        ends = [None if end is None else index(end) for end in (part.start, part.stop)]
        if any(end is not None and end < 0 for end in ends):
            raise ValueError("a log is sliced by sequences, which count from 1")
        start, stop = ends if step == 1 else (ends[1], ends[0])
        # [lo, hi) whichever way it is walked.
        shift = 0 if step == 1 else 1
        self._lo = 1 if start is None else max(1, start + shift)
        self._hi = FOREVER if stop is None else min(stop + shift, FOREVER)
        self._log = log
        self._backward = step == -1

    def _walk(self, backward: bool) -> Iterator[Message]:
        if self._lo >= self._hi:
            return iter(())
        if backward:
            return self._log._walk(self._hi - 1, self._lo - 1, True)
        return self._log._walk(self._lo, self._hi, False)

    def __iter__(self) -> Iterator[Message]:
        return self._walk(self._backward)

    def __reversed__(self) -> Iterator[Message]:
        return self._walk(not self._backward)

    def __len__(self) -> int:
        if self._lo >= self._hi:
            return 0
        return self._log._count(self._lo) - self._log._count(self._hi)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __contains__(self, seq: object) -> bool:
        return isinstance(seq, int) and self._lo <= seq < self._hi and seq in self._log

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return list(self)[at]
        at = index(at)
        behind = at if at >= 0 else -1 - at
        if behind < FOREVER:
            for message in islice(iter(self) if at >= 0 else reversed(self), behind, None):
                return message
        raise IndexError("no such message in the range")

    def __repr__(self) -> str:
        hi = "" if self._hi == FOREVER else self._hi
        return f"<jscore.RangeView {self._lo}:{hi}{' backward' if self._backward else ''} of {self._log!r}>"


class Follow:
    """Iterator over durable messages as they come; made by Log.follow(). One thread at a time."""

    def __init__(self, log: Log, selection: Selection, after: int, timeout: float | None) -> None:
        self._log = log
        self._walk: Messages = iter(selection)
        self._timeout = timeout
        self._held: Message | None = None
        self._seen = after

    def ready(self) -> Message | None:
        """The next durable message, or None when there is none now; `beyond` then says what to wait for."""
        # What is durable is asked before the walk, so nothing falls between the two.
        durable = self._log.durable
        message = self._held or self._walk._step()
        if message is None:
            self._seen = max(self._seen, durable)
            return None
        if message.seq > durable:
            self._held = message
            self._seen = message.seq - 1
            return None
        self._held = None
        self._seen = message.seq
        return message

    @property
    def beyond(self) -> int:
        """Nothing for this follower is durable up to here but what it gave."""
        return self._seen

    def __iter__(self) -> Follow:
        return self

    def __next__(self) -> Message:
        deadline = None if self._timeout is None else monotonic() + self._timeout
        over = False
        while True:
            message = self.ready()
            if message is not None:
                return message
            if over:
                raise StopIteration
            # However short the timeout, what another process wrote is taken in once.
            left = None if deadline is None else deadline - monotonic()
            over = left is not None and left <= 0
            try:
                if not over:
                    self._log.wait_beyond(self._seen, left)
            except TimeoutError:
                over = True
            self._log.refresh()


class Columns(tuple[Any, ...]):
    """Columns of one segment, in the order asked for. `live`: a mask, False where a message was deleted."""

    _hold: Any
    _numpy: Any
    _skip: int  # rows that an earlier tuple had, when segments were merged meanwhile

    @property
    def live(self) -> Any:
        flags = self._hold.live()[self._skip :]
        if self._numpy is not None:
            return self._numpy.frombuffer(flags, dtype=bool)
        return memoryview(flags).cast("?")

    @property
    def rows(self) -> int:
        """Messages in the segment, deleted ones too."""
        return int(self._hold.count) - self._skip


def numpy_if_there() -> Any:
    """The module, when it is installed; importing jscore alone must not pay for it."""
    try:
        import numpy  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    return numpy


def column_tuples(log: Log, names: tuple[str, ...]) -> Iterator[Columns]:
    for name in names:
        if name not in ("seq", "ts", "size"):
            raise ValueError(f'columns are "seq", "ts" and "size", not {name!r}')
    return _column_tuples(log, names)


def _column_tuples(log: Log, names: tuple[str, ...]) -> Iterator[Columns]:
    numpy = numpy_if_there()
    start = 1
    while (hold := log._columns(start)) is not None:
        skip = bisect_left(memoryview(hold.column("seq")), start)
        views = [memoryview(hold.column(name))[skip:] for name in names]
        found = Columns(numpy.asarray(view) if numpy is not None else view for view in views)
        found._hold = hold
        found._skip = skip
        found._numpy = numpy
        start = max(hold.last, start) + 1
        if found.rows:
            yield found
