/* Packed files and the cache of their blocks: every size comes back, and nothing damaged ever reads as something else. */
#include "pack_stand_in.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include "../../base/test/check.h"

static const jsc_segment_head HEAD = {.salt = 0x1234, .first = 17, .prev_term = 3, .base_seq = 9};

static jsc_keys *ring(uint8_t first) {
    uint8_t key[1][JSC_KEY_BYTES] = {{first, 2, 3}};
    uint32_t id = 5;
    jsc_keys *k = NULL;
    OK(jsc_keys_new(&id, (const uint8_t (*)[JSC_KEY_BYTES])key, 1, id, &k));
    return k;
}

/* Contents by kind: text that shrinks, noise that does not, both by turns so that one file has both sorts of block. */
static void fill(uint8_t *p, size_t n, int kind) {
    for (size_t i = 0; i < n; i++) {
        bool noise = kind == 1 || (kind == 2 && i / JSC_PACK_BLOCK % 2);
        p[i] = noise ? (uint8_t)rnd(256) : (uint8_t)("orders.new {price: 12}"[i % 22] + (i / 500) % 3);
    }
}

static void pack(mem_file *f, const uint8_t *image, size_t n, int level, jsc_keys *keys) {
    jsc_pack_writer *w;
    uint64_t bytes = 0;
    mem_file_init(f);
    OK(jsc_pack_begin(&f->vfs, 3, &HEAD, level, keys, &w));
    for (size_t at = 0; at < n;) {
        size_t part = rnd(3) ? 1 + rnd(300) : rnd(200000);
        if (part > n - at) part = n - at;
        OK(jsc_pack_add(w, image + at, part));
        at += part;
    }
    OK(jsc_pack_finish(w, &bytes));
    CHECK(bytes == f->n);
}

static jsc_segment_head head_of(const mem_file *f) {
    jsc_segment_head h;
    CHECK(f->n >= JSC_SEGMENT_HEAD);
    OK(jsc_segment_head_decode(f->bytes, &h));
    return h;
}

static void check_image(jsc_pack *p, const uint8_t *image, size_t n) {
    static uint8_t out[JSC_PACK_BLOCK];
    uint64_t end = JSC_SEGMENT_HEAD, offset, bytes;
    size_t got, at = 0;
    CHECK(jsc_pack_image_bytes(p) == JSC_SEGMENT_HEAD + n);
    CHECK(jsc_pack_blocks(p) == (n + JSC_PACK_BLOCK - 1) / JSC_PACK_BLOCK);
    for (uint32_t i = 0; i < jsc_pack_blocks(p); i++, at += got) {
        jsc_pack_where(p, i, &offset, &bytes);
        CHECK(offset == end && bytes);
        end += bytes;
        OK(jsc_pack_block(p, i, out, &got));
        CHECK(got == (n - at < JSC_PACK_BLOCK ? n - at : JSC_PACK_BLOCK) && !memcmp(out, image + at, got));
    }
    CHECK(at == n && jsc_pack_block(p, jsc_pack_blocks(p), out, &got) == JSC_ENOTFOUND);
}

static void test_round_trips(void) {
    enum { MAX = 5 * JSC_PACK_BLOCK };
    static const size_t sizes[] = {0,     1,     2,      8,      63,     64,     1000,    65535,
                                   65536, 65537, 131071, 131072, 131073, 200000, MAX - 1, MAX};
    uint8_t *image = malloc(MAX);
    jsc_keys *keys = ring(1);
    for (int kind = 0; kind < 3; kind++)
        for (int how = 0; how < 4; how++)
            for (size_t k = 0; k < sizeof sizes / sizeof sizes[0] + 4; k++) {
                size_t n = k < sizeof sizes / sizeof sizes[0] ? sizes[k] : rnd(MAX);
                mem_file f;
                jsc_pack *p;
                fill(image, n, kind);
                pack(&f, image, n, how & 1 ? 3 : 0, how & 2 ? keys : NULL);
                jsc_segment_head h = head_of(&f);
                CHECK(h.flags == (JSC_SF_PACKED | (how & 2 ? JSC_SF_ENCRYPTED : 0u)) && h.body == n + 64);
                CHECK(h.key_id == (how & 2 ? 5 : 0) && h.salt == HEAD.salt && h.base_seq == 9 && h.first == 17);
                if (kind == 0 && how & 1 && n >= 1000) CHECK(f.n < n);
                CHECK(f.n <= n + 64 + 48 + (n / JSC_PACK_BLOCK + 1) * (20 + 16)); /* never much larger */
                OK(jsc_pack_open(&f.vfs, 3, &h, keys, &p));
                check_image(p, image, n);
                jsc_pack_close(p);
                mem_file_free(&f);
            }
    jsc_keys_unref(keys);
    free(image);
}

/* Bytes that must never change, of files that an independent reader (pure Python, from the text of the format) took
 * apart. Uncompressed ones: zstd may squeeze differently with its next version. */
static void test_known_files(void) {
    static const uint32_t crcs[2] = {0xe9631067u, 0xa7088a26u};
    uint8_t image[300];
    for (size_t i = 0; i < sizeof image; i++) image[i] = (uint8_t)(i * 7);
    for (int how = 0; how < 2; how++) {
        jsc_segment_head h = HEAD;
        jsc_keys *keys = how ? ring(1) : NULL;
        jsc_pack_writer *w;
        uint64_t bytes;
        mem_file f;
        h.flags = JSC_SF_REWRITTEN;
        mem_file_init(&f);
        OK(jsc_pack_begin(&f.vfs, 3, &h, 0, keys, &w));
        OK(jsc_pack_add(w, image, sizeof image));
        OK(jsc_pack_finish(w, &bytes));
        CHECK(jsc_crc32c(0, f.bytes, f.n) == crcs[how]);
        mem_file_free(&f);
        jsc_keys_unref(keys);
    }
}

/* What opening and reading a changed file may do: fail, or give the very bytes that were packed. */
static int try_file(mem_file *f, jsc_segment_head h, jsc_keys *keys, const uint8_t *image, size_t n, int *bad_blocks) {
    static uint8_t out[JSC_PACK_BLOCK];
    jsc_pack *p = NULL;
    *bad_blocks = 0;
    int rc = jsc_pack_open(&f->vfs, 3, &h, keys, &p);
    if (rc != JSC_OK) {
        CHECK(!p && (rc == JSC_ECORRUPT || rc == JSC_EKEY));
        return rc;
    }
    CHECK(jsc_pack_image_bytes(p) == n + JSC_SEGMENT_HEAD);
    for (uint32_t i = 0; i < jsc_pack_blocks(p); i++) {
        size_t got;
        memset(out, 0, sizeof out);
        rc = jsc_pack_block(p, i, out, &got);
        if (rc == JSC_OK) CHECK(!memcmp(out, image + (size_t)i * JSC_PACK_BLOCK, got));
        else CHECK(rc == JSC_ECORRUPT && ++*bad_blocks);
    }
    jsc_pack_close(p);
    return JSC_OK;
}

static void test_damage(void) {
    enum { N = 2 * JSC_PACK_BLOCK + 300 };
    static uint8_t image[N];
    jsc_keys *keys = ring(1);
    for (int how = 0; how < 4; how++) {
        mem_file f;
        jsc_segment_head h, ignored;
        int bad;
        memset(image, 'x', N);
        fill(image, 300, 1);
        fill(image + JSC_PACK_BLOCK, 200, 1);
        /* Without compression the whole would be too much for a flip of every byte: a small image then. */
        size_t n = how & 1 ? N : 300;
        jsc_keys *k = how & 2 ? keys : NULL;
        pack(&f, image, n, how & 1 ? 3 : 0, k);
        h = head_of(&f);
        CHECK(f.n < 2000);
        OK(try_file(&f, h, keys, image, n, &bad));
        CHECK(bad == 0);
        for (size_t at = 0; at < f.n; at++)
            for (int bit = 0; bit < 8; bit++) {
                f.bytes[at] ^= (uint8_t)(1 << bit);
                int rc = try_file(&f, h, keys, image, n, &bad);
                /* One block, and no other; the head is as it was given, whatever the file has in its place. */
                if (at < JSC_SEGMENT_HEAD) CHECK(rc == JSC_OK && bad == 0);
                else CHECK(rc != JSC_OK || bad == 1);
                CHECK(rc != JSC_EKEY); /* damage is not taken for a wrong key */
                if (at < JSC_SEGMENT_HEAD) {
                    rc = jsc_segment_head_decode(f.bytes, &ignored);
                    CHECK(rc == JSC_ECORRUPT || rc == JSC_EFORMAT);
                }
                f.bytes[at] ^= (uint8_t)(1 << bit);
            }
        size_t whole = f.n;
        for (f.n = 0; f.n < whole; f.n++) CHECK(try_file(&f, h, keys, image, n, &bad) == JSC_ECORRUPT);
        f.bytes = realloc(f.bytes, whole + 100);
        memset(f.bytes + whole, 0, 100);
        for (f.n = whole + 1; f.n < whole + 100; f.n++) CHECK(try_file(&f, h, keys, image, n, &bad) == JSC_ECORRUPT);
        mem_file_free(&f);
    }
    jsc_keys_unref(keys);
}

/* Somebody who can mend checksums but has no key: moved, swapped and relabelled blocks of an encrypted file. */
static void test_forgery(void) {
    enum { N = 3 * JSC_PACK_BLOCK };
    uint8_t *image = malloc(N), *saved;
    jsc_keys *keys = ring(1), *wrong = ring(2);
    mem_file f;
    jsc_pack *p = NULL;
    fill(image, N, 1);
    pack(&f, image, N, 0, keys);
    jsc_segment_head h = head_of(&f);
    CHECK(jsc_pack_open(&f.vfs, 3, &h, NULL, &p) == JSC_EKEY);
    CHECK(jsc_pack_open(&f.vfs, 3, &h, wrong, &p) == JSC_EKEY);
    saved = malloc(f.n);
    memcpy(saved, f.bytes, f.n);
    size_t table = f.n - 48 - 3 * 20, stored = JSC_PACK_BLOCK + JSC_TAG_BYTES;
    /* Blocks 0 and 1 change places, with their checksums: all sizes are the same. */
    memcpy(f.bytes + 64, saved + 64 + stored, stored);
    memcpy(f.bytes + 64 + stored, saved + 64, stored);
    memcpy(f.bytes + table + 16, saved + table + 20 + 16, 4);
    memcpy(f.bytes + table + 20 + 16, saved + table + 16, 4);
    uint8_t *footer = f.bytes + f.n - 48;
    jsc_put32(footer + 20, jsc_crc32c(0, f.bytes + table, 60));
    jsc_put32(footer + 44, jsc_crc32c(jsc_crc32c(0, f.bytes, 64), footer, 44));
    CHECK(jsc_pack_open(&f.vfs, 3, &h, keys, &p) == JSC_EKEY && !p);
    /* The table is as it was, the blocks' checksums are not touched: only what the tags say is left. */
    memcpy(f.bytes, saved, f.n);
    f.bytes[64 + stored + 5] ^= 1;
    OK(jsc_pack_open(&f.vfs, 3, &h, keys, &p));
    static uint8_t out[JSC_PACK_BLOCK];
    size_t n;
    OK(jsc_pack_block(p, 0, out, &n));
    CHECK(jsc_pack_block(p, 1, out, &n) == JSC_ECORRUPT);
    jsc_pack_close(p);
    /* A head with another base sequence, everything else mended. */
    memcpy(f.bytes, saved, f.n);
    h.base_seq++;
    jsc_segment_head_encode(&h, f.bytes);
    jsc_put32(footer + 44, jsc_crc32c(jsc_crc32c(0, f.bytes, 64), footer, 44));
    p = NULL;
    CHECK(jsc_pack_open(&f.vfs, 3, &h, keys, &p) == JSC_EKEY && !p);
    mem_file_free(&f);
    free(saved);
    free(image);
    jsc_keys_unref(keys);
    jsc_keys_unref(wrong);
}

static void test_failing_disk(void) {
    static uint8_t image[300000];
    jsc_pack_writer *w;
    fill(image, sizeof image, 1);
    CHECK(jsc_pack_begin(NULL, 3, &HEAD, 20, NULL, &w) == JSC_EINVAL);
    for (int at = 1;; at++) {
        mem_file f;
        uint64_t bytes = 77;
        mem_file_init(&f);
        OK(jsc_pack_begin(&f.vfs, 3, &HEAD, 1, NULL, &w));
        f.fail_at = at;
        int rc = jsc_pack_add(w, image, sizeof image);
        if (rc != JSC_OK) CHECK(rc == -EIO && jsc_pack_add(w, image, 1) == -EIO);
        int end = jsc_pack_finish(w, &bytes);
        int left = f.fail_at;
        mem_file_free(&f);
        if (end == JSC_OK) {
            CHECK(left > 0 && at > 4);
            break;
        }
        CHECK(end == -EIO && bytes == 77);
    }
}

/* ---- the cache ---- */

typedef struct shelf {
    uint8_t *image;
    size_t n;
    mem_file f[2];
    jsc_pack *packs[2];
    jsc_block_cache *cache;
} shelf;

static void shelf_new(shelf *s, size_t budget) {
    jsc_keys *keys = ring(1);
    s->n = 20 * JSC_PACK_BLOCK + 1000;
    s->image = malloc(2 * s->n);
    fill(s->image, 2 * s->n, 2);
    for (int i = 0; i < 2; i++) {
        pack(&s->f[i], s->image + (size_t)i * s->n, s->n, 1, i ? keys : NULL);
        jsc_segment_head h = head_of(&s->f[i]);
        OK(jsc_pack_open(&s->f[i].vfs, 3, &h, keys, &s->packs[i]));
    }
    jsc_keys_unref(keys);
    OK(jsc_block_cache_new(budget, &s->cache));
}

static void shelf_free(shelf *s) {
    for (int i = 0; i < 2; i++) {
        jsc_block_cache_forget(s->cache, s->packs[i]);
        jsc_pack_close(s->packs[i]);
        mem_file_free(&s->f[i]);
    }
    CHECK(jsc_block_cache_heap(s->cache) == 0);
    jsc_block_cache_free(s->cache);
    free(s->image);
}

static void check_span(shelf *s, int which, size_t at, size_t n) {
    const uint8_t *bytes = NULL;
    jsc_block *hold = NULL;
    OK(jsc_block_span(s->cache, s->packs[which], JSC_SEGMENT_HEAD + at, n, &bytes, &hold));
    CHECK(!memcmp(bytes, s->image + (size_t)which * s->n + at, n));
    jsc_block_release(s->cache, hold);
}

static void test_cache(void) {
    const size_t block = JSC_PACK_BLOCK + 256; /* a block and at most this much around it */
    shelf s;
    jsc_block *a, *b, *c;
    const uint8_t *bytes;
    size_t n;
    shelf_new(&s, 4 * block);
    for (int i = 0; i < 2000; i++) {
        size_t at = rnd(s.n), len = 1 + rnd(rnd(2) ? 100 : s.n - at);
        if (len > s.n - at) len = s.n - at;
        check_span(&s, (int)rnd(2), at, len);
        CHECK(jsc_block_cache_heap(s.cache) <= 4 * block);
    }
    check_span(&s, 0, 0, s.n);
    CHECK(jsc_block_span(s.cache, s.packs[0], 63, 1, &bytes, &a) == JSC_EINVAL);
    CHECK(jsc_block_span(s.cache, s.packs[0], 64 + s.n, 1, &bytes, &a) == JSC_EINVAL);
    CHECK(jsc_block_span(s.cache, s.packs[0], 64, s.n + 1, &bytes, &a) == JSC_EINVAL);
    CHECK(jsc_block_span(s.cache, s.packs[0], 64, SIZE_MAX, &bytes, &a) == JSC_EINVAL);
    CHECK(jsc_block_span(s.cache, s.packs[0], 64, 0, &bytes, &a) == JSC_EINVAL);
    /* One block of two holders is one; in use it stays, whatever else comes by. */
    OK(jsc_block_get(s.cache, s.packs[0], 3, &a));
    OK(jsc_block_get(s.cache, s.packs[0], 3, &b));
    OK(jsc_block_get(s.cache, s.packs[1], 3, &c));
    CHECK(a == b && a != c);
    jsc_block_release(s.cache, b);
    jsc_block_release(s.cache, c);
    for (uint32_t i = 0; i < 20; i++) {
        OK(jsc_block_get(s.cache, s.packs[1], i, &b));
        jsc_block_release(s.cache, b);
    }
    OK(jsc_block_get(s.cache, s.packs[0], 3, &b));
    CHECK(a == b);
    jsc_block_release(s.cache, b);
    /* Least recently used first: 16 .. 18 of pack 1 beside the held one; 16 is used again, so 17 goes first. */
    jsc_block *was[20], *held[4];
    for (uint32_t i = 16; i < 19; i++) {
        OK(jsc_block_get(s.cache, s.packs[1], i, &was[i]));
        jsc_block_release(s.cache, was[i]);
    }
    size_t full = jsc_block_cache_heap(s.cache);
    OK(jsc_block_get(s.cache, s.packs[1], 16, &held[0]));
    OK(jsc_block_get(s.cache, s.packs[1], 18, &held[1]));
    CHECK(held[0] == was[16] && held[1] == was[18] && jsc_block_cache_heap(s.cache) == full);
    OK(jsc_block_get(s.cache, s.packs[1], 5, &held[2])); /* 17 is the only one that can go */
    CHECK(jsc_block_cache_heap(s.cache) == full);
    OK(jsc_block_get(s.cache, s.packs[1], 6, &held[3])); /* all in use: more than the budget */
    CHECK(jsc_block_cache_heap(s.cache) > 4 * block);
    for (int i = 0; i < 4; i++) jsc_block_release(s.cache, held[i]);
    CHECK(jsc_block_cache_heap(s.cache) <= 4 * block);
    /* Forgotten while in use: the bytes stay until they are released, nobody else gets them. */
    jsc_block_cache_forget(s.cache, s.packs[0]);
    bytes = jsc_block_bytes(a, &n);
    CHECK(n == JSC_PACK_BLOCK && !memcmp(bytes, s.image + 3 * JSC_PACK_BLOCK, n));
    OK(jsc_block_get(s.cache, s.packs[0], 3, &b));
    CHECK(a != b);
    jsc_block_release(s.cache, b);
    jsc_block_release(s.cache, a);
    jsc_block_release(s.cache, NULL);
    shelf_free(&s);
    /* No budget: still right, and nothing is kept. */
    shelf_new(&s, 0);
    check_span(&s, 1, JSC_PACK_BLOCK - 5, 10);
    CHECK(jsc_block_cache_heap(s.cache) == 0);
    shelf_free(&s);
}

/* A damaged block fails all who ask for it, through the cache too, and spoils no neighbour. */
static void test_cache_damage(void) {
    shelf s;
    const uint8_t *bytes;
    jsc_block *hold;
    uint64_t offset, n;
    shelf_new(&s, 1 << 20);
    jsc_pack_where(s.packs[1], 7, &offset, &n);
    jsc_pack_close(s.packs[1]);
    s.f[1].bytes[offset + n / 2] ^= 0x10;
    jsc_segment_head h = head_of(&s.f[1]);
    jsc_keys *keys = ring(1);
    OK(jsc_pack_open(&s.f[1].vfs, 3, &h, keys, &s.packs[1]));
    jsc_keys_unref(keys);
    for (int i = 0; i < 3; i++) {
        CHECK(jsc_block_get(s.cache, s.packs[1], 7, &hold) == JSC_ECORRUPT);
        CHECK(jsc_block_span(s.cache, s.packs[1], 64 + 7 * JSC_PACK_BLOCK - 1, 2, &bytes, &hold) == JSC_ECORRUPT);
        CHECK(jsc_block_span(s.cache, s.packs[1], 64, 9 * JSC_PACK_BLOCK, &bytes, &hold) == JSC_ECORRUPT);
        check_span(&s, 1, 7 * JSC_PACK_BLOCK - 100, 100);
        check_span(&s, 1, 8 * JSC_PACK_BLOCK, 100);
    }
    shelf_free(&s);
}

typedef struct reader {
    shelf *s;
    uint64_t seed;
} reader;

static void *read_much(void *arg) {
    reader *r = arg;
    shelf *s = r->s;
    uint64_t x = r->seed;
    jsc_block *held = NULL;
    for (int i = 0; i < 1500; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        int which = (int)(x & 1);
        size_t at = (size_t)(x >> 8) % s->n, n = i % 50 == 0 ? (size_t)(x >> 40) % 200000 + 1 : 1 + (x >> 40) % 300;
        const uint8_t *bytes, *want;
        jsc_block *hold;
        if (n > s->n - at) n = s->n - at;
        OK(jsc_block_span(s->cache, s->packs[which], JSC_SEGMENT_HEAD + at, n, &bytes, &hold));
        want = s->image + (size_t)which * s->n + at;
        CHECK(!memcmp(bytes, want, n));
        jsc_block_release(s->cache, held); /* the one of the round before */
        held = hold;
    }
    jsc_block_release(s->cache, held);
    return NULL;
}

static void test_threads(void) {
    pthread_t t[4];
    reader r[4];
    shelf s;
    shelf_new(&s, 6 * JSC_PACK_BLOCK);
    for (int i = 0; i < 4; i++) {
        r[i] = (reader){&s, 88172645463325252u + (uint64_t)i * 77};
        CHECK(pthread_create(&t[i], NULL, read_much, &r[i]) == 0);
    }
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    shelf_free(&s);
}

int main(void) {
    rnd_state = 1;
    test_round_trips();
    test_known_files();
    test_damage();
    test_forgery();
    test_failing_disk();
    test_cache();
    test_cache_damage();
    test_threads();
    puts("pack: ok");
    return 0;
}
