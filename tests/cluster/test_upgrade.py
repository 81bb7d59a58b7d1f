"""A rolling upgrade: servers of this version and of one that passes for the next, in one cluster, under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import Lab, Server, api, command, connect, eventually, ours, run, wait_for, wait_for_log
from jscore_server.version import PROTOCOL
from monitoring_client import Three, get, page

import jscore

pytestmark = ours
RAISED = "JSCORE_TEST_PROTOCOL"
THIS = PROTOCOL.newest
NEXT = THIS + 1
STREAM = {"name": "UP", "subjects": ["up"], "num_replicas": 3, "storage": "file"}


def newer(server: Server, version: int = NEXT) -> None:
    """From its next start on the server passes for a later version."""
    server.command = ["env", f"{RAISED}={version}", *command()]


def meta_versions(store: Path) -> list[int]:
    """The versions of the meta entries and configurations in a stopped server's meta log."""
    log = jscore.Store().open(str(store / "jetstream" / "_meta_"))
    try:
        found = []
        for index in range(log.first, log.last + 1):
            record = log.read(index)
            if record.kind in (jscore.KIND_HOST, jscore.KIND_MEMBERS):
                found.append(int(json.loads(record.data).get("version", 1)))
        return found
    finally:
        log.close()


class Numbers:
    """Publishes numbered messages, one after the other, until stopped: each is sent until it is acknowledged."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self.acked: list[int] = []
        self.ended = asyncio.Event()

    async def publish(self) -> None:
        client = await connect(self.urls)
        number = 0
        while not self.ended.is_set():
            with contextlib.suppress(Exception):
                headers = {"Nats-Msg-Id": str(number)}
                answer = json.loads((await client.request("up", b"%d" % number, timeout=1, headers=headers)).data)
                if "seq" in answer:
                    self.acked.append(number)
                    number += 1
        await client.close()

    async def more(self, count: int) -> None:
        target = len(self.acked) + count

        async def enough() -> bool:
            return len(self.acked) >= target

        await eventually(enough, 30, f"{count} more acknowledged")


async def create(urls: list[str], config: dict[str, Any]) -> None:
    client = await connect(urls)

    async def created() -> bool:
        await api(client, f"STREAM.CREATE.{config['name']}", config)
        return True

    await eventually(created, 20, f"stream {config['name']}")
    await client.close()


async def stored(urls: list[str]) -> list[int]:
    client = await connect(urls)
    js = client.jetstream(timeout=10)
    last = (await api(client, "STREAM.INFO.UP"))["state"]["last_seq"]
    got = await js.subscribe("up", stream="UP", ordered_consumer=True)
    found = [int((await got.next_msg(10)).data) for _ in range(last)]
    await client.close()
    return found


def test_each_server_in_turn_becomes_the_next_version_under_load(lab: Lab) -> None:
    three = Three(lab)
    three.wait()
    urls = [server.url for server in three.servers]

    def next_may_go() -> bool:
        with contextlib.suppress(OSError):
            return all(get(port, "/healthz?rolling=true")[0] == 200 for port in three.http)
        return False

    async def play() -> list[int]:
        await create(urls, STREAM)
        numbers = Numbers(urls)
        load = asyncio.create_task(numbers.publish())
        for count, server in enumerate(three.servers):
            await numbers.more(50)
            await asyncio.to_thread(wait_for, next_may_go, 30, "the next may go")
            await asyncio.to_thread(server.stop)
            newer(server)
            await numbers.more(20)
            server.start()
            await asyncio.to_thread(wait_for, next_may_go, 40, f"{server.name} is back as the next version")
            await create(urls, {**STREAM, "name": f"MIX{count}", "subjects": [f"mix{count}"]})
            spoken = page(three.http[count], "/clusterz")["protocol"]
            assert spoken == {"oldest": 1, "newest": NEXT, "common": NEXT if count == 2 else THIS}
        await numbers.more(50)
        numbers.ended.set()
        await load
        found = await stored(urls)
        assert found == list(range(len(found)))
        assert set(numbers.acked) <= set(found)
        return found

    assert len(run(play(), 200)) > 200
    for server in three.servers:
        assert server.stop() == 0
    for server in three.servers:
        versions = meta_versions(server.conf.parent / "store")
        assert versions[-1] == NEXT, "the last stream was made when all knew the next version"
        assert max(versions[:-1]) == THIS, "nothing newer was written while one server would not have understood it"


def test_a_server_of_the_former_version_leaves_a_newer_one_s_files_alone(lab: Lab) -> None:
    text = 'server_name: solo\nlisten: 127.0.0.1:PORT\njetstream { store_dir: "HOME/store" }\n'
    solo = lab.server("solo", text)
    newer(solo)
    solo.start()
    run(create([solo.url], {**STREAM, "num_replicas": 1}))
    assert solo.stop() == 0
    store = solo.conf.parent / "store"

    def picture() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(store.rglob("*")) if path.suffix in (".seg", ".json")}

    before = picture()
    solo.command = command()
    solo.start()
    assert solo.process is not None
    assert solo.process.wait(20) == 1
    wait_for_log(solo, f"the log of terms and votes is of version {NEXT}, this server knows {THIS}")
    assert picture() == before
    newer(solo)
    solo.start()
    run(create([solo.url], {**STREAM, "num_replicas": 1}))


@pytest.mark.parametrize("said", ["0", "256", "many"])
def test_a_version_that_cannot_be_is_refused(lab: Lab, said: str) -> None:
    solo = lab.server("solo", "server_name: solo\nlisten: 127.0.0.1:PORT\n")
    done = subprocess.run(
        ["env", f"{RAISED}={said}", *command(), "-c", str(solo.conf)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
