/* The data plane over socket pairs: what a client, a peer and a link can see. */
#include "../plane.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct peer {
    int fd;
    uint64_t id;
    jsc_plane *p;
    char *got; /* everything received and not yet taken */
    size_t n, cap;
    int eof;
} peer;

static char closed_reason[128];
static char last_event[1 << 16];
static int last_type, frames, msgs;
static jsc_conn_options opt = {.echo = 1, .headers = 1, .no_responders = 1};

static jsc_plane *plane_with(jsc_plane_options o) {
    jsc_plane *p;
    assert(!jsc_plane_new(&o, &p));
    return p;
}
static jsc_plane *plane(void) { return plane_with((jsc_plane_options){0}); }

static void drain(peer *c) {
    for (;;) {
        if (c->cap - c->n < 65536) c->got = realloc(c->got, c->cap += 1 << 17);
        ssize_t k = recv(c->fd, c->got + c->n, c->cap - c->n - 1, MSG_DONTWAIT);
        if (k == 0) c->eof = 1;
        if (k <= 0) break;
        c->n += (size_t)k;
    }
    c->got[c->n] = 0;
}

static void events(jsc_plane *p) {
    for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
        last_type = e.type;
        if (e.type == JSC_EV_CLOSED) snprintf(closed_reason, sizeof closed_reason, "%s", e.data);
        if (e.type == JSC_EV_CONNECT && e.conn_kind == JSC_CONN_CLIENT) {
            jsc_conn_options o = opt;
            o.account = jsc_plane_account(p, "$G", 2);
            assert(!jsc_conn_accept(p, e.conn, &o));
        }
        if (e.type == JSC_EV_FRAME) frames++;
        if (e.type == JSC_EV_MSG) msgs++;
        snprintf(last_event, sizeof last_event, "%.*s", (int)e.data_len, e.data);
    }
}

static void turn(jsc_plane *p) {
    jsc_ready r[8];
    for (int i = 0; i < 4; i++) {
        assert(jsc_plane_poll(p, 0, r, 8) >= 0);
        events(p);
    }
}

static peer join(jsc_plane *p, int kind) {
    int sv[2];
    peer c = {.p = p};
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
    c.fd = sv[1];
    assert(!jsc_conn_adopt(p, sv[0], kind, "INFO {} \r\n", 10, &c.id));
    turn(p);
    drain(&c);
    assert(c.n == 10);
    c.n = 0;
    return c;
}

static void say(peer *c, const char *s, size_t n) {
    while (n) {
        ssize_t k = send(c->fd, s, n, MSG_NOSIGNAL);
        if (k > 0) {
            s += k;
            n -= (size_t)k;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            break;
        }
        turn(c->p);
    }
}

static void expect_at(peer *c, const char *want, int line) {
    turn(c->p);
    drain(c);
    if (c->n != strlen(want) || memcmp(c->got, want, c->n)) {
        fprintf(stderr, "line %d: want [%s] got [%.*s]\n", line, want, (int)c->n, c->got);
        abort();
    }
    c->n = 0;
}
#define EXPECT(c, want) expect_at(&(c), want, __LINE__)
#define SAY(c, s) say(&(c), s, sizeof(s) - 1)

static void leave(peer *c) {
    close(c->fd);
    free(c->got);
    turn(c->p);
}
static peer client(jsc_plane *p) {
    peer c = join(p, JSC_CONN_CLIENT);
    SAY(c, "CONNECT {}\r\nPING\r\n");
    EXPECT(c, "PONG\r\n");
    return c;
}

static void test_write_deadline(void) {
    jsc_plane *p = plane_with((jsc_plane_options){.write_deadline_ns = 20000000});
    peer slow = client(p), from = client(p);
    static char big[1 << 16];
    memset(big, 'x', sizeof big);
    SAY(slow, "SUB > 1\r\n");
    turn(p);
    closed_reason[0] = 0;
    for (int i = 0; i < 64; i++) { /* more than the socket takes, less than may wait */
        SAY(from, "PUB a 65536\r\n");
        say(&from, big, sizeof big);
        SAY(from, "\r\n");
    }
    for (int i = 0; i < 5000 && !*closed_reason; i++) {
        jsc_ready r[8];
        assert(jsc_plane_poll(p, 1000000, r, 8) >= 0);
        events(p);
    }
    assert(!strcmp(closed_reason, "Slow Consumer (Write Deadline)"));
    jsc_plane_stats st;
    jsc_plane_stat(p, &st);
    assert(st.slow_consumers == 1 && st.slow_clients == 1);
    SAY(from, "PING\r\n");
    EXPECT(from, "PONG\r\n");
    leave(&slow);
    leave(&from);
    jsc_plane_free(p);
}

static void test_quoted_text(void) {
    char b[256];
    static const char in[] = "a\"b\\\a\x01\x7f\xff\xc3\xa9\xc2\xa0\xe2\x80\x8b\xed\xa0\x80";
    *jsc_put_quoted(b, in, sizeof in - 1) = 0;
    assert(!strcmp(b, "\"a\\\"b\\\\\\a\\x01\\x7f\\xff\xc3\xa9\\u00a0\\u200b\\xed\\xa0\\x80\""));
}

static void test_malformed(void) {
    static const struct {
        const char *in, *out;
        int closes;
    } rows[] = {
        {"FOO\r\n", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"\r\n", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"MSG a 1 1\r\nx\r\n", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"RMSG $G a 1\r\nx\r\n", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"HMSG a 1 1\r\nx\r\n", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"HMSG", "", 0},
        {"HMSG ", "", 0},
        {"hmsg\t a 1", "", 0},
        {"HMSG \n", "", 0},
        {"HMSG \r\n", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"HMSGx", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"hm", "", 0},
        {"HX", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"RM", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"PUB\r\n", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"SUB\r\n", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"UNSUB\r\n", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"PUB \r\n", "", 1},
        {"PUB a\r\n", "", 1},
        {"PUB a b c d\r\n", "", 1},
        {"PUB a -1\r\n", "", 1},
        {"PUB a x\r\n", "", 1},
        {"PUB a 0000000001\r\n", "", 1},
        {"PUB a 1\r\nxyz", "-ERR 'Unknown Protocol Operation'\r\n", 1},
        {"SUB a\r\n", "", 1},
        {"SUB a b c d\r\n", "", 1},
        {"UNSUB \r\n", "", 1},
        {"UNSUB 1 2 3\r\n", "", 1},
        {"SUB foo..bar 1\r\n", "-ERR 'Invalid Subject'\r\n", 0},
        {"SUB .a 1\r\n", "-ERR 'Invalid Subject'\r\n", 0},
        {"SUB a.>.b 1\r\n", "-ERR 'Invalid Subject'\r\n", 0},
        {"SUB a _sys_ 1\r\n", "-ERR 'Permissions Violation for Subscription to \"a\" using queue \"_sys_\"'\r\n", 0},
        {"HPUB a 10 5\r\n", "", 1},
        {"-ERR 'x'\r\n", "", 1},
        {"PUB a 2000000\r\n", "-ERR 'Maximum Payload Violation'\r\n", 1},
        {"PUB _GR_.x 0\r\n\r\n", "-ERR 'Permissions Violation for Publish to \"_GR_.x\"'\r\n", 0},
        {"PUB $NRG.x 0\r\n\r\n", "-ERR 'Permissions Violation for Publish to \"$NRG.x\"'\r\n", 0},
        {"PUB a _R_.x 0\r\n\r\n", "-ERR 'Permissions Violation for Publish with Reply of \"_R_.x\"'\r\n", 0},
        {"PUB a $JS.ACK.x 0\r\n\r\n", "-ERR 'Permissions Violation for Publish with Reply of \"$JS.ACK.x\"'\r\n", 0},
        {"pub a 1\nx\r\nSub  b\t2 \nPING whatever\r\n", "PONG\r\n", 0},
        {"+OK\r\nPONG\r\nINFO {}\r\nUNSUB nobody\r\nUNSUB nobody x\r\n", "", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        jsc_plane *p = plane();
        peer c = client(p);
        say(&c, rows[i].in, strlen(rows[i].in));
        expect_at(&c, rows[i].out, __LINE__);
        if (c.eof != rows[i].closes) fprintf(stderr, "row %zu: closed %d\n", i, c.eof), abort();
        leave(&c);
        jsc_plane_free(p);
    }
    char line[5000];
    for (int over = 0; over < 2; over++) { /* 4096 bytes of argument pass, one more does not, even without LF */
        jsc_plane *p = plane();
        peer c = client(p);
        memset(line, 'a', sizeof line);
        memcpy(line, "SUB ", 4);
        memcpy(line + 4 + 4096 + over - 2, " 1", 2);
        say(&c, line, (size_t)(4 + 4096 + over));
        if (!over) SAY(c, "\r\n");
        EXPECT(c, over ? "-ERR 'maximum control line exceeded'\r\n" : "");
        assert(c.eof == over);
        leave(&c);
        jsc_plane_free(p);
    }
    jsc_plane *p = plane_with((jsc_plane_options){.auth_required = 1});
    peer c = join(p, JSC_CONN_CLIENT);
    SAY(c, "PING\r\n");
    EXPECT(c, "-ERR 'Authorization Violation'\r\n");
    leave(&c);
    jsc_plane_free(p);
}

static void test_splits(void) {
    static const char in[] =
        "SUB a.* 1\r\nSUB a.b q 2\r\nPUB a.b 5\r\nhello\r\nPUB a.c r 002\r\nhi\r\nHPUB a.d 12 14\r\n"
        "NATS/1.0\r\n\r\nhi\r\nUNSUB 1\r\nPUB  a.b\t1\r\nx\r\nPING\r\n";
    static const char out[] =
        "MSG a.b 1 5\r\nhello\r\nMSG a.b 2 5\r\nhello\r\nMSG a.c 1 r 002\r\nhi\r\nHMSG a.d 1 12 14\r\n"
        "NATS/1.0\r\n\r\nhi\r\nMSG a.b 2 1\r\nx\r\nPONG\r\n";
    for (size_t cut = 0; cut < sizeof in - 1; cut++) {
        jsc_plane *p = plane();
        peer c = client(p);
        say(&c, in, cut);
        turn(p);
        say(&c, in + cut, sizeof in - 1 - cut);
        EXPECT(c, out);
        leave(&c);
        jsc_plane_free(p);
    }
    jsc_plane *p = plane();
    peer c = client(p);
    for (size_t i = 0; i < sizeof in - 1; i++) {
        say(&c, in + i, 1);
        turn(p);
    }
    EXPECT(c, out);
    leave(&c);
    jsc_plane_free(p);
}

static void test_pubsub(void) {
    jsc_plane *p = plane();
    peer a = client(p), b = client(p);
    SAY(b, "SUB foo.* 1\r\nSUB foo.> 2\r\nSUB * 3\r\nPING\r\n");
    EXPECT(b, "PONG\r\n");
    for (int i = 0; i < 4; i++) { /* not yet, newly and surely cached */
        SAY(a, "PUB foo.bar.baz 1\r\nx\r\n");
        EXPECT(b, "MSG foo.bar.baz 2 1\r\nx\r\n");
    }
    SAY(b, "SUB foo.bar.* 4\r\nUNSUB 2\r\nPING\r\n");
    EXPECT(b, "PONG\r\n");
    SAY(a, "PUB foo.bar.baz 1\r\nx\r\n");
    EXPECT(b, "MSG foo.bar.baz 4 1\r\nx\r\n");
    SAY(a, "PUB foo.* 1\r\ny\r\nPUB a..b 0\r\n\r\nPUB one 0\r\n\r\n");
    EXPECT(b, "MSG foo.* 1 1\r\ny\r\nMSG one 3 0\r\n\r\n");
    SAY(b, "SUB m.x 7\r\nSUB m.x 7\r\nUNSUB 7 2\r\nPING\r\n");
    EXPECT(b, "PONG\r\n");
    SAY(a, "PUB m.x 1\r\n1\r\nPUB m.x 1\r\n2\r\nPUB m.x 1\r\n3\r\n");
    EXPECT(b, "MSG m.x 7 1\r\n1\r\nMSG m.x 7 1\r\n2\r\n");
    /* inboxes: the prefix cache notices every kind of change */
    SAY(b, "UNSUB 3\r\nSUB _INBOX.x.* 8\r\nPING\r\n");
    EXPECT(b, "PONG\r\n");
    SAY(a, "PUB _INBOX.x.1 1\r\na\r\nPUB _INBOX.x.2 1\r\nb\r\n");
    EXPECT(b, "MSG _INBOX.x.1 8 1\r\na\r\nMSG _INBOX.x.2 8 1\r\nb\r\n");
    SAY(b, "SUB _INBOX.x.3 9\r\nPING\r\n");
    EXPECT(b, "PONG\r\n");
    SAY(a, "PUB _INBOX.x.3 0\r\n\r\n");
    drain(&b);
    turn(p);
    drain(&b);
    assert(strstr(b.got, " 8 0\r\n") && strstr(b.got, " 9 0\r\n"));
    b.n = 0;
    SAY(b, "UNSUB 9\r\nUNSUB 8\r\nPING\r\n");
    EXPECT(b, "PONG\r\n");
    SAY(a, "PUB _INBOX.x.4 0\r\n\r\n");
    EXPECT(b, "");
    /* nobody answers; own subscriptions with queue do not count for the 503 */
    SAY(a, "SUB in.* 5\r\nPUB no.one in.1 2\r\nhi\r\n");
    EXPECT(a, "HMSG in.1 5 38 38\r\nNATS/1.0 503\r\nNats-Subject: no.one\r\n\r\n\r\n");
    /* a receiver without headers */
    opt.headers = 0;
    peer d = client(p);
    opt.headers = 1;
    SAY(d, "SUB h 1\r\nPING\r\n");
    EXPECT(d, "PONG\r\n");
    SAY(a, "HPUB h r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nHPUB h 0 2\r\nhi\r\n");
    EXPECT(d, "MSG h 1 r 2\r\nhi\r\nMSG h 1 2\r\nhi\r\n");
    SAY(d, "HPUB h 12 12\r\nNATS/1.0\r\n\r\n\r\n");
    EXPECT(d, "");
    assert(d.eof);
    /* verbose, pedantic, no echo; a second CONNECT drops subscriptions */
    opt.verbose = opt.pedantic = 1;
    opt.echo = 0;
    SAY(a, "CONNECT {}\r\nSUB x.> 1\r\nPUB x.* 0\r\n\r\nPUB in.1 0\r\n\r\nPUB x.y x.z 0\r\n\r\nUNSUB 1\r\n");
    opt.verbose = opt.pedantic = 1;
    EXPECT(a, "+OK\r\n+OK\r\n-ERR 'Invalid Publish Subject'\r\n+OK\r\n+OK\r\n+OK\r\nHMSG x.z 1 35 35\r\n"
              "NATS/1.0 503\r\nNats-Subject: x.y\r\n\r\n\r\n+OK\r\n");
    opt = (jsc_conn_options){.echo = 1, .headers = 1, .no_responders = 1};
    leave(&a);
    leave(&b);
    leave(&d);
    jsc_plane_stats st;
    jsc_plane_stat(p, &st);
    assert(st.clients == 0 && st.subscriptions == 0);
    jsc_plane_free(p);
}

static int count(const char *s, const char *what) {
    int n = 0;
    for (; (s = strstr(s, what)); s++) n++;
    return n;
}

static void test_queues(void) {
    jsc_plane *p = plane();
    peer a = client(p), b = client(p);
    SAY(b, "SUB j q 1\r\nSUB j q 2\r\nSUB * q 3\r\nSUB j r 4\r\nSUB j 5\r\nPING\r\n");
    EXPECT(b, "PONG\r\n");
    for (int i = 0; i < 300; i++) {
        SAY(a, "PUB j 0\r\n\r\n");
        drain(&b);
    }
    turn(p);
    drain(&b);
    int n1 = count(b.got, "j 1 0"), n2 = count(b.got, "j 2 0"), n3 = count(b.got, "j 3 0");
    assert(n1 + n2 + n3 == 300 && n1 > 50 && n2 > 50 && n3 > 50);
    assert(count(b.got, "j 4 0") == 300 && count(b.got, "j 5 0") == 300);
    leave(&a);
    leave(&b);
    jsc_plane_free(p);
}

static void again(void *ctx, const jsc_msg *m);
typedef struct reenter {
    jsc_plane *p;
    jsc_sub *me, *other;
    int calls;
} reenter;
static void again(void *ctx, const jsc_msg *m) {
    reenter *r = ctx;
    r->calls++;
    jsc_msg out = {.account = m->account, .subject = "out", .subject_len = 3, .data = m->data, .data_len = m->data_len};
    jsc_publish(r->p, &out);
    if (r->other) jsc_unsubscribe(r->p, r->other);
    r->other = NULL;
    jsc_unsubscribe(r->p, r->me);
    assert(!jsc_subscribe_call(r->p, m->account, "in.>", 4, NULL, 0, 0, again, r, &r->me));
}
static void test_callbacks(void) {
    jsc_plane *p = plane();
    jsc_account *g = jsc_plane_account(p, "$G", 2);
    peer a = client(p);
    reenter r = {.p = p};
    SAY(a, "SUB out 1\r\nSUB in.* 2\r\nPING\r\n");
    EXPECT(a, "PONG\r\n");
    jsc_sub *host;
    assert(!jsc_subscribe_call(p, g, "in.*", 4, NULL, 0, 0, again, &r, &r.me));
    assert(!jsc_subscribe_host(p, g, "in.a", 4, NULL, 0, JSC_SUB_LENIENT, 77, &host));
    assert(jsc_interest(p, g, "in.a", 4) == 2);
    r.other = host;
    for (int i = 0; i < 5; i++) SAY(a, "PUB in.a 1\r\nx\r\n");
    turn(p);
    drain(&a);
    assert(r.calls == 5 && count(a.got, "MSG out 1 1") == 5 && count(a.got, "MSG in.a 2 1") == 5);
    a.n = 0;
    assert(!jsc_subscribe_host(p, g, "ev", 2, NULL, 0, 0, 5, &host));
    msgs = 0;
    SAY(a, "PUB ev 3\r\nabc\r\n");
    turn(p);
    assert(msgs == 1 && !strcmp(last_event, "abc"));
    /* delivered on one subject, shown as another */
    jsc_msg m = {
        .account = g, .subject = "orig", .subject_len = 4, .reply = "ack", .reply_len = 3, .data = "d", .data_len = 1};
    int busy = 0;
    assert(jsc_deliver(p, "out", 3, &m, &busy) == 1 && !busy);
    EXPECT(a, "MSG orig 1 ack 1\r\nd\r\n");
    assert(jsc_deliver(p, "nobody", 6, &m, &busy) == 0);
    leave(&a);
    jsc_plane_free(p);
}

/* Two planes joined by a pair of sockets, both ends ready. */
static void test_routes(void) {
    jsc_plane *p = plane(), *q = plane();
    int sv[2];
    uint64_t rp, rq;
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
    peer a = client(p), b = client(q);
    SAY(b, "SUB foo.* 1\r\nSUB w grp 2\r\nPING\r\n");
    EXPECT(b, "PONG\r\n");
    assert(!jsc_conn_adopt(p, sv[0], JSC_CONN_ROUTE, "", 0, &rp) &&
           !jsc_conn_adopt(q, sv[1], JSC_CONN_ROUTE, "", 0, &rq));
    assert(!jsc_conn_route_ready(q, rq, NULL));
    turn(q);
    turn(p);
    jsc_account *g = jsc_plane_account(p, "$G", 2);
    assert(jsc_interest(p, g, "foo.x", 5) == 0); /* counts from ready on */
    assert(!jsc_conn_route_ready(p, rp, NULL));
    turn(p);
    assert(jsc_interest(p, g, "foo.x", 5) == 1);
    SAY(a, "PUB foo.x 2\r\nhi\r\nPUB foo.y r 2\r\nho\r\nHPUB foo.z 12 12\r\nNATS/1.0\r\n\r\n\r\nPUB w 1\r\n1\r\nPUB w "
           "re 1\r\n2\r\n");
    turn(p);
    EXPECT(b, "MSG foo.x 1 2\r\nhi\r\nMSG foo.y 1 r 2\r\nho\r\nHMSG foo.z 1 12 12\r\nNATS/1.0\r\n\r\n\r\nMSG w 2 "
              "1\r\n1\r\nMSG w 2 re 1\r\n2\r\n");
    jsc_msg m = {.account = g,
                 .subject = "orig.s",
                 .subject_len = 6,
                 .reply = "$JS.ACK.S.C.1.2.3.4.5",
                 .reply_len = 21,
                 .data = "d",
                 .data_len = 1};
    int busy = 0;
    assert(jsc_deliver(p, "foo.d", 5, &m, &busy) == 1);
    turn(p);
    EXPECT(b, "MSG orig.s 1 $JS.ACK.S.C.1.2.3.4.5 1\r\nd\r\n");
    SAY(b, "UNSUB 1\r\nPING\r\n");
    EXPECT(b, "PONG\r\n");
    turn(p);
    assert(jsc_interest(p, g, "foo.x", 5) == 0 && jsc_interest(p, g, "w", 1) == 1);
    assert(!jsc_conn_close(q, rq, "Route Removed", NULL));
    turn(q);
    turn(p);
    assert(jsc_interest(p, g, "w", 1) == 0);
    assert(jsc_conn_write(p, rp, "x", 1) == JSC_ENOTFOUND);
    leave(&a);
    leave(&b);
    jsc_plane_free(p);
    jsc_plane_free(q);
    /* a message without a word is no message, also as the first that was ever heard */
    for (int i = 0; i < 3; i++) {
        static const char *const bare[] = {"RMSG \r\n", "HMSG \r\n", "LMSG \r\n"};
        p = plane();
        peer none = join(p, JSC_CONN_ROUTE);
        assert(!jsc_conn_route_ready(p, none.id, NULL));
        say(&none, bare[i], 7);
        turn(p);
        assert(!jsc_conn_find(p, none.id));
        leave(&none);
        jsc_plane_free(p);
    }
    /* a duplicate route: closed with interest heard but before it was ready */
    p = plane();
    peer early = join(p, JSC_CONN_ROUTE);
    SAY(early, "RS+ $G a\r\nRS+ $G b.> q 2\r\nRS+ $G c\r\nRS- $G c\r\n");
    turn(p);
    assert(!jsc_conn_close(p, early.id, "Duplicate Route", NULL));
    turn(p);
    leave(&early);
    jsc_plane_free(p);
    /* the bytes of a peer */
    p = plane();
    peer r = join(p, JSC_CONN_ROUTE), c = client(p);
    SAY(c, "SUB a 1\r\nSUB a 2\r\nSUB w g 3\r\nSUB w g 4\r\nPING\r\n");
    EXPECT(c, "PONG\r\n");
    assert(!jsc_conn_route_ready(p, r.id, NULL));
    turn(p);
    drain(&r);
    assert(count(r.got, "RS+ $G a\r\n") == 1 && count(r.got, "RS+ $G w g 2\r\n") == 1);
    r.n = 0;
    SAY(c, "UNSUB 1\r\nUNSUB 4\r\nUNSUB 3\r\nUNSUB 2\r\n");
    EXPECT(r, "RS+ $G w g 1\r\nRS- $G w g\r\nRS- $G a\r\n");
    SAY(c, "SUB a 1\r\nSUB a g 2\r\n");
    EXPECT(r, "RS+ $G a\r\nRS+ $G a g 1\r\n");
    SAY(r, "RS+ $G a\r\nRS+ $G b far 3\r\nLS+ o $G a\r\nA+ $G\r\nLMSG o $G a 0 1\r\nx\r\nRMSG $G a 1\r\n1\r\nRMSG $G a "
           "| g h 1\r\n2\r\n"
           "HMSG $G a + rep g 12 13\r\nNATS/1.0\r\n\r\n3\r\nRMSG nobody a 1\r\n4\r\n");
    EXPECT(c, "MSG a 1 1\r\nx\r\nMSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\nMSG a 2 1\r\n2\r\nHMSG a 1 rep 12 "
              "13\r\nNATS/1.0\r\n\r\n3\r\n"
              "HMSG a 2 rep 12 13\r\nNATS/1.0\r\n\r\n3\r\n");
    EXPECT(r, ""); /* never back, never on */
    SAY(c, "PUB b 1\r\nx\r\nPUB b rr 1\r\ny\r\nPUB a 1\r\nz\r\n");
    EXPECT(r, "RMSG $G b | far 1\r\nx\r\nRMSG $G b + rr far 1\r\ny\r\nRMSG $G a 1\r\nz\r\n");
    SAY(r, "SUB a 1\r\n");
    EXPECT(r, "-ERR 'Unknown Protocol Operation'\r\n");
    leave(&c);
    leave(&r);
    jsc_plane_free(p);
}

/* The pool: an account is on the connection it hashes to, or on its own one, where nobody names it. */
static void test_route_pool(void) {
    jsc_plane *p = plane();
    jsc_account *g = jsc_plane_account(p, "$G", 2), *sys = jsc_plane_account(p, "$SYS", 4);
    jsc_account *b = jsc_plane_account(p, "B", 1), *apart[] = {sys, b};
    assert(jsc_pool_hash("", 0) == 0x811c9dc5 && jsc_pool_hash("foobar", 6) == 0xbf9cf968); /* the published ones */
    peer c = client(p), pool[3], own = join(p, JSC_CONN_ROUTE);
    jsc_sub *s, *t;
    assert(!jsc_subscribe_host(p, sys, "s.x", 3, NULL, 0, 0, 1, &s));
    assert(!jsc_subscribe_host(p, b, "b.x", 3, "q", 1, 0, 2, &t));
    SAY(c, "SUB g.x 1\r\n");
    for (uint32_t i = 0; i < 3; i++) {
        pool[i] = join(p, JSC_CONN_ROUTE);
        jsc_route_options o = {.apart = apart, .apart_n = 2, .pool_size = 3, .pool_index = i};
        assert(!jsc_conn_route_ready(p, pool[i].id, &o));
    }
    jsc_route_options bad = {.pool_size = 3, .pool_index = 3}, only = {.only = sys};
    assert(jsc_conn_route_ready(p, own.id, &bad) == JSC_EINVAL);
    assert(!jsc_conn_route_ready(p, own.id, &only));
    turn(p);
    uint32_t home = jsc_pool_hash("$G", 2) % 3;
    for (uint32_t i = 0; i < 3; i++) EXPECT(pool[i], i == home ? "RS+ $G g.x\r\n" : "");
    EXPECT(own, "RS+ s.x\r\n");
    /* interest and messages without the account's name */
    SAY(own, "RS+ s.y\r\nRS+ s.y q 2\r\nLS+ o s.z\r\nRMSG s.x 1\r\n1\r\nRMSG s.x + r q 1\r\n2\r\nHMSG s.x 12 13\r\n"
             "NATS/1.0\r\n\r\n3\r\nLMSG o s.x 0 1\r\n4\r\n");
    turn(p);
    assert(msgs >= 4 && jsc_interest(p, sys, "s.y", 3) == 2 && jsc_interest(p, sys, "s.z", 3) == 1);
    jsc_msg m = {
        .account = sys, .subject = "s.y", .subject_len = 3, .reply = "r", .reply_len = 1, .data = "d", .data_len = 1};
    assert(jsc_publish(p, &m) > 0);
    turn(p);
    EXPECT(own, "RMSG s.y + r q 1\r\nd\r\n");
    SAY(own, "RS- s.y\r\nRS- s.y q\r\nLS- o s.z\r\n");
    turn(p);
    assert(jsc_interest(p, sys, "s.y", 3) == 0 && jsc_interest(p, sys, "s.z", 3) == 0);
    /* the peer refused a connection for B: it shares the pool */
    uint32_t at = jsc_pool_hash("B", 1) % 3;
    for (uint32_t i = 0; i < 3; i++) assert(!jsc_conn_route_share(p, pool[i].id, b));
    turn(p);
    for (uint32_t i = 0; i < 3; i++) EXPECT(pool[i], i == at ? "RS+ B b.x q 1\r\n" : "");
    jsc_unsubscribe(p, t);
    jsc_unsubscribe(p, s);
    SAY(c, "UNSUB 1\r\n");
    turn(p);
    EXPECT(own, "RS- s.x\r\n");
    for (uint32_t i = 0; i < 3; i++) {
        drain(&pool[i]);
        assert(count(pool[i].got, "RS- B b.x q\r\n") == (i == at) &&
               count(pool[i].got, "RS- $G g.x\r\n") == (i == home));
    }
    (void)g;
    SAY(own, "RS+\r\n"); /* not even a subject */
    turn(p);
    leave(&own);
    for (uint32_t i = 0; i < 3; i++) leave(&pool[i]);
    leave(&c);
    jsc_plane_free(p);
}

/* Nothing is taken from a route that the host has not made active, and it may vanish before that. */
static void test_route_not_ready(void) {
    jsc_plane *p = plane();
    peer c = client(p), r = join(p, JSC_CONN_ROUTE);
    jsc_account *g = jsc_plane_account(p, "$G", 2);
    SAY(c, "SUB a 1\r\n");
    last_type = 0;
    SAY(r, "INFO {}\r\nRS+ $G far\r\nRS+ $G w q 3\r\nRMSG $G a 1\r\nx\r\nINFO {\"later\":1}\r\n");
    turn(p);
    assert(last_type == JSC_EV_INFO && !strcmp(last_event, "{}"));
    EXPECT(c, "");
    assert(jsc_interest(p, g, "far", 3) == 0);
    closed_reason[0] = 0;
    leave(&r);
    assert(!strcmp(closed_reason, "Client Closed"));
    r = join(p, JSC_CONN_ROUTE);
    SAY(r, "RS+ $G far\r\nRS+ $G w q 3\r\nRMSG $G a 1\r\nx\r\nINFO {\"later\":1}\r\n");
    assert(!jsc_conn_route_ready(p, r.id, NULL));
    EXPECT(c, "MSG a 1 1\r\nx\r\n");
    assert(jsc_interest(p, g, "far", 3) == 1 && !strcmp(last_event, "{\"later\":1}"));
    leave(&r);
    assert(jsc_interest(p, g, "far", 3) == 0);
    leave(&c);
    jsc_plane_free(p);
}

/* A subject is only as long as it says: what lies behind it is not read. */
static void test_subject_ends_where_it_ends(void) {
    jsc_plane *p = plane();
    char *s = malloc(11);
    memcpy(s, "_INBOX.abc.", 11);
    jsc_msg m = {.account = jsc_plane_account(p, "$G", 2), .subject = s, .subject_len = 11};
    assert(jsc_publish(p, &m) == 0);
    free(s);
    jsc_plane_free(p);
}

/* Wildcards come and go beside many remembered subjects: every message still reaches whoever asks for it then. */
static void test_churn(void) {
    enum { SUBJECTS = 4000, ROUNDS = 60 };
    jsc_plane *p = plane();
    peer a = client(p), b = client(p);
    char line[64];
    SAY(a, "SUB o.> 1\r\nPING\r\n");
    EXPECT(a, "PONG\r\n");
    for (int twice = 0; twice < 3; twice++)
        for (int i = 0; i < SUBJECTS; i++) {
            say(&b, line, (size_t)snprintf(line, sizeof line, "PUB o.%d.x 1\r\ny\r\n", i));
            if (i % 200 == 0) drain(&a);
        }
    turn(p);
    drain(&a);
    a.n = 0;
    for (int i = 0; i < ROUNDS; i++) {
        say(&b, line, (size_t)snprintf(line, sizeof line, "SUB o.*.x %d\r\nPUB o.7.x 1\r\nz\r\nUNSUB %d\r\n", i, i));
        char want[64];
        snprintf(want, sizeof want, "MSG o.7.x %d 1\r\nz\r\n", i);
        expect_at(&b, want, __LINE__);
    }
    turn(p);
    drain(&a);
    assert(count(a.got, "MSG o.7.x 1 1\r\nz\r\n") == ROUNDS);
    leave(&a);
    leave(&b);
    jsc_plane_free(p);
}

static char traced[1 << 16];
static void collect(jsc_plane *p) {
    jsc_ready r[8];
    for (int i = 0; i < 4; i++) {
        assert(jsc_plane_poll(p, 0, r, 8) >= 0);
        for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e))
            if (e.type == JSC_EV_TRACE) {
                size_t n = strlen(traced);
                snprintf(traced + n, sizeof traced - n, "%s%s%.*s\n", e.a ? ">" : "<", e.b ? "=" : " ", (int)e.data_len,
                         e.data);
            }
    }
}

/* With tracing on, every line and payload of both directions becomes an event. */
static void test_trace(void) {
    jsc_plane *p = plane_with((jsc_plane_options){.trace = 1});
    peer c = join(p, JSC_CONN_CLIENT), r = join(p, JSC_CONN_ROUTE);
    assert(!jsc_conn_route_ready(p, r.id, NULL));
    collect(p);
    traced[0] = 0;
    send(c.fd, "SUB a q 1\r\nPUB a 2\r\nhi\r\nPUB b 0\r\n\r\nping\r\nSUB a..b 2\r\n", 53, 0);
    collect(p);
    assert(!strcmp(traced, "< SUB a q 1\n> RS+ $G a q 1\n> +OK\n< PUB a 2\n<=hi\n> +OK\n> MSG a 1 2\n>=hi\n"
                           "< PUB b 0\n> +OK\n< PING\n> PONG\n< SUB a..b 2\n> -ERR 'Invalid Subject'\n"));
    traced[0] = 0;
    send(r.fd, "RMSG $G a | q 2\r\nho\r\n", 21, 0);
    collect(p);
    assert(!strcmp(traced, "< RMSG $G a | q 2\n<=ho\n> MSG a 1 2\n>=ho\n"));
    leave(&c);
    leave(&r);
    jsc_plane_free(p);
    /* lines that nobody takes are dropped and counted, not kept for ever */
    p = plane_with((jsc_plane_options){.trace = 1});
    c = client(p);
    SAY(c, "SUB a 1\r\n");
    turn(p);
    static char big[1 << 20];
    jsc_msg m = {.account = jsc_plane_account(p, "$G", 2),
                 .subject = "a",
                 .subject_len = 1,
                 .data = big,
                 .data_len = sizeof big};
    for (int i = 0; i < 24; i++) assert(jsc_publish(p, &m) == 1);
    size_t held = 0;
    uint64_t lost = 0;
    for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) held += e.data_len;
    assert(held <= 17u << 20);
    assert(jsc_publish(p, &m) == 1);
    for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e))
        if (e.type == JSC_EV_TRACE && e.a == 2) lost = e.b;
    assert(lost > 0);
    leave(&c);
    jsc_plane_free(p);
}

/* JetStream's deliveries over a route wait when the route is far behind; they do not end it. */
static void test_deliver_waits_for_a_route(void) {
    jsc_plane *p = plane_with((jsc_plane_options){.max_pending = 1 << 20});
    peer r = join(p, JSC_CONN_ROUTE);
    assert(!jsc_conn_route_ready(p, r.id, NULL));
    SAY(r, "RS+ $G in\r\n");
    turn(p);
    static char big[100000];
    jsc_msg m = {.account = jsc_plane_account(p, "$G", 2),
                 .subject = "orig",
                 .subject_len = 4,
                 .data = big,
                 .data_len = sizeof big};
    int taken = 0;
    for (int i = 0; i < 100; i++) {
        int busy = 0, n = jsc_deliver(p, "in", 2, &m, &busy);
        taken += n;
        assert(n || busy);
        jsc_plane_flush(p);
    }
    assert(taken > 4 && taken < 20);
    turn(p);
    jsc_conn_info at;
    assert(!jsc_conn_stat(p, r.id, &at) && at.pending < 1 << 20);
    leave(&r);
    jsc_plane_free(p);
}

/* Skips the frames of records at the front of what came; the kind of the first other one, 0: none came whole. */
static int first_urgent(peer *c, size_t *records) {
    size_t at = 0;
    for (*records = 0; c->n - at >= JSC_FRAME_HEAD; ++*records) {
        uint32_t len;
        memcpy(&len, c->got + at + 4, 4);
        if (c->n - at < JSC_FRAME_HEAD + len) break;
        if (c->got[at + 9] != 4) return c->got[at + 9];
        at += JSC_FRAME_HEAD + len;
    }
    return 0;
}

static void test_votes_overtake_records(void) {
    jsc_plane *p = plane();
    peer c = join(p, JSC_CONN_LINK);
    jsc_conn_info at;
    uint64_t last = 0;
    size_t sent = 0, cap = 100000, ahead = 0, records = 0;
    int small = 4096, rc = 0;
    assert(!jsc_conn_stat(p, c.id, &at) && !setsockopt(at.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small));
    for (; sent < 1000 && !rc; sent += !rc) { /* a peer that does not read: memory has a bound */
        rc = jsc_link_send_records(p, c.id, 4, "head", 4, NULL, 1, 1 << 20, cap, &last);
        turn(p);
    }
    assert(rc == JSC_EFULL && sent > 5 && sent < 16);
    assert(!jsc_conn_stat(p, c.id, &at) && at.pending > 900000 && at.pending < 1400000);
    assert(!jsc_link_send(p, c.id, 1, "vote", 4));
    assert(jsc_link_send_records(p, c.id, 4, "head", 4, NULL, 1, 1 << 20, cap, &last) == JSC_EFULL);
    int kind = 0, room = 0;
    for (int i = 0; i < 10000 && (!room || !kind); i++) {
        drain(&c);
        if (!kind && (kind = first_urgent(&c, &records))) ahead = records;
        last_type = 0;
        turn(p);
        room |= last_type == JSC_EV_ROOM;
    }
    assert(kind == 1 && ahead <= 2 && room);
    assert(!jsc_link_send_records(p, c.id, 4, "head", 4, NULL, 1, 1 << 20, cap, &last));
    for (int i = 0; i < 10000 && jsc_conn_stat(p, c.id, &at) == JSC_OK && at.pending; i++) {
        drain(&c);
        turn(p);
    }
    drain(&c);
    assert(at.pending == 0 && c.n == 16 + 4 + (sent + 1) * (16 + 4 + cap));
    frames = 0; /* nothing of it was torn or mixed up */
    jsc_plane *q = plane();
    peer back = join(q, JSC_CONN_LINK);
    say(&back, c.got, c.n);
    turn(q);
    assert(frames == (int)sent + 2);
    leave(&back);
    leave(&c);
    jsc_plane_free(q);
    jsc_plane_free(p);
}

/* What somebody waits for leaves before the turn ends, unless there is more to handle that may go along. */
static void test_an_answer_leaves_at_once(void) {
    jsc_plane *p = plane();
    peer c = join(p, JSC_CONN_LINK), client = join(p, JSC_CONN_CLIENT), route = join(p, JSC_CONN_ROUTE);
    jsc_ready ready[8];
    jsc_event e;
    turn(p);
    drain(&client);
    size_t had = client.n;
    assert(!jsc_conn_write(p, client.id, "PING\r\n", 6));
    assert(!jsc_link_send(p, c.id, 1, "ack", 3));
    drain(&c);
    assert(c.n == 0);
    jsc_link_push(p);
    drain(&c);
    drain(&client);
    assert(c.n == 16 + 3 && client.n == had); /* who is no link waits for the turn */
    assert(send(route.fd, "JSLINK {}\r\n", 11, 0) == 11);
    assert(jsc_plane_poll(p, 0, ready, 8) == 0); /* an event about a server waits */
    assert(!jsc_link_send(p, c.id, 1, "ack", 3));
    jsc_link_push(p);
    drain(&c);
    assert(c.n == 16 + 3);
    while (jsc_plane_next(p, &e)) jsc_event_done(&e);
    jsc_link_push(p);
    drain(&c);
    assert(c.n == 2 * (16 + 3));
    turn(p); /* and nothing of it goes twice */
    drain(&c);
    assert(c.n == 2 * (16 + 3));
    leave(&route);
    leave(&client);
    leave(&c);
    jsc_plane_free(p);
}

static void test_a_peer_that_reads_nothing_costs_little(void) {
    jsc_plane *p = plane();
    peer c = join(p, JSC_CONN_LINK);
    static char big[1 << 20];
    jsc_conn_info at;
    int rc = 0, n = 0;
    for (; n < 100 && !rc; n++) {
        rc = jsc_link_send(p, c.id, 1, big, sizeof big);
        turn(p);
    }
    assert(rc == JSC_EFULL && !jsc_conn_stat(p, c.id, &at) && at.pending < 24 << 20);
    leave(&c);
    jsc_plane_free(p);
}

static void test_links(void) {
    jsc_plane *p = plane(), *q = plane();
    peer raw = join(p, JSC_CONN_ROUTE);
    SAY(raw, "JSLINK {\"n\":1}\r\n");
    turn(p);
    assert(last_type == JSC_EV_LINK && !strcmp(last_event, "{\"n\":1}"));
    peer out = join(q, JSC_CONN_LINK);
    uint64_t last = 0;
    assert(!jsc_link_send(q, out.id, 3, "body", 4));
    assert(!jsc_link_send_records(q, out.id, 4, "head", 4, NULL, 10, 20, 24, &last) && last == 12);
    assert(!jsc_link_send_records(q, out.id, 4, "head", 4, NULL, 10, 20, 1, &last) && last == 10);
    assert(jsc_link_send(q, out.id, 1, "x", JSC_FRAME_MAX + 1) == JSC_EINVAL);
    turn(q);
    drain(&out);
    assert(out.n == 16 * 3 + 4 + 28 + 12);
    frames = 0;
    say(&raw, out.got, 10);
    assert(!jsc_conn_become_link(p, raw.id, 1));
    turn(p);
    say(&raw, out.got + 10, out.n - 10);
    turn(p);
    assert(frames == 3);
    for (size_t i = 0; i < 20; i++) { /* every byte of the first frame matters */
        peer x = join(p, JSC_CONN_LINK);
        frames = 0;
        out.got[i] ^= 0x41;
        say(&x, out.got, 20);
        out.got[i] ^= 0x41;
        shutdown(x.fd, SHUT_WR);
        turn(p);
        assert(frames == 0);
        leave(&x);
    }
    leave(&raw);
    leave(&out);
    jsc_plane_free(p);
    jsc_plane_free(q);
}

static void test_slow(void) {
    jsc_plane *p = plane_with((jsc_plane_options){.max_pending = 1 << 20});
    peer a = client(p);
    static char big[70000];
    memset(big, 'x', sizeof big);
    SAY(a, "SUB me 1\r\n");
    closed_reason[0] = 0;
    /* publishes to itself and never reads: paused, let go, at last closed; never stuck */
    for (int i = 0; i < 100 && !closed_reason[0]; i++) {
        SAY(a, "PUB me 65536\r\n");
        say(&a, big, 65536);
        SAY(a, "\r\n");
    }
    assert(!strcmp(closed_reason, "Slow Consumer (Pending Bytes)"));
    jsc_plane_stats st;
    jsc_plane_stat(p, &st);
    assert(st.slow_consumers == 1);
    leave(&a);
    jsc_plane_free(p);
    p = plane();
    a = client(p);
    SAY(a, "SUB me 1\r\nPUB me 1000000\r\n");
    char *m = malloc(1000000);
    memset(m, 'y', 1000000);
    say(&a, m, 1000000);
    SAY(a, "\r\nPING\r\n");
    for (int i = 0; i < 200 && !(a.n > 6 && !memcmp(a.got + a.n - 6, "PONG\r\n", 6)); i++) {
        turn(p);
        drain(&a);
    }
    assert(a.n == 18 + 1000000 + 2 + 6 && !memcmp(a.got + 18, m, 1000000));
    free(m);
    leave(&a);
    jsc_plane_free(p);
}

static int rung;
static void ring(void *ctx) {
    uint64_t v;
    assert(read(*(int *)ctx, &v, 8) == 8);
    rung++;
}
static int64_t hook(void *ctx, int64_t mono, int64_t unix_ns) {
    ++*(int *)ctx;
    return mono + 1000000;
}
static void test_loop(void) {
    jsc_plane *p = plane_with((jsc_plane_options){.ping_interval_ns = 1000000, .ping_max = 1});
    int call = eventfd(0, EFD_NONBLOCK), host = eventfd(1, EFD_NONBLOCK), hooks = 0;
    uint64_t one = 1;
    jsc_ready r[2];
    assert(!jsc_plane_watch_call(p, call, ring, &call) && write(call, &one, 8) == 8);
    assert(jsc_plane_poll(p, 0, r, 2) == 0 && rung == 1);
    assert(!jsc_plane_watch(p, host, EPOLLIN) && jsc_plane_poll(p, -1, r, 2) == 1 && r[0].fd == host &&
           r[0].mask == EPOLLIN);
    assert(!jsc_plane_watch(p, host, EPOLLOUT) && !jsc_plane_watch(p, host, 0) && !jsc_plane_watch(p, host, 0));
    assert(!jsc_plane_hook(p, hook, &hooks) && jsc_plane_poll(p, 5000000, r, 2) == 0 && hooks >= 2);
    peer a = client(p);
    closed_reason[0] = 0;
    while (!closed_reason[0]) {
        assert(jsc_plane_poll(p, 10000000, r, 2) == 0);
        events(p);
    }
    drain(&a);
    assert(!strcmp(closed_reason, "Stale Connection") && !strcmp(a.got, "PING\r\n-ERR 'Stale Connection'\r\n"));
    close(a.fd);
    free(a.got);
    close(call);
    close(host);
    jsc_plane_free(p);
}

static void test_subjects(void) {
    assert(jsc_subject_matches("a.*", 3, "a.b", 3) && !jsc_subject_matches("a.*", 3, "a", 1));
    assert(jsc_subject_matches("a.>", 3, "a.b.c", 5) && !jsc_subject_matches("a.>", 3, "a", 1));
    assert(jsc_subject_valid("foo*.b>r", 8, 1) && !jsc_subject_valid("a.*", 3, 1) && !jsc_subject_valid("a.", 2, 0));
    assert(jsc_subject_overlap("a.*", 3, "*.b", 3) && !jsc_subject_overlap("a.*", 3, "b.>", 3));
}

int main(void) {
    test_subjects();
    test_malformed();
    test_write_deadline();
    test_quoted_text();
    test_splits();
    test_pubsub();
    test_queues();
    test_callbacks();
    test_routes();
    test_route_pool();
    test_route_not_ready();
    test_subject_ends_where_it_ends();
    test_churn();
    test_trace();
    test_deliver_waits_for_a_route();
    test_links();
    test_an_answer_leaves_at_once();
    test_votes_overtake_records();
    test_a_peer_that_reads_nothing_costs_little();
    test_slow();
    test_loop();
    puts("wire: ok");
    return 0;
}
