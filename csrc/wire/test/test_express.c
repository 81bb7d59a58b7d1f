/* Publishes in a row, a peer's messages, and the same bytes in crumbs, which are never served in a row: everybody gets the
 * same. */
#include "../../base/test/check.h"
#include "../plane.h"
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PEERS = 4, TEXT = 1 << 16, CRUMB = 7, ROUNDS = 120 };

typedef struct seen { /* what one play of a stream came to */
    size_t n[PEERS];
    jsc_conn_info info[PEERS];
    jsc_plane_stats stats;
    jsc_tally routed[2];
    int closed;
    char got[PEERS][TEXT];
} seen;

static seen whole, crumbs;

static void turn(jsc_plane *p, const jsc_conn_options *o, seen *s) {
    jsc_ready r[8];
    for (int i = 0; i < 2; i++) {
        CHECK(jsc_plane_poll(p, 0, r, 8) >= 0);
        for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
            if (e.type == JSC_EV_CONNECT) CHECK(!jsc_conn_accept(p, e.conn, o));
            if (e.type == JSC_EV_CLOSED) s->closed++;
        }
    }
}

static void hear(int fd, seen *s, int i) {
    for (ssize_t k; (k = recv(fd, s->got[i] + s->n[i], TEXT - s->n[i], MSG_DONTWAIT)) > 0;) s->n[i] += (size_t)k;
    CHECK(s->n[i] < TEXT);
}

/* What each of them got and came to. What differs from play to play is taken out. */
static void look_back(jsc_plane *p, const int fd[PEERS], const uint64_t id[PEERS], seen *s) {
    jsc_plane_stat(p, &s->stats);
    for (int i = 0; i < PEERS; i++) {
        hear(fd[i], s, i);
        if (jsc_conn_stat(p, id[i], &s->info[i])) continue; /* closed */
        s->info[i].fd = 0;
        s->info[i].account = NULL;
        s->info[i].start_ns = s->info[i].last_activity_ns = s->info[i].rtt_ns = 0;
    }
}

static void check_alike(const seen *a, const seen *b) {
    for (int i = 0; i < PEERS; i++) {
        CHECK(a->n[i] == b->n[i] && !memcmp(a->got[i], b->got[i], a->n[i]));
        CHECK(!memcmp(&a->info[i], &b->info[i], sizeof a->info[i]));
    }
    CHECK(a->closed == b->closed && !memcmp(&a->stats, &b->stats, sizeof a->stats));
    CHECK(!memcmp(a->routed, b->routed, sizeof a->routed));
}

typedef struct peculiar { /* of the account and of the one that publishes; later: from the second text on */
    int verbose, pedantic, echo, later_mapped, later_permitted;
} peculiar;

static void say(jsc_plane *p, int fd, const char *text, size_t n, size_t piece, seen *s) {
    for (size_t at = 0; at < n; at += piece) {
        size_t k = n - at < piece ? n - at : piece;
        ssize_t sent = send(fd, text + at, k, MSG_NOSIGNAL);
        CHECK(sent == (ssize_t)k || (sent < 0 && (errno == EPIPE || errno == ECONNRESET)));
        turn(p, NULL, s);
    }
}

/* The first says both texts, the others listen; one of them may only answer, and does. */
static void play(const peculiar *x, const char *const text[2], const size_t n[2], size_t piece, seen *s) {
    static const char *const subs[PEERS] = {
        "SUB own 1\r\nSUB a.b 2\r\n", "SUB a.b 1\r\nSUB a.* 22\r\nSUB deny.> 3\r\nSUB a.c 4\r\nUNSUB 4 5\r\n",
        "SUB q.a q 7\r\nSUB other 8\r\nSUB q.> 9\r\nSUB * twice\r\nSUB * again\r\n", "SUB to.answer 9\r\n"};
    static const char answers[] = "PUB r 2\r\nok\r\nPUB _INBOX.abc.1 2\r\nok\r\nPUB other 2\r\nok\r\n";
    jsc_permission denied[] = {{.list = JSC_PUBLISH_DENY, .subject = "a.c", .subject_len = 3},
                               {.list = JSC_SUBSCRIBE_DENY, .subject = "deny.it", .subject_len = 7}};
    jsc_permissions_options none = {0}, answer = {.no_publish = 1, .max_responses = -1, .expires_ns = -1};
    jsc_permissions *may, *only_answers;
    jsc_plane_options options = {.max_payload = 600};
    jsc_plane *p;
    int fd[PEERS];
    uint64_t id[PEERS];
    memset(s, 0, sizeof *s);
    CHECK(!jsc_plane_new(&options, &p) && !jsc_permissions_new(denied, 2, &none, &may) &&
          !jsc_permissions_new(NULL, 0, &answer, &only_answers));
    jsc_account *a = jsc_plane_account(p, "$G", 2);
    jsc_mapping to = {.source = "a", .destination = "a.b", .source_len = 1, .destination_len = 3, .percent = 100};
    for (int i = 0; i < PEERS; i++) {
        int sv[2];
        jsc_conn_options o = {.account = a, .echo = 1, .headers = i != 1, .no_responders = i != 1};
        if (!i) o.verbose = (uint8_t)x->verbose, o.pedantic = (uint8_t)x->pedantic, o.echo = (uint8_t)x->echo;
        o.permissions = i == 1 ? may : i == 3 ? only_answers : NULL;
        CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
        CHECK(!jsc_conn_adopt(p, sv[0], JSC_CONN_CLIENT, NULL, 0, &id[i]));
        fd[i] = sv[1];
        CHECK(send(fd[i], "CONNECT {}\r\n", 12, 0) == 12 &&
              send(fd[i], subs[i], strlen(subs[i]), 0) == (ssize_t)strlen(subs[i]));
        turn(p, &o, s);
    }
    say(p, fd[0], text[0], n[0], piece, s);
    if (x->later_mapped) CHECK(!jsc_account_map(a, &to, 1));
    if (x->later_permitted) jsc_conn_permit(p, id[0], may); /* where it is still there */
    say(p, fd[0], text[1], n[1], piece, s);
    say(p, fd[3], answers, sizeof answers - 1, CRUMB, s);
    turn(p, NULL, s);
    look_back(p, fd, id, s);
    jsc_permissions_release(may);
    jsc_permissions_release(only_answers);
    jsc_plane_free(p);
    for (int i = 0; i < PEERS; i++) close(fd[i]);
}

/* Mostly what clients send, of few subjects, and at times everything else. */
static size_t stream(char *to, int odd, const char **last) {
    static const char *const subjects[] = {
        "a.b",   "a.b",       "a.c",     "a",          "a",
        "other", "to.answer", "deny.it", "deny.other", "q.a",
        "q.b",   "$a",        "_b",      "_R_.x",      "a.nobody-at-all.whose.name.is.rather.long"};
    static const char *const replies[] = {"r", "_INBOX.abc.1", "$JS.ACK.x", "_R_.y", "_GR_.z", "other", "_"};
    static const char *const lines[] = {"PING\r\n",
                                        "SUB other mine\r\n",
                                        "UNSUB mine\r\n",
                                        "HPUB a.b 12 13\r\nNATS/1.0\r\n\r\nx\r\n",
                                        "pub a.b 1\r\nx\r\n",
                                        "PUB\ta.b 1\r\nx\r\n",
                                        "PUB a.b  1\r\nx\r\n",
                                        "PUB a.b 1 \r\nx\r\n",
                                        "PUB a.b 1\nx\r\n",
                                        "PUB a.b r\t2\r\nxy\r\n",
                                        "PUB a\001b 1\r\nx\r\n",
                                        "PUB a..b 1\r\nx\r\n"};
    static const char *const ends[] = {"PUB a.b 1\r\nxy\r\n",
                                       "PUB a.b x\r\n",
                                       "PUB a.b 0000000001\r\nx\r\n",
                                       "PUB a b c 1\r\nx\r\n",
                                       "PUB a.b 1\r\nx\n\n",
                                       "PUB a.b\r\n",
                                       "FOO\r\n"};
    size_t n = 0;
    const char *subject = *last;
    for (int i = 0; i < 60; i++) {
        unsigned size = (unsigned)(rnd(4) ? 16 : rnd(10) ? rnd(150) : rnd(600));
        if (!rnd(6)) subject = subjects[rnd(sizeof subjects / sizeof *subjects)];
        if (odd && !rnd(12)) {
            n += (size_t)sprintf(to + n, "%s", lines[rnd(sizeof lines / sizeof *lines)]);
            continue;
        }
        n += (size_t)sprintf(to + n, "PUB %s ", subject);
        if (!rnd(6)) n += (size_t)sprintf(to + n, "%s ", replies[rnd(sizeof replies / sizeof *replies)]);
        n += (size_t)sprintf(to + n, rnd(20) ? "%u\r\n" : "00%u\r\n", size);
        for (unsigned k = 0; k < size; k++) to[n++] = (char)rnd(256);
        n += (size_t)sprintf(to + n, "\r\n");
    }
    if (odd && !rnd(3)) n += (size_t)sprintf(to + n, "%s", ends[rnd(sizeof ends / sizeof *ends)]);
    if (odd && !rnd(6)) n += (size_t)sprintf(to + n, "PUB %s 601\r\n%0601d\r\n", subject, 0);
    *last = subject;
    return n + (size_t)sprintf(to + n, "PUB %s 4\r\nlast\r\nPING\r\n", subject);
}

/* One that publishes in a row to some whose sockets take nothing. */
typedef struct crowd {
    jsc_plane *p;
    jsc_conn *from, *to[8];
    int fd[9], n;
} crowd;

static crowd gather(jsc_plane_options o, int n) {
    crowd x = {.n = n};
    seen *s = &whole;
    CHECK(!jsc_plane_new(&o, &x.p));
    jsc_conn_options hello = {.account = jsc_plane_account(x.p, "$G", 2), .headers = 1};
    for (int i = 0; i <= n; i++) {
        int sv[2], room = 1;
        uint64_t id;
        static const char sub[] = "CONNECT {}\r\nSUB a 1\r\n";
        size_t k = i ? sizeof sub - 1 : 12;
        CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
        CHECK(!jsc_conn_adopt(x.p, sv[0], JSC_CONN_CLIENT, NULL, 0, &id) && send(sv[1], sub, k, 0) == (ssize_t)k);
        turn(x.p, &hello, s);
        x.fd[i] = sv[1];
        *(i ? &x.to[i - 1] : &x.from) = jsc_conn_find(x.p, id);
        room = i ? 1 : 1 << 20;
        setsockopt(i ? sv[0] : sv[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        if (!i) continue;
        while (send(sv[0], "+OK\r\n", 5, MSG_NOSIGNAL) > 0) continue;
    }
    return x;
}

static void burst(crowd *x, int count, int turns) {
    static char text[1 << 18];
    size_t n = 0;
    jsc_ready r[2];
    for (int i = 0; i < count; i++) n += (size_t)sprintf(text + n, "PUB a 16\r\n%016d\r\n", i);
    CHECK(n < sizeof text && send(x->fd[0], text, n, 0) == (ssize_t)n);
    for (int i = 0; i < turns; i++) CHECK(jsc_plane_poll(x->p, 0, r, 2) >= 0);
}

static void scatter(crowd *x) {
    jsc_plane_free(x->p);
    for (int i = 0; i <= x->n; i++) close(x->fd[i]);
}

static void test_bounds(void) {
    enum { ONE = 27 + 5 };
    jsc_plane_stats st;
    crowd x = gather((jsc_plane_options){.max_pending = 20000}, 1); /* busy above 5000 */
    burst(&x, 4000, 1);
    CHECK(x.from->slow_down && x.from->stalls == 1 && x.to[0]->blocked);
    CHECK(jsc_pending(x.to[0]) > 5000 && jsc_pending(x.to[0]) <= 5000 + ONE);
    scatter(&x);

    x = gather((jsc_plane_options){.max_pending = 20000, .no_stall = 1}, 1);
    burst(&x, 4000, 1);
    CHECK(!x.from->slow_down && x.to[0]->full);
    CHECK(jsc_pending(x.to[0]) > 15000 && jsc_pending(x.to[0]) <= 15000 + ONE);
    scatter(&x);

    x = gather((jsc_plane_options){.max_pending = 20000}, 1);
    x.from->grace = 1 << 20; /* it has waited once */
    burst(&x, 4000, 1);
    jsc_plane_stat(x.p, &st);
    CHECK(st.slow_clients == 1 && st.out_msgs >= 20000 / ONE && st.out_msgs <= 20000 / 27 + 10);
    scatter(&x);

    x = gather((jsc_plane_options){0}, 8);
    burst(&x, 6000, 1);
    jsc_plane_stat(x.p, &st);
    CHECK(st.out_msgs >= JSC_WORK_CONN / 2 && st.out_msgs < JSC_WORK_CONN + 16);
    for (int i = 0; i < 3; i++) burst(&x, 0, 1);
    jsc_plane_stat(x.p, &st);
    CHECK(st.out_msgs == 48000);
    scatter(&x);
}

/* ---- a peer's messages ---- */
#define LONG_ACCOUNT "AAWAEBCADUFVQCEKRYNVVF6A7DEXQ6LSVKTPQ5G4Z2OEPQMFZ5KDHX5I"

/* The first is a peer that speaks, the second one that only listens: nothing goes on from one to another. The others are
 * clients of $G and of an account with a long name. */
static void play_routed(const char *text, size_t n, size_t piece, int only, seen *s) {
    static const char *const subs[PEERS] = {"", "RS+ $G a.b\r\nRS+ $G _INBOX.far.*\r\n",
                                            "SUB a.b 1\r\nSUB a.* g 22\r\nSUB _INBOX.abc.* 3\r\nSUB limited 4\r\nUNSUB "
                                            "4 9\r\nSUB _INBOX.few.* 5\r\nUNSUB 5 2\r\n",
                                            "SUB > 1\r\nSUB a.* h 2\r\nSUB _INBOX.long.* 3\r\n"};
    static const char listens[] = "RS+ a.b\r\nRS+ _INBOX.far.*\r\n";
    jsc_plane_options options = {.max_payload = 600};
    jsc_plane *p;
    int fd[PEERS];
    uint64_t id[PEERS];
    memset(s, 0, sizeof *s);
    CHECK(!jsc_plane_new(&options, &p));
    jsc_account *a[] = {jsc_plane_account(p, "$G", 2), jsc_plane_account(p, LONG_ACCOUNT, 56)};
    for (int i = 0; i < PEERS; i++) {
        int sv[2];
        jsc_conn_options o = {.account = a[i == 3], .echo = 1, .headers = i == 2};
        jsc_route_options ro = {.pool_size = 1, .only = only ? a[0] : NULL};
        CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
        CHECK(!jsc_conn_adopt(p, sv[0], i < 2 ? JSC_CONN_ROUTE : JSC_CONN_CLIENT, NULL, 0, &id[i]));
        fd[i] = sv[1];
        if (i < 2) CHECK(!jsc_conn_route_ready(p, id[i], &ro));
        else CHECK(send(fd[i], "CONNECT {}\r\n", 12, 0) == 12);
        const char *subscribes = i == 1 && only ? listens : subs[i];
        CHECK(send(fd[i], subscribes, strlen(subscribes), 0) == (ssize_t)strlen(subscribes));
        turn(p, &o, s);
    }
    say(p, fd[0], text, n, piece, s);
    turn(p, NULL, s);
    look_back(p, fd, id, s);
    for (int i = 0; i < 2; i++) s->routed[i] = a[i]->routed;
    jsc_plane_free(p);
    for (int i = 0; i < PEERS; i++) close(fd[i]);
}

/* What a peer sends: mostly messages of few subjects and answers to inboxes, and at times everything else. */
static size_t routed_stream(char *to, int odd, int only) {
    static const char *const accounts[] = {"$G", "$G", "$G", LONG_ACCOUNT, "nobody"};
    static const char *const subjects[] = {"a.b",         "a.b",           "a.c",          "limited",
                                           "_INBOX.abc.", "_INBOX.abc.",   "_INBOX.long.", "_INBOX.far.",
                                           "_INBOX.few.", "_INBOX.abc.x.", "$JS.API.x"};
    static const char *const replies[] = {"r", "_INBOX.x.1", "$JS.ACK.a.b.1.2.3.4.5", "$JS.ACK.a.b.1.2.3.4.5@a.b",
                                          "+", "|"};
    static const char *const lines[] = {"PING\r\n",
                                        "RMSG %sa.b + r g 2\r\nok\r\n",
                                        "RMSG %sa.b | g h 2\r\nok\r\n",
                                        "RMSG %sa.b  2\r\nok\r\n",
                                        "RMSG %sa.b 2 \r\nok\r\n",
                                        "RMSG %sa.b r\t2\r\nok\r\n",
                                        "RMSG\t%sa.b 2\r\nok\r\n",
                                        "rmsg %sa.b 2\r\nok\r\n",
                                        "RMSG %sa.b 2\nok\r\n",
                                        "RMSG %sa\001b 2\r\nok\r\n",
                                        "HMSG %sa.b 12 14\r\nNATS/1.0\r\n\r\nok\r\n",
                                        "HMSG %s_INBOX.abc.1 r 12 14\r\nNATS/1.0\r\n\r\nok\r\n",
                                        "RS+ %sother\r\n",
                                        "LMSG o %sa.b 0 2\r\nok\r\n"};
    static const char *const ends[] = {"RMSG %sa.b 1\r\nxy\r\n",
                                       "RMSG %sa.b x\r\n",
                                       "RMSG %sa.b 0000000001\r\nx\r\n",
                                       "RMSG %sa.b r s 1\r\nx\r\n",
                                       "RMSG %sa.b\r\n",
                                       "RMSG %sa.b 1\r\nx\n\n",
                                       "FOO\r\n"};
    const char *named = only ? "" : "$G ";
    size_t n = 0;
    for (int i = 0; i < 80; i++) {
        unsigned size = (unsigned)(rnd(4) ? 16 : rnd(10) ? rnd(150) : rnd(1000));
        const char *subject = subjects[rnd(sizeof subjects / sizeof *subjects)];
        if (odd && !rnd(8)) {
            n += (size_t)sprintf(to + n, lines[rnd(sizeof lines / sizeof *lines)], named);
            continue;
        }
        n += (size_t)sprintf(to + n, "RMSG ");
        if (!only) n += (size_t)sprintf(to + n, "%s ", accounts[rnd(sizeof accounts / sizeof *accounts)]);
        n += (size_t)sprintf(to + n, "%s", subject);
        if (subject[strlen(subject) - 1] == '.' && rnd(30)) n += (size_t)sprintf(to + n, "%u", (unsigned)rnd(5000));
        if (odd && !rnd(20))
            n += (size_t)sprintf(to + n, ".%0*u", (int)rnd(120) + 1, 7); /* one that is seldom so long */
        if (rnd(3)) n += (size_t)sprintf(to + n, " %s", replies[rnd(odd ? sizeof replies / sizeof *replies : 4)]);
        n += (size_t)sprintf(to + n, rnd(20) ? " %u\r\n" : " 00%u\r\n", size);
        for (unsigned k = 0; k < size; k++) to[n++] = (char)rnd(256);
        n += (size_t)sprintf(to + n, "\r\n");
    }
    if (odd && !rnd(3)) n += (size_t)sprintf(to + n, ends[rnd(sizeof ends / sizeof *ends)], named);
    return n + (size_t)sprintf(to + n, "RMSG %sa.b 4\r\nlast\r\nPING\r\n", named);
}

static void test_routed(void) {
    static char text[TEXT];
    size_t heard = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int only = round % 3 == 2;
        size_t n = routed_stream(text, round % 2, only);
        CHECK(n < TEXT);
        play_routed(text, n, TEXT, only, &whole);
        play_routed(text, n, CRUMB, only, &crumbs);
        check_alike(&whole, &crumbs);
        CHECK(!strstr(whole.got[1], "RMSG"));
        heard += whole.n[2] + whole.n[3];
    }
    CHECK(heard > ROUNDS * 1000);
}

int main(void) {
    test_bounds();
    static char first[TEXT], second[TEXT];
    const char *const text[2] = {first, second};
    size_t heard = 0;
    for (int round = 0; round < ROUNDS; round++) {
        peculiar x = {.echo = 1};
        if (round % 3 == 1) {
            x.verbose = !rnd(4);
            x.pedantic = !rnd(3);
            x.echo = (int)rnd(2);
            x.later_mapped = (int)rnd(2);
            x.later_permitted = (int)rnd(2);
        }
        const char *last = "a.b";
        size_t n[2];
        n[0] = stream(first, round % 2, &last);
        if (x.later_permitted || x.later_mapped) { /* what it does at that moment is no longer what it may, or means */
            last = x.later_permitted ? "a.c" : "a";
            for (int i = 0; i < 4; i++) n[0] += (size_t)sprintf(first + n[0], "PUB %s 1\r\nx\r\n", last);
        }
        n[1] = stream(second, round % 2, &last);
        play(&x, text, n, TEXT, &whole);
        play(&x, text, n, CRUMB, &crumbs);
        check_alike(&whole, &crumbs);
        for (int i = 0; i < PEERS; i++) heard += whole.n[i];
    }
    CHECK(heard > ROUNDS * 1000);
    test_routed();
    puts("express: ok");
    return 0;
}
