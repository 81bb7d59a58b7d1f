"""The store directory's format version, written before anything else lives in it.

Kept twice, each with a checksum: what rots in one is written again from the other, and a flipped digit is no other
format.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

from jscore_server.raft.hardlog import sync_directory

FORMAT = 1
FILE = "store.json"
COPY = "store.json.copy"


class StoreRefused(RuntimeError):
    """The directory is not one this version may touch."""


def open_directory(path: str) -> None:
    """Creates or checks the store directory.

    Raises StoreRefused for a directory of an unknown format (nothing in it is touched) and OSError.
    """
    formats: dict[str, Any] = {}
    damage = ""
    for name in (FILE, COPY):
        file = os.path.join(path, name)
        try:
            formats[name] = _read(file)
        except FileNotFoundError:
            continue
        except ValueError as err:
            damage = damage or f"{file} is damaged ({err}): the store is left untouched"
    if not formats:
        if damage:
            raise StoreRefused(damage)
        _create(path)
        return
    for found in formats.values():
        if found != FORMAT:
            raise StoreRefused(f"{path} has store format {found!r}, this server knows {FORMAT}: it is left untouched")
    for name in (FILE, COPY):
        if name not in formats:
            _write(path, name)


def _check(version: object) -> int:
    return zlib.crc32(f"store format {version}".encode())


def _read(file: str) -> object:
    """The format a file names. Raises: ValueError, OSError."""
    with open(file, encoding="utf-8") as stored:
        found = json.load(stored)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    version = found.get("format")
    if "check" in found and found["check"] != _check(version):
        raise ValueError("its checksum is wrong")
    return version


def _create(path: str) -> None:
    os.makedirs(path, exist_ok=True)
    strangers = sorted(name for name in os.listdir(path) if not name.startswith(FILE))
    if strangers:
        raise StoreRefused(
            f"{path} holds {strangers[0]!r} but no {FILE}: it is not a store of ours and is left untouched"
        )
    _write(path, COPY)
    _write(path, FILE)


def _write(path: str, name: str) -> None:
    file = os.path.join(path, name)
    draft = file + ".new"
    with open(draft, "w", encoding="utf-8") as out:
        json.dump({"format": FORMAT, "check": _check(FORMAT)}, out)
        out.flush()
        os.fsync(out.fileno())
    os.rename(draft, file)
    sync_directory(path)
