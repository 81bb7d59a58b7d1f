"""Answers of the system account are compressed when asked, and events have ids of their own."""

from __future__ import annotations

import gzip

import pytest
from jscore_server.system.envelope import compressed, encoding_asked, event_id


@pytest.mark.parametrize(
    ("headers", "encoding"),
    [
        (b"NATS/1.0\r\nAccept-Encoding: gzip\r\n\r\n", "gzip"),
        (b"NATS/1.0\r\naccept-encoding:GZIP\r\n\r\n", "gzip"),
        (b"NATS/1.0\r\nAccept-Encoding: snappy\r\n\r\n", ""),
        (b"NATS/1.0\r\nOther: gzip\r\n\r\n", ""),
        (b"", ""),
    ],
)
def test_the_encoding_is_the_one_asked_for_and_known(headers: bytes, encoding: str) -> None:
    assert encoding_asked(headers) == encoding


def test_a_long_answer_is_packed_and_a_short_one_is_not() -> None:
    body = b"{" + b" " * 1000 + b"}"
    headers, packed = compressed(body, "gzip")
    assert headers == b"NATS/1.0\r\nContent-Encoding: gzip\r\n\r\n"
    assert gzip.decompress(packed) == body
    assert compressed(b"{}", "gzip") == (b"", b"{}")
    assert compressed(body, "") == (b"", body)


def test_event_ids_look_like_nuids() -> None:
    ids = {event_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(found) == 22 and found.isalnum() for found in ids)
