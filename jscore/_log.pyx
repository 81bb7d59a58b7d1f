# cython: language_level=3, boundscheck=False, wraparound=False, nonecheck=True, embedsignature=True
"""The window onto csrc/log/jsc_mlog.h, logs of messages: unpack, call, check, wrap.

Locks are only ever taken in the order GIL, log: with the GIL held a call may wait for the log's lock, and no callback
that runs under that lock takes the GIL. Calls that can wait for the disk release the GIL and are counted, for close().
"""
import os
import weakref
from _thread import RLock, allocate_lock, get_ident
from time import monotonic_ns

cimport cython

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.memoryview cimport PyMemoryView_FromObject, PyMemoryView_GET_BUFFER
from cpython.number cimport PyNumber_Index
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.errno cimport EEXIST, ENOMEM, ETIMEDOUT
from libc.stdint cimport INT64_MAX, UINT64_MAX, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

from jscore._records cimport (
    JSC_ECORRUPT,
    JSC_EFAILED,
    JSC_EFORMAT,
    JSC_EFULL,
    JSC_EINVAL,
    JSC_EKEY,
    JSC_ELOCKED,
    JSC_ENOTFOUND,
    JSC_EREADONLY,
    JSC_OK,
    JSC_SYNC_ALWAYS,
    JSC_SYNC_INTERVAL,
    JSC_SYNC_NEVER,
    Disk,
    SimDisk,
    jsc_vfs,
    jsc_vfs_posix,
)
from jscore.jsc_mlog cimport *

from jscore.errors import (
    Corrupt,
    Failed,
    Forked,
    FormatError,
    Full,
    KeyMissing,
    Locked,
    NotFound,
    ReadOnly,
)
from jscore.report import Damage, Finding, Limits, Recovery, Stats, SubjectInfo
from jscore.times import unix_ns
from jscore.views import Follow, RangeView, column_tuples

cdef extern from "Python.h":
    # Declared without `except`: a text that is not UTF-8 is no error here.
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *n)
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    int PyErr_ResourceWarning(object source, Py_ssize_t level, const char *form, ...) except -1
    int PyBuffer_FillInfo(Py_buffer *view, object exporter, void *p, Py_ssize_t n, int readonly, int flags) except -1

# How long a wait goes without looking for signals and for close() in another thread.
cdef int64_t SLICE_NS = 50_000_000
cdef int64_t SEAL_NS = 1_000_000_000  # so long a writer waits at most, every PACE_BYTES, for its segments to be sealed
# After so many bytes a writer waits until what came before the last so many is written: well before the engine has to
# wait for room itself, which it would do with the GIL held.
cdef enum:
    PACE_BYTES = 32 << 20
cdef enum:
    WAIT_DURABLE
    WAIT_SYNCED
    WAIT_BEYOND
    WAIT_SEALED

# Logs whose handles a child of fork() must not use.
open_logs = weakref.WeakSet()


def _after_fork_in_child():
    for log in list(open_logs):
        (<Log>log).disown()


os.register_at_fork(after_in_child=_after_fork_in_child)

include "_spans.pxi"
include "_message.pxi"
include "_selection.pxi"
include "_columns.pxi"
include "_verify.pxi"
include "_awaited.pxi"


@cython.final
@cython.no_gc_clear
cdef class Log:
    """A log of messages with sequences 1, 2, 3, ..., made by open(). Any thread may call any method.

    It maps sequences to messages and is read like a list: log[5], log[10:20], iter(log), reversed(log), len(log).
    After fork() the parent goes on; in the child every call raises Forked, and nothing is written.
    """

    def __init__(self):
        raise TypeError("use jscore.open()")

    def __dealloc__(self):
        if self.husk == NULL or self.forked:
            return
        if self.handle != NULL:
            jsc_mlog_shut(self.handle, False)
        jsc_mlog_free(self.husk)

    def __del__(self):
        if self.handle != NULL and not self.forked:
            PyErr_ResourceWarning(self, 1, b"log %R was not closed", <void *>self.path)
            self.close()

    # ---- the handle, waits, errors ----

    cdef jsc_mlog *live(self) except NULL:
        if self.handle == NULL:
            if self.forked:
                raise Forked("the log was opened before fork(): the child opens its own", path=self.path)
            raise ValueError("the log is closed")
        return self.handle

    cdef int leave(self) except -1:
        self.calls -= 1
        if self.calls == 0 and self.idle is not None:
            self.idle.release()
        return 0

    cpdef disown(self):
        """In the child after fork(): the handle is the parent's. Descriptors are given back, memory is not."""
        cdef jsc_mlog *log = self.handle
        self.handle = NULL
        self.forked = True
        if log != NULL and not isinstance(self.disk, SimDisk):
            jsc_mlog_forked(log)

    cdef int check(self, int rc, uint64_t seq=0) except -1:
        """The one place where a code becomes an exception."""
        cdef int failed = JSC_OK
        if rc == JSC_OK:
            return 0
        if rc == JSC_ENOTFOUND:
            raise NotFound(f"no message {seq}" if seq else "no such message", seq=seq or None)
        if rc == JSC_ECORRUPT:
            raise self._corrupt(seq)
        if rc == JSC_EFORMAT:
            raise FormatError("written by an unknown version", path=self.path)
        if rc == JSC_EINVAL:
            raise ValueError("argument outside the contract of the log")
        if rc == JSC_EFULL:
            raise Full("no space on the disk")
        if rc == JSC_ELOCKED:
            raise Locked(f"{self.path} is in use", path=self.path)
        if rc == JSC_EKEY:
            raise KeyMissing("encrypted with a key that was not given", path=self.path)
        if rc == JSC_EREADONLY:
            raise ReadOnly("the log was opened for reading only")
        if rc == -ETIMEDOUT:
            raise TimeoutError("not in time")
        if self.handle != NULL:
            failed = jsc_mlog_error(self.handle)
        if failed != JSC_OK or rc == JSC_EFAILED:
            raise self._failure(failed)
        if rc == -ENOMEM:
            raise MemoryError()
        raise OSError(-rc, os.strerror(-rc), self.path or None)

    def _failure(self, int rc):
        if -4096 < rc < 0:
            text = os.strerror(-rc)
            return Failed(f"the log takes no more writes: {text}", reason=OSError(-rc, text))
        return Failed("the log takes no more writes")

    def _corrupt(self, uint64_t seq):
        """Corrupt for a message, with the place of the damage when that is known."""
        if seq and self.handle != NULL:
            for d in self.damage():
                if d.first_seq is not None and d.first_seq <= seq <= d.last_seq:
                    text = f"message {seq} is lost to damage: segment {d.segment:016x}, offset {d.offset}"
                    return Corrupt(text, seq=seq, **d._asdict())
        return Corrupt(f"message {seq} is lost to damage" if seq else "bytes do not verify", seq=seq or None)

    cdef int wait_for(self, int what, uint64_t arg, int64_t timeout_ns) except -1:
        """Waits in slices, so that signals and close() are seen; raises TimeoutError, or what ended the log."""
        cdef jsc_mlog *log
        cdef int64_t deadline = 0, slice_ns = timeout_ns
        cdef c_bool to_pass = False
        cdef int rc
        if timeout_ns > SLICE_NS:
            deadline = monotonic_ns() + timeout_ns
        while True:
            log = self.live()
            if timeout_ns < 0 or timeout_ns > SLICE_NS:
                slice_ns = SLICE_NS
            self.calls += 1
            with nogil:
                if what == WAIT_DURABLE:
                    rc = jsc_mlog_await(log, arg, slice_ns, &to_pass)
                elif what == WAIT_SYNCED:
                    rc = jsc_mlog_sync(log, -1)
                elif what == WAIT_SEALED:
                    rc = jsc_mlog_let_seal(log, slice_ns)
                else:
                    rc = jsc_mlog_wait_beyond(log, arg, slice_ns)
            if to_pass:
                jsc_mlog_pass(log)
            self.leave()
            if rc != -ETIMEDOUT:
                return self.check(rc)
            PyErr_CheckSignals()
            if timeout_ns >= 0:
                if deadline:
                    timeout_ns = deadline - <int64_t>monotonic_ns()
                    slice_ns = timeout_ns
                if not deadline or timeout_ns <= 0:
                    return self.check(rc)

    cdef int make_room(self) except -1:
        """Too much is unwritten: waits until it is not. Raises Full when the disk is."""
        cdef uint64_t position = 0
        self.check(jsc_mlog_submit(self.live(), &position))
        self.wait_for(WAIT_DURABLE, position, -1)
        return 0

    cdef int pace(self, bint wait) except -1:
        cdef jsc_mlog *log = self.live()
        cdef uint64_t before = self.paced
        if before > jsc_mlog_durable_position(log):
            if not wait:
                raise Full("too much is not written yet")
            self.wait_for(WAIT_DURABLE, before, -1)
        if wait:
            try:
                self.wait_for(WAIT_SEALED, 0, SEAL_NS)
            except TimeoutError:
                pass
        if self.paced == before:  # no other thread was here meanwhile
            self.paced = jsc_mlog_position(self.live())
            self.unpaced = 0
        return 0

    cdef int settle(self, object sync) except -1:
        cdef uint64_t position = 0
        if sync is None:
            if not self.always:
                return 0
        elif not sync:
            return 0
        elif not self.always:
            return self.wait_for(WAIT_SYNCED, 0, -1)
        self.check(jsc_mlog_submit(self.live(), &position))
        return self.wait_for(WAIT_DURABLE, position, -1)

    # ---- writing ----

    cdef uint64_t put(self, const jsc_span *subject, const jsc_span *headers, const jsc_span *data,
                      int64_t ts) except 0:
        cdef uint64_t seq = 0
        cdef bint tried = False
        cdef int rc
        while True:
            if self.crowded:
                with self.turn:
                    pass
            if self.unpaced > PACE_BYTES:
                self.pace(True)
            rc = jsc_mlog_append(self.live(), subject, headers, data, ts, &seq)
            if rc == JSC_OK:
                self.unpaced += data.n
                return seq
            if rc != JSC_EFULL or tried:  # nothing was in the way but the disk itself
                self.check(rc)
            self.make_room()
            tried = True

    def append(self, data, subject="", *, headers=b"", ts=None, sync=None) -> int:
        """Appends one message and returns its sequence. data, headers: bytes-like; subject: str or bytes.

        ts: int unix ns, float seconds or a datetime; None: now. It never falls below the message before.
        sync: None, as the log was opened; True, returns when it is on the disk; False, returns at once, and the message
        goes to the disk within some milliseconds, or with the next synced call.

        Raises: Full, Failed, ReadOnly, ValueError (sizes), TypeError; nothing is appended then. From waiting for the
        disk: Full, Failed; the message stays appended.
        """
        cdef jsc_span s, h, d
        cdef Borrowed held
        cdef uint64_t seq
        cdef int64_t ts_ns = 0 if ts is None else unix_ns(ts)
        held.n = 0
        _kept = text_of(subject, &s)
        try:
            borrow(data, &d, &held)
            borrow(headers, &h, &held)
            seq = self.put(&s, &h, &d, ts_ns)
        finally:
            give_back(&held)
        if sync is None and self.always or sync:
            self.settle(sync)
        return seq

    def offer(self, data, subject="", *, headers=b"", ts=None) -> int:
        """append(sync=False) that never waits: for event loops.

        Raises: as append(); Full also when too much is unwritten."""
        cdef jsc_span s, h, d
        cdef Borrowed held
        cdef uint64_t seq = 0
        cdef int64_t ts_ns = 0 if ts is None else unix_ns(ts)
        held.n = 0
        _kept = text_of(subject, &s)
        try:
            borrow(data, &d, &held)
            borrow(headers, &h, &held)
            if self.crowded:
                raise Full("an extend() of another thread waits for room")
            if self.unpaced > PACE_BYTES:
                self.pace(False)
            self.check(jsc_mlog_append(self.live(), &s, &h, &d, ts_ns, &seq))
            self.unpaced += d.n
        finally:
            give_back(&held)
        return seq

    def extend(self, items, *, sync=None) -> range:
        """Appends many messages, next to each other, and returns their sequences. items: data, (subject, data),
        (subject, data, headers) or (subject, data, headers, ts) each. sync: as in append().

        Raises: as append(). When the disk is full or fails half way, the messages before stay appended.
        """
        cdef Batch batch = Batch(items)
        cdef size_t done = 0, part, n = batch.n
        cdef uint64_t last = 0
        cdef jsc_mlog *log = self.live()
        cdef bint tried = False
        cdef int rc
        if not n:
            return range(0)
        if self.turn is None:
            self.turn = RLock()
        with self.turn:
            self.crowded = True
            try:
                while done < n:
                    part = 0
                    log = self.live()
                    self.calls += 1
                    with nogil:
                        rc = jsc_mlog_extend(log, batch.items + done, n - done, &part, &last)
                    self.leave()
                    done += part
                    if rc == JSC_EFULL and (part or not tried):
                        self.make_room()
                        tried = True
                    else:
                        self.check(rc)
            finally:
                self.crowded = False
        self.settle(sync)
        return range(last + 1 - n, last + 1)

    def delete(self, seq, *, sync=None) -> None:
        """Deletes one message. sync: as in append(). Raises: NotFound (not there, or deleted), and as append()."""
        cdef uint64_t n = 0
        number_of(seq, &n)
        self.check(jsc_mlog_delete(self.live(), n), n)
        self.settle(sync)

    def purge(self, subject=None, *, before=None, keep=0, sync=None) -> int:
        """Deletes the messages that match `subject` (None: all) below sequence `before` (None: all) but for the newest
        `keep`; returns how many. sync: as in append(). Raises: ValueError (filter), and as append()."""
        cdef jsc_span text
        cdef uint64_t n = 0, below = 0, kept = amount_of(keep, "keep")
        _kept = None if subject is None else text_of(subject, &text)
        if before is not None:
            # For C 0 is "all"; nothing is below 1 either.
            below = max(<uint64_t>1, amount_of(before, "before"))
        self.check(jsc_mlog_purge(self.live(), NULL if subject is None else &text, below, kept, &n))
        if n:
            self.settle(sync)
        return n

    @property
    def limits(self) -> Limits:
        """What is kept."""
        return self.stats().limits

    def set_limits(self, *, max_messages=None, max_bytes=None, max_age=None, max_per_subject=None, sync=None) -> None:
        """Changes what is kept, recorded in the log; what is too much goes at once. None: as it is; 0: no limit;
        max_age in seconds. sync: as in append(). Raises: ValueError, and as append()."""
        cdef jsc_limits limits
        cdef jsc_mlog_stats found
        if max_messages is None and max_bytes is None and max_age is None and max_per_subject is None:
            return
        self.check(jsc_mlog_about(self.live(), &found))
        limits = found.limits
        if max_messages is not None:
            limits.max_messages = amount_of(max_messages, "max_messages")
        if max_bytes is not None:
            limits.max_bytes = amount_of(max_bytes, "max_bytes")
        if max_per_subject is not None:
            limits.max_per_subject = amount_of(max_per_subject, "max_per_subject")
        if max_age is not None:
            if not 0 <= max_age < INT64_MAX / 1e9:
                raise ValueError("max_age is 0 or a number of seconds, below 292 years")
            limits.max_age_ns = max(1, int(max_age * 1_000_000_000)) if max_age else 0
        if memcmp(&limits, &found.limits, sizeof(limits)) == 0:
            return
        self.check(jsc_mlog_set_limits(self.live(), &limits))
        self.settle(sync)

    # ---- durability ----

    def sync(self) -> None:
        """Returns when everything appended so far is synced to the disk, in every sync mode. Raises: Full, Failed."""
        self.live()
        self.wait_for(WAIT_SYNCED, 0, -1)

    def wait(self, seq, timeout=None) -> None:
        """Returns when message `seq` is durable (written, in the interval and never modes). timeout in seconds.

        Raises: TimeoutError, NotFound (not appended), Full, Failed."""
        cdef jsc_mlog *log = self.live()
        cdef uint64_t n = 0, position = 0
        number_of(seq, &n)
        if n <= jsc_mlog_durable(log):
            return
        if n > jsc_mlog_last(log):
            raise NotFound(f"no message {n} yet", seq=n)
        self.check(jsc_mlog_submit(log, &position))
        self.wait_for(WAIT_DURABLE, position, nanoseconds(timeout))

    @property
    def durable(self) -> int:
        """The highest sequence that is durable."""
        return jsc_mlog_durable(self.live())

    @property
    def error(self):
        """None, or the Failed that every write raises from now on."""
        cdef int rc = jsc_mlog_error(self.live())
        return None if rc == JSC_OK else self._failure(rc)

    def submit(self) -> int:
        """Sends what was appended to the disk and returns its position at once: for event loops. It is durable once
        poll() returns that or more. Raises: Failed."""
        cdef uint64_t position = 0
        self.check(jsc_mlog_submit(self.live(), &position))
        return position

    def fileno(self) -> int:
        """A descriptor that is readable when poll() has news."""
        return jsc_mlog_eventfd(self.live())

    def poll(self) -> int:
        """The position up to which everything is durable; clears the descriptor."""
        return jsc_mlog_poll(self.live())

    @property
    def position(self) -> int:
        """Position of what was appended last."""
        return jsc_mlog_position(self.live())

    @property
    def durable_position(self) -> int:
        """What poll() returns; clears nothing."""
        return jsc_mlog_durable_position(self.live())

    @property
    def stalled(self) -> bool:
        """The disk is full: what is submitted waits for space."""
        cdef jsc_mlog *log = self.live()
        return jsc_mlog_wait(log, jsc_mlog_position(log), 0) == JSC_EFULL

    # ---- reading ----

    cdef Message fetch(self, uint64_t seq):
        cdef Message message = Message.__new__(Message)
        cdef int rc = jsc_mlog_get(self.live(), seq, &message.m)
        if rc != JSC_OK:
            self.check(rc, seq)
        message.log = self
        return message

    cdef Messages walk(self, Filter filter, uint64_t from_, uint64_t stop, bint backward):
        cdef Messages walk = Messages.__new__(Messages)
        self.check(jsc_cursor_new(self.live(), filter.handle, from_, backward, &walk.cursor))
        walk.filter = filter
        walk.backward = backward
        walk.stop = stop
        walk.want = 4
        walk.log = self
        walk.behind = self.iterators
        if self.iterators != NULL:
            (<Messages>self.iterators).before = <void *>walk
        self.iterators = <void *>walk
        return walk

    def __getitem__(self, key):
        """log[seq]: one message; log[a:b] and log[a:b:-1]: those with a <= seq < b, or a >= seq > b, when iterated.

        Raises: NotFound (deleted, or not there), Corrupt (lost to damage)."""
        cdef uint64_t seq = 0
        if isinstance(key, slice):
            self.live()
            return RangeView(self, key)
        number_of(key, &seq)
        return self.fetch(seq)

    def __contains__(self, key):
        cdef jsc_message m
        cdef uint64_t seq = 0
        cdef int rc
        try:
            number_of(key, &seq)
        except NotFound:
            return False
        rc = jsc_mlog_get(self.live(), seq, &m)
        if rc == JSC_OK:
            jsc_message_release(self.handle, &m)
        elif rc != JSC_ENOTFOUND and rc != JSC_ECORRUPT:
            self.check(rc, seq)
        return rc != JSC_ENOTFOUND

    def __len__(self):
        cdef jsc_mlog_stats found
        self.check(jsc_mlog_about(self.live(), &found))
        return found.messages

    def __bool__(self):
        cdef jsc_mlog *log = self.live()
        return jsc_mlog_first(log) <= jsc_mlog_last(log)

    def __iter__(self):
        """Live messages, oldest first, also those appended meanwhile. A message lost to damage raises Corrupt; calling
        next() again goes on behind it."""
        return self.walk(ALL, 1, 0, False)

    def __reversed__(self):
        return self.walk(ALL, INT64_MAX, 0, True)

    def _walk(self, uint64_t from_, uint64_t stop, bint backward):
        return self.walk(ALL, from_, stop, backward)

    def _count(self, uint64_t from_) -> int:
        cdef uint64_t n = 0
        self.check(jsc_mlog_count(self.live(), ALL.handle, from_, &n))
        return n

    def subject(self, *filters) -> Selection:
        """The messages whose subject matches one of the filters ("a.*", "a.>"); no filter: all."""
        cdef Selection selection = Selection.__new__(Selection)
        selection.log = self
        selection.texts = filters
        selection.start = 1
        return selection

    @property
    def first(self) -> int:
        """Sequence of the oldest message; last + 1 when there is none."""
        return jsc_mlog_first(self.live())

    @property
    def last(self) -> int:
        """The last sequence given out; 0 when none ever."""
        return jsc_mlog_last(self.live())

    def at(self, time) -> Message:
        """The first message with a time >= `time`: int unix ns, float seconds, datetime. Raises: NotFound, Corrupt."""
        cdef uint64_t seq = 0
        cdef int rc = jsc_mlog_at(self.live(), unix_ns(time), &seq)
        if rc == JSC_ENOTFOUND:
            raise NotFound(f"no message at or after {time}")
        self.check(rc)
        return self.fetch(seq)

    def columns(self, *names):
        """Iterates over segments: for each a tuple of columns by the names "seq", "ts" (unix ns), "size" (payload
        bytes), as numpy views, or memoryviews where there is no numpy, not copied. Deleted messages are among them:
        mask with `.live`.

        Raises: ValueError (names), Corrupt."""
        self.live()
        return column_tuples(self, names)

    def _columns(self, uint64_t from_):
        cdef ColumnsHold hold = ColumnsHold.__new__(ColumnsHold)
        cdef int rc = jsc_mlog_columns(self.live(), from_, &hold.c)
        if rc == JSC_ENOTFOUND:
            return None
        self.check(rc)
        hold.log = self
        return hold

    # ---- following ----

    def follow(self, after=None, subject=None, timeout=None):
        """Iterates over durable messages behind sequence `after` (None: the last durable one now), blocking for new
        ones, also those of a writer in another process. subject: a filter or several. timeout: seconds without a
        message after which the iteration ends; it may be taken up again.

        Raises while iterating: Corrupt (then it goes on behind), Failed, ValueError (closed)."""
        self.refresh()
        after = jsc_mlog_durable(self.live()) if after is None else amount_of(after, "after")
        filters = () if subject is None else (subject,) if isinstance(subject, (str, bytes)) else subject
        return Follow(self, self.subject(*filters).after(after), after, timeout)

    def refresh(self) -> None:
        """In mode "r": takes in what a writer in another process made durable since; else nothing.

        Raises: Corrupt, OSError."""
        cdef jsc_mlog *log = self.live()
        cdef int rc
        self.calls += 1
        with nogil:
            rc = jsc_mlog_refresh(log)
        self.leave()
        self.check(rc)

    def wait_beyond(self, seq, timeout=None) -> None:
        """Returns when a message above `seq` is durable, whoever appended it. Raises: TimeoutError, Failed."""
        self.live()
        self.wait_for(WAIT_BEYOND, amount_of(seq, "a sequence"), nanoseconds(timeout))

    # ---- care ----

    def stats(self) -> Stats:
        """Where the log stands."""
        cdef jsc_mlog_stats s
        self.check(jsc_mlog_about(self.live(), &s))
        limits = Limits(s.limits.max_messages, s.limits.max_bytes, s.limits.max_per_subject, s.limits.max_age_ns / 1e9)
        return Stats(s.first_seq, s.last_seq, s.messages, s.message_bytes, s.segments, s.disk_bytes, s.first_index,
                     s.last_index, s.durable_index, s.durable_seq, s.heap_bytes, s.tail_messages, s.tail_heap,
                     s.lost_records, s.compactions, s.compacted_bytes, s.scrubbed_bytes, s.scrub_rounds, limits)

    @property
    def bytes(self) -> int:
        """Bytes of the live messages' records."""
        return self.stats().message_bytes

    @property
    def disk_bytes(self) -> int:
        """Bytes of the log's files."""
        return self.stats().disk_bytes

    cdef int care(self, int what, bint force) except -1:
        cdef jsc_mlog *log = self.live()
        cdef int rc
        self.calls += 1
        with nogil:
            rc = jsc_mlog_maintain(log, what, force)
        self.leave()
        return self.check(rc)

    def maintain(self) -> None:
        """Does now, in this thread, what the background thread would: flushes, seals, compacts, compresses, and scrubs
        once.

        Raises: Failed, ReadOnly, OSError."""
        self.care(JSC_CARE_ALL, False)

    def seal(self) -> None:
        """Flushes, and writes the sidecars of full segments. Raises: as maintain()."""
        self.care(JSC_CARE_FLUSH | JSC_CARE_SEAL, False)

    def compact(self, *, all=False) -> None:
        """Gives back the space of deleted messages where it is worth it; all: wherever there is any.

        Raises: as maintain()."""
        self.care(JSC_CARE_FLUSH | JSC_CARE_SEAL | JSC_CARE_COMPACT, all)

    def scrub(self) -> None:
        """Verifies every sealed segment once; damage() says what was found. Raises: as maintain()."""
        self.care(JSC_CARE_SCRUB, False)

    def damage(self) -> list:
        """The damage known now, in order."""
        cdef jsc_mlog *log = self.live()
        cdef jsc_damage *found = NULL
        cdef size_t n = 0, room = 0, i
        try:
            self.check(jsc_mlog_damage(log, NULL, 0, &n))
            while n > room:
                room = n + 16
                free(found)
                found = <jsc_damage *>malloc(room * sizeof(jsc_damage))
                if found == NULL:
                    raise MemoryError()
                self.check(jsc_mlog_damage(log, found, room, &n))
            listed = []
            for i in range(n):
                some = found[i].first_seq <= found[i].last_seq
                listed.append(Damage(found[i].segment, found[i].offset, found[i].first, found[i].last,
                                     found[i].first_seq if some else None, found[i].last_seq if some else None,
                                     bool(found[i].seqs_exact)))
            return listed
        finally:
            free(found)

    def verify(self, progress=None) -> list:
        """Verifies every byte of every file, caches too, and lists what is wrong: [] when the log is sound.

        progress(bytes done, bytes in all): called now and then; it must not close the log.

        Raises: OSError, what progress raised."""
        cdef jsc_mlog *log = self.live()
        cdef Verification run = Verification(progress)
        cdef jsc_verify calls
        cdef int rc
        calls.finding = note_finding
        calls.progress = note_progress
        calls.ctx = <void *>run
        self.verifying = get_ident()
        self.calls += 1
        with nogil:
            rc = jsc_mlog_verify(log, &calls)
        self.leave()
        self.verifying = None
        if run.raised is not None:
            raise run.raised
        if rc != JSC_ECORRUPT or not run.findings:
            self.check(rc)
        return run.findings

    def copy_records(self, uint64_t lo, uint64_t hi) -> bytes:
        """Raw records by index, lo to hi, for repair() of a replica. Raises: NotFound, Corrupt, ValueError."""
        cdef jsc_mlog *log = self.live()
        cdef uint8_t *raw = NULL
        cdef size_t n = 0
        cdef int rc
        self.calls += 1
        with nogil:
            rc = jsc_mlog_copy_records(log, lo, hi, &raw, &n)
        self.leave()
        if rc == JSC_ENOTFOUND:
            raise NotFound(f"no records {lo} to {hi}")
        self.check(rc)
        try:
            return PyBytes_FromStringAndSize(<const char *>raw, n)
        finally:
            free(raw)

    def repair(self, raw) -> int:
        """Takes lost records back from copy_records() of a replica; returns how many it took. What is not lost here or
        does not verify is ignored. Raises: Corrupt (contradicts a checksum that survived), Failed, ReadOnly,
        OSError."""
        cdef jsc_mlog *log = self.live()
        cdef Borrowed held
        cdef jsc_span span
        cdef uint64_t healed = 0
        cdef int rc
        held.n = 0
        borrow(raw, &span, &held)
        self.calls += 1
        with nogil:
            rc = jsc_mlog_repair(log, span.p, span.n, &healed)
        give_back(&held)
        self.leave()
        self.check(rc)
        return healed

    # ---- the end ----

    cdef int shut(self, bint write) except -1:
        cdef jsc_mlog *log = self.handle
        cdef int rc, failed
        if log == NULL:
            if self.forked:
                self.live()
            return 0
        if self.verifying == get_ident():
            raise ValueError("the log is being verified by this thread")
        self.handle = NULL  # from here on calls are refused, and waits under way end at their next slice
        if self.calls:
            self.idle = allocate_lock()
            self.idle.acquire()
            if self.calls:
                self.idle.acquire()
            self.idle = None
        while self.iterators != NULL:
            (<Messages>self.iterators).drop()
        failed = jsc_mlog_error(log)
        with nogil:
            rc = jsc_mlog_shut(log, write)
        if -4096 < rc < 0 or rc == JSC_EFAILED:
            raise self._failure(rc if rc != JSC_EFAILED else failed)
        self.check(rc)
        return 0

    def close(self) -> None:
        """Makes everything durable, writes the clean mark, gives the directory free. Messages stay readable; iterators
        do not go on. Closing twice is fine. Raises the first error met, after closing: Full, Failed; Forked."""
        self.shut(True)

    def abandon(self) -> None:
        """Closes without writing anything more, as a crash would leave it: for tests."""
        self.shut(False)

    def __enter__(self):
        self.live()
        return self

    def __exit__(self, *exc):
        if not self.forked:
            self.close()

    def __repr__(self):
        state = "forked" if self.forked else "closed" if self.handle == NULL else f"last={jsc_mlog_last(self.handle)}"
        return f"<jscore.Log {self.path!r} {state}>"


def open(path, mode="a", *, sync="always", segment_bytes=64 << 20, memory=64 << 20,
         max_messages=None, max_bytes=None, max_age=None, max_per_subject=None, compression=None, keys=None,
         bint background=True, scrub=None, bint exclusive=False, bint without_checkpoint=False, disk=None):
    """Opens the log in directory `path` (its parent exists), creating it unless mode is "r".

    mode: "a" creates or opens, "x" creates, "r" reads, also beside a writer, whose durable messages refresh() takes in.
    sync: "always" (append returns when the message is on the disk), "never", or seconds between syncs.
    segment_bytes: of a file of the log. memory: budget of caches in bytes, whatever the log's size.
    max_*: what is kept, recorded in the log; None: as the log has it, 0: no limit. max_age in seconds.
    compression: of sealed segments, "zstd" or a level 1 to 19.
    keys: 32 bytes, {id: 32 bytes} or Keys: encryption at rest.
    background: a thread seals, compacts, compresses and scrubs; without it only maintain() does.
    scrub: bytes a second that it verifies of sealed segments, 0: none; None: 8 MiB.
    exclusive: with "r", refuses a log that a writer has, and keeps writers out until close.
    without_checkpoint: where the checkpoint and its copy are lost, and the records do not say what limits and purges
    with `keep` took, opens for writing with all of that back; without it that is Corrupt. Readers always do so.
    disk: a SimDisk or KillDisk, for tests.

    Raises: Locked, FileExistsError ("x"), FileNotFoundError ("r"), FormatError, KeyMissing, Corrupt, ValueError,
    OSError.
    """
    cdef jsc_mlog_options o
    cdef jsc_mlog_recovery found
    cdef const jsc_vfs *vfs = jsc_vfs_posix()
    cdef bytes name = os.fsencode(path)
    cdef str given = os.fsdecode(name)
    cdef const char *directory
    cdef Log log = Log.__new__(Log)
    cdef int rc
    memset(&o, 0, sizeof(o))
    memset(&found, 0, sizeof(found))
    if mode not in ("a", "r", "x"):
        raise ValueError('mode is "a", "r" or "x"')
    if b"\0" in name:
        raise ValueError("embedded null byte")
    if not name:
        raise ValueError("an empty path names no directory")
    if disk is None:
        # Files are opened by name for as long as the log is open, wherever the process changes to.
        name = os.path.join(os.getcwdb(), name)
    directory = PyBytes_AS_STRING(name)
    o.sync_mode = JSC_SYNC_ALWAYS
    if sync == "never":
        o.sync_mode = JSC_SYNC_NEVER
    elif sync != "always":
        if isinstance(sync, bool) or not isinstance(sync, (int, float)) or not 0 < sync < LIFETIME:
            raise ValueError('sync is "always", "never" or seconds above 0')
        o.sync_mode = JSC_SYNC_INTERVAL
        o.interval_ns = max(1, int(sync * 1_000_000_000))
    if compression is not None:
        level = 3 if compression == "zstd" else compression
        if not isinstance(level, int) or not 1 <= level <= 19:
            raise ValueError('compression is None, "zstd" or a level from 1 to 19')
        o.zstd_level = level
    if keys is not None:
        keys = keys if isinstance(keys, Keys) else Keys(keys)
        o.keys = (<Keys>keys).handle
    o.segment_bytes = amount_of(segment_bytes, "segment_bytes")
    if not 4 << 10 <= o.segment_bytes <= 16 << 30:
        raise ValueError("segment_bytes is from 4 KiB to 16 GiB")
    o.memory_bytes = amount_of(memory, "memory")
    o.read_only = mode == "r"
    o.check_lock = exclusive and o.read_only
    o.without_checkpoint = without_checkpoint
    o.background = background and not o.read_only
    o.scrub_bytes_per_s = 0 if scrub is None else amount_of(scrub, "scrub") if scrub else UINT64_MAX
    if disk is not None:
        vfs = (<Disk?>disk).vfs
        log.disk = disk
    if mode == "x" and holds_a_log(vfs, directory):
        raise FileExistsError(EEXIST, os.strerror(EEXIST), given)
    log.path = given
    log.mode = mode
    with nogil:
        rc = jsc_mlog_open(vfs, directory, &o, &log.husk, &found)
    if rc != JSC_OK:
        log.husk = NULL
        if rc == JSC_ECORRUPT and found.unsure:
            raise Corrupt("the checkpoint and its copy are lost, and the records alone do not say which messages "
                          "limits and purges took; see without_checkpoint")
    log.check(rc)
    log.handle = log.husk
    log.always = o.sync_mode == JSC_SYNC_ALWAYS
    log.sync_mode = sync
    log.recovery = Recovery(found.log.torn_bytes, found.log.damaged_index, found.log.message.decode("utf-8", "replace"),
                            found.sidecars_rebuilt, found.checkpoint_rebuilt, found.unsure)
    open_logs.add(log)
    if not o.read_only:
        try:
            log.set_limits(max_messages=max_messages, max_bytes=max_bytes, max_per_subject=max_per_subject,
                           max_age=max_age, sync=log.always)
        except BaseException:
            log.abandon()
            raise
    return log


cdef void note_log(void *ctx, const char *name) noexcept nogil:
    cdef size_t n = strlen(name)
    if n > 4 and memcmp(name + n - 4, b".seg", 4) == 0:
        (<int *>ctx)[0] = 1


cdef bint holds_a_log(const jsc_vfs *vfs, const char *directory) noexcept:
    cdef int found = 0
    vfs.list(vfs.self, directory, note_log, &found)
    return found
