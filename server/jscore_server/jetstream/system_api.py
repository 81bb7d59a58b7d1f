"""The calls of the system account: servers leave, streams move, the meta group gets another leader.

The meta leader answers, all others stay silent; what is for accounts with JetStream is refused. Source: clustering.md
§5, §6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from jscore_server.jetstream import placement
from jscore_server.jetstream.between import SYSTEM_ACCOUNT
from jscore_server.jetstream.decode import decode_json, must_not_be_empty, optional_body
from jscore_server.jetstream.errors import ApiError, problem
from jscore_server.jetstream.meta import Assignment, DeleteStream, RemoveServer
from jscore_server.jetstream.models import (
    MoveRequest,
    ServerRemoveRequest,
    StepDownRequest,
    encode_response,
    format_time,
)
from jscore_server.raft import ChangeRefused, NotLeader

if TYPE_CHECKING:
    from jscore_server.dataplane import Msg, Subscription
    from jscore_server.jetstream.asset import Asset
    from jscore_server.jetstream.engine import JetStream

PREFIX = "$JS.API."
ANSWER_S = 10.0
LOOK_AGAIN_S = 0.05
PURGE_SLICE = 256  # streams whose end is proposed at once


class SystemRequest(msgspec.Struct):
    """One call; as `api.Request`, answered in the system account."""

    account: str
    reply: str
    body: bytes
    args: list[str]
    type_name: str
    _engine: JetStream

    def answer(self, **fields: Any) -> None:
        self._send(encode_response(self.type_name, **fields))

    def fail(self, error: ApiError) -> None:
        self._send(encode_response(self.type_name, error=error))

    def _send(self, body: bytes) -> None:
        if self.reply:
            self._engine.plane.publish(self._engine.options.system_account, self.reply, body)


class SystemApi:
    """Receives the calls on one server."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine
        self._subscriptions: list[Subscription] = []
        self._served: tuple[str, ...] = ()
        self._told_removed = False

    def start(self) -> None:
        calls: list[tuple[str, str, Callable[[SystemRequest], None]]] = [
            ("META.LEADER.STEPDOWN", "meta_leader_stepdown", self.step_down),
            ("SERVER.REMOVE", "meta_server_remove", self.remove_server),
            ("ACCOUNT.STREAM.MOVE.*.*", "stream_update", self.move),
            ("ACCOUNT.STREAM.CANCEL_MOVE.*.*", "stream_update", self.cancel_move),
            ("ACCOUNT.PURGE.*", "account_purge", self.purge_account),
        ]
        self._served = tuple(subject.split(".*")[0] for subject, _, _ in calls)
        everything = self._engine.plane.subscribe(self._engine.options.system_account, f"{PREFIX}>", self._refuse)
        self._subscriptions = [*(self._serve(*call) for call in calls), everything]

    def stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = []

    def _serve(self, subject: str, type_name: str, call: Callable[[SystemRequest], None]) -> Subscription:
        engine = self._engine

        def receive(msg: Msg) -> None:
            args = msg.subject.split(".")[2 + subject.count(".") + 1 - subject.count("*") :]
            request = SystemRequest(SYSTEM_ACCOUNT, msg.reply, msg.data, args, type_name, engine)
            if engine.is_meta_leader:
                engine.api.run(request, lambda: call(request))

        return engine.plane.subscribe(engine.options.system_account, f"{PREFIX}{subject}", receive)

    def _refuse(self, msg: Msg) -> None:
        """Every other call: this account has no JetStream.

        A nats-server without JetStream hands its clients' calls to this account too, with a header that names theirs;
        they come in that account as well and are answered there.
        """
        call = msg.subject.removeprefix(PREFIX)
        if not msg.reply or b"Nats-Request-Info:" in msg.headers:
            return
        if self._engine.is_meta_leader and not call.startswith(self._served):
            answer = encode_response("account_info" if call == "INFO" else "system", error=problem(10039))
            self._engine.plane.publish(msg.account, msg.reply, answer)

    # ---- the meta group ----

    def step_down(self, request: SystemRequest) -> None:
        engine = self._engine
        body = optional_body(request.body, StepDownRequest, strict=engine.options.strict)
        meta = engine.meta
        assert meta is not None
        wanted = body.placement
        preferred = wanted.preferred if wanted else ""
        members = {s.name: s for s in engine.servers()}
        if preferred and preferred not in members:
            raise problem(10005, err=f'preferred server "{preferred}" not known')
        if preferred == engine.server_name:
            raise problem(10005, err=f'preferred server "{preferred}" is already leader')
        fit = placement.fitting(
            list(members.values()), cluster=wanted.cluster if wanted else "", tags=wanted.tags if wanted else []
        )
        ready = [r.name for r in sorted(meta.replicas(), key=lambda r: (r.lag, r.name)) if engine.is_online(r.name)]
        able = [name for name in ready if name in fit and preferred in ("", name)]
        if not able:
            raise problem(10005, err="no replacement peer connected")
        try:
            meta.transfer(able[0])
        except ChangeRefused as err:
            raise problem(10005, err=str(err)) from err
        request.answer(success=True)

    def remove_server(self, request: SystemRequest) -> None:
        engine = self._engine
        must_not_be_empty(request.body)
        body = decode_json(request.body, ServerRemoveRequest, strict=engine.options.strict)
        if not body.peer and not body.peer_id:
            raise problem(10003)
        members = engine.meta_members()
        found = [n for n in members if (body.peer in ("", n)) and body.peer_id in ("", engine.peer_id(n))]
        if len(found) != 1:
            raise problem(10044)
        if engine.leaving_members() or engine.removal_proposed:
            raise problem(10202)
        engine.remove_server(RemoveServer(found[0], engine.directory_id(found[0]), request.reply))

    def removed(self, server: str, reply: str, tries: int = int(ANSWER_S / LOOK_AGAIN_S)) -> None:
        """As meta leader, now or later, answers who asked as soon as the group is complete without the server."""
        engine = self._engine
        if engine.is_meta_leader and server not in engine.meta_members(committed=True):
            if reply:
                body = encode_response("meta_server_remove", success=True)
                engine.plane.publish(engine.options.system_account, reply, body)
        elif tries and reply:  # it may come to lead, the former leader being the one that went
            engine.after(LOOK_AGAIN_S, lambda: self.removed(server, reply, tries - 1))

    def tell_removed(self) -> None:
        """This server was removed: says so once."""
        if self._told_removed:
            return
        self._told_removed = True
        info = self._engine.options.server_info()
        advisory = {
            "type": "io.nats.jetstream.advisory.v1.server_removed",
            "id": f"{self._engine.rng.getrandbits(128):032x}",
            "timestamp": format_time(self._engine.clock()),
            "server": info.get("name", self._engine.server_name),
            "server_id": info.get("id", ""),
            "cluster": self._engine.cluster_name or "",
        }
        subject, body = "$JS.EVENT.ADVISORY.SERVER.REMOVED", msgspec.json.encode(advisory)
        self._engine.plane.publish(self._engine.options.system_account, subject, body)

    # ---- streams ----

    def purge_account(self, request: SystemRequest) -> None:
        """Deletes all streams of an account, which need not be configured any more. The answer comes before that."""
        (account,) = request.args
        streams = self._engine.state.streams(account)
        has = "true" if account in self._engine.accounts else "false"
        self._engine.lines.info(f"Purge request for account {account} (streams: {len(streams)}, hasAccount: {has})")
        request.answer(initiated=True)
        self._delete_some(streams)

    def _delete_some(self, streams: list[Assignment]) -> None:
        engine = self._engine
        if not engine.is_meta_leader:  # the new one can be asked again
            return
        for gone in streams[:PURGE_SLICE]:
            engine.propose_meta(DeleteStream(gone.account, gone.name, gone.group))
        if streams[PURGE_SLICE:]:
            engine.after(LOOK_AGAIN_S, lambda: self._delete_some(streams[PURGE_SLICE:]))

    def _stream(self, request: SystemRequest) -> Assignment:
        account, name = request.args
        present = self._engine.state.get(account, name)
        if present is None:
            raise problem(10059)
        if self._engine.is_changing(account, name):
            raise NotLeader
        return present

    def answer_changed(self, asset: Asset, reply: str) -> None:
        """The stream's leader has applied what was asked for here."""
        info = self._engine.api.streams.info_of(asset)
        self._engine.plane.publish(self._engine.options.system_account, reply, encode_response("stream_update", info))

    def move(self, request: SystemRequest) -> None:
        present = self._stream(request)
        must_not_be_empty(request.body)
        body = decode_json(request.body, MoveRequest, strict=self._engine.options.strict)
        self._engine.rearrange.move(request, present, body)

    def cancel_move(self, request: SystemRequest) -> None:
        self._engine.rearrange.cancel_move(request, self._stream(request))
