"""One simulated server's part of a stream: production's Asset over the C stream, on the log that Raft writes.

The data plane beside it has no connections and no loop. Its clocks are told; its turn is taken when the simulator says
so. Clients speak through its subscriptions, as those of a server do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from jscore_server.dataplane import Plane
from jscore_server.dataplane._plane import Msg, snapshot_host
from jscore_server.jetstream.asset import Asset
from jscore_server.jetstream.meta import Assignment
from jscore_server.raft.core import Members, NotLeader
from jscore_server.raft.members import members_from_json, members_to_json

import jscore

from .engine import RECORD_CAP, EngineLog
from .model import NOOP_DATA, Node, Violation
from .rules import Pending, Said, varints

ACCOUNT = "A"
STREAM = "S"
EPOCH_NS = 1_700_000_000_000_000_000


class StreamLog(EngineLog):
    """A Raft log whose records the stream frames itself while it leads: `adopt` tells the model of them."""

    def append(self, term: int, data: Any) -> int:
        if isinstance(data, Members):
            index = self.real.append(jscore.KIND_MEMBERS, members_to_json(data), term=term)
        else:
            index = self.real.append(jscore.KIND_NOOP, term=term)
        self.adopt()
        return index

    def adopt(self) -> int:
        """How many records came."""
        first = self.last + 1
        for index in range(first, self.real.last + 1):
            term, data = self.found(index)
            self.raw[index, term] = self.real.copy(index, index, RECORD_CAP)[0]
            self.terms.append(term)
            self.data.append(data)
        return self.last + 1 - first

    def found(self, index: int) -> tuple[int, Any]:
        record = self.real.read(index)
        data: Any = Said(record.kind, record.ts, record.subject, record.headers, record.data)
        if record.kind == jscore.KIND_MEMBERS:
            data = members_from_json(0, record.data)
        elif record.kind == jscore.KIND_NOOP:
            data = NOOP_DATA
        return record.term, data

    def draft(self, first: int, before: int) -> StreamLog:
        self.platter.drafts += 1
        return StreamLog(self.name, self.platter, self.raw, f"/log.{self.platter.drafts}", first, before)


class Anything:
    """Equal to whatever it is compared with: what cannot be looked at just now."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


ANYTHING = Anything()


class GroupPart:
    """What Asset asks its Raft group."""

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def is_leader(self) -> bool:
        return self.node.core is not None and self.node.core.led

    def committed_config(self, upto: int) -> Members | None:
        assert self.node.core is not None
        known = [c for c in self.node.core.hard.members if c.index <= upto]
        return known[-1] if known else None

    def set_members(self, peers: list[str]) -> None:
        """Who takes part is changed by the simulator."""

    def step_down(self) -> None:
        if self.node.core is None:
            raise NotLeader
        self.node.core.resign()

    def drop(self) -> None:
        pass


class Replica:
    """`machine` of a node. What it applies waits until it is looked at, so that it comes in batches, as from a host."""

    def __init__(
        self, node: Node, assignment: Assignment, now: tuple[int, int], heard: Callable[[Node, Msg], None]
    ) -> None:
        self.node = node
        self.upto = 0
        self.snapping = False  # a snapshot is being taken
        self.writing = False  # or on its way to the disk
        self.plane = Plane()
        self.plane.tell_time(*now)
        self.plane.attach_store(node.log.platter.store)  # type: ignore[attr-defined]
        raft: Any = SimpleNamespace(
            name=node.name, protocol=SimpleNamespace(newest=1 << 30), remembers=lambda group: True
        )
        self.asset = Asset(
            assignment, 1, node.log.real,  # type: ignore[attr-defined]
            plane=self.plane, raft=raft, on_ready=lambda asset: None, on_damage=self.broken, on_behind=self.broken,
            on_differs=self.broken, lines=self,
        )  # fmt: skip
        self.asset.group = GroupPart(node)  # type: ignore[assignment]
        self.subscription = self.plane.subscribe(ACCOUNT, "_INBOX.>", lambda msg: heard(node, msg))

    def close(self) -> None:
        """The process is gone: nobody hears anything of it any more."""
        self.subscription.close()
        self.asset.stream.close()
        self.plane.close()

    def restore(self, snapshot: bytes | None) -> str:
        """Takes a snapshot over; returns why not."""
        return self.asset._restore(snapshot)

    def reassign(self, assignment: Assignment) -> None:
        """The meta group decided on another configuration."""
        self.asset.reassign(assignment)

    # ---- what Asset says ----

    def info(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def error(self, text: str) -> None:
        pass

    def broken(self, asset: Asset, why: Any) -> None:
        raise Violation(f"5: {self.node.name} cannot apply: {why}")

    # ---- a state machine ----

    def apply(self, index: int, data: Any) -> None:
        self.upto = index

    def advance(self) -> None:
        if self.upto > self.asset.stream.applied:
            self.asset.advance(self.upto)
            if self.asset.failed:
                raise Violation(f"5: {self.node.name} fails: {self.asset.failed}")
            if self.asset.stream.applied != self.upto:
                raise Violation(f"5: {self.node.name} stops at {self.asset.stream.applied} of {self.upto}")

    def print(self) -> Any:
        """As Rules.print. A leader counts what is left to deliver from where it delivers, not from what is applied."""
        self.advance()
        stream, leads = self.asset.stream, self.asset.leading
        waits = tuple(
            (r.id, ANYTHING if leads else r.handle.state().num_pending) for r in self.asset.consumers.values()
        )
        return tuple(stream.state()), stream.subject_counts(), waits, self.whole()

    def whole(self) -> Any:
        """Consumers, the duplicate window and the places of messages, read from a snapshot of this moment."""
        stream = self.asset.stream
        if self.snapping or stream.applied < max(self.asset.log.first, 1):
            return ANYTHING
        stream.snapshot_begin(b"")
        try:
            while not stream.snapshot_step():
                pass
            return parse(stream.snapshot_file()[0])
        finally:
            stream.snapshot_end()

    def messages(self) -> dict[int, tuple[str, bytes, bytes, int]]:
        stream = self.asset.stream
        state = stream.state()
        found = [stream.get(seq) for seq in range(max(state.first_seq, 1), state.last_seq + 1)]
        return {m.seq: (m.subject, m.headers, m.data, m.ts) for m in found if m is not None}

    def snapshot(self) -> tuple[bytes, int] | None:
        """The one that was begun; None: too much went meanwhile."""
        self.snapping = False
        stream = self.asset.stream
        with contextlib.suppress(ValueError):
            while not stream.snapshot_step():
                pass
            data, index, _ = stream.snapshot_file()
            stream.snapshot_end()
            return data, index
        stream.snapshot_end()
        return None


def parse(file: bytes) -> Any:
    """What a snapshot says (csrc/stream/snapshot.c), in the form of Rules.print."""
    numbers = varints(file[64:])
    assert snapshot_host(file) == b""
    for _ in range(8):
        next(numbers)
    consumers = []
    for _ in range(next(numbers)):
        number, delivered, consumer_delivered, floor, consumer_floor, at, acked, _, chosen = (
            next(numbers) for _ in range(9)
        )
        for _ in range(chosen):
            next(numbers)
        pending, seq = [], 0
        for _ in range(next(numbers)):
            seq += next(numbers)
            consumer_seq, count = next(numbers), next(numbers)
            if count & 1:
                pending.append(Pending(seq, consumer_seq, count >> 1, next(numbers)))
        consumers.append(
            (number, delivered, consumer_delivered, floor, consumer_floor, at, acked, tuple(pending))
        )  # fmt: skip
    seen, index, seq = [], 0, 0
    for _ in range(next(numbers)):
        index, seq = index + next(numbers), seq + next(numbers)
        seen.append((index, seq))
    kept, index, seq = [], 0, 0
    while True:
        steps, leap, length = next(numbers), next(numbers), next(numbers)
        if not (steps or leap or length):
            return tuple(consumers), tuple(seen), tuple(kept)
        if not length:
            steps, length = -steps, next(numbers)
        index, seq = index + steps, seq + leap
        kept += [(seq + i, index + i) for i in range(length)]
        index, seq = index + length, seq + length
