"""/raftz: the Raft groups this server is part of. Source: monitoring.md section 2.11."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jscore
from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.monitor import Body, Monitor
from jscore_server.monitoring.query import Asked, Option
from jscore_server.protocol.duration import go_duration

if TYPE_CHECKING:
    from jscore import RecordLog
    from jscore_server.jetstream.engine import JetStream
    from jscore_server.raft import Group

OPTIONS = (Option("account", "text", "acc"), Option("group", "text"))


def raftz(monitor: Monitor, asked: Asked) -> Body:
    """{account: {group: …}}; empty where nothing fits."""
    engine = monitor.engine()
    if engine is None or not engine.clustered:
        return {}
    account = asked["account"] or monitor.system_account
    groups: Body = {}
    if account == monitor.system_account:
        if engine.meta is not None and engine.meta_log is not None:
            groups["_meta_"] = _group(engine, engine.meta, engine.meta_log, engine.state.applied)
    else:
        for (owner, _), asset in engine.assets.items():
            if owner == account and asset.group is not None and not asset.failed:
                groups[asset.assignment.group] = _group(engine, asset.group, asset.log, asset.stream.applied)
    if asked["group"]:
        groups = {name: shown for name, shown in groups.items() if name == asked["group"]}
    return {account: dict(sorted(groups.items()))} if groups else {}


def _group(engine: JetStream, group: Group, log: RecordLog, applied: int) -> Body:
    core = group.core
    voters, learners = group.members()
    size = len(voters)
    state = core.role.name if core.role.name in ("LEADER", "FOLLOWER") else "CANDIDATE"
    body: Body = {
        "id": engine.peer_id(engine.server_name),
        "state": state,
        "size": size,
        "quorum_needed": size // 2 + 1,
    }
    if engine.server_name in learners:
        body["observer"] = True
    body |= {"committed": core.commit, "applied": applied}
    if core.leader:
        body["leader"] = engine.peer_id(core.leader)
    if group.is_leader and group.leader_since:
        body["leader_since"] = format_time(group.leader_since)
    body |= {
        "ever_had_leader": bool(core.term),
        "term": core.term,
        "voted_for": engine.peer_id(core.vote) if core.vote else "",
        "pterm": _term(log),
        "pindex": log.last,
        "system_account": True,
        "traffic_account": "$SYS",
        "ipq_proposal_len": 0,
        "ipq_entry_len": 0,
        "ipq_resp_len": 0,
        "ipq_apply_len": max(0, core.commit - applied),
        "wal": _wal(log),
    }
    if log.error:
        body["wal_error"] = f"the log takes no more writes (code {log.error})"
    found = group.difference
    if found is not None:
        body["differs"] = {
            "first_index": found.lo,
            "last_index": found.hi,
            "servers": list(found.odd),
            "agreed": list(found.agreed),
        }
    body["peers"] = {engine.peer_id(r.name): _peer(group, r.name, r.active_ns) for r in group.replicas()}
    return body


def _peer(group: Group, name: str, active_ns: int) -> Body:
    body: Body = {"name": name, "known": True}
    progress = group.core.progress.get(name)
    if progress is not None and progress.match:
        body["last_replicated_index"] = progress.match
    if active_ns:
        body["last_seen"] = go_duration(active_ns)
    return body


def _term(log: RecordLog) -> int:
    try:
        return log.term(log.last) if log.last >= log.first else 0
    except jscore.Error:
        return 0


def _wal(log: RecordLog) -> Body:
    empty = log.last < log.first
    return {
        "messages": 0 if empty else log.last - log.first + 1,
        "bytes": log.bytes,
        "first_seq": log.first,
        "first_ts": format_time(0 if empty else _time(log, log.first)),
        "last_seq": log.last,
        "last_ts": format_time(0 if empty else _time(log, log.last)),
        "consumer_count": 0,
    }


def _time(log: RecordLog, index: int) -> int:
    try:
        return log.read(index).ts
    except (jscore.Error, OSError):
        return 0
