"""Random histories hold every invariant, and planted bugs do not survive them."""

from __future__ import annotations

from typing import Any

import pytest
from jscore_server.raft.core import Core, Role
from jscore_server.raft.messages import ACK, FLAG_TRUE, Message

from .engine import EngineLog, run_engine_seed
from .simulator import Simulator, Violation, run_seed

SEEDS = 1000
ENGINE_SEEDS = 120


@pytest.mark.parametrize("start", range(0, SEEDS, 100))
def test_random_histories_hold_every_invariant(start: int) -> None:
    acked = elections = 0
    for seed in range(start, start + 100):
        sim = run_seed(seed)
        acked += len(sim.acked)
        elections += len(sim.leaders)
    assert acked > 100 * 10, "a run that acknowledges nothing proves nothing"
    assert elections > 100


def test_a_seed_gives_one_history() -> None:
    for seed in range(5):
        traces = []
        for _ in range(2):
            sim = Simulator(seed, trace=True)
            sim.run()
            traces.append(sim.trace)
        assert traces[0] == traces[1]


class AcksBeforeSync(Core):
    """R-16 broken: what was received counts as synced."""

    def _ack(self, answered: int = 0) -> None:
        self.acked = self.verified
        self._send(Message(ACK, self.leader, self.group, self.term, self.verified, 0, answered, self.verified))


class CountsVotesTwice(Core):
    """A duplicated reply is a second vote. Rivals do not give way here either, or hardly any election is contested."""

    def _on_prevote(self, m: Message) -> None:
        role, deadline = self.role, self.deadline
        super()._on_prevote(m)
        self.role, self.deadline = role, deadline

    def _on_vote_reply(self, m: Message) -> None:
        if self.role is Role.CANDIDATE and m.term == self.term and m.flags & FLAG_TRUE:
            self.votes.add(f"{m.peer} {len(self.votes)}")
            if len(self.votes) >= self.members.quorum:
                self._become_leader()


class CommitsOlderTerms(Core):
    """R-11 broken: a majority of copies of an older term's record commits it."""

    def _maybe_commit(self) -> None:
        started, self.term_start = self.term_start, 0
        try:
            super()._maybe_commit()
        finally:
            self.term_start = started


class PromisesBeforeDisk(Core):
    """R-9 broken: votes leave before they are durable."""

    def _send(self, m: Message) -> None:
        self.out.messages.append(m)


class CountsOwnUnsynced(Core):
    """R-17 broken: the leader counts what it has not synced."""

    def _maybe_commit(self) -> None:
        self.synced = self.last
        super()._maybe_commit()


class CutsOnShortAppend(Core):
    """R-14 broken: a short, old append cuts the log behind it."""

    def _first_conflict(self, runs: list[tuple[int, int, int]], new_last: int) -> int:
        return new_last + 1 if new_last < self.last else super()._first_conflict(runs, new_last)


class TrustsAnyLog(Core):
    """An election without the comparison of logs."""

    def _log_is_new_enough(self, m: Message) -> bool:
        return True


class BelievesItsWholeLog(Core):
    """R-18 broken: a follower commits what was never proven to match."""

    def _on_heartbeat(self, m: Message) -> None:
        self.verified = self.last
        super()._on_heartbeat(m)


@pytest.mark.parametrize(
    "options",
    [
        {"core_class": AcksBeforeSync},
        {"core_class": CountsVotesTwice},
        {"core_class": CommitsOlderTerms},
        {"core_class": PromisesBeforeDisk},
        {"core_class": CountsOwnUnsynced},
        {"core_class": CutsOnShortAppend},
        {"core_class": TrustsAnyLog},
        {"core_class": BelievesItsWholeLog},
        {"forget_vote": True},
    ],
    ids=lambda o: o["core_class"].__name__ if "core_class" in o else "ForgetsItsVote",
)
def test_a_planted_bug_is_found(options: dict[str, Any]) -> None:
    for seed in range(1500):
        try:
            run_seed(seed, **options)
        except Violation as err:
            if not str(err).startswith("23"):
                return  # 23 is only a lack of progress
    pytest.fail("1,500 histories did not notice it")


@pytest.mark.parametrize("start", range(0, ENGINE_SEEDS, 30))
def test_random_histories_hold_over_the_real_engine(start: int) -> None:
    acked = lives = 0
    for seed in range(start, start + 30):
        sim = run_engine_seed(seed)
        acked += len(sim.acked)
        lives += sum(node.life for node in sim.nodes.values())
    assert acked > 30 * 5
    assert lives > 30


def test_an_engine_that_promises_before_it_syncs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle works: durable is believed without asking the engine."""

    def promise(self: EngineLog, upto: int) -> None:
        self.durable = max(self.durable, min(upto, self.last))

    monkeypatch.setattr(EngineLog, "sync", promise)

    def play() -> None:
        for seed in range(20):
            run_engine_seed(seed)

    with pytest.raises(Violation, match=r"^[67]: "):
        play()
