"""What a stream and its consumers are to make of their records: the rules once more, apart from csrc/stream.

Written from what they promise, with lists and dicts where C has rings and tables: an oracle of the same code would have
the same bugs. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jscore

from .model import Violation

KIND_MOVED = 12
DELIVER, REDELIVER, ACK, ACK_ALL, DROP, NONE = range(1, 7)
TIMED = DELIVER, REDELIVER, NONE


class Said(NamedTuple):
    """A record without its place: what every replica's log must hold alike."""

    kind: int
    ts: int
    subject: bytes
    headers: bytes
    data: bytes


class Verdict(NamedTuple):
    """What became of a published message: its sequence or that of its first copy, or the error it was refused with."""

    seq: int
    duplicate: bool = False
    error: int = 0


@dataclass(slots=True)
class Kept:
    said: Said
    index: int
    size: int


class Pending(NamedTuple):
    seq: int
    consumer_seq: int
    count: int
    ts: int


@dataclass(slots=True)
class Follows:
    """A consumer. `ring`: what was delivered above the ack floor, None in place of what is done with."""

    id: int
    name: str
    policy: str
    filter: str
    ring: dict[int, tuple[int, Pending | None]] = field(default_factory=dict)  # seq: (consumer seq, it)
    delivered: int = 0
    delivered_consumer: int = 0
    floor: int = 0
    floor_consumer: int = 0
    delivered_ns: int = 0
    ack_ns: int = 0
    chosen: frozenset[int] = frozenset()  # last_per_subject: of what there was at its creation it wants these
    upto: int = 0

    def pending(self) -> list[Pending]:
        return [p for _, p in self.ring.values() if p is not None]

    def done(self, seq: int) -> bool:
        """It waits for no acknowledgement any more."""
        found = self.ring.get(seq)
        if found is None or found[1] is None:
            return False
        self.ring[seq] = found[0], None
        self.settle()
        return True

    def settle(self) -> None:
        """The ack floor goes up to what is done with, and to the end where nothing is open."""
        for seq in list(self.ring):
            consumer_seq, open_ = self.ring[seq]
            if open_ is not None:
                return
            self.floor, self.floor_consumer = seq, consumer_seq
            del self.ring[seq]
        self.floor, self.floor_consumer = self.delivered, self.delivered_consumer

    def deliver(self, seq: int, ts: int, live: bool) -> None:
        self.delivered_consumer += 1
        self.delivered_ns = ts
        if seq > self.delivered:
            self.delivered = seq
            if live:
                self.ring[seq] = self.delivered_consumer, Pending(seq, self.delivered_consumer, 1, ts)
        self.settle()

    def below(self, first: int) -> None:
        """Nothing below `first` is there any more."""
        for seq in [q for q in self.ring if q < first]:
            self.done(seq)
        self.settle()
        self.delivered = max(self.delivered, first - 1)
        if self.pending():
            self.floor = max(self.floor, first - 1)
        self.settle()

    def print(self) -> tuple[Any, ...]:
        return (self.id, self.delivered, self.delivered_consumer, self.floor, self.floor_consumer, self.delivered_ns,
                self.ack_ns, tuple(self.pending()))  # fmt: skip

    def marks(self) -> tuple[int, ...]:
        """What may only rise."""
        return self.delivered, self.delivered_consumer, self.floor, self.floor_consumer, self.ack_ns


class Rules:
    """One stream's state. `verdicts`: by the index of the message's record; `stored`: whatever had that sequence."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.version = -1
        self.messages: dict[int, Kept] = {}
        self.first = self.last = 0
        self.last_ts = 0
        self.last_id = b""  # of the last message that was stored
        self.seen: list[tuple[bytes, int, int, int]] = []  # (id, record, sequence, time)
        self.consumers: dict[int, Follows] = {}
        self.verdicts: dict[int, Verdict] = {}
        self.stored: dict[int, Said] = {}

    def limit(self, name: str) -> int:
        """A limit of the configuration, 0: there is none."""
        return max(int(self.config.get(name, 0)), 0)

    def size(self) -> int:
        return sum(m.size for m in self.messages.values())

    def of(self, subject: bytes) -> list[int]:
        return [seq for seq, m in self.messages.items() if m.said.subject == subject]

    # ---- records ----

    def apply(self, index: int, data: Any) -> None:
        if not isinstance(data, Said):
            return
        before = {c.id: (c.marks(), {p.seq: p.count for p in c.pending()}) for c in self.consumers.values()}
        last = self.last
        kind = data.kind
        if kind == jscore.KIND_CONFIG:
            self.configure(json.loads(data.data))
        elif kind == jscore.KIND_CONSUMER_CREATE:
            self.create(index, json.loads(data.data))
        elif kind == jscore.KIND_CONSUMER_DELETE:
            self.drop(json.loads(data.data)["id"])
        else:
            window = self.limit("duplicate_window")
            if window:
                self.seen = [s for s in self.seen if s[3] >= data.ts - window]
            if kind == jscore.KIND_MESSAGE:
                self.verdicts[index] = self.publish(index, data)
            elif kind == jscore.KIND_DELETE:
                self.remove(int.from_bytes(data.data[1:9], "little"))
            elif kind == jscore.KIND_PURGE:
                self.purge(data.data)
            elif kind == jscore.KIND_CONSUMER_STATE:
                self.progress(data)
            elif kind == KIND_MOVED:
                self.move(index, data)
        if self.last < last:
            raise Violation(f"5: the last sequence goes back from {last} to {self.last} at {index}")
        for c in self.consumers.values():
            marks, counts = before.get(c.id, ((), {}))
            if any(now < was for now, was in zip(c.marks(), marks, strict=False)):
                raise Violation(f"5: {c.name} goes back from {marks} to {c.marks()} at {index}")
            for p in c.pending():
                if p.count < counts.get(p.seq, 0) or (marks and p.seq <= marks[0] and p.seq not in counts):
                    raise Violation(f"5: {c.name} has {p} pending at {index}, it had {counts}")

    def configure(self, record: dict[str, Any]) -> None:
        if record["version"] <= self.version:
            return
        self.version, self.config = record["version"], record["config"]
        if not self.limit("duplicate_window"):
            self.seen = []
        for subject in {m.said.subject for m in self.messages.values()}:
            self.bound_subject(subject)
        self.bound()

    def publish(self, index: int, said: Said) -> Verdict:
        headers = dict(line.split(b": ", 1) for line in said.headers.split(b"\r\n") if b": " in line)
        msg_id = headers.get(b"Nats-Msg-Id", b"")
        expected = headers.get(b"Nats-Expected-Last-Subject-Sequence")
        if expected is not None and int(expected) != max(self.of(said.subject), default=0):
            return Verdict(0, error=10071)
        expected = headers.get(b"Nats-Expected-Last-Sequence")
        if expected is not None and int(expected) != self.last:
            return Verdict(0, error=10071)
        if msg_id and self.limit("duplicate_window"):
            for known, _, seq, _ in self.seen:
                if known == msg_id:
                    return Verdict(seq, duplicate=True)
        expected = headers.get(b"Nats-Expected-Last-Msg-Id")
        if expected is not None and expected != self.last_id:
            return Verdict(0, error=10070)
        rollup = headers.get(b"Nats-Rollup")
        if rollup and not self.config.get("allow_rollup_hdrs"):
            return Verdict(0, error=10111)
        most = self.config.get("max_msg_size", -1)
        if most >= 0 and len(said.headers) + len(said.data) > most:
            return Verdict(0, error=10054)
        size = len(said.subject) + len(said.headers) + len(said.data) + 30 + (4 if said.headers else 0)
        same = self.of(said.subject)
        each = self.limit("max_msgs_per_subject")
        if self.config.get("discard") == "new":
            full = each and len(same) >= each
            if full and self.config.get("discard_new_per_subject") and rollup != b"sub":
                return Verdict(0, error=10077)
            gone, freed = (1, self.messages[same[0]].size) if full else (0, 0)
            for limit, then in (
                ("max_msgs", len(self.messages) + 1 - gone),
                ("max_bytes", self.size() + size - freed),
            ):
                if self.limit(limit) and then > self.limit(limit):
                    return Verdict(0, error=10077)
        seq = self.last = self.last + 1
        self.first = self.first or 1
        self.last_ts, self.last_id = said.ts, msg_id
        self.messages[seq] = Kept(said, index, size)
        self.stored[seq] = said
        if self.config["retention"] == "interest" and not any(self.wants(c, seq) for c in self.consumers.values()):
            self.remove(seq)
        else:
            for old in self.of(said.subject) if rollup == b"sub" else list(self.messages) if rollup else ():
                if old < seq:
                    self.remove(old)
            if each:
                self.bound_subject(said.subject)
            self.bound()
        if msg_id and self.limit("duplicate_window"):
            self.seen.append((msg_id, index, seq, said.ts))
        return Verdict(seq)

    def move(self, index: int, said: Said) -> None:
        kept = self.messages.get(int.from_bytes(said.data[-8:], "little"))
        if kept is not None and kept.index < index and kept.said.subject == said.subject:
            for at, (msg_id, was, seq, ts) in enumerate(self.seen):
                assert was != index, (at, msg_id, seq, ts)
            kept.index = index

    # ---- what goes ----

    def remove(self, seq: int) -> None:
        if self.messages.pop(seq, None) is not None and seq == self.first:
            self.first = min(self.messages, default=self.last + 1)

    def bound_subject(self, subject: bytes) -> None:
        each = self.limit("max_msgs_per_subject")
        for seq in self.of(subject)[: -each or None] if each else ():
            self.remove(seq)

    def bound(self) -> None:
        if self.config.get("discard") == "new":
            return
        count, size = self.limit("max_msgs"), self.limit("max_bytes")
        while self.messages and ((count and len(self.messages) > count) or (size and self.size() > size)):
            self.remove(self.first)

    def purge(self, body: bytes) -> None:
        if body[1] == 2:
            below = int.from_bytes(body[2:10], "little")
            while self.messages and self.first < below:
                self.remove(self.first)
            return
        seq, keep = int.from_bytes(body[2:10], "little"), int.from_bytes(body[10:18], "little")
        pattern = body[20:].decode()
        everything = pattern in ("", ">")
        of_it = [q for q, m in self.messages.items() if everything or matches(pattern, m.said.subject)]
        going = [q for q in of_it if not seq or q < seq]
        if keep:
            if len(of_it) < keep:
                return
            going = [q for q in going if q < of_it[-keep]]
        for q in going:
            del self.messages[q]
        if everything and not keep and seq > self.last + 1:
            self.last, self.first = seq - 1, seq
        self.first = min(self.messages, default=self.last + 1)
        if going or everything:
            for c in self.consumers.values():
                c.below(self.first)
                for p in c.pending():
                    if p.seq not in self.messages:
                        c.done(p.seq)

    # ---- consumers ----

    def create(self, index: int, record: dict[str, Any]) -> None:
        if any(c.name == record["name"] for c in self.consumers.values()):
            return
        config = record["config"]
        c = Follows(index, record["name"], config.get("ack_policy", "none"), config.get("filter_subject", ""))
        first = self.first or 1
        match config.get("deliver_policy", "all"):
            case "all":
                start = first
            case "new":
                start = self.last + 1
            case "by_start_sequence":
                start = max(config["opt_start_seq"], first)
            case "last":
                start = max((q for q in self.messages if self.wants(c, q)), default=self.last + 1)
            case "last_per_subject":
                lasts = {m.said.subject: q for q, m in self.messages.items() if self.wants(c, q)}
                c.chosen, c.upto = frozenset(lasts.values()), self.last
                start = min(c.chosen, default=self.last + 1)
            case other:
                raise AssertionError(other)
        c.delivered = c.floor = start - 1
        self.consumers[index] = c

    def drop(self, number: int) -> None:
        if self.consumers.pop(number, None) is not None and self.config["retention"] == "interest":
            for seq in list(self.messages):
                if not self.needed(seq):
                    self.remove(seq)

    def wants(self, c: Follows, seq: int) -> bool:
        matched = not c.filter or matches(c.filter, self.messages[seq].said.subject)
        return matched and (seq > c.upto or seq in c.chosen)

    def needed(self, seq: int) -> bool:
        """Whether somebody still has to see it, or to acknowledge it."""
        return any(
            (seq > c.delivered and self.wants(c, seq)) or any(p.seq == seq for p in c.pending())
            for c in self.consumers.values()
        )

    def waits(self, c: Follows) -> int:
        """How many messages it has still to deliver."""
        return sum(1 for seq in self.messages if seq > c.delivered and self.wants(c, seq))

    def acked(self, seq: int) -> None:
        retention = self.config["retention"]
        if seq in self.messages and (
            retention == "workqueue" or (retention == "interest" and not self.needed(seq))
        ):  # fmt: skip
            self.remove(seq)

    def progress(self, said: Said) -> None:
        numbers = varints(said.data[1:])
        c = self.consumers.get(next(numbers))
        for op in numbers:
            seq, n = next(numbers), next(numbers)
            ts = next(numbers) if op in TIMED else 0
            if c is not None:
                self.operation(c, op, seq, n, ts, said.ts)

    def operation(self, c: Follows, op: int, seq: int, n: int, ts: int, now: int) -> None:
        if op == NONE:
            passed = [q for q in self.messages if c.delivered < q <= seq and self.wants(c, q)]
            c.delivered = max(c.delivered, seq)
            c.delivered_consumer += n
            c.delivered_ns = ts
            if not c.pending():
                c.settle()
            for q in passed if n else ():
                self.acked(q)
            return
        if op == ACK_ALL:
            c.ack_ns = now
            for p in c.pending():
                if p.seq <= seq and c.done(p.seq):
                    self.acked(p.seq)
            return
        for q in range(seq, seq + n):
            if op == DELIVER:
                c.deliver(q, ts, q in self.messages)
            elif op == REDELIVER:
                c.delivered_consumer += 1
                consumer_seq, p = c.ring.get(q, (0, None))
                if p is not None:
                    c.delivered_ns = ts
                    c.ring[q] = consumer_seq, p._replace(count=p.count + 1, ts=ts)
            elif op == ACK:
                c.ack_ns = now
                if c.done(q):
                    self.acked(q)
            elif op == DROP:
                c.done(q)

    # ---- what is compared ----

    def print(self) -> tuple[Any, ...]:
        kept = self.messages
        first_ts = kept[self.first].said.ts if kept else 0
        counts: dict[str, int] = {}
        for m in kept.values():
            counts[m.said.subject.decode()] = counts.get(m.said.subject.decode(), 0) + 1
        gaps = self.last - self.first + 1 - len(kept) if kept else 0
        return (
            (len(kept), self.size(), self.first, self.last, len(counts), gaps, first_ts, self.last_ts),
            counts,
            tuple((c.id, self.waits(c)) for c in self.consumers.values()),
            (
                tuple(c.print() for c in self.consumers.values()),
                tuple((index, seq) for _, index, seq, _ in self.seen),
                tuple((seq, m.index) for seq, m in kept.items()),
            ),
        )


def matches(pattern: str, subject: bytes) -> bool:
    words, parts = pattern.split("."), subject.decode().split(".")
    if words[-1] == ">":
        return len(parts) >= len(words) and all(w in ("*", p) for w, p in zip(words[:-1], parts, strict=False))
    return len(words) == len(parts) and all(w in ("*", p) for w, p in zip(words, parts, strict=True))


def varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0
