/* The simulated disk and the table that kills keep their contracts: what every test of the engine above them rests on. */
#include "../jsc_base.h"
#include "../jsc_vfs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t seed;
#define CHECK_CASE " (seed %llu)", (unsigned long long)seed
#include "check.h"

/* Short spellings of the calls. */
static int create(const jsc_vfs *v, const char *path) { return v->open(v->self, path, O_RDWR | O_CREAT, 0644); }
static int has(const jsc_vfs *v, const char *path) {
    int fd = v->open(v->self, path, O_RDONLY, 0);
    if (fd >= 0) v->close(v->self, fd);
    return fd >= 0;
}
static ssize_t put(const jsc_vfs *v, int fd, const void *bytes, size_t n, off_t at) {
    struct iovec iov[2] = {{(void *)(uintptr_t)bytes, n / 3}, {(char *)(uintptr_t)bytes + n / 3, n - n / 3}};
    return v->pwritev(v->self, fd, iov, 2, at);
}

/* ---- bytes: against arrays ---- */

enum { FILES = 5, MOST = 70000, PAGE = 4096, SECTOR = 512 };
typedef struct model {
    uint8_t now[MOST], synced[MOST];
    size_t size, synced_size;
    uint8_t written[MOST / PAGE + 1]; /* pages that may differ */
    int fd;
} model;

static void path_of(int i, char out[32]) { snprintf(out, 32, "/d/%d", i); }

static void mark(model *m, size_t lo, size_t hi) {
    for (size_t p = lo / PAGE; p * PAGE < hi; p++) m->written[p] = 1;
}

static void check_bytes(const jsc_vfs *v, const model *m) {
    static uint8_t got[MOST + 1];
    CHECK(v->size(v->self, m->fd) == (int64_t)m->size);
    CHECK(v->pread(v->self, m->fd, got, sizeof got, 0) == (ssize_t)m->size);
    CHECK(memcmp(got, m->now, m->size) == 0);
}

/* What survived: by page, or by sector when torn, old or new; and the model takes it over. */
static void survive(const jsc_vfs *v, model *m, int keep, int torn) {
    static uint8_t got[MOST];
    size_t size = (size_t)v->size(v->self, m->fd);
    CHECK(size == m->synced_size || (keep > 0 && size == m->size));
    if (keep == 100) CHECK(size == m->size);
    memset(got, 0, sizeof got);
    CHECK(v->pread(v->self, m->fd, got, sizeof got, 0) == (ssize_t)size);
    size_t step = torn ? SECTOR : PAGE;
    for (size_t at = 0; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        bool old = memcmp(got + at, m->synced + at, n) == 0, fresh = memcmp(got + at, m->now + at, n) == 0;
        CHECK(m->written[at / PAGE] ? old || fresh : old);
        if (keep == 0) CHECK(old);
        if (keep == 100) CHECK(fresh);
    }
    memcpy(m->now, got, MOST);
    memcpy(m->synced, got, MOST);
    m->size = m->synced_size = size;
    memset(m->written, 0, sizeof m->written);
}

static void test_bytes(void) {
    static model all[FILES];
    memset(all, 0, sizeof all);
    jsc_sim *s = jsc_sim_new(seed);
    const jsc_vfs *v = jsc_sim_vfs(s);
    static uint8_t bytes[MOST];
    char path[32];
    for (int i = 0; i < FILES; i++) {
        path_of(i, path);
        CHECK((all[i].fd = create(v, path)) >= 0);
    }
    CHECK(v->syncdir(v->self, "/d") == 0);
    for (int step = 0; step < 1500; step++) {
        model *m = &all[rnd(FILES)];
        uint64_t what = rnd(100);
        if (what < 60) {
            size_t at = rnd(3) ? m->size : rnd(MOST / 2), n = rnd(4) ? rnd(300) : rnd(9000);
            if (at + n > MOST) continue;
            for (size_t k = 0; k < n; k++) bytes[k] = (uint8_t)rnd(256);
            ssize_t got = put(v, m->fd, bytes, n, (off_t)at);
            CHECK(got >= (n > 0) && got <= (ssize_t)n);
            memcpy(m->now + at, bytes, (size_t)got);
            mark(m, at, at + (size_t)got);
            if (got && at + (size_t)got > m->size) m->size = at + (size_t)got;
        } else if (what < 80) {
            CHECK(v->datasync(v->self, m->fd) == 0);
            memcpy(m->synced, m->now, MOST);
            m->synced_size = m->size;
            memset(m->written, 0, sizeof m->written);
        } else if (what < 85) {
            size_t size = rnd(MOST);
            CHECK(v->truncate(v->self, m->fd, (off_t)size) == 0);
            if (size < m->size) {
                memset(m->now + size, 0, m->size - size);
                mark(m, size, m->size);
            }
            m->size = size;
        } else if (what < 90) {
            size_t end = m->size + rnd(5000);
            if (end > MOST) continue;
            CHECK(v->allocate(v->self, m->fd, (off_t)m->size, (off_t)(end - m->size)) == 0);
            m->size = end;
        } else if (what < 95 && m->size) {
            size_t at = rnd(m->size);
            int bit = (int)rnd(8);
            path_of((int)(m - all), path);
            CHECK(jsc_sim_flip(s, path, at, bit) == 0);
            m->now[at] ^= (uint8_t)(1 << bit);
            m->synced[at] ^= (uint8_t)(1 << bit);
        } else if (what < 96) {
            static const int keeps[] = {0, 100, 50};
            int keep = keeps[rnd(3)], torn = (int)rnd(2);
            jsc_sim_crash(s, keep, torn);
            for (int i = 0; i < FILES; i++) {
                CHECK(v->size(v->self, all[i].fd) == -EBADF);
                path_of(i, path);
                CHECK((all[i].fd = v->open(v->self, path, O_RDWR, 0)) >= 0);
                survive(v, &all[i], keep, torn);
            }
        }
        check_bytes(v, m);
    }
    jsc_sim_free(s);
}

/* ---- mappings and memory ---- */

static void test_mappings(void) {
    jsc_sim *s = jsc_sim_new(seed);
    const jsc_vfs *v = jsc_sim_vfs(s);
    jsc_sim_habits(s, 0, 0);
    int fd = create(v, "a");
    const void *p, *q;
    CHECK(v->map(v->self, fd, 10000, &p) == 0);
    CHECK(put(v, fd, "one", 3, 0) == 3 && memcmp(p, "one", 3) == 0);
    static char big[900000];
    memset(big, 'x', sizeof big);
    CHECK(put(v, fd, big, sizeof big, 3) == (ssize_t)sizeof big); /* outgrows the first image */
    CHECK(((const char *)p)[9999] == 'x');
    CHECK(v->map(v->self, fd, sizeof big + 3, &q) == 0);
    CHECK(put(v, fd, "two", 3, 0) == 3 && memcmp(p, "two", 3) == 0 && memcmp(q, "two", 3) == 0);
    CHECK(put(v, fd, "end", 3, sizeof big) == 3 && memcmp((const char *)q + sizeof big, "end", 3) == 0);
    /* Renamed over, then only mappings and a handle know the bytes. */
    int other = create(v, "b");
    CHECK(put(v, other, "other", 5, 0) == 5);
    CHECK(v->datasync(v->self, fd) == 0 && v->datasync(v->self, other) == 0 && v->syncdir(v->self, ".") == 0);
    CHECK(v->rename(v->self, "b", "a") == 0 && v->syncdir(v->self, ".") == 0 && !has(v, "b"));
    char got[5];
    CHECK(v->pread(v->self, fd, got, 3, 0) == 3 && memcmp(got, "two", 3) == 0);
    CHECK(jsc_sim_read(s, "a", 0, got, 5) == 5 && memcmp(got, "other", 5) == 0);
    uint64_t used = jsc_sim_used(s);
    CHECK(v->close(v->self, fd) == 0 && jsc_sim_used(s) == used);
    CHECK(v->unmap(v->self, p, 10000) == 0 && jsc_sim_used(s) == used && memcmp(q, "two", 3) == 0);
    CHECK(v->unmap(v->self, q, sizeof big + 3) == 0 && jsc_sim_used(s) < 10000);
    /* A mapping of before a power cut keeps what it showed. */
    CHECK(v->map(v->self, other, 4096, &p) == 0 && put(v, other, "OTHER", 5, 0) == 5);
    jsc_sim_crash(s, 0, 0);
    CHECK(memcmp(p, "OTHER", 5) == 0 && jsc_sim_read(s, "a", 0, got, 5) == 5 && memcmp(got, "other", 5) == 0);
    CHECK(v->unmap(v->self, p, 4096) == 0);
    CHECK(v->unlink(v->self, "a") == 0 && jsc_sim_used(s) == 0);
    jsc_sim_crash(s, 0, 0); /* its unlinking was not synced */
    CHECK(jsc_sim_read(s, "a", 0, got, 5) == 5 && jsc_sim_used(s) == PAGE);
    CHECK((fd = v->open(v->self, "a", O_RDWR | O_CREAT | O_TRUNC, 0644)) >= 0 && v->size(v->self, fd) == 0);
    CHECK(jsc_sim_used(s) == 0 && jsc_sim_synced(s, "a") == 5);
    jsc_sim_free(s);
}

/* ---- names ---- */

static void test_names(void) {
    jsc_sim *s = jsc_sim_new(seed);
    const jsc_vfs *v = jsc_sim_vfs(s);
    CHECK(v->list(v->self, "/none", NULL, NULL) == -ENOENT && v->syncdir(v->self, "/none") == -ENOENT);
    CHECK(v->mkdir(v->self, "/x/a", 0755) == 0 && v->mkdir(v->self, "/x/b", 0755) == 0);
    CHECK(v->mkdir(v->self, "/x/a", 0755) == 0 && v->syncdir(v->self, "/x") == 0);
    CHECK(create(v, "/x/a/1") >= 0 && create(v, "/x/b/1") >= 0);
    CHECK(v->mkdir(v->self, "/x/a", 0755) == 0 && v->mkdir(v->self, "/x/a/1", 0755) == -ENOTDIR);
    CHECK(v->rename(v->self, "/x/a/1", "/x/b/2") == -EXDEV && v->unlink(v->self, "/x/a") == -EISDIR);
    CHECK(v->syncdir(v->self, "/x/a") == 0);
    jsc_sim_crash(s, 0, 0); /* one directory's sync is not the other's */
    CHECK(has(v, "/x/a/1") && !has(v, "/x/b/1"));
    /* A directory whose name was not synced goes with all that was synced in it. */
    CHECK(v->mkdir(v->self, "/x/c", 0755) == 0 && v->mkdir(v->self, "/x/c/d", 0755) == 0);
    CHECK(create(v, "/x/c/d/1") >= 0 && v->syncdir(v->self, "/x/c/d") == 0 && v->syncdir(v->self, "/x/c") == 0);
    jsc_sim_crash(s, 0, 0);
    CHECK(v->list(v->self, "/x/c", NULL, NULL) == -ENOENT && !has(v, "/x/c/d/1"));
    /* Of a directory's changes a prefix survives: name i is there only when all before it are. */
    bool some = false, none = false;
    for (int round = 0; round < 200; round++) {
        char path[32];
        int there = 0;
        for (int i = 0; i < 5; i++) {
            snprintf(path, sizeof path, "/x/a/r%d.%d", round, i);
            CHECK(create(v, path) >= 0);
        }
        jsc_sim_crash(s, 70, 0);
        for (int i = 0; i < 5; i++) {
            snprintf(path, sizeof path, "/x/a/r%d.%d", round, i);
            if (has(v, path)) CHECK(there++ == i);
        }
        some |= there > 0;
        none |= there < 5;
    }
    CHECK(some && none);
    /* A rename is one step: after a power cut exactly one of the names is there. */
    int olds = 0;
    for (int round = 0; round < 100; round++) {
        CHECK(v->syncdir(v->self, "/x/b") == 0 && create(v, "/x/b/t") >= 0 && v->syncdir(v->self, "/x/b") == 0);
        CHECK(v->rename(v->self, "/x/b/t", "/x/b/f") == 0);
        jsc_sim_crash(s, 50, 0);
        CHECK(has(v, "/x/b/t") + has(v, "/x/b/f") == 1);
        olds += has(v, "/x/b/t");
        if (has(v, "/x/b/f")) CHECK(v->unlink(v->self, "/x/b/f") == 0);
    }
    CHECK(olds > 10 && olds < 90);
    jsc_sim_free(s);
}

/* ---- full, failing, dying ---- */

static void test_failures(void) {
    jsc_sim *s = jsc_sim_new(seed);
    const jsc_vfs *v = jsc_sim_vfs(s);
    jsc_sim_habits(s, 0, 0);
    static char page[PAGE];
    char b[8];
    int fd = create(v, "/d/a");
    jsc_sim_capacity(s, 4 * PAGE);
    CHECK(v->allocate(v->self, fd, 0, 5 * PAGE) == -ENOSPC && v->size(v->self, fd) == 0 && jsc_sim_used(s) == 0);
    CHECK(v->allocate(v->self, fd, 0, 3 * PAGE) == 0 && jsc_sim_used(s) == 3 * PAGE);
    CHECK(put(v, fd, page, PAGE, 3 * PAGE - 96) == PAGE); /* into the last free page */
    CHECK(put(v, fd, page, PAGE, 4 * PAGE - 96) == 96); /* short at the edge */
    CHECK(put(v, fd, page, PAGE, 4 * PAGE) == -ENOSPC);
    CHECK(put(v, fd, page, PAGE, 0) == PAGE); /* what is reserved can be written */
    jsc_sim_capacity(s, 5 * PAGE);
    CHECK(put(v, fd, page, PAGE, 4 * PAGE) == PAGE);
    int second = create(v, "/d/b");
    CHECK(put(v, second, page, 1, 0) == -ENOSPC);
    CHECK(v->truncate(v->self, fd, PAGE) == 0 && put(v, second, page, 1, 0) == 1);

    jsc_sim_fail(s, 'w', 2, EIO);
    CHECK(put(v, fd, "a", 1, 0) == 1 && put(v, fd, "b", 1, 0) == -EIO && put(v, fd, "c", 1, 0) == 1);
    jsc_sim_fail(s, 'd', 1, EIO);
    CHECK(v->syncdir(v->self, "/d") == -EIO && v->syncdir(v->self, "/d") == 0);
    CHECK(jsc_sim_bad(s, "/d/a", 100, 200) == 0);
    CHECK(v->pread(v->self, fd, b, 1, 99) == 1 && v->pread(v->self, fd, b, 2, 99) == -EIO);
    CHECK(v->pread(v->self, fd, b, 1, 199) == -EIO && v->pread(v->self, fd, b, 1, 200) == 1);
    CHECK(jsc_sim_bad(s, "/d/a", 0, 0) == 0 && v->pread(v->self, fd, b, 2, 99) == 2);

    uint64_t writes = jsc_sim_calls(s, 'w'), all = jsc_sim_calls(s, 0);
    jsc_sim_die(s, 2, EIO);
    CHECK(v->size(v->self, fd) > 0 && put(v, fd, "d", 1, 0) == 1); /* size needs no disk and is not counted */
    CHECK(v->pread(v->self, fd, b, 1, 0) == -EIO && put(v, fd, "e", 1, 0) == -EIO && v->datasync(v->self, fd) == -EIO);
    CHECK(create(v, "/d/c") == -EIO && v->syncdir(v->self, "/d") == -EIO && v->close(v->self, second) == 0);
    jsc_sim_die(s, 0, 0);
    CHECK(v->pread(v->self, fd, b, 1, 0) == 1 && b[0] == 'd');
    CHECK(jsc_sim_calls(s, 'w') == writes + 2 && jsc_sim_calls(s, 0) == all + 9);

    /* A sync that fails may drop pages for good; written again, they count again. */
    CHECK(v->datasync(v->self, fd) == 0);
    jsc_sim_habits(s, 0, 100);
    for (int again = 0; again < 2; again++) {
        CHECK((fd = v->open(v->self, "/d/a", O_RDWR, 0)) >= 0);
        CHECK(put(v, fd, "f", 1, 0) == 1);
        jsc_sim_fail(s, 's', 1, EIO);
        CHECK(v->datasync(v->self, fd) == -EIO && v->pread(v->self, fd, b, 1, 0) == 1 && b[0] == 'f');
        if (again) CHECK(put(v, fd, "g", 1, 1) == 1);
        CHECK(v->datasync(v->self, fd) == 0);
        jsc_sim_crash(s, 100, 0);
        CHECK(jsc_sim_read(s, "/d/a", 0, b, 1) == 1 && b[0] == (again ? 'f' : 'd'));
    }
    CHECK(jsc_sim_patch(s, "/d/a", 1, "rot", 3) == 0 && jsc_sim_patch(s, "/d/a", PAGE - 1, "rot", 3) == JSC_EINVAL);
    CHECK(jsc_sim_resize(s, "/d/a", 3) == 0 && jsc_sim_size(s, "/d/a") == 3 && jsc_sim_synced(s, "/d/a") == 3);
    CHECK(jsc_sim_read(s, "/d/a", 1, b, 8) == 2 && memcmp(b, "ro", 2) == 0 && jsc_sim_size(s, "/d/z") == -ENOENT);

    /* Writes are short now and then, as often as asked. */
    jsc_sim_capacity(s, UINT64_MAX);
    jsc_sim_habits(s, 50, 0);
    CHECK((fd = v->open(v->self, "/d/a", O_RDWR, 0)) >= 0);
    int shorts = 0;
    for (int i = 0; i < 200; i++) shorts += put(v, fd, page, 100, 0) < 100;
    CHECK(shorts > 50 && shorts < 150);
    jsc_sim_free(s);
}

/* Thousands of files come and go: nothing is left of them, and a name is found among many. */
static void test_many(void) {
    enum { MANY = 5000 };
    jsc_sim *s = jsc_sim_new(seed);
    const jsc_vfs *v = jsc_sim_vfs(s);
    char path[64];
    for (int i = 0; i < 40 * MANY; i++) {
        snprintf(path, sizeof path, "/d/log/%016x.seg", i);
        int fd = create(v, path);
        CHECK(fd >= 0 && v->allocate(v->self, fd, 0, 65536) == 0);
        while (put(v, fd, path, 40, 0) < 40) {
        }
        const void *p;
        CHECK(v->map(v->self, fd, 8192, &p) == 0 && memcmp(p, path, 40) == 0);
        CHECK(v->datasync(v->self, fd) == 0 && v->close(v->self, fd) == 0 && v->unmap(v->self, p, 8192) == 0);
        if (i % 10 == 9) CHECK(v->syncdir(v->self, "/d/log") == 0);
        if (i < MANY) continue;
        snprintf(path, sizeof path, "/d/log/%016x.seg", i - MANY);
        CHECK(v->unlink(v->self, path) == 0 && !has(v, path));
    }
    CHECK(jsc_sim_used(s) == (uint64_t)MANY * 65536);
    jsc_sim_free(s);
}

/* ---- the table that kills ---- */

static int killed_at(uint64_t n, int when, const char *path) {
    int status;
    unlink(path);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        jsc_kill *k = jsc_kill_new(jsc_vfs_posix(), n, when);
        const jsc_vfs *v = jsc_kill_vfs(k);
        int fd = create(v, path);
        bool fine = fd >= 0 && put(v, fd, "abcdefgh", 8, 0) == 8 && put(v, fd, "ijkl", 4, 8) == 4;
        _exit(fine && jsc_kill_calls(k, 0) == 3 && jsc_kill_calls(k, 'w') == 2 ? 0 : 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status)) {
        CHECK(WEXITSTATUS(status) == 0);
        return -1;
    }
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    char b[32];
    ssize_t got = read(fd, b, sizeof b);
    CHECK(got >= 0 && memcmp(b, "abcdefghijkl", (size_t)got) == 0);
    close(fd);
    return 100 + (int)got;
}

static void test_kill(void) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/jscore-test-vfs-%d", (int)getpid());
    CHECK(killed_at(1, JSC_KILL_BEFORE, path) == 0 && killed_at(1, JSC_KILL_AFTER, path) == 100);
    CHECK(killed_at(2, JSC_KILL_BEFORE, path) == 100 && killed_at(2, JSC_KILL_AFTER, path) == 108);
    CHECK(killed_at(1, JSC_KILL_MIDDLE, path) == 104 && killed_at(2, JSC_KILL_MIDDLE, path) == 110);
    CHECK(killed_at(3, JSC_KILL_BEFORE, path) == 108 && killed_at(3, JSC_KILL_AFTER, path) == 112);
    CHECK(killed_at(4, JSC_KILL_BEFORE, path) == -1 && killed_at(3, JSC_KILL_MIDDLE, path) == -1);
    CHECK(killed_at(0, JSC_KILL_AFTER, path) == -1);
    unlink(path);
}

int main(int argc, char **argv) {
    unsigned long seeds = argc > 1 ? strtoul(argv[1], NULL, 10) : 20;
    for (seed = 1; seed <= seeds; seed++) {
        rnd_state = seed;
        test_bytes();
        test_names();
        test_mappings();
        test_failures();
    }
    test_many();
    test_kill();
    puts("ok");
    return 0;
}
