/* What tests in C share: checks that say where, and in which case, they failed, and random numbers that a seed repeats.
 * A test whose cases have names defines CHECK_CASE before: a format and its values, told behind the place. */
#ifndef JSC_TEST_CHECK_H
#define JSC_TEST_CHECK_H
#include "../jsc_base.h"

#ifdef CHECK_CASE
#define CHECK_SAY_CASE() fprintf(stderr, CHECK_CASE)
#else
#define CHECK_SAY_CASE() (void)0
#endif
#ifndef CHECK_END
#define CHECK_END() exit(1)
#endif

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s", __FILE__, __LINE__, #x);                                                      \
            CHECK_SAY_CASE();                                                                                          \
            fputc('\n', stderr);                                                                                       \
            CHECK_END();                                                                                               \
        }                                                                                                              \
    } while (0)
#define OK(x)                                                                                                          \
    do {                                                                                                               \
        int rc_ = (x);                                                                                                 \
        if (rc_ != JSC_OK) {                                                                                           \
            fprintf(stderr, "%s:%d: %s = %d", __FILE__, __LINE__, #x, rc_);                                            \
            CHECK_SAY_CASE();                                                                                          \
            fputc('\n', stderr);                                                                                       \
            CHECK_END();                                                                                               \
        }                                                                                                              \
    } while (0)

/* SplitMix64 below n; `rnd_state` is where it stands, and where a seed goes in. */
static uint64_t rnd_state __attribute__((unused));
__attribute__((unused)) static uint64_t rnd(uint64_t n) {
    uint64_t z = (rnd_state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}
#endif
