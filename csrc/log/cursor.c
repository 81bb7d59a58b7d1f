/* Cursors and counts: walking the live messages that match, piece after piece, without looking at those that do not.
 *
 * In a piece a cursor knows its messages in one of three ways. Everything: all ordinals. One subject: its postings. Any
 * other filter: a bit for each subject that matches; where those have few of the piece's messages also a bit for each such
 * message, so that what lies between costs nothing. Messages that come to an open segment later, and subjects that are new
 * there, are looked at one by one as the cursor gets to them. */
#include "mlog_internal.h"

#include <errno.h>

#define AHEAD 2048
#define SPARSE 16 /* one match among so many messages, or fewer: bits for messages */

enum { CURSOR_ALL, CURSOR_ONE, CURSOR_SOME };

struct jsc_cursor {
    jsc_mlog *mlog;
    const jsc_filter *filter; /* NULL: everything */
    int mode;
    bool backward;
    jsc_span text; /* the one subject */
    uint64_t hash;
    uint64_t at; /* sequence to look at next; backward 0: it is through */
    /* What follows was worked out for this part of this piece, and holds while they are the same. */
    uint64_t generation;
    const jsc_piece *piece;
    const jsc_part *part;
    const jsc_part_ops *ops;
    uint32_t sid, k;             /* one subject: JSC_NONE while it is not there; the posting that is likely next */
    uint64_t *sids, *ords;       /* bits */
    uint32_t nsids, nords;       /* of the subjects known so far; of the messages with a bit, 0: none has */
    size_t sids_words, ords_words; /* room */
};

size_t jsc_pieces_from(const jsc_mlog *m, uint64_t seq) {
    size_t lo = 0, hi = m->npieces;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->pieces[mid]->last_seq < seq) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

size_t jsc_pieces_until(const jsc_mlog *m, uint64_t seq) {
    size_t lo = 0, hi = m->npieces;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->pieces[mid]->base_seq < seq) lo = mid + 1;
        else hi = mid;
    }
    return lo - 1; /* SIZE_MAX for none */
}

/* ---- which messages of a part match ---- */

static inline bool bit(const uint64_t *bits, uint32_t i) { return bits[i / 64] >> (i % 64) & 1; }
static inline void set_bit(uint64_t *bits, uint32_t i) { bits[i / 64] |= (uint64_t)1 << (i % 64); }

/* Room for n bits; those from `used` on are 0. */
static int bits_room(uint64_t **bits, size_t *words, uint32_t used, uint32_t n) {
    size_t need = n / 64 + 1, have = used / 64 + (used % 64 != 0);
    if (need > *words) {
        size_t cap = need + need / 4;
        uint64_t *grown = realloc(*bits, cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        *bits = grown;
        *words = cap;
    }
    memset(*bits + have, 0, (*words - have) * sizeof **bits);
    return JSC_OK;
}

typedef struct matches {
    jsc_cursor *cursor;
    uint64_t messages;
} matches;

static int match_subject(void *ctx, uint32_t sid) {
    matches *s = ctx;
    set_bit(s->cursor->sids, sid);
    s->messages += s->cursor->part->ops->occurrences(s->cursor->part, sid);
    return 0;
}

static int match_message_bits(jsc_cursor *c) {
    const jsc_part_ops *ops = c->part->ops;
    uint32_t count = ops->count(c->part);
    int rc = bits_room(&c->ords, &c->ords_words, 0, count);
    if (rc != JSC_OK) return rc;
    for (size_t w = 0; w < c->nsids / 64 + 1; w++)
        for (uint64_t left = c->sids[w]; left; left &= left - 1) {
            uint32_t sid = (uint32_t)w * 64 + (uint32_t)__builtin_ctzll(left), n = ops->occurrences(c->part, sid);
            for (uint32_t k = 0; k < n; k++) set_bit(c->ords, ops->posting(c->part, sid, k));
        }
    c->nords = count;
    return JSC_OK;
}

static int match_part(jsc_cursor *c) {
    uint32_t n = c->part->ops->subjects(c->part);
    int rc = bits_room(&c->sids, &c->sids_words, 0, n);
    if (rc != JSC_OK) return rc;
    matches found = {.cursor = c};
    if ((rc = c->part->ops->select(c->part, c->filter, match_subject, &found)) != JSC_OK) return rc;
    c->nsids = n;
    return found.messages * SPARSE <= c->part->ops->count(c->part) ? match_message_bits(c) : JSC_OK;
}

static int match_new_subjects(jsc_cursor *c) {
    uint32_t n = c->part->ops->subjects(c->part);
    int rc = bits_room(&c->sids, &c->sids_words, c->nsids, n);
    if (rc != JSC_OK) return rc;
    for (; c->nsids < n; c->nsids++) {
        jsc_span t = c->part->ops->text(c->part, c->nsids);
        if (jsc_filter_match(c->filter, t.p, t.n)) set_bit(c->sids, c->nsids);
    }
    return JSC_OK;
}

/* Gets to know the part, or what is new in it. */
static int enter(jsc_cursor *c, const jsc_piece *piece, const jsc_part *part) {
    int rc = JSC_OK;
    bool fresh = c->piece != piece || c->part != part || c->ops != part->ops || c->generation != c->mlog->generation;
    if (fresh) {
        c->piece = NULL;
        c->part = part;
        c->ops = part->ops; /* a tail may be where a sidecar was */
        c->generation = c->mlog->generation;
        c->nsids = c->nords = c->k = 0;
        c->sid = JSC_NONE;
    }
    if (c->mode == CURSOR_ONE) {
        if (c->sid == JSC_NONE) c->sid = part->ops->find_subject(part, c->text.p, c->text.n, c->hash);
    } else if (c->mode == CURSOR_SOME) {
        if (fresh) rc = match_part(c);
        else if (c->nsids < part->ops->subjects(part)) rc = match_new_subjects(c);
    }
    if (rc == JSC_OK) c->piece = piece;
    return rc;
}

static uint32_t next_of_one(jsc_cursor *c, uint32_t ord) {
    const jsc_part_ops *ops = c->part->ops;
    if (c->sid == JSC_NONE) return JSC_NONE;
    uint32_t n = ops->occurrences(c->part, c->sid), k = c->k;
    bool hit = k < n && ops->posting(c->part, c->sid, k) >= ord && (!k || ops->posting(c->part, c->sid, k - 1) < ord);
    if (!hit) k = jsc_part_posting_at(c->part, c->sid, ord);
    if (c->backward) {
        if (k < n && ops->posting(c->part, c->sid, k) == ord) k++;
        if (!k--) return JSC_NONE;
        c->k = k; /* the next call asks for what is before this one: that it finds k right */
        return ops->posting(c->part, c->sid, k);
    }
    c->k = k + 1;
    return k < n ? ops->posting(c->part, c->sid, k) : JSC_NONE;
}

static uint32_t next_of_some(const jsc_cursor *c, uint32_t ord, uint32_t count) {
    if (ord < c->nords) {
        uint64_t left = c->ords[ord / 64] & UINT64_MAX << (ord % 64);
        for (size_t w = ord / 64, words = c->nords / 64 + 1;;) {
            if (left) return (uint32_t)w * 64 + (uint32_t)__builtin_ctzll(left);
            if (++w == words) break;
            left = c->ords[w];
        }
        ord = c->nords;
    }
    for (; ord < count; ord++)
        if (bit(c->sids, c->part->ops->subject(c->part, ord))) return ord;
    return JSC_NONE;
}

static uint32_t previous_of_some(const jsc_cursor *c, uint32_t ord) {
    for (; ord >= c->nords; ord--) {
        if (bit(c->sids, c->part->ops->subject(c->part, ord))) return ord;
        if (ord == 0) return JSC_NONE;
    }
    uint64_t left = c->ords[ord / 64] & UINT64_MAX >> (63 - ord % 64);
    for (size_t w = ord / 64;; left = c->ords[w]) {
        if (left) return (uint32_t)w * 64 + 63 - (uint32_t)__builtin_clzll(left);
        if (w-- == 0) return JSC_NONE;
    }
}

/* The first live match at or behind an ordinal, backward at or before it; JSC_NONE. */
static uint32_t next_match(jsc_cursor *c, uint32_t ord) {
    const jsc_dead *dead = c->piece->dead;
    uint32_t count = c->part->ops->count(c->part);
    while (ord < count) {
        if (c->mode == CURSOR_ALL)
            return !dead ? ord : c->backward ? jsc_dead_prev_live(dead, ord) : jsc_dead_next_live(dead, ord, count);
        if (c->mode == CURSOR_ONE) ord = next_of_one(c, ord);
        else ord = c->backward ? previous_of_some(c, ord) : next_of_some(c, ord, count);
        if (ord == JSC_NONE || !jsc_dead_has(dead, ord)) return ord;
        ord += c->backward ? UINT32_MAX : 1; /* before 0 it wraps, and ends too */
    }
    return JSC_NONE;
}

/* ---- cursors ---- */

int jsc_cursor_new(jsc_mlog *m, const jsc_filter *filter, uint64_t from, bool backward, jsc_cursor **out) {
    jsc_cursor *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    c->mlog = m;
    c->filter = filter;
    c->backward = backward;
    c->at = from;
    c->mode = CURSOR_SOME;
    if (!filter || jsc_filter_all(filter)) {
        c->mode = CURSOR_ALL;
    } else if (jsc_filter_literal(filter, &c->text)) {
        c->mode = CURSOR_ONE;
        c->hash = jsc_subject_hash(c->text.p, c->text.n);
    }
    *out = c;
    return JSC_OK;
}

void jsc_cursor_free(jsc_cursor *c) {
    if (!c) return;
    free(c->sids);
    free(c->ords);
    free(c);
}

uint64_t jsc_cursor_position(const jsc_cursor *c) { return c->at; }

/* Asks the processor for bytes that a walk over everything comes to soon. Its own foresight ends with each page. */
static inline void foresee(const jsc_record *r, bool backward) {
    uintptr_t at = (uintptr_t)r->raw + (backward ? -(uintptr_t)AHEAD : AHEAD);
    for (uint32_t n = 0; n < r->raw_len && n < AHEAD; n += 64) __builtin_prefetch((const void *)(at + n));
}

/* Reads on in one piece. JSC_OK also when `max` is reached; the piece is through when c->at is beyond it. */
static int load_of_piece(jsc_cursor *c, jsc_piece *piece, const jsc_part *part, jsc_message *out, int max, int *n,
                         int *owed) {
    uint32_t ord = part->ops->find_seq(part, c->backward ? c->at + 1 : c->at);
    if (c->backward) ord--; /* none: wraps, and nothing matches */
    for (; *n < max; ord += c->backward ? UINT32_MAX : 1) {
        ord = next_match(c, ord);
        if (ord == JSC_NONE) {
            c->at = c->backward ? piece->base_seq : piece->last_seq + 1;
            return JSC_OK;
        }
        uint64_t seq = part->ops->seq(part, ord);
        int rc = jsc_mlog_load(c->mlog, piece, part, ord, seq, &out[*n], owed);
        if (rc == JSC_ECORRUPT && *n == 0) out[0].seq = seq;
        bool past = rc == JSC_OK || (rc == JSC_ECORRUPT && *n == 0);
        c->at = past ? (c->backward ? seq - 1 : seq + 1) : seq;
        if (rc != JSC_OK) return rc;
        if (c->mode == CURSOR_ALL) foresee(&out[*n].r, c->backward);
        ++*n;
    }
    return JSC_OK;
}

static int next_of_piece(jsc_cursor *c, jsc_piece *piece, jsc_message *out, int max, int *n) {
    int rc = JSC_OK, owed = 0;
    const jsc_part *part = jsc_piece_part(c->mlog, piece, &rc);
    if (!part || (rc = enter(c, piece, part)) != JSC_OK) return rc;
    rc = load_of_piece(c, piece, part, out, max, n, &owed);
    if (owed) atomic_fetch_add_explicit(&piece->segment->refs, owed, memory_order_relaxed);
    return rc;
}

static int next_of_pieces(jsc_cursor *c, jsc_message *out, int max, int *n) {
    jsc_mlog *m = c->mlog;
    if (c->backward && c->at > m->last_seq) c->at = m->last_seq;
    size_t i = c->backward ? jsc_pieces_until(m, c->at) : jsc_pieces_from(m, c->at);
    for (; i < m->npieces; c->backward ? i-- : i++) {
        jsc_piece *piece = m->pieces[i];
        int rc = JSC_OK;
        if (!jsc_piece_live(piece)) c->at = c->backward ? piece->base_seq : piece->last_seq + 1;
        else rc = next_of_piece(c, piece, out, max, n);
        if (rc != JSC_OK || *n == max) return rc;
    }
    /* Through. What comes later has sequences above all that were looked at. */
    if (c->backward) c->at = 0;
    else if (c->at <= m->last_seq) c->at = m->last_seq + 1;
    return JSC_OK;
}

int jsc_cursor_next(jsc_cursor *c, jsc_message *out, int max, int *n) {
    jsc_mlog *m = c->mlog;
    int got = 0;
    pthread_mutex_lock(&m->lock);
    int rc = max > 0 ? next_of_pieces(c, out, max, &got) : JSC_OK;
    if (rc == -ESTALE && !got && (rc = jsc_mlog_reload(m)) == JSC_OK) rc = next_of_pieces(c, out, max, &got);
    pthread_mutex_unlock(&m->lock);
    if (got) rc = JSC_OK; /* the next call meets it first */
    if (rc == JSC_OK || rc == JSC_ECORRUPT) *n = got;
    return rc;
}

/* ---- counts ---- */

typedef struct counting {
    const jsc_piece *piece;
    const jsc_part *part;
    uint32_t ord; /* only messages from here on */
    uint64_t n;
} counting;

static int count_subject(void *ctx, uint32_t sid) {
    counting *c = ctx;
    const jsc_part_ops *ops = c->part->ops;
    uint32_t n = ops->occurrences(c->part, sid), k = c->ord ? jsc_part_posting_at(c->part, sid, c->ord) : 0;
    if (k == 0) {
        c->n += n - (c->piece->dead ? jsc_dead_of(c->piece->dead, c->part, sid) : 0);
        return 0;
    }
    c->n += n - k;
    if (!c->piece->dead) return 0;
    for (; k < n; k++) c->n -= jsc_dead_has(c->piece->dead, ops->posting(c->part, sid, k));
    return 0;
}

/* Live messages of a piece from an ordinal on that match. */
static int count_piece(counting *c, const jsc_filter *filter, const jsc_span *text, uint64_t hash) {
    if (!filter) {
        uint32_t count = c->part->ops->count(c->part);
        c->n += count - c->ord - jsc_dead_count_range(c->piece->dead, c->ord, count);
        return JSC_OK;
    }
    if (!text) return c->part->ops->select(c->part, filter, count_subject, c);
    uint32_t sid = c->part->ops->find_subject(c->part, text->p, text->n, hash);
    return sid == JSC_NONE ? JSC_OK : count_subject(c, sid);
}

/* filter NULL: all; text: the one subject, or NULL. */
static int count_from(jsc_mlog *m, const jsc_filter *filter, const jsc_span *text, uint64_t from, uint64_t *n) {
    counting c = {0};
    uint64_t hash = text ? jsc_subject_hash(text->p, text->n) : 0;
    for (size_t i = jsc_pieces_from(m, from); i < m->npieces; i++) {
        jsc_piece *piece = m->pieces[i];
        uint64_t live = jsc_piece_live(piece);
        if (!live || (!filter && piece->base_seq + 1 >= from)) {
            c.n += live;
            continue;
        }
        int rc = JSC_OK;
        if (!(c.part = jsc_piece_part(m, piece, &rc))) return rc;
        c.piece = piece;
        c.ord = c.part->ops->find_seq(c.part, from);
        if ((rc = count_piece(&c, filter, text, hash)) != JSC_OK) return rc;
    }
    *n = c.n;
    return JSC_OK;
}

static int count(jsc_mlog *m, const jsc_filter *filter, const jsc_span *text, uint64_t from, uint64_t *n) {
    jsc_subject_info info;
    if (from > m->first_seq || (filter && !text)) return count_from(m, filter, text, from, n);
    if (!filter) {
        *n = m->messages;
        return JSC_OK;
    }
    int rc = jsc_subjects_state(m, text->p, text->n, jsc_subject_hash(text->p, text->n), &info);
    if (rc == JSC_OK) *n = info.count;
    return rc;
}

int jsc_mlog_count(jsc_mlog *m, const jsc_filter *filter, uint64_t from, uint64_t *n) {
    jsc_span one, *text = NULL;
    if (filter && jsc_filter_all(filter)) filter = NULL;
    if (filter && jsc_filter_literal(filter, &one)) text = &one;
    pthread_mutex_lock(&m->lock);
    int rc = count(m, filter, text, from, n);
    if (rc == -ESTALE && (rc = jsc_mlog_reload(m)) == JSC_OK) rc = count(m, filter, text, from, n);
    pthread_mutex_unlock(&m->lock);
    return rc;
}
