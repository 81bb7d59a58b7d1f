/* Subject -> id, with count, first and last sequence. Ids of subjects without messages are used again. */
#include "internal.h"

uint32_t jsc_subjects_find(const jsc_subjects *t, const char *s, size_t n) {
    if (!t->table) return JSC_NO_SUBJECT;
    uint64_t h = jsc_hash(s, n);
    for (uint32_t i = (uint32_t)h & t->mask; t->table[i]; i = (i + 1) & t->mask) {
        const jsc_subject *x = &t->a[t->table[i] - 1];
        if (x->hash == h && x->len == n && !memcmp(x->name, s, n)) return t->table[i] - 1;
    }
    return JSC_NO_SUBJECT;
}

static int subjects_grow(jsc_subjects *t) {
    uint32_t size = t->table ? (t->mask + 1) * 2 : 64;
    uint32_t *table = calloc(size, sizeof *table);
    if (!table) return 0;
    for (uint32_t id = 0; id < t->n; id++)
        if (t->a[id].name) {
            uint32_t i = (uint32_t)t->a[id].hash & (size - 1);
            while (table[i]) i = (i + 1) & (size - 1);
            table[i] = id + 1;
        }
    free(t->table);
    t->table = table;
    t->mask = size - 1;
    return 1;
}

uint32_t jsc_subjects_add(jsc_subjects *t, const char *s, size_t n) {
    if (t->recent < t->n) { /* publishers mostly go on with the subject they used */
        const jsc_subject *x = &t->a[t->recent];
        if (x->name && x->len == n && !memcmp(x->name, s, n)) return t->recent;
    }
    if ((!t->table || t->live * 2 > t->mask) && !subjects_grow(t)) return JSC_NO_SUBJECT;
    uint64_t h = jsc_hash(s, n);
    uint32_t i = (uint32_t)h & t->mask;
    for (; t->table[i]; i = (i + 1) & t->mask) {
        const jsc_subject *x = &t->a[t->table[i] - 1];
        if (x->hash == h && x->len == n && !memcmp(x->name, s, n)) return t->recent = t->table[i] - 1;
    }
    uint32_t id;
    char *name = malloc(n + 1);
    if (!name) return JSC_NO_SUBJECT;
    if (t->live < t->n) {
        id = t->free;
        t->free = t->a[id].next_free;
    } else {
        if (t->n == t->cap) {
            uint32_t cap = t->cap ? t->cap * 2 : 32;
            jsc_subject *a = realloc(t->a, cap * sizeof *a);
            if (!a) {
                free(name);
                return JSC_NO_SUBJECT;
            }
            t->a = a;
            t->cap = cap;
        }
        id = t->n++;
    }
    memcpy(name, s, n);
    name[n] = 0;
    t->a[id] = (jsc_subject){.name = name, .hash = h, .len = (uint32_t)n};
    t->table[i] = id + 1;
    t->live++;
    return id;
}

void jsc_subjects_remove(jsc_subjects *t, uint32_t id) {
    jsc_subject *x = &t->a[id];
    uint32_t i = (uint32_t)x->hash & t->mask;
    while (t->table[i] != id + 1) i = (i + 1) & t->mask;
    for (uint32_t j = i;;) { /* close the gap so that probes never meet a hole */
        j = (j + 1) & t->mask;
        if (!t->table[j]) break;
        uint32_t home = (uint32_t)t->a[t->table[j] - 1].hash & t->mask;
        if (((j - home) & t->mask) >= ((j - i) & t->mask)) {
            t->table[i] = t->table[j];
            i = j;
        }
    }
    t->table[i] = 0;
    free(x->name);
    x->name = NULL;
    x->next_free = t->free;
    t->free = id;
    t->live--;
}

void jsc_subjects_free(jsc_subjects *t) {
    for (uint32_t i = 0; i < t->n; i++) free(t->a[i].name);
    free(t->a);
    free(t->table);
    memset(t, 0, sizeof *t);
}
