/* Damage looked for: sealed segments are read from start to end and compared with the digests in their sidecars. A file
 * that does not fit is read again record by record, so that what is lost in it is known. Nothing is changed. */
#include "care.h"

#include <errno.h>
#include <fcntl.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { CHUNK = 256 << 10 };

struct jsc_scrub {
    uint64_t next; /* first index of the segments that the round has still to see */
    jsc_segment *segment; /* that is being read; NULL: none. ref held */
    int fd;
    uint64_t at;
    XXH3_state_t *state;
    uint8_t *chunk;
};

static void leave(jsc_mlog *m, struct jsc_scrub *c) {
    if (!c->segment) return;
    c->next = c->segment->first + c->segment->count;
    if (c->fd >= 0) m->vfs->close(m->vfs->self, c->fd);
    jsc_segment_unref(c->segment);
    c->segment = NULL;
}

void jsc_scrub_drop(jsc_mlog *m) {
    struct jsc_scrub *c = m->keeper.scrub;
    if (!c) return;
    leave(m, c);
    XXH3_freeState(c->state);
    free(c->chunk);
    free(c);
    m->keeper.scrub = NULL;
}

static int begin(jsc_mlog *m) {
    struct jsc_scrub *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    m->keeper.scrub = c;
    c->fd = -1;
    c->state = XXH3_createState();
    c->chunk = malloc(CHUNK);
    if (c->state && c->chunk) return JSC_OK;
    jsc_scrub_drop(m);
    return -ENOMEM;
}

/* The next sealed segment of the round. JSC_ENOTFOUND: there is none. */
static int enter(jsc_mlog *m, struct jsc_scrub *c) {
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->npieces && !c->segment; i++)
        if (m->pieces[i]->segment->first >= c->next && m->pieces[i]->segment->sealed) {
            c->segment = m->pieces[i]->segment;
            jsc_segment_ref(c->segment);
        }
    pthread_mutex_unlock(&m->lock);
    if (!c->segment) return JSC_ENOTFOUND;
    XXH3_64bits_reset(c->state);
    c->at = 0;
    c->fd = jsc_segment_open(m->log, c->segment, O_RDONLY);
    return c->fd < 0 ? c->fd : JSC_OK;
}

/* With the lock: the segment is still the log's. */
static jsc_piece *piece_of(jsc_mlog *m, const jsc_segment *s) {
    size_t i = jsc_care_find(m, s);
    return i < m->npieces ? m->pieces[i] : NULL;
}

/* All of the file was read, or it cannot be. */
static int judge(jsc_mlog *m, struct jsc_scrub *c, int rc) {
    jsc_segment *s = c->segment;
    pthread_mutex_lock(&m->lock);
    jsc_piece *p = piece_of(m, s);
    bool sound =
        rc == JSC_OK && c->at == s->info.segment_bytes && XXH3_64bits_digest(c->state) == s->info.segment_digest;
    if (p) p->scrubbed = m->scrub_rounds + 1;
    pthread_mutex_unlock(&m->lock);
    if (p && !sound) rc = jsc_scrub_examine(m, s);
    else rc = JSC_OK; /* a file that went meanwhile is nobody's */
    leave(m, c);
    return rc;
}

int jsc_scrub_step(jsc_mlog *m, uint64_t *bytes, bool *done) {
    int rc = m->keeper.scrub ? JSC_OK : begin(m);
    struct jsc_scrub *c = m->keeper.scrub;
    *bytes = 0;
    *done = false;
    if (rc != JSC_OK) return rc;
    if (!c->segment) {
        rc = enter(m, c);
        if (rc == JSC_ENOTFOUND) {
            jsc_scrub_drop(m);
            pthread_mutex_lock(&m->lock);
            m->scrub_rounds++;
            pthread_mutex_unlock(&m->lock);
            *done = true;
            return JSC_OK;
        }
        if (rc < 0) return judge(m, c, rc);
    }
    ssize_t got = m->vfs->pread(m->vfs->self, c->fd, c->chunk, CHUNK, (off_t)c->at);
    if (got <= 0) return judge(m, c, (int)got);
    XXH3_64bits_update(c->state, c->chunk, (size_t)got);
    c->at += (uint64_t)got;
    *bytes = (uint64_t)got;
    pthread_mutex_lock(&m->lock);
    m->scrubbed_bytes += (uint64_t)got;
    bool beyond = c->at > c->segment->info.segment_bytes; /* longer than it was: what more there is says nothing */
    pthread_mutex_unlock(&m->lock);
    return beyond ? judge(m, c, JSC_OK) : JSC_OK;
}

/* ---- record by record ---- */

typedef struct findings {
    jsc_mlog *m;
    jsc_segment *s;
    jsc_damage *at;
    size_t n, cap;
} findings;

/* Whatever the walk over the file says: its tables may know better where the record is. */
int jsc_care_readable(jsc_mlog *m, jsc_segment *s, uint64_t index, uint64_t *offset) {
    jsc_record r;
    jsc_block *hold = NULL;
    bool fleeting;
    *offset = 0;
    int rc = jsc_segment_where(m->log, s, index, offset);
    if (rc != JSC_OK) return rc;
    rc = jsc_segment_read_at(m->log, s, *offset, &r, &hold, &fleeting);
    if (rc == JSC_OK && r.index != index) rc = JSC_ECORRUPT;
    if (hold) jsc_block_release(m->blocks, hold);
    return rc;
}

/* With the lock: the sequences of messages at offsets [lo, hi], by the tables. */
static void sequences(const jsc_part *part, jsc_damage *d, uint64_t lo, uint64_t hi) {
    uint32_t a = 0, b = part->ops->count(part);
    while (a < b) { /* lost ones have offset 0, but a piece with such has been judged by its records already */
        uint32_t mid = a + (b - a) / 2;
        if (part->ops->offset(part, mid) < lo) a = mid + 1;
        else b = mid;
    }
    uint32_t from = a;
    while (a < part->ops->count(part) && part->ops->offset(part, a) <= hi) a++;
    d->seqs_exact = true;
    d->first_seq = 1;
    d->last_seq = 0;
    if (a > from) {
        d->first_seq = part->ops->seq(part, from);
        d->last_seq = part->ops->seq(part, a - 1);
    }
}

/* With the lock: notes index as lost. */
static int add(findings *f, uint64_t index, uint64_t at, uint64_t offset) {
    jsc_damage *before = f->n ? &f->at[f->n - 1] : NULL;
    if (before && before->last + 1 == index) {
        before->last = index;
        if (at) before->last_seq = at;
        return JSC_OK;
    }
    if (f->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 16;
        jsc_damage *grown = realloc(f->at, cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        f->at = grown;
        f->cap = cap;
    }
    f->at[f->n++] = (jsc_damage){.segment = f->s->first,
                                 .offset = at ? at : offset,
                                 .first = index,
                                 .last = index,
                                 .first_seq = at,
                                 .last_seq = at};
    return JSC_OK;
}

static int each_lost(void *ctx, uint64_t first, uint64_t last, uint64_t offset) {
    findings *f = ctx;
    int rc = JSC_OK;
    for (uint64_t i = first; i <= last && rc == JSC_OK;) {
        pthread_mutex_lock(&f->m->lock); /* a while at a time */
        for (int some = 0; some < 256 && i <= last && rc == JSC_OK; some++, i++) {
            uint64_t at;
            rc = jsc_care_readable(f->m, f->s, i, &at);
            if (rc == JSC_ENOTFOUND) rc = JSC_OK;
            else if (rc == JSC_ECORRUPT) rc = add(f, i, at, offset);
        }
        pthread_mutex_unlock(&f->m->lock);
    }
    return rc;
}

int jsc_scrub_find(jsc_mlog *m, jsc_segment *s, jsc_damage **out, size_t *n) {
    static const jsc_visit visit = {.lost = each_lost};
    findings f = {.m = m, .s = s};
    int rc = jsc_segment_visit(m->log, s, &visit, &f);
    if (rc == JSC_ECORRUPT && s->count) { /* not even its outline can be read */
        f.n = 0;
        rc = each_lost(&f, s->first, s->first + s->count - 1, 0);
    }
    if (rc != JSC_OK) {
        free(f.at);
        return rc;
    }
    *out = f.at;
    *n = f.n;
    return JSC_OK;
}

int jsc_scrub_examine(jsc_mlog *m, jsc_segment *s) {
    jsc_damage *found = NULL;
    size_t n = 0;
    int rc = jsc_scrub_find(m, s, &found, &n);
    pthread_mutex_lock(&m->lock);
    jsc_piece *p = piece_of(m, s);
    if (p && rc == JSC_OK && s->sealed && !s->info.lost) {
        const jsc_part *part = jsc_piece_part(m, p, &rc);
        for (size_t i = 0; part && i < n; i++) sequences(part, &found[i], found[i].first_seq, found[i].last_seq);
        if (part && s->sealed) { /* else it was built from its records just now, and knows */
            free(p->damage);
            p->damage = found;
            p->ndamage = n;
            p->surveyed = true;
            found = NULL;
        }
    }
    pthread_mutex_unlock(&m->lock);
    free(found);
    return rc;
}
