"""Leadership moves under load within a second, and a server that lost its disk is no voter of its former self."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from typing import Any

from harness import Cluster, Story, api, connect, eventually, ours, run


def test_step_down_under_load_moves_the_leader_and_loses_nothing(cluster: Cluster) -> None:
    async def play() -> list[str]:
        client = await connect(cluster.urls)
        story = Story(cluster, publishers=32)
        await story.create(client)
        async with story.publishing():
            await story.more(300)
            for _ in range(3):
                before = await story.leader(client)
                await api(client, f"STREAM.LEADER.STEPDOWN.{story.stream}")

                async def moved(before: str = before) -> bool:
                    return await story.leader(client) not in ("", before)

                await eventually(moved, 5, "another leader")
                await story.more(300)
        wrong = await story.verify(client)
        await client.close()
        return wrong

    assert run(play(), 100) == []


@ours
def test_a_lame_duck_without_clients_ends_when_its_streams_have_other_leaders(cluster: Cluster) -> None:
    """They cannot take over at first, and may do so in a moment."""

    async def play() -> None:
        client = await connect(cluster.urls)
        story = Story(cluster)
        await story.create(client)
        await story.current(client, {server.name for server in cluster.servers}, caught_up=True, seconds=20)
        name = await story.leader(client)
        await client.close()
        leader = cluster[name]
        others = [server for server in cluster.servers if server.name != name]
        for server in others:
            os.kill(server.pid, signal.SIGSTOP)
        os.kill(leader.pid, signal.SIGUSR2)
        ends = time.monotonic() + 0.3
        while time.monotonic() < ends:
            assert leader.running, "it leads what nobody else does"
            await asyncio.sleep(0.02)
        for server in others:
            os.kill(server.pid, signal.SIGCONT)

        async def ended() -> bool:
            return not leader.running

        await eventually(ended, 10, "its end")
        client = await connect([server.url for server in others])
        assert await story.leader(client) != name
        await client.close()

    run(play(), 60)


def test_a_server_that_lost_its_disk_learns_before_it_votes_again(cluster: Cluster) -> None:
    """A holds X with B; B's disk is replaced while A is down. B and C may not elect each other: C lacks X."""
    servers = {server.name: server for server in cluster.servers}

    async def publish(client: Any, text: str) -> int:
        answer = json.loads((await client.request("w.x", text.encode(), timeout=1)).data)
        return int(answer["seq"])

    async def play() -> None:
        client = await connect(cluster.urls)
        config = {"name": "W", "subjects": ["w.>"], "num_replicas": 3, "storage": "file"}

        async def created() -> bool:
            await api(client, "STREAM.CREATE.W", config)
            return True

        await eventually(created, 30, "stream created")
        await eventually(lambda: publish(client, "all"), 20, "a publish with all")
        holder = str((await api(client, "STREAM.INFO.W"))["cluster"]["leader"])
        wiped, behind = (name for name in servers if name != holder)
        servers[behind].kill()
        last = await eventually(lambda: publish(client, "X"), 20, "a publish that C misses")
        servers[wiped].kill()
        servers[holder].kill()
        shutil.rmtree(cluster.home / wiped)
        servers[wiped].start()
        servers[behind].start()
        other = await connect([servers[wiped].url, servers[behind].url])
        for _ in range(30):
            try:
                assert await publish(other, "must wait") > last, "the acknowledged record is lost"
            except AssertionError:
                raise
            except Exception:  # no leader, as it has to be
                await asyncio.sleep(0.1)
        servers[holder].start()

        async def found() -> bool:
            return int((await api(client, "STREAM.INFO.W", seconds=2))["state"]["messages"]) >= last

        await eventually(found, 30, "the stream with X")
        await eventually(lambda: publish(client, "again"), 30, "a publish with all again")
        await other.close()
        await client.close()

    run(play(), 150)
