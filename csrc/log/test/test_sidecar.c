/* Sidecars of random parts: every question answered as the part answers it; every flipped byte, every other length and every
 * inconsistent number refused. Files are blocks of memory of exactly their length, so that ASan sees a byte too far. */
#include "../sidecar_format.h"

#include <errno.h>

#define CHECK_CASE " (seed %llu)", (unsigned long long)seed
#include "../../base/test/check.h"

static uint64_t seed;
/* ---- one file in memory ---- */

typedef struct file {
    const uint8_t *bytes;
    size_t n;
    int maps, fails; /* fails: the read from now that fails */
} file;

static ssize_t file_pread(void *self, int fd, void *buf, size_t n, off_t at) {
    file *f = self;
    if (f->fails && --f->fails == 0) return -EIO;
    if ((size_t)at >= f->n) return 0;
    if (n > f->n - (size_t)at) n = f->n - (size_t)at;
    if (n > 1000) n = 1000; /* short reads */
    memcpy(buf, f->bytes + at, n);
    return (ssize_t)n;
}
static int64_t file_size(void *self, int fd) { return (int64_t)((file *)self)->n; }
static int file_map(void *self, int fd, size_t n, const void **out) {
    file *f = self;
    CHECK(n == f->n);
    void *p = malloc(n);
    memcpy(p, f->bytes, n);
    f->maps++;
    *out = p;
    return 0;
}
static int file_unmap(void *self, const void *p, size_t n) {
    ((file *)self)->maps--;
    free((void *)(uintptr_t)p);
    return 0;
}

static jsc_vfs vfs_of(file *f) {
    return (jsc_vfs){.self = f, .pread = file_pread, .size = file_size, .map = file_map, .unmap = file_unmap};
}

/* ---- a part that is as simple as can be ---- */

typedef struct message {
    uint64_t seq, offset;
    int64_t ts;
    uint32_t size, bytes, sid;
} message;

typedef struct fake {
    jsc_part part;
    message *m;
    uint32_t n, nsubjects;
    jsc_span *subjects; /* in no order */
} fake;

static const fake *of(const jsc_part *p) { return (const fake *)p; }
static uint32_t fake_count(const jsc_part *p) { return of(p)->n; }
static uint64_t fake_seq(const jsc_part *p, uint32_t i) { return of(p)->m[i].seq; }
static int64_t fake_ts(const jsc_part *p, uint32_t i) { return of(p)->m[i].ts; }
static uint64_t fake_offset(const jsc_part *p, uint32_t i) { return of(p)->m[i].offset; }
static uint32_t fake_size(const jsc_part *p, uint32_t i) { return of(p)->m[i].size; }
static uint32_t fake_bytes(const jsc_part *p, uint32_t i) { return of(p)->m[i].bytes; }
static uint32_t fake_subject(const jsc_part *p, uint32_t i) { return of(p)->m[i].sid; }
static uint32_t fake_subjects(const jsc_part *p) { return of(p)->nsubjects; }
static jsc_span fake_text(const jsc_part *p, uint32_t sid) { return of(p)->subjects[sid]; }

static const jsc_part_ops fake_ops = {.count = fake_count,
                                      .seq = fake_seq,
                                      .ts = fake_ts,
                                      .offset = fake_offset,
                                      .size = fake_size,
                                      .bytes = fake_bytes,
                                      .subject = fake_subject,
                                      .subjects = fake_subjects,
                                      .text = fake_text};

/* A segment: its part, its records, and where each index should be found. */
typedef struct model {
    fake part;
    jsc_sidecar_record *records;
    size_t nrecords;
    uint64_t *at; /* by index - first */
    jsc_sidecar_info info;
} model;

static uint32_t subject_id(model *m, const char *text, size_t n) {
    fake *f = &m->part;
    for (uint32_t i = 0; i < f->nsubjects; i++)
        if (f->subjects[i].n == n && memcmp(f->subjects[i].p, text, n) == 0) return i;
    char *p = malloc(n + 1);
    memcpy(p, text, n);
    f->subjects[f->nsubjects] = (jsc_span){p, n};
    return f->nsubjects++;
}

static size_t random_subject(char *to, uint64_t kinds) {
    static const char *words[] = {"a", "b", "orders", "orders-x", "new", "", "x/y"};
    size_t n = 0;
    for (uint64_t i = 1 + rnd(3); i > 0; i--) {
        n += (size_t)sprintf(to + n, "%s", words[rnd(7)]);
        if (rnd(3) == 0) n += (size_t)sprintf(to + n, "%llu", (unsigned long long)rnd(kinds));
        if (i > 1) to[n++] = '.';
    }
    if (rnd(20) == 0) to[n++] = '\0'; /* subjects are bytes */
    return n;
}

static model *model_new(uint32_t indexes, uint64_t kinds) {
    model *m = calloc(1, sizeof *m);
    m->part = (fake){.part.ops = &fake_ops,
                     .m = calloc(indexes + 1, sizeof(message)),
                     .subjects = calloc(indexes + 2, sizeof(jsc_span))};
    m->records = calloc(indexes + 1, sizeof *m->records);
    m->at = calloc(indexes + 1, sizeof *m->at);
    uint64_t damage = rnd(3) == 0, controls = rnd(2), gaps = rnd(2), headers = rnd(2);
    uint64_t offset = JSC_SEGMENT_HEAD, seq = rnd(1000);
    int64_t ts = (int64_t)rnd(1000) - 500;
    jsc_sidecar_info *info = &m->info;
    *info = (jsc_sidecar_info){.salt = rnd(UINT64_MAX),
                               .segment_bytes = rnd(UINT64_MAX),
                               .segment_digest = rnd(UINT64_MAX),
                               .first = 1 + rnd(1 << 20),
                               .base_seq = seq,
                               .last_term = (uint32_t)rnd(100)};
    info->last = info->first + indexes - 1;
    for (uint32_t i = 0; i < indexes; i++) {
        uint64_t kind = rnd(100);
        if (gaps && kind < 30) { /* taken out, with or without a sequence */
            m->at[i] = JSC_AT_GAP;
            seq += rnd(2);
            continue;
        }
        bool lost = damage && rnd(6) == 0, mistrusted = damage && rnd(6) == 0;
        jsc_sidecar_record *r = &m->records[m->nrecords++];
        char subject[100] = "";
        uint32_t size = (uint32_t)rnd(50), head = headers && rnd(3) == 0 ? 8 + (uint32_t)rnd(30) : 0;
        size_t n = random_subject(subject, kinds);
        if (rnd(10) == 0) offset += JSC_TRAILER_BYTES;
        uint32_t bytes = (uint32_t)JSC_PAD(JSC_RECORD_HEAD + n + head + size);
        *r = (jsc_sidecar_record){info->first + i, lost ? 0 : offset};
        m->at[i] = r->offset;
        info->records += !lost;
        info->lost += lost;
        if (!lost) info->record_bytes += bytes;
        if (!(controls && kind >= 80)) {
            message *x = &m->part.m[m->part.n++];
            ts += (int64_t)(rnd(4) ? rnd(20) : 0);
            *x = (message){.seq = ++seq, .ts = ts};
            if (lost || mistrusted) {
                x->sid = subject_id(m, "", 0);
            } else {
                x->offset = offset;
                x->size = size;
                x->bytes = bytes;
                x->sid = subject_id(m, subject, n);
                info->message_bytes += bytes;
            }
        }
        offset += bytes;
    }
    info->used = offset + 8 * rnd(20);
    info->last_seq = seq + rnd(3);
    info->count = m->part.n;
    info->subjects = m->part.nsubjects;
    if (info->count) {
        info->first_ts = m->part.m[0].ts;
        info->last_ts = ts;
    }
    return m;
}

static void model_free(model *m) {
    for (uint32_t i = 0; i < m->part.nsubjects; i++) free((void *)(uintptr_t)m->part.subjects[i].p);
    free(m->part.subjects);
    free(m->part.m);
    free(m->records);
    free(m->at);
    free(m);
}

static jsc_keys *ring(uint32_t id, uint8_t fill) {
    uint8_t key[1][JSC_KEY_BYTES];
    jsc_keys *k = NULL;
    memset(key[0], fill, sizeof key[0]);
    OK(jsc_keys_new(&id, (const uint8_t (*)[JSC_KEY_BYTES])key, 1, id, &k));
    return k;
}

static uint8_t *build(const model *m, jsc_keys *keys, size_t *n) {
    uint8_t *out = NULL;
    jsc_sidecar_info given = m->info; /* what is computed is not read */
    given.count = given.subjects = given.records = given.lost = given.key_id = 77;
    given.first_ts = given.last_ts = 99;
    given.message_bytes = 1;
    OK(jsc_sidecar_build(&m->part.part, m->records, m->nrecords, &given, keys, &out, n));
    return out;
}

/* ---- every question ---- */

static uint32_t picked;
static bool *pick;
static int pick_sid(void *ctx, uint32_t sid) {
    CHECK(picked == JSC_NONE || sid > picked);
    picked = sid;
    pick[sid] = true;
    return 0;
}

static void check_select(const jsc_part *p, const jsc_filter *f) {
    uint32_t n = p->ops->subjects(p);
    picked = JSC_NONE;
    pick = calloc(n + 1, 1);
    OK(p->ops->select(p, f, pick_sid, NULL));
    for (uint32_t i = 0; i < n; i++) {
        jsc_span t = p->ops->text(p, i);
        CHECK(pick[i] == jsc_filter_match(f, t.p, t.n));
    }
    free(pick);
}

static void check_subjects(const jsc_part *p, const model *m) {
    const fake *f = &m->part;
    const jsc_part_ops *ops = p->ops;
    CHECK(ops->subjects(p) == f->nsubjects);
    uint32_t total = 0;
    for (uint32_t i = 0; i < f->nsubjects; i++) {
        jsc_span t = f->subjects[i];
        uint32_t sid = ops->find_subject(p, t.p, t.n, jsc_subject_hash(t.p, t.n)), k = 0;
        CHECK(sid < f->nsubjects);
        jsc_span got = ops->text(p, sid);
        CHECK(got.n == t.n && memcmp(got.p, t.p, t.n) == 0);
        for (uint32_t ord = 0; ord < f->n; ord++) {
            if (f->m[ord].sid != i) continue;
            CHECK(k < ops->occurrences(p, sid) && ops->posting(p, sid, k) == ord);
            CHECK(ops->subject(p, ord) == sid && jsc_part_posting_at(p, sid, ord) == k);
            k++;
        }
        CHECK(k == ops->occurrences(p, sid));
        total += k;
        if (sid) {
            jsc_span before = ops->text(p, sid - 1);
            int c = memcmp(before.p, got.p, before.n < got.n ? before.n : got.n);
            CHECK(c < 0 || (c == 0 && before.n < got.n));
        }
    }
    CHECK(total == f->n);
    for (int i = 0; i < 20; i++) {
        char text[100];
        size_t n = random_subject(text, 1000);
        uint32_t sid = ops->find_subject(p, text, n, jsc_subject_hash(text, n)), k = 0;
        while (k < f->nsubjects && !(f->subjects[k].n == n && memcmp(f->subjects[k].p, text, n) == 0)) k++;
        CHECK((sid == JSC_NONE) == (k == f->nsubjects));
    }
    static const char *filters[] = {"orders.*", "*.>", ">", "a.*.new", "a", "orders-x.>", "*.b", "b.new"};
    for (int i = 0; i < 10; i++) {
        jsc_span texts[3];
        size_t n = (size_t)rnd(4);
        jsc_filter *filter;
        for (size_t k = 0; k < n; k++) {
            const char *t = filters[rnd(8)];
            texts[k] = (jsc_span){t, strlen(t)};
        }
        OK(jsc_filter_new(texts, n, &filter));
        check_select(p, filter);
        jsc_filter_free(filter);
    }
}

static void check_columns(const jsc_sidecar *s, const model *m) {
    const uint64_t *seq = jsc_sidecar_column(s, 's');
    const int64_t *ts = jsc_sidecar_column(s, 't');
    const uint32_t *offset = jsc_sidecar_column(s, 'o'), *size = jsc_sidecar_column(s, 'z');
    const uint32_t *subject = jsc_sidecar_column(s, 'j');
    const jsc_part *p = jsc_sidecar_part((jsc_sidecar *)(uintptr_t)s);
    CHECK(jsc_sidecar_column(s, '?') == NULL);
    for (uint32_t i = 0; i < m->part.n; i++) {
        const message *x = &m->part.m[i];
        CHECK(seq[i] == x->seq && ts[i] == x->ts && offset[i] == x->offset / 8 && size[i] == x->size);
        CHECK(subject[i] == p->ops->subject(p, i));
    }
}

static void check_info(const jsc_sidecar_info *got, const model *m, uint32_t key_id) {
    const jsc_sidecar_info *want = &m->info;
    CHECK(got->salt == want->salt && got->segment_bytes == want->segment_bytes);
    CHECK(got->segment_digest == want->segment_digest && got->first == want->first && got->last == want->last);
    CHECK(got->base_seq == want->base_seq && got->last_seq == want->last_seq && got->used == want->used);
    CHECK(got->record_bytes == want->record_bytes && got->message_bytes == want->message_bytes);
    CHECK(got->first_ts == want->first_ts && got->last_ts == want->last_ts && got->last_term == want->last_term);
    CHECK(got->count == want->count && got->subjects == want->subjects && got->records == want->records);
    CHECK(got->lost == want->lost && got->key_id == key_id);
}

static void check_sidecar(jsc_sidecar *s, const model *m) {
    const jsc_part *p = jsc_sidecar_part(s);
    const jsc_part_ops *ops = p->ops;
    const fake *f = &m->part;
    CHECK(ops->count(p) == f->n);
    uint32_t by_seq = 0, by_ts = 0;
    for (uint32_t i = 0; i < f->n; i++) {
        const message *x = &f->m[i];
        CHECK(ops->seq(p, i) == x->seq && ops->ts(p, i) == x->ts && ops->offset(p, i) == x->offset);
        CHECK(ops->size(p, i) == x->size && ops->bytes(p, i) == x->bytes);
    }
    for (uint64_t seq = m->info.base_seq; seq <= m->info.last_seq + 1; seq++) {
        while (by_seq < f->n && f->m[by_seq].seq < seq) by_seq++;
        CHECK(ops->find_seq(p, seq) == by_seq);
    }
    for (int64_t ts = m->info.first_ts - 2; ts <= m->info.last_ts + 2; ts++) {
        while (by_ts < f->n && f->m[by_ts].ts < ts) by_ts++;
        CHECK(ops->find_ts(p, ts) == by_ts);
    }
    CHECK(ops->find_seq(p, 0) == 0 && ops->find_seq(p, UINT64_MAX) == f->n);
    CHECK(ops->find_ts(p, INT64_MIN) == 0 && ops->find_ts(p, INT64_MAX) == f->n);
    for (uint64_t i = m->info.first; i <= m->info.last; i++)
        CHECK(jsc_sidecar_record_at(s, i) == m->at[i - m->info.first]);
    check_subjects(p, m);
    check_columns(s, m);
}

static int try_open(const uint8_t *bytes, size_t n, const jsc_keys *keys, jsc_sidecar **out) {
    file f = {bytes, n, 0, 0};
    jsc_vfs vfs = vfs_of(&f);
    jsc_sidecar *s = NULL;
    int rc = jsc_sidecar_open(&vfs, 3, keys, &s);
    CHECK((rc == JSC_OK) == (s != NULL));
    if (out) *out = s; /* no longer than the caller's `vfs`: see check_file */
    else if (s) jsc_sidecar_close(s);
    CHECK(out || f.maps == 0);
    return rc;
}

static void check_file(const uint8_t *bytes, size_t n, jsc_keys *keys, uint32_t key_id, const model *m) {
    file f = {bytes, n, 0, 0};
    jsc_vfs vfs = vfs_of(&f);
    jsc_sidecar_info info;
    jsc_sidecar *s = NULL;
    OK(jsc_sidecar_peek(&vfs, 3, &info));
    check_info(&info, m, key_id);
    OK(jsc_sidecar_open(&vfs, 3, keys, &s));
    check_info(jsc_sidecar_about(s), m, key_id);
    CHECK(keys ? jsc_sidecar_heap(s) >= n - JSC_SIDECAR_HEAD : jsc_sidecar_heap(s) == 0);
    check_sidecar(s, m);
    jsc_sidecar_close(s);
    CHECK(f.maps == 0);
    for (int i = 1; i < 4; i++) {
        f.fails = i;
        int rc = jsc_sidecar_open(&vfs, 3, keys, &s);
        CHECK(f.fails ? rc == JSC_OK : rc == -EIO);
        if (rc == JSC_OK) jsc_sidecar_close(s);
        f.fails = 0;
    }
}

static void random_round(void) {
    model *m = model_new((uint32_t)rnd(rnd(4) ? 30 : 300), 1 + rnd(40));
    size_t n;
    uint8_t *bytes = build(m, NULL, &n);
    check_file(bytes, n, NULL, 0, m);
    free(bytes);
    if (seed % 4 == 0) {
        jsc_keys *keys = ring(9, 1);
        bytes = build(m, keys, &n);
        check_file(bytes, n, keys, 9, m);
        free(bytes);
        jsc_keys_unref(keys);
    }
    model_free(m);
}

/* ---- damage ---- */

static void fix(uint8_t *bytes) {
    jsc_put64(bytes + 176, jsc_subject_hash((const char *)bytes + JSC_SIDECAR_HEAD, (size_t)jsc_get64(bytes + 160)));
    jsc_put32(bytes + 252, jsc_crc32c(0, bytes, 252));
}

static void every_byte(const model *m, jsc_keys *keys) {
    size_t n;
    uint8_t *bytes = build(m, keys, &n);
    OK(try_open(bytes, n, keys, NULL));
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[at] ^= (uint8_t)(1 << bit);
            CHECK(try_open(bytes, n, keys, NULL) == JSC_ECORRUPT);
            bytes[at] ^= (uint8_t)(1 << bit);
        }
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *less = malloc(cut + !cut);
        memcpy(less, bytes, cut);
        CHECK(try_open(less, cut, keys, NULL) == JSC_ECORRUPT);
        free(less);
    }
    uint8_t *more = calloc(1, n + 8);
    memcpy(more, bytes, n);
    CHECK(try_open(more, n + 8, keys, NULL) == JSC_ECORRUPT);
    free(more);
    jsc_put32(bytes + 8, JSC_SIDECAR_VERSION + 1);
    jsc_put32(bytes + 252, jsc_crc32c(0, bytes, 252));
    CHECK(try_open(bytes, n, keys, NULL) == JSC_EFORMAT);
    free(bytes);
}

/* Everything a caller may do, without believing any answer. */
static void use(jsc_sidecar *s) {
    const jsc_part *p = jsc_sidecar_part(s);
    const jsc_part_ops *ops = p->ops;
    const jsc_sidecar_info *info = jsc_sidecar_about(s);
    uint32_t n = ops->count(p), subjects = ops->subjects(p), total = 0;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(ops->subject(p, i) < subjects && ops->offset(p, i) + ops->bytes(p, i) <= info->used);
        CHECK(ops->find_seq(p, ops->seq(p, i)) == i && ops->find_ts(p, ops->ts(p, i)) <= i);
    }
    for (uint32_t i = 0; i < subjects; i++) {
        jsc_span t = ops->text(p, i);
        volatile uint64_t hash = jsc_subject_hash(t.p, t.n);
        uint32_t sid = ops->find_subject(p, t.p, t.n, hash);
        CHECK(sid == i || sid == JSC_NONE); /* a forged table may hide a subject, not name another */
        CHECK(ops->occurrences(p, i) > 0);
        for (uint32_t k = 0; k < ops->occurrences(p, i); k++, total++)
            CHECK(ops->subject(p, ops->posting(p, i, k)) == i);
    }
    CHECK(total == n);
    for (uint64_t i = info->first; i <= info->last && i < info->first + 1000; i++) {
        uint64_t at = jsc_sidecar_record_at(s, i);
        CHECK(at == 0 || at == JSC_AT_GAP || (at >= JSC_SEGMENT_HEAD && at + JSC_RECORD_HEAD <= info->used));
    }
}

/* Each byte forged with the checksums mended: refused, or of no harm. */
static void every_byte_forged(const model *m) {
    size_t n;
    uint8_t *bytes = build(m, NULL, &n), *copy = malloc(n);
    for (size_t at = 0; at < n; at++)
        for (int kind = 0; kind < 6; kind++) {
            memcpy(copy, bytes, n);
            copy[at] = (uint8_t)(kind < 3 ? copy[at] ^ 1 << kind * 3 : (int[]){0, 255, copy[at] + 1}[kind - 3]);
            if (at < JSC_SIDECAR_HEAD) jsc_put32(copy + 252, jsc_crc32c(0, copy, 252));
            else fix(copy);
            file f = {copy, n, 0, 0};
            jsc_vfs vfs = vfs_of(&f);
            jsc_sidecar *s = NULL;
            int rc = jsc_sidecar_open(&vfs, 3, NULL, &s);
            CHECK(rc == JSC_OK || rc == JSC_ECORRUPT || rc == JSC_EFORMAT || rc == JSC_EKEY);
            if (rc) continue;
            use(s);
            jsc_sidecar_close(s);
        }
    free(copy);
    free(bytes);
}

/* A segment that is known by heart: six messages of two subjects, a control record, a gap, one lost record. */
static model *model_known(void) {
    model *m = calloc(1, sizeof *m);
    m->part = (fake){.part.ops = &fake_ops, .m = calloc(8, sizeof(message)), .subjects = calloc(8, sizeof(jsc_span))};
    m->records = calloc(10, sizeof *m->records);
    m->at = calloc(10, sizeof *m->at);
    m->info = (jsc_sidecar_info){.first = 100, .last = 109, .base_seq = 50, .last_seq = 57, .used = 1024};
    for (uint32_t i = 0, index = 100; i < 6; i++, index++) {
        uint64_t offset = 64 + 48 * (uint64_t)i;
        m->part.m[i] = (message){.seq = 51 + i, .ts = 7 + i, .offset = offset, .size = 5, .bytes = 40};
        m->part.m[i].sid = i % 2 ? subject_id(m, "b", 1) : subject_id(m, "a", 1);
        if (index == 103) index++; /* the gap */
        m->records[m->nrecords++] = (jsc_sidecar_record){index, offset};
    }
    m->records[m->nrecords++] = (jsc_sidecar_record){107, 400};
    m->records[m->nrecords++] = (jsc_sidecar_record){108, 0};
    m->part.n = 6;
    m->info.record_bytes = 6 * 40 + 48;
    return m;
}

static void expect_refused(const uint8_t *bytes, size_t n, const char *what, uint64_t at, uint64_t value, int width) {
    uint8_t *copy = malloc(n);
    memcpy(copy, bytes, n);
    memcpy(copy + at, &value, (size_t)width);
    if (memcmp(copy, bytes, n) == 0) {
        fprintf(stderr, "%s: changes nothing\n", what);
        exit(1);
    }
    fix(copy);
    int rc = try_open(copy, n, NULL, NULL);
    if (rc != JSC_ECORRUPT) {
        fprintf(stderr, "%s: %d\n", what, rc);
        exit(1);
    }
    free(copy);
}

static void test_forged_numbers(void) {
    model *m = model_known();
    size_t n;
    uint8_t *b = build(m, NULL, &n);
    jsc_sidecar_head h;
    jsc_sidecar_layout l;
    OK(jsc_sidecar_head_decode(b, &h));
    CHECK(h.runs == 2 && h.others == 2 && h.info.records == 7 && h.info.lost == 1);
    OK(try_open(b, n, NULL, NULL));
    jsc_sidecar_lay_out(&h, &l);
    const uint64_t H = JSC_SIDECAR_HEAD;
    uint64_t taken = l.slots;
    while (jsc_get32(b + H + taken) == JSC_SIDECAR_NO_SLOT) taken += 4;
    const struct {
        const char *what;
        uint64_t at, value;
        int width;
    } forged[] = {
        {"a sequence twice", H + l.seq + 8, 51, 8},
        {"a sequence at the base", H + l.seq, 50, 8},
        {"a sequence beyond the last", H + l.seq + 40, 58, 8},
        {"a time that falls", H + l.ts + 16, 7, 8},
        {"a first time that is not the head's", H + l.ts, 6, 8},
        {"a last time that is not the head's", H + l.ts + 40, 13, 8},
        {"an offset inside the record before", H + l.offset + 4, 96 / 8, 4},
        {"an offset in the segment's head", H + l.offset, 56 / 8, 4},
        {"an offset beyond the end", H + l.offset + 20, 992 / 8, 4},
        {"a lost message with a size", H + l.offset, 0, 4},
        {"a payload that is longer than its record", H + l.size, 9, 4},
        {"a payload without bound", H + l.size + 20, UINT32_MAX, 4},
        {"a subject id beyond the last", H + l.subject, 2, 4},
        {"another subject's id", H + l.subject, 1, 4},
        {"postings that do not start at 0", H + l.starts, 1, 4},
        {"postings of nobody", H + l.starts + 4, 0, 4},
        {"postings beyond the end", H + l.starts + 4, 7, 4},
        {"fewer postings than messages", H + l.starts + 8, 5, 4},
        {"an ordinal beyond the last", H + l.postings, 6, 4},
        {"an ordinal twice", H + l.postings + 4, 0, 4},
        {"another subject's ordinal", H + l.postings, 1, 4},
        {"ordinals that fall", H + l.postings, (uint64_t)0 << 32 | 2, 8},
        {"a text that does not start at 0", H + l.text_starts, 1, 4},
        {"a text of negative length", H + l.text_starts + 4, 3, 4},
        {"a text beyond the end", H + l.text_starts + 8, 3, 4},
        {"texts out of order", H + l.texts, 'c', 1},
        {"a text twice", H + l.texts, 'b', 1},
        {"a slot of nobody", H + taken, 2, 4},
        {"no slot at all", H + l.slots, UINT64_MAX, 8},
        {"a run that does not start at message 0", H + l.runs + 4, 1, 4},
        {"runs that overlap", H + l.runs + 8, 2, 4},
        {"a run beyond the end", H + l.runs + 8, 9, 4},
        {"a run behind the end", H + l.runs + 8, 11, 4},
        {"runs without messages", H + l.runs + 12, 0, 4},
        {"a run of messages beyond the last", H + l.runs + 12, 6, 4},
        {"runs that give too few records", H + l.runs + 8, 10, 4},
        {"a record twice", H + l.others + 8, 7, 4},
        {"a record beyond the end", H + l.others + 8, 10, 4},
        {"a record's offset in the head", H + l.others + 4, 7, 4},
        {"a record's offset beyond the end", H + l.others + 4, 1000 / 8, 4},
        {"a flag that is not known", 12, 4, 4},
        {"encrypted without a key", 12, 1, 4},
        {"a column more", 12, 2, 4},
        {"a last index below the first", 48, 98, 8},
        {"too many indexes", 48, UINT64_MAX, 8},
        {"a base above the last sequence", 56, 58, 8},
        {"an end that is no multiple of 8", 72, 1023, 8},
        {"an end beyond the limit", 72, JSC_SIDECAR_OFFSET_MAX + 8, 8},
        {"an end before the last record", 72, 424, 8},
        {"more bytes of messages than of records", 80, 239, 8},
        {"other bytes of messages", 88, 248, 8},
        {"a message more", 116, 7, 4},
        {"messages without bound", 116, UINT32_MAX, 4},
        {"a subject more", 120, 3, 4},
        {"subjects without bound", 120, UINT32_MAX, 4},
        {"a record more", 124, 8, 4},
        {"a loss more", 128, 2, 4},
        {"a run more", 132, 3, 4},
        {"another record more", 136, 3, 4},
        {"a key without encryption", 140, 1, 4},
        {"longer texts", 152, 9, 8},
        {"a byte of the head that must be 0", 168, 1, 1},
        {"another byte that must be 0", 251, 1, 1},
    };
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++)
        expect_refused(b, n, forged[i].what, forged[i].at, forged[i].value, forged[i].width);
    free(b);
    model_free(m);
}

/* Numbers that contradict each other only by one statement, the rest forged to agree. */
static void test_forged_together(void) {
    model *m = model_known();
    jsc_sidecar_head h;
    jsc_sidecar_layout l;
    size_t n;
    uint8_t *b = build(m, NULL, &n), *body = b + JSC_SIDECAR_HEAD;
    OK(jsc_sidecar_head_decode(b, &h));
    jsc_sidecar_lay_out(&h, &l);
    for (uint32_t i = 0; i < 6; i++) { /* all messages are of the first subject, none of the second */
        jsc_put32(body + l.subject + 4 * i, 0);
        jsc_put32(body + l.postings + 4 * i, i);
    }
    jsc_put32(body + l.starts + 4, 6);
    fix(b);
    CHECK(try_open(b, n, NULL, NULL) == JSC_ECORRUPT);
    free(b);
    m->part.m[5].bytes = 48;
    m->info.record_bytes += 8;
    b = build(m, NULL, &n);
    OK(jsc_sidecar_head_decode(b, &h));
    jsc_sidecar_lay_out(&h, &l);
    CHECK(h.flags == JSC_XF_BYTES && jsc_get32(b + JSC_SIDECAR_HEAD + l.bytes + 20) == 6);
    expect_refused(b, n, "a record smaller than its payload, another larger", JSC_SIDECAR_HEAD + l.bytes + 16,
                   (uint64_t)7 << 32 | 4, 8);
    m->part.m[5].bytes = 40;
    free(b);
    model_free(m);
}

/* Two subjects of 40,000 bytes, forged into one of 70,000 and one of 10,000. */
static void test_forged_length(void) {
    model *m = calloc(1, sizeof *m);
    m->part = (fake){.part.ops = &fake_ops, .m = calloc(2, sizeof(message)), .subjects = calloc(2, sizeof(jsc_span))};
    m->part.n = m->part.nsubjects = 2;
    m->records = calloc(2, sizeof *m->records);
    for (uint32_t i = 0; i < 2; i++) {
        char *text = malloc(40000);
        memset(text, 'a' + (int)i, 40000);
        m->part.subjects[i] = (jsc_span){text, 40000};
        m->part.m[i] = (message){.seq = i + 1, .offset = 64 + 100000 * i, .bytes = 100000, .sid = i};
        m->records[m->nrecords++] = (jsc_sidecar_record){i + 1, 64 + 100000 * i};
    }
    m->info = (jsc_sidecar_info){.first = 1, .last = 2, .last_seq = 2, .used = 200064, .record_bytes = 200000};
    size_t n;
    uint8_t *b = build(m, NULL, &n);
    jsc_sidecar_head h;
    jsc_sidecar_layout l;
    OK(jsc_sidecar_head_decode(b, &h));
    jsc_sidecar_lay_out(&h, &l);
    OK(try_open(b, n, NULL, NULL));
    expect_refused(b, n, "a text that is too long", JSC_SIDECAR_HEAD + l.text_starts + 4, 70000, 4);
    free(b);
    model_free(m);
}

/* ---- what the builder refuses ---- */

static int rebuild(const model *m) {
    uint8_t *out = NULL;
    size_t n;
    int rc = jsc_sidecar_build(&m->part.part, m->records, m->nrecords, &m->info, NULL, &out, &n);
    CHECK((rc == JSC_OK) == (out != NULL));
    if (rc == JSC_OK) OK(try_open(out, n, NULL, NULL));
    free(out);
    return rc;
}

#define REFUSES(field, value)                                                                                          \
    do {                                                                                                               \
        __typeof__(field) kept = (field);                                                                              \
        (field) = (value);                                                                                             \
        CHECK(rebuild(m) == JSC_EINVAL);                                                                               \
        (field) = kept;                                                                                                \
    } while (0)

static void test_refused_parts(void) {
    model *m = model_known();
    message *x = m->part.m;
    OK(rebuild(m));
    REFUSES(x[1].seq, 51);
    REFUSES(x[0].seq, 50);
    REFUSES(x[5].seq, 58);
    REFUSES(x[5].ts, 0);
    REFUSES(x[2].offset, x[1].offset + 8);
    REFUSES(x[2].offset, x[2].offset + 8); /* no such record */
    REFUSES(x[5].offset, 0); /* lost, with sizes */
    REFUSES(x[2].bytes, 32);
    REFUSES(x[2].bytes, 41);
    REFUSES(x[2].sid, 2);
    REFUSES(m->part.nsubjects, 1);
    REFUSES(m->part.subjects[1], m->part.subjects[0]);
    REFUSES(m->info.used, 300);
    REFUSES(m->info.used, 1023);
    REFUSES(m->info.used, JSC_SIDECAR_OFFSET_MAX + 8);
    REFUSES(m->info.last, 107);
    REFUSES(m->info.last, 98);
    REFUSES(m->info.last, 100 + (uint64_t)UINT32_MAX);
    REFUSES(m->info.last, UINT64_MAX);
    REFUSES(m->info.base_seq, 58);
    REFUSES(m->info.last_seq, 55);
    REFUSES(m->info.record_bytes, 239);
    REFUSES(m->info.record_bytes, 1032);
    REFUSES(m->records[3].index, 102);
    REFUSES(m->records[3].offset, 66);
    REFUSES(m->records[6].offset, 1000);
    REFUSES(m->records[0].offset, 56);
    m->info.last = 99 + (uint64_t)UINT32_MAX; /* as wide as it may be */
    OK(rebuild(m));
    model_free(m);
}

/* ---- sizes, keys ---- */

static void test_empty(void) {
    for (uint32_t indexes = 0; indexes < 3; indexes++) { /* control records only, or nothing at all */
        model *m = model_new(0, 1);
        m->records = realloc(m->records, 3 * sizeof *m->records);
        m->at = realloc(m->at, 3 * sizeof *m->at);
        for (uint32_t i = 0; i < indexes; i++) {
            m->records[m->nrecords++] = (jsc_sidecar_record){m->info.first + i, 64 + 40 * i};
            m->at[i] = 64 + 40 * i;
        }
        m->info.last += indexes;
        m->info.records = indexes;
        m->info.record_bytes = 40 * indexes;
        m->info.used = 64 + 40 * indexes + 72;
        size_t n;
        uint8_t *bytes = build(m, NULL, &n);
        check_file(bytes, n, NULL, 0, m);
        every_byte(m, NULL);
        const int forged[] = {96, 104, 88, 124, 128}; /* times, bytes and records of nothing */
        for (int i = 0; i < 5; i++) {
            bytes[forged[i]] += 8;
            fix(bytes);
            CHECK(try_open(bytes, n, NULL, NULL) == JSC_ECORRUPT);
            bytes[forged[i]] -= 8;
        }
        free(bytes);
        model_free(m);
    }
}

/* Many subjects that differ late, early, or in length only; a filter that lets little through; the promised size. */
static void test_many_subjects(void) {
    const uint32_t n = 30000;
    model *m = calloc(1, sizeof *m);
    m->part = (fake){.part.ops = &fake_ops, .m = calloc(n, sizeof(message)), .subjects = calloc(n, sizeof(jsc_span))};
    m->records = calloc(n, sizeof *m->records);
    m->info = (jsc_sidecar_info){.first = 1, .last = n, .last_seq = n};
    uint64_t offset = 64, texts = 0;
    for (uint32_t i = 0; i < n; i++) {
        char text[400];
        size_t k = 0;
        uint32_t twisted = (i * 7919) % n;
        switch (i % 3) {
        case 0: k = (size_t)sprintf(text, "a.long.way.to.where.they.differ.%u", twisted); break;
        case 1: k = (size_t)sprintf(text, "%x.b", twisted * 2654435761u); break;
        default: /* lengths with the same beginning; zeros, which look like the end of a short text */
            memset(text, twisted % 2 ? 'x' : 0, 300);
            k = twisted / 6 % 300;
            k += (size_t)sprintf(text + k, "%u", twisted);
        }
        char *copy = malloc(k + 1);
        memcpy(copy, text, k);
        m->part.subjects[i] = (jsc_span){copy, k};
        texts += k;
        m->part.m[i] = (message){.seq = i + 1, .ts = i, .offset = offset, .sid = i};
        m->part.m[i].bytes = (uint32_t)JSC_PAD(JSC_RECORD_HEAD + k);
        m->records[i] = (jsc_sidecar_record){i + 1, offset};
        offset += m->part.m[i].bytes;
    }
    m->part.n = m->part.nsubjects = n;
    m->nrecords = n;
    m->info.used = offset;
    m->info.record_bytes = offset - 64;
    size_t bytes_n;
    uint8_t *bytes = build(m, NULL, &bytes_n);
    CHECK(bytes_n < 300 + texts + n * (32 + 15)); /* 32 a message, 15 a subject */
    file f = {bytes, bytes_n, 0, 0};
    jsc_vfs vfs = vfs_of(&f);
    jsc_sidecar *s = NULL;
    OK(jsc_sidecar_open(&vfs, 3, NULL, &s));
    const jsc_part *p = jsc_sidecar_part(s);
    for (uint32_t i = 0; i < n; i++) {
        jsc_span t = m->part.subjects[i];
        uint32_t sid = p->ops->find_subject(p, t.p, t.n, jsc_subject_hash(t.p, t.n));
        CHECK(sid < n && p->ops->occurrences(p, sid) == 1 && p->ops->posting(p, sid, 0) == i);
        CHECK(jsc_sidecar_record_at(s, i + 1) == m->part.m[i].offset);
    }
    jsc_sidecar_head h;
    jsc_sidecar_layout l;
    OK(jsc_sidecar_head_decode(bytes, &h));
    jsc_sidecar_lay_out(&h, &l);
    int passed = 0;
    for (int i = 0; i < 100000; i++) {
        char text[32];
        int k = sprintf(text, "absent.%d", i);
        uint64_t hash = jsc_subject_hash(text, (size_t)k);
        passed += jsc_sidecar_bloom_has((const void *)(bytes + JSC_SIDECAR_HEAD + l.bloom), l.nblooms, hash);
        CHECK(p->ops->find_subject(p, text, (size_t)k, hash) == JSC_NONE);
    }
    CHECK(passed < 1500);
    jsc_sidecar_close(s);
    free(bytes);
    model_free(m);
}

static void test_keys(void) {
    model *m = model_known();
    jsc_keys *keys = ring(5, 1), *others = ring(6, 1), *wrong = ring(5, 2);
    size_t n, again_n;
    uint8_t *bytes = build(m, keys, &n), *again = build(m, keys, &again_n);
    CHECK(try_open(bytes, n, NULL, NULL) == JSC_EKEY);
    CHECK(try_open(bytes, n, others, NULL) == JSC_EKEY);
    CHECK(try_open(bytes, n, wrong, NULL) == JSC_ECORRUPT);
    OK(try_open(bytes, n, keys, NULL));
    CHECK(n == again_n && memcmp(bytes + 144, again + 144, 8) != 0); /* a key of its own each time */
    CHECK(memcmp(bytes + JSC_SIDECAR_HEAD, again + JSC_SIDECAR_HEAD, 64) != 0);
    for (size_t at = 16; at < 176; at++) { /* a forged head, with a checksum that fits */
        bytes[at] ^= 1;
        jsc_put32(bytes + 252, jsc_crc32c(0, bytes, 252));
        int rc = try_open(bytes, n, keys, NULL);
        CHECK(rc == JSC_ECORRUPT || (rc == JSC_EKEY && at >= 140 && at < 144));
        bytes[at] ^= 1;
    }
    bytes[JSC_SIDECAR_HEAD + 70] ^= 1; /* a forged body */
    fix(bytes);
    CHECK(try_open(bytes, n, keys, NULL) == JSC_ECORRUPT);
    every_byte(m, keys);
    free(bytes);
    free(again);
    jsc_keys_unref(keys);
    jsc_keys_unref(others);
    jsc_keys_unref(wrong);
    model_free(m);
}

/* Stored in files: it must never change. */
static void test_hash(void) {
    CHECK(jsc_subject_hash("", 0) == 0x2d06800538d394c2u);
    CHECK(jsc_subject_hash("abc", 3) == 0x78af5f94892f3950u);
}

int main(int argc, char **argv) {
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 1500;
    test_hash();
    test_empty();
    test_forged_numbers();
    test_forged_together();
    test_forged_length();
    test_refused_parts();
    test_keys();
    test_many_subjects();
    for (seed = 1; seed <= rounds; seed++) {
        rnd_state = seed;
        random_round();
    }
    for (seed = 1; seed <= 6; seed++) {
        rnd_state = seed;
        model *m = model_new(12, 5);
        every_byte(m, NULL);
        every_byte_forged(m);
        model_free(m);
    }
    puts("test_sidecar: ok");
    return 0;
}
