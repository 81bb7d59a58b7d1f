"""From a configuration tree to Options: which keys there are, what kind each is, what is done with it. Pure.

A key is served, tolerated (a warning: leaving it out takes nothing from anybody's safety) or refused (an error: a file
that asks for TLS or passwords must not start a server without them). All faults of a file are collected.
"""

from __future__ import annotations

from typing import Any

from .kinds import (
    MAX_SECONDS,
    Reader,
    Rule,
    Warning,
    Wrong,
    between,
    boolean,
    duration,
    duration_seconds,
    integer,
    later,
    later_block,
    listens,
    map_of,
    mistyped,
    name_without_spaces,
    one_of,
    or_default,
    parse_listen,
    parse_route,
    port,
    refused,
    sets,
    size,
    strict_duration,
    string,
    strings,
    sync_interval,
    table,
    timeout,
)
from .lexer import ConfigError
from .options import Options, Url
from .parser import Entry, Node, Tree

__all__ = ["Warning", "duration_seconds", "options_from", "parse_listen", "parse_route"]


def options_from(tree: Tree, file: str) -> tuple[Options, list[Warning]]:
    """Options from a parsed file. Raises: ConfigError with every fault of the file."""
    reader = Reader(Options(config_file=file))
    if not tree:
        reader.warnings.append(Warning(f"{file}: config has no values or is empty", strict=True))
    reader.block(tree, _TOP, reader.options, "")
    if reader.errors:
        raise ConfigError(*reader.errors)
    return reader.options, reader.warnings


def _trace_also(attribute: str) -> Rule:
    def apply(reader: Reader, target: Options, entry: Entry) -> None:
        value = boolean(reader, entry)
        setattr(target, attribute, value)
        if value:
            target.trace = True

    return Rule((attribute,), apply)


def _tags(reader: Reader, entry: Entry) -> list[str]:
    return [tag.strip().lower() for tag in strings(reader, entry)]


def _metadata(reader: Reader, entry: Entry) -> dict[str, str]:
    return {inner.name: string(reader, inner) for inner in map_of(entry).values()}


def _flags(reader: Reader, entry: Entry) -> dict[str, bool]:
    return {inner.name: boolean(reader, inner) for inner in map_of(entry).values()}


def _lame_duck_duration(reader: Reader, entry: Entry) -> float:
    value = strict_duration(reader, entry)
    if value < 30:
        raise Wrong(f'expected at least "30s" for "{entry.name}", got "{entry.node.value}"')
    return value


def _lame_duck_grace(reader: Reader, entry: Entry) -> float:
    value = strict_duration(reader, entry)
    if value < 0:
        raise Wrong(f'expected a positive duration for "{entry.name}", got "{entry.node.value}"')
    return value


# ---- cluster ----


def _routes(reader: Reader, entry: Entry) -> list[Url]:
    if not isinstance(entry.node.value, list):
        raise mistyped(entry, "an array of URLs")
    urls = []
    for node in entry.node.value:
        try:
            if not isinstance(node.value, str):
                raise ValueError(f'expected strings in "{entry.name}", got {node.kind}')
            urls.append(parse_route(node.value))
        except ValueError as err:
            reader.fault(node.position, str(err))
    return urls


def _cluster_ping(reader: Reader, entry: Entry) -> float:
    value = duration(reader, entry)
    if value > 30:
        reader.warn(entry.position, f'"{entry.name}" of a cluster is at most 30s: 30s is used', strict=True)
    return min(value, 30.0)


_CLUSTER_AUTH = table(
    [
        sets("user", string, "username"),
        sets("password", string, "pass"),
        sets("timeout", timeout),
        refused("token", "users", "auth_callout", "auth_hook", "permissions", "default_permissions", "proxy_required"),
    ]
)


def _cluster_authorization(reader: Reader, target: Any, entry: Entry) -> None:
    reader.block(map_of(entry), _CLUSTER_AUTH, target.authorization, "cluster.authorization.")


_WRITE_TIMEOUT = one_of("default", "close", "retry")

_CLUSTER = table(
    [
        sets("name", name_without_spaces("cluster")),
        listens("host", "port"),
        sets("host", string, "net"),
        sets("port", port),
        Rule(("authorization",), _cluster_authorization),
        refused("permissions", "tls"),
        sets("routes", _routes),
        sets("advertise", string, "cluster_advertise"),
        sets("no_advertise", boolean),
        sets("connect_retries", integer),
        sets("connect_backoff", boolean),
        sets("pool_size", integer),
        later("accounts", kind=strings),
        later("compression"),
        sets("ping_interval", _cluster_ping),
        sets("ping_max", or_default(integer)),
        sets("write_deadline", or_default(duration, MAX_SECONDS)),
        sets("write_timeout", _WRITE_TIMEOUT),
    ]
)


def _cluster(reader: Reader, target: Options, entry: Entry) -> None:
    reader.block(map_of(entry), _CLUSTER, target.cluster, "cluster.")


# ---- jetstream ----

_BATCH = table(
    [
        sets("batch_max_inflight_per_stream", integer, name="max_inflight_per_stream"),
        sets("batch_max_inflight_total", integer, name="max_inflight_total"),
        sets("batch_max_msgs", integer, name="max_msgs"),
        sets("batch_timeout", strict_duration, name="timeout"),
    ]
)


def _batch(reader: Reader, target: Any, entry: Entry) -> None:
    reader.block(map_of(entry), _BATCH, target, "jetstream.limits.batch.")


_LIMITS = table(
    [
        sets("max_ack_pending", integer),
        sets("max_ha_assets", integer),
        sets("max_request_batch", integer),
        sets("duplicate_window", strict_duration),
        Rule(("batch",), _batch),
    ]
)


def _limits(reader: Reader, target: Any, entry: Entry) -> None:
    reader.block(map_of(entry), _LIMITS, target.limits, "jetstream.limits.")


def _enabled(value: bool, *names: str) -> Rule:
    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        target.enabled = boolean(reader, entry) is value

    return Rule(names, apply)


def _store_dir(reader: Reader, entry: Entry) -> str:
    if "jetstream.store_dir" in reader.options.places or "store_dir" in reader.options.places:
        raise Wrong("Duplicate 'store_dir' configuration")
    return string(reader, entry)


_JETSTREAM = table(
    [
        _enabled(True, "enabled", "enable"),
        _enabled(False, "disabled", "disable"),
        sets("store_dir", _store_dir, "store", "storedir"),
        sets("max_memory", size, "max_memory_store", "max_mem_store", "max_mem"),
        sets("max_store", size, "max_file_store", "max_file"),
        sets("domain", string),
        sets("sync_interval", sync_interval, "sync"),
        # Encryption at rest: a store written in the clear is not what such a file asks for.
        refused("key", "ek", "encryption_key", "prev_key", "prev_ek", "prev_encryption_key", "tpm"),
        later("cipher", kind=one_of("chacha", "chachapoly", "aes")),
        sets("extension_hint", string),
        sets("strict", boolean),
        sets("unique_tag", string),
        Rule(("limits",), _limits),
        sets("max_outstanding_catchup", size),
        sets("max_buffered_size", size),
        sets("max_buffered_msgs", integer),
        sets("request_queue_limit", integer),
        sets("info_queue_limit", integer),
        later("meta_compact", kind=integer),
        later("meta_compact_size", kind=size),
        later("meta_compact_sync", kind=boolean),
        later("max_concurrent_io", kind=between(4, 8192)),
    ]
)


def _jetstream(reader: Reader, target: Options, entry: Entry) -> None:
    value = entry.node.value
    js = target.jetstream
    if isinstance(value, bool):
        js.enabled = value
    elif isinstance(value, str):
        word = value.lower()
        if word not in ("enabled", "enable", "disabled", "disable"):
            raise Wrong(f'expected enabled or disabled for "{entry.name}", got "{value}"')
        js.enabled = word.startswith("enable")
    elif isinstance(value, dict):
        js.enabled = True
        reader.block(value, _JETSTREAM, js, "jetstream.")
    else:
        raise mistyped(entry, "a map, a boolean or a string")


def _top_store_dir(reader: Reader, target: Options, entry: Entry) -> None:
    target.jetstream.store_dir = _store_dir(reader, entry)


def _empty(node: Node) -> bool:
    return node.value is False or node.value in ({}, [])


_TOP = table(
    [
        listens("host", "port"),
        sets("host", string, "net"),
        sets("port", port),
        sets("client_advertise", string),
        sets("server_name", name_without_spaces("server")),
        sets("server_tags", _tags),
        sets("server_metadata", _metadata),
        sets("debug", boolean),
        sets("trace", boolean),
        _trace_also("trace_verbose"),
        _trace_also("trace_headers"),
        sets("max_traced_msg_len", integer),
        sets("logtime", boolean),
        sets("logtime_utc", boolean),
        sets("log_file", string, "logfile"),
        sets("log_size_limit", integer, "logfile_size_limit"),
        sets("log_max_num", integer, "logfile_max_num"),
        later("syslog", kind=boolean),
        later("remote_syslog", kind=string),
        sets("pid_file", string, "pidfile"),
        sets("ports_file_dir", string),
        sets("max_connections", integer, "max_conn"),
        sets("max_subscriptions", integer, "max_subs"),
        later("max_subscription_tokens", "max_sub_tokens", kind=between(0, 255)),
        sets("max_control_line", or_default(integer)),
        sets("max_payload", or_default(integer)),
        sets("max_pending", or_default(integer, 1 << 62)),
        sets("max_closed_clients", integer),
        sets("ping_interval", or_default(duration, MAX_SECONDS)),
        sets("ping_max", or_default(integer)),
        sets("write_deadline", or_default(duration, MAX_SECONDS)),
        sets("write_timeout", _WRITE_TIMEOUT),
        later("no_fast_producer_stall", kind=boolean),
        sets("lame_duck_duration", _lame_duck_duration),
        sets("lame_duck_grace_period", _lame_duck_grace),
        later("no_header_support", kind=boolean),
        later("disable_sublist_cache", "no_sublist_cache", kind=boolean),
        sets("connect_error_reports", integer),
        sets("reconnect_error_reports", integer),
        listens("http_host", "http_port", "http"),
        sets("http_port", port, "monitor_port"),
        sets("http_base_path", string),
        later("prof_port", kind=integer),
        later("prof_block_rate", kind=integer),
        sets("feature_flags", _flags),
        Rule(("cluster",), _cluster),
        Rule(("jetstream",), _jetstream),
        Rule(("store_dir", "storedir"), _top_store_dir),
        # Without these the server would let in, or show, what the file wants kept out.
        refused("tls", "allow_non_tls", "https", "https_port", "ocsp", "ocsp_cache", "resolver_tls"),
        refused("authorization", "accounts", allow=_empty),
        refused("no_auth_user", "default_sentinel", "trusted", "trusted_keys"),
        refused("operator", "operators", "root", "roots", "root_operator", "root_operators"),
        refused("resolver", "account_resolver", "accounts_resolver", "resolver_preload", "resolver_pinned_accounts"),
        refused("system_account", "system", allow=lambda node: node.value == "$SYS"),
        refused("proxy_protocol"),
        refused("proxies", allow=_empty),
        # Without this one messages would go to other subjects than the file says.
        refused("mappings", "maps", allow=_empty),
        later("no_system_account", "no_system", "no_sys_acc", kind=boolean),
        later("default_js_domain"),
        later_block(
            "name listen host net port authorization tls advertise connect_retries connect_backoff"
            " reject_unknown_cluster reject_unknown gateways write_deadline write_timeout",
            "gateway",
        ),
        later_block(
            "listen host net port authorization remotes reconnect reconnect_delay reconnect_interval dial_timeout tls"
            " advertise leafnode_advertise no_advertise min_version minimum_version compression"
            " isolate_leafnode_interest isolate write_deadline write_timeout",
            "leafnodes",
            "leaf",
        ),
        later_block(
            "listen host net port advertise tls no_tls same_origin allowed_origins allowed_origin allow_origins"
            " allow_origin origins origin handshake_timeout compression compress authorization authentication"
            " jwt_cookie user_cookie pass_cookie token_cookie no_auth_user headers ping_interval",
            "websocket",
            "ws",
        ),
        later_block(
            "listen host net port tls authorization authentication no_auth_user ack_wait ackwait js_api_timeout"
            " api_timeout max_ack_pending max_pending max_inflight js_domain stream_replicas consumer_replicas"
            " consumer_memory_storage consumer_inactive_threshold consumer_auto_cleanup reject_qos2_publish"
            " downgrade_qos2_subscribe",
            "mqtt",
        ),
    ]
)
