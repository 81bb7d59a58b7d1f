"""The CONNECT of a client: decoded onto the defaults, judged (client-protocol.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec


class Refused(Exception):
    """The connection must close; `error` is the text of the -ERR line, None for a silent close."""

    def __init__(self, reason: str, error: str | None) -> None:
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


KEYS = {"password": "pass"}
"""Fields that are called otherwise on the wire."""
KINDS: dict[str, type] = {name: type(getattr(Connect(), name)) for name in Connect.__dataclass_fields__}


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a verb, keys lower-cased. Raises Refused (silent) when it is none."""
    try:
        value = msgspec.json.decode(body.decode("utf-8", "replace"))  # a name of bad bytes is no reason to part
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("Parse Error", None) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused("Parse Error", None)
    return {str(key).lower(): item for key, item in value.items()}


def read_connect(body: bytes) -> Connect:
    """The client's wishes. Raises Refused where the peer closes, with the peer's -ERR text."""
    fields = decode_object(body)
    connect = Connect()
    for name, kind in KINDS.items():
        value = fields.get(KEYS.get(name, name))
        if value is None:
            continue
        if type(value) is not kind:
            raise Refused("Parse Error", None)
        setattr(connect, name, value)
    if connect.protocol not in (0, 1):
        raise Refused("Bad Client Protocol Version", "invalid client protocol")
    if connect.account or connect.new_account:
        raise Refused("Authentication Failure", "Authorization Violation")
    if connect.no_responders and not connect.headers:
        raise Refused("No Responders Requires Headers", "no responders requires headers support")
    return connect
