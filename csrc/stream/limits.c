/* Removal: limits, purge, expiry, and the first live sequence that follows from them. */
#include "internal.h"

uint64_t jsc_stream_size(const jsc_stream *s, size_t subject, size_t headers, size_t data) {
    uint64_t n = (uint64_t)subject + headers + data;
    return s->limits.file_storage ? n + 30 + (headers ? 4 : 0) : n + 16;
}

void jsc_stream_settle_first(jsc_stream *s) {
    s->first_seq = jsc_seqs_live_from(&s->seqs, s->first_seq, s->last_seq);
    if (s->snapshot) jsc_snapshot_hold(s, s->first_seq);
    jsc_seqs_drop_below(&s->seqs, s->first_seq);
}

static void remove_entry(jsc_stream *s, uint64_t seq, jsc_entry *e) {
    jsc_subject *x = &s->subjects.a[e->subject];
    jsc_consumer_removed(s, seq, e);
    uint64_t prev = e->prev ? seq - e->prev : 0, next = e->next ? seq + e->next : 0;
    if (prev) jsc_seqs_at(&s->seqs, prev)->next = next ? (uint32_t)(next - prev) : 0;
    else x->first = next;
    if (next) jsc_seqs_at(&s->seqs, next)->prev = prev ? (uint32_t)(next - prev) : 0;
    else x->last = prev;
    s->messages--;
    jsc_stream_grow(s, -(int64_t)e->size);
    if (e->index & JSC_MOVED) s->moves.live--;
    jsc_seqs_kill(&s->seqs, seq);
    if (--x->count == 0) {
        jsc_consumer_subject_gone(s, e->subject);
        jsc_subjects_remove(&s->subjects, e->subject);
    }
}

void jsc_stream_remove(jsc_stream *s, uint64_t seq) {
    jsc_entry *e = jsc_seqs_at(&s->seqs, seq);
    if (!jsc_entry_live(e)) return;
    remove_entry(s, seq, e);
    if (seq == s->first_seq) jsc_stream_settle_first(s);
}

void jsc_stream_trim(jsc_stream *s) {
    const jsc_stream_limits *l = &s->limits;
    if (l->max_msgs_per_subject > 0)
        for (uint32_t id = 0; id < s->subjects.n; id++)
            while (s->subjects.a[id].name && s->subjects.a[id].count > (uint64_t)l->max_msgs_per_subject)
                jsc_stream_remove(s, s->subjects.a[id].first);
    if (l->discard_new) return;
    while (s->messages && ((l->max_msgs > 0 && s->messages > (uint64_t)l->max_msgs) ||
                           (l->max_bytes > 0 && s->bytes > (uint64_t)l->max_bytes)))
        jsc_stream_remove(s, s->first_seq);
}

/* The messages of one subject that are below a sequence, by their own chain. */
static void purge_subject(jsc_stream *s, uint32_t id, uint64_t below) {
    for (uint64_t left = s->subjects.a[id].count; left; left--) { /* the id is gone with the last */
        uint64_t seq = s->subjects.a[id].first;
        if (seq >= below) return;
        remove_entry(s, seq, jsc_seqs_at(&s->seqs, seq));
    }
}

/* By subject: what is not matched is not looked at, however many messages that are. */
static void purge_matching(jsc_stream *s, const char *filter, size_t n, uint64_t below) {
    if (jsc_subject_valid(filter, n, 1)) {
        uint32_t id = jsc_subjects_find(&s->subjects, filter, n);
        if (id != JSC_NO_SUBJECT) purge_subject(s, id, below);
        return;
    }
    for (uint32_t id = 0; id < s->subjects.n; id++) {
        const jsc_subject *x = &s->subjects.a[id];
        if (x->name && jsc_subject_matches(filter, n, x->name, x->len)) purge_subject(s, id, below);
    }
}

/* Returns how many were removed. seq: everything below it; keep: the newest so many stay (spec streams §18). */
uint64_t jsc_stream_apply_purge(jsc_stream *s, const char *filter, size_t n, uint64_t seq, uint64_t keep) {
    uint64_t before = s->messages, below = s->last_seq + 1;
    int all = !n || (n == 1 && filter[0] == '>');
    if (seq > JSC_SEQ_MAX) seq = 0;
    if (seq && seq < below) below = seq;
    if (keep) { /* walk down from the end until `keep` are passed */
        uint64_t left = keep, q = s->last_seq + 1;
        while (q > s->first_seq && left) {
            jsc_entry *e = jsc_seqs_at(&s->seqs, q - 1);
            if (jsc_entry_live(e) &&
                (all || jsc_subject_matches(filter, n, s->subjects.a[e->subject].name, s->subjects.a[e->subject].len)))
                left--;
            q--;
        }
        if (left) return 0;
        if (q < below) below = q;
    }
    uint64_t q = s->first_seq;
    if (!all) purge_matching(s, filter, n, below);
    while (all && (q = jsc_seqs_live_from(&s->seqs, q, s->last_seq)) < below && q <= s->last_seq) {
        remove_entry(s, q, jsc_seqs_at(&s->seqs, q));
        q++;
    }
    if (all && !keep && seq > s->last_seq + 1) { /* beyond the end: the next sequence is `seq` */
        s->last_seq = seq - 1;
        s->first_seq = seq;
        if (s->snapshot) jsc_snapshot_hold(s, seq);
        jsc_seqs_drop_below(&s->seqs, seq);
    }
    jsc_stream_settle_first(s);
    if (before != s->messages || all) jsc_consumer_purged(s);
    return before - s->messages;
}

void jsc_stream_apply_expire(jsc_stream *s, uint64_t below) {
    while (s->messages && s->first_seq < below) jsc_stream_remove(s, s->first_seq);
}

/* Proposes the removal of what is too old; replicas only apply, so clocks need not agree. */
static void age_fire(void *ctx, int64_t mono, int64_t unix_ns) {
    jsc_stream *s = ctx;
    if (!s->leading || s->limits.max_age_ns <= 0 || !s->messages) return;
    int64_t cut = unix_ns - s->limits.max_age_ns;
    uint64_t below;
    int rc = s->last_ts <= cut ? JSC_ENOTFOUND : jsc_stream_seq_at(s, cut + 1, &below);
    if (rc == JSC_ECORRUPT) jsc_stream_hurt(s, rc); /* other replicas have it */
    if (rc != JSC_OK) below = rc == JSC_ENOTFOUND ? s->last_seq + 1 : 0; /* 0: nothing is known to be old */
    if (below > s->first_seq && below > s->age_proposed) {
        uint8_t body[10] = {1, 2};
        jsc_put64(body + 2, below);
        uint64_t index;
        if (jsc_stream_append(s, JSC_K_PURGE, NULL, 0, NULL, 0, body, sizeof body, &index) == JSC_OK)
            s->age_proposed = below;
    }
    jsc_timer_set(&s->all->timers, &s->age,
                  mono + 250000000); /* apply re-arms it exactly; this covers a failed append */
}

void jsc_stream_age_arm(jsc_stream *s) {
    s->age.fire = age_fire;
    s->age.ctx = s;
    if (!s->leading || s->limits.max_age_ns <= 0 || !s->messages) {
        jsc_timer_stop(&s->all->timers, &s->age);
        return;
    }
    jsc_record r;
    int64_t mono, unix_ns;
    jsc_streams_clock(s->all, &mono, &unix_ns);
    int64_t due = mono + 250000000;
    if (jsc_stream_read(s, s->first_seq, &r) == JSC_OK) due = mono + (r.ts + s->limits.max_age_ns - unix_ns);
    if (s->age_proposed > s->first_seq && due < mono + 250000000)
        due = mono + 250000000; /* already proposed: wait for its apply */
    jsc_timer_set(&s->all->timers, &s->age, due);
    jsc_streams_poke(s->all);
}
