"""Random histories hold every invariant, and planted bugs do not survive them."""

from __future__ import annotations

import pytest

from .engine import EngineLog, run_engine_seed
from .model import Violation
from .planted import PLANTED
from .planted_streams import PLANTED_STREAMS
from .simulator import Simulator, run_seed
from .streams import run_stream_seed

SEEDS = 1700
ENGINE_SEEDS = 120
STREAM_SEEDS = 24
WITHIN = 1500


@pytest.mark.parametrize("start", range(0, SEEDS, 100))
def test_random_histories_hold_every_invariant(start: int) -> None:
    acked = elections = reads = slept = taken = 0
    for seed in range(start, start + 100):
        sim = run_seed(seed)
        acked += len(sim.acked)
        elections += len(sim.leaders)
        reads += sim.reads_done
        slept += len(sim.slept)
        taken += sim.taken_over
    assert acked > 100 * 10, "a run that acknowledges nothing proves nothing"
    assert elections > 100
    assert reads > 100 * 10
    assert taken > 20, "replicas are to fall behind trimmed logs"
    assert slept > 20, "groups are to fall asleep between the troubles"


def test_a_seed_gives_one_history() -> None:
    for seed in range(5):
        traces = []
        for _ in range(2):
            sim = Simulator(seed, trace=True)
            sim.run()
            traces.append(sim.trace)
        assert traces[0] == traces[1]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    for seed in range(WITHIN):
        try:
            run_seed(seed, **PLANTED[name])
        except Violation as err:
            if not str(err).startswith("23"):
                return  # 23 is only a lack of progress
    pytest.fail(f"{WITHIN} histories did not notice it")


@pytest.mark.parametrize("start", range(0, ENGINE_SEEDS, 30))
def test_random_histories_hold_over_the_real_engine(start: int) -> None:
    acked = lives = taken = 0
    for seed in range(start, start + 30):
        sim = run_engine_seed(seed)
        acked += len(sim.acked)
        lives += sum(node.life for node in sim.nodes.values())
        taken += sim.taken_over
    assert acked > 30 * 5
    assert lives > 30
    assert taken > 3


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


def test_random_histories_hold_over_real_streams() -> None:
    deliveries = published = taken = 0
    for seed in range(STREAM_SEEDS):
        sim = run_stream_seed(seed, duration=3000)
        deliveries += sim.deliveries
        published += len(sim.published)
        taken += sim.taken_over
    assert published > 10 * STREAM_SEEDS
    assert deliveries > 2 * STREAM_SEEDS
    assert taken


@pytest.mark.parametrize("name", PLANTED_STREAMS)
def test_a_bug_between_log_and_state_is_found(name: str) -> None:
    def play() -> None:
        for seed in range(4, WITHIN // 20):
            run_stream_seed(seed, replica_class=PLANTED_STREAMS[name])

    with pytest.raises(Violation, match=r"^(5|6|13): "):
        play()
