"""Bytes of messages: a round trip gives the same fields, hostile bytes give ProtocolError and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jscore_server.raft.messages import (
    MAX_TERM,
    Kind,
    Message,
    ProtocolError,
    decode,
    decode_head,
    encode,
    encode_head,
    group_bytes,
)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
groups = st.text(min_size=1, max_size=16)
messages = st.builds(
    Message,
    st.sampled_from([int(k) for k in Kind]), st.just("peer"), groups, u32, u64, u32, u64, u64, st.integers(0, 255),
).filter(lambda m: m.kind != Kind.PREVOTE_REPLY or m.hint <= MAX_TERM)  # fmt: skip


@given(st.lists(messages, max_size=5))
def test_messages_survive_the_wire(sent: list[Message]) -> None:
    body = b"".join(encode(m, group_bytes(m.group)) for m in sent)
    got = decode(body, "peer")
    assert [m.key() for m in got] == [m.key() for m in sent]
    assert all(m.peer == "peer" for m in got)


@given(groups, u32, u64, u32, u64, st.booleans(), st.binary(max_size=20))
def test_heads_survive_the_wire(
    group: str, term: int, prev: int, prev_term: int, commit: int, members: bool, rest: bytes
) -> None:
    head, at = decode_head(encode_head(group_bytes(group), term, prev, prev_term, commit, members) + rest)
    assert (head.group, head.term, head.prev_index, head.prev_term) == (group, term, prev, prev_term)
    assert (head.commit, head.members) == (commit, members)
    assert at == len(encode_head(group_bytes(group), term, prev, prev_term, commit, members))


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_only_protocol_errors(body: bytes) -> None:
    for read in (lambda b: decode(b, "p"), decode_head):
        try:
            read(body)
        except ProtocolError:
            pass


@given(messages, st.integers(1, 30))
def test_a_message_cut_short_is_refused(m: Message, cut: int) -> None:
    body = encode(m, group_bytes(m.group))
    with pytest.raises(ProtocolError):
        decode(body[: max(1, len(body) - cut)], "p")


@pytest.mark.parametrize("group", ["", "x" * 65])
def test_group_ids_have_1_to_64_bytes(group: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        group_bytes(group)
