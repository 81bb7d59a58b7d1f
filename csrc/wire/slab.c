/* One slab is 64 KiB, aligned to its size, of things of one size. It is unmapped when the last one goes, unless it is the
 * only one of that size with room. */
#include "slab.h"
#include <sys/mman.h>

enum { BYTES = 64 << 10, FIRST = 64 }; /* FIRST: where the first thing is */

typedef struct jsc_slab {
    struct jsc_slab *next, *prev;
    void *freed; /* list of those given back */
    uint32_t used, fresh, size; /* fresh: offset of what was never taken */
} slab;

/* The part of a mapping twice as large that is aligned. */
static void *map_aligned(void) {
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (!((uintptr_t)p % BYTES)) return p;
    munmap(p, BYTES);
    p = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t before = (BYTES - (uintptr_t)p % BYTES) % BYTES;
    if (before) munmap(p, before);
    munmap(p + before + BYTES, BYTES - before);
    return p + before;
}

static void link_in(slab **head, slab *s) {
    s->prev = NULL;
    if ((s->next = *head)) s->next->prev = s;
    *head = s;
}

static void take_out(slab **head, slab *s) {
    if (s->prev) s->prev->next = s->next;
    else *head = s->next;
    if (s->next) s->next->prev = s->prev;
    s->next = s->prev = NULL;
}

static int is_full(const slab *s) { return !s->freed && s->fresh + s->size > BYTES; }

void *jsc_slab_take(jsc_slabs *all, size_t n) {
    size_t k = (n + JSC_SLAB_STEP - 1) / JSC_SLAB_STEP;
    if (!k || k > JSC_SLAB_SIZES || all->off) return malloc(n);
    slab **head = &all->open[k - 1], *s = *head;
    if (!s) {
        if (!(s = map_aligned())) return NULL;
        s->size = (uint32_t)k * JSC_SLAB_STEP;
        s->fresh = FIRST;
        link_in(head, s);
    }
    void *p = s->freed;
    if (p) {
        memcpy(&s->freed, p, sizeof s->freed);
    } else {
        p = (char *)s + s->fresh;
        s->fresh += s->size;
    }
    s->used++;
    if (is_full(s)) take_out(head, s);
    return p;
}

void jsc_slab_give(jsc_slabs *all, void *p, size_t n) {
    size_t k = (n + JSC_SLAB_STEP - 1) / JSC_SLAB_STEP;
    if (!k || k > JSC_SLAB_SIZES || all->off) {
        free(p);
        return;
    }
    if (!p) return;
    slab **head = &all->open[k - 1], *s = (slab *)((uintptr_t)p & ~(uintptr_t)(BYTES - 1));
    if (is_full(s)) link_in(head, s);
    memcpy(p, &s->freed, sizeof s->freed);
    s->freed = p;
    if (--s->used || (*head == s && !s->next)) return;
    take_out(head, s);
    munmap(s, BYTES);
}

void jsc_slabs_free(jsc_slabs *all) {
    for (int k = 0; k < JSC_SLAB_SIZES; k++)
        while (all->open[k]) {
            slab *s = all->open[k];
            take_out(&all->open[k], s);
            munmap(s, BYTES);
        }
}
