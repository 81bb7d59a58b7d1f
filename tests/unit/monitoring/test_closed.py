"""The ring of closed connections keeps the newest, and of their subscriptions what it was given."""

from __future__ import annotations

from jscore_server.dataplane import ConnInfo
from jscore_server.monitoring.closed import Closed, ClosedConnections, Who, subs_of

INFO = ConnInfo(1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, True, 0, "$G", -1)


def gone(cid: int, subs: bytes = b"") -> Closed:
    return Closed(Who(cid, "127.0.0.1", 4222, account="$G"), INFO, 5, "Client Closed", subs)


def test_the_oldest_make_room() -> None:
    ring = ClosedConnections(3)
    for cid in range(5):
        ring.add(gone(cid))
    assert [closed.who.cid for closed in ring] == [2, 3, 4]
    ring.resize(2)
    assert [closed.who.cid for closed in ring] == [3, 4]


def test_none_are_kept_when_none_are_wanted() -> None:
    ring = ClosedConnections(0)
    ring.add(gone(1))
    assert len(ring) == 0


def test_subscriptions_come_back_whatever_their_bytes() -> None:
    subject = b"a.\x0b\xff.>"
    subs = subs_of(gone(1, b"plain  1 7\n" + subject + b" group 2 0\n"))
    assert [(s.subject, s.queue, s.sid, s.delivered) for s in subs] == [
        ("plain", "", "1", 7),
        ("a.\x0b\ufffd.>", "group", "2", 0),
    ]
