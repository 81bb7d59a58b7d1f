"""The STREAM calls of the API. The meta leader plans and proposes, the stream's leader tells and changes its messages.

Source: jetstream-streams.md §3-§6, §18, §19; clustering.md §4, §5.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

import jscore
from jscore_server.jetstream import names, placement
from jscore_server.jetstream.decode import decode_json, must_be_empty, must_not_be_empty, optional_body
from jscore_server.jetstream.errors import problem
from jscore_server.jetstream.meta import Assignment, CreateStream, DeleteStream
from jscore_server.jetstream.models import (
    LIST_PAGE,
    NAMES_PAGE,
    SUBJECTS_PAGE,
    ClusterInfo,
    MsgDeleteRequest,
    MsgGetRequest,
    Paging,
    PeerInfo,
    PeerRemoveRequest,
    PurgeRequest,
    StepDownRequest,
    StoredMessage,
    StreamConfig,
    StreamConfigRequest,
    StreamInfo,
    StreamInfoRequest,
    StreamsRequest,
    StreamState,
    encode,
    format_time,
    page,
    parse_time,
)
from jscore_server.jetstream.stream_config import (
    check_reservation,
    check_stream_config,
    check_stream_update,
    same_config,
    shown_config,
)
from jscore_server.raft import ChangeRefused

if TYPE_CHECKING:
    from jscore_server.jetstream.api import Api, Request
    from jscore_server.jetstream.asset import Asset
    from jscore_server.jetstream.engine import JetStream
    from jscore_server.jetstream.gather import Gathered

SEQ_MAX = 1 << 62  # as JSC_SEQ_MAX: messages after a purge need sequences too


class StreamApi:
    """Handlers of one server; each is called with the request, those of a stream's leader with the stream too."""

    def __init__(self, engine: JetStream, api: Api) -> None:
        self._engine = engine
        self._api = api

    # ---- the meta leader's ----

    def create(self, request: Request, *, last_try: bool = False) -> None:
        engine = self._engine
        config = self._config(request)
        present = engine.state.get(request.account, config.name)
        if present is not None:
            if not same_config(msgspec.convert(present.config, StreamConfig), config):
                raise problem(10058)
            self.answer_existing(present, msgspec.to_builtins(config), request.reply)
            return
        self._check_overlap(request.account, config)
        most = engine.account_limits(request.account).max_streams
        if 0 < most <= engine.stream_count(request.account):
            raise problem(10027)
        wanted = config.placement
        try:
            where = engine.place(
                config.num_replicas,
                cluster=wanted.cluster if wanted and engine.clustered else "",
                tags=wanted.tags if wanted and engine.clustered else [],
            )
        except placement.NoPeers as err:
            if not last_try and engine.awaits_members(config.num_replicas):
                again = partial(self.create, request, last_try=True)
                self._api.defer(request, lambda: self._api.run(request, again))
                return
            raise problem(10005, err=err) from err
        assignment = Assignment(
            account=request.account,
            name=config.name,
            group=self._fresh_group(config),
            peers=where.peers,
            preferred=where.preferred,
            created_ns=engine.clock(),
            config=msgspec.to_builtins(config),
        )
        engine.propose_meta(CreateStream(assignment, request.reply), subjects=list(config.subjects))

    def _fresh_group(self, config: StreamConfig) -> str:
        """A group name that no stream has: directories are named after it."""
        while True:
            group = names.new_group_name("S", config.num_replicas, config.storage, self._engine.rng)
            if not self._engine.state.has_group(group):
                return group

    def update(self, request: Request) -> None:
        engine = self._engine
        name = request.args[0]
        present = engine.state.get(request.account, name)
        if present is None:
            # The body is judged first, as on a create.
            self._config(request)
            raise problem(10059)
        old = msgspec.convert(present.config, StreamConfig)
        config = self._config(request, old)
        self._check_overlap(request.account, config)
        if engine.is_changing(request.account, name):
            self._api.defer(request, lambda: self._api.run(request, partial(self.update, request)))
            return
        engine.rearrange.update(request, present, config)

    def _config(self, request: Request, old: StreamConfig | None = None) -> StreamConfig:
        """The requested configuration with its defaults. Raises: ApiError."""
        engine = self._engine
        body = decode_json(request.body, StreamConfigRequest, strict=engine.options.strict)
        if body.name != request.args[0]:
            raise problem(10056)
        if names.has_path_separator(body.name):
            raise problem(10128)
        limits = engine.account_limits(request.account)
        config = check_stream_config(
            body.config(), pedantic=body.pedantic, clustered=engine.clustered, limits=limits, update=old is not None
        )
        if old is not None:
            config = check_stream_update(old, config)
        reserved, server_reserved = engine.state.reserved(
            request.account, engine.server_name, config.storage, config.name
        )
        check_reservation(config, limits, reserved=reserved, server_reserved=server_reserved, old=old)
        return config

    def _check_overlap(self, account: str, config: StreamConfig) -> None:
        """Raises: ApiError 10065 when another stream, or one about to be, takes some of the same subjects."""
        engine = self._engine
        index = names.SubjectIndex()
        try:
            for subject in config.subjects:
                index.add(subject)
            for name, subjects in engine.proposed_subjects(account):
                if name != config.name and any(index.find(s) is not None for s in subjects):
                    raise problem(10065)
            if engine.state.taker(account, list(config.subjects), config.name) is not None:
                raise problem(10065)
        except names.TooManySubjects as err:
            raise problem(10052, err="too many subjects to compare") from err

    def delete(self, request: Request) -> None:
        must_be_empty(request.body)
        present = self._engine.state.get(request.account, request.args[0])
        if present is None:
            raise problem(10059)
        self._engine.propose_meta(DeleteStream(request.account, present.name, present.group, request.reply))

    def _chosen(self, account: str, pattern: str) -> list[Assignment]:
        """Streams by name, of those whose subjects overlap the pattern (in a cluster also by name: §3)."""
        every = self._engine.state.streams(account)
        if not pattern:
            return every
        found = []
        for assignment in every:
            subjects = assignment.config.get("subjects") or ([assignment.name] if self._engine.clustered else [])
            if any(names.subjects_overlap(s, pattern) for s in subjects):
                found.append(assignment)
        return found

    def list_names(self, request: Request) -> None:
        body = optional_body(request.body, StreamsRequest, strict=self._engine.options.strict)
        chosen = [a.name for a in self._chosen(request.account, body.subject)]
        part, paging = page(chosen, body.offset, NAMES_PAGE)
        request.answer(paging=paging, streams=part or None)

    def list_infos(self, request: Request) -> None:
        body = optional_body(request.body, StreamsRequest, strict=self._engine.options.strict)
        chosen = [a.name for a in self._chosen(request.account, body.subject)]
        part, paging = page(chosen, body.offset, LIST_PAGE)

        def finish(found: Gathered) -> None:
            infos = [found.streams[name] for name in part if name in found.streams]
            missing = [name for name in part if name not in found.streams]
            extra: dict[str, Any] = {"missing": missing} if missing else {}
            request.answer(paging=paging, streams=infos, **extra)

        if not part:
            request.answer(paging=paging, streams=[])
        elif not self._engine.gather.ask(request.account, part, finish):
            raise problem(10008)

    def peer_remove(self, request: Request) -> None:
        if not self._engine.clustered:
            raise problem(10010)
        must_not_be_empty(request.body)
        body = decode_json(request.body, PeerRemoveRequest, strict=self._engine.options.strict)
        if not body.peer:
            raise problem(10003)
        present = self._engine.state.get(request.account, request.args[0])
        if present is None:
            raise problem(10059)
        self._engine.rearrange.remove_peer(request, present, body.peer)

    def restore(self, request: Request) -> None:
        must_not_be_empty(request.body)
        raise problem(10062, err="not supported yet")

    # ---- answers to requests that went through the meta log ----

    def answer_changed(self, asset: Asset, reply: str, *, created: bool) -> None:
        """The stream's leader has applied the configuration that a create or update asked for."""
        info = self.info_of(asset)
        if created:
            if not self._engine.clustered:
                info.cluster = None
            self._api.respond("stream_create", asset.assignment.account, reply, info, did_create=True)
        else:
            self._api.respond("stream_update", asset.assignment.account, reply, info)

    def answer_existing(self, assignment: Assignment, wanted: dict[str, Any], reply: str) -> None:
        """A create of a stream that is there: the same is success, with the leader's info; another is 10058."""
        present = msgspec.convert(assignment.config, StreamConfig)
        if not same_config(present, msgspec.convert(wanted, StreamConfig)):
            self._api.refuse("stream_create", assignment.account, reply, problem(10058))
            return
        asset = self._engine.asset(assignment.account, assignment.name)
        if asset is not None and asset.ready and not self._engine.clustered:
            self.answer_changed(asset, reply, created=True)
            return

        def finish(found: Gathered) -> None:
            raw = found.streams.get(assignment.name)
            if raw is None:
                self._api.refuse("stream_create", assignment.account, reply, problem(10008))
                return
            info = msgspec.json.decode(raw, type=StreamInfo)
            info.config = shown_config(info.config, self._engine.options.version)
            self._api.respond("stream_create", assignment.account, reply, info)

        if not self._engine.gather.ask(assignment.account, [assignment.name], finish):
            self._api.refuse("stream_create", assignment.account, reply, problem(10008))

    def answer_missing(self, account: str, reply: str, *, update: bool) -> None:
        self._api.refuse("stream_update" if update else "stream_delete", account, reply, problem(10059))

    def answer_deleted(self, account: str, reply: str) -> None:
        self._api.respond("stream_delete", account, reply, success=True)

    def answer_failed(self, account: str, reply: str, text: str) -> None:
        self._api.refuse("stream_create", account, reply, problem(10049, err=text))

    # ---- the stream leader's ----

    def info(self, request: Request, asset: Asset) -> None:
        body = optional_body(request.body, StreamInfoRequest, strict=self._engine.options.strict)
        info = self.info_of(asset)
        paging = Paging()
        if body.deleted_details:
            info.state.deleted = asset.stream.deleted()
        if body.subjects_filter:
            counts = asset.stream.subject_counts(body.subjects_filter)
            part, paging = page(sorted(counts), body.offset, SUBJECTS_PAGE)
            info.state.subjects = {subject: counts[subject] for subject in part}
        request.answer(info, paging=paging)

    def info_of(self, asset: Asset) -> StreamInfo:
        """StreamInfo of a stream led here, with its cluster block (standalone: the leader alone)."""
        info = self.bare_info(asset)
        info.config = shown_config(info.config, self._engine.options.version)
        return info

    def listed(self, asset: Asset) -> bytes:
        """The same as JSON for STREAM.LIST, where the configuration carries no versions."""
        return encode(self.bare_info(asset))

    def bare_info(self, asset: Asset) -> StreamInfo:
        assert asset.config is not None
        state = asset.stream.state()
        return StreamInfo(
            config=asset.config,
            created=format_time(asset.assignment.created_ns),
            state=StreamState(
                messages=state.messages,
                bytes=state.bytes,
                first_seq=state.first_seq,
                first_ts=format_time(state.first_ts),
                last_seq=state.last_seq,
                last_ts=format_time(state.last_ts),
                num_subjects=state.num_subjects,
                num_deleted=state.num_deleted,
                consumer_count=sum(not r.config.direct for r in asset.consumers.values()),
            ),
            domain=self._engine.options.domain,
            cluster=self.cluster_of(asset),
            ts=format_time(self._engine.clock()),
        )

    def cluster_of(self, asset: Asset) -> ClusterInfo:
        """Who holds the stream, as its leader sees it (clustering.md §4)."""
        engine = self._engine
        group = asset.group
        if group is None:
            return ClusterInfo(name=engine.cluster_name or "", leader=engine.shown_name)
        replicas = [
            PeerInfo(
                name=r.name,
                current=r.current,
                offline=r.offline,
                active=r.active_ns,
                lag=r.lag,
                peer=engine.peer_id(r.name),
            )
            for r in group.replicas()
            if r.name != engine.server_name
        ]
        shown = {engine.server_name, *(r.name for r in replicas)}
        replicas += [
            PeerInfo(name=p, current=False, offline=not engine.is_online(p), peer=engine.peer_id(p))
            for p in asset.assignment.peers
            if p not in shown  # still to be let in
        ]
        if not replicas and asset.assignment.replicas == 1:
            return ClusterInfo(name=engine.cluster_name or "", leader=group.leader or "")
        return ClusterInfo(
            name=engine.cluster_name or "",
            raft_group=asset.assignment.group,
            leader=group.leader or "",
            leader_since=format_time(group.leader_since) if group.leader_since else None,
            system_account=True,
            traffic_account="$SYS",
            replicas=sorted(replicas, key=lambda p: p.name),
        )

    def purge(self, request: Request, asset: Asset) -> None:
        body = optional_body(request.body, PurgeRequest, strict=self._engine.options.strict)
        assert asset.config is not None
        if (body.seq and body.keep) or body.seq > SEQ_MAX:
            raise problem(10003)
        if asset.config.sealed:
            raise problem(10109)
        if asset.config.deny_purge:
            raise problem(10110, err="stream purge not permitted")
        if body.filter and not names.is_valid_subject(body.filter):
            raise problem(10003)
        asset.stream.purge(body.filter, body.seq, body.keep, request.reply)

    def msg_get(self, request: Request, asset: Asset) -> None:
        must_not_be_empty(request.body)
        body = decode_json(request.body, MsgGetRequest, strict=self._engine.options.strict)
        start = bool(body.start_time)
        if body.batch or body.max_bytes or body.multi_last or body.up_to_seq or body.up_to_time:
            raise problem(10003)
        if body.last_by_subj and (body.seq or body.next_by_subj or start):
            raise problem(10003)
        if start and body.seq:
            raise problem(10003)
        if not (body.seq or body.last_by_subj or body.next_by_subj or start):
            raise problem(10003)
        stream = asset.stream
        first = body.seq
        try:
            if body.start_time:
                first = stream.seq_at(parse_time(body.start_time)) or 0
                if not first:
                    raise problem(10037)
            if body.last_by_subj:
                found = stream.last(body.last_by_subj)
            elif body.next_by_subj:
                found = stream.next(body.next_by_subj, max(first, 1))
            else:
                found = stream.get(first)
        except jscore.NotFound:
            found = None
        except jscore.Corrupt as err:
            self._engine.damaged(asset, f"a stored message does not verify: {err}")
            raise problem(10008) if asset.failed else problem(10051, err=f"message is damaged: {err}") from err
        if found is None:
            raise problem(10037)
        message = StoredMessage(
            subject=found.subject,
            seq=found.seq,
            hdrs=b"" if body.no_hdr else bytes(found.headers),
            data=bytes(found.data),
            time=format_time(found.ts),
        )
        request.answer(message=message)

    def msg_delete(self, request: Request, asset: Asset) -> None:
        must_not_be_empty(request.body)
        body = decode_json(request.body, MsgDeleteRequest, strict=self._engine.options.strict)
        assert asset.config is not None
        if asset.config.sealed:
            raise problem(10109)
        if asset.config.deny_delete:
            raise problem(10057, err="message delete not permitted")
        if not body.seq:
            raise problem(10057, err="no message found")
        if body.seq > asset.stream.state().last_seq:
            raise problem(10057, err="stream store EOF")
        if asset.stream.get(body.seq) is None:
            raise problem(10043, seq=body.seq)
        asset.stream.delete(body.seq, request.reply)

    def step_down(self, request: Request, asset: Asset) -> None:
        optional = optional_body(request.body, StepDownRequest, strict=self._engine.options.strict)
        self.hand_over(asset, optional.placement.preferred if optional.placement else "")
        request.answer(success=True)

    def hand_over(self, asset: Asset, preferred: str) -> None:
        """Starts moving the stream's leadership. Raises: ApiError 10010, 10005."""
        engine = self._engine
        if not engine.clustered:
            raise problem(10010)
        if preferred == engine.server_name:
            raise problem(10005, err=f'preferred server "{preferred}" is already leader')
        if preferred and preferred not in asset.assignment.peers:
            raise problem(10005, err=f'preferred server "{preferred}" not known')
        others = sorted(asset.group.replicas(), key=lambda r: (r.lag, r.name)) if asset.group is not None else []
        ready = [r.name for r in others if engine.is_online(r.name)]
        target = preferred or (ready[0] if ready else "")
        if asset.group is None or target not in ready:
            raise problem(10005, err="no replacement peer connected")
        try:
            asset.group.transfer(target)
        except ChangeRefused as err:
            raise problem(10005, err=str(err)) from err

    def snapshot(self, request: Request, asset: Asset) -> None:
        must_not_be_empty(request.body)
        raise problem(10064, err="not supported yet")
