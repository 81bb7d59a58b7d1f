"""The connections that are gone: the last ones, as many as `max_closed_clients` allows."""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jscore_server.dataplane import ConnInfo


class Who(NamedTuple):
    """What a client said of itself and was taken for; texts that many share are kept once."""

    cid: int
    ip: str
    port: int
    kind: str = "Client"
    client_type: str = "nats"
    name: str = ""
    lang: str = ""
    version: str = ""
    user: str = ""
    account: str = ""


class Closed(NamedTuple):
    """A connection at its end. `subs` is "subject queue sid delivered" in lines, the first few."""

    who: Who
    info: ConnInfo
    stop_ns: int
    reason: str
    subs: bytes


class ClosedSub(NamedTuple):
    subject: str
    queue: str
    sid: str
    delivered: int


class ClosedConnections:
    """A ring, newest last."""

    def __init__(self, size: int) -> None:
        self._ring: deque[Closed] = deque(maxlen=max(0, size))

    def add(self, closed: Closed) -> None:
        cid, ip, port, kind, client_type, name, lang, version, user, account = closed.who
        who = Who(
            cid, ip, port, kind, client_type, name, sys.intern(lang), sys.intern(version), user, sys.intern(account)
        )
        self._ring.append(Closed(who, closed.info, closed.stop_ns, sys.intern(closed.reason), closed.subs))

    def resize(self, size: int) -> None:
        """After a reload."""
        if size != self._ring.maxlen:
            self._ring = deque(self._ring, maxlen=max(0, size))

    def __iter__(self) -> Iterator[Closed]:
        return iter(tuple(self._ring))

    def __len__(self) -> int:
        return len(self._ring)


def subs_of(closed: Closed) -> list[ClosedSub]:
    """What is kept of its subscriptions."""
    found = []
    for line in closed.subs.decode("utf-8", "replace").split("\n")[:-1]:
        subject, queue, sid, delivered = line.split(" ")
        found.append(ClosedSub(subject, queue, sid, int(delivered)))
    return found
