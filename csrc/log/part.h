/* A part is the message index of one segment: in memory while the segment is open (tail.h), in its sidecar once it is
 * sealed (sidecar.h). Both answer the same questions, through this table. A message of a part is named by its ordinal,
 * 0 .. count-1 in order of sequence; a subject by its id, 0 .. subjects-1. A part says nothing of deletions: which of its
 * messages are dead is beside it (dead.h). */
#ifndef JSC_PART_H
#define JSC_PART_H
#include "filter.h"

#define JSC_NONE UINT32_MAX

typedef struct jsc_part jsc_part;
typedef struct jsc_part_ops {
    uint32_t (*count)(const jsc_part *);
    uint64_t (*seq)(const jsc_part *, uint32_t ord);
    int64_t (*ts)(const jsc_part *, uint32_t ord);    /* never falls from one ordinal to the next */
    uint64_t (*offset)(const jsc_part *, uint32_t ord); /* of the record in the segment's image; 0: lost to damage */
    uint32_t (*size)(const jsc_part *, uint32_t ord);   /* payload bytes */
    uint32_t (*bytes)(const jsc_part *, uint32_t ord);  /* bytes of the whole record with padding */
    uint32_t (*subject)(const jsc_part *, uint32_t ord);
    uint32_t (*find_seq)(const jsc_part *, uint64_t seq); /* first ordinal with a sequence >= seq; count when none */
    uint32_t (*find_ts)(const jsc_part *, int64_t ts);    /* first ordinal with a time >= ts; count when none */
    uint32_t (*subjects)(const jsc_part *);
    jsc_span (*text)(const jsc_part *, uint32_t sid); /* valid as long as the part is not changed or freed */
    /* JSC_NONE when the subject does not occur. hash: jsc_subject_hash of the text. */
    uint32_t (*find_subject)(const jsc_part *, const char *text, size_t n, uint64_t hash);
    uint32_t (*occurrences)(const jsc_part *, uint32_t sid);        /* messages of that subject, at least 1 */
    uint32_t (*posting)(const jsc_part *, uint32_t sid, uint32_t k); /* ordinal of its k-th message, ascending in k */
    /* Calls each(ctx, sid) for every subject that matches, in ascending order of text. */
    int (*select)(const jsc_part *, const jsc_filter *, int (*each)(void *ctx, uint32_t sid), void *ctx);
} jsc_part_ops;

struct jsc_part { /* first member of jsc_tail and jsc_sidecar */
    const jsc_part_ops *ops;
};

/* XXH3-64 of the text: stored in sidecars' filters, so it never changes. */
uint64_t jsc_subject_hash(const char *text, size_t n);

/* The least k with posting(sid, k) >= ord; occurrences when none. */
static inline uint32_t jsc_part_posting_at(const jsc_part *p, uint32_t sid, uint32_t ord) {
    uint32_t lo = 0, hi = p->ops->occurrences(p, sid);
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (p->ops->posting(p, sid, mid) < ord) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}
#endif
