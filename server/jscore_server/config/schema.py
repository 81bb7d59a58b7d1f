"""From a configuration tree to Options: which keys there are, what kind each is, what is done with it. Pure.

A key is served, tolerated (a warning: leaving it out takes nothing from anybody's safety) or refused (an error: a file
that asks for TLS or passwords must not start a server without them). All faults of a file are collected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from .lexer import ConfigError, Position
from .options import CLUSTER_PORT, Options, Url
from .parser import Entry, Node, Tree

__all__ = ["Warning", "duration_seconds", "options_from", "parse_listen", "parse_route"]


@dataclass(frozen=True, slots=True)
class Warning:
    """A line for the user. `strict`: nats-server, too, calls it a warning, which makes `-t` fail."""

    text: str
    strict: bool = False


class Wrong(Exception):
    """A value is not what its key takes; the text says what was expected, or the whole fault."""


Kind = Callable[["Reader", Entry], Any]


@dataclass(slots=True)
class Rule:
    """What to do with a key: `apply(reader, target, entry)`; `names`: the canonical name, then its aliases."""

    names: tuple[str, ...]
    apply: Callable[[Reader, Any, Entry], None]


@dataclass(slots=True)
class Reader:
    """Collects faults and places while a tree is read."""

    options: Options
    errors: list[str] = field(default_factory=list)
    warnings: list[Warning] = field(default_factory=list)

    def fault(self, position: Position, text: str) -> None:
        self.errors.append(f"{position}: {text}")

    def warn(self, position: Position, text: str, strict: bool = False) -> None:
        self.warnings.append(Warning(f"{position}: {text}", strict))

    def block(self, tree: Tree, rules: dict[str, Rule], target: Any, path: str) -> None:
        """Applies the rules of a block; an unknown key is a fault unless a variable used it."""
        for entry in tree.values():
            rule = rules.get(entry.name.lower())
            if rule is None:
                if not entry.used:
                    self.fault(entry.position, f'unknown field "{entry.name}"')
                continue
            try:
                rule.apply(self, target, entry)
            except Wrong as err:
                self.fault(entry.position, str(err))
            else:
                self.options.places[path + rule.names[0]] = entry.position


def options_from(tree: Tree, file: str) -> tuple[Options, list[Warning]]:
    """Options from a parsed file. Raises: ConfigError with every fault of the file."""
    reader = Reader(Options(config_file=file))
    if not tree:
        reader.warnings.append(Warning(f"{file}: config has no values or is empty", strict=True))
    reader.block(tree, _TOP, reader.options, "")
    if reader.errors:
        raise ConfigError(*reader.errors)
    return reader.options, reader.warnings


# ---- kinds ----


def _wrong(entry: Entry, expected: str) -> Wrong:
    return Wrong(f'expected {expected} for "{entry.name}", got {entry.node.kind}')


def boolean(reader: Reader, entry: Entry) -> bool:
    if not isinstance(entry.node.value, bool):
        raise _wrong(entry, "a boolean")
    return entry.node.value


def string(reader: Reader, entry: Entry) -> str:
    if not isinstance(entry.node.value, str):
        raise _wrong(entry, "a string")
    return entry.node.value


def integer(reader: Reader, entry: Entry) -> int:
    value = entry.node.value
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(entry, "an integer")
    return value


def or_default(kind: Kind, high: float = 0x7FFFFFFF) -> Kind:
    """0 keeps the default, as in nats-server; what is below 0 or above `high` is wrong."""

    def checked(reader: Reader, entry: Entry) -> Any:
        value = kind(reader, entry)
        if value > high:
            raise Wrong(f'expected at most {high} for "{entry.name}", got {value}')
        if value < 0:
            raise Wrong(f'expected 0 or more for "{entry.name}", got {entry.node.value}')
        return value or None

    return checked


def between(low: int, high: int) -> Kind:
    def kind(reader: Reader, entry: Entry) -> int:
        value = integer(reader, entry)
        if not low <= value <= high:
            raise Wrong(f'expected {low} to {high} for "{entry.name}", got {value}')
        return value

    return kind


def strings(reader: Reader, entry: Entry) -> list[str]:
    value = entry.node.value
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise _wrong(entry, "a string or an array of strings")
    out = []
    for node in value:
        if not isinstance(node.value, str):
            raise Wrong(f'expected strings in "{entry.name}", got {node.kind}')
        out.append(node.value)
    return out


def one_of(*words: str) -> Kind:
    def kind(reader: Reader, entry: Entry) -> str:
        value = string(reader, entry).lower()
        if value not in words:
            raise Wrong(f'expected {" or ".join(words)} for "{entry.name}", got "{value}"')
        return value

    return kind


def map_of(entry: Entry) -> Tree:
    if not isinstance(entry.node.value, dict):
        raise _wrong(entry, "a map")
    return entry.node.value


def size(reader: Reader, entry: Entry) -> int:
    """Bytes: an integer, or a string of digits and one of K, M, G, T (powers of 1024)."""
    value = entry.node.value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise _wrong(entry, "a size")
    match = re.fullmatch(r"(-?[0-9]{1,15})([KMGT])", value, re.IGNORECASE)
    if match is None:
        raise Wrong(f'expected a size such as 1GB or "1G" for "{entry.name}", got "{value}"')
    return int(match[1]) << (10 * (1 + "kmgt".index(match[2].lower())))


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_SECONDS = 9_223_372_036.0
"""nats-server counts int64 nanoseconds."""
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def duration_seconds(text: str) -> float | None:
    """Seconds of a duration such as `1h30m`, `250ms` or `-1.5s`; None for any other text."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(rest):
        match = _DURATION.match(rest, at)
        if match is None:
            return None
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if at == 0 or total > MAX_SECONDS:
        return None
    return -total if text[:1] == "-" else total


def duration(reader: Reader, entry: Entry) -> float:
    """Seconds. A bare number is seconds and deserves a warning; `2m`, to the language 2 000 000, is two minutes."""
    value = entry.node.value
    if isinstance(value, int) and not isinstance(value, bool):
        written = entry.node.text
        advice = f"{entry.name} should be converted to a duration"
        if re.fullmatch(r"-?[0-9]+m", written):
            advice += f': {written} is read as minutes, write "{written}"'
            seconds = value / 1e6 * 60
        else:
            seconds = float(value)
        if abs(seconds) > MAX_SECONDS:
            raise Wrong(f'expected a duration such as "2m" for "{entry.name}", got {value}')
        reader.warn(entry.position, f'invalid use of field "{entry.name}": {advice}', strict=True)
        return seconds
    return strict_duration(reader, entry)


def strict_duration(reader: Reader, entry: Entry) -> float:
    value = entry.node.value
    if not isinstance(value, str):
        raise _wrong(entry, 'a duration such as "2m"')
    seconds = duration_seconds(value)
    if seconds is None:
        raise Wrong(f'expected a duration such as "2m" for "{entry.name}", got "{value}"')
    return seconds


def timeout(reader: Reader, entry: Entry) -> float:
    value = entry.node.value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_SECONDS:
        return float(value)
    return strict_duration(reader, entry)


def sync_interval(reader: Reader, entry: Entry) -> float | str:
    value = entry.node.value
    if isinstance(value, str) and value.lower() == "always":
        return "always"
    return duration(reader, entry)


def name_without_spaces(what: str) -> Kind:
    def kind(reader: Reader, entry: Entry) -> str:
        value = string(reader, entry)
        if " " in value:
            raise Wrong(f"{what} name cannot contain spaces")
        return value

    return kind


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `host:port`. Raises: ValueError with a message."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or ("]" in port) or (not bracketed and (":" in host or "[" in host or "]" in host)):
        raise ValueError(f'could not parse address string "{text}"')
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", port):
        raise ValueError(f'could not parse port "{port}"')
    number = int(port)
    if not -1 <= number <= 65535:
        raise ValueError(f"expected a port from -1 to 65535, got {number}")
    return host[1:-1] if bracketed else host, number


def listen(reader: Reader, entry: Entry) -> tuple[str, int]:
    """(host, port); host '' keeps the default."""
    value = entry.node.value
    if isinstance(value, str):
        try:
            return parse_listen(value)
        except ValueError as err:
            raise Wrong(str(err)) from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(entry, "a port or host:port")
    return "", port(reader, entry)


port = between(-1, 65535)


def parse_route(text: str) -> Url:
    """A route's URL. Without a port it is 6222; a URL without a scheme is taken as host:port. Raises: ValueError."""
    try:
        parts = urlsplit(text if "://" in text else f"nats-route://{text.lstrip('/')}")
        number = parts.port
        host = parts.hostname or ""
    except ValueError:
        host, number = "", None
    if not host or any(c.isspace() or not c.isprintable() for c in text) or (":" in host and "[" not in text):
        raise ValueError(f"expected a route such as nats-route://host:6222, got {_redacted(text)!r}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Url(host, CLUSTER_PORT if number is None else number, user, password, parts.scheme)


def _redacted(text: str) -> str:
    """The URL without what is before the `@`: messages must not show passwords."""
    head, sep, tail = text.rpartition("@")
    return f"{head.partition('://')[0]}://***@{tail}" if sep and "://" in head else "***@" + tail if sep else text


# ---- actions ----


def _set(attribute: str, kind: Kind, *aliases: str, name: str = "") -> Rule:
    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        value = kind(reader, entry)
        if value is not None:
            setattr(target, attribute, value)

    return Rule((name or attribute, *aliases), apply)


def _listen(host: str, port: str, name: str = "listen") -> Rule:
    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        h, p = listen(reader, entry)
        if h:
            setattr(target, host, h)
        setattr(target, port, p)

    return Rule((name,), apply)


def _later(*names: str, kind: Kind | None = None) -> Rule:
    """A key that is tolerated: a warning says that it does nothing, unless it only says what holds anyway."""

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        if kind is not None:
            kind(reader, entry)
        if entry.node.value is not False:
            reader.warn(entry.position, f'"{entry.name}" is not supported yet and has no effect')

    return Rule(names, apply)


def _later_block(known: str, *names: str) -> Rule:
    """A tolerated block whose keys are still checked for being known."""
    keys = frozenset(known.split())

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        for inner in map_of(entry).values():
            if inner.name.lower() not in keys and not inner.used:
                reader.fault(inner.position, f'unknown field "{inner.name}"')
        reader.warn(entry.position, f'"{entry.name}" is not supported yet and has no effect')

    return Rule(names, apply)


def _refused(*names: str, allow: Callable[[Node], bool] = lambda node: node.value is False) -> Rule:
    """A key whose loss would open the server up or lose data: it stops the start, unless its value asks for nothing."""

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        if not allow(entry.node):
            raise Wrong(f'"{entry.name}" is not supported yet')

    return Rule(names, apply)


def _table(rules: Iterable[Rule]) -> dict[str, Rule]:
    table: dict[str, Rule] = {}
    for rule in rules:
        for name in rule.names:
            assert name not in table, name
            table[name] = rule
    return table


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
        raise _wrong(entry, "an array of URLs")
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


_CLUSTER_AUTH = _table(
    [
        _set("user", string, "username"),
        _set("password", string, "pass"),
        _set("timeout", timeout),
        _refused("token", "users", "auth_callout", "auth_hook", "permissions", "default_permissions", "proxy_required"),
    ]
)


def _cluster_authorization(reader: Reader, target: Any, entry: Entry) -> None:
    reader.block(map_of(entry), _CLUSTER_AUTH, target.authorization, "cluster.authorization.")


_WRITE_TIMEOUT = one_of("default", "close", "retry")

_CLUSTER = _table(
    [
        _set("name", name_without_spaces("cluster")),
        _listen("host", "port"),
        _set("host", string, "net"),
        _set("port", port),
        Rule(("authorization",), _cluster_authorization),
        _refused("permissions", "tls"),
        _set("routes", _routes),
        _set("advertise", string, "cluster_advertise"),
        _set("no_advertise", boolean),
        _set("connect_retries", integer),
        _set("connect_backoff", boolean),
        _set("pool_size", integer),
        _later("accounts", kind=strings),
        _later("compression"),
        _set("ping_interval", _cluster_ping),
        _set("ping_max", or_default(integer)),
        _set("write_deadline", or_default(duration, MAX_SECONDS)),
        _set("write_timeout", _WRITE_TIMEOUT),
    ]
)


def _cluster(reader: Reader, target: Options, entry: Entry) -> None:
    reader.block(map_of(entry), _CLUSTER, target.cluster, "cluster.")


# ---- jetstream ----

_BATCH = _table(
    [
        _set("batch_max_inflight_per_stream", integer, name="max_inflight_per_stream"),
        _set("batch_max_inflight_total", integer, name="max_inflight_total"),
        _set("batch_max_msgs", integer, name="max_msgs"),
        _set("batch_timeout", strict_duration, name="timeout"),
    ]
)


def _batch(reader: Reader, target: Any, entry: Entry) -> None:
    reader.block(map_of(entry), _BATCH, target, "jetstream.limits.batch.")


_LIMITS = _table(
    [
        _set("max_ack_pending", integer),
        _set("max_ha_assets", integer),
        _set("max_request_batch", integer),
        _set("duplicate_window", strict_duration),
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


_JETSTREAM = _table(
    [
        _enabled(True, "enabled", "enable"),
        _enabled(False, "disabled", "disable"),
        _set("store_dir", _store_dir, "store", "storedir"),
        _set("max_memory", size, "max_memory_store", "max_mem_store", "max_mem"),
        _set("max_store", size, "max_file_store", "max_file"),
        _set("domain", string),
        _set("sync_interval", sync_interval, "sync"),
        # Encryption at rest: a store written in the clear is not what such a file asks for.
        _refused("key", "ek", "encryption_key", "prev_key", "prev_ek", "prev_encryption_key", "tpm"),
        _later("cipher", kind=one_of("chacha", "chachapoly", "aes")),
        _set("extension_hint", string),
        _set("strict", boolean),
        _set("unique_tag", string),
        Rule(("limits",), _limits),
        _set("max_outstanding_catchup", size),
        _set("max_buffered_size", size),
        _set("max_buffered_msgs", integer),
        _set("request_queue_limit", integer),
        _set("info_queue_limit", integer),
        _later("meta_compact", kind=integer),
        _later("meta_compact_size", kind=size),
        _later("meta_compact_sync", kind=boolean),
        _later("max_concurrent_io", kind=between(4, 8192)),
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
        raise _wrong(entry, "a map, a boolean or a string")


def _top_store_dir(reader: Reader, target: Options, entry: Entry) -> None:
    target.jetstream.store_dir = _store_dir(reader, entry)


def _empty(node: Node) -> bool:
    return node.value is False or node.value in ({}, [])


_TOP = _table(
    [
        _listen("host", "port"),
        _set("host", string, "net"),
        _set("port", port),
        _set("client_advertise", string),
        _set("server_name", name_without_spaces("server")),
        _set("server_tags", _tags),
        _set("server_metadata", _metadata),
        _set("debug", boolean),
        _set("trace", boolean),
        _trace_also("trace_verbose"),
        _trace_also("trace_headers"),
        _set("max_traced_msg_len", integer),
        _set("logtime", boolean),
        _set("logtime_utc", boolean),
        _set("log_file", string, "logfile"),
        _set("log_size_limit", integer, "logfile_size_limit"),
        _set("log_max_num", integer, "logfile_max_num"),
        _later("syslog", kind=boolean),
        _later("remote_syslog", kind=string),
        _set("pid_file", string, "pidfile"),
        _set("ports_file_dir", string),
        _set("max_connections", integer, "max_conn"),
        _set("max_subscriptions", integer, "max_subs"),
        _later("max_subscription_tokens", "max_sub_tokens", kind=between(0, 255)),
        _set("max_control_line", or_default(integer)),
        _set("max_payload", or_default(integer)),
        _set("max_pending", or_default(integer, 1 << 62)),
        _set("max_closed_clients", integer),
        _set("ping_interval", or_default(duration, MAX_SECONDS)),
        _set("ping_max", or_default(integer)),
        _set("write_deadline", or_default(duration, MAX_SECONDS)),
        _set("write_timeout", _WRITE_TIMEOUT),
        _later("no_fast_producer_stall", kind=boolean),
        _set("lame_duck_duration", _lame_duck_duration),
        _set("lame_duck_grace_period", _lame_duck_grace),
        _later("no_header_support", kind=boolean),
        _later("disable_sublist_cache", "no_sublist_cache", kind=boolean),
        _set("connect_error_reports", integer),
        _set("reconnect_error_reports", integer),
        _listen("http_host", "http_port", "http"),
        _set("http_port", port, "monitor_port"),
        _set("http_base_path", string),
        _later("prof_port", kind=integer),
        _later("prof_block_rate", kind=integer),
        _set("feature_flags", _flags),
        Rule(("cluster",), _cluster),
        Rule(("jetstream",), _jetstream),
        Rule(("store_dir", "storedir"), _top_store_dir),
        # Without these the server would let in, or show, what the file wants kept out.
        _refused("tls", "allow_non_tls", "https", "https_port", "ocsp", "ocsp_cache", "resolver_tls"),
        _refused("authorization", "accounts", allow=_empty),
        _refused("no_auth_user", "default_sentinel", "trusted", "trusted_keys"),
        _refused("operator", "operators", "root", "roots", "root_operator", "root_operators"),
        _refused("resolver", "account_resolver", "accounts_resolver", "resolver_preload", "resolver_pinned_accounts"),
        _refused("system_account", "system", allow=lambda node: node.value == "$SYS"),
        _refused("proxy_protocol"),
        _refused("proxies", allow=_empty),
        # Without this one messages would go to other subjects than the file says.
        _refused("mappings", "maps", allow=_empty),
        _later("no_system_account", "no_system", "no_sys_acc", kind=boolean),
        _later("default_js_domain"),
        _later_block(
            "name listen host net port authorization tls advertise connect_retries connect_backoff"
            " reject_unknown_cluster reject_unknown gateways write_deadline write_timeout",
            "gateway",
        ),
        _later_block(
            "listen host net port authorization remotes reconnect reconnect_delay reconnect_interval dial_timeout tls"
            " advertise leafnode_advertise no_advertise min_version minimum_version compression"
            " isolate_leafnode_interest isolate write_deadline write_timeout",
            "leafnodes",
            "leaf",
        ),
        _later_block(
            "listen host net port advertise tls no_tls same_origin allowed_origins allowed_origin allow_origins"
            " allow_origin origins origin handshake_timeout compression compress authorization authentication"
            " jwt_cookie user_cookie pass_cookie token_cookie no_auth_user headers ping_interval",
            "websocket",
            "ws",
        ),
        _later_block(
            "listen host net port tls authorization authentication no_auth_user ack_wait ackwait js_api_timeout"
            " api_timeout max_ack_pending max_pending max_inflight js_domain stream_replicas consumer_replicas"
            " consumer_memory_storage consumer_inactive_threshold consumer_auto_cleanup reject_qos2_publish"
            " downgrade_qos2_subscribe",
            "mqtt",
        ),
    ]
)
