/* Hash of bytes for in-memory tables: 128-bit multiplies folded, 16 bytes a step. */
#include "jsc_base.h"

static inline uint64_t fold(uint64_t a, uint64_t b) {
    __uint128_t m = (__uint128_t)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static inline uint64_t load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

uint64_t jsc_hash(const void *data, size_t n) {
    const uint64_t k0 = 0x9e3779b97f4a7c15u, k1 = 0xc2b2ae3d27d4eb4fu, k2 = 0x165667b19e3779f9u;
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
