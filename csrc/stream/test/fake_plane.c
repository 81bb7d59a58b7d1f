#include "fake_plane.h"

struct jsc_sub {
    jsc_sub *next;
    char *subject;
    jsc_deliver_fn fn;
    void *ctx;
    int dead;
};
struct jsc_account {
    int unused;
};
struct jsc_plane {
    jsc_sub *subs;
    jsc_account account;
    int64_t mono, unix_ns;
    jsc_turn_fn hook;
    void *hook_ctx;
    void (*store)(void *);
    void *store_ctx;
    fake_got *got;
    int n, cap, depth;
    struct {
        int type;
        uint64_t a, b;
    } events[4096];
    int nevents;
};

jsc_plane *fake_plane_new(void) {
    jsc_plane *p = calloc(1, sizeof *p);
    p->mono = 1000000000;
    p->unix_ns = 1700000000000000000ll;
    return p;
}
void jsc_plane_free(jsc_plane *p) {
    fake_clear(p);
    while (p->subs) {
        jsc_sub *s = p->subs;
        p->subs = s->next;
        free(s->subject);
        free(s);
    }
    free(p->got);
    free(p);
}
jsc_account *jsc_plane_account(jsc_plane *p, const char *name, size_t n) { return &p->account; }
void fake_clock(jsc_plane *p, int64_t mono, int64_t unix_ns) { p->mono = mono, p->unix_ns = unix_ns; }
void jsc_plane_spend(jsc_plane *p, uint64_t deliveries) {}
int64_t jsc_plane_mono(const jsc_plane *p) { return p->mono; }
int64_t jsc_plane_unix(const jsc_plane *p) { return p->unix_ns; }
int jsc_plane_watch(jsc_plane *p, int fd, uint32_t mask) { return JSC_OK; }
int jsc_plane_watch_call(jsc_plane *p, int fd, void (*fn)(void *), void *ctx) {
    p->store = fn;
    p->store_ctx = ctx;
    return JSC_OK;
}
int jsc_plane_hook(jsc_plane *p, jsc_turn_fn fn, void *ctx) {
    p->hook = fn;
    p->hook_ctx = ctx;
    return JSC_OK;
}
void fake_store(jsc_plane *p) { p->store(p->store_ctx); }
int64_t fake_turn(jsc_plane *p) { return p->hook(p->hook_ctx, p->mono, p->unix_ns); }

static char *text(const char *s, size_t n) {
    char *p = malloc(n + 1);
    if (n) memcpy(p, s, n);
    p[n] = 0;
    return p;
}
int jsc_subscribe_call(jsc_plane *p, jsc_account *a, const char *subject, size_t n, const char *queue, size_t qn,
                       int flags, jsc_deliver_fn fn, void *ctx, jsc_sub **out) {
    jsc_sub *s = calloc(1, sizeof *s);
    s->subject = text(subject, n);
    s->fn = fn;
    s->ctx = ctx;
    s->next = p->subs;
    p->subs = s;
    if (out) *out = s;
    return JSC_OK;
}
void jsc_unsubscribe(jsc_plane *p, jsc_sub *x) {
    x->dead = 1;
    if (p->depth) return;
    for (jsc_sub **s = &p->subs; *s;) {
        if ((*s)->dead) {
            jsc_sub *d = *s;
            *s = d->next;
            free(d->subject);
            free(d);
        } else {
            s = &(*s)->next;
        }
    }
}
void fake_listen(jsc_plane *p, const char *subject) {
    jsc_subscribe_call(p, &p->account, subject, strlen(subject), NULL, 0, 0, NULL, NULL, NULL);
}
void fake_deaf(jsc_plane *p, const char *subject) {
    for (jsc_sub *s = p->subs; s; s = s->next)
        if (!s->fn && !strcmp(s->subject, subject)) {
            jsc_unsubscribe(p, s);
            return;
        }
}
int fake_inbox(jsc_plane *p, const fake_got **out) {
    if (out) *out = p->got;
    return p->n;
}
void fake_clear(jsc_plane *p) {
    for (int i = 0; i < p->n; i++) {
        free(p->got[i].subject);
        free(p->got[i].reply);
        free(p->got[i].headers);
        free(p->got[i].data);
        free(p->got[i].deliver);
    }
    p->n = 0;
}
static int route(jsc_plane *p, const char *to, size_t n, const jsc_msg *m) {
    int took = 0;
    p->depth++;
    for (jsc_sub *s = p->subs; s; s = s->next) {
        if (s->dead || !jsc_subject_matches(s->subject, strlen(s->subject), to, n)) continue;
        took++;
        if (s->fn) {
            s->fn(s->ctx, m);
            continue;
        }
        if (p->n == p->cap) p->got = realloc(p->got, (size_t)(p->cap = p->cap ? p->cap * 2 : 64) * sizeof *p->got);
        p->got[p->n++] = (fake_got){text(m->subject, m->subject_len), text(m->reply, m->reply_len),
                                    text(m->headers, m->headers_len), text(m->data, m->data_len), text(to, n)};
    }
    p->depth--;
    return took;
}
int jsc_publish(jsc_plane *p, const jsc_msg *m) { return route(p, m->subject, m->subject_len, m); }
int jsc_deliver(jsc_plane *p, const char *d, size_t n, const jsc_msg *m, int *busy) {
    *busy = 0;
    return route(p, d, n, m);
}
int jsc_interest(jsc_plane *p, jsc_account *a, const char *subject, size_t n) {
    int k = 0;
    for (jsc_sub *s = p->subs; s; s = s->next)
        k += !s->dead && jsc_subject_matches(s->subject, strlen(s->subject), subject, n);
    return k;
}
void fake_pub(jsc_plane *p, const char *subject, const char *reply, const char *headers, const char *data) {
    jsc_msg m = {.account = &p->account, .subject = subject, .subject_len = (uint32_t)strlen(subject)};
    m.reply = reply;
    m.reply_len = reply ? (uint32_t)strlen(reply) : 0;
    m.headers = headers;
    m.headers_len = headers ? (uint32_t)strlen(headers) : 0;
    m.data = data;
    m.data_len = data ? (uint32_t)strlen(data) : 0;
    m.origin = 7;
    jsc_publish(p, &m);
}
int jsc_plane_emit(jsc_plane *p, const jsc_event *e) {
    if (p->nevents < 4096) {
        p->events[p->nevents].type = e->type;
        p->events[p->nevents].a = e->a;
        p->events[p->nevents++].b = e->b;
    }
    return JSC_OK;
}
int fake_event(jsc_plane *p, int type, uint64_t *a, uint64_t *b) {
    for (int i = 0; i < p->nevents; i++)
        if (p->events[i].type == type) {
            *a = p->events[i].a;
            *b = p->events[i].b;
            memmove(&p->events[i], &p->events[i + 1], (size_t)(p->nevents - i - 1) * sizeof p->events[0]);
            p->nevents--;
            return 1;
        }
    return 0;
}
int jsc_subject_matches(const char *p, size_t pn, const char *s, size_t n) {
    const char *pe = p + pn, *se = s + n;
    for (;;) {
        const char *pd = memchr(p, '.', (size_t)(pe - p)), *sd = memchr(s, '.', (size_t)(se - s));
        size_t pl = (size_t)((pd ? pd : pe) - p), sl = (size_t)((sd ? sd : se) - s);
        if (pl == 1 && *p == '>') return 1;
        if (!(pl == 1 && *p == '*') && (pl != sl || memcmp(p, s, pl))) return 0;
        if (!pd || !sd) return !pd && !sd;
        p = pd + 1;
        s = sd + 1;
    }
}
int jsc_subject_valid(const char *s, size_t n, int literal) {
    if (!n) return 0;
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || (literal && (s[i] == '*' || s[i] == '>'))) return 0;
    return 1;
}
