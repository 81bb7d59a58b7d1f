"""The pages: what a server says of itself. Each is a plain object, its fields in the order of monitoring.md section 2.

Fields whose feature is not there yet are left out unless they are always present at the peer.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jscore_server.jetstream.models import API_LEVEL, format_time
from jscore_server.monitoring.http import TEXT, Answer, Request
from jscore_server.monitoring.query import BadQuery, boolean, go_duration, integer, uptime

if TYPE_CHECKING:
    from jscore_server.dataplane import ConnInfo
    from jscore_server.jetstream.engine import JetStream
    from jscore_server.server import Client, Server

SECOND = 1_000_000_000
PAGE = 1024
DESCENDING = {
    "subs": "subscriptions",
    "pending": "pending_bytes",
    "msgs_to": "out_msgs",
    "msgs_from": "in_msgs",
    "bytes_to": "out_bytes",
    "bytes_from": "in_bytes",
    "last": "last_activity",
}
PAGES = "".join(
    f'<a href=".{path}">{path[1:]}</a><br/>\n' for path in ("/varz", "/connz", "/routez", "/subsz", "/jsz", "/healthz")
)
Body = dict[str, Any]


class Endpoints:
    """Answers monitoring requests about `server`; `clock` gives unix ns."""

    def __init__(self, server: Server, clock: Callable[[], int] = time.time_ns) -> None:
        self._server = server
        self._clock = clock
        self._base = server.options.http_base_path.rstrip("/")
        self._asked: dict[str, int] = {}
        self._usage = (0.0, 0.0, 0.0)  # monotonic s, CPU s, percent between the last two looks
        self._pages: dict[str, Callable[[dict[str, str]], Body]] = {
            "/varz": self.varz,
            "/connz": self.connz,
            "/routez": self.routez,
            "/subsz": self.subsz,
            "/subscriptionsz": self.subsz,
            "/jsz": self.jsz,
        }

    def handle(self, request: Request) -> Answer:
        """One request's answer."""
        path = request.path
        if self._base:
            if not path.startswith(self._base):
                return _not_found()
            path = path[len(self._base) :] or "/"
        try:
            if path == "/":
                self._count("/")
                return Answer(200, f"<html><body>\n{PAGES}</body></html>\n".encode(), "text/html; charset=utf-8")
            if path == "/healthz":
                self._count(path)
                return self.healthz(request.query)
            page = self._pages.get(path)
            if page is None:
                return _not_found()
            self._count(path)
            return _json(page(request.query))
        except BadQuery as err:
            return Answer(400, str(err).encode(), TEXT)

    def _count(self, path: str) -> None:
        self._asked[path] = self._asked.get(path, 0) + 1

    # ---- the server ----

    def varz(self, query: dict[str, str]) -> Body:
        server, options, facts = self._server, self._server.options, self._server.facts
        stats = server.plane.stats()
        now = self._clock()
        routes = len(server.routes.by_id) if server.routes is not None else 0
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
        if facts.connect_urls:
            body["connect_urls"] = facts.connect_urls
        body |= {
            "max_connections": options.max_connections,
            "ping_interval": int(options.ping_interval * SECOND),
            "ping_max": options.ping_max,
            "http_host": options.http_host or options.host,
            "http_port": server.http_port,
            "http_base_path": self._base,
            "https_port": 0,
            "auth_timeout": 2,
            "max_control_line": options.max_control_line,
            "max_payload": options.max_payload,
            "max_pending": options.max_pending,
            "cluster": self._cluster(),
            "gateway": {},
            "leaf": {},
            "mqtt": {},
            "websocket": {},
            "jetstream": self._jetstream(),
            "tls_timeout": 2,
            "write_deadline": int(options.write_deadline * SECOND),
            "start": format_time(server.started_ns),
            "now": format_time(now),
            "uptime": uptime((now - server.started_ns) / SECOND),
            "mem": _resident_bytes(),
            "cores": os.cpu_count() or 1,
            "gomaxprocs": os.cpu_count() or 1,
            "cpu": self._cpu_percent(),
            "connections": len(server.clients),
            "total_connections": server.next_cid - 1,
            "routes": routes,
            "remotes": routes,
            "leafnodes": 0,
            "in_msgs": stats.in_msgs,
            "in_bytes": stats.in_bytes,
            "out_msgs": stats.out_msgs,
            "out_bytes": stats.out_bytes,
            "slow_consumers": stats.slow_consumers,
            "subscriptions": stats.subscriptions,
            "http_req_stats": dict(sorted(self._asked.items())),
            "config_load_time": format_time(server.started_ns),
            "config_digest": options.config_digest,
        }
        return body

    def _cluster(self) -> Body:
        cluster = self._server.options.cluster
        if not cluster.port:
            return {}
        routes = self._server.routes
        body: Body = {"name": cluster.name, "addr": cluster.host}
        body["cluster_port"] = routes.advertise[1] if routes is not None else cluster.port
        body["auth_timeout"] = cluster.authorization.timeout
        urls = [f"[{u.host}]:{u.port}" if ":" in u.host else f"{u.host}:{u.port}" for u in cluster.routes]
        if urls:
            body["urls"] = urls
        return body

    def _cpu_percent(self) -> float:
        """Of one core, since the last look at least a second ago; since the start the first time."""
        at, spent, percent = self._usage
        now, used = time.monotonic(), time.process_time()
        if at == 0.0:
            percent = 100 * used / max(0.001, (self._clock() - self._server.started_ns) / SECOND)
        elif now - at >= 1:
            percent = 100 * (used - spent) / (now - at)
        else:
            return percent
        percent = round(percent, 1)
        self._usage = (now, used, percent)
        return percent

    # ---- connections ----

    def connz(self, query: dict[str, str]) -> Body:
        server = self._server
        sort, state = query.get("sort", "") or "cid", query.get("state", "").lower()
        if sort not in {"cid", "start", "idle", "uptime", "rtt", "stop", "reason", *DESCENDING}:
            raise BadQuery(f"invalid sorting option: {sort}")
        if sort in ("stop", "reason") and state != "closed":
            raise BadQuery(f"sort by {sort} only valid on closed connections")
        if state not in ("", "open", "closed", "any", "all"):
            raise BadQuery(f"Error decoding state for {query['state']}")
        auth = boolean(query, "auth")
        offset, limit, cid = integer(query, "offset"), integer(query, "limit") or PAGE, integer(query, "cid")
        account = query.get("acc", "")
        now = self._clock()
        rows: list[tuple[ConnInfo, Body]] = []
        for client in list(server.clients.values()) if state != "closed" else ():
            info = server.plane.conn_info(client.conn)
            if info is None or (cid and client.cid != cid) or account not in ("", "$G"):
                continue
            rows.append((info, _connection(client, info, now, auth)))
        total = len(rows) if account else len(server.clients) if state != "closed" else 0
        if sort in DESCENDING:
            rows.sort(key=lambda row: row[1][DESCENDING[sort]], reverse=True)
        elif sort == "idle":
            rows.sort(key=lambda row: now - row[0].last_activity_ns, reverse=True)
        elif sort == "rtt":
            rows.sort(key=lambda row: row[0].rtt_ns, reverse=True)
        elif sort == "uptime":
            rows.sort(key=lambda row: row[0].start_ns, reverse=True)
        page = [body for _, body in rows[max(0, offset) : max(0, offset) + max(0, limit)]]
        return {
            "server_id": server.facts.server_id,
            "now": format_time(now),
            "num_connections": len(page),
            "total": total,
            "offset": offset,
            "limit": 1 if cid else limit,
            "connections": page,
        }

    def routez(self, query: dict[str, str]) -> Body:
        server, now = self._server, self._clock()
        routes = []
        for route in list(server.routes.by_id.values()) if server.routes is not None else ():
            info = server.plane.conn_info(route.conn)
            if info is None:
                continue
            routes.append(
                {
                    "rid": route.conn,
                    "remote_id": route.remote_id,
                    "remote_name": route.remote_name,
                    "did_solicit": route.solicited,
                    "is_configured": route.address in {(u.host, u.port) for u in server.options.cluster.routes},
                    "ip": route.peer_ip,
                    "port": route.dial_address[1],
                    **_times(info, now),
                    "pending_size": info.pending,
                    "in_msgs": info.in_msgs,
                    "out_msgs": info.out_msgs,
                    "in_bytes": info.in_bytes,
                    "out_bytes": info.out_bytes,
                    "subscriptions": info.subs,
                    "compression": "off",
                }
            )
        return {
            "server_id": server.facts.server_id,
            "server_name": server.facts.server_name,
            "now": format_time(now),
            "num_routes": len(routes),
            "routes": routes,
        }

    def subsz(self, query: dict[str, str]) -> Body:
        offset, limit = integer(query, "offset"), integer(query, "limit") or PAGE
        return {
            "server_id": self._server.facts.server_id,
            "now": format_time(self._clock()),
            "num_subscriptions": self._server.plane.stats().subscriptions,
            "total": 0,
            "offset": offset,
            "limit": limit,
        }

    # ---- JetStream ----

    def _engine(self) -> JetStream | None:
        runtime = self._server.jetstream
        return runtime.engine if runtime is not None else None

    def _js_config(self) -> Body:
        options = self._server.options.jetstream
        runtime = self._server.jetstream
        body: Body = {
            "max_memory": -1 if options.max_memory is None else options.max_memory,
            "max_storage": -1 if options.max_store is None else options.max_store,
            "store_dir": runtime.directory if runtime is not None else options.store_dir,
        }
        if options.sync_interval == "always":
            body["sync_always"] = True
        else:
            body["sync_interval"] = int(float(options.sync_interval) * SECOND)
        if options.domain:
            body["domain"] = options.domain
        if options.unique_tag:
            body["unique_tag"] = options.unique_tag
        if options.strict:
            body["strict"] = True
        return body

    def _js_stats(self, engine: JetStream) -> Body:
        memory = storage = reserved_memory = reserved_storage = 0
        for asset in engine.assets.values():
            if asset.failed or asset.config is None:
                continue
            reserved = max(0, asset.config.max_bytes)
            if asset.config.storage == "memory":
                memory += asset.stream.state().bytes
                reserved_memory += reserved
            else:
                storage += asset.stream.state().bytes
                reserved_storage += reserved
        return {
            "memory": memory,
            "storage": storage,
            "reserved_memory": reserved_memory,
            "reserved_storage": reserved_storage,
            "accounts": 1,
            "ha_assets": sum(asset.group is not None for asset in engine.assets.values())
            + (1 if engine.clustered and engine.meta is not None else 0),
            "api": {"level": API_LEVEL, "total": engine.api.total, "errors": engine.api.errors},
        }

    def _meta(self, engine: JetStream) -> Body:
        if not engine.clustered or engine.meta is None:
            return {}
        voters, learners = engine.meta.members()
        body: Body = {"name": engine.cluster_name, "leader": engine.meta_leader or ""}
        body["peer"] = engine.peer_id(engine.server_name)
        if engine.is_meta_leader:
            body["replicas"] = [
                {
                    "name": replica.name,
                    "current": replica.current,
                    **({"offline": True} if replica.offline else {}),
                    "active": replica.active_ns,
                    **({"lag": replica.lag} if replica.lag else {}),
                    "peer": engine.peer_id(replica.name),
                }
                for replica in sorted(engine.meta.replicas(), key=lambda r: r.name)
                if replica.name != engine.server_name
            ]
        body["cluster_size"] = len({*voters, *learners})
        body["pending"] = 0
        return body

    def _jetstream(self) -> Body:
        engine = self._engine()
        if engine is None:
            return {}
        body: Body = {"config": self._js_config(), "stats": self._js_stats(engine)}
        meta = self._meta(engine)
        if meta:
            body["meta"] = meta
        body["limits"] = {}
        return body

    def jsz(self, query: dict[str, str]) -> Body:
        server, engine = self._server, self._engine()
        for name in ("accounts", "streams", "consumers", "config", "raft", "leader-only", "stream-leader-only"):
            boolean(query, name)
        head = {"server_id": server.facts.server_id, "now": format_time(self._clock())}
        if engine is None:
            empty = {"memory": 0, "storage": 0, "reserved_memory": 0, "reserved_storage": 0, "accounts": 0}
            idle = {"ha_assets": 0, "api": {"level": API_LEVEL, "total": 0, "errors": 0}}
            counts = {"streams": 0, "consumers": 0, "messages": 0, "bytes": 0, "total": 0}
            config = {"max_memory": 0, "max_storage": 0}
            return {**empty, **idle, **head, "disabled": True, "config": config, "limits": {}, **counts}
        if boolean(query, "leader-only") and not engine.is_meta_leader:
            raise BadQuery("not leader")
        assets = [asset for asset in engine.assets.values() if not asset.failed]
        states = [asset.stream.state() for asset in assets]
        body: Body = {**self._js_stats(engine), **head, "config": self._js_config(), "limits": {}}
        body["streams"] = len(assets)
        body["streams_leader"] = sum(asset.leading for asset in assets)
        body["consumers"] = sum(len(asset.consumers) for asset in assets)
        body["consumers_leader"] = sum(len(asset.consumers) for asset in assets if asset.leading)
        body["messages"] = sum(state.messages for state in states)
        body["bytes"] = sum(state.bytes for state in states)
        meta = self._meta(engine)
        if meta:
            body["meta_cluster"] = meta
        body["total"] = 1
        return body

    def healthz(self, query: dict[str, str]) -> Answer:
        """200 when fit to serve, else the first fault in the peer's order."""
        enabled_only = boolean(query, "js-enabled-only") or boolean(query, "js-enabled")
        server_only, meta_only = boolean(query, "js-server-only"), boolean(query, "js-meta-only")
        account, stream, consumer = (query.get(name, "") for name in ("account", "stream", "consumer"))
        if stream and not account:
            return _unfit(400, '"account" must not be empty when checking stream health', "error")
        if consumer and not stream:
            return _unfit(400, '"stream" must not be empty when checking consumer health', "error")
        if server_only:
            return _fit()
        engine = self._engine()
        if engine is None:
            # Enabled but not running cannot be: the daemon ends when JetStream cannot start.
            return _unfit(503, "JetStream not enabled") if enabled_only else _fit()
        if enabled_only:
            return _fit()
        if engine.meta_failed or (engine.clustered and engine.meta_leader is None):
            return _unfit(503, "JetStream has not established contact with a meta leader")
        if meta_only:
            return _fit()
        if account and account != engine.account:
            return _unfit(404, f'JetStream account "{account}" not found')
        if stream and engine.state.get(account, stream) is None:
            return _unfit(404, f'JetStream stream "{stream}" not found on account "{account}"')
        for asset in engine.assets.values():
            name = asset.assignment.name
            if stream and name != stream:
                continue
            if asset.failed:
                return _unfit(503, f"JetStream stream '{engine.account} > {name}' is not healthy: {asset.failed}")
            if asset.leader is None:
                return _unfit(503, f"JetStream stream '{engine.account} > {name}' is not current")
            if consumer and consumer not in asset.consumers:
                return _unfit(
                    404, f'JetStream consumer "{consumer}" not found for stream "{name}" on account "{account}"'
                )
        return _fit()


def _connection(client: Client, info: ConnInfo, now: int, auth: bool) -> Body:
    body: Body = {
        "cid": client.cid,
        "kind": "Client",
        "type": "nats",
        "ip": client.ip,
        "port": client.port,
        **_times(info, now),
        "pending_bytes": info.pending,
        "in_msgs": info.in_msgs,
        "out_msgs": info.out_msgs,
        "in_bytes": info.in_bytes,
        "out_bytes": info.out_bytes,
        "subscriptions": info.subs,
    }
    connect = client.connect
    if connect is not None:
        body |= {key: text for key in ("name", "lang", "version") if (text := getattr(connect, key))}
    if auth:
        body["account"] = "$G"
    return body


def _times(info: ConnInfo, now: int) -> Body:
    body: Body = {"start": format_time(info.start_ns), "last_activity": format_time(info.last_activity_ns)}
    if info.rtt_ns:
        body["rtt"] = go_duration(info.rtt_ns)
    body["uptime"] = uptime((now - info.start_ns) / SECOND)
    body["idle"] = uptime((now - info.last_activity_ns) / SECOND)
    return body


def _json(body: Body) -> Answer:
    text = json.dumps(body, indent=2, ensure_ascii=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Answer(200, text.encode("utf-8", "replace"), headers={"Access-Control-Allow-Origin": "*"})


def _fit() -> Answer:
    return Answer(200, b'{"status":"ok"}')


def _unfit(status: int, error: str, word: str = "unavailable") -> Answer:
    return Answer(status, json.dumps({"status": word, "error": error}, separators=(",", ":")).encode())


def _not_found() -> Answer:
    return Answer(404, b"404 page not found\n", TEXT, {"X-Content-Type-Options": "nosniff"})


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
