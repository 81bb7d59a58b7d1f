"""The rules of `authorization`, `accounts` and what names their users. Pure.

What asks for more than names and passwords (nkeys, JWT, imports, exports, an auth callout) stops the start: a server
without it would let in, or carry, something else than the file says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from .kinds import (
    Reader,
    Rule,
    Wrong,
    boolean,
    collects,
    duration_seconds,
    integer,
    later,
    map_of,
    mistyped,
    refused,
    sets,
    string,
    strings,
    table,
)
from .lexer import Position
from .mappings import mappings
from .nkeys import public_kind
from .options import Options
from .parser import Entry, Node, Tree
from .sharing import auth_callout, cluster_traffic, exports, imports, sharing_faults, trace
from .users import (
    GLOBAL_ACCOUNT,
    Account,
    AccountJetStream,
    AccountLimits,
    ClientAuthorization,
    Permissions,
    Responses,
    Subjects,
    User,
)

__all__ = ["account_rules", "cross_check"]

CONNECTION_TYPES = frozenset({"STANDARD", "WEBSOCKET", "LEAFNODE", "LEAFNODE_WS", "MQTT", "MQTT_WS", "IN_PROCESS"})
HIGH_TIMEOUT = 60.0


# ---- permissions ----


def _valid(subject: str) -> bool:
    """Whether a subject could be subscribed to."""
    tokens = subject.split(".")
    return not re.search(r"[ \t\r\n\f\v]", subject) and all(tokens) and ">" not in tokens[:-1]


def _subject(text: str, queues: bool) -> str:
    """The subject, or with `queues` also `subject queue`, as `authentication.compile_permissions` splits it."""
    parts = re.split(r"[ \t]+", text.strip()) if queues else [text]
    if len(parts) > 2 or not _valid(parts[0]) or (len(parts) == 2 and not _valid(parts[1])):
        raise Wrong(f'subject "{text}" is not a valid subject')
    return " ".join(parts)


def _subject_list(entry: Entry, node: Node, queues: bool) -> tuple[str, ...]:
    value = node.value
    found = value if isinstance(value, list) else [node]
    out = []
    for item in found:
        if not isinstance(item.value, str):
            raise Wrong(f'expected a subject or an array of subjects for "{entry.name}", got {item.kind}')
        out.append(_subject(item.value, queues))
    return tuple(out)


def _subjects(queues: bool) -> Callable[[Entry], Subjects]:
    def read(entry: Entry) -> Subjects:
        if not isinstance(entry.node.value, dict):
            return Subjects(_subject_list(entry, entry.node, queues) or None)
        lists: dict[str, tuple[str, ...]] = {}
        for inner in entry.node.value.values():
            name = inner.name.lower()
            if name not in ("allow", "deny"):
                if inner.used:
                    continue
                raise Wrong(
                    f'Unknown field name "{inner.name}" parsing subject permissions, '
                    "only 'allow' or 'deny' are permitted"
                )
            lists[name] = _subject_list(inner, inner.node, queues)
        return Subjects(lists.get("allow") or None, lists.get("deny", ()))

    return read


def _responses(entry: Entry) -> Responses | None:
    value = entry.node.value
    if isinstance(value, bool):
        return Responses() if value else None
    if not isinstance(value, dict):
        raise Wrong("error parsing response permissions, expected a boolean or a map")
    most, expires = 0, 0.0
    for inner in value.values():
        match inner.name.lower():
            case "max" | "max_msgs" | "max_messages" | "max_responses":
                if isinstance(inner.node.value, bool) or not isinstance(inner.node.value, int):
                    raise mistyped(inner, "an integer")
                most = inner.node.value
            case "expires" | "expiration" | "ttl":
                if not isinstance(inner.node.value, str):
                    raise Wrong("error parsing expires, not a duration string")
                seconds = duration_seconds(inner.node.value)
                if seconds is None:
                    raise Wrong(f'error parsing expires: time: invalid duration "{inner.node.value}"')
                expires = seconds
            case _:
                if not inner.used:
                    raise Wrong(f'Unknown field "{inner.name}" parsing permissions')
    usual = Responses()
    return Responses(most or usual.max, expires or usual.expires)


def permissions(reader: Reader, entry: Entry) -> Permissions:
    if not isinstance(entry.node.value, dict):
        raise Wrong(f"Expected permissions to be a map/struct, got {entry.node.kind}")
    publish, subscribe, responses = Subjects(), Subjects(), None
    for inner in entry.node.value.values():
        match inner.name.lower():
            case "publish" | "pub" | "import":
                publish = _subjects(queues=False)(inner)
            case "subscribe" | "sub" | "export":
                subscribe = _subjects(queues=True)(inner)
            case "allow_responses" | "publish_allow_responses":
                responses = _responses(inner)
            case _:
                if not inner.used:
                    raise Wrong(f'Unknown field "{inner.name}" parsing permissions')
    if responses is not None and publish.allow is None:
        publish = Subjects((), publish.deny)  # only what it was asked may it answer
    return Permissions(publish, subscribe, responses)


# ---- users ----


def _connection_types(reader: Reader, entry: Entry) -> frozenset[str]:
    types = [word.upper() for word in strings(reader, entry)]
    unknown = [word for word in types if word not in CONNECTION_TYPES]
    if unknown:
        raise Wrong("invalid connection types [" + " ".join(f'"{word}"' for word in unknown) + "]")
    return frozenset(types)


def _user_nkey(reader: Reader, entry: Entry) -> str:
    text = string(reader, entry)
    if public_kind(text) != "U":
        raise Wrong("Not a valid public nkey for a user")
    reader.lacks(entry)
    return text


def _account_nkey(reader: Reader, target: Account, entry: Entry) -> None:
    text = string(reader, entry)
    if public_kind(text) != "A":
        raise Wrong(f'Not a valid public nkey for an account: "{text}"')
    reader.lacks(entry)


class _UserDraft:
    """A user's entry while it is read."""

    def __init__(self) -> None:
        self.name = ""
        self.password = ""
        self.permissions: Permissions | None = None
        self.connection_types: frozenset[str] = frozenset()
        self.nkey = ""


_USER = table(
    [
        sets("name", string, "username", name="user"),
        sets("password", string, "pass"),
        sets("permissions", permissions, "permission", "authorization"),
        sets("connection_types", _connection_types, "allowed_connection_types", "clients"),
        sets("nkey", _user_nkey),
        refused("proxy_required", kind=boolean),
    ]
)


def users(reader: Reader, entry: Entry) -> list[User]:
    value = entry.node.value
    if not isinstance(value, list):
        raise Wrong(f"Expected users field to be an array, got {entry.node.kind}")
    found = []
    keys = set()
    for node in value:
        if not isinstance(node.value, dict):
            reader.fault(node.position, f"Expected user entry to be a map/struct, got {node.kind}")
            continue
        draft = _UserDraft()
        before = len(reader.errors)
        reader.block(node.value, _USER, draft, "")
        place = next((inner.position for inner in node.value.values()), node.position)
        if draft.nkey:
            if draft.nkey in keys:
                reader.fault(place, f'Duplicate nkey "{draft.nkey}" detected')
            keys.add(draft.nkey)
            if draft.name or draft.password:
                reader.fault(place, "Nkey users do not take usernames or passwords")
            continue
        if not draft.name and len(reader.errors) == before:
            reader.fault(place, "User entry requires a user")
        found.append(User(draft.name, draft.password, GLOBAL_ACCOUNT, draft.permissions, draft.connection_types))
    return found


# ---- authorization ----


def _timeout(reader: Reader, entry: Entry) -> float:
    value = entry.node.value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Wrong("error parsing authorization config, 'timeout' wrong type")
    if isinstance(value, str):
        seconds = duration_seconds(value)
        if seconds is None:
            raise Wrong(f"error parsing authorization config, 'timeout' time: invalid duration \"{value}\"")
    else:
        seconds = float(value)
    if seconds > HIGH_TIMEOUT:
        reader.warn(
            entry.position,
            f'invalid use of field "timeout": timeout of {value} ({seconds:f} seconds) is high, consider keeping it '
            "under 60 seconds. possibly caused by unquoted duration; use '1m' instead of 1m, for example",
            strict=True,
        )
    return seconds


_AUTHORIZATION = table(
    [
        sets("user", string, "username"),
        sets("password", string, "pass"),
        sets("token", string),
        sets("timeout", _timeout),
        sets("users", users),
        sets("default_permissions", permissions, "default_permission", "permissions"),
        refused("auth_callout", "auth_hook", kind=auth_callout, allow=lambda node: False),
        refused("proxy_required", kind=boolean),
    ]
)


def _authorization(reader: Reader, target: Options, entry: Entry) -> None:
    tree = map_of(entry)
    login = ClientAuthorization()
    reader.block(tree, _AUTHORIZATION, login, "authorization.")
    listed = any(inner.name.lower() == "users" for inner in tree.values())
    if (login.user or login.password) and login.token:
        raise Wrong("Cannot have a user/pass and token")
    if (login.user or login.password) and listed:
        raise Wrong("Can not have a single user/pass and a users array")
    if login.token and listed:
        raise Wrong("Can not have a token and a users array")
    login.users = [_completed(user, GLOBAL_ACCOUNT, login.default_permissions) for user in login.users]
    target.authorization = login


def _completed(user: User, account: str, default: Permissions | None) -> User:
    return User(
        user.name,
        user.password,
        account,
        user.permissions if user.permissions is not None else default,
        user.connection_types,
    )


# ---- accounts ----


_LIMITS = table(
    [
        sets("max_connections", integer, "max_conn"),
        sets("max_subscriptions", integer, "max_subs"),
        sets("max_payload", integer, "max_pay"),
        sets("max_leafnodes", integer, "max_leafs"),
    ]
)


def _limits(reader: Reader, target: Any, entry: Entry) -> None:
    if not isinstance(entry.node.value, dict):
        raise Wrong(f"Expected account limits to be a map/struct, got {entry.node.kind}")
    unknown = next((i for i in entry.node.value.values() if i.name.lower() not in _LIMITS and not i.used), None)
    if unknown is not None:
        reader.fault(unknown.position, f'Unknown field "{unknown.name}" parsing account limits')
        return
    draft = SimpleNamespace()
    reader.block(entry.node.value, _LIMITS, draft, "")
    target.limits = AccountLimits(**vars(draft))


def _any_size(reader: Reader, entry: Entry) -> int:
    """Bytes: strings with a unit, which the server's own block takes, are none here."""
    try:
        return integer(reader, entry)
    except Wrong:
        raise Wrong(f'Expected a parseable size for "{entry.name}", got {entry.node.kind}') from None


_JETSTREAM = table(
    [
        sets("max_memory", _any_size, "max_mem", "mem", "memory"),
        sets("max_store", _any_size, "max_file", "max_disk", "store", "disk"),
        sets("max_streams", integer, "streams"),
        sets("max_consumers", integer, "consumers"),
        sets("max_bytes_required", boolean, "max_stream_bytes", "max_bytes"),
        sets("memory_max_stream_bytes", _any_size, "mem_max_stream_bytes"),
        sets("disk_max_stream_bytes", _any_size, "store_max_stream_bytes"),
        sets("max_ack_pending", integer),
        later("cluster_traffic", kind=cluster_traffic),
    ]
)


def _jetstream(reader: Reader, target: Account, entry: Entry) -> None:
    value = entry.node.value
    if isinstance(value, bool):
        target.jetstream = AccountJetStream() if value else None
    elif isinstance(value, str):
        if value.lower() not in ("enabled", "enable", "disabled", "disable"):
            raise Wrong(f"Expected 'enabled' or 'disabled' for string value, got '{value}'")
        target.jetstream = AccountJetStream() if value.lower().startswith("enable") else None
    elif isinstance(value, dict):
        draft = SimpleNamespace()
        reader.block(value, _JETSTREAM, draft, "")
        target.jetstream = AccountJetStream(**vars(draft))
    else:
        raise Wrong(f"Expected map, bool or string to define JetStream, got {entry.node.kind}")


def _account_users(reader: Reader, target: Account, entry: Entry) -> None:
    target.users = users(reader, entry)
    reader.options.places[f"accounts.{target.name}.users"] = entry.position


_ACCOUNT = table(
    [
        Rule(("users",), _account_users),
        sets("default_permissions", permissions),
        Rule(("limits",), _limits),
        Rule(("jetstream",), _jetstream),
        Rule(("nkey",), _account_nkey),
        refused("imports", kind=imports),
        refused("exports", kind=exports),
        collects("mappings", mappings, "maps"),
        sets("trace", trace, "trace_dest", name="msg_trace"),
    ]
)


def _new_account(reader: Reader, target: Options, name: str, position: Position) -> Account | None:
    if name == GLOBAL_ACCOUNT:
        reader.fault(position, f'"{name}" is a Reserved Account')
        return None
    if name in target.accounts:
        reader.fault(position, f"Duplicate Account Entry: {name}")
        return None
    account = target.accounts[name] = Account(name)
    return account


def _accounts(reader: Reader, target: Options, entry: Entry) -> None:
    value = entry.node.value
    if isinstance(value, list):
        for node in value:
            if not isinstance(node.value, str):
                reader.fault(node.position, f"Expected account names, got {node.kind}")
            else:
                _new_account(reader, target, node.value, node.position)
        return
    if not isinstance(value, dict):
        reader.warn(entry.position, f'"{entry.name}" names no accounts: {entry.node.kind} has no effect')
        return
    for inner in value.values():
        _account(reader, target, inner)
    sharing_faults(reader, entry)


def _account(reader: Reader, target: Options, entry: Entry) -> None:
    if not isinstance(entry.node.value, dict):
        if not entry.used:
            reader.fault(entry.position, "Expected map entries for accounts")
        return
    account = _new_account(reader, target, entry.name, entry.position)
    if account is None:
        return
    tree: Tree = entry.node.value
    reader.block(tree, _ACCOUNT, account, f"accounts.{entry.name}.")
    account.users = [_completed(user, account.name, account.default_permissions) for user in account.users]


def _system_account(reader: Reader, entry: Entry) -> str:
    if not isinstance(entry.node.value, str):
        raise Wrong("system account name must be a string")
    return entry.node.value


def account_rules() -> list[Rule]:
    """The rules of the top level that this module has."""
    return [
        Rule(("authorization",), _authorization),
        Rule(("accounts",), _accounts),
        sets("no_auth_user", string),
        sets("system_account", _system_account, "system"),
        sets("no_system_account", boolean, "no_system", "no_sys_acc"),
    ]


def cross_check(reader: Reader) -> None:
    """Faults between the blocks: a name used twice, one user and a list of them."""
    options = reader.options
    login = options.authorization
    names: set[str] = set()

    def take(found: list[User], place: str) -> None:
        for user in found:
            if user.name and user.name in names:
                reader.fault(options.places[place], f'Duplicate user "{user.name}" detected')
            names.add(user.name)

    for account in options.accounts.values():
        take(account.users, f"accounts.{account.name}.users")
    if names and (login.user or login.password):
        reader.fault(options.places["authorization"], "Can not have a single user/pass and a users array")
    if names and login.token:
        reader.fault(options.places["authorization"], "Can not have a token and a users array")
    take(login.users, "authorization")
