/* Websocket frames. In: unmasked in place, so that the parser sees the stream as from a plain socket. Out: what waits
 * becomes one frame when it is sent, its head written over bytes that are sent already. */
#include "ws.h"
#include <errno.h>
#include <sys/socket.h>
#include <zlib.h>

enum { ENDED = -2 };
enum { OP_MORE = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };
static const uint8_t TAIL[4] = {0, 0, 0xff, 0xff};

int jsc_ws_new(jsc_conn *c) {
    c->layer->ws = calloc(1, sizeof(jsc_ws));
    if (!c->layer->ws) return -ENOMEM;
    jsc_out_free(c); /* the next one leaves room in front */
    return JSC_OK;
}

void jsc_ws_free(jsc_conn *c) {
    jsc_ws *w = c->layer->ws;
    if (!w) return;
    if (w->z) inflateEnd(w->z);
    free(w->z);
    free(w->raw.p);
    free(w->pack.p);
    free(w);
    c->layer->ws = NULL;
}

/* ---- out ---- */
/* A control frame, sent before the next one of data. While one waits others are dropped: only the last counts. */
static void control(jsc_conn *c, int op, const void *data, size_t n) {
    jsc_ws *w = c->layer->ws;
    if (w->reply_n && op != OP_CLOSE) return;
    if (w->reply_at) return; /* half of it is out */
    w->reply[0] = (uint8_t)(0x80 | op);
    w->reply[1] = (uint8_t)n;
    memcpy(w->reply + 2, data, n);
    w->reply_n = (uint8_t)(n + 2);
    jsc_out_dirty(c);
}

static void say_close(jsc_conn *c, int status, const char *why) {
    uint8_t body[125] = {(uint8_t)(status >> 8), (uint8_t)status};
    size_t n = strlen(why);
    if (n > sizeof body - 2) n = sizeof body - 2;
    memcpy(body + 2, why, n);
    control(c, OP_CLOSE, body, n + 2);
    c->layer->ws->state = JSC_WS_DONE;
}

static ssize_t fail(jsc_conn *c, int status, const char *why) {
    say_close(c, status, why);
    jsc_layer_broken(c, why, "Read Error");
    errno = EAGAIN;
    return -1;
}

static size_t put_head(uint8_t *b, int first, size_t n) {
    b[0] = (uint8_t)first;
    if (n < 126) {
        b[1] = (uint8_t)n;
        return 2;
    }
    int bytes = n < 65536 ? 2 : 8;
    b[1] = bytes == 2 ? 126 : 127;
    for (int i = 0; i < bytes; i++) b[2 + i] = (uint8_t)((uint64_t)n >> (8 * (bytes - 1 - i)));
    return 2 + (size_t)bytes;
}

/* What waits becomes a frame. */
static void frame(jsc_conn *c) {
    jsc_ws *w = c->layer->ws;
    size_t n = jsc_pending(c), whole = n;
    uint8_t head[10];
    if (w->browser && n > JSC_WS_FRAGMENT) n = JSC_WS_FRAGMENT;
    size_t h = put_head(head, (n == whole ? 0x80 : 0) | (w->fragments ? OP_MORE : OP_BINARY), n);
    w->fragments = n != whole;
    JSC_ASSERT(c->out_head >= h);
    c->out_head -= h;
    memcpy(c->out.p + c->out_head, head, h);
    w->framed = c->out_head + h + n;
}

static int deflater(jsc_plane *p) {
    if (p->deflate) return deflateReset(p->deflate) == Z_OK ? 0 : -1;
    z_stream *z = calloc(1, sizeof *z);
    if (!z || deflateInit2(z, Z_BEST_SPEED, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(z);
        return -1;
    }
    p->deflate = z;
    return 0;
}

static int pack(jsc_conn *c) {
    jsc_ws *w = c->layer->ws;
    jsc_plane *p = c->plane;
    size_t n = jsc_pending(c) < JSC_WS_PACK ? jsc_pending(c) : JSC_WS_PACK;
    uint8_t head[10];
    if (deflater(p)) return -1;
    size_t bound = deflateBound(p->deflate, n) + 16;
    if (w->pack.cap < bound + sizeof head) {
        char *q = realloc(w->pack.p, bound + sizeof head);
        if (!q) return -1;
        w->pack.p = q;
        w->pack.cap = bound + sizeof head;
    }
    z_stream *z = p->deflate;
    z->next_in = (Bytef *)c->out.p + c->out_head;
    z->avail_in = (uInt)n;
    z->next_out = (Bytef *)w->pack.p + sizeof head;
    z->avail_out = (uInt)bound;
    if (deflate(z, Z_SYNC_FLUSH) != Z_OK || z->avail_in) return -1;
    size_t m = bound - z->avail_out - sizeof TAIL;
    size_t h = put_head(head, 0xc0 | OP_BINARY, m);
    w->pack_at = sizeof head - h;
    memcpy(w->pack.p + w->pack_at, head, h);
    w->pack.len = sizeof head + m;
    c->out_head += n;
    return 0;
}

void jsc_ws_moved(jsc_conn *c, size_t by) {
    jsc_ws *w = c->layer->ws;
    w->framed = w->framed > by ? w->framed - by : 0;
}

void jsc_ws_send(jsc_conn *c) {
    jsc_ws *w = c->layer->ws;
    for (;;) {
        ssize_t k;
        if (w->state == JSC_WS_HTTP || w->state == JSC_WS_ASKED) w->framed = c->out.len; /* HTTP is no frame */
        if (w->pack_at < w->pack.len) {
            k = jsc_layer_push(c, w->pack.p + w->pack_at, w->pack.len - w->pack_at);
            if (k > 0) w->pack_at += (size_t)k;
        } else if (c->out_head < w->framed) {
            k = jsc_layer_push(c, c->out.p + c->out_head, w->framed - c->out_head);
            if (k > 0) c->out_head += (size_t)k;
        } else if (w->reply_n && !w->fragments) {
            k = jsc_layer_push(c, (char *)w->reply + w->reply_at, (size_t)(w->reply_n - w->reply_at));
            if (k > 0) w->reply_at += (uint8_t)k;
            if (w->reply_at == w->reply_n) w->reply_n = w->reply_at = 0;
        } else if (jsc_pending(c) && (w->state == JSC_WS_OPEN || (w->state == JSC_WS_DONE && w->fragments))) {
            if (w->deflate && jsc_pending(c) > 64) {
                if (pack(c)) {
                    jsc_conn_end(c, "Write Error", NULL, 0);
                    return;
                }
            } else {
                frame(c);
            }
            continue;
        } else {
            break;
        }
        if (k < 0 || c->blocked) return;
    }
    if (w->pack.p && w->pack.cap > 8192) {
        free(w->pack.p);
        memset(&w->pack, 0, sizeof w->pack);
    }
    w->pack.len = w->pack_at = 0;
    c->out_head = c->out.len = c->out.p ? JSC_WS_SLACK : 0;
    w->framed = 0;
    c->blocked = 0;
}

static int status_of(const char *reason) {
    static const struct {
        const char *reason;
        int status;
    } codes[] = {
        {"Client Closed", 1000},
        {"Authentication Timeout", 1008},
        {"Authentication Failure", 1008},
        {"Slow Consumer", 1008},
        {"Maximum Connections", 1008},
        {"Maximum Account", 1008},
        {"Maximum Subscriptions", 1008},
        {"Authentication Expired", 1008},
        {"Credentials Revoked", 1008},
        {"Stale Connection", 1001},
        {"Write Error", 1001},
        {"Read Error", 1001},
        {"Server Shutdown", 1001},
        {"Parse Error", 1002},
        {"Protocol Violation", 1002},
        {"Bad Client Protocol", 1002},
        {"Maximum Message Payload", 1009},
        {"TLS Handshake", 1015},
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (!strncmp(reason, codes[i].reason, strlen(codes[i].reason))) return codes[i].status;
    return 1011;
}

void jsc_ws_goodbye(jsc_conn *c) {
    if (c->layer->ws->state == JSC_WS_OPEN) say_close(c, status_of(c->reason_text), c->reason_text);
}

/* ---- in ---- */
static void unmask(jsc_ws *w, uint8_t *out, const uint8_t *in, size_t n) {
    size_t i = 0;
    uint8_t m[8];
    for (int k = 0; k < 8; k++) m[k] = w->mask[(w->mask_at + (uint32_t)k) & 3];
    if (n >= 8) {
        uint64_t mask;
        memcpy(&mask, m, 8);
        for (; i + 8 <= n; i += 8) {
            uint64_t v;
            memcpy(&v, in + i, 8);
            v ^= mask;
            memcpy(out + i, &v, 8);
        }
    }
    for (; i < n; i++) out[i] = in[i] ^ m[i & 7];
    w->mask_at += (uint32_t)n;
}

static int is_utf8(const uint8_t *b, size_t n) {
    uint32_t code, k;
    for (size_t i = 0; i < n; i += k)
        if (!(k = jsc_utf8(b + i, n - i, &code))) return 0;
    return 1;
}

static int closing_is_wrong(const uint8_t *b, size_t n, const char **why) {
    int status = n >= 2 ? b[0] << 8 | b[1] : 1005;
    *why = NULL;
    if (n == 1) *why = "close frame payload cannot be 1 byte";
    else if (n && !((status >= 1000 && status <= 1003) || (status >= 1007 && status <= 1014) ||
                    (status >= 3000 && status <= 4999)))
        *why = "invalid close status code";
    else if (n > 2 && !is_utf8(b + 2, n - 2)) *why = "invalid utf8 body in close frame";
    return *why != NULL;
}

/* The whole head of a frame is there. 0 or -1: refused. */
static ssize_t begin(jsc_conn *c) {
    jsc_ws *w = c->layer->ws;
    const uint8_t *h = w->head;
    uint8_t len = h[1] & 0x7f;
    size_t at = 2;
    int op = h[0] & 15, rsv1 = h[0] & 0x40;
    w->masked = h[1] >> 7;
    w->fin = h[0] >> 7;
    if (h[0] & 0x30) return fail(c, 1002, "RSV2 and RSV3 must be clear");
    if (rsv1 && (!w->deflate || op == OP_MORE || op >= OP_CLOSE))
        return fail(c, 1002, "compressed frame received without negotiated permessage-deflate");
    if (op > OP_BINARY && (op < OP_CLOSE || op > OP_PONG)) {
        char why[32];
        snprintf(why, sizeof why, "unknown opcode %d", op);
        return fail(c, 1002, why);
    }
    if (!w->masked && !w->unmasked) return fail(c, 1002, "mask bit missing");
    if (op >= OP_CLOSE && len > 125)
        return fail(c, 1002, "control frame length bigger than maximum allowed of 125 bytes");
    if (op >= OP_CLOSE && !w->fin) return fail(c, 1002, "control frame does not have final bit set");
    if (op == OP_MORE && !w->in_message) return fail(c, 1002, "invalid continuation frame");
    if ((op == OP_TEXT || op == OP_BINARY) && w->in_message)
        return fail(c, 1002, "new message started before final frame for previous message was received");
    w->left = len;
    if (len > 125) {
        int bytes = len == 126 ? 2 : 8;
        w->left = 0;
        for (int i = 0; i < bytes; i++) w->left = w->left << 8 | h[at++];
    }
    if (w->left >> 63) return fail(c, 1002, "invalid 64-bit payload length");
    if (w->masked) memcpy(w->mask, h + at, 4);
    else memset(w->mask, 0, 4);
    w->mask_at = 0;
    w->opcode = (uint8_t)op;
    w->control_n = 0;
    if (op == OP_TEXT || op == OP_BINARY) {
        w->packed = rsv1 != 0;
        w->in_message = 1;
        w->message = 0;
        w->ended = 0;
    }
    return 0;
}

/* The frame's last byte was taken. 0, or -1: the connection ends. */
static ssize_t finish(jsc_conn *c) {
    jsc_ws *w = c->layer->ws;
    const char *why;
    w->head_n = 0;
    w->head_need = 2;
    if (w->opcode == OP_PING) {
        control(c, OP_PONG, w->control, w->control_n);
    } else if (w->opcode == OP_CLOSE) {
        if (closing_is_wrong(w->control, w->control_n, &why)) return fail(c, strstr(why, "utf8") ? 1007 : 1002, why);
        control(c, OP_CLOSE, w->control, w->control_n);
        w->state = JSC_WS_DONE; /* the connection ends when what came before is through */
    } else if (w->opcode < OP_CLOSE && w->fin) {
        w->in_message = 0;
        if (w->packed && w->z) w->tail = 1; /* where nothing came yet there is nothing to end either */
    }
    return 0;
}

static int inflater(jsc_ws *w) {
    if (w->z) return 0;
    z_stream *z = calloc(1, sizeof *z);
    if (!z || inflateInit2(z, -15) != Z_OK) {
        free(z);
        return -1;
    }
    w->z = z;
    return 0;
}

static int busy(const jsc_ws *w) { return w->z && (w->z->avail_in || w->tail || w->full); }

/* Decompresses what w->z holds into [*n, cap) of b. 1: all of it, 0: b is full, -1 refused. */
static int expand(jsc_conn *c, char *b, size_t cap, size_t *n) {
    jsc_ws *w = c->layer->ws;
    z_stream *z = w->z;
    uint64_t limit = 8 * (uint64_t)c->plane->o.max_payload;
    if (limit > 64 << 20) limit = 64 << 20;
    for (;;) {
        if (w->ended) z->avail_in = 0;
        if (!z->avail_in && !w->full) {
            if (w->tail != 1) break;
            w->tail = 2;
            z->next_in = (Bytef *)TAIL;
            z->avail_in = w->ended ? 0 : sizeof TAIL;
            continue;
        }
        if (*n == cap) return 0;
        z->next_out = (Bytef *)b + *n;
        z->avail_out = (uInt)(cap - *n);
        int rc = inflate(z, Z_SYNC_FLUSH);
        size_t made = cap - *n - z->avail_out;
        *n += made;
        w->message += made;
        if (w->message > limit) {
            fail(c, 1009, "message size exceeds the maximum");
            return -1;
        }
        w->ended = rc == Z_STREAM_END;
        w->full = !z->avail_out && !w->ended; /* it may hold more than it could put down */
        if ((rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR) ||
            (rc == Z_BUF_ERROR && z->avail_in && z->avail_out)) {
            fail(c, 1002, "invalid compressed message");
            return -1;
        }
    }
    if (w->tail == 2) {
        w->tail = 0;
        inflateReset(z);
    }
    return 1;
}

/* Takes frames apart: [*at, n) of in, payload into [*made, cap) of out. in and out may be the same. */
static ssize_t take(jsc_conn *c, uint8_t *in, size_t *at, size_t n, char *out, size_t *made, size_t cap) {
    jsc_ws *w = c->layer->ws;
    while (*at < n && w->state == JSC_WS_OPEN) {
        if (!w->head_need) w->head_need = 2;
        if (w->head_n < w->head_need) {
            w->head[w->head_n++] = in[(*at)++];
            if (w->head_n == 2) {
                uint8_t len = w->head[1] & 0x7f;
                w->head_need = (uint8_t)(2 + (len == 126 ? 2 : len == 127 ? 8 : 0) + (w->head[1] & 0x80 ? 4 : 0));
            }
            if (w->head_n < w->head_need) continue;
            if (begin(c)) return -1;
        } else {
            size_t k = n - *at < w->left ? n - *at : (size_t)w->left;
            uint8_t *from = in + *at;
            if (w->opcode >= OP_CLOSE) {
                unmask(w, w->control + w->control_n, from, k);
                w->control_n = (uint8_t)(w->control_n + k);
            } else if (w->packed) {
                unmask(w, from, from, k);
                if (inflater(w)) {
                    jsc_conn_end(c, "Read Error", NULL, 0);
                    errno = EAGAIN;
                    return -1;
                }
                w->z->next_in = from;
                w->z->avail_in = (uInt)k;
            } else {
                unmask(w, (uint8_t *)out + *made, from, k);
                *made += k;
            }
            *at += k;
            w->left -= k;
        }
        if (!w->left && w->head_n == w->head_need && finish(c)) return -1;
        if (busy(w)) {
            int rc = expand(c, out, cap, made);
            if (rc < 0) return -1;
            if (!rc) break;
        }
    }
    return 0;
}

/* The HTTP request: kept until its empty line, then it is the host's to answer. */
static ssize_t request(jsc_conn *c, char *b, size_t cap) {
    jsc_ws *w = c->layer->ws;
    ssize_t k = jsc_layer_pull(c, b, cap);
    if (k <= 0) return k;
    if (w->raw.len + (size_t)k > JSC_WS_HEAD_MAX + JSC_READ_BYTES) return 0;
    char *q = realloc(w->raw.p, w->raw.len + (size_t)k);
    if (!q) return 0;
    w->raw.p = q;
    memcpy(q + w->raw.len, b, (size_t)k);
    w->raw.len = w->raw.cap = w->raw.len + (size_t)k;
    errno = EAGAIN;
    size_t look = w->raw.len < JSC_WS_HEAD_MAX ? w->raw.len : JSC_WS_HEAD_MAX;
    char *end = memmem(q, look, "\r\n\r\n", 4);
    if (!end && look < JSC_WS_HEAD_MAX) return -1;
    w->raw_at = end ? (size_t)(end - q) + 4 : w->raw.len;
    w->state = JSC_WS_ASKED;
    c->waiting = 1;
    jsc_emit_text(c, JSC_EV_HTTP, q, end ? w->raw_at : 0);
    errno = EAGAIN;
    return -1;
}

/* Through a buffer of its own: what came behind the request, and input that may grow. */
static ssize_t buffered(jsc_conn *c, char *b, size_t cap) {
    jsc_ws *w = c->layer->ws;
    size_t made = 0;
    if (w->raw_at == w->raw.len && !busy(w)) {
        ssize_t k = jsc_layer_pull(c, b, JSC_LAYER_ROOM); /* what comes of it is at most a thousand times longer */
        if (k <= 0) return k ? -1 : ENDED;
        if (w->raw.cap < (size_t)k) {
            char *q = realloc(w->raw.p, (size_t)k);
            if (!q) return ENDED;
            w->raw.p = q;
            w->raw.cap = (size_t)k;
        }
        memcpy(w->raw.p, b, (size_t)k);
        w->raw.len = (size_t)k;
        w->raw_at = 0;
    }
    int rc = busy(w) ? expand(c, b, cap, &made) : 1;
    if (rc < 0 || (rc && take(c, (uint8_t *)w->raw.p, &w->raw_at, w->raw.len, b, &made, cap))) return -1;
    if (w->raw_at < w->raw.len || busy(w)) {
        c->more = w->state == JSC_WS_OPEN;
    } else {
        free(w->raw.p);
        memset(&w->raw, 0, sizeof w->raw);
        w->raw_at = 0;
    }
    return (ssize_t)made;
}

ssize_t jsc_ws_recv(jsc_conn *c, char *b, size_t cap) {
    jsc_ws *w = c->layer->ws;
    size_t at = 0, made = 0;
    if (w->state == JSC_WS_HTTP) return request(c, b, cap);
    if (w->state == JSC_WS_DONE) return 0; /* the other side said goodbye behind what was taken last */
    errno = EAGAIN;
    if (w->state != JSC_WS_OPEN) return -1;
    ssize_t k;
    if (w->deflate || w->raw.len) {
        k = buffered(c, b, cap);
        if (k < 0) return k == ENDED ? 0 : -1;
        made = (size_t)k;
    } else {
        k = jsc_layer_pull(c, b, cap);
        if (k <= 0) return k;
        if (take(c, (uint8_t *)b, &at, (size_t)k, b, &made, cap)) return -1;
    }
    if (w->state == JSC_WS_DONE) {
        if (!made) return 0;
        c->more = 1;
    }
    errno = EAGAIN;
    return made ? (ssize_t)made : -1;
}

/* ---- calls of the host ---- */
int jsc_conn_ws_open(jsc_plane *p, uint64_t id, const jsc_ws_options *o) {
    jsc_conn *c = jsc_conn_find(p, id);
    jsc_ws *w = c && c->layer ? c->layer->ws : NULL;
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (!w || w->state != JSC_WS_ASKED) return JSC_EINVAL;
    jsc_out_put(c, o->response, o->response_len);
    if (c->closing) return JSC_ENOTFOUND;
    w->framed = c->out.len;
    w->state = JSC_WS_OPEN;
    w->unmasked = o->unmasked;
    w->deflate = o->deflate;
    w->browser = o->browser;
    c->waiting = 0;
    c->more = w->raw_at < w->raw.len;
    if (!c->more) {
        free(w->raw.p);
        memset(&w->raw, 0, sizeof w->raw);
        w->raw_at = 0;
    }
    jsc_layer_opened(c);
    jsc_conn_resume(c);
    return JSC_OK;
}
