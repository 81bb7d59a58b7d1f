"""DIRECT.GET: reads of stored messages answered as plain messages, the way key-value stores read.

Subscribed for a stream while this server leads it and its configuration has `allow_direct`; otherwise nobody listens
and the client is told so. Answered by the leader only, which asks a quorum first when it has not heard from one lately:
what a paused leader shows is a second old at most. Source: jetstream-streams.md §20.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jscore
from jscore_server.jetstream.decode import decode_json
from jscore_server.jetstream.errors import ApiError
from jscore_server.jetstream.models import MsgGetRequest, format_time, parse_time
from jscore_server.raft import NotLeader

if TYPE_CHECKING:
    from jscore_server.dataplane import Msg, StoredMsg
    from jscore_server.jetstream.asset import Asset
    from jscore_server.jetstream.engine import JetStream

PREFIX = "$JS.API.DIRECT.GET."
QUEUE = "_sys_"
MULTI_MAX = 1024
BATCH_BYTES = 64 << 20
SLICE = 64
COUNT_MAX = 256


class DirectGet:
    """Serves the streams led by one server."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine

    def serve(self, asset: Asset) -> None:
        """Brings the subscriptions of a stream led here in line with its configuration."""
        wanted = asset.config is not None and asset.config.allow_direct
        if wanted and not asset.subscriptions:
            name = asset.assignment.name
            for subject in (f"{PREFIX}{name}", f"{PREFIX}{name}.>"):
                asset.subscriptions.append(
                    self._engine.plane.subscribe(
                        asset.assignment.account, subject, lambda msg: self._receive(asset, msg), queue=QUEUE
                    )
                )
        elif not wanted:
            asset.unsubscribe()

    def _receive(self, asset: Asset, msg: Msg) -> None:
        if not msg.reply or not asset.ready:
            return
        subject = msg.subject[len(PREFIX) + len(asset.assignment.name) + 1 :]
        try:
            request = self._request(msg.data, subject)
        except ValueError as err:
            self._status(asset, msg.reply, f"408 {err}")
            return
        try:
            asset.read_lately(lambda lost: None if lost or not asset.ready else self._answer(asset, msg.reply, request))
        except NotLeader:
            return  # as if it had not been here: the reader asks again

    def _answer(self, asset: Asset, reply: str, request: MsgGetRequest) -> None:
        try:
            if request.multi_last:
                self._multi(asset, reply, request)
            elif request.batch > 0:
                self._batch(asset, reply, request)
            else:
                self._one(asset, reply, request)
        except (jscore.Error, OSError) as err:
            if isinstance(err, jscore.Corrupt):
                self._engine.damaged(asset, f"a stored message does not verify: {err}")
                if asset.failed:
                    return  # others have it
            self._engine.lines.error(f"stream {asset.assignment.name}: direct get: {err}")
            self._status(asset, reply, "404 Message Not Found")

    @staticmethod
    def _request(body: bytes, subject: str) -> MsgGetRequest:
        """Raises: ValueError with the text of the 408 status."""
        if not body and not subject:
            raise ValueError("Empty Request")
        try:
            request = decode_json(body, MsgGetRequest, strict=False)
        except ApiError as err:
            raise ValueError("Malformed Request") from err
        r = request
        if subject:
            if r.seq or r.last_by_subj or r.next_by_subj or r.start_time or r.batch or r.multi_last:
                raise ValueError("Bad Request")
            r.last_by_subj = subject
            return r
        if not (r.seq or r.last_by_subj or r.next_by_subj or r.start_time or r.multi_last):
            raise ValueError("Empty Request")
        if r.up_to_seq or r.up_to_time:
            raise ValueError("Bad Request")  # a view of the past is not kept
        if r.multi_last and (r.last_by_subj or r.next_by_subj or r.start_time):
            raise ValueError("Bad Request")
        if r.last_by_subj and (r.seq or r.next_by_subj or r.start_time or r.batch):
            raise ValueError("Bad Request")
        if r.start_time and r.seq:
            raise ValueError("Bad Request")
        return r

    def _first(self, asset: Asset, request: MsgGetRequest) -> int:
        """Where a search starts; 0: nowhere."""
        if request.start_time:
            return asset.stream.seq_at(parse_time(request.start_time)) or 0
        return max(request.seq, 1)

    def _one(self, asset: Asset, reply: str, request: MsgGetRequest) -> None:
        stream = asset.stream
        found: Any = None
        first = self._first(asset, request)
        if request.last_by_subj:
            found = stream.last(request.last_by_subj)
        elif first and request.next_by_subj:
            found = stream.next(request.next_by_subj, first)
        elif first:
            found = stream.get(first)
        if found is None:
            self._status(asset, reply, "404 Message Not Found")
        else:
            self._message(asset, reply, found, request.no_hdr, "")

    def _batch(self, asset: Asset, reply: str, request: MsgGetRequest) -> None:
        stream = asset.stream
        pattern = request.next_by_subj or ">"
        first = self._first(asset, request)
        found = stream.next(pattern, first) if first else None
        if found is None:
            self._status(asset, reply, "404 Message Not Found")
            return
        self._send_run(asset, reply, request, found, pattern)

    def _send_run(self, asset: Asset, reply: str, request: MsgGetRequest, first: StoredMsg, pattern: str) -> None:
        """Sends a batch in slices. How much is left is counted once, before the first."""
        left = request.batch
        room = request.max_bytes if request.max_bytes > 0 else BATCH_BYTES
        last = 0
        pending = self._pending(asset, pattern, first.seq - 1)
        found: Any = first

        def turn() -> None:
            nonlocal found, left, room, last, pending
            for _ in range(SLICE):
                if found is None or left <= 0 or room <= 0 or not asset.ready:
                    end = f"204 EOB\r\nNats-Num-Pending: {pending}\r\nNats-Last-Sequence: {last}"
                    self._status(asset, reply, end)
                    return
                following = asset.stream.next(pattern, found.seq + 1)
                pending = max(0, pending - 1)
                extra = f"Nats-Num-Pending: {pending}\r\nNats-Last-Sequence: {last}\r\n"
                self._message(asset, reply, found, request.no_hdr, extra)
                left -= 1
                room -= len(found.subject) + len(found.headers) + len(found.data)
                last = found.seq
                found = following
            self._engine.after(0, turn)

        turn()

    @staticmethod
    def _pending(asset: Asset, pattern: str, last: int) -> int:
        """Messages of the pattern behind sequence `last`: walked up to COUNT_MAX, then by totals."""
        count = 0
        found = asset.stream.next(pattern, last + 1)
        while found is not None and count < COUNT_MAX:
            count += 1
            found = asset.stream.next(pattern, found.seq + 1)
        if found is None:
            return count
        return max(count, sum(asset.stream.subject_counts(pattern).values()) - last)

    def _multi(self, asset: Asset, reply: str, request: MsgGetRequest) -> None:
        stream = asset.stream
        subjects: set[str] = set()
        for pattern in request.multi_last:
            subjects.update(stream.subject_counts(pattern))
            if len(subjects) > MULTI_MAX:
                self._status(asset, reply, "413 Too Many Results")
                return
        every = (stream.last(subject) for subject in subjects)
        found = sorted((m for m in every if m is not None and m.seq >= request.seq), key=lambda m: m.seq)
        if not found:
            self._status(asset, reply, "404 No Results")
            return
        sent = found[: request.batch] if request.batch > 0 else found
        last = 0
        for at, message in enumerate(sent):
            extra = f"Nats-Num-Pending: {len(found) - at - 1}\r\nNats-Last-Sequence: {last}\r\n"
            self._message(asset, reply, message, request.no_hdr, extra)
            last = message.seq
        up_to = stream.state().last_seq
        text = f"204 EOB\r\nNats-Num-Pending: {len(found) - len(sent)}\r\nNats-Last-Sequence: {last}"
        self._status(asset, reply, f"{text}\r\nNats-UpTo-Sequence: {up_to}")

    def _message(self, asset: Asset, reply: str, message: Any, bare: bool, extra: str) -> None:
        headers = b""
        if not bare:
            stored = bytes(message.headers)
            lines = stored[: -len(b"\r\n")] if stored.endswith(b"\r\n\r\n") else b"NATS/1.0\r\n"
            added = (
                f"Nats-Stream: {asset.assignment.name}\r\nNats-Subject: {message.subject}\r\n"
                f"Nats-Sequence: {message.seq}\r\nNats-Time-Stamp: {format_time(message.ts)}\r\n{extra}\r\n"
            )
            headers = lines + added.encode("utf-8", "surrogateescape")
        self._engine.plane.publish(asset.assignment.account, reply, bytes(message.data), headers=headers)

    def _status(self, asset: Asset, reply: str, text: str) -> None:
        headers = f"NATS/1.0 {text}\r\n\r\n".encode()
        self._engine.plane.publish(asset.assignment.account, reply, headers=headers)
