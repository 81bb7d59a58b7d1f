/* Full segments that the next one did not wait for: a disk whose syncs stand still until they are let through, power cuts
 * with any number of them unsynced, and damage below and above what is known synced. */
#include "../log_internal.h"

#include <errno.h>
#include <fcntl.h>

static uint64_t round_now;

#define CHECK_CASE " (round %llu)", (unsigned long long)round_now
#include "../../base/test/check.h"

enum { SEGMENT = 4096, PLENTY = 1 << 30 };
static const char dir[] = "/d/log";

/* ---- a disk that syncs files so many times and no more ---- */

static struct {
    int (*sync)(void *, int);
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int passes;
    bool dead; /* the power is gone: who waits goes with an error */
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

static int gated_sync(void *self, int fd) {
    pthread_mutex_lock(&gate.lock);
    while (!gate.passes && !gate.dead) pthread_cond_wait(&gate.moved, &gate.lock);
    bool dead = gate.dead;
    if (!dead) gate.passes--;
    pthread_mutex_unlock(&gate.lock);
    return dead ? -EIO : gate.sync(self, fd);
}

static void let_through(int passes, bool dead) {
    pthread_mutex_lock(&gate.lock);
    gate.passes = passes;
    gate.dead = dead;
    pthread_cond_broadcast(&gate.moved);
    pthread_mutex_unlock(&gate.lock);
}

typedef struct world {
    jsc_sim *disk;
    jsc_vfs vfs;
    jsc_store *store;
    jsc_log *log;
    jsc_log_recovery rec;
} world;

static void world_new(world *w, uint64_t seed) {
    *w = (world){.disk = jsc_sim_new(seed)};
    CHECK(w->disk);
    w->vfs = *jsc_sim_vfs(w->disk);
    gate.sync = w->vfs.datasync;
    w->vfs.datasync = gated_sync;
}

static void open_in(world *w, int mode) {
    jsc_log_options o = {.segment_bytes = SEGMENT};
    OK(jsc_store_open(&w->vfs, mode, mode == JSC_SYNC_INTERVAL ? (int64_t)3600 * 1000000000 : 0, &w->store));
    OK(jsc_log_open(w->store, dir, &o, &w->log, &w->rec));
}

/* As a process that is killed. */
static void die(world *w) {
    let_through(0, true);
    jsc_log_abandon(w->log);
    jsc_store_close(w->store);
    let_through(PLENTY, false);
}

static void close_all(world *w) {
    OK(jsc_log_close(w->log));
    jsc_store_close(w->store);
}

/* ---- records that follow from their index ---- */

static size_t body(uint64_t i, uint8_t out[1024]) {
    size_t n = 300 + i * 7919 % 500;
    for (size_t k = 0; k < n; k++) out[k] = (uint8_t)(i * 31 + k);
    return n;
}

static void append(world *w, uint64_t n, uint64_t every) {
    uint8_t bytes[1024];
    for (uint64_t k = 1; k <= n; k++) {
        uint64_t i = jsc_log_last(w->log) + 1, index;
        OK(jsc_log_append(w->log, 1, (int64_t)i, JSC_K_MESSAGE, "a", 1, NULL, 0, bytes, body(i, bytes), &index));
        if (k % every == 0 || k == n) OK(jsc_log_submit(w->log));
    }
}

static void check_records(world *w, uint64_t lost_first, uint64_t lost_last) {
    for (uint64_t i = 1; i <= jsc_log_last(w->log); i++) {
        uint8_t bytes[1024];
        jsc_record r;
        int rc = jsc_log_read(w->log, i, &r);
        if (lost_first && i >= lost_first && i <= lost_last) {
            CHECK(rc == JSC_ECORRUPT);
            continue;
        }
        OK(rc);
        CHECK(r.index == i && r.data_len == body(i, bytes) && memcmp(r.data, bytes, r.data_len) == 0);
    }
}

static void count_segment(void *ctx, const char *name) {
    if (strstr(name, ".seg")) ++*(int *)ctx;
}

static int segments(world *w) {
    int n = 0;
    CHECK(w->vfs.list(w->vfs.self, dir, count_segment, &n) == 0);
    return n;
}

static void wait_synced(world *w, uint64_t index) {
    pthread_mutex_lock(&w->store->lock);
    while (atomic_load(&w->log->synced) < index) pthread_cond_wait(&w->store->done, &w->store->lock);
    pthread_mutex_unlock(&w->store->lock);
}

/* ---- tests ---- */

/* Nobody waits for a sync up to a bound, and no further. */
static void test_bound(int mode) {
    world w;
    world_new(&w, 1);
    let_through(0, false);
    open_in(&w, mode);
    while (w.log->nsegments < 9) append(&w, 1, 1);
    uint64_t held = jsc_log_last(w.log), last;
    OK(jsc_log_wait(w.log, held, -1));
    append(&w, 200, 1);
    last = jsc_log_last(w.log);
    CHECK(jsc_log_wait(w.log, last, 20000000) == -ETIMEDOUT);
    CHECK(segments(&w) == 9 && w.log->trail_n == 8 && atomic_load(&w.log->synced) == 0);
    check_records(&w, 0, 0);
    let_through(PLENTY, false);
    OK(jsc_log_wait(w.log, last, -1));
    jsc_store_settle(w.log);
    CHECK(w.log->nsegments > 20 && !w.log->trail && segments(&w) == (int)w.log->nsegments);
    for (size_t i = 0; i + 1 < w.log->nsegments; i++) CHECK(atomic_load(&w.log->segments[i]->left));
    CHECK(atomic_load(&w.log->synced) >= w.log->segments[w.log->nsegments - 1]->first - 1);
    close_all(&w);
    open_in(&w, JSC_SYNC_ALWAYS);
    CHECK(jsc_log_last(w.log) == last && !w.rec.damaged_index && !w.rec.torn_bytes);
    check_records(&w, 0, 0);
    close_all(&w);
    jsc_sim_free(w.disk);
}

/* The power goes with up to eight of them on their way: a prefix survives, no shorter than what was synced. */
static void test_power(void) {
    uint64_t cut = 0, shorter = 0;
    for (round_now = 1; round_now <= 400; round_now++) {
        world w;
        world_new(&w, round_now);
        let_through((int)(round_now % 9), false);
        open_in(&w, round_now & 1 ? JSC_SYNC_NEVER : JSC_SYNC_INTERVAL);
        append(&w, 8 + round_now % 41, 1 + round_now % 3);
        uint64_t last = jsc_log_last(w.log);
        OK(jsc_log_wait(w.log, last, -1));
        uint64_t sure = atomic_load(&w.log->synced), had = (uint64_t)segments(&w);
        die(&w);
        jsc_sim_crash(w.disk, (int)(round_now * 13 % 101), round_now & 4);
        for (int again = 0; again < 3; again++) {
            open_in(&w, again ? JSC_SYNC_ALWAYS : JSC_SYNC_NEVER);
            uint64_t now = jsc_log_last(w.log);
            CHECK(!w.rec.damaged_index && now >= sure && now <= last);
            check_records(&w, 0, 0);
            if (!again) cut += (uint64_t)segments(&w) < had, shorter += now < last;
            append(&w, 9, 2);
            last = sure = now + 9;
            if (again) close_all(&w);
            else { /* what was recovered is on the disk by now, what came since is not */
                OK(jsc_log_wait(w.log, last, -1));
                sure = now;
                die(&w);
                jsc_sim_crash(w.disk, 50, 1);
            }
        }
        jsc_sim_free(w.disk);
    }
    CHECK(cut > 50 && shorter > 200); /* else nothing was tried */
    round_now = 0;
}

/* Three files of six are synced when the process is killed, and trailers say so. */
static uint64_t half_synced(world *w, uint64_t seed, uint64_t *stated) {
    world_new(w, seed);
    let_through(0, false);
    open_in(w, JSC_SYNC_NEVER);
    append(w, 36, 2);
    OK(jsc_log_wait(w->log, 36, -1));
    CHECK(w->log->nsegments >= 6);
    let_through(6, false);
    wait_synced(w, w->log->segments[3]->first - 1);
    append(w, 4, 2);
    OK(jsc_log_wait(w->log, 40, -1));
    *stated = w->log->stated;
    CHECK(*stated == w->log->segments[3]->first - 1);
    return jsc_log_last(w->log);
}

static void place_of(world *w, uint64_t index, char path[64], uint64_t *offset) {
    jsc_segment *s = jsc_segment_find(w->log, index);
    OK(jsc_segment_where(w->log, s, index, offset));
    snprintf(path, 64, "%s/%016llx.seg", dir, (unsigned long long)s->first);
}

/* A record is damaged: at or below what trailers call synced it is reported, and nothing is cut; above, the log ends. */
static void test_damage(void) {
    for (uint64_t i = 1; i <= 40; i++) {
        world w;
        uint64_t stated, last = half_synced(&w, 3, &stated), offset;
        char path[64];
        place_of(&w, i, path, &offset);
        round_now = i;
        die(&w);
        OK(jsc_sim_flip(w.disk, path, offset + 60, 3));
        open_in(&w, JSC_SYNC_NEVER);
        if (i <= stated) {
            CHECK(w.rec.damaged_index == i && jsc_log_last(w.log) == last && !w.rec.torn_bytes);
            check_records(&w, i, i);
        } else {
            CHECK(!w.rec.damaged_index && w.rec.torn_bytes > 0 && jsc_log_last(w.log) < i);
            CHECK(jsc_log_last(w.log) >= stated && jsc_log_last(w.log) + 2 >= i); /* the batch of two goes, no more */
            check_records(&w, 0, 0);
            append(&w, 20, 1);
            check_records(&w, 0, 0);
        }
        close_all(&w);
        open_in(&w, JSC_SYNC_ALWAYS);
        CHECK(w.rec.damaged_index == (i <= stated ? i : 0));
        close_all(&w);
        jsc_sim_free(w.disk);
    }
    round_now = 0;
}

/* A whole file is missing, or its head. */
static void test_missing(bool head) {
    for (size_t k = 1; k < 6; k++) {
        world w;
        uint64_t stated, last = half_synced(&w, 3, &stated);
        uint64_t first = w.log->segments[k]->first, end = w.log->segments[k + 1 < w.log->nsegments ? k + 1 : k]->first;
        char path[64];
        snprintf(path, sizeof path, "%s/%016llx.seg", dir, (unsigned long long)first);
        round_now = first;
        die(&w);
        if (head) OK(jsc_sim_resize(w.disk, path, 0));
        else CHECK(w.vfs.unlink(w.vfs.self, path) == 0);
        open_in(&w, JSC_SYNC_NEVER);
        if (first <= stated) {
            CHECK(w.rec.damaged_index == first && jsc_log_last(w.log) == last);
            check_records(&w, first, end - 1);
        } else {
            CHECK(!w.rec.damaged_index && jsc_log_last(w.log) == first - 1 && w.rec.torn_bytes > 0);
            check_records(&w, 0, 0);
        }
        append(&w, 9, 2);
        close_all(&w);
        open_in(&w, JSC_SYNC_ALWAYS);
        CHECK(w.rec.damaged_index == (first <= stated ? first : 0));
        close_all(&w);
        jsc_sim_free(w.disk);
    }
    round_now = 0;
}

/* A reader looks, and changes nothing. */
static void test_reader(void) {
    world w;
    uint64_t stated, offset;
    char path[64];
    half_synced(&w, 3, &stated);
    place_of(&w, stated + 5, path, &offset);
    die(&w);
    OK(jsc_sim_flip(w.disk, path, offset + 60, 3));
    int before = segments(&w);
    jsc_log_options o = {.segment_bytes = SEGMENT, .read_only = true};
    OK(jsc_store_open(&w.vfs, JSC_SYNC_NEVER, 0, &w.store));
    OK(jsc_log_open(w.store, dir, &o, &w.log, &w.rec));
    CHECK(jsc_log_last(w.log) < stated + 5 && jsc_log_last(w.log) >= stated && segments(&w) == before);
    check_records(&w, 0, 0);
    close_all(&w);
    jsc_sim_free(w.disk);
}

/* A sync that fails in the background ends the log for writing. */
static void test_failed_sync(void) {
    world w;
    world_new(&w, 5);
    let_through(3, false);
    open_in(&w, JSC_SYNC_NEVER);
    append(&w, 30, 1);
    OK(jsc_log_wait(w.log, 30, -1));
    let_through(0, true);
    pthread_mutex_lock(&w.store->lock);
    while (jsc_log_error(w.log) == JSC_OK) pthread_cond_wait(&w.store->done, &w.store->lock);
    pthread_mutex_unlock(&w.store->lock);
    uint64_t index;
    CHECK(jsc_log_error(w.log) == -EIO);
    CHECK(jsc_log_append(w.log, 1, 1, JSC_K_MESSAGE, "a", 1, NULL, 0, "x", 1, &index) == JSC_EFAILED);
    check_records(&w, 0, 0);
    CHECK(jsc_log_close(w.log) == -EIO);
    jsc_store_close(w.store);
    let_through(PLENTY, false);
    jsc_sim_free(w.disk);
}

/* In the always mode nothing is made before what precedes it is synced. */
static void test_always(void) {
    world w;
    world_new(&w, 6);
    let_through(PLENTY, false);
    open_in(&w, JSC_SYNC_ALWAYS);
    append(&w, 40, 1);
    OK(jsc_log_wait(w.log, 40, -1));
    CHECK(!w.store->trail_runs);
    for (size_t i = 0; i < w.log->nsegments; i++) {
        uint8_t head[JSC_SEGMENT_HEAD];
        jsc_segment_head h;
        char path[64];
        snprintf(path, sizeof path, "%s/%016llx.seg", dir, (unsigned long long)w.log->segments[i]->first);
        CHECK(jsc_sim_read(w.disk, path, 0, head, sizeof head) == sizeof head);
        OK(jsc_segment_head_decode(head, &h));
        CHECK(!(h.flags & JSC_SF_AHEAD));
    }
    close_all(&w);
    jsc_sim_free(w.disk);
}

int main(void) {
    test_bound(JSC_SYNC_NEVER);
    test_bound(JSC_SYNC_INTERVAL);
    test_power();
    test_damage();
    test_missing(false);
    test_missing(true);
    test_reader();
    test_failed_sync();
    test_always();
    puts("trail ok");
    return 0;
}
