"""The `gateway` block: checked as nats-server checks it; there are no gateways here yet. Pure."""

from __future__ import annotations

from functools import partial
from typing import Any

from .accounts import permissions
from .cluster import WRITE_TIMEOUT
from .kinds import (
    Kind,
    Reader,
    boolean,
    checked,
    duration,
    each,
    forbidden,
    integer,
    listen,
    maps,
    mistyped,
    name_without_spaces,
    short_timeout,
    string,
    table,
)
from .parser import Entry
from .tls import tls_block
from .urls import url

__all__ = ["gateway"]

_AUTHORIZATION = table(
    [
        checked("user", "username", kind=string),
        checked("password", "pass", kind=string),
        checked("timeout", kind=short_timeout),
        checked("permissions", "default_permissions", "default_permission", kind=permissions),
        checked("proxy_required", kind=boolean),
        forbidden("token", "users", "auth_callout", "auth_hook"),
    ]
)

_REMOTE = table(
    [
        checked("name", kind=string),
        checked("url", kind=url),
        checked("urls", kind=each(url)),
        checked("tls", kind=partial(tls_block, path="gateway.tls", mutual=True)),
    ]
)


def _remotes(reader: Reader, entry: Entry) -> Any:
    if not isinstance(entry.node.value, list):
        raise mistyped(entry, "an array of maps")
    return each(maps(_REMOTE))(reader, entry)


gateway: Kind = maps(
    table(
        [
            checked("name", kind=name_without_spaces("gateway")),
            checked("listen", kind=listen),
            checked("host", "net", kind=string),
            checked("port", kind=integer),
            checked("authorization", kind=maps(_AUTHORIZATION)),
            checked("tls", kind=partial(tls_block, path="gateway.tls", mutual=True)),
            checked("advertise", kind=string),
            checked("connect_retries", kind=integer),
            checked("connect_backoff", kind=boolean),
            checked("reject_unknown_cluster", "reject_unknown", kind=boolean),
            checked("gateways", kind=_remotes),
            checked("write_deadline", kind=duration),
            checked("write_timeout", kind=WRITE_TIMEOUT),
        ]
    )
)
