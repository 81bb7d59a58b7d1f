"""The JetStream API: one table from subject to handler, with who answers.

Every JetStream server receives every request. The meta leader answers what concerns the set of streams, a stream's
leader what concerns that stream, all others stay silent. Subjects that are not in the table get no answer at all.
Source: jetstream-streams.md §1-§3, jetstream-consumers.md §1, clustering.md §5 (delay rules).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

import jscore
from jscore_server.jetstream.asset import Lost
from jscore_server.jetstream.consumer_api import ConsumerApi
from jscore_server.jetstream.errors import ApiError, problem
from jscore_server.jetstream.models import (
    API_LEVEL,
    ZERO_TIME,
    AccountStats,
    ApiStats,
    Paging,
    encode_response,
)
from jscore_server.jetstream.stream_api import StreamApi
from jscore_server.jetstream.stream_config import shown_limits
from jscore_server.raft import NotLeader

if TYPE_CHECKING:
    from jscore_server.dataplane import Msg, Subscription
    from jscore_server.jetstream.asset import Asset
    from jscore_server.jetstream.engine import JetStream
    from jscore_server.jetstream.gather import Gathered

DEFER_SECONDS = 0.5
DEFERRED_MAX = 1000
REQUIRED_LEVEL = b"nats-required-api-level:"

SUBJECTS = (
    "$JS.API.*",
    "$JS.API.STREAM.>",
    "$JS.API.CONSUMER.*",
    *(
        f"$JS.API.CONSUMER.{verb}.>"
        for verb in ("CREATE", "DURABLE", "INFO", "NAMES", "LIST", "DELETE", "PAUSE", "UNPIN", "LEADER")
    ),
    "$JS.API.META.>",
    "$JS.API.SERVER.>",
    "$JS.API.ACCOUNT.>",
)
"""What is subscribed. CONSUMER.MSG.NEXT is not: there a missing consumer has to be a missing responder."""


NO_PAGE = {"total": 0, "offset": 0, "limit": 0}
ALWAYS_THERE: dict[str, dict[str, Any]] = {
    "stream_info": NO_PAGE,
    "stream_names": {**NO_PAGE, "streams": None},
    "stream_list": {**NO_PAGE, "streams": []},
    "consumer_names": {**NO_PAGE, "consumers": []},
    "consumer_list": {**NO_PAGE, "consumers": []},
    "stream_purge": {"purged": 0},
    "stream_restore": {"deliver_subject": ""},
    "consumer_pause": {"paused": False, "pause_until": ZERO_TIME},
}
"""Fields that the peer's answers have in errors too."""

OF_CLUSTERS = frozenset({"stream_leader_stepdown", "stream_remove_peer", "consumer_leader_stepdown"})
"""What a server alone refuses before it looks at the account."""


def _refusal(type_name: str, error: ApiError) -> bytes:
    return encode_response(type_name, error=error, **ALWAYS_THERE.get(type_name, {}))


class By(enum.Enum):
    """Who answers."""

    META = "the meta leader"
    STREAM = "the leader of the stream named by the first argument"


class Caller(Protocol):
    """Who asked, whatever the account: a part of a request that may fail later."""

    account: str
    reply: str
    args: list[str]
    type_name: str

    def fail(self, error: ApiError) -> None: ...


class Request(msgspec.Struct):
    """One call. `args`: the tokens after the verb; `type_name`: of the response it gets, good or bad."""

    account: str
    reply: str
    body: bytes
    args: list[str]
    type_name: str
    _api: Api

    def answer(
        self, payload: dict[str, Any] | msgspec.Struct | None = None, *, paging: Paging | None = None, **extra: Any
    ) -> None:
        self._api.send(self.account, self.reply, encode_response(self.type_name, payload, paging=paging, **extra))

    def fail(self, error: ApiError) -> None:
        self._api.refuse(self.type_name, self.account, self.reply, error)


class Route(msgspec.Struct, frozen=True):
    """`args`: (least, most) tokens after the verb, most None for any number."""

    type_name: str
    by: By
    args: tuple[int, int | None]
    serve: Callable[..., None]
    linearizable: bool = False  # served only once this server is sure to lead the stream and has applied everything


class Api:
    """Receives the calls of every account on one server; those of accounts without JetStream are told so."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine
        self.streams = StreamApi(engine, self)
        self.consumers = ConsumerApi(engine, self)
        self._stats: dict[str, ApiStats] = {}
        self._deferred = 0
        self._for_meta: list[Callable[[], None]] = []  # what waits for a leader of the meta group
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._table = self._routes()

    def _routes(self) -> dict[tuple[str, ...], Route]:
        s, c = self.streams, self.consumers
        return {
            ("INFO",): Route("account_info", By.META, (0, 0), self._account_info),
            ("STREAM", "CREATE"): Route("stream_create", By.META, (1, 1), s.create),
            ("STREAM", "UPDATE"): Route("stream_update", By.META, (1, 1), s.update),
            ("STREAM", "DELETE"): Route("stream_delete", By.META, (1, 1), s.delete),
            ("STREAM", "NAMES"): Route("stream_names", By.META, (0, 0), s.list_names),
            ("STREAM", "LIST"): Route("stream_list", By.META, (0, 0), s.list_infos),
            ("STREAM", "INFO"): Route("stream_info", By.STREAM, (1, 1), s.info),
            ("STREAM", "PURGE"): Route("stream_purge", By.STREAM, (1, 1), s.purge),
            ("STREAM", "MSG", "GET"): Route("stream_msg_get", By.STREAM, (1, 1), s.msg_get, linearizable=True),
            ("STREAM", "MSG", "DELETE"): Route("stream_msg_delete", By.STREAM, (1, 1), s.msg_delete),
            ("STREAM", "LEADER", "STEPDOWN"): Route("stream_leader_stepdown", By.STREAM, (1, 1), s.step_down),
            ("STREAM", "PEER", "REMOVE"): Route("stream_remove_peer", By.META, (1, 1), s.peer_remove),
            ("STREAM", "SNAPSHOT"): Route("stream_snapshot", By.STREAM, (1, 1), s.snapshot),
            ("STREAM", "RESTORE"): Route("stream_restore", By.META, (1, 1), s.restore),
            ("CONSUMER", "CREATE"): Route("consumer_create", By.STREAM, (1, None), c.create),
            ("CONSUMER", "DURABLE", "CREATE"): Route("consumer_create", By.STREAM, (2, 2), c.create_durable),
            ("CONSUMER", "INFO"): Route("consumer_info", By.STREAM, (2, 2), c.info),
            ("CONSUMER", "DELETE"): Route("consumer_delete", By.STREAM, (2, 2), c.delete),
            ("CONSUMER", "NAMES"): Route("consumer_names", By.STREAM, (1, 1), c.list_names),
            ("CONSUMER", "LIST"): Route("consumer_list", By.STREAM, (1, 1), c.list_infos),
            ("CONSUMER", "PAUSE"): Route("consumer_pause", By.STREAM, (2, 2), c.pause),
            ("CONSUMER", "UNPIN"): Route("consumer_unpin", By.STREAM, (2, 2), c.unpin),
            ("CONSUMER", "LEADER", "STEPDOWN"): Route("consumer_leader_stepdown", By.STREAM, (2, 2), c.step_down),
        }

    def start(self) -> None:
        """Listens in the accounts the engine knows; again when they have changed."""
        plane = self._engine.plane
        accounts = self._engine.accounts
        self._unsubscribe(self._subscriptions.keys() - accounts.keys())
        for account in [name for name in self._stats if self._engine.limits(name) is None]:
            del self._stats[account]
        for account in accounts.keys() - self._subscriptions.keys():
            self._subscriptions[account] = [plane.subscribe(account, subject, self.receive) for subject in SUBJECTS]

    def stop(self) -> None:
        self._unsubscribe(set(self._subscriptions))

    def _unsubscribe(self, accounts: Set[str]) -> None:
        for account in accounts:
            for subscription in self._subscriptions.pop(account):
                subscription.close()

    # ---- how often ----

    def stats(self, account: str) -> ApiStats:
        """Calls of one account."""
        return self._stats.setdefault(account, ApiStats())

    @property
    def total(self) -> int:
        return sum(stats.total for stats in self._stats.values())

    @property
    def errors(self) -> int:
        return sum(stats.errors for stats in self._stats.values())

    # ---- dispatch ----

    def receive(self, msg: Msg) -> None:
        """Serves one request; never raises."""
        tokens = msg.subject.split(".")[2:]
        route, args = self._find(tokens)
        if route is None:
            return
        request = Request(msg.account, msg.reply, msg.data, args, route.type_name, self)
        if self._engine.limits(msg.account) is None:
            if self._engine.is_meta_leader:
                alone = not self._engine.clustered and route.type_name in OF_CLUSTERS
                error = problem(10010 if alone else 10039)
                if msg.reply:  # no call of JetStream: not counted
                    self._engine.plane.publish(msg.account, msg.reply, _refusal(route.type_name, error))
            return
        level = _required_level(msg.headers)
        if level is not None and not 0 <= level <= API_LEVEL:
            if self._engine.is_meta_leader:
                request.fail(problem(10185))
            return
        if route.by is By.META:
            self._at_meta(request, route)
        else:
            self._at_stream(request, route)

    def _find(self, tokens: list[str]) -> tuple[Route | None, list[str]]:
        for depth in (1, 2, 3):
            route = self._table.get(tuple(tokens[:depth]))
            if route is not None and len(tokens) >= depth:
                args = tokens[depth:]
                least, most = route.args
                if len(args) >= least and (most is None or len(args) <= most):
                    return route, args
        return None, []

    def run(self, request: Caller, call: Callable[[], None]) -> None:
        """Calls a part of a handler; whatever it raises becomes the answer."""
        try:
            call()
        except ApiError as err:
            request.fail(err)
        except (Lost, NotLeader):
            request.fail(problem(10008))
        except jscore.Full as err:
            self._engine.lines.error(f"{request.type_name}: {err}")
            request.fail(problem(10047))
        except (jscore.Error, OSError) as err:
            self._engine.lines.error(f"{request.type_name}: {err}")
            request.fail(problem(10051, err=err))
        except Exception as err:
            # The edge to clients: a mistake of ours in one handler is an answer and a log line, not the daemon's end.
            self._engine.lines.error(f"{request.type_name} {'.'.join(request.args)}: {type(err).__name__}: {err}")
            request.fail(problem(10051, err="internal error"))

    def _at_meta(self, request: Request, route: Route, *, last_try: bool = False) -> None:
        engine = self._engine
        if engine.is_meta_leader:
            self.run(request, lambda: route.serve(request))
        elif engine.meta_leader is None:
            self._no_meta(request, last_try, lambda: self._at_meta(request, route, last_try=True), wakes=True)

    def _no_meta(self, request: Request, last_try: bool, again: Callable[[], None], *, wakes: bool = False) -> None:
        """10008: at once when no quorum can be there, else after a moment in which a leader may turn up."""
        engine = self._engine
        if engine.meta is None and any(hello.get("elected") for hello in engine.online.values()):
            return  # this server only waits to be added: the group is there and answers for itself
        if (engine.silent and engine.online) or engine.foreign:
            return  # only this server has lost touch with the group, the others know how it stands
        if last_try or not engine.meta_quorum_possible():
            request.fail(problem(10008))
        else:
            self.defer(request, again, wakes=wakes)

    def meta_led(self) -> None:
        """This server leads the meta group from now on: what waited only for that is served."""
        waiting, self._for_meta = self._for_meta, []
        for call in waiting:
            self._engine.after(0, call)

    def waiting(self) -> int:
        """Requests that wait for a leader, or for their stream to be there."""
        return self._deferred

    def defer(self, request: Request, again: Callable[[], None], *, wakes: bool = False) -> None:
        """Calls `again` in a moment; refuses the request when too many wait already."""
        if self._deferred >= DEFERRED_MAX:
            request.fail(problem(10008))
            return
        self._deferred += 1
        called = False

        def call() -> None:
            nonlocal called
            if called:
                return
            called = True
            self._deferred -= 1
            if wakes and call in self._for_meta:
                self._for_meta.remove(call)
            again()

        if wakes:
            self._for_meta.append(call)
        self._engine.after(DEFER_SECONDS, call)

    def _at_stream(self, request: Request, route: Route, *, last_try: bool = False) -> None:
        engine = self._engine
        asset = engine.asset(request.account, request.args[0])
        again = lambda: self._at_stream(request, route, last_try=True)  # noqa: E731
        if asset is not None and asset.ready:
            if route.linearizable:
                self.run(request, lambda: asset.read(lambda lost: self._read(request, route, asset, lost, again)))
            else:
                self.run(request, lambda: route.serve(request, asset))
            return
        assignment = engine.state.get(request.account, request.args[0])
        leader = asset.leader if asset is not None else None
        if assignment is None:
            if engine.is_meta_leader:
                request.fail(problem(10059))
            elif engine.meta_leader is None:
                self._no_meta(request, last_try, again)
        elif asset is not None and asset.failed and assignment.replicas == 1:
            request.fail(problem(10194, err=asset.failed))
        elif asset is not None and asset.failed and any(engine.is_online(p) for p in asset.others()):
            return  # they have what is damaged here
        elif leader not in (None, engine.server_name) or (asset is None and not engine.is_meta_leader):
            return  # somebody else's to answer
        else:
            alive = sum(engine.is_online(peer) for peer in assignment.peers)
            if alive < assignment.quorum and assignment.replicas > 1:
                request.fail(problem(10008))
            elif alive < assignment.quorum or asset is not None:
                if last_try:
                    request.fail(problem(10118 if alive < assignment.quorum else 10008))
                else:
                    self.defer(request, again)

    def _read(self, request: Request, route: Route, asset: Asset, lost: Lost | None, again: Callable[[], None]) -> None:
        if lost is None and asset.ready:
            self.run(request, lambda: route.serve(request, asset))
        else:
            self._engine.after(0, again)  # whoever leads now has heard the request as well, if it led then

    # ---- sending ----

    def send(self, account: str, reply: str, body: bytes) -> None:
        self.stats(account).total += 1
        if reply:
            self._engine.plane.publish(account, reply, body)

    def respond(self, type_name: str, account: str, reply: str, payload: Any = None, **extra: Any) -> None:
        """Answers a request that was kept elsewhere (in a meta entry)."""
        self.send(account, reply, encode_response(type_name, payload, **extra))

    def refuse(self, type_name: str, account: str, reply: str, error: ApiError) -> None:
        self.stats(account).errors += 1
        self.send(account, reply, _refusal(type_name, error))

    # ---- the account ----

    def _account_info(self, request: Request) -> None:
        engine = self._engine
        assignments = engine.state.streams(request.account)
        limits = engine.limits(request.account)
        assert limits is not None
        stats = AccountStats(
            streams=len(assignments),
            limits=shown_limits(limits),
            domain=engine.options.domain,
            api=msgspec.structs.replace(self.stats(request.account)),
        )
        for assignment in assignments:
            reserved = max(0, int(assignment.config.get("max_bytes", 0))) * assignment.replicas
            if assignment.config.get("storage") == "memory":
                stats.reserved_memory += reserved
            else:
                stats.reserved_storage += reserved

        def finish(found: Gathered) -> None:
            stats.memory = found.usage.memory
            stats.storage = found.usage.storage
            stats.consumers = found.usage.consumers
            request.answer(stats)

        if not engine.gather.ask(request.account, (), finish, usage=True):
            raise problem(10008)


def _required_level(headers: bytes) -> int | None:
    """The value of `Nats-Required-Api-Level`, -1 when it is no number, None when it is not there."""
    if not headers or REQUIRED_LEVEL[:4] not in headers.lower():
        return None
    for line in headers.split(b"\r\n"):
        if line.lower().startswith(REQUIRED_LEVEL):
            text = line[len(REQUIRED_LEVEL) :].strip()
            return int(text) if text.isdigit() and len(text) < 10 else -1
    return None
