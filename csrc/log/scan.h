/* Walking the image of a segment: which records are good, which are lost, where the good ends. Recovery, visits and
 * verification all read a segment this way. Pure but for memory. See docs/format.md#recovery. */
#ifndef JSC_SCAN_H
#define JSC_SCAN_H
#include "log_internal.h"

typedef struct jsc_found_trailer {
    uint64_t at; /* offset */
    uint32_t bytes;
    jsc_trailer t;
} jsc_found_trailer;

typedef struct jsc_lost {
    uint64_t first, last, at; /* at: where the first one starts, or should */
} jsc_lost;

typedef struct jsc_scan {
    /* asked for */
    const uint8_t *p;
    uint64_t size;      /* of the image, a multiple of 8 */
    uint64_t next;      /* first index of the next file; UINT64_MAX: not known, but all of this one was durable */
    bool open;          /* not proven synced by what is behind it: it can have a torn tail */
    uint64_t known;     /* open: records up to here are known synced, whatever this file says */
    bool salt_known;
    bool headless;      /* the head is lost, and with it the flags: a trailer says itself whether it has a tag */
    bool keep_trailers; /* `good` is filled */
    bool stop_at_next;  /* records at or above `next` are remains of an interrupted truncation */
    uint64_t salt, first;
    uint32_t flags;
    /* found */
    uint32_t *table; /* by index - first: offset / 8, 0 lost, 1 gap */
    size_t count, cap;
    uint64_t bytes; /* of good records with padding */
    uint64_t at, batch_start, expected;
    uint64_t end; /* behind the last byte that is not zero */
    uint64_t commit, durable; /* the most that good trailers say */
    uint32_t last_term, batch_term; /* batch_term: before the batch */
    int64_t last_ts;
    bool torn;
    jsc_found_trailer *good;
    size_t ngood, good_cap;
    jsc_lost *lost;
    size_t nlost, lost_cap;
    uint64_t bad_trailer_at; /* a damaged trailer that lost no record; 0: none */
    /* inside */
    uint32_t pending, batch_crc;
    jsc_found_trailer *trailers; /* of the file, gathered at the first bad record */
    size_t ntrailers, trailers_cap;
    bool gathered;
} jsc_scan;

/* Fills in what is asked for of a segment's own fields: first, salt, flags. last_term: of the record before. */
void jsc_scan_init(jsc_scan *, uint64_t first, uint32_t last_term);
/* All trailers that verify under the salt (the file's own, when not known), wherever they stand. */
int jsc_scan_gather(jsc_scan *);
void jsc_scan_end(jsc_scan *); /* finds `end` alone */
int jsc_scan_run(jsc_scan *);
/* What was to follow up to `last` is lost. Nothing where that is more than a file holds. */
int jsc_scan_lose(jsc_scan *, uint64_t last);
void jsc_scan_free(jsc_scan *);

/* image.c: what a segment file holds, in plain. Blocks or batches that do not verify are zeros in it. */
struct jsc_image {
    uint8_t *bytes; /* malloc'ed, or the file itself: not to be written to then */
    uint64_t size, cap;
    const jsc_vfs *mapped; /* by which it is mapped; NULL: malloc'ed */
};
/* file_bytes: the file's size. The image of an encrypted open file has what its trailers vouch for. JSC_EKEY. */
int jsc_image_load(jsc_log *, int fd, uint64_t file_bytes, const jsc_segment_head *, jsc_image *);
void jsc_image_free(jsc_image *);
/* Room for an image, and back again: a log that is being opened keeps one for the next file, for fresh memory costs twice
 * what reading into it does. */
jsc_image jsc_image_take(jsc_log *);
void jsc_image_give(jsc_log *, jsc_image *);

/* What opening a log has read of a segment, kept until the first visit: that need not read it again. */
struct jsc_fresh {
    jsc_image image;
    jsc_scan scan;
    size_t count; /* of the segment then */
};
void jsc_fresh_free(jsc_log *, jsc_fresh *); /* either may be NULL; the log takes its image for the next */
/* Four bytes that follow from the file's key. */
int jsc_image_key_check(jsc_cipher *, uint32_t *out);
/* Seals the batches in bytes [at, at + n) of the segment (plain, whole batches) into out. Adds the tags to both. */
int jsc_image_seal(jsc_cipher *, const jsc_segment_head *, uint64_t at, uint8_t *plain, size_t n, uint8_t *out);
/* Opens the batch of trailer f (in file bytes p) into plain. */
int jsc_image_open(jsc_cipher *, const jsc_segment_head *, const uint8_t *p, const jsc_found_trailer *f,
                   uint8_t *plain);
static inline void jsc_segment_take_head(jsc_segment *s, const jsc_segment_head *h) {
    s->salt = h->salt;
    s->prev_term = h->prev_term;
    s->flags = h->flags;
    s->key_id = h->key_id;
    s->base_seq = h->base_seq;
    s->body = h->body;
    s->key_check = h->key_check;
}
static inline jsc_segment_head jsc_segment_head_of(const jsc_segment *s) {
    uint32_t recycled = atomic_load(&s->recycled) ? JSC_SF_RECYCLED : 0;
    uint32_t ahead = atomic_load(&s->ahead) ? JSC_SF_AHEAD : 0;
    return (jsc_segment_head){.salt = s->salt,
                              .first = s->first,
                              .prev_term = s->prev_term,
                              .flags = s->flags | recycled | ahead,
                              .key_id = s->key_id,
                              .base_seq = s->base_seq,
                              .body = s->body,
                              .key_check = s->key_check};
}
#endif
