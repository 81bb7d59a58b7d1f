"""Plays numbers to a pair of servers and says which sessions differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .outcome import Outcome, canonical, parts, same
from .player import PREFIXES, Player
from .streams import Session, Step, generate

TRIES = 8
CUTS = 400
STRAY_CR = re.compile(rb"\r(?!\n)")
"""A CR inside a line: the peer's answer depends on how it was cut by its own buffer, whose size it chooses."""
A_PEERS_VERB = re.compile(rb"(?i)HMSG[ \t][^\n]*\n\r\n")
"""From a client, and nothing behind it: the peer does not look at the line and takes it for a message, of nothing to
nobody. Anything else behind it is refused by both."""
SHOWN_BYTES = 1500


def excused(sent: bytes) -> bool:
    """Whether nobody can rely on what the peer makes of it."""
    return bool(STRAY_CR.search(sent) or A_PEERS_VERB.search(sent))


def shown(data: object) -> str:
    text = repr(data)
    return text if len(text) <= SHOWN_BYTES else f"{text[:SHOWN_BYTES]}... ({len(text)})"


@dataclass
class Difference:
    """A session that differs every time."""

    session: Session
    ours: Outcome
    theirs: Outcome

    def __str__(self) -> str:
        lines = [f"session {self.session.number}"]
        for step in self.session.steps:
            lines.append(f"  {step.conn} {'last ' if step.last else ''}sends {shown(b''.join(step.pieces))}")
        for name, outcome in (("ours", self.ours), ("peer", self.theirs)):
            for conn, got in enumerate(outcome.got):
                state = (" left open" if outcome.left_open[conn] else "") + (" GIVEN UP" if outcome.late else "")
                lines.append(f"  {name} {conn}{state}: {shown(b' | '.join(parts(got)[1:]))}")
        return "\n".join(lines)


class Judge:
    def __init__(self, addresses: Sequence[tuple[str, int]], seed: int = 0, at_once: int = 40) -> None:
        self.addresses = list(addresses)
        self.seed = seed
        self.at_once = at_once
        self.played = self.streams = self.again = self.excused = 0

    def session(self, number: int, prefix: bytes) -> Session:
        return generate(number, prefix, self.seed)

    def differences(self, numbers: Iterator[int]) -> Iterator[Difference]:
        """Those of the numbers whose two outcomes differ; each is played again by itself before it is believed."""
        player = Player(self.addresses, self.at_once)
        suspects = []
        try:
            for session, ours, theirs in player.play(self.session, numbers):
                self.played += 1
                self.streams += len(session.steps)
                if not same(ours, theirs):
                    suspects.append(session.number)
        finally:
            player.close()
        for number in suspects:
            self.again += 1
            found = self.alone(self.session(number, PREFIXES[0]))
            if found is not None and any(excused(b"".join(step.pieces)) for step in found.session.steps):
                self.excused += 1
            elif found is not None:
                yield found

    def alone(self, session: Session, patience_s: float = 10, tries: int = TRIES) -> Difference | None:
        """Where the server may choose, a few rounds meet the other's choice; where it may not, none does.

        The peer's answer may depend on how the bytes were cut; ours then is its answer to the uncut ones.
        """
        seen: tuple[set[object], set[object]] = (set(), set())
        whole = replace(session, steps=[replace(step, pieces=[b"".join(step.pieces)]) for step in session.steps])
        for i in range(tries):
            player = Player(self.addresses, 1, patience_s)
            try:
                ((_, ours, theirs),) = player.play(lambda *_, i=i: whole if i & 1 else session, iter((session.number,)))
            finally:
                player.close()
            seen[0].add(canonical(ours))
            seen[1].add(canonical(theirs))
            if ours.late and theirs.late:
                return None
            if seen[0] & seen[1]:
                return None
        return Difference(session, ours, theirs)

    def cut_down(self, found: Difference) -> Difference:
        """A shorter session that differs as well: pieces joined, lines and at last bytes left out."""
        whole = [replace(step, pieces=[b"".join(step.pieces)]) for step in found.session.steps]
        best = self.alone(replace(found.session, steps=whole)) or found
        budget = CUTS
        for words in (lines, halves, single_bytes):
            changed = True
            while changed and budget > 0:
                changed = False
                for steps in words(best.session.steps):
                    budget -= 1
                    if budget <= 0:
                        break
                    shorter = self.alone(replace(best.session, steps=steps), patience_s=0.5, tries=3)
                    if shorter is not None and not shorter.ours.late and not shorter.theirs.late:
                        best, changed = shorter, True
                        break
        return best


def without(steps: list[Step], at: int, words: list[bytes], lo: int, hi: int) -> list[Step]:
    """Steps but for words [lo, hi) of one."""
    data = b"".join(words[:lo] + words[hi:])
    out = list(steps)
    out[at] = replace(steps[at], pieces=[data])
    return out


def lines(steps: list[Step]) -> Iterator[list[Step]]:
    for at in reversed(range(len(steps))):
        words = b"".join(steps[at].pieces).splitlines(keepends=True)
        if not steps[at].last:
            words, end = words[:-1], words[-1:]
        else:
            end = []
        for lo in range(len(words)):
            if b"PING" not in words[lo].upper() or steps[at].last:
                yield without(steps, at, words + end, lo, lo + 1)


def halves(steps: list[Step]) -> Iterator[list[Step]]:
    for at in reversed(range(len(steps))):
        data = b"".join(steps[at].pieces)
        if not steps[at].last:
            continue
        size = len(data) // 2
        while size > 1:
            for lo in range(0, len(data), size):
                yield without(steps, at, [data[:lo], data[lo : lo + size], data[lo + size :]], 1, 2)
            size //= 2


def single_bytes(steps: list[Step]) -> Iterator[list[Step]]:
    for at in reversed(range(len(steps))):
        data = b"".join(steps[at].pieces)
        if steps[at].last:
            for lo in range(len(data)):
                yield without(steps, at, [data[:lo], data[lo : lo + 1], data[lo + 1 :]], 1, 2)
