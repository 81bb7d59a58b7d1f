/* Delivery by the leader: what comes next, to whom, and when to look again. */
#include "internal.h"

#define BATCH_PER_TURN 4096 /* messages one consumer sends before others get their share of the turn */
#define BYTES_PER_TURN (8u << 20)
#define NONE_RECORD_EVERY 1000
#define NONE_RECORD_NS 50000000

void jsc_consumer_wake(jsc_consumer *c) {
    jsc_streams *t = c->stream->all;
    if (c->is_active) return;
    c->is_active = 1;
    c->active_next = NULL;
    if (t->active_tail) t->active_tail->active_next = c;
    else t->active = c;
    t->active_tail = c;
    jsc_streams_poke(t);
}

void jsc_consumer_status(jsc_consumer *c, const char *to, size_t n, const char *status, const char *more) {
    char head[1200];
    int hn = snprintf(head, sizeof head, "NATS/1.0 %s\r\n%s\r\n", status, more);
    jsc_stream_reply(c->stream, to, n, head, (size_t)hn, NULL, 0);
}

/* The next message to deliver: redeliveries in order of sequence, then new ones. *e is its pending entry or NULL.
 * 0 when there is none now; c->limited says that there will be, without a new message. */
static int pick(jsc_consumer *c, uint64_t *seq, jsc_pend **e) {
    jsc_stream *s = c->stream;
    c->limited = 0;
    while (c->ready.n) {
        jsc_pend *x = jsc_progress_find(&c->view, c->ready.a[0].seq);
        if (x && x->state == JSC_P_READY) {
            if (jsc_entry_live(jsc_seqs_at(&s->seqs, x->seq))) {
                /* Who leads next counts from what is committed: at most one delivery may be missing there, or the
                 * count that clients see would go back. */
                const jsc_pend *sure = jsc_progress_find(&c->applied, x->seq);
                if (!sure || sure->count < x->count) {
                    c->limited = c->unsure = 1;
                    break;
                }
                *seq = x->seq;
                *e = x;
                return 1;
            }
            jsc_ops_add(c, JSC_OP_DROP, x->seq, 0); /* removed from the stream while it waited */
            jsc_progress_done(&c->view, x);
        }
        jsc_seqheap_pop(&c->ready);
    }
    if (!jsc_consumer_pending(c, &c->view)) return 0;
    if (c->o.ack_policy != JSC_ACK_NONE && c->o.max_ack_pending > 0 &&
        c->view.npending >= (uint64_t)c->o.max_ack_pending) {
        c->limited = 1;
        return 0;
    }
    *seq = jsc_consumer_find(c, c->view.dseq + 1);
    *e = NULL;
    return *seq <= s->last_seq;
}

static size_t digits(char *out, uint64_t v) {
    char t[20];
    int k = 20;
    do t[--k] = (char)('0' + v % 10);
    while (v /= 10);
    memcpy(out, t + k, (size_t)(20 - k));
    return (size_t)(20 - k);
}

/* Moves the view past a message that was taken, and notes it for the turn's record. */
static void taken(jsc_consumer *c, uint64_t seq, jsc_pend *e, int64_t mono, int64_t unix_ns) {
    jsc_progress *p = &c->view;
    if (e) {
        jsc_seqheap_pop(&c->ready);
        jsc_progress_redeliver(p, e, unix_ns);
        jsc_ops_add(c, JSC_OP_REDELIVER, seq, unix_ns);
        jsc_consumer_due(c, e, unix_ns + jsc_consumer_wait_ns(c, e->count));
        return;
    }
    int track = c->o.ack_policy != JSC_ACK_NONE;
    if (p->pending) p->pending--;
    JSC_ASSERT(jsc_progress_deliver(p, seq, unix_ns, track) == JSC_OK);
    if (track) {
        if (p->npending) p->ring[(p->tail - 1) & (p->cap - 1)].due = unix_ns + jsc_consumer_wait_ns(c, 1);
        jsc_ops_add(c, JSC_OP_DELIVER, seq, unix_ns);
        return;
    }
    if (c->none_due == JSC_NEVER) c->none_due = mono + NONE_RECORD_NS;
    if (++c->none_since >= NONE_RECORD_EVERY) jsc_ops_none(c);
}

/* The ack subject of a delivery. cap of out: prefix + 5 numbers. */
static size_t ack_subject(jsc_consumer *c, char *out, uint64_t seq, const jsc_pend *e, int64_t ts) {
    uint64_t pending = jsc_consumer_pending(c, &c->view);
    size_t n = c->prefix_len;
    memcpy(out, c->prefix, n);
    n += digits(out + n, e ? e->count + 1u : 1);
    out[n++] = '.';
    n += digits(out + n, seq);
    out[n++] = '.';
    n += digits(out + n, c->view.dcseq + 1);
    out[n++] = '.';
    n += digits(out + n, (uint64_t)ts);
    out[n++] = '.';
    n += digits(out + n, e ? pending : pending ? pending - 1 : 0);
    return n;
}

typedef struct outcome {
    int sent, busy, too_big;
    uint64_t size;
} outcome;

static void send_one(jsc_consumer *c, const char *to, size_t tn, uint64_t seq, const jsc_pend *e, int64_t cap,
                     outcome *o) {
    jsc_stream *s = c->stream;
    jsc_record r;
    jsc_bytes extra = {0};
    memset(o, 0, sizeof *o);
    int rc = jsc_stream_read(s, seq, &r);
    if (rc == JSC_ECORRUPT && !s->solo) { /* other replicas have it: nobody may take it for delivered */
        jsc_stream_hurt(s, rc);
        o->busy = 1;
        return;
    }
    if (rc != JSC_OK) {
        o->sent = -1;
        return;
    }
    char reply[sizeof c->prefix + 110];
    size_t rn = ack_subject(c, reply, seq, e, r.ts);
    jsc_msg m = {.account = s->account,
                 .subject = r.subject,
                 .subject_len = r.subject_len,
                 .reply = reply,
                 .reply_len = (uint32_t)rn,
                 .headers = r.headers_len ? r.headers : NULL,
                 .headers_len = r.headers_len,
                 .data = r.data,
                 .data_len = r.data_len};
    if (c->o.headers_only) {
        char line[48];
        int ln = snprintf(line, sizeof line, "Nats-Msg-Size: %u\r\n\r\n", r.data_len);
        rc = r.headers_len > 2 ? jsc_bytes_add(&extra, r.headers, r.headers_len - 2u)
                               : jsc_bytes_add(&extra, "NATS/1.0\r\n", 10);
        if (rc == JSC_OK) rc = jsc_bytes_add(&extra, line, (size_t)ln);
        if (rc != JSC_OK) {
            jsc_bytes_free(&extra);
            return;
        }
        m.headers = (char *)extra.p;
        m.headers_len = (uint32_t)extra.n;
        m.data_len = 0;
    }
    o->size = (uint64_t)m.subject_len + rn + m.headers_len + m.data_len;
    if (cap >= 0 && o->size > (uint64_t)cap) {
        o->too_big = 1;
    } else {
        s->reading++; /* the record's bytes stay put: what comes back to this stream waits */
        o->sent = jsc_deliver(s->all->plane, to, tn, &m, &o->busy) > 0;
        s->reading--;
    }
    jsc_bytes_free(&extra);
}

/* A message whose bytes no longer verify, of a stream that has no other replica, cannot be sent: the position moves past it. */
static void pass_over(jsc_consumer *c, uint64_t seq, jsc_pend *e) {
    if (e) {
        jsc_seqheap_pop(&c->ready);
        jsc_ops_add(c, JSC_OP_DROP, seq, 0);
        jsc_progress_done(&c->view, e);
        return;
    }
    if (c->view.pending) c->view.pending--;
    c->view.dseq = seq;
    c->none_due = 0;
    jsc_ops_none(c);
}

/* replay_original keeps the distance between two messages as they were stored. 0: not yet. */
static int replay_due(jsc_consumer *c, uint64_t seq, int64_t mono) {
    jsc_record r;
    if (!c->o.replay_original || jsc_stream_read(c->stream, seq, &r) != JSC_OK) return 1;
    if (c->replay_ts && c->replay_due == JSC_NEVER) {
        int64_t gap = r.ts - (int64_t)c->replay_ts;
        c->replay_due = mono + (gap > 0 ? gap : 0);
    }
    if (c->replay_ts && mono < c->replay_due) return 0;
    c->replay_ts = (uint64_t)r.ts;
    c->replay_due = JSC_NEVER;
    return 1;
}

static void serve_pull(jsc_consumer *c, int64_t mono, int64_t unix_ns) {
    int budget = BATCH_PER_TURN, none = 0;
    uint64_t bytes = 0;
    outcome o;
    while (c->pulls && budget-- > 0) {
        jsc_pull *p = c->pulls;
        uint64_t seq;
        jsc_pend *e;
        if (p->expires <= mono) {
            jsc_pull_end(c, p, "408 Request Timeout", 1);
            continue;
        }
        if (!pick(c, &seq, &e)) {
            none = 1;
            break;
        }
        if (!e && !replay_due(c, seq, mono)) return;
        send_one(c, p->reply, p->reply_len, seq, e, p->has_bytes ? p->max_bytes : -1, &o);
        if (o.sent < 0) {
            pass_over(c, seq, e);
            continue;
        }
        if (o.too_big) {
            jsc_pull_end(c, p, "409 Message Size Exceeds MaxBytes", 1);
            continue;
        }
        if (!o.sent && o.busy) { /* the receiver has too much waiting to be given more */
            c->retry_due = mono + 1000000;
            return;
        }
        if (!o.sent) {
            jsc_pull_drop(c, p);
            continue;
        }
        taken(c, seq, e, mono, unix_ns);
        c->active_ns = mono;
        c->stream->all->spent += o.size + 256;
        if ((bytes += o.size) >= BYTES_PER_TURN) budget = 0;
        p->sent++;
        p->batch--;
        if (p->has_bytes) p->max_bytes -= (int64_t)o.size;
        if (p->beat > 0) p->beat_due = mono + p->beat;
        if (!p->batch) {
            if (p->has_bytes && p->max_bytes > 0) jsc_pull_end(c, p, "409 Batch Completed", 1);
            else jsc_pull_drop(c, p);
        } else if (p->has_bytes && p->max_bytes <= 0) {
            jsc_pull_end(c, p, "409 Message Size Exceeds MaxBytes", 1);
        } else {
            jsc_pull_rotate(c, p);
        }
        if (o.busy) {
            c->retry_due = mono + 1000000;
            return;
        }
    }
    if (none && !c->limited) {
        jsc_pull *next;
        for (jsc_pull *p = c->pulls; p; p = next) {
            next = p->next;
            if (p->no_wait && (p->expires == JSC_NEVER || p->sent)) jsc_pull_end(c, p, "404 No Messages", 0);
        }
    }
    if (budget <= 0 && c->pulls && !none) c->more = 1;
}

static void serve_push(jsc_consumer *c, int64_t mono, int64_t unix_ns) {
    int budget = BATCH_PER_TURN;
    uint64_t bytes = 0;
    outcome o;
    if ((!c->bound || mono >= c->bind_due) && !jsc_push_bound(c, mono)) return;
    while (budget > 0) {
        uint64_t seq;
        jsc_pend *e;
        budget--;
        if ((c->o.flow_control && c->stalled) || !pick(c, &seq, &e)) break;
        if (!e && !replay_due(c, seq, mono)) break;
        send_one(c, c->o.deliver_subject, c->o.deliver_subject_len, seq, e, -1, &o);
        if (o.sent < 0) {
            pass_over(c, seq, e);
            continue;
        }
        if (!o.sent && o.busy) {
            c->retry_due = mono + 1000000;
            break;
        }
        if (!o.sent) {
            jsc_push_bound(c, mono);
            break;
        }
        taken(c, seq, e, mono, unix_ns);
        jsc_push_sent(c, o.size, mono);
        c->stream->all->spent += o.size + 256;
        if ((bytes += o.size) >= BYTES_PER_TURN) budget = 0;
        if (o.busy) {
            c->retry_due = mono + 1000000;
            break;
        }
    }
    if (budget <= 0) c->more = 1;
    if (c->bound && c->o.idle_heartbeat_ns > 0 && mono >= c->beat_due) jsc_push_beat(c, mono);
}

static void inactivity(jsc_consumer *c, int64_t mono, int64_t unix_ns, int64_t *due) {
    int64_t limit = c->o.inactive_threshold_ns;
    if (limit <= 0) return;
    if (c->npulls || (c->push && c->bound)) c->active_ns = mono;
    if (c->view.npending) { /* somebody may still be working on these */
        int64_t until = c->view.delivered_ns + jsc_consumer_wait_ns(c, 1) - unix_ns + mono;
        if (until > c->active_ns) c->active_ns = until;
    }
    if (c->active_ns <= mono - limit) {
        jsc_event e = {.type = JSC_EV_EXPIRED, .a = c->stream->owner.id, .b = c->id};
        jsc_plane_emit(c->stream->all->plane, &e);
        c->active_ns = mono; /* asked again after another threshold if the deletion does not come */
    }
    if (c->active_ns + limit < *due) *due = c->active_ns + limit;
}

void jsc_consumer_serve(jsc_consumer *c, int64_t mono, int64_t unix_ns) {
    c->more = 0;
    c->running = 1; /* a delivery routed back into this consumer's own subjects is not heard */
    c->retry_due = JSC_NEVER;
    jsc_consumer_expire(c, unix_ns);
    if (c->push) serve_push(c, mono, unix_ns);
    else serve_pull(c, mono, unix_ns);
    if (c->pulls_due <= mono) jsc_pull_sweep(c, mono);
    if (!c->pulls) c->pulls_due = JSC_NEVER;
    c->running = 0;
    if (c->none_due <= mono) jsc_ops_none(c);
    if (c->report_due <= mono) jsc_consumer_mark_dirty(c);
    int64_t due = c->retry_due;
    int64_t others[] = {c->pulls_due,
                        c->none_due,
                        c->report_due,
                        c->replay_due,
                        c->push ? c->bind_due : JSC_NEVER,
                        c->push && c->bound && c->o.idle_heartbeat_ns > 0 ? c->beat_due : JSC_NEVER};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i] < due) due = others[i];
    if (c->npulls || (c->push && c->bound)) {
        int64_t wait = jsc_consumer_next_due(c);
        if (wait != JSC_NEVER && wait - unix_ns + mono < due) due = wait - unix_ns + mono;
    }
    inactivity(c, mono, unix_ns, &due);
    jsc_timer_set(&c->stream->all->timers, &c->timer, due);
    if (c->more) jsc_consumer_wake(c);
}
