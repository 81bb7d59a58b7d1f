"""A share of the long run; and the test itself can fail: a server that errs is found."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from .judge import Judge
from .outcome import Outcome, same
from .servers import pair, peer

STREAMS = 4_000
ROUND = 40


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, int]]]:
    theirs = peer()
    if theirs is None:
        pytest.skip("nats-server is not on PATH")
    with pair(tmp_path_factory.mktemp("differential"), theirs) as servers:
        yield [("127.0.0.1", server.port) for server in servers]


def test_streams_have_the_same_outcome_as_at_the_peer(addresses: list[tuple[str, int]]) -> None:
    judge = Judge(addresses, seed=1)
    numbers = itertools.count()
    found = []
    while judge.streams < STREAMS and not found:
        found = list(judge.differences(itertools.islice(numbers, ROUND)))
    assert not found, str(judge.cut_down(found[0]))


class Liar:
    """Stands before a server and changes what it answers."""

    def __init__(self, behind: tuple[str, int], pattern: bytes, text: bytes) -> None:
        self.behind, self.pattern, self.text = behind, re.compile(pattern), text
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = self.listener.getsockname()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.behind)
            for source, to, lie in ((conn, server, False), (server, conn, True)):
                threading.Thread(target=self.copy, args=(source, to, lie), daemon=True).start()

    def copy(self, source: socket.socket, to: socket.socket, lie: bool) -> None:
        try:
            while data := source.recv(65536):
                to.sendall(self.pattern.sub(self.text, data) if lie else data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            to.close()


def test_a_wrong_word_is_found(addresses: list[tuple[str, int]]) -> None:
    liar = Liar(addresses[1], rb"'Unknown Protocol Operation'", b"'Unknown Protocol Operatiom'")
    try:
        assert any(Judge([liar.address, addresses[1]], seed=1, at_once=4).differences(iter(range(8))))
    finally:
        liar.listener.close()


def test_what_a_server_may_choose_is_no_difference() -> None:
    def outcome(*parts: bytes) -> Outcome:
        return Outcome([b"INFO {}\r\n" + b"".join(parts)], [False])

    one, two = b"MSG a 1 1\r\nx\r\n", b"MSG a 2 1\r\nx\r\n"
    assert same(outcome(one, two), outcome(two, one))
    assert not same(outcome(one, b"PONG\r\n", two), outcome(two, b"PONG\r\n", one))
    assert not same(outcome(one), outcome(one, one))
    assert same(outcome(b"MSG a qa0_1 1\r\nx\r\n"), outcome(b"MSG a qa0_2 1\r\nx\r\n"))
    assert not same(outcome(b"MSG a qa0_1 1\r\nx\r\n"), outcome(b"MSG a qb0_2 1\r\nx\r\n"))
    # The peer serves groups of one node of its index by chance, others as they were cached: also with odd subjects.
    odd = b"MSG a.\x0c qb1_1 1\r\nx\r\n", b"MSG a.\x0c qc1_2 1\r\nx\r\n"
    assert same(outcome(*odd), outcome(*reversed(odd)))
    odd = b"MSG a.\x0b 1 1\r\nx\r\n", b"MSG a.\x0b 2 1\r\nx\r\n"
    assert same(outcome(*odd), outcome(*reversed(odd)))
