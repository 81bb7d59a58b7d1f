"""What several servers say of a cluster, judged."""

from __future__ import annotations

from typing import Any

import pytest
from jscore_server.cluster_status import BROKEN, DEGRADED, HEALTHY, judge, text, version_key

NAMES = ("n1", "n2", "n3", "n4", "n5")


def view(name: str, *, size: int = 3, leader: str = "n1", well: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    voters = list(NAMES[:size])
    meta: dict[str, Any] = {
        "voters": voters,
        "learners": [],
        "quorum_needed": size // 2 + 1,
        "term": 3,
        "current": True,
    }
    if leader:
        meta["leader"] = leader
    if name == leader:
        meta |= {"well": sorted(well or voters), "offline": {"total": 0, "first": []}}
    return {
        "name": name, "cluster": "C", "version": "2.14.5", "jscore_version": "0.1.0", "lame_duck": False,
        "jetstream": True, "clustered": True, "meta": meta,
        "groups": {"total": 3, "held": 3, "led": 1, "single": 0}, "unhealthy": [], "unhealthy_total": 0, "needs": {},
        **more,
    }  # fmt: skip


def free(status: Any) -> list[str]:
    return [server.name for server in status.servers if server.may_stop]


def test_all_well() -> None:
    status = judge([view(name) for name in NAMES[:3]])
    assert (status.code, free(status)) == (HEALTHY, ["n1", "n2", "n3"])
    assert "n1, n2 or n3 may be stopped, one at a time" in text(status)


def test_the_oldest_version_goes_next_and_the_meta_leader_last() -> None:
    versions = dict(zip(NAMES, ("0.9.0", "0.10.0", "0.9.0"), strict=False))
    status = judge([view(name, jscore_version=versions[name]) for name in versions])
    assert status.next_step.startswith("Upgrade n3, which still runs 0.9.0")
    assert version_key("0.9.0") < version_key("0.10.0")


def test_who_would_be_missed_may_not_stop() -> None:
    needs = {"n2": {"groups": 2, "small": 0, "first": "A > S"}, "n1": {"groups": 0, "small": 1, "first": ""}}
    ill = [{"name": "A > S", "reason": "replicas are not current", "missing": ["n3"], "lag": 120}]
    status = judge([view("n1", needs=needs, unhealthy=ill, unhealthy_total=1), view("n2"), view("n3")])
    assert (status.code, free(status)) == (DEGRADED, ["n1", "n3"])
    assert status.servers[1].why == "stream 'A > S' and 1 more would lose quorum"
    assert status.servers[0].small == 1
    assert "1 stream of one or two replicas stands still without it" in text(status)
    assert status.next_step.startswith("Stop nothing: wait until n3 caught up")


def test_a_replica_whose_server_left_the_cluster_waits_for_a_new_server() -> None:
    ill = [{"name": "A > S", "reason": "replicas are not current", "missing": ["n9"], "lag": 1}]
    status = judge([view("n1", unhealthy=ill, unhealthy_total=1), view("n2"), view("n3")])
    assert status.next_step.startswith("Start a new server to take a replica's place: n9 left the cluster")


def test_of_five_two_may_be_away() -> None:
    views = [view(name, size=5, well=NAMES[:4]) for name in NAMES[:4]]
    for each in views:
        each["groups"]["total"] = 4
    status = judge(views)
    assert (status.code, free(status)) == (DEGRADED, ["n1", "n2", "n3", "n4"])
    assert status.next_step.startswith("Start n5, which does not answer")


@pytest.mark.parametrize(("leader", "answering", "step"), [
    ("", 1, "Start n2 or n3: the meta group needs 1 more of its 3 voters."),
    ("", 3, "Stop nothing and ask again"),
])  # fmt: skip
def test_without_a_meta_leader_nobody_may_stop(leader: str, answering: int, step: str) -> None:
    status = judge([view(name, leader=leader) for name in NAMES[:answering]])
    assert (status.code, free(status)) == (BROKEN, [])
    assert status.next_step.startswith(step)


def test_a_claim_to_lead_from_an_older_term_does_not_count() -> None:
    """A leader that was cut off still believes to lead when it is asked."""
    old = view("n2", leader="n2", well=("n2",))
    old["meta"]["term"] = 2
    status = judge([view("n1"), old, view("n3")])
    assert status.meta is not None
    assert (status.meta.leader, status.meta.term) == ("n1", 3)


def test_a_stream_without_a_leader_is_no_quorum() -> None:
    ill = [{"name": "A > S", "reason": "no leader", "server": "n2"}]
    status = judge([view("n1"), view("n2", unhealthy=ill, unhealthy_total=1), view("n3")])
    assert (status.code, status.leaderless, free(status)) == (BROKEN, ["A > S"], [])


def test_nobody() -> None:
    assert judge([]).code == BROKEN
    assert judge([{"name": "x", "jetstream": False}]).verdict == "unreachable"
