/* A table of file calls over another one that ends the process at a chosen call, as a kill -9 would. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "jsc_base.h"
#include "jsc_vfs.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#define OPS (sizeof JSC_VFS_OPS - 1)

struct jsc_kill {
    jsc_vfs vfs;
    const jsc_vfs *under;
    uint64_t n;
    int when;
    _Atomic uint64_t counted; /* calls that n is about */
    _Atomic uint64_t calls[OPS];
};

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause(); /* until it arrives; the caller must not go on */
}

/* Counts a call: true when it is the last one. */
static bool gate(jsc_kill *k, int op) {
    atomic_fetch_add(&k->calls[strchr(JSC_VFS_OPS, op) - JSC_VFS_OPS], 1);
    if (!k->n || (k->when == JSC_KILL_MIDDLE && op != 'w')) return false;
    bool last = atomic_fetch_add(&k->counted, 1) + 1 == k->n;
    if (last && k->when == JSC_KILL_BEFORE) die();
    return last;
}

#define THROUGH(op, type, call)                                                                                        \
    jsc_kill *k = self;                                                                                                \
    const jsc_vfs *under = k->under;                                                                                   \
    bool last = gate(k, op);                                                                                           \
    type rc = under->call;                                                                                             \
    if (last) die();                                                                                                   \
    return rc

static int kill_open(void *self, const char *path, int flags, int mode) {
    THROUGH('o', int, open(under->self, path, flags, mode));
}

static int kill_close(void *self, int fd) { THROUGH('c', int, close(under->self, fd)); }

static ssize_t kill_pread(void *self, int fd, void *buf, size_t n, off_t at) {
    THROUGH('r', ssize_t, pread(under->self, fd, buf, n, at));
}

/* Writes the first half of the bytes, buffer by buffer. */
static void write_half(const jsc_vfs *under, int fd, const struct iovec *iov, int niov, off_t at) {
    size_t left = 0;
    for (int i = 0; i < niov; i++) left += iov[i].iov_len;
    left /= 2;
    for (int i = 0; i < niov && left; i++) {
        struct iovec v = {iov[i].iov_base, iov[i].iov_len < left ? iov[i].iov_len : left};
        while (v.iov_len) {
            ssize_t put = under->pwritev(under->self, fd, &v, 1, at);
            if (put <= 0) return;
            v.iov_base = (uint8_t *)v.iov_base + put;
            v.iov_len -= (size_t)put;
            at += put;
            left -= (size_t)put;
        }
    }
}

static ssize_t kill_pwritev(void *self, int fd, const struct iovec *iov, int niov, off_t at) {
    jsc_kill *k = self;
    bool last = gate(k, 'w');
    if (last && k->when == JSC_KILL_MIDDLE) {
        write_half(k->under, fd, iov, niov, at);
        die();
    }
    ssize_t rc = k->under->pwritev(k->under->self, fd, iov, niov, at);
    if (last) die();
    return rc;
}

static int kill_datasync(void *self, int fd) { THROUGH('s', int, datasync(under->self, fd)); }

static int kill_allocate(void *self, int fd, off_t at, off_t n) { THROUGH('a', int, allocate(under->self, fd, at, n)); }

static int kill_truncate(void *self, int fd, off_t size) { THROUGH('t', int, truncate(under->self, fd, size)); }
static int64_t kill_size(void *self, int fd) { THROUGH('z', int64_t, size(under->self, fd)); }

static int kill_map(void *self, int fd, size_t n, const void **out) { THROUGH('m', int, map(under->self, fd, n, out)); }

static int kill_map_read(void *self, int fd, size_t n, const void **out) {
    THROUGH('r', int, map_read(under->self, fd, n, out));
}

static int kill_unmap(void *self, const void *p, size_t n) { THROUGH('x', int, unmap(under->self, p, n)); }

static int kill_rename(void *self, const char *from, const char *to) {
    THROUGH('n', int, rename(under->self, from, to));
}

static int kill_unlink(void *self, const char *path) { THROUGH('u', int, unlink(under->self, path)); }

static int kill_mkdir(void *self, const char *path, int mode) { THROUGH('k', int, mkdir(under->self, path, mode)); }
static int kill_syncdir(void *self, const char *path) { THROUGH('d', int, syncdir(under->self, path)); }

static int kill_list(void *self, const char *path, void (*each)(void *ctx, const char *name), void *ctx) {
    THROUGH('l', int, list(under->self, path, each, ctx));
}

static int kill_lock(void *self, int fd) { THROUGH('f', int, lock(under->self, fd)); }
static int kill_share(void *self, int fd) { THROUGH('f', int, share(under->self, fd)); }

/* Not counted: what it begins, it may as well not. */
static int kill_flush_hint(void *self, int fd, off_t at, off_t n) {
    jsc_kill *k = self;
    return k->under->flush_hint(k->under->self, fd, at, n);
}

jsc_kill *jsc_kill_new(const jsc_vfs *under, uint64_t n, int when) {
    jsc_kill *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    k->under = under;
    k->n = n;
    k->when = when;
    k->vfs = (jsc_vfs){
        k,         kill_open, kill_close,    kill_pread,     kill_pwritev, kill_datasync, kill_allocate, kill_truncate,
        kill_size, kill_map,  kill_map_read, kill_unmap,     kill_rename,  kill_unlink,   kill_mkdir,    kill_syncdir,
        kill_list, kill_lock, kill_share,    kill_flush_hint};
    return k;
}

void jsc_kill_free(jsc_kill *k) { free(k); }
const jsc_vfs *jsc_kill_vfs(jsc_kill *k) { return &k->vfs; }

uint64_t jsc_kill_calls(const jsc_kill *k, int op) {
    uint64_t n = 0;
    for (size_t i = 0; i < OPS; i++)
        if (!op || JSC_VFS_OPS[i] == op) n += atomic_load(&k->calls[i]);
    return n;
}
