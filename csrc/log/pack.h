/* Packed segments: the image of a sealed segment (what a plain segment file holds from byte JSC_SEGMENT_HEAD on) cut into
 * blocks of JSC_PACK_BLOCK bytes, each compressed by zstd or not, each encrypted or not, with a table of where they are.
 * A block is read on its own. See docs/format.md#packed-segments. */
#ifndef JSC_PACK_H
#define JSC_PACK_H
#include "crypt.h"
#include "format.h"

#define JSC_PACK_BLOCK 65536

typedef struct jsc_pack_writer jsc_pack_writer;
/* Writes to fd, an empty file, from byte 0: the head (flags, body and key_id are set here), blocks as image bytes come,
 * table and footer at finish. head->salt: never used for another file, as nonces are unique under one salt only. level:
 * zstd level 1..19, 0 stores blocks as they are. keys: NULL for plain; a ref is not needed afterwards. Single thread,
 * waits for the disk, does not sync. A failed call fails all that follow. */
int jsc_pack_begin(const jsc_vfs *, int fd, const jsc_segment_head *, int level, jsc_keys *, jsc_pack_writer **out);
int jsc_pack_add(jsc_pack_writer *, const void *bytes, size_t n); /* image bytes in order, any sizes */
/* *file_bytes: size of the file. Frees the writer in any case. */
int jsc_pack_finish(jsc_pack_writer *, uint64_t *file_bytes);
void jsc_pack_abandon(jsc_pack_writer *);

typedef struct jsc_pack jsc_pack; /* an open packed file; any thread may read blocks */
/* Reads and verifies head, footer and table; takes a mapping of the file, not the fd. JSC_ECORRUPT; JSC_EKEY: there is no
 * key of the head's id, or another key than the file was written with (checksums agree, the tag does not). */
int jsc_pack_open(const jsc_vfs *, int fd, const jsc_segment_head *, jsc_keys *, jsc_pack **out);
void jsc_pack_close(jsc_pack *);
uint64_t
jsc_pack_image_bytes(const jsc_pack *); /* of the whole image, head included: the offset behind its last byte */
uint32_t jsc_pack_blocks(const jsc_pack *);
/* Block i of the image: its bytes start at image offset JSC_SEGMENT_HEAD + i * JSC_PACK_BLOCK. out: JSC_PACK_BLOCK bytes
 * of room; *n: how many it has. JSC_ECORRUPT (checksum, tag, zstd): nothing usable in out. */
int jsc_pack_block(jsc_pack *, uint32_t i, uint8_t *out, size_t *n);
/* Stored bytes of the block in the file, for reports of damage. */
void jsc_pack_where(const jsc_pack *, uint32_t i, uint64_t *offset, uint64_t *bytes);

/* As jsc_pack_block, with zstd's state and room kept from one call to the next: a tenth faster. One thread at a time. */
typedef struct jsc_unpacker jsc_unpacker;
int jsc_unpacker_new(jsc_unpacker **out);
void jsc_unpacker_free(jsc_unpacker *);
int jsc_unpack(jsc_unpacker *, jsc_pack *, uint32_t i, uint8_t *out, size_t *n);

/* Decompressed blocks, shared by all packs of a log, least recently used first out, bounded by budget bytes. Thread-safe.
 * A block in use stays, and counts, whatever the budget. */
typedef struct jsc_block_cache jsc_block_cache;
typedef struct jsc_block jsc_block;
int jsc_block_cache_new(size_t budget, jsc_block_cache **out);
void jsc_block_cache_free(jsc_block_cache *); /* no block may be in use */
void jsc_block_cache_forget(jsc_block_cache *, const jsc_pack *); /* before jsc_pack_close */
size_t jsc_block_cache_heap(const jsc_block_cache *);
int jsc_block_get(jsc_block_cache *, jsc_pack *, uint32_t i, jsc_block **out);
const uint8_t *jsc_block_bytes(const jsc_block *, size_t *n);
void jsc_block_release(jsc_block_cache *, jsc_block *);
/* Bytes [offset, offset + n) of the image. One block: points into it, *hold keeps it. Several: copied into a buffer that
 * *hold owns. Free with jsc_block_release. JSC_EINVAL: not within the image, or n above
 * JSC_RECORD_MAX. */
int jsc_block_span(jsc_block_cache *, jsc_pack *, uint64_t offset, size_t n, const uint8_t **bytes, jsc_block **hold);
#endif
