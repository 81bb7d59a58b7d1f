"""The CONNECT of a client: decoded onto the defaults, judged (client-protocol.md section 4)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any


class Refused(Exception):
    """The connection must close; `error` is the text of the -ERR line, None for a silent close."""

    def __init__(self, reason: str, error: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


@dataclass
class Connect:
    """What CONNECT asked for; omitted fields keep these defaults."""

    verbose: bool = True
    pedantic: bool = True
    echo: bool = True
    headers: bool = False
    no_responders: bool = False
    protocol: int = 0
    name: str = ""
    lang: str = ""
    version: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    auth_token: str = field(default="", repr=False)
    jwt: str = field(default="", repr=False)
    nkey: str = ""
    sig: str = field(default="", repr=False)
    account: str = ""
    new_account: bool = False


FIELDS = {name: name for name in Connect.__dataclass_fields__ if name != "password"} | {"pass": "password"}
"""Fields by their name on the wire."""
KINDS: dict[str, type] = {key: type(getattr(Connect(), name)) for key, name in FIELDS.items()}
UNREAD: dict[str, type] = {"proxy_sig": str, "remote_account": str, "tls_required": bool}
"""Nothing follows from these, but a value of another kind is refused."""
PERMISSIONS = ("import", "export")
INT_MAX = 1 << 63


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a verb, keys lower-cased. Raises Refused (silent) when it is none."""
    return dict(decode_pairs(body))


def decode_pairs(body: bytes) -> list[tuple[str, Any]]:
    """The members of the JSON object of a verb in their order, keys case-folded, later ones of a name count.

    A name of bad bytes or of half a surrogate pair is no reason to part. Raises Refused (silent) when it is no object.
    """
    try:
        value = _decoder.decode(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise Refused("Parse Error") from None
    if value is None:
        return []
    if not isinstance(value, Members):
        raise Refused("Parse Error")
    return [(name.casefold(), plain(item)) for name, item in value]


class Members(list[tuple[str, Any]]):
    """A JSON object as its members."""


def plain(value: Any) -> Any:
    if isinstance(value, Members):
        return {name: plain(item) for name, item in value}
    return [plain(item) for item in value] if isinstance(value, list) else value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_decoder = json.JSONDecoder(object_pairs_hook=Members, parse_constant=_no_constant)


def read_connect(body: bytes, before: Connect | None = None) -> Connect:
    """The client's wishes; what a second CONNECT leaves out stays as it was `before`.

    Raises Refused where the peer closes, with the peer's -ERR text.
    """
    connect = replace(before) if before is not None else Connect()
    for name, value in decode_pairs(body):
        if value is None:
            continue
        kind = KINDS.get(name)
        if kind is not None:
            if type(value) is not kind or (isinstance(value, int) and not -INT_MAX <= value < INT_MAX):
                raise Refused("Parse Error")
            setattr(connect, FIELDS[name], value)
        elif (name in UNREAD and type(value) is not UNREAD[name]) or (name in PERMISSIONS and not _permission(value)):
            raise Refused("Parse Error")
    if connect.protocol not in (0, 1):
        raise Refused("Bad Client Protocol Version", "invalid client protocol")
    if connect.account or connect.new_account:
        raise Refused("Authentication Failure", "Authorization Violation")
    if connect.no_responders and not connect.headers:
        raise Refused("No Responders Requires Headers", "no responders requires headers support")
    return connect


INFO_TEXTS = (
    *(
        "server_id",
        "server_name",
        "version",
        "git_commit",
        "go",
        "host",
        "nonce",
        "cluster",
        "domain",
        "ip",
        "client_ip",
    ),
    *("remote_account", "gateway", "gateway_url", "xkey", "compression", "route_account"),
)
INFO_FLAGS = (
    *("headers", "auth_required", "tls_required", "tls_verify", "tls_available", "jetstream", "cluster_dynamic", "ldm"),
    *("lnoc", "connect_info", "acc_is_sys", "info_on_connect"),
)
INFO_NUMBERS = ("proto", "port", "max_payload", "client_id", "api_lvl")
INFO_LISTS = ("connect_urls", "ws_connect_urls", "gateway_urls", "leafnode_urls")
INFO_KINDS: dict[str, type] = {
    **dict.fromkeys(INFO_TEXTS, str),
    **dict.fromkeys(INFO_FLAGS, bool),
    **dict.fromkeys(INFO_NUMBERS, int),
    **dict.fromkeys(INFO_LISTS, list),
}


def acceptable_info(body: bytes) -> bool:
    """Whether a client may say so in an INFO, which is otherwise ignored."""
    try:
        pairs = decode_pairs(body)
    except Refused:
        return False
    for name, value in pairs:
        if value is None:
            continue
        kind = INFO_KINDS.get(name)
        if (kind is not None and type(value) is not kind) or (name in PERMISSIONS and not _permission(value)):
            return False
        if name == "client_id" and value < 0:
            return False
    return True


def _permission(value: Any) -> bool:
    """Whether it can be the allow and deny lists of a permission; ignored otherwise."""
    if not isinstance(value, dict):
        return False
    for name, subjects in value.items():
        if subjects is None or name.casefold() not in ("allow", "deny"):
            continue
        if not isinstance(subjects, list) or not all(s is None or isinstance(s, str) for s in subjects):
            return False
    return True
