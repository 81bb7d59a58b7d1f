/* Connections: their table, reading, pauses, pings, closing. */
#include "layer.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND 1000000000LL

/* An id is generation << 24 | slot + 1: an old id finds nothing, however soon its slot is used again. */
jsc_conn *jsc_conn_find(jsc_plane *p, uint64_t id) {
    uint32_t i = (uint32_t)(id & 0xffffff) - 1;
    return i < p->conns_n && p->conns[i] && p->conns[i]->id == id ? p->conns[i] : NULL;
}

static int slot_for(jsc_plane *p, uint32_t *slot) {
    if (p->free_n) {
        *slot = p->free_slots[--p->free_n];
        return 0;
    }
    if (p->conns_n == p->conns_cap) {
        uint32_t cap = p->conns_cap ? p->conns_cap * 2 : 64;
        if (cap > 0xffffff) return -EMFILE;
        jsc_conn **v = realloc(p->conns, cap * sizeof *v);
        if (v) p->conns = v;
        uint64_t *g = realloc(p->gens, cap * sizeof *g);
        if (g) p->gens = g;
        uint32_t *f = realloc(p->free_slots, cap * sizeof *f);
        if (f) p->free_slots = f;
        if (!v || !g || !f) return -ENOMEM;
        p->conns_cap = cap;
    }
    *slot = p->conns_n;
    p->gens[*slot] = 1;
    p->conns[p->conns_n++] = NULL;
    return 0;
}

int jsc_accept(int listener, char address[JSC_ADDRESS_MAX], uint16_t *port) {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } from;
    socklen_t n = sizeof from;
    memset(&from, 0, sizeof from);
    int fd = accept4(listener, &from.any, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
    const struct in6_addr *v6 = &from.v6.sin6_addr;
    address[0] = 0;
    *port = 0;
    if (from.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &from.v4.sin_addr, address, JSC_ADDRESS_MAX);
        *port = ntohs(from.v4.sin_port);
    } else if (from.any.sa_family == AF_INET6) {
        if (IN6_IS_ADDR_V4MAPPED(v6)) inet_ntop(AF_INET, v6->s6_addr + 12, address, JSC_ADDRESS_MAX);
        else inet_ntop(AF_INET6, v6, address, JSC_ADDRESS_MAX);
        *port = ntohs(from.v6.sin6_port);
    }
    return fd;
}

int jsc_conn_adopt(jsc_plane *p, int fd, int kind, const char *greeting, size_t n, uint64_t *id) {
    uint32_t slot;
    if (kind < JSC_CONN_CLIENT || kind > JSC_CONN_LINK) return JSC_EINVAL;
    int rc = slot_for(p, &slot), on = 1;
    if (rc) return rc;
    jsc_conn *c = calloc(1, sizeof *c);
    if (!c) {
        p->free_slots[p->free_n++] = slot;
        return -ENOMEM;
    }
    c->id = p->gens[slot]++ << 24 | (slot + 1);
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = c->id};
    if (epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
        rc = -errno;
        free(c);
        p->free_slots[p->free_n++] = slot;
        return rc;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* not a TCP socket: no matter */
    c->plane = p;
    c->fd = fd;
    c->mask = EPOLLIN;
    c->kind = (uint8_t)kind;
    c->link_version = 1; /* until its ends agree on another one */
    c->verbose = c->pedantic = c->echo = kind == JSC_CONN_CLIENT;
    c->account = p->default_account;
    c->fresh = kind == JSC_CONN_CLIENT;
    c->max_subs = c->max_payload = UINT32_MAX;
    c->hint = c->verdict_hint = UINT32_MAX;
    c->active = p->mono;
    c->active_unix = c->start_unix = p->unix_ns;
    c->next_ping = kind == JSC_CONN_CLIENT && !p->o.auth_required ? p->mono + p->o.ping_interval_ns : INT64_MAX;
    jsc_timer_by(p, c->next_ping);
    p->conns[slot] = c;
    if (kind == JSC_CONN_CLIENT) p->stats.clients++;
    if (n) jsc_out_put(c, greeting, n);
    *id = c->id;
    return JSC_OK;
}

void jsc_conn_mask(jsc_conn *c) {
    uint32_t want = (jsc_conn_stopped(c) ? 0 : EPOLLIN) | (c->blocked ? EPOLLOUT : 0);
    if (want == c->mask || c->fd < 0) return;
    struct epoll_event ev = {.events = want, .data.u64 = c->id};
    if (!epoll_ctl(c->plane->epoll, EPOLL_CTL_MOD, c->fd, &ev)) c->mask = want;
}

void jsc_conn_end(jsc_conn *c, const char *reason, const char *err, int flush) {
    if (c->closing) return;
    if (err) {
        jsc_out_err(c, err, NULL, 0);
        if (c->closing) return;
    }
    snprintf(c->reason_text, sizeof c->reason_text, "%s", reason);
    c->closing = 1;
    c->flush_last = (uint8_t)flush;
    jsc_plane *p = c->plane;
    /* What a lost server means to its groups does not wait for a crowd of clients. */
    jsc_conn **at = c->kind == JSC_CONN_CLIENT ? p->closing_tail : &p->closing;
    if (!(c->next_closing = *at)) p->closing_tail = &c->next_closing;
    *at = c;
}

/* ---- subscriptions by sid ---- */
static uint32_t sub_slot(const jsc_conn *c, const char *sid, uint32_t n, uint64_t h) {
    uint32_t mask = c->subs_cap - 1, i = (uint32_t)h & mask;
    while (c->subs[i] && !(c->subs[i]->sid_hash == (uint32_t)h && c->subs[i]->sid_len == n &&
                           !memcmp(jsc_sub_sid(c->subs[i]), sid, n)))
        i = (i + 1) & mask;
    return i;
}

jsc_sub *jsc_conn_sub(jsc_conn *c, const char *sid, uint32_t n, uint64_t h) {
    return c->subs_n ? c->subs[sub_slot(c, sid, n, h)] : NULL;
}

int jsc_conn_sub_add(jsc_conn *c, jsc_sub *s) {
    if ((c->subs_n + 1) * 4 > c->subs_cap * 3) {
        uint32_t cap = c->subs_cap ? c->subs_cap * 2 : 4;
        jsc_sub **v = calloc(cap, sizeof *v);
        if (!v) return -ENOMEM;
        for (uint32_t i = 0; i < c->subs_cap; i++) {
            if (!c->subs[i]) continue;
            uint32_t j = (uint32_t)c->subs[i]->sid_hash & (cap - 1);
            while (v[j]) j = (j + 1) & (cap - 1);
            v[j] = c->subs[i];
        }
        free(c->subs);
        c->subs = v;
        c->subs_cap = cap;
    }
    c->subs[sub_slot(c, jsc_sub_sid(s), s->sid_len, s->sid_hash)] = s;
    c->subs_n++;
    return 0;
}

void jsc_conn_sub_remove(jsc_conn *c, jsc_sub *s) {
    uint32_t mask = c->subs_cap - 1, i = sub_slot(c, jsc_sub_sid(s), s->sid_len, s->sid_hash);
    c->subs[i] = NULL;
    c->subs_n--;
    for (uint32_t j = (i + 1) & mask; c->subs[j]; j = (j + 1) & mask) {
        uint32_t home = (uint32_t)c->subs[j]->sid_hash & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            c->subs[i] = c->subs[j];
            c->subs[j] = NULL;
            i = j;
        }
    }
}

/* A table that is nearly empty after a burst gives its room back. Not while somebody walks over it. */
void jsc_conn_sub_shrink(jsc_conn *c) {
    uint32_t cap = c->subs_cap;
    if (cap <= 64 || c->subs_n * 8 > cap) return;
    jsc_sub **old = c->subs, **v = calloc(cap / 4, sizeof *v);
    if (!v) return;
    c->subs = v;
    c->subs_cap = cap / 4;
    for (uint32_t i = 0; i < cap; i++)
        if (old[i]) v[sub_slot(c, jsc_sub_sid(old[i]), old[i]->sid_len, old[i]->sid_hash)] = old[i];
    c->plane->freed += (cap - cap / 4) * sizeof *v;
    free(old);
}

int jsc_conn_drop_subs(jsc_conn *c, uint32_t *most) {
    if (!*most && c->subs_n) return 0;
    if (!c->drop_at && c->subs_n > 256) /* cheaper than forgetting them one by one; the caches fill again */
        for (jsc_account *a = c->plane->all_accounts; a; a = a->next)
            if (c->kind == JSC_CONN_ROUTE || a == c->account) jsc_match_clear(a);
    for (; c->drop_at < c->subs_cap; c->drop_at++) {
        jsc_sub *s = c->subs[c->drop_at];
        if (!s) continue;
        if (!*most) return 0;
        uint64_t before = c->plane->work;
        jsc_sub_leave(s);
        if (*most == UINT32_MAX) continue; /* all of them */
        uint64_t cost = 1 + (c->plane->work - before) / 8; /* a long subject takes its nodes along */
        *most = *most > cost ? *most - (uint32_t)cost : 0;
    }
    c->plane->freed += c->subs_cap * sizeof *c->subs;
    free(c->subs);
    c->subs = NULL;
    c->subs_n = c->subs_cap = c->drop_at = 0;
    return 1;
}

/* ---- who it is ---- */
static uint32_t bound(uint32_t v) { return v == JSC_LIMIT_ZERO ? 0 : v ? v : UINT32_MAX; }

static void leave_account(jsc_conn *c) {
    if (c->counted) c->account->clients--;
    c->counted = 0;
}

static void take_permissions(jsc_conn *c, jsc_permissions *x) {
    jsc_permissions *old = c->permissions;
    c->permissions = jsc_permissions_keep(x);
    c->track = (uint8_t)jsc_permissions_track(x);
    c->verdict_hint = UINT32_MAX;
    jsc_permissions_release(old);
    if (!c->track) jsc_replies_free(c);
}

/* Puts a client into an account, with what holds for it there: 0, or it has to close. */
static int settle(jsc_conn *c, jsc_account *a, jsc_permissions *x, uint32_t max_subs, uint32_t max_payload) {
    leave_account(c);
    if (a->clients >= a->max_clients) {
        jsc_conn_end(c, "Maximum Account Connections Exceeded", "maximum account active connections exceeded", 1);
        return JSC_EFULL;
    }
    a->clients++;
    c->counted = 1;
    c->account = a;
    c->fresh = 0;
    c->max_subs = bound(max_subs);
    c->max_payload = bound(max_payload);
    c->hint = UINT32_MAX;
    jsc_replies_free(c);
    take_permissions(c, x);
    return 0;
}

int jsc_conn_enter(jsc_conn *c) {
    jsc_plane *p = c->plane;
    if (p->o.auth_required || c->must_connect) {
        jsc_conn_end(c, "Authentication Failure", "Authorization Violation", 1);
        return 0;
    }
    return !settle(c, p->default_account, p->default_permissions, p->default_max_subs, p->default_max_payload);
}

int jsc_plane_default(jsc_plane *p, const jsc_conn_options *o) {
    jsc_permissions *old = p->default_permissions;
    if (o && !o->account) return JSC_EINVAL;
    p->o.auth_required = !o;
    p->default_permissions = o ? jsc_permissions_keep(o->permissions) : NULL;
    if (o) {
        p->default_account = o->account;
        p->default_max_subs = o->max_subs;
        p->default_max_payload = o->max_payload;
    }
    jsc_permissions_release(old);
    return JSC_OK;
}

int jsc_conn_default(jsc_plane *p, uint64_t id, const jsc_conn_options *o) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (c->kind != JSC_CONN_CLIENT || !c->fresh || (o && !o->account)) return JSC_EINVAL;
    c->must_connect = !o;
    if (o) {
        if (settle(c, o->account, o->permissions, o->max_subs, o->max_payload)) return JSC_EFULL;
        if (c->next_ping == INT64_MAX) jsc_conn_first_ping(c, 2 * SECOND);
    }
    return JSC_OK;
}

int jsc_conn_limit(jsc_plane *p, uint64_t id, uint32_t max_subs, uint32_t max_payload) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (c->kind != JSC_CONN_CLIENT) return JSC_EINVAL;
    c->max_subs = bound(max_subs);
    c->max_payload = bound(max_payload);
    return JSC_OK;
}

int jsc_conn_ping_every(jsc_plane *p, uint64_t id, int64_t interval_ns) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    c->ping_every = interval_ns;
    if (c->next_ping != INT64_MAX && c->next_ping > p->mono + interval_ns) jsc_conn_first_ping(c, interval_ns);
    return JSC_OK;
}

static const char *const denials[] = {
    [JSC_DENIED_PUBLISH] = "Permissions Violation for Publish to",
    [JSC_DENIED_SUBSCRIBE] = "Permissions Violation for Subscription to",
    [JSC_DENIED_REPLY] = "Permissions Violation for Publish with Reply of",
};

static size_t denial_room(size_t n, const jsc_token *queue, const jsc_token *sid) {
    return 128 + 4 * (n + (queue ? queue->n : 0) + (sid ? sid->n : 0));
}

/* The -ERR up to its closing quote. */
static char *put_denial(char *q, int what, const char *s, size_t n, const jsc_token *queue) {
    if (what == JSC_DENIED_MAX_SUBS) return jsc_copy(q, "-ERR 'maximum subscriptions exceeded", 36);
    q = jsc_copy(q, "-ERR '", 6);
    q = jsc_copy(q, denials[what], strlen(denials[what]));
    *q++ = ' ';
    q = jsc_put_quoted(q, s, n);
    if (!queue || !queue->n) return q;
    q = jsc_copy(q, " using queue ", 13);
    return jsc_put_quoted(q, queue->p, queue->n);
}

void jsc_conn_denied(jsc_conn *c, int what, const char *s, size_t n, const jsc_token *queue, const jsc_token *sid) {
    jsc_plane *p = c->plane;
    char *q = jsc_out_room(c, denial_room(n, queue, sid));
    if (!q) return;
    q = put_denial(q, what, s, n, queue);
    jsc_out_done(c, jsc_copy(q, "'\r\n", 3));
    /* The log hears of each, but not more than it can take of one that does nothing else. */
    if (p->mono - c->denied_at > SECOND) {
        c->denied_at = p->mono;
        c->denials = 0;
    }
    if (c->denials >= JSC_DENIALS) {
        c->undenied++;
        return;
    }
    c->denials++;
    jsc_event e = {.type = JSC_EV_DENIED, .conn_kind = c->kind, .conn = c->id, .a = (uint64_t)what, .b = c->undenied};
    e.subject = s;
    e.subject_len = (uint32_t)n;
    if (queue) {
        e.reply = queue->p;
        e.reply_len = queue->n;
    }
    if (sid) {
        e.data = sid->p;
        e.data_len = sid->n;
    }
    c->undenied = 0;
    jsc_plane_emit(p, &e);
}

int jsc_conn_permit(jsc_plane *p, uint64_t id, jsc_permissions *x) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (c->kind != JSC_CONN_CLIENT) return JSC_EINVAL;
    take_permissions(c, x);
    for (uint32_t i = 0; i < c->subs_cap;) {
        jsc_sub *s = c->subs[i];
        int may = !s ? 1 : !x ? 1 : jsc_may_subscribe(x, s->subject, s->subject_len, jsc_sub_queue(s), s->queue_len);
        if (s) s->flags = (uint8_t)((s->flags & ~JSC_SUB_PARTLY) | (may == JSC_MAY_PARTLY ? JSC_SUB_PARTLY : 0));
        if (may) {
            i++;
            continue;
        }
        jsc_token queue = {jsc_sub_queue(s), s->queue_len}, sid = {jsc_sub_sid(s), s->sid_len};
        char *q = jsc_out_room(c, denial_room(s->subject_len, &queue, &sid));
        if (q) {
            q = put_denial(q, JSC_DENIED_SUBSCRIBE, s->subject, s->subject_len, &queue);
            q = jsc_copy(q, " (sid ", 6);
            q = jsc_put_quoted(q, sid.p, sid.n);
            jsc_out_done(c, jsc_copy(q, ")'\r\n", 4));
        }
        jsc_conn_sub_remove(c, s); /* the next one may have moved here */
        jsc_sub_leave(s);
    }
    return JSC_OK;
}

static void unlist(jsc_conn **head, jsc_conn ***tail, jsc_conn *c, size_t next) {
    for (jsc_conn **l = head; *l; l = (jsc_conn **)((char *)*l + next)) {
        if (*l != c) continue;
        *l = *(jsc_conn **)((char *)c + next);
        if (tail && *tail == (jsc_conn **)((char *)c + next)) *tail = l;
        return;
    }
}

/* Everything of a closing connection but its subscriptions: its last words, the socket, its place in the table. */
static void part(jsc_conn *c) {
    jsc_plane *p = c->plane;
    c->parted = 1;
    if (c->ready) {
        for (uint32_t i = 0; i < p->routes_n; i++)
            if (p->routes[i] == c) p->routes[i] = p->routes[--p->routes_n];
        p->stats.routes = p->routes_n;
    }
    jsc_emit_closed(c);
    jsc_count_gone(c);
    if (c->flush_last && !c->blocked) jsc_out_send(c);
    if (c->layer) jsc_layer_close(c);
    if (c->dirty) {
        unlist(&p->dirty, NULL, c, offsetof(jsc_conn, next_dirty));
        unlist(&p->late, &p->late_tail, c, offsetof(jsc_conn, next_dirty));
        for (int sent = 0; sent < 2; sent++)
            unlist(&p->later[sent], &p->later_tail[sent], c, offsetof(jsc_conn, next_dirty));
    }
    if (c->queued) unlist(&p->run, &p->run_tail, c, offsetof(jsc_conn, next_run));
    if (c->slow_down) unlist(&p->paused, NULL, c, offsetof(jsc_conn, next_paused));
    if (c->kind == JSC_CONN_CLIENT) p->stats.clients--;
    leave_account(c);
    jsc_permissions_release(c->permissions);
    c->permissions = NULL;
    jsc_replies_free(c);
    epoll_ctl(p->epoll, EPOLL_CTL_DEL, c->fd, NULL);
    /* Unread input would turn the close into a reset, and the peer would lose the -ERR just sent. */
    if (c->flush_last) {
        shutdown(c->fd, SHUT_WR);
        for (int i = 0; i < 4 && recv(c->fd, p->read_buf, JSC_READ_BYTES, MSG_DONTWAIT) > 0;) i++;
    }
    close(c->fd);
    uint32_t slot = (uint32_t)(c->id & 0xffffff) - 1;
    p->conns[slot] = NULL;
    p->free_slots[p->free_n++] = slot;
    jsc_out_free(c);
    jsc_link_free(c);
    free(c->in.p);
    free(c->after_pong);
    free(c->apart);
}

static void drop_all_subs(jsc_conn *c) {
    uint32_t most = UINT32_MAX;
    jsc_conn_drop_subs(c, &most);
}

/* Servers, then clients as they began to close. */
void jsc_conn_reap(jsc_plane *p, uint32_t most) {
    if (p->depth) return;
    uint32_t subs = JSC_CLOSE_SUBS;
    for (jsc_conn *c, **at = &p->closing; (c = *at);) {
        if (!c->parted && !most) return;
        if (!c->parted) {
            part(c);
            most--;
        }
        int done = jsc_conn_drop_subs(c, &subs);
        while (*at != c) at = &(*at)->next_closing; /* that may have ended others */
        if (!done) {
            at = &c->next_closing;
            continue;
        }
        *at = c->next_closing;
        if (p->closing_tail == &c->next_closing) p->closing_tail = at;
        free(c);
    }
}

/* ---- reading ---- */
/* Keeps what was not taken. `from` lies in the shared buffer or in c->in itself. */
static void keep(jsc_conn *c, const char *from, size_t n) {
    if (!n) {
        c->in.len = 0;
        if (c->in.cap > 1024) {
            c->plane->freed += c->in.cap;
            free(c->in.p);
            memset(&c->in, 0, sizeof c->in);
        }
        return;
    }
    size_t want = n;
    if (c->need > JSC_READ_BYTES / 2 && c->need > n) want = c->need + 4096; /* read the rest straight behind it */
    int own = c->in.p && from >= c->in.p && from <= c->in.p + c->in.cap;
    if (own) memmove(c->in.p, from, n);
    if (want > c->in.cap) {
        char *q = realloc(c->in.p, want);
        if (!q) {
            jsc_conn_end(c, "Read Error", NULL, 0);
            c->in.len = 0;
            return;
        }
        c->in.p = q;
        c->in.cap = want;
    }
    if (!own) memcpy(c->in.p, from, n);
    c->in.len = n;
}

static void feed(jsc_conn *c, const char *b, size_t n) {
    c->need = 0;
    size_t at = 0;
    uint8_t kind;
    do { /* a connection that became a link goes on in the other language */
        kind = c->kind;
        size_t k = kind == JSC_CONN_LINK ? jsc_link_parse(c, b + at, n - at) : jsc_parse(c, b + at, n - at);
        at += k;
    } while (kind != c->kind && at < n && !jsc_conn_stopped(c));
    c->grace = c->grace > at ? c->grace - at : 0;
    if (c->closing) return;
    keep(c, b + at, n - at);
    if (JSC_UNLIKELY(c->unfinished)) { /* others first */
        c->unfinished = 0;
        jsc_conn_resume(c);
    }
}

static void read_once(jsc_conn *c) {
    jsc_plane *p = c->plane;
    char *b = p->read_buf;
    size_t cap = JSC_READ_BYTES, have = c->in.len;
    if (have && (c->need > JSC_READ_BYTES / 2 || have > JSC_READ_BYTES / 2)) {
        size_t least = c->layer ? JSC_LAYER_ROOM : 4096;
        if (c->in.cap - have < least) {
            size_t want = (c->need > have ? c->need : have * 2) + least;
            char *q = realloc(c->in.p, want);
            if (!q) {
                jsc_conn_end(c, "Read Error", NULL, 0);
                return;
            }
            c->in.p = q;
            c->in.cap = want;
        }
        b = c->in.p;
        cap = c->in.cap;
        if (cap - have > JSC_READ_BYTES) cap = have + JSC_READ_BYTES;
    } else if (have) {
        memcpy(b, c->in.p, have);
    }
    ssize_t k = JSC_UNLIKELY(c->layer != NULL) ? jsc_layer_recv(c, b + have, cap - have)
                                               : recv(c->fd, b + have, cap - have, MSG_DONTWAIT);
    if (k <= 0) {
        if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
        jsc_conn_end(c, k ? "Read Error" : "Client Closed", NULL, 0);
        return;
    }
    c->active = p->mono;
    c->active_unix = p->unix_ns;
    if (c->need && have + (size_t)k < c->need) { /* still inside one large operation: no need to look again */
        if (b == c->in.p) {
            c->in.len = have + (size_t)k;
            return;
        }
    }
    feed(c, b, have + (size_t)k);
}

void jsc_conn_read(jsc_conn *c) {
    read_once(c);
    if (JSC_UNLIKELY(c->more)) jsc_conn_resume(c); /* its layer holds more: at the next turn */
}

void jsc_conn_resume(jsc_conn *c) {
    if (c->closing || jsc_conn_stopped(c)) return;
    if ((c->in.len || c->more) && !c->queued) {
        c->queued = 1;
        c->next_run = NULL;
        *c->plane->run_tail = c;
        c->plane->run_tail = &c->next_run;
    }
    jsc_conn_mask(c);
}

/* Those that hold input, each once, until half of the turn's work is done: the other half is for what arrives. */
void jsc_conn_run(jsc_plane *p) {
    jsc_conn *list = p->run, **tail = p->run_tail;
    uint64_t enough = p->work + JSC_WORK_TURN / 2;
    p->run = NULL;
    p->run_tail = &p->run;
    while (list && p->work < enough) {
        jsc_conn *c = list;
        list = c->next_run;
        c->queued = 0;
        if (!jsc_conn_stopped(c) && c->in.len) feed(c, c->in.p, c->in.len);
        if (c->more && !c->queued && !jsc_conn_stopped(c)) jsc_conn_read(c);
        jsc_conn_mask(c);
    }
    if (!list) return;
    *tail = p->run; /* the rest stands before those that came back */
    if (!p->run) p->run_tail = tail;
    p->run = list;
}

void jsc_conn_paused(jsc_plane *p) {
    for (jsc_conn **l = &p->paused; *l;) {
        jsc_conn *c = *l, *to = jsc_conn_find(p, c->wait_for);
        int late = p->mono >= c->pause_end;
        if (!late && to && !to->closing && jsc_pending(to) >= p->busy_lo) {
            l = &c->next_paused;
            continue;
        }
        *l = c->next_paused;
        c->slow_down = 0;
        if (late) c->grace = JSC_READ_BYTES;
        jsc_conn_resume(c);
    }
}

/* ---- pings ---- */
static int64_t ping_every(const jsc_conn *c) {
    const jsc_plane_options *o = &c->plane->o;
    return c->ping_every ? c->ping_every : c->kind == JSC_CONN_ROUTE ? o->route_ping_interval_ns : o->ping_interval_ns;
}

static void ping(jsc_conn *c) {
    jsc_plane *p = c->plane;
    int route = c->kind == JSC_CONN_ROUTE;
    int64_t every = ping_every(c);
    c->next_ping = p->mono + every;
    if (c->kind == JSC_CONN_CLIENT && p->mono - c->active < every && c->rtt && p->mono - c->rtt_at < 3600 * SECOND)
        return;
    if (c->pings_out + 1 > (route ? p->o.route_ping_max : p->o.ping_max)) {
        jsc_count_stale(c);
        jsc_conn_end(c, "Stale Connection", "Stale Connection", 1);
        return;
    }
    c->pings_out++;
    c->ping_sent = p->mono;
    jsc_out_put(c, "PING\r\n", 6);
}

void jsc_conn_timers(jsc_plane *p) {
    if (p->mono < p->next_timer) return;
    p->next_timer = INT64_MAX;
    for (uint32_t i = 0; i < p->conns_n; i++) {
        jsc_conn *c = p->conns[i];
        if (!c || c->closing) continue;
        if (p->mono >= c->next_ping && c->layer && c->layer->stage != JSC_STAGE_OPEN) jsc_layer_late(c);
        else if (p->mono >= c->next_ping) ping(c);
        if (c->write_due && p->mono >= c->write_due && !c->closing) {
            jsc_count_slow(c);
            jsc_conn_end(c, "Slow Consumer (Write Deadline)", NULL, 0);
            continue;
        }
        jsc_timer_by(p, c->next_ping);
        if (c->write_due) jsc_timer_by(p, c->write_due);
    }
}

void jsc_conn_first_ping(jsc_conn *c, int64_t after) {
    jsc_plane *p = c->plane;
    int64_t every = ping_every(c);
    if (after > every) after = every;
    p->rng ^= p->rng << 13;
    p->rng ^= p->rng >> 7;
    p->rng ^= p->rng << 17;
    c->next_ping = p->mono + after + (int64_t)(p->rng % (uint64_t)(after / 5 + 1)); /* they do not all start together */
    jsc_timer_by(p, c->next_ping);
}

/* ---- calls of the host ---- */
int jsc_conn_accept(jsc_plane *p, uint64_t id, const jsc_conn_options *o) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (c->kind != JSC_CONN_CLIENT || !c->waiting || !o->account) return JSC_EINVAL;
    char *more = NULL;
    if (o->after_pong_len && !c->greeted) {
        if (!(more = malloc(o->after_pong_len))) return -ENOMEM;
        memcpy(more, o->after_pong, o->after_pong_len);
    }
    free(c->after_pong);
    c->after_pong = more;
    c->after_pong_len = more ? o->after_pong_len : 0;
    if (c->connected || (c->subs_n && c->account != o->account)) drop_all_subs(c);
    if (settle(c, o->account, o->permissions, o->max_subs, o->max_payload)) return JSC_EFULL;
    c->verbose = o->verbose;
    c->pedantic = o->pedantic;
    c->echo = o->echo;
    c->headers = o->headers;
    c->no_responders = o->no_responders && o->headers;
    if (!c->connected) jsc_conn_first_ping(c, 2 * SECOND);
    c->connected = 1;
    c->waiting = 0;
    if (c->verbose) jsc_out_put(c, "+OK\r\n", 5);
    jsc_conn_resume(c);
    return JSC_OK;
}

int jsc_conn_go_on(jsc_plane *p, uint64_t id) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (c->kind > JSC_CONN_ROUTE || !c->waiting) return JSC_EINVAL;
    c->waiting = 0;
    jsc_conn_resume(c);
    return JSC_OK;
}

int jsc_conn_become_link(jsc_plane *p, uint64_t id, uint8_t version) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (c->ready || c->kind == JSC_CONN_INTERNAL) return JSC_EINVAL;
    int rc = jsc_link_begin(c);
    if (rc) return rc;
    drop_all_subs(c);
    if (c->kind == JSC_CONN_CLIENT) p->stats.clients--;
    leave_account(c);
    c->kind = JSC_CONN_LINK;
    c->link_version = version;
    c->waiting = 0;
    c->next_ping = INT64_MAX;
    jsc_conn_resume(c);
    return JSC_OK;
}

int jsc_conn_write(jsc_plane *p, uint64_t id, const void *b, size_t n) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (n) jsc_out_put(c, b, n);
    return JSC_OK;
}

int jsc_conn_close(jsc_plane *p, uint64_t id, const char *reason, const char *err) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    jsc_conn_end(c, reason ? reason : "", err, 1);
    return JSC_OK;
}

int jsc_conn_list(jsc_plane *p, int kind, uint64_t *ids, int max) {
    int n = 0;
    for (uint32_t i = 0; i < p->conns_n && n < max; i++)
        if (p->conns[i] && !p->conns[i]->closing && (kind < 0 || p->conns[i]->kind == kind)) ids[n++] = p->conns[i]->id;
    return n;
}
