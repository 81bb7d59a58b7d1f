"""A leader: what each follower gets and when, what is committed. Pure. Source: spec/raft.md R-17, R-40, R-41."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from .follower import Follower
from .messages import (
    FLAG_CURRENT,
    FLAG_MORE,
    FLAG_MUTE,
    FLAG_TRUE,
    FLAG_WHOLE,
    FLAG_WITHOUT,
    HEARTBEAT,
    SNAPSHOT_NEEDED,
    TIMEOUT_NOW,
    Message,
)
from .progress import Progress
from .state import LEADER, ChangeRefused, NotLeader


class Leader(Follower):
    """Heartbeats, sends, acks, the commit index, handing over."""

    __slots__ = ()

    def _tick_leader(self) -> None:
        timing = self.timing
        now = self.now
        self.caught, self.caught_next = self.caught_next, self.commit
        if self._is_idle():
            self._ask_to_sleep()
        else:
            if self.quiet:
                self._wake()
            self.deadline = self._next_beat()
        if self.transferee and now >= self.transfer_at:
            self.transferee = ""
            if not self.members.is_voter(self.name):
                self._become_follower(self.term, "")  # nobody took it over in time
                return
        if self.synced >= self.last:
            self.synced_tick = now
        elif now - self.synced_tick >= timing.slow_ticks and self._give_up():
            return
        self._watch_disk()
        if now >= self.quorum_at:
            self.quorum_at = now + timing.heartbeat_ticks
            if not self.quiet and not self._quorum_active() and not self._go_back():
                self._become_follower(self.term, "")
                return
        self._next_round()
        self.whole = self._is_whole()
        seldom = now % timing.election_max_ticks >= timing.heartbeat_ticks
        for p in self.progress.values():
            if seldom and p.said >= 0 and not p.round and not p.match and self.is_present(p.name):
                continue  # not opened there yet, as long as it says nothing: it asks when it is (_on_prevote)
            if not (p.asleep and self.quiet):
                self._heartbeat(p)
            if p.paused and now - p.sent_tick >= timing.retry_ticks:
                p.paused = False
            if not p.paused and p.next <= self.last:
                self._queue(p)
        self._confirm()
        self._advance_change()

    def _next_beat(self) -> int:
        every = self.timing.heartbeat_ticks
        return self.now - self.now % every + every  # all groups on the same ticks

    def _is_idle(self) -> bool:
        """Everybody holds and knows everything and has answered lately: then hosts, not groups, prove liveness (§4).

        Who is not there hinders nobody from sleeping while a quorum is: its return wakes the leader. "Lately" is long,
        as nobody sleeps who does not agree: on servers that are late with all they have to do, thousands of leaders
        that wait for prompter answers would be what keeps them busy.
        """
        now, last = self.now, self.last
        if self.commit == last <= self.synced and not self.transferee and not self.reading and self.target is None:
            since = now - 3 * self.timing.quiet_ticks
            settled = {self.name}
            for p in self.progress.values():
                if not self.is_present(p.name):
                    continue
                if p.match != last or p.told != last or not p.counted or (p.active < since and not p.asleep):
                    break
                settled.add(p.name)
            else:
                if self.members.agree(settled):
                    # Of a new leader that nobody has asked for anything, nothing is to be expected soon.
                    return now - self.busy >= self.timing.idle_ticks or last <= self.term_start
        self.busy = now
        return False

    def _ask_to_sleep(self) -> None:
        """Heartbeats that say so follow; who agrees is left alone until something happens."""
        if not self.quiet or self._all_asleep():
            for p in self.progress.values():
                p.asleep = False
                if self.quiet:
                    p.active = self.now  # its host was heard until now
        self.quiet = True
        self.deadline = self.now + self.timing.quiet_ticks

    def _all_asleep(self) -> bool:
        return all(p.asleep or not self.is_present(p.name) for p in self.progress.values())

    def _agrees_to_sleep(self, p: Progress) -> None:
        p.asleep = True
        if not self._all_asleep():
            return
        self.whole = self._is_whole()
        untold = [q for q in self.progress.values() if self.is_present(q.name) and q.said != self._flags(q)]
        for q in untold:  # they are to sleep with the latest word on who is well
            q.asleep = False
            self._heartbeat(q)
        if not untold and not self.reading:
            # Spread, so that thousands of sleeping groups are no burst.
            span = self.timing.sleep_ticks
            self.deadline = self.now + span - self.rng.randint(0, span // 4)

    def _wake(self) -> None:
        self.quiet = False
        self.busy = self.now
        self.deadline = self.now + 1
        self.quorum_at = self.now + self.timing.quorum_ticks
        for p in self.progress.values():
            if p.asleep:
                p.asleep = False
                p.said = FLAG_TRUE  # it sleeps until it hears of this
            if self.is_present(p.name):
                p.active = self.now  # its host was heard until now

    def _look_after(self, p: Progress) -> None:
        """`p` is back while the leader sleeps: it may have been started anew, and know no leader."""
        p.asleep = False
        p.active = self.now
        if p.match != self.last or p.told != self.last or not p.counted:
            self._wake()
        else:
            self.deadline = min(self.deadline, self.now + self.timing.quiet_ticks)

    def wake_others(self) -> None:
        """For a leader that goes: those who sleep look for another one after their time-out."""
        if self.role is LEADER:
            slept, self.quiet = self.quiet, False
            for p in self.progress.values():
                if slept or (p.said > 0 and p.said & FLAG_TRUE):
                    self._heartbeat(p)

    def _heartbeat(self, p: Progress) -> None:
        # The follower's own proof limits what it takes of commit, so the leader's whole commit index may travel. The
        # end of what it acked proves its log again after a restart in the same term, when nothing is left to send.
        p.told = commit = self.commit
        match = p.match
        if match + 1 < self.first:
            match = 0  # nobody here knows its term any more
        match_term = self.term if match >= self.term_start else self.term_at(match)
        p.said = flags = self._flags(p)
        self._send(Message(HEARTBEAT, p.name, self.group, self.term, match, match_term, commit, self.round, flags))

    def _flags(self, p: Progress) -> int:
        flags = FLAG_TRUE if self.quiet else 0
        if self.whole:
            flags |= FLAG_WHOLE
        if self._is_well(p):
            flags |= FLAG_CURRENT
        if not (p.counted or p.helped):
            flags |= FLAG_WITHOUT
        return flags

    def _is_well(self, p: Progress) -> bool:
        """Whether a follower counts, answers and has caught up. An idle group leaves silence to the hosts."""
        if not p.counted or not p.round or p.match < self.caught:
            return False
        if self.quiet:
            return self.is_present(p.name)
        return p.active >= self.now - self.timing.quorum_ticks

    def _is_whole(self) -> bool:
        return self.led and len(self.well()) == len(self.members.all_voters)

    def well(self) -> set[str]:
        """The voters that count, answer and have caught up, as their leader sees them; itself one of them."""
        names = {n for n in self.members.all_voters if (p := self.progress.get(n)) is not None and self._is_well(p)}
        return names | {self.name} if self.disk and self.members.is_voter(self.name) else names

    def _quorum_active(self) -> bool:
        members = self.members
        if members.outgoing and not self._active(members.outgoing, members.outgoing_quorum):
            return False
        return self._active(members.voters, members.quorum)

    def _active(self, voters: tuple[str, ...], quorum: int) -> bool:
        return self._agreed_by(voters, quorum, self.now, lambda p: p.active) >= self.now - self.timing.quorum_ticks

    def _agreed(self, own: int, of: Callable[[Progress], int]) -> int:
        """The highest value that a quorum of each active configuration has reached; -1: too few count."""
        members = self.members
        value = self._agreed_by(members.voters, members.quorum, own, of)
        if members.outgoing:
            value = min(value, self._agreed_by(members.outgoing, members.outgoing_quorum, own, of))
        return value

    def _agreed_by(self, voters: tuple[str, ...], quorum: int, own: int, of: Callable[[Progress], int]) -> int:
        values = []
        for name in voters:
            if name == self.name:
                values.append(own)
            else:
                p = self.progress[name]
                if p.counted:
                    values.append(of(p))
        if len(values) < quorum:
            return -1
        values.sort(reverse=True)
        return values[quorum - 1]

    def tell_commit(self) -> None:
        """Tells followers a commit index that no append has carried. For the driver, a tick after `commit` moved."""
        if self.role is LEADER:
            for p in self.progress.values():
                if p.told < self.commit and not p.paused:
                    self._heartbeat(p)

    def trimmed(self, first: int) -> None:
        """The own log begins at `first` now."""
        self.first = first

    def needed_from(self, reachable: Callable[[str], bool]) -> int:
        """The first record that a follower which can be reached lacks as far as known; last + 1 when none."""
        if self.role is not LEADER:
            return self.last + 1
        lacks = [p.joins or p.match + 1 for name, p in self.progress.items() if reachable(name)]
        return min([self.last + 1, *lacks])

    def go_on_leading(self) -> None:
        """The only member, which led its term without this core until now, leads it on (R-25).

        Its hard state with that term and its own vote is durable, and so is its log up to `commit`.
        """
        assert self.members.voters == (self.name,)
        assert self.vote == self.name
        self.hard_durable = self.hard_seq
        self._become_leader()

    def _sync_progress(self) -> None:
        wanted = [name for name in self.members.everybody if name != self.name]
        for name in wanted:
            if name not in self.progress:
                # The first probe carries the record that is about to come, or the one that brought the member in.
                self.progress[name] = Progress(name, max(self.term_start, self.members.index), self.now)
        if self.members.index <= self.commit:
            for name in [name for name in self.progress if name not in wanted]:
                p = self.progress.pop(name)
                if self.role is LEADER:
                    self._heartbeat(p)  # the last it hears: its removal is committed

    def appended(self, last: int) -> None:
        """The leader's own log grew to `last` by records of its term (not yet synced): send before syncing (R-40)."""
        if self.synced >= self.last:
            self.synced_tick = self.now
        self.last = last
        if self.role is LEADER:
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
        if lo > last or p.paused or self.role is not LEADER or len(p.inflight) >= self.timing.window:
            return None
        if lo < self.first and not p.short:
            lo = p.next = self.first  # perhaps it has what is gone here: its answer tells
        if lo < self.first:
            p.paused = True
            p.short = False  # asked anew the next time: it may have taken over from somebody by then
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
        p.short = False
        p.next = p.match + 1
        p.inflight.clear()

    def forget(self, name: str) -> None:
        """The disk of `name` is another one, or an older copy: what it acked before counts no more (R-3)."""
        p = self.progress.get(name)
        if p is not None:
            p.match = 0
            p.counted = False
            if self.quiet:
                self._wake()
            self._probe(p)

    def _on_ack(self, m: Message) -> None:
        p = self.progress.get(m.peer)
        index = m.index
        if p is None or index > self.last:
            return
        now = self.now
        p.active = now
        answers = p.round < m.commit <= self.round
        if answers:
            p.round = m.commit
        if m.flags & FLAG_MUTE or not self._is_itself(m.peer):
            p.counted = False
            if self.quiet:
                self._wake()
            if m.hint < p.match:
                p.match = m.hint  # it lost what it had
                self._probe(p)
        else:
            p.counted = p.helped = True
        if index > p.match:
            p.match = index
            p.short = False
            p.joins = 0
            inflight = p.inflight
            if inflight and inflight[0] <= index:
                del inflight[: bisect_right(inflight, index)]
            if p.probing:
                p.probing = False
                p.next = index + 1
            elif p.next <= index:
                p.next = index + 1
            p.paused = False
            if index > self.commit:
                self._maybe_commit()
                if self.role is not LEADER:
                    return
            if self.transferee == p.name:
                self._try_transfer(p)
                if self.role is not LEADER:
                    return
        elif p.probing and m.hint >= p.next - 1 and m.hint > p.match:
            # It holds what the probe carried and is only slow to sync it: go on from there.
            p.probing = False
            p.next = min(m.hint, self.last) + 1
            p.paused = False
        if self.last < self.term_start:
            self._before_first(p, m)
        if m.hint > p.hint:
            p.hint = m.hint
            p.hint_tick = now
        elif p.inflight and m.hint < p.next - 1 and now - p.hint_tick >= self.timing.retry_ticks:
            self._probe(p)  # frames were lost, though the link lives
            p.hint_tick = now
        if p.next <= self.last and not p.paused:
            self._queue(p)
        if self.quiet and m.flags & FLAG_TRUE and p.match == self.last:
            self._agrees_to_sleep(p)
        if answers and self.confirmed < self.round:
            self._confirm()
        if self.target is not None:
            self._advance_change()

    def _before_first(self, p: Progress, m: Message) -> None:
        """An answer to a leader whose log has no record of its term yet: is one needed, or an older one as a probe?"""
        if not p.counted:
            self._begin_term()  # who lost its promises waits for one
        elif p.match < self.last:
            if p.probing and not p.paused and p.next > self.last:
                p.next = p.match + 1
        elif m.flags & FLAG_MORE:
            self._begin_term()  # what it has beyond was never committed, and is not to lie there until it may be

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
        p.short = m.index < self.first  # refused where the log here begins; else that is tried first
        if p.short and not p.joins:
            p.joins = self.commit + 1
        self._queue(p)

    def _maybe_commit(self) -> None:
        """Commits what a quorum has synced, if it is of the own term (R-11, R-17)."""
        if self.last == self.commit:
            return
        index = self._agreed(self.synced if self.disk else -1, _match)
        if index > self.commit and index >= self.term_start:
            self._commit_to(index)

    def _commit_to(self, index: int) -> None:
        if index <= self.commit:
            return
        before = self.commit
        self.commit = index
        self.out.commit = index
        if self.role is not LEADER:
            return
        if not self.led and index >= self.term_start:
            self.led = True
            self.out.role.append((LEADER, self.term))
        if before < self.members.index <= index:
            self._sync_progress()
            if not self.members.is_voter(self.name):
                self._hand_over()
                return
        if self.target is not None or self.members.outgoing:
            self._advance_change()
        if self.transferee in self.progress:
            self._try_transfer(self.progress[self.transferee])

    def transfer(self, target: str) -> None:
        """Hands leadership to `target` once it holds the whole log; gives up after one election time-out (R-13).

        Raises: NotLeader, ChangeRefused (no voter of this group).
        """
        if self.role is not LEADER or not self.led:
            raise NotLeader
        if target == self.name:
            return
        if target not in self.members.voters:
            raise ChangeRefused(f"{target} is no voter of {self.group}")
        if not self.progress[target].counted:
            raise ChangeRefused(f"{target} may not vote: it lost what it promised")
        self._begin_transfer(self.progress[target])

    def _begin_transfer(self, p: Progress) -> None:
        if self.quiet:
            self._wake()
        self.transferee = p.name
        self.transfer_at = self.now + self.timing.election_max_ticks
        self._try_transfer(p)

    def _try_transfer(self, p: Progress) -> None:
        # What is not committed yet would be so by the next leader, and whoever waits for it would hear nothing of that.
        if p.match == self.last == self.commit:
            self.handing = True
            self._call_up(p)
            if not self.members.is_voter(self.name):
                for other in self.progress.values():
                    self._heartbeat(other)
                self._become_follower(self.term, "")

    def _call_up(self, p: Progress) -> None:
        """It is to lead now. Where it hears that nothing is open it does so at once, without a record of its term."""
        self._send(Message(TIMEOUT_NOW, p.name, self.group, self.term, commit=self.commit))

    def _hand_over(self) -> None:
        """Not a member any more: the voter that is furthest ahead is to lead, as soon as it holds the whole log."""
        best = self._furthest()
        if best is None:
            for p in self.progress.values():
                self._heartbeat(p)
            self._become_follower(self.term, "")
            return
        self._begin_transfer(best)

    def _furthest(self) -> Progress | None:
        voters = [self.progress[n] for n in self.members.voters if n != self.name]
        return max((p for p in voters if p.counted), key=lambda p: (p.match, p.active), default=None)

    def _give_up(self) -> bool:
        """The own disk hangs: hands leadership to a voter whose disk gets on, if there is one (R-48)."""
        best = self._furthest()
        if best is None or best.match <= self.synced:
            return False
        self._call_up(best)
        self._become_follower(self.term, "")
        return True

    def _watch_disk(self) -> None:
        """A disk that gets on, but long after those of a quorum: leadership goes to one of them (R-48).

        Nothing waits for the own disk while a quorum does without it; with one voter less everything would.
        """
        timing, now = self.timing, self.now
        if now < self.watch_from:
            return
        took = now - self.sync_at
        if self.sync_mark and self.synced < self.sync_mark:
            if took < timing.slow_sync_ticks * timing.slow_syncs:
                return
            self.slow_syncs = timing.slow_syncs
        elif self.sync_mark:
            self.slow_syncs = self.slow_syncs + 1 if took >= timing.slow_sync_ticks else 0
            self.late += took if took >= timing.late_sync_ticks else 0
        elif self.late:
            self.late = max(0, self.late - 3)
        self.sync_mark, self.sync_at = (self.commit, now) if self.synced < self.commit else (0, now)
        slow = self.slow_syncs >= timing.slow_syncs or self.late >= timing.late_ticks
        if slow and self.led and not self.transferee:
            self.slow_syncs = self.late = 0
            best = self._furthest()
            if best is not None and best.match > self.synced and self.members.is_voter(self.name):
                self._begin_transfer(best)


def _match(p: Progress) -> int:
    return p.match
