"""The ports file: where a server listens, as JSON, for who started it with ports of the system's choice."""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import TYPE_CHECKING

from jscore_server.transport.sockets import every_address, shown

if TYPE_CHECKING:
    from jscore_server.server import Server

__all__ = ["PortsFile", "program"]


def program() -> str:
    """The name under which this program was called."""
    called = os.path.basename(sys.argv[0])
    return called if called == "nats-server" else "jscore-server"


class PortsFile:
    """Written once the server listens, and removed when it ends. What fails is said in the log and stops nothing."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._path = ""

    def write(self, folder: str) -> None:
        """Into another folder from now on; '' none."""
        self.remove()
        if not folder:
            return
        self._path = os.path.join(folder, f"{program()}_{os.getpid()}.ports")
        try:
            with open(self._path, "w", encoding="ascii") as file:
                json.dump(self._ports(), file, separators=(",", ":"))
        except OSError as err:
            self._server.log.error(f"Error writing ports file ({self._path}): {err}")

    def remove(self) -> None:
        if not self._path:
            return
        try:
            os.unlink(self._path)
        except OSError as err:
            self._server.log.error(f"Error cleaning up ports file {self._path}: {err}")
        self._path = ""

    def _ports(self) -> dict[str, list[str]]:
        server = self._server
        listening = {
            "nats": ("nats", server.client_listener),
            "monitoring": ("http", server.monitoring[0].sock if server.monitoring else None),
            "cluster": ("nats", server.route_listener),
            "websocket": ("ws" if server.web is None or server.web.tls is None else "wss", server.web_listener),
        }
        return {kind: urls(scheme, sock) for kind, (scheme, sock) in listening.items() if sock is not None}


def urls(scheme: str, sock: socket.socket) -> list[str]:
    """Every address under which somebody reaches a listening socket."""
    host, port = sock.getsockname()[:2]
    hosts = every_address(ipv6=sock.family == socket.AF_INET6) if host in ("0.0.0.0", "::") else [host]
    return [f"{scheme}://{shown(host, port)}" for host in hosts]
