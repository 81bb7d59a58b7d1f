/* What a record does to the state: a message comes in and the limits push others out; a tombstone marks the dead; a change
 * of limits takes effect. The state is a function of the records applied in order, so this runs at append and at replay. */
#include "mlog_internal.h"

#include <errno.h>

/* ---- control records ---- */

void jsc_control_delete_encode(uint64_t seq, uint8_t out[8]) { jsc_put64(out, seq); }

int jsc_control_limits_encode(const jsc_limits *l, uint8_t out[32]) {
    if (l->max_age_ns < 0) return JSC_EINVAL;
    jsc_put64(out, l->max_messages);
    jsc_put64(out + 8, l->max_bytes);
    jsc_put64(out + 16, l->max_per_subject);
    jsc_put64(out + 24, (uint64_t)l->max_age_ns);
    return JSC_OK;
}

/* ---- limits ---- */

static int kill_seq(jsc_mlog *m, uint64_t seq) {
    int rc = JSC_OK;
    jsc_piece *p = jsc_mlog_piece_of(m, seq, NULL);
    if (!p) return JSC_ECORRUPT;
    const jsc_part *part = jsc_piece_part(m, p, &rc);
    if (!part) return rc;
    uint32_t ord = part->ops->find_seq(part, seq);
    if (ord == part->ops->count(part) || part->ops->seq(part, ord) != seq) return JSC_ECORRUPT;
    jsc_mlog_kill(m, p, ord, &rc);
    return rc;
}

static int first_time(jsc_mlog *m, int64_t *ts) {
    int rc = JSC_OK;
    jsc_piece *p = jsc_mlog_piece_of(m, m->first_seq, NULL);
    if (!p) return JSC_ECORRUPT;
    const jsc_part *part = jsc_piece_part(m, p, &rc);
    if (!part) return rc;
    uint32_t ord = part->ops->find_seq(part, m->first_seq);
    if (ord == part->ops->count(part)) return JSC_ECORRUPT;
    *ts = part->ops->ts(part, ord);
    return JSC_OK;
}

/* Age, number, bytes: the oldest go. */
static int push_out(jsc_mlog *m) {
    int rc;
    if (m->limits.max_age_ns && m->last_ts > INT64_MIN + m->limits.max_age_ns) {
        int64_t oldest = m->last_ts - m->limits.max_age_ns, ts = 0;
        while (m->messages) {
            if ((rc = first_time(m, &ts)) != JSC_OK) return rc;
            if (ts >= oldest) break;
            if ((rc = kill_seq(m, m->first_seq)) != JSC_OK) return rc;
        }
    }
    while ((m->limits.max_messages && m->messages > m->limits.max_messages) ||
           (m->limits.max_bytes && m->message_bytes > m->limits.max_bytes && m->messages))
        if ((rc = kill_seq(m, m->first_seq)) != JSC_OK) return rc;
    return JSC_OK;
}

static int push_out_subject(jsc_mlog *m, const char *subject, size_t n, uint64_t hash) {
    jsc_subject_info info;
    for (;;) {
        int rc = jsc_subjects_state(m, subject, n, hash, &info);
        if (rc == JSC_ENOTFOUND) return JSC_OK;
        if (rc != JSC_OK) return rc;
        if (info.count <= m->limits.max_per_subject) return JSC_OK;
        if ((rc = kill_seq(m, info.first_seq)) != JSC_OK) return rc;
    }
}

/* After a change of the limit: every subject. Each is met first in the piece of its first message. */
static int push_out_subjects(jsc_mlog *m) {
    for (size_t i = 0; i < m->npieces; i++) {
        jsc_piece *p = m->pieces[i];
        int rc = JSC_OK;
        if (!jsc_piece_live(p)) continue;
        const jsc_part *part = jsc_piece_part(m, p, &rc);
        if (!part) return rc;
        for (uint32_t sid = 0, n = part->ops->subjects(part); sid < n; sid++) {
            jsc_span text = part->ops->text(part, sid);
            if ((rc = push_out_subject(m, text.p, text.n, jsc_subject_hash(text.p, text.n))) != JSC_OK) return rc;
        }
    }
    return JSC_OK;
}

/* ---- messages ---- */

/* What it pushes out of its own subject. */
static int push_out_older(jsc_mlog *m, const jsc_record *r, uint64_t seq) {
    uint64_t hash = jsc_subject_hash(r->subject, r->subject_len);
    jsc_subjects_added(m, r->subject, r->subject_len, hash, seq);
    return push_out_subject(m, r->subject, r->subject_len, hash);
}

int jsc_apply_message(jsc_mlog *m, const jsc_record *r, uint64_t offset) {
    jsc_piece *p = m->pieces[m->npieces - 1];
    uint64_t seq = m->last_seq + 1;
    int64_t ts = r->ts > m->last_ts ? r->ts : m->last_ts;
    uint32_t bytes = offset ? r->raw_len : 0;
    int rc = jsc_tail_append(p->tail, seq, ts, offset, r->data_len, bytes, r->subject, r->subject_len);
    if (JSC_UNLIKELY(rc != JSC_OK)) return rc;
    if (p->count++ == 0) p->first_ts = ts;
    p->last_ts = ts;
    p->last_seq = m->last_seq = seq;
    p->message_bytes += bytes;
    m->message_bytes += bytes;
    m->messages++;
    m->last_ts = ts;
    m->applied = r->index;
    if (JSC_UNLIKELY(m->spares_counted)) return JSC_OK;
    if (JSC_UNLIKELY(m->limits.max_per_subject) && offset && (rc = push_out_older(m, r, seq)) != JSC_OK) return rc;
    if (JSC_LIKELY(!m->limits.max_messages && !m->limits.max_bytes && !m->limits.max_age_ns)) return JSC_OK;
    return push_out(m);
}

/* ---- tombstones ---- */

static int apply_delete(jsc_mlog *m, uint64_t seq) {
    int rc = JSC_OK;
    jsc_piece *p = seq ? jsc_mlog_piece_of(m, seq, NULL) : NULL;
    if (!p) return JSC_OK; /* long gone */
    const jsc_part *part = jsc_piece_part(m, p, &rc);
    if (!part) return rc;
    uint32_t ord = part->ops->find_seq(part, seq);
    m->deleting = true;
    if (ord < part->ops->count(part) && part->ops->seq(part, ord) == seq) jsc_mlog_kill(m, p, ord, &rc);
    m->deleting = false;
    return rc;
}

typedef struct purge {
    jsc_mlog *m;
    const jsc_filter *filter; /* NULL: all */
    uint64_t end; /* sequences below it */
    uint64_t keep; /* so many more may stay */
    uint64_t owed; /* as many of those that die next, and are sure, would live, did a crash take those that stayed */
    uint64_t sure; /* no crash takes what has a sequence up to it */
    uint32_t *sids; /* that match, of one part */
    size_t nsids, sids_cap;
    uint64_t *wanted; /* the same as bits */
    size_t wanted_cap;
} purge;

static int each_sid(void *ctx, uint32_t sid) {
    purge *g = ctx;
    if (g->nsids == g->sids_cap) {
        size_t cap = g->sids_cap ? 2 * g->sids_cap : 64;
        uint32_t *grown = realloc(g->sids, cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        g->sids = grown;
        g->sids_cap = cap;
    }
    g->sids[g->nsids++] = sid;
    return 0;
}

/* Nothing that matches stays: the postings tell which go. */
static int purge_postings(purge *g, jsc_piece *p, const jsc_part *part, uint32_t hi) {
    int rc = JSC_OK;
    g->m->deleting = true;
    for (size_t i = 0; i < g->nsids; i++)
        for (uint32_t k = 0, n = part->ops->occurrences(part, g->sids[i]); k < n; k++) {
            uint32_t ord = part->ops->posting(part, g->sids[i], k);
            if (ord >= hi) break;
            jsc_mlog_kill(g->m, p, ord, &rc);
            if (rc != JSC_OK) return rc;
        }
    return rc;
}

static uint64_t sure_of(const purge *g, const jsc_piece *p) {
    return atomic_load_explicit(&p->segment->left, memory_order_acquire) ? p->last_seq : g->sure;
}

static int purge_newest_stay(purge *g, jsc_piece *p, const jsc_part *part, uint32_t hi) {
    int rc = JSC_OK;
    uint64_t sure = sure_of(g, p);
    if (g->filter) {
        size_t words = ((size_t)part->ops->subjects(part) + 63) / 64;
        if (words > g->wanted_cap) {
            uint64_t *grown = realloc(g->wanted, words * sizeof *grown);
            if (!grown) return -ENOMEM;
            g->wanted = grown;
            g->wanted_cap = words;
        }
        if (words) memset(g->wanted, 0, words * sizeof *g->wanted);
        for (size_t i = 0; i < g->nsids; i++) g->wanted[g->sids[i] / 64] |= (uint64_t)1 << g->sids[i] % 64;
    }
    for (uint32_t ord = hi; ord-- > 0;) {
        if (p->dead && jsc_dead_has(p->dead, ord)) continue;
        if (g->filter) {
            uint32_t sid = part->ops->subject(part, ord);
            if (!part->ops->offset(part, ord) || !(g->wanted[sid / 64] >> sid % 64 & 1)) continue;
        }
        if (g->keep) {
            g->keep--;
            g->owed += part->ops->seq(part, ord) > sure;
            continue;
        }
        g->m->deleting = !g->owed;
        if (g->owed && part->ops->seq(part, ord) <= sure) g->owed--;
        jsc_mlog_kill(g->m, p, ord, &rc);
        if (rc != JSC_OK) return rc;
    }
    return rc;
}

static int purge_piece(purge *g, jsc_piece *p) {
    int rc = JSC_OK;
    uint64_t live = jsc_piece_live(p);
    bool whole = p->last_seq < g->end;
    if (!g->filter && whole && !g->keep && !g->owed) p->displaced_at = 0; /* all of it is deleted by name */
    if (!live || p->base_seq + 1 >= g->end) return JSC_OK;
    if (!g->filter && whole) {
        if (g->keep >= live) {
            g->keep -= live;
            if (p->last_seq > sure_of(g, p)) g->owed += live;
            return JSC_OK;
        }
        if (!g->keep) {
            if (g->owed) p->displaced_at = g->m->applied;
            if (p->last_seq <= sure_of(g, p)) g->owed -= g->owed < live ? g->owed : live;
            return jsc_piece_kill_all(g->m, p);
        }
    }
    const jsc_part *part = jsc_piece_part(g->m, p, &rc);
    if (!part) return rc;
    uint32_t hi = whole ? part->ops->count(part) : part->ops->find_seq(part, g->end);
    if (g->filter) {
        g->nsids = 0;
        if ((rc = part->ops->select(part, g->filter, each_sid, g)) != JSC_OK) return rc;
        if (!g->nsids) return JSC_OK;
        /* A lost message has no subject that anybody knows: no filter takes it. */
        if (!g->keep && !g->owed && p->ndamage == 0 && !(p->segment->sealed && p->segment->info.lost))
            return purge_postings(g, p, part, hi);
    }
    return purge_newest_stay(g, p, part, hi);
}

static int apply_purge(jsc_mlog *m, const jsc_span *text, uint64_t before, uint64_t keep) {
    jsc_filter *filter = NULL;
    if (keep) m->counts = true;
    if (keep && m->spares_counted) return JSC_OK;
    int rc = text->n ? jsc_filter_new(text, 1, &filter) : JSC_OK;
    if (rc != JSC_OK) return rc == JSC_EINVAL ? JSC_ECORRUPT : rc;
    purge g = {.m = m, .filter = filter, .end = before ? before : UINT64_MAX, .keep = keep};
    if (m->options.sync_mode == JSC_SYNC_ALWAYS) g.sure = m->durable_seq;
    for (size_t i = m->npieces; rc == JSC_OK && i-- > 0;) rc = purge_piece(&g, m->pieces[i]);
    m->deleting = false;
    if (rc == JSC_OK && !filter && !g.keep && !g.owed && m->npieces && g.end > m->pieces[0]->base_seq)
        for (size_t i = 0; i < m->ndropped; i++) m->dropped[i].displaced_at = 0;
    free(g.sids);
    free(g.wanted);
    jsc_filter_free(filter);
    return rc;
}

static int apply_limits(jsc_mlog *m, uint64_t index, const uint8_t *p) {
    jsc_limits l = {.max_messages = jsc_get64(p),
                    .max_bytes = jsc_get64(p + 8),
                    .max_per_subject = jsc_get64(p + 16),
                    .max_age_ns = (int64_t)jsc_get64(p + 24)};
    if (l.max_age_ns < 0) return JSC_ECORRUPT;
    bool tighter = l.max_per_subject && (!m->limits.max_per_subject || l.max_per_subject < m->limits.max_per_subject);
    if (!l.max_per_subject != !m->limits.max_per_subject) jsc_subjects_forget_all(m);
    m->limits = l;
    m->limits_index = index;
    if (!m->limits_first) m->limits_first = index;
    if (!m->limited_since || index < m->limited_since) m->limited_since = index;
    m->counts = true;
    if (m->spares_counted) return JSC_OK;
    int rc = tighter ? push_out_subjects(m) : JSC_OK;
    return rc == JSC_OK ? push_out(m) : rc;
}

int jsc_apply_control(jsc_mlog *m, const jsc_record *r) {
    m->applied = r->index;
    const uint8_t *p = (const uint8_t *)r->data;
    switch (r->kind) {
    case JSC_K_DELETE: return r->data_len == 8 ? apply_delete(m, jsc_get64(p)) : JSC_ECORRUPT;
    case JSC_K_PURGE:
        if (r->data_len != 16) return JSC_ECORRUPT;
        return apply_purge(m, &(jsc_span){r->subject, r->subject_len}, jsc_get64(p), jsc_get64(p + 8));
    case JSC_K_LIMITS: return r->data_len == 32 ? apply_limits(m, r->index, p) : JSC_ECORRUPT;
    case JSC_K_LIMITED:
        if (r->data_len != 8 || !jsc_get64(p)) return JSC_ECORRUPT;
        m->limited_since = jsc_get64(p);
        m->limited_index = r->index;
        m->counts = true;
        return JSC_OK;
    default: return JSC_OK; /* of a kind that says nothing about messages */
    }
}

/* ---- late ---- */

int jsc_apply_late(jsc_mlog *m, const jsc_record *r, uint64_t seq) {
    const uint8_t *p = (const uint8_t *)r->data;
    const jsc_span text = {r->subject, r->subject_len};
    switch (r->kind) {
    case JSC_K_MESSAGE:
        if (!m->limits.max_per_subject) return JSC_OK;
        return push_out_subject(m, text.p, text.n, jsc_subject_hash(text.p, text.n));
    case JSC_K_DELETE: return r->data_len == 8 ? apply_delete(m, jsc_get64(p)) : JSC_OK;
    case JSC_K_PURGE: {
        if (r->data_len != 16) return JSC_OK;
        uint64_t before = jsc_get64(p);
        int rc = apply_purge(m, &text, before && before <= seq ? before : seq + 1, jsc_get64(p + 8));
        return rc == JSC_ECORRUPT ? JSC_OK : rc;
    }
    case JSC_K_LIMITS: {
        if (r->data_len != 32 || r->index <= m->limits_index) return JSC_OK;
        int rc = apply_limits(m, r->index, p);
        return rc == JSC_ECORRUPT ? JSC_OK : rc;
    }
    default: return JSC_OK;
    }
}

int jsc_apply_limits(jsc_mlog *m) { return push_out(m); }
