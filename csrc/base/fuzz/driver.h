/* What every fuzzer of byte streams shares: its main, and how seeds become inputs. A fuzzer defines LLVMFuzzerTestOneInput
 * and jsc_fuzz_plan_fill. Built by itself it is a program: arguments are a number of mutations, or files to replay. With
 * JSC_LIBFUZZER libFuzzer drives, and now and then begins anew at one of the seeds. */
#ifndef JSC_FUZZ_DRIVER_H
#define JSC_FUZZ_DRIVER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JSC_FUZZ_SEEDS = 32, JSC_FUZZ_LEAD = 2 };

typedef struct jsc_fuzz_plan {
    size_t lead; /* bytes in front that say what is done with the rest: not mutated, but drawn */
    uint8_t draw[JSC_FUZZ_LEAD]; /* which of their bits */
    const char *likes; /* bytes that mean something to what is fuzzed */
    size_t nlikes;
    size_t head, tail; /* where the numbers are: hit more often; 0: anywhere alike */
    int changes; /* of one input, at most */
    struct {
        uint8_t *bytes;
        size_t n;
    } seeds[JSC_FUZZ_SEEDS];
    size_t nseeds, longest;
} jsc_fuzz_plan;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p); /* the fuzzer's own */

/* One more seed, copied. `lead` has as many bytes as the plan says. */
static inline void jsc_fuzz_add(jsc_fuzz_plan *p, const char *lead, const void *bytes, size_t n) {
    uint8_t *copy = malloc(p->lead + n);
    if (!copy || p->nseeds == JSC_FUZZ_SEEDS || !n) abort();
    memcpy(copy, lead, p->lead);
    memcpy(copy + p->lead, bytes, n);
    p->seeds[p->nseeds].bytes = copy;
    p->seeds[p->nseeds++].n = p->lead + n;
    if (p->lead + n > p->longest) p->longest = p->lead + n;
}

static inline const jsc_fuzz_plan *jsc_fuzz_get_plan(void) {
    static jsc_fuzz_plan plan; /* holds on to the seeds until the end */
    if (!plan.nseeds) {
        plan.changes = 6;
        jsc_fuzz_plan_fill(&plan);
        if (!plan.nseeds) abort();
    }
    return &plan;
}

static inline uint64_t jsc_fuzz_draw(uint64_t *r) {
    *r ^= *r << 13;
    *r ^= *r >> 7;
    *r ^= *r << 17;
    return *r;
}

/* One change of n bytes, of which the lead stays. Returns how many there are then: at most `room`, at least one. */
static inline size_t jsc_fuzz_change(const jsc_fuzz_plan *p, uint64_t *state, uint8_t *b, size_t n, size_t room) {
    uint64_t r = jsc_fuzz_draw(state), value = r >> 44;
    size_t from = p->lead, k = n - from, at = from + (size_t)(r >> 8 & 0xfffffff) % k, m;
    if (p->head && r & 128) {
        size_t edge = r & 64 ? p->head : p->tail, off = (size_t)(r >> 8 & 0xfffffff) % (edge ? edge : 1) % k;
        at = r & 64 ? from + off : n - 1 - off;
    }
    switch (r & 15) {
    case 0:
    case 1:
    case 2: b[at] ^= (uint8_t)(1u << (value & 7)); break;
    case 3:
    case 4:
    case 5:
    case 6: b[at] = (uint8_t)(p->nlikes ? p->likes[value % p->nlikes] : (char)value); break;
    case 7:
    case 8: b[at] = (uint8_t)value; break;
    case 9: b[at] = (uint8_t)(b[at] + (value & 1 ? 1 : -1)); break;
    case 10: memset(b + at, value & 1 ? 255 : 0, n - at < 4 ? n - at : 4); break;
    case 11:
    case 12: /* one byte less */
        if (k == 1) break;
        memmove(b + at, b + at + 1, n - at - 1);
        return n - 1;
    case 13: return at > from ? at : n; /* cut */
    default: /* a stretch again: long numbers, many headers */
        m = 1 + (size_t)value % (n - at);
        if (m > room - n) break;
        memmove(b + at + m, b + at, n - at);
        return n + m;
    }
    return n;
}

#ifdef JSC_LIBFUZZER
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned int seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned int seed) {
    const jsc_fuzz_plan *p = jsc_fuzz_get_plan();
    uint64_t r = 88172645463325252u ^ seed;
    size_t which = (size_t)(jsc_fuzz_draw(&r) >> 20) % p->nseeds;
    if ((n > p->lead + 1 && seed % 256) || p->seeds[which].n > max) return LLVMFuzzerMutate(data, n, max);
    n = p->seeds[which].n;
    memcpy(data, p->seeds[which].bytes, n);
    return jsc_fuzz_change(p, &r, data, n, max);
}
#else
static inline void jsc_fuzz_replay(const char *name) {
    size_t room = 1 << 20, n;
    uint8_t *b = malloc(room);
    FILE *f = fopen(name, "rb");
    if (!f || !b) {
        fprintf(stderr, "fuzz: cannot read %s\n", name);
        exit(1);
    }
    n = fread(b, 1, room, f);
    fclose(f);
    LLVMFuzzerTestOneInput(b, n);
    free(b);
}

int main(int argc, char **argv) {
    const jsc_fuzz_plan *p = jsc_fuzz_get_plan();
    size_t room = p->longest * 2 + 256;
    uint8_t *b = malloc(room);
    uint64_t r = 88172645463325252u;
    long rounds = argc > 1 ? 0 : 20000;
    if (!b) return 1;
    for (int i = 1; i < argc; i++) {
        char *end;
        long number = strtol(argv[i], &end, 10);
        if (*end) jsc_fuzz_replay(argv[i]);
        else rounds = number;
    }
    for (long i = 0; i < rounds; i++) {
        size_t which = (size_t)i % p->nseeds, n = p->seeds[which].n;
        memcpy(b, p->seeds[which].bytes, n);
        for (long k = i / (long)p->nseeds % (p->changes + 1); k > 0; k--) n = jsc_fuzz_change(p, &r, b, n, room);
        uint64_t drawn = jsc_fuzz_draw(&r);
        for (size_t k = 0; k < p->lead && drawn & 1; k++)
            b[k] = (uint8_t)((b[k] & ~p->draw[k]) | ((drawn >> (8 + 8 * k)) & p->draw[k]));
        LLVMFuzzerTestOneInput(b, n);
    }
    free(b);
    printf("fuzz: %ld inputs, ok\n", rounds);
    return 0;
}
#endif
#endif
