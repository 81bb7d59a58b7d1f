"""Publishers with many messages in flight, and a journal of what became of each.

Every payload is sent once and differs from all others, so it may be stored once at most. The last publisher's carry a
message id and are sent again until acknowledged: those also may be stored once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from dataclasses import dataclass, field

from jscore_server.demo import NatsError, connect

PAD = "." * 200


@dataclass
class Journal:
    """Everything the publishers were told."""

    sent: set[str] = field(default_factory=set)
    acked: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    doubled: list[str] = field(default_factory=list)  # two acknowledgements that contradict each other
    times: list[float] = field(default_factory=list)  # of each acknowledgement
    count: int = 0  # payloads made
    void: bool = False  # an acknowledgement now promises nothing: a disk is being cut off under an fdatasync

    def acknowledge(self, text: str, sequence: int) -> None:
        self.times.append(time.monotonic())
        if self.void:
            return
        before = self.acked.setdefault(text, sequence)
        if before != sequence:
            self.doubled.append(f"{text}: acknowledged at {before} and at {sequence}")

    def gap(self, since: float, until: float | None = None) -> float:
        """The longest time without an acknowledgement."""
        until = until or time.monotonic()
        at = [since, *(t for t in self.times if since <= t <= until), until]
        return max(b - a for a, b in itertools.pairwise(at))


class Load:
    """Publishes while it is used as a context."""

    def __init__(
        self, journal: Journal, urls: list[str], *, publishers: int = 3, in_flight: int = 64, rate: int = 1500
    ):
        self.journal = journal
        self.urls = urls
        self.publishers = publishers
        self.in_flight = in_flight
        self.pause = publishers * in_flight / rate
        self.stopping = False

    async def __aenter__(self) -> Load:
        self.clients = [await connect(self.urls) for _ in range(self.publishers)]
        self.tasks = [
            asyncio.create_task(self.publish(number, slot))
            for number in range(self.publishers)
            for slot in range(self.in_flight)
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.stopping = True
        running = set(self.tasks)
        if exc[0] is None:
            running = (await asyncio.wait(running, timeout=30))[1]
        while running:
            for task in running:
                task.cancel()
            running = (await asyncio.wait(running, timeout=0.5))[1]
        for client in self.clients:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), 5)

    async def publish(self, number: int, slot: int) -> None:
        client, journal = self.clients[number], self.journal
        again = number == self.publishers - 1
        # Each slot has its own time in the pause, before and after a failover: a gap is none of the load's own.
        phase = time.monotonic() + self.pause * (slot * self.publishers + number) / (self.publishers * self.in_flight)
        await asyncio.sleep(phase - time.monotonic())
        while not self.stopping:
            journal.count += 1
            text = f"{number}.{slot}.{journal.count}"
            journal.sent.add(text)
            headers = {"Nats-Msg-Id": text} if again else None
            deadline = time.monotonic() + 60
            while True:
                started = time.monotonic()
                try:
                    answer = await client.request(f"f.{number}", (text + " " + PAD).encode(), 1.0, headers=headers)
                    ack = json.loads(answer.data)
                    if "error" in ack:
                        journal.refused.add(text)
                    else:
                        journal.acknowledge(text, ack["seq"])
                        break
                except (TimeoutError, NatsError, OSError, ValueError):
                    """Not known whether it was stored."""
                await asyncio.sleep(0.02)
                if not again or self.stopping or time.monotonic() > deadline:
                    break
            if time.monotonic() - started < self.pause:
                due = started + self.pause - (started - phase) % self.pause
                await asyncio.sleep(max(0.0, due - time.monotonic()))
