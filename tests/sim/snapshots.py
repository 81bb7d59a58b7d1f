"""Logs let go of their starts, and who needs what is gone takes the state over: as trim.py and heal.py drive it.

The rules of taking over are the server's own (jetstream/repair.py); here are its disk, its links and its clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from jscore_server.jetstream.repair import RECORDS, Question, Repair, give
from jscore_server.raft.core import Core, HardState, Members
from jscore_server.raft.members import members_from_json, members_to_json

import jscore

from .checks import Checks
from .model import GIVES_MS, GROUP, ModelLog, Node, Violation, copy_hard

LOOK_MS = 100
PIECE = 48


class Snapshots(Checks):
    """Snapshots, trimmed logs, replicas that begin anew."""

    repair_class: type[Repair] = Repair
    taken_over = 0  # how often a replica came back with what it took from others

    def look(self) -> None:
        """Each replica by itself sees to its log."""
        self.at(LOOK_MS, self.look)
        for name in self.names:
            node = self.nodes[name]
            if node.core is not None and not (node.paused or node.broken or node.full or node.writing):
                self.look_at(node, self.trim_at)

    def look_at(self, node: Node, worth: int) -> None:
        """Takes a snapshot if it lets go of `worth` records."""
        log = node.log
        if self.now - node.given < GIVES_MS or node.applied - log.first + 1 < max(worth, 1):
            return
        if log.durable < node.applied:
            return  # what it refers to is on the disk first
        data = self.take_snapshot(node)
        if data:
            node.writing = data
            if self.bugs.trim_early:
                self.trim(node, data)
            delay = 1 + int(self.dice.random() * self.disk_delay * node.disk)
            self.at(delay, self.snapshot_written, node, node.life, data)

    def take_snapshot(self, node: Node) -> bytes:
        """The state as of the last record applied; empty: not now."""
        core, log, index = node.core, node.log, node.applied
        assert core is not None
        known = [c for c in core.hard.members if c.index <= index]
        if not known:
            return b""
        first = max(log.first, index - self.dice.choice((0, 0, 3)))  # a stream's needs some records beside it
        body = {
            "state": node.machine.dump(),
            "members_index": known[-1].index,
            "members": members_to_json(known[-1]).decode(),
        }
        before, term = log.term(first - 1), log.term(index)
        if self.bugs.claim_more and log.last > index:
            index += 1
        self.note(f"{node.name} takes a snapshot of {index}")
        return jscore.snapshot_file(index, first, term, before, json.dumps(body).encode())

    def snapshot_written(self, node: Node, life: int, data: bytes) -> None:
        if node.life != life or self.stopped(node, self.snapshot_written, node, life, data):
            return
        node.writing = b""
        if not node.broken:
            node.log.write_snapshot(data)
            node.log.hurt = False
            self.trim(node, data)

    def trim(self, node: Node, data: bytes) -> None:
        core = node.core
        assert core is not None
        allowed = jscore.snapshot_head(data).first
        if self.dice.random() < self.retains:  # else there is more of it than is kept for who is behind
            allowed = min(allowed, core.needed_from(lambda name: name in node.present))
        if self.now - node.given < GIVES_MS:
            return
        node.log.trim(allowed)
        core.trimmed(node.log.first)
        self.note(f"{node.name}'s log begins at {node.log.first}")

    def restore(self, node: Node) -> tuple[int, Members | None]:
        """The state that the node's disk has: (record, configuration there); (-1, None): none, where there must be."""
        log = node.log
        try:
            data = log.read_snapshot()
            head = jscore.snapshot_head(data)
            if head.first < log.first or head.index > log.last or log.term(head.index) != head.term:
                raise jscore.NotFound
        except (jscore.NotFound, jscore.Corrupt):
            if log.first == 1:
                return 0, None
            if not log.hurt:
                raise Violation(f"14: {node.name}'s log begins at {log.first}, no snapshot fits it") from None
            return -1, None
        body = json.loads(data[64:])
        node.machine.load(head.index, body["state"])
        members = members_from_json(body["members_index"], body["members"].encode())
        self.check_snapshot(node, head.index, members)
        return head.index, None if self.bugs.forget_base else members

    # ---- who takes it over ----

    def begin_repair(self, node: Node, need: int, *, own: bool) -> None:
        """The replica stands aside until its log is made anew, of what reaches `need`."""
        node.taken += 1
        what = f"up to {need}" if need else "what its snapshot held"
        self.note(f"{node.name} has {node.log.first} to {node.log.last} and needs {what}")
        sure = max(node.applied, node.log.known_commit)
        if node.core is not None:
            self.stand_aside(node)
        number = node.life * 1000 + node.taken
        had = node.log.durable

        def done(repair: Repair) -> None:
            node.repair = None
            hard = node.durable_hard
            if repair.given_up:
                self.note(f"{node.name} goes on with {node.log.first} to {node.log.last}")
                self.start(node.name)
                return
            self.taken_over += 1
            if not repair.replaced and node.log.last < had and hard.members[-1].voters != (node.name,):
                hard.mute, hard.mute_term = max(hard.mute, had), -1
            self.note(
                f"{node.name}'s log is {node.log.first} to {node.log.last} now, {repair.fetched} came from others"
            )
            self.start(node.name)

        node.repair = self.repair_class(Ground(self, node), number, GROUP, node.log, done, sure, need, own)
        self.at(1, self.step_repair, node, node.repair)
        if self.faults and self.rates["crash"] and self.dice.random() < 0.3:
            self.at(1 + int(self.dice.random() * 300), self.crash_amid, node, node.repair)

    def crash_amid(self, node: Node, repair: Repair) -> None:
        """In the midst of it, either it or the leader goes."""
        if node.repair is repair and self.faults:
            led = [n for n in self.names if (c := self.nodes[n].core) is not None and c.led]
            name = self.dice.choice([node.name, *led])
            self.crash(name)
            self.at(1 + int(self.dice.random() * 500), self.restart, name, self.nodes[name].life)

    def step_repair(self, node: Node, repair: Repair) -> None:
        if node.repair is repair:
            repair.step()

    def stand_aside(self, node: Node) -> None:
        """The group's part here ends; what it promised stays remembered."""
        newest = node.pending_hard[-1][1] if node.pending_hard else copy_hard(node.durable_hard)
        self.keep_hard(node, newest)
        node.durable_hard = newest
        node.pending_hard.clear()
        node.core = None
        node.life += 1
        node.held.clear()
        node.writing = b""
        self.forget_clients(node.name)

    def keep_hard(self, node: Node, hard: HardState) -> None:
        """For the engine: the state goes to the disk."""

    def on_question(self, source: str, target: str, question: Question) -> None:
        node = self.nodes[target]
        answer: tuple[int, int, Any] = RECORDS, 0, b""
        if node.core is not None:
            node.given = self.now
            try:
                answer = give(Giver(node, node.core), question, PIECE)
            except jscore.Error:
                pass
        if self.trace is not None:
            self.note(f"{target} answers {source} {question} by {answer[:2]}")
        self.post(target, source, self.on_answer, (question.number, answer))

    def on_answer(self, source: str, target: str, number: int, answer: tuple[int, int, Any]) -> None:
        repair = self.nodes[target].repair
        if repair is not None and repair.number == number:
            repair.answered(*answer)


class Giver:
    """A replica that others ask: repair.Source."""

    def __init__(self, node: Node, core: Core) -> None:
        self.log = node.log
        self.first = node.log.first
        self.commit = core.commit

    def copy_committed(self, lo: int, hi: int) -> tuple[Any, int]:
        return self.log.copy(lo, min(hi, self.commit), 256)

    def snapshot(self, index: int) -> tuple[int, bytes]:
        data = self.log.read_snapshot()
        return jscore.snapshot_head(data).index, data


class Ground:
    """What surrounds a repair: repair.Ground."""

    def __init__(self, sim: Any, node: Node) -> None:
        self.sim = sim
        self.node = node
        self.life = node.life
        self.new: ModelLog | None = None
        self.scan = node.log.scan

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.sim.at(1 + int(seconds * 1000), self.call, call)

    def call(self, call: Callable[[], None]) -> None:
        if self.node.life == self.life and self.node.repair is not None:
            call()

    def peers(self) -> list[str]:
        return [name for name in self.sim.names if name != self.node.name]

    def ask(self, peer: str, question: Question) -> None:
        self.sim.post(self.node.name, peer, self.sim.on_question, (question,))

    def draft(self, first: int, before: int, snapshot: bytes) -> Any:
        self.drop()
        self.new = self.node.log.draft(first, before)
        if snapshot:
            self.new.write_snapshot(snapshot)
        return self.new

    def own_snapshot(self) -> bytes:
        return self.node.log.read_snapshot()

    def drop(self) -> None:
        if self.new is not None:
            self.new.drop()
            self.new = None

    def install(self) -> None:
        assert self.new is not None
        new, self.new = self.new, None
        new.settle(self.node.log)
        self.node.log = new
