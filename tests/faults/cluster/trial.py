"""One round of one fault: the cluster, the load, what is done to them, and the final reading of every replica."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from jscore_server.demo import ApiError, Client, NatsError, api, connect, eventually, ready

from tests.faults.cluster.checker import Stored, Verdict, judge
from tests.faults.cluster.hosts import Host, Hosts, Network, healthz
from tests.faults.cluster.load import Journal, Load

STREAM = "F"
BUSY = 1.5  # load average per core from which on times are told and not judged


class Skipped(Exception):
    """Why this fault cannot be tried here."""


@dataclass
class Fault:
    """A recipe by name: what is done, what is demanded."""

    name: str
    title: str
    demand: str
    play: Callable[[Trial], Awaitable[None]]
    hosts: int = 3
    replicas: int = 3
    disk: str = ""
    network: bool = False
    more: str = ""
    delayed: bool = False  # what hosts say to each other goes a long way
    clock: bool = False  # each host's clock can be moved
    seconds: float = 240
    peer: bool = True  # whether the recipe has a meaning for nats-server


FAULTS: dict[str, Fault] = {}


def fault(name: str, title: str, demand: str, **options: Any) -> Callable[[Any], Any]:
    def register(play: Callable[[Trial], Awaitable[None]]) -> Callable[[Trial], Awaitable[None]]:
        FAULTS[name] = Fault(name, title, demand, play, **options)
        return play

    return register


def busy() -> bool:
    return os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)


@dataclass
class Trial:
    """What a recipe has in its hands."""

    fault: Fault
    hosts: Hosts
    rng: random.Random
    round: int
    is_peer: bool
    scale: float = 1.0
    loud: bool = False
    network: Network | None = None
    journal: Journal = field(default_factory=Journal)
    wrong: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    dense: bool = True
    read: bool = True  # whether the final reading is done
    client: Client = None  # type: ignore[assignment]

    def note(self, text: str) -> None:
        if self.loud:
            print(f"  [{time.monotonic() - self.began:6.1f}s] {text}", flush=True)

    def tell(self, text: str) -> None:
        """A figure for the verdict's line."""
        self.note(text)
        self.said.append(text)

    def within(self, what: str, seconds: float, demand: float) -> None:
        """A time that is demanded: judged only when the machine has nothing else to do."""
        self.tell(f"{what} {seconds:.2f} s")
        if seconds > demand:
            self.slow.append(f"{what} {seconds:.2f} s, demanded {demand:g} s")

    def must(self, kept: bool, text: str) -> None:
        if not kept:
            self.note(f"WRONG: {text}")
            self.wrong.append(text)

    # -- the stream

    async def create(self, replicas: int = 0) -> None:
        config = {
            "name": STREAM,
            "subjects": ["f.*"],
            "num_replicas": replicas or self.fault.replicas,
            "storage": "file",
            "duplicate_window": 120_000_000_000,
        }

        async def created() -> bool:
            await api(self.client, f"STREAM.CREATE.{STREAM}", config)
            return True

        await eventually(created, 60, "stream created")

    async def info(self, stream: str = STREAM) -> dict[str, Any]:
        return await api(self.client, f"STREAM.INFO.{stream}", seconds=2)

    async def ask(self, hosts: list[Host]) -> None:
        """From now on questions go to these hosts: what a paused one was asked is not answered."""
        await self.client.close()
        self.client = await connect([host.url for host in hosts])

    async def leader(self, seconds: float = 60) -> Host:
        async def known() -> str:
            return str((await self.info())["cluster"].get("leader") or "")

        return self.hosts[str(await eventually(known, seconds, "a leader"))]

    async def follower(self) -> Host:
        leader = await self.leader()
        names = [r["name"] for r in (await self.info())["cluster"].get("replicas", [])]
        return self.hosts[self.rng.choice(sorted(n for n in names if n != leader.name))]

    async def lead(self, host: Host, seconds: float = 30, stream: str = STREAM) -> None:
        """Makes a host the leader of the stream. Raises: TimeoutError."""

        async def leads() -> bool:
            if (await self.info(stream))["cluster"].get("leader") == host.name:
                return True
            await api(self.client, f"STREAM.LEADER.STEPDOWN.{stream}", {"placement": {"preferred": host.name}})
            await asyncio.sleep(0.3)
            return False

        await eventually(leads, seconds, f"{host.name} leads")

    async def update(self, replicas: int, seconds: float = 30) -> None:
        config = (await eventually(self.info, 30, "info"))["config"]
        config["num_replicas"] = replicas

        async def granted() -> bool:
            await api(self.client, f"STREAM.UPDATE.{STREAM}", config, seconds=5)
            return True

        await eventually(granted, seconds, f"{replicas} replicas granted")

    # -- load and time

    @contextlib.asynccontextmanager
    async def load(self, hosts: list[Host] | None = None, **options: Any) -> AsyncIterator[Load]:
        """The load; through these hosts only, if told."""
        async with Load(self.journal, [host.url for host in hosts or self.hosts], **options) as load:
            yield load

    async def run(self, seconds: float) -> None:
        """Lets the load run: how long is part of the recipe."""
        await asyncio.sleep(seconds * self.scale)

    async def more(self, count: int, seconds: float = 60) -> float:
        """Waits for that many further acknowledgements; the seconds it took."""
        started, target = time.monotonic(), len(self.journal.times) + count

        async def enough() -> bool:
            return len(self.journal.times) >= target

        await eventually(enough, seconds, f"{count} further acknowledgements")
        return time.monotonic() - started

    async def up(self, hosts: list[Host] | None = None, seconds: float = 60) -> None:
        """Waits until each of the hosts answers for JetStream."""
        await ready(hosts or list(self.hosts), seconds)

    async def current(self, seconds: float = 60) -> float:
        """Waits until every replica is current and nothing lags; the seconds it took."""
        started = time.monotonic()
        seen: dict[str, Any] = {}

        async def settled() -> bool:
            nonlocal seen
            seen = await self.info()
            cluster, wanted = seen["cluster"], seen["config"]["num_replicas"]
            others = cluster.get("replicas", [])
            good = [r for r in others if r.get("current") and not r.get("offline") and not r.get("lag")]
            return bool(cluster.get("leader")) and len(good) == len(others) == wanted - 1

        try:
            await eventually(settled, seconds, "every replica current")
        except TimeoutError as err:
            raise TimeoutError(f"{err}; the leader says {seen.get('cluster')}") from None
        return time.monotonic() - started

    async def healthy(self, seconds: float = 30) -> float:
        """Waits until every host that runs says 200; the seconds it took."""
        started = time.monotonic()
        seen: dict[str, tuple[int, str]] = {}

        async def good() -> bool:
            nonlocal seen
            seen = {h.name: await asyncio.to_thread(healthz, h) for h in self.hosts if h.running and not h.paused}
            return all(status == 200 for status, _ in seen.values())

        try:
            await eventually(good, seconds, "healthz 200 everywhere")
        except TimeoutError as err:
            bad = {name: said for name, said in seen.items() if said[0] != 200}
            raise TimeoutError(f"{err}; {bad}") from None
        return time.monotonic() - started

    # -- the end

    async def stored(self, host: Host) -> Stored:
        """What a replica holds: made the leader, everything read by a consumer, some of it by sequence too."""
        await self.lead(host)
        self.note(f"{host.name} leads, to be read")
        client = await connect(host.url)
        try:
            last = (await api(client, f"STREAM.INFO.{STREAM}"))["state"]["last_seq"]
            found = await self.consume(client, last)
            self.note(f"{host.name}: {len(found)} read, last {last}")
            for sequence, payload in self.rng.sample(found, min(20, len(found))):

                async def got(sequence: int = sequence) -> dict[str, Any]:
                    return await api(client, f"STREAM.MSG.GET.{STREAM}", {"seq": sequence})

                message = (await eventually(got, 10, f"{host.name}: message {sequence}"))["message"]
                text = base64.b64decode(message["data"]).decode()
                self.must(
                    text == payload, f"{host.name}: sequence {sequence} is {text!r} by get, {payload!r} by consumer"
                )
            return found
        finally:
            await client.close()

    @staticmethod
    async def consume(client: Client, last: int) -> list[tuple[int, str]]:
        name = f"check{time.monotonic_ns()}"
        config = {"name": name, "durable_name": name, "ack_policy": "none", "deliver_policy": "all"}

        async def made() -> bool:
            await api(client, f"CONSUMER.CREATE.{STREAM}.{name}", {"stream_name": STREAM, "config": config})
            return True

        await eventually(made, 30, "a consumer to read with")
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
        found: list[tuple[int, str]] = []
        try:
            more = time.monotonic() + 10  # with a slow way between hosts, the first requests find nobody yet
            while last and (not found or found[-1][0] < last) and time.monotonic() < more:
                before = len(found)
                request = json.dumps({"batch": 2000, "expires": 2_000_000_000}).encode()
                await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{name}", request, reply=inbox)
                for _ in range(2000):
                    try:
                        message = await subscription.next_msg(timeout=10)
                    except TimeoutError:
                        break
                    if message.headers and "Status" in message.headers:
                        break
                    found.append((int(message.reply.split(".")[-4]), message.data.decode()))
                    if found[-1][0] >= last:
                        break
                if len(found) > before:
                    more = time.monotonic() + 10
                else:
                    await asyncio.sleep(0.1)  # asked again at this pace
        finally:
            await subscription.unsubscribe()
            with contextlib.suppress(NatsError, ApiError, TimeoutError):
                await api(client, f"CONSUMER.DELETE.{STREAM}.{name}")
        return found

    async def finish(self) -> Verdict:
        """Everything started again, then every replica read and compared."""
        if self.network is not None:
            self.network.heal()
        for host in self.hosts:
            host.resume()
        self.hosts.start()
        try:
            await self.up()
            took = await self.current(20 if self.wrong else 60)
            self.note(f"whole again after {took:.1f} s")
            await self.healthy()
        except (TimeoutError, RuntimeError) as err:
            self.must(False, f"stuck: {err}")
        if not self.read:
            return Verdict(acked=len(self.journal.acked), wrong=self.wrong)
        replicas: dict[str, Stored] = {}
        try:
            cluster = (await eventually(self.info, 30, "info"))["cluster"]
            names = [cluster["leader"], *(r["name"] for r in cluster.get("replicas", []))]
            for name in sorted(names):
                try:
                    replicas[name] = await self.stored(self.hosts[name])
                except (TimeoutError, NatsError, ApiError, OSError) as err:
                    self.must(False, f"{name} cannot be read: {err}")
        except (TimeoutError, NatsError, ApiError, OSError, KeyError) as err:
            self.must(False, f"nothing can be read: {err!r}")
        verdict = judge(self.journal, replicas, dense=self.dense)
        if not replicas and self.journal.acked:
            verdict.lost = len(self.journal.acked)
        verdict.wrong += self.wrong
        return verdict
