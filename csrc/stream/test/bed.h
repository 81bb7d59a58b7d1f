/* A stream over a log on a simulated disk, with a plane and a clock that the test drives; and random histories. */
#ifndef JSC_STREAM_BED_H
#define JSC_STREAM_BED_H
#include "../internal.h"
#include "fake_plane.h"

#define HELPER __attribute__((unused)) static
static int failures;
#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #x);                                                    \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)
#define CHECK_TEXT(got, want)                                                                                          \
    do {                                                                                                               \
        const char *g_ = (got);                                                                                        \
        if (strcmp(g_, want)) {                                                                                        \
            fprintf(stderr, "%s:%d: got  %s\n   want %s\n", __func__, __LINE__, g_, want);                             \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

typedef struct bed {
    jsc_sim *sim;
    jsc_store *store;
    jsc_log *log;
    jsc_plane *plane;
    jsc_streams *all;
    jsc_stream *s;
    int64_t mono, unix_ns;
    jsc_log_options options;
} bed;

HELPER const jsc_stream_limits plain = {.max_msgs = -1,
                                        .max_bytes = -1,
                                        .max_msgs_per_subject = -1,
                                        .max_msg_size = -1,
                                        .duplicate_window_ns = 120000000000ll,
                                        .file_storage = 1,
                                        .allow_rollup = 1};

HELPER void bed_open(bed *b, const jsc_stream_limits *l) {
    jsc_log_recovery rec;
    int rc = jsc_store_open(jsc_sim_vfs(b->sim), JSC_SYNC_ALWAYS, 0, &b->store);
    if (rc == JSC_OK) rc = jsc_log_open(b->store, "log", &b->options, &b->log, &rec);
    if (rc != JSC_OK) {
        fprintf(stderr, "cannot open the log: %d\n", rc);
        exit(1);
    }
    b->plane = fake_plane_new();
    b->mono = 1000000000;
    fake_clock(b->plane, b->mono, b->unix_ns);
    jsc_streams_new(b->plane, b->store, &b->all);
    jsc_stream_new(b->all, b->log, 11, jsc_plane_account(b->plane, "$G", 2), "S", 1, &b->s);
    const char *subj = "s.>";
    uint32_t len = 3;
    jsc_stream_subjects(b->s, &subj, &len, 1);
    jsc_stream_configure(b->s, l);
    fake_listen(b->plane, "_INBOX.>");
}

HELPER void bed_new(bed *b, const jsc_stream_limits *l) {
    memset(b, 0, sizeof *b);
    b->sim = jsc_sim_new(1);
    b->unix_ns = 1700000000000000000ll;
    bed_open(b, l);
    jsc_stream_solo(b->s, 1);
    jsc_stream_lead(b->s, 1);
}

HELPER void bed_close(bed *b) {
    jsc_streams_free(b->all);
    jsc_log_close(b->log);
    jsc_store_close(b->store);
    jsc_plane_free(b->plane);
}

HELPER void bed_free(bed *b) {
    bed_close(b);
    jsc_sim_free(b->sim);
}

/* Turns until everything framed is durable and applied and nothing more is due now. */
HELPER int64_t settle(bed *b) {
    int64_t due = 0;
    for (int i = 0; i < 50; i++) {
        due = fake_turn(b->plane);
        uint64_t last = jsc_log_last(b->log);
        jsc_log_wait(b->log, last, 5000000000ll);
        fake_store(b->plane);
        if (jsc_stream_applied(b->s) == last && jsc_log_last(b->log) == last && due > b->mono && !b->all->active) break;
    }
    return due;
}

HELPER void later(bed *b, int64_t ns) {
    b->mono += ns;
    b->unix_ns += ns;
    fake_clock(b->plane, b->mono, b->unix_ns);
    settle(b);
}

static const fake_got *last_got(bed *b) {
    static fake_got none = {"", "", "", "", ""};
    const fake_got *g;
    int n = fake_inbox(b->plane, &g);
    return n ? &g[n - 1] : &none;
}

HELPER const char *pub(bed *b, const char *subject, const char *headers, const char *data) {
    fake_clear(b->plane);
    fake_pub(b->plane, subject, "_INBOX.ack", headers, data);
    settle(b);
    return last_got(b)->data;
}

HELPER void digest_add(uint64_t *d, uint64_t v) { *d = (*d ^ v) * 0x9e3779b97f4a7c15ull, *d ^= *d >> 29; }
HELPER int digest_subject(void *ctx, const char *s, size_t n, uint64_t count, uint64_t last) {
    *(uint64_t *)ctx += jsc_hash(s, n) * (count * 31 + last); /* order-free */
    return 0;
}

HELPER uint64_t digest(jsc_stream *s) {
    uint64_t d = 1, sub = 0;
    jsc_stream_state st;
    jsc_stream_stat(s, &st);
    uint64_t v[] = {st.messages,     st.bytes,       st.first_seq,          st.last_seq,
                    st.num_subjects, st.num_deleted, (uint64_t)st.first_ts, (uint64_t)st.last_ts,
                    s->applied};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) digest_add(&d, v[i]);
    jsc_stream_subject_counts(s, ">", 1, digest_subject, &sub);
    digest_add(&d, sub);
    digest_add(&d, s->last_msg_index);
    for (uint64_t i = s->dedupe.head; i < s->dedupe.tail; i++) {
        const struct jsc_seen *x = &s->dedupe.ring[i & (s->dedupe.cap - 1)];
        digest_add(&d, x->hash + x->index * 31 + x->seq * 7 + (uint64_t)x->ts);
    }
    for (uint64_t q = st.first_seq; q <= st.last_seq && st.messages; q++) {
        jsc_record r;
        if (jsc_stream_get(s, q, &r) != JSC_OK) continue;
        digest_add(&d, q ^ r.index << 20);
        digest_add(&d, jsc_hash(r.data, r.data_len) ^ (uint64_t)r.ts);
    }
    for (jsc_consumer *c = s->consumers; c; c = c->next) {
        jsc_progress *p = &c->applied;
        uint64_t w[] = {p->dseq,
                        p->dcseq,
                        p->fseq,
                        p->fcseq,
                        p->npending,
                        p->nredelivered,
                        (uint64_t)p->delivered_ns,
                        (uint64_t)p->ack_ns,
                        jsc_consumer_pending(c, p)};
        for (size_t i = 0; i < sizeof w / sizeof *w; i++) digest_add(&d, w[i]);
        for (uint64_t i = p->head; i < p->tail; i++) {
            const jsc_pend *e = &p->ring[i & (p->cap - 1)];
            if (e->state) digest_add(&d, e->seq * 31 + e->cseq * 7 + e->count + (uint64_t)e->ts);
        }
    }
    return d;
}

HELPER const jsc_consumer_options explicit_pull = {.ack_policy = JSC_ACK_EXPLICIT,
                                                   .ack_wait_ns = 1000000000,
                                                   .max_deliver = -1,
                                                   .max_ack_pending = 1000,
                                                   .max_waiting = 512};

/* ---- a random history ---- */
static uint64_t rng = 88172645463325252ull;
HELPER uint32_t roll(uint32_t n) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)(rng % n);
}

static const char *odd = "s.1.*";
static const uint32_t odd_len = 5;
HELPER void add_consumers(jsc_stream *s) {
    jsc_consumer *c;
    jsc_consumer_options o = explicit_pull, p = explicit_pull, q = explicit_pull;
    jsc_consumer_new(s, 1, "C", 1, 0, &o, &c);
    p.filters = &odd;
    p.filter_lens = &odd_len;
    p.nfilters = 1;
    p.max_deliver = 3;
    jsc_consumer_new(s, 2, "D", 1, 0, &p, &c);
    q.ack_policy = JSC_ACK_NONE;
    jsc_consumer_new(s, 3, "E", 1, 0, &q, &c);
}

HELPER void history(bed *b, int steps) {
    char subject[32], text[64], headers[96];
    for (int i = 0; i < steps; i++) {
        snprintf(subject, sizeof subject, "s.%u.%u", roll(2), roll(9));
        switch (roll(12)) {
        default:
            snprintf(text, sizeof text, "%u", roll(1000000));
            snprintf(headers, sizeof headers, "NATS/1.0\r\nNats-Msg-Id: %u\r\n\r\n", roll(500));
            fake_pub(b->plane, subject, "_INBOX.a", roll(3) ? NULL : headers, text);
            break;
        case 0:
            jsc_stream_delete(b->s, b->s->last_seq ? b->s->last_seq - roll(20) % b->s->last_seq : 1, "_INBOX.d", 8);
            break;
        case 1:
            if (!roll(6)) jsc_stream_purge(b->s, subject, strlen(subject), 0, roll(3), "_INBOX.d", 8);
            break;
        case 2:
        case 3: {
            char next[64];
            snprintf(next, sizeof next, "$JS.API.CONSUMER.MSG.NEXT.S.%c", "CDE"[roll(3)]);
            fake_pub(b->plane, next, "_INBOX.pull", NULL, roll(2) ? "7" : "{\"batch\":3,\"expires\":100000000}");
            break;
        }
        case 4: {
            const fake_got *g;
            int n = fake_inbox(b->plane, &g);
            if (n) {
                const fake_got *x = &g[roll((uint32_t)n)];
                if (!strncmp(x->reply, "$JS.ACK.S.", 10)) {
                    char *to = strdup(x->reply);
                    static const char *words[] = {"+ACK", "+ACK", "-NAK", "+WPI", "+TERM", "-NAK 10ms"};
                    fake_pub(b->plane, to, roll(2) ? "_INBOX.double" : NULL, NULL, words[roll(6)]);
                    free(to);
                }
            }
            break;
        }
        case 5: later(b, 1000000 * (int64_t)roll(400)); break;
        case 6:
            if (!roll(4)) CHECK(jsc_stream_move(b->s, jsc_log_last(b->log), roll(3) ? 400 : 100000) >= 0);
            break;
        }
        if (!roll(20)) settle(b);
    }
    settle(b);
}

#endif
