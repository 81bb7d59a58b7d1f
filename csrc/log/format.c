#include "format.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are stored as the machine has them: little endian");

void jsc_segment_head_encode(const jsc_segment_head *h, uint8_t out[JSC_SEGMENT_HEAD]) {
    memset(out, 0, JSC_SEGMENT_HEAD);
    jsc_put64(out, JSC_SEGMENT_MAGIC);
    jsc_put32(out + 8, JSC_FORMAT_VERSION);
    jsc_put32(out + 12, h->flags);
    jsc_put64(out + 16, h->salt);
    jsc_put64(out + 24, h->first);
    jsc_put32(out + 32, h->prev_term);
    jsc_put32(out + 36, h->key_id);
    jsc_put64(out + 40, h->base_seq);
    jsc_put64(out + 48, h->body);
    jsc_put32(out + 56, h->key_check);
    jsc_put32(out + 60, jsc_crc32c(0, out, 60));
}

int jsc_segment_head_decode(const uint8_t in[JSC_SEGMENT_HEAD], jsc_segment_head *out) {
    if (jsc_get64(in) != JSC_SEGMENT_MAGIC) return JSC_ECORRUPT;
    /* The checksum first, at this place in every version: a damaged or half-written version is damage, not a format. */
    if (jsc_get32(in + 60) != jsc_crc32c(0, in, 60)) return JSC_ECORRUPT;
    uint32_t flags = jsc_get32(in + 12);
    if (jsc_get32(in + 8) != JSC_FORMAT_VERSION || (flags & ~(uint32_t)JSC_SF_KNOWN)) return JSC_EFORMAT;
    jsc_segment_head h = {.salt = jsc_get64(in + 16),
                          .first = jsc_get64(in + 24),
                          .prev_term = jsc_get32(in + 32),
                          .flags = flags,
                          .key_id = jsc_get32(in + 36),
                          .base_seq = jsc_get64(in + 40),
                          .body = jsc_get64(in + 48),
                          .key_check = jsc_get32(in + 56)};
    if (h.first == 0 || h.first > INT64_MAX || h.base_seq > INT64_MAX || h.body > JSC_SEGMENT_MAX) return JSC_ECORRUPT;
    if (!(flags & JSC_SF_ENCRYPTED) != !h.key_id || !(flags & JSC_SF_PACKED) != !h.body) return JSC_ECORRUPT;
    *out = h;
    return JSC_OK;
}

static void trailer_fields(const jsc_trailer *t, uint8_t out[36]) {
    jsc_put64(out, t->durable);
    jsc_put64(out + 8, t->commit);
    jsc_put64(out + 16, t->salt);
    jsc_put64(out + 24, t->start);
    jsc_put32(out + 32, t->count);
}

uint32_t jsc_trailer_crc(const jsc_trailer *t, uint32_t batch_crc) {
    uint8_t fields[36];
    trailer_fields(t, fields);
    return jsc_crc32c(batch_crc, fields, sizeof fields);
}

void jsc_trailer_encode(const jsc_trailer *t, int64_t ts, uint32_t batch_crc, uint8_t out[JSC_TRAILER_BYTES]) {
    memset(out, 0, JSC_RECORD_HEAD);
    jsc_put32(out + 4, JSC_TRAILER_BYTES);
    jsc_put64(out + 8, t->index);
    jsc_put64(out + 16, (uint64_t)ts);
    out[30] = JSC_K_TRAILER;
    trailer_fields(t, out + JSC_RECORD_HEAD);
    jsc_put32(out + JSC_RECORD_HEAD + 36, jsc_trailer_crc(t, batch_crc));
    jsc_put32(out, jsc_crc32c(0, out + 4, JSC_TRAILER_BYTES - 4));
}

void jsc_trailer_tag(uint8_t out[JSC_TRAILER_MAX], const uint8_t tag[16]) {
    jsc_put32(out + 4, JSC_TRAILER_MAX);
    memcpy(out + JSC_TRAILER_BYTES, tag, 16);
    jsc_put32(out, jsc_crc32c(0, out + 4, JSC_TRAILER_MAX - 4));
}

int jsc_trailer_decode(const jsc_record *r, jsc_trailer *out) {
    if (r->kind != JSC_K_TRAILER || (r->data_len != JSC_TRAILER_DATA && r->data_len != JSC_TRAILER_DATA + 16) ||
        r->raw_len != JSC_RECORD_HEAD + r->data_len)
        return JSC_ECORRUPT;
    const uint8_t *p = (const uint8_t *)r->data;
    *out = (jsc_trailer){.index = r->index,
                         .durable = jsc_get64(p),
                         .commit = jsc_get64(p + 8),
                         .salt = jsc_get64(p + 16),
                         .start = jsc_get64(p + 24),
                         .count = jsc_get32(p + 32),
                         .crc = jsc_get32(p + 36)};
    return JSC_OK;
}

void jsc_gap_encode(uint64_t first, uint64_t last, uint64_t seqs, uint32_t term, int64_t ts,
                    uint8_t out[JSC_GAP_BYTES]) {
    memset(out, 0, JSC_GAP_BYTES);
    jsc_put32(out + 4, JSC_GAP_BYTES);
    jsc_put64(out + 8, first);
    jsc_put64(out + 16, (uint64_t)ts);
    jsc_put32(out + 24, term);
    out[30] = JSC_K_GAP;
    jsc_put64(out + JSC_RECORD_HEAD, last);
    jsc_put64(out + JSC_RECORD_HEAD + 8, seqs);
    jsc_put32(out, jsc_crc32c(0, out + 4, JSC_GAP_BYTES - 4));
}

int jsc_gap_decode(const jsc_record *r, uint64_t *last, uint64_t *seqs) {
    if (r->kind != JSC_K_GAP || r->data_len != JSC_GAP_DATA || r->raw_len != JSC_GAP_BYTES) return JSC_ECORRUPT;
    uint64_t to = jsc_get64((const uint8_t *)r->data), n = jsc_get64((const uint8_t *)r->data + 8);
    if (to < r->index || to - r->index >= JSC_GAP_MAX || n > to - r->index + 1) return JSC_ECORRUPT;
    *last = to;
    *seqs = n;
    return JSC_OK;
}

void jsc_record_view(const uint8_t *p, jsc_record *out) {
    uint32_t len = jsc_get32(p + 4), at = JSC_RECORD_HEAD;
    uint8_t flags = p[31];
    uint16_t subject_len = jsc_get16(p + 28);
    uint32_t headers_len = 0;
    if (flags & JSC_F_HEADERS) {
        headers_len = jsc_get32(p + 32);
        at = 40;
    }
    *out = (jsc_record){
        .index = jsc_get64(p + 8),
        .ts = (int64_t)jsc_get64(p + 16),
        .term = jsc_get32(p + 24),
        .kind = p[30],
        .flags = flags,
        .subject_len = subject_len,
        .headers_len = headers_len,
        .data_len = len - at - subject_len - headers_len,
        .subject = (const char *)p + at,
        .headers = (const char *)p + at + subject_len,
        .data = (const char *)p + at + subject_len + headers_len,
        .raw = p,
        .raw_len = (uint32_t)JSC_PAD(len),
    };
}

/* Whether a whole record stands at p as far as its lengths say. */
static inline int whole(const uint8_t *p, size_t n) {
    if (n < JSC_RECORD_HEAD) return 0;
    size_t len = jsc_get32(p + 4), need = JSC_RECORD_HEAD;
    if (len < need || len > JSC_RECORD_MAX || JSC_PAD(len) > n) return 0;
    if (p[31] & ~JSC_F_HEADERS) return 0;
    if (p[31] & JSC_F_HEADERS) {
        need = 40;
        if (len < need) return 0;
        need += jsc_get32(p + 32);
    }
    need += jsc_get16(p + 28);
    return len >= need;
}

int jsc_record_decode(const void *bytes, size_t n, jsc_record *out, size_t *used) {
    const uint8_t *p = bytes;
    if (!whole(p, n) || jsc_get32(p) != jsc_crc32c(0, p + 4, jsc_get32(p + 4) - 4)) return JSC_ECORRUPT;
    jsc_record_view(p, out);
    *used = out->raw_len;
    return JSC_OK;
}

int jsc_record_frame(const void *bytes, size_t n, jsc_record *out, size_t *used) {
    if (!whole(bytes, n)) return JSC_ECORRUPT;
    jsc_record_view(bytes, out);
    *used = out->raw_len;
    return JSC_OK;
}
