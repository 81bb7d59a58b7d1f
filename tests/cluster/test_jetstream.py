"""JetStream as a client sees it: streams of one and three replicas, consumers, and the errors code looks for."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from harness import ApiError, Cluster, api, connect, eventually, run
from nats.aio.client import Client
from nats.errors import TimeoutError as NoAnswer
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError


@asynccontextmanager
async def stream(cluster: Cluster, name: str, replicas: int = 1, **config: Any) -> AsyncIterator[Client]:
    """A client of some server, and a stream on subjects `<name>.>` that is gone afterwards."""
    client = await connect(cluster.urls)
    full = {"name": name, "subjects": [f"{name}.>"], "num_replicas": replicas, "storage": "file", **config}

    async def created() -> bool:
        await api(client, f"STREAM.CREATE.{name}", full)
        return True

    await eventually(created, 30, f"stream {name} created")

    async def deleted() -> bool:
        try:
            await api(client, f"STREAM.DELETE.{name}")
        except ApiError as err:
            if err.err_code != 10059:  # an earlier attempt whose answer was lost
                raise
        return True

    try:
        yield client
    finally:
        await eventually(deleted, 30, f"stream {name} deleted")
        await client.close()


async def error_of(work: Coroutine[Any, Any, Any]) -> tuple[int, int]:
    with pytest.raises(ApiError) as caught:
        await work
    return caught.value.code, caught.value.err_code


@pytest.mark.parametrize("replicas", [1, 3])
def test_publish_read_delete_purge(shared: Cluster, replicas: int) -> None:
    name = f"R{replicas}"

    async def story() -> None:
        async with stream(shared, name, replicas) as client:
            js = client.jetstream(timeout=5)
            for n in range(1, 21):
                ack = await js.publish(f"{name}.s{n % 2}", b"body %d" % n, headers={"N": str(n)})
                assert (ack.stream, ack.seq, bool(ack.duplicate)) == (name, n, False)
            info = await api(client, f"STREAM.INFO.{name}")
            state = info["state"]
            assert (state["messages"], state["first_seq"], state["last_seq"]) == (20, 1, 20)
            assert info["config"]["num_replicas"] == replicas
            assert info["cluster"]["leader"] in {server.name for server in shared}
            assert len(info["cluster"].get("replicas") or []) == replicas - 1

            got = (await api(client, f"STREAM.MSG.GET.{name}", {"seq": 7}))["message"]
            assert (got["subject"], got["seq"], base64.b64decode(got["data"])) == (f"{name}.s1", 7, b"body 7")
            assert b"N: 7" in base64.b64decode(got["hdrs"])
            last = (await api(client, f"STREAM.MSG.GET.{name}", {"last_by_subj": f"{name}.s1"}))["message"]
            assert last["seq"] == 19

            assert (await api(client, f"STREAM.MSG.DELETE.{name}", {"seq": 7}))["success"]
            assert await error_of(api(client, f"STREAM.MSG.GET.{name}", {"seq": 7})) == (404, 10037)
            assert await error_of(api(client, f"STREAM.MSG.DELETE.{name}", {"seq": 700})) == (500, 10057)
            assert (await api(client, f"STREAM.INFO.{name}"))["state"]["messages"] == 19

            purged = await api(client, f"STREAM.PURGE.{name}", {"filter": f"{name}.s0"})
            assert (purged["success"], purged["purged"]) == (True, 10)
            purged = await api(client, f"STREAM.PURGE.{name}")
            assert purged["purged"] == 9
            state = (await api(client, f"STREAM.INFO.{name}"))["state"]
            assert (state["messages"], state["first_seq"], state["last_seq"]) == (0, 21, 20)
            assert (await js.publish(f"{name}.s0", b"after")).seq == 21

    run(story())


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_message_id_is_stored_once(shared: Cluster, replicas: int) -> None:
    async def story() -> None:
        async with stream(shared, "DUP", replicas) as client:
            js = client.jetstream(timeout=5)
            first = await js.publish("DUP.a", b"1", headers={"Nats-Msg-Id": "one"})
            other = await js.publish("DUP.a", b"2", headers={"Nats-Msg-Id": "two"})
            again = await js.publish("DUP.b", b"3", headers={"Nats-Msg-Id": "one"})
            assert (first.seq, other.seq) == (1, 2)
            assert (again.seq, again.duplicate) == (1, True)
            assert (await api(client, "STREAM.INFO.DUP"))["state"]["messages"] == 2

    run(story())


def test_streams_are_listed_by_name_and_with_their_state(shared: Cluster) -> None:
    async def story() -> None:
        async with stream(shared, "LB", 3) as client, stream(shared, "LA"):
            names = await api(client, "STREAM.NAMES")
            assert (names["streams"], names["total"]) == (["LA", "LB"], 2)
            assert (await api(client, "STREAM.NAMES", {"subject": "LB.x"}))["streams"] == ["LB"]
            listed = await api(client, "STREAM.LIST")
            assert [info["config"]["name"] for info in listed["streams"]] == ["LA", "LB"]
            assert not listed.get("missing")
            account = await api(client, "INFO")
            assert account["streams"] == 2

    run(story())


def test_a_pull_consumer_delivers_redelivers_and_forgets_as_it_is_told(shared: Cluster) -> None:
    async def story() -> None:
        async with stream(shared, "PULL", 3) as client:
            js = client.jetstream(timeout=5)
            for n in range(1, 7):
                await js.publish("PULL.x", b"%d" % n)
            sub = await js.pull_subscribe("PULL.x", durable="worker", stream="PULL")
            one, two, three, four = await sub.fetch(4, timeout=5)
            assert [one.data, two.data, three.data, four.data] == [b"1", b"2", b"3", b"4"]
            assert (one.metadata.num_pending, four.metadata.num_pending) == (5, 2)
            assert (one.metadata.sequence.stream, one.metadata.sequence.consumer) == (1, 1)
            assert (one.metadata.stream, one.metadata.consumer, one.metadata.num_delivered) == ("PULL", "worker", 1)
            await one.ack_sync(timeout=5)
            await two.nak()
            await three.term()
            await four.in_progress()
            (again,) = await sub.fetch(1, timeout=5)
            assert (again.data, again.metadata.num_delivered) == (b"2", 2)
            await again.ack_sync(timeout=5)
            await four.ack_sync(timeout=5)

            async def settled() -> bool:
                info = await api(client, "CONSUMER.INFO.PULL.worker")
                return (info["num_ack_pending"], info["num_pending"], info["ack_floor"]["stream_seq"]) == (0, 2, 4)

            await eventually(settled, 10, "acknowledgements counted")
            rest = await sub.fetch(2, timeout=5)
            assert [message.data for message in rest] == [b"5", b"6"]
            for message in rest:
                await message.ack_sync(timeout=5)
            with pytest.raises((NoAnswer, asyncio.TimeoutError)):
                await sub.fetch(1, timeout=0.3)
            assert (await api(client, "CONSUMER.NAMES.PULL"))["consumers"] == ["worker"]
            assert (await api(client, "CONSUMER.DELETE.PULL.worker"))["success"]
            assert await error_of(api(client, "CONSUMER.INFO.PULL.worker")) == (404, 10014)

    run(story())


def test_a_pull_that_waits_gets_the_next_message_and_no_wait_says_404(shared: Cluster) -> None:
    async def story() -> None:
        async with stream(shared, "WAIT") as client:
            config = {"durable_name": "w", "name": "w", "ack_policy": "explicit"}
            await api(client, "CONSUMER.CREATE.WAIT.w", {"stream_name": "WAIT", "config": config})
            inbox = client.new_inbox()
            answers = await client.subscribe(inbox)
            await client.publish("$JS.API.CONSUMER.MSG.NEXT.WAIT.w", b'{"batch":1,"no_wait":true}', reply=inbox)
            none = await answers.next_msg(timeout=5)
            assert none.headers is not None
            assert none.headers["Status"] == "404"
            pull = json.dumps({"batch": 1, "expires": 10_000_000_000}).encode()
            await client.publish("$JS.API.CONSUMER.MSG.NEXT.WAIT.w", pull, reply=inbox)

            async def waits() -> bool:
                return bool((await api(client, "CONSUMER.INFO.WAIT.w"))["num_waiting"] == 1)

            await eventually(waits, 5, "the pull waits")
            await client.publish("WAIT.x", b"late")
            assert (await answers.next_msg(timeout=5)).data == b"late"

    run(story())


def test_unacknowledged_messages_come_again_after_ack_wait(shared: Cluster) -> None:
    async def story() -> None:
        async with stream(shared, "AGAIN") as client:
            js = client.jetstream(timeout=5)
            await js.publish("AGAIN.x", b"once more")
            config = ConsumerConfig(ack_wait=0.3)
            sub = await js.pull_subscribe("AGAIN.x", durable="d", stream="AGAIN", config=config)
            (first,) = await sub.fetch(1, timeout=5)
            (second,) = await sub.fetch(1, timeout=5)
            assert (first.data, second.data) == (b"once more", b"once more")
            assert (first.metadata.num_delivered, second.metadata.num_delivered) == (1, 2)

    run(story())


def test_an_ordered_push_consumer_reads_everything_in_order_and_goes_on(shared: Cluster) -> None:
    async def story() -> None:
        async with stream(shared, "ORD", 3) as client:
            js = client.jetstream(timeout=5)
            for n in range(300):
                await js.publish("ORD.x", b"%d" % n)
            sub = await js.subscribe("ORD.>", ordered_consumer=True)
            for n in range(300):
                assert (await sub.next_msg(timeout=5)).data == b"%d" % n
            await js.publish("ORD.x", b"live")
            assert (await sub.next_msg(timeout=5)).data == b"live"
            await sub.unsubscribe()

    run(story())


def test_an_ephemeral_push_consumer_starts_where_it_is_told(shared: Cluster) -> None:
    async def story() -> None:
        async with stream(shared, "EPH") as client:
            js = client.jetstream(timeout=5)
            for n in range(1, 6):
                await js.publish("EPH.x", b"%d" % n)
            config = ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=4, ack_policy=AckPolicy.NONE
            )
            sub = await js.subscribe("EPH.x", stream="EPH", config=config)
            assert [(await sub.next_msg(timeout=5)).data for _ in range(2)] == [b"4", b"5"]
            name = (await sub.consumer_info()).name
            assert (await api(client, f"CONSUMER.INFO.EPH.{name}"))["config"].get("durable_name") is None
            await sub.unsubscribe()

    run(story())


def test_a_consumer_survives_the_death_of_its_leader(cluster: Cluster) -> None:
    async def story() -> None:
        async with stream(cluster, "LIVE", 3) as client:
            js = client.jetstream(timeout=5)
            for n in range(1, 11):
                await js.publish("LIVE.x", b"%d" % n)
            sub = await js.pull_subscribe("LIVE.x", durable="d", stream="LIVE")
            for message in await sub.fetch(5, timeout=5):
                await message.ack_sync(timeout=5)
            dead = cluster[(await api(client, "CONSUMER.INFO.LIVE.d"))["cluster"]["leader"]]
            dead.kill()

            async def led() -> bool:
                info = await api(client, "CONSUMER.INFO.LIVE.d", seconds=1)
                return bool(info["cluster"].get("leader") not in ("", None, dead.name))

            await eventually(led, 30, "another server leads the consumer")
            got = await sub.fetch(5, timeout=10)
            assert [message.data for message in got] == [b"%d" % n for n in range(6, 11)]
            dead.start()

    run(story())


ERRORS: list[tuple[str, Callable[[Client], Coroutine[Any, Any, Any]], tuple[int, int]]] = [
    ("no such stream", lambda c: api(c, "STREAM.INFO.NONE"), (404, 10059)),
    ("delete of no stream", lambda c: api(c, "STREAM.DELETE.NONE"), (404, 10059)),
    ("no such consumer", lambda c: api(c, "CONSUMER.INFO.ERR.none"), (404, 10014)),
    (
        "name taken by another configuration",
        lambda c: api(c, "STREAM.CREATE.ERR", {"name": "ERR", "subjects": ["other"], "storage": "file"}),
        (400, 10058),
    ),
    (
        "subjects overlap",
        lambda c: api(c, "STREAM.CREATE.E2", {"name": "E2", "subjects": ["ERR.x"], "storage": "file"}),
        (400, 10065),
    ),
    (
        "more replicas than servers",
        lambda c: api(c, "STREAM.CREATE.E5", {"name": "E5", "subjects": ["e5"], "num_replicas": 5, "storage": "file"}),
        (400, 10005),
    ),
    (
        "name in subject and body differ",
        lambda c: api(c, "STREAM.CREATE.E6", {"name": "E7", "subjects": ["e6"], "storage": "file"}),
        (400, 10056),
    ),
    ("message that is not there", lambda c: api(c, "STREAM.MSG.GET.ERR", {"seq": 99}), (404, 10037)),
    ("request that is not JSON", lambda c: raw_api(c, "STREAM.CREATE.E8", b"{"), (400, 10025)),
]


async def raw_api(client: Client, subject: str, body: bytes) -> None:
    answer = json.loads((await client.request(f"$JS.API.{subject}", body, timeout=5)).data)
    raise ApiError(answer["error"])


@pytest.mark.parametrize(("what", "ask", "expected"), ERRORS, ids=[error[0] for error in ERRORS])
def test_errors_have_the_numbers_that_clients_look_for(
    shared: Cluster, what: str, ask: Callable[[Client], Coroutine[Any, Any, Any]], expected: tuple[int, int]
) -> None:
    async def story() -> None:
        async with stream(shared, "ERR") as client:
            assert await error_of(ask(client)) == expected

    run(story())


def test_more_replicas_than_a_standalone_server_has(lab: Any) -> None:
    async def story() -> None:
        client = await connect(solo.url, allow_reconnect=False)
        config = {"name": "S", "subjects": ["s"], "num_replicas": 3, "storage": "file"}
        assert await error_of(api(client, "STREAM.CREATE.S", config)) == (500, 10074)
        await client.close()

    solo = lab.solo()
    run(story())


def test_a_wrong_last_sequence_is_refused_and_nothing_stored(shared: Cluster) -> None:
    async def story() -> None:
        async with stream(shared, "EXP", 3) as client:
            js = client.jetstream(timeout=5)
            await js.publish("EXP.x", b"1")
            with pytest.raises(APIError) as caught:
                await js.publish("EXP.x", b"2", headers={"Nats-Expected-Last-Sequence": "7"})
            assert (caught.value.code, caught.value.err_code) == (400, 10071)
            with pytest.raises(APIError) as caught:
                await js.publish("EXP.x", b"2", headers={"Nats-Expected-Stream": "OTHER"})
            assert caught.value.err_code == 10060
            ack = await js.publish("EXP.x", b"2", headers={"Nats-Expected-Last-Sequence": "1"})
            assert ack.seq == 2

    run(story())


def test_nats_py_raises_its_own_not_found(shared: Cluster) -> None:
    async def story() -> None:
        client = await connect(shared.urls)
        with pytest.raises(NotFoundError):
            await client.jetstream(timeout=5).stream_info("NOWHERE")
        await client.close()

    run(story())


def test_a_standalone_server_keeps_its_streams_over_kill_and_restart(lab: Any) -> None:
    solo = lab.solo()

    async def write() -> None:
        client = await connect(solo.url, allow_reconnect=False)
        js = client.jetstream(timeout=5)
        await api(client, "STREAM.CREATE.KEEP", {"name": "KEEP", "subjects": ["keep"], "storage": "file"})
        for n in range(100):
            assert (await js.publish("keep", b"%d" % n)).seq == n + 1
        sub = await js.pull_subscribe("keep", durable="d", stream="KEEP")
        for message in await sub.fetch(10, timeout=5):
            await message.ack_sync(timeout=5)
        await client.close()

    async def read() -> None:
        client = await connect(solo.url)
        js = client.jetstream(timeout=5)

        async def there() -> bool:
            return bool((await api(client, "STREAM.INFO.KEEP"))["state"]["last_seq"] == 100)

        await eventually(there, 20, "the stream is back")
        sub = await js.pull_subscribe("keep", durable="d", stream="KEEP")
        messages = await sub.fetch(90, timeout=5)
        assert [message.data for message in messages] == [b"%d" % n for n in range(10, 100)]
        await client.close()

    run(write())
    solo.kill()
    solo.start()
    run(read())


@pytest.mark.parametrize("damaged", [4, 9])
def test_one_damaged_message_of_a_single_replica_costs_that_message_alone(lab: Any, damaged: int) -> None:
    solo = lab.solo()

    async def write() -> None:
        client = await connect(solo.url, allow_reconnect=False)
        js = client.jetstream(timeout=5)
        await api(client, "STREAM.CREATE.KEEP", {"name": "KEEP", "subjects": ["keep"], "storage": "file"})
        for n in range(10):
            assert (await js.publish("keep", b"message %d of ten" % n)).seq == n + 1
        await client.close()

    async def read() -> None:
        client = await connect(solo.url)
        js = client.jetstream(timeout=5)

        async def there() -> bool:
            return "state" in await api(client, "STREAM.INFO.KEEP")

        await eventually(there, 20, "the stream is back")
        state = (await api(client, "STREAM.INFO.KEEP"))["state"]
        assert (state["messages"], state["last_seq"]) == (9, 10)
        for n in set(range(10)) - {damaged}:
            assert (await js.get_msg("KEEP", n + 1)).data == b"message %d of ten" % n
        assert (await js.publish("keep", b"and on")).seq == 11
        await client.close()

    run(write())
    solo.stop()
    text = b"message %d of ten" % damaged
    (segment,) = [f for f in (lab.home / "solo" / "store").rglob("*") if f.is_file() and text in f.read_bytes()]
    segment.write_bytes(segment.read_bytes().replace(text, b"message X of ten"))
    solo.start()
    run(read())
