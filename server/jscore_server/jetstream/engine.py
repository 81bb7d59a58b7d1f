"""JetStream of one server: the meta group, the stream replicas held here, and who answers the API.

The only module of the package that touches the file system. The daemon hands it events; it never waits.
Source: clustering.md §1, §2, §5.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

import jscore
from jscore_server.jetstream import (
    api,
    assignments,
    direct,
    gather,
    graves,
    heal,
    leaving,
    names,
    placement,
    quotas,
    rearrange,
    system_api,
    trim,
)
from jscore_server.jetstream.asset import Asset, ConsumerDeleteRecord, Logger, Lost
from jscore_server.jetstream.between import SYSTEM_ACCOUNT
from jscore_server.jetstream.errors import problem
from jscore_server.jetstream.meta import (
    META_GROUP,
    Assignment,
    Created,
    CreateStream,
    Deleted,
    DeleteStream,
    Effect,
    Entry,
    Existed,
    MetaError,
    MetaSnapshot,
    MetaState,
    Missing,
    RemoveServer,
    ServerRemoved,
    Updated,
    UpdateStream,
    encode_entry,
    settle,
)
from jscore_server.jetstream.models import format_time
from jscore_server.jetstream.repair import Repair
from jscore_server.jetstream.stream_config import NO_LIMITS, JetStreamLimits
from jscore_server.raft import Birth, ChangeRefused, Difference, NewerVersion, NotLeader, Role

if TYPE_CHECKING:
    import asyncio

    from jscore import RecordLog, Store
    from jscore_server.dataplane import Plane
    from jscore_server.raft import Group, RaftHost

META_LOG_ID = 1
FIRST_STREAM_ID = 16
ANSWER_AGE_NS = 10_000_000_000
"""A reply owed by a stream's leader is forgotten after this: the client has given up."""
OWED_MAX = 10_000
OPEN_RETRY_S = 0.1
OPEN_SLICE_NS = 10_000_000  # for so long streams are opened one after the other; then others have a turn
HAND_OVER_S = 0.5
NEWS_S = 5.0  # for so long after the start the only holder of a stream waits for the cluster's word that it still is
RELIEVE_S = 1.0
LOOK_S = 1.0
CODE_CORRUPT = -10002  # JSC_ECORRUPT in csrc/base/jsc_base.h


class Options(msgspec.Struct, frozen=True):
    """`directory`: the JetStream store directory of this server (`<store_dir>/jetstream`)."""

    directory: str
    strict: bool = True
    domain: str = ""
    tags: frozenset[str] = frozenset()
    unique_tag: str = ""
    version: str = "2.14.5"
    trim: bool = False  # whether streams' logs let go of what they no longer need
    accounts: Mapping[str, JetStreamLimits | None] = msgspec.field(default_factory=lambda: {"$G": NO_LIMITS})
    """Every account whose users may ask, with what it may use; None: nothing, JetStream is not enabled there."""
    system_account: str = SYSTEM_ACCOUNT
    """Whose users may make the calls of system_api."""
    server_info: Callable[[], dict[str, Any]] = msgspec.field(default=dict)


class Owed(msgspec.Struct):
    """A reply that the leader of a stream gives once it applied `version` of the assignment."""

    version: int
    reply: str
    created: bool
    since_ns: int
    system: bool = False


class JetStream:
    """See the module. Everything runs on the plane's thread.

    `loop` is used for `call_later` only, `clock` returns unix ns, `rng` names groups and ephemeral consumers.
    """

    def __init__(
        self,
        options: Options,
        plane: Plane,
        store: Store,
        raft: RaftHost,
        *,
        server_name: str,
        cluster_name: str | None,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        clock: Callable[[], int],
        log: Logger,
    ) -> None:
        self.options = options
        self.plane = plane
        self.store = store
        self.raft = raft
        self.shown_name = server_name
        if cluster_name is None and raft.birth is not None and len(raft.birth.voters) == 1:
            # Alone, a server may come back under another name (one drawn at random, say); its assignments and its
            # vote keep the name they were made with.
            server_name = raft.name = raft.birth.voters[0]
        self.server_name = server_name
        self.cluster_name = cluster_name
        self.accounts: dict[str, JetStreamLimits | None] = self._named(options.accounts)
        self.rng = rng
        self.clock = clock
        self.lines = log
        self.state = MetaState(raft.protocol.newest)
        self.meta: Group | None = None
        self.meta_log: RecordLog | None = None
        self.meta_failed = ""
        self.started_ns = 0
        self.online: dict[str, dict[str, Any]] = {}
        self.assets: dict[tuple[str, str], Asset] = {}
        self._by_id: dict[int, Asset] = {}
        self._to_mark: dict[Asset, None] = {}
        self._next_id = FIRST_STREAM_ID
        self._owed: dict[tuple[str, str], list[Owed]] = {}
        self._proposed: dict[tuple[str, str], list[str]] = {}
        self._replay_until = 0
        self._replay_ended = False
        self._to_open: dict[tuple[str, str], str] = {}  # streams whose replica here is new -> who is to be answered
        self._to_resume: dict[tuple[str, str], str] = {}  # the same of those that are on the disk and wait for a turn
        self._untouched: set[str] = set()  # directories of streams, found whole at the start and not opened yet
        self._slice_end = 0
        self._loop = loop
        self._running = False
        self._too_old: set[str] = set()  # servers that were refused as members of the meta group, and told of so
        self._is_removed = False  # from the cluster, by an operator
        self.foreign: set[str] = set()  # linked servers with another cluster's data; the runtime notes them
        self.gather = gather.Gather(self)
        self.leaving = leaving.Leaving(self)
        self.healer = heal.Healer(self)
        self.trimmer = trim.Trimmer(self)
        self.graves = graves.Graves(self)
        self.assignments = assignments.Assignments(self)
        self._meta_damage = ""  # why the meta log cannot be used as it is
        self._loaded: list[Effect] = []  # what the meta log's snapshot changed, until the group goes on
        self._meta_start: tuple[list[str], int, str] | None = None  # how to start the meta group once its log is whole
        self.rearrange = rearrange.Rearrange(self)
        self.quotas = quotas.Quotas(self)
        self.api = api.Api(self)
        self.system_api = system_api.SystemApi(self)
        self.removal_proposed = False
        self.direct = direct.DirectGet(self)

    # ---- life ----

    def start(self) -> None:
        """Opens the meta log, serves the API; `meta_bootstrap` must follow. Raises: OSError, jscore.Error."""
        self._running = True
        self.started_ns = self.clock()
        streams = os.path.join(self.options.directory, "streams")
        os.makedirs(streams, exist_ok=True)
        self._untouched = heal.untouched(streams)
        self._open_meta_log()
        self.gather.start()
        self.leaving.start()
        self.healer.start()
        if self.options.trim:
            self.trimmer.start()
            self.assignments.start()
        self.graves.start()
        self.after(LOOK_S, self._look)
        self.api.start()
        self.system_api.start()
        self.quotas.start()

    def meta_bootstrap(self, voters: list[str], expected: int = 0, group: str = "") -> None:
        """Takes part in the meta group born with `voters` (which count only where raft has no newer record).

        `group`: its id; by default that of the birth raft remembers, else `_meta_`. Does nothing when it exists here.
        """
        if self.meta is not None or self.meta_log is None:
            return
        birth = self.raft.birth
        group = group or (birth.group if birth is not None else META_GROUP)
        damaged = self.meta_log.recovery.damaged_index
        if damaged and not self._meta_damage:
            self._meta_damage = f"meta record {damaged} is damaged"
        if self._meta_damage and self.clustered:
            self._meta_start = voters, expected, group
            self._heal_meta(self._meta_damage)
            return
        if self._meta_damage and self.meta_log.first > 1:
            why = f"{self._meta_damage}, and it begins at record {self.meta_log.first}"
            self.meta_failed = f"meta log: {why}: which streams there were is in no other place; nothing was changed"
            self.lines.error(self.meta_failed)
            return
        self.meta = self.raft.create_group(
            group,
            self.meta_log,
            voters,
            on_commit=self._meta_commit,
            on_role=self._meta_role,
            on_damage=self._meta_damaged,
            on_behind=self._meta_behind,
            on_differs=self._meta_differs,
            expected=expected,
            lost=self.raft.wiped,
            floor=self.assignments.floor,
            base=self.assignments.base,
        )

    def _open_meta_log(self, distrusted: bool = False) -> None:
        """`distrusted`: what was applied of it before was not what stands there now."""
        path = os.path.join(self.options.directory, META_GROUP)
        heal.settle(path, self.graves.place(META_GROUP, deleted=False))
        self.meta_log, snapshot, self._meta_damage = self.assignments.open(path)
        if snapshot is not None:
            self._loaded += self.state.take_over(self.assignments.floor, snapshot)
        elif self._meta_damage and self.meta_log.first == 1:
            self.lines.warn(f"meta log: {self._meta_damage}; its records say it all")
            self._meta_damage = ""
        if distrusted and not self._meta_damage:
            try:
                self._loaded += self.state.correct(self._replayed(snapshot))
            except (MetaError, jscore.Error, OSError) as err:
                self.lines.error(f"which streams there are is not known for sure until the next start: {err}")
        self._replay_until = self.meta_log.last
        if self.meta_log.recovery.message:
            self.lines.warn(f"meta log: {self.meta_log.recovery.message}")
        self.plane.own_log(self.meta_log, META_LOG_ID)

    def _meta_damaged(self, why: str) -> None:
        """A record of the meta log does not verify any more."""
        if self.meta is not None and self.clustered:
            self._close_meta()
            self._heal_meta(why)

    def _meta_behind(self, first: int) -> None:
        """The leader's log begins at `first`, and the one here does not reach it: others give what came of the rest."""
        if self.meta is not None and self.clustered:
            self._close_meta()
            why = f"the meta leader has nothing before record {first} any more; the others' state is taken over"
            self.lines.info(why)
            self.after(0, lambda: self._heal_meta(why, first - 1))

    def _meta_differs(self, found: Difference) -> None:
        """Records of the meta log verify and are not what a majority holds: they are taken from it, and the state."""
        if self.meta is None or not self.clustered or not found.agreed or self.raft.name not in found.odd:
            return
        self._close_meta()
        why = f"meta records {found.lo} to {found.hi} differ from those of {', '.join(found.agreed)}"
        self.after(0, lambda: self._heal_meta(why, distrust=found))

    def _replayed(self, snapshot: MetaSnapshot | None) -> MetaState:
        """The state as of what was applied here, from the log and the snapshot beside it. Raises: as reading does."""
        assert self.meta_log is not None
        right = MetaState(self.raft.protocol.newest)
        if snapshot is not None:
            right.take_over(self.assignments.floor, snapshot)
        for at in range(right.applied + 1, min(self.state.applied, self.meta_log.last) + 1):
            record = self.meta_log.read(at)
            right.replay(at, record.kind, record.data)
        return right

    def _close_meta(self) -> None:
        assert self.meta is not None
        voters, _ = self.meta.members()
        self._meta_start = voters, 0, self.meta.id
        self.raft.close_group(self.meta.id)
        self.meta = None

    def _heal_meta(self, why: str, need: int = 0, distrust: Difference | None = None) -> None:
        start, log = self._meta_start, self.meta_log
        if start is None or log is None or start[2] in self.healer.open:
            return
        self.meta_failed = f"{why}; it is repaired from the other servers" if not need else why
        if not need:
            self.lines.error(self.meta_failed)
        self.assignments.release()
        sure = max(self.state.applied, log.recovery.commit)
        own = not self._meta_damage

        def done(repair: Repair) -> None:
            self._meta_healed(repair, distrust is not None)

        self.healer.begin(start[2], log, done, sure=sure, need=need, own=own, distrust=distrust)

    def _meta_healed(self, done: Repair, distrusted: bool) -> None:
        if self.meta_log is None or self._meta_start is None:
            return
        self.plane.disown_log(self.meta_log)
        self.meta_log.abandon()
        if done.given_up:
            self.lines.info("meta log: nobody has what is needed now; it goes on with what it has")
        else:
            self.lines.info(f"the meta log is whole again; {done.fetched} records came from other servers")
            if done.outdated:
                try:
                    heal.discard(self.meta_log.path)
                except OSError as err:
                    self.lines.warn(f"the former meta log is kept: {err}")
            if done.replaced:
                self.raft.replaced(self._meta_start[2], done.last)
        self._open_meta_log(distrusted)
        self.meta_failed = ""
        self.meta_bootstrap(*self._meta_start)

    def _look(self) -> None:
        """What is done for each stream now and then, for those in which something happened."""
        for stream_id in self.plane.written_streams():
            asset = self._by_id.get(stream_id)
            if asset is not None:
                self.trimmer.touch(asset)
                self._to_mark[asset] = None
        to_mark, self._to_mark = self._to_mark, {}
        for asset in to_mark:
            if not asset.closed and not asset.failed and asset.group is None:
                self._guard(asset, partial(self._mark, asset))
        self.store.relax()
        self.after(LOOK_S, self._look)

    def _mark(self, asset: Asset) -> None:
        """A log that nobody writes to states how far it is synced; one with a Raft group does so by it."""
        with contextlib.suppress(jscore.Full):  # the next time, then; publishes hear of it by themselves
            asset.log.mark()
        if asset.log.synced < asset.log.last:
            self._to_mark[asset] = None

    def damaged(self, asset: Asset, why: str) -> None:
        """A record of the stream's log does not verify: where others hold the stream it is taken from them.

        A stream that only this server holds goes on with what is readable.
        """
        group = asset.assignment.group
        if not self.raft.remembers(group) or group in self.healer.open or asset.closed:
            return
        asset.fail(f"{why}; it is repaired from the other replicas")
        self.after(HAND_OVER_S if asset.leader == self.server_name else 0, lambda: self._heal(asset))

    def differs(self, asset: Asset, found: Difference) -> None:
        """Records verify and are not the same everywhere: those that a majority does not hold are taken from it."""
        group = asset.assignment.group
        if asset.closed or asset.failed or group in self.healer.open:
            return
        if asset.leading:
            self._tell_difference(asset, found)
        if not found.agreed or self.raft.name not in found.odd:
            return
        where = f"records {found.lo} to {found.hi} differ from those of {', '.join(found.agreed)}"
        asset.fail(f"{where}; they are repaired from there")
        self.after(HAND_OVER_S if asset.leader == self.server_name else 0, lambda: self._heal(asset, distrust=found))

    def _tell_difference(self, asset: Asset, found: Difference) -> None:
        advisory = {
            "type": "io.nats.jetstream.advisory.v1.stream_diverged",
            "id": f"{self.rng.getrandbits(128):032x}",
            "timestamp": format_time(self.clock()),
            "stream": asset.assignment.name,
            "account": asset.assignment.account,
            "first_index": found.lo,
            "last_index": found.hi,
            "servers": list(found.odd),
            "repaired_from": list(found.agreed),
        }
        subject = f"$JS.EVENT.ADVISORY.STREAM.DIVERGED.{asset.assignment.name}"
        self.plane.publish(asset.assignment.account, subject, msgspec.json.encode(advisory))

    def behind(self, asset: Asset, first: int) -> None:
        """The leader's log begins at `first`, and the one here does not reach it: others give what came of the rest."""
        if asset.closed or asset.failed or asset.assignment.group in self.healer.open:
            return
        why = f"the leader has nothing before record {first} any more; the others' state is taken over"
        asset.fail(why, expected=True)
        self.after(0, lambda: self._heal(asset, first - 1))

    def _heal(self, asset: Asset, need: int = 0, distrust: Difference | None = None) -> None:
        group = asset.assignment.group
        if asset.closed or group in self.healer.open:
            return
        asset.stand_aside()
        self.trimmer.release(asset)
        sure, own = asset.sure, not asset.snapshot_bad

        def begin() -> None:
            done = partial(self._healed, asset)
            self.healer.begin(group, asset.log, done, sure=sure, need=need, own=own, distrust=distrust)

        self._guard(asset, begin)

    def _healed(self, asset: Asset, done: Repair) -> None:
        if asset.closed:
            return
        name = f"{asset.assignment.account}/{asset.assignment.name}"
        if done.given_up:
            self.lines.info(f"stream {name}: nobody has what is needed now; it goes on with the log it has")
        else:
            self.lines.info(f"stream {name}: its log is whole again; {done.fetched} records came from other replicas")
        self._close_asset(asset, asset.log.abandon, forget=False)
        if done.outdated and not done.given_up:
            self._guard(asset, lambda: heal.discard(asset.log.path))
        if done.replaced and not done.given_up:
            self.raft.replaced(asset.assignment.group, done.last)
        self._open(self.state.get(asset.assignment.account, asset.assignment.name) or asset.assignment, "")

    def meta_abandon(self) -> None:
        """Gives up a meta group that never had a leader, with whatever its log holds: nothing of it was committed."""
        if self.meta is None or self.meta_log is None:
            return
        self.raft.remove_group(self.meta.id)
        self.meta = None
        if self.meta_log.last >= self.meta_log.first:
            self.meta_log.truncate(self.meta_log.first - 1)

    def stop(self) -> None:
        """Ends serving and closes every log (which waits for what is pending to be durable). Errors are logged.

        Before the plane and the store are closed; the raft host may be closed before or after.
        """
        if not self._running:
            return
        self._running = False
        gc.enable()
        self.api.stop()
        self.system_api.stop()
        self.gather.stop()
        self.leaving.stop()
        self.healer.stop()
        self.trimmer.stop()
        self.assignments.stop()
        for asset in list(self.assets.values()):
            asset.stream.shutdown()
            self._close_asset(asset, asset.log.close, forget=False)
        if self.meta is not None:
            self.meta.drop()
            self.meta = None
        if self.meta_log is not None:
            self.plane.disown_log(self.meta_log)
            try:
                self.meta_log.close()
            except (jscore.Error, OSError) as err:
                self.lines.error(f"meta log: {err}")
            self.meta_log = None

    def hand_over(self) -> None:
        """Gives up every leadership somebody else can take: this server is about to go."""
        for asset in list(self.assets.values()):
            if asset.leading:
                asset.resign()
        if self.clustered and self.is_meta_leader and self.meta is not None:
            try:
                self.meta.step_down()
            except (NotLeader, ChangeRefused) as err:
                self.lines.warn(f"meta group: cannot hand over: {err}")

    @property
    def hands_over(self) -> bool:
        """Whether something is still led here that another server may take, or is about to be handed to it."""
        groups = itertools.chain((self.meta,), (asset.group for asset in self.assets.values()))
        return any(group is not None and group.is_leader and group.can_hand_over for group in groups)

    # ---- accounts ----

    def _named(self, accounts: Mapping[str, JetStreamLimits | None]) -> dict[str, JetStreamLimits | None]:
        cluster = self.cluster_name or ""
        return {
            name: None
            if limits is None
            else msgspec.structs.replace(limits, cluster_name=limits.cluster_name or cluster)
            for name, limits in accounts.items()
        }

    def limits(self, account: str) -> JetStreamLimits | None:
        """What the account may use; None where JetStream is not enabled."""
        return self.accounts.get(account)

    def account_limits(self, account: str) -> JetStreamLimits:
        """The same for an account that is being served."""
        return self.accounts.get(account) or NO_LIMITS

    def enabled_accounts(self) -> list[str]:
        return sorted(name for name, limits in self.accounts.items() if limits is not None)

    def stream_count(self, account: str) -> int:
        """Streams of the account that there are or are about to be."""
        present = self.state.names(account)
        return len(present) + sum(name not in present for name, _ in self.proposed_subjects(account))

    def set_accounts(self, accounts: Mapping[str, JetStreamLimits | None]) -> None:
        """Other accounts and limits from now on: streams of one that lost JetStream are closed and stay on the disk."""
        self.accounts = self._named(accounts)
        if not self._running:
            return
        self._slice_end = self.clock() + OPEN_SLICE_NS
        for asset in list(self.assets.values()):
            if self.limits(asset.assignment.account) is None:
                self._close_asset(asset, asset.log.close, forget=False)
        for assignment in self.state.streams():
            if self.server_name in assignment.peers:
                self._open_asset(assignment, "")
        self.api.start()
        self.quotas.start()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Calls back later, unless JetStream was stopped by then."""
        self._loop.call_later(seconds, lambda: call() if self._running else None)

    # ---- what the daemon tells ----

    def stream_appended(self, stream_id: int, last: int) -> None:
        """A replicated stream led here took records this turn (JSC_EV_APPENDED)."""
        asset = self._by_id.get(stream_id)
        if asset is not None and asset.group is not None:
            asset.group.appended()

    def stream_apply(self, stream_id: int) -> None:
        """C met a host record (JSC_EV_APPLY)."""
        asset = self._by_id.get(stream_id)
        if asset is not None:
            asset.applied_host_record()

    def stream_full(self, stream_id: int, full: bool) -> None:
        """The disk of a stream led here became full, or takes messages again (JSC_EV_FULL)."""
        asset = self._by_id.get(stream_id)
        if asset is None:
            return
        name = f"stream {asset.assignment.account}/{asset.assignment.name}"
        asset.full = full
        if full:
            self.lines.error(f"{name}: no space left in {asset.log.path}; publishes are refused until there is some")
            self._relieve(asset)
        else:
            self.lines.info(f"{name}: there is space again; publishes are taken")

    def _relieve(self, asset: Asset) -> None:
        """Others may have space for what this server has none for."""
        if asset.full and asset.leading and not asset.closed and asset.group is not None:
            if not asset.group.relieve():
                self.after(RELIEVE_S, lambda: self._relieve(asset))

    def quota_exceeded(self, stream_id: int, file: bool) -> None:
        """A publish to a stream led here was too much for its account (JSC_EV_QUOTA)."""
        asset = self._by_id.get(stream_id)
        if asset is not None:
            kind = "file" if file else "memory"
            self.lines.warn(f'JetStream {kind} resource limits exceeded for account: "{asset.assignment.account}"')

    def consumer_expired(self, stream_id: int, consumer_id: int) -> None:
        """A consumer led here was inactive too long (JSC_EV_EXPIRED)."""
        asset = self._by_id.get(stream_id)
        replica = asset.consumer_by_id(consumer_id) if asset is not None else None
        if asset is None or replica is None:
            return
        try:
            asset.propose(
                jscore.KIND_CONSUMER_DELETE, ConsumerDeleteRecord(replica.id, replica.name), lambda lost: None
            )
        except (Lost, jscore.Error, OSError) as err:
            self.lines.warn(f"consumer {asset.assignment.name}/{replica.name}: expired but not deleted: {err!r}")

    def log_failed(self, log_id: int, code: int) -> None:
        """A log takes no more writes (JSC_EV_FAILED): its stream stops, JetStream goes on with the others."""
        code = code - (1 << 64) if code >> 63 else code
        if log_id == META_LOG_ID:
            self.meta_failed = f"the meta log takes no more writes (code {code})"
            self.lines.error(self.meta_failed)
            return
        asset = self._by_id.get(log_id)
        if asset is not None and code == CODE_CORRUPT:
            self.damaged(asset, "a record does not verify")
        elif asset is not None:
            asset.fail(f"the log takes no more writes (code {code})")

    def log_of(self, log_id: int) -> RecordLog | None:
        """The log behind the id of a JSC_EV_DURABLE event."""
        if log_id == META_LOG_ID:
            return self.meta_log
        asset = self._by_id.get(log_id)
        return asset.log if asset is not None else None

    def peer_joined(self, name: str, hello: dict[str, Any]) -> None:
        """A link to another server is up, or it said hello again; `hello`: raft's, with `jetstream` and `tags`.

        A server that was no part of the meta group's birth opens its replica here and waits to be added.
        """
        self.online[name] = hello
        birth = hello.get("birth")
        if self.meta is None and self.raft.birth is None and birth and hello.get("elected"):
            group, voters, expected = birth
            self.raft.born(Birth(str(group), tuple(voters), int(expected)))  # so that it is known here, too
            self.meta_bootstrap(list(voters), int(expected), str(group))
        if hello.get("removed", {}).get(self.server_name) == self.raft.directory_id:
            self._removed_here()
        self._enlist()

    def peer_left(self, name: str) -> None:
        self.online.pop(name, None)
        self.gather.peer_left(name)

    # ---- the meta group ----

    @property
    def meta_leader(self) -> str | None:
        """The server that leads the meta group; None while unknown or while it cannot answer yet."""
        if self.meta is None or self.silent:
            return None
        leader = self.meta.leader
        if leader == self.server_name and not self.meta.is_leader:
            return None
        return leader

    @property
    def silent(self) -> str:
        """Why this server has no part in the meta group any more; empty: it has one."""
        return self.meta_failed or ("this server was removed from the cluster" if self._is_removed else "")

    @property
    def is_meta_leader(self) -> bool:
        return self.meta is not None and self.meta.is_leader and not self.meta_failed

    @property
    def clustered(self) -> bool:
        return self.cluster_name is not None

    def meta_quorum_possible(self) -> bool:
        """Whether enough members of the meta group are connected for it to have a leader."""
        voters = self.meta.members()[0] if self.meta is not None else []
        if not voters:
            return True
        return sum(self.is_online(v) for v in voters) > len(voters) // 2

    def is_online(self, name: str) -> bool:
        return name == self.server_name or name in self.online

    def servers(self) -> list[placement.Server]:
        """What placement chooses from: the members of the meta group."""
        members = set(self.meta.members()[0]) if self.meta is not None else set()
        members.add(self.server_name)
        return [
            placement.Server(
                name=name,
                online=self.is_online(name),
                cluster=self.cluster_name or "",
                tags=self.options.tags
                if name == self.server_name
                else frozenset(self.online.get(name, {}).get("tags", ())),
                streams=self.state.load(name),
            )
            for name in sorted(members)
        ]

    def awaits_members(self, count: int) -> bool:
        """Whether the meta group has fewer than `count` members only because the cluster still gathers."""
        voters = set(self.meta.members()[0]) if self.meta is not None else set()
        linked = {name for name, hello in self.online.items() if hello.get("jetstream", True)}
        expected = self.raft.birth.expected if self.raft.birth is not None else 0
        return len(voters) < count <= max(expected, len(voters | linked))

    def place(
        self, replicas: int, *, cluster: str, tags: list[str], keep: Iterable[str] = (), exclude: Iterable[str] = ()
    ) -> placement.Placement:
        """Raises: placement.NoPeers."""
        return placement.place(
            self.servers(),
            replicas,
            shuffle=self.rng.shuffle,
            cluster=cluster,
            tags=tags,
            unique_tag=self.options.unique_tag,
            keep=list(keep),
            exclude=set(exclude),
        )

    def propose_meta(self, entry: Entry, *, subjects: list[str] | None = None) -> None:
        """As meta leader, proposes an entry. `subjects` of a create are kept until it is applied, so that the next
        request already sees them. Raises: NotLeader, jscore.Error, OSError.
        """
        if self.meta is None:
            raise NotLeader
        version = self.raft.understood(self.meta_members())
        self.meta.propose(jscore.KIND_HOST, encode_entry(entry, version))
        if subjects is not None and isinstance(entry, CreateStream | UpdateStream):
            about = entry.assignment if isinstance(entry, CreateStream) else entry
            self._proposed[(about.account, about.name)] = subjects

    def is_changing(self, account: str, name: str) -> bool:
        """Whether something about the stream is proposed that the state does not show yet."""
        return (account, name) in self._proposed

    def proposed_subjects(self, account: str) -> Iterable[tuple[str, list[str]]]:
        """(stream, subjects) of creates and updates proposed but not yet applied."""
        return [(name, subjects) for (acc, name), subjects in self._proposed.items() if acc == account]

    def _meta_role(self, role: Role, term: int) -> None:
        self._proposed.clear()
        self.removal_proposed = False
        if role is Role.LEADER:
            self._enlist()
            self.api.meta_led()

    def _enlist(self) -> None:
        """As meta leader, makes the connected JetStream servers members of the meta group.

        Nobody is removed but who was removed on request; then others take the replicas over.
        """
        if not self.is_meta_leader or self.meta is None:
            return
        voters, _ = self.meta.members()
        banned = {n for n, directory in self.state.removed.items() if self.directory_id(n) == directory}
        linked = {n for n, hello in self.online.items() if hello.get("jetstream", True)}
        wanted = ({*voters} | {n for n in linked if n in voters or self._can_join(n)}) - banned
        if wanted != {*voters}:
            self.meta.set_members(sorted(wanted))
        if banned:
            try:
                self.rearrange.replace_removed(banned)
            except (NotLeader, jscore.Error, OSError) as err:
                self.lines.warn(f"replicas of removed servers stay for now: {err}")

    def _can_join(self, server: str) -> bool:
        """Whether a server would understand what stands in the meta log: one that does not would stop there."""
        knows = self.raft.understood((server,))
        if knows >= self.state.written:
            self._too_old.discard(server)
            return True
        if server not in self._too_old:
            self._too_old.add(server)
            why = f"it knows version {knows} of it, and there are entries of version {self.state.written}"
            self.lines.error(f"{server} cannot take part in this cluster's meta group: {why}")
        return False

    def meta_members(self, *, committed: bool = False) -> list[str]:
        """Members of the meta group; `committed`: those that can still be while a change is under way, too."""
        if self.meta is None:
            return []
        voters, learners = self.meta.members()
        if committed and self.is_meta_leader and not self.meta.committed_members()[0]:
            return [*voters, *learners, *self.state.removed]
        return [*voters, *learners]

    def directory_id(self, server: str) -> str:
        """The store directory that a server has now, or had when it was first met."""
        if server == self.server_name:
            return self.raft.directory_id
        hello = self.online.get(server)
        return str(hello.get("directory", "")) if hello is not None else self.raft.known_directory(server)

    def leaving_members(self) -> list[str]:
        """Servers that were removed and are still members of the meta group."""
        removed = self.state.removed
        return [n for n in self.meta_members() if n in removed and self.directory_id(n) == removed[n]]

    def remove_server(self, entry: RemoveServer) -> None:
        """As meta leader, proposes that a server goes. Raises: NotLeader, jscore.Error, OSError."""
        self.propose_meta(entry)
        self.removal_proposed = True

    def _server_removed(self, effect: ServerRemoved, replayed: bool) -> None:
        self.removal_proposed = False
        if effect.server == self.server_name and effect.directory == self.raft.directory_id:
            self._removed_here()
        self._enlist()
        if not replayed:
            self.lines.info(f"server {effect.server} was removed from the JetStream cluster")
            self.system_api.removed(effect.server, effect.reply)

    def _removed_here(self) -> None:
        """Its replicas go one by one; it answers for nobody any more."""
        if self._is_removed:
            return
        self._is_removed = True
        self.lines.warn("this server was removed from the JetStream cluster; with this store it cannot come back")
        self.system_api.tell_removed()

    def _meta_commit(self, index: int) -> None:
        log = self.meta_log
        if log is None or self.meta_failed:
            return
        if not self.raft.elected:
            self.raft.meta_elected()  # once in the group's life; waits for one sync
        effects, self._loaded = self._loaded, []
        self._slice_end = self.clock() + OPEN_SLICE_NS
        members = bool(effects)
        replayed = bool(effects) or self.state.applied + 1 <= self._replay_until
        try:
            for at in range(self.state.applied + 1, index + 1):
                record = log.read(at)
                members = members or record.kind == jscore.KIND_MEMBERS
                effects += self.state.replay(at, record.kind, record.data)
        except (MetaError, jscore.Error, OSError) as err:
            self.meta_failed = f"meta entry {self.state.applied + 1}: {err}"
            self.lines.error(self.meta_failed)
            if self.meta is not None:
                self.meta.fail(self.meta_failed)  # a leader that does not apply would leave every request unanswered
        for effect in settle(effects):
            self._perform(effect, replayed)
        self._open_new()
        if members and self.state.removed:
            self._enlist()  # who is new may take over from who went
        if not self._replay_ended and self.state.applied >= self._replay_until:
            self._replay_ended = True
            self._report_strangers()

    @property
    def settled(self) -> bool:
        """The streams that were there are open and led, or it is known why not. For a server that is alone."""
        if self.meta_failed or not self._replay_ended or self._to_resume:
            return bool(self.meta_failed)
        return all(a.ready or a.failed or a.closed or a.group is not None for a in self.assets.values())

    def _perform(self, effect: Effect, replayed: bool) -> None:
        match effect:
            case Created(assignment, reply):
                self._proposed.pop((assignment.account, assignment.name), None)
                if self.server_name in assignment.peers:
                    self._owe(assignment, "" if replayed else reply, created=True)
                    self._open_asset(assignment, "" if replayed else reply)
                elif self._had(assignment) and os.path.isdir(self.directory_of(assignment)):
                    self._open_asset(assignment, "")
            case Updated(assignment, reply, answer, system):
                self._proposed.pop((assignment.account, assignment.name), None)
                if answer and self.is_meta_leader and not replayed:
                    self.api.respond(answer, assignment.account, reply, success=True)
                if not answer:
                    self._owe(assignment, "" if replayed else reply, created=False, system=system)
                self._reassign(assignment)
            case Deleted(assignment, reply):
                self._deleted(assignment, "" if replayed else reply)
            case Existed(assignment, wanted, reply):
                self._proposed.pop((assignment.account, assignment.name), None)
                if self.is_meta_leader and not replayed:
                    self.api.streams.answer_existing(assignment, wanted.config, reply)
            case ServerRemoved():
                self._server_removed(effect, replayed)
            case Missing(account, name, reply, update):
                self._proposed.pop((account, name), None)
                if self.is_meta_leader and not replayed:
                    self.api.streams.answer_missing(account, reply, update=update)

    def _had(self, assignment: Assignment) -> bool:
        """Whether the replica here may belong to the stream's group although others are to hold it.

        The only first holder may have ended before it made the group: then nobody else has anything, and what its log
        says about the group's members is all there is to know.
        """
        return self.raft.remembers(assignment.group) or assignment.birth == [self.server_name]

    def _reassign(self, assignment: Assignment) -> None:
        asset = self.assets.get((assignment.account, assignment.name))
        if asset is not None:
            self._guard(asset, lambda: asset.reassign(assignment))
            self.leaving.watch(asset)
        elif self.server_name in assignment.peers:
            self._open_asset(assignment, "")

    def release(self, asset: Asset) -> None:
        """Lets go of a replica that the stream's group is complete without."""
        self._close_asset(asset, asset.log.abandon, forget=True)
        self._bury(asset.assignment, "is held by other servers now")

    def _guard(self, asset: Asset, call: Callable[[], None]) -> None:
        try:
            call()
        except (jscore.Error, OSError) as err:
            asset.fail(str(err))

    # ---- replies owed by a stream's leader ----

    def _owe(self, assignment: Assignment, reply: str, *, created: bool, system: bool = False) -> None:
        if not reply:
            return
        now = self.clock()
        key = (assignment.account, assignment.name)
        kept = [o for o in self._owed.get(key, ()) if now - o.since_ns < ANSWER_AGE_NS]
        self._owed[key] = [*kept, Owed(assignment.version, reply, created, now, system)]
        if len(self._owed) > OWED_MAX:
            self._owed.pop(next(iter(self._owed)))

    def _asset_ready(self, asset: Asset) -> None:
        self.direct.serve(asset)
        key = (asset.assignment.account, asset.assignment.name)
        now = self.clock()
        rest: list[Owed] = []
        for owed in self._owed.pop(key, ()):
            if owed.version > asset.version:
                rest.append(owed)
            elif now - owed.since_ns < ANSWER_AGE_NS:
                if owed.system:
                    self.system_api.answer_changed(asset, owed.reply)
                else:
                    self.api.streams.answer_changed(asset, owed.reply, created=owed.created)
        if rest:
            self._owed[key] = rest

    # ---- local replicas ----

    def asset(self, account: str, name: str) -> Asset | None:
        return self.assets.get((account, name))

    def directory_of(self, assignment: Assignment) -> str:
        account = names.account_directory(assignment.account)
        return os.path.join(self.options.directory, "streams", account, assignment.group)

    def _open_asset(self, assignment: Assignment, reply: str, *, at_once: bool = False) -> None:
        key = (assignment.account, assignment.name)
        if key in self.assets:
            return
        if self.limits(assignment.account) is None:
            self.lines.warn(f"stream {assignment.account}/{assignment.name}: JetStream not enabled for its account")
            if reply and assignment.preferred == self.server_name:
                self.api.refuse("stream_create", assignment.account, reply, problem(10039))
            return
        directory = self.directory_of(assignment)
        if self._is_here(directory) and not self._waits_for_news(assignment):
            if at_once or self.clock() < self._slice_end:
                self._open(assignment, reply)
            else:
                if not self._to_resume:
                    gc.disable()  # all that is made now stays: to look through it again and again is for nothing
                    self.after(0, self._resume)
                self._to_resume[key] = reply
            return
        if not self._to_open:
            self.after(OPEN_RETRY_S, self._try_open_new)
        self._to_open[key] = reply

    def _is_here(self, directory: str) -> bool:
        return directory in self._untouched or os.path.isdir(directory) or os.path.isdir(directory + heal.WHOLE)

    def _waits_for_news(self, assignment: Assignment) -> bool:
        """Whether this server is the only holder by an assignment that may be an old one: the stream may have been
        deleted since, and made anew elsewhere, and what would be acknowledged here would go with it.

        Not for ever: publishing to such a stream needs nobody else, so without a meta leader it is served as it was.
        """
        if not self.clustered or self.meta is None:
            return False
        alone = assignment.birth == [self.server_name] and not self.raft.remembers(assignment.group)
        if assignment.peers != [self.server_name] and not alone:
            return False
        return self.meta.behind and self.clock() - self.started_ns < NEWS_S * 1e9

    def _resume(self) -> None:
        """Opens more of the streams that are on the disk. With thousands at once, links and clients would wait long."""
        end = self.clock() + OPEN_SLICE_NS
        try:
            while self._to_resume:
                key = next(iter(self._to_resume))
                reply = self._to_resume.pop(key)
                assignment = self.state.get(*key)
                if assignment is not None and (self.server_name in assignment.peers or self._had(assignment)):
                    self._open_asset(assignment, reply, at_once=True)
                if self.clock() >= end:
                    break
        finally:
            if self._to_resume:
                self.after(0, self._resume)
            else:
                gc.enable()

    def _try_open_new(self) -> None:
        self._open_new()
        if self._to_open:
            self.after(OPEN_RETRY_S, self._try_open_new)

    def _open_new(self) -> None:
        """Makes replicas that are assigned here and not on this disk, once the assignments are the newest there are.

        By older ones this server could still be the only holder of what others took over long ago: it would start anew,
        empty, and lead. What waited for news opens as well.
        """
        if not self._to_open or self.meta is None:
            return
        old = self._replay_until > self.state.applied or (self.clustered and self.meta.behind)
        to_open, self._to_open = self._to_open, {}
        for key, reply in to_open.items():
            assignment = self.state.get(*key)
            if assignment is None:
                continue
            here = self._is_here(self.directory_of(assignment))
            if self.server_name not in assignment.peers and not (here and self._had(assignment)):
                continue
            if self._waits_for_news(assignment) if here else old:
                self._to_open[key] = reply
            elif here:
                self._open_asset(assignment, reply)
            else:
                self._open(assignment, reply)

    def _open(self, assignment: Assignment, reply: str) -> None:
        key = (assignment.account, assignment.name)
        if key in self.assets:
            return
        stream_id, self._next_id = self._next_id, self._next_id + 1
        directory = self.directory_of(assignment)
        known = self._is_here(directory)
        log: RecordLog | None = None
        asset: Asset | None = None
        try:
            if directory in self._untouched:
                self._untouched.discard(directory)
            else:
                if not os.path.isdir(os.path.dirname(directory)):
                    os.makedirs(os.path.dirname(directory), exist_ok=True)
                heal.settle(directory, self._grave(assignment, deleted=False))
            snapshot, damage = self._snapshot(directory)
            keep = jscore.snapshot_head(snapshot).first if snapshot is not None else 0
            log = self.store.open(directory, keep=keep)
            asset = Asset(
                assignment,
                stream_id,
                log,
                plane=self.plane,
                raft=self.raft,
                on_ready=self._asset_ready,
                on_damage=self.damaged,
                on_behind=self.behind,
                on_differs=self.differs,
                lines=self.lines,
            )
            self.assets[key] = asset
            self._by_id[stream_id] = asset
            asset.start(snapshot, damage)
            self.leaving.watch(asset)
        except (jscore.Error, OSError, NewerVersion) as err:
            self.lines.error(f"stream {assignment.account}/{assignment.name}: cannot be opened in {directory}: {err}")
            if asset is not None:
                asset.fail(str(err))
            elif log is not None:
                log.abandon()
            if reply and assignment.preferred == self.server_name:
                self.api.streams.answer_failed(assignment.account, reply, str(err))
                if not known and assignment.replicas == 1 and self.meta_leader is not None:
                    self.gather.ask_drop(self.meta_leader, assignment.account, assignment.name, assignment.group)

    def _snapshot(self, directory: str) -> tuple[bytes | None, str]:
        """The snapshot beside a log, and why it is not there although it should be. Raises: OSError."""
        try:
            data, hurt = self.store.read_snapshot(directory)
        except jscore.NotFound:
            return None, ""
        except (jscore.Corrupt, jscore.FormatError) as err:
            return None, f"its snapshot is damaged: {err}"
        if hurt:
            self.lines.warn(f"{directory}: one of the two copies of the snapshot is damaged")
        return data, ""

    def _close_asset(self, asset: Asset, end: Callable[[], None], *, forget: bool) -> None:
        self.assets.pop((asset.assignment.account, asset.assignment.name), None)
        self._by_id.pop(asset.id, None)
        self.healer.cancel(asset.assignment.group)
        self.trimmer.release(asset)
        try:
            asset.close(forget=forget)
            end()
        except (jscore.Error, OSError) as err:
            self.lines.error(f"stream {asset.assignment.account}/{asset.assignment.name}: closing: {err}")

    def _deleted(self, assignment: Assignment, reply: str) -> None:
        """The stream's leader answers when it has let go of it; the meta leader in its place when there is none."""
        key = (assignment.account, assignment.name)
        self._owed.pop(key, None)
        asset = self.assets.get(key)
        led_here = asset is not None and asset.leading
        if asset is not None:
            self._close_asset(asset, asset.log.abandon, forget=True)
            self._bury(assignment)
        elif os.path.isdir(self.directory_of(assignment)):
            self._bury(assignment)
        if not reply:
            return
        if led_here:
            self.api.streams.answer_deleted(assignment.account, reply)
            if not self.is_meta_leader and self.meta_leader:
                self.gather.tell_done(self.meta_leader, assignment.group)
        elif self.is_meta_leader:
            answer = partial(self.api.streams.answer_deleted, assignment.account, reply)
            self.gather.unless_done(assignment.group, 0.5, answer)

    def _bury(self, assignment: Assignment, what: str = "deleted") -> None:
        """Moves a stream's directory out of the way: nothing is erased at once (clustering.md §6, last row)."""
        source, target = self.directory_of(assignment), self._grave(assignment, deleted=True)
        self._untouched.discard(source)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(source, target)
            self.lines.info(f"stream {assignment.account}/{assignment.name} {what}; its log is in {target} for now")
        except OSError as err:
            self.lines.error(f"stream {assignment.account}/{assignment.name} {what}; its log stays in {source}: {err}")

    def _grave(self, assignment: Assignment, *, deleted: bool) -> str:
        return self.graves.place(f"{names.account_directory(assignment.account)}.{assignment.group}", deleted=deleted)

    def _report_strangers(self) -> None:
        """Directories without an assignment are left alone and named in the log."""
        root = os.path.join(self.options.directory, "streams")
        known = {self.directory_of(a) for a in self.state.streams()}
        try:
            for account in sorted(os.listdir(root)):
                for group in sorted(os.listdir(os.path.join(root, account))):
                    path = os.path.join(root, account, group)
                    if path not in known:
                        self.lines.warn(f"{path} belongs to no assigned stream; left untouched")
        except OSError as err:
            self.lines.warn(f"{root}: {err}")

    def drop_assignment(self, account: str, name: str, group: str) -> None:
        """As meta leader, takes back an assignment whose server could not open it."""
        assignment = self.state.get(account, name)
        if assignment is None or assignment.group != group or not self.is_meta_leader:
            return
        try:
            self.propose_meta(DeleteStream(account, name, group))
        except (NotLeader, jscore.Error, OSError) as err:
            self.lines.warn(f"stream {account}/{name}: assignment stays: {err}")

    def peer_id(self, name: str) -> str:
        """The stable short identity of a server name (clustering.md §1)."""
        return names.peer_id(name)
