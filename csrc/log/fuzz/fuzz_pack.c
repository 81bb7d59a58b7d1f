/* Packed files of a damaged disk, or of somebody who wants the reader's memory: bytes are changed, cut, then checksums
 * mended so that what is behind them is reached. A file that opens must stay within its own numbers; bytes of an
 * encrypted one that are given out must be the ones packed. */
#include "../test/pack_stand_in.c"
#include "../../base/fuzz/driver.h"

#include <stdbool.h>

enum { IMAGE = JSC_PACK_BLOCK + 3000, FOOTER_BYTES = 48, ENTRY_BYTES = 20 };

static uint8_t image[IMAGE];

static jsc_keys *ring(void) {
    uint8_t key[1][JSC_KEY_BYTES] = {{9}};
    uint32_t id = 1;
    jsc_keys *k = NULL;
    if (jsc_keys_new(&id, (const uint8_t (*)[JSC_KEY_BYTES])key, 1, id, &k)) abort();
    return k;
}

/* Head, footer and table get checksums that fit; with `deep`, so do the blocks that the table's numbers lead to. */
static void mend(uint8_t *p, size_t n, bool deep) {
    if (n < JSC_SEGMENT_HEAD + FOOTER_BYTES) return;
    uint8_t *footer = p + n - FOOTER_BYTES;
    uint64_t table = jsc_get64(footer + 8), count = jsc_get32(footer + 16);
    if (table <= n - FOOTER_BYTES && count <= (n - FOOTER_BYTES - table) / ENTRY_BYTES) {
        for (uint64_t i = 0; deep && i < count; i++) {
            uint8_t *e = p + table + i * ENTRY_BYTES;
            uint64_t at = jsc_get64(e), size = jsc_get32(e + 8);
            if (at <= n && size <= n - at) jsc_put32(e + 16, jsc_crc32c(0, p + at, size));
        }
        jsc_put32(footer + 20, jsc_crc32c(0, p + table, count * ENTRY_BYTES));
    }
    jsc_put32(p + 60, jsc_crc32c(0, p, 60));
    jsc_put32(footer + 44, jsc_crc32c(jsc_crc32c(0, p, JSC_SEGMENT_HEAD), footer, 44));
}

static void read_all(jsc_pack *p, bool sealed) {
    uint8_t *out = malloc(JSC_PACK_BLOCK); /* exactly the room that is promised */
    jsc_block_cache *cache;
    uint64_t offset, bytes;
    if (!out || jsc_block_cache_new(100000, &cache)) abort();
    for (uint32_t i = 0; i < jsc_pack_blocks(p); i++) {
        size_t n = 0;
        jsc_pack_where(p, i, &offset, &bytes);
        if (jsc_pack_block(p, i, out, &n) != JSC_OK) continue;
        if (n == 0 || n > JSC_PACK_BLOCK) abort();
        if (sealed && ((uint64_t)i * JSC_PACK_BLOCK + n > IMAGE || memcmp(out, image + (size_t)i * JSC_PACK_BLOCK, n)))
            abort();
    }
    for (uint64_t at = JSC_SEGMENT_HEAD; at < jsc_pack_image_bytes(p) && at < 1000000; at += 40001) {
        const uint8_t *span;
        jsc_block *hold;
        if (jsc_block_span(cache, p, at, 70000, &span, &hold) != JSC_OK) continue;
        memcpy(out, span, 65536);
        memcpy(out, span + 70000 - 65536, 65536);
        jsc_block_release(cache, hold);
    }
    jsc_block_cache_forget(cache, p);
    jsc_block_cache_free(cache);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    mem_file f;
    jsc_segment_head h;
    jsc_pack *p;
    if (n < 1 || n > 200000) return 0;
    jsc_keys *keys = data[0] & 4 ? NULL : ring();
    mem_file_init(&f);
    f.bytes = malloc(n);
    f.n = n - 1;
    memcpy(f.bytes, data + 1, n - 1);
    if (data[0] & 1) mend(f.bytes, f.n, data[0] & 2);
    if (f.n >= JSC_SEGMENT_HEAD && jsc_segment_head_decode(f.bytes, &h) == JSC_OK &&
        jsc_pack_open(&f.vfs, 3, &h, keys, &p) == JSC_OK) {
        read_all(p, h.flags & JSC_SF_ENCRYPTED);
        jsc_pack_close(p);
    }
    mem_file_free(&f);
    jsc_keys_unref(keys);
    return 0;
}

static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    uint64_t r = 88172645463325252u;
    p->lead = 1;
    p->draw[0] = 255;
    p->likes = "\0\1\377\177\200\10";
    p->nlikes = 6;
    p->head = JSC_SEGMENT_HEAD; /* where the numbers are */
    p->tail = FOOTER_BYTES + 2 * ENTRY_BYTES;
    for (size_t i = 0; i < IMAGE; i++) {
        jsc_fuzz_draw(&r);
        image[i] = (uint8_t)(i % 3000 < 1500 || i > JSC_PACK_BLOCK + 2000 ? i / 200 : r); /* shrinks, and some noise */
    }
    for (int i = 0; i < 4; i++) {
        jsc_segment_head head = {.salt = 7, .first = 1};
        mem_file seed;
        jsc_keys *keys = i & 2 ? ring() : NULL;
        jsc_pack_writer *w;
        uint64_t bytes;
        /* A short image in plain: rounds stay cheap, and changes hit numbers more often than contents. */
        size_t n = i & 1 ? IMAGE : 500;
        mem_file_init(&seed);
        if (jsc_pack_begin(&seed.vfs, 3, &head, i & 1 ? 9 : 0, keys, &w) || jsc_pack_add(w, image, n) ||
            jsc_pack_finish(w, &bytes))
            abort();
        jsc_keys_unref(keys);
        jsc_fuzz_add(p, "\3", seed.bytes, seed.n);
        mem_file_free(&seed);
    }
}
