/* The index of an open segment against plain arrays: what it answers, what it holds, what it does without memory. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>

/* tail.c is compiled into this program with an allocator that can be told to fail. */
static int fail_in = -1; /* allocations until one fails; < 0: none does */
static bool fails(void) { return fail_in >= 0 && fail_in-- == 0; }
static void *test_malloc(size_t n) { return fails() ? NULL : malloc(n); }
static void *test_calloc(size_t n, size_t size) { return fails() ? NULL : calloc(n, size); }
static void *test_realloc(void *p, size_t n) { return fails() ? NULL : realloc(p, n); }
#define malloc test_malloc
#define calloc test_calloc
#define realloc test_realloc
#include "../tail.c"
#undef malloc
#undef calloc
#undef realloc

static uint64_t seed;

#define CHECK_CASE " (seed %llu)", (unsigned long long)seed
#include "../../base/test/check.h"

/* ---- the model ---- */

#define MOST 12000
#define NAMES 600

typedef struct message {
    uint64_t seq, offset;
    int64_t ts;
    uint32_t size, bytes, name;
} message;

static struct {
    uint64_t base;
    uint32_t n;
    message m[MOST];
} model;

static char names[NAMES][40];
static size_t name_n[NAMES];
static uint32_t hash_bits; /* few: many subjects collide */

static uint64_t hash_of(uint32_t name) {
    return hash_bits == 64 ? jsc_hash(names[name], name_n[name]) : name % (1u << hash_bits);
}

static void make_names(void) {
    name_n[0] = 0; /* the empty subject, which lost messages have too */
    for (uint32_t i = 1; i < NAMES; i++) {
        /* Different by their numbers, in no order; one a prefix of another now and then. */
        const char *head = rnd(3) ? "orders" : rnd(2) ? "a" : "z.y";
        name_n[i] = (size_t)sprintf(names[i], "%s.%u%s", head, i, rnd(4) ? "" : ".x");
    }
}

/* ---- comparing ---- */

static void check_message(const jsc_part *p, uint32_t ord) {
    const message *m = &model.m[ord];
    CHECK(p->ops->seq(p, ord) == m->seq);
    CHECK(p->ops->ts(p, ord) == m->ts);
    CHECK(p->ops->offset(p, ord) == m->offset);
    CHECK(p->ops->size(p, ord) == m->size);
    CHECK(p->ops->bytes(p, ord) == m->bytes);
    jsc_span text = p->ops->text(p, p->ops->subject(p, ord));
    CHECK(text.n == name_n[m->name] && !memcmp(text.p, names[m->name], text.n));
}

static uint32_t model_seq(uint64_t seq) {
    uint32_t i = 0;
    while (i < model.n && model.m[i].seq < seq) i++;
    return i;
}

static uint32_t model_ts(int64_t ts) {
    uint32_t i = 0;
    while (i < model.n && model.m[i].ts < ts) i++;
    return i;
}

static void check_name(const jsc_part *p, uint32_t name) {
    uint32_t sid = p->ops->find_subject(p, names[name], name_n[name], hash_of(name)), k = 0;
    if (sid == JSC_NONE) {
        for (uint32_t i = 0; i < model.n; i++) CHECK(model.m[i].name != name);
        return;
    }
    uint32_t n = p->ops->occurrences(p, sid);
    for (uint32_t i = 0; i < model.n; i++) {
        if (model.m[i].name != name) continue;
        CHECK(k < n && p->ops->posting(p, sid, k) == i && p->ops->subject(p, i) == sid);
        CHECK(jsc_part_posting_at(p, sid, i) == k && jsc_part_posting_at(p, sid, i + 1) == k + 1);
        k++;
    }
    CHECK(k == n && n > 0);
}

typedef struct seen {
    const jsc_part *part;
    const jsc_filter *filter;
    jsc_span last;
    uint32_t n, stop;
} seen;

static int see(void *ctx, uint32_t sid) {
    seen *s = ctx;
    jsc_span text = s->part->ops->text(s->part, sid);
    if (s->n) {
        int c = memcmp(s->last.p, text.p, s->last.n < text.n ? s->last.n : text.n);
        CHECK(c < 0 || (c == 0 && s->last.n < text.n));
    }
    CHECK(jsc_filter_match(s->filter, text.p, text.n));
    s->last = text;
    return ++s->n == s->stop ? 77 : 0;
}

static void check_select(const jsc_part *p) {
    static const char *const texts[] = {"orders.*", "*.*.x", "a.>", "z.y.*", "orders.7", "nothing.here", ">"};
    jsc_span spans[2];
    size_t n = rnd(3);
    for (size_t i = 0; i < n; i++) {
        const char *t = texts[rnd(sizeof texts / sizeof *texts)];
        spans[i] = (jsc_span){t, strlen(t)};
    }
    jsc_filter *f;
    CHECK(jsc_filter_new(spans, n, &f) == JSC_OK);
    uint32_t want = 0, subjects = p->ops->subjects(p);
    for (uint32_t sid = 0; sid < subjects; sid++) {
        jsc_span text = p->ops->text(p, sid);
        want += jsc_filter_match(f, text.p, text.n);
    }
    seen s = {.part = p, .filter = f};
    CHECK(p->ops->select(p, f, see, &s) == JSC_OK && s.n == want);
    if (want) {
        seen part = {.part = p, .filter = f, .stop = 1 + (uint32_t)rnd(want)};
        CHECK(p->ops->select(p, f, see, &part) == 77 && part.n == part.stop);
    }
    jsc_filter_free(f);
}

static void check_some(const jsc_part *p) {
    CHECK(p->ops->count(p) == model.n);
    for (int i = 0; model.n && i < 30; i++) {
        uint32_t ord = (uint32_t)rnd(model.n);
        const message *m = &model.m[ord];
        check_message(p, ord);
        for (uint64_t d = 0; d < 3; d++) {
            CHECK(p->ops->find_seq(p, m->seq + d - 1) == model_seq(m->seq + d - 1));
            CHECK(p->ops->find_ts(p, m->ts + (int64_t)d - 1) == model_ts(m->ts + (int64_t)d - 1));
        }
    }
    CHECK(p->ops->find_seq(p, UINT64_MAX) == model.n && p->ops->find_seq(p, 0) == 0);
    CHECK(p->ops->find_ts(p, INT64_MAX) == model_ts(INT64_MAX) && p->ops->find_ts(p, INT64_MIN) == 0);
    check_name(p, (uint32_t)rnd(NAMES));
}

static void check_all(const jsc_part *p) {
    for (uint32_t ord = 0; ord < model.n; ord++) check_message(p, ord);
    for (uint32_t name = 0; name < NAMES; name++) check_name(p, name);
    uint32_t lost = 0;
    for (uint32_t ord = 0; ord < model.n; ord++) lost += !model.m[ord].offset;
    CHECK(jsc_tail_lost((const jsc_tail *)p) == lost);
}

/* ---- random histories ---- */

static message next_message(uint64_t holes, uint64_t headers, uint64_t use) {
    const message *last = model.n ? &model.m[model.n - 1] : NULL;
    message m = {.seq = (last ? last->seq : model.base) + 1, .name = (uint32_t)rnd(use)};
    if (holes && !rnd(holes)) m.seq += 1 + rnd(1000);
    m.ts =
        (last ? last->ts : (int64_t)rnd(1000) - 500) + (rnd(3) ? 0 : (int64_t)rnd(rnd(10) ? 1000 : UINT64_C(1) << 45));
    if (!rnd(50)) {
        m.name = 0;
        return m;
    }
    m.offset = (1 + rnd((UINT64_C(1) << 32) - 1)) * 8;
    static const uint32_t edges[] = {0, 65533, 65534, 65535, 65536, 100u << 20};
    m.size = rnd(20) ? (uint32_t)rnd(2000) : edges[rnd(6)];
    uint64_t bytes = PLAIN_BYTES(name_n[m.name], m.size);
    if (headers && !rnd(headers)) bytes += rnd(20) ? 8 * rnd(60) : 8 * (uint64_t)(65535 + rnd(2));
    if (!rnd(200)) bytes = rnd(1000); /* sizes that do not fit together are no business of the index */
    m.bytes = (uint32_t)bytes;
    return m;
}

static void history(void) {
    jsc_tail *t;
    model.base = rnd(2) ? 0 : rnd(UINT64_C(1) << 60);
    model.n = 0;
    hash_bits = rnd(4) ? 64 : (uint32_t)rnd(4);
    uint64_t holes = rnd(2) ? 0 : 1 + rnd(50), headers = rnd(2) ? 0 : 1 + rnd(5), use = 1 + rnd(NAMES);
    uint32_t most = (uint32_t)rnd(rnd(4) ? 500 : MOST);
    make_names();
    CHECK(jsc_tail_new(model.base, &t) == JSC_OK);
    const jsc_part *p = jsc_tail_part(t);
    while (model.n < most) {
        message m = next_message(holes, headers, use);
        const char *text = name_n[m.name] ? names[m.name] : NULL;
        /* One failure at a time, at every allocation in turn, until it has all it needs. */
        for (int k = 0;; k++) {
            fail_in = rnd(8) ? -1 : k;
            int rc = jsc_tail_add(t, m.seq, m.ts, m.offset, m.size, m.bytes, text, name_n[m.name], hash_of(m.name));
            bool failed = fail_in == -1 && rc == -ENOMEM;
            fail_in = -1;
            if (rc == JSC_OK) break;
            CHECK(failed);
            if (!rnd(4)) check_some(p);
        }
        model.m[model.n++] = m;
        if (!rnd(300)) check_some(p);
        if (!rnd(400)) {
            fail_in = rnd(2) ? 0 : -1;
            const uint32_t *ids;
            uint32_t n;
            int rc = jsc_tail_sorted(t, &ids, &n);
            fail_in = -1;
            CHECK(rc == JSC_OK || rc == -ENOMEM);
            check_select(p);
        }
    }
    check_some(p);
    check_select(p);
    check_all(p);
    if (model.n) {
        const message *m = &model.m[model.n - 1];
        CHECK(jsc_tail_add(t, m->seq, m->ts, 8, 0, 32, "a", 1, 1) == JSC_EINVAL);
        CHECK(jsc_tail_add(t, m->seq + 1, m->ts, 9, 0, 32, "a", 1, 1) == JSC_EINVAL);
        CHECK(jsc_tail_add(t, m->seq + 1, m->ts, UINT64_C(1) << 35, 0, 32, "a", 1, 1) == JSC_EINVAL);
        CHECK(p->ops->count(p) == model.n);
        CHECK(jsc_tail_add(t, m->seq + 1, INT64_MIN, 8, 0, 40, "a", 1, hash_of(1)) == JSC_OK);
        CHECK(p->ops->ts(p, model.n) == m->ts); /* raised */
    }
    jsc_tail_free(t);
}

/* ---- size ---- */

/* Heap beside the subjects' share, a message. */
static double heap_per_message(uint32_t n, uint32_t subjects, bool headers, const char *what) {
    jsc_tail *t;
    CHECK(jsc_tail_new(0, &t) == JSC_OK);
    char text[32];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t name = (uint32_t)(((uint64_t)i * 2654435761u) % subjects);
        size_t len = (size_t)sprintf(text, "orders.%u", name);
        uint32_t size = 100 + i % 50, bytes = (uint32_t)PLAIN_BYTES(len, size) + (headers ? 40 : 0);
        int rc = jsc_tail_add(t, i + 1, (int64_t)i * 12345678901, 64 + (uint64_t)i * 160, size, bytes, text, len,
                              jsc_hash(text, len));
        CHECK(rc == JSC_OK);
    }
    size_t own = jsc_tail_heap(t) - jsc_tail_subjects_heap(t);
    printf("%-13s %6u messages, %6u subjects: %5.2f B a message, subjects %.1f KiB\n", what, n, subjects,
           (double)own / n, (double)jsc_tail_subjects_heap(t) / 1024);
    jsc_tail_free(t);
    return (double)own / n;
}

static void sizes(void) {
    /* From half a block on, whatever the number: no slack that grows. */
    for (uint32_t n = 8192; n <= 600000; n += n / 3) CHECK(heap_per_message(n, 1, false, "one subject") <= 24);
    CHECK(heap_per_message(500000, 1000, false, "few subjects") <= 24);
    CHECK(heap_per_message(500000, 60000, false, "many subjects") <= 24);
    CHECK(heap_per_message(500000, 1000, true, "headers") <= 24);
    CHECK(heap_per_message(500000, 500000, false, "all different") <= 24);
}

int main(int argc, char **argv) {
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
    for (seed = 1; seed <= rounds; seed++) {
        rnd_state = seed * 0x2545f4914f6cdd1du;
        history();
    }
    sizes();
    printf("tail: %llu histories\n", (unsigned long long)rounds);
    return 0;
}
