"""The store directory's format version, written before anything else lives in it."""

from __future__ import annotations

import json
import os

FORMAT = 1
FILE = "store.json"


class StoreRefused(RuntimeError):
    """The directory is not one this version may touch."""


def open_directory(path: str) -> None:
    """Creates or checks the store directory.

    Raises StoreRefused for a directory of an unknown format (nothing in it is touched) and OSError.
    """
    file = os.path.join(path, FILE)
    try:
        with open(file, encoding="utf-8") as stored:
            found = json.load(stored)
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except FileNotFoundError:
        _create(path, file)
        return
    except ValueError as err:
        raise StoreRefused(f"{file} is damaged ({err}): the store is left untouched") from err
    if found.get("format") != FORMAT:
        raise StoreRefused(
            f"{path} has store format {found.get('format')!r}, this server knows {FORMAT}: it is left untouched"
        )


def _create(path: str, file: str) -> None:
    os.makedirs(path, exist_ok=True)
    strangers = sorted(name for name in os.listdir(path) if not name.startswith(FILE))
    if strangers:
        raise StoreRefused(
            f"{path} holds {strangers[0]!r} but no {FILE}: it is not a store of ours and is left untouched"
        )
    draft = file + ".new"
    with open(draft, "w", encoding="utf-8") as out:
        json.dump({"format": FORMAT}, out)
        out.flush()
        os.fsync(out.fileno())
    os.rename(draft, file)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
