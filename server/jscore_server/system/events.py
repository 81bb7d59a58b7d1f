"""What a server tells by itself: who came and went, how it is, that it goes. Source: monitoring.md section 4.

Nothing is made that nobody listens to.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.accountz import accounts
from jscore_server.monitoring.accstatz import account_stat
from jscore_server.monitoring.closed import Closed, Who
from jscore_server.monitoring.monitor import Monitor, to_json
from jscore_server.monitoring.who import who_is
from jscore_server.system.envelope import Envelope
from jscore_server.system.fleet import Fleet
from jscore_server.system.statsz import statsz

if TYPE_CHECKING:
    from jscore_server.server import Client

STATSZ_FIRST_S = 0.25
STATSZ_S = 10.0
CONNS_DELAY_S = 0.05  # changes of an account's connections that are told together
CONNS_S = 30.0
AUTH_ERRORS = frozenset(("Authentication Failure", "Authentication Timeout", "Authentication Expired"))


class Events:
    """Publishes in the system account."""

    def __init__(self, monitor: Monitor, envelope: Envelope, fleet: Fleet) -> None:
        self._monitor = monitor
        self._plane = monitor.server.plane
        self._envelope = envelope
        self._fleet = fleet
        self._loop: asyncio.AbstractEventLoop | None = None
        self._statsz_timer: asyncio.TimerHandle | None = None
        self._conns_timer: asyncio.TimerHandle | None = None
        self._due_timer: asyncio.TimerHandle | None = None
        self._due: set[str] = set()  # accounts whose connections changed
        self._interval = STATSZ_FIRST_S

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._statsz_timer = loop.call_later(self._interval, self._beat)
        self._conns_timer = loop.call_later(CONNS_S, self._all_conns)

    def stop(self) -> None:
        for timer in (self._statsz_timer, self._conns_timer, self._due_timer):
            if timer is not None:
                timer.cancel()
        self._tell(f"$SYS.SERVER.{self._monitor.server_id}.SHUTDOWN", lambda: to_json(self._envelope.server()))

    def lame_duck(self) -> None:
        self._tell(f"$SYS.SERVER.{self._monitor.server_id}.LAMEDUCK", lambda: to_json(self._envelope.server()))

    def _tell(self, subject: str, body: Any, account: str = "") -> None:
        account = account or self._monitor.system_account
        if self._plane.interest(account, subject):
            self._plane.publish(account, subject, body())

    # ---- how it is ----

    def _beat(self) -> None:
        assert self._loop is not None
        self._interval = min(STATSZ_S, self._interval * 2)
        self._statsz_timer = self._loop.call_later(self._interval, self._beat)
        self.tell_statsz()

    def tell_statsz(self) -> None:
        self._tell(f"$SYS.SERVER.{self._monitor.server_id}.STATSZ", self.statsz_answer)

    def statsz_answer(self) -> bytes:
        return self._envelope.answer(statsz(self._monitor, self._fleet), "statsz")

    # ---- clients ----

    def connected(self, client: Client, account: str) -> None:
        def body() -> bytes:
            start = self._monitor.clock()
            info = self._plane.conn_info(client.conn)
            if info is not None:
                start = info.start_ns
            return self._envelope.event("client_connect", {"client": _client(who_is(client, account), start)})

        self._tell(f"$SYS.ACCOUNT.{account}.CONNECT", body)
        self._changed(account)

    def closed(self, gone: Closed) -> None:
        account = gone.who.account

        def body() -> bytes:
            info = gone.info
            client = _client(gone.who, info.start_ns, rtt=info.rtt_ns, stop=gone.stop_ns)
            return self._envelope.event(
                "client_disconnect",
                {
                    "client": client,
                    "sent": {"msgs": info.in_msgs, "bytes": info.in_bytes},  # as the client sees it
                    "received": {"msgs": info.out_msgs, "bytes": info.out_bytes},
                    "reason": gone.reason,
                },
            )

        if gone.reason in AUTH_ERRORS:
            self._tell(f"$SYS.SERVER.{self._monitor.server_id}.CLIENT.AUTH.ERR", body)
            self._tell("$SYS.ACCOUNT.CLIENT.AUTH.ERR", body, account)
        self._tell(f"$SYS.ACCOUNT.{account}.DISCONNECT", body)
        self._changed(account)

    # ---- connections of an account ----

    def _changed(self, account: str) -> None:
        assert self._loop is not None
        self._due.add(account)
        if self._due_timer is None:
            self._due_timer = self._loop.call_later(CONNS_DELAY_S, self._tell_due)

    def _tell_due(self) -> None:
        self._due_timer = None
        due, self._due = self._due, set()
        known = None
        for account in due:
            subjects = [s for s in _conns_subjects(account) if self._plane.interest(self._monitor.system_account, s)]
            if not subjects:
                continue
            if known is None:
                known = accounts(self._monitor)
            if account in known:
                body = self.conns_answer(account, known)
                for subject in subjects:
                    self._plane.publish(self._monitor.system_account, subject, body)

    def conns_answer(self, account: str, known: Any) -> bytes:
        return self._envelope.event("account_connections", account_stat(self._monitor, known[account]))

    def _all_conns(self) -> None:
        """Those with connections are told again: whoever joined meanwhile learns of them."""
        assert self._loop is not None
        self._conns_timer = self._loop.call_later(CONNS_S, self._all_conns)
        self._due.update(name for name, info in accounts(self._monitor).items() if info.conns)
        self._tell_due()


def _conns_subjects(account: str) -> tuple[str, str]:
    return f"$SYS.SERVER.ACCOUNT.{account}.CONNS", f"$SYS.ACCOUNT.{account}.SERVER.CONNS"


def _client(who: Who, start_ns: int, *, rtt: int = 0, stop: int = 0) -> dict[str, Any]:
    body: dict[str, Any] = {"start": format_time(start_ns), "host": who.ip, "id": who.cid, "acc": who.account}
    for name, text in (("user", who.user), ("name", who.name), ("lang", who.lang), ("ver", who.version)):
        if text:
            body[name] = text
    if rtt:
        body["rtt"] = rtt
    if stop:
        body["stop"] = format_time(stop)
    return body | {"name_tag": who.account, "kind": who.kind, "client_type": who.client_type}
