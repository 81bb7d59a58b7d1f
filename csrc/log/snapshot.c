#include "snapshot.h"
#include "log_internal.h"

#include <errno.h>
#include <fcntl.h>

/* Head, little endian: 0 magic · 8 u32 version · 12 u32 term before first · 16 u64 index · 24 u64 first · 32 u32 term of
 * index · 36 u32 crc32c of the body · 40 u64 bytes of the body · 48 zeros · 60 u32 crc32c of [0, 60). */
#define MAGIC 0x31504e5343534aull /* "JSCSNP1" */
#define VERSION 1

static const char *const names[] = {"snapshot", "snapshot.copy"};

void jsc_snapshot_seal(uint8_t *file, size_t n, const jsc_snapshot_head *h) {
    memset(file, 0, JSC_SNAPSHOT_HEAD);
    jsc_put64(file, MAGIC);
    jsc_put32(file + 8, VERSION);
    jsc_put32(file + 12, h->before);
    jsc_put64(file + 16, h->index);
    jsc_put64(file + 24, h->first);
    jsc_put32(file + 32, h->term);
    jsc_put32(file + 36, jsc_crc32c(0, file + JSC_SNAPSHOT_HEAD, n - JSC_SNAPSHOT_HEAD));
    jsc_put64(file + 40, n - JSC_SNAPSHOT_HEAD);
    jsc_put32(file + 60, jsc_crc32c(0, file, 60));
}

int jsc_snapshot_check(const uint8_t *file, size_t n, jsc_snapshot_head *out) {
    if (n < JSC_SNAPSHOT_HEAD || jsc_get64(file) != MAGIC || jsc_get32(file + 60) != jsc_crc32c(0, file, 60))
        return JSC_ECORRUPT;
    if (jsc_get32(file + 8) != VERSION) return JSC_EFORMAT;
    jsc_snapshot_head h = {.index = jsc_get64(file + 16),
                           .first = jsc_get64(file + 24),
                           .term = jsc_get32(file + 32),
                           .before = jsc_get32(file + 12)};
    if (jsc_get64(file + 40) != n - JSC_SNAPSHOT_HEAD || !h.first || h.first > h.index || h.index > INT64_MAX)
        return JSC_ECORRUPT;
    if (jsc_get32(file + 36) != jsc_crc32c(0, file + JSC_SNAPSHOT_HEAD, n - JSC_SNAPSHOT_HEAD)) return JSC_ECORRUPT;
    *out = h;
    return JSC_OK;
}

static char *path_of(const char *dir, const char *name, const char *end) {
    size_t n = strlen(dir) + strlen(name) + strlen(end) + 2;
    char *path = malloc(n);
    if (path) snprintf(path, n, "%s/%s%s", dir, name, end);
    return path;
}

static int write_one(const jsc_vfs *vfs, const char *dir, const char *name, const uint8_t *file, size_t n) {
    char *path = path_of(dir, name, ""), *tmp = path_of(dir, name, ".tmp");
    int rc = -ENOMEM, fd = -1;
    if (!path || !tmp) goto out;
    if ((rc = fd = vfs->open(vfs->self, tmp, O_RDWR | O_CREAT | O_TRUNC, 0644)) < 0) goto out;
    rc = vfs->truncate(vfs->self, fd, 0); /* a table of calls may know no O_TRUNC */
    if (rc == 0) rc = jsc_write_all(vfs, fd, file, n, 0);
    if (rc == 0) rc = vfs->datasync(vfs->self, fd);
    vfs->close(vfs->self, fd);
    if (rc == 0) rc = vfs->rename(vfs->self, tmp, path);
    if (rc == 0) rc = vfs->syncdir(vfs->self, dir);
    if (rc < 0) vfs->unlink(vfs->self, tmp);
out:
    free(path);
    free(tmp);
    return rc;
}

int jsc_snapshot_write(const jsc_vfs *vfs, const char *dir, const uint8_t *file, size_t n) {
    for (int i = 0; i < 2; i++) {
        int rc = write_one(vfs, dir, names[i], file, n);
        if (rc != JSC_OK) return rc;
    }
    return JSC_OK;
}

static int read_one(const jsc_vfs *vfs, const char *dir, const char *name, uint8_t **file, size_t *n,
                    jsc_snapshot_head *head) {
    char *path = path_of(dir, name, "");
    if (!path) return -ENOMEM;
    int fd = vfs->open(vfs->self, path, O_RDONLY, 0), rc = fd;
    free(path);
    if (fd < 0) return fd == -ENOENT ? JSC_ENOTFOUND : fd;
    uint8_t *p = NULL;
    int64_t size = vfs->size(vfs->self, fd);
    if (size < 0) rc = (int)size;
    else if (size < JSC_SNAPSHOT_HEAD || (uint64_t)size > JSC_SNAPSHOT_MAX) rc = JSC_ECORRUPT;
    else rc = (p = malloc((size_t)size)) ? JSC_OK : -ENOMEM;
    for (int64_t at = 0; rc == JSC_OK && at < size;) {
        ssize_t got = vfs->pread(vfs->self, fd, p + at, (size_t)(size - at), at);
        if (got > 0) at += got;
        else rc = JSC_ECORRUPT; /* a block that cannot be read is as good as a rotten one */
    }
    vfs->close(vfs->self, fd);
    if (rc == JSC_OK) rc = jsc_snapshot_check(p, (size_t)size, head);
    if (rc != JSC_OK) {
        free(p);
        return rc;
    }
    *file = p;
    *n = (size_t)size;
    return JSC_OK;
}

int jsc_snapshot_read(const jsc_vfs *vfs, const char *dir, uint8_t **file, size_t *n, int *hurt) {
    uint8_t *p[2] = {NULL, NULL};
    size_t size[2];
    int rc[2], best = -1;
    jsc_snapshot_head h[2];
    for (int i = 0; i < 2; i++) rc[i] = read_one(vfs, dir, names[i], &p[i], &size[i], &h[i]);
    for (int i = 0; i < 2; i++)
        if (rc[i] == JSC_OK && (best < 0 || h[i].index > h[best].index)) best = i;
    for (int i = 0; i < 2; i++)
        if (i != best) free(p[i]);
    if (best >= 0) {
        *file = p[best];
        *n = size[best];
        *hurt = rc[0] != JSC_OK || rc[1] != JSC_OK;
        return JSC_OK;
    }
    for (int i = 0; i < 2; i++)
        if (rc[i] != JSC_ENOTFOUND && rc[i] != JSC_ECORRUPT) return rc[i];
    return rc[0] == JSC_ENOTFOUND && rc[1] == JSC_ENOTFOUND ? JSC_ENOTFOUND : JSC_ECORRUPT;
}
