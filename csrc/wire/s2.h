/* S2: the chunks and blocks of Snappy, with repeated offsets and blocks of up to 4 MiB. Pure.
 *
 * A stream is a row of chunks: a byte that says what it is, its length in three bytes, little endian, and what follows:
 *   ff  6 bytes: S2sTwO, or sNaPpY. The first chunk; it may come again, as streams may follow each other
 *   00  checksum (4), a block         01  checksum (4), plain bytes         80..fe  to be skipped
 * A block is the size of what it makes, as a varint, and elements. The two lowest bits of an element's first byte T say
 * what it is, the others (x = T >> 2) how long:
 *   00  literal of x + 1 bytes; x = 60 to 63: of one more than the next 1 to 4 bytes say
 *   01  copy of 4 + (x & 7) bytes from (T >> 5) << 8 | next byte before the end; 0 there: a repetition, see below
 *   10  copy of x + 1 bytes, the distance in 2 bytes         11  the same, in 4 bytes
 * A repetition copies from the distance of the copy before it, 4 to 8 bytes for x & 7 = 0 to 4, and for 5, 6, 7 as many
 * as the next 1, 2, 3 bytes say and 8, 260, 65540 more. */
#ifndef JSC_WIRE_S2_H
#define JSC_WIRE_S2_H
#include <stddef.h>
#include <stdint.h>

enum { JSC_S2_STORE, JSC_S2_FAST, JSC_S2_BETTER, JSC_S2_BEST }; /* how much work is done for fewer bytes */
enum {
    JSC_S2_ID = 0xff,
    JSC_S2_BLOCK = 0,
    JSC_S2_PLAIN = 1,
    JSC_S2_SKIP = 0x80, /* from here to ID */
    JSC_S2_HEAD = 4,
    JSC_S2_SUM = 4,
    JSC_S2_MADE_MAX = 4 << 20,  /* what one chunk may make */
    JSC_S2_CHUNK_MAX = 5 << 20, /* what a chunk that is not skipped may be long */
    JSC_S2_PIECE = 64 << 10,    /* what each chunk that is written here makes at most: a distance has two bytes */
};

typedef struct jsc_s2_work { /* for packing; nothing in it outlasts a call */
    uint16_t heads[1 << 14], before[JSC_S2_PIECE];
} jsc_s2_work;

/* The most bytes that n bytes become. */
size_t jsc_s2_bound(size_t n);
/* Writes n bytes as a whole stream; the bytes written. */
size_t jsc_s2_pack(jsc_s2_work *, int level, const void *from, size_t n, void *to);
/* What a chunk that is whole makes: at most JSC_S2_MADE_MAX bytes, or -1 when it is not right. n: without its head. */
int64_t jsc_s2_size(int kind, const void *chunk, size_t n);
/* Makes it: size bytes as jsc_s2_size told. 0, or -1: it is not right, and what stands in `to` means nothing. */
int jsc_s2_unpack(int kind, const void *chunk, size_t n, void *to, size_t size);
#endif
