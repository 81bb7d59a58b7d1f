"""The system account of one server: services, events and the other servers, put together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jscore_server.monitoring.closed import Closed
from jscore_server.monitoring.monitor import Monitor
from jscore_server.monitoring.who import who_is
from jscore_server.system.envelope import Envelope
from jscore_server.system.events import Events
from jscore_server.system.fleet import Fleet
from jscore_server.system.services import Services
from jscore_server.system.subscribers import Subscribers
from jscore_server.system.traces import Traces

if TYPE_CHECKING:
    from jscore_server.server import Client


class System:
    """What the server calls when something happens that the account's users may want to know."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        envelope = Envelope(monitor)
        self.fleet = Fleet(monitor)
        self.events = Events(monitor, envelope, self.fleet)
        self.services = Services(monitor, envelope, self.events)
        self.subscribers = Subscribers(monitor, self.fleet)
        self.traces = Traces(monitor, envelope)
        monitor.account_conns = self.fleet.conns_of

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.fleet.start(loop)
        self.services.start(loop)
        self.subscribers.start(loop)
        self.events.start(loop)

    def stop(self) -> None:
        """Says goodbye; the routes are still there to carry it."""
        self.events.stop()
        self.subscribers.stop()
        self.services.stop()
        self.fleet.stop()

    def lame_duck(self) -> None:
        self.events.lame_duck()

    def connected(self, client: Client, account: str) -> None:
        """A client was let in."""
        self.services.serve_account(account)
        self.events.connected(client, account)

    def closed(self, client: Client, reason: str) -> None:
        """A client is gone; while its EV_CLOSED is handled."""
        plane = self.monitor.server.plane
        info = plane.conn_info(client.conn)
        if info is None:
            return
        gone = Closed(who_is(client, info.account), info, self.monitor.clock(), reason, plane.gone_subs)
        self.monitor.closed.add(gone)
        self.events.closed(gone)
