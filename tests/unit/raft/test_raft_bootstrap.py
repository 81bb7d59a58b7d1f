"""Who gives birth to the meta group, and who joins."""

from __future__ import annotations

from jscore_server.raft import Adopt, Birth, Bootstrap, Hello, Wait
from jscore_server.raft.bootstrap import decide


def hello(name: str, birth: Birth | None = None, elected: bool = False) -> Hello:
    return Hello(name, "id-" + name, birth, elected)


def test_standalone_is_born_at_once() -> None:
    assert decide(hello("a"), 1, [], "new") == Bootstrap(Birth("new", ("a",), 1))


def test_a_minority_waits() -> None:
    assert isinstance(decide(hello("a"), 3, [], "new"), Wait)
    assert isinstance(decide(hello("a"), 5, [hello("b")], "new"), Wait)


def test_the_smallest_name_of_a_majority_creates_the_group_and_the_others_wait_for_it() -> None:
    assert decide(hello("a"), 3, [hello("b")], "new") == Bootstrap(Birth("new", ("a", "b"), 3))
    assert isinstance(decide(hello("b"), 3, [hello("a")], "new"), Wait)


def test_a_listed_server_adopts_what_a_peer_created() -> None:
    birth = Birth("g", ("a", "b"), 3)
    assert decide(hello("b"), 3, [hello("a", birth)], "new") == Adopt(birth)


def test_a_server_that_is_not_listed_waits_to_be_added() -> None:
    birth = Birth("g", ("a", "b"), 3)
    peers = [hello("c", birth, True), hello("b", birth, True)]
    assert isinstance(decide(hello("a2"), 3, peers, "new"), Wait)


def test_nobody_creates_a_second_group_beside_a_known_one() -> None:
    birth = Birth("g", ("b", "c"), 3)
    assert isinstance(decide(hello("a"), 3, [hello("b", birth), hello("c")], "new"), Wait)


def test_an_own_birth_that_never_lived_gives_way_to_a_live_one() -> None:
    own, live = Birth("g1", ("a", "b"), 3), Birth("g2", ("a", "b", "c"), 3)
    assert decide(hello("a", own), 3, [hello("c", live, True)], "new") == Adopt(live, replaces=True)


def test_a_birth_that_lived_is_kept_whatever_others_say() -> None:
    own, other = Birth("g1", ("a", "b"), 3), Birth("g0", ("a", "b", "c"), 3)
    assert isinstance(decide(hello("a", own, True), 3, [hello("c", other, True)], "new"), Wait)


def test_two_births_at_once_and_the_one_that_cannot_live_gives_way_though_the_other_does_not_list_it() -> None:
    own, live = Birth("g9", ("b", "c"), 3), Birth("g1", ("a", "c"), 3)
    peers = [hello("a", live, True), hello("c", live, True)]
    assert decide(hello("b", own), 3, peers, "new") == Adopt(live, replaces=True)


def test_a_birth_that_a_peer_calls_elected_is_kept() -> None:
    own, other = Birth("g1", ("a", "b", "c"), 5), Birth("g2", ("a", "d", "e"), 5)
    peers = [hello("b", own, True), hello("d", other, True)]
    assert isinstance(decide(hello("a", own), 5, peers, "new"), Wait)
