/* The index of the open segment. A message takes 16 bytes in the columns (time 8, offset / 8 in 4, subject id and payload
 * size 2 each) and about 4.5 in its subject's posting list; blocks get a third and a fourth 2-byte column only when one of
 * their messages needs it:
 *
 *   sequence    not stored: base + 1 + ordinal, corrected by a list of the places where sequences jump (none in a
 *               segment that was only appended to)
 *   bytes       not stored: they follow from payload size and length of the subject, plus `extra` (in units of 8) for
 *               headers. Neighbouring offsets would not tell: trailers and control records lie between
 *   subject id  low half, and `high` once there are more than 65,536 subjects
 *   escapes     a payload of 64 KiB or more, or headers of 512 KiB: both sizes are in a list beside, by ordinal */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "tail.h"
#include "jsc.h"

#include <errno.h>
#include <malloc.h>

#define BLOCK_BITS 12
#define BLOCK (1u << BLOCK_BITS)
#define GROUP_BITS 8 /* subjects are allocated by 256 */
#define GROUP (1u << GROUP_BITS)
#define FEW 4 /* postings that a subject holds itself */
#define ESCAPED UINT16_MAX
#define PLAIN_BYTES(subject_n, size) ((JSC_RECORD_HEAD + (uint64_t)(subject_n) + (size) + 7) & ~(uint64_t)7)

typedef struct block {
    int64_t ts[BLOCK];
    uint32_t at[BLOCK]; /* offset / 8; 0: lost */
    uint16_t sid[BLOCK];
    uint16_t size[BLOCK];
    uint16_t *high, *extra; /* NULL: all zero */
} block;

typedef struct subject {
    const char *text;
    union {
        uint32_t few[FEW]; /* up to FEW postings */
        struct {
            uint32_t *list;
            uint32_t cap;
        };
    };
    uint32_t count;
    uint16_t n;
} subject;

typedef struct slot {
    uint32_t hash, id1; /* id + 1; 0: free */
} slot;

typedef struct texts {
    struct texts *next;
    char bytes[];
} texts;

typedef struct jump {
    uint64_t seq;
    uint32_t ord;
} jump;

typedef struct escape {
    uint32_t ord, size, bytes;
} escape;

struct jsc_tail {
    jsc_part part;
    uint64_t base_seq, last_seq;
    int64_t last_ts;
    uint32_t count, lost, nsubjects;
    uint32_t recent; /* id of the subject that was added to last; below nsubjects, when there is any */
    block **blocks;
    size_t nblocks, blocks_cap;
    jump *jumps; /* where a sequence is not one more than that before it, ascending */
    size_t njumps, jumps_cap;
    escape *escapes; /* ascending ordinals */
    size_t nescapes, escapes_cap;
    subject **groups;
    size_t ngroups, groups_cap;
    slot *table;
    uint32_t mask;
    texts *texts;
    char *text_at;
    size_t text_left;
    uint32_t *sorted; /* the first nsorted ids by text */
    size_t nsorted, sorted_cap;
    size_t heap, subjects_heap; /* heap: without the share of subjects */
};

/* ---- room: what fails here changes nothing that is seen ---- */

static void *resized(size_t *heap, void *old, size_t bytes) {
    size_t had = malloc_usable_size(old);
    void *p = realloc(old, bytes);
    if (p) *heap += malloc_usable_size(p) - had;
    return p;
}

/* The list of items of `size` bytes with room for one more than n: itself or its successor. */
static void *room(size_t *heap, void *list, size_t *cap, size_t n, size_t size) {
    if (JSC_LIKELY(n < *cap)) return list;
    size_t more = *cap ? *cap + *cap / 2 : 8;
    void *p = resized(heap, list, more * size);
    if (p) *cap = more;
    return p;
}

static inline subject *subject_at(const jsc_tail *t, uint32_t sid) {
    return &t->groups[sid >> GROUP_BITS][sid & (GROUP - 1)];
}

static bool table_grow(jsc_tail *t) {
    uint32_t size = t->table ? (t->mask + 1) * 2 : 16;
    slot *fresh = calloc(size, sizeof *fresh);
    if (!fresh) return false;
    for (uint32_t i = 0; t->table && i <= t->mask; i++) {
        if (!t->table[i].id1) continue;
        uint32_t k = t->table[i].hash & (size - 1);
        while (fresh[k].id1) k = (k + 1) & (size - 1);
        fresh[k] = t->table[i];
    }
    t->subjects_heap += malloc_usable_size(fresh) - malloc_usable_size(t->table);
    free(t->table);
    t->table = fresh;
    t->mask = size - 1;
    return true;
}

static bool text_room(jsc_tail *t, size_t n) {
    if (t->texts && n <= t->text_left) return true;
    /* Chunks grow with what is there, so that a few subjects cost little and many few chunks. */
    size_t bytes = t->nsubjects < 64 ? 1024 : t->nsubjects < 4096 ? 8192 : 65536;
    if (bytes < n) bytes = n;
    texts *c = malloc(sizeof *c + bytes);
    if (!c) return false;
    t->subjects_heap += malloc_usable_size(c);
    c->next = t->texts;
    t->texts = c;
    t->text_at = c->bytes;
    t->text_left = bytes;
    return true;
}

static bool subject_room(jsc_tail *t, size_t n) {
    if ((!t->table || (uint64_t)t->nsubjects * 3 >= (uint64_t)(t->mask + 1) * 2) && !table_grow(t)) return false;
    if (t->nsubjects >> GROUP_BITS == t->ngroups) {
        subject **groups = room(&t->subjects_heap, t->groups, &t->groups_cap, t->ngroups, sizeof *groups);
        if (!groups) return false;
        t->groups = groups;
        subject *g = malloc(GROUP * sizeof *g);
        if (!g) return false;
        t->subjects_heap += malloc_usable_size(g);
        t->groups[t->ngroups++] = g;
    }
    return text_room(t, n);
}

static bool block_room(jsc_tail *t) {
    block **blocks = room(&t->heap, t->blocks, &t->blocks_cap, t->nblocks, sizeof *blocks);
    if (!blocks) return false;
    t->blocks = blocks;
    block *b = malloc(sizeof *b);
    if (!b) return false;
    t->heap += malloc_usable_size(b);
    b->high = b->extra = NULL;
    t->blocks[t->nblocks++] = b;
    return true;
}

static bool column_room(jsc_tail *t, uint16_t **column) {
    if (*column) return true;
    *column = calloc(BLOCK, sizeof **column);
    t->heap += malloc_usable_size(*column);
    return *column != NULL;
}

static bool escape_room(jsc_tail *t) {
    escape *escapes = room(&t->heap, t->escapes, &t->escapes_cap, t->nescapes, sizeof *escapes);
    if (escapes) t->escapes = escapes;
    return escapes != NULL;
}

static bool jump_room(jsc_tail *t) {
    jump *jumps = room(&t->heap, t->jumps, &t->jumps_cap, t->njumps, sizeof *jumps);
    if (jumps) t->jumps = jumps;
    return jumps != NULL;
}

/* The last room to ask for: where the list takes the place of the first few, the next posting must follow. */
static bool posting_room(jsc_tail *t, subject *s) {
    if (s->count < FEW || (s->count > FEW && s->count < s->cap)) return true;
    if (s->count == FEW) {
        uint32_t *list = resized(&t->heap, NULL, (FEW + FEW / 2) * sizeof *list);
        if (!list) return false;
        memcpy(list, s->few, sizeof s->few);
        s->list = list;
        s->cap = FEW + FEW / 2;
        return true;
    }
    /* Half as much again; later a quarter, where the slack would weigh more than the copying. */
    uint32_t cap = s->cap + s->cap / (s->cap < 256 ? 2 : 4);
    uint32_t *list = resized(&t->heap, s->list, cap * sizeof *list);
    if (!list) return false;
    s->list = list;
    s->cap = cap;
    return true;
}

/* ---- adding ---- */

/* Subjects are short: no call for them. */
static inline bool same_text(const char *a, const char *b, size_t n) {
    uint64_t x[2], y[2];
    uint32_t v[2], w[2];
    if (n > 16) return memcmp(a, b, n) == 0;
    if (n >= 8) {
        memcpy(&x[0], a, 8);
        memcpy(&x[1], a + n - 8, 8);
        memcpy(&y[0], b, 8);
        memcpy(&y[1], b + n - 8, 8);
        return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
    }
    if (n >= 4) {
        memcpy(&v[0], a, 4);
        memcpy(&v[1], a + n - 4, 4);
        memcpy(&w[0], b, 4);
        memcpy(&w[1], b + n - 4, 4);
        return ((v[0] ^ w[0]) | (v[1] ^ w[1])) == 0;
    }
    while (n && a[n - 1] == b[n - 1]) n--;
    return n == 0;
}

static inline uint32_t find(const jsc_tail *t, const char *text, size_t n, uint32_t hash) {
    if (!t->table) return JSC_NONE;
    for (uint32_t i = hash & t->mask; t->table[i].id1; i = (i + 1) & t->mask) {
        if (t->table[i].hash != hash) continue;
        const subject *s = subject_at(t, t->table[i].id1 - 1);
        if (s->n == n && same_text(s->text, text, n)) return t->table[i].id1 - 1;
    }
    return JSC_NONE;
}

static void subject_add(jsc_tail *t, const char *text, size_t n, uint32_t hash) {
    uint32_t sid = t->nsubjects++, i = hash & t->mask;
    if (n) memcpy(t->text_at, text, n);
    *subject_at(t, sid) = (subject){.text = t->text_at, .n = (uint16_t)n};
    t->text_at += n;
    t->text_left -= n;
    while (t->table[i].id1) i = (i + 1) & t->mask;
    t->table[i] = (slot){hash, sid + 1};
}

/* sid: JSC_NONE for a new subject, which hash is for then. */
static inline int add(jsc_tail *t, uint64_t seq, int64_t ts, uint64_t offset, uint32_t size, uint32_t bytes,
                      const char *text, size_t n, uint64_t hash, uint32_t sid) {
    if (JSC_UNLIKELY(seq <= t->last_seq || (offset & 7) || offset >> 35 || n > UINT16_MAX || t->count == JSC_NONE - 1))
        return JSC_EINVAL;
    uint32_t ord = t->count;
    bool fresh = sid == JSC_NONE, jumps = seq != t->last_seq + 1, escapes = false;
    if (fresh) {
        if (!subject_room(t, n)) return -ENOMEM;
        sid = t->nsubjects;
    }
    if (JSC_UNLIKELY(ord >> BLOCK_BITS == t->nblocks) && !block_room(t)) return -ENOMEM;
    block *b = t->blocks[ord >> BLOCK_BITS];
    uint64_t plain = PLAIN_BYTES(n, size);
    uint16_t extra = 0, code = 0;
    if (JSC_LIKELY(offset)) {
        uint64_t more = (uint64_t)bytes - plain;
        escapes = size >= ESCAPED || bytes < plain || (more & 7) || more / 8 > UINT16_MAX;
        code = escapes ? ESCAPED : (uint16_t)size;
        extra = escapes ? 0 : (uint16_t)(more / 8);
    }
    if ((extra && !column_room(t, &b->extra)) || (sid >> 16 && !column_room(t, &b->high))) return -ENOMEM;
    if ((JSC_UNLIKELY(escapes) && !escape_room(t)) || (JSC_UNLIKELY(jumps) && !jump_room(t))) return -ENOMEM;
    if (!fresh && !posting_room(t, subject_at(t, sid))) return -ENOMEM;

    if (fresh) subject_add(t, text, n, (uint32_t)hash);
    subject *s = subject_at(t, sid);
    uint32_t k = s->count++, i = ord & (BLOCK - 1);
    if (k < FEW) s->few[k] = ord;
    else s->list[k] = ord;
    if (ord && ts < t->last_ts) ts = t->last_ts;
    b->ts[i] = ts;
    b->at[i] = (uint32_t)(offset / 8);
    b->sid[i] = (uint16_t)sid;
    b->size[i] = code;
    if (b->high) b->high[i] = (uint16_t)(sid >> 16);
    if (b->extra) b->extra[i] = extra;
    if (JSC_UNLIKELY(escapes)) t->escapes[t->nescapes++] = (escape){ord, size, bytes};
    if (JSC_UNLIKELY(jumps)) t->jumps[t->njumps++] = (jump){seq, ord};
    t->last_seq = seq;
    t->last_ts = ts;
    t->lost += !offset;
    t->recent = sid;
    t->count = ord + 1;
    return JSC_OK;
}

int jsc_tail_add(jsc_tail *t, uint64_t seq, int64_t ts, uint64_t offset, uint32_t size, uint32_t bytes,
                 const char *text, size_t n, uint64_t hash) {
    return add(t, seq, ts, offset, size, bytes, text, n, hash, find(t, text, n, (uint32_t)hash));
}

int jsc_tail_append(jsc_tail *t, uint64_t seq, int64_t ts, uint64_t offset, uint32_t size, uint32_t bytes,
                    const char *text, size_t n) {
    uint64_t hash = 0;
    uint32_t sid = t->recent;
    const subject *s = JSC_LIKELY(t->nsubjects) ? subject_at(t, sid) : NULL;
    if (!s || s->n != n || !same_text(s->text, text, n)) {
        hash = jsc_subject_hash(text, n);
        sid = find(t, text, n, (uint32_t)hash);
    }
    return add(t, seq, ts, offset, size, bytes, text, n, hash, sid);
}

/* ---- the questions of a part ---- */

static inline const jsc_tail *tail_of(const jsc_part *p) { return (const jsc_tail *)p; }
static inline const block *block_of(const jsc_tail *t, uint32_t ord) { return t->blocks[ord >> BLOCK_BITS]; }

static uint32_t tail_count(const jsc_part *p) { return tail_of(p)->count; }

static uint64_t tail_seq(const jsc_part *p, uint32_t ord) {
    const jsc_tail *t = tail_of(p);
    size_t lo = 0, hi = t->njumps; /* the last jump at or before ord */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->jumps[mid].ord <= ord) lo = mid + 1;
        else hi = mid;
    }
    return lo ? t->jumps[lo - 1].seq + (ord - t->jumps[lo - 1].ord) : t->base_seq + 1 + ord;
}

static uint32_t tail_find_seq(const jsc_part *p, uint64_t seq) {
    const jsc_tail *t = tail_of(p);
    size_t lo = 0, hi = t->njumps; /* the last jump that lands at or before seq */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->jumps[mid].seq <= seq) lo = mid + 1;
        else hi = mid;
    }
    uint64_t start = lo ? t->jumps[lo - 1].seq : t->base_seq + 1;
    uint32_t ord = lo ? t->jumps[lo - 1].ord : 0, end = lo < t->njumps ? t->jumps[lo].ord : t->count;
    if (seq <= start) return ord;
    return seq - start < end - ord ? ord + (uint32_t)(seq - start) : end;
}

static int64_t tail_ts(const jsc_part *p, uint32_t ord) { return block_of(tail_of(p), ord)->ts[ord & (BLOCK - 1)]; }

static uint32_t tail_find_ts(const jsc_part *p, int64_t ts) {
    uint32_t lo = 0, hi = tail_of(p)->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (tail_ts(p, mid) < ts) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static uint64_t tail_offset(const jsc_part *p, uint32_t ord) {
    return (uint64_t)block_of(tail_of(p), ord)->at[ord & (BLOCK - 1)] * 8;
}

static uint32_t tail_subject(const jsc_part *p, uint32_t ord) {
    const block *b = block_of(tail_of(p), ord);
    uint32_t i = ord & (BLOCK - 1);
    return b->sid[i] | (b->high ? (uint32_t)b->high[i] << 16 : 0);
}

static const escape *escape_of(const jsc_tail *t, uint32_t ord) {
    size_t lo = 0, hi = t->nescapes;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->escapes[mid].ord < ord) lo = mid + 1;
        else hi = mid;
    }
    return &t->escapes[lo];
}

static uint32_t tail_size(const jsc_part *p, uint32_t ord) {
    uint16_t code = block_of(tail_of(p), ord)->size[ord & (BLOCK - 1)];
    return code == ESCAPED ? escape_of(tail_of(p), ord)->size : code;
}

static uint32_t tail_bytes(const jsc_part *p, uint32_t ord) {
    const jsc_tail *t = tail_of(p);
    const block *b = block_of(t, ord);
    uint32_t i = ord & (BLOCK - 1);
    if (!b->at[i]) return 0;
    if (b->size[i] == ESCAPED) return escape_of(t, ord)->bytes;
    uint64_t plain = PLAIN_BYTES(subject_at(t, tail_subject(p, ord))->n, b->size[i]);
    return (uint32_t)plain + (b->extra ? b->extra[i] * 8u : 0);
}

static uint32_t tail_subjects(const jsc_part *p) { return tail_of(p)->nsubjects; }

static jsc_span tail_text(const jsc_part *p, uint32_t sid) {
    const subject *s = subject_at(tail_of(p), sid);
    return (jsc_span){s->text, s->n};
}

static uint32_t tail_find_subject(const jsc_part *p, const char *text, size_t n, uint64_t hash) {
    return find(tail_of(p), text, n, (uint32_t)hash);
}

static uint32_t tail_occurrences(const jsc_part *p, uint32_t sid) { return subject_at(tail_of(p), sid)->count; }

static uint32_t tail_posting(const jsc_part *p, uint32_t sid, uint32_t k) {
    const subject *s = subject_at(tail_of(p), sid);
    return s->count <= FEW ? s->few[k] : s->list[k];
}

/* ---- subjects in order ---- */

static int by_text(const jsc_tail *t, uint32_t a, uint32_t b) {
    const subject *x = subject_at(t, a), *y = subject_at(t, b);
    int c = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* A new id for sorting: with the eight bytes of its text behind what all new ones have in common, so that most comparisons
 * stay out of the texts. */
typedef struct fresh_id {
    uint64_t key;
    uint32_t sid;
} fresh_id;

static int by_key(const void *a, const void *b, void *t) {
    const fresh_id *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return by_text(t, x->sid, y->sid);
}

static void sort_fresh(jsc_tail *t, fresh_id *ids, uint32_t first, size_t n) {
    const subject *one = subject_at(t, first);
    size_t common = one->n;
    for (size_t i = 1; i < n && common; i++) {
        const subject *s = subject_at(t, first + (uint32_t)i);
        size_t k = 0;
        while (k < common && k < s->n && s->text[k] == one->text[k]) k++;
        common = k;
    }
    for (size_t i = 0; i < n; i++) {
        const subject *s = subject_at(t, first + (uint32_t)i);
        uint64_t key = 0;
        memcpy(&key, s->text + common, s->n - common < 8 ? s->n - common : 8);
        ids[i] = (fresh_id){__builtin_bswap64(key), first + (uint32_t)i};
    }
    qsort_r(ids, n, sizeof *ids, by_key, t);
}

int jsc_tail_sorted(jsc_tail *t, const uint32_t **ids, uint32_t *n) {
    size_t old = t->nsorted, fresh = t->nsubjects - old;
    if (fresh) {
        if (t->nsubjects > t->sorted_cap) {
            size_t cap = t->nsubjects + t->nsubjects / 8 + 16;
            uint32_t *grown = resized(&t->subjects_heap, t->sorted, cap * sizeof *grown);
            if (!grown) return -ENOMEM;
            t->sorted = grown;
            t->sorted_cap = cap;
        }
        fresh_id *more = malloc(fresh * sizeof *more);
        if (!more) return -ENOMEM;
        sort_fresh(t, more, (uint32_t)old, fresh);
        /* From the back: all above the last new one moves to its place, then the new one goes before it, and so on. */
        for (size_t i = fresh, left = old; i-- > 0;) {
            size_t lo = 0, hi = left;
            while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;
                if (by_text(t, t->sorted[mid], more[i].sid) < 0) lo = mid + 1;
                else hi = mid;
            }
            memmove(t->sorted + lo + i + 1, t->sorted + lo, (left - lo) * sizeof *t->sorted);
            t->sorted[lo + i] = more[i].sid;
            left = lo;
        }
        free(more);
        t->nsorted = t->nsubjects;
    }
    *ids = t->sorted;
    *n = t->nsubjects;
    return JSC_OK;
}

typedef struct selection {
    const jsc_tail *tail;
    const uint32_t *ids;
    int (*each)(void *ctx, uint32_t sid);
    void *ctx;
} selection;

static jsc_span selection_text(const void *list, uint32_t i) {
    const selection *s = list;
    return tail_text(&s->tail->part, s->ids[i]);
}

static int selection_each(void *ctx, uint32_t i) {
    const selection *s = ctx;
    return s->each(s->ctx, s->ids[i]);
}

static int tail_select(const jsc_part *p, const jsc_filter *filter, int (*each)(void *ctx, uint32_t sid), void *ctx) {
    /* The sorted list is no part of what the tail says, only of how fast: a const tail may sort. */
    jsc_tail *t = (jsc_tail *)(uintptr_t)p;
    selection s = {.tail = t, .each = each, .ctx = ctx};
    uint32_t n;
    int rc = jsc_tail_sorted(t, &s.ids, &n);
    return rc == JSC_OK ? jsc_filter_scan(filter, &s, n, selection_text, selection_each, &s) : rc;
}

static const jsc_part_ops tail_ops = {
    .count = tail_count,
    .seq = tail_seq,
    .ts = tail_ts,
    .offset = tail_offset,
    .size = tail_size,
    .bytes = tail_bytes,
    .subject = tail_subject,
    .find_seq = tail_find_seq,
    .find_ts = tail_find_ts,
    .subjects = tail_subjects,
    .text = tail_text,
    .find_subject = tail_find_subject,
    .occurrences = tail_occurrences,
    .posting = tail_posting,
    .select = tail_select,
};

/* ---- life ---- */

int jsc_tail_new(uint64_t base_seq, jsc_tail **out) {
    jsc_tail *t = calloc(1, sizeof *t);
    if (!t) return -ENOMEM;
    t->part.ops = &tail_ops;
    t->base_seq = t->last_seq = base_seq;
    t->heap = malloc_usable_size(t);
    *out = t;
    return JSC_OK;
}

void jsc_tail_free(jsc_tail *t) {
    if (!t) return;
    for (uint32_t i = 0; i < t->nsubjects; i++)
        if (subject_at(t, i)->count > FEW) free(subject_at(t, i)->list);
    for (size_t i = 0; i < t->nblocks; i++) {
        free(t->blocks[i]->high);
        free(t->blocks[i]->extra);
        free(t->blocks[i]);
    }
    for (size_t i = 0; i < t->ngroups; i++) free(t->groups[i]);
    while (t->texts) {
        texts *c = t->texts;
        t->texts = c->next;
        free(c);
    }
    free(t->blocks);
    free(t->jumps);
    free(t->escapes);
    free(t->groups);
    free(t->table);
    free(t->sorted);
    free(t);
}

uint32_t jsc_tail_lost(const jsc_tail *t) { return t->lost; }
size_t jsc_tail_heap(const jsc_tail *t) { return t->heap + t->subjects_heap; }
size_t jsc_tail_subjects_heap(const jsc_tail *t) { return t->subjects_heap; }
