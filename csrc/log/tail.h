/* The part of the open segment, in memory: at most 24 bytes of heap a message beside its subjects' texts and tables (with
 * fewer than 65,536 subjects and sequences without holes), no slack that grows with it (columns are lists of blocks of
 * 4,096). Single-threaded; the message log's lock covers it, select() too, which sorts what is new. */
#ifndef JSC_TAIL_H
#define JSC_TAIL_H
#include "part.h"

typedef struct jsc_tail jsc_tail;

/* base_seq: sequence before the first message that will be added. */
int jsc_tail_new(uint64_t base_seq, jsc_tail **out);
void jsc_tail_free(jsc_tail *);
/* The next message: its sequence is above all before it; its time is raised to the last one's where it is below.
 * offset: in the image, a multiple of 8, below 32 GiB; 0 when lost (then subject is empty and sizes are 0). hash:
 * jsc_subject_hash of the subject. -ENOMEM, and JSC_EINVAL for what is outside this, add nothing. */
int jsc_tail_add(jsc_tail *, uint64_t seq, int64_t ts, uint64_t offset, uint32_t size, uint32_t bytes,
                 const char *subject, size_t subject_n, uint64_t hash);
/* The same, the hash worked out where it is needed: not for a run of one subject. */
int jsc_tail_append(jsc_tail *, uint64_t seq, int64_t ts, uint64_t offset, uint32_t size, uint32_t bytes,
                    const char *subject, size_t subject_n);
/* Ids of all subjects in ascending order of text, valid until the next call or jsc_tail_add. -ENOMEM. */
int jsc_tail_sorted(jsc_tail *, const uint32_t **ids, uint32_t *n);
uint32_t jsc_tail_lost(const jsc_tail *); /* messages with offset 0 */
size_t jsc_tail_heap(const jsc_tail *); /* bytes of heap held */
size_t jsc_tail_subjects_heap(const jsc_tail *); /* the share of subjects' texts and tables */
static inline jsc_part *jsc_tail_part(jsc_tail *t) { return (jsc_part *)t; }
#endif
