/* What a message log answers, against a plain list: random appends, deletions, limits, care and reopenings on the simulated
 * disk, and between them every kind of question. */
#include "../jsc_mlog.h"

static uint64_t seed;

#define CHECK_CASE " (seed %llu)", (unsigned long long)seed
#include "../../base/test/check.h"

/* ---- the model ---- */

#define MOST 3000
#define NAMES 40

static char names[NAMES][24];
static struct {
    int name;
    bool live;
    int64_t ts;
} message[MOST + 1];
static uint64_t last, live;
static jsc_limits limits;

static jsc_span name_of(int i) { return (jsc_span){names[i], strlen(names[i])}; }

static void make_names(void) {
    static const char *const heads[] = {"orders.new", "orders.old", "a.b", "rare"};
    for (int i = 1; i < NAMES; i++) sprintf(names[i], "%s.%d", heads[i % 4], i / 4);
}

static void model_kill(uint64_t seq) {
    live -= message[seq].live;
    message[seq].live = false;
}

/* Deletes all but the newest `keep` of the live ones below `before` that match; how many went. */
static uint64_t model_purge(bool (*match)(const void *, uint64_t), const void *arg, uint64_t before, uint64_t keep) {
    uint64_t n = 0;
    for (uint64_t seq = before && before <= last ? before - 1 : last; seq; seq--) {
        if (!message[seq].live || !match(arg, seq)) continue;
        if (keep) {
            keep--;
            continue;
        }
        model_kill(seq);
        n++;
    }
    return n;
}

static bool match_all(const void *arg, uint64_t seq) { return true; }
static bool match_name(const void *arg, uint64_t seq) { return message[seq].name == *(const int *)arg; }
static bool match_filter(const void *f, uint64_t seq) {
    jsc_span t = name_of(message[seq].name);
    return !f || jsc_filter_match(f, t.p, t.n);
}

static void model_limit(int name) {
    if (limits.max_per_subject) model_purge(match_name, &name, 0, limits.max_per_subject);
    if (limits.max_messages) model_purge(match_all, NULL, 0, limits.max_messages);
}

/* ---- the log ---- */

static jsc_sim *sim;
static jsc_mlog *m;

static void open_log(void) {
    jsc_mlog_options o = {.sync_mode = JSC_SYNC_NEVER,
                          .segment_bytes = 4096 << rnd(3),
                          .memory_bytes = 1 << 16,
                          .zstd_level = (int)rnd(2)};
    OK(jsc_mlog_open(jsc_sim_vfs(sim), "log", &o, &m, NULL));
}

static void append(void) {
    if (last == MOST) return;
    int name = rnd(3) ? (int)rnd(3) : (int)rnd(NAMES);
    uint64_t seq = 0, body[8] = {last + 1};
    jsc_span subject = name_of(name), none = {0}, headers = {"A: b", rnd(3) ? 0 : 4};
    jsc_span data = {(const char *)body, 8 + 8 * rnd(8)};
    int64_t ts = (last ? message[last].ts : 1) + (int64_t)rnd(3);
    OK(jsc_mlog_append(m, &subject, headers.n ? &headers : &none, &data, ts, &seq));
    CHECK(seq == last + 1);
    last = seq;
    live++;
    message[seq].name = name;
    message[seq].live = true;
    message[seq].ts = ts;
    model_limit(name);
}

static jsc_filter *filters[16];
static jsc_span texts[16];
static size_t nfilters;

static void make_filters(void) {
    static const char *const all[] = {"orders.new.*", "rare.*", ">", "*.*.1", "rare.3", "a.b.2", "no.such", "*.new.>"};
    nfilters = 1; /* NULL: everything */
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        texts[nfilters] = (jsc_span){all[i], strlen(all[i])};
        OK(jsc_filter_new(&texts[nfilters], 1, &filters[nfilters]));
        nfilters++;
    }
}

static void happen(void) {
    uint64_t n = 0, seq, before, keep, want;
    size_t f;
    switch (rnd(60)) {
    case 0: OK(jsc_mlog_maintain(m, JSC_CARE_ALL, rnd(2))); break;
    case 1: OK(jsc_mlog_maintain(m, JSC_CARE_FLUSH | JSC_CARE_SEAL, false)); break;
    case 2:
        f = rnd(nfilters);
        before = rnd(2) ? 0 : 1 + rnd(last + 2);
        keep = rnd(2) ? 0 : rnd(20);
        want = model_purge(match_filter, filters[f], before, keep);
        OK(jsc_mlog_purge(m, filters[f] ? &texts[f] : NULL, before, keep, &n));
        CHECK(n == want);
        break;
    case 3:
        if (rnd(10)) break;
        limits.max_per_subject = rnd(2) ? 0 : 1 + rnd(20);
        limits.max_messages = rnd(2) ? 0 : 1 + rnd(300);
        OK(jsc_mlog_set_limits(m, &limits));
        for (int i = 0; i < NAMES; i++)
            if (limits.max_per_subject) model_purge(match_name, &i, 0, limits.max_per_subject);
        if (limits.max_messages) model_purge(match_all, NULL, 0, limits.max_messages);
        break;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
        seq = 1 + rnd(last + 2);
        if (seq <= last && message[seq].live) {
            OK(jsc_mlog_delete(m, seq));
            model_kill(seq);
        } else {
            CHECK(jsc_mlog_delete(m, seq) == JSC_ENOTFOUND);
        }
        break;
    default: append();
    }
}

/* ---- questions ---- */

static bool matches(const jsc_filter *f, uint64_t seq) { return message[seq].live && match_filter(f, seq); }

static void check_message(const jsc_message *x, uint64_t seq) {
    jsc_span subject = name_of(message[seq].name);
    CHECK(x->seq == seq && x->r.ts == message[seq].ts);
    CHECK(x->r.subject_len == subject.n && !memcmp(x->r.subject, subject.p, subject.n));
    CHECK(x->r.data_len >= 8 && !memcmp(x->r.data, &seq, 8));
}

typedef struct walk {
    jsc_cursor *cursor;
    const jsc_filter *filter;
    bool backward;
} walk;

static void walk_open(walk *w) {
    jsc_cursor_free(w->cursor);
    w->filter = filters[rnd(nfilters)];
    w->backward = rnd(2);
    uint64_t from = rnd(6) ? rnd(last + 3) : w->backward ? UINT64_MAX : 0;
    OK(jsc_cursor_new(m, w->filter, from, w->backward, &w->cursor));
}

static void walk_check(walk *w) {
    jsc_message out[20];
    uint64_t at = jsc_cursor_position(w->cursor);
    int max = 1 + (int)rnd(20), n = -1, k = 0;
    OK(jsc_cursor_next(w->cursor, out, max, &n));
    if (w->backward && at > last) at = last;
    if (!w->backward && !at) at = 1;
    for (; at && at <= last && k < max; w->backward ? at-- : at++) {
        if (!matches(w->filter, at)) continue;
        CHECK(k < n);
        check_message(&out[k++], at);
    }
    CHECK(k == n);
    for (k = 0; k < n; k++) jsc_message_release(m, &out[k]);
}

static void check_points(void) {
    uint64_t seq = rnd(last + 2), got = 0, want = last + 1;
    jsc_message x;
    int rc = jsc_mlog_get(m, seq, &x);
    CHECK(rc == (seq && seq <= last && message[seq].live ? JSC_OK : JSC_ENOTFOUND));
    if (rc == JSC_OK) {
        check_message(&x, seq);
        jsc_message_release(m, &x);
    }
    int64_t ts = (last ? message[1 + rnd(last)].ts : 0) + (int64_t)rnd(3) - 1;
    for (seq = last; seq; seq--)
        if (message[seq].live && message[seq].ts >= ts) want = seq;
    rc = jsc_mlog_at(m, ts, &got);
    CHECK(want > last ? rc == JSC_ENOTFOUND : rc == JSC_OK && got == want);
    for (want = 1; want <= last && !message[want].live;) want++;
    CHECK(jsc_mlog_first(m) == want && jsc_mlog_last(m) == last);
}

static void check_counts(void) {
    const jsc_filter *f = filters[rnd(nfilters)];
    uint64_t from = rnd(3) ? rnd(last + 3) : 0, n = 0, want = 0;
    OK(jsc_mlog_count(m, f, from, &n));
    for (uint64_t seq = from ? from : 1; seq <= last; seq++) want += matches(f, seq);
    CHECK(n == want);
    OK(jsc_mlog_count(m, NULL, 0, &n));
    CHECK(n == live);
}

static jsc_subject_info state_of(int name) {
    jsc_subject_info s = {.text = name_of(name)};
    for (uint64_t seq = 1; seq <= last; seq++) {
        if (!message[seq].live || message[seq].name != name) continue;
        if (!s.count++) s.first_seq = seq;
        s.last_seq = seq;
    }
    return s;
}

static void check_ends(void) {
    int name = (int)rnd(NAMES);
    jsc_subject_info want = state_of(name);
    uint64_t seq = 0;
    int rc = jsc_mlog_last_of(m, &want.text, &seq);
    CHECK(want.count ? rc == JSC_OK && seq == want.last_seq : rc == JSC_ENOTFOUND);
    rc = jsc_mlog_first_of(m, &want.text, &seq);
    CHECK(want.count ? rc == JSC_OK && seq == want.first_seq : rc == JSC_ENOTFOUND);
}

static struct {
    const jsc_filter *filter;
    char previous[24];
    size_t n;
} listing;

static int on_subject(void *ctx, const jsc_subject_info *s) {
    int name = 0;
    while (name < NAMES && (strlen(names[name]) != s->text.n || memcmp(names[name], s->text.p, s->text.n))) name++;
    CHECK(name < NAMES && (listing.n == 0 || strcmp(listing.previous, names[name]) < 0));
    jsc_subject_info want = state_of(name);
    CHECK(s->count == want.count && s->first_seq == want.first_seq && s->last_seq == want.last_seq && want.count);
    CHECK(!listing.filter || jsc_filter_match(listing.filter, s->text.p, s->text.n));
    strcpy(listing.previous, names[name]);
    listing.n++;
    return 0;
}

static void check_listing(void) {
    size_t want = 0;
    jsc_span after = name_of((int)rnd(NAMES));
    bool start = rnd(2);
    listing.filter = filters[rnd(nfilters)];
    listing.n = 0;
    OK(jsc_mlog_subjects(m, listing.filter, start ? NULL : &after, on_subject, NULL));
    for (int i = 0; i < NAMES; i++)
        want += (start || strcmp(names[i], after.p) > 0) && state_of(i).count &&
                (!listing.filter || jsc_filter_match(listing.filter, names[i], strlen(names[i])));
    CHECK(listing.n == want);
}

static void history(void) {
    walk walks[3] = {{0}};
    sim = jsc_sim_new(seed);
    memset(&limits, 0, sizeof limits);
    last = live = 0;
    open_log();
    for (uint64_t steps = rnd(2500), calm = 1 + rnd(20); steps; steps--) {
        happen();
        if (!rnd(400)) {
            for (int i = 0; i < 3; i++) {
                jsc_cursor_free(walks[i].cursor);
                walks[i].cursor = NULL;
            }
            OK(jsc_mlog_close(m));
            open_log();
        }
        if (rnd(calm)) continue;
        walk *w = &walks[rnd(3)];
        if (!w->cursor || !rnd(10)) walk_open(w);
        walk_check(w);
        check_points();
        check_counts();
        check_ends();
        if (!rnd(10)) check_listing();
    }
    check_listing();
    for (int i = 0; i < 3; i++) jsc_cursor_free(walks[i].cursor);
    OK(jsc_mlog_close(m));
    jsc_sim_free(sim);
}

int main(int argc, char **argv) {
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 20, first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    make_names();
    make_filters();
    for (seed = first; seed < first + rounds; seed++) {
        rnd_state = seed * 0x2545f4914f6cdd1du;
        history();
    }
    for (size_t i = 0; i < nfilters; i++) jsc_filter_free(filters[i]);
    printf("queries: %llu histories\n", (unsigned long long)rounds);
    return 0;
}
