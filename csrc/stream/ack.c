/* Acknowledgements, and the clock of what waits for one (spec consumers §9, §10). */
#include "internal.h"

int64_t jsc_consumer_wait_ns(const jsc_consumer *c, uint32_t count) {
    if (c->o.backoffs > 0) {
        uint32_t i = count ? count - 1 : 0;
        return c->o.backoff_ns[i < (uint32_t)c->o.backoffs ? i : (uint32_t)c->o.backoffs - 1];
    }
    return c->o.ack_wait_ns > 0 ? c->o.ack_wait_ns : 30000000000ll;
}

/* Heaps keep stale keys; they are rebuilt before those outnumber what is pending by far. */
static void heap_tidy(jsc_consumer *c, jsc_seqheap *h, uint8_t state) {
    if (h->n < 1024 || h->n / 4 < c->view.npending) return;
    h->n = 0;
    for (uint64_t i = c->view.head; i < c->view.tail; i++) {
        const jsc_pend *e = &c->view.ring[i & (c->view.cap - 1)];
        if (e->state == state) jsc_seqheap_push(h, state == JSC_P_READY ? (int64_t)e->seq : e->due, e->seq);
    }
}

void jsc_consumer_due(jsc_consumer *c, jsc_pend *e, int64_t due) {
    heap_tidy(c, &c->timed, JSC_P_HEAPED);
    e->due = due;
    e->state = JSC_P_HEAPED;
    JSC_ASSERT(jsc_seqheap_push(&c->timed, due, e->seq) == JSC_OK);
}

void jsc_consumer_ready(jsc_consumer *c, jsc_pend *e) {
    if (c->o.max_deliver > 0 && e->count >= (uint64_t)c->o.max_deliver) {
        jsc_ops_add(c, JSC_OP_DROP, e->seq, 0);
        jsc_progress_done(&c->view, e);
        return;
    }
    if (e->state == JSC_P_READY) return;
    heap_tidy(c, &c->ready, JSC_P_READY);
    e->state = JSC_P_READY;
    JSC_ASSERT(jsc_seqheap_push(&c->ready, (int64_t)e->seq, e->seq) == JSC_OK);
}

/* The first entry whose wait runs from its first delivery; their due times rise with the ring. NULL when none. */
static jsc_pend *first_timed(jsc_consumer *c) {
    jsc_progress *p = &c->view;
    if (c->timed_scan < p->head) c->timed_scan = p->head;
    while (c->timed_scan < p->tail) {
        jsc_pend *e = &p->ring[c->timed_scan & (p->cap - 1)];
        if (e->state == JSC_P_TIMED) return e;
        c->timed_scan++;
    }
    return NULL;
}

static jsc_pend *first_heaped(jsc_consumer *c) {
    while (c->timed.n) {
        jsc_pend *e = jsc_progress_find(&c->view, c->timed.a[0].seq);
        if (e && e->state == JSC_P_HEAPED && e->due == c->timed.a[0].key) return e;
        jsc_seqheap_pop(&c->timed);
    }
    return NULL;
}

void jsc_consumer_expire(jsc_consumer *c, int64_t now) {
    jsc_pend *e;
    while ((e = first_timed(c)) && e->due <= now) jsc_consumer_ready(c, e);
    while ((e = first_heaped(c)) && e->due <= now) {
        jsc_seqheap_pop(&c->timed);
        jsc_consumer_ready(c, e);
    }
}

int64_t jsc_consumer_next_due(jsc_consumer *c) {
    jsc_pend *a = first_timed(c), *b = first_heaped(c);
    int64_t due = a ? a->due : JSC_NEVER;
    return b && b->due < due ? b->due : due;
}

/* A Go duration such as 1m30s or 1.5h, in ns. 0 when it is not one. */
static int go_duration(const char *s, size_t n, int64_t *out) {
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"ns", 1},   {"us", 1e3}, {"\xc2\xb5s", 1e3}, {"\xce\xbcs", 1e3},
                 {"ms", 1e6}, {"s", 1e9},  {"m", 60e9},        {"h", 3600e9}};
    double total = 0;
    size_t i = 0;
    if (!n) return 0;
    while (i < n) {
        double v = 0, scale = 1;
        int digits = 0, dot = 0;
        for (; i < n && ((s[i] >= '0' && s[i] <= '9') || s[i] == '.'); i++) {
            if (s[i] == '.') {
                if (dot++) return 0;
                continue;
            }
            digits++;
            if (dot) v += (s[i] - '0') * (scale /= 10);
            else v = v * 10 + (s[i] - '0');
        }
        if (!digits) return 0;
        size_t from = i;
        while (i < n && s[i] != '.' && (s[i] < '0' || s[i] > '9')) i++;
        size_t k = 0, count = sizeof units / sizeof *units;
        for (; k < count; k++)
            if (strlen(units[k].unit) == i - from && !memcmp(units[k].unit, s + from, i - from)) break;
        if (k == count) return 0;
        total += v * units[k].ns;
    }
    if (total > (double)JSC_LONG) return 0;
    *out = (int64_t)total;
    return 1;
}

/* The delay of -NAK: nothing, a Go duration, or {"delay": ns}; anything else counts as nothing. */
static int64_t nak_delay(const char *s, size_t n) {
    int64_t ns;
    while (n && (*s == ' ' || *s == '\t')) s++, n--;
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\n' || s[n - 1] == '\r')) n--;
    if (!n) return 0;
    if (*s == '{') {
        static const char key[] = "\"delay\"";
        for (size_t i = 0; i + sizeof key - 1 < n; i++)
            if (!memcmp(s + i, key, sizeof key - 1)) {
                i += sizeof key - 1;
                while (i < n && (s[i] == ' ' || s[i] == ':')) i++;
                size_t from = i;
                while (i < n && s[i] >= '0' && s[i] <= '9') i++;
                uint64_t v;
                return jsc_parse_u64(s + from, i - from, &v) && v < (uint64_t)JSC_LONG ? (int64_t)v : 0;
            }
        return 0;
    }
    return go_duration(s, n, &ns) ? ns : 0;
}

/* Takes the message out of pending. ACK with policy all covers everything below. */
static void acknowledge(jsc_consumer *c, uint64_t seq, int64_t now) {
    jsc_progress *p = &c->view;
    if (c->o.ack_policy == JSC_ACK_ALL) {
        if (p->head < p->tail && p->ring[p->head & (p->cap - 1)].seq <= seq) {
            jsc_ops_add(c, JSC_OP_ACK_ALL, seq, 0);
            while (p->head < p->tail && p->ring[p->head & (p->cap - 1)].seq <= seq)
                jsc_progress_done(p, &p->ring[p->head & (p->cap - 1)]);
            p->ack_ns = now;
        }
        return;
    }
    jsc_pend *e = jsc_progress_find(p, seq);
    if (e) {
        jsc_ops_add(c, JSC_OP_ACK, seq, 0);
        jsc_progress_done(p, e);
        p->ack_ns = now;
    }
}

static int starts(const jsc_msg *m, const char *word) {
    size_t n = strlen(word);
    return m->data_len >= n && !memcmp(m->data, word, n);
}

void jsc_ack_message(void *ctx, const jsc_msg *m) {
    jsc_consumer *c = ctx;
    jsc_stream *s = c->stream;
    if (!s->leading || c->running || m->subject_len <= c->prefix_len) return;
    /* after the prefix: num delivered . stream seq . consumer seq . ts . pending */
    const char *p = m->subject + c->prefix_len, *end = m->subject + m->subject_len;
    const char *dot = memchr(p, '.', (size_t)(end - p));
    if (!dot) return;
    const char *from = dot + 1, *to = memchr(from, '.', (size_t)(end - from));
    uint64_t seq;
    if (!to || !jsc_parse_u64(from, (size_t)(to - from), &seq) || !seq || seq > c->view.dseq) return;
    int64_t mono, now;
    jsc_streams_clock(s->all, &mono, &now);
    c->active_ns = mono;
    int next = 0;
    jsc_pend *e;
    if (!m->data_len || starts(m, "+ACK") || starts(m, "+OK") || starts(m, "+TERM")) {
        acknowledge(c, seq, now);
    } else if (starts(m, "+NXT")) {
        acknowledge(c, seq, now);
        next = 1;
    } else if (starts(m, "-NAK")) {
        if ((e = jsc_progress_find(&c->view, seq)) && e->state != JSC_P_READY) {
            int64_t delay = nak_delay(m->data + 4, m->data_len - 4u);
            if (delay > 0) jsc_consumer_due(c, e, now + delay);
            else jsc_consumer_ready(c, e);
        }
    } else if (starts(m, "+WPI") && m->data_len == 4) {
        if ((e = jsc_progress_find(&c->view, seq)) && e->state != JSC_P_READY)
            jsc_consumer_due(c, e, now + jsc_consumer_wait_ns(c, e->count));
    }
    if (next) {
        const char *body = m->data + 4;
        size_t n = m->data_len - 4u;
        while (n && *body == ' ') body++, n--;
        if (m->reply_len) jsc_pull_ask(c, m->reply, m->reply_len, body, n);
    } else if (m->reply_len && m->reply_len <= UINT16_MAX) {
        uint8_t head[2] = {(uint8_t)m->reply_len, (uint8_t)(m->reply_len >> 8)};
        if (c->replies.n < (1u << 20) && jsc_bytes_add(&c->replies, head, 2) == JSC_OK &&
            jsc_bytes_add(&c->replies, m->reply, m->reply_len) != JSC_OK)
            c->replies.n -= 2;
        jsc_consumer_mark_dirty(c);
    }
    jsc_consumer_wake(c);
}
