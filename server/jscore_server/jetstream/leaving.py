"""Replicas that this server holds though their streams were assigned to others: each goes once it is proven that its
group is complete without it.

What is assigned is an intent; who belongs to a group is what its log says. So a replica goes on as a member until the
group's leader states a committed configuration without it. One subject per server, `$JSC.MEMBER.<id>` of the system
account, takes the question; the stream's leader answers it. Source: spec/raft.md R-27, clustering.md §6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jscore_server.jetstream.between import SYSTEM_ACCOUNT, understood

if TYPE_CHECKING:
    from jscore_server.dataplane import Msg, Subscription
    from jscore_server.jetstream.asset import Asset
    from jscore_server.jetstream.engine import JetStream

FIRST_S = 0.1
AGAIN_S = 1.0


class Question(msgspec.Struct, frozen=True):
    """Who belongs to the group of this stream?"""

    account: str
    name: str
    group: str


class Answer(msgspec.Struct, frozen=True):
    """Its members, learners too, by a configuration that is committed, and that one's index."""

    account: str
    name: str
    group: str
    members: list[str]
    index: int


class Leaving:
    """Both sides of the question for one server."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine
        self._groups: set[str] = set()
        self._subscriptions: list[Subscription] = []

    def start(self) -> None:
        me = self._engine.peer_id(self._engine.server_name)
        subscribe = self._engine.plane.subscribe
        self._subscriptions = [
            subscribe(SYSTEM_ACCOUNT, f"$JSC.MEMBER.{me}", self._asked),
            subscribe(SYSTEM_ACCOUNT, f"$JSC.MEMBERS.{me}", self._answered),
        ]

    def stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = []

    def watch(self, asset: Asset) -> None:
        """To be called whenever a replica may not be assigned to this server any more."""
        group = asset.assignment.group
        if self._engine.server_name not in asset.assignment.peers and group not in self._groups:
            self._groups.add(group)
            self._engine.after(FIRST_S, lambda: self._ask(asset.assignment.account, asset.assignment.name, group))

    def _ask(self, account: str, name: str, group: str) -> None:
        engine = self._engine
        asset = engine.asset(account, name)
        if asset is None or asset.assignment.group != group or engine.server_name in asset.assignment.peers:
            self._groups.discard(group)
            return
        reply = f"$JSC.MEMBERS.{engine.peer_id(engine.server_name)}"
        body = msgspec.json.encode(Question(account, name, group))
        for peer in asset.assignment.peers:
            engine.plane.publish(SYSTEM_ACCOUNT, f"$JSC.MEMBER.{engine.peer_id(peer)}", body, reply=reply)
        engine.after(AGAIN_S, lambda: self._ask(account, name, group))

    def _asked(self, msg: Msg) -> None:
        question = understood(self._engine, "question", msg.data, Question)
        if question is None:
            return
        asset = self._engine.asset(question.account, question.name)
        if asset is None or asset.assignment.group != question.group or not msg.reply or asset.group is None:
            return
        members, index = asset.group.committed_members()
        if members:
            answer = Answer(question.account, question.name, question.group, members, index)
            self._engine.plane.publish(SYSTEM_ACCOUNT, msg.reply, msgspec.json.encode(answer))

    def _answered(self, msg: Msg) -> None:
        answer = understood(self._engine, "answer", msg.data, Answer)
        if answer is None:
            return
        engine = self._engine
        asset = engine.asset(answer.account, answer.name)
        if asset is None or asset.assignment.group != answer.group or not answer.members:
            return
        if asset.group is not None and asset.group.members_index > answer.index:
            return  # an old answer: the group may have let this replica in again since
        if engine.server_name not in asset.assignment.peers and engine.server_name not in answer.members:
            self._groups.discard(answer.group)
            engine.release(asset)
