"""How many subscribe to a subject, over the whole cluster: `$SYS.DEBUG.SUBSCRIBERS`, and what servers ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from jscore_server.dataplane import Msg, Subscription
from jscore_server.jetstream.names import is_literal, is_subset, is_valid_subject
from jscore_server.monitoring.monitor import Monitor, to_json
from jscore_server.monitoring.subsz import LISTED_MAX
from jscore_server.system.fleet import Fleet

PATIENCE_S = 0.5
OPEN_MAX = 256


class Question(msgspec.Struct):
    """What one server asks the others."""

    acc: str
    subject: str
    queue: str = ""


class Count(msgspec.Struct):
    """One question of a user that is being answered."""

    reply: str
    total: int
    silent: int  # servers that have not answered


class Subscribers:
    """Counts subscriptions of clients, here and with the others."""

    def __init__(self, monitor: Monitor, fleet: Fleet) -> None:
        self._monitor = monitor
        self._plane = monitor.server.plane
        self._fleet = fleet
        self._inbox = f"$SYS._INBOX_.{monitor.server_id}"
        self._open: dict[int, Count] = {}
        self._next = 1
        self._subscriptions: list[Subscription] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        handlers: tuple[tuple[str, Callable[[Msg], None]], ...] = (
            ("$SYS.DEBUG.SUBSCRIBERS", self._asked_by_user),
            ("$SYS.REQ.ACCOUNT.NSUBS", self._asked_by_server),
            (self._inbox + ".*", self._answered),
        )
        self._subscriptions = [
            self._plane.subscribe(self._monitor.system_account, subject, call) for subject, call in handlers
        ]

    def stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = []

    def count(self, account: str, subject: str, queue: str) -> int:
        """Subscriptions of clients here that get all messages of a subject or pattern."""
        if not is_valid_subject(subject):
            return 0
        if is_literal(subject):
            _, subs = self._plane.subscriptions(account=account, subject=subject, limit=LISTED_MAX)
        else:
            _, subs = self._plane.subscriptions(account=account, limit=LISTED_MAX)
            subs = [sub for sub in subs if is_subset(subject, sub.subject)]
        clients = self._monitor.server.clients
        return sum(sub.conn in clients and (not queue or sub.queue == queue) for sub in subs)

    def _asked_by_server(self, msg: Msg) -> None:
        if not msg.reply:
            return
        try:
            asked = msgspec.json.decode(msg.data, type=Question)
        except msgspec.MsgspecError:
            return
        total = self.count(asked.acc, asked.subject, asked.queue) if self._known(asked.acc) else 0
        self._plane.publish(self._monitor.system_account, msg.reply, str(total).encode())

    def _known(self, account: str) -> bool:
        return any(info.name == account for info in self._plane.account_infos())

    def _asked_by_user(self, msg: Msg) -> None:
        assert self._loop is not None
        if not msg.reply or msg.origin_kind != 0:  # the server that the user is with asks the others
            return
        words = msg.data.decode("utf-8", "replace").split()
        if not 1 <= len(words) <= 2:
            self._plane.publish(self._monitor.system_account, msg.reply, b"0")
            return
        subject, queue = words[0], words[1] if len(words) == 2 else ""
        state = Count(msg.reply, self.count(msg.account, subject, queue), self._fleet.active() - 1)
        if not state.silent or len(self._open) >= OPEN_MAX:
            self._finish(state)
            return
        number, self._next = self._next, self._next + 1
        self._open[number] = state
        question = to_json(Question(msg.account, subject, queue))
        self._plane.publish(
            self._monitor.system_account, "$SYS.REQ.ACCOUNT.NSUBS", question, reply=f"{self._inbox}.{number}"
        )
        self._loop.call_later(PATIENCE_S, self._late, number)

    def _answered(self, msg: Msg) -> None:
        number, text = msg.subject.rpartition(".")[2], msg.data.decode("ascii", "replace")
        state = self._open.get(int(number)) if number.isascii() and number.isdigit() and len(number) < 18 else None
        # Our own count went in at the start; our answer to our own question comes as a message of the server itself.
        if state is None or msg.origin_kind != 1 or not (text.isdigit() and len(text) < 18):
            return
        state.total += int(text)
        state.silent -= 1
        if not state.silent:
            del self._open[int(number)]
            self._finish(state)

    def _late(self, number: int) -> None:
        state = self._open.pop(number, None)
        if state is not None:
            self._finish(state)

    def _finish(self, state: Count) -> None:
        self._plane.publish(self._monitor.system_account, state.reply, str(state.total).encode())
