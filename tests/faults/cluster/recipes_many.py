"""Thousands of streams, and changes of streams, when a host dies: F32, F34."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.request
from typing import Any

from jscore_server.demo import ApiError, NatsError, api, connect, eventually

from tests.faults.cluster.hosts import Host
from tests.faults.cluster.trial import Trial, fault

AT_ONCE = 32


def view(host: Host, peer: bool) -> tuple[int, int]:
    """(streams the host leads, streams it has), as it says."""
    place = "jsz?accounts=true&streams=true" if peer else "clusterz"
    with urllib.request.urlopen(f"http://{host.address}:{host.http}/{place}", timeout=30) as answer:
        found = json.loads(answer.read())
    if not peer:
        return found["groups"]["led"], found["groups"]["total"]
    streams = [
        stream for account in found.get("account_details") or [] for stream in account.get("stream_detail") or []
    ]
    return sum(s.get("cluster", {}).get("leader") == host.name for s in streams), len(streams)


async def led(hosts: list[Host], peer: bool) -> tuple[int, int]:
    """(streams with a leader among the hosts, streams there are)."""
    views = [await asyncio.to_thread(view, host, peer) for host in hosts]
    return sum(leads for leads, _ in views), max(total for _, total in views)


@fault("F32", "10,000 idle streams of three replicas, a host dies", "all led again in 5 s", seconds=1200)
async def many(t: Trial) -> None:
    count, at = int(10_000 * t.scale), time.monotonic()
    clients = [await connect([host.url]) for host in t.hosts]
    numbers = iter(range(count))

    async def create() -> None:
        for number in numbers:
            config = {"name": f"M{number}", "subjects": [f"m.{number}"], "num_replicas": 3, "storage": "file"}

            async def created(config: dict[str, Any] = config, number: int = number) -> bool:
                await api(clients[number % len(clients)], f"STREAM.CREATE.{config['name']}", config, seconds=20)
                return True

            await eventually(created, 120, f"stream {number}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(create())
    t.tell(f"{count} streams made in {time.monotonic() - at:.0f} s")

    async def all_led(hosts: list[Host]) -> bool:
        have, total = await led(hosts, t.is_peer)
        return have == total > count

    await eventually(lambda: all_led(list(t.hosts)), 60, "a leader for each stream")
    victim = t.rng.choice(list(t.hosts))
    rest = [host for host in t.hosts if host is not victim]
    lost, _ = await asyncio.to_thread(view, victim, t.is_peer)
    victim.kill()
    at = time.monotonic()
    try:
        await eventually(lambda: all_led(rest), 60, "a leader for each stream again")
        t.within(f"{lost} of them led again after", time.monotonic() - at, 5)
    except TimeoutError as err:
        t.must(False, f"{err}: {await led(rest, t.is_peer)}")
    for client in clients:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(client.close(), 5)


CHANGES = ("create", "update", "purge", "consumer", "scale", "snapshot", "delete", "delete messages")


async def change(t: Trial, client: Any, what: str, number: int) -> None:
    """One change of a stream that goes through all of them in turn."""
    name = f"X{number // len(CHANGES) % 4}"
    config = {"name": name, "subjects": [name.lower()], "num_replicas": 3, "storage": "file"}
    match what:
        case "create":
            await api(client, f"STREAM.CREATE.{name}", config, seconds=2)
        case "update":
            await api(client, f"STREAM.UPDATE.{name}", {**config, "max_msgs": 10 + number}, seconds=2)
        case "scale":
            await api(client, f"STREAM.UPDATE.{name}", {**config, "num_replicas": t.rng.choice((1, 3))}, seconds=2)
        case "purge":
            await api(client, f"STREAM.PURGE.{name}", {}, seconds=2)
        case "consumer":
            body = {"stream_name": name, "config": {"durable_name": f"c{number}", "ack_policy": "explicit"}}
            await api(client, f"CONSUMER.DURABLE.CREATE.{name}.c{number}", body, seconds=2)
        case "snapshot":
            await api(client, f"STREAM.SNAPSHOT.{name}", {"deliver_subject": "nobody.hears"}, seconds=2)
        case "delete":
            await api(client, f"STREAM.DELETE.{name}", seconds=2)
        case _:
            await api(client, f"STREAM.MSG.DELETE.{name}", {"seq": 1}, seconds=2)


@fault("F34", "a host killed at any moment of create, update, scale, purge, snapshot, delete", "lost 0, all whole",
       seconds=400)  # fmt: skip
async def killed_in_changes(t: Trial) -> None:
    kills = done = 0
    async with t.load(rate=600):
        for number in range(int(40 * t.scale)):
            client = await eventually(lambda: connect(t.hosts.urls), 30, "a client")
            what = CHANGES[number % len(CHANGES)]
            asked = asyncio.create_task(change(t, client, what, number))
            await asyncio.sleep(t.rng.uniform(0, 0.06))  # the moment is the fault
            host = t.rng.choice(list(t.hosts))
            host.kill()
            kills += 1
            try:
                await asked
                done += 1
            except (TimeoutError, NatsError, ApiError, OSError) as err:
                t.note(f"{what}: {err!r}")
            host.start()
            await t.up([host])
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), 5)
        await t.more(200)
    await t.healthy(60)
    t.tell(f"{kills} kills, {done} changes answered")
