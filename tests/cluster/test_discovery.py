"""Servers that know of each other by datagrams alone become one cluster; who lacks the key does not."""

from __future__ import annotations

import asyncio
import re

import pytest
from harness import Lab, is_peer, ready, run_command, wait_for_log
from jscore_server.demo import Server, api, connect, free_ports

pytestmark = pytest.mark.skipif(is_peer(), reason="a setting of ours")

KEY = "a key of one cluster"


def discover(server: Server, port: int, key: str = KEY) -> None:
    """Its list of routes gives way to discovery on loopback."""
    text, count = re.subn(
        r"routes: \[.*?\]",
        f'discovery {{ key: "{key}", servers: 3, port: {port}, interface: 127.0.0.1 }}',
        server.conf.read_text(),
    )
    assert count == 1
    server.conf.write_text(text)


async def replicated(urls: list[str]) -> int:
    client = await connect(urls)
    try:
        made = await api(client, "STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "num_replicas": 3})
        return len(made["cluster"]["replicas"])
    finally:
        await client.close()


def test_servers_find_each_other_and_no_stranger(lab: Lab) -> None:
    hosts = lab.hosts(["h1", "h2", "h3"])
    [port] = free_ports(1)
    stranger = lab.member("h4")
    for server in hosts.servers:
        discover(server, port)
    discover(stranger, port, "a key of somebody else")
    stranger.start()
    hosts.start()
    asyncio.run(ready(hosts.servers))
    assert asyncio.run(replicated([server.url for server in hosts.servers])) == 2
    wait_for_log(stranger, "JetStream waits for its cluster: 1 of 2 servers are linked")
    assert "Route connection created" not in stranger.log.read_text()
    late = lab.member("h5")  # the cluster takes it in
    discover(late, port)
    late.start()
    asyncio.run(ready([late]))


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("servers: 3", 'discovery needs "key"'),
        (f'key: "{KEY}"', 'discovery needs "servers"'),
        ('key: "short", servers: 3', '"key" of discovery has at least 16 characters'),
        (f'key: "{KEY}", servers: 1', 'expected 2 to 1000 for "servers", got 1'),
        (f'key: "{KEY}", servers: 3, group: "ff02::1"', "IPv4 address"),
    ],
)
def test_what_cannot_be_is_said(lab: Lab, block: str, fault: str) -> None:
    hosts = lab.hosts(["h1"])
    server = hosts.servers[0]
    server.conf.write_text(re.sub(r"routes: \[.*?\]", f"discovery {{ {block} }}", server.conf.read_text()))
    done = run_command("-c", str(server.conf), "-t")
    assert done.returncode != 0
    assert fault in done.stdout + done.stderr
