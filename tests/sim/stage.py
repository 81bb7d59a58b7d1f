"""A calm cluster for scenarios: whatever goes wrong in it a script does. The invariants are checked as ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jscore_server.raft.core import Core, Role
from jscore_server.raft.messages import Message

from .model import GIVES_MS, GROUP, Node, Violation
from .simulator import Simulator


class Stage(Simulator):
    """`size` voters n0, n1, … and two spare servers."""

    def __init__(self, size: int = 3, **options: Any) -> None:
        super().__init__(options.pop("seed", 1), calm=True, size=size, **options)

    def go(self, ms: int) -> None:
        self.loop(self.now + ms)

    def until(self, condition: Callable[[], Any], ms: int = 5000, step: int = 1) -> Any:
        """Lets time pass until `condition`; too long is a violation of 23."""
        end = self.now + ms
        while self.now < end:
            value = condition()
            if value:
                return value
            self.loop(self.now + step)
        raise Violation(f"23: {condition} not within {ms} ms: {self.summary()}")

    def add_server(self, name: str) -> None:
        """One more server that is no member."""
        node = Node(name, self.make_log(name), self.birth)
        self.nodes[name] = node
        self.names.append(name)
        for other in self.nodes.values():
            other.known[name] = other.met[name] = node.directory
            node.known[other.name] = node.met[other.name] = other.directory
        self.start(name)

    def core(self, name: str) -> Core:
        core = self.enter(self.nodes[name])
        assert core is not None, f"{name} is down"
        return core

    def leads(self) -> str:
        """The leader of the highest term that has committed in it, "" without one."""
        led = [c for n in self.names if (c := self.nodes[n].core) is not None and c.led and not self.nodes[n].paused]
        return max(led, key=lambda c: c.term).name if led else ""

    def leader(self, ms: int = 5000) -> str:
        return str(self.until(self.leads, ms))

    def others(self, name: str) -> list[str]:
        """The other voters."""
        return [n for n in self.core(name).members.voters if n != name]

    def send(self, name: str, count: int = 1) -> list[str]:
        """Proposes at `name`, whatever becomes of it."""
        core = self.core(name)
        keys = []
        for _ in range(count):
            self.proposed += 1
            key = f"s{self.proposed}"
            self.waiting[key] = (name, self.lead_append(self.nodes[name], key), core.term, self.floor, self.now)
            keys.append(key)
        self.drain(self.nodes[name])
        return keys

    def put(self, count: int = 1, ms: int = 5000) -> list[str]:
        """Proposes at the leader and waits for all the acks."""
        keys = self.send(self.leader(ms), count)
        self.until(lambda: all(k in self.acked for k in keys), ms)
        return keys

    def shorten(self, *names: str) -> None:
        """They take snapshots of all they have applied and let go of what these stand for."""
        self.retains = 0.0
        for name in names:
            node = self.nodes[name]
            self.until(lambda node=node: node.log.durable >= node.applied)
            node.given = self.now - GIVES_MS
            self.look_at(node, 1)
            self.until(lambda node=node: not node.writing)
            assert node.log.first > 1, f"{name} lets go of nothing"

    def whole(self, *names: str, ms: int = 12_000) -> None:
        """Waits until these replicas have all that is committed."""

        def there() -> bool:
            last = len(self.ghost_terms) - 1
            return all(self.nodes[n].core is not None and self.nodes[n].applied == last for n in names)

        self.until(there, ms)

    def ask(self, name: str) -> int:
        """A read at `name`; its number in `reading` while it has no answer."""
        self.reads += 1
        self.reading[self.reads] = (name, self.floor, self.now)
        self.on_read(name, self.nodes[name].life, self.reads)
        return self.reads

    def change(self, *voters: str, at: str = "") -> None:
        name = at or self.leader()
        self.core(name).change(tuple(voters))
        self.drain(self.nodes[name])

    def changed(self, *voters: str, ms: int = 8000) -> None:
        """Waits until these are the voters, committed and not joint, by whoever leads."""

        def there() -> bool:
            name = self.leads()
            if not name:
                return False
            core = self.core(name)
            members = core.members
            return members.index <= core.commit and set(members.voters) == set(voters) and not members.outgoing

        self.until(there, ms)

    def cut(self, *sides: str, from_: tuple[str, ...] = (), to: tuple[str, ...] = ()) -> None:
        """Cuts `sides` off from all others, both ways; or what goes from `from_` to `to`."""
        pairs = [(a, b) for a in sides for b in self.names if b not in sides]
        pairs += [(b, a) for a, b in pairs] + [(a, b) for a in from_ for b in to]
        self.blocked.update(dict.fromkeys(pairs, True))

    def join(self) -> None:
        self.blocked.clear()
        for name in self.names:
            for other in self.names:
                if other != name:
                    self.link(name, other, True)

    def back(self, *names: str) -> None:
        for name in names:
            self.restart(name, self.nodes[name].life)

    def tell(self, name: str, kind: int, peer: str, term: int, **fields: int) -> None:
        """A message out of nowhere."""
        self.on_message(peer, name, Message(kind, peer, GROUP, term, **fields))

    def nobody_leads(self, ms: int, *names: str) -> None:
        """Nobody, or none of `names`, commits anything as leader for that time."""
        end = self.now + ms
        while self.now < end:
            self.loop(self.now + 20)
            led = [n for n in names or self.names if (c := self.nodes[n].core) is not None and c.led]
            assert not led, f"{led} lead: {self.summary()}"

    def roles(self, role: Role) -> list[str]:
        return [n for n in self.names if (c := self.nodes[n].core) is not None and c.role is role]
