"""A websocket client of a test's own: it sends what it is told to, right or wrong, and takes frames apart."""

from __future__ import annotations

import os
import ssl
import struct
import zlib
from typing import NamedTuple

from harness import Wire

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class Frame(NamedTuple):
    fin: bool
    packed: bool
    opcode: int
    data: bytes


def request(path: str = "/", *more: str, **changed: str | None) -> bytes:
    """An upgrade request; keywords change its headers (underscores for dashes), None leaves one out."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    fields.update({name.replace("_", "-"): value for name, value in changed.items()})
    lines = [
        f"GET {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in fields.items() if value is not None),
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(data: bytes, opcode: int = BINARY, *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    size = len(data)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    if not mask:
        return head + data
    key = os.urandom(4)
    stretched = (key * (size // 4 + 1))[:size]
    return head + key + (int.from_bytes(data, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + b"\0\0\xff\xff")


class Web(Wire):
    """After `upgrade` it counts the payload of data frames as seen; control frames and heads are kept apart."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        super().__init__(port)
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.frames: list[Frame] = []
        self.raw = b""
        self.message = b""

    def ask(self, head: bytes) -> bytes:
        """The HTTP answer, without a body."""
        self.sock.sendall(head)
        while b"\r\n\r\n" not in self.raw:
            piece = self.sock.recv(65536)
            if not piece:
                raise ConnectionError(f"closed before the answer: {self.raw!r}")
            self.raw += piece
        answer, _, self.raw = self.raw.partition(b"\r\n\r\n")
        return answer + b"\r\n"

    def upgrade(self, *more: str, path: str = "/") -> Web:
        answer = self.ask(request(path, *more))
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        assert ACCEPT in answer
        return self

    def put(self, data: bytes) -> None:
        self.send(frame(data))

    def next(self) -> Frame:
        """The next frame. Raises: ConnectionError at the end of the stream."""
        while True:
            if len(self.raw) >= 2:
                size, at = self.raw[1] & 0x7F, 2
                if size == 126 and len(self.raw) >= 4:
                    size, at = struct.unpack(">H", self.raw[2:4])[0], 4
                elif size == 127 and len(self.raw) >= 10:
                    size, at = struct.unpack(">Q", self.raw[2:10])[0], 10
                elif size > 125:
                    size, at = 1 << 62, 0
                assert not self.raw[1] & 0x80, "a server's frames have no mask"
                if len(self.raw) >= at + size:
                    first, data = self.raw[0], self.raw[at : at + size]
                    self.raw = self.raw[at + size :]
                    got = Frame(bool(first & 0x80), bool(first & 0x40), first & 15, data)
                    self.frames.append(got)
                    return got
            piece = self.sock.recv(1 << 20)
            if not piece:
                raise ConnectionError(f"closed; frames {self.frames[-3:]!r}, rest {self.raw[:100]!r}")
            self.raw += piece

    def more(self) -> None:
        """Adds the payload of the next frame of data to what was seen."""
        got = self.next()
        if got.opcode in (0, TEXT, BINARY):
            self.seen += inflated(got.data) if got.packed else got.data

    def until(self, text: bytes) -> bytes:
        """Reads frames until the stream of their payload has the text."""
        while text not in self.seen:
            self.more()
        return self.seen

    def closing(self) -> tuple[int, bytes]:
        """Status and reason of the close frame that comes, and that nothing comes after it."""
        while True:
            got = self.next()
            if got.opcode == CLOSE:
                break
        assert not self.raw
        assert self.sock.recv(1) == b""
        return struct.unpack(">H", got.data[:2])[0] if got.data else 1005, got.data[2:]
