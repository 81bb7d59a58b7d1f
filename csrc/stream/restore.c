/* A stream made from a snapshot and the records that it names: the reverse of snapshot.c, which says what is in the file. */
#include "../log/snapshot.h"
#include "internal.h"
#include <errno.h>

typedef struct reader {
    const uint8_t *p, *end;
    int bad;
} reader;

static uint64_t get(reader *r) {
    uint64_t v = 0;
    if (!jsc_varint_get(&r->p, r->end, &v)) r->bad = 1;
    return r->bad ? 0 : v;
}

/* How many of something that takes a byte each at least. */
static uint64_t get_count(reader *r) {
    uint64_t n = get(r);
    if (n > (uint64_t)(r->end - r->p)) r->bad = 1;
    return r->bad ? 0 : n;
}

enum { MESSAGES, BYTES, FIRST_SEQ, LAST_SEQ, LAST_INDEX, LAST_TS, LAST_STAMP, NFIELDS };

static int get_head(const uint8_t *file, size_t n, reader *r, jsc_snapshot_head *head, uint64_t fields[NFIELDS],
                    const uint8_t **host, size_t *hn) {
    int rc = jsc_snapshot_check(file, n, head);
    if (rc != JSC_OK) return rc;
    *r = (reader){file + JSC_SNAPSHOT_HEAD, file + n, 0};
    for (int i = 0; i < NFIELDS; i++) fields[i] = get(r);
    *hn = get_count(r);
    *host = r->p;
    r->p += *hn;
    return r->bad ? JSC_ECORRUPT : JSC_OK;
}

int jsc_stream_snapshot_host(const uint8_t *file, size_t n, const uint8_t **host, size_t *hn) {
    reader r;
    jsc_snapshot_head head;
    uint64_t fields[NFIELDS];
    return get_head(file, n, &r, &head, fields, host, hn);
}

/* ---- consumers ---- */
typedef struct progress_fields {
    uint64_t id, dseq, dcseq, fseq, fcseq, delivered_ns, ack_ns, lps_upto, nlps;
} progress_fields;

/* One consumer; c NULL: it is only checked. */
static int get_consumer(jsc_stream *s, reader *r, int check) {
    progress_fields f;
    uint64_t *all[] = {&f.id, &f.dseq, &f.dcseq, &f.fseq, &f.fcseq, &f.delivered_ns, &f.ack_ns, &f.lps_upto, NULL};
    for (int i = 0; all[i]; i++) *all[i] = get(r);
    f.nlps = get_count(r);
    if (!jsc_is_time(f.delivered_ns) || !jsc_is_time(f.ack_ns)) r->bad = 1;
    jsc_consumer *c = check ? NULL : jsc_consumer_by_id(s, f.id);
    if (r->bad || (!check && !c) || f.nlps > UINT32_MAX) return JSC_ECORRUPT;
    uint64_t *lps = c && f.nlps ? malloc(f.nlps * sizeof *lps) : NULL, seq = 0;
    if (c && f.nlps && !lps) return -ENOMEM;
    for (uint64_t i = 0; i < f.nlps; i++) {
        seq += get(r);
        if (lps) lps[i] = seq;
    }
    uint64_t n = get_count(r);
    uint32_t cap = 64;
    while (cap < n && cap < 1u << 30) cap *= 2;
    jsc_pend *ring = c && n ? malloc((size_t)cap * sizeof *ring) : NULL;
    if (r->bad || n > cap || (c && n && !ring)) {
        free(lps);
        free(ring);
        return r->bad || n > cap ? JSC_ECORRUPT : -ENOMEM;
    }
    uint32_t pending = 0, again = 0;
    seq = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t step = get(r), cseq = get(r), count = get(r), ts = count & 1 ? get(r) : 0;
        if (!step || seq + step < seq || !jsc_is_time(ts)) r->bad = 1;
        seq += step;
        pending += count & 1;
        again += count & 1 && count >> 1 > 1;
        if (ring)
            ring[i] = (jsc_pend){.seq = seq,
                                 .cseq = cseq,
                                 .ts = (int64_t)ts,
                                 .count = (uint32_t)(count >> 1),
                                 .state = count & 1 ? JSC_P_TIMED : JSC_P_GONE};
    }
    if (r->bad || !c) {
        free(lps);
        free(ring);
        return r->bad ? JSC_ECORRUPT : JSC_OK;
    }
    free(c->lps);
    c->lps = lps;
    c->nlps = (uint32_t)f.nlps;
    c->lps_upto = f.lps_upto;
    jsc_progress_free(&c->applied);
    c->applied = (jsc_progress){.dseq = f.dseq,
                                .dcseq = f.dcseq,
                                .fseq = f.fseq,
                                .fcseq = f.fcseq,
                                .delivered_ns = (int64_t)f.delivered_ns,
                                .ack_ns = (int64_t)f.ack_ns,
                                .ring = ring,
                                .tail = n,
                                .cap = ring ? cap : 0,
                                .npending = pending,
                                .nredelivered = again,
                                .counted_to = f.dseq};
    return JSC_OK;
}

int jsc_stream_restore_consumers(jsc_stream *s) {
    reader r = {s->restored.p, s->restored.p + s->restored.n, 0};
    uint64_t n = s->restored.n ? get_count(&r) : 0;
    int rc = n == s->nconsumers ? JSC_OK : JSC_ECORRUPT;
    for (uint64_t i = 0; i < n && rc == JSC_OK; i++) rc = get_consumer(s, &r, 0);
    jsc_bytes_free(&s->restored);
    return rc;
}

/* ---- message ids and messages ---- */
static int restore_ids(jsc_stream *s, reader *r, const jsc_snapshot_head *head, int lossy) {
    uint64_t n = get_count(r), index = 0, seq = 0;
    for (uint64_t i = 0; i < n && !r->bad; i++) {
        index += get(r);
        seq += get(r);
        if (index < head->first || index > head->index) return JSC_ECORRUPT;
        jsc_record m;
        jsc_headers h = {.any = 0};
        int rc = jsc_log_read(s->log, index, &m);
        if (rc == JSC_ECORRUPT && lossy) continue;
        if (rc != JSC_OK) return JSC_ECORRUPT;
        if (m.kind == JSC_K_MESSAGE && m.headers_len) jsc_headers_parse(m.headers, m.headers_len, &h);
        if (!h.msg_id.n) return JSC_ECORRUPT;
        if ((rc = jsc_dedupe_add(&s->dedupe, jsc_hash(h.msg_id.p, h.msg_id.n), index, seq, m.ts)) != JSC_OK) return rc;
    }
    return r->bad ? JSC_ECORRUPT : JSC_OK;
}

/* *unmoved: record of the last message that has its first one. */
static int restore_message(jsc_stream *s, uint64_t index, uint64_t seq, uint64_t *unmoved) {
    jsc_record m;
    uint64_t says = seq;
    int rc = jsc_log_read(s->log, index, &m);
    if (rc != JSC_OK) return rc == JSC_ENOTFOUND ? JSC_ECORRUPT : rc;
    int moved = m.kind == JSC_K_MOVED;
    if (moved ? jsc_moved_decode(&m, &says) != JSC_OK || says != seq : m.kind != JSC_K_MESSAGE || index <= *unmoved)
        return JSC_ECORRUPT;
    if (!moved) *unmoved = index;
    uint32_t id = jsc_subjects_add(&s->subjects, m.subject, m.subject_len);
    jsc_entry *e = id == JSC_NO_SUBJECT ? NULL : jsc_seqs_put(&s->seqs, seq);
    if (!e) return -ENOMEM;
    jsc_stream_link(s, seq, e, index, id, jsc_stream_size(s, m.subject_len, m.headers_len, m.data_len));
    if (!moved) return JSC_OK;
    e->index |= JSC_MOVED;
    s->moves.live++;
    return jsc_moves_add(s, seq, index);
}

static int restore_messages(jsc_stream *s, reader *r, const jsc_snapshot_head *head, const uint64_t fields[NFIELDS],
                            int lossy, uint64_t *lost) {
    uint64_t index = 0, seq = 0, from = 0, unmoved = 0, last_seq = fields[LAST_SEQ];
    for (;;) {
        uint64_t steps = get(r), leap = get(r), n = get(r);
        if (r->bad) return JSC_ECORRUPT;
        if (!n && !steps && !leap) return r->p == r->end ? JSC_OK : JSC_ECORRUPT;
        int back = !n;
        if (back) n = get(r);
        if (!n || steps > (back ? index : head->index) || leap > JSC_SEQ_MAX) return JSC_ECORRUPT;
        index += back ? -steps : steps;
        seq += leap;
        if (index < head->first || index > head->index || n > head->index - index + 1) return JSC_ECORRUPT;
        if (seq > last_seq || n > last_seq - seq + 1) return JSC_ECORRUPT;
        if (!from && (!(from = seq) || seq < fields[FIRST_SEQ])) return JSC_ECORRUPT;
        if (seq - from > head->index) return JSC_ECORRUPT; /* between two that are there each was a record */
        for (; n; n--, index++, seq++) {
            int rc = restore_message(s, index, seq, &unmoved);
            if (rc == JSC_ECORRUPT && lossy) {
                ++*lost;
                continue;
            }
            if (rc != JSC_OK) return rc;
        }
    }
}

int jsc_stream_restore(jsc_stream *s, const uint8_t *file, size_t n, int lossy, uint64_t *lost) {
    reader r;
    jsc_snapshot_head head;
    uint64_t f[NFIELDS];
    const uint8_t *host;
    size_t hn;
    uint32_t term;
    *lost = 0;
    if (s->messages || s->nconsumers || s->leading || s->applied != jsc_log_first(s->log) - 1) return JSC_EINVAL;
    int rc = get_head(file, n, &r, &head, f, &host, &hn);
    if (rc != JSC_OK) return rc;
    /* The log is the one that it was taken of: it has all that is needed, and at the record it stands for the same term. */
    if (head.first < jsc_log_first(s->log) || head.index > jsc_log_last(s->log)) return JSC_ECORRUPT;
    rc = jsc_log_term(s->log, head.index, &term);
    if (rc == JSC_OK && term != head.term) return JSC_ECORRUPT;
    if (rc != JSC_OK && !lossy) return JSC_ECORRUPT;
    if (f[LAST_SEQ] > JSC_SEQ_MAX || f[FIRST_SEQ] > f[LAST_SEQ] + 1) return JSC_ECORRUPT;
    if (!jsc_is_time(f[LAST_TS]) || !jsc_is_time(f[LAST_STAMP])) return JSC_ECORRUPT;
    const uint8_t *consumers = r.p;
    uint64_t count = get_count(&r);
    for (uint64_t i = 0; i < count; i++)
        if ((rc = get_consumer(s, &r, 1)) != JSC_OK) return rc;
    if (r.bad) return JSC_ECORRUPT;
    if ((rc = jsc_bytes_add(&s->restored, consumers, (size_t)(r.p - consumers))) != JSC_OK) return rc;
    if ((rc = restore_ids(s, &r, &head, lossy)) != JSC_OK) return rc;
    if ((rc = restore_messages(s, &r, &head, f, lossy, lost)) != JSC_OK) return rc;
    if (!*lost && (s->messages != f[MESSAGES] || s->bytes != f[BYTES])) return JSC_ECORRUPT;
    jsc_moves_sort(s);
    s->first_seq = f[FIRST_SEQ];
    s->last_seq = f[LAST_SEQ];
    s->last_msg_index = f[LAST_INDEX];
    s->last_ts = (int64_t)f[LAST_TS];
    if ((int64_t)f[LAST_STAMP] > s->last_stamp) s->last_stamp = (int64_t)f[LAST_STAMP];
    if (*lost) jsc_stream_settle_first(s);
    else if (s->messages && !jsc_entry_live(jsc_seqs_at(&s->seqs, s->first_seq))) return JSC_ECORRUPT;
    s->applied = s->committed = head.index;
    return JSC_OK;
}
