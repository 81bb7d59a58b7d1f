/* A disk in memory that forgets, tears, fails and rots on demand.
 *
 * Each file has two images: what a reader sees now, and what a power cut is sure to leave. Names have the same two
 * views: the synced table and the ordered list of changes made since; a power cut keeps a prefix of that list, as a
 * journalling file system does. Images are reserved address space, so mappings stay where they are as files grow. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "jsc_base.h"
#include "jsc_vfs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

enum { PAGE = 4096, SECTOR = 512 };
#define IMAGE_BYTES ((size_t)256 << 20)

typedef struct file {
    uint8_t *now, *synced; /* IMAGE_BYTES each, reserved */
    uint8_t *dirty;        /* one flag per page */
    size_t now_size, synced_size;
    size_t high; /* no byte at or above it was ever written */
    int locked_by; /* handle + 1 */
} file;

typedef struct name {
    char *path;
    int file; /* index, or -1: the name is gone */
} name;

typedef struct names {
    name *at;
    size_t n;
} names;

struct jsc_sim {
    jsc_vfs vfs;
    pthread_mutex_t lock;
    uint64_t seed;
    file **files;
    int nfiles;
    int *handles; /* file index or -1 */
    int nhandles;
    names now, synced, changes;
    struct {
        int op, n, err;
    } fault[4];
};

static uint64_t random_next(jsc_sim *s) { /* splitmix64 */
    uint64_t z = (s->seed += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int chance(jsc_sim *s, int percent) { return (int)(random_next(s) % 100) < percent; }

static void *grow(void *old, size_t n, size_t item) {
    void *p = realloc(old, n * item);
    JSC_ASSERT(p != NULL);
    return p;
}

static name *find(names *t, const char *path) {
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->at[i].path, path) == 0) return &t->at[i];
    return NULL;
}

static void add(names *t, const char *path, int f) {
    t->at = grow(t->at, t->n + 1, sizeof *t->at);
    t->at[t->n++] = (name){strdup(path), f};
}

static void set(names *t, const char *path, int f) {
    name *e = find(t, path);
    if (e) e->file = f;
    else add(t, path, f);
}

static void clear(names *t) {
    for (size_t i = 0; i < t->n; i++) free(t->at[i].path);
    free(t->at);
    *t = (names){0};
}

static int lookup(jsc_sim *s, const char *path) {
    name *e = find(&s->now, path);
    return e ? e->file : -1;
}

/* Counts down the armed faults of this operation: 0, or the -err to return. */
static int faulted(jsc_sim *s, int op) {
    for (int i = 0; i < 4; i++)
        if (s->fault[i].op == op && s->fault[i].err && --s->fault[i].n == 0) {
            int err = s->fault[i].err;
            s->fault[i].err = 0;
            return -err;
        }
    return 0;
}

static file *of_handle(jsc_sim *s, int fd) {
    if (fd < 0 || fd >= s->nhandles || s->handles[fd] < 0) return NULL;
    return s->files[s->handles[fd]];
}

static uint8_t *reserve(size_t n) {
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    JSC_ASSERT(p != MAP_FAILED);
    return p;
}

static int new_file(jsc_sim *s) {
    file *f = calloc(1, sizeof *f);
    JSC_ASSERT(f != NULL);
    f->now = reserve(IMAGE_BYTES);
    f->synced = reserve(IMAGE_BYTES);
    f->dirty = reserve(IMAGE_BYTES / PAGE);
    s->files = grow(s->files, (size_t)s->nfiles + 1, sizeof *s->files);
    s->files[s->nfiles] = f;
    return s->nfiles++;
}

#define ENTER                                                                                                          \
    jsc_sim *s = self;                                                                                                 \
    pthread_mutex_lock(&s->lock)
#define LEAVE(x)                                                                                                       \
    do {                                                                                                               \
        pthread_mutex_unlock(&s->lock);                                                                                \
        return x;                                                                                                      \
    } while (0)

static int sim_open(void *self, const char *path, int flags, int mode) {
    ENTER;
    int f = lookup(s, path);
    if (f >= 0 && (flags & O_EXCL)) LEAVE(-EEXIST);
    if (f < 0) {
        if (!(flags & O_CREAT)) LEAVE(-ENOENT);
        f = new_file(s);
        set(&s->now, path, f);
        add(&s->changes, path, f);
    }
    int fd = 0;
    while (fd < s->nhandles && s->handles[fd] >= 0) fd++;
    if (fd == s->nhandles) s->handles = grow(s->handles, (size_t)++s->nhandles, sizeof *s->handles);
    s->handles[fd] = f;
    LEAVE(fd);
}

static int sim_close(void *self, int fd) {
    ENTER;
    file *f = of_handle(s, fd);
    if (!f) LEAVE(-EBADF);
    if (f->locked_by == fd + 1) f->locked_by = 0;
    s->handles[fd] = -1;
    LEAVE(0);
}

static ssize_t sim_pread(void *self, int fd, void *buf, size_t n, off_t at) {
    ENTER;
    file *f = of_handle(s, fd);
    if (!f) LEAVE(-EBADF);
    int rc = faulted(s, 'r');
    if (rc) LEAVE(rc);
    if ((size_t)at >= f->now_size) LEAVE(0);
    if (n > f->now_size - (size_t)at) n = f->now_size - (size_t)at;
    memcpy(buf, f->now + at, n);
    LEAVE((ssize_t)n);
}

static void touch(file *f, size_t lo, size_t hi) {
    if (hi > f->high) f->high = hi;
    for (size_t p = lo / PAGE; p * PAGE < hi; p++) f->dirty[p] = 1;
}

static ssize_t sim_pwritev(void *self, int fd, const struct iovec *iov, int niov, off_t at) {
    ENTER;
    file *f = of_handle(s, fd);
    if (!f) LEAVE(-EBADF);
    int rc = faulted(s, 'w');
    if (rc) LEAVE(rc);
    size_t total = 0, pos = (size_t)at;
    for (int i = 0; i < niov; i++) total += iov[i].iov_len;
    if (pos + total > IMAGE_BYTES) LEAVE(-EFBIG);
    /* Now and then a short write, as the contract of pwritev allows. */
    size_t put = total > 1 && chance(s, 10) ? 1 + random_next(s) % (total - 1) : total, left = put;
    for (int i = 0; i < niov && left; i++) {
        size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;
        memcpy(f->now + pos, iov[i].iov_base, n);
        pos += n;
        left -= n;
    }
    touch(f, (size_t)at, pos);
    if (pos > f->now_size) f->now_size = pos;
    LEAVE((ssize_t)put);
}

static int sim_datasync(void *self, int fd) {
    ENTER;
    file *f = of_handle(s, fd);
    if (!f) LEAVE(-EBADF);
    int rc = faulted(s, 's');
    if (rc) LEAVE(rc);
    for (size_t p = 0; p * PAGE < f->high; p++)
        if (f->dirty[p]) {
            memcpy(f->synced + p * PAGE, f->now + p * PAGE, PAGE);
            f->dirty[p] = 0;
        }
    f->synced_size = f->now_size;
    LEAVE(0);
}

static int sim_allocate(void *self, int fd, off_t at, off_t n) {
    ENTER;
    file *f = of_handle(s, fd);
    if (!f) LEAVE(-EBADF);
    int rc = faulted(s, 'a');
    if (rc) LEAVE(rc);
    size_t end = (size_t)at + (size_t)n;
    if (end > IMAGE_BYTES) LEAVE(-ENOSPC);
    if (end > f->now_size) f->now_size = end;
    LEAVE(0);
}

static int sim_truncate(void *self, int fd, off_t size) {
    ENTER;
    file *f = of_handle(s, fd);
    if (!f) LEAVE(-EBADF);
    if ((size_t)size > IMAGE_BYTES) LEAVE(-EFBIG);
    if ((size_t)size < f->high) {
        memset(f->now + size, 0, f->high - (size_t)size);
        touch(f, (size_t)size, f->high);
    }
    f->now_size = (size_t)size;
    LEAVE(0);
}

static int64_t sim_size(void *self, int fd) {
    ENTER;
    file *f = of_handle(s, fd);
    int64_t n = f ? (int64_t)f->now_size : -EBADF;
    LEAVE(n);
}

static int sim_map(void *self, int fd, size_t n, const void **out) {
    ENTER;
    file *f = of_handle(s, fd);
    if (!f) LEAVE(-EBADF);
    if (n > IMAGE_BYTES) LEAVE(-ENOMEM);
    *out = f->now;
    LEAVE(0);
}

static int sim_unmap(void *self, const void *p, size_t n) { return 0; }

static int sim_rename(void *self, const char *from, const char *to) {
    ENTER;
    int f = lookup(s, from);
    if (f < 0) LEAVE(-ENOENT);
    set(&s->now, to, f);
    set(&s->now, from, -1);
    add(&s->changes, to, f);
    add(&s->changes, from, -2); /* one step with the entry before it */
    LEAVE(0);
}

static int sim_unlink(void *self, const char *path) {
    ENTER;
    if (lookup(s, path) < 0) LEAVE(-ENOENT);
    set(&s->now, path, -1);
    add(&s->changes, path, -1);
    LEAVE(0);
}

static int sim_mkdir(void *self, const char *path, int mode) { return 0; }

static void settle(jsc_sim *s, int keep_percent) {
    for (size_t i = 0; i < s->changes.n; i++) {
        name *c = &s->changes.at[i];
        if (c->file != -2 && !chance(s, keep_percent)) break;
        set(&s->synced, c->path, c->file < 0 ? -1 : c->file);
    }
    clear(&s->changes);
}

static int sim_syncdir(void *self, const char *path) {
    ENTER;
    settle(s, 100);
    LEAVE(0);
}

static int sim_list(void *self, const char *path, void (*each)(void *ctx, const char *name), void *ctx) {
    ENTER;
    size_t n = strlen(path);
    for (size_t i = 0; i < s->now.n; i++) {
        const name *e = &s->now.at[i];
        if (e->file >= 0 && strncmp(e->path, path, n) == 0 && e->path[n] == '/' && !strchr(e->path + n + 1, '/'))
            each(ctx, e->path + n + 1);
    }
    LEAVE(0);
}

static int sim_lock(void *self, int fd) {
    ENTER;
    file *f = of_handle(s, fd);
    if (!f) LEAVE(-EBADF);
    if (f->locked_by && f->locked_by != fd + 1) LEAVE(-EWOULDBLOCK);
    f->locked_by = fd + 1;
    LEAVE(0);
}

jsc_sim *jsc_sim_new(uint64_t seed) {
    jsc_sim *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->seed = seed;
    s->vfs = (jsc_vfs){s,        sim_open, sim_close, sim_pread,  sim_pwritev, sim_datasync, sim_allocate, sim_truncate,
                       sim_size, sim_map,  sim_unmap, sim_rename, sim_unlink,  sim_mkdir,    sim_syncdir,  sim_list,
                       sim_lock};
    return s;
}

void jsc_sim_free(jsc_sim *s) {
    if (!s) return;
    for (int i = 0; i < s->nfiles; i++) {
        munmap(s->files[i]->now, IMAGE_BYTES);
        munmap(s->files[i]->synced, IMAGE_BYTES);
        munmap(s->files[i]->dirty, IMAGE_BYTES / PAGE);
        free(s->files[i]);
    }
    free(s->files);
    free(s->handles);
    clear(&s->now);
    clear(&s->synced);
    clear(&s->changes);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const jsc_vfs *jsc_sim_vfs(jsc_sim *s) { return &s->vfs; }

void jsc_sim_crash(jsc_sim *s, int keep_percent, int torn) {
    pthread_mutex_lock(&s->lock);
    settle(s, keep_percent);
    clear(&s->now);
    for (size_t i = 0; i < s->synced.n; i++)
        if (s->synced.at[i].file >= 0) set(&s->now, s->synced.at[i].path, s->synced.at[i].file);
    for (int i = 0; i < s->nfiles; i++) {
        file *f = s->files[i];
        if (f->now_size != f->synced_size && chance(s, keep_percent)) f->synced_size = f->now_size;
        for (size_t p = 0; p * PAGE < f->high; p++) {
            if (!f->dirty[p]) continue;
            f->dirty[p] = 0;
            uint8_t *to = f->synced + p * PAGE, *from = f->now + p * PAGE;
            if (torn && chance(s, 30)) {
                for (size_t k = 0; k < PAGE; k += SECTOR)
                    if (chance(s, keep_percent)) memcpy(to + k, from + k, SECTOR);
            } else if (chance(s, keep_percent)) {
                memcpy(to, from, PAGE);
            }
        }
        /* Nothing lies behind the end of a file. */
        if (f->synced_size < f->high) memset(f->synced + f->synced_size, 0, f->high - f->synced_size);
        memcpy(f->now, f->synced, f->high);
        f->now_size = f->synced_size;
        f->locked_by = 0;
    }
    for (int i = 0; i < s->nhandles; i++) s->handles[i] = -1;
    pthread_mutex_unlock(&s->lock);
}

void jsc_sim_fail(jsc_sim *s, int op, int n, int err) {
    pthread_mutex_lock(&s->lock);
    static const char ops[] = "wsra";
    const char *at = strchr(ops, op);
    if (at && op) {
        s->fault[at - ops].op = op;
        s->fault[at - ops].n = n;
        s->fault[at - ops].err = err;
    }
    pthread_mutex_unlock(&s->lock);
}

int jsc_sim_flip(jsc_sim *s, const char *path, uint64_t offset, int bit) {
    pthread_mutex_lock(&s->lock);
    int f = lookup(s, path), rc = f < 0 ? -ENOENT : 0;
    if (!rc && offset >= s->files[f]->now_size) rc = JSC_EINVAL;
    if (!rc) {
        s->files[f]->now[offset] ^= (uint8_t)(1 << (bit & 7));
        s->files[f]->synced[offset] ^= (uint8_t)(1 << (bit & 7));
        if (offset >= s->files[f]->high) s->files[f]->high = offset + 1;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int64_t jsc_sim_synced(jsc_sim *s, const char *path) {
    pthread_mutex_lock(&s->lock);
    name *e = find(&s->synced, path);
    int64_t n = e && e->file >= 0 ? (int64_t)s->files[e->file]->synced_size : -ENOENT;
    pthread_mutex_unlock(&s->lock);
    return n;
}
