"""/routez: the routes to the other servers of the cluster. Source: monitoring.md section 2.3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jscore_server.config.compression import LEVELS
from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.monitor import SECOND, Body, Monitor
from jscore_server.monitoring.query import Asked, Option, uptime
from jscore_server.monitoring.subsz import LISTED_MAX, sub_detail
from jscore_server.protocol.duration import go_duration

if TYPE_CHECKING:
    from jscore_server.cluster.peer import Route
    from jscore_server.dataplane import ConnInfo

OPTIONS = (Option("subscriptions", "subs", "subs"),)


def active_routes(monitor: Monitor) -> list[Route]:
    """The route connections that have introduced themselves."""
    routes = monitor.server.routes
    return [route for route in list(routes.routes.values()) if route.remote_id] if routes is not None else []


def compression(route: Route, info: ConnInfo) -> str:
    """The level in use, or why there is none."""
    return LEVELS[info.level] if info.level >= 0 else route.compression


def routez(monitor: Monitor, asked: Asked) -> Body:
    server = monitor.server
    configured = {(url.host, url.port) for url in server.options.cluster.routes}
    now = monitor.clock()
    shown = []
    for route in active_routes(monitor):
        info = server.plane.conn_info(route.conn)
        if info is None:
            continue
        body: Body = {
            "rid": route.conn,
            "remote_id": route.remote_id,
            "remote_name": route.remote_name,
            "did_solicit": route.solicited,
            "is_configured": route.address in configured,
            "ip": route.peer_ip,
            "port": route.dial_address[1],
            "start": format_time(info.start_ns),
            "last_activity": format_time(info.last_activity_ns),
        }
        if route.account:
            body["account"] = route.account
        if info.rtt_ns:
            body["rtt"] = go_duration(info.rtt_ns)
        body |= {
            "uptime": uptime((now - info.start_ns) / SECOND),
            "idle": uptime((now - info.last_activity_ns) / SECOND),
            "pending_size": info.pending,
            "in_msgs": info.in_msgs,
            "out_msgs": info.out_msgs,
            "in_bytes": info.in_bytes,
            "out_bytes": info.out_bytes,
            "subscriptions": info.subs,
        }
        if asked["subscriptions"] or asked["subscriptions_detail"]:
            _, subs = server.plane.subscriptions(conn=route.conn, limit=LISTED_MAX)
            if subs and asked["subscriptions_detail"]:
                body["subscriptions_list_detail"] = [
                    sub_detail(s.subject, s.queue, f"R {s.sid}", s.delivered, s.max, route.conn) for s in subs
                ]
            elif subs:
                body["subscriptions_list"] = [s.subject for s in subs]
        body["compression"] = compression(route, info)
        shown.append(body)
    return {
        "server_id": monitor.server_id,
        "server_name": server.facts.server_name,
        "now": format_time(now),
        "num_routes": len(shown),
        "routes": shown,
    }
