"""The `mqtt` block: checked as nats-server checks it; there is no MQTT here yet. Pure."""

from __future__ import annotations

from functools import partial

from .kinds import (
    Kind,
    Reader,
    between,
    boolean,
    checked,
    duration,
    integer,
    listen,
    maps,
    string,
    table,
)
from .parser import Entry
from .tls import tls_block

__all__ = ["mqtt", "single_user"]

_SINGLE_USER = table(
    [
        checked("user", "username", kind=string),
        checked("password", "pass", kind=string),
        checked("token", kind=string),
        checked("timeout"),
    ]
)

single_user: Kind = maps(_SINGLE_USER)
"""An `authorization` block with one user or one token."""


def _no_replicas(reader: Reader, entry: Entry) -> None:
    text = f'invalid use of field "{entry.name}": it has no effect in this version'
    reader.warn(entry.position, text, strict=True)


mqtt: Kind = maps(
    table(
        [
            checked("listen", kind=listen),
            checked("host", "net", kind=string),
            checked("port", kind=integer),
            checked("tls", kind=partial(tls_block, path="mqtt.tls")),
            checked("authorization", "authentication", kind=single_user),
            checked("no_auth_user", kind=string),
            checked("ack_wait", "ackwait", kind=duration),
            checked("js_api_timeout", "api_timeout", kind=duration),
            checked("max_ack_pending", "max_pending", "max_inflight", kind=between(0, 65535)),
            checked("js_domain", kind=string),
            checked("stream_replicas", kind=integer),
            checked("consumer_replicas", kind=_no_replicas),
            checked("consumer_memory_storage", kind=boolean),
            checked("consumer_inactive_threshold", "consumer_auto_cleanup", kind=duration),
            checked("reject_qos2_publish", kind=boolean),
            checked("downgrade_qos2_subscribe", kind=boolean),
        ]
    )
)
