/* Hash of bytes for in-memory tables: 128-bit multiplies folded, 16 bytes a step.
 *
 * Strangers choose what is hashed: subjects, subscription ids, message ids. With factors that are known they choose
 * bytes that make a product zero, and then all of them have one hash. So the factors are drawn anew for each process. */
#include "jsc_base.h"
#include <sys/random.h>
#include <time.h>

static uint64_t k0, k1, k2;

static inline uint64_t fold(uint64_t a, uint64_t b) {
    __uint128_t m = (__uint128_t)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static inline uint64_t load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

__attribute__((constructor)) static void draw(void) {
    uint64_t v[3];
    if (getrandom(v, sizeof v, 0) != (ssize_t)sizeof v) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        uint64_t at = (uint64_t)(uintptr_t)&now, ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
        for (uint64_t i = 0; i < 3; i++) v[i] = fold(ns + i, at ^ 0x9e3779b97f4a7c15u);
    }
    k0 = v[0] ^ 0x9e3779b97f4a7c15u;
    k1 = v[1] ^ 0xc2b2ae3d27d4eb4fu;
    k2 = v[2] ^ 0x165667b19e3779f9u;
}

uint64_t jsc_hash(const void *data, size_t n) {
    const uint8_t *p = data;
    uint64_t h = k2 ^ (uint64_t)n * k0, a = 0, b = 0;
    size_t left = n;
    for (; left > 16; p += 16, left -= 16) h = fold(load64(p) ^ k0 ^ h, load64(p + 8) ^ k1);
    if (left >= 8) {
        a = load64(p);
        b = load64(p + left - 8);
    } else if (left >= 4) {
        uint32_t x, y;
        memcpy(&x, p, 4);
        memcpy(&y, p + left - 4, 4);
        a = x;
        b = y;
    } else if (left) {
        a = (uint64_t)p[0] << 16 | (uint64_t)p[left >> 1] << 8 | p[left - 1];
    }
    h = fold(a ^ k0 ^ h, b ^ k1);
    return fold(h ^ k2, k0 ^ (uint64_t)n);
}
