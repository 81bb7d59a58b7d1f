"""What a simulated replica makes of the records that it applies, and a snapshot holds. Pure."""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from typing import Any

from jscore_server.jetstream.meta import (
    Assignment,
    Created,
    CreateStream,
    Deleted,
    DeleteStream,
    Effect,
    Entry,
    MetaState,
    RemoveServer,
    Updated,
    UpdateStream,
    decode_snapshot,
    encode_entry,
    encode_snapshot,
)


class Digest:
    """A number for all records ever applied, in their order."""

    def __init__(self) -> None:
        self.value = 0
        self.count = 0

    def apply(self, index: int, data: Any) -> None:
        """Record `index`, if it is one of the state's: a leader's first one and those of members are not."""
        if isinstance(data, str):
            self.value = zlib.crc32(data.encode(), self.value ^ index)
            self.count += 1

    def print(self) -> Any:
        """Equal for equal states."""
        return self.value, self.count

    def dump(self) -> str:
        return json.dumps([self.value, self.count])

    def load(self, index: int, dumped: str) -> None:
        self.value, self.count = json.loads(dumped)


@lru_cache(maxsize=4096)
def entry(key: str) -> bytes:
    """What a record of that name says of a few streams, as an entry of the meta group."""
    drawn = zlib.crc32(key.encode())
    name = f"S{drawn % 6}"
    group = f"{name}.{drawn >> 4 & 1}"
    peers = [f"n{(drawn >> 8) % 5 + i}" for i in range(1 + 2 * (drawn >> 12 & 1))]
    kind = drawn >> 16 & 15
    made: Entry
    if kind < 7:
        made = CreateStream(Assignment(account="$G", name=name, group=group, peers=peers, created_ns=1, config={}))
    elif kind < 11:
        made = UpdateStream("$G", name, group, {"max_msgs": drawn}, peers=peers, moves=bool(drawn & 32))
    elif kind < 15:
        made = DeleteStream("$G", name, group)
    else:
        made = RemoveServer(f"n{drawn % 5}", f"{drawn}")
    return encode_entry(made)


class Assignments(Digest):
    """The meta group's own state machine, and what a server holds by what that tells it to do."""

    def __init__(self) -> None:
        super().__init__()
        self.state = MetaState()
        self.held: dict[str, int] = {}

    def apply(self, index: int, data: Any) -> None:
        if isinstance(data, str) and data != "noop":
            self.carry_out(self.state.apply(index, entry(data)))

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Created(assignment) | Updated(assignment):
                    self.held[assignment.group] = assignment.version
                case Deleted(assignment):
                    del self.held[assignment.group]

    def print(self) -> Any:
        assert self.held == {a.group: a.version for a in self.state.streams()}
        return self.dump()

    def dump(self) -> str:
        return encode_snapshot(self.state.snapshot(0, b"")).decode()

    def load(self, index: int, dumped: str) -> None:
        self.carry_out(self.state.take_over(index, decode_snapshot(dumped.encode())))
