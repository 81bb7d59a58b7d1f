/* Many logs of one store, synced by several threads at once: order within each, and a power cut in the middle of it. */
#include "../log_internal.h"

#include <sched.h>

#define CHECK_CASE " (seed %llu)", (unsigned long long)seed
static unsigned long long seed;
#include "../../base/test/check.h"

enum { LOGS = 24, ROUNDS = 5, STEPS = 300 };

static void put(jsc_log *log, int which) {
    char body[64];
    uint64_t at, next = jsc_log_last(log) + 1;
    int n = snprintf(body, sizeof body, "%d.%llu", which, (unsigned long long)next);
    OK(jsc_log_append(log, 1, (int64_t)next, JSC_K_MESSAGE, "s", 1, NULL, 0, body, (size_t)n, &at));
    CHECK(at == next);
}

static void check(jsc_log *log, int which, uint64_t index) {
    char body[64];
    jsc_record r;
    int n = snprintf(body, sizeof body, "%d.%llu", which, (unsigned long long)index);
    OK(jsc_log_read(log, index, &r));
    CHECK(r.data_len == (uint32_t)n && memcmp(r.data, body, (size_t)n) == 0);
}

static void test_power_cut(int mode) {
    jsc_sim *disk = jsc_sim_new(seed);
    uint64_t durable[LOGS] = {0};
    for (int round = 0; round < ROUNDS; round++) {
        jsc_store *s;
        jsc_log *logs[LOGS];
        OK(jsc_store_open(jsc_sim_vfs(disk), mode, 1000000, &s));
        OK(jsc_store_hands(s, 1 + (int)rnd(8)));
        for (int i = 0; i < LOGS; i++) {
            char dir[32];
            jsc_log_recovery rec;
            snprintf(dir, sizeof dir, "/d/%d", i);
            OK(jsc_log_open(s, dir, &(jsc_log_options){.segment_bytes = 8192}, &logs[i], &rec));
            CHECK(rec.damaged_index == 0 && jsc_log_last(logs[i]) >= durable[i]);
            for (uint64_t k = 1; k <= jsc_log_last(logs[i]); k++) check(logs[i], i, k);
        }
        for (int step = 0; step < STEPS; step++) {
            int i = (int)rnd(LOGS);
            uint64_t what = rnd(100);
            for (uint64_t n = rnd(4); n; n--) put(logs[i], i);
            if (what < 70) OK(jsc_log_submit(logs[i]));
            else if (what < 74) OK(jsc_log_mark(logs[i]));
            if (what == 80) {
                OK(jsc_log_submit(logs[i]));
                OK(jsc_log_wait(logs[i], jsc_log_last(logs[i]), -1));
            } else if (what == 81 && jsc_log_last(logs[i])) {
                OK(jsc_log_truncate(logs[i], jsc_log_last(logs[i]) - rnd(2)));
            } else if (what == 82) {
                for (int k = 0; k < LOGS; k++) OK(jsc_log_submit(logs[k]));
            }
        }
        bool clean = rnd(3) == 0;
        for (int i = 0; i < LOGS; i++) {
            durable[i] = mode == JSC_SYNC_ALWAYS ? jsc_log_durable(logs[i]) : 0;
            if (clean) durable[i] = jsc_log_last(logs[i]);
            if (clean) OK(jsc_log_close(logs[i]));
            else jsc_log_abandon(logs[i]);
        }
        jsc_store_close(s);
        jsc_sim_crash(disk, (int)rnd(101), (int)rnd(2));
    }
    jsc_sim_free(disk);
}

/* What a log called durable has a name that is durable, too, though its directory is new. */
static void test_new_directories(void) {
    jsc_sim *disk = jsc_sim_new(seed);
    jsc_store *s;
    jsc_log *logs[LOGS];
    uint64_t durable[LOGS];
    OK(jsc_store_open(jsc_sim_vfs(disk), JSC_SYNC_ALWAYS, 0, &s));
    OK(jsc_store_hands(s, 6));
    for (int i = 0; i < LOGS; i++) {
        char dir[32];
        snprintf(dir, sizeof dir, "/new/%d", i);
        OK(jsc_log_open(s, dir, NULL, &logs[i], NULL));
        put(logs[i], i);
        OK(jsc_log_submit(logs[i]));
    }
    OK(jsc_log_wait(logs[rnd(LOGS)], 1, -1));
    for (int i = 0; i < LOGS; i++) durable[i] = jsc_log_durable(logs[i]);
    for (int i = 0; i < LOGS; i++) jsc_log_abandon(logs[i]);
    jsc_store_close(s);
    jsc_sim_crash(disk, 0, 0);
    OK(jsc_store_open(jsc_sim_vfs(disk), JSC_SYNC_ALWAYS, 0, &s));
    for (int i = 0; i < LOGS; i++) {
        char dir[32];
        snprintf(dir, sizeof dir, "/new/%d", i);
        OK(jsc_log_open(s, dir, NULL, &logs[i], NULL));
        CHECK(jsc_log_last(logs[i]) >= durable[i]);
        jsc_log_abandon(logs[i]);
    }
    jsc_store_close(s);
    jsc_sim_free(disk);
}

/* A log that fell silent and said so is opened without waiting for the disk, and loses nothing by it. */
static void test_silent_log(void) {
    jsc_sim *disk = jsc_sim_new(seed);
    const jsc_vfs *vfs = jsc_sim_vfs(disk);
    jsc_store *s;
    jsc_log *log;
    for (int round = 0; round < 3; round++) {
        OK(jsc_store_open(vfs, JSC_SYNC_ALWAYS, 0, &s));
        OK(jsc_log_open(s, "/d/log", NULL, &log, NULL));
        uint64_t last = jsc_log_last(log);
        CHECK(last == (uint64_t)round);
        put(log, 0);
        OK(jsc_log_submit(log));
        OK(jsc_log_wait(log, last + 1, -1));
        OK(jsc_log_mark(log));
        jsc_store_settle(log);
        jsc_log_abandon(log);
        uint64_t before = jsc_sim_calls(disk, 's'), names = jsc_sim_calls(disk, 'd');
        OK(jsc_log_open(s, "/d/log", NULL, &log, NULL));
        CHECK(jsc_sim_calls(disk, 's') == before && jsc_sim_calls(disk, 'd') == names);
        CHECK(jsc_log_last(log) == last + 1);
        jsc_log_abandon(log);
        jsc_store_close(s);
        jsc_sim_crash(disk, 0, 0);
    }
    jsc_sim_free(disk);
}

int main(int argc, char **argv) {
    unsigned long long seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 15;
    for (seed = 1; seed <= seeds; seed++) {
        rnd_state = seed;
        test_power_cut(seed % 3 ? JSC_SYNC_ALWAYS : JSC_SYNC_INTERVAL);
        test_new_directories();
        test_silent_log();
    }
    puts("ok");
    return 0;
}
