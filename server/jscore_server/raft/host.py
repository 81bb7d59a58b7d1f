"""All Raft groups of one server: ticks, the shared log of hard states, frames in and out.

Hot path: Group.appended -> Core -> Transport.send_records on the leader; `receive` -> Group.receive_append -> Log on a
follower; `durable` -> Core -> one small frame back; `receive` -> Core -> on_commit on the leader.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from jscore_server.version import PROTOCOL, Versions

from . import hardlog
from .bootstrap import Adopt, Birth, Bootstrap, Hello, Wait, decide
from .candidates import Candidates
from .compare import COMPARE_PROTOCOL, Comparer, Difference
from .core import Role, Timing
from .group import KIND_HOST, KIND_MEMBERS, MUTED, Group, Log
from .members import JOINING, HardState, Members, members_from_json, recover_members
from .messages import (
    FRAME_APPEND,
    FRAME_COMPARE,
    FRAME_SMALL,
    HEARTBEAT,
    PREVOTE,
    VOTE,
    Message,
    ProtocolError,
    decode,
    decode_head,
    group_bytes,
)

REFUSED = 1 << 62  # in place of an index: the log took no record
MAX_EARLY = 1024  # messages kept for groups that do not exist here yet
WITNESS_TICKS = 50
GROUPS_A_TICK = 200  # with so many more groups, a host is not called silent for a tick longer
MAX_STEPS = 3  # ticks that one call may make up for: a pause of this process is no silence of its peers


class Transport(Protocol):
    """The links to the other servers."""

    def send(self, peer: str, kind: int, body: bytes) -> bool:
        """Queues a frame; False when it was not taken (no link, or too much is queued)."""
        ...

    def push(self) -> None:
        """What is queued may leave now, unless there is more to handle that may add to it."""
        ...

    def send_records(self, peer: str, kind: int, head: bytes, log: Any, lo: int, hi: int, cap: int) -> int:
        """Queues a frame of `head` and the raw records from lo on, at most hi and about cap bytes but at least one.

        Returns the last index sent, 0 when nothing was taken.
        """
        ...

    def connected(self, peer: str) -> bool:
        """Whether a link to `peer` is up."""
        ...


class RaftHost:
    """Every Raft group of this server. One thread calls everything."""

    def __init__(
        self,
        name: str,
        store: Any,
        directory: str,
        transport: Transport,
        *,
        rng: random.Random,
        log_line: Callable[[str, str], None],
        timing: Timing | None = None,
        engine: Any = None,
        clock_ms: Callable[[], int] | None = None,
        protocol: Versions = PROTOCOL,
    ) -> None:
        """Opens `<directory>/hardstate` in `store`; `directory` exists. Raises hardlog.NewerFormat.

        `engine` (default: the module jscore) has scan_records, Error, Corrupt.
        """
        if engine is None:
            import jscore

            engine = jscore
        self.name = name
        self.transport = transport
        self.rng = rng
        self.log_line = log_line
        self.timing = timing or Timing()
        self.engine = engine
        self.clock_ms = clock_ms or _boot_ms
        self.protocol = protocol
        self.spoken: dict[str, int] = {}  # peer -> the newest protocol it knows, as it said when last met
        self.ticks = self.timing.election_max_ticks
        self.groups: dict[str, Group] = {}
        self.birth: Birth | None = None
        self.elected = False
        self.directory_id = ""
        self.wiped = False  # peers knew this server by another directory: its votes and acks of then are gone
        # Groups created by meta entries up to this one may have known the former directory. -1: not known yet, so all.
        self.wiped_until = -1
        self._meta_lasts: dict[str, int] = {}  # where the meta logs of peers ended when they said hello
        self.known: dict[str, str] = {}  # the directory id by which a server was first met; its own is there, too
        self.met: dict[str, str] = {}  # the directory id that a peer had when its link last came up
        self._reads = 0
        # Starts of this server and of its peers as far as told: (directory, number, drawn). One that falls back to an
        # older number, or to the same one drawn anew, stands on an old copy of its files.
        self.start: tuple[str, int, str] = ("", 0, "")
        self._starts: dict[str, tuple[str, int, str]] = {}
        self._by_log: dict[Any, Group] = {}
        self._hard: dict[str, HardState] = {}
        hardlog.settle(directory)
        self._log: Log = store.open(f"{directory}/{hardlog.NAME}")
        self._pending: deque[tuple[int, Group, int]] = deque()  # (index in the hard state log, group, seq)
        self._unsubmitted = False
        self._refused = False  # since the last offer some record was not taken
        self._outbox: dict[str, list[bytes]] = {}
        self._dirty: dict[Group, None] = {}
        self._moved: dict[Group, None] = {}  # logs that were synced further since the last look
        self._wheel: dict[int, list[Group]] = {}
        self._early: dict[tuple[str, str], tuple[int, Message]] = {}
        self._newborn: list[Group] = []
        self._hellos: dict[str, Hello] = {}
        self._heard: dict[str, int] = {}  # linked peers: tick of the last frame from them
        self.present: set[str] = set()  # linked peers that are not silent
        self._told: dict[str, int] = {}  # tick of the last frame to them
        self._silent: dict[str, None] = {}  # linked peers that say nothing
        self._hinted: dict[str, int] = {}  # linked peers: tick of the last datagram from them
        self._waiting: dict[str, dict[Group, None]] = {}  # peer -> groups with records for it, when its link was full
        self._waits_since: dict[str, int] = {}
        self.compare = Comparer(self)
        self.candidates = Candidates(name, self.present, self.timing.election_max_ticks)
        self._depth = 0
        self._next_ns = -1  # when the next tick is due
        self.hurry: Callable[[], None] | None = None  # called when something is due before the end of a rest
        self._rest = 1
        self._sooner = False
        self._damaged = False
        self._load()
        if self._damaged or getattr(self._log, "bytes", 0) > hardlog.REWRITE_BYTES:
            self._shorten(store, directory)

    # ---- hard state ------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        log = self._log
        damaged = 0
        for index in range(log.first, log.last + 1):
            try:
                body = msgspec.json.decode(log.read(index).data)
            except self.engine.Corrupt:
                damaged += 1
                continue
            if body.get("version", 1) > self.protocol.newest:
                log.close()
                raise hardlog.NewerFormat(body["version"], self.protocol.newest)
            if "g" in body:
                if body.get("x"):
                    self._hard.pop(body["g"], None)
                else:
                    self._hard[body["g"]] = hard_from_body(body)
            elif "birth" in body:
                self.birth = _birth_of(body["birth"])
                self.elected = False
            elif "elected" in body:
                self.elected = True
                if body["elected"] is not True:  # records of older versions do not say which birth it was
                    self.birth = _birth_of(body["elected"])
            elif "peer" in body:
                self.known[body["peer"]] = body["id"]
            elif "wiped" in body:
                self.wiped = True
                self.wiped_until = int(body.get("until", -1))
            elif "start" in body:
                self.start = ("", *body["start"])
            elif "started" in body:
                self._starts[body["started"]] = tuple(body["at"])
            elif "directory" in body:
                self.directory_id = body["directory"]
        if damaged or log.first > 1:
            self._distrust(damaged)
        if not self.directory_id:
            self.directory_id = f"{self.rng.getrandbits(128):032x}"
            self._write({"directory": self.directory_id}, wait=True)
        self.known[self.name] = self.directory_id
        self._begin(self.start[1] + 1)

    def _begin(self, number: int) -> None:
        self.start = (self.directory_id, number, f"{self.rng.getrandbits(64):016x}")
        self._write(self._start_body(), wait=True)

    def _start_body(self) -> dict[str, Any]:
        """Each start says in which version it goes on to write, if it is not the first one."""
        newest = self.protocol.newest
        return {"start": self.start[1:], "version": newest} if newest > 1 else {"start": self.start[1:]}

    def _distrust(self, damaged: int) -> None:
        """Any term and vote here may be an old one: nobody knows what the damaged records said (spec/raft.md §5)."""
        self.log_line("error", f"raft: {damaged or 'the first'} records of terms and votes are damaged; {MUTED}")
        self._damaged = True
        for hard in self._hard.values():
            if hard.members[-1].voters != (self.name,) and hard.mute < 0:
                hard.mute, hard.mute_term = 0, -1

    def _shorten(self, store: Any, directory: str) -> None:
        """The log holds every election there ever was: only what counts now is kept."""

        def fill(log: Log) -> None:
            for body in self._bodies():
                log.append(KIND_HOST, msgspec.json.encode(body))

        before = self._log.last
        try:
            self._log = hardlog.rewrite(store, directory, self._log, fill)
        except hardlog.NotReplaced as err:
            self.log_line("warn", f"raft: the log of terms and votes stays as long as it is: {err}")
            return
        self.log_line("info", f"raft: {before} records of terms and votes became {self._log.last}")

    def _bodies(self) -> Iterator[dict[str, Any]]:
        yield {"directory": self.directory_id}
        if self.birth is not None:
            yield {"birth": _birth_to(self.birth)}
        if self.elected:
            yield self._elected_body()
        for peer, directory_id in self.known.items():
            if peer != self.name:
                yield {"peer": peer, "id": directory_id}
        if self.wiped:
            yield {"wiped": True, "until": self.wiped_until}
        yield self._start_body()
        for peer, start in self._starts.items():
            yield {"started": peer, "at": start}
        for group_id, hard in self._hard.items():
            yield hard_to_body(group_id, hard)

    def _write(self, body: dict[str, Any], wait: bool = False) -> int:
        try:
            index = self._log.append(KIND_HOST, msgspec.json.encode(body))
        except (self.engine.Error, OSError) as err:
            # What waits for this record goes on waiting: no vote, no ack leaves that a restart could forget.
            if not self._refused:
                self.log_line("error", f"raft: the log of terms and votes takes no more: {err}")
            if wait:
                raise
            self._refused = True
            return REFUSED
        self._unsubmitted = True
        if wait:
            self._submit()
            self._log.wait(index)
        elif not self._depth:
            self._submit()
        return index

    def _submit(self) -> None:
        self._unsubmitted = False
        self._log.submit()

    def _members_in(self, log: Log) -> Callable[[int], Members | None]:
        return lambda index: _members_at(log, index, self.protocol.newest)

    def _write_hard(self, group: Group, seq: int) -> None:
        self._pending.append((self._write(hard_to_body(group.id, group.core.hard)), group, seq))

    def _write_refused(self) -> None:
        """The disk was full, perhaps: what groups wait for is offered again, each as it is now."""
        if self._log.error:
            return
        groups = dict.fromkeys(group for index, group, _ in self._pending if index == REFUSED)
        self._pending = deque(item for item in self._pending if item[0] != REFUSED)
        for group in groups:
            if self.groups.get(group.id) is group:
                self._write_hard(group, group.core.hard_seq)
        self._refused = any(index == REFUSED for index, _, _ in self._pending)
        self._settle_pending()  # what was written behind them may have been on the disk for long

    # ---- groups ----------------------------------------------------------------------------------------------------

    def create_group(
        self,
        group_id: str,
        log: Log,
        voters: list[str],
        *,
        on_commit: Callable[[int], None],
        on_role: Callable[[Role, int], None],
        preferred: str = "",
        expected: int = 0,
        lost: bool = False,
        joins: bool = False,
        alone: int = 0,
        on_hold: Callable[[int], None] | None = None,
        on_damage: Callable[[str], None] | None = None,
        on_behind: Callable[[int], None] | None = None,
        on_differs: Callable[[Difference], None] | None = None,
        floor: int = 0,
        base: Members | None = None,
    ) -> Group:
        """This server's replica of a group, over `log`; `voters` are those at its birth and matter only then.

        A server that is not among them takes part once the leader has added it. on_commit may come from the next tick
        on. `lost`: the group may be older than this directory (see `wiped`), so a replica that is new here neither
        votes nor counts until a leader elected without it has committed. `on_hold`: leadership is being handed over, so
        the leader's log has to stop growing: 1 take no more publishes, 2 append nothing at all, 0 it came to nothing.
        `joins`: the group was born without this replica, so it takes no part before it is let in. `alone`: this server
        is the only member and led the group by itself until now, in this term; it goes on as its leader. Then this
        blocks for one sync. `on_damage`: the group stops, as a record of its log does not verify. `on_behind`: the
        leader's log begins at that index, and this one ends before, or differs. `on_differs`: records here are not what
        a majority holds; the leader hears of all differences, also of those that are not its own to repair. `floor`:
        everything up to it is applied already, from a snapshot, in which `base` was the group's configuration.
        """
        if group_id in self.groups:
            raise ValueError(f"group {group_id} exists")
        group_bytes(group_id)
        hard = self._hard.get(group_id)
        new = hard is None
        if hard is None:
            hard = HardState(0, "", [Members(0, () if joins else tuple(voters), (), expected)], [])
            if log.last and not alone:
                recover_members(hard, log.last, self._members_in(log), log.first, base)
                hard.scanned = log.last
            if alone:
                hard.term, hard.vote, hard.scanned = alone, self.name, log.last
            elif log.last and hard.members[-1].voters == (self.name,):
                hard.term, hard.vote = log.term(log.last), self.name  # nobody else could have been given its vote
            elif log.last:
                # Term and vote are gone though the log is not: nobody can know for whom it voted (spec/raft.md §5).
                hard.mute = JOINING
                hard.term = log.term(log.last)
                why = f"no term and vote for a log of {log.last} records"
                self.log_line("error", f"raft group {group_id}: {why}; {MUTED}")
            elif joins:
                hard.mute = JOINING
            elif lost:
                hard.mute = JOINING
                self.log_line("warn", f"raft group {group_id}: this server's former replica is gone; {MUTED}")
            self._hard[group_id] = hard
        elif log.last < hard.known:
            # Records that were synced, and perhaps acknowledged, are not there any more (spec/raft.md §5).
            what = f"the log ends at {log.last}, it was synced up to {hard.known}"
            if hard.members[-1].voters != (self.name,):
                hard.mute = max(hard.mute, hard.known)
                hard.mute_term = -1
                what += f"; {MUTED}"
            hard.known = log.last
            self.log_line("error", f"raft group {group_id}: {what}")
        recover_members(hard, log.last, self._members_in(log), log.first, base)
        if alone:
            self._write(hard_to_body(group_id, hard), wait=True)
        group = Group(self, group_id, log, hard, on_commit, on_role, preferred == self.name, on_hold, on_damage,
                      on_behind, floor, on_differs)  # fmt: skip
        self.groups[group_id] = group
        self._by_log[log] = group
        self._enter()
        try:
            if alone:
                group.core.commit = group.core.verified = group.core.synced  # alone, what is on the disk is committed
                group.core.go_on_leading()
                group.drain()
            elif new:
                group.core._persist()
                group.drain()
            self._newborn.append(group)
            self._moved[group] = None  # what recovery found, nobody may have stated to be synced
            group.due = 1 << 62
            self._schedule(group)
        finally:
            self._leave()
        return group

    def understood(self, servers: Iterable[str]) -> int:
        """The newest version of records that all of them know, as they last said; who was never met knows the first."""
        newest = self.protocol.newest
        for name in servers:
            if name != self.name:
                newest = min(newest, self.spoken.get(name, 1))
        return newest

    def replaced(self, group_id: str, last: int) -> None:
        """The log of a group that is closed ends at `last` now: what it had beyond was never committed."""
        hard = self._hard.get(group_id)
        if hard is not None and group_id not in self.groups and hard.known > last:
            hard.known = last
            self._write(hard_to_body(group_id, hard))

    def remembers(self, group_id: str) -> bool:
        """Whether this server has, or had, a replica of the group: it keeps a term and a vote for it."""
        return group_id in self._hard

    def close_group(self, group_id: str) -> None:
        """Ends a group here for now: its term and vote are kept for when it is created again."""
        group = self.groups.pop(group_id, None)
        if group is not None:
            group.drop()
            hard = group.core.hard  # what comes back instead of the log is held against all that was promised
            hard.known = max(hard.known, min(group.core.synced, group.log.durable))
            self._forget(group)

    def remove_group(self, group_id: str) -> None:
        """Forgets a group for good; its log is the caller's to delete. Unknown ids are ignored."""
        group = self.groups.pop(group_id, None)
        if group is None:
            return
        group.drop()
        self._forget(group)
        self._hard.pop(group_id, None)
        self._write({"g": group_id, "x": 1})

    def _forget(self, group: Group) -> None:
        self._by_log.pop(group.log, None)
        self._dirty.pop(group, None)
        self._moved.pop(group, None)
        self.compare.forget(group)
        self.candidates.forget(group)

    # ---- links -----------------------------------------------------------------------------------------------------

    def receive(self, peer: str, kind: int, body: bytes) -> None:
        """One frame from `peer`. Raises ProtocolError: the caller closes the link."""
        self._enter()
        try:
            self._heard[peer] = self.ticks
            if self._silent and peer in self._silent:
                del self._silent[peer]
                self.present.add(peer)
                self._each(lambda group: group.peer_back(peer))
            if kind == FRAME_APPEND:
                self._receive_append(peer, body)
            elif kind == FRAME_SMALL:
                groups = self.groups
                for message in decode(body, peer):
                    group = groups.get(message.group)
                    if group is not None:
                        group.receive(message)
                    elif message.kind in (PREVOTE, VOTE, HEARTBEAT) and len(self._early) < MAX_EARLY:
                        # The group may be created here in a moment; waiting for a repeat would cost an election.
                        self._early[message.group, peer] = (self.ticks, message)
            elif kind == FRAME_COMPARE and self.protocol.newest >= COMPARE_PROTOCOL:
                self.compare.receive(peer, body)
            else:
                raise ProtocolError(f"unknown kind {kind} of Raft frame")
        finally:
            self._leave()

    def _receive_append(self, peer: str, body: bytes) -> None:
        head, at = decode_head(body)
        group = self.groups.get(head.group)
        if group is None:
            return  # the leader repeats it
        raw = memoryview(body)[at:]
        try:
            group.receive_append(peer, head, self.engine.scan_records(raw), raw)
        except (self.engine.Corrupt, ValueError) as err:
            raise ProtocolError(f"records from {peer} do not verify: {err}") from None

    def link_up(self, peer: str) -> None:
        """A link to `peer` is ready for frames."""
        self._heard[peer] = self._told[peer] = self.ticks
        self._silent.pop(peer, None)
        self.present.add(peer)
        self._each(lambda group: group.peer(peer, True))
        self.compare.back(peer)

    def link_down(self, peer: str) -> None:
        """The link to `peer` was closed or reset."""
        self._hellos.pop(peer, None)
        self._heard.pop(peer, None)
        self._told.pop(peer, None)
        self._silent.pop(peer, None)
        self._hinted.pop(peer, None)
        self._waiting.pop(peer, None)
        self.present.discard(peer)
        self._each(lambda group: group.peer(peer, False))

    def hinted(self, peer: str) -> None:
        """A datagram of `peer` came, beside its link: it proves nothing, but now their end is a hint as well."""
        if peer in self._heard:
            self._hinted[peer] = self.ticks

    def waits(self, peer: str, group: Group) -> None:
        """The link to `peer` took no more records: `group` goes on when there is room, after those before it."""
        waiting = self._waiting.setdefault(peer, {})
        if not waiting:
            self._waits_since[peer] = self.ticks
        waiting[group] = None

    def must_wait(self, peer: str) -> bool:
        """Whether other groups wait for room on the link to `peer`. Not for ever: who is told nothing tries again."""
        if peer not in self._waiting:
            return False
        if self.ticks - self._waits_since[peer] < self.timing.retry_ticks:
            return True
        self._waits_since[peer] = self.ticks
        return False

    def link_room(self, peer: str) -> None:
        """The link to `peer` takes records again: a frame of each group in turn, so that none starves the others."""
        waiting = self._waiting.pop(peer, {})
        self._enter()
        try:
            while waiting:
                group = next(iter(waiting))
                del waiting[group]
                if self.groups.get(group.id) is not group:
                    continue
                sent, more = group.send_one(peer)
                if not sent and more:
                    break
                if more:
                    waiting[group] = None
        finally:
            if waiting:
                self._waits_since[peer] = self.ticks
                self._waiting[peer] = self._waiting.get(peer, {}) | waiting
            self._leave()

    def _each(self, act: Callable[[Group], None]) -> None:
        self._enter()
        try:
            for group in list(self.groups.values()):
                act(group)
        finally:
            self._leave()

    # ---- time and disk ---------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """Lets time pass up to `now_ns` (monotonic); to be called about every 20 ms, see `rest`."""
        if now_ns < self._next_ns:
            return
        tick_ns = self.timing.tick_ms * 1_000_000
        if self._next_ns < 0:
            self._next_ns = now_ns + tick_ns
            return
        steps = (now_ns - self._next_ns) // tick_ns + 1
        self._next_ns += steps * tick_ns
        most, self._rest = self._rest - 1 + MAX_STEPS, max(1, self._rest - steps)
        self._enter()
        try:
            for _ in range(min(steps, most)):
                self._step()
        finally:
            self._leave()

    def rest(self) -> int:
        """For how many ticks nothing is due, at least 1: `tick` need not be called before, unless `hurry` is.

        What comes from outside meanwhile sees an old time, unless `tick` is called first.
        """
        self._sooner = False
        if self._dirty or self._newborn or self.candidates.busy:
            self._rest = 1
        else:
            timing = self.timing
            most = timing.heartbeat_ticks if self._told else timing.election_min_ticks
            ticks, wheel = self.ticks, self._wheel
            self._rest = next((n for n in range(1, most) if ticks + n in wheel), most)
        return self._rest

    def _step(self) -> None:
        self.ticks += 1
        ticks = self.ticks
        if self._refused and ticks % self.timing.election_min_ticks == 0:
            self._write_refused()
        if self._dirty:
            dirty, self._dirty = self._dirty, {}
            for group in dirty:
                group.core.now = ticks
                group.core.tell_commit()
                group.drain()
        if self._newborn:
            newborn, self._newborn = self._newborn, []
            for group in newborn:
                self._greet(group)
        for group in self._wheel.pop(ticks, ()):
            if group.due != ticks or self.groups.get(group.id) is not group:
                continue  # moved to an earlier tick, or removed
            group.due = 1 << 62
            if group.core.deadline <= ticks:
                meta = self.birth is not None and group.id == self.birth.group  # waits for nobody: the others need it
                if not meta and not self.candidates.admits(group, ticks):
                    continue
                group.tick()
            if group.due > ticks:
                self._schedule(group)
        for group in self.candidates.next(ticks):
            group.tick()
        self.compare.tick()
        self._prove_liveness()
        if ticks % WITNESS_TICKS == 0:
            self._mark(self._log)
            if self._moved:
                self._witness()
        if self._early and ticks % self.timing.election_max_ticks == 0:
            oldest = ticks - self.timing.election_min_ticks
            self._early = {key: item for key, item in self._early.items() if item[0] >= oldest}

    def _witness(self) -> None:
        """How far logs are synced is noted beside them too, a second late at most: who loses the end of one knows."""
        moved, self._moved = self._moved, {}
        for group in moved:
            hard, synced = group.core.hard, min(group.core.synced, group.log.durable)
            if synced > hard.known and self.groups.get(group.id) is group:
                hard.known = synced
                self._write_hard(group, group.core.hard_seq)
            self._mark(group.log)

    def _mark(self, log: Log) -> None:
        try:
            log.mark()
        except (self.engine.Error, OSError):
            pass  # a log that takes no writes says so elsewhere

    def _prove_liveness(self) -> None:
        """Hosts, not groups, prove liveness: an empty frame where nothing else goes; silence is told to all groups."""
        ticks, timing = self.ticks, self.timing
        for peer, told in self._told.items():
            if ticks - told >= timing.heartbeat_ticks and peer not in self._outbox:
                self._outbox[peer] = []
        # A turn in which each of thousands of groups has something to say takes long, and is no silence.
        busy = min(len(self.groups) // GROUPS_A_TICK, timing.election_max_ticks)
        for peer, heard in self._heard.items():
            since = ticks - heard
            if peer not in self._silent and self._is_silent(peer, since - busy):
                nor = ", nor by datagrams" if since - busy < timing.election_min_ticks else ""
                self.log_line("warn", f"{peer} is silent: nothing for {since * timing.tick_ms} ms{nor}")
                self._silent[peer] = None
                self.present.discard(peer)
                self._each(lambda group, peer=peer: group.peer(peer, False))  # type: ignore[misc]

    def _is_silent(self, peer: str, since: int) -> bool:
        """`since`: ticks without a frame that may mean something. Datagrams shorten it, if some came lately."""
        timing = self.timing
        if since >= timing.election_min_ticks:
            return True
        if since < timing.silence_ticks or peer not in self._hinted:
            return False
        return timing.silence_ticks <= self.ticks - self._hinted[peer] < timing.election_max_ticks

    def _greet(self, group: Group) -> None:
        """First tick of a group here: what was known committed is applied, messages that came early are heard."""
        if self.groups.get(group.id) is not group:
            return
        group.core.now = self.ticks
        group.core.out.commit = max(group.core.out.commit, group.core.commit)
        group.drain()
        for key in [key for key in self._early if key[0] == group.id]:
            tick, message = self._early.pop(key)
            if self.ticks - tick < self.timing.election_min_ticks:
                group.receive(message)

    def _schedule(self, group: Group) -> None:
        due = max(group.core.deadline, self.ticks + 1)
        if due < group.due:
            group.due = due
            if due < self.ticks + self._rest:
                self._sooner = True
            self._wheel.setdefault(due, []).append(group)

    def durable(self, log: Any) -> None:
        """The durable index of `log` moved, or it failed; logs of no group here are ignored."""
        self._enter()
        try:
            if log is self._log:
                self._hard_durable()
            else:
                group = self._by_log.get(log)
                if group is not None:
                    group.durable()
        finally:
            self._leave()

    def _hard_durable(self) -> None:
        log = self._log
        self._settle_pending()
        if log.error:
            self.log_line("error", f"raft: the log of terms and votes failed ({log.error}); this server leads no more")
            for group in list(self.groups.values()):  # whoever hears of it may remove groups
                group.core.disk_failed()
                group.drain()

    def _settle_pending(self) -> None:
        pending, durable = self._pending, self._log.durable
        while pending and pending[0][0] <= durable:
            _, group, seq = pending.popleft()
            group.hard_state_durable(seq)

    def _next_read(self) -> int:
        """Numbers of reads are never used twice (R-36)."""
        self._reads += 1
        return self._reads

    def _enter(self) -> None:
        self._depth += 1

    def _leave(self) -> None:
        self._depth -= 1
        if not self._depth:
            if self._unsubmitted:
                self._submit()
            if self._outbox:
                self._send_posts()
            if self._rest > 1 and (self._sooner or self._dirty or self._newborn):
                self._rest = 1
                if self.hurry is not None:
                    self.hurry()

    def _send_posts(self) -> None:
        outbox, self._outbox = self._outbox, {}
        send = self.transport.send
        for peer, bodies in outbox.items():
            if peer in self._told:
                self._told[peer] = self.ticks
            send(peer, FRAME_SMALL, b"".join(bodies))

    def _post(self, peer: str, message: bytes) -> None:
        bodies = self._outbox.get(peer)
        if bodies is None:
            self._outbox[peer] = [message]
        else:
            bodies.append(message)

    # ---- birth of the meta group -----------------------------------------------------------------------------------

    def hello(self) -> dict[str, Any]:
        """What a peer is told when a link comes up: JSON values only."""
        birth = self.birth
        return {
            "name": self.name,
            "directory": self.directory_id,
            "birth": None if birth is None else _birth_to(birth),
            "elected": self.elected,
            "known": self._told_known(),
            "start": self.start,
            "starts": self._starts,
            "protocol": self.protocol.newest,
            "meta": -1 if self.birth is None else self._meta_last(self.birth.group),
        }

    def _told_known(self) -> dict[str, str]:
        """By which directory this server knows its peers: as first met, or as a configuration it holds says."""
        known = {peer: directory_id for peer, directory_id in self.known.items() if peer != self.name}
        for group in self.groups.values():
            for peer, directory_id in group.core.members.ids:
                if peer != self.name and directory_id != self.met.get(peer):
                    known[peer] = directory_id
        return known

    def _meta_last(self, group_id: str) -> int:
        group = self.groups.get(group_id)
        return group.log.last if group is not None else -1

    def lost(self, created: int) -> bool:
        """Whether a group created by meta entry `created` may have had a vote or an acked record of this server's that
        went with its former directory (see `wiped`): to be passed to create_group.
        """
        return self.wiped and (self.wiped_until < 0 or created <= self.wiped_until)

    def known_directory(self, peer: str) -> str:
        """The directory id by which a peer was first met; empty when it never was."""
        return self.known.get(peer, "")

    def _bound_loss(self, hello: Hello, meta_last: int, met: set[str]) -> None:
        """Once every server ever met has said where its meta log ends: what comes later is new to all.

        The former self can have taken part only in what was committed, and some other server holds each such entry.
        """
        if meta_last >= 0:
            self._meta_lasts[hello.name] = meta_last
        met |= self.known.keys()
        if hello.birth is not None:
            met.update(hello.birth.voters)
        met.discard(self.name)
        if met and met <= self._meta_lasts.keys():
            self.wiped_until = max(self._meta_lasts.values())
            self._write({"wiped": True, "until": self.wiped_until})

    def peer_hello(self, peer: str, hello: dict[str, Any]) -> None:
        """A peer's `hello`. Raises ProtocolError when it is none."""
        try:
            found = None
            if hello["birth"] is not None:
                found = _birth_of(hello["birth"])
            meta_last, spoken = hello.get("meta", -1), hello.get("protocol", 1)
            if not isinstance(meta_last, int) or not isinstance(spoken, int) or not 1 <= spoken < 256:
                raise ValueError
            directory, own = str(hello["directory"]), hello["known"].get(self.name, self.directory_id)
            start = _start_of(hello.get("start", ("", 0, "")))
            told = _start_of(hello.get("starts", {}).get(self.name, ("", 0, "")))
            self._hellos[peer] = Hello(peer, directory, found, bool(hello["elected"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ProtocolError(f"{peer} sent no proper hello") from None
        self.spoken[peer] = spoken
        former_start = self._starts.get(peer, ("", 0, ""))
        if own != self.directory_id and not self.wiped:
            self.wiped = True
            self.log_line("warn", f"{peer} knew this server by another store directory: what that one promised is lost")
            self._write({"wiped": True})
        if told[0] == self.directory_id and told[1] >= self.start[1] and told != self.start:
            self._fall_back(peer, told[1])
        if start[1] and (former_start[0] != start[0] or former_start[1] < start[1]):
            self._starts[peer] = start
            self.compare.started(peer)
            self._write({"started": peer, "at": start})
        if self.wiped and self.wiped_until < 0:
            self._bound_loss(self._hellos[peer], meta_last, set(hello["known"]))
        if start[1] and former_start[0] == start[0] and start[1] <= former_start[1] and start != former_start:
            self._each(lambda group: group.forget(peer))  # an older copy of its files
        if self.met.get(peer, directory) != directory:
            self._each(lambda group: group.forget(peer))
        self.met[peer] = directory
        known = self.known.get(peer)
        if known is None:
            self.known[peer] = directory
            self._write({"peer": peer, "id": directory})
        elif known != directory:
            self.log_line("warn", f"{peer} has another store directory than when it was first met")

    def _fall_back(self, peer: str, number: int) -> None:
        """This directory is an older copy of what `peer` has met: what was promised and acked since is lost (R-3)."""
        why = f"{peer} has met a later start of this server ({number}, this one is {self.start[1]}): its files are old"
        self.log_line("error", f"{why}; {MUTED}")
        self._enter()
        try:
            self._begin(number + 1)
            for group_id, hard in self._hard.items():
                group = self.groups.get(group_id)
                hard.mute, hard.mute_term = JOINING, -1
                if group is None:
                    self._write(hard_to_body(group_id, hard))
                else:
                    group.core.resign()
                    group.core._persist()
                    group.drain()
        finally:
            self._leave()

    def meta_birth(self, expected: int) -> Wait | Bootstrap | Adopt:
        """What to do about the meta group now; on Bootstrap or Adopt call `born`, then create the group."""
        own = Hello(self.name, self.directory_id, self.birth, self.elected)
        new_id = f"_meta_:{self.rng.getrandbits(64):016x}"
        return decide(own, expected, list(self._hellos.values()), new_id)

    def born(self, birth: Birth) -> None:
        """Writes the meta group's birth durably, before anything of it may act. Blocks for one sync."""
        self.birth = birth
        self.elected = False
        self._write({"birth": _birth_to(birth)}, wait=True)

    def meta_elected(self) -> None:
        """The meta group has had a leader: its birth is final. Called once it committed its first record."""
        if not self.elected:
            self.elected = True
            self._write(self._elected_body(), wait=True)

    def _elected_body(self) -> dict[str, Any]:
        """With the whole birth once more: else an earlier birth, that gave way, would stand again if a bit flips."""
        return {"elected": True if self.birth is None else _birth_to(self.birth)}

    @property
    def hard_log(self) -> Log:
        """The log of terms and votes: its progress is to be reported by `durable`."""
        return self._log

    def close(self) -> None:
        """Stops all groups and closes the log of hard states."""
        for group in list(self.groups.values()):
            group.drop()
        self.groups.clear()
        self._log.close()


def _start_of(told: Any) -> tuple[str, int, str]:
    """Raises TypeError, ValueError."""
    directory, number, drawn = told
    if not (isinstance(directory, str) and isinstance(number, int) and isinstance(drawn, str)):
        raise ValueError
    return directory, number, drawn


def _boot_ms() -> int:
    """Goes on while the host is suspended: what a leader was sure of is older then (spec/raft.md R-37)."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _birth_to(birth: Birth) -> list[Any]:
    return [birth.group, list(birth.voters), birth.expected]


def _birth_of(body: list[Any]) -> Birth:
    """Raises TypeError, ValueError when `body` is none."""
    group, voters, expected = body
    if not all(isinstance(n, str) for n in [group, *voters]) or not isinstance(expected, int):
        raise ValueError(body)
    return Birth(group, tuple(voters), expected)


def hard_to_body(group_id: str, hard: HardState) -> dict[str, Any]:
    """The record of a hard state in the host's log, as JSON values."""
    return {
        "g": group_id,
        "t": hard.term,
        "v": hard.vote,
        "m": [_members_body(c) for c in hard.members],
        "i": hard.members_indexes,
        "s": hard.scanned,
        "q": [hard.mute, hard.mute_term],
        "d": hard.known,
    }


def hard_from_body(body: dict[str, Any]) -> HardState:
    """What hard_to_body wrote, also in the first version."""
    members = [_members_of(item) for item in body["m"]]
    mute, mute_term = body["q"]
    return HardState(body["t"], body["v"], members, body["i"], body["s"], mute, mute_term, body.get("d", 0))


def _members_body(c: Members) -> list[Any]:
    """As short as it can be: what is not set is not written, and was unknown to the first version."""
    body: list[Any] = [c.index, c.voters, c.learners, c.expected]
    if c.outgoing or c.removed or c.ids:
        body += [c.outgoing, c.outgoing_expected, c.removed, c.ids]
    return body


def _members_of(body: list[Any]) -> Members:
    index, voters, learners, expected, *rest = body
    outgoing, outgoing_expected, removed, ids = rest or ((), 0, (), ())
    pairs = tuple((name, directory_id) for name, directory_id in ids)
    return Members(index, tuple(voters), tuple(learners), expected, tuple(outgoing), outgoing_expected, tuple(removed),
                   pairs)  # fmt: skip


def _members_at(log: Log, index: int, newest: int) -> Members | None:
    record = log.read(index)
    return members_from_json(index, record.data, newest) if record.kind == KIND_MEMBERS else None
