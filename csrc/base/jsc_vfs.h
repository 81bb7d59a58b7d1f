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
    /* The same, once every byte of it was read: an error of the disk is a result here, no signal later. Undone by unmap.
     * -ENOSYS: this system cannot. */
    int (*map_read)(void *self, int fd, size_t n, const void **out);
    int (*unmap)(void *self, const void *p, size_t n);
    int (*rename)(void *self, const char *from, const char *to);
    int (*unlink)(void *self, const char *path);
    int (*mkdir)(void *self, const char *path, int mode); /* 0 also when it exists */
    int (*syncdir)(void *self, const char *path);
    /* Calls each(ctx, name) for the entries of a directory except . and .. */
    int (*list)(void *self, const char *path, void (*each)(void *ctx, const char *name), void *ctx);
    int (*lock)(void *self, int fd); /* exclusive, not waiting: -EWOULDBLOCK when another has it, or shares it */
    int (*share)(void *self, int fd); /* the same lock, shared with others; both go when the handle is closed */
    /* [at, at + n) was written and will be synced: a disk that is idle may begin. Promises nothing, never fails. */
    int (*flush_hint)(void *self, int fd, off_t at, off_t n);
};

const jsc_vfs *jsc_vfs_posix(void);

/* A letter for each call of the table, in its order, but flush_hint: for faults and counts. `f` is lock and share,
 * `r` also map_read. */
#define JSC_VFS_OPS "ocrwsatzmxnukdlf"

/* A disk in memory. All of it lives behind `self`; files survive jsc_sim_crash, not jsc_sim_free. One lock around each
 * call. A file stays readable by handles and mappings when its name is gone, and its memory goes with the last of them;
 * a mapping stays where it is until unmapped. Directories that nobody made are taken as old ones: open with O_CREAT and
 * mkdir make up what is above, list and syncdir refuse what is not there. Renames stay in one directory. */
typedef struct jsc_sim jsc_sim;
jsc_sim *jsc_sim_new(uint64_t seed);
void jsc_sim_free(jsc_sim *);
const jsc_vfs *jsc_sim_vfs(jsc_sim *);
/* Power cut: every file keeps its synced bytes and, of each page (4096) written since, the new or the old contents by
 * the seed's choice (keep_percent 0..100 = chance that an unsynced page survives; torn: a page may be kept in part, by
 * sectors of 512), its old or new size likewise. Of the names that were made, replaced and removed in a directory since
 * its last syncdir, a prefix survives; a directory that goes takes along what was in it. All handles are closed, and
 * numbers given out before stay invalid; mappings show what they showed, apart from the file. */
void jsc_sim_crash(jsc_sim *, int keep_percent, int torn);
/* The n-th call from now (1 = next) of an operation, a letter of JSC_VFS_OPS, fails with -err. err 0 takes it back. */
void jsc_sim_fail(jsc_sim *, int op, int n, int err);
/* A dying disk: the n-th call from now (1 = next), and all behind it, fail with -err, but close, size, map, unmap and lock,
 * which need no disk. err 0: it lives. A power cut does not heal it. */
void jsc_sim_die(jsc_sim *, int n, int err);
/* Bytes that all files may take, in whole pages; UINT64_MAX at first. Beyond: allocate is -ENOSPC and takes nothing, a
 * write is short at the edge and -ENOSPC behind it. A file without a name counts while a handle or mapping has it. */
void jsc_sim_capacity(jsc_sim *, uint64_t bytes);
uint64_t jsc_sim_used(jsc_sim *);
/* short_percent: chance that a write is short, 10 at first. drop_percent: chance, 0 at first, that a page is dropped by a
 * sync that fails: readers see it, later syncs succeed without it, a power cut loses it, unless it is written again. */
void jsc_sim_habits(jsc_sim *, int short_percent, int drop_percent);
/* Calls so far, failed ones too, of an operation; op 0: of all. */
uint64_t jsc_sim_calls(jsc_sim *, int op);
/* Damage at rest; what it changes is changed on the disk as well. -ENOENT; JSC_EINVAL beyond the end of the file. */
int jsc_sim_flip(jsc_sim *, const char *path, uint64_t offset, int bit);
int jsc_sim_patch(jsc_sim *, const char *path, uint64_t at, const void *bytes, size_t n);
int jsc_sim_resize(jsc_sim *, const char *path, uint64_t size); /* longer: zeros. The file counts as synced then */
int jsc_sim_bad(jsc_sim *, const char *path, uint64_t lo,
                uint64_t hi); /* pread of any byte of [lo, hi) is -EIO; lo == hi: of none */
int64_t jsc_sim_read(jsc_sim *, const char *path, uint64_t at, void *buf, size_t n); /* bytes got; no fault hits it */
int64_t jsc_sim_size(jsc_sim *, const char *path);
int64_t jsc_sim_synced(jsc_sim *, const char *path); /* bytes of the file as a power cut now would leave them */

/* Over another table: counts calls, and kills this process (SIGKILL) at the n-th. */
typedef struct jsc_kill jsc_kill;
enum {
    JSC_KILL_BEFORE = 0, /* the call does nothing */
    JSC_KILL_MIDDLE = 1, /* n counts pwritev alone: half of the n-th one's bytes are written */
    JSC_KILL_AFTER = 2, /* the call is done, and its caller never hears of it */
};
/* n 0: never, it only counts. The table under it must outlive it. */
jsc_kill *jsc_kill_new(const jsc_vfs *under, uint64_t n, int when);
void jsc_kill_free(jsc_kill *);
const jsc_vfs *jsc_kill_vfs(jsc_kill *);
uint64_t jsc_kill_calls(const jsc_kill *, int op); /* so far, by a letter of JSC_VFS_OPS; 0: all */
#endif
