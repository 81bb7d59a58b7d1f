"""Whatever dies or is paused, in any order, under load: nothing acknowledged is lost, doubled or moved.

JSCORE_CHAOS_SEEDS chooses the seeds (default one), JSCORE_CHAOS_ROUNDS how many rounds each plays. A seed fixes which
faults come in which order; when they strike is up to the machine.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest
from harness import Cluster, Story, run
from jscore_server.demo import Server, connect

SEEDS = [int(word) for word in os.environ.get("JSCORE_CHAOS_SEEDS", "1").split()]
ROUNDS = int(os.environ.get("JSCORE_CHAOS_ROUNDS", "1"))
FAULTS_A_ROUND = 6
DOWN_S = 1.5
PAUSED_S = 4.0


async def victims(fault: str, story: Story, client: object, rng: random.Random) -> list[Server]:
    servers = list(story.cluster)
    if fault.endswith("leader"):
        try:
            return [story.cluster[await story.leader(client, 10)]]  # type: ignore[arg-type]
        except TimeoutError:
            return [rng.choice(servers)]
    return servers if fault == "kill all" else rng.sample(servers, 2 if fault.endswith("two") else 1)


async def strike(fault: str, hit: list[Server], rng: random.Random) -> None:
    """How long something is down is part of the fault, so it is slept through."""
    if fault.startswith("kill"):
        for server in hit:
            server.kill()
        await asyncio.sleep(rng.random() * DOWN_S)
        for server in hit:
            server.start()
    else:
        for server in hit:
            os.kill(server.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(rng.random() * PAUSED_S)
        finally:
            for server in hit:
                os.kill(server.pid, signal.SIGCONT)


async def play(story: Story, rng: random.Random) -> list[str]:
    faults = ["kill one", "kill leader", "kill two", "kill all", "pause one", "pause leader", "pause two"]
    names = {server.name for server in story.cluster}
    client = await connect(story.cluster.urls)
    try:
        await story.create(client)
        for _ in range(ROUNDS):
            async with story.publishing():
                for _ in range(FAULTS_A_ROUND):
                    await story.more(rng.randint(50, 1500))
                    fault = rng.choice(faults)
                    hit = await victims(fault, story, client, rng)
                    story.viewer.step(f"{fault}: {', '.join(server.name for server in hit)}")
                    await strike(fault, hit, rng)
                    if rng.random() < 0.5:
                        await story.current(client, names, caught_up=False)
            await story.current(client, names, caught_up=True)
            wrong = await story.verify(client)
            if wrong:
                return wrong
        return []
    finally:
        await client.close()


@pytest.mark.timeout(120 + 120 * ROUNDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_kills_and_pauses_in_any_order_lose_nothing(cluster: Cluster, seed: int) -> None:
    assert run(play(Story(cluster), random.Random(seed)), 100 + 110 * ROUNDS) == []
