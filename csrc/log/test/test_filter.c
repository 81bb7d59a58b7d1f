/* Subject filters against a matcher that is too simple to be wrong, on random subjects and filters of a small alphabet. */
#include "../filter.h"

#define CHECK_CASE " (seed %llu)", (unsigned long long)seed
#include "../../base/test/check.h"

static uint64_t seed;
static jsc_span span(const char *text) { return (jsc_span){text, strlen(text)}; }

/* ---- the simple matcher: token by token, by its own recursion ---- */

static size_t token(jsc_span t) {
    size_t n = 0;
    while (n < t.n && t.p[n] != '.') n++;
    return n;
}

static bool rest_matches(jsc_span f, jsc_span s) {
    size_t a = token(f), b = token(s);
    if (a == 1 && f.p[0] == '>') return true;
    if (!(a == 1 && f.p[0] == '*') && (a != b || memcmp(f.p, s.p, a) != 0)) return false;
    bool f_ends = a == f.n, s_ends = b == s.n;
    if (f_ends || s_ends) return f_ends && s_ends;
    return rest_matches((jsc_span){f.p + a + 1, f.n - a - 1}, (jsc_span){s.p + b + 1, s.n - b - 1});
}

static bool simple(const jsc_span *f, size_t n, jsc_span s) {
    if (!n) return true;
    for (size_t i = 0; i < n; i++)
        if (s.n && rest_matches(f[i], s)) return true;
    return false;
}

/* ---- random texts, each in a block of its own, so that ASan sees the first byte too far ---- */

static const char *letters = "ab-/"; /* '-' sorts before '.', '/' right behind it */

static size_t put_token(char *to, int wild) {
    uint64_t kind = rnd(100);
    if (wild && kind < 30) return (*to = '*', 1);
    size_t n = 1 + (size_t)rnd(2);
    for (size_t i = 0; i < n; i++) to[i] = letters[rnd(kind < 97 ? 2 : 4)];
    if (kind >= 97 && rnd(4) == 0)
        to[0] = "*>"[rnd(2)]; /* a wildcard's letter where it has no meaning, or in a subject */
    if (wild && n == 1 && to[0] == '>') to[0] = 'a';
    return n;
}

static jsc_span random_text(int wild) {
    char text[64];
    size_t n = 0, tokens = 1 + (size_t)rnd(4);
    for (size_t i = 0; i < tokens; i++) {
        if (i) text[n++] = '.';
        if (wild || rnd(30)) n += put_token(text + n, wild);
    }
    if (wild && rnd(5) == 0) {
        if (rnd(5)) text[n++] = '.';
        else n = 0;
        text[n++] = '>';
    }
    char *p = malloc(n + !n);
    memcpy(p, text, n);
    return (jsc_span){p, n};
}

static int by_text(const void *a, const void *b) {
    const jsc_span *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* ---- the scan ---- */

typedef struct subjects {
    jsc_span *list;
    uint32_t n, stop;
    uint32_t *seen, nseen;
    uint64_t looks;
} subjects;

static jsc_span text(const void *list, uint32_t i) {
    subjects *s = (subjects *)(uintptr_t)list;
    if (i >= s->n) abort();
    s->looks++;
    return s->list[i];
}

static int see(void *ctx, uint32_t i) {
    subjects *s = ctx;
    s->seen[s->nseen++] = i;
    return s->nseen == s->stop ? 77 : 0;
}

static void check_scan(const jsc_filter *f, const jsc_span *filters, size_t nfilters, subjects *s) {
    uint32_t want = 0;
    s->nseen = s->stop = 0;
    CHECK(jsc_filter_scan(f, s, s->n, text, see, s) == 0);
    for (uint32_t i = 0; i < s->n; i++) {
        bool yes = simple(filters, nfilters, s->list[i]);
        CHECK(jsc_filter_match(f, s->list[i].p, s->list[i].n) == yes);
        if (yes) {
            CHECK(want < s->nseen && s->seen[want] == i);
            want++;
        }
    }
    CHECK(want == s->nseen);
    if (!want) return;
    s->nseen = 0;
    s->stop = 1 + (uint32_t)rnd(want);
    CHECK(jsc_filter_scan(f, s, s->n, text, see, s) == 77);
    CHECK(s->nseen == s->stop);
}

static void random_round(void) {
    subjects s = {.n = (uint32_t)rnd(rnd(3) ? 40 : 400)};
    s.list = malloc((s.n + 1) * sizeof *s.list);
    s.seen = malloc((s.n + 1) * sizeof *s.seen);
    uint32_t n = 0;
    for (uint32_t i = 0; i < s.n; i++) s.list[i] = random_text(0);
    qsort(s.list, s.n, sizeof *s.list, by_text);
    for (uint32_t i = 0; i < s.n; i++) {
        if (n && by_text(&s.list[n - 1], &s.list[i]) == 0) free((void *)(uintptr_t)s.list[i].p);
        else s.list[n++] = s.list[i];
    }
    s.n = n;
    for (int k = 0; k < 20; k++) {
        size_t nf = (size_t)rnd(k % 5 ? 3 : 60);
        jsc_span filters[60];
        for (size_t i = 0; i < nf; i++) filters[i] = random_text(1);
        jsc_filter *f = NULL;
        CHECK(jsc_filter_new(filters, nf, &f) == JSC_OK);
        CHECK(jsc_filter_all(f) == (nf == 0));
        check_scan(f, filters, nf, &s);
        jsc_filter_free(f);
        for (size_t i = 0; i < nf; i++) free((void *)(uintptr_t)filters[i].p);
    }
    for (uint32_t i = 0; i < s.n; i++) free((void *)(uintptr_t)s.list[i].p);
    free(s.list);
    free(s.seen);
}

/* A list out of order: any answer, but an end, and no place outside of it. */
static void unordered_round(void) {
    subjects s = {.n = (uint32_t)rnd(60)};
    s.list = malloc((s.n + 1) * sizeof *s.list);
    s.seen = malloc((s.n + 1) * sizeof *s.seen);
    for (uint32_t i = 0; i < s.n; i++) s.list[i] = random_text(0);
    jsc_span filters[8];
    for (int i = 0; i < 8; i++) filters[i] = random_text(1);
    jsc_filter *f = NULL;
    CHECK(jsc_filter_new(filters, 8, &f) == JSC_OK);
    CHECK(jsc_filter_scan(f, &s, s.n, text, see, &s) == 0);
    for (uint32_t i = 1; i < s.nseen; i++) CHECK(s.seen[i - 1] < s.seen[i]);
    jsc_filter_free(f);
    for (int i = 0; i < 8; i++) free((void *)(uintptr_t)filters[i].p);
    for (uint32_t i = 0; i < s.n; i++) free((void *)(uintptr_t)s.list[i].p);
    free(s.list);
    free(s.seen);
}

static int refused(const char *t) {
    jsc_span s = span(t);
    jsc_filter *f = NULL;
    int rc = jsc_filter_new(&s, 1, &f);
    if (rc == JSC_OK) jsc_filter_free(f);
    else CHECK(!f);
    return rc;
}

static void test_texts(void) {
    CHECK(refused("") == JSC_EINVAL);
    CHECK(refused(".") == JSC_EINVAL);
    CHECK(refused("a.") == JSC_EINVAL);
    CHECK(refused(".a") == JSC_EINVAL);
    CHECK(refused("a..b") == JSC_EINVAL);
    CHECK(refused(">.a") == JSC_EINVAL);
    CHECK(refused("a.>.*") == JSC_EINVAL);
    CHECK(refused("a>.b*.*c.>d") == JSC_OK);
    CHECK(refused("*.*.>") == JSC_OK);
    char *big = malloc(65536);
    memset(big, 'x', 65536);
    jsc_span s = {big, 65536};
    jsc_filter *f = NULL;
    CHECK(jsc_filter_new(&s, 1, &f) == JSC_EINVAL);
    s.n = 65535;
    CHECK(jsc_filter_new(&s, 1, &f) == JSC_OK);
    CHECK(jsc_filter_match(f, big, 65535) && !jsc_filter_match(f, big, 65534));
    jsc_filter_free(f);
    for (int i = 0; i < 65535; i++) big[i] = i % 2 ? '.' : '*'; /* as many steps as fit */
    CHECK(jsc_filter_new(&s, 1, &f) == JSC_OK);
    CHECK(jsc_filter_match(f, big, 65535) && !jsc_filter_match(f, big, 65533));
    jsc_filter_free(f);
    free(big);
    jsc_span *many = malloc(65537 * sizeof *many);
    for (int i = 0; i < 65537; i++) many[i] = span("a");
    CHECK(jsc_filter_new(many, 65537, &f) == JSC_EINVAL);
    CHECK(jsc_filter_new(many, 65536, &f) == JSC_OK);
    jsc_span one;
    CHECK(jsc_filter_literal(f, &one) && one.n == 1 && *one.p == 'a'); /* the same text again and again is one */
    jsc_filter_free(f);
    free(many);
    jsc_span two[2] = {span("a"), span("b.*")};
    CHECK(jsc_filter_new(two, 2, &f) == JSC_OK);
    CHECK(!jsc_filter_literal(f, &one) && !jsc_filter_all(f));
    CHECK(jsc_filter_match(f, "b.", 2) && !jsc_filter_match(f, "b", 1) && !jsc_filter_match(f, "", 0));
    jsc_filter_free(f);
    CHECK(jsc_filter_new(NULL, 0, &f) == JSC_OK);
    CHECK(jsc_filter_all(f) && jsc_filter_match(f, "", 0) && !jsc_filter_literal(f, &one));
    jsc_filter_free(f);
    jsc_span rest = span(">");
    CHECK(jsc_filter_new(&rest, 1, &f) == JSC_OK);
    CHECK(!jsc_filter_match(f, "", 0) && jsc_filter_match(f, ".", 1) && jsc_filter_match(f, "a.b", 3));
    jsc_filter_free(f);
}

static uint64_t looks_for(subjects *s, uint32_t count, uint32_t want, size_t n, const jsc_span *filters) {
    jsc_filter *f = NULL;
    CHECK(jsc_filter_new(filters, n, &f) == JSC_OK);
    s->nseen = s->stop = 0;
    s->looks = 0;
    CHECK(jsc_filter_scan(f, s, count, text, see, s) == 0 && s->nseen == want);
    for (uint32_t i = 1; i < s->nseen; i++) CHECK(s->seen[i - 1] < s->seen[i]);
    jsc_filter_free(f);
    return s->looks;
}

/* The cost follows the matches and the prefixes tried, not the list: counted in entries looked at. */
static void test_skips(void) {
    const uint32_t width = 200000;
    subjects s = {.n = width};
    char *texts = malloc((size_t)width * 24), *p = texts;
    s.list = malloc(width * sizeof *s.list);
    s.seen = malloc(width * sizeof *s.seen);
    for (uint32_t i = 0; i < width; i++) { /* r00 … r19, 10,000 devices each, a kind for each */
        int n = snprintf(p, 24, "r%02u.d%05u.%s", i / 10000, i % 10000, i % 2 ? "cold" : "warm");
        s.list[i] = (jsc_span){p, (size_t)n};
        p += n;
    }
    CHECK(looks_for(&s, width, 1, 1, (jsc_span[]){span("r07.d00042.warm")}) < 50);
    CHECK(looks_for(&s, width, 20, 1, (jsc_span[]){span("*.d00043.cold")}) < 20 * 100);
    CHECK(looks_for(&s, width, 0, 1, (jsc_span[]){span("*.d00043.warm")}) < 20 * 100);
    CHECK(looks_for(&s, width, 0, 1, (jsc_span[]){span("*")}) < 20 * 50);
    CHECK(looks_for(&s, width, 0, 1, (jsc_span[]){span("r05.*.cold.*")}) < 3 * 10000);
    CHECK(looks_for(&s, width, 5000, 1, (jsc_span[]){span("r05.*.cold")}) < 4 * 10000);
    CHECK(looks_for(&s, width, 10000, 1, (jsc_span[]){span("r05.>")}) < 100);
    CHECK(looks_for(&s, width, 10001, 3, (jsc_span[]){span("r05.>"), span("r05.*.cold"), span("r19.d09999.cold")}) <
          5 * 10000);
    jsc_span *all = malloc(65536 * sizeof *all); /* many literals in a short list */
    memcpy(all, s.list, 65536 * sizeof *all);
    CHECK(looks_for(&s, 10, 10, 65536, all) < 100);
    jsc_filter *f = NULL;
    CHECK(jsc_filter_new(all, 65536, &f) == JSC_OK);
    for (uint32_t i = 0; i < width; i++) CHECK(jsc_filter_match(f, s.list[i].p, s.list[i].n) == (i < 65536));
    jsc_filter_free(f);
    free(all);
    free(texts);
    free(s.list);
    free(s.seen);
}

int main(int argc, char **argv) {
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 1500;
    test_texts();
    test_skips();
    for (seed = 1; seed <= rounds; seed++) {
        rnd_state = seed;
        random_round();
        unordered_round();
    }
    puts("test_filter: ok");
    return 0;
}
