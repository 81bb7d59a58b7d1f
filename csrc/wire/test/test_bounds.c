/* No connection, and no message to many, keeps the others waiting for more than a part of a turn. */
#include "../plane.h"
#include <assert.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct peer {
    int fd;
    uint64_t id;
} peer;

static peer client(jsc_plane *p) {
    int fd[2];
    peer c;
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd));
    assert(!jsc_conn_adopt(p, fd[0], JSC_CONN_CLIENT, NULL, 0, &c.id));
    c.fd = fd[1];
    return c;
}

static int closed;
static void turn(jsc_plane *p) {
    jsc_ready r[4];
    assert(jsc_plane_poll(p, 0, r, 4) >= 0);
    for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) closed += e.type == JSC_EV_CLOSED;
}

static void say(const peer *c, const char *s, size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t k = send(c->fd, s + at, n - at, MSG_DONTWAIT);
        assert(k > 0);
        at += (size_t)k;
    }
}

static size_t hear(const peer *c, char *to, size_t cap) {
    ssize_t k = recv(c->fd, to, cap - 1, MSG_DONTWAIT);
    to[k > 0 ? k : 0] = 0;
    return k > 0 ? (size_t)k : 0;
}

/* Subscribes n times, as fast as the socket takes it, and reads the answers. */
static void subscribe(jsc_plane *p, const peer *c, int n) {
    char line[64], got[65536];
    for (int i = 0; i < n; i++) {
        int k = snprintf(line, sizeof line, "SUB s.%d %d\r\n", i, i);
        while (send(c->fd, line, (size_t)k, MSG_DONTWAIT) != k) {
            turn(p);
            while (hear(c, got, sizeof got));
        }
    }
    for (int i = 0; i < 1000 && p->stats.subscriptions < (uint64_t)n; i++) {
        turn(p);
        while (hear(c, got, sizeof got));
    }
    assert(p->stats.subscriptions == (uint64_t)n);
}

static void test_a_flood_of_subscriptions(void) {
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    peer heavy = client(p), light = client(p);
    char *flood = malloc(1 << 20), got[256];
    size_t n = 0;
    int lines = 0, big = 1 << 20;
    assert(!setsockopt(heavy.fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big));
    while (n < 120000) n += (size_t)sprintf(flood + n, "SUB s.%d %d\r\n", lines, lines), lines++;
    say(&heavy, flood, n);
    say(&light, "PING\r\n", 6);
    turn(p);
    assert(hear(&light, got, sizeof got) && strstr(got, "PONG"));
    assert(p->stats.subscriptions > 0 && p->stats.subscriptions < (uint64_t)lines);
    int turns = 0;
    while (p->stats.subscriptions < (uint64_t)lines && turns < 1000) {
        uint64_t before = p->stats.subscriptions;
        turn(p);
        assert(p->stats.subscriptions - before <= JSC_WORK_TURN / JSC_WORK_SUB + JSC_WORK_CONN / JSC_WORK_SUB);
        turns++;
    }
    assert(p->stats.subscriptions == (uint64_t)lines);
    free(flood);
    close(heavy.fd);
    close(light.fd);
    jsc_plane_free(p);
}

static void test_closing_with_many_subscriptions(void) {
    enum { MANY = 3 * JSC_CLOSE_SUBS };
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    peer heavy = client(p), light = client(p);
    char got[256];
    subscribe(p, &heavy, MANY);
    close(heavy.fd);
    closed = 0;
    turn(p);
    assert(closed == 1 && p->stats.clients == 1);
    assert(p->stats.subscriptions > 0 && p->stats.subscriptions < MANY);
    /* Nobody gets what the rest of them would take, and others are served meanwhile. */
    say(&light, "PUB s.1 1\r\n1\r\nPING\r\n", 20);
    turn(p);
    assert(hear(&light, got, sizeof got) && !strcmp(got, "+OK\r\nPONG\r\n"));
    for (int i = 0; i < 100 && p->closing; i++) turn(p);
    assert(!p->stats.subscriptions && !p->closing && closed == 1);
    assert(p->default_account->subs_n == 0);
    assert(p->default_account->interest_cap <= 128); /* its table is small again */
    close(light.fd);
    jsc_plane_free(p);
}

/* Hundreds that leave at once are parted from a few at a time, those that left first before the others, and what they
 * leave waits apart from what concerns the server. */
static void test_many_that_close_at_once(void) {
    enum { MANY = 300 };
    jsc_plane *p;
    jsc_event e, own = {.type = JSC_EV_DURABLE, .a = 7};
    peer all[MANY];
    char got[256];
    assert(!jsc_plane_new(NULL, &p));
    peer light = client(p);
    for (int i = 0; i < MANY; i++) all[i] = client(p);
    int fd[2];
    uint64_t route;
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd));
    assert(!jsc_conn_adopt(p, fd[0], JSC_CONN_ROUTE, NULL, 0, &route));
    for (int i = 0; i < MANY; i++) assert(!jsc_conn_close(p, all[i].id, "Kicked", NULL));
    assert(!jsc_conn_close(p, route, "Route Removed", NULL));
    say(&light, "PING\r\n", 6);
    closed = 0;
    for (int turns = 0; closed < MANY; turns++) {
        jsc_ready r[4];
        int now = 0;
        assert(turns < 100 && jsc_plane_poll(p, 0, r, 4) >= 0);
        if (!turns) assert(hear(&light, got, sizeof got) && strstr(got, "PONG"));
        if (!turns) { /* nor does a server that is gone wait for them */
            assert(jsc_plane_next(p, &e) && e.type == JSC_EV_CLOSED && e.conn == route);
            jsc_event_done(&e);
        }
        assert(!jsc_plane_emit(p, &own));
        assert(jsc_plane_next(p, &e) && e.type == JSC_EV_DURABLE && e.a == 7); /* it came last and is first */
        jsc_event_done(&e);
        assert(!jsc_plane_next_of(p, 0, &e));
        for (; jsc_plane_next_of(p, 1, &e); jsc_event_done(&e), now++)
            assert(e.type == JSC_EV_CLOSED && e.conn == all[closed + now].id);
        assert(now && now <= 3 * JSC_CLOSE_CONNS);
        closed += now;
    }
    assert(!p->closing && p->stats.clients == 1);
    for (int i = 0; i < MANY; i++) close(all[i].fd);
    close(light.fd);
    close(fd[1]);
    jsc_plane_free(p);
}

/* What a turn takes of subscriptions is for all that close together. */
static void test_many_with_subscriptions_that_close_at_once(void) {
    enum { MANY = 16, EACH = JSC_CLOSE_SUBS / 2 };
    jsc_plane *p;
    peer all[MANY];
    char line[64], got[65536];
    assert(!jsc_plane_new(NULL, &p));
    for (int i = 0; i < MANY; i++) {
        all[i] = client(p);
        for (int j = 0; j < EACH; j++) {
            int k = snprintf(line, sizeof line, "SUB s.%d.%d %d\r\n", i, j, j);
            while (send(all[i].fd, line, (size_t)k, MSG_DONTWAIT) != k) {
                turn(p);
                while (hear(&all[i], got, sizeof got));
            }
        }
        turn(p);
        while (hear(&all[i], got, sizeof got));
    }
    assert(p->stats.subscriptions == MANY * EACH);
    for (int i = 0; i < MANY; i++) close(all[i].fd);
    closed = 0;
    for (int turns = 0; p->stats.subscriptions; turns++) {
        uint64_t before = p->stats.subscriptions;
        assert(turns < 100);
        turn(p);
        assert(before - p->stats.subscriptions <= 3 * JSC_CLOSE_SUBS);
    }
    turn(p);
    assert(closed == MANY && !p->closing && !p->default_account->subs_n);
    jsc_plane_free(p);
}

static void test_unsubscribing_gives_room_back(void) {
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    peer c = client(p);
    char line[64], got[65536];
    subscribe(p, &c, 4000);
    jsc_conn *conn = jsc_conn_find(p, c.id);
    assert(conn->subs_cap >= 4096);
    for (int i = 0; i < 3990; i++) {
        int k = snprintf(line, sizeof line, "UNSUB %d\r\n", i);
        while (send(c.fd, line, (size_t)k, MSG_DONTWAIT) != k) {
            turn(p);
            while (hear(&c, got, sizeof got));
        }
    }
    for (int i = 0; i < 1000 && p->stats.subscriptions > 10; i++) {
        turn(p);
        while (hear(&c, got, sizeof got));
    }
    assert(p->stats.subscriptions == 10 && conn->subs_cap <= 128);
    say(&c, "PUB s.3995 1\r\n1\r\n", 17); /* and those that stay are found */
    turn(p);
    assert(hear(&c, got, sizeof got) && strstr(got, "MSG s.3995 3995 1\r\n1\r\n"));
    close(c.fd);
    jsc_plane_free(p);
}

static void test_one_message_to_many(void) {
    enum { MANY = JSC_SENDS * 3 };
    struct rlimit l;
    assert(!getrlimit(RLIMIT_NOFILE, &l));
    if (l.rlim_max < 2 * MANY + 64) {
        puts("bounds: too few descriptors for a message to many");
        return;
    }
    l.rlim_cur = l.rlim_max;
    assert(!setrlimit(RLIMIT_NOFILE, &l));
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    peer *all = calloc(MANY, sizeof *all), from = client(p);
    char got[256];
    for (int i = 0; i < MANY; i++) {
        all[i] = client(p);
        say(&all[i], "SUB a 1\r\n", 9);
    }
    for (int i = 0; i < 100; i++) turn(p);
    for (int i = 0; i < MANY; i++) assert(hear(&all[i], got, sizeof got) && !strcmp(got, "+OK\r\n"));
    say(&from, "PUB a 1\r\n1\r\n", 12);
    int heard = 0, turns = 0;
    for (; heard < MANY && turns < 100; turns++) {
        int now = 0;
        turn(p);
        for (int i = 0; i < MANY; i++)
            if (hear(&all[i], got, sizeof got)) {
                assert(!strcmp(got, "MSG a 1 1\r\n1\r\n"));
                now++;
            }
        assert(now <= 4 * JSC_SENDS);
        heard += now;
    }
    assert(heard == MANY);
    for (int i = 0; i < MANY; i++) close(all[i].fd);
    close(from.fd);
    jsc_plane_free(p);
    free(all);
}

/* A client that said CONNECT, and which of its messages come back to it and how it hears of nobody there. */
static peer connected(jsc_plane *p, int echo) {
    peer c = client(p);
    jsc_ready r[4];
    say(&c, "CONNECT {}\r\n", 12);
    for (int i = 0; i < 4; i++) {
        assert(jsc_plane_poll(p, 0, r, 4) >= 0);
        for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
            jsc_conn_options o = {
                .account = p->default_account, .echo = (uint8_t)echo, .headers = 1, .no_responders = 1};
            if (e.type == JSC_EV_CONNECT) assert(!jsc_conn_accept(p, c.id, &o));
        }
    }
    return c;
}

/* Lines that a format makes of 0..n-1, all told in as many turns as it takes. */
static void tell_all(jsc_plane *p, const peer *c, const char *format, int n) {
    static char line[8192];
    char got[65536];
    for (int i = 0; i < n; i++) {
        int k = snprintf(line, sizeof line, format, i, i);
        assert(k < (int)sizeof line);
        while (send(c->fd, line, (size_t)k, MSG_DONTWAIT) != k) {
            turn(p);
            while (hear(c, got, sizeof got));
        }
    }
    for (int i = 0; i < 200; i++) {
        turn(p);
        while (hear(c, got, sizeof got));
    }
}

/* Each of a flood of messages costs `each` or more: no turn takes more of them than a connection's part of it. */
static void flood(jsc_plane *p, const peer *c, const char *format, uint64_t each) {
    enum { FLOOD = 2000 };
    char line[256];
    int big = 1 << 20;
    assert(!setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big));
    uint64_t all = p->stats.in_msgs + FLOOD;
    for (int i = 0; i < FLOOD; i++) say(c, line, (size_t)snprintf(line, sizeof line, format, i, i));
    int turns = 0;
    for (; p->stats.in_msgs < all && turns < 4 * FLOOD; turns++) {
        uint64_t before = p->stats.in_msgs;
        turn(p);
        assert((p->stats.in_msgs - before) * each <= 2 * JSC_WORK_TURN + each);
    }
    assert(p->stats.in_msgs == all);
}

/* Subjects at which literal and `*` part at each token: most of the index is walked, and nobody gets anything. */
static void test_subjects_that_walk_the_index(void) {
    enum { DEEP = 9 };
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    peer c = client(p);
    char line[256];
    for (int i = 0; i < 1 << DEEP; i++) {
        char *q = line + sprintf(line, "SUB ");
        for (int k = 0; k < DEEP; k++) q += sprintf(q, "%c.", i >> k & 1 ? 'a' : '*');
        sprintf(q, "%s %d\r\n", i & 1 ? "x" : "y", i);
        tell_all(p, &c, line, 1);
    }
    assert(p->stats.subscriptions == 1 << DEEP);
    flood(p, &c, "PUB a.a.a.a.a.a.a.a.a.z%d 0\r\n\r\n", 1 << DEEP);
    close(c.fd);
    jsc_plane_free(p);
}

static void test_groups_that_are_looked_at_in_vain(void) {
    enum { MANY = 2000 };
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    peer own = connected(p, 0), other = client(p);
    tell_all(p, &own, "SUB s.* q %d\r\n", MANY);
    assert(p->stats.subscriptions == MANY);
    flood(p, &own, "PUB s.a 0\r\n\r\n", MANY); /* every member is the publisher, who wants no echo */
    flood(p, &other, "PUB s.%d 0\r\n\r\n", MANY); /* each subject is new: all are found and sorted for one */
    close(own.fd);
    close(other.fd);
    jsc_plane_free(p);
}

static void test_own_subscriptions_without_echo(void) {
    enum { MANY = 2000 };
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    peer own = connected(p, 0);
    tell_all(p, &own, "SUB s %d\r\n", MANY);
    assert(p->stats.subscriptions == MANY);
    flood(p, &own, "PUB s 0\r\n\r\n", MANY);
    close(own.fd);
    jsc_plane_free(p);
}

static uint64_t requests_in_vain(int subs) {
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    peer c = connected(p, 1);
    char got[65536];
    tell_all(p, &c, "SUB s.%d %d\r\n", subs);
    tell_all(p, &c, "SUB r x\r\n", 1);
    assert(p->stats.subscriptions == (uint64_t)subs + 1);
    uint64_t before = p->work;
    size_t answers = 0;
    for (int i = 0; i < 300; i++) {
        say(&c, "PUB nobody r 0\r\n\r\n", 18);
        turn(p);
        while (hear(&c, got, sizeof got)) answers += strstr(got, "HMSG r x ") && strstr(got, " 503\r\n");
    }
    assert(answers == 300);
    uint64_t work = p->work - before;
    close(c.fd);
    jsc_plane_free(p);
    return work;
}

/* That nobody answers is found out with as much work for who has many subscriptions as for who has few. */
static void test_nobody_answers_who_has_many_subscriptions(void) {
    assert(requests_in_vain(60000) == requests_in_vain(10));
}

/* Subjects of a thousand tokens, two of which share all but the last: each pair makes as many nodes. */
static void test_subscriptions_of_long_subjects(void) {
    enum { PAIRS = 200, TOKENS = 1000 };
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    peer heavy = client(p);
    char format[4096], *q = format + sprintf(format, "SUB %%d");
    for (int i = 0; i < TOKENS; i++) q += sprintf(q, ".a");
    char *last = q;
    for (int second = 0; second < 2; second++) {
        sprintf(last, ".%c %d%%d\r\n", second ? 'x' : 'y', second);
        tell_all(p, &heavy, format, PAIRS);
    }
    assert(p->stats.subscriptions == 2 * PAIRS);
    close(heavy.fd);
    int turns = 0;
    for (; (p->stats.subscriptions || p->closing) && turns < 1000; turns++) {
        uint64_t before = p->stats.subscriptions;
        turn(p);
        assert((before - p->stats.subscriptions) / 2 * TOKENS <= 2 * JSC_WORK_TURN);
    }
    assert(!p->stats.subscriptions);
    jsc_plane_free(p);
}

static int note_cached(void *ctx, const jsc_account_info *i) {
    if (i->name_len == 1) *(uint64_t *)ctx = i->cached;
    return 0;
}

static void look_up(jsc_plane *p, jsc_account *a, int i) {
    char subject[16];
    uint32_t n = (uint32_t)snprintf(subject, sizeof subject, "s.%d", i);
    jsc_match *m = jsc_match_get(a, NULL, subject, n);
    assert(m);
    jsc_match_put(p, m);
}

/* What one account has remembered leaves room for what others need to. */
static void test_the_room_of_one_accounts_memory(void) {
    enum { SUBS = 4000, SUBJECTS = 4000 };
    jsc_plane *p;
    assert(!jsc_plane_new(NULL, &p));
    jsc_account *big = p->default_account, *small = jsc_plane_account(p, "B", 1);
    uint64_t n = 0;
    jsc_sub *sub;
    for (int i = 0; i < SUBS; i++) assert(!jsc_subscribe_host(p, big, "s.*", 3, NULL, 0, 0, 1, &sub));
    assert(!jsc_subscribe_host(p, small, "s.*", 3, NULL, 0, 0, 1, &sub));
    for (int i = 0; i < SUBJECTS && p->cache_bytes <= JSC_CACHE_BYTES; i++)
        for (int twice = 0; twice < 2; twice++) look_up(p, big, i);
    assert(p->cache_bytes > JSC_CACHE_BYTES);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 4; i++) look_up(p, small, i), look_up(p, small, i);
    assert(!jsc_plane_accounts(p, note_cached, &n));
    assert(n == 4);
    jsc_plane_free(p);
}

int main(void) {
    test_subjects_that_walk_the_index();
    test_groups_that_are_looked_at_in_vain();
    test_own_subscriptions_without_echo();
    test_nobody_answers_who_has_many_subscriptions();
    test_subscriptions_of_long_subjects();
    test_the_room_of_one_accounts_memory();
    test_a_flood_of_subscriptions();
    test_closing_with_many_subscriptions();
    test_many_that_close_at_once();
    test_many_with_subscriptions_that_close_at_once();
    test_unsubscribing_gives_room_back();
    test_one_message_to_many();
    puts("bounds: ok");
    return 0;
}
