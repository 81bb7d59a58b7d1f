"""The server's log, line for line in nats-server's format: `[pid] 2026/11/24 01:02:03.123456 [INF] text`."""

from __future__ import annotations

import os
import sys
import time

from jscore_server.syslog import Syslog

__all__ = ["Log"]

_COLOURS = {"INF": 32, "DBG": 36, "WRN": 33, "ERR": 31, "FTL": 31, "TRC": 33}


class Log:
    """Writes lines to standard error or to a file.

    Every line is one write(2): the kernel buffers it, a crash of the process loses none, and lines of several writers
    to one file do not mix. A failed write (a full disk, a closed pipe) is counted in `lost` and never raised: the
    server outlives its log. Check `debug_on` or `trace_on` before building a costly text.
    """

    __slots__ = ("_backups", "_colour", "_fd", "_limit", "_path", "_pid", "_second", "_size", "_stamp", "_syslog",
                 "_time", "_utc", "debug_on", "lost", "trace_on")  # fmt: skip

    def __init__(
        self,
        path: str = "",
        *,
        debug: bool = False,
        trace: bool = False,
        logtime: bool = True,
        logtime_utc: bool = False,
        size_limit: int = 0,
        max_num: int = 0,
        syslog: Syslog | None = None,
    ) -> None:
        """`path` '' = standard error. `size_limit` bytes, above which the file is renamed and a new one begins (0: no);
        `max_num` files are kept then, the current one included (0: all). Raises: OSError: it cannot be opened.
        """
        self.debug_on = debug
        self.trace_on = trace
        self.lost = 0
        self._path = path
        self._limit = size_limit
        self._backups = max_num
        self._time = logtime
        self._utc = logtime_utc
        self._pid = f"[{os.getpid()}] "
        self._second = -1
        self._stamp = ""
        self._size = 0
        self._syslog = syslog
        if path:
            self._fd = self._open()
            self._colour = False
        else:
            self._fd = 2
            self._colour = sys.stderr is not None and os.isatty(2)

    def info(self, text: str) -> None:
        self._line("INF", text)

    notice = info

    def warn(self, text: str) -> None:
        self._line("WRN", text)

    def error(self, text: str) -> None:
        self._line("ERR", text)

    def fatal(self, text: str) -> None:
        """Only writes: ending the process is the caller's."""
        self._line("FTL", text)

    def debug(self, text: str) -> None:
        if self.debug_on:
            self._line("DBG", text)

    def trace(self, text: str) -> None:
        if self.trace_on:
            self._line("TRC", text)

    def configure(self, path: str, *, debug: bool, trace: bool, logtime: bool, logtime_utc: bool) -> None:
        """Other settings from now on; the bounds of files stay. Raises: OSError: the file cannot be opened."""
        if path != self._path:
            before = self._path, self._fd
            self._path = path
            try:
                self._fd = self._open() if path else 2
            except OSError:
                self._path = before[0]
                raise
            if before[0]:
                os.close(before[1])
            self._colour = not path and sys.stderr is not None and os.isatty(2)
        self.debug_on, self.trace_on = debug, trace
        self._time, self._utc = logtime, logtime_utc
        self._second = -1

    def send_to(self, syslog: Syslog | None) -> None:
        """Where lines go from now on when they go to no file; None: to standard error."""
        if self._syslog is not None:
            self._syslog.close()
        self._syslog = syslog

    def reopen(self) -> None:
        """Opens the file anew after a rotation from outside (SIGUSR1). Raises: OSError; the old file stays in use."""
        if self._path:
            old, self._fd = self._fd, self._open()
            os.close(old)
            self.info("File log re-opened")

    def close(self) -> None:
        """Closes the file; later lines go to standard error."""
        self.send_to(None)
        if self._path:
            os.close(self._fd)
            self._fd = 2
            self._path = ""

    def _open(self) -> int:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(fd).st_size
        return fd

    def _line(self, level: str, text: str) -> None:
        label = f"[\x1b[{_COLOURS[level]}m{level}\x1b[0m]" if self._colour else f"[{level}]"
        if "\n" in text or "\r" in text:
            # Names come from clients: a line end in one must not forge a line.
            text = text.replace("\r", "\\r").replace("\n", "\\n")
        if self._syslog is not None and not self._path:
            self.lost += not self._syslog.line(level, text)
            return
        line = f"{self._pid}{self._clock() if self._time else ''}{label} {text}\n".encode("utf-8", "backslashreplace")
        self._write(line)
        if self._limit and self._path and self._size > self._limit:
            self._rotate()

    def _write(self, line: bytes) -> None:
        try:
            while line:
                n = os.write(self._fd, line)
                self._size += n
                line = line[n:]
        except OSError:
            self.lost += 1

    def _clock(self) -> str:
        second, micro = divmod(time.time_ns() // 1000, 1_000_000)
        if second != self._second:
            parts = time.gmtime(second) if self._utc else time.localtime(second)
            self._second, self._stamp = second, time.strftime("%Y/%m/%d %H:%M:%S", parts)
        return f"{self._stamp}.{micro:06d} "

    def _rotate(self) -> None:
        now = time.time_ns()
        stamp = time.strftime("%Y.%m.%d.%H.%M.%S", time.localtime(now // 1_000_000_000))
        backup = f"{self._path}.{stamp}.{now % 1_000_000_000:09d}"
        try:
            os.rename(self._path, backup)
            old, self._fd = self._fd, self._open()
            os.close(old)
        except OSError as err:
            self._limit = 0
            self.error(f"Unable to rotate the log, its size is not limited any more: {err}")
            return
        limit, self._limit = self._limit, 0  # these lines must not rotate again
        self.info(f'Rotated log, backup saved as "{backup}"')
        if self._backups:
            self._purge()
        self._limit = limit

    def _purge(self) -> None:
        folder, base = os.path.split(self._path)
        try:
            backups = sorted(n for n in os.listdir(folder or ".") if n.startswith(base + ".") and _is_stamp(n, base))
            for name in backups[: max(0, len(backups) - (self._backups - 1))]:
                os.unlink(os.path.join(folder, name))
                self.info(f'Purged log file "{os.path.join(folder, name)}"')
        except OSError as err:
            self.error(f"Unable to purge old logs: {err}")


def _is_stamp(name: str, base: str) -> bool:
    parts = name[len(base) + 1 :].split(".")
    return len(parts) == 7 and all(part.isdigit() for part in parts)
