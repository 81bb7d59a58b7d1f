"""What a user of jscore.open() relies on, call by call."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import jscore
from jscore import SimDisk


@pytest.fixture
def log(tmp_path):
    with jscore.open(tmp_path / "log") as opened:
        yield opened


def seqs(messages) -> list[int]:
    return [message.seq for message in messages]


def fill(log: jscore.Log, count: int, subjects: int = 3) -> None:
    log.extend([(f"a.{i % subjects}.x", b"data %d" % i) for i in range(log.last + 1, log.last + 1 + count)])


# ---- writing and reading one ----


def test_a_message_comes_back_as_it_went_in(log):
    seq = log.append(b"payload", "orders.new", headers=b"h: 1", ts=1_000)
    message = log[seq]
    assert (message.seq, message.ts, message.subject, message.size) == (1, 1_000, "orders.new", 7)
    assert bytes(message) == message.data == b"payload"
    assert message.headers == b"h: 1"
    assert "orders.new" in repr(message)


def test_payloads_and_headers_are_read_only_and_outlive_everything(tmp_path):
    log = jscore.open(tmp_path / "log")
    log.append(b"payload", headers=b"head")
    message = log[1]
    data, headers = message.data, message.headers
    assert data.readonly
    assert headers.readonly
    with pytest.raises(TypeError):
        data[0] = 1
    log.delete(1)
    log.close()
    del message, log
    gc.collect()
    assert (bytes(data), bytes(headers)) == (b"payload", b"head")


def test_empty_payloads_headers_and_subjects_are_messages_too(log):
    message = log[log.append(b"")]
    assert (bytes(message), bytes(message.headers), message.subject, message.size) == (b"", b"", "", 0)
    assert log.subject().count() == 1


@pytest.mark.parametrize("data", [bytearray(b"xyz"), memoryview(b"xyz"), memoryview(b"_xyz_")[1:4]])
def test_any_contiguous_buffer_is_a_payload(log, data):
    assert bytes(log[log.append(data, headers=data)]) == b"xyz"
    assert bytes(log[log.extend([data, ("s", data, data)])[1]].headers) == b"xyz"


def test_what_is_no_payload_is_refused_and_nothing_is_appended(log):
    for bad in ("text", None, 5):
        with pytest.raises(TypeError):
            log.append(bad)
        with pytest.raises(TypeError):
            log.extend([b"fine", bad])
    with pytest.raises(TypeError):
        log.append(b"", 5)
    with pytest.raises(BufferError):
        log.append(memoryview(b"abcd")[::2])
    with pytest.raises(ValueError, match="contract"):
        log.append(b"", "s" * 70_000)
    assert log.last == 0


@pytest.mark.parametrize("subject", ["ünïcode.ß", "\udcff\udc80", "a b\0c", "日本"])
def test_subjects_keep_every_byte(log, subject):
    log.append(b"as text", subject)
    log.append(b"as bytes", subject.encode("utf-8", "surrogateescape"))
    assert [message.subject for message in log] == [subject] * 2
    assert log.subject(subject).last().seq == 2


def test_times_are_taken_as_ints_floats_and_datetimes_and_never_fall(log):
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    log.append(b"", ts=5)
    log.append(b"", ts=1.5)
    log.append(b"", ts=moment)
    log.append(b"", ts=7)
    log.append(b"")
    stamp = 1_767_323_045_678_901_000
    assert [message.ts for message in log][:4] == [5, 1_500_000_000, stamp, stamp]
    assert log[5].ts > stamp
    assert log.at(0).seq == 1
    assert log.at(6).seq == 2
    assert log.at(1.6).seq == 3
    assert log.at(moment).seq == 3
    assert log.at((moment + timedelta(microseconds=1)).astimezone().replace(tzinfo=None)).seq == 5
    with pytest.raises(jscore.NotFound):
        log.at(datetime(2200, 1, 1, tzinfo=UTC))
    for bad in ("noon", True, None):
        with pytest.raises(TypeError):
            log.at(bad)
    with pytest.raises(ValueError, match="finite"):
        log.append(b"", ts=float("inf"))


@pytest.mark.parametrize("key", [0, -1, 2, 1 << 63, 1 << 80])
def test_a_sequence_that_is_not_there_is_not_found(log, key):
    log.append(b"x")
    with pytest.raises(jscore.NotFound) as caught:
        log[key]
    assert caught.value.seq == key
    assert isinstance(caught.value, LookupError)
    assert key not in log
    with pytest.raises(TypeError):
        log["1"]


def test_extend_appends_side_by_side_and_returns_the_range(log):
    log.append(b"first")
    got = log.extend([b"a", ("s", b"b"), ("s", b"c", b"h"), (b"s", b"d", b"", 1 << 62)])
    assert got == range(2, 6)
    assert [(m.subject, bytes(m), bytes(m.headers)) for m in log[2:]] == [
        *(("", b"a", b""), ("s", b"b", b""), ("s", b"c", b"h"), ("s", b"d", b"")),
    ]
    assert log[5].ts == 1 << 62
    assert log.extend([]) == range(0)
    assert log.extend(b"%d" % i for i in range(1000)) == range(6, 1006)
    assert log.durable == 1005


# ---- reading many ----


def test_a_log_is_iterated_both_ways_and_sliced(log):
    fill(log, 300)
    log.delete(10)
    live = [seq for seq in range(1, 301) if seq != 10]
    assert seqs(log) == live
    assert seqs(reversed(log)) == live[::-1]
    assert len(log) == 299
    assert seqs(log[5:15]) == [5, 6, 7, 8, 9, 11, 12, 13, 14]
    assert seqs(log[15:5:-1]) == [15, 14, 13, 12, 11, 9, 8, 7, 6]
    assert seqs(log[:4]) == [1, 2, 3]
    assert seqs(log[298:]) == [298, 299, 300]
    assert seqs(log[::-1]) == live[::-1]
    assert seqs(log[3::-1]) == [3, 2, 1]
    assert seqs(log[:298:-1]) == [300, 299]
    assert seqs(log[7:7]) == seqs(log[9:3]) == seqs(log[900:]) == []


def test_a_range_is_list_like(log):
    fill(log, 100)
    log.delete(50)
    view = log[45:55]
    assert len(view) == 9
    assert (view[0].seq, view[5].seq, view[-1].seq) == (45, 51, 54)
    assert seqs(reversed(view)) == [54, 53, 52, 51, 49, 48, 47, 46, 45]
    assert seqs(view[1:3]) == [46, 47]
    assert 51 in view
    assert 50 not in view
    assert 55 not in view
    assert view
    assert not log[50:51]
    with pytest.raises(IndexError):
        view[9]
    with pytest.raises(ValueError, match="step"):
        log[::2]
    with pytest.raises(ValueError, match="sequences"):
        log[-5:]


def test_an_empty_log_is_false_and_a_filled_one_true(log):
    assert not log
    assert (log.first, log.last, len(log)) == (1, 0, 0)
    log.append(b"")
    assert log
    log.delete(1)
    assert not log
    assert (log.first, log.last) == (2, 1)


def test_iterators_see_what_is_appended_meanwhile_and_end_once(log):
    log.append(b"1")
    walk = iter(log)
    assert next(walk).seq == 1
    log.append(b"2")
    assert next(walk).seq == 2
    with pytest.raises(StopIteration):
        next(walk)
    log.append(b"3")
    with pytest.raises(StopIteration):
        next(walk)


# ---- by subject ----


def test_a_selection_answers_for_its_subjects(log):
    for i in range(1, 31):
        log.append(b"", f"orders.{i % 3}.{'new' if i % 2 else 'old'}")
    selection = log.subject("orders.1.*")
    assert seqs(selection) == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28]
    assert seqs(reversed(selection)) == seqs(selection)[::-1]
    assert (selection.first().seq, selection.last().seq, selection.count(), len(selection)) == (1, 28, 10, 10)
    assert log.subject("orders.0.new", "orders.1.new").count() == 10
    assert log.subject("orders.>").count() == log.subject().count() == 30
    assert log.subject("orders.2.old").last().seq == 26
    assert not log.subject("none.*")
    for edge in (log.subject("none").last, log.subject("none.>").first):
        with pytest.raises(jscore.NotFound):
            edge()
    with pytest.raises(ValueError, match="filter"):
        log.subject("a.>.b").count()


def test_a_selection_behind_a_sequence(log):
    for i in range(1, 31):
        log.append(b"", f"a.{i % 3}")
    part = log.subject("a.1").after(10)
    assert seqs(part) == [13, 16, 19, 22, 25, 28]
    assert seqs(reversed(part)) == seqs(part)[::-1]
    assert (part.first().seq, part.last().seq, part.count(), part.count(after=20)) == (13, 28, 6, 3)
    assert log.subject("a.1").pending(10) == 6
    assert not log.subject("a.1").after(28)
    assert part.after(5).count() == 6


def test_subjects_are_listed_with_their_counts(log):
    expected = {}
    for i in range(1, 2001):
        subject = f"s.{i * 7 % 700:03}"
        log.append(b"", subject, sync=False)
        count, first, _ = expected.get(subject, (0, i, i))
        expected[subject] = (count + 1, first, i)
    listed = list(log.subject("s.*").subjects())
    assert [info.subject for info in listed] == sorted(expected)
    assert {info.subject: info[1:] for info in listed} == expected
    assert [info.subject for info in log.subject("s.00*", "s.007").subjects()] == ["s.007"]


# ---- deleting and limits ----


def test_deleted_messages_are_gone_and_sequences_go_on(log):
    fill(log, 5)
    log.delete(2)
    for gone in (2, 6, 0):
        with pytest.raises(jscore.NotFound):
            log.delete(gone)
    assert 2 not in log
    assert log.append(b"") == 6
    assert len(log) == 5


def test_purges(log):
    fill(log, 30)
    assert log.purge("a.0.x", keep=2) == 8
    assert seqs(log.subject("a.0.*")) == [27, 30]
    assert log.purge(before=10) == 6
    assert log.first == 10
    assert log.subject("a.1.*", "a.2.*").purge() == 14
    assert log.purge() == 2
    assert log.purge() == 0
    assert len(log) == 0
    assert log.append(b"") == 31
    with pytest.raises(ValueError, match="contract"):
        log.purge("a..b")
    with pytest.raises(ValueError, match="purge"):
        log.subject("a").after(3).purge()


def test_limits_are_kept_recorded_and_changed(tmp_path):
    with jscore.open(tmp_path / "log", max_messages=5, max_per_subject=2) as log:
        for i in range(12):
            log.append(b"x", "same" if i < 4 else f"s.{i}")
        assert seqs(log) == [8, 9, 10, 11, 12]
    with jscore.open(tmp_path / "log") as log:
        assert log.limits == jscore.Limits(max_messages=5, max_per_subject=2)
        assert seqs(log) == [8, 9, 10, 11, 12]
        log.set_limits(max_messages=2, max_age=1.5)
        assert seqs(log) == [11, 12]
        log.append(b"later", ts=log[12].ts + 2_000_000_000)
        assert seqs(log) == [13]
        with pytest.raises(ValueError, match="max_age"):
            log.set_limits(max_age=-1)
    with jscore.open(tmp_path / "log", max_messages=0, max_age=0) as log:
        assert log.limits == jscore.Limits(max_per_subject=2)


# ---- opening and closing ----


def test_everything_survives_closing_and_opening(tmp_path):
    with jscore.open(tmp_path / "log", segment_bytes=4096) as log:
        fill(log, 500)
        log.delete(250)
        log.purge("a.0.x", before=100)
        before = [(m.seq, m.ts, m.subject, bytes(m)) for m in log]
        infos = list(log.subject().subjects())
    with jscore.open(tmp_path / "log", segment_bytes=4096) as log:
        assert [(m.seq, m.ts, m.subject, bytes(m)) for m in log] == before
        assert list(log.subject().subjects()) == infos
        assert (log.recovery.torn_bytes, log.recovery.damaged_index, log.recovery.message) == (0, 0, "")
        assert log.append(b"") == 501


def test_modes(tmp_path):
    with pytest.raises(FileNotFoundError):
        jscore.open(tmp_path / "log", "r")
    with jscore.open(tmp_path / "log", "x") as log:
        log.append(b"1")
        with pytest.raises(jscore.Locked) as caught:
            jscore.open(tmp_path / "log")
        assert caught.value.path == str(tmp_path / "log")
        with jscore.open(tmp_path / "log", "r") as reader:
            assert bytes(reader[1]) == b"1"
            log.append(b"2")
            reader.refresh()
            assert bytes(reader[2]) == b"2"
            for change in (lambda: reader.append(b""), lambda: reader.delete(1), reader.purge):
                with pytest.raises(jscore.ReadOnly):
                    change()
        with pytest.raises(jscore.Locked):
            jscore.open(tmp_path / "log", "r", exclusive=True)
    with pytest.raises(FileExistsError):
        jscore.open(tmp_path / "log", "x")
    with jscore.open(tmp_path / "log", "r", exclusive=True), pytest.raises(jscore.Locked):
        jscore.open(tmp_path / "log")


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "w"},
        {"sync": "sometimes"},
        {"sync": 0},
        {"compression": 20},
        {"compression": "gzip"},
        {"keys": b"short"},
        {"keys": {0: bytes(32)}},
        {"max_age": -1},
    ],
)
def test_options_outside_the_contract_are_refused(tmp_path, options):
    with pytest.raises((ValueError, TypeError)):
        jscore.open(tmp_path / "log", **options)
    jscore.open(tmp_path / "log").close()


def test_a_closed_log_says_so(tmp_path):
    log = jscore.open(tmp_path / "log")
    fill(log, 200)
    walk, selection, view = iter(log), log.subject("a.>"), log[1:5]
    next(walk)
    log.close()
    log.close()
    calls = (
        *(lambda: log.append(b""), lambda: log[1], lambda: next(walk), selection.count, lambda: list(view)),
        *(log.sync, log.stats, lambda: len(log), lambda: iter(log), lambda: log.durable, log.__enter__),
    )
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    assert "closed" in repr(log)


def test_a_dropped_log_is_closed_and_warned_of(tmp_path):
    log = jscore.open(tmp_path / "log")
    log.append(b"x", sync=False)
    held = [log]
    del log
    with pytest.warns(ResourceWarning, match="not closed"):
        held.clear()
    with jscore.open(tmp_path / "log") as log:
        assert log.last == 1


def test_compressed_and_encrypted_logs_read_the_same(tmp_path):
    keys = {1: bytes(range(32)), 7: bytes(32)}
    options = {"compression": "zstd", "keys": keys, "segment_bytes": 8192}
    with jscore.open(tmp_path / "log", **options) as log:
        log.extend([("s", b"compress me " * 20)] * 500)
        log.maintain()
        held = log[3]
        assert bytes(held) == b"compress me " * 20
    assert bytes(held) == b"compress me " * 20
    assert not any(b"compress me" in path.read_bytes() for path in (tmp_path / "log").iterdir())
    for wrong in (None, {1: keys[1]}):
        with pytest.raises(jscore.KeyMissing) as caught:
            jscore.open(tmp_path / "log", keys=wrong)
        assert caught.value.path == str(tmp_path / "log")
    with jscore.open(tmp_path / "log", keys=jscore.Keys({**keys, 9: b"n" * 32})) as log:
        assert len(log) == 500
        assert {bytes(m) for m in log} == {b"compress me " * 20}


# ---- durability ----


def test_what_append_returned_survives_a_power_cut():
    disk = SimDisk(1)
    log = jscore.open("/log", disk=disk)
    for i in range(20):
        log.append(b"%d" % i)
    assert log.durable == 20
    log.append(b"perhaps", sync=False)
    log.abandon()
    disk.crash(0, True)
    with jscore.open("/log", disk=disk) as log:
        assert [bytes(m) for m in log][:20] == [b"%d" % i for i in range(20)]


def test_unsynced_appends_wait_for_the_next_synced_call():
    disk = SimDisk(1)
    with jscore.open("/log", disk=disk, background=False) as log:
        for _ in range(3):
            log.append(b"", sync=False)
        assert log.durable == 0
        log.wait(2)
        assert log.durable >= 2
        log.append(b"", sync=False)
        log.append(b"")
        assert log.durable == 5
        with pytest.raises(jscore.NotFound):
            log.wait(6)


def test_sync_is_a_sync_in_every_mode():
    for mode in ("never", 3600):
        disk = SimDisk(1)
        log = jscore.open("/log", disk=disk, sync=mode)
        log.extend([b"kept"] * 10)
        log.sync()
        log.append(b"kept too", sync=True)
        log.abandon()
        disk.crash(0, False)
        with jscore.open("/log", disk=disk) as log:
            assert log.last == 11


def test_a_failed_sync_ends_writing_for_good_and_says_why():
    disk = SimDisk(1)
    log = jscore.open("/log", disk=disk)
    log.append(b"kept")
    assert log.error is None
    disk.fail("s", 1, errno.EIO)
    with pytest.raises(jscore.Failed) as caught:
        log.append(b"lost")
    assert caught.value.reason.errno == errno.EIO
    assert log.error.reason.errno == errno.EIO
    for change in (lambda: log.append(b"", sync=False), lambda: log.extend([b""]), lambda: log.delete(1), log.sync):
        with pytest.raises(jscore.Failed) as caught:
            change()
        assert caught.value.reason.errno == errno.EIO
    assert log.durable == 1
    assert bytes(log[1]) == b"kept"
    with pytest.raises(jscore.Failed):
        log.close()
    with jscore.open("/log", disk=disk) as log:
        assert bytes(log[1]) == b"kept"


def test_a_full_disk_is_an_error_and_writing_resumes():
    disk = SimDisk(1)
    with jscore.open("/log", disk=disk, segment_bytes=1 << 20) as log:
        log.append(b"before")
        disk.capacity(disk.used())
        with pytest.raises(jscore.Full):
            log.extend([bytes(64 << 10)] * 100)
        assert log.error is None
        last = log.last
        disk.capacity(1 << 40)
        # What was taken goes out by itself, soon.
        while log.durable < last:
            try:
                log.wait(last, 30)
            except jscore.Full:
                os.sched_yield()
        assert log.append(b"after") == last + 1
        assert bytes(log[1]) == b"before"


def test_offer_takes_or_refuses_and_never_waits(tmp_path):
    with jscore.open(tmp_path / "log", background=False, sync="never") as log:
        large, taken = bytes(33 << 20), 0
        for _ in range(8):  # a quick disk may keep up: then nothing is refused
            try:
                taken = log.offer(large)
            except jscore.Full:
                break
        assert log.last == taken >= 2
        assert log.append(b"waits instead") == taken + 1
        assert log.durable >= 1


def test_the_descriptor_tells_of_durable_positions(log):
    import select

    log.append(b"", sync=False)
    position = log.submit()
    assert position == log.position
    while log.poll() < position:
        assert select.select([log.fileno()], [], [], 10)[0]
    assert log.durable_position == position
    assert not log.stalled


# ---- following ----


def test_follow_gives_durable_messages_and_ends_after_its_timeout(log):
    fill(log, 5)
    follow = log.follow(after=2, timeout=0)
    assert seqs(follow) == [3, 4, 5]
    log.append(b"", "b")
    assert seqs(follow) == [6]
    assert seqs(log.follow(timeout=0)) == []
    assert seqs(log.follow(after=0, subject="a.1.*", timeout=0)) == [1, 4]
    assert seqs(log.follow(after=0, subject=["a.1.*", "b"], timeout=0)) == [1, 4, 6]


def test_follow_does_not_give_what_is_not_durable():
    with jscore.open("/log", disk=SimDisk(1), background=False) as log:
        log.append(b"1")
        log.append(b"2", sync=False)
        follow = log.follow(after=0, timeout=0)
        assert seqs(follow) == [1]
        log.sync()
        assert seqs(follow) == [2]


def test_follow_waits_for_another_thread(log):
    got: list[int] = []

    def read() -> None:
        for message in log.follow(after=0, timeout=30):
            got.append(message.seq)
            if message.seq == 50:
                return

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        log.append(b"")
    reader.join(30)
    assert got == list(range(1, 51))


def test_follow_in_another_process(tmp_path):
    code = (
        "import jscore, sys\n"
        "with jscore.open(sys.argv[1], 'r') as log:\n"
        "    print('ready', flush=True)\n"
        "    for message in log.follow(after=0, timeout=60):\n"
        "        print(message.seq, bytes(message).decode(), flush=True)\n"
        "        if message.seq == 20: break\n"
    )
    with jscore.open(tmp_path / "log") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "log")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(jscore.__file__).parents[1],
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for i in range(1, 21):
            log.append(b"m%d" % i)
        assert child.stdout.read().split("\n") == [*(f"{i} m{i}" for i in range(1, 21)), ""]
        assert child.wait(30) == 0
        child.stdout.close()


# ---- columns ----


def rows(log: jscore.Log) -> list[tuple[int, int, int]]:
    found = []
    for columns in log.columns("seq", "ts", "size"):
        live = columns.live
        assert len(live) == columns.rows
        for i in range(columns.rows):
            if live[i]:
                found.append(tuple(int(column[i]) for column in columns))
    return found


@pytest.mark.parametrize("numpy", [True, False])
def test_columns_are_views_of_the_live_messages(tmp_path, monkeypatch, numpy):
    if numpy:
        pytest.importorskip("numpy")
    else:
        monkeypatch.setitem(sys.modules, "numpy", None)
    with jscore.open(tmp_path / "log", segment_bytes=4096) as log:
        log.extend([b"x" * i for i in range(200)])
        log.seal()
        for seq in (1, 70, 200):
            log.delete(seq)
        expected = [(m.seq, m.ts, m.size) for m in log]
        assert rows(log) == expected
        kept = [columns[0] for columns in log.columns("seq")]
        with pytest.raises(ValueError, match="columns"):
            log.columns("subject")
    assert {int(seq) for column in kept for seq in column} >= {seq for seq, _, _ in expected}
    if numpy:
        assert not kept[0].flags.owndata
        assert not kept[0].flags.writeable
    else:
        assert isinstance(kept[0], memoryview)
        assert kept[0].readonly


# ---- care ----


def test_stats_and_sizes(log):
    fill(log, 10)
    stats = log.stats()
    assert (stats.first_seq, stats.last_seq, stats.messages, stats.durable_seq) == (1, 10, 10, 10)
    assert stats.message_bytes == log.bytes > 0
    assert stats.disk_bytes == log.disk_bytes >= log.bytes
    assert stats.limits == jscore.Limits()


def test_compaction_gives_space_back_and_views_stay(tmp_path):
    with jscore.open(tmp_path / "log", segment_bytes=16 << 10, background=False) as log:
        log.extend([b"x" * 500 for _ in range(1000)])
        log.seal()
        held = log[501]
        columns = list(log.columns("seq"))
        full = log.disk_bytes
        for seq in range(1, 1001):
            if seq % 10:
                log.delete(seq, sync=False)
        log.compact(all=True)
        assert log.disk_bytes < full / 4
        assert seqs(log) == list(range(10, 1001, 10))
        assert bytes(held) == b"x" * 500
        assert sum(len(c[0]) for c in columns) >= 1000
        assert log.verify() == []


def test_damage_is_reported_raised_read_around_and_repaired(tmp_path):
    with jscore.open(tmp_path / "replica") as log:
        log.extend([b"%04d" % i * 50 for i in range(100)])
    (tmp_path / "log").mkdir()
    for path in (tmp_path / "replica").iterdir():
        (tmp_path / "log" / path.name).write_bytes(path.read_bytes())
    segment = tmp_path / "log" / "0000000000000001.seg"
    raw = bytearray(segment.read_bytes())
    at = raw.index(b"0041" * 50)
    raw[at + 10] ^= 1
    segment.write_bytes(raw)

    with jscore.open(tmp_path / "log") as log:
        with pytest.raises(jscore.Corrupt) as caught:
            log[42]
        err = caught.value
        assert (err.seq, err.first_seq, err.last_seq) == (42, 42, 42)
        assert err.segment == 1
        assert 0 < err.offset <= at
        assert 42 in log
        (damage,) = log.damage()
        assert (damage.first_seq, damage.last_seq, damage.seqs_exact) == (42, 42, True)
        walk, met = iter(log), []
        while True:
            try:
                met.append(next(walk).seq)
            except jscore.Corrupt as hole:
                met.append(-hole.seq)
            except StopIteration:
                break
        assert met == [*range(1, 42), -42, *range(43, 101)]
        assert log.verify() != []
        with jscore.open(tmp_path / "replica") as replica:
            assert log.repair(replica.copy_records(damage.first, damage.last)) == 1
        assert bytes(log[42]) == b"0041" * 50
        assert log.damage() == []
        assert log.verify() == []


def test_verify_tells_its_progress_and_passes_on_what_stops_it(log):
    fill(log, 1000)
    told: list[tuple[int, int]] = []
    assert log.verify(lambda done, total: told.append((done, total))) == []
    assert told
    assert told[-1][0] <= told[-1][1]

    def stop(done: int, total: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        log.verify(stop)
    with pytest.raises(ValueError, match="verified"):
        log.verify(lambda done, total: log.close())
    assert log.verify() == []


def test_importing_jscore_brings_no_asyncio_and_no_numpy():
    code = "import sys, jscore; print({'asyncio', 'numpy', 'msgspec', 'rich'} & set(sys.modules))"
    root = Path(jscore.__file__).parents[1]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True) == "set()\n"


def test_the_headers_for_cython_users_are_there():
    assert (Path(jscore.get_include()) / "log" / "jsc_mlog.h").exists()
