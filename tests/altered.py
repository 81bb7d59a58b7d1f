"""Segments whose records say something else, with every checksum in order (docs/format.md)."""

from __future__ import annotations

import struct
from pathlib import Path

from jscore import crc32c

TRAILER = 255


def rewrite(path: Path, old: bytes, new: bytes) -> int:
    """Changes a payload in a segment, its record's checksum and its batch's (docs/format.md); the record's index."""
    raw = bytearray(path.read_bytes())
    place = raw.index(old)
    sums, changed, at = b"", 0, 64
    while at + 32 <= len(raw) and (size := struct.unpack_from("<I", raw, at + 4)[0]) >= 32:
        trailer = raw[at + 30] == TRAILER
        if at <= place < at + size:
            raw[place : place + len(old)] = new
            changed = struct.unpack_from("<Q", raw, at + 8)[0]
            struct.pack_into("<I", raw, at, crc32c(raw[at + 4 : at + size]))
        if trailer and changed:
            struct.pack_into("<I", raw, at + 32 + 36, crc32c(sums + bytes(raw[at + 32 : at + 68])))
            struct.pack_into("<I", raw, at, crc32c(raw[at + 4 : at + size]))
            path.write_bytes(raw)
            return int(changed)
        sums = b"" if trailer else sums + bytes(raw[at : at + 4])
        at += (size + 7) & ~7
    raise AssertionError(f"{old!r} is in no whole batch of {path}")
