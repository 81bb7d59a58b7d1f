"""What a server is called on the wire."""

from __future__ import annotations

import base64
import binascii

SERVER_PREFIX = 13 << 3  # the nkey prefix byte whose base32 form begins with N


NAME_CHARS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def made_name(random: bytes) -> str:
    """A name for a cluster that was given none: 22 letters and digits."""
    number = int.from_bytes(random, "big")
    return "".join(NAME_CHARS[number // 62**i % 62] for i in range(22))


def server_id(random32: bytes) -> str:
    """A public server nkey in text form from 32 random bytes: prefix, key, CRC16, base32 (56 characters, N...).

    Source: the nkeys format, client-protocol.md section 3.
    """
    if len(random32) != 32:
        raise ValueError(f"32 bytes are needed, not {len(random32)}")
    body = bytes([SERVER_PREFIX]) + random32
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode().rstrip("=")
