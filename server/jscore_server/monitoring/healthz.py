"""/healthz: fit to serve? Source: monitoring.md section 2.10."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jscore_server.monitoring.monitor import Body, Monitor
from jscore_server.monitoring.query import Asked, Option

if TYPE_CHECKING:
    from jscore_server.jetstream.asset import Asset
    from jscore_server.jetstream.engine import JetStream

OPTIONS = (
    Option("js-enabled", "bool"),
    Option("js-enabled-only", "bool"),
    Option("js-server-only", "bool"),
    Option("js-meta-only", "bool"),
    Option("account", "text"),
    Option("stream", "text"),
    Option("consumer", "text"),
    Option("details", "bool"),
    Option("rolling", "bool"),
)
YOUNG_NS = 5_000_000_000  # what was created so lately is not held against anybody


class Fault(NamedTuple):
    """Why not: an HTTP status, the kind of thing that is not well, and a text."""

    status: int
    kind: str
    text: str
    account: str = ""
    stream: str = ""
    consumer: str = ""


def healthz(monitor: Monitor, asked: Asked) -> tuple[int, Body]:
    """The HTTP status and the body. Without `details` the first fault in the peer's order, else all."""
    faults = list(_faults(monitor, asked))
    if not faults:
        return 200, {"status": "ok"}
    status = faults[0].status
    if not asked["details"]:
        return status, {"status": "error" if status in (400, 500) else "unavailable", "error": faults[0].text}
    errors = []
    for fault in faults:
        named = {name: value for name in ("account", "stream", "consumer") if (value := getattr(fault, name))}
        errors.append({"type": fault.kind, **named, "error": fault.text})
    return status, {"status": "error", "errors": errors}


def _faults(monitor: Monitor, asked: Asked) -> list[Fault]:
    account, stream, consumer = asked["account"], asked["stream"], asked["consumer"]
    if stream and not account:
        return [Fault(400, "BAD_REQUEST", '"account" must not be empty when checking stream health')]
    if consumer and not stream:
        return [Fault(400, "BAD_REQUEST", '"stream" must not be empty when checking consumer health')]
    if asked["js-server-only"]:
        return []
    engine = monitor.engine()
    enabled_only = asked["js-enabled"] or asked["js-enabled-only"]
    if engine is None:
        # Enabled but not running cannot be: the daemon ends when JetStream cannot start.
        return [Fault(503, "JETSTREAM", "JetStream not enabled")] if enabled_only else []
    if enabled_only:
        return []
    if engine.meta_failed and not engine.clustered:
        return [Fault(503, "JETSTREAM", f"JetStream is not healthy: {engine.meta_failed}")]
    if engine.meta_failed or (engine.clustered and engine.meta_leader is None):
        return [Fault(503, "JETSTREAM", "JetStream has not established contact with a meta leader")]
    if engine.clustered and engine.meta is not None and not engine.meta.current:
        return [Fault(503, "JETSTREAM", "JetStream is not current with the meta leader")]
    if engine.meta is not None and (found := engine.meta.difference) is not None:
        text = f"meta records {found.lo} to {found.hi} are not the same on all servers"
        return [Fault(503, "JETSTREAM", f"JetStream is not healthy: {text}")]
    if asked["js-meta-only"]:
        return []
    if account and engine.limits(account) is None:
        return [Fault(404, "ACCOUNT", f'JetStream account "{account}" not found', account)]
    if stream and engine.state.get(account, stream) is None:
        return [Fault(404, "STREAM", f'JetStream stream "{stream}" not found on account "{account}"', account, stream)]
    faults = _streams(engine, account, stream, consumer)
    return faults or (_others(engine) if asked["rolling"] else [])


def _streams(engine: JetStream, account: str, stream: str, consumer: str) -> list[Fault]:
    faults = []
    for (owner, name), asset in engine.assets.items():
        if (account and owner != account) or (stream and name != stream):
            continue
        if asset.failed:
            text = f"JetStream stream '{owner} > {name}' is not healthy: {asset.failed}"
            faults.append(Fault(503, "STREAM", text, owner, name))
        elif asset.group is not None and asset.group.difference is not None:
            found = asset.group.difference
            text = f"records {found.lo} to {found.hi} are not the same on all servers"
            text = f"JetStream stream '{owner} > {name}' is not healthy: {text}"
            faults.append(Fault(503, "STREAM", text, owner, name))
        elif asset.leader is None or not _is_current(engine, asset):
            faults.append(Fault(503, "STREAM", f"JetStream stream '{owner} > {name}' is not current", owner, name))
        elif consumer and consumer not in asset.consumers:
            text = f'JetStream consumer "{consumer}" not found for stream "{name}" on account "{owner}"'
            faults.append(Fault(404, "CONSUMER", text, owner, name, consumer))
    return faults


def _is_current(engine: JetStream, asset: Asset) -> bool:
    """Whether the replica here counts in its group and has caught up: it would be missed by nobody else's failure."""
    if asset.group is None or asset.group.current or asset.group.removed:
        return True
    return engine.clock() - asset.assignment.created_ns < YOUNG_NS


def _others(engine: JetStream) -> list[Fault]:
    """`rolling`: what another server that went now would take with it, of the groups that this one is part of.

    A group whose voters are all current does without any one of them, or was never meant to (one or two replicas).
    """
    faults = []
    if engine.clustered and engine.meta is not None and not engine.meta.whole:
        faults.append(Fault(503, "JETSTREAM", "no server may be stopped yet: not all of the meta group are current"))
    for (owner, name), asset in engine.assets.items():
        if asset.group is not None and not asset.failed and not asset.group.removed and not asset.group.whole:
            text = f"no server may be stopped yet: not all replicas of stream '{owner} > {name}' are current"
            faults.append(Fault(503, "STREAM", text, owner, name))
    return faults
