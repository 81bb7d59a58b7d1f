"""The example as it was meant: three hosts of their own, named host_a, host_b and host_c, one line changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import CONF, Server, command, wait_for

HOSTS = {"host_a": "10.214.73.1", "host_b": "10.214.73.2", "host_c": "10.214.73.3"}

# Run inside a namespace: only there is the server reachable.
CLIENT = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
from jscore_server.demo import api, connect, eventually

async def main():
    client = await connect([f"nats://{host}:4222" for host in ("host_a", "host_b", "host_c")])
    js = client.jetstream(timeout=5)
    if sys.argv[1] == "write":
        async def created():
            config = {"name": "NS", "subjects": ["ns"], "num_replicas": 3, "storage": "file"}
            await api(client, "STREAM.CREATE.NS", config)
            return True
        await eventually(created, 40, "stream created")
        for n in range(100):
            async def stored():
                return (await js.publish("ns", b"%d" % n, headers={"Nats-Msg-Id": str(n)})).seq == n + 1
            await eventually(stored, 10, "published")
        print((await api(client, "STREAM.INFO.NS"))["cluster"]["leader"])
    else:
        async def there():
            info = await api(client, "STREAM.INFO.NS", seconds=1)
            return info["state"]["messages"] == 100 and info["cluster"]["leader"] != sys.argv[1]
        await eventually(there, 40, "another leader has everything")
        for n in range(100):
            message = await js.get_msg("NS", n + 1)
            assert message.data == b"%d" % n
        print("all there")
    await client.close()

asyncio.run(asyncio.wait_for(main(), 90))
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


@dataclass
class Host:
    """One namespace whose /etc/hosts knows the three names."""

    name: str
    namespace: str
    hosts_file: Path

    def prefix(self) -> list[str]:
        script = f'mount --make-rprivate / && mount --bind "{self.hosts_file}" /etc/hosts && exec "$@"'
        return ["ip", "netns", "exec", self.namespace, "sh", "-c", script, "sh"]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """Three namespaces on one bridge; gone afterwards, whatever happened."""
    if os.geteuid() != 0:
        pytest.skip("needs root for network namespaces")
    if not shutil.which("ip"):
        pytest.skip("needs ip (iproute2)")
    tag = f"j{os.getpid() % 100000:05d}"
    names = tmp_path / "hosts"
    names.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in HOSTS.items()))
    made = [Host(name, f"{tag}-{name}", names) for name in HOSTS]
    try:
        try:
            ip(
                "netns", "add", f"{tag}-net"
            )  # the bridge lives in a namespace too: the machine's own network is not touched
            ip("-n", f"{tag}-net", "link", "add", "br0", "type", "bridge")
            ip("-n", f"{tag}-net", "link", "set", "br0", "up")
            for i, host in enumerate(made):
                ip("netns", "add", host.namespace)
                ip("link", "add", f"{tag}h{i}", "type", "veth", "peer", "name", f"{tag}b{i}")
                ip("link", "set", f"{tag}h{i}", "netns", host.namespace, "name", "eth0")
                ip("link", "set", f"{tag}b{i}", "netns", f"{tag}-net")
                ip("-n", f"{tag}-net", "link", "set", f"{tag}b{i}", "master", "br0", "up")
                ip("-n", host.namespace, "addr", "add", f"{HOSTS[host.name]}/24", "dev", "eth0")
                ip("-n", host.namespace, "link", "set", "eth0", "up")
                ip("-n", host.namespace, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as err:
            pytest.skip(f"this machine does not let us make network namespaces: {err.stderr.strip()}")
        yield made
    finally:
        for i in range(len(made)):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("link", "del", f"{tag}h{i}")
        for namespace in (*(host.namespace for host in made), f"{tag}-net"):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", namespace)


def test_the_example_on_three_hosts_of_their_own(hosts: list[Host], tmp_path: Path) -> None:
    servers: list[Server] = []
    client = tmp_path / "client.py"
    client.write_text(CLIENT)
    packages = [str(Path(__file__).resolve().parents[2] / "server")]

    def inside(host: Host, *arguments: str) -> str:
        command_line = [*host.prefix(), sys.executable, str(client), *arguments, *packages]
        answer = subprocess.run(command_line, capture_output=True, text=True, timeout=120)
        assert answer.returncode == 0, answer.stderr + "\n".join(server.tail() for server in servers)
        return answer.stdout.strip()

    try:
        for i, host in enumerate(hosts, 1):
            text = (CONF / f"server{i}.conf").read_text()
            assert "listen: localhost:6222" in text
            text = text.replace("listen: localhost:6222", "listen: 0.0.0.0:6222")
            text = text.replace("/nats/storage", str(tmp_path / host.name))  # three hosts, one disk
            conf = tmp_path / f"{host.name}.conf"
            conf.write_text(text)
            server = Server(f"server{i}", [*host.prefix(), *command()], conf, tmp_path / f"{host.name}.log", 4222)
            servers.append(server)
            server.start()
        leader = inside(hosts[0], "write")
        dead = next(server for server in servers if server.name == leader)
        survivor = next(host for host, server in zip(hosts, servers, strict=True) if server is not dead)
        dead.kill()
        assert inside(survivor, leader) == "all there"
        dead.start()
        wait_for(lambda: dead.running and "Server is ready" in dead.log.read_text(), 20, "the killed server is ready")
    finally:
        for server in servers:
            server.kill()
