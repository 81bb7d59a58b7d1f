/* Routing: who gets a message and how it is written to them. A client's copy is its rendered line start and the
 * publisher's own bytes from the reply or size on; only odd spacing, stripped headers and queue lists are rendered. */
#include "plane.h"

static char *put_rest(char *q, const jsc_flow *f, int strip) {
    const jsc_msg *m = &f->m;
    uint32_t h = strip ? 0 : m->headers_len;
    if (m->reply_len) {
        q = jsc_copy(q, m->reply, m->reply_len);
        *q++ = ' ';
    }
    if (h) {
        q = jsc_put_number(q, h);
        *q++ = ' ';
    }
    if (f->size_len && !(strip && m->headers_len)) q = jsc_copy(q, f->size, f->size_len);
    else q = jsc_put_number(q, (uint64_t)h + m->data_len);
    *q++ = '\r';
    *q++ = '\n';
    if (h) q = jsc_copy(q, m->headers, h);
    if (m->data_len) q = jsc_copy(q, m->data, m->data_len);
    *q++ = '\r';
    *q++ = '\n';
    return q;
}

static inline void count_out(jsc_conn *c, const jsc_msg *m) {
    jsc_plane_stats *s = &c->plane->stats;
    size_t n = (size_t)m->headers_len + m->data_len;
    c->out_msgs++;
    c->out_bytes += n;
    s->out_msgs++;
    s->out_bytes += n;
}

/* Whether a client is so far behind that it gets no more. */
static int is_full(jsc_conn *c) {
    c->full = jsc_pending(c) > c->plane->o.max_pending / 4 * 3;
    return c->full;
}

/* Who publishes to a client that is far behind waits for it, a little. */
static void stall(jsc_conn *c, jsc_conn *from) {
    if (!from || from->kind != JSC_CONN_CLIENT || from->slow_down || from->grace || from->closing) return;
    from->slow_down = 1;
    from->stalls++;
    c->plane->stats.stalls++;
    from->wait_for = c->id;
    from->pause_end = c->plane->mono + JSC_PAUSE_NS;
    from->next_paused = c->plane->paused;
    c->plane->paused = from;
    jsc_conn_mask(from);
}

static inline void behind(jsc_conn *c, jsc_flow *f) {
    if (JSC_LIKELY(jsc_pending(c) <= c->plane->busy_hi)) return;
    f->busy = 1;
    if (c->plane->o.no_stall) {
        is_full(c);
        return;
    }
    stall(c, f->from);
}

void jsc_route_stall(jsc_conn *c, jsc_conn *from) {
    jsc_flow f = {.from = from};
    behind(c, &f);
}

static int to_client(jsc_sub *s, const jsc_target *t, const jsc_match *mt, jsc_flow *f) {
    jsc_conn *c = s->conn;
    const jsc_msg *m = &f->m;
    c->plane->work++; /* also for nothing: the publisher may have thousands of subscriptions that get no echo */
    if (JSC_UNLIKELY(c->closing | c->full) && (c->closing || is_full(c))) return 0;
    if (c == f->from && !c->echo) return 0;
    if (JSC_UNLIKELY(s->flags & JSC_SUB_PARTLY) && !jsc_may_deliver(s, f->match, f->match_len)) return 0;
    int strip = m->headers_len && !c->headers, with = m->headers_len && !strip;
    size_t need = 6 + m->subject_len + s->sid_len + 2 +
                  (f->tail ? f->tail_len : m->reply_len + 24 + (size_t)m->headers_len + m->data_len + 4) + f->size_len;
    char *q = jsc_out_room(c, need);
    if (!q) return 0;
    if (t->len && m->subject == f->match) {
        const char *start = mt->text + t->off;
        q = with ? jsc_copy(q, start, t->len) : jsc_copy(q, start + 1, t->len - 1);
    } else {
        if (with) *q++ = 'H';
        q = jsc_copy(q, "MSG ", 4);
        q = jsc_copy(q, m->subject, m->subject_len);
        *q++ = ' ';
        q = jsc_copy(q, jsc_sub_sid(s), s->sid_len);
        *q++ = ' ';
    }
    q = f->tail && !strip ? jsc_copy(q, f->tail, f->tail_len) : put_rest(q, f, strip);
    count_out(c, m);
    s->delivered++;
    jsc_out_done(c, q);
    if (JSC_UNLIKELY(c->track) && m->reply_len) jsc_reply_note(c, m->reply, m->reply_len);
    behind(c, f);
    if (s->max && s->delivered >= s->max) {
        jsc_conn_sub_remove(c, s);
        jsc_sub_leave(s);
    }
    return 1;
}

/* Hands one message to one local subscription: 1 when taken. */
static inline int give(jsc_plane *p, const jsc_target *t, const jsc_match *mt, jsc_flow *f) {
    jsc_sub *s = t->sub;
    if (s->dead) return 0;
    if (JSC_LIKELY(s->kind == JSC_SUB_CLIENT)) return to_client(s, t, mt, f);
    s->delivered++;
    p->work += JSC_WORK_OWN;
    if (s->kind == JSC_SUB_CALL) {
        jsc_own_of(s)->fn(jsc_own_of(s)->ctx, &f->m);
    } else {
        const jsc_msg *m = &f->m;
        jsc_event e = {.type = JSC_EV_MSG,
                       .conn_kind = m->origin_kind,
                       .conn = m->origin,
                       .a = jsc_own_of(s)->tag,
                       .subject = m->subject,
                       .reply = m->reply,
                       .headers = m->headers,
                       .data = m->data,
                       .subject_len = m->subject_len,
                       .reply_len = m->reply_len,
                       .headers_len = m->headers_len,
                       .data_len = m->data_len};
        if (jsc_plane_emit(p, &e)) return 0;
    }
    return !(s->flags & JSC_SUB_LENIENT);
}

/* $JS.ACK.stream.consumer.delivered.seq.consumer_seq.ts.pending: where a re-addressed reply can carry a subject */
static int ack_shaped(const char *r, uint32_t n, uint32_t *after) {
    uint32_t dots = 0;
    if (n < 8 || memcmp(r, "$JS.ACK.", 8)) return 0;
    for (uint32_t i = 0; i < n; i++)
        if (r[i] == '.' && ++dots == 8) {
            *after = i + 1;
            return 1;
        }
    return 0;
}

/* One copy to a peer: its name of the message, the queue groups chosen there, the rest. */
static int to_route(jsc_plane *p, const jsc_hop *hop, jsc_flow *f, uint32_t base) {
    jsc_conn *c = hop->conn;
    const jsc_msg *m = &f->m;
    const jsc_account *a = m->account;
    size_t names = 0;
    uint32_t queues = 0, unused;
    for (uint32_t i = base; i < p->choices_n; i++)
        if (p->choices[i].conn == c) {
            names += p->choices[i].member->queue_len + 1;
            queues++;
        }
    if (!hop->plain && !queues) return 0;
    int moved = m->subject != f->match &&
                (m->subject_len != f->match_len || memcmp(m->subject, f->match, f->match_len)) &&
                ack_shaped(m->reply, m->reply_len, &unused);
    char *q = jsc_out_room(c, 5 + a->name_len + 1 + f->match_len + 1 + names + 4 + f->tail_len + m->subject_len + 1 +
                                  m->reply_len + 48 + (size_t)m->headers_len + m->data_len + 4 + f->size_len);
    if (!q) return 0;
    q = jsc_copy(q, m->headers_len ? "HMSG " : "RMSG ", 5);
    if (!c->only) {
        q = jsc_copy(q, a->name, a->name_len);
        *q++ = ' ';
    }
    q = jsc_copy(q, f->match, f->match_len);
    *q++ = ' ';
    if (!queues && !moved && f->tail) {
        q = jsc_copy(q, f->tail, f->tail_len);
    } else {
        jsc_flow g = *f;
        if (queues) {
            *q++ = m->reply_len ? '+' : '|';
            *q++ = ' ';
        }
        if (m->reply_len) {
            q = jsc_copy(q, m->reply, m->reply_len);
            if (moved) {
                *q++ = '@';
                q = jsc_copy(q, m->subject, m->subject_len);
            }
            *q++ = ' ';
            g.m.reply_len = 0;
        }
        for (uint32_t i = base; queues && i < p->choices_n; i++)
            if (p->choices[i].conn == c) {
                q = jsc_copy(q, jsc_sub_queue(p->choices[i].member), p->choices[i].member->queue_len);
                *q++ = ' ';
            }
        q = put_rest(q, &g, 0);
    }
    count_out(c, m);
    m->account->routed.out_msgs++;
    m->account->routed.out_bytes += (size_t)m->headers_len + m->data_len;
    jsc_out_done(c, q);
    behind(c, f);
    return 1;
}

uint64_t jsc_chance(jsc_plane *p, uint64_t below) {
    p->rng ^= p->rng << 13;
    p->rng ^= p->rng >> 7;
    p->rng ^= p->rng << 17;
    return below > 1 ? (uint64_t)(((__uint128_t)p->rng * below) >> 64) : 0;
}

int jsc_group_choose(jsc_plane *p, jsc_sub *s) {
    if (p->choices_n == p->choices_cap) {
        uint32_t cap = p->choices_cap ? p->choices_cap * 2 : 16;
        jsc_choice *v = realloc(p->choices, cap * sizeof *v);
        if (!v) return 0;
        p->choices = v;
        p->choices_cap = cap;
    }
    p->choices[p->choices_n++] = (jsc_choice){s->conn, s};
    return 1;
}

int jsc_group_chosen(const jsc_plane *p, const jsc_conn *c, uint32_t base) {
    int n = 0;
    for (uint32_t i = base; i < p->choices_n; i++) n += p->choices[i].conn == c;
    return n;
}

uint32_t jsc_group_first(jsc_plane *p, const jsc_match *mt, const jsc_group *g, int remotes) {
    uint32_t n = g->locals + (remotes ? g->remotes : 0), at = g->locals;
    uint64_t r = jsc_chance(p, g->locals + (remotes ? g->weight : 0));
    if (r < g->locals) return (uint32_t)r;
    r -= g->locals;
    for (; at + 1 < n && r >= mt->members[g->first + at].sub->weight; at++) r -= mt->members[g->first + at].sub->weight;
    return at;
}

/* One member of a group: by weight a random first one, then the next that can take it. */
static int to_group(jsc_plane *p, const jsc_match *mt, const jsc_group *g, jsc_flow *f, int remotes) {
    uint32_t n = g->locals + (remotes ? g->remotes : 0), at = jsc_group_first(p, mt, g, remotes);
    for (uint32_t i = 0; i < n; i++, at = at + 1 == n ? 0 : at + 1) {
        const jsc_target *t = &mt->members[g->first + at];
        jsc_sub *s = t->sub;
        p->work++;
        if (s->dead || (s->conn && s->conn->closing)) continue;
        if (s->kind == JSC_SUB_ROUTE ? jsc_group_choose(p, s) : give(p, t, mt, f)) return 1;
        if (s->kind != JSC_SUB_ROUTE && (s->flags & JSC_SUB_LENIENT)) return 0; /* it took it, silently */
    }
    return 0;
}

static int named_groups(jsc_plane *p, const jsc_match *mt, jsc_flow *f) {
    int took = 0;
    const char *q = f->queues, *end = f->queues_end;
    while (q < end) {
        while (q < end && (*q == ' ' || *q == '\t')) q++;
        const char *b = q;
        while (q < end && *q != ' ' && *q != '\t') q++;
        uint32_t n = (uint32_t)(q - b);
        for (uint32_t i = 0; n && i < mt->n_groups; i++) {
            const jsc_sub *s = mt->members[mt->groups[i].first].sub;
            if (s->queue_len == n && !memcmp(jsc_sub_queue(s), b, n)) {
                took += to_group(p, mt, &mt->groups[i], f, 0);
                break;
            }
        }
    }
    return took;
}

/* A peer, or the only receiver, that has half of all it may have waiting. */
static int crowded(const jsc_plane *p, const jsc_match *mt) {
    for (uint32_t i = 0; i < mt->n_hops; i++)
        if (jsc_pending(mt->hops[i].conn) > p->o.max_pending / 2) return 1;
    if (mt->n_plain != 1 || mt->n_groups) return 0;
    const jsc_sub *s = mt->plain[0].sub;
    return s->kind == JSC_SUB_CLIENT && jsc_pending(s->conn) > p->o.max_pending / 2;
}

/* A message for the only one who gets what comes to this inbox. */
static int to_inbox(jsc_plane *p, jsc_sub *s, jsc_flow *f) {
    static const jsc_target bare;
    int took = 0;
    f->m.account->matches++;
    p->depth++;
    if (s->kind == JSC_SUB_CLIENT) {
        took = to_client(s, &bare, NULL, f);
    } else if (!(f->from && f->from->kind == JSC_CONN_ROUTE) && !s->conn->closing) {
        jsc_hop hop = {s->conn, 1};
        took = to_route(p, &hop, f, p->choices_n);
    }
    if (!--p->depth && p->dead_subs) jsc_plane_bury(p);
    return took;
}

int jsc_route(jsc_plane *p, jsc_flow *f) {
    if (!f->match) {
        f->match = f->m.subject;
        f->match_len = f->m.subject_len;
    }
    jsc_sub *lone = f->gentle || p->depth >= JSC_DEPTH ? NULL : jsc_match_inbox(f->m.account, f->match, f->match_len);
    if (lone && !lone->dead && !(lone->flags & JSC_SUB_PARTLY) && lone->kind <= JSC_SUB_ROUTE)
        return to_inbox(p, lone, f);
    jsc_match *mt = jsc_match_get(f->m.account, f->from, f->match, f->match_len);
    if (JSC_UNLIKELY(!mt)) return 0;
    int took = 0;
    if (f->gentle && JSC_UNLIKELY(crowded(p, mt))) {
        f->busy = 1;
        jsc_match_put(p, mt);
        return 0;
    }
    for (uint32_t i = 0; i < mt->n_plain; i++) took += give(p, &mt->plain[i], mt, f);
    if (f->from && f->from->kind == JSC_CONN_ROUTE) { /* one hop: never on to another peer */
        if (f->queues) took += named_groups(p, mt, f);
    } else if (mt->n_groups | mt->n_hops) {
        uint32_t base = p->choices_n;
        for (uint32_t i = 0; i < mt->n_groups; i++) {
            /* A group served abroad only and one served here are the same to the caller: somebody took it. */
            uint32_t before = p->choices_n;
            int one = to_group(p, mt, &mt->groups[i], f, 1);
            if (p->choices_n == before) took += one;
        }
        for (uint32_t i = 0; i < mt->n_hops; i++)
            if (!mt->hops[i].conn->closing) took += to_route(p, &mt->hops[i], f, base);
        p->choices_n = base;
    }
    jsc_match_put(p, mt);
    return took;
}

int jsc_route_give(jsc_plane *p, const jsc_target *t, const jsc_match *mt, jsc_flow *f) { return give(p, t, mt, f); }

int jsc_route_hop(jsc_plane *p, const jsc_hop *hop, jsc_flow *f, uint32_t base) { return to_route(p, hop, f, base); }

void jsc_route_no_responders(jsc_conn *c, const jsc_flow *f) {
    const jsc_msg *m = &f->m;
    if (!c->subs_n || jsc_index_find(c->account, m->reply, m->reply_len)) return;
    for (uint32_t i = 0; i < c->plane->found.n; i++) {
        const jsc_sub *s = c->plane->found.v[i];
        if (s->conn != c || s->queue_len) continue;
        char *q = jsc_out_room(c, 5 + m->reply_len + 1 + s->sid_len + 48 + 40 + m->subject_len);
        if (!q) return;
        q = jsc_copy(q, "HMSG ", 5);
        q = jsc_copy(q, m->reply, m->reply_len);
        *q++ = ' ';
        q = jsc_copy(q, jsc_sub_sid(s), s->sid_len);
        *q++ = ' ';
        q = jsc_put_number(q, 32 + m->subject_len);
        *q++ = ' ';
        q = jsc_put_number(q, 32 + m->subject_len);
        q = jsc_copy(q, "\r\nNATS/1.0 503\r\nNats-Subject: ", 30);
        q = jsc_copy(q, m->subject, m->subject_len);
        q = jsc_copy(q, "\r\n\r\n\r\n", 6);
        c->out_msgs++;
        jsc_out_done(c, q);
        return;
    }
}

int jsc_publish(jsc_plane *p, const jsc_msg *m) {
    jsc_flow f = {.m = *m, .server = 1};
    return jsc_route(p, &f);
}

int jsc_deliver(jsc_plane *p, const char *deliver, size_t n, const jsc_msg *m, int *busy) {
    jsc_flow f = {.m = *m, .server = 1, .gentle = 1, .match = deliver, .match_len = (uint32_t)n};
    int took = jsc_route(p, &f);
    if (busy && f.busy) *busy = 1;
    return took;
}

int jsc_interest(jsc_plane *p, jsc_account *a, const char *subject, size_t n) {
    int count = 0;
    if (jsc_index_find(a, subject, (uint32_t)n)) return 0;
    for (uint32_t i = 0; i < p->found.n; i++) {
        const jsc_sub *s = p->found.v[i];
        count += !(s->flags & JSC_SUB_LENIENT) && !(s->conn && s->conn->closing);
    }
    return count;
}
