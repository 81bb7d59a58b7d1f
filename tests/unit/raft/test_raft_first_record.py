"""A leader with nothing left to settle leads at once; its term gets a first record when somebody needs one."""

from __future__ import annotations

import random

from jscore_server.raft.core import Core, HardState, Members, Role, Timing
from jscore_server.raft.messages import (
    ACK,
    FLAG_MORE,
    FLAG_MUTE,
    FLAG_TRUE,
    HEARTBEAT,
    PREVOTE,
    PREVOTE_REPLY,
    TIMEOUT_NOW,
    VOTE_REPLY,
    Message,
)
from raft_fakes import Terms

NOOP = [("noop", None)]
THREE = ("a", "b", "c")


def replica(name: str, terms: list[int], commit: int, members: Members | None = None, vote: str = "") -> Core:
    hard = HardState(terms[-1] if terms else 0, vote, [members or Members(0, THREE)], [], scanned=len(terms))
    return Core("g", name, Terms(terms), hard, random.Random(1), Timing(), commit=commit)


def elected(terms: list[int], commit: int, members: Members | None = None) -> Core:
    """`a`, with the votes of `a` and `b`."""
    a = replica("a", terms, commit, members)
    a.now = 1000
    a.tick()
    a.step(Message(PREVOTE_REPLY, "b", "g", a.term + 1, flags=FLAG_TRUE))
    a.hard_state_durable(a.hard_seq)
    a.out.messages.clear()
    a.step(Message(VOTE_REPLY, "b", "g", a.term, flags=FLAG_TRUE))
    assert a.role is Role.LEADER
    return a


def sent(c: Core, kind: int, peer: str) -> list[Message]:
    return [m for m in c.out.messages if (m.kind, m.peer) == (kind, peer)]


def acks(c: Core, peer: str, index: int, flags: int = 0) -> None:
    c.step(Message(ACK, peer, "g", c.term, index, 0, c.round, index, flags))


def test_a_leader_that_knows_all_of_its_log_to_be_committed_writes_nothing() -> None:
    a = elected([1, 1, 1], 3)
    assert a.led
    assert a.out.role == [(Role.LEADER, 2)]
    assert a.out.proposals == []
    assert sent(a, HEARTBEAT, "b"), "the others hear of it at once"
    acks(a, "b", 3)
    acks(a, "c", 3)
    a.now = a.deadline
    a.tick()
    assert a.quiet, "and it can sleep"
    assert a.out.proposals == []


def test_a_leader_that_does_not_know_it_leads_when_a_record_of_its_term_is_committed() -> None:
    for terms, commit in (([1, 1, 1], 2), ([], 0)):
        a = elected(terms, commit)
        assert not a.led
        assert a.out.proposals == NOOP


def test_a_change_under_way_and_its_members_wait_for_a_record_of_the_term() -> None:
    joint = Members(3, ("a", "b", "d"), (), 0, THREE)
    assert elected([1, 1, 1], 3, joint).out.proposals == NOOP
    assert elected([1, 1, 1], 3, Members(3, THREE, ("d",))).out.proposals == NOOP


def test_who_lost_its_promises_gets_a_record_of_the_term() -> None:
    a = elected([1, 1, 1], 3)
    acks(a, "b", 3)
    assert a.out.proposals == []
    acks(a, "c", 3, FLAG_MUTE)
    assert a.out.proposals == NOOP


def test_what_a_follower_has_beyond_is_not_left_there() -> None:
    a = elected([1, 1, 1], 3)
    acks(a, "c", 3, FLAG_MORE)
    assert a.out.proposals == NOOP
    c = replica("c", [1, 1, 1, 1], 3)
    c.step(Message(HEARTBEAT, "a", "g", 2, commit=3, flags=FLAG_TRUE))
    ack = sent(c, ACK, "a") or [m for m in c.out.after if m.kind == ACK]
    assert ack[-1].index == 3
    assert ack[-1].flags == FLAG_MORE
    assert not c.quiet, "it does not sleep on it"


def test_a_follower_that_knows_less_is_sent_the_rest() -> None:
    a = elected([1, 1, 1], 3)
    acks(a, "b", 1, FLAG_MORE)  # it may well hold 2 and 3, and has to be shown that they are the leader's
    p = a.progress["b"]
    assert a.out.sends == [p]
    assert a.next_send(p) == (2, 3, 1)
    assert a.out.proposals == []
    acks(a, "c", 0)  # it holds nothing, or proves nothing
    p = a.progress["c"]
    assert a.next_send(p) == (1, 3, 0)


def test_no_membership_is_changed_before_a_record_of_the_term_is_committed() -> None:
    a = elected([1, 1, 1], 3)
    a.change(("a", "b"))
    acks(a, "b", 3)
    acks(a, "c", 3)
    assert a.out.proposals == NOOP
    a.out.proposals.clear()
    a.log.terms.append(2)  # type: ignore[attr-defined]
    a.appended(4)
    a.durable(4)
    assert a.out.proposals == []
    acks(a, "b", 4)
    acks(a, "c", 4)
    assert a.commit == 4
    a.tick()
    acks(a, "b", 4)
    assert a.out.proposals[0][0] == "members"
    assert a.out.proposals[0][1].voters == ("a", "b")  # type: ignore[union-attr]


def test_who_says_nothing_is_told_seldom_and_at_once_when_it_asks() -> None:
    a = elected([1, 1, 1], 3)
    acks(a, "b", 3)
    a.out.messages.clear()
    began = a.now
    while a.now < began + a.timing.election_max_ticks:
        a.now += 1
        a.tick()
        if a.now % 5 == 0:
            acks(a, "b", 3)
    assert 1 <= len(sent(a, HEARTBEAT, "c")) <= 2
    assert len(sent(a, HEARTBEAT, "b")) >= 9
    a.out.messages.clear()
    a.step(Message(PREVOTE, "c", "g", 2, 3, 1))
    assert sent(a, HEARTBEAT, "c")


def test_leadership_is_handed_on_without_a_record() -> None:
    a = elected([1, 1, 1], 3)
    acks(a, "b", 3)
    a.transfer("b")
    [word] = sent(a, TIMEOUT_NOW, "b")
    b = replica("b", [1, 1, 1], 1)
    b.step(Message(HEARTBEAT, "a", "g", a.term, 3, 1, 1, a.round))
    b.hard_state_durable(b.hard_seq)
    b.step(Message(TIMEOUT_NOW, "a", "g", word.term, commit=word.commit))
    b.hard_state_durable(b.hard_seq)
    b.step(Message(VOTE_REPLY, "c", "g", b.term, flags=FLAG_TRUE))
    assert b.led, "it had not heard that all is committed"
    assert b.out.proposals == []


def test_what_is_said_to_be_committed_counts_as_far_as_it_is_proven_to_match() -> None:
    b = replica("b", [1, 1, 1], 1)
    b.step(Message(HEARTBEAT, "a", "g", 2, 2, 1, 1, 1))
    b.hard_state_durable(b.hard_seq)
    b.step(Message(TIMEOUT_NOW, "a", "g", 2, commit=3))
    assert b.commit == 2


def test_leadership_is_not_handed_over_before_all_is_committed() -> None:
    """Whoever waits for a record would hear nothing, though the next leader commits it."""
    a = elected([1, 1, 1], 3)
    for peer in ("b", "c"):
        acks(a, peer, 3)
    a.log.terms.append(2)  # type: ignore[attr-defined]
    a.appended(4)
    acks(a, "b", 4)
    a.transfer("b")
    assert not sent(a, TIMEOUT_NOW, "b"), "the own disk has not got it yet, nor has the third one's"
    a.durable(4)
    assert a.commit == 4
    assert sent(a, TIMEOUT_NOW, "b")
