"""Which groups of a host may ask for votes now. Pure.

After a start of the whole cluster, or the death of a host, thousands of groups miss a leader at the same moment. If all
asked at once, their messages would queue for longer than an election waits, everybody would ask again, and nobody would
ever be done. So no more than a few are under way at a time on each host, and the others stand in line: first those
that this host is the natural leader of, as it led them last or as chance has it among those who are left, so that hosts
do not work on the same groups. A group that has no quorum here takes nobody's place: its election cannot end.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING
from zlib import crc32

from .state import FOLLOWER, LEADER

if TYPE_CHECKING:
    from .group import Group

AT_ONCE = 96


class Candidates:
    """The elections that the groups of one host have under way, and those that wait."""

    def __init__(self, name: str, present: AbstractSet[str], patience_ticks: int, at_once: int = AT_ONCE) -> None:
        """`present`: the servers that can be reached. One that takes longer than `patience_ticks` makes room."""
        self._name = name
        self._present = present
        self._patience = patience_ticks
        self._at_once = at_once
        self._asking: dict[Group, int] = {}  # since which tick
        self._first: dict[Group, None] = {}
        self._later: dict[Group, None] = {}

    def admits(self, group: Group, ticks: int) -> bool:
        """Whether a group whose deadline has come may act. If not, `next` gives it when it may."""
        if group.core.role is LEADER or group in self._asking:
            return True
        if group in self._first or group in self._later:
            return False
        if not group.core.members.agree(self._present | {self._name}):
            return True
        if len(self._asking) < self._at_once and not self._first and not self._later:
            self._asking[group] = ticks
            return True
        (self._first if self._is_natural(group) else self._later)[group] = None
        return False

    def next(self, ticks: int) -> list[Group]:
        """The groups whose turn has come, if they still miss a leader. Called every tick."""
        if not self._asking and not self._first and not self._later:
            return []
        for group, since in list(self._asking.items()):
            core = group.core
            if core.role is FOLLOWER or core.led or group.stopped or ticks - since >= self._patience:
                del self._asking[group]
        turn: list[Group] = []
        for line in (self._first, self._later):
            while line and len(self._asking) < self._at_once:
                group = next(iter(line))
                del line[group]
                if group.core.deadline <= ticks and not group.stopped:
                    self._asking[group] = ticks
                    turn.append(group)
        return turn

    @property
    def busy(self) -> bool:
        """Whether any election is under way or waits: `next` has to be called."""
        return bool(self._asking or self._first or self._later)

    @property
    def crowded(self) -> bool:
        """Whether some have to wait: what can be done later should be."""
        return bool(self._first or self._later)

    def forget(self, group: Group) -> None:
        """It is gone."""
        for known in (self._asking, self._first, self._later):
            known.pop(group, None)  # type: ignore[attr-defined]

    def _is_natural(self, group: Group) -> bool:
        core, name = group.core, self._name
        if core.vote == name:
            return True
        if core.vote in self._present:
            return False
        left = [n for n in core.members.voters if n == name or n in self._present]
        return bool(left) and name == max(left, key=lambda n: crc32(f"{core.group}/{n}".encode()))
