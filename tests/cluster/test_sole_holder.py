"""A server that comes back as the only holder of a stream serves it only as far as the cluster still wants it."""

from __future__ import annotations

import json
import os
import signal

import pytest
from harness import Hosts, Lab, ours, run
from jscore_server.demo import ApiError, Client, NatsError, Server, api, connect, eventually, ready

NAMES = ["s1", "s2", "s3"]


@pytest.fixture
def cluster(lab: Lab) -> Hosts:
    """Three servers, each with its name for a tag."""
    hosts = lab.hosts(NAMES, tags=dict(zip(NAMES, NAMES, strict=True)))
    hosts.start()
    return hosts


def config(tag: str) -> dict[str, object]:
    return {"name": "ONE", "subjects": ["one"], "num_replicas": 1, "placement": {"tags": [tag]}, "allow_direct": True}


async def made_at(client: Client, server: str) -> None:
    """The stream, once that server is a member that can hold it."""

    async def made() -> bool:
        answer = await api(client, "STREAM.CREATE.ONE", config(server))
        return bool(answer["cluster"]["leader"] == server)

    await eventually(made, 20, f"the stream on {server}")


async def deleted(client: Client) -> None:
    """The stream is gone; whoever led the cluster may have just died, and an answer with it."""

    async def gone() -> bool:
        try:
            await api(client, "STREAM.DELETE.ONE", seconds=2)
        except ApiError as err:
            if err.err_code != 10059:
                raise
        return True

    await eventually(gone, 20, "the stream's deletion")


async def others_too(client: Client) -> None:
    """More assignments, so that the first one is known to be committed wherever it is read; to all three servers, so
    that each is a member of the cluster and two of them can go on.
    """
    for n in range(3):

        async def made(n: int = n) -> bool:
            await api(
                client, f"STREAM.CREATE.MORE{n}", {"name": f"MORE{n}", "subjects": [f"more{n}"], "num_replicas": 3}
            )
            return True

        await eventually(made, 20, "a stream on all three")


async def publish(client: Client, text: str, seconds: float = 0.5) -> int:
    """Its sequence; 0: not acknowledged."""
    try:
        answer = await client.request("one", text.encode(), timeout=seconds)
    except (TimeoutError, NatsError):
        return 0
    return int(json.loads(answer.data).get("seq", 0))


async def texts(client: Client, last: int) -> dict[int, str]:
    out = {}
    for seq in range(1, last + 1):
        answer = await client.request("$JS.API.DIRECT.GET.ONE", json.dumps({"seq": seq}).encode(), timeout=5)
        out[seq] = answer.data.decode()
    return out


async def running(server: Server, seconds: float = 10) -> Client:
    async def there() -> Client:
        return await connect(server.url, allow_reconnect=False)

    return await eventually(there, seconds, f"{server.name} takes connections")


@ours
@pytest.mark.timeout(90)
def test_a_stream_that_was_made_anew_elsewhere_is_not_served_by_its_former_holder(cluster: Hosts) -> None:
    async def play() -> None:
        await ready(cluster.servers)
        client = await connect([cluster["s2"].url, cluster["s3"].url])
        await made_at(client, "s1")
        assert await publish(client, "former")
        await others_too(client)
        cluster["s1"].kill()
        await deleted(client)
        await made_at(client, "s2")
        acked = {await publish(client, f"new {n}", 2): f"new {n}" for n in range(3)}
        others = [cluster["s2"], cluster["s3"]]
        for server in others:
            os.kill(server.pid, signal.SIGSTOP)
        try:
            cluster["s1"].start()
            late = await running(cluster["s1"])
            for n in range(4):
                seq = await publish(late, f"late {n}")
                assert seq == 0, "it knows nothing yet of what became of its stream"
        finally:
            for server in others:
                os.kill(server.pid, signal.SIGCONT)

        async def taken() -> int:
            return await publish(late, "last")

        seq = await eventually(taken, 20, "a publish at the server that came back")
        acked[seq] = "last"
        assert {s: t for s, t in (await texts(client, seq)).items() if s in acked} == acked
        await late.close()
        await client.close()

    run(play(), 80)


@ours
@pytest.mark.timeout(90)
def test_a_sole_holder_serves_its_stream_though_the_others_are_gone_for_good(cluster: Hosts) -> None:
    """Publishing to it needs nobody else (clustering.md §1)."""

    async def play() -> None:
        await ready(cluster.servers)
        client = await connect(cluster["s1"].url)
        await made_at(client, "s1")
        assert await publish(client, "first") == 1
        await others_too(client)
        await client.close()
        for server in cluster.servers:
            server.kill()
        cluster["s1"].start()
        client = await running(cluster["s1"])

        async def taken() -> int:
            return await publish(client, "second")

        assert await eventually(taken, 20, "a publish at the server that is left") >= 2
        await client.close()

    run(play(), 80)
