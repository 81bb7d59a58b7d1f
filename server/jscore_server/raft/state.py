"""What the rules of a group share: its state, its time spans, and what its driver has to do. Pure."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from .members import HardState, Members
from .messages import Message
from .progress import Progress

NOOP = "noop"
MEMBERS = "members"


class Role(IntEnum):
    """What a replica is in its term."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


# To look a member up in its class is a call that costs ten times as much as a name, and every message asks.
FOLLOWER = Role.FOLLOWER
PRE_CANDIDATE = Role.PRE_CANDIDATE
CANDIDATE = Role.CANDIDATE
LEADER = Role.LEADER


class NotLeader(Exception):
    """Only the group's leader can do this; `Group.leader` may name it."""


class ChangeRefused(Exception):
    """A change of membership that the rules do not allow now; the text says which one."""


class InvariantBroken(Exception):
    """Continuing would lose or replace a committed record. The group stops; the host goes on."""


class LogView(Protocol):
    """What the core reads of its log."""

    @property
    def last(self) -> int:
        """Index of the last record, 0 when empty."""
        ...

    def term(self, index: int) -> int:
        """Term of the record at `index`."""
        ...


class Rng(Protocol):
    """Where randomness comes from."""

    def randint(self, a: int, b: int) -> int:
        """A whole number in [a, b]."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """All time spans of Raft. One tick is `tick_ms`; the rest are ticks (spec/raft.md §4 "Default timers")."""

    tick_ms: int = 20
    heartbeat_ticks: int = 5  # 100 ms
    election_min_ticks: int = 25  # 500 ms
    election_max_ticks: int = 50  # 1 s
    quorum_ticks: int = 40  # 800 ms
    hint_min_ticks: int = 1  # a reset link to the leader: campaign after 20 to 60 ms
    hint_max_ticks: int = 3
    idle_ticks: int = 10  # nothing to do for so long makes a group idle: its leader asks the others to sleep
    quiet_ticks: int = 100  # 2 s: who did not agree to sleep is asked again
    sleep_ticks: int = 90_000  # 30 min: a sleeping group looks whether all agree still; what matters wakes it
    again_min_ticks: int = 5  # a candidacy that met a rival, or was asked too early: the next one after 100 to 200 ms
    again_max_ticks: int = 10
    hurries: int = 3  # pre-votes asked in quick succession after a reset link to the leader
    silence_ticks: int = 10  # 200 ms: a host that sent datagrams, and no more, and nothing over its link
    retry_ticks: int = 10  # records unanswered for so long on a live link were lost
    slow_ticks: int = 250  # 5 s: a leader whose disk syncs nothing for so long gives up what another can lead
    slow_sync_ticks: int = 25  # 500 ms: a leader whose disk is behind a quorum's for so long,
    slow_syncs: int = 3  # so many times in a row, hands over;
    late_sync_ticks: int = 2  # so does one that again and again is behind by 40 ms,
    late_ticks: int = 75  # for 1.5 s in all; what it was not behind meanwhile counts threefold against that
    lease: bool = False  # reads.py: reads without a round, at the price of fast failover
    lease_margin_ticks: int = 5  # ticks lag the clock; 10 % of drift are taken off beside
    window: int = 32  # append frames in flight per follower (R-41: with FRAME_CAP, 8 MiB)


@dataclass(frozen=True, slots=True)
class Target:
    """The members a change is to lead to, and the learners there were before it.

    `round` is the round of heartbeats, begun at tick `asked`, that the new voters are to answer before they decide; 0:
    not asked yet.
    """

    voters: tuple[str, ...]
    learners: tuple[str, ...]
    before: tuple[str, ...]
    round: int = 0
    asked: int = 0


class Output:
    """What the driver has to do now (order: see the module's text). Reused; `clear` after carrying it out."""

    __slots__ = ("after", "append", "append_from", "commit", "hard_state", "lost", "messages", "needs_snapshot",
                 "proposals", "reads", "role", "sends", "truncate")  # fmt: skip

    def __init__(self) -> None:
        self.truncate = -1
        self.append: object = None
        self.append_from = 0
        self.lost = 0
        self.hard_state = 0
        self.messages: list[Message] = []
        self.after: list[Message] = []
        self.proposals: list[tuple[str, Members | None]] = []
        self.sends: list[Progress] = []
        self.commit = 0
        self.reads: list[tuple[int, int]] = []
        self.role: list[tuple[Role, int]] = []
        self.needs_snapshot: list[str] = []


class State:
    """The fields of one replica, and what every part of the rules needs."""

    __slots__ = (
        "acked",
        "busy",
        "caught",
        "caught_next",
        "clock_ms",
        "commit",
        "confirmed",
        "current",
        "deadline",
        "disk",
        "first",
        "gone",
        "group",
        "handing",
        "hard",
        "hard_durable",
        "hard_seq",
        "heard",
        "hurry",
        "known",
        "last",
        "late",
        "leader",
        "led",
        "log",
        "members",
        "met",
        "name",
        "needs",
        "now",
        "out",
        "preferred",
        "present",
        "progress",
        "promised",
        "quiet",
        "quorum_at",
        "reading",
        "rng",
        "role",
        "round",
        "rounds",
        "slow_syncs",
        "sure_ms",
        "suspect",
        "sync_at",
        "sync_mark",
        "synced",
        "synced_tick",
        "target",
        "term",
        "term_start",
        "timeout",
        "timing",
        "told",
        "transfer_at",
        "transferee",
        "verified",
        "vote",
        "votes",
        "watch_from",
        "whole",
    )  # fmt: skip

    def __init__(
        self,
        group: str,
        name: str,
        log: LogView,
        hard: HardState,
        rng: Rng,
        timing: Timing,
        *,
        commit: int = 0,
        now: int = 0,
        preferred: bool = False,
        first: int = 1,
        known: dict[str, str] | None = None,
        met: dict[str, str] | None = None,
        present: Container[str] | None = None,
    ) -> None:
        """A replica that starts from its disk. `log` is synced up to its end; `commit` is an index known committed.

        `known` and `met` are the driver's, who keeps them up to date: the directory ids by which servers, this one too,
        were first met, and those that they have on their links now (R-2). So is `present`: the servers that are linked
        and not silent, None where nobody keeps count.
        """
        self.group = group
        self.name = name
        self.log = log
        self.hard = hard
        self.rng = rng
        self.timing = timing
        self.now = now
        self.out = Output()
        self.term = hard.term
        self.vote = hard.vote
        self.members = hard.members[-1]
        self.role = FOLLOWER
        self.leader = ""
        self.led = False  # leader, and of what older terms left in its log nothing is open
        self.last = log.last
        self.first = first  # first index the log still holds
        self.needs = 0  # where the leader's log begins, which this one does not reach
        self.synced = self.last
        self.commit = min(commit, self.last)
        self.verified = self.commit  # proven equal to the leader's log up to here
        self.acked = 0
        self.told = 0  # commit index of a leader that this process heard of
        self.term_start = 0
        self.votes: set[str] = set()  # who granted what this candidate asks for
        self.progress: dict[str, Progress] = {}
        self.hard_seq = 0
        self.hard_durable = 0
        self.heard = -timing.election_max_ticks
        self.suspect = False  # the link to the leader went down
        self.hurry = 0  # pre-votes still to be asked in quick succession: not everybody may have noticed it yet
        self.quiet = False  # idle: a follower sleeps, a leader does when all who are present said so
        self.present = present
        self.caught = 0  # who holds this much has caught up: the commit index of a heartbeat or two ago
        self.caught_next = 0
        self.busy = now  # last tick at which the leader had something to do
        self.quorum_at = 0
        self.transferee = ""
        self.transfer_at = 0
        self.disk = True  # False: the log takes no writes any more
        self.known: dict[str, str] = known if known is not None else {}
        self.met: dict[str, str] = met if met is not None else {}
        self.current = False  # as the leader last said, this replica counts and has caught up
        self.whole = False  # and so have all voters: any one of them may go for a while
        self.gone = False  # a member said that this replica was removed
        self.target: Target | None = None  # leader: what a change is to lead to
        self.round = 0  # leader: number of the last round of heartbeats
        self.confirmed = 0  # the last round that a quorum has answered
        self.reading: list[tuple[int, int, int]] = []  # reads: (round they wait for, request, index)
        self.rounds: list[tuple[int, int]] = []  # not confirmed yet and when they began (an empty deque has 600 bytes)
        self.clock_ms = 0
        self.sure_ms = -(1 << 62)  # when the last confirmed round began
        self.handing = False  # somebody was told to campaign in this term: no lease holds any more
        self.synced_tick = now  # last tick at which the own disk had nothing to do or got on
        self.sync_mark = 0  # leader: an index that a quorum had synced at tick `sync_at`, 0: none is watched
        self.sync_at = 0
        self.watch_from = 0  # from then on it is watched
        self.slow_syncs = 0  # how often in a row the own disk took long to get there
        self.late = 0  # for how many ticks it was behind, less what it was not
        # What was promised to a leader before the restart is forgotten, so it is kept for its whole time.
        self.promised = now + timing.election_min_ticks if timing.lease and hard.term else 0
        self.preferred = preferred
        self.timeout = 0
        self.deadline = 0
        self._reset_timeout()
        if preferred and self.last == 0 and self.term == 0:
            self.deadline = now + 1
        elif self.members.agree((name,)):
            self.deadline = now + 1  # nobody to wait for
        elif self.vote == name:
            # It led last, or was about to: it asks before the others would, who then do not get in each other's way.
            self.deadline = now + rng.randint(timing.again_min_ticks, timing.again_max_ticks)

    def take_term(self) -> None:
        """Of a log that was taken over from others, before anything else is asked: the term of its last record.

        Its leader was never heard of here, so nobody has this replica's vote in that term; and who leads in an older
        one, and does not know it, leads nobody who holds such records. Raises what the log does if it is unreadable.
        """
        newest = self.term_at(self.last)
        if newest > self.term:
            self.term, self.vote = newest, ""
            self._persist()

    def term_at(self, index: int) -> int:
        """Term of the record at `index`; 0 before the first."""
        return self.log.term(index) if index else 0

    def _send(self, m: Message) -> None:
        if self.hard_seq > self.hard_durable:
            self.out.after.append(m)
        else:
            self.out.messages.append(m)

    def _persist(self) -> None:
        hard = self.hard
        hard.term = self.term
        hard.vote = self.vote
        hard.scanned = self.commit  # committed records are never cut, so what is known about them stays true
        self.hard_seq += 1
        self.out.hard_state = self.hard_seq

    def _reset_timeout(self) -> None:
        timing = self.timing
        self.timeout = self.rng.randint(timing.election_min_ticks, timing.election_max_ticks)
        self.deadline = self.now + self.timeout

    def is_present(self, name: str) -> bool:
        return self.present is None or name in self.present

    def holds_members(self, lo: int, hi: int) -> bool:
        """Whether some record in [lo, hi] is a MEMBERS record."""
        for index in reversed(self.hard.members_indexes):
            if index <= hi:
                return index >= lo
        return False

    def _is_itself(self, name: str) -> bool:
        """Whether `name` comes from the directory under which it is a member: another one promised nothing (R-2)."""
        if not self.members.ids:
            return True
        directory_id = self.members.directory_id(name)
        return not directory_id or self.met.get(name, directory_id) == directory_id

    # ---- what later parts of the rules fill in ----------------------------------------------------------------------

    def _sync_progress(self) -> None:
        raise NotImplementedError

    def _fail_reads(self) -> None:
        raise NotImplementedError

    def _commit_to(self, index: int) -> None:
        raise NotImplementedError

    def _use_members(self) -> None:
        raise NotImplementedError

    def _wake(self) -> None:
        raise NotImplementedError

    def _heartbeat(self, p: Progress) -> None:
        raise NotImplementedError

    def _next_beat(self) -> int:
        raise NotImplementedError

    def wake_others(self) -> None:
        raise NotImplementedError

    def _begin_round(self) -> None:
        raise NotImplementedError

    def _next_round(self) -> None:
        raise NotImplementedError

    def _confirm(self) -> None:
        raise NotImplementedError

    def _advance_change(self) -> None:
        raise NotImplementedError

    def _go_back(self) -> bool:
        raise NotImplementedError
