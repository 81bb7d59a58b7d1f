"""What goes out on the wire."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jscore_server.jetstream.errors import problem
from jscore_server.jetstream.models import (
    ZERO_TIME,
    AccountStats,
    ClusterInfo,
    ConsumerInfo,
    Paging,
    PeerInfo,
    StoredMessage,
    StreamConfig,
    StreamState,
    encode,
    encode_response,
    format_time,
    page,
    parse_time,
)
from jscore_server.jetstream.stream_config import check_stream_config, shown_config

FRESH = (
    '{"name":"S","subjects":["S"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,'
    '"max_msgs_per_subject":-1,"max_msg_size":-1,"discard":"old","storage":"file","num_replicas":1,'
    '"duplicate_window":120000000000,"compression":"none","allow_direct":false,"mirror_direct":false,"sealed":false,'
    '"deny_delete":false,"deny_purge":false,"allow_rollup_hdrs":false,"consumer_limits":{},"allow_msg_ttl":false,'
    '"metadata":{"_nats.level":"0","_nats.req.level":"0","_nats.ver":"9"}}'
)


def test_a_fresh_streams_config_is_written_field_for_field() -> None:
    assert encode(shown_config(check_stream_config(StreamConfig(name="S")), "9")).decode() == FRESH


def test_a_config_survives_the_wire() -> None:
    config = check_stream_config(StreamConfig(name="S", subjects=["a.>"], metadata={"k": "v"}))
    assert msgspec.json.decode(encode(config), type=StreamConfig) == config


def test_json_is_escaped_as_in_go() -> None:
    assert encode({"a": "<>&\u2028\u2029é"}) == b'{"a":"\\u003c\\u003e\\u0026\\u2028\\u2029\xc3\xa9"}'


@given(st.text())
def test_escaping_never_changes_the_value(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    out = encode({"a": text})
    assert json.loads(out) == {"a": text}
    assert not set(out) & set(b"<>&")


def test_an_answer_has_type_error_paging_fields_and_extras_in_this_order() -> None:
    answer = encode_response("stream_info", {"a": 1}, problem(10059), paging=Paging(1, 2, 3), did_create=True)
    assert answer == (
        b'{"type":"io.nats.jetstream.api.v1.stream_info_response",'
        b'"error":{"code":404,"err_code":10059,"description":"stream not found"},'
        b'"total":1,"offset":2,"limit":3,"a":1,"did_create":true}'
    )


def test_an_answer_without_fields() -> None:
    assert encode_response("consumer_unpin") == b'{"type":"io.nats.jetstream.api.v1.consumer_unpin_response"}'
    assert encode_response("x", {}) == b'{"type":"io.nats.jetstream.api.v1.x_response"}'


def test_null_and_empty_lists_stay_what_they_are() -> None:
    assert encode_response("stream_names", {"streams": None}).endswith(b'"streams":null}')
    assert encode_response("stream_list", {"streams": []}).endswith(b'"streams":[]}')


def test_account_info_equals_the_peers() -> None:
    stats = AccountStats()
    stats.api.level = 4
    assert encode_response("account_info", stats) == (
        b'{"type":"io.nats.jetstream.api.v1.account_info_response","memory":0,"storage":0,"reserved_memory":0,'
        b'"reserved_storage":0,"streams":0,"consumers":0,"limits":{"max_memory":-1,"max_storage":-1,"max_streams":-1,'
        b'"max_consumers":-1,"max_ack_pending":-1,"memory_max_stream_bytes":-1,"storage_max_stream_bytes":-1,'
        b'"max_bytes_required":false},"api":{"level":4,"total":0,"errors":0}}'
    )


def test_a_stored_message_leaves_out_what_is_empty() -> None:
    full = StoredMessage("S", 1, b"NATS/1.0\r\nA: b\r\n\r\n", b"x", "t")
    assert encode(full) == b'{"subject":"S","seq":1,"hdrs":"TkFUUy8xLjANCkE6IGINCg0K","data":"eA==","time":"t"}'
    assert encode(StoredMessage("S", 2, time="t")) == b'{"subject":"S","seq":2,"time":"t"}'


def test_cluster_info_leaves_out_what_is_unknown() -> None:
    assert encode(ClusterInfo(leader="n0")) == b'{"leader":"n0"}'
    replica = PeerInfo("n1", True, active=5, peer="p")
    assert encode(ClusterInfo(replicas=[replica])) == (
        b'{"replicas":[{"name":"n1","current":true,"active":5,"peer":"p"}]}'
    )


def test_state_shows_zeros_but_not_absent_details() -> None:
    assert encode(StreamState()) == (
        b'{"messages":0,"bytes":0,"first_seq":0,"first_ts":"0001-01-01T00:00:00Z","last_seq":0,'
        b'"last_ts":"0001-01-01T00:00:00Z","consumer_count":0}'
    )


def test_consumer_info_keeps_its_order() -> None:
    names = ConsumerInfo.__struct_fields__
    assert names[:4] == ("stream_name", "name", "created", "config")
    assert names[-2:] == ("ts", "priority_groups")


@pytest.mark.parametrize(
    ("offset", "items", "shown"), [(0, ["a", "b"], 0), (2, ["c"], 2), (9, [], 3), (-4, ["a", "b"], 0)]
)
def test_pages_are_clamped(offset: int, items: list[str], shown: int) -> None:
    assert page(["a", "b", "c"], offset, 2) == (items, Paging(3, shown, 2))


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, ZERO_TIME),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_704_067_200_120_000_000, "2024-01-01T00:00:00.12Z"),
        (1_704_067_200_000_000_000, "2024-01-01T00:00:00Z"),
    ],
)
def test_times(ns: int, text: str) -> None:
    assert format_time(ns) == text
    assert parse_time(text) == ns


@given(st.integers(-62_135_596_799 * 10**9, 253_402_300_799 * 10**9).filter(bool))
def test_every_time_comes_back(ns: int) -> None:
    assert parse_time(format_time(ns)) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2024-01-01",
        "2024-13-01T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:00",
        "٢024-01-01T00:00:00Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|month|day|hour|minute|second"):
        parse_time(text)
