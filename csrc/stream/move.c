/* Messages that move. Records go from the front of a log only, so one message that stays would hold up all that is dead
 * behind it. The leader therefore appends old messages again, those with the oldest records first, as MOVED records: the
 * message as it is, its time too, and behind its payload its sequence, u64. At apply, on every replica alike, a message
 * that is still there stands at its new record from then on. Nothing else of it changes. */
#include "internal.h"
#include <errno.h>

#define MOST_AT_ONCE 4096u /* messages in one go, whatever their size */
#define LINGER 4096u

static int still_there(const jsc_stream *s, const jsc_moved *x) {
    const jsc_entry *e = jsc_seqs_at(&s->seqs, x->seq);
    return e && e->index == (x->index | JSC_MOVED);
}

/* The next at or after *seq that has its first record; *seq becomes it, or last_seq + 1. */
static const jsc_entry *unmoved_from(const jsc_stream *s, uint64_t *seq) {
    if (*seq < s->first_seq) *seq = s->first_seq;
    while ((*seq = jsc_seqs_live_from(&s->seqs, *seq, s->last_seq)) <= s->last_seq) {
        const jsc_entry *e = jsc_seqs_at(&s->seqs, *seq);
        if (!(e->index & JSC_MOVED)) return e;
        ++*seq;
    }
    return NULL;
}

uint64_t jsc_moves_lowest(jsc_stream *s) {
    jsc_moves *m = &s->moves;
    uint64_t low = UINT64_MAX;
    const jsc_entry *e = unmoved_from(s, &m->unmoved);
    if (e) low = e->index;
    while (m->head < m->n && !still_there(s, &m->a[m->head])) m->head++;
    if (m->head < m->n && m->a[m->head].index < low) low = m->a[m->head].index;
    return low;
}

int jsc_moves_add(jsc_stream *s, uint64_t seq, uint64_t index) {
    jsc_moves *m = &s->moves;
    if (m->n == m->cap && m->n - m->head > 2 * m->live + LINGER) { /* most of them moved again, or went */
        size_t kept = 0;
        for (size_t i = m->head; i < m->n; i++)
            if (still_there(s, &m->a[i])) m->a[kept++] = m->a[i];
        m->head = 0;
        m->n = kept;
    } else if (m->n == m->cap && m->head > m->cap / 2) {
        memmove(m->a, m->a + m->head, (m->n - m->head) * sizeof *m->a);
        m->n -= m->head;
        m->head = 0;
    }
    if (m->n == m->cap && m->cap > UINT32_MAX / 4) return -ENOMEM;
    int rc = jsc_reserve((void **)&m->a, m->n, 1, &m->cap, sizeof *m->a);
    if (rc != JSC_OK) return rc;
    m->a[m->n++] = (jsc_moved){index, seq};
    return JSC_OK;
}

static int by_index(const void *a, const void *b) {
    const jsc_moved *x = a, *y = b;
    return (x->index > y->index) - (x->index < y->index);
}

void jsc_moves_sort(jsc_stream *s) {
    if (s->moves.n > s->moves.head)
        qsort(s->moves.a + s->moves.head, s->moves.n - s->moves.head, sizeof *s->moves.a, by_index);
}

void jsc_moves_free(jsc_moves *m) {
    free(m->a);
    memset(m, 0, sizeof *m);
}

int jsc_moved_decode(jsc_record *r, uint64_t *seq) {
    if (r->data_len < 8) return JSC_ECORRUPT;
    r->data_len -= 8;
    *seq = jsc_get64((const uint8_t *)r->data + r->data_len);
    return JSC_OK;
}

void jsc_moves_apply(jsc_stream *s, const jsc_record *record) {
    jsc_record r = *record;
    uint64_t seq;
    if (jsc_moved_decode(&r, &seq) != JSC_OK) return;
    jsc_entry *e = jsc_seqs_at(&s->seqs, seq);
    if (!jsc_entry_live(e) || seq > s->last_seq) return; /* it went while this was on its way */
    const jsc_subject *x = &s->subjects.a[e->subject];
    uint64_t was = jsc_entry_index(e);
    if (was >= r.index || x->len != r.subject_len || memcmp(x->name, r.subject, x->len)) return;
    if (s->snapshot) jsc_snapshot_moved(s, seq, was);
    if (!(e->index & JSC_MOVED)) s->moves.live++;
    e->index = r.index | JSC_MOVED;
    if (s->last_msg_index == was) s->last_msg_index = r.index;
    JSC_ASSERT(jsc_moves_add(s, seq, r.index) == JSC_OK); /* a replica must not go on with another state */
}

/* Frames one message anew. scratch: reading ends with the next append, so it is copied. */
static int frame(jsc_stream *s, uint64_t seq, jsc_bytes *scratch, uint64_t *bytes) {
    jsc_record r;
    uint8_t last[8];
    int rc = jsc_stream_read(s, seq, &r);
    if (rc != JSC_OK) return rc;
    jsc_put64(last, seq);
    scratch->n = 0;
    if ((rc = jsc_bytes_add(scratch, r.subject, r.subject_len)) != JSC_OK) return rc;
    if ((rc = jsc_bytes_add(scratch, r.headers, r.headers_len)) != JSC_OK) return rc;
    if ((rc = jsc_bytes_add(scratch, r.data, r.data_len)) != JSC_OK) return rc;
    if ((rc = jsc_bytes_add(scratch, last, sizeof last)) != JSC_OK) return rc;
    const uint8_t *headers = scratch->p + r.subject_len, *data = headers + r.headers_len;
    *bytes += scratch->n;
    return jsc_log_append(s->log, s->term, r.ts, JSC_K_MOVED, scratch->p, r.subject_len, headers, r.headers_len, data,
                          r.data_len + sizeof last, &s->moves.proposed);
}

int jsc_stream_move(jsc_stream *s, uint64_t below, uint64_t bytes) {
    jsc_moves *m = &s->moves;
    if (!s->leading || s->reading || s->applying) return JSC_EINVAL;
    if (s->applied < m->proposed) return 1;
    uint64_t bound = jsc_stream_keeps_beside_messages(s), done = 0;
    if (below < bound) bound = below;
    if (jsc_moves_lowest(s) >= bound) return 0;
    uint64_t seq = m->unmoved;
    size_t at = m->head;
    uint32_t moved = 0;
    jsc_bytes scratch = {0};
    int rc = JSC_OK;
    while (rc == JSC_OK && done < bytes && moved < MOST_AT_ONCE) {
        const jsc_entry *e = unmoved_from(s, &seq);
        while (at < m->n && !still_there(s, &m->a[at])) at++;
        const jsc_moved *x = at < m->n ? &m->a[at] : NULL;
        if (x && (!e || x->index < e->index)) {
            if (x->index >= bound) break;
            rc = frame(s, x->seq, &scratch, &done);
            at++;
        } else {
            if (!e || e->index >= bound) break;
            rc = frame(s, seq++, &scratch, &done);
        }
        moved += rc == JSC_OK;
    }
    jsc_bytes_free(&scratch);
    if (moved) jsc_stream_touch(s);
    return rc == JSC_OK ? 1 : rc;
}
