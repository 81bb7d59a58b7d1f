"""Linearizable reads: the read index, and leases. Pure. Source: spec/raft.md R-36, R-37; the Raft dissertation, 6.4.

A read waits for a round: one heartbeat to everybody, numbered, never twice in a term, sent after the read came. Once a
quorum has answered that number, nobody else led when the read came, and what is committed then is all it must show.
Reads that come while a round is out share the next one.

With Timing.lease a quorum that answered a heartbeat grants no vote for Timing.election_min_ticks after it, not after a
reset link and not after a restart either; so for a shorter time after that heartbeat was sent a read needs no round.
That costs fast failover: a leader's death is then never acted on before that time is over. `clock_ms` must be what the
clock says after the read was taken from its queue, and go on while the host is suspended (CLOCK_BOOTTIME).
"""

from __future__ import annotations

from .leader import Leader
from .state import LEADER, NotLeader

NEVER = -(1 << 62)
MAX_ROUNDS = 64  # heartbeat rounds whose time is remembered


class Reads(Leader):
    """What a leader may answer, and when."""

    __slots__ = ()

    def read(self, request: int) -> None:
        """Asks for a read; `Output.reads` gets (request, index) once what is applied up to `index` may be shown.

        (request, -1) there: not known any more, leadership was lost. Raises: NotLeader.
        """
        if self.role is not LEADER or not self.led:
            raise NotLeader
        if self.timing.lease and self._lease_holds():
            self.out.reads.append((request, self.commit))
            return
        self.reading.append((self.round + 1, request, self.commit))
        if self.round <= self.confirmed:
            self._begin_round()

    def _begin_round(self) -> None:
        self._next_round()
        for p in self.progress.values():
            self._heartbeat(p)
        self.deadline = min(self.deadline, self.now + self.timing.heartbeat_ticks)
        self._confirm()

    def _next_round(self) -> None:
        self.round += 1
        self.rounds.append((self.round, self.clock_ms))
        if len(self.rounds) > MAX_ROUNDS:
            del self.rounds[0]

    def _confirm(self) -> None:
        """Some answer to a round came: reads of rounds that a quorum has answered are free to go."""
        confirmed = self._agreed(self.round, lambda p: p.round)
        if confirmed <= self.confirmed:
            return
        self.confirmed = confirmed
        rounds, n = self.rounds, 0
        while n < len(rounds) and rounds[n][0] <= confirmed:
            self.sure_ms = rounds[n][1]
            n += 1
        del rounds[:n]
        reading, n = self.reading, 0
        while n < len(reading) and reading[n][0] <= confirmed:
            _, request, index = reading[n]
            self.out.reads.append((request, index))
            n += 1
        del reading[:n]
        if reading and self.round <= confirmed:
            self._begin_round()

    def _lease_holds(self) -> bool:
        timing = self.timing
        lease_ms = (timing.election_min_ticks - timing.lease_margin_ticks) * timing.tick_ms * 9 // 10
        return self.led_within(lease_ms) and not self.handing

    def led_within(self, span_ms: int) -> bool:
        """Whether a quorum took this replica for its leader less than `span_ms` before `clock_ms`."""
        return self.led and (self.clock_ms < self.sure_ms + span_ms or self.members.agree((self.name,)))

    def _fail_reads(self) -> None:
        self.out.reads.extend((request, -1) for _, request, _ in self.reading)
        self.reading.clear()
        self.rounds.clear()
        self.round = self.confirmed = 0
        self.sure_ms = NEVER
        self.handing = False
