/* What clients send to consumers and streams, and records of a hostile leader, against a stream with consumers behind the
 * real plane. First byte: which of them. */
#include "../internal.h"
#include "../../base/fuzz/driver.h"

typedef struct bed {
    jsc_sim *sim;
    jsc_store *store;
    jsc_log *log;
    jsc_plane *plane;
    jsc_streams *all;
    jsc_stream *s;
    jsc_account *a;
    jsc_sub *sub;
    int rounds;
} bed;

static uint64_t heard;
static void hear(void *ctx, const jsc_msg *m) { heard += m->subject_len + m->data_len; }

static void open_bed(bed *b) {
    static const jsc_stream_limits limits = {.max_msgs = 500,
                                             .max_bytes = -1,
                                             .max_msgs_per_subject = -1,
                                             .max_msg_size = -1,
                                             .duplicate_window_ns = 120000000000ll,
                                             .file_storage = 1,
                                             .allow_rollup = 1};
    static const char *subject = "s.>", *filter = "s.a.*";
    static const uint32_t len = 3, filter_len = 5;
    jsc_log_recovery rec;
    jsc_consumer *c;
    memset(b, 0, sizeof *b);
    b->sim = jsc_sim_new(1);
    if (jsc_store_open(jsc_sim_vfs(b->sim), JSC_SYNC_NEVER, 0, &b->store) ||
        jsc_log_open(b->store, "log", NULL, &b->log, &rec) || jsc_plane_new(NULL, &b->plane) ||
        jsc_streams_new(b->plane, b->store, &b->all))
        abort();
    b->a = jsc_plane_account(b->plane, "$G", 2);
    if (jsc_stream_new(b->all, b->log, 1, b->a, "S", 1, &b->s) || jsc_stream_configure(b->s, &limits) ||
        jsc_stream_subjects(b->s, &subject, &len, 1))
        abort();
    jsc_stream_solo(b->s, 1);
    jsc_stream_lead(b->s, 1);
    jsc_consumer_options o = {
        .ack_policy = JSC_ACK_EXPLICIT, .max_deliver = 5, .max_ack_pending = 1000, .max_waiting = 16};
    if (jsc_consumer_new(b->s, 1, "C", 1, 0, &o, &c)) abort();
    o.ack_policy = JSC_ACK_ALL;
    o.filters = &filter;
    o.filter_lens = &filter_len;
    o.nfilters = 1;
    if (jsc_consumer_new(b->s, 2, "D", 1, 0, &o, &c)) abort();
    o.ack_policy = JSC_ACK_NONE;
    if (jsc_consumer_new(b->s, 3, "E", 1, 0, &o, &c)) abort();
    if (jsc_subscribe_call(b->plane, b->a, "_INBOX.>", 8, NULL, 0, 0, hear, NULL, &b->sub)) abort();
}

static void close_bed(bed *b) {
    jsc_streams_free(b->all);
    jsc_log_close(b->log);
    jsc_store_close(b->store);
    jsc_plane_free(b->plane);
    jsc_sim_free(b->sim);
}

static void turn(bed *b) {
    jsc_ready r[4];
    jsc_plane_flush(b->plane);
    jsc_log_wait(b->log, jsc_log_last(b->log), 5000000000ll);
    jsc_plane_poll(b->plane, 0, r, 4);
    for (jsc_event e; jsc_plane_next(b->plane, &e); jsc_event_done(&e)) {
    }
}

static void pub(bed *b, const char *subject, const char *headers, size_t hn, const char *data, size_t n) {
    jsc_msg m = {.account = b->a,
                 .subject = subject,
                 .subject_len = (uint32_t)strlen(subject),
                 .reply = "_INBOX.x",
                 .reply_len = 8,
                 .headers = headers,
                 .headers_len = (uint32_t)hn,
                 .data = data,
                 .data_len = (uint32_t)n};
    jsc_publish(b->plane, &m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static bed b;
    if (!n || n > 60000) return 0;
    if (!b.s) {
        open_bed(&b);
        for (int i = 0; i < 40; i++) pub(&b, i % 2 ? "s.a.1" : "s.b.2", NULL, 0, "hello", 5);
        turn(&b);
    }
    char *p = malloc(n); /* exactly as long as it says */
    memcpy(p, data + 1, --n);
    uint64_t index;
    char subject[64];
    switch (data[0] % 8) {
    case 0:
        pub(&b, data[0] & 8 ? "$JS.API.CONSUMER.MSG.NEXT.S.C" : "$JS.API.CONSUMER.MSG.NEXT.S.D", NULL, 0, p, n);
        break;
    case 1: pub(&b, "$JS.API.CONSUMER.MSG.NEXT.S.E", p, n, "3", 1); break;
    case 2: /* an ack's body */
        snprintf(subject, sizeof subject, "$JS.ACK.S.%c.1.%u.1.1.0", data[0] & 8 ? 'C' : 'D',
                 (unsigned)(data[0] >> 4) + 1);
        pub(&b, subject, NULL, 0, p, n);
        break;
    case 3: { /* an ack's subject */
        char *ack = malloc(n + 10);
        memcpy(ack, "$JS.ACK.S.", 10);
        memcpy(ack + 10, p, n);
        jsc_msg m = {.account = b.a, .subject = ack, .subject_len = (uint32_t)n + 10, .data = "+ACK", .data_len = 4};
        if (jsc_subject_valid(ack, n + 10, 1)) jsc_publish(b.plane, &m);
        free(ack);
        break;
    }
    case 4: pub(&b, "s.a.1", p, n, "x", 1); break;
    case 5: jsc_stream_propose(b.s, JSC_K_CONSUMER_STATE, p, n, &index); break;
    case 6:
        if (data[0] & 16) jsc_stream_append(b.s, JSC_K_MOVED, "s.a.2", 5, NULL, 0, p, n, &index);
        else jsc_stream_propose(b.s, data[0] & 8 ? JSC_K_PURGE : JSC_K_DELETE, p, n, &index);
        break;
    default: pub(&b, "s.a.2", NULL, 0, p, n); break;
    }
    free(p);
    turn(&b);
    if (b.rounds % 50 == 49) jsc_stream_move(b.s, UINT64_MAX, 1000);
    if (++b.rounds == 2000) {
        close_bed(&b);
        memset(&b, 0, sizeof b);
    }
    return 0;
}

#define SEED(kind, s) {kind, s, sizeof(s) - 1}
static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    static const struct {
        char kind;
        const char *s;
        size_t n;
    } seeds[] = {
        SEED(
            0,
            "{\"batch\":5,\"expires\":1000000,\"no_wait\":true,\"max_bytes\":100,\"idle_heartbeat\":1000,\"x\":[{\"y\":"
            "null},1.5e3]}"),
        SEED(8, "17"),
        SEED(1, "NATS/1.0\r\nNats-Required-Api-Level: 0\r\n\r\n"),
        SEED(2, "-NAK {\"delay\": 1000}"),
        SEED(26, "-NAK 1h1m1.5s"),
        SEED(10, "+NXT {\"batch\":2,\"no_wait\":true}"),
        SEED(34, "+WPI"),
        SEED(22, "moved\1\0\0\0\0\0\0\0"),
        SEED(3, "C.1.2.3.4.5"),
        SEED(3, "D.1.2.3.4.5.6.7"),
        SEED(4,
             "NATS/1.0\r\nNats-Msg-Id: 1\r\nNats-Expected-Last-Sequence: 7\r\nNats-Rollup: sub\r\nNats-Request-Info: "
             "{}\r\n\r\n"),
        SEED(4, "NATS/1.0 503 x\r\nNats-Expected-Last-Subject-Sequence: 9\r\nNats-Expected-Stream: S\r\nA:b\r\n\r\n"),
        SEED(5, "\1\1\1\1\4\200\1\2\1\1\3\2\1\5\3\1"),
        SEED(5, "\1\3\6\5\2\200\1\4\7\1"),
        SEED(6, "\1\5\0\0\0\0\0\0\0"),
        SEED(14, "\1\1\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\5\0s.a.*"),
        SEED(14, "\1\2\3\0\0\0\0\0\0\0"),
        SEED(7, "hello"),
    };
    p->lead = 1;
    p->draw[0] = 0xf0;
    p->likes = "0123456789{}[]\":,.-+ \r\nenNT";
    p->nlikes = strlen(p->likes);
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) jsc_fuzz_add(p, &seeds[i].kind, seeds[i].s, seeds[i].n);
}
