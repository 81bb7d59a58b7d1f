"""What must hold after every event, against a global view (numbers: spec/raft.md §7)."""

from __future__ import annotations

import bisect
from dataclasses import replace
from typing import Any

from jscore_server.raft.core import Members
from jscore_server.raft.messages import ACK, PREVOTE, PREVOTE_REPLY, VOTE, VOTE_REPLY, Message

from .model import NOOP_DATA, Node, Violation, World


class Checks(World):
    """The invariants."""

    def check_message(self, node: Node, m: Message) -> None:
        kind = m.kind
        if kind == PREVOTE or kind == PREVOTE_REPLY:
            return
        hard = node.durable_hard
        if hard.term < m.term:
            raise Violation(f"7: {node.name} sends {m} before term {m.term} is on its disk ({hard.term})")
        if kind == ACK:
            if m.index > node.log.durable:
                raise Violation(f"7: {node.name} acks {m.index}, its platter ends at {node.log.durable}")
        elif kind == VOTE or (kind == VOTE_REPLY and m.flags):
            choice = node.name if kind == VOTE else m.peer
            if hard.term == m.term and hard.vote != choice:
                raise Violation(f"7: {node.name} sends {m}, its disk holds a vote for {hard.vote!r}")
            if self.voted.setdefault((node.name, m.term), choice) != choice:
                raise Violation(f"8: {node.name} votes twice in term {m.term}")

    def check_entries(self, node: Node, lo: int) -> None:
        log, entries = node.log, self.entries
        terms, data = log.terms, log.data
        for index in range(lo, len(terms)):
            found = (data[index], terms[index - 1])
            if entries.setdefault((index, terms[index]), found) != found:
                raise Violation(f"2: {node.name} holds another record at {index} of term {terms[index]}")

    def check_truncate(self, node: Node, last: int) -> None:
        log = node.log
        if last < node.applied:
            raise Violation(f"10: {node.name} cuts to {last} below its commit")
        for index in range(last + 1, min(log.last + 1, len(self.ghost_terms))):
            if log.terms[index] == self.ghost_terms[index]:
                raise Violation(f"10: {node.name} cuts the committed record {index}")

    def check_leader(self, node: Node) -> None:
        core = node.core
        assert core is not None
        known = self.leaders.get(core.term)
        if known is None:
            self.leaders[core.term] = node.name
            size = bisect.bisect_left(self.committed_in, core.term)  # it may have been stopped while others went on
            self.note(f"{node.name} leads term {core.term}")
            lo = node.log.first - 1  # what it let go of it had committed
            if node.log.terms[lo:size] != self.ghost_terms[lo:size]:
                raise Violation(f"3: the leader {node.name} of term {core.term} lacks committed records")
            for voters, quorum in quorums(core.members):
                votes = [n for n in voters if n == node.name or self.voted.get((n, core.term)) == node.name]
                if len(votes) < quorum:
                    raise Violation(f"12: {node.name} leads term {core.term} with the votes of {votes} of {voters}")
        elif known != node.name:
            raise Violation(f"1: {known} and {node.name} both lead term {core.term}")

    def check_change(self, node: Node, new: Members) -> None:
        core = node.core
        assert core is not None
        if core.members.index > core.commit and new.voters != core.members.outgoing:
            raise Violation("11: a second change while one is open")
        if may_be_disjoint(core.members, new):
            raise Violation(f"11: {core.members} and {new} have quorums without a common member")

    def committed(self, node: Node, commit: int) -> None:
        log, ghost = node.log, self.ghost_terms
        if commit > log.last:
            raise Violation(f"4: {node.name} commits {commit} beyond its log")
        core = node.core
        assert core is not None
        leads = self.leaders.get(core.term) == node.name  # also the one that has just committed its own removal
        lo = node.applied + 1
        if commit < lo - 1:
            raise Violation(f"9: commit of {node.name} goes back to {commit}")
        for index in range(lo, commit + 1):
            term, data = log.terms[index], log.data[index]
            if index < len(ghost):
                if ghost[index] != term or self.ghost_data[index] != data:
                    raise Violation(f"4: {node.name} commits another record at {index}")
                continue
            if not leads:
                raise Violation(f"4: {node.name} commits {index} before any leader did")
            ghost.append(term)
            self.committed_in.append(core.term)
            self.ghost_data.append(data)
            self.ghost.apply(index, data)
            self.ghost_prints.append(self.ghost.print())
            if isinstance(data, Members):
                self.ghost_members.append(replace(data, index=index))
        if leads and commit >= lo and log.terms[commit] != core.term:
            raise Violation(f"3: {node.name} counts copies of {commit} of term {log.terms[commit]} in {core.term}")
        for index in range(lo, commit + 1):
            node.machine.apply(index, log.data[index])
        node.applied = max(node.applied, commit)
        if node.machine.print() != self.ghost_prints[node.applied]:
            raise Violation(f"5: {node.name} has another state at {node.applied} than the one that was committed")
        if leads and self.waiting:
            self.acknowledge(node, commit)

    def apply_known(self, node: Node, commit: int) -> None:
        """What a replica knows to be committed when it starts."""
        lo = node.applied + 1
        if self.ghost_terms[lo : commit + 1] != node.log.terms[lo : commit + 1]:
            raise Violation(f"9: {node.name} takes {commit} for committed when it starts")
        for index in range(lo, commit + 1):
            node.machine.apply(index, node.log.data[index])
        node.applied = max(node.applied, commit)
        if node.machine.print() != self.ghost_prints[node.applied]:
            raise Violation(f"5: {node.name} has another state at {node.applied} than the one that was committed")

    def check_quorum(self, node: Node, index: int) -> None:
        core = node.core
        assert core is not None
        members = core.members
        for voters, quorum in quorums(members):
            holders = 0
            for name in voters:
                held = self.nodes[name]
                for log in (held.log, held.former):
                    if log is None or log.durable < index:
                        continue
                    # What a log let go of it had committed: this leader was stopped meanwhile.
                    terms = log.terms if index >= log.first else self.ghost_terms
                    if index < len(terms) and terms[index] == node.log.terms[index]:
                        holders += 1
                        break
            if holders < quorum:
                raise Violation(f"6: {index} is committed with {holders} copies on disks of {voters}, {quorum} needed")

    def check_snapshot(self, node: Node, index: int, members: Members) -> None:
        """What a replica begins with is all that came of the records up to there, and nothing else."""
        if index >= len(self.ghost_prints):
            raise Violation(f"13: {node.name} has a snapshot of {index}, which is not committed")
        if node.machine.print() != self.ghost_prints[index]:
            raise Violation(f"13: {node.name} has a snapshot of {index} with another state")
        wanted = [m for m in self.ghost_members if m.index <= index][-1]
        if members != wanted:
            raise Violation(f"13: {node.name} has a snapshot of {index} with {members} for {wanted}")

    def acknowledge(self, node: Node, commit: int) -> None:
        core = node.core
        assert core is not None
        for key in [k for k, w in self.waiting.items() if w[0] == node.name]:
            _, index, term, highest, sent = self.waiting[key]
            if term != core.term:
                del self.waiting[key]  # outcome unknown to the client
            elif index <= commit:
                del self.waiting[key]
                if index <= highest:
                    raise Violation(f"15: {key} was acked at {index}, {highest} was shown before it was sent")
                self.acked[key] = index
                self.floor = max(self.floor, index)
                self.history.append((sent, self.now, index, True))

    def answer_reads(self, node: Node) -> None:
        """A reader is shown what is applied; all that anybody had been shown when it asked must be in it."""
        core = node.core
        assert core is not None
        reads, core.out.reads = core.out.reads, []
        for number, index in reads:
            asked = self.reading.pop(number, None)
            if asked is None or index < 0:
                continue
            position = node.applied
            if position < index:
                raise Violation(f"15: {node.name} answers a read of {index} at {position}")
            if position < asked[1]:
                raise Violation(f"15: {node.name} shows {position} to a read, {asked[1]} was shown before it was asked")
            self.floor = max(self.floor, position)
            self.reads_done += 1
            self.history.append((asked[2], self.now, position, False))

    def agreed(self) -> bool:
        leaders = [c for n in self.names if (c := self.nodes[n].core) is not None and c.led]
        if not leaders:
            return False
        leader = max(leaders, key=lambda c: c.term)
        if leader.members.outgoing:
            return False
        for name in leader.members.everybody:
            core = self.nodes[name].core
            if core is None or core.commit != leader.last or core.last != leader.last:
                return False
        return True

    def final(self) -> None:
        place: dict[Any, int] = {}
        for index, data in enumerate(self.ghost_data):
            if isinstance(data, str) and data != NOOP_DATA:
                if data in place:
                    raise Violation(f"20: {data} is committed twice")
                place[data] = index
        for key, index in self.acked.items():
            if place.get(key) != index:
                raise Violation(f"6: {key} was acked at {index} and is at {place.get(key)}")

        self.linearize()

    def linearize(self) -> None:
        """The whole history has one order: positions follow real time, and no two writes share one."""
        answered = sorted(self.history, key=lambda op: op[1])
        at = shown = 0
        for asked, _, position, wrote in sorted(self.history):
            while at < len(answered) and answered[at][1] < asked:
                shown = max(shown, answered[at][2])
                at += 1
            if position < shown or (wrote and position == shown):
                raise Violation(f"15: asked at {asked}, got {position}, {shown} was answered before")

    def summary(self) -> str:
        out = []
        for name in self.names:
            c = self.nodes[name].core
            out.append(
                f"{name} down" if c is None else
                f"{name} {c.role.name} t{c.term} last {c.last}/{c.commit} {c.members}"
            )  # fmt: skip
        return "; ".join(out)


def quorums(members: Members) -> list[tuple[tuple[str, ...], int]]:
    """(voters, how many of them must agree) of each part of a configuration. Kept apart from the core's arithmetic."""
    out = [(members.voters, max(len(members.voters), members.expected) // 2 + 1)]
    if members.outgoing:
        out.append((members.outgoing, max(len(members.outgoing), members.outgoing_expected) // 2 + 1))
    return out


def may_be_disjoint(a: Members, b: Members) -> bool:
    """Whether a quorum of `a` and one of `b` can be without a common member: by trying all of them."""
    names = sorted({*a.voters, *a.outgoing, *b.voters, *b.outgoing})
    for mask in range(1 << len(names)):
        side = {n for i, n in enumerate(names) if mask >> i & 1}
        if all(len(side & set(v)) >= q for v, q in quorums(a)):
            rest = set(names) - side
            if all(len(rest & set(v)) >= q for v, q in quorums(b)):
                return True
    return False
