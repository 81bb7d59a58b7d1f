"""Replication links: one framed connection per pair of JetStream hosts, opened on the cluster port beside the route.

The host with the lower name dials, reads INFO, sends `JSLINK {json}` and speaks frames; both ends then send a HELLO. A
link is up when the peer's HELLO has come. Frames are checked in C (csrc/wire); here they are only sorted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec

from jscore import RecordLog
from jscore_server.cluster.dial import Address, dial
from jscore_server.cluster.routes import CONN_ROUTE
from jscore_server.cluster.secure import ClusterTls
from jscore_server.dataplane import Plane
from jscore_server.logs import Log
from jscore_server.passwords import same_pair
from jscore_server.protocol.connect import Refused, decode_object
from jscore_server.version import PROTOCOL, Versions

COMPLAINT_EVERY_S = 10.0  # the same of the same peer, which dials many times a second
COMPLAINTS_MAX = 64
KIND_HELLO = 255
KIND_ALIVE = 254
ALIVE_EVERY_S = 0.5
SILENCE_S = 5.0
RETRY_S = 0.05
RETRY_SLOW_S = 0.25
HELLO_TIMEOUT_S = 2.0
QUIET_REASONS = ("Client Closed", "Read Error", "Write Error", "Server Shutdown")


class Peer(msgspec.Struct):
    """One other JetStream host, known by its server name."""

    name: str
    address: Address
    conn: int = 0  # the connection in use, 0 none
    up: bool = False
    last_heard: float = 0.0
    directory: object = None  # of its store, as it said over the link that is up
    dialling: asyncio.Task[None] | None = None
    lost: asyncio.Event = msgspec.field(default_factory=asyncio.Event)  # `conn` is 0 again


class LinkCallbacks(msgspec.Struct):
    """What the Raft side does with links. hello() is asked anew for each link."""

    hello: Callable[[], dict[str, Any]]
    up: Callable[[str, dict[str, Any]], None]
    again: Callable[[str, dict[str, Any]], None]  # a later hello over the same link
    down: Callable[[str], None]
    frame: Callable[[str, int, bytes], None]
    room: Callable[[str], None]  # records were not taken by the link, and would be now


class _Conn(msgspec.Struct):
    peer: str  # "" until known
    opened: float
    greeted: bool = False  # our HELLO is on its way: it must hear when what we say changes


class Links:
    """All links of one host; the Transport that Raft sends through."""

    def __init__(
        self,
        plane: Plane,
        log: Log,
        name: str,
        cluster: str,
        authorization: tuple[str, str] | None,
        callbacks: LinkCallbacks,
        tls: ClusterTls | None = None,
        protocol: Versions = PROTOCOL,
    ) -> None:
        self.plane = plane
        self.log = log
        self.name = name
        self.cluster = cluster
        self.authorization = authorization
        self.callbacks = callbacks
        self.tls = tls
        self.protocol = protocol
        self._complaints: dict[tuple[str, str], float] = {}
        self.peers: dict[str, Peer] = {}
        self.conns: dict[int, _Conn] = {}
        self.closing = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(ALIVE_EVERY_S, self._beat)

    def stop(self) -> None:
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        for peer in self.peers.values():
            if peer.dialling is not None:
                peer.dialling.cancel()

    # ---- Transport ----

    def send(self, peer: str, kind: int, body: bytes) -> bool:
        known = self.peers.get(peer)
        return known is not None and known.up and self.plane.link_send(known.conn, kind, body)

    def push(self) -> None:
        self.plane.link_push()

    def send_records(self, peer: str, kind: int, head: bytes, log: RecordLog, lo: int, hi: int, cap: int) -> int:
        known = self.peers.get(peer)
        if known is None or not known.up:
            return 0
        return self.plane.link_send_records(known.conn, kind, head, log, lo, hi, cap)

    def connected(self, peer: str) -> bool:
        known = self.peers.get(peer)
        return known is not None and known.up

    # ---- peers ----

    def peer_seen(self, name: str, address: Address) -> None:
        """A JetStream host is on a route: keep a link to it from now on, also while the route is down."""
        peer = self.peers.get(name)
        if peer is None:
            peer = self.peers[name] = Peer(name, address)
        peer.address = address
        if self.name < name and peer.dialling is None:
            peer.dialling = asyncio.get_running_loop().create_task(self._keep(peer))

    async def _keep(self, peer: Peer) -> None:
        failures = 0
        while not self.closing:
            if peer.conn == 0:
                try:
                    sock = await dial(*peer.address)
                    conn = self.plane.adopt(sock.detach(), CONN_ROUTE)
                    if self.tls is not None:
                        self.tls.dialled(self.plane, conn, peer.address[0])
                    self.conns[conn] = _Conn(peer.name, opened=monotonic())
                    peer.conn = conn
                    failures = 0
                    peer.lost.clear()
                except OSError:
                    failures += 1
            if peer.conn:
                await peer.lost.wait()
            await asyncio.sleep(RETRY_S if failures < 100 else RETRY_SLOW_S)

    # ---- events ----

    def owns(self, conn: int) -> bool:
        return conn in self.conns

    def info(self, conn: int, body: bytes) -> None:
        """The acceptor's INFO: ask for a link."""
        link = self.conns[conn]
        try:
            fields = decode_object(body)
        except Refused:
            fields = {}
        theirs = told_protocol(fields.get("jscore"))
        version = self.protocol.common(theirs) if theirs is not None else 0
        if fields.get("server_name") != link.peer or fields.get("cluster") != self.cluster:
            self._complain(link.peer, "another server or cluster answers at its address")
            self.plane.close_conn(conn, "Wrong Link Peer")
            return
        if not version:
            self._complain(link.peer, f"it speaks {_shown(theirs)}, this server {_shown(self.protocol)}")
            self.plane.close_conn(conn, "Wrong Link Version")
            return
        ask = {"version": version, "name": self.name, "cluster": self.cluster, "to": link.peer}
        if self.authorization is not None:
            ask["user"], ask["pass"] = self.authorization
        self.plane.write(conn, b"JSLINK " + msgspec.json.encode(ask) + b"\r\n")
        self.plane.become_link(conn, version)
        self._send_hello(conn)

    def asked(self, conn: int, body: bytes, known_peers: Callable[[str], bool]) -> None:
        """JSLINK from a dialler on our cluster port."""
        try:
            fields = decode_object(body)
        except Refused:
            fields = {}
        name, version = fields.get("name"), fields.get("version")
        if self.tls is not None and self.tls.judges:
            allowed = self.tls.knows(self.plane, conn, self.authorization[0] if self.authorization is not None else "")
        else:
            wanted = self.authorization
            allowed = wanted is None or same_pair((fields.get("user"), fields.get("pass")), wanted)
        if not allowed:
            self._refuse(conn, name, "authorization violation")
        elif not isinstance(version, int) or not self.protocol.oldest <= version <= self.protocol.newest:
            self._refuse(conn, name, f"it speaks {_quoted(version)}, this server {_shown(self.protocol)}")
        elif fields.get("cluster") != self.cluster or fields.get("to") != self.name:
            self._refuse(conn, name, "it was meant for another server or cluster")
        elif not isinstance(name, str) or not name or len(name) > 256 or name >= self.name:
            self._refuse(conn, name, "its server name does not allow it to dial")
        elif not known_peers(name):
            self._refuse(conn, name, "no route to a server of that name yet", self.log.info)  # as it is at a start
        else:
            self.conns[conn] = _Conn(name, opened=monotonic())
            self.plane.become_link(conn, version)
            self._send_hello(conn)

    def _refuse(self, conn: int, name: object, why: str, say: Callable[[str], None] | None = None) -> None:
        self._complain(name, why, say)
        self.plane.close_conn(conn, "Link Refused")

    def _complain(self, name: object, why: str, say: Callable[[str], None] | None = None) -> None:
        """Says once in a while why there is no link: whoever is refused comes again at once."""
        now = monotonic()
        key = (_quoted(name), why)
        if now - self._complaints.get(key, -COMPLAINT_EVERY_S) < COMPLAINT_EVERY_S:
            return
        if len(self._complaints) >= COMPLAINTS_MAX:
            self._complaints = {k: at for k, at in self._complaints.items() if now - at < COMPLAINT_EVERY_S}
            if len(self._complaints) >= COMPLAINTS_MAX:
                return
        self._complaints[key] = now
        (say or self.log.warn)(f"Replication link with {key[0]} refused: {why}")

    def _send_hello(self, conn: int) -> None:
        self.conns[conn].greeted = True
        self.plane.link_send(conn, KIND_HELLO, msgspec.json.encode(self.callbacks.hello()))

    def say_hello(self) -> None:
        """What we say of ourselves changed: tell all peers."""
        for conn, link in list(self.conns.items()):
            if link.greeted:
                self._send_hello(conn)

    def drop(self, name: str, why: str) -> None:
        """The peer broke the protocol: its link is closed, with a log line; it may dial again."""
        peer = self.peers.get(name)
        if peer is not None and peer.conn:
            self.log.error(f"Replication link to {name} is dropped: {why}")
            self.plane.close_conn(peer.conn, "Versions Violation")

    def frame(self, conn: int, kind: int, body: bytes) -> None:
        link = self.conns.get(conn)
        if link is None:
            return
        peer = self.peers.get(link.peer)
        now = monotonic()
        if kind == KIND_HELLO:
            self._hello(conn, link, body, now)
        elif peer is not None and peer.conn == conn and peer.up:
            peer.last_heard = now
            if kind != KIND_ALIVE:
                self.callbacks.frame(link.peer, kind, body)

    def room(self, conn: int) -> None:
        """A link that took no more records has room again."""
        link = self.conns.get(conn)
        peer = self.peers.get(link.peer) if link is not None else None
        if peer is not None and peer.conn == conn and peer.up:
            self.callbacks.room(peer.name)

    def _hello(self, conn: int, link: _Conn, body: bytes, now: float) -> None:
        try:
            hello = decode_object(body)
        except Refused:
            self.plane.close_conn(conn, "Bad Hello")
            return
        peer = self.peers.get(link.peer)
        if peer is None:
            self.plane.close_conn(conn, "Link Refused")
            return
        if peer.up and peer.conn != conn and hello.get("directory") != peer.directory:
            # The same server would come with the same store; silence ends the link of one that is gone.
            self._complain(peer.name, "another server of that name is connected, with another store directory")
            self.plane.close_conn(conn, "Link Refused")
            return
        if peer.conn not in (0, conn):
            old, was_up = peer.conn, peer.up
            peer.conn, peer.up = 0, False
            self.conns.pop(old, None)
            self.plane.close_conn(old, "Replaced by a newer link")
            if was_up:
                self.callbacks.down(peer.name)
        peer.conn, peer.last_heard, peer.directory = conn, now, hello.get("directory")
        if not peer.up:
            peer.up = True
            self.log.info(f"Replication link to {peer.name} is up")
            self.callbacks.up(peer.name, hello)
        else:
            self.callbacks.again(peer.name, hello)

    def closed(self, conn: int, reason: str) -> None:
        link = self.conns.pop(conn, None)
        if link is None:
            return
        peer = self.peers.get(link.peer)
        if peer is not None and peer.conn == conn:
            was_up = peer.up
            peer.conn, peer.up = 0, False
            peer.lost.set()
            if was_up:
                self.log.warn(f"Replication link to {peer.name} is down: {reason}")
                self.callbacks.down(peer.name)
        elif reason not in QUIET_REASONS:
            self.log.error(f"lid:{conn} - A link in the name of {link.peer} is dropped: {reason}")

    def _beat(self) -> None:
        now = monotonic()
        for peer in self.peers.values():
            if peer.up:
                self.plane.link_send(peer.conn, KIND_ALIVE, b"")
                if now - peer.last_heard > SILENCE_S:
                    self.plane.close_conn(peer.conn, f"nothing heard for {SILENCE_S:g} s")
        for conn, link in list(self.conns.items()):
            known = self.peers.get(link.peer)
            if (known is None or known.conn != conn or not known.up) and now - link.opened > HELLO_TIMEOUT_S:
                self.plane.close_conn(conn, "no hello")
        self._timer = asyncio.get_running_loop().call_later(ALIVE_EVERY_S, self._beat)


def told_protocol(told: Any) -> Versions | None:
    """What a peer's INFO says it speaks; None when it says nothing that can be."""
    newest = told.get("link") if isinstance(told, dict) else None
    oldest = told.get("oldest", newest) if isinstance(told, dict) else None
    if not isinstance(newest, int) or not isinstance(oldest, int) or not 1 <= oldest <= newest < 256:
        return None
    return Versions(oldest, newest)


def _shown(protocol: Versions | None) -> str:
    if protocol is None:
        return "no link protocol known here"
    oldest, newest = protocol
    return f"link version {newest}" if oldest == newest else f"link versions {oldest} to {newest}"


def _quoted(what: object) -> str:
    """A peer's own words, bounded."""
    return repr(what)[:80]
