"""Whether a password is the one that the configuration means, in plain or as a bcrypt hash.

A hash takes tens of milliseconds on purpose: it is computed in a thread, few at a time, and the addresses that ask take
turns, so that a flood of guesses from one delays only itself. What was right once is known again without a hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

__all__ = ["Passwords", "is_hash", "same", "same_pair"]

_HASH = re.compile(r"\$2[abxy]\$\d{2}\$")
BCRYPT_BYTES = 72  # what bcrypt looks at
REMEMBERED = 4096
WAITING_MAX = 16_384
WORKERS = max(1, min(4, (os.cpu_count() or 1) - 1))


def is_hash(password: str) -> bool:
    """Whether a configured password is a bcrypt hash."""
    return _HASH.match(password) is not None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def same(given: str, wanted: str) -> bool:
    """Compares in a time that does not tell where they differ."""
    return hmac.compare_digest(_bytes(given), _bytes(wanted))


def same_pair(given: tuple[object, object], wanted: tuple[str, str]) -> bool:
    """The same of a user and a password, which may be anything that JSON can say."""
    right = [same(one if isinstance(one, str) else "", other) for one, other in zip(given, wanted, strict=True)]
    return all(right) and all(isinstance(one, str) for one in given)


class _Job:
    """One hash to compute; `done` None once nobody waits for it."""

    def __init__(self, given: str, wanted: str, done: Callable[[bool], None]) -> None:
        self.given = given
        self.wanted = wanted
        self.done: Callable[[bool], None] | None = done

    def cancel(self) -> None:
        self.done = None


class Passwords:
    """Computes hashes beside one event loop. All methods from the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: int = WORKERS) -> None:
        self._loop = loop
        self._pool: ThreadPoolExecutor | None = None
        self._workers = workers
        self._running = 0
        self._waiting: dict[str, deque[_Job]] = {}  # by address, in the order in which they come to their turn
        self._count = 0
        self._key = os.urandom(32)
        self._known: dict[bytes, None] = {}

    def check(self, address: str, given: str, wanted: str, done: Callable[[bool], None]) -> Callable[[], None] | None:
        """Calls done(whether `given` is the password), at once when no hash has to be computed.

        Otherwise later, and what is returned ends the waiting.
        """
        if not is_hash(wanted):
            done(same(given, wanted))
            return None
        if self._print(given, wanted) in self._known:
            done(True)
            return None
        if self._count >= WAITING_MAX:
            done(False)
            return None
        job = _Job(given, wanted, done)
        self._waiting.setdefault(address, deque()).append(job)
        self._count += 1
        self._next()
        return job.cancel

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        self._waiting.clear()
        self._count = 0

    def _print(self, given: str, wanted: str) -> bytes:
        """What is remembered of a pair: without the key of this process it says nothing."""
        text = len(wanted).to_bytes(8, "big") + _bytes(wanted) + _bytes(given)
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()

    def _take(self) -> _Job | None:
        while self._waiting:
            address, jobs = next(iter(self._waiting.items()))
            del self._waiting[address]
            job = jobs.popleft()
            self._count -= 1
            if jobs:
                self._waiting[address] = jobs  # to the end of the line
            if job.done is not None:
                return job
        return None

    def _next(self) -> None:
        while self._running < self._workers:
            job = self._take()
            if job is None:
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="bcrypt")
            self._running += 1
            future = self._loop.run_in_executor(self._pool, _verify, job.given, job.wanted)
            future.add_done_callback(partial(self._verified, job))

    def _verified(self, job: _Job, future: asyncio.Future[bool]) -> None:
        self._running -= 1
        right = not future.cancelled() and future.exception() is None and future.result()
        if right:
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[self._print(job.given, job.wanted)] = None
        self._next()
        if job.done is not None:
            job.done(right)


def _verify(given: str, wanted: str) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(_bytes(given)[:BCRYPT_BYTES], _bytes(wanted))
    except ValueError:  # what looks like a hash and is none fits no password
        return False
