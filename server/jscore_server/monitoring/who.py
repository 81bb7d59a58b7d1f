"""Who a connected client is, as pages and events show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jscore_server.monitoring.closed import Who

if TYPE_CHECKING:
    from jscore_server.protocol.connect import Connect
    from jscore_server.server import Client


def who_is(client: Client, account: str) -> Who:
    """`account` as the data plane has it."""
    connect = client.connect
    client_type = "websocket" if client.connection_type == "WEBSOCKET" else "nats"
    if connect is None:
        return Who(client.cid, client.ip, client.port, client_type=client_type, account=account)
    return Who(
        cid=client.cid,
        ip=client.ip,
        port=client.port,
        client_type=client_type,
        name=connect.name,
        lang=connect.lang,
        version=connect.version,
        user=_user(client, connect),
        account=account,
    )


def _user(client: Client, connect: Connect) -> str:
    """As whom it came in, or what it called itself."""
    identity = client.identity
    if identity is not None and identity.mapped:
        return identity.user
    return connect.user or ("[REDACTED]" if connect.auth_token else "")
