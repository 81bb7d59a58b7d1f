/* Waiting for durability: many threads with timeouts that meet the syncs, who pass it on early or late; a failure reaches
 * all of them. Whoever is forgotten waits for good, and the test with him. */
#include "log/jsc_mlog.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK_END() abort()
#include "../../base/test/check.h"

enum { THREADS = 16, EACH = 400 };

typedef struct crowd {
    jsc_mlog *log;
    pthread_mutex_t turn; /* as an interpreter's */
    _Atomic int failed, next;
    bool until_failure;
} crowd;

static uint32_t draw(uint32_t *x) { return *x = *x * 1664525 + 1013904223, *x >> 16; }

static void *writer(void *arg) {
    crowd *c = arg;
    uint32_t x = (uint32_t)atomic_fetch_add(&c->next, 1) + 1;
    jsc_span data = {"payload", 7};
    uint64_t seq, position;
    for (int i = 0; c->until_failure || i < EACH; i++) {
        int rc = jsc_mlog_append(c->log, NULL, NULL, &data, 0, &seq);
        if (rc == JSC_OK) rc = jsc_mlog_submit(c->log, &position);
        while (rc == JSC_OK) {
            bool to_pass;
            int64_t timeout = draw(&x) % 4 ? -1 : (int64_t)(draw(&x) % 100) * 1000;
            if (draw(&x) % 2) {
                rc = jsc_mlog_wait(c->log, position, timeout);
            } else {
                rc = jsc_mlog_await(c->log, position, timeout, &to_pass);
                pthread_mutex_lock(&c->turn);
                if (to_pass) jsc_mlog_pass(c->log);
                if (draw(&x) % 8 == 0) sched_yield();
                pthread_mutex_unlock(&c->turn);
            }
            if (rc == JSC_OK) CHECK(jsc_mlog_durable_position(c->log) >= position);
            if (rc != -ETIMEDOUT) break;
            rc = JSC_OK;
        }
        if (rc != JSC_OK) {
            CHECK(c->until_failure && (rc == -EIO || rc == JSC_EFAILED));
            atomic_fetch_add(&c->failed, 1);
            return NULL;
        }
    }
    return NULL;
}

static void run(bool until_failure, uint64_t seed) {
    jsc_sim *disk = jsc_sim_new(seed);
    jsc_mlog_options o = {.sync_mode = JSC_SYNC_ALWAYS, .background = true};
    crowd c = {.turn = PTHREAD_MUTEX_INITIALIZER, .until_failure = until_failure};
    pthread_t threads[THREADS];
    OK(jsc_mlog_open(jsc_sim_vfs(disk), "/log", &o, &c.log, NULL));
    if (until_failure) jsc_sim_fail(disk, 's', 40, EIO);
    for (int i = 0; i < THREADS; i++) OK(pthread_create(&threads[i], NULL, writer, &c));
    for (int i = 0; i < THREADS; i++) OK(pthread_join(threads[i], NULL));
    CHECK(c.failed == (until_failure ? THREADS : 0));
    if (until_failure) {
        CHECK(jsc_mlog_close(c.log) != JSC_OK);
    } else {
        CHECK(jsc_mlog_last(c.log) == THREADS * EACH && jsc_mlog_durable(c.log) == THREADS * EACH);
        OK(jsc_mlog_close(c.log));
    }
    jsc_sim_free(disk);
}

int main(void) {
    for (uint64_t seed = 1; seed <= 3; seed++) {
        run(false, seed);
        run(true, seed);
    }
    puts("waiters ok");
    return 0;
}
