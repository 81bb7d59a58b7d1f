#!/usr/bin/env python3
"""Many hosts and groups in virtual time: messages while nothing happens, and elections after a zone is lost.

hosts.py [--hosts 500] [--groups 100000] [--zones 5] [--idle 3] [--json FILE]. Every host is the server's own RaftHost:
its heartbeats for all groups together, sleeping groups and elections that stand in line. Logs are in memory. A frame
takes 2 ms and a sync 2 ms; what a host computes takes no time, so that the seconds shown are the rules' alone.
Each group has a replica in three zones. A zone is lost when all links to its hosts are reset at the same moment.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jscore_server.raft import Group, RaftHost, Role

STEP_MS = 2
TICK_MS = 20
COPIES = 3
FRAME_HEAD = 12  # bytes around a frame's body on a link
PATIENT_MS = 60_000


class MemoryLog:
    """What a group needs of a log; a sync ends with the next step."""

    __slots__ = ("commit", "durable", "error", "first", "net", "records", "recovery", "waiting", "where")

    def __init__(self, net: Net, where: int) -> None:
        self.net = net
        self.where = where
        self.records: list[tuple[int, int, bytes]] = []  # term, kind, data
        self.durable = 0
        self.waiting = False
        self.first = 1
        self.error = 0
        self.commit = 0
        self.recovery = None

    @property
    def last(self) -> int:
        return len(self.records)

    def append(self, kind: int, data: bytes = b"", *, term: int = 0, **_: Any) -> int:
        self.records.append((term, kind, data))
        return len(self.records)

    def append_raw(self, raw: bytes | memoryview, from_index: int, *, verified: bool = False) -> None:
        for index, term, kind, data in json.loads(bytes(raw)):
            if index >= from_index:
                self.append(kind, data.encode(), term=term)

    def submit(self) -> None:
        if not self.waiting:
            self.waiting = True
            self.net.syncs.append(self)

    def submit_now(self) -> None:
        self.submit()

    def wait(self, index: int, timeout: float | None = None) -> None:
        self.durable = self.last

    def term(self, index: int) -> int:
        return self.records[index - 1][0]

    def read(self, index: int) -> Any:
        term, kind, data = self.records[index - 1]
        return SimpleNamespace(index=index, term=term, kind=kind, data=data)

    def truncate(self, last: int) -> None:
        del self.records[last:]
        self.durable = min(self.durable, last)

    def set_commit(self, index: int) -> None:
        self.commit = index

    def mark(self) -> None:
        pass

    def close(self) -> None:
        pass

    def raw(self, lo: int, hi: int) -> bytes:
        found = enumerate(self.records[lo - 1 : hi], lo)
        return json.dumps([(i, term, kind, data.decode()) for i, (term, kind, data) in found]).encode()


def scan(raw: bytes) -> list[tuple[int, int, int]]:
    return [(index, term, 1) for index, term, _, _ in json.loads(bytes(raw))]


class BenchError(Exception):
    """The engine's error; none is made here."""


ENGINE = SimpleNamespace(scan_records=scan, Error=BenchError, Corrupt=BenchError, Full=BenchError)


class Links:
    """One host's view of the network."""

    def __init__(self, net: Net, number: int) -> None:
        self.net = net
        self.number = number

    def connected(self, peer: str) -> bool:
        return self.net.up[int(peer)] and self.net.up[self.number]

    def send(self, peer: str, kind: int, body: bytes) -> bool:
        return self.net.post(self.number, int(peer), kind, body)

    def push(self) -> None:
        pass

    def send_records(self, peer: str, kind: int, head: bytes, log: MemoryLog, lo: int, hi: int, cap: int) -> int:
        return hi if self.net.post(self.number, int(peer), kind, head + log.raw(lo, hi)) else 0


class Net:
    """All hosts, what is on its way between them, and the clock."""

    def __init__(self, hosts: int, zones: int, seed: int) -> None:
        self.up = [True] * hosts
        self.zones = zones
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.syncs: list[MemoryLog] = []
        self.now_ms = 0
        self.sent = self.empty = self.bytes = 0
        self.led: dict[str, int] = {}
        self.rng = random.Random(seed)
        self.hosts = [
            RaftHost(
                str(n), SimpleNamespace(open=lambda path, n=n: MemoryLog(self, n)), "/nonexistent", Links(self, n),
                rng=random.Random(seed * 1000 + n), engine=ENGINE, log_line=lambda level, text: None,
                clock_ms=lambda: self.now_ms,
            )
            for n in range(hosts)
        ]  # fmt: skip
        for n, host in enumerate(self.hosts):
            host.tick(0)
            for peer in range(hosts):
                if peer != n:
                    host.link_up(str(peer))

    def post(self, source: int, target: int, kind: int, body: bytes) -> bool:
        if not (self.up[source] and self.up[target]):
            return False
        self.sent += 1
        self.empty += not body
        self.bytes += len(body) + FRAME_HEAD
        self.frames.append((source, target, kind, body))
        return True

    def create(self, groups: int) -> None:
        by_zone = [[n for n in range(len(self.hosts)) if n % self.zones == zone] for zone in range(self.zones)]
        for number in range(groups):
            name = f"S-R3F-{number:08d}"
            members = [self.rng.choice(by_zone[zone]) for zone in self.rng.sample(range(self.zones), COPIES)]
            for n in members:
                self.replica(name, n, [str(m) for m in members])

    def replica(self, name: str, n: int, members: list[str]) -> Group:
        log = MemoryLog(self, n)

        def role(role: Role, term: int) -> None:
            if role is Role.LEADER:
                self.led[name] = n
            elif self.led.get(name) == n:
                del self.led[name]

        return self.hosts[n].create_group(
            name, log, members, on_commit=lambda index: None, on_role=role, preferred=members[0]
        )

    def step(self) -> None:
        frames, self.frames = self.frames, []
        syncs, self.syncs = self.syncs, []
        for source, target, kind, body in frames:
            if self.up[target] and self.up[source]:
                self.hosts[target].receive(str(source), kind, body)
        for log in syncs:
            log.waiting = False
            if self.up[log.where]:
                log.durable = log.last
                self.hosts[log.where].durable(log)
        self.now_ms += STEP_MS
        if self.now_ms % TICK_MS == 0:
            for n, host in enumerate(self.hosts):
                if self.up[n]:
                    host.tick(self.now_ms * 1_000_000)

    def run(self, ms: int) -> None:
        for _ in range(ms // STEP_MS):
            self.step()

    def until_led(self, groups: int) -> float:
        """Seconds of virtual time until that many groups have a leader. Raises TimeoutError."""
        began = self.now_ms
        while len(self.led) < groups:
            self.step()
            if self.now_ms - began > PATIENT_MS:
                raise TimeoutError(f"{len(self.led)} of {groups} groups have a leader")
        return (self.now_ms - began) / 1000

    def lose_zone(self) -> tuple[int, int]:
        """Resets all links to zone 0: (its hosts, the groups led there)."""
        gone = [n for n in range(len(self.hosts)) if n % self.zones == 0]
        orphans = [name for name, leader in self.led.items() if leader % self.zones == 0]
        for n in gone:
            self.up[n] = False
        for name in orphans:
            del self.led[name]
        for n, host in enumerate(self.hosts):
            if self.up[n]:
                for dead in gone:
                    host.link_down(str(dead))
        return len(gone), len(orphans)


def show(result: dict[str, Any], **values: Any) -> None:
    result.update(values)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    for name, value in values.items():
        print(f"{name.replace('_', ' '):40s} {value}   [{time.process_time():.0f} s of CPU, {rss} MiB]", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--zones", type=int, default=5)
    parser.add_argument("--idle", type=int, default=3, help="seconds of virtual time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gc.disable()  # nothing here is garbage of that kind
    result: dict[str, Any] = {}
    net = Net(options.hosts, options.zones, 1)
    show(result, hosts=options.hosts)
    net.create(options.groups)
    show(result, groups=options.groups)
    show(result, all_led_after_s=net.until_led(options.groups))
    net.run(5000)  # to sleep
    awake = sum(g.core.led and not g.core.quiet for host in net.hosts for g in host.groups.values())
    show(result, leaders_awake=awake)
    frames, empty, size = net.sent, net.empty, net.bytes
    net.run(options.idle * 1000)
    frames, empty, size = net.sent - frames, net.empty - empty, net.bytes - size
    show(result, idle_frames_a_second_and_host=round(frames / options.idle / options.hosts))
    show(result, idle_messages_of_groups_a_second=round((frames - empty) / options.idle))
    show(result, idle_bytes_a_second_and_host=round(size / options.idle / options.hosts))
    frames, size = net.sent, net.bytes
    lost, orphans = net.lose_zone()
    show(result, hosts_lost=lost, groups_led_there=orphans)
    took = net.until_led(options.groups)
    show(result, all_led_again_after_s=took, frames_for_it=net.sent - frames, mib_for_it=(net.bytes - size) >> 20)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
