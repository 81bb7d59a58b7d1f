"""Routes: one connection per pair of servers for core messages and interest, and gossip of who else is there.

A route's life: dialled (we send CONNECT and INFO at once) or accepted (we send INFO, they send CONNECT and INFO); the
peer's first INFO registers it; from then on C sends our interest and forwards messages. Source: cluster-protocol.md 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from jscore_server.cluster.secure import ClusterTls
from jscore_server.dataplane import Plane
from jscore_server.logs import Log
from jscore_server.protocol import info as info_lines
from jscore_server.protocol.connect import Refused, decode_object

CONN_ROUTE = 1
DIAL_TIMEOUT_S = 1.0
RETRY_FIRST_S = 0.1
RETRY_S = 0.5
IMPLICIT_ATTEMPTS = 600
GOSSIP_PEERS_MAX = 1024
HANDSHAKE_S = 5.0  # a connection that has not said by then who it is is closed

Address = tuple[str, int]


@dataclass
class Route:
    """One route connection. `remote_id` is empty until the peer's first INFO."""

    conn: int
    solicited: bool
    peer_ip: str
    address: Address | None = None  # what was dialled
    trusted: bool = True  # it has shown the cluster's password, or none is needed
    remote_id: str = ""
    remote_name: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def dial_address(self) -> Address:
        """Where the peer's cluster port can be reached from here."""
        if self.address is not None:
            return self.address
        return (self.peer_ip, int(self.info.get("port") or 0))


@dataclass
class RouteCallbacks:
    """What the server does when the set of peers changes."""

    joined: Callable[[Route], None]
    changed: Callable[[], None]  # connect_urls may differ


class Routes:
    """All routes of one server: listens, dials, registers, gossips."""

    def __init__(
        self,
        plane: Plane,
        log: Log,
        facts: info_lines.ServerFacts,
        *,
        name: str,
        advertise: Address,
        link: dict[str, Any] | None,
        explicit: list[tuple[str, int, str, str]],
        authorization: tuple[str, str] | None,
        callbacks: RouteCallbacks,
        tls: ClusterTls | None = None,
    ) -> None:
        self.plane = plane
        self.log = log
        self.facts = facts
        self.name = name
        self.advertise = advertise
        self.link = link
        self.authorization = authorization
        self.callbacks = callbacks
        self.tls = tls
        self.explicit = explicit
        self.routes: dict[int, Route] = {}
        self.by_id: dict[str, Route] = {}
        self.self_addresses: set[Address] = set()
        self.id_at: dict[Address, str] = {}
        self.implicit: dict[Address, asyncio.Task[None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.rejected_names: set[str] = set()
        self.closing = False

    def start(self) -> None:
        for host, port, user, password in self.explicit:
            self._spawn(self._keep(host, port, user, password, attempts=0))

    def stop(self) -> None:
        self.closing = True
        for task in self.tasks:
            task.cancel()

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def own_info(self) -> bytes:
        host, port = self.advertise
        info = info_lines.route_info(self.facts, host=host, port=port, link=self.link)
        if self.tls is not None:
            info["tls_required"] = info["tls_verify"] = True
        return info_lines.line(info)

    # ---- connections ----

    def accepted(self, sock: socket.socket, peer_ip: str) -> None:
        """A connection on the cluster port: the peer may be a route or a replication link."""
        conn = self.plane.adopt(sock.detach(), CONN_ROUTE)
        if self.tls is not None:
            self.tls.accepted(self.plane, conn)
        self.routes[conn] = Route(conn, solicited=False, peer_ip=peer_ip, trusted=self.authorization is None)
        self.plane.write(conn, self.own_info())
        asyncio.get_running_loop().call_later(HANDSHAKE_S, self._introduced, conn)

    def _introduced(self, conn: int) -> None:
        route = self.routes.get(conn)
        if route is not None and not route.remote_id:
            self.plane.close_conn(conn, "Authentication Timeout")

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
        return (
            f"{route.address[0]}:{route.address[1]} - "
            if route and route.address
            else f"{route.peer_ip} - "
            if route
            else ""
        )

    async def _keep(self, host: str, port: int, user: str, password: str, attempts: int) -> None:
        """Dials until connected, again after a loss; `attempts` 0 = for ever, else for a server learned by gossip."""
        address = (host, port)
        failures = 0
        while not self.closing and address not in self.self_addresses:
            known = self.id_at.get(address)
            if known is not None and known in self.by_id:
                await asyncio.sleep(RETRY_S)
                failures = 0
                continue
            try:
                sock = await dial(host, port)
                self._solicit(sock, address, user, password)
            except OSError as err:
                failures += 1
                if attempts and failures >= attempts:
                    return
                if failures == 1 or failures % 120 == 0:
                    self.log.error(f"Error trying to connect to route (attempt {failures}): {err}")
                await asyncio.sleep(RETRY_FIRST_S if failures < 20 else RETRY_S)
                continue
            failures = 0
            for _ in range(20):  # the handshake is one round trip; a refused one must not be redialled in a storm
                await asyncio.sleep(RETRY_FIRST_S)
                if address in self.self_addresses or self.id_at.get(address) in self.by_id:
                    break

    def _solicit(self, sock: socket.socket, address: Address, user: str, password: str) -> None:
        peer_ip = sock.getpeername()[0]
        conn = self.plane.adopt(sock.detach(), CONN_ROUTE)
        if self.tls is not None:
            self.tls.dialled(self.plane, conn, address[0])
        self.routes[conn] = Route(conn, solicited=True, peer_ip=peer_ip, address=address)
        asyncio.get_running_loop().call_later(HANDSHAKE_S, self._introduced, conn)
        connect: dict[str, Any] = {
            "echo": True,
            "verbose": False,
            "pedantic": False,
            "tls_required": self.tls is not None,
            "headers": True,
            "name": self.facts.server_id,
            "cluster": self.facts.cluster,
            "lnoc": True,
        }
        if user:
            connect["user"], connect["pass"] = user, password
        self.plane.write(conn, b"CONNECT " + msgspec.json.encode(connect) + b"\r\n" + self.own_info())

    def closed(self, conn: int, reason: str) -> None:
        route = self.routes.pop(conn, None)
        if route is None:
            return
        remote = f" - Remote: {route.remote_name}" if route.remote_name else ""
        if route.remote_id and self.by_id.get(route.remote_id) is route:
            del self.by_id[route.remote_id]
            self.log.info(f"Router connection closed: {reason}{remote}")
            self.callbacks.changed()
        else:
            self.log.debug(f"Router connection closed: {reason}{remote}")

    def connect(self, conn: int, body: bytes) -> None:
        """CONNECT of the side that dialled."""
        try:
            fields = decode_object(body)
        except Refused:
            self.plane.close_conn(conn, "Parse Error")
            return
        if fields.get("lang"):
            self.plane.close_conn(conn, "Incorrect Port", "attempted to connect to route port")
        elif fields.get("gateway"):
            self.plane.close_conn(
                conn, "Wrong Gateway", f'Rejecting connection from gateway "{fields["gateway"]}" on the Route port'
            )
        elif self.authorization is not None and (fields.get("user"), fields.get("pass")) != self.authorization:
            self.plane.close_conn(conn, "Authentication Failure", "Authorization Violation")
        else:
            route = self.routes.get(conn)
            if route is not None:
                route.trusted = True

    def error(self, conn: int, text: str) -> None:
        route = self.routes.get(conn)
        name = f" - Remote: {route.remote_name}" if route is not None and route.remote_name else ""
        if text.strip("'").startswith("Not possible to have a dedicated route"):
            # Servers that keep a connection per account try one and go on without: no fault to show to anybody.
            self.log.debug(f"Route Error {text}{name}")
            return
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
                raise Refused("Parse Error", None)
            if not isinstance(fields.get("port"), int):
                raise Refused("Parse Error", None)
        except Refused as err:
            self.plane.close_conn(conn, err.reason)
            return
        if not route.remote_id:
            self._register(route, remote_id, fields)
        elif remote_id == route.remote_id:
            before = route.info.get("connect_urls")
            route.info.update({key: fields.get(key) for key in ("connect_urls", "ldm")})
            if route.info.get("connect_urls") != before:
                self.callbacks.changed()
        else:
            self._gossip_heard(remote_id, fields)

    def _register(self, route: Route, remote_id: str, fields: dict[str, Any]) -> None:
        name = str(fields.get("server_name") or remote_id)[:256]
        if remote_id == self.facts.server_id:
            if route.address is not None:
                self.self_addresses.add(route.address)
            self.plane.close_conn(route.conn, "Duplicate Route")
            return
        cluster = str(fields.get("cluster") or "")
        if cluster != self.facts.cluster:
            self.plane.close_conn(
                route.conn,
                "Cluster Name Conflict",
                f'Rejecting connection, cluster name "{cluster}" does not match "{self.facts.cluster}"',
            )
            return
        if name == self.facts.server_name or any(
            r.remote_name == name and r.remote_id != remote_id for r in self.by_id.values()
        ):
            if name not in self.rejected_names:
                self.rejected_names.add(name)
                self.log.error(f'Remote server has a duplicate name: "{name}"')
            self.plane.close_conn(route.conn, "Duplicate Server Name")
            return
        if route.address is not None:
            self.id_at[route.address] = remote_id
        route.remote_name, route.info = name, fields
        existing = self.by_id.get(remote_id)
        if existing is not None:
            # Both dialled each other: the one dialled by the lower id stays, the same choice at both ends.
            keep_solicited = self.facts.server_id < remote_id
            if existing.solicited == route.solicited or existing.solicited == keep_solicited:
                self.plane.close_conn(route.conn, "Duplicate Route")
                return
            route.remote_id = remote_id
            self.by_id[remote_id] = route
            self.plane.close_conn(existing.conn, "Duplicate Route")
            self.plane.route_ready(route.conn)
            return
        route.remote_id = remote_id
        self.by_id[remote_id] = route
        self.rejected_names.discard(name)
        self.plane.route_ready(route.conn)
        host, port = route.dial_address
        self.log.info(f"{host}:{port} - rid:{route.conn} - Route connection created")
        self._gossip_tell(route)
        self.callbacks.joined(route)
        self.callbacks.changed()

    # ---- gossip ----

    def _gossip_tell(self, new: Route) -> None:
        """Tells the other servers where the new one can be dialled, and the new one about them."""
        for other in list(self.by_id.values()):
            if other is not new:
                self.plane.write(other.conn, gossip_line(new))
                self.plane.write(new.conn, gossip_line(other))

    def _gossip_heard(self, remote_id: str, fields: dict[str, Any]) -> None:
        if remote_id == self.facts.server_id or remote_id in self.by_id:
            return
        if len(self.implicit) >= GOSSIP_PEERS_MAX:  # those that were given up make room
            self.implicit = {at: task for at, task in self.implicit.items() if not task.done()}
            if len(self.implicit) >= GOSSIP_PEERS_MAX:
                return
        try:
            address = url_address(str(fields.get("ip") or ""))
        except ValueError:
            return
        task = self.implicit.get(address)
        if (task is None or task.done()) and address not in self.self_addresses:
            if any((host, port) == address for host, port, _, _ in self.explicit):
                return
            user, password = self.authorization or ("", "")
            self.implicit[address] = self._spawn(self._keep(*address, user, password, attempts=IMPLICIT_ATTEMPTS))

    def broadcast_info(self) -> None:
        """Our INFO changed (lame duck, client URLs): tell all peers."""
        for route in self.by_id.values():
            self.plane.write(route.conn, self.own_info())

    def client_urls(self) -> list[str]:
        """The client addresses of the other servers."""
        urls: list[str] = []
        for route in self.by_id.values():
            listed = route.info.get("connect_urls")
            if isinstance(listed, list) and not route.info.get("ldm"):
                urls += [url for url in listed if isinstance(url, str) and len(url) <= 256][:16]
        return urls


def gossip_line(route: Route) -> bytes:
    """INFO about a third server, `ip` saying where to dial it."""
    host, port = route.dial_address
    shown = f"[{host}]" if ":" in host else host
    return info_lines.line({**route.info, "ip": f"nats-route://{shown}:{port}/"})


def url_address(url: str) -> Address:
    """(host, port) of a nats-route URL. Raises ValueError."""
    parts = urlsplit(url)
    if not parts.hostname or not parts.port:
        raise ValueError(f"no host and port in {url!r}")
    return (parts.hostname, parts.port)


async def dial(host: str, port: int) -> socket.socket:
    """A connected non-blocking socket, IPv4 first. Raises OSError (also on timeout)."""
    loop = asyncio.get_running_loop()
    try:
        found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), DIAL_TIMEOUT_S)
    except TimeoutError:
        raise OSError(f"{host}: name lookup took too long") from None
    except (OSError, UnicodeError, OverflowError) as err:  # a peer may say any name and number of itself and of others
        raise OSError(f"dial tcp {host}:{port}: {getattr(err, 'strerror', None) or err}") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    failure: OSError = OSError(f"{host}: no address")
    for family, kind, proto, _, address in found[:4]:
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            await asyncio.wait_for(loop.sock_connect(sock, address), DIAL_TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sock.getsockname() == sock.getpeername():  # a self-connect to a free ephemeral port
                raise OSError(f"{host}:{port}: connection refused")
            return sock
        except TimeoutError:
            failure = OSError(f"dial tcp {host}:{port}: i/o timeout")
        except OSError as err:
            failure = OSError(f"dial tcp {host}:{port}: {err.strerror or err}")
        except asyncio.CancelledError:
            sock.close()
            raise
        with contextlib.suppress(OSError):
            sock.close()
    raise failure
