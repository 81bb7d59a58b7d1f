"""Monitoring parameters are read, refused and printed as nats-server's users know it."""

from __future__ import annotations

import pytest
from jscore_server.monitoring.query import (
    BadQuery,
    Option,
    boolean,
    integer,
    number,
    read_json,
    read_query,
    uptime,
)
from jscore_server.protocol.duration import go_duration


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


OPTIONS = (
    Option("sort", "text"),
    Option("limit", "int"),
    Option("cid", "uint"),
    Option("subscriptions", "subs", "subs"),
    Option("state", "state"),
    Option("names", "texts", None),
    Option("hidden", "bool", None),
)


def test_what_is_not_asked_for_has_its_zero() -> None:
    assert read_query(OPTIONS, {}) == {
        "sort": "",
        "limit": 0,
        "cid": 0,
        "subscriptions": False,
        "subscriptions_detail": False,
        "state": 0,
        "names": (),
        "hidden": False,
    }
    assert read_json(OPTIONS, b"  ")[0] == read_query(OPTIONS, {})


def test_a_url_and_a_request_ask_the_same() -> None:
    by_url = read_query(OPTIONS, {"sort": "idle", "limit": "5", "cid": "7", "subs": "1", "state": "ALL", "else": "x"})
    body = b'{"sort":"idle","limit":5,"cid":7,"subscriptions":true,"state":2,"else":null}'
    assert by_url == read_json(OPTIONS, body)[0]
    assert read_query(OPTIONS, {"subs": "detail"})["subscriptions_detail"] is True
    assert read_query(OPTIONS, {"hidden": "x"})["hidden"] is False


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"state": "foo"}, "Error decoding state for foo"),
        ({"cid": "-1"}, "Error decoding uint64 for 'cid': strconv.ParseUint: parsing \"-1\": invalid syntax"),
        (
            {"cid": "9" * 20},
            f"Error decoding uint64 for 'cid': strconv.ParseUint: parsing \"{'9' * 20}\": value out of range",
        ),
        ({"subs": "2x"}, "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"2x\": invalid syntax"),
    ],
)
def test_a_bad_url_says_which_part(query: dict[str, str], text: str) -> None:
    with pytest.raises(BadQuery) as caught:
        read_query(OPTIONS, query)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{x", "invalid character 'x' looking for beginning of object key string"),
        (b"foo", "invalid character 'f' looking for beginning of value"),
        (b'{"a":', "unexpected end of JSON input"),
        (b"[]", "json: cannot unmarshal array into Go value of type server.EventFilterOptions"),
        (b'{"limit":"1"}', "json: cannot unmarshal string into Go struct field X.limit of type int"),
        (b'{"limit":true}', "json: cannot unmarshal bool into Go struct field X.limit of type int"),
        (b'{"cid":-1}', "json: cannot unmarshal number -1 into Go struct field X.cid of type uint64"),
        (b'{"names":["a",1]}', "json: cannot unmarshal array into Go struct field X.names of type []string"),
    ],
)
def test_a_bad_request_says_what_is_wrong(body: bytes, text: str) -> None:
    with pytest.raises(BadQuery) as caught:
        read_json(OPTIONS, body, "X")
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b'{"limit":1e999}', b'{"limit":NaN}']
)
def test_noise_is_refused(body: bytes) -> None:
    with pytest.raises(BadQuery):
        read_json(OPTIONS, body)


def test_a_whole_fraction_has_no_point() -> None:
    assert (repr(number(4.0)), repr(number(0.5))) == ("4", "0.5")
