"""From a configuration tree to Options: which keys there are, what kind each is, what is done with it. Pure.

A key is served, tolerated (a warning: leaving it out takes nothing from anybody's safety) or refused (an error: a file
that asks for TLS or passwords must not start a server without them). All faults of a file are collected.
"""

from __future__ import annotations

from functools import partial

from .accounts import account_rules, cross_check
from .cluster import WRITE_TIMEOUT, cluster
from .gateway import gateway
from .jetstream import jetstream, top_store_dir
from .kinds import (
    MAX_SECONDS,
    NO_PROFILE,
    Reader,
    Rule,
    Warning,
    Wrong,
    between,
    boolean,
    collects,
    duration,
    duration_seconds,
    integer,
    later,
    listens,
    map_of,
    name_without_spaces,
    or_default,
    parse_listen,
    port,
    refused,
    sets,
    strict_duration,
    string,
    strings,
    table,
)
from .leafnodes import leafnodes
from .lexer import ConfigError
from .mappings import mappings
from .monitoring import http_authorization
from .mqtt import mqtt
from .options import Options
from .parser import Entry, Tree
from .tls import tls_block
from .trust import ocsp, ocsp_cache, operators, preload, proxies, resolver, trusted
from .urls import parse_route
from .websocket import websocket

__all__ = ["Warning", "duration_seconds", "options_from", "parse_listen", "parse_route"]


def options_from(tree: Tree, file: str) -> tuple[Options, list[Warning]]:
    """Options from a parsed file. Raises: ConfigError with every fault of the file."""
    reader = Reader(Options(config_file=file))
    if not tree:
        reader.warnings.append(Warning(f"{file}: config has no values or is empty", strict=True))
    reader.block(tree, _TOP, reader.options, "")
    if not reader.errors:
        cross_check(reader)
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


def _names(reader: Reader, entry: Entry) -> dict[str, str]:
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


def _profile(reader: Reader, target: Options, entry: Entry) -> None:
    if integer(reader, entry):
        reader.warn(entry.position, f'"{entry.name}" has no effect: {NO_PROFILE}')


_TOP = table(
    [
        listens("host", "port"),
        sets("host", string, "net"),
        sets("port", port),
        sets("client_advertise", string),
        sets("server_name", name_without_spaces("server")),
        sets("server_tags", _tags),
        sets("server_metadata", _names),
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
        sets("syslog", boolean),
        sets("remote_syslog", string),
        sets("pid_file", string, "pidfile"),
        sets("ports_file_dir", string),
        sets("max_connections", integer, "max_conn"),
        sets("max_subscriptions", integer, "max_subs"),
        later("max_subscription_tokens", "max_sub_tokens", kind=between(1, 255)),
        sets("max_control_line", or_default(integer)),
        sets("max_payload", or_default(integer)),
        sets("max_pending", or_default(integer, 1 << 63)),
        sets("max_closed_clients", integer),
        sets("ping_interval", or_default(duration, MAX_SECONDS)),
        sets("ping_max", or_default(integer)),
        sets("write_deadline", or_default(duration, MAX_SECONDS)),
        sets("write_timeout", WRITE_TIMEOUT),
        sets("no_fast_producer_stall", boolean),
        sets("lame_duck_duration", _lame_duck_duration),
        sets("lame_duck_grace_period", _lame_duck_grace),
        later("no_header_support", kind=boolean),
        later("disable_sublist_cache", "no_sublist_cache", kind=boolean),
        sets("connect_error_reports", integer),
        sets("reconnect_error_reports", integer),
        listens("http_host", "http_port", "http"),
        sets("http_port", port, "monitor_port"),
        sets("http_base_path", string),
        http_authorization,
        Rule(("prof_port",), _profile),
        later("prof_block_rate", kind=integer),
        sets("feature_flags", _flags),
        sets("tls", partial(tls_block, path="tls")),
        sets("allow_non_tls", boolean),
        Rule(("cluster",), cluster),
        Rule(("jetstream",), jetstream),
        Rule(("store_dir", "storedir"), top_store_dir),
        # Without these the server would let in, or show, what the file wants kept out.
        listens("http_host", "https_port", "https"),
        sets("https_port", port),
        refused("ocsp", kind=ocsp),
        refused("ocsp_cache", kind=ocsp_cache),
        refused("resolver_tls", kind=partial(tls_block, path="resolver_tls")),
        refused("default_sentinel", kind=string),
        refused("trusted", "trusted_keys", kind=trusted),
        refused("operator", "operators", "root", "roots", "root_operator", "root_operators", kind=operators),
        refused("resolver", "account_resolver", "accounts_resolver", kind=resolver),
        refused("resolver_preload", kind=preload),
        refused("resolver_pinned_accounts", kind=strings),
        *account_rules(),
        sets("proxy_protocol", boolean),
        refused("proxies", kind=proxies),
        collects("mappings", mappings, "maps"),
        later("default_js_domain", kind=_names),
        refused("gateway", kind=gateway),
        refused("leafnodes", "leaf", kind=leafnodes),
        Rule(("websocket", "ws"), websocket),
        refused("mqtt", kind=mqtt),
    ]
)
