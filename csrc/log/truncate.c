/* Removing a suffix, so that a power cut at any moment leaves the log as it was or as it shall be, or something between:
 * never a hole, never the old suffix after the call returned. See docs/format.md#truncation. */
#include "scan.h"

#include <errno.h>
#include <fcntl.h>

/* The removed records' share of log->bytes. */
static void uncount(jsc_log *log, uint64_t from) {
    for (uint64_t i = from; i <= log->last; i++) {
        const uint8_t *p;
        size_t n;
        bool trusted;
        if (jsc_log_locate(log, i, &p, &n, &trusted) != JSC_OK || n < 8) continue;
        uint64_t padded = JSC_PAD((uint64_t)jsc_get32(p + 4));
        log->bytes -= padded < log->bytes ? padded : log->bytes;
    }
}

static void drop_last_segment(jsc_log *log) { jsc_segment_unref(log->segments[--log->nsegments]); }

static int unlink_file(jsc_log *log, uint64_t first, const char *suffix) {
    char *path = jsc_segment_path(log, first, suffix);
    if (!path) return -ENOMEM;
    int rc = log->vfs->unlink(log->vfs->self, path);
    free(path);
    return rc;
}

/* A sidecar says what the whole segment holds: not true any more. Its table of offsets is kept. */
static int forget_sidecar(jsc_log *log, jsc_segment *s) {
    if (!s->sealed) return JSC_OK;
    int rc = s->at ? JSC_OK : jsc_segment_reindex(log, s);
    if (rc != JSC_OK) return rc;
    jsc_segment_close_sidecar(s);
    s->sealed = false;
    return unlink_file(log, s->first, ".idx");
}

static int cut_file(jsc_log *log, jsc_segment *s, uint64_t size) {
    const jsc_vfs *vfs = log->vfs;
    int fd = jsc_segment_open(log, s, O_RDWR), rc;
    if (fd < 0) return fd;
    if ((rc = vfs->truncate(vfs->self, fd, (off_t)size)) == 0) rc = vfs->datasync(vfs->self, fd);
    vfs->close(vfs->self, fd);
    if (rc == 0) s->used = s->allocated = size;
    return rc;
}

/* The cut falls inside a batch: its records [first, last], at [from, to) of s, become a file of their own that takes the
 * place of everything behind it, by a rename. */
static int split_batch(jsc_log *log, jsc_segment *s, uint64_t first, uint64_t last, uint64_t from, uint64_t to) {
    const jsc_vfs *vfs = log->vfs;
    int rc = -ENOMEM, fd = -1;
    jsc_segment *n = jsc_segment_new(log, first);
    char *tmp = jsc_segment_path(log, first, ".tmp"), *name = jsc_segment_path(log, first, ".seg");
    uint8_t head[JSC_SEGMENT_HEAD], end[JSC_TRAILER_BYTES];
    if (!n || !tmp || !name) goto out;
    uint32_t crc = 0;
    int64_t ts = 0;
    n->prev_term = s->prev_term;
    jsc_record r;
    if (first > s->first && jsc_log_read(log, first - 1, &r) == JSC_OK) n->prev_term = r.term;
    for (uint64_t i = first; i <= last; i++) {
        if ((rc = jsc_log_read(log, i, &r)) != JSC_OK) goto out;
        uint32_t stored = jsc_get32(r.raw);
        crc = jsc_crc32c(crc, &stored, sizeof stored);
        ts = r.ts;
        if ((rc = jsc_segment_index(n, (uint64_t)s->at[i - s->first] * 8 - from + JSC_SEGMENT_HEAD)) < 0) goto out;
    }
    jsc_segment_head fields = jsc_segment_head_of(n);
    jsc_segment_head_encode(&fields, head);
    jsc_trailer_encode(&(jsc_trailer){.index = last,
                                      .durable = last, /* nobody sees this file before it is synced */
                                      .commit = log->commit,
                                      .salt = n->salt,
                                      .start = JSC_SEGMENT_HEAD,
                                      .count = (uint32_t)(last - first + 1)},
                       ts, crc, end);
    n->used = n->allocated = JSC_SEGMENT_HEAD + (to - from) + JSC_TRAILER_BYTES;
    n->created = true;
    if (n->limit < n->used) n->limit = n->used;
    if ((rc = fd = vfs->open(vfs->self, tmp, O_RDWR | O_CREAT | O_TRUNC, 0644)) < 0) goto out;
    if ((rc = vfs->truncate(vfs->self, fd, 0)) < 0) goto out;
    if ((rc = jsc_write_all(vfs, fd, head, sizeof head, 0)) < 0) goto out;
    if ((rc = jsc_write_all(vfs, fd, s->map + from, (size_t)(to - from), JSC_SEGMENT_HEAD)) < 0) goto out;
    if ((rc = jsc_write_all(vfs, fd, end, sizeof end, JSC_SEGMENT_HEAD + (to - from))) < 0) goto out;
    if ((rc = vfs->datasync(vfs->self, fd)) < 0) goto out;
    if ((rc = vfs->rename(vfs->self, tmp, name)) < 0) goto out;
    if ((rc = vfs->syncdir(vfs->self, log->dir)) < 0) goto out;
    if (first == s->first) {
        n->base = s->base;
        drop_last_segment(log);
    } else {
        if ((rc = cut_file(log, s, from)) < 0) goto out;
        s->count = (size_t)(first - s->first);
        n->base = s->base + s->used;
    }
    if ((rc = jsc_segment_push(log, n)) == JSC_OK) n = NULL;
out:
    if (fd >= 0) vfs->close(vfs->self, fd);
    jsc_segment_unref(n);
    free(tmp);
    free(name);
    return rc;
}

/* Cuts inside the last segment, behind record `last` of it. */
static int cut_segment(jsc_log *log, jsc_segment *s, uint64_t last) {
    if (last + 1 == s->first) { /* all of it, and it is the only one */
        int rc = cut_file(log, s, JSC_SEGMENT_HEAD);
        if (rc == 0) s->count = 0;
        return rc;
    }
    jsc_record r;
    size_t used;
    jsc_trailer t;
    int rc = jsc_log_read(log, last, &r);
    if (rc != JSC_OK) return rc;
    uint64_t to = (uint64_t)s->at[last - s->first] * 8 + r.raw_len;
    if (jsc_record_decode(s->map + to, (size_t)(s->used - to), &r, &used) == JSC_OK &&
        jsc_trailer_decode(&r, &t) == JSC_OK && t.index == last) {
        if ((rc = cut_file(log, s, to + used)) == 0) s->count = (size_t)(last + 1 - s->first);
        return rc;
    }
    /* Back to where the batch starts: records of one batch touch each other. */
    uint64_t first = last;
    while (first > s->first) {
        uint64_t before = (uint64_t)s->at[first - 1 - s->first] * 8;
        if (before == 0 ||
            before + JSC_PAD((uint64_t)jsc_get32(s->map + before + 4)) != (uint64_t)s->at[first - s->first] * 8)
            break;
        first--;
    }
    return split_batch(log, s, first, last, (uint64_t)s->at[first - s->first] * 8, to);
}

int jsc_log_truncate(jsc_log *log, uint64_t last) {
    if (atomic_load(&log->error) != JSC_OK) return JSC_EFAILED;
    if (last + 1 < log->first || last > log->last) return JSC_EINVAL;
    if (last == log->last) return JSC_OK;
    for (size_t i = log->nsegments; i-- > 0;) {
        const jsc_segment *s = log->segments[i];
        if (s->flags & (JSC_SF_REWRITTEN | JSC_SF_ENCRYPTED)) return JSC_EINVAL;
        if (s->first <= last) break;
    }
    int rc = jsc_log_submit(log);
    if (rc != JSC_OK) return rc;
    jsc_store_settle(log);
    if (atomic_load(&log->error) != JSC_OK) return JSC_EFAILED;
    if (atomic_load(&log->full)) return JSC_EFULL;
    jsc_record r;
    uint32_t term = log->segments[0]->prev_term;
    if (last >= log->first) {
        if ((rc = jsc_log_read(log, last, &r)) != JSC_OK)
            return rc; /* a cut behind a damaged record: repair it first */
        term = r.term;
    }
    jsc_store_detach(log, false);
    uncount(log, last + 1);
    jsc_chunks_drop(log);

    const jsc_vfs *vfs = log->vfs;
    bool sync_first = log->fd_dirty;
    if (sync_first) rc = vfs->datasync(vfs->self, log->fd);
    if (rc == 0 && log->open_segment && !atomic_load(&log->open_segment->named)) rc = vfs->syncdir(vfs->self, log->dir);
    log->fd_dirty = false;
    if (log->fd >= 0) vfs->close(vfs->self, log->fd);
    log->fd = -1;
    log->open_segment = NULL;
    bool unlinked = false;
    while (rc == 0 && log->nsegments > 1 && log->segments[log->nsegments - 1]->first > last) {
        jsc_segment *gone = log->segments[log->nsegments - 1];
        rc = unlink_file(log, gone->first, ".seg");
        if (rc == 0 && gone->sealed) rc = unlink_file(log, gone->first, ".idx");
        if (rc == 0) drop_last_segment(log);
        unlinked = true;
    }
    if (rc == 0 && unlinked) rc = vfs->syncdir(vfs->self, log->dir);
    jsc_segment *s = log->segments[log->nsegments - 1];
    if (rc == 0) rc = forget_sidecar(log, s);
    if (rc == 0) rc = jsc_segment_map(log, s);
    s->closed = false; /* it is the open one again */
    atomic_store(&s->left, false);
    atomic_store(&s->entered, false);
    if (rc == 0 && s->first + s->count > last + 1) rc = cut_segment(log, s, last);
    if (rc != 0) {
        atomic_store(&log->error, rc);
        return rc;
    }
    s = log->segments[log->nsegments - 1];
    log->last = last;
    log->last_term = term;
    log->batch_count = log->batch_crc = 0;
    log->batch_start = s->used;
    log->mark = (jsc_mark){.index = last};
    log->written_index = last;
    log->changed = true;
    atomic_store(&log->written, s->base + s->used);
    atomic_store(&log->synced, last);
    atomic_store(&log->durable, last);
    return JSC_OK;
}
