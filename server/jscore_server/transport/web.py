"""The websocket listener: connections between their HTTP request and the protocol."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from jscore_server.config.transport import Websocket
from jscore_server.dataplane import Plane
from jscore_server.logs import Log
from jscore_server.protocol.info import ServerFacts
from jscore_server.transport.listener import TlsListener
from jscore_server.transport.upgrade import Request, Unfit, accept, judge, refuse

__all__ = ["WebListener", "filled"]

NANOSECOND = 1_000_000_000
CONN_CLIENT = 0


class Visitor(msgspec.Struct):
    """A connection that has not asked yet."""

    ip: str
    port: int


class WebListener:
    """Turns HTTP requests into clients: `created` gets the connection, its address and what it asked for."""

    def __init__(
        self,
        plane: Plane,
        log: Log,
        options: Websocket,
        created: Callable[[int, str, int, Request], None],
    ) -> None:
        """Raises: ValueError when a file of the tls block cannot be used."""
        self.plane = plane
        self.log = log
        self.options = options
        self.created = created
        self.tls = TlsListener(options.tls) if options.tls is not None and not options.no_tls else None
        self.visitors: dict[int, Visitor] = {}
        self.host, self.port = options.host, options.port

    def facts(self, server: ServerFacts) -> ServerFacts:
        """What INFO says to clients of this listener."""
        tls = self.tls.facts() if self.tls else {}
        return msgspec.structs.replace(
            server, host=self.host, port=self.port, tls=tls, connect_urls=server.ws_connect_urls
        )

    def accepted(self, fd: int, ip: str, port: int) -> None:
        conn = self.plane.adopt(fd, CONN_CLIENT)
        self.visitors[conn] = Visitor(ip, port)
        tls = self.tls
        self.plane.layer(
            conn,
            tls.context if tls else None,
            timeout_ns=int(tls.options.timeout * NANOSECOND) if tls else 0,
            first=tls is not None,
            websocket=True,
            http_ns=int(self.options.handshake_timeout * NANOSECOND),
        )

    def asked(self, conn: int, head: bytes) -> None:
        """The HTTP request of a visitor."""
        visitor = self.visitors.pop(conn, None)
        if visitor is None:
            self.plane.close_conn(conn, "Client Closed")
            return
        try:
            request = judge(head, self.options, secure=self.tls is not None)
        except Unfit as err:
            if not err.bare:
                self.log.error(f"{visitor.ip}:{visitor.port} - websocket handshake error: {err}")
            self.plane.write(conn, refuse(err))
            self.plane.close_conn(conn, "Client Closed")
            return
        if self.plane.ws_open(
            conn,
            accept(request, self.options),
            unmasked=request.unmasked,
            deflate=request.deflate,
            browser=request.browser,
        ):
            self.created(conn, request.forwarded_for or visitor.ip, visitor.port, request)

    def closed(self, conn: int) -> bool:
        return self.visitors.pop(conn, None) is not None


def filled(body: bytes, cookies: dict[str, str]) -> bytes:
    """CONNECT with the credentials of cookies where it has none of its own."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    if not isinstance(fields, dict):
        return body
    for name, value in cookies.items():
        if not fields.get(name):
            fields[name] = value
    return msgspec.json.encode(fields)
