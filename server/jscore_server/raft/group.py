"""One group of a host: drives a Core over its log and the links. The core decides; this carries it out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from .compare import Difference
from .core import NOOP, ChangeRefused, Changing, Core, HardState, InvariantBroken, NotLeader, Role
from .members import Members, NewerVersion, members_from_json, members_to_json
from .messages import FRAME_APPEND, AppendHead, Message, encode, encode_head, group_bytes
from .state import FOLLOWER, LEADER

if TYPE_CHECKING:
    from .host import RaftHost
    from .progress import Progress

KIND_NOOP = 2  # kinds of record: csrc/log/jsc.h
KIND_MEMBERS = 4
KIND_HOST = 10

FRAME_CAP = 256 * 1024  # bytes of records in one append frame; a larger single record travels alone
MARK_EVERY = 16384  # committed records between two marks in the hard state, so that a restart scans no more than that

MEND_EVERY_TICKS = 250
MAX_READS = 65536  # waiting in one group

MUTED = "the replica here neither votes nor counts until a leader elected without it has committed"


class Log(Protocol):
    """What a group needs of jscore.RecordLog."""

    @property
    def last(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def durable(self) -> int: ...
    @property
    def error(self) -> int: ...
    @property
    def recovery(self) -> Any: ...
    @property
    def path(self) -> str: ...
    def append(
        self, kind: int, data: bytes = b"", *, subject: bytes = b"", headers: bytes = b"", term: int = 0, ts: int = 0
    ) -> int: ...
    def append_raw(self, raw: bytes | memoryview, from_index: int, *, verified: bool = False) -> None: ...
    def submit(self) -> None: ...
    def submit_now(self) -> None: ...
    def mark(self) -> None: ...
    def truncate(self, last: int) -> None: ...
    def term(self, index: int) -> int: ...
    def read(self, index: int) -> Any: ...
    def copy(self, lo: int, hi: int, cap: int) -> tuple[bytes, int]: ...
    def set_commit(self, index: int) -> None: ...
    def wait(self, index: int, timeout: float | None = None) -> Any: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Replica:
    """One other member as its leader sees it. `lag` counts records.

    `active_ns` is the time since it last answered, above 0 once it has ever done so; 0 means never, as far as known.
    """

    name: str
    current: bool
    active_ns: int
    lag: int
    offline: bool


class Group:
    """A replica of one Raft group, created by RaftHost.create_group. One thread calls everything."""

    __slots__ = (
        "_difference", "_draining", "_failed", "_left", "_raw_id", "_reads", "_refuses", "_relieved", "core", "due",
        "held", "host", "id", "leader_since", "log", "mended", "on_behind", "on_commit", "on_damage", "on_differs",
        "on_hold", "on_role", "paused", "told_leader", "wanted",
    )  # fmt: skip

    def __init__(
        self,
        host: RaftHost,
        group_id: str,
        log: Log,
        hard: HardState,
        on_commit: Callable[[int], None],
        on_role: Callable[[Role, int], None],
        preferred: bool,
        on_hold: Callable[[int], None] | None = None,
        on_damage: Callable[[str], None] | None = None,
        on_behind: Callable[[int], None] | None = None,
        floor: int = 0,
        on_differs: Callable[[Difference], None] | None = None,
    ) -> None:
        self.host = host
        self.id = group_id
        self.log = log
        self.on_commit = on_commit
        self.on_role = on_role
        self.on_hold = on_hold
        self.on_damage = on_damage
        self.on_behind = on_behind
        self.on_differs = on_differs
        self._difference: tuple[int, Difference] | None = None  # the term in which it was found
        self.paused = 0  # what on_hold was told last
        self.mended = host.ticks  # when leadership last moved
        self._raw_id = group_bytes(group_id)
        recovery = getattr(log, "recovery", None)
        commit = max(floor, int(recovery.commit) if recovery is not None else 0)
        self.core = Core(
            group_id, host.name, log, hard, host.rng, host.timing, commit=commit, now=host.ticks, preferred=preferred,
            first=log.first, known=host.known, met=host.met, present=host.present,
        )  # fmt: skip
        self.core.synced = min(log.durable, log.last)
        with contextlib.suppress(host.engine.Error, OSError):  # damaged: whoever asks for that record finds out
            self.core.take_term()
        self.held: list[tuple[int, Message]] = []
        self.leader_since = 0
        self.told_leader = False  # on_role said so last
        self.wanted: tuple[str, ...] = ()
        self.due = 0
        self._draining = False
        self._failed = False
        self._reads: dict[int, Callable[[bool], None]] = {}
        self._left = 0  # term in which it tried to hand over before going
        self._relieved = 0  # tick before which it does not hand over again for want of space
        self._refuses = False  # the log took no records when it was last to

    # ---- what the server asks --------------------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        """Leader, and of what older terms left in its log nothing is open."""
        return self.core.led

    @property
    def leader(self) -> str | None:
        """Name of the leader of this term as far as known here."""
        return self.core.leader or None

    @property
    def term(self) -> int:
        """Current term."""
        return self.core.term

    @property
    def commit(self) -> int:
        """Commit index known here."""
        return self.core.commit

    def propose(self, kind: int, data: bytes) -> int:
        """Appends a record as leader and returns its index; on_commit tells when it is committed. Raises NotLeader."""
        core = self.core
        if not core.led or core.transferee or self._failed:
            raise NotLeader(self.id)
        index = self.log.append(kind, data, term=core.term)
        self.log.submit()
        self.appended()
        return index

    def appended(self) -> None:
        """The stream appended records of the current term as leader: replicate up to log.last.

        They may not be written yet. Whoever else is needed answers later than that, and then it is looked up.
        """
        if self._failed:
            return
        self.host._enter()
        try:
            if not self.core.progress:
                self.log.submit_now()  # nobody will answer
            self._catch_up()
            self.drain()
        except (InvariantBroken, self.host.engine.Error, OSError) as err:  # also: a record cannot be read
            self._stop(err)
        finally:
            self.host._leave()

    def transfer(self, target: str) -> None:
        """Hands leadership to `target` (spec/raft.md R-13). Raises NotLeader, ChangeRefused."""
        self._input(lambda: self.core.transfer(target))
        core = self.core
        if core.transferee and not self._failed:
            core.deadline = min(core.deadline, self.host.ticks + self.host.timing.heartbeat_ticks)
            self.host._schedule(self)
            self._hold()

    def _hold(self) -> None:
        """Transfers need the log to stand still (R-13): first without publishes, then without anything."""
        core = self.core
        stage = 0
        if core.transferee and core.led:
            stage = 2 if self.host.ticks * 2 >= core.transfer_at * 2 - core.timing.election_max_ticks else 1
        if stage != self.paused:
            self.paused = stage
            if self.on_hold is not None:
                self.on_hold(stage)

    def _mend(self) -> None:
        """Members that lost what they promised come to count again (spec/raft.md §5, R-3).

        Where its directory is recorded, the new one takes its place as soon as all others are well. Where it is not, an
        election without it does it: so there is one.
        """
        core, host = self.core, self.host
        if core.transferee or host.ticks - self.mended < MEND_EVERY_TICKS:
            return
        up = [p for n, p in core.progress.items() if core.members.is_voter(n) and host.transport.connected(n)]
        out = [p for p in up if not p.counted and p.match >= core.caught]
        others = [p for p in up if p.counted and p.match >= core.caught]
        if not out:
            return
        self.mended = host.ticks
        for p in out:
            met = host.met.get(p.name, "")
            if not core._is_itself(p.name) and len(others) + len(out) + 1 >= len(core.members.all_voters):
                core.replace_directory(p.name, met)
                self.drain()
                return
        if others:
            self.transfer(max(others, key=lambda p: (p.match, p.name)).name)

    def step_down(self) -> None:
        """Gives up leadership: hands it to the voter that is furthest ahead. Raises NotLeader."""
        core = self.core
        if not core.led:
            raise NotLeader(self.id)
        connected = self.host.transport.connected
        others = [p for n, p in core.progress.items() if n in core.members.voters and connected(n)]
        if others:  # who may not vote is the last choice: the refusal tells why nobody takes over
            self.transfer(max(others, key=lambda p: (p.counted, p.match, p.name)).name)

    @property
    def can_hand_over(self) -> bool:
        """Whether there is a voter, beside this one, that may take the lead and can be reached."""
        core, connected = self.core, self.host.transport.connected
        return any(core.progress[n].counted and connected(n) for n in core.members.voters if n in core.progress)

    def change(self, voters: list[str], learners: list[str] | None = None) -> None:
        """Makes these the members, any number at once: learners, joint configuration, leaving it (raft/change.py).

        The leader goes on by itself; `changing` shows how far it is. A failover before the joint configuration forgets
        it: use set_members to have it asked again by whoever leads. Raises NotLeader, ChangeRefused.
        """
        self._input(lambda: self.core.change(tuple(voters), tuple(learners or ())))

    def cancel_change(self) -> None:
        """Gives up a change that is under way, so that the voters from before it stay. Raises NotLeader."""
        self.wanted = ()
        self._input(self.core.cancel_change)

    @property
    def changing(self) -> Changing | None:
        """The change of members under way, None if there is none as far as this replica knows."""
        return self.core.changing

    @property
    def removed(self) -> bool:
        """The group's committed configuration is without this replica: by its own log, or a member said so (R-27)."""
        members = self.core.members
        return self.core.gone or (members.index <= self.core.commit and self.core.name in members.removed)

    def set_members(self, wanted: list[str]) -> None:
        """Makes `wanted` the voters, for as long as this replica leads: whoever leads next has to be told again.

        A later call takes the place of a former one, unless that is joint already: then it follows. Empty: stop.
        """
        self.wanted = tuple(dict.fromkeys(wanted))
        core = self.core
        if core.led and self._is_as_wanted():
            self.wanted = ()
        elif core.led:
            core.deadline = min(core.deadline, self.host.ticks + 1)
            self.host._schedule(self)

    def led_within(self, span_ms: int) -> bool:
        """Whether a quorum took this replica for its leader less than `span_ms` ago, time of suspension included."""
        self.core.clock_ms = self.host.clock_ms()
        return not self._failed and self.core.led_within(span_ms)

    def read(self, done: Callable[[bool], None]) -> None:
        """Calls done(True) once all acknowledged before this call is applied here: a read is linearizable then.

        Before it returns or later; done(False): leadership was lost. Raises NotLeader. Source: spec/raft.md R-36.
        """
        if self._failed or len(self._reads) >= MAX_READS:
            raise NotLeader(self.id)
        number = self.host._next_read()
        self._reads[number] = done
        self.core.clock_ms = self.host.clock_ms()
        try:
            self._input(lambda: self.core.read(number))
        except NotLeader:
            self._reads.pop(number, None)
            raise

    def _answer_reads(self) -> None:
        reads, self.core.out.reads = self.core.out.reads, []
        for number, index in reads:
            done = self._reads.pop(number, None)
            if done is not None:
                done(index >= 0)

    def _lose_reads(self) -> None:
        reads, self._reads = self._reads, {}
        for done in reads.values():
            done(False)

    def members(self) -> tuple[list[str], list[str]]:
        """(voters, learners) of the configuration in force here."""
        members = self.core.members
        return list(members.voters), list(members.learners)

    @property
    def behind(self) -> bool:
        """Whether more is committed than this replica holds, or it has not heard from any leader yet."""
        core = self.core
        return not core.led and (core.told == 0 or core.told > core.commit)

    @property
    def current(self) -> bool:
        """Whether this replica counts and has caught up, as its leader sees it, or leads."""
        return not self._failed and (self.core.led or self.core.current)

    @property
    def whole(self) -> bool:
        """Whether all voters are current, so that any one of them may go for a while."""
        core = self.core  # a leader that sleeps tells nobody who is gone: each server sees that by itself
        return (
            self.current and core.whole and all(core.is_present(n) for n in core.members.all_voters if n != core.name)
        )

    def well(self) -> set[str]:
        """As leader: the voters that are current."""
        return self.core.well() if self.core.led and not self._failed else set()

    @property
    def members_index(self) -> int:
        """Index of the configuration in force here."""
        return self.core.members.index

    def committed_members(self) -> tuple[list[str], int]:
        """Everybody in it and the index of the configuration in force, as the leader knows it to be committed.

        Empty anywhere else, and while a change is not committed yet.
        """
        core = self.core
        if not core.led or core.members.index > core.commit or self._failed:
            return [], 0
        return list(core.members.everybody), core.members.index

    def replicas(self) -> list[Replica]:
        """The other members. Lag and activity are known to the leader only; a follower reports the link's state."""
        core = self.core
        tick_ns = self.host.timing.tick_ms * 1_000_000
        out = []
        for name in core.members.everybody:
            if name == core.name:
                continue
            offline = not self.host.transport.connected(name)
            p = core.progress.get(name)
            if p is None:
                out.append(Replica(name, not offline and bool(core.leader), 0, 0, offline))
                continue
            heard = self.host._heard.get(name, 0) if core.quiet else 0  # an idle group leaves liveness to the hosts
            silent = self.host.ticks - max(p.active, heard)
            current = not offline and silent < core.timing.quorum_ticks and p.match >= core.commit
            current = current and name in core.members.voters  # a learner holds up nobody, whatever it holds
            active_ns = max(silent * tick_ns, 1) if p.match else 0
            out.append(Replica(name, current, active_ns, core.last - p.match, offline))
        return out

    # ---- inputs from the host --------------------------------------------------------------------------------------

    def _input(self, act: Callable[[], None]) -> None:
        if self._failed:
            return
        self.host._enter()
        try:
            self._catch_up()
            act()
            self.drain()
        except (InvariantBroken, self.host.engine.Error, OSError) as err:  # also: a record cannot be read
            self._stop(err)
        finally:
            self.host._leave()

    def _catch_up(self) -> None:
        """Tells the core what the stream's C side appended: it must never decide about a log longer than it knows.

        A sync may have been reported before the append that it covers, and what C writes at once it does not report; so
        what is durable is looked up.
        """
        core, log = self.core, self.log
        core.now = self.host.ticks
        last = log.last
        if last > core.last:
            core.appended(last)
        if core.synced < last and core.role is LEADER:
            durable = log.durable
            if durable > core.synced:
                core.durable(durable)
                self.host._moved[self] = None

    def receive(self, message: Message) -> None:
        """One small message for this group."""
        if self._failed:
            return
        try:
            self._catch_up()
            self.core.step(message)
            self.drain()
        except (InvariantBroken, self.host.engine.Error, OSError) as err:  # also: a record cannot be read
            self._stop(err)

    def receive_append(self, peer: str, head: AppendHead, runs: list[tuple[int, int, int]], raw: memoryview) -> None:
        """Verified records for this group. Raises ValueError when they do not follow head.prev_index."""
        if self._failed:
            return
        core = self.core
        self._catch_up()
        try:
            if core.step_append(peer, head.term, head.prev_index, head.prev_term, head.commit, runs, raw):
                if core.out.role:
                    self._tell_loss()
                self._store(head.members)
                self._answer()
            self.drain()
        except (InvariantBroken, NewerVersion, self.host.engine.Error, OSError) as err:  # also: one cannot be read
            self._stop(err)

    def _answer(self) -> None:
        """The leader waits for the ack of what is stored: it leaves before what it carried along is applied."""
        out, host = self.core.out, self.host
        if out.commit and out.messages and not (out.role or out.hard_state or self._failed):
            self._post()
            host._send_posts()
            host.transport.push()

    def _store(self, may_hold_members: bool) -> None:
        core, log, out = self.core, self.log, self.core.out
        if out.truncate >= 0:
            self._cut()
        raw, lo = out.append, out.append_from
        out.append = None
        if self._failed:
            return
        assert isinstance(raw, memoryview)
        try:
            log.append_raw(raw, lo, verified=True)
            log.submit_now()
        except (self.host.engine.Error, OSError) as err:
            core.append_failed(log.last, lo)
            if log.error:
                core.disk_failed()
            if not self._refuses:  # each frame tries again
                self.host.log_line("error", f"raft group {self.id}: the log took no records from {lo} on: {err}")
            self._refuses = True
            return
        self._refuses = False
        if may_hold_members:
            for index in range(lo, log.last + 1):
                record = log.read(index)
                if record.kind == KIND_MEMBERS:
                    core.members_seen(members_from_json(index, record.data, self.host.protocol.newest))
        if log.durable >= lo:  # written at once, where no sync is waited for
            core.durable(log.durable)
            self.host._moved[self] = None

    def _cut(self) -> None:
        last = self.core.out.truncate
        self.core.out.truncate = -1
        self.host.log_line("info", f"raft group {self.id}: records after {last} gave way to the leader's")
        core = self.core
        if core.hard.known > last:
            core.hard.known = last  # what goes now is not missing later
            self.host._write_hard(self, core.hard_seq)
        try:
            self.log.truncate(last)
        except (self.host.engine.Error, OSError) as err:
            self.fail(f"the records after {last} cannot be cut: {err}")
            return
        self.core.synced = min(self.log.durable, last)

    def tick(self) -> None:
        """The group's deadline may have come."""
        if self._failed:
            return
        core = self.core
        try:
            self._catch_up()
            core.clock_ms = self.host.clock_ms()
            if self.wanted:
                core.busy = core.now  # what is asked again with each heartbeat lets no leader sleep
            core.tick()
            self.drain()
            if core.led:
                try:
                    self._reconcile()
                    self._mend()
                except (ChangeRefused, NotLeader):
                    pass  # not now: asked again with the next heartbeat
            if self.paused or core.transferee:
                self._hold()
        except (InvariantBroken, self.host.engine.Error, OSError) as err:  # also: a record cannot be read
            self._stop(err)

    def durable(self) -> None:
        """The log's durable index moved, or it failed."""
        if self._failed:
            return
        core = self.core
        self._catch_up()
        if self.log.error and core.disk:
            self.host.log_line("error", f"raft group {self.id}: the log failed ({self.log.error}); it only reads now")
            core.disk_failed()
        try:
            core.durable(self.log.durable)
            self.host._moved[self] = None
            self.drain()
        except (InvariantBroken, self.host.engine.Error, OSError) as err:
            self._stop(err)

    def hard_state_durable(self, seq: int) -> None:
        """Hard state number `seq` is on the disk: what waited for it may leave."""
        if self._failed:
            return
        held = self.held
        if held:
            out = self.core.out.messages
            keep = []
            for item in held:
                if item[0] <= seq:
                    if item[1].term >= self.core.term:  # an ack of an older term may name records cut since
                        out.append(item[1])
                else:
                    keep.append(item)
            self.held = keep
        self._catch_up()
        try:
            self.core.hard_state_durable(seq)
            self.drain()
        except (InvariantBroken, self.host.engine.Error, OSError) as err:
            self._stop(err)

    def peer(self, name: str, up: bool) -> None:
        """The link to `name` came up or went down."""
        self._input(lambda: self.core.peer_up(name) if up else self.core.peer_down(name))

    def peer_back(self, name: str) -> None:
        """`name` was silent for a while, and is not any more."""
        self._input(lambda: self.core.peer_back(name))

    def forget(self, name: str) -> None:
        """What `name` acknowledged before is not on its disk any more (R-3)."""
        self._input(lambda: self.core.forget(name))

    def _stop(self, err: Exception) -> None:
        self.fail(str(err), isinstance(err, self.host.engine.Corrupt))

    def unreadable(self, err: Exception) -> None:
        """A record of the log was to be read, and cannot be."""
        self._stop(err)

    @property
    def stopped(self) -> bool:
        """Whether it takes no part any more: its log may be closed."""
        return self._failed

    @property
    def difference(self) -> Difference | None:
        """Committed records that are not the same everywhere, as found last; another leader looks anew."""
        found = self._difference
        return found[1] if found is not None and found[0] == self.core.term else None

    @difference.setter
    def difference(self, found: Difference | None) -> None:
        self._difference = None if found is None else (self.core.term, found)

    def differs(self, found: Difference) -> None:
        """Records here are not what a majority holds; or, as leader, some differ anywhere."""
        self.difference = found
        if self.on_differs is not None and not self._failed:
            self.on_differs(found)

    def fail(self, why: str, damaged: bool = False) -> None:
        """Stops this group for good in this process; the host and its other groups go on."""
        if self._failed:
            return
        self._failed = True
        self.host.log_line("error", f"raft group {self.id} stops: {why}")
        core = self.core
        self._leave_awake()
        core.led = False
        core.leader = ""
        core.out.role.clear()
        self._lose_reads()
        self._tell(FOLLOWER, core.term)
        if damaged and self.on_damage is not None:
            self.on_damage(why)

    def copy_committed(self, lo: int, hi: int, cap: int) -> tuple[bytes, int]:
        """Raw records from `lo` on that are known here to be committed, about `cap` bytes but at least one, and the
        index of the last. Raises: NotFound, Corrupt.
        """
        hi = min(hi, self.core.commit)
        if self._failed or lo > hi:
            return b"", 0
        try:
            return self.log.copy(lo, hi, cap)
        except self.host.engine.Full:
            return self.log.copy(lo, lo, 128 << 20)

    def committed_config(self, upto: int) -> Members | None:
        """The configuration in force at record `upto`, as far as this replica remembers."""
        known = [c for c in self.core.hard.members if c.index <= upto]
        return known[-1] if known else None

    def needed_from(self) -> int:
        """The first record that is kept for a follower."""
        return self.core.needed_from(self.host.transport.connected)

    def trimmed(self) -> None:
        """The log let go of its start."""
        self.core.trimmed(self.log.first)

    def drop(self) -> None:
        """The group was removed: nothing is sent or called back any more, but for reads that are lost."""
        self._leave_awake()
        self._failed = True
        self._lose_reads()

    def _leave_awake(self) -> None:
        """A leader that stops while its host goes on: nobody who sleeps would miss it."""
        core = self.core
        core.wake_others()
        self._post()

    def _post(self) -> None:
        """What the core has to say to others goes to the host's outbox."""
        out = self.core.out
        messages, out.messages = out.messages, []
        for m in messages:
            self.host._post(m.peer, encode(m, self._raw_id))

    # ---- carrying out ----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Carries out Core.out until it is empty. Callbacks may propose: that only fills Core.out again."""
        if self._draining:
            return
        self._draining = True
        core, host = self.core, self.host
        out = core.out
        try:
            again = True
            while again:
                again = False
                if out.role:
                    self._tell_loss()
                if out.truncate >= 0:
                    self._cut()
                if out.hard_state:
                    seq, out.hard_state = out.hard_state, 0
                    host._write_hard(self, seq)
                if out.lost:
                    why = f"this disk lost synced records up to {out.lost}"
                    host.log_line("error", f"raft group {self.id}: {why}; {MUTED}")
                    out.lost = 0
                if out.messages:
                    self._post()
                if out.after:
                    seq = core.hard_seq
                    self.held.extend((seq, m) for m in out.after)
                    out.after.clear()
                if out.proposals:
                    self._append_proposals()
                    again = True
                if out.sends:
                    self._send_records()
                commit = out.commit
                if commit and not self._failed:
                    out.commit = 0
                    if core.role is LEADER:
                        host._dirty[self] = None
                        host.compare.note(self)
                    self._committed(commit)
                    again = True
                if out.reads:
                    self._answer_reads()
                    again = True
                if out.role:
                    roles, out.role = out.role, []
                    for role, term in roles:
                        self._tell(role, term)
                    again = True
                if out.needs_snapshot:
                    names = out.needs_snapshot[:]
                    out.needs_snapshot.clear()
                    if core.name in names and self.on_behind is not None:
                        self.on_behind(core.needs)
                if self._failed:
                    return
        finally:
            self._draining = False
            if core.deadline < self.due:
                host._schedule(self)

    def _tell(self, role: Role, term: int) -> None:
        leads = role is LEADER
        if leads or self.told_leader:
            self.told_leader = leads
            self.paused = 0
            self.leader_since = time.time_ns() if leads else 0
            self.mended = self.host.ticks
            if leads:
                self.host.compare.note(self)
            self.on_role(role, term)

    def _tell_loss(self) -> None:
        """Before the log changes or more is applied: who waits for an index of the lost term must not get another's."""
        out = self.core.out
        lost = max((i for i, (role, _) in enumerate(out.role) if role is FOLLOWER), default=-1)
        if lost >= 0:
            term = out.role[lost][1]
            del out.role[: lost + 1]
            self._tell(FOLLOWER, term)

    def _append_proposals(self) -> None:
        core, log = self.core, self.log
        proposals, core.out.proposals = core.out.proposals, []
        for what, members in proposals:
            if core.role is not LEADER:
                return
            if what == NOOP or members is None:
                index = self._append_own(KIND_NOOP, b"")
            else:
                index = self._append_own(KIND_MEMBERS, members_to_json(members, self._version(members)))
            if not index:
                core.resign()
                return
            if members is not None:
                core.members_seen(replace(members, index=index))
            core.appended(index)
        log.submit()

    def _version(self, members: Members) -> int:
        """The newest version that all know who will read a record of these members."""
        return self.host.understood((*members.everybody, *self.core.members.everybody))

    def _append_own(self, kind: int, data: bytes) -> int:
        """Appends a record of the group's own as leader; 0 when the log takes none."""
        try:
            return self.log.append(kind, data, term=self.core.term)
        except (self.host.engine.Error, OSError) as err:
            self.host.log_line("error", f"raft group {self.id}: the log took no record of the leader's: {err}")
            return 0

    def _send_records(self) -> None:
        core, host = self.core, self.host
        sends, core.out.sends = core.out.sends, []
        for p in sends:
            p.queued = False
            if host._waiting and host.must_wait(p.name):
                host.waits(p.name, self)
                continue
            while (span := core.next_send(p)) is not None:
                if not self._send_frame(p, span):
                    break

    def _send_frame(self, p: Progress, span: tuple[int, int, int]) -> bool:
        """One frame of records for a follower; False when the link did not take it."""
        core, host = self.core, self.host
        lo, hi, prev_term = span
        indexes = core.hard.members_indexes
        members = bool(indexes) and indexes[-1] >= lo and core.holds_members(lo, hi)
        head = encode_head(self._raw_id, core.term, lo - 1, prev_term, core.commit, members)
        last = host.transport.send_records(p.name, FRAME_APPEND, head, self.log, lo, hi, FRAME_CAP)
        core.sent(p, last)
        if not last and host.transport.connected(p.name):
            host.waits(p.name, self)
        return bool(last)

    def send_one(self, peer: str) -> tuple[bool, bool]:
        """The link to `peer` has room for a frame. Whether one was taken, and whether there is more for it."""
        p = self.core.progress.get(peer)
        if self._failed or p is None:
            return False, False
        sent = more = False

        def send() -> None:
            nonlocal sent, more
            p.paused = False
            span = self.core.next_send(p)
            if span is not None:
                sent = self._send_frame(p, span)
                more = not sent or self.core.next_send(p) is not None

        self._input(send)
        return sent, more

    def _committed(self, commit: int) -> None:
        self.log.set_commit(commit)
        hard = self.core.hard
        if commit - hard.scanned >= MARK_EVERY:
            hard.scanned = commit
            self.host._write_hard(self, self.core.hard_seq)
        self.on_commit(commit)

    def _heir(self, names: Iterable[str]) -> str:
        """Who of these can lead at once, best of all; nobody: empty."""
        core = self.core
        up = [core.progress[n] for n in names if n in core.progress and self.host.transport.connected(n)]
        voters = set(core.members.voters) - {core.name}
        ready = [p for p in up if p.counted and p.match >= core.caught and p.name in voters]
        return max(ready, key=lambda p: (p.match, p.name)).name if ready else ""

    def _leave_lead(self) -> bool:
        """A leader that is to go hands over before it goes, if one that stays is ready (R-26); tried once a term."""
        heir = self._heir(self.wanted)
        if not heir or self._left == self.core.term:
            return False
        self._left = self.core.term
        self.transfer(heir)
        return True

    def relieve(self) -> bool:
        """The disk here takes no more: another one that keeps up is to lead (R-48). False: there is none now, or that
        was so a moment ago, too: where every disk is full leadership does not go round. And while the others have not
        synced all that was taken here: their disks may be as full, and none of them could commit a record of its term.
        """
        core, ticks = self.core, self.host.ticks
        if not core.led or core.transferee or ticks < self._relieved or core.commit < core.last:
            return False
        heir = self._heir(core.members.voters)
        if not heir:
            return False
        self._relieved = ticks + core.timing.slow_ticks
        self.transfer(heir)
        return True

    def _reconcile(self) -> None:
        core = self.core
        wanted = self.wanted
        if not wanted or core.transferee:
            return
        if not self._is_as_wanted():
            if core.name not in wanted and core.changing is None and self._leave_lead():
                return
            core.change(wanted, instead=True)
            self.drain()
        else:
            self.wanted = ()

    def _is_as_wanted(self) -> bool:
        members = self.core.members
        if members.outgoing or members.learners or self.core.target is not None:
            return False
        return set(members.voters) == set(self.wanted)
