"""A cluster of Raft cores in one process, in virtual time, with a hostile network and hostile disks.

One seed gives one history. After every event the invariants of spec/raft.md §7 are checked against a global view: the
ghost list of commits, each replica's platter (what its disk would hold after a power cut), and who voted for whom.
One unit of virtual time is a millisecond. Here: events, servers, the driver over the model, the network; `checks` what
must hold, `troubles` what goes wrong, `model` the parts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jscore_server.jetstream.repair import Repair
from jscore_server.raft.core import (
    JOINING,
    MEMBERS,
    Core,
    HardState,
    InvariantBroken,
    Members,
    Role,
    Timing,
    recover_members,
)
from jscore_server.raft.messages import Message

from .checks import Checks
from .machine import Digest
from .model import GROUP, NOOP_DATA, STEPS_MS, Bugs, ModelLog, Node, Violation, copy_hard, members_at
from .snapshots import LOOK_MS
from .troubles import Troubles

LIVENESS_MS = 200
SILENCE_MS = 500
HINTED_MS = 200  # with datagrams beside the links (RaftHost.hinted)

__all__ = ["Checks", "ModelLog", "Node", "Simulator", "Violation", "run_seed"]


class Simulator(Troubles):
    """One run. `core_class` and `bugs` let a test plant a bug. `calm`: nothing goes wrong but what a script does."""

    def __init__(
        self,
        seed: int,
        *,
        core_class: type[Core] = Core,
        bugs: Bugs | None = None,
        trace: bool = False,
        make_log: Callable[[str], Any] = lambda name: ModelLog(),
        duration: int | None = None,
        calm: bool = False,
        size: int = 0,
        timing: Timing | None = None,
        repair_class: type[Repair] = Repair,
        trim_at: int | None = None,
        machine: type[Digest] | None = None,
    ) -> None:
        super().__init__(seed, make_log, duration, calm=calm, size=size)
        self.timing = timing or self.timing
        self.core_class = core_class
        self.repair_class = repair_class
        self.trim_at = self.trim_at if trim_at is None else trim_at
        if machine is not None:
            self.machine = machine
            self.ghost = machine()
            self.ghost_prints = [self.ghost.print()]
        self.stopped_peers: set[tuple[str, str]] = set()  # (a, b): a calls b silent, which is stopped
        self.silence_ms = HINTED_MS if seed % 4 == 3 else SILENCE_MS
        self.slept: set[int] = set()  # terms in which the group slept
        self.bugs = bugs or Bugs()
        self.trace = [] if trace else None
        for name in self.names:
            self.start(name)
        self.at(LIVENESS_MS, self.prove_liveness)
        if self.trim_at:
            self.at(LOOK_MS, self.look)

    def at(self, delay: int, act: Any, *args: Any) -> None:
        self.order += 1
        heapq.heappush(self.queue, (self.now + delay, self.order, act, args))

    def run(self) -> None:
        """Faults for `duration`, then peace until the cluster agrees. Raises Violation."""
        self.at(50, self.client)
        self.at(60, self.reader)
        self.at(100, self.trouble)
        self.loop(self.duration)
        self.settle()

    def settle(self) -> None:
        """Peace, until the cluster agrees and takes a publish. Raises Violation."""
        self.heal()
        deadline = self.now + 15_000
        while self.now < deadline:
            self.loop(self.now + 500)
            self.count_again()
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

    def start(self, name: str) -> None:
        node = self.nodes[name]
        hard = copy_hard(node.durable_hard)
        if self.bugs.forget_vote:
            hard.vote = ""
        log = node.log
        node.machine = self.machine()
        node.writing = b""
        floor, base = self.restore(node)
        if floor < 0:
            node.broken = node.fails = False
            self.begin_repair(node, 0, own=False)
            return
        if self.bugs.forget_members:
            hard.members[:] = [self.birth]
        else:
            recover_members(hard, log.last, lambda i: members_at(log, i), log.first, base)
        node.lost_ms = 0.0
        node.broken = node.fails = False
        node.known[name] = node.directory
        node.present = {other for other in self.names if other != name}
        node.heard = dict.fromkeys(node.present, self.now)
        core = self.core_class(
            GROUP, name, log, hard, self.rng, self.timing,
            commit=max(floor, log.known_commit), first=log.first,
            now=node.ticks(self.now), known=node.known, met=node.met, present=node.present,
        )  # fmt: skip
        core.take_term()
        core.clock_ms = int(self.now * node.rate)
        node.core = core
        node.syncing = node.hard_sync = False
        node.applied = floor
        self.apply_known(node, core.commit)
        node.wake = 0
        self.note(f"{name} starts t{core.term} last {log.last} {core.members}")
        self.arm(node)

    def crash(self, name: str) -> None:
        node = self.nodes[name]
        if node.core is None and node.repair is None:
            return
        rng = self.rng
        self.end_process(node)
        unsynced = node.log.last - node.log.durable
        node.log.crash(rng.randint(0, unsynced) if unsynced and rng.random() < 0.7 else 0)
        keep = rng.randint(0, len(node.pending_hard))
        if keep:
            node.durable_hard = node.pending_hard[keep - 1][1]
        node.pending_hard.clear()
        self.note(f"{name} crashes, its log ends at {node.log.last}")
        self.forget_clients(name)

    def end_process(self, node: Node) -> None:
        if node.repair is not None:
            node.repair.cancel()
            node.repair = None
        node.core = None
        node.life += 1
        node.held.clear()
        node.backlog.clear()
        node.paused = 0
        node.writing = b""

    def forget_clients(self, name: str) -> None:
        """Who waited for `name` learns nothing any more."""
        for key in [k for k, w in self.waiting.items() if w[0] == name]:
            del self.waiting[key]
        for number in [k for k, w in self.reading.items() if w[0] == name]:
            del self.reading[number]

    def enter(self, node: Node) -> Core | None:
        """The node's core, told what time it is there; None while it is down."""
        core = node.core
        if core is not None:
            core.now = node.ticks(self.now)
            core.clock_ms = int(self.now * node.rate)
        return core

    def stopped(self, node: Node, act: Any, *args: Any) -> bool:
        """Whether the node's process is stopped: then the event waits in its sockets."""
        if node.paused:
            node.backlog.append((act, args))
        return bool(node.paused)

    def link(self, a: str, b: str, up: bool, whole: bool = False) -> None:
        """`a` is told of its link to `b`; `whole`: it was silent, and nothing that was sent over it is lost."""
        if self.stopped(self.nodes[a], self.link, a, b, up, whole):
            return
        core = self.enter(self.nodes[a])
        if core is not None:
            if up:
                self.nodes[a].present.add(b)
                (core.peer_back if whole else core.peer_up)(b)
            else:
                self.nodes[a].present.discard(b)
                core.peer_down(b)
            self.drain(self.nodes[a])

    def prove_liveness(self) -> None:
        """What hosts do for all their groups: silence is told, and its end."""
        self.at(LIVENESS_MS, self.prove_liveness)
        for a in self.names:
            node = self.nodes[a]
            if node.core is None or node.paused:
                continue
            for b in self.names:
                other = self.nodes[b]
                if a == b:
                    continue
                lives = other.core is not None or other.repair is not None
                if lives and not other.paused and (b, a) not in self.blocked:
                    node.heard[b] = self.now
                    if b not in node.present:
                        self.link(a, b, True, (a, b) in self.stopped_peers and not self.loss)
                    self.stopped_peers.discard((a, b))
                elif b in node.present and self.now - node.heard.get(b, 0) >= self.silence_ms:
                    if lives and other.paused:
                        self.stopped_peers.add((a, b))
                    self.link(a, b, False)
                elif (b, a) in self.blocked or not lives:
                    self.stopped_peers.discard((a, b))
            if node.core.role is Role.LEADER and node.core.quiet and node.core._all_asleep():
                self.slept.add(node.core.term)

    def arm(self, node: Node) -> None:
        core = node.core
        if core is None:
            return
        when = max(node.when(core.deadline), self.now + 1)
        if not node.wake or when < node.wake:
            node.wake = when
            self.at(when - self.now, self.on_tick, node, node.life, when)

    def on_tick(self, node: Node, life: int, when: int) -> None:
        core = node.core
        if core is None or node.life != life or node.wake != when:
            return
        if self.stopped(node, self.on_tick, node, life, when):
            return
        node.wake = 0
        self.enter(node)
        if core.now >= core.deadline:
            core.tick()
            core.tell_commit()
            self.drain(node)
        else:
            self.arm(node)

    def drain(self, node: Node) -> None:
        core = node.core
        if core is None:
            return
        out = core.out
        log = node.log
        again = True
        while again:
            again = False
            if out.role:
                self.tell_loss(node)
            if out.truncate >= 0:
                last, out.truncate = out.truncate, -1
                self.check_truncate(node, last)
                log.truncate(last)
            if out.append is not None:
                self.store(node)
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
                    if core.role is Role.LEADER and (node.full or node.broken):
                        core.resign()
                    elif core.role is Role.LEADER:
                        self.lead_append(node, members if what == MEMBERS else NOOP_DATA)
                again = True
            if out.sends:
                self.send_records(node)
            if out.commit:
                commit, out.commit = out.commit, 0
                self.committed(node, commit)
                again = True
            if out.reads:
                self.answer_reads(node)
            if out.role:
                roles, out.role = out.role, []
                for role, term in roles:
                    self.tell_role(node, role, term)
                again = True
            if out.needs_snapshot:
                names = out.needs_snapshot[:]
                out.needs_snapshot.clear()
                if core.name in names:
                    self.begin_repair(node, core.needs - 1, own=True)
                    return
        if core.role is Role.LEADER:
            self.check_leader(node)
        if not node.wake or node.when(core.deadline) < node.wake:
            self.arm(node)

    def tell_loss(self, node: Node) -> None:
        """As Group does it: that leadership was lost is told before the log changes or more is applied."""
        assert node.core is not None
        roles = node.core.out.role
        lost = max((i for i, (role, _) in enumerate(roles) if role is Role.FOLLOWER), default=-1)
        if lost >= 0:
            term = roles[lost][1]
            del roles[: lost + 1]
            self.tell_role(node, Role.FOLLOWER, term)

    def tell_role(self, node: Node, role: Role, term: int) -> None:
        """For streams: it leads from now on, or no more."""

    def store(self, node: Node) -> None:
        """A follower's records go into its log, or do not."""
        core = node.core
        assert core is not None
        out, log = core.out, node.log
        (terms, data), out.append = out.append, None  # type: ignore[misc]
        lo = out.append_from
        assert lo == log.last + 1
        if node.full or node.broken:
            core.append_failed(log.last, lo)
            return
        log.extend(terms, data)
        self.check_entries(node, lo)
        for offset, item in enumerate(data):
            if isinstance(item, Members):
                core.members_seen(replace(item, index=lo + offset))
        self.sync_log(node)

    def send_records(self, node: Node) -> None:
        core = node.core
        assert core is not None
        sends, core.out.sends = core.out.sends, []
        for p in sends:
            p.queued = False
            while (span := core.next_send(p)) is not None:
                lo, hi, prev_term = span
                hi = min(hi, lo + self.cap - 1)
                terms, data = node.log.slice(lo, hi)
                self.post(node.name, p.name, self.on_append, (core.term, lo - 1, prev_term, core.commit, terms, data))
                core.sent(p, hi)

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

    def pause(self, name: str, span: int) -> None:
        """SIGSTOP: what comes waits, time goes on outside."""
        node = self.nodes[name]
        if node.core is not None and not node.paused:
            node.paused = self.now + span
            self.note(f"{name} stops for {span} ms")
            self.at(span, self.resume, name, node.life, self.now)

    def resume(self, name: str, life: int, since: int) -> None:
        """SIGCONT: its sockets are full, and no order among them is sure."""
        node = self.nodes[name]
        if not node.paused or node.life != life:
            return
        node.paused = 0
        node.heard = dict.fromkeys(node.heard, self.now)  # its own pause is no silence of others
        node.lost_ms += max(0.0, (self.now - since) * node.rate - STEPS_MS)
        self.note(f"{name} goes on")
        backlog, node.backlog = node.backlog, []
        self.rng.shuffle(backlog)
        for act, args in backlog:
            act(*args)
        node.wake = 0
        self.arm(node)

    def remember(self, node: Node) -> ModelLog:
        """A disk is about to lose something: what was acked before counts as that log had it."""
        held, former = node.log, ModelLog()
        former.terms, former.data, former.durable = list(held.terms), list(held.data), held.durable
        former.first = held.first
        node.former = former
        return former

    def lose(self, name: str, *, keep: int = 0) -> None:
        """The disk's content is gone, or all of the log behind `keep` records. Found out at the restart."""
        node = self.nodes[name]
        self.crash(name)
        node.wipes += 1
        former = self.remember(node)
        if keep:
            node.log.truncate(keep)
            if not self.bugs.cut_damage:
                node.durable_hard.mute, node.durable_hard.mute_term = JOINING, -1
            self.note(f"{name}: record {keep + 1} of {former.last} is damaged")
            return
        node.log = self.make_log(name)
        node.directory = f"{name}.{node.wipes}"
        node.known = {other.name: other.directory for other in self.nodes.values()}  # whom it meets now it meets first
        for other in self.nodes.values():
            other.met[name] = node.directory
            if other.core is not None and not self.bugs.trust_wiped:
                other.core.forget(name)
        node.durable_hard = HardState(0, "", [self.birth], [], mute=-1 if self.bugs.trust_wiped else JOINING)
        self.note(f"{name}: the disk is empty")

    def sync_log(self, node: Node) -> None:
        if not node.syncing:
            node.syncing = True
            delay = 1 + int(self.rng.random() * self.disk_delay * node.disk)
            self.at(delay, self.log_synced, node, node.life, node.log.last)

    def log_synced(self, node: Node, life: int, upto: int) -> None:
        core = node.core
        if core is None or node.life != life or node.broken:
            return
        if self.stopped(node, self.log_synced, node, life, upto):
            return
        node.syncing = False
        if node.fails:
            node.broken = True
            self.note(f"{node.name}'s log fails")
            self.enter(node)
            core.disk_failed()
            self.drain(node)
            return
        log = node.log
        # A truncation in between was synced by itself, and what replaced the cut records belongs to the next sync.
        if self.bugs.lose_synced and self.rng.random() < 0.1:
            self.enter(node)
            core.durable(min(upto, log.last))
        else:
            log.sync(min(upto, log.last))
            self.enter(node)
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
        if self.stopped(node, self.hard_synced, node, life, seq):
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
        self.enter(node)
        core.hard_state_durable(seq)
        self.drain(node)
        self.sync_hard(node)

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
                self.at(delay + int(random_() * self.delay * 4), self.arrive, act, source, target,
                        self.nodes[target].wipes, args)  # fmt: skip
        else:
            delay = 1
        self.at(delay, self.arrive, act, source, target, self.nodes[target].wipes, args)

    def arrive(self, act: Any, source: str, target: str, wipes: int, args: tuple[Any, ...]) -> None:
        """What was sent before a disk was replaced went over a link that is gone."""
        node = self.nodes[target]
        if node.wipes == wipes and (source, target) not in self.blocked:
            if not self.stopped(node, self.arrive, act, source, target, wipes, args):
                act(source, target, *args)

    def on_message(self, source: str, target: str, m: Message) -> None:
        node = self.nodes[target]
        core = self.enter(node)
        if core is None:
            return
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
        core = self.enter(node)
        if core is None:
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
        if core.step_append(source, term, prev, prev_term, commit, runs, (terms, data)):
            skip = core.out.append_from - (prev + 1)
            core.out.append = (terms[skip:], data[skip:])
        self.drain(node)


def run_seed(seed: int, **options: Any) -> Simulator:
    """Runs one seed to its end. Raises Violation; InvariantBroken of the core is one too."""
    sim = Simulator(seed, **options)
    try:
        sim.run()
    except InvariantBroken as err:
        raise Violation(f"10: {err}") from err
    return sim
