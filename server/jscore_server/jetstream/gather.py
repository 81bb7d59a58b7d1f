"""Asking the other servers for what only they know, over subjects of the system account that no client may use.

Four subjects per server, named by its peer id: `$JSC.GATHER.<id>` (a question), `$JSC.R.<id>.<n>` (its answers),
`$JSC.DONE.<id>` (a stream's leader has answered a delete), `$JSC.DROP.<id>` (an assigned replica could not be opened).
An answer of many streams comes in several messages; the last one says so. Source: clustering.md §5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from jscore_server.jetstream.between import SYSTEM_ACCOUNT, understood

if TYPE_CHECKING:
    from jscore_server.dataplane import Msg, Subscription
    from jscore_server.jetstream.asset import Asset
    from jscore_server.jetstream.engine import JetStream

GATHER_SECONDS = 4.0
SLICE = 32
OPEN_MAX = 1000
"""Questions and delayed answers open at one time."""


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """Streams of `account` led by the server asked: those in `names`; and its share of the usage when asked for."""

    account: str
    names: list[str] = []
    usage: bool = False


class Usage(msgspec.Struct, omit_defaults=True):
    """Bytes held by all replicas of a server, and the consumers of the streams it leads."""

    memory: int = 0
    storage: int = 0
    consumers: int = 0
    led_memory: int = 0  # of the streams led by a server, with all their replicas; sums leave the asking server out
    led_storage: int = 0


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    server: str
    streams: dict[str, msgspec.Raw] = {}
    usage: Usage | None = None
    last: bool = False


class Done(msgspec.Struct, frozen=True):
    group: str


class Drop(msgspec.Struct, frozen=True):
    account: str
    name: str
    group: str


class Gathered(msgspec.Struct):
    """What came in: stream infos as JSON by name, the sum of the usage, and who did not answer in time."""

    streams: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    usage: Usage = msgspec.field(default_factory=Usage)
    silent: set[str] = msgspec.field(default_factory=set)


class _Open(msgspec.Struct):
    names: set[str]
    usage: bool
    result: Gathered
    finish: Callable[[Gathered], None]


class Gather:
    """Both sides of the exchange for one server."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine
        self._open: dict[int, _Open] = {}
        self._delayed: dict[str, Callable[[], None]] = {}
        self._next = 0
        self._subscriptions: list[Subscription] = []

    def start(self) -> None:
        me = self._engine.peer_id(self._engine.server_name)
        subscribe = self._engine.plane.subscribe
        self._subscriptions = [
            subscribe(SYSTEM_ACCOUNT, f"$JSC.GATHER.{me}", self._asked),
            subscribe(SYSTEM_ACCOUNT, f"$JSC.R.{me}.*", self._answered),
            subscribe(SYSTEM_ACCOUNT, f"$JSC.DONE.{me}", self._done),
            subscribe(SYSTEM_ACCOUNT, f"$JSC.DROP.{me}", self._drop),
        ]

    def stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = []
        self._open.clear()
        self._delayed.clear()

    # ---- asking ----

    def ask(
        self,
        account: str,
        names: Iterable[str],
        finish: Callable[[Gathered], None],
        *,
        usage: bool = False,
        seconds: float = GATHER_SECONDS,
    ) -> bool:
        """Collects infos of the named streams from their leaders, and the usage of all servers when asked for.

        `finish` is called once, perhaps before this returns: when everything is there, nobody is left to wait for,
        or time is up.
        Returns False, and does nothing, when too much is open already.
        """
        if len(self._open) >= OPEN_MAX:
            return False
        engine = self._engine
        wanted = set(names)
        self._next += 1
        number = self._next
        state = _Open(wanted, usage, Gathered(), finish)
        self._open[number] = state
        targets = self._holders(account, wanted) if not usage else set(engine.online)
        targets = {t for t in targets if t in engine.online and engine.online[t].get("jetstream", True)}
        state.result.silent = set(targets) | {engine.server_name}
        question = Question(account, sorted(wanted), usage)
        reply = f"$JSC.R.{engine.peer_id(engine.server_name)}.{number}"
        body = msgspec.json.encode(question)
        for target in targets:
            engine.plane.publish(SYSTEM_ACCOUNT, f"$JSC.GATHER.{engine.peer_id(target)}", body, reply=reply)
        engine.after(seconds, lambda: self._finish(number))
        self._work(question, lambda answer: self._take(number, answer))
        return True

    def _holders(self, account: str, names: Iterable[str]) -> set[str]:
        holders: set[str] = set()
        for name in names:
            assignment = self._engine.state.get(account, name)
            if assignment is not None:
                holders.update(assignment.peers)
        holders.discard(self._engine.server_name)
        return holders

    def _answered(self, msg: Msg) -> None:
        try:
            number = int(msg.subject.rpartition(".")[2])
            answer = msgspec.json.decode(msg.data, type=Answer)
        except (ValueError, msgspec.MsgspecError) as err:
            self._engine.lines.warn(f"answer between servers not understood: {err}")
            return
        self._take(number, answer)

    def _take(self, number: int, answer: Answer) -> None:
        state = self._open.get(number)
        if state is None:
            return
        result = state.result
        result.streams.update(answer.streams)
        if answer.usage is not None:
            result.usage.memory += answer.usage.memory
            result.usage.storage += answer.usage.storage
            result.usage.consumers += answer.usage.consumers
            if answer.server != self._engine.server_name:
                result.usage.led_memory += answer.usage.led_memory
                result.usage.led_storage += answer.usage.led_storage
        if answer.last:
            result.silent.discard(answer.server)
        complete = not state.usage and state.names <= result.streams.keys()
        if complete or not result.silent:
            self._finish(number)

    def _finish(self, number: int) -> None:
        state = self._open.pop(number, None)
        if state is not None:
            state.finish(state.result)

    def peer_left(self, name: str) -> None:
        """Nobody waits for a server that is gone."""
        for number, state in list(self._open.items()):
            state.result.silent.discard(name)
            if not state.result.silent:
                self._finish(number)

    # ---- answering ----

    def _asked(self, msg: Msg) -> None:
        if not msg.reply:
            return
        question = understood(self._engine, "question", msg.data, Question)
        if question is None:
            return
        reply = msg.reply

        def send(answer: Answer) -> None:
            self._engine.plane.publish(SYSTEM_ACCOUNT, reply, msgspec.json.encode(answer))

        self._work(question, send)

    def _work(self, question: Question, give: Callable[[Answer], None]) -> None:
        """Answers in slices, one per turn of the loop, so that a long list holds nobody up."""
        engine = self._engine
        local = [engine.assets.get((question.account, name)) for name in question.names]
        mine = [asset for asset in local if asset is not None and asset.ready]
        held: list[Asset] = []
        if question.usage:
            held = [asset for (account, _), asset in engine.assets.items() if account == question.account]
        usage = None
        if question.usage:
            memory, storage = engine.plane.used(question.account)
            usage = Usage(led_memory=memory, led_storage=storage)

        def turn() -> None:
            infos: dict[str, msgspec.Raw] = {}
            for _ in range(min(SLICE, len(mine))):
                asset = mine.pop()
                if asset.ready:
                    infos[asset.assignment.name] = msgspec.Raw(engine.api.streams.listed(asset))
            for _ in range(min(SLICE, len(held))):
                if usage is not None:
                    _count(held.pop(), usage)
            more = bool(mine or held)
            if more:
                engine.after(0, turn)
            give(Answer(engine.server_name, infos, None if more else usage, not more))

        turn()

    # ---- notes ----

    def tell_done(self, server: str, group: str) -> None:
        """Tells the meta leader that the stream's leader has answered the client."""
        subject = f"$JSC.DONE.{self._engine.peer_id(server)}"
        self._engine.plane.publish(SYSTEM_ACCOUNT, subject, msgspec.json.encode(Done(group)))

    def unless_done(self, group: str, seconds: float, call: Callable[[], None]) -> None:
        """Calls after `seconds` unless `tell_done` for that group arrived; at once when too many wait."""
        if len(self._delayed) >= OPEN_MAX:
            call()
            return
        self._delayed[group] = call
        self._engine.after(seconds, lambda: self._delayed.pop(group, _nothing)())

    def ask_drop(self, server: str, account: str, name: str, group: str) -> None:
        """Tells the meta leader that the only replica of a new stream could not be opened."""
        if server == self._engine.server_name:
            self._engine.drop_assignment(account, name, group)
            return
        subject = f"$JSC.DROP.{self._engine.peer_id(server)}"
        self._engine.plane.publish(SYSTEM_ACCOUNT, subject, msgspec.json.encode(Drop(account, name, group)))

    def _done(self, msg: Msg) -> None:
        note = understood(self._engine, "note", msg.data, Done)
        if note is None:
            return
        self._delayed.pop(note.group, None)

    def _drop(self, msg: Msg) -> None:
        note = understood(self._engine, "note", msg.data, Drop)
        if note is None:
            return
        self._engine.drop_assignment(note.account, note.name, note.group)


def _nothing() -> None:
    return None


def _count(asset: Asset, usage: Usage) -> None:
    if asset.failed or asset.config is None:
        return
    size = asset.stream.state().bytes
    if asset.config.storage == "memory":
        usage.memory += size
    else:
        usage.storage += size
    if asset.leading:
        usage.consumers += len(asset.consumers)
