"""/varz: the server as a whole. Source: monitoring.md section 2.1."""

from __future__ import annotations

import os
import re
import ssl

from jscore_server.dataplane import PlaneStats
from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.jsz import js_summary
from jscore_server.monitoring.monitor import SECOND, Body, Monitor, resident_bytes
from jscore_server.monitoring.query import Asked, Option, number, uptime
from jscore_server.monitoring.routez import active_routes
from jscore_server.protocol.certificate import BadCertificate, read_certificate

OPTIONS: tuple[Option, ...] = ()
TLS_TIMEOUT_S = 2
CERTIFICATE_MAX = 1 << 20


def varz(monitor: Monitor, asked: Asked) -> Body:
    stats = monitor.server.plane.stats()  # a sum over all connections
    return {
        **_identity(monitor),
        **_limits(monitor),
        **_listeners(monitor),
        **_figures(monitor, stats),
        **_setup(monitor, stats),
    }


def _identity(monitor: Monitor) -> Body:
    server, options, facts = monitor.server, monitor.server.options, monitor.server.facts
    body: Body = {
        "server_id": facts.server_id,
        "server_name": facts.server_name,
        "version": facts.version,
        "jscore_version": facts.own_version,
        "proto": 1,
        "go": "jscore",
        "host": options.host,
        "port": server.client_port,
    }
    if auth_required(monitor):
        body["auth_required"] = True
    body |= {name: True for name in ("tls_required", "tls_verify") if facts.tls.get(name)}
    if facts.connect_urls:
        body["connect_urls"] = facts.connect_urls
    if facts.ws_connect_urls:
        body["ws_connect_urls"] = facts.ws_connect_urls
    return body


def auth_required(monitor: Monitor) -> bool:
    return monitor.server.admission.authentication.required


def _limits(monitor: Monitor) -> Body:
    server, options = monitor.server, monitor.server.options
    body: Body = {"max_connections": options.max_connections}
    if options.max_subscriptions:
        body["max_subscriptions"] = options.max_subscriptions
    return body | {
        "ping_interval": int(options.ping_interval * SECOND),
        "ping_max": options.ping_max,
        "http_host": options.http_host or options.host,
        "http_port": server.http_port,
        "http_base_path": options.http_base_path.rstrip("/"),
        "https_port": server.https_port,
        "auth_timeout": number(server.admission.authentication.main.timeout_s),
        "max_control_line": options.max_control_line,
        "max_payload": options.max_payload,
        "max_pending": options.max_pending,
    }


def _listeners(monitor: Monitor) -> Body:
    """What else can be connected to: each is there, empty when it is off."""
    tls = monitor.server.tls
    return {
        "cluster": _cluster(monitor),
        "gateway": {},
        "leaf": {},
        "mqtt": {},
        "websocket": _websocket(monitor),
        "jetstream": js_summary(monitor),
        "tls_timeout": number(tls.options.timeout) if tls is not None else TLS_TIMEOUT_S,
        "write_deadline": int(monitor.server.options.write_deadline * SECOND),
    }


def _websocket(monitor: Monitor) -> Body:
    web, options = monitor.server.web, monitor.server.options.websocket
    if web is None:
        return {}
    told = {
        "host": options.host,
        "port": web.port,
        "advertise": options.advertise,
        "no_auth_user": options.no_auth_user,
        "jwt_cookie": options.jwt_cookie,
        "handshake_timeout": int(options.handshake_timeout * SECOND),
        "auth_timeout": number(options.timeout),
        "no_tls": options.no_tls,
        "tls_map": options.tls is not None and options.tls.verify_and_map,
        "tls_pinned_certs": sorted(options.tls.pinned_certs) if options.tls is not None else [],
        "same_origin": options.same_origin,
        "allowed_origins": options.allowed_origins,
        "compression": options.compression,
    }
    return {name: value for name, value in told.items() if value}


def _cluster(monitor: Monitor) -> Body:
    cluster = monitor.server.options.cluster
    if not cluster.port:
        return {}
    routes = monitor.server.routes
    body: Body = {"name": cluster.name, "addr": cluster.host}
    body["cluster_port"] = routes.listening[1] if routes is not None else cluster.port
    body["auth_timeout"] = number(cluster.authorization.timeout)
    urls = [f"[{u.host}]:{u.port}" if ":" in u.host else f"{u.host}:{u.port}" for u in cluster.routes]
    if urls:
        body["urls"] = urls
    body["tls_timeout"] = TLS_TIMEOUT_S
    if cluster.pool_size > 0:
        body["pool_size"] = cluster.pool_size
    if cluster.write_deadline:
        body["write_deadline"] = int(cluster.write_deadline * SECOND)
    return body


def _figures(monitor: Monitor, stats: PlaneStats) -> Body:
    server = monitor.server
    routes = active_routes(monitor)
    now = monitor.clock()
    return {
        "start": format_time(server.started_ns),
        "now": format_time(now),
        "uptime": uptime((now - server.started_ns) / SECOND),
        "mem": resident_bytes(),
        "cores": os.cpu_count() or 1,
        "gomaxprocs": os.cpu_count() or 1,
        "cpu": number(monitor.cpu_percent()),
        "connections": len(server.clients),
        "total_connections": server.next_cid - 1,
        "routes": len(routes),
        "remotes": len({route.remote_id for route in routes}),
        "leafnodes": 0,
        "in_msgs": stats.in_msgs,
        "in_bytes": stats.in_bytes,
        "in_client_msgs": stats.in_msgs - stats.route_in_msgs,
        "in_client_bytes": stats.in_bytes - stats.route_in_bytes,
        "out_msgs": stats.out_msgs,
        "out_bytes": stats.out_bytes,
        "out_client_msgs": stats.out_msgs - stats.route_out_msgs,
        "out_client_bytes": stats.out_bytes - stats.route_out_bytes,
        "slow_consumers": stats.slow_consumers,
        "stale_connections": stats.stale_clients + stats.stale_routes,
        "stalled_clients": stats.stalls,
        "subscriptions": stats.subscriptions + stats.remote_subscriptions,
        "http_req_stats": dict(sorted(monitor.asked.items())),
    }


def _setup(monitor: Monitor, stats: PlaneStats) -> Body:
    server, options = monitor.server, monitor.server.options
    body: Body = {
        "config_load_time": format_time(server.loaded_ns),
        "config_digest": options.config_digest,
    }
    if options.server_tags:
        body["tags"] = options.server_tags
    if options.server_metadata:
        body["metadata"] = options.server_metadata
    body["feature_flags"] = monitor.feature_flags()
    if not options.no_system_account:
        body["system_account"] = monitor.system_account
    body["slow_consumer_stats"] = by_kind(stats.slow_clients, stats.slow_routes)
    body["stale_connection_stats"] = by_kind(stats.stale_clients, stats.stale_routes)
    body["disk_io_wait_stats"] = {"waiters": 0, "waits": 0, "wait_time": 0, "max_wait_time": 0}
    if server.tls is not None and (until := _not_after([cert for cert, _ in server.tls.options.certificates])):
        body["tls_cert_not_after"] = until
    return body


def _not_after(files: list[str]) -> str:
    """When the first of the certificates ends."""
    ends = []
    for path in files:
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                found = re.search(f"{ssl.PEM_HEADER}.*?{ssl.PEM_FOOTER}", file.read(CERTIFICATE_MAX), re.DOTALL)
            ends.append(read_certificate(ssl.PEM_cert_to_DER_cert(found[0] if found else "")).not_after)
        except (OSError, ValueError, BadCertificate):
            continue
    return min(ends).strftime("%Y-%m-%dT%H:%M:%SZ") if ends else ""


def by_kind(clients: int, routes: int) -> Body:
    return {"clients": clients, "routes": routes, "gateways": 0, "leafs": 0}
