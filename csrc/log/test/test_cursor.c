/* Cursors, counts and subjects against a plain list of messages, over pieces that are sealed, compacted, damaged and
 * dropped under them. The rest of the message log is stood in for: here is what they ask of it. */
#include "../mlog_internal.h"

#include <errno.h>
#include <fcntl.h>

static uint64_t seed;

#define CHECK_CASE " (seed %llu)", (unsigned long long)seed
#include "../../base/test/check.h"

/* ---- the model: messages by sequence, 1 .. m.last_seq ---- */

#define MOST 4000
#define NAMES 150 /* more than a listing takes from a piece at once */

static const char *names[NAMES];
static char name_bytes[NAMES][24];

static struct {
    int name;
    bool live, lost;
} message[MOST + 1];

static jsc_mlog m;
static jsc_sim *sim;
static int part_error; /* what the next opening of a part fails with */

static void make_names(void) {
    static const char *const heads[] = {"orders.new", "orders.old", "a.b", "rare", "z"};
    names[0] = "";
    for (int i = 1; i < NAMES; i++) {
        sprintf(name_bytes[i], "%s.%d", heads[i % 5], i / 5);
        names[i] = name_bytes[i];
    }
}

/* ---- the stand-ins ---- */

uint64_t jsc_piece_live(const jsc_piece *p) { return p->count - jsc_dead_count(p->dead); }

const jsc_part *jsc_piece_part(jsc_mlog *mlog, jsc_piece *p, int *rc) {
    if (part_error) {
        *rc = part_error;
        part_error = 0;
        return NULL;
    }
    return p->tail ? jsc_tail_part(p->tail) : jsc_sidecar_part(p->segment->side);
}

int jsc_mlog_load(jsc_mlog *mlog, jsc_piece *p, const jsc_part *part, uint32_t ord, uint64_t seq, jsc_message *out,
                  int *owed) {
    CHECK(seq == part->ops->seq(part, ord));
    if (!part->ops->offset(part, ord)) return JSC_ECORRUPT;
    *out = (jsc_message){.seq = seq};
    return JSC_OK;
}

static void exchange_one(void);
int jsc_mlog_reload(jsc_mlog *mlog) {
    exchange_one();
    return JSC_OK;
}

/* ---- pieces ---- */

static jsc_piece *piece_new(uint64_t base_seq) {
    jsc_piece *p = calloc(1, sizeof *p);
    p->segment = calloc(1, sizeof *p->segment);
    p->base_seq = p->last_seq = base_seq;
    OK(jsc_tail_new(base_seq, &p->tail));
    return p;
}

static void piece_free(jsc_piece *p) {
    jsc_tail_free(p->tail);
    jsc_sidecar_close(p->segment->side);
    jsc_dead_free(p->dead);
    free(p->segment);
    free(p);
}

/* Adds a message to the tail of a piece as the model has it. */
static void piece_add(jsc_piece *p, uint64_t seq) {
    const char *name = message[seq].lost ? "" : names[message[seq].name];
    size_t n = strlen(name);
    uint32_t bytes = message[seq].lost ? 0 : (uint32_t)JSC_PAD(JSC_RECORD_HEAD + n);
    OK(jsc_tail_add(p->tail, seq, (int64_t)seq, message[seq].lost ? 0 : seq * 128, 0, bytes, name, n,
                    jsc_subject_hash(name, n)));
    p->count++;
    p->message_bytes += bytes;
    if (seq > p->last_seq) p->last_seq = seq;
}

static void push(jsc_piece *p) {
    m.pieces = realloc(m.pieces, (m.npieces + 1) * sizeof *m.pieces);
    m.pieces[m.npieces++] = p;
}

/* The piece again from the model: without the dead, or with their bits; damage in it shows. */
static void rebuild(size_t i, bool compact) {
    jsc_piece *old = m.pieces[i], *p = piece_new(old->base_seq);
    int error = JSC_OK;
    const jsc_part *part = old->tail ? jsc_tail_part(old->tail) : jsc_sidecar_part(old->segment->side);
    for (uint32_t k = 0; k < old->count; k++) {
        uint64_t seq = part->ops->seq(part, k);
        if (!compact || message[seq].live) piece_add(p, seq);
    }
    part = jsc_tail_part(p->tail);
    for (uint32_t k = 0; k < p->count; k++) {
        if (message[part->ops->seq(part, k)].live) continue;
        if (!p->dead) OK(jsc_dead_new(&p->dead));
        CHECK(jsc_dead_add(p->dead, part, k, &error));
    }
    p->last_seq = old->last_seq;
    m.pieces[i] = p;
    m.generation++;
    piece_free(old);
}

static void seal(size_t i) {
    const jsc_vfs *vfs = jsc_sim_vfs(sim);
    jsc_piece *p = m.pieces[i];
    if (!p->tail) return;
    const jsc_part *part = jsc_tail_part(p->tail);
    jsc_sidecar_record *records = calloc(p->count + 1, sizeof *records);
    for (uint32_t k = 0; k < p->count; k++)
        records[k] = (jsc_sidecar_record){part->ops->seq(part, k), part->ops->offset(part, k)};
    jsc_sidecar_info info = {.first = p->base_seq + 1,
                             .last = p->last_seq,
                             .base_seq = p->base_seq,
                             .last_seq = p->last_seq,
                             .used = (p->last_seq + 1) * 128,
                             .record_bytes = p->message_bytes};
    uint8_t *bytes;
    size_t n;
    OK(jsc_sidecar_build(part, records, p->count, &info, NULL, &bytes, &n));
    int fd = vfs->open(vfs->self, "side", O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0);
    OK(jsc_write_all(vfs, fd, bytes, n, 0));
    OK(jsc_sidecar_open(vfs, fd, NULL, &p->segment->side));
    vfs->close(vfs->self, fd);
    vfs->unlink(vfs->self, "side");
    p->segment->sealed = true;
    p->segment->info = *jsc_sidecar_about(p->segment->side);
    jsc_tail_free(p->tail);
    p->tail = NULL;
    if (p->dead) jsc_dead_move(p->dead);
    m.generation++;
    free(records);
    free(bytes);
}

static void exchange_one(void) {
    if (m.npieces < 2) return;
    size_t i = rnd(m.npieces - 1);
    if (rnd(2)) rebuild(i, rnd(2));
    if (rnd(3)) seal(i);
}

/* ---- what happens ---- */

static void append(void) {
    if (m.last_seq == MOST) return;
    uint64_t seq = ++m.last_seq;
    int name = rnd(3) ? (int)rnd(4) : (int)rnd(NAMES);
    message[seq].name = name;
    message[seq].live = true;
    message[seq].lost = !rnd(200);
    piece_add(m.pieces[m.npieces - 1], seq);
    m.messages++;
    if (!message[seq].lost && m.limits.max_per_subject)
        jsc_subjects_added(&m, names[name], strlen(names[name]), jsc_subject_hash(names[name], strlen(names[name])),
                           seq);
}

static void kill_one(uint64_t seq) {
    size_t i = jsc_pieces_from(&m, seq);
    if (!seq || i == m.npieces || !message[seq].live) return;
    jsc_piece *p = m.pieces[i];
    const jsc_part *part = p->tail ? jsc_tail_part(p->tail) : jsc_sidecar_part(p->segment->side);
    uint32_t ord = part->ops->find_seq(part, seq);
    int error = JSC_OK;
    CHECK(part->ops->seq(part, ord) == seq);
    if (!p->dead) OK(jsc_dead_new(&p->dead));
    CHECK(jsc_dead_add(p->dead, part, ord, &error));
    message[seq].live = false;
    m.messages--;
    const char *name = names[message[seq].name];
    if (!message[seq].lost) jsc_subjects_killed(&m, name, strlen(name), jsc_subject_hash(name, strlen(name)), seq);
    while (m.first_seq <= m.last_seq && !message[m.first_seq].live) m.first_seq++;
}

static void lose(uint64_t seq) {
    size_t i = jsc_pieces_from(&m, seq);
    if (!seq || i + 1 >= m.npieces || message[seq].lost) return;
    message[seq].lost = true;
    rebuild(i, false);
    jsc_subjects_forget_all(&m);
}

static void drop_front(void) {
    size_t k = 0;
    while (k + 1 < m.npieces && !jsc_piece_live(m.pieces[k])) piece_free(m.pieces[k++]);
    if (!k) return;
    m.npieces -= k;
    memmove(m.pieces, m.pieces + k, m.npieces * sizeof *m.pieces);
    m.generation++;
}

static uint64_t rolls; /* small: many pieces */

static void happen(void) {
    switch (rnd(40)) {
    case 0:
        if (!rnd(rolls)) push(piece_new(m.last_seq));
        break;
    case 1:
    case 2: exchange_one(); break;
    case 3: drop_front(); break;
    case 4:
        if (!rnd(4)) lose(1 + rnd(m.last_seq + 1));
        break;
    case 5: /* the oldest go */
        for (uint64_t n = rnd(30); n > 0; n--) kill_one(m.first_seq <= m.last_seq ? m.first_seq : 0);
        break;
    case 6: /* one subject goes */
        for (uint64_t seq = 1, name = rnd(NAMES); seq <= m.last_seq; seq++)
            if (message[seq].name == (int)name) kill_one(seq);
        break;
    case 7: /* a limit that is never met begins, or ends */
        m.limits.max_per_subject = rnd(2) ? UINT64_MAX : 0;
        jsc_subjects_forget_all(&m);
        break;
    case 8:
    case 9:
    case 10:
    case 11:
    case 12: kill_one(m.last_seq ? 1 + rnd(m.last_seq) : 0); break;
    default: append();
    }
}

/* ---- comparing ---- */

static jsc_filter *filters[16];
static size_t nfilters;

static void make_filters(void) {
    static const char *const texts[][3] = {{"orders.new.*"}, {"rare.*"},         {">"},         {"*.*.1", "z.>"},
                                           {"rare.3"},       {"orders.new.1"},   {"no.such.*"}, {"no.such"},
                                           {"z.0"},          {"a.b.2", "rare.1"}};
    filters[nfilters++] = NULL;
    OK(jsc_filter_new(NULL, 0, &filters[nfilters++]));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        jsc_span spans[3];
        size_t n = 0;
        for (; n < 3 && texts[i][n]; n++) spans[n] = (jsc_span){texts[i][n], strlen(texts[i][n])};
        OK(jsc_filter_new(spans, n, &filters[nfilters++]));
    }
}

static bool matches(const jsc_filter *f, uint64_t seq) {
    if (!message[seq].live) return false;
    if (!f || jsc_filter_all(f)) return true;
    return !message[seq].lost && jsc_filter_match(f, names[message[seq].name], strlen(names[message[seq].name]));
}

typedef struct walk {
    jsc_cursor *cursor;
    const jsc_filter *filter;
    bool backward;
    uint64_t at; /* where it looks next */
} walk;

static void walk_open(walk *w) {
    jsc_cursor_free(w->cursor);
    w->filter = filters[rnd(nfilters)];
    w->backward = rnd(2);
    w->at = rnd(8) ? rnd(m.last_seq + 3) : w->backward ? UINT64_MAX : 0;
    OK(jsc_cursor_new(&m, w->filter, w->at, w->backward, &w->cursor));
}

static void walk_check(walk *w) {
    jsc_message out[12];
    int max = (int)rnd(13), n = -1, want = 0;
    if (max && !rnd(20)) part_error = rnd(2) ? -EIO : -ESTALE;
    bool fails = part_error == -EIO;
    if (max && w->backward && w->at > m.last_seq) w->at = m.last_seq; /* "the end" is where it is now */
    int rc = jsc_cursor_next(w->cursor, out, max, &n);
    fails &= part_error == 0; /* nobody was asked: nothing failed */
    part_error = 0;
    if (rc == -EIO) {
        CHECK(fails && n == -1);
        return; /* and the next call goes on */
    }
    /* An error behind the first message ends the call early. */
    CHECK(n >= 0 && n <= max);
    uint64_t seq = w->at ? w->at : !w->backward;
    for (; seq && seq <= m.last_seq && want < max; w->backward ? seq-- : seq++) {
        if (!matches(w->filter, seq)) continue;
        if (message[seq].lost) {
            if (want) break;
            CHECK(rc == JSC_ECORRUPT && n == 0 && out[0].seq == seq);
            w->at = w->backward ? seq - 1 : seq + 1;
            CHECK(jsc_cursor_position(w->cursor) == w->at);
            return;
        }
        if (want == n && fails) break;
        CHECK(want < n && out[want].seq == seq);
        want++;
    }
    CHECK(rc == JSC_OK && n == want);
    w->at = jsc_cursor_position(w->cursor);
    /* Wherever it stands, nothing that it should give lies between there and the last it gave. */
    if (n) CHECK(w->backward ? w->at < out[n - 1].seq : w->at > out[n - 1].seq);
    else if (max && !fails) CHECK(w->backward ? w->at == 0 : w->at > m.last_seq);
    uint64_t last = n ? out[n - 1].seq : 0;
    for (seq = 1; last && seq <= m.last_seq; seq++)
        if (w->backward ? seq < last && seq > w->at : seq > last && seq < w->at) CHECK(!matches(w->filter, seq));
}

static void check_count(void) {
    const jsc_filter *f = filters[rnd(nfilters)];
    uint64_t from = rnd(m.last_seq + 3), n, want = 0;
    part_error = rnd(20) ? 0 : rnd(2) ? -EIO : -ESTALE;
    bool fails = part_error == -EIO;
    int rc = jsc_mlog_count(&m, f, from, &n);
    fails &= part_error == 0;
    part_error = 0;
    if (fails) {
        CHECK(rc == -EIO);
        return;
    }
    for (uint64_t seq = from ? from : 1; seq <= m.last_seq; seq++) want += matches(f, seq);
    CHECK(rc == JSC_OK && n == want);
}

static jsc_subject_info state_of(int name) {
    jsc_subject_info s = {.text = {names[name], strlen(names[name])}};
    for (uint64_t seq = 1; seq <= m.last_seq; seq++) {
        if (!message[seq].live || message[seq].lost || message[seq].name != name) continue;
        if (!s.count++) s.first_seq = seq;
        s.last_seq = seq;
    }
    return s;
}

static void check_subject(void) {
    int name = (int)rnd(NAMES);
    jsc_subject_info want = state_of(name), got;
    uint64_t seq = 0, hash = jsc_subject_hash(want.text.p, want.text.n);
    int rc;
    switch (rnd(3)) {
    case 0:
        OK(jsc_subjects_state(&m, want.text.p, want.text.n, hash, &got));
        CHECK(got.count == want.count && got.first_seq == want.first_seq && got.last_seq == want.last_seq);
        break;
    case 1:
        rc = jsc_mlog_last_of(&m, &want.text, &seq);
        CHECK(want.count ? rc == JSC_OK && seq == want.last_seq : rc == JSC_ENOTFOUND);
        break;
    default:
        rc = jsc_mlog_first_of(&m, &want.text, &seq);
        CHECK(want.count ? rc == JSC_OK && seq == want.first_seq : rc == JSC_ENOTFOUND);
    }
}

static jsc_subject_info listed[NAMES];
static size_t nlisted, list_stop;
static int on_subject(void *ctx, const jsc_subject_info *s) {
    CHECK(nlisted < NAMES);
    listed[nlisted++] = *s;
    return nlisted == list_stop ? 5 : 0;
}

static int by_name(const void *a, const void *b) { return strcmp(names[*(const int *)a], names[*(const int *)b]); }

static void check_list(void) {
    const jsc_filter *f = filters[rnd(nfilters)];
    jsc_span after = {names[rnd(NAMES)], 0};
    after.n = strlen(after.p) ? rnd(strlen(after.p) + 1) : 0;
    bool from_start = rnd(2);
    int order[NAMES];
    size_t k = 0;
    nlisted = 0;
    list_stop = rnd(3) ? 0 : 1 + rnd(NAMES);
    part_error = rnd(20) ? 0 : rnd(2) ? -EIO : -ESTALE;
    bool fails = part_error == -EIO;
    int rc = jsc_mlog_subjects(&m, f, from_start ? NULL : &after, on_subject, NULL);
    fails &= part_error == 0;
    part_error = 0;
    if (fails) {
        CHECK(rc == -EIO && nlisted == 0);
        return;
    }
    for (int i = 0; i < NAMES; i++) order[i] = i;
    qsort(order, NAMES, sizeof *order, by_name);
    for (int i = 0; i < NAMES && !(list_stop && k == list_stop); i++) {
        jsc_subject_info want = state_of(order[i]);
        if (!want.count || (f && !jsc_filter_match(f, want.text.p, want.text.n))) continue;
        size_t n = want.text.n < after.n ? want.text.n : after.n;
        int c = memcmp(want.text.p, after.p, n);
        if (!from_start && (c < 0 || (c == 0 && want.text.n <= after.n))) continue;
        CHECK(k < nlisted && listed[k].text.n == want.text.n && !memcmp(listed[k].text.p, want.text.p, want.text.n));
        CHECK(listed[k].count == want.count && listed[k].first_seq == want.first_seq &&
              listed[k].last_seq == want.last_seq);
        k++;
    }
    CHECK(k == nlisted && rc == (list_stop && k == list_stop ? 5 : JSC_OK));
}

static void history(void) {
    walk walks[4] = {{0}};
    uint64_t steps = rnd(3) ? rnd(1000) : rnd(6000), calm = 1 + rnd(20);
    rolls = 1 + rnd(rnd(3) ? 4 : 200);
    sim = jsc_sim_new(seed);
    memset(&m, 0, sizeof m);
    memset(message, 0, sizeof message);
    pthread_mutex_init(&m.lock, NULL);
    m.first_seq = 1;
    OK(jsc_subject_cache_new(rnd(2) ? 1 << 16 : rnd(600), &m.subjects));
    push(piece_new(0));
    while (steps--) {
        happen();
        if (rnd(calm)) continue;
        walk *w = &walks[rnd(4)];
        if (!w->cursor || !rnd(10)) walk_open(w);
        walk_check(w);
        check_count();
        check_subject();
        if (!rnd(4)) check_list();
    }
    for (int i = 0; i < 20; i++) {
        check_count();
        check_subject();
        check_list();
    }
    for (int i = 0; i < 4; i++) jsc_cursor_free(walks[i].cursor);
    for (size_t i = 0; i < m.npieces; i++) piece_free(m.pieces[i]);
    free(m.pieces);
    jsc_subject_cache_free(m.subjects);
    pthread_mutex_destroy(&m.lock);
    jsc_sim_free(sim);
}

int main(int argc, char **argv) {
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 100;
    make_names();
    make_filters();
    for (seed = 1; seed <= rounds; seed++) {
        rnd_state = seed * 0x2545f4914f6cdd1du;
        history();
    }
    for (size_t i = 0; i < nfilters; i++) jsc_filter_free(filters[i]);
    printf("cursor: %llu histories\n", (unsigned long long)rounds);
    return 0;
}
