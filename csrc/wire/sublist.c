/* The subject index of an account: a trie by token, hashed children, one child for `*`, a list for `>`. */
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

static jsc_node *find_kid(const jsc_node *n, const char *t, uint32_t len, uint64_t h) {
    if (!n->kids_n) return NULL;
    uint32_t mask = n->kids_cap - 1;
    for (uint32_t i = (uint32_t)h & mask; n->kids[i]; i = (i + 1) & mask) {
        jsc_node *k = n->kids[i];
        if (k->hash == h && k->len == len && !memcmp(k->token, t, len)) return k;
    }
    return NULL;
}

static int resize_kids(jsc_node *n, uint32_t cap) {
    jsc_node **v = calloc(cap, sizeof *v);
    if (!v) return -1;
    for (uint32_t i = 0; i < n->kids_cap; i++) {
        if (!n->kids[i]) continue;
        uint32_t j = (uint32_t)n->kids[i]->hash & (cap - 1);
        while (v[j]) j = (j + 1) & (cap - 1);
        v[j] = n->kids[i];
    }
    free(n->kids);
    n->kids = v;
    n->kids_cap = cap;
    return 0;
}

static int add_kid(jsc_node *n, jsc_node *k) {
    if ((n->kids_n + 1) * 4 > n->kids_cap * 3 && resize_kids(n, n->kids_cap ? n->kids_cap * 2 : 2)) return -1;
    uint32_t j = (uint32_t)k->hash & (n->kids_cap - 1);
    while (n->kids[j]) j = (j + 1) & (n->kids_cap - 1);
    n->kids[j] = k;
    n->kids_n++;
    return 0;
}

static void shrink_kids(jsc_node *n) {
    if (n->kids_cap > 64 && n->kids_n * 8 <= n->kids_cap) resize_kids(n, n->kids_cap / 4); /* or it stays */
}

static void drop_kid(jsc_node *n, const jsc_node *k) {
    uint32_t mask = n->kids_cap - 1, i = (uint32_t)k->hash & mask;
    while (n->kids[i] != k) i = (i + 1) & mask;
    n->kids[i] = NULL;
    n->kids_n--;
    for (uint32_t j = (i + 1) & mask; n->kids[j]; j = (j + 1) & mask) { /* close the gap in the probe sequence */
        uint32_t home = (uint32_t)n->kids[j]->hash & mask;
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

static void prune(jsc_node *n) {
    while (n->parent && !n->kids_n && !n->star && !n->here.n && !n->tail.n) {
        jsc_node *up = n->parent;
        if (n->is_star) up->star = NULL;
        else drop_kid(up, n);
        free(n->kids);
        free(n->here.v);
        free(n->tail.v);
        free(n);
        n = up;
    }
}

int jsc_index_add(jsc_account *a, jsc_sub *s) {
    if (!a->root && !(a->root = new_node(NULL, "", 0, 0))) return -ENOMEM;
    jsc_node *n = a->root;
    const char *p = s->subject, *end = p + s->subject_len;
    for (;;) {
        const char *dot = memchr(p, '.', (size_t)(end - p));
        uint32_t len = (uint32_t)((dot ? dot : end) - p);
        if (len == 1 && *p == '>') {
            if (jsc_list_push(&n->tail, s)) break;
            s->node = n;
            s->pos = n->tail.n - 1;
            return 0;
        }
        jsc_node *k;
        if (len == 1 && *p == '*') {
            if (!n->star && (n->star = new_node(n, "*", 1, 0))) n->star->is_star = 1;
            k = n->star;
        } else {
            uint64_t h = jsc_hash(p, len);
            k = find_kid(n, p, len, h);
            if (!k && (k = new_node(n, p, len, h)) && add_kid(n, k)) {
                free(k);
                k = NULL;
            }
        }
        if (!k) break;
        n = k;
        if (!dot) {
            if (jsc_list_push(&n->here, s)) break;
            s->node = n;
            s->pos = n->here.n - 1;
            return 0;
        }
        p = dot + 1;
    }
    prune(n);
    return -ENOMEM;
}

void jsc_index_remove(jsc_sub *s) {
    jsc_node *n = s->node;
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
    prune(n);
}

static int take(jsc_sublist *to, const jsc_sublist *l) {
    for (uint32_t i = 0; i < l->n; i++)
        if (jsc_list_push(to, l->v[i])) return -1;
    return 0;
}

/* Recurses only where a literal and a `*` child both match: as deep as the index, not as the subject is long. */
static int walk(jsc_sublist *out, const jsc_node *n, const char *p, const char *end) {
    for (;;) {
        if (n->tail.n && take(out, &n->tail)) return -1;
        if (!n->kids_n && !n->star) return 0;
        const char *dot = memchr(p, '.', (size_t)(end - p)), *te = dot ? dot : end;
        uint32_t len = (uint32_t)(te - p);
        const jsc_node *lit = n->kids_n ? find_kid(n, p, len, jsc_hash(p, len)) : NULL, *star = n->star;
        if (!dot) return (lit && take(out, &lit->here)) || (star && take(out, &star->here)) ? -1 : 0;
        p = dot + 1;
        if (lit && star && walk(out, star, p, end)) return -1;
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
    jsc_sublist *out = &a->plane->found;
    out->n = 0;
    if (!a->root || !jsc_subject_routable(s, n)) return 0;
    return walk(out, a->root, s, s + n);
}

static int lone(const jsc_node *n, const char *p, const char *end) {
    for (;;) {
        if (p > end) return !n->kids_n;
        const char *dot = memchr(p, '.', (size_t)(end - p)), *te = dot ? dot : end;
        uint32_t len = (uint32_t)(te - p);
        const jsc_node *lit = find_kid(n, p, len, jsc_hash(p, len)), *star = n->star;
        p = te + 1;
        if (lit && star && !lone(star, p, end)) return 0;
        n = lit ? lit : star;
        if (!n) return 1;
    }
}

int jsc_index_lone(jsc_account *a, const char *prefix, uint32_t n) {
    return !a->root || lone(a->root, prefix, prefix + n);
}
