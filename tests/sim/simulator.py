"""A cluster of Raft cores in one process, in virtual time, with a hostile network and hostile disks.

One seed gives one history. After every event the invariants of spec/raft.md §7 are checked against a global view: the
ghost list of commits, each replica's platter (what its disk would hold after a power cut), and who voted for whom.
One unit of virtual time is a millisecond.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jscore_server.raft.core import (
    MEMBERS,
    ChangeRefused,
    Core,
    HardState,
    InvariantBroken,
    Members,
    NotLeader,
    Role,
    Timing,
    recover_members,
)
from jscore_server.raft.messages import ACK, PREVOTE, PREVOTE_REPLY, VOTE, VOTE_REPLY, Message

TICK = 20
GROUP = "g"
TIMING = Timing(window=4)  # a short window reaches its rare branches
CROWDED = Timing(window=4, election_min_ticks=25, election_max_ticks=26, hint_max_ticks=1)  # rivals in most elections
NOOP_DATA = "noop"


class Violation(AssertionError):
    """An invariant does not hold; the text names it by its number in spec/raft.md §7."""


class ModelLog:
    """Log of one replica: what is written, and how much of it is on the platter."""

    __slots__ = ("data", "durable", "terms")

    def __init__(self) -> None:
        self.terms = [0]
        self.data: list[Any] = [None]
        self.durable = 0

    @property
    def last(self) -> int:
        return len(self.terms) - 1

    def term(self, index: int) -> int:
        return self.terms[index]

    def append(self, term: int, data: Any) -> int:
        self.terms.append(term)
        self.data.append(data)
        return len(self.terms) - 1

    def extend(self, terms: list[int], data: list[Any]) -> None:
        self.terms.extend(terms)
        self.data.extend(data)

    def slice(self, lo: int, hi: int) -> tuple[list[int], list[Any]]:
        return self.terms[lo : hi + 1], self.data[lo : hi + 1]

    def truncate(self, last: int) -> None:
        """As the engine does it: durable when it returns."""
        del self.terms[last + 1 :]
        del self.data[last + 1 :]
        self.durable = min(self.durable, last)

    def sync(self, upto: int) -> None:
        self.durable = max(self.durable, min(upto, self.last))

    def crash(self, keep: int) -> None:
        """Power cut: `keep` unsynced records happen to survive."""
        self.truncate(min(self.durable + keep, self.last))
        self.durable = self.last


class Node:
    """One server: its core while it runs, and its disk for ever."""

    __slots__ = (
        "applied",
        "core",
        "disk",
        "durable_hard",
        "events",
        "hard_sync",
        "held",
        "life",
        "log",
        "name",
        "pending_hard",
        "syncing",
        "wake",
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


def copy_hard(hard: HardState) -> HardState:
    """A snapshot of a hard state, as a disk would hold it."""
    return HardState(hard.term, hard.vote, list(hard.members), list(hard.members_indexes), hard.scanned, hard.mute,
                     hard.mute_term)  # fmt: skip


class Simulator:
    """One run. `core_class` and `forget_vote` let a test plant a bug."""

    def __init__(
        self,
        seed: int,
        *,
        core_class: type[Core] = Core,
        forget_vote: bool = False,
        trace: bool = False,
        make_log: Callable[[str], Any] = lambda name: ModelLog(),
        duration: int = 12_000,
    ) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.core_class = core_class
        self.forget_vote = forget_vote
        self.trace: list[str] | None = [] if trace else None
        self.now = 0
        self.queue: list[tuple[int, int, Any, tuple[Any, ...]]] = []
        self.order = 0
        self.events = 0
        self.duration = duration
        self.faults = True
        rng = self.rng
        size = rng.choice((3, 3, 5))
        names = [f"n{i}" for i in range(size)]
        spare = [f"n{i}" for i in range(size, size + 2)]
        expected = rng.choice((0, size))
        birth = Members(0, tuple(names), (), expected)
        self.nodes = {n: Node(n, make_log(n), birth) for n in names + spare}
        for n in spare:
            self.nodes[n].durable_hard.members[:] = [Members(0, tuple(names), (), expected)]
        self.names = names + spare
        # One run has some kinds of trouble, not all: rare mixes come up that way.
        self.loss = rng.choice((0.0, 0.0, 0.02, 0.2))
        self.duplicates = rng.choice((0.0, 0.05, 0.3))
        self.delay = rng.choice((2, 10, 60))
        self.slow_delay = rng.choice((0, 0, 400, 1500))
        self.crash_rate = rng.choice((0, 1, 3))
        self.cut_rate = rng.choice((0, 1, 3))
        self.member_rate = rng.choice((0, 0, 2))
        self.transfer_rate = rng.choice((0, 0, 1))
        self.disk_delay = rng.choice((1, 10, 200))
        self.cap = rng.choice((1, 3, 50))
        self.timing = rng.choice((TIMING, TIMING, CROWDED))
        self.pace = rng.choice((120, 120, 400, 5000))  # the last one lets groups fall idle
        self.blocked: dict[tuple[str, str], bool] = {}
        # The global view.
        self.ghost_terms = [0]
        self.ghost_data: list[Any] = [None]
        self.entries: dict[tuple[int, int], tuple[Any, int]] = {}
        self.leaders: dict[int, str] = {}
        self.voted: dict[tuple[str, int], str] = {}
        self.committed_members = birth
        self.waiting: dict[str, tuple[str, int, int, int, int]] = {}
        self.acked: dict[str, int] = {}
        self.highest_ack = 0
        self.proposed = 0
        for name in self.names:
            self.start(name)

    # ---- events ----------------------------------------------------------------------------------------------------

    def at(self, delay: int, act: Any, *args: Any) -> None:
        self.order += 1
        heapq.heappush(self.queue, (self.now + delay, self.order, act, args))

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:>7} {text}")

    def run(self) -> None:
        """Faults for `duration`, then peace until the cluster agrees. Raises Violation."""
        self.at(50, self.client)
        self.at(100, self.trouble)
        self.loop(self.duration)
        self.heal()
        deadline = self.now + 15_000
        while self.now < deadline:
            self.loop(self.now + 500)
            if self.agreed():
                break
        else:
            raise Violation(f"23: no agreement 15 s after the last fault: {self.summary()}")
        probe = self.propose_somewhere("probe")
        deadline = self.now + 8_000
        while self.now < deadline:
            self.loop(self.now + 300)
            if probe is None:
                probe = self.propose_somewhere("probe")
            elif probe in self.acked and self.agreed():
                break
            elif probe not in self.acked and not self.may_be_acked(probe):
                probe = self.propose_somewhere("probe")
        else:
            raise Violation(f"23: a probe did not commit: {self.summary()}")
        self.final()

    def may_be_acked(self, key: str) -> bool:
        """Whether the leader that took `key` still leads its term, so that the client may hear of it."""
        waits = self.waiting.get(key)
        core = self.nodes[waits[0]].core if waits else None
        return waits is not None and core is not None and core.role is Role.LEADER and core.term == waits[2]

    def loop(self, until: int) -> None:
        queue = self.queue
        pop = heapq.heappop
        count = 0
        while queue and queue[0][0] <= until:
            self.now, _, act, args = pop(queue)
            act(*args)
            count += 1
        self.now = until
        self.events += count

    # ---- servers ---------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        node = self.nodes[name]
        hard = copy_hard(node.durable_hard)
        if self.forget_vote:
            hard.vote = ""
        log = node.log
        recover_members(hard, log.last, lambda i: members_at(log, i))
        known = getattr(log, "known_commit", 0)
        core = self.core_class(GROUP, name, log, hard, self.rng, self.timing, commit=known, now=self.now // TICK)
        node.core = core
        node.syncing = node.hard_sync = False
        node.applied = 0
        node.wake = 0
        self.note(f"{name} starts t{core.term} last {log.last} {core.members}")
        self.arm(node)

    def crash(self, name: str) -> None:
        node = self.nodes[name]
        if node.core is None:
            return
        rng = self.rng
        node.core = None
        node.life += 1
        node.held.clear()
        unsynced = node.log.last - node.log.durable
        node.log.crash(rng.randint(0, unsynced) if unsynced and rng.random() < 0.7 else 0)
        keep = rng.randint(0, len(node.pending_hard))
        if keep:
            node.durable_hard = node.pending_hard[keep - 1][1]
        node.pending_hard.clear()
        self.note(f"{name} crashes, its log ends at {node.log.last}")
        for key in [k for k, w in self.waiting.items() if w[0] == name]:
            del self.waiting[key]

    def link(self, a: str, b: str, up: bool) -> None:
        core = self.nodes[a].core
        if core is not None:
            core.now = self.now // TICK
            if up:
                core.peer_up(b)
            else:
                core.peer_down(b)
            self.drain(self.nodes[a])

    def arm(self, node: Node) -> None:
        core = node.core
        if core is None:
            return
        when = core.deadline * TICK
        if when <= self.now:
            when = self.now + 1
        if not node.wake or when < node.wake:
            node.wake = when
            self.at(when - self.now, self.on_tick, node, node.life, when)

    def on_tick(self, node: Node, life: int, when: int) -> None:
        core = node.core
        if core is None or node.life != life or node.wake != when:
            return
        node.wake = 0
        core.now = self.now // TICK
        if core.now >= core.deadline:
            core.tick()
            core.tell_commit()
            self.drain(node)
        else:
            self.arm(node)

    # ---- the driver: what group.py does, over the model --------------------------------------------------------------

    def drain(self, node: Node) -> None:
        core = node.core
        if core is None:
            return
        out = core.out
        log = node.log
        again = True
        while again:
            again = False
            if out.truncate >= 0:
                last, out.truncate = out.truncate, -1
                self.check_truncate(node, last)
                log.truncate(last)
            if out.append is not None:
                (terms, data), out.append = out.append, None
                lo = out.append_from
                skip = lo - (log.last + 1)
                assert skip == 0
                log.extend(terms, data)
                self.check_entries(node, lo)
                for offset, item in enumerate(data):
                    if isinstance(item, Members):
                        core.members_seen(replace(item, index=lo + offset))
                self.sync_log(node)
            if out.lost:
                raise Violation(f"7: {node.name} is told that it lost {out.lost}, which no disk here does")
            if out.hard_state:
                node.pending_hard.append((out.hard_state, copy_hard(core.hard)))
                out.hard_state = 0
                self.sync_hard(node)
            if out.messages:
                messages, out.messages = out.messages, []
                for m in messages:
                    self.transmit(node, m)
            if out.after:
                node.held.extend((core.hard_seq, m) for m in out.after)
                out.after.clear()
            if out.commit and self.leaders.get(core.term) == node.name:
                self.check_quorum(node, out.commit)  # before a proposal changes who counts
            if out.proposals:
                proposals, out.proposals = out.proposals, []
                for what, members in proposals:
                    if core.role is Role.LEADER:
                        self.lead_append(node, members if what == MEMBERS else NOOP_DATA)
                again = True
            if out.sends:
                sends, out.sends = out.sends, []
                for p in sends:
                    p.queued = False
                    while (span := core.next_send(p)) is not None:
                        lo, hi, prev_term = span
                        hi = min(hi, lo + self.cap - 1)
                        terms, data = log.slice(lo, hi)
                        self.post(node.name, p.name, self.on_append,
                                  (core.term, lo - 1, prev_term, core.commit, terms, data))  # fmt: skip
                        core.sent(p, hi)
            if out.commit:
                commit, out.commit = out.commit, 0
                self.committed(node, commit)
                again = True
            if out.role:
                out.role.clear()
            if out.needs_snapshot:
                raise Violation("a snapshot was asked for, though no log is trimmed")
        if core.role is Role.LEADER:
            self.check_leader(node)
        if core.deadline * TICK < node.wake or not node.wake:
            self.arm(node)

    def lead_append(self, node: Node, data: Any) -> int:
        core = node.core
        assert core is not None
        index = node.log.append(core.term, data)
        self.check_entries(node, index)
        if isinstance(data, Members):
            self.check_change(node, data)
            core.members_seen(replace(data, index=index))
        core.appended(index)
        self.sync_log(node)
        return index

    def sync_log(self, node: Node) -> None:
        if not node.syncing:
            node.syncing = True
            delay = 1 + int(self.rng.random() * self.disk_delay * node.disk)
            self.at(delay, self.log_synced, node, node.life, node.log.last)

    def log_synced(self, node: Node, life: int, upto: int) -> None:
        core = node.core
        if core is None or node.life != life:
            return
        node.syncing = False
        log = node.log
        # A truncation in between was synced by itself, and what replaced the cut records belongs to the next sync.
        log.sync(min(upto, log.last))
        core.now = self.now // TICK
        core.durable(log.durable)
        self.drain(node)
        if log.durable < log.last:
            self.sync_log(node)

    def sync_hard(self, node: Node) -> None:
        if not node.hard_sync and node.pending_hard:
            node.hard_sync = True
            delay = 1 + int(self.rng.random() * self.disk_delay * node.disk)
            self.at(delay, self.hard_synced, node, node.life, node.pending_hard[-1][0])

    def hard_synced(self, node: Node, life: int, seq: int) -> None:
        core = node.core
        if core is None or node.life != life:
            return
        node.hard_sync = False
        pending = node.pending_hard
        while pending and pending[0][0] <= seq:
            node.durable_hard = pending.pop(0)[1]
        held, node.held = node.held, []
        for item in held:
            if item[0] <= seq:
                if item[1].term >= core.term:
                    self.transmit(node, item[1])
            else:
                node.held.append(item)
        core.now = self.now // TICK
        core.hard_state_durable(seq)
        self.drain(node)
        self.sync_hard(node)

    # ---- network -----------------------------------------------------------------------------------------------------

    def transmit(self, node: Node, m: Message) -> None:
        self.check_message(node, m)
        if self.trace is not None:
            self.note(f"{node.name} -> {m!r}")
        self.post(node.name, m.peer, self.on_message, (m,))

    def post(self, source: str, target: str, act: Any, args: tuple[Any, ...]) -> None:
        rng = self.rng
        random_ = rng.random
        if (source, target) in self.blocked or target not in self.nodes:
            return
        if self.faults:
            if self.loss and random_() < self.loss:
                return
            delay = 1 + int(random_() * self.delay)
            if self.slow_delay and random_() < 0.02:
                delay += int(random_() * self.slow_delay)
            if self.duplicates and random_() < self.duplicates:
                self.at(delay + int(random_() * self.delay * 4), act, source, target, *args)
        else:
            delay = 1
        self.at(delay, act, source, target, *args)

    def on_message(self, source: str, target: str, m: Message) -> None:
        node = self.nodes[target]
        core = node.core
        if core is None or (source, target) in self.blocked:
            return
        core.now = self.now // TICK
        # The sender's object is shared with duplicates, so the receiver gets its own.
        core.step(Message(m.kind, source, m.group, m.term, m.index, m.log_term, m.commit, m.hint, m.flags))
        self.drain(node)

    def on_append(
        self,
        source: str,
        target: str,
        term: int,
        prev: int,
        prev_term: int,
        commit: int,
        terms: list[int],
        data: list[Any],
    ) -> None:
        node = self.nodes[target]
        core = node.core
        if core is None or (source, target) in self.blocked:
            return
        runs: list[tuple[int, int, int]] = []
        first, count = prev + 1, 0
        for i, t in enumerate(terms):
            if count and t != terms[i - 1]:
                runs.append((first, terms[i - 1], count))
                first, count = prev + 1 + i, 0
            count += 1
        if count:
            runs.append((first, terms[-1], count))
        if self.trace is not None:
            self.note(f"{target} <- append {source} t{term} prev {prev}/{prev_term} {runs}")
        core.now = self.now // TICK
        if core.step_append(source, term, prev, prev_term, commit, runs, (terms, data)):
            skip = core.out.append_from - (prev + 1)
            core.out.append = (terms[skip:], data[skip:])
        self.drain(node)

    # ---- clients and trouble -----------------------------------------------------------------------------------------

    def client(self) -> None:
        rng = self.rng
        if self.faults:
            self.at(1 + int(rng.random() * self.pace), self.client)
        self.propose_somewhere()

    def propose_somewhere(self, tag: str = "p") -> str | None:
        leaders = [n for n in self.names if (c := self.nodes[n].core) is not None and c.led and not c.transferee]
        if not leaders:
            return None
        node = self.nodes[leaders[int(self.rng.random() * len(leaders))]]
        core = node.core
        assert core is not None
        key = ""
        core.now = self.now // TICK
        for _ in range(1 if tag == "probe" else self.rng.choice((1, 1, 5))):
            self.proposed += 1
            key = f"{tag}{self.proposed}"
            index = self.lead_append(node, key)
            self.waiting[key] = (node.name, index, core.term, self.highest_ack, self.now)
        self.drain(node)
        return key

    def trouble(self) -> None:
        if not self.faults:
            return
        rng = self.rng
        self.at(50 + int(rng.random() * 500), self.trouble)
        total = self.crash_rate + self.cut_rate + self.member_rate + self.transfer_rate
        if not total:
            return
        dice = rng.random() * (total + 2)
        if dice < self.crash_rate:
            self.crash_some()
        elif dice < self.crash_rate + self.cut_rate:
            self.cut_some()
        elif dice < self.crash_rate + self.cut_rate + self.member_rate:
            self.change_members()
        elif dice < total:
            self.transfer_some()
        else:
            self.mend_some()

    def crash_some(self) -> None:
        rng = self.rng
        dice = rng.random()
        if dice < 0.4:
            victims = [n for n in self.names if (c := self.nodes[n].core) is not None and c.role is Role.LEADER]
        elif dice < 0.5:
            victims = list(self.names)  # everybody at once (K-50)
        else:
            victims = [rng.choice(self.names)]
        for name in victims:
            self.crash(name)
            if rng.random() < 0.5:
                for other in self.names:
                    self.at(1 + int(rng.random() * 30), self.link, other, name, False)
            self.at(1 + int(rng.random() * rng.choice((10, 300, 3000))), self.restart, name, self.nodes[name].life)

    def restart(self, name: str, life: int) -> None:
        node = self.nodes[name]
        if node.core is None and node.life == life:
            self.start(name)
            for other in self.names:
                if other != name:
                    self.link(other, name, True)
                    self.link(name, other, True)

    def cut_some(self) -> None:
        rng = self.rng
        self.blocked.clear()
        dice = rng.random()
        if dice < 0.3:
            a, b = rng.sample(self.names, 2)
            self.blocked[a, b] = True  # one way only (K-27)
        elif dice < 0.5:
            a, b = rng.sample(self.names, 2)
            self.blocked[a, b] = self.blocked[b, a] = True  # ring cut (K-26)
        else:
            side = [n for n in self.names if rng.random() < 0.5]
            leaders = [n for n in self.names if (c := self.nodes[n].core) is not None and c.role is Role.LEADER]
            if rng.random() < 0.4 and leaders:
                side = leaders[:1]
            for a in self.names:
                for b in self.names:
                    if (a in side) != (b in side) and (dice < 0.9 or a in side):
                        self.blocked[a, b] = True
        self.note(f"cuts {sorted(self.blocked)}")
        if rng.random() < 0.5:
            for a, b in list(self.blocked):
                self.link(a, b, False)
                self.link(b, a, False)

    def mend_some(self) -> None:
        mended = list(self.blocked)
        self.blocked.clear()
        for name in self.names:
            self.nodes[name].disk = self.rng.choice((0.1, 1.0, 1.0, 5.0))
        for a, b in mended:
            self.link(a, b, True)
            self.link(b, a, True)

    def change_members(self) -> None:
        """Asks every leader for some set of voters: one more or fewer, or any others at all; or to give up."""
        rng = self.rng
        for name in self.names:
            core = self.nodes[name].core
            if core is None or core.role is not Role.LEADER:
                continue
            voters = core.members.voters
            outside = [n for n in self.names if n not in voters]
            dice = rng.random()
            core.now = self.now // TICK
            try:
                if dice < 0.15:
                    core.cancel_change()
                elif dice < 0.35 and outside:
                    core.change((*voters, rng.choice(outside)), instead=rng.random() < 0.3)
                elif dice < 0.5:
                    pick = rng.choice(voters)
                    core.change(tuple(n for n in voters if n != pick))
                else:
                    picked = rng.sample(self.names, rng.choice((1, 3, 3, 4, 5)))
                    rest = [n for n in self.names if n not in picked]
                    core.change(tuple(picked), tuple(rest[: rng.choice((0, 0, 1))]), instead=rng.random() < 0.3)
            except (NotLeader, ChangeRefused):
                continue
            self.note(f"{name} changes members: {core.changing}")
            self.drain(self.nodes[name])

    def transfer_some(self) -> None:
        for name in self.names:
            core = self.nodes[name].core
            if core is not None and core.led:
                core.now = self.now // TICK
                target = self.rng.choice(core.members.voters)
                self.note(f"{name} hands over to {target}")
                core.transfer(target)
                self.drain(self.nodes[name])

    def heal(self) -> None:
        self.note("peace")
        self.faults = False
        self.mend_some()
        for name in self.names:
            self.nodes[name].disk = 0.1
            self.restart(name, self.nodes[name].life)

    # ---- invariants (numbers: spec/raft.md §7) -----------------------------------------------------------------------

    def check_message(self, node: Node, m: Message) -> None:
        kind = m.kind
        if kind == PREVOTE or kind == PREVOTE_REPLY:
            return
        hard = node.durable_hard
        if hard.term < m.term:
            raise Violation(f"7: {node.name} sends {m} before term {m.term} is on its disk ({hard.term})")
        if kind == ACK:
            if m.index > node.log.durable:
                raise Violation(f"7: {node.name} acks {m.index}, its platter ends at {node.log.durable}")
        elif kind == VOTE or (kind == VOTE_REPLY and m.flags):
            choice = node.name if kind == VOTE else m.peer
            if hard.term == m.term and hard.vote != choice:
                raise Violation(f"7: {node.name} sends {m}, its disk holds a vote for {hard.vote!r}")
            if self.voted.setdefault((node.name, m.term), choice) != choice:
                raise Violation(f"8: {node.name} votes twice in term {m.term}")

    def check_entries(self, node: Node, lo: int) -> None:
        log, entries = node.log, self.entries
        terms, data = log.terms, log.data
        for index in range(lo, len(terms)):
            found = (data[index], terms[index - 1])
            if entries.setdefault((index, terms[index]), found) != found:
                raise Violation(f"2: {node.name} holds another record at {index} of term {terms[index]}")

    def check_truncate(self, node: Node, last: int) -> None:
        log = node.log
        if last < node.applied:
            raise Violation(f"10: {node.name} cuts to {last} below its commit")
        for index in range(last + 1, min(log.last + 1, len(self.ghost_terms))):
            if log.terms[index] == self.ghost_terms[index]:
                raise Violation(f"10: {node.name} cuts the committed record {index}")

    def check_leader(self, node: Node) -> None:
        core = node.core
        assert core is not None
        known = self.leaders.get(core.term)
        if known is None:
            self.leaders[core.term] = node.name
            size = len(self.ghost_terms)
            self.note(f"{node.name} leads term {core.term}")
            if node.log.terms[:size] != self.ghost_terms:
                raise Violation(f"3: the leader {node.name} of term {core.term} lacks committed records")
        elif known != node.name:
            raise Violation(f"1: {known} and {node.name} both lead term {core.term}")

    def check_change(self, node: Node, new: Members) -> None:
        core = node.core
        assert core is not None
        if core.members.index > core.commit and new.voters != core.members.outgoing:
            raise Violation("11: a second change while one is open")
        if may_be_disjoint(core.members, new):
            raise Violation(f"11: {core.members} and {new} have quorums without a common member")

    def committed(self, node: Node, commit: int) -> None:
        log, ghost = node.log, self.ghost_terms
        if commit > log.last:
            raise Violation(f"4: {node.name} commits {commit} beyond its log")
        core = node.core
        assert core is not None
        leads = self.leaders.get(core.term) == node.name  # also the one that has just committed its own removal
        lo = node.applied + 1
        if commit < lo - 1:
            raise Violation(f"9: commit of {node.name} goes back to {commit}")
        for index in range(lo, commit + 1):
            term, data = log.terms[index], log.data[index]
            if index < len(ghost):
                if ghost[index] != term or self.ghost_data[index] != data:
                    raise Violation(f"4: {node.name} commits another record at {index}")
                continue
            if not leads:
                raise Violation(f"4: {node.name} commits {index} before any leader did")
            ghost.append(term)
            self.ghost_data.append(data)
            if isinstance(data, Members):
                self.committed_members = data
        if leads and commit >= lo and log.terms[commit] != core.term:
            raise Violation(f"3: {node.name} counts copies of {commit} of term {log.terms[commit]} in {core.term}")
        node.applied = max(node.applied, commit)
        if leads and self.waiting:
            self.acknowledge(node, commit)

    def check_quorum(self, node: Node, index: int) -> None:
        core = node.core
        assert core is not None
        members = core.members
        for voters, quorum in quorums(members):
            holders = 0
            for name in voters:
                log = self.nodes[name].log
                if log.durable >= index and log.terms[index] == node.log.terms[index]:
                    holders += 1
            if holders < quorum:
                raise Violation(f"6: {index} is committed with {holders} copies on disks of {voters}, {quorum} needed")

    def acknowledge(self, node: Node, commit: int) -> None:
        core = node.core
        assert core is not None
        for key in [k for k, w in self.waiting.items() if w[0] == node.name]:
            _, index, term, highest, _ = self.waiting[key]
            if term != core.term:
                del self.waiting[key]  # outcome unknown to the client
            elif index <= commit:
                del self.waiting[key]
                if index <= highest:
                    raise Violation(f"15: {key} was acked at {index}, {highest} was acked before it was sent")
                self.acked[key] = index
                self.highest_ack = max(self.highest_ack, index)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def agreed(self) -> bool:
        leaders = [c for n in self.names if (c := self.nodes[n].core) is not None and c.led]
        if not leaders:
            return False
        leader = max(leaders, key=lambda c: c.term)
        if leader.members.outgoing:
            return False
        for name in leader.members.everybody:
            core = self.nodes[name].core
            if core is None or core.commit != leader.last or core.last != leader.last:
                return False
        return True

    def final(self) -> None:
        place: dict[Any, int] = {}
        for index, data in enumerate(self.ghost_data):
            if isinstance(data, str) and data != NOOP_DATA:
                if data in place:
                    raise Violation(f"20: {data} is committed twice")
                place[data] = index
        for key, index in self.acked.items():
            if place.get(key) != index:
                raise Violation(f"6: {key} was acked at {index} and is at {place.get(key)}")

    def summary(self) -> str:
        out = []
        for name in self.names:
            c = self.nodes[name].core
            out.append(
                f"{name} down" if c is None else
                f"{name} {c.role.name} t{c.term} last {c.last}/{c.commit} {c.members}"
            )  # fmt: skip
        return "; ".join(out)


def members_at(log: Any, index: int) -> Members | None:
    """The configuration that a log holds at `index`, if any."""
    found = log.data[index]
    return replace(found, index=index) if isinstance(found, Members) else None


def quorums(members: Members) -> list[tuple[tuple[str, ...], int]]:
    """(voters, how many of them must agree) of each part of a configuration. Kept apart from the core's arithmetic."""
    out = [(members.voters, max(len(members.voters), members.expected) // 2 + 1)]
    if members.outgoing:
        out.append((members.outgoing, max(len(members.outgoing), members.outgoing_expected) // 2 + 1))
    return out


def may_be_disjoint(a: Members, b: Members) -> bool:
    """Whether a quorum of `a` and one of `b` can be without a common member: by trying all of them."""
    names = sorted({*a.voters, *a.outgoing, *b.voters, *b.outgoing})
    for mask in range(1 << len(names)):
        side = {n for i, n in enumerate(names) if mask >> i & 1}
        if all(len(side & set(v)) >= q for v, q in quorums(a)):
            rest = set(names) - side
            if all(len(rest & set(v)) >= q for v, q in quorums(b)):
                return True
    return False


def run_seed(seed: int, **options: Any) -> Simulator:
    """Runs one seed to its end. Raises Violation; InvariantBroken of the core is one too."""
    sim = Simulator(seed, **options)
    try:
        sim.run()
    except InvariantBroken as err:
        raise Violation(f"10: {err}") from err
    return sim
