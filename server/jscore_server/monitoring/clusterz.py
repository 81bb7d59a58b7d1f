"""/clusterz: the Raft groups as their leaders here see them, and what would be lost with each server. Not the peer's.

Each group is judged by the server that leads it; whoever asks all servers has the whole cluster (`cluster status`).
The answer is bounded however many groups there are: counts, and the first ones of what is not well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jscore_server.monitoring.monitor import Body, Monitor, Sliced
from jscore_server.monitoring.query import Asked, Option
from jscore_server.version import VERSION

if TYPE_CHECKING:
    from jscore_server.jetstream.engine import JetStream
    from jscore_server.raft import Group

OPTIONS: tuple[Option, ...] = ()
SHOWN = 64  # groups named
SLICE = 256  # groups between two pauses
META = "_meta_"


def clusterz(monitor: Monitor, asked: Asked) -> Sliced[Body]:
    facts = monitor.server.facts
    body: Body = {
        "server_id": monitor.server_id,
        "now": monitor.now(),
        "name": facts.server_name,
        "cluster": facts.cluster,
        "version": facts.version,
        "jscore_version": VERSION,
        "lame_duck": facts.lame_duck,
    }
    engine = monitor.engine()
    if engine is None:
        return {**body, "jetstream": False}
    view = _View()
    body |= {"jetstream": True, "clustered": engine.clustered}
    spoken = engine.raft.protocol
    common = engine.raft.understood(engine.meta_members())
    body["protocol"] = {"oldest": spoken.oldest, "newest": spoken.newest, "common": common}
    if engine.clustered:
        body["meta"] = _meta(engine, view)
    yield from _streams(engine, view)
    body["groups"] = {"total": 0, "held": 0, "led": 0, "single": 0, **view.counts}
    body["groups"]["total"] = len(engine.state)
    body["unhealthy"] = view.unhealthy
    body["unhealthy_total"] = view.unhealthy_total
    body["needs"] = dict(sorted(view.needs.items()))
    return body


class _View:
    """What comes together while the groups are gone through."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.unhealthy: list[Body] = []
        self.unhealthy_total = 0
        self.needs: dict[str, Body] = {}  # server -> groups led here that have no quorum without it

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def complain(self, name: str, reason: str, **more: object) -> None:
        self.unhealthy_total += 1
        if len(self.unhealthy) < SHOWN:
            self.unhealthy.append({"name": name, "reason": reason, **more})

    def led(self, name: str, group: Group) -> None:
        """A group whose leader is here: who is missing, and whom it cannot do without."""
        members = group.core.members
        well = group.well()
        missing = [voter for voter in members.all_voters if voter not in well]
        if missing:
            lags = {replica.name: replica.lag for replica in group.replicas() if replica.name in missing}
            self.complain(name, "replicas are not current", missing=missing, lag=max(lags.values(), default=0))
        for voter in members.all_voters:
            if members.agree(well - {voter}):
                continue
            kind = "groups" if len(members.voters) > 2 or members.outgoing else "small"  # two never do without one
            entry = self.needs.setdefault(voter, {"groups": 0, "small": 0, "first": ""})
            entry[kind] += 1
            if kind == "groups" and not entry["first"]:
                entry["first"] = name


def _meta(engine: JetStream, view: _View) -> Body:
    meta = engine.meta
    if meta is None:
        return {"voters": [], "quorum_needed": 0, "failed": engine.meta_failed}
    members = meta.core.members
    body: Body = {
        "voters": list(members.voters),
        "learners": list(members.learners),
        "quorum_needed": members.quorum,
        "term": meta.term,
        "current": meta.current,
    }
    if engine.silent:
        body["failed"] = engine.silent
    if engine.meta_leader:
        body["leader"] = engine.meta_leader
    if engine.is_meta_leader:
        body["well"] = sorted(meta.well())
        away = [a for a in engine.state.streams() if not any(engine.is_online(peer) for peer in a.peers)]
        body["offline"] = {"total": len(away), "first": [f"{a.account} > {a.name}" for a in away[:SHOWN]]}
        view.led(META, meta)
    return body


def _streams(engine: JetStream, view: _View) -> Sliced[None]:
    for count, ((account, stream), asset) in enumerate(list(engine.assets.items())):
        if count % SLICE == SLICE - 1:
            yield
        if asset.closed:
            continue
        name = f"{account} > {stream}"
        view.count("held")
        group = asset.group
        if asset.failed:
            view.complain(name, asset.failed, server=engine.server_name)
        elif group is None:
            view.count("single")
            if asset.leading:
                view.count("led")
        elif group.is_leader:
            view.count("led")
            view.led(name, group)
        elif group.leader is None and not group.removed:
            view.complain(name, "no leader", server=engine.server_name)
