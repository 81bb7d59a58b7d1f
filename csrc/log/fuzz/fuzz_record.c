/* Bytes of a damaged disk or a hostile leader against the record decoder, and what verifies against a log that takes
 * records as they come. */
#include "../format.h"
#include "../../base/fuzz/driver.h"
#include "../jsc.h"

static volatile uint8_t seen;
static void touch(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) seen ^= (uint8_t)p[i];
}

/* Makes each record's checksum fit again, so that the checks behind it are reached. */
static void mend(uint8_t *p, size_t n) {
    while (n >= 8) {
        uint32_t len = p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24;
        if (len < 8 || len > n) return;
        uint32_t crc = jsc_crc32c(0, p + 4, len - 4);
        for (int i = 0; i < 4; i++) p[i] = (uint8_t)(crc >> (8 * i));
        size_t whole = ((size_t)len + 7) & ~(size_t)7;
        if (whole > n) return;
        p += whole;
        n -= whole;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static jsc_sim *sim;
    static jsc_store *store;
    static jsc_log *log;
    static int opened;
    if (n < 1 || n > 65536) return 0;
    uint8_t *p = malloc(n); /* exactly as long as it says: ASan sees the first byte too far */
    memcpy(p, data + 1, --n);
    if (data[0] & 1) mend(p, n);
    for (size_t at = 0, used; at < n; at += used) {
        jsc_record r;
        if (jsc_record_decode(p + at, n - at, &r, &used) != JSC_OK) break;
        if (!used || used > n - at) abort();
        touch(r.subject, r.subject_len);
        touch(r.headers, r.headers_len);
        touch(r.data, r.data_len);
    }
    if (!sim) sim = jsc_sim_new(1);
    if (!store && jsc_store_open(jsc_sim_vfs(sim), JSC_SYNC_NEVER, 0, &store)) abort();
    if (!log) {
        char name[32];
        jsc_log_recovery rec;
        snprintf(name, sizeof name, "log%d", opened++);
        if (jsc_log_open(store, name, NULL, &log, &rec)) abort();
    }
    uint64_t before = jsc_log_last(log);
    /* Bit 2: as if somebody had verified them: lengths are believed all the same. */
    int rc = (data[0] & 4 ? jsc_log_append_verified : jsc_log_append_raw)(log, p, n, data[0] & 2 ? before + 1 : 1);
    if (rc != JSC_OK && jsc_log_last(log) != before) abort(); /* all or nothing */
    for (uint64_t i = before + 1; i <= jsc_log_last(log); i++) {
        jsc_record r;
        if (jsc_log_read(log, i, &r) != JSC_OK) abort();
        touch(r.data, r.data_len);
    }
    if (jsc_log_last(log) - jsc_log_first(log) > 2000) { /* a small log keeps rounds short */
        jsc_log_close(log);
        log = NULL;
    }
    free(p);
    return 0;
}

static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    uint8_t seed[4096];
    jsc_sim *sim = jsc_sim_new(2);
    jsc_store *store;
    jsc_log *log;
    jsc_log_recovery rec;
    size_t n = 0;
    uint64_t index, last;
    if (jsc_store_open(jsc_sim_vfs(sim), JSC_SYNC_NEVER, 0, &store) || jsc_log_open(store, "seed", NULL, &log, &rec))
        abort();
    for (int i = 0; i < 6; i++)
        if (jsc_log_append(log, 1 + (uint32_t)i / 3, 1000 + i, JSC_K_MESSAGE, "a.b", 3, "NATS/1.0\r\n\r\n",
                           i % 2 ? 12 : 0, "payload", (size_t)i, &index))
            abort();
    if (jsc_log_copy(log, 1, 6, seed, sizeof seed, &n, &last) || last != 6) abort();
    jsc_log_close(log);
    jsc_store_close(store);
    jsc_sim_free(sim);
    p->lead = 1;
    p->draw[0] = 255;
    p->likes = "\0\1\377\177\200\10";
    p->nlikes = 6;
    jsc_fuzz_add(p, "\1", seed, n);
}
