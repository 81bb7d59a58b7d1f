/* Accounts and the life of a subscription. */
#include "plane.h"
#include <errno.h>

jsc_account *jsc_account_find(jsc_plane *p, const char *name, size_t n, int make) {
    uint64_t h = jsc_hash(name, n);
    uint32_t i = 0;
    if (p->accounts_cap) {
        for (i = (uint32_t)h & (p->accounts_cap - 1); p->accounts[i]; i = (i + 1) & (p->accounts_cap - 1)) {
            jsc_account *a = p->accounts[i];
            if (a->hash == h && a->name_len == n && !memcmp(a->name, name, n)) return a;
        }
    }
    if (!make) return NULL;
    if ((p->accounts_n + 1) * 2 > p->accounts_cap) {
        uint32_t cap = p->accounts_cap ? p->accounts_cap * 2 : 16;
        jsc_account **v = calloc(cap, sizeof *v);
        if (!v) return NULL;
        for (jsc_account *a = p->all_accounts; a; a = a->next) {
            for (i = (uint32_t)a->hash & (cap - 1); v[i];) i = (i + 1) & (cap - 1);
            v[i] = a;
        }
        free(p->accounts);
        p->accounts = v;
        p->accounts_cap = cap;
        for (i = (uint32_t)h & (cap - 1); v[i];) i = (i + 1) & (cap - 1);
    }
    jsc_account *a = calloc(1, sizeof *a + n + 1);
    if (!a) return NULL;
    a->plane = p;
    a->hash = h;
    a->pool_hash = jsc_pool_hash(name, n);
    a->name_len = (uint32_t)n;
    memcpy(a->name, name, n);
    a->max_clients = UINT32_MAX;
    a->is_system = n == 4 && !memcmp(name, "$SYS", 4);
    a->next = p->all_accounts;
    p->all_accounts = a;
    p->accounts[i] = a;
    p->accounts_n++;
    return a;
}

jsc_account *jsc_plane_account(jsc_plane *p, const char *name, size_t n) { return jsc_account_find(p, name, n, 1); }

const char *jsc_account_name(const jsc_account *a, size_t *n) {
    if (n) *n = a->name_len;
    return a->name;
}

void jsc_account_limit(jsc_account *a, uint32_t max_clients) { a->max_clients = max_clients; }
uint32_t jsc_account_clients(const jsc_account *a) { return a->clients; }
void jsc_account_system(jsc_account *a, int on) { a->is_system = on != 0; }

void jsc_account_free(jsc_account *a) {
    jsc_match_clear(a);
    jsc_mappings_free(a->mappings);
    free(a->trace_dest);
    free(a->slots);
    free(a->prefixes);
    jsc_interest_free(a);
    if (a->root) {
        free(a->root->kids);
        free(a->root->here.v);
        free(a->root->tail.v);
        free(a->root);
    }
    free(a);
}

jsc_sub *jsc_sub_new(int kind, jsc_account *a, const char *subject, size_t n, const char *queue, size_t qn,
                     const char *sid, size_t sn) {
    size_t before = kind >= JSC_SUB_CALL ? offsetof(jsc_own, sub) : 0,
           size = before + offsetof(jsc_sub, subject) + n + qn + sn;
    char *b = before ? malloc(size) : jsc_slab_take(&a->plane->slabs, size);
    if (!b) return NULL;
    memset(b, 0, before + offsetof(jsc_sub, subject));
    jsc_sub *s = (jsc_sub *)(b + before);
    s->kind = (uint8_t)kind;
    s->account = a;
    s->subject_len = (uint32_t)n;
    s->queue_len = (uint32_t)qn;
    s->sid_len = (uint32_t)sn;
    char *q = jsc_copy(s->subject, subject, n);
    if (qn) q = jsc_copy(q, queue, qn);
    if (sn) jsc_copy(q, sid, sn);
    return s;
}

void jsc_sub_free(jsc_sub *s) {
    if (!s) return;
    if (s->kind >= JSC_SUB_CALL) free(jsc_own_of(s));
    else
        jsc_slab_give(&s->account->plane->slabs, s,
                      offsetof(jsc_sub, subject) + s->subject_len + s->queue_len + s->sid_len);
}

int jsc_sub_enter(jsc_sub *s) {
    int rc = jsc_index_add(s->account, s);
    if (rc) return rc;
    jsc_match_forget(s->account, s->subject, s->subject_len);
    s->account->subs_n++;
    s->account->inserts++;
    if (s->kind == JSC_SUB_ROUTE) {
        s->account->plane->stats.remote_subscriptions++;
    } else {
        s->account->plane->stats.subscriptions++;
        if (!(s->flags & JSC_SUB_LOCAL)) jsc_interest_change(s, 1);
    }
    return 0;
}

void jsc_sub_leave(jsc_sub *s) {
    jsc_plane *p = s->account->plane;
    if (!s->node) { /* a route's, heard before the route was ready: nobody could find it yet */
        jsc_sub_free(s);
        return;
    }
    jsc_index_remove(s);
    jsc_match_forget(s->account, s->subject, s->subject_len);
    s->account->subs_n--;
    s->account->removes++;
    if (s->kind == JSC_SUB_ROUTE) {
        p->stats.remote_subscriptions--;
    } else {
        p->stats.subscriptions--;
        if (s->told) jsc_interest_change(s, -1);
    }
    s->dead = 1;
    if (!p->depth) {
        jsc_sub_free(s);
        return;
    }
    s->grave = p->dead_subs;
    p->dead_subs = s;
}

static int subscribe(jsc_plane *p, jsc_sub *s, jsc_sub **out) {
    if (!s) return -ENOMEM;
    int rc = jsc_sub_enter(s);
    if (rc) {
        jsc_sub_free(s);
        return rc;
    }
    jsc_own *own = jsc_own_of(s);
    if ((own->next = p->own_subs)) own->next->prev = own;
    p->own_subs = own;
    *out = s;
    return JSC_OK;
}

int jsc_subscribe_call(jsc_plane *p, jsc_account *a, const char *subject, size_t n, const char *queue, size_t qn,
                       int flags, jsc_deliver_fn fn, void *ctx, jsc_sub **out) {
    if (!fn || !jsc_subject_valid(subject, n, 0)) return JSC_EINVAL;
    jsc_sub *s = jsc_sub_new(JSC_SUB_CALL, a, subject, n, queue, queue ? qn : 0, NULL, 0);
    if (s) {
        s->flags = (uint8_t)flags;
        jsc_own_of(s)->fn = fn;
        jsc_own_of(s)->ctx = ctx;
    }
    return subscribe(p, s, out);
}

int jsc_subscribe_host(jsc_plane *p, jsc_account *a, const char *subject, size_t n, const char *queue, size_t qn,
                       int flags, uint64_t tag, jsc_sub **out) {
    if (!jsc_subject_valid(subject, n, 0)) return JSC_EINVAL;
    jsc_sub *s = jsc_sub_new(JSC_SUB_HOST, a, subject, n, queue, queue ? qn : 0, NULL, 0);
    if (s) {
        s->flags = (uint8_t)flags;
        jsc_own_of(s)->tag = tag;
    }
    return subscribe(p, s, out);
}

void jsc_unsubscribe(jsc_plane *p, jsc_sub *s) {
    if (!s || s->dead) return;
    jsc_own *own = jsc_own_of(s);
    if (own->prev) own->prev->next = own->next;
    else p->own_subs = own->next;
    if (own->next) own->next->prev = own->prev;
    jsc_sub_leave(s);
}
