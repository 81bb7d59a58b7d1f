/* What a user may publish and subscribe to, compiled: literal subjects by hash, patterns by their first token, and the
 * verdicts on the subjects asked for last. All connections of a user share one table; who has none is never asked. */
#include "plane.h"
#include <errno.h>

enum {
    HEADS = 32,           /* chains of patterns by first token; one more for those that begin with a wildcard */
    CACHE_MIN = 16,
    CACHE_MAX = 1024,
    CACHE_TEXT = 256,     /* longer subjects are judged anew each time */
    REPLIES_MAX = 65536,  /* subjects one connection may still answer to; above it the oldest go */
    REPLIES_BYTES = 8 << 20,
};

typedef struct entry {
    uint64_t hash;
    uint32_t subject_len, queue_len, next;
    const char *subject, *queue;
} entry;

typedef struct list {
    entry *v;
    uint32_t n, cap, literal_cap, queues; /* queues: entries that name one */
    uint32_t *literals;                   /* open addressing, index + 1 */
    uint32_t heads[HEADS + 1];            /* index + 1 */
} list;

typedef struct verdict {
    uint64_t hash;
    char *text;
    uint32_t len, cap;
    uint8_t publish, deliver; /* 0 not judged, 1 no, 2 yes */
} verdict;

struct jsc_permissions {
    uint32_t refs, cache_n, evicted;
    uint8_t no_publish;
    int32_t max_responses;
    int64_t expires_ns;
    list lists[4];
    verdict *cache, odd;
    char *text;
};

typedef struct reply {
    struct reply *older, *newer;
    uint64_t hash;
    int64_t at;
    uint32_t len;
    int32_t used;
    char text[];
} reply;

struct jsc_replies {
    reply **slots, *oldest, *newest;
    uint32_t n, cap;
    size_t bytes;
};

/* ---- lists ---- */
static uint32_t head_of(const char *s, uint32_t n) {
    const char *dot = memchr(s, '.', n);
    return (uint32_t)jsc_hash(s, dot ? (size_t)(dot - s) : n) % HEADS;
}

static int compile(list *l) {
    l->literal_cap = 4;
    while (l->literal_cap < l->n * 2) l->literal_cap *= 2;
    if (!(l->literals = calloc(l->literal_cap, sizeof *l->literals))) return -ENOMEM;
    for (uint32_t i = 0; i < l->n; i++) {
        entry *e = &l->v[i];
        l->queues += e->queue_len > 0;
        if (jsc_index_has_wildcard(e->subject, e->subject_len)) {
            int any = (*e->subject == '*' || *e->subject == '>') && (e->subject_len == 1 || e->subject[1] == '.');
            uint32_t *head = &l->heads[any ? HEADS : head_of(e->subject, e->subject_len)];
            e->next = *head;
            *head = i + 1;
            continue;
        }
        uint32_t j = (uint32_t)e->hash & (l->literal_cap - 1);
        while (l->literals[j]) j = (j + 1) & (l->literal_cap - 1);
        l->literals[j] = i + 1;
    }
    return 0;
}

typedef struct hits {
    uint32_t plain, queued, fitting; /* entries without a queue, with one, with one that the asked queue fits */
} hits;

static inline void hit(hits *h, const entry *e, const char *queue, uint32_t qn) {
    if (!e->queue_len) {
        h->plain++;
        return;
    }
    h->queued++;
    if (qn && jsc_subject_matches(e->queue, e->queue_len, queue, qn)) h->fitting++;
}

static hits find(const list *l, const char *s, uint32_t n, uint64_t hash, const char *queue, uint32_t qn) {
    hits h = {0, 0, 0};
    if (!l->n) return h;
    uint32_t mask = l->literal_cap - 1;
    for (uint32_t i = (uint32_t)hash & mask; l->literals[i]; i = (i + 1) & mask) {
        const entry *e = &l->v[l->literals[i] - 1];
        if (e->hash == hash && e->subject_len == n && !memcmp(e->subject, s, n)) hit(&h, e, queue, qn);
    }
    uint32_t heads[2] = {l->heads[HEADS], l->heads[head_of(s, n)]};
    for (int k = 0; k < 2; k++)
        for (uint32_t i = heads[k]; i; i = l->v[i - 1].next) {
            const entry *e = &l->v[i - 1];
            if (jsc_subject_matches(e->subject, e->subject_len, s, n)) hit(&h, e, queue, qn);
        }
    return h;
}

/* ---- life ---- */
int jsc_permissions_new(const jsc_permission *v, int n, const jsc_permissions_options *o, jsc_permissions **out) {
    jsc_permissions *p = calloc(1, sizeof *p);
    if (!p) return -ENOMEM;
    p->refs = 1;
    size_t bytes = 1;
    for (int i = 0; i < n; i++) {
        int queues = v[i].list == JSC_SUBSCRIBE_ALLOW || v[i].list == JSC_SUBSCRIBE_DENY;
        if (v[i].list > JSC_SUBSCRIBE_DENY || !jsc_subject_valid(v[i].subject, v[i].subject_len, 0) ||
            (v[i].queue_len && (!queues || !jsc_subject_valid(v[i].queue, v[i].queue_len, 0)))) {
            jsc_permissions_release(p);
            return JSC_EINVAL;
        }
        p->lists[v[i].list].cap++;
        bytes += v[i].subject_len + v[i].queue_len;
    }
    int rc = -ENOMEM;
    if (!(p->text = malloc(bytes))) goto out;
    for (int k = 0; k < 4; k++)
        if (p->lists[k].cap && !(p->lists[k].v = calloc(p->lists[k].cap, sizeof *p->lists[k].v))) goto out;
    char *q = p->text;
    for (int i = 0; i < n; i++) {
        list *l = &p->lists[v[i].list];
        entry *e = &l->v[l->n++];
        *e = (entry){.subject_len = v[i].subject_len, .queue_len = v[i].queue_len, .subject = q};
        q = jsc_copy(q, v[i].subject, v[i].subject_len);
        e->queue = q;
        if (v[i].queue_len) q = jsc_copy(q, v[i].queue, v[i].queue_len);
        e->hash = jsc_hash(e->subject, e->subject_len);
    }
    for (int k = 0; k < 4; k++)
        if (p->lists[k].n && compile(&p->lists[k])) goto out;
    if (o) {
        p->no_publish = o->no_publish;
        p->max_responses = o->max_responses;
        p->expires_ns = o->expires_ns;
    }
    *out = p;
    return JSC_OK;
out:
    jsc_permissions_release(p);
    return rc;
}

jsc_permissions *jsc_permissions_keep(jsc_permissions *p) {
    if (p) p->refs++;
    return p;
}

void jsc_permissions_release(jsc_permissions *p) {
    if (!p || --p->refs) return;
    for (int k = 0; k < 4; k++) {
        free(p->lists[k].v);
        free(p->lists[k].literals);
    }
    for (uint32_t i = 0; i < p->cache_n; i++) free(p->cache[i].text);
    free(p->cache);
    free(p->odd.text);
    free(p->text);
    free(p);
}

int jsc_permissions_track(const jsc_permissions *p) { return p && p->max_responses; }

/* ---- verdicts ---- */
static void enlarge(jsc_permissions *p) {
    uint32_t n = p->cache_n ? p->cache_n * 4 : CACHE_MIN;
    verdict *v = calloc(n, sizeof *v);
    if (!v) return;
    for (uint32_t i = 0; i < p->cache_n; i++) /* growing by powers of two: no two old ones meet */
        if (p->cache[i].text) v[p->cache[i].hash & (n - 1)] = p->cache[i];
    free(p->cache);
    p->cache = v;
    p->cache_n = n;
    p->evicted = 0;
}

static verdict *judge(jsc_conn *c, const char *s, uint32_t n) {
    jsc_permissions *p = c->permissions;
    if (JSC_LIKELY(c->verdict_hint < p->cache_n)) {
        verdict *v = &p->cache[c->verdict_hint];
        if (v->len == n && !memcmp(v->text, s, n)) return v;
    }
    uint64_t h = jsc_hash(s, n);
    if (!p->cache_n || (p->evicted > p->cache_n && p->cache_n < CACHE_MAX)) enlarge(p);
    verdict *v = p->cache_n && n <= CACHE_TEXT ? &p->cache[h & (p->cache_n - 1)] : &p->odd;
    if (v != &p->odd) {
        c->verdict_hint = (uint32_t)(v - p->cache);
        if (v->hash == h && v->len == n && !memcmp(v->text, s, n)) return v;
        if (v->cap < n) {
            char *t = realloc(v->text, n);
            if (t) {
                v->text = t;
                v->cap = n;
            }
        }
        if (v->cap < n) {
            v = &p->odd;
        } else {
            p->evicted += v->len > 0;
            memcpy(v->text, s, n);
            v->len = n;
        }
    }
    v->hash = h;
    v->publish = v->deliver = 0;
    return v;
}

static int listed(jsc_conn *c, const char *s, uint32_t n) {
    const jsc_permissions *p = c->permissions;
    verdict *v = judge(c, s, n);
    if (JSC_UNLIKELY(!v->publish)) {
        const list *allow = &p->lists[JSC_PUBLISH_ALLOW], *deny = &p->lists[JSC_PUBLISH_DENY];
        int gap = !jsc_subject_routable(s, n), yes = !p->no_publish;
        if (allow->n) yes = !gap && find(allow, s, n, v->hash, NULL, 0).plain;
        if (yes && deny->n && !gap && find(deny, s, n, v->hash, NULL, 0).plain) yes = 0;
        v->publish = (uint8_t)(1 + yes);
    }
    return v->publish == 2;
}

int jsc_may_deliver(const jsc_sub *s, const char *subject, uint32_t n) {
    jsc_conn *c = s->conn;
    const list *deny = &c->permissions->lists[JSC_SUBSCRIBE_DENY];
    verdict *v = judge(c, subject, n);
    if (JSC_UNLIKELY(!v->deliver)) v->deliver = (uint8_t)(1 + !find(deny, subject, n, v->hash, NULL, 0).plain);
    if (v->deliver == 1) return 0;
    return !s->queue_len || !deny->queues || !find(deny, subject, n, v->hash, jsc_sub_queue(s), s->queue_len).fitting;
}

int jsc_may_subscribe(const jsc_permissions *p, const char *s, uint32_t n, const char *queue, uint32_t qn) {
    const list *allow = &p->lists[JSC_SUBSCRIBE_ALLOW], *deny = &p->lists[JSC_SUBSCRIBE_DENY];
    uint64_t h = jsc_hash(s, n);
    int gap = !jsc_subject_routable(s, n); /* no pattern covers it */
    if (allow->n) {
        hits a = gap ? (hits){0, 0, 0} : find(allow, s, n, h, queue, qn);
        if (!(qn && a.queued ? a.fitting : a.plain)) return 0;
    }
    if (!deny->n || gap) return 1;
    hits d = find(deny, s, n, h, queue, qn);
    if (d.plain || d.fitting) return 0;
    if (!jsc_index_has_wildcard(s, n)) return 1;
    for (uint32_t i = 0; i < deny->n; i++)
        if (jsc_subject_overlap(deny->v[i].subject, deny->v[i].subject_len, s, n)) return JSC_MAY_PARTLY;
    return 1;
}

/* ---- leave to answer ---- */
static uint32_t reply_slot(const struct jsc_replies *r, const char *s, uint32_t n, uint64_t h) {
    uint32_t mask = r->cap - 1, i = (uint32_t)h & mask;
    while (r->slots[i] && !(r->slots[i]->hash == h && r->slots[i]->len == n && !memcmp(r->slots[i]->text, s, n)))
        i = (i + 1) & mask;
    return i;
}

static void reply_unlink(struct jsc_replies *r, reply *e) {
    *(e->older ? &e->older->newer : &r->oldest) = e->newer;
    *(e->newer ? &e->newer->older : &r->newest) = e->older;
}

static void reply_link(struct jsc_replies *r, reply *e) {
    e->newer = NULL;
    e->older = r->newest;
    *(r->newest ? &r->newest->newer : &r->oldest) = e;
    r->newest = e;
}

static void reply_drop(struct jsc_replies *r, reply *e) {
    uint32_t mask = r->cap - 1, i = reply_slot(r, e->text, e->len, e->hash);
    r->slots[i] = NULL;
    for (uint32_t j = (i + 1) & mask; r->slots[j]; j = (j + 1) & mask) { /* close the gap in the probe sequence */
        uint32_t home = (uint32_t)r->slots[j]->hash & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            r->slots[i] = r->slots[j];
            r->slots[j] = NULL;
            i = j;
        }
    }
    reply_unlink(r, e);
    r->n--;
    r->bytes -= sizeof *e + e->len;
    free(e);
}

static int reply_grow(struct jsc_replies *r) {
    uint32_t cap = r->cap ? r->cap * 2 : 16;
    reply **v = calloc(cap, sizeof *v);
    if (!v) return -1;
    free(r->slots);
    r->slots = v;
    r->cap = cap;
    for (reply *e = r->oldest; e; e = e->newer) v[reply_slot(r, e->text, e->len, e->hash)] = e;
    return 0;
}

void jsc_reply_note(jsc_conn *c, const char *s, uint32_t n) {
    const jsc_permissions *p = c->permissions;
    int64_t now = c->plane->mono;
    if (listed(c, s, n)) return;
    if (!c->replies && !(c->replies = calloc(1, sizeof *c->replies))) return;
    struct jsc_replies *r = c->replies;
    while (r->oldest && p->expires_ns >= 0 && now - r->oldest->at > p->expires_ns) reply_drop(r, r->oldest);
    if ((r->n + 1) * 2 > r->cap && reply_grow(r)) return;
    uint64_t h = jsc_hash(s, n);
    reply *e = r->slots[reply_slot(r, s, n, h)];
    if (e) {
        reply_unlink(r, e);
    } else {
        while (r->oldest && (r->n >= REPLIES_MAX || r->bytes + n > REPLIES_BYTES)) reply_drop(r, r->oldest);
        if (!(e = malloc(sizeof *e + n))) return;
        e->hash = h;
        e->len = n;
        memcpy(e->text, s, n);
        r->slots[reply_slot(r, s, n, h)] = e;
        r->n++;
        r->bytes += sizeof *e + n;
    }
    e->used = 0;
    e->at = now;
    reply_link(r, e);
}

void jsc_replies_free(jsc_conn *c) {
    struct jsc_replies *r = c->replies;
    if (!r) return;
    for (reply *e = r->oldest, *next; e; e = next) {
        next = e->newer;
        free(e);
    }
    free(r->slots);
    free(r);
    c->replies = NULL;
}

int jsc_may_publish(jsc_conn *c, const char *s, uint32_t n) {
    if (JSC_LIKELY(listed(c, s, n))) return 1;
    const jsc_permissions *p = c->permissions;
    struct jsc_replies *r = c->replies;
    reply *e = r && r->n ? r->slots[reply_slot(r, s, n, jsc_hash(s, n))] : NULL;
    if (!e) return 0;
    if (p->expires_ns >= 0 && c->plane->mono - e->at > p->expires_ns) {
        reply_drop(r, e);
        return 0;
    }
    if (++e->used >= p->max_responses && p->max_responses > 0) reply_drop(r, e);
    return 1;
}
