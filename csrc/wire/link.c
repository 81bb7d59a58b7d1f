/* Replication links: frames with a checksum. Nothing of a frame is believed before it verifies.
 *
 * Small frames (votes, heartbeats, acks) are urgent and go into the output buffer. Frames of records go there too while
 * next to nothing waits in it; what is more stands in a queue of its own, one frame of which moves up when all before it
 * is with the kernel, and the kernel takes little that it does not send yet. So an urgent frame never waits for more than
 * that and one frame of records, however far behind the peer is. Both have bounds: whom a full queue turned away is told
 * when there is room. */
#include "plane.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum {
    LINK_UNSENT = 128 << 10,  /* bytes that the kernel takes and does not send yet */
    LINK_AHEAD = 64 << 10,    /* records join what waits in the output buffer up to here */
    LINK_QUEUE = 1 << 20,     /* bytes of records that wait behind it; a larger frame waits alone */
    LINK_URGENT = 20 << 20,   /* bytes in the output buffer: urgent ones and a frame of records at most */
};

struct jsc_link {
    jsc_buf queue; /* whole frames */
    size_t head;   /* bytes of it that have moved up */
    uint8_t wanted; /* somebody was turned away */
};

int jsc_link_begin(jsc_conn *c) {
    int unsent = LINK_UNSENT;
    if (!c->link && !(c->link = calloc(1, sizeof *c->link))) return -ENOMEM;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent); /* not a TCP socket: no matter */
    return JSC_OK;
}

size_t jsc_link_waits(const jsc_conn *c) { return c->link ? c->link->queue.len - c->link->head : 0; }

enum { QUEUE_ROOM = 2 * JSC_READ_BYTES }; /* at first: the largest buffer that the plane keeps warm */

static void drop_queue(jsc_link *l, jsc_plane *p) {
    if (l->queue.cap == QUEUE_ROOM && p->spare_n < JSC_SPARE) {
        p->spare[p->spare_n++] = l->queue;
    } else {
        p->freed += l->queue.cap;
        free(l->queue.p);
    }
    memset(&l->queue, 0, sizeof l->queue);
    l->head = 0;
}

void jsc_link_free(jsc_conn *c) {
    if (!c->link) return;
    drop_queue(c->link, c->plane);
    free(c->link);
    c->link = NULL;
}

static uint32_t get32(const char *p) {
    const uint8_t *u = (const uint8_t *)p;
    return u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static void put32(char *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (char)(v >> (8 * i));
}

size_t jsc_link_parse(jsc_conn *c, const char *b, size_t n) {
    size_t at = 0;
    while (n - at >= JSC_FRAME_HEAD && !jsc_conn_stopped(c)) {
        const char *f = b + at;
        uint32_t len = get32(f + 4);
        const char *bad = len > JSC_FRAME_MAX                ? "Link Frame: length above the limit"
                          : (uint8_t)f[8] != c->link_version ? "Link Frame: unknown version"
                          : f[10] || f[11] || get32(f + 12)  ? "Link Frame: reserved bytes are not zero"
                                                             : NULL;
        if (!bad) {
            c->need = JSC_FRAME_HEAD + (size_t)len;
            if (n - at < c->need) return at;
            if (jsc_crc32c(0, f + 4, JSC_FRAME_HEAD - 4 + (size_t)len) != get32(f))
                bad = "Link Frame: checksum does not match";
        }
        if (bad) {
            jsc_conn_end(c, bad, NULL, 0);
            return n;
        }
        c->in_msgs++;
        c->in_bytes += c->need;
        jsc_event e = {.type = JSC_EV_FRAME,
                       .conn_kind = c->kind,
                       .conn = c->id,
                       .a = (uint8_t)f[9],
                       .data = f + JSC_FRAME_HEAD,
                       .data_len = len};
        if (jsc_plane_emit(c->plane, &e)) jsc_conn_end(c, "Internal Error", NULL, 0);
        at += c->need;
        c->need = 0;
    }
    return at;
}

/* ---- out ---- */
static void tell_room(jsc_conn *c) {
    jsc_link *l = c->link;
    if (!l->wanted || jsc_link_waits(c) > LINK_QUEUE / 2) return;
    l->wanted = 0;
    jsc_event e = {.type = JSC_EV_ROOM, .conn_kind = c->kind, .conn = c->id};
    if (jsc_plane_emit(c->plane, &e)) jsc_conn_end(c, "Internal Error", NULL, 0);
}

void jsc_link_feed(jsc_conn *c) {
    jsc_link *l = c->link;
    while (jsc_link_waits(c) && !jsc_pending(c) && !c->blocked && !c->closing) {
        const char *f = l->queue.p + l->head;
        size_t n = JSC_FRAME_HEAD + (size_t)get32(f + 4);
        char *q = jsc_out_room(c, n);
        if (!q) return;
        memcpy(q, f, n);
        c->out.len += n;
        l->head += n;
        jsc_out_try(c);
    }
    if (!jsc_link_waits(c) && l->queue.p) drop_queue(l, c->plane);
    if (!c->closing) tell_room(c);
}

/* Room for a frame behind all that wait. It counts once frame_done has been called. */
static char *queue_room(jsc_conn *c, size_t n) {
    jsc_link *l = c->link;
    jsc_buf *b = &l->queue;
    jsc_plane *p = c->plane;
    if (!b->p && p->spare_n && p->spare[p->spare_n - 1].cap == QUEUE_ROOM) {
        *b = p->spare[--p->spare_n];
        b->len = 0;
    }
    if (b->cap - b->len < n && l->head) {
        memmove(b->p, b->p + l->head, b->len - l->head);
        b->len -= l->head;
        l->head = 0;
    }
    if (b->cap - b->len < n) {
        size_t cap = b->cap ? b->cap : QUEUE_ROOM;
        while (cap < b->len + n) cap *= 2;
        char *q = realloc(b->p, cap);
        if (!q) return NULL;
        b->p = q;
        b->cap = cap;
    }
    return b->p + b->len;
}

/* Room for a frame on a link: JSC_EFULL when too much waits. *queued: in the queue of what is not urgent. */
static int frame_room(jsc_plane *p, uint64_t id, size_t n, int urgent, jsc_conn **c, char **q, int *queued) {
    *c = jsc_conn_find(p, id);
    if (!*c || (*c)->closing || (*c)->kind != JSC_CONN_LINK) return JSC_ENOTFOUND;
    if (n > JSC_FRAME_MAX) return JSC_EINVAL;
    if (!(*c)->link && jsc_link_begin(*c)) return -ENOMEM;
    size_t pending = jsc_pending(*c), waits = jsc_link_waits(*c);
    *queued = !urgent && (waits || (*c)->blocked || pending > LINK_AHEAD);
    if (*queued && waits && waits + n > LINK_QUEUE) {
        (*c)->link->wanted = 1;
        return JSC_EFULL;
    }
    if (urgent && pending && pending + n > LINK_URGENT) return JSC_EFULL;
    *q = *queued ? queue_room(*c, JSC_FRAME_HEAD + n) : jsc_out_room(*c, JSC_FRAME_HEAD + n);
    return *q ? JSC_OK : -ENOMEM;
}

static void frame_done(jsc_conn *c, char *q, uint8_t kind, size_t n, int queued) {
    memset(q, 0, JSC_FRAME_HEAD);
    put32(q + 4, (uint32_t)n);
    q[8] = (char)c->link_version;
    q[9] = (char)kind;
    put32(q, jsc_crc32c(0, q + 4, JSC_FRAME_HEAD - 4 + n));
    c->out_msgs++;
    c->out_bytes += JSC_FRAME_HEAD + n;
    if (!queued) {
        jsc_out_done(c, q + JSC_FRAME_HEAD + n);
        return;
    }
    c->link->queue.len += JSC_FRAME_HEAD + n;
    if (c->blocked) return;
    if (jsc_link_waits(c) < JSC_READ_BYTES) jsc_out_dirty(c);
    else jsc_out_send(c);
}

int jsc_link_send(jsc_plane *p, uint64_t id, uint8_t kind, const void *body, size_t n) {
    jsc_conn *c;
    char *q;
    int queued, rc = frame_room(p, id, n, 1, &c, &q, &queued);
    if (rc) return rc;
    if (n) memcpy(q + JSC_FRAME_HEAD, body, n);
    frame_done(c, q, kind, n, queued);
    return JSC_OK;
}

void jsc_link_push(jsc_plane *p) {
    if (p->events[0].head) return;
    for (jsc_conn *c = p->dirty; c; c = c->next_dirty)
        if (c->kind == JSC_CONN_LINK && !c->blocked && !c->closing) jsc_out_send(c);
}

int jsc_link_send_records(jsc_plane *p, uint64_t id, uint8_t kind, const void *head, size_t n, jsc_log *log,
                          uint64_t lo, uint64_t hi, size_t cap, uint64_t *last) {
    jsc_conn *c;
    char *q;
    if (n > JSC_FRAME_MAX) return JSC_EINVAL;
    if (cap > JSC_FRAME_MAX - n) cap = JSC_FRAME_MAX - n;
    for (int again = 0;; again++) {
        size_t got = 0;
        uint64_t to = 0;
        int queued, rc = frame_room(p, id, n + cap, 0, &c, &q, &queued);
        if (rc) return rc;
        rc = jsc_log_copy(log, lo, hi, q + JSC_FRAME_HEAD + n, cap, &got, &to);
        if (rc == JSC_EFULL && !again && got > cap && got <= JSC_FRAME_MAX - n) { /* one record is larger than cap */
            cap = got;
            continue;
        }
        if (rc) return rc;
        if (n) memcpy(q + JSC_FRAME_HEAD, head, n);
        frame_done(c, q, kind, n + got, queued);
        *last = to;
        return JSC_OK;
    }
}
