"""Routes: the connections to the other servers for core messages and interest, and gossip of who else is there.

A route's life: dialled (CONNECT; our INFO follows when the peer's has said whether it keeps a pool) or accepted (INFO
at once; CONNECT and INFO come). The peer's first INFO registers it in a slot of its peer; from then on C sends our
interest and forwards messages. Where both want compression, a first INFO each way agrees on it, and all of that comes
after it. Source: cluster-protocol.md 1.1, 2.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from jscore_server.cluster import exchange
from jscore_server.cluster.compression import agreed, compresses, first_level
from jscore_server.cluster.dial import Address, address_url, dial, pause, url_address
from jscore_server.cluster.peer import Peer, Route, agree_on_name, pool_index, pool_size, quoted, traces
from jscore_server.cluster.secure import ClusterTls
from jscore_server.config.compression import AUTO, NOT_SUPPORTED, OFF
from jscore_server.config.users import Permissions
from jscore_server.dataplane import Plane
from jscore_server.logs import Log
from jscore_server.passwords import same_pair
from jscore_server.protocol import info as info_lines
from jscore_server.protocol.connect import Refused, decode_object

CONN_ROUTE = 1
IMPLICIT_ATTEMPTS = 300  # when nothing is configured: a server that was away for minutes is found again
GOSSIP_PEERS_MAX = 1024
GOSSIP_OFF = 1
CROSSING_S = 1.0  # a connection whose slot is taken by one in the other direction waits for the peer's choice
FILL_LATER_S = 2.0  # what the side that dialled first has not connected by then is dialled from here
SHORT_LIFE_S = 1.0  # a route closed this soon counts as an attempt that failed
DUPLICATE = "Duplicate Route"


class Settings(msgspec.Struct, frozen=True):
    """What the configuration says of routes."""

    explicit: tuple[tuple[str, int, str, str], ...]  # host, port, user, password
    pool_size: int = 3  # below 1: no pool
    accounts: tuple[str, ...] = ()  # with a connection of their own, when there is a pool
    authorization: tuple[str, str] | None = None
    handshake_s: float = 2.0  # a connection that has not said by then who it is is closed
    connect_retries: int = 0
    connect_backoff: bool = False
    advertise: str = ""
    error_reports: int = 120  # every how many failed attempts are told again
    dynamic: bool = False  # the cluster's name is made up: a configured one replaces it
    permissions: Permissions | None = None
    compression: str = OFF  # a mode
    rtt_thresholds_ns: tuple[int, ...] = ()

    @property
    def apart(self) -> tuple[str, ...]:
        return self.accounts if self.pool_size > 0 else ()


class RouteCallbacks(msgspec.Struct):
    """What the server does when the set of peers changes."""

    joined: Callable[[Route], None]
    changed: Callable[[], None]  # connect_urls may differ
    renamed: Callable[[], None] = lambda: None  # the cluster has another name


class Target(msgspec.Struct, eq=False):
    """A server to stay connected with."""

    address: Address
    user: str
    password: str
    explicit: bool
    wake: asyncio.Event
    task: asyncio.Task[None] | None = None
    failures: int = 0

    @property
    def done(self) -> bool:
        return self.task is None or self.task.done()


class Routes:
    """All routes of one server: listens, dials, registers, gossips."""

    def __init__(
        self,
        plane: Plane,
        log: Log,
        facts: info_lines.ServerFacts,
        *,
        listening: Address,
        link: dict[str, Any] | None,
        settings: Settings,
        callbacks: RouteCallbacks,
        tls: ClusterTls | None = None,
    ) -> None:
        self.plane = plane
        self.log = log
        self.facts = facts
        self.listening = listening
        self.link = link
        self.settings = settings
        self.callbacks = callbacks
        self.tls = tls
        self.routes: dict[int, Route] = {}
        self.peers: dict[str, Peer] = {}
        self.self_addresses: set[Address] = set()
        self.id_at: dict[Address, str] = {}
        self.targets: dict[Address, Target] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.rejected_names: set[str] = set()
        self.closing = False

    @property
    def by_id(self) -> dict[str, Route]:
        """One connection of each peer."""
        return {ident: route for ident, peer in self.peers.items() if (route := peer.first()) is not None}

    def start(self) -> None:
        exchange.bind(self.plane, self.settings.permissions)
        for host, port, user, password in self.settings.explicit:
            self._dial_always((host, port), user, password, explicit=True)

    def stop(self) -> None:
        self.closing = True
        for task in self.tasks:
            task.cancel()

    def apply(self, settings: Settings) -> None:
        """The configuration was read anew: closes what it no longer wants, dials what is new. The caller sends INFO."""
        old, self.settings = self.settings, settings
        wanted = {(host, port) for host, port, _, _ in settings.explicit}
        for address, target in list(self.targets.items()):
            if target.explicit and address not in wanted:
                del self.targets[address]
                if target.task is not None:
                    target.task.cancel()
                for route in list(self.routes.values()):  # those in the middle of their handshake, too
                    if route.address == address:
                        self.plane.close_conn(route.conn, "Route Removed")
        self.start()
        if any(getattr(old, name) != getattr(settings, name) for name in AGREED):
            self.close_all("Route Removed")

    def close_all(self, reason: str) -> None:
        for route in list(self.routes.values()):
            self.plane.close_conn(route.conn, reason)

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # ---- our INFO ----

    def told_address(self) -> Address:
        """Where others are told to dial this server: as advertised, or where it listens, on every interface perhaps."""
        said, port = self.settings.advertise, self.listening[1]
        if not said:
            return self.listening
        host, _, number = said.rpartition(":")
        if host and number.isdigit():
            return (host.strip("[]"), int(number))
        return (said.strip("[]"), port)

    def own_info(self, route: Route | None = None) -> bytes:
        settings = self.settings
        host, port = self.told_address()
        more: dict[str, Any] = {}
        if settings.advertise:
            more["ip"] = address_url((host, port))
        if settings.authorization is not None:
            more["auth_required"] = True
        more |= exchange.shown(settings.permissions)
        if self.tls is not None:
            more["tls_required"] = more["tls_verify"] = True
        if settings.dynamic:
            more["cluster_dynamic"] = True
        more["compression"] = (route.compression if route is not None else "") or settings.compression
        if settings.pool_size > 0:
            more["route_pool_size"] = settings.pool_size
            if route is not None and route.account:
                more["route_account"] = route.account
            elif route is not None and route.index:
                more["route_pool_idx"] = route.index
        return info_lines.line(info_lines.route_info(self.facts, host=host, port=port, link=self.link, more=more))

    def _introduce(self, route: Route) -> None:
        if not route.introduced:
            route.introduced = True
            self.plane.write(route.conn, self.own_info(route) + b"PING\r\n")

    def broadcast_info(self) -> None:
        """Our INFO changed (lame duck, client URLs): tell all peers."""
        for peer in self.peers.values():
            route = peer.first()
            if route is not None:
                self.plane.write(route.conn, self.own_info())

    # ---- connections ----

    def accepted(self, fd: int, peer_ip: str) -> None:
        """A connection on the cluster port: the peer may be a route or a replication link."""
        conn = self.plane.adopt(fd, CONN_ROUTE)
        if self.tls is not None:
            self.tls.accepted(self.plane, conn)
        trusted = self.settings.authorization is None and not (self.tls is not None and self.tls.judges)
        self.routes[conn] = Route(conn, solicited=False, peer_ip=peer_ip, trusted=trusted, introduced=True)
        self.plane.write(conn, self.own_info())
        self._expect(conn)

    def _expect(self, conn: int) -> None:
        asyncio.get_running_loop().call_later(self.settings.handshake_s, self._late, conn)

    def _late(self, conn: int) -> None:
        route = self.routes.get(conn)
        if route is not None and not route.remote_id:
            self.plane.close_conn(conn, "Authentication Timeout", "Authentication Timeout")

    def release(self, conn: int) -> bool:
        """The connection is no route after all (it asks to be a link). False when it is one already, or is unknown."""
        route = self.routes.get(conn)
        if route is None or route.remote_id:
            return False
        del self.routes[conn]
        return True

    def described(self, conn: int) -> str:
        """Where a route leads, for the log."""
        route = self.routes.get(conn)
        if route is None:
            return ""
        return f"{route.address[0]}:{route.address[1]} - " if route.address else f"{route.peer_ip} - "

    # ---- dialling ----

    def _dial_always(self, address: Address, user: str, password: str, *, explicit: bool) -> None:
        target = self.targets.get(address)
        if target is None or (target.done and address not in self.self_addresses):
            target = self.targets[address] = Target(address, user, password, explicit, asyncio.Event())
            target.task = self._spawn(self._keep(target))
        else:
            target.explicit = target.explicit or explicit
            target.user, target.password = user, password

    async def _keep(self, target: Target) -> None:
        """Dials what is missing of a server's connections, for ever or, known by gossip only, a number of times."""
        loop = asyncio.get_running_loop()
        complete, born = False, 0.0
        limit = 0 if target.explicit else self.settings.connect_retries or IMPLICIT_ATTEMPTS
        while not self.closing and target.address not in self.self_addresses:
            target.wake.clear()
            peer = self.peers.get(self.id_at.get(target.address, ""))
            account = peer.missing(self.settings.apart) if peer is not None else ""
            if account is None:
                complete = True
                await target.wake.wait()
                continue
            if complete:  # something was lost
                complete = False
                target.failures = 1 if loop.time() - born < SHORT_LIFE_S else 0
                await asyncio.sleep(pause(target.failures, backoff=self.settings.connect_backoff))
                continue
            if peer is not None and not peer.solicited:
                left = peer.incomplete_since + FILL_LATER_S - loop.time()
                if left > 0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(target.wake.wait(), left)
                    continue
            born = loop.time()
            try:
                why = await self._attempt(target, account)
            except OSError as err:
                why = str(err)
            target.failures += 1
            if not why:
                target.failures = 0
            elif why != DUPLICATE:
                if limit and target.failures >= limit and not target.explicit:
                    return
                if target.failures == 1 or target.failures % self.settings.error_reports == 0:
                    self.log.error(f"Error trying to connect to route (attempt {target.failures}): {why}")
            if why:
                await asyncio.sleep(pause(target.failures, backoff=self.settings.connect_backoff))

    async def _attempt(self, target: Target, account: str) -> str:
        """One connection: '' when the peer has taken it, or why it closed. Raises OSError."""
        sock = await dial(*target.address)
        peer_ip = sock.getpeername()[0]
        conn = self.plane.adopt(sock.detach(), CONN_ROUTE)
        if self.tls is not None:
            self.tls.dialled(self.plane, conn, target.address[0])
        settled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        route = self.routes[conn] = Route(
            conn,
            solicited=True,
            peer_ip=peer_ip,
            address=target.address,
            account=account,
            explicit=target.explicit,
            settled=lambda why: None if settled.done() else settled.set_result(why),
        )
        self._expect(conn)
        connect: dict[str, Any] = {
            "echo": True,
            "verbose": False,
            "pedantic": False,
            "tls_required": self.tls is not None,
            "headers": True,
            "name": self.facts.server_id,
            "cluster": self.facts.cluster,
            "lnoc": True,
            "lnocu": True,
        }
        if self.settings.dynamic:
            connect["cluster_dynamic"] = True
        if target.user:
            connect["user"], connect["pass"] = target.user, target.password
        self.plane.write(conn, b"CONNECT " + msgspec.json.encode(connect) + b"\r\n")
        if self.settings.pool_size < 1 and self.settings.compression in (OFF, NOT_SUPPORTED):
            self._introduce(route)
        return await settled

    def pong(self, conn: int) -> None:
        """The peer answers: it has taken the route."""
        route = self.routes.get(conn)
        if route is not None and route.remote_id:
            route.answered = True
            route.settle("")

    def closed(self, conn: int, reason: str) -> None:
        route = self.routes.pop(conn, None)
        if route is None:
            return
        remote = f" - Remote: {route.remote_name}" if route.remote_name else ""
        peer = self.peers.get(route.remote_id)
        had_slot = peer is not None and peer.remove(route)
        (self.log.info if had_slot and reason != DUPLICATE else self.log.debug)(
            f"{self._at(route)}rid:{conn} - Router connection closed: {reason}{remote}"
        )
        if peer is not None and had_slot:
            peer.incomplete_since = asyncio.get_running_loop().time()
            self._promote(peer)
            if not peer.routes():
                del self.peers[peer.id]
                self.callbacks.changed()
        route.settle(reason or "closed")
        self._wake()

    @staticmethod
    def _at(route: Route) -> str:
        host, port = route.dial_address
        return f"[{host}]:{port} - " if ":" in host else f"{host}:{port} - "

    def _wake(self) -> None:
        for target in self.targets.values():
            target.wake.set()

    def connect(self, conn: int, body: bytes) -> None:
        """CONNECT of the side that dialled."""
        try:
            fields = decode_object(body)
        except Refused:
            self.plane.close_conn(conn, "Parse Error")
            return
        authorization = self.settings.authorization
        if fields.get("lang"):
            self.plane.close_conn(conn, "Incorrect Port", "attempted to connect to route port")
        elif fields.get("gateway"):
            self.plane.close_conn(
                conn,
                "Wrong Gateway",
                f'Rejecting connection from gateway "{quoted(fields["gateway"])}" on the Route port',
            )
        elif self.tls is not None and self.tls.judges:
            if self.tls.knows(self.plane, conn, authorization[0] if authorization is not None else ""):
                self._trust(conn, fields)
            else:
                self.plane.close_conn(conn, "Authentication Failure", "Authorization Violation")
        elif authorization is not None and not same_pair((fields.get("user"), fields.get("pass")), authorization):
            self.plane.close_conn(conn, "Authentication Failure", "Authorization Violation")
        else:
            self._trust(conn, fields)

    def _trust(self, conn: int, fields: dict[str, Any]) -> None:
        """Who dialled may be a route, as far as its CONNECT goes."""
        route = self.routes.get(conn)
        if route is not None:
            route.trusted = True
        if fields.get("cluster"):
            # A peer with a chosen name parts at our made-up one: it is adopted here, for its next try.
            try:
                self._agree_on_name(fields)
            except Refused as err:
                self._refuse(conn, err)

    def _refuse(self, conn: int, err: Refused) -> None:
        if err.error:
            route = self.routes.get(conn)
            self.log.error(f"{self._at(route) if route is not None else ''}rid:{conn} - {err.error}")
        self.plane.close_conn(conn, err.reason, err.error)

    def error(self, conn: int, text: str) -> None:
        route = self.routes.get(conn)
        name = f" - Remote: {route.remote_name}" if route is not None and route.remote_name else ""
        said = text.strip("'")
        if route is not None and route.account and said.startswith(("No route for account", "Not possible to have")):
            peer = self.peers.get(route.remote_id)
            if peer is not None:
                self._share(peer, route.account)
            self.log.debug(f"Route Error {text}{name}")
        elif said.startswith("Not possible to have a dedicated route"):
            # A peer that keeps connections for accounts tried one and goes on without: no fault to show to anybody.
            self.log.debug(f"Route Error {text}{name}")
        else:
            self.log.error(f"Route Error {text}{name}")

    # ---- INFO ----

    def info(self, conn: int, body: bytes) -> None:
        """INFO from a route: the first registers it, later ones are updates or gossip about a third server."""
        route = self.routes.get(conn)
        if route is None:
            return
        if not route.trusted:
            self.plane.close_conn(conn, "Authentication Failure", "Authorization Violation")
            return
        try:
            fields = decode_object(body)
            remote_id = fields.get("server_id")
            if not isinstance(remote_id, str) or not remote_id or len(remote_id) > 128:
                raise Refused("Parse Error")
            if not isinstance(fields.get("port"), int):
                raise Refused("Parse Error")
        except Refused as err:
            self.plane.close_conn(conn, err.reason)
            return
        if not route.remote_id:
            try:
                if not self._compress(route, fields):
                    self._register(route, remote_id, fields)
            except Refused as err:
                self._refuse(conn, err)
        elif remote_id == route.remote_id:
            self._updated(remote_id, route, fields)
        else:
            self._gossip_heard(remote_id, fields)

    def _compress(self, route: Route, fields: dict[str, Any]) -> bool:
        """The first INFO decides on compression. True: with it another INFO comes, compressed. Raises Refused."""
        if route.compression:
            return False
        settings = self.settings
        route.compression = agreed(settings.compression, fields.get("compression"))
        if not compresses(route.compression):
            return False
        line = self.own_info(route)
        if route.solicited:  # what says so to the side that accepted goes as it is
            self.plane.write(route.conn, line)
        thresholds = settings.rtt_thresholds_ns if route.compression == AUTO else ()
        if self.plane.compress(route.conn, first_level(route.compression), thresholds) and not route.solicited:
            self.plane.write(route.conn, line)
        return True

    def _updated(self, remote_id: str, route: Route, fields: dict[str, Any]) -> None:
        peer = self.peers.get(remote_id)
        news = {key: fields.get(key) for key in ("connect_urls", "ws_connect_urls", "ldm")}
        before = {key: route.info.get(key) for key in news}
        exports = fields.get("export")
        for other in peer.routes() if peer is not None else [route]:
            other.info.update(news)
            if other.info.get("export") != exports:
                other.info["export"] = exports
                self.plane.route_tell(other.conn)  # it may take what it refused before
        if before != news:
            self.callbacks.changed()

    def _register(self, route: Route, remote_id: str, fields: dict[str, Any]) -> None:
        """The first INFO: who is there, and which of its connections this is. Raises Refused."""
        name = str(fields.get("server_name") or remote_id)[:256]
        route.info = fields
        if remote_id == self.facts.server_id:
            if route.address is not None:
                self.self_addresses.add(route.address)
            raise Refused(DUPLICATE)
        self._agree_on_name(fields)
        if name == self.facts.server_name or any(p.name == name and p.id != remote_id for p in self.peers.values()):
            if name not in self.rejected_names:
                self.rejected_names.add(name)
                self.log.error(f'Remote server has a duplicate name: "{name}"')
            raise Refused("Duplicate Server Name")
        if route.address is not None:
            self.id_at[route.address] = remote_id
        size = pool_size(self.settings.pool_size, fields)
        peer = self.peers.get(remote_id)
        if peer is not None and (peer.pooled, len(peer.pool)) != (size > 0, size or 1):
            raise Refused("Protocol Violation", "Invalid route pool size")
        new = peer is None
        if peer is None:
            peer = Peer(remote_id, name, size > 0, route.solicited, [None] * (size or 1))
        route.remote_name = name
        if not self._choose_slot(route, peer, fields):
            raise Refused(DUPLICATE)
        route.remote_id = remote_id
        taken = peer.at(route.account, route.index)
        if taken is not None:
            self._crossing(peer, route, taken)
            return
        self.rejected_names.discard(name)
        self.peers[remote_id] = peer
        self._occupy(peer, route)
        if new:
            self._gossip_tell(route)
            self.callbacks.joined(route)
            self.callbacks.changed()
            if not peer.solicited:
                asyncio.get_running_loop().call_later(2 * FILL_LATER_S, self._share_missing, peer)

    def _share_missing(self, peer: Peer) -> None:
        """Nobody has opened a connection for these accounts: they share the pool."""
        for account in peer.apart(self.settings.apart):
            if account not in peer.own:
                self._share(peer, account)

    def _share(self, peer: Peer, account: str) -> None:
        if account not in peer.refused:
            peer.refused.add(account)
            for route in peer.pool:
                if route is not None:
                    self.plane.route_share(route.conn, account)

    def _choose_slot(self, route: Route, peer: Peer, fields: dict[str, Any]) -> bool:
        """Sets account or index; False when there is no slot left to choose. Raises Refused."""
        account = fields.get("route_account")
        if route.solicited:
            if account or fields.get("route_pool_idx"):
                raise Refused("Protocol Violation")
            if route.account and not peer.pooled:
                text = f'Not possible to have a dedicated route for account "{route.account}" between those servers'
                raise Refused("Protocol Violation", text)
            if not route.account:
                free = peer.free_index()
                if free is None and route.introduced and not peer.pooled:
                    free = 0  # it may be the one that the peer has chosen
                if free is None:
                    return False
                route.index = free
            elif route.account in peer.own:
                return False
        elif account:
            if account not in peer.apart(self.settings.apart):
                raise Refused("Protocol Violation", f'No route for account "{quoted(account)}"')
            route.account = str(account)
        else:
            route.index = pool_index(len(peer.pool), fields)
        return True

    def _agree_on_name(self, fields: dict[str, Any]) -> None:
        name = agree_on_name(self.facts.cluster, self.settings.dynamic, fields)
        dynamic = self.settings.dynamic and bool(fields.get("cluster_dynamic"))
        if name == self.facts.cluster and dynamic == self.settings.dynamic:
            return
        renamed = name != self.facts.cluster
        self.facts.cluster = name
        self.settings = msgspec.structs.replace(self.settings, dynamic=dynamic)
        if renamed:
            self.log.info(f"Cluster name updated to {name}")
            for peer in self.peers.values():
                for route in peer.routes():
                    self.plane.close_conn(route.conn, "Cluster Name Conflict")
            self.callbacks.renamed()

    def _crossing(self, peer: Peer, new: Route, old: Route) -> None:
        """A slot is taken. Of two servers that dialled each other only one connection may go: the same at both ends."""
        if old.solicited == new.solicited:
            raise Refused(DUPLICATE)
        if isinstance(new.info.get("jscore"), dict):
            keep_solicited = self.facts.server_id < peer.id
            if old.solicited == keep_solicited:
                raise Refused(DUPLICATE)
            peer.put(new)
            self.plane.close_conn(old.conn, DUPLICATE)
            self._occupy(peer, new)
            return
        # Another make closes the one that it saw second; which that is shows when it closes.
        peer.waiting.append(new)
        asyncio.get_running_loop().call_later(CROSSING_S, self._given_up, peer, new)

    def _given_up(self, peer: Peer, route: Route) -> None:
        if route in peer.waiting:
            self.plane.close_conn(route.conn, DUPLICATE)

    def _promote(self, peer: Peer) -> None:
        for route in list(peer.waiting):
            if peer.at(route.account, route.index) is None:
                peer.waiting.remove(route)
                self._occupy(peer, route)

    def _occupy(self, peer: Peer, route: Route) -> None:
        """The route is one of the peer's connections from here on."""
        peer.put(route)
        if not route.introduced:
            self._introduce(route)
        size = len(peer.pool) if peer.pooled else 0
        self.plane.route_ready(
            route.conn,
            account=route.account,
            apart=peer.apart(self.settings.apart),
            pool_size=size,
            pool_index=route.index,
            traces=traces(route.info),
        )
        self.log.info(f"{self._at(route)}rid:{route.conn} - Route connection created")
        peer.incomplete_since = asyncio.get_running_loop().time()
        self._wake()

    # ---- gossip ----

    def _gossip_tell(self, new: Route) -> None:
        """Tells the other servers where the new one can be dialled, unless that is known from one of them."""
        if new.info.get("gossip_mode") == GOSSIP_OFF or (new.solicited and not new.explicit):
            return
        said = {key: value for key, value in new.info.items() if key not in NOT_TOLD}
        line = info_lines.line({**said, "ip": new.url})
        for other in self.by_id.values():
            if other.remote_id != new.remote_id:
                self.plane.write(other.conn, line)

    def _gossip_heard(self, remote_id: str, fields: dict[str, Any]) -> None:
        if remote_id == self.facts.server_id or remote_id in self.peers:
            return
        try:
            address = url_address(str(fields.get("ip") or ""))
        except ValueError:
            return
        self.found(address)

    def found(self, address: Address) -> None:
        """Somebody said that a server of the cluster can be dialled there: its route is made, if there is none."""
        implicit = [target for target in self.targets.values() if not target.explicit]
        if len(implicit) >= GOSSIP_PEERS_MAX:  # those that were given up make room
            for target in implicit:
                if target.done:
                    del self.targets[target.address]
            if sum(not target.explicit for target in self.targets.values()) >= GOSSIP_PEERS_MAX:
                return
        if address not in self.self_addresses:
            known = self.targets.get(address)
            if known is not None and not known.done:
                return
            user, password = self.settings.authorization or ("", "")
            self._dial_always(address, user, password, explicit=False)

    def client_urls(self, kind: str = "connect_urls") -> list[str]:
        """The client addresses of the other servers; `kind`: what their INFO calls them."""
        urls: list[str] = []
        for route in self.by_id.values():
            listed = route.info.get(kind)
            if isinstance(listed, list) and not route.info.get("ldm"):
                urls += [url for url in listed if isinstance(url, str) and len(url) <= 256][:16]
        return urls


NOT_TOLD = frozenset({"nonce", "route_pool_idx", "route_account", "route_acc_add_reqid", "gossip_mode", "jscore"})
AGREED = ("pool_size", "accounts", "authorization", "permissions", "compression", "rtt_thresholds_ns")
"""Settings that both ends of a connection agreed on when it was made."""
