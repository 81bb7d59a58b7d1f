/* Packed files, written and read. docs/format.md#packed-segments has the bytes:
 *
 *   head (64) | block 0 | block 1 | ... | table: 20 bytes a block | footer (48)
 *
 * Blocks follow each other without a gap and the table ends at the footer, so every byte of a file is under a checksum;
 * in an encrypted one every byte that says something is authenticated too. */
#include "log_internal.h"

#include <zstd.h>

#include <errno.h>

#define FOOTER_MAGIC 0x314b434150534aull /* "JSPACK1" */
#define FOOTER 48
#define FOOTER_SIGNED 24 /* of its bytes: what the tag behind them covers besides head and table */
#define ENTRY 20
#define TABLE_NONCE UINT64_MAX /* blocks use their numbers */
#define AAD 68
#define WRITE_BYTES ((size_t)256 << 10)
#define COMPRESSED 1u

enum { E_OFFSET = 0, E_STORED = 8, E_FLAGS = 12, E_CRC = 16 };
enum { F_MAGIC = 0, F_TABLE = 8, F_BLOCKS = 16, F_TABLE_CRC = 20, F_TAG = 24, F_ZERO = 40, F_CRC = 44 };

/* What is signed with a block: the head, but for `body`, which is not known while blocks are written (the table's tag has
 * it), then number and flags. Its stored size is signed by being the message's. */
static void block_aad(const uint8_t head[JSC_SEGMENT_HEAD], uint32_t i, uint32_t flags, uint8_t out[AAD]) {
    memcpy(out, head, 60);
    memset(out + 48, 0, 8);
    jsc_put32(out + 60, i);
    jsc_put32(out + 64, flags);
}

/* The table's tag: an empty message with head, footer and table as additional data. Sealing writes it, opening checks. */
static int table_tag(jsc_cipher *c, bool seal, const uint8_t head[JSC_SEGMENT_HEAD],
                     const uint8_t footer[FOOTER_SIGNED], const uint8_t *table, size_t table_n,
                     uint8_t tag[JSC_TAG_BYTES]) {
    size_t n = 60 + FOOTER_SIGNED + table_n;
    uint8_t *aad = malloc(n);
    if (!aad) return -ENOMEM;
    memcpy(aad, head, 60);
    memcpy(aad + 60, footer, FOOTER_SIGNED);
    if (table_n) memcpy(aad + 60 + FOOTER_SIGNED, table, table_n);
    int rc = seal ? jsc_cipher_seal(c, TABLE_NONCE, aad, n, NULL, 0, NULL, tag)
                  : jsc_cipher_open(c, TABLE_NONCE, aad, n, NULL, 0, NULL, tag);
    free(aad);
    return rc;
}

static uint32_t footer_crc(const uint8_t head[JSC_SEGMENT_HEAD], const uint8_t footer[FOOTER]) {
    return jsc_crc32c(jsc_crc32c(0, head, JSC_SEGMENT_HEAD), footer, F_CRC);
}

static uint32_t blocks_of(uint64_t image) {
    return (uint32_t)((image - JSC_SEGMENT_HEAD + JSC_PACK_BLOCK - 1) / JSC_PACK_BLOCK);
}

/* ---- writing ---- */

struct jsc_pack_writer {
    const jsc_vfs *vfs;
    int fd, error;
    jsc_segment_head head;
    uint8_t head_bytes[JSC_SEGMENT_HEAD]; /* with body 0 until the end */
    jsc_cipher *cipher;                   /* NULL: plain */
    ZSTD_CCtx *zstd;                      /* NULL: blocks stay as they are */
    uint64_t image, written, stored; /* image bytes taken, head included; bytes in the file; and with those in `out` */
    size_t block_n, out_n;
    uint32_t blocks;
    size_t table_cap;
    uint8_t *table;
    uint8_t *block, *squeezed, *out; /* one block; what zstd made of it; bytes on their way to the file */
};

void jsc_pack_abandon(jsc_pack_writer *w) {
    if (!w) return;
    jsc_cipher_free(w->cipher);
    ZSTD_freeCCtx(w->zstd);
    free(w->table);
    free(w->block);
    free(w->squeezed);
    free(w->out);
    free(w);
}

int jsc_pack_begin(const jsc_vfs *vfs, int fd, const jsc_segment_head *head, int level, jsc_keys *keys,
                   jsc_pack_writer **out) {
    if (level < 0 || level > 19) return JSC_EINVAL;
    jsc_pack_writer *w = calloc(1, sizeof *w);
    if (!w) return -ENOMEM;
    int rc = -ENOMEM;
    w->vfs = vfs;
    w->fd = fd;
    w->head = *head;
    w->head.flags &= ~(uint32_t)(JSC_SF_ENCRYPTED | JSC_SF_RECYCLED);
    w->head.flags |= JSC_SF_PACKED | (keys ? JSC_SF_ENCRYPTED : 0);
    w->head.key_id = keys ? jsc_keys_current(keys) : 0;
    w->head.body = 0;
    w->image = w->written = w->stored = JSC_SEGMENT_HEAD;
    jsc_segment_head_encode(&w->head, w->head_bytes);
    w->block = malloc(JSC_PACK_BLOCK);
    w->squeezed = malloc(JSC_PACK_BLOCK);
    w->out = malloc(WRITE_BYTES);
    if (!w->block || !w->squeezed || !w->out) goto fail;
    if (level) {
        w->zstd = ZSTD_createCCtx();
        if (!w->zstd || ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, level))) goto fail;
    }
    if (keys && (rc = jsc_cipher_new(keys, w->head.key_id, head->salt, "pack", &w->cipher)) != JSC_OK) goto fail;
    *out = w;
    return JSC_OK;
fail:
    jsc_pack_abandon(w);
    return rc;
}

static int flush(jsc_pack_writer *w) {
    int rc = jsc_write_all(w->vfs, w->fd, w->out, w->out_n, w->written);
    if (rc != JSC_OK) return rc;
    w->written += w->out_n;
    w->out_n = 0;
    return JSC_OK;
}

static int table_room(jsc_pack_writer *w) {
    if (((size_t)w->blocks + 1) * ENTRY <= w->table_cap) return JSC_OK;
    size_t cap = w->table_cap ? 2 * w->table_cap : (size_t)64 * ENTRY;
    uint8_t *grown = realloc(w->table, cap);
    if (!grown) return -ENOMEM;
    w->table = grown;
    w->table_cap = cap;
    return JSC_OK;
}

/* Stores the block that is full, or the last one: squeezed into, or sealed into, the bytes on their way out. */
static int put_block(jsc_pack_writer *w) {
    size_t n = w->block_n;
    const uint8_t *from = w->block;
    uint32_t flags = 0;
    int rc = table_room(w);
    if (rc == JSC_OK && w->out_n + JSC_PACK_BLOCK + JSC_TAG_BYTES > WRITE_BYTES) rc = flush(w);
    if (rc != JSC_OK) return rc;
    if (w->zstd) {
        /* Room for one byte less than the block has: what does not shrink is an error here, and kept as it is. */
        size_t got = ZSTD_compress2(w->zstd, w->squeezed, n - 1, w->block, n);
        if (!ZSTD_isError(got)) {
            from = w->squeezed;
            n = got;
            flags = COMPRESSED;
        }
    }
    uint8_t *to = w->out + w->out_n;
    if (w->cipher) {
        uint8_t aad[AAD];
        block_aad(w->head_bytes, w->blocks, flags, aad);
        rc = jsc_cipher_seal(w->cipher, w->blocks, aad, sizeof aad, from, n, to, to + n);
        if (rc != JSC_OK) return rc;
        n += JSC_TAG_BYTES;
    } else {
        memcpy(to, from, n);
    }
    uint8_t *e = w->table + (size_t)w->blocks++ * ENTRY;
    jsc_put64(e + E_OFFSET, w->stored);
    jsc_put32(e + E_STORED, (uint32_t)n);
    jsc_put32(e + E_FLAGS, flags);
    jsc_put32(e + E_CRC, jsc_crc32c(0, to, n));
    w->stored += n;
    w->out_n += n;
    w->block_n = 0;
    return JSC_OK;
}

int jsc_pack_add(jsc_pack_writer *w, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    if (w->error) return w->error;
    if (n > JSC_SEGMENT_MAX - w->image) return w->error = JSC_EINVAL;
    w->image += n;
    while (n) {
        size_t part = JSC_PACK_BLOCK - w->block_n;
        if (part > n) part = n;
        memcpy(w->block + w->block_n, p, part);
        w->block_n += part;
        p += part;
        n -= part;
        if (w->block_n == JSC_PACK_BLOCK && (w->error = put_block(w)) != JSC_OK) return w->error;
    }
    return JSC_OK;
}

int jsc_pack_finish(jsc_pack_writer *w, uint64_t *file_bytes) {
    uint8_t footer[FOOTER] = {0};
    size_t table_n;
    int rc = w->error;
    if (rc == JSC_OK && w->block_n) rc = put_block(w);
    if (rc == JSC_OK) rc = flush(w);
    if (rc != JSC_OK) goto done;
    table_n = (size_t)w->blocks * ENTRY;
    w->head.body = w->image;
    jsc_segment_head_encode(&w->head, w->head_bytes);
    jsc_put64(footer + F_MAGIC, FOOTER_MAGIC);
    jsc_put64(footer + F_TABLE, w->stored);
    jsc_put32(footer + F_BLOCKS, w->blocks);
    jsc_put32(footer + F_TABLE_CRC, jsc_crc32c(0, w->table, table_n));
    if (w->cipher) {
        rc = table_tag(w->cipher, true, w->head_bytes, footer, w->table, table_n, footer + F_TAG);
        if (rc != JSC_OK) goto done;
    }
    jsc_put32(footer + F_CRC, footer_crc(w->head_bytes, footer));
    rc = jsc_write_all(w->vfs, w->fd, w->table, table_n, w->stored);
    if (rc == JSC_OK) rc = jsc_write_all(w->vfs, w->fd, footer, FOOTER, w->stored + table_n);
    /* Last, so that a file cut short never has a head. */
    if (rc == JSC_OK) rc = jsc_write_all(w->vfs, w->fd, w->head_bytes, JSC_SEGMENT_HEAD, 0);
    if (rc == JSC_OK) *file_bytes = w->stored + table_n + FOOTER;
done:
    jsc_pack_abandon(w);
    return rc;
}

/* ---- reading ---- */

struct jsc_pack {
    const jsc_vfs *vfs;
    const uint8_t *map;
    size_t map_len;
    const uint8_t *table; /* in the mapping: its numbers are looked at again at each use */
    uint32_t blocks;
    uint64_t image, data_end; /* data_end: where the table starts */
    uint8_t head_bytes[JSC_SEGMENT_HEAD];
    jsc_segment_head head;
    jsc_keys *keys;
    jsc_cipher *_Atomic spare; /* one is kept; a thread that finds it taken makes its own */
};

/* The numbers of a table entry, all within the file. */
typedef struct entry {
    const uint8_t *bytes;
    size_t stored, raw, want; /* in the file; of those without the tag; of the image */
    uint32_t flags, crc;
} entry;

static int entry_of(const jsc_pack *p, uint32_t i, entry *out) {
    const uint8_t *e = p->table + (size_t)i * ENTRY;
    uint64_t offset = jsc_get64(e + E_OFFSET);
    size_t tag = p->keys ? JSC_TAG_BYTES : 0;
    entry got = {.stored = jsc_get32(e + E_STORED), .flags = jsc_get32(e + E_FLAGS), .crc = jsc_get32(e + E_CRC)};
    uint64_t left = p->image - JSC_SEGMENT_HEAD - (uint64_t)i * JSC_PACK_BLOCK;
    got.want = left < JSC_PACK_BLOCK ? (size_t)left : JSC_PACK_BLOCK;
    if (offset < JSC_SEGMENT_HEAD || offset > p->data_end || got.stored > p->data_end - offset) return JSC_ECORRUPT;
    if (got.stored <= tag || got.flags & ~COMPRESSED) return JSC_ECORRUPT;
    got.raw = got.stored - tag;
    if (got.flags & COMPRESSED ? got.raw >= got.want : got.raw != got.want) return JSC_ECORRUPT;
    got.bytes = p->map + offset;
    *out = got;
    return JSC_OK;
}

static int take_cipher(jsc_pack *p, jsc_cipher **out) {
    *out = atomic_exchange(&p->spare, NULL);
    return *out ? JSC_OK : jsc_cipher_new(p->keys, p->head.key_id, p->head.salt, "pack", out);
}

static void give_cipher(jsc_pack *p, jsc_cipher *c) {
    jsc_cipher *none = NULL;
    if (!atomic_compare_exchange_strong(&p->spare, &none, c)) jsc_cipher_free(c);
}

/* Footer and table against head and size. */
static int check_table(jsc_pack *p) {
    if (p->map_len < JSC_SEGMENT_HEAD + FOOTER) return JSC_ECORRUPT;
    const uint8_t *footer = p->map + p->map_len - FOOTER;
    if (jsc_get64(footer + F_MAGIC) != FOOTER_MAGIC || jsc_get32(footer + F_ZERO) != 0 ||
        jsc_get32(footer + F_CRC) != footer_crc(p->head_bytes, footer))
        return JSC_ECORRUPT;
    p->blocks = jsc_get32(footer + F_BLOCKS);
    p->data_end = jsc_get64(footer + F_TABLE);
    uint64_t table_n = (uint64_t)p->blocks * ENTRY, before = p->map_len - FOOTER;
    if (p->blocks != blocks_of(p->image) || table_n > before || p->data_end != before - table_n ||
        p->data_end < JSC_SEGMENT_HEAD)
        return JSC_ECORRUPT;
    p->table = p->map + p->data_end;
    if (jsc_get32(footer + F_TABLE_CRC) != jsc_crc32c(0, p->table, (size_t)table_n)) return JSC_ECORRUPT;
    uint64_t at = JSC_SEGMENT_HEAD;
    for (uint32_t i = 0; i < p->blocks; i++) {
        entry e;
        if (entry_of(p, i, &e) != JSC_OK || e.bytes != p->map + at) return JSC_ECORRUPT;
        at += e.stored;
    }
    if (at != p->data_end) return JSC_ECORRUPT;
    if (!p->keys) {
        static const uint8_t none[JSC_TAG_BYTES];
        return memcmp(footer + F_TAG, none, JSC_TAG_BYTES) == 0 ? JSC_OK : JSC_ECORRUPT;
    }
    jsc_cipher *c;
    uint8_t tag[JSC_TAG_BYTES];
    int rc = take_cipher(p, &c);
    if (rc != JSC_OK) return rc;
    memcpy(tag, footer + F_TAG, sizeof tag);
    rc = table_tag(c, false, p->head_bytes, footer, p->table, (size_t)table_n, tag);
    give_cipher(p, c);
    /* Damage does not keep the checksums intact; this is another key. Called damage, a wrong key would lose the file. */
    return rc == JSC_ECORRUPT ? JSC_EKEY : rc;
}

int jsc_pack_open(const jsc_vfs *vfs, int fd, const jsc_segment_head *head, jsc_keys *keys, jsc_pack **out) {
    if (!(head->flags & JSC_SF_PACKED) || head->body < JSC_SEGMENT_HEAD || head->body > JSC_SEGMENT_MAX)
        return JSC_ECORRUPT;
    bool encrypted = head->flags & JSC_SF_ENCRYPTED;
    if (encrypted && !keys) return JSC_EKEY;
    int64_t size = vfs->size(vfs->self, fd);
    if (size < 0) return (int)size;
    if (size < JSC_SEGMENT_HEAD + FOOTER) return JSC_ECORRUPT;
    jsc_pack *p = calloc(1, sizeof *p);
    if (!p) return -ENOMEM;
    p->vfs = vfs;
    p->head = *head;
    p->image = head->body;
    p->keys = encrypted ? jsc_keys_ref(keys) : NULL;
    atomic_init(&p->spare, NULL);
    jsc_segment_head_encode(head, p->head_bytes);
    int rc = vfs->map(vfs->self, fd, (size_t)size, (const void **)&p->map);
    if (rc == JSC_OK) {
        p->map_len = (size_t)size;
        rc = check_table(p); /* by `head`: what the file has in its place may be damaged */
    } else {
        p->map = NULL;
    }
    if (rc == JSC_OK) *out = p;
    else jsc_pack_close(p);
    return rc;
}

void jsc_pack_close(jsc_pack *p) {
    if (!p) return;
    if (p->map) p->vfs->unmap(p->vfs->self, p->map, p->map_len);
    jsc_cipher_free(atomic_load(&p->spare));
    jsc_keys_unref(p->keys);
    free(p);
}

uint64_t jsc_pack_image_bytes(const jsc_pack *p) { return p->image; }
uint32_t jsc_pack_blocks(const jsc_pack *p) { return p->blocks; }

void jsc_pack_where(const jsc_pack *p, uint32_t i, uint64_t *offset, uint64_t *bytes) {
    JSC_ASSERT(i < p->blocks);
    *offset = jsc_get64(p->table + (size_t)i * ENTRY + E_OFFSET);
    *bytes = jsc_get32(p->table + (size_t)i * ENTRY + E_STORED);
}

struct jsc_unpacker {
    ZSTD_DCtx *zstd;
    uint8_t opened[JSC_PACK_BLOCK]; /* decrypted, still compressed */
};

int jsc_unpacker_new(jsc_unpacker **out) {
    jsc_unpacker *u = malloc(sizeof *u);
    if (!u) return -ENOMEM;
    u->zstd = ZSTD_createDCtx();
    if (!u->zstd) {
        free(u);
        return -ENOMEM;
    }
    *out = u;
    return JSC_OK;
}

void jsc_unpacker_free(jsc_unpacker *u) {
    if (!u) return;
    ZSTD_freeDCtx(u->zstd);
    free(u);
}

int jsc_unpack(jsc_unpacker *u, jsc_pack *p, uint32_t i, uint8_t *out, size_t *n) {
    entry e;
    if (i >= p->blocks) return JSC_ENOTFOUND;
    int rc = entry_of(p, i, &e);
    if (rc != JSC_OK) return rc;
    if (jsc_crc32c(0, e.bytes, e.stored) != e.crc) return JSC_ECORRUPT;
    const uint8_t *from = e.bytes;
    if (p->keys) {
        uint8_t *to = e.flags & COMPRESSED ? u->opened : out, aad[AAD];
        jsc_cipher *c;
        rc = take_cipher(p, &c);
        if (rc != JSC_OK) return rc;
        block_aad(p->head_bytes, i, e.flags, aad);
        rc = jsc_cipher_open(c, i, aad, sizeof aad, from, e.raw, to, from + e.raw);
        give_cipher(p, c);
        if (rc != JSC_OK) return rc;
        from = to;
    }
    if (e.flags & COMPRESSED) {
        size_t got = ZSTD_decompressDCtx(u->zstd, out, e.want, from, e.raw);
        if (ZSTD_isError(got) || got != e.want) {
            memset(out, 0, e.want);
            return JSC_ECORRUPT;
        }
    } else if (from != out) {
        memcpy(out, from, e.want);
    }
    *n = e.want;
    return JSC_OK;
}

int jsc_pack_block(jsc_pack *p, uint32_t i, uint8_t *out, size_t *n) {
    jsc_unpacker *u;
    int rc = jsc_unpacker_new(&u);
    if (rc != JSC_OK) return rc;
    rc = jsc_unpack(u, p, i, out, n);
    jsc_unpacker_free(u);
    return rc;
}
