/* Subjects: the newest and the oldest message of one, listings of many, and the cache that makes the first cheap.
 *
 * The cache maps a subject to count, first and last of its live messages. It holds no texts: an entry is known by 96 bits,
 * a hash under a secret that is new for every log that is opened, and half of the sidecars' hash. So no choice of subjects
 * makes two of them meet, and by chance two of ten million do so with a probability below 1e-14; then one would be taken
 * for the other. (To compare with the text of the message at `last` instead costs a binary search and four misses of the
 * processor's cache at each append to a subject whose last message is in an older segment.)
 *
 * Each of the three may be unknown: a count is UNKNOWN; a first or last that is not EXACT is a bound, no live message of
 * the subject lies before or behind it. So a death costs no search: it moves a bound, and who asks searches from there.
 *
 * An entry speaks of the messages up to a sequence, and no append touches it: who asks has what came since looked up in
 * the newest pieces. Only while there is a limit for each subject, when every append asks, they are kept up to date. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "mlog_internal.h"

#include <errno.h>
#include <malloc.h>

#define WAYS 4 /* entries of a bucket: 160 bytes */
#define FIRST_BUCKETS 64
#define UNKNOWN UINT32_MAX
#define EXACT ((uint64_t)1 << 63)
#define KEPT UINT64_MAX /* up to whatever comes: the appends keep it */
enum { FEW_PIECES = 4 }; /* an entry with more of them behind it is not worth bringing up to date */

typedef struct entry {
    uint64_t key; /* 0: free */
    uint32_t check, count;
    uint64_t first, last;
    uint64_t upto; /* it speaks of the messages up to this sequence */
} entry;

struct jsc_subject_cache {
    uint64_t secret[24];
    entry (*buckets)[WAYS]; /* used ones first, the latest before the others; the last one makes room */
    uint32_t nbuckets, most;
    size_t used;
};

/* ---- the cache ---- */

int jsc_subject_cache_new(size_t budget, jsc_subject_cache **out) {
    jsc_subject_cache *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    size_t most = (budget - budget / 64) / sizeof *c->buckets; /* the rest for what the allocator adds */
    c->most = most < 1 ? 1 : most > INT32_MAX ? INT32_MAX : (uint32_t)most;
    c->nbuckets = c->most < FIRST_BUCKETS ? c->most : FIRST_BUCKETS;
    for (size_t i = 0; i < sizeof c->secret / sizeof *c->secret; i++) c->secret[i] = jsc_random();
    c->buckets = calloc(c->nbuckets, sizeof *c->buckets);
    if (!c->buckets) {
        free(c);
        return -ENOMEM;
    }
    *out = c;
    return JSC_OK;
}

void jsc_subject_cache_free(jsc_subject_cache *c) {
    if (!c) return;
    free(c->buckets);
    free(c);
}

size_t jsc_subject_cache_heap(const jsc_subject_cache *c) {
    return c ? malloc_usable_size((void *)(uintptr_t)c) + malloc_usable_size(c->buckets) : 0;
}

static uint64_t key_of(const jsc_subject_cache *c, const char *text, size_t n) {
    uint64_t key = XXH3_64bits_withSecret(text, n, c->secret, sizeof c->secret);
    return key ? key : 1;
}

static inline entry *bucket_of(const jsc_subject_cache *c, uint64_t key) {
    return c->buckets[(key >> 32) * c->nbuckets >> 32];
}

static entry *cache_find(jsc_subject_cache *c, uint64_t key, uint64_t hash) {
    entry *b = bucket_of(c, key);
    for (int i = 0; i < WAYS && b[i].key; i++) {
        if (b[i].key != key || b[i].check != hash >> 32) continue;
        if (i == 0) return b;
        entry e = b[i]; /* a step away from the end */
        b[i] = b[i - 1];
        b[i - 1] = e;
        return &b[i - 1];
    }
    return NULL;
}

/* Twice the size, or what the budget allows. Out of memory: it stays as it is. */
static void cache_grow(jsc_subject_cache *c) {
    uint32_t old = c->nbuckets, size = old > c->most / 2 ? c->most : old * 2;
    entry(*from)[WAYS] = c->buckets, (*to)[WAYS] = calloc(size, sizeof *to);
    if (!to) return;
    c->buckets = to;
    c->nbuckets = size;
    for (uint32_t i = 0; i < old; i++)
        for (int k = 0; k < WAYS && from[i][k].key; k++) {
            entry *b = bucket_of(c, from[i][k].key);
            int free_way = 0;
            while (free_way < WAYS && b[free_way].key) free_way++;
            if (free_way < WAYS) b[free_way] = from[i][k];
            else c->used--; /* where the size is not twice the old one, three buckets may fall into one */
        }
    free(from);
}

/* A new entry, about which nothing is known yet. */
static entry *cache_insert(jsc_subject_cache *c, uint64_t key, uint64_t hash) {
    entry *b = bucket_of(c, key);
    if (b[WAYS - 1].key && c->nbuckets < c->most && c->used * 2 >= (size_t)c->nbuckets * WAYS) {
        cache_grow(c);
        b = bucket_of(c, key);
    }
    c->used += !b[WAYS - 1].key;
    memmove(b + 1, b, (WAYS - 1) * sizeof *b);
    *b = (entry){.key = key, .check = (uint32_t)(hash >> 32), .count = UNKNOWN, .first = 1, .last = EXACT - 1};
    return b;
}

static void cache_drop(jsc_subject_cache *c, entry *e) {
    entry *b = bucket_of(c, e->key), *last = b + WAYS - 1;
    while (!last->key) last--;
    *e = *last;
    last->key = 0;
    c->used--;
}

/* Says what follows from what it says. */
static void entry_settle(entry *e) {
    if (e->count == 0) e->first = e->last = EXACT;
    else if (e->count == 1 && e->first & EXACT) e->last = e->first;
    else if (e->count == 1 && e->last & EXACT) e->first = e->last;
}

void jsc_subjects_added(jsc_mlog *m, const char *subject, size_t n, uint64_t hash, uint64_t seq) {
    jsc_subject_cache *c = m->subjects;
    uint64_t key = key_of(c, subject, n);
    entry *e = cache_find(c, key, hash);
    if (!e) e = cache_insert(c, key, hash);
    JSC_ASSERT(m->limits.max_per_subject);
    e->upto = KEPT;
    e->last = seq | EXACT;
    if (e->count == 0) e->first = seq | EXACT;
    if (e->count != UNKNOWN) e->count++; /* beyond what fits: unknown */
}

void jsc_subjects_killed(jsc_mlog *m, const char *subject, size_t n, uint64_t hash, uint64_t seq) {
    jsc_subject_cache *c = m->subjects;
    entry *e = cache_find(c, key_of(c, subject, n), hash);
    if (!e || seq > e->upto) return;
    if (e->count == 0) { /* not a message that it knew of */
        cache_drop(c, e);
        return;
    }
    if (e->count != UNKNOWN) e->count--;
    if ((e->first & ~EXACT) == seq) e->first = seq + 1;
    if ((e->last & ~EXACT) == seq) e->last = seq - 1;
    entry_settle(e);
}

void jsc_subjects_forget_all(jsc_mlog *m) {
    jsc_subject_cache *c = m->subjects;
    if (!c || !c->used) return;
    memset(c->buckets, 0, c->nbuckets * sizeof *c->buckets);
    c->used = 0;
}

/* ---- one subject ---- */

/* One subject in one piece. Lost messages have the empty subject in a part, but nobody knows theirs: they count for none. */
typedef struct place {
    const jsc_part *part;
    jsc_dead *dead;
    uint32_t sid;
    bool lost; /* there may be lost ones among its messages */
} place;

static place place_in(const jsc_piece *piece, const jsc_part *p, uint32_t sid) {
    bool lost = piece->tail ? jsc_tail_lost(piece->tail) != 0 : piece->segment->info.lost != 0;
    return (place){p, piece->dead, sid, lost && p->ops->text(p, sid).n == 0};
}

/* The ordinal of the first live message at its k-th or behind, or of the last at or before; JSC_NONE. */
static uint32_t live_posting(const place *w, uint32_t k, bool backward) {
    const jsc_part_ops *ops = w->part->ops;
    uint32_t n = ops->occurrences(w->part, w->sid);
    for (; k < n; backward ? k-- : k++) { /* below 0 it wraps, and ends too */
        uint32_t ord = ops->posting(w->part, w->sid, k);
        if (!jsc_dead_has(w->dead, ord) && (!w->lost || ops->offset(w->part, ord))) return ord;
    }
    return JSC_NONE;
}

static uint32_t live_of(const place *w) {
    const jsc_part_ops *ops = w->part->ops;
    uint32_t n = ops->occurrences(w->part, w->sid), live = n - (w->dead ? jsc_dead_of(w->dead, w->part, w->sid) : 0);
    for (uint32_t k = 0; w->lost && k < n; k++) {
        uint32_t ord = ops->posting(w->part, w->sid, k);
        live -= !ops->offset(w->part, ord) && !jsc_dead_has(w->dead, ord);
    }
    return live;
}

/* The next live message of a subject at or behind a sequence, or at or before it; *seq 0: there is none. */
static int seek(jsc_mlog *m, const char *subject, size_t n, uint64_t hash, uint64_t from, bool backward,
                uint64_t *seq) {
    size_t i = backward ? jsc_pieces_until(m, from) : jsc_pieces_from(m, from);
    for (; i < m->npieces; backward ? i-- : i++) {
        jsc_piece *piece = m->pieces[i];
        if (!jsc_piece_live(piece)) continue;
        int rc = JSC_OK;
        const jsc_part *p = jsc_piece_part(m, piece, &rc);
        if (!p) return rc;
        uint32_t sid = p->ops->find_subject(p, subject, n, hash);
        if (sid == JSC_NONE) continue;
        uint32_t ord = p->ops->find_seq(p, backward ? from + 1 : from), k = jsc_part_posting_at(p, sid, ord);
        place w = place_in(piece, p, sid);
        ord = live_posting(&w, backward ? k - 1 : k, backward);
        if (ord == JSC_NONE) continue;
        *seq = p->ops->seq(p, ord);
        return JSC_OK;
    }
    *seq = 0;
    return JSC_OK;
}

/* The live messages of a subject behind a sequence, in one piece. */
static int newer_in(jsc_mlog *m, jsc_piece *piece, const char *subject, size_t n, uint64_t hash, uint64_t behind,
                    jsc_subject_info *out) {
    int rc = JSC_OK;
    *out = (jsc_subject_info){0};
    if (!jsc_piece_live(piece)) return JSC_OK;
    const jsc_part *p = jsc_piece_part(m, piece, &rc);
    if (!p) return rc;
    uint32_t sid = p->ops->find_subject(p, subject, n, hash);
    if (sid == JSC_NONE) return JSC_OK;
    place w = place_in(piece, p, sid);
    uint32_t all = p->ops->occurrences(p, sid), k = 0;
    if (behind > piece->base_seq) k = jsc_part_posting_at(p, sid, p->ops->find_seq(p, behind + 1));
    uint32_t first = live_posting(&w, k, false);
    if (first == JSC_NONE) return JSC_OK;
    if (k == 0) out->count = live_of(&w);
    else if (!w.dead && !w.lost) out->count = all - k;
    else
        for (; k < all; k++) {
            uint32_t ord = p->ops->posting(p, sid, k);
            out->count += !jsc_dead_has(w.dead, ord) && (!w.lost || p->ops->offset(p, ord));
        }
    out->first_seq = p->ops->seq(p, first);
    out->last_seq = p->ops->seq(p, live_posting(&w, all - 1, true));
    return JSC_OK;
}

/* The entry of a subject, brought up to date; NULL: none. */
static int entry_now(jsc_mlog *m, const char *subject, size_t n, uint64_t hash, entry **out) {
    jsc_subject_cache *c = m->subjects;
    uint64_t key = key_of(c, subject, n);
    entry *e = cache_find(c, key, hash);
    *out = e;
    if (JSC_LIKELY(!e || e->upto >= m->last_seq)) return JSC_OK;
    uint64_t behind = e->upto;
    size_t i = jsc_pieces_from(m, behind + 1);
    if (m->npieces - i > FEW_PIECES) {
        cache_drop(c, e);
        *out = NULL;
        return JSC_OK;
    }
    jsc_subject_info sum = {0}, x;
    for (; i < m->npieces; i++) {
        int rc = newer_in(m, m->pieces[i], subject, n, hash, behind, &x);
        if (rc != JSC_OK) return rc;
        if (!x.count) continue;
        if (!sum.count) sum.first_seq = x.first_seq;
        sum.last_seq = x.last_seq;
        sum.count += x.count;
    }
    if (!(*out = e = cache_find(c, key, hash))) return JSC_OK; /* a part was exchanged meanwhile */
    e->upto = m->last_seq;
    if (!sum.count) return JSC_OK;
    if (e->count == 0) e->first = sum.first_seq | EXACT;
    e->last = sum.last_seq | EXACT;
    if (e->count != UNKNOWN) e->count = sum.count < UNKNOWN - e->count ? e->count + (uint32_t)sum.count : UNKNOWN;
    return JSC_OK;
}

/* What a search found goes into the cache, where the entry is up to date if there is one. Entries move, so each time it is
 * looked for again. */
static void note(jsc_mlog *m, const char *subject, size_t n, uint64_t hash, const uint64_t *count,
                 const uint64_t *first, const uint64_t *last) {
    jsc_subject_cache *c = m->subjects;
    uint64_t key = key_of(c, subject, n);
    entry *e = cache_find(c, key, hash);
    if (!e) e = cache_insert(c, key, hash);
    e->upto = m->limits.max_per_subject ? KEPT : m->last_seq;
    if (count) e->count = *count < UNKNOWN ? (uint32_t)*count : UNKNOWN;
    if (first && *first) e->first = *first | EXACT;
    if (last && *last) e->last = *last | EXACT;
    if ((first && !*first) || (last && !*last)) e->count = 0;
    entry_settle(e);
}

/* The live messages counted, piece by piece. */
static int survey(jsc_mlog *m, const char *subject, size_t n, uint64_t hash, uint64_t *count) {
    uint64_t found = 0;
    for (size_t i = m->npieces; i-- > 0;) {
        jsc_piece *piece = m->pieces[i];
        if (!jsc_piece_live(piece)) continue;
        int rc = JSC_OK;
        const jsc_part *p = jsc_piece_part(m, piece, &rc);
        if (!p) return rc;
        uint32_t sid = p->ops->find_subject(p, subject, n, hash);
        if (sid == JSC_NONE) continue;
        place w = place_in(piece, p, sid);
        found += live_of(&w);
    }
    *count = found;
    return JSC_OK;
}

/* An end of a subject's messages: from the cache, or by a search from the bound that it has. */
static int end_of(jsc_mlog *m, const char *subject, size_t n, uint64_t hash, bool last, uint64_t *seq) {
    entry *e;
    int rc = entry_now(m, subject, n, hash, &e);
    if (rc != JSC_OK) return rc;
    uint64_t known = e ? (last ? e->last : e->first) : last ? EXACT - 1 : 1;
    if (known & EXACT) {
        *seq = known & ~EXACT;
        return JSC_OK;
    }
    uint64_t found = 0;
    if (last && known > m->last_seq) known = m->last_seq;
    if ((rc = seek(m, subject, n, hash, known, last, &found)) != JSC_OK) return rc;
    note(m, subject, n, hash, NULL, last ? NULL : &found, last ? &found : NULL);
    *seq = found;
    return JSC_OK;
}

int jsc_subjects_state(jsc_mlog *m, const char *subject, size_t n, uint64_t hash, jsc_subject_info *out) {
    jsc_subject_info info = {.text = {subject, n}};
    entry *e;
    int rc = entry_now(m, subject, n, hash, &e);
    if (rc != JSC_OK) return rc;
    if (e && e->count != UNKNOWN) {
        info.count = e->count;
    } else {
        if ((rc = survey(m, subject, n, hash, &info.count)) != JSC_OK) return rc;
        note(m, subject, n, hash, &info.count, NULL, NULL);
    }
    if (info.count) {
        if ((rc = end_of(m, subject, n, hash, false, &info.first_seq)) != JSC_OK) return rc;
        if ((rc = end_of(m, subject, n, hash, true, &info.last_seq)) != JSC_OK) return rc;
    }
    *out = info;
    return JSC_OK;
}

int jsc_subjects_end(jsc_mlog *m, const jsc_span *subject, bool last, uint64_t *seq) {
    *seq = 0;
    if (subject->n > UINT16_MAX) return JSC_OK;
    return end_of(m, subject->p, subject->n, jsc_subject_hash(subject->p, subject->n), last, seq);
}

static int end_of_span(jsc_mlog *m, const jsc_span *subject, bool last, uint64_t *seq) {
    uint64_t found;
    pthread_mutex_lock(&m->lock);
    int rc = jsc_subjects_end(m, subject, last, &found);
    if (rc == -ESTALE && (rc = jsc_mlog_reload(m)) == JSC_OK) rc = jsc_subjects_end(m, subject, last, &found);
    pthread_mutex_unlock(&m->lock);
    if (rc != JSC_OK) return rc;
    if (!found) return JSC_ENOTFOUND;
    *seq = found;
    return JSC_OK;
}

int jsc_mlog_last_of(jsc_mlog *m, const jsc_span *subject, uint64_t *seq) { return end_of_span(m, subject, true, seq); }

int jsc_mlog_first_of(jsc_mlog *m, const jsc_span *subject, uint64_t *seq) {
    return end_of_span(m, subject, false, seq);
}

/* ---- listings ---- */

#define SLICE 64 /* subjects that a piece gives at a time: memory follows the pieces, not the subjects */

typedef struct source {
    const jsc_filter *filter;
    const jsc_piece *piece;
    const jsc_part *part;
    const uint32_t *ids; /* of the subjects by text; NULL: a sidecar's ids are in that order */
    uint32_t n, next;    /* next: place in that order where to go on */
    uint32_t slice[SLICE], got, at;
} source;

static inline uint32_t id_at(const source *s, uint32_t i) { return s->ids ? s->ids[i] : i; }
static inline jsc_span text_at(const source *s, uint32_t i) { return s->part->ops->text(s->part, id_at(s, i)); }
static inline jsc_span text_now(const source *s) { return s->part->ops->text(s->part, s->slice[s->at]); }

static int compare(jsc_span a, jsc_span b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static jsc_span rest_text(const void *list, uint32_t i) {
    const source *s = list;
    return text_at(s, s->next + i);
}

static int take(void *ctx, uint32_t i) {
    source *s = ctx;
    s->slice[s->got++] = s->next + i;
    return s->got == SLICE;
}

/* The next slice; got 0: no more. */
static int refill(source *s) {
    int rc = 0;
    s->got = s->at = 0;
    if (s->next == s->n) return JSC_OK;
    if (!s->filter || jsc_filter_all(s->filter)) {
        for (uint32_t i = 0; i < s->n - s->next && !rc; i++) rc = take(s, i);
    } else {
        rc = jsc_filter_scan(s->filter, s, s->n - s->next, rest_text, take, s);
        if (rc < 0) return rc;
    }
    s->next = rc ? s->slice[s->got - 1] + 1 : s->n;
    for (uint32_t i = 0; i < s->got; i++) s->slice[i] = id_at(s, s->slice[i]);
    return JSC_OK;
}

static int source_open(jsc_mlog *m, source *s, jsc_piece *piece, const jsc_span *after) {
    int rc = JSC_OK;
    s->piece = piece;
    if (!(s->part = jsc_piece_part(m, piece, &rc))) return rc;
    s->n = s->part->ops->subjects(s->part);
    if (piece->tail && (rc = jsc_tail_sorted(piece->tail, &s->ids, &s->n)) != JSC_OK) return rc;
    if (after) {
        uint32_t hi = s->n;
        while (s->next < hi) {
            uint32_t mid = s->next + (hi - s->next) / 2;
            if (compare(text_at(s, mid), *after) <= 0) s->next = mid + 1;
            else hi = mid;
        }
    }
    return refill(s);
}

/* A heap of sources, the one with the least text on top. */
static void sink(source **heap, size_t n, size_t i) {
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && compare(text_now(heap[child + 1]), text_now(heap[child])) < 0) child++;
        if (compare(text_now(heap[i]), text_now(heap[child])) <= 0) return;
        source *s = heap[i];
        heap[i] = heap[child];
        heap[child] = s;
    }
}

static int list(source **heap, size_t n, int (*each)(void *ctx, const jsc_subject_info *), void *ctx) {
    for (size_t i = n; i-- > 0;) sink(heap, n, i);
    while (n) {
        jsc_subject_info info = {.text = text_now(heap[0])};
        do { /* all pieces that have it */
            source *s = heap[0];
            place w = place_in(s->piece, s->part, s->slice[s->at]);
            uint32_t live = live_of(&w), n_all = s->part->ops->occurrences(s->part, w.sid);
            if (live) {
                uint64_t first = s->part->ops->seq(s->part, live_posting(&w, 0, false));
                uint64_t last = s->part->ops->seq(s->part, live_posting(&w, n_all - 1, true));
                if (!info.count || first < info.first_seq) info.first_seq = first;
                if (!info.count || last > info.last_seq) info.last_seq = last;
                info.count += live;
            }
            if (++s->at == s->got) {
                int rc = refill(s);
                if (rc != JSC_OK) return rc;
                if (!s->got) heap[0] = heap[--n];
            }
            sink(heap, n, 0);
        } while (n && compare(text_now(heap[0]), info.text) == 0);
        int rc = info.count ? each(ctx, &info) : 0;
        if (rc) return rc;
    }
    return JSC_OK;
}

/* All pieces side by side. -ESTALE only before the first call of each. */
static int list_pieces(jsc_mlog *m, const jsc_filter *f, const jsc_span *after,
                       int (*each)(void *ctx, const jsc_subject_info *), void *ctx) {
    source *sources = malloc((m->npieces + 1) * sizeof *sources), **heap = malloc((m->npieces + 1) * sizeof *heap);
    size_t n = 0;
    int rc = sources && heap ? JSC_OK : -ENOMEM;
    for (size_t i = 0; rc == JSC_OK && i < m->npieces; i++) {
        if (!jsc_piece_live(m->pieces[i])) continue;
        source *s = &sources[n];
        *s = (source){.filter = f};
        rc = source_open(m, s, m->pieces[i], after);
        if (s->got) heap[n++] = s;
    }
    if (rc == JSC_OK) rc = list(heap, n, each, ctx);
    free(sources);
    free(heap);
    return rc;
}

static int list_one(jsc_mlog *m, jsc_span one, const jsc_span *after, int (*each)(void *ctx, const jsc_subject_info *),
                    void *ctx) {
    jsc_subject_info info;
    if (after && compare(one, *after) <= 0) return JSC_OK;
    int rc = jsc_subjects_state(m, one.p, one.n, jsc_subject_hash(one.p, one.n), &info);
    return rc == JSC_OK && info.count ? each(ctx, &info) : rc;
}

int jsc_mlog_subjects(jsc_mlog *m, const jsc_filter *f, const jsc_span *after,
                      int (*each)(void *ctx, const jsc_subject_info *), void *ctx) {
    jsc_span one;
    bool literal = f && jsc_filter_literal(f, &one);
    pthread_mutex_lock(&m->lock);
    int rc = literal ? list_one(m, one, after, each, ctx) : list_pieces(m, f, after, each, ctx);
    if (rc == -ESTALE && (rc = jsc_mlog_reload(m)) == JSC_OK)
        rc = literal ? list_one(m, one, after, each, ctx) : list_pieces(m, f, after, each, ctx);
    pthread_mutex_unlock(&m->lock);
    return rc;
}
