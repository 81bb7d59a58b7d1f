"""/subsz: the subject index and what is subscribed. Source: monitoring.md section 2.6."""

from __future__ import annotations

from collections.abc import Iterable

from jscore_server.dataplane import AccountInfo
from jscore_server.jetstream.names import is_literal, is_valid_subject
from jscore_server.monitoring.monitor import PAGE, Body, Monitor, Sliced
from jscore_server.monitoring.query import Asked, BadQuery, Option, number

OPTIONS = (
    Option("offset", "int"),
    Option("limit", "int"),
    Option("subscriptions", "bool", "subs"),
    Option("account", "text", "acc"),
    Option("test", "text"),
)
SLICE = 512  # subscriptions listed between two pauses
LISTED_MAX = 100_000  # subscriptions in one answer: more would hold the others up


def subsz(monitor: Monitor, asked: Asked) -> Sliced[Body]:
    plane = monitor.server.plane
    account, test = asked["account"], asked["test"]
    if test and not (is_valid_subject(test) and is_literal(test)):
        raise BadQuery(f"invalid test subject, must be valid publish subject: {test}")
    offset = max(0, asked["offset"])
    limit = asked["limit"] if asked["limit"] > 0 else PAGE
    infos = [info for info in plane.account_infos() if not account or info.name == account]
    body: Body = {"server_id": monitor.server_id, "now": monitor.now(), **index_stats(infos)}
    total = 0
    shown: list[Body] = []
    if asked["subscriptions"] and infos:
        cids = {client.conn: client.cid for client in monitor.server.clients.values()}
        wanted = min(limit, LISTED_MAX)
        while True:
            total, part = plane.subscriptions(
                account=account or None,
                subject=test or None,
                skip=offset + len(shown),
                limit=min(SLICE, wanted - len(shown)),
            )
            shown += [
                sub_detail(s.subject, s.queue, s.sid, s.delivered, s.max, cids.get(s.conn, s.conn), account=s.account)
                for s in part
            ]
            if not part or len(shown) >= wanted:
                break
            yield
    body |= {"total": total, "offset": offset, "limit": limit}
    if shown:
        body["subscriptions_list"] = shown
    return body


def index_stats(infos: Iterable[AccountInfo]) -> Body:
    """The figures of the subject indexes of some accounts together."""
    subs = cached = inserts = removes = matches = hits = widest = reached = 0
    for info in infos:
        subs += info.subs
        cached += info.cached
        inserts += info.inserts
        removes += info.removes
        matches += info.matches
        hits += info.cache_hits
        widest = max(widest, info.fanout_max)
        reached += info.fanout_sum
    return {
        "num_subscriptions": subs,
        "num_cache": cached,
        "num_inserts": inserts,
        "num_removes": removes,
        "num_matches": matches,
        "cache_hit_rate": number(hits / matches if matches else 0),
        "max_fanout": widest,
        "avg_fanout": number(reached / cached if cached else 0),
    }


def sub_detail(subject: str, queue: str, sid: str, delivered: int, limit: int, cid: int, *, account: str = "") -> Body:
    """One subscription in full."""
    body: Body = {"account": account, "account_tag": account} if account else {}
    body["subject"] = subject
    if queue:
        body["qgroup"] = queue
    body |= {"sid": sid, "msgs": delivered}
    if limit:
        body["max"] = limit
    body["cid"] = cid
    return body
