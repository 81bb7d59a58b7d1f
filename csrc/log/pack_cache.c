/* The cache of unpacked blocks: a table by (pack, number), and a list of those nobody uses, newest first, from whose end
 * blocks go while there is more than the budget. Bytes are unpacked outside of the lock; two threads that miss the same
 * block both do, and the later one takes the other's. */
#include "pack.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#define UNPACKERS 4 /* kept for the next misses; more threads than that make their own */

struct jsc_block {
    jsc_block *next; /* in its bucket */
    jsc_block *newer, *older; /* in the list of the unused */
    const jsc_pack *pack; /* NULL: not in the table: a span of several, or forgotten while in use */
    uint32_t i;
    uint32_t refs;
    size_t n;
    _Alignas(16) uint8_t bytes[];
};

struct jsc_block_cache {
    pthread_mutex_t lock;
    size_t budget, heap; /* heap: of all blocks there are, used ones too */
    jsc_block **buckets;
    size_t nbuckets, blocks; /* a power of two; blocks in the table */
    jsc_block *newest, *oldest;
    size_t alive;
    jsc_unpacker *_Atomic unpackers[UNPACKERS];
};

int jsc_block_cache_new(size_t budget, jsc_block_cache **out) {
    jsc_block_cache *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    c->nbuckets = 64;
    c->buckets = calloc(c->nbuckets, sizeof *c->buckets);
    if (!c->buckets) {
        free(c);
        return -ENOMEM;
    }
    pthread_mutex_init(&c->lock, NULL);
    c->budget = budget;
    for (int i = 0; i < UNPACKERS; i++) atomic_init(&c->unpackers[i], NULL);
    *out = c;
    return JSC_OK;
}

static jsc_block **bucket_of(const jsc_block_cache *c, const jsc_pack *pack, uint32_t i) {
    uint64_t h = ((uint64_t)(uintptr_t)pack >> 4) * 0x9e3779b97f4a7c15u + i;
    h *= 0xbf58476d1ce4e5b9u;
    return &c->buckets[(h ^ h >> 32) & (c->nbuckets - 1)];
}

static jsc_block *find(const jsc_block_cache *c, const jsc_pack *pack, uint32_t i) {
    jsc_block *b = *bucket_of(c, pack, i);
    while (b && (b->pack != pack || b->i != i)) b = b->next;
    return b;
}

static void grow(jsc_block_cache *c) {
    jsc_block **old = c->buckets, **fresh = calloc(2 * c->nbuckets, sizeof *fresh);
    if (!fresh) return; /* longer chains, no harm */
    size_t n = c->nbuckets;
    c->buckets = fresh;
    c->nbuckets = 2 * n;
    for (size_t i = 0; i < n; i++)
        for (jsc_block *b = old[i], *next; b; b = next) {
            next = b->next;
            jsc_block **at = bucket_of(c, b->pack, b->i);
            b->next = *at;
            *at = b;
        }
    free(old);
}

static void table_add(jsc_block_cache *c, jsc_block *b) {
    if (c->blocks == c->nbuckets) grow(c);
    jsc_block **at = bucket_of(c, b->pack, b->i);
    b->next = *at;
    *at = b;
    c->blocks++;
}

static void table_remove(jsc_block_cache *c, jsc_block *b) {
    jsc_block **at = bucket_of(c, b->pack, b->i);
    while (*at != b) at = &(*at)->next;
    *at = b->next;
    b->pack = NULL;
    c->blocks--;
}

static void list_add(jsc_block_cache *c, jsc_block *b) {
    b->newer = NULL;
    b->older = c->newest;
    if (c->newest) c->newest->newer = b;
    else c->oldest = b;
    c->newest = b;
}

static void list_remove(jsc_block_cache *c, jsc_block *b) {
    if (b->newer) b->newer->older = b->older;
    else c->newest = b->older;
    if (b->older) b->older->newer = b->newer;
    else c->oldest = b->newer;
}

static void count(jsc_block_cache *c, const jsc_block *b) {
    c->heap += sizeof *b + b->n;
    c->alive++;
}

static void drop(jsc_block_cache *c, jsc_block *b) {
    c->heap -= sizeof *b + b->n;
    c->alive--;
    free(b);
}

static void evict(jsc_block_cache *c) {
    while (c->heap > c->budget && c->oldest) {
        jsc_block *b = c->oldest;
        list_remove(c, b);
        table_remove(c, b);
        drop(c, b);
    }
}

static void use(jsc_block_cache *c, jsc_block *b) {
    if (b->refs++ == 0) list_remove(c, b);
}

void jsc_block_cache_free(jsc_block_cache *c) {
    if (!c) return;
    c->budget = 0;
    evict(c);
    JSC_ASSERT(c->alive == 0);
    for (int i = 0; i < UNPACKERS; i++) jsc_unpacker_free(atomic_load(&c->unpackers[i]));
    pthread_mutex_destroy(&c->lock);
    free(c->buckets);
    free(c);
}

void jsc_block_cache_forget(jsc_block_cache *c, const jsc_pack *pack) {
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->nbuckets; i++)
        for (jsc_block *b = c->buckets[i], *next; b; b = next) {
            next = b->next;
            if (b->pack != pack) continue;
            table_remove(c, b);
            if (b->refs) continue; /* goes when it is released */
            list_remove(c, b);
            drop(c, b);
        }
    pthread_mutex_unlock(&c->lock);
}

size_t jsc_block_cache_heap(const jsc_block_cache *cache) {
    jsc_block_cache *c = (jsc_block_cache *)(uintptr_t)cache; /* only for the lock */
    pthread_mutex_lock(&c->lock);
    size_t n = c->heap;
    pthread_mutex_unlock(&c->lock);
    return n;
}

static int unpack(jsc_block_cache *c, jsc_pack *pack, uint32_t i, uint8_t *out, size_t *n) {
    jsc_unpacker *u = NULL, *none;
    for (int k = 0; k < UNPACKERS && !u; k++) u = atomic_exchange(&c->unpackers[k], NULL);
    int rc = u ? JSC_OK : jsc_unpacker_new(&u);
    if (rc != JSC_OK) return rc;
    rc = jsc_unpack(u, pack, i, out, n);
    for (int k = 0; k < UNPACKERS; k++) {
        none = NULL;
        if (atomic_compare_exchange_strong(&c->unpackers[k], &none, u)) return rc;
    }
    jsc_unpacker_free(u);
    return rc;
}

static jsc_block *cached(jsc_block_cache *c, const jsc_pack *pack, uint32_t i) {
    pthread_mutex_lock(&c->lock);
    jsc_block *b = find(c, pack, i);
    if (b) use(c, b);
    pthread_mutex_unlock(&c->lock);
    return b;
}

int jsc_block_get(jsc_block_cache *c, jsc_pack *pack, uint32_t i, jsc_block **out) {
    jsc_block *b = cached(c, pack, i), *other;
    if (!b) {
        b = malloc(sizeof *b + JSC_PACK_BLOCK);
        if (!b) return -ENOMEM;
        size_t n;
        int rc = unpack(c, pack, i, b->bytes, &n);
        if (rc != JSC_OK) {
            free(b);
            return rc;
        }
        if (n < JSC_PACK_BLOCK) { /* a pack's last one */
            jsc_block *fit = realloc(b, sizeof *b + n);
            if (fit) b = fit;
        }
        b->pack = pack;
        b->i = i;
        b->refs = 1;
        b->n = n;
        pthread_mutex_lock(&c->lock);
        other = find(c, pack, i);
        if (other) {
            use(c, other);
        } else {
            table_add(c, b);
            count(c, b);
            evict(c);
        }
        pthread_mutex_unlock(&c->lock);
        if (other) {
            free(b);
            b = other;
        }
    }
    *out = b;
    return JSC_OK;
}

const uint8_t *jsc_block_bytes(const jsc_block *b, size_t *n) {
    *n = b->n;
    return b->bytes;
}

void jsc_block_release(jsc_block_cache *c, jsc_block *b) {
    if (!b) return;
    pthread_mutex_lock(&c->lock);
    JSC_ASSERT(b->refs > 0);
    if (--b->refs == 0) {
        if (b->pack) {
            list_add(c, b);
            evict(c);
        } else {
            drop(c, b);
        }
    }
    pthread_mutex_unlock(&c->lock);
}

/* Bytes [from, from + n) of block i. A whole block that is not at hand is unpacked in place and not kept: reading one
 * large record shall not push everything else out. */
static int copy_part(jsc_block_cache *c, jsc_pack *pack, uint32_t i, size_t from, size_t n, uint8_t *to) {
    jsc_block *b = cached(c, pack, i);
    int rc = JSC_OK;
    if (!b && n == JSC_PACK_BLOCK) {
        size_t got;
        rc = unpack(c, pack, i, to, &got);
        return rc == JSC_OK && got != n ? JSC_ECORRUPT : rc;
    }
    if (!b) rc = jsc_block_get(c, pack, i, &b);
    if (rc != JSC_OK) return rc;
    if (b->n < from || b->n - from < n) rc = JSC_ECORRUPT;
    else memcpy(to, b->bytes + from, n);
    jsc_block_release(c, b);
    return rc;
}

int jsc_block_span(jsc_block_cache *c, jsc_pack *pack, uint64_t offset, size_t n, const uint8_t **bytes,
                   jsc_block **hold) {
    uint64_t image = jsc_pack_image_bytes(pack);
    if (offset < JSC_SEGMENT_HEAD || offset > image || n > image - offset || n == 0 || n > JSC_RECORD_MAX)
        return JSC_EINVAL;
    uint32_t i = (uint32_t)((offset - JSC_SEGMENT_HEAD) / JSC_PACK_BLOCK);
    size_t from = (size_t)((offset - JSC_SEGMENT_HEAD) % JSC_PACK_BLOCK);
    jsc_block *b;
    int rc;
    if (from + n <= JSC_PACK_BLOCK) {
        rc = jsc_block_get(c, pack, i, &b);
        if (rc != JSC_OK) return rc;
        *bytes = b->bytes + from;
        *hold = b;
        return JSC_OK;
    }
    b = malloc(sizeof *b + n);
    if (!b) return -ENOMEM;
    *b = (jsc_block){.refs = 1, .n = n};
    for (size_t at = 0; at < n; i++, from = 0) {
        size_t part = JSC_PACK_BLOCK - from;
        if (part > n - at) part = n - at;
        rc = copy_part(c, pack, i, from, part, b->bytes + at);
        if (rc != JSC_OK) {
            free(b);
            return rc;
        }
        at += part;
    }
    pthread_mutex_lock(&c->lock);
    count(c, b);
    evict(c);
    pthread_mutex_unlock(&c->lock);
    *bytes = b->bytes;
    *hold = b;
    return JSC_OK;
}
