"""Columns of a segment, as the log has them in memory."""


@cython.final
@cython.no_gc
cdef class ColumnsHold:
    """Keeps the columns of one segment."""

    def __dealloc__(self):
        if self.log is not None and not self.log.forked:
            jsc_columns_release(self.log.husk, &self.c)

    @property
    def count(self) -> int:
        return self.c.count

    @property
    def last(self) -> int:
        """The last sequence in it."""
        return self.c.seq[self.c.count - 1] if self.c.count else 0

    def column(self, str name):
        cdef Column column = Column.__new__(Column)
        column.hold = self
        column.shape[0] = self.c.count
        if name == "seq":
            column.p, column.format, column.strides[0] = self.c.seq, b"Q", 8
        elif name == "ts":
            column.p, column.format, column.strides[0] = self.c.ts, b"q", 8
        elif name == "size":
            column.p, column.format, column.strides[0] = self.c.size, b"I", 4
        else:
            raise ValueError(f'columns are "seq", "ts" and "size", not {name!r}')
        return column

    def live(self) -> bytes:
        """A byte for each message: 1, or 0 for a deleted one."""
        cdef bytes flags = PyBytes_FromStringAndSize(NULL, self.c.count)
        cdef char *to = PyBytes_AS_STRING(flags)
        cdef uint32_t i
        memset(to, 1, self.c.count)
        if self.c.dead != NULL:
            for i in range(self.c.count):
                to[i] = not (self.c.dead[i >> 6] >> (i & 63)) & 1
        return flags


@cython.final
@cython.no_gc
cdef class Column:
    """Exports one column, read-only."""

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE == PyBUF_WRITABLE:
            raise BufferError("a column is read-only")
        view.obj = self
        view.buf = <void *>self.p
        view.itemsize = self.strides[0]
        view.len = self.shape[0] * self.strides[0]
        view.readonly = 1
        view.ndim = 1
        view.format = <char *>self.format if flags & PyBUF_FORMAT else NULL
        view.shape = self.shape
        view.strides = self.strides
        view.suboffsets = NULL
        view.internal = NULL
