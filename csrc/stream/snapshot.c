/* A stream's state as of one record, written while the stream goes on. Body, varints, behind the head of log/snapshot.h:
 *   messages · bytes · first seq · last seq · record of the last message stored · its time · newest stamp
 *   n · n bytes of the host
 *   consumers: n, each: id · delivered seq, consumer seq · ack floor seq, consumer seq · delivered at · acked at ·
 *     last of the sequences chosen at creation · n of them, n distances ·
 *     n entries: distance of seq · consumer seq · deliveries * 2 + pending · time if pending
 *   message ids: n, each: distance of its record · distance of its seq
 *   messages: runs of distance of record · distance of seq · length, until all three are 0; of a run whose records come
 *     before those of the run before: distance back · distance of seq · 0 · length
 * Distances are from the one before (behind the end of the run before), at first from 0. What a record says itself is not
 * repeated: subjects, sizes and ids are read from the log again, from `first` on.
 *
 * What may change before its turn comes is captured at the start: counters and consumers are written at once, of which
 * messages live a bit each is copied. Which record is theirs is looked up later; of those that move meanwhile, where they
 * were is noted. */
#include "../log/snapshot.h"
#include "internal.h"
#include <errno.h>

#define SEEN_A_STEP 65536u /* message ids, about 3 ms */
#define CHUNKS_A_STEP 64u /* of messages, about 2 ms */
#define CHUNKS_AT_ONCE 256u

enum { WRITES_IDS, WRITES_MESSAGES, IS_DONE, IS_OVER };
struct jsc_snapshot {
    jsc_bytes out, runs; /* runs: what comes last in the file */
    jsc_snapshot_head head;
    uint64_t *live; /* bits of the chunks [from, end) */
    uint64_t from, next, end; /* numbers of chunks */
    uint64_t seen, seen_end; /* places in the window */
    uint64_t seen_index, seen_seq, index, seq; /* where the next distance starts */
    uint64_t run_index, run_seq, run;
    jsc_moved *was; /* where messages were that moved since */
    size_t nwas, was_cap;
    int was_sorted, stage;
};

uint64_t jsc_stream_keeps_beside_messages(const jsc_stream *s) {
    uint64_t keep = s->applied;
    const jsc_dedupe *d = &s->dedupe;
    if (d->head < d->tail && d->ring[d->head & (d->cap - 1)].index < keep) keep = d->ring[d->head & (d->cap - 1)].index;
    const jsc_entry *last = jsc_seqs_at(&s->seqs, s->last_seq);
    if (jsc_entry_live(last) && jsc_entry_index(last) == s->last_msg_index) return keep;
    if (s->last_msg_index && s->last_msg_index < keep) keep = s->last_msg_index;
    return keep;
}

uint64_t jsc_stream_keeps(jsc_stream *s) {
    uint64_t keep = jsc_stream_keeps_beside_messages(s), low = jsc_moves_lowest(s);
    return low < keep ? low : keep;
}

/* ---- writing ---- */
static void put(jsc_snapshot *t, uint64_t v) { jsc_varint_put(&t->out, v); }
static void put_run(jsc_snapshot *t, uint64_t v) { jsc_varint_put(&t->runs, v); }

/* Of those that are gone only the last before each pending one, and the very last: the ack floor steps on them. */
static int counts(const jsc_progress *p, uint64_t i) {
    const jsc_pend *e = &p->ring[i & (p->cap - 1)];
    return e->state || i + 1 == p->tail || p->ring[(i + 1) & (p->cap - 1)].state;
}

static void put_consumer(jsc_snapshot *t, const jsc_consumer *c) {
    const jsc_progress *p = &c->applied;
    uint64_t fields[] = {
        c->id,       p->dseq, p->dcseq, p->fseq, p->fcseq, (uint64_t)p->delivered_ns, (uint64_t)p->ack_ns,
        c->lps_upto, c->nlps};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) put(t, fields[i]);
    for (uint32_t i = 0; i < c->nlps; i++) put(t, c->lps[i] - (i ? c->lps[i - 1] : 0));
    uint64_t n = 0, before = 0;
    for (uint64_t i = p->head; i < p->tail; i++) n += (uint64_t)counts(p, i);
    put(t, n);
    for (uint64_t i = p->head; i < p->tail; i++) {
        const jsc_pend *e = &p->ring[i & (p->cap - 1)];
        if (!counts(p, i)) continue;
        put(t, e->seq - before);
        put(t, e->cseq);
        put(t, (uint64_t)e->count << 1 | (e->state != JSC_P_GONE));
        if (e->state != JSC_P_GONE) put(t, (uint64_t)e->ts);
        before = e->seq;
    }
}

static void give_up(jsc_snapshot *t) {
    t->stage = IS_OVER;
    free(t->live);
    t->live = NULL;
    free(t->was);
    t->was = NULL;
    t->nwas = t->was_cap = 0;
    jsc_bytes_free(&t->out);
    jsc_bytes_free(&t->runs);
}

/* The next of the ids. 0: some are gone already, and their place may be another's. */
static int put_ids(const jsc_stream *s, jsc_snapshot *t) {
    const jsc_dedupe *d = &s->dedupe;
    if (t->seen < d->head && t->seen < t->seen_end) {
        give_up(t);
        return 0;
    }
    for (uint32_t i = 0; i < SEEN_A_STEP && t->seen < t->seen_end; i++, t->seen++) {
        const struct jsc_seen *x = &d->ring[t->seen & (d->cap - 1)];
        put(t, x->index - t->seen_index);
        put(t, x->seq - t->seen_seq);
        t->seen_index = x->index;
        t->seen_seq = x->seq;
    }
    return 1;
}

int jsc_stream_snapshot_begin(jsc_stream *s, const void *host, size_t n) {
    if (s->snapshot || s->applying || s->restored.n || s->applied < jsc_log_first(s->log)) return JSC_EINVAL;
    jsc_snapshot *t = calloc(1, sizeof *t);
    uint64_t *live = malloc(s->seqs.n * sizeof s->seqs.chunk[0]->bits + 1);
    if (!t || !live) {
        free(t);
        free(live);
        return -ENOMEM;
    }
    t->head.index = s->applied;
    t->head.first = jsc_stream_keeps(s);
    t->live = live;
    t->from = t->next = s->seqs.first;
    t->end = t->from + s->seqs.n;
    for (uint32_t i = 0; i < s->seqs.n; i++)
        memcpy(live + (size_t)i * (JSC_CHUNK / 64), s->seqs.chunk[s->seqs.off + i]->bits,
               sizeof s->seqs.chunk[0]->bits);
    t->seen = s->dedupe.head;
    t->seen_end = s->dedupe.tail;
    s->snapshot = t;
    static const uint8_t room[JSC_SNAPSHOT_HEAD];
    JSC_ASSERT(jsc_bytes_add(&t->out, room, sizeof room) == JSC_OK);
    uint64_t fields[] = {s->messages,
                         s->bytes,
                         s->first_seq,
                         s->last_seq,
                         s->last_msg_index,
                         (uint64_t)s->last_ts,
                         (uint64_t)s->last_stamp,
                         n};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) put(t, fields[i]);
    JSC_ASSERT(jsc_bytes_add(&t->out, host, n) == JSC_OK);
    put(t, s->nconsumers);
    for (const jsc_consumer *c = s->consumers; c; c = c->next) put_consumer(t, c);
    put(t, t->seen_end - t->seen);
    put_ids(s, t); /* those that go next, at least */
    return JSC_OK;
}

static void end_run(jsc_snapshot *t) {
    if (!t->run) return;
    int back = t->run_index < t->index;
    put_run(t, back ? t->index - t->run_index : t->run_index - t->index);
    put_run(t, t->run_seq - t->seq);
    if (back) put_run(t, 0);
    put_run(t, t->run);
    t->index = t->run_index + t->run;
    t->seq = t->run_seq + t->run;
    t->run = 0;
}

void jsc_snapshot_moved(jsc_stream *s, uint64_t seq, uint64_t was) {
    jsc_snapshot *t = s->snapshot;
    uint64_t chunk = seq / JSC_CHUNK;
    if (t->stage >= IS_DONE || was > t->head.index || chunk < t->next || chunk >= t->end) return;
    JSC_ASSERT(jsc_reserve((void **)&t->was, t->nwas, 1, &t->was_cap, sizeof *t->was) == JSC_OK);
    t->was[t->nwas++] = (jsc_moved){was, seq};
    t->was_sorted = 0;
}

static int by_seq(const void *a, const void *b) {
    const jsc_moved *x = a, *y = b;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* Where a message's record was when all this began. */
static uint64_t index_then(jsc_snapshot *t, const jsc_entry *e, uint64_t seq) {
    if (jsc_entry_index(e) <= t->head.index) return jsc_entry_index(e);
    if (!t->was_sorted) qsort(t->was, t->nwas, sizeof *t->was, by_seq);
    t->was_sorted = 1;
    const jsc_moved key = {0, seq}, *found = bsearch(&key, t->was, t->nwas, sizeof key, by_seq);
    JSC_ASSERT(found);
    return found->index;
}

static void put_chunk(jsc_stream *s, jsc_snapshot *t) {
    const uint64_t *bits = t->live + (t->next - t->from) * (JSC_CHUNK / 64);
    const jsc_chunk *x = s->seqs.chunk[s->seqs.off + (t->next - s->seqs.first)];
    for (uint32_t w = 0; w < JSC_CHUNK / 64; w++)
        for (uint64_t left = bits[w]; left; left &= left - 1) {
            uint32_t i = w * 64 + (uint32_t)__builtin_ctzll(left);
            uint64_t seq = t->next * JSC_CHUNK + i, index = index_then(t, &x->e[i], seq);
            if (t->run && index == t->run_index + t->run && seq == t->run_seq + t->run) {
                t->run++;
                continue;
            }
            end_run(t);
            t->run_index = index;
            t->run_seq = seq;
            t->run = 1;
        }
    t->next++;
}

/* Unless it is a great many: then all of this begins again. */
void jsc_snapshot_hold(jsc_stream *s, uint64_t below) {
    jsc_snapshot *t = s->snapshot;
    uint64_t chunk = below / JSC_CHUNK < t->end ? below / JSC_CHUNK : t->end;
    if (t->stage >= IS_DONE || chunk <= t->next) return;
    if (chunk - t->next > CHUNKS_AT_ONCE) {
        give_up(t);
        return;
    }
    while (t->next < chunk) put_chunk(s, t);
}

static int finish(jsc_stream *s, jsc_snapshot *t) {
    end_run(t);
    for (int i = 0; i < 3; i++) put_run(t, 0);
    JSC_ASSERT(jsc_bytes_add(&t->out, t->runs.p, t->runs.n) == JSC_OK);
    jsc_bytes_free(&t->runs);
    int rc = jsc_log_term(s->log, t->head.index, &t->head.term);
    if (rc == JSC_OK && t->head.first > 1) rc = jsc_log_term(s->log, t->head.first - 1, &t->head.before);
    if (rc != JSC_OK) return rc;
    jsc_snapshot_seal(t->out.p, t->out.n, &t->head);
    t->stage = IS_DONE;
    return 1;
}

int jsc_stream_snapshot_step(jsc_stream *s) {
    jsc_snapshot *t = s->snapshot;
    if (!t || t->stage == IS_OVER) return JSC_EINVAL;
    if (t->stage == WRITES_IDS) {
        if (!put_ids(s, t)) return JSC_EINVAL;
        if (t->seen < t->seen_end) return 0;
        t->stage = WRITES_MESSAGES;
    }
    if (t->stage == WRITES_MESSAGES) {
        for (uint32_t i = 0; i < CHUNKS_A_STEP && t->next < t->end; i++) put_chunk(s, t);
        if (t->next < t->end) return 0;
        return finish(s, t);
    }
    return 1;
}

int jsc_stream_snapshot_file(jsc_stream *s, const uint8_t **file, size_t *n, uint64_t *index, uint64_t *first) {
    jsc_snapshot *t = s->snapshot;
    if (!t || t->stage != IS_DONE) return JSC_EINVAL;
    *file = t->out.p;
    *n = t->out.n;
    *index = t->head.index;
    *first = t->head.first;
    return JSC_OK;
}

void jsc_stream_snapshot_end(jsc_stream *s) {
    if (!s->snapshot) return;
    give_up(s->snapshot);
    free(s->snapshot);
    s->snapshot = NULL;
}
