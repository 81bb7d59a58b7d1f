"""Beacons by which servers of one cluster on one network find each other, without a list of routes.

Off unless the configuration has `cluster { discovery { key: ..., servers: 3 } }`, a setting of ours. A beacon only says
where a server can be dialled; whether it becomes a route is up to the route's own handshake. One that is heard again,
or late, therefore does no harm: at worst an address is dialled where nobody is any more.

A beacon: `JSD1`, 16 bytes of BLAKE2b by the cluster's key over the rest, and JSON: cluster, server id, host (empty: the
sender's own) and port.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import socket
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from jscore_server.cluster.datagrams import Datagrams
from jscore_server.cluster.dial import Address
from jscore_server.config.options import Discovery
from jscore_server.logs import Log
from jscore_server.protocol.info import ServerFacts

EVERY_S = 1.0
MAGIC = b"JSD1"
MAC = 16
BEACON_MAX = 1200  # one datagram on any network
EVERYWHERE = ("", "0.0.0.0", "::")


class Beacon(msgspec.Struct, frozen=True):
    """What a server says of itself."""

    cluster: str
    id: str
    host: str
    port: int


class Beacons:
    """Sends our beacon, and calls `found(address)` for each that another server of the cluster sent. IPv4 alone.

    `own_address()`: where others are to dial. Raises OSError when the network has no such group.
    """

    def __init__(
        self,
        settings: Discovery,
        log: Log,
        facts: ServerFacts,
        own_address: Callable[[], Address],
        found: Callable[[Address], None],
    ) -> None:
        self.settings = settings
        self.log = log
        self.facts = facts
        self.own_address = own_address
        self.found = found
        self._key = blake2b(settings.key.encode()).digest()
        self._told: str = ""  # why beacons cannot be sent, as said last
        self._datagrams = Datagrams(
            self._bound(), log, "Discovery ends", received=self._received, beat=self._beat, every_s=EVERY_S
        )

    def _bound(self) -> socket.socket:
        """A socket that hears what is sent to the group, or to all of the network. Raises OSError."""
        host, port, interface = self.settings.host, self.settings.port, self.settings.interface
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # several servers of one machine hear
            if ipaddress.IPv4Address(host).is_multicast:
                sock.bind((host, port))
                group = socket.inet_aton(host) + socket.inet_aton(interface)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
            else:
                sock.bind(("0.0.0.0", port))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        except OSError as err:
            sock.close()
            raise OSError(f"Error listening for discovery on {host}:{port}: {err.strerror or err}") from err
        return sock

    def start(self) -> None:
        """Begins to hear and to send, in the running loop."""
        self._datagrams.start()

    def close(self) -> None:
        self._datagrams.close()

    async def _beat(self) -> None:
        to = (self.settings.host, self.settings.port)
        try:
            await self._datagrams.send(packed(self._own(), self._key), to)
            self._told = ""
        except OSError as err:  # the network is down, perhaps
            if self._told != str(err):
                self._told = str(err)
                self.log.warn(f"Discovery: nothing can be sent to {to[0]}:{to[1]}: {err.strerror or err}")

    def _own(self) -> Beacon:
        host, port = self.own_address()
        return Beacon(self.facts.cluster, self.facts.server_id, "" if host in EVERYWHERE else host, port)

    def _received(self, data: bytes, sender: Any) -> None:
        """What is forged, or of another cluster, is dropped without a word: anybody can send it."""
        beacon = unpacked(data, self._key)
        facts = self.facts
        if beacon is not None and beacon.cluster == facts.cluster and beacon.id != facts.server_id:
            self.found((beacon.host or str(sender[0]), beacon.port))


def packed(beacon: Beacon, key: bytes) -> bytes:
    said = msgspec.json.encode(beacon)
    return MAGIC + blake2b(said, key=key, digest_size=MAC).digest() + said


def unpacked(data: bytes, key: bytes) -> Beacon | None:
    """The beacon in a datagram; None when it is none, or not by one who has the key."""
    head = len(MAGIC) + MAC
    if not head < len(data) <= BEACON_MAX or not data.startswith(MAGIC):
        return None
    said = data[head:]
    if not hmac.compare_digest(blake2b(said, key=key, digest_size=MAC).digest(), data[len(MAGIC) : head]):
        return None
    with contextlib.suppress(msgspec.MsgspecError):
        beacon = msgspec.json.decode(said, type=Beacon)
        if 0 < beacon.port < 1 << 16:
            return beacon
    return None
