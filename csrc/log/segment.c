/* One file of a log: its name, its index, its mapping. */
#include "log_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <time.h>

uint64_t jsc_random(void) {
    uint64_t v;
    if (getrandom(&v, sizeof v, 0) == (ssize_t)sizeof v) return v;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return jsc_hash(&now, sizeof now);
}

char *jsc_segment_path(const jsc_log *log, uint64_t first, const char *suffix) {
    size_t n = strlen(log->dir) + 32;
    char *path = malloc(n);
    if (path) snprintf(path, n, "%s/%016llx%s", log->dir, (unsigned long long)first, suffix);
    return path;
}

jsc_segment *jsc_segment_new(jsc_log *log, uint64_t first) {
    jsc_segment *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->first = first;
    s->salt = jsc_random();
    s->used = JSC_SEGMENT_HEAD;
    s->limit = log->segment_bytes;
    return s;
}

void jsc_segment_free(jsc_log *log, jsc_segment *s) {
    if (!s) return;
    if (s->map) log->vfs->unmap(log->vfs->self, s->map, s->map_len);
    free(s->at);
    free(s);
}

int jsc_segment_push(jsc_log *log, jsc_segment *s) {
    if (log->nsegments == log->segments_cap) {
        size_t cap = log->segments_cap ? 2 * log->segments_cap : 4;
        jsc_segment **grown = realloc(log->segments, cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        log->segments = grown;
        log->segments_cap = cap;
    }
    log->segments[log->nsegments++] = s;
    return JSC_OK;
}

int jsc_segment_index(jsc_segment *s, uint64_t offset) {
    if (JSC_UNLIKELY(s->count == s->cap)) {
        size_t cap = s->cap ? 2 * s->cap : 32;
        uint32_t *grown = realloc(s->at, cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        s->at = grown;
        s->cap = cap;
    }
    s->at[s->count++] = (uint32_t)(offset / 8);
    return JSC_OK;
}

int jsc_segment_open(jsc_log *log, const jsc_segment *s, int flags) {
    char *path = jsc_segment_path(log, s->first, ".seg");
    if (!path) return -ENOMEM;
    int fd = log->vfs->open(log->vfs->self, path, flags, 0);
    free(path);
    return fd;
}

int jsc_segment_map(jsc_log *log, jsc_segment *s) {
    if (s->map) return JSC_OK;
    const jsc_vfs *vfs = log->vfs;
    int fd = jsc_segment_open(log, s, O_RDONLY), rc;
    if (fd < 0) return fd;
    /* The whole segment at once: bytes beyond the end of the file are mapped but never touched. */
    rc = vfs->map(vfs->self, fd, s->limit, (const void **)&s->map);
    if (rc == 0) s->map_len = s->limit;
    vfs->close(vfs->self, fd);
    return rc;
}

jsc_segment *jsc_segment_find(const jsc_log *log, uint64_t index) {
    size_t lo = 0, hi = log->nsegments;
    if (hi && log->segments[hi - 1]->first <= index) return log->segments[hi - 1];
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (log->segments[mid]->first <= index) lo = mid + 1;
        else hi = mid;
    }
    return lo ? log->segments[lo - 1] : NULL;
}

int jsc_write_all(const jsc_vfs *vfs, int fd, const void *bytes, size_t n, uint64_t at) {
    const uint8_t *p = bytes;
    while (n) {
        struct iovec v = {(void *)(uintptr_t)p, n};
        ssize_t put = vfs->pwritev(vfs->self, fd, &v, 1, (off_t)at);
        if (put <= 0) return put < 0 ? (int)put : -EIO;
        p += put;
        at += (uint64_t)put;
        n -= (size_t)put;
    }
    return JSC_OK;
}
