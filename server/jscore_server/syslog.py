"""The log's lines to syslog: the local one, or one elsewhere, in the form that nats-server gives them."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import time
from urllib.parse import urlsplit

__all__ = ["Syslog"]

DAEMON = 3 << 3
SEVERITIES = {"FTL": 2, "ERR": 3, "WRN": 5, "INF": 5, "DBG": 7, "TRC": 5}
LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
CONNECT_S = 2.0
AGAIN_S = 10.0


class Syslog:
    """Sends one line a message and never waits: what the other side does not take is lost, as with UDP anyway."""

    def __init__(self, remote: str, program: str) -> None:
        """`remote`: `udp://host:port`, `tcp://host:port`, `host:port`; '' the local one.

        Raises: OSError, ValueError.
        """
        self._remote = remote
        self._tag = f"{program}[{os.getpid()}]"
        self._host = socket.gethostname()
        self._tried = 0.0
        self._stream = False
        self._sock: socket.socket | None = self._connect()

    def _connect(self) -> socket.socket:
        self._tried = time.monotonic()
        if not self._remote:
            return self._local()
        parts = urlsplit(self._remote if "://" in self._remote else f"udp://{self._remote}")
        if parts.scheme not in ("udp", "tcp") or not parts.hostname or parts.port is None:
            raise ValueError(
                f'error connecting to syslog: expected udp://host:port or tcp://host:port, got "{self._remote}"'
            )
        self._stream = parts.scheme == "tcp"
        if self._stream:
            sock = socket.create_connection((parts.hostname, parts.port), CONNECT_S)
        else:
            family, kind, proto, _, address = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_DGRAM)[0]
            sock = socket.socket(family, kind, proto)
            sock.connect(address)
        sock.setblocking(False)
        return sock

    @staticmethod
    def _local() -> socket.socket:
        for path in LOCAL:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                sock = socket.socket(socket.AF_UNIX, kind)
                try:
                    sock.connect(path)
                    sock.setblocking(False)
                except OSError:
                    sock.close()
                else:
                    return sock
        raise OSError("error connecting to syslog: Unix syslog delivery error")

    def line(self, level: str, text: str) -> bool:
        """False: it is lost."""
        if self._sock is None and time.monotonic() - self._tried > AGAIN_S and not self._stream:
            with contextlib.suppress(OSError):
                self._sock = self._connect()
        if self._sock is None:
            return False
        now = datetime.datetime.now().astimezone()
        when = now.isoformat(timespec="seconds").replace("+00:00", "Z") if self._remote else f"{now:%b %e %H:%M:%S}"
        host = f"{self._host} " if self._remote else ""
        line = f"<{SEVERITIES[level] | (0 if self._remote else DAEMON)}>{when} {host}{self._tag}: {text}\n"
        try:
            self._sock.send(line.encode("utf-8", "backslashreplace"))
        except BlockingIOError:
            return False
        except OSError:
            if self._stream:  # a datagram that nobody took says nothing about the next
                self.close()
            return False
        return True

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
