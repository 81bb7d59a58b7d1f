"""The simulator over the real log engine: every host has a jscore.Store with its log and its hard states on a SimDisk.

The records are framed, written, synced, cut and recovered by csrc/log; a crash is SimDisk.crash after the process's
handles are abandoned, and what the host then reads is what recovery found. Beside each real log stands the model's, as
the oracle: what was synced must be there, what is there must be what was written, what was cut must stay away.

Deterministic: all that is decided, sent and asked, and when a host waits for a sync: a batch is submitted and waited
for within one event, so at every other event the store's sync thread has nothing to do. Which pages a power cut takes
is the disk's seed. A crash in the midst of a batch is made by failing the sync after the write, then cutting the power.
Not deterministic: the order in which the sync thread and this one call the disk within that one event, and what the
thread does for itself afterwards (it may prepare the next segment). No invariant depends on it, but a trace can.
"""

from __future__ import annotations

import contextlib
import errno
import json
from typing import Any

from jscore_server.raft.host import hard_from_body, hard_to_body
from jscore_server.raft.members import HardState, Members, members_from_json, members_to_json

import jscore
from jscore._records import SimDisk

from .model import COPIED, ModelLog, Node, Violation
from .simulator import Simulator

SEGMENT_BYTES = 8192  # rotates every hundred records or so
RECORD_CAP = 65536


class Platter:
    """The disk of one host, the store on it and its hard states: what outlives a log that another one replaces."""

    def __init__(self, seed: int) -> None:
        self.disk = SimDisk(seed)
        self.drafts = 0
        self.open()

    def open(self) -> None:
        self.store = jscore.Store(disk=self.disk)
        self.hard = self.store.open("/hard", segment_bytes=SEGMENT_BYTES)


class EngineLog(ModelLog):
    """ModelLog's interface, each call also carried out by the engine. `raw` holds every record's bytes, as links do."""

    __slots__ = ("name", "path", "platter", "raw", "real")

    def __init__(
        self, name: str, platter: Platter, raw: dict[tuple[int, int], bytes], path: str = "/log", first: int = 1,
        before: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(first, before)
        self.name = name
        self.raw = raw
        self.platter = platter
        self.path = path
        self.real = platter.store.open(path, segment_bytes=SEGMENT_BYTES, first_index=first, first_term=before)

    @property
    def known_commit(self) -> int:
        return int(self.real.recovery.commit)

    @known_commit.setter
    def known_commit(self, index: int) -> None:
        pass

    @property
    def hard(self) -> jscore.RecordLog:
        return self.platter.hard

    def reopen(self) -> None:
        """As a process does that finds what is on the disk."""
        keep = 0
        with contextlib.suppress(jscore.NotFound, jscore.Corrupt):
            keep = jscore.snapshot_head(self.read_snapshot()).first
        self.real = self.platter.store.open(self.path, segment_bytes=SEGMENT_BYTES, keep=keep)

    # ---- letting go of a start, and beginning anew ----

    def roll(self) -> None:
        """What comes next is in another file."""
        self.real.submit()
        self.real.wait(self.real.last, 10)
        self.real.roll()
        self.real.wait(self.real.last, 10)

    def trim(self, keep: int) -> None:
        self.roll()
        self.platter.store.poll()
        self.real.trim(min(keep, self.last))
        self.forget(self.real.first)

    def write_snapshot(self, data: bytes) -> None:
        self.platter.store.write_snapshot(self.path, data)

    def read_snapshot(self) -> bytes:
        return self.platter.store.read_snapshot(self.path)[0]

    def hurt_snapshot(self) -> None:
        self.hurt = True
        for copy in ("snapshot", "snapshot.copy"):
            self.platter.disk.flip(f"{self.path}/{copy}", 70, 1)

    def copy(self, lo: int, hi: int, cap: int) -> tuple[Any, int]:
        return self.real.copy(lo, min(hi, self.last, lo + COPIED - 1), RECORD_CAP)

    @staticmethod
    def scan(raw: Any) -> list[tuple[int, int, int]]:
        return jscore.scan_records(raw)

    def append_raw(self, raw: Any, from_index: int) -> None:
        self.real.append_raw(raw, from_index)
        for index in range(from_index, self.real.last + 1):
            term, data = self.found(index)
            self.terms.append(term)
            self.data.append(data)

    def submit(self) -> None:
        self.real.submit()

    def submit_now(self) -> None:
        self.submit()

    def set_commit(self, index: int) -> None:
        self.real.set_commit(index)

    def draft(self, first: int, before: int) -> EngineLog:
        self.platter.drafts += 1
        return EngineLog(self.name, self.platter, self.raw, f"/log.{self.platter.drafts}", first, before)

    def drop(self) -> None:
        self.real.abandon()

    def settle(self, old: Any) -> None:
        self.real.close()
        old.real.abandon()
        self.reopen()
        self.compare_first()
        self.durable = self.last
        self.compare()

    def append(self, term: int, data: Any) -> int:
        if isinstance(data, Members):
            index = self.real.append(jscore.KIND_MEMBERS, members_to_json(data), term=term)
        else:
            index = self.real.append(jscore.KIND_HOST, data.encode(), term=term)
        self.raw[index, term] = self.real.copy(index, index, RECORD_CAP)[0]
        return super().append(term, data)

    def extend(self, terms: list[int], data: list[Any]) -> None:
        lo = self.last + 1
        raw = b"".join(self.raw[lo + i, term] for i, term in enumerate(terms))
        self.real.append_raw(raw, lo)
        super().extend(terms, data)

    def truncate(self, last: int) -> None:
        self.real.truncate(last)
        super().truncate(last)

    def sync(self, upto: int) -> None:
        self.real.submit()
        self.real.wait(min(upto, self.last), 10)
        self.platter.store.poll()
        super().sync(upto)

    def sync_hard(self, states: list[HardState]) -> None:
        for hard in states:
            self.hard.append(jscore.KIND_HOST, hard_to_json(hard))
        self.hard.submit()
        self.hard.wait(self.hard.last, 10)
        self.platter.store.poll()

    def power_cut(self, rng: Any, pending: list[HardState], snapshot: bytes) -> None:
        """The host dies, in half of the cases between the write and the sync of what it had not synced."""
        disk = self.platter.disk
        if rng.random() < 0.5:
            for hard in pending:
                self.hard.append(jscore.KIND_HOST, hard_to_json(hard))
            for log in (self.real, self.hard):
                disk.fail("s", 1, errno.EIO)
                with contextlib.suppress(OSError, jscore.Error):
                    log.submit()
                    log.wait(log.last, 10)
                disk.fail("s", 1, 0)
            if snapshot:
                disk.fail("s", rng.choice((1, 2)), errno.EIO)
                with contextlib.suppress(OSError):
                    self.write_snapshot(snapshot)
                disk.fail("s", 1, 0)
        self.real.abandon()
        self.hard.abandon()
        self.platter.store.close()
        disk.crash(rng.choice((0, 30, 70, 100)), rng.random() < 0.5)
        self.platter.open()
        self.reopen()
        self.compare_first()
        self.compare()

    def found(self, index: int) -> tuple[int, Any]:
        """Term and data of a record as the engine has it."""
        record = self.real.read(index)
        data: Any = record.data.decode()
        if record.kind == jscore.KIND_MEMBERS:
            data = members_from_json(0, record.data)
        return record.term, data

    def compare_first(self) -> None:
        """Segments that were let go of may come back with a power cut, or go only with the next opening."""
        first = self.real.first
        self.forget(min(first, self.last + 1))
        if first < self.first:
            self.terms[first - 1] = self.real.term(first - 1)
            for index in range(first, self.first):
                self.terms[index], self.data[index] = self.found(index)
            self.first = first

    def compare(self) -> None:
        """What recovery found against what was written and synced; it is the truth from here on."""
        real, name = self.real, self.name
        for log in (real, self.hard):
            if log.recovery.damaged_index:
                raise Violation(f"20: {name}: a power cut passes for damage: {log.recovery}")
        if not self.durable <= real.last <= self.last:
            raise Violation(f"7: {name} had {self.durable} synced of {self.last} records, recovery found {real.last}")
        if real.first != self.first or real.term(real.first - 1) != self.terms[self.first - 1]:
            raise Violation(f"14: {name} begins at {real.first} with another term before it than it had")
        for index in range(real.first, real.last + 1):
            if self.found(index) != (self.terms[index], self.data[index]):
                raise Violation(f"4: {name}: record {index} is another one after the crash: {self.found(index)}")
        if real.recovery.commit > real.last:
            raise Violation(f"9: {name} remembers commit {real.recovery.commit} of {real.last} records")
        del self.terms[real.last + 1 :]
        del self.data[real.last + 1 :]
        self.durable = real.last

    def last_hard(self) -> HardState | None:
        return hard_from_json(self.hard.read(self.hard.last).data) if self.hard.last else None

    def close(self) -> None:
        self.real.abandon()
        self.hard.abandon()
        self.platter.store.close()


def hard_to_json(hard: HardState) -> bytes:
    return json.dumps(hard_to_body("g", hard)).encode()


def hard_from_json(data: bytes) -> HardState:
    return hard_from_body(json.loads(data))


class EngineSimulator(Simulator):
    """The same histories over EngineLog. `close` ends the sync threads."""

    def __init__(self, seed: int, **options: Any) -> None:
        self.raw: dict[tuple[int, int], bytes] = {}
        self.hosts = 0
        options.setdefault("duration", 6_000)
        super().__init__(seed, make_log=self.make_engine_log, **options)
        self.rates["loss"] = 0  # what the engine makes of damage is for its own tests

    def make_engine_log(self, name: str) -> EngineLog:
        self.hosts += 1
        return EngineLog(name, Platter(self.seed * 16 + self.hosts), self.raw)

    def crash(self, name: str) -> None:
        node = self.nodes[name]
        if node.core is None and node.repair is None:
            return
        snapshot = node.writing
        self.end_process(node)
        states = [node.durable_hard, *(hard for _, hard in node.pending_hard)]
        log: EngineLog = node.log  # type: ignore[assignment]
        log.power_cut(self.rng, states[1:], snapshot)
        found = log.last_hard()
        if found is not None:
            if found not in states:
                raise Violation(f"8: {name} remembers {found}, its disk had {states[0]}")
            node.durable_hard = found
        elif states[0].term:
            raise Violation(f"8: {name} forgot its term and vote: {states[0]}")
        node.pending_hard.clear()
        self.note(f"{name} crashes, its log ends at {log.last}")
        self.forget_clients(name)

    def hard_synced(self, node: Node, life: int, seq: int) -> None:
        if node.core is not None and node.life == life:
            node.log.sync_hard([hard for s, hard in node.pending_hard if s <= seq])  # type: ignore[attr-defined]
        super().hard_synced(node, life, seq)

    def keep_hard(self, node: Node, hard: HardState) -> None:
        node.log.sync_hard([hard])  # type: ignore[attr-defined]

    def committed(self, node: Node, commit: int) -> None:
        super().committed(node, commit)
        node.log.real.set_commit(commit)  # type: ignore[attr-defined]

    def close(self) -> None:
        for node in self.nodes.values():
            if node.repair is not None:
                node.repair.cancel()
                node.repair = None
            node.log.close()  # type: ignore[attr-defined]


def run_engine_seed(seed: int, **options: Any) -> EngineSimulator:
    """Runs one seed to its end. Raises Violation."""
    sim = EngineSimulator(seed, **options)
    try:
        sim.run()
    finally:
        sim.close()
    return sim
