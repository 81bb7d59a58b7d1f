/* Every file call of the engine goes through this table: real files (jsc_vfs_posix), or a simulated disk
 * (jsc_vfs_sim) that forgets unsynced pages at a crash, flips bits and fails on demand. Calls return >= 0 or -errno. */
#ifndef JSC_VFS_H
#define JSC_VFS_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef struct jsc_vfs jsc_vfs;
struct jsc_vfs {
    void *self; /* passed back as the first argument of each call */
    int (*open)(void *self, const char *path, int flags, int mode); /* a handle >= 0 */
    int (*close)(void *self, int fd);
    ssize_t (*pread)(void *self, int fd, void *buf, size_t n, off_t at);
    ssize_t (*pwritev)(void *self, int fd, const struct iovec *iov, int niov, off_t at);
    int (*datasync)(void *self, int fd);
    int (*allocate)(void *self, int fd, off_t at, off_t n); /* reserve space; size grows, bytes read as zero */
    int (*truncate)(void *self, int fd, off_t size);
    int64_t (*size)(void *self, int fd);
    /* A read-only mapping of [0, n) that sees later writes to the file. */
    int (*map)(void *self, int fd, size_t n, const void **out);
    int (*unmap)(void *self, const void *p, size_t n);
    int (*rename)(void *self, const char *from, const char *to);
    int (*unlink)(void *self, const char *path);
    int (*mkdir)(void *self, const char *path, int mode); /* 0 also when it exists */
    int (*syncdir)(void *self, const char *path);
    /* Calls each(ctx, name) for the entries of a directory except . and .. */
    int (*list)(void *self, const char *path, void (*each)(void *ctx, const char *name), void *ctx);
    int (*lock)(void *self, int fd); /* exclusive, not waiting: -EWOULDBLOCK when another has it */
};

const jsc_vfs *jsc_vfs_posix(void);

/* A disk in memory. All of it lives behind `self`; files survive jsc_sim_crash, not jsc_sim_free. Not thread-safe
 * beyond one lock around each call. */
typedef struct jsc_sim jsc_sim;
jsc_sim *jsc_sim_new(uint64_t seed);
void jsc_sim_free(jsc_sim *);
const jsc_vfs *jsc_sim_vfs(jsc_sim *);
/* Power cut: every file keeps its synced bytes and, of each page (4096) written since, the new or the old contents by
 * the seed's choice (keep_percent 0..100 = chance that an unsynced page survives; torn: a page may be kept in part, by
 * sectors of 512); unsynced creations and renames likewise. All handles are closed. */
void jsc_sim_crash(jsc_sim *, int keep_percent, int torn);
/* The n-th call from now (1 = next) of an operation fails with -err. op: 'w' pwritev, 's' datasync, 'r' pread,
 * 'a' allocate. err 0 takes it back. */
void jsc_sim_fail(jsc_sim *, int op, int n, int err);
int jsc_sim_flip(jsc_sim *, const char *path, uint64_t offset, int bit); /* damage at rest */
int64_t jsc_sim_synced(jsc_sim *, const char *path); /* bytes of the file as a power cut now would leave them */
#endif
