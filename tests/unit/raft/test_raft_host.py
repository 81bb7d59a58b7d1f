"""RaftHost and Group over an in-memory transport: what the server relies on."""

from __future__ import annotations

import json

import pytest
from jscore_server.raft import FRAME_APPEND, FRAME_SMALL, ChangeRefused, NotLeader, ProtocolError, Role
from jscore_server.raft.candidates import Candidates
from jscore_server.raft.messages import ACK, decode
from raft_fakes import Cluster, FakeError, copy_of

THREE = ["a", "b", "c"]


@pytest.fixture
def cluster() -> Cluster:
    c = Cluster(list(THREE))
    for server in c.servers.values():
        server.create(THREE)
    c.run(2500)
    return c


def test_three_servers_elect_one_leader_and_commit_everywhere(cluster: Cluster) -> None:
    leader = cluster.leader()
    index = leader.group.propose(10, b"x")
    cluster.settle()
    assert leader.group.commit == index
    cluster.run(40)
    for server in cluster.servers.values():
        assert server.commits[-1] == index
        assert server.store.open("g").read(index).data == b"x"
        assert server.group.leader == leader.name


def test_the_role_is_told_after_the_first_commit_of_the_term(cluster: Cluster) -> None:
    leader = cluster.leader()
    assert leader.roles == [(Role.LEADER, leader.group.term)]
    assert leader.commits
    assert leader.commits[0] == 1
    assert all(not s.roles for s in cluster.servers.values() if s is not leader)


def test_only_the_leader_takes_proposals(cluster: Cluster) -> None:
    leader = cluster.leader()
    for server in cluster.servers.values():
        if server is not leader:
            with pytest.raises(NotLeader):
                server.group.propose(10, b"")


def test_nothing_commits_before_a_quorum_has_synced(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.frozen = {s for s in cluster.servers if s != leader.name}
    index = leader.group.propose(10, b"x")
    cluster.settle()
    assert leader.group.commit == index - 1
    cluster.frozen.clear()
    cluster.settle()
    assert leader.group.commit == index


def test_a_slow_leader_disk_holds_nothing_up(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.frozen = {leader.name}
    index = leader.group.propose(10, b"x")
    cluster.settle()
    assert leader.group.commit == index


def test_a_killed_leader_is_replaced_within_half_a_second_of_its_reset_links(cluster: Cluster) -> None:
    old = cluster.leader()
    index = old.group.propose(10, b"x")
    cluster.settle()
    cluster.kill(old.name)
    cluster.run(500)
    new = cluster.leader()
    assert new.store.open("g").read(index).data == b"x"
    back = cluster.start(old.name)
    back.create(THREE)
    cluster.run(1000)
    assert cluster.leader() is new
    assert back.group.commit == new.group.commit


def test_two_that_notice_a_death_in_the_same_moment_do_not_wait_for_a_time_out(cluster: Cluster) -> None:
    dead = cluster.leader().name
    cluster.kill(dead)
    for server in cluster.servers.values():
        server.group.core.deadline = server.host.ticks + 1
        server.host._schedule(server.group)
    cluster.run(100)
    assert cluster.leader().name != dead


def test_a_pre_vote_refused_by_one_who_has_not_noticed_is_asked_again_soon(cluster: Cluster) -> None:
    dead = cluster.leader().name
    late, early = (s for s in cluster.servers.values() if s.name != dead)
    cluster.kill(dead)
    late.group.core.suspect = False
    late.group.core.leader = dead
    late.group.core.deadline = late.host.ticks + 50
    cluster.run(80)
    late.group.core.suspect = True
    cluster.run(240)
    assert cluster.leader().name == early.name


def test_a_cut_off_leader_steps_down_and_its_records_give_way(cluster: Cluster) -> None:
    old = cluster.leader()
    cluster.cut = {frozenset((old.name, n)) for n in THREE if n != old.name}
    lost = old.group.propose(10, b"lost")
    cluster.run(2500)
    assert not old.group.is_leader
    assert old.roles[-1][0] is Role.FOLLOWER
    new = cluster.leader()
    kept = new.group.propose(10, b"kept")
    cluster.settle()
    cluster.cut.clear()
    cluster.run(1000)
    assert kept >= lost
    assert old.group.commit == kept
    assert b"lost" not in [r.data for r in old.store.open("g").records]


def test_records_a_stream_appended_unseen_never_count_as_the_new_leaders(cluster: Cluster) -> None:
    """The stream's C side appends on its own; the next leader's records may arrive before anybody said so."""
    old = cluster.leader()
    cluster.cut = {frozenset((old.name, n)) for n in THREE if n != old.name}
    log = old.store.open("g")
    cluster.run(2500)
    new = cluster.leader()
    for _ in range(3):  # paused in the midst of its last turn as leader, so to say
        log.append(10, b"unseen", term=old.group.term)
    log.submit()
    kept = [new.group.propose(10, b"kept") for _ in range(5)]
    cluster.settle()
    cluster.cut.clear()
    cluster.run(1500)
    assert old.group.commit == kept[-1]
    assert [r.data for r in log.records if r.data in (b"unseen", b"kept")] == [b"kept"] * 5
    assert not old.group._failed


def test_the_loss_of_leadership_is_told_before_anything_of_the_next_leader_is_applied(cluster: Cluster) -> None:
    """Else who waits for the old leader's record at an index is told of the new leader's record there."""
    old = cluster.leader()
    cluster.cut = {frozenset((old.name, n)) for n in THREE if n != old.name}
    core = old.group.core
    core.quorum_at = 1 << 40  # as if paused: it has not noticed when the new leader's records come
    waiting = old.group.propose(10, b"lost")
    for server in cluster.servers.values():
        if server is not old:
            server.host.link_down(old.name)
    cluster.run(400)
    new = next(s for s in cluster.servers.values() if s is not old and s.group.is_leader)
    while new.store.open("g").last < waiting + 3:
        new.group.propose(10, b"kept")
        cluster.settle()
    seen: list[str] = []
    old.group.on_role = lambda role, term: seen.append(role.name)
    old.group.on_commit = lambda index: seen.append("commit")
    assert old.group.is_leader
    cluster.cut.clear()
    for server in cluster.servers.values():
        if server is not old:
            server.host.link_up(old.name)
    cluster.run(1000)
    assert seen[0] == "FOLLOWER"
    assert "commit" in seen
    assert old.store.open("g").read(waiting).data != b"lost"


def test_a_sync_told_before_its_records_counts_when_they_are_told(cluster: Cluster) -> None:
    leader = cluster.leader()
    other = next(n for n in THREE if n != leader.name)
    cluster.frozen = {n for n in THREE if n not in (leader.name, other)}
    log = leader.store.open("g")
    index = log.append(10, b"x", term=leader.group.term)
    log.submit()
    log.durable = index
    leader.host.durable(log)
    leader.group.appended()
    cluster.settle()
    assert leader.group.commit == index


def test_what_a_leader_wrote_and_nobody_told_of_counts_when_another_answers(cluster: Cluster) -> None:
    leader = cluster.leader()
    other = next(n for n in THREE if n != leader.name)
    cluster.frozen = {n for n in THREE if n not in (leader.name, other)}
    log = leader.store.open("g")
    log.lazy = True
    index = log.append(10, b"x", term=leader.group.term)
    leader.group.appended()
    assert [f for f in cluster.frames if f[2] == FRAME_APPEND]  # before it is written here
    log.submit_now()
    assert log.durable == index > leader.group.commit
    cluster.settle()
    assert leader.group.commit == index


def test_a_leader_that_nobody_answers_writes_by_itself() -> None:
    alone = Cluster(["a"])
    alone.servers["a"].create(["a"])
    alone.run(2500)
    leader = alone.leader()
    log = leader.store.open("g")
    log.lazy = True
    index = log.append(10, b"x", term=leader.group.term)
    leader.group.appended()
    assert leader.group.commit == index


def test_an_ack_leaves_before_what_came_along_is_applied(cluster: Cluster) -> None:
    leader = cluster.leader()
    follower = next(s for s in cluster.servers.values() if s is not leader)
    follower.store.open("g").lazy = True
    first = leader.group.propose(10, b"x")
    cluster.settle()
    cluster.pushed.clear()
    gone: list[tuple[int, int]] = []
    follower.group.on_commit = lambda index: gone.append((index, len(cluster.pushed)))
    leader.group.propose(10, b"y")
    cluster.settle()
    assert gone == [(first, 1)]
    sender, receiver, kind, body = cluster.pushed[0]
    assert (sender, receiver, kind) == (follower.name, leader.name, FRAME_SMALL)
    assert [(m.kind, m.index) for m in decode(body, sender)] == [(ACK, first + 1)]


def test_a_log_that_cannot_be_read_stops_its_group_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = next(s for s in cluster.servers.values() if not s.group.is_leader)
    log = broken.store.open("g")

    def refuse(index: int) -> int:
        raise FakeError("bytes do not verify")

    monkeypatch.setattr(log, "term", refuse)
    cluster.kill(cluster.leader().name)
    cluster.run(3000)
    assert any("stops" in text for _, text in broken.lines)
    assert broken.host.ticks > 100  # time went on for the others


def test_a_log_that_cannot_be_cut_stops_its_group_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    old = cluster.leader()
    cluster.cut = {frozenset((old.name, n)) for n in THREE if n != old.name}
    old.group.propose(10, b"lost")
    cluster.run(2500)
    kept = cluster.leader().group.propose(10, b"kept")

    def refuse(last: int) -> None:
        raise FakeError("disk")

    monkeypatch.setattr(old.store.open("g"), "truncate", refuse)
    cluster.cut.clear()
    cluster.run(1000)
    assert any("cannot be cut" in text for _, text in old.lines)
    assert kept not in old.commits
    assert old.group.leader is None


def test_all_servers_restart_with_term_vote_and_log(cluster: Cluster) -> None:
    index = cluster.leader().group.propose(10, b"x")
    cluster.run(100)
    term = cluster.leader().group.term
    for name in THREE:
        cluster.kill(name)
    for name in THREE:
        cluster.start(name).create(["somebody", "else"])  # voters of the birth are not asked again
    cluster.run(3000)
    leader = cluster.leader()
    assert leader.group.term > term
    assert leader.group.members() == (THREE, [])
    assert leader.group.commit == index, "with nothing left open, a new leader has nothing to write"


def test_a_follower_without_space_goes_on_when_it_has_some_again(cluster: Cluster) -> None:
    leader = cluster.leader()
    follower = next(s for s in cluster.servers.values() if s is not leader)
    follower.store.open("g").full = True
    index = leader.group.propose(10, b"x")
    cluster.run(200)
    assert leader.group.commit == index
    assert follower.group.commit < index
    follower.store.open("g").full = False
    cluster.run(1500)
    assert follower.group.commit == index


def test_a_leader_without_space_hands_over_when_the_others_have_all_it_took(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.frozen = set(THREE) - {leader.name}
    leader.group.propose(10, b"x")
    cluster.run(100)
    assert not leader.group.relieve(), "where the others sync no more, neither can lead better"
    cluster.frozen.clear()
    cluster.run(100)
    last = leader.group.commit
    assert leader.group.relieve()
    cluster.run(60)
    heir = cluster.leader()
    assert heir is not leader
    assert heir.group.log.last == last, "with every disk full it could not write a record of its term"


def test_transfer_hands_over_without_an_election_timeout(cluster: Cluster) -> None:
    leader = cluster.leader()
    target = next(n for n in THREE if n != leader.name)
    leader.group.transfer(target)
    cluster.run(60)
    assert cluster.leader().name == target


def test_members_are_replaced_step_by_step(cluster: Cluster) -> None:
    cluster.leader().group.propose(10, b"x")
    cluster.start("d").create([])
    cluster.leader().group.set_members(["b", "c", "d"])
    cluster.run(6000)
    leader = cluster.leader()
    leader.group.set_members(["b", "c", "d"])
    cluster.run(6000)
    leader = cluster.leader()
    assert set(leader.group.members()[0]) == {"b", "c", "d"}
    assert cluster.servers["d"].group.commit == leader.group.commit
    assert leader.name != "a"


def test_members_are_exchanged_at_once_and_the_former_ones_learn_it(cluster: Cluster) -> None:
    for name in ("d", "e", "f"):
        cluster.start(name).create(THREE)
    old = cluster.leader()
    old.group.change(["d", "e", "f"])
    with pytest.raises(ChangeRefused):
        old.group.change(["a", "b", "d"])
    cluster.run(3000)
    leader = cluster.leader()
    assert leader.name in {"d", "e", "f"}
    assert leader.group.members() == (["d", "e", "f"], [])
    assert leader.group.changing is None
    index = leader.group.propose(10, b"x")
    cluster.settle()
    cluster.run(40)
    assert [cluster.servers[n].group.commit for n in ("d", "e", "f")] == [index] * 3
    cluster.run(3000)
    assert all(cluster.servers[n].group.removed for n in THREE if n != old.name)
    assert cluster.leader() is leader


def test_a_change_whose_newcomer_never_comes_can_be_cancelled(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.group.set_members([*THREE, "d", "e"])
    cluster.run(500)
    changing = leader.group.changing
    assert changing is not None
    assert (changing.stage, changing.waiting) == ("learners", ("d", "e"))
    leader.group.cancel_change()
    cluster.run(500)
    assert leader.group.changing is None
    assert leader.group.members() == (THREE, [])


def test_a_read_waits_for_a_round_that_began_after_it(cluster: Cluster) -> None:
    leader = cluster.leader()
    told: list[bool] = []
    leader.group.read(told.append)
    assert not told
    cluster.settle()
    assert told == [True]
    cluster.cut = {frozenset((leader.name, n)) for n in THREE if n != leader.name}
    leader.group.read(told.append)
    leader.group.read(told.append)
    cluster.run(2500)
    assert told == [True, False, False]
    with pytest.raises(NotLeader):
        leader.group.read(told.append)


def test_one_round_answers_all_reads_that_came_before_it(cluster: Cluster) -> None:
    leader = cluster.leader()
    told: list[bool] = []
    for _ in range(1000):
        leader.group.read(told.append)
    assert leader.group.core.round - leader.group.core.confirmed == 1
    cluster.settle()
    assert told == [True] * 1000
    assert leader.group.core.round == leader.group.core.confirmed


def test_from_one_voter_to_three(cluster: Cluster) -> None:
    c = Cluster(list(THREE))
    c.servers["a"].create(["a"])
    c.run(100)
    first = c.servers["a"].group.propose(10, b"x")
    c.settle()
    assert c.servers["a"].group.commit == first
    for name in "bc":
        c.servers[name].create(["a"])
    c.servers["a"].group.set_members(THREE)
    c.run(3000)
    assert set(c.servers["a"].group.members()[0]) == set(THREE)
    assert [c.servers[n].store.open("g").read(first).data for n in THREE] == [b"x"] * 3


def test_the_preferred_replica_leads_first() -> None:
    c = Cluster(list(THREE))
    for name in THREE:
        c.servers[name].create(THREE, preferred="b")
    c.run(100)
    assert c.leader().name == "b"


def test_a_vote_asked_for_before_the_group_is_here_is_heard_when_it_comes() -> None:
    c = Cluster(list(THREE))
    c.servers["b"].create(THREE, preferred="b")
    c.run(100)
    for name in "ac":
        c.servers[name].create(THREE, preferred="b")
    c.run(100)
    assert c.leader().name == "b"


def test_a_group_born_for_three_does_nothing_with_one_of_them() -> None:
    c = Cluster(["a"])
    c.servers["a"].create(["a"], expected=3)
    c.run(5000)
    assert not c.servers["a"].group.is_leader


def test_a_replica_that_lost_its_votes_neither_votes_nor_counts(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.leader().group.propose(10, b"x")
    cluster.run(100)
    victim, other = (n for n in THREE if n != leader.name)
    cluster.kill(victim)
    del cluster.stores[victim].logs["raft/hardstate"]
    cluster.start(victim).create(THREE)
    cluster.run(1000)
    assert any(level == "error" for level, _ in cluster.servers[victim].lines)
    cluster.kill(other)
    before = leader.group.commit
    index = leader.group.propose(10, b"y")
    cluster.run(60)
    assert cluster.servers[victim].store.open("g").last == index
    assert leader.group.commit == before
    cluster.start(other).create(THREE)
    cluster.run(3000)
    assert cluster.leader().group.commit >= index


def test_replicas_report_lag_and_link(cluster: Cluster) -> None:
    leader = cluster.leader()
    gone = next(n for n in THREE if n != leader.name)
    cluster.kill(gone)
    leader.group.propose(10, b"x")
    cluster.run(200)
    by_name = {r.name: r for r in leader.group.replicas()}
    assert by_name[gone].offline
    assert not by_name[gone].current
    assert by_name[gone].lag == 1
    assert by_name[gone].active_ns >= 200_000_000
    other = next(n for n in by_name if n != gone)
    assert by_name[other].current
    assert by_name[other].lag == 0
    assert 0 < by_name[other].active_ns < 200_000_000


def test_replicas_of_an_idle_group_stay_current(cluster: Cluster) -> None:
    leader = cluster.leader()
    for _ in range(300):
        cluster.run(20)
        for replica in leader.group.replicas():
            assert replica.current
            assert 0 < replica.active_ns < 800_000_000


def test_heartbeats_of_many_groups_share_a_frame() -> None:
    c = Cluster(list(THREE))
    for server in c.servers.values():
        for i in range(20):
            server.host.create_group(
                f"s{i}", server.store.open(f"s{i}"), THREE, on_commit=lambda i: None, on_role=lambda r, t: None,
                preferred="a",
            )  # fmt: skip
    c.run(1000)
    assert all(g.is_leader for g in c.servers["a"].host.groups.values())
    sent = 0
    for _ in range(50):
        c.now_ns += 20_000_000
        for server in c.servers.values():
            server.host.tick(c.now_ns)
        sent += sum(1 for f in c.frames if f[0] == "a")
        c.settle()
    assert sent <= 2 * (10 + 20)  # two peers: ten beats of the host in a second, and at most one of each idle group


def test_an_idle_group_notices_that_its_leader_went_silent(cluster: Cluster) -> None:
    cluster.run(3000)
    old = cluster.leader()
    assert old.group.core.quiet
    cluster.cut = {frozenset((old.name, n)) for n in THREE if n != old.name}
    cluster.run(1500)
    assert not old.group.is_leader
    assert cluster.leader() is not old


def missed(cluster: Cluster, ms: int, *, quiet_ms: int = 0, datagrams_go_on: bool = False) -> bool:
    """Whether all miss a leader after `ms` without a frame of it; its datagrams ended `quiet_ms` before."""
    leader = cluster.leader()
    others = [s.host for s in cluster.servers.values() if s is not leader]
    for host in others:
        host.hinted(leader.name)
    cluster.run(quiet_ms)
    cluster.cut = {frozenset((leader.name, n)) for n in THREE if n != leader.name}
    for _ in range(ms // 20):
        cluster.run(20)
        for host in others if datagrams_go_on else ():
            host.hinted(leader.name)
    return all(leader.name not in host.present for host in others)


def test_datagrams_that_end_together_with_the_link_hasten_an_election(cluster: Cluster) -> None:
    old = cluster.leader()
    assert missed(cluster, 340)
    cluster.run(300)
    assert any(s.group.is_leader and s.group.term > old.group.term for s in cluster.servers.values())


def test_datagrams_alone_keep_nobody_alive(cluster: Cluster) -> None:
    assert not missed(cluster, 340, datagrams_go_on=True)
    assert missed(cluster, 300, datagrams_go_on=True)


def test_datagrams_that_ended_before_the_link_say_nothing(cluster: Cluster) -> None:
    assert not missed(cluster, 340, quiet_ms=1000)
    assert missed(cluster, 300, quiet_ms=0)


def test_a_leader_that_was_silent_for_a_moment_is_not_deposed_by_those_who_still_wait_to_ask(cluster: Cluster) -> None:
    cluster.run(3000)
    old, term = cluster.leader(), cluster.leader().group.term
    others = [s for s in cluster.servers.values() if s is not old]
    for server in others:
        server.host.candidates = Candidates(server.name, server.host.present, 50, at_once=0)
    cluster.cut = {frozenset((old.name, server.name)) for server in others}
    cluster.run(700)
    assert all(server.group.core.suspect and server.host.candidates.crowded for server in others)
    cluster.cut = set()
    cluster.run(200)
    for server in others:
        server.host.candidates = Candidates(server.name, server.host.present, 50)
    cluster.run(5000)
    assert cluster.leader() is old
    assert old.group.term == term


def test_an_idle_group_stays_with_its_leader(cluster: Cluster) -> None:
    old, term = cluster.leader(), cluster.leader().group.term
    cluster.run(20_000)
    assert cluster.leader() is old
    assert old.group.term == term
    index = old.group.propose(10, b"x")
    cluster.run(40)
    assert all(s.commits[-1] == index for s in cluster.servers.values())


def test_hostile_frames_close_the_link_and_change_nothing(cluster: Cluster) -> None:
    leader = cluster.leader()
    term = leader.group.term
    for kind, body in ((99, b""), (FRAME_SMALL, b"\x01"), (FRAME_APPEND, b"\xff" * 40)):
        with pytest.raises(ProtocolError):
            leader.host.receive("b", kind, body)
    assert leader.group.is_leader
    assert leader.group.term == term


def test_a_removed_group_is_silent_and_forgotten(cluster: Cluster) -> None:
    server = next(s for s in cluster.servers.values() if not s.group.is_leader)
    server.host.remove_group("g")
    seen = len(server.commits)
    cluster.leader().group.propose(10, b"x")
    cluster.run(2000)
    assert len(server.commits) == seen
    assert "g" not in server.host.groups


def test_a_failed_log_ends_leadership(cluster: Cluster) -> None:
    leader = cluster.leader()
    log = leader.store.open("g")
    log.error = -5
    leader.host.durable(log)
    assert not leader.group.is_leader
    cluster.run(100)  # the others need not find out for themselves
    assert cluster.leader() is not leader


def test_a_wiped_server_learns_it_from_a_peer_and_its_replica_does_not_vote(cluster: Cluster) -> None:
    hosts = {name: server.host for name, server in cluster.servers.items()}
    for name in THREE:
        for other in THREE:
            if other != name:
                hosts[name].peer_hello(other, hosts[other].hello())
    leader = cluster.leader()
    leader.group.propose(10, b"x")
    cluster.run(100)
    victim, other = (n for n in THREE if n != leader.name)
    cluster.kill(victim)
    cluster.stores[victim].logs.clear()
    server = cluster.start(victim)
    assert not server.host.wiped
    server.host.peer_hello(other, hosts[other].hello())
    assert server.host.wiped
    server.create(THREE, lost=True)
    cluster.kill(leader.name)
    cluster.run(5000)
    assert not any(s.group.is_leader for s in cluster.servers.values())  # one intact log of three is no quorum
    cluster.start(leader.name).create(THREE)
    cluster.run(3000)
    assert server.group.commit == cluster.leader().group.commit


def greet(cluster: Cluster, *names: str) -> None:
    for a in names:
        for b in names:
            if a != b:
                cluster.servers[a].host.peer_hello(b, json.loads(json.dumps(cluster.servers[b].host.hello())))


def test_an_old_copy_of_a_servers_files_neither_votes_nor_counts(cluster: Cluster) -> None:
    """b's files are put back to what they were before it acked X, which only a holds beside it."""
    a = cluster.leader().name
    b, c = (n for n in THREE if n != a)
    greet(cluster, *THREE)
    cluster.kill(b)
    copy = copy_of(cluster.stores[b])
    cluster.start(b).create(THREE)
    greet(cluster, a, b, c)
    cluster.run(1000)
    cluster.cut = {frozenset((c, n)) for n in (a, b)}
    index = cluster.servers[a].group.propose(10, b"X")
    cluster.settle()
    assert cluster.servers[a].group.commit == index
    cluster.kill(a)
    cluster.kill(b)
    cluster.cut.clear()
    cluster.stores[b] = copy
    cluster.start(b)
    greet(cluster, b, c)
    cluster.servers[b].create(THREE)
    cluster.run(4000)
    assert not any(cluster.servers[n].group.is_leader for n in (b, c))
    cluster.start(a).create(THREE)
    greet(cluster, *THREE)
    cluster.run(4000)
    assert cluster.leader().group.commit > index
    assert all(s.store.open("g").read(index).data == b"X" for s in cluster.servers.values())
    cluster.kill(b)
    cluster.start(b).create(THREE)
    greet(cluster, *THREE)
    assert "files are old" not in " ".join(text for _, text in cluster.servers[b].lines)


def test_what_a_wiped_server_may_have_lost_ends_where_all_others_meta_logs_end(cluster: Cluster) -> None:
    wiped = cluster.servers["a"].host
    birth = ["m", THREE, 3]

    def hello(name: str, last: int, known: dict[str, str]) -> dict[str, object]:
        return {"name": name, "directory": name, "birth": birth, "elected": True, "known": known, "meta": last}

    assert not wiped.lost(7)
    wiped.peer_hello("b", hello("b", 7, {"a": "former", "c": "c"}))
    assert wiped.lost(7)
    assert wiped.lost(100)  # c may hold more
    wiped.peer_hello("c", hello("c", 9, {"a": "former", "b": "b"}))
    assert wiped.lost(9)
    assert not wiped.lost(10)
    cluster.settle()
    cluster.kill("a")
    again = cluster.start("a").host
    assert again.lost(9)
    assert not again.lost(10)


def test_leadership_moves_once_so_that_a_member_that_lost_its_vote_counts_again(cluster: Cluster) -> None:
    leader = cluster.leader()
    leader.group.propose(10, b"x")
    cluster.run(100)
    victim, other = (n for n in THREE if n != leader.name)
    cluster.kill(victim)
    cluster.stores[victim].logs.clear()
    cluster.start(victim).create(THREE, lost=True)
    assert cluster.servers[victim].group.core.hard.mute >= 0
    cluster.run(8000)
    assert cluster.servers[victim].group.core.hard.mute < 0
    assert cluster.leader().name == other
    cluster.run(8000)
    assert cluster.leader().name == other
    cluster.kill(other)
    cluster.run(3000)
    assert cluster.leader().name in (leader.name, victim)


def test_the_log_is_held_still_while_leadership_is_handed_over(cluster: Cluster) -> None:
    leader = cluster.leader()
    target = next(n for n in THREE if n != leader.name)
    cluster.frozen = set(THREE) - {leader.name}
    leader.group.propose(10, b"x")
    told: list[int] = []
    leader.group.on_hold = told.append
    leader.group.transfer(target)
    assert told == [1]
    cluster.run(700)
    assert told == [1, 2]
    cluster.run(500)
    if leader.group.is_leader:
        assert told == [1, 2, 0]
    cluster.frozen.clear()
    cluster.run(3000)
    cluster.leader().group.transfer(next(n for n in THREE if n != cluster.leader().name))
    cluster.run(200)
    assert told[-1] != 2


@pytest.mark.parametrize("hello", [{}, {"directory": 1, "birth": [1], "elected": 0}, {"birth": None, "known": 3}])
def test_a_hello_that_is_none_is_refused(cluster: Cluster, hello: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        cluster.leader().host.peer_hello("b", hello)


def test_whoever_hears_that_the_log_of_votes_failed_may_remove_the_group(cluster: Cluster) -> None:
    leader = cluster.leader()
    host = leader.host
    for number in range(2):
        host.create_group(f"h{number}", leader.store.open(f"h{number}"), THREE, on_commit=int, on_role=lambda *_: None)
    leader.group.on_role = lambda role, term: host.remove_group("g")
    host._log.error = 5
    host.durable(host._log)
    assert "g" not in host.groups


def test_a_vote_that_could_not_be_written_is_written_when_there_is_room_again(cluster: Cluster) -> None:
    for server in cluster.servers.values():
        server.host._log.full = True
    lost = cluster.leader().name
    cluster.kill(lost)
    cluster.run(2500)
    rest = list(cluster.servers.values())
    assert not any(server.group.is_leader for server in rest)
    assert all(sum("takes no more" in text for _, text in server.lines) <= 1 for server in rest)
    for server in rest:
        server.host._log.full = False
    cluster.run(2500)
    assert sum(server.group.is_leader for server in rest) == 1


def test_who_sleeps_learns_that_another_one_is_gone(cluster: Cluster) -> None:
    """Else it would say that any server may be stopped next."""
    cluster.run(5000)
    leader = cluster.leader()
    assert leader.group.core.quiet
    assert all(server.group.whole for server in cluster.servers.values())
    gone, stays = [server for server in cluster.servers.values() if server is not leader]
    cluster.kill(gone.name)
    cluster.run(200)
    assert not stays.group.whole
    assert not leader.group.whole
    cluster.run(5000)
    assert leader.group.core.quiet
    assert not stays.group.whole


def test_who_sleeps_is_woken_by_a_leader_that_fails_as_it_wakes(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server goes on, so nobody else would miss it."""
    cluster.run(5000)
    leader = cluster.leader()
    assert leader.group.core.quiet

    def refuse(*args: object) -> int:
        raise FakeError("bytes do not verify")

    monkeypatch.setattr(leader.host.transport, "send_records", refuse)
    leader.group.propose(10, b"x")
    assert leader.group.stopped
    cluster.run(3000)
    assert cluster.leader() is not leader


def test_who_may_not_vote_is_not_chosen_where_another_one_can_lead(cluster: Cluster) -> None:
    leader = cluster.leader()
    mute = max(n for n in THREE if n != leader.name)
    leader.group.core.progress[mute].counted = False
    leader.group.step_down()
    assert leader.group.core.transferee not in ("", mute)


def test_what_was_written_behind_a_vote_without_room_does_not_wait_for_it_for_ever(cluster: Cluster) -> None:
    server = next(s for s in cluster.servers.values() if not s.group.is_leader)
    host = server.host
    other = host.create_group("h", server.store.open("h"), ["x", "y", "z"], on_commit=int, on_role=lambda *_: None)
    cluster.run(2000)
    host._log.full = True
    server.group.core._persist()
    server.group.drain()
    host._log.full = False
    other.core._persist()
    other.drain()
    host._log.full = True
    cluster.settle()
    host.remove_group("g")
    cluster.run(2000)
    assert other.core.hard_durable == other.core.hard_seq
