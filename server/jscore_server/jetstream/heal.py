"""A replica's log made whole again, on the disk and over the links; the rules are in `repair`.

A new log is written beside the old one and takes its place when it is complete and synced; a crash at any step leaves
the one or the other. The old one is kept in lost+found, unless it was whole. Until then the replica neither votes nor
counts nor serves. One subject per server takes the question, `$JSC.FETCH.<id>`, another the answers,
`$JSC.FETCHED.<id>`, both in the system account. Source: spec/raft.md §5, R-31.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

import jscore
from jscore_server.jetstream import repair
from jscore_server.jetstream.between import SYSTEM_ACCOUNT, understood
from jscore_server.jetstream.repair import FORM, HEAD, RECORDS, Answer, Question, Repair
from jscore_server.raft.hardlog import sync_directory

if TYPE_CHECKING:
    from jscore import RecordLog
    from jscore_server.dataplane import Msg, Subscription
    from jscore_server.jetstream.engine import JetStream
    from jscore_server.raft import Difference, Group

DRAFT = ".heal"
GONE = ".gone"
WHOLE = ".healed"

GIVES_NS = 10_000_000_000  # whoever asked so lately is still at it: nothing is trimmed meanwhile
GIVES_MAX_NS = 600_000_000_000  # nor is it for longer than this


def settle(path: str, grave: str) -> None:
    """Finishes or undoes what a crash interrupted. Nothing may have the log at `path` open. Raises: OSError."""
    for left in (path + DRAFT, path + GONE):
        if os.path.isdir(left):
            shutil.rmtree(left, ignore_errors=True)
    if os.path.isdir(path + WHOLE):
        if os.path.isdir(path):
            os.makedirs(os.path.dirname(grave), exist_ok=True)
            os.rename(path, grave)
        os.rename(path + WHOLE, path)
        sync_directory(os.path.dirname(path))


def untouched(root: str) -> set[str]:
    """The logs in the folders of `root` beside which nothing is left of a repair: `settle` has nothing to do for them.

    For a start with thousands of them. Raises: OSError.
    """
    found: set[str] = set()
    for folder in os.listdir(root):
        here = os.path.join(root, folder)
        names = os.listdir(here) if os.path.isdir(here) else []
        logs = {name for name in names if "." not in name}
        logs.difference_update(name.partition(".")[0] for name in names if "." in name)
        found.update(f"{here}/{name}" for name in logs)
    return found


def discard(path: str) -> None:
    """Erases a log that was whole and that a newer one, whole too, is to follow. Raises: OSError."""
    os.rename(path, path + GONE)
    threading.Thread(target=shutil.rmtree, args=(path + GONE, True), daemon=True).start()  # a large one takes long


class Files:
    """Where a log of this server is repaired: beside itself, on the disk."""

    def __init__(self, healer: Healer, old: RecordLog, distrust: Difference | None = None) -> None:
        self._healer = healer
        self._distrust = distrust
        self._engine = healer.engine
        self._path = old.path
        self._new: RecordLog | None = None
        self.after = self._engine.after
        self.ask = healer.ask
        self.scan = jscore.scan_records

    def peers(self) -> list[str]:
        """Those who know the form of the questions; and who agrees on what differs here."""
        peers = [peer for peer in sorted(self._engine.online) if self._engine.raft.understood((peer,)) >= FORM]
        return [peer for peer in peers if self._distrust is None or peer in self._distrust.agreed]

    def draft(self, first: int, before: int, snapshot: bytes) -> RecordLog:
        self.drop()
        path = self._path + DRAFT
        self._new = self._engine.store.open(path, first_index=first, first_term=before)
        if snapshot:
            self._engine.store.write_snapshot(path, snapshot)
        return self._new

    def own_snapshot(self) -> bytes:
        return self._engine.store.read_snapshot(self._path)[0]

    def drop(self) -> None:
        if self._new is not None:
            self._new.abandon()
            self._new = None
        shutil.rmtree(self._path + DRAFT, ignore_errors=True)

    def install(self) -> None:
        assert self._new is not None
        self._new.close()  # what is left to sync is little
        os.rename(self._path + DRAFT, self._path + WHOLE)
        sync_directory(os.path.dirname(self._path))  # before anything happens to the old one


class Given:
    """A replica of this server that gives."""

    def __init__(self, healer: Healer, group: Group) -> None:
        self._healer = healer
        self._group = group
        self.first = group.log.first
        self.commit = group.commit

    def copy_committed(self, lo: int, hi: int) -> tuple[bytes, int]:
        return self._group.copy_committed(lo, hi, repair.FETCH_BYTES)

    def snapshot(self, index: int) -> tuple[int, bytes]:
        return self._healer.snapshot(self._group, index)


class Healer:
    """All logs of one server that are being repaired, and what it gives to others."""

    def __init__(self, engine: JetStream) -> None:
        self.engine = engine
        self.open: dict[str, Repair] = {}  # by group
        self._numbers = engine.rng.getrandbits(62)  # no answer to a question of a former life is taken for one of this
        self._given: dict[str, tuple[int, int]] = {}  # by group: since when, and when last, somebody has been asking
        self._file: tuple[str, int, bytes] = ("", 0, b"")  # the snapshot that is being given
        self._subscriptions: list[Subscription] = []

    def start(self) -> None:
        me = self.engine.peer_id(self.engine.server_name)
        subscribe = self.engine.plane.subscribe
        self._subscriptions = [
            subscribe(SYSTEM_ACCOUNT, f"$JSC.FETCH.{me}", self._asked),
            subscribe(SYSTEM_ACCOUNT, f"$JSC.FETCHED.{me}", self._answered),
        ]

    def stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions = []
        for group in list(self.open):
            self.cancel(group)

    def begin(
        self,
        group: str,
        old: RecordLog,
        done: Callable[[Repair], None],
        *,
        sure: int = 0,
        need: int = 0,
        own: bool = True,
        distrust: Difference | None = None,
    ) -> None:
        """Repairs a log that nobody uses meanwhile; see Repair. Raises: OSError, jscore.Error."""
        self._numbers += 1

        def finished(whole: Repair) -> None:
            del self.open[group]
            done(whole)

        begun = Repair(Files(self, old, distrust), self._numbers, group, old, finished, sure, need, own, distrust)
        self.open[group] = begun
        self.engine.after(0, begun.step)

    def cancel(self, group: str) -> None:
        begun = self.open.pop(group, None)
        if begun is not None:
            begun.cancel()

    def ask(self, peer: str, question: Question) -> None:
        reply = f"$JSC.FETCHED.{self.engine.peer_id(self.engine.server_name)}"
        subject = f"$JSC.FETCH.{self.engine.peer_id(peer)}"
        question = msgspec.structs.replace(question, version=FORM)
        self.engine.plane.publish(SYSTEM_ACCOUNT, subject, msgspec.json.encode(question), reply=reply)

    def _asked(self, msg: Msg) -> None:
        question = understood(self.engine, "question", msg.data, Question)
        if question is None:
            return
        if question.version != FORM:
            form = f"{question.version}, not {FORM}"
            self.engine.lines.warn(f"records of {question.group!r:.80} are asked for in form {form}")
            return
        if not msg.reply or question.number < 0 or question.number >> 63:
            return
        kind, position, data = RECORDS, 0, b""
        try:
            kind, position, data = self._answer(question)
        except (jscore.Error, OSError):
            pass  # not here: damage never becomes absence elsewhere
        self.engine.plane.publish(SYSTEM_ACCOUNT, msg.reply, HEAD.pack(question.number, position, kind) + data)

    def _answer(self, question: Question) -> Answer:
        """Raises: jscore.Error, OSError."""
        name = question.group
        group = self.engine.raft.groups.get(name)
        if group is None or name in self.open or question.lo < 0 or question.hi >> 63:
            return RECORDS, 0, b""
        now = self.engine.clock()
        since, last = self._given.get(name, (now, 0))
        self._given[name] = (since if now - last < GIVES_NS else now, now)
        return repair.give(Given(self, group), question)

    def snapshot(self, group: Group, index: int) -> tuple[int, bytes]:
        """The snapshot of record `index`, or the newest. Raises: jscore.Error, OSError."""
        if not index or self._file[:2] != (group.id, index):
            data, _ = self.engine.store.read_snapshot(group.log.path)
            self._file = group.id, jscore.snapshot_head(data).index, data
            self.engine.after(GIVES_NS / 1e9, self._let_go)
        return self._file[1:]

    def _let_go(self) -> None:
        if not self.gives(self._file[0]):
            self._file = "", 0, b""
        elif self._file[0]:
            self.engine.after(GIVES_NS / 1e9, self._let_go)

    def gives(self, group: str) -> bool:
        """Whether another replica is taking over what is here."""
        since, last = self._given.get(group, (0, 0))
        now = self.engine.clock()
        if now - last >= GIVES_NS:
            self._given.pop(group, None)
            return False
        return now - since < GIVES_MAX_NS

    def _answered(self, msg: Msg) -> None:
        if len(msg.data) < HEAD.size:
            return
        number, position, kind = HEAD.unpack_from(msg.data)
        for begun in list(self.open.values()):
            if begun.number == number:
                try:
                    begun.answered(kind, position, msg.data[HEAD.size :])
                except (jscore.Error, OSError) as err:
                    self.engine.lines.error(f"group {begun.group}: cannot be repaired: {err}")
