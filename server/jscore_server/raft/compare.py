"""Replicas are compared: digests over ranges of committed records. Source: spec/raft.md R-33, §4.

A leader takes its own log range by range, asks the others for the digest of the same records, byte for byte as they
stand in the log, and goes on when they are equal. Who differs from a majority is told by whom it is right, and repairs
itself; where no majority agrees it is reported, and nothing is touched. What was compared is compared anew by the next
leader, and with a member that was started anew.

One frame holds one JSON object: {"g": group, "lo": first, "hi": last, ...} with a "k" of
  ask
  told     "d": digest, empty when it cannot be made; "first": where the log begins
  differs  "d": digest of the majority; "with": who agrees on it, nobody when there is none
  equal    no difference is left among them
All of it costs a bounded part of the disk's time and none for a group that has been compared and is idle.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from .messages import FRAME_COMPARE, MAX_GROUP_ID, ProtocolError

if TYPE_CHECKING:
    from .group import Group
    from .host import RaftHost

COMPARE_PROTOCOL = 2  # who speaks an older one knows nothing of this, and is not asked
RANGE_BYTES = 256 * 1024  # about so much at once, but at least a record
RANGE_MAX = 9 << 20  # of a record or a range that another one chose; a larger record is not compared
EVERY_TICKS = 5  # 100 ms
BYTES_EACH = 400 * 1024  # in such a time: 4 MiB a second here, and the same at each member
RANGES_EACH = 2
LOOKS_EACH = 64  # groups looked at in such a time
FEW = 1024  # fewer new records wait until the group has been still for SETTLE_TICKS
SETTLE_TICKS = 50
PATIENCE_TICKS = 100
LATER_TICKS = 500  # who could not say is asked again after 10 s
TOO_LONG = "long"  # the digest of a range that ought to fit and does not: no other is like it
REPAIRS = 3  # of one range in one member: more do not help


@dataclass(frozen=True, slots=True)
class Difference:
    """Records of a group that are not the same everywhere: `odd` differ from those of `agreed`, a majority; from
    those of the leader where that is empty.
    """

    lo: int
    hi: int
    odd: tuple[str, ...]
    agreed: tuple[str, ...]


@dataclass(slots=True)
class Course:
    """How far a leader has compared a group."""

    term: int
    done: dict[str, int] = field(default_factory=dict)  # member -> equal up to there, or not to be compared
    later: dict[str, int] = field(default_factory=dict)  # member -> tick from which it is to go on
    silent: dict[str, int] = field(default_factory=dict)  # member -> tick until which it is not asked, as it was silent
    repairs: dict[tuple[str, int], int] = field(default_factory=dict)
    lo: int = 0  # the range in question; 0: none
    hi: int = 0
    digest: str = ""
    asked: tuple[str, ...] = ()
    told: dict[str, str] = field(default_factory=dict)
    until: int = 0
    seen: int = 0  # the commit index at the last look, and when it moved
    moved: int = 0

    def passed(self, name: str, lo: int, hi: int, first: int) -> None:
        """`name` has been looked at from `lo` to `hi`; that counts unless something before is left."""
        if max(self.done.get(name, 0), first - 1) >= lo - 1:
            self.done[name] = max(self.done.get(name, 0), hi)


class Comparer:
    """What one host compares as leader and answers as follower. Driven by RaftHost's ticks and frames."""

    def __init__(self, host: RaftHost) -> None:
        self._host = host
        self._todo: dict[Group, None] = {}
        self._courses: dict[Group, Course] = {}
        self._spare = 0  # bytes that may be read still; below 0 when a range was larger

    # ---- what the host tells ---------------------------------------------------------------------------------------

    def note(self, group: Group) -> None:
        """A group led here has committed something."""
        self._todo[group] = None

    def forget(self, group: Group) -> None:
        """It is gone, or not led here any more."""
        self._todo.pop(group, None)
        self._courses.pop(group, None)

    def started(self, peer: str) -> None:
        """`peer` was started anew: what it holds comes from its disk now."""
        for group, course in self._courses.items():
            if course.done.pop(peer, None) is not None or peer in course.later or peer in course.silent:
                course.later.pop(peer, None)
                course.silent.pop(peer, None)
                self._todo[group] = None

    def back(self, peer: str) -> None:
        """The link to `peer` is up: it may have missed what others were asked."""
        for group, course in self._courses.items():
            if course.done.get(peer, 0) < course.seen:
                self._todo[group] = None

    def tick(self) -> None:
        """Goes on with what is to be compared. Called every tick; does something at some of them."""
        if not self._todo or self._host.ticks % EVERY_TICKS or self._host.candidates.crowded:
            return
        self._spare = min(self._spare + BYTES_EACH, BYTES_EACH)
        ranges = 0
        for group in list(islice(self._todo, LOOKS_EACH)):
            if ranges >= RANGES_EACH or self._spare <= 0:
                break
            del self._todo[group]
            if not self._leads(group):
                self._courses.pop(group, None)
                continue
            try:
                again, asked = self._look(group)
            except (self._host.engine.Error, OSError) as err:
                group.unreadable(err)
                continue
            ranges += asked
            if again:
                self._todo[group] = None

    def _leads(self, group: Group) -> bool:
        return self._host.groups.get(group.id) is group and group.is_leader and not group.stopped

    # ---- a leader --------------------------------------------------------------------------------------------------

    def _look(self, group: Group) -> tuple[bool, bool]:
        """(whether to look at it again, whether a range was read)."""
        core, ticks = group.core, self._host.ticks
        course = self._courses.get(group)
        if course is None or course.term != core.term:
            course = self._courses[group] = Course(core.term)
        if course.lo:
            if len(course.told) < len(course.asked) and ticks < course.until:
                return True, False
            self._judge(group, course)
            if not self._leads(group):
                return False, False
        commit = core.commit if core.quiet else core.caught  # what the others know by now, too
        if core.commit != course.seen:
            course.seen, course.moved = core.commit, ticks
        course.later = {n: at for n, at in course.later.items() if at > ticks and n in core.progress}
        course.silent = {n: at for n, at in course.silent.items() if at > ticks and n in core.progress}
        match = {n: p.match for n, p in core.progress.items() if n not in course.silent and self._can_ask(n)}
        base = group.log.first - 1
        needs = {n: max(course.done.get(n, 0), base) for n in match if n not in course.later}
        needs = {n: done for n, done in needs.items() if done < min(match[n], commit)}
        unsettled = ticks - course.moved < SETTLE_TICKS
        if not needs:
            return unsettled or bool(course.later or course.silent), False
        lo = min(needs.values()) + 1
        hi = min([commit, *(match[n] for n in needs)])
        if hi - lo < FEW and unsettled:
            return True, False
        size, last, digest = self._digest(group, lo, hi)
        asked = [n for n in match if match[n] >= last]
        if not digest:
            for n in asked:
                course.passed(n, lo, lo, base + 1)  # one that is too large to be compared
            return True, True
        self._spare -= size
        course.lo, course.hi, course.digest = lo, last, digest
        course.asked, course.told, course.until = tuple(asked), {}, ticks + PATIENCE_TICKS
        for n in asked:
            self._send(n, {"k": "ask", "g": group.id, "lo": lo, "hi": last})
        return True, True

    def _can_ask(self, name: str) -> bool:
        host = self._host
        return host.transport.connected(name) and host.understood((name,)) >= COMPARE_PROTOCOL

    def _digest(self, group: Group, lo: int, hi: int) -> tuple[int, int, str]:
        """(bytes, last index, digest) of about RANGE_BYTES of records; no digest when one is too large."""
        try:
            raw, last = group.log.copy(lo, hi, RANGE_BYTES)
        except self._host.engine.Full:
            try:
                raw, last = group.log.copy(lo, lo, RANGE_MAX)
            except self._host.engine.Full:
                return 0, lo, ""
        return len(raw), last, _digest_of(raw)

    def _judge(self, group: Group, course: Course) -> None:
        core, ticks, own = group.core, self._host.ticks, self._host.name
        lo, hi = course.lo, course.hi
        course.lo = 0
        classes: dict[str, list[str]] = {course.digest: [own]}
        for name in course.asked:
            digest = course.told.get(name, "")
            if digest:
                classes.setdefault(digest, []).append(name)
            elif name not in course.told:
                course.silent[name] = ticks + LATER_TICKS
            elif course.done.get(name, 0) < hi:
                course.later[name] = ticks + LATER_TICKS
        if len(classes) == 1:
            for name in classes[course.digest]:
                if name != own:
                    course.passed(name, lo, hi, group.log.first)
            if group.difference is not None and group.difference.lo >= lo and group.difference.hi <= hi:
                if set(group.difference.odd) <= set(classes[course.digest]):
                    self._host.log_line("info", f"raft group {group.id}: records {lo} to {hi} are equal everywhere")
                    for name in group.difference.odd:
                        if name != own:
                            self._send(name, {"k": "equal", "g": group.id, "lo": lo, "hi": hi})
                    group.difference = None
            return
        agreed = next((names for names in classes.values() if core.members.agree(set(names))), [])
        right = next((d for d, names in classes.items() if names is agreed), "")
        odd = [n for names in classes.values() if names is not agreed and (agreed or own not in names) for n in names]
        for name in course.asked:
            if name in odd or name in classes[course.digest]:
                course.passed(name, lo, hi, group.log.first)
        found = Difference(lo, hi, tuple(sorted(odd)), tuple(sorted(agreed)))
        answered = {name for names in classes.values() for name in names}
        open_ = not agreed and not answered.issuperset(core.members.all_voters)  # who is away may decide it yet
        known = found == group.difference
        self._report(group, found, known)
        for name in odd:
            tries = course.repairs.get((name, lo), 0)
            course.repairs[name, lo] = tries + bool(agreed)
            if tries >= REPAIRS:
                continue
            if name != own:
                told = {"k": "differs", "g": group.id, "lo": lo, "hi": hi, "d": right, "with": sorted(agreed)}
                self._send(name, told)
            if agreed or open_:
                course.done[name] = min(course.done.get(name, 0), lo - 1)  # looked at again when it is repaired
                course.later[name] = ticks + LATER_TICKS
        if own in odd or not known:
            group.differs(found)

    def _report(self, group: Group, found: Difference, known: bool) -> None:
        group.difference = found
        if known and not found.agreed:
            return  # said before, and nobody is asked to do anything
        who = ", ".join(found.odd)
        if found.agreed:
            what = f"in {who} from those of {', '.join(found.agreed)}, which are a majority"
        else:
            what = f"in {who} from those of its leader {self._host.name}; no majority agrees, so nothing is changed"
        self._host.log_line("error", f"raft group {group.id}: records {found.lo} to {found.hi} differ {what}")

    # ---- frames ----------------------------------------------------------------------------------------------------

    def _send(self, peer: str, body: dict[str, Any]) -> None:
        self._host.transport.send(peer, FRAME_COMPARE, json.dumps(body, separators=(",", ":")).encode())

    def receive(self, peer: str, body: bytes) -> None:
        """Raises ProtocolError."""
        word, group_id, lo, hi, fields = _decode(body)
        group = self._host.groups.get(group_id)
        if group is None or group.stopped:
            return
        if word == "ask":
            self._answer(group, peer, lo, hi)
        elif word == "told":
            course = self._courses.get(group)
            if course is None or (course.lo, course.hi) != (lo, hi) or peer not in course.asked:
                return
            first, digest = fields.get("first", 0), fields.get("d", "")
            if not isinstance(first, int) or not isinstance(digest, str) or len(digest) > 64:
                raise ProtocolError("an answer to a comparison cannot be")
            if not digest and lo < first:
                course.passed(peer, lo, min(first - 1, hi), group.log.first)
            course.told[peer] = digest
        elif word == "equal":
            found = group.difference
            if group.core.leader == peer and found is not None and lo <= found.lo and found.hi <= hi:
                group.difference = None
        else:
            self._differs(group, peer, lo, hi, fields)

    def _answer(self, group: Group, peer: str, lo: int, hi: int) -> None:
        digest = ""
        if lo >= group.log.first and hi <= group.core.commit:
            digest = self._of(group, lo, hi)
        body = {"k": "told", "g": group.id, "lo": lo, "hi": hi, "d": digest, "first": group.log.first}
        self._send(peer, body)

    def _of(self, group: Group, lo: int, hi: int) -> str:
        """Digest of exactly these records; empty when it cannot be made."""
        try:
            raw, last = group.log.copy(lo, hi, RANGE_MAX)
            if last < hi:
                group.log.read(last + 1)  # a damaged one ends a copy, too
        except self._host.engine.Full:
            return ""
        except (self._host.engine.Error, OSError) as err:
            group.unreadable(err)
            return ""
        return _digest_of(raw) if last == hi else TOO_LONG

    def _differs(self, group: Group, peer: str, lo: int, hi: int, fields: dict[str, Any]) -> None:
        """The leader says so. Believed of the one that leads here, and only while it is true."""
        names, digest = fields.get("with"), fields.get("d")
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names) or not isinstance(digest, str):
            raise ProtocolError("what a comparison has found cannot be")
        own = self._host.name
        if group.core.leader != peer or own in names or hi > group.core.commit or lo < group.log.first:
            return
        if digest and digest == self._of(group, lo, hi):
            return
        found = Difference(lo, hi, (own,), tuple(sorted(names)))
        if names:
            self._report(group, found, False)
            group.differs(found)
        elif found != group.difference:
            group.difference = found
            text = f"records {lo} to {hi} differ from those of its leader {peer}; no majority agrees"
            self._host.log_line("error", f"raft group {group.id}: {text}, so nothing is changed")


def _digest_of(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def _decode(body: bytes) -> tuple[str, str, int, int, dict[str, Any]]:
    """(word, group, first, last, all fields). Raises ProtocolError."""
    try:
        fields = json.loads(body)
        word, group, lo, hi = fields["k"], fields["g"], fields["lo"], fields["hi"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ProtocolError("a comparison is not understood") from None
    if word not in ("ask", "told", "differs", "equal") or not isinstance(group, str) or len(group) > MAX_GROUP_ID:
        raise ProtocolError("a comparison is not understood")
    if type(lo) is not int or type(hi) is not int or not 1 <= lo <= hi < 1 << 62:
        raise ProtocolError("a comparison of records that cannot be")
    return word, group, lo, hi, fields
