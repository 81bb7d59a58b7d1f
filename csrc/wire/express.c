/* The messages that most are: a PUB, or a peer's RMSG, whose line is short and spaced as it usually is, and whose message
 * is all here. Its line is taken apart without a look at each byte, and where a remembered match has clients of this
 * server alone, the copies of a publish are written at once. Whatever else there is (mappings, permissions, groups,
 * routes, streams) is left to jsc_conn_publish and jsc_route, and an operation of another form to jsc_parse: all do the
 * same, and more. */
#include "plane.h"
#if defined(__SSE2__) && !defined(JSC_NO_SSE2)
#define JSC_SSE2 1
#include <emmintrin.h>
#endif

enum {
    VERB = 4, /* "PUB " */
    LOOK = 64, /* of a line behind its verb, up to and with the CR */
    RMSG_VERB = 5, /* "RMSG " */
    RMSG_LOOK = 2 * LOOK, /* it names an account, which may be called by a key of 56 characters */
    LEAST = VERB + LOOK + 1, /* bytes that are looked at, whatever stands there */
    STEP = 16, /* small pieces are copied in so many bytes at a time, and a few too many */
    SMALL = 64,
};

typedef struct line {
    const char *account, *subject, *reply, *size, *body;
    uint32_t account_len, subject_len, reply_len, size_len, payload;
} line;

#ifdef JSC_SSE2
static inline uint64_t gaps16(const char *p) {
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(' ')), x));
}
#else
static inline uint64_t gaps16(const char *p) {
    uint64_t all = 0;
    for (int i = 0; i < 16; i++) all |= (uint64_t)((uint8_t)p[i] <= ' ') << i;
    return all;
}
#endif

/* A bit for each of LOOK bytes that is a blank or a control character. */
static inline uint64_t gaps(const char *p) {
    return gaps16(p) | gaps16(p + 16) << 16 | gaps16(p + 32) << 32 | gaps16(p + 48) << 48;
}

/* Both may be read up to 7 bytes further. */
static inline int same(const char *a, const char *b, uint32_t n) {
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        if (jsc_get64((const uint8_t *)a + i) != jsc_get64((const uint8_t *)b + i)) return 0;
    return i == n || !((jsc_get64((const uint8_t *)a + i) ^ jsc_get64((const uint8_t *)b + i)) << (64 - 8 * (n - i)));
}

static inline char *copy(char *to, const char *from, size_t n) {
    if (n > SMALL) return jsc_copy(to, from, n);
    for (size_t i = 0; i < n; i += STEP) memcpy(to + i, from + i, STEP);
    return to + n;
}

/* The number that a line ends with, from `at` to the CR at `to`, and the payload behind it, which has to be here whole with
 * its CRLF and what a copy reads too much. */
static inline int payload(const char *p, uint32_t at, uint32_t to, const char *end, line *l) {
    if (p[to] != '\r' || p[to + 1] != '\n' || to == at || to - at > 9) return 0;
    l->size = p + at;
    l->size_len = to - at;
    l->payload = 0;
    for (; at < to; at++) {
        uint32_t digit = (uint32_t)(uint8_t)p[at] - '0';
        if (digit > 9) return 0;
        l->payload = l->payload * 10 + digit;
    }
    l->body = p + to + 2;
    if (end - l->body < (ptrdiff_t)l->payload + 2 + STEP) return 0;
    return l->body[l->payload] == '\r' && l->body[l->payload + 1] == '\n';
}

/* Whether the operation at p is one of these. That takes the payload to be here as well. */
static inline int take(const char *p, const char *end, line *l) {
    if (end - p < LEAST || jsc_get32((const uint8_t *)p) != JSC_VERB_PUB) return 0;
    uint64_t m = gaps(p += VERB);
    if (!(m & (m - 1))) return 0;
    uint32_t at = (uint32_t)__builtin_ctzll(m);
    m &= m - 1;
    uint32_t to = (uint32_t)__builtin_ctzll(m);
    if (!at || p[at] != ' ') return 0;
    l->subject = p;
    l->subject_len = at++;
    l->reply_len = 0;
    if (p[to] == ' ') {
        l->reply = p + at;
        l->reply_len = to - at;
        m &= m - 1;
        if (!m || to == at) return 0;
        at = to + 1;
        to = (uint32_t)__builtin_ctzll(m);
    }
    return payload(p, at, to, end, l);
}

/* The next gap of a line that begins at p; RMSG_LOOK: none so far. *base, *m: where it was looked, and what is left. */
static inline uint32_t next_gap(const char *p, const char *end, uint32_t *base, uint64_t *m) {
    if (!*m) {
        *base += LOOK;
        if (*base >= RMSG_LOOK || end - p < (ptrdiff_t)*base + LOOK + 1) return RMSG_LOOK;
        if (!(*m = gaps(p + *base))) return RMSG_LOOK;
    }
    uint32_t at = *base + (uint32_t)__builtin_ctzll(*m);
    *m &= *m - 1;
    return at;
}

/* The same of "RMSG [account] subject [reply] size"; named: with an account. Lines with queue groups have more, or one
 * that is called '+' or '|', and are none of these. */
static inline int take_routed(const char *p, const char *end, int named, line *l) {
    if (end - p < RMSG_VERB + LOOK + 1 || jsc_get32((const uint8_t *)p) != JSC_VERB_RMSG || p[4] != ' ') return 0;
    p += RMSG_VERB;
    uint64_t m = gaps(p);
    uint32_t base = 0, at = 0, to = next_gap(p, end, &base, &m);
    l->account = p;
    l->account_len = 0;
    if (named) {
        if (to == RMSG_LOOK || !to || p[to] != ' ') return 0;
        l->account_len = to;
        at = to + 1;
        to = next_gap(p, end, &base, &m);
    }
    if (to == RMSG_LOOK || to == at || p[to] != ' ') return 0;
    l->subject = p + at;
    l->subject_len = to - at;
    l->reply = NULL;
    l->reply_len = 0;
    at = to + 1;
    to = next_gap(p, end, &base, &m);
    if (to == RMSG_LOOK) return 0;
    if (p[to] == ' ') {
        l->reply = p + at;
        l->reply_len = to - at;
        if (!l->reply_len) return 0;
        at = to + 1;
        to = next_gap(p, end, &base, &m);
        if (to == RMSG_LOOK) return 0;
    }
    return payload(p, at, to, end, l);
}

/* Subjects that clients may not use are among these. */
static inline int special(const char *s) { return *s == '$' || (*s == '_' && s[1] != 'I'); }

static __attribute__((noinline)) void publish(jsc_conn *c, const line *l) {
    const char *tail = l->subject + l->subject_len + 1;
    jsc_flow f = {.m = {.account = c->account,
                        .subject = l->subject,
                        .subject_len = l->subject_len,
                        .headers = l->body,
                        .data = l->body,
                        .data_len = l->payload,
                        .origin = c->id,
                        .origin_kind = c->kind},
                  .from = c,
                  .size = l->size,
                  .size_len = l->size_len,
                  .tail = tail,
                  .tail_len = (uint32_t)(l->body + l->payload + 2 - tail)};
    if (l->reply_len) {
        f.m.reply = l->reply;
        f.m.reply_len = l->reply_len;
    }
    jsc_conn_publish(c, &f);
}

/* Nothing is to be asked about any of those who get it. */
static inline int all_ready(const jsc_match *mt, const jsc_conn *from) {
    for (uint32_t i = 0; i < mt->n_plain; i++) {
        const jsc_sub *s = mt->plain[i].sub;
        const jsc_conn *c = s->conn;
        if ((s->dead | c->closing | c->full | c->track | (s->flags & JSC_SUB_PARTLY)) || s->max ||
            (c == from && !c->echo))
            return 0;
    }
    return 1;
}

/* Not 0: whoever publishes may have to wait, or the receiver is gone. */
static inline int give(const jsc_match *mt, const jsc_target *t, const line *l, jsc_conn *from, size_t quiet) {
    jsc_conn *c = t->sub->conn;
    const char *tail = l->subject + l->subject_len + 1;
    size_t n = (size_t)(l->body + l->payload + 2 - tail), need = t->len + n + STEP;
    char *q = c->out.p + c->out.len;
    if (JSC_UNLIKELY(c->out.cap - c->out.len < need || c->closing) && !(q = jsc_out_room(c, need))) return 1;
    q = copy(q, mt->text + t->off + 1, t->len - 1); /* without the H of HMSG */
    q = copy(q, tail, n);
    t->sub->delivered++;
    c->out_msgs++;
    c->out_bytes += l->payload;
    if (JSC_LIKELY(c->dirty && (size_t)(q - c->out.p) - c->out_head <= quiet)) {
        c->out.len = (size_t)(q - c->out.p);
        return 0;
    }
    jsc_out_done(c, q);
    jsc_route_stall(c, from);
    return c->closing | from->slow_down;
}

const char *jsc_express(jsc_conn *c, const char *at, const char *end, uint64_t enough) {
    jsc_plane *p = c->plane;
    jsc_account *a = c->account;
    jsc_plane_stats *st = &p->stats;
    size_t quiet = JSC_READ_BYTES - 1;
    uint64_t in_bytes = 0, in_msgs = 0, out_bytes = 0, out_msgs = 0;
    int stop = c->fresh | c->pedantic | c->warned | p->o.trace || p->o.max_control_line < LOOK, plain = 1;
    uint32_t most = p->o.max_payload < c->max_payload ? p->o.max_payload : c->max_payload;
    if (p->busy_hi < quiet) quiet = p->busy_hi;
    if (p->o.max_pending < quiet) quiet = p->o.max_pending;
    if (c->permissions || a->mappings || c->verbose) plain = 0;
    line l;
    while (!stop && p->work < enough && take(at, end, &l)) {
        const jsc_match *mt = c->hint < a->slots_n ? a->slots[c->hint].match : NULL;
        if (JSC_UNLIKELY(l.payload > most)) break;
        p->work++;
        at = l.body + l.payload + 2;
        if (JSC_UNLIKELY(!plain || !mt || !mt->simple || mt->subject_len != l.subject_len ||
                         !same(mt->subject, l.subject, l.subject_len)) ||
            *l.subject == '_' || *l.subject == '$' || (l.reply_len && (!mt->n_plain || special(l.reply))) ||
            !all_ready(mt, c)) {
            publish(c, &l);
            break; /* it may have changed anything */
        }
        in_msgs++;
        in_bytes += l.payload;
        for (uint32_t i = 0; i < mt->n_plain; i++) stop |= give(mt, &mt->plain[i], &l, c, quiet);
        out_msgs += mt->n_plain;
        out_bytes += (uint64_t)mt->n_plain * l.payload;
        p->work += mt->n_plain;
    }
    c->in_msgs += in_msgs;
    c->in_bytes += in_bytes;
    st->in_msgs += in_msgs;
    st->in_bytes += in_bytes;
    st->out_msgs += out_msgs;
    st->out_bytes += out_bytes;
    return at;
}

/* The last account that this peer named is most often the next one. */
static inline jsc_account *named(jsc_conn *c, const line *l) {
    jsc_account *a = c->named;
    if (a && a->name_len == l->account_len && !memcmp(a->name, l->account, a->name_len)) return a;
    a = jsc_account_find(c->plane, l->account, l->account_len, 0);
    if (a) c->named = a;
    return a;
}

/* A reply that carries a subject for the last mile (see do_route_msg). */
static inline int carries(const line *l) {
    return l->reply_len && *l->reply == '$' && memchr(l->reply, '@', l->reply_len) != NULL;
}

const char *jsc_express_routed(jsc_conn *c, const char *at, const char *end, uint64_t enough) {
    jsc_plane *p = c->plane;
    line l;
    if (p->o.trace || p->o.max_control_line < LOOK) return at;
    while (p->work < enough && !jsc_conn_stopped(c) && take_routed(at, end, !c->only, &l)) {
        if (JSC_UNLIKELY(l.payload > JSC_ROUTE_PAYLOAD || carries(&l))) break;
        p->work++;
        at = l.body + l.payload + 2;
        c->in_msgs++;
        c->in_bytes += l.payload;
        p->stats.in_msgs++;
        p->stats.in_bytes += l.payload;
        jsc_account *a = c->only ? c->only : named(c, &l);
        if (!a) continue; /* nobody here: the interest it answers is gone */
        a->routed.in_msgs++;
        a->routed.in_bytes += l.payload;
        const char *tail = l.subject + l.subject_len + 1;
        jsc_flow f = {.m = {.account = a,
                            .subject = l.subject,
                            .subject_len = l.subject_len,
                            .headers = l.body,
                            .data = l.body,
                            .data_len = l.payload,
                            .origin = c->id,
                            .origin_kind = c->kind},
                      .from = c,
                      .size = l.size,
                      .size_len = l.size_len,
                      .tail = tail,
                      .tail_len = (uint32_t)(l.body + l.payload + 2 - tail)};
        if (l.reply_len) {
            f.m.reply = l.reply;
            f.m.reply_len = l.reply_len;
        }
        jsc_route(p, &f);
    }
    return at;
}
