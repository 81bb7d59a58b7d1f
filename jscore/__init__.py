"""The log library: durable, checksummed logs of records with dense indexes, many to a store.

>>> store = jscore.Store()
>>> log = store.open("/var/lib/app/orders")
>>> index = log.append(jscore.KIND_MESSAGE, b"...", subject=b"orders.1")
>>> log.submit()
>>> log.wait(index)

A store has one sync thread; a log belongs to one process and one thread. A log or store does not survive fork().
"""

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
    Record,
    RecordLog,
    RecordRecovery,
    Store,
    crc32c,
    scan_records,
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
    "Corrupt",
    "Error",
    "Failed",
    "Forked",
    "FormatError",
    "Full",
    "KeyMissing",
    "Locked",
    "NotFound",
    "OrderError",
    "ReadOnly",
    "Record",
    "RecordLog",
    "RecordRecovery",
    "Store",
    "crc32c",
    "scan_records",
]
