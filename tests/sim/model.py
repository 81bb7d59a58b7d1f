"""The parts of a simulated cluster: logs, disks, servers, and the view of all of it that nobody in it has."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jscore_server.jetstream.repair import Repair
from jscore_server.raft.core import Core, HardState, Members, Timing
from jscore_server.raft.messages import Message

import jscore

from .machine import Assignments, Digest

TICK = 20
GROUP = "g"
TIMING = Timing(window=4)  # a short window reaches its rare branches
CROWDED = Timing(window=4, election_min_ticks=25, election_max_ticks=26, hint_max_ticks=1)  # rivals in most elections
LEASED = Timing(window=4, lease=True)
NOOP_DATA = "noop"
GONE = -1  # in place of the term of a record that a log let go of
COPIED = 7  # records that a repair takes at a time
GIVES_MS = 3000  # nothing is trimmed for so long after somebody asked for it
STEPS_MS = 60  # what a host makes up for after it was stopped (host.MAX_STEPS)


class Violation(AssertionError):
    """An invariant does not hold; the text names it by its number in spec/raft.md §7."""


class ModelLog:
    """Log of one replica: what is written, and how much of it is on the platter. Beside it, its snapshot.

    Of the records below `first` nothing is left but the term of the last one.
    """

    __slots__ = ("commit", "data", "durable", "first", "hurt", "known_commit", "snapshot", "terms")

    def __init__(self, first: int = 1, before: int = 0) -> None:
        self.first = first
        self.terms = [GONE] * (first - 1) + [before]
        self.data: list[Any] = [None] * first
        self.durable = first - 1
        self.snapshot = b""  # on the platter
        self.hurt = False  # the disk lost it
        self.commit = 0  # what set_commit said last
        self.known_commit = 0  # and what of it the disk remembers

    @property
    def last(self) -> int:
        return len(self.terms) - 1

    def term(self, index: int) -> int:
        if index < self.first - 1:
            raise Violation(f"14: the term of record {index} is asked for, the log begins at {self.first}")
        return self.terms[index]

    def append(self, term: int, data: Any) -> int:
        self.terms.append(term)
        self.data.append(data)
        return len(self.terms) - 1

    def extend(self, terms: list[int], data: list[Any]) -> None:
        self.terms.extend(terms)
        self.data.extend(data)

    def slice(self, lo: int, hi: int) -> tuple[list[int], list[Any]]:
        if lo < self.first:
            raise Violation(f"14: record {lo} is to be sent, the log begins at {self.first}")
        return self.terms[lo : hi + 1], self.data[lo : hi + 1]

    def truncate(self, last: int) -> None:
        """As the engine does it: durable when it returns."""
        del self.terms[last + 1 :]
        del self.data[last + 1 :]
        self.durable = min(self.durable, last)
        self.known_commit = min(self.known_commit, last)

    def sync(self, upto: int) -> None:
        self.durable = max(self.durable, min(upto, self.last))

    def crash(self, keep: int) -> None:
        """Power cut: `keep` unsynced records happen to survive."""
        self.truncate(min(self.durable + keep, self.last))
        self.durable = self.last

    def trim(self, keep: int) -> None:
        """Lets go of records below `keep`, or of some of them."""
        self.forget(min(keep, self.last))

    def forget(self, first: int) -> None:
        for index in range(self.first - 1, first - 1):
            self.terms[index] = GONE
            self.data[index] = None
        if first > self.first:
            self.data[first - 1] = None
            self.first = first

    def write_snapshot(self, data: bytes) -> None:
        self.snapshot = data

    def read_snapshot(self) -> bytes:
        if not self.snapshot:
            raise jscore.NotFound
        return self.snapshot

    def hurt_snapshot(self) -> None:
        """A bit of both of its copies is another one."""
        self.hurt = True
        if self.snapshot:
            hurt = bytearray(self.snapshot)
            hurt[-1] ^= 1
            self.snapshot = bytes(hurt)

    # ---- what a repair needs ----

    def copy(self, lo: int, hi: int, cap: int) -> tuple[Any, int]:
        if not self.first <= lo <= min(hi, self.last):
            raise jscore.NotFound
        hi = min(hi, self.last, lo + COPIED - 1)
        return (lo, self.terms[lo : hi + 1], self.data[lo : hi + 1]), hi

    @staticmethod
    def scan(raw: Any) -> list[tuple[int, int, int]]:
        return [(raw[0] + i, term, 1) for i, term in enumerate(raw[1])]

    def append_raw(self, raw: Any, from_index: int) -> None:
        assert raw[0] == from_index == self.last + 1
        self.terms.extend(raw[1])
        self.data.extend(raw[2])

    def submit(self) -> None:
        pass

    def submit_now(self) -> None:
        pass

    def set_commit(self, index: int) -> None:
        self.commit = index

    def draft(self, first: int, before: int) -> ModelLog:
        """A log beside this one."""
        return ModelLog(first, before)

    def drop(self) -> None:
        """The draft goes."""

    def settle(self, old: Any) -> None:
        """The draft is whole, synced, and takes the place of `old`."""
        self.durable = self.last
        self.known_commit = self.commit


@dataclass(frozen=True, slots=True)
class Bugs:
    """Planted in the driver, where the core cannot have them."""

    forget_vote: bool = False  # a restart forgets it
    cut_damage: bool = False  # a damaged record passes for the end of the log
    trust_wiped: bool = False  # an emptied disk goes on as if it had never promised anything
    forget_members: bool = False  # a restart goes by the configuration of the group's birth
    lose_synced: bool = False  # a sync is reported and was none
    trim_early: bool = False  # the log is trimmed before the snapshot is written
    claim_more: bool = False  # a snapshot says that it is of the record after
    forget_base: bool = False  # what a snapshot says of the members is not used


class Node:
    """One server: its core while it runs, and its disk for ever."""

    __slots__ = (
        "applied",
        "backlog",
        "broken",
        "core",
        "directory",
        "disk",
        "durable_hard",
        "fails",
        "former",
        "full",
        "given",
        "hard_sync",
        "heard",
        "held",
        "known",
        "life",
        "log",
        "lost_ms",
        "machine",
        "met",
        "name",
        "paused",
        "pending_hard",
        "present",
        "rate",
        "repair",
        "syncing",
        "taken",
        "wake",
        "wipes",
        "writing",
    )  # fmt: skip

    def __init__(self, name: str, log: ModelLog, birth: Members) -> None:
        self.name = name
        self.log = log
        self.core: Core | None = None
        self.durable_hard = HardState(0, "", [birth], [])
        self.pending_hard: list[tuple[int, HardState]] = []
        self.held: list[tuple[int, Message]] = []
        self.syncing = False
        self.hard_sync = False
        self.life = 0  # counts restarts: events of a former life are void
        self.wake = 0
        self.disk = 1.0  # slowness of this disk
        self.applied = 0
        self.rate = 1.0  # of its clock
        self.lost_ms = 0.0  # time that its ticks did not see, being stopped
        self.present: set[str] = set()  # servers that are linked and not silent, as its core sees them
        self.heard: dict[str, int] = {}
        self.paused = 0  # until when, 0: it runs
        self.backlog: list[tuple[Any, tuple[Any, ...]]] = []
        self.full = False  # no space for another record
        self.fails = False  # the next sync fails
        self.broken = False  # a sync failed: the log is read only in this process
        self.directory = f"{name}.0"
        self.wipes = 0
        self.former: ModelLog | None = None  # what the lost disk held
        self.known: dict[str, str] = {}
        self.met: dict[str, str] = {}
        self.machine = Digest()  # what is made of the applied records
        self.writing = b""  # the snapshot on its way to the disk
        self.repair: Repair | None = None  # its log is being made anew: the server is there, the replica is not
        self.taken = 0  # how often that was done
        self.given = -GIVES_MS  # when somebody last asked for what is here

    def ticks(self, now: int) -> int:
        return int((now * self.rate - self.lost_ms) / TICK)

    def when(self, tick: int) -> int:
        """The first moment at which `ticks` says so."""
        return int((tick * TICK + self.lost_ms) / self.rate) + 1


class World:
    """What a run is made of, drawn from its seed, and the global view."""

    def __init__(
        self, seed: int, make_log: Callable[[str], Any], duration: int | None, *, calm: bool, size: int
    ) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.trace: list[str] | None = None
        self.now = 0
        self.queue: list[tuple[int, int, Any, tuple[Any, ...]]] = []
        self.order = 0
        self.events = 0
        self.faults = not calm
        rng = self.rng
        size = size or rng.choice((3, 3, 5))
        names = [f"n{i}" for i in range(size)]
        spare = [f"n{i}" for i in range(size, size + 2)]
        self.birth = Members(0, tuple(names), (), rng.choice((0, size)))
        self.make_log = make_log
        self.nodes = {n: Node(n, make_log(n), self.birth) for n in names + spare}
        self.names = names + spare
        first = {n: self.nodes[n].directory for n in self.names}
        for node in self.nodes.values():
            node.known, node.met = dict(first), dict(first)
        self._draw(calm)
        self.duration = rng.choice((3000, 6000, 12_000)) if duration is None else duration
        self.blocked: dict[tuple[str, str], bool] = {}
        self.ghost_terms = [0]  # what is committed
        self.committed_in = [0]  # and by the leader of which term
        self.ghost_data: list[Any] = [None]
        self.ghost = self.machine()
        self.ghost_prints = [self.ghost.print()]  # of the state after each of them
        self.ghost_members = [self.birth]
        self.entries: dict[tuple[int, int], tuple[Any, int]] = {}
        self.leaders: dict[int, str] = {}
        self.voted: dict[tuple[str, int], str] = {}
        self.waiting: dict[str, tuple[str, int, int, int, int]] = {}
        self.acked: dict[str, int] = {}
        self.reading: dict[int, tuple[str, int, int]] = {}  # reads under way: (server, what they must show, since when)
        self.history: list[tuple[int, int, int, bool]] = []  # (asked, answered, position, whether it wrote)
        self.floor = 0  # the latest position that anybody was shown
        self.proposed = 0
        self.reads = 0
        self.reads_done = 0

    def _draw(self, calm: bool) -> None:
        """One run has some kinds of trouble, not all: rare mixes come up that way."""
        rng = self.rng
        self.loss = rng.choice((0.0, 0.0, 0.02, 0.2))
        self.duplicates = rng.choice((0.0, 0.05, 0.3))
        self.delay = rng.choice((2, 10, 60))
        self.slow_delay = rng.choice((0, 0, 400, 1500))
        self.disk_delay = rng.choice((1, 10, 200))
        self.cap = rng.choice((1, 3, 50))
        self.timing = rng.choice((TIMING, TIMING, CROWDED, LEASED))
        self.pace = rng.choice((120, 120, 400, 5000))  # the last one lets groups fall idle
        self.rates = {
            "crash": rng.choice((0, 1, 3)),
            "cut": rng.choice((0, 1, 3)),
            "members": rng.choice((0, 0, 2)),
            "transfer": rng.choice((0, 0, 1)),
            "pause": rng.choice((0, 0, 2)),
            "disk": rng.choice((0, 0, 1)),
            "loss": rng.choice((0, 0, 0, 1)),
        }
        # Drawn apart, so that what is above stays what it was.
        self.dice = random.Random(f"snapshots {self.seed}")
        self.trim_at = self.dice.choice((0, 6, 6, 30))  # records that are worth a snapshot; 0: no log is trimmed
        self.retains = self.dice.choice((0.0, 0.5, 1.0))  # how often those are kept that somebody still lacks
        self.machine: type[Digest] = self.dice.choice((Digest, Digest, Assignments))
        self.rates["hurt"] = self.dice.choice((0, 0, 1)) if self.trim_at else 0
        if rng.random() < 0.3:
            for node in self.nodes.values():
                node.rate = rng.choice((0.95, 1.0, 1.05))
        if calm:
            self.loss = self.duplicates = 0.0
            self.delay, self.slow_delay, self.disk_delay, self.cap = 2, 0, 1, 50
            self.timing = TIMING
            self.trim_at = 0
            for node in self.nodes.values():
                node.rate = 1.0

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:>7} {text}")


def copy_hard(hard: HardState) -> HardState:
    """A snapshot of a hard state, as a disk would hold it."""
    return HardState(hard.term, hard.vote, list(hard.members), list(hard.members_indexes), hard.scanned, hard.mute,
                     hard.mute_term)  # fmt: skip


def members_at(log: Any, index: int) -> Members | None:
    """The configuration that a log holds at `index`, if any."""
    found = log.data[index]
    return replace(found, index=index) if isinstance(found, Members) else None
