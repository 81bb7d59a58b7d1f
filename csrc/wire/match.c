/* Who gets messages of a subject, remembered. A direct-mapped cache per account holds what the index said for subjects
 * seen twice in a row in their slot, so one-shot subjects cost no memory. A change of a literal subject forgets one slot;
 * a change of a wildcard forgets the matching ones among those with the same first token (all, if that is a wildcard:
 * about 30 ns each). Inboxes have a cache of their own by prefix. */
#include "plane.h"
#include <errno.h>

enum { PAST = 16 }; /* bytes behind a match's text that may be read: small pieces are copied in whole steps */

static int grow(void **v, uint32_t *cap, uint32_t need, size_t size) {
    if (need <= *cap) return 0;
    uint32_t c = *cap ? *cap * 2 : 8;
    while (c < need) c *= 2;
    void *q = realloc(*v, c * size);
    if (!q) return -1;
    *v = q;
    *cap = c;
    return 0;
}

static uint32_t chain_of(const char *s, uint32_t n) {
    const char *dot = memchr(s, '.', n);
    return (uint32_t)jsc_hash(s, dot ? (size_t)(dot - s) : n) % JSC_CHAINS;
}

void jsc_match_free(jsc_match *m) {
    if (!m) return;
    if (!m->cached) {
        free(m->plain);
        free(m->members);
        free(m->groups);
        free(m->hops);
    }
    free(m);
}

/* Takes a cached match out; it is freed now or by its last user. */
static void drop(jsc_account *a, jsc_slot *slot) {
    jsc_match *m = slot->match;
    slot->match = NULL;
    a->slots_used--;
    a->plane->cache_bytes -= m->bytes;
    if ((*m->chain_prev = m->chain_next)) m->chain_next->chain_prev = m->chain_prev;
    if (!m->pins) {
        jsc_match_free(m);
        return;
    }
    m->gone = 1;
}

static void drop_prefix(jsc_prefix *x) {
    free(x->text);
    memset(x, 0, sizeof *x);
}

void jsc_match_clear(jsc_account *a) {
    for (uint32_t i = 0; i < a->slots_n; i++)
        if (a->slots[i].match) drop(a, &a->slots[i]);
    for (uint32_t i = 0; a->prefixes && i < JSC_PREFIXES; i++) drop_prefix(&a->prefixes[i]);
}

static const char *last_dot(const char *s, uint32_t n) { return memrchr(s, '.', n); }

static void forget_prefix(jsc_account *a, const char *s, uint32_t n, int wild) {
    if (!a->prefixes) return;
    const char *dot = memchr(s, '.', n);
    uint32_t first = dot ? (uint32_t)(dot - s) : n;
    if (!(first == 1 && (*s == '*' || *s == '>')) && (first != 6 || memcmp(s, "_INBOX", 6))) return;
    dot = last_dot(s, n);
    if (dot && s[n - 1] != '>' && (!wild || !jsc_index_has_wildcard(s, (size_t)(dot - s)))) {
        drop_prefix(&a->prefixes[jsc_hash(s, (size_t)(dot - s)) % JSC_PREFIXES]);
        return;
    }
    for (uint32_t i = 0; i < JSC_PREFIXES; i++)
        if (a->prefixes[i].sub) drop_prefix(&a->prefixes[i]);
}

void jsc_match_forget(jsc_account *a, const char *s, uint32_t n) {
    int wild = jsc_index_has_wildcard(s, n);
    jsc_plane *p = a->plane;
    forget_prefix(a, s, n, wild);
    if (!a->slots_used) return;
    if (!wild) {
        jsc_slot *slot = &a->slots[jsc_hash(s, n) & (a->slots_n - 1)];
        if (slot->match && slot->match->subject_len == n && !memcmp(slot->match->subject, s, n)) drop(a, slot);
        return;
    }
    if (p->forget_at != p->mono) {
        p->forget_at = p->mono;
        p->forget_spent = 0;
    }
    const char *dot = memchr(s, '.', n);
    int any = (dot ? dot - s : (long)n) == 1 && (*s == '*' || *s == '>');
    uint32_t lo = any ? 0 : chain_of(s, n), hi = any ? JSC_CHAINS : lo + 1;
    for (; lo < hi; lo++)
        for (jsc_match *m = a->chains[lo], *next; m; m = next) {
            next = m->chain_next;
            /* Out of budget: forgetting what was not asked for costs a look-up later; comparing costs now, every time. */
            if (++p->forget_spent > JSC_FORGET_BUDGET || jsc_subject_matches(s, n, m->subject, m->subject_len))
                drop(a, &a->slots[m->hash & (a->slots_n - 1)]);
        }
}

static int by_queue(const void *x, const void *y) {
    const jsc_sub *a = ((const jsc_target *)x)->sub, *b = ((const jsc_target *)y)->sub;
    if (a->queue_len != b->queue_len) return a->queue_len < b->queue_len ? -1 : 1;
    int c = memcmp(jsc_sub_queue(a), jsc_sub_queue(b), a->queue_len);
    return c ? c : (a->kind == JSC_SUB_ROUTE) - (b->kind == JSC_SUB_ROUTE);
}

static int same_queue(const jsc_sub *a, const jsc_sub *b) {
    return a->queue_len == b->queue_len && !memcmp(jsc_sub_queue(a), jsc_sub_queue(b), a->queue_len);
}

static int add_hop(jsc_match *m, jsc_conn *c, int plain) {
    for (uint32_t i = 0; i < m->n_hops; i++)
        if (m->hops[i].conn == c) {
            m->hops[i].plain |= (uint8_t)plain;
            return 0;
        }
    if (grow((void **)&m->hops, &m->hops_cap, m->n_hops + 1, sizeof *m->hops)) return -1;
    m->hops[m->n_hops++] = (jsc_hop){c, (uint8_t)plain};
    return 0;
}

/* Of those that a subject reaches; a peer that may not have it is left out. */
static int classify(jsc_match *m, jsc_sub *const *v, uint32_t n, const char *subject, uint32_t len) {
    m->n_plain = m->n_members = m->n_groups = m->n_hops = 0;
    if (grow((void **)&m->plain, &m->plain_cap, n, sizeof *m->plain)) return -1;
    for (uint32_t i = 0; i < n; i++) {
        jsc_sub *s = v[i];
        if (JSC_UNLIKELY(s->flags & JSC_SUB_PARTLY) && s->kind == JSC_SUB_ROUTE &&
            (s->conn->closing || !jsc_may_deliver(s, subject, len)))
            continue;
        if (s->queue_len) {
            if (grow((void **)&m->members, &m->members_cap, m->n_members + 1, sizeof *m->members)) return -1;
            m->members[m->n_members++] = (jsc_target){s, 0, 0};
        } else if (s->kind != JSC_SUB_ROUTE) {
            m->plain[m->n_plain++] = (jsc_target){s, 0, 0};
        }
        if (s->kind == JSC_SUB_ROUTE && add_hop(m, s->conn, !s->queue_len)) return -1;
    }
    if (m->n_members > 1) {
        qsort(m->members, m->n_members, sizeof *m->members, by_queue);
        m->members->sub->account->plane->work += 2 * (uint64_t)m->n_members;
    }
    for (uint32_t i = 0; i < m->n_members; i++) {
        jsc_sub *s = m->members[i].sub;
        if (!i || !same_queue(s, m->members[i - 1].sub)) {
            if (grow((void **)&m->groups, &m->groups_cap, m->n_groups + 1, sizeof *m->groups)) return -1;
            m->groups[m->n_groups++] = (jsc_group){i, 0, 0, 0};
        }
        jsc_group *g = &m->groups[m->n_groups - 1];
        if (s->kind == JSC_SUB_ROUTE) {
            g->remotes++;
            g->weight += s->weight;
        } else {
            g->locals++;
        }
    }
    return 0;
}

static jsc_match *scratch(jsc_plane *p) {
    jsc_match **m = &p->scratch[p->depth];
    if (!*m) *m = calloc(1, sizeof **m);
    return *m;
}

static int prefix_worthy(const char *s, uint32_t n) { return n > 8 && !memcmp(s, "_INBOX.", 7); }

static size_t prefix_bytes(const jsc_target *t, uint32_t n, uint32_t subject) {
    size_t b = 0;
    for (uint32_t i = 0; i < n; i++)
        if (t[i].sub->kind == JSC_SUB_CLIENT) b += 7 + subject + t[i].sub->sid_len;
    return b;
}

static uint32_t render(jsc_match *m, jsc_target *to, const jsc_target *from, uint32_t n, uint32_t at, int on) {
    for (uint32_t i = 0; i < n; i++) {
        jsc_sub *s = from[i].sub;
        to[i] = (jsc_target){s, 0, 0};
        if (!on || s->kind != JSC_SUB_CLIENT) continue;
        char *q = jsc_copy(m->text + at, "HMSG ", 5);
        q = jsc_copy(q, m->subject, m->subject_len);
        *q++ = ' ';
        q = jsc_copy(q, jsc_sub_sid(s), s->sid_len);
        *q++ = ' ';
        to[i].off = at;
        to[i].len = (uint32_t)(q - m->text) - at;
        at += to[i].len;
    }
    return at;
}

/* A copy of a scratch match as one block, with the line starts of its clients rendered (not for huge fan-outs). */
static jsc_match *keep(const jsc_match *m, const char *subject, uint32_t n, uint64_t hash) {
    int on = m->n_plain + m->n_members <= 256;
    size_t text = on ? prefix_bytes(m->plain, m->n_plain, n) + prefix_bytes(m->members, m->n_members, n) : 0;
    size_t groups = sizeof *m, plain = groups + m->n_groups * sizeof *m->groups,
           members = plain + m->n_plain * sizeof *m->plain, hops = members + m->n_members * sizeof *m->members,
           chars = hops + m->n_hops * sizeof *m->hops, all = chars + n + text + PAST;
    char *b = malloc(all);
    if (!b) return NULL;
    jsc_match *k = (jsc_match *)b;
    *k = *m;
    k->cached = 1;
    k->pins = 0;
    k->gone = 0;
    k->simple = on && !m->n_groups && !m->n_hops;
    k->bytes = all;
    k->hash = hash;
    k->groups = (jsc_group *)(b + groups);
    k->plain = (jsc_target *)(b + plain);
    k->members = (jsc_target *)(b + members);
    k->hops = (jsc_hop *)(b + hops);
    k->subject = b + chars;
    k->subject_len = n;
    k->text = b + chars + n;
    memcpy(k->subject, subject, n);
    if (m->n_groups) memcpy(k->groups, m->groups, m->n_groups * sizeof *m->groups);
    if (m->n_hops) memcpy(k->hops, m->hops, m->n_hops * sizeof *m->hops);
    uint32_t at = render(k, k->plain, m->plain, m->n_plain, 0, on);
    render(k, k->members, m->members, m->n_members, at, on);
    for (uint32_t i = 0; i < k->n_plain; i++) k->simple &= k->plain[i].sub->kind == JSC_SUB_CLIENT;
    return k;
}

static int resize(jsc_account *a, uint32_t n) {
    jsc_slot *v = calloc(n, sizeof *v);
    if (!v) return -1;
    jsc_slot *old = a->slots;
    uint32_t old_n = a->slots_n;
    a->slots = v;
    a->slots_n = n;
    for (uint32_t i = 0; i < old_n; i++) /* growing by powers of two: no two old slots meet */
        if (old[i].match) v[old[i].match->hash & (n - 1)].match = old[i].match;
    free(old);
    return 0;
}

static jsc_match *store(jsc_account *a, const jsc_match *m, const char *s, uint32_t n, uint64_t hash) {
    if (a->plane->cache_bytes > JSC_CACHE_BYTES) /* whoever filled it: else this one would never find anything again */
        for (jsc_account *x = a->plane->all_accounts; x; x = x->next)
            if (x->slots_used) jsc_match_clear(x);
    if (a->slots_used * 4 > a->slots_n * 3 && a->slots_n < JSC_SLOTS_MAX && resize(a, a->slots_n * 4)) return NULL;
    jsc_slot *slot = &a->slots[hash & (a->slots_n - 1)];
    jsc_match *k = keep(m, s, n, hash);
    if (!k) return NULL;
    if (slot->match) drop(a, slot);
    slot->match = k;
    slot->missed = 0;
    a->slots_used++;
    a->plane->cache_bytes += k->bytes;
    jsc_match **head = &a->chains[chain_of(s, n)];
    if ((k->chain_next = *head)) k->chain_next->chain_prev = &k->chain_next;
    k->chain_prev = head;
    *head = k;
    return k;
}

static jsc_match *enter(jsc_plane *p, jsc_match *m) {
    m->pins++;
    p->depth++;
    return m;
}

static inline int is_prefix(const jsc_prefix *x, const char *s, uint32_t len) {
    return x->sub && x->len == len && !memcmp(x->text, s, len);
}

jsc_sub *jsc_match_inbox(jsc_account *a, const char *s, uint32_t n) {
    if (!a->prefixes || !prefix_worthy(s, n) || s[n - 1] == '.') return NULL;
    const jsc_prefix *x = &a->prefixes[a->prefix_hint];
    uint32_t len = (uint32_t)(last_dot(s, n) - s);
    if (!is_prefix(x, s, len)) {
        uint32_t at = (uint32_t)jsc_hash(s, len) % JSC_PREFIXES;
        x = &a->prefixes[at];
        if (!is_prefix(x, s, len)) return NULL;
        a->prefix_hint = at;
    }
    return x->sub;
}

static jsc_match *by_prefix(jsc_account *a, const char *s, uint32_t n) {
    jsc_plane *p = a->plane;
    const char *dot = last_dot(s, n);
    uint32_t len = (uint32_t)(dot - s);
    if (!a->prefixes && !(a->prefixes = calloc(JSC_PREFIXES, sizeof *a->prefixes))) return NULL;
    jsc_prefix *x = &a->prefixes[jsc_hash(s, len) % JSC_PREFIXES];
    jsc_match *m = scratch(p);
    if (!m) return NULL;
    if (dot + 1 < s + n && is_prefix(x, s, len)) return classify(m, &x->sub, 1, s, n) ? NULL : enter(p, m);
    if (jsc_index_find(a, s, n) || classify(m, p->found.v, p->found.n, s, n)) return NULL;
    if (p->found.n == 1 && !p->found.v[0]->queue_len && jsc_index_lone(a, s, len)) {
        char *t = malloc(len);
        if (t) {
            drop_prefix(x);
            memcpy(t, s, len);
            *x = (jsc_prefix){p->found.v[0], t, len};
        }
    }
    return enter(p, m);
}

jsc_match *jsc_match_get(jsc_account *a, jsc_conn *hint, const char *s, uint32_t n) {
    jsc_plane *p = a->plane;
    if (p->depth >= JSC_DEPTH) return NULL;
    if (hint && hint->hint < a->slots_n) {
        jsc_match *m = a->slots[hint->hint].match;
        if (m && m->subject_len == n && !memcmp(m->subject, s, n)) return enter(p, m);
    }
    a->matches++;
    if (prefix_worthy(s, n)) return by_prefix(a, s, n);
    uint64_t h = jsc_hash(s, n);
    if (!a->slots && resize(a, JSC_SLOTS_MIN)) return NULL;
    uint32_t at = (uint32_t)h & (a->slots_n - 1);
    jsc_slot *slot = &a->slots[at];
    if (slot->match && slot->match->hash == h && slot->match->subject_len == n && !memcmp(slot->match->subject, s, n)) {
        if (hint) hint->hint = at;
        a->cache_hits++;
        return enter(p, slot->match);
    }
    jsc_match *m = scratch(p);
    if (!m || jsc_index_find(a, s, n) || classify(m, p->found.v, p->found.n, s, n)) return NULL;
    if (slot->missed != h) {
        slot->missed = h;
        return enter(p, m);
    }
    jsc_match *k = store(a, m, s, n, h);
    return enter(p, k ? k : m);
}

void jsc_plane_bury(jsc_plane *p) {
    while (p->dead_subs) {
        jsc_sub *s = p->dead_subs;
        p->dead_subs = s->grave;
        jsc_sub_free(s);
    }
}

void jsc_match_put(jsc_plane *p, jsc_match *m) {
    if (!--m->pins && m->gone) jsc_match_free(m);
    if (!--p->depth && p->dead_subs) jsc_plane_bury(p);
}
