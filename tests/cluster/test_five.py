"""Five hosts, five replicas: any two may die."""

from __future__ import annotations

import json

import pytest
from harness import Lab, run
from jscore_server.demo import ApiError, Client, NatsError, api, connect, eventually, free_ports, ready

TEXT = """server_name=five{number}
listen=127.0.0.1:PORT
jetstream {{ store_dir=HOME/store }}
cluster {{
  name: five
  listen: localhost:{route}
  routes: [
    {routes}
  ]
}}
"""


async def publish(client: Client, numbers: range) -> dict[int, int]:
    """Each number published until it is acknowledged: number -> sequence."""
    acked: dict[int, int] = {}

    async def one(number: int) -> bool:
        try:
            answer = await client.request("five", b"%d" % number, timeout=1, headers={"Nats-Msg-Id": str(number)})
        except (TimeoutError, NatsError):
            return False
        ack = json.loads(answer.data)
        if "error" not in ack:
            acked[number] = ack["seq"]
        return number in acked

    for number in numbers:
        await eventually(lambda number=number: one(number), 20, f"number {number} acknowledged")  # type: ignore[misc]
    return acked


def test_five_replicas_outlive_two_hosts(lab: Lab) -> None:
    ports = free_ports(5)
    servers = []
    for number, route in enumerate(ports):
        routes = "\n    ".join(f"nats-route://localhost:{port}" for port in ports if port != route)
        servers.append(lab.server(f"five{number}", TEXT.format(number=number, route=route, routes=routes)))
    for server in servers:
        server.start()
    config = {"name": "FIVE", "subjects": ["five"], "num_replicas": 5}

    async def story() -> None:
        await ready(servers)
        client = await connect([server.url for server in servers])

        async def created() -> bool:
            await api(client, "STREAM.CREATE.FIVE", config)
            return True

        await eventually(created, 20, "a stream of five replicas")
        info = await api(client, "STREAM.INFO.FIVE")
        assert len(info["cluster"]["replicas"]) == 4
        acked = await publish(client, range(100))
        leader = info["cluster"]["leader"]
        dead = [s for s in servers if s.name == leader] + [s for s in servers if s.name != leader][:1]
        for server in dead:
            server.kill()
        acked |= await publish(client, range(100, 200))
        assert sorted(acked.values()) == list(range(1, 201))
        for server in dead:
            server.start()

        async def whole() -> bool:
            replicas = (await api(client, "STREAM.INFO.FIVE"))["cluster"]["replicas"]
            return all(r["current"] and not r.get("lag") for r in replicas) and len(replicas) == 4

        await eventually(whole, 30, "all five current")
        for number, seq in acked.items():
            message = (await api(client, "STREAM.MSG.GET.FIVE", {"seq": seq}))["message"]
            assert message["seq"] == seq, number
        with pytest.raises(ApiError) as refused:
            await api(client, "STREAM.CREATE.SIX", {**config, "name": "SIX", "subjects": ["six"], "num_replicas": 6})
        assert refused.value.err_code == 10052
        await client.close()

    run(story(), 100)
