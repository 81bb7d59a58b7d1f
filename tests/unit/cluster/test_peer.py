"""Which connection of a peer is which, and what two servers call their cluster."""

from __future__ import annotations

from typing import Any

import pytest
from jscore_server.cluster.dial import BACKOFF_MAX_S, pause
from jscore_server.cluster.peer import Peer, Route, agree_on_name, pool_index, pool_size, quoted
from jscore_server.protocol.connect import Refused


def peer(size: int = 3, *, pooled: bool = True) -> Peer:
    return Peer("NX", "x", pooled, True, [None] * size)


def route(conn: int, index: int = 0, account: str = "") -> Route:
    return Route(conn, solicited=True, peer_ip="127.0.0.1", index=index, account=account)


def test_the_pool_is_filled_before_the_accounts_own_connections() -> None:
    here = peer()
    for index in range(3):
        assert here.missing(["$SYS"]) == ""
        assert here.free_index() == index
        here.put(route(index, index))
    assert here.missing(["$SYS", "A"]) == "$SYS"
    here.put(route(9, account="$SYS"))
    assert here.missing(["$SYS"]) is None
    here.refused.add("A")
    assert here.missing(["$SYS", "A"]) is None
    assert here.apart(["$SYS", "A"]) == ["$SYS"]


def test_a_peer_without_pools_has_one_connection_for_everything() -> None:
    here = peer(1, pooled=False)
    here.put(route(1))
    assert here.missing(["$SYS"]) is None
    assert here.apart(["$SYS"]) == []


def test_only_the_connection_in_the_slot_leaves_it() -> None:
    here = peer()
    first, second = route(1), route(2)
    here.put(first)
    here.waiting.append(second)
    assert not here.remove(second)
    assert here.waiting == []
    assert here.first() is first
    assert here.remove(first)
    assert not here.remove(first)
    assert here.first() is None


@pytest.mark.parametrize(("own", "said", "size"), [(3, 3, 3), (3, 5, 5), (6, 2, 6), (-1, 3, 0), (3, 0, 0)])
def test_the_larger_pool_counts_where_both_have_one(own: int, said: int, size: int) -> None:
    assert pool_size(own, {"route_pool_size": said}) == size


@pytest.mark.parametrize("said", [-1, 1 << 40, "3", True, None, 2.0])
def test_a_pool_size_that_cannot_be_is_refused(said: Any) -> None:
    with pytest.raises(Refused):
        pool_size(3, {"route_pool_size": said})


@pytest.mark.parametrize("said", [-1, 3, "0", True, None])
def test_an_index_outside_the_pool_is_refused(said: Any) -> None:
    with pytest.raises(Refused):
        pool_index(3, {"route_pool_idx": said})


@pytest.mark.parametrize(
    ("own", "dynamic", "theirs", "their_dynamic", "agreed"),
    [
        ("a", False, "a", False, "a"),
        ("a", False, "z", True, "a"),
        ("z", True, "a", False, "a"),
        ("a", True, "z", True, "z"),
        ("z", True, "a", True, "z"),
    ],
)
def test_a_chosen_name_wins_over_a_made_one(
    own: str, dynamic: bool, theirs: str, their_dynamic: bool, agreed: str
) -> None:
    assert agree_on_name(own, dynamic, {"cluster": theirs, "cluster_dynamic": their_dynamic}) == agreed


def test_two_chosen_names_conflict() -> None:
    with pytest.raises(Refused) as refused:
        agree_on_name("a", False, {"cluster": "b\r\n"})
    assert refused.value.error == 'Rejecting connection, cluster name "b??" does not match "a"'


def test_what_a_peer_says_stays_on_its_line() -> None:
    assert quoted("a\r\nb\0\ud800") == "a??b??"
    assert len(quoted("x" * 10_000)) == 256


def test_attempts_grow_apart_up_to_a_bound() -> None:
    waits = [pause(failures, backoff=True) for failures in range(1, 12)]
    assert waits[0] < 1.2
    assert 29 < waits[-1] < BACKOFF_MAX_S + 0.2
    assert pause(0, backoff=True) <= 0.1
    assert all(pause(n, backoff=False) < 1.2 for n in range(1000))
