/* Replication links: frames with a checksum. Nothing of a frame is believed before it verifies. */
#include "plane.h"
#include <errno.h>

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

/* Room for a frame on a link that is not too far behind: a full one says JSC_EFULL, the caller repeats later. */
static int frame_room(jsc_plane *p, uint64_t id, size_t n, jsc_conn **c, char **q) {
    *c = jsc_conn_find(p, id);
    if (!*c || (*c)->closing || (*c)->kind != JSC_CONN_LINK) return JSC_ENOTFOUND;
    if (n > JSC_FRAME_MAX) return JSC_EINVAL;
    if (jsc_pending(*c) && jsc_pending(*c) + n > p->o.max_pending) return JSC_EFULL;
    *q = jsc_out_room(*c, JSC_FRAME_HEAD + n);
    return *q ? JSC_OK : -ENOMEM;
}

static void frame_done(jsc_conn *c, char *q, uint8_t kind, size_t n) {
    memset(q, 0, JSC_FRAME_HEAD);
    put32(q + 4, (uint32_t)n);
    q[8] = (char)c->link_version;
    q[9] = (char)kind;
    put32(q, jsc_crc32c(0, q + 4, JSC_FRAME_HEAD - 4 + n));
    c->out_msgs++;
    c->out_bytes += JSC_FRAME_HEAD + n;
    jsc_out_done(c, q + JSC_FRAME_HEAD + n);
}

int jsc_link_send(jsc_plane *p, uint64_t id, uint8_t kind, const void *body, size_t n) {
    jsc_conn *c;
    char *q;
    int rc = frame_room(p, id, n, &c, &q);
    if (rc) return rc;
    if (n) memcpy(q + JSC_FRAME_HEAD, body, n);
    frame_done(c, q, kind, n);
    return JSC_OK;
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
        int rc = frame_room(p, id, n + cap, &c, &q);
        if (rc) return rc;
        rc = jsc_log_copy(log, lo, hi, q + JSC_FRAME_HEAD + n, cap, &got, &to);
        if (rc == JSC_EFULL && !again && got > cap && got <= JSC_FRAME_MAX - n) { /* one record is larger than cap */
            cap = got;
            continue;
        }
        if (rc) return rc;
        if (n) memcpy(q + JSC_FRAME_HEAD, head, n);
        frame_done(c, q, kind, n + got);
        *last = to;
        return JSC_OK;
    }
}
