"""JetStream in accounts: isolated streams, limits, who has none; alone as nats-server answers, and in a cluster."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from harness import (
    ApiError,
    Lab,
    Server,
    api,
    command,
    connect,
    eventually,
    free_ports,
    ours,
    peer_command,
    run,
    wait_for_log,
)
from nats.aio.client import Client

ACCOUNTS = """
accounts {
  A { jetstream: enabled, users: [ {user: a, password: p} ] }
  B { jetstream { max_mem: 2000, max_file: 3000, max_streams: 2, max_consumers: 1 }, users: [ {user: b, password: p} ] }
  "N/.." { users: [ {user: n, password: p} ] }
  SYS { users: [ {user: s, password: p} ] }
}
system_account: SYS
"""
Start = Callable[[], tuple[Server, int]]


@pytest.fixture(params=["ours", "peer"])
def start(lab: Lab, request: pytest.FixtureRequest) -> Start:
    cmd = peer_command() if request.param == "peer" else command()

    def start() -> tuple[Server, int]:
        monitor = free_ports(1)[0]
        text = (
            f'server_name: one\nlisten: 127.0.0.1:PORT\nhttp: 127.0.0.1:{monitor}\njetstream {{ store_dir: "HOME/s" }}'
        )
        server = lab.server("one", text + ACCOUNTS, cmd=cmd)
        server.start()
        wait_for_log(server, "Server is ready")
        return server, monitor

    return start


async def as_user(server: Server, name: str) -> Client:
    return await connect(server.url, user=name, password="p")


async def publish(client: Client, subject: str, size: int) -> int:
    """The sequence, or below zero the error's number."""
    ack = json.loads((await client.request(subject, b"x" * size, timeout=5)).data)
    return -int(ack["error"]["err_code"]) if "error" in ack else int(ack["seq"])


async def refusal(client: Client, call: str, body: object = None) -> int:
    with pytest.raises(ApiError) as caught:
        await api(client, call, body)
    return caught.value.err_code


def test_accounts_do_not_see_each_others_streams(start: Start) -> None:
    async def scenario() -> None:
        server, _ = start()
        a, b, n, s = [await as_user(server, name) for name in "abns"]
        for client, size in ((a, 10), (b, 20)):
            await api(client, "STREAM.CREATE.T", {"name": "T", "subjects": ["t.>"]})
            assert await publish(client, "t.1", size) == 1
        assert await publish(a, "t.2", 10) == 2
        found = [(await api(client, "STREAM.INFO.T"))["state"]["messages"] for client in (a, b)]
        assert found == [2, 1]
        body = {"stream_name": "T", "config": {"durable_name": "c", "ack_policy": "explicit"}}
        await api(a, "CONSUMER.CREATE.T.c", body)
        inbox = await a.subscribe("pulled")
        await a.publish("$JS.API.CONSUMER.MSG.NEXT.T.c", b"1", reply="pulled")
        got = await inbox.next_msg(timeout=5)
        assert (got.subject, len(got.data)) == ("t.1", 10)
        assert await refusal(b, "CONSUMER.INFO.T.c") == 10014
        for call in ("INFO", "STREAM.NAMES", "STREAM.INFO.T", "CONSUMER.LIST.T"):
            assert await refusal(n, call) == 10039
        assert await refusal(n, "STREAM.CREATE.T", {"name": "T"}) == 10039
        for call in ("INFO", "STREAM.NAMES", "STREAM.CREATE.T", "CONSUMER.INFO.T.c"):
            assert await refusal(s, call) == 10039
        for client in (a, b, n, s):
            await client.close()

    run(scenario())


def test_an_accounts_limits(start: Start) -> None:
    async def scenario() -> None:
        server, monitor = start()
        b = await as_user(server, "b")
        assert await refusal(b, "STREAM.CREATE.T", {"name": "T", "max_bytes": 5000}) == 10047
        assert await refusal(b, "STREAM.CREATE.T", {"name": "T", "max_bytes": 5000, "storage": "memory"}) == 10028
        await api(b, "STREAM.CREATE.T", {"name": "T", "subjects": ["t.>"]})
        await api(b, "STREAM.CREATE.M", {"name": "M", "subjects": ["m.>"], "storage": "memory"})
        assert await refusal(b, "STREAM.CREATE.X", {"name": "X"}) == 10027
        assert [await publish(b, "t.1", 850) for _ in range(5)] == [1, 2, 3, -10002, -10002]
        assert [await publish(b, "m.1", 850) for _ in range(4)] == [1, 2, -10002, -10002]
        await api(b, "STREAM.PURGE.T")
        assert await publish(b, "t.1", 850) == 4
        for name, expected in (("c", 0), ("d", 10026)):
            body = {"stream_name": "T", "config": {"durable_name": name, "ack_policy": "explicit"}}
            if expected:
                assert await refusal(b, f"CONSUMER.CREATE.T.{name}", body) == expected
            else:
                await api(b, f"CONSUMER.CREATE.T.{name}", body)
        info = await api(b, "INFO")
        assert (info["memory"], info["storage"], info["streams"], info["consumers"]) == (1738, 883, 2, 1)
        assert info["limits"]["max_storage"] == 3000
        wait_for_log(server, 'JetStream file resource limits exceeded for account: "B"')
        shown = (await asyncio.to_thread(ask, monitor, "/jsz?accounts=1"))["account_details"]
        assert [(d["name"], d["storage"], d["reserved_storage"]) for d in shown] == [
            ("A", 0, (1 << 64) - 1),
            ("B", 883, 3000),
        ]
        for name, enabled in (("A", True), ("B", True), ("N/..", False), ("$G", False)):
            detail = (await asyncio.to_thread(ask, monitor, f"/accountz?acc={name}"))["account_detail"]
            assert detail["jetstream_enabled"] is enabled
        await b.close()

    run(scenario())


def ask(monitor: int, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{monitor}{path}", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_a_reload_takes_jetstream_away_and_gives_it_back(start: Start) -> None:
    async def scenario() -> None:
        server, _ = start()
        a, n = [await as_user(server, name) for name in "an"]
        await api(a, "STREAM.CREATE.T", {"name": "T", "subjects": ["t"]})
        assert await publish(a, "t", 5) == 1
        first = server.conf.read_text()
        server.conf.write_text(
            first.replace("A { jetstream: enabled", "A { jetstream: disabled").replace(
                '"N/.." {', '"N/.." { jetstream: enabled,'
            )
        )
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        await eventually(lambda: api(n, "INFO"), 10, "JetStream in the other account")
        # The accounts change one after the other: the peer's may have nobody who answers in between.
        assert await eventually(lambda: refusal(a, "STREAM.INFO.T"), 10, "the first account is refused") == 10039
        await api(n, "STREAM.CREATE.T", {"name": "T", "subjects": ["t"]})
        assert await publish(n, "t", 5) == 1
        server.conf.write_text(first)
        server.process.send_signal(signal.SIGHUP)
        assert (await eventually(lambda: api(a, "STREAM.INFO.T"), 10, "the stream again"))["state"]["messages"] == 1
        assert await publish(a, "t", 5) == 2
        assert await eventually(lambda: refusal(n, "INFO"), 10, "the other account is refused") == 10039
        for client in (a, n):
            await client.close()

    run(scenario())


@ours
def test_streams_of_accounts_come_back_after_a_restart(lab: Lab) -> None:
    """Those of the global account too, whose store was made before there were others."""

    async def scenario() -> None:
        server = lab.server(
            "solo", 'server_name: solo\nlisten: 127.0.0.1:PORT\njetstream { store_dir: "HOME/store" }\n'
        )
        server.start()
        wait_for_log(server, "Server is ready")
        client = await connect(server.url)
        await api(client, "STREAM.CREATE.T", {"name": "T", "subjects": ["t"]})
        assert await publish(client, "t", 5) == 1
        await client.close()
        before = server.conf.read_text()
        for text, user, expected in ((before + ACCOUNTS, "a", 1), (before + ACCOUNTS, "a", 2), (before, "", 2)):
            server.stop()
            server.conf.write_text(text)
            server.start()
            client = await eventually(lambda u=user: as_user(server, u) if u else connect(server.url), 15, "it runs")
            if user and expected == 1:
                await api(client, "STREAM.CREATE.T", {"name": "T", "subjects": ["t"]})
            assert await publish(client, "t", 5) == expected
            await client.close()

    run(scenario())


@ours
def test_accounts_in_a_cluster(lab: Lab) -> None:
    ports = free_ports(3)
    servers = []
    for at, port in enumerate(ports):
        routes = ", ".join(f"nats-route://127.0.0.1:{other}" for other in ports if other != port)
        text = f"""server_name: n{at}
listen: 127.0.0.1:PORT
jetstream {{ store_dir: "HOME/s" }}
cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [ {routes} ] }}
{ACCOUNTS.replace("max_file: 3000", "max_file: 8000")}"""
        servers.append(lab.server(f"n{at}", text, route_port=port))
        servers[-1].start()

    async def scenario() -> None:
        a, b, n = [
            await eventually(lambda s=s, u=u: as_user(s, u), 15, "a connection")
            for s, u in zip(servers, "abn", strict=True)
        ]
        for client in (a, b):
            await eventually(lambda c=client: api(c, "INFO"), 30, "JetStream")
            body = {"name": "T", "subjects": ["t"], "num_replicas": 3}
            await eventually(lambda c=client, b=body: api(c, "STREAM.CREATE.T", b), 20, "a stream")
        assert await refusal(n, "INFO") == 10039
        assert await publish(a, "t", 850) == 1
        # 880 bytes on each of three servers: three of them are 7920 of 8000.
        assert [await publish(b, "t", 850) for _ in range(5)] == [1, 2, 3, -10002, -10002]
        await api(b, "STREAM.CREATE.R", {"name": "R", "subjects": ["r"], "num_replicas": 1})

        async def full() -> bool:
            return await publish(b, "r", 100) == -10002  # whoever leads it hears of the other stream within a second

        await eventually(full, 15, "the account's limit on another stream")

        async def told(client: Client, least: int) -> int:  # servers tell each other what they hold once a second
            storage = int((await api(client, "INFO"))["storage"])
            return storage if storage >= least else 0

        await eventually(lambda: told(b, 3 * 3 * 881), 15, "what all servers hold of the account's")
        assert await eventually(lambda: told(a, 3 * 881), 15, "the same of the other's") == 3 * 881
        for client in (a, b, n):
            await client.close()

    run(scenario())
