/* The subject index of an account: a trie by token, hashed children, one child for `*`, a list for `>`. Where only one
 * subscription lies below a token it stands there itself: most of a million device.17.state cost a slot and no node. */
#include "plane.h"
#include <errno.h>

int jsc_list_push(jsc_sublist *l, jsc_sub *s) {
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 1;
        jsc_sub **v = realloc(l->v, cap * sizeof *v);
        if (!v) return -1;
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = s;
    return 0;
}

/* ---- children: nodes and lone subscriptions ---- */
static int is_lone(const void *kid) { return (int)((uintptr_t)kid & 1); }
static jsc_sub *lone_of(const void *kid) { return (jsc_sub *)((uintptr_t)kid - 1); }
static void *as_kid(jsc_sub *s) { return (void *)((uintptr_t)s + 1); }

/* The token of a subject that begins at `at`. */
static jsc_token token_at(const char *s, uint32_t n, uint32_t at) {
    const char *dot = memchr(s + at, '.', n - at);
    return (jsc_token){s + at, (uint32_t)(dot ? dot - (s + at) : (long)(n - at))};
}

static jsc_token lone_token(const jsc_sub *s) { return token_at(s->subject, s->subject_len, s->pos); }

static uint32_t kid_hash(const void *kid) {
    if (!is_lone(kid)) return (uint32_t)((const jsc_node *)kid)->hash;
    jsc_token t = lone_token(lone_of(kid));
    return (uint32_t)jsc_hash(t.p, t.n);
}

static int is_kid(const void *kid, const char *t, uint32_t len, uint64_t h) {
    if (!is_lone(kid)) {
        const jsc_node *k = kid;
        return k->hash == h && k->len == len && !memcmp(k->token, t, len);
    }
    const jsc_sub *s = lone_of(kid);
    uint32_t end = s->pos + len;
    return end <= s->subject_len && (end == s->subject_len || s->subject[end] == '.') &&
           !memcmp(s->subject + s->pos, t, len);
}

static void **find_slot(const jsc_node *n, const char *t, uint32_t len, uint64_t h) {
    if (!n->kids_n) return NULL;
    uint32_t mask = n->kids_cap - 1;
    for (uint32_t i = (uint32_t)h & mask; n->kids[i]; i = (i + 1) & mask)
        if (is_kid(n->kids[i], t, len, h)) return &n->kids[i];
    return NULL;
}

static int resize_kids(jsc_node *n, uint32_t cap) {
    void **v = calloc(cap, sizeof *v);
    if (!v) return -1;
    for (uint32_t i = 0; i < n->kids_cap; i++) {
        if (!n->kids[i]) continue;
        uint32_t j = kid_hash(n->kids[i]) & (cap - 1);
        while (v[j]) j = (j + 1) & (cap - 1);
        v[j] = n->kids[i];
    }
    free(n->kids);
    n->kids = v;
    n->kids_cap = cap;
    return 0;
}

static int add_kid(jsc_node *n, void *kid, uint64_t h) {
    if ((n->kids_n + 1) * 4 > n->kids_cap * 3 && resize_kids(n, n->kids_cap ? n->kids_cap * 2 : 2)) return -1;
    uint32_t j = (uint32_t)h & (n->kids_cap - 1);
    while (n->kids[j]) j = (j + 1) & (n->kids_cap - 1);
    n->kids[j] = kid;
    n->kids_n++;
    return 0;
}

static void shrink_kids(jsc_node *n) {
    if (n->kids_cap > 64 && n->kids_n * 8 <= n->kids_cap) resize_kids(n, n->kids_cap / 4); /* or it stays */
}

static void drop_kid(jsc_node *n, const void *kid) {
    uint32_t mask = n->kids_cap - 1, i = kid_hash(kid) & mask;
    while (n->kids[i] != kid) i = (i + 1) & mask;
    n->kids[i] = NULL;
    n->kids_n--;
    for (uint32_t j = (i + 1) & mask; n->kids[j]; j = (j + 1) & mask) { /* close the gap in the probe sequence */
        uint32_t home = kid_hash(n->kids[j]) & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            n->kids[i] = n->kids[j];
            n->kids[j] = NULL;
            i = j;
        }
    }
    shrink_kids(n);
}

static jsc_node *new_node(jsc_node *parent, const char *t, uint32_t len, uint64_t h) {
    jsc_node *n = calloc(1, sizeof *n + len);
    if (!n) return NULL;
    n->parent = parent;
    n->hash = h;
    n->len = len;
    memcpy(n->token, t, len);
    return n;
}

static void prune(jsc_plane *p, jsc_node *n) {
    while (n->parent && !n->kids_n && !n->star && !n->here.n && !n->tail.n) {
        jsc_node *up = n->parent;
        p->work++;
        if (n->is_star) up->star = NULL;
        else drop_kid(up, n);
        free(n->kids);
        free(n->here.v);
        free(n->tail.v);
        free(n);
        n = up;
    }
}

static int list_sub(jsc_node *n, jsc_sublist *l, jsc_sub *s) {
    if (jsc_list_push(l, s)) return -1;
    s->node = n;
    s->pos = l->n - 1;
    s->flags &= (uint8_t)~JSC_SUB_LONE;
    return 0;
}

static int put(jsc_node *n, jsc_sub *s, uint32_t at);

/* A node for the token that a lone subscription had for itself. NULL: no memory, and nothing changed. */
static jsc_node *expand(jsc_node *parent, void **slot, uint64_t h) {
    jsc_sub *s = lone_of(*slot);
    jsc_token t = lone_token(s);
    jsc_node *n = new_node(NULL, t.p, t.n, h); /* without a parent: giving up must not prune beyond it */
    if (!n) return NULL;
    if (put(n, s, s->pos + t.n + 1)) {
        free(n->kids);
        free(n);
        return NULL;
    }
    n->parent = parent;
    *slot = n;
    return n;
}

/* Below n, by the tokens of its subject from `at` on; beyond its end: at n itself. */
static int put(jsc_node *n, jsc_sub *s, uint32_t at) {
    while (at <= s->subject_len) {
        s->account->plane->work++;
        jsc_token t = token_at(s->subject, s->subject_len, at);
        jsc_node *k;
        if (t.n == 1 && *t.p == '>') {
            if (!list_sub(n, &n->tail, s)) return 0;
            break;
        }
        if (t.n == 1 && *t.p == '*') {
            if (!n->star && (n->star = new_node(n, "*", 1, 0))) n->star->is_star = 1;
            k = n->star;
        } else {
            uint64_t h = jsc_hash(t.p, t.n);
            void **slot = find_slot(n, t.p, t.n, h);
            if (!slot) {
                if (add_kid(n, as_kid(s), h)) break;
                s->node = n;
                s->pos = at;
                s->flags |= JSC_SUB_LONE;
                return 0;
            }
            k = is_lone(*slot) ? expand(n, slot, h) : *slot;
        }
        if (!k) break;
        n = k;
        at += t.n + 1;
    }
    if (at > s->subject_len && !list_sub(n, &n->here, s)) return 0;
    prune(s->account->plane, n);
    return -ENOMEM;
}

int jsc_index_add(jsc_account *a, jsc_sub *s) {
    if (!a->root && !(a->root = new_node(NULL, "", 0, 0))) return -ENOMEM;
    return put(a->root, s, 0);
}

void jsc_index_remove(jsc_sub *s) {
    jsc_node *n = s->node;
    if (s->flags & JSC_SUB_LONE) {
        drop_kid(n, as_kid(s));
        s->node = NULL;
        prune(s->account->plane, n);
        return;
    }
    int tail = s->subject[s->subject_len - 1] == '>' && (s->subject_len == 1 || s->subject[s->subject_len - 2] == '.');
    jsc_sublist *l = tail ? &n->tail : &n->here;
    l->v[s->pos] = l->v[--l->n];
    l->v[s->pos]->pos = s->pos;
    if (!l->n) {
        free(l->v);
        memset(l, 0, sizeof *l);
    } else if (l->cap > 16 && l->n * 4 < l->cap) {
        jsc_sub **v = realloc(l->v, l->cap / 2 * sizeof *v);
        if (v) {
            l->v = v;
            l->cap /= 2;
        }
    }
    s->node = NULL;
    prune(s->account->plane, n);
}

static int take(jsc_sublist *to, const jsc_sublist *l) {
    for (uint32_t i = 0; i < l->n; i++)
        if (jsc_list_push(to, l->v[i])) return -1;
    return 0;
}

/* A lone subscription whose token is there: whether the rest of its subject matches what follows, NULL: nothing does. */
static int take_lone(jsc_sublist *to, jsc_sub *s, uint32_t len, const char *rest, const char *end) {
    uint32_t at = s->pos + len + 1;
    if (rest ? at <= s->subject_len &&
                   jsc_subject_matches(s->subject + at, s->subject_len - at, rest, (size_t)(end - rest))
             : at > s->subject_len)
        return jsc_list_push(to, s);
    return 0;
}

/* Recurses only where a literal and a `*` child both match: as deep as the index, not as the subject is long. */
static int walk(jsc_plane *plane, const jsc_node *n, const char *p, const char *end) {
    jsc_sublist *out = &plane->found;
    for (;;) {
        plane->work++; /* clients make the index: where many such children stand, a message is dear */
        if (n->tail.n && take(out, &n->tail)) return -1;
        if (!n->kids_n && !n->star) return 0;
        const char *dot = memchr(p, '.', (size_t)(end - p)), *te = dot ? dot : end;
        uint32_t len = (uint32_t)(te - p);
        void **slot = n->kids_n ? find_slot(n, p, len, jsc_hash(p, len)) : NULL;
        const jsc_node *lit = NULL, *star = n->star;
        p = dot ? dot + 1 : NULL;
        if (slot && is_lone(*slot)) {
            if (take_lone(out, lone_of(*slot), len, p, end)) return -1;
        } else if (slot) {
            lit = *slot;
        }
        if (!dot) return (lit && take(out, &lit->here)) || (star && take(out, &star->here)) ? -1 : 0;
        if (lit && star && walk(plane, star, p, end)) return -1;
        n = lit ? lit : star;
        if (!n) return 0;
    }
}

int jsc_subject_routable(const char *s, size_t n) {
    if (!n || s[0] == '.' || s[n - 1] == '.') return 0;
    for (const char *p = s; (p = memchr(p, '.', (size_t)(s + n - p))); p++)
        if (p[1] == '.') return 0;
    return 1;
}

int jsc_index_find(jsc_account *a, const char *s, uint32_t n) {
    jsc_plane *p = a->plane;
    p->found.n = 0;
    if (!a->root || !jsc_subject_routable(s, n)) return 0;
    if (walk(p, a->root, s, s + n)) return -1;
    p->work += p->found.n;
    return 0;
}

/* Whether what follows the tokens of a prefix in a lone subscription's subject is no literal one, or they differ. */
static int lone_sub(const jsc_sub *s, uint32_t len, const char *p, const char *end) {
    uint32_t at = s->pos + len + 1;
    for (;; at++) {
        if (at > s->subject_len) return 1;
        jsc_token t = token_at(s->subject, s->subject_len, at);
        int any = t.n == 1 && *t.p == '*';
        if (t.n == 1 && *t.p == '>') return 1;
        if (p > end) return any;
        const char *dot = memchr(p, '.', (size_t)(end - p)), *te = dot ? dot : end;
        if (!any && (t.n != (uint32_t)(te - p) || memcmp(t.p, p, t.n) != 0)) return 1;
        p = te + 1;
        at += t.n;
    }
}

static int lone(jsc_plane *plane, const jsc_node *n, const char *p, const char *end) {
    for (;;) {
        plane->work++;
        if (p > end) return !n->kids_n;
        const char *dot = memchr(p, '.', (size_t)(end - p)), *te = dot ? dot : end;
        uint32_t len = (uint32_t)(te - p);
        void **slot = find_slot(n, p, len, jsc_hash(p, len));
        const jsc_node *lit = slot && !is_lone(*slot) ? *slot : NULL, *star = n->star;
        p = te + 1;
        if (slot && !lit && !lone_sub(lone_of(*slot), len, p, end)) return 0;
        if (lit && star && !lone(plane, star, p, end)) return 0;
        n = lit ? lit : star;
        if (!n) return 1;
    }
}

int jsc_index_lone(jsc_account *a, const char *prefix, uint32_t n) {
    return !a->root || lone(a->plane, a->root, prefix, prefix + n);
}
