"""docs/format.md says enough: a reader written from it in plain Python reads what the engine wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from format_reader import MESSAGE, crc32c, read_log

import jscore


def fill(log: jscore.Log, count: int) -> None:
    for i in range(count):
        log.append(
            b"data %d" % i * (i % 9), f"a.{i % 5}", headers=b"H: 1" if i % 4 == 0 else b"", ts=1000 + i, sync=False
        )
        if i % 7 == 0:
            log.sync()


def live(log: jscore.Log) -> dict[int, tuple[int, str, bytes, bytes]]:
    return {m.seq: (m.ts, m.subject, bytes(m.headers), bytes(m.data)) for m in log}


def read(directory: Path) -> dict[int, tuple[int, str, bytes, bytes]]:
    return {r.seq: (r.ts, r.subject.decode(), r.headers, r.data) for r in read_log(directory) if r.kind == MESSAGE}


def test_the_reader_is_short() -> None:
    source = Path(__file__).with_name("format_reader.py").read_text()
    assert len(source.splitlines()) < 150


def test_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_plain_log(tmp_path: Path) -> None:
    with jscore.open(tmp_path / "log", segment_bytes=4096) as log:
        fill(log, 300)
        written = live(log)
    assert read(tmp_path / "log") == written


@pytest.mark.parametrize("compression", [None, 1])
def test_a_compacted_log(tmp_path: Path, compression: int | None) -> None:
    with jscore.open(tmp_path / "log", segment_bytes=4096, background=False, compression=compression) as log:
        fill(log, 300)
        for seq in range(2, 280, 2):
            log.delete(seq)
        log.sync()
        log.seal()
        log.compact()
        kept = live(log)
    try:
        found = read(tmp_path / "log")
    except NotImplementedError:
        assert compression
        return
    # The newest deletions may still lie in segments that are not rewritten.
    assert {seq: found[seq] for seq in kept} == kept
    assert len(found) < 300


def test_what_it_refuses(tmp_path: Path) -> None:
    with jscore.open(tmp_path / "log") as log:
        fill(log, 50)
    path = next((tmp_path / "log").glob("*.seg"))
    content = bytearray(path.read_bytes())
    content[2000] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="byte"):
        read(tmp_path / "log")
