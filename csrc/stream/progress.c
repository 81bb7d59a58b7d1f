/* What a consumer has delivered and what is still unacknowledged. A ring sorted by sequence: first deliveries arrive in
 * order, acks leave holes, and holes at the head move the ack floor. */
#include "internal.h"
#include <errno.h>

static jsc_pend *at(const jsc_progress *p, uint64_t i) { return &p->ring[i & (p->cap - 1)]; }

jsc_pend *jsc_progress_find(jsc_progress *p, uint64_t seq) {
    uint64_t lo = p->head, hi = p->tail;
    if (lo == hi || seq < at(p, lo)->seq || seq > at(p, hi - 1)->seq) return NULL;
    uint64_t guess = lo + (seq - at(p, lo)->seq); /* exact while no sequence is skipped */
    if (guess < hi && at(p, guess)->seq == seq) return at(p, guess)->state ? at(p, guess) : NULL;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (at(p, mid)->seq < seq) lo = mid + 1;
        else hi = mid;
    }
    if (lo < p->tail && at(p, lo)->seq == seq && at(p, lo)->state) return at(p, lo);
    return NULL;
}

static void floor_follow(jsc_progress *p) {
    while (p->head < p->tail && !at(p, p->head)->state) {
        p->fseq = at(p, p->head)->seq;
        p->fcseq = at(p, p->head)->cseq;
        p->head++;
    }
    if (!p->npending) {
        p->fseq = p->dseq;
        p->fcseq = p->dcseq;
    }
}

/* Keeps what is pending, and the last of what is gone before each: the ack floor steps on it. Toward the tail, so that
 * nobody's position in the ring moves down. */
static void squeeze(jsc_progress *p) {
    uint64_t to = p->tail;
    for (uint64_t i = p->tail; i-- > p->head;)
        if (at(p, i)->state || i + 1 == p->tail || at(p, to)->state) *at(p, --to) = *at(p, i);
    p->head = to;
}

int jsc_progress_deliver(jsc_progress *p, uint64_t seq, int64_t ts, int track) {
    if (track && p->tail - p->head == p->cap && p->cap > 64 && p->npending < p->cap / 4)
        squeeze(p); /* one message that nobody acknowledges holds the head */
    if (track && p->tail - p->head == p->cap) {
        uint32_t cap = p->cap ? p->cap * 2 : 64;
        jsc_pend *r = malloc((size_t)cap * sizeof *r);
        if (!r) return -ENOMEM;
        for (uint64_t i = p->head; i < p->tail; i++) r[i & (cap - 1)] = *at(p, i);
        free(p->ring);
        p->ring = r;
        p->cap = cap;
    }
    p->dcseq++;
    p->delivered_ns = ts;
    if (seq > p->dseq) {
        p->dseq = seq;
        if (track && (p->head == p->tail || at(p, p->tail - 1)->seq < seq)) {
            *at(p, p->tail++) = (jsc_pend){.seq = seq, .cseq = p->dcseq, .ts = ts, .count = 1, .state = JSC_P_TIMED};
            p->npending++;
        }
    }
    floor_follow(p);
    return JSC_OK;
}

void jsc_progress_redeliver(jsc_progress *p, jsc_pend *e, int64_t ts) {
    p->dcseq++;
    p->delivered_ns = ts;
    if (e->count++ == 1) p->nredelivered++;
    e->ts = ts;
}

void jsc_progress_done(jsc_progress *p, jsc_pend *e) {
    e->state = JSC_P_GONE;
    p->npending--;
    if (e->count > 1) p->nredelivered--;
    floor_follow(p);
}

void jsc_progress_below(jsc_progress *p, uint64_t first) {
    while (p->head < p->tail && at(p, p->head)->seq < first) {
        if (at(p, p->head)->state) jsc_progress_done(p, at(p, p->head));
        else floor_follow(p);
    }
    if (first && p->dseq < first - 1) p->dseq = first - 1;
    if (p->counted_to < p->dseq) p->counted_to = p->dseq;
    if (first && p->npending && p->fseq < first - 1) p->fseq = first - 1;
    floor_follow(p);
}

int jsc_progress_copy(jsc_progress *to, const jsc_progress *from) {
    jsc_pend *r = NULL;
    if (from->cap) {
        r = malloc((size_t)from->cap * sizeof *r);
        if (!r) return -ENOMEM;
        memcpy(r, from->ring, (size_t)from->cap * sizeof *r);
    }
    free(to->ring);
    *to = *from;
    to->ring = r;
    return JSC_OK;
}

void jsc_progress_free(jsc_progress *p) {
    free(p->ring);
    memset(p, 0, sizeof *p);
}
