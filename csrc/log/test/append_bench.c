/* How many records of 128 bytes a second the append path takes on one core: frame, CRC, copy, index. Not a test; nothing
 * syncs ("never"), but every record is written. Build and run, from the root:
 *   gcc -std=gnu11 -O2 -Icsrc -pthread csrc/log/test/append_bench.c csrc/base/[a-z]*.c csrc/log/[a-z]*.c -lzstd -lcrypto
 *   ./a.out [RECORDS [DIRECTORY ...]]
 * "core": records by the CPU time of the appending thread. "wall": by the clock until the last append returned, with the
 * thread that writes on another core, if there is one. "all": by the CPU time of every thread until all is written. */
#include "../jsc_mlog.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define BODY 128
#define POOL (1u << 20) /* random bytes; each record takes its 128 at another offset */
#define ROUNDS 5

#define OK(x)                                                                                                          \
    do {                                                                                                               \
        int rc_ = (x);                                                                                                 \
        if (rc_ != JSC_OK) {                                                                                           \
            fprintf(stderr, "%s:%d: %s = %d\n", __FILE__, __LINE__, #x, rc_);                                          \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

typedef struct lap {
    double core, wall, all;
} lap;

typedef struct bench {
    const char *dir;
    uint8_t *pool;
    uint64_t records;
    unsigned subjects; /* 0: none; else as many different ones, in turn */
} bench;

static double seconds(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static lap begin(void) {
    return (lap){seconds(CLOCK_THREAD_CPUTIME_ID), seconds(CLOCK_MONOTONIC), seconds(CLOCK_PROCESS_CPUTIME_ID)};
}

static const uint8_t *body(const bench *b, uint64_t i) { return b->pool + i * 8 % (POOL - BODY); }

/* An eleven-byte subject of its own for each number. */
static uint16_t subject(const bench *b, uint64_t i, char out[12]) {
    if (!b->subjects) return 0;
    memcpy(out, "orders.0000", 11);
    unsigned n = (unsigned)(i % b->subjects);
    for (int k = 10; k > 6; k--, n /= 10) out[k] = (char)('0' + n % 10);
    return 11;
}

static void nap(void) { nanosleep(&(struct timespec){0, 100000}, NULL); }

/* The log of records alone: what the message log's append costs without its index. */
static lap record_log(const bench *b) {
    jsc_store *store;
    jsc_log *log;
    jsc_log_recovery rec;
    OK(jsc_store_open(jsc_vfs_posix(), JSC_SYNC_NEVER, 0, &store));
    OK(jsc_log_open(store, b->dir, &(jsc_log_options){0}, &log, &rec));
    lap from = begin(), took;
    uint64_t at = 0;
    for (uint64_t i = 0; i < b->records; i++) {
        char text[12];
        uint16_t n = subject(b, i, text);
        int rc;
        while ((rc = jsc_log_append(log, 0, (int64_t)i, JSC_K_MESSAGE, text, n, NULL, 0, body(b, i), BODY, &at)) ==
               JSC_EFULL)
            nap(); /* the writer is behind by all that may wait */
        OK(rc);
        if (i % 4096 == 4095) OK(jsc_log_submit(log));
    }
    took.core = seconds(CLOCK_THREAD_CPUTIME_ID) - from.core;
    took.wall = seconds(CLOCK_MONOTONIC) - from.wall;
    OK(jsc_log_submit(log));
    OK(jsc_log_wait(log, at, -1));
    took.all = seconds(CLOCK_PROCESS_CPUTIME_ID) - from.all;
    OK(jsc_log_close(log));
    jsc_store_close(store);
    return took;
}

static lap message_log(const bench *b) {
    jsc_mlog *log;
    jsc_mlog_recovery rec;
    OK(jsc_mlog_open(jsc_vfs_posix(), b->dir, &(jsc_mlog_options){.sync_mode = JSC_SYNC_NEVER, .background = true},
                     &log, &rec));
    lap from = begin(), took;
    uint64_t seq = 0;
    for (uint64_t i = 0; i < b->records; i++) {
        char text[12];
        jsc_span to = {text, subject(b, i, text)}, none = {"", 0}, data = {(const char *)body(b, i), BODY};
        int rc;
        while ((rc = jsc_mlog_append(log, &to, &none, &data, (int64_t)i + 1, &seq)) == JSC_EFULL) nap();
        OK(rc);
    }
    took.core = seconds(CLOCK_THREAD_CPUTIME_ID) - from.core;
    took.wall = seconds(CLOCK_MONOTONIC) - from.wall;
    uint64_t position;
    OK(jsc_mlog_submit(log, &position));
    OK(jsc_mlog_wait(log, position, -1));
    took.all = seconds(CLOCK_PROCESS_CPUTIME_ID) - from.all;
    OK(jsc_mlog_close(log));
    return took;
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void gone(void *ctx, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (const char *)ctx, name);
    unlink(path);
}

static void empty(const char *dir) {
    const jsc_vfs *vfs = jsc_vfs_posix();
    vfs->list(vfs->self, dir, gone, (void *)dir);
    rmdir(dir);
}

static void measure(const char *name, const bench *b, lap (*run)(const bench *)) {
    double core[ROUNDS], wall[ROUNDS], all[ROUNDS];
    for (int k = 0; k < ROUNDS; k++) {
        empty(b->dir);
        lap took = run(b);
        core[k] = (double)b->records / took.core / 1e6;
        wall[k] = (double)b->records / took.wall / 1e6;
        all[k] = (double)b->records / took.all / 1e6;
    }
    empty(b->dir);
    qsort(core, ROUNDS, sizeof *core, rising);
    qsort(wall, ROUNDS, sizeof *wall, rising);
    qsort(all, ROUNDS, sizeof *all, rising);
    printf("%-12s %8u subjects  core %6.2f [%5.2f..%5.2f]  wall %6.2f [%5.2f..%5.2f]  all %6.2f  M/s  %s\n", name,
           b->subjects, core[ROUNDS / 2], core[0], core[ROUNDS - 1], wall[ROUNDS / 2], wall[0], wall[ROUNDS - 1],
           all[ROUNDS / 2], b->dir);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static uint8_t pool[POOL];
    uint64_t z = 88172645463325252u;
    for (size_t i = 0; i < POOL; i += 8) {
        z ^= z << 13;
        z ^= z >> 7;
        z ^= z << 17;
        memcpy(pool + i, &z, 8);
    }
    const char *usual[] = {"/dev/shm", "."};
    const char *const *dirs = argc > 2 ? (const char *const *)argv + 2 : usual;
    int ndirs = argc > 2 ? argc - 2 : 2;
    bench b = {.pool = pool, .records = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000000};
    for (int i = 0; i < ndirs; i++) {
        char dir[400];
        snprintf(dir, sizeof dir, "%s/append_bench.%d", dirs[i], (int)getpid());
        b.dir = dir;
        for (unsigned subjects = 0; subjects <= 1000; subjects = subjects ? subjects * 1000 : 1) {
            b.subjects = subjects;
            measure("record log", &b, record_log);
            measure("message log", &b, message_log);
        }
    }
    return 0;
}
