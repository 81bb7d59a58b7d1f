/* Records that were lost here and came back from a replica, kept until their segment has all of its own. Not locked. */
#ifndef JSC_HEALING_H
#define JSC_HEALING_H
#include "format.h"

typedef struct jsc_healed {
    uint64_t index;
    size_t at, n; /* its raw bytes, in `bytes` of the whole */
} jsc_healed;

typedef struct jsc_healing {
    uint8_t *bytes;
    size_t n, cap;
    jsc_healed *list; /* ascending by index, each once */
    size_t count, list_cap;
} jsc_healing;

/* The first at `index` or later, NULL when there is none. */
const jsc_healed *jsc_healing_from(const jsc_healing *, uint64_t index);
const jsc_healed *jsc_healing_find(const jsc_healing *, uint64_t index);
/* Copies a record whose index is not there yet. -ENOMEM: nothing changed. */
int jsc_healing_add(jsc_healing *, const jsc_record *);
/* Forgets the records [first, first + count), or all but those. */
void jsc_healing_drop(jsc_healing *, uint64_t first, uint64_t count, bool others);
void jsc_healing_free(jsc_healing *); /* it is empty then */
#endif
