"""Operators, trusted keys, resolvers of accounts, trusted proxies, OCSP: checked; there is nothing behind them yet."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from typing import Any

from .kinds import (
    Kind,
    Reader,
    Wrong,
    boolean,
    checked,
    each,
    integer,
    map_of,
    maps,
    mistyped,
    one_of,
    strict_duration,
    string,
    strings,
    table,
    timeout,
)
from .nkeys import public_kind
from .parser import Entry
from .urls import is_url

__all__ = ["ocsp", "ocsp_cache", "operators", "preload", "proxies", "resolver", "trusted"]

MAX_JWT_BYTES = 1 << 20


def _claims(text: str) -> Any:
    """The claims of a JWT, whose signature nobody checks here. Raises: ValueError."""
    parts = text.strip().split(".")
    if len(parts) != 3:
        raise ValueError("expected 3 chunks")
    decoded = []
    for part in parts[:2]:
        try:
            decoded.append(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))
        except (binascii.Error, ValueError, RecursionError):
            raise ValueError("invalid encoding") from None
    if not isinstance(decoded[0], dict) or str(decoded[0].get("typ", "")).upper() != "JWT":
        raise ValueError("not a JWT header")
    return decoded[1]


def operators(reader: Reader, entry: Entry) -> None:
    """JWTs, or paths of files that hold them."""
    for text in strings(reader, entry):
        try:
            if not text.startswith("eyJ"):
                with open(text, "rb") as file:
                    content = file.read(MAX_JWT_BYTES).decode("utf-8", "replace")
                match = re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", content, re.ASCII)
                text = match[0] if match else content
            claims = _claims(text)
        except (OSError, ValueError) as err:
            reason = err.strerror if isinstance(err, OSError) else str(err)
            reader.fault(entry.position, f"error parsing operator JWT: {reason}")
            continue
        if not isinstance(claims, dict) or public_kind(str(claims.get("sub"))) != "O":
            reader.fault(entry.position, "error parsing operator JWT: expected an operator's")


def trusted(reader: Reader, entry: Entry) -> None:
    """Public keys of operators."""
    for key in strings(reader, entry):
        if public_kind(key) != "O":
            reader.fault(entry.position, f'trust key "{key}" required to be a valid public operator nkey')


def preload(reader: Reader, entry: Entry) -> None:
    """Accounts' keys with their JWTs."""
    for inner in map_of(entry).values():
        if not isinstance(inner.node.value, str):
            reader.fault(inner.position, "preload map value should be a string JWT")
            continue
        try:
            claims = _claims(inner.node.value)
            if not isinstance(claims, dict) or public_kind(str(claims.get("sub"))) != "A":
                raise ValueError
        except ValueError:
            reader.fault(inner.position, "invalid account JWT")


_RESOLVER = table(
    [
        checked("type", kind=string),
        checked("dir", kind=string),
        checked("limit", kind=integer),
        checked("ttl", "interval", "timeout", kind=strict_duration),
        checked("allow_delete", "hard_delete", kind=boolean),
    ]
)


def resolver(reader: Reader, entry: Entry) -> None:
    """`MEMORY`, `URL(...)`, or a map with `type` and `dir`."""
    value = entry.node.value
    if isinstance(value, str):
        match = re.match(r'URL\s*\(?\s*"?([^\s"()]*)', value.strip(), re.IGNORECASE)
        if match is None and value.strip().upper() not in ("MEM", "MEMORY"):
            raise Wrong(f'expected MEMORY, URL("...") or a map for "{entry.name}", got "{value}"')
        if match is not None and not is_url(match[1]):
            raise Wrong(f'expected a URL in "{entry.name}"')
        return
    if not isinstance(value, dict):
        raise mistyped(entry, "a string or a map")
    before = len(reader.errors)
    known = {name: inner for name, inner in value.items() if name.lower() in _RESOLVER}
    reader.block(known, _RESOLVER, None, "")
    if len(reader.errors) > before:
        return
    given = {inner.name.lower(): inner.node.value for inner in known.values()}
    _resolver_kind(str(given.get("type", "")).upper(), given)


def _resolver_kind(kind: str, given: dict[str, Any]) -> None:
    match kind:
        case "MEM" | "MEMORY":
            return
        case "FULL" | "CACHE":
            pass
        case _:
            raise Wrong("expected full, cache or memory for the resolver's type")
    folder = str(given.get("dir", ""))
    if not folder:
        raise Wrong("dir has no value and needs to point to a directory")
    above = os.path.dirname(os.path.abspath(folder))
    if not (
        os.path.isdir(folder) or (not os.path.exists(folder) and os.path.isdir(above) and os.access(above, os.W_OK))
    ):
        raise Wrong(f"mkdir {folder}: not possible")
    if kind == "FULL":
        if "ttl" in given:
            raise Wrong("FULL does not accept ttl")
        if given.get("hard_delete") and not given.get("allow_delete"):
            raise Wrong("hard_delete has no effect without delete")
        return
    if "interval" in given:
        raise Wrong("CACHE does not accept sync")
    for name in ("allow_delete", "hard_delete"):
        if given.get(name):
            raise Wrong(f"CACHE does not accept {name}")


def _proxy_key(reader: Reader, entry: Entry) -> None:
    key = string(reader, entry)
    if not public_kind(key):
        raise Wrong(f'invalid proxy key "{key}"')


_TRUSTED_PROXY = table([checked("key", "public_key", kind=_proxy_key)])
proxies: Kind = maps(table([checked("trusted", kind=each(maps(_TRUSTED_PROXY)))]))


def _no_strings(reader: Reader, entry: Entry) -> None:
    # nats-server's own reader of this key takes no value that a file can hold.
    raise Wrong(f'"{entry.name}" cannot be given in a file, "url" can')


_OCSP = table(
    [
        checked("mode", kind=one_of("auto", "always", "must", "never")),
        checked("url", kind=string),
        checked("urls", kind=_no_strings),
    ]
)


def ocsp(reader: Reader, entry: Entry) -> None:
    """A boolean or a map."""
    if not isinstance(entry.node.value, bool):
        maps(_OCSP)(reader, entry)


_OCSP_CACHE = table(
    [
        checked("type", kind=one_of("none", "local")),
        checked("local_store", kind=string),
        checked("preserve_revoked", kind=boolean),
        checked("save_interval", kind=timeout),
    ]
)


def ocsp_cache(reader: Reader, entry: Entry) -> None:
    """A boolean or a map."""
    if not isinstance(entry.node.value, bool):
        maps(_OCSP_CACHE)(reader, entry)
