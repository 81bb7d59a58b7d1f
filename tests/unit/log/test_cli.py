"""The command `jscore` over real directories: output, exit codes, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import jscore
from jscore import cli
from jscore.keyfile import read_keys


@pytest.fixture
def store(tmp_path) -> Path:
    with jscore.open(tmp_path / "log") as log:
        log.extend([(f"a.{i % 3}", b"%04d" % i * 20, b"h" * (i % 2), i * 1_000_000_000) for i in range(1, 101)])
    return tmp_path / "log"


@pytest.fixture
def damaged(store, tmp_path) -> Path:
    """A copy whose message 42 has a wrong bit."""
    shutil.copytree(store, tmp_path / "damaged")
    segment = tmp_path / "damaged" / "0000000000000001.seg"
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"0042" * 20) + 7] ^= 16
    segment.write_bytes(raw)
    return tmp_path / "damaged"


def as_json(capsys, *words: object) -> tuple[int, Any]:
    code = cli.main([str(word) for word in words] + ["--json"])
    return code, json.loads(capsys.readouterr().out)


def files(path: Path) -> dict[str, bytes]:
    return {child.name: child.read_bytes() for child in path.iterdir()}


def test_verify_of_a_sound_log(store, capsys):
    before = files(store)
    assert cli.main(["verify", str(store)]) == 0
    assert capsys.readouterr().out.startswith("sound: 100 messages, ")
    code, found = as_json(capsys, "verify", store)
    assert (code, found["sound"], found["messages"], found["findings"], found["damage"]) == (0, True, 100, [], [])
    assert files(store) == before, "it only reads"


def test_verify_names_the_place_of_damage(damaged, capsys):
    before = files(damaged)
    assert cli.main(["verify", str(damaged)]) == 1
    out = capsys.readouterr().out
    assert "0000000000000001.seg: offset " in out
    assert "sequences 42 to 42" in out
    assert "DAMAGED" in out
    code, found = as_json(capsys, "verify", damaged)
    assert (code, found["sound"]) == (1, False)
    (place,) = found["damage"]
    assert (place["segment"], place["first_seq"], place["last_seq"]) == ("0000000000000001.seg", 42, 42)
    assert found["findings"]
    assert files(damaged) == before


def test_info(store, damaged, capsys):
    code, found = as_json(capsys, "info", store)
    assert code == 0
    assert (found["first_seq"], found["last_seq"], found["messages"], found["first_ts"]) == (1, 100, 100, 1_000_000_000)
    assert cli.main(["info", str(store)]) == 0
    out = capsys.readouterr().out
    assert "sequences     1 to 100" in out
    assert "1970-01-01T00:00:01.000000000Z to 1970-01-01T00:01:40.000000000Z" in out
    assert cli.main(["info", str(damaged)]) == 1


def test_dump(store, capsys):
    assert cli.main(["dump", str(store), "--subject", "a.1", "--from", "4", "--to", "10", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["seq"], line["subject"]) for line in lines] == [(4, "a.1"), (7, "a.1"), (10, "a.1")]
    assert lines[0] == {"seq": 4, "ts": 4_000_000_000, "subject": "a.1", "data": "0004" * 20}
    assert lines[1]["headers"] == "h"
    assert cli.main(["dump", str(store), "--limit", "2", "--raw"]) == 0
    assert capsys.readouterr().out == "0001" * 20 + "0002" * 20
    assert cli.main(["dump", str(store), "--from", "100"]) == 0
    assert capsys.readouterr().out == "100 1970-01-01T00:01:40.000000000Z a.1 0+80\n" + "0100" * 20 + "\n"


def test_dump_goes_around_damage_and_says_so(damaged, capsys):
    assert cli.main(["dump", str(damaged), "--json"]) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["seq"] for line in captured.out.splitlines()] == [*range(1, 42), *range(43, 101)]
    assert "message 42" in captured.err


def test_dump_keeps_bytes_that_are_no_text(tmp_path, capsys):
    with jscore.open(tmp_path / "log") as log:
        log.append(b"\xff\x00", "\udcfe", headers=b"\x80")
    assert cli.main(["dump", str(tmp_path / "log"), "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["subject"], line["data_base64"], line["headers_base64"]) == ("\udcfe", "/wA=", "gA==")


def test_repair_takes_records_back_from_a_replica(store, damaged, capsys):
    code, found = as_json(capsys, "repair", damaged)
    assert (code, found["healed"], len(found["left"])) == (1, 0, 1)
    code, found = as_json(capsys, "repair", damaged, "--from", store)
    assert (code, found["healed"], found["left"]) == (0, 1, [])
    assert cli.main(["verify", str(damaged)]) == 0
    with jscore.open(damaged) as log:
        assert bytes(log[42]) == b"0042" * 20


def test_repair_finds_damage_in_a_sealed_segment_that_nobody_read(tmp_path, capsys):
    store, damaged = tmp_path / "log", tmp_path / "damaged"
    with jscore.open(store, segment_bytes=4096) as log:
        log.extend([b"%04d" % i * 50 for i in range(100)])
        log.seal()
    shutil.copytree(store, damaged)
    segment = damaged / "0000000000000001.seg"
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"0003" * 50)] ^= 1
    segment.write_bytes(raw)
    code, found = as_json(capsys, "repair", damaged)
    assert (code, found["healed"], [d["first_seq"] for d in found["left"]]) == (1, 0, [4])
    code, found = as_json(capsys, "repair", damaged, "--from", store)
    assert (code, found["healed"], found["left"]) == (0, 1, [])
    assert cli.main(["verify", str(damaged)]) == 0


def test_files_that_are_nobodys_are_told_and_are_no_damage(store, capsys):
    (store / "README.txt").write_text("mine")
    (store / "0000000000000065.tmp").write_bytes(b"a job that was killed")
    code, found = as_json(capsys, "verify", store)
    assert (code, found["sound"]) == (0, True)
    assert sorted(f["file"] for f in found["findings"]) == ["0000000000000065.tmp", "README.txt"]


def test_a_directory_of_something_else_is_no_log(tmp_path, capsys):
    (tmp_path / "notes.seg").write_bytes(b"not ours")
    for word in ("verify", "info", "dump", "repair", "compact"):
        assert cli.main([word, str(tmp_path)]) == 2
        assert "no log in it" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["notes.seg"]


def test_compact_gives_space_back(tmp_path, capsys):
    with jscore.open(tmp_path / "log", segment_bytes=64 << 10, background=False, sync="never") as log:
        log.extend([b"x" * 500] * 8000)
        for seq in range(1, 8001):
            if seq % 10:
                log.delete(seq)
    code, found = as_json(capsys, "compact", tmp_path / "log", "--all")
    assert code == 0
    assert found["after"] < 2 * found["record_bytes"] < found["before"] / 4
    with jscore.open(tmp_path / "log") as log:
        assert [m.seq for m in log] == list(range(10, 8001, 10))


def test_info_tells_damage_to_what_it_shows(tmp_path, capsys):
    """The last message of a sealed file, which opening does not read."""
    with jscore.open(tmp_path / "log", background=False) as log:
        log.extend([b"%04d" % i * 20 for i in range(1, 101)])
        log.seal()
    segment = tmp_path / "log" / "0000000000000001.seg"
    raw = bytearray(segment.read_bytes())
    raw[raw.index(b"0100" * 20) + 7] ^= 16
    segment.write_bytes(raw)
    code, found = as_json(capsys, "info", tmp_path / "log")
    assert (code, found["last_ts"]) == (1, None)
    assert [d["first"] for d in found["damage"]] == [100]


def test_a_log_without_its_checkpoints_says_so(tmp_path, capsys):
    path = tmp_path / "log"
    with jscore.open(path, max_per_subject=1, segment_bytes=4096, background=False) as log:
        log.extend([("a", b"x" * 500)] * 50)
        log.delete(50)
        log.extend([("b", b"x" * 500)] * 20)
        log.compact(all=True)
        live = len(log)
    for name in ("checkpoint", "checkpoint.copy"):
        raw = bytearray((path / name).read_bytes())
        raw[100] ^= 1
        (path / name).write_bytes(raw)
    before = files(path)
    for word in ("info", "verify", "dump", "compact", "repair"):
        assert cli.main([word, str(path)]) == 1
        out, err = capsys.readouterr()
        assert "checkpoint" in out + err
        assert files(path) == before
    assert cli.main(["repair", str(path), "--without-checkpoint"]) == 0
    assert cli.main(["verify", str(path)]) == 0
    with jscore.open(path) as log:
        assert len(log) >= live


def test_a_small_log_is_small_and_compacting_makes_it_no_larger(tmp_path, capsys):
    path = tmp_path / "log"
    with jscore.open(path) as log:
        log.extend([b"x" * 100] * 300)
        live = log.bytes
    for word in ("info", "compact", "compact", "info"):
        code, found = as_json(capsys, word, path, *(["--all"] if word == "compact" else []))
        assert code == 0
        assert live < found.get("after", found.get("disk_bytes")) < live + 1024
    with jscore.open(path) as log:
        log.append(b"more")
        log.purge(before=290)
    assert as_json(capsys, "compact", path, "--all")[1]["after"] < 4096
    with jscore.open(path) as log:  # a killed process left its reserve
        log.append(b"x" * 100_000, sync=True)
        log.abandon()
    code, found = as_json(capsys, "compact", path, "--all")
    assert (code, found["after"] < 100_000 + 8192) == (0, True)
    assert cli.main(["verify", str(path)]) == 0


@pytest.mark.parametrize("word", ["verify", "info", "dump", "repair", "compact"])
def test_what_cannot_run_exits_with_2_and_changes_nothing(word, store, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for missing in (tmp_path / "none", tmp_path / "empty"):
        assert cli.main([word, str(missing)]) == 2
        assert str(missing) in capsys.readouterr().err
    assert not list((tmp_path / "empty").iterdir())
    with jscore.open(store):
        assert cli.main([word, str(store)]) == 2
        assert "in use" in capsys.readouterr().err
    before = files(store)
    segment = store / "0000000000000001.seg"
    raw = bytearray(segment.read_bytes())
    raw[8:12] = (99).to_bytes(4, "little")
    raw[60:64] = jscore.crc32c(bytes(raw[:60])).to_bytes(4, "little")
    segment.write_bytes(raw)
    assert cli.main([word, str(store)]) == 2
    assert "version" in capsys.readouterr().err
    assert {**files(store), segment.name: before[segment.name]} == before


@pytest.mark.parametrize("words", ["", "verify", "polish x", "dump x --from 0", "info x --bogus"])
def test_bad_arguments_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(words.split())
    assert caught.value.code == 2
    assert "usage: jscore" in capsys.readouterr().err


def test_encrypted_logs_need_the_key_file(tmp_path, capsys):
    key_file = tmp_path / "keys"
    key_file.write_text(f"# rotated in spring\n1 {'00' * 32}\n2 {'ab' * 32}  # current\n")
    with jscore.open(tmp_path / "log", keys=read_keys(key_file)) as log:
        log.append(b"secret")
    assert cli.main(["verify", str(tmp_path / "log")]) == 2
    assert "--key-file" in capsys.readouterr().err
    assert cli.main(["verify", str(tmp_path / "log"), "--key-file", str(key_file)]) == 0
    for bad in ("", "1 abcd\n", f"x {'00' * 32}\n", f"1 {'00' * 32}\n1 {'00' * 32}\n", f"0 {'00' * 32}\n"):
        key_file.write_text(bad)
        assert cli.main(["verify", str(tmp_path / "log"), "--key-file", str(key_file)]) == 2
    assert "00" * 32 not in capsys.readouterr().err


def test_a_log_is_not_repaired_from_itself(store, capsys):
    assert cli.main(["repair", str(store), "--from", str(store)]) == 2
    assert "itself" in capsys.readouterr().err
