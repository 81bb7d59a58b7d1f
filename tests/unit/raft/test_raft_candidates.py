"""Who of a host's groups may ask for votes, when thousands miss a leader at once."""

from types import SimpleNamespace
from typing import Any

from jscore_server.raft.candidates import Candidates
from jscore_server.raft.core import Role
from jscore_server.raft.members import Members

PATIENCE = 50
VOTERS = ("a", "b", "c")


def group(name: str, vote: str = "", deadline: int = 0) -> Any:
    members = Members(0, VOTERS)
    core = SimpleNamespace(role=Role.FOLLOWER, led=False, deadline=deadline, vote=vote, group=name, members=members)

    class Fake:
        stopped = False

    fake = Fake()
    fake.core = core  # type: ignore[attr-defined]
    return fake


def asks(g: Any) -> Any:
    g.core.role = Role.PRE_CANDIDATE
    return g


def test_a_few_elections_begin_at_once_and_the_next_when_one_ends() -> None:
    line = Candidates("a", {"b", "c"}, PATIENCE, at_once=2)
    groups = [group(f"g{i}", vote="a") for i in range(4)]
    assert [line.admits(g, 1) for g in groups] == [True, True, False, False]
    asks(groups[0]), asks(groups[1])
    assert line.next(2) == []
    assert line.admits(groups[0], 2), "who is at it may ask again"
    assert not line.admits(groups[2], 2)
    groups[0].core.role, groups[0].core.led = Role.LEADER, True
    assert line.next(3) == [groups[2]]
    groups[1].core.role = Role.FOLLOWER  # another one leads
    asks(groups[2])
    assert line.next(4) == [groups[3]]


def test_a_leader_never_waits() -> None:
    line = Candidates("a", {"b", "c"}, PATIENCE, at_once=0)
    leader = group("g")
    leader.core.role = Role.LEADER
    assert line.admits(leader, 1)
    assert not line.busy


def test_a_group_without_a_quorum_takes_nobodys_place() -> None:
    line = Candidates("a", {"z"}, PATIENCE, at_once=1)
    assert all(line.admits(group(f"g{i}", vote="a"), 1) for i in range(3))
    assert not line.busy


def test_an_election_that_nobody_answers_makes_room() -> None:
    line = Candidates("a", {"b", "c"}, PATIENCE, at_once=1)
    stuck, other = asks(group("g1", vote="a")), group("g2", vote="a")
    assert line.admits(stuck, 1)
    assert not line.admits(other, 1)
    assert line.next(PATIENCE) == []
    assert line.next(1 + PATIENCE) == [other]


def test_who_heard_of_a_leader_meanwhile_leaves_the_line() -> None:
    line = Candidates("a", {"b", "c"}, PATIENCE, at_once=1)
    first = asks(group("g1", vote="a"))
    heard, stopped, last = (group(f"h{i}", vote="a") for i in range(3))
    assert [line.admits(g, 1) for g in (first, heard, stopped, last)] == [True, False, False, False]
    heard.core.deadline = 100
    stopped.stopped = True
    first.core.role = Role.FOLLOWER
    assert line.next(2) == [last]
    line.forget(last)
    assert line.next(3) == []
    assert not line.busy


def test_those_it_led_come_before_those_of_others() -> None:
    line = Candidates("a", {"b", "c"}, PATIENCE, at_once=1)
    first, others, own = asks(group("g1")), group("g2", vote="b"), group("g3", vote="a")
    for g in (first, others, own):
        line.admits(g, 1)
    first.core.role = Role.FOLLOWER
    assert line.next(2) == [own]


def test_who_is_left_share_the_groups_of_a_dead_host() -> None:
    """Each group is the first choice of exactly one of them, and each of them has about half."""
    names = [f"g{i}" for i in range(400)]
    chosen = {}
    for host, other in (("a", "b"), ("b", "a")):
        line = Candidates(host, {other}, PATIENCE, at_once=1)
        blocker = asks(group("blocker"))
        assert line.admits(blocker, 1)
        groups = {g: n for n in names for g in [group(n, vote="c")]}
        for g in groups:
            line.admits(g, 1)
        order = []
        blocker.core.role = Role.FOLLOWER
        while turn := line.next(2):
            order.append(groups[turn[0]])
        chosen[host] = order
    mine = next(n for n in range(401) if set(chosen["a"][:n]).isdisjoint(chosen["b"][: 400 - n]) and 150 < n < 250)
    assert sorted(chosen["a"][:mine] + chosen["b"][: 400 - mine]) == sorted(names)
