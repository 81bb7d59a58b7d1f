/* Bytes of a hostile peer or a bad disk against the record decoder and jsc_log_append_raw. First byte, bit 0: checksums
 * are mended first, so that what lies behind them is reached. */
#include "../format.h"
#include "../../base/fuzz/driver.h"
#include "../../base/jsc_vfs.h"
#include <stdio.h>
#include <stdlib.h>

static void inside(const uint8_t *p, size_t n, const void *part, size_t len) {
    const uint8_t *q = part;
    if (len && (q < p || q > p + n || len > (size_t)(p + n - q))) abort();
}

static void mend(uint8_t *p, size_t n) {
    for (size_t at = 0; n - at >= JSC_RECORD_HEAD;) {
        uint32_t len = jsc_get32(p + at + 4);
        if (len < JSC_RECORD_HEAD || len > n - at) return;
        jsc_put32(p + at, jsc_crc32c(0, p + at + 4, len - 4));
        if (JSC_PAD(len) > n - at) return;
        at += JSC_PAD(len);
    }
}

static jsc_log *new_log(void) {
    jsc_store *store;
    jsc_log *log;
    jsc_log_recovery rec;
    if (jsc_store_open(jsc_sim_vfs(jsc_sim_new(1)), JSC_SYNC_NEVER, 0, &store)) abort();
    if (jsc_log_open(store, "log", &(jsc_log_options){.segment_bytes = 0}, &log, &rec)) abort();
    return log;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static jsc_log *log; /* one for all inputs: each leaves it empty */
    if (n < 1 || n > 65536) return 0;
    if (!log) log = new_log();
    uint8_t *p = malloc(n > 1 ? n - 1 : 1); /* its own, so that a byte read behind the end is noticed */
    if (!p) return 0;
    memcpy(p, data + 1, n - 1);
    if (data[0] & 1) mend(p, n - 1);
    size_t used;
    jsc_record r;
    jsc_trailer t;
    for (size_t at = 0; at < n - 1 && jsc_record_decode(p + at, n - 1 - at, &r, &used) == JSC_OK; at += used) {
        if (!used || used > n - 1 - at) abort();
        inside(p, n - 1, r.subject, r.subject_len);
        inside(p, n - 1, r.headers, r.headers_len);
        inside(p, n - 1, r.data, r.data_len);
        inside(p, n - 1, r.raw, r.raw_len);
        (void)jsc_trailer_decode(&r, &t);
    }
    jsc_segment_head head;
    if (n > JSC_SEGMENT_HEAD) (void)jsc_segment_head_decode(p, &head);
    int rc = jsc_log_append_raw(log, p, n - 1, 0);
    if (rc == JSC_OK && jsc_log_last(log) >= jsc_log_first(log)) {
        if (jsc_log_truncate(log, jsc_log_first(log) - 1)) abort();
    } else if (jsc_log_last(log) >= jsc_log_first(log)) {
        abort(); /* refused, and yet something was appended */
    }
    free(p);
    return 0;
}

/* Three records as a leader sends them: plain, with headers, empty. */
static size_t seed(uint8_t *out, size_t cap) {
    jsc_log *log = new_log();
    uint64_t index, last;
    size_t n;
    if (jsc_log_append(log, 1, 1, JSC_K_MESSAGE, "a.b", 3, NULL, 0, "hello", 5, &index)) abort();
    if (jsc_log_append(log, 1, 2, JSC_K_MESSAGE, "c", 1, "NATS/1.0\r\n\r\n", 12, "world", 5, &index)) abort();
    if (jsc_log_append(log, 2, 3, JSC_K_NOOP, NULL, 0, NULL, 0, NULL, 0, &index)) abort();
    if (jsc_log_copy(log, 1, index, out, cap, &n, &last) || last != index) abort();
    return n;
}

static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    uint8_t first[4096];
    size_t n = seed(first, sizeof first);
    p->lead = 1;
    p->draw[0] = 1;
    p->likes = "\0\1\377\177\200\10";
    p->nlikes = 6;
    jsc_fuzz_add(p, "\1", first, n);
}
