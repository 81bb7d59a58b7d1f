/* Streams and consumers over a real log on a simulated disk, with a plane and a clock the test drives. */
#include "bed.h"
#include "fake_plane.h"

/* ---- streams ---- */
static void test_publish_is_acked_with_its_sequence(void) {
    bed b;
    bed_new(&b, &plain);
    CHECK_TEXT(pub(&b, "s.a", NULL, "one"), "{\"stream\":\"S\",\"seq\":1}");
    CHECK_TEXT(pub(&b, "s.b", NULL, "two"), "{\"stream\":\"S\",\"seq\":2}");
    jsc_record r;
    uint64_t seq;
    CHECK(jsc_stream_get(b.s, 1, &r) == JSC_OK && r.data_len == 3 && !memcmp(r.data, "one", 3));
    CHECK(jsc_stream_last(b.s, "s.*", 3, &seq, &r) == JSC_OK && seq == 2);
    CHECK(jsc_stream_next(b.s, "s.b", 3, 1, &seq, &r) == JSC_OK && seq == 2);
    CHECK(jsc_stream_next(b.s, "s.a", 3, 2, &seq, &r) == JSC_ENOTFOUND);
    CHECK(jsc_stream_seq_at(b.s, r.ts, &seq) == JSC_OK && seq == 2);
    jsc_stream_state st;
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 2 && st.bytes == 2 * (30 + 3 + 3) && st.num_subjects == 2 && st.first_seq == 1);
    bed_free(&b);
}

static void test_rules_of_headers(void) {
    bed b;
    bed_new(&b, &plain);
    CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n", "1"), "{\"stream\":\"S\",\"seq\":1}");
    CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n", "1"),
               "{\"stream\":\"S\",\"seq\":1,\"duplicate\": true}");
    CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-Expected-Last-Msg-Id: y\r\n\r\n", "1"),
               "{\"error\":{\"code\":400,\"err_code\":10070,\"description\":\"wrong last msg ID: "
               "x\"},\"stream\":\"S\",\"seq\":0}");
    CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-Expected-Last-Msg-Id: x\r\n\r\n", "1"), "{\"stream\":\"S\",\"seq\":2}");
    CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-Expected-Last-Sequence: 7\r\n\r\n", "1"),
               "{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong last sequence: "
               "2\"},\"stream\":\"S\",\"seq\":0}");
    CHECK_TEXT(pub(&b, "s.b", "NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n", "1"),
               "{\"stream\":\"S\",\"seq\":3}");
    CHECK_TEXT(pub(&b, "s.b", "NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n", "1"),
               "{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong last sequence: "
               "3\"},\"stream\":\"S\",\"seq\":0}");
    CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-Expected-Stream: T\r\n\r\n", "1"),
               "{\"error\":{\"code\":400,\"err_code\":10060,\"description\":\"expected stream does not "
               "match\"},\"stream\":\"S\",\"seq\":0}");
    CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-TTL: 5s\r\n\r\n", "1"),
               "{\"error\":{\"code\":400,\"err_code\":10166,\"description\":\"per-message TTL is "
               "disabled\"},\"stream\":\"S\",\"seq\":0}");
    CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n", "1"), "{\"stream\":\"S\",\"seq\":4}");
    jsc_stream_state st;
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 2 && st.first_seq == 3);
    later(&b, 121000000000ll); /* the id is forgotten after the window */
    CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n", "1"), "{\"stream\":\"S\",\"seq\":5}");
    bed_free(&b);
}

/* One bit in the log's file, at a text that only one record has. Again: the bit is back. */
static int64_t flip(bed *b, const char *text, int64_t at) {
    for (int i = 0; i < 2; i++) jsc_store_relax(b->store); /* reads come from the disk now */
    const char *file = "log/0000000000000001.seg";
    char bytes[8192];
    int64_t n = jsc_sim_read(b->sim, file, 0, bytes, sizeof bytes), k = (int64_t)strlen(text);
    while (k && at + k < n && memcmp(bytes + at, text, (size_t)k)) at++;
    CHECK(at + k < n && jsc_sim_flip(b->sim, file, (uint64_t)at, 0) == 0);
    return at;
}

/* A replica that guessed would go on with other sequences than the others: it waits until the record is repaired. */
static void test_a_decision_by_a_damaged_record_waits_for_its_repair(void) {
    static const char *const asked[] = {"NATS/1.0\r\nNats-Expected-Last-Msg-Id: x\r\n\r\n",
                                        "NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n"},
                             *const told[] = {"{\"stream\":\"S\",\"seq\":2}",
                                              "{\"stream\":\"S\",\"seq\":1,\"duplicate\": true}"};
    for (int k = 0; k < 2; k++) {
        bed b;
        bed_new(&b, &plain);
        CHECK_TEXT(pub(&b, "s.a", "NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n", "one"), "{\"stream\":\"S\",\"seq\":1}");
        jsc_stream_solo(b.s, 0);
        pub(&b, "s.a", asked[k], "two");
        int64_t at = flip(&b, "one", 0);
        for (int i = 0; i < 2; i++) CHECK(jsc_stream_commit(b.s, 2) == JSC_ECORRUPT && jsc_stream_applied(b.s) == 1);
        flip(&b, "", at);
        CHECK(jsc_stream_commit(b.s, 2) == JSC_OK && jsc_stream_applied(b.s) == 2);
        CHECK_TEXT(last_got(&b)->data, told[k]);
        bed_free(&b);
    }
}

static void test_a_damaged_record_makes_nothing_else_too_old(void) {
    for (int solo = 0; solo < 2; solo++) {
        bed b;
        jsc_stream_limits l = plain;
        l.max_age_ns = 10000000000ll;
        bed_new(&b, &l);
        pub(&b, "s.a", NULL, "old");
        later(&b, 8000000000ll);
        for (int i = 0; i < 3; i++) pub(&b, "s.a", NULL, i == 1 ? "middle" : "new");
        jsc_stream_solo(b.s, solo);
        int64_t at = flip(&b, "middle", 0);
        later(&b, 3000000000ll);
        if (!solo) jsc_stream_commit(b.s, jsc_log_last(b.log));
        jsc_stream_state st;
        jsc_stream_stat(b.s, &st);
        CHECK(st.last_seq == 4 && st.messages == (solo ? 3 : 4)); /* with replicas it is repaired first */
        flip(&b, "", at);
        later(&b, 10000000000ll);
        if (!solo) jsc_stream_commit(b.s, jsc_log_last(b.log));
        jsc_stream_stat(b.s, &st);
        CHECK(st.messages == 0 && st.first_seq == 5);
        bed_free(&b);
    }
}

static void test_where_a_consumer_starts_is_not_guessed_from_a_damaged_record(void) {
    for (int solo = 0; solo < 2; solo++) {
        bed b;
        bed_new(&b, &plain);
        for (int i = 0; i < 5; i++) {
            pub(&b, "s.a", NULL, i == 2 ? "middle" : "x");
            later(&b, 1000000000);
        }
        jsc_record r;
        CHECK(jsc_stream_get(b.s, 2, &r) == JSC_OK);
        jsc_consumer_options o = {.ack_policy = JSC_ACK_EXPLICIT,
                                  .deliver_policy = JSC_DELIVER_BY_TIME,
                                  .opt_start_ns = r.ts,
                                  .max_deliver = -1,
                                  .max_ack_pending = 1000};
        jsc_stream_solo(b.s, solo);
        int64_t at = flip(&b, "middle", 0);
        jsc_consumer *c = NULL;
        CHECK(jsc_consumer_new(b.s, 5, "C", 1, b.unix_ns, &o, &c) == (solo ? JSC_OK : JSC_ECORRUPT));
        flip(&b, "", at);
        if (!solo) jsc_consumer_free(c);
        if (!solo) CHECK(jsc_consumer_new(b.s, 5, "C", 1, b.unix_ns, &o, &c) == JSC_OK);
        jsc_consumer_state st;
        jsc_consumer_stat(c, &st);
        CHECK(st.delivered_stream == 1);
        bed_free(&b);
    }
}

static void test_limits_and_discard(void) {
    bed b;
    jsc_stream_limits l = plain;
    l.max_msgs = 3;
    l.max_msgs_per_subject = 2;
    bed_new(&b, &l);
    for (int i = 0; i < 3; i++) pub(&b, "s.a", NULL, "x");
    jsc_stream_state st;
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 2 && st.first_seq == 2);
    pub(&b, "s.b", NULL, "x");
    pub(&b, "s.c", NULL, "x");
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 3 && st.first_seq == 3 && st.last_seq == 5);
    l.discard_new = 1;
    jsc_stream_configure(b.s, &l);
    CHECK_TEXT(pub(&b, "s.d", NULL, "x"), "{\"error\":{\"code\":503,\"err_code\":10077,\"description\":\"maximum "
                                          "messages exceeded\"},\"stream\":\"S\",\"seq\":0}");
    l.discard_new = 0;
    l.max_age_ns = 1000000000;
    jsc_stream_configure(b.s, &l);
    later(&b, 500000000);
    pub(&b, "s.e", NULL, "x");
    later(&b, 600000000);
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 1 && st.first_seq == 6);
    later(&b, 600000000);
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 0 && st.first_seq == 7 && st.last_seq == 6);
    bed_free(&b);
}

static void test_purge_and_delete(void) {
    bed b;
    bed_new(&b, &plain);
    for (int i = 0; i < 10; i++) pub(&b, i % 2 ? "s.odd" : "s.even", NULL, "x");
    fake_clear(b.plane);
    jsc_stream_delete(b.s, 4, "_INBOX.d", 8);
    settle(&b);
    CHECK_TEXT(last_got(&b)->data,
               "{\"type\":\"io.nats.jetstream.api.v1.stream_msg_delete_response\",\"success\":true}");
    jsc_stream_delete(b.s, 4, "_INBOX.d", 8);
    settle(&b);
    CHECK(strstr(last_got(&b)->data, "10043") != NULL);
    jsc_stream_purge(b.s, "s.even", 6, 0, 1, "_INBOX.p", 8);
    settle(&b);
    CHECK_TEXT(last_got(&b)->data,
               "{\"type\":\"io.nats.jetstream.api.v1.stream_purge_response\",\"success\":true,\"purged\":4}");
    jsc_stream_state st;
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 5 && st.first_seq == 2 && st.num_deleted == 4);
    jsc_stream_purge(b.s, "", 0, 9, 0, "_INBOX.p", 8);
    settle(&b);
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 2 && st.first_seq == 9);
    jsc_stream_purge(b.s, "", 0, 100, 0, "_INBOX.p", 8);
    settle(&b);
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 0 && st.first_seq == 100 && st.last_seq == 99);
    CHECK_TEXT(pub(&b, "s.a", NULL, "x"), "{\"stream\":\"S\",\"seq\":100}");
    jsc_stream_purge(b.s, "", 0, 0, 0, "", 0);
    settle(&b);
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 0 && st.first_seq == 101 && st.last_seq == 100 && st.num_deleted == 0);
    pub(&b, "s.a", NULL, "1");
    pub(&b, "s.a", NULL, "2");
    CHECK(jsc_stream_purge(b.s, NULL, 0, 100000, 1, NULL, 0) == JSC_OK); /* beyond the end, but one stays */
    settle(&b);
    pub(&b, "s.a", NULL, "3");
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 2 && st.first_seq == 102 && st.last_seq == 103);
    bed_free(&b);
}

static void test_a_purge_removes_what_its_filter_matches(void) {
    static const char *const filters[] = {"s.1.3", "s.1.*", "s.*.3", "s.>", "s.1", "s..3", "*.0.2", "t.>", "s.*.*"};
    for (size_t k = 0; k < sizeof filters / sizeof *filters; k++) {
        bed b;
        bed_new(&b, &plain);
        add_consumers(b.s);
        history(&b, 400);
        size_t n = strlen(filters[k]);
        uint64_t last = b.s->last_seq, below = k % 2 ? last / 2 : 0, gone = 0, before = b.s->messages;
        char *stays = calloc(1, last + 2);
        for (uint64_t q = 1; q <= last; q++) {
            const jsc_entry *e = jsc_seqs_at(&b.s->seqs, q);
            if (!jsc_entry_live(e)) continue;
            const jsc_subject *x = &b.s->subjects.a[e->subject];
            stays[q] = (below && q >= below) || !jsc_subject_matches(filters[k], n, x->name, x->len);
            gone += !stays[q];
        }
        CHECK(jsc_stream_purge(b.s, filters[k], n, below, 0, NULL, 0) == JSC_OK);
        settle(&b);
        CHECK(b.s->messages == before - gone && b.s->last_seq == last);
        for (uint64_t q = 1; q <= last; q++) CHECK(jsc_entry_live(jsc_seqs_at(&b.s->seqs, q)) == stays[q]);
        uint64_t counted = 0;
        for (uint32_t i = 0; i < b.s->subjects.n; i++)
            if (b.s->subjects.a[i].name) counted += b.s->subjects.a[i].count;
        CHECK(counted == b.s->messages);
        history(&b, 50); /* and it goes on */
        free(stays);
        bed_free(&b);
    }
}

/* ---- consumers ---- */
static jsc_consumer *consumer(bed *b, uint64_t id, const char *name, const jsc_consumer_options *o) {
    jsc_consumer *c = NULL;
    CHECK(jsc_consumer_new(b->s, id, name, strlen(name), b->unix_ns, o, &c) == JSC_OK);
    settle(b);
    return c;
}

static void ask(bed *b, const char *body) {
    fake_clear(b->plane);
    fake_pub(b->plane, "$JS.API.CONSUMER.MSG.NEXT.S.C", "_INBOX.pull", NULL, body);
    settle(b);
}

static void test_pull_ack_and_redelivery(void) {
    bed b;
    bed_new(&b, &plain);
    jsc_consumer *c = consumer(&b, 5, "C", &explicit_pull);
    for (int i = 0; i < 4; i++) pub(&b, "s.a", NULL, "x");
    ask(&b, "2");
    const fake_got *g;
    CHECK(fake_inbox(b.plane, &g) == 2);
    CHECK_TEXT(g[0].subject, "s.a");
    CHECK_TEXT(g[0].deliver, "_INBOX.pull");
    CHECK(!strncmp(g[0].reply, "$JS.ACK.S.C.1.1.1.", 18) && !strcmp(strrchr(g[0].reply, '.'), ".3"));
    CHECK(!strncmp(g[1].reply, "$JS.ACK.S.C.1.2.2.", 18) && !strcmp(strrchr(g[1].reply, '.'), ".2"));
    jsc_consumer_state st;
    jsc_consumer_stat(c, &st);
    CHECK(st.delivered_stream == 2 && st.num_ack_pending == 2 && st.num_pending == 2 && st.ack_floor_stream == 0);
    fake_pub(b.plane, "$JS.ACK.S.C.1.2.2.1.2", "_INBOX.done", NULL, "+ACK"); /* out of order, and a double ack */
    int before = fake_inbox(b.plane, NULL);
    CHECK(before == 2);
    settle(&b);
    CHECK(fake_inbox(b.plane, &g) == 3 && !strcmp(g[2].subject, "_INBOX.done"));
    jsc_consumer_stat(c, &st);
    CHECK(st.num_ack_pending == 1 && st.ack_floor_stream == 0);
    ask(&b, "{\"batch\":1,\"expires\":5000000000}");
    CHECK(fake_inbox(b.plane, &g) == 1 && !strncmp(g[0].reply, "$JS.ACK.S.C.1.3.3.", 18));
    ask(&b, "{\"batch\":10,\"expires\":5000000000}"); /* 4 now; 1 and 3 again after ack_wait */
    CHECK(fake_inbox(b.plane, &g) == 1);
    later(&b, 1000000000);
    CHECK(fake_inbox(b.plane, &g) == 4);
    CHECK(!strncmp(g[1].reply, "$JS.ACK.S.C.2.1.5.", 18));
    CHECK(!strncmp(g[2].reply, "$JS.ACK.S.C.2.3.6.", 18));
    jsc_consumer_stat(c, &st);
    CHECK(st.num_redelivered == 3 && st.num_ack_pending == 3 && st.num_waiting == 1);
    fake_pub(b.plane, "$JS.ACK.S.C.2.1.5.1.0", NULL, NULL, NULL);
    fake_pub(b.plane, "$JS.ACK.S.C.2.3.6.1.0", NULL, NULL, "+TERM bad");
    fake_pub(b.plane, "$JS.ACK.S.C.2.4.7.1.0", NULL, NULL, "-NAK");
    settle(&b);
    jsc_consumer_stat(c, &st);
    CHECK(st.num_ack_pending == 1 && st.ack_floor_stream == 3);
    CHECK(!strncmp(last_got(&b)->reply, "$JS.ACK.S.C.3.4.8.", 18));
    fake_pub(b.plane, "$JS.ACK.S.C.3.4.8.1.0", NULL, NULL, "-NAK {\"delay\": 300000000}");
    settle(&b);
    later(&b, 200000000);
    CHECK(!strncmp(last_got(&b)->reply, "$JS.ACK.S.C.3.4.8.", 18));
    later(&b, 200000000);
    CHECK(!strncmp(last_got(&b)->reply, "$JS.ACK.S.C.4.4.9.", 18));
    fake_pub(b.plane, "$JS.ACK.S.C.4.4.9.1.0", NULL, NULL, "+OK");
    settle(&b);
    jsc_consumer_stat(c, &st);
    CHECK(st.num_ack_pending == 0 && st.ack_floor_stream == 4 && st.ack_floor_consumer == 9);
    later(&b, 5000000000ll);
    CHECK(!strncmp(last_got(&b)->headers, "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 4\r\n", 56));
    bed_free(&b);
}

static void test_statuses_of_pulls(void) {
    bed b;
    bed_new(&b, &plain);
    consumer(&b, 5, "C", &explicit_pull);
    ask(&b, "{\"no_wait\":true}");
    CHECK_TEXT(last_got(&b)->headers, "NATS/1.0 404 No Messages\r\n\r\n");
    ask(&b, "{\"batch\":");
    CHECK(!strncmp(last_got(&b)->headers, "NATS/1.0 400 Bad Request - ", 27));
    pub(&b, "s.a", NULL, "a long payload, longer than the request takes");
    ask(&b, "{\"batch\":5,\"max_bytes\":20,\"expires\":1000000000}");
    CHECK(!strncmp(last_got(&b)->headers, "NATS/1.0 409 Message Size Exceeds MaxBytes\r\n", 44));
    ask(&b, "{\"batch\":5,\"no_wait\":true}");
    const fake_got *g;
    CHECK(fake_inbox(b.plane, &g) == 2 && !strcmp(g[1].headers, "NATS/1.0 404 No Messages\r\n\r\n"));
    fake_clear(b.plane);
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.S.C", "_INBOX.pull", NULL,
             "{\"batch\":5,\"expires\":1000000000,\"idle_heartbeat\":100000000}");
    int64_t due = settle(&b);
    CHECK(due == b.mono + 100000000);
    later(&b, 100000000);
    CHECK(!strncmp(last_got(&b)->headers, "NATS/1.0 100 Idle Heartbeat\r\n", 29));
    jsc_stream_follow(b.s);
    CHECK_TEXT(last_got(&b)->headers, "NATS/1.0 409 Leadership Change\r\n\r\n");
    bed_free(&b);
}

static void test_nobody_listening_consumes_nothing(void) {
    bed b;
    bed_new(&b, &plain);
    jsc_consumer *c = consumer(&b, 5, "C", &explicit_pull);
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.S.C", "gone.inbox", NULL, "5");
    pub(&b, "s.a", NULL, "x");
    jsc_consumer_state st;
    jsc_consumer_stat(c, &st);
    CHECK(st.delivered_stream == 0 && st.num_waiting == 0 && st.num_pending == 1);
    bed_free(&b);
}

static void test_max_ack_pending_and_max_deliver(void) {
    bed b;
    bed_new(&b, &plain);
    jsc_consumer_options o = explicit_pull;
    o.max_ack_pending = 2;
    o.max_deliver = 2;
    jsc_consumer *c = consumer(&b, 5, "C", &o);
    for (int i = 0; i < 3; i++) pub(&b, "s.a", NULL, "x");
    ask(&b, "{\"batch\":10,\"expires\":60000000000}");
    CHECK(fake_inbox(b.plane, NULL) == 2);
    fake_pub(b.plane, "$JS.ACK.S.C.1.1.1.1.0", NULL, NULL, "+ACK");
    settle(&b);
    CHECK(fake_inbox(b.plane, NULL) == 3);
    later(&b, 1000000000);
    CHECK(fake_inbox(b.plane, NULL) == 5); /* 2 and 3 a second time */
    later(&b, 1000000000);
    CHECK(fake_inbox(b.plane, NULL) == 5);
    jsc_consumer_state st;
    jsc_consumer_stat(c, &st);
    CHECK(st.num_ack_pending == 0 && st.num_redelivered == 0);
    bed_free(&b);
}

/* A leader that is cut off may redeliver for a while what nobody else hears of. */
static void test_the_count_of_deliveries_does_not_go_back_with_another_leader(void) {
    bed b;
    bed_new(&b, &plain);
    consumer(&b, 5, "C", &explicit_pull);
    pub(&b, "s.a", NULL, "x");
    uint64_t told = jsc_log_last(b.log);
    jsc_stream_solo(b.s, 0); /* nothing is committed unless it is said here */
    ask(&b, "{\"batch\":10,\"expires\":60000000000}");
    CHECK(fake_inbox(b.plane, NULL) == 1 && !strncmp(last_got(&b)->reply, "$JS.ACK.S.C.1.1.1.", 18));
    for (int i = 0; i < 3; i++) {
        fake_pub(b.plane, "$JS.ACK.S.C.1.1.1.1.0", NULL, NULL, "-NAK");
        settle(&b);
    }
    CHECK(jsc_stream_applied(b.s) == told && fake_inbox(b.plane, NULL) == 1);
    jsc_stream_commit(b.s, jsc_log_last(b.log));
    settle(&b);
    CHECK(fake_inbox(b.plane, NULL) == 2 && !strncmp(last_got(&b)->reply, "$JS.ACK.S.C.2.1.2.", 18));
    for (int i = 0; i < 3; i++) {
        fake_pub(b.plane, "$JS.ACK.S.C.2.1.2.1.0", NULL, NULL, "-NAK");
        settle(&b);
    }
    CHECK(fake_inbox(b.plane, NULL) == 2);
    jsc_stream_follow(b.s); /* the last redelivery is in no other log */
    jsc_stream_lead(b.s, 2);
    later(&b, 2000000000);
    ask(&b, "{\"batch\":10,\"expires\":60000000000}");
    CHECK(fake_inbox(b.plane, NULL) == 1 && !strncmp(last_got(&b)->reply, "$JS.ACK.S.C.2.1.2.", 18));
    bed_free(&b);
}

static void test_workqueue_and_interest(void) {
    bed b;
    jsc_stream_limits l = plain;
    l.retention = JSC_RETAIN_INTEREST;
    bed_new(&b, &l);
    CHECK_TEXT(pub(&b, "s.a", NULL, "x"), "{\"stream\":\"S\",\"seq\":1}");
    jsc_stream_state st;
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 0 && st.last_seq == 1);
    consumer(&b, 5, "C", &explicit_pull);
    jsc_consumer_options none = explicit_pull;
    none.ack_policy = JSC_ACK_ALL;
    jsc_consumer *d = consumer(&b, 6, "D", &none);
    pub(&b, "s.a", NULL, "x");
    pub(&b, "s.a", NULL, "x");
    ask(&b, "2");
    fake_pub(b.plane, "$JS.ACK.S.C.1.2.1.1.0", NULL, NULL, "+ACK");
    settle(&b);
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 2);
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.S.D", "_INBOX.pull", NULL, "2");
    settle(&b);
    fake_pub(b.plane, "$JS.ACK.S.D.1.3.2.1.0", NULL, NULL, "+ACK");
    settle(&b);
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 1 && st.first_seq == 3);
    pub(&b, "s.a", NULL, "x");
    fake_pub(b.plane, "$JS.ACK.S.C.1.3.2.1.0", NULL, NULL, "+ACK");
    ask(&b, "1");
    fake_pub(b.plane, "$JS.ACK.S.C.1.4.3.1.0", NULL, NULL, "+ACK");
    settle(&b);
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 1 && st.first_seq == 4);
    jsc_consumer_free(d);
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 0);
    bed_free(&b);
}

static void test_push_waits_for_interest_and_beats(void) {
    bed b;
    bed_new(&b, &plain);
    jsc_consumer_options o = {.ack_policy = JSC_ACK_NONE,
                              .deliver_subject = "_PUSH.x",
                              .deliver_subject_len = 7,
                              .idle_heartbeat_ns = 100000000,
                              .flow_control = 1,
                              .max_deliver = -1};
    jsc_consumer *c = consumer(&b, 5, "C", &o);
    pub(&b, "s.a", NULL, "x");
    fake_clear(b.plane);
    fake_listen(b.plane, "_PUSH.>");
    later(&b, 20000000);
    const fake_got *g;
    CHECK(fake_inbox(b.plane, &g) == 1 && !strncmp(g[0].reply, "$JS.ACK.S.C.1.1.1.", 18));
    later(&b, 100000000);
    CHECK_TEXT(last_got(&b)->headers,
               "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 1\r\n\r\n");
    CHECK(c->applied.dseq == 1); /* recorded after a while */
    char *big = malloc(600001);
    memset(big, 'x', 600000);
    big[600000] = 0;
    fake_clear(b.plane);
    for (int i = 0; i < 8; i++) fake_pub(b.plane, "s.a", NULL, NULL, big);
    settle(&b);
    char fc[64] = "";
    int n = fake_inbox(b.plane, &g), msgs = 0;
    for (int i = 0; i < n; i++)
        if (!strncmp(g[i].headers, "NATS/1.0 100 FlowControl", 24)) snprintf(fc, sizeof fc, "%s", g[i].reply);
        else msgs++;
    CHECK(!strncmp(fc, "$JS.FC.S.C.", 11) && msgs == 4);
    later(&b, 100000000);
    CHECK(strstr(last_got(&b)->headers, "Nats-Consumer-Stalled: $JS.FC.S.C.") != NULL);
    fake_pub(b.plane, fc, NULL, NULL, NULL);
    settle(&b);
    jsc_consumer_state st;
    jsc_consumer_stat(c, &st);
    CHECK(st.num_pending == 0 && st.push_bound);
    free(big);
    bed_free(&b);
}

static void test_start_positions(void) {
    bed b;
    bed_new(&b, &plain);
    for (int i = 0; i < 6; i++) pub(&b, i % 2 ? "s.odd" : "s.even", NULL, "x");
    const char *f = "s.odd";
    uint32_t fl = 5;
    struct {
        uint8_t policy;
        uint64_t seq, want;
        int filter;
        uint64_t pending;
    } t[] = {{JSC_DELIVER_ALL, 0, 0, 0, 6},
             {JSC_DELIVER_ALL, 0, 0, 1, 3},
             {JSC_DELIVER_LAST, 0, 5, 0, 1},
             {JSC_DELIVER_NEW, 0, 6, 0, 0},
             {JSC_DELIVER_BY_SEQ, 4, 3, 1, 2},
             {JSC_DELIVER_BY_SEQ, 40, 39, 0, 0},
             {JSC_DELIVER_LAST_PER_SUBJECT, 0, 4, 0, 2},
             {JSC_DELIVER_LAST_PER_SUBJECT, 0, 5, 1, 1}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        jsc_consumer_options o = explicit_pull;
        o.deliver_policy = t[i].policy;
        o.opt_start_seq = t[i].seq;
        if (t[i].filter) o.filters = &f, o.filter_lens = &fl, o.nfilters = 1;
        jsc_consumer *c = consumer(&b, 50 + i, "C", &o);
        jsc_consumer_state st;
        jsc_consumer_stat(c, &st);
        if (st.delivered_stream != t[i].want || st.num_pending != t[i].pending)
            fprintf(stderr, "case %zu: delivered %llu pending %llu\n", i, (unsigned long long)st.delivered_stream,
                    (unsigned long long)st.num_pending),
                failures++;
        jsc_consumer_free(c);
    }
    bed_free(&b);
}

static void test_update_keeps_progress(void) {
    bed b;
    bed_new(&b, &plain);
    jsc_consumer *c = consumer(&b, 5, "C", &explicit_pull), *again;
    for (int i = 0; i < 6; i++) pub(&b, i % 2 ? "s.odd" : "s.even", NULL, "x");
    ask(&b, "2");
    const char *f = "s.odd";
    uint32_t fl = 5;
    jsc_consumer_options o = explicit_pull;
    o.filters = &f, o.filter_lens = &fl, o.nfilters = 1;
    CHECK(jsc_consumer_new(b.s, 5, "C", 1, b.unix_ns, &o, &again) == JSC_OK && again == c);
    jsc_consumer_state st;
    jsc_consumer_stat(c, &st);
    CHECK(st.delivered_stream == 2 && st.num_ack_pending == 2 && st.num_pending == 2);
    ask(&b, "{\"batch\":5,\"no_wait\":true}");
    const fake_got *g;
    CHECK(fake_inbox(b.plane, &g) == 3 && !strcmp(g[0].subject, "s.odd") && !strcmp(g[1].subject, "s.odd"));
    o.deliver_subject = "push";
    o.deliver_subject_len = 4;
    CHECK(jsc_consumer_new(b.s, 5, "C", 1, b.unix_ns, &o, &again) == JSC_EINVAL);
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.S.C", "_INBOX.pull", NULL, "1");
    settle(&b);
    jsc_consumer_free(c);
    CHECK_TEXT(last_got(&b)->headers, "NATS/1.0 409 Consumer Deleted\r\n\r\n");
    bed_free(&b);
}

/* A stream that captures what its own consumer delivers takes those copies after the delivery, not inside it. */
static void test_deliveries_into_the_same_stream_are_safe(void) {
    bed b;
    bed_new(&b, &plain);
    consumer(&b, 5, "C", &explicit_pull);
    for (int i = 0; i < 3; i++) pub(&b, "s.a", NULL, "x");
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.S.C", "s.loop", NULL, "3");
    settle(&b);
    jsc_stream_state st;
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 6);
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.S.C", "$JS.ACK.S.C.1.1.1.1.1", NULL, "3");
    settle(&b);
    bed_free(&b);
}

static void test_inactive_consumer_is_reported(void) {
    bed b;
    bed_new(&b, &plain);
    jsc_consumer_options o = explicit_pull;
    o.inactive_threshold_ns = 5000000000ll;
    consumer(&b, 5, "C", &o);
    uint64_t a, id;
    later(&b, 4000000000ll);
    CHECK(!fake_event(b.plane, JSC_EV_EXPIRED, &a, &id));
    ask(&b, "{\"batch\":1,\"expires\":3000000000}");
    later(&b, 4000000000ll);
    CHECK(!fake_event(b.plane, JSC_EV_EXPIRED, &a, &id));
    later(&b, 5000000000ll);
    CHECK(fake_event(b.plane, JSC_EV_EXPIRED, &a, &id) && a == 11 && id == 5);
    bed_free(&b);
}

/* ---- replay and replication: a random history gives the same state after reopening and on a follower ---- */
static void test_replay_and_follower_reach_the_same_state(void) {
    for (int round = 0; round < 6; round++) {
        bed b, f;
        jsc_stream_limits l = plain;
        l.max_msgs = round & 1 ? 300 : -1;
        l.max_msgs_per_subject = round & 2 ? 20 : -1;
        l.retention = round == 4 ? JSC_RETAIN_WORKQUEUE : round == 5 ? JSC_RETAIN_INTEREST : 0;
        bed_new(&b, &l);
        add_consumers(b.s);
        history(&b, 2000);
        uint64_t live = digest(b.s), last = jsc_log_last(b.log);
        CHECK(jsc_stream_applied(b.s) == last);
        /* pending counts are exact: counted again from nothing */
        for (jsc_consumer *c = b.s->consumers; c; c = c->next)
            for (int k = 0; k < 2; k++) {
                jsc_progress again = k ? c->view : c->applied;
                again.pending = 0;
                again.counted_to = again.dseq;
                CHECK(jsc_consumer_pending(c, k ? &c->view : &c->applied) == jsc_consumer_pending(c, &again));
            }
        /* a follower given the same bytes */
        memset(&f, 0, sizeof f);
        f.sim = jsc_sim_new(2);
        f.unix_ns = 1600000000000000000ll;
        bed_open(&f, &l);
        add_consumers(f.s);
        size_t cap = 64u << 20, n;
        uint8_t *raw = malloc(cap);
        uint64_t upto;
        CHECK(jsc_log_copy(b.log, 1, last, raw, cap, &n, &upto) == JSC_OK && upto == last);
        CHECK(jsc_log_append_raw(f.log, raw, n, 1) == JSC_OK);
        free(raw);
        for (uint64_t i = 0; i < last; i += 37) jsc_stream_commit(f.s, i);
        CHECK(jsc_stream_commit(f.s, last) == JSC_OK);
        CHECK(digest(f.s) == live);
        bed_free(&f);
        bed_close(&b);
        bed_open(&b, &l); /* the same log, opened again */
        add_consumers(b.s);
        CHECK(jsc_log_last(b.log) == last);
        CHECK(jsc_stream_commit(b.s, last) == JSC_OK);
        CHECK(digest(b.s) == live);
        jsc_stream_solo(b.s, 1);
        jsc_stream_lead(b.s, 2);
        history(&b, 200);
        bed_free(&b);
    }
}

static void test_host_records_stop_the_apply(void) {
    bed b;
    bed_new(&b, &plain);
    uint64_t index, a, x;
    pub(&b, "s.a", NULL, "x");
    CHECK(jsc_stream_propose(b.s, JSC_K_CONFIG, "{}", 2, &index) == JSC_OK);
    fake_pub(b.plane, "s.a", "_INBOX.ack", NULL, "y");
    settle(&b);
    CHECK(fake_event(b.plane, JSC_EV_APPLY, &a, &x) && a == 11);
    CHECK(jsc_stream_applied(b.s) == index - 1);
    CHECK(jsc_stream_commit(b.s, jsc_stream_committed(b.s)) == JSC_EHOST);
    fake_clear(b.plane);
    CHECK(jsc_stream_skip(b.s) == JSC_OK);
    CHECK(jsc_stream_commit(b.s, jsc_stream_committed(b.s)) == JSC_OK);
    CHECK_TEXT(last_got(&b)->data, "{\"stream\":\"S\",\"seq\":2}");
    bed_free(&b);
}

static const char *stored_headers(bed *b, uint64_t seq) {
    static char out[512];
    jsc_record r;
    CHECK(jsc_stream_get(b->s, seq, &r) == JSC_OK);
    snprintf(out, sizeof out, "%.*s", (int)r.headers_len, r.headers_len ? r.headers : "");
    return out;
}

static void test_what_the_server_adds_is_not_taken_from_clients(void) {
    bed b;
    bed_new(&b, &plain);
    pub(&b, "s.a", "NATS/1.0\r\nA: 1\r\nNats-Request-Info: {\"acc\":\"X\"}\r\nB: 2\r\n\r\n", "x");
    CHECK_TEXT(stored_headers(&b, 1), "NATS/1.0\r\nA: 1\r\nB: 2\r\n\r\n");
    pub(&b, "s.a", "NATS/1.0 503 none\r\nNats-Request-Info: {}\r\nNats-Request-Info: {}\r\nB: 2\r\n\r\n", "x");
    CHECK_TEXT(stored_headers(&b, 2), "NATS/1.0\r\nB: 2\r\n\r\n");
    pub(&b, "s.a", "NATS/1.0\r\nNats-Request-Info: {}\r\n\r\n", "x");
    CHECK_TEXT(stored_headers(&b, 3), "");
    pub(&b, "s.a", "NATS/1.0\r\nX: Nats-Request-Info: {}\r\n\r\n", "x");
    CHECK_TEXT(stored_headers(&b, 4), "NATS/1.0\r\nX: Nats-Request-Info: {}\r\n\r\n");
    pub(&b, "s.a", "NATS/1.0\r\nNats-Request-Info: cut", "x");
    CHECK(b.s->messages == 5);
    bed_free(&b);
}

static void test_a_pull_that_needs_a_later_level_is_refused(void) {
    bed b;
    bed_new(&b, &plain);
    consumer(&b, 5, "C", &explicit_pull);
    pub(&b, "s.a", NULL, "x");
    const char *high[] = {"NATS/1.0\r\nNats-Required-Api-Level: 1\r\n\r\n",
                          "NATS/1.0\r\nnats-required-api-level: x\r\n\r\n",
                          "NATS/1.0\r\nNats-Required-Api-Level: 99999999999999999999999\r\n\r\n"};
    for (int i = 0; i < 3; i++) {
        fake_clear(b.plane);
        fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.S.C", "_INBOX.pull", high[i], "1");
        settle(&b);
        CHECK_TEXT(last_got(&b)->headers, "NATS/1.0 412 Required Api Level\r\n\r\n");
    }
    fake_clear(b.plane);
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.S.C", "_INBOX.pull", "NATS/1.0\r\nNats-Required-Api-Level: 0\r\n\r\n",
             "1");
    settle(&b);
    CHECK_TEXT(last_got(&b)->data, "x");
    bed_free(&b);
}

static void test_a_shutdown_ends_waiting_pulls_and_keeps_acks(void) {
    bed b;
    bed_new(&b, &plain);
    jsc_consumer *c = consumer(&b, 5, "C", &explicit_pull);
    pub(&b, "s.a", NULL, "x");
    ask(&b, "{\"batch\":3,\"max_bytes\":1000,\"expires\":5000000000}");
    fake_pub(b.plane, "$JS.ACK.S.C.1.1.1.1.0", NULL, NULL, NULL);
    jsc_stream_shutdown(b.s);
    CHECK(!strncmp(last_got(&b)->headers,
                   "NATS/1.0 409 Server Shutdown\r\nNats-Pending-Messages: 2\r\nNats-Pending-Bytes: ", 76));
    fake_clear(b.plane);
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.S.C", "_INBOX.pull", NULL, "1");
    CHECK(fake_inbox(b.plane, NULL) == 0);
    jsc_log_wait(b.log, jsc_log_last(b.log), 5000000000ll);
    fake_store(b.plane);
    jsc_consumer_state st;
    jsc_consumer_stat(c, &st);
    CHECK(st.num_ack_pending == 0 && st.ack_floor_stream == 1);
    jsc_stream_follow(b.s);
    bed_free(&b);
}

/* One message that is never acknowledged does not make the consumer remember all that came after it. */
static void test_a_stuck_message_costs_no_memory(void) {
    enum { ROUNDS = 200, BATCH = 100 };
    bed b;
    bed_new(&b, &plain);
    jsc_consumer_options o = explicit_pull;
    o.ack_wait_ns = 3600000000000ll;
    jsc_consumer *c = consumer(&b, 5, "C", &o);
    char subject[64];
    for (uint64_t round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BATCH; i++) fake_pub(b.plane, "s.a", NULL, NULL, "x");
        settle(&b);
        ask(&b, "100");
        for (uint64_t q = round * BATCH + 1; q <= (round + 1) * BATCH; q++) {
            if (q == 3) continue;
            snprintf(subject, sizeof subject, "$JS.ACK.S.C.1.%llu.%llu.1.0", (unsigned long long)q,
                     (unsigned long long)q);
            fake_pub(b.plane, subject, NULL, NULL, NULL);
        }
        settle(&b);
    }
    jsc_consumer_state st;
    jsc_consumer_stat(c, &st);
    CHECK(st.num_ack_pending == 1 && st.ack_floor_stream == 2 && st.ack_floor_consumer == 2 &&
          st.delivered_stream == ROUNDS * BATCH);
    CHECK(c->view.cap <= 512 && c->applied.cap <= 512);
    fake_pub(b.plane, "$JS.ACK.S.C.1.3.3.1.0", NULL, NULL, NULL);
    settle(&b);
    jsc_consumer_stat(c, &st);
    CHECK(st.num_ack_pending == 0 && st.ack_floor_stream == ROUNDS * BATCH && st.ack_floor_consumer == ROUNDS * BATCH);
    bed_free(&b);
}

static void test_huge_durations_and_numbers_overflow_nothing(void) {
    bed b;
    jsc_stream_limits l = plain;
    l.max_age_ns = l.duplicate_window_ns = INT64_MAX;
    bed_new(&b, &l);
    jsc_consumer_options o = explicit_pull;
    o.ack_wait_ns = o.inactive_threshold_ns = o.idle_heartbeat_ns = o.max_expires_ns = INT64_MAX;
    consumer(&b, 5, "C", &o);
    o.deliver_subject = "_INBOX.push";
    o.deliver_subject_len = 11;
    consumer(&b, 6, "P", &o);
    pub(&b, "s.a", "NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n", "x");
    ask(&b, "{\"batch\":9223372036854775807,\"expires\":9223372036854775807,\"idle_heartbeat\":4611686018427387903}");
    const char *naks[] = {"-NAK 2500000h", "-NAK {\"delay\": 9223372036854775807}",
                          "-NAK 99999999999999999999999999999999999h", "+WPI"};
    for (int i = 0; i < 4; i++) {
        fake_pub(b.plane, "$JS.ACK.S.C.1.1.1.1.0", NULL, NULL, naks[i]);
        later(&b, 1000000);
    }
    CHECK(jsc_stream_purge(b.s, NULL, 0, UINT64_MAX, 0, NULL, 0) == JSC_EINVAL);
    CHECK(jsc_stream_delete(b.s, UINT64_MAX, NULL, 0) == JSC_OK);
    settle(&b);
    pub(&b, "s.a", NULL, "y");
    CHECK(b.s->messages == 2 && b.s->last_seq == 2);
    bed_free(&b);
}

/* A record may say anything: times with which no sum fits are none, and what stands there is not believed. */
static void test_a_record_with_a_time_that_cannot_be(void) {
    bed b;
    bed_new(&b, &plain);
    jsc_consumer *c = consumer(&b, 5, "C", &explicit_pull);
    pub(&b, "s.a", NULL, "x");
    static const uint8_t late[] = {1,    5,    JSC_OP_DELIVER, 1,    1,    0xc0, 0xff,
                                   0xff, 0xff, 0xff,           0xff, 0xff, 0xff, 0x7f}; /* 2^63 - 64 */
    uint64_t index;
    CHECK(jsc_stream_propose(b.s, JSC_K_CONSUMER_STATE, late, sizeof late, &index) == JSC_OK);
    settle(&b);
    jsc_stream_follow(b.s);
    jsc_stream_lead(b.s, 2);
    jsc_consumer_state st;
    jsc_consumer_stat(c, &st);
    CHECK(st.delivered_stream == 0 && st.num_pending == 1);
    bed_free(&b);
}

/* Each finds its own progress, and no turn serves them all to the end before anything else happens. */
static void test_many_consumers_share_a_turn(void) {
    enum { CONSUMERS = 300, MESSAGES = 40 };
    bed b;
    bed_new(&b, &plain);
    static char big[20000];
    memset(big, 'x', sizeof big - 1);
    for (int i = 0; i < MESSAGES; i++) fake_pub(b.plane, "s.a", NULL, NULL, big);
    settle(&b);
    jsc_consumer *c[CONSUMERS];
    char name[64];
    for (int i = 0; i < CONSUMERS; i++) {
        snprintf(name, sizeof name, "C%d", i);
        CHECK(jsc_consumer_new(b.s, 1000003ull * (uint64_t)i + 7, name, strlen(name), 0, &explicit_pull, &c[i]) ==
              JSC_OK);
    }
    for (int i = 0; i < CONSUMERS; i += 3) {
        jsc_consumer_free(c[i]);
        c[i] = NULL;
    }
    fake_turn(b.plane);
    fake_clear(b.plane);
    for (int i = 0; i < CONSUMERS; i++) {
        snprintf(name, sizeof name, "$JS.API.CONSUMER.MSG.NEXT.S.C%d", i);
        fake_pub(b.plane, name, "_INBOX.pull", NULL, "40");
    }
    fake_turn(b.plane);
    int first = fake_inbox(b.plane, NULL);
    CHECK(first > 0 && first < CONSUMERS * MESSAGES / 4);
    for (int i = 0; i < 30 && fake_inbox(b.plane, NULL) < CONSUMERS / 3 * 2 * MESSAGES; i++) fake_turn(b.plane);
    CHECK(fake_inbox(b.plane, NULL) == CONSUMERS / 3 * 2 * MESSAGES);
    settle(&b);
    for (int i = 0; i < CONSUMERS; i++)
        if (c[i]) {
            CHECK(c[i]->applied.dseq == MESSAGES && c[i]->applied.npending == MESSAGES);
            jsc_consumer *same;
            CHECK(jsc_consumer_new(b.s, c[i]->id, c[i]->name, c[i]->name_len, 0, &explicit_pull, &same) == JSC_OK &&
                  same == c[i]);
        }
    bed_free(&b);
}

static void used(bed *b, int64_t want) {
    int64_t memory = -1, storage = -1;
    jsc_streams_used(b->all, jsc_plane_account(b->plane, "$G", 2), &memory, &storage);
    CHECK(memory == 0 && storage == want);
}

static void test_an_accounts_quota_refuses_what_is_too_much(void) {
    bed b;
    jsc_stream_limits l = plain;
    l.max_msgs_per_subject = 2;
    l.replicas = 3;
    bed_new(&b, &l);
    jsc_account *g = jsc_plane_account(b.plane, "$G", 2);
    jsc_quota q = {.memory = 0, .storage = 3 * 3 * 40 + 50, .elsewhere_storage = 50};
    CHECK(jsc_streams_quota(b.all, g, &q) == JSC_OK);
    const char *refused = "{\"error\":{\"code\":400,\"err_code\":10002,\"description\":\"resource limits exceeded for "
                          "account\"},\"stream\":\"S\",\"seq\":0}";
    CHECK_TEXT(pub(&b, "s.a", NULL, "1234567"), "{\"stream\":\"S\",\"seq\":1}"); /* 3 + 7 + 30 bytes, three times */
    CHECK_TEXT(pub(&b, "s.a", NULL, "1234567"), "{\"stream\":\"S\",\"seq\":2}");
    used(&b, 240);
    CHECK_TEXT(pub(&b, "s.b", NULL, "12345678"), refused);
    CHECK_TEXT(pub(&b, "s.b", NULL, "1234567"), "{\"stream\":\"S\",\"seq\":3}");
    CHECK_TEXT(pub(&b, "s.b", NULL, "1"), refused);
    CHECK_TEXT(pub(&b, "s.a", NULL, "1234567"), "{\"stream\":\"S\",\"seq\":4}"); /* takes the place of another */
    used(&b, 360);
    jsc_stream_follow(b.s);
    used(&b, 0); /* who leads it counts it now */
    jsc_stream_lead(b.s, 2);
    used(&b, 360);
    jsc_stream_purge(b.s, "", 0, 0, 0, "", 0);
    settle(&b);
    used(&b, 0);
    CHECK_TEXT(pub(&b, "s.b", NULL, "1"), "{\"stream\":\"S\",\"seq\":5}");
    q.elsewhere_storage = q.storage + 1;
    jsc_streams_quota(b.all, g, &q);
    CHECK_TEXT(pub(&b, "s.b", NULL, ""), refused);
    q.storage = -1;
    jsc_streams_quota(b.all, g, &q);
    CHECK_TEXT(pub(&b, "s.b", NULL, ""), "{\"stream\":\"S\",\"seq\":6}");
    uint64_t stream, kind;
    for (int i = 0; i < 3; i++) CHECK(fake_event(b.plane, JSC_EV_QUOTA, &stream, &kind) && stream == 11 && kind == 1);
    CHECK(!fake_event(b.plane, JSC_EV_QUOTA, &stream, &kind));
    bed_free(&b);
}

int main(void) {
    test_an_accounts_quota_refuses_what_is_too_much();
    test_what_the_server_adds_is_not_taken_from_clients();
    test_a_pull_that_needs_a_later_level_is_refused();
    test_a_shutdown_ends_waiting_pulls_and_keeps_acks();
    test_a_stuck_message_costs_no_memory();
    test_huge_durations_and_numbers_overflow_nothing();
    test_a_record_with_a_time_that_cannot_be();
    test_many_consumers_share_a_turn();
    test_publish_is_acked_with_its_sequence();
    test_rules_of_headers();
    test_a_decision_by_a_damaged_record_waits_for_its_repair();
    test_a_damaged_record_makes_nothing_else_too_old();
    test_where_a_consumer_starts_is_not_guessed_from_a_damaged_record();
    test_limits_and_discard();
    test_purge_and_delete();
    test_a_purge_removes_what_its_filter_matches();
    test_pull_ack_and_redelivery();
    test_statuses_of_pulls();
    test_nobody_listening_consumes_nothing();
    test_max_ack_pending_and_max_deliver();
    test_the_count_of_deliveries_does_not_go_back_with_another_leader();
    test_workqueue_and_interest();
    test_push_waits_for_interest_and_beats();
    test_start_positions();
    test_update_keeps_progress();
    test_deliveries_into_the_same_stream_are_safe();
    test_inactive_consumer_is_reported();
    test_host_records_stop_the_apply();
    test_replay_and_follower_reach_the_same_state();
    printf(failures ? "%d failures\n" : "stream: all passed\n", failures);
    return failures != 0;
}
