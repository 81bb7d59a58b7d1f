# cython: language_level=3
"""log/jsc.h again, in its order, and the classes that the server's Cython module shares."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "base/jsc_base.h" nogil:
    enum:
        JSC_OK
        JSC_ENOTFOUND
        JSC_ECORRUPT
        JSC_EFORMAT
        JSC_EINVAL
        JSC_EFAILED
        JSC_EFULL
        JSC_ELOCKED
        JSC_EHOST
        JSC_EORDER
        JSC_EKEY
        JSC_EREADONLY
    uint32_t jsc_crc32c(uint32_t crc, const void *data, size_t n)


cdef extern from "base/jsc_vfs.h" nogil:
    ctypedef struct jsc_vfs:
        void *self
        int (*list)(void *self, const char *path, void (*each)(void *ctx, const char *name) noexcept nogil, void *ctx)
        int (*unlink)(void *self, const char *path)
        int (*syncdir)(void *self, const char *path)
    const jsc_vfs *jsc_vfs_posix()
    ctypedef struct jsc_sim:
        pass
    jsc_sim *jsc_sim_new(uint64_t seed)
    void jsc_sim_free(jsc_sim *)
    const jsc_vfs *jsc_sim_vfs(jsc_sim *)
    void jsc_sim_crash(jsc_sim *, int keep_percent, int torn)
    void jsc_sim_fail(jsc_sim *, int op, int n, int err)
    void jsc_sim_die(jsc_sim *, int n, int err)
    void jsc_sim_capacity(jsc_sim *, uint64_t bytes)
    uint64_t jsc_sim_used(jsc_sim *)
    void jsc_sim_habits(jsc_sim *, int short_percent, int drop_percent)
    uint64_t jsc_sim_calls(jsc_sim *, int op)
    int jsc_sim_flip(jsc_sim *, const char *path, uint64_t offset, int bit)
    int jsc_sim_patch(jsc_sim *, const char *path, uint64_t at, const void *bytes, size_t n)
    int jsc_sim_resize(jsc_sim *, const char *path, uint64_t size)
    int jsc_sim_bad(jsc_sim *, const char *path, uint64_t lo, uint64_t hi)
    int64_t jsc_sim_read(jsc_sim *, const char *path, uint64_t at, void *buf, size_t n)
    int64_t jsc_sim_size(jsc_sim *, const char *path)
    int64_t jsc_sim_synced(jsc_sim *, const char *path)
    ctypedef struct jsc_kill:
        pass
    jsc_kill *jsc_kill_new(const jsc_vfs *under, uint64_t n, int when)
    void jsc_kill_free(jsc_kill *)
    const jsc_vfs *jsc_kill_vfs(jsc_kill *)
    uint64_t jsc_kill_calls(const jsc_kill *, int op)


cdef extern from "log/jsc.h" nogil:
    enum:
        JSC_FORMAT_VERSION
        JSC_K_MESSAGE
        JSC_K_NOOP
        JSC_K_CONFIG
        JSC_K_MEMBERS
        JSC_K_PURGE
        JSC_K_DELETE
        JSC_K_CONSUMER_CREATE
        JSC_K_CONSUMER_DELETE
        JSC_K_CONSUMER_STATE
        JSC_K_HOST
        JSC_K_TRAILER
    ctypedef struct jsc_record:
        uint64_t index
        int64_t ts
        uint32_t term
        uint8_t kind, flags
        uint16_t subject_len
        uint32_t headers_len, data_len
        const char *subject
        const char *headers
        const char *data
        const uint8_t *raw
        uint32_t raw_len
    int jsc_record_decode(const void *p, size_t n, jsc_record *out, size_t *used)
    ctypedef struct jsc_store:
        pass
    ctypedef struct jsc_log:
        pass
    enum:
        JSC_SYNC_ALWAYS
        JSC_SYNC_INTERVAL
        JSC_SYNC_NEVER
    int jsc_store_open(const jsc_vfs *vfs, int sync_mode, int64_t interval_ns, jsc_store **out)
    int jsc_store_hands(jsc_store *, int most)
    int jsc_store_eventfd(jsc_store *)
    int jsc_store_poll(jsc_store *, jsc_log **out, int max)
    void jsc_store_relax(jsc_store *)
    void jsc_store_close(jsc_store *)
    ctypedef struct jsc_log_options:
        uint64_t segment_bytes
        uint64_t first_index
        uint32_t first_term
        uint64_t keep
    ctypedef struct jsc_log_recovery:
        uint64_t torn_bytes
        uint64_t damaged_index
        uint64_t commit
        char message[256]
    int jsc_log_open(jsc_store *, const char *dir, const jsc_log_options *, jsc_log **out, jsc_log_recovery *rec)
    int jsc_log_close(jsc_log *)
    void jsc_log_abandon(jsc_log *)
    int jsc_log_append(jsc_log *, uint32_t term, int64_t ts, uint8_t kind, const void *subject, size_t subject_len,
                       const void *headers, size_t headers_len, const void *data, size_t data_len, uint64_t *index)
    int jsc_log_append_raw(jsc_log *, const void *bytes, size_t n, uint64_t from_)
    int jsc_log_append_verified(jsc_log *, const void *bytes, size_t n, uint64_t from_)
    int jsc_log_submit(jsc_log *)
    int jsc_log_submit_now(jsc_log *)
    int jsc_log_mark(jsc_log *)
    int jsc_log_truncate(jsc_log *, uint64_t last)
    uint64_t jsc_log_first(const jsc_log *)
    uint64_t jsc_log_last(const jsc_log *)
    uint64_t jsc_log_durable(const jsc_log *)
    int jsc_log_error(const jsc_log *)
    uint64_t jsc_log_synced(const jsc_log *)
    uint64_t jsc_log_bytes(const jsc_log *)
    int jsc_log_trim(jsc_log *, uint64_t keep, size_t most)
    uint64_t jsc_log_trimmable(const jsc_log *, uint64_t keep)
    uint64_t jsc_log_open_bytes(const jsc_log *, uint64_t keep)
    int jsc_log_roll(jsc_log *)
    void jsc_log_set_commit(jsc_log *, uint64_t commit)
    int jsc_log_wait(jsc_log *, uint64_t index, int64_t timeout_ns)
    int jsc_log_read(jsc_log *, uint64_t index, jsc_record *out)
    int jsc_log_term(jsc_log *, uint64_t index, uint32_t *term)
    int jsc_log_copy(jsc_log *, uint64_t lo, uint64_t hi, void *buf, size_t cap, size_t *n, uint64_t *last)


cdef extern from "log/snapshot.h" nogil:
    ctypedef struct jsc_snapshot_head:
        uint64_t index
        uint64_t first
        uint32_t term
        uint32_t before
    enum: JSC_SNAPSHOT_HEAD
    void jsc_snapshot_seal(uint8_t *file, size_t n, const jsc_snapshot_head *)
    int jsc_snapshot_check(const uint8_t *file, size_t n, jsc_snapshot_head *out)
    int jsc_snapshot_write(const jsc_vfs *, const char *dir, const uint8_t *file, size_t n)
    int jsc_snapshot_read(const jsc_vfs *, const char *dir, uint8_t **file, size_t *n, int *hurt)


cdef class Disk:
    cdef const jsc_vfs *vfs


cdef class SimDisk(Disk):
    cdef jsc_sim *sim


cdef class KillDisk(Disk):
    cdef jsc_kill *kill


cdef class Store:
    cdef jsc_store *handle
    cdef object disk      # keeps a simulated disk alive
    cdef dict logs        # handle address -> RecordLog

    cdef jsc_store *live(self) except NULL


cdef class RecordLog:
    cdef jsc_log *handle
    cdef Store store
    cdef readonly str path
    cdef readonly object recovery

    cdef jsc_log *live(self) except NULL
    cdef jsc_log *take(self)


cdef int check(int rc) except -1
