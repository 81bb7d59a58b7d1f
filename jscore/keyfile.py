"""Files with keys of encryption at rest: lines of an id and 64 hexadecimal digits; empty lines and # comments are
skipped."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

KEY_BYTES = 32


def read_keys(path: str | PathLike[str]) -> dict[int, bytes]:
    """The keys by id. Raises: OSError, ValueError, which quotes no line, as it could be a key."""
    keys: dict[int, bytes] = {}
    for number, line in enumerate(Path(path).read_text("ascii", "replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            key_id, key = int(words[0]), bytes.fromhex(words[1])
        except (ValueError, IndexError):
            raise ValueError(f"{path}:{number}: expected an id and {KEY_BYTES * 2} hexadecimal digits") from None
        if len(words) != 2 or len(key) != KEY_BYTES or not 0 < key_id < 1 << 32 or key_id in keys:
            raise ValueError(f"{path}:{number}: expected a new id from 1 and {KEY_BYTES * 2} hexadecimal digits")
        keys[key_id] = key
    if not keys:
        raise ValueError(f"{path}: no key in it")
    return keys
