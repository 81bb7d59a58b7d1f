"""The Raft rules of one group. Pure: no I/O, no clock, no randomness of its own.

Time is a count of ticks that the driver writes to `Core.now` before each input. Inputs are the methods `step`,
`step_append`, `tick`, `appended`, `durable`, `hard_state_durable`, `sent`, `members_seen`, `peer_up`, `peer_down`,
`transfer`, `change`, `cancel_change` and `read`. After each one the driver carries out `Core.out`, in this order:

0. `role`, as far as leadership was lost: nobody may wait for indexes of the own log that others' records take now.
1. `truncate`, then `append` (raw records): the local log; `durable` reports the sync.
2. `hard_state`: hand term, vote and configurations to the disk; call `hard_state_durable(seq)` when they are on it.
3. `messages`: send now. They promise nothing that is not on the disk already.
4. `after`: send once every hard state handed out so far is durable, if their term is not past by then.
5. `proposals`: append these records to the own log as leader, then call `appended`.
6. `sends`: followers that may be sent records: see `next_send`.
7. `commit`, then the rest of `role`.
8. `reads`: answer them, what is committed by now being applied.

The hot path of a leader is appended -> sends -> step(ACK) -> commit. The rules are in layers, each built on the one
before: state, election, follower, leader, reads, change; members, progress and messages are their values.

Sources: spec/raft.md §2 (rule numbers R-n), the Raft dissertation, and its 2015 correction for single-server changes.
"""

from __future__ import annotations

from .change import Change, Changing
from .members import JOINING, HardState, Members, recover_members
from .messages import (
    ACK,
    HEARTBEAT,
    PREVOTE,
    PREVOTE_REPLY,
    REJECT,
    REMOVED,
    SNAPSHOT_NEEDED,
    TIMEOUT_NOW,
    VOTE,
    VOTE_REPLY,
    Message,
)
from .progress import Progress
from .state import (
    CANDIDATE,
    FOLLOWER,
    LEADER,
    MEMBERS,
    NOOP,
    ChangeRefused,
    InvariantBroken,
    LogView,
    NotLeader,
    Output,
    Rng,
    Role,
    Timing,
)

__all__ = [
    "JOINING", "MEMBERS", "NOOP", "ChangeRefused", "Changing", "Core", "HardState", "InvariantBroken", "LogView",
    "Members", "NotLeader", "Output", "Progress", "Rng", "Role", "Timing", "recover_members",
]  # fmt: skip


class Core(Change):
    """One replica of one group. The driver is the only caller; see the module's text."""

    __slots__ = ()

    def tick(self) -> None:
        """Does what is due at `now`. Nothing is due before `deadline`."""
        if self.now < self.deadline:
            return
        if self.role is LEADER:
            self._tick_leader()
        elif self._may_campaign() and not self._is_bound():
            self._pre_campaign()
        else:
            self._reset_timeout()
            if self.now - self.heard >= self.timing.election_max_ticks:
                self.leader = ""
                self.quiet = False
                if self.disk and not self.gone and self.members.is_voter(self.name):
                    self._ask_for_leader()

    def peer_down(self, name: str) -> None:
        """The link to `name` was reset: a hint only. Its follower asks the others soon; pre-vote keeps it safe."""
        if self.role is LEADER:
            p = self.progress.get(name)
            if p is not None:
                if self.quiet and not self._is_idle():
                    self._wake()
                p.asleep = False
                self._probe(p)
                p.paused = True
                p.round = 0  # whether it can be reached is asked anew
                self.whole = False
                for other in self.progress.values():
                    other.said = -1  # each may have noticed it, too
        elif self.leader == name:
            self.suspect = True
            timing = self.timing
            self.hurry = timing.hurries
            wait = self.rng.randint(timing.hint_min_ticks, timing.hint_max_ticks)
            self.deadline = min(self.deadline, self.now + wait)

    def peer_back(self, name: str) -> None:
        """`name` was silent and says something again, on the same link: no frame of it is lost, and it still leads."""
        if self.role is FOLLOWER and self.leader == name and self.suspect:
            self.suspect = False
            self.hurry = 0
            if self.quiet:
                self.deadline = self.now + 3 * self.timing.sleep_ticks + self.timeout
            else:
                self.deadline = self.now + self.timeout
        self.peer_up(name)

    def peer_up(self, name: str) -> None:
        """The link to `name` is there (again): frames sent before may be lost."""
        if self.role is LEADER:
            p = self.progress.get(name)
            if p is not None:
                if self.quiet:
                    self._look_after(p)
                self._probe(p)
                self._heartbeat(p)
                if p.next <= self.last:
                    self._queue(p)

    def step(self, m: Message) -> None:
        """One small message from a peer. Messages of older terms and of strangers change nothing."""
        kind = m.kind
        if self.members.removed and m.peer in self.members.removed and self.members.index <= self.commit:
            if not self._may_be_back(m):
                self._tell_removed(m)
                return
        if kind == ACK:
            if m.term == self.term:
                if self.role is LEADER:
                    self._on_ack(m)
            elif m.term > self.term:
                self._newer_term(m)
        elif kind == HEARTBEAT:
            self._on_heartbeat(m)
        elif kind == REJECT:
            if m.term > self.term:
                self._newer_term(m)
            elif m.term == self.term and self.role is LEADER:
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
        elif kind == REMOVED:
            self._on_removed(m)
        elif kind == SNAPSHOT_NEEDED and m.term == self.term and m.peer == self.leader and self.verified + 1 < m.index:
            self.out.needs_snapshot.append(self.name)
            self.needs = m.index

    def durable(self, index: int) -> None:
        """The own log is synced up to `index`."""
        if index > self.last:
            index = self.last
        if index > self.synced or index == self.last:
            self.synced_tick = self.now
        self.synced = index
        if self.role is LEADER:
            self._maybe_commit()
        elif self.leader and self.disk:
            verified = self.verified
            if (index if index < verified else verified) > self.acked:
                self._ack()

    def _may_be_back(self, m: Message) -> bool:
        """Whether a former member was let in again, by a record that is not here yet: it leads, or holds all that is
        here, so also the record that removed it, and asks for votes all the same.
        """
        if m.kind in (HEARTBEAT, SNAPSHOT_NEEDED, TIMEOUT_NOW):
            return m.term >= self.term
        return m.kind in (PREVOTE, VOTE) and self._log_is_new_enough(m)

    def _tell_removed(self, m: Message) -> None:
        """A former member asks for votes or claims to lead: all it gets is the word that it was removed (R-4)."""
        if m.kind in (PREVOTE, VOTE, HEARTBEAT):
            self._send(Message(REMOVED, m.peer, self.group, self.term, self.members.index))

    def _on_removed(self, m: Message) -> None:
        # Whoever has a newer configuration than that was let in again since; the first one removed nobody.
        if 0 < m.index >= self.members.index and m.peer in self.members.everybody:
            self.gone = True
            if self.role is not FOLLOWER:
                self._become_follower(self.term, "")

    def hard_state_durable(self, seq: int) -> None:
        """Hard state number `seq` (Output.hard_state) and all before it are on the disk."""
        if seq <= self.hard_durable:
            return
        self.hard_durable = seq
        if self.role is CANDIDATE and seq == self.hard_seq and self._won():
            self._become_leader()  # a group of one; others win by an answer
        elif self.role is LEADER:
            self._maybe_commit()

    def resign(self) -> None:
        """Leads no more, for a reason of the driver's (no space for a record of its own)."""
        if self.role is not FOLLOWER:
            self._become_follower(self.term, "")

    def disk_failed(self) -> None:
        """The log takes no writes any more: lead no more, vote and ack no more (R-12, R-46)."""
        self.disk = False
        if self.role is LEADER:
            # Nobody else can know of it: the one furthest ahead need not wait until it misses the leader.
            best = self._furthest()
            if best is not None:
                self._call_up(best)
        if self.role is not FOLLOWER:
            self._become_follower(self.term, "")
