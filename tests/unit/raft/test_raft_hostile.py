"""Frames that no honest peer sends, or not now: cut at every byte, replayed, from strangers, of other groups and terms,
or with any byte changed by a peer that makes a good checksum over it. JSCORE_FUZZ_SECONDS: how long to go on, not 1 s.

What a member says of itself under a good checksum is believed, as Raft does; so for changed bytes the demand is that
nothing but ProtocolError comes of it, and that a replica stops rather than replaces what it knows to be committed. All
else has no effect: what was committed stays, nobody stops, and the group goes on.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from jscore_server.raft import FRAME_APPEND, FRAME_SMALL, ProtocolError
from jscore_server.raft.messages import MAX_TERM, Kind, Message, decode, encode, encode_head, group_bytes
from raft_fakes import Cluster, FakeCorrupt, Server

THREE = ["a", "b", "c"]
Frame = tuple[str, str, int, bytes]
SECONDS = float(os.environ.get("JSCORE_FUZZ_SECONDS", "1"))


class Heard(Cluster):
    """Keeps a copy of every frame that was under way."""

    def __init__(self, names: list[str]) -> None:
        self.heard: list[Frame] = []
        super().__init__(names)

    def settle(self) -> None:
        self.heard += self.frames
        super().settle()
        self.heard = self.heard[-2000:]


def lived(seed: int) -> Heard:
    """A cluster with some history: proposals, a transfer, a change of members, a restart."""
    c = Heard(THREE)
    for server in c.servers.values():
        server.create(THREE)
    c.run(2000)
    rng = random.Random(seed)
    for _ in range(20):
        c.leader().group.propose(10, rng.randbytes(rng.randrange(40)))
        c.settle()
    c.leader().group.transfer(next(n for n in THREE if n != c.leader().name))
    c.run(1000)
    victim = next(n for n in THREE if n != c.leader().name)
    c.kill(victim)
    c.leader().group.propose(10, b"without one")
    c.run(500)
    c.start(victim).create(THREE)
    c.run(2000)
    return c


def committed(server: Server) -> list[tuple[int, int, bytes]]:
    log = server.store.open("g")
    return [(r.kind, r.term, r.data) for r in log.records[: server.group.commit]]


def say(c: Heard, source: str, target: str, kind: int, body: bytes) -> bool:
    """Delivers a frame; False when it was refused."""
    try:
        c.servers[target].host.receive(source, kind, body)
    except ProtocolError:
        return False
    return True


def goes_on(c: Heard, before: dict[str, list[tuple[int, int, bytes]]]) -> None:
    c.run(3000)
    for name, server in c.servers.items():
        assert not server.group._failed, server.lines
        assert committed(server)[: len(before[name])] == before[name]
    leader = c.leader()
    index = leader.group.propose(10, b"after all")
    c.run(500)
    logs = [committed(server) for server in c.servers.values()]
    assert all(len(log) >= index for log in logs)
    assert logs[0] == logs[1] == logs[2]


def snapshot(c: Heard) -> dict[str, list[tuple[int, int, bytes]]]:
    return {name: committed(server) for name, server in c.servers.items()}


def test_frames_cut_at_every_byte_have_no_effect() -> None:
    c = lived(1)
    before = snapshot(c)
    rng = random.Random(2)
    appends = [f for f in c.heard if f[2] == FRAME_APPEND]
    small = [f for f in c.heard if f[2] == FRAME_SMALL and f[3]]
    refused = tried = 0
    for source, target, kind, body in rng.sample(appends, min(20, len(appends))) + rng.sample(
        small, min(60, len(small))
    ):
        for length in range(1, len(body)):
            tried += 1
            try:
                refused += not say(c, source, target, kind, body[:length])
            except FakeCorrupt:
                pytest.fail("an engine's error reached the link")
    assert refused > tried * 0.9, "only a cut between two messages or records leaves a proper frame"
    goes_on(c, before)


def test_frames_replayed_in_any_order_have_no_effect() -> None:
    c = lived(3)
    before = snapshot(c)
    frames = list(c.heard)
    random.Random(4).shuffle(frames)
    for source, target, kind, body in frames[:1000] * 2:
        assert say(c, source, target, kind, body)
    goes_on(c, before)


@pytest.mark.parametrize("stranger", ["d", "", "A", "a\x00"])
def test_strangers_have_no_effect(stranger: str) -> None:
    c = lived(5)
    before = snapshot(c)
    state = [(s.group.term, s.group.core.members, s.group.leader) for s in c.servers.values()]
    for _, target, kind, body in c.heard[:1000]:
        if kind == FRAME_SMALL:  # whoever leads may append: only an elected one does, so strangers' appends are rivals
            say(c, stranger, target, kind, body)
    for kind in Kind:
        if kind is not Kind.HEARTBEAT:
            message = Message(int(kind), "", "g", 1 << 20, 1 << 40, 1 << 20, 1 << 40, 1 << 40, 255)
            for target in THREE:
                say(c, stranger, target, FRAME_SMALL, encode(message, group_bytes("g")))
    assert [(s.group.core.members) for s in c.servers.values()] == [m for _, m, _ in state]
    goes_on(c, before)


def test_other_groups_and_older_terms_have_no_effect() -> None:
    c = lived(6)
    before = snapshot(c)
    leader = c.leader()
    other = next(n for n in THREE if n != leader.name)
    for kind in Kind:
        for group, term in (("h", 1 << 30), ("g" * 64, 1), ("g", 0), ("g", leader.group.term - 1)):
            index = 0 if kind is Kind.REMOVED else 1 << 40  # of a configuration, not of a term: none is that old
            hint = 0 if kind is Kind.PREVOTE_REPLY else 1 << 40  # the voter's own term, which is believed
            message = Message(int(kind), "", group, term, index, term, 1 << 40, hint, 0)
            for target in THREE:
                say(c, other, target, FRAME_SMALL, encode(message, group_bytes(group)))
    record = leader.store.open("g").raw(1)
    for group, term in (("h", MAX_TERM), ("g", leader.group.term - 1)):
        head = encode_head(group_bytes(group), term, 0, 0, 1 << 40, True)
        say(c, other, leader.name, FRAME_APPEND, head + record)
    assert leader.group.is_leader
    goes_on(c, before)


def test_changed_bytes_are_refused_or_understood_and_nothing_else() -> None:
    end = time.monotonic() + SECONDS
    seed = 100
    while True:
        seed += 1
        c = lived(seed)
        before = snapshot(c)
        rng = random.Random(seed)
        for source, target, kind, body in rng.sample(c.heard, min(300, len(c.heard))):
            changed = bytearray(body or b"\0")
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] = rng.choice((0, 1, 255, rng.randrange(256)))
            if rng.random() < 0.2:
                changed += rng.randbytes(rng.randrange(40))
            say(c, source, target, rng.choice((kind, kind, kind, FRAME_SMALL, FRAME_APPEND, 7)), bytes(changed))
            if rng.random() < 0.05:
                c.settle()
        c.frames.clear()
        for name, server in c.servers.items():
            assert committed(server)[: len(before[name])] == before[name], f"seed {seed}: {name}"
        if time.monotonic() >= end:
            return


def test_a_term_that_cannot_be_is_refused() -> None:
    """It was taken for one's own, and no message could be written any more."""
    message = Message(int(Kind.PREVOTE_REPLY), "", "g", 1, hint=MAX_TERM + 1)
    with pytest.raises(ProtocolError, match="term"):
        decode(encode(message, group_bytes("g")), "p")


def test_every_length_in_a_message_is_checked() -> None:
    message = encode(Message(int(Kind.ACK), "", "g", 1), group_bytes("g"))
    for size in range(256):
        broken = bytearray(message)
        broken[2] = size
        if size != 1:
            with pytest.raises(ProtocolError):
                decode(bytes(broken), "p")
