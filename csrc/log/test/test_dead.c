/* The bits of the dead against an array of bools, over a part that is made up. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../dead.h"

static uint64_t seed;

#define CHECK_CASE " (seed %llu)", (unsigned long long)seed
#include "../../base/test/check.h"

/* ---- a part of arrays ---- */

#define MOST 3000
#define SUBJECTS 200

typedef struct made {
    jsc_part part;
    uint32_t n, subject[MOST], bytes[MOST], posting[SUBJECTS][MOST], occurrences[SUBJECTS];
} made;

static const made *of(const jsc_part *p) { return (const made *)p; }
static uint32_t made_count(const jsc_part *p) { return of(p)->n; }
static uint32_t made_bytes(const jsc_part *p, uint32_t ord) { return of(p)->bytes[ord]; }
static uint32_t made_subject(const jsc_part *p, uint32_t ord) { return of(p)->subject[ord]; }
static uint32_t made_occurrences(const jsc_part *p, uint32_t sid) { return of(p)->occurrences[sid]; }
static uint32_t made_posting(const jsc_part *p, uint32_t sid, uint32_t k) { return of(p)->posting[sid][k]; }

static const jsc_part_ops made_ops = {.count = made_count,
                                      .bytes = made_bytes,
                                      .subject = made_subject,
                                      .occurrences = made_occurrences,
                                      .posting = made_posting};

static made part;
static bool dead[MOST];

static void add_message(uint32_t subjects) {
    /* Half of them of one subject, so that it has many. */
    uint32_t ord = part.n++, sid = rnd(2) ? 0 : (uint32_t)rnd(subjects);
    part.subject[ord] = sid;
    part.bytes[ord] = (uint32_t)rnd(1 << 20);
    part.posting[sid][part.occurrences[sid]++] = ord;
    dead[ord] = false;
}

/* Other ids for the same subjects. */
static void exchange(uint32_t subjects) {
    uint32_t shift = (uint32_t)rnd(subjects);
    memset(part.occurrences, 0, sizeof part.occurrences);
    for (uint32_t ord = 0; ord < part.n; ord++) {
        uint32_t sid = part.subject[ord] = (part.subject[ord] + shift) % subjects;
        part.posting[sid][part.occurrences[sid]++] = ord;
    }
}

/* ---- comparing ---- */

static uint32_t count(uint32_t lo, uint32_t hi) {
    uint32_t n = 0;
    for (uint32_t i = lo; i < hi && i < part.n; i++) n += dead[i];
    return n;
}

static void check(jsc_dead *d, uint32_t subjects) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < part.n; i++) bytes += dead[i] ? part.bytes[i] : 0;
    CHECK(jsc_dead_count(d) == count(0, part.n) && jsc_dead_bytes(d) == bytes);
    for (int i = 0; i < 20; i++) {
        uint32_t lo = (uint32_t)rnd(part.n + 70), hi = (uint32_t)rnd(part.n + 70), ord = (uint32_t)rnd(part.n + 1);
        CHECK(jsc_dead_count_range(d, lo, hi) == count(lo, hi));
        uint32_t next = ord, sid = (uint32_t)rnd(subjects), of_sid = 0;
        while (next < part.n && dead[next]) next++;
        CHECK(jsc_dead_next_live(d, ord, part.n) == (next < part.n ? next : JSC_NONE));
        if (ord < part.n) {
            CHECK(jsc_dead_has(d, ord) == dead[ord]);
            uint32_t prev = ord + 1;
            while (prev && dead[prev - 1]) prev--;
            CHECK(jsc_dead_prev_live(d, ord) == (prev ? prev - 1 : JSC_NONE));
        }
        for (uint32_t k = 0; k < part.n; k++) of_sid += dead[k] && part.subject[k] == sid;
        CHECK(jsc_dead_of(d, &part.part, sid) == of_sid);
    }
}

/* The words say the same, and another one made of them is the same. */
static void check_words(jsc_dead **d) {
    size_t n;
    const uint64_t *words = jsc_dead_words(*d, &n);
    CHECK(n == 0 || words[n - 1] != 0);
    for (size_t i = 0; i < n * 64; i++) CHECK((words[i / 64] >> (i % 64) & 1) == (i < part.n && dead[i]));
    CHECK(count(0, part.n) == count(0, (uint32_t)(n * 64)));
    size_t more = n + rnd(3) + part.n / 64 + 2;
    uint64_t *copy = calloc(more, 8);
    if (n) memcpy(copy, words, n * 8);
    jsc_dead *other = NULL;
    CHECK(jsc_dead_new(&other) == JSC_OK);
    CHECK(jsc_dead_load(other, &part.part, copy, rnd(2) ? n : more) == JSC_OK);
    /* A bit behind the end: refused, nothing changed. */
    uint64_t beyond = part.n + rnd(64);
    copy[beyond / 64] |= (uint64_t)1 << (beyond % 64);
    CHECK(jsc_dead_load(other, &part.part, copy, more) == JSC_ECORRUPT);
    free(copy);
    jsc_dead_free(*d);
    *d = other;
}

static void history(void) {
    jsc_dead *d;
    uint32_t subjects = 1 + (uint32_t)rnd(SUBJECTS), most = 1 + (uint32_t)rnd(rnd(3) ? 300 : MOST - 100);
    uint64_t kills = rnd(6);
    memset(part.occurrences, 0, sizeof part.occurrences);
    part.part.ops = &made_ops;
    part.n = 0;
    CHECK(jsc_dead_new(&d) == JSC_OK);
    while (part.n < most) {
        add_message(subjects);
        for (uint64_t k = 0; k < kills && !rnd(2); k++) {
            uint32_t ord = (uint32_t)rnd(part.n);
            int error = JSC_OK;
            CHECK(jsc_dead_add(d, &part.part, ord, &error) == !dead[ord] && error == JSC_OK);
            dead[ord] = true;
        }
        if (!rnd(100)) check(d, subjects);
        if (!rnd(300)) {
            exchange(subjects);
            jsc_dead_move(d);
        }
        if (!rnd(300)) check_words(&d);
    }
    check(d, subjects);
    check_words(&d);
    check(d, subjects);
    CHECK(jsc_dead_heap(d) >= part.n / 64 * 8 * (jsc_dead_count(d) == part.n));
    jsc_dead_free(d);
}

static void nothing(void) {
    size_t n = 7;
    CHECK(!jsc_dead_has(NULL, 3) && jsc_dead_count(NULL) == 0 && jsc_dead_bytes(NULL) == 0);
    CHECK(jsc_dead_count_range(NULL, 0, 10) == 0 && jsc_dead_heap(NULL) == 0);
    CHECK(jsc_dead_next_live(NULL, 3, 10) == 3 && jsc_dead_next_live(NULL, 10, 10) == JSC_NONE);
    CHECK(jsc_dead_prev_live(NULL, 3) == 3);
    CHECK(jsc_dead_words(NULL, &n) == NULL && n == 0);
}

int main(int argc, char **argv) {
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 400;
    nothing();
    for (seed = 1; seed <= rounds; seed++) {
        rnd_state = seed * 0x2545f4914f6cdd1du;
        history();
    }
    printf("dead: %llu histories\n", (unsigned long long)rounds);
    return 0;
}
