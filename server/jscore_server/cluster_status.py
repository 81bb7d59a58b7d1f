"""What the servers of a cluster say of it, judged: quorums, what is missing, who may be stopped, what to do next. Pure.

The input is what `/clusterz` of each server that answered says. Every group is judged by its leader; a server may be
stopped when no leader names it as one its group cannot do without. Source: spec/clustering.md section 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

HEALTHY, DEGRADED, BROKEN = 0, 1, 2
META = "_meta_"
View = dict[str, Any]


@dataclass(slots=True)
class Server:
    """One server. `may_stop`: nothing loses its quorum without it; `why` not. `small`: streams of one or two replicas
    that are not served while it is away, however well everything is.
    """

    name: str
    answers: bool
    version: str = ""
    jscore_version: str = ""
    lame_duck: bool = False
    held: int = 0
    led: int = 0
    small: int = 0
    may_stop: bool = False
    why: str = ""


@dataclass(slots=True)
class Meta:
    """The meta group as its leader sees it; without a leader as the newest term knew it."""

    leader: str = ""
    term: int = 0
    voters: list[str] = field(default_factory=list)
    well: list[str] = field(default_factory=list)
    quorum_needed: int = 0


@dataclass(slots=True)
class Status:
    """The verdict. `code`: HEALTHY, DEGRADED, BROKEN (no quorum, or nobody answers)."""

    code: int
    verdict: str
    next_step: str
    cluster: str = ""
    servers: list[Server] = field(default_factory=list)
    meta: Meta | None = None
    streams: int = 0
    led: int = 0
    leaderless: list[str] = field(default_factory=list)
    unhealthy: list[dict[str, Any]] = field(default_factory=list)
    unhealthy_total: int = 0


def judge(views: Sequence[View]) -> Status:
    """What `views`, one from each server that answered, come to."""
    views = [view for view in views if view.get("jetstream")]
    if not views:
        return Status(BROKEN, "unreachable", "Start the servers, or ask where they are: none with JetStream answered.")
    status = Status(HEALTHY, "healthy", "", cluster=views[0].get("cluster", ""))
    status.meta = _meta(views)
    status.servers = _servers(views, status.meta)
    status.streams = max(view["groups"]["total"] for view in views)
    status.led = sum(view["groups"]["led"] for view in views)
    for view in views:
        status.unhealthy += view["unhealthy"]
        status.unhealthy_total += view["unhealthy_total"]
    offline = [name for view in views for name in view.get("meta", {}).get("offline", {}).get("first", ())]
    no_leader = [item["name"] for item in status.unhealthy if item["reason"] == "no leader"]
    status.leaderless = list(dict.fromkeys(no_leader + offline))
    _may_stop(status, views)
    _decide(status)
    return status


def _meta(views: Sequence[View]) -> Meta | None:
    told = [view["meta"] for view in views if view.get("clustered")]
    if not told:
        return None
    leading = [meta for meta in told if "well" in meta]
    newest = max(leading or told, key=lambda meta: int(meta.get("term", 0)))
    # A follower's word counts while it hears its leader: monitoring ports of some servers tell of no other.
    leader = newest.get("leader", "") if leading or newest["current"] else ""
    return Meta(leader, newest.get("term", 0), newest["voters"], newest.get("well", []), newest["quorum_needed"])


def _servers(views: Sequence[View], meta: Meta | None) -> list[Server]:
    servers = {name: Server(name, False) for name in (meta.voters if meta is not None else ())}
    for view in views:
        groups = view["groups"]
        servers[view["name"]] = Server(
            view["name"], True, view["version"], view["jscore_version"], view["lame_duck"], groups["held"],
            groups["led"], groups["single"],
        )  # fmt: skip
    return [server for _, server in sorted(servers.items())]


def _may_stop(status: Status, views: Sequence[View]) -> None:
    groups: dict[str, int] = {}
    first: dict[str, str] = {}
    for view in views:
        for name, needs in view["needs"].items():
            groups[name] = groups.get(name, 0) + needs["groups"]
            first.setdefault(name, needs["first"])
            first[name] = first[name] or needs["first"]
            for server in status.servers:
                if server.name == name:
                    server.small += needs["small"]
    unknown = status.streams - status.led
    for server in status.servers:
        if not server.answers:
            server.why = "it does not answer"
        elif status.meta is not None and not status.meta.leader:
            server.why = "the meta group has no leader"
        elif status.leaderless:
            server.why = f"{status.leaderless[0]} has no leader"
        elif groups.get(server.name):
            count = groups[server.name]
            more = f" and {count - 1} more" if count > 1 else ""
            server.why = f"{_shown(first[server.name])}{more} would lose quorum"
        elif unknown > 0:
            server.why = f"{unknown} streams are led by nobody who answered"
        else:
            server.may_stop = True


def _shown(name: str) -> str:
    return "the meta group" if name == META else f"stream '{name}'"


def _decide(status: Status) -> None:
    away = [server.name for server in status.servers if not server.answers]
    free = [server for server in status.servers if server.may_stop]
    meta = status.meta
    if meta is not None and not meta.leader:
        status.code, status.verdict = BROKEN, "no quorum"
        need = meta.quorum_needed - sum(server.answers for server in status.servers if server.name in meta.voters)
        if away and need > 0:
            status.next_step = f"Start {_any(away)}: the meta group needs {need} more of its {len(meta.voters)} voters."
        else:
            status.next_step = "Stop nothing and ask again: enough servers answer for the meta group to elect a leader."
        return
    if status.leaderless:
        status.code, status.verdict = BROKEN, "no quorum"
        what = f"{_shown(status.leaderless[0])} has no leader"
        status.next_step = (
            f"Start {_any(away)}: {what}." if away else f"Stop nothing and ask again: {what}, and all servers answer."
        )
        return
    if away or status.unhealthy_total or status.led < status.streams:
        status.code, status.verdict = DEGRADED, "degraded"
        spare = f"; {_any([server.name for server in free])} could be stopped even now" if free else ""
        if away:
            verb = "does" if len(away) == 1 else "do"
            status.next_step = f"Start {_all(away)}, which {verb} not answer, and stop nothing else until then{spare}."
        else:
            behind = sorted({name for item in status.unhealthy for name in item.get("missing", ())})
            here = {server.name for server in status.servers}
            gone = [name for name in behind if name not in here]
            if gone:
                whose = "a replica's" if len(gone) == 1 else "replicas'"
                status.next_step = f"Start a new server to take {whose} place: {_all(gone)} left the cluster{spare}."
                return
            whom = f"until {_all(behind)} caught up" if behind else "and ask again"
            status.next_step = f"Stop nothing: wait {whom}{spare}."
        return
    leaving = [server.name for server in status.servers if server.lame_duck]
    if leaving:
        status.next_step = f"Stop {_all(leaving)}, which handed over and takes no more clients, and start it again."
        return
    status.next_step = _next(status, free)


def _next(status: Status, free: list[Server]) -> str:
    if meta := status.meta:
        last = max((version_key(server.jscore_version) for server in status.servers), default=())
        # Whoever leads the meta group goes last: one election less.
        old = [server for server in free if version_key(server.jscore_version) < last]
        old.sort(key=lambda server: (server.name == meta.leader, server.led, server.name))
        if old:
            first = old[0]
            return f"Upgrade {first.name}, which still runs {first.jscore_version}; then ask again before the next."
    if not free:
        return "Stop nothing: some group is just large enough to decide."
    return f"Nothing needs to be done; {_any([server.name for server in free])} may be stopped, one at a time."


def version_key(text: str) -> tuple[int, ...]:
    """Versions in their order: what is no number counts as 0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in text.split("."))


def _any(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" or {names[-1]}"


def _all(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def text(status: Status) -> str:
    """The same for a person."""
    lines = [f"Cluster {status.cluster or '(one server)'}: {status.verdict}"]
    meta = status.meta
    if meta is not None:
        up = f"{len(meta.well)} of {len(meta.voters)} voters current" if meta.well else f"{len(meta.voters)} voters"
        quorum = f"{'' if meta.leader else 'no leader; '}{up}, {meta.quorum_needed} needed"
        lines.append(f"Meta group: {quorum}" + (f", leader {meta.leader}, term {meta.term}" if meta.leader else ""))
    lines.append(f"Streams: {status.streams}, {status.led} with a leader that answered")
    width = max(len(server.name) for server in status.servers) if status.servers else 0
    for server in status.servers:
        name = server.name.ljust(width)
        if not server.answers:
            lines.append(f"  {name}  does not answer")
            continue
        state = "lame duck, " if server.lame_duck else ""
        may = "may be stopped" if server.may_stop else f"must not be stopped: {server.why}"
        stand = "stream of one or two replicas stands" if server.small == 1 else "streams of one or two replicas stand"
        small = f"; {server.small} {stand} still without it" if server.small else ""
        lines.append(
            f"  {name}  {server.jscore_version} (nats-server {server.version}), {state}leads {server.led} of "
            f"{server.held}: {may}{small}"
        )
    for item in status.unhealthy[:16]:
        missing = f": {', '.join(item['missing'])}, lag {item['lag']}" if "missing" in item else ""
        where = f" (at {item['server']})" if "server" in item else ""
        lines.append(f"  {_shown(item['name'])}: {item['reason']}{missing}{where}")
    if status.unhealthy_total > 16:
        lines.append(f"  and {status.unhealthy_total - 16} more")
    lines.append(f"Next: {status.next_step}")
    return "\n".join(lines)
