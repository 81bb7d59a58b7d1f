/* Damage undone: lost records that somebody else still had are taken back, when they verify and contradict nothing that
 * survived here. A segment is rewritten once it has all of its own. */
#include "care.h"

#include <errno.h>

#define COPY_MAX ((size_t)256 << 20)

bool jsc_repair_replays(const jsc_mlog *m, const jsc_segment *s) {
    if (s->sealed && !s->info.lost) return false;
    if (m->pieces[0]->segment->first != 1) return false;
    for (size_t i = 0; i < m->npieces; i++) {
        const jsc_piece *p = m->pieces[i];
        if (p->segment->flags & JSC_SF_REWRITTEN) return false;
        if (p->segment != s && (p->ndamage || (p->segment->sealed && p->segment->info.lost))) return false;
    }
    return true;
}

/* With the lock: what the tables know of the record at an offset. JSC_ECORRUPT: it was another. */
static int agrees(jsc_mlog *m, jsc_piece *p, uint64_t offset, const jsc_record *r) {
    int rc = JSC_OK;
    const jsc_part *part = jsc_piece_part(m, p, &rc);
    if (!part) return rc;
    uint32_t lo = 0, hi = part->ops->count(part);
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (part->ops->offset(part, mid) < offset) lo = mid + 1;
        else hi = mid;
    }
    bool message = lo < part->ops->count(part) && part->ops->offset(part, lo) == offset;
    if (message != (r->kind == JSC_K_MESSAGE)) return JSC_ECORRUPT;
    if (!message) return JSC_OK;
    jsc_span text = part->ops->text(part, part->ops->subject(part, lo));
    if (part->ops->size(part, lo) != r->data_len || part->ops->bytes(part, lo) != r->raw_len) return JSC_ECORRUPT;
    if (part->ops->ts(part, lo) != r->ts || text.n != r->subject_len) return JSC_ECORRUPT;
    return text.n && memcmp(text.p, r->subject, text.n) != 0 ? JSC_ECORRUPT : JSC_OK;
}

static int keep(jsc_mlog *m, const jsc_segment *s, const jsc_record *r) {
    uint64_t room = s->limit > m->log->segment_bytes ? s->limit : m->log->segment_bytes;
    /* Bounded by one segment: what was begun for another makes way. */
    if (m->healing.n + r->raw_len > room) jsc_healing_drop(&m->healing, s->first, s->count, true);
    return m->healing.n + r->raw_len > room ? JSC_EFULL : jsc_healing_add(&m->healing, r);
}

/* Takes the record if it is lost here. *taken counts. */
static int consider(jsc_mlog *m, const jsc_record *r, uint64_t *taken) {
    int rc = JSC_OK;
    uint64_t offset = 0;
    pthread_mutex_lock(&m->lock);
    jsc_segment *s = jsc_segment_find(m->log, r->index);
    size_t i = s ? jsc_care_find(m, s) : m->npieces;
    if (i < m->npieces && r->index - s->first < s->count && r->kind != JSC_K_TRAILER && r->kind != JSC_K_GAP &&
        jsc_care_readable(m, s, r->index, &offset) == JSC_ECORRUPT && !jsc_healing_find(&m->healing, r->index)) {
        if (offset) rc = agrees(m, m->pieces[i], offset, r);
        if (rc == JSC_OK) rc = keep(m, s, r);
        if (rc == JSC_OK) ++*taken;
    }
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* A segment that takes appends cannot be rewritten: they go to another from now on. */
static int close_last(jsc_mlog *m, const jsc_segment *s) {
    pthread_mutex_lock(&m->lock);
    uint64_t index = m->applied;
    int rc = JSC_OK;
    bool last = m->npieces && m->pieces[m->npieces - 1]->segment == s;
    if (last) rc = jsc_mlog_flush(m);
    if (last && rc == JSC_OK) rc = jsc_commit_roll(m);
    if (last && rc == JSC_OK) rc = jsc_mlog_extend_pieces(m);
    pthread_mutex_unlock(&m->lock);
    if (!last || rc != JSC_OK) return rc;
    rc = jsc_mlog_wait_synced(m, index, -1);
    jsc_store_settle(m->log);
    return rc;
}

/* ---- what the healed records would have done ---- */

typedef struct effect {
    uint64_t seq; /* of the last message up to it */
    size_t at, n; /* of the record in `healing` */
} effect;

typedef struct effects {
    const jsc_mlog *m;
    effect *list; /* ascending by index */
    size_t n;
    uint64_t seq;
} effects;

static int note_effect(void *ctx, const jsc_record *r, uint64_t offset) {
    effects *e = ctx;
    uint64_t last, seqs = r->kind == JSC_K_MESSAGE;
    if (r->kind == JSC_K_GAP && jsc_gap_decode(r, &last, &seqs) != JSC_OK) return JSC_ECORRUPT;
    e->seq += seqs;
    const jsc_healed *h = jsc_healing_find(&e->m->healing, r->index);
    if (h && e->n < e->m->healing.count) e->list[e->n++] = (effect){e->seq, h->at, h->n};
    return JSC_OK;
}

/* Applies them, in the segment that was made with them; without the lock. The state that was known stays: records that were
 * lost behind the last checkpoint had no effect yet, those of others are there, and change nothing. */
static int apply_healed(jsc_mlog *m, uint64_t first) {
    static const jsc_visit visit = {.record = note_effect};
    effects e = {.m = m, .list = calloc(m->healing.count + 1, sizeof *e.list)};
    if (!e.list) return -ENOMEM;
    pthread_mutex_lock(&m->lock);
    jsc_segment *s = jsc_segment_find(m->log, first);
    e.seq = s->sealed ? s->info.base_seq : s->base_seq;
    jsc_segment_ref(s);
    pthread_mutex_unlock(&m->lock);
    int rc = jsc_segment_visit(m->log, s, &visit, &e);
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < e.n && rc == JSC_OK; i++) {
        jsc_record r;
        size_t used;
        rc = jsc_record_decode(m->healing.bytes + e.list[i].at, e.list[i].n, &r, &used);
        if (rc == JSC_OK) rc = jsc_apply_late(m, &r, e.list[i].seq);
    }
    if (rc == JSC_OK) rc = jsc_apply_limits(m);
    pthread_mutex_unlock(&m->lock);
    jsc_segment_unref(s);
    free(e.list);
    return rc;
}

/* Rewrites the segment if all its lost records are there. */
static int heal(jsc_mlog *m, jsc_segment *s) {
    jsc_damage *lost = NULL;
    size_t n = 0;
    int rc = jsc_scrub_find(m, s, &lost, &n);
    if (rc != JSC_OK) return rc;
    bool complete = n > 0;
    for (size_t k = 0; k < n && complete; k++)
        for (uint64_t i = lost[k].first; i <= lost[k].last && complete; i++)
            complete = jsc_healing_find(&m->healing, i) != NULL;
    free(lost);
    if (!complete) return JSC_OK;
    if ((rc = close_last(m, s)) != JSC_OK) return rc;
    pthread_mutex_lock(&m->lock);
    size_t i = jsc_care_find(m, s);
    bool replays = jsc_repair_replays(m, s), exact = s->sealed && !s->info.lost;
    pthread_mutex_unlock(&m->lock);
    if (i == m->npieces) return JSC_OK;
    rc = jsc_rewrite(m, s, 1, &m->healing);
    bool applies = rc == JSC_OK && !exact && !replays;
    if (applies) rc = apply_healed(m, s->first);
    pthread_mutex_lock(&m->lock);
    if (rc == JSC_OK && replays) rc = jsc_mlog_reload(m);
    if (rc == JSC_OK && (replays || applies)) rc = jsc_checkpoint_write(m);
    if (rc == JSC_OK || rc == JSC_ECORRUPT) jsc_healing_drop(&m->healing, s->first, s->count, false);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

int jsc_mlog_repair(jsc_mlog *m, const void *raw, size_t n, uint64_t *healed) {
    const uint8_t *p = raw;
    jsc_record r;
    size_t used;
    uint64_t taken = 0;
    int rc = JSC_OK, first = JSC_OK;
    if (m->options.read_only) return JSC_EREADONLY;
    for (size_t at = 0; at < n; at += used)
        if (jsc_record_decode(p + at, n - at, &r, &used) != JSC_OK) return JSC_ECORRUPT;
    jsc_care_take(m);
    for (size_t at = 0; at < n && (rc == JSC_OK || rc == JSC_ECORRUPT); at += used) {
        jsc_record_decode(p + at, n - at, &r, &used);
        rc = consider(m, &r, &taken);
        if (rc != JSC_OK && first == JSC_OK) first = rc;
    }
    /* Segments of what is kept, one after the other. */
    uint64_t next = 0;
    for (bool more = taken > 0; more;) {
        jsc_segment *s = NULL;
        pthread_mutex_lock(&m->lock);
        const jsc_healed *least = jsc_healing_from(&m->healing, next);
        if (least) s = jsc_segment_find(m->log, least->index);
        if (s) jsc_segment_ref(s);
        pthread_mutex_unlock(&m->lock);
        more = s != NULL;
        if (!s) break;
        next = s->first + s->count;
        if ((rc = heal(m, s)) != JSC_OK && first == JSC_OK) first = rc;
        jsc_segment_unref(s);
    }
    pthread_mutex_unlock(&m->care);
    if (first == JSC_OK) *healed = taken;
    return first;
}

int jsc_mlog_copy_records(jsc_mlog *m, uint64_t lo, uint64_t hi, uint8_t **out, size_t *n) {
    uint8_t *copy = NULL;
    size_t used = 0, cap = 0;
    int rc = JSC_OK;
    if (lo > hi) return JSC_EINVAL;
    for (uint64_t i = lo; rc == JSC_OK;) {
        pthread_mutex_lock(&m->lock); /* a while at a time */
        uint64_t first = jsc_log_first(m->log), last = m->applied;
        if (i < first) i = first;
        if (hi > last) hi = last;
        for (int some = 0; some < 256 && i <= hi && rc == JSC_OK; some++, i++) {
            jsc_segment *s = jsc_segment_find(m->log, i);
            jsc_record r;
            jsc_block *hold = NULL;
            bool fleeting;
            uint64_t offset;
            int one = s ? jsc_segment_where(m->log, s, i, &offset) : JSC_ENOTFOUND;
            if (one == JSC_OK) one = jsc_segment_read_at(m->log, s, offset, &r, &hold, &fleeting);
            if (one == JSC_OK && r.index == i && r.kind != JSC_K_GAP) {
                if (used + r.raw_len > COPY_MAX) rc = JSC_EFULL;
                if (rc == JSC_OK && used + r.raw_len > cap) {
                    size_t want = 2 * (used + r.raw_len);
                    uint8_t *grown = realloc(copy, want);
                    if (!grown) rc = -ENOMEM;
                    else cap = want;
                    if (grown) copy = grown;
                }
                if (rc == JSC_OK) memcpy(copy + used, r.raw, r.raw_len);
                if (rc == JSC_OK) used += r.raw_len;
            } else if (one != JSC_OK && one != JSC_ENOTFOUND && one != JSC_ECORRUPT) {
                rc = one; /* what is lost here is left out; the disk, or memory, is another matter */
            }
            if (hold) jsc_block_release(m->blocks, hold);
        }
        pthread_mutex_unlock(&m->lock);
        if (i > hi) break;
    }
    if (rc == JSC_OK && !copy && !(copy = malloc(1))) rc = -ENOMEM;
    if (rc != JSC_OK) {
        free(copy);
        return rc;
    }
    *out = copy;
    *n = used;
    return JSC_OK;
}
