"""What nats-py's users do: key-value buckets, push and pull subscriptions, discovery and reconnection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
import pytest
from harness import Lab, api, eventually, free_ports, run
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError


def test_a_bucket_made_by_nats_py_works(lab: Lab) -> None:
    solo = lab.solo()

    async def work() -> None:
        nc = await nats.connect(solo.url)
        kv = await nc.jetstream().create_key_value(bucket="B", history=3)
        first = await kv.put("a.b", b"1")
        assert await kv.update("a.b", b"2", last=first) == first + 1
        with pytest.raises(KeyWrongLastSequenceError):
            await kv.update("a.b", b"3", last=first)
        with pytest.raises(KeyWrongLastSequenceError):
            await kv.create("a.b", b"3")
        entry = await kv.get("a.b")
        assert (entry.value, entry.revision) == (b"2", 2)
        assert [e.value for e in await kv.history("a.b")] == [b"1", b"2"]
        watch = await kv.watchall()
        seen = await watch.updates(timeout=5)
        assert seen is not None
        assert seen.value == b"2"
        assert await watch.updates(timeout=5) is None
        for i in range(5):
            await kv.put(f"many.{i}", b"x")
            assert await watch.updates(timeout=5) is not None
        await kv.purge("many.*")
        assert await watch.updates(timeout=5) is not None
        assert (await kv.status()).values == 3  # two of a.b, and the marker
        await kv.delete("a.b")
        marker = await watch.updates(timeout=5)
        assert marker is not None
        assert marker.operation == "DEL"
        await watch.stop()
        with pytest.raises(KeyNotFoundError):
            await kv.get("a.b")
        await nc.close()

    run(work())


def test_a_message_with_a_ttl_is_refused_and_leaves_the_bucket_as_it_was(lab: Lab) -> None:
    """Buckets ask for the feature in advance; only its use is refused while it is not served."""
    solo = lab.solo()

    async def work() -> None:
        nc = await nats.connect(solo.url)
        js = nc.jetstream()
        info = await api(nc, "STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "allow_msg_ttl": True})
        assert info["config"]["allow_msg_ttl"] is True
        with pytest.raises(APIError) as caught:
            await js.publish("s", b"x", headers={"Nats-TTL": "1s"})
        assert caught.value.err_code == 10166
        assert (await js.publish("s", b"x")).seq == 1
        await nc.close()

    run(work())


def test_a_subscription_made_after_its_consumer_gets_its_messages_at_once(lab: Lab) -> None:
    """nats-py creates a push consumer first and subscribes then."""
    solo = lab.solo()

    async def work() -> None:
        nc = await nats.connect(solo.url)
        js = nc.jetstream()
        await js.add_stream(name="S", subjects=["s"])
        for _ in range(10):
            await js.publish("s", b"x")
        await js.add_consumer("S", ConsumerConfig(durable_name="P", deliver_subject="to.me", ack_policy="none"))
        await nc.flush()
        sub = await nc.subscribe("to.me")
        for _ in range(10):
            await sub.next_msg(5)
        await nc.close()

    run(work())


def test_a_request_that_wants_what_there_is_ends_when_acknowledgements_are_awaited(lab: Lab) -> None:
    """no_wait with a heartbeat: after some messages, being blocked by max_ack_pending is 404, not a wait."""
    solo = lab.solo()

    async def work() -> None:
        nc = await nats.connect(solo.url)
        js = nc.jetstream()
        await js.add_stream(name="S", subjects=["s"])
        for _ in range(9):
            await js.publish("s", b"x")
        await js.add_consumer("S", ConsumerConfig(durable_name="C", ack_policy="explicit", max_ack_pending=5))
        inbox = nc.new_inbox()
        sub = await nc.subscribe(inbox)
        request = {"batch": 20, "expires": 60 * 10**9, "idle_heartbeat": 10**8, "no_wait": True}
        await nc.publish("$JS.API.CONSUMER.MSG.NEXT.S.C", json.dumps(request).encode(), reply=inbox)
        for _ in range(5):
            assert (await sub.next_msg(5)).headers is None
        status = (await sub.next_msg(5)).headers
        assert status is not None
        assert status["Status"] == "404"
        await nc.close()

    run(work())


def test_a_client_hears_of_new_servers_and_moves_to_one_when_its_own_dies(lab: Lab) -> None:
    ports, routes = free_ports(2), free_ports(2)

    def conf(i: int) -> str:
        return (
            f"server_name: p{i}\nlisten: 127.0.0.1:PORT\n"
            f"cluster {{ name: c, listen: 127.0.0.1:{routes[i]}, routes: [nats://127.0.0.1:{routes[0]}] }}\n"
        )

    first, second = (lab.server(f"p{i}", conf(i), port=ports[i]) for i in (0, 1))

    async def work() -> None:
        first.start()
        heard, moved = asyncio.Event(), asyncio.Event()

        async def discovered() -> None:
            heard.set()

        async def reconnected() -> None:
            moved.set()

        async def connected() -> Any:
            return await nats.connect(
                first.url,
                discovered_server_cb=discovered,
                reconnected_cb=reconnected,
                reconnect_time_wait=0.05,
                allow_reconnect=True,
            )

        nc = await eventually(connected, 15, "a connection")
        second.start()  # while the client is young: what it is told must not wait for its age
        await asyncio.wait_for(heard.wait(), 15)
        assert {url.port for url in nc.servers} == set(ports)
        got = asyncio.get_running_loop().create_future()

        async def take(msg: Any) -> None:
            if not got.done():
                got.set_result(msg.data)

        await nc.subscribe("after.the.move", cb=take)
        await nc.flush()
        first.kill()
        await asyncio.wait_for(moved.wait(), 15)
        assert nc.connected_url is not None
        assert nc.connected_url.port == ports[1]
        other = await nats.connect(second.url)
        await nc.flush()
        await other.publish("after.the.move", b"hello")
        assert await asyncio.wait_for(got, 15) == b"hello"
        await other.close()
        await nc.close()

    run(work())


def test_errors_have_the_fields_that_strict_readers_expect(lab: Lab) -> None:
    solo = lab.solo()

    async def work() -> None:
        nc = await nats.connect(solo.url)
        found = json.loads((await nc.request("$JS.API.STREAM.INFO.NONE")).data)
        assert found["error"]["err_code"] == 10059
        assert (found["total"], found["offset"], found["limit"]) == (0, 0, 0)
        purged = json.loads((await nc.request("$JS.API.STREAM.PURGE.NONE")).data)
        assert purged["error"]["err_code"] == 10059
        assert purged["purged"] == 0
        await nc.close()

    run(work())
