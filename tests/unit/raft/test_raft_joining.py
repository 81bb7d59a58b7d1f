"""A replica that came later takes no part before its group lets it in; one that led alone leads on with others."""

from __future__ import annotations

import random
from dataclasses import replace

from jscore_server.raft.core import JOINING, Core, HardState, Members, Role, Timing
from jscore_server.raft.messages import (
    ACK,
    FLAG_MUTE,
    FLAG_TRUE,
    FLAG_WITHOUT,
    HEARTBEAT,
    PREVOTE,
    PREVOTE_REPLY,
    VOTE,
    VOTE_REPLY,
    Message,
)
from raft_fakes import Terms


def core(name: str, hard: HardState, terms: list[int] | None = None) -> Core:
    return Core("g", name, Terms(terms or []), hard, random.Random(1), Timing())


def joiner(terms: list[int] | None = None) -> Core:
    return core("b", HardState(0, "", [Members(0, ())], [], mute=JOINING), terms)


def told(c: Core, kind: int) -> list[Message]:
    c.hard_state_durable(c.hard_seq)
    sent = [m for m in [*c.out.messages, *c.out.after] if m.kind == kind]
    c.out.messages.clear()
    c.out.after.clear()
    return sent


def take(c: Core, term: int, index: int, commit: int, members: Members | None = None) -> None:
    """One record of the leader `a`, stored at once, with the configuration it holds."""
    assert c.step_append("a", term, index - 1, c.term_at(index - 1), commit, [(index, term, 1)], b"x")
    c.log.terms.append(term)  # type: ignore[attr-defined]
    c.out.append = None
    if members is not None:
        c.members_seen(replace(members, index=index))
    c.durable(index)


def test_a_joiner_neither_campaigns_nor_votes() -> None:
    b = joiner()
    for _ in range(300):
        b.now += 1
        b.tick()
    assert b.role is Role.FOLLOWER
    b.step(Message(PREVOTE, "c", "g", 5))
    assert not told(b, PREVOTE_REPLY)[0].flags & FLAG_TRUE
    b.step(Message(VOTE, "c", "g", 5))
    assert not told(b, VOTE_REPLY)[0].flags & FLAG_TRUE


def test_only_a_record_after_the_first_contact_makes_it_a_voter() -> None:
    b = joiner()
    b.step(Message(HEARTBEAT, "a", "g", 3, commit=2))
    take(b, 3, 1, 2, Members(0, ("a", "b")))  # of a former self, removed again by the next
    assert b.hard.mute == 2
    take(b, 3, 2, 2, Members(0, ("a",), ("b",)))
    assert told(b, ACK)[-1].flags & FLAG_MUTE
    take(b, 3, 3, 3, Members(0, ("a", "b")))
    assert b.hard.mute < 0
    assert not told(b, ACK)[-1].flags & FLAG_MUTE


def test_a_commit_beyond_what_is_stored_does_not_stop_a_mute_replica() -> None:
    b = joiner()
    b.step(Message(HEARTBEAT, "a", "g", 3, commit=0))
    take(b, 3, 1, 0, Members(0, ("a",), ("b",)))
    take(b, 4, 2, 2)  # another leader: its own record is committed as it arrives
    b.step(Message(HEARTBEAT, "a", "g", 4, 2, 4, 2))
    assert b.hard.mute >= 0, "who led when it first listened may have been a former leader, and this one its own choice"
    b.step(Message(HEARTBEAT, "a", "g", 4, 2, 4, 2, flags=FLAG_WITHOUT))
    assert b.hard.mute < 0, "a leader elected without it has committed"


def test_a_leader_says_whether_anything_of_its_term_rests_on_a_replica() -> None:
    a = core("a", HardState(1, "", [Members(0, ("a", "b", "c"))], []), [1])
    a.now = 1000
    a.tick()
    a.step(Message(PREVOTE_REPLY, "b", "g", 2, flags=FLAG_TRUE))
    a.hard_state_durable(a.hard_seq)
    a.step(Message(VOTE_REPLY, "b", "g", 2, flags=FLAG_TRUE))
    assert a.role is Role.LEADER

    def says(peer: str, flags: int) -> bool:
        a.step(Message(ACK, peer, "g", 2, 1, 0, a.round, 1, flags))
        a.out.messages.clear()
        a.peer_up(peer)
        return bool(told(a, HEARTBEAT)[-1].flags & FLAG_WITHOUT)

    assert not says("b", FLAG_MUTE), "it was elected by that vote"
    assert not says("c", 0), "who counts need not know"
    assert not says("c", FLAG_MUTE), "what it acked may have been counted"
    a.step(Message(HEARTBEAT, "d", "g", 3))
    a.now += 1000
    a.tick()
    a.step(Message(PREVOTE_REPLY, "b", "g", 4, flags=FLAG_TRUE))
    a.hard_state_durable(a.hard_seq)
    a.step(Message(VOTE_REPLY, "b", "g", 4, flags=FLAG_TRUE))
    a.step(Message(ACK, "c", "g", 4, 1, 0, 0, 1, FLAG_MUTE))
    a.out.messages.clear()
    a.peer_up("c")
    assert told(a, HEARTBEAT)[-1].flags & FLAG_WITHOUT


def test_a_record_that_lets_in_another_directory_is_about_a_former_self() -> None:
    """Its first word came from a leader that did not know yet what is committed."""
    for known, counts in (("new", False), ("old", True)):
        b = joiner()
        b.known["b"] = known
        b.step(Message(HEARTBEAT, "a", "g", 3, commit=0))
        take(b, 3, 1, 0, Members(0, ("a", "c"), ("b",), ids=(("b", "old"),)))
        take(b, 3, 2, 0, Members(0, ("a", "b", "c"), ids=(("b", "old"),)))
        assert (b.hard.mute < 0) is counts


def test_who_led_alone_leads_on_in_its_term() -> None:
    a = core("a", HardState(7, "a", [Members(0, ("a",))], [], scanned=4), [6, 7, 7, 7])
    a.commit = a.verified = a.synced = 4
    a.go_on_leading()
    assert a.role is Role.LEADER
    assert (a.term, a.out.proposals) == (7, [("noop", None)])
    a.out.proposals.clear()
    a.log.terms.append(7)  # type: ignore[attr-defined]
    a.appended(5)
    a.durable(5)
    assert a.led
    assert a.commit == 5
    a.change(("a",), ("b",))
    assert a.out.proposals[0][1] == Members(0, ("a",), ("b",))


def test_a_log_taken_over_from_others_brings_its_term_along() -> None:
    """Who led in an older term and does not know it yet leads nobody who holds records of the newer one."""
    c = core("b", HardState(4, "c", [Members(0, ("a", "b", "c"))], []), [1, 4, 5])
    c.take_term()
    assert (c.term, c.vote) == (5, "")
    c.step(Message(HEARTBEAT, "c", "g", 4, commit=2, index=3, hint=9))
    assert not told(c, ACK)
    assert c.hard.term == 5, "and says nothing in that term before it is on the disk"
    c = core("b", HardState(5, "c", [Members(0, ("a", "b", "c"))], []), [1, 4, 5])
    c.take_term()
    assert (c.term, c.vote) == (5, "c")
