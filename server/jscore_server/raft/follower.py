"""A follower: takes what its leader sends, and says what of it is on disk. Pure. Source: spec/raft.md R-14 to R-18."""

from __future__ import annotations

from .election import Election
from .members import JOINING
from .messages import ACK, FLAG_CURRENT, FLAG_MORE, FLAG_MUTE, FLAG_TRUE, FLAG_WHOLE, FLAG_WITHOUT, REJECT, Message
from .state import FOLLOWER, LEADER, InvariantBroken


class Follower(Election):
    """Appends, acks, truncation, and the loss of what was acked."""

    __slots__ = ()

    def _accept_leader(self, peer: str, term: int) -> bool:
        """Whether a leader's message of `term` is to be obeyed."""
        if term != self.term:
            if term < self.term:
                self._send(Message(REJECT, peer, self.group, self.term))
                return False
            self._become_follower(term, peer)
        elif self.role is not FOLLOWER:
            if self.role is LEADER:
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
            self.current = bool(m.flags & FLAG_CURRENT)
            self.whole = bool(m.flags & FLAG_WHOLE)
            if m.index > self.verified:
                if m.index > self.last or self.term_at(m.index) != m.log_term:
                    self._lost_records(m.index)
                else:
                    self.verified = m.index
            if m.commit > self.commit:
                self._commit_to(min(m.commit, self.verified))
            if m.flags & FLAG_WITHOUT and self.hard.mute >= 0:
                self._may_count_again()
            agrees = self.commit >= m.commit and self.verified == self.last and self.disk and self.hard.mute < 0
            if m.flags & FLAG_TRUE and agrees:
                self.quiet = True
                self.deadline = self.now + 3 * self.timing.sleep_ticks + self.timeout
            self._ack(m.hint)

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

    def _may_count_again(self) -> None:
        """The leader was elected without this replica and counts nothing of it: is a record of its term here?

        Then a quorum of others has that record and all before it, whatever was promised and lost. That only its leader
        knows: the first one that is heard of may be a former one, which a later one replaced with the lost vote.
        """
        hard = self.hard
        if self.term > hard.mute_term and self.commit >= hard.mute and self.term_at(self.commit) == self.term:
            hard.mute = -1
            self._persist()

    def _ack(self, answered: int = 0) -> None:
        """Tells the leader what is synced here and equal to its log (R-16); `answered`: the round of its heartbeat."""
        verified = self.verified
        index = self.synced if self.synced < verified else verified
        self.acked = index
        flags = FLAG_MUTE if self.hard.mute >= 0 else FLAG_TRUE if self.quiet else 0
        if verified < self.last:
            flags |= FLAG_MORE
        self._send(Message(ACK, self.leader, self.group, self.term, index, 0, answered, verified, flags))

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
            conflict = self._first_conflict(runs, new_last) if prev_index < self.last else 0
            if conflict:
                self._truncate(conflict - 1)  # proven, same index and other term
            if new_last > self.last:
                if self.synced >= self.last:
                    self.synced_tick = self.now
                self.out.append = raw
                self.out.append_from = self.last + 1
                self.last = new_last
                stored = True
            self.verified = new_last
        if self.told > self.commit:  # a heartbeat may have overtaken the records that it told of
            self._commit_to(min(self.told, self.verified))
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
            for index in range(max(first, self.first), min(first + count, common + 1)):
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
