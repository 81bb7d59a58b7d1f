"""Bugs put into the rules or their driver, as others have shipped them.

Random histories must find every one in PLANTED. Those beside it need a script, and have one in a scenario.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jscore_server.jetstream.repair import Repair
from jscore_server.raft.core import Core, Progress, Role
from jscore_server.raft.messages import ACK, FLAG_TRUE, Message

from .model import Bugs


class AcksBeforeSync(Core):
    """R-16 broken: what was received counts as synced."""

    def _ack(self, answered: int = 0) -> None:
        self.acked = self.verified
        self._send(Message(ACK, self.leader, self.group, self.term, self.verified, 0, answered, self.verified))


class CountsVotesTwice(Core):
    """A duplicated reply is a second vote. Rivals do not give way here either, or hardly any election is contested."""

    def _on_prevote(self, m: Message) -> None:
        role, deadline = self.role, self.deadline
        super()._on_prevote(m)
        self.role, self.deadline = role, deadline

    def _on_vote_reply(self, m: Message) -> None:
        if self.role is Role.CANDIDATE and m.term == self.term and m.flags & FLAG_TRUE:
            self.votes.add(f"{m.peer} {len(self.votes)}")
            if len(self.votes) >= self.members.quorum:
                self._become_leader()


class CommitsOlderTerms(Core):
    """R-11 broken: a majority of copies of an older term's record commits it."""

    def _maybe_commit(self) -> None:
        started, self.term_start = self.term_start, 0
        try:
            super()._maybe_commit()
        finally:
            self.term_start = started


class LeadsWithOpenRecords(Core):
    """R-11 broken: a new leader does not wait for a record of its term, though it does not know what is committed."""

    def _leads_at_once(self) -> bool:
        return self.last > 0


class PromisesBeforeDisk(Core):
    """R-9 broken: votes leave before they are durable."""

    def _send(self, m: Message) -> None:
        self.out.messages.append(m)


class CountsOwnUnsynced(Core):
    """R-17 broken: the leader counts what it has not synced."""

    def _maybe_commit(self) -> None:
        self.synced = self.last
        super()._maybe_commit()


class CutsOnShortAppend(Core):
    """R-14 broken: a short, old append cuts the log behind it."""

    def _first_conflict(self, runs: list[tuple[int, int, int]], new_last: int) -> int:
        return new_last + 1 if new_last < self.last else super()._first_conflict(runs, new_last)


class TrustsAnyLog(Core):
    """An election without the comparison of logs."""

    def _log_is_new_enough(self, m: Message) -> bool:
        return True


class BelievesItsWholeLog(Core):
    """R-18 broken: a follower commits what was never proven to match."""

    def _on_heartbeat(self, m: Message) -> None:
        self.verified = self.last
        super()._on_heartbeat(m)


class AppliesBeforeCommit(Core):
    """A follower takes what it received for committed."""

    def step_append(self, *args: Any) -> bool:
        stored = super().step_append(*args)
        self._commit_to(self.verified)
        return stored


class LeavesJointTooEarly(Core):
    """R-23 broken: the joint configuration is left before it is committed, or any other while it is open."""

    def _advance_change(self) -> None:
        commit, self.commit = self.commit, self.last
        try:
            super()._advance_change()
        finally:
            self.commit = commit


class AsksTheNewVotersAlone(Core):
    """R-17 broken: in a joint configuration the outgoing voters are not asked."""

    def _agreed(self, own: int, of: Callable[[Progress], int]) -> int:
        return self._agreed_by(self.members.voters, self.members.quorum, own, of)


class ElectedByTheNewVotersAlone(Core):
    """R-22 broken: nor for their votes."""

    def _won(self) -> bool:
        return sum(1 for name in self.members.voters if name in self.votes) >= self.members.quorum


class CountsLearners(Core):
    """R-24 broken: a learner's disk counts."""

    def _agreed_by(self, voters: tuple[str, ...], quorum: int, own: int, of: Callable[[Progress], int]) -> int:
        return super()._agreed_by(voters + self.members.learners, quorum, own, of)


class JumpsToItsMembers(Core):
    """R-22 broken: any number of voters at once without a joint configuration."""

    def _propose(self, voters: Any, learners: Any, expected: int, joint: Any = None) -> None:
        super()._propose(voters, learners, expected, None)


class AnswersWithoutARound(Core):
    """R-36 broken: who led once answers."""

    def read(self, request: int) -> None:
        if self.led:
            self.out.reads.append((request, self.commit))


class CountsAnOldRound(Core):
    """R-36 broken: answers to heartbeats from before the read confirm it."""

    def read(self, request: int) -> None:
        self.reading.append((self.round, request, self.commit)) if self.led else None
        self._begin_round() if self.led else None


class LeaseWithoutEnd(Core):
    """R-37 broken: once confirmed, the lease goes on."""

    def _lease_holds(self) -> bool:
        return self.sure_ms > 0


class LeaseByTicks(Core):
    """R-37 broken: the lease is measured by what stands still while the process is stopped."""

    def _next_round(self) -> None:
        self.clock_ms = self.now * self.timing.tick_ms
        super()._next_round()

    def _lease_holds(self) -> bool:
        self.clock_ms = self.now * self.timing.tick_ms
        return super()._lease_holds()


class LeaseBrokenByAHint(Core):
    """R-8 broken: a reset link frees from what was promised to the leader."""

    def _is_bound(self) -> bool:
        return self.now < self.promised


class LeaseWhileHandingOver(Core):
    """R-13 broken: the lease holds though somebody was told to campaign."""

    def _lease_holds(self) -> bool:
        self.handing = False
        return super()._lease_holds()


class SleepsOn(Core):
    """K-65: a sleeping follower does not care for its leader's host, nor for who misses the leader."""

    def peer_down(self, name: str) -> None:
        if not self.quiet:
            super().peer_down(name)

    def _doubt(self) -> None:
        pass


class CountsWhoLostItsPromises(Core):
    """R-3 broken: an emptied replica counts and votes."""

    def step(self, m: Message) -> None:
        self.hard.mute = -1
        super().step(m)


class ForgetsTheTail(Repair):
    """R-31 broken: a log that others' takes the place of held more, and had promised it."""

    def _join(self) -> None:
        self.replaced = True
        self._finish()


class SendsOverAGap(Core):
    """K-37: a leader takes for granted that a follower has what is gone here."""

    def _on_reject(self, m: Message) -> None:
        p = self.progress.get(m.peer)
        if p is not None and m.hint < self.first:
            p.match = max(p.match, self.first - 1)
        super()._on_reject(m)


PLANTED: dict[str, dict[str, Any]] = {
    c.__name__: {"core_class": c}
    for c in (
        AcksBeforeSync, CountsVotesTwice, CommitsOlderTerms, LeadsWithOpenRecords, PromisesBeforeDisk,
        CountsOwnUnsynced, CutsOnShortAppend, TrustsAnyLog, BelievesItsWholeLog, AppliesBeforeCommit,
        LeavesJointTooEarly, AsksTheNewVotersAlone, ElectedByTheNewVotersAlone, CountsLearners, JumpsToItsMembers,
        AnswersWithoutARound, LeaseWithoutEnd, LeaseBrokenByAHint, CountsWhoLostItsPromises,
    )
}  # fmt: skip
PLANTED |= {
    "ForgetsItsVote": {"bugs": Bugs(forget_vote=True)},
    "CutsAtDamage": {"bugs": Bugs(cut_damage=True)},
    "TrustsAnEmptiedDisk": {"bugs": Bugs(trust_wiped=True)},
    "ForgetsItsMembers": {"bugs": Bugs(forget_members=True)},
    "SkipsASync": {"bugs": Bugs(lose_synced=True)},
    "TrimsBeforeItIsDurable": {"bugs": Bugs(trim_early=True), "trim_at": 6},
    "ClaimsMoreThanItHolds": {"bugs": Bugs(claim_more=True), "trim_at": 6},
    "ForgetsTheSnapshotsMembers": {"bugs": Bugs(forget_base=True), "trim_at": 6},
    "SendsOverAGap": {"core_class": SendsOverAGap},
}
