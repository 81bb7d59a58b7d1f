"""The event of a traced message: its words, headers and encodings. Pure. Source: client-protocol.md 16 (ADR-41)."""

from __future__ import annotations

import gzip
import struct
from typing import Any, Final

from jscore import crc32c

CLIENT: Final = 0
ROUTE: Final = 1
SNAPPY_CHUNK = 65536  # bytes that a frame of snappy holds at most

Event = dict[str, Any]


def header_map(headers: bytes) -> dict[str, list[str]]:
    """Names and values as they came, sorted by name; headers without a line end are none."""
    found: dict[str, list[str]] = {}
    for line in headers.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            found.setdefault(name.decode("utf-8", "replace"), []).append(value.strip(b" \t").decode("utf-8", "replace"))
    return dict(sorted(found.items()))


def stream_error(code: int, text: str, headers: dict[str, list[str]]) -> str:
    """Why a stream did not store a message, in a trace's words; `text` is what the publisher hears."""

    def given(name: str) -> str:
        return headers.get(name, [""])[0]

    def number(name: str) -> int:
        value = given(name)
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else 2**64 - 1

    match code:
        case 10071 if "Nats-Expected-Last-Subject-Sequence" in headers:
            last = text.rpartition(" ")[2]
            return f"last sequence by subject mismatch: {number('Nats-Expected-Last-Subject-Sequence')} vs {last}"
        case 10071:
            last = text.rpartition(" ")[2]
            return f"last sequence mismatch: {number('Nats-Expected-Last-Sequence')} vs {last}"
        case 10070:
            return f'last msgid mismatch: "{given("Nats-Expected-Last-Msg-Id")}" vs "{text.rpartition(": ")[2]}"'
        case 10054:
            return "maximum payload exceeded"
        case 10166:
            return "message TTL disabled"
        case 10060 | 10077 | 10111:
            return text
        case _:
            return f"{text} ({code})"


def encoding(headers: dict[str, list[str]]) -> str:
    """The first of those that the message's sender accepts and a trace comes in."""
    for value in headers.get("Accept-Encoding", ()):
        for word in value.split(","):
            if word.strip().lower() in ("gzip", "snappy"):
                return word.strip().lower()
    return ""


def encoded(body: bytes, how: str) -> tuple[bytes, bytes]:
    """(headers, body) of an event in that encoding."""
    if not how:
        return b"", body
    packed = gzip.compress(body, 5, mtime=0) if how == "gzip" else framed(body)
    return f"NATS/1.0\r\nContent-Encoding: {how}\r\n\r\n".encode(), packed


def framed(body: bytes) -> bytes:
    """Snappy's framing format with chunks that are not compressed: every reader of it takes them."""
    out = [b"\xff\x06\x00\x00sNaPpY"]
    for at in range(0, len(body), SNAPPY_CHUNK):
        chunk = body[at : at + SNAPPY_CHUNK]
        sum_ = crc32c(chunk)
        masked = ((sum_ >> 15 | sum_ << 17) + 0xA282EAD8) & 0xFFFFFFFF
        out.append(b"\x01" + (len(chunk) + 4).to_bytes(3, "little") + struct.pack("<I", masked) + chunk)
    return b"".join(out)
