"""Who holds a stream from now on, when that changes: planned by the meta leader, written into the assignment.

More or fewer replicas, another placement, a server that goes. What is planned here is an intent; the stream's group
gets there by changes of its own membership, each of them safe. Source: clustering.md §3, §6; spec/raft.md R-24, R-27.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from jscore_server.jetstream import placement
from jscore_server.jetstream.errors import problem
from jscore_server.jetstream.meta import Assignment, UpdateStream
from jscore_server.jetstream.models import ClusterInfo, StreamConfig, StreamInfo

if TYPE_CHECKING:
    from jscore_server.jetstream.api import Request
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

    def update(self, request: Request, present: Assignment, config: StreamConfig) -> None:
        """Proposes a new configuration, and other peers where it asks for them. Raises: ApiError, NotLeader."""
        old = msgspec.convert(present.config, StreamConfig)
        if config.num_replicas != old.num_replicas and config.placement != old.placement:
            raise problem(10123)
        if config.placement != old.placement:
            raise problem(10052, err="changing the placement is not supported yet")
        if config.num_replicas > present.replicas:
            self._propose(request, present, config, self._more(present, config, config.num_replicas))
        elif config.num_replicas < present.replicas:
            self._fewer(request, present, config)
        else:
            self._propose(request, present, config, [])

    def _propose(self, request: Request, present: Assignment, config: StreamConfig, peers: list[str]) -> None:
        entry = UpdateStream(
            request.account, present.name, present.group, msgspec.to_builtins(config), request.reply, peers
        )
        self._engine.propose_meta(entry, subjects=list(config.subjects))

    def _more(self, present: Assignment, config: StreamConfig, count: int) -> list[str]:
        wanted = config.placement
        try:
            return self._engine.place(
                count,
                cluster=wanted.cluster if wanted else "",
                tags=wanted.tags if wanted else [],
                keep=present.peers,
            ).peers
        except placement.NoPeers as err:
            raise problem(10005, err=err) from err

    def _fewer(self, request: Request, present: Assignment, config: StreamConfig) -> None:
        def told(cluster: ClusterInfo) -> None:
            try:
                kept = choose_kept(present.peers, config.num_replicas, cluster)
            except placement.NoPeers as err:
                raise problem(10005, err=err) from err
            self._propose(request, present, config, kept)

        self._ask(request, present, told)

    def _ask(self, request: Request, present: Assignment, then: Callable[[ClusterInfo], None]) -> None:
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
