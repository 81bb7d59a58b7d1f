/* The sidecar of a sealed segment, an immutable file NAME.idx beside NAME.seg: everything a reader wants to know of the
 * segment without reading it. A cache: its head names the segment's salt and size, its checksums cover all of it, and
 * who finds it missing or bad builds it again from the segment. Layout: docs/format.md#sidecars. */
#ifndef JSC_SIDECAR_H
#define JSC_SIDECAR_H
#include "crypt.h"
#include "format.h"
#include "part.h"

typedef struct jsc_sidecar jsc_sidecar; /* is a jsc_part; its subjects are numbered in ascending order of text */

/* What the head says; no more is read when a log is opened. */
typedef struct jsc_sidecar_info {
    uint64_t salt; /* of the segment file */
    uint64_t segment_bytes; /* size of the segment file */
    uint64_t segment_digest; /* XXH3-64 of the whole segment file */
    uint64_t first, last; /* record indexes */
    uint64_t base_seq; /* sequence before its first message */
    uint64_t last_seq; /* sequence of the last message up to its end, gaps counted too; base_seq when none */
    uint64_t used; /* offset behind the last batch in the image */
    uint64_t record_bytes; /* bytes of all records with padding */
    uint64_t message_bytes; /* bytes of all messages' records with padding */
    int64_t first_ts, last_ts; /* of messages; 0 when none */
    uint32_t last_term;
    uint32_t count, subjects; /* messages, subjects */
    uint32_t records, lost; /* records that are there, gaps not counted; records lost to damage */
    uint32_t key_id; /* 0: plain */
    uint8_t segment_head[JSC_SEGMENT_HEAD]; /* a copy of the segment file's first bytes; zeros: none */
} jsc_sidecar_info;

/* One record of the segment, for the builder. */
typedef struct jsc_sidecar_record {
    uint64_t index, offset; /* offset 0: lost */
} jsc_sidecar_record;

/* Builds the file's bytes in memory from a part and the segment's records (ascending index; messages and others, gap
 * records left out). info: salt .. record_bytes, last_term are read; counts, times and message_bytes are computed.
 * keys: NULL for plain. *out is malloc'ed. The part must not change meanwhile. A message whose record is not to be trusted
 * has offset 0 although its record is there. JSC_EINVAL: part, records and info contradict each other (a message that is
 * no record, an end before the last record, fewer bytes of records than of messages), or are beyond the limits in
 * docs/format.md: 2^30 messages, 2^32 - 1 indexes, 4 GiB of subjects' texts. */
int jsc_sidecar_build(const jsc_part *, const jsc_sidecar_record *records, size_t nrecords, const jsc_sidecar_info *,
                      jsc_keys *keys, uint8_t **out, size_t *n);

/* Reads and verifies the head only, and that the file is as long as it says. JSC_ECORRUPT, JSC_EFORMAT. That `used` lies in
 * the segment's image is for the caller to see: a packed file's image is longer than the file. */
int jsc_sidecar_peek(const jsc_vfs *, int fd, jsc_sidecar_info *out);
/* Maps (plain) or reads and decrypts (encrypted) the whole, verifies every checksum and that all numbers are inside their
 * sections, so that the part's calls need no checks: a hostile file is JSC_ECORRUPT. JSC_EKEY. Takes no fd. Any number of
 * threads may ask one that is open. */
int jsc_sidecar_open(const jsc_vfs *, int fd, const jsc_keys *keys, jsc_sidecar **out);
void jsc_sidecar_close(jsc_sidecar *);
const jsc_sidecar_info *jsc_sidecar_about(const jsc_sidecar *);
size_t jsc_sidecar_heap(const jsc_sidecar *); /* 0 but for encrypted ones */
/* Offset of record `index`; 0: lost to damage; JSC_AT_GAP: taken out by compaction. first <= index <= last. */
uint64_t jsc_sidecar_record_at(const jsc_sidecar *, uint64_t index);
/* Index of the record of message `ord`; 0: no index leads to it. */
uint64_t jsc_sidecar_index_of(const jsc_sidecar *, uint32_t ord);
/* A column as it lies in the file: 's' u64 sequences, 't' i64 times, 'o' u32 offsets / 8, 'z' u32 payload sizes,
 * 'j' u32 subject ids. count entries. */
const void *jsc_sidecar_column(const jsc_sidecar *, char which);
static inline jsc_part *jsc_sidecar_part(jsc_sidecar *s) { return (jsc_part *)s; }
#endif
