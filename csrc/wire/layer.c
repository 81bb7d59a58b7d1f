/* The stages of a connection that is more than a socket and a parser: what is decided when, and what goes where. */
#include "ws.h"
#include "tls_context.h"
#include <errno.h>
#include <sys/socket.h>
#include <zlib.h>

static void deadline(jsc_conn *c, int64_t after) {
    c->next_ping = after > 0 ? c->plane->mono + after : INT64_MAX; /* pings begin when the connection is open */
    jsc_timer_by(c->plane, c->next_ping);
}

static void drop(jsc_conn *c) {
    jsc_layer *l = c->layer;
    jsc_tls_close(c);
    jsc_ws_free(c);
    jsc_packed_free(c);
    jsc_tls_release(l->tls);
    free(l->proxy);
    free(l->rest.p);
    free(l->host);
    free(l);
    c->layer = NULL;
}

static ssize_t nothing_yet(void) {
    errno = EAGAIN;
    return -1;
}

void jsc_layer_broken(jsc_conn *c, const char *why, const char *reason) {
    jsc_emit_text(c, JSC_EV_BROKEN, why, strlen(why));
    jsc_conn_end(c, reason, NULL, 1);
}

/* Everything in between is done: from here on it is the protocol's bytes. */
void jsc_layer_opened(jsc_conn *c) {
    jsc_layer *l = c->layer;
    l->stage = JSC_STAGE_OPEN;
    l->hold = 0;
    c->next_ping = l->ping;
    jsc_timer_by(c->plane, c->next_ping);
    if (!l->tls && !l->ws) drop(c);
    if (jsc_pending(c) && !c->blocked) jsc_out_send(c);
}

/* The stage after `stage` that this connection has. */
static void step(jsc_conn *c, int stage) {
    jsc_layer *l = c->layer;
    if (stage < JSC_STAGE_HELLO && l->tls) {
        l->stage = JSC_STAGE_HELLO;
        deadline(c, l->fallback_ns ? l->fallback_ns : l->timeout_ns);
    } else if (l->ws) {
        l->stage = JSC_STAGE_HTTP;
        l->hold = 0;
        deadline(c, l->http_ns);
    } else {
        jsc_layer_opened(c);
    }
}

static void without(jsc_conn *c) {
    jsc_tls_release(c->layer->tls);
    c->layer->tls = NULL;
    step(c, JSC_STAGE_SHAKE);
}

static int prepare(jsc_conn *c, const jsc_layer_options *o) {
    jsc_layer *l = c->layer;
    if (o->host && !(l->host = strdup(o->host))) return -ENOMEM;
    if (o->proxy && !(l->proxy = calloc(1, sizeof *l->proxy))) return -ENOMEM;
    if (o->websocket && jsc_ws_new(c)) return -ENOMEM;
    if ((l->tls = o->tls)) jsc_tls_hold(l->tls);
    l->dials = o->dials;
    l->optional = o->optional;
    l->first = o->first;
    l->timeout_ns = o->timeout_ns;
    l->fallback_ns = o->first ? o->fallback_ns : 0;
    l->http_ns = o->http_ns;
    l->ping = c->next_ping;
    l->hold = l->tls && (!o->optional || o->first);
    return JSC_OK;
}

int jsc_conn_layer(jsc_plane *p, uint64_t id, const jsc_layer_options *o) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (!o->tls && !o->proxy && !o->websocket) return JSC_OK;
    /* What came before TLS must not count as said under it. */
    if (c->layer || c->in.len || c->kind == JSC_CONN_INTERNAL || (o->websocket && jsc_pending(c))) return JSC_EINVAL;
    if (!o->first) {
        jsc_out_send(c);
        if (c->closing) return JSC_ENOTFOUND;
        if (jsc_pending(c)) return JSC_EFULL;
    }
    if (!(c->layer = calloc(1, sizeof *c->layer))) return -ENOMEM;
    int rc = prepare(c, o);
    if (!rc && o->dials) rc = jsc_tls_start(c);
    if (rc) {
        drop(c);
        return rc;
    }
    if (o->proxy) {
        c->layer->stage = JSC_STAGE_PROXY;
        deadline(c, JSC_PROXY_SECONDS * 1000000000LL);
    } else {
        step(c, JSC_STAGE_PROXY);
    }
    if (!o->dials) return JSC_OK;
    c->layer->stage = JSC_STAGE_SHAKE; /* ours is the first word */
    p->shake_turn = 0;
    jsc_tls_shake(c);
    return JSC_OK;
}

/* Reads a PROXY header, and nothing behind it. > 0: bytes of b are the protocol's after all; 0 go on; -1 with errno. */
static ssize_t proxy(jsc_conn *c, char *b, size_t cap, int *ended) {
    jsc_layer *l = c->layer;
    jsc_proxy *x = l->proxy;
    size_t used, before = x->n;
    ssize_t k = recv(c->fd, b, cap < 4096 ? cap : 4096, MSG_PEEK | MSG_DONTWAIT);
    if (k < 0) return k;
    if (!k) {
        *ended = 1;
        return 0;
    }
    int rc = jsc_proxy_take(x, (uint8_t *)b, (size_t)k, &used);
    if (rc == JSC_PROXY_NONE) used = 0; /* looked at, and left for what comes next */
    if (used && recv(c->fd, b, used, MSG_DONTWAIT) != (ssize_t)used) return -1;
    if (rc == JSC_PROXY_MORE) return nothing_yet();
    if (rc == JSC_PROXY_BAD) {
        jsc_layer_broken(c, x->why, "Protocol Violation");
        return nothing_yet();
    }
    if (rc == JSC_PROXY_DONE && x->ip[0]) {
        char text[64];
        int n = snprintf(text, sizeof text, "%s %u", x->ip, x->port);
        jsc_emit_text(c, JSC_EV_PROXY, text, (size_t)n);
    }
    if (rc == JSC_PROXY_NONE && before) {
        if (l->tls && !l->optional) {
            jsc_tls_fail(c, "tls: first record does not look like a TLS handshake");
            return nothing_yet();
        }
        memcpy(b, x->b, before);
        if (l->tls) without(c);
        else step(c, JSC_STAGE_SHAKE);
        return (ssize_t)before;
    }
    step(c, JSC_STAGE_PROXY);
    return 0;
}

/* Looks at the first byte without taking it. 1: go on, 0: end of stream, -1 with errno. */
static ssize_t hello(jsc_conn *c) {
    jsc_layer *l = c->layer;
    unsigned char first;
    ssize_t k = recv(c->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
    if (k < 0) return k;
    if (!k || (first != 0x16 && !l->optional && !l->fallback_ns)) {
        jsc_tls_fail(c, k ? "tls: first record does not look like a TLS handshake" : "EOF");
        return nothing_yet();
    }
    if (first == 0x16) {
        if (jsc_tls_start(c)) {
            jsc_conn_end(c, "Internal Error", NULL, 0);
            return nothing_yet();
        }
        l->hold = 1;
        l->stage = JSC_STAGE_SHAKE;
        if (l->fallback_ns) deadline(c, l->timeout_ns);
    } else if (l->optional) {
        without(c);
    } else {
        jsc_layer_late(c); /* it did not begin with a handshake: as if it had not begun at all */
        return nothing_yet();
    }
    return 1;
}

ssize_t jsc_layer_pull(jsc_conn *c, char *b, size_t n) {
    jsc_layer *l = c->layer;
    if (!l->ssl) return recv(c->fd, b, n, MSG_DONTWAIT);
    int fresh = l->fresh;
    l->fresh = 0;
    return jsc_tls_recv(c, b, n, fresh);
}

ssize_t jsc_layer_recv(jsc_conn *c, char *b, size_t cap) {
    jsc_layer *l = c->layer;
    int ended = 0;
    ssize_t k;
    c->more = 0;
    if (l->stage == JSC_STAGE_PROXY && ((k = proxy(c, b, cap, &ended)) || ended)) return k;
    if (!c->layer) return recv(c->fd, b, cap, MSG_DONTWAIT);
    if (l->stage == JSC_STAGE_HELLO) {
        if ((k = hello(c)) <= 0) return k;
        if (!c->layer) return recv(c->fd, b, cap, MSG_DONTWAIT);
    }
    if (l->stage == JSC_STAGE_SHAKE) {
        if (jsc_tls_shake(c) <= 0) return nothing_yet();
        l->fresh = 1;
        step(c, JSC_STAGE_SHAKE);
        if (c->closing) return nothing_yet();
    }
    k = l->ws ? jsc_ws_recv(c, b, cap) : l->packed ? jsc_packed_recv(c, b, cap) : jsc_layer_pull(c, b, cap);
    c->more |= l->again;
    return k;
}

/* ---- out ---- */
ssize_t jsc_layer_push(jsc_conn *c, const char *b, size_t n) {
    jsc_layer *l = c->layer;
    for (;;) {
        ssize_t k = l->ssl ? jsc_tls_send(c, b, n) : send(c->fd, b, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k >= 0) return k;
        if (!l->ssl && errno == EINTR) continue;
        if (!l->ssl && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            c->blocked = 1;
            return -1;
        }
        l->broken = 1;
        c->out.len = c->out_head = 0;
        jsc_conn_end(c, "Write Error", NULL, 0);
        return -1;
    }
}

void jsc_layer_send(jsc_conn *c) {
    jsc_layer *l = c->layer;
    if (l->broken) return;
    if (l->ssl) {
        int rc = jsc_tls_flush(c);
        if (!rc) c->blocked = 0;
        if (rc < 0) {
            l->broken = 1;
            c->out.len = c->out_head = 0;
            jsc_conn_end(c, "Write Error", NULL, 0);
        }
        if (rc) return;
    }
    if (l->hold) return;
    if (l->ws) {
        jsc_ws_send(c);
        return;
    }
    if (l->packed) {
        jsc_packed_send(c);
        return;
    }
    while (jsc_pending(c)) {
        ssize_t k = jsc_layer_push(c, c->out.p + c->out_head, jsc_pending(c));
        if (k < 0) return;
        c->out_head += (size_t)k;
        if (c->blocked) return;
    }
    c->out.len = c->out_head = 0;
    c->blocked = 0;
}

void jsc_layer_late(jsc_conn *c) {
    jsc_layer *l = c->layer;
    if (l->stage == JSC_STAGE_PROXY) {
        jsc_layer_broken(c, "failed to read protocol version: EOF", "Protocol Violation");
    } else if (l->stage == JSC_STAGE_HTTP) {
        jsc_conn_end(c, "Client Closed", NULL, 0);
    } else if (l->stage == JSC_STAGE_HELLO && l->fallback_ns) { /* no handshake began: INFO in the clear, as always */
        l->fallback_ns = 0;
        l->first = 0;
        l->hold = 0;
        jsc_layer_send(c);
        l->hold = !l->optional;
        if (!c->closing && jsc_pending(c)) jsc_conn_end(c, "Write Error", NULL, 0);
        deadline(c, l->timeout_ns);
    } else if (l->stage == JSC_STAGE_HELLO && l->optional) {
        without(c);
    } else {
        jsc_tls_fail(c, "TLS handshake timeout");
    }
}

void jsc_layer_close(jsc_conn *c) {
    jsc_layer *l = c->layer;
    if (l->ws && !l->broken && !c->blocked && !l->hold &&
        (c->flush_last || !jsc_pending(c) || l->ws->state == JSC_WS_DONE)) {
        jsc_ws_goodbye(c);
        jsc_ws_send(c);
    }
    drop(c);
}

void jsc_layer_free(jsc_plane *p) {
    if (p->deflate) deflateEnd(p->deflate);
    free(p->deflate);
}
