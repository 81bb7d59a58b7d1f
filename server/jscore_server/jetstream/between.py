"""What servers tell each other beside Raft: JSON in the system account, on subjects that name the receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from jscore_server.jetstream.engine import JetStream

SYSTEM_ACCOUNT = "$SYS"

T = TypeVar("T")


def understood(engine: JetStream, what: str, data: bytes, kind: type[T]) -> T | None:
    """A message of another server; None, and a line in the log, when it is none of that kind."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as err:
        engine.lines.warn(f"{what} between servers not understood: {err}")
        return None
