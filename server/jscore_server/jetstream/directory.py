"""The store directory: its format version and identity, written before anything else lives in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

FORMAT = 1
FILE = "store.json"


class StoreRefused(RuntimeError):
    """The directory is not one this version may touch."""


def open_directory(path: str, random_bytes: Callable[[int], bytes]) -> str:
    """Creates or checks the store directory; returns its directory id, 32 hex digits drawn once per directory.

    Raises StoreRefused for a directory of an unknown format (nothing in it is touched) and OSError.
    Source: raft.md R-2.
    """
    file = os.path.join(path, FILE)
    try:
        with open(file, encoding="utf-8") as stored:
            found = json.load(stored)
        if not isinstance(found, dict) or not isinstance(found.get("directory"), str):
            raise ValueError("not a store's identity")
    except FileNotFoundError:
        return _create(path, file, random_bytes)
    except ValueError as err:
        raise StoreRefused(f"{file} is damaged ({err}): the store is left untouched") from err
    if found.get("format") != FORMAT:
        raise StoreRefused(
            f"{path} has store format {found.get('format')!r}, this server knows {FORMAT}: it is left untouched"
        )
    return str(found["directory"])


def _create(path: str, file: str, random_bytes: Callable[[int], bytes]) -> str:
    os.makedirs(path, exist_ok=True)
    strangers = [name for name in os.listdir(path) if not name.startswith(FILE)]
    if strangers:
        raise StoreRefused(f"{path} holds {sorted(strangers)[0]!r} but no {FILE}: it is not a store of ours and is left untouched")
    directory = random_bytes(16).hex()
    draft = file + ".new"
    with open(draft, "w", encoding="utf-8") as out:
        json.dump({"format": FORMAT, "directory": directory}, out)
        out.flush()
        os.fsync(out.fileno())
    os.rename(draft, file)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return directory
