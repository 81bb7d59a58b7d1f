"""Where C meets asyncio: the Cython shell over csrc/wire and csrc/stream, and the selector that is the C loop.

A message's path in order: selector.py (asyncio waits in C) -> csrc/wire (read, parse, route) -> csrc/stream (frame,
apply, ack) -> csrc/log (write, sync). Python sees events only: `_plane.pyx` turns them into calls.
"""

from jscore_server.dataplane._plane import (
    AccountInfo,
    ConnInfo,
    Consumer,
    Msg,
    Permissions,
    Plane,
    PlaneStats,
    StoredMsg,
    Stream,
    StreamState,
    SubInfo,
    Subscription,
    Tally,
    Tls,
    TlsInfo,
    accept,
    snapshot_host,
)
from jscore_server.dataplane.selector import PlaneLoop, PlaneSelector

__all__ = [
    "AccountInfo",
    "ConnInfo",
    "Consumer",
    "Msg",
    "Permissions",
    "Plane",
    "PlaneLoop",
    "PlaneSelector",
    "PlaneStats",
    "StoredMsg",
    "Stream",
    "StreamState",
    "SubInfo",
    "Subscription",
    "Tally",
    "Tls",
    "TlsInfo",
    "accept",
    "snapshot_host",
]
