"""/accstatz: what each account has connected and moved. Source: monitoring.md section 2.8."""

from __future__ import annotations

from jscore_server.dataplane import AccountInfo
from jscore_server.monitoring.accountz import accounts
from jscore_server.monitoring.monitor import Body, Monitor
from jscore_server.monitoring.query import Asked, Option

OPTIONS = (Option("accounts", "texts", None), Option("include_unused", "bool", "unused"))


def accstatz(monitor: Monitor, asked: Asked) -> Body:
    wanted = set(asked["accounts"])
    shown = [
        account_stat(monitor, info)
        for name, info in accounts(monitor).items()
        if (not wanted or name in wanted) and (info.conns or asked["include_unused"])
    ]
    return {"server_id": monitor.server_id, "now": monitor.now(), "account_statz": shown}


def account_stat(monitor: Monitor, info: AccountInfo) -> Body:
    """One account; sent is to clients and routes, received from them."""
    return {
        "acc": info.name,
        "name": info.name,
        "conns": info.conns,
        "leafnodes": 0,
        "total_conns": info.conns + monitor.account_conns(info.name),
        "num_subscriptions": info.subs,
        "sent": _data(info.clients.out_msgs, info.clients.out_bytes, info.routes.out_msgs, info.routes.out_bytes),
        "received": _data(info.clients.in_msgs, info.clients.in_bytes, info.routes.in_msgs, info.routes.in_bytes),
        "slow_consumers": info.slow_consumers,
    }


def _data(msgs: int, size: int, route_msgs: int, route_bytes: int) -> Body:
    none = {"msgs": 0, "bytes": 0}
    return {
        "msgs": msgs + route_msgs,
        "bytes": size + route_bytes,
        "gateways": none,
        "routes": {"msgs": route_msgs, "bytes": route_bytes},
        "leafs": none,
    }
