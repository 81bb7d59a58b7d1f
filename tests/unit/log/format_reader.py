"""A reader of docs/format.md in plain Python: segments that are not encrypted, records, batches, gaps, packed files.

Slow and strict: every checksum is verified, the first byte that is not as the page says raises ValueError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKED, ENCRYPTED, RECYCLED = 1, 2, 4
DELETE, MESSAGE, LIMITED, GAP, TRAILER = 6, 1, 13, 254, 255


def _table() -> list[int]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        rows.append(value)
    return rows


TABLE = _table()


def crc32c(data: bytes, crc: int = 0) -> int:
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def expect(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(what)


class Head(NamedTuple):
    magic: int
    version: int
    flags: int
    salt: int
    first: int
    prev_term: int
    key_id: int
    base_seq: int
    body: int
    key_check: int
    crc: int


class Record(NamedTuple):
    seq: int  # 0: not a message
    index: int
    kind: int
    ts: int
    subject: bytes
    headers: bytes
    data: bytes


def read_head(file: bytes) -> Head:
    head = Head(*struct.unpack("<QIIQQIIQQII", file[:64]))
    expect(head.magic == 0x3147455343534A and head.version == 2, "not a segment of version 2")
    expect(head.crc == crc32c(file[:60]), "the header's checksum")
    return head


def unpack(file: bytes, head: Head) -> bytes:
    """The image of a packed file whose blocks are stored as they are."""
    footer = file[-48:]
    magic, table_at, count, table_crc = struct.unpack("<QQII", footer[:24])
    expect(magic == 0x314B434150534A, "the footer's magic")
    expect(struct.unpack("<I", footer[44:])[0] == crc32c(file[:64] + footer[:44]), "the footer's checksum")
    table = file[table_at:-48]
    expect(len(table) == 20 * count and crc32c(table) == table_crc, "the table")
    image = bytearray(file[:64])
    for at, size, flags, crc in struct.iter_unpack("<QIII", table):
        block = file[at : at + size]
        expect(crc32c(block) == crc, "a block's checksum")
        if flags & 1:
            raise NotImplementedError("zstd is not plain Python")
        image += block
    expect(len(image) == head.body, "the image's length")
    return bytes(image)


def read_segment(path: Path) -> Iterator[Record]:
    file = path.read_bytes()
    head = read_head(file)
    expect(head.first == int(path.stem, 16), "the name is the first index")
    expect(not head.flags & ENCRYPTED, "encrypted")
    image = unpack(file, head) if head.flags & PACKED else file
    seq, index, at, start, batch = head.base_seq, head.first, 64, 64, b""
    held: list[Record] = []
    while at + 32 <= len(image):
        crc, length, number, ts, _term, subject_n, kind, flags = struct.unpack("<IIQqIHBB", image[at : at + 32])
        if length == 0 or (head.flags & RECYCLED and not held and number < index):
            break  # reserved space, or the file's former life
        raw = image[at : at + length]
        expect(len(raw) == length and crc == crc32c(raw[4:]) and flags in (0, 1), f"the record at byte {at}")
        if kind == TRAILER:
            _durable, commit, salt, begin, count, check = struct.unpack("<QQQQII", raw[32:72])
            expect(salt == head.salt and begin == start, "a trailer of another place")
            expect(count == sum(span for span in (_span(r) for r in held)) and number == index - 1, "a batch's count")
            expect(check == crc32c(raw[32:68], crc32c(batch)), "a batch's checksum")
            expect(commit == seq, "a batch's last sequence")
            yield from held
            start, batch, held = at + length + -length % 8, b"", []
        else:
            expect(number == index, "indexes are dense")
            body = 40 if flags & 1 else 32
            headers_n = struct.unpack("<I", raw[32:36])[0] if flags & 1 else 0
            subject, rest = raw[body : body + subject_n], raw[body + subject_n :]
            batch += raw[:4]
            seq += 1 if kind == MESSAGE else 0
            held.append(
                Record(seq if kind == MESSAGE else 0, number, kind, ts, subject, rest[:headers_n], rest[headers_n:])
            )
            if kind == GAP:
                seq += struct.unpack("<Q", held[-1].data[8:])[0]
            index += _span(held[-1])
        at += length + -length % 8
    expect(not held, "a batch without its trailer")


def _span(record: Record) -> int:
    return struct.unpack("<Q", record.data[:8])[0] - record.index + 1 if record.kind == GAP else 1


def read_log(directory: Path) -> Iterator[Record]:
    """All records of a log that nobody writes to, gaps and control records too."""
    for path in sorted(directory.glob("*.seg")):
        yield from read_segment(path)
