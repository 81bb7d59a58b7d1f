"""The other servers, as far as they tell of themselves over the system account: that they live, who is with them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from jscore_server.dataplane import Msg, Subscription
from jscore_server.monitoring.monitor import Monitor

ORPHAN_S = 150.0  # a server unheard for so long is gone
SWEEP_S = 30.0
SERVERS_MAX = 4096
ACCOUNTS_MAX = 100_000
FROM_ROUTE = 1


class Other(msgspec.Struct):
    """Another server; `conns`: its client connections by account."""

    name: str
    heard: float
    conns: dict[str, int] = msgspec.field(default_factory=dict)


class Fleet:
    """Learns from STATSZ, SHUTDOWN and CONNS of the others."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._others: dict[str, Other] = {}
        self._subscriptions: list[Subscription] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        plane = self._monitor.server.plane
        self._subscriptions = [
            plane.subscribe(self._monitor.system_account, subject, callback, lenient=True)
            for subject, callback in (
                ("$SYS.SERVER.*.STATSZ", self._statsz),
                ("$SYS.SERVER.*.SHUTDOWN", self._shutdown),
                ("$SYS.SERVER.ACCOUNT.*.CONNS", self._conns),
            )
        ]
        self._timer = loop.call_later(SWEEP_S, self._sweep)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = []

    def active(self) -> int:
        """Servers alive, this one included."""
        return 1 + len(self._others)

    def conns_of(self, account: str) -> int:
        """Connections of an account at the others."""
        return sum(other.conns.get(account, 0) for other in self._others.values())

    def _other(self, msg: Msg) -> tuple[Other, dict[str, Any]] | None:
        """Who says it, known from now on, and what. None for what is not for us or not understood."""
        assert self._loop is not None
        if msg.origin_kind != FROM_ROUTE:
            return None
        try:
            body = msgspec.json.decode(msg.data)
            block = body["server"]
            server_id, name = str(block["id"]), str(block["name"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            return None
        if server_id == self._monitor.server_id:
            return None
        other = self._others.get(server_id)
        if other is None:
            if len(self._others) >= SERVERS_MAX:
                return None
            other = self._others[server_id] = Other(name, 0.0)
        other.heard = self._loop.time()
        return other, body

    def _statsz(self, msg: Msg) -> None:
        self._other(msg)

    def _conns(self, msg: Msg) -> None:
        found = self._other(msg)
        if found is None:
            return
        other, body = found
        account, conns = body.get("acc"), body.get("conns")
        if not isinstance(account, str) or not isinstance(conns, int) or conns < 0:
            return
        if not conns:
            other.conns.pop(account, None)
        elif account in other.conns or len(other.conns) < ACCOUNTS_MAX:
            other.conns[account] = conns

    def _shutdown(self, msg: Msg) -> None:
        if msg.origin_kind == FROM_ROUTE:
            self._others.pop(msg.subject.split(".")[2], None)

    def _sweep(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        self._others = {key: other for key, other in self._others.items() if now - other.heard < ORPHAN_S}
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)
