"""STATSZ: the short account of a server that all others and its operators get every few seconds. monitoring.md 3.4."""

from __future__ import annotations

import os

from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.jsz import js_summary
from jscore_server.monitoring.monitor import Body, Monitor, resident_bytes
from jscore_server.monitoring.query import number
from jscore_server.monitoring.routez import active_routes
from jscore_server.monitoring.varz import by_kind
from jscore_server.system.fleet import Fleet


def statsz(monitor: Monitor, fleet: Fleet) -> Body:
    server = monitor.server
    stats = server.plane.stats()
    cores = os.cpu_count() or 1
    body: Body = {
        "start": format_time(server.started_ns),
        "mem": resident_bytes(),
        "cores": cores,
        "cpu": number(monitor.cpu_percent()),
        "connections": len(server.clients),
        "total_connections": server.next_cid - 1,
        "active_accounts": sum(info.subs > 0 for info in server.plane.account_infos()),
        "subscriptions": stats.subscriptions + stats.remote_subscriptions,
        "sent": _data(stats.out_msgs, stats.out_bytes),
        "sent_to_clients": _data(stats.out_msgs - stats.route_out_msgs, stats.out_bytes - stats.route_out_bytes),
        "received": _data(stats.in_msgs, stats.in_bytes),
        "received_from_clients": _data(stats.in_msgs - stats.route_in_msgs, stats.in_bytes - stats.route_in_bytes),
        "slow_consumers": stats.slow_consumers,
    }
    if stats.slow_consumers:
        body["slow_consumer_stats"] = by_kind(stats.slow_clients, stats.slow_routes)
    stale = stats.stale_clients + stats.stale_routes
    if stale:
        body["stale_connections"] = stale
        body["stale_connection_stats"] = by_kind(stats.stale_clients, stats.stale_routes)
    if stats.stalls:
        body["stalled_clients"] = stats.stalls
    routes = _routes(monitor)
    if routes:
        body["routes"] = routes
    body["active_servers"] = fleet.active()
    jetstream = js_summary(monitor)
    if jetstream:
        del jetstream["config"]["store_dir"]  # nobody else's business
        body["jetstream"] = jetstream
    body["gomaxprocs"] = cores
    return body


def _routes(monitor: Monitor) -> list[Body]:
    shown = []
    for route in active_routes(monitor):
        info = monitor.server.plane.conn_info(route.conn)
        if info is not None:
            shown.append(
                {
                    "rid": route.conn,
                    "name": route.remote_name,
                    "sent": _data(info.out_msgs, info.out_bytes),
                    "received": _data(info.in_msgs, info.in_bytes),
                    "pending": info.pending,
                }
            )
    return shown


def _data(msgs: int, size: int) -> Body:
    return {"msgs": msgs, "bytes": size}
