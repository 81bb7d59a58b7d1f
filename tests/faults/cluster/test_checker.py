"""The checker finds each kind of broken promise, and nothing where there is none."""

from __future__ import annotations

from tests.faults.cluster.checker import judge
from tests.faults.cluster.load import Journal

STORED = [(n, f"0.0.{n} ...") for n in range(1, 11)]


def journal() -> Journal:
    made = Journal()
    for n in range(1, 11):
        made.sent.add(f"0.0.{n}")
        made.acknowledge(f"0.0.{n}", n)
    return made


def test_a_kept_promise() -> None:
    verdict = judge(journal(), {"a": STORED, "b": list(STORED)})
    assert (verdict.wrong, verdict.lost, verdict.acked) == ([], 0, 10)


def test_lost_at_one_replica() -> None:
    verdict = judge(journal(), {"a": STORED, "b": STORED[:4] + STORED[6:]})
    assert verdict.lost == 2
    assert verdict.differ
    assert any("the middle: 5..6" in text for text in verdict.wrong)
    assert any("b: its sequences have a hole" in text for text in verdict.wrong)


def test_the_beginning_and_the_end_are_told_apart() -> None:
    assert "the beginning: 1..3" in judge(journal(), {"a": STORED[3:]}).wrong[0]
    assert "the end: 9..10" in judge(journal(), {"a": STORED[:8]}).wrong[0]


def test_moved_doubled_unknown() -> None:
    moved = [*STORED[:8], (9, "0.0.10 ..."), (10, "0.0.9 ...")]
    assert judge(journal(), {"a": moved}).moved == 2
    doubled = judge(journal(), {"a": [*STORED, (11, "0.0.3 ...")]})
    assert (doubled.doubled, doubled.moved, doubled.lost) == (1, 0, 0)
    assert "nobody sent" in judge(journal(), {"a": [*STORED, (11, "x ...")]}).wrong[0]


def test_acknowledgements_that_contradict_each_other() -> None:
    made = journal()
    made.acknowledge("0.0.1", 5)
    made.sent.add("0.0.11")
    made.acknowledge("0.0.11", 10)
    wrong = judge(made, {"a": STORED}).wrong
    assert any("acknowledged at 1 and at 5" in text for text in wrong)
    assert any("both acknowledged at 10" in text for text in wrong)


def test_gaps() -> None:
    made = Journal(times=[1.0, 1.1, 3.0, 3.2])
    assert made.gap(0.5, 4.0) == 3.0 - 1.1
    assert made.gap(3.0, 7.2) == 4.0
