"""What accounts share: imports, exports, traces, an auth callout. Checked; nothing is behind them yet. Pure."""

from __future__ import annotations

import re
from types import SimpleNamespace

import msgspec

from .kinds import (
    Kind,
    Reader,
    Rule,
    Wrong,
    any_map,
    array_of_strings,
    boolean,
    checked,
    integer,
    map_of,
    maps,
    mistyped,
    one_of,
    sets,
    strict_duration,
    string,
    table,
)
from .lexer import Position
from .mappings import valid_subject
from .nkeys import public_kind
from .parser import Entry, Tree
from .users import MessageTrace

__all__ = ["auth_callout", "cluster_traffic", "exports", "imports", "sharing_faults", "trace"]

_RESPONSES = one_of("single", "singleton", "stream", "chunk", "chunked")


def _percentage(entry: Entry, low: int, high: int, *, words: tuple[str, ...] = ()) -> int | str:
    value = entry.node.value
    if isinstance(value, str):
        if value.lower() in words:
            return value
        match = re.fullmatch(r"([+-]?[0-9]{1,9})%?", value)
        if match is None:
            raise Wrong(f'expected a percentage for "{entry.name}", got "{value}"')
        value = int(match[1])
    if isinstance(value, bool) or not isinstance(value, int):
        raise mistyped(entry, "a percentage")
    if not low <= value <= high:
        raise Wrong(f'expected {low} to {high} for "{entry.name}", got {value}')
    return value


_LATENCY = table(
    [
        checked("subject", kind=string),
        checked("sampling", kind=lambda reader, entry: _percentage(entry, 1, 100, words=("headers",))),
    ]
)


def _latency(reader: Reader, entry: Entry) -> None:
    if isinstance(entry.node.value, str):
        return
    maps(_LATENCY)(reader, entry)
    if not any(inner.name.lower() == "subject" for inner in map_of(entry).values()):
        raise Wrong("Latency subject required, but missing")


_EXPORT = table(
    [
        checked("stream", "service", kind=string),
        checked("accounts", kind=array_of_strings),
        checked("response", "response_type", kind=_RESPONSES),
        checked("threshold", "response_threshold", "response_max_time", "response_time", kind=strict_duration),
        checked("latency", kind=_latency),
        checked("account_token_position", kind=integer),
        checked("allow_trace", kind=boolean),
    ]
)
_ONLY_SERVICES = frozenset(
    "response response_type threshold response_threshold response_max_time response_time latency allow_trace".split()
)
_SOURCE = table([checked("account", kind=string), checked("subject", kind=string)])


def _source(reader: Reader, entry: Entry) -> None:
    maps(_SOURCE)(reader, entry)
    given = {inner.name.lower(): inner.node.value for inner in map_of(entry).values()}
    if not (given.get("account") and given.get("subject")):
        raise Wrong("Expect an account name and a subject")


_IMPORT = table(
    [
        checked("stream", "service", kind=_source),
        checked("prefix", "to", kind=string),
        checked("share", kind=boolean),
        checked("allow_trace", kind=boolean),
    ]
)


def _items(rules: dict[str, Rule], check: Kind) -> Kind:
    def kind(reader: Reader, entry: Entry) -> None:
        if not isinstance(entry.node.value, list):
            raise mistyped(entry, "an array of maps")
        for node in entry.node.value:
            item = Entry(entry.name, node.position, node)
            try:
                reader.block(map_of(item), rules, None, "")
                check(reader, item)
            except Wrong as err:
                reader.fault(node.position, str(err))

    return kind


def _export(reader: Reader, item: Entry) -> None:
    names = {name.lower() for name in map_of(item)}
    if {"stream", "service"} <= names:
        raise Wrong("Detected a service but already saw a stream")
    if "service" not in names and names & _ONLY_SERVICES:
        raise Wrong(f"Detected {', '.join(sorted(names & _ONLY_SERVICES))} directive on non-service")


def _import(reader: Reader, item: Entry) -> None:
    names = {name.lower() for name in map_of(item)}
    if {"stream", "service"} <= names:
        raise Wrong("Detected a service but already saw a stream")
    if "stream" in names and {"prefix", "to"} <= names:
        raise Wrong("Stream import can not have a 'prefix' and a 'to' property")
    if "allow_trace" in names and "stream" not in names:
        raise Wrong("Detected allow_trace directive on a non-stream")


exports = _items(_EXPORT, _export)
imports = _items(_IMPORT, _import)


# ---- between accounts ----


class _Export(msgspec.Struct):
    subject: str
    accounts: frozenset[str] | None


class _Account(msgspec.Struct):
    """What one account gives and takes, by `stream` and `service`."""

    given: dict[str, list[_Export]] = msgspec.field(default_factory=lambda: {"stream": [], "service": []})
    taken: list[tuple[str, str, str, str, Position]] = msgspec.field(default_factory=list)


def _lowered(tree: Tree) -> dict[str, Entry]:
    return {name.lower(): inner for name, inner in tree.items()}


def _collect(tree: Tree) -> _Account:
    found = _Account()
    for name, inner in _lowered(tree).items():
        if name not in ("exports", "imports") or not isinstance(inner.node.value, list):
            continue
        for node in inner.node.value:
            item = _lowered(node.value) if isinstance(node.value, dict) else {}
            kind = next((kind for kind in ("stream", "service") if kind in item), "")
            value = item[kind].node.value if kind else None
            if name == "exports" and isinstance(value, str):
                only = item["accounts"].node.value if "accounts" in item else None
                named = frozenset(str(n.value) for n in only) if isinstance(only, list) else None
                found.given[kind].append(_Export(value, named))
            elif name == "imports" and isinstance(value, dict):
                source = _lowered(value)
                to = str(item["to"].node.value) if "to" in item else ""
                account, subject = (
                    str(source[key].node.value) if key in source else "" for key in ("account", "subject")
                )
                found.taken.append((kind, account, subject, to, node.position))
    return found


def _covers(pattern: str, subject: str) -> bool:
    """Whether every subject of the second is one of the first."""
    wide, narrow = pattern.split("."), subject.split(".")
    for n, token in enumerate(wide):
        if token == ">":
            return len(narrow) > n
        if n >= len(narrow) or narrow[n] == ">" or (token != "*" and token != narrow[n]):
            return False
    return len(wide) == len(narrow)


def sharing_faults(reader: Reader, entry: Entry) -> None:
    """Imports and exports that do not fit each other; the whole `accounts` block is read."""
    if not isinstance(entry.node.value, dict):
        return
    accounts = {
        name: _collect(inner.node.value)
        for name, inner in entry.node.value.items()
        if isinstance(inner.node.value, dict)
    }
    for name, account in accounts.items():
        for kind, offered in account.given.items():
            for export in offered:
                for other in export.accounts or ():
                    if other not in accounts:
                        reader.fault(entry.position, f'"{other}" account not defined for {kind} export')
        targets = set()
        for kind, source, subject, to, position in account.taken:
            if not (source and subject):
                continue
            if source not in accounts:
                reader.fault(entry.position, f'"{source}" account not defined for {kind} import')
            elif not any(
                _covers(export.subject, subject) and (export.accounts is None or name in export.accounts)
                for export in accounts[source].given[kind]
            ):
                reader.fault(entry.position, f'Error adding {kind} import "{subject}": {kind} import not authorized')
            target = (source, to or subject)
            if kind == "service" and target in targets:
                reader.fault(position, f'Duplicate service import subject "{to or subject}"')
            targets.add(target)


# ---- traces, traffic, callouts ----


def _destination(entry: Entry, text: str) -> str:
    if not valid_subject(text) or "*" in text.split(".") or text.endswith(">"):
        raise Wrong(f'Trace destination "{text}" is not valid')
    return text


_TRACE = table(
    [
        sets("dest", lambda reader, entry: _destination(entry, string(reader, entry))),
        sets("sampling", lambda reader, entry: _percentage(entry, 1, 100)),
    ]
)


def trace(reader: Reader, entry: Entry) -> MessageTrace | None:
    """A subject, or a map with one and how often."""
    if isinstance(entry.node.value, str):
        return MessageTrace(_destination(entry, entry.node.value))
    tree, draft = _lowered(map_of(entry)), SimpleNamespace()
    reader.block(map_of(entry), _TRACE, draft, "")
    if "sampling" in tree and "dest" not in tree:
        reader.warn(entry.position, "Trace destination sampling ignored since no destination was set", strict=True)
    found = MessageTrace(**vars(draft))
    return found if found.dest else None


cluster_traffic: Kind = one_of("system", "owner", any_case=False)


def _issuer(reader: Reader, entry: Entry) -> None:
    if public_kind(string(reader, entry)) != "A":
        raise Wrong(f'Expected callout user to be a valid public account nkey, got "{entry.node.value}"')


def _xkey(reader: Reader, entry: Entry) -> None:
    if public_kind(string(reader, entry)) != "X":
        raise Wrong(f'Expected callout xkey to be a valid public xkey, got "{entry.node.value}"')


_CALLOUT = table(
    [
        checked("issuer", kind=_issuer),
        checked("auth_users", "users", kind=array_of_strings),
        checked("account", "acc", kind=string),
        checked("xkey", "key", kind=_xkey),
        checked("allowed_accounts", kind=array_of_strings),
    ]
)


def auth_callout(reader: Reader, entry: Entry) -> None:
    """A map with at least `issuer` and `auth_users`."""
    tree = _lowered(any_map(reader, entry))
    reader.block(map_of(entry), _CALLOUT, None, "")
    if "issuer" not in tree:
        raise Wrong("Authorization callouts require an issuer to be specified")
    if not any(name in tree and tree[name].node.value for name in ("auth_users", "users")):
        raise Wrong("Authorization callouts require authorized users to be specified")
