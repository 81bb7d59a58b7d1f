"""Where logs go that no stream has any more: `lost+found` in the store directory.

What a committed deletion, or a committed change of a stream's replicas, put there is erased after a while, one file at
a time, and soon where the disk is nearly full; what is there for another reason stays until somebody looks at it.
Source: spec/clustering.md §6, last row.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jscore_server.jetstream.engine import JetStream

FOLDER = "lost+found"
DELETED = ".deleted"  # ends the name of what is erased; before it, behind a dot, when it came, unix ns
KEEP_NS = 300_000_000_000
PRESSED_BYTES = 64 << 20  # with less space than that left, nothing is kept: who deletes a stream then wants its space
LOOK_S = 10.0
SOON_S = 0.5
NEXT_S = 0.02  # between two files


class Graves:
    """The folder of one server."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine
        self._folder = os.path.join(engine.options.directory, FOLDER)
        self._refused = ""  # said once
        self._turn = 0

    def start(self) -> None:
        self._look_after(LOOK_S)

    def _look_after(self, seconds: float) -> None:
        self._turn += 1
        turn = self._turn  # whatever was to come before does not
        self._engine.after(seconds, lambda: self._look() if turn == self._turn else None)

    def place(self, name: str, *, deleted: bool) -> str:
        """A path for a directory to be renamed to, in a folder that may not be there yet. `deleted`: erased later."""
        if deleted:
            self._look_after(SOON_S)
        return os.path.join(self._folder, f"{name}.{self._engine.clock()}{DELETED if deleted else ''}")

    def _look(self) -> None:
        again = LOOK_S
        try:
            if any(self._erase_some(path) for path in self._due()):
                again = NEXT_S
        except OSError as err:
            again = LOOK_S
            if str(err) != self._refused:
                self._refused = str(err)
                self._engine.lines.warn(f"{self._folder}: {err}")
        self._look_after(again)

    def _due(self) -> list[str]:
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        disk = os.statvfs(self._folder)
        keep = KEEP_NS if disk.f_bavail * disk.f_frsize >= PRESSED_BYTES else 0
        now, due = self._engine.clock(), []
        for name in names:
            came = name.removesuffix(DELETED).rpartition(".")[2]
            if name.endswith(DELETED) and came.isdecimal() and now - int(came) >= keep:
                due.append(os.path.join(self._folder, name))
        return due

    def _erase_some(self, path: str) -> bool:
        """One file, or the directory once it is empty. False: there is something in it that is no log's; it stays."""
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    return True
                if not os.listdir(entry.path):
                    os.rmdir(entry.path)
                    return True
        try:
            os.rmdir(path)
        except OSError:
            return False
        return True
