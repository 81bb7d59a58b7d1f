"""/accountz: which accounts there are, or one of them in full. Source: monitoring.md section 2.7."""

from __future__ import annotations

from jscore_server.dataplane import AccountInfo
from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.monitor import Body, Monitor
from jscore_server.monitoring.query import Asked, BadQuery, Option
from jscore_server.monitoring.subsz import index_stats

OPTIONS = (Option("account", "text", "acc"),)


def accounts(monitor: Monitor) -> dict[str, AccountInfo]:
    """The accounts this server knows, by name."""
    infos = {info.name: info for info in monitor.server.plane.account_infos()}
    return dict(sorted(infos.items()))


def accountz(monitor: Monitor, asked: Asked) -> Body:
    body: Body = {
        "server_id": monitor.server_id,
        "now": monitor.now(),
        "system_account": monitor.system_account(),
    }
    if asked["account"]:
        body["account_detail"] = account_detail(monitor, asked["account"])
    else:
        body["accounts"] = list(accounts(monitor))
    return body


def account_detail(monitor: Monitor, name: str) -> Body:
    """Raises: BadQuery for an account that is not known here."""
    info = accounts(monitor).get(name)
    if info is None:
        raise BadQuery(f"Account {name} does not exist")
    engine = monitor.engine()
    body: Body = {"account_name": name, "update_time": format_time(monitor.server.started_ns)}
    if name == monitor.system_account():
        body["is_system"] = True
    body |= {
        "expired": False,
        "complete": True,
        "jetstream_enabled": engine is not None and name == engine.account,
        "leafnode_connections": 0,
        "client_connections": info.conns,
        "subscriptions": info.subs,
        "name_tag": name,
        "sublist_stats": index_stats([info]),
    }
    return body
