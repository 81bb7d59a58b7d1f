/* The I/O table over real files. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "jsc_base.h"
#include "jsc_vfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int result(int rc) { return rc < 0 ? -errno : rc; }

static int posix_open_(void *self, const char *path, int flags, int mode) {
    struct stat st;
    int fd;
    /* What lies in a directory need not be ours: a link is not followed, a pipe not waited for. */
    do fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return -errno;
    int rc = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? fd : S_ISDIR(st.st_mode) ? -EISDIR : -EOPNOTSUPP;
    if (rc < 0) close(fd);
    return rc;
}

static int posix_close_(void *self, int fd) { return result(close(fd)); }

static ssize_t posix_pread_(void *self, int fd, void *buf, size_t n, off_t at) {
    ssize_t got;
    do got = pread(fd, buf, n, at);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

static ssize_t posix_pwritev_(void *self, int fd, const struct iovec *iov, int niov, off_t at) {
    ssize_t put;
    do put = pwritev(fd, iov, niov, at);
    while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

static int posix_datasync_(void *self, int fd) { return result(fdatasync(fd)); }

static int posix_allocate_(void *self, int fd, off_t at, off_t n) {
    int rc;
    do rc = fallocate(fd, 0, at, n);
    while (rc < 0 && errno == EINTR);
    if (rc == 0) return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
    /* A file system without reservations: make it long enough, and let a write report a full disk. */
    struct stat st;
    if (fstat(fd, &st) < 0) return -errno;
    if (st.st_size >= at + n) return 0;
    return result(ftruncate(fd, at + n));
}

static int posix_truncate_(void *self, int fd, off_t size) {
    int rc;
    do rc = ftruncate(fd, size);
    while (rc < 0 && errno == EINTR);
    return result(rc);
}

static int64_t posix_size_(void *self, int fd) {
    struct stat st;
    return fstat(fd, &st) < 0 ? -errno : (int64_t)st.st_size;
}

static int posix_map_(void *self, int fd, size_t n, const void **out) {
    void *p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return -errno;
    *out = p;
    return 0;
}

static int posix_map_read_(void *self, int fd, size_t n, const void **out) {
    const void *p = NULL;
    int rc = posix_map_(self, fd, n, &p);
    if (rc < 0) return rc;
#ifdef MADV_POPULATE_READ
    rc = madvise((void *)(uintptr_t)p, n, MADV_POPULATE_READ) == 0 ? 0 : -errno;
    if (rc == -EINVAL) rc = -ENOSYS; /* Linux before 5.14 */
    if (rc == -EFAULT) rc = -EIO;
#else
    rc = -ENOSYS;
#endif
    if (rc == 0) *out = p;
    else munmap((void *)(uintptr_t)p, n);
    return rc;
}

static int posix_unmap_(void *self, const void *p, size_t n) { return result(munmap((void *)(uintptr_t)p, n)); }
static int posix_rename_(void *self, const char *from, const char *to) { return result(rename(from, to)); }
static int posix_unlink_(void *self, const char *path) { return result(unlink(path)); }

static int posix_mkdir_(void *self, const char *path, int mode) {
    if (mkdir(path, (mode_t)mode) == 0) return 0;
    if (errno != EEXIST) return -errno;
    struct stat st;
    if (stat(path, &st) < 0) return -errno;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

static int posix_syncdir_(void *self, const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int rc = result(fsync(fd));
    close(fd);
    return rc;
}

static int posix_list_(void *self, const char *path, void (*each)(void *ctx, const char *name), void *ctx) {
    DIR *dir = opendir(path);
    if (!dir) return -errno;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) each(ctx, entry->d_name);
    int rc = -errno;
    closedir(dir);
    return rc;
}

static int posix_lock_(void *self, int fd) { return result(flock(fd, LOCK_EX | LOCK_NB)); }
static int posix_share_(void *self, int fd) { return result(flock(fd, LOCK_SH | LOCK_NB)); }

static int posix_flush_hint_(void *self, int fd, off_t at, off_t n) {
    sync_file_range(fd, at, n, SYNC_FILE_RANGE_WRITE); /* what is wrong with the file, the sync tells */
    return 0;
}

const jsc_vfs *jsc_vfs_posix(void) {
    static const jsc_vfs table = {
        .open = posix_open_,
        .close = posix_close_,
        .pread = posix_pread_,
        .pwritev = posix_pwritev_,
        .datasync = posix_datasync_,
        .allocate = posix_allocate_,
        .truncate = posix_truncate_,
        .size = posix_size_,
        .map = posix_map_,
        .map_read = posix_map_read_,
        .unmap = posix_unmap_,
        .rename = posix_rename_,
        .unlink = posix_unlink_,
        .mkdir = posix_mkdir_,
        .syncdir = posix_syncdir_,
        .list = posix_list_,
        .lock = posix_lock_,
        .share = posix_share_,
        .flush_hint = posix_flush_hint_,
    };
    return &table;
}
