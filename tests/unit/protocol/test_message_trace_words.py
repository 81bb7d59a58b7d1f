"""The words and encodings of message traces."""

from __future__ import annotations

import gzip

import pytest
from jscore_server.protocol.message_trace import encoded, encoding, framed, header_map, stream_error


def test_headers_are_lists_of_values_sorted_by_name() -> None:
    raw = b"NATS/1.0\r\nb: 2\r\nNats-Trace-Dest:  t \r\nb:3\r\nodd\r\n\r\n"
    assert header_map(raw) == {"Nats-Trace-Dest": ["t"], "b": ["2", "3"]}
    assert list(header_map(raw)) == ["Nats-Trace-Dest", "b"]


@pytest.mark.parametrize(
    ("code", "text", "headers", "said"),
    [
        (10060, "expected stream does not match", {}, "expected stream does not match"),
        (10071, "wrong last sequence: 4", {"Nats-Expected-Last-Sequence": ["7"]}, "last sequence mismatch: 7 vs 4"),
        (
            10071,
            "wrong last sequence: 4",
            {"Nats-Expected-Last-Subject-Sequence": ["x"]},
            f"last sequence by subject mismatch: {2**64 - 1} vs 4",
        ),
        (10070, "wrong last msg ID: b", {"Nats-Expected-Last-Msg-Id": ["a"]}, 'last msgid mismatch: "a" vs "b"'),
        (10054, "message size exceeds maximum allowed", {}, "maximum payload exceeded"),
        (10174, "atomic publish is disabled", {}, "atomic publish is disabled (10174)"),
    ],
)
def test_a_stream_says_why(code: int, text: str, headers: dict[str, list[str]], said: str) -> None:
    assert stream_error(code, text, headers) == said


def test_the_first_encoding_that_we_have() -> None:
    assert encoding({}) == encoding({"Accept-Encoding": ["br"]}) == ""
    assert encoding({"Accept-Encoding": ["br, GZIP", "snappy"]}) == "gzip"
    headers, body = encoded(b"x" * 1000, "gzip")
    assert headers == b"NATS/1.0\r\nContent-Encoding: gzip\r\n\r\n"
    assert gzip.decompress(body) == b"x" * 1000
    assert encoded(b"x", "") == (b"", b"x")


def test_snappy_frames_are_as_its_format_says() -> None:
    # The checksum of the example in the format's description of masking: crc32c("123456789") is 0xe3069283.
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    expected = ((rotated + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")
    assert framed(b"123456789") == b"\xff\x06\x00\x00sNaPpY\x01\x0d\x00\x00" + expected + b"123456789"
    assert framed(b"y" * 65537).count(b"\x05\x00\x00") == 1
