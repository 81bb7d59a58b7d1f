"""Another server of the cluster, and the connections that lead to it. Pure.

A peer is reached over a pool of connections, an account's traffic over one of them, and over one connection for each
account that has its own; a peer without pools over a single one. Source: cluster-protocol.md 2.4.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from jscore_server.cluster.dial import Address, address_url, url_address
from jscore_server.protocol.connect import Refused
from jscore_server.protocol.info import TRACING_PROTO

POOL_MAX = 256  # connections to one peer, however many it asks for


class Route(msgspec.Struct, eq=False):
    """One route connection. `remote_id` is empty until it is registered."""

    conn: int
    solicited: bool
    peer_ip: str
    address: Address | None = None  # what was dialled
    account: str = ""  # the one it is for, '' = the pool
    index: int = 0  # in the pool
    explicit: bool = False  # dialled as the configuration says
    trusted: bool = True  # it has shown the cluster's password, or none is needed
    introduced: bool = False  # our INFO was sent
    compression: str = ""  # the mode that was agreed on; '' before the peer's first INFO
    remote_id: str = ""
    remote_name: str = ""
    info: dict[str, Any] = msgspec.field(default_factory=dict)
    settled: Callable[[str], None] | None = None  # told once: '' when the peer has answered, or why it closed
    answered: bool = False

    @property
    def dial_address(self) -> Address:
        """Where the peer's cluster port can be reached from here."""
        if self.address is not None:
            return self.address
        try:
            return url_address(str(self.info.get("ip") or ""))
        except ValueError:
            port = self.info.get("port")
            return (self.peer_ip, port if isinstance(port, int) else 0)

    @property
    def url(self) -> str:
        """What to tell others about where the peer is."""
        return str(self.info.get("ip") or "") or address_url(self.dial_address)

    def settle(self, why: str) -> None:
        if self.settled is not None:
            settled, self.settled = self.settled, None
            settled(why)


class Peer(msgspec.Struct, eq=False):
    """One other server. Its slots are filled as connections register; `waiting` ones hope for a slot that is taken."""

    id: str
    name: str
    pooled: bool
    solicited: bool  # we dialled first: we see to it that the slots fill
    pool: list[Route | None]
    own: dict[str, Route] = msgspec.field(default_factory=dict)
    refused: set[str] = msgspec.field(default_factory=set)  # accounts for which it has no connection of their own
    waiting: list[Route] = msgspec.field(default_factory=list)
    incomplete_since: float = 0.0

    def routes(self) -> list[Route]:
        return [route for route in self.pool if route is not None] + list(self.own.values())

    def first(self) -> Route | None:
        """The connection for what is said once to a peer."""
        routes = self.routes()
        return routes[0] if routes else None

    def at(self, account: str, index: int) -> Route | None:
        return self.own.get(account) if account else self.pool[index]

    def put(self, route: Route) -> None:
        if route.account:
            self.own[route.account] = route
        else:
            self.pool[route.index] = route

    def remove(self, route: Route) -> bool:
        """Whether the connection had a slot."""
        if route in self.waiting:
            self.waiting.remove(route)
        if self.at(route.account, route.index) is not route:
            return False
        if route.account:
            del self.own[route.account]
        else:
            self.pool[route.index] = None
        return True

    def free_index(self) -> int | None:
        return next((i for i, route in enumerate(self.pool) if route is None), None)

    def missing(self, apart: Collection[str]) -> str | None:
        """What to dial next: '' = a connection of the pool, or an account; None when all are there."""
        if self.free_index() is not None:
            return ""
        if self.pooled:
            for account in apart:
                if account not in self.own and account not in self.refused:
                    return account
        return None

    def apart(self, accounts: Collection[str]) -> list[str]:
        """The accounts that are on no connection of the pool."""
        return [account for account in accounts if account not in self.refused] if self.pooled else []


def traces(info: dict[str, Any]) -> bool:
    """Whether a server with that INFO knows of message tracing."""
    proto = info.get("proto")
    return isinstance(proto, int) and proto >= TRACING_PROTO


def quoted(text: object) -> str:
    """What a peer said, fit for a line of the protocol and of the log."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:256])


def pool_size(own: int, info: dict[str, Any]) -> int:
    """Connections of the pool that both ends use, 0 when one of them knows no pools. Raises Refused."""
    said = info.get("route_pool_size", 0)
    if type(said) is not int or not 0 <= said <= POOL_MAX:
        raise Refused("Protocol Violation", "Invalid route pool size")
    return max(own, said) if own > 0 and said > 0 else 0


def pool_index(size: int, info: dict[str, Any]) -> int:
    """Which of the pool's connections the dialling side wants this one to be. Raises Refused."""
    index = info.get("route_pool_idx", 0)
    if type(index) is not int or not 0 <= index < max(size, 1):
        raise Refused("Protocol Violation", f"Invalid route pool index: {index} - pool size is {size}")
    return index


def agree_on_name(own: str, own_dynamic: bool, info: dict[str, Any]) -> str:
    """The name for both: a configured one wins over a made one, of two made ones the larger. Raises Refused."""
    theirs, dynamic = str(info.get("cluster") or ""), bool(info.get("cluster_dynamic"))
    if theirs == own or (dynamic and not own_dynamic):
        return own
    if own_dynamic and theirs and " " not in theirs and len(theirs) <= 256:
        return max(own, theirs) if dynamic else theirs
    raise Refused(
        "Cluster Name Conflict", f'Rejecting connection, cluster name "{quoted(theirs)}" does not match "{own}"'
    )
