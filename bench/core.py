#!/usr/bin/env python3
"""Core NATS beside nats-server and beside a null relay, alternating in one run: rate, and the server's CPU per message.

    python bench/core.py [--rounds 5] [--scale 1.0] [--only NAME,...] [--json FILE]

The load (bench/core/load.c) costs so little that the server is what is measured; the null relay
(bench/core/null_relay.c) only receives and sends: what the kernel lets any server on one thread do here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent / "core"
TICK = os.sysconf("SC_CLK_TCK")
START_S = 20
RUN_S = 120


class Row(NamedTuple):
    name: str
    work: list[int]  # arguments of load after the port
    mode: str = "ps"
    tls: bool = False

    def messages(self) -> int:
        if self.mode == "rr":
            return self.work[1]
        pubs, subs, _, count, pairs = self.work
        return count * pubs * (1 if pairs or not subs else subs)


def rows(scale: float) -> list[Row]:
    def n(count: float) -> int:
        return max(1000, int(count * scale))

    return [
        Row("pub 16 B", [1, 0, 16, n(16e6), 0]),
        Row("1:1 16 B", [1, 1, 16, n(12e6), 0]),
        Row("1:1 128 B", [1, 1, 128, n(6e6), 0]),
        Row("1:1 1 KiB", [1, 1, 1024, n(1.5e6), 0]),
        Row("1:1 8 KiB", [1, 1, 8192, n(2e5), 0]),
        Row("1:8 128 B", [1, 8, 128, n(1.2e6), 0]),
        Row("4:4 128 B", [4, 4, 128, n(1.5e6), 1]),
        Row("request 128 B", [128, n(3e4)], "rr"),
        Row("1:1 TLS 128 B", [1, 1, 128, n(3e6), 0], "ps", True),
    ]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def wait_greeted(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as sock:
                if sock.recv(5) == b"INFO ":
                    return
        except OSError:
            time.sleep(0.01)
    raise SystemExit(f"a server did not start: exit code {process.poll()}")


def once(command: list[str], row: Row, home: Path, load: Path) -> tuple[float, float, float]:
    """(messages a second, CPU microseconds a message, p50 of requests in microseconds or 0)."""
    port = free_port()
    if command[0].endswith("null_relay"):
        arguments = [*command, str(port)]
    else:
        conf = home / "core.conf"
        tls = f'tls {{ cert_file: "{home}/cert.pem", key_file: "{home}/key.pem" }}\n' if row.tls else ""
        conf.write_text(f"listen: 127.0.0.1:{port}\n{tls}")
        arguments = [*command, "-c", str(conf)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            wait_greeted(process, port)
            before = cpu_seconds(process.pid)
            words = [str(load), row.mode, str(port), *map(str, row.work)]
            environment = {**os.environ, "TLS": "1"} if row.tls else os.environ
            done = subprocess.run(words, capture_output=True, text=True, timeout=RUN_S, env=environment)
            if done.returncode:
                raise SystemExit(f"{row.name}: {done.stderr.strip()}\n{(home / 'server.log').read_text()[-500:]}")
            found = json.loads(done.stdout)
            cpu = (cpu_seconds(process.pid) - before) / row.messages() * 1e6
            return found["rate"], cpu, found.get("p50_us", 0.0)
        finally:
            process.kill()
            process.wait()


def build(home: Path) -> tuple[Path, Path]:
    programs = []
    for name, libraries in (("load", ["-lssl", "-lcrypto"]), ("null_relay", [])):
        programs.append(home / name)
        subprocess.run(
            ["gcc", "-O3", "-pthread", "-o", str(programs[-1]), str(HERE / f"{name}.c"), *libraries], check=True
        )
    return programs[0], programs[1]


def certificate(home: Path) -> None:
    files = ["-keyout", str(home / "key.pem"), "-out", str(home / "cert.pem")]
    about = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run(["openssl", "req", *about, *files], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="", help="parts of row names, by comma")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    peer = shutil.which("nats-server") or shutil.which(str(Path.home() / "go/bin/nats-server"))
    results = {}
    with tempfile.TemporaryDirectory(prefix="core-bench-") as place:
        home = Path(place)
        load, relay = build(home)
        certificate(home)
        contenders = {"peer": [peer] if peer else None, "ours": [sys.executable, "-m", "jscore_server.cli"]}
        print(
            f"{'row':16}{'ours/s':>12}{'peer/s':>12}{'ratio [spread]':>22}{'CPU us':>8}{'peer':>8}{'ratio':>7}"
            f"{'relay/s [spread]':>34}{'/peer':>7}{'CPU us':>8}"
        )
        for row in rows(args.scale):
            if args.only and not any(part in row.name for part in args.only.split(",")):
                continue
            got: dict[str, list[tuple[float, float, float]]] = {"peer": [], "ours": [], "relay": []}
            for _ in range(args.rounds):
                for who, command in contenders.items():
                    if command:
                        got[who].append(once(command, row, home, load))
                if row.mode == "ps" and not row.tls:
                    got["relay"].append(once([str(relay)], row, home, load))
            results[row.name] = got
            print(line(row, got), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


def line(row: Row, got: dict[str, list[tuple[float, float, float]]]) -> str:
    def median(who: str, field: int) -> float:
        return statistics.median([one[field] for one in got[who]] or [0.0])

    ours, peer, relay = median("ours", 0), median("peer", 0), median("relay", 0)
    rates = [one[0] for one in got["ours"]], [one[0] for one in got["peer"]] or [float("nan")]
    spread = (
        f"{ours / peer if peer else 0:.2f} [{min(rates[0]) / max(rates[1]):.2f}..{max(rates[0]) / min(rates[1]):.2f}]"
    )
    cpu, cpu_peer = median("ours", 1), median("peer", 1)
    text = f"{row.name:16}{ours:12,.0f}{peer:12,.0f}{spread:>22}{cpu:8.3f}{cpu_peer:8.3f}"
    relays = [one[0] for one in got["relay"]] or [0.0]
    beside = f"{relay:,.0f} [{min(relays) / 1e6:.2f}..{max(relays) / 1e6:.2f}M]"
    text += f"{cpu / cpu_peer if cpu_peer else 0:7.2f}{beside:>34}{relay / peer if peer else 0:7.2f}"
    text += f"{median('relay', 1):8.3f}"
    if row.mode == "rr":
        text += f"   p50 {median('ours', 2):.0f} us, peer {median('peer', 2):.0f} us"
    return text


if __name__ == "__main__":
    main()
