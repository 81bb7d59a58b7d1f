/* A directory that a bad disk, or somebody, has changed: opening it, and everything a user may do then. The input is a
 * program: first byte, what kind of log (plain, packed, encrypted, both; bit 5: under limits, without its front; bit 7:
 * checksums are mended afterwards, so that what is behind them is reached); then steps of 8 bytes, each changing one file
 * of a sound log. Without mending, what is read must be what was written. libFuzzer: LLVMFuzzerTestOneInput; otherwise a
 * program: a number of random mutations. */
#include "../format.h"
#include "../jsc_mlog.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { LIMITED = 4, KINDS = 8, FILES = 24, STEPS = 12, MESSAGES = 160 };

typedef struct kept_file {
    char name[40];
    uint8_t *bytes;
    size_t n;
} kept_file;

typedef struct golden {
    kept_file files[FILES];
    int n;
    bool built;
} golden;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void need(bool x) {
    if (!x) abort();
}

static jsc_keys *ring(void) {
    uint8_t key[1][JSC_KEY_BYTES] = {{42}};
    uint32_t id = 3;
    jsc_keys *k = NULL;
    need(jsc_keys_new(&id, (const uint8_t (*)[JSC_KEY_BYTES])key, 1, id, &k) == JSC_OK);
    return k;
}

static int64_t clock_of(void *arg) { return 1; }

static int open_log(const jsc_vfs *vfs, int kind, jsc_keys *keys, jsc_mlog **out) {
    jsc_mlog_options o = {.sync_mode = JSC_SYNC_ALWAYS,
                          .segment_bytes = 4096,
                          .memory_bytes = 1 << 20,
                          .zstd_level = kind & 1 ? 1 : 0,
                          .keys = kind & 2 ? keys : NULL,
                          .now = clock_of};
    return jsc_mlog_open(vfs, "/l", &o, out, NULL);
}

/* Message seq says all of itself. */
static jsc_span body_of(uint64_t seq, char room[400]) {
    size_t n = 20 + (size_t)(seq * 7919 % 300);
    for (size_t i = 0; i < n; i++) room[i] = (char)(seq * 31 + i * 7);
    return (jsc_span){room, n};
}

static jsc_span subject_of(uint64_t seq, char room[40]) {
    return (jsc_span){room,
                      (size_t)snprintf(room, 40, "a.%llu.%s", (unsigned long long)(seq % 7), seq % 3 ? "x" : "y")};
}

static void append_some(jsc_mlog *m, uint64_t count) {
    char room[400], text[40];
    uint64_t seq, position;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t next = jsc_mlog_last(m) + 1;
        jsc_span subject = subject_of(next, text), body = body_of(next, room), headers = {"h: 1", next % 4 ? 0 : 4};
        if (jsc_mlog_append(m, &subject, &headers, &body, (int64_t)(next % 1000000) * 10, &seq) != JSC_OK) return;
    }
    if (jsc_mlog_submit(m, &position) == JSC_OK) (void)jsc_mlog_wait(m, position, -1);
}

static void keep_name(void *ctx, const char *name) {
    golden *g = ctx;
    need(g->n < FILES && strlen(name) < sizeof g->files[0].name);
    strcpy(g->files[g->n++].name, name);
}

/* A log with sealed and open segments, deletions, a compacted part and a checkpoint. */
static void build(golden *g, int kind, jsc_keys *keys) {
    jsc_sim *sim = jsc_sim_new(7);
    const jsc_vfs *vfs = jsc_sim_vfs(sim);
    jsc_mlog *m;
    uint64_t gone;
    need(open_log(vfs, kind, keys, &m) == JSC_OK);
    if (kind & LIMITED) need(jsc_mlog_set_limits(m, &(jsc_limits){.max_messages = 30}) == JSC_OK);
    append_some(m, MESSAGES / 2);
    if (kind & LIMITED) {
        need(jsc_mlog_set_limits(m, &(jsc_limits){.max_messages = 90}) == JSC_OK);
    } else {
        for (uint64_t seq = 3; seq < MESSAGES / 2; seq += 2) need(jsc_mlog_delete(m, seq) == JSC_OK);
        need(jsc_mlog_maintain(m, JSC_CARE_SEAL | JSC_CARE_COMPACT, false) == JSC_OK);
    }
    append_some(m, MESSAGES / 2);
    need(jsc_mlog_purge(m, &(jsc_span){"a.2.>", 5}, 100, 1, &gone) == JSC_OK);
    need(jsc_mlog_maintain(m, JSC_CARE_SEAL, false) == JSC_OK);
    append_some(m, 5);
    need(jsc_mlog_close(m) == JSC_OK);
    need(vfs->list(vfs->self, "/l", keep_name, g) == 0);
    for (int i = 0; i < g->n; i++) {
        kept_file *f = &g->files[i];
        char path[64];
        snprintf(path, sizeof path, "/l/%s", f->name);
        int64_t size = jsc_sim_size(sim, path);
        need(size >= 0);
        f->n = (size_t)size;
        f->bytes = malloc(f->n ? f->n : 1);
        need(f->bytes && jsc_sim_read(sim, path, 0, f->bytes, f->n) == size);
    }
    jsc_sim_free(sim);
    g->built = true;
}

static bool ends(const char *name, const char *with) {
    size_t n = strlen(name), k = strlen(with);
    return n >= k && strcmp(name + n - k, with) == 0;
}

/* Checksums that fit whatever the bytes are now. */
static void mend(const char *name, uint8_t *p, size_t n) {
    if (ends(name, ".seg") && n >= JSC_SEGMENT_HEAD) {
        jsc_put32(p + 60, jsc_crc32c(0, p, 60));
        for (size_t at = JSC_SEGMENT_HEAD; n - at >= JSC_RECORD_HEAD;) {
            uint32_t len = jsc_get32(p + at + 4);
            if (len < JSC_RECORD_HEAD || len > n - at || JSC_PAD((size_t)len) > n - at) return;
            jsc_put32(p + at, jsc_crc32c(0, p + at + 4, len - 4));
            at += JSC_PAD((size_t)len);
        }
    } else if (ends(name, ".idx") && n >= 256) {
        jsc_put64(p + 176, XXH3_64bits(p + 256, n - 256));
        jsc_put32(p + 252, jsc_crc32c(0, p, 252));
    } else if (strncmp(name, "checkpoint", 10) == 0 && n >= 64) {
        jsc_put64(p + 32, XXH3_64bits(p + 64, n - 64));
        jsc_put32(p + 60, jsc_crc32c(0, p, 60));
    }
}

static void lay_out(const golden *g, jsc_sim *sim, const uint8_t *steps, size_t n, bool mended) {
    const jsc_vfs *vfs = jsc_sim_vfs(sim);
    for (int i = 0; i < g->n; i++) {
        const kept_file *f = &g->files[i];
        size_t size = f->n;
        uint8_t *p = malloc(size + 256 * STEPS);
        need(p != NULL);
        memcpy(p, f->bytes, size);
        memset(p + size, 0, 256 * STEPS);
        bool gone = false;
        for (size_t at = 0; at + 8 <= n && at < STEPS * 8; at += 8) {
            const uint8_t *s = steps + at;
            if (s[0] % g->n != i) continue;
            size_t where = size ? (jsc_get16(s + 2) | (size_t)(s[1] & 0x70) << 12) % size : 0;
            switch (s[1] & 7) {
            case 0: gone = true; break;
            case 1: size = where; break;
            case 2: size += s[4]; break;
            case 3: memset(p + where, s[4], size - where < s[5] ? size - where : s[5]); break;
            case 4: /* a piece of another file */
                memcpy(p + where, g->files[s[4] % g->n].bytes,
                       size - where < g->files[s[4] % g->n].n ? size - where : g->files[s[4] % g->n].n);
                break;
            case 5: memcpy(p + where, s + 4, size - where < 4 ? size - where : 4); break;
            case 6:
                if (where + 8 <= size) jsc_put64(p + (where & ~(size_t)7), jsc_get32(s + 4));
                break;
            default:
                if (size) p[where] ^= (uint8_t)(1u << (s[4] & 7));
            }
        }
        if (mended) mend(f->name, p, size);
        if (!gone) {
            char path[64];
            snprintf(path, sizeof path, "/l/%s", f->name);
            int fd = vfs->open(vfs->self, path, 0102, 0644); /* O_RDWR | O_CREAT */
            need(fd >= 0);
            for (size_t at = 0; at < size;) {
                struct iovec v = {p + at, size - at};
                ssize_t put = vfs->pwritev(vfs->self, fd, &v, 1, (off_t)at);
                need(put > 0);
                at += (size_t)put;
            }
            need(vfs->datasync(vfs->self, fd) == 0 && vfs->close(vfs->self, fd) == 0);
        }
        free(p);
    }
    (void)vfs->mkdir(vfs->self, "/l", 0755);
    (void)vfs->syncdir(vfs->self, "/l");
}

static volatile uint8_t seen;
static void touch(jsc_span s) {
    for (size_t i = 0; i < s.n; i++) seen ^= (uint8_t)s.p[i];
}

static void check(const jsc_message *x, bool exact) {
    char room[400], text[40];
    touch((jsc_span){x->r.subject, x->r.subject_len});
    touch((jsc_span){x->r.headers, x->r.headers_len});
    touch((jsc_span){x->r.data, x->r.data_len});
    if (!exact) return;
    jsc_span body = body_of(x->seq, room), subject = subject_of(x->seq, text);
    need(x->r.data_len == body.n && memcmp(x->r.data, body.p, body.n) == 0);
    need(x->r.subject_len == subject.n && memcmp(x->r.subject, subject.p, subject.n) == 0);
}

static int each_subject(void *ctx, const jsc_subject_info *i) {
    touch(i->text);
    return 0;
}

static void finding(void *ctx, const char *file, uint64_t offset, const char *what) {
    touch((jsc_span){file, strlen(file)});
    touch((jsc_span){what, strlen(what)});
}

static void use(jsc_mlog *m, bool exact) {
    jsc_span texts[2] = {{"a.*.y", 5}, {"a.1.x", 5}};
    jsc_filter *f;
    jsc_cursor *c;
    jsc_message got[8];
    need(jsc_filter_new(texts, 2, &f) == JSC_OK);
    for (int way = 0; way < 3; way++) {
        need(jsc_cursor_new(m, way == 2 ? f : NULL, way == 1 ? UINT64_MAX : 0, way == 1, &c) == JSC_OK);
        for (int calls = 0, n; calls < 4 * MESSAGES; calls++) {
            int rc = jsc_cursor_next(c, got, 8, &n);
            if (rc == JSC_OK && n == 0) break;
            if (rc != JSC_OK && rc != JSC_ECORRUPT) break;
            for (int i = 0; i < n; i++) {
                check(&got[i], exact);
                jsc_message_release(m, &got[i]);
            }
        }
        jsc_cursor_free(c);
    }
    uint64_t seq, count;
    for (uint64_t i = 1; i < MESSAGES + 20; i += 3) {
        if (jsc_mlog_get(m, i, &got[0]) != JSC_OK) continue;
        check(&got[0], exact);
        jsc_message_release(m, &got[0]);
    }
    (void)jsc_mlog_last_of(m, &texts[1], &seq);
    (void)jsc_mlog_first_of(m, &texts[1], &seq);
    (void)jsc_mlog_at(m, 500, &seq);
    (void)jsc_mlog_count(m, f, 20, &count);
    (void)jsc_mlog_subjects(m, f, NULL, each_subject, NULL);
    jsc_damage damage[4];
    size_t n;
    (void)jsc_mlog_damage(m, damage, 4, &n);
    jsc_columns columns;
    for (size_t i = 0; i < 32 && jsc_mlog_columns(m, i, &columns) == JSC_OK; i++) jsc_columns_release(m, &columns);
    jsc_filter_free(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static golden logs[KINDS];
    static jsc_keys *keys;
    if (n < 1 || n > 1 + 8 * STEPS) return 0;
    int kind = (data[0] & 3) | (data[0] & 32 ? LIMITED : 0);
    bool mended = data[0] >> 7;
    if (!keys) keys = ring();
    if (!logs[kind].built) build(&logs[kind], kind, keys);
    jsc_sim *sim = jsc_sim_new(1);
    lay_out(&logs[kind], sim, data + 1, n - 1, mended);
    jsc_mlog *m;
    for (int round = 0; round < 2; round++) {
        if (open_log(jsc_sim_vfs(sim), kind, keys, &m) != JSC_OK) break;
        use(m, !mended);
        if (data[0] & 4) {
            jsc_verify v = {.finding = finding};
            (void)jsc_mlog_verify(m, &v);
        }
        if (data[0] & 8) (void)jsc_mlog_maintain(m, JSC_CARE_ALL, false);
        append_some(m, 3);
        use(m, !mended);
        if (data[0] & 16) jsc_mlog_abandon(m);
        else (void)jsc_mlog_close(m);
    }
    jsc_sim_free(sim);
    return 0;
}

#ifndef JSC_LIBFUZZER
int main(int argc, char **argv) {
    long rounds = argc > 1 ? atol(argv[1]) : 2000;
    uint64_t r = 88172645463325252u;
    uint8_t input[1 + 8 * STEPS];
    if (rounds > 100000) rounds = 100000; /* each opens and closes logs: some hundred a second */
    for (long i = 0; i < rounds; i++) {
        for (size_t k = 0; k < sizeof input; k++) {
            r ^= r << 13, r ^= r >> 7, r ^= r << 17;
            input[k] = (uint8_t)(r >> 40);
        }
        LLVMFuzzerTestOneInput(input, 1 + 8 * (size_t)(i % (STEPS + 1)));
    }
    puts("fuzz: ok");
    return 0;
}
#endif
