"""What a server is called on the wire."""

from __future__ import annotations

import base64
import binascii

SERVER_PREFIX = 13 << 3  # the nkey prefix byte whose base32 form begins with N


BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def made_name(random: bytes) -> str:
    """22 letters and digits of 16 random bytes, as a NUID has: a cluster's name that was given none, an event's id."""
    number = int.from_bytes(random, "big")
    return "".join(BASE62[number // 62**i % 62] for i in range(22))


def server_id(random32: bytes) -> str:
    """A public server nkey in text form from 32 random bytes: prefix, key, CRC16, base32 (56 characters, N...).

    Source: the nkeys format, client-protocol.md section 3.
    """
    if len(random32) != 32:
        raise ValueError(f"32 bytes are needed, not {len(random32)}")
    body = bytes([SERVER_PREFIX]) + random32
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode().rstrip("=")
