"""Scenarios of spec/raft.md §6 about the log, truncation and recovery: K-34 to K-53, K-57, K-61."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from jscore_server.raft.core import Role

import jscore

from .compared import Compared
from .engine import EngineLog, Platter
from .model import Bugs, ModelLog, Violation
from .simulator import run_seed
from .stage import Stage


def k34_an_old_append_cuts_nothing() -> None:
    s = Stage()
    leader = s.leader()
    follower, _ = s.others(leader)
    s.put(5)
    core, log = s.core(leader), s.nodes[follower].log
    old = log.slice(1, 3)
    s.put(5)
    s.go(50)
    last = log.last
    for _ in range(3):
        s.on_append(leader, follower, core.term, 0, 0, 2, list(old[0]), list(old[1]))
        s.on_append(leader, follower, core.term, 1, old[0][0], 0, [], [])
    assert log.last == last
    s.settle()


def divergence(name: str = "") -> tuple[Stage, str]:
    """A cut-off leader with records that give way, and others in their places."""
    s = Stage()
    leader = s.leader()
    s.put(3)
    s.cut(leader)
    s.send(leader, 30)
    s.until(lambda: s.leads() not in ("", leader))
    s.put(4)
    return s, leader


def k35_nothing_of_a_cut_suffix_comes_back() -> None:
    s, old = divergence()
    s.join()
    s.put(40)
    s.go(100)
    s.crash(old)
    s.back(old)
    s.settle()
    assert s.nodes[old].log.data[: len(s.ghost_data)] == s.ghost_data


def k36_the_commit_index_never_goes_back() -> None:
    s, old = divergence()
    before = s.core(old).commit
    s.join()
    while s.core(old).commit == before:
        s.go(1)
        assert s.core(old).commit >= before
    s.settle()


@pytest.mark.parametrize("seed", range(5))
def k38_a_truncation_holds_after_a_power_cut(seed: int) -> None:
    rng = random.Random(seed)
    log = EngineLog("n0", Platter(seed + 1), {})
    try:
        for term, count, cut in ((1, 200, 150), (2, 10, 155), (3, 3, 100)):
            for _ in range(count):
                log.append(term, f"{term}")
            log.sync(log.last)
            log.truncate(cut)
            log.power_cut(rng, [], b"")
            assert log.last == cut
    finally:
        log.close()


@pytest.mark.parametrize("seed", range(20))
def k39_unsynced_records_come_back_as_a_prefix_or_not_at_all(seed: int) -> None:
    rng = random.Random(seed)
    log = EngineLog("n0", Platter(seed + 1), {})
    try:
        for _ in range(6):
            for _ in range(rng.randrange(1, 200)):
                log.append(1, "x" * rng.randrange(1, 900))
            log.power_cut(rng, [], b"")  # compares with what was written
    finally:
        log.close()


@pytest.mark.parametrize("seed", range(10))
def k40_a_crash_around_a_new_segment(seed: int) -> None:
    rng = random.Random(seed)
    log = EngineLog("n0", Platter(seed + 1), {})
    try:
        for _ in range(25):
            for _ in range(rng.randrange(1, 14)):
                log.append(1, "y" * 600)  # a segment holds thirteen
                if rng.random() < 0.5:
                    log.sync(log.last)
            log.power_cut(rng, [], b"")
    finally:
        log.close()


@pytest.mark.parametrize("seed", range(10))
def k41_overwritten_bytes_never_verify(seed: int) -> None:
    rng = random.Random(seed)
    log = EngineLog("n0", Platter(seed + 1), {})
    try:
        for term in range(1, 20):
            for _ in range(rng.randrange(1, 60)):
                log.append(term, "same bytes")
            if rng.random() < 0.7:
                log.sync(log.last)
            log.truncate(rng.randint(0, log.last))
            for _ in range(rng.randrange(3)):
                log.append(term, "same bytes")
            log.power_cut(rng, [], b"")
    finally:
        log.close()


def found_in(seeds: int, bugs: Bugs) -> bool:
    for seed in range(seeds):
        try:
            run_seed(seed, bugs=bugs)
        except Violation:
            return True
    return False


def k42_a_sync_that_is_left_out_is_noticed() -> None:
    assert found_in(50, Bugs(lose_synced=True))


def k44_damage_is_no_end_of_the_log() -> None:
    assert found_in(400, Bugs(cut_damage=True))


class Rotten(ModelLog):
    """One record of it does not verify."""

    __slots__ = ("rotten",)

    def __init__(self, *begins: int) -> None:
        super().__init__(*begins)
        self.rotten = 0

    def copy(self, lo: int, hi: int, cap: int) -> tuple[Any, int]:
        if lo == self.rotten:
            raise jscore.Corrupt
        return super().copy(lo, min(hi, self.rotten - 1) if lo < self.rotten else hi, cap)


@pytest.mark.parametrize("behind", [1, 2, 3])
@pytest.mark.parametrize("more", [0, 1, 4])
def k44_damage_among_records_that_gave_way_elsewhere(more: int, behind: int) -> None:
    """What others have in its place follows other records; and there may be nothing in its place."""
    s = Stage(make_log=lambda name: Rotten())
    former = s.leader()
    s.put(10)
    s.go(300)
    s.cut(former)
    s.send(former, 3)
    s.until(lambda: s.nodes[former].log.durable == 14)
    s.until(lambda: s.leads() not in ("", former))
    if more:
        s.put(more)
    s.crash(former)
    node = s.nodes[former]
    node.log.rotten = 11 + behind
    s.begin_repair(node, 0, own=True)
    s.join()
    s.until(lambda: node.core is not None)
    assert node.log.terms == sorted(node.log.terms)
    s.join()
    s.put(3)
    s.settle()


def k45_a_failed_sync_is_never_taken_for_one() -> None:
    s = Stage()
    leader = s.leader()
    broken, _ = s.others(leader)
    s.nodes[broken].fails = True
    s.put()
    s.until(lambda: s.nodes[broken].broken)
    durable = s.nodes[broken].log.durable
    s.put(5)
    assert s.core(leader).progress[broken].match <= durable
    s.nodes[leader].fails = True
    s.send(leader)
    s.until(lambda: s.nodes[leader].broken)
    assert s.core(leader).role is Role.FOLLOWER
    s.settle()


def k46_one_process_a_directory(tmp_path: Path) -> None:
    with jscore.Store() as store:
        log = store.open(str(tmp_path / "log"))
        with jscore.Store() as second, pytest.raises(jscore.Error):
            second.open(str(tmp_path / "log"))
        log.close()


@pytest.mark.parametrize("seed", range(10))
def k48_one_torn_one_damaged_the_third_alive(seed: int) -> None:
    s = Stage(3, seed=seed)
    leader = s.leader()
    damaged, torn = s.others(leader)
    s.put(20)
    s.nodes[torn].disk = 50.0
    s.put(5)
    s.crash(torn)
    s.lose(damaged, keep=s.rng.randrange(1, 10))
    s.go(s.rng.randrange(200))
    s.back(torn, damaged)
    s.put(5)
    s.settle()


@pytest.mark.parametrize("seed", range(10))
def k49_one_of_the_quorum_loses_power_the_other_is_paused(seed: int) -> None:
    s = Stage(3, seed=seed)
    leader = s.leader()
    holder, behind = s.others(leader)
    s.cut(behind)
    s.put(10)
    s.crash(holder)
    s.pause(leader, 6000)
    s.join()
    s.back(holder)
    s.until(lambda: s.leads() == holder, 8000)
    s.go(6000)
    s.settle()


@pytest.mark.parametrize("seed", range(20))
def k50_everybody_loses_power_at_once(seed: int) -> None:
    s = Stage(3, seed=seed)
    for node in s.nodes.values():
        node.disk = 20.0
    for _ in range(5):
        s.put(4)
        s.send(s.leader(), 10)
        s.go(s.rng.randrange(30))
        for name in s.names:
            s.crash(name)
        s.go(s.rng.randrange(500))
        s.back(*s.names)
    s.settle()


@pytest.mark.parametrize("what", ["record", "votes"])
def k51_one_flipped_bit_on_one_host(what: str) -> None:
    s = Stage()
    leader = s.leader()
    hurt, behind = s.others(leader)
    s.cut(behind)
    s.put(20)
    s.lose(hurt, keep=7 if what == "record" else s.nodes[hurt].log.last)
    s.crash(leader)
    s.join()
    s.back(hurt)
    s.nobody_leads(5000)
    s.back(leader)
    s.put(3)
    s.settle()


@pytest.mark.parametrize("seed", range(20))
def k53_a_log_that_differs_is_found_and_repaired(seed: int) -> None:
    """One record of one replica, or one each of two; through lost messages, a crash and another leader.

    They are altered when they are applied: the simulator's own checks see whatever is applied.
    """
    rng = random.Random(seed)
    s = Compared(rng.choice([3, 5]), seed=seed)
    s.put(40)
    s.go(3000)
    leader = s.leader()
    hurt = rng.sample(s.core(leader).members.voters, rng.choice([1, 1, 2]))
    places = rng.sample(range(2, 40, 12), len(hurt))  # in ranges of their own: a majority agrees on each
    for name, place in zip(hurt, places, strict=True):
        s.nodes[name].log.data[place] = "altered"
    assert not s.equal()
    s.core(leader).transfer(rng.choice(s.others(leader)))  # whoever leads next compares all of it
    s.drain(s.nodes[leader])
    s.faults, s.loss, s.delay, s.duplicates = True, 0.1 * rng.random(), 1 + rng.randint(0, 40), 0.1 * rng.random()
    s.go(rng.randint(0, 3000))
    well = [name for name in s.names[: len(s.core(leader).members.voters)] if name not in hurt]
    if rng.random() < 0.5:
        lost = rng.choice(well)
        s.crash(lost)
        s.go(rng.randint(0, 3000))
        s.back(lost)
    s.until(s.equal, 90_000, 100)
    s.faults = False
    told = {name for name, found in s.found if found.agreed}
    assert told
    assert told <= set(hurt), "only who was wrong is told so"
    s.settle()


def k53_without_a_majority_nothing_is_touched() -> None:
    s = Compared(2)
    s.put(40)
    s.go(3000)
    leader = s.leader()
    other = s.others(leader)[0]
    s.nodes[other].log.data[7] = "altered"
    s.core(leader).transfer(other)
    s.drain(s.nodes[leader])
    s.go(60_000)
    assert [(name, found.agreed) for name, found in s.found] == [(other, ())]
    assert s.nodes[other].log.data[7] == "altered" != s.nodes[leader].log.data[7]


def k57_a_learner_catches_up_though_publishing_goes_on() -> None:
    s = Stage()
    s.put(300)
    s.cap = 3
    s.change("n0", "n1", "n2", "n3", "n4")
    for _ in range(40):
        s.put(4)
        s.go(20)
    s.changed("n0", "n1", "n2", "n3", "n4", ms=1000)
    s.settle()


def k61_a_proposal_to_an_old_leader_is_not_the_new_ones() -> None:
    s, old = divergence()
    lost = s.send(old, 3)
    s.join()
    s.settle()
    assert not any(key in s.acked for key in lost)
    assert not any(key in s.ghost_data for key in lost)
