/* A consumer: its options, where it starts, which messages it wants, and how removals reach its counts. */
#include "internal.h"
#include <errno.h>

/* ---- what it wants ---- */
static int match_subject(jsc_consumer *c, uint32_t id) {
    jsc_stream *s = c->stream;
    if (id >= c->match_cap) {
        uint32_t cap = s->subjects.cap > id ? s->subjects.cap : id + 1;
        uint8_t *m = realloc(c->match, cap);
        JSC_ASSERT(m);
        memset(m + c->match_cap, 0, cap - c->match_cap);
        c->match = m;
        c->match_cap = cap;
    }
    if (!c->match[id]) {
        const jsc_subject *x = &s->subjects.a[id];
        c->match[id] = 1;
        for (int i = 0; i < c->o.nfilters; i++)
            if (jsc_subject_matches(c->o.filters[i], c->o.filter_lens[i], x->name, x->len)) c->match[id] = 2;
    }
    return c->match[id] == 2;
}

static uint32_t lps_lower(const jsc_consumer *c, uint64_t seq) {
    uint32_t lo = 0, hi = c->nlps;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (c->lps[mid] < seq) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

int jsc_consumer_wants(jsc_consumer *c, uint64_t seq, const jsc_entry *e) {
    if (seq <= c->lps_upto) {
        uint32_t i = lps_lower(c, seq);
        return i < c->nlps && c->lps[i] == seq;
    }
    return !c->o.nfilters || match_subject(c, e->subject);
}

uint64_t jsc_consumer_find(jsc_consumer *c, uint64_t from) {
    jsc_stream *s = c->stream;
    if (from <= c->lps_upto) {
        for (uint32_t i = lps_lower(c, from); i < c->nlps; i++)
            if (c->lps[i] >= s->first_seq && jsc_entry_live(jsc_seqs_at(&s->seqs, c->lps[i]))) return c->lps[i];
        from = c->lps_upto + 1;
    }
    if (from < s->first_seq) from = s->first_seq;
    while ((from = jsc_seqs_live_from(&s->seqs, from, s->last_seq)) <= s->last_seq) {
        if (!c->o.nfilters || match_subject(c, jsc_seqs_at(&s->seqs, from)->subject)) return from;
        from++;
    }
    return s->last_seq + 1;
}

/* Counted lazily up to the newest message; removals below that are taken off as they happen. */
uint64_t jsc_consumer_pending(jsc_consumer *c, jsc_progress *p) {
    jsc_stream *s = c->stream;
    uint64_t q = (p->counted_to > p->dseq ? p->counted_to : p->dseq) + 1;
    if (q > s->last_seq) return p->pending;
    int plain = !c->o.nfilters && q > c->lps_upto;
    while (q <= s->last_seq) {
        const jsc_entry *e = jsc_seqs_at(&s->seqs, q);
        if (!e) { /* before what is held, or beyond: after a snapshot whose newest messages are gone */
            if (!s->seqs.n || q / JSC_CHUNK > s->seqs.first) break;
            q = s->seqs.first * JSC_CHUNK;
            continue;
        }
        if (plain && q % JSC_CHUNK == 0 && q + JSC_CHUNK - 1 <= s->last_seq) {
            p->pending += s->seqs.chunk[s->seqs.off + (q / JSC_CHUNK - s->seqs.first)]->live;
            q += JSC_CHUNK;
            continue;
        }
        if (jsc_entry_live(e) && (plain || jsc_consumer_wants(c, q, e))) p->pending++;
        q++;
    }
    p->counted_to = s->last_seq;
    return p->pending;
}

void jsc_consumer_removed(jsc_stream *s, uint64_t seq, const jsc_entry *e) {
    for (jsc_consumer *c = s->consumers; c; c = c->next) {
        int wants = -1;
        for (int i = 0; i < 2; i++) {
            jsc_progress *p = i ? &c->view : &c->applied;
            if ((i && !s->leading) || seq <= p->dseq || seq > p->counted_to || !p->pending) continue;
            if (wants < 0) wants = jsc_consumer_wants(c, seq, e);
            p->pending -= (uint64_t)wants;
        }
    }
}

void jsc_consumer_subject_gone(jsc_stream *s, uint32_t subject) {
    for (jsc_consumer *c = s->consumers; c; c = c->next)
        if (subject < c->match_cap) c->match[subject] = 0;
}

int jsc_stream_wanted(jsc_stream *s, uint64_t seq, const jsc_entry *e) {
    for (jsc_consumer *c = s->consumers; c; c = c->next)
        if (jsc_consumer_wants(c, seq, e)) return 1;
    return 0;
}

/* After a purge: what is gone is no longer awaited, and positions move up to the first message. */
void jsc_consumer_purged(jsc_stream *s) {
    for (jsc_consumer *c = s->consumers; c; c = c->next)
        for (int k = 0; k < 2; k++) {
            jsc_progress *p = k ? &c->view : &c->applied;
            if (k && !s->leading) continue;
            jsc_progress_below(p, s->first_seq);
            for (uint64_t i = p->head; i < p->tail; i++) {
                jsc_pend *e = &p->ring[i & (p->cap - 1)];
                if (e->state && !jsc_entry_live(jsc_seqs_at(&s->seqs, e->seq))) jsc_progress_done(p, e);
                if (i < p->head) i = p->head - 1;
            }
        }
}

/* ---- found by id: progress records name it ---- */
static uint32_t by_id_home(const jsc_stream *s, uint64_t id) {
    return (uint32_t)((id * 0x9e3779b97f4a7c15ull) >> 32) & (s->by_id_cap - 1);
}

static uint32_t by_id_slot(const jsc_stream *s, uint64_t id) {
    uint32_t i = by_id_home(s, id);
    while (s->by_id[i] && s->by_id[i]->id != id) i = (i + 1) & (s->by_id_cap - 1);
    return i;
}

jsc_consumer *jsc_consumer_by_id(const jsc_stream *s, uint64_t id) {
    return s->nconsumers ? s->by_id[by_id_slot(s, id)] : NULL;
}

/* Room for one more. 0: no memory. */
static int by_id_room(jsc_stream *s) {
    if ((s->nconsumers + 1) * 2 <= s->by_id_cap) return 1;
    uint32_t cap = s->by_id_cap ? s->by_id_cap * 2 : 8;
    jsc_consumer **v = calloc(cap, sizeof(jsc_consumer *));
    if (!v) return 0;
    free(s->by_id);
    s->by_id = v;
    s->by_id_cap = cap;
    for (jsc_consumer *c = s->consumers; c; c = c->next) s->by_id[by_id_slot(s, c->id)] = c;
    return 1;
}

static void by_id_remove(jsc_stream *s, const jsc_consumer *c) {
    uint32_t mask = s->by_id_cap - 1, i = by_id_slot(s, c->id);
    s->by_id[i] = NULL;
    for (uint32_t j = (i + 1) & mask; s->by_id[j]; j = (j + 1) & mask) { /* close the gap */
        uint32_t home = by_id_home(s, s->by_id[j]->id);
        if (((j - home) & mask) >= ((j - i) & mask)) {
            s->by_id[i] = s->by_id[j];
            s->by_id[j] = NULL;
            i = j;
        }
    }
}

/* ---- life ---- */
static void options_free(jsc_consumer_options *o) {
    free((void *)(uintptr_t)o->backoff_ns);
    for (int i = 0; i < o->nfilters; i++) free((void *)(uintptr_t)o->filters[i]);
    free((void *)(uintptr_t)o->filters);
    free((void *)(uintptr_t)o->filter_lens);
    free((void *)(uintptr_t)o->deliver_subject);
    free((void *)(uintptr_t)o->deliver_group);
    memset(o, 0, sizeof *o);
}

static char *copy_text(const char *s, size_t n) {
    char *p = malloc(n + 1);
    JSC_ASSERT(p);
    if (n) memcpy(p, s, n);
    p[n] = 0;
    return p;
}

static void options_copy(jsc_consumer_options *to, const jsc_consumer_options *o) {
    *to = *o;
    to->backoff_ns = NULL;
    to->filters = NULL;
    to->filter_lens = NULL;
    if (o->backoffs > 0) {
        int64_t *b = malloc((size_t)o->backoffs * sizeof *b);
        JSC_ASSERT(b);
        for (int i = 0; i < o->backoffs; i++) b[i] = o->backoff_ns[i] < JSC_LONG ? o->backoff_ns[i] : JSC_LONG;
        to->backoff_ns = b;
    }
    if (o->nfilters > 0) {
        const char **f = malloc((size_t)o->nfilters * sizeof *f);
        uint32_t *l = malloc((size_t)o->nfilters * sizeof *l);
        JSC_ASSERT(f && l);
        for (int i = 0; i < o->nfilters; i++) {
            f[i] = copy_text(o->filters[i], o->filter_lens[i]);
            l[i] = o->filter_lens[i];
        }
        to->filters = f;
        to->filter_lens = l;
    }
    int64_t *durations[] = {&to->ack_wait_ns, &to->idle_heartbeat_ns, &to->inactive_threshold_ns, &to->max_expires_ns};
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++)
        if (*durations[i] > JSC_LONG) *durations[i] = JSC_LONG;
    to->deliver_subject = o->deliver_subject ? copy_text(o->deliver_subject, o->deliver_subject_len) : NULL;
    to->deliver_group = o->deliver_group ? copy_text(o->deliver_group, o->deliver_group_len) : NULL;
}

static int up(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The sequence before the first one to deliver (spec consumers §7). *rc: whether what decides about it can be read. */
static uint64_t start_position(jsc_consumer *c, int *rc) {
    jsc_stream *s = c->stream;
    uint64_t first = s->first_seq ? s->first_seq : 1, seq, best = 0;
    switch (c->o.deliver_policy) {
    case JSC_DELIVER_LAST:
        if (!c->o.nfilters) { /* the stream's last message that is still there */
            for (best = s->last_seq; best >= first && !jsc_entry_live(jsc_seqs_at(&s->seqs, best)); best--);
            return best >= first ? best - 1 : s->last_seq;
        }
        for (uint32_t i = 0; i < s->subjects.n; i++)
            if (s->subjects.a[i].name && s->subjects.a[i].last > best && match_subject(c, i))
                best = s->subjects.a[i].last;
        return best ? best - 1 : s->last_seq;
    case JSC_DELIVER_NEW: return s->last_seq;
    case JSC_DELIVER_BY_SEQ: return (c->o.opt_start_seq < first ? first : c->o.opt_start_seq) - 1;
    case JSC_DELIVER_BY_TIME:
        *rc = jsc_stream_seq_at(s, c->o.opt_start_ns, &seq);
        if (*rc == JSC_OK) return seq - 1;
        if (*rc == JSC_ENOTFOUND) *rc = JSC_OK;
        return s->last_seq;
    case JSC_DELIVER_LAST_PER_SUBJECT:
        c->lps = malloc((s->subjects.live + 1u) * sizeof *c->lps);
        JSC_ASSERT(c->lps);
        for (uint32_t i = 0; i < s->subjects.n; i++)
            if (s->subjects.a[i].name && (!c->o.nfilters || match_subject(c, i)))
                c->lps[c->nlps++] = s->subjects.a[i].last;
        qsort(c->lps, c->nlps, sizeof *c->lps, up);
        c->lps_upto = s->last_seq;
        return c->nlps ? c->lps[0] - 1 : s->last_seq;
    default: return first - 1;
    }
}

static void consumer_timer(void *ctx, int64_t mono, int64_t unix_ns) {
    jsc_consumer *c = ctx;
    if (c->stream->leading) jsc_consumer_wake(c);
}

/* An update keeps progress; a new filter counts from the current position (spec consumers §5). */
static void consumer_update(jsc_consumer *c, const jsc_consumer_options *o) {
    int leading = c->stream->leading, moved = 0;
    if (c->push && o->deliver_subject)
        moved = c->o.deliver_subject_len != o->deliver_subject_len ||
                memcmp(c->o.deliver_subject, o->deliver_subject, o->deliver_subject_len) != 0;
    options_free(&c->o);
    options_copy(&c->o, o);
    free(c->match);
    c->match = NULL;
    c->match_cap = 0;
    for (int i = 0; i < 2; i++) {
        jsc_progress *p = i ? &c->view : &c->applied;
        p->pending = 0;
        p->counted_to = p->dseq;
    }
    if (!leading) return;
    if (moved) { /* what the old subscriber has not acknowledged goes to the new one */
        c->bound = 0;
        for (uint64_t i = c->view.head; i < c->view.tail; i++)
            if (c->view.ring[i & (c->view.cap - 1)].state) jsc_consumer_ready(c, &c->view.ring[i & (c->view.cap - 1)]);
    }
    int64_t mono, unix_ns;
    jsc_streams_clock(c->stream->all, &mono, &unix_ns);
    c->active_ns = mono;
    jsc_consumer_wake(c);
}

/* Its memory; nothing points to it any more. */
static void consumer_release(jsc_consumer *c) {
    jsc_progress_free(&c->applied);
    jsc_progress_free(&c->view);
    jsc_seqheap_free(&c->timed);
    jsc_seqheap_free(&c->ready);
    jsc_bytes_free(&c->ops);
    jsc_bytes_free(&c->replies);
    options_free(&c->o);
    free(c->match);
    free(c->lps);
    free(c->name);
    free(c);
}

int jsc_consumer_new(jsc_stream *s, uint64_t id, const char *name, size_t n, int64_t created_ns,
                     const jsc_consumer_options *o, jsc_consumer **out) {
    if (!n || n > 255) return JSC_EINVAL;
    jsc_consumer *c = jsc_consumer_by_id(s, id);
    if (c) {
        if (!c->push != !o->deliver_subject) return JSC_EINVAL;
        consumer_update(c, o);
        *out = c;
        return JSC_OK;
    }
    c = by_id_room(s) ? calloc(1, sizeof *c) : NULL;
    if (!c) return -ENOMEM;
    c->stream = s;
    c->id = id;
    c->name = copy_text(name, n);
    c->name_len = (uint32_t)n;
    c->created_ns = created_ns;
    options_copy(&c->o, o);
    c->push = o->deliver_subject != NULL;
    c->timer.fire = consumer_timer;
    c->timer.ctx = c;
    c->none_due = c->report_due = c->pulls_due = JSC_NEVER;
    c->prefix_len = (uint32_t)snprintf(c->prefix, sizeof c->prefix, "$JS.ACK.%s.%s.", s->name, c->name);
    int rc = JSC_OK;
    c->applied.dseq = c->applied.fseq = c->applied.counted_to = start_position(c, &rc);
    if (rc != JSC_OK) { /* others know where it starts: this replica must not guess */
        consumer_release(c);
        return rc;
    }
    if (s->consumers_tail) s->consumers_tail->next = c;
    else s->consumers = c;
    s->consumers_tail = c;
    s->by_id[by_id_slot(s, id)] = c;
    s->nconsumers++;
    if (s->leading) jsc_consumer_lead(c);
    *out = c;
    return JSC_OK;
}

static void unlist(jsc_consumer *c) {
    jsc_streams *t = c->stream->all;
    if (c->is_active) {
        t->active_tail = NULL;
        for (jsc_consumer **p = &t->active; *p;) {
            if (*p == c) {
                *p = c->active_next;
            } else {
                t->active_tail = *p;
                p = &(*p)->active_next;
            }
        }
    }
    if (c->is_dirty)
        for (jsc_consumer **p = &t->dirty; *p; p = &(*p)->dirty_next)
            if (*p == c) {
                *p = c->dirty_next;
                break;
            }
    c->is_active = c->is_dirty = 0;
    jsc_timer_stop(&t->timers, &c->timer);
}

void jsc_consumer_free(jsc_consumer *c) {
    if (!c) return;
    jsc_stream *s = c->stream;
    if (s->leading) jsc_consumer_unlead(c, "409 Consumer Deleted", 0);
    unlist(c);
    jsc_consumer *before = NULL;
    for (jsc_consumer *x = s->consumers; x != c; x = x->next) before = x;
    *(before ? &before->next : &s->consumers) = c->next;
    if (s->consumers_tail == c) s->consumers_tail = before;
    by_id_remove(s, c);
    s->nconsumers--;
    if (s->limits.retention == JSC_RETAIN_INTEREST && !s->closing)
        for (uint64_t q = s->first_seq;
             s->messages && (q = jsc_seqs_live_from(&s->seqs, q, s->last_seq)) <= s->last_seq; q++) {
            const jsc_entry *e = jsc_seqs_at(&s->seqs, q);
            int keep = 0;
            for (jsc_consumer *x = s->consumers; x && !keep; x = x->next)
                keep =
                    (q > x->applied.dseq && jsc_consumer_wants(x, q, e)) || jsc_progress_find(&x->applied, q) != NULL;
            if (!keep) jsc_stream_remove(s, q);
        }
    consumer_release(c);
}

void jsc_consumer_lead(jsc_consumer *c) {
    jsc_stream *s = c->stream;
    jsc_plane *plane = s->all->plane;
    int64_t mono, unix_ns;
    char subject[600];
    jsc_streams_clock(s->all, &mono, &unix_ns);
    JSC_ASSERT(jsc_progress_copy(&c->view, &c->applied) == JSC_OK);
    jsc_consumer_reset_ops(c);
    c->timed.n = c->ready.n = 0;
    c->timed_scan = c->view.head;
    c->active_ns = mono;
    c->beat_due = c->o.idle_heartbeat_ns > 0 && c->push ? mono + c->o.idle_heartbeat_ns : JSC_NEVER;
    c->bind_due = c->retry_due = c->replay_due = c->report_due = c->pulls_due = JSC_NEVER;
    c->replay_ts = c->bind_wait = 0;
    c->bound = c->stalled = c->limited = c->unsure = 0;
    c->fc_window = 2u << 20;
    c->fc_out = c->fc_asked = 0;
    c->fc_subject[0] = 0;
    for (uint64_t i = c->view.head; i < c->view.tail; i++) {
        jsc_pend *e = &c->view.ring[i & (c->view.cap - 1)];
        if (!e->state) continue;
        e->due = e->ts + jsc_consumer_wait_ns(c, e->count);
        if (e->count > 1) jsc_consumer_due(c, e, e->due);
        else e->state = JSC_P_TIMED;
    }
    int n = snprintf(subject, sizeof subject, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", s->name, c->name);
    jsc_subscribe_call(plane, s->account, subject, (size_t)n, NULL, 0, 0, jsc_pull_request, c, &c->sub_next);
    if (c->o.ack_policy != JSC_ACK_NONE) {
        n = snprintf(subject, sizeof subject, "%s>", c->prefix);
        jsc_subscribe_call(plane, s->account, subject, (size_t)n, NULL, 0, 0, jsc_ack_message, c, &c->sub_ack);
    }
    if (c->push && c->o.flow_control) {
        n = snprintf(subject, sizeof subject, "$JS.FC.%s.%s.>", s->name, c->name);
        jsc_subscribe_call(plane, s->account, subject, (size_t)n, NULL, 0, 0, jsc_push_fc, c, &c->sub_fc);
    }
    jsc_consumer_wake(c);
}

void jsc_consumer_unlead(jsc_consumer *c, const char *status, int pending) {
    jsc_plane *plane = c->stream->all->plane;
    c->running = 1;
    while (c->pulls) jsc_pull_end(c, c->pulls, status, pending);
    c->running = 0;
    jsc_sub **subs[] = {&c->sub_next, &c->sub_ack, &c->sub_fc};
    for (int i = 0; i < 3; i++)
        if (*subs[i]) {
            jsc_unsubscribe(plane, *subs[i]);
            *subs[i] = NULL;
        }
    jsc_consumer_reset_ops(c);
    unlist(c);
    c->bound = 0;
}

void jsc_consumer_stat(jsc_consumer *c, jsc_consumer_state *out) {
    jsc_progress *p = jsc_consumer_now(c);
    memset(out, 0, sizeof *out);
    out->delivered_consumer = p->dcseq;
    out->delivered_stream = p->dseq;
    out->ack_floor_consumer = p->fcseq;
    out->ack_floor_stream = p->fseq;
    out->num_ack_pending = p->npending;
    out->num_redelivered = c->o.max_deliver == 1 ? 0 : p->nredelivered;
    out->num_waiting = c->npulls;
    out->num_pending = jsc_consumer_pending(c, p);
    out->last_delivered_ns = p->delivered_ns;
    out->last_ack_ns = p->ack_ns;
    if (c->push && c->stream->leading)
        out->push_bound =
            jsc_interest(c->stream->all->plane, c->stream->account, c->o.deliver_subject, c->o.deliver_subject_len) > 0;
}
