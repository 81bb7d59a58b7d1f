/* What monitoring sees: figures by connection and account, lists of subscriptions, the last words of who left. */
#include "../plane.h"
#include <assert.h>
#include <sys/socket.h>
#include <unistd.h>

static jsc_conn_info closed;
static char closed_subs[4096], closed_reason[128];
static int closings;

static void turn(jsc_plane *p) {
    jsc_ready r[8];
    for (int i = 0; i < 4; i++) {
        assert(jsc_plane_poll(p, 0, r, 8) >= 0);
        for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
            if (e.type == JSC_EV_CONNECT) {
                jsc_conn_options o = {.account = jsc_plane_account(p, e.data_len > 2 ? "B" : "A", 1), .echo = 1};
                assert(!jsc_conn_accept(p, e.conn, &o));
            }
            if (e.type == JSC_EV_CLOSED) {
                assert(e.headers_len == sizeof closed);
                memcpy(&closed, e.headers, sizeof closed);
                snprintf(closed_subs, sizeof closed_subs, "%.*s", (int)e.reply_len, e.reply);
                snprintf(closed_reason, sizeof closed_reason, "%s", e.data);
                closings++;
            }
        }
    }
}

static int join(jsc_plane *p, int kind, const char *first, uint64_t *id) {
    int sv[2];
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
    assert(!jsc_conn_adopt(p, sv[0], kind, NULL, 0, id));
    assert(send(sv[1], first, strlen(first), 0) == (ssize_t)strlen(first));
    turn(p);
    return sv[1];
}

static void say(jsc_plane *p, int fd, const char *s) {
    assert(send(fd, s, strlen(s), 0) == (ssize_t)strlen(s));
    turn(p);
}

static int find(void *ctx, const jsc_account_info *a) {
    jsc_account_info *want = ctx;
    if (a->name_len != want->name_len || memcmp(a->name, want->name, a->name_len)) return 0;
    *want = *a;
    return 1;
}

static jsc_account_info account(jsc_plane *p, const char *name) {
    jsc_account_info a = {.name = name, .name_len = (uint32_t)strlen(name)};
    jsc_plane_accounts(p, find, &a);
    return a;
}

static int list(void *ctx, const jsc_sub_info *s) {
    char *to = ctx;
    sprintf(to + strlen(to), "%.*s/%.*s/%.*s/%d ", (int)s->subject_len, s->subject, (int)s->queue_len,
            s->queue ? s->queue : "", (int)s->sid_len, s->sid ? s->sid : "", (int)s->delivered);
    return 0;
}

static void test_figures(void) {
    jsc_plane_options o = {0};
    jsc_plane *p;
    uint64_t a_id, b_id, r_id;
    assert(!jsc_plane_new(&o, &p));
    int a = join(p, JSC_CONN_CLIENT, "CONNECT {}\r\nSUB x.* q 7\r\nSUB y 8\r\n", &a_id);
    int b = join(p, JSC_CONN_CLIENT, "CONNECT {  }\r\nSUB x.1 9\r\n", &b_id);
    int r = join(p, JSC_CONN_ROUTE, "", &r_id);
    assert(!jsc_conn_route_ready(p, r_id, NULL));
    say(p, a, "PUB x.1 3\r\nabc\r\nPUB x.1 3\r\nabc\r\nPUB nobody 1\r\n.\r\n");
    say(p, r, "RS+ A over\r\nRMSG A y 2\r\nhi\r\n");
    say(p, a, "PUB over 5\r\n12345\r\n");

    jsc_account_info in_a = account(p, "A"), in_b = account(p, "B");
    assert(in_a.conns == 1 && in_a.subs == 3 && !in_a.own_subs); /* its two and the route's */
    assert(in_a.clients.in_msgs == 4 && in_a.clients.in_bytes == 12);
    assert(in_a.clients.out_msgs == 3 && in_a.clients.out_bytes == 8);
    assert(in_a.routes.in_msgs == 1 && in_a.routes.in_bytes == 2);
    assert(in_a.routes.out_msgs == 1 && in_a.routes.out_bytes == 5);
    assert(in_a.inserts == 3 && !in_a.removes && in_a.matches >= 4);
    assert(in_b.conns == 1 && in_b.subs == 1 && !in_b.clients.out_msgs);

    jsc_plane_stats s;
    jsc_plane_stat(p, &s);
    assert(s.in_msgs == 5 && s.route_in_msgs == 1 && s.route_in_bytes == 2);
    assert(s.out_msgs == 4 && s.route_out_msgs == 1 && s.route_out_bytes == 5);
    assert(s.remote_subscriptions == 1 && s.subscriptions == 3);

    char text[512] = "";
    jsc_sub_query q = {.conn = a_id, .max = 10};
    assert(jsc_plane_subs(p, &q, list, text) == 2);
    assert(strstr(text, "x.*/q/7/2 ") && strstr(text, "y//8/1 "));
    text[0] = 0;
    q = (jsc_sub_query){.subject = "x.1", .subject_len = 3, .max = 10};
    assert(jsc_plane_subs(p, &q, list, text) == 2 && strstr(text, "x.1//9/0 ") && strstr(text, "x.*/q/7/2 "));
    q.account = jsc_plane_account(p, "B", 1);
    text[0] = 0;
    assert(jsc_plane_subs(p, &q, list, text) == 1 && !strcmp(text, "x.1//9/0 "));
    q = (jsc_sub_query){.skip = 1, .max = 1};
    text[0] = 0;
    assert(jsc_plane_subs(p, &q, list, text) == 4); /* all are counted, one is shown */
    assert(strchr(text, ' ') && !strchr(text, ' ')[1]);
    q = (jsc_sub_query){.subject = "x.*", .subject_len = 3, .max = 10};
    assert(!jsc_plane_subs(p, &q, list, text)); /* no subject but a pattern */

    close(a);
    turn(p);
    assert(closings == 1 && closed.id == a_id && closed.in_msgs == 4 && closed.subs == 2 && closed.rtt_ns > 0);
    assert(closed_reason[0]);
    assert(strstr(closed_subs, "x.* q 7 2\n") && strstr(closed_subs, "y  8 1\n"));
    in_a = account(p, "A");
    assert(!in_a.conns && in_a.clients.in_msgs == 4 && in_a.removes == 2); /* what the gone did stays */
    jsc_conn_info info;
    assert(jsc_conn_stat(p, a_id, &info) == JSC_ENOTFOUND);
    close(r);
    turn(p);
    jsc_plane_stat(p, &s);
    assert(s.route_in_msgs == 1 && s.route_out_msgs == 1 && !s.remote_subscriptions);
    close(b);
    turn(p);
    jsc_plane_free(p);
}

/* Someone with very many subscriptions leaves: what is kept of them is bounded. */
static void test_last_words_are_bounded(void) {
    jsc_plane_options o = {0};
    jsc_plane *p;
    uint64_t id;
    char line[3200];
    assert(!jsc_plane_new(&o, &p));
    int a = join(p, JSC_CONN_CLIENT, "CONNECT {}\r\n", &id);
    for (int i = 0; i < 1000; i++) {
        snprintf(line, sizeof line, "SUB s.%d.%0*d %d\r\n", i, i == 3 ? 3000 : 20, i, i);
        say(p, a, line);
    }
    close(a);
    turn(p);
    assert(closed.subs == 1000);
    size_t n = strlen(closed_subs);
    assert(n > 0 && n <= 2048 && closed_subs[n - 1] == '\n');
    jsc_plane_free(p);
}

int main(void) {
    test_figures();
    test_last_words_are_bounded();
    puts("stat: ok");
    return 0;
}
