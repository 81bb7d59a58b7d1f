"""Raft messages and their bytes. Pure: bytes in, values out; every length is checked before it is used.

Two kinds of frame, beside that of compare.py, travel on a link between two hosts (little endian):

FRAME_SMALL   any number of small messages of any groups, one after the other:
              u8 kind · u8 flags · u8 id length · u32 term · u32 log_term · u64 index · u64 commit · u64 hint · id
FRAME_APPEND  head (u8 flags · u8 id length · u32 term · u32 prev_term · u64 prev_index · u64 commit · id), then raw
              records as the log engine stores them, each with its own checksum.

A group id is 1 to 64 bytes of UTF-8. Terms fit 32 bits because a record's term does (csrc/log/jsc.h).
"""

from __future__ import annotations

import struct
from enum import IntEnum

FRAME_SMALL = 1
FRAME_APPEND = 2
FRAME_COMPARE = 3  # compare.py; from protocol 2 on

MAX_GROUP_ID = 64
MAX_TERM = 0xFFFFFFFF

_SMALL = struct.Struct("<BBBIIQQQ")
_HEAD = struct.Struct("<BBIIQQ")


class ProtocolError(Exception):
    """The peer sent bytes that are no message of ours; its link is to be closed."""


class Kind(IntEnum):
    """What a small message says; the comment names the fields that count beside `term`."""

    PREVOTE = 1  # term asked for (not adopted), index/log_term: end of the candidate's log
    PREVOTE_REPLY = 2  # term asked for, flag: granted, hint: the voter's own term
    VOTE = 3  # index/log_term: end of the candidate's log, flag: the old leader asked for this (transfer)
    VOTE_REPLY = 4  # flag: granted
    HEARTBEAT = 5  # commit, index/log_term: end of what the receiver acked, hint: number of the round
    ACK = 6  # index: synced and proven to match, hint: received and proven to match, commit: round answered (0: none)
    REJECT = 7  # index: the prev_index refused (0: only the term is wrong), hint: next index to try
    TIMEOUT_NOW = 8  # campaign at once (leadership transfer), commit: as the leader knows it
    SNAPSHOT_NEEDED = 9  # index: first index the leader still has
    REMOVED = 10  # the receiver is no member any more; index: of the configuration without it, which is committed


_KINDS = {int(k): k for k in Kind}
FLAG_TRUE = 1  # of a small message: granted, or a transfer; of an append: the records may hold a MEMBERS record
FLAG_MUTE = 2  # of an ACK: the sender has lost its vote and does not count
FLAG_MORE = 4  # of an ACK: the sender's log goes on behind what it has proven to match
FLAG_WHOLE = 4  # of a HEARTBEAT: every voter counts, answers and has caught up
FLAG_CURRENT = 8  # of a HEARTBEAT: the receiver counts and has caught up
FLAG_WITHOUT = 16  # of a HEARTBEAT: the receiver does not count, and nothing in this term rests on its vote or its acks

# Plain ints for the hot path: comparing IntEnum members costs an attribute walk each.
PREVOTE, PREVOTE_REPLY, VOTE, VOTE_REPLY, HEARTBEAT, ACK, REJECT, TIMEOUT_NOW, SNAPSHOT_NEEDED, REMOVED = map(int, Kind)


class Message:
    """One small message; `peer` is its receiver on the way out and its sender on the way in."""

    __slots__ = ("commit", "flags", "group", "hint", "index", "kind", "log_term", "peer", "term")

    def __init__(
        self,
        kind: int,
        peer: str,
        group: str,
        term: int,
        index: int = 0,
        log_term: int = 0,
        commit: int = 0,
        hint: int = 0,
        flags: int = 0,
    ) -> None:
        self.kind = kind
        self.peer = peer
        self.group = group
        self.term = term
        self.index = index
        self.log_term = log_term
        self.commit = commit
        self.hint = hint
        self.flags = flags

    def key(self) -> tuple[int, str, int, int, int, int, int, int]:
        """Every field that travels, for comparing and tracing."""
        return (self.kind, self.group, self.term, self.index, self.log_term, self.commit, self.hint, self.flags)

    def __repr__(self) -> str:
        name = _KINDS[self.kind].name if self.kind in _KINDS else str(self.kind)
        return (
            f"{name}({self.peer} {self.group} t{self.term} i{self.index} lt{self.log_term} "
            f"c{self.commit} h{self.hint} f{self.flags})"
        )


class AppendHead:
    """The head of an append frame: what the records follow, and the leader's commit index."""

    __slots__ = ("commit", "group", "members", "prev_index", "prev_term", "term")

    def __init__(self, group: str, term: int, prev_index: int, prev_term: int, commit: int, members: bool) -> None:
        self.group = group
        self.term = term
        self.prev_index = prev_index
        self.prev_term = prev_term
        self.commit = commit
        self.members = members


def group_bytes(group: str) -> bytes:
    """The id as it travels. Raises ValueError outside 1..64 bytes."""
    raw = group.encode()
    if not 1 <= len(raw) <= MAX_GROUP_ID:
        raise ValueError(f"a group id has 1 to {MAX_GROUP_ID} bytes: {group!r}")
    return raw


def encode(message: Message, group: bytes) -> bytes:
    """The bytes of one small message; `group` is group_bytes(message.group), which callers keep."""
    return (
        _SMALL.pack(
            message.kind,
            message.flags,
            len(group),
            message.term,
            message.log_term,
            message.index,
            message.commit,
            message.hint,
        )
        + group
    )


def decode(body: bytes, peer: str) -> list[Message]:
    """All messages of a FRAME_SMALL body, `peer` being the sender. Raises ProtocolError on any other bytes."""
    out: list[Message] = []
    at, end, head = 0, len(body), _SMALL.size
    unpack = _SMALL.unpack_from
    while at < end:
        if end - at < head:
            raise ProtocolError("a Raft message is cut short")
        kind, flags, size, term, log_term, index, commit, hint = unpack(body, at)
        at += head
        if kind not in _KINDS:
            raise ProtocolError(f"unknown kind {kind} of Raft message")
        if not 1 <= size <= MAX_GROUP_ID or size > end - at:
            raise ProtocolError("a Raft message has a group id of bad length")
        if kind == PREVOTE_REPLY and hint > MAX_TERM:
            raise ProtocolError("a Raft message names a term that cannot be")
        out.append(Message(kind, peer, _group(body[at : at + size]), term, index, log_term, commit, hint, flags))
        at += size
    return out


def encode_head(group: bytes, term: int, prev_index: int, prev_term: int, commit: int, members: bool) -> bytes:
    """The head of a FRAME_APPEND; raw records follow it."""
    return _HEAD.pack(FLAG_TRUE if members else 0, len(group), term, prev_term, prev_index, commit) + group


def decode_head(body: bytes) -> tuple[AppendHead, int]:
    """The head of a FRAME_APPEND body and the offset of its first record. Raises ProtocolError."""
    if len(body) < _HEAD.size:
        raise ProtocolError("an append is cut short")
    flags, size, term, prev_term, prev_index, commit = _HEAD.unpack_from(body)
    at = _HEAD.size
    if flags & ~FLAG_TRUE:
        raise ProtocolError("unknown flags of an append")
    if not 1 <= size <= MAX_GROUP_ID or size > len(body) - at:
        raise ProtocolError("an append has a group id of bad length")
    group = _group(body[at : at + size])
    return AppendHead(group, term, prev_index, prev_term, commit, bool(flags & FLAG_TRUE)), at + size


def _group(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a group id is not UTF-8") from None
