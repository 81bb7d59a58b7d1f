/* One pass over a message's headers, picking those that decide what a stream does with it (spec streams §7, §8). */
#include "internal.h"

int jsc_span_eq(jsc_span s, const char *text) {
    size_t n = strlen(text);
    return s.n == n && !memcmp(s.p, text, n);
}

int jsc_parse_u64(const char *s, size_t n, uint64_t *out) {
    uint64_t v = 0;
    if (!n || n > 20) return 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') return 0;
        uint64_t d = (uint64_t)(s[i] - '0');
        if (v > (UINT64_MAX - d) / 10) return 0;
        v = v * 10 + d;
    }
    *out = v;
    return 1;
}

static int same_word(const char *s, const char *name, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((s[i] | 0x20) != (name[i] | 0x20)) return 0;
    return 1;
}

int jsc_header_find(const char *h, size_t n, const char *name, jsc_span *value, jsc_span *line) {
    const char *end = h + n;
    size_t len = strlen(name);
    while (h < end) {
        const char *nl = memchr(h, '\n', (size_t)(end - h)), *next = nl ? nl + 1 : end;
        if ((size_t)(next - h) > len && h[len] == ':' && same_word(h, name, len)) {
            const char *v = h + len + 1, *ve = next;
            while (v < ve && (*v == ' ' || *v == '\t')) v++;
            while (ve > v && (ve[-1] == ' ' || ve[-1] == '\t' || ve[-1] == '\r' || ve[-1] == '\n')) ve--;
            *value = (jsc_span){v, (uint32_t)(ve - v)};
            *line = (jsc_span){h, (uint32_t)(next - h)};
            return 1;
        }
        h = next;
    }
    return 0;
}

void jsc_headers_parse(const char *h, size_t n, jsc_headers *out) {
    memset(out, 0, sizeof *out);
    const char *end = h + n;
    while (h < end) {
        const char *nl = memchr(h, '\n', (size_t)(end - h));
        const char *stop = nl ? nl : end;
        const char *next = nl ? nl + 1 : end;
        while (stop > h && (stop[-1] == '\r')) stop--;
        if (stop - h > 5 && !memcmp(h, "Nats-", 5)) {
            const char *colon = memchr(h, ':', (size_t)(stop - h));
            if (colon) {
                jsc_span name = {h + 5, (uint32_t)(colon - h - 5)};
                const char *v = colon + 1, *ve = stop;
                while (v < ve && (*v == ' ' || *v == '\t')) v++;
                while (ve > v && (ve[-1] == ' ' || ve[-1] == '\t')) ve--;
                static const struct {
                    const char *name;
                    size_t at;
                } known[] = {
                    {"Msg-Id", offsetof(jsc_headers, msg_id)},
                    {"Expected-Stream", offsetof(jsc_headers, exp_stream)},
                    {"Expected-Last-Sequence", offsetof(jsc_headers, exp_last)},
                    {"Expected-Last-Msg-Id", offsetof(jsc_headers, exp_last_id)},
                    {"Expected-Last-Subject-Sequence", offsetof(jsc_headers, exp_subj)},
                    {"Expected-Last-Subject-Sequence-Subject", offsetof(jsc_headers, exp_subj_of)},
                    {"Rollup", offsetof(jsc_headers, rollup)},
                    {"TTL", offsetof(jsc_headers, ttl)},
                    {"Incr", offsetof(jsc_headers, incr)},
                    {"Batch-Id", offsetof(jsc_headers, batch_id)},
                    {"Schedule", offsetof(jsc_headers, schedule)},
                    {"Scheduler", offsetof(jsc_headers, scheduler)},
                    {"Schedule-Next", offsetof(jsc_headers, schedule_next)},
                };
                for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                    if (jsc_span_eq(name, known[i].name)) {
                        jsc_span *slot = (jsc_span *)((char *)out + known[i].at);
                        if (!slot->p) { /* the first of equal names counts */
                            slot->p = v;
                            slot->n = (uint32_t)(ve - v);
                            out->any = 1;
                        }
                        break;
                    }
            }
        }
        h = next;
    }
}
