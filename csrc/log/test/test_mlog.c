/* The message log against a model, on the simulated disk: appends, tombstones, limits, maintenance, reopenings, power
 * cuts. Whatever survives must be the state after some record at or behind the one known durable. Many seeds. */
#include "../format.h"
#include "../jsc_mlog.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK_CASE " (seed %llu, step %llu)", (unsigned long long)seed, (unsigned long long)step
#define CHECK_END() abort()
#include "../../base/test/check.h"

static uint64_t seed, step;
/* With TRACE in the environment, a line for each event. */
static bool trace;
#define TELL(...)                                                                                                      \
    do {                                                                                                               \
        if (trace) {                                                                                                   \
            fprintf(stderr, "%llu: ", (unsigned long long)step);                                                       \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
        }                                                                                                              \
    } while (0)

/* ---- the model ---- */

enum { SUBJECTS = 12, MOST = 20000 };
static const char *const subjects[SUBJECTS] = {"a.0", "a.1", "a.2", "a.b.c", "b.0",   "b.1",
                                               "b.2", "c",   "",    "d.x.y", "d.x.z", "e"};

typedef struct item {
    int subject;
    uint32_t len, headers;
    int64_t ts;
    uint64_t bytes;
    bool live;
} item;

enum { OP_MESSAGE, OP_DELETE, OP_PURGE, OP_LIMITS };
typedef struct op {
    int kind;
    uint64_t index; /* of its record; messages: their sequence */
    item m;
    uint64_t a, b;
    int filter;
    jsc_limits limits;
} op;

typedef struct model {
    item items[MOST + 1]; /* by sequence */
    uint64_t last, live, bytes, first;
    jsc_limits limits;
    int64_t last_ts;
} model;

enum { FILTERS = 6 };
static const char *const filters[FILTERS] = {NULL, "a.*", "b.>", "a.1", "*", "d.x.z"};

static bool matches(int filter, int subject) {
    const char *s = subjects[subject];
    switch (filter) {
    case 0: return true;
    case 1: return strncmp(s, "a.", 2) == 0 && !strchr(s + 2, '.');
    case 2: return strncmp(s, "b.", 2) == 0;
    case 3: return strcmp(s, "a.1") == 0;
    case 4: return s[0] && !strchr(s, '.');
    default: return strcmp(s, "d.x.z") == 0;
    }
}

static void model_kill(model *m, uint64_t seq) {
    CHECK(m->items[seq].live);
    m->items[seq].live = false;
    m->live--;
    m->bytes -= m->items[seq].bytes;
    while (m->first <= m->last && !m->items[m->first].live) m->first++;
}

static void model_limits(model *m) {
    if (m->limits.max_age_ns)
        while (m->live && m->items[m->first].ts < m->last_ts - m->limits.max_age_ns) model_kill(m, m->first);
    while ((m->limits.max_messages && m->live > m->limits.max_messages) ||
           (m->limits.max_bytes && m->bytes > m->limits.max_bytes))
        model_kill(m, m->first);
}

static void model_subject(model *m, int subject) {
    uint64_t n = 0;
    if (!m->limits.max_per_subject) return;
    for (uint64_t s = m->last; s >= m->first && s; s--)
        if (m->items[s].live && m->items[s].subject == subject && ++n > m->limits.max_per_subject) model_kill(m, s);
}

static void model_apply(model *m, const op *o) {
    TELL("apply %d at %llu: %llu %llu subject %d filter %d", o->kind, (unsigned long long)o->index,
         (unsigned long long)o->a, (unsigned long long)o->b, o->m.subject, o->filter);
    if (o->kind == OP_MESSAGE) {
        CHECK(m->last + 1 <= MOST);
        m->items[++m->last] = o->m;
        m->items[m->last].live = true;
        m->live++;
        m->bytes += o->m.bytes;
        m->last_ts = o->m.ts;
        while (m->first <= m->last && !m->items[m->first].live) m->first++;
        model_subject(m, o->m.subject);
        model_limits(m);
    } else if (o->kind == OP_DELETE) {
        if (m->items[o->a].live) model_kill(m, o->a);
    } else if (o->kind == OP_PURGE) {
        uint64_t keep = o->b;
        for (uint64_t s = m->last; s >= m->first && s; s--) {
            if (!m->items[s].live || (o->a && s >= o->a) || !matches(o->filter, m->items[s].subject)) continue;
            if (keep) keep--;
            else model_kill(m, s);
        }
    } else {
        m->limits = o->limits;
        for (int i = 0; i < SUBJECTS; i++) model_subject(m, i);
        model_limits(m);
    }
}

/* ---- one run ---- */

typedef struct run {
    jsc_sim *sim;
    jsc_mlog *log;
    jsc_mlog_options options;
    model now;
    op *ops;
    size_t nops, cap;
    uint64_t promised; /* a position that was reported durable, in a way that outlives a power cut */
    int64_t clock;
} run;

static int64_t now_of(void *arg) { return ++((run *)arg)->clock; }

static op *add_op(run *r) {
    if (r->nops == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 1024;
        r->ops = realloc(r->ops, r->cap * sizeof *r->ops);
        CHECK(r->ops != NULL);
    }
    memset(&r->ops[r->nops], 0, sizeof *r->ops);
    return &r->ops[r->nops++];
}

static void fill(uint8_t *p, size_t n, uint64_t seq, int salt) {
    for (size_t k = 0; k < n; k++) p[k] = (uint8_t)(seq * 31 + (uint64_t)salt * 7 + k * 13 + (seq >> 8));
}

static item make_item(run *r) {
    item x = {.subject = (int)(rnd(3) ? rnd(4) : rnd(SUBJECTS))};
    x.len = (uint32_t)(rnd(60) == 0 ? rnd(6000) : rnd(300));
    x.headers = rnd(4) ? 0 : (uint32_t)(1 + rnd(40));
    x.ts = ++r->clock;
    x.bytes = (32 + (x.headers ? 8 : 0) + strlen(subjects[x.subject]) + x.headers + x.len + 7) & ~(uint64_t)7;
    return x;
}

static void check_message(run *r, const jsc_message *m, uint64_t seq) {
    static uint8_t want[8192];
    const item *x = &r->now.items[seq];
    CHECK(m->seq == seq);
    CHECK(m->r.data_len == x->len && m->r.headers_len == x->headers && m->r.ts == x->ts);
    CHECK(m->r.subject_len == strlen(subjects[x->subject]));
    CHECK(memcmp(m->r.subject, subjects[x->subject], m->r.subject_len) == 0);
    fill(want, x->len, seq, 1);
    CHECK(memcmp(m->r.data, want, x->len) == 0);
    fill(want, x->headers, seq, 2);
    if (x->headers) CHECK(memcmp(m->r.headers, want, x->headers) == 0);
}

static void check_one(run *r, uint64_t seq) {
    jsc_message m;
    int rc = jsc_mlog_get(r->log, seq, &m);
    if (seq == 0 || seq > r->now.last || !r->now.items[seq].live) {
        CHECK(rc == JSC_ENOTFOUND);
        return;
    }
    OK(rc);
    check_message(r, &m, seq);
    jsc_message_release(r->log, &m);
}

static void check_walk(run *r, int f, bool backward) {
    jsc_filter *filter = NULL;
    jsc_cursor *c;
    jsc_message got[7];
    int n;
    if (filters[f]) OK(jsc_filter_new(&(jsc_span){filters[f], strlen(filters[f])}, 1, &filter));
    uint64_t from = backward ? r->now.last : 1, seq = from, found = 0, count;
    OK(jsc_cursor_new(r->log, filter, from, backward, &c));
    do {
        OK(jsc_cursor_next(c, got, 7, &n));
        for (int i = 0; i < n; i++) {
            while (seq && seq <= r->now.last && (!r->now.items[seq].live || !matches(f, r->now.items[seq].subject)))
                seq += backward ? -(uint64_t)1 : 1;
            CHECK(got[i].seq == seq);
            check_message(r, &got[i], seq);
            jsc_message_release(r->log, &got[i]);
            seq += backward ? -(uint64_t)1 : 1;
            found++;
        }
    } while (n);
    for (; seq && seq <= r->now.last; seq += backward ? -(uint64_t)1 : 1)
        CHECK(!r->now.items[seq].live || !matches(f, r->now.items[seq].subject));
    jsc_cursor_free(c);
    OK(jsc_mlog_count(r->log, filter, 0, &count));
    CHECK(count == found);
    jsc_filter_free(filter);
}

static void check_all(run *r) {
    TELL("check: %llu live of %llu", (unsigned long long)r->now.live, (unsigned long long)r->now.last);
    jsc_mlog_stats a;
    OK(jsc_mlog_about(r->log, &a));
    CHECK(a.last_seq == r->now.last);
    if (a.messages != r->now.live) {
        for (uint64_t s = 1; s <= r->now.last; s++) {
            jsc_message m;
            int rc = jsc_mlog_get(r->log, s, &m);
            if (rc == JSC_OK) jsc_message_release(r->log, &m);
            if ((rc == JSC_OK) != r->now.items[s].live)
                TELL("%llu: %d, live %d, first %llu", (unsigned long long)s, rc, r->now.items[s].live,
                     (unsigned long long)r->now.first);
        }
    }
    CHECK(a.messages == r->now.live);
    CHECK(a.message_bytes == r->now.bytes);
    CHECK(a.first_seq == r->now.first);
    CHECK(a.limits.max_messages == r->now.limits.max_messages && a.limits.max_bytes == r->now.limits.max_bytes);
    CHECK(a.limits.max_per_subject == r->now.limits.max_per_subject);
    CHECK(a.lost_records == 0);
    for (uint64_t s = 0; s <= r->now.last + 1; s++) check_one(r, s);
    for (int i = 0; i < SUBJECTS; i++) {
        uint64_t first = 0, last = 0, got;
        for (uint64_t s = 1; s <= r->now.last; s++)
            if (r->now.items[s].live && r->now.items[s].subject == i) {
                if (!first) first = s;
                last = s;
            }
        jsc_span text = {subjects[i], strlen(subjects[i])};
        int rc = jsc_mlog_last_of(r->log, &text, &got);
        CHECK(rc == (last ? JSC_OK : JSC_ENOTFOUND));
        if (last && got != last)
            TELL("subject %d: last %llu, not %llu", i, (unsigned long long)got, (unsigned long long)last);
        if (last) CHECK(got == last);
        rc = jsc_mlog_first_of(r->log, &text, &got);
        CHECK(rc == (first ? JSC_OK : JSC_ENOTFOUND));
        if (first) CHECK(got == first);
    }
    check_walk(r, (int)rnd(FILTERS), rnd(2));
    if (r->now.last) {
        uint64_t s = 1 + rnd(r->now.last), got;
        int64_t ts = r->now.items[s].ts;
        while (s <= r->now.last && !r->now.items[s].live) s++;
        int rc = jsc_mlog_at(r->log, ts, &got);
        CHECK(rc == (s <= r->now.last ? JSC_OK : JSC_ENOTFOUND));
        if (rc == JSC_OK) CHECK(got == s);
    }
}

static void open_log(run *r) {
    jsc_mlog_recovery rec;
    OK(jsc_mlog_open(jsc_sim_vfs(r->sim), "disk/log", &r->options, &r->log, &rec));
    CHECK(rec.log.damaged_index == 0);
}

/* The model goes back to what the log came back with. */
static void rewind_model(run *r) {
    uint64_t last = jsc_mlog_last(r->log), position = jsc_mlog_position(r->log);
    CHECK(position >= r->promised);
    size_t kept = 0;
    r->now = (model){.first = 1, .last_ts = INT64_MIN};
    for (size_t i = 0; i < r->nops; i++) {
        op *o = &r->ops[i];
        if (o->kind == OP_MESSAGE ? o->index > last : o->index > position) break;
        model_apply(&r->now, o);
        kept++;
    }
    CHECK(r->now.last == last);
    r->nops = kept;
    r->promised = position;
}

static void do_append(run *r, size_t n) {
    static uint8_t bytes[32][8192], headers[32][64];
    jsc_mlog_new x[32] = {0};
    item items[32];
    uint64_t seq = r->now.last;
    for (size_t i = 0; i < n; i++) {
        item m = items[i] = make_item(r);
        fill(bytes[i], m.len, seq + i + 1, 1);
        fill(headers[i], m.headers, seq + i + 1, 2);
        const char *text = subjects[m.subject];
        x[i] = (jsc_mlog_new){{text, strlen(text)}, {(char *)headers[i], m.headers}, {(char *)bytes[i], m.len}, m.ts};
    }
    uint64_t last;
    size_t done;
    if (n == 1) OK(jsc_mlog_append(r->log, &x[0].subject, &x[0].headers, &x[0].data, x[0].ts, &last));
    else OK(jsc_mlog_extend(r->log, x, n, &done, &last));
    if (n > 1) CHECK(done == n);
    CHECK(last == seq + n);
    for (size_t i = 0; i < n; i++) {
        op *o = add_op(r);
        *o = (op){.kind = OP_MESSAGE, .index = seq + i + 1, .m = items[i]};
        model_apply(&r->now, o);
    }
}

/* Where the record of a call is: behind `before`, the position then. The care thread may have written limits again. */
static uint64_t index_of(run *r, uint64_t before, int kind, const uint8_t *data, size_t n) {
    uint64_t index = 0;
    uint8_t *raw;
    size_t bytes;
    if (jsc_mlog_position(r->log) == before) return before;
    OK(jsc_mlog_copy_records(r->log, before + 1, jsc_mlog_position(r->log), &raw, &bytes));
    for (size_t at = 0, used; at < bytes && !index; at += used) {
        jsc_record x;
        OK(jsc_record_decode(raw + at, bytes - at, &x, &used));
        if (x.kind == kind && x.data_len == n && memcmp(x.data, data, n) == 0) index = x.index;
    }
    free(raw);
    return index ? index : before; /* a purge that nothing is there for leaves no record */
}

static void do_delete(run *r) {
    if (!r->now.last) return;
    uint64_t seq = 1 + rnd(r->now.last), before = jsc_mlog_position(r->log);
    int rc = jsc_mlog_delete(r->log, seq);
    CHECK(rc == (r->now.items[seq].live ? JSC_OK : JSC_ENOTFOUND));
    if (rc != JSC_OK) return;
    op *o = add_op(r);
    uint8_t data[8];
    jsc_put64(data, seq);
    *o = (op){.kind = OP_DELETE, .index = index_of(r, before, JSC_K_DELETE, data, sizeof data), .a = seq};
    model_apply(&r->now, o);
}

static void do_purge(run *r) {
    int f = (int)rnd(FILTERS);
    uint64_t before = rnd(3) ? 1 + rnd(r->now.last + 1) : 0, keep = rnd(2) ? rnd(30) : 0, n, live = r->now.live;
    if (f == 0 && rnd(4)) before = r->now.first + rnd(r->now.last - r->now.first + 2) / 2;
    uint64_t position = jsc_mlog_position(r->log);
    jsc_span text = {filters[f], filters[f] ? strlen(filters[f]) : 0};
    OK(jsc_mlog_purge(r->log, filters[f] ? &text : NULL, before, keep, &n));
    op *o = add_op(r);
    uint8_t data[16];
    jsc_put64(data, before);
    jsc_put64(data + 8, keep);
    uint64_t index = index_of(r, position, JSC_K_PURGE, data, sizeof data);
    *o = (op){.kind = OP_PURGE, .index = index, .a = before, .b = keep, .filter = f};
    model_apply(&r->now, o);
    CHECK(n == live - r->now.live);
}

static void do_limits(run *r) {
    jsc_limits l = {0};
    if (rnd(2)) l.max_messages = 50 + rnd(500);
    if (rnd(3) == 0) l.max_bytes = 5000 + rnd(100000);
    if (rnd(3) == 0) l.max_per_subject = 1 + rnd(60);
    if (rnd(3) == 0) l.max_age_ns = (int64_t)(50 + rnd(1000));
    uint64_t before = jsc_mlog_position(r->log);
    OK(jsc_mlog_set_limits(r->log, &l));
    if (jsc_mlog_position(r->log) == before) return;
    op *o = add_op(r);
    uint8_t data[32];
    jsc_put64(data, l.max_messages);
    jsc_put64(data + 8, l.max_bytes);
    jsc_put64(data + 16, l.max_per_subject);
    jsc_put64(data + 24, (uint64_t)l.max_age_ns);
    *o = (op){.kind = OP_LIMITS, .index = index_of(r, before, JSC_K_LIMITS, data, sizeof data), .limits = l};
    model_apply(&r->now, o);
}

static void do_wait(run *r) {
    uint64_t position;
    OK(jsc_mlog_submit(r->log, &position));
    if (rnd(2)) return;
    OK(jsc_mlog_wait(r->log, position, -1));
    CHECK(jsc_mlog_durable_position(r->log) >= position && jsc_mlog_durable(r->log) >= r->now.last);
    if (r->options.sync_mode != JSC_SYNC_ALWAYS) {
        if (rnd(2)) return;
        OK(jsc_mlog_sync(r->log, -1));
    }
    r->promised = position;
}

static void do_maintain(run *r) {
    int what = (int)(1 + rnd(15));
    bool force = rnd(2);
    TELL("maintain %d %d", what, force);
    OK(jsc_mlog_maintain(r->log, what, force));
}

static void do_reopen(run *r) {
    uint64_t position = jsc_mlog_position(r->log);
    TELL("reopen");
    OK(jsc_mlog_close(r->log));
    if (rnd(3) == 0 && r->options.sync_mode == JSC_SYNC_ALWAYS) jsc_sim_crash(r->sim, (int)rnd(101), (int)rnd(2));
    open_log(r);
    CHECK(jsc_mlog_position(r->log) >= position); /* more: limits that were written again */
    CHECK(jsc_mlog_last(r->log) == r->now.last);
}

static void do_crash(run *r) {
    TELL("crash");
    jsc_mlog_abandon(r->log);
    if (rnd(4)) {
        jsc_sim_crash(r->sim, (int)rnd(101), (int)rnd(2));
    }
    open_log(r);
    rewind_model(r);
    check_all(r);
}

static void one_run(uint64_t s, int steps, bool background) {
    static run r;
    r = (run){0};
    seed = s;
    rnd_state = s * 7919 + 1;
    step = 0;
    r.sim = jsc_sim_new(s);
    r.now = (model){.first = 1, .last_ts = INT64_MIN};
    r.options = (jsc_mlog_options){.sync_mode = (int)rnd(3),
                                   .interval_ns = 2000000,
                                   .segment_bytes = 4096 << rnd(3),
                                   .memory_bytes = rnd(2) ? 1 << 16 : 0,
                                   .background = background,
                                   .now = now_of,
                                   .now_arg = &r};
    if (rnd(3) == 0) r.options.sync_mode = JSC_SYNC_ALWAYS;
    if (rnd(4) == 0) r.options.zstd_level = 1;
    jsc_keys *keys = NULL;
    if (rnd(4) == 0) {
        static const uint32_t id = 7;
        static const uint8_t key[1][JSC_KEY_BYTES] = {"0123456789abcdef0123456789abcde"};
        OK(jsc_keys_new(&id, key, 1, 7, &keys));
        r.options.keys = keys;
    }
    r.options.compact_bytes_per_s = UINT64_MAX;
    r.options.scrub_bytes_per_s = UINT64_MAX;
    open_log(&r);
    int control = (int)rnd(3);
    for (int i = 0; i < steps && r.now.last + 40 < MOST; i++, step++) {
        uint64_t dice = rnd(1000);
        if (dice < 500) do_append(&r, 1);
        else if (dice < 700) do_append(&r, 1 + rnd(32));
        else if (dice < 820) check_one(&r, rnd(r.now.last + 2));
        else if (dice < 880) do_wait(&r);
        else if (dice < 930) do_delete(&r);
        else if (dice < 940 && control) do_purge(&r);
        else if (dice < 945 && control > 1) do_limits(&r);
        else if (dice < 955) do_maintain(&r);
        else if (dice < 958) do_reopen(&r);
        else if (dice < 964) do_crash(&r);
        else if (dice < 968) check_all(&r);
    }
    check_all(&r);
    OK(jsc_mlog_close(r.log));
    open_log(&r);
    check_all(&r);
    OK(jsc_mlog_close(r.log));
    jsc_keys_unref(keys);
    free(r.ops);
    jsc_sim_free(r.sim);
}

/* ---- threads ---- */

enum { WRITERS = 8, EACH = 400 };

typedef struct crowd {
    jsc_mlog *log;
    _Atomic uint64_t top; /* highest sequence that its writer saw durable */
    _Atomic bool done;
} crowd;

static void *writer_main(void *arg) {
    crowd *c = arg;
    for (uint64_t i = 0; i < EACH; i++) {
        char text[16];
        uint64_t seq, position, top = atomic_load(&c->top);
        jsc_span subject = {text, (size_t)snprintf(text, sizeof text, "w.%llu", (unsigned long long)(i % 5))};
        jsc_span data = {(const char *)&i, sizeof i};
        OK(jsc_mlog_append(c->log, &subject, NULL, &data, 0, &seq));
        if (i % 3 == 0) continue;
        OK(jsc_mlog_submit(c->log, &position));
        OK(jsc_mlog_wait(c->log, position, -1));
        CHECK(jsc_mlog_durable(c->log) >= seq);
        while (top < seq && !atomic_compare_exchange_weak(&c->top, &top, seq)) {
        }
        if (i % 50 == 49) {
            int rc = jsc_mlog_delete(c->log, seq);
            CHECK(rc == JSC_OK);
        }
    }
    return NULL;
}

static void *reader_main(void *arg) {
    crowd *c = arg;
    uint64_t seq = 0;
    jsc_message m;
    while (seq < WRITERS * EACH) {
        int rc = jsc_mlog_wait_beyond(c->log, seq, 1000000000);
        CHECK(rc == JSC_OK || rc == -ETIMEDOUT);
        for (uint64_t hi = jsc_mlog_durable(c->log); seq < hi; seq++) {
            rc = jsc_mlog_get(c->log, seq + 1, &m);
            CHECK(rc == JSC_OK || rc == JSC_ENOTFOUND);
            if (rc != JSC_OK) continue;
            CHECK(m.r.data_len == 8);
            jsc_message_release(c->log, &m);
        }
    }
    return NULL;
}

static void *keeper_main(void *arg) {
    crowd *c = arg;
    while (!atomic_load(&c->done)) {
        OK(jsc_mlog_maintain(c->log, JSC_CARE_ALL, true));
        OK(jsc_mlog_sync(c->log, -1));
        jsc_mlog_poll(c->log);
    }
    return NULL;
}

static void test_threads(int mode) {
    jsc_mlog_options o = {.sync_mode = mode,
                          .interval_ns = 1000000,
                          .segment_bytes = 8192,
                          .background = true,
                          .compact_bytes_per_s = UINT64_MAX,
                          .scrub_bytes_per_s = UINT64_MAX};
    seed = step = 0;
    crowd c = {0};
    jsc_sim *sim = jsc_sim_new(5);
    pthread_t writers[WRITERS], reader, keeper;
    jsc_mlog_stats a;
    OK(jsc_mlog_open(jsc_sim_vfs(sim), "disk/log", &o, &c.log, NULL));
    CHECK(pthread_create(&reader, NULL, reader_main, &c) == 0);
    CHECK(pthread_create(&keeper, NULL, keeper_main, &c) == 0);
    for (int i = 0; i < WRITERS; i++) CHECK(pthread_create(&writers[i], NULL, writer_main, &c) == 0);
    for (int i = 0; i < WRITERS; i++) pthread_join(writers[i], NULL);
    pthread_join(reader, NULL);
    atomic_store(&c.done, true);
    pthread_join(keeper, NULL);
    uint64_t top = atomic_load(&c.top);
    OK(jsc_mlog_about(c.log, &a));
    CHECK(a.last_seq == WRITERS * EACH && a.messages <= a.last_seq);
    if (mode == JSC_SYNC_ALWAYS) {
        jsc_mlog_abandon(c.log);
        jsc_sim_crash(sim, 0, 0);
        OK(jsc_mlog_open(jsc_sim_vfs(sim), "disk/log", &o, &c.log, NULL));
        CHECK(jsc_mlog_last(c.log) >= top);
    }
    OK(jsc_mlog_close(c.log));
    jsc_sim_free(sim);
}

/* ---- failures ---- */

static int append_text(jsc_mlog *log, const char *subject, const char *text, uint64_t *seq) {
    jsc_span s = {subject, strlen(subject)}, d = {text, strlen(text)};
    return jsc_mlog_append(log, &s, NULL, &d, 0, seq);
}

static void test_failed_sync(void) {
    seed = step = 0;
    jsc_sim *sim = jsc_sim_new(6);
    jsc_mlog_options o = {0};
    jsc_mlog *log;
    uint64_t seq, position;
    jsc_message m;
    OK(jsc_mlog_open(jsc_sim_vfs(sim), "disk/log", &o, &log, NULL));
    OK(append_text(log, "a", "one", &seq));
    OK(jsc_mlog_submit(log, &position));
    OK(jsc_mlog_wait(log, position, -1));
    jsc_sim_fail(sim, 's', 1, EIO);
    OK(append_text(log, "a", "two", &seq));
    OK(jsc_mlog_submit(log, &position));
    CHECK(jsc_mlog_wait(log, position, -1) == -EIO);
    CHECK(jsc_mlog_wait(log, position, -1) == -EIO && jsc_mlog_error(log) == -EIO);
    CHECK(append_text(log, "a", "three", &seq) == JSC_EFAILED && jsc_mlog_delete(log, 1) == JSC_EFAILED);
    CHECK(jsc_mlog_durable(log) == 1 && jsc_mlog_wait_beyond(log, 1, -1) == -EIO);
    OK(jsc_mlog_get(log, 1, &m));
    jsc_message_release(log, &m);
    CHECK(jsc_mlog_close(log) == -EIO);
    OK(jsc_mlog_open(jsc_sim_vfs(sim), "disk/log", &o, &log, NULL));
    CHECK(jsc_mlog_last(log) >= 1);
    OK(jsc_mlog_close(log));
    jsc_sim_free(sim);
}

static void test_full_disk(void) {
    seed = step = 0;
    jsc_sim *sim = jsc_sim_new(7);
    jsc_mlog_options o = {.segment_bytes = 65536, .background = true};
    jsc_mlog *log;
    uint64_t seq = 0, position, accepted = 0;
    static char text[1000];
    memset(text, 'x', sizeof text - 1);
    OK(jsc_mlog_open(jsc_sim_vfs(sim), "disk/log", &o, &log, NULL));
    jsc_sim_capacity(sim, 300000);
    int rc = JSC_OK;
    while (rc == JSC_OK) {
        rc = append_text(log, "a", text, &seq);
        if (rc == JSC_OK) accepted = seq;
        if (rc == JSC_OK) rc = jsc_mlog_submit(log, &position);
        if (rc == JSC_OK) rc = jsc_mlog_wait(log, position, -1);
    }
    CHECK(rc == JSC_EFULL && jsc_mlog_error(log) == JSC_OK);
    rc = jsc_mlog_wait(log, position, 0);
    CHECK(rc == JSC_EFULL || rc == JSC_OK);
    jsc_sim_capacity(sim, UINT64_MAX);
    /* What was accepted becomes durable by itself. */
    while ((rc = jsc_mlog_wait(log, position, -1)) == JSC_EFULL) sched_yield();
    OK(rc);
    OK(append_text(log, "a", "after", &seq));
    CHECK(seq == accepted + 1);
    OK(jsc_mlog_close(log));
    OK(jsc_mlog_open(jsc_sim_vfs(sim), "disk/log", &o, &log, NULL));
    CHECK(jsc_mlog_last(log) == seq);
    OK(jsc_mlog_close(log));
    jsc_sim_free(sim);
}

/* ---- damage ---- */

typedef struct file_names {
    char at[64][64];
    int n;
} file_names;

static void each_name(void *ctx, const char *name) {
    file_names *l = ctx;
    if (l->n < 64 && strcmp(name, "LOCK") != 0) snprintf(l->at[l->n++], sizeof l->at[0], "disk/log/%s", name);
}

/* A flipped bit anywhere: nothing wrong is served, few messages are lost, and those of segments are told. */
static void test_damage(uint64_t s) {
    static run r;
    r = (run){.clock = 0};
    seed = s;
    rnd_state = s * 31 + 7;
    step = 0;
    r.sim = jsc_sim_new(s);
    r.now = (model){.first = 1, .last_ts = INT64_MIN};
    r.options = (jsc_mlog_options){.segment_bytes = 8192,
                                   .now = now_of,
                                   .now_arg = &r,
                                   .compact_bytes_per_s = UINT64_MAX,
                                   .scrub_bytes_per_s = UINT64_MAX};
    open_log(&r);
    for (int i = 0; i < 60; i++, step++) {
        do_append(&r, 1 + rnd(8));
        if (rnd(4) == 0) do_delete(&r);
        if (rnd(4) == 0) do_wait(&r);
        if (rnd(20) == 0) OK(jsc_mlog_maintain(r.log, (int)(1 + rnd(15)), rnd(2)));
    }
    OK(jsc_mlog_close(r.log));
    file_names l = {.n = 0};
    const jsc_vfs *vfs = jsc_sim_vfs(r.sim);
    OK(vfs->list(vfs->self, "disk/log", each_name, &l));
    const char *name = l.at[rnd((uint64_t)l.n)];
    int64_t size = jsc_sim_size(r.sim, name);
    CHECK(size > 0);
    uint64_t offset = rnd((uint64_t)size);
    TELL("flip %s at %llu of %lld", name, (unsigned long long)offset, (long long)size);
    OK(jsc_sim_flip(r.sim, name, offset, (int)rnd(8)));
    jsc_mlog_recovery rec;
    int rc = jsc_mlog_open(vfs, "disk/log", &r.options, &r.log, &rec);
    if (rc == JSC_OK) {
        uint64_t lost = 0, last = jsc_mlog_last(r.log);
        jsc_message m;
        CHECK(last <= r.now.last);
        for (uint64_t q = 1; q <= last; q++) {
            rc = jsc_mlog_get(r.log, q, &m);
            CHECK(rc == JSC_OK || rc == JSC_ENOTFOUND || rc == JSC_ECORRUPT);
            if (rc == JSC_OK) check_message(&r, &m, q);
            if (rc == JSC_OK) jsc_message_release(r.log, &m);
            if (rc == JSC_OK) CHECK(r.now.items[q].live || lost); /* a lost tombstone */
            else if (r.now.items[q].live) lost++;
        }
        size_t n = 0;
        jsc_damage d[16];
        OK(jsc_mlog_damage(r.log, d, 16, &n));
        TELL("lost %llu of %llu, last %llu, damage %zu", (unsigned long long)lost, (unsigned long long)r.now.last,
             (unsigned long long)last, n);
        CHECK(lost <= 40 && (n || !lost));
        OK(append_text(r.log, "after", "damage", &last));
        OK(jsc_mlog_get(r.log, last, &m));
        jsc_message_release(r.log, &m);
        rc = jsc_mlog_close(r.log);
        CHECK(rc == JSC_OK);
    } else {
        TELL("open: %d", rc);
        CHECK(rc == JSC_EFORMAT || rc == JSC_ECORRUPT);
    }
    free(r.ops);
    jsc_sim_free(r.sim);
}

/* ---- another process ---- */

enum { SENT = 1200 };

static void follow_child(const char *dir, int ready) {
    jsc_mlog_options o = {.read_only = true};
    jsc_mlog *log;
    jsc_message m;
    uint64_t seq = 0;
    OK(jsc_mlog_open(jsc_vfs_posix(), dir, &o, &log, NULL));
    CHECK(write(ready, "r", 1) == 1);
    while (seq < SENT) {
        OK(jsc_mlog_wait_beyond(log, seq, (int64_t)60000000000));
        for (uint64_t hi = jsc_mlog_durable(log); seq < hi; seq++) {
            uint64_t x;
            int rc = jsc_mlog_get(log, seq + 1, &m);
            if (rc == JSC_ENOTFOUND) continue; /* by the limit */
            OK(rc);
            memcpy(&x, m.r.data, sizeof x);
            CHECK(x == seq + 1);
            jsc_message_release(log, &m);
        }
    }
    CHECK(jsc_mlog_wait_beyond(log, SENT, 1000000) == -ETIMEDOUT);
    OK(jsc_mlog_close(log));
    exit(0);
}

/* A reader in another process sees each message once it is durable, while the writer seals, rewrites and drops files. */
static void test_follow(const char *dir, bool limited) {
    seed = step = 0;
    jsc_limits limits = {.max_messages = 500};
    jsc_mlog_options o = {.segment_bytes = 8192,
                          .limits = limited ? &limits : NULL,
                          .compact_bytes_per_s = UINT64_MAX,
                          .scrub_bytes_per_s = UINT64_MAX};
    jsc_mlog *log;
    uint64_t seq, position;
    int ends[2], status;
    char byte;
    OK(jsc_mlog_open(jsc_vfs_posix(), dir, &o, &log, NULL));
    CHECK(pipe(ends) == 0);
    OK(jsc_mlog_close(log)); /* no thread of ours may be in the child */
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) follow_child(dir, ends[1]);
    CHECK(read(ends[0], &byte, 1) == 1);
    OK(jsc_mlog_open(jsc_vfs_posix(), dir, &o, &log, NULL));
    for (uint64_t i = 1; i <= SENT; i++) {
        jsc_span s = {"a.b", 3}, d = {(const char *)&i, sizeof i};
        OK(jsc_mlog_append(log, &s, NULL, &d, 0, &seq));
        CHECK(seq == i);
        if (i % 7 == 0) OK(jsc_mlog_submit(log, &position));
        if (i % 100 == 0) OK(jsc_mlog_wait(log, position, -1));
        if (i % 150 == 0) OK(jsc_mlog_delete(log, i - 20));
        if (i % 200 == 0) OK(jsc_mlog_maintain(log, JSC_CARE_ALL, i % 400 == 0));
    }
    OK(jsc_mlog_sync(log, -1));
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(jsc_mlog_close(log));
    close(ends[0]);
    close(ends[1]);
}

static void test_processes(void) {
    char dir[] = "/tmp/jsc-mlog-XXXXXX", path[64];
    CHECK(mkdtemp(dir) != NULL);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%d", dir, i);
        test_follow(path, i);
    }
    snprintf(path, sizeof path, "rm -rf %s", dir);
    CHECK(system(path) == 0);
}

/* ---- a sidecar that is newer than the checkpoint ---- */

static void test_seal_behind_checkpoint(void) {
    seed = step = 0;
    jsc_sim *sim = jsc_sim_new(3);
    jsc_limits limits = {.max_per_subject = 2};
    jsc_mlog_options o = {.segment_bytes = 65536, .limits = &limits, .scrub_bytes_per_s = UINT64_MAX};
    jsc_mlog *log;
    jsc_mlog_stats a;
    jsc_message m;
    uint64_t seq = 0;
    OK(jsc_mlog_open(jsc_sim_vfs(sim), "disk/log", &o, &log, NULL));
    OK(append_text(log, "b", "first", &seq));
    OK(jsc_mlog_maintain(log, JSC_CARE_SEAL, true)); /* the limits' record is in a segment of its own */
    for (int i = 0; i < 5; i++) OK(append_text(log, "a", "before", &seq));
    OK(jsc_mlog_maintain(log, JSC_CARE_SEAL, false)); /* the checkpoint, within a segment */
    for (int i = 0; i < 5; i++) OK(append_text(log, "a", "behind", &seq));
    jsc_sim_fail(sim, 'n', 2, EIO); /* the sidecar gets its name, the next checkpoint does not */
    CHECK(jsc_mlog_maintain(log, JSC_CARE_SEAL, true) != JSC_OK);
    jsc_mlog_abandon(log);
    OK(jsc_mlog_open(jsc_sim_vfs(sim), "disk/log", &o, &log, NULL));
    OK(jsc_mlog_about(log, &a));
    CHECK(a.messages == 3);
    CHECK(jsc_mlog_get(log, seq - 2, &m) == JSC_ENOTFOUND);
    OK(jsc_mlog_close(log));
    jsc_sim_free(sim);
}

/* ---- a writer that lets its segments be sealed ---- */

static void count_kinds(void *ctx, const char *name) {
    size_t *n = ctx; /* segments, sidecars */
    n[0] += strstr(name, ".seg") != NULL;
    n[1] += strstr(name, ".idx") != NULL && !strstr(name, ".tmp");
}

static void test_let_seal(void) {
    seed = step = 0;
    jsc_sim *sim = jsc_sim_new(1);
    const jsc_vfs *vfs = jsc_sim_vfs(sim);
    for (int background = 0; background < 2; background++) {
        jsc_mlog_options o = {.segment_bytes = 4096, .background = background, .scrub_bytes_per_s = UINT64_MAX};
        char dir[16], text[1000] = {0};
        jsc_mlog *log;
        uint64_t last;
        size_t n[2] = {0};
        snprintf(dir, sizeof dir, "disk/seal%d", background);
        OK(jsc_mlog_open(vfs, dir, &o, &log, NULL));
        jsc_span data = {text, sizeof text};
        for (int i = 0; i < 200; i++) OK(jsc_mlog_append(log, NULL, NULL, &data, 0, &last));
        OK(jsc_mlog_sync(log, -1));
        OK(jsc_mlog_let_seal(log, 60000000000)); /* at once where there is no thread to wait for */
        OK(vfs->list(vfs->self, dir, count_kinds, n));
        CHECK(n[0] > 40 && (background ? n[0] - n[1] <= 5 : n[1] == 0));
        jsc_mlog_abandon(log);
    }
    jsc_sim_free(sim);
}

int main(int argc, char **argv) {
    trace = getenv("TRACE") != NULL;
    uint64_t from = argc > 1 ? strtoull(argv[1], NULL, 0) : 1, n = argc > 2 ? strtoull(argv[2], NULL, 0) : 12;
    for (uint64_t s = from; s < from + n; s++) one_run(s, 1500, s % 4 == 0);
    if (argc <= 1 || n == 0) {
        test_processes();
        for (uint64_t s = from; s < from + 200; s++) test_damage(s);
        test_failed_sync();
        test_full_disk();
        test_seal_behind_checkpoint();
        test_let_seal();
        for (int mode = 0; mode < 3; mode++) test_threads(mode);
    }
    printf("mlog ok\n");
    return 0;
}
