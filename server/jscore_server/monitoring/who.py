"""Who a connected client is, as pages and events show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jscore_server.monitoring.closed import Who

if TYPE_CHECKING:
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
        user=connect.user
        or (client.identity.user if client.identity is not None and client.identity.mapped else "")
        or ("[REDACTED]" if connect.auth_token else ""),
        account=account,
    )
