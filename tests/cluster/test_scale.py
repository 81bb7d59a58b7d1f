"""More and fewer replicas of a stream that is in use: nothing acknowledged is lost, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from harness import Cluster, Lab, Story, ours, run
from jscore_server.demo import ApiError, Client, api, connect, eventually, ready

FIVE = ["m1", "m2", "m3", "m4", "m5"]


async def scale(client: Client, story: Story, replicas: int) -> dict[str, Any]:
    """Asks for that many replicas until it is granted; returns the answer's cluster block."""
    config = (await eventually(lambda: story.info(client), 20, "info"))["config"]
    config["num_replicas"] = replicas

    async def granted() -> Any:
        return await api(client, f"STREAM.UPDATE.{story.stream}", config, seconds=5)

    answer = await eventually(granted, 30, f"{replicas} replicas granted")
    assert answer["config"]["num_replicas"] == replicas
    return dict(answer["cluster"])


async def settled(client: Client, story: Story, replicas: int, seconds: float = 30) -> set[str]:
    """Waits until exactly so many hold the stream, all of them current; returns their names."""
    seen: dict[str, Any] = {}

    async def whole() -> Any:
        nonlocal seen
        seen = (await story.info(client))["cluster"]
        others = seen.get("replicas", [])
        good = [r for r in others if r["current"] and not r.get("offline")]
        return seen.get("leader") and len(good) == len(others) == replicas - 1

    try:
        await eventually(whole, seconds, f"{replicas} current replicas")
    except TimeoutError as err:
        raise TimeoutError(f"{err}; last seen {seen}") from None
    return {seen["leader"], *(r["name"] for r in seen.get("replicas", []))}


def holders(cluster: Cluster, group_start: str = "S-") -> set[str]:
    """Servers with a directory of a stream."""
    return {s.name for s in cluster if any(p.name.startswith(group_start) for p in s.conf.parent.rglob("streams/*/*"))}


@pytest.mark.timeout(240)
def test_replicas_come_and_go_under_load_with_kills(lab: Lab) -> None:
    cluster = lab.hosts(FIVE)
    cluster.start()
    story = Story(cluster, publishers=16)

    async def play() -> None:
        await ready(cluster.servers)
        client = await connect(cluster.urls)
        await story.create(client, 1)
        first = await story.leader(client)
        durable = {"durable_name": "d", "ack_policy": "explicit"}
        await api(client, f"CONSUMER.CREATE.{story.stream}.d", {"stream_name": story.stream, "config": durable})
        async with story.publishing():
            await story.more(500)
            answer = await scale(client, story, 3)
            assert answer["leader"] == first, "the answer comes from the holder, which leads on"
            assert len(answer["replicas"]) == 2
            assert first in await settled(client, story, 3)
            await story.more(300)
            await scale(client, story, 5)
            assert await settled(client, story, 5) == set(FIVE)
            dead = await story.kill_leader(client)
            await story.more(300)
            leader = await story.leader(client)
            kept = await scale(client, story, 3)
            assert kept["leader"] == leader
            names = await settled(client, story, 3)
            assert dead.name not in names, "who holds the least goes first"
            dead.start()
            await story.more(300)
            leader = await story.leader(client)
            await scale(client, story, 1)
            assert await settled(client, story, 1) == {leader}
            await story.more(300)
            await scale(client, story, 3)
            await settled(client, story, 3)
            await story.more(300)

        async def only_three() -> bool:
            return holders(cluster) == await settled(client, story, 3)

        await eventually(only_three, 20, "the others let go of their replicas")
        assert await story.verify(client) == []
        info = await api(client, f"CONSUMER.INFO.{story.stream}.d")
        assert info["num_pending"] == len(story.acked), "the consumer moved with its stream"
        cluster.kill()
        cluster.start()
        await ready(cluster.servers, 60)
        await settled(client, story, 3)
        assert await story.verify(client) == []
        assert story.retried < 5000
        await client.close()

    run(play(), 230)


@ours
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("replicas", "delay"), [(3, 0.05), (5, 0.05), (3, 0.0), (5, 0.2)])
def test_the_only_holder_dies_right_after_it_was_told_to_share(lab: Lab, replicas: int, delay: float) -> None:
    cluster = lab.hosts(FIVE)
    cluster.start()
    story = Story(cluster)
    count = 3000

    async def play() -> None:
        await ready(cluster.servers)
        client = await connect(cluster.urls)
        await story.create(client, 1)
        holder = await story.leader(client)
        for batch in range(0, count, 500):
            answers = await asyncio.gather(
                *(
                    client.request("story.0", b"%d" % n, timeout=5, headers={"Nats-Msg-Id": str(n)})
                    for n in range(batch, batch + 500)
                )
            )
            story.acked |= {str(batch + i): json.loads(a.data)["seq"] for i, a in enumerate(answers)}
        await scale(client, story, replicas)
        await asyncio.sleep(delay)  # the moment of the death is what is tried
        cluster[holder].kill()

        async def taken() -> bool:
            """A newcomer must not accept anything as if the stream were empty."""
            answer = await client.request("story.1", b"later", timeout=0.5, headers={"Nats-Msg-Id": "later"})
            ack = json.loads(answer.data)
            return "error" not in ack and ack["seq"] == count + 1

        try:
            await eventually(taken, 3, "a publish without the holder")
            story.acked["later"] = count + 1
        except TimeoutError:
            """The newcomers had not caught up: then nobody else may lead."""
        cluster[holder].start()
        await settled(client, story, replicas, 20)
        await eventually(taken, 5, "a publish")
        story.acked["later"] = count + 1
        assert await story.verify(client) == []
        await client.close()

    run(play(), 110)


@pytest.mark.timeout(60)
def test_what_cannot_be_scaled_says_why(lab: Lab) -> None:
    cluster = lab.ready_example()
    story = Story(cluster)

    async def play() -> None:
        client = await connect(cluster.urls)
        await story.create(client, 1)
        config = (await story.info(client))["config"]

        async def refused(**change: Any) -> int:
            with pytest.raises(ApiError) as error:
                await api(client, f"STREAM.UPDATE.{story.stream}", {**config, **change})
            return error.value.err_code

        assert await refused(num_replicas=5) == 10005
        assert await refused(num_replicas=6) == 10052
        assert await refused(num_replicas=-1) == 10133
        assert await refused(num_replicas=3, placement={"cluster": "c1", "tags": []}) == 10123
        await client.close()

    run(play(), 50)
