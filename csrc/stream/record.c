/* CONSUMER_STATE: what one consumer did in one turn. Body: u8 1 · varint consumer id · operations, each
 *   u8 op · varint sequence · varint n · (DELIVER, REDELIVER, NONE:) varint unix ns
 * DELIVER, REDELIVER, ACK, DROP stand for the sequences [sequence, sequence + n). DELIVER: first deliveries, consumer
 * sequences go up by one each. REDELIVER: one more delivery of a pending message. ACK: acknowledged or terminated.
 * ACK_ALL: everything up to the sequence. DROP: leaves pending unacknowledged (max_deliver, or the message is gone).
 * NONE: the delivered position moves to the sequence after n deliveries that nobody acknowledges. */
#include "internal.h"

static int has_time(uint8_t op) { return op == JSC_OP_DELIVER || op == JSC_OP_REDELIVER || op == JSC_OP_NONE; }

static void ops_head(jsc_consumer *c) {
    if (!c->ops.n) {
        static const uint8_t version = 1;
        JSC_ASSERT(jsc_bytes_add(&c->ops, &version, 1) == JSC_OK);
        jsc_varint_put(&c->ops, c->id);
    }
}

static void ops_flush(jsc_consumer *c) {
    if (!c->run_op) return;
    ops_head(c);
    JSC_ASSERT(jsc_bytes_add(&c->ops, &c->run_op, 1) == JSC_OK);
    jsc_varint_put(&c->ops, c->run_first);
    jsc_varint_put(&c->ops, c->run_n);
    if (has_time(c->run_op)) jsc_varint_put(&c->ops, (uint64_t)c->run_ts);
    c->run_op = 0;
}

void jsc_consumer_mark_dirty(jsc_consumer *c) {
    if (c->is_dirty) return;
    c->is_dirty = 1;
    c->dirty_next = c->stream->all->dirty;
    c->stream->all->dirty = c;
    jsc_streams_poke(c->stream->all);
}

void jsc_ops_add(jsc_consumer *c, uint8_t op, uint64_t seq, int64_t ts) {
    if (c->run_op == op && op != JSC_OP_ACK_ALL && c->run_first + c->run_n == seq && c->run_ts == ts) {
        c->run_n++;
    } else {
        ops_flush(c);
        c->run_op = op;
        c->run_first = seq;
        c->run_n = 1;
        c->run_ts = ts;
    }
    jsc_consumer_mark_dirty(c);
}

void jsc_ops_none(jsc_consumer *c) {
    if (c->none_due == JSC_NEVER && !c->none_since) return;
    ops_flush(c);
    c->run_op = JSC_OP_NONE;
    c->run_first = c->view.dseq;
    c->run_n = c->none_since;
    c->run_ts = c->view.delivered_ns;
    ops_flush(c);
    c->none_since = 0;
    c->none_due = JSC_NEVER;
    jsc_consumer_mark_dirty(c);
}

void jsc_consumer_reset_ops(jsc_consumer *c) {
    c->ops.n = c->replies.n = 0;
    c->run_op = 0;
    c->none_since = 0;
    c->none_due = JSC_NEVER;
}

void jsc_consumer_propose(jsc_consumer *c) {
    jsc_stream *s = c->stream;
    ops_flush(c);
    if (!s->leading || (!c->ops.n && !c->replies.n)) return;
    ops_head(c); /* a double ack of something acked before still waits for what precedes it */
    uint64_t index;
    int rc = jsc_stream_append(s, JSC_K_CONSUMER_STATE, NULL, 0, NULL, 0, c->ops.p, c->ops.n, &index);
    if (rc != JSC_OK) { /* nothing is lost: the operations stay and are offered again */
        c->report_due = s->all->mono + 100000000;
        c->replies.n = 0;
        jsc_timer_set(&s->all->timers, &c->timer, c->report_due);
        return;
    }
    c->report_due = JSC_NEVER;
    for (size_t i = 0; i + 2 <= c->replies.n;) {
        size_t n = (size_t)c->replies.p[i] | (size_t)c->replies.p[i + 1] << 8;
        jsc_waiters_push(&s->acks, index, (char *)c->replies.p + i + 2, n);
        i += 2 + n;
    }
    c->ops.n = c->replies.n = 0;
}

/* Whether some consumer still has to see or acknowledge the message. */
static int needed(jsc_stream *s, uint64_t seq, const jsc_entry *e) {
    for (jsc_consumer *c = s->consumers; c; c = c->next)
        if ((seq > c->applied.dseq && jsc_consumer_wants(c, seq, e)) || jsc_progress_find(&c->applied, seq)) return 1;
    return 0;
}

static void acked(jsc_stream *s, uint64_t seq) {
    if (s->limits.retention == JSC_RETAIN_LIMITS) return;
    const jsc_entry *e = jsc_seqs_at(&s->seqs, seq);
    if (!jsc_entry_live(e)) return;
    if (s->limits.retention == JSC_RETAIN_WORKQUEUE || !needed(s, seq, e)) jsc_stream_remove(s, seq);
}

static void apply_op(jsc_consumer *c, uint8_t op, uint64_t seq, uint64_t n, int64_t ts, int64_t record_ts) {
    jsc_stream *s = c->stream;
    jsc_progress *p = &c->applied;
    jsc_pend *e;
    if (op == JSC_OP_NONE) {
        uint64_t from = p->dseq + 1;
        if (seq > p->dseq) {
            jsc_consumer_pending(c, p);
            for (uint64_t q = from; (q = jsc_consumer_find(c, q)) <= seq && q <= s->last_seq; q++)
                if (p->pending) p->pending--;
            p->dseq = seq;
            if (p->counted_to < seq) p->counted_to = seq;
        }
        p->dcseq += n;
        p->delivered_ns = ts;
        if (!p->npending) {
            p->fseq = p->dseq;
            p->fcseq = p->dcseq;
        }
        if (n && s->limits.retention != JSC_RETAIN_LIMITS)
            for (uint64_t q = from; (q = jsc_consumer_find(c, q)) <= seq && q <= s->last_seq; q++) acked(s, q);
        return;
    }
    if (op == JSC_OP_ACK_ALL) {
        p->ack_ns = record_ts;
        for (uint64_t i = p->head; i < p->tail; i++) {
            e = &p->ring[i & (p->cap - 1)];
            if (e->seq > seq) break;
            if (e->state) {
                uint64_t q = e->seq;
                jsc_progress_done(p, e);
                acked(s, q);
                if (i < p->head) i = p->head - 1;
            }
        }
        return;
    }
    if (n > s->last_seq || seq > s->last_seq) /* a record of ours names only sequences that exist */
        return;
    for (uint64_t q = seq; q < seq + n; q++) {
        switch (op) {
        case JSC_OP_DELIVER: {
            int live = jsc_entry_live(jsc_seqs_at(&s->seqs, q));
            jsc_consumer_pending(c, p);
            if (live && q > p->dseq && q <= p->counted_to && p->pending) p->pending--;
            JSC_ASSERT(jsc_progress_deliver(p, q, ts, live) == JSC_OK);
            if (p->counted_to < p->dseq) p->counted_to = p->dseq;
            break;
        }
        case JSC_OP_REDELIVER:
            if ((e = jsc_progress_find(p, q))) jsc_progress_redeliver(p, e, ts);
            else p->dcseq++;
            break;
        case JSC_OP_ACK:
            p->ack_ns = record_ts;
            if ((e = jsc_progress_find(p, q))) {
                jsc_progress_done(p, e);
                acked(s, q);
            }
            break;
        case JSC_OP_DROP:
            if ((e = jsc_progress_find(p, q))) jsc_progress_done(p, e);
            break;
        }
    }
}

void jsc_consumer_apply(jsc_stream *s, const jsc_record *r) {
    const uint8_t *p = (const uint8_t *)r->data, *end = p + r->data_len;
    uint64_t id, index = r->index;
    if (p < end && *p == 1 && (p++, jsc_varint_get(&p, end, &id))) {
        jsc_consumer *c = jsc_consumer_by_id(s, id);
        while (c && p < end) { /* a consumer deleted meanwhile leaves nothing to do */
            uint8_t op = *p++;
            uint64_t seq, n, ts = 0;
            if (!jsc_varint_get(&p, end, &seq) || !jsc_varint_get(&p, end, &n) ||
                (has_time(op) && !jsc_varint_get(&p, end, &ts)) || !jsc_is_time(ts))
                break;
            apply_op(c, op, seq, n, (int64_t)ts, r->ts);
        }
        if (c && c->unsure && s->leading) {
            c->unsure = 0;
            jsc_consumer_wake(c);
        }
    }
    if (!s->leading) return;
    uint32_t tn;
    const char *reply;
    while (s->acks.n && (reply = jsc_waiters_take(&s->acks, index, &tn)))
        jsc_stream_reply(s, reply, tn, NULL, 0, NULL, 0);
}
