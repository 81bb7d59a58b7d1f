"""INFO lines: what a server tells a client (client-protocol.md section 3) or a route (cluster-protocol.md 2.2)."""

from __future__ import annotations

from typing import Any

import msgspec

CLIENT_PROTO = 1
# Account-aware routes (RS+ and RMSG carry the account), async INFO, message tracing.
ROUTE_PROTO = TRACING_PROTO = 3


class ServerFacts(msgspec.Struct):
    """The fields that every INFO shares. Ports are those bound, hosts those advertised."""

    server_id: str
    server_name: str
    version: str  # the NATS level served: clients switch features by it
    own_version: str
    host: str
    port: int
    max_payload: int
    jetstream: bool
    headers: bool = True
    git_commit: str = ""
    cluster: str = ""
    domain: str = ""
    connect_urls: list[str] = msgspec.field(default_factory=list)
    own_urls: list[str] = msgspec.field(default_factory=list)  # those of connect_urls that are this server's
    ws_connect_urls: list[str] = msgspec.field(default_factory=list)  # the same for clients that come by websocket
    own_ws_urls: list[str] = msgspec.field(default_factory=list)
    lame_duck: bool = False
    tls: dict[str, bool] = msgspec.field(default_factory=dict)  # of the client listener


def line(fields: dict[str, Any]) -> bytes:
    """One INFO line. The blank before CRLF is the peer's habit on client and route ports."""
    return b"INFO " + msgspec.json.encode(fields) + b" \r\n"


def client_info(
    facts: ServerFacts,
    *,
    client_id: int,
    client_ip: str,
    auth_required: bool = False,
    account: str = "",
    system: bool = False,
    max_payload: int | None = None,
) -> dict[str, Any]:
    """INFO for a client; with `account` the second one, sent after its first PONG.

    `system`: that account is the system account. `max_payload`: a bound of the account below the server's.
    """
    info: dict[str, Any] = {
        "server_id": facts.server_id,
        "server_name": facts.server_name,
        "version": facts.version,
        "jscore_version": facts.own_version,
        "proto": CLIENT_PROTO,
        "go": "jscore",
        "host": facts.host,
        "port": facts.port,
        "headers": facts.headers,
    }
    if auth_required:
        info["auth_required"] = True
    info.update(facts.tls)
    info["max_payload"] = facts.max_payload if max_payload is None else min(max_payload, facts.max_payload)
    if facts.jetstream:
        info["jetstream"] = True
    info["client_id"] = client_id
    if client_ip:
        info["client_ip"] = client_ip
    if facts.cluster:
        info["cluster"] = facts.cluster
    _add_optional(info, facts, facts.connect_urls)
    if account:
        info["connect_info"] = True
        info["remote_account"] = account
        if system:
            info["acc_is_sys"] = True
    # No api_lvl: the features behind JetStream's API levels 1 to 4 are not served yet, and 0 is left out on the wire.
    return info


LINES_KEPT = 256
_VARIES = b'"client_id":0'
_VARIES_WITH_IP = b'"client_id":0,"client_ip":"?"'


class ClientLines:
    """INFO lines for the clients of one listener. All but a client's number and address is written once for many."""

    def __init__(self) -> None:
        self._facts: ServerFacts | None = None
        self._halves: dict[tuple[bool, str, bool, int | None, bool], tuple[bytes, bytes]] = {}

    def line(
        self,
        facts: ServerFacts,
        *,
        client_id: int,
        client_ip: str,
        auth_required: bool = False,
        account: str = "",
        system: bool = False,
        max_payload: int | None = None,
    ) -> bytes:
        """`line` of `client_info`, with the same arguments."""
        if facts != self._facts or len(self._halves) >= LINES_KEPT:
            self._facts = msgspec.structs.replace(facts)
            self._halves.clear()
        key = (auth_required, account, system, max_payload, bool(client_ip))
        halves = self._halves.get(key)
        if halves is None:
            fields = client_info(
                facts,
                client_id=0,
                client_ip="?" if client_ip else "",
                auth_required=auth_required,
                account=account,
                system=system,
                max_payload=max_payload,
            )
            # Not to be met in any text, whose quotes are escaped.
            head, _, tail = line(fields).partition(_VARIES_WITH_IP if client_ip else _VARIES)
            halves = self._halves[key] = head, tail
        if not client_ip:
            return b'%b"client_id":%d%b' % (halves[0], client_id, halves[1])
        return b'%b"client_id":%d,"client_ip":%b%b' % (
            halves[0],
            client_id,
            msgspec.json.encode(client_ip),
            halves[1],
        )


def _add_optional(info: dict[str, Any], facts: ServerFacts, urls: list[str]) -> None:
    """What either kind of INFO shows only when there is something to show."""
    if facts.domain:
        info["domain"] = facts.domain
    if urls:
        info["connect_urls"] = urls
    if facts.lame_duck:
        info["ldm"] = True


def route_info(
    facts: ServerFacts, *, host: str, port: int, link: dict[str, Any] | None, more: dict[str, Any]
) -> dict[str, Any]:
    """INFO for a route; `more` is what this one connection says.

    `link` is ours: what another jscore server needs to open the replication link; other servers ignore it.
    """
    info: dict[str, Any] = {
        "server_id": facts.server_id,
        "server_name": facts.server_name,
        "version": facts.version,
        "jscore_version": facts.own_version,
        "proto": ROUTE_PROTO,
        "go": "jscore",
        "host": host,
        "port": port,
        "headers": facts.headers,
        "max_payload": facts.max_payload,
        "jetstream": facts.jetstream,
        "cluster": facts.cluster,
        "lnoc": True,
        "lnocu": True,
        **more,
    }
    _add_optional(info, facts, facts.own_urls)
    if facts.own_ws_urls:
        info["ws_connect_urls"] = facts.own_ws_urls
    if link is not None:
        info["jscore"] = link
    return info
