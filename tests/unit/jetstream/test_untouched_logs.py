"""Which logs a start need not look for the rest of a repair of."""

from __future__ import annotations

from pathlib import Path

from jscore_server.jetstream.heal import DRAFT, GONE, WHOLE, settle, untouched


def test_a_log_beside_which_a_repair_left_something_is_not_untouched(tmp_path: Path) -> None:
    account = tmp_path / "$G"
    for name in ("S-R3F-a", "S-R3F-b", "S-R3F-b" + DRAFT, "S-R3F-c", "S-R3F-c" + WHOLE, "S-R3F-d" + WHOLE,
                 "S-R3F-e", "S-R3F-e" + GONE):  # fmt: skip
        (account / name).mkdir(parents=True)
    (tmp_path / "%41" / "S-R3F-f").mkdir(parents=True)
    (tmp_path / "stray").write_text("no folder")
    assert untouched(str(tmp_path)) == {f"{account}/S-R3F-a", f"{tmp_path}/%41/S-R3F-f"}
    for name in "bcde":
        settle(f"{account}/S-R3F-{name}", f"{tmp_path}/grave/{name}")
    assert untouched(str(tmp_path)) >= {f"{account}/S-R3F-{name}" for name in "abcde"}
