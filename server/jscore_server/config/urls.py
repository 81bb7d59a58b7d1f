"""URLs in configurations and flags: which texts nats-server takes for one, and the routes among them. Pure."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from .kinds import Reader, Wrong
from .options import CLUSTER_PORT, Url
from .parser import Entry

__all__ = ["is_url", "parse_route", "redacted", "route", "url"]

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*\Z")
_BRACKETED = re.compile(r"\[[^\[\]]*\](?::[0-9]*)?\Z")
_USER = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*\Z")


def is_url(text: str) -> bool:
    """Whether Go's url.Parse takes the text."""
    rest = text.partition("#")[0]
    if any(c < " " or c == "\x7f" for c in text):
        return False
    scheme, colon, after = rest.partition(":")
    if colon and _SCHEME.match(scheme):
        rest = after
    elif colon and (not scheme or scheme[0].isdigit() or "/" not in scheme):
        # A colon in the first part of a path is an error, unless it ends a scheme.
        return "/" in scheme or "?" in scheme
    else:
        scheme = ""
    rest = rest.partition("?")[0]
    if not rest.startswith("//"):
        return (bool(scheme) and not rest.startswith("/")) or not _BAD_ESCAPE.search(rest)
    authority, _, path = rest[2:].partition("/")
    user, _, host = authority.rpartition("@")
    if not _USER.match(user) or _BAD_ESCAPE.search(user) or _BAD_ESCAPE.search(path):
        return False
    if any(c in " \\^`{|}" for c in host):
        return False
    if host.startswith("["):
        return bool(_BRACKETED.match(host))
    if "[" in host or "]" in host or (":" in host and not re.fullmatch("[0-9]*", host.rpartition(":")[2])):
        return False
    return "%" not in host


def url(reader: Reader, entry: Entry) -> str:
    """A string that is a URL."""
    value = entry.node.value
    if not isinstance(value, str):
        raise Wrong(f'expected strings in "{entry.name}", got {entry.node.kind}')
    if not is_url(value.strip()):
        raise Wrong(f'expected a URL in "{entry.name}", got {redacted(value)!r}')
    return value.strip()


def route(reader: Reader, entry: Entry) -> Any:
    """A route; one that has no host forbids a start, though nats-server's check lets it pass."""
    text = url(reader, entry)
    try:
        return parse_route(text)
    except ValueError as err:
        reader.refuse(entry.position, str(err))
        return None


def parse_route(text: str) -> Url:
    """A route's URL. Without a port it is 6222; a URL without a scheme is taken as host:port. Raises: ValueError."""
    try:
        parts = urlsplit(text if "://" in text else f"nats-route://{text.lstrip('/')}")
        number = parts.port
        host = parts.hostname or ""
    except ValueError:
        host, number = "", None
    if not host or any(c.isspace() or not c.isprintable() for c in text) or (":" in host and "[" not in text):
        raise ValueError(f"expected a route such as nats-route://host:6222, got {redacted(text)!r}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Url(host, CLUSTER_PORT if number is None else number, user, password, parts.scheme)


def redacted(text: str) -> str:
    """The URL without what is before the `@`: messages must not show passwords."""
    head, sep, tail = text.rpartition("@")
    return f"{head.partition('://')[0]}://***@{tail}" if sep and "://" in head else "***@" + tail if sep else text
