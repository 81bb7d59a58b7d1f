/* The bytes of a segment: encoding and decoding, no files. See docs/format.md. */
#ifndef JSC_FORMAT_H
#define JSC_FORMAT_H
#include "jsc.h"

#define JSC_SEGMENT_MAGIC 0x3147455343534aull /* "JSCSEG1" */
#define JSC_SEGMENT_HEAD 64
#define JSC_TRAILER_DATA 40
#define JSC_TRAILER_BYTES (JSC_RECORD_HEAD + JSC_TRAILER_DATA)
#define JSC_TRAILER_MAX (JSC_TRAILER_BYTES + 16) /* with the tag that an encrypted batch has behind it */
#define JSC_RECORD_MAX ((size_t)128 << 20)
#define JSC_SEGMENT_MAX ((uint64_t)16 << 30)
#define JSC_PAD(n) (((n) + 7) & ~(size_t)7)

/* Whether a record may be as long as that. */
static inline bool jsc_record_fits(size_t subject, size_t headers, size_t data) {
    return subject <= UINT16_MAX && headers <= JSC_RECORD_MAX && data <= JSC_RECORD_MAX &&
           (headers ? JSC_RECORD_HEAD + 8 : JSC_RECORD_HEAD) + subject + headers + data <= JSC_RECORD_MAX;
}

#define JSC_GAP_DATA 16
#define JSC_GAP_MAX ((uint64_t)1 << 24)  /* indexes one gap record stands for; several may follow each other */
#define JSC_SPAN_MAX ((uint64_t)1 << 26) /* indexes a rewritten segment covers, unless it holds that many records */
#define JSC_GAP_BYTES (JSC_RECORD_HEAD + JSC_GAP_DATA)
#define JSC_AT_GAP 8 /* in tables of offsets: compaction took the record out */

enum {
    JSC_SF_PACKED = 1,    /* blocks instead of the plain image: pack.h */
    JSC_SF_ENCRYPTED = 2, /* key_id says with which master key */
    JSC_SF_RECYCLED = 4,  /* the file had another life: bytes behind its last batch are of that */
    JSC_SF_REWRITTEN =
        8, /* made whole by compaction, packing or repair: synced before it got its name; takes no appends */
    JSC_SF_AHEAD = 16, /* when the file was made, the one before it was not known synced */
    JSC_SF_KNOWN = 31,
};

typedef struct jsc_segment_head {
    uint64_t salt, first;
    uint32_t prev_term, flags, key_id;
    uint64_t base_seq; /* a message log's sequence before the first record; else what the host had last told */
    uint64_t body;     /* packed: bytes of the image, head included; else 0 */
    uint32_t key_check; /* encrypted and not packed: tells a wrong key from damage (jsc_image_key_check); else 0 */
} jsc_segment_head;

typedef struct jsc_trailer {
    uint64_t index;   /* last index of the batch */
    uint64_t durable; /* index known synced when it was written */
    uint64_t commit, salt;
    uint64_t start; /* offset of the batch's first byte in its segment */
    uint32_t count; /* indexes in the batch, those of gaps counted */
    uint32_t crc;   /* over the stored crc of each record of the batch, then the 36 bytes before this field */
} jsc_trailer;

void jsc_segment_head_encode(const jsc_segment_head *, uint8_t out[JSC_SEGMENT_HEAD]);
/* JSC_EFORMAT: ours, of another version; JSC_ECORRUPT: does not verify. */
int jsc_segment_head_decode(const uint8_t in[JSC_SEGMENT_HEAD], jsc_segment_head *out);

/* batch_crc: running crc32c over the records' stored crcs; 0 in an encrypted segment, where the tag stands for it. */
void jsc_trailer_encode(const jsc_trailer *, int64_t ts, uint32_t batch_crc, uint8_t out[JSC_TRAILER_BYTES]);
/* Lengthens an encoded trailer by a tag. */
void jsc_trailer_tag(uint8_t out[JSC_TRAILER_MAX], const uint8_t tag[16]);
/* The trailer in a decoded record of kind JSC_K_TRAILER; a tag may follow its fields. */
int jsc_trailer_decode(const jsc_record *, jsc_trailer *out);
uint32_t jsc_trailer_crc(const jsc_trailer *, uint32_t batch_crc);

/* A gap record: indexes [first, last] were taken out, `seqs` of them were messages with a sequence. */
void jsc_gap_encode(uint64_t first, uint64_t last, uint64_t seqs, uint32_t term, int64_t ts,
                    uint8_t out[JSC_GAP_BYTES]);
int jsc_gap_decode(const jsc_record *, uint64_t *last, uint64_t *seqs);

/* As jsc_record_decode, but trusts the bytes: for records that were framed or verified in this process. */
void jsc_record_view(const uint8_t *p, jsc_record *out);
/* Between the two: lengths are checked, the checksum is not. */
int jsc_record_frame(const void *p, size_t n, jsc_record *out, size_t *used);

#endif
