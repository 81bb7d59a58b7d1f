/* Message ids inside the duplicate window: a FIFO in record order and a hash table over it. The id's bytes stay in the
 * log; a hit is confirmed there by the caller. */
#include "internal.h"
#include <errno.h>

const struct jsc_seen *jsc_dedupe_find(const jsc_dedupe *d, uint64_t hash, uint64_t *it) {
    if (!d->table) return NULL;
    for (uint64_t k = *it;; k++) { /* *it counts probes */
        uint64_t at = d->table[(hash + k) & d->mask];
        if (!at) return NULL;
        const struct jsc_seen *x = &d->ring[(at - 1) & (d->cap - 1)];
        if (x->hash == hash) {
            *it = k + 1;
            return x;
        }
    }
}

static void dedupe_link(jsc_dedupe *d, uint64_t at) {
    uint32_t i = (uint32_t)d->ring[at & (d->cap - 1)].hash & d->mask;
    while (d->table[i]) i = (i + 1) & d->mask;
    d->table[i] = at + 1;
}

int jsc_dedupe_add(jsc_dedupe *d, uint64_t hash, uint64_t index, uint64_t seq, int64_t ts) {
    if (d->tail - d->head == d->cap) {
        uint32_t cap = d->cap ? d->cap * 2 : 256;
        struct jsc_seen *r = malloc((size_t)cap * sizeof *r);
        uint64_t *t = calloc((size_t)cap * 2, sizeof *t);
        if (!r || !t) {
            free(r);
            free(t);
            return -ENOMEM;
        }
        for (uint64_t i = d->head; i < d->tail; i++) r[i & (cap - 1)] = d->ring[i & (d->cap - 1)];
        free(d->ring);
        free(d->table);
        d->ring = r;
        d->table = t;
        d->cap = cap;
        d->mask = cap * 2 - 1;
        for (uint64_t i = d->head; i < d->tail; i++) dedupe_link(d, i);
    }
    d->ring[d->tail & (d->cap - 1)] = (struct jsc_seen){hash, index, seq, ts};
    dedupe_link(d, d->tail++);
    return JSC_OK;
}

void jsc_dedupe_expire(jsc_dedupe *d, int64_t before) {
    while (d->head < d->tail && d->ring[d->head & (d->cap - 1)].ts < before) {
        uint32_t i = (uint32_t)d->ring[d->head & (d->cap - 1)].hash & d->mask;
        while (d->table[i] != d->head + 1) i = (i + 1) & d->mask;
        for (uint32_t j = i;;) {
            j = (j + 1) & d->mask;
            if (!d->table[j]) break;
            uint32_t home = (uint32_t)d->ring[(d->table[j] - 1) & (d->cap - 1)].hash & d->mask;
            if (((j - home) & d->mask) >= ((j - i) & d->mask)) {
                d->table[i] = d->table[j];
                i = j;
            }
        }
        d->table[i] = 0;
        d->head++;
    }
}

void jsc_dedupe_free(jsc_dedupe *d) {
    free(d->ring);
    free(d->table);
    *d = (jsc_dedupe){.head = d->tail, .tail = d->tail}; /* places are not given again: a snapshot may be at one */
}
