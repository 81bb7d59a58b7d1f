/* Reads of a stream's state: messages by sequence, subject or time, counts, deletes; and the two requests that change it. */
#include "internal.h"

void jsc_stream_stat(const jsc_stream *s, jsc_stream_state *out) {
    jsc_stream *m = (jsc_stream *)(uintptr_t)s; /* reading the log moves its cursors, not the stream's state */
    memset(out, 0, sizeof *out);
    out->messages = s->messages;
    out->bytes = s->bytes;
    out->first_seq = s->first_seq;
    out->last_seq = s->last_seq;
    out->num_subjects = s->subjects.live;
    if (s->messages && s->last_seq >= s->first_seq) out->num_deleted = s->last_seq - s->first_seq + 1 - s->messages;
    jsc_record r;
    if (s->messages && jsc_stream_read(m, s->first_seq, &r) == JSC_OK) out->first_ts = r.ts;
    out->last_ts = s->last_ts;
}

void jsc_stream_amount(const jsc_stream *s, uint64_t *messages, uint64_t *bytes) {
    *messages = s->messages;
    *bytes = s->bytes;
}

int jsc_stream_read(jsc_stream *s, uint64_t seq, jsc_record *out) {
    const jsc_entry *e = jsc_seqs_at(&s->seqs, seq);
    if (!jsc_entry_live(e) || seq > s->last_seq) return JSC_ENOTFOUND;
    int rc = jsc_log_read(s->log, jsc_entry_index(e), out);
    uint64_t same;
    return rc == JSC_OK && out->kind == JSC_K_MOVED ? jsc_moved_decode(out, &same) : rc;
}

int jsc_stream_get(jsc_stream *s, uint64_t seq, jsc_record *out) { return jsc_stream_read(s, seq, out); }

static int everything(const char *p, size_t n) { return n == 0 || (n == 1 && p[0] == '>'); }

int jsc_stream_last(jsc_stream *s, const char *p, size_t n, uint64_t *seq, jsc_record *out) {
    uint64_t found = 0;
    if (!everything(p, n) && jsc_subject_valid(p, n, 1)) {
        uint32_t id = jsc_subjects_find(&s->subjects, p, n);
        found = id == JSC_NO_SUBJECT ? 0 : s->subjects.a[id].last;
    } else if (!everything(p, n) && !jsc_subject_valid(p, n, 0)) {
        return JSC_ENOTFOUND;
    } else {
        for (uint32_t i = 0; i < s->subjects.n; i++) {
            const jsc_subject *x = &s->subjects.a[i];
            if (x->name && x->last > found && (everything(p, n) || jsc_subject_matches(p, n, x->name, x->len)))
                found = x->last;
        }
    }
    if (!found) return JSC_ENOTFOUND;
    int rc = jsc_stream_read(s, found, out);
    if (rc == JSC_OK) *seq = found;
    return rc;
}

int jsc_stream_next(jsc_stream *s, const char *p, size_t n, uint64_t from, uint64_t *seq, jsc_record *out) {
    uint64_t q = from < s->first_seq ? s->first_seq : from, last = s->last_seq;
    int all = everything(p, n);
    uint32_t literal = JSC_NO_SUBJECT;
    uint8_t *known = NULL;
    if (!all && !jsc_subject_valid(p, n, 0)) return JSC_ENOTFOUND;
    if (!all && jsc_subject_valid(p, n, 1)) {
        literal = jsc_subjects_find(&s->subjects, p, n);
        if (literal == JSC_NO_SUBJECT) return JSC_ENOTFOUND;
        last = s->subjects.a[literal].last;
        if (q < s->subjects.a[literal].first) q = s->subjects.a[literal].first;
    } else if (!all) {
        known = calloc(s->subjects.n + 1u, 1);
        if (!known) return JSC_ENOTFOUND;
    }
    while ((q = jsc_seqs_live_from(&s->seqs, q, last)) <= last) {
        const jsc_entry *e = jsc_seqs_at(&s->seqs, q);
        if (all || e->subject == literal) break;
        if (known) {
            uint8_t *k = &known[e->subject];
            const jsc_subject *x = &s->subjects.a[e->subject];
            if (!*k) *k = jsc_subject_matches(p, n, x->name, x->len) ? 2 : 1;
            if (*k == 2) break;
        }
        q++;
    }
    free(known);
    if (q > last || !s->messages) return JSC_ENOTFOUND;
    int rc = jsc_stream_read(s, q, out);
    if (rc == JSC_OK) *seq = q;
    return rc;
}

/* Times rise with sequences, so this is a binary search that steps over removed entries; and over damaged ones where
 * nobody else has them. */
int jsc_stream_seq_at(jsc_stream *s, int64_t unix_ns, uint64_t *seq) {
    uint64_t lo = s->first_seq, hi = s->last_seq + 1; /* the answer lies in [lo, hi] */
    jsc_record r;
    if (!s->messages) return JSC_ENOTFOUND;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2, q = jsc_seqs_live_from(&s->seqs, mid, s->last_seq);
        if (q >= hi) {
            hi = mid;
            continue;
        }
        int rc = jsc_stream_read(s, q, &r);
        while (rc == JSC_ECORRUPT && s->solo && (q = jsc_seqs_live_from(&s->seqs, q + 1, s->last_seq)) < hi)
            rc = jsc_stream_read(s, q, &r);
        if (rc == JSC_ECORRUPT && s->solo) {
            hi = mid; /* none of these tells its time: rather too many than too few */
            continue;
        }
        if (rc != JSC_OK) return rc;
        if (r.ts >= unix_ns) hi = mid;
        else lo = q + 1;
    }
    lo = jsc_seqs_live_from(&s->seqs, lo, s->last_seq);
    if (lo > s->last_seq) return JSC_ENOTFOUND;
    *seq = lo;
    return JSC_OK;
}

int jsc_stream_subject_counts(jsc_stream *s, const char *p, size_t n,
                              int (*each)(void *ctx, const char *s, size_t n, uint64_t count, uint64_t last_seq),
                              void *ctx) {
    if (!everything(p, n) && !jsc_subject_valid(p, n, 0)) return JSC_OK;
    for (uint32_t i = 0; i < s->subjects.n; i++) {
        const jsc_subject *x = &s->subjects.a[i];
        if (x->name && (everything(p, n) || jsc_subject_matches(p, n, x->name, x->len))) {
            int rc = each(ctx, x->name, x->len, x->count, x->last);
            if (rc) return rc;
        }
    }
    return JSC_OK;
}

int jsc_stream_deleted(jsc_stream *s, int (*each)(void *ctx, uint64_t seq), void *ctx) {
    if (!s->messages) return JSC_OK;
    for (uint64_t q = s->first_seq; q <= s->last_seq; q++)
        if (!jsc_entry_live(jsc_seqs_at(&s->seqs, q))) {
            int rc = each(ctx, q);
            if (rc) return rc;
        }
    return JSC_OK;
}

static int request(jsc_stream *s, uint8_t kind, const uint8_t *body, size_t n, const char *reply, size_t rn) {
    if (!s->leading || s->reading) return JSC_EINVAL;
    uint64_t index;
    int rc = jsc_stream_append(s, kind, NULL, 0, NULL, 0, body, n, &index);
    if (rc == JSC_OK && rn) jsc_waiters_push(&s->acks, index, reply, rn);
    return rc;
}

int jsc_stream_purge(jsc_stream *s, const char *filter, size_t n, uint64_t seq, uint64_t keep, const char *reply,
                     size_t rn) {
    uint8_t body[20 + 4096] = {1, 1};
    if (n > 4096 || seq > JSC_SEQ_MAX) return JSC_EINVAL;
    jsc_put64(body + 2, seq);
    jsc_put64(body + 10, keep);
    body[18] = (uint8_t)n;
    body[19] = (uint8_t)(n >> 8);
    if (n) memcpy(body + 20, filter, n);
    return request(s, JSC_K_PURGE, body, 20 + n, reply, rn);
}

int jsc_stream_delete(jsc_stream *s, uint64_t seq, const char *reply, size_t rn) {
    uint8_t body[9] = {1};
    jsc_put64(body + 1, seq);
    return request(s, JSC_K_DELETE, body, sizeof body, reply, rn);
}
