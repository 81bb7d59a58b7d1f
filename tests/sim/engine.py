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

from .model import ModelLog, Node, Violation
from .simulator import Simulator

SEGMENT_BYTES = 8192  # rotates every hundred records or so
RECORD_CAP = 65536


class EngineLog(ModelLog):
    """ModelLog's interface, each call also carried out by the engine. `raw` holds every record's bytes, as links do."""

    __slots__ = ("disk", "hard", "name", "raw", "real", "store")

    def __init__(self, name: str, seed: int, raw: dict[tuple[int, int], bytes]) -> None:
        super().__init__()
        self.name = name
        self.raw = raw
        self.disk = SimDisk(seed)
        self.open()

    def open(self) -> None:
        self.store = jscore.Store(disk=self.disk)
        self.real = self.store.open("/log", segment_bytes=SEGMENT_BYTES)
        self.hard = self.store.open("/hard", segment_bytes=SEGMENT_BYTES)

    @property
    def known_commit(self) -> int:
        return int(self.real.recovery.commit)

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
        self.store.poll()
        super().sync(upto)

    def sync_hard(self, states: list[HardState]) -> None:
        for hard in states:
            self.hard.append(jscore.KIND_HOST, hard_to_json(hard))
        self.hard.submit()
        self.hard.wait(self.hard.last, 10)
        self.store.poll()

    def power_cut(self, rng: Any, pending: list[HardState]) -> None:
        """The host dies, in half of the cases between the write and the sync of what it had not synced."""
        if rng.random() < 0.5:
            for hard in pending:
                self.hard.append(jscore.KIND_HOST, hard_to_json(hard))
            for log in (self.real, self.hard):
                self.disk.fail("s", 1, errno.EIO)
                with contextlib.suppress(OSError, jscore.Error):
                    log.submit()
                    log.wait(log.last, 10)
                self.disk.fail("s", 1, 0)
        self.real.abandon()
        self.hard.abandon()
        self.store.close()
        self.disk.crash(rng.choice((0, 30, 70, 100)), rng.random() < 0.5)
        self.open()
        self.compare()

    def compare(self) -> None:
        """What recovery found against what was written and synced; it is the truth from here on."""
        real, name = self.real, self.name
        for log in (real, self.hard):
            if log.recovery.damaged_index:
                raise Violation(f"20: {name}: a power cut passes for damage: {log.recovery}")
        if not self.durable <= real.last <= self.last:
            raise Violation(f"7: {name} had {self.durable} synced of {self.last} records, recovery found {real.last}")
        for index in range(1, real.last + 1):
            record = real.read(index)
            data: Any = record.data.decode()
            if record.kind == jscore.KIND_MEMBERS:
                data = members_from_json(0, record.data)
            if (record.term, data) != (self.terms[index], self.data[index]):
                raise Violation(f"4: {name}: record {index} is another one after the crash: {record}")
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
        self.store.close()


def hard_to_json(hard: HardState) -> bytes:
    return json.dumps(hard_to_body("g", hard)).encode()


def hard_from_json(data: bytes) -> HardState:
    return hard_from_body(json.loads(data))


class EngineSimulator(Simulator):
    """The same histories over EngineLog. `close` ends the sync threads."""

    def __init__(self, seed: int, **options: Any) -> None:
        self.raw: dict[tuple[int, int], bytes] = {}
        self.logs: list[EngineLog] = []
        options.setdefault("duration", 6_000)
        super().__init__(seed, make_log=self.make_engine_log, **options)
        self.rates["loss"] = 0  # what the engine makes of damage is for its own tests

    def make_engine_log(self, name: str) -> EngineLog:
        log = EngineLog(name, self.seed * 16 + len(self.logs) + 1, self.raw)
        self.logs.append(log)
        return log

    def crash(self, name: str) -> None:
        node = self.nodes[name]
        if node.core is None:
            return
        node.core = None
        node.life += 1
        node.held.clear()
        node.backlog.clear()
        node.paused = 0
        states = [node.durable_hard, *(hard for _, hard in node.pending_hard)]
        log: EngineLog = node.log  # type: ignore[assignment]
        log.power_cut(self.rng, states[1:])
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

    def committed(self, node: Node, commit: int) -> None:
        super().committed(node, commit)
        node.log.real.set_commit(commit)  # type: ignore[attr-defined]

    def close(self) -> None:
        for log in self.logs:
            log.close()


def run_engine_seed(seed: int, **options: Any) -> EngineSimulator:
    """Runs one seed to its end. Raises Violation."""
    sim = EngineSimulator(seed, **options)
    try:
        sim.run()
    finally:
        sim.close()
    return sim
