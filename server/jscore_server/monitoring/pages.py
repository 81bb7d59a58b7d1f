"""Which page a request is for, and how its answer is written."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from jscore_server.monitoring.accountz import OPTIONS as ACCOUNTZ
from jscore_server.monitoring.accountz import accountz
from jscore_server.monitoring.accstatz import OPTIONS as ACCSTATZ
from jscore_server.monitoring.accstatz import accstatz
from jscore_server.monitoring.clusterz import OPTIONS as CLUSTERZ
from jscore_server.monitoring.clusterz import clusterz
from jscore_server.monitoring.connz import OPTIONS as CONNZ
from jscore_server.monitoring.connz import connz
from jscore_server.monitoring.gatewayz import OPTIONS as GATEWAYZ
from jscore_server.monitoring.gatewayz import gatewayz
from jscore_server.monitoring.healthz import OPTIONS as HEALTHZ
from jscore_server.monitoring.healthz import healthz
from jscore_server.monitoring.http import TEXT, Answer, Request
from jscore_server.monitoring.jsz import OPTIONS as JSZ
from jscore_server.monitoring.jsz import jsz
from jscore_server.monitoring.leafz import OPTIONS as LEAFZ
from jscore_server.monitoring.leafz import leafz
from jscore_server.monitoring.metrics import CONTENT_TYPE, metrics
from jscore_server.monitoring.monitor import Body, Monitor, Sliced, answered, in_slices, render, to_json
from jscore_server.monitoring.process import EXPVAR_OPTIONS, QUEUE_OPTIONS, expvarz, ipqueuesz, stacksz
from jscore_server.monitoring.query import Asked, BadQuery, Option, read_query
from jscore_server.monitoring.raftz import OPTIONS as RAFTZ
from jscore_server.monitoring.raftz import raftz
from jscore_server.monitoring.routez import OPTIONS as ROUTEZ
from jscore_server.monitoring.routez import routez
from jscore_server.monitoring.subsz import OPTIONS as SUBSZ
from jscore_server.monitoring.subsz import subsz
from jscore_server.monitoring.varz import OPTIONS as VARZ
from jscore_server.monitoring.varz import varz


class Page(NamedTuple):
    """What can be asked of it, who answers, how deep the JSON is indented."""

    options: tuple[Option, ...]
    answer: Callable[[Monitor, Asked], Sliced[Body] | Body]
    indent: int = 2
    content_type: str = "application/json"


PAGES: dict[str, Page] = {
    "varz": Page(VARZ, varz),
    "connz": Page(CONNZ, connz),
    "routez": Page(ROUTEZ, routez),
    "gatewayz": Page(GATEWAYZ, gatewayz),
    "leafz": Page(LEAFZ, leafz),
    "subsz": Page(SUBSZ, subsz),
    "accountz": Page(ACCOUNTZ, accountz),
    "accstatz": Page(ACCSTATZ, accstatz),
    "jsz": Page(JSZ, jsz),
    "raftz": Page(RAFTZ, raftz, 3),
    "clusterz": Page(CLUSTERZ, clusterz),
    "ipqueuesz": Page(QUEUE_OPTIONS, ipqueuesz, 3),
    "debug/vars": Page(EXPVAR_OPTIONS, expvarz, 0, "application/json; charset=utf-8"),
}
ALIASES = {"subscriptionsz": "subsz"}
CORS = {"Access-Control-Allow-Origin": "*"}
_INDEX = (
    ("varz", "General"),
    ("jsz", "JetStream"),
    ("connz", "Connections"),
    ("accountz", "Accounts"),
    ("accstatz", "Account statistics"),
    ("subsz", "Subscriptions"),
    ("routez", "Routes"),
    ("leafz", "Leaf nodes"),
    ("gatewayz", "Gateways"),
    ("raftz", "Raft groups"),
    ("clusterz", "The cluster"),
    ("healthz", "Health"),
    ("metrics", "Prometheus"),
    ("debug/vars", "Process"),
)


class Pages:
    """Answers the requests of the monitoring port."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def handle(self, request: Request) -> Answer:
        """One request's answer."""
        base = self._monitor.server.options.http_base_path.rstrip("/")
        path = request.path
        if base:
            if path != base and not path.startswith(base + "/"):
                return _not_found()
            path = path[len(base) :]
        name = path.strip("/") if path in ("", "/") else path[1:]
        try:
            return await self._page(name, request.query)
        except BadQuery as err:
            return Answer(400, str(err).encode("utf-8", "replace"), TEXT)

    async def _page(self, name: str, query: dict[str, str]) -> Answer:
        monitor = self._monitor
        other = _OTHERS.get(name)
        if other is not None:
            monitor.asked["/" + name] += 1
            return await other(monitor, query)
        page = PAGES.get(ALIASES.get(name, name))
        if page is None:
            return _not_found()
        monitor.asked["/" + name] += 1
        body = await answered(page.answer(monitor, read_query(page.options, query)))
        if name == "raftz" and not body and not query:
            return Answer(404, b"No Raft nodes registered", TEXT)
        return Answer(200, await in_slices(render(body, page.indent)), page.content_type, CORS)


async def _index(monitor: Monitor, query: dict[str, str]) -> Answer:
    facts = monitor.server.facts
    rows = "".join(f'<li><a href="./{path}">{title}</a> <code>/{path}</code></li>\n' for path, title in _INDEX)
    title = f"jscore-server {facts.own_version}"
    text = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body>\n<h1>{title}</h1>\n<ul>\n{rows}</ul>\n</body>\n</html>\n"
    )
    return Answer(200, text.encode(), "text/html; charset=utf-8")


async def _healthz(monitor: Monitor, query: dict[str, str]) -> Answer:
    status, body = healthz(monitor, read_query(HEALTHZ, query))
    return Answer(status, to_json(body), headers=CORS)


async def _stacksz(monitor: Monitor, query: dict[str, str]) -> Answer:
    return Answer(200, stacksz(monitor).encode("utf-8", "replace"), TEXT, CORS)


async def _metrics(monitor: Monitor, query: dict[str, str]) -> Answer:
    text = await in_slices(metrics(monitor))
    return Answer(200, text.encode("utf-8", "replace"), CONTENT_TYPE)


_OTHERS: dict[str, Callable[[Monitor, dict[str, str]], Coroutine[Any, Any, Answer]]] = {
    "": _index,
    "healthz": _healthz,
    "stacksz": _stacksz,
    "metrics": _metrics,
}


def _not_found() -> Answer:
    return Answer(404, b"404 page not found\n", TEXT, {"X-Content-Type-Options": "nosniff"})
