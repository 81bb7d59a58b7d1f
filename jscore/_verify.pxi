"""What the callbacks of a verification leave behind. They run without the log's lock, so they may take the GIL."""


@cython.final
cdef class Verification:
    cdef object progress, raised
    cdef list findings

    def __cinit__(self, progress):
        self.progress = progress
        self.findings = []


cdef void note_finding(void *ctx, const char *file, uint64_t offset, const char *what) noexcept with gil:
    (<Verification>ctx).findings.append(Finding(os.fsdecode(file), offset, what.decode("utf-8", "replace")))


cdef int note_progress(void *ctx, uint64_t done, uint64_t total) noexcept with gil:
    cdef Verification run = <Verification>ctx
    try:
        PyErr_CheckSignals()
        if run.progress is not None:
            run.progress(done, total)
    except BaseException as err:
        run.raised = err
        return 1
    return 0
