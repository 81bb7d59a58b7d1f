/* Streams behind the real plane: one client over a socketpair, a real log in a temporary directory. */
#include "../jsc_stream.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int failures;
#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #x);                                                    \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

typedef struct bed {
    char dir[64];
    jsc_plane *plane;
    jsc_store *store;
    jsc_log *log;
    jsc_streams *all;
    jsc_stream *s;
    int fd;
    char *in;
    size_t n, cap;
} bed;

static void pump(bed *b, int64_t timeout_ns) {
    jsc_ready ready[4];
    jsc_event e;
    jsc_plane_poll(b->plane, timeout_ns, ready, 4);
    while (jsc_plane_next(b->plane, &e)) {
        if (e.type == JSC_EV_CONNECT) {
            jsc_conn_options o = {.account = jsc_plane_account(b->plane, "$G", 2),
                                  .echo = 1,
                                  .headers = 1,
                                  .no_responders = 1,
                                  .protocol = 1};
            jsc_conn_accept(b->plane, e.conn, &o);
        }
        jsc_event_done(&e);
    }
    for (;;) {
        if (b->cap - b->n < 65537) {
            b->cap = b->cap ? b->cap * 2 : 1 << 20;
            b->in = realloc(b->in, b->cap);
        }
        ssize_t k = read(b->fd, b->in + b->n, b->cap - b->n - 1);
        if (k <= 0) break;
        b->n += (size_t)k;
        b->in[b->n] = 0;
    }
}

/* Sends all of the text, serving the plane while the socket is full. */
static void say(bed *b, const char *text, size_t n) {
    while (n) {
        ssize_t k = write(b->fd, text, n);
        if (k > 0) {
            text += k;
            n -= (size_t)k;
        } else {
            pump(b, 1000000);
        }
    }
}

static int count(const char *hay, const char *needle) {
    int n = 0;
    for (const char *p = hay; (p = strstr(p, needle)); p++) n++;
    return n;
}

static int await(bed *b, const char *needle, int times) {
    for (int i = 0; i < 1000; i++) {
        if (b->in && count(b->in, needle) >= times) return 1;
        pump(b, 10000000);
    }
    return 0;
}

static void bed_new(bed *b) {
    memset(b, 0, sizeof *b);
    strcpy(b->dir, "/tmp/jsc-stream-XXXXXX");
    if (!mkdtemp(b->dir)) exit(1);
    jsc_plane_options po = {.max_payload = 1 << 20,
                            .max_control_line = 4096,
                            .max_pending = 64 << 20,
                            .ping_interval_ns = 120000000000ll,
                            .ping_max = 2};
    jsc_log_recovery rec;
    char dir[80];
    snprintf(dir, sizeof dir, "%s/log", b->dir);
    int rc = jsc_plane_new(&po, &b->plane);
    rc = rc ? rc : jsc_store_open(jsc_vfs_posix(), JSC_SYNC_NEVER, 0, &b->store);
    rc = rc ? rc : jsc_log_open(b->store, dir, NULL, &b->log, &rec);
    rc = rc ? rc : jsc_streams_new(b->plane, b->store, &b->all);
    rc = rc ? rc : jsc_stream_new(b->all, b->log, 1, jsc_plane_account(b->plane, "$G", 2), "S", 1, &b->s);
    if (rc) {
        fprintf(stderr, "setup: %d\n", rc);
        exit(1);
    }
    jsc_stream_limits l = {.max_msgs = -1,
                           .max_bytes = -1,
                           .max_msgs_per_subject = -1,
                           .max_msg_size = -1,
                           .duplicate_window_ns = 120000000000ll,
                           .file_storage = 1};
    jsc_stream_configure(b->s, &l);
    const char *subject = "s.>";
    uint32_t len = 3;
    jsc_stream_subjects(b->s, &subject, &len, 1);
    jsc_stream_solo(b->s, 1);
    jsc_stream_lead(b->s, 1);
    int pair[2];
    uint64_t id;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair)) exit(1);
    b->fd = pair[0];
    CHECK(jsc_conn_adopt(b->plane, pair[1], JSC_CONN_CLIENT, "INFO {}\r\n", 9, &id) == JSC_OK);
    const char *hello = "CONNECT {\"verbose\":false}\r\nPING\r\nSUB _INBOX.> 1\r\n";
    say(b, hello, strlen(hello));
    CHECK(await(b, "PONG", 1));
}

static void bed_free(bed *b) {
    jsc_streams_free(b->all);
    jsc_plane_free(b->plane);
    jsc_log_abandon(b->log);
    jsc_store_close(b->store);
    close(b->fd);
    free(b->in);
    char cmd[100];
    snprintf(cmd, sizeof cmd, "rm -rf %s", b->dir);
    CHECK(system(cmd) == 0);
}

static void test_a_client_publishes_pulls_and_acks(void) {
    bed b;
    bed_new(&b);
    const char *p =
        "PUB s.a _INBOX.1 5\r\nhello\r\nHPUB s.b _INBOX.2 30 31\r\nNATS/1.0\r\nNats-Msg-Id: id1\r\n\r\nx\r\n"
        "HPUB s.b _INBOX.3 30 31\r\nNATS/1.0\r\nNats-Msg-Id: id1\r\n\r\nx\r\n";
    say(&b, p, strlen(p));
    CHECK(await(&b, "MSG _INBOX.1 1 22\r\n{\"stream\":\"S\",\"seq\":1}\r\n", 1));
    CHECK(await(&b, "{\"stream\":\"S\",\"seq\":2,\"duplicate\": true}\r\n", 1));
    jsc_consumer *c;
    jsc_consumer_options o = {
        .ack_policy = JSC_ACK_EXPLICIT, .ack_wait_ns = 30000000000ll, .max_deliver = -1, .max_ack_pending = 1000};
    CHECK(jsc_consumer_new(b.s, 9, "C", 1, 0, &o, &c) == JSC_OK);
    const char *ask = "{\"batch\":5,\"expires\":50000000}";
    char line[200];
    int n = snprintf(line, sizeof line, "PUB $JS.API.CONSUMER.MSG.NEXT.S.C _INBOX.9 %zu\r\n%s\r\n", strlen(ask), ask);
    say(&b, line, (size_t)n);
    CHECK(await(&b, "MSG s.a 1 $JS.ACK.S.C.1.1.1.", 1));
    CHECK(await(&b, "HMSG s.b 1 $JS.ACK.S.C.1.2.2.", 1));
    CHECK(await(&b, "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n", 1));
    p = "PUB $JS.ACK.S.C.1.1.1.0.0 _INBOX.ok 4\r\n+ACK\r\nPUB $JS.ACK.S.C.1.2.2.0.0 4\r\n+ACK\r\n";
    say(&b, p, strlen(p));
    CHECK(await(&b, "MSG _INBOX.ok 1 0\r\n", 1));
    jsc_consumer_state st;
    jsc_consumer_stat(c, &st);
    CHECK(st.num_ack_pending == 0 && st.ack_floor_stream == 2);
    bed_free(&b);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Every message of a large run is acked and comes back once, in order, through a push consumer. */
static void test_many_messages_pass_in_order(void) {
    enum { N = 5000 };
    bed b;
    bed_new(&b);
    char *all = malloc(N * 80), *at = all;
    for (int i = 0; i < N; i++) at += sprintf(at, "PUB s.%d _INBOX.a 8\r\n%08d\r\n", i % 10, i);
    double t = now();
    say(&b, all, (size_t)(at - all));
    CHECK(await(&b, "\"seq\":5000}", 1));
    fprintf(stderr, "published %.0f/s\n", N / (now() - t));
    CHECK(count(b.in, "{\"stream\":\"S\",\"seq\":") == N);
    b.n = 0;
    const char *sub = "SUB push 7\r\nPING\r\n";
    say(&b, sub, strlen(sub));
    CHECK(await(&b, "PONG", 1));
    b.n = 0;
    jsc_consumer *c;
    jsc_consumer_options o = {
        .ack_policy = JSC_ACK_NONE, .max_deliver = -1, .deliver_subject = "push", .deliver_subject_len = 4};
    t = now();
    CHECK(jsc_consumer_new(b.s, 9, "C", 1, 0, &o, &c) == JSC_OK);
    CHECK(await(&b, "00004999\r\n", 1));
    fprintf(stderr, "delivered %.0f/s\n", N / (now() - t));
    const char *p = b.in;
    int next = 0;
    while ((p = strstr(p, "MSG s."))) {
        const char *body = strstr(p, "\r\n");
        if (!body || atoi(body + 2) != next) break;
        next++;
        p = body;
    }
    CHECK(next == N);
    free(all);
    bed_free(&b);
}

/* What is looked up among all subjects once it is applied: a turn takes only so many of those. */
static void test_a_flood_of_conditions_on_patterns(void) {
    enum { SUBJECTS = 8000, FLOOD = 400 };
    bed b;
    bed_new(&b);
    char *all = malloc(SUBJECTS * 40), *at = all;
    for (int i = 0; i < SUBJECTS; i++)
        at += sprintf(at, "PUB s.%d %s0\r\n\r\n", i, i + 1 < SUBJECTS ? "" : "_INBOX.a ");
    say(&b, all, (size_t)(at - all));
    CHECK(await(&b, "\"seq\":8000}", 1));
    for (int rollup = 0; rollup < 2; rollup++) {
        const char *h = rollup ? "NATS/1.0\r\nNats-Rollup: sub\r\n\r\n"
                               : "NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 1\r\n"
                                 "Nats-Expected-Last-Subject-Sequence-Subject: s.*\r\n\r\n";
        uint64_t first = jsc_log_last(b.log);
        at = all;
        for (int i = 0; i < FLOOD; i++)
            at += sprintf(at, "HPUB %s %zu %zu\r\n%s\r\n", rollup ? "s.*.nobody" : "s.a", strlen(h), strlen(h), h);
        for (char *p = all; p < at || jsc_log_last(b.log) < first + FLOOD;) {
            ssize_t k = p < at ? write(b.fd, p, (size_t)(at - p)) : 0;
            if (k > 0) p += k;
            uint64_t before = jsc_log_last(b.log);
            pump(&b, 0);
            CHECK((jsc_log_last(b.log) - before) * (SUBJECTS / 4) <= 2 * 65536);
            if (failures) break;
        }
    }
    free(all);
    bed_free(&b);
}

/* Others get a leader's records before it writes them itself, and that it wrote them tells nobody: who answers looks. */
static void test_a_leader_tells_before_it_writes(void) {
    bed b;
    bed_new(&b);
    const char *p = "PUB s.a 5\r\nhello\r\n";
    say(&b, p, strlen(p));
    for (int i = 0; i < 1000 && jsc_log_durable(b.log) < 1; i++) pump(&b, 10000000); /* the file is there */
    jsc_stream_solo(b.s, 0);
    for (uint64_t index = 2; index < 5; index++) {
        jsc_ready ready[4];
        jsc_event e;
        int told = 0, others = 0;
        say(&b, p, strlen(p));
        jsc_plane_poll(b.plane, 1000000000, ready, 4);
        while (jsc_plane_next(b.plane, &e)) {
            told += e.type == JSC_EV_APPENDED && e.b == index;
            jsc_event_done(&e);
        }
        CHECK(told == 1 && jsc_log_last(b.log) == index && jsc_log_durable(b.log) < index);
        jsc_plane_poll(b.plane, 0, ready, 4);
        while (jsc_plane_next(b.plane, &e)) {
            others++;
            jsc_event_done(&e);
        }
        CHECK(others == 0 && jsc_log_durable(b.log) == index);
    }
    say(&b, p, strlen(p));
    jsc_ready ready[4];
    jsc_plane_poll(b.plane, 1000000000, ready, 4);
    CHECK(jsc_log_last(b.log) == 5 && jsc_log_durable(b.log) < 5);
    bed_free(&b); /* also while one is to be written still */
}

int main(void) {
    test_a_leader_tells_before_it_writes();
    test_a_flood_of_conditions_on_patterns();
    test_a_client_publishes_pulls_and_acks();
    test_many_messages_pass_in_order();
    printf(failures ? "%d failures\n" : "plane: all passed\n", failures);
    return failures != 0;
}
