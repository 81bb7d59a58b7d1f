/* A process that dies at any call it makes of the file system leaves a log that has everything it called durable, in
 * order, and nothing else. For n = 1, 2, ... a child runs a fixed story over real files and is killed at the n-th call
 * (before it, after it, in the middle of a write), telling through a pipe what it is about to do and what is durable; the
 * parent then opens what is left. The same stories run over the simulated disk, where the power goes at the n-th call
 * and takes along what was not synced.
 *
 * As it is, calls are taken in turn before and after, and long stories are sampled; JSCORE_KILL_ALL=1 takes each call of
 * each story in every way. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "../jsc.h"
#include "../jsc_mlog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *running = "start"; /* what a failure names */
static uint64_t at_call;

#define CHECK_CASE " (%s, call %llu)", running, (unsigned long long)at_call
#include "../../base/test/check.h"

#define TRY(x)                                                                                                         \
    do {                                                                                                               \
        if ((rc = (x)) != JSC_OK) goto out;                                                                            \
    } while (0)

/* ---- what a story tells: pairs of a word and a number, through a pipe or kept ---- */

typedef struct journal {
    int fd; /* -1: kept here */
    uint64_t *words;
    size_t n, cap; /* words */
} journal;

static void keep(journal *j, const uint64_t *words, size_t n) {
    if (j->n + n > j->cap) {
        j->cap = 2 * (j->n + n);
        j->words = realloc(j->words, j->cap * sizeof *j->words);
        CHECK(j->words);
    }
    memcpy(j->words + j->n, words, n * sizeof *words);
    j->n += n;
}

static void tell(journal *j, char word, uint64_t number) {
    uint64_t pair[2] = {(uint64_t)word, number};
    if (j->fd < 0) keep(j, pair, 2);
    else if (write(j->fd, pair, sizeof pair) != sizeof pair) _exit(4);
}

/* A story: runs over a table from an empty directory; the first error ends it (JSC_OK: to its end). check looks at what is
 * left after the journal, goes on from there, telling the journal too, and leaves a log that was closed. */
typedef struct story {
    const char *name;
    int (*run)(const struct story *, const jsc_vfs *, const char *dir, journal *);
    void (*check)(const struct story *, const jsc_vfs *, const char *dir, journal *);
    int variant;
    uint64_t most; /* calls sampled unless all are asked for */
} story;

/* Bytes that follow from a number and a generation. */
static size_t body(uint64_t i, uint64_t g, uint8_t out[8192]) {
    uint64_t h = i * 1000003 + g * 7919;
    size_t n = h % 11 == 0 ? 5000 + h % 1000 : h % 400;
    for (size_t k = 0; k < n; k++) out[k] = (uint8_t)(i * 31 + g * 17 + k * (1 + i % 3));
    return n;
}

/* ---- the record log ---- */

/* 'a' i: about to append record i; 'g' g: of generation g from now on; 'd' i: durable up to i; 't' n: about to cut above n;
 * 'c' n: cut. */
static int put_record(jsc_log *log, uint64_t i, uint64_t g) {
    static uint8_t bytes[8192];
    size_t n = body(i, g, bytes);
    uint64_t index;
    int rc = jsc_log_append(log, (uint32_t)g, (int64_t)i, JSC_K_MESSAGE, "a.b", 3, NULL, 0, bytes, n, &index);
    if (rc == JSC_OK) CHECK(index == i);
    return rc;
}

static int records_run(const story *what, const jsc_vfs *vfs, const char *dir, journal *j) {
    /* Each round: append so many, cut so many of them, append again, close or not. */
    static const struct {
        int appends, every, cut, more;
    } rounds[] = {{30, 4, 0, 0}, {25, 7, 13, 9}, {6, 1, 2, 12}};
    uint64_t last = 0, g = 1;
    int rc = JSC_OK;
    jsc_store *store = NULL;
    jsc_log *log = NULL;
    /* An interval that never ends: nothing is synced but by closing, and full segments behind the writer's back. */
    bool lazy = what->variant;
    int64_t hour = (int64_t)3600 * 1000000000;
    if ((rc = jsc_store_open(vfs, lazy ? JSC_SYNC_INTERVAL : JSC_SYNC_ALWAYS, hour, &store)) != JSC_OK) return rc;
    for (size_t r = 0; r < sizeof rounds / sizeof *rounds; r++) {
        jsc_log_options o = {.segment_bytes = 4096};
        TRY(jsc_log_open(store, dir, &o, &log, NULL));
        CHECK(jsc_log_last(log) == last);
        for (int half = 0; half < 2; half++) {
            tell(j, 'g', g);
            for (int k = 0; k < (half ? rounds[r].more : rounds[r].appends); k++) {
                tell(j, 'a', last + 1);
                TRY(put_record(log, ++last, g));
                TRY(jsc_log_submit(log));
                if (k % rounds[r].every || (lazy && k % 8)) continue;
                TRY(jsc_log_wait(log, last, -1));
                if (!lazy) tell(j, 'd', last);
            }
            if (half || !rounds[r].cut) continue;
            tell(j, 't', last - (uint64_t)rounds[r].cut);
            TRY(jsc_log_truncate(log, last - (uint64_t)rounds[r].cut));
            tell(j, 'c', last -= (uint64_t)rounds[r].cut);
            g++;
        }
        rc = jsc_log_close(log);
        log = NULL;
        if (rc != JSC_OK) goto out;
        tell(j, 'd', last);
    }
out:
    if (log) jsc_log_abandon(log);
    jsc_store_close(store);
    return rc;
}

static void records_check(const story *what, const jsc_vfs *vfs, const char *dir, journal *j) {
    uint64_t generation[256] = {0}, g = 0, last = 0, least = 0;
    for (size_t k = 0; k < j->n; k += 2) {
        uint64_t n = j->words[k + 1];
        switch (j->words[k]) {
        case 'g': g = n; break;
        case 'a': generation[last = n] = g; break;
        case 'd': least = n; break;
        case 't': least = n < least ? n : least; break;
        case 'c': last = least = n; break;
        default: CHECK(!"a word of the journal");
        }
    }
    jsc_store *store;
    jsc_log *log;
    jsc_log_recovery rec;
    jsc_log_options o = {.segment_bytes = 4096};
    OK(jsc_store_open(vfs, JSC_SYNC_ALWAYS, 0, &store));
    for (int again = 0; again < 3; again++) {
        OK(jsc_log_open(store, dir, &o, &log, &rec));
        uint64_t got = jsc_log_last(log);
        CHECK(rec.damaged_index == 0 && got >= least && got <= last);
        for (uint64_t i = 1; i <= got; i++) {
            jsc_record r;
            static uint8_t bytes[8192];
            OK(jsc_log_read(log, i, &r));
            size_t n = body(i, generation[i], bytes);
            CHECK(r.index == i && r.term == generation[i] && r.data_len == n && memcmp(r.data, bytes, n) == 0);
        }
        tell(j, 'c', last = got);
        tell(j, 'g', ++g);
        for (int k = 0; again < 2 && k < 6; k++) {
            generation[++last] = g;
            tell(j, 'a', last);
            OK(put_record(log, last, g));
            OK(jsc_log_submit(log));
        }
        OK(jsc_log_wait(log, least = last, -1));
        tell(j, 'd', last);
        OK(jsc_log_close(log));
    }
    jsc_store_close(store);
}
/* ---- the message log ---- */

/* A list of steps that parent and child know; the model's state after each. */
enum { STEPS = 330, MOST_SEQS = 400, SUBJECTS = 6 };
enum { APPEND, WAIT, DELETE, PURGE, LIMITS, SEAL, COMPACT, REOPEN };

typedef struct step {
    int kind;
    uint64_t a, b; /* delete: seq; purge: filter, keep; limits: per subject, messages */
} step;

typedef struct state {
    uint64_t last;
    uint8_t live[MOST_SEQS + 1];
} state;

typedef struct plan {
    step steps[STEPS];
    state after[STEPS + 1]; /* after[k]: k steps are done */
} plan;

static const char *const filters[] = {"s.0", "s.3", "s.*", ">"};

static jsc_span subject_of(uint64_t seq) {
    static const char *const texts[SUBJECTS] = {"s.0", "s.1", "s.2", "s.3", "t.4", "u"};
    const char *p = texts[seq * seq % 31 % SUBJECTS];
    return (jsc_span){p, strlen(p)};
}

static bool same_subject(uint64_t a, uint64_t b) { return subject_of(a).p == subject_of(b).p; }

static bool matches(uint64_t seq, uint64_t filter) {
    const char *text = subject_of(seq).p;
    if (filter < 2) return strcmp(text, filters[filter]) == 0;
    return filter == 3 || text[0] == 's';
}

static void model_limits(state *s, uint64_t per_subject, uint64_t messages) {
    for (uint64_t i = s->last; i && per_subject; i--) {
        uint64_t newer = 0;
        for (uint64_t k = i + 1; k <= s->last; k++) newer += s->live[k] && same_subject(i, k);
        if (newer >= per_subject) s->live[i] = 0;
    }
    uint64_t seen = 0;
    for (uint64_t i = s->last; i && messages; i--)
        if (s->live[i] && ++seen > messages) s->live[i] = 0;
}

static const plan *the_plan(void) {
    static plan *p; /* made once, children inherit it */
    if (p) return p;
    p = calloc(1, sizeof *p);
    CHECK(p);
    uint64_t r = 42, per_subject = 0, messages = 0;
    for (size_t k = 0; k < STEPS; k++) {
        state *s = &p->after[k + 1];
        step *t = &p->steps[k];
        *s = p->after[k];
        r = r * 6364136223846793005u + 1442695040888963407u;
        uint64_t what = (r >> 33) % 100, pick = r >> 45;
        if (k == 120) *t = (step){LIMITS, 25, 0};
        else if (k == 240) *t = (step){LIMITS, 12, 50};
        else if (k % 60 == 55) *t = (step){PURGE, k / 60 % 4, k / 60 % 3};
        else if (k % 80 == 70) t->kind = SEAL;
        else if (k % 80 == 78) t->kind = COMPACT;
        else if (k % 110 == 100) t->kind = REOPEN;
        else if (what < 12) t->kind = WAIT;
        else if (what < 30 && s->last) *t = (step){DELETE, 1 + pick % s->last, 0};
        if (t->kind == DELETE && !s->live[t->a]) t->kind = APPEND;
        if (t->kind == APPEND) {
            s->live[++s->last] = 1;
            CHECK(s->last <= STEPS);
        } else if (t->kind == DELETE) {
            s->live[t->a] = 0;
        } else if (t->kind == PURGE) {
            uint64_t seen = 0;
            for (uint64_t i = s->last; i; i--)
                if (s->live[i] && matches(i, t->a) && ++seen > t->b) s->live[i] = 0;
        } else if (t->kind == LIMITS) {
            per_subject = t->a;
            messages = t->b;
        }
        model_limits(s, per_subject, messages);
    }
    return p;
}

enum {
    SQUEEZED = 1,
    SECRET = 2,
    BUSY = 4,
    LAZY = 8
}; /* compressed, encrypted, with the background thread, sync never */

static int open_messages(const story *what, const jsc_vfs *vfs, const char *dir, jsc_mlog **out) {
    static const uint8_t secrets[1][JSC_KEY_BYTES] = {"a key that everybody may know..."};
    static const uint32_t ids[1] = {7};
    jsc_mlog_options o = {.sync_mode = what->variant & LAZY ? JSC_SYNC_NEVER : JSC_SYNC_ALWAYS,
                          .segment_bytes = 4096,
                          .background = what->variant & BUSY};
    o.zstd_level = what->variant & SQUEEZED ? 1 : 0;
    jsc_keys *keys = NULL;
    if (what->variant & SECRET) OK(jsc_keys_new(ids, secrets, 1, 7, &keys));
    o.keys = keys;
    int rc = jsc_mlog_open(vfs, dir, &o, out, NULL);
    jsc_keys_unref(keys);
    return rc;
}

static int put_message(jsc_mlog *m, uint64_t seq) {
    static uint8_t bytes[8192];
    jsc_span subject = subject_of(seq), none = {"", 0}, data = {(const char *)bytes, body(seq, 1, bytes)};
    uint64_t got;
    int rc = jsc_mlog_append(m, &subject, &none, &data, (int64_t)seq, &got);
    if (rc == JSC_OK) CHECK(got == seq);
    return rc;
}

static int settle(const story *what, jsc_mlog *m) {
    uint64_t position;
    if (what->variant & LAZY) return jsc_mlog_sync(m, -1);
    int rc = jsc_mlog_submit(m, &position);
    return rc == JSC_OK ? jsc_mlog_wait(m, position, -1) : rc;
}

/* 's' k: about to do step k; 'd' k: steps below k are done and durable; 'c' k: found after a crash as of k steps, and more
 * appended ('m' seq: about to, 'e' seq: durable). */
static int messages_run(const story *what, const jsc_vfs *vfs, const char *dir, journal *j) {
    const plan *p = the_plan();
    jsc_mlog *m = NULL;
    uint64_t n, last = 0;
    int rc;
    TRY(open_messages(what, vfs, dir, &m));
    for (size_t k = 0; k < STEPS; k++) {
        const step *t = &p->steps[k];
        jsc_span filter = {filters[t->a & 3], strlen(filters[t->a & 3])};
        jsc_limits limits = {.max_per_subject = t->a, .max_messages = t->b};
        tell(j, 's', k);
        switch (t->kind) {
        case APPEND: TRY(put_message(m, ++last)); break;
        case DELETE: TRY(jsc_mlog_delete(m, t->a)); break;
        case PURGE: TRY(jsc_mlog_purge(m, &filter, 0, t->b, &n)); break;
        case LIMITS: TRY(jsc_mlog_set_limits(m, &limits)); break;
        case SEAL: TRY(jsc_mlog_maintain(m, JSC_CARE_FLUSH | JSC_CARE_SEAL, false)); break;
        case COMPACT: TRY(jsc_mlog_maintain(m, JSC_CARE_ALL, true)); break;
        case REOPEN: {
            jsc_mlog *old = m;
            if (what->variant & LAZY) TRY(settle(what, m));
            m = NULL;
            TRY(jsc_mlog_close(old));
            tell(j, 'd', k);
            TRY(open_messages(what, vfs, dir, &m));
            break;
        }
        case WAIT:
            TRY(settle(what, m));
            tell(j, 'd', k);
            break;
        }
    }
    if (what->variant & LAZY) TRY(settle(what, m));
    rc = jsc_mlog_close(m);
    m = NULL;
    if (rc == JSC_OK) tell(j, 'd', STEPS);
out:
    if (m) jsc_mlog_abandon(m);
    return rc;
}

static void note_finding(void *ctx, const char *file, uint64_t offset, const char *what) {
    fprintf(stderr, "found wrong: %s at %llu: %s\n", file, (unsigned long long)offset, what);
    ++*(int *)ctx;
}

/* What the log holds is the state s; every live message has its bytes, by sequence and in the order of a cursor. */
static bool holds(jsc_mlog *m, const state *s) {
    if (jsc_mlog_last(m) != s->last) return false;
    static uint8_t bytes[8192];
    bool same = true;
    for (uint64_t seq = 1; seq <= s->last; seq++) {
        jsc_message got;
        int rc = jsc_mlog_get(m, seq, &got);
        CHECK(rc == JSC_OK || rc == JSC_ENOTFOUND);
        if ((rc == JSC_OK) != s->live[seq]) same = false;
        if (rc != JSC_OK) continue;
        size_t n = body(seq, 1, bytes);
        jsc_span subject = subject_of(seq);
        CHECK(got.seq == seq && got.r.data_len == n && memcmp(got.r.data, bytes, n) == 0);
        CHECK(got.r.subject_len == subject.n && memcmp(got.r.subject, subject.p, subject.n) == 0);
        jsc_message_release(m, &got);
    }
    return same;
}

static void check_answers(jsc_mlog *m, const state *s) {
    jsc_filter *all;
    OK(jsc_filter_new(NULL, 0, &all));
    jsc_cursor *c;
    OK(jsc_cursor_new(m, all, 1, false, &c));
    jsc_message got;
    int n;
    uint64_t live = 0;
    for (uint64_t seq = 1; seq <= s->last; seq++) {
        if (!s->live[seq]) continue;
        OK(jsc_cursor_next(c, &got, 1, &n));
        CHECK(n == 1 && got.seq == seq);
        jsc_message_release(m, &got);
        live++;
    }
    OK(jsc_cursor_next(c, &got, 1, &n));
    CHECK(n == 0);
    jsc_cursor_free(c);
    uint64_t count, seq;
    OK(jsc_mlog_count(m, all, 0, &count));
    CHECK(count == live);
    jsc_filter_free(all);
    for (uint64_t i = 1; i <= SUBJECTS * 5; i++) { /* each subject comes in these */
        jsc_span subject = subject_of(i);
        uint64_t newest = 0;
        for (uint64_t k = 1; k <= s->last; k++)
            if (s->live[k] && same_subject(i, k)) newest = k;
        seq = 0;
        int rc = jsc_mlog_last_of(m, &subject, &seq);
        if (newest ? rc != JSC_OK || seq != newest : rc != JSC_ENOTFOUND)
            fprintf(stderr, "last of %s: %d, %llu, not %llu\n", subject.p, rc, (unsigned long long)seq,
                    (unsigned long long)newest);
        CHECK(newest ? rc == JSC_OK && seq == newest : rc == JSC_ENOTFOUND);
    }
}

static void messages_check(const story *what, const jsc_vfs *vfs, const char *dir, journal *j) {
    const plan *p = the_plan();
    uint64_t least = 0, most = 0, base = 0, more = 0, durable = 0;
    bool found = false;
    for (size_t k = 0; k < j->n; k += 2) {
        uint64_t n = j->words[k + 1];
        switch (j->words[k]) {
        case 's': most = n + 1; break;
        case 'd': least = n; break;
        case 'c': found = true, base = n, more = durable = 0; break;
        case 'm': more = n; break;
        case 'e': durable = n; break;
        default: CHECK(!"a word of the journal");
        }
    }
    jsc_mlog *m;
    state *s = calloc(1, sizeof *s);
    CHECK(s);
    for (int again = 0; again < 2; again++) {
        OK(open_messages(what, vfs, dir, &m));
        size_t lost = 99;
        OK(jsc_mlog_damage(m, NULL, 0, &lost));
        CHECK(lost == 0);
        if (!found) {
            for (base = least; base <= most && !holds(m, &p->after[base]); base++) {
            }
            CHECK(base <= most); /* what is there is a state that the log was in, no older than what was durable */
            *s = p->after[base];
            found = true;
            tell(j, 'c', base);
        } else if (!again) {
            *s = p->after[base];
        }
        if (!again) { /* an earlier check appended behind the state */
            for (uint64_t seq = s->last + 1; seq <= more && seq <= jsc_mlog_last(m); seq++) s->live[s->last = seq] = 1;
            CHECK(s->last >= durable);
        }
        jsc_mlog_stats about;
        OK(jsc_mlog_about(m, &about));
        model_limits(s, about.limits.max_per_subject, about.limits.max_messages);
        CHECK(holds(m, s));
        check_answers(m, s);
        if (!again) {
            uint64_t from = s->last;
            for (int k = 0; k < 12; k++) {
                tell(j, 'm', s->last + 1);
                OK(put_message(m, s->last + 1));
                s->live[++s->last] = 1;
                model_limits(s, about.limits.max_per_subject, about.limits.max_messages);
            }
            OK(settle(what, m));
            tell(j, 'e', s->last);
            CHECK(jsc_mlog_durable(m) == s->last && from + 12 == s->last);
            OK(jsc_mlog_maintain(m, JSC_CARE_ALL, true));
            CHECK(holds(m, s));
        }
        int findings = 0;
        jsc_verify verify = {.finding = note_finding, .ctx = &findings};
        OK(jsc_mlog_verify(m, &verify));
        CHECK(findings == 0);
        OK(jsc_mlog_close(m));
    }
    free(s);
}

static const story stories[] = {
    {"record log", records_run, records_check, 0, 400},
    {"record log, lazy", records_run, records_check, 1, 200},
    {"message log", messages_run, messages_check, 0, 300},
    {"message log, lazy", messages_run, messages_check, LAZY, 100},
    {"message log, compressed", messages_run, messages_check, SQUEEZED, 60},
    {"message log, encrypted", messages_run, messages_check, SECRET, 60},
    {"message log, busy", messages_run, messages_check, BUSY, 60},
    {"message log, all of it", messages_run, messages_check, SQUEEZED | SECRET | BUSY, 60},
    {"message log, all of it, lazy", messages_run, messages_check, SQUEEZED | SECRET | BUSY | LAZY, 60},
};

/* ---- killing ---- */

static char base[256];

static void empty(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return;
    struct dirent *e;
    char path[768];
    while ((e = readdir(d)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.') CHECK(unlink(path) == 0);
    }
    closedir(d);
    CHECK(rmdir(dir) == 0);
}

/* Runs the story in a child that dies at call n. true: it came to its end. */
static bool run_killed(const story *s, const char *dir, uint64_t n, int when, journal *j) {
    int ends[2], status;
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(60); /* a child that hangs is a failure, not a hang */
        close(ends[0]);
        jsc_kill *k = jsc_kill_new(jsc_vfs_posix(), n, when);
        journal told = {.fd = ends[1]};
        int rc = s->run(s, jsc_kill_vfs(k), dir, &told);
        if (rc != JSC_OK) fprintf(stderr, "the story ended with %d\n", rc);
        _exit(rc != JSC_OK);
    }
    close(ends[1]);
    uint64_t words[1024];
    size_t have = 0;
    for (;;) {
        ssize_t got = read(ends[0], (uint8_t *)words + have, sizeof words - have);
        if (got < 0 && errno == EINTR) continue;
        CHECK(got >= 0);
        if (got == 0) break;
        have += (size_t)got;
        keep(j, words, have / 16 * 2);
        memmove(words, (uint8_t *)words + have / 16 * 16, have % 16);
        have %= 16;
    }
    close(ends[0]);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status)) {
        CHECK(WEXITSTATUS(status) == 0);
        return true;
    }
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return false;
}

/* How many calls a whole run makes: of one operation, or all. */
static uint64_t calls_of(const story *s, int op) {
    journal told = {.fd = -1};
    char dir[300];
    snprintf(dir, sizeof dir, "%s/log", base);
    empty(dir);
    jsc_kill *k = jsc_kill_new(jsc_vfs_posix(), 0, 0);
    OK(s->run(s, jsc_kill_vfs(k), dir, &told));
    uint64_t n = jsc_kill_calls(k, op);
    jsc_kill_free(k);
    free(told.words);
    return n;
}

static void kill_everywhere(const story *s, bool all) {
    static const char *const words[] = {"killed before", "killed in the middle of a write", "killed after"};
    char dir[300], name[128];
    snprintf(dir, sizeof dir, "%s/log", base);
    uint64_t runs = 0;
    for (int when = JSC_KILL_BEFORE; when <= JSC_KILL_AFTER; when++) {
        snprintf(name, sizeof name, "%s, %s", s->name, words[when]);
        running = name;
        uint64_t step = 1, calls = calls_of(s, when == JSC_KILL_MIDDLE ? 'w' : 0);
        if (!all && calls > s->most) step = (calls + s->most - 1) / s->most;
        /* Before call n + 1 and after call n are much the same: half of each. */
        if (!all && when != JSC_KILL_MIDDLE) step *= 2;
        uint64_t n = 1 + (!all && when == JSC_KILL_AFTER ? step / 2 : 0);
        for (bool done = false; !done; n += step, runs++) {
            journal j = {.fd = -1};
            at_call = n;
            empty(dir);
            done = run_killed(s, dir, n, when, &j);
            s->check(s, jsc_vfs_posix(), dir, &j);
            free(j.words);
        }
    }
    printf("%s: killed at %llu calls\n", s->name, (unsigned long long)runs);
    fflush(stdout);
}

/* The power goes at call n: from there on every call fails, and then what was not synced goes, in part or all of it. Or
 * only the process dies there, the next one goes on, and the power goes when that is done. */
static void cut_everywhere(const story *s, bool all) {
    static const struct {
        int keep, torn, later;
    } ways[] = {{0, 0, 0}, {0, 0, 1}, {60, 1, 0}, {90, 0, 0}, {100, 0, 0}, {60, 1, 1}};
    char name[128];
    uint64_t runs = 0, step = 1;
    snprintf(name, sizeof name, "%s, power cut", s->name);
    running = name;
    bool done = false;
    for (uint64_t n = 1; !done; n += step)
        for (int way = 0; way < (all ? 6 : 3); way++, runs++) {
            jsc_sim *disk = jsc_sim_new(n * 8 + (uint64_t)way);
            journal j = {.fd = -1};
            at_call = n;
            jsc_sim_die(disk, (int)n, EIO);
            done = s->run(s, jsc_sim_vfs(disk), "/d/log", &j) == JSC_OK;
            jsc_sim_die(disk, 0, 0);
            if (ways[way].later) s->check(s, jsc_sim_vfs(disk), "/d/log", &j);
            jsc_sim_crash(disk, ways[way].keep, ways[way].torn);
            s->check(s, jsc_sim_vfs(disk), "/d/log", &j);
            free(j.words);
            jsc_sim_free(disk);
            if (!all && n == 1 && !way) step = 1 + calls_of(s, 0) / s->most;
        }
    printf("%s: power cut at %llu calls\n", s->name, (unsigned long long)runs);
    fflush(stdout);
}

int main(int argc, char **argv) {
    bool all = getenv("JSCORE_KILL_ALL") != NULL;
    /* A kill leaves what was written in memory: a file system without a disk under it shows the same, faster. */
    const char *place = getenv("TMPDIR") ? getenv("TMPDIR") : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(base, sizeof base, "%s/jscore-kill-XXXXXX", place);
    CHECK(mkdtemp(base));
    for (size_t i = 0; i < sizeof stories / sizeof *stories; i++) {
        if (argc > 1 && !strstr(stories[i].name, argv[1])) continue;
        kill_everywhere(&stories[i], all);
        cut_everywhere(&stories[i], all);
    }
    char dir[300];
    snprintf(dir, sizeof dir, "%s/log", base);
    empty(dir);
    CHECK(rmdir(base) == 0);
    puts("ok");
    return 0;
}
