/* From records to pieces: builds the tail of a segment by reading it, and brings a log that was just opened to its state
 * from checkpoint, sidecars and the records behind them.
 *
 * Sequences next to damage. A window lies between two points where the sequence is known: the head of a segment, and each
 * good trailer. Of L lost records in it, S = sequences of the window - those of its good records were messages. S = L or
 * S = 0: every sequence is exact. Else each good message between the first and the last lost record counts as lost too,
 * as nobody knows which sequence is whose; those before and behind are exact. */
#include "mlog_internal.h"

#include <errno.h>
#include <fcntl.h>

typedef struct held {
    uint64_t first, last, offset;
    size_t at; /* of the copied record in builder->bytes */
    uint32_t n; /* its length; 0: lost */
    uint8_t kind;
} held;

typedef struct builder {
    jsc_mlog *m;
    jsc_piece *p;
    uint64_t end_seq; /* known at the segment's end, when end_known */
    bool end_known;
    uint64_t told_seq; /* what the piece, or the checkpoint, had for it */
    uint64_t upto; /* records above it are left alone */
    uint64_t above; /* records above it have consequences: replay */
    const jsc_checkpoint *point; /* the state at `above`; NULL: the empty one */
    bool replaying;
    uint64_t seq, next_index;
    int64_t ts;
    uint64_t lost_left; /* lost messages that may still get an entry */
    bool unsure; /* records are held back until the window ends */
    bool adrift; /* the sequence at its start is not known */
    held *held;
    size_t nheld, held_cap;
    uint8_t *bytes;
    size_t nbytes, bytes_cap;
} builder;

/* ---- the state at the checkpoint ---- */

/* The bits may be older than damage that made ordinals of what was a gap: both ends still fit. */
static void fit_bits(const jsc_checkpoint_piece *x, const jsc_part *part, uint32_t count, uint64_t *words) {
    uint32_t head = 0, tail = 0;
    while (head < count && head < x->count && part->ops->offset(part, head)) head++;
    while (tail < count - head && tail < x->count - head && part->ops->offset(part, count - 1 - tail)) tail++;
    for (uint32_t i = 0; i < head; i++)
        if (i / 64 < x->nwords && x->words[i / 64] >> i % 64 & 1) words[i / 64] |= (uint64_t)1 << i % 64;
    for (uint32_t i = 0; i < tail; i++) {
        uint32_t from = x->count - 1 - i, to = count - 1 - i;
        if (from / 64 < x->nwords && x->words[from / 64] >> from % 64 & 1) words[to / 64] |= (uint64_t)1 << to % 64;
    }
}

static int load_bits(jsc_mlog *m, jsc_piece *p, const jsc_checkpoint_piece *x) {
    int rc = JSC_OK;
    jsc_dead *dead = NULL;
    if (!x->nwords || !p->count) return JSC_OK;
    const jsc_part *part = jsc_piece_part(m, p, &rc);
    if (!part) return rc;
    size_t n = ((size_t)p->count + 63) / 64;
    uint64_t *words = calloc(n, sizeof *words);
    if (!words) return -ENOMEM;
    if (x->count == p->count) memcpy(words, x->words, x->nwords * sizeof *words);
    else fit_bits(x, part, p->count, words);
    if ((rc = jsc_dead_new(&dead)) == JSC_OK && (rc = jsc_dead_load(dead, part, words, n)) == JSC_OK) {
        jsc_dead_free(p->dead);
        p->dead = dead;
    } else {
        jsc_dead_free(dead);
    }
    free(words);
    return rc;
}

static int load_piece(jsc_mlog *m, jsc_piece *p, const jsc_checkpoint *point) {
    const jsc_checkpoint_piece *x = point ? jsc_checkpoint_find(point, p->segment->first) : NULL;
    /* Another salt: rewritten since, without what was dead then. */
    return x && x->salt == p->segment->salt ? load_bits(m, p, x) : JSC_OK;
}

/* All pieces so far are as of the checkpoint: from here on records have consequences. */
static int begin_replay(jsc_mlog *m, const jsc_checkpoint *point) {
    m->limits = point ? point->limits : (jsc_limits){0};
    m->limits_index = point ? point->limits_index : 0;
    m->limited_since = point ? point->limited_since : 0;
    m->limited_index = point ? point->limited_index : 0;
    m->last_ts = point ? point->last_ts : INT64_MIN;
    m->applied = point ? point->index : m->log->first - 1;
    return jsc_mlog_retotal(m);
}

/* ---- one record ---- */

static int reach(builder *b, uint64_t index) {
    if (b->replaying || index <= b->above) return JSC_OK;
    int rc = load_piece(b->m, b->p, b->point);
    b->m->last_seq = b->seq;
    if (rc == JSC_OK) rc = begin_replay(b->m, b->point);
    b->replaying = true;
    return rc;
}

/* Sequences that no message of this file has. */
static void skip(builder *b, uint64_t seqs) {
    b->seq += seqs;
    b->p->last_seq = b->seq;
    if (!b->replaying) return;
    b->m->last_seq = b->seq;
    if (!b->m->messages) b->m->first_seq = b->seq + 1;
}

/* The same where the file begins, and only now it is known where. */
static void start_at(builder *b, uint64_t seq) {
    skip(b, seq - b->seq);
    if (b->adrift && !b->p->count) b->p->base_seq = seq;
}

static int add(builder *b, const jsc_record *r, uint64_t offset) {
    jsc_piece *p = b->p;
    int rc;
    if (b->replaying) {
        if ((rc = jsc_apply_message(b->m, r, offset)) != JSC_OK) return rc;
        b->seq = b->m->last_seq;
        b->ts = b->m->last_ts;
        return JSC_OK;
    }
    if (p->count == UINT32_MAX - 1) return JSC_ECORRUPT;
    if (r->ts > b->ts) b->ts = r->ts;
    rc = jsc_tail_add(p->tail, b->seq + 1, b->ts, offset, r->data_len, offset ? r->raw_len : 0, r->subject,
                      r->subject_len, jsc_subject_hash(r->subject, r->subject_len));
    if (rc != JSC_OK) return rc;
    p->last_seq = ++b->seq;
    if (p->count++ == 0) p->first_ts = b->ts;
    p->last_ts = b->ts;
    p->message_bytes += offset ? r->raw_len : 0;
    return JSC_OK;
}

static int add_lost(builder *b, uint64_t index) {
    int rc = reach(b, index);
    if (rc != JSC_OK) return rc;
    if (!b->lost_left) {
        skip(b, 1);
        return JSC_OK;
    }
    b->lost_left--;
    jsc_record r = {.index = index, .ts = b->ts, .kind = JSC_K_MESSAGE, .subject = "", .headers = "", .data = ""};
    return add(b, &r, 0);
}

static int place(builder *b, const jsc_record *r, uint64_t offset) {
    int rc = reach(b, r->index);
    if (rc != JSC_OK) return rc;
    if (r->kind == JSC_K_GAP) {
        uint64_t last, seqs;
        if ((rc = jsc_gap_decode(r, &last, &seqs)) != JSC_OK) return rc;
        skip(b, seqs);
        if (b->replaying) b->m->applied = last;
        return JSC_OK;
    }
    if (r->kind == JSC_K_MESSAGE) return add(b, r, offset);
    if (!b->replaying) return JSC_OK;
    rc = jsc_apply_control(b->m, r);
    return rc == JSC_ECORRUPT ? JSC_OK : rc; /* it verifies, and says nothing that could be done */
}

/* ---- windows with damage ---- */

static int report(builder *b, const held *h, uint64_t last, uint64_t first_seq, uint64_t last_seq, bool exact) {
    jsc_piece *p = b->p;
    jsc_damage *grown = realloc(p->damage, (p->ndamage + 1) * sizeof *grown);
    if (!grown) return -ENOMEM;
    p->damage = grown;
    p->damage[p->ndamage++] = (jsc_damage){.segment = p->segment->first,
                                           .offset = h->offset,
                                           .first = h->first,
                                           .last = last,
                                           .first_seq = first_seq,
                                           .last_seq = last_seq,
                                           .seqs_exact = exact};
    return JSC_OK;
}

static held *hold(builder *b) {
    if (b->nheld == b->held_cap) {
        size_t cap = b->held_cap ? 2 * b->held_cap : 64;
        held *grown = realloc(b->held, cap * sizeof *grown);
        if (!grown) return NULL;
        b->held = grown;
        b->held_cap = cap;
    }
    return &b->held[b->nheld++];
}

static int hold_record(builder *b, const jsc_record *r, uint64_t offset) {
    if (r->raw_len > b->bytes_cap - b->nbytes) {
        size_t cap = 2 * (b->bytes_cap + r->raw_len);
        uint8_t *grown = realloc(b->bytes, cap);
        if (!grown) return -ENOMEM;
        b->bytes = grown;
        b->bytes_cap = cap;
    }
    held *h = hold(b);
    if (!h) return -ENOMEM;
    *h = (held){
        .first = r->index, .last = r->index, .offset = offset, .at = b->nbytes, .n = r->raw_len, .kind = r->kind};
    memcpy(b->bytes + b->nbytes, r->raw, r->raw_len);
    b->nbytes += r->raw_len;
    return JSC_OK;
}

static int hold_lost(builder *b, uint64_t first, uint64_t last, uint64_t offset) {
    held *h = hold(b);
    if (!h) return -ENOMEM;
    *h = (held){.first = first, .last = last, .offset = offset};
    b->unsure = true;
    return JSC_OK;
}

static uint64_t seqs_of(const builder *b, const held *h) {
    jsc_record r;
    uint64_t last, seqs;
    if (!h->n || (h->kind != JSC_K_MESSAGE && h->kind != JSC_K_GAP)) return 0;
    if (h->kind == JSC_K_MESSAGE) return 1;
    jsc_record_view(b->bytes + h->at, &r);
    return jsc_gap_decode(&r, &last, &seqs) == JSC_OK ? seqs : 0;
}

/* One held record whose sequence is known. */
static int place_held(builder *b, const held *h) {
    jsc_record r;
    jsc_record_view(b->bytes + h->at, &r);
    return place(b, &r, h->offset);
}

/* Every lost record was a message, or none was. */
static int close_exact(builder *b, bool messages) {
    int rc = JSC_OK;
    for (size_t i = 0; i < b->nheld && rc == JSC_OK; i++) {
        const held *h = &b->held[i];
        if (h->n) {
            rc = place_held(b, h);
            continue;
        }
        uint64_t from = b->seq + 1;
        for (uint64_t k = h->first; messages && k <= h->last && rc == JSC_OK; k++) {
            if (!b->lost_left) { /* more than the bytes could hold: nothing to point at */
                skip(b, h->last - k + 1);
                break;
            }
            rc = add_lost(b, k);
        }
        if (rc == JSC_OK) rc = report(b, h, h->last, from, b->seq, true);
    }
    return rc;
}

/* [lo, hi] of the held are lost, with all sequences up to `end`. */
static int close_between(builder *b, size_t lo, size_t hi, uint64_t end) {
    const held *first = &b->held[lo];
    uint64_t most = b->held[hi].last - first->first + 1, from;
    int rc = JSC_OK;
    /* Where the start is not known: no more sequences than records. */
    if (b->seq < end && end - b->seq > most) start_at(b, end - most);
    from = b->seq + 1;
    while (b->seq < end && rc == JSC_OK) {
        if (!b->lost_left) skip(b, end - b->seq);
        else rc = add_lost(b, first->first);
    }
    for (size_t i = lo; i <= hi && rc == JSC_OK; i++) /* other records between are as good as ever */
        if (b->held[i].n && b->held[i].kind != JSC_K_MESSAGE && b->held[i].kind != JSC_K_GAP)
            rc = place_held(b, &b->held[i]);
    return rc == JSC_OK ? report(b, first, b->held[hi].last, from, b->seq, false) : rc;
}

/* The window ends; `end`: the sequence there, when known. */
static int close_window(builder *b, uint64_t end, bool known) {
    size_t lo = b->nheld, hi = 0, i;
    uint64_t lost = 0, good = 0, behind = 0;
    int rc = JSC_OK;
    for (i = 0; i < b->nheld; i++) {
        const held *h = &b->held[i];
        uint64_t n = seqs_of(b, h);
        good += n;
        behind += n;
        if (h->n) continue;
        if (lo == b->nheld) lo = i;
        hi = i;
        lost += h->last - h->first + 1;
        behind = 0;
    }
    if (lo == b->nheld) { /* nothing is lost: the start was not known, the end is */
        if (known && end >= b->seq && end - b->seq > good) start_at(b, end - good);
        for (i = 0; i < b->nheld && rc == JSC_OK; i++) rc = place_held(b, &b->held[i]);
    } else if (known && !b->adrift && end >= b->seq && (end - b->seq == good || end - b->seq - good == lost)) {
        rc = close_exact(b, end - b->seq != good);
    } else if (known && end >= b->seq && end - b->seq >= behind) {
        rc = close_between(b, 0, hi, end - behind);
        for (i = hi + 1; i < b->nheld && rc == JSC_OK; i++) rc = place_held(b, &b->held[i]);
    } else {
        /* No end, or one that contradicts the records: none of them can be told a sequence. */
        rc = close_between(b, 0, b->nheld - 1, known && end > b->seq ? end : b->seq);
    }
    b->nheld = b->nbytes = 0;
    b->unsure = b->adrift = false;
    return rc;
}

/* ---- a segment ---- */

enum { ENOUGH = 1 };

static int on_record(void *ctx, const jsc_record *r, uint64_t offset) {
    builder *b = ctx;
    uint64_t last = r->index, seqs;
    if (r->index > b->upto) return ENOUGH;
    if (r->kind == JSC_K_GAP && jsc_gap_decode(r, &last, &seqs) != JSC_OK) return JSC_ECORRUPT;
    b->next_index = last + 1;
    return b->unsure ? hold_record(b, r, offset) : place(b, r, offset);
}

static int on_lost(void *ctx, uint64_t first, uint64_t last, uint64_t offset) {
    builder *b = ctx;
    if (first > b->upto) return ENOUGH;
    b->next_index = last + 1;
    return hold_lost(b, first, last, offset);
}

static int on_batch(void *ctx, const jsc_trailer *t, uint64_t end) {
    builder *b = ctx;
    return b->unsure ? close_window(b, t->commit, true) : JSC_OK;
}

/* The segment behind: its first index, and the sequence before it when its head says so. */
static void look_behind(builder *b, uint64_t *next_first) {
    const jsc_log *log = b->m->log;
    *next_first = 0;
    for (size_t i = log->nsegments; i-- > 1;) {
        if (log->segments[i - 1] != b->p->segment) continue;
        const jsc_segment *next = log->segments[i];
        *next_first = next->first;
        b->end_known = next->sealed || next->base_known || !next->head_lost;
        b->end_seq = next->sealed ? next->info.base_seq : next->base_seq;
        break;
    }
    const jsc_segment *s = b->p->segment;
    if (!b->end_known && b->point && s->count && b->point->index == jsc_segment_last(s))
        b->told_seq = b->point->last_seq;
    if (b->end_known || !b->told_seq) return;
    b->end_known = true;
    b->end_seq = b->told_seq;
}

/* What the checkpoint says of a segment whose own head is lost. */
static void borrow_head(const jsc_checkpoint *point, jsc_segment *s) {
    const jsc_checkpoint_piece *x = point && s->head_lost ? jsc_checkpoint_find(point, s->first) : NULL;
    if (!x || (s->salt && s->salt != x->salt)) return;
    s->salt = x->salt;
    s->base_seq = x->base_seq;
    s->base_known = true;
}

/* start: the sequence before the segment, as far as is known from what is before it. */
static int build(builder *b, uint64_t start, bool start_known) {
    jsc_piece *p = b->p;
    const jsc_segment *s = p->segment;
    uint64_t next_first;
    bool says = s->base_known || !s->head_lost;
    if (!start_known && says) start = s->base_seq;
    b->unsure = b->adrift = !says || (start_known && s->base_seq != start);
    b->seq = start;
    b->next_index = s->first;
    b->ts = b->replaying ? b->m->last_ts : INT64_MIN;
    /* A file that was cut short once held as many as any. */
    b->lost_left = (s->used > s->limit ? s->used : s->limit) / JSC_RECORD_HEAD;
    look_behind(b, &next_first);
    jsc_tail_free(p->tail);
    p->tail = NULL;
    free(p->damage);
    p->damage = NULL;
    p->ndamage = 0;
    p->count = 0;
    p->message_bytes = 0;
    p->first_ts = p->last_ts = 0;
    p->base_seq = p->last_seq = start;
    if (b->replaying) b->m->last_seq = start;
    if (b->replaying && !b->m->messages) b->m->first_seq = start + 1;
    int rc = jsc_tail_new(start, &p->tail);
    if (rc != JSC_OK) return rc;
    static const jsc_visit visit = {.record = on_record, .lost = on_lost, .batch = on_batch};
    rc = jsc_segment_visit(b->m->log, p->segment, &visit, b);
    bool whole = rc != ENOUGH;
    if (rc == ENOUGH) rc = JSC_OK;
    if (rc == JSC_OK && whole && next_first > b->next_index) rc = hold_lost(b, b->next_index, next_first - 1, s->used);
    if (rc == JSC_OK && b->unsure) rc = close_window(b, b->end_seq, b->end_known);
    p->surveyed = whole;
    free(b->held);
    free(b->bytes);
    return rc;
}

int jsc_piece_build(jsc_mlog *m, jsc_piece *p) {
    builder b = {.m = m, .p = p, .upto = UINT64_MAX, .above = UINT64_MAX};
    jsc_piece old = *p;
    size_t n = 0;
    const uint64_t *words = p->dead ? jsc_dead_words(p->dead, &n) : NULL;
    if (m->options.read_only && !m->restoring) b.upto = m->applied; /* a sealed one is taken whole */
    if (p->segment->closed && !m->restoring) b.told_seq = p->last_seq;
    p->tail = NULL;
    p->damage = NULL;
    int rc = build(&b, p->base_seq, m->npieces && m->pieces[0] != p);
    if (rc == JSC_OK && n) {
        jsc_checkpoint_piece x = {.count = old.count, .nwords = (uint32_t)n, .words = words};
        rc = load_bits(m, p, &x);
    }
    if (rc != JSC_OK) {
        jsc_tail_free(p->tail);
        free(p->damage);
        *p = old;
        return rc;
    }
    jsc_tail_free(old.tail);
    free(old.damage);
    return JSC_OK;
}

int jsc_piece_survey(jsc_mlog *m, jsc_piece *p) {
    jsc_piece probe = {.segment = p->segment, .base_seq = p->base_seq};
    /* What is not written yet is in no file. */
    uint64_t upto = m->options.read_only ? m->applied : jsc_log_durable(m->log);
    builder b = {.m = m, .p = &probe, .upto = upto, .above = UINT64_MAX};
    if (p->segment->closed) b.told_seq = p->last_seq;
    int rc = build(&b, p->base_seq, m->npieces && m->pieces[0] != p);
    jsc_tail_free(probe.tail);
    if (rc == JSC_OK) {
        free(p->damage);
        p->damage = probe.damage;
        p->ndamage = probe.ndamage;
        p->surveyed = true;
    } else {
        free(probe.damage);
    }
    return rc;
}

/* ---- a log ---- */

static int push_piece(jsc_mlog *m, jsc_segment *s, jsc_piece **out) {
    if (m->npieces == m->pieces_cap) {
        size_t cap = m->pieces_cap ? 2 * m->pieces_cap : 16;
        jsc_piece **grown = realloc(m->pieces, cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        m->pieces = grown;
        m->pieces_cap = cap;
    }
    int rc = jsc_piece_new(m, s, out);
    if (rc == JSC_OK) m->pieces[m->npieces++] = *out;
    return rc;
}

int jsc_mlog_add_piece(jsc_mlog *m, jsc_segment *s) {
    jsc_piece *p;
    int rc = push_piece(m, s, &p);
    if (rc != JSC_OK) return rc;
    *p = (jsc_piece){.segment = s, .base_seq = m->last_seq, .last_seq = m->last_seq, .surveyed = true};
    return jsc_tail_new(m->last_seq, &p->tail);
}

int jsc_mlog_extend_pieces(jsc_mlog *m) {
    while (m->npieces < m->log->nsegments) {
        int rc = jsc_mlog_add_piece(m, m->log->segments[m->npieces]);
        if (rc != JSC_OK) return rc;
        jsc_maintain_poke(m);
    }
    return JSC_OK;
}

/* Without limits and without other records than messages, a segment behind the checkpoint just adds up. */
static bool adds_up(const jsc_mlog *m, const jsc_segment *s) {
    const jsc_limits *l = &m->limits;
    return s->sealed && s->info.records == s->info.count && !s->info.lost && !l->max_messages && !l->max_bytes &&
           !l->max_per_subject && !l->max_age_ns;
}

static int add_up(jsc_mlog *m, size_t i) {
    jsc_piece *p = m->pieces[i];
    int rc = JSC_OK;
    bool none = m->messages == 0;
    m->messages += p->count;
    m->message_bytes += p->message_bytes;
    m->last_seq = p->last_seq;
    if (p->count && p->last_ts > m->last_ts) m->last_ts = p->last_ts;
    m->applied = p->segment->info.last;
    jsc_subjects_forget_all(m); /* nobody tells it of these messages */
    if (!none) return JSC_OK;
    uint64_t first = jsc_mlog_next_live(m, i, 0, &rc);
    if (first) m->first_seq = first;
    return rc;
}

/* A sealed segment was replayed in memory: its sidecar says the same and takes no memory. */
static void settle_sealed(jsc_piece *p) {
    if (!p->segment->sealed || !p->tail || p->ndamage || p->count != p->segment->info.count) return;
    if (p->last_seq != p->segment->info.last_seq) return;
    jsc_tail_free(p->tail);
    p->tail = NULL;
    if (p->dead) jsc_dead_move(p->dead);
}

static int restore_piece(jsc_mlog *m, size_t i, uint64_t upto, builder *b, jsc_mlog_recovery *rec) {
    jsc_segment *s = m->log->segments[i];
    jsc_piece *p;
    const jsc_checkpoint *point = b->point;
    int rc;
    uint64_t start = i ? m->pieces[i - 1]->last_seq : 0; /* of the log's first segment, its head knows */
    uint64_t last = s->count ? jsc_segment_last(s) : s->first - 1;
    bool covered = last <= b->above && s->first <= b->above, behind = s->first > b->above;
    if (s->closed && !s->sealed) rec->sidecars_rebuilt++;
    if (!b->replaying && behind) {
        m->last_seq = b->seq;
        if ((rc = begin_replay(m, point)) != JSC_OK) return rc;
        b->replaying = true;
    }
    if ((rc = push_piece(m, s, &p)) != JSC_OK) return rc;
    /* One that the checkpoint ends in is read: the limits hold within it, and are not known before it. */
    bool adds = b->replaying && adds_up(m, s);
    bool quick = s->sealed && (!i || s->info.base_seq >= start) && (covered || adds) && last <= upto;
    if (quick) {
        b->seq = p->last_seq;
        if (!covered) return add_up(m, i);
    } else {
        builder one = *b;
        one.p = p;
        one.upto = upto;
        if ((rc = build(&one, start, i > 0)) != JSC_OK) return rc;
        b->seq = one.seq;
        b->replaying = one.replaying;
        settle_sealed(p);
    }
    if (b->replaying) return JSC_OK;
    if (point && !jsc_checkpoint_find(point, s->first)) return jsc_piece_kill_all(m, p); /* let go of, and came back */
    return load_piece(m, p, point);
}

/* JSC_ENOTFOUND: none that can be used. */
static int read_point(jsc_mlog *m, uint64_t upto, jsc_checkpoint **out, jsc_checkpoint_files *files) {
    int rc = jsc_checkpoint_read(m, upto, out, files);
    bool beyond = files->rc[0] == JSC_EORDER || files->rc[1] == JSC_EORDER;
    if ((rc == JSC_OK || rc == JSC_ECORRUPT) && beyond && m->options.read_only && jsc_follow_bound(m) != UINT64_MAX) {
        if (rc == JSC_OK) jsc_checkpoint_free(*out);
        *out = NULL;
        return -ESTALE; /* a reader that is behind */
    }
    return rc == JSC_ECORRUPT ? JSC_ENOTFOUND : rc;
}

static int restore(jsc_mlog *m, uint64_t upto, const jsc_checkpoint *point, jsc_mlog_recovery *rec) {
    builder b = {.m = m, .point = point, .above = point ? point->index : m->log->first - 1};
    int rc = JSC_OK;
    m->last_seq = 0;
    m->first_seq = 1;
    m->limits_first = 0;
    m->counts = false;
    for (size_t i = 0; i < m->log->nsegments; i++) borrow_head(point, m->log->segments[i]);
    for (size_t i = 0; i < m->log->nsegments && rc == JSC_OK; i++) {
        if (m->log->segments[i]->first > upto && i && m->log->segments[i]->count) break;
        rc = restore_piece(m, i, upto, &b, rec);
    }
    if (rc == JSC_OK && !b.replaying) {
        m->last_seq = b.seq;
        rc = begin_replay(m, point);
    }
    return rc;
}

/* Records that were in it are in no file any more. */
static bool has_gaps(const jsc_segment *s) {
    if (!(s->flags & JSC_SF_REWRITTEN)) return false;
    if (s->sealed) return s->info.records + (uint64_t)s->info.lost < s->count;
    for (size_t i = 0; i < s->count; i++)
        if ((uint64_t)s->at[i] * 8 == JSC_AT_GAP) return true;
    return false;
}

static bool compacted(const jsc_mlog *m) {
    for (size_t i = 0; i < m->log->nsegments; i++)
        if (has_gaps(m->log->segments[i])) return true;
    return false;
}

static bool was_there(const jsc_checkpoint_files *files) {
    return files->rc[0] != JSC_ENOTFOUND || files->rc[1] != JSC_ENOTFOUND;
}

/* Replayed without a checkpoint: may what limits and purges keep be other messages than it was? They count the living, and
 * among those that are there now are some that others had pushed out which compaction took since. The same where the
 * front went with a change of limits. A record says so; in logs of before it was written only that there was a
 * checkpoint, which that takes. */
static bool miscounts(const jsc_mlog *m, const jsc_checkpoint_files *files) {
    bool unlimited = m->limited_since && m->limited_since < m->log->first;
    return m->counts && (compacted(m) || unlimited || (was_there(files) && m->log->first > 1));
}

static void forget(jsc_mlog *m) {
    for (size_t i = 0; i < m->npieces; i++) jsc_piece_free(m, m->pieces[i]);
    m->npieces = 0;
    m->messages = m->message_bytes = 0;
    jsc_subjects_forget_all(m);
}

/* From the records alone. */
static int restore_alone(jsc_mlog *m, uint64_t upto, const jsc_checkpoint_files *files, jsc_mlog_recovery *rec) {
    int rc = restore(m, upto, NULL, rec);
    if (rc != JSC_OK || !miscounts(m, files)) return rc;
    rec->unsure = true;
    if (!m->options.read_only && !m->options.without_checkpoint)
        return files->rc[0] == -EIO || files->rc[1] == -EIO ? -EIO : JSC_ECORRUPT;
    forget(m);
    m->spares_counted = true;
    rc = restore(m, upto, NULL, rec);
    m->spares_counted = false;
    return rc;
}

int jsc_mlog_restore(jsc_mlog *m, uint64_t upto, jsc_mlog_recovery *rec) {
    jsc_checkpoint *point = NULL;
    jsc_checkpoint_files files;
    int rc = read_point(m, upto, &point, &files);
    if (rc != JSC_OK && rc != JSC_ENOTFOUND) return rc;
    rec->checkpoint_rebuilt = !point && (was_there(&files) || m->log->nsegments > 1);
    m->restoring = true;
    rc = point ? restore(m, upto, point, rec) : restore_alone(m, upto, &files, rec);
    /* A change of limits to come must not find the gaps without a checkpoint: it is written before anything is. */
    bool owed = rc == JSC_OK && !point && (rec->unsure || compacted(m));
    if (rc == JSC_OK && !owed && !m->options.read_only) rc = jsc_checkpoint_tidy(m, &files);
    if (rc == JSC_OK) {
        m->unsure = rec->unsure;
        m->checkpoint_owed = owed;
        m->applied = upto < m->log->last ? upto : m->log->last;
        m->checkpoint_salt = point ? point->salt : 0;
        m->checkpoint_turn = point ? point->turn : 0;
        m->checkpointed = point && !files.alone ? point->index : 0;
        if (point && files.alone) {
            /* The other one may become the only one: what it does not know stays on the disk until both are new. */
            m->limits_first = 1;
            m->keeper.checkpoint_due = true;
        }
        uint64_t least = point ? point->last_seq : 0; /* the files that said so may be gone, or damaged */
        if (!m->options.read_only && m->applied == m->log->last && m->log->commit > least) least = m->log->commit;
        if (least > m->last_seq) { /* never given out twice */
            m->last_seq = least;
            if (m->npieces) m->pieces[m->npieces - 1]->last_seq = m->last_seq;
            if (!m->messages) m->first_seq = m->last_seq + 1;
        }
        if (!m->options.read_only) jsc_log_set_commit(m->log, m->last_seq); /* the next segment's head says it */
    }
    m->restoring = false;
    jsc_checkpoint_free(point);
    return rc;
}

void jsc_piece_adopt_sidecar(jsc_mlog *m, jsc_piece *p) {
    jsc_segment *s = p->segment;
    jsc_sidecar_info info;
    if (!p->tail || s->sealed || p->ndamage) return;
    char *path = jsc_segment_path(m->log, s->first, ".idx");
    if (!path) return;
    int fd = m->vfs->open(m->vfs->self, path, O_RDONLY, 0);
    free(path);
    if (fd < 0) return;
    int rc = jsc_sidecar_peek(m->vfs, fd, &info);
    m->vfs->close(m->vfs->self, fd);
    if (rc != JSC_OK || info.salt != s->salt || info.last != jsc_segment_last(s) || info.count != p->count ||
        info.last_seq != p->last_seq)
        return;
    s->info = info;
    s->sealed = s->closed = true;
    settle_sealed(p);
}
