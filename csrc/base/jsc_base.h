/* Codes and small tools that every part of the C core shares. No globals that change once main runs, no Python. */
#ifndef JSC_BASE_H
#define JSC_BASE_H
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Result of a call: JSC_OK, one of these, or -errno of a failed system call. Outputs are set on JSC_OK, else untouched. */
enum {
    JSC_OK = 0,
    JSC_ENOTFOUND = -10001, /* no such record, subject, consumer */
    JSC_ECORRUPT = -10002,  /* bytes that were durable once do not verify */
    JSC_EFORMAT = -10003,   /* a format version that this code does not know: the store is left untouched */
    JSC_EINVAL = -10004,    /* the caller's argument is outside the contract */
    JSC_EFAILED = -10005,   /* an earlier write or sync failed: the log is read-only for good in this process */
    JSC_EFULL = -10006,     /* no space: nothing was accepted */
    JSC_ELOCKED = -10007,   /* another process has the directory */
    JSC_EHOST = -10008,     /* the next record is for the host language to apply; then call again */
    JSC_EORDER = -10009,    /* records that do not follow the log's last one */
    JSC_EKEY = -10010,      /* encrypted, and the key it names is not at hand */
    JSC_EREADONLY = -10011, /* opened for reading only */
};

/* An invariant of ours is broken: say where and stop. On in release builds; for cold paths. */
#define JSC_ASSERT(x)                                                                                                  \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "jscore: broken invariant %s at %s:%d\n", #x, __FILE__, __LINE__);                         \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define JSC_LIKELY(x) __builtin_expect(!!(x), 1)
#define JSC_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* CRC32C (Castagnoli) of n bytes continuing from crc (0 to start). SSE4.2 or ARMv8 when the machine has it. Standard
 * definition: jsc_crc32c(0, "123456789", 9) == 0xE3069283. */
uint32_t jsc_crc32c(uint32_t crc, const void *data, size_t n);

/* 64-bit hash of bytes for in-memory tables; another one in each process and in each module, so never stored, nor does
 * anything that replicas must agree on follow from it. */
uint64_t jsc_hash(const void *data, size_t n);

/* Numbers in files and records: little endian, at any address. */
static inline uint16_t jsc_get16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline uint32_t jsc_get32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline uint64_t jsc_get64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline void jsc_put16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void jsc_put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void jsc_put64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }

/* Room for `more` items behind the first n of *p. -ENOMEM: nothing changed. */
static inline int jsc_reserve(void **p, size_t n, size_t more, size_t *cap, size_t item) {
    if (more <= *cap - n) return JSC_OK;
    size_t want = *cap ? 2 * *cap : 64;
    if (want < n + more) want = n + more;
    void *grown = realloc(*p, want * item);
    if (!grown) return -ENOMEM;
    *p = grown;
    *cap = want;
    return JSC_OK;
}

#endif
