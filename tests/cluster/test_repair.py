"""Any file of one server is damaged while it is down: nothing acknowledged is lost on any server, and it heals.

The damage is found at the start, or when the place is read; that replica takes no part until it is repaired.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Hosts, Lab, Story, ours, run, wait_for_log
from jscore_server.demo import ApiError, Client, Server, api, connect, eventually, ready

THREE = ["d1", "d2", "d3"]
HEALED = "its log is whole again"
ALL = bool(os.environ.get("JSCORE_DAMAGE_ALL"))  # each way in each file; half of them otherwise


def flip(path: Path, at: int, bit: int = 4) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def used(path: Path) -> int:
    """Bytes of the file before the zeros at its end."""
    return max(len(path.read_bytes().rstrip(b"\0")), 1)


def zero(path: Path, at: int, count: int = 4096) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(min(count, path.stat().st_size - at)))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit in the middle": lambda p: flip(p, used(p) // 2),
    "a bit of the header": lambda p: flip(p, 17),
    "a bit near the end": lambda p: flip(p, max(used(p) - 150, 64)),
    "4 KiB of zeros": lambda p: zero(p, used(p) // 3),
    "cut to half": lambda p: os.truncate(p, used(p) // 2),
    "deleted": lambda p: p.unlink(),
}
FILES = {"stream": "streams/*/*/*.seg", "meta": "_meta_/*.seg", "votes": "hardstate/*.seg"}


async def healthy(admin: Client, name: str) -> bool:
    """Whether the server says that it is well."""
    request = json.dumps({"server_name": name}).encode()
    answer = await admin.request("$SYS.REQ.SERVER.PING.HEALTHZ", request, timeout=1)
    return json.loads(answer.data)["data"].get("status") == "ok"


async def whole(client: Client, admin: Client, cluster: Hosts, story: Story, hurt: Server) -> None:
    """The damaged server is well again and holds everything: it is made the leader and asked."""
    await eventually(lambda: healthy(admin, hurt.name), 20, f"{hurt.name} healthy")
    await story.current(client, set(THREE), caught_up=True, seconds=20)

    async def leads() -> bool:
        try:
            body = {"placement": {"preferred": hurt.name}}
            await api(client, f"STREAM.LEADER.STEPDOWN.{story.stream}", body)
        except ApiError as err:
            return "already leader" in str(err)
        return False

    await eventually(leads, 20, f"{hurt.name} leads")
    assert await story.verify(client) == []
    hurt.must_run()


@ours
@pytest.mark.timeout(280)
@pytest.mark.parametrize("kind", FILES)
def test_damage_to_one_server_heals(lab: Lab, kind: str) -> None:
    cluster = lab.hosts(THREE)
    cluster.start()
    story = Story(cluster, publishers=8)
    rng = random.Random(kind)

    async def play() -> None:
        await ready(cluster.servers)
        client = await connect(cluster.urls)
        admin = await connect(cluster.urls, user="sys", password="sys")
        await story.create(client)
        for what in DAMAGE if ALL else rng.sample(sorted(DAMAGE), 3):
            async with story.publishing():
                await story.more(400)
            hurt = cluster[await story.leader(client)] if rng.random() < 0.5 else rng.choice(cluster.servers)
            hurt.kill()
            files = sorted(hurt.conf.parent.glob(f"store/jetstream/{FILES[kind]}"))
            assert files, what
            DAMAGE[what](files[0])
            async with story.publishing():
                await story.more(100)
                hurt.start()
                await story.more(100)
            try:
                await whole(client, admin, cluster, story, hurt)
            except (TimeoutError, AssertionError) as err:
                raise AssertionError(f"{hurt.name}, {what} of its {kind} log: {err}") from err
        await client.close()
        await admin.close()

    run(play(), 270)


@ours
@pytest.mark.timeout(120)
@pytest.mark.parametrize("where", ["leader", "follower"])
def test_damage_under_a_running_server_is_never_served_or_skipped(lab: Lab, where: str) -> None:
    cluster = lab.hosts(THREE)
    cluster.start()
    story = Story(cluster, publishers=8)

    async def play() -> None:
        await ready(cluster.servers)
        client = await connect(cluster.urls)
        admin = await connect(cluster.urls, user="sys", password="sys")
        await story.create(client)
        async with story.publishing():
            await story.more(200)
        for number in range(40):  # more than a log keeps in memory
            await client.request("story.large", b"%d " % number + b"x" * 100_000, timeout=5)
        async with story.publishing():
            await story.more(2000)
        leader = await story.leader(client)
        hurt = cluster[leader if where == "leader" else next(n for n in THREE if n != leader)]
        await story.current(client, set(THREE), caught_up=True, seconds=20)
        paths = hurt.conf.parent.glob(f"store/jetstream/{FILES['stream']}")
        path, at = next((path, at) for path in paths if (at := path.read_bytes().find(b"20 xxx")) >= 0)
        flip(path, at + 5000)

        async def led_there() -> bool:
            """A handover may come to nothing, and who meets the damage leads no more."""
            if await story.leader(client) == hurt.name or HEALED in hurt.log.read_text():
                return True
            await api(client, f"STREAM.LEADER.STEPDOWN.{story.stream}", {"placement": {"preferred": hurt.name}})
            return False

        await eventually(led_there, 20, f"{hurt.name} leads")
        found = {text: seq for seq, text in await story.stored(client)}  # some twice, as the leader changes
        assert found.items() >= story.acked.items(), "from another server, or after the repair"
        wait_for_log(hurt, HEALED, 10)
        await whole(client, admin, cluster, story, hurt)
        await client.close()
        await admin.close()

    run(play(), 110)


@ours
@pytest.mark.timeout(60)
def test_damage_to_the_only_copy_is_an_error_and_the_rest_stays_readable(lab: Lab) -> None:
    server = lab.solo()

    async def play() -> None:
        client = await connect(server.url)
        await api(client, "STREAM.CREATE.ONE", {"name": "ONE", "subjects": ["one"], "num_replicas": 1})
        for number in range(200):
            await client.request("one", b"number %d" % number, timeout=5)
        server.stop()
        path = next(server.conf.parent.glob("store/jetstream/streams/*/*/*.seg"))
        raw = path.read_bytes()
        flip(path, raw.index(b"number 100"))
        server.start()
        await ready([server])
        good, bad = 0, []
        for seq in range(1, 201):
            try:
                message = (await api(client, "STREAM.MSG.GET.ONE", {"seq": seq}))["message"]
                good += message["seq"] == seq
            except ApiError as err:
                bad.append((seq, err.err_code))
        assert (good, [seq for seq, _ in bad]) == (199, [101])
        wait_for_log(server, "damage", 5)
        await client.close()

    run(play(), 50)
