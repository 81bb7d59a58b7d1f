"""The file that says what a store is may rot: it is kept twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jscore_server.jetstream.directory import COPY, FILE, StoreRefused, open_directory


@pytest.mark.parametrize("name", [FILE, COPY])
def test_any_flipped_bit_of_one_is_written_again_from_the_other(tmp_path: Path, name: str) -> None:
    open_directory(str(tmp_path))
    good = (tmp_path / name).read_bytes()
    for at in range(len(good) * 8):
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        (tmp_path / name).write_bytes(bad)
        open_directory(str(tmp_path))
        # A bit of the check's own name leaves a format that is right and unchecked.
        assert json.loads((tmp_path / name).read_bytes())["format"] == 1


@pytest.mark.parametrize("name", [FILE, COPY])
def test_one_that_is_missing_is_written_again(tmp_path: Path, name: str) -> None:
    open_directory(str(tmp_path))
    (tmp_path / "streams").mkdir()
    (tmp_path / name).unlink()
    open_directory(str(tmp_path))
    assert (tmp_path / FILE).read_bytes() == (tmp_path / COPY).read_bytes()


def test_a_store_made_before_there_was_a_copy(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"format": 1}')
    open_directory(str(tmp_path))
    (tmp_path / FILE).write_text('{"fo')
    open_directory(str(tmp_path))
    assert json.loads((tmp_path / FILE).read_text())["format"] == 1


@pytest.mark.parametrize("text", ['{"format": 2}', '{"formaT": 1}', "[]", "", "{"])
def test_what_neither_copy_can_tell_is_left_untouched(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    (tmp_path / "streams").mkdir()
    with pytest.raises(StoreRefused):
        open_directory(str(tmp_path))
    assert (tmp_path / FILE).read_text() == text
