"""The simulator over real streams: what is applied is csrc/stream, driven by production's Asset, on the real engine.

A stream's log is its Raft log, its messages live in it, and what is beside it is the stream's own snapshot. Clients
publish, delete, purge, pull and acknowledge at whoever leads; the stream itself frames the records, those of consumers
too. Every replica is compared after each commit with Rules, which are told the same history and know nothing of C.

A leader's turn, in which it delivers, runs with the syncs of its log and now and then: what it appends there is on its
disk at once, though Raft hears of it later.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from typing import Any

from jscore_server.jetstream.asset import ConsumerCreateRecord
from jscore_server.jetstream.meta import Assignment
from jscore_server.raft.core import Role

import jscore

from .engine import EngineSimulator, Platter
from .model import GIVES_MS, Node, Violation
from .replica import ACCOUNT, EPOCH_NS, STREAM, Replica, StreamLog
from .rules import Rules, Said
from .snapshots import LOOK_MS

TURN_MS = 150
MS = 1_000_000
SUBJECTS = "s.0", "s.1", "s.2", "t.0"
POLICIES = "all", "new", "last", "by_start_sequence", "last_per_subject", "all", "new", "last_per_subject"
HELD = 40  # deliveries that clients may still acknowledge


class StreamSimulator(EngineSimulator):
    """`replica_class` lets a test plant a bug. `limits`: the configuration at first, else it is drawn."""

    def __init__(
        self,
        seed: int,
        *,
        replica_class: type[Replica] = Replica,
        limits: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.replica_class = replica_class
        made = config(zlib.crc32(b"%d" % seed), first=True) if limits is None else {**config(0), **limits}
        self.assigned = Assignment(
            account=ACCOUNT, name=STREAM, group="g", peers=["n0", "n1", "n2"], created_ns=1, version=1,
            config=made,
        )  # fmt: skip
        self.keys: dict[str, tuple[str, int]] = {}  # inbox: (what was asked, of which consumer)
        self.held: list[tuple[str, str, int]] = []  # (where to acknowledge, consumer's name, sequence)
        self.settled: dict[tuple[int, int], int] = {}  # (consumer, sequence): where its acknowledgement is applied
        self.published: dict[str, int] = {}  # what clients were told of their messages
        self.told: dict[str, dict[str, Any]] = {}  # and what they were answered at all
        self.answers = self.deliveries = 0
        super().__init__(seed, machine=Rules, **options)  # type: ignore[arg-type]
        self.at(TURN_MS, self.turns)

    @property
    def rules(self) -> Rules:
        return self.ghost  # type: ignore[return-value]

    def make_engine_log(self, name: str) -> StreamLog:
        self.hosts += 1
        return StreamLog(name, Platter(self.seed * 16 + self.hosts), self.raw)

    def clocks(self, node: Node) -> tuple[int, int]:
        """(monotonic, unix) ns of a server: theirs are up to some seconds apart (K-62)."""
        skew = zlib.crc32(f"{node.name} {self.seed}".encode()) % 5000
        return (self.now + 1) * MS, EPOCH_NS + int((self.now * node.rate + skew) * MS)

    # ---- life of a replica ----

    def restore(self, node: Node) -> tuple[int, Any]:
        replica = self.replica_class(node, self.assigned, self.clocks(node), self.heard)
        node.machine = replica  # type: ignore[assignment]
        log, data = node.log, None
        with contextlib.suppress(jscore.NotFound, jscore.Corrupt):
            data = log.read_snapshot()
        why = replica.restore(data)
        if why and log.first > 1:
            self.end_replica(node)
            if not log.hurt:
                raise Violation(f"14: {node.name}'s log begins at {log.first}: {why}")
            return -1, None
        if why or data is None:
            return 0, None
        base = replica.asset._base
        assert base is not None
        index = jscore.snapshot_head(data).index
        self.check_snapshot(node, index, base)
        return index, base

    def end_replica(self, node: Node) -> None:
        if isinstance(node.machine, Replica):
            node.machine.close()
            node.machine = Rules()  # type: ignore[assignment]

    def end_process(self, node: Node) -> None:
        self.end_replica(node)
        super().end_process(node)

    def stand_aside(self, node: Node) -> None:
        self.end_replica(node)
        super().stand_aside(node)

    def close(self) -> None:
        for node in self.nodes.values():
            self.end_replica(node)
        super().close()

    # ---- leading ----

    def tell_role(self, node: Node, role: Role, term: int) -> None:
        replica = self.replica(node)
        replica.plane.tell_time(*self.clocks(node))
        if role is Role.LEADER or replica.asset.leading:
            replica.asset._on_role(role, term)
            self.adopt(node)

    def replica(self, node: Node) -> Replica:
        assert isinstance(node.machine, Replica), f"{node.name} is down"
        return node.machine

    def adopt(self, node: Node) -> int:
        """Raft hears of what the stream appended as leader. Returns the last of it, 0: nothing came."""
        core, log = node.core, node.log
        lo = log.last + 1
        if core is None or not log.adopt():  # type: ignore[attr-defined]
            return 0
        self.check_entries(node, lo)
        if not core.led or log.terms[log.last] != core.term:
            raise Violation(f"1: {node.name} appends records of term {log.terms[log.last]} without leading it")
        core.appended(log.last)
        self.sync_log(node)
        return log.last

    def serves(self, node: Node) -> bool:
        core = node.core
        return (
            core is not None
            and core.led
            and not core.transferee
            and not (node.full or node.broken or node.paused)
            and self.replica(node).asset.ready
        )

    def turns(self) -> None:
        self.at(TURN_MS, self.turns)
        for node in self.nodes.values():
            self.turn(node)

    def turn(self, node: Node) -> None:
        """A turn of the plane's loop: timers, deliveries, records of what consumers did."""
        if not self.serves(node):
            return
        replica = self.replica(node)
        replica.plane.tell_time(*self.clocks(node))
        if self.faults and self.dice.random() < 0.05:
            replica.asset.stream.move(node.log.last, 300)
        replica.plane.flush()
        log: StreamLog = node.log  # type: ignore[assignment]
        if log.real.last > log.last:
            log.real.wait(log.real.last, 10)
        self.dispatch(node)
        self.enter(node)
        self.adopt(node)
        self.drain(node)

    def log_synced(self, node: Node, life: int, upto: int) -> None:
        if node.core is not None and node.life == life:
            self.turn(node)
        super().log_synced(node, life, upto)

    def committed(self, node: Node, commit: int) -> None:
        super().committed(node, commit)
        for (number, seq), index in self.settled.items():
            consumer = self.rules.consumers.get(number)
            if consumer is not None and any(p.seq == seq for p in consumer.pending()):
                raise Violation(f"6: {seq} is pending again, its acknowledgement was confirmed at {index}")
        self.adopt(node)
        self.dispatch(node)

    def dispatch(self, node: Node) -> None:
        while self.replica(node).plane.dispatch(lambda *event: None):
            pass

    # ---- snapshots ----

    def look_at(self, node: Node, worth: int) -> None:
        log, replica = node.log, self.replica(node)
        if self.now - node.given < GIVES_MS or node.applied - log.first + 1 < max(worth, 1) or replica.writing:
            return
        host = replica.asset.host_state()
        if host is None or node.applied < log.first:
            return
        self.note(f"{node.name} begins a snapshot of {node.applied}")
        replica.asset.stream.snapshot_begin(host)
        replica.snapping = replica.writing = True  # one at a time, as trim.py does it
        delay = 1 + int(self.dice.random() * 40)
        self.at(delay, self.snapshot_taken, node, node.life)

    def snapshot_taken(self, node: Node, life: int) -> None:
        if node.life != life or self.stopped(node, self.snapshot_taken, node, life):
            return
        found = self.replica(node).snapshot()
        if found is not None:
            self.write_when_durable(node, life, *found)
        else:
            self.replica(node).writing = False

    def write_when_durable(self, node: Node, life: int, data: bytes, index: int) -> None:
        """R-30: what it refers to is on the disk first."""
        if node.life != life or self.stopped(node, self.write_when_durable, node, life, data, index):
            return
        if node.log.durable < index:
            self.at(LOOK_MS, self.write_when_durable, node, life, data, index)
            return
        node.writing = data
        delay = 1 + int(self.dice.random() * self.disk_delay * node.disk)
        self.at(delay, self.snapshot_written, node, life, data)

    def snapshot_written(self, node: Node, life: int, data: bytes) -> None:
        super().snapshot_written(node, life, data)
        if node.life == life and not node.writing:
            self.replica(node).writing = False

    # ---- clients ----

    def propose_somewhere(self, tag: str = "p") -> str | None:
        leaders = [n for n in self.names if self.serves(self.nodes[n])]
        if not leaders:
            return None
        node = self.nodes[leaders[int(self.rng.random() * len(leaders))]]
        self.enter(node)
        key = None
        for _ in range(1 if tag == "probe" else self.rng.choice((1, 1, 5))):
            self.proposed += 1
            key = f"{tag}{self.proposed}"
            self.ask_for(node, key, 0 if tag == "probe" else zlib.crc32(f"{key} {self.seed}".encode()))
        self.drain(node)
        return key

    def ask_for(self, node: Node, key: str, drawn: int) -> None:
        """One request of a client, drawn from its name."""
        replica, core = self.replica(node), node.core
        assert core is not None
        replica.plane.tell_time(*self.clocks(node))
        stream, kind, rest = replica.asset.stream, drawn & 31, drawn >> 5
        inbox = f"_INBOX.{key}"
        if kind < 13:
            self.publish(node, key, rest)
        elif kind < 15:
            stream.delete(1 + rest % (self.rules.last + 2), inbox)
        elif kind == 15:
            seq, keep = ((0, 0), (0, 0), (0, 2), (1 + (rest >> 8) % (self.rules.last + 4), 0))[rest >> 4 & 3]
            stream.purge(("", "s.1", "s.*", ">")[rest & 3], seq, keep, inbox)
        elif kind == 16:
            self.reconfigure(rest)
        elif kind < 20:
            self.change_consumer(node, rest)
        elif kind < 25:
            batch = b'{"batch":%d,"expires":%d}' % (1 + (rest & 3), 700 * MS)
            replica.plane.publish(
                ACCOUNT, f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.c{rest >> 2 & 3}", batch, reply=f"{inbox}.m"
            )
        else:
            self.acknowledge_some(node, key, rest)
        index = self.adopt(node)
        if index:
            self.waiting[key] = (node.name, index, core.term, self.floor, self.now)

    def publish(self, node: Node, key: str, drawn: int, subject: str = "", headers: bytes = b"") -> None:
        lines = headers
        if not headers and drawn & 3 == 1:
            lines = b"Nats-Msg-Id: id%d\r\n" % (drawn >> 2 & 15)
        elif not headers and drawn & 15 == 2:
            lines = self.condition(drawn >> 14, subject or SUBJECTS[drawn >> 12 & 3])
        data = key.encode() + b"." * (drawn >> 7 & 31)
        self.replica(node).plane.publish(
            ACCOUNT, subject or SUBJECTS[drawn >> 12 & 3], data, reply=f"_INBOX.{key}",
            headers=b"NATS/1.0\r\n" + lines + b"\r\n" if lines else b"",
        )  # fmt: skip

    def condition(self, drawn: int, subject: str) -> bytes:
        """What a client wants to be so when its message is stored, or wants to go."""
        rules = self.rules
        match drawn & 7:
            case 0 | 1:
                return b"Nats-Expected-Last-Sequence: %d\r\n" % rules.last
            case 2:
                return b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % max(rules.of(subject.encode()), default=0)
            case 3:
                return b"Nats-Expected-Last-Msg-Id: %s\r\nNats-Msg-Id: id%d\r\n" % (
                    rules.last_id or b"id1", drawn >> 3 & 15
                )  # fmt: skip
            case 4:
                return b"Nats-Rollup: all\r\n"
            case _:
                return b"Nats-Rollup: sub\r\n"

    def reconfigure(self, drawn: int, **changes: Any) -> None:
        """What the meta group would decide; servers hear of it one after the other."""
        old = self.assigned
        new = {**config(drawn), "retention": old.config["retention"], **changes}
        self.assigned = Assignment(
            account=old.account, name=old.name, group=old.group, peers=old.peers, created_ns=old.created_ns,
            version=old.version + 1, config=new,
        )  # fmt: skip
        for name in self.names:
            self.at(1 + int(self.dice.random() * 300), self.hear_of, self.nodes[name])

    def hear_of(self, node: Node) -> None:
        if node.core is None or self.stopped(node, self.hear_of, node):
            return
        replica = self.replica(node)
        if replica.asset.assignment.version >= self.assigned.version or (node.full or node.broken):
            return
        replica.plane.tell_time(*self.clocks(node))
        if replica.asset.leading and node.core.transferee:
            self.at(100, self.hear_of, node)
            return
        replica.reassign(self.assigned)
        self.enter(node)
        self.adopt(node)
        self.drain(node)

    def change_consumer(self, node: Node, drawn: int) -> None:
        asset = self.replica(node).asset
        name = f"c{drawn & 3}"
        present = asset.consumers.get(name)
        if present is not None and drawn & 28:
            return
        if present is not None:
            asset.delete_consumer(present, lambda lost: None)
            return
        made = {
            "durable_name": name, "deliver_policy": POLICIES[drawn >> 5 & 7], "opt_start_seq": 1 + (drawn >> 8 & 7),
            "ack_policy": ("explicit", "explicit", "all", "none")[drawn >> 10 & 3], "max_ack_pending": 8,
            "ack_wait": 300 * MS, "max_deliver": (-1, -1, 2, 3)[drawn >> 12 & 3],
            "filter_subject": ("", "", "s.*", "s.1")[drawn >> 14 & 3],
        }  # fmt: skip
        if made["deliver_policy"] == "last_per_subject":
            made["filter_subject"] = made["filter_subject"] or ">"
        if drawn >> 16 & 3 == 0:
            made["deliver_subject"] = f"_INBOX.push.{name}"  # everybody listens there
            made["max_deliver"] = max(made["max_deliver"], 2)  # or it would never fall silent
        asset.create_consumer(ConsumerCreateRecord(name, self.clocks(node)[1], made), lambda lost: None)

    def acknowledge_some(self, node: Node, key: str, drawn: int) -> None:
        if not self.held:
            return
        place, name, seq = self.held.pop(drawn % len(self.held))
        present = self.replica(node).asset.consumers.get(name)
        word = (b"+ACK", b"+ACK", b"+ACK", b"+TERM", b"-NAK", b"-NAK", b"+WPI", b"+ACK")[drawn >> 8 & 7]
        reply = ""
        if drawn >> 11 & 1 and present is not None:
            reply = f"_INBOX.{key}.a"
            if word in (b"+ACK", b"+TERM"):
                self.keys[reply] = str(seq), present.id
        if drawn >> 12 & 3 == 3 or word in (b"-NAK", b"+WPI"):
            self.held.append((place, name, seq))  # and once more later
        self.replica(node).plane.publish(ACCOUNT, place, word, reply=reply)

    def heard(self, node: Node, msg: Any) -> None:
        """A client gets something. Only notes it: whoever sent it is in the midst of its turn."""
        if msg.reply.startswith("$JS.ACK."):
            self.delivered(node, msg)
        elif msg.subject in self.keys:
            seq, number = self.keys.pop(msg.subject)
            self.settled[number, int(seq)] = self.replica(node).asset.stream.applied
            self.answers += 1
        elif msg.data:
            self.answered(msg.subject.removeprefix("_INBOX."), json.loads(msg.data))

    def answered(self, key: str, answer: dict[str, Any]) -> None:
        """An acknowledged message has that sequence for ever."""
        self.told[key] = answer
        if "error" in answer or "stream" not in answer:
            return
        self.published[key] = seq = answer["seq"]
        said = self.rules.stored.get(seq)
        if said is None:
            raise Violation(f"6: {key} was acknowledged as {seq}, which is not stored")
        if not answer.get("duplicate") and text(said) != key:
            raise Violation(f"6: {key} was acknowledged as {seq}, which is {text(said)}")

    def delivered(self, node: Node, msg: Any) -> None:
        _, _, _, name, count, seq, *_ = msg.reply.split(".")
        said = self.rules.stored.get(int(seq))
        if said is None or said.data != msg.data or said.subject.decode() != msg.subject:
            raise Violation(f"5: {node.name} delivers {seq} of {name} as {msg.data!r}, stored is {said}")
        present = self.replica(node).asset.consumers[name]
        applied = self.replica(node).asset.stream.applied
        if applied >= self.settled.get((present.id, int(seq)), 1 << 62):
            raise Violation(f"6: {node.name} delivers {seq} to {name} again, its acknowledgement was confirmed")
        self.deliveries += 1
        consumer = self.rules.consumers.get(present.id)
        if consumer is not None and applied == len(self.ghost_terms) - 1:
            had = [p.count for p in consumer.pending() if p.seq == int(seq)]
            if had and int(count) <= had[0]:
                raise Violation(f"5: {node.name} says delivery {count} of {seq} to {name}, it had {had[0]}")
        self.held.append((msg.reply, name, int(seq)))
        del self.held[:-HELD]

    # ---- the end ----

    def final(self) -> None:
        self.linearize()
        for key, seq in self.published.items():
            if text(self.rules.stored[seq]) != key and not self.rules.stored[seq].headers:
                raise Violation(f"6: {key} was acknowledged as {seq}, which is another")
        wanted = {
            seq: (m.said.subject.decode(), m.said.headers, m.said.data, m.said.ts)
            for seq, m in self.rules.messages.items()
        }
        last = len(self.ghost_terms) - 1
        for node in self.nodes.values():
            if node.core is not None and node.applied == last and self.replica(node).messages() != wanted:
                raise Violation(f"5: {node.name} has other messages at {last}")


def text(said: Said) -> str:
    return said.data.rstrip(b".").decode()


def config(drawn: int, *, first: bool = False) -> dict[str, Any]:
    """A stream's configuration as the meta group would have it."""
    made: dict[str, Any] = {
        "name": STREAM, "subjects": ["s.*", "t.>"], "max_msgs": (-1, 4, 12, 30)[drawn & 3],
        "max_bytes": (-1, -1, 400, 1200)[drawn >> 2 & 3], "max_msgs_per_subject": (-1, -1, 2, 5)[drawn >> 4 & 3],
        "discard": ("old", "old", "old", "new")[drawn >> 6 & 3], "max_msg_size": (-1, -1, -1, 45)[drawn >> 8 & 3],
        "duplicate_window": (0, 400 * MS, 2000 * MS, 120_000 * MS)[drawn >> 10 & 3],
        "max_age": (0, 0, 0, 1500 * MS)[drawn >> 12 & 3], "num_replicas": 3, "storage": "file",
        "retention": "limits",
    }  # fmt: skip
    made["allow_rollup_hdrs"] = drawn >> 17 & 3 != 0
    made["discard_new_per_subject"] = made["discard"] == "new" and bool(drawn >> 14 & 1)
    if first:
        made["retention"] = ("limits", "limits", "workqueue", "interest")[drawn >> 15 & 3]
    return made


def run_stream_seed(seed: int, **options: Any) -> StreamSimulator:
    """Runs one seed to its end. Raises Violation."""
    sim = StreamSimulator(seed, **options)
    try:
        sim.run()
    finally:
        sim.close()
    return sim
