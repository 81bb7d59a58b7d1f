/* The message log against a model, on the simulated disk: appends, tombstones, limits, maintenance, reopenings, power
 * cuts. Whatever survives must be the state after some record at or behind the one known durable. Many seeds. */
#include "../jsc_mlog.h"

#include <errno.h>
#include <pthread.h>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: %s (seed %llu, step %llu)\n", __FILE__, __LINE__, #x, (unsigned long long)seed,    \
                    (unsigned long long)step);                                                                         \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)
#define OK(x)                                                                                                          \
    do {                                                                                                               \
        int rc_ = (x);                                                                                                 \
        if (rc_ != JSC_OK) {                                                                                           \
            fprintf(stderr, "%s:%d: %s = %d (seed %llu, step %llu)\n", __FILE__, __LINE__, #x, rc_,                    \
                    (unsigned long long)seed, (unsigned long long)step);                                               \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t seed, step;
static uint64_t state;
static uint64_t rnd(uint64_t n) {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}

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
    jsc_mlog_new x[32];
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

static void do_delete(run *r) {
    if (!r->now.last) return;
    uint64_t seq = 1 + rnd(r->now.last), index = jsc_mlog_position(r->log) + 1;
    int rc = jsc_mlog_delete(r->log, seq);
    CHECK(rc == (r->now.items[seq].live ? JSC_OK : JSC_ENOTFOUND));
    if (rc != JSC_OK) return;
    op *o = add_op(r);
    *o = (op){.kind = OP_DELETE, .index = index, .a = seq};
    model_apply(&r->now, o);
}

static void do_purge(run *r) {
    int f = (int)rnd(FILTERS);
    uint64_t before = rnd(3) ? 1 + rnd(r->now.last + 1) : 0, keep = rnd(2) ? rnd(30) : 0, n, live = r->now.live;
    if (f == 0 && rnd(4)) before = r->now.first + rnd(r->now.last - r->now.first + 2) / 2;
    uint64_t index = jsc_mlog_position(r->log) + 1;
    jsc_span text = {filters[f], filters[f] ? strlen(filters[f]) : 0};
    OK(jsc_mlog_purge(r->log, filters[f] ? &text : NULL, before, keep, &n));
    op *o = add_op(r);
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
    *o = (op){.kind = OP_LIMITS, .index = before + 1, .limits = l};
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
    state = s * 7919 + 1;
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

int main(int argc, char **argv) {
    trace = getenv("TRACE") != NULL;
    uint64_t from = argc > 1 ? strtoull(argv[1], NULL, 0) : 1, n = argc > 2 ? strtoull(argv[2], NULL, 0) : 40;
    for (uint64_t s = from; s < from + n; s++) one_run(s, 1500, s % 4 == 0);
    printf("mlog ok\n");
    return 0;
}
