"""Who speaks: the `server` block in every answer and event, and the ids of events."""

from __future__ import annotations

import gzip
import secrets
from typing import Any

from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.monitor import Monitor, to_json
from jscore_server.protocol.identity import made_name

Body = dict[str, Any]
EVENT_TYPES = "io.nats.server.advisory.v1."
FLAGS_JETSTREAM = 7  # has JetStream, binary snapshots of streams, groups in the account of their stream
COMPRESSED_MIN = 256  # shorter answers gain nothing


class Envelope:
    """Numbers what one server says."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._seq = 0

    def server(self) -> Body:
        """The block; each one has its own `seq`."""
        server = self._monitor.server
        facts, options = server.facts, server.options
        self._seq += 1
        block: Body = {"name": facts.server_name, "host": facts.host, "id": facts.server_id}
        if facts.cluster:
            block["cluster"] = facts.cluster
        if facts.domain:
            block["domain"] = facts.domain
        block["ver"] = facts.version
        if options.server_tags:
            block["tags"] = options.server_tags
        if options.server_metadata:
            block["metadata"] = options.server_metadata
        block["feature_flags"] = self._monitor.feature_flags()
        block["jetstream"] = facts.jetstream
        block["flags"] = FLAGS_JETSTREAM if facts.jetstream else 0
        block["seq"] = self._seq
        block["time"] = self._monitor.now()
        return block

    def answer(self, data: Any, name: str = "data") -> bytes:
        return to_json({"server": self.server(), name: data})

    def around(self, data: bytes) -> bytes:
        """The answer whose data is JSON already."""
        return b'{"server":' + to_json(self.server()) + b',"data":' + data + b"}"

    def failure(self, code: int, text: str, *, with_data: bool = False) -> bytes:
        """`with_data`: the request was understood, and what it asked for is null."""
        body: Body = {"server": self.server()}
        if with_data:
            body["data"] = None
        body["error"] = {"code": code, "description": text}
        return to_json(body)

    def event(self, kind: str, fields: Body) -> bytes:
        head = {"type": EVENT_TYPES + kind, "id": event_id(), "timestamp": format_time(self._monitor.clock())}
        return to_json({**head, "server": self.server(), **fields})


def event_id() -> str:
    """22 digits of base 62, as a NUID has."""
    return made_name(secrets.token_bytes(16))


def encoding_asked(headers: bytes) -> str:
    """The one that a request accepts and we have: `gzip` or none."""
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"accept-encoding":
            return "gzip" if value.strip().lower() == b"gzip" else ""
    return ""


def compressed(body: bytes, encoding: str) -> tuple[bytes, bytes]:
    """(headers, body) of an answer in that encoding."""
    if not encoding or len(body) < COMPRESSED_MIN:
        return b"", body
    return b"NATS/1.0\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(body, 5, mtime=0)
