/* Reading a whole segment again: for its index, for verification, for what a writer in another process added. */
#include "scan.h"

#include <errno.h>
#include <fcntl.h>

/* The image of a segment as its file has it now. */
static int load(jsc_log *log, const jsc_segment *s, jsc_image *image, jsc_segment_head *h, bool *good_head) {
    const jsc_vfs *vfs = log->vfs;
    uint8_t head[JSC_SEGMENT_HEAD] = {0};
    int fd = jsc_segment_open(log, s, O_RDONLY), rc;
    if (fd < 0) return fd == -ENOENT && log->read_only ? -ESTALE : fd;
    ssize_t got = vfs->pread(vfs->self, fd, head, sizeof head, 0);
    int64_t size = vfs->size(vfs->self, fd);
    rc = got < 0 ? (int)got : size < 0 ? (int)size : JSC_OK;
    if (size > (int64_t)JSC_SEGMENT_MAX) size = (int64_t)(s->sealed ? s->info.segment_bytes : s->limit);
    if (rc == JSC_OK) {
        *good_head = jsc_segment_head_decode(head, h) == JSC_OK && h->first == s->first;
        if (*good_head && h->salt != s->salt) rc = log->read_only ? -ESTALE : JSC_ECORRUPT;
        if (!*good_head) *h = jsc_segment_head_of(s);
        if (rc == JSC_OK) rc = jsc_image_load(log, fd, (uint64_t)size, s->head_lost ? NULL : h, image);
    }
    vfs->close(vfs->self, fd);
    return rc;
}

static int scan(jsc_log *log, const jsc_segment *s, jsc_image *image, jsc_scan *c) {
    jsc_segment_head h;
    bool good_head = false;
    int rc = load(log, s, image, &h, &good_head);
    if (rc != JSC_OK) return rc;
    jsc_scan_init(c, s->first, s->prev_term);
    c->p = image->bytes;
    /* Of the open segment, what recovery or the writer counted in; of others, all there is. */
    c->size = image->size < s->used || s->closed ? image->size : s->used;
    c->size &= ~(uint64_t)7;
    c->next = s->first + s->count;
    c->salt_known = true;
    c->salt = s->salt;
    c->flags = s->flags;
    c->headless = s->head_lost;
    c->keep_trailers = true;
    c->stop_at_next = !(s->flags & JSC_SF_REWRITTEN);
    return jsc_scan_run(c);
}

void jsc_fresh_free(jsc_log *log, jsc_fresh *f) {
    if (!f) return;
    jsc_scan_free(&f->scan);
    if (log) jsc_image_give(log, &f->image);
    else jsc_image_free(&f->image);
    free(f);
}

/* What is told in a visit, by a scan of now or of when the log was opened. */
typedef struct told {
    const jsc_scan *c;
    const uint32_t *table;
    size_t count;
    const jsc_visit *v;
    void *ctx;
    size_t good; /* trailers told */
} told;

static int tell_batches(told *t, uint64_t before_at, uint64_t before_index) {
    int rc = JSC_OK;
    for (; rc == JSC_OK && t->good < t->c->ngood; t->good++) {
        const jsc_found_trailer *f = &t->c->good[t->good];
        if (f->at >= before_at || f->t.index >= before_index) break;
        if (t->v->batch) rc = t->v->batch(t->ctx, &f->t, f->at + f->bytes);
    }
    return rc;
}

static int tell(const jsc_segment *s, told *t) {
    size_t lost = 0, i = 0;
    int rc = JSC_OK;
    while (rc == JSC_OK && i < s->count) {
        uint64_t index = s->first + i, at = i < t->count ? (uint64_t)t->table[i] * 8 : 0;
        if (at == JSC_AT_GAP) { /* inside a gap: its record was told */
            i++;
            continue;
        }
        if (at) {
            jsc_record r;
            rc = tell_batches(t, at, UINT64_MAX);
            jsc_record_view(t->c->p + at, &r);
            if (rc == JSC_OK && t->v->record) rc = t->v->record(t->ctx, &r, at);
            i++;
            continue;
        }
        uint64_t end_index = s->first + s->count - 1, last = index, where = t->c->at;
        while (lost < t->c->nlost && t->c->lost[lost].last < index) lost++;
        if (lost < t->c->nlost && t->c->lost[lost].first <= index) {
            where = t->c->lost[lost].at;
            last = t->c->lost[lost].last < end_index ? t->c->lost[lost].last : end_index;
        }
        while (last < end_index && last - s->first + 1 < t->count && t->table[last - s->first + 1] == 0) last++;
        if (last - s->first + 1 >= t->count) last = end_index;
        rc = tell_batches(t, UINT64_MAX, index);
        /* What is lost on both sides of a trailer is told in two parts: the sequence in between is known. */
        uint64_t end = t->good < t->c->ngood ? t->c->good[t->good].t.index : last;
        if (end >= index && end < last) last = end;
        if (rc == JSC_OK && t->v->lost) rc = t->v->lost(t->ctx, index, last, where);
        i = (size_t)(last - s->first + 1);
    }
    return rc == JSC_OK ? tell_batches(t, UINT64_MAX, UINT64_MAX) : rc;
}

int jsc_segment_visit(jsc_log *log, jsc_segment *s, const jsc_visit *v, void *ctx) {
    jsc_fresh *fresh = s->fresh;
    s->fresh = NULL;
    if (fresh && s->at && s->count == fresh->count) { /* else the log went on in it since */
        told t = {&fresh->scan, s->at, s->count, v, ctx, 0};
        int rc = tell(s, &t);
        jsc_fresh_free(log, fresh);
        return rc;
    }
    jsc_fresh_free(log, fresh);
    jsc_image image = jsc_image_take(log);
    jsc_scan c = {0};
    int rc = scan(log, s, &image, &c);
    told t = {&c, c.table, c.count, v, ctx, 0};
    if (rc == JSC_OK) rc = tell(s, &t);
    jsc_scan_free(&c);
    jsc_image_give(log, &image);
    return rc;
}

int jsc_segment_reindex(jsc_log *log, jsc_segment *s) {
    jsc_image image = {0};
    jsc_scan c = {0};
    int rc = scan(log, s, &image, &c);
    uint32_t *at = rc == JSC_OK ? calloc(s->count ? s->count : 1, sizeof *at) : NULL;
    if (rc == JSC_OK && !at) rc = -ENOMEM;
    if (rc == JSC_OK) {
        size_t n = c.count < s->count ? c.count : s->count;
        if (n) memcpy(at, c.table, n * sizeof *at);
        free(s->at);
        s->at = at;
        s->cap = s->count;
    }
    jsc_scan_free(&c);
    jsc_image_free(&image);
    return rc;
}

/* ---- what a writer added ---- */

/* Whole batches at the end of s, from `fresh` (n bytes of the file from s->used on), are counted in. */
static int take_batches(jsc_log *log, jsc_segment *s, const uint8_t *fresh, uint64_t n, bool *moved) {
    uint64_t at = 0, start = 0, expected = s->first + s->count;
    uint32_t crc = 0, pending = 0, term = log->last_term;
    bool tagged = s->flags & JSC_SF_ENCRYPTED;
    size_t count = s->count;
    int rc = JSC_OK;
    while (rc == JSC_OK && at < n) {
        jsc_record r;
        size_t used;
        jsc_trailer t;
        if (jsc_record_decode(fresh + at, (size_t)(n - at), &r, &used) != JSC_OK) break;
        if (r.kind != JSC_K_TRAILER && r.index == expected) {
            uint32_t stored = jsc_get32(fresh + at);
            crc = jsc_crc32c(crc, &stored, sizeof stored);
            rc = jsc_segment_index(s, s->used + at);
            term = r.term;
            pending++;
            expected++;
            at += used;
            continue;
        }
        if (jsc_trailer_decode(&r, &t) != JSC_OK || t.salt != s->salt || t.start != s->used + start ||
            t.count != pending || t.index != expected - 1 || t.crc != jsc_trailer_crc(&t, tagged ? 0 : crc))
            break;
        at += used;
        start = at;
        for (; count < s->count; count++)
            s->bytes += JSC_PAD((uint64_t)jsc_get32(fresh + (uint64_t)s->at[count] * 8 - s->used + 4));
        log->last = t.index;
        log->last_term = term;
        if (t.commit > log->commit) log->commit = t.commit;
        pending = crc = 0;
        *moved = true;
    }
    s->count = count; /* what no trailer vouches for is not there yet */
    if (s->image && start) memcpy(s->image + s->used, fresh, start);
    s->used += start;
    return rc;
}

/* Decrypts the batches in fresh (file bytes from s->used on) in place; *n: how far they go. */
static int open_batches(jsc_log *log, jsc_segment *s, uint8_t *fresh, uint64_t *n) {
    jsc_segment_head h = jsc_segment_head_of(s);
    jsc_cipher *cipher;
    int rc = jsc_cipher_new(log->keys, s->key_id, s->salt, "segment", &cipher);
    if (rc != JSC_OK) return rc;
    uint8_t *p = fresh - s->used; /* offsets as in the file; only [s->used, s->used + n) is touched */
    uint64_t from = s->used, end = s->used + *n;
    for (uint64_t at = from; at + JSC_TRAILER_MAX <= end; at += 8) {
        jsc_found_trailer f = {.at = at, .bytes = JSC_TRAILER_MAX};
        jsc_record r;
        size_t used;
        if (p[at + 30] != JSC_K_TRAILER || jsc_get32(p + at + 4) != JSC_TRAILER_MAX ||
            jsc_record_decode(p + at, JSC_TRAILER_MAX, &r, &used) != JSC_OK || jsc_trailer_decode(&r, &f.t) != JSC_OK ||
            f.t.salt != s->salt || f.t.start != from)
            continue;
        if (jsc_image_open(cipher, &h, p, &f, p) != JSC_OK) break;
        from = at + JSC_TRAILER_MAX;
        at = from - 8;
    }
    jsc_cipher_free(cipher);
    *n = from - s->used;
    return JSC_OK;
}

/* *full: nothing more is added to it. */
static int refresh_last(jsc_log *log, jsc_segment *s, bool *moved, bool *full) {
    const jsc_vfs *vfs = log->vfs;
    *full = s->flags & JSC_SF_REWRITTEN || s->sealed;
    int fd = jsc_segment_open(log, s, O_RDONLY), rc = JSC_OK;
    if (fd < 0) return fd == -ENOENT ? -ESTALE : fd;
    uint8_t head[JSC_SEGMENT_HEAD], *fresh = NULL;
    jsc_segment_head h;
    ssize_t got = vfs->pread(vfs->self, fd, head, sizeof head, 0);
    int64_t size = vfs->size(vfs->self, fd);
    if (got < 0 || size < 0) rc = got < 0 ? (int)got : (int)size;
    else if (got != (ssize_t)sizeof head || jsc_segment_head_decode(head, &h) != JSC_OK || h.salt != s->salt)
        rc = -ESTALE;
    /* Nothing is added to a full one; but if it went, so may have those behind it, and none of them is to be missed. */
    uint64_t end = rc == JSC_OK && !*full ? (uint64_t)size & ~(uint64_t)7 : 0;
    while (rc == JSC_OK && end > s->used) {
        /* Reserved space behind the batches may be long: a piece at a time, larger when no batch fits. */
        uint64_t n = (uint64_t)1 << 20;
        bool took = false;
        for (; rc == JSC_OK && !took; n *= 8) {
            uint64_t want = end - s->used < n ? end - s->used : n, have = 0;
            free(fresh);
            if (!(fresh = malloc(want))) rc = -ENOMEM;
            while (rc == JSC_OK && have < want) {
                got = vfs->pread(vfs->self, fd, fresh + have, (size_t)(want - have), (off_t)(s->used + have));
                if (got < 0) rc = (int)got;
                if (got <= 0) break; /* cut shorter meanwhile */
                have += (uint64_t)got;
            }
            have &= ~(uint64_t)7;
            if (rc == JSC_OK && s->limit < s->used + have) rc = -ESTALE; /* views keep the mapping where it is */
            if (rc == JSC_OK && s->flags & JSC_SF_ENCRYPTED) rc = open_batches(log, s, fresh, &have);
            if (rc == JSC_OK) rc = take_batches(log, s, fresh, have, &took);
            if (want == end - s->used || (want >= 8 && jsc_get64(fresh) == 0)) break;
        }
        if (!took) break;
        *moved = true;
    }
    if (s->used >= end) *full = true; /* no space is reserved behind it: the writer cut it when it left */
    free(fresh);
    vfs->close(vfs->self, fd);
    return rc;
}

typedef struct later {
    uint64_t above;
    bool found;
} later;

static void note_later(void *ctx, const char *name) {
    later *l = ctx;
    char *end;
    if (strlen(name) == 20 && strtoull(name, &end, 16) > l->above && strcmp(end, ".seg") == 0) l->found = true;
}

/* The segment behind the last one is not there. Files go from the front, and not all at once: it may have gone. */
static int look_further(jsc_log *log) {
    later l = {.above = log->last};
    int rc = log->vfs->list(log->vfs->self, log->dir, note_later, &l);
    return rc < 0 ? rc : l.found ? -ESTALE : JSC_ENOTFOUND;
}

/* The segment behind the last one, when it is there. */
static int next_segment(jsc_log *log, bool full, bool *moved) {
    const jsc_vfs *vfs = log->vfs;
    if (log->nsegments && log->segments[log->nsegments - 1]->first == log->last + 1)
        return JSC_ENOTFOUND; /* empty yet */
    char *path = jsc_segment_path(log, log->last + 1, ".seg");
    if (!path) return -ENOMEM;
    int fd = vfs->open(vfs->self, path, O_RDONLY, 0), rc;
    free(path);
    if (fd == -ENOENT) return full ? look_further(log) : JSC_ENOTFOUND;
    if (fd < 0) return fd;
    uint8_t head[JSC_SEGMENT_HEAD];
    jsc_segment_head h;
    ssize_t got = vfs->pread(vfs->self, fd, head, sizeof head, 0);
    vfs->close(vfs->self, fd);
    if (got < 0) return (int)got;
    if (got != (ssize_t)sizeof head || jsc_segment_head_decode(head, &h) != JSC_OK)
        return JSC_ENOTFOUND; /* not whole yet */
    if (h.first != log->last + 1) return JSC_ECORRUPT;
    if (h.flags & JSC_SF_REWRITTEN) return -ESTALE; /* the writer is far ahead: open again */
    jsc_segment *before = log->nsegments ? log->segments[log->nsegments - 1] : NULL, *s = jsc_segment_new(log, h.first);
    if (!s) return -ENOMEM;
    jsc_segment_take_head(s, &h);
    s->created = true;
    jsc_segment_widen(log, s);
    s->base = before ? before->base + before->used : 0;
    rc = s->flags & JSC_SF_ENCRYPTED ? jsc_segment_image(s) : JSC_OK;
    if (rc == JSC_OK) rc = jsc_segment_push(log, s);
    if (rc != JSC_OK) {
        jsc_segment_unref(s);
        return rc;
    }
    if (before) {
        before->closed = true;
        atomic_store(&before->left, true);
    }
    if (log->nsegments == 1) log->first = h.first;
    *moved = true;
    return JSC_OK;
}

int jsc_log_refresh(jsc_log *log, bool *moved) {
    *moved = false;
    if (!log->read_only) return JSC_OK;
    for (;;) {
        bool full = true;
        int rc = log->nsegments ? refresh_last(log, log->segments[log->nsegments - 1], moved, &full) : JSC_OK;
        if (rc == JSC_OK) rc = next_segment(log, full, moved);
        if (rc == JSC_ENOTFOUND) break;
        if (rc != JSC_OK) return rc;
    }
    if (log->nsegments) {
        jsc_segment *s = log->segments[log->nsegments - 1];
        atomic_store(&log->written, s->base + s->used);
    }
    atomic_store(&log->durable, log->last);
    return JSC_OK;
}
