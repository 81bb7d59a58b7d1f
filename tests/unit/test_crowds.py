"""Who comes and goes in crowds holds up nobody: counted in what a turn of the loop does, not in time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from jscore_server.config.options import Options
from jscore_server.daemon import _dispatcher
from jscore_server.dataplane import Plane, PlaneLoop, PlaneSelector
from jscore_server.logs import Log
from jscore_server.reload import plane_bounds
from jscore_server.server import Server

CROWD = 300
A_TURN = 20
"""A few newcomers and a few who leave: about a millisecond of Python."""
TURNS = 2000


class House:
    """A server in this process, turned by hand."""

    def __init__(self, home: Path) -> None:
        options = Options(host="127.0.0.1", port=-1)
        self.plane = Plane(**plane_bounds(options))
        selector = PlaneSelector(self.plane)
        self.loop = PlaneLoop(selector)
        self.server = Server(options, Log(str(home / "log")), self.plane, os.urandom)
        self.loop.call_soon(self.server.start)
        self.turn()
        selector.dispatch = _dispatcher(self.plane, self.server, self.loop)

    def turn(self) -> None:
        """One turn of asyncio: the C loop, then events and what became ready."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def come(self) -> socket.socket:
        """Connected as far as the kernel is concerned."""
        sock = socket.create_connection(("127.0.0.1", self.server.client_port))
        sock.setblocking(False)
        return sock

    def heard(self, sock: socket.socket) -> bytes:
        try:
            return sock.recv(65536)
        except BlockingIOError:
            return b""

    def until(self, sock: socket.socket, word: bytes) -> int:
        """Turns until the word is heard."""
        got = b""
        for turns in range(TURNS):
            got += self.heard(sock)
            if word in got:
                return turns
            self.turn()
        raise AssertionError(f"{word!r} is not in {got!r}")

    def close(self) -> None:
        self.server.stop()
        self.loop.close()
        self.plane.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


@pytest.fixture
def settled(house: House) -> Iterator[socket.socket]:
    sock = house.come()
    sock.sendall(b"CONNECT {}\r\nPING\r\n")
    house.until(sock, b"PONG")
    yield sock
    sock.close()


def test_who_waits_to_come_in_holds_up_nobody(house: House, settled: socket.socket) -> None:
    crowd = [house.come() for _ in range(CROWD)]
    settled.sendall(b"PING\r\n")
    turns = house.until(settled, b"PONG")
    assert turns <= 2
    before = len(house.server.clients)
    assert before - 1 <= turns * A_TURN
    for _ in range(TURNS):
        if before == CROWD + 1:
            break
        house.turn()
        assert len(house.server.clients) - before <= A_TURN
        before = len(house.server.clients)
    assert before == CROWD + 1
    for sock in crowd:
        house.until(sock, b"INFO")
        sock.close()


def test_who_says_connect_at_the_same_moment_holds_up_nobody(house: House, settled: socket.socket) -> None:
    crowd = [house.come() for _ in range(CROWD)]
    for sock in crowd:
        house.until(sock, b"INFO")
    for sock in crowd:
        sock.sendall(b"CONNECT {}\r\nPING\r\n")
    settled.sendall(b"PING\r\n")
    turns = house.until(settled, b"PONG")
    named = sum(client.connect is not None for client in house.server.clients.values())
    assert turns <= 2
    assert named - 1 <= turns * A_TURN
    for sock in crowd:
        house.until(sock, b"PONG")
        sock.close()


def test_who_leaves_at_the_same_moment_holds_up_nobody(house: House, settled: socket.socket) -> None:
    crowd = [house.come() for _ in range(CROWD)]
    for sock in crowd:
        sock.sendall(b"CONNECT {}\r\nPING\r\n")
        house.until(sock, b"PONG")
    assert len(house.server.clients) == CROWD + 1
    for sock in crowd:
        sock.close()
    settled.sendall(b"PING\r\n")
    turns = house.until(settled, b"PONG")
    left = len(house.server.clients)
    assert turns <= 2
    assert CROWD + 1 - left <= turns * A_TURN
    for _ in range(TURNS):
        if len(house.server.clients) == 1:
            break
        house.turn()
        assert left - len(house.server.clients) <= A_TURN
        left = len(house.server.clients)
    assert len(house.server.clients) == 1
    assert len(house.server.system.monitor.closed) == CROWD


def test_what_clients_are_about_holds_up_nothing_of_the_server(house: House, settled: socket.socket) -> None:
    """A message of the server's own is handled while hundreds of connections end."""
    crowd = [house.come() for _ in range(CROWD)]
    for sock in crowd:
        house.until(sock, b"INFO")
    for sock in crowd:
        sock.close()
    told: list[int] = []
    house.turn()  # their ends wait to be handled
    subscription = house.plane.subscribe("$SYS", "of.its.own", lambda msg: told.append(len(house.server.clients)))
    house.plane.publish("$SYS", "of.its.own")
    house.turn()
    subscription.close()
    assert told
    assert told[0] > CROWD // 2
