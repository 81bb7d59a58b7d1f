# cython: language_level=3, boundscheck=False, wraparound=False
"""The window onto csrc/log/jsc.h, logs of records by index: unpack, call, check, wrap."""
import os
from errno import ETIMEDOUT
from typing import NamedTuple

cimport cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from jscore.errors import Corrupt, Error, Failed, FormatError, Full, KeyMissing, Locked, NotFound, OrderError, ReadOnly

KIND_MESSAGE = JSC_K_MESSAGE
KIND_NOOP = JSC_K_NOOP
KIND_CONFIG = JSC_K_CONFIG
KIND_MEMBERS = JSC_K_MEMBERS
KIND_PURGE = JSC_K_PURGE
KIND_DELETE = JSC_K_DELETE
KIND_CONSUMER_CREATE = JSC_K_CONSUMER_CREATE
KIND_CONSUMER_DELETE = JSC_K_CONSUMER_DELETE
KIND_CONSUMER_STATE = JSC_K_CONSUMER_STATE
KIND_HOST = JSC_K_HOST


class RecordRecovery(NamedTuple):
    """What opening a log found: bytes cut from a torn tail, the first damaged index (0: none), the commit index as
    last remembered, and a sentence for the operator when torn or damaged."""

    torn_bytes: int
    damaged_index: int
    commit: int
    message: str


class Record(NamedTuple):
    """One record, copied out of the log. `ts` is unix time in ns. Source: docs/format.md#record."""

    index: int
    ts: int
    term: int
    kind: int
    subject: bytes
    headers: bytes
    data: bytes


class SnapshotHead(NamedTuple):
    """What a snapshot file says of itself: the last record whose effect is in it, the first that is still needed, the
    term of the one and of the record before the other. Source: docs/format.md#snapshot."""

    index: int
    first: int
    term: int
    before: int


cdef int check(int rc) except -1:
    """The one place where a code becomes an exception."""
    if rc == JSC_OK:
        return 0
    if rc == JSC_ENOTFOUND:
        raise NotFound("no such record")
    if rc == JSC_ECORRUPT:
        raise Corrupt("bytes do not verify")
    if rc == JSC_EFORMAT:
        raise FormatError("unknown format version")
    if rc == JSC_EINVAL:
        raise ValueError("argument outside the contract of the log")
    if rc == JSC_EFAILED:
        raise Failed("an earlier write or sync failed; the log is read-only")
    if rc == JSC_EFULL:
        raise Full("no space for the record")
    if rc == JSC_ELOCKED:
        raise Locked("the directory is in use")
    if rc == JSC_EKEY:
        raise KeyMissing("encrypted, and the key it names is not at hand")
    if rc == JSC_EREADONLY:
        raise ReadOnly("the log was opened for reading only")
    if rc == JSC_EORDER:
        raise OrderError("records do not follow the log's last one")
    if rc == -ETIMEDOUT:
        raise TimeoutError("not durable in time")
    raise OSError(-rc, os.strerror(-rc))


def crc32c(const uint8_t[::1] data not None, uint32_t start=0) -> int:
    """CRC32C (Castagnoli) of `data`, continuing from `start`."""
    if data.shape[0] == 0:
        return start
    return jsc_crc32c(start, &data[0], data.shape[0])


def scan_records(raw) -> list:
    """Runs of equal term in a run of raw records: [(first_index, term, count)].

    Verifies each record and that indexes are dense. Raises: Corrupt.
    """
    if type(raw) is bytes:  # to ask for a view takes longer than a small record does
        return scan(<const uint8_t *>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
    cdef const uint8_t[::1] view = memoryview(raw)
    return scan(&view[0], view.shape[0]) if view.shape[0] else []


cdef list scan(const uint8_t *raw, size_t n):
    cdef size_t at = 0, used = 0
    cdef jsc_record r
    cdef uint64_t expected = 0, first = 0, count = 0
    cdef uint32_t term = 0
    runs = []
    while at < n:
        check(jsc_record_decode(&raw[at], n - at, &r, &used))
        if r.kind == JSC_K_TRAILER or (at and r.index != expected):
            raise Corrupt("records are not dense")
        if at and r.term == term:
            count += 1
        else:
            if at:
                runs.append((first, term, count))
            first, term, count = r.index, r.term, 1
        expected = r.index + 1
        at += used
    if count:
        runs.append((first, term, count))
    return runs


def snapshot_head(const uint8_t[::1] data not None) -> SnapshotHead:
    """The head of a snapshot file, verified to its last byte. Raises: Corrupt, FormatError."""
    cdef jsc_snapshot_head h
    check(jsc_snapshot_check(&data[0] if data.shape[0] else NULL, data.shape[0], &h))
    return SnapshotHead(h.index, h.first, h.term, h.before)


def snapshot_file(uint64_t index, uint64_t first, uint32_t term, uint32_t before, const uint8_t[::1] body not None):
    """A snapshot file with that head and body: the reverse of snapshot_head. Source: docs/format.md#snapshot."""
    cdef jsc_snapshot_head h
    cdef size_t n = body.shape[0]
    cdef bytearray file = bytearray(JSC_SNAPSHOT_HEAD + n)
    cdef uint8_t *p = file
    h.index, h.first, h.term, h.before = index, first, term, before
    if n:
        memcpy(p + JSC_SNAPSHOT_HEAD, &body[0], n)
    jsc_snapshot_seal(p, JSC_SNAPSHOT_HEAD + n, &h)
    return bytes(file)


cdef class Disk:
    """What stands in for the machine's files, for tests: base of SimDisk and KillDisk."""


cdef class SimDisk(Disk):
    """For tests: a disk in memory that forgets, tears, fails and rots on demand. Source: csrc/base/jsc_vfs.h."""

    def __cinit__(self, uint64_t seed):
        self.sim = jsc_sim_new(seed)
        if self.sim == NULL:
            raise MemoryError()
        self.vfs = jsc_sim_vfs(self.sim)

    def __dealloc__(self):
        jsc_sim_free(self.sim)

    def crash(self, int keep_percent, bint torn) -> None:
        """Cuts the power; every log on it must have been abandoned or closed before."""
        jsc_sim_crash(self.sim, keep_percent, torn)

    def fail(self, str op, int n, int err) -> None:
        """The n-th call from now of op fails with errno `err`; 0 takes it back.

        Operations: 'w' write, 's' sync, 'r' read, 'a' allocate, and the others that jsc_vfs.h names.
        """
        jsc_sim_fail(self.sim, one_letter(op), n, err)

    def die(self, int n, int err) -> None:
        """The n-th call from now, and all behind it, fail with errno `err`; 0: it lives."""
        jsc_sim_die(self.sim, n, err)

    def capacity(self, uint64_t size) -> None:
        """Bytes that all files may take, in whole pages."""
        jsc_sim_capacity(self.sim, size)

    def used(self) -> int:
        """Bytes that all files take."""
        return jsc_sim_used(self.sim)

    def habits(self, int short_percent, int drop_percent) -> None:
        """Chances that a write is short, and that a sync that fails drops a page."""
        jsc_sim_habits(self.sim, short_percent, drop_percent)

    def calls(self, str op="") -> int:
        """Calls so far of an operation; "": of all."""
        return jsc_sim_calls(self.sim, one_letter(op) if op else 0)

    def flip(self, str path, uint64_t offset, int bit) -> None:
        """Flips one bit at rest."""
        check(jsc_sim_flip(self.sim, os.fsencode(path), offset, bit))

    def patch(self, str path, uint64_t offset, const uint8_t[::1] data not None) -> None:
        """Replaces bytes at rest."""
        if data.shape[0]:
            check(jsc_sim_patch(self.sim, os.fsencode(path), offset, &data[0], data.shape[0]))

    def resize(self, str path, uint64_t size) -> None:
        """Cuts or lengthens a file at rest."""
        check(jsc_sim_resize(self.sim, os.fsencode(path), size))

    def remove(self, str path) -> None:
        """Removes a file for good."""
        check(self.vfs.unlink(self.vfs.self, os.fsencode(path)))
        check(self.vfs.syncdir(self.vfs.self, os.fsencode(os.path.dirname(path))))

    def bad(self, str path, uint64_t lo, uint64_t hi) -> None:
        """Reading any byte of [lo, hi) fails; lo == hi: of none."""
        check(jsc_sim_bad(self.sim, os.fsencode(path), lo, hi))

    def read(self, str path) -> bytes:
        """A file's bytes as readers see them."""
        cdef bytes name = os.fsencode(path)
        cdef int64_t n = jsc_sim_size(self.sim, name)
        if n < 0:
            check(<int>n)
        cdef bytearray room = bytearray(n)
        cdef char *to = room
        n = jsc_sim_read(self.sim, name, 0, to, n)
        if n < 0:
            check(<int>n)
        return PyBytes_FromStringAndSize(to, n)

    def list(self, str path) -> list:
        """Names in a directory, sorted."""
        cdef list names = []
        cdef int rc = self.vfs.list(self.vfs.self, os.fsencode(path), add_name, <void *>names)
        if rc < 0:
            check(rc)
        return sorted(names)

    def synced(self, str path) -> int:
        """Bytes of the file that a power cut now would leave."""
        cdef int64_t n = jsc_sim_synced(self.sim, os.fsencode(path))
        if n < 0:
            check(<int>n)
        return n


cdef class KillDisk(Disk):
    """For tests: the machine's files, and at the n-th call to them (n 0: never) this process is killed: "before" the
    call is done, "after" it, or in the "middle" of the n-th write."""

    def __cinit__(self, uint64_t n=0, str when="before"):
        self.kill = jsc_kill_new(jsc_vfs_posix(), n, ("before", "middle", "after").index(when))
        if self.kill == NULL:
            raise MemoryError()
        self.vfs = jsc_kill_vfs(self.kill)

    def __dealloc__(self):
        jsc_kill_free(self.kill)

    def calls(self, str op="") -> int:
        """Calls so far of an operation; "": of all."""
        return jsc_kill_calls(self.kill, one_letter(op) if op else 0)


cdef int one_letter(str op) except -1:
    if len(op) != 1:
        raise ValueError("op is one letter")
    return ord(op)


cdef void add_name(void *ctx, const char *name) noexcept with gil:
    (<list>ctx).append(os.fsdecode(name))


# No gc clear: a collected cycle of a store and its logs is broken at the dict between them, so each log goes while its
# store, and the store while its disk, is still whole.
@cython.no_gc_clear
cdef class Store:
    """One sync thread and one eventfd over any number of logs.

    `sync`: "always" (durable = synced; one sync covers all that came meanwhile), "never", or seconds between syncs
    (durable = written to the file system). `hands`: so many threads more sync where many logs wait. Raises: ValueError,
    OSError.
    """

    def __cinit__(self, sync="always", *, disk=None, int hands=0):
        cdef int mode = JSC_SYNC_ALWAYS
        cdef int64_t interval_ns = 0
        cdef const jsc_vfs *vfs = jsc_vfs_posix()
        self.logs = {}
        if sync == "never":
            mode = JSC_SYNC_NEVER
        elif sync != "always":
            if isinstance(sync, (str, bytes)) or sync <= 0:
                raise ValueError('sync is "always", "never" or seconds above 0')
            mode = JSC_SYNC_INTERVAL
            interval_ns = int(sync * 1_000_000_000)
        if disk is not None:
            vfs = (<Disk?>disk).vfs
            self.disk = disk
        check(jsc_store_open(vfs, mode, interval_ns, &self.handle))
        check(jsc_store_hands(self.handle, hands))

    cdef jsc_store *live(self) except NULL:
        if self.handle == NULL:
            raise ValueError("the store is closed")
        return self.handle

    def fileno(self) -> int:
        """The eventfd: readable whenever some log's durable index moved or a log failed, until poll()."""
        return jsc_store_eventfd(self.live())

    def poll(self) -> list:
        """The logs whose `durable` moved or that failed since the last call."""
        cdef jsc_log *found[64]
        cdef int n = 64, i
        cdef jsc_store *store = self.live()
        logs = []
        while n == 64:
            n = jsc_store_poll(store, found, 64)
            for i in range(n):
                log = self.logs.get(<size_t>found[i])
                if log is not None:
                    logs.append(log)
        return logs

    def relax(self) -> None:
        """Logs not written to since the last call give back memory and descriptors until they are written to again."""
        jsc_store_relax(self.live())

    def open(self, path, *, uint64_t segment_bytes=0, uint64_t first_index=0, uint32_t first_term=0,
             uint64_t keep=0) -> RecordLog:
        """Opens or creates the log in directory `path` (its parent exists), reading all of it.

        segment_bytes 0: 64 MiB. first_index: of a new log; first_term: of the record before it. keep: segments that
        hold only records below it are removed. Raises: Locked, FormatError, Corrupt, OSError.
        """
        cdef jsc_store *store = self.live()
        cdef jsc_log_options options
        cdef jsc_log_recovery found
        cdef bytes name = os.fsencode(path)
        cdef const char *directory = PyBytes_AS_STRING(name)
        cdef RecordLog log = RecordLog.__new__(RecordLog)
        cdef int rc
        memset(&options, 0, sizeof(options))
        memset(&found, 0, sizeof(found))
        options.segment_bytes = segment_bytes
        options.first_index = first_index
        options.first_term = first_term
        options.keep = keep
        with nogil:
            rc = jsc_log_open(store, directory, &options, &log.handle, &found)
        check(rc)
        log.store = self
        log.path = os.fsdecode(name)
        log.recovery = RecordRecovery(
            found.torn_bytes, found.damaged_index, found.commit, found.message.decode("utf-8", "replace")
        )
        self.logs[<size_t>log.handle] = log
        return log

    def write_snapshot(self, path, bytes data not None) -> None:
        """Puts a snapshot file beside the segments of the log in directory `path`; durable on return. Any thread.

        Raises: OSError; the former one is still there then.
        """
        self.live()
        cdef const jsc_vfs *vfs = (<Disk>self.disk).vfs if self.disk is not None else jsc_vfs_posix()
        cdef bytes name = os.fsencode(path)
        cdef const char *directory = PyBytes_AS_STRING(name)
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef size_t n = len(data)
        cdef int rc
        with nogil:
            rc = jsc_snapshot_write(vfs, directory, p, n)
        check(rc)

    def read_snapshot(self, path) -> tuple:
        """The snapshot file in directory `path`, verified, and whether one of its two copies is missing or damaged.

        Raises: NotFound, Corrupt (none verifies), FormatError, OSError.
        """
        self.live()
        cdef const jsc_vfs *vfs = (<Disk>self.disk).vfs if self.disk is not None else jsc_vfs_posix()
        cdef uint8_t *p = NULL
        cdef size_t n = 0
        cdef int hurt = 0
        check(jsc_snapshot_read(vfs, os.fsencode(path), &p, &n, &hurt))
        try:
            return PyBytes_FromStringAndSize(<char *>p, n), hurt != 0
        finally:
            free(p)

    def close(self) -> None:
        """Closes every log still open, then the store. Raises the first error met, after closing all."""
        first = None
        for log in list(self.logs.values()):
            try:
                log.close()
            except (Error, OSError) as err:
                first = first or err
        cdef jsc_store *store = self.handle
        self.handle = NULL
        if store != NULL:
            with nogil:
                jsc_store_close(store)
        if first is not None:
            raise first

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __dealloc__(self):
        if self.handle != NULL:
            jsc_store_close(self.handle)


@cython.no_gc_clear
cdef class RecordLog:
    """A directory of records with dense indexes. Made by Store.open(); one thread calls it.

    Records appended become durable after submit(); `durable` tells how far, Store.poll() when.
    """

    def __init__(self):
        raise TypeError("use Store.open()")

    def __dealloc__(self):
        if self.handle != NULL:
            jsc_log_abandon(self.handle)

    cdef jsc_log *live(self) except NULL:
        if self.handle == NULL:
            raise ValueError("the log is closed")
        return self.handle

    @property
    def first(self) -> int:
        """First index held; last + 1 when empty."""
        return jsc_log_first(self.live())

    @property
    def last(self) -> int:
        """Last index appended; first - 1 when empty."""
        return jsc_log_last(self.live())

    @property
    def durable(self) -> int:
        """Every record up to it is on the disk."""
        return jsc_log_durable(self.live())

    @property
    def synced(self) -> int:
        """Every record up to it was synced, also where the store's `durable` means less."""
        return jsc_log_synced(self.live())

    @property
    def error(self) -> int:
        """0, or the code of the failure after which the log takes no more writes (-errno for a system call)."""
        return jsc_log_error(self.live())

    @property
    def bytes(self) -> int:
        """Bytes of the records held."""
        return jsc_log_bytes(self.live())

    def append(self, uint8_t kind, const uint8_t[::1] data=b"", *, const uint8_t[::1] subject=b"",
               const uint8_t[::1] headers=b"", uint32_t term=0, int64_t ts=0) -> int:
        """Appends one record, copied; returns its index. Not durable before submit() and `durable` reaches it.

        Raises: Full, Failed, ValueError (sizes); nothing is appended then.
        """
        cdef uint64_t index = 0
        check(jsc_log_append(self.live(), term, ts, kind,
                             &subject[0] if subject.shape[0] else NULL, subject.shape[0],
                             &headers[0] if headers.shape[0] else NULL, headers.shape[0],
                             &data[0] if data.shape[0] else NULL, data.shape[0], &index))
        return index

    def append_raw(self, raw not None, uint64_t from_index, *, bint verified=False) -> None:
        """Appends a run of raw records as copy() gives them, skipping those below from_index; all of them or none.

        `verified`: scan_records just read them, from this object, so their checksums are not looked at again.
        Raises: Corrupt, OrderError (the first taken is not last + 1, or not dense), Full, Failed.
        """
        cdef const uint8_t[::1] view
        cdef const void *at
        cdef size_t n
        if type(raw) is bytes:
            at, n = PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw)
        else:
            view = memoryview(raw)
            n = view.shape[0]
            at = &view[0] if n else NULL
        if not n:
            return
        if verified:
            check(jsc_log_append_verified(self.live(), at, n, from_index))
        else:
            check(jsc_log_append_raw(self.live(), at, n, from_index))

    def submit(self) -> None:
        """Ends the batch: all appended so far goes to the sync thread. Raises: Failed."""
        check(jsc_log_submit(self.live()))

    def submit_now(self) -> None:
        """As submit(), but where the store syncs at intervals or never, a small batch is written before this returns.

        Then `durable` has moved, and Store.poll() does not tell. Raises: Failed.
        """
        check(jsc_log_submit_now(self.live()))

    def mark(self) -> None:
        """When all is synced and the log does not say so: says so, so that damage to its end is told from a torn end.

        For a log that fell silent; cheap otherwise. Raises: Failed, Full.
        """
        check(jsc_log_mark(self.live()))

    def truncate(self, uint64_t last) -> None:
        """Removes every record above `last`; durable on return, waits for the disk.

        Raises: Failed, Full, Corrupt, OSError.
        """
        cdef jsc_log *log = self.live()
        cdef int rc
        with nogil:
            rc = jsc_log_truncate(log, last)
        check(rc)

    def trim(self, uint64_t keep, size_t most=1 << 30) -> None:
        """Lets go of at most `most` segments that hold nothing at or above `keep`. Raises: Failed."""
        check(jsc_log_trim(self.live(), keep, most))

    def trimmable(self, uint64_t keep) -> int:
        """Bytes that trim(keep) would free."""
        return jsc_log_trimmable(self.live(), keep)

    def open_bytes(self, uint64_t keep) -> int:
        """Bytes below record `keep` in the segment that appends go to."""
        return jsc_log_open_bytes(self.live(), keep)

    def roll(self) -> None:
        """Ends the segment that appends go to. Raises: Failed, Full."""
        check(jsc_log_roll(self.live()))

    def term(self, uint64_t index) -> int:
        """Term of a record, or of the one before the first. Raises: NotFound, Corrupt."""
        cdef uint32_t term = 0
        check(jsc_log_term(self.live(), index, &term))
        return term

    def read(self, uint64_t index) -> Record:
        """One record, copied. Raises: NotFound, Corrupt."""
        cdef jsc_record r
        check(jsc_log_read(self.live(), index, &r))
        return Record(r.index, r.ts, r.term, r.kind, r.subject[:r.subject_len], r.headers[:r.headers_len],
                      r.data[:r.data_len])

    def copy(self, uint64_t lo, uint64_t hi, size_t cap) -> tuple:
        """Raw records [lo, hi], as many whole ones as fit into `cap` bytes: (bytes, index of the last one).

        Raises: NotFound, Corrupt, Full (not even one fits).
        """
        cdef size_t n = 0
        cdef uint64_t last = 0
        if lo > hi:
            raise ValueError("lo > hi")
        cdef jsc_log *log = self.live()
        cdef char *to = <char *>malloc(max(cap, 1))  # not a bytearray: most of a large one would be zeroed for nothing
        if to == NULL:
            raise MemoryError
        try:
            check(jsc_log_copy(log, lo, hi, to, cap, &n, &last))
            return PyBytes_FromStringAndSize(to, n), last
        finally:
            free(to)

    def set_commit(self, uint64_t index) -> None:
        """Remembered in the next batch's trailer, given back as recovery.commit; monotonic."""
        jsc_log_set_commit(self.live(), index)

    def wait(self, uint64_t index, timeout=None) -> None:
        """Blocks until `durable` >= index; timeout in seconds. Raises: TimeoutError, Full, OSError (the failure)."""
        cdef jsc_log *log = self.live()
        cdef int64_t timeout_ns = -1 if timeout is None else max(0, int(timeout * 1_000_000_000))
        cdef int rc
        with nogil:
            rc = jsc_log_wait(log, index, timeout_ns)
        check(rc)

    cdef jsc_log *take(self):
        cdef jsc_log *log = self.handle
        self.handle = NULL
        if log != NULL:
            self.store.logs.pop(<size_t>log, None)
        return log

    def close(self) -> None:
        """Submits what is pending, waits until it is durable, closes; in any case, then raises the first error met."""
        cdef jsc_log *log = self.take()
        cdef int rc = JSC_OK
        if log != NULL:
            with nogil:
                rc = jsc_log_close(log)
        check(rc)

    def abandon(self) -> None:
        """Closes without writing anything more."""
        cdef jsc_log *log = self.take()
        if log != NULL:
            with nogil:
                jsc_log_abandon(log)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
