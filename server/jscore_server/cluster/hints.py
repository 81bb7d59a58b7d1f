"""Datagrams by which hosts say that they are there: a hint beside the links, off unless `cluster { udp_hints: true }`.

One that is heard keeps nothing alive. Once they and the link of a host that sent them are silent together, that is
noticed sooner than by the link alone (RaftHost.hinted), and pre-votes begin; nobody is deposed by it (spec/raft.md §4).

A datagram: `JSH1`, a count of 8 bytes that only rises, 16 bytes of BLAKE2b over count and name by the receiver's key,
and the sender's name. Key and port come in the receiver's hello over the link: what no link told of is not heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import socket
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from jscore_server.cluster.datagrams import Datagrams
from jscore_server.logs import Log

EVERY_S = 0.05
MAGIC = b"JSH1"
COUNT = 8
MAC = 16
KEY = 16
NAME_MAX = 256


class _Peer(msgspec.Struct):
    key: bytes = b""
    address: Any = None  # as the socket takes it; None until it is resolved, and for one that wants no hints
    sent: int = 0
    heard: int = -1  # the last count


class Hints:
    """The datagram socket of one host, at the address of its TCP `listener`. `heard(peer)`: for each proper datagram.

    Raises OSError when that address is taken.
    """

    def __init__(self, name: str, log: Log, heard: Callable[[str], None], listener: socket.socket) -> None:
        self.name = name
        self.heard = heard
        self._key = os.urandom(KEY)
        self._peers: dict[str, _Peer] = {}
        sock = socket.socket(listener.family, socket.SOCK_DGRAM)
        try:
            if listener.family == socket.AF_INET6:
                both = listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, both)
            sock.bind(listener.getsockname())
        except OSError as err:
            sock.close()
            raise OSError(f"Error listening for liveness hints: {err.strerror or err}") from err
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        what = "Liveness hints end"
        self._datagrams = Datagrams(sock, log, what, received=self._received, beat=self._beat, every_s=EVERY_S)

    def start(self) -> None:
        """Begins to hear and to send, in the running loop."""
        self._datagrams.start()

    def close(self) -> None:
        self._datagrams.close()

    @property
    def offer(self) -> list[Any]:
        """What a hello says of this: [port, key in hex]."""
        return [self.port, self._key.hex()]

    def link_up(self, peer: str, host: str, offer: object) -> None:
        """A link to `peer`, which is at `host`, is up; `offer` is what its hello said, None if nothing."""
        known = self._peers[peer] = _Peer()
        match offer:
            case [int(port), str(key)] if 0 < port < 1 << 16 and len(key) == 2 * KEY:
                with contextlib.suppress(ValueError):
                    known.key = bytes.fromhex(key)
                    self._datagrams.spawn(self._resolve(known, host, port))

    def link_down(self, peer: str) -> None:
        self._peers.pop(peer, None)

    async def _resolve(self, peer: _Peer, host: str, port: int) -> None:
        sock = self._datagrams.sock
        flags = socket.AI_V4MAPPED if sock.family == socket.AF_INET6 else 0
        with contextlib.suppress(OSError, UnicodeError):  # where nobody can be reached, there are no hints
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, family=sock.family, type=socket.SOCK_DGRAM, flags=flags
            )
            peer.address = found[0][4]

    async def _beat(self) -> None:
        for peer in list(self._peers.values()):
            if peer.address is not None:
                peer.sent += 1
                with contextlib.suppress(OSError):  # also one that a datagram before met: nobody is there
                    await self._datagrams.send(datagram(self.name, peer.key, peer.sent), peer.address)

    def _received(self, data: bytes, _sender: Any = None) -> None:
        """What is not from a linked peer, forged or repeated is dropped without a word: anybody can send it."""
        head = len(MAGIC) + COUNT + MAC
        if not head < len(data) <= head + NAME_MAX or not data.startswith(MAGIC):
            return
        name = data[head:].decode(errors="replace")
        count = int.from_bytes(data[len(MAGIC) : len(MAGIC) + COUNT], "little")
        peer = self._peers.get(name)
        if peer is None or count <= peer.heard or not hmac.compare_digest(datagram(name, self._key, count), data):
            return
        peer.heard = count
        self.heard(name)


def datagram(name: str, key: bytes, count: int) -> bytes:
    """The datagram number `count` of the server `name` to the one whose key it is."""
    said = count.to_bytes(COUNT, "little")
    text = name.encode()
    return MAGIC + said + blake2b(said + text, key=key, digest_size=MAC).digest() + text
