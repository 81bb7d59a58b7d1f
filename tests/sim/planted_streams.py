"""Bugs put between a log and what is made of it, as others have shipped them; random histories must find every one."""

from __future__ import annotations

from jscore_server.jetstream.asset import ConfigRecord
from jscore_server.jetstream.consumer_config import to_options
from jscore_server.jetstream.meta import Assignment
from jscore_server.jetstream.stream_config import to_limits

import jscore

from .replica import Replica


class SeesAConfigurationEarly(Replica):
    """K-58, K-62: limits come from what the server was told, not from the record, which has its place."""

    def reassign(self, assignment: Assignment) -> None:
        self.asset._apply_config(ConfigRecord(assignment.version, assignment.config))
        super().reassign(assignment)


class RestartsWithTheNewestLimits(Replica):
    """K-58: a snapshot is taken over under a configuration that came later."""

    def restore(self, snapshot: bytes | None) -> str:
        why = super().restore(snapshot)
        if self.asset.config is not None:
            self.asset._apply_config(ConfigRecord(self.asset.assignment.version, self.asset.assignment.config))
        return why


class ForgetsTheWindow(Replica):
    """K-64: what a snapshot says of message ids is not taken over."""

    def restore(self, snapshot: bytes | None) -> str:
        why = super().restore(snapshot)
        if self.asset.config is not None:
            limits = to_limits(self.asset.config)
            self.asset.stream.configure(**{**limits, "duplicate_window_ns": -1})
            self.asset.stream.configure(**limits)
        return why


class BeginsConsumersAnew(Replica):
    """K-63: what consumers had delivered is lost, and all of it is delivered again."""

    def restore(self, snapshot: bytes | None) -> str:
        why = super().restore(snapshot)
        for replica in self.asset.consumers.values():
            replica.handle.close()
            options = to_options(replica.config)
            replica.handle = self.asset.stream.add_consumer(replica.id, replica.name, replica.created_ns, **options)
        return why


class SkipsARecord(Replica):
    """K-55, K-59: a snapshot says that it is of one record more, so what that one removed comes back."""

    def snapshot(self) -> tuple[bytes, int] | None:
        found, log = super().snapshot(), self.node.log
        if found is None or log.last == found[1]:
            return found
        head, more = jscore.snapshot_head(found[0]), found[1] + 1
        return jscore.snapshot_file(more, head.first, log.term(more), head.before, found[0][64:]), more


PLANTED_STREAMS = {
    p.__name__: p
    for p in (
        SeesAConfigurationEarly,
        RestartsWithTheNewestLimits,
        ForgetsTheWindow,
        BeginsConsumersAnew,
        SkipsARecord,
    )
}
