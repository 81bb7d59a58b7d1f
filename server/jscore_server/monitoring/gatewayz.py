"""/gatewayz: the gateways to other clusters, of which there are none. Source: monitoring.md section 2.4."""

from __future__ import annotations

from jscore_server.monitoring.monitor import Body, Monitor
from jscore_server.monitoring.query import Asked, Option

OPTIONS = (
    Option("name", "text", "gw_name"),
    Option("accounts", "bool", "accs"),
    Option("account_name", "text", "acc_name"),
    Option("subscriptions", "subs", "subs"),
)


def gatewayz(monitor: Monitor, asked: Asked) -> Body:
    return {
        "server_id": monitor.server_id,
        "now": monitor.now(),
        "outbound_gateways": {},
        "inbound_gateways": {},
    }
