"""What a log says about itself: plain tuples with names."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """What is kept; 0: no limit. `max_age` is in seconds and counts from the newest message's time."""

    max_messages: int = 0
    max_bytes: int = 0
    max_per_subject: int = 0
    max_age: float = 0.0


class Recovery(NamedTuple):
    """What opening found: bytes cut from a torn tail (never acknowledged), the first damaged record index (0: none), a
    sentence when torn or damaged, which caches had to be made anew, and whether messages that limits or purges with
    `keep` took are there again, as the checkpoint and its copy are lost."""

    torn_bytes: int
    damaged_index: int
    message: str
    sidecars_rebuilt: int
    checkpoint_rebuilt: bool
    deletions_unsure: bool = False


class Damage(NamedTuple):
    """Records `first` to `last` of a segment are lost to readers until repaired. `segment`: first index of the segment,
    its file's name; `offset`: byte in the file where it starts (0: not known). `first_seq` to `last_seq`: the sequences
    among them, None when there are none or they are not known; bounds unless `seqs_exact`."""

    segment: int
    offset: int
    first: int
    last: int
    first_seq: int | None
    last_seq: int | None
    seqs_exact: bool


class Finding(NamedTuple):
    """One thing that verify() found wrong: a file of the log, a byte in it, a sentence."""

    file: str
    offset: int
    what: str


class SubjectInfo(NamedTuple):
    """A subject with live messages: how many, and the sequences of the oldest and the newest."""

    subject: str
    count: int  # type: ignore[assignment]  # hides tuple.count, as at run time
    first: int
    last: int


class Stats(NamedTuple):
    """Where a log stands. Sequences are of messages, indexes of records; message_bytes of live messages' records,
    disk_bytes of all files; heap_bytes of indexes and caches, tail_heap the share of the open segment's
    tail_messages."""

    first_seq: int
    last_seq: int
    messages: int
    message_bytes: int
    segments: int
    disk_bytes: int
    first_index: int
    last_index: int
    durable_index: int
    durable_seq: int
    heap_bytes: int
    tail_messages: int
    tail_heap: int
    lost_records: int
    compactions: int
    compacted_bytes: int
    scrubbed_bytes: int
    scrub_rounds: int
    limits: Limits
