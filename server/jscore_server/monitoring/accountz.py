"""/accountz: which accounts there are, or one of them in full. Source: monitoring.md section 2.7."""

from __future__ import annotations

import itertools

from jscore_server.config.options import Options
from jscore_server.config.users import GLOBAL_ACCOUNT
from jscore_server.dataplane import AccountInfo, Tally
from jscore_server.jetstream.models import format_time
from jscore_server.monitoring.monitor import Body, Monitor
from jscore_server.monitoring.query import Asked, BadQuery, Option
from jscore_server.monitoring.subsz import index_stats

OPTIONS = (Option("account", "text", "acc"),)
SYSTEM_SERVICES = (  # what the system account offers to all others
    ("$SYS.REQ.ACCOUNT.*.CONNZ", "Streamed"),
    ("$SYS.REQ.ACCOUNT.*.STATZ", "Streamed"),
    ("$SYS.DEBUG.SUBSCRIBERS", "Singleton"),
    ("$SYS.REQ.USER.*.INFO", "Singleton"),
    ("$JS.API.>", "Singleton"),
)


def accounts(monitor: Monitor) -> dict[str, AccountInfo]:
    """The accounts of the configuration, by name. Those that only routes speak of are no account here."""
    authentication = monitor.server.admission.authentication
    names = sorted({GLOBAL_ACCOUNT, monitor.system_account, *authentication.limits})
    infos = {info.name: info for info in monitor.server.plane.account_infos()}
    return {name: infos.get(name) or _unused(name) for name in names}


def _unused(name: str) -> AccountInfo:
    """One that the data plane has not heard of yet."""
    return AccountInfo(name, 0, 0, 0, Tally(0, 0, 0, 0), Tally(0, 0, 0, 0), 0, 0, 0, 0, 0, 0, 0, 0)


def accountz(monitor: Monitor, asked: Asked) -> Body:
    body: Body = {"server_id": monitor.server_id, "now": monitor.now()}
    if not monitor.server.options.no_system_account:
        body["system_account"] = monitor.system_account
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
    if name == monitor.system_account:
        body["is_system"] = True
    body |= {
        "expired": False,
        "complete": True,
        "jetstream_enabled": engine is not None and engine.limits(name) is not None,
        "leafnode_connections": 0,
        "client_connections": info.conns,
        "subscriptions": info.subs,
    }
    mappings = account_mappings(monitor.server.options, name)
    if mappings:
        body["mappings"] = mappings
    if name == monitor.system_account:
        body["exports"] = [
            {"subject": subject, "type": "service", "response_type": kind} for subject, kind in SYSTEM_SERVICES
        ]
    body["imports"] = _imports(monitor, name, body["jetstream_enabled"])
    return body | {"name_tag": name, "sublist_stats": index_stats([info])}


def account_mappings(options: Options, name: str) -> Body:
    """Of each source its destinations, those for all clusters first, with the sum of the percents up to there."""
    account = options.accounts.get(name)
    found = options.mappings if name == GLOBAL_ACCOUNT else account.mappings if account is not None else []
    body: Body = {}
    for mapping in sorted(found, key=lambda each: each.source):
        named = any(each.subject == mapping.source for each in mapping.destinations)
        rows = body[mapping.source] = []
        for cluster in dict.fromkeys(("", *(each.cluster for each in mapping.destinations))):
            chosen = [(each.subject, each.weight) for each in mapping.destinations if each.cluster == cluster]
            rest = 100 - sum(weight for _, weight in chosen)
            if rest and not named:
                chosen.append((_as_destination(mapping.source), rest))
            total = 0
            for subject, weight in sorted(chosen, key=lambda each: each[1]):
                total += weight
                rows.append({"subject": subject, "weight": total, **({"cluster": cluster} if cluster else {})})
    return body


def _as_destination(source: str) -> str:
    """The source written as a destination that changes nothing."""
    number = itertools.count(1)
    return ".".join(f"${next(number)}" if token == "*" else token for token in source.split("."))


def _imports(monitor: Monitor, name: str, jetstream: bool) -> list[Body]:
    """What the account's users can ask of the system account."""
    ask = "$SYS.REQ.ACCOUNT."
    services = [(f"$SYS.REQ.USER.{name}.INFO", "$SYS.REQ.USER.INFO", True)]
    if name != monitor.system_account:
        services += [
            (f"{ask}{name}.CONNZ", f"{ask}PING.CONNZ", False),
            (f"{ask}{name}.CONNZ", "$SYS.REQ.SERVER.PING.CONNZ", False),
            (f"{ask}{name}.STATZ", f"{ask}PING.STATZ", False),
        ]
    if jetstream:
        services.append(("$JS.API.>", "$JS.API.>", True))
    return [
        {
            "subject": subject,
            "account": monitor.system_account,
            "to": local,
            "local_subject": local,
            "type": "service",
            "invalid": False,
            "share": share,
            "tracking": False,
        }
        for subject, local, share in services
    ]
