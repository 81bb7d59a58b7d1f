"""/connz: the clients, those here and those that left. Source: monitoring.md section 2.2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from jscore_server.jetstream.models import format_time
from jscore_server.jetstream.names import is_literal, is_subset
from jscore_server.monitoring.accountz import accounts
from jscore_server.monitoring.closed import Closed, Who, subs_of
from jscore_server.monitoring.monitor import PAGE, SECOND, Body, Monitor, Sliced
from jscore_server.monitoring.query import Asked, BadQuery, Option, uptime
from jscore_server.monitoring.subsz import LISTED_MAX, sub_detail
from jscore_server.monitoring.who import who_is
from jscore_server.protocol.certificate import BadCertificate, read_certificate
from jscore_server.protocol.duration import go_duration

if TYPE_CHECKING:
    from jscore_server.dataplane import ConnInfo

OPTIONS = (
    Option("sort", "text"),
    Option("auth", "bool"),
    Option("subscriptions", "subs", "subs"),
    Option("offset", "int"),
    Option("limit", "int"),
    Option("cid", "uint"),
    Option("mqtt_client", "text"),
    Option("state", "state"),
    Option("user", "text"),
    Option("acc", "text"),
    Option("filter_subject", "text", None),
)
OPEN, CLOSED, ANY = 0, 1, 2
SLICE = 32  # rows made between two pauses, about a millisecond


class Row(NamedTuple):
    """A connection, open (`conn` > 0) or closed."""

    who: Who
    info: ConnInfo
    conn: int
    closed: Closed | None


_SORTS: dict[str, tuple[Callable[[Row, int], Any], bool]] = {  # key of a row at `now`, descending
    "cid": (lambda row, now: row.who.cid, False),
    "start": (lambda row, now: row.info.start_ns, False),
    "subs": (lambda row, now: row.info.subs, True),
    "pending": (lambda row, now: row.info.pending, True),
    "msgs_to": (lambda row, now: row.info.out_msgs, True),
    "msgs_from": (lambda row, now: row.info.in_msgs, True),
    "bytes_to": (lambda row, now: row.info.out_bytes, True),
    "bytes_from": (lambda row, now: row.info.in_bytes, True),
    "last": (lambda row, now: row.info.last_activity_ns, True),
    "idle": (lambda row, now: now - row.info.last_activity_ns, True),
    "uptime": (lambda row, now: (row.closed.stop_ns if row.closed else now) - row.info.start_ns, False),
    "rtt": (lambda row, now: row.info.rtt_ns, True),
    "stop": (lambda row, now: row.closed.stop_ns if row.closed else 0, True),
    "reason": (lambda row, now: row.closed.reason if row.closed else "", False),
}


def connz(monitor: Monitor, asked: Asked) -> Sliced[Body]:
    sort, state, account, cid = asked["sort"] or "cid", asked["state"], asked["acc"], asked["cid"]
    if sort not in _SORTS:
        raise BadQuery(f"invalid sorting option: {sort}")
    if sort in ("stop", "reason") and state != CLOSED:
        raise BadQuery(f"sort by {sort} only valid on closed connections")
    if asked["filter_subject"] and not account:
        raise BadQuery("filter by subject only valid with account filtering")
    limit = 1 if cid else asked["limit"] if asked["limit"] > 0 else PAGE
    offset = max(0, asked["offset"])
    now = monitor.clock()
    head = {"now": format_time(now), "num_connections": 0, "total": 0, "offset": offset, "limit": limit}
    if account and account not in accounts(monitor):
        return {"server_id": "", **head, "connections": None}
    rows: list[Row] = []
    total = 0
    interested = _interested(monitor, account, asked["filter_subject"]) if asked["filter_subject"] else None
    for count, row in enumerate(_rows(monitor, state)):
        if count % SLICE == SLICE - 1:
            yield
        if account and row.who.account != account:
            continue
        total += 1
        if cid and row.who.cid != cid:
            continue
        if (asked["user"] and row.who.user != asked["user"]) or asked["mqtt_client"]:
            continue
        if interested is not None and row.conn not in interested:
            continue
        rows.append(row)
    key, descending = _SORTS[sort]
    rows.sort(key=lambda row: key(row, now), reverse=descending)
    rows = rows[offset : offset + limit]
    shown: list[Body] = []
    left = LISTED_MAX
    for count, row in enumerate(rows):
        if count % SLICE == SLICE - 1:
            yield
        body = _connection(row, now, asked["auth"], _tls(monitor, row.conn, asked["auth"]))
        if left > 0 and (asked["subscriptions"] or asked["subscriptions_detail"]):
            left -= _list_subs(monitor, row, body, asked["subscriptions_detail"], left)
        if asked["auth"] and row.who.account:
            body["name_tag"] = row.who.account
        shown.append(body)
    head |= {"num_connections": len(shown), "total": total}
    return {"server_id": monitor.server_id, **head, "connections": shown}


def _rows(monitor: Monitor, state: int) -> Iterable[Row]:
    if state in (CLOSED, ANY):
        for closed in monitor.closed:
            yield Row(closed.who, closed.info, 0, closed)
    if state in (OPEN, ANY):
        plane = monitor.server.plane
        for client in list(monitor.server.clients.values()):
            info = plane.conn_info(client.conn)
            if info is not None:
                yield Row(who_is(client, info.account), info, client.conn, None)


def _interested(monitor: Monitor, account: str, subject: str) -> set[int]:
    """The connections of an account with a subscription that takes the subject, or all of a pattern."""
    plane = monitor.server.plane
    if is_literal(subject):
        return {sub.conn for sub in plane.subscriptions(account=account, subject=subject, limit=LISTED_MAX)[1]}
    _, subs = plane.subscriptions(account=account, limit=LISTED_MAX)
    return {sub.conn for sub in subs if is_subset(subject, sub.subject)}


def _tls(monitor: Monitor, conn: int, auth: bool) -> Body:
    """How an open connection is secured; of closed ones that is not kept."""
    plane = monitor.server.plane
    info = plane.tls_info(conn) if conn else None
    if info is None:
        return {}
    body: Body = {"tls_version": info.version.removeprefix("TLSv"), "tls_cipher_suite": info.cipher}
    if auth:
        shown = []
        for der in plane.peer_certificates(conn):
            try:
                found = read_certificate(der)
            except BadCertificate:
                continue
            digests = {"spki_sha256": found.spki_sha256, "cert_sha256": found.cert_sha256}
            shown.append({"subject": found.subject, **digests} if found.subject else digests)
        if shown:
            body["tls_peer_certs"] = shown
    if info.first:
        body["tls_first"] = True
    return body


def _connection(row: Row, now: int, auth: bool, tls: Body) -> Body:
    who, info, closed = row.who, row.info, row.closed
    end = closed.stop_ns if closed is not None else now
    body: Body = {"cid": who.cid, "kind": who.kind, "type": who.client_type, "ip": who.ip, "port": who.port}
    body["start"] = format_time(info.start_ns)
    body["last_activity"] = format_time(info.last_activity_ns)
    if closed is not None:
        body["stop"] = format_time(closed.stop_ns)
        body["reason"] = closed.reason
    if info.rtt_ns:
        body["rtt"] = go_duration(info.rtt_ns)
    body["uptime"] = uptime((end - info.start_ns) / SECOND)
    body["idle"] = uptime((end - info.last_activity_ns) / SECOND)
    body["pending_bytes"] = info.pending
    body |= {"in_msgs": info.in_msgs, "out_msgs": info.out_msgs, "in_bytes": info.in_bytes, "out_bytes": info.out_bytes}
    if info.stalls:
        body["stalls"] = info.stalls
    body["subscriptions"] = info.subs
    body |= {name: text for name in ("name", "lang", "version") if (text := getattr(who, name))}
    body |= tls
    if auth:
        if who.user:
            body["authorized_user"] = who.user
        if who.account and who.account != "$G":
            body["account"] = who.account
    return body


def _list_subs(monitor: Monitor, row: Row, body: Body, detail: bool, left: int) -> int:
    """Adds the list of its subscriptions, at most `left`; how many."""
    listed: list[Any]
    if row.closed is not None:
        kept = subs_of(row.closed)
        listed = [
            sub_detail(s.subject, s.queue, s.sid, s.delivered, 0, row.who.cid, account=row.who.account)
            if detail
            else s.subject
            for s in kept
        ]
    else:
        _, subs = monitor.server.plane.subscriptions(conn=row.conn, limit=left)
        listed = [
            sub_detail(s.subject, s.queue, s.sid, s.delivered, s.max, row.who.cid) if detail else s.subject
            for s in subs
        ]
    if listed:
        body["subscriptions_list_detail" if detail else "subscriptions_list"] = listed
    return len(listed)
