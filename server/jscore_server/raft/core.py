"""The Raft rules of one group. Pure: no I/O, no clock, no randomness of its own.

Time is a count of ticks that the driver writes to `Core.now` before each input. Inputs are the methods `step`,
`step_append`, `tick`, `appended`, `durable`, `hard_state_durable`, `sent`, `members_seen`, `peer_up`, `peer_down`,
`transfer` and `change`. After each one the driver carries out `Core.out`, in this order:

0. `role`, as far as leadership was lost: nobody may wait for indexes of the own log that others' records take now.
1. `truncate`, then `append` (raw records): the local log; `durable` reports the sync.
2. `hard_state`: hand term, vote and configurations to the disk; call `hard_state_durable(seq)` when they are on it.
3. `messages`: send now. They promise nothing that is not on the disk already.
4. `after`: send once every hard state handed out so far is durable, if their term is not past by then.
5. `proposals`: append these records to the own log as leader, then call `appended`.
6. `sends`: followers that may be sent records: see `next_send`.
7. `commit`, then the rest of `role`.

The hot path of a leader is appended -> sends -> step(ACK) -> commit. Sources: spec/raft.md §2 (rule numbers R-n), the
Raft dissertation, and its 2015 correction for single-server changes of membership (R-22).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from .messages import (
    ACK,
    FLAG_MUTE,
    FLAG_TRUE,
    HEARTBEAT,
    MAX_TERM,
    PREVOTE,
    PREVOTE_REPLY,
    REJECT,
    SNAPSHOT_NEEDED,
    TIMEOUT_NOW,
    VOTE,
    VOTE_REPLY,
    Message,
)

JOINING = 1 << 62  # HardState.mute of a replica that came later and has not heard of its leader yet
NOOP = "noop"
MEMBERS = "members"


class Role(IntEnum):
    """What a replica is in its term."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


class NotLeader(Exception):
    """Only the group's leader can do this; `Group.leader` may name it."""


class ChangeRefused(Exception):
    """A change of membership that the rules do not allow now; the text says which one."""


class InvariantBroken(Exception):
    """Continuing would lose or replace a committed record. The group stops; the host goes on."""


class LogView(Protocol):
    """What the core reads of its log."""

    @property
    def last(self) -> int:
        """Index of the last record, 0 when empty."""
        ...

    def term(self, index: int) -> int:
        """Term of the record at `index`."""
        ...


class Rng(Protocol):
    """Where randomness comes from."""

    def randint(self, a: int, b: int) -> int:
        """A whole number in [a, b]."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """All time spans of Raft. One tick is `tick_ms`; the rest are ticks (spec/raft.md §4 "Default timers")."""

    tick_ms: int = 20
    heartbeat_ticks: int = 5  # 100 ms
    election_min_ticks: int = 25  # 500 ms
    election_max_ticks: int = 50  # 1 s
    quorum_ticks: int = 40  # 800 ms
    hint_min_ticks: int = 1  # a reset link to the leader: campaign after 20 to 60 ms
    hint_max_ticks: int = 3
    quiet_ticks: int = 100  # an idle group's heartbeats, 2 s: silence of its leader's host is the host's to notice
    idle_ticks: int = 50  # nothing to do for so long makes a group idle
    again_min_ticks: int = 5  # a candidacy that met a rival, or was asked too early: the next one after 100 to 200 ms
    again_max_ticks: int = 10
    hurries: int = 3  # pre-votes asked in quick succession after a reset link to the leader
    retry_ticks: int = 10  # records unanswered for so long on a live link were lost
    window: int = 64  # append frames in flight per follower (R-41: with FRAME_CAP, 8 MiB)


@dataclass(frozen=True, slots=True)
class Members:
    """One configuration: effective from the moment its record at `index` is in the log (R-21)."""

    index: int
    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()
    expected: int = 0

    @property
    def quorum(self) -> int:
        """Voters that must agree; never fewer than a majority of the size the group was born for."""
        return max(len(self.voters), self.expected) // 2 + 1


@dataclass(slots=True)
class HardState:
    """What a replica must remember (R-9, R-21): written as one record, so never half."""

    term: int
    vote: str
    members: list[Members]  # oldest first; the last one is in force
    members_indexes: list[int]  # every MEMBERS record known to be in the log
    scanned: int = 0  # members_indexes is complete up to this index
    # >= 0: this replica lost its vote or acked records (spec/raft.md §5). It receives, but neither votes nor counts
    # until it is added anew, or holds what a leader elected without it committed: a term above mute_term (-1: unknown).
    # A replica added later starts so too (JOINING): only a record that comes behind what was committed when it first
    # heard of its leader makes it a voter. An older one was about a former self, which is gone.
    mute: int = -1
    mute_term: int = -1


def recover_members(hard: HardState, last: int, read: Callable[[int], Members | None]) -> None:
    """Brings `hard` in line with a log that ends at `last`: `read(index)` is the configuration held there, if any.

    Only what was committed when `hard` was written is taken from it; the log itself says the rest (R-21).
    """
    known = min(hard.scanned, last)
    hard.members[:] = [c for c in hard.members if c.index <= known]
    hard.members_indexes[:] = [i for i in hard.members_indexes if i <= known]
    for index in range(known + 1, last + 1):
        found = read(index)
        if found is not None:
            hard.members_indexes.append(index)
            hard.members.append(found)


class Progress:
    """What the leader knows of one follower."""

    __slots__ = ("active", "counted", "hint", "hint_tick", "inflight", "match", "name", "next", "paused", "probing",
                 "queued", "sent_tick", "told")  # fmt: skip

    def __init__(self, name: str, next_index: int, now: int) -> None:
        self.name = name
        self.match = 0
        self.next = next_index
        self.probing = True
        self.paused = False  # probing: one is out; else: the link took nothing
        self.inflight: deque[int] = deque()  # last index of each frame not yet acked
        self.active = now
        self.sent_tick = now
        self.hint = 0
        self.hint_tick = now
        self.told = 0  # commit index it was told
        self.queued = False  # stands in out.sends
        self.counted = True  # False: it said that it lost its vote


class Output:
    """What the driver has to do now (order: see the module's text). Reused; `clear` after carrying it out."""

    __slots__ = ("after", "append", "append_from", "commit", "hard_state", "lost", "messages", "needs_snapshot",
                 "proposals", "role", "sends", "truncate")  # fmt: skip

    def __init__(self) -> None:
        self.truncate = -1
        self.append: object = None
        self.append_from = 0
        self.lost = 0
        self.hard_state = 0
        self.messages: list[Message] = []
        self.after: list[Message] = []
        self.proposals: list[tuple[str, Members | None]] = []
        self.sends: list[Progress] = []
        self.commit = 0
        self.role: list[tuple[Role, int]] = []
        self.needs_snapshot: list[str] = []


class Core:
    """One replica of one group. The driver is the only caller; see the module's text."""

    __slots__ = (
        "acked",
        "busy",
        "caught",
        "caught_next",
        "commit",
        "deadline",
        "disk",
        "expected",
        "first",
        "group",
        "hard",
        "hard_durable",
        "hard_seq",
        "heard",
        "hurry",
        "last",
        "leader",
        "led",
        "log",
        "members",
        "name",
        "now",
        "out",
        "preferred",
        "progress",
        "quiet",
        "quorum_at",
        "rng",
        "role",
        "suspect",
        "synced",
        "term",
        "term_start",
        "timeout",
        "timing",
        "told",
        "transfer_at",
        "transferee",
        "verified",
        "vote",
        "votes",
    )  # fmt: skip

    def __init__(
        self,
        group: str,
        name: str,
        log: LogView,
        hard: HardState,
        rng: Rng,
        timing: Timing,
        *,
        commit: int = 0,
        now: int = 0,
        preferred: bool = False,
        first: int = 1,
    ) -> None:
        """A replica that starts from its disk. `log` is synced up to its end; `commit` is an index known committed."""
        self.group = group
        self.name = name
        self.log = log
        self.hard = hard
        self.rng = rng
        self.timing = timing
        self.now = now
        self.out = Output()
        self.term = hard.term
        self.vote = hard.vote
        self.members = hard.members[-1]
        self.role = Role.FOLLOWER
        self.leader = ""
        self.led = False  # leader, and its no-op is committed
        self.last = log.last
        self.first = first  # first index the log still holds
        self.synced = self.last
        self.commit = min(commit, self.last)
        self.verified = self.commit  # proven equal to the leader's log up to here
        self.acked = 0
        self.told = 0  # commit index of a leader that this process heard of
        self.term_start = 0
        self.votes: dict[str, bool] = {}
        self.progress: dict[str, Progress] = {}
        self.hard_seq = 0
        self.hard_durable = 0
        self.heard = -timing.election_max_ticks
        self.suspect = False  # the link to the leader went down
        self.hurry = 0  # pre-votes still to be asked in quick succession: not everybody may have noticed it yet
        self.quiet = False  # idle: leader and followers agree on slow heartbeats
        self.caught = 0  # who holds this much has caught up: the commit index of a heartbeat or two ago
        self.caught_next = 0
        self.busy = now  # last tick at which the leader had something to do
        self.quorum_at = 0
        self.transferee = ""
        self.transfer_at = 0
        self.disk = True  # False: the log takes no writes any more
        self.preferred = preferred
        self.timeout = 0
        self.deadline = 0
        self._reset_timeout()
        if preferred and self.last == 0 and self.term == 0:
            self.deadline = now + 1
        elif self.members.voters == (name,) and self.members.quorum == 1:
            self.deadline = now + 1  # nobody to wait for

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Does what is due at `now`. Nothing is due before `deadline`."""
        if self.now < self.deadline:
            return
        if self.role is Role.LEADER:
            self._tick_leader()
        elif self._may_campaign():
            self._pre_campaign()
        else:
            self._reset_timeout()
            if self.now - self.heard >= self.timing.election_max_ticks:
                self.leader = ""

    def _tick_leader(self) -> None:
        timing = self.timing
        now = self.now
        self.caught, self.caught_next = self.caught_next, self.commit
        if self._is_idle():
            self.quiet = True
            # Spread, so that thousands of idle groups are no burst.
            self.deadline = now + timing.quiet_ticks - self.rng.randint(0, timing.heartbeat_ticks)
        else:
            if self.quiet:
                self._wake()
            self.deadline = now - now % timing.heartbeat_ticks + timing.heartbeat_ticks  # all groups on the same ticks
        if self.transferee and now >= self.transfer_at:
            self.transferee = ""
        if now >= self.quorum_at:
            self.quorum_at = now + timing.heartbeat_ticks
            if not self.quiet and not self._quorum_active():
                self._become_follower(self.term, "")
                return
        for p in self.progress.values():
            self._heartbeat(p)
            if p.paused and now - p.sent_tick >= timing.retry_ticks:
                p.paused = False
            if not p.paused and p.next <= self.last:
                self._queue(p)

    def _is_idle(self) -> bool:
        """Everybody holds and knows everything and has answered lately: then hosts, not groups, prove liveness (§4)."""
        now, last = self.now, self.last
        if self.commit == last and not self.transferee:
            since = now - (3 * self.timing.quiet_ticks if self.quiet else self.timing.quorum_ticks)
            if all(p.match == last and p.told == last and p.active >= since for p in self.progress.values()):
                return now - self.busy >= self.timing.idle_ticks
        self.busy = now
        return False

    def _wake(self) -> None:
        self.quiet = False
        self.busy = self.now
        self.deadline = self.now + 1
        self.quorum_at = self.now + self.timing.quorum_ticks
        for p in self.progress.values():
            p.active = self.now  # its host was heard until now

    def _heartbeat(self, p: Progress) -> None:
        # The follower's own proof limits what it takes of commit, so the leader's whole commit index may travel. The
        # end of what it acked proves its log again after a restart in the same term, when nothing is left to send.
        p.told = commit = self.commit
        match = p.match
        match_term = self.term if match >= self.term_start else self.term_at(match)
        self._send(Message(HEARTBEAT, p.name, self.group, self.term, match, match_term, commit,
                           flags=FLAG_TRUE if self.quiet else 0))  # fmt: skip

    def _quorum_active(self) -> bool:
        oldest = self.now - self.timing.quorum_ticks
        count = 0
        for name in self.members.voters:
            if name == self.name:
                count += 1
            else:
                p = self.progress[name]
                if p.active >= oldest and p.counted:
                    count += 1
        return count >= self.members.quorum

    def tell_commit(self) -> None:
        """Tells followers a commit index that no append has carried. For the driver, a tick after `commit` moved."""
        if self.role is Role.LEADER:
            for p in self.progress.values():
                if p.told < self.commit and not p.paused:
                    self._heartbeat(p)

    def _reset_timeout(self) -> None:
        timing = self.timing
        self.timeout = self.rng.randint(timing.election_min_ticks, timing.election_max_ticks)
        self.deadline = self.now + self.timeout

    def peer_down(self, name: str) -> None:
        """The link to `name` was reset: a hint only. Its follower asks the others soon; pre-vote keeps it safe."""
        if self.role is Role.LEADER:
            p = self.progress.get(name)
            if p is not None:
                if self.quiet:
                    self._wake()
                self._probe(p)
                p.paused = True
        elif self.leader == name:
            self.suspect = True
            timing = self.timing
            self.hurry = timing.hurries
            wait = self.rng.randint(timing.hint_min_ticks, timing.hint_max_ticks)
            self.deadline = min(self.deadline, self.now + wait)

    def peer_up(self, name: str) -> None:
        """The link to `name` is there (again): frames sent before may be lost."""
        if self.role is Role.LEADER:
            p = self.progress.get(name)
            if p is not None:
                self._probe(p)
                self._heartbeat(p)
                if p.next <= self.last:
                    self._queue(p)

    # ---- elections -------------------------------------------------------------------------------------------------

    def _may_campaign(self) -> bool:
        if not self.disk or self.hard.mute >= 0:
            return False
        if self.name in self.members.voters:
            return True
        # Removed by a record that may not be committed: perhaps only its log can still win (dissertation 4.2.2).
        former = self.hard.members[-2:-1]
        return self.members.index > self.commit and bool(former) and self.name in former[0].voters

    def _pre_campaign(self) -> None:
        if self.role is not Role.PRE_CANDIDATE:
            self.role = Role.PRE_CANDIDATE
        self.leader = ""
        self.quiet = False
        self.votes = {self.name: True}
        self._reset_timeout()
        if self.hurry:
            self.hurry -= 1
            self._ask_again_soon()
        if self.term >= MAX_TERM:
            raise InvariantBroken(f"group {self.group}: terms are used up")
        if self._won():
            self._campaign(False)  # a group of one
            return
        last_term = self.term_at(self.last)
        for name in self.members.voters:
            if name != self.name:
                self._send(Message(PREVOTE, name, self.group, self.term + 1, self.last, last_term))

    def _ask_again_soon(self) -> None:
        timing = self.timing
        soon = self.now + self.rng.randint(timing.again_min_ticks, timing.again_max_ticks)
        self.deadline = min(self.deadline, soon)

    def _campaign(self, transfer: bool) -> None:
        self.role = Role.CANDIDATE
        self.leader = ""
        self._set_term(self.term + 1, self.name)
        self.votes = {self.name: True}
        self._reset_timeout()
        last_term = self.term_at(self.last)
        flags = FLAG_TRUE if transfer else 0
        for name in self.members.voters:
            if name != self.name:
                self._send(Message(VOTE, name, self.group, self.term, self.last, last_term, flags=flags))

    def _set_term(self, term: int, vote: str) -> None:
        if term > self.term:
            # What was proven about an older leader's log says nothing about the next one's.
            self.verified = min(self.commit, self.last)
            self.acked = 0
        self.term = term
        self.vote = vote
        self._persist()

    def _persist(self) -> None:
        hard = self.hard
        hard.term = self.term
        hard.vote = self.vote
        hard.scanned = self.commit  # committed records are never cut, so what is known about them stays true
        self.hard_seq += 1
        self.out.hard_state = self.hard_seq

    def _become_follower(self, term: int, leader: str) -> None:
        was_leader = self.role is Role.LEADER
        self.role = Role.FOLLOWER
        self.suspect = False
        self.quiet = False
        if term > self.term:
            self._set_term(term, "")
        self.leader = leader
        if was_leader:
            self.progress = {}
            self.out.sends.clear()
            self.transferee = ""
            self.verified = min(self.commit, self.last)
            self.acked = 0
            if self.led:
                self.led = False
                self.out.role.append((Role.FOLLOWER, self.term))
        self._reset_timeout()

    def _become_leader(self) -> None:
        self.role = Role.LEADER
        self.leader = self.name
        self.led = False
        self.suspect = False
        self.quiet = False
        self.busy = self.now
        self.caught = self.caught_next = self.last
        self.votes = {}
        self.transferee = ""
        self.term_start = self.last + 1
        self.quorum_at = self.now + self.timing.quorum_ticks
        self.deadline = self.now + 1
        self.progress = {}
        self._sync_progress()
        self.out.proposals.append((NOOP, None))

    def go_on_leading(self) -> None:
        """The only member, which led its term without this core until now, leads it on (R-25).

        Its hard state with that term and its own vote is durable, and so is its log up to `commit`.
        """
        assert self.members.voters == (self.name,)
        assert self.vote == self.name
        self.hard_durable = self.hard_seq
        self._become_leader()

    def _sync_progress(self) -> None:
        wanted = [name for name in self.members.voters + self.members.learners if name != self.name]
        for name in wanted:
            if name not in self.progress:
                # The first probe carries the record that is about to come, or the one that brought the member in.
                self.progress[name] = Progress(name, max(self.term_start, self.members.index), self.now)
        if self.members.index <= self.commit:
            for name in [name for name in self.progress if name not in wanted]:
                p = self.progress.pop(name)
                if self.role is Role.LEADER:
                    self._heartbeat(p)  # the last it hears: its removal is committed

    def _hears_leader(self) -> bool:
        if self.role is Role.LEADER:
            return True  # check quorum ends this by itself
        if not self.leader or self.suspect:
            return False
        limit = self.timing.election_min_ticks
        return self.now - self.heard < (limit + self.timing.quiet_ticks if self.quiet else limit)

    def _log_is_new_enough(self, m: Message) -> bool:
        last_term = self.term_at(self.last)
        return m.log_term > last_term or (m.log_term == last_term and m.index >= self.last)

    def _on_prevote(self, m: Message) -> None:
        granted = (
            m.term > self.term
            and self.disk
            and self.hard.mute < 0
            and not self._hears_leader()
            and self._log_is_new_enough(m)
        )
        if granted and self.role is Role.PRE_CANDIDATE:
            own = self.term_at(self.last), self.last
            if (m.log_term, m.index) != own or m.peer < self.name:
                # Two that notice a death together would each get their own vote and wait for a time-out: one yields.
                self.role = Role.FOLLOWER
                self._reset_timeout()
                self._ask_again_soon()
        reply = Message(PREVOTE_REPLY, m.peer, self.group, m.term, hint=self.term, flags=FLAG_TRUE if granted else 0)
        self.out.messages.append(reply)  # promises nothing: no need to wait for the disk

    def _on_prevote_reply(self, m: Message) -> None:
        if m.hint > self.term and m.peer in self.members.voters:
            if self.role is Role.LEADER:
                return  # an answer to an older candidacy; the peer's own acks will tell
            self._become_follower(m.hint, "")
            timing = self.timing
            self.deadline = self.now + self.rng.randint(timing.hint_min_ticks, timing.hint_max_ticks)
            return
        if self.role is Role.PRE_CANDIDATE and m.term == self.term + 1:
            self.votes[m.peer] = bool(m.flags & FLAG_TRUE)
            if self._won():
                self._campaign(False)

    def _won(self) -> bool:
        votes = self.votes
        return sum(1 for name in self.members.voters if votes.get(name)) >= self.members.quorum

    def _on_vote(self, m: Message) -> None:
        transfer = bool(m.flags & FLAG_TRUE)
        if m.term > self.term:
            if self._hears_leader() and not transfer:
                return  # not even the term is taken
            self._become_follower(m.term, "")
        granted = (
            m.term == self.term
            and self.role <= Role.PRE_CANDIDATE
            and self.disk
            and self.hard.mute < 0
            and self.vote in ("", m.peer)
            and self._log_is_new_enough(m)
        )
        if granted:
            if not self.vote:
                self._set_term(self.term, m.peer)
            self.role = Role.FOLLOWER
            self._reset_timeout()
        self._send(Message(VOTE_REPLY, m.peer, self.group, self.term, flags=FLAG_TRUE if granted else 0))

    def _on_vote_reply(self, m: Message) -> None:
        if self.role is Role.CANDIDATE and m.term == self.term:
            self.votes[m.peer] = bool(m.flags & FLAG_TRUE)
            if self._won():
                self._become_leader()
            elif not m.flags & FLAG_TRUE:
                self._ask_again_soon()  # a rival has that vote, and perhaps no majority either

    def _on_timeout_now(self, m: Message) -> None:
        if m.term == self.term and self.role is Role.FOLLOWER and m.peer == self.leader and self._may_campaign():
            self._campaign(True)

    def transfer(self, target: str) -> None:
        """Hands leadership to `target` once it holds the whole log; gives up after one election time-out (R-13).

        Raises: NotLeader, ChangeRefused (no voter of this group).
        """
        if self.role is not Role.LEADER or not self.led:
            raise NotLeader
        if target == self.name:
            return
        if target not in self.members.voters:
            raise ChangeRefused(f"{target} is no voter of {self.group}")
        self.transferee = target
        self.transfer_at = self.now + self.timing.election_max_ticks
        self._try_transfer(self.progress[target])

    def _try_transfer(self, p: Progress) -> None:
        if p.match == self.last:
            self._send(Message(TIMEOUT_NOW, p.name, self.group, self.term))

    # ---- small messages --------------------------------------------------------------------------------------------

    def step(self, m: Message) -> None:
        """One small message from a peer. Messages of older terms and of strangers change nothing."""
        kind = m.kind
        if kind == ACK:
            if m.term == self.term:
                if self.role is Role.LEADER:
                    self._on_ack(m)
            elif m.term > self.term:
                self._newer_term(m)
        elif kind == HEARTBEAT:
            self._on_heartbeat(m)
        elif kind == REJECT:
            if m.term > self.term:
                self._newer_term(m)
            elif m.term == self.term and self.role is Role.LEADER:
                self._on_reject(m)
        elif kind == PREVOTE:
            self._on_prevote(m)
        elif kind == PREVOTE_REPLY:
            self._on_prevote_reply(m)
        elif kind == VOTE:
            self._on_vote(m)
        elif kind == VOTE_REPLY:
            if m.term > self.term:
                self._newer_term(m)
            else:
                self._on_vote_reply(m)
        elif kind == TIMEOUT_NOW:
            self._on_timeout_now(m)
        elif kind == SNAPSHOT_NEEDED and m.term == self.term and m.peer == self.leader:
            self.out.needs_snapshot.append(self.name)

    def _newer_term(self, m: Message) -> None:
        # Only a member's answer can raise the term: a mis-routed one must not (K-18).
        if m.peer in self.members.voters or m.peer in self.members.learners:
            self._become_follower(m.term, "")

    def _send(self, m: Message) -> None:
        if self.hard_seq > self.hard_durable:
            self.out.after.append(m)
        else:
            self.out.messages.append(m)

    # ---- follower --------------------------------------------------------------------------------------------------

    def _accept_leader(self, peer: str, term: int) -> bool:
        """Whether a leader's message of `term` is to be obeyed."""
        if term != self.term:
            if term < self.term:
                self._send(Message(REJECT, peer, self.group, self.term))
                return False
            self._become_follower(term, peer)
        elif self.role is not Role.FOLLOWER:
            if self.role is Role.LEADER:
                raise InvariantBroken(f"group {self.group}: {peer} and {self.name} both lead term {term}")
            self._become_follower(term, peer)
        self.leader = peer
        self.suspect = False
        self.hurry = 0
        self.quiet = False
        self.heard = self.now
        self.deadline = self.now + self.timeout
        return True

    def _on_heartbeat(self, m: Message) -> None:
        if self._accept_leader(m.peer, m.term):
            self.told = max(self.told, m.commit)
            if self.hard.mute == JOINING:
                self._met(m.commit)
            if m.flags & FLAG_TRUE:
                self.quiet = True
                self.deadline = self.now + 3 * self.timing.quiet_ticks + self.timeout
            if m.index > self.verified:
                if m.index > self.last or self.term_at(m.index) != m.log_term:
                    self._lost_records(m.index)
                else:
                    self.verified = m.index
            if m.commit > self.commit:
                self._commit_to(min(m.commit, self.verified))
            elif self.hard.mute >= 0:
                self._may_count_again()
            self._ack()

    def _met(self, commit: int) -> None:
        """The first word of a leader to a replica that joins: see HardState.mute."""
        self.hard.mute = commit
        self.hard.mute_term = self.term
        self._persist()

    def _lost_records(self, index: int) -> None:
        """The leader saw this replica ack `index` in this term, and it is not here: the disk lost synced records."""
        if self.hard.mute < 0:
            self.hard.mute = index
            self.hard.mute_term = self.term
            self._persist()
            self.out.lost = index

    def _ack(self) -> None:
        """Tells the leader what is synced here and equal to its log (R-16)."""
        verified = self.verified
        index = self.synced if self.synced < verified else verified
        self.acked = index
        flags = FLAG_MUTE if self.hard.mute >= 0 else 0
        self._send(Message(ACK, self.leader, self.group, self.term, index, 0, 0, verified, flags))

    def step_append(
        self,
        peer: str,
        term: int,
        prev_index: int,
        prev_term: int,
        commit: int,
        runs: list[tuple[int, int, int]],
        raw: object,
    ) -> bool:
        """Records from a leader: `runs` are (first index, term, count) of `raw`, dense from prev_index + 1.

        True when `out.append` holds records to store. The caller has verified `raw` and that `runs` describe it.
        Raises InvariantBroken when a committed record would be replaced, ValueError when runs do not follow prev_index.
        """
        if not self._accept_leader(peer, term):
            return False
        if not self.disk:
            return False
        if commit > self.told:
            self.told = commit
        if self.hard.mute == JOINING:
            self._met(commit)
        new_last = prev_index
        for first, _, count in runs:
            if first != new_last + 1:
                raise ValueError("records of an append are not dense")
            new_last += count
        if prev_index > self.last:
            self._send(Message(REJECT, peer, self.group, self.term, prev_index, hint=self.last + 1))
            return False
        if prev_index > self.verified and prev_term != self.term_at(prev_index):
            if prev_index <= self.commit:
                raise InvariantBroken(f"group {self.group}: committed record {prev_index} differs at the leader")
            hint = self._first_of_term(prev_index)
            self._send(Message(REJECT, peer, self.group, self.term, prev_index, hint=hint))
            return False
        stored = False
        if new_last > self.verified:
            conflict = self._first_conflict(runs, new_last)
            if conflict:
                self._truncate(conflict - 1)  # proven, same index and other term
            if new_last > self.last:
                self.out.append = raw
                self.out.append_from = self.last + 1
                self.last = new_last
                stored = True
            self.verified = new_last
        if commit > self.commit:
            self._commit_to(min(commit, self.verified))
        if not stored:
            self._ack()
        return stored

    def _first_conflict(self, runs: list[tuple[int, int, int]], new_last: int) -> int:
        """First index that both logs hold with different terms, 0 if none."""
        common = min(self.last, new_last)
        if not runs or common < runs[0][0]:
            return 0
        for first, term, _ in reversed(runs):
            if first <= common:
                if self.term_at(common) == term:
                    return 0  # equal here, so equal everywhere before (log matching)
                break
        for first, term, count in runs:
            for index in range(first, min(first + count, common + 1)):
                if self.term_at(index) != term:
                    return index
        return 0

    def _first_of_term(self, index: int) -> int:
        """First index above commit with the term of `index`: terms never fall along a log."""
        term = self.term_at(index)
        lo, hi = self.commit + 1, index
        while lo < hi:
            mid = (lo + hi) // 2
            if self.term_at(mid) < term:
                lo = mid + 1
            else:
                hi = mid
        return lo

    def _truncate(self, last: int) -> None:
        if last < self.commit:
            raise InvariantBroken(f"group {self.group}: truncation to {last} below commit {self.commit}")
        self.out.truncate = last
        self.last = last
        self.synced = min(self.synced, last)
        hard = self.hard
        if hard.members_indexes and hard.members_indexes[-1] > last:
            hard.members_indexes[:] = [i for i in hard.members_indexes if i <= last]
            hard.members[:] = [c for c in hard.members if c.index <= last]
            self._use_members()

    def append_failed(self, last: int, first: int) -> None:
        """The log took nothing of `out.append`, which began at `first`; it ends at `last` (R-47)."""
        self.last = last
        self.verified = min(self.verified, first - 1)  # what stands there is not what the leader sent
        if self.commit >= first:
            self.commit = self.out.commit = first - 1  # nobody was told yet: Output.commit comes after the records

    def resign(self) -> None:
        """Leads no more, for a reason of the driver's (no space for a record of its own)."""
        if self.role is not Role.FOLLOWER:
            self._become_follower(self.term, "")

    def disk_failed(self) -> None:
        """The log takes no writes any more: lead no more, vote and ack no more (R-12, R-46)."""
        self.disk = False
        if self.role is Role.LEADER:
            # Nobody else can know of it: the one furthest ahead need not wait until it misses the leader.
            voters = [self.progress[n] for n in self.members.voters if n != self.name]
            best = max((p for p in voters if p.counted), key=lambda p: (p.match, p.active), default=None)
            if best is not None:
                self._send(Message(TIMEOUT_NOW, best.name, self.group, self.term))
        if self.role is not Role.FOLLOWER:
            self._become_follower(self.term, "")

    # ---- disk ------------------------------------------------------------------------------------------------------

    def durable(self, index: int) -> None:
        """The own log is synced up to `index`."""
        if index > self.last:
            index = self.last
        self.synced = index
        if self.role is Role.LEADER:
            self._maybe_commit()
        elif self.leader and self.disk:
            verified = self.verified
            if (index if index < verified else verified) > self.acked:
                self._ack()

    def hard_state_durable(self, seq: int) -> None:
        """Hard state number `seq` (Output.hard_state) and all before it are on the disk."""
        if seq <= self.hard_durable:
            return
        self.hard_durable = seq
        if self.role is Role.CANDIDATE and seq == self.hard_seq and self._won():
            self._become_leader()  # a group of one; others win by an answer
        elif self.role is Role.LEADER:
            self._maybe_commit()

    # ---- leader ----------------------------------------------------------------------------------------------------

    def appended(self, last: int) -> None:
        """The leader's own log grew to `last` by records of its term (not yet synced): send before syncing (R-40)."""
        self.last = last
        if self.role is Role.LEADER:
            if self.quiet:
                self._wake()
            queue = self.out.sends
            for p in self.progress.values():
                if not p.paused and not p.queued and (p.probing or len(p.inflight) < self.timing.window):
                    p.queued = True
                    queue.append(p)

    def _queue(self, p: Progress) -> None:
        if not p.queued and (p.probing or len(p.inflight) < self.timing.window):
            p.queued = True
            self.out.sends.append(p)

    def next_send(self, p: Progress) -> tuple[int, int, int] | None:
        """(first index, last index, term before the first) of what `p` may be sent now; None when nothing.

        After each one the driver calls `sent` and asks again.
        """
        lo = p.next
        last = self.last
        if lo > last or p.paused or self.role is not Role.LEADER or len(p.inflight) >= self.timing.window:
            return None
        if lo < self.first:
            p.paused = True
            p.sent_tick = self.now
            self.out.needs_snapshot.append(p.name)
            self._send(Message(SNAPSHOT_NEEDED, p.name, self.group, self.term, self.first))
            return None
        return lo, last, self.term if lo > self.term_start else self.term_at(lo - 1)

    def sent(self, p: Progress, last: int) -> None:
        """Records from `p.next` to `last` went out to `p`, with the commit index; 0: the link took nothing."""
        p.sent_tick = self.now
        if last < p.next:
            p.paused = True
            return
        p.told = self.commit
        if p.probing:
            p.paused = True  # one at a time until the logs are known to join
        else:
            if not p.inflight:
                p.hint_tick = self.now
            p.inflight.append(last)
            p.next = last + 1

    def _probe(self, p: Progress) -> None:
        p.probing = True
        p.paused = False
        p.next = p.match + 1
        p.inflight.clear()

    def _on_ack(self, m: Message) -> None:
        p = self.progress.get(m.peer)
        index = m.index
        if p is None or index > self.last:
            return
        now = self.now
        p.active = now
        if m.flags & FLAG_MUTE:
            p.counted = False
            if m.hint < p.match:
                p.match = m.hint  # it lost what it had
                self._probe(p)
        else:
            p.counted = True
        if index > p.match:
            p.match = index
            inflight = p.inflight
            while inflight and inflight[0] <= index:
                inflight.popleft()
            if p.probing:
                p.probing = False
                p.next = index + 1
            elif p.next <= index:
                p.next = index + 1
            p.paused = False
            self._maybe_commit()
            if self.role is not Role.LEADER:
                return
            if self.transferee == p.name:
                self._try_transfer(p)
        elif p.probing and m.hint >= p.next - 1 and m.hint > p.match:
            # It holds what the probe carried and is only slow to sync it: go on from there.
            p.probing = False
            p.next = min(m.hint, self.last) + 1
            p.paused = False
        if m.hint > p.hint:
            p.hint = m.hint
            p.hint_tick = now
        elif p.inflight and m.hint < p.next - 1 and now - p.hint_tick >= self.timing.retry_ticks:
            self._probe(p)  # frames were lost, though the link lives
            p.hint_tick = now
        if p.next <= self.last and not p.paused:
            self._queue(p)

    def _on_reject(self, m: Message) -> None:
        p = self.progress.get(m.peer)
        if p is None:
            return
        p.active = self.now
        if m.index <= p.match or m.hint > m.index:
            return  # an answer to an older append
        if p.probing and m.index != p.next - 1:
            return
        self._probe(p)
        p.next = max(p.match + 1, min(m.hint, self.last), 1)
        self._queue(p)

    def _maybe_commit(self) -> None:
        """Commits what a quorum has synced, if it is of the own term (R-11, R-17)."""
        members = self.members
        matches = []
        for name in members.voters:
            if name == self.name:
                if self.disk:
                    matches.append(self.synced)
            else:
                p = self.progress[name]
                if p.counted:
                    matches.append(p.match)
        quorum = members.quorum
        if len(matches) < quorum:
            return
        matches.sort(reverse=True)
        index = matches[quorum - 1]
        if index > self.commit and index >= self.term_start:
            self._commit_to(index)

    def _commit_to(self, index: int) -> None:
        if index <= self.commit:
            return
        before = self.commit
        self.commit = index
        self.out.commit = index
        if self.role is not Role.LEADER:
            if self.hard.mute >= 0:
                self._may_count_again()
            return
        if not self.led and index >= self.term_start:
            self.led = True
            self.out.role.append((Role.LEADER, self.term))
        if before < self.members.index <= index:
            self._sync_progress()
            if self.name not in self.members.voters:
                self._hand_over()

    def _may_count_again(self) -> None:
        hard = self.hard
        if self.out.append is not None and self.commit >= self.out.append_from:
            return  # that record is not in the log yet: looked at again with the next heartbeat
        if hard.mute_term < 0:
            hard.mute_term = self.term  # this leader may stand on the vote that was lost; the next one does not
            self._persist()
        elif self.term > hard.mute_term and self.commit >= hard.mute and self.term_at(self.commit) == self.term:
            hard.mute = -1
            self._persist()

    def _hand_over(self) -> None:
        best = max((self.progress[n] for n in self.members.voters), key=lambda p: p.match, default=None)
        if best is not None and best.match == self.last:
            self._send(Message(TIMEOUT_NOW, best.name, self.group, self.term))
        for p in self.progress.values():
            self._heartbeat(p)
        self._become_follower(self.term, "")

    # ---- membership ------------------------------------------------------------------------------------------------

    def change(self, voters: tuple[str, ...], learners: tuple[str, ...]) -> None:
        """Proposes a configuration that differs by one voter, or only in learners (R-22, R-23, R-24).

        Raises: NotLeader; ChangeRefused with the rule that forbids it now.
        """
        if self.role is not Role.LEADER or not self.led or self.transferee:
            raise NotLeader  # a record of the own term must be committed first
        current = self.members
        if current.index > self.commit:
            raise ChangeRefused("the former change is not committed yet")
        added = [n for n in voters if n not in current.voters]
        removed = [n for n in current.voters if n not in voters]
        if len(added) + len(removed) > 1:
            raise ChangeRefused("one voter at a time")
        if not voters:
            raise ChangeRefused("the last voter cannot be removed")
        if len(set(voters + learners)) != len(voters) + len(learners):
            raise ChangeRefused("a member is named twice")
        for name in added:
            p = self.progress.get(name)
            if name not in current.learners or p is None:
                raise ChangeRefused(f"{name} must be a learner first")
            if p.match < self.caught:
                raise ChangeRefused(f"{name} has not caught up")
        expected = min(current.expected, len(voters)) if removed else current.expected
        self.out.proposals.append((MEMBERS, Members(0, tuple(voters), tuple(learners), expected)))

    def members_seen(self, index: int, voters: tuple[str, ...], learners: tuple[str, ...], expected: int) -> None:
        """A MEMBERS record is in the log at `index`: it is in force from now on (R-21).

        To be called in order of index, before `appended` (leader) or right after the records were stored (follower).
        """
        hard = self.hard
        if hard.members_indexes and index <= hard.members_indexes[-1]:
            return
        before = self.members
        hard.members_indexes.append(index)
        hard.members.append(Members(index, voters, learners, expected))
        if len(hard.members) > 8:
            # Only the last one can be uncommitted, so the older ones can't come back.
            del hard.members[:-8]
        if 0 <= hard.mute < index and self.name in voters and self.name not in before.voters:
            hard.mute = -1  # the group has let this replica in again, knowing only its new history
            self._persist()
            hard.scanned = min(self.commit, index)
        self.last = max(self.last, index)
        self._use_members()

    def _use_members(self) -> None:
        self.members = self.hard.members[-1]
        if self.role is Role.LEADER:
            self._sync_progress()
        elif self.role is not Role.FOLLOWER:
            self._become_follower(self.term, "")

    def holds_members(self, lo: int, hi: int) -> bool:
        """Whether some record in [lo, hi] is a MEMBERS record."""
        for index in reversed(self.hard.members_indexes):
            if index <= hi:
                return index >= lo
        return False

    def term_at(self, index: int) -> int:
        """Term of the record at `index`; 0 before the first."""
        return self.log.term(index) if index else 0
