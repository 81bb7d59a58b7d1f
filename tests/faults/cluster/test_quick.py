"""Two faults that tests/cluster has not, in short: the rest is run by ./dev faults."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.faults.cluster import recipes_damage
from tests.faults.cluster.__main__ import one_round
from tests.faults.cluster.trial import FAULTS


def play(name: str, home: Path) -> dict[str, object]:
    options = argparse.Namespace(home=home, peer=False, always=False, scale=0.2, verbose=True, keep=True)
    return one_round(FAULTS[name], options, 1, 0, None)


@pytest.mark.timeout(300)
def test_an_emptied_disk_is_filled_again(tmp_path: Path) -> None:
    assert recipes_damage.wiped
    result = play("F15", tmp_path)
    assert result["wrong"] == []
    assert int(str(result["acked"])) > 500


@pytest.mark.timeout(400)
def test_a_flipped_bit_is_repaired_and_loses_nothing(tmp_path: Path) -> None:
    result = play("F4", tmp_path)
    assert result["wrong"] == []
    assert int(str(result["acked"])) > 500
