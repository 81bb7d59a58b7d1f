/* Output: one linear buffer per connection, sent once at the end of a turn, early at 256 KiB. Empty buffers go back to
 * a small pool of warm ones, so an idle connection holds none. */
#include "ws.h"
#include <errno.h>
#include <sys/socket.h>

void jsc_out_free(jsc_conn *c) {
    jsc_plane *p = c->plane;
    if (c->out.p && c->out.cap <= 2u * JSC_READ_BYTES && p->spare_n < JSC_SPARE) p->spare[p->spare_n++] = c->out;
    else {
        p->freed += c->out.cap;
        free(c->out.p);
    }
    memset(&c->out, 0, sizeof c->out);
    c->out_head = 0;
}

static int out_grow(jsc_conn *c, size_t n) {
    jsc_plane *p = c->plane;
    size_t front = JSC_UNLIKELY(c->layer != NULL) && c->layer->ws ? JSC_WS_SLACK : 0; /* for a frame's head */
    if (!c->out.p && p->spare_n) {
        c->out = p->spare[--p->spare_n];
        c->out.len = c->out_head = front;
        if (c->out.cap - front >= n) return 0;
    }
    if (!c->out.p) c->out.len = c->out_head = front;
    if (c->out_head > front && c->out_head >= c->out.len / 2) {
        size_t by = c->out_head - front;
        memmove(c->out.p + front, c->out.p + c->out_head, jsc_pending(c));
        c->out.len -= by;
        c->out_head = front;
        if (front) jsc_ws_moved(c, by);
        if (c->out.cap - c->out.len >= n) return 0;
    }
    size_t cap = c->out.cap ? c->out.cap * 2 : 4096;
    while (cap < c->out.len + n) cap *= 2;
    char *q = realloc(c->out.p, cap);
    if (!q) return -1;
    c->out.p = q;
    c->out.cap = cap;
    return 0;
}

char *jsc_out_room(jsc_conn *c, size_t n) {
    if (JSC_UNLIKELY(c->closing)) return NULL;
    if (JSC_UNLIKELY(c->out.cap - c->out.len < n) && out_grow(c, n)) {
        jsc_conn_end(c, "Write Error", NULL, 0);
        return NULL;
    }
    return c->out.p + c->out.len;
}

void jsc_out_dirty(jsc_conn *c) {
    if (c->dirty) return;
    c->dirty = 1;
    c->next_dirty = c->plane->dirty;
    c->plane->dirty = c;
}

void jsc_out_done(jsc_conn *c, char *end) {
    if (JSC_UNLIKELY(c->plane->o.trace)) jsc_trace_out(c, c->out.p + c->out.len, end);
    c->out.len = (size_t)(end - c->out.p);
    jsc_out_dirty(c);
    size_t waits = jsc_pending(c);
    if (JSC_LIKELY(waits < JSC_READ_BYTES && waits <= c->plane->o.max_pending)) return;
    if (!c->blocked) jsc_out_send(c);
    if (jsc_pending(c) > c->plane->o.max_pending && c->kind != JSC_CONN_LINK && !c->whole && !c->closing) {
        jsc_count_slow(c);
        jsc_conn_end(c, "Slow Consumer (Pending Bytes)", NULL, 0);
    }
}

void jsc_out_put(jsc_conn *c, const void *b, size_t n) {
    char *q = jsc_out_room(c, n);
    if (q) jsc_out_done(c, jsc_copy(q, b, n));
}

void jsc_out_err(jsc_conn *c, const char *text, const char *s, size_t n) {
    size_t tn = strlen(text);
    char *q = jsc_out_room(c, 6 + tn + 2 + n + 1 + 3);
    if (!q) return;
    q = jsc_copy(q, "-ERR '", 6);
    q = jsc_copy(q, text, tn);
    if (s) {
        q = jsc_copy(q, " \"", 2);
        q = jsc_copy(q, s, n);
        *q++ = '"';
    }
    jsc_out_done(c, jsc_copy(q, "'\r\n", 3));
}

static void to_socket(jsc_conn *c) {
    while (c->out_head < c->out.len) {
        ssize_t k = send(c->fd, c->out.p + c->out_head, jsc_pending(c), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                c->blocked = 1;
                return;
            }
            c->out.len = c->out_head = 0;
            jsc_conn_end(c, "Write Error", NULL, 0);
            return;
        }
        c->out_head += (size_t)k;
    }
    c->out.len = c->out_head = 0;
    c->blocked = 0;
}

/* The deadline is for what waits when the socket stops taking more; when that is gone a new one begins. */
static void deadline(jsc_conn *c, size_t sent) {
    jsc_plane *p = c->plane;
    if (!c->blocked || c->kind != JSC_CONN_CLIENT || !p->o.write_deadline_ns) {
        c->write_due = 0;
    } else if (c->write_due && c->write_left > sent) {
        c->write_left -= sent;
    } else {
        c->write_left = jsc_pending(c);
        c->write_due = p->mono + p->o.write_deadline_ns;
        jsc_timer_by(p, c->write_due);
    }
}

void jsc_out_try(jsc_conn *c) {
    if (JSC_UNLIKELY(c->layer != NULL)) jsc_layer_send(c);
    else to_socket(c);
}

void jsc_out_send(jsc_conn *c) {
    size_t had = jsc_pending(c);
    jsc_out_try(c);
    if (JSC_UNLIKELY(c->link != NULL)) jsc_link_feed(c);
    if (JSC_UNLIKELY(c->blocked || c->write_due)) {
        size_t left = jsc_pending(c);
        deadline(c, had > left ? had - left : 0);
    }
}

static void flush_one(jsc_conn *c) {
    c->dirty = 0;
    if (!c->blocked && !c->closing) jsc_out_send(c);
    if (c->closing) return;
    if (!jsc_pending(c)) jsc_out_free(c);
    jsc_conn_mask(c);
}

/* A system call for each: one message to thousands of receivers is written to them over several turns, and whoever has
 * output in a later turn shares that turn with them. */
void jsc_out_flush(jsc_plane *p) {
    for (int n = 0; n < JSC_SENDS && p->late; n++) {
        jsc_conn *c = p->late;
        if (!(p->late = c->next_dirty)) p->late_tail = &p->late;
        flush_one(c);
    }
    for (int n = 0; n < JSC_SENDS && p->dirty; n++) {
        jsc_conn *c = p->dirty;
        p->dirty = c->next_dirty;
        flush_one(c);
    }
    while (p->dirty) {
        jsc_conn *c = p->dirty;
        p->dirty = c->next_dirty;
        c->next_dirty = NULL;
        *p->late_tail = c;
        p->late_tail = &c->next_dirty;
    }
}

void jsc_out_flush_all(jsc_plane *p) {
    do {
        while (p->dirty || p->late) jsc_out_flush(p);
        jsc_out_turn(p);
    } while (p->dirty || p->late);
}

void jsc_out_later(jsc_conn *c, int sent) {
    jsc_plane *p = c->plane;
    c->dirty = 1;
    c->next_dirty = NULL;
    *p->later_tail[sent] = c;
    p->later_tail[sent] = &c->next_dirty;
}

void jsc_out_turn(jsc_plane *p) {
    p->pack_left = JSC_PACK_TURN;
    for (int sent = 0; sent < 2; sent++) {
        if (!p->later[sent]) continue;
        *p->late_tail = p->later[sent];
        p->late_tail = p->later_tail[sent];
        p->later[sent] = NULL;
        p->later_tail[sent] = &p->later[sent];
    }
}
