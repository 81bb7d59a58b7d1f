"""Message traces: one event for each traced message that came here, published where its sender asked for it.

C notes who took the message while it routes it; what a stream made of it comes later, when its record is applied. The
event waits for that. Source: client-protocol.md 16.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from jscore_server.dataplane.events import (
    DENIED_REPLY,
    TRACE_CLOSED,
    TRACE_DENIED,
    TRACE_NO_ECHO,
    TRACE_SLOW,
    TRACE_UNTOLD,
    TRACE_UNTRACED,
)
from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.monitor import Monitor, to_json
from jscore_server.protocol.message_trace import CLIENT, ROUTE, Event, encoded, encoding, header_map, stream_error
from jscore_server.system.envelope import Envelope

if TYPE_CHECKING:
    from jscore_server.server import Server

STREAMS_WAIT_S = 5.0  # for what streams made of a message
PENDING_MAX = 4096  # events that wait; more go as they are

STORED, UNWANTED, DUPLICATE = 0, 1, 2
DISCARDED: Final = 10077  # by a limit of the stream, whose subjects the message was known to match

NOT_DELIVERED = {
    TRACE_NO_ECHO: "Not delivered because of no echo",
    TRACE_DENIED: "Not delivered because subscription denies this subject",
    TRACE_CLOSED: "Not delivered because client is closed",
    TRACE_SLOW: "Not delivered because fast producer not stalled and consumer is slow",
    TRACE_UNTRACED: "Not delivered because remote does not support message tracing",
    TRACE_UNTOLD: "Message delivered but remote does not support message tracing "
    "so no trace event generated from there",
}


class _Trace(msgspec.Struct):
    """An event until it is published."""

    account: str
    dest: str
    headers: dict[str, list[str]]
    size: int
    events: list[Event] = msgspec.field(default_factory=list)
    hops: int = 0
    streams: int = 0  # that have yet to say what they made of the message
    timer: asyncio.TimerHandle | None = None


class Traces:
    """The traces of one server."""

    def __init__(self, monitor: Monitor, envelope: Envelope) -> None:
        self._monitor = monitor
        self._envelope = envelope
        self._pending: dict[int, _Trace] = {}
        self._early: dict[int, list[Event]] = {}  # of streams that answered before the message was routed to its end

    @property
    def _server(self) -> Server:
        return self._monitor.server

    def traced(self, conn: int, kind: int, a: int, b: int, data: tuple[str, str, bytes, str]) -> None:
        """A message was routed; `data`: account, destination, headers and C's notes."""
        account, dest, headers, notes = data
        trace = _Trace(account, dest, header_map(headers), b & 0xFFFFFFFF, streams=b >> 32)
        for line in notes.splitlines():
            self._note(trace, line.split(" ", 6))
        for event in self._early.pop(a, ()):
            self._judge(trace, event)
        if trace.streams > 0 and len(self._pending) < PENDING_MAX:
            self._pending[a] = trace
            trace.timer = asyncio.get_running_loop().call_later(STREAMS_WAIT_S, self._finish, a)
        else:
            self._publish(trace)

    def _note(self, trace: _Trace, fields: list[str]) -> None:
        what, conn, error, ns, hop, subject, queue = fields
        event: Event = {"type": "eg", "ts": format_time(int(ns))}
        match what:
            case "i":
                event["type"] = "in"
                event |= self._who(int(conn))
                event |= {"acc": queue, "subj": subject}
            case "m":
                event |= {"type": "sm", "to": subject}
            case "d":
                rule = "with Reply of" if int(error) == DENIED_REPLY else "to"
                trace.events[0]["error"] = f'Permissions Violation for Publish {rule} "{subject}"'
                return
            case "s":
                event |= {"type": "si", "acc": self._monitor.system_account, "from": subject, "to": subject}
            case "r":
                event |= self._who(int(conn))
                if int(hop):
                    event["hop"] = hop
                    trace.hops += 1
            case _:
                event |= self._who(int(conn))
                event["sub"] = subject
                if queue:
                    event["queue"] = queue
        if int(error):
            event["error"] = NOT_DELIVERED[int(error)]
        trace.events.append(event)

    def _who(self, conn: int) -> Event:
        client = self._server.clients.get(conn)
        if client is not None:
            name = client.connect.name if client.connect is not None else ""
            return {"kind": CLIENT, "cid": client.cid} | ({"name": name} if name else {})
        routes = self._server.routes
        route = routes.routes.get(conn) if routes is not None else None
        return {"kind": ROUTE, "cid": conn, "name": route.remote_name if route is not None else ""}

    # ---- streams ----

    def judged(self, conn: int, kind: int, a: int, b: int, data: tuple[str, str, bytes, str]) -> None:
        """What a stream made of a traced message; `data`: the stream, the message's subject, nothing, an error."""
        stream, subject, _, text = data
        event: Event = {"type": "js", "ts": format_time(self._monitor.clock()), "stream": stream}
        if b in (STORED, UNWANTED) or (b == DISCARDED and text.startswith("maximum")):
            event["subject"] = subject
        if b == UNWANTED:
            event["nointerest"] = True
        elif b != STORED:
            event["error"] = (b, text)
        trace = self._pending.get(a)
        if trace is None:
            if len(self._early) >= PENDING_MAX:
                self._early.clear()
            self._early.setdefault(a, []).append(event)
            return
        self._judge(trace, event)
        if not trace.streams:
            self._finish(a)

    @staticmethod
    def _judge(trace: _Trace, event: Event) -> None:
        if "error" in event:
            code, text = event["error"]
            duplicate = code == DUPLICATE
            event["error"] = "msgid is duplicate" if duplicate else stream_error(code, text, trace.headers)
        trace.events.append(event)
        trace.streams -= 1

    def _finish(self, ident: int) -> None:
        trace = self._pending.pop(ident, None)
        if trace is not None:
            if trace.timer is not None:
                trace.timer.cancel()
            self._publish(trace)

    def _publish(self, trace: _Trace) -> None:
        body: Event = {
            "server": self._envelope.server(),
            "request": {"header": trace.headers, "msgsize": trace.size},
        }
        if trace.hops:
            body["hops"] = trace.hops
        headers, data = encoded(to_json({**body, "events": trace.events}), encoding(trace.headers))
        self._server.plane.publish(trace.account, trace.dest, data, headers=headers)
