"""Elections: pre-vote, vote, stickiness, transfer. Pure. Source: spec/raft.md R-6 to R-13."""

from __future__ import annotations

from .messages import FLAG_TRUE, MAX_TERM, PREVOTE, PREVOTE_REPLY, VOTE, VOTE_REPLY, Message
from .state import CANDIDATE, FOLLOWER, LEADER, NOOP, PRE_CANDIDATE, InvariantBroken, State


class Election(State):
    """How a replica comes to lead, and stops."""

    __slots__ = ()

    def _may_campaign(self) -> bool:
        if not self.disk or self.hard.mute >= 0:
            return False
        if self.gone:
            return False
        if self.synced < self.last and self.now - self.synced_tick >= self.timing.slow_ticks:
            return False  # its disk hangs
        for members in reversed(self.hard.members):
            if members.is_voter(self.name):
                return True
            if members.index <= self.commit:
                return False
            # Removed by a record that may not be committed: perhaps only its log can still win (dissertation 4.2.2).
        return False

    def _pre_campaign(self) -> None:
        if self.role is not PRE_CANDIDATE:
            self.role = PRE_CANDIDATE
        self.leader = ""
        self.quiet = False
        self.current = self.whole = False
        self.votes = {self.name}
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
        for name in self.members.all_voters:
            if name != self.name:
                self._send(Message(PREVOTE, name, self.group, self.term + 1, self.last, last_term))

    def _ask_again_soon(self) -> None:
        timing = self.timing
        soon = self.now + self.rng.randint(timing.again_min_ticks, timing.again_max_ticks)
        self.deadline = min(self.deadline, soon)

    def _campaign(self, transfer: bool) -> None:
        self.role = CANDIDATE
        self.leader = ""
        self._set_term(self.term + 1, self.name)
        self.votes = {self.name}
        self._reset_timeout()
        last_term = self.term_at(self.last)
        flags = FLAG_TRUE if transfer else 0
        for name in self.members.all_voters:
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

    def _become_follower(self, term: int, leader: str) -> None:
        was_leader = self.role is LEADER
        if was_leader and term == self.term:
            self.wake_others()  # nobody else would tell them that this one leads no more
        self.role = FOLLOWER
        self.suspect = False
        self.quiet = False
        self.current = self.whole = False
        if term > self.term:
            self._set_term(term, "")
        self.leader = leader
        if was_leader:
            self.progress = {}
            self.out.sends.clear()
            self.transferee = ""
            self.target = None
            self._fail_reads()
            self.verified = min(self.commit, self.last)
            self.acked = 0
            if self.led:
                self.led = False
                self.out.role.append((FOLLOWER, self.term))
        self._reset_timeout()

    def _become_leader(self) -> None:
        self.role = LEADER
        self.leader = self.name
        self.led = False
        self.suspect = False
        self.quiet = False
        self.busy = self.now
        self.caught = self.caught_next = self.last
        self.transferee = ""
        self.term_start = self.last + 1
        self.quorum_at = self.now + self.timing.quorum_ticks
        self.sync_mark = 0
        self.slow_syncs = self.late = 0
        self.watch_from = self.now + self.timing.slow_ticks  # where every disk is slow, leadership does not go round
        self.deadline = self.now + 1
        self.progress = {}
        self._sync_progress()
        for p in self.progress.values():
            p.helped = p.name in self.votes
        self.votes = set()
        if self._leads_at_once():
            self.led = True
            self.out.role.append((LEADER, self.term))
            self._next_round()
            for p in self.progress.values():
                self._heartbeat(p)
            self.deadline = self._next_beat()
        else:
            self.out.proposals.append((NOOP, None))

    def _leads_at_once(self) -> bool:
        """Whether a new leader has nothing to settle, and so needs no record of its term before it leads (R-11).

        That record decides about records whose commit is open, and tells which are committed. A leader all of whose log
        is known to be committed has none that are open, and lacks none that are: whoever is elected holds them all. Its
        term then begins with the first record there is reason for (`_begin_term`). Of thousands of idle groups that are
        started together, or lose a host, each would otherwise wait for a sync of its own file on every replica.
        """
        members = self.members
        if members.outgoing or members.learners or members.agree((self.name,)):
            return False  # a change goes on; or nobody is there to ask
        return self.commit == self.last > 0

    def _begin_term(self) -> None:
        """As leader, puts the first record of the own term into the log, if it has none."""
        if self.last < self.term_start and not self.out.proposals:
            self.out.proposals.append((NOOP, None))

    def _hears_leader(self) -> bool:
        if self.role is LEADER:
            return True  # check quorum ends this by itself
        if self._is_bound():
            return True
        if not self.leader or self.suspect:
            return False
        return self.quiet or self.now - self.heard < self.timing.election_min_ticks

    def _is_bound(self) -> bool:
        """With leases: whether what was answered to a leader still forbids any vote, whatever was heard since (R-8)."""
        timing = self.timing
        return timing.lease and (self.now < self.promised or self.now - self.heard < timing.election_min_ticks)

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
        if granted and self.role is PRE_CANDIDATE:
            own = self.term_at(self.last), self.last
            if (m.log_term, m.index) != own or m.peer < self.name:
                # Two that notice a death together would each get their own vote and wait for a time-out: one yields.
                self.role = FOLLOWER
                self._reset_timeout()
                self._ask_again_soon()
        if self.quiet:
            self._doubt()
        if self.role is LEADER and m.peer in self.progress:
            self._heartbeat(self.progress[m.peer])  # whom it misses: it may have been opened just now
        reply = Message(PREVOTE_REPLY, m.peer, self.group, m.term, hint=self.term, flags=FLAG_TRUE if granted else 0)
        self.out.messages.append(reply)  # promises nothing: no need to wait for the disk

    def _doubt(self) -> None:
        """Somebody misses the leader: it proves itself, or those who slept notice as well (K-65, K-67)."""
        self.quiet = False
        if self.role is LEADER:
            self._wake()
        else:
            self.heard = self.now
            self.deadline = min(self.deadline, self.now + self.timeout)

    def _ask_for_leader(self) -> None:
        """Who may not campaign, and hears of no leader: one that sleeps wakes by this, which nobody can grant."""
        for name in self.members.all_voters:
            if name != self.name:
                self._send(Message(PREVOTE, name, self.group, 0, self.last, 0))

    def _on_prevote_reply(self, m: Message) -> None:
        if m.hint > self.term and self.members.is_voter(m.peer):
            if self.role is LEADER:
                return  # an answer to an older candidacy; the peer's own acks will tell
            self._become_follower(m.hint, "")
            timing = self.timing
            self.deadline = self.now + self.rng.randint(timing.hint_min_ticks, timing.hint_max_ticks)
            return
        if self.role is PRE_CANDIDATE and m.term == self.term + 1:
            self._count(m)
            if self._won():
                self._campaign(False)

    def _won(self) -> bool:
        return self.members.agree(self.votes)

    def _count(self, m: Message) -> None:
        if m.flags & FLAG_TRUE and self._is_itself(m.peer):
            self.votes.add(m.peer)

    def _on_vote(self, m: Message) -> None:
        transfer = bool(m.flags & FLAG_TRUE)
        if m.term > self.term:
            if self._hears_leader() and not transfer:
                return  # not even the term is taken
            self._become_follower(m.term, "")
        granted = (
            m.term == self.term
            and self.role <= PRE_CANDIDATE
            and self.disk
            and self.hard.mute < 0
            and self.vote in ("", m.peer)
            and self._log_is_new_enough(m)
        )
        if granted:
            if not self.vote:
                self._set_term(self.term, m.peer)
            self.role = FOLLOWER
            self._reset_timeout()
        self._send(Message(VOTE_REPLY, m.peer, self.group, self.term, flags=FLAG_TRUE if granted else 0))

    def _on_vote_reply(self, m: Message) -> None:
        if self.role is CANDIDATE and m.term == self.term:
            self._count(m)
            if self._won():
                self._become_leader()
            elif not m.flags & FLAG_TRUE:
                self._ask_again_soon()  # a rival has that vote, and perhaps no majority either

    def _on_timeout_now(self, m: Message) -> None:
        if m.term == self.term and self.role is FOLLOWER and m.peer == self.leader and self._may_campaign():
            if m.commit > self.commit:
                self._commit_to(min(m.commit, self.verified))
            self._campaign(True)

    def _newer_term(self, m: Message) -> None:
        # Only a member's answer can raise the term: a mis-routed one must not (K-18).
        if m.peer in self.members.everybody:
            self._become_follower(m.term, "")
