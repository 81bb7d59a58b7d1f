"""Hostile and unusual request bodies."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jscore_server.jetstream.decode import MAX_BODY_BYTES, decode_json, must_be_empty, must_not_be_empty, optional_body
from jscore_server.jetstream.errors import ApiError
from jscore_server.jetstream.models import (
    CreateConsumerRequest,
    MsgGetRequest,
    PurgeRequest,
    StreamConfigRequest,
    encode,
)

T = TypeVar("T", bound=msgspec.Struct)


def refused(body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        decode_json(body, StreamConfigRequest)
    assert caught.value.err_code == 10025
    return caught.value.description


def outcome(body: bytes, model: type[T], strict: bool = True) -> T | dict[str, Any]:
    """The request, or the error as it goes out; anything else fails the test."""
    try:
        return decode_json(body, model, strict=strict)
    except ApiError as err:
        return err.to_dict()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"name":' * 100_000,
        b'{"a":"' + b"[" * 100_000,
        b'{"subjects":' + b"[" * 65 + b"]" * 65 + b"}",
        b'"' * 100_001,
        b"\\" * 100_000,
        b'{"max_msgs":' + b"9" * 100_000 + b"}",
        b'{"max_msgs":1e' + b"9" * 10_000 + b"}",
        b'{"name":"' + b"a" * MAX_BODY_BYTES,
        b"\xff\xfe",
        b'"' + b'\\"' * 500_000,
        b"{" + b'"a":1,' * 10_000,
        '{"max_msgs":٣}'.encode(),
    ],
    ids=range(13),
)
def test_hostile_bodies_are_refused_with_a_short_text(body: bytes) -> None:
    assert len(refused(body)) < 400


def test_a_long_unknown_key_does_not_come_back_whole() -> None:
    assert len(refused(b'{"%s":1}' % (b"k" * 100_000))) < 400


def test_brackets_inside_strings_are_not_nesting() -> None:
    assert decode_json(b'{"description":"%s"}' % (b"[{" * 500), StreamConfigRequest).description == "[{" * 500


@given(st.binary(max_size=200))
def test_any_bytes_give_a_request_or_an_api_error(body: bytes) -> None:
    for model in (StreamConfigRequest, CreateConsumerRequest, MsgGetRequest):
        for strict in (True, False):
            encode(outcome(body, model, strict))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(StreamConfigRequest.__struct_fields__), VALUES, max_size=4))
def test_any_value_in_a_known_field_is_taken_or_refused(value: dict[str, object]) -> None:
    got = outcome(json.dumps(value).encode(), StreamConfigRequest)
    if isinstance(got, StreamConfigRequest):
        assert decode_json(encode(got), StreamConfigRequest) == got
    else:
        assert got["err_code"] == 10025


def test_unknown_fields_pass_when_lenient() -> None:
    got = decode_json(b'{"seq":3,"foo":{"bar":[1,{}]}}', MsgGetRequest, strict=False)
    assert got.seq == 3


def test_an_unknown_field_is_named() -> None:
    assert refused(b'{"foo":1}') == 'invalid JSON: json: unknown field "foo"'


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    assert decode_json(b'{"description":"\\ud800x"}', StreamConfigRequest).description == "\ufffdx"


def test_times_are_normalised_to_utc() -> None:
    body = b'{"start_time":"2024-01-01T02:00:00.500+02:00"}'
    assert decode_json(body, MsgGetRequest).start_time == "2024-01-01T00:00:00.5Z"


def test_an_optional_body_counts_only_when_it_looks_like_one() -> None:
    assert optional_body(b"garbage", PurgeRequest) == PurgeRequest()
    assert optional_body(b"", PurgeRequest) == PurgeRequest()
    assert optional_body(b' \n{"keep":2}', PurgeRequest).keep == 2
    with pytest.raises(ApiError):
        optional_body(b"{garbage", PurgeRequest)


@pytest.mark.parametrize(
    ("body", "empty"), [(b"", True), (b" {\n} ", True), (b"{}", True), (b'{"a":1}', False), (b"x", False)]
)
def test_bodies_that_must_or_must_not_be_there(body: bytes, empty: bool) -> None:
    for check, number, fails in ((must_be_empty, 10038, not empty), (must_not_be_empty, 10003, empty)):
        if fails:
            with pytest.raises(ApiError) as caught:
                check(body)
            assert caught.value.err_code == number
        else:
            check(body)
