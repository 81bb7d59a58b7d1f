"""Snapshots, trimmed logs and who takes them over: bugs of others by their numbers in spec/raft.md §6."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import jscore

from .machine import Assignments
from .model import Bugs, Violation
from .planted import ForgetsTheTail, SendsOverAGap
from .simulator import run_seed
from .stage import Stage


def behind(*, leader_alone: bool = False, **options: Any) -> tuple[Stage, str, str]:
    """One was away while the others' logs let go of what it lacks. (stage, leader, who was away)"""
    s = Stage(3, **options)
    leader = s.leader()
    away = s.others(leader)[0]
    s.put(3)
    s.go(300)
    s.crash(away)
    s.put(30)
    s.go(200)
    s.shorten(*[n for n in ("n0", "n1", "n2") if n == leader or (n != away and not leader_alone)])
    s.put(2)
    return s, leader, away


def k6_a_leader_that_was_removed_once_gives_its_state() -> None:
    """It was let in again since, by a record that the log does not begin early enough for."""
    s, leader, away = behind()
    known = s.nodes[away].durable_hard.members
    known[-1] = replace(known[-1], removed=(leader,))
    s.back(away)
    s.until(lambda: s.nodes[away].repair is not None)


def k9_a_snapshot_holds_no_change_that_is_not_committed() -> None:
    s = Stage(3)
    leader = s.leader()
    s.put(5)
    s.go(200)
    s.cut(leader)
    s.core(leader).change(("n0", "n1", "n2", "n3"))
    s.drain(s.nodes[leader])
    s.go(50)
    assert s.core(leader).members.index > s.core(leader).commit
    node = s.nodes[leader]
    body = json.loads(s.take_snapshot(node)[64:])
    assert body["members_index"] == 0
    assert "n3" not in body["members"]


def k37_a_log_that_begins_later_says_so() -> None:
    s, leader, away = behind()
    lacks = s.nodes[away].log.last + 1
    assert s.nodes[leader].log.first > lacks
    s.back(away)
    s.whole(away)
    assert s.taken_over == 1
    assert s.nodes[away].log.first > 1
    s.settle()


def k37_who_took_over_from_one_that_let_go_of_nothing_goes_on() -> None:
    """No snapshot says then how much of it is committed."""
    s, _, away = behind(leader_alone=True)
    s.back(away)
    s.whole(away)
    assert s.taken_over == 1
    assert s.nodes[away].log.first == 1
    s.settle()


def k37_a_gap_that_is_taken_for_granted_is_noticed() -> None:
    s, _, away = behind(core_class=SendsOverAGap)
    s.back(away)
    with pytest.raises(Violation):
        s.whole(away)


def k37_who_reaches_the_leaders_beginning_takes_nothing_over() -> None:
    """The end of its log is another one, by more than a term, and it remembers nothing to be committed."""
    s = Stage(3)
    leader = s.leader()
    first, second = s.others(leader)
    s.put(8)
    s.go(300)
    s.shorten(first, second)
    s.cut(leader)
    s.send(leader, 12)  # nobody else gets them
    s.go(50)
    s.crash(leader)
    s.put(3)
    other = s.leads()
    third = second if other == first else first
    s.blocked = {(leader, other): True, (other, leader): True}
    s.back(leader)
    s.core(other).transfer(third)
    s.drain(s.nodes[other])
    s.until(lambda: s.leads() == third)
    s.whole(leader)
    assert not s.taken_over
    s.settle()


def trims(bugs: Bugs) -> None:
    """All lose power while snapshots are written."""
    s = Stage(3, bugs=bugs)
    s.leader()
    s.put(20)
    s.go(300)
    s.disk_delay = 200
    for name in ("n0", "n1", "n2"):
        s.look_at(s.nodes[name], 1)
    s.go(3)
    for name in ("n0", "n1", "n2"):
        s.crash(name)
    s.back("n0", "n1", "n2")
    s.put(1)
    s.settle()


def k52_a_damaged_snapshot_of_the_assignments_deletes_nothing() -> None:
    """Each replica in turn loses it: the others' takes its place, with every assignment there is."""
    s = Stage(3, machine=Assignments)
    s.leader()
    s.put(60)
    s.go(300)
    for name in ("n0", "n1", "n2"):
        s.shorten("n0", "n1", "n2")
        s.crash(name)
        s.nodes[name].log.hurt_snapshot()
        s.back(name)
        assert s.nodes[name].repair is not None
        s.put(5)
        s.whole(name)
        assert s.nodes[name].machine.state.streams() == s.ghost.state.streams() != []
    s.settle()


def k54_nothing_goes_before_the_snapshot_is_on_the_disk() -> None:
    trims(Bugs())


def k54_a_trim_before_is_noticed() -> None:
    with pytest.raises(Violation, match=r"^14: "):
        trims(Bugs(trim_early=True))


def k55_a_snapshot_is_of_the_record_that_it_names() -> None:
    s = Stage(3)
    leader = s.leader()
    s.put(9)
    s.send(leader, 3)  # appended, not applied
    node = s.nodes[leader]
    head = jscore.snapshot_head(s.take_snapshot(node))
    assert head.index == node.applied < node.log.last
    s.settle()


def k55_one_that_claims_more_is_noticed() -> None:
    with pytest.raises(Violation, match=r"^13: "):
        run_seed(0, bugs=Bugs(claim_more=True), trim_at=6)


@pytest.mark.parametrize("who", ["itself", "leader", "both"])
@pytest.mark.parametrize("after", [1, 5, 12, 30])
def k56_the_leader_changes_or_it_dies_amid(who: str, after: int) -> None:
    s, leader, away = behind()
    s.back(away)
    s.until(lambda: s.nodes[away].repair is not None)
    s.go(after)
    for name in {"itself": (away,), "leader": (leader,), "both": (away, leader)}[who]:
        s.crash(name)
    s.back(away)
    s.put(3, 20_000)
    s.whole(away, ms=20_000)
    assert s.nodes[away].log.first > 1
    s.back(leader)
    s.settle()


def k56_the_giver_takes_another_snapshot_amid() -> None:
    s, leader, away = behind()
    s.back(away)
    s.until(lambda: s.nodes[away].repair is not None)
    for _ in range(6):
        s.go(8)
        s.put(4)
        s.shorten(leader)
    s.whole(away)
    s.settle()


def k56_who_is_amid_does_not_vote() -> None:
    s, leader, away = behind()
    s.back(away)
    s.until(lambda: s.nodes[away].repair is not None)
    s.crash(leader)
    s.cut(away, to=())
    s.blocked = {pair: True for pair in s.blocked if pair[0] == away}  # it is asked for its vote, and could not answer
    s.nobody_leads(2500)
    s.blocked.clear()
    s.put(2, 20_000)
    s.whole(away, ms=20_000)


def k56_what_nobody_can_give_is_not_waited_for_for_ever() -> None:
    """The leader dies whose state was to be taken over; the other has it all, and does not know it to be committed."""
    s, leader, away = behind(leader_alone=True)
    other = next(n for n in s.others(leader) if n != away)
    s.back(away)
    s.until(lambda: s.nodes[away].repair is not None)
    s.crash(leader)
    s.crash(other)
    s.back(other)
    assert s.core(other).commit < s.nodes[leader].log.first - 1 <= s.core(other).last
    s.put(2, 20_000)
    assert s.leads() == other
    s.whole(away)


def k56_a_damaged_snapshot_is_taken_from_another() -> None:
    s, leader, away = behind()
    s.nodes[leader].log.hurt_snapshot()  # rots while it runs: whoever is sent it notices
    s.back(away)
    s.whole(away, ms=20_000)
    assert s.nodes[away].log.first > 1


def promised(**options: Any) -> None:
    """One of the two that hold an acknowledged record loses its snapshot, the other its power; the third gives."""
    s = Stage(3, **options)
    leader = s.leader()
    holder, third = s.others(leader)
    s.put(20)
    s.go(300)
    s.shorten(holder, third)
    s.cut(third)
    s.put(1)
    s.crash(leader)
    s.crash(holder)
    s.nodes[holder].log.hurt_snapshot()
    s.blocked.clear()
    s.back(holder)
    s.until(lambda: s.nodes[holder].repair is not None)
    s.until(s.leads, 20_000)
    s.put(1)
    s.back(leader)
    s.settle()


def k56_what_was_promised_outlives_the_snapshot() -> None:
    promised()


def k56_a_promise_that_goes_with_the_snapshot_is_noticed() -> None:
    with pytest.raises(Violation):
        promised(repair_class=ForgetsTheTail)


def k57_who_catches_up_stays_with_who_gives() -> None:
    """Servers that have nothing of it are asked as well, but not after each piece."""
    s, _, away = behind()
    s.put(400)
    s.back(away)
    s.whole(away, ms=3000)


def k57_a_new_member_catches_up_though_everybody_trims() -> None:
    s = Stage(3)
    s.leader()
    s.put(20)
    s.go(300)
    s.shorten("n0", "n1", "n2")
    s.trim_at = 6
    s.at(1, s.look)
    s.change("n0", "n1", "n2", "n3")
    for _ in range(10):
        s.put(4)
    s.changed("n0", "n1", "n2", "n3")
    assert s.taken_over >= 1
    assert s.nodes["n3"].log.first > 1
    s.settle()
