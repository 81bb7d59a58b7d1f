"""What a user of jscore relies on, over real files and over the simulated disk."""

import errno
import gc
import os
import random
import select
import struct
from pathlib import Path

import pytest

import jscore
from jscore._records import SimDisk


@pytest.fixture
def store():
    with jscore.Store() as opened:
        yield opened


def fill(log: jscore.RecordLog, count: int, term: int = 1) -> None:
    for _ in range(count):
        i = log.last + 1
        log.append(jscore.KIND_MESSAGE, b"data %d" % i, subject=b"a.%d" % i, headers=b"h" * (i % 3), term=term, ts=i)
    log.submit()
    log.wait(log.last, 10)


def segments(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if name.endswith(".seg"))


def test_crc32c_is_castagnoli():
    assert jscore.crc32c(b"123456789") == 0xE3069283


def test_records_survive_closing_and_opening(store, tmp_path):
    log = store.open(tmp_path / "log")
    fill(log, 100)
    log.set_commit(77)
    log.close()
    log = store.open(tmp_path / "log")
    assert (log.first, log.last, log.durable, log.error) == (1, 100, 100, 0)
    assert log.recovery == jscore.RecordRecovery(0, 0, 77, "")
    assert log.read(5) == jscore.Record(5, 5, 1, jscore.KIND_MESSAGE, b"a.5", b"hh", b"data 5")
    assert log.term(100) == 1
    with pytest.raises(jscore.NotFound):
        log.read(101)


def test_records_can_be_read_before_they_are_submitted(store, tmp_path):
    log = store.open(tmp_path / "log")
    index = log.append(jscore.KIND_HOST, b"x" * 100_000)
    assert log.read(index).data == b"x" * 100_000
    assert log.durable == 0


def test_the_eventfd_tells_of_durable_logs_and_poll_clears_it(store, tmp_path):
    log = store.open(tmp_path / "log")
    log.append(jscore.KIND_NOOP)
    log.submit()
    assert select.select([store.fileno()], [], [], 10)[0]
    assert store.poll() == [log]
    assert log.durable == 1
    assert not select.select([store.fileno()], [], [], 0)[0]


def test_many_logs_share_a_store(store, tmp_path):
    logs = [store.open(tmp_path / str(i)) for i in range(100)]
    for log in logs:
        log.append(jscore.KIND_HOST, log.path.encode())
        log.submit()
    ready = set()
    while len(ready) < 100:
        assert select.select([store.fileno()], [], [], 10)[0]
        ready.update(store.poll())
    assert ready == set(logs)
    assert all(log.durable == 1 and log.read(1).data == log.path.encode() for log in logs)


def test_a_small_log_is_a_small_file(store, tmp_path):
    log = store.open(tmp_path / "log")
    fill(log, 1)
    name = tmp_path / "log" / segments(tmp_path / "log")[0]
    assert name.stat().st_size <= 1 << 20


def test_segments_roll_and_all_records_stay_readable(store, tmp_path):
    log = store.open(tmp_path / "log", segment_bytes=8192)
    for _ in range(20):
        fill(log, 50)
    assert len(segments(tmp_path / "log")) > 5
    assert [log.read(i).data for i in range(1, 1001)] == [b"data %d" % i for i in range(1, 1001)]
    log.close()
    log = store.open(tmp_path / "log", segment_bytes=8192)
    assert [log.read(i).data for i in range(1, 1001)] == [b"data %d" % i for i in range(1, 1001)]


def test_a_record_larger_than_a_segment_gets_a_larger_one(store, tmp_path):
    log = store.open(tmp_path / "log", segment_bytes=4096)
    log.append(jscore.KIND_HOST, b"small")
    log.append(jscore.KIND_HOST, b"y" * 100_000)
    fill(log, 1)
    log.close()
    log = store.open(tmp_path / "log", segment_bytes=4096)
    assert log.read(2).data == b"y" * 100_000
    assert log.last == 3


def test_raw_records_make_an_equal_copy_on_another_log(store, tmp_path):
    leader, follower = store.open(tmp_path / "a"), store.open(tmp_path / "b", segment_bytes=4096)
    fill(leader, 30, term=1)
    fill(leader, 70, term=2)
    lo = 1
    while lo <= leader.last:
        raw, lo_last = leader.copy(lo, leader.last, 1000)
        assert len(raw) <= 1000
        follower.append_raw(raw, lo)
        lo = lo_last + 1
    follower.submit()
    follower.wait(100, 10)
    assert follower.copy(1, 100, 1 << 20) == leader.copy(1, 100, 1 << 20)
    assert jscore.scan_records(follower.copy(1, 100, 1 << 20)[0]) == [(1, 1, 30), (31, 2, 70)]


def test_what_rots_where_no_checksum_looks_is_not_copied(store, tmp_path):
    """Zeros fill a record up to a multiple of 8: replicas compare copies byte for byte, and these bytes say nothing."""
    log = store.open(tmp_path / "log")
    log.append(jscore.KIND_HOST, b"abc")
    log.close()
    path = tmp_path / "log" / segments(tmp_path / "log")[0]
    raw = bytearray(path.read_bytes())
    place = raw.index(b"abc") + 4
    assert raw[place] == 0
    raw[place] = 64
    path.write_bytes(raw)
    log = store.open(tmp_path / "log")
    copied = log.copy(1, 1, 1 << 20)[0]
    assert copied.endswith(b"abc" + bytes(5))
    assert jscore.scan_records(copied) == [(1, 0, 1)]


def test_raw_records_already_held_are_skipped(store, tmp_path):
    leader, follower = store.open(tmp_path / "a"), store.open(tmp_path / "b")
    fill(leader, 10)
    follower.append_raw(leader.copy(1, 6, 1 << 20)[0], 1)
    follower.append_raw(leader.copy(3, 10, 1 << 20)[0], 7)
    assert follower.last == 10
    assert follower.copy(1, 10, 1 << 20) == leader.copy(1, 10, 1 << 20)


def test_raw_records_out_of_order_or_damaged_append_nothing(store, tmp_path):
    leader, follower = store.open(tmp_path / "a"), store.open(tmp_path / "b")
    fill(leader, 10)
    with pytest.raises(jscore.OrderError):
        follower.append_raw(leader.copy(2, 10, 1 << 20)[0], 1)
    raw = leader.copy(1, 10, 1 << 20)[0]
    for at in range(len(raw)):
        bent = bytearray(raw)
        bent[at] ^= 4
        try:
            follower.append_raw(bent, 1)
        except (jscore.Corrupt, jscore.OrderError):
            assert follower.last == 0
        else:  # only the padding, which no checksum covers, may differ; it is not taken over
            assert follower.copy(1, 10, 1 << 20)[0] == raw
            follower.truncate(0)
    with pytest.raises(jscore.Corrupt):
        follower.append_raw(raw[:-8], 1)
    assert follower.last == 0


def test_records_verified_before_are_copied_without_another_look_at_checksums(store, tmp_path):
    leader, follower = store.open(tmp_path / "a"), store.open(tmp_path / "b")
    fill(leader, 10)
    raw = leader.copy(1, 10, 1 << 20)[0]
    assert jscore.scan_records(raw) == [(1, 1, 10)]
    follower.append_raw(memoryview(raw), 1, verified=True)
    assert follower.copy(1, 10, 1 << 20)[0] == raw
    with pytest.raises(jscore.OrderError):
        follower.append_raw(raw, 5, verified=True)
    for part in (raw[:1], raw[:31], raw[:33], raw[:-8]):
        with pytest.raises(jscore.Corrupt):  # lengths are believed of nobody
            follower.append_raw(part, 11, verified=True)
    assert follower.last == 10


@pytest.mark.parametrize("seed", range(8))
def test_reads_that_go_on_see_what_stands_there_now(store, tmp_path, seed):
    """One record after the other, while others are appended, submitted, synced, cut and let go of, in any order."""
    rng = random.Random(seed)
    log = store.open(tmp_path / "log", segment_bytes=1 << 20)
    held: dict[int, bytes] = {}
    at, written = 1, 0
    while written < 12 << 20:
        what = rng.randrange(12)
        if what < 4:
            for _ in range(rng.randrange(1, 40)):
                data = rng.randbytes(rng.choice([0, 7, 100, 100, 3000, 60_000]))
                held[log.append(jscore.KIND_HOST, data)] = data
                written += len(data)
        elif what == 4:
            log.submit()
        elif what == 5:
            log.submit()
            log.wait(log.last, 10)
            store.poll()
        elif what == 6 and held and not rng.randrange(6):
            last = rng.randint(max(log.first, log.last - 30), log.last)
            log.truncate(last)
            held = {index: data for index, data in held.items() if index <= last}
        elif what == 7 and not rng.randrange(6):
            log.submit()
            log.wait(log.last, 10)
            log.trim(rng.randint(log.first, log.last + 1))
            held = {index: data for index, data in held.items() if index >= log.first}
        elif what == 8 and held:
            lo = rng.randint(log.first, log.last)
            raw, last = log.copy(lo, log.last, rng.choice([100_000, 1 << 20]))
            jscore.scan_records(raw)
            copied = b"".join(held[index] for index in range(lo, last + 1))
            assert len(raw) >= len(copied) + 32 * (last + 1 - lo)
            other = store.open(tmp_path / f"copy{written}", first_index=lo)
            other.append_raw(raw, lo)
            assert [other.read(index).data for index in range(lo, last + 1)] == [held[i] for i in range(lo, last + 1)]
            other.abandon()
        else:
            if not log.first <= at <= log.last or not rng.randrange(5):
                at = rng.randint(log.first, max(log.first, log.last))
            for _ in range(min(rng.randrange(1, 30), log.last + 1 - at)):
                record = log.read(at)
                assert (record.index, record.data) == (at, held[at])
                at += 1


def test_copy_tells_when_not_even_one_record_fits(store, tmp_path):
    log = store.open(tmp_path / "log")
    fill(log, 1)
    with pytest.raises(jscore.Full):
        log.copy(1, 1, 8)


def test_a_directory_is_opened_once(store, tmp_path):
    log = store.open(tmp_path / "log")
    with pytest.raises(jscore.Locked):
        store.open(tmp_path / "log")
    log.close()
    store.open(tmp_path / "log").close()


def test_an_unknown_version_is_refused_and_untouched(store, tmp_path):
    log = store.open(tmp_path / "log")
    fill(log, 10)
    log.close()
    name = tmp_path / "log" / segments(tmp_path / "log")[0]
    raw = bytearray(name.read_bytes())
    raw[8:12] = struct.pack("<I", 99)
    raw[60:64] = struct.pack("<I", jscore.crc32c(bytes(raw[:60])))
    name.write_bytes(raw)
    with pytest.raises(jscore.FormatError):
        store.open(tmp_path / "log")
    assert name.read_bytes() == raw


def test_a_killed_process_leaves_what_it_wrote(store, tmp_path):
    log = store.open(tmp_path / "log")
    fill(log, 50)
    log.append(jscore.KIND_HOST, b"never submitted")
    log.abandon()
    log = store.open(tmp_path / "log")
    assert log.last == 50


def test_a_truncated_suffix_is_replaced(store, tmp_path):
    log = store.open(tmp_path / "log", segment_bytes=4096)
    fill(log, 200, term=1)
    log.truncate(120)
    assert (log.last, log.durable, log.term(120)) == (120, 120, 1)
    log.append(jscore.KIND_HOST, b"new", term=2)
    log.submit()
    log.close()
    log = store.open(tmp_path / "log", segment_bytes=4096)
    assert (log.last, log.term(120), log.term(121), log.read(121).data) == (121, 1, 2, b"new")
    log.truncate(0)
    log.close()
    log = store.open(tmp_path / "log", segment_bytes=4096)
    assert (log.first, log.last, log.bytes) == (1, 0, 0)


def test_a_failed_sync_is_final_and_told():
    disk = SimDisk(1)
    with jscore.Store(disk=disk) as store:
        log = store.open("/log")
        fill(log, 3)
        store.poll()
        disk.fail("s", 1, errno.EIO)
        log.append(jscore.KIND_NOOP)
        log.submit()
        assert select.select([store.fileno()], [], [], 10)[0]
        assert store.poll() == [log]
        assert log.error == -errno.EIO
        assert log.durable == 3
        with pytest.raises(OSError, match="Input/output"):
            log.wait(4)
        with pytest.raises(jscore.Failed):
            log.append(jscore.KIND_NOOP)
        assert log.read(3).data == b"data 3"
        with pytest.raises(OSError, match="Input/output"):
            log.close()


def test_a_full_disk_refuses_and_recovers():
    disk = SimDisk(2)
    with jscore.Store(disk=disk) as store:
        log = store.open("/log")
        disk.fail("a", 1, errno.ENOSPC)
        log.append(jscore.KIND_HOST, b"kept")
        log.submit()
        with pytest.raises(jscore.Full):
            log.wait(1)
        assert log.error == 0
        # The space is back: what was accepted goes out by itself.
        while log.durable < 1:
            try:
                log.wait(1, 1)
            except jscore.Full:
                os.sched_yield()
        assert log.append(jscore.KIND_HOST, b"more") == 2
        fill(log, 1)
        log.close()
        assert store.open("/log").read(1).data == b"kept"


@pytest.mark.parametrize("seed", range(30))
def test_what_was_durable_survives_a_power_cut(seed):
    disk = SimDisk(seed)
    store = jscore.Store(disk=disk)
    log = store.open("/log", segment_bytes=4096)
    fill(log, 40 + seed)
    for _ in range(30):
        log.append(jscore.KIND_HOST, os.urandom(100))
        log.submit()
    durable, last = log.durable, log.last
    log.abandon()
    store.close()
    disk.crash(seed * 3, bool(seed & 1))
    with jscore.Store(disk=disk) as again:
        log = again.open("/log", segment_bytes=4096)
        assert durable <= log.last <= last
        assert log.recovery.damaged_index == 0
        for i in range(1, 41 + seed):
            assert log.read(i).data == b"data %d" % i


def test_a_flipped_bit_is_never_served():
    for offset in range(64, 1500, 5):
        disk = SimDisk(offset)
        with jscore.Store(disk=disk) as store:
            log = store.open("/log")
            for _ in range(4):
                fill(log, 5)
            log.close()
            disk.flip("/log/0000000000000001.seg", offset, offset % 8)
            log = store.open("/log")
            assert log.last == 20, "damage is not cut"
            lost = []
            for i in range(1, 21):
                try:
                    assert log.read(i).data == b"data %d" % i
                except jscore.Corrupt:
                    lost.append(i)
            assert len(lost) <= 1 or lost == list(range(lost[0], lost[0] + len(lost)))
            assert log.recovery.damaged_index == (lost[0] if lost else 0)
            assert bool(lost) <= bool(log.recovery.message)
            # It still takes records, and keeps them over another opening.
            assert log.append(jscore.KIND_HOST, b"after") == 21
            log.close()
            assert store.open("/log").read(21).data == b"after"


def test_a_bit_that_flips_under_an_open_log_is_not_served():
    disk = SimDisk(5)
    with jscore.Store(disk=disk) as store:
        log = store.open("/log")
        fill(log, 5)
        log.close()
        log = store.open("/log")
        assert log.read(1).data == b"data 1"
        disk.flip("/log/0000000000000001.seg", 64 + 40, 0)
        with pytest.raises(jscore.Corrupt):
            log.read(1)


def test_interval_and_never_publish_what_is_written(tmp_path):
    for sync in ("never", 0.001):
        with jscore.Store(sync) as store:
            log = store.open(tmp_path / str(sync))
            fill(log, 10)
            assert log.durable == 10
            log.close()
            assert store.open(tmp_path / str(sync)).last == 10
    with pytest.raises(ValueError, match="seconds"):
        jscore.Store("sometimes")


def test_a_store_and_its_logs_may_be_dropped_without_closing(tmp_path):
    store = jscore.Store()
    log = store.open(tmp_path / "log")
    log.append(jscore.KIND_HOST, b"x")
    del store, log
    gc.collect()
    with jscore.Store() as again:
        assert again.open(tmp_path / "log").last == 0


def test_a_closed_log_says_so(store, tmp_path):
    log = store.open(tmp_path / "log")
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(jscore.KIND_NOOP)
