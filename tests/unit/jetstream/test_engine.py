"""The engine over the real log and the real Raft: one server and three, with restarts and lost servers.

Streams are the fakes' (which keep the contract of the C stream over real logs); links are queues; time is stepped.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
from jscore_server.jetstream import assignments, engine
from jscore_server.jetstream.engine import OPEN_SLICE_NS, JetStream, Options
from jscore_server.jetstream.meta import UpdateStream, encode_snapshot
from jscore_server.raft import Birth, RaftHost

import jscore
from tests.altered import rewrite

TICK_NS = 20_000_000


class Link:
    """One server's transport: frames into the queues of those that are up."""

    def __init__(self, world: RealWorld, name: str) -> None:
        self.world, self.name = world, name

    def connected(self, peer: str) -> bool:
        return peer in self.world.up and self.name in self.world.up

    def send(self, peer: str, kind: int, body: bytes) -> bool:
        if not self.connected(peer):
            return False
        self.world.frames.append((self.name, peer, kind, bytes(body)))
        return True

    def push(self) -> None:
        pass

    def send_records(self, peer: str, kind: int, head: bytes, log: jscore.RecordLog, lo: int, hi: int, cap: int) -> int:
        raw, last = log.copy(lo, hi, cap)
        return int(last) if self.send(peer, kind, head + bytes(raw)) else 0


class RealWorld(fakes.World):
    """A World whose logs and Raft are real."""

    def __init__(self, directory: Path, names: list[str], **how: Any) -> None:
        super().__init__(directory, names, **how)
        self.founders = list(names)
        self.called: dict[str, str] = {}  # another name a server starts under
        self.frames: deque[tuple[str, str, int, bytes]] = deque()
        self.real: dict[str, tuple[jscore.Store, RaftHost]] = {}
        self.mono_ns = 1
        self.trims = False  # whether meta logs let go of what a snapshot says
        self.told: dict[jscore.RecordLog, int] = {}  # the durable index Raft was last told of

    def start(self, *names: str) -> None:
        for name in names or self.names:
            root = self.directory / name
            root.mkdir(exist_ok=True)
            store = jscore.Store("always" if self.trims else "never")
            raft = RaftHost(
                self.called.get(name, name),
                store,
                str(root),
                Link(self, name),
                rng=random.Random(name),
                log_line=lambda level, text: None,
            )
            self.real[name] = store, raft
            self.planes[name] = fakes.FakePlane(self, name)
            engine = JetStream(
                Options(directory=str(root)),
                self.planes[name],
                store,
                raft,
                server_name=self.called.get(name, name),
                cluster_name="C" if self.clustered else None,
                loop=fakes.FakeLoop(self),
                rng=random.Random(f"seed {name}"),
                clock=lambda: self.now_ns,
                log=self.lines[name],
            )
            self.planes[name].engine = self.engines[name] = engine
            engine.start()
            if self.trims:
                engine.assignments.start()
            if raft.birth is None and name in self.founders:
                raft.born(Birth("_meta_", tuple(self.founders), len(self.founders)))
            if raft.birth is not None:
                engine.meta_bootstrap(list(raft.birth.voters), raft.birth.expected)
            self.up.append(name)
            for other in self.up[:-1]:
                for here, there in ((name, other), (other, name)):
                    hello = json.loads(json.dumps(self.real[there][1].hello()))
                    self.real[here][1].link_up(there)
                    self.real[here][1].peer_hello(there, hello)
                    self.engines[here].peer_joined(there, {**hello, "jetstream": True})
        self.settle(3)

    def stop(self, name: str) -> None:
        self.up.remove(name)
        self.frames = deque(f for f in self.frames if name not in f[:2])
        for other in self.up:
            self.real[other][1].link_down(name)
            self.engines[other].peer_left(name)
        store, raft = self.real.pop(name)
        self.engines[name].stop()
        raft.close()
        store.close()
        self.settle(3)

    def settle(self, seconds: float = 0.2) -> None:
        """Lets time pass in ticks; within each, everything that can be durable or delivered is."""
        for _ in range(max(1, int(seconds * 1e9) // TICK_NS)):
            self.now_ns += TICK_NS
            self.mono_ns += TICK_NS
            for name in list(self.up):
                self.real[name][1].tick(self.mono_ns)
            busy = True
            while busy:
                busy = self._step()

    def real_settle(self) -> None:
        """Time for what another thread writes, too: until nothing of it is left."""
        for _ in range(6):
            self.settle(1)
            for name in self.up:
                written = self.engines[name].assignments._written
                if written is not None:
                    written.exception()
        self.settle(1)

    def _step(self) -> bool:
        busy = bool(self.queue or self.frames)
        while self.queue:
            self.queue.popleft()()
        while self.frames:
            source, target, kind, body = self.frames.popleft()
            self.real[target][1].receive(source, kind, body)
        while self.timers and self.timers[0][0] <= self.now_ns:
            fakes.heapq.heappop(self.timers)[2]()
            busy = True
        for name in list(self.up):
            _, raft = self.real[name]
            engine = self.engines[name]
            for log in [raft._log, engine.meta_log, *(a.log for a in list(engine.assets.values()))]:
                while self.queue:  # what was appended is told before that it is durable, as the plane's events are
                    self.queue.popleft()()
                gone = log not in (raft._log, engine.meta_log, *(a.log for a in engine.assets.values()))
                if not gone and self.told.get(log) != log.last:
                    log.submit()
                    log.wait(log.last)
                    self.told[log] = log.last
                    raft.durable(log)
                    busy = True
        return busy


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RealWorld]:
    w = RealWorld(tmp_path, ["n0", "n1", "n2"])
    w.start()
    yield w
    for name in list(w.up):
        w.stop(name)


def make(world: RealWorld, name: str, replicas: int) -> Any:
    body = {"name": name, "subjects": [f"{name.lower()}.>"], "num_replicas": replicas}
    return world.one(f"STREAM.CREATE.{name}", body, seconds=2)


def leader_of(world: RealWorld, name: str) -> str:
    return next(n for n in world.up if (a := world.engines[n].asset("$G", name)) is not None and a.leading)


def no_errors(world: RealWorld) -> bool:
    return all(not lines.errors() for lines in world.lines.values())


def test_a_single_server_keeps_everything_over_a_restart(tmp_path: Path) -> None:
    world = RealWorld(tmp_path, ["n0"])
    world.start()
    answer = make(world, "S", 1)
    assert answer.get("did_create") is True, answer
    world.engines["n0"].asset("$G", "S").stream.publish("s.a", b"x")
    body = {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}}
    assert world.one("CONSUMER.CREATE.S.c", body)["name"] == "c"
    make(world, "T", 1)
    assert world.one("STREAM.DELETE.T")["success"] is True
    world.stop("n0")
    world.start("n0")
    assert world.one("STREAM.NAMES")["streams"] == ["S"]
    assert world.one("STREAM.INFO.S")["state"]["messages"] == 1
    assert world.one("CONSUMER.NAMES.S")["consumers"] == ["c"]
    assert world.one("STREAM.DELETE.S")["success"] is True
    assert no_errors(world)
    world.stop("n0")


def test_a_single_server_may_change_its_name(tmp_path: Path) -> None:
    world = RealWorld(tmp_path, ["n0"])
    world.start()
    make(world, "S", 1)
    world.stop("n0")
    world.called["n0"] = "another"
    world.start("n0")
    assert world.one("STREAM.INFO.S")["cluster"] == {"leader": "another"}
    answer = make(world, "T", 1)
    assert answer.get("did_create") is True, answer
    world.stop("n0")


def test_a_replicated_stream_lives_through_the_loss_of_its_leader(world: RealWorld) -> None:
    first = make(world, "S", 3)
    assert first["did_create"] is True
    assert len(first["cluster"]["replicas"]) == 2
    body = {"stream_name": "S", "config": {"durable_name": "c", "ack_policy": "explicit"}}
    assert world.one("CONSUMER.CREATE.S.c", body, seconds=1)["name"] == "c"
    lost = leader_of(world, "S")
    world.engines[lost].asset("$G", "S").stream.publish("s.a", b"x")
    world.settle(1)
    world.stop(lost)
    info = world.one("STREAM.INFO.S", seconds=2)
    assert info["state"]["messages"] == 1
    assert info["cluster"]["leader"] == leader_of(world, "S") != lost
    assert world.one("CONSUMER.INFO.S.c", seconds=2)["name"] == "c"
    assert make(world, "T", 3)["did_create"] is True
    world.start(lost)
    assert world.engines[lost].asset("$G", "T").config.name == "T"
    assert world.engines[lost].asset("$G", "S").stream.state().messages == 1
    assert no_errors(world)


@pytest.mark.parametrize("slice_ns", [OPEN_SLICE_NS, 0], ids=["at once", "one by one"])
def test_the_whole_cluster_comes_back(world: RealWorld, monkeypatch: pytest.MonkeyPatch, slice_ns: int) -> None:
    monkeypatch.setattr(engine, "OPEN_SLICE_NS", slice_ns)
    make(world, "S", 3)
    make(world, "T", 1)
    make(world, "GONE", 3)
    assert world.one("STREAM.DELETE.GONE", seconds=2)["success"] is True
    world.engines[leader_of(world, "S")].asset("$G", "S").stream.publish("s.a", b"x")
    world.settle(1)
    for name in world.names:
        world.stop(name)
    world.start()
    assert world.one("STREAM.NAMES", seconds=1)["streams"] == ["S", "T"]
    assert world.one("STREAM.INFO.S", seconds=1)["state"]["messages"] == 1
    assert world.one("STREAM.INFO.T", seconds=1)["config"]["name"] == "T"
    assert no_errors(world)


def test_the_only_holder_that_ended_before_it_heard_of_the_move_hands_over_when_it_is_back(world: RealWorld) -> None:
    make(world, "S", 1)
    holder = leader_of(world, "S")
    world.engines[holder].asset("$G", "S").stream.publish("s.a", b"kept")
    world.settle(1)
    world.stop(holder)
    world.settle(5)
    planner = next(n for n in world.up if world.engines[n].is_meta_leader)
    now = world.engines[planner].state.get("$G", "S")
    entry = UpdateStream("$G", "S", now.group, now.config, peers=[planner], moves=True)
    world.engines[planner].propose_meta(entry)
    world.settle(2)
    world.start(holder)
    world.settle(20)
    assert leader_of(world, "S") == planner
    assert [m.data for m in world.engines[planner].asset("$G", "S").stream.messages.values()] == [b"kept"]
    assert world.engines[holder].asset("$G", "S") is None


def test_a_damaged_only_copy_that_cannot_be_copied_is_served_after_a_restart_too(trimming: RealWorld) -> None:
    world = trimming  # what it writes is synced: no damage is taken for a torn end
    make(world, "S", 1)
    holder = leader_of(world, "S")
    stream = world.engines[holder].asset("$G", "S").stream
    for data in (b"first", b"second", b"third"):
        stream.publish("s.a", data)
    world.settle(1)
    path = world.engines[holder].asset("$G", "S").log.path
    world.stop(holder)
    segment = next(Path(path).glob("*.seg"))
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"second")] ^= 1
    segment.write_bytes(raw)
    world.settle(5)
    planner = next(n for n in world.up if world.engines[n].is_meta_leader)
    now = world.engines[planner].state.get("$G", "S")
    config = {**now.config, "num_replicas": 3}
    world.engines[planner].propose_meta(UpdateStream("$G", "S", now.group, config, peers=sorted(world.names)))
    world.settle(2)
    world.start(holder)
    world.settle(10)
    assert leader_of(world, "S") == holder
    assert any("gets no replicas" in line for line in world.lines[holder].errors())


def test_leadership_is_handed_over_on_request(world: RealWorld) -> None:
    make(world, "S", 3)
    leader = leader_of(world, "S")
    other = next(n for n in world.names if n != leader)
    body = {"placement": {"preferred": other}}
    assert world.one("STREAM.LEADER.STEPDOWN.S", body, seconds=1)["success"] is True
    world.settle(1)
    assert leader_of(world, "S") == other
    assert no_errors(world)


def test_a_leader_without_space_leaves_the_lead_to_another(world: RealWorld) -> None:
    """And where no disk has any, leadership does not go round without end."""
    make(world, "S", 3)
    led = []
    for _ in range(4):
        led.append(leader_of(world, "S"))
        engine = world.engines[led[-1]]
        engine.stream_full(engine.asset("$G", "S").id, True)
        world.settle(0.8)
    assert led[1] != led[0]
    assert led[3] in led[:3]
    assert leader_of(world, "S") == led[3]
    world.settle(10)
    assert leader_of(world, "S") != led[3]


def test_a_server_that_comes_later_becomes_a_member_and_gets_streams(world: RealWorld) -> None:
    make(world, "S", 3)
    world.names.append("n3")
    world.stores["n3"], world.lines["n3"] = fakes.FakeStore(), fakes.Lines()
    world.start("n3")
    world.settle(3)
    assert all(world.engines[n].meta.members() == (["n0", "n1", "n2", "n3"], []) for n in world.names)
    assert world.one("STREAM.NAMES", at="n3", seconds=1)["streams"] == ["S"]
    make(world, "T", 3)
    assert world.engines["n3"].asset("$G", "T") is not None
    world.stop("n3")
    world.start("n3")
    assert world.engines["n3"].asset("$G", "T").config.name == "T"
    assert no_errors(world)


def test_a_meta_leader_that_cannot_apply_leaves_the_lead_to_somebody_who_can(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = next(n for n in world.up if world.engines[n].is_meta_leader)

    def unreadable(index: int, data: bytes) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(world.engines[broken].state, "apply", unreadable)
    make(world, "S", 3)
    world.settle(3)
    leaders = [n for n in world.up if world.engines[n].is_meta_leader]
    assert len(leaders) == 1
    assert leaders != [broken]
    assert make(world, "T", 3)["did_create"] is True


def test_a_replica_that_failed_hands_over_again_when_the_first_try_came_to_nothing(world: RealWorld) -> None:
    make(world, "S", 3)
    failed = leader_of(world, "S")
    others = {n for n in world.names if n != failed}
    group = world.engines[failed].asset("$G", "S").group
    target = max((p for n, p in group.core.progress.items() if n in others), key=lambda p: (p.match, p.name)).name
    send = Link.send

    def deaf(self: Link, peer: str, kind: int, body: bytes) -> bool:
        return {self.name, peer} == {failed, target} or send(self, peer, kind, body)  # lost on its way

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "send", deaf)
        world.engines[failed].asset("$G", "S").fail("a record cannot be read")
        world.settle(1.4)
    world.settle(4)
    assert leader_of(world, "S") != failed


@pytest.fixture
def trimming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealWorld]:
    """Three whose meta logs let go of their start after a few entries."""
    monkeypatch.setattr(assignments, "WORTH_BYTES", 4096)
    monkeypatch.setattr(assignments, "RETAIN_BYTES", 0)
    w = RealWorld(tmp_path, ["n0", "n1", "n2"])
    w.trims = True
    w.start()
    yield w
    for name in list(w.up):
        w.stop(name)


def begins(world: RealWorld, *names: str) -> list[int]:
    return [world.engines[n].meta_log.first for n in names or world.up]


def come_and_go(world: RealWorld, count: int = 4) -> None:
    """Streams, until the meta logs that are there begin later."""
    before = max(begins(world))
    for turn in range(40):
        for n in range(count):
            assert make(world, f"X{n}", 3)["did_create"] is True
            assert world.one(f"STREAM.DELETE.X{n}", seconds=2)["success"] is True
        world.real_settle()
        if min(begins(world)) > before:
            return
        assert turn < 39, begins(world)


def assigned(world: RealWorld, name: str) -> bytes:
    """All of the state, and it is that of a fold over all entries."""
    return encode_snapshot(world.engines[name].state.snapshot(0, b""))


def test_the_meta_log_lets_go_and_a_restart_knows_all(trimming: RealWorld) -> None:
    world = trimming
    make(world, "S", 3)
    make(world, "T", 1)
    come_and_go(world)
    before = [assigned(world, n) for n in world.names]
    for name in world.names:
        world.stop(name)
    world.start()
    world.settle(1)
    assert [assigned(world, n) for n in world.names] == before
    assert len(set(before)) == 1
    assert all(first > 1 for first in begins(world))
    assert world.one("STREAM.NAMES", seconds=1)["streams"] == ["S", "T"]
    assert world.one("STREAM.INFO.T", seconds=1)["config"]["name"] == "T"
    assert make(world, "U", 3)["did_create"] is True
    assert no_errors(world)


def test_who_was_away_takes_the_assignments_over(trimming: RealWorld) -> None:
    """What was deleted meanwhile goes there, what was made anew under the same name is another stream."""
    world = trimming
    for name in ("S", "GONE", "AGAIN"):
        make(world, name, 3)
    away = next(n for n in world.names if not world.engines[n].is_meta_leader)
    world.stop(away)
    again = world.engines[world.up[0]].state.get("$G", "AGAIN").group
    for name in ("GONE", "AGAIN"):
        assert world.one(f"STREAM.DELETE.{name}", seconds=2)["success"] is True
    make(world, "AGAIN", 1)
    come_and_go(world)
    world.start(away)
    world.real_settle()
    engine = world.engines[away]
    assert begins(world, away)[0] > 1
    assert assigned(world, away) == assigned(world, next(n for n in world.up if n != away))
    assert engine.asset("$G", "S") is not None
    assert engine.asset("$G", "GONE") is None
    asset = engine.asset("$G", "AGAIN")
    assert asset is None or asset.assignment.group != again
    assert not engine.meta_failed
    make(world, "U", 3)
    assert world.engines[away].asset("$G", "U") is not None


def test_a_new_server_begins_with_the_assignments_of_the_others(trimming: RealWorld) -> None:
    world = trimming
    make(world, "S", 3)
    come_and_go(world)
    world.names.append("n3")
    world.stores["n3"], world.lines["n3"] = fakes.FakeStore(), fakes.Lines()
    world.start("n3")
    world.real_settle()
    assert all(world.engines[n].meta.members() == (["n0", "n1", "n2", "n3"], []) for n in world.names)
    assert begins(world, "n3")[0] > 1
    assert assigned(world, "n3") == assigned(world, "n0")
    assert world.one("STREAM.NAMES", at="n3", seconds=1)["streams"] == ["S"]


def hurt(world: RealWorld, name: str) -> None:
    for copy in ("snapshot", "snapshot.copy"):
        path = world.directory / name / "_meta_" / copy
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)


def test_a_damaged_meta_snapshot_comes_from_the_others_and_nothing_is_taken_for_deleted(trimming: RealWorld) -> None:
    world = trimming
    make(world, "S", 3)
    make(world, "T", 3)
    come_and_go(world)
    world.stop("n1")
    hurt(world, "n1")
    world.start("n1")
    world.real_settle()
    assert assigned(world, "n1") == assigned(world, "n0")
    assert [world.engines["n1"].asset("$G", n) is not None for n in ("S", "T")] == [True, True]
    assert not list((world.directory / "n1").glob("lost+found/*.deleted/S*"))
    assert not world.engines["n1"].meta_failed


def test_a_meta_log_that_says_something_else_is_repaired_and_the_state_with_it(world: RealWorld) -> None:
    """Every checksum is in order, so only the comparison shows it: what a majority has is taken."""
    make(world, "S", 3)
    make(world, "OTHER", 3)
    right = assigned(world, "n0")
    odd = next(n for n in world.names if not world.engines[n].is_meta_leader)
    world.stop(odd)
    rewrite(next((world.directory / odd / "_meta_").glob("*.seg")), b"other.>", b"wrong.>")
    world.start(odd)
    world.settle(30)
    assert any("differ from those of" in text for text in world.lines[odd].errors())
    engine = world.engines[odd]
    assert assigned(world, odd) == right
    assert engine.asset("$G", "OTHER").config.subjects == ["other.>"]
    assert not engine.meta_failed
    assert all(world.engines[n].meta.difference is None for n in world.names)
    make(world, "T", 3)
    assert engine.asset("$G", "T") is not None


def test_alone_a_damaged_meta_snapshot_is_said_and_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignments, "WORTH_BYTES", 4096)
    world = RealWorld(tmp_path, ["n0"])
    world.trims = True
    world.start()
    make(world, "S", 1)
    for turn in range(60):
        make(world, "X", 1)
        world.one("STREAM.DELETE.X")
        world.real_settle()
        if begins(world)[0] > 1:
            break
        assert turn < 59
    world.stop("n0")
    hurt(world, "n0")
    files = sorted(path.name for path in tmp_path.rglob("*"))
    world.start("n0")
    world.settle(1)
    assert "which streams there were is in no other place" in world.engines["n0"].silent
    assert world.engines["n0"].asset("$G", "S") is None
    world.stop("n0")
    assert sorted(path.name for path in tmp_path.rglob("*")) == files


def test_the_only_copy_without_its_snapshot_says_why_and_is_left_as_it_is(tmp_path: Path) -> None:
    world = RealWorld(tmp_path, ["n0"])
    world.start()
    make(world, "S", 1)
    path = world.engines["n0"].asset("$G", "S").log.path
    world.stop("n0")
    for file in Path(path).iterdir():
        file.unlink()
    with jscore.Store("never") as store, store.open(path, first_index=50, first_term=3) as log:
        log.append(jscore.KIND_MESSAGE, b"left", subject=b"s.a", term=3)
    before = sorted(file.name for file in Path(path).glob("*.seg"))
    world.start("n0")
    world.settle(1)
    error = world.one("STREAM.INFO.S")["error"]
    assert error["err_code"] == 10194
    assert "its snapshot is missing, and the log begins at record 50" in error["description"]
    assert "its snapshot is missing" in world.engines["n0"].asset("$G", "S").failed  # what healthz shows
    world.stop("n0")
    assert sorted(file.name for file in Path(path).glob("*.seg")) == before
    with jscore.Store("never") as store, store.open(path) as log:
        assert [log.read(index).data for index in range(log.first, log.last + 1)] == [b"left"]
