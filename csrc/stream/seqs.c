/* Sequence -> record: chunks of fixed entries, dropped whole when the first live sequence moves past them. */
#include "internal.h"

jsc_entry *jsc_seqs_at(const jsc_seqs *q, uint64_t seq) {
    uint64_t c = seq / JSC_CHUNK;
    if (c < q->first || c - q->first >= q->n) return NULL;
    return &q->chunk[q->off + (c - q->first)]->e[seq % JSC_CHUNK];
}

jsc_entry *jsc_seqs_put(jsc_seqs *q, uint64_t seq) {
    uint64_t c = seq / JSC_CHUNK;
    if (!q->n) q->first = c;
    JSC_ASSERT(c >= q->first);
    while (c - q->first >= q->n) { /* more than once: after a snapshot, where all between are gone */
        if (q->off + q->n == q->cap) {
            if (q->off > q->cap / 2) {
                memmove(q->chunk, q->chunk + q->off, q->n * sizeof *q->chunk);
                q->off = 0;
            } else {
                uint32_t cap = q->cap ? q->cap * 2 : 16;
                jsc_chunk **p = realloc(q->chunk, cap * sizeof *p);
                if (!p) return NULL;
                q->chunk = p;
                q->cap = cap;
            }
        }
        jsc_chunk *x = malloc(sizeof *x);
        if (!x) return NULL;
        x->live = 0;
        memset(x->bits, 0, sizeof x->bits);
        for (uint32_t i = 0; i < JSC_CHUNK; i++)
            x->e[i].index = JSC_DELETED; /* sequences never put (before first_seq) read as deleted */
        q->chunk[q->off + q->n++] = x;
    }
    jsc_chunk *x = q->chunk[q->off + (c - q->first)];
    jsc_entry *e = &x->e[seq % JSC_CHUNK];
    memset(e, 0, sizeof *e);
    x->live++;
    x->bits[seq % JSC_CHUNK / 64] |= 1ull << seq % 64;
    return e;
}

void jsc_seqs_kill(jsc_seqs *q, uint64_t seq) {
    jsc_chunk *x = q->chunk[q->off + (seq / JSC_CHUNK - q->first)];
    x->e[seq % JSC_CHUNK].index |= JSC_DELETED;
    x->live--;
    x->bits[seq % JSC_CHUNK / 64] &= ~(1ull << seq % 64);
}

uint64_t jsc_seqs_live_from(const jsc_seqs *q, uint64_t seq, uint64_t last) {
    if (q->n && seq < q->first * JSC_CHUNK) seq = q->first * JSC_CHUNK;
    while (seq <= last) {
        uint64_t c = seq / JSC_CHUNK;
        if (c < q->first || c - q->first >= q->n) return last + 1;
        const jsc_chunk *x = q->chunk[q->off + (c - q->first)];
        if (x->live)
            for (uint32_t i = (uint32_t)(seq % JSC_CHUNK); i < JSC_CHUNK; i++)
                if (!(x->e[i].index & JSC_DELETED)) {
                    uint64_t found = c * JSC_CHUNK + i;
                    return found <= last ? found : last + 1;
                }
        seq = (c + 1) * JSC_CHUNK;
    }
    return last + 1;
}

void jsc_seqs_drop_below(jsc_seqs *q, uint64_t seq) {
    while (q->n && (q->first + 1) * JSC_CHUNK <= seq) {
        free(q->chunk[q->off++]);
        q->n--;
        q->first++;
    }
    if (!q->n) q->off = 0;
}

void jsc_seqs_free(jsc_seqs *q) {
    for (uint32_t i = 0; i < q->n; i++) free(q->chunk[q->off + i]);
    free(q->chunk);
    memset(q, 0, sizeof *q);
}
