"""Log lines: the format, levels, reopening and rotation."""

from __future__ import annotations

import os
import re

import pytest
from jscore_server.logs import Log

LINE = re.compile(r"\[(\d+)\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} \[([A-Z]{3})\] (.*)")


def test_the_format_and_the_levels(tmp_path):
    path = tmp_path / "log"
    log = Log(str(path), debug=True, trace=True)
    for call in (log.info, log.notice, log.warn, log.error, log.fatal, log.debug, log.trace):
        call("text é")
    log.close()
    lines = [LINE.fullmatch(line) for line in path.read_text().splitlines()]
    assert [line[2] for line in lines if line] == ["INF", "INF", "WRN", "ERR", "FTL", "DBG", "TRC"]
    assert {(line[1], line[3]) for line in lines if line} == {(str(os.getpid()), "text é")}


def test_levels_that_are_off_write_nothing_and_times_can_be_left_out(tmp_path):
    path = tmp_path / "log"
    log = Log(str(path), logtime=False)
    log.debug("no")
    log.trace("no")
    log.info("yes")
    log.close()
    assert path.read_text() == f"[{os.getpid()}] [INF] yes\n"


def test_a_line_end_in_a_text_does_not_make_a_second_line(tmp_path):
    path = tmp_path / "log"
    log = Log(str(path))
    log.info("name: a\r\n[1] [ERR] forged")
    log.close()
    assert len(path.read_text().splitlines()) == 1


def test_reopen_follows_a_renamed_file(tmp_path):
    path = tmp_path / "log"
    log = Log(str(path))
    log.info("one")
    path.rename(tmp_path / "old")
    log.info("two")
    log.reopen()
    log.info("three")
    log.close()
    assert [line[-3:] for line in (tmp_path / "old").read_text().splitlines()] == ["one", "two"]
    assert path.read_text().endswith("three\n")


def test_rotation_keeps_as_many_files_as_told(tmp_path):
    path = tmp_path / "log"
    (tmp_path / "log.other").write_text("stays")
    log = Log(str(path), size_limit=400, max_num=3)
    for n in range(60):
        log.info(f"line {n} " + "x" * 50)
    log.close()
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert len(names) == 4
    assert names[-1] == "log.other"
    assert "Rotated log, backup saved as" in path.read_text()


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        Log(str(tmp_path / "none" / "log"))
