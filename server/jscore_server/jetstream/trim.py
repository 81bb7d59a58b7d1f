"""Space that comes back: a stream's log lets go of its start, once a snapshot says what the records there had made.

Each replica does it by itself, from what it has applied. The snapshot is made by C in steps of a few milliseconds and
written by a thread, beside the segments; only then segments go whose records all lie before the first that is still
needed. One snapshot is made at a time. Source: spec/raft.md R-30 to R-34, docs/format.md#snapshot.

A few messages that stay for long would hold up all that goes behind them. Where too much is held up, the leader appends
those again (csrc/stream/move.c): once each, when the log is twice as large as what is in it.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

import jscore

if TYPE_CHECKING:
    from jscore_server.jetstream.asset import Asset
    from jscore_server.jetstream.engine import JetStream

LOOK_S = 1.0
LOOK_AT = 256  # streams in one turn of the loop
IDLE_AT = 256  # of those that nothing was written to: so many a second, in turn
AGAIN_S = 3.0  # between two snapshots of a stream
WAIT_S = 0.01
PATIENCE_S = 600  # what the records' own sync may take, which comes at intervals perhaps
JOBS = 64
ROLL_BYTES = 4 << 20  # a segment is ended when it has so much, and a part of what the stream holds
PART = 4  # a snapshot is worth it when it frees one part in so many of the log
RETAIN_BYTES = 64 << 20  # kept for followers that are behind
HELD_UP_BYTES = 16 << 20  # beside twice of what a log holds, this much may be held up
MESSAGE_BYTES = 100  # at most so much of a message in its log is not counted as its own
MOVE_AFTER_S = 2.5  # by then each replica has ended the segment with what is held up, and the moved go to the next
MOVE_BYTES = 256 << 10  # of messages, in one go


class Job(msgspec.Struct):
    """A snapshot on its way."""

    asset: Asset
    waited: float = 0
    index: int = 0
    first: int = 0
    data: bytes = b""
    written: Future[None] | None = None


class Trimmer:
    """Every log of one server."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine
        self._jobs: dict[Asset, Job] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._touched: dict[Asset, None] = {}
        self._idle: dict[Asset, None] = {}  # time may make something of it free, or a follower that comes back
        self._to_look: list[Asset] = []
        self._held_up: dict[Asset, int] = {}  # since when
        self._moving: set[Asset] = set()

    def start(self) -> None:
        self._engine.after(LOOK_S, self._round)

    def stop(self) -> None:
        for asset in list(self._jobs):
            self.release(asset)
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None

    def release(self, asset: Asset) -> None:
        """Nothing of it is written any more when this returns; waits for the disk where it must."""
        self._touched.pop(asset, None)
        self._idle.pop(asset, None)
        self._held_up.pop(asset, None)
        job = self._jobs.pop(asset, None)
        if job is None:
            return
        asset.stream.snapshot_end()
        if job.written is not None:
            job.written.exception()

    # ---- which one ----

    def touch(self, asset: Asset) -> None:
        """It is new, or its log was written to."""
        self._touched[asset] = None

    def _round(self) -> None:
        for asset in list(islice(self._idle, IDLE_AT)):
            del self._idle[asset]
            self._touched[asset] = None
        self._to_look, self._touched = list(self._touched), {}
        self._look()

    def _look(self) -> None:
        part, self._to_look = self._to_look[:LOOK_AT], self._to_look[LOOK_AT:]
        for asset in part:
            if not asset.closed and not asset.failed:
                try:
                    log = asset.log
                    if log.open_bytes(log.last + 1) < ROLL_BYTES and not log.trimmable(log.last + 1):
                        self._idle.pop(asset, None)
                        continue  # one small file: it stays
                    self._idle[asset] = None
                    self._look_at(asset)
                except (jscore.Error, OSError, ValueError) as err:
                    self._complain(asset, err)
        if self._to_look:
            self._engine.after(0, self._look)
        else:
            self._engine.after(LOOK_S, self._round)

    def _look_at(self, asset: Asset) -> None:
        log = asset.log
        if log.error or self._engine.healer.gives(asset.assignment.group):
            return
        keep = asset.stream.keeps
        if log.trimmable(self._allowed(asset, asset.snapshot_first)):
            self._free(asset)
            return
        size = log.open_bytes(log.last + 1)
        if size >= ROLL_BYTES and size * PART >= asset.stream.state().bytes:
            log.submit()
            log.roll()
        now = self._engine.clock()
        freed = log.trimmable(self._allowed(asset, keep))
        if freed * PART < max(log.bytes, 1):
            self._move(asset, log.bytes - log.trimmable(keep))
            return
        if now - asset.snapshot_tried < AGAIN_S * 1e9:
            return
        if asset in self._jobs or len(self._jobs) >= JOBS or any(not job.data for job in self._jobs.values()):
            return
        asset.snapshot_tried = now
        host = asset.host_state()
        if host is None:
            return
        asset.stream.snapshot_begin(host)
        job = self._jobs[asset] = Job(asset)
        self._engine.after(0, partial(self._step, job))

    def _move(self, asset: Asset, kept: int) -> None:
        """Moves what stays, where of `kept` bytes less than half are in use; once begun it goes on to the end."""
        if not asset.leading or asset in self._moving:
            return
        state = asset.stream.state()
        if kept < 2 * (state.bytes + state.messages * MESSAGE_BYTES) + HELD_UP_BYTES:
            self._held_up.pop(asset, None)
            return
        now = self._engine.clock()
        if now - self._held_up.setdefault(asset, now) >= MOVE_AFTER_S * 1e9:
            del self._held_up[asset]
            self._moving.add(asset)
            self._move_on(asset, asset.log.last)

    def _move_on(self, asset: Asset, below: int) -> None:
        try:
            if asset.leading and not asset.closed and not asset.failed and asset.stream.move(below, MOVE_BYTES):
                self._engine.after(WAIT_S, partial(self._move_on, asset, below))
                return
        except (jscore.Error, OSError, ValueError) as err:
            self._complain(asset, err)
        self._moving.discard(asset)

    @staticmethod
    def _allowed(asset: Asset, keep: int) -> int:
        """What a follower that can be reached still lacks is kept for it, within bounds."""
        if asset.group is None or asset.log.trimmable(keep) > RETAIN_BYTES:
            return keep
        return min(keep, asset.group.needed_from())

    def _complain(self, asset: Asset, err: Exception) -> None:
        name = f"{asset.assignment.account}/{asset.assignment.name}"
        self._engine.lines.warn(f"stream {name}: its log keeps what it no longer needs: {err}")

    # ---- one snapshot ----

    def _step(self, job: Job) -> None:
        if self._jobs.get(job.asset) is not job:
            return
        try:
            wait = self._go_on(job)
            if wait >= 0:
                self._engine.after(wait, partial(self._step, job))
                return
        except ValueError:
            pass  # too much was removed meanwhile: it is tried again
        except (jscore.Error, OSError) as err:
            self._complain(job.asset, err)
        self.release(job.asset)

    def _go_on(self, job: Job) -> float:
        """The next thing to do; returns when to come back, below 0: it is over."""
        asset = job.asset
        if asset.closed or asset.failed:
            return -1
        if not job.data:
            if asset.stream.snapshot_step():
                job.data, job.index, job.first = asset.stream.snapshot_file()
                asset.stream.snapshot_end()
            return 0
        if job.written is None:
            if asset.log.synced < job.index:  # what it refers to is on the disk first
                job.waited += WAIT_S if job.waited < 1 else LOOK_S
                return -1 if job.waited > PATIENCE_S else WAIT_S if job.waited < 1 else LOOK_S
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, "snapshots")
            job.written = self._writer.submit(self._engine.store.write_snapshot, asset.log.path, job.data)
        if not job.written.done():
            return WAIT_S
        job.written.result()
        asset.snapshot_first = job.first
        self._free(asset)
        return -1

    def _free(self, asset: Asset) -> None:
        """One segment a turn: removing a large file takes milliseconds."""
        if asset.closed or asset.failed or self._engine.healer.gives(asset.assignment.group):
            return
        allowed = self._allowed(asset, asset.snapshot_first)
        if not asset.log.trimmable(allowed):
            return
        asset.log.trim(allowed, 1)
        if asset.group is not None:
            asset.group.trimmed()
        self._engine.after(WAIT_S, partial(self._guarded_free, asset))

    def _guarded_free(self, asset: Asset) -> None:
        try:
            self._free(asset)
        except (jscore.Error, OSError, ValueError) as err:
            self._complain(asset, err)
