/* S2: what is packed comes back whole, what others write is read, and what is not right is refused. */
#include "../s2.h"
#include "../../base/jsc_base.h"
#include "../../base/test/check.h"

enum { ROOM = 1 << 20 };

static uint8_t packed[ROOM + 4096], made[ROOM];

/* Takes a stream apart; the bytes it makes, or -1. */
static int64_t unpack(const uint8_t *b, size_t n, uint8_t *to, size_t cap) {
    size_t at = 0;
    while (n) {
        if (n < JSC_S2_HEAD) return -1;
        size_t len = b[1] | (size_t)b[2] << 8 | (size_t)b[3] << 16;
        if (n - JSC_S2_HEAD < len) return -1;
        if (b[0] < JSC_S2_SKIP) {
            int64_t size = b[0] > JSC_S2_PLAIN ? -1 : jsc_s2_size(b[0], b + JSC_S2_HEAD, len);
            if (size < 0 || (size_t)size > cap - at) return -1;
            uint8_t *own = malloc((size_t)size + 1); /* to the byte: nothing may be written behind it */
            CHECK(own);
            int rc = jsc_s2_unpack(b[0], b + JSC_S2_HEAD, len, own, (size_t)size);
            if (!rc) memcpy(to + at, own, (size_t)size);
            free(own);
            if (rc) return -1;
            at += (size_t)size;
        }
        b += JSC_S2_HEAD + len;
        n -= JSC_S2_HEAD + len;
    }
    return (int64_t)at;
}

static size_t round_trip(int level, const uint8_t *b, size_t n) {
    static jsc_s2_work w;
    uint8_t *to = malloc(jsc_s2_bound(n));
    CHECK(to);
    size_t k = jsc_s2_pack(&w, level, b, n, to);
    CHECK(k <= jsc_s2_bound(n));
    CHECK(!memcmp(to, "\xff\6\0\0S2sTwO", 10));
    CHECK(unpack(to, k, made, sizeof made) == (int64_t)n);
    CHECK(!n || !memcmp(made, b, n));
    free(to);
    return k;
}

/* Text, noise, and long repetitions at all distances, one after the other. */
static void fill(uint8_t *b, size_t n, uint32_t noise) {
    for (size_t at = 0; at < n;) {
        size_t k = 1 + rnd(400), back = 1 + rnd(at < 70000 ? at + 1 : 70000);
        if (k > n - at) k = n - at;
        if (back > at || rnd(100) < noise) {
            for (size_t i = 0; i < k; i++) b[at++] = (uint8_t)rnd(256);
        } else {
            for (size_t i = 0; i < k; i++, at++) b[at] = b[at - back];
        }
    }
}

static void test_all_comes_back(void) {
    uint8_t *b = malloc(ROOM);
    CHECK(b);
    for (int level = JSC_S2_STORE; level <= JSC_S2_BEST; level++) {
        for (size_t n = 0; n < 300; n++) {
            uint8_t *own = malloc(n + 1);
            CHECK(own);
            fill(own, n, n % 3 * 40);
            round_trip(level, own, n);
            memset(own, 'x', n);
            round_trip(level, own, n);
            free(own);
        }
        for (int i = 0; i < 12; i++) {
            size_t n = 1 + rnd(i < 8 ? 5000 : 300000);
            fill(b, n, (uint32_t)i * 10);
            round_trip(level, b, n);
        }
    }
    free(b);
}

static void test_what_repeats_is_small_and_what_does_not_is_stored(void) {
    size_t n = 200000;
    uint8_t *b = malloc(n);
    CHECK(b);
    for (size_t i = 0; i < n; i++) b[i] = (uint8_t)"RMSG $G orders.new 128\r\n"[i % 24];
    for (int level = JSC_S2_FAST; level <= JSC_S2_BEST; level++) CHECK(round_trip(level, b, n) < 300);
    CHECK(round_trip(JSC_S2_STORE, b, n) > n);
    for (size_t i = 0; i < n; i++) b[i] = (uint8_t)rnd(256);
    for (int level = JSC_S2_STORE; level <= JSC_S2_BEST; level++) CHECK(round_trip(level, b, n) < n + 64);
    size_t size[4];
    fill(b, n, 20);
    for (int level = JSC_S2_STORE; level <= JSC_S2_BEST; level++) size[level] = round_trip(level, b, n);
    CHECK(size[JSC_S2_FAST] < n && size[JSC_S2_BETTER] <= size[JSC_S2_FAST] &&
          size[JSC_S2_BEST] <= size[JSC_S2_BETTER]);
    free(b);
}

typedef struct bytes {
    const char *b;
    size_t n;
} bytes;
#define B(text) {text, sizeof(text) - 1}

/* What a nats-server of version 2.14.5 wrote: two of its INFO lines, of different settings. */
static void test_what_nats_server_writes(void) {
    static const bytes said[] = {
        B("\xff\6\0\0S2sTwO\0N\1\0\xff\x1d\x32\xc8\xe4\2\xf0LINFO "
          "{\"server_id\":\"NCC5ZXFGFEQQJLYVHSFJU3HKT5YBVGPVO6DKXXY5JWIV5OYJ5QHQ6W72\",\x11G\xf0Gname\":\"A\","
          "\"version\":"
          "\"2.14.5\",\"proto\":3,\"go\":\"go1.26.8\",\"host\":\"127.0.0.1\1-\xf0gort\":15002,\"headers\":true,\"max_"
          "payload\":1048576,\"nonce\":\"F2Nw186saPHOszU\",\"cluster\":\"c\",\"connect_urls\":[\x19v\5n,1\"],"
          "\"comp"
          "res\r"
          "\xc1\x34s2_fast\",\"lnoc\x11\x85\1\f\0u\x11\rTroute_pool_size\":3} \r\n"),
        B("\xff\6\0\0S2sTwO\0T\1\0\x8b\xc9\x31\x64\xe6\2\xf0LINFO "
          "{\"server_id\":\"NBZ7R6LANTAFHIO2Y2TNGVJ4CKFAII4N3N3T5GKMOSF7NQP2LZUF2HTT\",\x11G\xf0\x80name\":\"A\","
          "\"version\":"
          "\"2.14.5\",\"proto\":3,\"go\":\"go1.26.8\",\"host\":\"127.0.0.1\",\"port\":15002,\"headers\":true,\"max_"
          "payload\":"
          "1048576,\"nonc\1~\xb8Jn5CAFiNZY781Z8\",\"cluster\":\"c\",\"connect_urls\":[\x19v\x1c:15001\"]\1#\x10mpres\r"
          "\xc1\x14s2_bet\1A,,\"lnoc\":true\t\f\0u\x11\rTroute_pool_size\":3} \r\n"),
    };
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        int64_t n = unpack((const uint8_t *)said[i].b, said[i].n, made, sizeof made - 1);
        CHECK(n == (i ? 358 : 356));
        made[n] = 0;
        CHECK(!memcmp(made, "INFO {", 6) && strstr((char *)made, "\"server_name\":\"A\"") &&
              strstr((char *)made, i ? "\"compression\":\"s2_better\"" : "\"compression\":\"s2_fast\"") &&
              strstr((char *)made, "\"route_pool_size\":3} \r\n"));
    }
}

/* A block alone, with its checksum made to fit what it should make. */
static int makes(const char *block, size_t n, const char *text, size_t size) {
    uint8_t *chunk = malloc(n + JSC_S2_SUM), *to = malloc(size + 1);
    CHECK(chunk && to);
    uint32_t c = jsc_crc32c(0, text, size);
    c = (c >> 15 | c << 17) + 0xa282ead8u;
    for (int i = 0; i < 4; i++) chunk[i] = (uint8_t)(c >> (8 * i));
    memcpy(chunk + JSC_S2_SUM, block, n);
    int64_t told = jsc_s2_size(JSC_S2_BLOCK, chunk, n + JSC_S2_SUM);
    int good = told == (int64_t)size && !jsc_s2_unpack(JSC_S2_BLOCK, chunk, n + JSC_S2_SUM, to, size) &&
               !memcmp(to, text, size);
    free(chunk);
    free(to);
    return good;
}

static void test_elements(void) {
    static char text[70000];
    static const struct {
        bytes block;
        size_t size;
    } good[] = {
        {B("\0"), 0},
        {B("\4\14abab"), 4},                                /* a literal */
        {B("\4\xf0\3abab"), 4},                             /* its length in one byte, two, three, four */
        {B("\4\xf4\3\0abab"), 4},
        {B("\4\xf8\3\0\0abab"), 4},
        {B("\4\xfc\3\0\0\0abab"), 4},
        {B("\6\4ab\1\2"), 6},                               /* copies of four bytes from two before, in each form */
        {B("\6\4ab\16\2\0"), 6},
        {B("\6\4ab\17\2\0\0\0"), 6},
        {B("\x0a\4ab\1\2\1\0"), 10},                        /* repetitions: of four bytes, */
        {B("\x0e\4ab\1\2\x11\0"), 14},                      /* eight, */
        {B("\x0f\4ab\1\2\x15\0\1"), 15},                    /* nine, and of more in one to three bytes */
        {B("\x8d\2\4ab\1\2\x15\0\xff"), 269},
        {B("\x8a\2\4ab\1\2\x19\0\0\0"), 266},
        {B("\x8c\x80\4\4ab\1\2\x1d\0\2\0\0"), 65548},
    };
    static const bytes bad[] = {
        B(""),
        B("\x80\x80\x80\x80\x80\1"),       /* a size without end, and one that is too large */
        B("\x81\x80\x80\2"),
        B("\4\14aba"),                     /* literals that are not there, or too long */
        B("\3\14abab"),
        B("\5\14abab"),
        B("\4\xf0"),
        B("\4\xfc\xff\xff\xff\xffxxxx"),
        B("\4\1\1"),                       /* copies from before the start, */
        B("\6\4ab\1\3"),
        B("\6\4ab\x0e\0\0"),               /* from nowhere, */
        B("\6\4ab\x0f\0\0\0\0"),
        B("\6\4ab\1\0"),                   /* a repetition that is first, */
        B("\5\4ab\1\2"),                   /* of more than there is room for, */
        B("\6\4ab\1"),                     /* and cut off */
        B("\6\4ab\x0e\2"),
        B("\6\4ab\x0f\2\0\0"),
        B("\x0f\4ab\1\2\x15\0"),
        B("\x8c\x80\4\4ab\1\2\x1d\0\2\0"),
    };
    for (size_t i = 0; i < sizeof text; i++) text[i] = "ab"[i % 2];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(makes(good[i].block.b, good[i].block.n, text, good[i].size));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (size_t size = 0; size < 300; size++) CHECK(!makes(bad[i].b, bad[i].n, text, size));
    CHECK(!makes("\4\14abba", 6, text, 4)); /* the checksum says otherwise */
    CHECK(jsc_s2_size(JSC_S2_PLAIN, "abc", 3) == -1 && jsc_s2_size(JSC_S2_PLAIN, "abcd", 4) == 0);
    CHECK(jsc_s2_size(JSC_S2_PLAIN, text, JSC_S2_MADE_MAX + 5) == -1);
}

static void test_no_change_of_a_byte_goes_unseen(void) {
    uint8_t b[600];
    static jsc_s2_work w;
    fill(b, sizeof b, 30);
    size_t n = jsc_s2_pack(&w, JSC_S2_FAST, b, sizeof b, packed);
    for (size_t i = 14; i < n; i++) {
        for (int bit = 0; bit < 8; bit++) {
            packed[i] ^= (uint8_t)(1 << bit);
            /* Elements may say the same in another way; then the bytes are the same, too. */
            int64_t k = unpack(packed, n, made, sizeof made);
            CHECK(k == -1 || (k == sizeof b && !memcmp(made, b, sizeof b)));
            packed[i] ^= (uint8_t)(1 << bit);
        }
    }
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    test_all_comes_back();
    test_what_repeats_is_small_and_what_does_not_is_stored();
    test_what_nats_server_writes();
    test_elements();
    test_no_change_of_a_byte_goes_unseen();
    puts("ok");
    return 0;
}
