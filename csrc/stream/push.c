/* Push consumers: whether somebody listens, heartbeats, and the flow-control window (spec consumers §14). */
#include "internal.h"

#define FC_WINDOW_MAX (32ull << 20)
#define BIND_FIRST_NS 500000
#define BIND_LAST_NS 16000000

int jsc_push_bound(jsc_consumer *c, int64_t mono) {
    jsc_stream *s = c->stream;
    int before = c->bound;
    c->bound = jsc_interest(s->all->plane, s->account, c->o.deliver_subject, c->o.deliver_subject_len) > 0;
    if (c->bound && !before) { /* a new subscriber owes nothing for what an old one got */
        c->fc_out = c->fc_asked = 0;
        c->fc_subject[0] = 0;
        c->fc_window = 2u << 20;
        c->stalled = 0;
        if (c->o.idle_heartbeat_ns > 0) c->beat_due = mono + c->o.idle_heartbeat_ns;
    }
    if (c->bound) c->active_ns = mono;
    /* Clients often subscribe right after the creation was answered: looked at soon at first, then ever less often. */
    c->bind_wait = c->bound                      ? 0
                   : !c->bind_wait               ? BIND_FIRST_NS
                   : c->bind_wait < BIND_LAST_NS ? 2 * c->bind_wait
                                                 : c->bind_wait;
    c->bind_due = mono + (c->bound ? 1000000000 : c->bind_wait);
    return c->bound;
}

static size_t fc_full(const jsc_consumer *c, char *out, size_t cap) {
    return (size_t)snprintf(out, cap, "$JS.FC.%s.%s.%s", c->stream->name, c->name, c->fc_subject);
}

void jsc_push_sent(jsc_consumer *c, uint64_t bytes, int64_t mono) {
    if (c->o.idle_heartbeat_ns > 0) c->beat_due = mono + c->o.idle_heartbeat_ns;
    if (!c->o.flow_control) return;
    c->fc_out += bytes;
    c->stalled = c->fc_out >= c->fc_window;
    if (c->fc_subject[0] || c->fc_out <= c->fc_window / 2) return;
    static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint64_t r = jsc_streams_random(c->stream->all);
    for (int i = 0; i < 4; i++, r /= 62) c->fc_subject[i] = alphabet[r % 62];
    c->fc_subject[4] = 0;
    c->fc_asked = c->fc_out;
    char reply[600];
    size_t rn = fc_full(c, reply, sizeof reply);
    static const char head[] = "NATS/1.0 100 FlowControl Request\r\n\r\n";
    jsc_msg m = {.account = c->stream->account,
                 .subject = c->o.deliver_subject,
                 .subject_len = c->o.deliver_subject_len,
                 .reply = reply,
                 .reply_len = (uint32_t)rn,
                 .headers = head,
                 .headers_len = sizeof head - 1};
    jsc_publish(c->stream->all->plane, &m);
}

void jsc_push_fc(void *ctx, const jsc_msg *m) {
    jsc_consumer *c = ctx;
    char subject[600];
    size_t n = fc_full(c, subject, sizeof subject);
    if (c->running || !c->fc_subject[0] || m->subject_len != n || memcmp(m->subject, subject, n))
        return; /* an old one, answered twice: harmless */
    c->fc_subject[0] = 0;
    c->fc_out -= c->fc_asked < c->fc_out ? c->fc_asked : c->fc_out;
    c->fc_asked = 0;
    if (c->fc_window < FC_WINDOW_MAX) c->fc_window *= 2;
    c->stalled = c->fc_out >= c->fc_window;
    int64_t mono, unix_ns;
    jsc_streams_clock(c->stream->all, &mono, &unix_ns);
    c->active_ns = mono;
    jsc_consumer_wake(c);
}

void jsc_push_beat(jsc_consumer *c, int64_t mono) {
    char more[800];
    int n = snprintf(more, sizeof more, "Nats-Last-Consumer: %llu\r\nNats-Last-Stream: %llu\r\n",
                     (unsigned long long)c->view.dcseq, (unsigned long long)c->view.dseq);
    if (c->stalled && c->fc_subject[0]) {
        char subject[600];
        fc_full(c, subject, sizeof subject);
        snprintf(more + n, sizeof more - (size_t)n, "Nats-Consumer-Stalled: %s\r\n", subject);
    }
    jsc_consumer_status(c, c->o.deliver_subject, c->o.deliver_subject_len, "100 Idle Heartbeat", more);
    c->beat_due = mono + c->o.idle_heartbeat_ns;
}
