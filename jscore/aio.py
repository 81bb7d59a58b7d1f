"""The log for asyncio: appends of many tasks share a sync, and nothing but opening, closing and care blocks a thread.

What tasks append within one turn of the loop shares a sync, unless the turn is long: the disk should not wait for us.
What comes while a sync is on its way goes with the next one. Reads are memory and mappings, so they are plain calls on
`log`.

A task that is cancelled while it waits stops waiting. The message stays appended, keeps its sequence, and becomes
durable with the rest; the others that wait are not disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import jscore
from jscore._log import Awaited

if TYPE_CHECKING:
    from datetime import datetime
    from os import PathLike

    from jscore._log import Data, Item, Log, Message

__all__ = ["AsyncFollow", "AsyncLog", "open"]

T = TypeVar("T")
# An idle disk waits for more to come with the first append at most so much of the time that a sync takes.
GATHER_SHARE = 1 / 16
# How often a full disk is looked for while somebody waits: nothing wakes us when nothing moves.
STALL_SECONDS = 0.25
# How long the thread that waits for another process's writer goes without looking whether it is still wanted.
REMOTE_SECONDS = 0.2


async def open(path: str | PathLike[str], mode: Literal["a", "r", "x"] = "a", **options: Any) -> AsyncLog:
    """jscore.open() in a thread; the log belongs to the running loop. Raises: as jscore.open()."""
    loop = asyncio.get_running_loop()
    opening = loop.run_in_executor(None, functools.partial(jscore.open, path, mode, **options))
    try:
        log = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread opens it all the same: it must not stay open without an owner.
        opening.add_done_callback(_close_unwanted)
        raise
    return AsyncLog(log)


def _close_unwanted(opening: asyncio.Future[Log]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.get_loop().run_in_executor(None, opening.result().close)


class AsyncLog:
    """A log, `log`, whose durability is awaited. Made by open() or over a Log in the running loop, whose tasks alone
    use it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[int, Awaited]] = deque()
        self._moved: set[asyncio.Future[None]] = set()
        self._durable = self._submitted = log.durable_position  # as poll() and submit() said last
        self._failure: Exception | None = log.error
        self._gathering: asyncio.Handle | None = None
        self._gather_until = 0.0
        self._timed, self._submitted_at, self._sync_seconds = 0, 0.0, 0.0  # how long a sync takes, and how it is found
        self._watch: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._remote: asyncio.Future[None] | None = None
        self._always = log.sync_mode == "always"
        self._fd = log.fileno()
        self._loop.add_reader(self._fd, self._ready)

    # ---- group commit ----

    def _usable(self) -> Log:
        if self._closing is not None:
            raise ValueError("the log is closed")
        return self.log

    def _wait_durable(self) -> Awaited:
        """Sees to it that what was appended up to now goes to the disk; resolved when it is durable."""
        awaited = Awaited(self._loop)
        try:
            if self._failure is not None:
                position = self.log.position
            elif self._submitted > self._durable:
                position = self._submitted = self.log.submit()  # goes when the sync on its way is through
            else:
                position = self._gather()
        except (jscore.Error, OSError, ValueError) as err:
            self._reject(err)
            awaited.fail(err)
            return awaited
        if position <= self._durable:
            awaited.resolve()
        elif self._failure is not None:
            awaited.fail(self._failure)
        else:  # of every move beyond what poll() said last the descriptor tells
            self._waiting.append((position, awaited))
            if self._watch is None:
                self._watch = self._loop.call_later(STALL_SECONDS, self._look)
        return awaited

    def _gather(self) -> int:
        """The disk is idle: one sync for all that this turn of the loop appends, unless that keeps the disk waiting for
        long, as syncs go. Returns the position of what was appended last."""
        now = self._loop.time()
        if self._gathering is None:
            self._gathering = self._loop.call_soon(self._submit)
            self._gather_until = now + GATHER_SHARE * self._sync_seconds
        if now >= self._gather_until:
            self._hand_over(now)
            return self._submitted
        return self.log.position

    def _hand_over(self, now: float) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._submitted = self._timed = self.log.submit()
        self._submitted_at = now

    def _submit(self) -> None:
        """The end of a turn."""
        self._gathering = None
        try:
            self._hand_over(self._loop.time())
        except (jscore.Error, OSError, ValueError) as err:
            self._reject(err)

    def _ready(self) -> None:
        """The descriptor is readable: the durable position moved, or the log failed."""
        try:
            position = self.log.poll()
        except (jscore.Error, ValueError) as err:
            self._reject(err)
            return
        self._durable = position
        if self._timed and position >= self._timed:
            self._sync_seconds += (self._loop.time() - self._submitted_at - self._sync_seconds) / 4
            self._timed = 0
        self._failure = self.log.error
        waiting = self._waiting
        due: deque[Awaited] = deque()
        while waiting and waiting[0][0] <= position:
            due.append(waiting.popleft()[1])
        self._resume(due)
        if self._failure is not None:
            self._reject(self._failure)
        if self._moved:
            self._wake()

    def _resume(self, due: deque[Awaited]) -> None:
        """Runs each task up to its next wait, which comes behind those here."""
        try:
            while due:
                due.popleft().resolve()
        finally:
            if due:  # one raised what no task keeps, and the loop may end
                self._loop.call_soon(self._resume, due)

    def _reject(self, err: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        for _, awaited in waiting:
            awaited.fail(err)
        self._wake()

    def _look(self) -> None:
        """Somebody waits for long: perhaps the disk is full. They are told; what they appended waits for space."""
        self._watch = None
        if not self._waiting or self._closing is not None:
            return
        if self.log.stalled:
            self._reject(jscore.Full("no space on the disk"))
        else:
            self._watch = self._loop.call_later(STALL_SECONDS, self._look)

    async def _settle(self, sync: bool | None) -> None:
        if sync if sync is not None else self._always:
            if self._always:
                await self._wait_durable()
            else:
                await self._in_thread(self.log.sync)

    async def _room(self, offer: Callable[[], T]) -> T:
        """What offer() appends, after waiting for the disk where too much is unwritten."""
        while True:
            try:
                return offer()
            except jscore.Full:
                if self.log.stalled:
                    raise
                await self._wait_durable()
                self._usable()

    # ---- writing ----

    async def append(
        self,
        data: Data,
        subject: str | bytes = "",
        *,
        headers: Data = b"",
        ts: int | float | datetime | None = None,
        sync: bool | None = None,
    ) -> int:
        """Appends one message and returns its sequence, once it is durable as `sync` says: None, as the log was
        opened; True, on the disk; False, at once. It is appended, in the order of the calls, before the first
        suspension, unless too much is unwritten. Raises: Full, Failed, ReadOnly, ValueError, TypeError; see
        Log.append()."""
        log = self.log if self._closing is None else self._usable()
        try:
            seq = log.offer(data, subject, headers=headers, ts=ts)
        except jscore.Full:
            seq = await self._room(functools.partial(log.offer, data, subject, headers=headers, ts=ts))
        if self._always if sync is None else sync:
            await (self._wait_durable() if self._always else self._in_thread(log.sync))
        return seq

    async def extend(self, items: Iterable[Item], *, sync: bool | None = None) -> range:
        """Appends many messages next to each other and returns their sequences; items as of Log.extend(). They are
        appended in a thread, so that a large batch does not hold up the loop. Raises: as append()."""
        log = self._usable()
        seqs = await self._in_thread(functools.partial(log.extend, list(items), sync=False))
        if seqs:
            await self._settle(sync)
        return seqs

    async def delete(self, seq: int, *, sync: bool | None = None) -> None:
        """Deletes one message. Raises: NotFound, and as append()."""
        log = self._usable()
        log.delete(seq, sync=False)
        await self._settle(sync)

    async def purge(
        self,
        subject: str | bytes | None = None,
        *,
        before: int | None = None,
        keep: int = 0,
        sync: bool | None = None,
    ) -> int:
        """Deletes many messages, in a thread; see Log.purge(). Raises: as append()."""
        log = self._usable()
        call = functools.partial(log.purge, subject, before=before, keep=keep, sync=False)
        n = await self._in_thread(call)
        if n:
            await self._settle(sync)
        return n

    # ---- durability ----

    async def sync(self) -> None:
        """Returns when everything appended so far is synced to the disk, in every sync mode. Raises: Full, Failed."""
        log = self._usable()
        if self._always:
            await self._wait_durable()
        else:
            await self._in_thread(log.sync)

    async def wait(self, seq: int) -> None:
        """Returns when message `seq` is durable. Raises: NotFound (not appended), Full, Failed."""
        log = self._usable()
        if seq > log.last:
            raise jscore.NotFound(f"no message {seq} yet", seq=seq)
        if seq > log.durable:
            await self._wait_durable()

    @property
    def durable(self) -> int:
        """The highest sequence that is durable."""
        return self.log.durable

    # ---- reading ----

    async def get(self, seq: int) -> Message:
        """One message. Raises: NotFound, Corrupt."""
        return self._usable()[seq]

    def follow(
        self,
        after: int | None = None,
        subject: str | bytes | Iterable[str | bytes] | None = None,
        timeout: float | None = None,
    ) -> AsyncFollow:
        """Asynchronous iterator over durable messages behind `after` (None: the last durable one now), waiting for new
        ones; see Log.follow()."""
        return AsyncFollow(self, self._usable().follow(after, subject, timeout), timeout)

    def _next_move(self) -> asyncio.Future[None]:
        """Resolved when there may be news for followers."""
        self._usable()
        future: asyncio.Future[None] = self._loop.create_future()
        self._moved.add(future)
        if self.log.mode == "r" and self._remote is None:
            self._ask_remote()
        return future

    def _wake(self) -> None:
        moved, self._moved = self._moved, set()
        for future in moved:
            if not future.done():
                future.set_result(None)

    def _ask_remote(self) -> None:
        """Another process writes: a thread waits for it, while somebody here does."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "jscore-follow")
        durable = self.log.durable
        self._remote = self._loop.run_in_executor(self._thread, self._wait_remote, durable)
        self._remote.add_done_callback(functools.partial(self._remote_moved, durable))

    def _wait_remote(self, durable: int) -> None:
        try:
            self.log.wait_beyond(durable, REMOTE_SECONDS)
        except TimeoutError:
            pass

    def _remote_moved(self, durable: int, asked: asyncio.Future[None]) -> None:
        """`durable`: as of when it was asked. The waiting itself takes in what comes, so that it may be past by now."""
        self._remote = None
        # Asked for in any case: one that waits while the log closes ends with an error that is nobody's.
        failed = not asked.cancelled() and asked.exception() is not None
        if asked.cancelled() or self._closing is not None:
            return
        if failed:
            self._wake()  # whoever waits meets the error in its own call
            return
        try:
            self.log.refresh()
            if self.log.durable > durable or self.log.error is not None:
                self._wake()
        except (jscore.Error, OSError, ValueError):
            self._wake()
        if self._moved:
            self._ask_remote()

    # ---- the end ----

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(None, call)

    async def close(self) -> None:
        """Waits until everything is durable, then closes; also when the task is cancelled meanwhile. Every wait under
        way ends as it would have, followers end. Raises the first error met, after closing: Full, Failed."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            while self._waiting:
                position, awaited = self._waiting[-1]
                if awaited.done():  # cancelled; the one before it may still wait
                    self._waiting.pop()
                    continue
                self._waiting.append((position, beside := Awaited(self._loop)))
                with contextlib.suppress(Exception):  # whoever waits hears it, and closing says it again
                    async with asyncio.timeout(STALL_SECONDS):
                        await beside
                if self._waiting and self.log.stalled:
                    self._reject(jscore.Full("no space on the disk"))
        finally:
            self._loop.remove_reader(self._fd)
            if self._watch is not None:
                self._watch.cancel()
            self._wake()
            try:
                await self._in_thread(self.log.close)
            finally:
                if self._thread is not None:
                    self._thread.shutdown(wait=False)

    async def __aenter__(self) -> AsyncLog:
        self._usable()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<jscore.AsyncLog of {self.log!r}>"


class AsyncFollow(AsyncIterator["Message"]):
    """Asynchronous iterator over durable messages as they come. One task at a time; a cancelled wait loses nothing."""

    def __init__(self, log: AsyncLog, follow: jscore.Follow, timeout: float | None) -> None:
        self._log = log
        self._follow = follow
        self._timeout = timeout

    def __aiter__(self) -> AsyncFollow:
        return self

    async def __anext__(self) -> Message:
        message = self._follow.ready()
        if message is not None:
            return message
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    move = self._log._next_move()
                    try:
                        # Asked again now that a move would be heard.
                        message = self._follow.ready()
                        if message is not None:
                            return message
                        await move
                    finally:
                        self._log._moved.discard(move)
        except TimeoutError:
            raise StopAsyncIteration from None
        except ValueError:
            if self._log._closing is not None:
                raise StopAsyncIteration from None
            raise
