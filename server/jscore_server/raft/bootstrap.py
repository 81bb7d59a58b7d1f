"""The birth of the meta group: who creates it, once, and who joins. Pure.

A group is born by one durable record (spec/raft.md R-1). Afterwards nothing is inferred from who is connected: a server
that has such a record keeps it, but for one case: a group that never elected a leader gives way to one that did.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Birth:
    """The durable record: the group's id, the voters it was born with, and the cluster size it was born for."""

    group: str
    voters: tuple[str, ...]
    expected: int


@dataclass(frozen=True, slots=True)
class Hello:
    """What a JetStream server says about itself when a link comes up."""

    name: str
    directory_id: str
    birth: Birth | None = None
    elected: bool = False  # its group has had a leader


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do yet; `reason` is for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Write `birth` durably, then create the group."""

    birth: Birth


@dataclass(frozen=True, slots=True)
class Adopt:
    """Write a peer's `birth` durably, then create the group.

    `replaces`: one of our own that never lived is given up. Only a server whose log of it is empty may do so: whoever
    holds records may be part of the quorum that committed them.
    """

    birth: Birth
    replaces: bool = False


def decide(own: Hello, expected: int, peers: list[Hello], new_id: str) -> Wait | Bootstrap | Adopt:
    """What `own` does about the meta group; `peers` are the linked JetStream servers.

    `new_id` is the id of a group born now, `expected` the number of JetStream servers configured: 1 standalone, at
    least 2 in a cluster.
    """
    live = [p.birth for p in peers if p.birth is not None and p.elected]
    if own.birth is not None:
        if not own.elected:
            if any(birth.group == own.birth.group for birth in live):
                return Wait("the meta group exists")
            alive = min(live, key=lambda b: (own.name not in b.voters, b.group), default=None)
            if alive is not None:
                return Adopt(alive, replaces=True)  # listed there or not: who is not is added by its leader
            unborn = [p.birth for p in peers if p.birth is not None and p.birth.group != own.birth.group]
            better = min((b for b in unborn if own.name in b.voters), key=lambda b: b.group, default=None)
            if better is not None and not live and better.group < own.birth.group:
                return Adopt(better, replaces=True)  # two births at once, neither lived: the lesser id stays
        return Wait("the meta group exists")
    births = live or [p.birth for p in peers if p.birth is not None]
    for birth in sorted(births, key=lambda b: b.group):
        if own.name in birth.voters:
            return Adopt(birth)
    if births:
        return Wait("a meta group exists and has to add this server")
    names = sorted({own.name, *(p.name for p in peers)})
    need = expected // 2 + 1
    if len(names) < need:
        return Wait(f"{len(names)} of {need} servers are linked")
    if names[0] != own.name:
        return Wait(f"{names[0]} creates the meta group")
    return Bootstrap(Birth(new_id, tuple(names), max(expected, len(names))))
