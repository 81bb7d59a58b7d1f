/* Subject filters. A text without wildcards is a literal: all of them are one sorted list and one hash table. Every other
 * text is a pattern, cut into steps: a run of literal tokens with the dot behind it, a `*`, a `>` at the end.
 *
 * The scan rests on one fact: of a list in order of bytes, the entries that begin with a given text that ends with a dot
 * are neighbours. "a.b" and "a.c" are not: "a-x" lies between "a" and "a.". So only from behind a dot on may it leap. */
#include "filter.h"

#include <errno.h>

#define FILTERS_MAX 65536
#define TEXT_MAX 65535
#define FEW 16 /* streams that a scan keeps on the stack */
#define AFTER_DOT "/" /* the least text above everything that begins with a dot */

_Static_assert('.' + 1 == '/', "the end of a subtree");

enum { RUN, STAR, REST };

typedef struct step {
    uint16_t at,
        n; /* of a RUN: the bytes in the pattern's text, the dot behind it included unless it is the last step */
    uint8_t kind;
    bool last;
} step;

typedef struct pattern {
    const char *text;
    const step *steps;
} pattern;

struct jsc_filter {
    bool all;
    uint32_t nliterals, npatterns;
    jsc_span *literals; /* strictly ascending */
    uint32_t *table; /* of literals by jsc_hash: place + 1, 0 empty */
    uint32_t table_mask;
    pattern *patterns;
    step *steps;
    char *bytes;
};

static int span_compare(const void *a, const void *b) {
    const jsc_span *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

static bool span_equal(jsc_span a, const char *p, size_t n) { return a.n == n && memcmp(a.p, p, n) == 0; }

/* Checks a text and counts its wildcard tokens. */
static int wildcards(jsc_span t, size_t *out) {
    size_t found = 0;
    if (!t.n || t.n > TEXT_MAX) return JSC_EINVAL;
    for (size_t at = 0;;) {
        const char *dot = memchr(t.p + at, '.', t.n - at);
        size_t n = dot ? (size_t)(dot - t.p) - at : t.n - at;
        if (!n) return JSC_EINVAL;
        if (n == 1 && t.p[at] == '>' && dot) return JSC_EINVAL;
        found += n == 1 && (t.p[at] == '*' || t.p[at] == '>');
        if (!dot) break;
        at += n + 1;
    }
    *out = found;
    return JSC_OK;
}

/* Cuts a checked text into steps; returns behind the last. */
static step *cut(jsc_span t, step *s) {
    for (size_t at = 0; at < t.n;) {
        size_t run = at;
        while (at < t.n) { /* token by token, until one is a wildcard */
            const char *dot = memchr(t.p + at, '.', t.n - at);
            size_t end = dot ? (size_t)(dot - t.p) + 1 : t.n;
            if (end - at - (dot != NULL) == 1 && (t.p[at] == '*' || t.p[at] == '>')) break;
            at = end;
        }
        if (at > run) *s++ = (step){.at = (uint16_t)run, .n = (uint16_t)(at - run), .kind = RUN, .last = at == t.n};
        if (at == t.n) break;
        *s++ = (step){.kind = t.p[at] == '*' ? STAR : REST, .last = at + 1 == t.n};
        at += 2;
    }
    return s;
}

static void table_fill(jsc_filter *f) {
    for (uint32_t i = 0; i < f->nliterals; i++) {
        uint64_t at = jsc_hash(f->literals[i].p, f->literals[i].n);
        while (f->table[at & f->table_mask]) at++;
        f->table[at & f->table_mask] = i + 1;
    }
}

int jsc_filter_new(const jsc_span *texts, size_t n, jsc_filter **out) {
    size_t bytes = 0, steps = 0, npatterns = 0, slots = 1;
    if (n > FILTERS_MAX) return JSC_EINVAL;
    for (size_t i = 0; i < n; i++) {
        size_t found;
        int rc = wildcards(texts[i], &found);
        if (rc) return rc;
        bytes += texts[i].n;
        if (found) steps += 2 * found + 1;
        npatterns += found > 0;
    }
    while (slots < 2 * (n - npatterns)) slots *= 2;
    jsc_filter *f = calloc(1, sizeof *f);
    if (!f) return -ENOMEM;
    f->all = n == 0;
    f->bytes = malloc(bytes + 1);
    f->literals = malloc((n + 1) * sizeof *f->literals);
    f->patterns = malloc((npatterns + 1) * sizeof *f->patterns);
    f->steps = malloc((steps + 1) * sizeof *f->steps);
    f->table = calloc(slots, sizeof *f->table);
    if (!f->bytes || !f->literals || !f->patterns || !f->steps || !f->table) {
        jsc_filter_free(f);
        return -ENOMEM;
    }
    f->table_mask = (uint32_t)slots - 1;
    char *to = f->bytes;
    for (size_t i = 0; i < n; i++) {
        memcpy(to, texts[i].p, texts[i].n);
        f->literals[i] = (jsc_span){to, texts[i].n};
        to += texts[i].n;
    }
    if (n) qsort(f->literals, n, sizeof *f->literals, span_compare);
    step *s = f->steps;
    jsc_span before = {NULL, 0};
    for (size_t i = 0; i < n; i++) { /* the list keeps the literals; patterns leave it */
        jsc_span t = f->literals[i];
        size_t found;
        if (span_equal(t, before.p, before.n)) continue;
        before = t;
        if (wildcards(t, &found) || !found) {
            f->literals[f->nliterals++] = t;
        } else {
            f->patterns[f->npatterns++] = (pattern){t.p, s};
            s = cut(t, s);
        }
    }
    table_fill(f);
    *out = f;
    return JSC_OK;
}

void jsc_filter_free(jsc_filter *f) {
    if (!f) return;
    free(f->bytes);
    free(f->literals);
    free(f->patterns);
    free(f->steps);
    free(f->table);
    free(f);
}

bool jsc_filter_all(const jsc_filter *f) { return f->all; }

bool jsc_filter_literal(const jsc_filter *f, jsc_span *out) {
    if (f->nliterals != 1 || f->npatterns) return false;
    *out = f->literals[0];
    return true;
}

static bool pattern_match(const pattern *p, const char *s, size_t n) {
    size_t at = 0;
    for (const step *t = p->steps;; t++) {
        if (t->kind == REST) return true;
        if (t->kind == RUN) {
            if (t->last ? n - at != t->n : n - at < t->n) return false;
            if (memcmp(s + at, p->text + t->at, t->n) != 0) return false;
            at += t->n;
        } else {
            const char *dot = memchr(s + at, '.', n - at);
            if (t->last) return !dot;
            if (!dot) return false;
            at = (size_t)(dot - s) + 1;
        }
        if (t->last) return true;
    }
}

bool jsc_filter_match(const jsc_filter *f, const char *s, size_t n) {
    if (f->all) return true;
    if (!n) return false;
    if (f->nliterals) {
        uint32_t i;
        for (uint64_t at = jsc_hash(s, n); (i = f->table[at & f->table_mask]) != 0; at++)
            if (span_equal(f->literals[i - 1], s, n)) return true;
    }
    for (uint32_t i = 0; i < f->npatterns; i++)
        if (pattern_match(&f->patterns[i], s, n)) return true;
    return false;
}

/* ---- the scan ---- */

typedef struct list {
    const void *self;
    uint32_t count;
    jsc_span (*text)(const void *list, uint32_t i);
} list;

/* Is t below the text a followed by b? */
static bool below(jsc_span t, jsc_span a, jsc_span b) {
    size_t n = t.n < a.n ? t.n : a.n;
    int c = n ? memcmp(t.p, a.p, n) : 0;
    if (c) return c < 0;
    if (t.n < a.n) return true;
    n = t.n - a.n < b.n ? t.n - a.n : b.n;
    c = n ? memcmp(t.p + a.n, b.p, n) : 0;
    return c ? c < 0 : t.n - a.n < b.n;
}

/* The first entry from `from` on that is not below a followed by b; count when none. Probes at doubling distances first:
 * what is sought is often near. */
static uint32_t leap(const list *l, uint32_t from, jsc_span a, jsc_span b) {
    uint64_t lo = from, hi = from, width = 1;
    while (hi < l->count && below(l->text(l->self, (uint32_t)hi), a, b)) {
        lo = hi + 1;
        hi += width;
        width *= 2;
    }
    if (hi > l->count) hi = l->count;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (below(l->text(l->self, (uint32_t)mid), a, b)) lo = mid + 1;
        else hi = mid;
    }
    return (uint32_t)lo;
}

/* The first entry from i on that the pattern matches; count when none. *sure: all entries from there up to it match. */
static uint32_t pattern_next(const pattern *p, const list *l, uint32_t i, uint32_t *sure) {
    const jsc_span end = {AFTER_DOT, 1};
    while (i < l->count) {
        jsc_span s = l->text(l->self, i);
        size_t at = 0, star = 0; /* star: end of the last token that a `*` took */
        bool starred = false, past = false;
        if (!s.n) {
            i++;
            continue;
        }
        for (const step *t = p->steps;; t++) {
            jsc_span done = {s.p, at};
            if (t->kind == REST) {
                *sure = at ? leap(l, i + 1, (jsc_span){s.p, at - 1}, end) : l->count;
                return i;
            }
            if (t->kind == RUN) {
                jsc_span run = {p->text + t->at, t->n};
                size_t left = s.n - at, n = left < run.n ? left : run.n;
                int c = n ? memcmp(s.p + at, run.p, n) : 0;
                if (c < 0 || (c == 0 && left < run.n)) {
                    i = leap(l, i + 1, done, run);
                    break;
                }
                past = c > 0 || (t->last && left > run.n);
                at += run.n;
            } else {
                const char *dot = memchr(s.p + at, '.', s.n - at);
                if (!dot && !t->last) { /* too short; the next entry may be another token with more behind it */
                    i++;
                    break;
                }
                if (dot) star = (size_t)(dot - s.p);
                starred = true;
                past = dot && t->last;
                at = star + 1;
            }
            if (past) { /* nothing more below the last token that a `*` took: on behind its subtree */
                i = starred ? leap(l, i + 1, (jsc_span){s.p, star}, end) : l->count;
                break;
            }
            if (t->last) return i;
        }
    }
    return l->count;
}

/* The first entry from i on that is a literal; *at: the first literal that is not below it. */
static uint32_t literal_next(const jsc_filter *f, const list *l, uint32_t i, uint32_t *at) {
    const jsc_span none = {NULL, 0};
    while (*at < f->nliterals) {
        i = leap(l, i, f->literals[*at], none);
        if (i == l->count) break;
        jsc_span s = l->text(l->self, i);
        uint64_t lo = *at, hi = *at, width = 1; /* leaps in the literals as leap() does in the list */
        while (hi < f->nliterals && below(f->literals[hi], s, none)) {
            lo = hi + 1;
            hi += width;
            width *= 2;
        }
        if (hi > f->nliterals) hi = f->nliterals;
        while (lo < hi) {
            uint64_t mid = lo + (hi - lo) / 2;
            if (below(f->literals[mid], s, none)) lo = mid + 1;
            else hi = mid;
        }
        *at = (uint32_t)lo;
        if (lo < f->nliterals && span_equal(f->literals[lo], s.p, s.n)) return i;
    }
    return l->count;
}

/* One source of matches in ascending order: a pattern, or all literals together. */
typedef struct stream {
    uint32_t next, aux; /* aux: of a pattern, how far all is sure; of the literals, the next of them */
    const pattern *pattern;
} stream;

static void stream_move(const jsc_filter *f, const list *l, stream *s, uint32_t from) {
    if (!s->pattern) s->next = literal_next(f, l, from, &s->aux);
    else s->next = from < s->aux ? from : pattern_next(s->pattern, l, from, &s->aux);
}

static void sift(stream *heap, size_t n, size_t i) {
    stream s = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1].next < heap[child].next) child++;
        if (heap[child].next >= s.next) break;
        heap[i] = heap[child];
    }
    heap[i] = s;
}

int jsc_filter_scan(const jsc_filter *f, const void *self, uint32_t count,
                    jsc_span (*text)(const void *list, uint32_t i), int (*each)(void *ctx, uint32_t i), void *ctx) {
    const list l = {self, count, text};
    stream few[FEW], *heap = few;
    size_t n = 0;
    int rc = 0;
    if (f->all) {
        for (uint32_t i = 0; i < count && !rc; i++) rc = each(ctx, i);
        return rc;
    }
    if (f->npatterns + 1 > FEW && !(heap = malloc((f->npatterns + 1) * sizeof *heap))) return -ENOMEM;
    for (uint32_t i = 0; i < f->npatterns + (f->nliterals > 0); i++) {
        heap[n] = (stream){.pattern = i < f->npatterns ? &f->patterns[i] : NULL};
        stream_move(f, &l, &heap[n], 0);
        n += heap[n].next < count;
    }
    for (size_t i = n / 2; i-- > 0;) sift(heap, n, i);
    while (n && !rc) {
        uint32_t i = heap[0].next;
        rc = each(ctx, i);
        while (!rc && n && heap[0].next == i) { /* all that have this entry move on: it is given once */
            stream_move(f, &l, &heap[0], i + 1);
            if (heap[0].next >= count) heap[0] = heap[--n];
            if (n) sift(heap, n, 0);
        }
    }
    if (heap != few) free(heap);
    return rc;
}
