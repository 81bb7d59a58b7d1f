"""The `websocket` block. Pure."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from .kinds import (
    MAX_SECONDS,
    Reader,
    Rule,
    Wrong,
    boolean,
    duration,
    listens,
    map_of,
    mistyped,
    or_default,
    port,
    sets,
    strict_duration,
    string,
    strings,
    table,
    timeout,
)
from .options import Options
from .parser import Entry
from .tls import tls_block
from .transport import Websocket

__all__ = ["websocket", "websocket_faults"]

RESERVED = {"host", "content-length", "connection", "upgrade", "nats-no-masking"}


def _auth_timeout(reader: Reader, entry: Entry) -> float | None:
    """nats-server takes a value of any kind; one that is no timeout forbids a start."""
    try:
        return timeout(reader, entry)
    except Wrong as err:
        reader.refuse(entry.position, str(err))
        return None


def _handshake_timeout(reader: Reader, entry: Entry) -> float:
    """Seconds as an integer, or a duration."""
    value = entry.node.value
    if isinstance(value, int) and not isinstance(value, bool):
        return timeout(reader, entry)
    return strict_duration(reader, entry)


_AUTHORIZATION = table(
    [
        sets("user", string, "username"),
        sets("password", string, "pass"),
        sets("token", string),
        sets("timeout", _auth_timeout),
    ]
)


def _authorization(reader: Reader, target: Websocket, entry: Entry) -> None:
    reader.block(map_of(entry), _AUTHORIZATION, target, "websocket.authorization.")


def _headers(reader: Reader, entry: Entry) -> dict[str, str]:
    found = {}
    for inner in map_of(entry).values():
        if not isinstance(inner.node.value, str):
            raise mistyped(inner, "a string")
        found[inner.name] = inner.node.value
    return found


_ORIGINS = ("allowed_origins", "allowed_origin", "allow_origins", "allow_origin", "origins", "origin")

_WEBSOCKET = table(
    [
        listens("host", "port"),
        sets("host", string, "net"),
        sets("port", port),
        sets("advertise", string),
        sets("tls", partial(tls_block, path="websocket.tls")),
        sets("no_tls", boolean),
        sets("same_origin", boolean),
        sets(_ORIGINS[0], strings, *_ORIGINS[1:]),
        sets("handshake_timeout", _handshake_timeout),
        sets("compression", boolean, "compress"),
        Rule(("authorization", "authentication"), _authorization),
        sets("jwt_cookie", string),
        sets("user_cookie", string),
        sets("pass_cookie", string),
        sets("token_cookie", string),
        sets("no_auth_user", string),
        sets("headers", _headers),
        sets("ping_interval", or_default(duration, MAX_SECONDS)),
    ]
)


def websocket(reader: Reader, target: Options, entry: Entry) -> None:
    """Reads the block into the options."""
    reader.block(map_of(entry), _WEBSOCKET, target.websocket, "websocket.")


def websocket_faults(web: Websocket) -> list[tuple[str, str]]:
    """What forbids a start: texts and the keys to blame."""
    found: list[tuple[str, str]] = []
    if not web.port:
        return found
    if web.tls is None and not web.no_tls:
        found.append(("websocket requires TLS configuration", "websocket"))
    for origin in web.allowed_origins:
        try:
            parts = urlsplit(origin)
            fit = bool(parts.scheme and parts.netloc) and parts.port != 0
        except ValueError:
            fit = False
        if not fit:
            text = f'unable to parse allowed origin: parse "{origin}": invalid URI for request'
            found.append((text, "websocket.allowed_origins"))
    for name in web.headers:
        text = f'websocket: invalid header "{name}"'
        if name.lower().startswith("sec-websocket-"):
            found.append((f'{text}, "Sec-WebSocket-" prefix not allowed', "websocket.headers"))
        elif name.lower() in RESERVED or any(c in "\r\n" for c in name + web.headers[name]):
            found.append((f"{text} not allowed", "websocket.headers"))
    if web.jwt_cookie:
        text = "trusted operators or trusted keys configuration is required for JWT authentication via cookie"
        found.append((f'{text} "{web.jwt_cookie}"', "websocket.jwt_cookie"))
    return found
