"""What the model test has found, each as small as it could be made."""

from __future__ import annotations

import pytest

import jscore

KEY = bytes(range(32))
PATH = "/d/log"


def opened(disk: jscore.SimDisk, mode: str = "a", **options: object) -> jscore.Log:
    return jscore.open(PATH, mode, disk=disk, background=False, **{"segment_bytes": 4096, **options})  # type: ignore[arg-type]


def test_a_reader_that_opens_anew_counts_subjects_once():
    """Subjects counted before the writer exchanged files were counted again, and the limit took messages."""
    disk = jscore.SimDisk(1)
    with opened(disk, max_per_subject=3) as log, opened(disk, "r") as reader:
        log.extend([("a", b"x" * 100)] * 2)
        reader.refresh()
        log.extend([("b", b"x" * 1000)] * 6)
        log.compact(all=True)
        log.append(b"last", "c")
        reader.refresh()
        assert [m.seq for m in reader] == [m.seq for m in log]


def test_a_reader_finds_all_where_a_sidecar_is_bad():
    """The part of a segment with a bad sidecar was built up to record 0."""
    disk = jscore.SimDisk(1)
    with opened(disk) as log:
        log.extend([("a", b"x" * 100)] * 60)
        log.delete(3)
        log.seal()
    disk.flip(f"{PATH}/0000000000000001.idx", 302, 2)
    with opened(disk, "r") as reader:
        assert [m.seq for m in reader] == [seq for seq in range(1, 61) if seq != 3]


def test_a_lost_head_of_an_encrypted_segment_costs_no_sequence_and_heals():
    """The sequences of later batches were forgotten, and given out again; at the next opening the batches were cut."""
    disk = jscore.SimDisk(1)
    with opened(disk, keys=KEY) as log:
        log.append(b"x" * 20, "a", ts=5)
        log.extend([("a", b"x" * 20, b"", 5)] * 15)
        replica = log.copy_records(1, 16)
    disk.flip(f"{PATH}/0000000000000001.seg", 33, 6)
    for _ in range(3):
        with opened(disk, keys=KEY) as log:
            assert log.last == 16
    with opened(disk, keys=KEY) as log:
        assert log.repair(replica) == 16
        assert [m.seq for m in log] == [*range(1, 17)]


def test_a_packed_segment_whose_table_is_lost_heals():
    """No block of it could be found, and repair() gave up instead of taking every record back."""
    disk = jscore.SimDisk(1)
    with opened(disk, compression=1) as log:
        log.extend([("a", b"x" * 100)] * 60)
        log.compact(all=True)
        replica = log.copy_records(1, 60)
        live = [m.seq for m in log]
    name = next(name for name in disk.list(PATH) if name.endswith(".seg"))
    disk.flip(f"{PATH}/{name}", len(disk.read(f"{PATH}/{name}")) - 20, 4)
    with opened(disk, compression=1) as log:
        log.scrub()
        log.repair(replica)
        assert [m.seq for m in log] == live
        assert log.damage() == []


def test_a_lost_gap_beside_a_tombstone_heals():
    """The sequences of a gap whose record was lost were counted behind the record that ended the gap."""
    disk = jscore.SimDisk(1)
    with opened(disk, compression=1) as log:
        log.extend([("a", b"x" * 50)] * 10)
        log.delete(4)
        log.extend([("a", b"x" * 50)] * 10)
        log.set_limits(max_messages=1000)
        log.extend([("a", b"x" * 50)] * 60)
        for seq in (10, 11, 20, 21):
            log.delete(seq)
        log.compact(all=True)
        replica = log.copy_records(1, log.position)
        live = [m.seq for m in log]
    for name in disk.list(PATH):
        if name.endswith(".seg"):
            break
    disk.flip(f"{PATH}/{name}", 100, 4)
    with opened(disk, compression=1) as log:
        log.scrub()
        log.repair(replica)
        assert [m.seq for m in log] == live


def test_a_full_disk_with_nothing_to_write_is_said():
    """append() went round and round when the next file could not be made and all that was appended was written."""
    disk = jscore.SimDisk(1)
    log = opened(disk, sync=30.0)
    disk.capacity(disk.used() + 4096)
    said = 0
    for _ in range(100):
        try:
            log.append(b"x" * 500, sync=True)
        except jscore.Full:
            said += 1
    log.abandon()
    assert said > 50


def test_damage_to_what_was_recovered_is_not_taken_for_a_torn_tail():
    """A log that was opened after a crash and closed again left its last batch without a word that it is durable."""
    disk = jscore.SimDisk(1)
    log = opened(disk)
    log.append(b"x" * 100)
    log.extend([b"y" * 100] * 5)
    log.abandon()
    opened(disk).close()
    disk.flip(f"{PATH}/0000000000000001.seg", 400, 1)
    with opened(disk) as log:
        assert log.last == 6
        assert log.damage()


def test_a_reader_whose_last_segment_went_finds_those_behind_it():
    """One that had opened a log that ended with a full segment, or with none, never heard of what came later."""
    for messages in (0, 13):
        disk = jscore.SimDisk(1)
        with opened(disk, keys=KEY) as log:
            log.extend([("a", b"x" * 200)] * messages)
        with opened(disk, keys=KEY) as log, opened(disk, "r", keys=KEY) as reader:
            assert reader.last == messages
            log.extend([("a", b"x" * 300)] * 40)
            log.purge(keep=1)
            log.compact()
            reader.refresh()
            assert [m.seq for m in reader] == [m.seq for m in log]


def segments(disk: jscore.SimDisk) -> list[str]:
    return sorted(f"{PATH}/{name}" for name in disk.list(PATH) if name.endswith(".seg"))


def test_a_repair_keeps_what_was_known_where_the_front_is_gone():
    """All was replayed, although the limits under which messages had been pushed out were gone with the front."""
    disk = jscore.SimDisk(1)
    with opened(disk, max_messages=20) as log:
        log.extend([("a", b"x" * 300)] * 60)
        log.set_limits(max_messages=1000)
        log.extend([("b", b"y" * 300)] * 20)
        log.delete(75)
        live = [m.seq for m in log]
        first, position = log.stats().first_index, log.position
        assert first > 1
        replica = log.copy_records(first, position)
    disk.flip(segments(disk)[1], 200, 4)
    with opened(disk) as log:
        assert log.repair(replica) == 1
        assert [m.seq for m in log] == live
        assert log.damage() == []
    with opened(disk) as log:
        assert [m.seq for m in log] == live


@pytest.mark.parametrize("compression", [None, 1])
def test_a_lost_only_batch_of_a_full_encrypted_segment_heals(compression: int | None):
    """Its records were in no table, so that nothing was there that could be healed."""
    disk = jscore.SimDisk(1)
    with opened(disk, keys=KEY, compression=compression) as log:
        log.extend([("a", b"x" * 20)] * 4)
        log.append(b"x" * 5000)
        log.append(b"x" * 5000)
        replica = log.copy_records(1, 6)
    name = segments(disk)[0]
    disk.flip(name, len(disk.read(name)) - 80, 3)
    with opened(disk, keys=KEY, compression=compression) as log:
        with pytest.raises(jscore.Corrupt):
            log[2]
        assert log.repair(replica) == 4
        assert [m.seq for m in log] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("keys", [None, KEY])
def test_damage_to_an_end_that_the_checkpoint_knows_is_not_taken_for_a_torn_tail(keys: bytes | None):
    """An encrypted log that was opened after a crash and closed again had its last batch cut. Nor is a cut end."""
    for cut in (False, True):
        disk = jscore.SimDisk(1)
        log = opened(disk, keys=keys)
        log.extend([("a", b"x" * 20)] * 5)
        log.delete(5)
        replica = log.copy_records(1, 6)
        log.abandon()
        opened(disk, keys=keys).close()
        name = segments(disk)[0]
        if cut:
            for at in (0, 100, 150, 300):
                disk.flip(name, at, 2)
        else:
            disk.flip(name, 80, 2)
        for mode in ("r", "a", "a"):
            with opened(disk, mode, keys=keys) as log:
                assert log.last == 5
                assert log.damage()
        with opened(disk, keys=keys) as log:
            log.repair(replica)
            assert [m.seq for m in log] == [1, 2, 3, 4]
            assert log.append(b"next") == 6
        with opened(disk, keys=keys) as log:
            assert [m.seq for m in log] == [1, 2, 3, 4, 6]


def test_verify_of_a_borrowed_head_asks_for_no_other_key():
    """The check of the key was not part of the head that the sidecar lent, and verify() raised KeyMissing."""
    disk = jscore.SimDisk(1)
    with opened(disk, keys=KEY) as log:
        log.extend([("a", b"x" * 200)] * 40)
        log.seal()
    disk.flip(segments(disk)[0], 13, 3)
    with opened(disk, "r", keys=KEY) as log:
        assert any("head" in finding.what for finding in log.verify())


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("keys", [None, KEY])
def test_a_head_that_its_sidecar_has_is_put_back(keys: bytes | None, compression: str | None):
    """It stayed as it was, and the next sidecar that a power cut took made the whole file unreadable."""
    for at in range(0, 64, 7):
        disk = jscore.SimDisk(1)
        with opened(disk, keys=keys, compression=compression, segment_bytes=4096) as log:
            log.extend([("a", b"x" * 200)] * 40)
            log.seal()
            log.maintain()
        first = segments(disk)[0]
        disk.flip(first, at, at % 8)
        with opened(disk, keys=keys, compression=compression) as log:
            assert "damaged file header" in log.recovery.message
            assert log.verify() == []
        disk.flip(first.replace(".seg", ".idx"), 20, 1)
        with opened(disk, keys=keys, compression=compression) as log:
            assert log.recovery.damaged_index == 0
            assert [bytes(m) for m in log] == [b"x" * 200] * 40


def test_files_that_are_let_go_of_go_from_the_front():
    """A file whose message somebody held stayed; those behind it went, and a reader took the hole for damage."""
    disk = jscore.SimDisk(1)
    with opened(disk, max_per_subject=1) as log:
        log.extend([("a", b"x" * 1000)] * 10)
        held = log[10]
        log.extend([("a", b"x" * 1000)] * 10)
        log.maintain()
        with opened(disk, "r") as reader:
            assert reader.damage() == []
            assert [m.seq for m in reader] == [m.seq for m in log]
        assert bytes(held) == b"x" * 1000


def test_a_merged_file_that_is_read_does_not_outlive_the_merged_one():
    """Held by a reader of its messages it stayed, and once the file that took its place was gone it came back."""
    disk = jscore.SimDisk(1)
    with opened(disk) as log:
        log.extend([("a", b"x" * 300)] * 60)
        log.seal()
        held = [*log]
        for seq in range(1, 61):
            if seq % 10:
                log.delete(seq)
        log.compact(all=True)
        assert log.stats().compactions == 1
        log.extend([("b", b"y" * 300)] * 40)
        log.purge(before=70)
        log.sync()
        log.maintain()
        assert len(segments(disk)) == log.stats().segments
        assert {bytes(m) for m in held} == {b"x" * 300}
        log.abandon()
    disk.crash(100, False)
    with opened(disk) as log:
        assert (log.first, log.last, log.stats().messages) == (70, 100, 31)
        assert log.damage() == []


@pytest.mark.parametrize("keys", [None, KEY])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_lost_head_without_a_sidecar_is_damage_and_the_log_goes_on(keys: bytes | None, which: int):
    """The checkpoint knows where the segment begins, what of it is deleted, and that it was there."""
    for at in range(0, 64, 5):
        disk = jscore.SimDisk(1)
        with opened(disk, keys=keys) as log:
            log.extend([("a", b"x" * 200)] * 40)
            log.delete(3)
            log.delete(20)
            log.extend([("b", b"y" * 200)] * 10)
            replica = log.copy_records(1, log.position)
            live = [m.seq for m in log]
        disk.flip(segments(disk)[which], at, at % 8)
        with opened(disk, "r", keys=keys) as reader:
            assert reader.verify()
            assert reader.last == 50
        with opened(disk, keys=keys) as log:
            log.verify()
            log.seal()
            log.compact(all=True)
            log.scrub()
            assert log.append(b"more") == 51
            log.repair(replica)
            assert [m.seq for m in log] == [*live, 51]
        with opened(disk, keys=keys) as log:
            assert [m.seq for m in log] == [*live, 51]


def without_checkpoint(disk: jscore.SimDisk, live: list[int], more: int | None = None) -> None:
    """One file of it rots, then the other too: nobody is served less than what lived, nor more without a word."""
    for name in ("checkpoint", "checkpoint.copy"):
        disk.flip(f"{PATH}/{name}", 100, 1)
        with opened(disk, "r") as log:
            assert not log.recovery.deletions_unsure
            assert [f.file for f in log.verify()] == [name]
            assert [m.seq for m in log] == live
        disk.flip(f"{PATH}/{name}", 100, 1)
    for name in ("checkpoint", "checkpoint.copy"):
        disk.flip(f"{PATH}/{name}", 100, 1)
    with pytest.raises(jscore.Corrupt, match="checkpoint and its copy"):
        opened(disk)
    with opened(disk, "r") as log:
        assert log.recovery.deletions_unsure
        assert set(live) <= {m.seq for m in log}
        assert any(f.what.startswith("damage: ") for f in log.verify())
        if more is not None:
            assert more in {m.seq for m in log} - set(live)
    with opened(disk, without_checkpoint=True) as log:
        assert log.recovery.deletions_unsure
        there = [m.seq for m in log]
        log.abandon()
    with opened(disk) as log:
        assert not log.recovery.deletions_unsure
        assert [m.seq for m in log] == there
        assert log.verify() == []


def test_what_compaction_took_pushes_nothing_out_when_a_checkpoint_rots():
    """Message 6 died for a later one, which was deleted and compacted: replayed it lived, and pushed out 1."""
    disk = jscore.SimDisk(1)
    with opened(disk, max_per_subject=1, max_messages=14) as log:
        log.extend([(f"a{i}", b"x" * 300) for i in range(5)] + [("z", b"x" * 30)])
        log.extend([(f"b{i}", b"x" * 300) for i in range(6)])
        log.append(b"x" * 300, "z")
        last = log.last
        log.extend([("y", b"x" * 300)] * 70)
        log.delete(last)
        log.seal()
        log.append(b"tail", "q")
        log.compact()
        log.append(b"x" * 300, "d")
        live = [m.seq for m in log]
        assert live[0] == 1
        assert len(live) == 14
    without_checkpoint(disk, live, 6)


def test_a_purge_that_keeps_some_is_not_undone_when_a_checkpoint_rots():
    disk = jscore.SimDisk(1)
    with opened(disk) as log:
        log.extend([(f"a{i}", b"x" * 300) for i in range(5)] + [("z", b"x" * 30)])
        log.extend([(f"b{i}", b"x" * 300) for i in range(6)])
        log.append(b"x" * 300, "z")
        last = log.last
        log.extend([("y", b"x" * 300)] * 70)
        log.purge(subject="z", keep=1)
        log.delete(last)
        log.purge(subject="y", keep=1)
        log.seal()
        log.append(b"t", "q")
        log.compact()
        live = [m.seq for m in log]
        assert 6 not in live
    without_checkpoint(disk, live, 6)


def test_both_checkpoints_may_go_while_records_say_it_all():
    """No limit, no purge that counts: what is deleted by name is replayed exactly, and a limit set then holds."""
    disk = jscore.SimDisk(1)
    with opened(disk) as log:
        log.extend([(f"a{i}", b"x" * 300) for i in range(60)])
        for seq in range(1, 60):
            if seq % 9:
                log.delete(seq)
        log.seal()
        log.compact(all=True)
        live = [m.seq for m in log]
    for name in ("checkpoint", "checkpoint.copy"):
        disk.flip(f"{PATH}/{name}", 100, 1)
    with opened(disk) as log:
        assert log.recovery.checkpoint_rebuilt
        assert [m.seq for m in log] == live
        log.set_limits(max_messages=5)
        log.abandon()
    with opened(disk) as log:
        assert [m.seq for m in log] == live[-5:]


def test_limits_stay_in_the_log_while_messages_that_died_under_them_do():
    """Compaction took a replaced change of limits out although it was to push out messages in segments behind."""
    disk = jscore.SimDisk(1)
    with opened(disk, max_per_subject=1) as log:
        log.extend([(f"b{i}", b"x" * 300) for i in range(40)])
        for seq in range(2, 36):
            log.delete(seq)
        log.extend([("a", b"x")] * 2)
        log.set_limits(max_per_subject=0)
        log.compact()
        assert log.stats().compactions > 0
        live = [m.seq for m in log]
    without_checkpoint(disk, live)


def test_a_change_of_limits_stays_in_the_log_while_one_before_it_does():
    """Compaction took out the one that ended a limit, not the one that set it: a replay pushed out live messages."""
    disk = jscore.SimDisk(1)
    with opened(disk, max_per_subject=2) as log:
        log.extend([(f"b{i}", b"x" * 300) for i in range(13)])
        log.set_limits(max_per_subject=0)
        log.extend([("a", b"x")] * 5)
        log.extend([("c", b"x" * 300)] * 80)
        log.set_limits(max_per_subject=500)
        log.seal()
        for seq in range(19, 82):
            log.delete(seq)
        log.compact()
        assert log.stats().compactions > 0
        live = [m.seq for m in log]
    without_checkpoint(disk, live)
