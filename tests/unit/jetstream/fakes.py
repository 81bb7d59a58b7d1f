"""Stand-ins for what the control plane stands on: logs in memory, a plane that routes between servers, streams that
apply messages by the few rules the tests need, and Raft groups that commit through one shared, orderly history.

They keep the contracts of jscore.RecordLog, dataplane.Plane, dataplane.Stream and raft.RaftHost; nothing is
asynchronous but what `World.settle` hands out, in a fixed order.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
from jscore_server.jetstream.engine import JetStream, Options
from jscore_server.raft import NotLeader, Replica, Role
from jscore_server.version import PROTOCOL

import jscore

HOST_KINDS = {
    jscore.KIND_CONFIG,
    jscore.KIND_MEMBERS,
    jscore.KIND_CONSUMER_CREATE,
    jscore.KIND_CONSUMER_DELETE,
    jscore.KIND_HOST,
}


class Record(NamedTuple):
    index: int
    term: int
    kind: int
    data: bytes
    subject: bytes = b""
    headers: bytes = b""
    ts: int = 0


class FakeLog:
    """A log whose records are durable as soon as they are there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.records: list[Record] = []
        self.first = 1
        self.error = 0
        self.closed = False
        self.recovery = SimpleNamespace(torn_bytes=0, damaged_index=0, commit=0, message="")

    @property
    def last(self) -> int:
        return len(self.records)

    durable = synced = last

    def append(
        self, kind: int, data: bytes = b"", *, subject: bytes = b"", headers: bytes = b"", term: int = 0, ts: int = 0
    ) -> int:
        self.records.append(Record(self.last + 1, term, kind, data, subject, headers, ts))
        return self.last

    def read(self, index: int) -> Record:
        if not 1 <= index <= self.last:
            raise jscore.NotFound(str(index))
        return self.records[index - 1]

    def term(self, index: int) -> int:
        return self.read(index).term

    def truncate(self, last: int) -> None:
        del self.records[last:]

    def submit(self) -> None:
        pass

    def submit_now(self) -> None:
        pass

    def set_commit(self, index: int) -> None:
        pass

    def mark(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    abandon = close


class FakeStore:
    """Logs by path; they outlive the store, as directories outlive a process. `broken` paths cannot be opened."""

    def __init__(self) -> None:
        self.logs: dict[str, FakeLog] = {}
        self.broken: set[str] = set()

    def relax(self) -> None:
        pass

    def read_snapshot(self, path: str) -> tuple[bytes, bool]:
        raise jscore.NotFound(path)

    def open(self, path: str, *, segment_bytes: int = 0, keep: int = 0) -> FakeLog:
        if any(path.startswith(b) for b in self.broken):
            raise OSError(28, "No space left on device")
        Path(path).mkdir(parents=True, exist_ok=True)
        log = self.logs.setdefault(path, FakeLog(path))
        log.closed = False
        return log


class Msg(NamedTuple):
    account: str
    subject: str
    reply: str = ""
    headers: bytes = b""
    data: bytes = b""
    origin: int = 0
    origin_kind: int = 0


def matches(pattern: str, subject: str) -> bool:
    want, have = pattern.split("."), subject.split(".")
    for i, token in enumerate(want):
        if token == ">":
            return len(have) > i
        if i >= len(have) or token not in ("*", have[i]):
            return False
    return len(want) == len(have)


class FakeConsumer:
    def __init__(self, stream: FakeStream, consumer_id: int, name: str, options: dict[str, Any]) -> None:
        self.stream, self.id, self.name, self.options = stream, consumer_id, name, options
        self.closed = False

    def state(self) -> Any:
        assert not self.closed
        return SimpleNamespace(
            delivered_consumer=0,
            delivered_stream=0,
            ack_floor_consumer=0,
            ack_floor_stream=0,
            num_ack_pending=0,
            num_redelivered=0,
            num_waiting=0,
            num_pending=len(self.stream.messages),
            last_delivered_ns=0,
            last_ack_ns=0,
            push_bound=False,
        )

    def close(self) -> None:
        self.closed = True
        self.stream.consumers.pop(self.id, None)


class FakeStream:
    """Applies MESSAGE, PURGE and DELETE records; stops at host records like the real one."""

    def __init__(self, plane: FakePlane, log: FakeLog, stream_id: int, account: str, name: str) -> None:
        self.plane, self.log, self.id, self.account, self.name = plane, log, stream_id, account, name
        self.limits: dict[str, Any] = {}
        self.subjects: list[str] = []
        self.consumers: dict[int, FakeConsumer] = {}
        self.messages: dict[int, Any] = {}
        self.last_seq = 0
        self.applied = 0
        self.committed = 0
        self.term = 0
        self.solo = False
        self.closed = False
        self._replies: dict[int, str] = {}

    def configure(self, **limits: Any) -> None:
        self.limits = limits

    def set_subjects(self, subjects: list[str]) -> None:
        self.subjects = subjects

    def lead(self, term: int) -> None:
        self.term = term

    def shutdown(self) -> None:
        self.follow()

    def follow(self) -> None:
        self.term = 0

    def set_solo(self, on: bool) -> None:
        self.solo = on

    def propose(self, kind: int, data: bytes, *, subject: str = "") -> int:
        assert self.term
        assert not self.closed
        index = self.log.append(kind, data, subject=subject.encode(), term=self.term, ts=self.plane.world.now_ns)
        self.plane.world.later(self._appended)
        return index

    def _appended(self) -> None:
        if self.closed or not self.term:
            return
        engine = self.plane.engine
        if not self.solo:
            engine.stream_appended(self.id, self.log.last)
        elif not self.commit(self.log.last):
            engine.stream_apply(self.id)

    def publish(self, subject: str, data: bytes) -> None:
        self.propose(jscore.KIND_MESSAGE, data, subject=subject)

    def commit(self, index: int) -> bool:
        self.committed = max(self.committed, index)
        while self.applied < self.committed:
            try:
                record = self.log.read(self.applied + 1)
            except jscore.Corrupt:
                if not self.solo:
                    raise
                self.applied += 1  # nobody else has it
                self.last_seq += 1
                continue
            if record.kind in HOST_KINDS:
                return False
            self._apply(record)
            self.applied += 1
        return True

    def _apply(self, record: Record) -> None:
        reply = self._replies.pop(record.index, "")
        if record.kind == jscore.KIND_MESSAGE:
            self.last_seq += 1
            self.messages[self.last_seq] = SimpleNamespace(
                seq=self.last_seq, subject=record.subject.decode(), headers=b"", data=record.data, ts=record.ts
            )
        elif record.kind == jscore.KIND_PURGE:
            purged = len(self.messages)
            self.messages.clear()
            self._answer(reply, "stream_purge", {"success": True, "purged": purged})
        elif record.kind == jscore.KIND_DELETE:
            self.messages.pop(int(record.data), None)
            self._answer(reply, "stream_msg_delete", {"success": True})

    def _answer(self, reply: str, kind: str, body: dict[str, Any]) -> None:
        if reply:
            answer = {"type": f"io.nats.jetstream.api.v1.{kind}_response", **body}
            self.plane.publish(self.account, reply, msgspec.json.encode(answer))

    def skip(self) -> None:
        self.applied += 1

    def state(self) -> Any:
        seqs = sorted(self.messages)
        return SimpleNamespace(
            messages=len(seqs),
            bytes=sum(len(m.data) for m in self.messages.values()),
            first_seq=seqs[0] if seqs else 0,
            last_seq=self.last_seq,
            num_subjects=len({m.subject for m in self.messages.values()}),
            num_deleted=0,
            first_ts=0,
            last_ts=0,
        )

    def get(self, seq: int) -> Any:
        return self.messages.get(seq)

    def last(self, pattern: str) -> Any:
        found = [m for m in self.messages.values() if matches(pattern, m.subject)]
        return found[-1] if found else None

    def next(self, pattern: str, from_seq: int) -> Any:
        found = [m for m in self.messages.values() if m.seq >= from_seq and matches(pattern, m.subject)]
        return found[0] if found else None

    def seq_at(self, unix_ns: int) -> int | None:
        return next((m.seq for m in self.messages.values() if m.ts >= unix_ns), None)

    def subject_counts(self, pattern: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        for m in self.messages.values():
            if matches(pattern, m.subject):
                counts[m.subject] = counts.get(m.subject, 0) + 1
        return counts

    def deleted(self) -> list[int]:
        return []

    def purge(self, filter: str, seq: int, keep: int, reply: str) -> None:
        index = self.propose(jscore.KIND_PURGE, b"")
        self._replies[index] = reply

    def delete(self, seq: int, reply: str) -> None:
        index = self.propose(jscore.KIND_DELETE, str(seq).encode())
        self._replies[index] = reply

    def add_consumer(self, consumer_id: int, name: str, created_ns: int, **options: Any) -> FakeConsumer:
        assert consumer_id not in self.consumers
        self.consumers[consumer_id] = FakeConsumer(self, consumer_id, name, options)
        return self.consumers[consumer_id]

    def close(self) -> None:
        self.closed = True


class Subscription:
    def __init__(self, plane: FakePlane, account: str, subject: str, callback: Callable[[Msg], None], local: bool):
        self.plane, self.account, self.subject, self.callback, self.local = plane, account, subject, callback, local

    def close(self) -> None:
        if self in self.plane.subscriptions:
            self.plane.subscriptions.remove(self)


class FakePlane:
    """Routes to the subscriptions of every server that is up."""

    engine: JetStream

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.subscriptions: list[Subscription] = []
        self.owned: dict[int, FakeLog] = {}
        self.quotas: dict[str, tuple[int, ...]] = {}

    def subscribe(
        self,
        account: str,
        subject: str,
        callback: Callable[[Msg], None],
        *,
        queue: str = "",
        local: bool = False,
        lenient: bool = False,
    ) -> Subscription:
        subscription = Subscription(self, account, subject, callback, local)
        self.subscriptions.append(subscription)
        return subscription

    def publish(self, account: str, subject: str, data: bytes = b"", *, reply: str = "", headers: bytes = b"") -> int:
        return self.world.route(self, Msg(account, subject, reply, headers, data))

    def own_log(self, log: FakeLog, log_id: int) -> None:
        self.owned[log_id] = log

    def disown_log(self, log: FakeLog) -> None:
        self.owned = {i: owned for i, owned in self.owned.items() if owned is not log}

    def quota(self, account: str, memory: int, storage: int, **elsewhere: int) -> None:
        self.quotas[account] = (memory, storage, *elsewhere.values())

    def used(self, account: str) -> tuple[int, int]:
        return 0, 0

    def written_streams(self) -> list[int]:
        return list(self.engine._by_id)

    def add_stream(self, log: FakeLog, stream_id: int, account: str, name: str) -> FakeStream:
        return FakeStream(self, log, stream_id, account, name)


class FakeGroup:
    """One server's replica. The leader's log is the truth; `World.settle` copies and commits it to who is up."""

    def __init__(self, raft: FakeRaft, group_id: str, log: FakeLog, voters: list[str], calls: dict[str, Any]) -> None:
        self.raft, self.id, self.log, self.voters = raft, group_id, log, list(voters)
        self.on_commit, self.on_role = calls["on_commit"], calls["on_role"]
        self.preferred = calls.get("preferred", "")
        self.term = 0
        self.commit = 0
        self.is_leader = False
        self.leader: str | None = None
        self.leader_since = 0
        self.dropped = False
        self.transfers: list[str] = []

    def propose(self, kind: int, data: bytes) -> int:
        if not self.is_leader:
            raise NotLeader(self.id)
        index = self.log.append(kind, data, term=self.term)
        self.appended()
        return index

    def appended(self) -> None:
        self.raft.world.later(lambda: self.raft.world.replicate(self.id))

    def replicas(self) -> list[Replica]:
        up = self.raft.world.up
        return [Replica(v, v in up, 0, 0, v not in up) for v in self.voters if v != self.raft.name]

    def members(self) -> tuple[list[str], list[str]]:
        return list(self.voters), []

    members_index = 0
    behind = False

    def committed_members(self) -> tuple[list[str], int]:
        return (list(self.voters), 0) if self.is_leader else ([], 0)

    def set_members(self, wanted: list[str]) -> None:
        self.raft.world.members[self.id] = list(wanted)
        for raft in self.raft.world.rafts.values():
            if self.id in raft.groups:
                raft.groups[self.id].voters = list(wanted)

    def read(self, done: Callable[[bool], None]) -> None:
        if not self.is_leader:
            raise NotLeader(self.id)
        done(True)

    def led_within(self, span_ms: int) -> bool:
        return self.is_leader

    def transfer(self, target: str) -> None:
        self.transfers.append(target)

    def step_down(self) -> None:
        self.transfers.append("")

    def drop(self) -> None:
        self.dropped = True


class FakeRaft:
    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.groups: dict[str, FakeGroup] = {}
        self.birth = None
        self.elected = False
        self.wiped = False
        self.directory_id = f"directory of {name}"
        self.protocol = PROTOCOL

    def understood(self, servers: Iterable[str]) -> int:
        return self.protocol.newest

    def known_directory(self, peer: str) -> str:
        return f"directory of {peer}"

    def lost(self, created: int) -> bool:
        return False

    def meta_elected(self) -> None:
        self.elected = True

    def create_group(
        self, group_id: str, log: FakeLog, voters: list[str], *, expected: int = 0, **calls: Any
    ) -> FakeGroup:
        group = FakeGroup(self, group_id, log, self.world.members.get(group_id, voters), calls)
        self.groups[group_id] = group
        group.term = calls.get("alone", 0)
        self.world.terms[group_id] = max(self.world.terms.get(group_id, 0), group.term)
        self.world.later(lambda: self.world.elect(group_id))
        return group

    def remembers(self, group_id: str) -> bool:
        return group_id in self.groups

    def remove_group(self, group_id: str) -> None:
        self.groups.pop(group_id, None)


class FakeLoop:
    """call_later over the world's clock."""

    def __init__(self, world: World) -> None:
        self.world = world

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        self.world.timer(seconds, call)


class Lines:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, text: str) -> None:
        self.lines.append(("info", text))

    def warn(self, text: str) -> None:
        self.lines.append(("warn", text))

    def error(self, text: str) -> None:
        self.lines.append(("error", text))

    def errors(self) -> list[str]:
        return [text for level, text in self.lines if level == "error"]


class World:
    """All servers of a test, one clock, one queue. `up` are the servers that run and see each other."""

    def __init__(self, directory: Path, names: list[str], *, clustered: bool | None = None, **options: Any) -> None:
        self.now_ns = 1_700_000_000_000_000_000
        self.clustered = len(names) > 1 if clustered is None else clustered
        self.directory = directory
        self.options = options
        self.queue: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[int, int, Callable[[], None]]] = []
        self.members: dict[str, list[str]] = {}
        self.terms: dict[str, int] = {}
        self.up: list[str] = []
        self.names = names
        self.stores = {name: FakeStore() for name in names}
        self.rafts: dict[str, FakeRaft] = {}
        self.planes: dict[str, FakePlane] = {}
        self.engines: dict[str, JetStream] = {}
        self.lines = {name: Lines() for name in names}
        self._inbox = 0
        self._order = 0

    def start(self, *names: str) -> None:
        for name in names or self.names:
            self.planes[name] = FakePlane(self, name)
            self.rafts[name] = FakeRaft(self, name)
            engine = JetStream(
                Options(directory=str(self.directory / name), **self.options),
                self.planes[name],
                self.stores[name],
                self.rafts[name],
                server_name=name,
                cluster_name="C" if self.clustered else None,
                loop=FakeLoop(self),
                rng=random.Random(f"seed {name}"),
                clock=lambda: self.now_ns,
                log=self.lines[name],
            )
            self.planes[name].engine = engine
            self.engines[name] = engine
            engine.start()
            for other in self.up:
                self.engines[other].peer_joined(name, self.hello(name))
                engine.peer_joined(other, self.hello(other))
            self.up.append(name)
            engine.meta_bootstrap(self.members.setdefault("_meta_", list(self.names)), len(self.names))
        self.settle()

    def hello(self, name: str) -> dict[str, Any]:
        return {"jetstream": True, "directory": self.rafts[name].directory_id}

    def stop(self, name: str) -> None:
        """The server is gone, without a word."""
        self.up.remove(name)
        self.engines[name].stop()
        for other in self.up:
            self.engines[other].peer_left(name)
        for group_id in list(self.rafts.pop(name).groups):
            self.elect(group_id)
        self.settle()

    # ---- queue and time ----

    def later(self, call: Callable[[], None]) -> None:
        self.queue.append(call)

    def timer(self, seconds: float, call: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self.timers, (self.now_ns + int(seconds * 1e9), self._order, call))

    def settle(self, seconds: float = 0) -> None:
        """Runs all that is due, letting `seconds` pass."""
        until = self.now_ns + int(seconds * 1e9)
        for _ in range(100_000):
            if self.queue:
                self.queue.popleft()()
            elif self.timers and self.timers[0][0] <= until:
                due, _, call = heapq.heappop(self.timers)
                self.now_ns = max(self.now_ns, due)
                call()
            else:
                self.now_ns = max(self.now_ns, until)
                return
        raise AssertionError("the world does not come to rest")

    # ---- raft ----

    def replicas(self, group_id: str) -> list[FakeGroup]:
        found = [raft.groups.get(group_id) for name, raft in self.rafts.items() if name in self.up]
        return [g for g in found if g is not None and not g.dropped]

    def elect(self, group_id: str) -> None:
        """The longest log among a majority leads; nobody does without one."""
        groups = self.replicas(group_id)
        if not groups:
            return
        leader = next((g for g in groups if g.is_leader), None)
        if len(groups) <= len(groups[0].voters) // 2:
            for g in groups:
                g.leader = None
                if g.is_leader:
                    g.is_leader = False
                    g.on_role(Role.FOLLOWER, g.term)
            return
        if leader is None:
            leader = max(groups, key=lambda g: (g.log.last, g.preferred == g.raft.name))
            self.terms[group_id] = self.terms.get(group_id, 0) + 1
            leader.term = self.terms[group_id]
            leader.leader_since = self.now_ns
            leader.log.append(jscore.KIND_NOOP, term=leader.term)
            for g in groups:
                g.leader = leader.raft.name
            self.replicate(group_id, leader)
            leader.is_leader = True
            leader.on_role(Role.LEADER, leader.term)
        for g in groups:
            g.leader = leader.raft.name
        self.replicate(group_id)

    def replicate(self, group_id: str, leader: FakeGroup | None = None) -> None:
        groups = self.replicas(group_id)
        leader = leader or next((g for g in groups if g.is_leader), None)
        if leader is None or len(groups) <= len(leader.voters) // 2:
            return
        for g in [leader, *(g for g in groups if g is not leader)]:
            if g is not leader:
                g.log.records[:] = leader.log.records
            g.term = leader.term
            if g.commit < g.log.last:
                g.commit = g.log.last
                g.on_commit(g.commit)

    # ---- messages ----

    def route(self, source: FakePlane | None, msg: Msg) -> int:
        found = [
            s
            for name in self.up
            for s in self.planes[name].subscriptions
            if s.account == msg.account
            and matches(s.subject, msg.subject)
            and (not s.local or source is self.planes[name])
        ]
        for s in found:
            self.later(lambda s=s: s.callback(msg) if s in s.plane.subscriptions else None)
        return len(found)

    def ask(
        self,
        subject: str,
        body: Any = None,
        *,
        at: str = "",
        seconds: float = 0,
        headers: bytes = b"",
        prefix: str = "",
    ) -> list[Any]:
        """Sends a request as a client of server `at`; the answers that came within `seconds`, decoded."""
        plane = self.planes[at or self.up[0]]
        self._inbox += 1
        inbox = f"_INBOX.{self._inbox}"
        answers: list[Any] = []
        subscription = plane.subscribe("$G", inbox, lambda m: answers.append(msgspec.json.decode(m.data)))
        data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        full = (prefix or "$JS.API.") + subject if not subject.startswith("$") else subject
        self.route(plane, Msg("$G", full, inbox, headers, data, origin=7))
        self.settle(seconds)
        subscription.close()
        return answers

    def one(self, subject: str, body: Any = None, **how: Any) -> Any:
        answers = self.ask(subject, body, **how)
        assert len(answers) == 1, answers
        return answers[0]

    def meta_leader(self) -> str:
        return next(n for n in self.up if self.engines[n].is_meta_leader)
