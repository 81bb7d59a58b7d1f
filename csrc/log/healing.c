#include "healing.h"

#include <errno.h>

/* Position of the first at `index` or later. */
static size_t position(const jsc_healing *h, uint64_t index) {
    size_t lo = 0, hi = h->count;
    if (hi && h->list[hi - 1].index < index) return hi; /* they mostly come in order */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (h->list[mid].index < index) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

const jsc_healed *jsc_healing_from(const jsc_healing *h, uint64_t index) {
    size_t i = position(h, index);
    return i < h->count ? &h->list[i] : NULL;
}

const jsc_healed *jsc_healing_find(const jsc_healing *h, uint64_t index) {
    const jsc_healed *e = jsc_healing_from(h, index);
    return e && e->index == index ? e : NULL;
}

int jsc_healing_add(jsc_healing *h, const jsc_record *r) {
    int rc = jsc_reserve((void **)&h->bytes, h->n, r->raw_len, &h->cap, 1);
    if (rc == JSC_OK) rc = jsc_reserve((void **)&h->list, h->count, 1, &h->list_cap, sizeof *h->list);
    if (rc != JSC_OK) return rc;
    size_t i = position(h, r->index);
    memmove(h->list + i + 1, h->list + i, (h->count - i) * sizeof *h->list);
    h->list[i] = (jsc_healed){r->index, h->n, r->raw_len};
    h->count++;
    memcpy(h->bytes + h->n, r->raw, r->raw_len);
    h->n += r->raw_len;
    return JSC_OK;
}

void jsc_healing_drop(jsc_healing *h, uint64_t first, uint64_t count, bool others) {
    jsc_healing kept = {0};
    for (size_t i = 0; i < h->count; i++) kept.n += (h->list[i].index - first < count) == others ? h->list[i].n : 0;
    if (kept.n == h->n) return;
    /* Into new memory; without any, what is kept is forgotten too: it only has to be given again. */
    if (kept.n && (kept.bytes = malloc(kept.n))) {
        kept.cap = kept.n;
        kept.list = h->list;
        kept.list_cap = h->list_cap;
        size_t at = 0;
        for (size_t i = 0; i < h->count; i++) {
            jsc_healed e = h->list[i];
            if ((e.index - first < count) != others) continue;
            memcpy(kept.bytes + at, h->bytes + e.at, e.n);
            kept.list[kept.count++] = (jsc_healed){e.index, at, e.n};
            at += e.n;
        }
        h->list = NULL;
    } else {
        kept.n = 0;
    }
    jsc_healing_free(h);
    *h = kept;
}

void jsc_healing_free(jsc_healing *h) {
    free(h->bytes);
    free(h->list);
    *h = (jsc_healing){0};
}
