"""What a server believes of the datagrams that anybody on its network can send."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from jscore_server.cluster.beacons import BEACON_MAX, Beacon, Beacons, packed, unpacked
from jscore_server.config.options import Discovery
from jscore_server.protocol.info import ServerFacts

KEY = b"k" * 64
BEACON = Beacon("east", "NAME", "10.0.0.1", 6222)


def test_a_beacon_says_where_its_server_is() -> None:
    assert unpacked(packed(BEACON, KEY), KEY) == BEACON


def test_another_key_a_bit_or_a_cut_anywhere_make_it_none() -> None:
    whole = packed(BEACON, KEY)
    assert unpacked(whole, b"l" * 64) is None
    for at in range(len(whole)):
        assert unpacked(whole[:at], KEY) is None
        for bit in range(8):
            assert unpacked(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :], KEY) is None
    assert unpacked(whole + b" ", KEY) is None


@pytest.mark.parametrize(
    "beacon",
    [
        Beacon("east", "NAME", "", 0),
        Beacon("east", "NAME", "", 65536),
        Beacon("east", "NAME", "h" * BEACON_MAX, 6222),
    ],
)
def test_who_has_the_key_may_still_not_say_anything(beacon: Beacon) -> None:
    assert unpacked(packed(beacon, KEY), KEY) is None


@pytest.mark.parametrize("group", ["239.255.98.67", "127.255.255.255"], ids=["multicast", "broadcast"])
def test_servers_of_one_cluster_and_key_hear_where_the_others_are(group: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def work() -> None:
        found: dict[str, set[Any]] = {name: set() for name in ("a", "b", "other cluster", "other key")}
        news, open_ = asyncio.Event(), []

        def hears(name: str) -> Any:
            def heard(address: Any) -> None:
                found[name].add(address)
                news.set()

            return heard

        anything: Any = None
        for number, name in enumerate(found):
            key = "another key of 16" if name == "other key" else "the key that they share"
            settings = Discovery(key=key, servers=2, host=group, port=port, interface="127.0.0.1")
            cluster = "west" if name == "other cluster" else "east"
            facts = ServerFacts(name, name, "", "", "", 0, 0, False, cluster=cluster)
            host = "10.0.0.1" if name == "a" else "0.0.0.0"
            own = (host, 6222 + number)
            open_.append(Beacons(settings, anything, facts, lambda own=own: own, hears(name)))
        try:
            for beacons in open_:
                beacons.start()
            while not (found["a"] and found["b"]):
                news.clear()
                await asyncio.wait_for(news.wait(), 20)
        finally:
            for beacons in open_:
                beacons.close()
        assert found == {
            "a": {("127.0.0.1", 6223)}, "b": {("10.0.0.1", 6222)}, "other cluster": set(), "other key": set()
        }  # fmt: skip

    asyncio.run(asyncio.wait_for(work(), 30))
