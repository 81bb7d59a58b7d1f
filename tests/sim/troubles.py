"""Clients, and what goes wrong around them."""

from __future__ import annotations

from jscore_server.raft.core import ChangeRefused, NotLeader, Role

import jscore

from .snapshots import Snapshots


class Troubles(Snapshots):
    """Random publishes and reads; crashes, cuts, pauses, failing disks, changes of members, transfers."""

    def client(self) -> None:
        rng = self.rng
        if self.faults:
            self.at(1 + int(rng.random() * self.pace), self.client)
        self.propose_somewhere()

    def propose_somewhere(self, tag: str = "p") -> str | None:
        leaders = [
            n
            for n, node in self.nodes.items()
            if (c := node.core) is not None
            and c.led
            and not c.transferee
            and not (node.full or node.broken or node.paused)
        ]
        if not leaders:
            return None
        node = self.nodes[leaders[int(self.rng.random() * len(leaders))]]
        core = self.enter(node)
        assert core is not None
        key = ""
        for _ in range(1 if tag == "probe" else self.rng.choice((1, 1, 5))):
            self.proposed += 1
            key = f"{tag}{self.proposed}"
            index = self.lead_append(node, key)
            self.waiting[key] = (node.name, index, core.term, self.floor, self.now)
        self.drain(node)
        return key

    def reader(self) -> None:
        if self.faults:
            self.at(1 + int(self.rng.random() * self.pace), self.reader)
        self.read_somewhere()

    def read_somewhere(self) -> None:
        """Asks somebody who leads, or is taken for a leader still; its answer may never come."""
        rng = self.rng
        leaders = [n for n in self.names if (c := self.nodes[n].core) is not None and c.role is Role.LEADER]
        if leaders:
            name = leaders[int(rng.random() * len(leaders))]
            self.reads += 1
            self.reading[self.reads] = (name, self.floor, self.now)
            self.at(1 + int(rng.random() * self.delay), self.on_read, name, self.nodes[name].life, self.reads)

    def on_read(self, name: str, life: int, number: int) -> None:
        node = self.nodes[name]
        if node.life != life or self.stopped(node, self.on_read, name, life, number):
            return
        core = self.enter(node)
        try:
            if core is not None:
                core.read(number)
        except NotLeader:
            self.reading.pop(number, None)
            return
        self.drain(node)

    def trouble(self) -> None:
        if not self.faults:
            return
        rng = self.rng
        self.at(50 + int(rng.random() * 500), self.trouble)
        total = sum(self.rates.values())
        if not total:
            return
        dice = rng.random() * (total + 2)
        acts = (self.crash_some, self.cut_some, self.change_members, self.transfer_some, self.pause_some,
                self.disk_some, self.lose_some, self.hurt_some)  # fmt: skip
        for act, rate in zip(acts, self.rates.values(), strict=True):
            if dice < rate:
                act()
                return
            dice -= rate
        self.mend_some()

    def pause_some(self) -> None:
        rng = self.rng
        leaders = [n for n in self.names if (c := self.nodes[n].core) is not None and c.role is Role.LEADER]
        name = leaders[0] if leaders and rng.random() < 0.6 else rng.choice(self.names)
        span = int(rng.choice((200, 1000, 3000)) * (0.5 + rng.random()))
        for _ in range(3):  # readers that do not know
            self.reads += 1
            self.at(int(rng.random() * span), self.ask_stopped, name, self.reads)
        self.pause(name, span)

    def ask_stopped(self, name: str, number: int) -> None:
        self.reading[number] = (name, self.floor, self.now)
        self.on_read(name, self.nodes[name].life, number)

    def disk_some(self) -> None:
        """A disk is full for a while, fails a sync, or hangs."""
        rng = self.rng
        node = self.nodes[rng.choice(self.names)]
        dice = rng.random()
        if dice < 0.4:
            node.full = True
            self.note(f"{node.name} has no space")
        elif dice < 0.7:
            node.fails = True
            self.at(rng.randrange(500, 3000), self.replace_process, node.name)
        else:
            node.disk = 100.0
            self.note(f"{node.name}'s disk hangs")

    def replace_process(self, name: str) -> None:
        if self.nodes[name].broken:
            self.crash(name)
            self.at(100, self.restart, name, self.nodes[name].life)

    def lose_some(self) -> None:
        """One disk loses everything, or the end of its log, while all others have what they ever had."""
        rng = self.rng
        victim = self.can_lose()
        if victim:
            node = self.nodes[victim]
            kept = max(node.log.first - 1, len(node.log.snapshot) and jscore.snapshot_head(node.log.snapshot).index)
            keep = rng.randint(min(kept, node.log.durable), node.log.durable) if rng.random() < 0.5 else 0
            self.lose(victim, keep=keep)
            self.at(1 + int(rng.random() * 2000), self.restart, victim, node.life)

    def hurt_some(self) -> None:
        """One disk loses its snapshot."""
        victim = self.can_lose()
        if victim and self.nodes[victim].log.first > 1:
            self.crash(victim)
            node = self.nodes[victim]
            self.remember(node)
            node.log.hurt_snapshot()
            self.note(f"{victim}'s snapshot is damaged")
            self.at(1 + int(self.dice.random() * 500), self.restart, victim, node.life)

    def can_lose(self) -> str:
        """A member without which the others have all that there is, if there is one."""
        rng = self.rng
        leaders = [c for n in self.names if (c := self.nodes[n].core) is not None and c.led]
        if not leaders or self.timing.lease:
            return ""  # what a lease was promised is forgotten with a disk: its restart would have to wait
        leader = max(leaders, key=lambda c: c.term)
        voters = leader.members.all_voters
        if len(voters) < 3 or leader.members.outgoing or leader.members.index > leader.commit or leader.target:
            return ""
        victim = rng.choice(voters)
        for name, node in self.nodes.items():
            core = node.core
            if name != victim and (core is None or core.hard.mute >= 0 or node.broken or not leader._is_itself(name)):
                return ""
        node = self.nodes[victim]
        if node.core is None or node.core.hard.mute >= 0 or not leader._is_itself(victim):
            return ""
        return victim

    def count_again(self) -> None:
        """What Group does for members that lost their promises: a new identity, or an election without them."""
        for name in self.names:
            node = self.nodes[name]
            core = self.enter(node)
            if core is None or not core.led or core.transferee or node.paused:
                continue
            out = [p for n, p in core.progress.items() if core.members.is_voter(n) and not p.counted]
            ready = [p for n, p in core.progress.items() if n in core.members.voters and p.counted]
            try:
                for p in out:
                    if not core._is_itself(p.name):
                        core.replace_directory(p.name, node.met[p.name])
                        break
                else:
                    if out and ready:
                        core.transfer(max(ready, key=lambda p: (p.match, p.name)).name)
            except (ChangeRefused, NotLeader):
                continue
            self.drain(node)

    def crash_some(self) -> None:
        rng = self.rng
        dice = rng.random()
        if dice < 0.4:
            victims = [n for n in self.names if (c := self.nodes[n].core) is not None and c.role is Role.LEADER]
        elif dice < 0.5:
            victims = list(self.names)  # everybody at once (K-50)
        else:
            victims = [rng.choice(self.names)]
        for name in victims:
            self.crash(name)
            if rng.random() < 0.5:
                for other in self.names:
                    self.at(1 + int(rng.random() * 30), self.link, other, name, False)
            self.at(1 + int(rng.random() * rng.choice((10, 300, 3000))), self.restart, name, self.nodes[name].life)

    def restart(self, name: str, life: int) -> None:
        node = self.nodes[name]
        if node.core is None and node.repair is None and node.life == life:
            self.start(name)
            for other in self.names:
                if other != name:
                    if name in self.nodes[other].present:
                        self.link(other, name, False)  # whoever missed the end of the old link learns it by the new one
                    self.link(other, name, True)
                    self.link(name, other, True)

    def cut_some(self) -> None:
        rng = self.rng
        self.blocked.clear()
        dice = rng.random()
        if dice < 0.3:
            a, b = rng.sample(self.names, 2)
            self.blocked[a, b] = True  # one way only (K-27)
        elif dice < 0.5:
            a, b = rng.sample(self.names, 2)
            self.blocked[a, b] = self.blocked[b, a] = True  # ring cut (K-26)
        else:
            side = [n for n in self.names if rng.random() < 0.5]
            leaders = [n for n in self.names if (c := self.nodes[n].core) is not None and c.role is Role.LEADER]
            if rng.random() < 0.4 and leaders:
                side = leaders[:1]
            for a in self.names:
                for b in self.names:
                    if (a in side) != (b in side) and (dice < 0.9 or a in side):
                        self.blocked[a, b] = True
        self.note(f"cuts {sorted(self.blocked)}")
        if rng.random() < 0.5:
            for a, b in list(self.blocked):
                self.link(a, b, False)
                self.link(b, a, False)

    def mend_some(self) -> None:
        mended = list(self.blocked)
        self.blocked.clear()
        for node in self.nodes.values():
            node.disk = self.rng.choice((0.1, 1.0, 1.0, 5.0))
            node.full = False
            node.fails = False
        self.count_again()
        for a, b in mended:
            self.link(a, b, True)
            self.link(b, a, True)

    def change_members(self) -> None:
        """Asks every leader for some set of voters: one more or fewer, or any others at all; or to give up."""
        rng = self.rng
        for name in self.names:
            core = self.enter(self.nodes[name])
            if core is None or core.role is not Role.LEADER or self.nodes[name].paused:
                continue
            voters = core.members.voters
            outside = [n for n in self.names if n not in voters]
            dice = rng.random()
            try:
                if dice < 0.15:
                    core.cancel_change()
                elif dice < 0.35 and outside:
                    core.change((*voters, rng.choice(outside)), instead=rng.random() < 0.3)
                elif dice < 0.5:
                    pick = rng.choice(voters)
                    core.change(tuple(n for n in voters if n != pick))
                else:
                    picked = rng.sample(self.names, rng.choice((1, 3, 3, 4, 5)))
                    rest = [n for n in self.names if n not in picked]
                    core.change(tuple(picked), tuple(rest[: rng.choice((0, 0, 1))]), instead=rng.random() < 0.3)
            except (NotLeader, ChangeRefused):
                continue
            self.note(f"{name} changes members: {core.changing}")
            self.drain(self.nodes[name])

    def transfer_some(self) -> None:
        for name in self.names:
            core = self.enter(self.nodes[name])
            if core is not None and core.led and not self.nodes[name].paused:
                target = self.rng.choice(core.members.voters)
                self.note(f"{name} hands over to {target}")
                try:
                    core.transfer(target)
                except ChangeRefused:
                    continue
                self.drain(self.nodes[name])

    def heal(self) -> None:
        self.note("peace")
        self.faults = False
        self.mend_some()
        for name in self.names:
            node = self.nodes[name]
            node.disk = 0.1
            if node.paused:
                self.resume(name, node.life, self.now - 1000)
            if node.broken:
                self.crash(name)
            if node.syncing:
                self.at(1, self.log_synced, node, node.life, node.log.last)
            if node.hard_sync and node.pending_hard:
                self.at(1, self.hard_synced, node, node.life, node.pending_hard[-1][0])
            self.restart(name, self.nodes[name].life)
