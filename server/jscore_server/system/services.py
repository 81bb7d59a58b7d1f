"""`$SYS.REQ`: requests to one server, to all of them, about one account, about oneself. monitoring.md section 3."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jscore_server.config.users import Permissions
from jscore_server.dataplane import Msg, Subscription
from jscore_server.monitoring.accountz import account_detail, accounts
from jscore_server.monitoring.healthz import OPTIONS as HEALTHZ
from jscore_server.monitoring.healthz import healthz
from jscore_server.monitoring.jsz import account_jsz
from jscore_server.monitoring.monitor import SECOND, Body, Monitor, Sliced, answered, in_slices, render, to_json
from jscore_server.monitoring.pages import PAGES
from jscore_server.monitoring.query import Asked, BadQuery, NotAsked, Option, read_json
from jscore_server.monitoring.who import who_is
from jscore_server.system.envelope import Envelope, compressed, encoding_asked
from jscore_server.system.events import Events

FROM_CLIENT = 0
IN_FLIGHT_MAX = 256  # requests being answered: more are not heard, as if the message was lost
FILTERS = (
    Option("server_name", "text"),
    Option("cluster", "text"),
    Option("host", "text"),
    Option("exact_match", "bool"),
    Option("tags", "texts"),
    Option("domain", "text"),
)
PROFILEZ = (Option("name", "text"), Option("debug", "int"))
CID = (Option("cid", "uint"),)

Answer = Callable[[Monitor, Asked], Sliced[Body] | Body]


class Service(NamedTuple):
    """A question that any server answers with `data`. `go_name`: its options in the peer's error texts."""

    options: tuple[Option, ...]
    answer: Answer
    go_name: str = "EventOptions"


def _health(monitor: Monitor, asked: Asked) -> Body:
    status, body = healthz(monitor, asked)
    return {"status": body.pop("status"), "status_code": status, **body}


def _profile(monitor: Monitor, asked: Asked) -> Body:
    name = asked["name"]
    return {"profile": None, "error": f'Profile "{name}" not found' if name else "Profile name not specified"}


def _service(name: str) -> Service:
    page = PAGES[name]
    return Service(page.options, page.answer, f"{name.capitalize()}EventOptions.{name.capitalize()}Options")


SERVICES: dict[str, Service] = {
    **{
        name.upper(): _service(name)
        for name in (
            *(
                "varz",
                "connz",
                "routez",
                "gatewayz",
                "leafz",
                "subsz",
                "accountz",
                "jsz",
                "raftz",
                "ipqueuesz",
                "clusterz",
            ),
        )
    },
    "HEALTHZ": Service(HEALTHZ, _health),
    "EXPVARZ": Service(PAGES["debug/vars"].options, PAGES["debug/vars"].answer),
    "PROFILEZ": Service(PROFILEZ, _profile),
}


class Services:
    """Subscribes and answers; the requests come from clients of the account here, or over routes."""

    def __init__(self, monitor: Monitor, envelope: Envelope, events: Events) -> None:
        self._monitor = monitor
        self._plane = monitor.server.plane
        self._envelope = envelope
        self._events = events
        self._subscriptions: list[Subscription] = []
        self._accounts: set[str] = set()  # whose users can ask about themselves
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        own, ping = f"$SYS.REQ.SERVER.{self._monitor.server_id}.", "$SYS.REQ.SERVER.PING."
        for name, service in SERVICES.items():
            for subject in (own + name, ping + name):
                self._on(subject, partial(self._serve, service))
        for subject in (own + "STATSZ", ping + "STATSZ", ping[:-1]):
            self._on(subject, self._statsz)
        for subject in (own + "IDZ", ping + "IDZ"):
            self._on(subject, self._idz)
        self._on(own + "RELOAD", self._reload)
        self._on(own + "KICK", self._kick)
        self._on(own + "LDM", self._ldm)
        for name in ("CONNZ", "SUBSZ", "LEAFZ", "JSZ", "INFO", "STATZ"):
            self._on(f"$SYS.REQ.ACCOUNT.*.{name}", partial(self._about_account, name))
        self._on("$SYS.REQ.ACCOUNT.*.CONNS", self._conns)
        self._on("$SYS.REQ.ACCOUNT.PING.STATZ", partial(self._serve, _service("accstatz")))
        self._on("$SYS.REQ.USER.INFO", self._user_info, local=True)
        self._accounts.add(self._monitor.system_account)
        for account in accounts(self._monitor):
            self.serve_account(account)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = []

    def _on(self, subject: str, callback: Callable[[Msg], None], *, account: str = "", local: bool = False) -> None:
        account = account or self._monitor.system_account
        self._subscriptions.append(self._plane.subscribe(account, subject, callback, local=local))

    # ---- answering ----

    def _send(self, msg: Msg, body: bytes) -> None:
        headers, body = compressed(body, encoding_asked(msg.headers))
        self._plane.publish(msg.account, msg.reply, body, headers=headers)

    def _read(self, msg: Msg, options: tuple[Option, ...], go_name: str = "EventOptions") -> Asked | None:
        """What is asked; None when it is not for this server, or was refused."""
        if not msg.reply:
            return None
        try:
            asked, found = read_json(options, msg.data, go_name)
            filters = {option.name: found.get(option.name) for option in FILTERS}
            if any(value is not None for value in filters.values()):
                wanted, _ = read_json(FILTERS, to_json(filters))
                if not self._meant(wanted):
                    return None
        except BadQuery as err:
            self._send(msg, self._envelope.failure(400, str(err)))
            return None
        return asked

    def _meant(self, wanted: Asked) -> bool:
        """Whether the request's filters let this server through."""
        facts, options = self._monitor.server.facts, self._monitor.server.options
        for name, own in (("server_name", facts.server_name), ("cluster", facts.cluster), ("host", facts.host)):
            text = wanted[name]
            if text and (own != text if wanted["exact_match"] else text not in own):
                return False
        if wanted["domain"] and wanted["domain"] != facts.domain:
            return False
        tags = {tag.lower() for tag in options.server_tags}
        return all(tag.lower() in tags for tag in wanted["tags"])

    def _serve(self, service: Service, msg: Msg) -> None:
        asked = self._read(msg, service.options, service.go_name)
        if asked is not None:
            self._run(msg, service.answer, asked)

    def _run(self, msg: Msg, answer: Answer, asked: Asked) -> None:
        assert self._loop is not None
        if len(self._tasks) >= IN_FLIGHT_MAX:
            return
        task = self._loop.create_task(self._answer(msg, answer, asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, msg: Msg, answer: Answer, asked: Asked) -> None:
        try:
            data = await answered(answer(self._monitor, asked))
            body = self._envelope.around(await in_slices(render(data)))
        except NotAsked:
            return
        except BadQuery as err:
            body = self._envelope.failure(500, str(err), with_data=True)
        except Exception as err:
            # The edge to strangers: a mistake of ours in one answer is a log line, not the daemon's end.
            self._monitor.server.log.error(f"{msg.subject}: {type(err).__name__}: {err}")
            body = self._envelope.failure(500, "internal error", with_data=True)
        self._send(msg, body)

    # ---- the server ----

    def _statsz(self, msg: Msg) -> None:
        if self._read(msg, ()) is not None:
            self._send(msg, self._events.statsz_answer())

    def _idz(self, msg: Msg) -> None:
        if self._read(msg, ()) is not None:
            facts = self._monitor.server.facts
            self._send(msg, to_json({"name": facts.server_name, "host": facts.host, "id": facts.server_id}))

    def _done(self, msg: Msg, error: str) -> None:
        if msg.reply:
            body = self._envelope.failure(500, error) if error else to_json({"server": self._envelope.server()})
            self._send(msg, body)

    def _reload(self, msg: Msg) -> None:
        self._done(msg, self._monitor.server.ask_reload())

    def _kick(self, msg: Msg) -> None:
        cid = self._cid(msg)
        if cid is not None:
            self._done(msg, "" if self._monitor.server.kick(cid) else "no such client or leafnode id")

    def _ldm(self, msg: Msg) -> None:
        cid = self._cid(msg)
        if cid is not None:
            self._done(msg, "" if self._monitor.server.send_away(cid) else "no such client id")

    def _cid(self, msg: Msg) -> int | None:
        try:
            asked, found = read_json(CID, msg.data)
        except BadQuery:
            return None
        return int(asked["cid"]) if "cid" in found else None

    # ---- accounts ----

    def _about_account(self, name: str, msg: Msg) -> None:
        account = msg.subject.split(".")[3]
        if name == "STATZ":
            if account != "PING" and account in accounts(self._monitor):
                self._limited(msg, name, account)
            return
        self._limited(msg, name, account)

    def _limited(self, msg: Msg, name: str, account: str) -> None:
        """The page `name` as far as it is about one account."""
        if name == "INFO":
            self._serve(Service((), lambda monitor, asked: account_detail(monitor, account)), msg)
        elif name == "JSZ":
            self._serve(Service(PAGES["jsz"].options, lambda monitor, asked: account_jsz(monitor, asked, account)), msg)
        elif name == "STATZ":
            self._serve(_fixed("accstatz", {"accounts": [account], "include_unused": True}), msg)
        elif name == "SUBSZ":
            self._serve(_fixed("subsz", {"account": account, "subscriptions": True}), msg)
        elif name == "LEAFZ":
            self._serve(_fixed("leafz", {"account": account}), msg)
        else:
            self._serve(_fixed("connz", {"acc": account}), msg)

    def _conns(self, msg: Msg) -> None:
        account = msg.subject.split(".")[3]
        known = accounts(self._monitor)
        if msg.reply and account in known:
            self._send(msg, self._events.conns_answer(account, known))

    def serve_account(self, account: str) -> None:
        """From now on the users of an account can ask about themselves, and about the account's connections."""
        if account in self._accounts:
            return
        self._accounts.add(account)
        for subject in ("$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.SERVER.PING.CONNZ"):
            self._on(subject, lambda msg: self._limited(msg, "CONNZ", msg.account), account=account)
        self._on("$SYS.REQ.ACCOUNT.PING.STATZ", lambda msg: self._limited(msg, "STATZ", msg.account), account=account)
        self._on("$SYS.REQ.USER.INFO", self._user_info, account=account, local=True)

    def _user_info(self, msg: Msg) -> None:
        """For clients of this server only: the question is about their own connection."""
        if not msg.reply or msg.origin_kind != FROM_CLIENT:
            return
        client = self._monitor.server.clients.get(msg.origin)
        if client is None:
            return
        data: Body = {
            "user": who_is(client, msg.account).user,
            "account": msg.account,
            "account_name": msg.account,
        }
        permissions = client.identity.permissions if client.identity is not None else None
        if permissions is not None and not permissions.unlimited:
            data["permissions"] = _shown(permissions)
        self._send(msg, self._envelope.answer(data))


def _shown(permissions: Permissions) -> Body:
    """A user's permissions as the configuration would say them."""
    body: Body = {}
    for name, subjects in (("publish", permissions.publish), ("subscribe", permissions.subscribe)):
        lists: Body = {}
        if subjects.allow is not None:
            lists["allow"] = list(subjects.allow)
        if subjects.deny:
            lists["deny"] = list(subjects.deny)
        if lists:
            body[name] = lists
    if permissions.responses is not None:
        responses = permissions.responses
        body["responses"] = {"max": responses.max, "ttl": int(responses.expires * SECOND)}
    return body


def _fixed(page: str, values: Asked) -> Service:
    """A page some of whose options are not the asker's to choose."""
    found = PAGES[page]
    return Service(found.options, lambda monitor, asked: found.answer(monitor, {**asked, **values}))
