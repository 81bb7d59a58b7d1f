"""Compares what was acknowledged with what each replica holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.cluster.load import Journal

Stored = Sequence[tuple[int, str]]  # (sequence, payload) in the order read


@dataclass
class Verdict:
    """What one trial showed. `wrong` is empty when every promise was kept."""

    acked: int = 0
    lost: int = 0
    moved: int = 0
    doubled: int = 0
    differ: bool = False
    wrong: list[str] = field(default_factory=list)


def where(sequences: list[int], last: int) -> str:
    """Which part of the history is missing, as the beginning, the middle or the end."""
    ordered = sorted(sequences)
    if len(ordered) == ordered[-1]:
        return "the beginning"
    return "the end" if ordered[-1] >= last and len(ordered) == ordered[-1] - ordered[0] + 1 else "the middle"


def digest(stored: Stored) -> str:
    text = "\n".join(f"{sequence} {payload}" for sequence, payload in stored)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def judge(journal: Journal, replicas: Mapping[str, Stored], *, dense: bool = True) -> Verdict:
    """`dense`: nothing was deleted, so the sequences must be 1, 2, 3 ... on every replica."""
    verdict = Verdict(acked=len(journal.acked))
    wrong = verdict.wrong
    wrong += journal.doubled
    by_sequence: dict[int, str] = {}
    for text, sequence in journal.acked.items():
        if by_sequence.setdefault(sequence, text) != text:
            wrong.append(f"{text} and {by_sequence[sequence]} were both acknowledged at {sequence}")
    for name, stored in replicas.items():
        at: dict[str, list[int]] = {}
        for sequence, payload in stored:
            at.setdefault(payload.split(" ")[0], []).append(sequence)
        lost = [sequence for text, sequence in journal.acked.items() if text not in at]
        moved = [text for text, sequence in journal.acked.items() if text in at and sequence not in at[text]]
        doubled = [text for text, places in at.items() if len(places) > 1]
        unknown = [text for text in at if text not in journal.sent]
        if lost:
            part = where(lost, max(journal.acked.values()))
            wrong.append(f"{name}: {len(lost)} of {len(journal.acked)} lost, {part}: {min(lost)}..{max(lost)}")
        if moved:
            wrong.append(f"{name}: {len(moved)} under another sequence, {moved[0]} of {journal.acked[moved[0]]}")
        if doubled:
            wrong.append(f"{name}: {len(doubled)} stored more than once, {doubled[0]} at {at[doubled[0]]}")
        if unknown:
            wrong.append(f"{name}: {len(unknown)} that nobody sent, such as {unknown[0]!r}")
        sequences = [sequence for sequence, _ in stored]
        if dense and sequences != list(range(1, len(sequences) + 1)):
            hole = next((a for a, b in enumerate(sequences, 1) if a != b), 0)
            wrong.append(f"{name}: its sequences have a hole or an order of their own near {hole}")
        verdict.lost = max(verdict.lost, len(lost))
        verdict.moved = max(verdict.moved, len(moved))
        verdict.doubled = max(verdict.doubled, len(doubled))
    digests = {name: digest(stored) for name, stored in replicas.items()}
    if len(set(digests.values())) > 1:
        verdict.differ = True
        counts = {name: len(stored) for name, stored in replicas.items()}
        wrong.append(f"replicas differ: {digests}, messages {counts}")
    return verdict
