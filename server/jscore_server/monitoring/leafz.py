"""/leafz: the leaf nodes, of which there are none. Source: monitoring.md section 2.5."""

from __future__ import annotations

from jscore_server.monitoring.monitor import Body, Monitor
from jscore_server.monitoring.query import Asked, Option

OPTIONS = (Option("subscriptions", "bool", "subs"), Option("account", "text", "acc"))


def leafz(monitor: Monitor, asked: Asked) -> Body:
    return {"server_id": monitor.server_id, "now": monitor.now(), "leafnodes": 0, "leafs": []}
