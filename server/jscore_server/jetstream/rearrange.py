"""Who holds a stream from now on, when that changes: planned by the meta leader, written into the assignment.

More or fewer replicas, another placement, a server that goes. What is planned here is an intent; the stream's group
gets there by changes of its own membership, each of them safe. Source: clustering.md §3, §6; spec/raft.md R-24, R-27.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from jscore_server.jetstream import placement
from jscore_server.jetstream.between import SYSTEM_ACCOUNT
from jscore_server.jetstream.errors import problem
from jscore_server.jetstream.meta import Assignment, UpdateStream
from jscore_server.jetstream.models import ClusterInfo, MoveRequest, Placement, StreamConfig, StreamInfo

if TYPE_CHECKING:
    from jscore_server.jetstream.api import Caller
    from jscore_server.jetstream.engine import JetStream
    from jscore_server.jetstream.gather import Gathered


def choose_kept(peers: list[str], count: int, cluster: ClusterInfo) -> list[str]:
    """Which of `peers` stay when `count` of them do: the leader, then whoever holds most.

    Raises: NoPeers when those that would stay are no quorum of replicas that hold everything.
    """
    seen = {r.name: r for r in cluster.replicas}

    def rank(peer: str) -> tuple[bool, bool, int, bool]:
        if peer == cluster.leader:
            return (False, False, 0, False)
        r = seen.get(peer)
        return (True, True, 1 << 62, True) if r is None else (True, not r.current, r.lag, r.offline)

    kept = sorted(peers, key=rank)[:count]
    whole = sum(peer == cluster.leader or (peer in seen and seen[peer].current) for peer in kept)
    if whole < count // 2 + 1:
        raise placement.NoPeers("no suitable peers for placement, the replicas that would stay are not caught up")
    return [peer for peer in peers if peer in kept]


class Rearrange:
    """The plans of one server while it is the meta leader."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine

    def update(self, request: Caller, present: Assignment, config: StreamConfig) -> None:
        """Proposes a new configuration, and other peers where it asks for them. Raises: ApiError, NotLeader."""
        old = msgspec.convert(present.config, StreamConfig)
        if config.num_replicas != old.num_replicas and config.placement != old.placement:
            raise problem(10123)
        if config.placement != old.placement:
            self._move(request, present, config, present.peers)
        elif config.num_replicas > present.replicas:
            self._propose(request, present, config, self._more(present, config, config.num_replicas))
        elif config.num_replicas < present.replicas:
            self._fewer(request, present, config)
        else:
            self._propose(request, present, config, [])

    def _propose(
        self, request: Caller, present: Assignment, config: StreamConfig, peers: list[str], *, moves: bool = False
    ) -> None:
        entry = UpdateStream(
            present.account,
            present.name,
            present.group,
            msgspec.to_builtins(config),
            request.reply,
            peers,
            moves=moves,
            system=request.account == SYSTEM_ACCOUNT,
        )
        self._engine.propose_meta(entry, subjects=list(config.subjects))

    def _place(self, config: StreamConfig, count: int, keep: list[str], exclude: list[str]) -> list[str]:
        """Raises: NoPeers."""
        wanted = config.placement or Placement()
        engine = self._engine
        away = [s.name for s in engine.servers() if not s.online]  # who is to catch up has to be there
        return engine.place(count, cluster=wanted.cluster, tags=wanted.tags, keep=keep, exclude=exclude + away).peers

    def _more(self, present: Assignment, config: StreamConfig, count: int) -> list[str]:
        try:
            return self._place(config, count, present.peers, [])
        except placement.NoPeers as err:
            raise problem(10005, err=err) from err

    # ---- moves ----

    def _move(self, request: Caller, present: Assignment, config: StreamConfig, stays: list[str]) -> None:
        """To servers that fit the placement; of those that hold it now, who fits and is in `stays` goes on."""
        engine = self._engine
        wanted = config.placement or Placement()
        fitting = set(placement.fitting(engine.servers(), cluster=wanted.cluster, tags=wanted.tags))
        keep = [p for p in present.peers if p in fitting and p in stays]
        gone = [p for p in present.peers if p not in keep]

        def told(now: ClusterInfo) -> None:
            if present.former and self._lasts(present, now):
                raise problem(10124, msg="the replicas are not in place yet")
            try:
                peers = self._place(config, present.replicas, keep, gone)
            except placement.NoPeers as err:
                raise problem(10005, err=err) from err
            self._propose(request, present, config, peers, moves=True)

        if gone:
            self._ask(request, present, told)
        else:
            self._propose(request, present, config, [])

    @staticmethod
    def _lasts(present: Assignment, now: ClusterInfo) -> bool:
        """Whether the group is not yet what was assigned: who goes stays until the others are in place."""
        return {now.leader, *(r.name for r in now.replicas)} != set(present.peers)

    def move(self, request: Caller, present: Assignment, body: MoveRequest) -> None:
        """Away from one server, or to other tags or another cluster. Raises: ApiError, NotLeader."""
        if body.server and body.server not in present.peers:
            raise problem(10040 if body.server in {s.name for s in self._engine.servers()} else 10044)
        config = msgspec.convert(present.config, StreamConfig)
        if body.cluster or body.tags:
            old = config.placement or Placement()
            config.placement = Placement(body.cluster or old.cluster, body.tags or old.tags)
        self._move(request, present, config, [p for p in present.peers if p != body.server])

    def cancel_move(self, request: Caller, present: Assignment) -> None:
        """Back to who held it before. Raises: ApiError, NotLeader."""
        if not present.former:
            raise problem(10129)

        def told(now: ClusterInfo) -> None:
            if not self._lasts(present, now):
                raise problem(10129)
            self._propose(request, present, msgspec.convert(present.config, StreamConfig), present.former)

        self._ask(request, present, told)

    # ---- servers that go ----

    def remove_peer(self, request: Caller, present: Assignment, peer: str) -> None:
        """Another server takes the place of `peer` (a name or an id). Raises: ApiError, NotLeader."""
        found = [p for p in present.peers if peer in (p, self._engine.peer_id(p))]
        if not found:
            raise problem(10040)
        if present.replicas == 1 and not self._engine.is_online(found[0]):
            raise problem(10075)  # nobody else has what it holds
        entry = self._without(present, found)
        if entry is None:
            raise problem(10075)
        self._engine.propose_meta(
            msgspec.structs.replace(entry, reply=request.reply, answer=request.type_name),
            subjects=list(present.config.get("subjects", ())),
        )

    def _without(self, present: Assignment, gone: list[str]) -> UpdateStream | None:
        keep = [p for p in present.peers if p not in gone]
        config = msgspec.convert(present.config, StreamConfig)
        try:
            peers = self._place(config, present.replicas, keep, gone)
        except placement.NoPeers:
            return None
        return UpdateStream(present.account, present.name, present.group, present.config, peers=peers)

    def replace_removed(self, gone: set[str]) -> None:
        """Gives replicas of servers that are gone for good to others, where there are others."""
        engine = self._engine
        for present in engine.state.streams():
            lost = [p for p in present.peers if p in gone]
            if not lost or present.replicas == 1 or engine.is_changing(present.account, present.name):
                continue
            entry = self._without(present, lost)
            if entry is not None:
                engine.propose_meta(entry, subjects=list(present.config.get("subjects", ())))

    def _fewer(self, request: Caller, present: Assignment, config: StreamConfig) -> None:
        def told(cluster: ClusterInfo) -> None:
            try:
                kept = choose_kept(present.peers, config.num_replicas, cluster)
            except placement.NoPeers as err:
                raise problem(10005, err=err) from err
            self._propose(request, present, config, kept)

        self._ask(request, present, told)

    def _ask(self, request: Caller, present: Assignment, then: Callable[[ClusterInfo], None]) -> None:
        """How the stream's leader sees its group; the request fails when there is none, or when its stream changed."""
        engine = self._engine

        def finish(found: Gathered) -> None:
            raw = found.streams.get(present.name)

            def judge() -> None:
                now = engine.state.get(present.account, present.name)
                if raw is None or now is None or now.version != present.version:
                    raise problem(10008)
                cluster = msgspec.json.decode(raw, type=StreamInfo).cluster
                then(cluster if cluster is not None else ClusterInfo())

            engine.api.run(request, judge)

        if not engine.gather.ask(present.account, [present.name], finish):
            raise problem(10008)
