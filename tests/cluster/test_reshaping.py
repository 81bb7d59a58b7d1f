"""Replicas, leaders and processes come and go at random under load: nothing acknowledged is lost, doubled or moved.

JSCORE_CHAOS_SEEDS chooses the seeds (default one), JSCORE_CHAOS_ROUNDS how often each does ten things.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random

import pytest
from harness import Hosts, Lab, Story, ours, run
from jscore_server.demo import ApiError, Client, NatsError, api, connect, eventually, ready

SEEDS = [int(word) for word in os.environ.get("JSCORE_CHAOS_SEEDS", "1").split()]
ROUNDS = int(os.environ.get("JSCORE_CHAOS_ROUNDS", "1"))
FIVE = ["r1", "r2", "r3", "r4", "r5"]
DOWN_S = 3.0


async def whole(client: Client, story: Story, count: int) -> None:
    """Waits until so many replicas hold the stream, all of them current."""
    seen: object = None

    async def so() -> bool:
        nonlocal seen
        cluster = seen = (await story.info(client))["cluster"]
        others = cluster.get("replicas", [])
        return bool(cluster.get("leader")) and len(others) == count - 1 and all(r["current"] for r in others)

    try:
        await eventually(so, 40, f"{count} current replicas")
    except TimeoutError as err:
        raise TimeoutError(f"{err}; last seen {seen}") from None


async def act(what: str, client: Client, cluster: Hosts, story: Story, rng: random.Random) -> None:
    """One thing that may be refused, or come to nothing: what counts is what was acknowledged."""
    with contextlib.suppress(ApiError, NatsError, TimeoutError, OSError):
        if what == "scale":
            config = (await story.info(client))["config"]
            config["num_replicas"] = rng.choice([1, 3, 5])
            await api(client, f"STREAM.UPDATE.{story.stream}", config, seconds=2)
        elif what == "step down":
            await api(client, f"STREAM.LEADER.STEPDOWN.{story.stream}", seconds=2)
        elif what == "replace":
            info = (await story.info(client))["cluster"]
            peer = rng.choice([info["leader"], *(r["name"] for r in info.get("replicas", []))])
            await api(client, f"STREAM.PEER.REMOVE.{story.stream}", {"peer": peer}, seconds=2)
    if what.startswith("kill"):
        hit = rng.choice(cluster.servers)
        if what == "kill leader":
            with contextlib.suppress(TimeoutError):
                hit = cluster[await story.leader(client, 5)]
        hit.kill()
        await asyncio.sleep(rng.random() * DOWN_S)  # how long it is down is part of the fault
        hit.start()


@ours
@pytest.mark.timeout(120 + 120 * ROUNDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_membership_and_kills_in_any_order_lose_nothing(lab: Lab, seed: int) -> None:
    cluster = lab.hosts(FIVE)
    cluster.start()
    story = Story(cluster, publishers=16)
    rng = random.Random(seed)
    done: list[str] = []

    async def play() -> None:
        await ready(cluster.servers)
        client = await connect(cluster.urls)
        await story.create(client, 1)
        async with story.publishing():
            for _ in range(10 * ROUNDS):
                await story.more(rng.randint(20, 300))
                done.append(rng.choice(["scale", "scale", "step down", "replace", "kill", "kill leader"]))
                await act(done[-1], client, cluster, story, rng)
        info = await eventually(lambda: story.info(client), 30, "info")
        await whole(client, story, info["config"]["num_replicas"])
        assert await story.verify(client) == [], done
        await client.close()

    run(play(), 100 + 110 * ROUNDS)
