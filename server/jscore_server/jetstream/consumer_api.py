"""The CONSUMER calls of the API, answered by the leader of the stream: a consumer lives in its stream's log.

Source: jetstream-consumers.md §1, §2, §5, §6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jscore_server.jetstream import names
from jscore_server.jetstream.asset import Asset, ConsumerCreateRecord, ConsumerReplica, Lost
from jscore_server.jetstream.consumer_config import (
    check_consumer_config,
    check_consumer_request,
    check_consumer_update,
    check_workqueue,
    same_consumer_config,
    shown_consumer_config,
    to_options,
)
from jscore_server.jetstream.decode import decode_json, must_be_empty, optional_body
from jscore_server.jetstream.errors import problem
from jscore_server.jetstream.models import (
    LIST_PAGE,
    NAMES_PAGE,
    ConsumerConfig,
    ConsumerInfo,
    CreateConsumerRequest,
    PageRequest,
    PauseRequest,
    SequenceInfo,
    StepDownRequest,
    format_time,
    page,
    parse_time,
)

if TYPE_CHECKING:
    from jscore_server.jetstream.api import Api, Request
    from jscore_server.jetstream.engine import JetStream


class ConsumerApi:
    """Handlers of one server; each is called with the request and the stream led here."""

    def __init__(self, engine: JetStream, api: Api) -> None:
        self._engine = engine
        self._api = api

    # ---- create ----

    def create(self, request: Request, asset: Asset) -> None:
        """`CREATE.S`, `CREATE.S.C` and `CREATE.S.C.<filter>`."""
        name, *rest = request.args[1:] or [""]
        self._create(request, asset, name, ".".join(rest), durable=False)

    def create_durable(self, request: Request, asset: Asset) -> None:
        """`DURABLE.CREATE.S.C`."""
        self._create(request, asset, request.args[1], "", durable=True)

    def _create(self, request: Request, asset: Asset, name: str, filter_subject: str, *, durable: bool) -> None:
        engine = self._engine
        assert asset.config is not None
        body = decode_json(request.body, CreateConsumerRequest, strict=engine.options.strict)
        until = body.config.pause_until
        if until is not None and parse_time(until) <= engine.clock():
            body.config.pause_until = None  # a pause that is over; clients send the zero time for none
        config = check_consumer_config(
            check_consumer_request(
                body, stream=request.args[0], name=name, filter_subject=filter_subject, durable=durable
            ),
            asset.config,
            pedantic=body.pedantic,
            clustered=engine.clustered,
            limits=engine.account_limits(request.account),
        )
        config.name = config.name or self._fresh_name(asset)

        def again(lost: Lost | None) -> None:
            """Another creation of the same name came first: now it is there, and this one is judged against it."""
            if lost is not None or not asset.ready:
                request.fail(problem(10008))
            else:
                self._api.run(request, lambda: self._create(request, asset, name, filter_subject, durable=durable))

        if asset.after_create(config.name, again):
            return
        present = asset.consumers.get(config.name)
        if present is not None:
            self._update(request, asset, present, config, body.action)
            return
        if body.action == "update":
            raise problem(10149)
        of_account = engine.account_limits(request.account).max_consumers
        limits = [n for n in (asset.config.max_consumers, of_account) if n > 0]
        if limits and asset.consumer_count() >= min(limits):
            raise problem(10026)
        check_workqueue(config, asset.config, asset.consumer_configs())
        record = ConsumerCreateRecord(config.name, engine.clock(), msgspec.to_builtins(config))
        asset.create_consumer(record, lambda lost: self._created(request, asset, config.name, lost))

    def _fresh_name(self, asset: Asset) -> str:
        while True:
            name = names.random_name(self._engine.rng)
            if name not in asset.consumers:
                return name

    def _update(
        self, request: Request, asset: Asset, present: ConsumerReplica, wanted: ConsumerConfig, action: str
    ) -> None:
        """The consumer is there: the same configuration is success, another is an update of what can be updated.

        Delivery state lives in C and cannot take new options over, so what changes C's part is refused.
        """
        if same_consumer_config(present.config, wanted):
            request.answer(self.info_of(asset, present))
            return
        if action == "create":
            raise problem(10148)
        wanted = check_consumer_update(present.config, wanted)
        if to_options(present.config) != to_options(wanted):
            raise problem(10012, err="changing the delivery options of a consumer is not supported yet")
        record = ConsumerCreateRecord(present.name, present.created_ns, msgspec.to_builtins(wanted))
        asset.create_consumer(record, lambda lost: self._created(request, asset, present.name, lost))

    def _created(self, request: Request, asset: Asset, name: str, lost: Lost | None) -> None:
        replica = asset.consumers.get(name)
        if lost is not None or replica is None:
            request.fail(problem(10008))
        else:
            request.answer(self.info_of(asset, replica))

    # ---- the others ----

    def info(self, request: Request, asset: Asset) -> None:
        must_be_empty(request.body)
        request.answer(self.info_of(asset, self._find(request, asset)))

    def delete(self, request: Request, asset: Asset) -> None:
        must_be_empty(request.body)
        replica = self._find(request, asset)

        def done(lost: Lost | None) -> None:
            if lost is None:
                request.answer(success=True)
            else:
                request.fail(problem(10008))

        asset.delete_consumer(replica, done)

    def list_names(self, request: Request, asset: Asset) -> None:
        body = optional_body(request.body, PageRequest, strict=self._engine.options.strict)
        part, paging = page(self._visible(asset), body.offset, NAMES_PAGE)
        request.answer(paging=paging, consumers=part)

    def list_infos(self, request: Request, asset: Asset) -> None:
        body = optional_body(request.body, PageRequest, strict=self._engine.options.strict)
        part, paging = page(self._visible(asset), body.offset, LIST_PAGE)
        infos = [self.bare_info(asset, asset.consumers[name]) for name in part]
        request.answer(paging=paging, consumers=infos)

    def pause(self, request: Request, asset: Asset) -> None:
        optional_body(request.body, PauseRequest, strict=self._engine.options.strict)
        self._find(request, asset)
        raise problem(10012, err="pausing a consumer is not supported yet")

    def unpin(self, request: Request, asset: Asset) -> None:
        self._find(request, asset)
        raise problem(10160)

    def step_down(self, request: Request, asset: Asset) -> None:
        """A consumer's leader is its stream's: the stream is handed over."""
        body = optional_body(request.body, StepDownRequest, strict=self._engine.options.strict)
        if not self._engine.clustered:
            raise problem(10010)
        self._find(request, asset)
        self._api.streams.hand_over(asset, body.placement.preferred if body.placement else "")
        request.answer(success=True)

    def _find(self, request: Request, asset: Asset) -> ConsumerReplica:
        replica = asset.consumers.get(request.args[1])
        if replica is None:
            raise problem(10014)
        return replica

    @staticmethod
    def _visible(asset: Asset) -> list[str]:
        return sorted(name for name, replica in asset.consumers.items() if not replica.config.direct)

    # ---- info ----

    def info_of(self, asset: Asset, replica: ConsumerReplica) -> ConsumerInfo:
        """ConsumerInfo with the server's versions in the configuration."""
        info = self.bare_info(asset, replica)
        info.config = shown_consumer_config(info.config, self._engine.options.version)
        return info

    def bare_info(self, asset: Asset, replica: ConsumerReplica) -> ConsumerInfo:
        state = replica.handle.state()
        return ConsumerInfo(
            stream_name=asset.assignment.name,
            name=replica.name,
            created=format_time(replica.created_ns),
            config=replica.config,
            delivered=SequenceInfo(
                state.delivered_consumer,
                state.delivered_stream,
                format_time(state.last_delivered_ns) if state.last_delivered_ns else None,
            ),
            ack_floor=SequenceInfo(
                state.ack_floor_consumer,
                state.ack_floor_stream,
                format_time(state.last_ack_ns) if state.last_ack_ns else None,
            ),
            num_ack_pending=state.num_ack_pending,
            num_redelivered=state.num_redelivered,
            num_waiting=state.num_waiting,
            num_pending=state.num_pending,
            cluster=self._api.streams.cluster_of(asset) if self._engine.clustered else None,
            push_bound=bool(state.push_bound),
            ts=format_time(self._engine.clock()),
        )
