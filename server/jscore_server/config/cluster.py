"""The `cluster` block. Pure."""

from __future__ import annotations

import ipaddress
from functools import partial
from typing import Any

from .accounts import permissions
from .compression import Compression
from .kinds import (
    MAX_SECONDS,
    Reader,
    Rule,
    Wrong,
    between,
    boolean,
    checked,
    duration,
    each,
    forbidden,
    integer,
    listens,
    map_of,
    mistyped,
    name_without_spaces,
    one_of,
    or_default,
    port,
    sets,
    short_timeout,
    strict_duration,
    string,
    strings,
    table,
)
from .options import Options, Url
from .parser import Entry
from .tls import tls_block
from .urls import route
from .users import Permissions

__all__ = ["WRITE_TIMEOUT", "cluster", "compression"]

WRITE_TIMEOUT = one_of("default", "close", "retry", any_case=False)

_COMPRESSION = table(
    [
        sets("word", string, name="mode"),
        sets("rtt_thresholds", each(strict_duration), "thresholds", "rtts", "rtt"),
    ]
)


def compression(reader: Reader, entry: Entry) -> Compression:
    """A word, a boolean, or a map with `mode` and `rtt_thresholds`; which words there are is checked at a start."""
    found = Compression()
    if isinstance(entry.node.value, dict):
        reader.block(map_of(entry), _COMPRESSION, found, "cluster.compression.")
    elif isinstance(entry.node.value, str | bool):
        found.word = entry.node.value
    else:
        raise mistyped(entry, "a string, a boolean or a map")
    return found


def _routes(reader: Reader, entry: Entry) -> list[Url]:
    return [url for url in each(route)(reader, entry) if url is not None]


def _ping_interval(reader: Reader, entry: Entry) -> float:
    value = duration(reader, entry)
    if value > 30:
        reader.warn(entry.position, f'"{entry.name}" of a cluster is at most 30s: 30s is used', strict=True)
    return min(value, 30.0)


def _old_permissions(reader: Reader, target: Any, entry: Entry) -> None:
    text = "inside the cluster's authorization it is deprecated, it belongs into the cluster block"
    reader.warn(entry.position, f'invalid use of field "{entry.name}": {text}', strict=True)
    reader.lacks(entry)


def _permissions(reader: Reader, entry: Entry) -> Permissions:
    """`publish`: what is imported, `subscribe`: what is exported."""
    found = permissions(reader, entry)
    if found.responses is not None:
        raise Wrong("Cluster permissions do not support dynamic responses")
    queued = [
        text for side in (found.publish, found.subscribe) for text in (*(side.allow or ()), *side.deny) if " " in text
    ]
    if queued:
        raise Wrong(f'subject "{queued[0]}" is not a valid subject')
    return found


_AUTHORIZATION = table(
    [
        sets("user", string, "username"),
        sets("password", string, "pass"),
        sets("timeout", short_timeout),
        forbidden("token", "users", "auth_callout", "auth_hook"),
        Rule(("permissions", "default_permissions", "default_permission"), _old_permissions),
        checked("proxy_required", kind=boolean),
    ]
)


def _authorization(reader: Reader, target: Any, entry: Entry) -> None:
    reader.block(map_of(entry), _AUTHORIZATION, target.authorization, "cluster.authorization.")


KEY_LEAST = 16  # characters


def _key(reader: Reader, entry: Entry) -> str:
    value = string(reader, entry)
    if len(value) < KEY_LEAST:
        raise Wrong(f'"key" of discovery has at least {KEY_LEAST} characters')
    return value


def _ipv4(reader: Reader, entry: Entry) -> str:
    try:
        return str(ipaddress.IPv4Address(string(reader, entry)))
    except ValueError:
        raise mistyped(entry, "an IPv4 address") from None


_DISCOVERY = table(
    [
        sets("key", _key),
        sets("servers", between(2, 1000)),
        sets("host", _ipv4, "group"),
        sets("port", between(1, 65535)),
        sets("interface", _ipv4),
    ]
)


def _discovery(reader: Reader, target: Any, entry: Entry) -> None:
    reader.block(map_of(entry), _DISCOVERY, target.discovery, "cluster.discovery.")
    for name, missing in (("key", not target.discovery.key), ("servers", not target.discovery.servers)):
        if missing:
            raise Wrong(f'discovery needs "{name}"')


_CLUSTER = table(
    [
        sets("name", name_without_spaces("cluster")),
        listens("host", "port"),
        sets("host", string, "net"),
        sets("port", port),
        Rule(("authorization",), _authorization),
        sets("permissions", _permissions),
        sets("tls", partial(tls_block, path="cluster.tls", mutual=True)),
        sets("routes", _routes),
        sets("advertise", string, "cluster_advertise"),
        sets("no_advertise", boolean),
        sets("connect_retries", integer),
        sets("connect_backoff", boolean),
        sets("pool_size", integer),
        sets("accounts", strings),
        sets("compression", compression),
        sets("ping_interval", _ping_interval),
        sets("ping_max", or_default(integer)),
        sets("write_deadline", or_default(duration, MAX_SECONDS)),
        sets("write_timeout", WRITE_TIMEOUT),
        sets("udp_hints", boolean),
        Rule(("discovery",), _discovery),
    ]
)


def cluster(reader: Reader, target: Options, entry: Entry) -> None:
    """Reads the block into the options."""
    reader.block(map_of(entry), _CLUSTER, target.cluster, "cluster.")
