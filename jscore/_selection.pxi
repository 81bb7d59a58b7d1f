"""The messages of a log that match subject filters."""

cdef enum:
    LISTED = 256  # subjects fetched under one hold of the log's lock


cdef struct Listing:
    jsc_subject_info found[LISTED]
    size_t offset[LISTED]
    int n
    char *text
    size_t used, cap


cdef int list_subject(void *ctx, const jsc_subject_info *info) noexcept nogil:
    """Runs under the log's lock: copies, and touches nothing of Python's. Other than 0: enough for now."""
    cdef Listing *to = <Listing *>ctx
    cdef char *more
    cdef size_t need = to.used + info.text.n
    if need > to.cap:
        more = <char *>realloc(to.text, need * 2)
        if more == NULL:
            return -ENOMEM
        to.text = more
        to.cap = need * 2
    if info.text.n:
        memcpy(to.text + to.used, info.text.p, info.text.n)
    to.found[to.n] = info[0]
    to.offset[to.n] = to.used
    to.used = need
    to.n += 1
    return 1 if to.n == LISTED else 0


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Selection:
    """Live messages whose subject matches one of some filters. It holds none of them: each call asks the log anew."""

    def __init__(self):
        raise TypeError("use Log.subject()")

    cdef Filter compiled(self):
        if self.filter is None:
            self.filter = Filter(*self.texts) if self.texts else ALL
        return self.filter

    cdef const char *literal(self, jsc_span *out) except? NULL:
        """Not NULL: the filter is one subject without wildcards, and this its text."""
        if len(self.texts) != 1:
            return NULL
        self.kept = text_of(self.texts[0], out)
        if memchr(out.p, c'*', out.n) != NULL or memchr(out.p, c'>', out.n) != NULL:
            return NULL
        return out.p

    cdef Message edge(self, bint backward):
        cdef jsc_span text
        cdef int rc
        cdef Log log = self.log
        cdef Message message
        if self.literal(&text) != NULL and (backward or self.start == 1):
            message = Message.__new__(Message)
            rc = jsc_mlog_get_end(log.live(), &text, backward, self.start, &message.m)
            if rc == JSC_OK:
                message.log = log
                return message
            if rc != JSC_ENOTFOUND:
                log.check(rc, message.m.seq)
        else:
            message = (self.__reversed__() if backward else self.__iter__())._step()
            if message is not None:
                return message
        raise NotFound("no message matches")

    def last(self) -> Message:
        """The newest message. Raises: NotFound, Corrupt."""
        return self.edge(True)

    def first(self) -> Message:
        """The oldest message. Raises: NotFound, Corrupt."""
        return self.edge(False)

    def count(self, after=0) -> int:
        """How many there are with a sequence above `after`."""
        cdef uint64_t n = 0
        cdef uint64_t start = max(self.start, amount_of(after, "a sequence") + 1)
        self.log.check(jsc_mlog_count(self.log.live(), self.compiled().handle, start, &n))
        return n

    def pending(self, seq) -> int:
        """How many a reader that has read up to `seq` has before it."""
        return self.count(seq)

    def after(self, seq) -> Selection:
        """The part of it with sequences above `seq`."""
        cdef Selection part = Selection.__new__(Selection)
        part.log = self.log
        part.texts = self.texts
        part.filter = self.filter
        part.start = max(self.start, amount_of(seq, "a sequence") + 1)
        return part

    def purge(self, *, keep=0, before=None, sync=None) -> int:
        """Deletes them, but for the newest `keep` of the one filter; returns how many. sync: as in Log.append().

        Raises: ValueError, and as Log.append()."""
        if self.start != 1 or (keep and len(self.texts) > 1):
            raise ValueError("a purge starts at the first message, and keeps the newest of one filter only")
        return sum([self.log.purge(text, before=before, keep=keep, sync=sync) for text in self.texts or [None]])

    def subjects(self):
        """Iterates over the subjects that match, ascending by bytes, as SubjectInfo, over all live messages."""
        cdef Listing *found
        cdef Log log = self.log
        cdef Filter filter = self.compiled()
        cdef const jsc_filter *handle = filter.handle
        cdef jsc_mlog *mlog
        cdef jsc_span behind
        cdef int rc, i
        last = None
        while True:
            mlog = log.live()
            found = <Listing *>malloc(sizeof(Listing))
            if found == NULL:
                raise MemoryError()
            memset(found, 0, sizeof(Listing))
            try:
                if last is not None:
                    behind.p = PyBytes_AS_STRING(last)
                    behind.n = PyBytes_GET_SIZE(last)
                log.calls += 1
                with nogil:
                    rc = jsc_mlog_subjects(mlog, handle, NULL if last is None else &behind, list_subject, found)
                log.leave()
                log.check(min(rc, 0))
                some = found.n
                listed = []
                for i in range(found.n):
                    listed.append(SubjectInfo(text_from(found.text + found.offset[i], found.found[i].text.n),
                                              found.found[i].count, found.found[i].first_seq, found.found[i].last_seq))
                if some:
                    i = some - 1
                    last = PyBytes_FromStringAndSize(found.text + found.offset[i], found.found[i].text.n)
            finally:
                free(found.text)
                free(found)
            yield from listed
            if some < LISTED:
                return

    def __iter__(self):
        return self.log.walk(self.compiled(), self.start, 0, False)

    def __reversed__(self):
        return self.log.walk(self.compiled(), INT64_MAX, self.start - 1, True)

    def __len__(self):
        return self.count()

    def __bool__(self):
        try:
            self.edge(True)
        except NotFound:
            return False
        except Corrupt:
            pass
        return True

    def __repr__(self):
        return f"<jscore.Selection {self.texts} of {self.log!r}>"
