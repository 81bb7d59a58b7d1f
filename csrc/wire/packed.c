/* A compressed route: S2 between socket, or TLS, and parser. What a flush finds in the output becomes one whole stream,
 * so the cost is a flush's and never a message's; what comes is taken apart chunk by chunk, each as soon as it is whole. */
#include "layer.h"
#include "s2.h"
#include <errno.h>
#include <sys/socket.h>

typedef struct jsc_packed {
    uint8_t begun; /* the other side's first chunk was there */
    uint8_t clear; /* it speaks without compression after all: only to say why it parts */
    uint8_t again; /* raw is to be looked at before more is read */
    uint8_t level;
    uint8_t sent; /* something, since it last waited for a turn */
    jsc_compress_options o;
    size_t plain; /* bytes of the output from before: they go as they are */
    jsc_buf rest; /* packed bytes that the socket did not take */
    size_t rest_at;
    jsc_buf raw; /* input: the part of a chunk, or what waits for room */
    size_t raw_at, skip; /* skip: bytes of a chunk that means nothing */
    jsc_buf block; /* what a chunk made that is larger than a read */
    size_t block_at;
} jsc_packed;

static void drop(jsc_buf *b, size_t *at) {
    free(b->p);
    memset(b, 0, sizeof *b);
    *at = 0;
}

static int append(jsc_buf *b, const char *from, size_t n) {
    if (b->cap - b->len < n) {
        size_t cap = b->cap ? b->cap : 4096;
        while (cap < b->len + n) cap *= 2;
        char *q = realloc(b->p, cap);
        if (!q) return -ENOMEM;
        b->p = q;
        b->cap = cap;
    }
    if (n) memcpy(b->p + b->len, from, n);
    b->len += n;
    return JSC_OK;
}

/* ---- out ---- */
/* How many of n bytes went out; where these are fewer the socket is blocked, or the connection ends. */
static size_t push(jsc_conn *c, const char *b, size_t n) {
    size_t at = 0;
    while (at < n && !c->blocked) {
        ssize_t k = jsc_layer_push(c, b + at, n - at);
        if (k < 0) break;
        at += (size_t)k;
    }
    return at;
}

/* Bytes that may be packed now, 0: others first. Its last words do not wait. */
static size_t part_of_turn(const jsc_conn *c, int level) {
    static const uint8_t costs[] = {[JSC_S2_STORE] = 1, [JSC_S2_FAST] = 4, [JSC_S2_BETTER] = 16, [JSC_S2_BEST] = 24};
    jsc_plane *p = c->plane;
    size_t n = jsc_pending(c) < JSC_READ_BYTES ? jsc_pending(c) : JSC_READ_BYTES, may = p->pack_left / costs[level];
    if (n > may && !c->closing) n = may < JSC_PACK_LEAST ? 0 : may;
    size_t cost = n * costs[level];
    p->pack_left -= cost < p->pack_left ? cost : p->pack_left;
    return n;
}

void jsc_packed_send(jsc_conn *c) {
    jsc_layer *l = c->layer;
    jsc_packed *z = l->packed;
    jsc_plane *p = c->plane;
    c->blocked = 0;
    if (z->rest.len) {
        z->rest_at += push(c, z->rest.p + z->rest_at, z->rest.len - z->rest_at);
        if (z->rest_at < z->rest.len) return;
        drop(&z->rest, &z->rest_at);
    }
    if (z->plain) {
        size_t k = push(c, c->out.p + c->out_head, z->plain);
        if (l->broken) return;
        c->out_head += k;
        z->plain -= k;
        if (z->plain) return;
    }
    while (jsc_pending(c) && !c->blocked) {
        int level = z->level > JSC_S2_FAST && jsc_pending(c) > JSC_PACK_BEHIND ? JSC_S2_FAST : z->level;
        size_t n = part_of_turn(c, level);
        if (!n) {
            if (c->dirty) return; /* it comes here again in this turn */
            jsc_out_later(c, z->sent);
            z->sent = 0;
            return;
        }
        z->sent = 1;
        size_t k = jsc_s2_pack(p->s2, level, c->out.p + c->out_head, n, p->packed_out);
        size_t went = push(c, p->packed_out, k);
        if (l->broken) return;
        c->out_head += n;
        if (went < k && append(&z->rest, p->packed_out + went, k - went)) {
            jsc_conn_end(c, "Write Error", NULL, 0);
            return;
        }
    }
    if (!jsc_pending(c)) c->out.len = c->out_head = 0;
}

/* ---- in ---- */
static ssize_t nothing(void) {
    errno = EAGAIN;
    return -1;
}

/* One chunk at b. > 0: bytes that it takes up, 0: it is not whole, or there is no room for it yet (*full), -1 wrong. */
static ssize_t chunk(jsc_packed *z, const char *b, size_t n, char *to, size_t *made, size_t cap, int *full) {
    const uint8_t *h = (const uint8_t *)b;
    if (n < JSC_S2_HEAD) return 0;
    size_t len = h[1] | (size_t)h[2] << 8 | (size_t)h[3] << 16;
    int kind = h[0];
    if (kind != JSC_S2_ID && !z->begun) return -1;
    if (kind >= JSC_S2_SKIP && kind != JSC_S2_ID) {
        z->skip = len;
        return JSC_S2_HEAD;
    }
    if (kind == JSC_S2_ID ? len != 6 : kind > JSC_S2_PLAIN || len > JSC_S2_CHUNK_MAX) return -1;
    if (n - JSC_S2_HEAD < len) return 0;
    b += JSC_S2_HEAD;
    if (kind == JSC_S2_ID) {
        if (memcmp(b, "S2sTwO", 6) && memcmp(b, "sNaPpY", 6)) return -1;
        z->begun = 1;
        return JSC_S2_HEAD + 6;
    }
    int64_t size = jsc_s2_size(kind, b, len);
    if (size < 0) return -1;
    if ((size_t)size <= cap - *made) {
        if (jsc_s2_unpack(kind, b, len, to + *made, (size_t)size)) return -1;
        *made += (size_t)size;
        return (ssize_t)(JSC_S2_HEAD + len);
    }
    if (*made) {
        *full = 1;
        return 0;
    }
    if (!(z->block.p = malloc((size_t)size))) return -1;
    z->block.len = z->block.cap = (size_t)size;
    z->block_at = 0;
    if (jsc_s2_unpack(kind, b, len, z->block.p, (size_t)size)) {
        drop(&z->block, &z->block_at);
        return -1;
    }
    return (ssize_t)(JSC_S2_HEAD + len);
}

static size_t from_block(jsc_packed *z, char *to, size_t cap) {
    size_t n = z->block.len - z->block_at;
    if (n > cap) n = cap;
    memcpy(to, z->block.p + z->block_at, n);
    z->block_at += n;
    if (z->block_at == z->block.len) drop(&z->block, &z->block_at);
    return n;
}

/* Takes what it can of n bytes; how many, or -1: the next chunk is not right. *full: what is left is to be looked at
 * again before more is read. */
static ssize_t take(jsc_packed *z, const char *b, size_t n, char *to, size_t *made, size_t cap, int *full) {
    size_t at = 0;
    while (at < n && !*full) {
        if (z->skip) {
            size_t k = z->skip < n - at ? z->skip : n - at;
            z->skip -= k;
            at += k;
            continue;
        }
        ssize_t k = chunk(z, b + at, n - at, to, made, cap, full);
        if (k < 0 && !at) return -1;
        if (k < 0) *full = 1; /* what came before it first */
        if (k <= 0) break;
        at += (size_t)k;
        if (z->block.p) {
            *made = from_block(z, to, cap);
            *full = z->block.p != NULL;
        }
    }
    return (ssize_t)at;
}

static ssize_t wrong(jsc_conn *c) {
    jsc_layer_broken(c, "s2: corrupt input", "Read Error");
    return nothing();
}

/* The part of a chunk that came before, and what the socket has now. 0: an end, -1 with errno. */
static ssize_t more(jsc_conn *c, const char **from) {
    jsc_packed *z = c->layer->packed;
    jsc_buf *raw = &z->raw;
    ssize_t k = jsc_layer_pull(c, c->plane->packed_in, JSC_READ_BYTES);
    *from = c->plane->packed_in;
    if (k <= 0 || !raw->len) return k;
    if (z->raw_at) {
        raw->len -= z->raw_at;
        memmove(raw->p, raw->p + z->raw_at, raw->len);
        z->raw_at = 0;
    }
    if (append(raw, *from, (size_t)k)) return 0;
    *from = raw->p;
    return (ssize_t)raw->len;
}

ssize_t jsc_packed_recv(jsc_conn *c, char *b, size_t cap) {
    jsc_packed *z = c->layer->packed;
    if (z->clear) return jsc_layer_pull(c, b, cap);
    size_t made = 0, n = z->raw.len - z->raw_at;
    const char *from = z->raw.p + z->raw_at;
    int full = 0;
    if (!n) z->again = 0; /* it was for the block alone */
    if (z->block.p) made = from_block(z, b, cap);
    if (!z->block.p && !z->again && !made) {
        ssize_t k = more(c, &from);
        if (k <= 0) return k;
        n = (size_t)k;
    }
    if (!z->begun && n && *from == '-' && n <= cap) { /* an -ERR from before the other side knew of compression */
        z->clear = 1;
        memcpy(b, from, n);
        drop(&z->raw, &z->raw_at);
        return (ssize_t)n;
    }
    if (!z->block.p && n) {
        ssize_t used = take(z, from, n, b, &made, cap, &full);
        if (used < 0) return wrong(c);
        int own = z->raw.len != 0;
        if (own && (z->raw_at += (size_t)used) == z->raw.len) drop(&z->raw, &z->raw_at);
        else if (!own && append(&z->raw, from + used, n - (size_t)used)) return 0;
        z->again = (uint8_t)full;
    }
    c->more = z->again || z->block.p;
    return made ? (ssize_t)made : nothing();
}

/* ---- the level ---- */
void jsc_packed_rtt(jsc_conn *c) {
    jsc_packed *z = c->layer->packed;
    int n = z->o.thresholds_n, i = 0;
    if (!n) return;
    while (i < n && c->rtt > z->o.thresholds_ns[i]) i++;
    z->level = (uint8_t)(i < n ? i : n >= 3 ? JSC_S2_BEST : n - 1);
}

int jsc_packed_level(const jsc_conn *c) { return c->layer && c->layer->packed ? c->layer->packed->level : -1; }

static int work_space(jsc_plane *p) {
    if (!p->s2) p->s2 = malloc(sizeof *p->s2);
    if (!p->packed_in) p->packed_in = malloc(JSC_READ_BYTES);
    if (!p->packed_out) p->packed_out = malloc(jsc_s2_bound(JSC_READ_BYTES));
    return p->s2 && p->packed_in && p->packed_out ? JSC_OK : -ENOMEM;
}

int jsc_conn_compress(jsc_plane *p, uint64_t id, const jsc_compress_options *o) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    jsc_layer *l = c->layer;
    if (c->kind != JSC_CONN_ROUTE || o->level > JSC_S2_BEST || o->thresholds_n > 4) return JSC_EINVAL;
    if (l && (l->stage != JSC_STAGE_OPEN || l->ws || l->packed)) return JSC_EINVAL;
    jsc_packed *z = calloc(1, sizeof *z);
    if (!l) l = calloc(1, sizeof *l);
    if (!z || !l || work_space(p)) {
        free(z);
        if (!c->layer) free(l);
        return -ENOMEM;
    }
    if (!c->layer) {
        l->stage = JSC_STAGE_OPEN;
        c->layer = l;
    }
    l->packed = z;
    z->o = *o;
    z->level = o->level;
    z->plain = jsc_pending(c);
    z->raw = c->in; /* what stands behind the INFO */
    z->again = z->raw.len != 0;
    memset(&c->in, 0, sizeof c->in);
    c->need = 0;
    c->more |= z->again;
    c->waiting = 0;
    jsc_conn_resume(c);
    return JSC_OK;
}

void jsc_packed_free(jsc_conn *c) {
    jsc_packed *z = c->layer->packed;
    if (!z) return;
    free(z->rest.p);
    free(z->raw.p);
    free(z->block.p);
    free(z);
    c->layer->packed = NULL;
}
