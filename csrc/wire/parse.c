/* The protocol of clients and routes, parsed in place: an operation is taken whole or left in the buffer. */
#include "layer.h"
#include <errno.h>

enum {
    V_PUB,
    V_HPUB,
    V_SUB,
    V_UNSUB,
    V_PING,
    V_PONG,
    V_CONNECT,
    V_INFO,
    V_OK,
    V_ERR,
    V_RSP,
    V_RSM,
    V_LSP,
    V_LSM,
    V_AP,
    V_AM,
    V_RMSG,
    V_HMSG,
    V_LMSG,
    V_LINK,
    V_NONE,
    V_MORE
};
enum { FOR_CLIENT = 1, FOR_ROUTE = 2, BLANK = 4, IGNORES = 8 };

static const struct verb {
    char text[8];
    uint8_t len, flags;
} verbs[] = {
    [V_PUB] = {"PUB", 3, FOR_CLIENT | BLANK},
    [V_HPUB] = {"HPUB", 4, FOR_CLIENT | BLANK},
    [V_SUB] = {"SUB", 3, FOR_CLIENT | BLANK},
    [V_UNSUB] = {"UNSUB", 5, FOR_CLIENT | BLANK},
    [V_PING] = {"PING", 4, FOR_CLIENT | FOR_ROUTE | IGNORES},
    [V_PONG] = {"PONG", 4, FOR_CLIENT | FOR_ROUTE | IGNORES},
    [V_CONNECT] = {"CONNECT", 7, FOR_CLIENT | FOR_ROUTE},
    [V_INFO] = {"INFO", 4, FOR_CLIENT | FOR_ROUTE},
    [V_OK] = {"+OK", 3, FOR_CLIENT | FOR_ROUTE | IGNORES},
    [V_ERR] = {"-ERR", 4, FOR_CLIENT | FOR_ROUTE | BLANK},
    [V_RSP] = {"RS+", 3, FOR_ROUTE | BLANK},
    [V_RSM] = {"RS-", 3, FOR_ROUTE | BLANK},
    [V_LSP] = {"LS+", 3, FOR_ROUTE | BLANK},
    [V_LSM] = {"LS-", 3, FOR_ROUTE | BLANK},
    [V_AP] = {"A+", 2, FOR_ROUTE | BLANK},
    [V_AM] = {"A-", 2, FOR_ROUTE | BLANK},
    [V_RMSG] = {"RMSG", 4, FOR_ROUTE | BLANK},
    [V_HMSG] = {"HMSG", 4, FOR_CLIENT | FOR_ROUTE | BLANK}, /* a client hears at the line's end that it may not */
    [V_LMSG] = {"LMSG", 4, FOR_ROUTE | BLANK},
    [V_LINK] = {"JSLINK", 6, FOR_ROUTE | BLANK},
};

static int is_blank(char c) { return c == ' ' || c == '\t'; }
/* Between the arguments of SUB and UNSUB a CR that does not end the line is one more blank, and so is an LF before them. */
static int is_gap(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static int find_verb(const jsc_conn *c, const char *p, size_t n) {
    int more = 0;
    unsigned who = c->kind == JSC_CONN_CLIENT ? FOR_CLIENT : FOR_ROUTE;
    for (int v = 0; v < V_NONE; v++) {
        if (!(verbs[v].flags & who)) continue;
        size_t k = 0, len = verbs[v].len;
        for (; k < len && k < n; k++) {
            char x = p[k];
            if (x >= 'a' && x <= 'z') x = (char)(x - 32);
            if (x != verbs[v].text[k]) break;
        }
        if (k == len) {
            if (!(verbs[v].flags & BLANK)) return v;
            if (n > len) return is_blank(p[len]) ? v : V_NONE;
            more = 1;
        } else if (k == n) {
            more = 1;
        }
    }
    return more ? V_MORE : V_NONE;
}

static void unknown(jsc_conn *c) { jsc_conn_end(c, "Protocol Violation", "Unknown Protocol Operation", 1); }
static void silent(jsc_conn *c) { jsc_conn_end(c, "Protocol Violation", NULL, 1); }

/* Tokens of [p, end) into plane->tokens; their number, -1 without memory. */
static int split(jsc_plane *pl, const char *p, const char *end) {
    uint32_t n = 0;
    for (;;) {
        while (p < end && is_gap(*p)) p++;
        if (p == end) return (int)n;
        if (n == pl->tokens_cap) {
            uint32_t cap = n ? n * 2 : 16;
            jsc_token *v = realloc(pl->tokens, cap * sizeof *v);
            if (!v) return -1;
            pl->tokens = v;
            pl->tokens_cap = cap;
        }
        const char *b = p;
        while (p < end && !is_gap(*p)) p++;
        pl->tokens[n++] = (jsc_token){b, (uint32_t)(p - b)};
    }
}

/* On a connection for one account the lines do not name it: its name is put where it would stand. */
static int name_account(jsc_conn *c, int n, int at) {
    jsc_plane *p = c->plane;
    if (!c->only || n < at) return n;
    if ((uint32_t)n == p->tokens_cap) {
        jsc_token *v = realloc(p->tokens, ((size_t)n + 16) * sizeof *v);
        if (!v) return -1;
        p->tokens = v;
        p->tokens_cap = (uint32_t)n + 16;
    }
    memmove(p->tokens + at + 1, p->tokens + at, (size_t)(n - at) * sizeof *p->tokens);
    p->tokens[at] = (jsc_token){c->only->name, c->only->name_len};
    return n + 1;
}

static int64_t size_of(const char *p, uint32_t n) {
    int64_t v = 0;
    if (!n || n > 9) return -1;
    for (uint32_t i = 0; i < n; i++) {
        unsigned d = (unsigned)(p[i] - '0');
        if (d > 9) return -1;
        v = v * 10 + d;
    }
    return v;
}

static int starts(const char *s, uint32_t n, const char *with, uint32_t wn) { return n >= wn && !memcmp(s, with, wn); }

static inline void count_in(jsc_conn *c, size_t n) {
    c->in_msgs++;
    c->in_bytes += n;
    c->plane->stats.in_msgs++;
    c->plane->stats.in_bytes += n;
}

/* The subject by the account's mappings. 0: that was all. */
static int mapped(jsc_conn *c, jsc_flow *f) {
    if (jsc_map(c->account, &f->m) < 0) {
        jsc_conn_end(c, "Internal Error", NULL, 0);
        return 0;
    }
    if (f->m.subject_len) return 1;
    if (c->verbose) jsc_out_put(c, "+OK\r\n", 5);
    if (c->no_responders && f->m.reply_len) jsc_route_no_responders(c, f);
    return 0;
}

static void denied(jsc_conn *c, int what, const char *s, uint32_t n, jsc_tracing *t) {
    jsc_conn_denied(c, what, s, n, NULL, NULL);
    if (t) jsc_trace_denied(t, what, s, n);
}

/* t is NULL but for a message that is traced: two copies of this function, neither asks at run time. */
static inline __attribute__((always_inline)) void publish_as(jsc_conn *c, jsc_flow *f, jsc_tracing *t) {
    const jsc_msg *m = &f->m;
    count_in(c, (size_t)m->headers_len + m->data_len);
    if (JSC_UNLIKELY(c->account->mappings != NULL)) {
        const char *before = m->subject;
        if (!mapped(c, f)) return;
        if (t && m->subject != before) jsc_trace_mapped(t, f);
    }
    char s0 = m->subject[0];
    if (JSC_UNLIKELY(c->permissions != NULL) && !jsc_may_publish(c, m->subject, m->subject_len)) {
        denied(c, JSC_DENIED_PUBLISH, m->subject, m->subject_len, t);
        return;
    }
    if (JSC_UNLIKELY(s0 == '_' || s0 == '$') &&
        ((starts(m->subject, m->subject_len, "_GR_.", 5) && m->subject_len > 5) ||
         (starts(m->subject, m->subject_len, "$NRG.", 5) && !c->account->is_system) ||
         (starts(m->subject, m->subject_len, "$JSC.", 5) && jsc_account_own(c->account)))) {
        denied(c, JSC_DENIED_PUBLISH, m->subject, m->subject_len, t);
        return;
    }
    if (m->reply_len && (m->reply[0] == '_' || m->reply[0] == '$') &&
        (starts(m->reply, m->reply_len, "_R_.", 4) ||
         (starts(m->reply, m->reply_len, "_GR_.", 5) && m->reply_len > 5) ||
         (starts(m->reply, m->reply_len, "$JS.ACK.", 8) && m->reply_len > 8))) {
        denied(c, JSC_DENIED_REPLY, m->reply, m->reply_len, t);
        return;
    }
    if (c->verbose) jsc_out_put(c, "+OK\r\n", 5);
    int took = t ? jsc_route_traced(t, f) : jsc_route(c->plane, f);
    if (!took && c->no_responders && m->reply_len) jsc_route_no_responders(c, f);
}

void jsc_conn_publish(jsc_conn *c, jsc_flow *f) { publish_as(c, f, NULL); }

static __attribute__((noinline)) void publish_traced(jsc_conn *c, jsc_flow *f) {
    int drop;
    jsc_tracing *t = jsc_trace_begin(c, f, &drop);
    if (drop) return;
    if (!t) {
        jsc_conn_publish(c, f);
        return;
    }
    publish_as(c, f, t);
    jsc_trace_end(t, f);
}

static __attribute__((noinline)) void route_traced(jsc_conn *c, jsc_flow *f) {
    int drop;
    jsc_tracing *t = jsc_trace_begin(c, f, &drop);
    if (!t) {
        jsc_route(c->plane, f);
        return;
    }
    jsc_route_traced(t, f);
    jsc_trace_end(t, f);
}

/* Whether the payload is here whole, with its CRLF; otherwise says how much is needed, or closes the connection. */
static int payload_here(jsc_conn *c, const char *op, const char *body, const char *end, int64_t size) {
    if (end - body < size + 2 && (end - body <= size || body[size] == '\r')) {
        c->need = (size_t)(body - op) + (size_t)size + 2;
        return 0;
    }
    if (body[size] == '\r' && body[size + 1] == '\n') return 1;
    unknown(c);
    return 0;
}

/* What pedantic asks of a publish subject: tokens, none of them empty or a wildcard. Any byte may be in them. */
static int literal(const char *p, uint32_t n) {
    const char *end = p + n;
    for (;;) {
        const char *dot = memchr(p, '.', (size_t)(end - p)), *te = dot ? dot : end;
        if (te == p || (te - p == 1 && (*p == '*' || *p == '>'))) return 0;
        if (!dot) return 1;
        p = dot + 1;
    }
}

/* PUB and HPUB. line: after the verb, up to le (without CRLF); body: after LF. Returns the bytes of the payload with its
 * CRLF, 0 when more are needed or the connection is closing. */
static size_t do_pub(jsc_conn *c, int hdr, const char *op, const char *line, const char *le, const char *body,
                     const char *end) {
    jsc_plane *p = c->plane;
    jsc_token t[5];
    uint32_t n = 0;
    const char *s = line;
    int tidy = body - le == 2 && line[0] == ' '; /* can the bytes go out as they came? */
    for (;;) {
        const char *b = s;
        while (s < le && is_blank(*s)) s++;
        if (s == le) {
            tidy &= s == b;
            break;
        }
        if (s - b != 1 || *b != ' ') tidy = 0;
        if (n == 5) {
            silent(c);
            return 0;
        }
        b = s;
        while (s < le && !is_blank(*s)) s++;
        t[n++] = (jsc_token){b, (uint32_t)(s - b)};
    }
    uint32_t least = hdr ? 3 : 2;
    if ((hdr && !c->headers) || n < least || n > least + 1) {
        silent(c);
        return 0;
    }
    int64_t size = size_of(t[n - 1].p, t[n - 1].n), h = hdr ? size_of(t[n - 2].p, t[n - 2].n) : 0;
    if (size < 0 || h < 0 || h > size) {
        silent(c);
        return 0;
    }
    if (size > p->o.max_payload || size > c->max_payload) {
        jsc_conn_end(c, "Maximum Message Payload Exceeded", "Maximum Payload Violation", 1);
        return 0;
    }
    if (JSC_UNLIKELY(c->pedantic) && !c->warned && !literal(t[0].p, t[0].n)) {
        jsc_out_err(c, "Invalid Publish Subject", NULL, 0);
        c->warned = 1; /* said at the line, and not again when the payload is here */
    }
    if (!payload_here(c, op, body, end, size)) return 0;
    c->warned = 0;
    jsc_flow f = {.from = c, .size = t[n - 1].p, .size_len = t[n - 1].n};
    f.m = (jsc_msg){.account = c->account,
                    .subject = t[0].p,
                    .subject_len = t[0].n,
                    .headers = body,
                    .headers_len = (uint32_t)h,
                    .data = body + h,
                    .data_len = (uint32_t)(size - h),
                    .origin = c->id,
                    .origin_kind = c->kind};
    if (n > least) {
        f.m.reply = t[1].p;
        f.m.reply_len = t[1].n;
    }
    if (tidy && (h || !hdr)) {
        f.tail = t[1].p;
        f.tail_len = (uint32_t)(body + size + 2 - t[1].p);
    }
    if (JSC_UNLIKELY(p->o.trace)) jsc_trace_in(c, op, (size_t)(le - op), body, (size_t)size);
    if (JSC_UNLIKELY(h) && JSC_UNLIKELY(jsc_trace_asked(c->account, body, (size_t)h))) publish_traced(c, &f);
    else jsc_conn_publish(c, &f);
    return (size_t)size + 2;
}

static void do_sub(jsc_conn *c, int n) {
    jsc_plane *p = c->plane;
    p->work += JSC_WORK_SUB;
    jsc_token *t = p->tokens;
    if (n < 2 || n > 3) {
        silent(c);
        return;
    }
    jsc_token *sid = &t[n - 1];
    uint32_t qn = n == 3 ? t[1].n : 0;
    const char *queue = n == 3 ? t[1].p : NULL;
    int may = 1;
    if (JSC_UNLIKELY(c->permissions != NULL)) may = jsc_may_subscribe(c->permissions, t[0].p, t[0].n, queue, qn);
    if (qn == 5 && !memcmp(queue, "_sys_", 5)) may = 0; /* the server's own group */
    if (!may || c->subs_n >= c->max_subs || (p->o.max_subs && c->subs_n >= p->o.max_subs)) {
        jsc_token group = {queue, qn};
        jsc_conn_denied(c, may ? JSC_DENIED_MAX_SUBS : JSC_DENIED_SUBSCRIBE, t[0].p, t[0].n, &group, sid);
        return;
    }
    uint64_t h = jsc_hash(sid->p, sid->n);
    if (!jsc_conn_sub(c, sid->p, sid->n, h)) {
        if (!jsc_subject_valid(t[0].p, t[0].n, 0)) {
            jsc_out_err(c, "Invalid Subject", NULL, 0);
            return;
        }
        jsc_sub *s = jsc_sub_new(JSC_SUB_CLIENT, c->account, t[0].p, t[0].n, queue, qn, sid->p, sid->n);
        if (!s) {
            jsc_conn_end(c, "Internal Error", NULL, 0);
            return;
        }
        s->conn = c;
        s->sid_hash = (uint32_t)h;
        if (may == JSC_MAY_PARTLY) s->flags |= JSC_SUB_PARTLY;
        if (jsc_conn_sub_add(c, s)) {
            jsc_sub_free(s);
            jsc_conn_end(c, "Internal Error", NULL, 0);
            return;
        }
        if (jsc_sub_enter(s)) {
            jsc_conn_sub_remove(c, s);
            jsc_sub_free(s);
            jsc_conn_end(c, "Internal Error", NULL, 0);
            return;
        }
    }
    if (c->verbose) jsc_out_put(c, "+OK\r\n", 5);
}

static void do_unsub(jsc_conn *c, int n) {
    c->plane->work += JSC_WORK_SUB;
    jsc_token *t = c->plane->tokens;
    if (n < 1 || n > 2) {
        silent(c);
        return;
    }
    int64_t max = n == 2 ? size_of(t[1].p, t[1].n) : 0;
    jsc_sub *s = jsc_conn_sub(c, t[0].p, t[0].n, jsc_hash(t[0].p, t[0].n));
    if (s) {
        if (max > 0 && (uint64_t)max > s->delivered) {
            s->max = (uint64_t)max;
        } else {
            jsc_conn_sub_remove(c, s);
            jsc_sub_leave(s);
        }
    }
    if (c->verbose) jsc_out_put(c, "+OK\r\n", 5);
}

/* RS+, RS-, and LS+, LS-: what a cluster of leaf nodes behind the peer wants. A route's subscriptions are found by
 * "account subject[ queue]", those of leaf nodes by " origin account subject[ queue]". */
static void do_interest(jsc_conn *c, int add, int leaf, int n) {
    jsc_plane *p = c->plane;
    p->work += JSC_WORK_SUB;
    n = name_account(c, n, leaf);
    jsc_token *t = p->tokens, origin = {NULL, 0};
    if (leaf && n > 0) {
        origin = *t++;
        n--;
    }
    if (add ? n != 2 && n != 4 : n != 2 && n != 3) {
        silent(c);
        return;
    }
    if (!jsc_subject_valid(t[1].p, t[1].n, 0)) {
        jsc_out_err(c, "Invalid Subject", NULL, 0);
        return;
    }
    int queue = n > 2, may = 1;
    if (JSC_UNLIKELY(c->permissions != NULL) && add && !jsc_subject_own(t[0].p, t[0].n, t[1].p, t[1].n) &&
        !(may = jsc_may_subscribe(c->permissions, t[1].p, t[1].n, NULL, 0)))
        return; /* not exported */
    int64_t weight = add && queue ? size_of(t[3].p, t[3].n) : 1;
    if (weight < 0) {
        silent(c);
        return;
    }
    size_t kn = (leaf ? origin.n + 2 : 0) + (size_t)t[0].n + 1 + t[1].n + (queue ? 1 + t[2].n : 0);
    char small[256], *key = kn <= sizeof small ? small : malloc(kn);
    jsc_account *a = key ? jsc_account_find(p, t[0].p, t[0].n, add) : NULL;
    if (!key || (add && !a)) {
        if (key != small) free(key);
        jsc_conn_end(c, "Internal Error", NULL, 0);
        return;
    }
    char *q = key;
    if (leaf) {
        *q++ = ' ';
        q = jsc_copy(q, origin.p, origin.n);
        *q++ = ' ';
    }
    q = jsc_copy(q, t[0].p, t[0].n);
    *q++ = ' ';
    q = jsc_copy(q, t[1].p, t[1].n);
    if (queue) {
        *q++ = ' ';
        q = jsc_copy(q, t[2].p, t[2].n);
    }
    uint64_t h = jsc_hash(key, kn);
    jsc_sub *s = jsc_conn_sub(c, key, (uint32_t)kn, h);
    if (s && add && weight > 0) {
        if (s->weight != (uint32_t)weight) {
            s->weight = (uint32_t)weight;
            jsc_match_forget(s->account, s->subject, s->subject_len);
        }
    } else if (s) {
        jsc_conn_sub_remove(c, s);
        jsc_sub_leave(s);
    } else if (add && weight > 0) {
        s = jsc_sub_new(JSC_SUB_ROUTE, a, t[1].p, t[1].n, queue ? t[2].p : NULL, queue ? t[2].n : 0, key, kn);
        if (s) {
            s->conn = c;
            s->sid_hash = (uint32_t)h;
            s->weight = (uint32_t)weight;
            if (may == JSC_MAY_PARTLY) s->flags |= JSC_SUB_PARTLY;
        }
        if (!s || jsc_conn_sub_add(c, s)) {
            jsc_sub_free(s);
            jsc_conn_end(c, "Internal Error", NULL, 0);
        } else if (jsc_sub_enter(s)) {
            jsc_conn_sub_remove(c, s);
            jsc_sub_free(s);
            jsc_conn_end(c, "Internal Error", NULL, 0);
        }
    }
    if (key != small) free(key);
}

/* RMSG, HMSG, LMSG from a peer. */
static size_t do_route_msg(jsc_conn *c, int verb, const char *op, const char *line, const char *le, const char *body,
                           const char *end) {
    jsc_plane *p = c->plane;
    int leaf = verb == V_LMSG, hdr = verb != V_RMSG;
    int n = name_account(c, split(p, line, le), leaf) - leaf;
    if (n < 3 + hdr) {
        silent(c);
        return 0;
    }
    jsc_token *t = p->tokens + leaf; /* of an LMSG's origin nothing is needed: no leaf node is connected here */
    int64_t size = size_of(t[n - 1].p, t[n - 1].n), h = hdr ? size_of(t[n - 2].p, t[n - 2].n) : 0;
    if (size < 0 || h < 0 || h > size) {
        silent(c);
        return 0;
    }
    if (size > JSC_ROUTE_PAYLOAD && size > p->o.max_payload) {
        jsc_conn_end(c, "Maximum Message Payload Exceeded", "Maximum Payload Violation", 1);
        return 0;
    }
    int last = n - 1 - hdr, lists = last > 2 && t[2].n == 1 && (*t[2].p == '+' || *t[2].p == '|') && last > 3;
    if (!lists && last > 3) {
        silent(c);
        return 0;
    }
    if (!payload_here(c, op, body, end, size)) return 0;
    size_t used = (size_t)size + 2;
    if (JSC_UNLIKELY(p->o.trace)) jsc_trace_in(c, op, (size_t)(le - op), body, (size_t)size);
    count_in(c, (size_t)size);
    jsc_account *a = c->only ? c->only : jsc_account_find(p, t[0].p, t[0].n, 0);
    if (!a) return used; /* nobody here: the interest it answers is gone */
    a->routed.in_msgs++;
    a->routed.in_bytes += (size_t)size;
    jsc_flow f = {.from = c, .size = t[n - 1].p, .size_len = t[n - 1].n};
    f.m = (jsc_msg){.account = a,
                    .subject = t[1].p,
                    .subject_len = t[1].n,
                    .headers = body,
                    .headers_len = (uint32_t)h,
                    .data = body + h,
                    .data_len = (uint32_t)(size - h),
                    .origin = c->id,
                    .origin_kind = c->kind};
    if (lists) {
        int first = *t[2].p == '+' ? 4 : 3;
        if (first == 4) {
            f.m.reply = t[3].p;
            f.m.reply_len = t[3].n;
        }
        if (first < last) {
            f.queues = t[first].p;
            f.queues_end = t[last - 1].p + t[last - 1].n;
        }
    } else {
        if (last == 3) {
            f.m.reply = t[2].p;
            f.m.reply_len = t[2].n;
        }
        const char *x = t[2].p, *y = x;
        int tidy = body - le == 2;
        for (int i = 2; i < n; i++) {
            tidy &= t[i].p == y;
            y = t[i].p + t[i].n + 1;
        }
        if (tidy && y - 1 == le && !memchr(x, '\t', (size_t)(le - x)) && (h || !hdr)) {
            f.tail = x;
            f.tail_len = (uint32_t)(body + size + 2 - x);
        }
    }
    /* The last mile of a JetStream delivery: $JS.ACK.(six dots more)...@subject shows that subject. */
    if (starts(f.m.reply, f.m.reply_len, "$JS.ACK.", 8)) {
        uint32_t dots = 0, i = 0;
        while (i < f.m.reply_len && dots < 8) dots += f.m.reply[i++] == '.';
        const char *at = dots == 8 ? memchr(f.m.reply + i, '@', f.m.reply_len - i) : NULL;
        if (at) {
            f.match = f.m.subject;
            f.match_len = f.m.subject_len;
            f.m.subject = at + 1;
            f.m.subject_len = f.m.reply_len - (uint32_t)(at + 1 - f.m.reply);
            f.m.reply_len = (uint32_t)(at - f.m.reply);
            f.tail = NULL;
            if (!f.m.subject_len) return used;
        }
    }
    if (JSC_UNLIKELY(h) && JSC_UNLIKELY(jsc_trace_asked(a, body, (size_t)h))) route_traced(c, &f);
    else jsc_route(p, &f);
    return used;
}

static void do_pong(jsc_conn *c) {
    jsc_plane *p = c->plane;
    if (c->pings_out) {
        c->rtt = p->mono - c->ping_sent > 0 ? p->mono - c->ping_sent : 1;
        c->rtt_at = p->mono;
        if (JSC_UNLIKELY(c->layer != NULL) && c->layer->packed) jsc_packed_rtt(c);
    }
    c->pings_out = 0;
    if (c->ready && !c->pong_seen) {
        c->pong_seen = 1;
        jsc_emit_text(c, JSC_EV_PONG, "", 0);
    }
}

static void do_ping(jsc_conn *c) {
    jsc_out_put(c, "PONG\r\n", 6);
    if (!c->connected || c->greeted) return;
    c->greeted = 1;
    if (!c->after_pong) return;
    jsc_out_put(c, c->after_pong, c->after_pong_len);
    free(c->after_pong);
    c->after_pong = NULL;
}

/* Verbs of one line. */
static void do_line(jsc_conn *c, int v, const char *b, const char *e) {
    jsc_plane *p = c->plane;
    while (e > b && is_blank(e[-1])) e--;
    int n = v == V_SUB || v == V_UNSUB || (v >= V_RSP && v <= V_LSM) ? split(p, b, e) : 0;
    if (n < 0) {
        jsc_conn_end(c, "Internal Error", NULL, 0);
        return;
    }
    switch (v) {
    case V_SUB: do_sub(c, n); break;
    case V_UNSUB:
        do_unsub(c, n);
        jsc_conn_sub_shrink(c);
        break;
    case V_RSP:
    case V_RSM: do_interest(c, v == V_RSP, 0, n); break;
    case V_LSP:
    case V_LSM: do_interest(c, v == V_LSP, 1, n); break;
    case V_PING: do_ping(c); break;
    case V_PONG: do_pong(c); break;
    case V_CONNECT:
        if (!c->first_rtt) c->first_rtt = p->unix_ns > c->start_unix ? p->unix_ns - c->start_unix : 1;
        c->waiting = c->kind == JSC_CONN_CLIENT;
        jsc_emit_text(c, JSC_EV_CONNECT, b, (size_t)(e - b));
        break;
    case V_INFO:
        c->waiting = !c->ready; /* a client, or a route: what follows may be compressed */
        jsc_emit_text(c, JSC_EV_INFO, b, (size_t)(e - b));
        break;
    case V_LINK:
        c->waiting = 1;
        jsc_emit_text(c, JSC_EV_LINK, b, (size_t)(e - b));
        break;
    case V_ERR:
        jsc_emit_text(c, JSC_EV_ERROR, b, (size_t)(e - b));
        jsc_conn_end(c, "Parse Error", NULL, 1);
        break;
    default: /* +OK, A+, A-: nothing to do here */ break;
    }
}

size_t jsc_parse(jsc_conn *c, const char *buf, size_t n) {
    const char *p = buf, *end = buf + n;
    jsc_plane *pl = c->plane;
    size_t limit = (size_t)pl->o.max_control_line * (c->kind == JSC_CONN_CLIENT ? 1 : 16);
    uint8_t kind = c->kind;
    uint64_t enough = pl->work + JSC_WORK_CONN;
    while (p < end && !jsc_conn_stopped(c) && c->kind == kind) {
        if (JSC_UNLIKELY(pl->work >= enough)) {
            c->unfinished = 1;
            break;
        }
        uint32_t four = 0;
        int v;
        if (JSC_LIKELY(end - p >= 4)) memcpy(&four, p, 4);
        if (kind == JSC_CONN_CLIENT && four == JSC_VERB_PUB && !c->skip_line) {
            const char *to = jsc_express(c, p, end, enough);
            if (to != p) {
                p = to;
                continue;
            }
        } else if (kind == JSC_CONN_ROUTE && four == JSC_VERB_RMSG && c->ready && !c->skip_line) {
            const char *to = jsc_express_routed(c, p, end, enough);
            if (to != p) {
                p = to;
                continue;
            }
        }
        pl->work++;
        if (c->skip_line) {
            v = c->skip_line - 1;
        } else {
            if (JSC_UNLIKELY(c->fresh) && *p != 'C' && *p != 'c' && !jsc_conn_enter(c)) break;
            if (kind == JSC_CONN_CLIENT && four == JSC_VERB_PUB) v = V_PUB;
            else v = find_verb(c, p, (size_t)(end - p));
        }
        if (v == V_NONE) {
            unknown(c);
            break;
        }
        if (v == V_MORE) break;
        if (JSC_UNLIKELY(kind == JSC_CONN_ROUTE && !c->ready) && v >= V_RSP && v <= V_LMSG) {
            c->held = 1; /* the host has yet to decide whether this is a peer */
            break;
        }
        const char *arg = c->skip_line ? p : p + verbs[v].len, *first = arg;
        if (verbs[v].flags & IGNORES) {
            const char *lf = memchr(arg, '\n', (size_t)(end - arg));
            if (!lf) { /* the rest of the line means nothing, however long: forget it as it comes */
                c->skip_line = (uint8_t)(v + 1);
                return n;
            }
            c->skip_line = 0;
            if (JSC_UNLIKELY(pl->o.trace)) jsc_trace_in(c, verbs[v].text, verbs[v].len, NULL, 0);
            do_line(c, v, arg, arg);
            p = lf + 1;
            continue;
        }
        while (first < end && is_blank(*first)) first++;
        if (JSC_UNLIKELY((size_t)(first - arg) > 2 * limit)) first = end;
        /* The first byte of the arguments is one of them whatever it is: a line ends at a later LF. */
        const char *lf = end - first > 1 ? memchr(first + 1, '\n', (size_t)(end - first) - 1) : NULL,
                   *le = lf ? lf : end;
        if (le > first + 1 && le[-1] == '\r') le--;
        else if (lf && JSC_UNLIKELY(le > first + 1 && memchr(first + 1, '\r', (size_t)(le - first) - 1)))
            le--; /* a CR anywhere takes the last byte of a line that ends in LF alone */
        if (JSC_UNLIKELY((size_t)(le - first) > limit || (size_t)(first - arg) > 2 * limit)) {
            jsc_conn_end(c, "Maximum Control Line Exceeded", "maximum control line exceeded", 1);
            break;
        }
        if (!lf) break;
        const char *body = lf + 1;
        if (JSC_UNLIKELY(v == V_HMSG && kind == JSC_CONN_CLIENT)) {
            unknown(c);
            break;
        }
        if (v == V_PUB || v == V_HPUB || (v >= V_RMSG && v != V_LINK)) {
            size_t k =
                v <= V_HPUB ? do_pub(c, v == V_HPUB, p, arg, le, body, end) : do_route_msg(c, v, p, arg, le, body, end);
            if (!k) break;
            p = body + k;
            continue;
        }
        if (JSC_UNLIKELY(pl->o.trace)) jsc_trace_in(c, p, (size_t)(le - p), NULL, 0);
        p = body;
        do_line(c, v, first, le);
    }
    return c->closing ? n : (size_t)(p - buf);
}
