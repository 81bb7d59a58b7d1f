"""The directory of the log of terms and votes, and its replacement by a shorter one. Every step is a rename:

hardstate.new   being written: removed at start
hardstate.next  complete and synced: takes the place of hardstate, at start if need be
hardstate.old   replaced: removed
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

NAME = "hardstate"
REWRITE_BYTES = 1 << 20


class NewerFormat(RuntimeError):
    """The log of terms and votes was written by a later version: nothing of it is touched."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"the log of terms and votes is of version {found}, this server knows {known}: it is left as it is"
        )


class NotReplaced(Exception):
    """The shorter log could not be written; the long one is untouched and still open."""


def sync_directory(directory: str) -> None:
    """Makes renames in it durable. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle(directory: str) -> None:
    """Finishes or undoes a replacement that a crash interrupted. Nothing may have the log open. Raises OSError."""
    current, new, following, old = (os.path.join(directory, NAME + end) for end in ("", ".new", ".next", ".old"))
    if os.path.isdir(following):
        if os.path.isdir(current):
            shutil.rmtree(old, ignore_errors=True)
            os.rename(current, old)
        os.rename(following, current)
        sync_directory(directory)
    for rest in (new, old):
        if os.path.isdir(rest):
            shutil.rmtree(rest)


def rewrite(store: Any, directory: str, log: Any, fill: Callable[[Any], None]) -> Any:
    """Replaces `log` by one that holds what `fill` appends to it; returns the new log, open.

    Raises: NotReplaced; jscore.Error, OSError when the switch itself fails. Source: spec/raft.md R-31.
    """
    new = os.path.join(directory, NAME + ".new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        shorter = store.open(new)
        try:
            fill(shorter)
            shorter.close()  # waits until it is on the disk
        except Exception:
            shorter.abandon()
            raise
    except Exception as err:
        raise NotReplaced(str(err)) from err
    log.close()
    os.rename(new, os.path.join(directory, NAME + ".next"))
    sync_directory(directory)
    settle(directory)
    return store.open(os.path.join(directory, NAME))
