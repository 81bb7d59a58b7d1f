"""The meta group's state machine: which streams exist, with which configuration, on which servers.

Pure: `MetaState.apply` takes one committed entry of the `_meta_` log and returns what a server has to do about it.
Decisions (validation, placement) were taken by the leader that proposed the entry; what is left to decide here depends
on the entries alone, so that every server ends in the same state. Source: clustering.md §1, §3, §5.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import msgspec

import jscore
from jscore_server.jetstream.owners import SubjectOwners

META_GROUP = "_meta_"


class MetaError(ValueError):
    """A committed entry that this version cannot read: applying further would make this server differ from others."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stream: who holds it and what it should be.

    `config` is the JSON object of the stream configuration with all defaults filled in. `version` is the meta index of
    the entry that set it: a replica's own configuration carries it too, so that the older never wins. `born` is
    the meta index of the entry that created the stream. `peers` is who shall hold it; who does is what the
    configuration of its Raft group says (spec/raft.md R-27). `founders`: the peers it was created with, if they were
    others. `joined`: those of its peers that came later; their replicas have to be let in by its leader. `former`: who
    held it before the last move, which can be cancelled while it lasts.
    """

    account: str
    name: str
    group: str
    peers: list[str]
    created_ns: int
    config: dict[str, Any]
    preferred: str = ""
    version: int = 0
    born: int = 0
    founders: list[str] = []
    joined: list[str] = []
    former: list[str] = []

    @property
    def birth(self) -> list[str]:
        """Who held the stream when it was created."""
        return self.founders or self.peers

    @property
    def replicas(self) -> int:
        return len(self.peers)

    @property
    def quorum(self) -> int:
        return len(self.peers) // 2 + 1


class CreateStream(msgspec.Struct, frozen=True, tag="stream_create", omit_defaults=True):
    """A new stream; `reply` is where its leader answers the request that asked for it (empty: nobody asked)."""

    assignment: Assignment
    reply: str = ""


class UpdateStream(msgspec.Struct, frozen=True, tag="stream_update", omit_defaults=True):
    """A new configuration for the stream held by `group` (so that it never hits a re-created stream).

    `peers`: who shall hold it from now on; empty: the same as before. `moves`: that is a move, which can be cancelled.
    `answer`: who asked is answered so, as soon as the entry is applied; empty: the answer to an update, by the stream's
    leader. `system`: who asked is of the system account.
    """

    account: str
    name: str
    group: str
    config: dict[str, Any]
    reply: str = ""
    peers: list[str] = []
    answer: str = ""
    moves: bool = False
    system: bool = False


class RemoveServer(msgspec.Struct, frozen=True, tag="server_remove", omit_defaults=True):
    """A server that is not to come back with this store directory; with another one it is a new member."""

    server: str
    directory: str
    reply: str = ""


class DeleteStream(msgspec.Struct, frozen=True, tag="stream_delete", omit_defaults=True):
    account: str
    name: str
    group: str
    reply: str = ""


class MetaSnapshot(msgspec.Struct, frozen=True):
    """All that the entries up to some record have made, in place of them. Its file says which record that is.

    `members`: body of the configuration's record that was in force there, which was `members_index`.
    """

    streams: list[Assignment]
    removed: dict[str, str]
    members_index: int
    members: str
    version: int = 1


Entry = CreateStream | UpdateStream | DeleteStream | RemoveServer


class Versioned(msgspec.Struct, frozen=True):
    """What every entry may say beside its own fields: the version that wrote it; nothing is version 1."""

    version: int = 1


class Created(msgspec.Struct, frozen=True):
    assignment: Assignment
    reply: str


class Existed(msgspec.Struct, frozen=True):
    """A create that came second: `assignment` is the one that stays, `wanted` what was asked for."""

    assignment: Assignment
    wanted: Assignment
    reply: str


class Updated(msgspec.Struct, frozen=True):
    assignment: Assignment
    reply: str
    answer: str = ""
    system: bool = False


class Deleted(msgspec.Struct, frozen=True):
    assignment: Assignment
    reply: str


class Missing(msgspec.Struct, frozen=True):
    """An update or delete of a stream that was gone by then; `update` tells which."""

    account: str
    name: str
    reply: str
    update: bool


class ServerRemoved(msgspec.Struct, frozen=True):
    server: str
    directory: str
    reply: str


Effect = Created | Existed | Updated | Deleted | Missing | ServerRemoved

_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)
_snapshots: msgspec.json.Decoder[MetaSnapshot] = msgspec.json.Decoder(MetaSnapshot)
_versions: msgspec.json.Decoder[Versioned] = msgspec.json.Decoder(Versioned)


def encode_entry(entry: Entry, version: int = 1) -> bytes:
    """The JSON of an entry as it stands in the meta log."""
    if version == 1:
        return msgspec.json.encode(entry)
    return msgspec.json.encode({**msgspec.to_builtins(entry), "version": version})


def decode_entry(data: bytes, newest: int = 1) -> Entry:
    """Versions up to `newest` are known. Raises: MetaError."""
    try:
        version = _versions.decode(data).version
        if version > newest:
            raise MetaError(f"meta entry of version {version}, this server knows {newest}")
        return _decoder.decode(data)
    except msgspec.MsgspecError as err:
        raise MetaError(f"meta entry not understood: {err}") from err


def encode_snapshot(snapshot: MetaSnapshot) -> bytes:
    """The body of a snapshot's file."""
    return msgspec.json.encode(snapshot)


def decode_snapshot(body: bytes | memoryview, newest: int = 1) -> MetaSnapshot:
    """Versions up to `newest` are known. Raises: MetaError."""
    try:
        version = _versions.decode(body).version
        if version > newest:
            raise MetaError(f"meta snapshot of version {version}, this server knows {newest}")
        snapshot = _snapshots.decode(body)
    except msgspec.MsgspecError as err:
        raise MetaError(f"meta snapshot not understood: {err}") from err
    if len({(a.account, a.name) for a in snapshot.streams}) != len(snapshot.streams):
        raise MetaError("meta snapshot names a stream twice")
    return snapshot


class MetaState:
    """All assignments as of the last entry applied."""

    def __init__(self, newest: int = 1) -> None:
        """`newest`: the version of entries up to which they are understood."""
        self.newest = newest
        self._streams: dict[tuple[str, str], Assignment] = {}
        # What follows from the streams, kept beside them: a request must not cost a look at each.
        self._accounts: dict[str, dict[str, Assignment]] = {}
        self._groups: set[str] = set()
        self._owners: dict[str, SubjectOwners] = {}  # by account, once somebody asked: meta leaders do
        self._reserved: dict[tuple[str, str], int] = {}  # by account and storage
        self._reserved_on: dict[tuple[str, str], int] = {}  # by server and storage
        self._load: dict[str, int] = {}
        self.removed: dict[str, str] = {}  # servers removed -> the directory they are not to come back with
        self.applied = 0
        self.written = 1  # the newest version of an entry or a configuration: who knows only older ones cannot join

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, account: str, name: str) -> Assignment | None:
        return self._streams.get((account, name))

    def streams(self, account: str | None = None) -> list[Assignment]:
        """The assignments (of one account), by name."""
        if account is not None:
            return sorted(self._accounts.get(account, {}).values(), key=lambda a: a.name)
        return sorted(self._streams.values(), key=lambda a: (a.account, a.name))

    def names(self, account: str) -> Collection[str]:
        """The streams of one account, in no order."""
        return self._accounts.get(account, {}).keys()

    def has_group(self, group: str) -> bool:
        """Whether a stream is held by a Raft group of that name."""
        return group in self._groups

    def taker(self, account: str, subjects: list[str], but: str) -> str | None:
        """A stream of the account, other than `but`, that takes something of the subjects. Raises: TooManySubjects."""
        owners = self._owners.get(account)
        if owners is None:
            owners = self._owners[account] = SubjectOwners()
            for assignment in self._accounts.get(account, {}).values():
                for subject in assignment.config.get("subjects") or ():
                    owners.add(subject, assignment.name)
        return owners.find(subjects, but)

    def reserved(self, account: str, server: str, storage: str, but: str) -> tuple[int, int]:
        """Bytes that streams other than `but` reserve, with all replicas: of the account, and on the server."""
        own = self._accounts.get(account, {}).get(but)
        of_account, on_server = self._reserved.get((account, storage), 0), self._reserved_on.get((server, storage), 0)
        if own is not None and own.config.get("storage") == storage:
            of_account -= _size(own) * own.replicas
            on_server -= _size(own) * (server in own.peers)
        return of_account, on_server

    def reserved_on(self, server: str, storage: str) -> int:
        """Bytes that the replicas on a server reserve."""
        return self._reserved_on.get((server, storage), 0)

    def _put(self, assignment: Assignment) -> None:
        self._take(assignment.account, assignment.name)
        self._streams[assignment.account, assignment.name] = assignment
        self._accounts.setdefault(assignment.account, {})[assignment.name] = assignment
        self._groups.add(assignment.group)
        self._count(assignment, 1)

    def _take(self, account: str, name: str) -> None:
        assignment = self._streams.pop((account, name), None)
        if assignment is None:
            return
        del self._accounts[account][name]
        self._groups.discard(assignment.group)
        self._count(assignment, -1)

    def _count(self, assignment: Assignment, by: int) -> None:
        for peer in assignment.peers:
            _add(self._load, peer, by)
        size, storage = _size(assignment) * by, str(assignment.config.get("storage"))
        if size:
            _add(self._reserved, (assignment.account, storage), size * assignment.replicas)
            for peer in assignment.peers:
                _add(self._reserved_on, (peer, storage), size)
        owners = self._owners.get(assignment.account)
        if owners is not None:
            for subject in assignment.config.get("subjects") or ():
                (owners.add if by > 0 else owners.remove)(subject, assignment.name)

    def load(self, server: str) -> int:
        """How many stream replicas the server holds."""
        return self._load.get(server, 0)

    def skip(self, index: int) -> None:
        """Record `index` of the log was of no concern here (a leader's no-op, a membership)."""
        self.applied = max(self.applied, index)

    def configured(self, data: bytes) -> None:
        """Record `data` of the log is a configuration of the meta group."""
        with contextlib.suppress(msgspec.MsgspecError):
            self.written = max(self.written, _versions.decode(data).version)

    def apply(self, index: int, data: bytes) -> list[Effect]:
        """Applies the committed entry `index`. Entries must come in order; one at or below `applied` does nothing.

        Raises: MetaError, with the state unchanged.
        """
        if index <= self.applied:
            return []
        entry = decode_entry(data, self.newest)
        self.written = max(self.written, _versions.decode(data).version)
        self.applied = index
        match entry:
            case CreateStream():
                return [self._create(index, entry)]
            case UpdateStream():
                return [self._update(index, entry)]
            case DeleteStream():
                return [self._delete(entry)]
            case RemoveServer():
                self.removed[entry.server] = entry.directory
                return [ServerRemoved(entry.server, entry.directory, entry.reply)]

    def replay(self, index: int, kind: int, data: bytes) -> list[Effect]:
        """Applies record `index` of the meta log, whatever it is; see `apply`."""
        if kind == jscore.KIND_HOST:
            return self.apply(index, data)
        if kind == jscore.KIND_MEMBERS:
            self.configured(data)
        self.skip(index)
        return []

    def snapshot(self, members_index: int, members: bytes, version: int = 1) -> MetaSnapshot:
        """The state as of `applied`; later entries do not change what is returned."""
        return MetaSnapshot(self.streams(), dict(self.removed), members_index, members.decode(), version)

    def take_over(self, index: int, snapshot: MetaSnapshot) -> list[Effect]:
        """Goes on from the state at record `index`, and returns what that changes here: as the entries in between would
        have, without who asked for them. A stream that is not in it was deleted: all of it is committed.
        """
        if index <= self.applied:
            return []
        self.applied = index
        return self._become(snapshot.streams, snapshot.removed, snapshot.version)

    def correct(self, right: MetaState) -> list[Effect]:
        """Becomes another state of the same record, as some of what was applied here was wrong; what that changes."""
        return self._become(right.streams(), right.removed, right.written)

    def _become(self, streams: list[Assignment], removed: dict[str, str], written: int) -> list[Effect]:
        before, after = dict(self._streams), {(a.account, a.name): a for a in streams}
        for account, name in before.keys() - after.keys():
            self._take(account, name)
        for key, assignment in after.items():
            if before.get(key) != assignment:
                self._put(assignment)
        known, self.removed = self.removed, dict(removed)
        self.written = max(self.written, written)
        kept = {a.group for a in streams}
        out: list[Effect] = [Deleted(a, "") for a in before.values() if a.group not in kept]
        for key, assignment in after.items():
            present = before.get(key)
            if present is None or present.group != assignment.group:
                out.append(Created(assignment, ""))
            elif present != assignment:
                out.append(Updated(assignment, ""))
        out += [ServerRemoved(s, d, "") for s, d in self.removed.items() if known.get(s) != d]
        return out

    def _create(self, index: int, entry: CreateStream) -> Effect:
        wanted = msgspec.structs.replace(entry.assignment, version=index, born=index)
        key = (wanted.account, wanted.name)
        present = self._streams.get(key)
        if present is not None:
            return Existed(present, wanted, entry.reply)
        self._put(wanted)
        return Created(wanted, entry.reply)

    def _update(self, index: int, entry: UpdateStream) -> Effect:
        key = (entry.account, entry.name)
        present = self._streams.get(key)
        if present is None or present.group != entry.group:
            return Missing(entry.account, entry.name, entry.reply, update=True)
        updated = msgspec.structs.replace(present, config=entry.config, version=index)
        if entry.peers and entry.peers != present.peers:
            updated = msgspec.structs.replace(
                updated,
                peers=list(entry.peers),
                founders=list(present.birth),
                joined=[p for p in entry.peers if p in present.joined or p not in present.peers],
                former=list(present.peers) if entry.moves else [],
            )
        self._put(updated)
        return Updated(updated, entry.reply, entry.answer, entry.system)

    def _delete(self, entry: DeleteStream) -> Effect:
        key = (entry.account, entry.name)
        present = self._streams.get(key)
        if present is None or present.group != entry.group:
            return Missing(entry.account, entry.name, entry.reply, update=False)
        self._take(*key)
        return Deleted(present, entry.reply)


def _size(assignment: Assignment) -> int:
    """What each replica reserves."""
    return max(0, int(assignment.config.get("max_bytes") or 0))


def _add(counts: dict[Any, int], key: Any, by: int) -> None:
    counts[key] = counts.get(key, 0) + by
    if not counts[key]:
        del counts[key]


def settle(effects: list[Effect]) -> list[Effect]:
    """The same effects with streams left out that were both created and deleted among them.

    A restart applies the whole log at once: a stream that came and went long ago must not be opened again. Their
    replies belong to requests of another life. Updates fold into the creation that precedes them.
    """
    gone = {e.assignment.group for e in effects if isinstance(e, Deleted)}
    born = {e.assignment.group for e in effects if isinstance(e, Created)}
    short = gone & born
    latest: dict[str, Assignment] = {}
    for effect in effects:
        if isinstance(effect, Created | Updated):
            latest[effect.assignment.group] = effect.assignment
    out: list[Effect] = []
    for effect in effects:
        if isinstance(effect, Missing | ServerRemoved):
            out.append(effect)
        elif effect.assignment.group in short:
            continue
        elif isinstance(effect, Created):
            out.append(Created(latest[effect.assignment.group], effect.reply))
        else:
            out.append(effect)
    return out
