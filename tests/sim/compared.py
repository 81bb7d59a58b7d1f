"""A stage whose replicas are compared: the Comparer of production over the model's logs, network and time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from jscore_server.raft.compare import COMPARE_PROTOCOL, Comparer, Difference

from .model import GROUP, ModelLog, Node, Violation
from .stage import Stage


class Full(Exception):
    """Not even one record fits."""


class View:
    """A log as the comparer reads it: a record is its term and its data."""

    first = 1

    def __init__(self, log: ModelLog) -> None:
        self.log = log

    def copy(self, lo: int, hi: int, cap: int) -> tuple[bytes, int]:
        if lo > self.log.last:
            raise Violation(f"{lo} is read, and the log ends at {self.log.last}")
        last = min(hi, lo + 9, self.log.last)  # ten records are a range
        return repr(self.log.slice(lo, last)).encode(), last

    def read(self, index: int) -> None:
        pass


class Site:
    """A server's group and host, as far as a comparer asks. One life of the server."""

    def __init__(self, stage: Compared, node: Node) -> None:
        self.stage, self.node, self.life = stage, node, node.life
        self.name, self.id = node.name, GROUP
        self.groups: dict[str, Any] = {GROUP: self}
        self.engine = SimpleNamespace(Full=Full, Error=Full)
        self.transport = SimpleNamespace(send=self.send, connected=self.connected)
        self.candidates = SimpleNamespace(crowded=False)
        self.stopped = False
        self.difference: Difference | None = None
        self.comparer = Comparer(self)  # type: ignore[arg-type]
        self.comparer.note(self)  # type: ignore[arg-type]

    @property
    def core(self) -> Any:
        return self.node.core

    @property
    def is_leader(self) -> bool:
        return bool(self.core.led)

    @property
    def log(self) -> View:
        return View(self.node.log)

    @property
    def ticks(self) -> int:
        return self.node.ticks(self.stage.now)

    def understood(self, servers: tuple[str, ...]) -> int:
        return COMPARE_PROTOCOL

    def connected(self, peer: str) -> bool:
        return peer in self.node.present

    def send(self, peer: str, kind: int, body: bytes) -> bool:
        self.stage.post(self.name, peer, self.stage.on_compare, (body,))
        return True

    def log_line(self, level: str, text: str) -> None:
        self.stage.note(f"{self.name}: {text}")

    def unreadable(self, err: Exception) -> None:
        raise Violation(f"{self.name} cannot read its log: {err}")

    def differs(self, found: Difference) -> None:
        """The repair: the range as one of those has it who agree."""
        if found.agreed and self.name not in found.odd:
            return  # a leader hears of all
        self.stage.found.append((self.name, found))
        if not found.agreed:
            return
        source = self.stage.nodes[found.agreed[0]].log
        self.node.log.data[found.lo : found.hi + 1] = source.data[found.lo : found.hi + 1]


class Compared(Stage):
    """`found`: what each replica was told of differences, in order."""

    def __init__(self, size: int = 3, **options: Any) -> None:
        super().__init__(size, **options)
        self.found: list[tuple[str, Difference]] = []
        self.sites: dict[str, Site] = {}
        self.at(20, self.beat)

    def site(self, node: Node) -> Site:
        site = self.sites.get(node.name)
        if site is None or site.life != node.life:
            site = self.sites[node.name] = Site(self, node)
            for other in self.sites.values():
                if other is not site:
                    other.comparer.started(node.name)
        return site

    def beat(self) -> None:
        self.at(20, self.beat)
        for node in self.nodes.values():
            if node.core is not None and not node.paused:
                site = self.site(node)
                if node.core.led:
                    site.comparer.note(site)  # type: ignore[arg-type]
                site.comparer.tick()

    def on_compare(self, source: str, target: str, body: bytes) -> None:
        node = self.nodes[target]
        if node.core is not None:
            self.site(node).comparer.receive(source, body)

    def equal(self, last: int = 40) -> bool:
        """Whether all who hold so many records hold the same ones."""
        return len({repr(node.log.slice(1, last)) for node in self.nodes.values() if node.log.last >= last}) == 1
