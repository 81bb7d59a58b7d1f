"""One datagram socket of a server, by asyncio-dgram: what comes is passed on, something is sent again and again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import asyncio_dgram
from asyncio_dgram.aio import DatagramServer

from jscore_server.logs import Log


class Datagrams:
    """Calls `received(data, sender)` for each datagram and `beat()` every `every_s` seconds, until it is closed."""

    def __init__(
        self,
        sock: socket.socket,
        log: Log,
        what: str,
        *,
        received: Callable[[bytes, Any], None],
        beat: Callable[[], Awaitable[None]],
        every_s: float,
    ) -> None:
        """`sock` is bound and does not block; `what` names all this where the log tells that it ended by an error."""
        self.sock = sock
        self.log = log
        self.what = what
        self.received = received
        self.beat = beat
        self.every_s = every_s
        self._stream: DatagramServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins to hear and to send, in the running loop."""
        self.spawn(self._run())

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._stream is not None:
            self._stream.close()
        else:
            self.sock.close()

    def spawn(self, work: Any) -> None:
        """Runs a coroutine for as long as this is open."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (err := task.exception()) is not None:
            self.log.error(f"{self.what}: {err!r}")

    async def send(self, data: bytes, to: Any) -> None:
        """In a beat. Raises OSError, also for what a datagram before met."""
        assert self._stream is not None
        await self._stream.send(data, to)

    async def _run(self) -> None:
        stream = self._stream = cast(DatagramServer, await asyncio_dgram.from_socket(self.sock))
        self.spawn(self._listen(stream))
        while True:
            await self.beat()
            await asyncio.sleep(self.every_s)

    async def _listen(self, stream: DatagramServer) -> None:
        while True:
            try:
                data, sender = await stream.recv()
            except OSError:
                continue
            except asyncio_dgram.TransportClosed:
                return
            self.received(data, sender)
