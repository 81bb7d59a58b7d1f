/* A stream made from its snapshot is the one that its records make, at any record and after a crash at any call. */
#include "../../log/snapshot.h"
#include "bed.h"
#include "fake_plane.h"

static const jsc_stream_limits *limits_of(int round) {
    static jsc_stream_limits l;
    l = plain;
    l.max_msgs = round & 1 ? 300 : -1;
    l.max_msgs_per_subject = round & 2 ? 20 : -1;
    l.duplicate_window_ns = round % 3 ? 120000000000ll : 3000000000ll;
    l.retention = round == 4 ? JSC_RETAIN_WORKQUEUE : round == 5 ? JSC_RETAIN_INTEREST : 0;
    return &l;
}

static void chosen(jsc_stream *s) {
    jsc_consumer *c;
    jsc_consumer_options o = explicit_pull;
    o.deliver_policy = JSC_DELIVER_LAST_PER_SUBJECT;
    CHECK(jsc_consumer_new(s, 4, "F", 1, 0, &o, &c) == JSC_OK);
}

/* While it is taken the stream goes on. The digest is of the moment at which it began. */
static int take(bed *b, uint8_t **file, size_t *n, uint64_t *index, uint64_t *first, uint64_t *state, int busy) {
    const uint8_t *p;
    CHECK(jsc_stream_snapshot_begin(b->s, "host", 4) == JSC_OK);
    *state = digest(b->s);
    if (busy) history(b, busy);
    int rc;
    while ((rc = jsc_stream_snapshot_step(b->s)) == 0)
        if (busy) history(b, busy);
    CHECK(rc == 1);
    CHECK(jsc_stream_snapshot_file(b->s, &p, n, index, first) == JSC_OK);
    *file = malloc(*n);
    memcpy(*file, p, *n);
    jsc_stream_snapshot_end(b->s);
    return rc == 1;
}

/* Opens what is on the disk as a server would; 1: from a snapshot. */
static int reopen(bed *b, const jsc_stream_limits *l, int with_chosen, uint64_t *restored) {
    uint8_t *file = NULL;
    size_t n = 0, hn;
    int hurt;
    jsc_snapshot_head head = {0};
    int rc = jsc_snapshot_read(jsc_sim_vfs(b->sim), "log", &file, &n, &hurt);
    CHECK(rc == JSC_OK || rc == JSC_ENOTFOUND);
    if (rc == JSC_OK) CHECK(jsc_snapshot_check(file, n, &head) == JSC_OK);
    b->options.keep = head.first;
    bed_open(b, l);
    if (rc == JSC_OK) {
        const uint8_t *host;
        uint64_t lost;
        CHECK(jsc_stream_snapshot_host(file, n, &host, &hn) == JSC_OK && hn == 4 && !memcmp(host, "host", 4));
        CHECK(jsc_stream_restore(b->s, file, n, 0, &lost) == JSC_OK && !lost);
        add_consumers(b->s);
        if (with_chosen) chosen(b->s);
        CHECK(jsc_stream_restore_consumers(b->s) == JSC_OK);
        CHECK(jsc_stream_applied(b->s) == head.index);
        if (restored) *restored = digest(b->s);
    } else {
        CHECK(jsc_log_first(b->log) == 1);
        add_consumers(b->s);
    }
    free(file);
    CHECK(jsc_stream_commit(b->s, jsc_log_last(b->log)) == JSC_OK);
    CHECK(jsc_stream_applied(b->s) == jsc_log_last(b->log));
    return rc == JSC_OK;
}

static void test_a_snapshot_and_what_follows_make_the_same_state(void) {
    uint64_t freed = 0;
    for (int round = 0; round < 6; round++) {
        bed b;
        const jsc_stream_limits *l = limits_of(round);
        memset(&b, 0, sizeof b);
        b.sim = jsc_sim_new((uint64_t)round + 1);
        b.unix_ns = 1700000000000000000ll;
        b.options.segment_bytes = 8192;
        bed_open(&b, l);
        jsc_stream_solo(b.s, 1);
        jsc_stream_lead(b.s, 1);
        add_consumers(b.s);
        history(&b, 200);
        chosen(b.s);
        for (int part = 0; part < 25; part++) {
            uint8_t *file;
            size_t n;
            uint64_t index, first, state, live, restored = 0;
            history(&b, (int)roll(150));
            if (!take(&b, &file, &n, &index, &first, &state, (int)roll(40))) break;
            CHECK(jsc_snapshot_write(jsc_sim_vfs(b.sim), "log", file, n) == JSC_OK);
            free(file);
            if (roll(4)) {
                uint64_t before = jsc_log_first(b.log);
                CHECK(jsc_log_trim(b.log, first, 1 + roll(4)) == JSC_OK);
                CHECK(jsc_log_first(b.log) >= before && jsc_log_first(b.log) <= first);
                freed += jsc_log_first(b.log) - before;
                uint32_t term;
                CHECK(jsc_log_term(b.log, jsc_log_first(b.log) - 1, &term) == JSC_OK);
                CHECK(jsc_log_first(b.log) == 1 ? term == 0 : term != 0);
            }
            if (!roll(3)) history(&b, (int)roll(100));
            if (!roll(3)) CHECK(jsc_log_roll(b.log) == JSC_OK);
            settle(&b);
            live = digest(b.s);
            bed_close(&b);
            CHECK(reopen(&b, l, 1, &restored) == 1);
            CHECK(restored == state);
            CHECK(digest(b.s) == live);
            if (failures) {
                fprintf(stderr, "round %d part %d\n", round, part);
                exit(1);
            }
            jsc_stream_solo(b.s, 1);
            jsc_stream_lead(b.s, (uint32_t)part + 2);
        }
        bed_free(&b);
    }
    CHECK(freed > 1000);
}

static void test_a_crash_at_any_call_leaves_the_old_or_the_new(void) {
    int snapshots = 0, replays = 0;
    for (int n = 1, over = 0; !over; n++) {
        bed b;
        jsc_stream_limits l = plain;
        l.max_msgs = 100;
        l.duplicate_window_ns = 1000000000;
        memset(&b, 0, sizeof b);
        b.sim = jsc_sim_new((uint64_t)n);
        b.unix_ns = 1700000000000000000ll;
        b.options.segment_bytes = 4096;
        bed_open(&b, &l);
        jsc_stream_solo(b.s, 1);
        jsc_stream_lead(b.s, 1);
        add_consumers(b.s);
        for (int second = n & 1; second >= 0 && !over; second--) { /* with one before it, and without */
            uint8_t *file;
            size_t size;
            uint64_t index, first, state, live;
            history(&b, 400);
            jsc_log_wait(b.log, jsc_log_last(b.log), -1);
            live = digest(b.s);
            if (!take(&b, &file, &size, &index, &first, &state, 0)) break;
            CHECK(live == state);
            if (second == 0) jsc_sim_die(b.sim, n / 2 + 1, 5);
            int rc = jsc_snapshot_write(jsc_sim_vfs(b.sim), "log", file, size);
            free(file);
            if (rc == JSC_OK) rc = jsc_log_trim(b.log, first, 1000);
            if (second) {
                CHECK(rc == JSC_OK && jsc_log_first(b.log) > 1);
                continue;
            }
            over = rc == JSC_OK && n > 60;
            jsc_stream_solo(b.s, 0);
            jsc_streams_free(b.all);
            jsc_log_abandon(b.log);
            jsc_store_close(b.store);
            jsc_plane_free(b.plane);
            jsc_sim_die(b.sim, 0, 0);
            jsc_sim_crash(b.sim, (n * 37) % 101, n & 2);
            if (reopen(&b, &l, 0, NULL)) snapshots++;
            else replays++;
            CHECK(digest(b.s) == live);
            jsc_stream_solo(b.s, 1);
            jsc_stream_lead(b.s, 2);
            history(&b, 20);
            settle(&b);
        }
        bed_free(&b);
        if (n > 400) CHECK(over);
        over |= n > 400;
    }
    CHECK(snapshots > 10 && replays > 3);
}

/* What a reader is told of one message. */
static uint64_t told(bed *b, uint64_t seq) {
    jsc_record r;
    CHECK(jsc_stream_get(b->s, seq, &r) == JSC_OK);
    uint64_t d = jsc_hash(r.subject, r.subject_len) * 3 + jsc_hash(r.data, r.data_len) * 5 + (uint64_t)r.ts;
    return r.headers_len ? d + jsc_hash(r.headers, r.headers_len) * 7 : d;
}

static void test_messages_that_stay_hold_up_nothing(void) {
    enum { STAY = 50, CYCLES = 20 };
    bed b;
    jsc_stream_limits l = plain;
    l.max_msgs_per_subject = 1;
    l.duplicate_window_ns = 0;
    memset(&b, 0, sizeof b);
    b.sim = jsc_sim_new(1);
    b.unix_ns = 1700000000000000000ll;
    b.options.segment_bytes = 8192;
    bed_open(&b, &l);
    jsc_stream_solo(b.s, 1);
    jsc_stream_lead(b.s, 1);
    add_consumers(b.s);
    char subject[32], text[64];
    uint64_t before[STAY], last = 0;
    for (int i = 0; i < STAY; i++) {
        snprintf(subject, sizeof subject, "s.stays.%d", i);
        snprintf(text, sizeof text, "the %d. of those that stay", i);
        fake_pub(b.plane, subject, NULL, i & 1 ? "NATS/1.0\r\nA: b\r\n\r\n" : NULL, text);
        later(&b, 1000000);
    }
    settle(&b);
    for (int i = 0; i < STAY; i++) before[i] = told(&b, (uint64_t)i + 1);
    for (int cycle = 0; cycle < CYCLES; cycle++) {
        for (int i = 0; i < 300; i++) fake_pub(b.plane, "s.changes", NULL, NULL, "again and again");
        settle(&b);
        CHECK(jsc_stream_keeps(b.s) <= last + 1);
        last = jsc_log_last(b.log);
        for (int rc = 1; rc; settle(&b)) {
            CHECK((rc = jsc_stream_move(b.s, last + 1, 1000)) >= 0);
            uint64_t appended = jsc_log_last(b.log);
            CHECK(jsc_stream_move(b.s, last + 1, 1000) == rc);
            CHECK(jsc_log_last(b.log) == appended); /* not before those are applied */
        }
        CHECK(jsc_stream_keeps(b.s) >= last);
        uint8_t *file;
        size_t n;
        uint64_t index, first, state, restored;
        CHECK(take(&b, &file, &n, &index, &first, &state, 0));
        CHECK(jsc_snapshot_write(jsc_sim_vfs(b.sim), "log", file, n) == JSC_OK);
        free(file);
        CHECK(jsc_log_trim(b.log, first, 1000) == JSC_OK);
        CHECK(jsc_log_last(b.log) - jsc_log_first(b.log) < 600);
        bed_close(&b);
        CHECK(reopen(&b, &l, 0, &restored) == 1 && restored == state);
        for (int i = 0; i < STAY; i++) CHECK(told(&b, (uint64_t)i + 1) == before[i]);
        jsc_stream_solo(b.s, 1);
        jsc_stream_lead(b.s, (uint32_t)cycle + 2);
    }
    CHECK(b.s->moves.n - b.s->moves.head <= 2 * STAY + 8192);
    bed_free(&b);
}

/* Two messages, `leap` sequences apart, and the first one said to be `first`. */
static int restore_two(bed *b, uint64_t leap, uint64_t first) {
    static const uint8_t room[JSC_SNAPSHOT_HEAD];
    const uint64_t one = jsc_entry_index(jsc_seqs_at(&b->s->seqs, 1)),
                   two = jsc_entry_index(jsc_seqs_at(&b->s->seqs, 2));
    uint64_t fields[] = {2,   b->s->bytes, first, 1 + leap,      two,      0, 0, 0, 0, 0,
                         one, 1,           1,     two - one - 1, leap - 1, 1, 0, 0, 0};
    jsc_snapshot_head head = {.index = jsc_stream_applied(b->s), .first = one};
    jsc_bytes file = {0};
    jsc_stream *s;
    uint64_t lost;
    CHECK(jsc_log_term(b->log, head.index, &head.term) == JSC_OK);
    CHECK(jsc_bytes_add(&file, room, sizeof room) == JSC_OK);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) jsc_varint_put(&file, fields[i]);
    jsc_snapshot_seal(file.p, file.n, &head);
    CHECK(jsc_stream_new(b->all, b->log, 12, jsc_plane_account(b->plane, "$G", 2), "T", 1, &s) == JSC_OK);
    int rc = jsc_stream_restore(s, file.p, file.n, 0, &lost);
    jsc_stream_free(s);
    jsc_log_set_owner(b->log, &b->s->owner);
    jsc_bytes_free(&file);
    return rc;
}

/* Each sequence was a record: what lies further apart than there are records would only take memory. */
static void test_sequences_that_no_records_were(void) {
    bed b;
    bed_new(&b, &plain);
    pub(&b, "s.a", NULL, "x");
    pub(&b, "s.a", NULL, "x");
    for (int i = 0; i < 9; i++) jsc_stream_delete(b.s, 99, NULL, 0); /* records that are no messages */
    settle(&b);
    CHECK(restore_two(&b, 1, 1) == JSC_OK);
    CHECK(restore_two(&b, 3, 1) == JSC_OK);
    CHECK(restore_two(&b, 1 << 22, 1) == JSC_ECORRUPT);
    CHECK(restore_two(&b, 3, 4) == JSC_ECORRUPT); /* and one stands before it */
    bed_free(&b);
}

/* The newest messages are gone when the snapshot is taken: what is made from it holds nothing that far up. */
static void test_the_newest_are_gone(void) {
    bed b;
    bed_new(&b, &plain);
    jsc_consumer *c;
    jsc_consumer_state st;
    for (int i = 0; i < 10; i++) fake_pub(b.plane, "s.0.0", NULL, NULL, "stays");
    for (int i = 0; i < 20000; i++) fake_pub(b.plane, "s.1.1", NULL, NULL, "goes");
    settle(&b);
    add_consumers(b.s);
    CHECK(jsc_stream_purge(b.s, "s.1.1", 5, 0, 0, "_INBOX.d", 8) == JSC_OK);
    settle(&b);
    CHECK(b.s->messages == 10 && b.s->last_seq == 20010);
    uint8_t *file;
    size_t n;
    uint64_t index, first, state, restored = 0;
    CHECK(take(&b, &file, &n, &index, &first, &state, 0));
    CHECK(jsc_snapshot_write(jsc_sim_vfs(b.sim), "log", file, n) == JSC_OK);
    free(file);
    bed_close(&b);
    CHECK(reopen(&b, &plain, 0, &restored) == 1 && restored == state);
    CHECK((c = jsc_consumer_by_id(b.s, 1)) != NULL);
    jsc_consumer_stat(c, &st);
    CHECK(st.num_pending == 10);
    jsc_stream_solo(b.s, 1);
    jsc_stream_lead(b.s, 2);
    fake_pub(b.plane, "s.0.0", NULL, NULL, "more");
    settle(&b);
    jsc_consumer_stat(c, &st);
    CHECK(st.num_pending == 11 && b.s->last_seq == 20011);
    bed_free(&b);
}

static void test_damage_never_passes_for_state(void) {
    bed b;
    bed_new(&b, &plain);
    add_consumers(b.s);
    history(&b, 400);
    uint8_t *file, *got;
    size_t n, m;
    int hurt;
    uint64_t index, first, state, lost;
    jsc_snapshot_head head;
    CHECK(take(&b, &file, &n, &index, &first, &state, 0));
    const jsc_vfs *vfs = jsc_sim_vfs(b.sim);
    CHECK(jsc_snapshot_write(vfs, "log", file, n) == JSC_OK);
    for (size_t at = 0; at < n; at += 1 + at / 40) {
        file[at] ^= 4;
        CHECK(jsc_snapshot_check(file, n, &head) < 0);
        CHECK(jsc_stream_restore(b.s, file, n, 0, &lost) < 0);
        file[at] ^= 4;
        CHECK(jsc_snapshot_check(file, at, &head) < 0);
    }
    CHECK(jsc_sim_flip(b.sim, "log/snapshot", 90, 3) == JSC_OK);
    CHECK(jsc_snapshot_read(vfs, "log", &got, &m, &hurt) == JSC_OK && hurt && m == n && !memcmp(got, file, n));
    free(got);
    CHECK(jsc_sim_flip(b.sim, "log/snapshot.copy", 20, 3) == JSC_OK);
    CHECK(jsc_snapshot_read(vfs, "log", &got, &m, &hurt) == JSC_ECORRUPT);
    /* Bytes that verify and say nonsense: an error, and nothing worse. */
    for (int i = 0; i < 3000; i++) {
        uint8_t *bad = malloc(n);
        memcpy(bad, file, n);
        for (uint32_t k = 1 + roll(3); k; k--)
            bad[JSC_SNAPSHOT_HEAD + roll((uint32_t)(n - JSC_SNAPSHOT_HEAD))] = (uint8_t)roll(256);
        jsc_snapshot_head h = {index, first, 1, 0};
        jsc_snapshot_seal(bad, n, &h);
        jsc_stream *s;
        CHECK(jsc_stream_new(b.all, b.log, 12, jsc_plane_account(b.plane, "$G", 2), "T", 1, &s) == JSC_OK);
        int rc = jsc_stream_restore(s, bad, n, (int)(i & 1), &lost);
        CHECK(rc == JSC_OK || rc == JSC_ECORRUPT);
        if (rc == JSC_OK) {
            add_consumers(s);
            rc = jsc_stream_restore_consumers(s);
            CHECK(rc == JSC_OK || rc == JSC_ECORRUPT);
        }
        jsc_stream_free(s);
        free(bad);
    }
    jsc_log_set_owner(b.log, &b.s->owner);
    free(file);
    bed_free(&b);
}

/* More ids than are written in one step, and then no window any more: what is not written yet is gone. */
static void test_a_window_that_ends_while_its_ids_are_written(void) {
    bed b;
    bed_new(&b, &plain);
    for (int i = 0; i < 66000; i++) {
        char headers[64];
        snprintf(headers, sizeof headers, "NATS/1.0\r\nNats-Msg-Id: %d\r\n\r\n", i);
        fake_pub(b.plane, "s.a", NULL, headers, "x");
        if (i % 1000 == 999) settle(&b);
    }
    jsc_stream_state st;
    jsc_stream_stat(b.s, &st);
    CHECK(st.messages == 66000);
    CHECK(jsc_stream_snapshot_begin(b.s, "", 0) == JSC_OK);
    jsc_stream_limits l = plain;
    l.duplicate_window_ns = 0;
    CHECK(jsc_stream_configure(b.s, &l) == JSC_OK);
    CHECK(jsc_stream_snapshot_step(b.s) == JSC_EINVAL);
    jsc_stream_snapshot_end(b.s);
    bed_free(&b);
}

int main(void) {
    test_a_window_that_ends_while_its_ids_are_written();
    test_a_snapshot_and_what_follows_make_the_same_state();
    test_a_crash_at_any_call_leaves_the_old_or_the_new();
    test_messages_that_stay_hold_up_nothing();
    test_sequences_that_no_records_were();
    test_the_newest_are_gone();
    test_damage_never_passes_for_state();
    printf(failures ? "%d failures\n" : "snapshot: all passed\n", failures);
    return failures != 0;
}
