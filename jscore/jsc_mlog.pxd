# cython: language_level=3
"""log/crypt.h, log/filter.h and log/jsc_mlog.h again, in their order, declarations only."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from jscore._records cimport jsc_log_recovery, jsc_record, jsc_vfs


cdef extern from "<stdbool.h>" nogil:
    ctypedef bint c_bool "bool"

cdef extern from "log/crypt.h" nogil:
    enum:
        JSC_KEY_BYTES
    ctypedef struct jsc_keys:
        pass
    int jsc_keys_new(const uint32_t *ids, const uint8_t (*keys)[32], size_t n, uint32_t current, jsc_keys **out)
    void jsc_keys_unref(jsc_keys *)
    uint32_t jsc_keys_current(const jsc_keys *)


cdef extern from "log/filter.h" nogil:
    ctypedef struct jsc_span:
        const char *p
        size_t n
    ctypedef struct jsc_filter:
        pass
    int jsc_filter_new(const jsc_span *texts, size_t n, jsc_filter **out)
    void jsc_filter_free(jsc_filter *)


cdef extern from "log/jsc_mlog.h" nogil:
    ctypedef struct jsc_mlog:
        pass
    ctypedef struct jsc_limits:
        uint64_t max_messages
        uint64_t max_bytes
        uint64_t max_per_subject
        int64_t max_age_ns
    ctypedef struct jsc_mlog_options:
        int sync_mode
        int64_t interval_ns
        uint64_t segment_bytes
        uint64_t memory_bytes
        const jsc_limits *limits
        bint read_only
        bint check_lock
        bint without_checkpoint
        bint background
        int zstd_level
        jsc_keys *keys
        uint64_t compact_bytes_per_s
        uint64_t scrub_bytes_per_s
    ctypedef struct jsc_damage:
        uint64_t segment
        uint64_t offset
        uint64_t first
        uint64_t last
        uint64_t first_seq
        uint64_t last_seq
        bint seqs_exact
    ctypedef struct jsc_mlog_recovery:
        jsc_log_recovery log
        uint64_t sidecars_rebuilt
        bint checkpoint_rebuilt
        bint unsure

    int jsc_mlog_open(const jsc_vfs *, const char *dir, const jsc_mlog_options *, jsc_mlog **out, jsc_mlog_recovery *)
    int jsc_mlog_shut(jsc_mlog *, bint write)
    void jsc_mlog_free(jsc_mlog *)
    void jsc_mlog_forked(jsc_mlog *)

    int jsc_mlog_append(jsc_mlog *, const jsc_span *subject, const jsc_span *headers, const jsc_span *data, int64_t ts,
                        uint64_t *seq)
    ctypedef struct jsc_mlog_new:
        jsc_span subject
        jsc_span headers
        jsc_span data
        int64_t ts
    int jsc_mlog_extend(jsc_mlog *, const jsc_mlog_new *, size_t n, size_t *done, uint64_t *last_seq)
    int jsc_mlog_delete(jsc_mlog *, uint64_t seq)
    int jsc_mlog_purge(jsc_mlog *, const jsc_span *filter, uint64_t before_seq, uint64_t keep, uint64_t *n)
    int jsc_mlog_set_limits(jsc_mlog *, const jsc_limits *)

    int jsc_mlog_submit(jsc_mlog *, uint64_t *position)
    int jsc_mlog_wait(jsc_mlog *, uint64_t position, int64_t timeout_ns)
    int jsc_mlog_await(jsc_mlog *, uint64_t position, int64_t timeout_ns, c_bool *to_pass)
    void jsc_mlog_pass(jsc_mlog *)
    int jsc_mlog_sync(jsc_mlog *, int64_t timeout_ns)
    int jsc_mlog_let_seal(jsc_mlog *, int64_t timeout_ns)
    uint64_t jsc_mlog_position(jsc_mlog *)
    uint64_t jsc_mlog_durable_position(jsc_mlog *)
    uint64_t jsc_mlog_durable(jsc_mlog *)
    int jsc_mlog_error(jsc_mlog *)
    int jsc_mlog_eventfd(jsc_mlog *)
    uint64_t jsc_mlog_poll(jsc_mlog *)

    ctypedef struct jsc_message:
        uint64_t seq
        jsc_record r
        void *hold
        uint8_t hold_kind
    int jsc_mlog_get(jsc_mlog *, uint64_t seq, jsc_message *out)
    void jsc_message_release(jsc_mlog *, jsc_message *)
    uint64_t jsc_mlog_first(jsc_mlog *)
    uint64_t jsc_mlog_last(jsc_mlog *)
    int jsc_mlog_at(jsc_mlog *, int64_t ts, uint64_t *seq)
    int jsc_mlog_last_of(jsc_mlog *, const jsc_span *subject, uint64_t *seq)
    int jsc_mlog_first_of(jsc_mlog *, const jsc_span *subject, uint64_t *seq)
    int jsc_mlog_get_end(jsc_mlog *, const jsc_span *subject, bint last, uint64_t from_, jsc_message *out)
    int jsc_mlog_count(jsc_mlog *, const jsc_filter *, uint64_t from_, uint64_t *n)
    ctypedef struct jsc_subject_info:
        jsc_span text
        uint64_t count
        uint64_t first_seq
        uint64_t last_seq
    int jsc_mlog_subjects(jsc_mlog *, const jsc_filter *, const jsc_span *after,
                          int (*each)(void *ctx, const jsc_subject_info *) noexcept nogil, void *ctx)
    ctypedef struct jsc_cursor:
        pass
    int jsc_cursor_new(jsc_mlog *, const jsc_filter *, uint64_t from_, bint backward, jsc_cursor **out)
    void jsc_cursor_free(jsc_cursor *)
    int jsc_cursor_next(jsc_cursor *, jsc_message *out, int max, int *n)
    uint64_t jsc_cursor_position(const jsc_cursor *)

    ctypedef struct jsc_mlog_stats:
        uint64_t first_seq, last_seq, messages, message_bytes
        uint64_t segments, disk_bytes
        uint64_t first_index, last_index, durable_index, durable_seq
        uint64_t heap_bytes, tail_messages, tail_heap
        uint64_t lost_records
        uint64_t compactions, compacted_bytes, scrubbed_bytes, scrub_rounds
        jsc_limits limits
    int jsc_mlog_about(jsc_mlog *, jsc_mlog_stats *out)
    ctypedef struct jsc_columns:
        uint32_t count
        const uint64_t *seq
        const int64_t *ts
        const uint32_t *size
        const uint64_t *dead
        void *hold
    int jsc_mlog_columns(jsc_mlog *, uint64_t from_, jsc_columns *out)
    void jsc_columns_release(jsc_mlog *, jsc_columns *)

    int jsc_mlog_refresh(jsc_mlog *)
    int jsc_mlog_wait_beyond(jsc_mlog *, uint64_t seq, int64_t timeout_ns)

    enum:
        JSC_CARE_FLUSH
        JSC_CARE_SEAL
        JSC_CARE_COMPACT
        JSC_CARE_SCRUB
        JSC_CARE_ALL
    int jsc_mlog_maintain(jsc_mlog *, int what, bint force)
    int jsc_mlog_damage(jsc_mlog *, jsc_damage *out, size_t max, size_t *n)
    ctypedef struct jsc_verify:
        void (*finding)(void *ctx, const char *file, uint64_t offset, const char *what) noexcept nogil
        int (*progress)(void *ctx, uint64_t done, uint64_t total) noexcept nogil
        void *ctx
    int jsc_mlog_verify(jsc_mlog *, const jsc_verify *)
    int jsc_mlog_repair(jsc_mlog *, const void *raw, size_t n, uint64_t *healed)
    int jsc_mlog_copy_records(jsc_mlog *, uint64_t lo, uint64_t hi, uint8_t **out, size_t *n)
