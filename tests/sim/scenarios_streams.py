"""What is made of records: bugs of others between log, snapshot and state, by their numbers in spec/raft.md §6."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import pytest
from jscore_server.jetstream.asset import ConsumerCreateRecord
from jscore_server.raft.core import ChangeRefused, Members, NotLeader

from .model import GIVES_MS, Node, Violation
from .planted_streams import BeginsConsumersAnew, ForgetsTheWindow, RestartsWithTheNewestLimits, SkipsARecord
from .replica import ACCOUNT, STREAM, Replica
from .stage import Stage
from .streams import MS, StreamSimulator


class StreamStage(Stage, StreamSimulator):
    """A calm cluster of three with a stream. `skew`: how many ms a server's clock is ahead of time."""

    def __init__(self, skew: dict[str, int] | None = None, **options: Any) -> None:
        self.skew = skew or {}
        self.asked = 0
        super().__init__(3, **options)

    def clocks(self, node: Node) -> tuple[int, int]:
        mono, unix = super().clocks(node)
        return mono, unix + self.skew.get(node.name, 0) * MS

    def ready(self) -> Node:
        """Whoever leads and takes requests."""
        return self.nodes[
            str(self.until(lambda: next((n for n in self.names if self.serves(self.nodes[n])), ""), 5000))
        ]

    def request(self, ask: Callable[[Node, str], None]) -> dict[str, Any]:
        """Asks the leader; its answer when what was asked for is applied."""
        node = self.ready()
        self.asked += 1
        key = f"r{self.asked}"
        self.enter(node)
        self.replica(node).plane.tell_time(*self.clocks(node))
        ask(node, key)
        self.adopt(node)
        self.drain(node)
        self.until(lambda: key in self.told)
        return self.told[key]

    def say(self, subject: str = "s.1", msg_id: str = "") -> dict[str, Any]:
        """Publishes."""
        headers = f"Nats-Msg-Id: {msg_id}\r\n".encode() if msg_id else b""
        return self.request(lambda node, key: self.publish(node, key, 0, subject, headers))

    def purge(self, pattern: str) -> dict[str, Any]:
        return self.request(lambda node, key: self.replica(node).asset.stream.purge(pattern, 0, 0, f"_INBOX.{key}"))

    def delete(self, seq: int) -> dict[str, Any]:
        return self.request(lambda node, key: self.replica(node).asset.stream.delete(seq, f"_INBOX.{key}"))

    def make(self, name: str, **options: Any) -> int:
        """A consumer. Returns its id."""

        def ask(node: Node, key: str) -> None:
            made = {"durable_name": name, "ack_policy": "explicit", "ack_wait": 60_000 * MS, **options}
            record = ConsumerCreateRecord(name, self.clocks(node)[1], made)
            self.replica(node).asset.create_consumer(record, lambda lost: self.told.update({key: {}}))

        self.request(ask)
        return next(c.id for c in self.rules.consumers.values() if c.name == name)

    def unmake(self, name: str) -> None:
        def ask(node: Node, key: str) -> None:
            asset = self.replica(node).asset
            asset.delete_consumer(asset.consumers[name], lambda lost: self.told.update({key: {}}))

        self.request(ask)

    def pull(self, name: str, batch: int) -> list[tuple[str, str, int]]:
        """What is delivered, once that is committed."""
        node = self.ready()
        self.held.clear()
        self.replica(node).plane.tell_time(*self.clocks(node))
        body = b'{"batch":%d,"expires":%d}' % (batch, 400 * MS)
        self.replica(node).plane.publish(ACCOUNT, f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{name}", body, reply="_INBOX.m")
        self.go(800)
        return self.held[:]

    def confirm(self, held: tuple[str, str, int]) -> None:
        """Until it is confirmed."""
        place, name, seq = held
        node = self.ready()
        self.asked += 1
        reply = f"_INBOX.r{self.asked}.a"
        number = self.replica(node).asset.consumers[name].id
        self.keys[reply] = str(seq), number
        self.replica(node).plane.publish(ACCOUNT, place, b"+ACK", reply=reply)
        self.until(lambda: (number, seq) in self.settled)

    def hand_over(self, target: str) -> None:
        """Asks for it until it comes about: who has just caught up is not taken at once."""
        for _ in range(20):
            if self.ready().name == target:
                return
            self.count_again()
            with suppress(ChangeRefused, NotLeader):
                name = self.leader()
                self.core(name).transfer(target)
                self.drain(self.nodes[name])
            self.go(1000)
        raise Violation(f"23: {target} does not come to lead: {self.summary()}")

    def shorten(self, *names: str) -> None:
        self.retains = 0.0
        for name in names:
            node = self.nodes[name]
            self.until(lambda node=node: node.log.durable >= node.applied)
            node.given = self.now - GIVES_MS
            before = node.log.first
            self.look_at(node, 1)
            self.until(lambda node=node, before=before: node.log.first > before)

    def fill(self, count: int) -> None:
        """Messages, each in a file of its own: files are what a log lets go of."""
        for _ in range(count):
            self.say("t.0")
            for node in self.nodes.values():
                if node.core is not None:
                    node.log.roll()  # type: ignore[attr-defined]

    def bounded(self, **limits: Any) -> None:
        """Another configuration, and all have applied it."""
        self.reconfigure(0, **limits)
        self.until(lambda: self.rules.version == self.assigned.version)
        self.whole(*(n for n in self.birth.voters if self.nodes[n].core is not None))


def found_if(planted: bool, play: Callable[[], None], numbers: str) -> None:
    """Plays it; with a planted bug one of these invariants has to break."""
    if not planted:
        play()
        return
    with pytest.raises(Violation, match=numbers):
        play()


@pytest.mark.parametrize("planted", [False, True])
def k58_limits_fall_where_their_record_is(planted: bool) -> None:
    """Who starts again has heard of limits that come later in the log than what it has yet to apply."""
    replica = RestartsWithTheNewestLimits if planted else Replica

    def play() -> None:
        with closing(StreamStage(limits={"max_msgs": 6}, replica_class=replica)) as s:
            s.fill(9)
            away = s.others(s.ready().name)[0]
            s.whole(*s.birth.voters)
            s.shorten(away)
            s.crash(away)
            s.fill(2)
            s.bounded(max_msgs=2)
            s.fill(2)
            s.bounded(max_msgs=4)
            s.fill(1)
            assert len(s.rules.messages) == 3
            s.back(away)
            s.whole(away)
            s.settle()

    found_if(planted, play, r"^(5|13): ")


@pytest.mark.parametrize("planted", [False, True])
def k59_what_was_purged_stays_away(planted: bool) -> None:
    """For who was away, for who takes the state over, and for all after a power cut."""
    replica = SkipsARecord if planted else Replica

    def play() -> None:
        with closing(StreamStage(limits={"max_msgs": 12}, replica_class=replica)) as s:
            s.fill(20)
            seqs = [s.say("s.1")["seq"] for _ in range(3)]
            kept = s.say("s.2")["seq"]
            gone = s.say("s.2")["seq"]
            s.whole(*s.birth.voters)
            leader = s.ready().name
            one, other = s.others(leader)
            s.crash(one)
            if planted:  # a snapshot while the record that removes is in the log, and not yet applied
                s.look_at(s.nodes[other], 1)
            assert s.purge("s.1")["purged"] == 3
            assert s.delete(gone)["success"]
            s.whole(leader, other)
            s.go(300)
            s.fill(8)
            s.shorten(leader, other)
            s.back(one)
            s.whole(one)
            for name in s.birth.voters:
                s.crash(name)
            s.back(*s.birth.voters)
            s.whole(*s.birth.voters, ms=20_000)
            for name in s.birth.voters:
                assert not {*seqs, gone} & s.replica(s.nodes[name]).messages().keys()
                assert kept in s.replica(s.nodes[name]).messages()
            s.settle()

    found_if(planted, play, r"^(5|13): ")


def k60_a_consumer_made_again_under_its_name_begins_anew() -> None:
    """While a member was away; for streams a group's id is drawn anew: tests/unit/jetstream/test_meta.py."""
    with closing(StreamStage(limits={"max_msgs": 20})) as s:
        s.fill(6)
        old = s.make("c0")
        held = s.pull("c0", 4)
        assert [seq for _, _, seq in held] == [1, 2, 3, 4]
        s.confirm(held[0])
        leader = s.ready().name
        away = s.others(leader)[0]
        s.whole(*s.birth.voters)
        s.crash(away)
        s.unmake("c0")
        new = s.make("c0", filter_subject="s.*")
        assert new != old
        assert s.say("s.2")["seq"] == 7
        s.back(away)
        s.whole(away)
        state = s.replica(s.nodes[away]).asset.consumers["c0"].handle.state()
        assert (state.num_ack_pending, state.delivered_consumer, state.num_pending) == (0, 0, 1)
        s.hand_over(away)
        assert [seq for _, _, seq in s.pull("c0", 4)] == [7]
        s.settle()


@pytest.mark.parametrize("hours", [-1, 1])
def k62_a_servers_clock_decides_nothing_that_is_applied(hours: int) -> None:
    """Stamps rise along a log whatever the next leader's clock says, and the window goes by them."""
    with closing(StreamStage(limits={"duplicate_window": 30_000 * MS, "max_age": 600_000 * MS})) as s:
        leader = s.ready().name
        other, third = s.others(leader)
        s.skew = {other: hours * 3_600_000}
        assert s.say(msg_id="a") == {"stream": STREAM, "seq": 1}
        s.hand_over(other)
        again = s.say(msg_id="a")
        if hours < 0:
            assert again == {"stream": STREAM, "seq": 1, "duplicate": True}
        else:
            assert again["seq"] == 2
            s.until(lambda: 1 not in s.rules.messages)  # too old, by the leader's clock and a record
        s.hand_over(third)
        assert s.say(msg_id="a")["duplicate"]
        stamps = [r.ts for r in s.ghost_data if not isinstance(r, Members | str | None)]
        assert stamps == sorted(stamps)
        s.settle()


@pytest.mark.parametrize("planted", [False, True])
def k63_who_lost_its_snapshot_redelivers_nothing_that_was_acknowledged(planted: bool) -> None:
    replica = BeginsConsumersAnew if planted else Replica

    def play() -> None:
        with closing(StreamStage(limits={"max_msgs": 8}, replica_class=replica)) as s:
            s.fill(20)
            s.make("c0")
            held = s.pull("c0", 5)
            assert [seq for _, _, seq in held] == [13, 14, 15, 16, 17]
            for one in held[:2] + held[3:]:
                s.confirm(one)
            s.whole(*s.birth.voters)
            s.shorten(*s.birth.voters)
            away = s.others(s.ready().name)[0]
            s.crash(away)
            s.nodes[away].log.hurt_snapshot()
            s.back(away)
            s.whole(away)
            assert s.taken_over == 1
            s.hand_over(away)
            state = s.replica(s.nodes[away]).asset.consumers["c0"].handle.state()
            assert (state.num_ack_pending, state.ack_floor_stream, state.delivered_stream) == (1, 14, 17)
            assert [seq for _, _, seq in s.pull("c0", 5)] == [18, 19, 20]
            s.settle()

    found_if(planted, play, r"^(5|6|13): ")


@pytest.mark.parametrize("planted", [False, True])
def k64_every_replica_knows_the_same_message_ids(planted: bool) -> None:
    """Who kept its log, who started from its own snapshot, and who took another one's."""
    replica = ForgetsTheWindow if planted else Replica

    def play() -> None:
        with closing(StreamStage(limits={"max_msgs": 4, "duplicate_window": 60_000 * MS}, replica_class=replica)) as s:
            s.fill(3)
            leader = s.ready().name
            taker, starter = s.others(leader)
            s.whole(*s.birth.voters)
            s.crash(taker)
            s.fill(20)
            first = {i: s.say(msg_id=f"id{i}")["seq"] for i in range(6)}  # the limit takes the first of them
            s.whole(leader, starter)
            s.shorten(leader, starter)
            s.back(taker)
            s.whole(taker)
            assert s.taken_over == 1
            s.crash(starter)
            s.back(starter)
            s.whole(starter)
            for name in (taker, starter, leader):
                s.hand_over(name)
                for i, seq in first.items():
                    assert s.say(msg_id=f"id{i}") == {"stream": STREAM, "seq": seq, "duplicate": True}
            s.settle()

    found_if(planted, play, r"^(5|6|13): ")
