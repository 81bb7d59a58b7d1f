"""A websocket's HTTP request: judged, and answered. Pure. Source: RFC 6455 section 4, cluster-protocol.md section 5."""

from __future__ import annotations

import base64
import binascii
import email.utils
import hashlib
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from jscore_server.config.transport import Websocket

__all__ = ["Request", "Unfit", "accept", "judge", "refuse"]

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
DEFLATE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
STATUS = {400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}
HEADERS_MAX = 256


class Unfit(Exception):
    """The request is refused: an HTTP status, and why for the log. `bare`: not even a request of HTTP."""

    def __init__(self, status: int, why: str, *, bare: bool = False) -> None:
        super().__init__(why)
        self.status = status
        self.bare = bare


class Request(msgspec.Struct):
    """What a fit request asked for."""

    key: str
    path: str = "/"
    deflate: bool = False
    unmasked: bool = False
    browser: bool = False
    forwarded_for: str = ""
    cookies: dict[str, str] = msgspec.field(default_factory=dict)


def _parse(head: bytes) -> tuple[str, str, dict[str, list[str]]]:
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[0].isalpha() or len(lines) > HEADERS_MAX:
        raise Unfit(400, "", bare=True)
    fields: dict[str, list[str]] = {}
    for line in lines[1:]:
        if not line:
            break
        name, colon, value = line.partition(":")
        if not colon or not name or any(c.isspace() for c in name):
            raise Unfit(400, "", bare=True)
        fields.setdefault(name.lower(), []).append(value.strip())
    return words[0], words[1], fields


def _has(fields: dict[str, list[str]], name: str, word: str) -> bool:
    """Whether a list of tokens holds the word."""
    return any(part.strip().lower() == word for value in fields.get(name, []) for part in value.split(","))


def judge(head: bytes, options: Websocket, *, secure: bool) -> Request:
    """What the request asks for. Raises: Unfit."""
    method, path, fields = _parse(head)
    hosts = fields.get("host", [])
    if len(hosts) != 1:
        raise Unfit(400, "missing required Host header" if not hosts else "too many Host headers", bare=True)
    if method != "GET":
        raise Unfit(405, "request method must be GET")
    if not _has(fields, "upgrade", "websocket"):
        raise Unfit(400, "invalid value for header 'Upgrade'")
    if not _has(fields, "connection", "upgrade"):
        raise Unfit(400, "invalid value for header 'Connection'")
    key = (fields.get("sec-websocket-key") or [""])[0]
    if not _is_key(key):
        raise Unfit(400, "invalid websocket key")
    if "13" not in fields.get("sec-websocket-version", []):
        raise Unfit(400, "invalid version")
    origin = (fields.get("origin") or fields.get("sec-websocket-origin") or [""])[0]
    _check_origin(origin, hosts[0], options, secure)
    bare_path = path.partition("?")[0]
    if bare_path.endswith("/mqtt"):
        raise Unfit(404, "mqtt websocket endpoint not enabled")
    if bare_path.endswith("/leafnode"):
        raise Unfit(404, "not configured to accept leaf node connections")
    agent = (fields.get("user-agent") or [""])[0]
    return Request(
        key=key,
        path=bare_path,
        deflate=options.compression and _offers_deflate(fields),
        unmasked=(fields.get("nats-no-masking") or [""])[0].lower() == "true",
        browser=agent.startswith("Mozilla/"),
        forwarded_for=_forwarded(fields),
        cookies=_cookies(fields, options),
    )


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _offers_deflate(fields: dict[str, list[str]]) -> bool:
    offers = (part for value in fields.get("sec-websocket-extensions", []) for part in value.split(","))
    return any(offer.partition(";")[0].strip().lower() == "permessage-deflate" for offer in offers)


def _check_origin(origin: str, host: str, options: Websocket, secure: bool) -> None:
    if not origin or not (options.same_origin or options.allowed_origins):
        return
    try:
        scheme, theirs = _origin(origin)
        own = _address(host, 443 if secure else 80)
    except ValueError as err:
        raise Unfit(403, f"origin not allowed: {err}") from None
    if options.same_origin and theirs != own:
        raise Unfit(403, "origin not allowed: not same origin")
    if options.allowed_origins and (scheme, theirs) not in map(_origin, options.allowed_origins):
        raise Unfit(403, "origin not allowed: not in the allowed list")


def _origin(text: str) -> tuple[str, tuple[str, int]]:
    """(scheme, (host, port)) of an origin. Raises: ValueError."""
    parts = urlsplit(text)
    if not parts.scheme or not parts.netloc or any(c.isspace() for c in text):
        raise ValueError(f'parse "{text}": invalid URI for request')
    return parts.scheme, _address(parts.netloc, 443 if parts.scheme == "https" else 80)


def _address(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return (parts.hostname or "").lower(), default if parts.port is None else parts.port


def _forwarded(fields: dict[str, list[str]]) -> str:
    first = (fields.get("x-forwarded-for") or [""])[0].partition(",")[0].strip()
    try:
        return str(ip_address(first)) if first else ""
    except ValueError:
        return ""


def _cookies(fields: dict[str, list[str]], options: Websocket) -> dict[str, str]:
    """The credentials that cookies carry, by the name CONNECT has for them."""
    sent: dict[str, str] = {}
    for value in fields.get("cookie", []):
        for part in value.split(";"):
            name, equals, content = part.strip().partition("=")
            if equals:
                sent.setdefault(name, content.strip('"'))
    wanted = {
        "jwt": options.jwt_cookie,
        "user": options.user_cookie,
        "pass": options.pass_cookie,
        "auth_token": options.token_cookie,
    }
    return {name: sent[cookie] for name, cookie in wanted.items() if cookie and sent.get(cookie)}


def accept(request: Request, options: Websocket) -> bytes:
    """The 101 that ends the HTTP of a connection."""
    digest = base64.b64encode(hashlib.sha1((request.key + GUID).encode()).digest()).decode()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {digest}",
    ]
    if request.deflate:
        lines.append(f"Sec-WebSocket-Extensions: {DEFLATE}")
    if request.unmasked:
        lines.append("Nats-No-Masking: true")
    lines += [f"{name}: {value}" for name, value in options.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def refuse(err: Unfit) -> bytes:
    """The answer to a request that does not fit."""
    text = STATUS[err.status]
    if err.bare:
        status = f"{err.status} {text}{': ' if str(err) else ''}{err}"
        return (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{status}"
        ).encode("latin-1", "replace")
    return (
        f"HTTP/1.1 {err.status} {text}\r\nContent-Type: text/plain; charset=utf-8\r\nSec-Websocket-Version: 13\r\n"
        f"X-Content-Type-Options: nosniff\r\nDate: {email.utils.formatdate(usegmt=True)}\r\n"
        f"Content-Length: {len(text) + 1}\r\nConnection: close\r\n\r\n{text}\n"
    ).encode()
