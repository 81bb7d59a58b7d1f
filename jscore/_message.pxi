"""Messages, whose bytes stay in the log's own memory or mapping, and walks over them."""

cdef const char *NOTHING = b""  # where an empty buffer points


@cython.final
@cython.no_gc
@cython.freelist(1024)
cdef class Message:
    """One message. It exports its payload as a read-only buffer, bytes(message) copies it; the bytes stay readable as
    long as the object or a view of it lives, whatever happens to the log meanwhile."""

    def __init__(self):
        raise TypeError("messages come from a log")

    def __dealloc__(self):
        if self.log is not None and not self.log.forked:
            jsc_message_release(self.log.husk, &self.m)

    @property
    def seq(self) -> int:
        """Its sequence in the log."""
        return self.m.seq

    @property
    def ts(self) -> int:
        """Its time, unix ns."""
        return self.m.r.ts

    @property
    def subject(self) -> str:
        """Its subject; bytes that are not UTF-8 come as surrogate escapes."""
        return text_from(self.m.r.subject, self.m.r.subject_len)

    @property
    def data(self) -> memoryview:
        """Its payload, not copied."""
        return PyMemoryView_FromObject(self)

    @property
    def headers(self) -> memoryview:
        """Its headers, not copied."""
        cdef Headers headers = Headers.__new__(Headers)
        headers.message = self
        return PyMemoryView_FromObject(headers)

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return self.m.r.data_len

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef jsc_record *r = &self.m.r
        PyBuffer_FillInfo(view, self, <void *>(r.data if r.data_len else NOTHING), r.data_len, 1, flags)

    def __repr__(self):
        return f"<jscore.Message {self.m.seq} {self.subject!r} {self.m.r.data_len} bytes>"


@cython.final
@cython.no_gc
cdef class Headers:
    """Exports a message's headers and keeps it."""

    cdef Message message

    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef jsc_record *r = &self.message.m.r
        PyBuffer_FillInfo(view, self, <void *>(r.headers if r.headers_len else NOTHING), r.headers_len, 1, flags)


@cython.final
@cython.no_gc
cdef class Messages:
    """Iterator over live messages. One thread at a time; next() after Corrupt goes on behind the damage."""

    def __init__(self):
        raise TypeError("iterate over a log")

    def __dealloc__(self):
        if self.log is not None and not self.log.forked:
            self.drop()

    cdef void drop(self) noexcept:
        """Gives everything back and leaves the log's list: at the end, or when the log closes."""
        if self.cursor == NULL:
            return
        while self.at < self.n:
            jsc_message_release(self.log.husk, &self.batch[self.at])
            self.at += 1
        jsc_cursor_free(self.cursor)
        self.cursor = NULL
        if self.before != NULL:
            (<Messages>self.before).behind = self.behind
        else:
            self.log.iterators = self.behind
        if self.behind != NULL:
            (<Messages>self.behind).before = self.before

    cdef int fill(self) except -1:
        """Fetches the next batch; at == n: there is none now."""
        cdef int rc, n = 0
        cdef jsc_message first
        self.log.live()
        if self.busy:
            raise ValueError("another thread is in this iterator")
        self.busy = True
        self.log.calls += 1
        self.at = self.n = 0
        with nogil:
            rc = jsc_cursor_next(self.cursor, self.batch, self.want, &n)
        self.n = n
        self.busy = False
        self.log.leave()
        if rc == JSC_ECORRUPT:
            first = self.batch[0]
            self.n = 0
            if not self.beyond(first.seq):
                self.log.check(rc, first.seq)
            return 0
        self.log.check(rc)
        # A short walk fetches little, a long one pays for the lock and the GIL once in 64 messages.
        if self.want < 64:
            self.want *= 4
        return 0

    cdef inline bint beyond(self, uint64_t seq) noexcept:
        return self.stop and (seq <= self.stop if self.backward else seq >= self.stop)

    cdef Message step(self):
        """The next message, or None when there is none now."""
        cdef Message message
        cdef Log log = self.log
        if log.handle == NULL:
            log.live()
        if self.at == self.n:
            self.fill()
            if self.at == self.n:
                return None
        if self.beyond(self.batch[self.at].seq):
            return None
        message = Message.__new__(Message)
        message.m = self.batch[self.at]
        message.log = log
        self.at += 1
        return message

    def __iter__(self):
        return self

    def __next__(self):
        cdef Message message
        if self.ended:
            raise StopIteration
        message = self.step()
        if message is None:
            self.ended = True
            self.drop()
            raise StopIteration
        return message

    def _step(self):
        return self.step()
