/* The stages of a connection that is more than a socket and a parser: what is decided when, and what goes where. */
#include "layer.h"
#include "tls_context.h"
#include <errno.h>
#include <sys/socket.h>

static void deadline(jsc_conn *c, int64_t after) {
    int64_t at = after > 0 ? c->plane->mono + after : INT64_MAX;
    c->layer->deadline = c->next_ping = at; /* pings begin when the connection is open */
    if (at < c->plane->next_timer) c->plane->next_timer = at;
}

static void drop(jsc_conn *c) {
    jsc_layer *l = c->layer;
    jsc_tls_close(c);
    jsc_tls_release(l->tls);
    free(l->rest.p);
    free(l->host);
    free(l);
    c->layer = NULL;
}

/* Everything in between is done: from here on it is the protocol's bytes. */
static void open_up(jsc_conn *c) {
    jsc_layer *l = c->layer;
    l->stage = JSC_STAGE_OPEN;
    l->hold = 0;
    c->next_ping = l->ping;
    if (c->next_ping < c->plane->next_timer) c->plane->next_timer = c->next_ping;
    if (!l->tls) drop(c);
    if (jsc_pending(c) && !c->blocked) jsc_out_send(c);
}

static void without(jsc_conn *c) {
    jsc_tls_release(c->layer->tls);
    c->layer->tls = NULL;
    open_up(c);
}

int jsc_conn_layer(jsc_plane *p, uint64_t id, const jsc_layer_options *o) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (!o->tls) return JSC_OK;
    /* What came before TLS must not count as said under it. */
    if (c->layer || c->in.len || c->kind == JSC_CONN_INTERNAL) return JSC_EINVAL;
    if (!o->first) {
        jsc_out_send(c);
        if (c->closing) return JSC_ENOTFOUND;
        if (jsc_pending(c)) return JSC_EFULL;
    }
    jsc_layer *l = calloc(1, sizeof *l);
    if (!l) return -ENOMEM;
    if (o->host && !(l->host = strdup(o->host))) {
        free(l);
        return -ENOMEM;
    }
    l->tls = o->tls;
    jsc_tls_hold(l->tls);
    l->dials = o->dials;
    l->optional = o->optional;
    l->first = o->first;
    l->timeout_ns = o->timeout_ns;
    l->fallback_ns = o->first ? o->fallback_ns : 0;
    l->ping = c->next_ping;
    l->stage = JSC_STAGE_HELLO;
    l->hold = !o->optional || o->first;
    c->layer = l;
    deadline(c, l->fallback_ns ? l->fallback_ns : l->timeout_ns);
    if (!o->dials) return JSC_OK;
    int rc = jsc_tls_start(c); /* ours is the first word */
    if (rc) {
        drop(c);
        return rc;
    }
    l->stage = JSC_STAGE_SHAKE;
    p->shake_turn = 0;
    jsc_tls_shake(c);
    return JSC_OK;
}

/* Looks at the first byte without taking it. 1: go on, 0: end of stream, -1 with errno. */
static ssize_t hello(jsc_conn *c) {
    jsc_layer *l = c->layer;
    unsigned char first;
    ssize_t k = recv(c->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
    if (k < 0) return k;
    if (!k || (first != 0x16 && !l->optional && !l->fallback_ns)) {
        jsc_tls_fail(c, k ? "tls: first record does not look like a TLS handshake" : "EOF");
        errno = EAGAIN;
        return -1;
    }
    if (first == 0x16) {
        int rc = jsc_tls_start(c);
        if (rc) {
            jsc_conn_end(c, "Internal Error", NULL, 0);
            errno = EAGAIN;
            return -1;
        }
        l->hold = 1;
        l->stage = JSC_STAGE_SHAKE;
        if (l->fallback_ns) deadline(c, l->timeout_ns);
    } else if (l->optional) {
        without(c);
    } else {
        jsc_layer_late(c); /* it did not begin with a handshake: as if it had not begun at all */
        errno = EAGAIN;
        return -1;
    }
    return 1;
}

ssize_t jsc_layer_recv(jsc_conn *c, char *b, size_t cap) {
    jsc_layer *l = c->layer;
    if (l->stage == JSC_STAGE_HELLO) {
        ssize_t k = hello(c);
        if (k <= 0) return k;
        if (!c->layer) return recv(c->fd, b, cap, MSG_DONTWAIT);
    }
    if (l->stage == JSC_STAGE_SHAKE) {
        int done = jsc_tls_shake(c);
        if (done <= 0) {
            errno = EAGAIN;
            return -1;
        }
        open_up(c);
        if (c->closing) {
            errno = EAGAIN;
            return -1;
        }
        return jsc_tls_recv(c, b, cap, 1); /* the last flight may have brought data along */
    }
    return jsc_tls_recv(c, b, cap, 0);
}

void jsc_layer_send(jsc_conn *c) {
    jsc_layer *l = c->layer;
    if (l->broken) return;
    if (l->ssl) {
        int rc = jsc_tls_flush(c);
        if (!rc) c->blocked = 0;
        if (rc < 0) goto fail;
        if (rc > 0) return;
    }
    if (l->hold) return;
    while (jsc_pending(c)) {
        ssize_t k = l->ssl ? jsc_tls_send(c, c->out.p + c->out_head, jsc_pending(c))
                           : send(c->fd, c->out.p + c->out_head, jsc_pending(c), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0) {
            if (l->ssl || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) goto fail;
            if (errno == EINTR) continue;
            c->blocked = 1;
            return;
        }
        c->out_head += (size_t)k;
        if (c->blocked) return;
    }
    c->out.len = c->out_head = 0;
    c->blocked = 0;
    return;
fail:
    l->broken = 1;
    c->out.len = c->out_head = 0;
    jsc_conn_end(c, "Write Error", NULL, 0);
}

void jsc_layer_late(jsc_conn *c) {
    jsc_layer *l = c->layer;
    if (l->stage == JSC_STAGE_HELLO && l->fallback_ns) { /* nobody began a handshake: INFO in the clear, as always */
        l->fallback_ns = 0;
        l->first = 0;
        l->hold = 0;
        jsc_layer_send(c);
        l->hold = !l->optional;
        if (!c->closing && jsc_pending(c)) jsc_conn_end(c, "Write Error", NULL, 0);
        deadline(c, l->timeout_ns);
        return;
    }
    if (l->stage == JSC_STAGE_HELLO && l->optional) {
        without(c);
        return;
    }
    jsc_tls_fail(c, "TLS handshake timeout");
}

void jsc_layer_close(jsc_conn *c) { drop(c); }
