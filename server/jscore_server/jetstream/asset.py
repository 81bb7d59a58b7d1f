"""One local stream replica: its log, the C stream over it, its Raft group if it has one, and its consumers.

The log is the Raft log. C applies messages, purges and consumer progress; this module handles the records of a host
kind when C comes to them: CONFIG, CONSUMER_CREATE, CONSUMER_DELETE. They are applied in log order on every replica, so
they use nothing but the record itself. Source: clustering.md §1, §5; jetstream-consumers.md §2.

A stream that was never held by more than one server runs solo: C commits what is durable here, and only the start and
host records pass through Python. When it gets more replicas its Raft group takes over, in the same term and log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

import jscore
from jscore_server.dataplane import snapshot_host
from jscore_server.jetstream.consumer_config import to_options
from jscore_server.jetstream.meta import Assignment
from jscore_server.jetstream.models import ConsumerConfig, StreamConfig
from jscore_server.jetstream.stream_config import to_limits
from jscore_server.raft import ChangeRefused, Difference, Members, NotLeader, Role, members_from_json, members_to_json

if TYPE_CHECKING:
    from jscore import Record, RecordLog
    from jscore_server.dataplane import Consumer, Plane, Stream, Subscription
    from jscore_server.raft import Group, RaftHost

WAITING_MAX = 10_000
"""Requests waiting for their record at one stream; more are refused as temporarily unavailable."""


STALE_MS = 1000
"""How old the view of a direct get may be: a leader that has not been confirmed for so long asks first."""


class Lost(Exception):
    """Leadership ended, or the log failed, before the record was committed: its outcome is not known here."""


Done = Callable[[Lost | None], None]


class Logger(Protocol):
    def info(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def error(self, text: str) -> None: ...


class ConsumerReplica(msgspec.Struct):
    """A consumer as this replica has it. `id` is the index of the record that created it: equal on all replicas."""

    id: int
    name: str
    created_ns: int
    config: ConsumerConfig
    handle: Consumer


class ConfigRecord(msgspec.Struct, frozen=True):
    version: int
    config: dict[str, Any]


class ConsumerCreateRecord(msgspec.Struct, frozen=True):
    name: str
    created_ns: int
    config: dict[str, Any]


class ConsumerDeleteRecord(msgspec.Struct, frozen=True):
    id: int
    name: str


class ConsumerMade(msgspec.Struct, frozen=True):
    id: int
    name: str
    created_ns: int
    config: dict[str, Any]


class HostState(msgspec.Struct, frozen=True):
    """This module's part of a snapshot: what host records before it have made."""

    version: int
    config: dict[str, Any] | None
    consumers: list[ConsumerMade]
    members_index: int  # -1: the stream never had a Raft group
    members: str = ""  # body of the record, when there is one


class Asset:
    """A replica of one stream on this server, from `start` to `close`.

    `leading`: this server leads it. `ready`: and it has a configuration, so requests can be served.
    `on_ready` is called whenever it became ready, and when a newer configuration was applied while it leads.
    """

    def __init__(
        self,
        assignment: Assignment,
        stream_id: int,
        log: RecordLog,
        *,
        plane: Plane,
        raft: RaftHost,
        on_ready: Callable[[Asset], None],
        on_damage: Callable[[Asset, str], None],
        on_behind: Callable[[Asset, int], None],
        on_differs: Callable[[Asset, Difference], None],
        lines: Logger,
    ) -> None:
        self.assignment = assignment
        self.id = stream_id
        self.log = log
        self._plane = plane
        self.stream: Stream = plane.add_stream(log, stream_id, assignment.account, assignment.name)
        self.group: Group | None = None
        self.leading = False
        self.failed = ""
        self.closed = False
        self.config: StreamConfig | None = None
        self.full = False  # no space for what is published, while leading
        self.version = 0
        self.consumers: dict[str, ConsumerReplica] = {}
        self._by_id: dict[int, ConsumerReplica] = {}
        self._creating: dict[str, tuple[int, ConsumerConfig]] = {}
        self._waiting: dict[int, list[Done]] = {}
        self._config_proposed = 0
        self.subscriptions: list[Subscription] = []
        self._raft = raft
        self._on_ready = on_ready
        self._on_damage = on_damage
        self._on_behind = on_behind
        self._on_differs = on_differs
        self._lines = lines
        self._held = False  # the stream takes no publishes while its leadership is handed over
        self._busy = False
        self._commit = 0
        self._term = 0
        self._floor = 0  # the record that the snapshot stands for which this replica was made from
        self._base: Members | None = None
        self.snapshot_first = 0  # records below it are not needed, with the snapshot that is on the disk
        self.snapshot_tried = 0
        self.snapshot_bad = False  # what is on the disk does not fit the log

    # ---- life ----

    def start(self, snapshot: bytes | None = None, damage: str = "") -> None:
        """Recovers what is known to be committed and takes part. Raises: OSError, jscore.Error.

        `snapshot`: the file that is beside the log; `damage`: why there is none, though there should be.
        """
        recovery = self.log.recovery
        if recovery.message:
            self._lines.warn(f"stream {self.assignment.account}/{self.assignment.name}: {recovery.message}")
        why = damage or self._restore(snapshot)
        if why:
            self.snapshot_bad = True
            self._lines.error(f"stream {self.assignment.account}/{self.assignment.name}: {why}")
        if why and self.log.first > 1:
            if self._is_alone():
                why += f", and the log begins at record {self.log.first}: what was made before is in no other place"
                self.fail(f"{why}; nothing of its files was changed")
            else:
                self._on_damage(self, why)
        elif self._is_alone():
            self._start_solo()
        elif recovery.damaged_index and self._was_alone():
            self._tell_uncopied()
            self._start_solo()
        elif recovery.damaged_index:
            self._on_damage(self, f"record {recovery.damaged_index} is damaged")
        else:
            self._take_part()

    def _restore(self, snapshot: bytes | None) -> str:
        """Takes over what a snapshot says. Returns why not: then nothing is applied, and the log has to say it all."""
        if snapshot is None:
            return "its snapshot is missing" if self.log.first > 1 else ""
        try:
            head = jscore.snapshot_head(snapshot)
            state = msgspec.json.decode(snapshot_host(snapshot), type=HostState)
            if state.config is not None:
                self._apply_config(ConfigRecord(state.version, state.config))
            lost = self.stream.restore(snapshot, self._is_alone())
            for made in state.consumers:
                self._apply_consumer(made.id, ConsumerCreateRecord(made.name, made.created_ns, made.config))
            self.stream.restore_consumers()
            if state.members:
                self._base = members_from_json(state.members_index, state.members.encode(), self._raft.protocol.newest)
        except (jscore.Corrupt, jscore.FormatError, msgspec.MsgspecError, ValueError) as err:
            self._forget()
            return f"its snapshot and its log do not fit: {err}"
        if lost:
            self._lines.error(f"stream {self.assignment.account}/{self.assignment.name}: {lost} messages are damaged")
        self._floor = self._commit = head.index
        self.snapshot_first = head.first
        return ""

    def _forget(self) -> None:
        """Back to where nothing is applied."""
        assignment = self.assignment
        self.stream.close()
        self.stream = self._plane.add_stream(self.log, self.id, assignment.account, assignment.name)
        self.config = None
        self.version = 0
        self.consumers.clear()
        self._by_id.clear()

    def host_state(self) -> bytes | None:
        """What a snapshot of this moment has to say of the host's records; None: not now."""
        if self._busy or self.failed:
            return None
        index, members = -1, b""
        if self.group is not None:
            found = self.group.committed_config(self.stream.applied)
            if found is None:
                return None
            index, members = found.index, members_to_json(found)
        made = [ConsumerMade(r.id, r.name, r.created_ns, msgspec.to_builtins(r.config)) for r in self._by_id.values()]
        config = None if self.config is None else msgspec.to_builtins(self.config)
        return msgspec.json.encode(HostState(self.version, config, made, index, members.decode()))

    @property
    def sure(self) -> int:
        """Up to here the log's records are known to be committed."""
        return max(self._commit, self._floor, self.log.recovery.commit)

    def _is_alone(self) -> bool:
        """Nobody else ever held the stream, so there is nobody to agree with.

        Its first holder is not alone when it gets it back: others have what was written meanwhile.
        """
        assignment = self.assignment
        changed = bool(assignment.founders)
        return assignment.peers == [self._raft.name] and not changed and not self._raft.remembers(assignment.group)

    def _take_part(self, alone: int = 0) -> None:
        assignment = self.assignment
        self.group = self._raft.create_group(
            assignment.group,
            self.log,
            list(assignment.birth),
            on_commit=self.advance,
            on_role=self._on_role,
            on_hold=self._on_hold,
            on_damage=self._damaged,
            preferred=assignment.preferred,
            lost=self._raft.lost(assignment.born),
            joins=self._raft.name in assignment.joined or self._raft.name not in assignment.birth,
            alone=alone,
            on_behind=self._is_behind,
            on_differs=self._differs,
            floor=self._floor,
            base=self._base,
        )

    def _damaged(self, why: str) -> None:
        self._on_damage(self, why)

    def _is_behind(self, first: int) -> None:
        self._on_behind(self, first)

    def _differs(self, found: Difference) -> None:
        self._on_differs(self, found)

    def _end_solo(self) -> None:
        """Others shall hold the stream too: Raft leads on where C did alone, with everything committed that was."""
        if self.log.recovery.damaged_index:
            self._tell_uncopied()
            return
        self.stream.set_solo(False)  # first: whatever goes wrong, C must not commit by itself beside the group
        self._take_part(alone=self._term)

    def _was_alone(self) -> bool:
        """Others are to hold the stream, and its group was not made yet: all there is of it is here."""
        assignment, raft = self.assignment, self._raft
        return (
            assignment.birth == [raft.name]
            and raft.name not in assignment.joined
            and not raft.remembers(assignment.group)
            and not raft.lost(assignment.born)
        )

    def _tell_uncopied(self) -> None:
        why = f"record {self.log.recovery.damaged_index} of its only log is damaged, so it cannot be copied"
        self._lines.error(f"stream {self.assignment.account}/{self.assignment.name} gets no replicas: {why}")

    def _start_solo(self) -> None:
        """Alone, all that is on this disk is committed. A term of its own separates what this process adds."""
        self.stream.set_solo(True)  # first: from now on a damaged record is passed over
        self.advance(self.log.last)
        if not self.failed:
            self._lead(self._new_term())

    def _new_term(self) -> int:
        last = self.log.last
        for index in range(last, self.log.first - 1, -1):
            try:
                return self.log.term(index) + 1 + last - index  # each damaged one may have been of a term of its own
            except jscore.Corrupt:
                continue
        return 1

    def others(self) -> list[str]:
        """Who else is assigned the stream."""
        return [peer for peer in self.assignment.peers if peer != self._raft.name]

    def stand_aside(self) -> None:
        """Takes no part while the log is repaired; what was promised stays remembered."""
        if self.group is not None:
            self._raft.close_group(self.assignment.group)
            self.group = None

    def close(self, *, forget: bool) -> None:
        """Stops serving; the log stays open and is the caller's. `forget`: for good, the stream was deleted."""
        self._step_down()
        self.failed = self.failed or "closed"
        self.closed = True
        if self.group is not None:
            if forget:
                self._raft.remove_group(self.assignment.group)
            else:
                self.group.drop()
            self.group = None
        for replica in self.consumers.values():
            replica.handle.close()
        self.consumers.clear()
        self._by_id.clear()
        self.stream.close()

    @property
    def ready(self) -> bool:
        return self.leading and self.config is not None and not self.failed

    @property
    def leader(self) -> str | None:
        """The server known to lead, None while unknown."""
        if self.group is not None:
            return self.group.leader
        return self._raft.name if self.leading else None

    # ---- leadership ----

    def _on_role(self, role: Role, term: int) -> None:
        if role is Role.LEADER:
            self._lead(term)
        else:
            self._step_down()

    def _on_hold(self, stage: int) -> None:
        if self.failed:
            if stage == 0:
                self.resign()  # the last try came to nothing
            return
        if self.config is None or self.group is None:
            return
        if stage == 1:
            self._held = True
            self.stream.set_subjects([])
        elif stage == 2:
            self._step_down()  # consumers' progress still made the log grow
        elif self.leading:
            self._release()
        else:
            self._lead(self.group.term)

    def _release(self) -> None:
        if self._held:
            self._held = False
            self.stream.set_subjects(list(self.config.subjects or ()) if self.config is not None else [])

    def _lead(self, term: int) -> None:
        if self.failed:
            self.resign()
            return
        try:
            self.stream.lead(term)
            self.leading = True
            self._term = term
            if self.group is None:
                self.stream.propose(jscore.KIND_NOOP, b"")
            self.reconcile()
        except (jscore.Error, OSError) as err:
            self.fail(f"cannot lead: {err}")
            return
        if self.ready:
            self._on_ready(self)

    def _step_down(self) -> None:
        if self.leading:
            self.leading = False
            self.stream.follow()
        self._release()
        self.unsubscribe()
        self._config_proposed = 0
        self._creating.clear()
        waiting, self._waiting = self._waiting, {}
        for calls in waiting.values():
            for done in calls:
                done(Lost())

    def unsubscribe(self) -> None:
        """Ends what was subscribed for the stream while it is led here."""
        for subscription in self.subscriptions:
            subscription.close()
        self.subscriptions.clear()

    def fail(self, reason: str, *, expected: bool = False) -> None:
        """The replica is of no more use in this process: it neither leads nor applies."""
        if self.failed:
            return
        self.failed = reason
        say = self._lines.info if expected else self._lines.error
        say(f"stream {self.assignment.account}/{self.assignment.name}: {reason}")
        self._step_down()
        self.resign()

    def resign(self) -> None:
        """A leader that cannot serve hands the group to somebody who can."""
        if self.group is not None and self.group.is_leader:
            try:
                self.group.step_down()
            except (NotLeader, ChangeRefused) as err:
                self._lines.warn(f"stream {self.assignment.account}/{self.assignment.name}: cannot hand over: {err}")

    def reassign(self, assignment: Assignment) -> None:
        """A newer version of the assignment was committed by the meta group."""
        self.assignment = assignment
        if self.group is None and self.leading and not self._is_alone():
            self._end_solo()
        self.reconcile()

    def reconcile(self) -> None:
        """As leader, puts the assigned configuration into the log if it is newer than the applied one."""
        wanted = self.assignment.version
        if self.leading and self.group is not None and wanted == self.version:
            # Not before its own version is in the log: a server that is behind must not undo what was changed since.
            self.group.set_members(self.assignment.peers)
        if not self.leading or self.failed or wanted <= max(self.version if self.config else -1, self._config_proposed):
            return
        self._config_proposed = wanted
        record = ConfigRecord(wanted, self.assignment.config)
        self.stream.propose(jscore.KIND_CONFIG, msgspec.json.encode(record))

    # ---- proposing ----

    def propose(self, kind: int, record: msgspec.Struct, done: Done) -> int:
        """Appends a host record as leader; `done` is called once: applied here, or no longer known.

        Raises: Lost (not leading, or too many waiting), jscore.Error, OSError.
        """
        if not self.ready or len(self._waiting) >= WAITING_MAX:
            raise Lost
        index = self.stream.propose(kind, msgspec.json.encode(record))
        self._waiting[index] = [done]
        return index

    def create_consumer(self, record: ConsumerCreateRecord, done: Done) -> None:
        """Proposes a consumer (or the host's part of a new configuration of one). Raises as `propose`."""
        index = self.propose(jscore.KIND_CONSUMER_CREATE, record, done)
        self._creating[record.name] = index, msgspec.convert(record.config, ConsumerConfig)

    def delete_consumer(self, replica: ConsumerReplica, done: Done) -> None:
        """Proposes the end of a consumer. Raises as `propose`."""
        self.propose(jscore.KIND_CONSUMER_DELETE, ConsumerDeleteRecord(replica.id, replica.name), done)

    def after_create(self, name: str, done: Done) -> bool:
        """If a creation of that name is under way, calls `done` after it and returns True."""
        index, _ = self._creating.get(name, (0, None))
        calls = self._waiting.get(index)
        if calls is None or len(calls) >= WAITING_MAX:
            return False
        calls.append(done)
        return True

    def consumer_count(self) -> int:
        """Consumers there are and are about to be."""
        return len(self.consumers.keys() | self._creating.keys())

    def consumer_configs(self) -> list[ConsumerConfig]:
        """Configurations of the consumers there are and are about to be."""
        return [r.config for r in self.consumers.values()] + [config for _, config in self._creating.values()]

    def consumer_by_id(self, consumer_id: int) -> ConsumerReplica | None:
        return self._by_id.get(consumer_id)

    # ---- reading ----

    def read(self, done: Done) -> None:
        """Calls `done` once all that was acknowledged before this call is applied here, or with Lost.

        Raises: NotLeader. Source: clustering.md §8, MSG.GET.
        """
        if self.group is None:
            done(None)
        else:
            self.group.read(lambda sure: done(None if sure else Lost()))

    def read_lately(self, done: Done) -> None:
        """As `read`, but what was acknowledged within the last election time-out may be missing. Raises: NotLeader."""
        if self.group is None or self.group.led_within(STALE_MS):
            done(None)
        else:
            self.read(done)

    # ---- applying ----

    def advance(self, index: int) -> None:
        """Everything up to `index` is committed: applies it, in C but for the host's records."""
        self._commit = max(self._commit, index)
        if self.failed or self._busy:
            return
        self._busy = True
        finished: list[Done] = []
        newer = False
        try:
            while not self.stream.commit(self._commit):
                at = self.stream.applied + 1
                record = self.log.read(at)
                newer |= self._apply(record)
                self.stream.skip()
                finished += self._waiting.pop(at, ())
        except jscore.Corrupt as err:
            self._on_damage(self, f"record {self.stream.applied + 1}, or one that decides about it, is damaged: {err}")
        except (jscore.Error, OSError, msgspec.MsgspecError) as err:
            self.fail(f"record {self.stream.applied + 1} cannot be applied: {err}")
        finally:
            self._busy = False
        for done in finished:
            done(None)
        if newer:
            self.reconcile()
        if newer and self.ready:
            self._on_ready(self)

    def applied_host_record(self) -> None:
        """C met a host record in a solo stream."""
        self.advance(self.stream.committed)

    def _apply(self, record: Record) -> bool:
        """True when the configuration changed."""
        if record.kind == jscore.KIND_CONFIG:
            return self._apply_config(msgspec.json.decode(record.data, type=ConfigRecord))
        if record.kind == jscore.KIND_CONSUMER_CREATE:
            created = msgspec.json.decode(record.data, type=ConsumerCreateRecord)
            self._apply_consumer(record.index, created)
        elif record.kind == jscore.KIND_CONSUMER_DELETE:
            deleted = msgspec.json.decode(record.data, type=ConsumerDeleteRecord)
            replica = self._by_id.pop(deleted.id, None)
            if replica is not None:
                del self.consumers[replica.name]
                replica.handle.close()
        return False

    def _apply_config(self, record: ConfigRecord) -> bool:
        if self.config is not None and record.version <= self.version:
            return False
        config = msgspec.convert(record.config, StreamConfig)
        self.stream.configure(**to_limits(config))
        if not self._held:
            self.stream.set_subjects(list(config.subjects or ()))
        self.config = config
        self.version = record.version
        return True

    def _apply_consumer(self, index: int, record: ConsumerCreateRecord) -> None:
        if self._creating.get(record.name, (0, None))[0] == index:
            del self._creating[record.name]
        config = msgspec.convert(record.config, ConsumerConfig)
        options = to_options(config)
        present = self.consumers.get(record.name)
        if present is not None:
            if to_options(present.config) == options:
                present.config = config
            return
        handle = self.stream.add_consumer(index, record.name, record.created_ns, **options)
        replica = ConsumerReplica(index, record.name, record.created_ns, config, handle)
        self.consumers[record.name] = replica
        self._by_id[index] = replica
