/* What routes are told about local interest: counted per (account, subject, queue). */
#include "plane.h"
#include <errno.h>

static void tell(jsc_conn *c, const jsc_account *a, const jsc_interest_entry *e) {
    const jsc_permissions *imports = c->plane->imports;
    if (JSC_UNLIKELY(imports != NULL) && !jsc_subject_own(a->name, a->name_len, e->text, e->subject_len) &&
        !jsc_may_subscribe(imports, e->text, e->subject_len, NULL, 0))
        return;
    size_t need = 4 + a->name_len + 1 + e->subject_len + 1 + e->queue_len + 1 + 20 + 2;
    char *q = jsc_out_room(c, need);
    if (!q) return;
    q = jsc_copy(q, e->count ? "RS+ " : "RS- ", 4);
    if (!c->only) {
        q = jsc_copy(q, a->name, a->name_len);
        *q++ = ' ';
    }
    q = jsc_copy(q, e->text, e->subject_len);
    if (e->queue_len) {
        *q++ = ' ';
        q = jsc_copy(q, e->text + e->subject_len, e->queue_len);
        if (e->count) {
            *q++ = ' ';
            q = jsc_put_number(q, e->count);
        }
    }
    *q++ = '\r';
    *q++ = '\n';
    jsc_out_done(c, q);
}

static int is(const jsc_interest_entry *e, uint32_t h, const jsc_sub *s) {
    return e->hash == h && e->subject_len == s->subject_len && e->queue_len == s->queue_len &&
           !memcmp(e->text, s->subject, s->subject_len + s->queue_len);
}

static int resize(jsc_account *a, uint32_t cap) {
    jsc_interest_entry **v = calloc(cap, sizeof *v);
    if (!v) return -1;
    for (uint32_t i = 0; i < a->interest_cap; i++) {
        if (!a->interest[i]) continue;
        uint32_t j = (uint32_t)a->interest[i]->hash & (cap - 1);
        while (v[j]) j = (j + 1) & (cap - 1);
        v[j] = a->interest[i];
    }
    free(a->interest);
    a->interest = v;
    a->interest_cap = cap;
    return 0;
}

static void give_back(jsc_account *a, jsc_interest_entry *e) {
    jsc_slab_give(&a->plane->slabs, e, sizeof *e + e->subject_len + e->queue_len);
}

void jsc_interest_free(jsc_account *a) {
    for (uint32_t i = 0; i < a->interest_cap; i++)
        if (a->interest[i]) give_back(a, a->interest[i]);
    free(a->interest);
}

static void take_out(jsc_account *a, uint32_t i) {
    uint32_t mask = a->interest_cap - 1;
    a->interest[i] = NULL;
    a->interest_n--;
    for (uint32_t j = (i + 1) & mask; a->interest[j]; j = (j + 1) & mask) {
        uint32_t home = (uint32_t)a->interest[j]->hash & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            a->interest[i] = a->interest[j];
            a->interest[j] = NULL;
            i = j;
        }
    }
    if (a->interest_cap > 64 && a->interest_n * 8 <= a->interest_cap) resize(a, a->interest_cap / 4); /* or it stays */
}

void jsc_interest_change(jsc_sub *s, int by) {
    jsc_account *a = s->account;
    jsc_plane *p = a->plane;
    uint32_t h = (uint32_t)jsc_hash(s->subject, s->subject_len + s->queue_len) + s->subject_len;
    if ((a->interest_n + 1) * 4 > a->interest_cap * 3 && resize(a, a->interest_cap ? a->interest_cap * 2 : 16))
        return; /* the sub stays local: told is not set */
    uint32_t mask = a->interest_cap - 1, i = (uint32_t)h & mask;
    while (a->interest[i] && !is(a->interest[i], h, s)) i = (i + 1) & mask;
    jsc_interest_entry *e = a->interest[i];
    if (!e) {
        if (!(e = jsc_slab_take(&p->slabs, sizeof *e + s->subject_len + s->queue_len))) return;
        *e = (jsc_interest_entry){h, 0, s->subject_len, s->queue_len};
        memcpy(e->text, s->subject, s->subject_len + s->queue_len);
        a->interest[i] = e;
        a->interest_n++;
    }
    e->count += (uint32_t)by;
    s->told = by > 0;
    if (e->queue_len || e->count == (by > 0 ? 1u : 0u))
        for (uint32_t r = 0; r < p->routes_n; r++)
            if (jsc_pool_carries(p->routes[r], a)) tell(p->routes[r], a, e);
    if (!e->count) {
        take_out(a, i);
        give_back(a, e);
    }
}

void jsc_interest_tell(jsc_conn *route, const jsc_account *one) {
    route->whole = 1;
    for (const jsc_account *a = one ? one : route->plane->all_accounts; a; a = one ? NULL : a->next)
        for (uint32_t i = 0; jsc_pool_carries(route, a) && i < a->interest_cap; i++)
            if (a->interest[i]) tell(route, a, a->interest[i]);
    route->whole = 0;
}
