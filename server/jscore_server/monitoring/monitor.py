"""What all pages share: the server they tell of, its clock, what it used, who was here and left.

A page that may be long is a generator: it yields between slices of bounded work, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from jscore_server.config.users import SYSTEM_ACCOUNT
from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.closed import ClosedConnections

if TYPE_CHECKING:
    from jscore_server.jetstream.engine import JetStream
    from jscore_server.server import Server

SECOND = 1_000_000_000
PAGE = 1024
PIECE = 128  # members of a list written between two pauses
# What of the peer's features can be switched by a flag, and how it stands when nobody says anything.
FEATURE_FLAGS = {"js_ack_fc_v2": False, "js_raft_delete_range": False}

T = TypeVar("T")
Body = dict[str, Any]
Sliced = Generator[None, None, T]


class Monitor:
    """The state behind the pages of one server; `clock` gives unix ns."""

    def __init__(self, server: Server, clock: Callable[[], int] = time.time_ns) -> None:
        self.server = server
        self.clock = clock
        self.closed = ClosedConnections(server.options.max_closed_clients)
        self.asked: Counter[str] = Counter()  # requests by path
        self.account_conns: Callable[[str], int] = lambda account: 0  # connections of an account at the other servers
        self._usage = (0.0, 0.0, 0.0)  # monotonic s, CPU s, percent between the last two looks

    @property
    def server_id(self) -> str:
        return self.server.facts.server_id

    def now(self) -> str:
        return format_time(self.clock())

    def engine(self) -> JetStream | None:
        """JetStream, where it is enabled."""
        runtime = self.server.jetstream
        return runtime.engine if runtime is not None else None

    @property
    def system_account(self) -> str:
        """Where servers and operators talk. Without one, only servers do, in one that nobody can be in."""
        return self.server.admission.authentication.system_account or SYSTEM_ACCOUNT

    def feature_flags(self) -> dict[str, bool]:
        return dict(sorted({**FEATURE_FLAGS, **self.server.options.feature_flags}.items()))

    def cpu_percent(self) -> float:
        """Of one core, since the last look at least a second ago; since the start the first time."""
        at, spent, percent = self._usage
        now, used = time.monotonic(), time.process_time()
        if at == 0.0:
            percent = 100 * used / max(0.001, (self.clock() - self.server.started_ns) / SECOND)
        elif now - at >= 1:
            percent = 100 * (used - spent) / (now - at)
        else:
            return percent
        percent = round(percent, 1)
        self._usage = (now, used, percent)
        return percent


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


async def in_slices(work: Sliced[T]) -> T:
    """A long page to its end, the others served between its slices."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)


async def answered(page: Sliced[Body] | Body) -> Body:
    """What a page answers, be it long or short."""
    return await in_slices(page) if isinstance(page, Generator) else page


_ESCAPES = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))


def to_json(body: Any, indent: int = 0) -> bytes:
    """JSON as the peer writes it, names in their order; `indent` blanks a level, none: one line."""
    text = msgspec.json.encode(body)
    if indent:
        text = msgspec.json.format(text, indent=indent)
    for raw, escaped in _ESCAPES:  # outside strings none of them occurs in JSON
        if raw in text:
            text = text.replace(raw, escaped)
    return text


def render(body: Body, indent: int = 0) -> Sliced[bytes]:
    """The same for a page, whose long lists are written piece by piece."""
    if not any(isinstance(value, list) and len(value) > PIECE for value in body.values()):
        return to_json(body, indent)
    pretty = indent > 0
    inner, outer, colon = (b"\n" + b" " * indent, b"\n", b": ") if pretty else (b"", b"", b":")
    parts: list[bytes] = []
    for name, value in body.items():
        parts.append((b"," if parts else b"{") + inner + to_json(name) + colon)
        if not isinstance(value, list) or not value:
            parts.append(to_json(value, indent).replace(b"\n", inner) if pretty else to_json(value))
            continue
        parts.append(b"[")
        for at in range(0, len(value), PIECE):
            piece = to_json(value[at : at + PIECE], indent)
            items = piece[1:-1].rstrip(b"\n")  # without the brackets
            parts.append((b"," if at else b"") + (items.replace(b"\n", inner) if pretty else items))
            yield
        parts.append(inner + b"]")
    parts.append(outer + b"}")
    return b"".join(parts)
