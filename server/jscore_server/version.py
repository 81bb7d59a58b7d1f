"""The versions this server reports, and what it speaks with the others of its cluster."""

from __future__ import annotations

from typing import NamedTuple

VERSION = "0.1.0"
"""Version of jscore itself."""

NATS_VERSION = "2.14.5"
"""Version of nats-server whose protocol and behaviour this server follows; clients see it in INFO."""


class Versions(NamedTuple):
    """What this server understands of what servers say to each other and of what all replicas apply: frames on links,
    Raft messages in them, configurations of groups, meta entries, and the records of terms and votes.

    2 compares replicas: frames of kind 3 (raft/compare.py).

    Two servers speak the lower one of their newest; a record is written in the newest that all who will read it know.
    """

    oldest: int = 1
    newest: int = 2

    def common(self, other: Versions) -> int:
        """What two speak with each other; 0 when they have nothing in common."""
        spoken = min(self.newest, other.newest)
        return spoken if spoken >= max(self.oldest, other.oldest) else 0


PROTOCOL = Versions()
"""Of this version."""
