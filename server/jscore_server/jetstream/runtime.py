"""JetStream's parts of one daemon, built and fed: the store, the Raft host, the engine; and the meta group's birth.

Order of a start: directory checked -> store opened -> hard states read -> engine -> (linked peers) -> meta group.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

import jscore
from jscore_server.dataplane.events import (
    EV_APPENDED,
    EV_APPLY,
    EV_DURABLE,
    EV_EXPIRED,
    EV_FAILED,
    EV_FULL,
    EV_QUOTA,
)
from jscore_server.jetstream.directory import open_directory
from jscore_server.jetstream.engine import JetStream
from jscore_server.jetstream.engine import Options as EngineOptions
from jscore_server.raft import Adopt, Birth, Bootstrap, ProtocolError, RaftHost, Wait

if TYPE_CHECKING:
    from jscore_server.cluster.hints import Hints
    from jscore_server.cluster.links import Links
    from jscore_server.jetstream.stream_config import JetStreamLimits
    from jscore_server.server import Server

TICK_S = 0.02
BIRTH_RETRY_S = 0.1
HANDS = 15  # with thousands of streams written to at once, a sync each in turn would take seconds
HARD_STATE_LOG_ID = 2

EventHandler = Callable[[int, int, int, int, bytes], None]


class _NoTransport:
    """The transport of a server without a cluster: nobody to reach."""

    def send(self, peer: str, kind: int, body: bytes) -> bool:
        return False

    def push(self) -> None:
        pass

    def send_records(self, peer: str, kind: int, head: bytes, log: Any, lo: int, hi: int, cap: int) -> int:
        return 0

    def connected(self, peer: str) -> bool:
        return False


class Runtime:
    """Owns the store, the Raft host and the engine of one server.

    Raises OSError, jscore.Error, StoreRefused at start.
    """

    def __init__(
        self, server: Server, loop: asyncio.AbstractEventLoop, accounts: Mapping[str, JetStreamLimits | None]
    ) -> None:
        options = server.options.jetstream
        self.server = server
        self.log = server.log
        self.loop = loop
        self.links: Links | None = None
        self.hints: Hints | None = None
        self.plain_routes: set[str] = set()
        self.rng = random.Random(os.urandom(32))
        self.directory = os.path.join(options.store_dir or os.path.join(tempfile.gettempdir(), "nats"), "jetstream")
        open_directory(self.directory)
        sync: Literal["always"] | float = "always"
        if options.sync_interval != "always":
            sync = float(options.sync_interval)
        self.store = jscore.Store(sync, hands=HANDS)
        server.plane.attach_store(self.store)
        self.raft = RaftHost(
            server.facts.server_name,
            self.store,
            self.directory,
            _NoTransport(),
            rng=self.rng,
            log_line=self._log_line,
            protocol=server.protocol,
        )
        server.plane.own_log(self._hard_log(), HARD_STATE_LOG_ID)
        self.engine = JetStream(
            EngineOptions(
                directory=self.directory,
                strict=options.strict,
                domain=options.domain,
                tags=frozenset(server.options.server_tags),
                unique_tag=options.unique_tag,
                accounts=accounts,
                system_account=server.options.system_account,
                trim=True,
                server_info=self._server_info,
            ),
            server.plane,
            self.store,
            self.raft,
            server_name=server.facts.server_name,
            cluster_name=server.facts.cluster or None,
            loop=loop,
            rng=self.rng,
            clock=time.time_ns,
            log=self.log,
        )
        self._tick_timer: asyncio.TimerHandle | None = None
        self.raft.hurry = self._hurry
        self._birth_timer: asyncio.TimerHandle | None = None
        self._waiting_for = ""
        self._told_elected = self.raft.elected

    def _log_line(self, level: str, text: str) -> None:
        getattr(self.log, {"warning": "warn"}.get(level, level))(text)

    def _server_info(self) -> dict[str, Any]:
        facts = self.server.facts
        info: dict[str, Any] = {
            "name": facts.server_name,
            "host": facts.host,
            "id": facts.server_id,
            "ver": facts.version,
        }
        if facts.cluster:
            info["cluster"] = facts.cluster
        info.update(jetstream=True, flags=7, seq=0, time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        return info

    # ---- life ----

    def start(self) -> None:
        self.engine.start()
        if not self.server.options.cluster.port:
            if self.raft.birth is None:
                self.raft.born(Birth("_meta_", (self.server.facts.server_name,), 1))
            self._open_meta()
        else:
            if self.raft.birth is not None:
                self._open_meta()
            self._birth()
        self._tick()
        if self.hints is not None:
            self.hints.start()
        self.log.info("Starting JetStream")
        self.log.info(f"  Store Directory: {self.directory!r}")
        self.log.info(f"  Sync:            {describe_sync(self.server.options.jetstream.sync_interval)}")

    @property
    def settled(self) -> bool:
        """Whether what was on the disk is open, as far as it can be."""
        return self.engine.settled

    def stop(self) -> None:
        for timer in (self._tick_timer, self._birth_timer):
            if timer is not None:
                timer.cancel()
        if self.hints is not None:
            self.hints.close()
        self.engine.stop()
        self.server.plane.disown_log(self._hard_log())
        self.raft.close()

    def set_transport(self, links: Links) -> None:
        self.links = links
        self.raft.transport = links

    def _tick(self) -> None:
        try:
            self.raft.tick(time.monotonic_ns())
        finally:  # an error must not stop the clock
            self._tick_timer = self.loop.call_later(TICK_S * self.raft.rest(), self._tick)
        if self.raft.elected != self._told_elected:
            self._told_elected = self.raft.elected
            self._say_hello()

    def _hurry(self) -> None:
        if self._tick_timer is not None:
            self._tick_timer.cancel()
            self._tick_timer = self.loop.call_later(TICK_S, self._tick)

    # ---- the meta group's birth ----

    def _open_meta(self) -> None:
        birth = self.raft.birth
        assert birth is not None
        self.engine.meta_bootstrap(list(birth.voters), birth.expected)

    def expected(self) -> int:
        """How many JetStream servers the configuration promises: the routes to others, or what discovery was told,
        without plain servers seen.
        """
        routes = self.server.routes
        cluster = self.server.options.cluster
        count = sum(1 for url in cluster.routes if not self._is_self(url.host, url.port))
        count = max(count, cluster.discovery.servers - 1)
        if routes is not None:
            count -= len(self.plain_routes)
        return max(2, count + 1)

    def _is_self(self, host: str, port: int) -> bool:
        routes, cluster = self.server.routes, self.server.options.cluster
        if routes is not None and (host, port) in routes.self_addresses:
            return True
        return port == cluster.port and host == cluster.host and host not in ("", "0.0.0.0", "::")

    def _birth(self) -> None:
        """Creates or joins the meta group when the linked peers allow it; asked again until it has lived."""
        if self._birth_timer is not None:
            self._birth_timer.cancel()
            self._birth_timer = None
        if self.raft.elected:
            return
        decision = self.raft.meta_birth(self.expected())
        if isinstance(decision, Bootstrap) and self._meta_records():
            decision = Wait("this server was in a cluster before, and waits for one that knows it")
        if isinstance(decision, Bootstrap):
            self.log.info(f"JetStream cluster starts with {', '.join(decision.birth.voters)}")
            self._live(decision.birth)
        elif isinstance(decision, Adopt) and not (decision.replaces and self._meta_records()):
            if decision.replaces:
                self.log.info("JetStream joins the cluster that the other servers started")
                self.engine.meta_abandon()
            self._live(decision.birth)
        elif isinstance(decision, Wait) and self.raft.birth is None and decision.reason != self._waiting_for:
            self._waiting_for = decision.reason
            self.log.info(f"JetStream waits for its cluster: {decision.reason}")
        self._birth_timer = self.loop.call_later(BIRTH_RETRY_S, self._birth)

    def _meta_records(self) -> bool:
        log = self.engine.meta_log
        return log is not None and log.last >= log.first

    def _live(self, birth: Birth) -> None:
        self.raft.born(birth)
        self._open_meta()
        self._say_hello()

    def _say_hello(self) -> None:
        if self.links is not None:
            self.links.say_hello()

    # ---- what links and routes tell ----

    def hello(self) -> dict[str, Any]:
        tags = sorted(self.server.options.server_tags)
        said = {**self.raft.hello(), "jetstream": True, "tags": tags, "removed": self.engine.state.removed}
        if self.hints is not None:
            said["hints"] = self.hints.offer
        return said

    def link_up(self, peer: str, hello: dict[str, Any]) -> None:
        self.raft.link_up(peer)
        if self.hints is not None and self.links is not None:
            self.hints.link_up(peer, self.links.peers[peer].address[0], hello.get("hints"))
        self.link_hello(peer, hello)

    def link_hello(self, peer: str, hello: dict[str, Any]) -> None:
        """A peer said hello, again perhaps: it has a meta group now, or that one has had a leader."""
        if self._is_foreign(peer, hello):
            return
        try:
            self.raft.peer_hello(peer, hello)
        except ProtocolError as err:
            self._drop(peer, err)
            return
        if not self.raft.elected:
            self._birth()
        self.engine.peer_joined(peer, hello)

    def _is_foreign(self, peer: str, hello: dict[str, Any]) -> bool:
        """Whether a server brought the data of another cluster: it is no part of this one, and nothing of it is heard.

        Both meta groups have had leaders, so neither will give way to the other.
        """
        own, birth = self.raft.birth, hello.get("birth")
        theirs = birth[0] if isinstance(birth, list) and birth else None
        foreign = bool(
            own is not None and self.raft.elected and hello.get("elected") and theirs not in (None, own.group)
        )
        if foreign and peer not in self.engine.foreign:
            self.log.error(f"{peer} holds the data of another JetStream cluster and takes no part in this one")
            self.engine.peer_left(peer)
        (self.engine.foreign.add if foreign else self.engine.foreign.discard)(peer)
        return foreign

    def hinted(self, peer: str) -> None:
        self.raft.tick(time.monotonic_ns())  # it may rest
        self.raft.hinted(peer)

    def link_down(self, peer: str) -> None:
        if self.hints is not None:
            self.hints.link_down(peer)
        self.engine.foreign.discard(peer)
        self.raft.link_down(peer)
        self.engine.peer_left(peer)

    def frame(self, peer: str, kind: int, body: bytes) -> None:
        if peer in self.engine.foreign:
            return
        try:
            self.raft.tick(time.monotonic_ns())  # it may rest
            self.raft.receive(peer, kind, body)
        except ProtocolError as err:
            self._drop(peer, err)

    def link_room(self, peer: str) -> None:
        self.raft.tick(time.monotonic_ns())  # it may rest
        self.raft.link_room(peer)

    def _drop(self, peer: str, err: ProtocolError) -> None:
        if self.links is not None:
            self.links.drop(peer, str(err))

    def route_joined(self, name: str, jetstream: bool) -> None:
        if not jetstream:
            self.plain_routes.add(name)  # for good: one that leaves again still is not a JetStream server

    # ---- events of the plane ----

    def handlers(self) -> dict[int, EventHandler]:
        return {
            EV_APPENDED: lambda conn, kind, a, b, data: self.engine.stream_appended(a, b),
            EV_DURABLE: self._durable,
            EV_APPLY: lambda conn, kind, a, b, data: self.engine.stream_apply(a),
            EV_FAILED: self._failed,
            EV_EXPIRED: lambda conn, kind, a, b, data: self.engine.consumer_expired(a, b),
            EV_QUOTA: lambda conn, kind, a, b, data: self.engine.quota_exceeded(a, bool(b)),
            EV_FULL: lambda conn, kind, a, b, data: self.engine.stream_full(a, bool(b)),
        }

    def _log_of(self, log_id: int) -> jscore.RecordLog | None:
        return self._hard_log() if log_id == HARD_STATE_LOG_ID else self.engine.log_of(log_id)

    def _hard_log(self) -> jscore.RecordLog:
        # Raft names only what it needs of a log; ours come from the store.
        return cast(jscore.RecordLog, self.raft.hard_log)

    def _durable(self, conn: int, kind: int, log_id: int, index: int, data: bytes) -> None:
        log = self._log_of(log_id)
        if log is not None:
            self.raft.durable(log)

    def _failed(self, conn: int, kind: int, log_id: int, code: int, data: bytes) -> None:
        log = self._log_of(log_id)
        if log is not None:
            self.raft.durable(log)
        self.engine.log_failed(log_id, code)


def describe_sync(interval: float | str) -> str:
    if interval == "always":
        return "before each acknowledgement"
    return f"every {interval:g}s: what was acknowledged since is lost with the machine's power"
