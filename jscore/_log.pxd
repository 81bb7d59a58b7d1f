# cython: language_level=3
"""The message log for Cython: append and read without a Python object on the way but the message itself.

Compile with include_dirs=[jscore.get_include()]; nothing has to be linked. Every method holds the GIL.
"""
from libc.stdint cimport int64_t, uint64_t

from jscore.jsc_mlog cimport jsc_columns, jsc_cursor, jsc_filter, jsc_keys, jsc_message, jsc_mlog, jsc_span


cdef class Keys:
    cdef jsc_keys *handle


cdef class Filter:
    cdef jsc_filter *handle


cdef class Log:
    cdef jsc_mlog *handle    # NULL: closed, or the parent's
    cdef jsc_mlog *husk      # the same until this object goes: what held messages need
    cdef bint forked, always, crowded
    cdef uint64_t unpaced, paced  # bytes appended since the position `paced`
    cdef int calls           # under way with the GIL released; close() waits for them
    cdef object idle, turn   # locks: close() waits for the calls, append() for an extend() that waits for room
    cdef object verifying    # the thread that is in verify(), whose callback must not close
    cdef object disk         # keeps a simulated disk alive
    cdef readonly str path, mode
    cdef readonly object recovery, sync_mode
    cdef void *iterators     # the first of its Messages, not owned
    cdef object __weakref__

    cdef jsc_mlog *live(self) except NULL
    cdef int leave(self) except -1
    cdef int check(self, int rc, uint64_t seq=*) except -1
    cdef int wait_for(self, int what, uint64_t arg, int64_t timeout_ns) except -1
    cdef int make_room(self) except -1
    cdef int pace(self, bint wait) except -1
    cdef int care(self, int what, bint force) except -1
    cdef int shut(self, bint write) except -1
    cpdef disown(self)
    # Appends; not durable, not submitted. ts 0: now. Waits for the disk when too much is unwritten. The sequence.
    cdef uint64_t put(self, const jsc_span *subject, const jsc_span *headers, const jsc_span *data, int64_t ts) except 0
    # Returns when everything appended is durable as the log's sync mode has it.
    cdef int settle(self, object sync) except -1
    cdef Message fetch(self, uint64_t seq)
    cdef Messages walk(self, Filter filter, uint64_t from_, uint64_t stop, bint backward)


cdef class Message:
    cdef Log log             # None: nothing is held
    cdef jsc_message m


cdef class Messages:
    cdef Log log
    cdef Filter filter
    cdef jsc_cursor *cursor
    cdef jsc_message batch[64]
    cdef int at, n, want
    cdef bint backward, busy, ended
    cdef uint64_t stop
    cdef void *before
    cdef void *behind

    cdef Message step(self)
    cdef int fill(self) except -1
    cdef bint beyond(self, uint64_t seq) noexcept
    cdef void drop(self) noexcept


cdef class Selection:
    cdef readonly Log log
    cdef readonly tuple texts
    cdef object kept         # the bytes that a literal points to
    cdef Filter filter       # compiled at the first need
    cdef uint64_t start

    cdef Filter compiled(self)
    cdef const char *literal(self, jsc_span *out) except? NULL
    cdef Message edge(self, bint backward)


cdef class ColumnsHold:
    cdef Log log
    cdef jsc_columns c


cdef class Column:
    cdef ColumnsHold hold
    cdef const void *p
    cdef const char *format
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]
