/* The small tables of a stream: timers, waiting replies, sequence heap, bytes. Nothing here knows messages. */
#include "internal.h"
#include <errno.h>

/* ---- timers ---- */
static void timer_place(jsc_timers *t, uint32_t i, jsc_timer *x) {
    t->heap[i] = x;
    x->pos = i;
}

static void timer_up(jsc_timers *t, uint32_t i, jsc_timer *x) {
    for (; i > 1 && t->heap[i / 2]->due > x->due; i /= 2) timer_place(t, i, t->heap[i / 2]);
    timer_place(t, i, x);
}

static void timer_down(jsc_timers *t, uint32_t i, jsc_timer *x) {
    for (;;) {
        uint32_t k = i * 2;
        if (k > t->n) break;
        if (k + 1 <= t->n && t->heap[k + 1]->due < t->heap[k]->due) k++;
        if (t->heap[k]->due >= x->due) break;
        timer_place(t, i, t->heap[k]);
        i = k;
    }
    timer_place(t, i, x);
}

void jsc_timer_stop(jsc_timers *t, jsc_timer *x) {
    uint32_t i = x->pos;
    if (!i) return;
    x->pos = 0;
    jsc_timer *last = t->heap[t->n--];
    if (last == x) return;
    if (i > 1 && t->heap[i / 2]->due > last->due) timer_up(t, i, last);
    else timer_down(t, i, last);
}

int jsc_timer_set(jsc_timers *t, jsc_timer *x, int64_t due) {
    if (due == JSC_NEVER) {
        jsc_timer_stop(t, x);
        x->due = due;
        return JSC_OK;
    }
    if (x->pos) {
        int64_t old = x->due;
        x->due = due;
        if (due < old) timer_up(t, x->pos, x);
        else if (due > old) timer_down(t, x->pos, x);
        return JSC_OK;
    }
    if (t->n + 2 > t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 64;
        jsc_timer **h = realloc(t->heap, cap * sizeof *h);
        if (!h) return -ENOMEM;
        t->heap = h;
        t->cap = cap;
    }
    x->due = due;
    timer_up(t, ++t->n, x);
    return JSC_OK;
}

/* ---- bytes ---- */
int jsc_bytes_add(jsc_bytes *b, const void *data, size_t n) {
    if (b->n + n > b->cap) {
        size_t cap = b->cap ? b->cap : 256;
        while (cap < b->n + n) cap *= 2;
        uint8_t *p = realloc(b->p, cap);
        if (!p) return -ENOMEM;
        b->p = p;
        b->cap = cap;
    }
    if (n) memcpy(b->p + b->n, data, n);
    b->n += n;
    return JSC_OK;
}

void jsc_bytes_free(jsc_bytes *b) {
    free(b->p);
    memset(b, 0, sizeof *b);
}

void jsc_varint_put(jsc_bytes *b, uint64_t v) {
    uint8_t t[10];
    size_t n = 0;
    do {
        t[n] = (uint8_t)(v & 127);
        v >>= 7;
        if (v) t[n] |= 128;
        n++;
    } while (v);
    JSC_ASSERT(jsc_bytes_add(b, t, n) == JSC_OK);
}

int jsc_varint_get(const uint8_t **p, const uint8_t *end, uint64_t *v) {
    uint64_t x = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (*p == end) return 0;
        uint8_t b = *(*p)++;
        x |= (uint64_t)(b & 127) << shift;
        if (!(b & 128)) {
            *v = x;
            return 1;
        }
    }
    return 0;
}

/* ---- waiters ---- */
/* Room for n contiguous bytes at the tail of the byte ring; grows by copying what lives to a new block. */
static int waiters_room(jsc_waiters *w, uint32_t n) {
    if (!w->n) w->bhead = w->btail = 0;
    if (w->bcap) {
        if (w->btail >= w->bhead) {
            if (w->bcap - w->btail >= n) return JSC_OK;
            if (w->n && n < w->bhead) { /* strictly: tail never catches up with head while it is in use */
                w->btail = 0;
                return JSC_OK;
            }
        } else if (w->bhead - w->btail > n) {
            return JSC_OK;
        }
    }
    uint64_t used = n;
    for (uint32_t i = 0; i < w->n; i++) used += w->ring[(w->head + i) & (w->cap - 1)].len;
    uint64_t cap = w->bcap ? w->bcap : 4096;
    while (cap < used * 2) cap *= 2;
    if (cap > UINT32_MAX / 2) return JSC_EFULL;
    char *p = malloc(cap);
    if (!p) return -ENOMEM;
    uint32_t at = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        struct jsc_wait *x = &w->ring[(w->head + i) & (w->cap - 1)];
        memcpy(p + at, w->bytes + x->off, x->len);
        x->off = at;
        at += x->len;
    }
    free(w->bytes);
    w->bytes = p;
    w->bcap = (uint32_t)cap;
    w->bhead = 0;
    w->btail = at;
    return JSC_OK;
}

int jsc_waiters_push(jsc_waiters *w, uint64_t index, const char *reply, size_t n) {
    if (n == 0 || n > UINT16_MAX) return JSC_EINVAL;
    if (w->n == w->cap) {
        uint32_t cap = w->cap ? w->cap * 2 : 256;
        struct jsc_wait *r = malloc((size_t)cap * sizeof *r);
        if (!r) return -ENOMEM;
        for (uint32_t i = 0; i < w->n; i++) r[i] = w->ring[(w->head + i) & (w->cap - 1)];
        free(w->ring);
        w->ring = r;
        w->cap = cap;
        w->head = 0;
    }
    int rc = waiters_room(w, (uint32_t)n);
    if (rc) return rc;
    memcpy(w->bytes + w->btail, reply, n);
    w->ring[(w->head + w->n++) & (w->cap - 1)] = (struct jsc_wait){index, w->btail, (uint32_t)n};
    w->btail += (uint32_t)n;
    w->held += (uint32_t)n;
    return JSC_OK;
}

const char *jsc_waiters_take(jsc_waiters *w, uint64_t index, uint32_t *n) {
    while (w->n) {
        struct jsc_wait x = w->ring[w->head & (w->cap - 1)];
        if (x.index > index) return NULL;
        w->head++;
        w->n--;
        w->held -= x.len;
        w->bhead = w->n ? w->ring[w->head & (w->cap - 1)].off : w->btail;
        if (x.index == index) {
            *n = x.len;
            return w->bytes + x.off;
        }
    }
    return NULL;
}

void jsc_waiters_clear(jsc_waiters *w) { w->n = w->head = w->bhead = w->btail = w->held = 0; }

void jsc_waiters_free(jsc_waiters *w) {
    free(w->ring);
    free(w->bytes);
    memset(w, 0, sizeof *w);
}

/* ---- sequence heap ---- */
int jsc_seqheap_push(jsc_seqheap *h, int64_t key, uint64_t seq) {
    if (h->n == h->cap) {
        uint32_t cap = h->cap ? h->cap * 2 : 64;
        struct jsc_seqkey *a = realloc(h->a, cap * sizeof *a);
        if (!a) return -ENOMEM;
        h->a = a;
        h->cap = cap;
    }
    uint32_t i = h->n++;
    for (; i && h->a[(i - 1) / 2].key > key; i = (i - 1) / 2) h->a[i] = h->a[(i - 1) / 2];
    h->a[i] = (struct jsc_seqkey){key, seq};
    return JSC_OK;
}

void jsc_seqheap_pop(jsc_seqheap *h) {
    struct jsc_seqkey x = h->a[--h->n];
    uint32_t i = 0;
    for (;;) {
        uint32_t k = 2 * i + 1;
        if (k >= h->n) break;
        if (k + 1 < h->n && h->a[k + 1].key < h->a[k].key) k++;
        if (h->a[k].key >= x.key) break;
        h->a[i] = h->a[k];
        i = k;
    }
    if (h->n) h->a[i] = x;
}

void jsc_seqheap_free(jsc_seqheap *h) {
    free(h->a);
    memset(h, 0, sizeof *h);
}
