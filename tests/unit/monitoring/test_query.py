"""Monitoring parameters are read, refused and printed as nats-server's users know it."""

from __future__ import annotations

import pytest
from jscore_server.monitoring.query import BadQuery, boolean, go_duration, integer, uptime


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("T", True), ("0", False), ("", False)])
def test_booleans_are_those_of_go(text: str, value: bool) -> None:
    assert boolean({"subs": text}, "subs") is value


def test_what_is_missing_is_false_and_zero() -> None:
    assert boolean({}, "subs") is False
    assert integer({}, "limit") == 0


def test_a_bad_boolean_says_so_in_the_peer_s_words() -> None:
    with pytest.raises(BadQuery) as caught:
        boolean({"subs": "2x"}, "subs")
    assert str(caught.value) == "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"2x\": invalid syntax"


@pytest.mark.parametrize("text", ["a", "1.5", "٣", "9" * 40, "--1"])
def test_a_bad_number_is_refused(text: str) -> None:
    with pytest.raises(BadQuery, match=r"^Error decoding int for 'limit': strconv\.Atoi: parsing "):
        integer({"limit": text}, "limit")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (61, "1m1s"), (3600, "1h0m0s"), (90061, "1d1h1m1s"), (366 * 86400, "1y1d0h0m0s"), (-5, "0s")],
)
def test_uptime_leaves_leading_zeros_out(seconds: float, text: str) -> None:
    assert uptime(seconds) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0s"), (17, "17ns"), (1500, "1.5µs"), (240_000, "240µs"), (1_020_000, "1.02ms"), (3 * 10**9, "3s")],
)
def test_durations_are_printed_as_go_does(ns: int, text: str) -> None:
    assert go_duration(ns) == text
