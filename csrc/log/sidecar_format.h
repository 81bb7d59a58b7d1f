/* The bytes of a sidecar: its head, where its sections are, how its filter and its table of subjects are addressed. No
 * files. See docs/format.md#sidecars. */
#ifndef JSC_SIDECAR_FORMAT_H
#define JSC_SIDECAR_FORMAT_H
#include "sidecar.h"

#define JSC_SIDECAR_MAGIC 0x3158444943534aull /* "JSCIDX1" */
#define JSC_SIDECAR_VERSION 1
#define JSC_SIDECAR_HEAD 256
#define JSC_SIDECAR_SIGNED 176 /* bytes of the head that the tag of an encrypted body covers */
#define JSC_SIDECAR_OFFSET_MAX ((uint64_t)32 << 30)
#define JSC_SIDECAR_COUNT_MAX (((uint32_t)1 << 30) - 1)
#define JSC_SIDECAR_BLOOM_BITS 12 /* per subject */
#define JSC_SIDECAR_NO_SLOT UINT32_MAX

enum {
    JSC_XF_ENCRYPTED = 1,
    JSC_XF_BYTES = 2, /* has the column of record sizes: they do not all follow from subject and payload */
    JSC_XF_KNOWN = 3,
};

typedef struct jsc_sidecar_head {
    jsc_sidecar_info info;
    uint32_t flags, runs, others;
    uint64_t text_bytes, body; /* body: bytes between head and tag */
    uint64_t own_salt;         /* encrypted: of this file's key */
    uint64_t digest;           /* XXH3-64 of the body as it lies in the file */
} jsc_sidecar_head;

/* Where each section starts, in bytes from the start of the body. */
typedef struct jsc_sidecar_layout {
    uint64_t bloom, seq, ts, offset, size, subject, bytes, starts, postings, text_starts, texts, slots, runs, others,
        end;
    uint32_t nblooms, nslots;
    int slot_bits; /* bits of a slot that hold the subject id */
} jsc_sidecar_layout;

/* A run of messages with consecutive indexes and ordinals, or another record: index - first; ordinal, or offset / 8. */
typedef struct jsc_sidecar_pair {
    uint32_t delta, value;
} jsc_sidecar_pair;

void jsc_sidecar_head_encode(const jsc_sidecar_head *, uint8_t out[JSC_SIDECAR_HEAD]);
/* JSC_ECORRUPT, JSC_EFORMAT. What it gives fits together as far as it can without the body. */
int jsc_sidecar_head_decode(const uint8_t in[JSC_SIDECAR_HEAD], jsc_sidecar_head *out);
void jsc_sidecar_lay_out(const jsc_sidecar_head *, jsc_sidecar_layout *out);

/* Bytes of a message's record that has no headers. */
static inline uint64_t jsc_sidecar_plain_bytes(uint64_t subject, uint64_t payload) {
    return (JSC_RECORD_HEAD + subject + payload + 7) & ~(uint64_t)7;
}

/* Indexes from first to last. */
static inline uint64_t jsc_sidecar_span(const jsc_sidecar_info *i) { return i->last + 1 - i->first; }

/* A place below n for a hash. */
static inline uint32_t jsc_sidecar_place(uint64_t hash, uint32_t n) { return (uint32_t)((hash >> 32) * n >> 32); }

/* The six bits of a subject in its block of 512, 9 bits each from bit 10 up. */
static inline uint64_t jsc_sidecar_bloom_bits(uint64_t hash) { return hash * 0x9e3779b97f4a7c15u; }

static inline void jsc_sidecar_bloom_add(uint64_t *bloom, uint32_t nblooms, uint64_t hash) {
    uint64_t *block = bloom + 8 * (size_t)jsc_sidecar_place(hash, nblooms), bits = jsc_sidecar_bloom_bits(hash);
    for (int at = 10; at < 64; at += 9) block[bits >> (at + 6) & 7] |= (uint64_t)1 << (bits >> at & 63);
}

static inline bool jsc_sidecar_bloom_has(const uint64_t *bloom, uint32_t nblooms, uint64_t hash) {
    const uint64_t *block = bloom + 8 * (size_t)jsc_sidecar_place(hash, nblooms);
    uint64_t bits = jsc_sidecar_bloom_bits(hash), all = 1;
    for (int at = 10; at < 64; at += 9) all &= block[bits >> (at + 6) & 7] >> (bits >> at & 63);
    return all;
}

#endif
