/* The same as test_express, of the express that machines without SSE2 have: it takes the engine's place here. And what it
 * sees of a line is what is there: seen wrongly, it would leave all to the parser, and nobody but a clock would notice. */
#define JSC_NO_SSE2
#include "../express.c"
#ifdef JSC_SSE2
#error "this is the other one"
#endif
#define main test_all
#include "test_express.c"
#undef main

static void test_gaps(void) {
    char text[LOOK];
    for (int round = 0; round < 20000; round++) {
        uint64_t want = 0;
        for (int i = 0; i < LOOK; i++) {
            text[i] = (char)(round % 2 ? rnd(256) : 30 + rnd(6));
            want |= (uint64_t)((unsigned char)text[i] <= ' ') << i;
        }
        CHECK(gaps(text) == want);
    }
}

static void test_take(void) {
    static const char text[LEAST + STEP] = "PUB a.b\xff inbox.1 3\r\nabc\r\n";
    line l;
    CHECK(take(text, text + sizeof text, &l));
    CHECK(l.subject_len == 4 && l.reply_len == 7 && l.size_len == 1 && l.payload == 3 && !memcmp(l.body, "abc", 3));
}

static void test_take_routed(void) {
    static const char texts[][RMSG_VERB + RMSG_LOOK + 1 + STEP] = {
        "RMSG $G a.b\xff inbox.1 3\r\nabc\r\n", "RMSG a.b\xff inbox.1 3\r\nabc\r\n",
        "RMSG " LONG_ACCOUNT " a.b\xff inbox.1 3\r\nabc\r\n"};
    for (int i = 0; i < 3; i++) {
        line l;
        CHECK(take_routed(texts[i], texts[i] + sizeof texts[i], i != 1, &l));
        CHECK(l.account_len == (i == 0   ? 2
                                : i == 1 ? 0
                                         : 56) &&
              l.subject_len == 4 && !memcmp(l.subject, "a.b\xff", 4));
        CHECK(l.reply_len == 7 && l.size_len == 1 && l.payload == 3 && !memcmp(l.body, "abc", 3));
        CHECK(!take_routed(texts[i], l.body + 5, i != 1, &l)); /* nothing may be read behind the end */
    }
}

int main(void) {
    test_gaps();
    test_take();
    test_take_routed();
    return test_all();
}
