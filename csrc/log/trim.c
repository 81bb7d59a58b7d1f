/* Letting go of a prefix of a record log, whole segments at a time. Who calls it has a snapshot that is durable. */
#include "log_internal.h"

/* How many segments from the start hold nothing at or above `keep` and are done with. */
static size_t droppable(const jsc_log *log, uint64_t keep) {
    size_t n = 0;
    while (n + 1 < log->nsegments && log->segments[n + 1]->first <= keep) {
        const jsc_segment *s = log->segments[n];
        if (!s->closed || !atomic_load_explicit((_Atomic bool *)(uintptr_t)&s->left, memory_order_acquire)) break;
        n++;
    }
    return n;
}

uint64_t jsc_log_trimmable(const jsc_log *log, uint64_t keep) {
    uint64_t bytes = 0;
    for (size_t n = droppable(log, keep), i = 0; i < n; i++) bytes += log->segments[i]->used;
    return bytes;
}

uint64_t jsc_log_open_bytes(const jsc_log *log, uint64_t keep) {
    const jsc_segment *s = log->nsegments ? log->segments[log->nsegments - 1] : NULL;
    if (!s || s->closed || !s->at || keep <= s->first) return 0;
    uint64_t k = keep - s->first;
    return k < s->count ? (uint64_t)s->at[k] * 8 : s->used;
}

int jsc_log_trim(jsc_log *log, uint64_t keep, size_t most) {
    if (log->read_only) return JSC_EREADONLY;
    if (atomic_load(&log->error) != JSC_OK) return JSC_EFAILED;
    size_t n = droppable(log, keep);
    if (n > most) n = most;
    if (!n) return JSC_OK;
    jsc_chunks_recycle(log, 0); /* what was written of them long ago is not kept for reads */
    return jsc_log_replace(log, 0, n, NULL);
}

uint64_t jsc_log_synced(const jsc_log *log) {
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)&log->synced, memory_order_acquire);
}
