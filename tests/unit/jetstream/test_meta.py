"""The meta state machine: entries in, effects out."""

from __future__ import annotations

import pytest
from jscore_server.jetstream.meta import (
    Assignment,
    Created,
    CreateStream,
    Deleted,
    DeleteStream,
    Entry,
    Existed,
    MetaError,
    MetaState,
    Missing,
    Updated,
    UpdateStream,
    encode_entry,
    settle,
)


def stream(name: str = "S", group: str = "g1", peers: tuple[str, ...] = tuple("abc"), **config: object) -> Assignment:
    return Assignment(
        account="$G", name=name, group=group, peers=list(peers), created_ns=1, config={"name": name, **config}
    )


def feed(state: MetaState, *entries: Entry) -> list[object]:
    out: list[object] = []
    for entry in entries:
        out += state.apply(state.applied + 1, encode_entry(entry))
    return out


def test_a_created_stream_is_known_with_its_version_and_load() -> None:
    state = MetaState()
    (effect,) = feed(state, CreateStream(stream(), "in.1"))
    assert isinstance(effect, Created)
    assert (effect.reply, effect.assignment.version) == ("in.1", 1)
    assert state.get("$G", "S") == effect.assignment
    assert [state.load(p) for p in "abcd"] == [1, 1, 1, 0]


def test_the_second_create_of_a_name_changes_nothing() -> None:
    state = MetaState()
    _, effect = feed(state, CreateStream(stream()), CreateStream(stream(group="g2", peers=("d",)), "in.2"))
    assert isinstance(effect, Existed)
    assert (effect.assignment.group, effect.wanted.group, effect.reply) == ("g1", "g2", "in.2")
    assert state.load("d") == 0


def test_an_update_raises_the_version_and_keeps_the_rest() -> None:
    state = MetaState()
    _, effect = feed(state, CreateStream(stream()), UpdateStream("$G", "S", "g1", {"name": "S", "max_msgs": 5}, "in"))
    assert isinstance(effect, Updated)
    assert (effect.assignment.version, effect.assignment.config["max_msgs"]) == (2, 5)
    assert effect.assignment.peers == ["a", "b", "c"]


def test_updates_and_deletes_never_hit_a_recreated_stream() -> None:
    state = MetaState()
    effects = feed(
        state,
        CreateStream(stream()),
        DeleteStream("$G", "S", "g1"),
        CreateStream(stream(group="g2")),
        DeleteStream("$G", "S", "g1", "in.1"),
        UpdateStream("$G", "S", "g1", {}, "in.2"),
    )
    assert isinstance(effects[1], Deleted)
    assert effects[3] == Missing("$G", "S", "in.1", update=False)
    assert effects[4] == Missing("$G", "S", "in.2", update=True)
    assert state.get("$G", "S") is not None
    assert state.load("a") == 1


def test_accounts_do_not_see_each_other() -> None:
    state = MetaState()
    feed(state, CreateStream(stream("B")), CreateStream(stream("A", group="g2")))
    assert [a.name for a in state.streams("$G")] == ["A", "B"]
    assert state.streams("OTHER") == []


def test_an_entry_is_applied_once() -> None:
    state = MetaState()
    data = encode_entry(CreateStream(stream()))
    assert len(state.apply(1, data)) == 1
    assert state.apply(1, data) == []
    assert state.load("a") == 1


def test_an_unknown_entry_stops_without_a_trace() -> None:
    state = MetaState()
    with pytest.raises(MetaError):
        state.apply(1, b'{"type":"something_newer"}')
    with pytest.raises(MetaError):
        state.apply(1, b"not json")
    assert state.applied == 0
    assert len(state) == 0


def test_all_servers_end_in_the_same_state_however_entries_are_batched() -> None:
    entries = [CreateStream(stream(n, group=n)) for n in "ABC"] + [DeleteStream("$G", "B", "B")]
    one, other = MetaState(), MetaState()
    feed(one, *entries)
    for entry in entries:
        feed(other, entry)
        other.skip(other.applied)
    assert one.streams() == other.streams()


def test_settle_leaves_out_streams_that_came_and_went() -> None:
    state = MetaState()
    effects = feed(
        state,
        CreateStream(stream(), "in.1"),
        UpdateStream("$G", "S", "g1", {"max_msgs": 5}),
        DeleteStream("$G", "S", "g1"),
        CreateStream(stream(group="g2")),
        UpdateStream("$G", "S", "g2", {"max_msgs": 6}),
    )
    created, updated = settle(effects)  # type: ignore[arg-type]
    assert isinstance(created, Created)
    assert created.assignment.config == {"max_msgs": 6}
    assert isinstance(updated, Updated)


def test_settle_keeps_the_end_of_a_stream_that_was_there_before() -> None:
    state = MetaState()
    feed(state, CreateStream(stream()))
    effects = feed(state, DeleteStream("$G", "S", "g1"), CreateStream(stream(group="g2")))
    assert [type(e) for e in settle(effects)] == [Deleted, Created]  # type: ignore[arg-type]
