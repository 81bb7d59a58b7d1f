/* Opening a log: reads every byte, rebuilds the index, tells a torn tail from damage. See docs/format.md#recovery. */
#include "log_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

typedef struct found_file {
    uint64_t first;
    int head; /* JSC_OK or why its header does not verify */
    jsc_segment_head fields;
} found_file;

typedef struct listing {
    found_file *at;
    size_t n;
    uint64_t *stale; /* names of unfinished files */
    size_t nstale;
    bool failed;
} listing;

typedef struct found_trailer {
    uint64_t at; /* offset */
    jsc_trailer t;
} found_trailer;

typedef struct scan {
    jsc_log *log;
    jsc_segment *s;
    const uint8_t *p;
    uint64_t size;  /* of the file */
    uint64_t end;   /* behind its last byte that is not zero */
    bool last;      /* of the log's files */
    uint64_t next;  /* first index of the next file */
    bool salt_known;
    jsc_log_recovery *rec;
    /* where it stands */
    uint64_t at, batch_start, expected;
    uint32_t pending, batch_crc;
    uint32_t last_term, batch_term; /* batch_term: before the batch */
    int64_t last_ts;
    /* trailers of the file, gathered at the first bad record */
    found_trailer *trailers;
    size_t ntrailers;
    bool gathered;
    bool torn;
} scan;

static void each_name(void *ctx, const char *name) {
    listing *l = ctx;
    uint64_t first = 0;
    if (strlen(name) != 20) return;
    for (int i = 0; i < 16; i++) {
        char c = name[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return;
        first = first << 4 | (uint64_t)digit;
    }
    if (strcmp(name + 16, ".seg") == 0) {
        found_file *grown = realloc(l->at, (l->n + 1) * sizeof *grown);
        if (!grown) l->failed = true;
        if (!grown) return;
        l->at = grown;
        l->at[l->n++] = (found_file){.first = first};
    } else if (strcmp(name + 16, ".tmp") == 0) {
        uint64_t *grown = realloc(l->stale, (l->nstale + 1) * sizeof *grown);
        if (!grown) l->failed = true;
        if (!grown) return;
        l->stale = grown;
        l->stale[l->nstale++] = first;
    }
}

static int by_first(const void *a, const void *b) {
    const found_file *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

static int read_all(const jsc_vfs *vfs, int fd, uint8_t *buf, uint64_t n) {
    for (uint64_t at = 0; at < n;) {
        size_t want = n - at < ((uint64_t)8 << 20) ? (size_t)(n - at) : (size_t)8 << 20;
        ssize_t got = vfs->pread(vfs->self, fd, buf + at, want, (off_t)at);
        if (got < 0) return (int)got;
        if (got == 0) return -EIO;
        at += (uint64_t)got;
    }
    return JSC_OK;
}

static void say(scan *c, const char *what, uint64_t index) {
    if (c->rec->message[0]) return;
    snprintf(c->rec->message, sizeof c->rec->message, "%.120s/%016" PRIx64 ".seg at byte %" PRIu64 ": %s %" PRIu64,
             c->log->dir, c->s->first, c->at, what, index);
}

static void damaged(scan *c, uint64_t index) {
    if (!c->rec->damaged_index || index < c->rec->damaged_index) c->rec->damaged_index = index;
    say(c, "damage; first record lost is", index);
}

/* Every trailer of this file, wherever it stands: its salt is unguessable, so no payload can pose as one. */
static int gather(scan *c) {
    if (c->gathered) return JSC_OK;
    c->gathered = true;
    size_t cap = 0;
    for (uint64_t at = JSC_SEGMENT_HEAD; at + JSC_TRAILER_BYTES <= c->end; at += 8) {
        const uint8_t *p = c->p + at;
        jsc_record r;
        size_t used;
        jsc_trailer t;
        if (p[30] != JSC_K_TRAILER || jsc_get32(p + 4) != JSC_TRAILER_BYTES) continue;
        if (jsc_record_decode(p, JSC_TRAILER_BYTES, &r, &used) != JSC_OK || jsc_trailer_decode(&r, &t) != JSC_OK)
            continue;
        if (!c->salt_known) {
            c->s->salt = t.salt;
            c->salt_known = true;
        }
        if (t.salt != c->s->salt || t.start > at || t.start < JSC_SEGMENT_HEAD || t.start % 8) continue;
        if (t.count > (at - t.start) / JSC_RECORD_HEAD || t.count > t.index || t.index - t.count + 1 < c->s->first)
            continue;
        if (c->ntrailers == cap) {
            cap = cap ? 2 * cap : 64;
            found_trailer *grown = realloc(c->trailers, cap * sizeof *grown);
            if (!grown) return -ENOMEM;
            c->trailers = grown;
        }
        c->trailers[c->ntrailers++] = (found_trailer){at, t};
    }
    return JSC_OK;
}

/* Notes the lost records [c->expected, hi]. */
static int lose(scan *c, uint64_t hi) {
    for (; c->expected <= hi; c->expected++) {
        damaged(c, c->expected);
        int rc = jsc_segment_index(c->s, 0);
        if (rc < 0) return rc;
    }
    return JSC_OK;
}

static void rewind_to(scan *c, uint64_t index) {
    c->s->count = (size_t)(index - c->s->first);
    c->expected = index;
}

static void start_batch(scan *c, uint64_t at) {
    c->at = c->batch_start = at;
    c->pending = 0;
    c->batch_crc = 0;
    c->batch_term = c->last_term;
}

/* The batch of trailer t, which stands at c->at's batch start, has bad records: lose only those, if their lengths lead
 * to the trailer and the count is right; else all from the first bad one. */
static int step_over(scan *c, const found_trailer *f) {
    uint64_t first_bad = c->expected, last = f->t.index, at = c->at;
    int rc;
    while (at < f->at && c->expected <= last) {
        jsc_record r;
        size_t used;
        if (jsc_record_decode(c->p + at, (size_t)(f->at - at), &r, &used) == JSC_OK && r.index == c->expected &&
            r.kind != JSC_K_TRAILER) {
            if ((rc = jsc_segment_index(c->s, at)) < 0) return rc;
            c->expected++;
            c->last_term = r.term;
        } else {
            size_t len = jsc_get32(c->p + at + 4);
            if (len < JSC_RECORD_HEAD || JSC_PAD(len) > f->at - at) break;
            used = JSC_PAD(len);
            if ((rc = lose(c, c->expected)) < 0) return rc;
        }
        at += used;
    }
    if (at == f->at && c->expected == last + 1) return JSC_OK;
    rewind_to(c, first_bad);
    return lose(c, last);
}

/* Something at c->at does not verify. Sets c->torn, or steps to the next good batch; *stop: nothing follows. */
static int bad(scan *c, bool *stop) {
    int rc;
    *stop = false;
    uint64_t first = c->expected - c->pending, durable = c->last ? 0 : c->next - 1;
    if (!c->pending && c->end <= c->at) { /* zeros to the end */
        *stop = true;
        return JSC_OK;
    }
    if ((rc = gather(c)) < 0) return rc;
    const found_trailer *f = NULL;
    for (size_t i = c->ntrailers; i-- > 0 && c->trailers[i].at >= c->at;) {
        f = &c->trailers[i];
        if (c->last && f->t.durable > durable) durable = f->t.durable;
    }
    if (c->last && durable < first) {
        rewind_to(c, first);
        c->last_term = c->batch_term;
        c->torn = *stop = true;
        return JSC_OK;
    }
    if (!f) { /* the rest of a sealed file */
        *stop = true;
        return JSC_OK;
    }
    uint64_t batch_first = f->t.index - f->t.count + 1;
    if (f->t.start <= c->batch_start) {
        if (f->t.start == c->batch_start && f->at > c->at && batch_first == first && c->expected <= f->t.index) {
            if ((rc = step_over(c, f)) < 0) return rc;
        } else if (batch_first == first) { /* each record verifies, the batch does not */
            rewind_to(c, first);
            if ((rc = lose(c, f->t.index)) < 0) return rc;
        } else {
            return JSC_ECORRUPT;
        }
        start_batch(c, f->at + JSC_TRAILER_BYTES);
        return JSC_OK;
    }
    /* Trailers are missing up to another batch. What was read of this one stands: each record verified. */
    if (batch_first < c->expected) {
        if (batch_first < first) return JSC_ECORRUPT;
        rewind_to(c, batch_first);
    } else if (batch_first - c->expected > (f->t.start - c->batch_start) / JSC_RECORD_HEAD) {
        return JSC_ECORRUPT;
    }
    if (batch_first > c->expected) {
        if ((rc = lose(c, batch_first - 1)) < 0) return rc;
    } else {
        say(c, "damaged trailer; no record is lost before", c->expected);
    }
    start_batch(c, f->t.start);
    return JSC_OK;
}

/* Walks one file. On return c->batch_start is the end of what is good. */
static int walk(scan *c) {
    jsc_log *log = c->log;
    jsc_segment *s = c->s;
    int rc;
    bool stop = false;
    while (!stop) {
        jsc_record r;
        size_t used;
        jsc_trailer t;
        bool complete = !c->last && !c->pending && c->expected >= c->next; /* the next file has it from here */
        if (c->at >= c->size || jsc_record_decode(c->p + c->at, (size_t)(c->size - c->at), &r, &used) != JSC_OK) {
            if (complete) break;
            if ((rc = bad(c, &stop)) < 0) return rc;
            continue;
        }
        if (complete && r.kind != JSC_K_TRAILER) break;
        if (r.kind != JSC_K_TRAILER && r.index == c->expected) {
            uint32_t crc = jsc_get32(c->p + c->at);
            if ((rc = jsc_segment_index(s, c->at)) < 0) return rc;
            c->batch_crc = jsc_crc32c(c->batch_crc, &crc, sizeof crc);
            c->pending++;
            c->expected++;
            c->at += used;
            c->last_term = r.term;
            c->last_ts = r.ts;
            continue;
        }
        if (jsc_trailer_decode(&r, &t) != JSC_OK || t.salt != s->salt || t.start != c->batch_start ||
            t.count != c->pending || t.index != c->expected - 1 || t.crc != jsc_trailer_crc(&t, c->batch_crc)) {
            if (complete) break;
            if ((rc = bad(c, &stop)) < 0) return rc;
            continue;
        }
        if (t.commit > log->commit) log->commit = t.commit;
        start_batch(c, c->at + used);
    }
    return JSC_OK;
}

/* Cuts the file at `end` and makes that durable, or makes durable what a killed process left in the page cache. */
static int settle_file(jsc_log *log, jsc_segment *s, uint64_t end, bool cut) {
    const jsc_vfs *vfs = log->vfs;
    int fd = jsc_segment_open(log, s, O_RDWR), rc;
    if (fd < 0) return fd;
    rc = cut ? vfs->truncate(vfs->self, fd, (off_t)end) : 0;
    if (rc == 0) rc = vfs->datasync(vfs->self, fd);
    vfs->close(vfs->self, fd);
    if (rc == 0 && cut) s->allocated = end;
    return rc;
}

static int recover_file(jsc_log *log, const listing *l, size_t i, uint8_t **buf, uint64_t *cap, jsc_log_recovery *rec,
                        bool *gone) {
    const jsc_vfs *vfs = log->vfs;
    const found_file *f = &l->at[i];
    bool is_last = i + 1 == l->n;
    int rc = -ENOMEM, fd = -1;
    *gone = false;
    char *path = jsc_segment_path(log, f->first, ".seg");
    jsc_segment *s = jsc_segment_new(log, f->first);
    scan c = {.log = log,
              .s = s,
              .last = is_last,
              .next = is_last ? 0 : l->at[i + 1].first,
              .rec = rec,
              .expected = f->first};
    if (!path || !s) goto out;
    if ((rc = fd = vfs->open(vfs->self, path, O_RDONLY, 0)) < 0) goto out;
    int64_t size = vfs->size(vfs->self, fd);
    rc = size<0 ? (int)size : size>(int64_t) JSC_SEGMENT_MAX ? JSC_ECORRUPT : JSC_OK;
    if (rc < 0) goto out;
    uint64_t bytes = (uint64_t)size & INT64_MAX;
    if (bytes > *cap) {
        free(*buf);
        *cap = 0;
        if (!(*buf = malloc(bytes))) {
            rc = -ENOMEM;
            goto out;
        }
        *cap = bytes;
    }
    if ((rc = read_all(vfs, fd, *buf, bytes)) < 0) goto out;
    c.p = *buf;
    c.size = c.end = bytes & ~(uint64_t)7;
    while (c.end >= 8 && jsc_get64(c.p + c.end - 8) == 0) c.end -= 8;
    s->created = true;
    s->allocated = bytes;
    if (s->limit < bytes) s->limit = bytes;
    c.last_term = log->last_term;
    c.salt_known = f->head == JSC_OK && f->fields.first == f->first;
    if (c.salt_known) {
        s->salt = f->fields.salt;
        s->prev_term = f->fields.prev_term;
        if (!log->nsegments) c.last_term = s->prev_term;
    } else {
        if ((rc = gather(&c)) < 0) goto out;
        if (is_last && !c.ntrailers) { /* never finished: its header is synced before anything is written to it */
            *gone = true;
            rc = JSC_OK;
            goto out;
        }
        say(&c, "damaged file header; its records start at", f->first);
    }
    start_batch(&c, JSC_SEGMENT_HEAD);
    if ((rc = walk(&c)) < 0) goto out;
    s->used = c.batch_start;
    if (is_last) {
        if (c.torn) {
            rec->torn_bytes = c.end > s->used ? c.end - s->used : 0;
            c.at = s->used;
            say(&c, "torn tail, never acknowledged, was cut after record", c.expected - 1);
        }
        if ((rc = settle_file(log, s, s->used, c.torn)) < 0) goto out;
    } else {
        /* Records that a good batch should have ended are each verified: they count, up to the next file's. */
        s->used = c.at > s->used ? c.at : s->used;
        if (c.expected < c.next) {
            damaged(&c, c.expected);
        } else if (c.pending) {
            say(&c, "damaged trailer; no record is lost before", c.expected);
        } else if (c.end > s->used) {
            /* A truncation that was interrupted after the next file took over from here. */
            if ((rc = settle_file(log, s, s->used, true)) < 0) goto out;
        }
    }
    if (log->nsegments) s->base = log->segments[log->nsegments - 1]->base + log->segments[log->nsegments - 1]->used;
    if ((rc = jsc_segment_push(log, s)) < 0) goto out;
    for (size_t k = 0; k < s->count; k++)
        if (s->at[k]) log->bytes += JSC_PAD((size_t)jsc_get32(c.p + (uint64_t)s->at[k] * 8 + 4));
    log->last = c.expected - 1;
    log->last_term = c.last_term;
    log->last_ts = c.last_ts;
    s = NULL;
    rc = JSC_OK;
out:
    if (fd >= 0) vfs->close(vfs->self, fd);
    if (rc == JSC_OK && *gone) rc = vfs->unlink(vfs->self, path);
    free(path);
    free(c.trailers);
    jsc_segment_free(log, s);
    return rc;
}

int jsc_log_recover(jsc_log *log, uint64_t first_index, jsc_log_recovery *rec) {
    const jsc_vfs *vfs = log->vfs;
    listing l = {0};
    uint8_t *buf = NULL;
    uint64_t cap = 0;
    int rc = vfs->list(vfs->self, log->dir, each_name, &l);
    if (rc == 0 && l.failed) rc = -ENOMEM;
    if (rc < 0) goto out;
    if (l.n) qsort(l.at, l.n, sizeof *l.at, by_first);
    /* First every header: an unknown version must be met before anything is touched. */
    for (size_t i = 0; i < l.n; i++) {
        uint8_t head[JSC_SEGMENT_HEAD] = {0};
        char *path = jsc_segment_path(log, l.at[i].first, ".seg");
        if (!path) rc = -ENOMEM;
        if (!path) goto out;
        int fd = vfs->open(vfs->self, path, O_RDONLY, 0);
        free(path);
        if ((rc = fd) < 0) goto out;
        ssize_t got = vfs->pread(vfs->self, fd, head, sizeof head, 0);
        vfs->close(vfs->self, fd);
        if (got < 0) rc = (int)got;
        if (got < 0) goto out;
        l.at[i].head = jsc_segment_head_decode(head, &l.at[i].fields);
        if (l.at[i].head == JSC_EFORMAT) rc = JSC_EFORMAT;
        if (l.at[i].head == JSC_EFORMAT) goto out;
    }
    for (size_t i = 0; i < l.nstale; i++) {
        char *path = jsc_segment_path(log, l.stale[i], ".tmp");
        if (!path) rc = -ENOMEM;
        if (!path) goto out;
        rc = vfs->unlink(vfs->self, path);
        free(path);
        if (rc < 0) goto out;
    }
    /* Names first: what follows relies on them. */
    if ((l.n || l.nstale) && (rc = vfs->syncdir(vfs->self, log->dir)) < 0) goto out;
    log->first = l.n ? l.at[0].first : first_index;
    log->last = log->first - 1;
    bool gone = false;
    for (size_t i = 0; i < l.n; i++)
        if ((rc = recover_file(log, &l, i, &buf, &cap, rec, &gone)) < 0) goto out;
    if (gone) {
        if ((rc = vfs->syncdir(vfs->self, log->dir)) < 0) goto out;
        /* The name said that all before it was synced. */
        if (l.n > 1) log->last = l.at[l.n - 1].first - 1;
    }
    if (log->nsegments) {
        jsc_segment *s = log->segments[log->nsegments - 1];
        log->batch_start = s->used;
        atomic_store(&log->written, s->base + s->used);
    }
    rec->commit = log->commit_written = log->commit;
    atomic_store(&log->durable, log->last);
    atomic_store(&log->synced, log->last);
    log->written_index = log->last;
    rc = JSC_OK;
out:
    free(buf);
    free(l.at);
    free(l.stale);
    return rc;
}
