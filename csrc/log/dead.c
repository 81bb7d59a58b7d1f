/* Bits of the dead, and how many of them each subject has. The latter is not a table over all subjects: a subject with few
 * messages is counted when asked, and only those with more get an entry, so there is at most one entry for MANY messages. */
#include "dead.h"

#include <errno.h>
#include <malloc.h>

#define MANY 64

typedef struct tally {
    uint32_t sid1, dead; /* id + 1; 0: free */
} tally;

struct jsc_dead {
    uint64_t *words;
    size_t nwords, cap; /* nwords: up to the last one with a bit */
    uint64_t bytes;
    uint32_t count;
    tally *tallies; /* open addressing, of subjects with MANY messages or more that were asked for */
    uint32_t mask, ntallies;
};

int jsc_dead_new(jsc_dead **out) {
    jsc_dead *d = calloc(1, sizeof *d);
    if (!d) return -ENOMEM;
    *out = d;
    return JSC_OK;
}

void jsc_dead_free(jsc_dead *d) {
    if (!d) return;
    free(d->words);
    free(d->tallies);
    free(d);
}

static inline uint32_t low(uint64_t word) { return (uint32_t)__builtin_ctzll(word); }
static inline uint32_t high(uint64_t word) { return 63 - (uint32_t)__builtin_clzll(word); }

/* ---- tallies ---- */

static tally *tally_at(const jsc_dead *d, uint32_t sid) {
    uint32_t i = sid * 0x9e3779b1u;
    for (i ^= i >> 15;; i++) {
        tally *t = &d->tallies[i & d->mask];
        if (!t->sid1 || t->sid1 == sid + 1) return t;
    }
}

static void tally_new(jsc_dead *d, uint32_t sid, uint32_t dead) {
    if (!d->tallies || d->ntallies * 3 >= (d->mask + 1) * 2) {
        uint32_t size = d->tallies ? (d->mask + 1) * 2 : 16;
        tally *old = d->tallies, *fresh = calloc(size, sizeof *fresh);
        if (!fresh) return; /* it will be counted again */
        uint32_t n = old ? d->mask + 1 : 0;
        d->tallies = fresh;
        d->mask = size - 1;
        for (uint32_t i = 0; i < n; i++)
            if (old[i].sid1) *tally_at(d, old[i].sid1 - 1) = old[i];
        free(old);
    }
    *tally_at(d, sid) = (tally){sid + 1, dead};
    d->ntallies++;
}

uint32_t jsc_dead_of(jsc_dead *d, const jsc_part *part, uint32_t sid) {
    if (!d->count) return 0;
    uint32_t n = part->ops->occurrences(part, sid), dead = 0;
    if (n >= MANY && d->tallies) {
        const tally *t = tally_at(d, sid);
        if (t->sid1) return t->dead;
    }
    for (uint32_t k = 0; k < n; k++) dead += jsc_dead_has(d, part->ops->posting(part, sid, k));
    if (n >= MANY) tally_new(d, sid, dead);
    return dead;
}

void jsc_dead_move(jsc_dead *d) {
    free(d->tallies);
    d->tallies = NULL;
    d->mask = d->ntallies = 0;
}

/* ---- bits ---- */

bool jsc_dead_has(const jsc_dead *d, uint32_t ord) {
    return d && ord / 64 < d->nwords && d->words[ord / 64] >> (ord % 64) & 1;
}

bool jsc_dead_add(jsc_dead *d, const jsc_part *part, uint32_t ord, int *error) {
    size_t w = ord / 64;
    if (jsc_dead_has(d, ord)) return false;
    if (w >= d->cap) {
        /* Room for all of the part that there is, so that a sealed one gets its bits at once and an open one rarely. */
        size_t cap = d->cap + d->cap / 2, all = part->ops->count(part) / 64 + 1;
        if (cap < all) cap = all;
        if (cap <= w) cap = w + 1;
        uint64_t *grown = realloc(d->words, cap * sizeof *grown);
        if (!grown) {
            *error = -ENOMEM;
            return false;
        }
        d->words = grown;
        d->cap = cap;
    }
    for (; d->nwords <= w; d->nwords++) d->words[d->nwords] = 0;
    d->words[w] |= (uint64_t)1 << (ord % 64);
    d->count++;
    d->bytes += part->ops->bytes(part, ord);
    if (d->tallies) {
        tally *t = tally_at(d, part->ops->subject(part, ord));
        if (t->sid1) t->dead++;
    }
    return true;
}

uint32_t jsc_dead_count(const jsc_dead *d) { return d ? d->count : 0; }
uint64_t jsc_dead_bytes(const jsc_dead *d) { return d ? d->bytes : 0; }

uint32_t jsc_dead_count_range(const jsc_dead *d, uint32_t lo, uint32_t hi) {
    if (!d || lo >= hi || lo / 64 >= d->nwords) return 0;
    size_t first = lo / 64, last = (hi - 1) / 64;
    uint32_t n = 0;
    for (size_t w = first; w <= last && w < d->nwords; w++) {
        uint64_t word = d->words[w];
        if (w == first) word &= UINT64_MAX << (lo % 64);
        if (w == last) word &= UINT64_MAX >> (63 - (hi - 1) % 64);
        n += (uint32_t)__builtin_popcountll(word);
    }
    return n;
}

uint32_t jsc_dead_next_live(const jsc_dead *d, uint32_t ord, uint32_t count) {
    if (ord >= count) return JSC_NONE;
    if (!d || ord / 64 >= d->nwords) return ord;
    uint64_t live = ~d->words[ord / 64] & UINT64_MAX << (ord % 64);
    for (size_t w = ord / 64;; live = ~d->words[w]) {
        if (live) {
            ord = (uint32_t)w * 64 + low(live);
            break;
        }
        if (++w >= d->nwords) {
            ord = (uint32_t)w * 64;
            break;
        }
    }
    return ord < count ? ord : JSC_NONE;
}

uint32_t jsc_dead_prev_live(const jsc_dead *d, uint32_t ord) {
    if (!d || ord == JSC_NONE || ord / 64 >= d->nwords) return ord;
    uint64_t live = ~d->words[ord / 64] & UINT64_MAX >> (63 - ord % 64);
    for (size_t w = ord / 64;; live = ~d->words[w]) {
        if (live) return (uint32_t)w * 64 + high(live);
        if (w-- == 0) return JSC_NONE;
    }
}

/* ---- for checkpoints ---- */

const uint64_t *jsc_dead_words(const jsc_dead *d, size_t *n) {
    *n = d ? d->nwords : 0;
    return d ? d->words : NULL;
}

int jsc_dead_load(jsc_dead *d, const jsc_part *part, const uint64_t *words, size_t n) {
    uint32_t count = part->ops->count(part), dead = 0;
    uint64_t bytes = 0;
    while (n && !words[n - 1]) n--;
    if (n && (n - 1 > count / 64 || (uint64_t)(n - 1) * 64 + high(words[n - 1]) >= count)) return JSC_ECORRUPT;
    uint64_t *copy = NULL;
    if (n) {
        if (!(copy = malloc(n * sizeof *copy))) return -ENOMEM;
        memcpy(copy, words, n * sizeof *copy);
    }
    for (size_t w = 0; w < n; w++)
        for (uint64_t left = copy[w]; left; left &= left - 1, dead++)
            bytes += part->ops->bytes(part, (uint32_t)w * 64 + low(left));
    free(d->words);
    jsc_dead_move(d);
    d->words = copy;
    d->nwords = d->cap = n;
    d->count = dead;
    d->bytes = bytes;
    return JSC_OK;
}

size_t jsc_dead_heap(const jsc_dead *d) {
    return d ? sizeof *d + malloc_usable_size(d->words) + malloc_usable_size(d->tallies) : 0;
}
