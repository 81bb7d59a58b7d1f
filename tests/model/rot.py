"""Rot at rest: bits flip in a file of a closed log; then what is read is right, or Corrupt, and a replica heals it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jscore

from .program import Stop

if TYPE_CHECKING:
    from .player import Player

PATH = "/d/log"


class Rot:
    def __init__(self, player: Player) -> None:
        self.player = player
        self.model = player.model
        self.lost: set[int] = set()
        self.hit = ""  # the file
        self.head = False  # in a segment's head

    def run(self, a: int, b: int, c: int) -> None:
        player = self.player
        player.untidy, player.tended = True, False
        player.sync_now()
        player.drop()
        player.log.close()
        player.model.settle()
        with player.opened("r") as log:  # closing may have written limits again
            s = log.stats()
            replica = log.copy_records(s.first_index, s.last_index) if s.first_index <= s.last_index else b""
        if not self.flip(a, b, c):
            player.found()
            return
        removed = False
        if self.hit.startswith("checkpoint") and c & 3 == 0:
            removed = bool(c & 128)
            self.lose_both(b, removed)
        with player.opened("r") as log:
            self.look(log, first=True)
            player.say(f"    lost: {sorted(self.lost)}")
            try:
                findings: list[Any] = log.verify()
            except jscore.KeyMissing:
                findings = ["a head that names another key"]
            # Behind the last record it is as if a batch had been torn.
            behind = log.recovery.torn_bytes or (player.keys and self.last_segment())
            # A file that a merge replaced stays as long as a message of it is held.
            assert findings or behind or player.held or removed, "verify() finds nothing"
        self.reopen()
        if c & 8:
            player.log.scrub()
            self.damage_names_it()
        if c & 16:
            try:
                player.log.compact(all=bool(c & 4))
            except (jscore.Corrupt, ValueError):
                pass  # of the segment that was hit; the others were seen to
            self.look(player.log)
        if c & 32:
            self.write(a)
            player.log.close()
            self.reopen()
        self.heal(replica)

    def flip(self, a: int, b: int, c: int) -> bool:
        player = self.player
        files = [name for name in player.disk.list(PATH) if name != "LOCK"]
        # Every other time in a segment, of which there are fewer than of what is beside them.
        segments = [name for name in files if name.endswith(".seg")]
        names = segments if a & 1 else files
        if not names:
            return False
        self.hit = names[(a >> 1) % len(names)]
        size = len(player.disk.read(f"{PATH}/{self.hit}"))
        if not size:
            return False
        at = player.rng.randrange(min(size, (64, size, size, 512)[b & 3]))
        self.head = self.hit.endswith(".seg") and at < 64
        bit = b >> 2 & 7
        player.say(f"    bit {bit} of byte {at} of {self.hit} ({size} bytes) flips")
        player.disk.flip(f"{PATH}/{self.hit}", at, bit)
        # Who holds a message looks at its file: what the disk does to that afterwards shows.
        player.held = [(got, want) for got, want in player.held if bytes(got) == want.data]
        return True

    def lose_both(self, b: int, remove: bool) -> None:
        """The other file of the checkpoint too, or somebody removes both: the records say the same, or the log says
        that they cannot."""
        player, model = self.player, self.model
        for name in ("checkpoint", "checkpoint.copy"):
            if remove:
                player.disk.remove(f"{PATH}/{name}")
            elif name != self.hit:
                player.disk.flip(f"{PATH}/{name}", player.rng.randrange(64), b >> 5 & 7)
        with player.opened("r") as log:
            unsure = log.recovery.deletions_unsure
            if unsure:
                assert any(f.what.startswith("damage: ") for f in log.verify()), "verify() finds the records enough"
                self.all_there(log)
        player.say(f"    the other one too; unsure: {unsure}")
        if not unsure:
            return
        try:
            player.open()
        except jscore.Corrupt:
            pass
        else:
            raise AssertionError("opened for writing, without a word")
        player.open(without_checkpoint=True)
        self.all_there(player.log)
        last = player.log.append(b"behind", "a", ts=player.clock)
        assert last == model.last + 1
        player.log.close()
        player.open()
        assert bytes(player.log[last]) == b"behind"
        raise Stop  # the state is another from here on

    def all_there(self, log: Any) -> None:
        """All that lived, and beside it nothing but what limits, and purges that keep some, took."""
        model = self.model
        assert log.last == model.last
        live = {m.seq: m for m in log}
        for seq, want in model.live.items():
            assert seq in live, f"message {seq} lived, and is not there"
            self.player.same(live[seq], want)
        for seq in live.keys() - model.live.keys():
            want = model.all[seq - 1]
            assert want.pushed, f"message {seq} was deleted, and is back"
            self.player.same(live[seq], want)

    def last_segment(self) -> bool:
        """It is the one that has room behind its records."""
        return self.hit == max((name for name in self.player.disk.list(PATH) if name.endswith(".seg")), default="")

    def reopen(self) -> None:
        self.player.open()
        self.look(self.player.log)

    def look(self, log: Any, first: bool = False) -> None:
        """Every sequence, and a walk: right, or lost; never more than were lost at first."""
        model = self.model
        assert log.last == model.last, f"the last message is {log.last}, not {model.last}"
        lost = set()
        for seq in range(max(1, model.first - 50), model.last + 1):
            want = model.live.get(seq)
            try:
                got = log[seq]
            except jscore.NotFound:
                assert want is None, f"message {seq} is not found, and should be there or lost"
                continue
            except jscore.Corrupt:
                if want is not None:
                    lost.add(seq)
                continue
            assert want is not None, f"message {seq} was deleted, and is back"
            self.player.same(got, want)
        good = [seq for seq in model.live if seq not in lost]
        walked, walk = [], iter(log)
        while True:
            try:
                m = next(walk, None)
            except jscore.Corrupt:
                continue
            if m is None:
                break
            walked.append(m.seq)
        assert walked == good, f"walked over {walked}, not {good}"
        if not self.hit.endswith(".seg"):
            assert not lost, f"{self.hit} was hit, and {sorted(lost)} are lost"
        if first:
            self.lost = lost
        assert lost <= self.lost, f"{sorted(lost - self.lost)} are lost, and were not before"

    def damage_names_it(self) -> None:
        damage = self.player.log.damage()
        for seq in self.lost:
            assert any(d.first_seq is not None and d.first_seq <= seq <= d.last_seq for d in damage), (
                f"message {seq} is lost, and damage() does not say so: {damage}"
            )

    def write(self, a: int) -> None:
        """The log takes more, and does not spoil more."""
        player, model = self.player, self.model
        for i in range(a & 7):
            data = b"behind the damage %d" % i
            if self.lost and any(model.limits[1:]):
                break  # size, subject and time of lost messages are not known
            got = player.log.append(data, "a.b", ts=player.clock)
            assert got == model.append(player.clock, "a.b", b"", data)
        model.settle()

    def heal(self, replica: bytes) -> None:
        player = self.player
        log = player.log
        log.scrub()
        try:
            healed = log.repair(replica)
        except jscore.Corrupt:
            # A head that is lost takes along where the file's sequences begin; what it says stays lost.
            if not self.head:
                raise
            raise Stop from None
        player.say(f"    {healed} records healed")
        if self.head and any(d.first_seq is not None for d in log.damage()):
            raise Stop  # without the head, and without a sidecar, nothing tells of the records that compaction took
        self.lost = set()
        self.look(log)
        player.see(log)
        left = log.damage()
        assert all(d.first_seq is None for d in left), f"healed, and damage() says {left}"
        # What no replica has stays as it is: a file's head, a record that says that others were taken out.
        player.scarred = player.scarred or self.head or bool(left or log.verify())
