"""A full disk stops writes with an error, loses nothing, and ends when there is space again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Lab, run, wait_for_log
from jscore_server.demo import Client, NatsError, api, connect, eventually, ready


def grow(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=48m", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(place)], capture_output=True).returncode:
        pytest.skip("no mount here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def publish(client: Client, text: bytes) -> dict[str, object]:
    """The answer of a publish; nothing within a second is an empty one."""
    try:
        return dict(json.loads((await client.request("full", text, timeout=1)).data))
    except (TimeoutError, NatsError):
        return {}


def test_a_full_disk_refuses_loses_nothing_and_heals(lab: Lab, small_disk: Path) -> None:
    server = lab.server("full", f"server_name: full\nlisten: 127.0.0.1:PORT\njetstream {{ store_dir: {small_disk} }}\n")
    server.start()
    acked: list[int] = []

    async def fill(client: Client) -> None:
        for _ in range(3000):
            answer = await publish(client, b"x" * 8000)
            if "error" in answer:
                assert answer["error"] == {"code": 503, "err_code": 10023, "description": "insufficient resources"}
                return
            if "seq" in answer:
                acked.append(int(str(answer["seq"])))
        pytest.fail("the disk never was full")

    async def story() -> None:
        await ready([server])
        client = await connect([server.url])
        await api(client, "STREAM.CREATE.FULL", {"name": "FULL", "subjects": ["full"]})
        await fill(client)
        wait_for_log(server, "no space left")
        got = await client.subscribe("core")
        await client.publish("core", b"goes on")
        assert (await got.next_msg(timeout=5)).data == b"goes on"
        grow(small_disk)

        async def taken() -> bool:
            answer = await publish(client, b"again")
            if not answer or "error" in answer:
                return False
            acked.append(int(str(answer["seq"])))
            return True

        await eventually(taken, 10, "a publish taken again")
        wait_for_log(server, "there is space again")
        await client.close()

    async def after() -> None:
        await ready([server])
        client = await connect([server.url])
        state = (await api(client, "STREAM.INFO.FULL"))["state"]
        assert state["last_seq"] >= acked[-1]
        for seq in {acked[0], acked[len(acked) // 2], acked[-2], acked[-1]}:
            assert (await api(client, "STREAM.MSG.GET.FULL", {"seq": seq}))["message"]["seq"] == seq
        await client.close()

    try:
        run(story(), 90)
        assert acked == sorted(set(acked))
        assert len(acked) > 500
        server.kill()
        server.start()
        run(after(), 30)
    finally:
        server.kill()
