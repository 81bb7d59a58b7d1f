"""Where streams go."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jscore_server.jetstream.placement import NoPeers, Server, place


def keep(servers: list[Server]) -> None:
    """A shuffle that leaves the order alone."""


def servers(n: int, **fields: object) -> list[Server]:
    return [Server(f"n{i}", **fields) for i in range(n)]  # type: ignore[arg-type]


def test_the_least_loaded_servers_are_taken() -> None:
    found = place([Server("a", streams=5), Server("b", streams=1), Server("c", streams=3)], 2, shuffle=keep)
    assert found.peers == ["b", "c"]
    assert found.preferred == "b"


def test_more_replicas_than_servers_are_refused() -> None:
    with pytest.raises(NoPeers, match=r"^no suitable peers for placement$"):
        place(servers(3), 5, shuffle=keep)


def test_an_offline_server_fills_up_while_a_quorum_is_online() -> None:
    three = [Server("a"), Server("b", online=False), Server("c")]
    assert place(three, 3, shuffle=keep).peers == ["a", "c", "b"]
    with pytest.raises(NoPeers, match="peer offline"):
        place([Server("a"), Server("b", online=False), Server("c", online=False)], 3, shuffle=keep)
    with pytest.raises(NoPeers):
        place([Server("a", online=False)], 1, shuffle=keep)


def test_tags_are_required_or_excluded() -> None:
    found = [Server("a", tags=frozenset({"ssd"})), Server("b"), Server("c", tags=frozenset({"SSD", "old"}))]
    assert set(place(found, 2, shuffle=keep, tags=["SSD"]).peers) == {"a", "c"}
    assert place(found, 1, shuffle=keep, tags=["ssd", "!old"]).peers == ["a"]
    with pytest.raises(NoPeers, match=r"tags not matched \['gpu'\]"):
        place(found, 1, shuffle=keep, tags=["gpu"])


def test_a_unique_tag_spreads_replicas() -> None:
    zones = [Server(f"n{i}", tags=frozenset({f"az:{i // 2}"})) for i in range(6)]
    found = place(zones, 3, shuffle=keep, unique_tag="az:")
    assert found.peers == ["n0", "n2", "n4"]
    with pytest.raises(NoPeers, match="not unique"):
        place(zones, 4, shuffle=keep, unique_tag="az:")


def test_another_cluster_has_no_peers() -> None:
    with pytest.raises(NoPeers):
        place(servers(3, cluster="C"), 1, shuffle=keep, cluster="D")


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**32))
def test_streams_spread_evenly(replicas: int, size: int, seed: int) -> None:
    load: Counter[str] = Counter()
    rng = random.Random(seed)
    for _ in range(20):
        known = [Server(f"n{i}", streams=load[f"n{i}"]) for i in range(size)]
        if replicas > size:
            with pytest.raises(NoPeers):
                place(known, replicas, shuffle=rng.shuffle)
            return
        found = place(known, replicas, shuffle=rng.shuffle)
        assert len(set(found.peers)) == replicas
        load.update(found.peers)
    assert max(load.values()) - min(load[f"n{i}"] for i in range(size)) <= 1
