"""`jscore-server cluster status` and healthz while servers come and go: what may be stopped, and what is to be done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
from harness import Lab, api, command, connect, eventually, ours, run, wait_for
from monitoring_client import Three, get

pytestmark = ours
SYS = """accounts {
  $SYS { users: [{user: sys, password: sys}] }
  A { jetstream: enabled, users: [{user: a, password: a}] }
}
"""
STREAMS = {"THREE": 3, "ONE": 1}


def status(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the JSON and the text."""
    env = {**os.environ, "NATS_USER": "sys", "NATS_PASSWORD": "sys"}
    asked = [*command(), "cluster", "status", *arguments]
    shown = subprocess.run([*asked, "--json"], capture_output=True, text=True, timeout=30, env=env)
    assert not shown.stderr, shown.stderr
    spoken = subprocess.run(asked, capture_output=True, text=True, timeout=30, env=env)
    assert not spoken.stderr, spoken.stderr
    return shown.returncode, json.loads(shown.stdout), spoken.stdout


@pytest.fixture
def three(lab: Lab) -> Three:
    found = Three(lab, SYS)
    found.wait()

    async def create() -> None:
        client = await connect(found.url, user="a", password="a")
        for name, replicas in STREAMS.items():
            config = {"name": name, "subjects": [name.lower()], "num_replicas": replicas, "storage": "file"}

            async def created(name: str = name, config: dict[str, Any] = config) -> bool:
                await api(client, f"STREAM.CREATE.{name}", config)
                return True

            await eventually(created, 20, f"stream {name}")
        await client.close()

    run(create())
    return found


def health(port: int, query: str = "") -> tuple[int, str]:
    """0 while nobody listens."""
    try:
        code, _, body = get(port, f"/healthz{query}")
    except OSError:
        return 0, ""
    return code, body


def free(found: dict[str, Any]) -> list[str]:
    return [server["name"] for server in found["servers"] if server["may_stop"]]


def until(want: int, *arguments: str) -> tuple[dict[str, Any], str]:
    """The status once its exit code is `want`."""
    last: tuple[int, dict[str, Any], str] = (-1, {}, "")

    def there() -> bool:
        nonlocal last
        last = status(*arguments)
        return last[0] == want

    try:
        wait_for(there, 40, f"exit code {want}")
    except TimeoutError:
        pytest.fail(f"{last}")
    return last[1], last[2]


def test_a_server_away_is_degraded_and_two_away_are_no_quorum(three: Three, lab: Lab) -> None:
    everybody = ["n1", "n2", "n3"]
    found, text = until(0, "-s", three.url)
    assert found["verdict"] == "healthy"
    assert free(found) == everybody
    assert found["meta"]["quorum_needed"] == 2
    assert sorted(found["meta"]["well"]) == everybody
    assert (found["streams"], found["led"]) == (2, 2)
    assert sum(server["small"] for server in found["servers"]) == 1, "the stream of one replica stands somewhere"
    assert "3 of 3 voters current, 2 needed" in text

    stays = next(server["name"] for server in found["servers"] if server["small"])
    keeper, first, second = sorted(three.servers, key=lambda server: (server.name != stays, server.name))
    first.kill()
    found, text = until(1, "-s", f"{first.url},{keeper.url}")
    assert free(found) == []
    assert found["next_step"].startswith(f"Start {first.name}")
    assert f"{first.name}  does not answer" in text
    assert any(item["missing"] == [first.name] for item in found["unhealthy"])
    lost = next(server for server in found["servers"] if server["name"] == stays)
    assert "would lose quorum" in lost["why"]

    second.kill()
    names = " or ".join(sorted([first.name, second.name]))
    step = f"Start {names}: the meta group needs 1 more of its 3 voters."
    found, _ = until(2, "-s", keeper.url)
    assert found["verdict"] == "no quorum"
    # A stream may notice it before the meta group does, and is then what the step is about.
    wait_for(lambda: status("-s", keeper.url)[1]["next_step"] == step, 20, step)

    first.start()
    second.start()
    found, _ = until(0, "-s", keeper.url)
    assert free(found) == everybody


def test_monitoring_ports_tell_the_same(three: Three) -> None:
    ports = ",".join(f"http://127.0.0.1:{port}" for port in three.http)
    found, _ = until(0, "--monitor", ports)
    assert free(found) == ["n1", "n2", "n3"]
    code, some, _ = status("--monitor", f"127.0.0.1:{three.http[0]}")
    assert code == 1, "one port alone does not tell of the others"
    assert set(free(some)) <= {"n1"}


def test_nobody_there_is_unreachable(lab: Lab) -> None:
    code, found, text = status("-s", "nats://127.0.0.1:1", "--timeout", "1")
    assert (code, found["verdict"]) == (2, "unreachable")
    assert text.startswith("unreachable")
    code, found, _ = status("--monitor", "http://127.0.0.1:1", "--timeout", "1")
    assert (code, found["verdict"]) == (2, "unreachable")


def test_a_user_of_another_account_is_told_so(three: Three) -> None:
    code, found, _ = status("-s", three.url, "--user", "a", "--password", "a")
    assert code == 2
    assert "system account" in found["next_step"]


def test_one_server_alone_may_be_stopped(lab: Lab) -> None:
    solo = lab.server("solo", f'server_name: solo\nlisten: 127.0.0.1:PORT\njetstream {{ store_dir: "HOME/s" }}\n{SYS}')
    solo.start()
    found, text = until(0, "-s", solo.url)
    assert free(found) == ["solo"]
    assert found["meta"] is None
    assert "(one server)" in text


def test_healthz_says_when_the_next_server_may_go(three: Three) -> None:
    """The recipe of a rolling restart: stop one, start it, wait for 200 of /healthz?rolling=true, then the next."""

    def healthy(query: str = "", ports: list[int] | None = None) -> bool:
        return all(health(port, query)[0] == 200 for port in ports or three.http)

    wait_for(lambda: healthy("?rolling=true"), 20, "all may go")
    three.servers[2].kill()
    others = three.http[:2]

    def refused() -> bool:
        found = [health(port, "?rolling=true&details=true") for port in others]
        if not all(code == 503 and "no server may be stopped yet" in body for code, body in found):
            return False
        return all({e["type"] for e in json.loads(body)["errors"]} == {"JETSTREAM", "STREAM"} for _, body in found)

    wait_for(refused, 20, "nobody else may go, for the meta group's sake and the stream's")
    wait_for(lambda: healthy("", others), 20, "they themselves are well")
    three.servers[2].start()
    wait_for(lambda: healthy("?rolling=true"), 30, "the next may go")


def test_a_replica_that_has_not_caught_up_is_not_healthy(three: Three) -> None:
    """200 without a query means that this replica counts: an emptied one does not before the group let it in again."""

    async def fill() -> None:
        client = await connect(three.url, user="a", password="a")
        js = client.jetstream(timeout=10)
        for _ in range(40):
            await js.publish("three", os.urandom(1 << 18))
        await client.close()

    run(fill())
    third = three.servers[2]
    third.kill()
    shutil.rmtree(third.conf.parent / "store")
    third.start()
    wait_for(lambda: health(three.http[2])[0] == 200, 60, "filled again")

    async def held() -> None:
        client = await connect(third.url, user="a", password="a")
        info = await api(client, "STREAM.INFO.THREE")
        replicas = {r["name"]: r for r in info["cluster"]["replicas"]} | {info["cluster"]["leader"]: {"current": True}}
        assert replicas["n3"]["current"], info
        await client.close()

    run(held())
