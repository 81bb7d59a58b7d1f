"""What a leader knows of one follower. Pure."""

from __future__ import annotations


class Progress:
    """What the leader knows of one follower."""

    __slots__ = (
        "active", "asleep", "counted", "helped", "hint", "hint_tick", "inflight", "joins", "match", "name", "next",
        "paused", "probing", "queued", "round", "said", "sent_tick", "short", "told",
    )  # fmt: skip

    def __init__(self, name: str, next_index: int, now: int) -> None:
        self.name = name
        self.match = 0
        self.next = next_index
        self.probing = True
        self.paused = False  # probing: one is out; else: the link took nothing
        self.inflight: list[int] = []  # last index of each frame not yet acked
        self.active = now
        self.asleep = False  # it agreed to sleep, with all that is in the log
        self.said = -1  # flags of the last heartbeat to it, -1: they may be forgotten there
        self.sent_tick = now
        self.hint = 0
        self.hint_tick = now
        self.told = 0  # commit index it was told
        self.queued = False  # stands in out.sends
        self.short = False  # it said that it ends before the leader's log begins
        self.joins = 0  # then: where it will go on, once it took over others' state
        self.counted = True  # False: it said that it lost its vote, or its directory is another one
        self.helped = False  # it voted for this leader, or something it acked may have been counted in this term
        self.round = 0  # last round of heartbeats it answered
