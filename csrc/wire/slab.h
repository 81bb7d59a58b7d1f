/* Memory for many small things of a few sizes, given back to the system piece by piece as they go: a connection may take a
 * million subscriptions with it, and an allocator that puts that in order at once stops everybody for as long. */
#ifndef JSC_WIRE_SLAB_H
#define JSC_WIRE_SLAB_H
#include "../base/jsc_base.h"

enum { JSC_SLAB_STEP = 16, JSC_SLAB_SIZES = 16 }; /* larger than 256 bytes: malloc */

typedef struct jsc_slabs {
    struct jsc_slab *open[JSC_SLAB_SIZES]; /* with room */
    uint8_t off; /* malloc for everything: tools that watch memory see each thing */
} jsc_slabs;
void *jsc_slab_take(jsc_slabs *, size_t n); /* NULL: no memory */
void jsc_slab_give(jsc_slabs *, void *, size_t n); /* n as it was taken; p may be NULL */
void jsc_slabs_free(jsc_slabs *); /* when everything was given back */
#endif
