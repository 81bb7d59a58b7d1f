/* Which messages of a part are deleted: a bit for each ordinal, made when the first one is. Counts how many, and how
 * many of each subject. Single-threaded; the message log's lock covers it. Calls that take a const jsc_dead take NULL for
 * "nothing is dead". */
#ifndef JSC_DEAD_H
#define JSC_DEAD_H
#include "part.h"

typedef struct jsc_dead jsc_dead;

int jsc_dead_new(jsc_dead **out);
void jsc_dead_free(jsc_dead *);
/* Marks one; false when it was marked already. The part is the one whose ordinals these are, the same in each call, but
 * it may be exchanged by jsc_dead_move when subjects get other ids. *error: -ENOMEM, else untouched. */
bool jsc_dead_add(jsc_dead *, const jsc_part *, uint32_t ord, int *error);
bool jsc_dead_has(const jsc_dead *, uint32_t ord);
uint32_t jsc_dead_count(const jsc_dead *);
uint64_t jsc_dead_bytes(const jsc_dead *); /* sum of ops->bytes of the dead */
/* Dead ordinals in [lo, hi). */
uint32_t jsc_dead_count_range(const jsc_dead *, uint32_t lo, uint32_t hi);
/* Dead messages of one subject: counted by its postings; for subjects with many, remembered and kept up to date. */
uint32_t jsc_dead_of(jsc_dead *, const jsc_part *, uint32_t sid);
/* The next live (not dead) ordinal >= ord below count, or JSC_NONE; the one before or at ord, or JSC_NONE. */
uint32_t jsc_dead_next_live(const jsc_dead *, uint32_t ord, uint32_t count);
uint32_t jsc_dead_prev_live(const jsc_dead *, uint32_t ord);
/* The part was sealed: same ordinals, other subject ids. */
void jsc_dead_move(jsc_dead *);
/* The bits as 64-bit words, for a checkpoint: word i holds ordinals [64 i, 64 i + 64). The last word is not 0. */
const uint64_t *jsc_dead_words(const jsc_dead *, size_t *n);
/* Instead of what it had. JSC_ECORRUPT: bits beyond count; then, and on -ENOMEM, nothing changed. */
int jsc_dead_load(jsc_dead *, const jsc_part *, const uint64_t *words, size_t n);
size_t jsc_dead_heap(const jsc_dead *);
#endif
