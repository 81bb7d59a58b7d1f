"""Scenarios of spec/raft.md §6 about votes, terms, leaders and reads: K-19 to K-33, and liveness: K-65 to K-74."""

from __future__ import annotations

import pytest
from jscore_server.raft.core import ChangeRefused, Core, NotLeader, Role
from jscore_server.raft.messages import ACK, FLAG_TRUE, HEARTBEAT, VOTE

from .model import LEASED, TIMING, Violation
from .planted import CommitsOlderTerms, CountsAnOldRound, LeaseByTicks, LeaseWhileHandingOver, SleepsOn
from .stage import Stage


@pytest.mark.parametrize("after", range(0, 60, 3))
def k19_a_vote_survives_a_crash_at_any_moment(after: int) -> None:
    s = Stage(3, seed=after)
    for node in s.nodes.values():
        node.disk = 8.0
    s.until(lambda: s.roles(Role.CANDIDATE))
    s.go(after)
    for name in s.names[:3]:
        s.crash(name)
    s.back(*s.names[:3])
    s.put(3, 10_000)
    s.settle()


@pytest.mark.parametrize("seed", range(10))
def k20_term_and_vote_come_back_as_they_were_written_together(seed: int) -> None:
    s = Stage(3, seed=seed)
    s.until(lambda: s.roles(Role.CANDIDATE))
    pairs = {(h.term, h.vote) for n in s.nodes.values() for h in [n.durable_hard, *(h for _, h in n.pending_hard)]}
    for name in s.names:
        s.crash(name)
    s.back(*s.names)
    assert all((s.core(n).term, s.core(n).vote) in pairs for n in s.names)
    s.settle()


def k21_stepping_down_does_not_free_a_vote() -> None:
    s = Stage()
    leader = s.leader()
    term = s.core(leader).term
    for name in s.names[:3]:
        vote = s.core(name).vote
        if name == leader:
            s.core(name).resign()
            s.drain(s.nodes[name])
        else:
            s.tell(name, HEARTBEAT, leader, term)
        rival = next(n for n in s.names[:3] if n != vote)
        s.core(name).heard = -10_000
        s.tell(name, VOTE, rival, term, index=100, log_term=term, flags=FLAG_TRUE)
        assert s.core(name).vote == vote
    s.settle()


def k22_a_restarted_leader_with_a_shorter_log_leads_no_more_in_its_term() -> None:
    s = Stage()
    leader = s.leader()
    term = s.core(leader).term
    s.nodes[leader].disk = 1000.0
    s.put(3)
    assert s.nodes[leader].log.durable < s.nodes[leader].log.last
    for name in s.names:
        s.crash(name)
    s.back(*s.names)
    s.until(s.leads)
    assert s.core(s.leads()).term > term
    s.settle()


def k23_a_term_begins_with_its_first_record() -> None:
    s = Stage()
    for _ in range(5):
        leader = s.leader()
        s.put(2)  # the first one: whoever was handed a log without open records writes none before
        core = s.core(leader)
        assert core.log.term(core.term_start) == core.term
        assert core.log.term(core.term_start - 1) < core.term
        s.core(leader).transfer(s.others(leader)[0])
        s.drain(s.nodes[leader])
        s.until(lambda leader=leader: s.leads() not in ("", leader))  # type: ignore[misc]
    s.settle()


def k24_after_a_failed_write_no_vote_and_no_candidacy() -> None:
    s = Stage()
    leader = s.leader()
    broken, other = s.others(leader)
    s.nodes[broken].fails = True
    s.put()
    s.until(lambda: s.nodes[broken].broken)
    s.crash(leader)
    s.nobody_leads(6000)
    assert s.core(broken).role is Role.FOLLOWER
    assert s.core(other).role is not Role.LEADER
    s.settle()


def k25_who_is_cut_off_raises_no_term() -> None:
    s = Stage()
    leader = s.leader()
    lone = s.others(leader)[0]
    term = s.core(leader).term
    s.cut(lone)
    s.go(20_000)
    assert s.core(lone).term == term
    s.join()
    s.go(3000)
    assert (s.leads(), s.core(leader).term) == (leader, term)
    s.settle()


def k26_two_that_cannot_see_each_other_and_a_third_that_sees_both() -> None:
    s = Stage()
    leader = s.leader()
    blind = s.others(leader)[0]
    term = s.core(leader).term
    s.cut(from_=(leader, blind), to=(blind, leader))
    for _ in range(20):
        s.put(2)
        s.go(500)
    assert s.core(leader).term == term
    s.settle()


def k27_a_leader_that_hears_nobody_gives_way() -> None:
    s = Stage()
    leader = s.leader()
    s.cut(from_=tuple(s.others(leader)), to=(leader,))
    s.until(lambda: s.leads() not in ("", leader), 4000)
    s.put(3)
    s.settle()


def k28_a_transfer_to_who_is_behind_comes_to_nothing_and_costs_nothing() -> None:
    s = Stage()
    leader = s.leader()
    target, _ = s.others(leader)
    s.cut(target)
    s.put(20)
    s.core(leader).transfer(target)
    s.drain(s.nodes[leader])
    assert s.core(leader).transferee == target
    with pytest.raises(NotLeader):
        s.change("n0", at=leader)
    s.go(1500)
    assert not s.core(leader).transferee
    assert s.leads() == leader
    s.put(3)
    s.join()
    s.go(500)
    s.core(leader).transfer(target)
    s.drain(s.nodes[leader])
    s.until(lambda: s.leads() == target, 300)
    with pytest.raises(ChangeRefused):
        s.core(target).transfer("n4")
    s.settle()


def handed_over(core_class: type[Core] = Core, seed: int = 1) -> None:
    """A leader with a lease told another to campaign, and is stopped; that one leads when it goes on."""
    s = Stage(timing=LEASED, core_class=core_class, seed=seed)
    leader = s.leader()
    s.put()
    s.go(300)
    target, _ = s.others(leader)
    s.core(leader).transfer(target)
    s.drain(s.nodes[leader])
    s.go(1)
    s.pause(leader, 100)
    s.until(lambda: s.leads() == target, 90)
    s.put(3)
    s.ask(leader)
    s.go(200)
    s.settle()


def k28_no_lease_holds_once_another_was_told_to_campaign() -> None:
    handed_over()
    found = []
    for seed in range(20):  # what the stopped leader reads first is chance
        try:
            handed_over(LeaseWhileHandingOver, seed)
        except Violation as err:
            found.append(str(err))
    assert any(text.startswith("15") for text in found)


def older_term(core_class: type[Core] = Core) -> None:
    """Dissertation, figure 3.7: copies of an older term's record on a majority do not commit it."""
    s = Stage(5, core_class=core_class)
    first = s.leader()
    a, b, c, d = s.others(first)
    s.put()
    s.cut(first, a)
    s.send(first, 3)  # on two of five
    s.go(50)
    s.crash(first)
    s.crash(a)
    s.until(lambda: s.leads() in (b, c, d))  # another history
    second = s.leads()
    s.cut(second)
    s.send(second, 2)  # on one of five
    s.crash(second)
    s.blocked.clear()
    s.back(first, a)
    third = s.until(lambda: next((n for n in s.roles(Role.LEADER)), ""), 10_000)
    core = s.core(third)
    for p in core.progress.values():
        p.match = max(p.match, core.term_start - 1)  # everybody has the older records, nobody the new one
    core._maybe_commit()
    s.drain(s.nodes[third])
    assert core.commit < core.term_start or core.log.term(core.commit) == core.term


def k29_copies_of_an_older_terms_record_commit_nothing() -> None:
    older_term()
    with pytest.raises((Violation, AssertionError)):
        older_term(CommitsOlderTerms)


def old_round(core_class: type[Core] = Core) -> None:
    s = Stage(core_class=core_class)
    leader = s.leader()
    a, b = s.others(leader)
    core = s.core(leader)
    s.cut(from_=(a, b), to=(leader,))
    s.go(110)
    before = core.round
    assert before > core.confirmed
    number = s.ask(leader)
    for peer in (a, b):
        s.tell(leader, ACK, peer, core.term, index=core.last, hint=core.last, commit=before)
    assert number in s.reading, "an answer to a round from before the read confirms nothing"
    for peer in (a, b):
        s.tell(leader, ACK, peer, core.term, index=core.last, hint=core.last, commit=core.round)
    assert number not in s.reading
    seen = core.round
    s.ask(leader)
    assert core.round > seen, "a number is never used again"
    s.settle()


def k30_the_answers_to_one_read_never_confirm_the_next() -> None:
    old_round()
    with pytest.raises(AssertionError):
        old_round(CountsAnOldRound)


def paused(timing: object, core_class: type[Core] = Core) -> None:
    """Reads wait at a leader that is stopped; another leads and has acknowledged more when it goes on."""
    for seed in range(8):
        s = Stage(3, seed=seed)
        if timing is not TIMING or core_class is not Core:
            s = Stage(3, seed=seed, timing=timing, core_class=core_class)
        leader = s.leader()
        s.put(3)
        s.go(300)
        s.pause(leader, 3000)
        s.until(lambda leader=leader, s=s: s.leads() not in ("", leader))  # type: ignore[misc]
        s.put(3)
        for _ in range(40):
            s.ask(leader)
        s.go(4000)
        s.settle()


def k31_a_leader_that_was_paused_shows_nothing_stale() -> None:
    paused(TIMING)
    paused(LEASED)


def k32_a_suspended_host_keeps_no_lease() -> None:
    paused(LEASED)
    with pytest.raises(Violation, match=r"^15"):
        paused(LEASED, LeaseByTicks)


def k33_a_retired_leader_stays_retired() -> None:
    s = Stage()
    leader = s.leader()
    rest = s.others(leader)
    s.change(*rest)
    s.changed(*rest)
    for name in s.names:
        s.crash(name)
    s.back(leader)
    s.nobody_leads(4000)
    s.settle()
    assert s.leads() in rest


def asleep(s: Stage) -> str:
    """A group of three has a leader, has published, and sleeps: its leader's name."""
    leader = s.leader()
    s.put()
    s.until(lambda: s.leads() and s.core(s.leads()).quiet and s.core(s.leads())._all_asleep(), 3000)
    return leader


def wakes(told: bool, core_class: type[Core] = Core) -> None:
    s = Stage(core_class=core_class)
    leader = asleep(s)
    s.crash(leader)
    if told:
        for name in s.names:
            s.link(name, leader, False)
    s.until(lambda: s.leads() not in ("", leader), 1000 if told else 2500)
    s.settle()


@pytest.mark.parametrize("told", [True, False])
def k65_an_idle_group_notices_that_its_leader_died(told: bool) -> None:
    wakes(told)
    with pytest.raises(Violation, match=r"^23"):
        wakes(told, SleepsOn)


def k65_a_sleeping_group_sends_nothing() -> None:
    s = Stage(trace=True)
    asleep(s)
    s.go(1)
    assert s.trace is not None
    before = len(s.trace)
    s.go(60_000)
    assert len(s.trace) == before
    s.put(1, 200)
    s.settle()


def k65_a_sleeping_group_hears_of_a_publish_a_read_and_a_transfer() -> None:
    s = Stage()
    leader = asleep(s)
    s.put(3, 300)
    asleep(s)
    number = s.ask(leader)
    s.until(lambda: number not in s.reading, 300)
    asleep(s)
    target, _ = s.others(leader)
    s.core(leader).transfer(target)
    s.drain(s.nodes[leader])
    s.until(lambda: s.leads() == target, 300)
    s.settle()


def k65_a_sleeping_group_changes_its_members() -> None:
    s = Stage()
    asleep(s)
    s.change("n0", "n1", "n3")
    s.changed("n0", "n1", "n3")
    asleep(s)
    s.settle()


@pytest.mark.parametrize("others", [True, False])
def k65_who_comes_back_to_a_sleeping_group_is_taken_in(others: bool) -> None:
    """A follower, or the leader, dies and returns; a group of which a quorum is left goes back to sleep meanwhile."""
    s = Stage()
    leader = asleep(s)
    gone = s.others(leader)[0] if others else leader
    s.crash(gone)
    s.go(1500)
    s.put(2)
    asleep(s)
    s.back(gone)
    s.until(lambda: s.core(gone).commit == s.core(s.leader()).commit, 1000)
    asleep(s)
    assert s.core(gone).quiet or s.core(gone).role is Role.LEADER
    s.settle()


def k66_a_hosts_death_wakes_no_group_that_can_do_without_it() -> None:
    s = Stage(trace=True)
    leader = asleep(s)
    s.crash(s.others(leader)[0])
    assert s.trace is not None
    before = len(s.trace)
    s.go(30_000)
    assert len(s.trace) == before
    assert s.core(leader)._all_asleep()
    s.settle()


def k67_a_leader_that_stops_on_a_living_host_is_missed() -> None:
    s = Stage()
    leader = asleep(s)
    s.core(leader).wake_others()
    s.drain(s.nodes[leader])
    s.nodes[leader].core = None  # the group alone: its host's links stay up
    s.go(1)
    for name in s.names:
        s.nodes[name].present.discard(leader)  # and nobody is told
    s.until(lambda: s.leads() not in ("", leader), 2500)


def k67_a_group_whose_leaders_disk_hangs_gets_another() -> None:
    s = Stage()
    leader = s.leader()
    s.nodes[leader].disk = 100_000.0
    s.put(3)
    s.until(lambda: s.leads() not in ("", leader), 8000)
    s.put(3)
    s.settle()


def k68_a_stalled_disk_keeps_no_leadership_alive_that_nobody_can_use() -> None:
    s = Stage()
    leader = s.leader()
    lone, _ = s.others(leader)
    s.crash(lone)
    s.nodes[leader].disk = 100_000.0
    s.send(leader)
    s.go(10_000)  # one disk of two hangs: nobody can commit
    s.back(lone)
    s.until(lambda: s.leads() not in ("", leader), 8000)
    s.put(3)
    s.settle()


@pytest.mark.parametrize("disk", [200.0, 2000.0, 100_000.0])
def k68_a_leader_whose_disk_is_slow_hands_over_to_one_whose_disk_is_not(disk: float) -> None:
    """A quorum does without its disk, so nothing waits for it: until one of the others is missing, too."""
    s = Stage()
    leader = s.leader()
    s.nodes[leader].disk = disk  # a sync takes up to so many ms
    began = s.now
    while s.leads() in ("", leader):
        s.send(leader)
        s.go(20)
        assert s.now - began < 8000, s.summary()
    new = s.leads()
    s.put(3)
    s.go(3000)
    assert s.leads() == new
    s.settle()


@pytest.mark.parametrize("disk", [30.0, 200.0, 700.0])
def k68_disks_that_are_all_slow_move_no_leadership(disk: float) -> None:
    s = Stage()
    leader = s.leader()
    for name in s.names:
        s.nodes[name].disk = disk
    for _ in range(300):
        s.send(leader)
        s.go(20)
    assert s.leads() == leader
    s.settle()


def k69_what_was_promised_ends() -> None:
    s = Stage(timing=LEASED)
    leader = s.leader()
    s.put()
    s.crash(leader)
    s.until(lambda: s.leads() not in ("", leader), 3000)
    s.settle()


def k70_one_that_takes_nothing_holds_up_nobody() -> None:
    s = Stage()
    leader = s.leader()
    hung, _ = s.others(leader)
    s.pause(hung, 20_000)
    for _ in range(20):
        s.put(10, 200)
    s.settle()


def k71_nothing_grows_behind_a_dead_follower() -> None:
    s = Stage()
    leader = s.leader()
    dead, _ = s.others(leader)
    s.cut(dead)
    for _ in range(200):
        s.put(5)
    p = s.core(leader).progress[dead]
    assert len(p.inflight) <= s.timing.window
    s.join()
    s.settle()


def k74_one_after_the_other_restarts() -> None:
    s = Stage()
    for name in ("n0", "n1", "n2"):
        s.put(5)
        s.crash(name)
        for other in s.names:
            s.link(other, name, False)
        s.put(5)
        s.back(name)
        leader = s.leader()
        s.until(lambda name=name, leader=leader: s.core(name).commit == s.core(leader).commit)  # type: ignore[misc]
    s.settle()
