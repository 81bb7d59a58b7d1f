/* Message tracing: who took a message that asks for it, told to the host, which makes the event. A message without the
 * headers is looked at once, line by line, and routed by route.c; one with them is routed here, the same way, with a note
 * of every receiver. Source: client-protocol.md 16 (ADR-41). */
#include "plane.h"
#include <errno.h>

enum { NOTES_BYTES = 256 << 10, HEAD = 10, PREFIX = 11 };

struct jsc_tracing {
    jsc_msg_trace told; /* what receivers in C see of it */
    jsc_plane *plane;
    jsc_account *account; /* where the event goes */
    jsc_buf notes, headers;
    const char *whole; /* the headers as they came */
    jsc_token dest;
    uint32_t whole_len, hops;
};

typedef struct asked {
    jsc_token dest, only, hop, origin, parent;
} asked;

static int same_word(const char *p, const char *word, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((p[i] | 0x20) != word[i]) return 0;
    return 1;
}

int jsc_trace_asked(const jsc_account *a, const char *h, size_t n) {
    const char *end = h + n, *p = memchr(h, '\n', n);
    while (p && end - ++p > PREFIX) {
        if (*p == 'N') {
            if (!memcmp(p, "Nats-Trace-", PREFIX)) return 1;
        } else if (a->trace_dest && same_word(p, "traceparent", PREFIX)) {
            return 1;
        }
        p = memchr(p, '\n', (size_t)(end - p));
    }
    return 0;
}

static void take(jsc_token *to, jsc_token name, jsc_token value, const char *is, int any_case) {
    size_t n = strlen(is);
    if (to->p || name.n != n || (any_case ? !same_word(name.p, is, n) : memcmp(name.p, is, n) != 0)) return;
    *to = value;
}

/* The headers that matter. 0: these are none, and nothing is traced. */
static int read_headers(const char *h, size_t n, asked *out) {
    const char *end = h + n, *p = h + HEAD;
    memset(out, 0, sizeof *out);
    if (n < HEAD || memcmp(h, "NATS/1.0\r\n", HEAD)) return 0;
    while (p < end && !(end - p == 2 && *p == '\r')) {
        const char *le = memchr(p, '\r', (size_t)(end - p)), *colon;
        if (!le || le + 1 == end || le[1] != '\n' || !(colon = memchr(p, ':', (size_t)(le - p))) || colon == p)
            return 0;
        jsc_token name = {p, (uint32_t)(colon - p)}, value;
        for (p = colon + 1; p < le && (*p == ' ' || *p == '\t');) p++;
        const char *ve = le;
        while (ve > p && (ve[-1] == ' ' || ve[-1] == '\t')) ve--;
        value = (jsc_token){p, (uint32_t)(ve - p)};
        take(&out->dest, name, value, "Nats-Trace-Dest", 0);
        take(&out->only, name, value, "Nats-Trace-Only", 0);
        take(&out->hop, name, value, "Nats-Trace-Hop", 0);
        take(&out->origin, name, value, "Nats-Trace-Origin-Account", 0);
        take(&out->parent, name, value, "traceparent", 1);
        p = le + 2;
    }
    return 1;
}

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* version-trace-parent-flags, of 2, 32, 16 and 2 characters, and the flags say that it is sampled. */
static int is_sampled(jsc_token t) {
    if (t.n != 55 || t.p[2] != '-' || t.p[35] != '-' || t.p[52] != '-') return 0;
    int hi = hex(t.p[53]), lo = hex(t.p[54]);
    return hi >= 0 && lo >= 0 && (lo & 1);
}

static int says_yes(jsc_token t) {
    return (t.n == 1 && *t.p == '1') || (t.n == 4 && same_word(t.p, "true", 4)) ||
           (t.n == 2 && same_word(t.p, "on", 2));
}

/* Headers without the lines of that name and with another one at their end. */
static int put_header(jsc_buf *to, const char *h, size_t n, const char *name, const char *value, size_t vn) {
    size_t nn = strlen(name), need = n + nn + vn + 6;
    if (to->cap < need) {
        char *q = realloc(to->p, need);
        if (!q) return -1;
        to->p = q;
        to->cap = need;
    }
    char *q = to->p;
    const char *end = h + n;
    for (const char *p = h; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p)), *next = nl ? nl + 1 : end;
        int same = (size_t)(next - p) > nn && !memcmp(p, name, nn) && p[nn] == ':';
        if (!same && !(next == end && next - p == 2 && *p == '\r')) q = jsc_copy(q, p, (size_t)(next - p));
        p = next;
    }
    q = jsc_copy(q, name, nn);
    q = jsc_copy(q, ": ", 2);
    q = jsc_copy(q, value, vn);
    q = jsc_copy(q, "\r\n\r\n", 4);
    to->len = (size_t)(q - to->p);
    return 0;
}

/* One line: kind, connection, error, time, hop, subject, queue; a field that is empty is "". Blanks are in none. */
static void note(jsc_tracing *t, char kind, const jsc_conn *c, int error, uint32_t hop, const char *s, size_t n,
                 const char *queue, size_t qn) {
    size_t need = t->notes.len + n + qn + 80;
    if (need > NOTES_BYTES) return; /* a fan-out that no event could hold */
    if (need > t->notes.cap) {
        char *p = realloc(t->notes.p, need * 2);
        if (!p) return;
        t->notes.p = p;
        t->notes.cap = need * 2;
    }
    char *q = t->notes.p + t->notes.len;
    *q++ = kind;
    *q++ = ' ';
    q = jsc_put_number(q, c ? c->id : 0);
    *q++ = ' ';
    q = jsc_put_number(q, (uint64_t)error);
    *q++ = ' ';
    q = jsc_put_number(q, (uint64_t)jsc_clock(CLOCK_REALTIME));
    *q++ = ' ';
    q = jsc_put_number(q, hop);
    *q++ = ' ';
    q = jsc_copy(q, s, n);
    *q++ = ' ';
    q = jsc_copy(q, queue, qn);
    *q++ = '\n';
    t->notes.len = (size_t)(q - t->notes.p);
}

/* A message from another account than its sender's, or one that says so, is not traced here. */
static int disabled(jsc_tracing *t, jsc_flow *f) {
    static const char off[] = "trace disabled";
    jsc_msg *m = &f->m;
    if (put_header(&t->headers, m->headers, m->headers_len, "Nats-Trace-Dest", off, sizeof off - 1)) return 0;
    m->headers = t->headers.p;
    m->headers_len = (uint32_t)t->headers.len;
    f->tail = NULL;
    f->size_len = 0;
    return 0;
}

jsc_tracing *jsc_trace_begin(jsc_conn *c, jsc_flow *f, int *drop) {
    jsc_msg *m = &f->m;
    jsc_plane *p = c->plane;
    jsc_account *a = m->account;
    asked x;
    *drop = 0;
    if (!read_headers(m->headers, m->headers_len, &x)) return NULL;
    int client = c->kind == JSC_CONN_CLIENT, only = 0;
    jsc_token dest = x.dest;
    if (dest.n) {
        if (!x.origin.n && !jsc_subject_valid(dest.p, dest.n, 1)) return NULL;
        only = says_yes(x.only);
    } else {
        if (!a->trace_dest || !x.parent.n || !is_sampled(x.parent)) return NULL;
        if (client ? jsc_chance(p, 100) >= a->trace_percent : !x.hop.n) return NULL;
        dest = (jsc_token){a->trace_dest, a->trace_dest_len};
    }
    jsc_tracing *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->plane = p;
    t->account = a;
    if (x.origin.n && (client || !(t->account = jsc_account_find(p, x.origin.p, x.origin.n, 0)))) {
        disabled(t, f);
        t->account = NULL;
        return t;
    }
    if (x.dest.n && client && c->permissions && !jsc_may_publish(c, dest.p, dest.n)) {
        jsc_conn_denied(c, JSC_DENIED_PUBLISH, dest.p, dest.n, NULL, NULL);
        *drop = 1;
        jsc_trace_end(t, f);
        return NULL;
    }
    t->told = (jsc_msg_trace){.id = ++p->traces, .only = (uint8_t)only};
    t->whole = m->headers;
    t->whole_len = m->headers_len;
    t->dest = dest;
    m->trace = &t->told;
    note(t, 'i', c, 0, 0, m->subject, m->subject_len, a->name, a->name_len);
    return t;
}

void jsc_trace_mapped(jsc_tracing *t, const jsc_flow *f) {
    if (t->account && f->m.subject_len) note(t, 'm', NULL, 0, 0, f->m.subject, f->m.subject_len, "", 0);
}

void jsc_trace_denied(jsc_tracing *t, int what, const char *s, size_t n) {
    if (t->account) note(t, 'd', NULL, what, 0, s, n, "", 0);
}

void jsc_trace_end(jsc_tracing *t, const jsc_flow *f) {
    if (t->told.id) {
        const jsc_msg *m = &f->m;
        jsc_event e = {.type = JSC_EV_TRACED,
                       .conn_kind = m->origin_kind,
                       .conn = m->origin,
                       .a = t->told.id,
                       .b = (uint64_t)t->told.streams << 32 | (t->whole_len + m->data_len),
                       .subject = t->account->name,
                       .subject_len = t->account->name_len,
                       .reply = t->dest.p,
                       .reply_len = t->dest.n,
                       .headers = t->whole,
                       .headers_len = t->whole_len,
                       .data = t->notes.p,
                       .data_len = (uint32_t)t->notes.len};
        jsc_plane_emit(t->plane, &e);
    }
    free(t->notes.p);
    free(t->headers.p);
    free(t);
}

/* ---- routing with notes ---- */
static int give(jsc_tracing *t, const jsc_target *target, const jsc_match *mt, jsc_flow *f) {
    jsc_sub *s = target->sub;
    if (s->dead) return 0;
    t->plane->work++;
    if (s->kind == JSC_SUB_CLIENT) {
        jsc_conn *c = s->conn;
        int error = c->closing                                                                 ? JSC_TRACE_CLOSED
                    : c->full                                                                  ? JSC_TRACE_SLOW
                    : c == f->from && !c->echo                                                 ? JSC_TRACE_NO_ECHO
                    : s->flags & JSC_SUB_PARTLY && !jsc_may_deliver(s, f->match, f->match_len) ? JSC_TRACE_DENIED
                                                                                               : 0;
        note(t, 'c', c, error, 0, s->subject, s->subject_len, jsc_sub_queue(s), s->queue_len);
        if (error && error != JSC_TRACE_SLOW) return 0; /* a slow one may have caught up */
        return t->told.only ? 1 : jsc_route_give(t->plane, target, mt, f);
    }
    if (s->kind == JSC_SUB_HOST) {
        static const char api[] = "$JS.API.", direct[] = "$JS.API.DIRECT.";
        const jsc_msg *m = &f->m;
        if (m->subject_len >= sizeof api && !memcmp(m->subject, api, sizeof api - 1) && !m->account->is_system &&
            (m->subject_len < sizeof direct || memcmp(m->subject, direct, sizeof direct - 1) != 0))
            note(t, 's', NULL, 0, 0, m->subject, m->subject_len, "", 0);
        if (t->told.only) return 0;
    }
    return jsc_route_give(t->plane, target, mt, f);
}

static int to_group(jsc_tracing *t, const jsc_match *mt, const jsc_group *g, jsc_flow *f, int remotes) {
    uint32_t n = g->locals + (remotes ? g->remotes : 0), at = jsc_group_first(t->plane, mt, g, remotes);
    for (uint32_t i = 0; i < n; i++, at = at + 1 == n ? 0 : at + 1) {
        const jsc_target *target = &mt->members[g->first + at];
        jsc_sub *s = target->sub;
        t->plane->work++;
        if (s->dead || (s->conn && s->conn->closing)) continue;
        if (s->kind == JSC_SUB_ROUTE ? jsc_group_choose(t->plane, s) : give(t, target, mt, f)) return 1;
        if (s->kind != JSC_SUB_ROUTE && (s->flags & JSC_SUB_LENIENT)) return 0;
    }
    return 0;
}

static int is_named(const jsc_flow *f, const jsc_sub *s) {
    const char *q = f->queues, *end = f->queues_end;
    while (q < end) {
        while (q < end && (*q == ' ' || *q == '\t')) q++;
        const char *b = q;
        while (q < end && *q != ' ' && *q != '\t') q++;
        if ((uint32_t)(q - b) == s->queue_len && !memcmp(jsc_sub_queue(s), b, s->queue_len)) return 1;
    }
    return 0;
}

/* One copy to a peer, whose headers say which of the copies it is. */
static int to_route(jsc_tracing *t, const jsc_hop *hop, const jsc_flow *f, uint32_t base) {
    jsc_conn *c = hop->conn;
    jsc_buf headers = {0};
    jsc_flow g = *f;
    char number[20];
    int took = 0;
    g.tail = NULL;
    g.size_len = 0;
    if (!c->traces) {
        if (!hop->plain && !jsc_group_chosen(t->plane, c, base)) return 0;
        note(t, 'r', c, t->told.only ? JSC_TRACE_UNTRACED : JSC_TRACE_UNTOLD, 0, "", 0, "", 0);
        return t->told.only ? 1 : jsc_route_hop(t->plane, hop, &g, base);
    }
    size_t n = (size_t)(jsc_put_number(number, t->hops + 1) - number);
    if (!put_header(&headers, f->m.headers, f->m.headers_len, "Nats-Trace-Hop", number, n)) {
        g.m.headers = headers.p;
        g.m.headers_len = (uint32_t)headers.len;
        took = jsc_route_hop(t->plane, hop, &g, base);
    }
    if (took) note(t, 'r', c, 0, ++t->hops, "", 0, "", 0);
    free(headers.p);
    return took;
}

int jsc_route_traced(jsc_tracing *t, jsc_flow *f) {
    jsc_plane *p = t->plane;
    if (!t->told.id) return jsc_route(p, f);
    if (!f->match) {
        f->match = f->m.subject;
        f->match_len = f->m.subject_len;
    }
    jsc_match *mt = jsc_match_get(f->m.account, NULL, f->match, f->match_len);
    if (!mt) return 0;
    int took = 0, routed = f->from->kind == JSC_CONN_ROUTE;
    uint32_t base = p->choices_n;
    for (uint32_t i = 0; i < mt->n_plain; i++) took += give(t, &mt->plain[i], mt, f);
    for (uint32_t i = 0; i < mt->n_groups; i++) {
        uint32_t before = p->choices_n;
        if (routed && !is_named(f, mt->members[mt->groups[i].first].sub)) continue;
        int one = to_group(t, mt, &mt->groups[i], f, !routed);
        if (p->choices_n == before) took += one;
    }
    for (uint32_t i = 0; i < mt->n_hops && !routed; i++)
        if (!mt->hops[i].conn->closing) took += to_route(t, &mt->hops[i], f, base);
    p->choices_n = base;
    jsc_match_put(p, mt);
    return took;
}

int jsc_account_trace(jsc_account *a, const char *dest, size_t n, uint32_t percent) {
    char *copy = NULL;
    if (n) {
        if (!jsc_subject_valid(dest, n, 1) || !percent || percent > 100) return JSC_EINVAL;
        if (!(copy = malloc(n))) return -ENOMEM;
        memcpy(copy, dest, n);
    }
    free(a->trace_dest);
    a->trace_dest = copy;
    a->trace_dest_len = (uint32_t)n;
    a->trace_percent = percent;
    return JSC_OK;
}
