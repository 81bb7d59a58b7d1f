/* A disk in memory that forgets, tears, fills, fails, dies and rots on demand: the table of calls, and the test's own. */
#include "vfs_sim.h"

#include <fcntl.h>

enum { SLOT_BITS = 20 };

static int op_index(int op) {
    const char *at = op ? strchr(JSC_VFS_OPS, op) : NULL;
    return at ? (int)(at - JSC_VFS_OPS) : -1;
}

/* Counts the call: 0, or the -err that it has to return. */
static int gate(jsc_sim *s, int op) {
    int i = op_index(op);
    s->calls[i]++;
    if (s->dies_err && !strchr("czmxf", op) && (s->dies_in == 0 || --s->dies_in == 0)) return -s->dies_err;
    if (!s->fault[i].err || --s->fault[i].n) return 0;
    int err = s->fault[i].err;
    s->fault[i].err = 0;
    return -err;
}

static sim_file *of_handle(jsc_sim *s, int fd) {
    int slot = fd & ((1 << SLOT_BITS) - 1);
    if (fd < 0 || fd >> SLOT_BITS != s->epoch || slot >= s->nhandles) return NULL;
    return s->handles[slot];
}

#define ENTER(op)                                                                                                      \
    jsc_sim *s = self;                                                                                                 \
    pthread_mutex_lock(&s->lock);                                                                                      \
    int rc = gate(s, op);                                                                                              \
    if (rc < 0) LEAVE(rc)
#define LEAVE(x)                                                                                                       \
    do {                                                                                                               \
        __typeof__(x) result_ = (x); /* while the lock is still held */                                                \
        pthread_mutex_unlock(&s->lock);                                                                                \
        return result_;                                                                                                \
    } while (0)
#define ENTER_FILE(op)                                                                                                 \
    ENTER(op);                                                                                                         \
    sim_file *f = of_handle(s, fd);                                                                                    \
    if (!f) LEAVE(-EBADF)

static int sim_open(void *self, const char *path, int flags, int mode) {
    ENTER('o');
    sim_file *f = sim_find(s, path);
    if (f && (flags & O_CREAT) && (flags & O_EXCL)) LEAVE(-EEXIST);
    if (f && f->dir) LEAVE(-EISDIR);
    if (!f && !(flags & O_CREAT)) LEAVE(-ENOENT);
    int slot = 0;
    while (slot < s->nhandles && s->handles[slot]) slot++;
    if (slot == 1 << SLOT_BITS) LEAVE(-EMFILE);
    if (slot == s->nhandles) s->handles = sim_grow(s->handles, (size_t)++s->nhandles, sizeof *s->handles);
    if (!f) {
        f = sim_file_new(s);
        sim_name_set(s, path, f, false);
    } else if (flags & O_TRUNC) {
        sim_file_resize(s, f, 0);
    }
    s->handles[slot] = f;
    f->handles++;
    LEAVE(s->epoch << SLOT_BITS | slot);
}

static void close_slot(jsc_sim *s, int slot) {
    sim_file *f = s->handles[slot];
    s->handles[slot] = NULL;
    f->handles--;
    sim_file_settle_use(s, f);
}

static int sim_close(void *self, int fd) {
    ENTER_FILE('c');
    if (f->locked_by == fd + 1) f->locked_by = 0;
    for (int i = 0; i < f->nsharers; i++)
        if (f->sharers[i] == fd) f->sharers[i--] = f->sharers[--f->nsharers];
    close_slot(s, fd & ((1 << SLOT_BITS) - 1));
    LEAVE(0);
}

static ssize_t sim_pread(void *self, int fd, void *buf, size_t n, off_t at) {
    ENTER_FILE('r');
    uint64_t lo = (uint64_t)at;
    if (f->bad_hi > lo && f->bad_lo < f->size && lo < f->size && (f->bad_lo <= lo || f->bad_lo - lo < n)) LEAVE(-EIO);
    LEAVE((ssize_t)sim_file_read(f, lo, buf, n));
}

static ssize_t sim_pwritev(void *self, int fd, const struct iovec *iov, int niov, off_t at) {
    ENTER_FILE('w');
    size_t total = 0;
    uint64_t pos = (uint64_t)at;
    for (int i = 0; i < niov; i++) total += iov[i].iov_len;
    if (pos + total > SIM_FILE_MAX) LEAVE(-EFBIG);
    size_t put = total;
    if (total > 1 && sim_chance(s, s->short_percent)) put = 1 + sim_random(s) % (total - 1);
    uint64_t room = sim_file_charge(s, f, pos + put);
    if (put && room <= pos) LEAVE(-ENOSPC);
    if (put > room - pos) put = (size_t)(room - pos);
    size_t left = put;
    for (int i = 0; i < niov && left; i++) {
        size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;
        sim_file_write(s, f, pos, iov[i].iov_base, n);
        pos += n;
        left -= n;
    }
    LEAVE((ssize_t)put);
}

static int sim_datasync(void *self, int fd) {
    jsc_sim *s = self;
    pthread_mutex_lock(&s->lock);
    sim_file *f = of_handle(s, fd);
    int rc = gate(s, 's');
    if (!f) LEAVE(-EBADF);
    if (rc < 0) sim_file_drop_some(s, f, s->drop_percent);
    else sim_file_sync(s, f);
    LEAVE(rc);
}

static int sim_allocate(void *self, int fd, off_t at, off_t n) {
    ENTER_FILE('a');
    uint64_t end = (uint64_t)at + (uint64_t)n, had = f->charged;
    if (end > SIM_FILE_MAX) LEAVE(-EFBIG);
    if (sim_file_charge(s, f, end) < end) { /* all or nothing */
        s->used -= f->charged - had;
        f->charged = had;
        LEAVE(-ENOSPC);
    }
    if (end > f->size) f->size = end;
    LEAVE(0);
}

static int sim_truncate(void *self, int fd, off_t size) {
    ENTER_FILE('t');
    if ((uint64_t)size > SIM_FILE_MAX) LEAVE(-EFBIG);
    sim_file_resize(s, f, (uint64_t)size);
    LEAVE(0);
}

static int64_t sim_size(void *self, int fd) {
    ENTER_FILE('z');
    LEAVE((int64_t)f->size);
}

static int sim_map(void *self, int fd, size_t n, const void **out) {
    ENTER_FILE('m');
    if (!n) LEAVE(-EINVAL);
    if (n > SIM_FILE_MAX) LEAVE(-ENOMEM);
    *out = sim_file_map(s, f, n);
    LEAVE(0);
}

static int sim_map_read(void *self, int fd, size_t n, const void **out) {
    ENTER_FILE('r');
    if (!n) LEAVE(-EINVAL);
    if (n > SIM_FILE_MAX) LEAVE(-ENOMEM);
    if (f->bad_lo < f->bad_hi && f->bad_lo < f->size && f->bad_lo < n) LEAVE(-EIO);
    *out = sim_file_map(s, f, n);
    LEAVE(0);
}

static int sim_unmap(void *self, const void *p, size_t n) {
    ENTER('x');
    sim_image_unmap(s, p);
    LEAVE(0);
}

static int sim_rename(void *self, const char *from, const char *to) {
    ENTER('n');
    sim_file *f = sim_find(s, from), *over = sim_find(s, to);
    size_t from_dir, to_dir;
    sim_base(from, &from_dir);
    sim_base(to, &to_dir);
    if (!f) LEAVE(-ENOENT);
    if (f->dir || (over && over->dir)) LEAVE(-EISDIR);
    if (from_dir != to_dir || strncmp(from, to, to_dir) != 0) LEAVE(-EXDEV);
    if (f == over) LEAVE(0);
    sim_name_set(s, to, f, false);
    sim_name_set(s, from, NULL, true);
    LEAVE(0);
}

static int sim_unlink(void *self, const char *path) {
    ENTER('u');
    sim_file *f = sim_find(s, path);
    if (!f) LEAVE(-ENOENT);
    if (f->dir) LEAVE(-EISDIR);
    sim_name_set(s, path, NULL, false);
    LEAVE(0);
}

static int sim_mkdir(void *self, const char *path, int mode) {
    ENTER('k');
    sim_file *f = sim_find(s, path);
    if (f) LEAVE(f->dir ? 0 : -ENOTDIR);
    f = sim_file_new(s);
    sim_dir_new(s, f);
    sim_name_set(s, path, f, false);
    LEAVE(0);
}

static int sim_syncdir(void *self, const char *path) {
    ENTER('d');
    sim_file *f = sim_find(s, path);
    if (!f) LEAVE(-ENOENT);
    if (!f->dir) LEAVE(-ENOTDIR);
    sim_dir_settle(s, f->dir, 100);
    LEAVE(0);
}

static int sim_list(void *self, const char *path, void (*each)(void *ctx, const char *name), void *ctx) {
    ENTER('l');
    sim_file *f = sim_find(s, path);
    if (!f) LEAVE(-ENOENT);
    if (!f->dir) LEAVE(-ENOTDIR);
    size_t n;
    for (const sim_name *e = f->dir->names; e; e = e->next)
        if (e->now) each(ctx, sim_base(e->path, &n));
    LEAVE(0);
}

static int sim_lock(void *self, int fd) {
    ENTER_FILE('f');
    if ((f->locked_by && f->locked_by != fd + 1) || f->nsharers) LEAVE(-EWOULDBLOCK);
    f->locked_by = fd + 1;
    LEAVE(0);
}

static int sim_share(void *self, int fd) {
    ENTER_FILE('f');
    if (f->locked_by && f->locked_by != fd + 1) LEAVE(-EWOULDBLOCK);
    int *grown = realloc(f->sharers, ((size_t)f->nsharers + 1) * sizeof *grown);
    if (!grown) LEAVE(-ENOMEM);
    f->sharers = grown;
    f->sharers[f->nsharers++] = fd;
    LEAVE(0);
}

/* What is not synced is kept or lost by the seed's choice anyway. */
static int sim_flush_hint(void *self, int fd, off_t at, off_t n) { return 0; }

/* ---- what the test does ---- */

jsc_sim *jsc_sim_new(uint64_t seed) {
    jsc_sim *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->seed = seed;
    s->capacity = UINT64_MAX;
    s->short_percent = 10;
    s->files_end = &s->files;
    sim_names_new(s);
    s->vfs = (jsc_vfs){
        s,        sim_open, sim_close,    sim_pread,     sim_pwritev, sim_datasync, sim_allocate, sim_truncate,
        sim_size, sim_map,  sim_map_read, sim_unmap,     sim_rename,  sim_unlink,   sim_mkdir,    sim_syncdir,
        sim_list, sim_lock, sim_share,    sim_flush_hint};
    return s;
}

void jsc_sim_free(jsc_sim *s) {
    if (!s) return;
    sim_names_free(s);
    while (s->files) sim_file_free(s, s->files);
    sim_images_free(s);
    while (s->nspare) free(s->spare[--s->nspare]);
    free(s->handles);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const jsc_vfs *jsc_sim_vfs(jsc_sim *s) { return &s->vfs; }

void jsc_sim_crash(jsc_sim *s, int keep_percent, int torn) {
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->nhandles; i++)
        if (s->handles[i]) close_slot(s, i);
    s->epoch = (s->epoch + 1) & 0x7ff;
    sim_names_crash(s, keep_percent);
    sim_file *next;
    for (sim_file *f = s->files; f; f = next) {
        next = f->next;
        if (f->links) sim_file_crash(s, f, keep_percent, torn);
    }
    pthread_mutex_unlock(&s->lock);
}

void jsc_sim_fail(jsc_sim *s, int op, int n, int err) {
    pthread_mutex_lock(&s->lock);
    int i = op_index(op);
    if (i >= 0) {
        s->fault[i].n = n;
        s->fault[i].err = err;
    }
    pthread_mutex_unlock(&s->lock);
}

void jsc_sim_die(jsc_sim *s, int n, int err) {
    pthread_mutex_lock(&s->lock);
    s->dies_in = n;
    s->dies_err = err;
    pthread_mutex_unlock(&s->lock);
}

void jsc_sim_capacity(jsc_sim *s, uint64_t bytes) {
    pthread_mutex_lock(&s->lock);
    s->capacity = bytes;
    pthread_mutex_unlock(&s->lock);
}

void jsc_sim_habits(jsc_sim *s, int short_percent, int drop_percent) {
    pthread_mutex_lock(&s->lock);
    s->short_percent = short_percent;
    s->drop_percent = drop_percent;
    pthread_mutex_unlock(&s->lock);
}

uint64_t jsc_sim_used(jsc_sim *s) {
    pthread_mutex_lock(&s->lock);
    uint64_t n = s->used;
    pthread_mutex_unlock(&s->lock);
    return n;
}

uint64_t jsc_sim_calls(jsc_sim *s, int op) {
    pthread_mutex_lock(&s->lock);
    uint64_t n = 0;
    for (size_t i = 0; i < SIM_OPS; i++)
        if (!op || op_index(op) == (int)i) n += s->calls[i];
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* The file at a path, under the lock; NULL, and *rc says why, when there is none. */
static sim_file *file_at(jsc_sim *s, const char *path, int *rc) {
    sim_file *f = sim_find(s, path);
    *rc = !f ? -ENOENT : f->dir ? -EISDIR : 0;
    return *rc ? NULL : f;
}

int jsc_sim_bad(jsc_sim *s, const char *path, uint64_t lo, uint64_t hi) {
    pthread_mutex_lock(&s->lock);
    int rc;
    sim_file *f = file_at(s, path, &rc);
    if (f) {
        f->bad_lo = lo;
        f->bad_hi = hi > lo ? hi : 0;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int jsc_sim_patch(jsc_sim *s, const char *path, uint64_t at, const void *bytes, size_t n) {
    pthread_mutex_lock(&s->lock);
    int rc;
    sim_file *f = file_at(s, path, &rc);
    if (f && (at > f->size || n > f->size - at)) rc = JSC_EINVAL;
    else if (f && n) sim_file_patch(s, f, at, bytes, n);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int jsc_sim_flip(jsc_sim *s, const char *path, uint64_t offset, int bit) {
    pthread_mutex_lock(&s->lock);
    int rc;
    sim_file *f = file_at(s, path, &rc);
    if (f && offset >= f->size) rc = JSC_EINVAL;
    else if (f) sim_file_flip(s, f, offset, (uint8_t)(1 << (bit & 7)));
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int64_t jsc_sim_read(jsc_sim *s, const char *path, uint64_t at, void *buf, size_t n) {
    pthread_mutex_lock(&s->lock);
    int rc;
    sim_file *f = file_at(s, path, &rc);
    int64_t got = f ? (int64_t)sim_file_read(f, at, buf, n) : rc;
    pthread_mutex_unlock(&s->lock);
    return got;
}

int64_t jsc_sim_size(jsc_sim *s, const char *path) {
    pthread_mutex_lock(&s->lock);
    int rc;
    sim_file *f = file_at(s, path, &rc);
    int64_t n = f ? (int64_t)f->size : rc;
    pthread_mutex_unlock(&s->lock);
    return n;
}

int jsc_sim_resize(jsc_sim *s, const char *path, uint64_t size) {
    pthread_mutex_lock(&s->lock);
    int rc;
    sim_file *f = file_at(s, path, &rc);
    if (f && size > SIM_FILE_MAX) rc = -EFBIG;
    else if (f) {
        sim_file_resize(s, f, size);
        sim_file_sync(s, f);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int64_t jsc_sim_synced(jsc_sim *s, const char *path) {
    pthread_mutex_lock(&s->lock);
    sim_file *f = sim_find_synced(s, path);
    int64_t n = f && !f->dir ? (int64_t)f->synced_size : -ENOENT;
    pthread_mutex_unlock(&s->lock);
    return n;
}
