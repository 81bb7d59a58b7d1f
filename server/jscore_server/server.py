"""One server: listeners, clients, routes, links and JetStream, wired to the plane's events.

Everything here is per connection or per batch; messages never pass through.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from jscore_server.admission import Admission
from jscore_server.authentication import Identity, Right
from jscore_server.cluster.links import LinkCallbacks, Links
from jscore_server.cluster.peer import Route
from jscore_server.cluster.routes import RouteCallbacks, Routes, Settings
from jscore_server.cluster.secure import ClusterTls
from jscore_server.config.options import Options
from jscore_server.config.subject_mapping import shares
from jscore_server.config.users import GLOBAL_ACCOUNT
from jscore_server.dataplane import Plane, accept
from jscore_server.dataplane.events import (
    EV_BROKEN,
    EV_CLOSED,
    EV_CONNECT,
    EV_DENIED,
    EV_ERROR,
    EV_FRAME,
    EV_HTTP,
    EV_INFO,
    EV_JUDGED,
    EV_LINK,
    EV_PONG,
    EV_PROXY,
    EV_ROOM,
    EV_TLS,
    EV_TRACE,
    EV_TRACED,
)
from jscore_server.logs import Log
from jscore_server.monitoring.monitor import Monitor
from jscore_server.ports import PortsFile
from jscore_server.protocol import info as info_lines
from jscore_server.protocol.connect import Connect, Refused, acceptable_info, read_connect
from jscore_server.protocol.identity import made_name, server_id
from jscore_server.protocol.trace import LOST, traced
from jscore_server.system import System
from jscore_server.transport.context import http_context
from jscore_server.transport.listener import THROTTLED, TlsListener, logged
from jscore_server.transport.sockets import interface_addresses, listen, shown
from jscore_server.transport.upgrade import Request
from jscore_server.transport.web import WebListener, filled
from jscore_server.version import NATS_VERSION, PROTOCOL, VERSION, Versions

if TYPE_CHECKING:
    from jscore_server.cluster.beacons import Beacons
    from jscore_server.monitoring.http import Listener

CONN_CLIENT, CONN_ROUTE = 0, 1
ACCEPTS_A_TURN = 8  # they are some 50 us each, and between two turns everybody else is served
ACCEPT_PAUSE_S = 0.25  # when this process has no descriptor or memory left for another connection
SETTLED_S = 2.0  # a client this old may get INFO at any time, whether or not it ever asked for a PONG
TELL_AGAIN_S = 0.1  # and those that are in their handshake are told when it is over
OPENING_S = 5.0  # a single server's streams are open by then, or it serves clients without them
OPENING_LOOK_S = 0.002
LEAVE_S = 3.0  # in lame duck mode the streams led here have found other leaders by then
LEAVE_LOOK_S = 0.01


Accepted = Callable[[int, str, int], None]  # takes over a descriptor; address and port of who connects


class Client(msgspec.Struct):
    """What the server knows of a client beside what C keeps."""

    conn: int
    cid: int
    ip: str
    port: int
    since: float
    connect: Connect | None = None
    told: list[str] | None = None  # the client URLs of the last INFO it got
    connection_type: str = "STANDARD"
    identity: Identity | None = None  # who it is, once it was let in
    auth_timer: asyncio.TimerHandle | None = None  # runs until then
    auth_stop: Callable[[], None] | None = None  # ends the computing of its password's hash
    web: Request | None = None  # what it asked for, when it came by websocket

    @property
    def label(self) -> str:
        """How the log names it."""
        return f"{shown(self.ip, self.port)} - {'cid' if self.web is None else 'wid'}:{self.cid}"


class Server:
    """Builds the parts from options and passes events between them. `start` and `stop` from the loop's thread."""

    def __init__(
        self,
        options: Options,
        log: Log,
        plane: Plane,
        random_bytes: Callable[[int], bytes],
        *,
        protocol: Versions = PROTOCOL,
    ) -> None:
        """`protocol`: what the other servers are told that this one understands."""
        self.options = options
        self.protocol = protocol
        self.log = log
        self.plane = plane
        identifier = server_id(random_bytes(32))
        self.facts = info_lines.ServerFacts(
            server_id=identifier,
            server_name=options.server_name or identifier,
            version=NATS_VERSION,
            own_version=VERSION,
            host=options.host,
            port=options.port,
            max_payload=options.max_payload,
            jetstream=options.jetstream.enabled,
            cluster=(options.cluster.name or made_name(random_bytes(16))) if options.cluster.port else "",
            domain=options.jetstream.domain if options.jetstream.enabled else "",
        )
        self.clients: dict[int, Client] = {}
        self.next_cid = 1
        self.listeners: list[socket.socket] = []
        self.tls: TlsListener | None = None
        if options.tls is not None:
            self.tls = TlsListener(options.tls, optional=options.allow_non_tls)
            self.facts.tls = self.tls.facts()
        self.web: WebListener | None = None
        if options.websocket.port:
            self.web = WebListener(plane, log, options.websocket, self._web_client)
        self.started_ns = self.loaded_ns = time.time_ns()
        self.client_port = 0
        self.client_listener: socket.socket | None = None
        self.web_listener: socket.socket | None = None
        self.route_listener: socket.socket | None = None
        self.http_port = 0
        self.https_port = 0
        self.monitoring: list[Listener] = []
        self.system = System(Monitor(self))
        self.ports_file = PortsFile(self)
        self.ask_reload: Callable[[], str] = lambda: "reload is not supported"  # "": done, else why not
        self.routes: Routes | None = None
        self.links: Links | None = None
        self.beacons: Beacons | None = None
        self.jetstream: Any = None  # jetstream.runtime.Runtime, when enabled
        self.loop: asyncio.AbstractEventLoop | None = None
        self.admission: Admission  # from `start` on
        self._met: set[str] = set()  # kinds of client URLs that other servers ever told of
        self._urls_timer: asyncio.TimerHandle | None = None
        self._accept_troubled = False
        self._client_lines, self._web_lines = info_lines.ClientLines(), info_lines.ClientLines()
        self._mapped: set[str] = set()  # accounts with subject mappings
        self._traced: set[str] = set()  # accounts whose sampled messages are traced
        self.handlers: dict[int, Callable[[int, int, int, int, Any], None]] = {
            EV_CONNECT: self._on_connect,
            EV_DENIED: self._on_denied,
            EV_INFO: self._on_info,
            EV_LINK: self._on_link,
            EV_CLOSED: self._on_closed,
            EV_ERROR: self._on_error,
            EV_FRAME: self._on_frame,
            EV_ROOM: self._on_room,
            EV_PONG: self._on_pong,
            EV_TRACE: self._on_trace,
            EV_TRACED: self.system.traces.traced,
            EV_JUDGED: self.system.traces.judged,
            EV_TLS: self._on_tls,
            EV_HTTP: self._on_http,
            EV_BROKEN: self._on_broken,
            EV_PROXY: self._on_proxy,
        }

    # ---- start and stop ----

    def start(self) -> None:
        """Listens. Raises OSError when an address cannot be bound."""
        self.loop = asyncio.get_running_loop()
        options = self.options
        self.admission = Admission(self, options, self.loop)
        self.bind_mappings()
        client_sock = listen(options.host, options.port)
        self.client_port = self.facts.port = client_sock.getsockname()[1]
        self.client_listener = client_sock
        self._serve(client_sock, self._client_accepted)
        self._advertised()
        if options.cluster.port:
            self._start_cluster()
        if self.web is not None:
            self._listen_for_websockets(self.web)
        self._find_urls()
        if self.jetstream is not None:
            self.jetstream.start()
        self.system.start(self.loop)
        if options.http_port or options.https_port:
            self._start_monitoring()
        self.log.info(f"Listening for client connections on {shown(options.host, self.client_port)}")
        if self.tls is not None:
            self.log.info("TLS required for client connections")
        if self.web is not None:
            self._tell_of_websockets(self.web)
        self.log.info("Server is ready")
        if self.routes is not None:
            self.routes.start()
        if self.beacons is not None:
            self.beacons.start()
        if self.links is not None:
            self.links.start()

    def _advertised(self) -> None:
        """Host and port that INFO shows."""
        options = self.options
        self.facts.host, self.facts.port = options.host, self.client_port
        if options.client_advertise:
            self.facts.host, self.facts.port = advertised(options.client_advertise, options.host, self.client_port)

    def advertise(self) -> None:
        """client_advertise was read anew."""
        self._advertised()
        self._urls_changed()
        if self.routes is not None:
            self.routes.broadcast_info()

    def _listen_for_websockets(self, web: WebListener) -> None:
        sock = listen(web.options.host, web.options.port)
        web.port = sock.getsockname()[1]
        self.web_listener = sock
        self._serve(sock, web.accepted)

    def _tell_of_websockets(self, web: WebListener) -> None:
        scheme = "ws" if web.tls is None else "wss"
        self.log.info(f"Listening for websocket clients on {scheme}://{shown(web.options.host, web.port)}")
        if web.tls is None:
            self.log.warn("Websocket not configured with TLS. DO NOT USE IN PRODUCTION!")

    def _start_monitoring(self) -> None:
        from jscore_server.monitoring.gate import Gate
        from jscore_server.monitoring.http import Listener
        from jscore_server.monitoring.pages import Pages

        host = self.options.http_host or self.options.host
        gate = Gate(
            lambda: self.options.http_authorization,
            self.admission.passwords,
            Pages(self.system.monitor).handle,
            lambda: self.options.http_base_path.rstrip("/") + "/healthz",
        )
        if self.options.http_port:
            sock = listen(host, self.options.http_port)
            self.http_port = sock.getsockname()[1]
            self.log.info(f"Starting http monitor on {shown(host, self.http_port)}")
            self.monitoring.append(Listener(sock, gate.handle, self.log.error))
        if self.options.https_port:
            if self.options.tls is None:
                raise ValueError("Can't start monitoring: TLS cert and key required for HTTPS")
            tls = http_context(self.options.tls)
            sock = listen(host, self.options.https_port)
            self.https_port = sock.getsockname()[1]
            self.log.info(f"Starting https monitor on {shown(host, self.https_port)}")
            self.monitoring.append(Listener(sock, gate.handle, self.log.error, tls))
        for listener in self.monitoring:
            listener.start()

    def _start_cluster(self) -> None:
        cluster = self.options.cluster
        link = None
        tls = ClusterTls.of(cluster)
        if self.jetstream is not None:
            spoken = self.protocol
            link = {"link": spoken.newest, "oldest": spoken.oldest, "dir": self.jetstream.raft.directory_id}
            self.links = Links(
                self.plane,
                self.log,
                self.facts.server_name,
                cluster.name,
                cluster.authorization.login,
                LinkCallbacks(
                    hello=self.jetstream.hello,
                    up=self.jetstream.link_up,
                    again=self.jetstream.link_hello,
                    down=self.jetstream.link_down,
                    frame=self.jetstream.frame,
                    room=self.jetstream.link_room,
                ),
                tls,
                self.protocol,
            )
            self.jetstream.set_transport(self.links)
        host = cluster.host or self.options.host
        sock = listen(host, cluster.port)
        self.route_listener = sock
        listening = (host, int(sock.getsockname()[1]))
        self._serve(sock, self._route_accepted)
        self.log.info(f"Cluster name is {self.facts.cluster}")
        if not cluster.name:
            self.log.warn("Cluster name was dynamically generated, consider setting one")
        self.log.info(f"Listening for route connections on {shown(*listening)}")
        if cluster.udp_hints and self.jetstream is not None:
            from jscore_server.cluster.hints import Hints

            self.jetstream.hints = Hints(self.facts.server_name, self.log, self.jetstream.hinted, sock)
            self.log.info(f"Listening for liveness hints on {shown(*listening)}")
        self.routes = Routes(
            self.plane,
            self.log,
            self.facts,
            listening=listening,
            link=link,
            tls=tls,
            settings=self._route_settings(dynamic=not cluster.name),
            callbacks=RouteCallbacks(
                joined=self._route_joined, changed=self._urls_changed, renamed=self._cluster_renamed
            ),
        )
        if cluster.discovery.key:
            from jscore_server.cluster.beacons import Beacons

            routes, group = self.routes, cluster.discovery
            self.beacons = Beacons(group, self.log, self.facts, routes.told_address, routes.found)
            self.log.info(f"Listening for servers of this cluster on {shown(group.host, group.port)}")

    def _route_settings(self, *, dynamic: bool) -> Settings:
        cluster = self.options.cluster
        return Settings(
            explicit=tuple((url.host, url.port, url.user, url.password) for url in cluster.routes),
            pool_size=cluster.pool_size or 3,
            accounts=tuple(dict.fromkeys((self.options.system_account, *cluster.accounts))),
            authorization=cluster.authorization.login,
            handshake_s=cluster.authorization.timeout,
            connect_retries=cluster.connect_retries,
            connect_backoff=cluster.connect_backoff,
            advertise=cluster.advertise,
            error_reports=max(1, self.options.connect_error_reports),
            dynamic=dynamic,
            permissions=cluster.permissions,
            compression=cluster.compression.mode,
            rtt_thresholds_ns=cluster.compression.thresholds_ns,
        )

    def cluster_changed(self, tls: ClusterTls | None) -> None:
        """The options' `cluster` block was read anew, and its `tls` block loaded."""
        if self.routes is None:
            return
        self.routes.tls = tls
        if self.links is not None:
            self.links.tls = tls
            self.links.authorization = self.options.cluster.authorization.login
        name = self.options.cluster.name
        renamed = bool(name) and name != self.facts.cluster
        if renamed:
            self.facts.cluster = name
        dynamic = self.routes.settings.dynamic and not name
        self.routes.apply(self._route_settings(dynamic=dynamic))
        if renamed:
            self.routes.close_all("Cluster Name Conflict")
            self._cluster_renamed()
        self._urls_changed()
        self.routes.broadcast_info()

    def bind_mappings(self) -> None:
        """Tells the data plane of the accounts' subject mappings and traces: options or the cluster's name are new."""
        options = self.options
        found = {name: account.mappings for name, account in options.accounts.items()}
        found[GLOBAL_ACCOUNT] = options.mappings
        for name in {*self._mapped, *(name for name, mappings in found.items() if mappings)}:
            self.plane.account_map(name, shares(found.get(name, []), self.facts.cluster))
        self._mapped = {name for name, mappings in found.items() if mappings}
        dests = {name: account.trace for name, account in options.accounts.items() if account.trace is not None}
        for name in self._traced - dests.keys():
            self.plane.account_trace(name, "", 0)
        for name, trace in dests.items():
            self.plane.account_trace(name, trace.dest, trace.sampling)
        self._traced = set(dests)

    def _cluster_renamed(self) -> None:
        self.bind_mappings()
        for client in self.clients.values():
            client.told = None
        self._tell_clients()

    def lame_duck(self, done: Callable[[], None]) -> None:
        """Sends the clients elsewhere, one by one, then calls `done`. Source: client-protocol.md section 15."""
        assert self.loop is not None
        if self.facts.lame_duck or self.client_listener is None:
            return
        self.log.info("Entering lame duck mode, stop accepting new clients")
        self.facts.lame_duck = True
        self.system.lame_duck()
        for sock in (self.client_listener, self.web_listener):
            if sock is not None:
                self.loop.remove_reader(sock.fileno())
                self.listeners.remove(sock)
                sock.close()
        if self.jetstream is not None:
            self.jetstream.engine.hand_over()
        self._leave(done, self.loop.time() + LEAVE_S)

    def _leave(self, done: Callable[[], None], until: float) -> None:
        """Once nothing is led here any more that another server can lead, or that took too long."""
        assert self.loop is not None
        if self.jetstream is not None and self.jetstream.engine.hands_over and self.loop.time() < until:
            self.loop.call_later(LEAVE_LOOK_S, self._leave, done, until)
            return
        self._find_urls()
        if self.routes is not None:
            self.routes.broadcast_info()
        for client in self.clients.values():
            client.told = None
        self._tell_clients()
        options = self.options
        grace = options.lame_duck_grace_period
        if not self.clients:
            self.plane.flush()
            done()
            return
        interval = min(1.0, max(0.0, options.lame_duck_duration - grace) / len(self.clients))

        def next_client() -> None:
            assert self.loop is not None
            client = next(iter(self.clients.values()), None)
            if client is None:
                done()
                return
            self.plane.close_conn(client.conn, "Server Shutdown")
            self.loop.call_later(interval * random.uniform(0.5, 1), next_client)

        self.loop.call_later(grace, next_client)

    def stop(self) -> None:
        """Closes listeners and connections; JetStream closes its logs."""
        assert self.loop is not None
        self.ports_file.remove()
        for sock in self.listeners:
            self.loop.remove_reader(sock.fileno())
            sock.close()
        self.listeners.clear()
        for listener in self.monitoring:
            listener.close()
        self.system.stop()
        self.plane.flush()
        if self.beacons is not None:
            self.beacons.close()
        if self.routes is not None:
            self.routes.stop()
        if self.links is not None:
            self.links.stop()
        if self.jetstream is not None:
            self.jetstream.stop()
        self.admission.close()
        for conn in list(self.clients):
            self.plane.close_conn(conn, "Server Shutdown")
        if self.routes is not None:
            for conn in list(self.routes.routes):
                self.plane.close_conn(conn, "Server Shutdown")
        if self.links is not None:
            for conn in list(self.links.conns):
                self.plane.close_conn(conn, "Server Shutdown")
        self.plane.flush()

    def _serve(self, sock: socket.socket, accepted: Accepted) -> None:
        assert self.loop is not None
        self.listeners.append(sock)
        if self.jetstream is None or self.options.cluster.port:
            self.loop.add_reader(sock.fileno(), self._accept, sock, accepted)
        else:
            self._serve_when_settled(sock, accepted, self.loop.time() + OPENING_S)

    def _serve_when_settled(self, sock: socket.socket, accepted: Accepted, until: float) -> None:
        """A client of a single server finds its streams there. Connections wait in the listener's queue."""
        assert self.loop is not None
        assert self.jetstream is not None
        if sock.fileno() < 0:
            return  # stopped meanwhile
        if self.jetstream.settled or self.loop.time() > until:
            self.loop.add_reader(sock.fileno(), self._accept, sock, accepted)
        else:
            self.loop.call_later(OPENING_LOOK_S, self._serve_when_settled, sock, accepted, until)

    def _accept(self, sock: socket.socket, accepted: Accepted) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                found = accept(sock.fileno())
                if found is None:
                    return
                accepted(*found)
            except OSError as err:
                self._accept_failed(sock, accepted, err)
                return
            self._accept_troubled = False

    def _accept_failed(self, sock: socket.socket, accepted: Accepted, err: OSError) -> None:
        """The listener stays readable while a connection waits: without a pause the loop would spin."""
        assert self.loop is not None
        if not self._accept_troubled:
            self.log.error(f"Accept error: {err}")
        if err.errno in (errno.ECONNABORTED, errno.EPROTO):
            return
        self._accept_troubled = True
        self.loop.remove_reader(sock.fileno())

        def resume() -> None:
            if sock in self.listeners and self.loop is not None:
                self.loop.add_reader(sock.fileno(), self._accept, sock, accepted)

        self.loop.call_later(ACCEPT_PAUSE_S, resume)

    # ---- clients ----

    def _client_accepted(self, fd: int, ip: str, port: int) -> None:
        assert self.loop is not None
        conn = self.plane.adopt(fd, CONN_CLIENT)
        client = self._new_client(conn, ip, port)
        if client is None:
            return
        tls = self.tls
        if tls is None:
            if self.options.proxy_protocol:
                self.plane.layer(conn, None, proxy=True)
        elif not tls.begin(self.plane, conn, self.loop.time(), proxy=self.options.proxy_protocol):
            self.plane.close_conn(conn, "Maximum Connections Exceeded", THROTTLED)
        elif self.log.debug_on and not tls.optional:
            self.log.debug(f"{client.label} - Starting TLS client connection handshake")

    def _web_client(self, conn: int, ip: str, port: int, request: Request) -> None:
        self._new_client(conn, ip, port, request)

    def _new_client(self, conn: int, ip: str, port: int, web: Request | None = None) -> Client | None:
        """Greets a client; None when there is no room for it."""
        assert self.loop is not None
        client = Client(conn, self.next_cid, ip, port, self.loop.time(), web=web)
        if web is not None:
            client.connection_type = "WEBSOCKET"
        self.next_cid += 1
        self.plane.write(conn, self.client_info(client, first=True))
        if len(self.clients) >= self.options.max_connections:
            self.plane.close_conn(conn, "Maximum Connections Exceeded", "maximum connections exceeded")
            return None
        self.clients[conn] = client
        self.admission.arrived(client)
        if self.log.debug_on:
            self.log.debug(f"{client.label} - Client connection created")
        return client

    def client_info(self, client: Client, right: Right | None = None, *, first: bool = False) -> bytes:
        """The INFO line for a client; with `right` the one that follows its CONNECT."""
        authentication = self.admission.authentication
        door = authentication.door(client.connection_type)
        late = right is not None or client.connect is not None
        facts = self.facts if client.web is None or self.web is None else self.web.facts(self.facts)
        # Behind a proxy the address that the first INFO could show is the proxy's.
        ip = "" if first and self.options.proxy_protocol and client.web is None else client.ip
        lines = self._client_lines if client.web is None else self._web_lines
        return lines.line(
            facts,
            client_id=client.cid,
            client_ip=ip,
            auth_required=authentication.required if late else door.shown_required,
            account=right.account if right is not None else "",
            system=right is not None and right.account == authentication.system_account,
            max_payload=right.max_payload if right is not None else None,
        )

    def _on_connect(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        if kind == CONN_ROUTE:
            if self.routes is not None:
                self.routes.connect(conn, data)
            return
        client = self.clients.get(conn)
        if client is None:
            self.plane.close_conn(conn, "Client Closed")
            return
        if client.web is not None and client.web.cookies:
            data = filled(data, client.web.cookies)
        try:
            connect = read_connect(data, client.connect)
        except Refused as err:
            self.plane.close_conn(conn, err.reason, err.error)
            return
        client.told = self._urls_for(client)
        self.admission.connect(client, connect)

    def _on_denied(self, conn: int, kind: int, a: int, b: int, data: Any) -> None:
        client = self.clients.get(conn)
        if client is not None:
            self.admission.denied(client, a, b, data)

    def _on_closed(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        reason = data.decode("utf-8", "replace")
        client = self.clients.pop(conn, None)
        if client is not None:
            self.system.closed(client, reason)
            self.admission.left(client, reason)
            if self.log.debug_on:
                self.log.debug(f"{client.label} - Client connection closed: {reason}")
            elif reason.startswith("Slow Consumer"):
                self.log.info(f"{client.label} - {reason}")
            return
        if self.web is not None and self.web.closed(conn):
            return
        if self.links is not None and self.links.owns(conn):
            self.links.closed(conn, reason)
        elif self.routes is not None:
            self.routes.closed(conn, reason)

    def _on_error(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        if kind == CONN_ROUTE and self.routes is not None:
            self.routes.error(conn, text)
        else:
            self.log.debug(f"cid:{conn} - Client Error {text}")

    def _on_tls(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        client = self.clients.get(conn)
        failed, lines = logged(a, data)
        say = self.log.error if failed else self.log.debug
        if client is not None:
            who = f"{client.label} - "
        elif self.links is not None and self.links.owns(conn):
            who = f"lid:{conn} - "
        else:
            who = f"{self.routes.described(conn) if self.routes is not None else ''}rid:{conn} - "
            if kind == CONN_CLIENT:  # a websocket that has not asked yet
                who = ""
        if failed or self.log.debug_on:
            for line in lines:
                say(f"{who}{line}")

    def _on_http(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        if self.web is not None:
            self.web.asked(conn, data)

    def _on_broken(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        client = self.clients.get(conn)
        text = data.decode("utf-8", "replace")
        if client is None:
            if kind == CONN_ROUTE and self.routes is not None:
                self.log.error(f"{self.routes.described(conn)}rid:{conn} - read error: {text}")
            return
        if client.web is None:
            self.log.warn(f"Error reading PROXY protocol header from {shown(client.ip, client.port)}: {text}")
        else:
            self.log.error(f"{client.label} - read error: {text}")

    def _on_proxy(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        client = self.clients.get(conn)
        if client is not None:
            ip, _, port = data.decode("ascii").partition(" ")
            client.ip, client.port = ip, int(port)

    def _on_trace(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        if a == LOST:
            self.log.trace(f"{b} lines were not traced: the log is slower than the traffic")
            return
        client = self.clients.get(conn)
        if client is not None:
            who = client.label
        else:
            who = f"{self.routes.described(conn) if self.routes is not None else ''}rid:{conn}"
            if kind == CONN_CLIENT:  # its INFO, before it has a number
                return
        self.log.trace(f"{who} - {traced(a, b, data, self.options.max_traced_msg_len)}")

    def _by_cid(self, cid: int) -> Client | None:
        return next((client for client in self.clients.values() if client.cid == cid), None)

    def kick(self, cid: int) -> bool:
        """Ends a client's connection; False when there is none of that number."""
        client = self._by_cid(cid)
        if client is None:
            return False
        self.plane.close_conn(client.conn, "Kicked")
        return True

    def send_away(self, cid: int) -> bool:
        """Tells one client what all hear in lame duck mode: to look for another server. False when there is none."""
        client = self._by_cid(cid)
        if client is None:
            return False
        info = info_lines.client_info(self.facts, client_id=client.cid, client_ip=client.ip)
        self.plane.write(client.conn, info_lines.line({**info, "ldm": True}))
        return True

    # ---- routes and links ----

    def _route_accepted(self, fd: int, ip: str, port: int) -> None:
        assert self.routes is not None
        self.routes.accepted(fd, ip)

    def _on_pong(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        if self.routes is not None:
            self.routes.pong(conn)

    def _on_info(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        if kind == CONN_CLIENT:
            if acceptable_info(data):
                self.plane.go_on(conn)
            else:
                self.plane.close_conn(conn, "Parse Error")
        elif self.links is not None and self.links.owns(conn):
            self.links.info(conn, data)
        elif self.routes is not None:
            self.routes.info(conn, data)
            self.plane.go_on(conn)  # one that is not active yet has waited

    def _on_link(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        assert self.routes is not None
        if self.links is None:
            self.plane.close_conn(conn, "Link Refused")
            return
        if not self.routes.release(conn):
            self.plane.close_conn(conn, "Protocol Violation")
            return
        self.links.asked(conn, data, self.links.peers.__contains__)

    def _on_frame(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        if self.links is not None:
            self.links.frame(conn, a, data)

    def _on_room(self, conn: int, kind: int, a: int, b: int, data: bytes) -> None:
        if self.links is not None:
            self.links.room(conn)

    def _route_joined(self, route: Route) -> None:
        jscore = route.info.get("jscore")
        has_jetstream = bool(route.info.get("jetstream"))
        if self.jetstream is None:
            return
        if isinstance(jscore, dict) and self.links is not None:
            self.links.peer_seen(route.remote_name, route.dial_address)
        elif has_jetstream:
            self.log.error(
                f"{route.remote_name} is a JetStream server of another make: it carries messages here, "
                "but takes no part in this cluster's JetStream"
            )
        self.jetstream.route_joined(route.remote_name, has_jetstream and isinstance(jscore, dict))

    # ---- client URLs ----

    def _find_urls(self) -> None:
        """Learns host:port of the client ports there are, for either kind of client, own first."""
        facts, web = self.facts, self.web
        facts.own_urls = self._own_urls(facts.host, facts.port)
        if web is not None:
            facts.own_ws_urls = self._own_urls(*advertised(web.options.advertise, web.host, web.port))
        facts.connect_urls = self._all_urls("connect_urls", facts.own_urls)
        facts.ws_connect_urls = self._all_urls("ws_connect_urls", facts.own_ws_urls)

    def _all_urls(self, kind: str, own: list[str]) -> list[str]:
        """With those of other servers; none as long as no other was known: there was nobody to tell of."""
        others = self.routes.client_urls(kind) if self.routes is not None else []
        if others:
            self._met.add(kind)
        if kind not in self._met or self.options.cluster.no_advertise:
            return []
        return list(dict.fromkeys(own + others))

    def _own_urls(self, host: str, port: int) -> list[str]:
        """Those of one of this server's ports: what routes tell of it."""
        cluster = self.options.cluster
        if not cluster.port or cluster.no_advertise or self.facts.lame_duck:
            return []
        if host in ("0.0.0.0", "::", ""):
            return [shown(address, port) for address in interface_addresses()]
        return [shown(host, port)]

    def _urls_changed(self) -> None:
        facts = self.facts
        before = facts.connect_urls, facts.ws_connect_urls
        self._find_urls()
        if (facts.connect_urls, facts.ws_connect_urls) == before:
            return
        if self._urls_timer is None and self.loop is not None:
            self._urls_timer = self.loop.call_later(0.05, self._tell_clients)

    def _urls_for(self, client: Client) -> list[str]:
        return self.facts.connect_urls if client.web is None else self.facts.ws_connect_urls

    def _tell_clients(self) -> None:
        assert self.loop is not None
        self._urls_timer = None
        now = self.loop.time()
        young = False
        for client in self.clients.values():
            urls = self._urls_for(client)
            if client.connect is None or client.connect.protocol < 1:
                continue
            if client.told == urls:
                continue
            info = self.plane.conn_info(client.conn)
            if info is not None and not info.greeted and now - client.since < SETTLED_S:
                young = True
                continue
            client.told = urls
            self.plane.write(client.conn, self.client_info(client))
        if young:
            self._urls_timer = self.loop.call_later(TELL_AGAIN_S, self._tell_clients)

    # ---- events ----

    def event(self, kind: int, conn: int, conn_kind: int, a: int, b: int, data: Any) -> None:
        """One event of the plane."""
        handler = self.handlers.get(kind)
        if handler is not None:
            handler(conn, conn_kind, a, b, data)


def advertised(text: str, host: str, port: int) -> tuple[str, int]:
    """What `host`, `host:port` or '' in a configuration makes of the address that is listened on."""
    if not text:
        return host, port
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        return name, int(rest.removeprefix(":") or port)
    name, colon, given = text.rpartition(":")
    if not colon or ":" in name:  # an address of IPv6 without brackets has no port
        return text, port
    return name, int(given)
