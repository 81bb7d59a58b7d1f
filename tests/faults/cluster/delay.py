"""A long way between hosts: everything to a host's cluster port comes through a proxy that holds it up for a while."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence

ONE_WAY_S = (0.05, 0.15)  # 100 +- 50 ms
STALLED = 0.01  # of all pieces: held up as by a packet that is lost and sent again
STALL_S = 0.3
PIECES = 512  # under way in one direction of a connection


class Delay:
    """Proxies from `ports` to `targets`, while it is used as a context. Order is kept, as TCP does."""

    def __init__(self, ports: Sequence[int], targets: Sequence[int], rng: random.Random) -> None:
        self.pairs = list(zip(ports, targets, strict=True))
        self.rng = rng
        self.servers: list[asyncio.Server] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Delay:
        for port, target in self.pairs:
            self.servers.append(await asyncio.start_server(self._taker(target), "127.0.0.1", port))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for server in self.servers:
            server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def _taker(self, target: int):  # type: ignore[no-untyped-def]
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            with contextlib.suppress(OSError, asyncio.CancelledError):  # cancelled: the trial is over
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
            writer.close()

        return take

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES)
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while True:
                due, piece = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not piece:
                    break
                writer.write(piece)
                await writer.drain()

        async def collect() -> None:
            due = 0.0
            while True:
                piece = await reader.read(1 << 16)
                late = self.rng.uniform(*ONE_WAY_S) + (STALL_S if self.rng.random() < STALLED else 0)
                due = max(due, loop.time() + late)
                await queue.put((due, piece))
                if not piece:
                    break

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(deliver())
                group.create_task(collect())
        except* OSError:
            pass
        finally:
            writer.close()
