"""Python's values as the log takes them: spans of bytes, subjects, keys, filters."""

cdef int LIFETIME = 1 << 30  # seconds


cdef struct Borrowed:
    Py_buffer views[2]
    int n


cdef inline int borrow(object data, jsc_span *out, Borrowed *held) except -1:
    """Bytes of an object for the length of a call; give_back() ends it."""
    if PyBytes_Check(data):
        out.p = PyBytes_AS_STRING(data)
        out.n = PyBytes_GET_SIZE(data)
        return 0
    PyObject_GetBuffer(data, &held.views[held.n], PyBUF_SIMPLE)
    out.p = <const char *>held.views[held.n].buf
    out.n = held.views[held.n].len
    held.n += 1
    return 0


cdef inline void give_back(Borrowed *held) noexcept:
    while held.n:
        held.n -= 1
        PyBuffer_Release(&held.views[held.n])


cdef inline object text_of(object text, jsc_span *out):
    """A subject's bytes; they live as long as what is returned."""
    cdef Py_ssize_t n = 0
    cdef const char *p
    if PyUnicode_Check(text):
        p = PyUnicode_AsUTF8AndSize(text, &n)
        if p != NULL:
            out.p = p
            out.n = n
            return text
        PyErr_Clear()
        text = text.encode("utf-8", "surrogateescape")
    elif not PyBytes_Check(text):
        raise TypeError("a subject is str or bytes")
    out.p = PyBytes_AS_STRING(text)
    out.n = PyBytes_GET_SIZE(text)
    return text


cdef inline object text_from(const char *p, size_t n):
    return PyUnicode_DecodeUTF8(p, n, "surrogateescape")


cdef int64_t nanoseconds(object timeout) except? -2:
    """A timeout in seconds; None, or more than anybody lives: no end. Raises: ValueError (no number)."""
    if timeout is None or timeout > LIFETIME:
        return -1
    return max(0, int(timeout * 1_000_000_000))


cdef uint64_t amount_of(object n, str what) except? 0:
    """A count or a sequence that bounds something: what is beyond 63 bits is beyond every log. Raises: ValueError."""
    n = PyNumber_Index(n)
    if n < 0:
        raise ValueError(f"{what} is not below 0")
    return min(n, INT64_MAX)


cdef inline int number_of(object key, uint64_t *out) except -1:
    """A sequence; what is no positive 64-bit number names no message."""
    cdef int overflow = 0
    cdef long long n
    if not PyLong_CheckExact(key):
        key = PyNumber_Index(key)
    n = PyLong_AsLongLongAndOverflow(key, &overflow)
    if overflow or n < 1:
        raise NotFound(f"no message {key}", seq=key)
    out[0] = n
    return 0


@cython.final
cdef class Keys:
    """Master keys of encryption at rest: {id: 32 bytes}, ids from 1. New files use `current` (the highest id unless
    given), old ones the key they name. Raises: ValueError."""

    def __cinit__(self, keys, *, current=None):
        cdef uint32_t *ids = NULL
        cdef uint8_t *bytes_ = NULL
        cdef size_t i, n
        cdef int rc
        entries = sorted(({1: keys} if isinstance(keys, (bytes, bytearray, memoryview)) else dict(keys)).items())
        n = len(entries)
        if not n or any(not 0 < key_id < 1 << 32 or len(key) != JSC_KEY_BYTES for key_id, key in entries):
            raise ValueError(f"keys are {{id: {JSC_KEY_BYTES} bytes}} with ids from 1")
        if current is None:
            current = entries[n - 1][0]
        elif current not in dict(entries):
            raise ValueError("the current key is one of the keys")
        ids = <uint32_t *>malloc(n * sizeof(uint32_t))
        bytes_ = <uint8_t *>malloc(n * JSC_KEY_BYTES)
        try:
            if ids == NULL or bytes_ == NULL:
                raise MemoryError()
            for i in range(n):
                ids[i] = entries[i][0]
                key = bytes(entries[i][1])
                memcpy(bytes_ + i * JSC_KEY_BYTES, PyBytes_AS_STRING(key), JSC_KEY_BYTES)
            rc = jsc_keys_new(ids, <const uint8_t (*)[32]>bytes_, n, current, &self.handle)
        finally:
            if bytes_ != NULL:
                memset(bytes_, 0, n * JSC_KEY_BYTES)
            free(bytes_)
            free(ids)
        if rc != JSC_OK:
            raise ValueError("keys are not usable")

    @property
    def current(self) -> int:
        """Id of the key for what is written from now on."""
        return jsc_keys_current(self.handle)

    def __dealloc__(self):
        if self.handle != NULL:
            jsc_keys_unref(self.handle)


@cython.final
cdef class Filter:
    """Compiled subject filters; no texts: everything matches."""

    def __cinit__(self, *texts):
        cdef size_t n = len(texts), i
        cdef jsc_span *spans = <jsc_span *>PyMem_Malloc((n + 1) * sizeof(jsc_span))
        if spans == NULL:
            raise MemoryError()
        try:
            kept = [text_of(texts[i], &spans[i]) for i in range(n)]
            rc = jsc_filter_new(spans, n, &self.handle)
        finally:
            PyMem_Free(spans)
        if rc == JSC_EINVAL:
            raise ValueError(f"not a subject filter: {kept if n > 1 else kept[0]!r}")
        if rc != JSC_OK:
            raise MemoryError()

    def __dealloc__(self):
        jsc_filter_free(self.handle)


cdef Filter ALL = Filter()


@cython.final
cdef class Batch:
    """Messages for extend(), borrowed from their objects until it goes."""

    cdef jsc_mlog_new *items
    cdef size_t n
    cdef list kept, views

    def __cinit__(self, items):
        cdef size_t i
        cdef jsc_mlog_new *m
        self.kept = list(items)
        self.views = []
        self.items = <jsc_mlog_new *>malloc((len(self.kept) + 1) * sizeof(jsc_mlog_new))
        if self.items == NULL:
            raise MemoryError()
        self.n = len(self.kept)
        for i in range(self.n):
            m = &self.items[i]
            memset(m, 0, sizeof(jsc_mlog_new))
            item = self.kept[i]
            if type(item) is not tuple:
                self.span(item, &m.data)
                continue
            if not 2 <= len(item) <= 4:
                raise ValueError("a message is data, (subject, data), (subject, data, headers) or those and a time")
            text = text_of(item[0], &m.subject)
            if text is not item[0]:
                self.views.append(text)
            self.span(item[1], &m.data)
            if len(item) > 2:
                self.span(item[2], &m.headers)
            if len(item) > 3:
                m.ts = unix_ns(item[3])

    cdef int span(self, object data, jsc_span *out) except -1:
        cdef Py_buffer *view
        if not PyBytes_Check(data):
            data = memoryview(data)
            if not data.c_contiguous:
                raise BufferError("a payload is contiguous")
            self.views.append(data)
            view = PyMemoryView_GET_BUFFER(data)
            out.p = <const char *>view.buf
            out.n = view.len
            return 0
        out.p = PyBytes_AS_STRING(data)
        out.n = PyBytes_GET_SIZE(data)
        return 0

    def __dealloc__(self):
        free(self.items)
