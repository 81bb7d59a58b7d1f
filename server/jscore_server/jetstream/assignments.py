"""The meta group's snapshot: all assignments in one file, so that its log lets go of the entries that made them.

The same file as a stream's (docs/format.md#snapshot), with another body; each server writes its own, from what it has
applied, and whoever lacks what is gone takes another's by the way of a repair (`heal`). Source: spec/raft.md R-30 to
R-32, clustering.md §3.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import jscore
from jscore_server.jetstream.meta import MetaError, MetaSnapshot, decode_snapshot, encode_snapshot
from jscore_server.raft import Members, members_from_json, members_to_json

if TYPE_CHECKING:
    from jscore import RecordLog
    from jscore_server.jetstream.engine import JetStream

LOOK_S = 1.0
WAIT_S = 0.01
WORTH_BYTES = 1 << 20  # of entries, and so many times the last snapshot, before there is another one
TIMES = 2
RETAIN_BYTES = 16 << 20  # kept for servers that are behind
HEAD_BYTES = 64
SNAPSHOT_MAX = 1 << 30


class Assignments:
    """Snapshots of one server's meta log, from its opening on."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine
        self._writer: ThreadPoolExecutor | None = None
        self._written: Future[int] | None = None
        self._first = 0  # records below it are not needed, with the snapshot that is on the disk
        self._size = 0
        self._at = 0
        self.floor = 0  # the record that the snapshot stands for which the state began with
        self.base: Members | None = None
        self.taken_ns = 0  # when this process last took one

    def start(self) -> None:
        self._engine.after(LOOK_S, self._look)

    def stop(self) -> None:
        self.release()
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None

    def release(self) -> None:
        """Nothing is written any more when this returns; waits for the disk where it must."""
        written, self._written = self._written, None
        if written is not None:
            written.exception()

    # ---- reading ----

    def open(self, path: str) -> tuple[RecordLog, MetaSnapshot | None, str]:
        """The meta log, what is beside it, and why that is no use although it should be. Raises: OSError, jscore.Error.

        `floor` and `base` are those of the snapshot from now on.
        """
        self.release()
        self.floor, self.base, self._first, self._size = 0, None, 0, 0
        store = self._engine.store
        data, why = b"", "its snapshot is missing"
        try:
            data, hurt = store.read_snapshot(path)
            if hurt:
                self._engine.lines.warn(f"{path}: one of the two copies of the snapshot is damaged")
        except jscore.NotFound:
            pass
        except (jscore.Corrupt, jscore.FormatError) as err:
            why = f"its snapshot is damaged: {err}"
        keep = jscore.snapshot_head(data).first if data else 0
        log = store.open(path, keep=keep)
        snapshot = None
        if data:
            try:
                snapshot = self._fit(data, log)
            except (MetaError, ValueError, jscore.Error) as err:
                why = f"its snapshot is of no use: {err}"
        return log, snapshot, why if snapshot is None and (data or log.first > 1) else ""

    def _fit(self, data: bytes, log: RecordLog) -> MetaSnapshot:
        head = jscore.snapshot_head(data)
        if len(data) > SNAPSHOT_MAX:
            raise MetaError(f"{len(data)} bytes")
        if head.first < log.first or head.index > log.last or log.term(head.index) != head.term:
            raise MetaError(f"it is of record {head.index}, the log has {log.first} to {log.last}")
        newest = self._engine.raft.protocol.newest
        snapshot = decode_snapshot(memoryview(data)[HEAD_BYTES:], newest)
        self.base = members_from_json(snapshot.members_index, snapshot.members.encode(), newest)
        self.floor, self._first, self._size = head.index, head.first, len(data)
        return snapshot

    # ---- writing ----

    def _look(self) -> None:
        wait = LOOK_S
        try:
            if self._written is not None:
                wait = self._finish()
            elif self._take():
                wait = WAIT_S
        except (jscore.Error, OSError) as err:
            self._engine.lines.warn(f"the meta log keeps what it no longer needs: {err}")
        self._engine.after(wait, self._look)

    def _take(self) -> bool:
        """Begins a snapshot, if it is worth it."""
        engine = self._engine
        log, group, index = engine.meta_log, engine.meta, engine.state.applied
        if log is None or group is None or engine.meta_failed or log.error or engine.healer.gives(group.id):
            return False
        if self._first and self._free(log):
            return False
        worth = max(WORTH_BYTES, TIMES * self._size)
        if log.trimmable(index) * 2 < worth:
            if log.open_bytes(log.last + 1) * 2 >= worth:
                log.submit()
                log.roll()  # whole segments go, so the next snapshot is of a record in another one
            return False
        members = group.committed_config(index)
        if members is None or log.synced < index or group.commit < index:
            return False  # what it stands for is on the disk first
        version = engine.raft.understood(engine.meta_members())
        snapshot = engine.state.snapshot(members.index, members_to_json(members, version), version)
        head = index, index, log.term(index), log.term(index - 1)
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "assignments")
        store, path = engine.store, log.path

        def write() -> int:
            data = jscore.snapshot_file(*head, encode_snapshot(snapshot))
            store.write_snapshot(path, data)
            return len(data)

        self._first = 0
        self._at = index
        self.taken_ns = engine.clock()
        self._written = self._writer.submit(write)
        return True

    def _finish(self) -> float:
        written, log = self._written, self._engine.meta_log
        if written is None or not written.done():
            return WAIT_S
        self._written = None
        self._size = written.result()
        self._first = self._at
        if log is not None:
            self._free(log)
        return LOOK_S

    def _free(self, log: RecordLog) -> bool:
        """Lets go of what is before the snapshot. What a server that can be reached lacks is kept, within bounds."""
        group, keep = self._engine.meta, self._first
        if group is None or self._engine.healer.gives(group.id):
            return False
        if log.trimmable(keep) <= RETAIN_BYTES:
            keep = min(keep, group.needed_from())
        if not log.trimmable(keep):
            return False
        log.trim(keep, 1)
        group.trimmed()
        return True
