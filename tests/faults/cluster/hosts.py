"""Three or five real daemons, each with a folder, a disk and, where a fault needs it, a network of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import msgspec
from jscore_server.demo import Cluster, Server, free_ports

from tests.faults.disks import Disk, Tmpfs, must, run, unmount

CONFIG = """server_name: {name}
listen: "{address}:{port}"
http: "{address}:{http}"
jetstream {{ store_dir: "{store}"{more} }}
cluster {{ name: faults, listen: "{address}:{route}"{advertise}, routes: [ {routes} ] }}
accounts {{ $SYS {{ users: [ {{user: sys, password: sys}} ] }} }}
"""
CLONE_NEWNET = 0x40000000
SUBNET = "10.214.74"


def peer() -> list[str] | None:
    found = shutil.which("nats-server") or shutil.which(str(Path.home() / "go" / "bin" / "nats-server"))
    return [found] if found else None


@dataclass
class Host(Server):
    """A server, what it stores and where."""

    address: str = "127.0.0.1"
    http: int = 0
    store: Path = Path()
    disk: Disk | Tmpfs | None = None
    paused: bool = False
    number: int = 0

    @property
    def url(self) -> str:
        return f"nats://{self.address}:{self.port}"

    @property
    def data(self) -> Path:
        """Where JetStream keeps its files."""
        return self.store / "jetstream"

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        if self.paused and self.running:
            os.kill(self.pid, signal.SIGCONT)
        self.paused = False

    def kill(self) -> None:
        super().kill()
        self.paused = False

    def wipe(self) -> None:
        """Everything it stored is gone; the folder itself stays, it may be a mount."""
        for path in self.store.iterdir():
            if path.name != "lost+found":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def power_cut(self) -> None:
        """What was not synced is gone; the process with it. The disk is mounted again for the next start."""
        assert isinstance(self.disk, Disk)
        self.disk.pull_plug()

    def after_power_cut(self) -> None:
        assert isinstance(self.disk, Disk)
        self.kill()
        self.disk.unmount()
        self.disk.mount()


class Network:
    """A namespace for each host on one bridge, and one for the load; this process moves into the load's."""

    def __init__(self, count: int) -> None:
        self.tag = f"f{os.getpid() % 100000:05d}"
        self.count = count
        self.names = [f"{self.tag}-{i}" for i in range(count)]
        self.cuts: set[tuple[int, int]] = set()

    @staticmethod
    def missing() -> str | None:
        if os.geteuid() != 0:
            return "network namespaces need root"
        if not shutil.which("ip") or not shutil.which("nsenter"):
            return "needs ip (iproute2) and nsenter"
        name = f"probe{os.getpid()}"
        if run("ip", "netns", "add", name).returncode:
            return "this machine does not let us make network namespaces"
        run("ip", "netns", "del", name)
        return None

    def __enter__(self) -> Network:
        load = f"{self.tag}-load"
        must("ip", "netns", "add", load)
        must("ip", "-n", load, "link", "add", "br0", "type", "bridge")
        must("ip", "-n", load, "link", "set", "br0", "up")
        must("ip", "-n", load, "link", "set", "lo", "up")
        must("ip", "-n", load, "addr", "add", f"{SUBNET}.100/24", "dev", "br0")
        for i, name in enumerate(self.names):
            must("ip", "netns", "add", name)
            must("ip", "-n", load, "link", "add", f"v{i}", "type", "veth", "peer", "name", "eth0", "netns", name)
            must("ip", "-n", load, "link", "set", f"v{i}", "master", "br0", "up")
            must("ip", "-n", name, "addr", "add", f"{self.address(i)}/24", "dev", "eth0")
            must("ip", "-n", name, "link", "set", "eth0", "up")
            must("ip", "-n", name, "link", "set", "lo", "up")
        fd = os.open(f"/var/run/netns/{load}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)
        return self

    def __exit__(self, *exc: object) -> None:
        for name in (*self.names, f"{self.tag}-load"):
            run("ip", "netns", "del", name)

    @staticmethod
    def address(i: int) -> str:
        return f"{SUBNET}.{i + 1}"

    def prefix(self, i: int) -> list[str]:
        return ["nsenter", f"--net=/var/run/netns/{self.names[i]}"]

    def cut(self, source: int, target: int) -> None:
        """Packets from one host to another are dropped from now on; what was said before is on its way."""
        if (source, target) not in self.cuts:
            must("ip", "-n", self.names[source], "route", "add", "blackhole", f"{self.address(target)}/32")
            self.cuts.add((source, target))

    def part(self, left: list[int], right: list[int]) -> None:
        for a in left:
            for b in right:
                self.cut(a, b)
                self.cut(b, a)

    def heal(self) -> None:
        for source, target in sorted(self.cuts):
            must("ip", "-n", self.names[source], "route", "del", "blackhole", f"{self.address(target)}/32")
        self.cuts.clear()


class Hosts(Cluster):
    """The daemons of one trial. Use as a context: whatever runs, is paused or mounted then is not afterwards."""

    def __init__(
        self,
        home: Path,
        command: list[str],
        count: int,
        *,
        disk: str = "",
        network: Network | None = None,
        more: str = "",
        delayed: bool = False,
    ) -> None:
        """`disk`: "" a folder, "ext4" an image that can lose power, "tmpfs" 48 MiB in memory. `more`: configuration.
        `delayed`: hosts reach each other by `proxies`, which somebody else has to run.
        """
        self.home = home
        self.command = command
        self.network = network
        self.disk = disk
        self.more = more
        self.routes: dict[tuple[int, int], str] = {}
        ports = free_ports(3 * count)
        self.ports = [(4222, 6222, 8222) if network else tuple(ports[3 * i : 3 * i + 3]) for i in range(count)]
        self.proxies = free_ports(count) if delayed else []
        self.addresses = [network.address(i) if network else "127.0.0.1" for i in range(count)]
        self.servers = [self.host(i) for i in range(count)]

    def host(self, i: int, name: str = "") -> Host:
        name = name or f"n{i}"
        port, route, http = self.ports[i]
        store = self.home / name
        prefix = self.network.prefix(i) if self.network else []
        host = Host(
            name,
            [*prefix, *self.command],
            self.home / f"{name}.conf",
            self.home / f"{name}.log",
            port,
            route,
            address=self.addresses[i],
            http=http,
            store=store,
            number=i,
        )
        if self.disk == "ext4":
            host.disk = Disk(self.home, 512, name)
            host.disk.mount()
        elif self.disk == "tmpfs":
            host.disk = Tmpfs(self.home, 48, name)
            host.disk.__enter__()
        else:
            store.mkdir()
        self.write(host)
        return host

    def write(self, host: Host) -> None:
        """Its configuration; a link named in `routes` goes by that address, a proxy's."""
        others = [j for j in range(len(self.ports)) if j != host.number]
        ports = self.proxies or [port for _, port, _ in self.ports]
        routes = [self.routes.get((host.number, j), f"{self.addresses[j]}:{ports[j]}") for j in others]
        text = CONFIG.format(
            name=host.name,
            address=host.address,
            port=host.port,
            http=host.http,
            route=host.route_port,
            store=host.store,
            routes=", ".join(f"nats-route://{place}" for place in routes),
            more=self.more and f", {self.more}",
            advertise=f', advertise: "127.0.0.1:{self.proxies[host.number]}"' if self.proxies else "",
        )
        host.conf.write_text(text)

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *exc: object) -> None:
        for host in self.servers:
            with contextlib.suppress(ProcessLookupError):
                host.kill()
        for host in self.servers:
            if host.disk is not None:
                unmount(host.disk.place)
                if isinstance(host.disk, Disk):
                    host.disk.image.unlink(missing_ok=True)


def healthz(host: Host, query: str = "") -> tuple[int, str]:
    """What the host says of itself: the status (0: no answer) and why."""
    try:
        with urllib.request.urlopen(f"http://{host.address}:{host.http}/healthz{query}", timeout=3) as answer:
            return int(answer.status), ""
    except urllib.error.HTTPError as err:
        with contextlib.suppress(msgspec.DecodeError):
            return err.code, str(msgspec.json.decode(err.read()).get("error", ""))
        return err.code, ""
    except OSError as err:
        return 0, str(err)


def rss(host: Host) -> int:
    """Resident bytes of its process."""
    for line in Path(f"/proc/{host.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(host.pid)
