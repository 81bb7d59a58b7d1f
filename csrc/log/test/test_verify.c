/* Verification over the simulated disk: sound logs of all kinds have no finding, and no byte of a file changes without
 * one that names the file. */
#include "../jsc_mlog.h"
#include "../sidecar_format.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define CHECK_CASE " (%s)", about
#include "../../base/test/check.h"

static char about[200] = "";

/* ---- what verification says ---- */

typedef struct findings {
    int n, damage, cache, remains;
    int of_file, before;  /* of the file asked for; those whose offset is not behind `at` */
    const char *file;
    uint64_t at;
    uint64_t done, total;
    int stop_after; /* calls of progress; 0: never */
    int calls;
    bool loud;
    char last[400];
} findings;

static void note(void *ctx, const char *file, uint64_t offset, const char *what) {
    findings *f = ctx;
    f->n++;
    if (!strncmp(what, "damage: ", 8)) f->damage++;
    else if (!strncmp(what, "cache: ", 7)) f->cache++;
    else if (!strncmp(what, "remains: ", 9) || !strncmp(what, "torn: ", 6)) f->remains++;
    else CHECK(!"a class of finding");
    snprintf(f->last, sizeof f->last, "%s at %llu: %s", file, (unsigned long long)offset, what);
    if (f->loud) fprintf(stderr, "%s\n", f->last);
    if (f->file && !strcmp(f->file, file)) {
        f->of_file++;
        if (offset <= f->at) f->before++;
    }
}

static int advance(void *ctx, uint64_t done, uint64_t total) {
    findings *f = ctx;
    CHECK(done >= f->done && done <= total && total >= f->total);
    f->done = done;
    f->total = total;
    return f->stop_after && ++f->calls >= f->stop_after;
}

static findings verify(jsc_mlog *log, const char *file, uint64_t at) {
    findings f = {.file = file, .at = at};
    jsc_verify v = {note, advance, &f};
    OK(jsc_mlog_verify(log, &v));
    CHECK(f.done == f.total);
    return f;
}

static void expect_sound(jsc_mlog *log) {
    findings f = verify(log, NULL, 0);
    if (f.n) fprintf(stderr, "%s: %d findings, the last: %s\n", about, f.n, f.last);
    CHECK(f.n == 0);
}

/* ---- logs ---- */

typedef struct kind {
    const char *name;
    int zstd;
    bool encrypted, deletes, big;
} kind;

static const kind KINDS[] = {
    {"plain", 0, false, false, false},     {"plain, compacted", 0, false, true, true},
    {"compressed", 3, false, true, false}, {"encrypted", 0, true, true, false},
    {"both", 3, true, false, true},
};
enum { NKINDS = sizeof KINDS / sizeof KINDS[0] };

static jsc_keys *ring(void) {
    uint8_t key[1][JSC_KEY_BYTES] = {{1, 2, 3}};
    uint32_t id = 5;
    jsc_keys *k = NULL;
    OK(jsc_keys_new(&id, (const uint8_t (*)[JSC_KEY_BYTES])key, 1, id, &k));
    return k;
}

static jsc_mlog *open_log(jsc_sim *disk, const kind *k, jsc_keys *keys, int how, bool background) {
    jsc_mlog_options o = {.sync_mode = JSC_SYNC_ALWAYS,
                          .segment_bytes = 8192,
                          .read_only = how != 'w',
                          .check_lock = how == 'c',
                          .background = background,
                          .zstd_level = k->zstd,
                          .keys = k->encrypted ? keys : NULL,
                          .scrub_bytes_per_s = UINT64_MAX,
                          .compact_bytes_per_s = UINT64_MAX};
    jsc_mlog *log = NULL;
    jsc_mlog_recovery rec;
    OK(jsc_mlog_open(jsc_sim_vfs(disk), "/d/log", &o, &log, &rec));
    return log;
}

static int put(jsc_mlog *log, uint64_t i, const kind *k) {
    char subject[32], data[3000];
    size_t n = k->big && i % 40 == 0 ? 2500 : (size_t)(i * 7919 % 90);
    for (size_t b = 0; b < n; b++) data[b] = (char)(i * 31 + b * (i % 5));
    jsc_span s = {subject, (size_t)snprintf(subject, sizeof subject, "s.%llu", (unsigned long long)(i * 37 % 50))};
    jsc_span h = {"A: b\r\n", i % 4 ? 0 : 6}, d = {data, n};
    uint64_t seq;
    return jsc_mlog_append(log, &s, &h, &d, 1000 + (int64_t)i, &seq);
}

static void fill(jsc_mlog *log, const kind *k, int n) {
    for (int i = 0; i < n; i++) {
        uint64_t last = jsc_mlog_last(log);
        OK(put(log, last + 1, k));
        if (rnd(8) == 0) OK(jsc_mlog_submit(log, &(uint64_t){0}));
        if (rnd(30) == 0) OK(jsc_mlog_sync(log, -1));
        if (k->deletes && i % 3) {
            int rc = jsc_mlog_delete(log, 1 + rnd(last + 1));
            CHECK(rc == JSC_OK || rc == JSC_ENOTFOUND);
        }
        if (k->deletes && i == n / 2) OK(jsc_mlog_purge(log, &(jsc_span){"s.7", 3}, 0, 1, &(uint64_t){0}));
    }
}

static jsc_mlog *build(jsc_sim *disk, const kind *k, jsc_keys *keys, int n) {
    jsc_mlog *log = open_log(disk, k, keys, 'w', false);
    fill(log, k, n);
    OK(jsc_mlog_sync(log, -1));
    OK(jsc_mlog_maintain(log, JSC_CARE_ALL, false));
    fill(log, k, n / 10);
    return log;
}

static void test_sound(void) {
    jsc_keys *keys = ring();
    for (int i = 0; i < NKINDS; i++) {
        const kind *k = &KINDS[i];
        jsc_sim *disk = jsc_sim_new(1);
        snprintf(about, sizeof about, "%s, open", k->name);
        jsc_mlog *log = build(disk, k, keys, 800);
        expect_sound(log); /* with records that are not written yet */
        OK(jsc_mlog_sync(log, -1));
        expect_sound(log);
        jsc_mlog *reader = open_log(disk, k, keys, 'r', false);
        snprintf(about, sizeof about, "%s, beside a writer", k->name);
        expect_sound(reader);
        OK(jsc_mlog_close(reader));
        OK(jsc_mlog_close(log));
        snprintf(about, sizeof about, "%s, closed", k->name);
        reader = open_log(disk, k, keys, 'c', false);
        expect_sound(reader);
        OK(jsc_mlog_close(reader));
        snprintf(about, sizeof about, "%s, again", k->name);
        log = open_log(disk, k, keys, 'w', false);
        expect_sound(log);
        fill(log, k, 300);
        OK(jsc_mlog_maintain(log, JSC_CARE_SEAL, false));
        expect_sound(log);
        OK(jsc_mlog_sync(log, -1));
        jsc_mlog_abandon(log);
        snprintf(about, sizeof about, "%s, abandoned", k->name);
        reader = open_log(disk, k, keys, 'c', false);
        expect_sound(reader);
        OK(jsc_mlog_close(reader));
        jsc_sim_free(disk);
    }
    jsc_keys_unref(keys);
}

/* ---- damage ---- */

typedef struct names {
    char at[64][40];
    int n;
} names;

static void note_name(void *ctx, const char *name) {
    names *l = ctx;
    CHECK(l->n < 64);
    if (strlen(name) == 20 || !strncmp(name, "checkpoint", 10)) snprintf(l->at[l->n++], 40, "%s", name);
}

/* Opens to look at a log that has one changed byte. false: it does not even open, which is fine. */
static bool look(jsc_sim *disk, const kind *k, jsc_keys *keys, const char *file, uint64_t at, findings *f) {
    jsc_mlog_options o = {.segment_bytes = 8192, .read_only = true, .check_lock = true};
    jsc_mlog *log = NULL;
    jsc_mlog_recovery rec;
    o.keys = k->encrypted ? keys : NULL;
    int rc = jsc_mlog_open(jsc_sim_vfs(disk), "/d/log", &o, &log, &rec);
    if (rc != JSC_OK) {
        CHECK(rc == JSC_ECORRUPT || rc == JSC_EFORMAT || rc == JSC_EKEY);
        snprintf(f->last, sizeof f->last, "open = %d", rc);
        return false;
    }
    *f = verify(log, file, at);
    OK(jsc_mlog_close(log));
    return true;
}

static void test_each_byte(int step) {
    jsc_keys *keys = ring();
    for (int i = 0; i < NKINDS; i++) {
        const kind *k = &KINDS[i];
        jsc_sim *disk = jsc_sim_new(1);
        names l = {.n = 0};
        snprintf(about, sizeof about, "%s", k->name);
        OK(jsc_mlog_close(build(disk, k, keys, 250)));
        const jsc_vfs *vfs = jsc_sim_vfs(disk);
        OK(vfs->list(vfs->self, "/d/log", note_name, &l));
        int unopened = 0, flips = 0;
        for (int n = 0; n < l.n; n++) {
            char path[60];
            snprintf(path, sizeof path, "/d/log/%s", l.at[n]);
            int64_t size = jsc_sim_size(disk, path);
            for (int64_t at = (int64_t)rnd((uint64_t)step); at < size; at += 1 + (int64_t)rnd((uint64_t)(2 * step))) {
                int bit = (int)rnd(8);
                findings f = {.n = 0};
                snprintf(about, sizeof about, "%s: bit %d of byte %lld of %s, %lld bytes", k->name, bit, (long long)at,
                         l.at[n], (long long)size);
                OK(jsc_sim_flip(disk, path, (uint64_t)at, bit));
                flips++;
                if (!look(disk, k, keys, l.at[n], (uint64_t)at, &f)) {
                    unopened++;
                } else {
                    CHECK(f.of_file > 0);
                    /* Named by where the record, batch or block begins; a table at the end by the end. */
                    if (strstr(l.at[n], ".seg") && !k->zstd && !k->encrypted) CHECK(f.before > 0);
                }
                OK(jsc_sim_flip(disk, path, (uint64_t)at, bit));
            }
        }
        snprintf(about, sizeof about, "%s: %d of %d did not open", k->name, unopened, flips);
        findings f;
        CHECK(look(disk, k, keys, NULL, 0, &f) && f.n == 0);
        CHECK(unopened * 10 < flips);
        jsc_sim_free(disk);
    }
    jsc_keys_unref(keys);
}

/* Closed files cut short, or longer. Of the last segment nobody else knows that the mark of the clean close was there. */
static void test_lengths(void) {
    const kind *k = &KINDS[0];
    jsc_sim *disk = jsc_sim_new(1);
    names l = {.n = 0};
    char last[40] = "";
    OK(jsc_mlog_close(build(disk, k, NULL, 250)));
    const jsc_vfs *vfs = jsc_sim_vfs(disk);
    OK(vfs->list(vfs->self, "/d/log", note_name, &l));
    for (int n = 0; n < l.n; n++)
        if (strstr(l.at[n], ".seg") && strcmp(l.at[n], last) > 0) snprintf(last, sizeof last, "%s", l.at[n]);
    for (int n = 0; n < l.n; n++) {
        char path[60];
        bool segment = strstr(l.at[n], ".seg");
        snprintf(path, sizeof path, "/d/log/%s", l.at[n]);
        int64_t size = jsc_sim_size(disk, path), used = size;
        uint8_t *saved = malloc((size_t)size);
        CHECK(jsc_sim_read(disk, path, 0, saved, (size_t)size) == size);
        while (segment && used && !saved[used - 1]) used--;
        if (!strcmp(l.at[n], last)) used -= 72;
        for (int64_t cut = 0; cut < size + 40; cut += 1 + (int64_t)rnd(200)) {
            findings f = {.n = 0};
            if (cut == size || (segment && cut >= used)) continue;
            snprintf(about, sizeof about, "%lld of %lld bytes of %s", (long long)cut, (long long)size, l.at[n]);
            OK(jsc_sim_resize(disk, path, (uint64_t)cut));
            if (look(disk, k, NULL, l.at[n], UINT64_MAX, &f)) CHECK(segment ? f.n > 0 : f.of_file > 0);
            OK(jsc_sim_resize(disk, path, (uint64_t)size));
            OK(jsc_sim_patch(disk, path, 0, saved, (size_t)size));
        }
        free(saved);
    }
    jsc_sim_free(disk);
}

/* Sidecars whose checksums are right and whose contents are not: as a faulty builder would make them. */
static void test_wrong_sidecars(int rounds) {
    for (int i = 0; i < 2; i++) {
        const kind *k = &KINDS[i];
        jsc_sim *disk = jsc_sim_new(1);
        names l = {.n = 0};
        snprintf(about, sizeof about, "%s, wrong sidecars", k->name);
        OK(jsc_mlog_close(build(disk, k, NULL, 250)));
        const jsc_vfs *vfs = jsc_sim_vfs(disk);
        OK(vfs->list(vfs->self, "/d/log", note_name, &l));
        int believed = 0;
        for (int n = 0; n < l.n; n++) {
            char path[60];
            jsc_sidecar_head h;
            jsc_sidecar_layout parts;
            snprintf(path, sizeof path, "/d/log/%s", l.at[n]);
            if (!strstr(path, ".idx")) continue;
            int64_t size = jsc_sim_size(disk, path);
            uint8_t *bytes = malloc((size_t)size), *wrong = malloc((size_t)size);
            CHECK(jsc_sim_read(disk, path, 0, bytes, (size_t)size) == size);
            OK(jsc_sidecar_head_decode(bytes, &h));
            jsc_sidecar_lay_out(&h, &parts);
            for (int r = 0; r < rounds; r++) {
                const uint64_t count = h.info.count, subjects = h.info.subjects;
                const uint64_t sections[][2] = {
                    {parts.bloom, 64ull * parts.nblooms},
                    {parts.seq, 8 * count},
                    {parts.ts, 8 * count},
                    {parts.offset, 4 * count},
                    {parts.size, 4 * count},
                    {parts.subject, 4 * count},
                    {parts.starts, 4 * (subjects + 1)},
                    {parts.postings, 4 * count},
                    {parts.texts, h.text_bytes},
                    {parts.slots, 4ull * parts.nslots},
                    {parts.runs, 8ull * h.runs},
                    {parts.others, 8ull * h.others},
                };
                const uint64_t *section = sections[rnd(sizeof sections / sizeof sections[0])];
                if (!section[1]) continue;
                uint64_t at = section[0] + rnd(section[1]), bit = rnd(8);
                bool in_filter = section == sections[0];
                findings f = {.n = 0};
                memcpy(wrong, bytes, (size_t)size);
                wrong[JSC_SIDECAR_HEAD + at] ^= (uint8_t)(1 << bit);
                if (in_filter && wrong[JSC_SIDECAR_HEAD + at] >> bit & 1) continue; /* a bit too many is no fault */
                h.digest = jsc_subject_hash((char *)wrong + JSC_SIDECAR_HEAD, h.body);
                jsc_sidecar_head_encode(&h, wrong);
                snprintf(about, sizeof about, "%s: bit %d of byte %llu of the body of %s", k->name, (int)bit,
                         (unsigned long long)at, l.at[n]);
                OK(jsc_sim_patch(disk, path, 0, wrong, (size_t)size));
                if (look(disk, k, NULL, l.at[n], 0, &f)) CHECK(f.of_file > 0);
                believed += f.n > 0 && !strstr(f.last, "does not verify");
            }
            OK(jsc_sim_patch(disk, path, 0, bytes, (size_t)size));
            free(bytes);
            free(wrong);
        }
        CHECK(believed > 0); /* some pass all but the comparison with the records */
        jsc_sim_free(disk);
    }
}

static void touch(jsc_sim *disk, const char *path) {
    const jsc_vfs *vfs = jsc_sim_vfs(disk);
    int fd = vfs->open(vfs->self, path, O_RDWR | O_CREAT, 0644);
    CHECK(fd >= 0);
    vfs->close(vfs->self, fd);
}

static void test_names(void) {
    static const char *const strays[] = {"notes.txt", "checkpoint.copy.tmp", "00000000000000ff.tmp",
                                         "00000000000000ff.idx", "00000000000000fg.seg"};
    const kind *k = &KINDS[1];
    jsc_sim *disk = jsc_sim_new(1);
    snprintf(about, sizeof about, "stray files");
    jsc_mlog *log = build(disk, k, NULL, 300);
    for (int i = 0; i < 5; i++) {
        char path[60];
        snprintf(path, sizeof path, "/d/log/%s", strays[i]);
        touch(disk, path);
        findings f = verify(log, strays[i], 0);
        CHECK(f.n == i + 1 && f.remains == f.n && f.of_file == 1);
    }
    jsc_mlog *reader = open_log(disk, k, NULL, 'r', false);
    CHECK(verify(reader, NULL, 0).n == 0); /* a writer's jobs have such files */
    OK(jsc_mlog_close(reader));
    OK(jsc_mlog_close(log));
    jsc_sim_free(disk);
}

static void test_torn_tail(void) {
    const kind *k = &KINDS[0];
    jsc_sim *disk = jsc_sim_new(1);
    snprintf(about, sizeof about, "torn tail");
    jsc_mlog *log = open_log(disk, k, NULL, 'w', false);
    fill(log, k, 5);
    OK(jsc_mlog_sync(log, -1));
    jsc_mlog_abandon(log);
    const char *path = "/d/log/0000000000000001.seg";
    uint8_t bytes[8192];
    int64_t size = jsc_sim_read(disk, path, 0, bytes, sizeof bytes), end = size;
    while (end && !bytes[end - 1]) end--;
    end = (end + 7) & ~(int64_t)7;
    OK(jsc_sim_patch(disk, path, (uint64_t)end, "\1\2\3\4\5\6\7", 8));
    jsc_mlog *reader = open_log(disk, k, NULL, 'c', false);
    findings f = verify(reader, "0000000000000001.seg", (uint64_t)end);
    CHECK(f.n == 1 && f.remains == 1 && f.before == 1);
    OK(jsc_mlog_close(reader));
    log = open_log(disk, k, NULL, 'w', false);
    expect_sound(log);
    OK(jsc_mlog_close(log));
    jsc_sim_free(disk);
}

static void test_stop(void) {
    const kind *k = &KINDS[0];
    jsc_sim *disk = jsc_sim_new(1);
    jsc_mlog *log = build(disk, k, NULL, 300);
    findings f = {.stop_after = 2};
    jsc_verify v = {note, advance, &f};
    snprintf(about, sizeof about, "stopped");
    CHECK(jsc_mlog_verify(log, &v) == -ECANCELED && f.calls == 2);
    expect_sound(log); /* nothing is left pinned or held */
    OK(jsc_mlog_maintain(log, JSC_CARE_ALL, false));
    OK(jsc_mlog_close(log));
    jsc_sim_free(disk);
}

/* ---- beside a writer at work ---- */

typedef struct work {
    jsc_mlog *log;
    const kind *k;
    _Atomic bool done;
} work;

static void *append_much(void *arg) {
    work *w = arg;
    fill(w->log, w->k, 3000);
    atomic_store(&w->done, true);
    return NULL;
}

static void test_at_work(void) {
    jsc_keys *keys = ring();
    for (int i = 0; i < NKINDS; i++) {
        jsc_sim *disk = jsc_sim_new(1);
        work w = {.k = &KINDS[i]};
        pthread_t t;
        snprintf(about, sizeof about, "%s, at work", w.k->name);
        w.log = open_log(disk, w.k, keys, 'w', true);
        CHECK(pthread_create(&t, NULL, append_much, &w) == 0);
        while (!atomic_load(&w.done)) expect_sound(w.log);
        pthread_join(t, NULL);
        expect_sound(w.log);
        OK(jsc_mlog_close(w.log));
        jsc_mlog *reader = open_log(disk, w.k, keys, 'c', false);
        expect_sound(reader);
        OK(jsc_mlog_close(reader));
        jsc_sim_free(disk);
    }
    jsc_keys_unref(keys);
}

int main(int argc, char **argv) {
    rnd_state = 7;
    test_sound();
    test_names();
    test_torn_tail();
    test_stop();
    test_at_work();
    test_lengths();
    test_wrong_sidecars(100);
    test_each_byte(argc > 1 ? atoi(argv[1]) : 40);
    puts("verify: ok");
    return 0;
}
