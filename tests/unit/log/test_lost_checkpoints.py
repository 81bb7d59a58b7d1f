"""Both files of the checkpoint are gone, as if somebody had deleted them: what limits pushed out stays out, or the log
says that it cannot know."""

from __future__ import annotations

from pathlib import Path

import pytest
from format_reader import LIMITED, read_log

import jscore

FILES = ("checkpoint", "checkpoint.copy")


def opened(path: Path, mode: str = "a", **options: object) -> jscore.Log:
    return jscore.open(path, mode, background=False, **{"segment_bytes": 4096, **options})  # type: ignore[arg-type]


def remove(path: Path) -> None:
    for name in FILES:
        (path / name).unlink()


def grow(log: jscore.Log, count: int) -> None:
    log.extend([("a", b"x" * 300)] * count)


def limited(path: Path) -> list[int]:
    """What the log says of where its limits began."""
    return [int.from_bytes(r.data, "little") for r in read_log(path) if r.kind == LIMITED]


def refused(path: Path, live: list[int]) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(jscore.Corrupt, match="checkpoint"):
        opened(path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    with opened(path, "r") as log:
        assert log.recovery.deletions_unsure
        assert set(live) < {m.seq for m in log}
    with opened(path, without_checkpoint=True) as log:
        assert log.recovery.deletions_unsure
        assert set(live) < {m.seq for m in log}
    with opened(path) as log:
        assert not log.recovery.deletions_unsure


def test_a_front_that_took_the_first_limit_along(tmp_path: Path) -> None:
    """The limit in force stays in the log, the narrower one before it went with the first file."""
    path = tmp_path / "log"
    with opened(path, max_messages=5) as log:
        grow(log, 20)
        log.set_limits(max_messages=100)
        grow(log, 20)
        live = [m.seq for m in log]
        assert live[0] == 16
    assert not (path / "0000000000000001.seg").exists()
    assert limited(path) == [1]
    remove(path)
    refused(path, live)


def test_it_is_said_again_where_the_front_takes_that_along_too(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path, max_messages=5) as log:
        grow(log, 200)
    with opened(path) as log:
        grow(log, 200)
        log.delete(400)
        log.delete(399)
        live = [m.seq for m in log]
    assert limited(path) == [1]
    remove(path)
    refused(path, live)


def test_a_front_without_limits_may_go(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path) as log:
        grow(log, 40)
        log.purge(before=30)
        log.sync()
        log.set_limits(max_messages=8)
        grow(log, 4)
        live = [m.seq for m in log]
        log.sync()
    assert not (path / "0000000000000001.seg").exists()
    remove(path)
    with opened(path) as log:
        assert not log.recovery.deletions_unsure
        assert [m.seq for m in log] == live


def test_a_log_whole_from_its_first_record_says_it_all(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with opened(path, max_per_subject=2) as log:
        log.append(b"kept", "k")
        grow(log, 40)
        log.set_limits(max_per_subject=3)
        grow(log, 40)
        live = [m.seq for m in log]
    remove(path)
    with opened(path) as log:
        assert not log.recovery.deletions_unsure
        assert [m.seq for m in log] == live
