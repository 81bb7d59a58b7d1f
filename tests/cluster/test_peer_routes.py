"""Real nats-servers in our cluster: every kind of connection set between them, and what users see across it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import Any

import nats.errors
import pytest
from harness import Lab, Server, connect, eventually, free_ports, ours, peer_command, run, wait_for, wait_for_log
from nats.aio.client import Client
from nats.aio.msg import Msg

pytestmark = ours

POOLS = {
    "default": ("", "", 4),  # three of the pool, one for the system account
    "off here": ("pool_size: -1", "", 1),
    "off there": ("", "pool_size: -1", 1),
    "off": ("pool_size: -1", "pool_size: -1", 1),
    "larger there": ("", "pool_size: 5", 6),
    "larger here": ("pool_size: 6", "pool_size: 2", 7),
    "an account's own": ('accounts: ["$G"]', 'accounts: ["$G"]', 5),
    "an account's own here only": ('accounts: ["$G"]', "", 4),
}


@dataclass
class Pair:
    """One of ours and one of theirs, connected."""

    own: Server
    peer: Server
    monitor: int

    def routez(self) -> list[dict[str, Any]]:
        return list(self.ask("routez")["routes"])

    def ask(self, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/{what}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


def pair(lab: Lab, own: str = "", peer: str = "", *, dials: str = "own", extra: str = "") -> Pair:
    """`dials`: which of them has the other in its configuration: own, peer or both."""
    cmd = peer_command()
    here, there, monitor = free_ports(3)

    def block(port: int, to: int, more: str, solicits: bool) -> str:
        routes = f"routes: [ nats-route://127.0.0.1:{to} ]" if solicits else ""
        return f"cluster {{\n  name: c1\n  listen: 127.0.0.1:{port}\n  {more}\n  {routes}\n}}\n"

    servers = [
        lab.server(
            "own",
            "server_name: own\nlisten: 127.0.0.1:PORT\n" + block(here, there, own, dials != "peer") + extra,
            route_port=here,
        ),
        lab.server(
            "theirs",
            f"server_name: theirs\nlisten: 127.0.0.1:PORT\nhttp: 127.0.0.1:{monitor}\ndebug: true\n"
            + block(there, here, peer, dials != "own")
            + extra,
            route_port=there,
            cmd=cmd,
        ),
    ]
    for server in servers:
        server.start()
    up(servers)
    return Pair(servers[0], servers[1], monitor)


def up(servers: list[Server]) -> None:
    for server in servers:
        wait_for_log(server, "Server is ready")


def settled(both: Pair, count: int) -> list[dict[str, Any]]:
    """Waits until the peer shows so many routes, all alive, and returns them."""

    def there() -> list[dict[str, Any]]:
        try:
            routes = both.routez()
        except OSError:  # it is starting
            return []
        return routes if len(routes) == count and all(route.get("rtt") for route in routes) else []

    routes = wait_for(there, 15, f"{count} routes at the peer")
    assert isinstance(routes, list)
    return routes


async def heard(source: Client, target: Client, subject: str) -> None:
    """Waits until interest of `target` is known where `source` is."""
    listener = await target.subscribe(subject)
    await target.flush()

    async def arrived() -> bool:
        await source.publish(subject, b"probe")
        await source.flush()
        return (await listener.next_msg(timeout=0.2)).data == b"probe"

    await eventually(arrived, 15, "a message crosses")
    await listener.unsubscribe()


async def exchange(both: Pair) -> None:
    """Messages, headers, requests and answers nobody gives, in both directions."""
    here = await connect(both.own.url, allow_reconnect=False)
    there = await connect(both.peer.url, allow_reconnect=False)
    for source, target in ((here, there), (there, here)):
        await heard(source, target, "probe.here")

        async def answer(message: Msg) -> None:
            await message.respond(b"re:" + message.data)

        serving = await target.subscribe("svc.*", cb=answer)
        listener = await target.subscribe("x.>")
        await target.flush()

        async def served(source: Client = source) -> bool:
            return (await source.request("svc.a", b"1", timeout=1)).data == b"re:1"

        await eventually(served, 15, "a request is answered across the route")
        await source.publish("x.y.z", b"d", reply="back", headers={"Key": "value"})
        await source.publish("x.y", b"")
        message = await listener.next_msg(timeout=5)
        assert (message.subject, message.data, message.reply) == ("x.y.z", b"d", "back")
        assert message.headers == {"Key": "value"}
        assert (await listener.next_msg(timeout=5)).data == b""
        await serving.unsubscribe()
        await listener.unsubscribe()
        await target.flush()

        async def unserved(source: Client = source) -> bool:
            try:
                await source.request("svc.a", b"2", timeout=2)
            except nats.errors.NoRespondersError:
                return True
            return False

        await eventually(unserved, 15, "who asks where nobody listens any more is told")
    await here.close()
    await there.close()


@pytest.mark.parametrize("dials", ["own", "peer", "both"])
@pytest.mark.parametrize("what", POOLS)
def test_every_set_of_connections_carries_messages_both_ways(lab: Lab, what: str, dials: str) -> None:
    own, peer, count = POOLS[what]
    both = pair(lab, own, peer, dials=dials)
    settled(both, count)
    run(exchange(both))
    assert len(both.routez()) == count
    assert both.ask("varz")["slow_consumers"] == 0


@pytest.mark.parametrize("what", ["default", "off", "an account's own"])
def test_a_burst_in_both_directions_loses_nothing_and_keeps_its_order(lab: Lab, what: str) -> None:
    own, peer, count = POOLS[what]
    both = pair(lab, own, peer)
    settled(both, count)
    total, size = 40_000, 1000

    async def story() -> None:
        here = await connect(both.own.url, allow_reconnect=False, pending_size=64 << 20)
        there = await connect(both.peer.url, allow_reconnect=False, pending_size=64 << 20)
        ends: dict[str, tuple[Client, Client]] = {"out": (here, there), "back": (there, here)}
        seen: dict[str, list[int]] = {name: [] for name in ends}

        async def play(name: str) -> None:
            source, target = ends[name]
            await heard(source, target, f"probe.{name}")
            finished = asyncio.Event()

            async def take(message: Msg) -> None:
                seen[name].append(int(message.data[:8]))
                if len(seen[name]) == total:
                    finished.set()

            await target.subscribe(
                f"burst.{name}", cb=take, pending_msgs_limit=total + 1, pending_bytes_limit=total * size * 2
            )
            await target.flush()
            await heard(source, target, f"after.{name}")
            for number in range(total):
                await source.publish(f"burst.{name}", b"%08d" % number + b"." * (size - 8))
            await source.flush(60)
            await asyncio.wait_for(finished.wait(), 60)

        await asyncio.gather(*(play(name) for name in ends))
        for name in ends:
            assert seen[name] == list(range(total))
        await here.close()
        await there.close()

    run(story())
    assert both.ask("varz")["slow_consumers"] == 0
    assert "Slow Consumer" not in both.own.log.read_text()
    assert len(both.routez()) == count


def test_a_queue_group_over_both_is_served_by_weight(lab: Lab) -> None:
    both = pair(lab)
    settled(both, 4)
    total = 2000

    async def story() -> None:
        here = [await connect(both.own.url, allow_reconnect=False) for _ in range(2)]
        there = [await connect(both.peer.url, allow_reconnect=False) for _ in range(4)]
        counts: Counter[str] = Counter()

        async def join(client: Client, side: str) -> None:
            async def take(message: Msg) -> None:
                if message.data != b"probe":
                    counts[side] += 1

            await client.subscribe("work.*", queue="crew", cb=take)
            await client.flush()

        await join(here[1], "here")  # one here, three there
        for client in there[1:]:
            await join(client, "there")
        for source, target in ((here[0], there[0]), (there[0], here[0])):
            await heard(source, target, "joined")
            counts.clear()
            for _ in range(total):
                await source.publish("work.x", b"w")
            await source.flush()

            async def all_there() -> bool:
                return sum(counts.values()) >= total

            await eventually(all_there, 15, "every message is taken")
            for client in (*here, *there):
                await client.flush()
            assert sum(counts.values()) == total
            assert total * 0.15 < counts["here"] < total * 0.35, counts
        for client in (*here, *there):
            await client.close()

    run(story())


def test_interest_goes_with_the_client_and_with_the_server(lab: Lab) -> None:
    both = pair(lab, dials="both")
    settled(both, 4)

    async def gone(source: Client, subject: str) -> None:
        async def refused() -> bool:
            try:
                await source.request(subject, b"", timeout=2)
            except nats.errors.NoRespondersError:
                return True
            return False

        await eventually(refused, 15, "the interest is gone")

    async def story() -> None:
        here = await connect(both.own.url, allow_reconnect=False)
        there = await connect(both.peer.url, allow_reconnect=False)
        for source, url in ((here, both.peer.url), (there, both.own.url)):
            brief = await connect(url, allow_reconnect=False)
            await brief.subscribe("only.mine")
            await heard(source, brief, "brief")
            await brief.close()
            await gone(source, "only.mine")
        await there.subscribe("died.with")
        await heard(here, there, "dying")
        both.peer.kill()
        await gone(here, "died.with")
        await here.close()

    run(story())
    both.peer.start()
    up([both.peer])
    settled(both, 4)
    run(exchange(both))
    both.own.kill()
    both.own.start()
    up([both.own])
    settled(both, 4)
    run(exchange(both))


def test_gossip_of_either_kind_brings_everyone_together(lab: Lab) -> None:
    """One seed each: a server of ours, two peers and another of ours meet, whoever tells whom."""
    cmd = peer_command()
    ports = free_ports(4)
    servers = []
    for number, (name, theirs) in enumerate((("a", False), ("b", True), ("c", True), ("d", False))):
        seed = [] if number == 0 else [ports[0]] if number < 3 else [ports[1]]
        text = (
            f"server_name: {name}\nlisten: 127.0.0.1:PORT\n"
            f"cluster {{\n  name: c1\n  listen: 127.0.0.1:{ports[number]}\n"
            f"  routes: [ {' '.join(f'nats-route://127.0.0.1:{port}' for port in seed)} ]\n}}\n"
        )
        servers.append(lab.server(name, text, route_port=ports[number], cmd=cmd if theirs else None))
    for server in servers:
        server.start()
    up(servers)

    async def story() -> None:
        clients = [await connect(server.url, allow_reconnect=False) for server in servers]
        for source in clients:
            for target in clients:
                if source is not target:
                    await heard(source, target, "met")
        for client in clients:  # and each is told of the others' client ports

            async def told(client: Client = client) -> bool:
                known = {url.netloc for url in client.servers} | {url.netloc for url in client.discovered_servers}
                return {f"127.0.0.1:{server.port}" for server in servers} <= known

            await eventually(told, 15, "the client knows all servers")
            await client.close()

    run(story())


def test_a_server_that_leaves_takes_its_addresses_with_it(lab: Lab) -> None:
    both = pair(lab)
    settled(both, 4)

    def urls(port: int) -> list[str]:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            line = sock.makefile("rb").readline()
        found: list[str] = json.loads(line[5:]).get("connect_urls", [])
        return found

    leaving = f"127.0.0.1:{both.own.port}"
    wait_for(lambda: leaving in urls(both.peer.port), 10, "the peer tells its clients of us")

    async def story() -> None:
        stays = await connect(both.own.url, allow_reconnect=False)
        assert both.own.process is not None
        both.own.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: leaving not in urls(both.peer.port), 10, "the peer no longer sends clients to us")
        await stays.close()

    run(story())


@pytest.mark.parametrize("user", ["right", "wrong"])
def test_the_clusters_password_is_asked_and_given(lab: Lab, user: str) -> None:
    cmd = peer_command()
    here, there = free_ports(2)
    login = "authorization { user: r, password: secret }"
    password = "secret" if user == "right" else "guess"
    own = lab.server(
        "own",
        f"server_name: own\nlisten: 127.0.0.1:PORT\ncluster {{ name: c1, listen: 127.0.0.1:{here}, {login} }}\n",
        route_port=here,
    )
    peer = lab.server(
        "theirs",
        f"server_name: theirs\nlisten: 127.0.0.1:PORT\ncluster {{ name: c1, listen: 127.0.0.1:{there}, {login}\n"
        f"  routes: [ nats-route://r:{password}@127.0.0.1:{here} ] }}\n",
        route_port=there,
        cmd=cmd,
    )
    for server in (own, peer):
        server.start()
    up([own, peer])
    if user == "right":
        run(exchange(Pair(own, peer, 0)))
        return
    wait_for(lambda: "Authorization Violation" in peer.log.read_text(), 10, "the peer is refused")
    assert "Route connection created" not in own.log.read_text()


@pytest.mark.parametrize(
    ("own", "peer", "meets"), [("", "c1", True), ("c1", "", True), ("", "", True), ("c1", "c2", False)]
)
def test_a_made_up_cluster_name_gives_way_to_a_chosen_one(lab: Lab, own: str, peer: str, meets: bool) -> None:
    cmd = peer_command()
    here, there = free_ports(2)
    servers = []
    for name, cluster, port, to, command in (("own", own, here, 0, None), ("theirs", peer, there, here, cmd)):
        named = f"name: {cluster}" if cluster else ""
        routes = f"routes: [ nats-route://127.0.0.1:{to} ]" if to else ""
        block = f"cluster {{\n {named}\n listen: 127.0.0.1:{port}\n {routes}\n}}\n"
        text = f"server_name: {name}\nlisten: 127.0.0.1:PORT\n{block}"
        servers.append(lab.server(name, text, route_port=port, cmd=command))
    for server in servers:
        server.start()
    up(servers)
    if meets:
        run(exchange(Pair(servers[0], servers[1], 0)))
    else:
        wait_for_log(servers[0], 'Rejecting connection, cluster name "c2" does not match "c1"')
        wait_for_log(servers[1], "Cluster Name Conflict")


def test_a_second_server_of_the_same_name_stays_out(lab: Lab) -> None:
    both = pair(lab)
    settled(both, 4)
    cmd = peer_command()
    port = free_ports(1)[0]
    double = lab.server(
        "double",
        f"server_name: theirs\nlisten: 127.0.0.1:PORT\ncluster {{ name: c1, listen: 127.0.0.1:{port}\n"
        f"  routes: [ nats-route://127.0.0.1:{both.own.route_port} ] }}\n",
        route_port=port,
        cmd=cmd,
    )
    double.start()
    up([double])
    wait_for(lambda: "duplicate name" in both.own.log.read_text(), 10, "the name is refused")
    assert len(both.routez()) == 4
    run(exchange(both))


def test_a_route_that_is_not_read_is_closed_and_others_go_on(lab: Lab) -> None:
    """A peer that stops reading is a slow consumer like any other: bounded memory, and a fresh start when it wakes."""
    both = pair(lab, extra="max_pending: 2MB\n")
    settled(both, 4)

    async def story() -> None:
        here = await connect(both.own.url, allow_reconnect=False)
        there = await connect(both.peer.url, allow_reconnect=False)
        await there.subscribe("flood", cb=ignore)
        await heard(here, there, "before")
        near = await here.subscribe("near")
        assert both.peer.process is not None
        both.peer.process.send_signal(signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 30
            while "Slow Consumer" not in both.own.log.read_text():
                assert time.monotonic() < deadline
                for _ in range(64):
                    await here.publish("flood", b"x" * 65536)
                await here.flush(10)
            await here.publish("near", b"still here")
            assert (await near.next_msg(timeout=5)).data == b"still here"
        finally:
            both.peer.process.send_signal(signal.SIGCONT)
        await here.close()
        await there.close()

    run(story())
    settled(both, 4)
    run(exchange(both))


async def ignore(message: Msg) -> None:
    """A receiver that wants nothing of it."""
