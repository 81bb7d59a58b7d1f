"""Stand-ins for the log engine and the links: same calls, memory only, and the test decides when a sync ends."""

from __future__ import annotations

import random
import struct
from types import SimpleNamespace
from typing import Any

from jscore_server.raft import RaftHost, Role

HEAD = struct.Struct("<IQIB")  # length, index, term, kind


class FakeError(Exception):
    """The engine's base error."""


class FakeCorrupt(FakeError):
    """Bytes that do not verify."""


def scan(raw: bytes) -> list[tuple[int, int, int]]:
    """Runs of equal term in fake records."""
    runs: list[tuple[int, int, int]] = []
    at = 0
    while at < len(raw):
        if len(raw) - at < HEAD.size:
            raise FakeCorrupt("short")
        size, index, term, _ = HEAD.unpack_from(raw, at)
        if size < HEAD.size or at + size > len(raw):
            raise FakeCorrupt("length")
        if runs and runs[-1][1] == term:
            runs[-1] = (runs[-1][0], term, runs[-1][2] + 1)
        else:
            runs.append((index, term, 1))
        at += size
    return runs


class FakeFull(FakeError):
    """Not even one record fits."""


ENGINE = SimpleNamespace(scan_records=scan, Error=FakeError, Corrupt=FakeCorrupt, Full=FakeFull)


class Terms:
    """A log of nothing but terms."""

    def __init__(self, terms: list[int]) -> None:
        self.terms = terms

    @property
    def last(self) -> int:
        return len(self.terms)

    def term(self, index: int) -> int:
        return self.terms[index - 1]


class FakeLog:
    """Interface of jscore.RecordLog over a list; `sync` moves `durable` up to what was submitted."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.records: list[SimpleNamespace] = []
        self.durable = 0
        self.submitted = 0
        self.first = 1
        self.error = 0
        self.recovery = SimpleNamespace(commit=0)
        self.full = False
        self.lazy = False
        self.copied = 0  # bytes given by `copy`

    @property
    def last(self) -> int:
        return len(self.records)

    def append(
        self, kind: int, data: bytes = b"", *, subject: bytes = b"", headers: bytes = b"", term: int = 0, ts: int = 0
    ) -> int:
        if self.full:
            raise FakeError("full")
        self.records.append(SimpleNamespace(index=self.last + 1, kind=kind, data=bytes(data), term=term))
        return self.last

    def append_raw(self, raw: bytes | memoryview, from_index: int, *, verified: bool = False) -> None:
        if self.full:
            raise FakeError("full")
        at = 0
        while at < len(raw):
            size, index, term, kind = HEAD.unpack_from(raw, at)
            if index >= from_index:
                assert index == self.last + 1, (index, self.last)
                self.append(kind, raw[at + HEAD.size : at + size], term=term)
            at += size

    def mark(self) -> None:
        pass

    def raw(self, index: int) -> bytes:
        r = self.records[index - 1]
        return HEAD.pack(HEAD.size + len(r.data), index, r.term, r.kind) + r.data

    def copy(self, lo: int, hi: int, cap: int) -> tuple[bytes, int]:
        raw, last = b"", 0
        for index in range(lo, hi + 1):
            record = self.raw(index)
            if len(raw) + len(record) > cap:
                break
            raw += record
            last = index
        if not last:
            raise FakeFull
        self.copied += len(raw)
        return raw, last

    def submit(self) -> None:
        self.submitted = self.last

    def submit_now(self) -> None:
        self.submit()
        if self.lazy:  # written at once, and no sync is waited for
            self.durable = self.submitted

    def truncate(self, last: int) -> None:
        del self.records[last:]
        self.durable = min(self.durable, last)
        self.submitted = min(self.submitted, last)

    def term(self, index: int) -> int:
        return self.records[index - 1].term

    def read(self, index: int) -> SimpleNamespace:
        return self.records[index - 1]

    def set_commit(self, index: int) -> None:
        self.recovery.commit = index

    def wait(self, index: int, timeout: float | None = None) -> None:
        assert index <= self.submitted
        self.durable = self.submitted

    def close(self) -> None:
        self.durable = self.submitted

    def crash(self) -> None:
        """A power cut: what is not synced is gone, and so is what only the process knew."""
        self.truncate(self.durable)
        self.error = 0


class FakeStore:
    """Logs by path; they outlive the server that opened them."""

    def __init__(self) -> None:
        self.logs: dict[str, FakeLog] = {}

    def open(self, path: str) -> FakeLog:
        return self.logs.setdefault(path, FakeLog(self))


def copy_of(store: FakeStore) -> FakeStore:
    """An image of a host's files as they are now."""
    image = FakeStore()
    for path, log in store.logs.items():
        twin = image.open(path)
        twin.records, twin.durable, twin.submitted = list(log.records), log.durable, log.submitted
    return image


class Link:
    """One server's view of the links."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def connected(self, peer: str) -> bool:
        return peer in self.cluster.servers and frozenset((self.name, peer)) not in self.cluster.cut

    def send(self, peer: str, kind: int, body: bytes) -> bool:
        if not self.connected(peer):
            return False
        self.cluster.frames.append((self.name, peer, kind, body))
        return True

    def push(self) -> None:
        self.cluster.pushed.extend(frame for frame in self.cluster.frames if frame[0] == self.name)

    def send_records(self, peer: str, kind: int, head: bytes, log: FakeLog, lo: int, hi: int, cap: int) -> int:
        if not self.connected(peer):
            return 0
        raw, last = b"", 0
        for index in range(lo, hi + 1):
            record = log.raw(index)
            if raw and len(raw) + len(record) > cap:
                break
            raw += record
            last = index
        self.cluster.frames.append((self.name, peer, kind, head + raw))
        return last


class Server:
    """A RaftHost over fakes with one group "g" unless asked otherwise."""

    def __init__(self, cluster: Cluster, name: str, store: FakeStore, seed: int) -> None:
        self.name = name
        self.store = store
        self.lines: list[tuple[str, str]] = []
        self.commits: list[int] = []
        self.roles: list[tuple[Role, int]] = []
        self.host = RaftHost(
            name, store, "raft", Link(cluster, name), rng=random.Random(seed), engine=ENGINE,
            log_line=lambda level, text: self.lines.append((level, text)),
        )  # fmt: skip
        self.group: Any = None

    def create(self, voters: list[str], **options: Any) -> Any:
        self.group = self.host.create_group(
            "g", self.store.open("g"), voters, on_commit=self.commits.append,
            on_role=lambda role, term: self.roles.append((role, term)), **options,
        )  # fmt: skip
        return self.group


class Cluster:
    """Servers, frames under way and cut links; `run` lets virtual time pass."""

    def __init__(self, names: list[str]) -> None:
        self.frames: list[tuple[str, str, int, bytes]] = []
        self.pushed: list[tuple[str, str, int, bytes]] = []  # frames that were not to wait for the turn's end
        self.cut: set[frozenset[str]] = set()
        self.now_ns = 0
        self.seed = 0
        self.servers: dict[str, Server] = {}
        self.stores = {name: FakeStore() for name in names}
        self.frozen: set[str] = set()  # servers whose disk does not finish a sync
        for name in names:
            self.start(name)

    def start(self, name: str) -> Server:
        self.seed += 1
        server = Server(self, name, self.stores.setdefault(name, FakeStore()), self.seed)
        self.servers[name] = server
        server.host.tick(self.now_ns)
        for other in self.servers.values():
            if other is not server:
                other.host.link_up(name)
                server.host.link_up(other.name)
        return server

    def kill(self, name: str) -> None:
        del self.servers[name]
        self.frames = [f for f in self.frames if name not in f[:2]]
        for log in self.stores[name].logs.values():
            log.crash()
        for other in self.servers.values():
            other.host.link_down(name)

    def settle(self) -> None:
        """Delivers frames and ends syncs until nothing moves."""
        moved = True
        while moved:
            moved = False
            while self.frames:
                source, target, kind, body = self.frames.pop(0)
                if target in self.servers and frozenset((source, target)) not in self.cut:
                    self.servers[target].host.receive(source, kind, body)
                    moved = True
            for server in list(self.servers.values()):
                if server.name in self.frozen:
                    continue
                for log in list(server.store.logs.values()):
                    if log.durable < log.submitted:
                        log.durable = log.submitted
                        server.host.durable(log)
                        moved = True

    def run(self, ms: int) -> None:
        for _ in range(ms // 20):
            self.now_ns += 20_000_000
            for server in list(self.servers.values()):
                server.host.tick(self.now_ns)
            self.settle()

    def leader(self) -> Server:
        found = [s for s in self.servers.values() if s.group is not None and s.group.is_leader]
        assert len(found) == 1, [(s.name, s.group.term) for s in found]
        return found[0]
