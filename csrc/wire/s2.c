#include "s2.h"
#include "../base/jsc_base.h"
#include <string.h>

enum {
    ID_BYTES = 10,
    VARINT = 3,      /* of a piece's size */
    TAIL = 16,       /* no match begins in a block's last bytes */
    ELEMENTS = 11,   /* what a literal's head and a copy take at most */
    BACK_NEAR = 2048, /* distances below it fit into a short copy */
};
static const uint8_t identity[ID_BYTES] = {0xff, 6, 0, 0, 'S', '2', 's', 'T', 'w', 'O'};

static uint32_t get32(const uint8_t *b) {
    uint32_t v;
    memcpy(&v, b, 4);
    return v;
}

/* Little endian, n bytes. */
static uint32_t get(const uint8_t *b, size_t n) {
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++) v |= (uint32_t)b[i] << (8 * i);
    return v;
}

static uint8_t *put(uint8_t *b, uint32_t v, size_t n) {
    for (size_t i = 0; i < n; i++) *b++ = (uint8_t)(v >> (8 * i));
    return b;
}

/* The format's own twist, so that a checksum of bytes with their checksum in them is not special. */
static uint32_t checksum(const void *b, size_t n) {
    uint32_t c = jsc_crc32c(0, b, n);
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* ---- reading ---- */
/* The varint of a block; the bytes it takes, 0 when it is none. */
static size_t size_of(const uint8_t *b, size_t n, uint64_t *size) {
    *size = 0;
    for (size_t i = 0; i < n && i < 5; i++) {
        *size |= (uint64_t)(b[i] & 0x7f) << (7 * i);
        if (b[i] < 0x80) return i + 1;
    }
    return 0;
}

int64_t jsc_s2_size(int kind, const void *chunk, size_t n) {
    uint64_t size;
    if (n < JSC_S2_SUM) return -1;
    if (kind == JSC_S2_PLAIN) size = n - JSC_S2_SUM;
    else if (!size_of((const uint8_t *)chunk + JSC_S2_SUM, n - JSC_S2_SUM, &size)) return -1;
    return size > JSC_S2_MADE_MAX ? -1 : (int64_t)size;
}

/* Copies n bytes from `back` before `to`, which may overlap: then what is copied repeats. room: up to the end of all. */
static void copy_back(uint8_t *to, size_t back, size_t n, size_t room) {
    const uint8_t *from = to - back;
    if (back >= 16 && room >= n + 16) {
        for (size_t i = 0; i < n; i += 16) memcpy(to + i, from + i, 16); /* a few more than asked: written over later */
    } else if (back >= n) {
        memcpy(to, from, n);
    } else if (back == 1) {
        memset(to, *from, n);
    } else {
        for (size_t i = 0; i < n; i++) to[i] = from[i];
    }
}

static int unpack_block(const uint8_t *b, size_t n, uint8_t *to, size_t size) {
    const uint8_t *end = b + n;
    size_t at = 0, back = 0;
    while (b < end) {
        uint32_t tag = *b++, x = tag >> 2;
        size_t left = (size_t)(end - b), len;
        if (!(tag & 3)) {
            size_t more = x < 60 ? 0 : x - 59;
            if (left < more) return -1;
            len = (size_t)(more ? get(b, more) : x) + 1;
            b += more;
            left -= more;
            if (len > left || len > size - at) return -1;
            memcpy(to + at, b, len);
            b += len;
            at += len;
            continue;
        }
        size_t more = (tag & 3) == 3 ? 4 : tag & 3;
        if (left < more) return -1;
        uint32_t distance = get(b, more);
        b += more;
        left -= more;
        len = x + 1;
        if ((tag & 3) == 1) {
            distance |= (tag >> 5) << 8;
            x &= 7;
            len = x + 4;
            if (!distance && x > 4) {
                static const uint32_t base[3] = {8, 260, 65540};
                more = x - 4;
                if (left < more) return -1;
                len = (size_t)get(b, more) + base[more - 1];
                b += more;
            }
            if (distance) back = distance;
        } else {
            back = distance;
        }
        if (!back || back > at || len > size - at) return -1;
        copy_back(to + at, back, len, size - at);
        at += len;
    }
    return at == size ? 0 : -1;
}

int jsc_s2_unpack(int kind, const void *chunk, size_t n, void *to, size_t size) {
    const uint8_t *b = (const uint8_t *)chunk + JSC_S2_SUM;
    uint64_t told;
    if (kind == JSC_S2_PLAIN) {
        if (size) memcpy(to, b, size);
    } else {
        size_t k = size_of(b, n - JSC_S2_SUM, &told);
        if (!k || told != size || unpack_block(b + k, n - JSC_S2_SUM - k, to, size)) return -1;
    }
    return get(chunk, JSC_S2_SUM) == checksum(to, size) ? 0 : -1;
}

/* ---- writing ---- */
size_t jsc_s2_bound(size_t n) {
    size_t chunks = (n + JSC_S2_PIECE - 1) / JSC_S2_PIECE;
    return ID_BYTES + n + chunks * (JSC_S2_HEAD + JSC_S2_SUM + 64);
}

static uint8_t *put_literal(uint8_t *q, const uint8_t *b, size_t n) {
    if (!n) return q;
    if (n <= 60) *q++ = (uint8_t)((n - 1) << 2);
    else if (n <= 256) q = put(q, (uint32_t)(60 << 2 | (n - 1) << 8), 2);
    else q = put(q, (uint32_t)(61 << 2 | (n - 1) << 8), 3);
    memcpy(q, b, n);
    return q + n;
}

static uint8_t *put_repeat(uint8_t *q, size_t n) {
    if (n <= 8) return put(q, (uint32_t)((n - 4) << 2 | 1), 2);
    if (n < 8 + 256) return put(q, (uint32_t)(5 << 2 | 1 | (n - 8) << 16), 3);
    return put(q, (uint32_t)(6 << 2 | 1 | (n - 260) << 16), 4); /* a piece is not longer */
}

static uint8_t *put_copy(uint8_t *q, size_t back, size_t n, size_t last) {
    if (back == last) return put_repeat(q, n);
    if (n <= 11 && back < BACK_NEAR)
        return put(q, (uint32_t)(back >> 8 << 5 | (n - 4) << 2 | 1 | (back & 0xff) << 8), 2);
    size_t first = n <= 64 ? n : n < 64 + 4 ? 60 : 64; /* what is left for the repetition is not below its least */
    q = put(q, (uint32_t)((first - 1) << 2 | 2 | back << 8), 3);
    return n > first ? put_repeat(q, n - first) : q;
}

static size_t same(const uint8_t *a, const uint8_t *b, const uint8_t *end) {
    const uint8_t *from = b;
    while (end - b >= 8) {
        uint64_t x, y;
        memcpy(&x, a, 8);
        memcpy(&y, b, 8);
        if (x != y) return (size_t)(b - from) + (size_t)__builtin_ctzll(x ^ y) / 8;
        a += 8;
        b += 8;
    }
    while (b < end && *a == *b) a++, b++;
    return (size_t)(b - from);
}

typedef struct search {
    jsc_s2_work *w;
    const uint8_t *b;
    size_t n;
    uint32_t shift, depth;
    size_t last, entered; /* the distance of the copy before, 0: none; places in the table */
} search;

static inline uint32_t slot(const search *s, size_t at) { return get32(s->b + at) * 0x9e3779b1u >> s->shift; }

/* The longest of the matches at `at` that are looked at; its length, 0 for none. */
static size_t best(search *s, size_t at, size_t *back) {
    const uint8_t *b = s->b, *end = b + s->n;
    size_t most = 0;
    for (; s->entered < at; s->entered++) {
        uint32_t h = slot(s, s->entered);
        s->w->before[s->entered] = s->w->heads[h];
        s->w->heads[h] = (uint16_t)s->entered;
    }
    if (s->last && s->last <= at && get32(b + at) == get32(b + at - s->last)) {
        most = same(b + at - s->last, b + at, end) + 1; /* it is a byte shorter to say */
        *back = s->last;
    }
    size_t to = s->w->heads[slot(s, at)];
    for (uint32_t i = 0; i < s->depth && to < at; i++) {
        if (at + most < s->n && b[to + most] == b[at + most] && get32(b + to) == get32(b + at)) {
            size_t n = same(b + to, b + at, end);
            if (n > most) {
                most = n;
                *back = at - to;
            }
        }
        size_t next = s->w->before[to];
        if (next >= to) break;
        to = next;
    }
    return most ? same(b + at - *back, b + at, end) : 0;
}

/* Where the next place has a longer match, that is taken. */
static size_t next_long(search *s, size_t from, size_t *start, size_t *back) {
    for (size_t at = from; at + TAIL <= s->n; at += 1 + ((at - from) >> 8)) {
        size_t n = best(s, at, back);
        if (!n) continue;
        while (at + 1 + TAIL <= s->n && n < 64) {
            size_t other = 0, longer = best(s, at + 1, &other);
            if (longer <= n + 1) break;
            at++;
            n = longer;
            *back = other;
        }
        *start = at;
        return n;
    }
    return 0;
}

/* The first match is taken, and where there was none for long most places are not looked at. */
static size_t next_fast(search *s, size_t from, size_t *start, size_t *back) {
    const uint8_t *b = s->b;
    for (size_t at = from; at + TAIL <= s->n; at += 1 + ((at - from) >> 5)) {
        uint32_t v = get32(b + at), h = slot(s, at);
        size_t to = s->w->heads[h];
        s->w->heads[h] = (uint16_t)at;
        if (s->last && s->last <= at && get32(b + at - s->last) == v) *back = s->last;
        else if (to < at && get32(b + to) == v) *back = at - to;
        else continue;
        size_t n = 4 + same(b + at - *back + 4, b + at + 4, b + s->n);
        for (; at > from && at > *back && b[at - 1] == b[at - *back - 1]; at--) n++;
        *start = at;
        return n;
    }
    return 0;
}

/* Elements for n bytes; where they end, or NULL when they are more than `room` bytes. */
static uint8_t *put_elements(jsc_s2_work *w, int level, const uint8_t *b, size_t n, uint8_t *q, size_t room) {
    const uint8_t *limit = q + room;
    uint32_t bits = 8;
    while (bits < 14 && (1u << bits) < n) bits++;
    search s = {.w = w, .b = b, .n = n, .shift = 32 - bits, .depth = level >= JSC_S2_BEST ? 12 : 4};
    size_t at = 0, start, back;
    memset(w->heads, 0, sizeof *w->heads << bits); /* place 0 is in all of it: what is found is compared anyway */
    for (;;) {
        size_t len = level > JSC_S2_FAST ? next_long(&s, at, &start, &back) : next_fast(&s, at, &start, &back);
        if (!len) break;
        if ((size_t)(limit - q) < start - at + ELEMENTS) return NULL;
        q = put_literal(q, b + at, start - at);
        q = put_copy(q, back, len, s.last);
        s.last = back;
        at = start + len;
        if (level == JSC_S2_FAST && at + TAIL <= n) w->heads[slot(&s, at - 2)] = (uint16_t)(at - 2);
    }
    return (size_t)(limit - q) < n - at + ELEMENTS ? NULL : put_literal(q, b + at, n - at);
}

/* The same behind a block's size. Where little is saved the reader's work is not worth it: NULL. */
static uint8_t *put_block(jsc_s2_work *w, int level, const uint8_t *b, size_t n, uint8_t *q) {
    size_t least = n / 32 + VARINT + ELEMENTS;
    if (level == JSC_S2_STORE || n <= least) return NULL;
    for (size_t rest = n; rest; rest >>= 7) *q++ = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
    return put_elements(w, level, b, n, q, n - least);
}

size_t jsc_s2_pack(jsc_s2_work *w, int level, const void *from, size_t n, void *to) {
    const uint8_t *b = from;
    uint8_t *q = (uint8_t *)to + ID_BYTES;
    memcpy(to, identity, ID_BYTES);
    while (n) {
        size_t k = n < JSC_S2_PIECE ? n : JSC_S2_PIECE;
        uint8_t *head = q;
        q = put(q + JSC_S2_HEAD, checksum(b, k), JSC_S2_SUM);
        uint8_t *end = put_block(w, level, b, k, q);
        *head = end ? JSC_S2_BLOCK : JSC_S2_PLAIN;
        if (!end) end = (uint8_t *)memcpy(q, b, k) + k;
        put(head + 1, (uint32_t)(end - head - JSC_S2_HEAD), 3);
        q = end;
        b += k;
        n -= k;
    }
    return (size_t)(q - (uint8_t *)to);
}
