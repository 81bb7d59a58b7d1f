"""What a leader answers that was stopped while others went on: nothing older than what was acknowledged before.

A stopped process finds, when it goes on, everything in its sockets at once: word of the next leader, and requests. What
it may get wrong is a request that it comes to first, so the readers' connections have something to read from the moment
it stops, before any server has said anything; the requests themselves follow when a newer message is acknowledged.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import sys
from typing import Any

from harness import Cluster, Lab, Wire, api, connect, eventually, ours, ready, run

READERS = 8
READS = 5
# A server that answers what it knows, as one would that does not ask whether it leads still, and hears of the next
# leader a moment after the questions: those that came while it was stopped are behind what its peers sent, else.
ASKS_NOBODY = """
import asyncio, sys
from jscore_server.jetstream.runtime import Runtime
from jscore_server.raft.core import Core
def read(self, request):
    self.out.reads.append((request, self.commit))
def frame(self, peer, kind, body, at_once=Runtime.frame):
    asyncio.get_running_loop().call_later(0.03, at_once, self, peer, kind, bytes(body))
Core.read, Runtime.frame = read, frame
from jscore_server.cli import main
sys.exit(main())
"""


class Reader:
    """A connection to one server that asks for the last message of `r` and keeps what comes."""

    def __init__(self, port: int, number: int) -> None:
        self.wire = Wire(port, seconds=30).client()
        self.inbox = f"_INBOX.reads{number}"
        self.wire.send(f"SUB {self.inbox} 1\r\nSUB {self.inbox}.end 2\r\nPING\r\n".encode())
        self.wire.until(b"PONG\r\n")
        self.wire.seen = b""

    def occupy(self) -> None:
        self.wire.send(b"PING\r\n")

    def ask(self) -> None:
        body = b'{"last_by_subj":"r"}'
        line = f"PUB $JS.API.STREAM.MSG.GET.R {self.inbox} {len(body)}\r\n".encode()
        self.wire.send((line + body + b"\r\n") * READS)

    def answers(self) -> list[tuple[int, str]]:
        """(sequence, payload) of all that came so far."""
        self.wire.send(f"PUB {self.inbox}.end 0\r\n\r\n".encode())
        self.wire.until(f"MSG {self.inbox}.end".encode())
        found = []
        for text in re.findall(rb"^\{.*\}\r$", self.wire.seen, re.MULTILINE):
            message = json.loads(text).get("message")
            if message:
                found.append((int(message["seq"]), base64.b64decode(message["data"]).decode()))
        return found


async def turn(cluster: Cluster, client: Any, number: int) -> list[str]:
    """Stops the leader until another one has acknowledged a newer message; the answers that are older than that."""
    servers = {server.name: server for server in cluster.servers}

    async def publish(through: Any, text: str) -> int:
        return int(json.loads((await through.request("r", text.encode(), timeout=1)).data)["seq"])

    await eventually(lambda: publish(client, f"old {number}"), 20, "a publish")
    leader = servers[str((await api(client, "STREAM.INFO.R"))["cluster"]["leader"])]
    others = await connect([server.url for server in cluster.servers if server is not leader])
    with contextlib.ExitStack() as stack:
        readers = [Reader(leader.port, i) for i in range(READERS)]
        for reader in readers:
            stack.enter_context(reader.wire)
        os.kill(leader.pid, signal.SIGSTOP)
        try:
            for reader in readers:
                reader.occupy()
            last = await eventually(lambda: publish(others, f"new {number}"), 20, "the next leader")
            for reader in readers:
                reader.ask()
        finally:
            os.kill(leader.pid, signal.SIGCONT)
        await eventually(lambda: publish(client, "again"), 20, "all go on")
        stale = [f"{text} ({seq} < {last})" for r in readers for seq, text in r.answers() if seq < last]
    await others.close()
    return stale


async def stale(cluster: Cluster, turns: int) -> list[str]:
    """The stale answers of the first turn that has some."""
    client = await connect(cluster.urls)
    config = {"name": "R", "subjects": ["r"], "num_replicas": 3, "allow_direct": True}

    async def created() -> bool:
        await api(client, "STREAM.CREATE.R", config)
        return True

    await eventually(created, 30, "stream created")
    found: list[str] = []
    for number in range(turns):
        found = await turn(cluster, client, number)
        if found:
            break
    await client.close()
    return found


@ours
def test_a_leader_that_was_paused_answers_no_stale_read(cluster: Cluster) -> None:
    assert run(stale(cluster, 4), 150) == []


@ours
def test_one_that_asks_nobody_is_found_out(lab: Lab) -> None:
    """So that the test above means something."""
    careless = lab.example()
    for server in careless.servers:
        server.command = [sys.executable, "-c", ASKS_NOBODY]
    careless.start()
    run(ready(careless.servers))
    assert run(stale(careless, 12), 150)
