"""The `leafnodes` block: checked as nats-server checks it; there are no leaf nodes here yet. Pure."""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import urlsplit

from .cluster import WRITE_TIMEOUT, compression
from .kinds import (
    Kind,
    Reader,
    Wrong,
    boolean,
    checked,
    duration,
    each,
    either,
    integer,
    listen,
    map_of,
    maps,
    mistyped,
    short_timeout,
    string,
    strings,
    table,
)
from .lexer import Position
from .mappings import valid_subject
from .nkeys import public_kind, seed_kind
from .parser import Entry, Tree
from .tls import tls_block
from .urls import url

__all__ = ["leafnodes"]

_OLDEST = (2, 8, 0)


def _user_key(reader: Reader, entry: Entry) -> None:
    if public_kind(string(reader, entry)) != "U":
        raise Wrong("Not a valid public nkey for leafnode authorization")


_LOGIN = [
    checked("user", "username", kind=string),
    checked("password", "pass", kind=string),
    checked("account", kind=string),
    checked("proxy_required", kind=boolean),
]
_USER = table(_LOGIN)


def _users(reader: Reader, entry: Entry) -> None:
    each(maps(_USER))(reader, entry)
    seen = set()
    for node in entry.node.value if isinstance(entry.node.value, list) else []:
        found = _strings_of(node.value, "user", "username") if isinstance(node.value, dict) else []
        for name in found:
            if name in seen:
                reader.fault(node.position, f'duplicate user "{name}" detected in leafnode authorization')
            seen.add(name)


_AUTHORIZATION = table(
    [
        *_LOGIN,
        checked("nkey", kind=_user_key),
        checked("timeout", kind=short_timeout),
        checked("users", kind=_users),
    ]
)


def _authorization(reader: Reader, entry: Entry) -> None:
    maps(_AUTHORIZATION)(reader, entry)
    tree = map_of(entry)
    listed = _entry(tree, "users")
    if listed is not None and listed.node.value and (_entry(tree, "user", "username") or _entry(tree, "nkey")):
        raise Wrong("can not have a single user/pass and a users array")


def _entry(tree: Tree, *names: str) -> Entry | None:
    return next((entry for entry in tree.values() if entry.name.lower() in names), None)


def _strings_of(tree: Tree, *names: str) -> list[str]:
    """The strings of a key, be it one or an array."""
    entry = _entry(tree, *names)
    if entry is None:
        return []
    nodes = entry.node.value if isinstance(entry.node.value, list) else [entry.node]
    return [node.value for node in nodes if isinstance(node.value, str)]


# ---- remotes ----


def _seed(reader: Reader, entry: Entry) -> None:
    if not seed_kind(string(reader, entry)):
        raise Wrong("Remote leafnode nkey is not a valid seed")


def _subjects(reader: Reader, entry: Entry) -> None:
    for subject in strings(reader, entry):
        if not valid_subject(subject):
            raise Wrong(f'subject "{subject}" is not a valid subject')


_MIGRATE = table([checked("leader_migrate_delay", kind=duration)])


def _migrate(reader: Reader, entry: Entry) -> None:
    if isinstance(entry.node.value, bool):
        return
    tree = map_of(entry)
    known = {name: inner for name, inner in tree.items() if name.lower() in _MIGRATE}
    reader.block(known, _MIGRATE, None, "")


_PROXY = table(
    [
        checked("url", kind=string),
        checked("username", kind=string),
        checked("password", kind=string),
        checked("timeout", kind=duration),
    ]
)


def _proxy(reader: Reader, entry: Entry) -> None:
    before = len(reader.errors)
    maps(_PROXY)(reader, entry)
    tree = map_of(entry)
    text = "".join(_strings_of(tree, "url"))
    if not text or len(reader.errors) > before:
        return
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as err:
        raise Wrong(f"invalid proxy URL: {err}") from None
    if parts.scheme not in ("http", "https"):
        raise Wrong(f"proxy URL scheme must be http or https, got: {parts.scheme}")
    if not parts.hostname:
        raise Wrong("proxy URL must specify a host")
    if bool("".join(_strings_of(tree, "username"))) != bool("".join(_strings_of(tree, "password"))):
        raise Wrong("proxy username and password must both be specified or both be empty")


def _proxy_fits(reader: Reader, tree: Tree, position: Position) -> None:
    """Warns of a proxy that some of a remote's URLs cannot use."""
    proxy = _entry(tree, "proxy")
    if proxy is None or not isinstance(proxy.node.value, dict) or not "".join(_strings_of(proxy.node.value, "url")):
        return
    schemes = {text.partition(":")[0].lower() for text in _strings_of(tree, "url", "urls")}
    if schemes - {"ws", "wss"}:
        reader.warn(position, "proxy settings only apply to ws:// and wss:// URLs", strict=True)
    if "wss" in schemes and _entry(tree, "tls") is None:
        reader.warn(position, "a proxy to wss:// URLs needs a tls block", strict=True)


_REMOTE = table(
    [
        checked("url", "urls", kind=either(url, each(url))),
        checked("no_randomize", "dont_randomize", kind=boolean),
        checked("account", "local", kind=string),
        checked("credentials", "creds", kind=string),
        checked("nkey", "seed", kind=_seed),
        checked("tls", kind=partial(tls_block, path="leafnodes.tls")),
        checked("hub", kind=boolean),
        checked("deny_imports", "deny_import", kind=_subjects),
        checked("deny_exports", "deny_export", kind=_subjects),
        checked("ws_compression", "ws_compress", "websocket_compress", "websocket_compression", kind=boolean),
        checked("ws_no_masking", "websocket_no_masking", kind=boolean),
        checked("jetstream_cluster_migrate", "js_cluster_migrate", kind=_migrate),
        checked("isolate_leafnode_interest", "isolate", kind=boolean),
        checked("request_isolation", kind=boolean),
        checked("compression", kind=compression),
        checked("first_info_timeout", kind=duration),
        checked("dial_timeout", kind=duration),
        checked("disabled", kind=boolean),
        checked("proxy", kind=_proxy),
        checked("ignore_discovered_servers", kind=boolean),
    ]
)


def _remotes(reader: Reader, entry: Entry) -> None:
    if not isinstance(entry.node.value, list):
        raise mistyped(entry, "an array of maps")
    seen = set()
    for node in entry.node.value:
        if not isinstance(node.value, dict):
            reader.fault(node.position, f'expected maps in "{entry.name}", got {node.kind}')
            continue
        reader.block(node.value, _REMOTE, None, "")
        tree = node.value
        urls = _strings_of(tree, "url", "urls")
        if _entry(tree, "credentials", "creds") and _entry(tree, "nkey", "seed"):
            reader.fault(node.position, "remote leafnode can not have both credentials and nkey")
        _proxy_fits(reader, tree, node.position)
        account = "".join(_strings_of(tree, "account", "local")) or "$G"
        who = (tuple(urls), account, "".join(_strings_of(tree, "credentials", "creds")))
        if who in seen:
            reader.fault(node.position, f'duplicate remote for account "{account}"')
        seen.add(who)


def _min_version(reader: Reader, entry: Entry) -> None:
    match = re.fullmatch(r"([0-9]+)\.([0-9]+)\.([0-9]+)(?:[-+].*)?", string(reader, entry))
    if match is None:
        raise Wrong(f'expected a version such as "2.8.0" for "{entry.name}"')
    if (int(match[1]), int(match[2]), int(match[3])) < _OLDEST:
        raise Wrong("the minimum version should be at least 2.8.0")


leafnodes: Kind = maps(
    table(
        [
            checked("listen", kind=listen),
            checked("host", "net", kind=string),
            checked("port", kind=integer),
            checked("authorization", kind=_authorization),
            checked("remotes", kind=_remotes),
            checked("reconnect", "reconnect_delay", "reconnect_interval", kind=duration),
            checked("dial_timeout", kind=duration),
            checked("tls", kind=partial(tls_block, path="leafnodes.tls")),
            checked("advertise", "leafnode_advertise", kind=string),
            checked("no_advertise", kind=boolean),
            checked("min_version", "minimum_version", kind=_min_version),
            checked("compression", kind=compression),
            checked("isolate_leafnode_interest", "isolate", kind=boolean),
            checked("write_deadline", kind=duration),
            checked("write_timeout", kind=WRITE_TIMEOUT),
        ]
    )
)
