#!/usr/bin/env python3
"""What many and badly behaved clients cost one server: memory of idle connections and of subscriptions, and how long
others wait beside them.

    python bench/load.py [--connections 10000] [--subscriptions 1000000] [--trips 3000] [--only NAME,...] [--peer]

Others' wait is the time from a publish to its delivery on the same connection, one at a time. It is taken alone and
beside each offender in turn, several times over, so that the machine's own moods hit both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from core import build, free_port, wait_greeted

ROUNDS = 3
WAIT_S = 60


def connect(port: int, text: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), WAIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(b'CONNECT {"verbose":false}\r\n' + text + b"PING\r\n")
    until(sock, b"PONG\r\n")
    return sock


def until(sock: socket.socket, end: bytes) -> None:
    got = b""
    while end not in got:  # a PING of the server may follow
        more = sock.recv(65536)
        if not more:
            raise SystemExit(f"the server closed a connection: {got[-200:]!r}")
        got = (got + more)[-65536:]


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


@contextlib.contextmanager
def served(command: list[str], home: Path) -> Iterator[tuple[int, int, int]]:
    """(pid, port, monitoring port) of a fresh server."""
    port, http = free_port(), free_port()
    conf = home / "load.conf"
    conf.write_text(f"listen: 127.0.0.1:{port}\nhttp: 127.0.0.1:{http}\nmax_connections: 65536\nwrite_deadline: 2s\n")
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, "-c", str(conf)], stdout=log, stderr=log)
        try:
            wait_greeted(process, port)
            yield process.pid, port, http
        finally:
            process.kill()
            process.wait()


def idle(command: list[str], home: Path, count: int) -> str:
    with served(command, home) as (pid, port, _):
        before = resident(pid)
        began = time.monotonic()
        socks = [connect(port) for _ in range(count)]
        took, each = time.monotonic() - began, (resident(pid) - before) / count
        for sock in socks:
            sock.close()
        end = time.monotonic() + 10
        while time.monotonic() < end and resident(pid) - before > each * count / 4:
            connect(port).close()
        return (
            f"{count} idle connections: {each / 1024:.1f} KiB each, {took:.1f} s to connect; "
            f"{(resident(pid) - before) / 2**20:.1f} MiB more than before when they are gone"
        )


def matching(load: Path, port: int) -> float:
    words = [str(load), "ps", str(port), "1", "1", "128", "1000000", "0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S, check=True)
    return float(done.stdout.split('"rate":')[1].strip(" }\n").split(",")[0])


def subscriptions(command: list[str], home: Path, count: int, load: Path) -> str:
    with served(command, home) as (pid, port, _):
        plain = statistics.median(matching(load, port) for _ in range(ROUNDS))
        before = resident(pid)
        began = time.monotonic()
        sock = connect(port)
        for first in range(0, count, 10000):
            batch = range(first, min(first + 10000, count))
            sock.sendall(b"".join(b"SUB device.%d.%d.state %d\r\n" % (i % 1000, i, i + 1) for i in batch))
        sock.sendall(b"PING\r\n")
        until(sock, b"PONG\r\n")
        took, each = time.monotonic() - began, (resident(pid) - before) / count
        crowded = statistics.median(matching(load, port) for _ in range(ROUNDS))
        other = connect(port)
        sock.close()
        waits = trips(other, 500)  # beside a connection that closes with all of them
        end = time.monotonic() + 20
        while time.monotonic() < end and resident(pid) - before > each * count / 4:
            trips(other, 100)
        left = (resident(pid) - before) / 2**20
        return (
            f"{count} subscriptions: {each:.0f} B each, {took:.1f} s; 1:1 128 B {crowded:,.0f}/s with them, "
            f"{plain:,.0f}/s without; longest wait while they are closed {max(waits) * 1e3:.1f} ms; "
            f"{left:.1f} MiB more than before when they are gone"
        )


def trips(sock: socket.socket, count: int) -> list[float]:
    """How long each of `count` messages to itself took; subscribes on first use, under a sid that may be there."""
    sock.sendall(b"SUB trip 1\r\nPING\r\n")
    until(sock, b"PONG\r\n")
    found = []
    for _ in range(count):
        began = time.perf_counter()
        sock.sendall(b"PUB trip 2\r\nxx\r\n")
        until(sock, b"xx\r\n")
        found.append(time.perf_counter() - began)
    return found


def never_reads(port: int, http: int) -> None:
    """Subscribes to everything a publisher sends, and does not read."""
    publisher = connect(port)
    while True:
        with contextlib.suppress(OSError):
            deaf = connect(port, b"SUB flood 1\r\n")
            for _ in range(200):
                publisher.sendall(b"PUB flood 1024\r\n" + b"x" * 1024 + b"\r\n")
                time.sleep(0.002)
            deaf.close()


def byte_a_second(port: int, http: int) -> None:
    """Two hundred clients that send their operation a byte a second."""
    socks = [connect(port) for _ in range(200)]
    text = b"PUB slow 600\r\n" + b"x" * 600 + b"\r\n"
    for at in range(len(text)):
        for sock in socks:
            sock.sendall(text[at : at + 1])
        time.sleep(1)


def connects_and_closes(port: int, http: int) -> None:
    while True:
        socket.create_connection(("127.0.0.1", port)).close()
        connect(port).close()


def connects_elsewhere(port: int, http: int) -> None:
    """The same to a server of its own: what the machine's cores and its kernel cost the others, whoever serves them."""
    connects_and_closes(port, http)


def subscribes(port: int, http: int) -> None:
    """A hundred thousand subscriptions at a time, then a closed connection."""
    text = b"".join(b"SUB s.%d %d\r\n" % (i, i + 1) for i in range(100000))
    while True:
        connect(port, text).close()


def asks_for_pages(port: int, http: int) -> None:
    """/connz of five thousand connections, over and over."""
    held = [connect(port) for _ in range(5000)]
    while held:
        urllib.request.urlopen(f"http://127.0.0.1:{http}/connz?limit=10000&subs=1", timeout=WAIT_S).read()
        time.sleep(0.05)


OFFENDERS: dict[str, Callable[[int, int], None]] = {
    "never-reads": never_reads,
    "byte-a-second": byte_a_second,
    "connects-and-closes": connects_and_closes,
    "connects-elsewhere": connects_elsewhere,
    "subscribes": subscribes,
    "pages": asks_for_pages,
}


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def beside(command: list[str], home: Path, name: str, count: int) -> str:
    alone: list[float] = []
    along: list[float] = []
    with contextlib.ExitStack() as servers:
        _, port, http = servers.enter_context(served(command, home))
        troubled = port, http
        if name == "connects-elsewhere":
            troubled = servers.enter_context(served(command, Path(tempfile.mkdtemp(dir=home))))[1:]
        sock = connect(port)
        trips(sock, 200)
        for _ in range(ROUNDS):
            alone += trips(sock, count)
            words = [sys.executable, __file__, "--offend", name, *map(str, troubled)]
            with subprocess.Popen(words, stderr=subprocess.DEVNULL) as offender:
                try:
                    time.sleep(3)  # until it does what it is there for; nothing is decided by it
                    along += trips(sock, count)
                finally:
                    offender.kill()
    before, after = percentile(alone, 0.99) * 1e6, percentile(along, 0.99) * 1e6
    return (
        f"{name}: others' p99 {after:.0f} us, alone {before:.0f} us, {after / before:.2f}x; "
        f"p50 {percentile(along, 0.5) * 1e6:.0f} us, alone {percentile(alone, 0.5) * 1e6:.0f} us; "
        f"longest {max(along) * 1e3:.1f} ms, alone {max(alone) * 1e3:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--subscriptions", type=int, default=1000000)
    parser.add_argument("--trips", type=int, default=3000)
    parser.add_argument("--only", default="", help=f"of idle, subs, {', '.join(OFFENDERS)}; by comma")
    parser.add_argument("--peer", action="store_true", help="nats-server beside ours")
    parser.add_argument("--offend", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.offend:
        OFFENDERS[args.offend[0]](int(args.offend[1]), int(args.offend[2]))
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sides = {"ours": [sys.executable, "-m", "jscore_server.cli"]}
    peer = shutil.which("nats-server") or shutil.which(str(Path.home() / "go/bin/nats-server"))
    if args.peer and peer:
        sides["nats-server"] = [peer]
    chosen = [name for name in args.only.split(",") if name] or ["idle", "subs", *OFFENDERS]
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="load-bench-") as place:
        home = Path(place)
        load = build(home)[0]
        for name in chosen:
            for side, command in sides.items():
                if name == "idle":
                    found = idle(command, home, args.connections)
                elif name == "subs":
                    found = subscriptions(command, home, args.subscriptions, load)
                else:
                    found = beside(command, home, name, args.trips)
                print(f"{side:12} {found}", flush=True)


if __name__ == "__main__":
    main()
