"""Servers that go, come and are replaced, streams that move: who holds a stream changes, what it holds does not."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from harness import Hosts, Lab, Story, ours, run
from jscore_server.demo import ApiError, Client, Server, api, connect, eventually, ready

FOUR = ["m1", "m2", "m3", "m4"]


async def system(cluster: Hosts) -> Client:
    return await connect(cluster.urls, user="sys", password="sys")  # also at servers that it hears of


async def refused(client: Client, subject: str, body: object = None) -> int:
    with pytest.raises(ApiError) as error:
        await api(client, subject, body)
    return error.value.err_code


async def holders(client: Client, story: Story) -> tuple[str, dict[str, dict[str, Any]]]:
    cluster = (await story.info(client))["cluster"]
    return cluster.get("leader", ""), {r["name"]: r for r in cluster.get("replicas", [])}


async def held_by(client: Client, story: Story, names: set[str], seconds: float = 30) -> None:
    """Waits until exactly these hold the stream, all of them whole."""
    seen: Any = None

    async def so() -> bool:
        nonlocal seen
        leader, others = seen = await holders(client, story)
        return {leader, *others} == names and all(r["current"] and not r.get("offline") for r in others.values())

    try:
        await eventually(so, seconds, f"held by {sorted(names)}")
    except TimeoutError as err:
        raise TimeoutError(f"{err}; last seen {seen}") from None


async def members(client: Client, names: set[str]) -> None:
    """Waits until a stream on each of `names` is possible and none with more: so many are in the meta group."""

    async def so() -> bool:
        try:
            await api(client, "STREAM.CREATE.ALL", {"name": "ALL", "subjects": ["all"], "num_replicas": len(names)})
        except ApiError:
            return False
        info = await api(client, "STREAM.INFO.ALL")
        await api(client, "STREAM.DELETE.ALL")
        return {info["cluster"]["leader"], *(r["name"] for r in info["cluster"]["replicas"])} == names

    await eventually(so, 30, f"{sorted(names)} are members")


async def gathered(admin: Client, count: int) -> None:
    """Waits until so many servers are voters of the meta group."""

    async def so() -> bool:
        inbox = admin.new_inbox()
        answers = await admin.subscribe(inbox)
        await admin.publish("$SYS.REQ.SERVER.PING.JSZ", b"{}", reply=inbox)
        try:
            for _ in range(count):
                data = json.loads((await answers.next_msg(timeout=1)).data)["data"]
                others = data.get("meta_cluster", {}).get("replicas") or []
                if len(others) == count - 1:  # the leader's answer
                    return all(r["current"] for r in others)
        finally:
            await answers.unsubscribe()
        return False

    await eventually(so, 30, f"{count} members of the meta group")


async def led(client: Client) -> None:
    """Waits until the meta group has a leader: calls of the system account get no answer without."""
    await eventually(lambda: api(client, "INFO"), 20, "a meta leader")


async def start(cluster: Hosts, names: set[str]) -> Client:
    cluster.start()
    await ready(cluster.servers)
    client = await connect(cluster.urls)
    await members(client, names)
    return client


def wipe(server: Server) -> None:
    shutil.rmtree(server.conf.parent / "store")


@pytest.mark.timeout(120)
def test_a_dead_replica_is_replaced_on_request(lab: Lab) -> None:
    cluster = lab.hosts(FOUR)
    story = Story(cluster, publishers=8)

    async def play() -> None:
        client = await start(cluster, set(FOUR))
        await story.create(client)
        leader, others = await holders(client, story)
        spare = (set(FOUR) - {leader, *others}).pop()
        remove = f"STREAM.PEER.REMOVE.{story.stream}"
        assert await refused(client, remove) == 10003
        assert await refused(client, remove, {"peer": spare}) == 10040
        assert await refused(client, "STREAM.PEER.REMOVE.NONE", {"peer": leader}) == 10059
        dead = sorted(others)[0]
        async with story.publishing():
            await story.more(300)
            cluster[dead].kill()
            await led(client)
            await story.more(300)
            assert (await api(client, remove, {"peer": dead}))["success"]
            await held_by(client, story, {leader, *others, spare} - {dead})
            await story.more(300)
            now, _ = await holders(client, story)
            assert await refused(client, remove, {"peer": now}) == 10075, "nobody is left to take its place"
            cluster[dead].start()
            second = others[sorted(others)[1]]["peer"]

            async def replaced() -> bool:
                try:
                    await api(client, remove, {"peer": second})
                except ApiError as err:
                    if err.err_code == 10075:  # the meta leader has not heard of its return yet
                        return False
                    raise
                return True

            await eventually(replaced, 20, "the one that is back takes a place")
            await held_by(client, story, {leader, spare, dead})
            assert (await api(client, remove, {"peer": (await holders(client, story))[0]}))["success"], "the leader too"
            await story.more(300)
        assert await story.verify(client) == []
        await client.close()

    run(play(), 110)


@ours
@pytest.mark.timeout(150)
def test_a_dead_server_is_removed_and_an_empty_one_takes_its_place(lab: Lab) -> None:
    cluster = lab.hosts(["m1", "m2", "m3"])
    story = Story(cluster, publishers=8)

    async def play() -> None:
        client = await start(cluster, {"m1", "m2", "m3"})
        admin = await system(cluster)
        await story.create(client)
        async with story.publishing():
            await story.more(300)
            cluster["m3"].kill()
            await led(client)
            assert await refused(admin, "SERVER.REMOVE") == 10003
            assert await refused(admin, "SERVER.REMOVE", {"peer": "m9"}) == 10044
            assert (await api(admin, "SERVER.REMOVE", {"peer": "m3"}, seconds=15))["success"]
            assert await refused(admin, "SERVER.REMOVE", {"peer": "m3"}) == 10044, "it is no member any more"
            await story.more(300)
            cluster.servers.append(lab.member("m4"))
            cluster["m4"].start()
            await held_by(client, story, {"m1", "m2", "m4"})
            await story.more(300)
            leader = await story.leader(client)
            cluster[leader].kill()
            await story.more(300)
            cluster[leader].start()
            await held_by(client, story, {"m1", "m2", "m4"})
            cluster["m3"].start()  # with the store of the one that was removed
            await story.more(300)
        await members(client, {"m1", "m2", "m4"})
        cluster["m3"].kill()
        wipe(cluster["m3"])
        cluster["m3"].start()  # the same name, and nothing else of the former one
        await members(client, {"m1", "m2", "m3", "m4"})
        assert await story.verify(client) == []
        await client.close()
        await admin.close()

    run(play(), 140)


@ours
@pytest.mark.timeout(120)
def test_a_server_that_is_alive_hands_over_what_it_has_when_it_is_removed(lab: Lab) -> None:
    cluster = lab.hosts(FOUR)
    story = Story(cluster, publishers=8)

    async def play() -> None:
        client = await start(cluster, set(FOUR))
        admin = await system(cluster)
        await story.create(client)
        leader = await story.leader(client)
        advisory = await admin.subscribe("$JS.EVENT.ADVISORY.SERVER.REMOVED")
        async with story.publishing():
            await story.more(300)
            assert (await api(admin, "SERVER.REMOVE", {"peer": leader}, seconds=15))["success"]
            await held_by(client, story, set(FOUR) - {leader})
            await story.more(300)
        assert leader.encode() in (await advisory.next_msg(timeout=5)).data
        assert await story.verify(client) == []
        await client.close()
        await admin.close()

    run(play(), 110)


@pytest.mark.timeout(120)
def test_streams_move_by_placement_with_their_messages(lab: Lab) -> None:
    tags = {"m1": "disk:fast", "m2": "disk:fast", "m3": "disk:slow", "m4": "disk:slow"}
    cluster = lab.hosts(FOUR, tags=tags)
    story = Story(cluster, publishers=8)

    async def play() -> None:
        client = await start(cluster, set(FOUR))
        await story.create(client, 1)
        config = (await story.info(client))["config"]
        update = f"STREAM.UPDATE.{story.stream}"
        async with story.publishing():
            for kind, names in (("slow", {"m3", "m4"}), ("fast", {"m1", "m2"})):
                await story.more(300)
                await api(client, update, {**config, "placement": {"tags": [f"disk:{kind}"]}})

                async def moved(names: set[str] = names) -> bool:
                    leader, others = await holders(client, story)
                    return leader in names and not others

                await eventually(moved, 20, f"moved to {kind}")
            now = (await story.info(client))["config"]
            await api(client, update, {**now, "num_replicas": 2})
            await held_by(client, story, {"m1", "m2"})
            now = (await story.info(client))["config"]
            await api(client, update, {**now, "placement": {"tags": ["disk:slow"]}})
            await held_by(client, story, {"m3", "m4"})
            now = (await story.info(client))["config"]
            assert await refused(client, update, {**now, "placement": {"tags": ["disk:none"]}}) == 10005
            await story.more(300)
        assert await story.verify(client) == []
        await client.close()

    run(play(), 110)


@pytest.mark.timeout(100)
def test_a_stream_comes_back_to_its_first_holder(lab: Lab) -> None:
    cluster = lab.hosts(["m1", "m2", "m3"], tags={"m1": "at:one", "m2": "at:two", "m3": "at:three"})
    story = Story(cluster, publishers=8)

    async def play() -> None:
        client = await start(cluster, {"m1", "m2", "m3"})
        config = {"name": story.stream, "subjects": [story.subject], "placement": {"tags": ["at:one"]}}
        await api(client, f"STREAM.CREATE.{story.stream}", {**config, "duplicate_window": 120_000_000_000})
        async with story.publishing():
            for place, name in (("two", "m2"), ("one", "m1"), ("three", "m3"), ("one", "m1")):
                await story.more(200)
                now = (await story.info(client))["config"]
                await api(client, f"STREAM.UPDATE.{story.stream}", {**now, "placement": {"tags": [f"at:{place}"]}})
                await held_by(client, story, {name})
            await story.more(200)
        assert await story.verify(client) == []
        await client.close()

    run(play(), 90)


@ours
@pytest.mark.timeout(120)
def test_moves_by_an_operator_and_their_end(lab: Lab) -> None:
    cluster = lab.hosts(FOUR)
    story = Story(cluster, publishers=4)

    async def play() -> None:
        client = await start(cluster, set(FOUR))
        admin = await system(cluster)
        await story.create(client)
        leader, others = await holders(client, story)
        here = {leader, *others}
        spare = (set(FOUR) - here).pop()
        move, cancel = (f"ACCOUNT.STREAM.{verb}.$G.{story.stream}" for verb in ("MOVE", "CANCEL_MOVE"))
        assert await refused(admin, cancel) == 10129
        assert await refused(admin, move, {"server": "m9"}) == 10044
        assert await refused(admin, move, {"server": spare}) == 10040
        assert await refused(admin, "ACCOUNT.STREAM.MOVE.$G.NONE", {"server": leader}) == 10059
        async with story.publishing():
            await story.more(200)
            await api(admin, move, {"server": leader})
            await held_by(client, story, set(FOUR) - {leader})
            assert await refused(admin, cancel) == 10129, "it is over"
            cluster[leader].kill()
            await story.more(200)
            cluster[leader].start()
            await ready([cluster[leader]])
            await story.more(200)
        assert await story.verify(client) == []
        await client.close()
        await admin.close()

    run(play(), 110)


@pytest.mark.timeout(60)
def test_the_meta_group_gets_the_leader_that_is_asked_for(lab: Lab) -> None:
    cluster = lab.hosts(["m1", "m2", "m3"])

    async def play() -> None:
        client = await start(cluster, {"m1", "m2", "m3"})
        admin = await system(cluster)
        step = "META.LEADER.STEPDOWN"
        assert await refused(admin, step, {"placement": {"preferred": "m9"}}) == 10005
        assert await refused(admin, step, {"placement": {"tags": ["none"]}}) == 10005
        for name in ("m1", "m2", "m3", "m1"):

            async def leads(name: str = name) -> bool:
                try:
                    await api(admin, step, {"placement": {"preferred": name}})
                except ApiError as err:
                    return "already leader" in str(err)
                return False

            await eventually(leads, 10, f"{name} leads")
        await client.close()
        await admin.close()

    run(play(), 50)


ZONES = {"z1": "az:a", "z2": "az:a", "z3": "az:b", "z4": "az:b", "z5": "az:c"}


@ours
@pytest.mark.timeout(200)
def test_a_zone_goes_for_good_and_is_replaced(lab: Lab) -> None:
    cluster = lab.hosts(list(ZONES), tags=ZONES, unique="az")
    story = Story(cluster, publishers=8)

    async def play() -> None:
        cluster.start()
        await ready(cluster.servers)
        client = await connect(cluster.urls)
        admin = await system(cluster)
        await gathered(admin, len(ZONES))
        await story.create(client)
        leader, others = await holders(client, story)
        assert {ZONES[name] for name in (leader, *others)} == {"az:a", "az:b", "az:c"}
        assert (
            await refused(client, "STREAM.CREATE.FOUR", {"name": "FOUR", "subjects": ["4"], "num_replicas": 4}) == 10005
        )
        async with story.publishing():
            await story.more(300)
            for name in ("z1", "z2"):  # for good
                cluster[name].kill()
            await story.more(300)
            for name in ("z1", "z2"):
                await eventually(
                    lambda name=name: api(admin, "SERVER.REMOVE", {"peer": name}, seconds=15),  # type: ignore[misc]
                    30,
                    f"{name} removed",
                )
                cluster.servers.remove(cluster[name])
            await story.more(300)
            for name in ("z6", "z7"):
                cluster.servers.append(lab.member(name, "az:a", "az"))
                cluster[name].start()

            async def whole() -> bool:
                leader, others = await holders(client, story)
                zones = {"az:a" if name in ("z6", "z7") else ZONES.get(name, "") for name in (leader, *others)}
                return zones == {"az:a", "az:b", "az:c"} and all(r["current"] for r in others.values())

            await eventually(whole, 30, "a replica in each zone again")
            cluster["z5"].kill()
            await story.more(300)
            cluster["z5"].start()
        assert await story.verify(client) == []
        await client.close()
        await admin.close()

    run(play(), 190)
