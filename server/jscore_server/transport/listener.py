"""TLS of a listener: when it begins, how many may begin, and what the log says of it."""

from __future__ import annotations

import re

import msgspec

from jscore_server.config.transport import Tls as TlsOptions
from jscore_server.dataplane import Plane, Tls
from jscore_server.transport.context import context

__all__ = ["THROTTLED", "Rate", "TlsListener", "logged"]

THROTTLED = "Connection throttling is active. Please try again later."
NANOSECOND = 1_000_000_000
_QUIET = re.compile("handshake timeout|first record does not look like|EOF$|reset by peer", re.IGNORECASE)


class Rate(msgspec.Struct):
    """At most `limit` a second, counted from the first one of a second; 0 = any number."""

    limit: int
    began: float = float("-inf")
    taken: int = 0

    def allows(self, now: float) -> bool:
        if self.limit <= 0:
            return True
        if now - self.began >= 1:
            self.began, self.taken = now, 0
        self.taken += 1
        return self.taken <= self.limit


class TlsListener:
    """The TLS settings of one listener. `replace` changes them for those who come from then on."""

    def __init__(self, options: TlsOptions, *, optional: bool = False) -> None:
        """Raises: ValueError when a file cannot be used."""
        self.options = options
        self.optional = optional
        self.context: Tls = context(options, server=True)
        self.rate = Rate(options.connection_rate_limit)

    def replace(self, options: TlsOptions) -> None:
        """Raises: ValueError; then the old settings stay."""
        self.context = context(options, server=True)
        if options.connection_rate_limit != self.rate.limit:
            self.rate = Rate(options.connection_rate_limit)
        self.options = options

    def begin(self, plane: Plane, conn: int, now: float, *, proxy: bool = False) -> bool:
        """Puts TLS under a connection whose INFO is written. False: too many handshakes this second."""
        if not self.optional and not self.rate.allows(now):
            return False
        options = self.options
        plane.layer(
            conn,
            self.context,
            timeout_ns=int(options.timeout * NANOSECOND),
            first=options.handshake_first,
            fallback_ns=int(options.fallback * NANOSECOND),
            optional=self.optional,
            proxy=proxy,
        )
        return True

    def facts(self) -> dict[str, bool]:
        """What INFO says of it, true ones only."""
        fields = {
            "tls_required": not self.optional,
            "tls_verify": self.options.verify,
            "tls_available": self.optional,
        }
        return {name: True for name, holds in fields.items() if holds}


def logged(done: int, data: bytes) -> tuple[bool, list[str]]:
    """The lines for the end of a handshake, and whether they are an error's."""
    text = data.decode("utf-8", "replace")
    if done:
        version, _, cipher = text.partition(" ")
        return False, ["TLS handshake complete", f"TLS version {version.removeprefix('TLSv')}, cipher suite {cipher}"]
    if text == "TLS handshake timeout":
        return False, [text]
    return not _QUIET.search(text), [f"TLS handshake error: {text}"]
