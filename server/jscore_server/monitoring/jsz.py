"""/jsz: JetStream of this server, and on request its accounts, streams and consumers. Source: monitoring.md 2.9."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from jscore_server.jetstream.models import API_LEVEL, format_time
from jscore_server.monitoring.monitor import PAGE, SECOND, Body, Monitor, Sliced
from jscore_server.monitoring.query import Asked, BadQuery, NotAsked, Option

if TYPE_CHECKING:
    from jscore_server.jetstream.asset import Asset
    from jscore_server.jetstream.engine import JetStream

OPTIONS = (
    Option("account", "text", "acc"),
    Option("accounts", "bool"),
    Option("streams", "bool"),
    Option("consumer", "bool", "consumers"),
    Option("direct_consumer", "bool", "direct-consumers"),
    Option("config", "bool"),
    Option("leader_only", "bool", "leader-only"),
    Option("offset", "int"),
    Option("limit", "int"),
    Option("raft", "bool"),
    Option("stream_leader_only", "bool", "stream-leader-only"),
)
SLICE = 64  # streams shown between two pauses
UNLIMITED = (1 << 64) - 1  # how the peer shows an account without a reservation


def jsz(monitor: Monitor, asked: Asked) -> Sliced[Body]:
    engine = monitor.engine()
    head = {"server_id": monitor.server_id, "now": monitor.now()}
    if engine is None:
        if asked["leader_only"]:
            raise NotAsked("filtered response: not leader")
        nothing = {"memory": 0, "storage": 0, "reserved_memory": 0, "reserved_storage": 0, "accounts": 0}
        idle = {"ha_assets": 0, "api": {"level": 0, "total": 0, "errors": 0}}
        counts = {"streams": 0, "consumers": 0, "messages": 0, "bytes": 0, "total": 0}
        config = {"max_memory": 0, "max_storage": 0}
        return {**nothing, **idle, **head, "disabled": True, "config": config, "limits": {}, **counts}
    if asked["leader_only"] and not engine.is_meta_leader:
        raise NotAsked("filtered response: not leader")
    streams = asked["streams"] or asked["consumer"] or asked["direct_consumer"]
    detailed = asked["accounts"] or streams or bool(asked["account"])
    body: Body = {**js_stats(engine), **head, "config": js_config(monitor), "limits": {}}
    sums = _sums(_held(engine))
    body["streams"] = sums.streams
    shows = detailed and (engine.clustered or asked["raft"])
    if shows and sums.led:
        body["streams_leader"] = sums.led
    body["consumers"] = sums.consumers
    if shows and sums.consumers_led:
        body["consumers_leader"] = sums.consumers_led
    body["messages"] = sums.messages
    body["bytes"] = sums.bytes
    meta = js_meta(engine)
    if meta:
        body["meta_cluster"] = meta
    names = js_accounts(engine)
    if detailed:
        wanted = [name for name in names if not asked["account"] or name == asked["account"]]
        offset = max(0, asked["offset"])
        limit = asked["limit"] if asked["limit"] > 0 else PAGE
        details = []
        for name in wanted[offset : offset + limit]:
            details.append((yield from account_of(monitor, engine, name, {**asked, "streams": streams})))
        if details:
            body["account_details"] = details
    body["total"] = len(names)
    return body


def account_jsz(monitor: Monitor, asked: Asked, name: str) -> Sliced[Body]:
    """The same limited to one account. Raises: BadQuery."""
    engine = monitor.engine()
    if engine is None:
        raise BadQuery("jetstream not enabled")
    if name not in js_accounts(engine):
        raise BadQuery(f'account "{name}" not found')
    streams = asked["streams"] or asked["consumer"] or asked["direct_consumer"]
    return (yield from account_of(monitor, engine, name, {**asked, "streams": streams}))


def js_accounts(engine: JetStream) -> list[str]:
    """The accounts that have JetStream."""
    return engine.enabled_accounts()


def _held(engine: JetStream) -> list[Asset]:
    return [asset for asset in engine.assets.values() if not asset.failed and asset.config is not None]


class Sums(msgspec.Struct):
    """What streams held here are together."""

    streams: int = 0
    led: int = 0
    consumers: int = 0
    consumers_led: int = 0
    messages: int = 0
    bytes: int = 0


def _sums(held: list[Asset]) -> Sums:
    """In one pass: there may be thousands, and whoever watches a server asks every few seconds."""
    led = consumers = consumers_led = messages = size = 0
    for asset in held:
        leading = asset.leading
        led += leading
        if asset.consumers:
            visible = sum(not replica.config.direct for replica in asset.consumers.values())
            consumers += visible
            if leading:
                consumers_led += visible
        count, used = asset.stream.amount()
        messages += count
        size += used
    return Sums(len(held), led, consumers, consumers_led, messages, size)


# ---- summaries, shared with /varz and STATSZ ----


def js_summary(monitor: Monitor) -> Body:
    """The `jetstream` of /varz; empty when it is off."""
    engine = monitor.engine()
    if engine is None:
        return {}
    body: Body = {"config": js_config(monitor), "stats": js_stats(engine)}
    meta = js_meta(engine)
    if meta:
        body["meta"] = meta
    body["limits"] = {}
    return body


def js_config(monitor: Monitor) -> Body:
    options = monitor.server.options.jetstream
    runtime = monitor.server.jetstream
    body: Body = {
        "max_memory": -1 if options.max_memory is None else options.max_memory,
        "max_storage": -1 if options.max_store is None else options.max_store,
        "store_dir": runtime.directory if runtime is not None else options.store_dir,
    }
    if options.sync_interval == "always":
        body["sync_always"] = True
        body["sync_interval"] = 0
    else:
        body["sync_interval"] = int(float(options.sync_interval) * SECOND)
    if options.domain:
        body["domain"] = options.domain
    if options.unique_tag:
        body["unique_tag"] = options.unique_tag
    if options.strict:
        body["strict"] = True
    return body


def js_stats(engine: JetStream) -> Body:
    memory, storage = engine.plane.held()
    replicated = sum(asset.group is not None for asset in engine.assets.values())
    return {
        "memory": memory,
        "storage": storage,
        "reserved_memory": engine.state.reserved_on(engine.server_name, "memory"),
        "reserved_storage": engine.state.reserved_on(engine.server_name, "file"),
        "accounts": len(js_accounts(engine)),
        "ha_assets": replicated + (1 if engine.clustered and engine.meta is not None else 0),
        "api": {"level": API_LEVEL, "total": engine.api.total, "errors": engine.api.errors},
    }


def _usage(held: Iterable[Asset]) -> Body:
    used = {"memory": 0, "storage": 0}
    for asset in held:
        assert asset.config is not None
        kind = "memory" if asset.config.storage == "memory" else "storage"
        used[kind] += asset.stream.amount()[1]
    return used


def js_meta(engine: JetStream) -> Body:
    """The meta group; empty when there is none to speak of."""
    if not engine.clustered or engine.meta is None:
        return {}
    voters, learners = engine.meta.members()
    body: Body = {"name": engine.cluster_name}
    if engine.meta_leader:
        body["leader"] = engine.meta_leader
        body["peer"] = engine.peer_id(engine.meta_leader)
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
    body["quorum_needed"] = len(voters) // 2 + 1
    log = engine.meta_log
    entries = log.last - log.first + 1 if log is not None and log.last >= log.first else 0
    body |= {"pending": 0, "pending_requests": 0, "pending_infos": 0}
    body["snapshot"] = {
        "pending_entries": entries,
        "pending_size": log.bytes if log is not None else 0,
        "last_time": format_time(engine.assignments.taken_ns),
    }
    return body


# ---- details ----


def account_of(monitor: Monitor, engine: JetStream, name: str, asked: Asked) -> Sliced[Body]:
    """One account with JetStream, its streams if asked for."""
    held = [asset for asset in _held(engine) if asset.assignment.account == name]
    body: Body = {"name": name, "id": name, **_usage(held)}
    limits = engine.account_limits(name)
    body["reserved_memory"] = limits.max_memory if limits.max_memory >= 0 else UNLIMITED
    body["reserved_storage"] = limits.max_storage if limits.max_storage >= 0 else UNLIMITED
    body |= {"accounts": 0, "ha_assets": 0}
    stats = engine.api.stats(name)
    body["api"] = {"level": 0, "total": stats.total, "errors": stats.errors}
    if asked["streams"]:
        shown = []
        for count, asset in enumerate(sorted(held, key=lambda a: a.assignment.name)):
            if count % SLICE == SLICE - 1:
                yield
            if asked["stream_leader_only"] and not asset.leading:
                continue
            shown.append(_stream(engine, asset, asked))
        if shown:
            body["stream_detail"] = shown
    return body


def _stream(engine: JetStream, asset: Asset, asked: Asked) -> Body:
    info = engine.api.streams.bare_info(asset)
    body: Body = {"name": asset.assignment.name, "created": info.created, "cluster": info.cluster}
    if asked["config"]:
        body["config"] = info.config
    body["state"] = info.state
    consumers = [
        (replica.config.direct, _consumer(engine, asset, replica, asked["config"]))
        for _, replica in sorted(asset.consumers.items())
    ]
    if asked["consumer"] and (plain := [shown for direct, shown in consumers if not direct]):
        body["consumer_detail"] = plain
    if asked["direct_consumer"] and (hidden := [shown for direct, shown in consumers if direct]):
        body["direct_consumer_detail"] = hidden
    if asked["raft"] and asset.group is not None:
        body["stream_raft_group"] = asset.assignment.group
        groups = [{"name": name, "raft_group": asset.assignment.group} for name in sorted(asset.consumers)]
        if groups:
            body["consumer_raft_groups"] = groups
    return body


def _consumer(engine: JetStream, asset: Asset, replica: Any, config: bool) -> Body:
    shown: Body = msgspec.to_builtins(engine.api.consumers.bare_info(asset, replica))
    if not config:
        del shown["config"]
    return shown
