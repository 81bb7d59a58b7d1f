"""Plays many sessions at the same time to two servers and hands over each session's two outcomes."""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator

from .outcome import Outcome
from .streams import Session, Step

READ_BYTES = 65536
LINGER_S = 0.2
GIVE_UP_S = 10.0
PONG = b"PONG\r\n"
PREFIXES = [c + c for c in (bytes([i]) for i in (*range(65, 91), *range(97, 123)))]
"""No two are one changed byte apart."""


class Run:
    """One session at one server."""

    __slots__ = (
        "at",
        "closed",
        "deadline",
        "done",
        "got",
        "left_open",
        "piece",
        "player",
        "pongs",
        "session",
        "socks",
        "step",
        "watch",
    )

    def __init__(self, player: Player, session: Session, address: tuple[str, int]) -> None:
        self.player = player
        self.session = session
        self.got = [bytearray() for _ in range(session.conns)]
        self.pongs = [0] * session.conns
        self.closed = [False] * session.conns
        self.left_open = [False] * session.conns
        self.at = self.piece = 0
        self.watch = 0.0
        self.done = False
        self.deadline = time.monotonic() + player.patience_s
        self.socks = []
        for i in range(session.conns):
            sock = socket.socket()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address)
            sock.setblocking(False)
            self.socks.append(sock)
            player.register(sock.fileno(), self, i)

    @property
    def sending(self) -> bool:
        return self.at < len(self.session.steps) and self.piece < len(self.session.steps[self.at].pieces)

    def send(self) -> None:
        """The next piece; after the last one of a connection its half-close."""
        step = self.session.steps[self.at]
        sock = self.socks[step.conn]
        if self.closed[step.conn]:
            self.piece = len(step.pieces)
        else:
            try:
                sock.send(step.pieces[self.piece])
            except BlockingIOError:
                return
            except OSError:
                self.piece = len(step.pieces) - 1
            self.piece += 1
        if self.piece == len(step.pieces):
            if step.last and not step.linger:
                self.half_close(step)
            self.watch = time.monotonic() + LINGER_S if step.linger else 0.0
            self.look()

    def half_close(self, step: Step) -> None:
        try:
            self.socks[step.conn].shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def look(self) -> None:
        """Goes on with the next step when this one is over."""
        while self.at < len(self.session.steps) and not self.sending:
            step = self.session.steps[self.at]
            if not self.closed[step.conn]:
                if step.last or self.pongs[step.conn] < step.pongs:
                    return
            self.watch = 0.0
            self.at += 1
            self.piece = 0
        if self.sending:
            self.player.senders.append(self)
        elif self.at == len(self.session.steps) and not self.done:
            self.finish(late=False)

    def readable(self, conn: int) -> None:
        if self.closed[conn]:
            return
        try:
            data = self.socks[conn].recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            got = self.got[conn]
            self.pongs[conn] += (bytes(got[-5:]) + data).count(PONG)
            got += data
            if self.watch:
                self.watch = time.monotonic() + LINGER_S
            if self.session.steps[self.at].conn == conn and self.piece and not self.sending:
                self.look()
            return
        self.closed[conn] = True
        self.player.unregister(self.socks[conn].fileno())
        if not self.sending:
            self.look()

    def tick(self, now: float) -> None:
        if self.watch and now >= self.watch:
            step = self.session.steps[self.at]
            self.watch = 0.0
            self.left_open[step.conn] = not self.closed[step.conn]
            self.half_close(step)
        elif now >= self.deadline and not self.done:
            self.finish(late=True)

    def finish(self, late: bool) -> None:
        self.done = True
        for conn, sock in enumerate(self.socks):
            if not self.closed[conn]:
                self.player.unregister(sock.fileno())
            sock.close()
        self.player.finished(self, Outcome([bytes(b) for b in self.got], self.left_open, late))


class Player:
    """addresses: the two servers. `play` runs what `sessions` yields when asked with a free prefix."""

    def __init__(self, addresses: list[tuple[str, int]], at_once: int = 40, patience_s: float = GIVE_UP_S) -> None:
        self.addresses = addresses
        self.patience_s = patience_s
        self.at_once = at_once
        self.poll = select.epoll()
        self.where: dict[int, tuple[Run, int]] = {}
        self.senders: list[Run] = []
        self.running: dict[int, list[Run | Outcome]] = {}
        self.prefix_of: dict[int, bytes] = {}
        self.prefixes = deque(PREFIXES)
        self.ended: list[tuple[Session, Outcome, Outcome]] = []

    def register(self, fd: int, run: Run, conn: int) -> None:
        self.where[fd] = (run, conn)
        self.poll.register(fd, select.EPOLLIN)

    def unregister(self, fd: int) -> None:
        del self.where[fd]
        self.poll.unregister(fd)

    def finished(self, run: Run, outcome: Outcome) -> None:
        pair = self.running[run.session.number]
        pair[pair.index(run)] = outcome
        if all(isinstance(x, Outcome) for x in pair):
            del self.running[run.session.number]
            self.prefixes.append(self.prefix_of.pop(run.session.number))
            first, second = pair
            assert isinstance(first, Outcome)
            assert isinstance(second, Outcome)
            self.ended.append((run.session, first, second))

    def begin(self, session: Session, prefix: bytes) -> None:
        self.prefix_of[session.number] = prefix
        pair: list[Run | Outcome] = []
        self.running[session.number] = pair
        for address in self.addresses:
            run = Run(self, session, address)
            pair.append(run)
            self.senders.append(run)

    def turn(self) -> None:
        """Each run that may sends one piece; then what came is read."""
        senders = self.senders
        self.senders = []
        for run in senders:
            if run.sending and not run.done:
                run.send()
                if run.sending:
                    self.senders.append(run)
        self.senders = list(dict.fromkeys(self.senders))
        for fd, _ in self.poll.poll(0 if self.senders else 0.05):
            known = self.where.get(fd)
            if known is not None:
                known[0].readable(known[1])

    def ticks(self) -> None:
        now = time.monotonic()
        for pair in list(self.running.values()):
            for run in pair:
                if isinstance(run, Run):
                    run.tick(now)

    def play(
        self, make: Callable[[int, bytes], Session], numbers: Iterator[int]
    ) -> Iterator[tuple[Session, Outcome, Outcome]]:
        """Outcomes in the order in which they come."""
        waiting: tuple[Session, bytes] | None = None
        more = True
        alone = False
        turns = 0
        while more or waiting or self.running:
            while not alone and len(self.running) < self.at_once and (more or waiting):
                if waiting is None:
                    number = next(numbers, None)
                    if number is None:
                        more = False
                        break
                    prefix = self.prefixes.popleft()
                    waiting = make(number, prefix), prefix
                if waiting[0].alone and self.running:
                    break
                alone = waiting[0].alone
                self.begin(*waiting)
                waiting = None
            self.turn()
            turns += 1
            if turns % 20 == 0 or not self.senders:
                self.ticks()
            if self.ended:
                yield from self.ended
                self.ended.clear()
            if not self.running:
                alone = False

    def close(self) -> None:
        self.poll.close()
