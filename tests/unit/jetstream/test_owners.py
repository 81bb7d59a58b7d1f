"""Who takes which subjects: the index finds what a look at all streams would."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jscore_server.jetstream import owners
from jscore_server.jetstream.meta import Assignment, CreateStream, DeleteStream, MetaState, UpdateStream, encode_entry
from jscore_server.jetstream.names import TooManySubjects, subjects_overlap
from jscore_server.jetstream.owners import SubjectOwners

token = st.sampled_from(["a", "b", "c", "*"])
subject = st.builds(
    lambda tokens, open_end: ".".join([*tokens, ">"] if open_end else tokens or ["a"]),
    st.lists(token, max_size=10),
    st.booleans(),
)
streams = st.dictionaries(st.sampled_from("PQRS"), st.lists(subject, min_size=1, max_size=3))


@given(streams, st.lists(st.sampled_from("PQRS"), max_size=2), subject)
def test_the_index_agrees_with_a_look_at_all(held: dict[str, list[str]], removed: list[str], asked: str) -> None:
    index = SubjectOwners()
    for name, subjects in held.items():
        for one in subjects:
            index.add(one, name)
    for name in removed:
        for one in held.pop(name, []):
            index.remove(one, name)
    takers = {name for name, subjects in held.items() if any(subjects_overlap(one, asked) for one in subjects)}
    for but in ("", "P"):
        found = index.find([asked], but)
        assert (found is None) == (not takers - {but})
        assert found is None or found in takers - {but}


@given(streams)
def test_nothing_stays_of_what_is_removed(held: dict[str, list[str]]) -> None:
    index = SubjectOwners()
    pairs = [(one, name) for name, subjects in held.items() for one in subjects]
    for one, name in pairs:
        index.add(one, name)
        index.remove(one, "another")
    random.Random(1).shuffle(pairs)
    for one, name in pairs:
        index.remove(one, name)
    assert index._root == {}


def test_a_request_that_compares_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "MAX_COMPARE_STEPS", 1000)
    index = SubjectOwners()
    for number in range(500):
        index.add(f"a.{number}.x", "S")
    assert index.find(["a.17.x"], "") == "S"
    with pytest.raises(TooManySubjects):
        index.find(["a.*.y", "a.*.z"], "")


def test_the_state_keeps_owners_reservations_and_groups_through_every_entry() -> None:
    state = MetaState()

    def feed(entry: object) -> None:
        state.apply(state.applied + 1, encode_entry(entry))  # type: ignore[arg-type]

    def create(name: str, group: str, subjects: list[str], max_bytes: int) -> None:
        config = {"name": name, "subjects": subjects, "max_bytes": max_bytes, "storage": "file"}
        wanted = Assignment(account="$G", name=name, group=group, peers=["a", "b"], created_ns=1, config=config)
        feed(CreateStream(wanted))

    create("S", "g1", ["s.>"], 100)
    assert state.taker("$G", ["s.1"], "T") == "S"
    assert state.taker("$G", ["s.1"], "S") is None
    create("T", "g2", ["t.*"], -1)
    assert state.taker("$G", ["*.1"], "S") == "T"
    assert state.reserved("$G", "a", "file", "") == (200, 100)
    assert state.reserved("$G", "a", "file", "S") == (0, 0)
    assert state.reserved("$G", "c", "file", "") == (200, 0)
    assert state.reserved("$G", "a", "memory", "") == (0, 0)
    feed(UpdateStream("$G", "S", "g1", {"name": "S", "subjects": ["u"], "max_bytes": 7, "storage": "file"}, "", ["c"]))
    assert state.taker("$G", ["s.1"], "") is None
    assert state.taker("$G", ["u"], "") == "S"
    assert state.reserved("$G", "c", "file", "") == (7, 7)
    assert state.reserved_on("a", "file") == 0
    assert (state.has_group("g1"), set(state.names("$G"))) == (True, {"S", "T"})
    feed(DeleteStream("$G", "S", "g1"))
    assert state.taker("$G", [">"], "T") is None
    assert (state.has_group("g1"), state.reserved("$G", "c", "file", "")) == (False, (0, 0))
