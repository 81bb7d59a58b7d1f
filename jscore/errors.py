"""What goes wrong in a log, as exceptions with fields.

Beside these, calls raise ValueError (an argument outside the contract, a closed log), TypeError, TimeoutError, and
OSError for a system call that failed without ending the log. All can be pickled; fields that are not known are None.
"""

from __future__ import annotations


class Error(Exception):
    """What every error of the log engine is."""


class NotFound(Error, LookupError):
    """No such message or record. `seq`: the sequence asked for."""

    def __init__(self, message: str = "", *, seq: int | None = None) -> None:
        super().__init__(message)
        self.seq = seq


class Corrupt(Error):
    """Bytes that were durable once do not verify.

    `seq`: the message that was asked for. `segment`: first index of the segment, its file's name; `offset`: byte in the
    file (or in the image of a packed one) where the damage starts. `first`, `last`: record indexes lost with it;
    `first_seq`, `last_seq`: sequences among them, bounds unless `seqs_exact`.
    """

    def __init__(
        self,
        message: str = "",
        *,
        seq: int | None = None,
        segment: int | None = None,
        offset: int | None = None,
        first: int | None = None,
        last: int | None = None,
        first_seq: int | None = None,
        last_seq: int | None = None,
        seqs_exact: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.seq = seq
        self.segment = segment
        self.offset = offset
        self.first = first
        self.last = last
        self.first_seq = first_seq
        self.last_seq = last_seq
        self.seqs_exact = seqs_exact


class FormatError(Error):
    """The log was written by a version that this one does not know; it was left untouched. `path`: its directory."""

    def __init__(self, message: str = "", *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class Failed(Error):
    """A write or sync failed: the log takes no more writes in this process. `reason`: the OSError that ended it."""

    def __init__(self, message: str = "", *, reason: OSError | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class Full(Error):
    """No space. From a call that appends: nothing was taken. From one that waits: what was taken stays, and goes to the
    disk by itself once there is space."""


class Locked(Error):
    """Another process, or another open log of this one, has the directory. `path`: which."""

    def __init__(self, message: str = "", *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class OrderError(Error):
    """Records that do not follow the log's last one."""


class KeyMissing(Error):
    """The log is encrypted, and the key that a file of it names was not given. `path`: the log's directory."""

    def __init__(self, message: str = "", *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class ReadOnly(Error):
    """The log was opened for reading only."""


class Forked(Error):
    """The log was opened before fork() and this is the child: it must open its own. `path`: the log's directory."""

    def __init__(self, message: str = "", *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path
