"""Datagrams between hosts: who is linked is heard, and nobody else, whatever comes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from jscore_server.cluster.hints import Hints, datagram


class Hosts:
    """Hosts a and b with their sockets; what each heard."""

    def __init__(self) -> None:
        self.heard: dict[str, list[str]] = {"a": [], "b": []}
        self.news = asyncio.Event()
        self.hosts: dict[str, Hints] = {}
        for name in self.heard:
            anything: Any = None
            with socket.create_server(("127.0.0.1", 0)) as listener:
                host = self.hosts[name] = Hints(name, anything, self.hears(name), listener)
            host.start()

    def hears(self, name: str) -> Any:
        def heard(peer: str) -> None:
            self.heard[name].append(peer)
            self.news.set()

        return heard

    async def next(self) -> None:
        self.news.clear()
        await asyncio.wait_for(self.news.wait(), 20)

    def link(self, to: str, peer: str, offer: object = None) -> None:
        host = self.hosts[peer]
        self.hosts[to].link_up(peer, "127.0.0.1", host.offer if offer is None else offer)

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()


def play(work: Any) -> None:
    async def bounded() -> None:
        hosts = Hosts()
        try:
            await asyncio.wait_for(work(hosts), 30)
        finally:
            hosts.close()

    asyncio.run(bounded())


def test_linked_hosts_hear_each_other_until_the_link_is_gone() -> None:
    async def work(h: Hosts) -> None:
        h.link("a", "b")
        h.link("b", "a")
        while not (h.heard["a"] and h.heard["b"]):
            await h.next()
        assert set(h.heard["a"]) == {"b"}
        h.hosts["b"].link_down("a")
        h.heard["b"].clear()
        h.hosts["b"]._received(datagram("a", h.hosts["b"]._key, 1 << 40))
        assert not h.heard["b"]

    play(work)


def test_what_is_forged_repeated_or_malformed_is_not_heard() -> None:
    async def work(h: Hosts) -> None:
        b = h.hosts["b"]
        b.link_up("a", "127.0.0.1", None)  # a offers nothing: it may still speak
        good = datagram("a", b._key, 5)
        b._received(good)
        assert h.heard["b"] == ["a"]
        b._received(good)
        b._received(datagram("a", b._key, 4))
        b._received(datagram("a", bytes(16), 9))
        b._received(datagram("c", b._key, 9))
        late = datagram("a", b._key, 9)
        for at in range(len(late)):
            b._received(late[:at])
            b._received(late[:at] + bytes([late[at] ^ 1]) + late[at + 1 :])
        b._received(late + b"x" * 70_000)
        b._received(b"")
        assert h.heard["b"] == ["a"]
        b._received(late)
        assert h.heard["b"] == ["a", "a"]

    play(work)


@pytest.mark.parametrize(
    "offer", [7, "x", [], [1], [0, "00" * 16], [70_000, "00" * 16], ["1", "00" * 16], [1, "zz"], [1, 5], [1, "00"]]
)
def test_an_offer_that_is_none_is_not_taken(offer: object) -> None:
    async def work(h: Hosts) -> None:
        h.link("a", "b", offer)
        h.link("b", "a")
        while not h.heard["a"]:
            await h.next()
        assert not h.heard["b"]

    play(work)


def test_a_port_that_is_taken_is_an_error() -> None:
    anything: Any = None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = Hints("a", anything, print, listener)
        with pytest.raises(OSError, match="liveness hints"):
            Hints("b", anything, print, listener)
        first.close()
