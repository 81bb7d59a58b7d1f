"""Configurations of a group, and what a replica must remember. Pure. Source: spec/raft.md R-2, R-21 to R-28."""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

JOINING = 1 << 62  # HardState.mute of a replica that came later, or lost its state, and has not heard of its leader yet
MAX_REMOVED = 64  # names of former members that a configuration keeps


@dataclass(frozen=True, slots=True)
class Members:
    """One configuration: effective from the moment its record at `index` is in the log (R-21).

    With `outgoing` it is a joint one: whatever is decided needs a quorum of `voters` and one of `outgoing` (R-22).
    """

    index: int
    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()
    expected: int = 0  # the size the group was born for: quorums are never smaller than its majority
    outgoing: tuple[str, ...] = ()
    outgoing_expected: int = 0
    removed: tuple[str, ...] = ()  # former members, the latest last
    ids: tuple[tuple[str, str], ...] = ()  # (member, directory id) as far as known: another directory does not count

    @property
    def quorum(self) -> int:
        """Voters that must agree."""
        return max(len(self.voters), self.expected) // 2 + 1

    @property
    def outgoing_quorum(self) -> int:
        """Outgoing voters that must agree as well, in a joint configuration."""
        return max(len(self.outgoing), self.outgoing_expected) // 2 + 1

    def is_voter(self, name: str) -> bool:
        """Whether `name` counts in some quorum."""
        return name in self.voters or name in self.outgoing

    @property
    def all_voters(self) -> tuple[str, ...]:
        """Everybody who counts in some quorum."""
        return tuple(dict.fromkeys(self.voters + self.outgoing)) if self.outgoing else self.voters

    @property
    def everybody(self) -> tuple[str, ...]:
        """Voters, outgoing voters and learners, each once."""
        return tuple(dict.fromkeys(self.voters + self.outgoing + self.learners))

    def agree(self, names: Container[str]) -> bool:
        """Whether `names` hold a quorum of each active configuration."""
        if sum(1 for name in self.voters if name in names) < self.quorum:
            return False
        return not self.outgoing or sum(1 for name in self.outgoing if name in names) >= self.outgoing_quorum

    def directory_id(self, name: str) -> str:
        """The directory id under which `name` is a member; "" when it was not known."""
        for member, directory_id in self.ids:
            if member == name:
                return directory_id
        return ""


class NewerVersion(ValueError):
    """A record of a version that this server does not know: going on without it would make it differ from others."""


def members_to_json(members: Members, version: int = 1) -> bytes:
    """The body of a MEMBERS record. What a plain configuration does not need is left out; so is version 1."""
    body: dict[str, Any] = {
        "voters": list(members.voters),
        "learners": list(members.learners),
        "expected": members.expected,
    }
    if version > 1:
        body["version"] = version
    if members.outgoing:
        body |= {"outgoing": list(members.outgoing), "outgoing_expected": members.outgoing_expected}
    if members.removed:
        body["removed"] = list(members.removed)
    if members.ids:
        body["ids"] = dict(members.ids)
    return json.dumps(body, sort_keys=True).encode()


def members_from_json(index: int, data: bytes, newest: int = 1) -> Members:
    """The configuration in a MEMBERS record's body; versions up to `newest` are known. Raises ValueError."""
    try:
        body = json.loads(data)
        version = body.get("version", 1)
        if not isinstance(version, int) or version > newest:
            raise NewerVersion(f"record {index} is a configuration of version {version!r}, known is {newest}")
        voters, learners = tuple(body["voters"]), tuple(body["learners"])
        outgoing, removed = tuple(body.get("outgoing", ())), tuple(body.get("removed", ()))
        ids = tuple(sorted(body.get("ids", {}).items()))
        numbers = body["expected"], body.get("outgoing_expected", 0)
    except (AttributeError, KeyError, TypeError, RecursionError) as err:
        raise ValueError(f"record {index} is no configuration: {err}") from None
    names = voters + learners + outgoing + removed + tuple(text for pair in ids for text in pair)
    if not voters or not all(isinstance(n, str) for n in names) or not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"record {index} is no configuration")
    return Members(index, voters, learners, numbers[0], outgoing, numbers[1], removed, ids)


@dataclass(slots=True)
class HardState:
    """What a replica must remember (R-9, R-21): written as one record, so never half."""

    term: int
    vote: str
    members: list[Members]  # oldest first; the last one is in force
    members_indexes: list[int]  # every MEMBERS record known to be in the log
    scanned: int = 0  # members_indexes is complete up to this index
    # >= 0: this replica lost its vote or acked records (spec/raft.md §5). It receives, but neither votes nor counts
    # until it is added anew, or holds a record of the term of a leader that was elected and commits without it
    # (FLAG_WITHOUT), in a term above mute_term (-1: any).
    # It begins as JOINING, as a replica that was added later does: only a record that comes behind what was committed
    # when it first heard of its leader makes it a voter. An older one was about a former self, which is gone.
    mute: int = -1
    mute_term: int = -1
    known: int = 0  # the log was synced up to here: a second witness beside the log itself


def recover_members(
    hard: HardState, last: int, read: Callable[[int], Members | None], first: int = 1, base: Members | None = None
) -> None:
    """Brings `hard` in line with a log that ends at `last`: `read(index)` is the configuration held there, if any.

    Only what was committed when `hard` was written is taken from it; the log itself says the rest (R-21). It begins at
    `first`; `base` is the configuration of a snapshot, for what came before.
    """
    known = min(hard.scanned, last)
    hard.members[:] = [c for c in hard.members if c.index <= known] or hard.members[:1]
    hard.members_indexes[:] = [i for i in hard.members_indexes if i <= known]
    if base is not None and base.index > hard.members[-1].index:
        hard.members.append(base)
    for index in range(max(known + 1, first), last + 1):
        found = read(index)
        if found is not None:
            hard.members_indexes.append(index)
            if index > hard.members[-1].index:
                hard.members.append(found)
