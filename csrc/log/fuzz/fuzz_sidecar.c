/* Hostile sidecars: bytes with their checksums mended, so that the checks of structure are reached; and of what passes
 * those, every answer held against the bounds that callers rely on. */
#include "../sidecar_format.h"
#include "../../base/fuzz/driver.h"

#define MUST(x)                                                                                                        \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                                    \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* One file in memory, mapped as a copy of exactly its length: ASan sees the first byte too far. */
typedef struct file {
    const uint8_t *bytes;
    size_t n;
} file;

static ssize_t file_pread(void *self, int fd, void *buf, size_t n, off_t at) {
    const file *f = self;
    if ((size_t)at >= f->n) return 0;
    if (n > f->n - (size_t)at) n = f->n - (size_t)at;
    memcpy(buf, f->bytes + at, n);
    return (ssize_t)n;
}
static int64_t file_size(void *self, int fd) { return (int64_t)((file *)self)->n; }
static int file_map(void *self, int fd, size_t n, const void **out) {
    const file *f = self;
    MUST(n == f->n);
    void *p = malloc(n);
    memcpy(p, f->bytes, n);
    *out = p;
    return 0;
}
static int file_unmap(void *self, const void *p, size_t n) {
    free((void *)(uintptr_t)p);
    return 0;
}

/* Makes the checksums fit again and, if asked, the length. */
static size_t mend(uint8_t *p, size_t n, bool length) {
    jsc_sidecar_head h;
    if (n < JSC_SIDECAR_HEAD) return n;
    jsc_put64(p, JSC_SIDECAR_MAGIC);
    jsc_put32(p + 8, JSC_SIDECAR_VERSION);
    if (length) {
        h.info.count = jsc_get32(p + 116);
        h.info.subjects = jsc_get32(p + 120);
        h.flags = jsc_get32(p + 12);
        h.runs = jsc_get32(p + 132);
        h.others = jsc_get32(p + 136);
        h.text_bytes = jsc_get64(p + 152) & UINT32_MAX;
        jsc_sidecar_layout l;
        jsc_sidecar_lay_out(&h, &l);
        jsc_put64(p + 160, l.end);
        if (l.end < n - JSC_SIDECAR_HEAD) n = JSC_SIDECAR_HEAD + l.end;
    }
    jsc_put64(p + 176, jsc_subject_hash((const char *)p + JSC_SIDECAR_HEAD, n - JSC_SIDECAR_HEAD));
    jsc_put32(p + 252, jsc_crc32c(0, p, 252));
    return n;
}

typedef struct picks {
    const jsc_part *part;
    uint32_t last, n;
} picks;
static int pick(void *ctx, uint32_t sid) {
    picks *p = ctx;
    MUST(sid < p->part->ops->subjects(p->part) && (!p->n++ || sid > p->last));
    p->last = sid;
    return 0;
}

static void use(jsc_sidecar *s) {
    static const jsc_span filters[] = {{"b", 1}, {"a.*", 3}, {"*.b", 3}, {"b.>", 3}};
    const jsc_part *p = jsc_sidecar_part(s);
    const jsc_part_ops *ops = p->ops;
    const jsc_sidecar_info *info = jsc_sidecar_about(s);
    uint32_t n = ops->count(p), subjects = ops->subjects(p), total = 0;
    for (uint32_t i = 0; i < n; i++) {
        MUST(ops->seq(p, i) > info->base_seq && ops->seq(p, i) <= info->last_seq);
        MUST(ops->subject(p, i) < subjects && ops->offset(p, i) + ops->bytes(p, i) <= info->used);
        MUST(ops->find_seq(p, ops->seq(p, i)) == i);
        uint32_t at = ops->find_ts(p, ops->ts(p, i));
        MUST(at <= i && ops->ts(p, at) == ops->ts(p, i) && (!at || ops->ts(p, at - 1) < ops->ts(p, i)));
    }
    for (uint32_t i = 0; i < subjects; i++) {
        jsc_span t = ops->text(p, i);
        uint32_t sid = ops->find_subject(p, t.p, t.n, jsc_subject_hash(t.p, t.n));
        MUST(sid == i || sid == JSC_NONE); /* a forged table may hide a subject, not name another */
        for (uint32_t k = 0; k < ops->occurrences(p, i); k++, total++)
            MUST(ops->subject(p, ops->posting(p, i, k)) == i);
    }
    MUST(total == n);
    for (uint64_t i = info->first; i <= info->last && i - info->first < 300; i++) {
        uint64_t at = jsc_sidecar_record_at(s, i);
        MUST(!at || at == JSC_AT_GAP || (at >= JSC_SEGMENT_HEAD && at % 8 == 0 && at < info->used));
    }
    for (size_t i = 0; i <= 4; i++) {
        jsc_filter *f;
        picks got = {p, 0, 0};
        uint32_t want = 0;
        MUST(jsc_filter_new(filters, i, &f) == JSC_OK);
        MUST(ops->select(p, f, pick, &got) == 0);
        for (uint32_t k = 0; k < subjects; k++) {
            jsc_span t = ops->text(p, k);
            want += jsc_filter_match(f, t.p, t.n);
        }
        MUST(got.n == want || (i == 1 && !got.n)); /* the literal is looked up in the table */
        jsc_filter_free(f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1 || n > 65536) return 0;
    uint8_t *p = malloc(n);
    memcpy(p, data + 1, --n);
    if (data[0] & 3) n = mend(p, n, data[0] & 2);
    file f = {p, n};
    const jsc_vfs vfs = {.self = &f, .pread = file_pread, .size = file_size, .map = file_map, .unmap = file_unmap};
    jsc_sidecar_info info;
    jsc_sidecar *s = NULL;
    int peeked = jsc_sidecar_peek(&vfs, 0, &info), rc = jsc_sidecar_open(&vfs, 0, NULL, &s);
    MUST(rc == JSC_OK || rc == JSC_ECORRUPT || rc == JSC_EFORMAT || rc == JSC_EKEY);
    MUST((rc == JSC_OK) == (s != NULL) && (rc != JSC_OK || peeked == JSC_OK));
    if (s) use(s);
    jsc_sidecar_close(s);
    free(p);
    return 0;
}

/* The part of the seed: message i has sequence i + 1, one of four subjects and, of `odd` ones, headers. */
typedef struct seed_part {
    jsc_part part;
    bool odd;
} seed_part;
static const jsc_span seed_texts[] = {{"a.b", 3}, {"b", 1}, {"a", 1}, {"b.c.d", 5}};
static uint32_t seed_count(const jsc_part *p) { return 12; }
static uint32_t seed_subjects(const jsc_part *p) { return 4; }
static uint64_t seed_seq(const jsc_part *p, uint32_t i) { return i + 1; }
static int64_t seed_ts(const jsc_part *p, uint32_t i) { return i * i / 2; }
static uint64_t seed_offset(const jsc_part *p, uint32_t i) { return i == 11 ? 0 : 64 + 64 * (uint64_t)i; }
static uint32_t seed_size(const jsc_part *p, uint32_t i) { return i == 11 ? 0 : 5; }
static uint32_t seed_bytes(const jsc_part *p, uint32_t i) {
    return i == 11 ? 0 : ((const seed_part *)p)->odd && i % 2 ? 64 : (uint32_t)JSC_PAD(37 + seed_texts[i % 4].n);
}
static uint32_t seed_subject(const jsc_part *p, uint32_t i) { return i % 4; }
static jsc_span seed_text(const jsc_part *p, uint32_t sid) { return seed_texts[sid]; }
static const jsc_part_ops seed_ops = {.count = seed_count,
                                      .subjects = seed_subjects,
                                      .seq = seed_seq,
                                      .ts = seed_ts,
                                      .offset = seed_offset,
                                      .size = seed_size,
                                      .bytes = seed_bytes,
                                      .subject = seed_subject,
                                      .text = seed_text};

/* Twelve messages with a gap in their midst, three other records, one of them lost. */
static size_t seed_build(bool odd, uint8_t *to) {
    seed_part part = {{&seed_ops}, odd};
    jsc_sidecar_record records[14];
    jsc_sidecar_info info = {.first = 5, .last = 24, .last_seq = 13, .used = 1024, .record_bytes = 900};
    uint8_t *out;
    size_t n = 0, bytes;
    for (uint32_t i = 0; i < 11; i++)
        records[n++] = (jsc_sidecar_record){5 + i + (i > 5 ? 3 : 0), 64 + 64 * (uint64_t)i};
    records[n++] = (jsc_sidecar_record){20, 800};
    records[n++] = (jsc_sidecar_record){21, 0};
    records[n++] = (jsc_sidecar_record){23, 840};
    MUST(jsc_sidecar_build(&part.part, records, n, &info, NULL, &out, &bytes) == JSC_OK && bytes <= 4096);
    memcpy(to, out, bytes);
    free(out);
    return bytes;
}

static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    uint8_t seed[4096];
    p->lead = 1;
    p->draw[0] = 255;
    p->likes = "\0\1\377\177\200\10";
    p->nlikes = 6;
    for (int odd = 0; odd < 2; odd++) jsc_fuzz_add(p, "\3", seed, seed_build(odd, seed));
}
