/* Compressed routes over socket pairs: what is said across them, wherever the bytes are cut, and what ends them. */
#include "../plane.h"
#include "../s2.h"
#include <assert.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LARGE = 3 << 20, OUT = 8 << 20 };

typedef struct peer {
    int fd;
    uint64_t id;
} peer;

static char heard[1 << 16], why[128];
static int infos, broken;
static jsc_s2_work work;

static void turn(jsc_plane *p) {
    jsc_ready r[4];
    for (int i = 0; i < 3; i++) {
        assert(jsc_plane_poll(p, 0, r, 4) >= 0);
        for (jsc_event e; jsc_plane_next(p, &e); jsc_event_done(&e)) {
            jsc_conn_options o = {.account = jsc_plane_account(p, "$G", 2)};
            if (e.type == JSC_EV_CONNECT && e.conn_kind == JSC_CONN_CLIENT) jsc_conn_accept(p, e.conn, &o);
            if (e.type == JSC_EV_INFO) infos++;
            if (e.type == JSC_EV_BROKEN) broken++;
            if (e.type == JSC_EV_CLOSED) snprintf(why, sizeof why, "%s", e.data);
            if (e.type == JSC_EV_ERROR) snprintf(heard, sizeof heard, "%s", e.data);
        }
    }
}

static peer join(jsc_plane *p, int kind) {
    int sv[2], room = 1 << 20;
    peer c;
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
    setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    assert(!jsc_conn_adopt(p, sv[0], kind, NULL, 0, &c.id));
    c.fd = sv[1];
    return c;
}

static void say(jsc_plane *p, const peer *c, const void *b, size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t k = send(c->fd, (const char *)b + at, n - at, MSG_NOSIGNAL);
        if (k > 0) at += (size_t)k;
        turn(p);
    }
}

static size_t hear(jsc_plane *p, const peer *c, char *to, size_t cap) {
    size_t n = 0;
    for (int quiet = 0; quiet < 3;) {
        turn(p);
        ssize_t k = recv(c->fd, to + n, cap - n, MSG_DONTWAIT);
        if (k > 0) n += (size_t)k, quiet = 0;
        else quiet++;
    }
    return n;
}

/* Packs as a peer does that flushes every `each` bytes. */
static size_t pack(const char *b, size_t n, size_t each, char *to) {
    size_t at = 0;
    for (size_t i = 0; i < n; i += each)
        at += jsc_s2_pack(&work, JSC_S2_FAST, b + i, n - i < each ? n - i : each, to + at);
    return at;
}

static size_t unpack(const char *from, size_t n, char *to) {
    const uint8_t *b = (const uint8_t *)from;
    size_t at = 0;
    assert(n >= 10 && !memcmp(b, "\xff\6\0\0S2sTwO", 10));
    while (n) {
        size_t len = b[1] | (size_t)b[2] << 8 | (size_t)b[3] << 16;
        int64_t size = b[0] < JSC_S2_SKIP ? jsc_s2_size(b[0], b + 4, len) : 0;
        assert(n >= len + 4 && size >= 0);
        if (b[0] < JSC_S2_SKIP) assert(!jsc_s2_unpack(b[0], b + 4, len, to + at, (size_t)size));
        at += (size_t)size;
        b += len + 4;
        n -= len + 4;
    }
    return at;
}

static jsc_plane *plane(void) {
    jsc_plane_options o = {.max_payload = LARGE + 1};
    jsc_plane *p;
    assert(!jsc_plane_new(&o, &p));
    return p;
}

static void compress(jsc_plane *p, const peer *r, jsc_compress_options o) {
    assert(!jsc_conn_compress(p, r->id, &o));
    assert(!jsc_conn_route_ready(p, r->id, NULL));
}

/* The INFO that agrees on compression is plain, what stands behind it is not: at every cut of all of it. */
static void test_any_cut(void) {
    static const char info[] = "CONNECT {}\r\nINFO {}\r\n", rest[] = "RS+ $G far\r\nRMSG $G a 5\r\nhello\r\nPING\r\n";
    char all[512], got[1024], plain[1024];
    memcpy(all, info, sizeof info - 1);
    size_t n = sizeof info - 1 + pack(rest, sizeof rest - 1, 17, all + sizeof info - 1);
    for (size_t cut = 1; cut <= n; cut++) {
        jsc_plane *p = plane();
        peer c = join(p, JSC_CONN_CLIENT), r = join(p, JSC_CONN_ROUTE);
        say(p, &c, "CONNECT {}\r\nSUB a 1\r\n", 21);
        infos = 0;
        say(p, &r, all, cut);
        if (infos) compress(p, &r, (jsc_compress_options){.level = 2});
        say(p, &r, all + cut, n - cut);
        assert(infos == 1);
        if (cut < sizeof info - 1) compress(p, &r, (jsc_compress_options){.level = 2});
        assert(hear(p, &c, got, sizeof got) == 18 && !memcmp(got, "MSG a 1 5\r\nhello\r\n", 18));
        assert(jsc_interest(p, jsc_plane_account(p, "$G", 2), "far", 3) == 1);
        size_t k = unpack(got, hear(p, &r, got, sizeof got), plain);
        assert(k == 16 && !memcmp(plain, "RS+ $G a\r\nPONG\r\n", k));
        close(c.fd);
        close(r.fd);
        jsc_plane_free(p);
    }
}

/* What was written before goes out as it is, even when it leaves later; a message as large as may be comes whole. */
static void test_large_both_ways(void) {
    static char payload[LARGE], packed[OUT], got[OUT], plain[OUT], line[64];
    jsc_plane *p = plane();
    peer c = join(p, JSC_CONN_CLIENT), r = join(p, JSC_CONN_ROUTE);
    uint32_t x = 1;
    for (size_t i = 0; i < LARGE; i++) payload[i] = (char)((x = x * 1664525 + 1013904223) >> (i / 65536 % 2 ? 24 : 31));
    say(p, &c, "CONNECT {}\r\nSUB big 1\r\n", 23);
    turn(p);
    assert(!jsc_conn_write(p, r.id, "INFO {}\r\n", 9));
    compress(p, &r, (jsc_compress_options){.level = 1});
    assert(!jsc_conn_write(p, r.id, "PING\r\n", 6));
    size_t n = hear(p, &r, got, sizeof got);
    assert(!memcmp(got, "INFO {}\r\n", 9));
    n = unpack(got + 9, n - 9, plain);
    assert(n == 18 && !memcmp(plain, "RS+ $G big\r\nPING\r\n", n));

    int k = snprintf(line, sizeof line, "RMSG $G big %d\r\n", LARGE);
    memcpy(plain, line, (size_t)k);
    memcpy(plain + k, payload, LARGE);
    memcpy(plain + k + LARGE, "\r\n", 2);
    n = pack(plain, (size_t)k + LARGE + 2, 1 << 20, packed);
    for (size_t at = 0; at < n;) { /* in small and large parts */
        size_t part = at % 3 ? 1000 : 150000;
        if (part > n - at) part = n - at;
        say(p, &r, packed + at, part);
        at += part;
    }
    n = hear(p, &c, got, sizeof got);
    k = snprintf(line, sizeof line, "MSG big 1 %d\r\n", LARGE);
    assert(n == (size_t)k + LARGE + 2 && !memcmp(got, line, (size_t)k) && !memcmp(got + k, payload, LARGE));

    say(p, &r, packed, pack("RS+ $G far\r\n", 12, 12, packed));
    k = snprintf(plain, sizeof plain, "PUB far %d\r\n", LARGE);
    memcpy(plain + k, payload, LARGE);
    memcpy(plain + k + LARGE, "\r\n", 2);
    for (size_t at = 0, all = (size_t)k + LARGE + 2; at < all; at += 100000)
        say(p, &c, plain + at, all - at < 100000 ? all - at : 100000);
    n = hear(p, &r, got, sizeof got);
    assert(n < LARGE * 3 / 4); /* half of it is of two kinds of bytes */
    n = unpack(got, n, plain);
    k = snprintf(line, sizeof line, "RMSG $G far %d\r\n", LARGE);
    assert(n == (size_t)k + LARGE + 2 && !memcmp(plain, line, (size_t)k) && !memcmp(plain + k, payload, LARGE));
    close(c.fd);
    close(r.fd);
    jsc_plane_free(p);
}

/* A chunk of another writer may make more than a read takes: it is handed on in parts. */
static void test_a_block_larger_than_a_read(void) {
    enum { SIZE = 2 << 20, REPEATED = SIZE - 12 - 65540 };
    char *made = malloc(SIZE), got[4096], plain[64];
    uint8_t chunk[64], *q = chunk;
    assert(made);
    memset(made, 'x', SIZE); /* one line, of which the most means nothing */
    memcpy(made, "PING ", 5);
    memcpy(made + SIZE - 2, "\r\n", 2);
    uint32_t sum = jsc_crc32c(0, made, SIZE);
    sum = (sum >> 15 | sum << 17) + 0xa282ead8u;
    memcpy(q, "\xff\6\0\0S2sTwO\xfe\3\0\0abc\0\0\0\0", 21); /* with a chunk that means nothing, and a block's head */
    q += 21;
    for (int i = 0; i < 4; i++) *q++ = (uint8_t)(sum >> (8 * i));
    memcpy(q, "\x80\x80\x80\1\x14PING x\1\1\x1d\0", 15); /* its size, a literal, a copy, a long repetition */
    q += 15;
    for (int i = 0; i < 3; i++) *q++ = (uint8_t)(REPEATED >> (8 * i));
    memcpy(q, "\4\r\n", 3);
    q += 3;
    size_t len = (size_t)(q - chunk) - 21;
    chunk[18] = (uint8_t)len;
    jsc_plane *p = plane();
    peer r = join(p, JSC_CONN_ROUTE);
    compress(p, &r, (jsc_compress_options){0});
    say(p, &r, chunk, (size_t)(q - chunk));
    for (int i = 0; i < 2; i++) {
        size_t n = hear(p, &r, got, sizeof got);
        assert(unpack(got, n, plain) == 6 && !memcmp(plain, "PONG\r\n", 6));
        say(p, &r, got, pack("PING\r\n", 6, 6, got)); /* nothing of it is left over */
    }
    close(r.fd);
    jsc_plane_free(p);
    free(made);
}

/* Garbage ends the route that it came on, after what was whole before it. */
static void test_garbage(void) {
    static const struct {
        const char *b;
        size_t n;
    } bad[] = {
        {"garbage\r\n", 9},
        {"\0\6\0\0abcdef", 10},               /* a block before the stream has begun */
        {"\xff\6\0\0S2sTwo", 10},             /* another name */
        {"\xff\7\0\0S2sTwO\0", 11},
        {"\xff\6\0\0S2sTwO\2\1\0\0x", 15},     /* a chunk of a kind that nobody may skip */
        {"\xff\6\0\0S2sTwO\1\5\0\0abcdx", 19}, /* a checksum that does not fit */
        {"\xff\6\0\0S2sTwO\0\xff\xff\xff", 14}, /* a length beyond the limit */
        {"\xff\6\0\0S2sTwO\0\3\0\0abc", 17},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        jsc_plane *p = plane();
        peer c = join(p, JSC_CONN_CLIENT), r = join(p, JSC_CONN_ROUTE), other = join(p, JSC_CONN_ROUTE);
        char got[1024], packed[256], plain[256];
        compress(p, &r, (jsc_compress_options){.level = 1});
        compress(p, &other, (jsc_compress_options){.level = 1});
        say(p, &c, "CONNECT {}\r\nSUB a 1\r\n", 21);
        hear(p, &r, got, sizeof got);
        hear(p, &other, got, sizeof got);
        broken = 0;
        *why = 0;
        size_t n = i < 4 ? 0 : pack("RMSG $G a 1\r\nx\r\n", 16, 16, packed);
        memcpy(packed + n, bad[i].b, bad[i].n);
        say(p, &r, packed, n + bad[i].n);
        turn(p);
        assert(broken == 1 && !strcmp(why, "Read Error"));
        assert(recv(r.fd, got, sizeof got, MSG_DONTWAIT) == 0);
        if (n) assert(hear(p, &c, got, sizeof got) == 14 && !memcmp(got, "MSG a 1 1\r\nx\r\n", 14));
        say(p, &other, packed, pack("PING\r\n", 6, 6, packed));
        n = hear(p, &other, got, sizeof got);
        assert(unpack(got, n, plain) == 6 && !memcmp(plain, "PONG\r\n", 6));
        close(c.fd);
        close(r.fd);
        close(other.fd);
        jsc_plane_free(p);
    }
}

/* A side that parts before it knows of compression says so in the clear. */
static void test_a_refusal_is_heard(void) {
    jsc_plane *p = plane();
    peer r = join(p, JSC_CONN_ROUTE);
    jsc_compress_options o = {.level = 1};
    say(p, &r, "INFO {}\r\n", 9);
    assert(!jsc_conn_compress(p, r.id, &o));
    say(p, &r, "-ERR 'Authorization Violation'\r\n", 32);
    assert(!strcmp(heard, "'Authorization Violation'"));
    close(r.fd);
    jsc_plane_free(p);
}

static void test_the_level_follows_the_round_trip_time(void) {
    static const struct {
        int64_t thresholds[4];
        uint8_t n;
        int level;
    } cases[] = {
        {{1}, 1, 0},
        {{1, 2}, 2, 1},
        {{1, 2, 3}, 3, 3},
        {{0, 1, 2}, 3, 3},
        {{0, 0, INT64_MAX}, 3, 2},
        {{0, INT64_MAX}, 2, 1},
        {{INT64_MAX, INT64_MAX}, 2, 0},
        {{1, 2, 3, 4}, 4, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        jsc_plane *p = plane();
        peer r = join(p, JSC_CONN_ROUTE);
        jsc_compress_options o = {.level = 1, .thresholds_n = cases[i].n};
        jsc_conn_info info;
        char packed[64];
        memcpy(o.thresholds_ns, cases[i].thresholds, sizeof o.thresholds_ns);
        assert(!jsc_conn_stat(p, r.id, &info) && info.level == -1);
        compress(p, &r, o);
        assert(!jsc_conn_stat(p, r.id, &info) && info.level == 1);
        jsc_conn *c = jsc_conn_find(p, r.id);
        c->pings_out = 1;
        c->ping_sent = p->mono - 1000;
        say(p, &r, packed, pack("PONG\r\n", 6, 6, packed));
        assert(!jsc_conn_stat(p, r.id, &info) && info.level == cases[i].level);
        close(r.fd);
        jsc_plane_free(p);
    }
}

/* Whom the socket stops gets all of it in order when it is read on, the plain bytes first. */
static void test_a_peer_that_reads_late(void) {
    static char all[4 << 20], plain[4 << 20];
    jsc_plane *p = plane();
    int sv[2], room = 4096;
    uint64_t id;
    char line[256];
    jsc_compress_options o = {.level = 0};
    size_t n = 0, got = 0, sent = 0;
    assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv));
    setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    assert(!jsc_conn_adopt(p, sv[0], JSC_CONN_ROUTE, NULL, 0, &id));
    for (int i = 0; i < 2000; i++) {
        if (i == 1000) assert(!jsc_conn_compress(p, id, &o));
        int k = snprintf(line, sizeof line, "+OK %0*d\r\n", 200, i);
        assert(!jsc_conn_write(p, id, line, (size_t)k));
        sent += (size_t)k;
        if (i % 300 == 0) turn(p);
    }
    for (int quiet = 0; quiet < 3;) {
        ssize_t k = recv(sv[1], all + n, 3000, MSG_DONTWAIT);
        if (k > 0) n += (size_t)k, quiet = 0;
        else quiet++;
        turn(p);
    }
    memcpy(plain, all, got = sent / 2);
    got += unpack(all + sent / 2, n - sent / 2, plain + sent / 2);
    assert(got == sent);
    for (int i = 0; i < 2000; i++) assert(atoi(plain + (size_t)i * (sent / 2000) + 4) == i);
    close(sv[1]);
    jsc_plane_free(p);
}

/* A turn packs so much and not more, for all routes together; what is left goes on in the next, others are served between,
 * and nobody is left out. */
static void test_a_turn_packs_a_part(void) {
    enum { ROUTES = 3, MANY = 200 << 10, ALL = 1 << 20 };
    static const struct {
        size_t waits, most; /* the most that goes in one turn */
        uint8_t level;
    } rows[] = {
        {MANY, JSC_PACK_TURN / 24, JSC_S2_BEST},
        {MANY, JSC_PACK_TURN / 16, JSC_S2_BETTER},
        {MANY, JSC_PACK_TURN / 4, JSC_S2_FAST},
        {ALL, JSC_PACK_TURN / 4, JSC_S2_BEST}, /* far behind: packed fast */
    };
    static char text[ALL], packed[ROUTES][2 * ALL], plain[2 * ALL];
    for (size_t i = 0; i + 10 <= ALL; i += 10)
        memcpy(text + i, "+OK 0000\r\n", 10), text[i + 4] += (char)(i * 7919 / 10 % 10),
            text[i + 6] += (char)(i / 10 % 7);
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        size_t n = rows[row].waits / 10 * 10, got[ROUTES] = {0}, left = ROUTES * n;
        jsc_plane *p = plane();
        peer r[ROUTES], c = join(p, JSC_CONN_CLIENT);
        jsc_ready ready[4];
        char pong[64];
        for (int i = 0; i < ROUTES; i++) {
            int room = 4 << 20;
            r[i] = join(p, JSC_CONN_ROUTE);
            setsockopt(jsc_conn_find(p, r[i].id)->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
            compress(p, &r[i], (jsc_compress_options){.level = rows[row].level});
        }
        say(p, &c, "CONNECT {}\r\n", 12);
        turn(p);
        size_t first[ROUTES];
        for (int i = 0; i < ROUTES; i++) {
            jsc_conn *x = jsc_conn_find(p, r[i].id);
            char *q = jsc_out_room(x, n);
            assert(q);
            memcpy(q, text, n);
            x->out.len += n;
            jsc_out_dirty(x);
            first[i] = 0;
        }
        size_t turns = 0;
        for (; left; turns++) {
            size_t before = left;
            assert(turns < 1000);
            assert(send(c.fd, "PING\r\n", 6, 0) == 6);
            assert(jsc_plane_poll(p, 0, ready, 4) >= 0);
            left = 0;
            for (int i = 0; i < ROUTES; i++) {
                size_t waits = jsc_pending(jsc_conn_find(p, r[i].id));
                if (waits < n && !first[i]) first[i] = turns + 1;
                left += waits;
                for (ssize_t k; (k = recv(r[i].fd, packed[i] + got[i], 2 * ALL - got[i], MSG_DONTWAIT)) > 0;)
                    got[i] += (size_t)k;
            }
            assert(recv(c.fd, pong, sizeof pong, MSG_DONTWAIT) == 6);
            assert(left < before && before - left <= rows[row].most + rows[row].most / 8);
        }
        for (int i = 0; i < ROUTES; i++) {
            assert(first[i] && first[i] <= ROUTES + 1);
            assert(unpack(packed[i], got[i], plain) == n && !memcmp(plain, text, n));
            close(r[i].fd);
        }
        close(c.fd);
        jsc_plane_free(p);
    }
}

int main(void) {
    test_a_turn_packs_a_part();
    test_any_cut();
    test_large_both_ways();
    test_a_block_larger_than_a_read();
    test_garbage();
    test_a_refusal_is_heard();
    test_the_level_follows_the_round_trip_time();
    test_a_peer_that_reads_late();
    puts("packed: ok");
    return 0;
}
