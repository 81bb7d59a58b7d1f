/* Snapshots of a hostile peer or a bad disk whose checksum holds: a stream is made from them, or refused, and one that
 * is made takes whatever comes next. First byte, bit 0: damaged records may be missing. Then the body of a snapshot file
 * of one sound log, which stays the same. */
#include "../../log/snapshot.h"
#include "../../base/fuzz/driver.h"
#include "../test/bed.h"
#include "../test/fake_plane.c"

static bed b;
static jsc_snapshot_head head;
static uint8_t *sound;
static size_t sound_n;
static int made;

static void open_log(void) {
    if (b.s) return;
    rng = 88172645463325252u; /* the same log each time */
    const uint8_t *p;
    jsc_consumer *c;
    jsc_consumer_options last = explicit_pull;
    bed_new(&b, &plain);
    add_consumers(b.s);
    history(&b, 300);
    last.deliver_policy = JSC_DELIVER_LAST_PER_SUBJECT;
    if (jsc_consumer_new(b.s, 4, "F", 1, 0, &last, &c)) abort();
    history(&b, 100);
    if (jsc_stream_snapshot_begin(b.s, "host", 4)) abort();
    while (jsc_stream_snapshot_step(b.s) == 0);
    if (jsc_stream_snapshot_file(b.s, &p, &sound_n, &head.index, &head.first)) abort();
    if (jsc_log_term(b.log, head.index, &head.term)) abort();
    if (head.first > 1 && jsc_log_term(b.log, head.first - 1, &head.before)) abort();
    sound = malloc(sound_n);
    if (!sound) abort();
    memcpy(sound, p, sound_n);
    jsc_stream_snapshot_end(b.s);
    history(&b, 50); /* what follows the snapshot */
    jsc_stream_follow(b.s);
}

static void use(jsc_stream *s) {
    jsc_consumer_state st;
    jsc_stream_state state;
    jsc_stream_lead(s, 2);
    for (jsc_consumer *c = s->consumers; c; c = c->next) jsc_consumer_stat(c, &st);
    jsc_stream_stat(s, &state);
    uint64_t seq;
    jsc_stream_seq_at(s, state.last_ts, &seq);
    jsc_stream_seq_at(s, b.unix_ns, &seq);
    if (s->messages > s->last_seq || (s->messages && s->first_seq > s->last_seq)) abort();
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.T.C", "_INBOX.pull", NULL, "3");
    fake_pub(b.plane, "$JS.API.CONSUMER.MSG.NEXT.T.F", "_INBOX.pull", NULL, "3");
    fake_turn(b.plane);
    fake_pub(b.plane, "$JS.ACK.T.C.1.1.1.1.1", NULL, NULL, "+ACK");
    fake_pub(b.plane, "$JS.ACK.T.D.1.3.1.1.1", NULL, NULL, "-NAK");
    fake_turn(b.plane);
    if (jsc_stream_snapshot_begin(s, "host", 4) == JSC_OK)
        while (jsc_stream_snapshot_step(s) == 0);
    jsc_stream_snapshot_end(s);
    for (jsc_consumer *c = s->consumers; c; c = c->next) jsc_consumer_stat(c, &st);
    jsc_stream_follow(s);
    fake_clear(b.plane);
    uint64_t x, y;
    for (int type = 0; type < 64; type++)
        while (fake_event(b.plane, type, &x, &y));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    jsc_stream *s;
    jsc_consumer *c;
    jsc_consumer_options last = explicit_pull;
    uint64_t lost;
    const uint8_t *host;
    size_t hn;
    if (n < 2 || n > 1 << 20) return 0;
    open_log();
    uint8_t *file = malloc(JSC_SNAPSHOT_HEAD + n - 1);
    if (!file) abort();
    memcpy(file + JSC_SNAPSHOT_HEAD, data + 1, n - 1);
    n += JSC_SNAPSHOT_HEAD - 1;
    jsc_snapshot_seal(file, n, &head);
    if (jsc_stream_new(b.all, b.log, 12, jsc_plane_account(b.plane, "$G", 2), "T", 1, &s)) abort();
    jsc_stream_configure(s, &plain);
    int rc = jsc_stream_snapshot_host(file, n, &host, &hn);
    if (rc == JSC_OK && hn > (size_t)(file + n - host)) abort();
    rc = jsc_stream_restore(s, file, n, data[0] & 1, &lost);
    if (rc != JSC_OK && rc != JSC_ECORRUPT) abort();
    free(file);
    if (rc == JSC_OK) {
        add_consumers(s);
        last.deliver_policy = JSC_DELIVER_LAST_PER_SUBJECT;
        if (jsc_consumer_new(s, 4, "F", 1, 0, &last, &c)) abort();
        rc = jsc_stream_restore_consumers(s);
        if (rc != JSC_OK && rc != JSC_ECORRUPT) abort();
        if (rc == JSC_OK) use(s);
        made++;
    }
    jsc_stream_free(s);
    jsc_log_set_owner(b.log, &b.s->owner);
    if (made == 500) { /* what they did is in the log, which is to stay small */
        bed_free(&b);
        free(sound);
        memset(&b, 0, sizeof b);
        made = 0;
    }
    return 0;
}

static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    open_log();
    p->lead = 1;
    p->draw[0] = 1;
    p->likes = "\0\1\2\177\200\377";
    p->nlikes = 6;
    p->head = 40; /* the counters and what the host said, then the consumers */
    p->tail = sound_n / 2;
    jsc_fuzz_add(p, "\0", sound + JSC_SNAPSHOT_HEAD, sound_n - JSC_SNAPSHOT_HEAD);
}
