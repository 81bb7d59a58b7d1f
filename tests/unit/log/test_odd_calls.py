"""What a log does with arguments that are odd or wrong, and with directories that somebody else was in."""

from __future__ import annotations

import math
import os

import pytest

import jscore


@pytest.fixture
def log(tmp_path):
    with jscore.open(tmp_path / "log") as opened:
        opened.extend([("a", b"1"), ("b", b"2"), ("a", b"3")])
        yield opened


# ---- arguments ----


def test_a_log_opened_by_a_relative_path_stays_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with jscore.open("log", segment_bytes=4096) as log:
        assert log.path == "log"
        monkeypatch.chdir(tmp_path / "elsewhere")
        log.extend([b"x" * 1000] * 20)
    assert not list((tmp_path / "elsewhere").iterdir())
    with jscore.open(tmp_path / "log", "r") as log:
        assert len(log) == 20


def test_an_empty_path_is_no_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("", b""):
        with pytest.raises(ValueError, match="empty"):
            jscore.open(path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_below_the_first_sequence(log):
    assert log.purge(before=0) == log.purge(before=1) == log.subject("a").purge(before=0) == 0
    assert len(log) == 3
    assert log.purge(before=2) == 1


def test_an_extend_with_a_message_that_is_too_large_appends_none(log):
    with pytest.raises(ValueError, match="contract"):
        log.extend([b"fine", ("s" * 65536, b"not"), b"fine"])
    assert (log.last, len(log)) == (3, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda log: log.subject().count(-1),
        lambda log: log.subject().after(-1),
        lambda log: log.subject().pending(-1),
        lambda log: log.follow(-1),
        lambda log: log.wait_beyond(-1),
        lambda log: log.wait_beyond(3, math.nan),
        lambda log: log.purge(keep=-1),
        lambda log: log.purge(before=-1),
        lambda log: log.set_limits(max_messages=-1),
        lambda log: log.set_limits(max_age=math.nan),
        lambda log: log.set_limits(max_age=math.inf),
        lambda log: log.append(b"", ts=math.nan),
        lambda log: log.at(-math.inf),
    ],
)
def test_numbers_that_cannot_be_are_value_errors(log, call):
    with pytest.raises(ValueError, match=r"below 0|number|finite|NaN"):
        call(log)
    assert len(log) == 3


def test_sequences_beyond_every_log_match_nothing(log):
    for seq in (1 << 63, (1 << 64) - 1, 1 << 80):
        assert log.subject("a").count(seq) == len(log.subject("a").after(seq)) == log.subject().pending(seq) == 0
        assert list(log.subject().after(seq)) == list(log.follow(seq, timeout=0)) == []
        assert seq not in log


def test_slices_and_indexes_are_integers(log):
    with pytest.raises(TypeError):
        log[1.5:]
    with pytest.raises(TypeError):
        log[1:]["a"]
    for at in (1 << 80, -(1 << 80), 3, -4):
        with pytest.raises(IndexError):
            log[1:][at]


def test_a_wait_without_end_and_an_age_below_a_nanosecond(log):
    log.wait(log.append(b"", sync=False), math.inf)
    log.set_limits(max_age=1e-12)
    assert log.limits.max_age > 0, "not: no limit"


def test_objects_that_no_log_made_raise(log):
    for call in (
        lambda: next(jscore.Messages.__new__(jscore.Messages)),
        lambda: jscore.Selection.__new__(jscore.Selection).last(),
        lambda: list(jscore.Selection.__new__(jscore.Selection)),
        lambda: jscore.Log.__new__(jscore.Log).last,
    ):
        with pytest.raises((AttributeError, TypeError, ValueError)):
            call()


# ---- directories ----


def test_a_reader_goes_on_when_the_writer_closes_and_comes_back(tmp_path):
    jscore.open(tmp_path / "log").close()
    with jscore.open(tmp_path / "log", "r") as reader:
        follow = reader.follow(0, timeout=0)
        for n in range(1, 5):
            with jscore.open(tmp_path / "log") as writer:
                writer.append(b"%d" % n)
                if n % 2:
                    assert [bytes(message) for message in follow] == [b"%d" % n]
            if not n % 2:
                assert [bytes(message) for message in follow] == [b"%d" % n]


@pytest.mark.parametrize("name", ["LOCK", "checkpoint", "0000000000000001.seg", "00000000000fffff.seg"])
@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_what_is_no_file_is_an_error_and_nothing_behind_a_link_is_touched(tmp_path, kind, name):
    with jscore.open(tmp_path / "log") as log:
        log.append(b"here")
    victim = tmp_path / "victim"
    victim.write_bytes(b"not ours")
    place = tmp_path / "log" / name
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "link":
        place.symlink_to(victim)
    else:
        place.mkdir()
    for mode in ("a", "r"):
        try:
            with jscore.open(tmp_path / "log", mode) as log:
                if mode == "a":
                    log.append(b"more")
                    log.maintain()
        except (OSError, jscore.Error):
            pass
    assert victim.read_bytes() == b"not ours"


@pytest.mark.parametrize("more", [1, 4096, 17 << 30])
def test_a_packed_file_longer_than_its_table_says_hides_nothing_else(tmp_path, more):
    path = tmp_path / "log"
    bodies = [b"%04d" % i * 100 for i in range(1, 41)]
    with jscore.open(path, segment_bytes=4096, background=False, compression="zstd") as log:
        log.extend(bodies)
        log.maintain()
    victim = sorted(path.glob("*.seg"))[1]
    size = victim.stat().st_size
    os.truncate(victim, size + more)
    first = int(victim.stem, 16)
    for mode in ("r", "a", "a"):
        with jscore.open(path, mode, background=False) as log:  # type: ignore[call-overload]
            read = []
            for seq, body in enumerate(bodies, 1):
                try:
                    assert bytes(log[seq]) == body
                    read.append(seq)
                except jscore.Corrupt:
                    pass
            assert set(range(1, 41)) - set(read) == set(range(first, first + 9))
            assert any(f.file == victim.name and f.what.startswith("damage") for f in log.verify())
            if mode == "a":
                log.maintain()  # scrubs: as much as there was, not as much as there is
                assert log.stats().scrubbed_bytes < 1 << 20
    assert victim.stat().st_size == size + more, "it is left as it is"
    os.truncate(victim, size)
    with jscore.open(path, background=False) as log:
        assert [bytes(m) for m in log] == bodies


@pytest.mark.parametrize("which", ["sealed", "full", "open", "stray"])
def test_a_file_longer_than_any_segment_hides_nothing_else(tmp_path, which):
    path = tmp_path / "log"
    with jscore.open(path, segment_bytes=4096, background=False) as log:
        log.extend([b"%04d" % i * 100 for i in range(1, 41)])
        if which == "sealed":
            log.maintain()
        segments = sorted(path.glob("*.seg"))
    victim = segments[{"sealed": 1, "full": 1, "open": -1, "stray": -1}[which]]
    if which == "stray":
        victim = path / f"{41:016x}.seg"
        victim.touch()
    os.truncate(victim, 17 << 30)
    for mode in ("r", "a", "a"):
        with jscore.open(path, mode, background=False) as log:  # type: ignore[call-overload]
            assert [bytes(m) for m in log] == [b"%04d" % i * 100 for i in range(1, 41)]
            if which != "stray":
                assert any(f.file == victim.name and "longer" in f.what for f in log.verify())
            elif mode == "a":
                assert not victim.exists() or victim.stat().st_size < 1 << 20
                assert (path / f"{victim.name}.overlong").stat().st_size == 17 << 30
    with jscore.open(path, background=False) as log:
        assert log.append(b"more") == 41
        log.maintain()
    with jscore.open(path) as log:
        assert len(log) == 41
    if which in ("full", "open"):
        assert victim.stat().st_size == 17 << 30, "it is left as it is"
