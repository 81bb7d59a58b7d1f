/* The log engine over the simulated disk: round trips, power cuts, damage, failures. One process, many seeds. */
#include "../jsc.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s (seed %llu)\n", __FILE__, __LINE__, #x, (unsigned long long)seed);              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define OK(x)                                                                                                          \
    do {                                                                                                               \
        int rc_ = (x);                                                                                                 \
        if (rc_ != JSC_OK) {                                                                                           \
            fprintf(stderr, "%s:%d: %s = %d (seed %llu)\n", __FILE__, __LINE__, #x, rc_, (unsigned long long)seed);    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t seed;
static uint64_t state;
static uint64_t rnd(uint64_t n) {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}

/* Record i of generation g has contents that follow from (i, g). */
static size_t body_len(uint64_t i, uint32_t g) {
    uint64_t h = i * 1000003 + g * 7919;
    return h % 97 == 0 ? 20000 + h % 30000 : h % 300;
}

static int put_sized(jsc_log *log, uint64_t i, uint32_t g, size_t len) {
    static uint8_t body[400000];
    for (size_t k = 0; k < len; k++) body[k] = (uint8_t)(i * 31 + g * 17 + k);
    char subject[32], headers[64];
    int s = snprintf(subject, sizeof subject, "orders.%llu", (unsigned long long)i);
    int h = i % 3 == 0 ? snprintf(headers, sizeof headers, "NATS/1.0\r\nA: %llu\r\n\r\n", (unsigned long long)i) : 0;
    uint64_t at = 0;
    int rc = jsc_log_append(log, g, (int64_t)i * 10, JSC_K_MESSAGE, subject, (size_t)s, headers, (size_t)h, body, len, &at);
    if (rc == JSC_OK) CHECK(at == i);
    return rc;
}

static int put(jsc_log *log, uint64_t i, uint32_t g) { return put_sized(log, i, g, body_len(i, g)); }

static void check_record(jsc_log *log, uint64_t i, uint32_t g) {
    jsc_record r;
    OK(jsc_log_read(log, i, &r));
    char subject[32];
    int s = snprintf(subject, sizeof subject, "orders.%llu", (unsigned long long)i);
    CHECK(r.index == i && r.term == g && r.ts == (int64_t)i * 10 && r.kind == JSC_K_MESSAGE);
    CHECK(r.subject_len == s && memcmp(r.subject, subject, (size_t)s) == 0);
    CHECK((i % 3 == 0) == (r.headers_len > 0));
    CHECK(r.data_len == body_len(i, g));
    for (uint32_t k = 0; k < r.data_len; k++) CHECK((uint8_t)r.data[k] == (uint8_t)(i * 31 + g * 17 + k));
    uint32_t term;
    OK(jsc_log_term(log, i, &term));
    CHECK(term == g);
}

static jsc_store *store_on(const jsc_vfs *vfs, int mode) {
    jsc_store *s = NULL;
    OK(jsc_store_open(vfs, mode, 1000000, &s));
    return s;
}

static jsc_log *open_log(jsc_store *s, const char *dir, uint64_t segment_bytes, jsc_log_recovery *rec) {
    jsc_log *log = NULL;
    jsc_log_options o = {.segment_bytes = segment_bytes};
    OK(jsc_log_open(s, dir, &o, &log, rec));
    return log;
}

static void test_crc(void) {
    CHECK(jsc_crc32c(0, "123456789", 9) == 0xE3069283u);
    CHECK(jsc_crc32c(jsc_crc32c(0, "1234", 4), "56789", 5) == 0xE3069283u);
}

static void test_round_trip(const jsc_vfs *vfs, const char *dir, int mode, uint64_t segment_bytes) {
    jsc_store *s = store_on(vfs, mode);
    jsc_log_recovery rec;
    jsc_log *log = open_log(s, dir, segment_bytes, &rec);
    CHECK(jsc_log_first(log) == 1 && jsc_log_last(log) == 0);
    for (uint64_t i = 1; i <= 2000; i++) {
        OK(put(log, i, i < 500 ? 1 : 2));
        if (rnd(7) == 0) OK(jsc_log_submit(log));
        if (rnd(200) == 0) {
            OK(jsc_log_submit(log));
            OK(jsc_log_wait(log, i, -1));
            CHECK(jsc_log_durable(log) >= i);
        }
        uint64_t k = 1 + rnd(i);
        check_record(log, k, k < 500 ? 1 : 2);
    }
    jsc_log_set_commit(log, 1234);
    uint64_t bytes = jsc_log_bytes(log);
    OK(jsc_log_close(log));
    log = open_log(s, dir, segment_bytes, &rec);
    CHECK(rec.torn_bytes == 0 && rec.damaged_index == 0 && rec.commit == 1234 && !rec.message[0]);
    CHECK(jsc_log_last(log) == 2000 && jsc_log_durable(log) == 2000 && jsc_log_bytes(log) == bytes);
    for (uint64_t i = 1; i <= 2000; i++) check_record(log, i, i < 500 ? 1 : 2);
    jsc_record r;
    CHECK(jsc_log_read(log, 2001, &r) == JSC_ENOTFOUND && jsc_log_read(log, 0, &r) == JSC_ENOTFOUND);
    jsc_log *second = NULL;
    CHECK(jsc_log_open(s, dir, NULL, &second, NULL) == JSC_ELOCKED);
    OK(jsc_log_close(log));
    jsc_store_close(s);
}

/* Cut the power at a random moment of a random history; again and again on the same disk. */
static void test_crashes(int mode) {
    jsc_sim *disk = jsc_sim_new(seed);
    uint32_t *terms = calloc(20000, sizeof *terms);
    uint64_t last = 0, durable = 0; /* of the model */
    uint32_t generation = 1;
    uint64_t segment = 4096u << rnd(8);
    for (int round = 0; round < 6; round++, generation++) {
        jsc_store *s = store_on(jsc_sim_vfs(disk), mode);
        jsc_log_recovery rec;
        jsc_log *log = open_log(s, "/d/log", segment, &rec);
        uint64_t got = jsc_log_last(log);
        CHECK(rec.damaged_index == 0);
        CHECK(got <= last && got >= durable);
        for (uint64_t i = 1; i <= got; i++) check_record(log, i, terms[i]);
        last = durable = got;
        uint64_t steps = 1 + rnd(400);
        for (uint64_t k = 0; k < steps; k++) {
            uint64_t what = rnd(100);
            if (what < 70) {
                terms[last + 1] = generation;
                OK(put(log, ++last, generation));
            } else if (what < 90) {
                OK(jsc_log_submit(log));
            } else if (what < 96) {
                OK(jsc_log_submit(log));
                OK(jsc_log_wait(log, last, -1));
            } else if (what < 98 && last) {
                uint64_t keep = last - 1 - rnd(last < 50 ? last : 50);
                OK(jsc_log_truncate(log, keep));
                last = keep;
                generation++;
                CHECK(jsc_log_last(log) == keep && jsc_log_durable(log) == keep);
            } else if (last) {
                uint64_t i = 1 + rnd(last);
                check_record(log, i, terms[i]);
            }
        }
        for (uint64_t spins = rnd(40); spins; spins--) sched_yield(); /* varies where the thread stands */
        int clean = rnd(5) == 0;
        if (clean) {
            OK(jsc_log_close(log));
            if (mode != JSC_SYNC_NEVER) durable = last;
        } else {
            if (mode == JSC_SYNC_ALWAYS) durable = jsc_log_durable(log);
            jsc_log_abandon(log);
        }
        if (mode != JSC_SYNC_ALWAYS && !clean) durable = 0;
        jsc_store_close(s);
        jsc_sim_crash(disk, (int)rnd(101), (int)rnd(2));
    }
    free(terms);
    jsc_sim_free(disk);
}

int main(int argc, char **argv) {
    unsigned long seeds = argc > 1 ? strtoul(argv[1], NULL, 10) : 40;
    test_crc();
    for (seed = 1; seed <= 3; seed++) {
        state = seed;
        jsc_sim *disk = jsc_sim_new(seed);
        test_round_trip(jsc_sim_vfs(disk), "/d/a", (int)(seed % 3), 65536);
        test_round_trip(jsc_sim_vfs(disk), "/d/b", (int)(seed % 3), 0);
        jsc_sim_free(disk);
    }
    for (seed = 1; seed <= seeds; seed++) {
        state = seed;
        test_crashes(JSC_SYNC_ALWAYS);
    }
    puts("ok");
    return 0;
}
