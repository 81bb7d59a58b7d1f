/* Slabs: what is taken is the taker's alone, and what is given back is used or unmapped. */
#include "../slab.h"
#include "../../base/test/check.h"
#include <unistd.h>

enum { THINGS = 20000, STEPS = 200000 };

static size_t resident_pages(void) {
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long all = 0, here = 0;
    CHECK(f && fscanf(f, "%lu %lu", &all, &here) == 2);
    fclose(f);
    return here;
}

static void fill(unsigned char *p, size_t n, unsigned char with) { memset(p, with, n); }

static void test_things_keep_their_bytes(void) {
    static unsigned char *things[THINGS];
    static size_t sizes[THINGS];
    jsc_slabs all = {0};
    for (int step = 0; step < STEPS; step++) {
        size_t i = rnd(THINGS);
        unsigned char mark = (unsigned char)(i * 31 + 7);
        if (things[i]) {
            for (size_t k = 0; k < sizes[i]; k++) CHECK(things[i][k] == mark);
            jsc_slab_give(&all, things[i], sizes[i]);
            things[i] = NULL;
            continue;
        }
        sizes[i] = 8 + rnd(300); /* some larger than any slab's */
        CHECK((things[i] = jsc_slab_take(&all, sizes[i])));
        CHECK((uintptr_t)things[i] % 16 == 0);
        fill(things[i], sizes[i], mark);
    }
    for (int i = 0; i < THINGS; i++)
        if (things[i]) jsc_slab_give(&all, things[i], sizes[i]);
    jsc_slabs_free(&all);
}

static void test_memory_returns_in_any_order(void) {
    enum { MANY = 400000 };
    void **v = malloc(MANY * sizeof *v);
    jsc_slabs all = {0};
    CHECK(v);
    memset(v, 1, MANY * sizeof *v);
    size_t before = resident_pages();
    for (int i = 0; i < MANY; i++) {
        CHECK((v[i] = jsc_slab_take(&all, 96)));
        fill(v[i], 96, 1);
    }
    size_t full = resident_pages();
    CHECK(full - before > MANY * 96 / 4096 * 9 / 10);
    for (int i = MANY - 1; i > 0; i--) { /* as a hash table has them */
        size_t j = rnd((uint64_t)i + 1);
        void *t = v[i];
        v[i] = v[j];
        v[j] = t;
    }
    for (int i = 0; i < MANY; i++) jsc_slab_give(&all, v[i], 96);
    CHECK(resident_pages() < before + (full - before) / 10);
    jsc_slabs_free(&all);
    free(v);
}

int main(void) {
    test_things_keep_their_bytes();
    test_memory_returns_in_any_order();
    puts("slab: ok");
    return 0;
}
