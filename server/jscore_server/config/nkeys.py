"""Nkeys: public keys and seeds as text. Only their form is checked. Pure.

base32 without padding of:  prefix · 32 bytes of key · CRC-16 (XMODEM, little endian) of what precedes
a seed has two prefix bytes: 5 bits "seed" and 5 bits of the public key's prefix, in the upper bits of both
"""

from __future__ import annotations

import base64
import binascii

__all__ = ["public_kind", "seed_kind"]

_PUBLIC = {2 << 3: "C", 13 << 3: "N", 14 << 3: "O", 0: "A", 20 << 3: "U", 23 << 3: "X"}
_SEED = 18 << 3


def _decoded(text: str) -> bytes:
    """The bytes before the checksum; b'' when the text is no nkey."""
    if not 8 <= len(text) <= 120 or not text.isascii():
        return b""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        return b""
    body, check = raw[:-2], int.from_bytes(raw[-2:], "little")
    return body if binascii.crc_hqx(body, 0) == check else b""


def public_kind(text: str) -> str:
    """The letter of a public key's kind (Account, Cluster, Node, Operator, User, X for curve), '' if it is none."""
    body = _decoded(text)
    return _PUBLIC.get(body[0], "") if len(body) == 33 else ""


def seed_kind(text: str) -> str:
    """The letter of the kind of keys that a seed makes, '' if it is none."""
    body = _decoded(text)
    if len(body) != 34 or body[0] & 0xF8 != _SEED:
        return ""
    return _PUBLIC.get((body[0] & 7) << 5 | (body[1] & 0xF8) >> 3, "")
