/* One file of a log: its name, its index, its mapping. */
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
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
    s->vfs = log->vfs;
    s->blocks = log->blocks;
    s->first = first;
    s->salt = jsc_random();
    s->used = JSC_SEGMENT_HEAD;
    s->limit = log->segment_bytes;
    s->fd = -1;
    atomic_store(&s->refs, 1);
    return s;
}

void jsc_segment_widen(const jsc_log *log, jsc_segment *s) {
    uint64_t room = log->vfs == jsc_vfs_posix() ? (uint64_t)1 << 30 : log->segment_bytes;
    if (log->read_only && s->limit < room) s->limit = room;
}

void jsc_segment_ref(jsc_segment *s) { atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed); }

int jsc_segment_unlink(jsc_segment *s) {
    const jsc_vfs *vfs = s->vfs;
    if (!s->path) return JSC_OK;
    /* The sidecar first, also one that does not fit, so that a power cut leaves none behind. A file that cannot be
     * unlinked is found again, and judged again, at the next open. */
    char *end = s->path + strlen(s->path) - 4;
    memcpy(end, ".idx", 4);
    vfs->unlink(vfs->self, s->path);
    memcpy(end, ".seg", 4);
    int rc = JSC_OK;
    if (!s->spares || !jsc_spares_offer(s->spares, s->path)) rc = vfs->unlink(vfs->self, s->path);
    if (rc < 0 && rc != -ENOENT) return rc;
    free(s->path);
    s->path = NULL;
    return JSC_OK;
}

void jsc_segment_unref(jsc_segment *s) {
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    const jsc_vfs *vfs = s->vfs;
    jsc_segment_close_sidecar(s);
    jsc_fresh_free(NULL, s->fresh);
    if (s->fd >= 0) vfs->close(vfs->self, s->fd);
    if (s->pack) {
        jsc_block_cache_forget(s->blocks, s->pack);
        jsc_pack_close(s->pack);
    }
    if (s->image) munmap(s->image, s->map_len);
    else if (s->map) vfs->unmap(vfs->self, s->map, s->map_len);
    if (jsc_segment_unlink(s) < 0) free(s->path);
    jsc_spares_unref(s->spares);
    jsc_cipher_free(s->cipher);
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

int jsc_segment_image(jsc_segment *s) {
    size_t room = s->limit + 2 * JSC_TRAILER_MAX; /* the mark of a clean close comes on top */
    void *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return -errno;
    s->image = p;
    s->map = p;
    s->map_len = room;
    return JSC_OK;
}

/* A reader beside a writer may find another file under the segment's name. */
static int same_file(jsc_log *log, const jsc_segment *s, int fd) {
    uint8_t head[JSC_SEGMENT_HEAD];
    jsc_segment_head h;
    ssize_t got = log->vfs->pread(log->vfs->self, fd, head, sizeof head, 0);
    if (got < 0) return (int)got;
    if (got == (ssize_t)sizeof head && jsc_segment_head_decode(head, &h) == JSC_OK && h.salt != s->salt) return -ESTALE;
    return JSC_OK;
}

static int load_image(jsc_log *log, jsc_segment *s, int fd) {
    jsc_image m = {0};
    jsc_segment_head h = jsc_segment_head_of(s);
    int64_t size = log->vfs->size(log->vfs->self, fd);
    if (size < 0) return (int)size;
    int rc = jsc_image_load(log, fd, (uint64_t)size, &h, &m);
    if (rc == JSC_OK && m.size > s->limit) s->limit = m.size;
    if (rc == JSC_OK) rc = jsc_segment_image(s);
    if (rc == JSC_OK) memcpy(s->image, m.bytes, m.size);
    jsc_image_free(&m);
    return rc;
}

int jsc_segment_map(jsc_log *log, jsc_segment *s) {
    if (s->map || s->pack) return JSC_OK;
    const jsc_vfs *vfs = log->vfs;
    int fd = jsc_segment_open(log, s, O_RDONLY), rc = JSC_OK;
    if (fd < 0) return fd == -ENOENT && log->read_only ? -ESTALE : fd;
    if (log->read_only) rc = same_file(log, s, fd);
    if (rc == JSC_OK && s->flags & JSC_SF_PACKED) {
        jsc_segment_head h = jsc_segment_head_of(s);
        rc = jsc_pack_open(vfs, fd, &h, log->keys, &s->pack);
    } else if (rc == JSC_OK && s->flags & JSC_SF_ENCRYPTED) {
        rc = load_image(log, s, fd);
    } else if (rc == JSC_OK) {
        /* The whole segment at once: bytes beyond the end of the file are mapped but never touched. */
        rc = vfs->map(vfs->self, fd, s->limit, (const void **)&s->map);
        if (rc == 0) s->map_len = s->limit;
    }
    vfs->close(vfs->self, fd);
    return rc;
}

void jsc_segment_close_sidecar(jsc_segment *s) {
    if (s->side) jsc_sidecar_close(s->side);
    s->side = NULL;
}

int jsc_segment_sidecar(jsc_log *log, jsc_segment *s, jsc_sidecar **out) {
    if (!s->sealed) return JSC_ENOTFOUND;
    if (!s->side) {
        char *path = jsc_segment_path(log, s->first, ".idx");
        if (!path) return -ENOMEM;
        int fd = log->vfs->open(log->vfs->self, path, O_RDONLY, 0), rc;
        free(path);
        rc = fd < 0 ? fd : jsc_sidecar_open(log->vfs, fd, log->keys, &s->side);
        if (fd >= 0) log->vfs->close(log->vfs->self, fd);
        if (rc == JSC_OK && jsc_sidecar_about(s->side)->salt != s->salt) {
            jsc_segment_close_sidecar(s);
            rc = log->read_only ? -ESTALE : JSC_ECORRUPT;
        }
        if (rc == -ENOENT) rc = log->read_only ? -ESTALE : JSC_ECORRUPT;
        if (rc == JSC_ECORRUPT || rc == JSC_EFORMAT) {
            int again = s->at ? JSC_OK : jsc_segment_reindex(log, s);
            if (again != JSC_OK) return again;
            s->sealed = false;
            return JSC_ECORRUPT;
        }
        if (rc != JSC_OK) return rc;
    }
    *out = s->side;
    return JSC_OK;
}

void jsc_segment_trust(jsc_segment *s, const jsc_segment_head *h, const jsc_sidecar_info *info) {
    jsc_segment_take_head(s, h);
    s->info = *info;
    s->count = (size_t)(info->last - info->first + 1);
    s->used = info->used;
    s->bytes = info->record_bytes;
    s->allocated = info->segment_bytes;
    if (s->limit < info->used) s->limit = info->used;
    if (s->limit < info->segment_bytes) s->limit = info->segment_bytes;
    s->sealed = s->closed = s->created = true;
    atomic_store(&s->left, true);
}

int jsc_segment_where(jsc_log *log, jsc_segment *s, uint64_t index, uint64_t *offset) {
    if (index - s->first >= s->count) return JSC_ECORRUPT;
    if (s->at) {
        *offset = (uint64_t)s->at[index - s->first] * 8;
    } else {
        jsc_sidecar *side;
        int rc = jsc_segment_sidecar(log, s, &side);
        if (rc == JSC_ECORRUPT && s->at) return jsc_segment_where(log, s, index, offset);
        if (rc != JSC_OK) return rc;
        *offset = jsc_sidecar_record_at(side, index);
    }
    return *offset == 0 ? JSC_ECORRUPT : *offset == JSC_AT_GAP ? JSC_ENOTFOUND : JSC_OK;
}

/* In a packed segment the length comes first, in one block or two, then the rest. */
static int read_packed(jsc_segment *s, uint64_t offset, jsc_record *out, jsc_block **hold) {
    const uint8_t *p;
    jsc_block *block;
    size_t used;
    uint64_t end = jsc_pack_image_bytes(s->pack);
    if (offset > end || end - offset < JSC_RECORD_HEAD) return JSC_ECORRUPT;
    int rc = jsc_block_span(s->blocks, s->pack, offset, 8, &p, &block);
    if (rc != JSC_OK) return rc;
    uint64_t n = JSC_PAD((uint64_t)jsc_get32(p + 4));
    if (n < JSC_RECORD_HEAD || n > end - offset || n > JSC_PAD(JSC_RECORD_MAX)) rc = JSC_ECORRUPT;
    jsc_block_release(s->blocks, block);
    if (rc != JSC_OK || (rc = jsc_block_span(s->blocks, s->pack, offset, n, &p, &block)) != JSC_OK) return rc;
    if ((rc = jsc_record_decode(p, n, out, &used)) != JSC_OK) {
        jsc_block_release(s->blocks, block);
        return rc;
    }
    *hold = block;
    return JSC_OK;
}

int jsc_segment_read_at(jsc_log *log, jsc_segment *s, uint64_t offset, jsc_record *out, jsc_block **hold,
                        bool *fleeting) {
    int rc;
    size_t used;
    *hold = NULL;
    *fleeting = false;
    uint64_t position = s->base + offset;
    /* A rewritten segment was never in memory, and may be longer than what it replaced: its positions say nothing. */
    if (log->head && !(s->flags & JSC_SF_REWRITTEN) && position >= jsc_chunk_position(log->head) &&
        position >= atomic_load_explicit(&log->written, memory_order_acquire)) {
        *fleeting = true;
        const uint8_t *p;
        size_t n;
        if (!jsc_chunk_find(log, position, &p, &n)) return JSC_ENOTFOUND;
        jsc_record_view(p, out);
        return JSC_OK;
    }
    if (JSC_UNLIKELY(!s->map && !s->pack) && (rc = jsc_segment_map(log, s)) != JSC_OK) return rc;
    if (s->pack) return read_packed(s, offset, out, hold);
    if (offset < JSC_SEGMENT_HEAD || offset >= s->used || s->used > s->map_len) return JSC_ECORRUPT;
    return jsc_record_decode(s->map + offset, (size_t)(s->used - offset), out, &used);
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
