"""Change of membership by joint consensus. Pure. Source: spec/raft.md R-21 to R-28; the Raft dissertation, 4.3.

Core.change(voters, learners) names where the group is to go; the leader goes there by itself, one record at a time,
each proposed when the one before it is committed:

  learners   who is new receives the log without counting, until it has caught up and synced (R-24)
  joint      both the old voters and the new ones must agree; skipped when one voter comes or goes (R-22)
  leaving    the new configuration alone; proposed by whoever leads, also after a failover

`Core.changing` says where it stands. A failover before `joint` leaves the learners and forgets the rest, so a driver
that means it asks again (Group.set_members does). `cancel_change` goes back, out of a joint configuration too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .members import MAX_REMOVED, Members
from .reads import Reads
from .state import FOLLOWER, LEADER, MEMBERS, ChangeRefused, NotLeader, Target


@dataclass(frozen=True, slots=True)
class Changing:
    """How far a change is: `stage` is "learners", "joint" or "leaving"; `waiting` have to catch up first."""

    stage: str
    voters: tuple[str, ...]
    learners: tuple[str, ...]
    waiting: tuple[str, ...]


class Change(Reads):
    """One change at a time, from the learners to the configuration that is left."""

    __slots__ = ()

    def change(self, voters: tuple[str, ...], learners: tuple[str, ...] = (), *, instead: bool = False) -> None:
        """Makes `voters` and `learners` the members, whatever they are now. Nothing to do is no error.

        `instead`: takes the place of a change that is not joint yet. Raises: NotLeader; ChangeRefused with the rule
        that forbids it now.
        """
        if self.role is not LEADER or not self.led or self.transferee:
            raise NotLeader
        if not voters:
            raise ChangeRefused("the last voter cannot be removed")
        if len(set(voters + learners)) != len(voters) + len(learners):
            raise ChangeRefused("a member is named twice")
        current, target = self.members, self.target
        if current.outgoing:
            if set(current.voters) == set(voters):
                return  # on its way
            raise ChangeRefused("the former change is not left yet")
        if current.index > self.commit and not (target and instead):
            raise ChangeRefused("the former change is not committed yet")
        if target is not None:
            if set(target.voters) == set(voters) and set(target.learners) == set(learners):
                return
            if not instead:
                raise ChangeRefused("another change is running")
        if self.quiet:
            self._wake()
        self.target = Target(voters, learners, target.before if target is not None else current.learners)
        self._advance_change()

    def cancel_change(self) -> None:
        """Gives up a change that is under way: the voters from before it stay, who came for it goes.

        Raises: NotLeader. Without a change it does nothing.
        """
        if self.role is not LEADER or not self.led:
            raise NotLeader
        current = self.members
        if current.outgoing:
            # Safe though the joint one may not be committed: each quorum of it holds one of the old voters', too.
            self.target = None
            if not self._proposed():
                learners = tuple(n for n in current.learners if n not in current.outgoing)
                self._propose(current.outgoing, learners, current.outgoing_expected)
        elif self.target is not None:
            before = tuple(n for n in self.target.before if n not in current.voters)
            self.target = Target(current.voters, before, before)
            self._advance_change()

    @property
    def changing(self) -> Changing | None:
        """The change under way as this replica knows it; before `joint` only its leader knows."""
        current, target = self.members, self.target
        if current.outgoing:
            stage = "leaving" if current.index <= self.commit else "joint"
            return Changing(stage, current.voters, current.learners, ())
        if target is None:
            return None
        waiting = tuple(n for n in target.voters if n != self.name and not self._caught_up(n))
        return Changing("learners", target.voters, target.learners, waiting)

    def _proposed(self) -> bool:
        return any(what == MEMBERS for what, _ in self.out.proposals)

    def _caught_up(self, name: str) -> bool:
        p = self.progress.get(name)
        return p is not None and p.match >= max(self.caught, 1) and self._is_itself(name)

    def _advance_change(self) -> None:
        """Takes the next step, if the last one is committed."""
        current, target = self.members, self.target
        if self.role is not LEADER or not self.led or current.index > self.commit or self._proposed():
            return
        if current.outgoing:
            self._propose(current.voters, current.learners, current.expected)  # leaves it
            return
        if target is None or self.transferee:
            return
        known = current.voters + current.learners
        strangers = tuple(n for n in target.voters + target.learners if n not in known)
        if strangers:
            self._propose(current.voters, current.learners + strangers, current.expected)
            return
        added = [n for n in target.voters if n not in current.voters]
        removed = [n for n in current.voters if n not in target.voters]
        if not all(self._caught_up(n) for n in added):
            return
        if added or removed:
            expected = min(current.expected, len(target.voters)) if removed else current.expected
            since = self._ask(target)
            if not self._can_decide(target.voters, max(len(target.voters), expected) // 2 + 1, since):
                return
            joint = len(added) + len(removed) > 1
            self._propose(target.voters, target.learners, expected, current if joint else None)
        elif set(target.learners) != set(current.learners):
            self._propose(current.voters, target.learners, current.expected)
        else:
            self.target = None

    def _ask(self, target: Target) -> int:
        """The round of heartbeats whose answers tell who can be reached now: who was there a moment ago may be gone,
        and come back without what it promised.
        """
        if target.round and self.now - target.asked < self.timing.election_max_ticks:
            return target.round
        self.target = replace(target, round=self.round + 1, asked=self.now)
        self._begin_round()
        return self.round

    def _can_decide(self, voters: tuple[str, ...], quorum: int, since: int) -> bool:
        """Whether a quorum of `voters` holds the log, counts and has answered round `since`: the group must not wait
        for who lost its promises or cannot be reached.
        """
        count = 0
        for name in voters:
            p = self.progress.get(name)
            if p is None:
                count += name == self.name
            elif self._caught_up(name) and p.round >= since:
                count += p.counted or not self.members.is_voter(name)
        return count >= quorum

    def _go_back(self) -> bool:
        """The new voters of a joint configuration do not answer, the old ones do: gives the change up, so that the
        group goes on. False where there is nothing to go back to.
        """
        current = self.members
        if not self.led or not current.outgoing or current.index <= self.commit:
            return False
        if self._active(current.outgoing, current.outgoing_quorum):
            self.cancel_change()
            return True
        return False

    def _propose(
        self, voters: tuple[str, ...], learners: tuple[str, ...], expected: int, joint: Members | None = None
    ) -> None:
        if self.commit < self.term_start:
            self._begin_term()  # a record of the own term is committed first; then this is come back to
            return
        current = self.members
        outgoing = joint.voters if joint is not None else ()
        new = Members(0, voters, learners, expected, outgoing, joint.expected if joint is not None else 0)
        members = new.everybody
        gone = tuple(n for n in current.everybody if n not in members)
        removed = tuple(n for n in current.removed if n not in members and n not in gone) + gone
        ids = {n: self._directory_of(n) for n in members}
        pairs = tuple(sorted((n, i) for n, i in ids.items() if i))
        self.out.proposals.append((MEMBERS, replace(new, removed=removed[-MAX_REMOVED:], ids=pairs)))

    def _directory_of(self, name: str) -> str:
        """The directory id that a new configuration names for `name`; "" where it is not sure.

        A member's recorded one is never exchanged on the way. Where none is recorded, only the self that counts now may
        be named: one that lost its promises would take it for having been let in again, and a former one may have been
        counted out for good by an election (spec/raft.md §5). Unnamed, a member counts by its own word, as before.
        """
        current = self.members
        recorded = current.directory_id(name)
        if recorded or name == self.name:
            return recorded or self.known.get(name, "")
        if name in current.everybody:
            p = self.progress.get(name)
            return self.met.get(name, "") if p is not None and p.counted and p.match else ""
        return self.met.get(name) or self.known.get(name, "")

    def replace_directory(self, name: str, directory_id: str) -> None:
        """Makes `directory_id` the one under which `name` counts: its former disk is gone for good (R-3).

        Raises: NotLeader; ChangeRefused: a change is under way, `name` is no member or has not caught up.
        """
        current = self.members
        if self.role is not LEADER or not self.led or self.transferee:
            raise NotLeader
        if current.index > self.commit or current.outgoing or self._proposed():
            raise ChangeRefused("a change is under way")
        p = self.progress.get(name)
        if p is None or p.match < max(self.caught, 1):
            raise ChangeRefused(f"{name} has not caught up")
        if self.commit < self.term_start:
            self._begin_term()
            raise ChangeRefused("no record of this term is committed yet")
        ids = {n: self._directory_of(n) for n in current.everybody} | {name: directory_id}
        of_members = tuple(sorted((n, i) for n, i in ids.items() if i))
        self.out.proposals.append((MEMBERS, replace(current, index=0, ids=of_members)))

    def members_seen(self, members: Members) -> None:
        """The MEMBERS record at `members.index` is in the log: it is in force from now on (R-21).

        To be called in order of index, before `appended` (leader) or right after the records were stored (follower).
        """
        hard, index = self.hard, members.index
        if hard.members_indexes and index <= hard.members_indexes[-1]:
            return
        before = self.members
        hard.members_indexes.append(index)
        hard.members.append(members)
        if len(hard.members) > 8:
            # Only the last ones can be uncommitted, so the older ones can't come back.
            del hard.members[:-8]
        if 0 <= hard.mute < index and members.is_voter(self.name) and self._let_in(before, members):
            hard.mute = -1  # the group has let this replica in again, knowing only its new history
            if not self.vote:
                self.vote = self.leader  # the vote of this term, if there was one, is lost: there is no second one
            self._persist()
            hard.scanned = min(self.commit, index)
        self.last = max(self.last, index)
        self._use_members()

    def _let_in(self, before: Members, members: Members) -> bool:
        own, named = self.known.get(self.name, ""), members.directory_id(self.name)
        if not before.is_voter(self.name):
            return not own or named in ("", own)  # one that names another directory is about a former self
        return bool(own) and before.directory_id(self.name) != own == named

    def _use_members(self) -> None:
        self.members = self.hard.members[-1]
        self.gone = self.gone and self.name not in self.members.everybody
        if self.role is LEADER:
            self._sync_progress()
        elif self.role is not FOLLOWER:
            self._become_follower(self.term, "")
