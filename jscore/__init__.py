"""The log library: a durable log of messages in a directory.

>>> with jscore.open("/var/lib/app/orders") as log:
...     seq = log.append(b"...", "orders.1.new")
...     bytes(log[seq])
...     log.subject("orders.*.new").last()

append() returns when the message is on the disk. Readers in other processes open the directory with mode "r".
jscore.aio is the same for asyncio; the command `jscore` looks after directories.

Threads: any thread may call any method of a log; an iterator is one thread's at a time. Fork: the parent goes on, in
the child every call on what it inherited raises Forked. A log open for writing has its directory for itself.

Below it is the log of records that replicated logs are made of: Store and RecordLog, where a record has an index, a
term and a kind, one thread owns a log, and many logs share a thread that syncs.
"""

import os as _os

from jscore._log import Filter, Keys, Log, Message, Messages, Selection, open
from jscore._records import (
    KIND_CONFIG,
    KIND_CONSUMER_CREATE,
    KIND_CONSUMER_DELETE,
    KIND_CONSUMER_STATE,
    KIND_DELETE,
    KIND_HOST,
    KIND_MEMBERS,
    KIND_MESSAGE,
    KIND_NOOP,
    KIND_PURGE,
    Disk,
    KillDisk,
    Record,
    RecordLog,
    RecordRecovery,
    SimDisk,
    SnapshotHead,
    Store,
    crc32c,
    scan_records,
    snapshot_file,
    snapshot_head,
)
from jscore.errors import (
    Corrupt,
    Error,
    Failed,
    Forked,
    FormatError,
    Full,
    KeyMissing,
    Locked,
    NotFound,
    OrderError,
    ReadOnly,
)
from jscore.report import Damage, Finding, Limits, Recovery, Stats, SubjectInfo
from jscore.views import Columns, Follow, RangeView


def get_include() -> str:
    """The directory of the C headers that Cython modules which cimport jscore are compiled with."""
    here = _os.path.dirname(_os.path.abspath(__file__))
    installed = _os.path.join(here, "include")
    return installed if _os.path.isdir(installed) else _os.path.join(_os.path.dirname(here), "csrc")


__all__ = [
    "KIND_CONFIG",
    "KIND_CONSUMER_CREATE",
    "KIND_CONSUMER_DELETE",
    "KIND_CONSUMER_STATE",
    "KIND_DELETE",
    "KIND_HOST",
    "KIND_MEMBERS",
    "KIND_MESSAGE",
    "KIND_NOOP",
    "KIND_PURGE",
    "Columns",
    "Corrupt",
    "Damage",
    "Disk",
    "Error",
    "Failed",
    "Filter",
    "Finding",
    "Follow",
    "Forked",
    "FormatError",
    "Full",
    "KeyMissing",
    "Keys",
    "KillDisk",
    "Limits",
    "Locked",
    "Log",
    "Message",
    "Messages",
    "NotFound",
    "OrderError",
    "RangeView",
    "ReadOnly",
    "Record",
    "RecordLog",
    "RecordRecovery",
    "Recovery",
    "Selection",
    "SimDisk",
    "SnapshotHead",
    "Stats",
    "Store",
    "SubjectInfo",
    "crc32c",
    "get_include",
    "open",
    "scan_records",
    "snapshot_file",
    "snapshot_head",
]
