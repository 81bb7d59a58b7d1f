"""/metrics: the figures in Prometheus' text format.

Names and labels are those of the prometheus-nats-exporter (prefix `gnatsd_`, JetStream `jetstream_`), so that its
dashboards and alerts go on working without it; `jscore_` and `process_` are this server's own.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from typing import Any

from jscore_server.jetstream.models import parse_time
from jscore_server.monitoring.accstatz import OPTIONS as ACCSTATZ
from jscore_server.monitoring.accstatz import accstatz
from jscore_server.monitoring.healthz import OPTIONS as HEALTHZ
from jscore_server.monitoring.healthz import healthz
from jscore_server.monitoring.jsz import OPTIONS as JSZ
from jscore_server.monitoring.jsz import jsz
from jscore_server.monitoring.monitor import PAGE, SECOND, Body, Monitor, Sliced, resident_bytes
from jscore_server.monitoring.query import nothing
from jscore_server.monitoring.routez import active_routes, compression
from jscore_server.monitoring.subsz import OPTIONS as SUBSZ
from jscore_server.monitoring.subsz import subsz
from jscore_server.monitoring.varz import OPTIONS as VARZ
from jscore_server.monitoring.varz import varz

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, Any]
# What only grows; the rest are gauges, as with the exporter. Told apart by the end of the name.
_COUNTERS = ("_msgs", "_bytes", "_total", "total_connections", "slow_consumers", "stale_connections", "stalled_clients")
_GAUGES = ("pending_bytes", "resident_memory_bytes", "total_bytes", "message_bytes")
_STREAM = (
    ("total_messages", "messages"),
    ("total_bytes", "bytes"),
    ("first_seq", "first_seq"),
    ("last_seq", "last_seq"),
)
_CONSUMER = ("num_ack_pending", "num_redelivered", "num_waiting", "num_pending")


class Families:
    """Samples by name, so that those of one name stand together whatever the order they come in."""

    def __init__(self) -> None:
        self._samples: dict[str, list[str]] = {}

    def add(self, name: str, value: float | int | bool, labels: Labels) -> None:
        shown = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
        number = int(value) if isinstance(value, bool) else value
        self._samples.setdefault(name, []).append(f"{name}{{{shown}}} {number}" if shown else f"{name} {number}")

    def text(self) -> str:
        lines = []
        for name, samples in self._samples.items():
            counter = name.endswith(_COUNTERS) and not name.endswith(_GAUGES)
            lines.append(f"# TYPE {name} {'counter' if counter else 'gauge'}")
            lines += samples
        return "\n".join(lines) + "\n"


def metrics(monitor: Monitor) -> Sliced[str]:
    families = Families()
    server = {"server_id": monitor.server_id}
    _varz(families, monitor, server)
    yield
    yield from _connections(families, monitor, server)
    _routes(families, monitor, server)
    yield from _subscriptions(families, monitor, server)
    _accounts(families, monitor, server)
    status, _ = healthz(monitor, nothing(HEALTHZ))
    families.add("gnatsd_healthz_status", 0 if status == 200 else 1, server)
    yield
    yield from _jetstream(families, monitor)
    _own(families, monitor)
    return families.text()


def _varz(families: Families, monitor: Monitor, server: Labels) -> None:
    body = varz(monitor, nothing(VARZ))
    for name in ("server_id", "server_name", "version"):
        families.add(f"gnatsd_varz_{name}", 1, {**server, "value": body[name]})
    del body["http_req_stats"]
    for name, value in _numbers(body):
        families.add(f"gnatsd_varz_{name}", value, server)
    families.add("gnatsd_varz_start", parse_time(body["start"]) // 1_000_000, server)
    families.add("gnatsd_varz_config_load_time", parse_time(body["config_load_time"]) // 1_000_000, server)


def _numbers(body: Body, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number below, named by its path."""
    for name, value in body.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}_")
        elif isinstance(value, int | float):
            yield prefix + name, value


def _connections(families: Families, monitor: Monitor, server: Labels) -> Sliced[None]:
    """Sums over all clients, made in C account by account, not a page's worth of them as the exporter's."""
    accounts = monitor.server.plane.account_infos()
    clients = list(monitor.server.clients)
    pending = subs = 0
    for count, conn in enumerate(clients):
        if count % 512 == 511:
            yield
        info = monitor.server.plane.conn_info(conn)
        if info is not None:
            pending += info.pending
            subs += info.subs
    for name, value in {
        "num_connections": min(len(clients), PAGE),
        "total": len(clients),
        "offset": 0,
        "limit": PAGE,
        "pending_bytes": pending,
        "subscriptions": subs,
        "in_bytes": sum(a.clients.in_bytes for a in accounts),
        "out_bytes": sum(a.clients.out_bytes for a in accounts),
        "in_msgs": sum(a.clients.in_msgs for a in accounts),
        "out_msgs": sum(a.clients.out_msgs for a in accounts),
    }.items():
        families.add(f"gnatsd_connz_{name}", value, server)


def _routes(families: Families, monitor: Monitor, server: Labels) -> None:
    routes = active_routes(monitor)
    now = monitor.clock()
    families.add("gnatsd_routez_num_routes", len(routes), server)
    for route in routes:
        info = monitor.server.plane.conn_info(route.conn)
        if info is None:
            continue
        rid = {**server, "rid": route.conn}
        told = {"remote_id": route.remote_id, "remote_name": route.remote_name, "account": "", "ip": route.peer_ip}
        families.add("gnatsd_routez_route_info", 1, {**rid, **told, "compression": compression(route, info)})
        if info.rtt_ns:
            families.add("gnatsd_routez_route_rtt_seconds", info.rtt_ns / SECOND, rid)
        families.add("gnatsd_routez_route_subscriptions", info.subs, rid)
        families.add("gnatsd_routez_route_uptime_seconds", (now - info.start_ns) // SECOND, rid)
        families.add("gnatsd_routez_route_pending_bytes", info.pending, rid)
        for name in ("in_msgs", "out_msgs", "in_bytes", "out_bytes"):
            families.add(f"gnatsd_routez_route_{name}", getattr(info, name), rid)


def _subscriptions(families: Families, monitor: Monitor, server: Labels) -> Sliced[None]:
    for name, value in _numbers((yield from subsz(monitor, nothing(SUBSZ)))):
        families.add(f"gnatsd_subsz_{name}", value, server)


def _accounts(families: Families, monitor: Monitor, server: Labels) -> None:
    for account in accstatz(monitor, {**nothing(ACCSTATZ), "include_unused": True})["account_statz"]:
        named = {"account": account["acc"], "account_id": account["acc"], "account_name": account["name"]}
        labels = {**server, **named}
        for name, value in {
            "current_connections": account["conns"],
            "total_connections": account["total_conns"],
            "subscriptions": account["num_subscriptions"],
            "leaf_nodes": account["leafnodes"],
            "sent_messages": account["sent"]["msgs"],
            "sent_bytes": account["sent"]["bytes"],
            "received_messages": account["received"]["msgs"],
            "received_bytes": account["received"]["bytes"],
            "slow_consumers": account["slow_consumers"],
        }.items():
            families.add(f"gnatsd_accstatz_{name}", value, labels)


def _jetstream(families: Families, monitor: Monitor) -> Sliced[None]:
    body = yield from jsz(monitor, {**nothing(JSZ), "consumer": True})
    name = monitor.server.facts.server_name
    meta = body.get("meta_cluster", {})
    labels = {
        "server_id": monitor.server_id,
        "server_name": name,
        "cluster": meta.get("name", ""),
        "domain": body["config"].get("domain", ""),
        "meta_leader": meta.get("leader", ""),
        "is_meta_leader": _truth(not meta or meta.get("leader") == name),
    }
    for what, value in {
        "jetstream_disabled": int(body.get("disabled", False)),
        "max_memory": body["config"]["max_memory"],
        "max_storage": body["config"]["max_storage"],
        "total_streams": body["streams"],
        "total_consumers": body["consumers"],
        "total_messages": body["messages"],
        "total_message_bytes": body["bytes"],
    }.items():
        families.add(f"jetstream_server_{what}", value, labels)
    for account in body.get("account_details", ()):
        families.add("jetstream_account_memory_used", account["memory"], {**labels, "account": account["name"]})
        families.add("jetstream_account_storage_used", account["storage"], {**labels, "account": account["name"]})
        for count, stream in enumerate(account.get("stream_detail", ())):
            if count % 64 == 63:
                yield
            _stream(families, stream, {**labels, "account": account["name"], "account_id": account["id"]}, name)


def _stream(families: Families, stream: Body, labels: Labels, server: str) -> None:
    leader = stream["cluster"].leader
    labels = {
        **labels,
        "stream_name": stream["name"],
        "stream_leader": leader,
        "is_stream_leader": _truth(leader == server),
    }
    state = stream["state"]
    for name, field in _STREAM:
        families.add(f"jetstream_stream_{name}", getattr(state, field), labels)
    families.add("jetstream_stream_consumer_count", state.consumer_count, labels)
    families.add("jetstream_stream_subject_count", state.num_subjects, labels)
    for consumer in stream.get("consumer_detail", ()):
        known = {
            **labels,
            "consumer_name": consumer["name"],
            "consumer_leader": leader,
            "is_consumer_leader": labels["is_stream_leader"],
            "consumer_desc": "",
            "consumer_created": consumer["created"],
        }
        for part in ("delivered", "ack_floor"):
            families.add(f"jetstream_consumer_{part}_consumer_seq", consumer[part]["consumer_seq"], known)
            families.add(f"jetstream_consumer_{part}_stream_seq", consumer[part]["stream_seq"], known)
        for name in _CONSUMER:
            families.add(f"jetstream_consumer_{name}", consumer[name], known)


def _own(families: Families, monitor: Monitor) -> None:
    facts = monitor.server.facts
    families.add("jscore_build_info", 1, {"version": facts.own_version, "nats_version": facts.version})
    families.add("jscore_uptime_seconds", (monitor.clock() - monitor.server.started_ns) // SECOND, {})
    for path, count in sorted(monitor.asked.items()):
        families.add("jscore_monitoring_requests_total", count, {"path": path})
    engine = monitor.engine()
    if engine is not None:
        families.add("jscore_raft_groups", len(engine.raft.groups), {})
        families.add("jscore_raft_groups_led", sum(group.is_leader for group in engine.raft.groups.values()), {})
        families.add("jscore_streams_failed", sum(bool(asset.failed) for asset in engine.assets.values()), {})
        families.add("jscore_api_requests_total", engine.api.total, {})
        families.add("jscore_api_errors_total", engine.api.errors, {})
    usage = resource.getrusage(resource.RUSAGE_SELF)
    families.add("process_cpu_seconds_total", round(usage.ru_utime + usage.ru_stime, 3), {})
    families.add("process_resident_memory_bytes", resident_bytes(), {})
    families.add("process_start_time_seconds", monitor.server.started_ns / SECOND, {})
    families.add("process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0], {})
    try:
        families.add("process_open_fds", len(os.listdir("/proc/self/fd")), {})
    except OSError:
        pass  # no /proc: the others still tell


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
