"""What two servers make of each other's compression mode."""

from __future__ import annotations

import pytest
from jscore_server.cluster.compression import agreed, compresses, first_level
from jscore_server.config.compression import LEVELS, MODES
from jscore_server.protocol.connect import Refused

SAYS = sorted({*MODES.values()})


@pytest.mark.parametrize(
    ("own", "said", "mode"),
    [
        ("off", "s2_fast", "off"),
        ("off", None, "not supported"),
        ("accept", None, "not supported"),
        ("accept", "", "not supported"),
        ("accept", "accept", "off"),
        ("accept", "off", "off"),
        ("accept", "s2_best", "s2_best"),
        ("accept", "s2_auto", "s2_fast"),
        ("accept", "s2_uncompressed", "s2_uncompressed"),
        ("s2_fast", "accept", "s2_fast"),
        ("s2_fast", "s2_best", "s2_fast"),
        ("s2_auto", "s2_best", "s2_auto"),
        ("s2_best", "off", "off"),
        ("s2_best", "not supported", "not supported"),
        ("not supported", "s2_fast", "not supported"),
    ],
)
def test_the_mode_of_a_connection(own, said, mode):
    assert agreed(own, said) == mode


@pytest.mark.parametrize("own", SAYS)
@pytest.mark.parametrize("theirs", SAYS)
def test_both_ends_agree_on_whether_there_is_any(own, theirs):
    mine, others = agreed(own, theirs), agreed(theirs, own)
    assert compresses(mine) == compresses(others)
    # The side that accepted hears the mode which the other one chose, not the one it began with.
    assert compresses(agreed(theirs, mine)) == compresses(mine)


@pytest.mark.parametrize("said", ["zstd", "S2_FAST", 5, ["s2_fast"], {"mode": "s2_fast"}, True])
def test_what_is_no_mode_is_refused(said):
    with pytest.raises(Refused, match="Protocol Violation") as refused:
        agreed("accept", said)
    assert refused.value.error.startswith('unsupported route compression mode "')


def test_a_level_is_known_before_the_round_trip_time_is():
    assert [first_level(mode) for mode in LEVELS] == [0, 1, 2, 3]
    assert first_level("s2_auto") == 1
