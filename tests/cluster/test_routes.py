"""One cluster out of many servers: gossip, core messages, queue groups, and servers without JetStream in between."""

from __future__ import annotations

import pytest
from harness import Cluster, Lab, Server, api, connect, eventually, free_ports, ours, peer_command, ready, run
from nats.aio.client import Client
from nats.aio.msg import Msg


def plain(lab: Lab, name: str, route: int, cmd: list[str] | None = None) -> Server:
    """A server without a jetstream block that knows one running server."""
    own = free_ports(1)[0]
    text = (
        f"server_name: {name}\nlisten: 127.0.0.1:PORT\n"
        f"cluster {{ name: c1, listen: 127.0.0.1:{own}, routes: [ nats-route://localhost:{route} ] }}\n"
    )
    return lab.server(name, text, route_port=own, cmd=cmd)


async def reaches(source: Client, target: Client) -> None:
    """Waits until a message published on one client arrives at the other."""
    subject = source.new_inbox()
    listener = await target.subscribe(subject)
    await target.flush()

    async def arrived() -> bool:
        await source.publish(subject, b"hello")
        await source.flush()
        return (await listener.next_msg(timeout=0.2)).data == b"hello"

    await eventually(arrived, 15, "a message crosses the cluster")
    await listener.unsubscribe()


def test_core_messages_reach_every_server_with_wildcards_and_headers(shared: Cluster) -> None:
    async def story() -> None:
        clients = [await connect(url, allow_reconnect=False) for url in shared.urls]
        for source in clients:
            for target in clients:
                await reaches(source, target)
        exact, star, rest = [
            await client.subscribe(subject) for client, subject in zip(clients, ("a.b.c", "a.*.c", "a.>"), strict=True)
        ]
        for client in clients:
            await client.flush()

        async def known() -> bool:
            await clients[0].publish("a.b.c", b"probe")
            await clients[0].flush()
            return all(sub.pending_msgs for sub in (exact, star, rest))

        await eventually(known, 15, "interest is known everywhere")
        await clients[0].publish("a.b.c", b"x", reply="back", headers={"Key": "value"})
        await clients[0].publish("a.z.c", b"y")
        await clients[0].publish("a.z", b"z")
        await clients[0].flush()

        async def after_probes(subscription: object) -> Msg:
            while True:
                message: Msg = await subscription.next_msg(timeout=5)  # type: ignore[attr-defined]
                if message.data != b"probe":
                    return message

        for subscription in (exact, star, rest):
            message = await after_probes(subscription)
            assert (message.subject, message.data, message.reply) == ("a.b.c", b"x", "back")
            assert message.headers == {"Key": "value"}
        assert (await after_probes(star)).data == b"y"
        assert [(await after_probes(rest)).data, (await after_probes(rest)).data] == [b"y", b"z"]
        for client in clients:
            await client.close()

    run(story())


def test_a_queue_group_gets_each_message_once_wherever_its_members_are(shared: Cluster) -> None:
    async def story() -> None:
        clients = [await connect(url, allow_reconnect=False) for url in shared.urls]
        got: list[bytes] = []

        async def take(message: Msg) -> None:
            got.append(message.data)

        # Members away from the publisher, so that every message crosses a route to exactly one of them.
        for client in clients[1:]:
            await client.subscribe("work.*", queue="crew", cb=take)
            await client.flush()

        async def known() -> bool:
            await clients[0].publish("work.probe", b"probe")
            await clients[0].flush()
            return bool(got)

        await eventually(known, 15, "the group is known")
        expected = {b"%d" % n for n in range(500)}
        for data in expected:
            await clients[0].publish("work.x", data)
        await clients[0].flush()

        async def all_there() -> bool:
            return expected <= set(got)

        await eventually(all_there, 15, "all work is taken")
        work = [data for data in got if data != b"probe"]
        assert len(work) == len(set(work))
        for client in clients:
            await client.close()

    run(story())


def test_listing_one_running_server_is_enough(lab: Lab) -> None:
    ports = free_ports(6)

    def only_first(i: int, text: str) -> str:
        """Keeps one route: to the first server, in the first's own file to the second."""
        known = ports[3] if i else ports[4]
        return (
            "\n".join(line for line in text.splitlines() if "nats-route://" not in line or f":{known}" in line) + "\n"
        )

    cluster = lab.ready_example(ports=(ports[:3], ports[3:]), edit=only_first)

    async def story() -> None:
        second, third = [await connect(url, allow_reconnect=False) for url in cluster.urls[1:]]
        await reaches(second, third)

        async def created() -> bool:
            await api(second, "STREAM.CREATE.G", {"name": "G", "subjects": ["g"], "num_replicas": 3, "storage": "file"})
            return True

        await eventually(created, 30, "a stream over all three, two of which met by gossip")
        # The server both of them were told about goes away: they speak without it.
        cluster.servers[0].kill()
        await reaches(second, third)
        await reaches(third, second)
        await second.close()
        await third.close()

    run(story())


async def uses_jetstream(url: str) -> None:
    """Creates, writes, reads and deletes a replicated stream through one server."""
    client = await connect(url, allow_reconnect=False)
    js = client.jetstream(timeout=5)

    async def created() -> bool:
        config = {"name": "VIA", "subjects": ["via.*"], "num_replicas": 3, "storage": "file"}
        await api(client, "STREAM.CREATE.VIA", config)
        return True

    await eventually(created, 30, "a stream created from a server without JetStream")

    async def first() -> bool:  # interest travels behind the answer: until it arrives a publish is told 503
        return (await js.publish("via.x", b"0", headers={"Nats-Msg-Id": "0"})).seq == 1

    await eventually(first, 10, "the stream's interest crosses the route")
    for n in range(1, 10):
        assert (await js.publish("via.x", b"%d" % n)).seq == n + 1
    reader = await js.pull_subscribe("via.*", durable="r", stream="VIA")
    messages = await reader.fetch(10, timeout=5)
    assert [message.data for message in messages] == [b"%d" % n for n in range(10)]
    for message in messages:
        await message.ack_sync()
    assert (await js.consumer_info("VIA", "r")).num_ack_pending == 0
    assert await js.delete_stream("VIA")
    await client.close()


def test_a_client_of_a_standard_server_uses_jetstream(lab: Lab) -> None:
    cluster = lab.ready_example()
    standard = plain(lab, "standard", cluster.servers[0].route_port)
    standard.start()

    run(ready([standard]))
    run(uses_jetstream(standard.url))


@ours
def test_a_client_of_a_real_nats_server_in_our_cluster_uses_jetstream(lab: Lab) -> None:
    cmd = peer_command()
    cluster = lab.ready_example()
    standard = plain(lab, "peer", cluster.servers[0].route_port, cmd)
    standard.start()
    run(ready([standard]))

    async def story() -> None:
        here = await connect(standard.url, allow_reconnect=False)
        for url in cluster.urls:
            there = await connect(url, allow_reconnect=False)
            await reaches(here, there)
            await reaches(there, here)
            await there.close()
        await here.close()

    run(story())
    run(uses_jetstream(standard.url))


def test_a_server_of_another_cluster_name_is_not_let_in(lab: Lab) -> None:
    cluster = lab.ready_example()
    stranger = plain(lab, "stranger", cluster.servers[0].route_port)
    stranger.conf.write_text(stranger.conf.read_text().replace("name: c1", "name: c2"))
    stranger.start()

    async def story() -> None:
        here = await eventually(lambda: connect(stranger.url, allow_reconnect=False), 15, "the stranger is up")
        with pytest.raises(Exception, match=r"(?i)no responders|timeout"):
            await api(here, "INFO", seconds=1)
        await here.close()

    run(story())
