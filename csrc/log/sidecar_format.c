/* The head of a sidecar, and the arithmetic of its sections. */
#include "sidecar_format.h"

void jsc_sidecar_head_encode(const jsc_sidecar_head *h, uint8_t out[JSC_SIDECAR_HEAD]) {
    const jsc_sidecar_info *i = &h->info;
    memset(out, 0, JSC_SIDECAR_HEAD);
    jsc_put64(out, JSC_SIDECAR_MAGIC);
    jsc_put32(out + 8, JSC_SIDECAR_VERSION);
    jsc_put32(out + 12, h->flags);
    jsc_put64(out + 16, i->salt);
    jsc_put64(out + 24, i->segment_bytes);
    jsc_put64(out + 32, i->segment_digest);
    jsc_put64(out + 40, i->first);
    jsc_put64(out + 48, i->last);
    jsc_put64(out + 56, i->base_seq);
    jsc_put64(out + 64, i->last_seq);
    jsc_put64(out + 72, i->used);
    jsc_put64(out + 80, i->record_bytes);
    jsc_put64(out + 88, i->message_bytes);
    jsc_put64(out + 96, (uint64_t)i->first_ts);
    jsc_put64(out + 104, (uint64_t)i->last_ts);
    jsc_put32(out + 112, i->last_term);
    jsc_put32(out + 116, i->count);
    jsc_put32(out + 120, i->subjects);
    jsc_put32(out + 124, i->records);
    jsc_put32(out + 128, i->lost);
    jsc_put32(out + 132, h->runs);
    jsc_put32(out + 136, h->others);
    jsc_put32(out + 140, i->key_id);
    jsc_put64(out + 144, h->own_salt);
    jsc_put64(out + 152, h->text_bytes);
    jsc_put64(out + 160, h->body);
    jsc_put64(out + 176, h->digest);
    memcpy(out + 184, i->segment_head, sizeof i->segment_head);
    jsc_put32(out + 252, jsc_crc32c(0, out, 252));
}

static bool all_zero(const uint8_t *p, size_t n) {
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++) any |= p[i];
    return !any;
}

/* What must hold of the numbers of a head whatever the body is. */
static bool head_sound(const jsc_sidecar_head *h) {
    const jsc_sidecar_info *i = &h->info;
    jsc_sidecar_layout l;
    if (h->flags & ~(uint32_t)JSC_XF_KNOWN) return false;
    if (!(h->flags & JSC_XF_ENCRYPTED) != !i->key_id) return false;
    if (i->last == UINT64_MAX || i->first > i->last + 1 || jsc_sidecar_span(i) > UINT32_MAX) return false;
    if (i->base_seq > i->last_seq || i->used > JSC_SIDECAR_OFFSET_MAX || i->used % 8) return false;
    if (i->message_bytes > i->record_bytes || i->record_bytes > i->used) return false;
    if (i->count > JSC_SIDECAR_COUNT_MAX || i->subjects > i->count || (i->count && !i->subjects)) return false;
    if (!i->count && (i->first_ts || i->last_ts || i->message_bytes)) return false;
    if ((uint64_t)i->records + i->lost > jsc_sidecar_span(i)) return false;
    if (h->others > (uint64_t)i->records + i->lost || (i->count && !h->runs) || h->runs > i->count) return false;
    if (h->text_bytes > UINT32_MAX) return false;
    jsc_sidecar_lay_out(h, &l);
    return h->body == l.end;
}

int jsc_sidecar_head_decode(const uint8_t in[JSC_SIDECAR_HEAD], jsc_sidecar_head *out) {
    if (jsc_get64(in) != JSC_SIDECAR_MAGIC) return JSC_ECORRUPT;
    /* The checksum first, as in a segment's head: what is damaged is not of another version. */
    if (jsc_get32(in + 252) != jsc_crc32c(0, in, 252)) return JSC_ECORRUPT;
    if (jsc_get32(in + 8) != JSC_SIDECAR_VERSION) return JSC_EFORMAT;
    jsc_sidecar_head h = {
        .flags = jsc_get32(in + 12),
        .info =
            {
                .salt = jsc_get64(in + 16),
                .segment_bytes = jsc_get64(in + 24),
                .segment_digest = jsc_get64(in + 32),
                .first = jsc_get64(in + 40),
                .last = jsc_get64(in + 48),
                .base_seq = jsc_get64(in + 56),
                .last_seq = jsc_get64(in + 64),
                .used = jsc_get64(in + 72),
                .record_bytes = jsc_get64(in + 80),
                .message_bytes = jsc_get64(in + 88),
                .first_ts = (int64_t)jsc_get64(in + 96),
                .last_ts = (int64_t)jsc_get64(in + 104),
                .last_term = jsc_get32(in + 112),
                .count = jsc_get32(in + 116),
                .subjects = jsc_get32(in + 120),
                .records = jsc_get32(in + 124),
                .lost = jsc_get32(in + 128),
                .key_id = jsc_get32(in + 140),
            },
        .runs = jsc_get32(in + 132),
        .others = jsc_get32(in + 136),
        .own_salt = jsc_get64(in + 144),
        .text_bytes = jsc_get64(in + 152),
        .body = jsc_get64(in + 160),
        .digest = jsc_get64(in + 176),
    };
    if (!all_zero(in + 168, 8) || !all_zero(in + 248, 4) || !head_sound(&h)) return JSC_ECORRUPT;
    memcpy(h.info.segment_head, in + 184, sizeof h.info.segment_head);
    *out = h;
    return JSC_OK;
}

static uint64_t section(uint64_t *at, uint64_t n, uint64_t width) {
    uint64_t start = *at;
    *at += (n * width + 7) & ~(uint64_t)7;
    return start;
}

void jsc_sidecar_lay_out(const jsc_sidecar_head *h, jsc_sidecar_layout *l) {
    uint64_t n = h->info.count, subjects = h->info.subjects, at = 0;
    l->nblooms = (uint32_t)((subjects * JSC_SIDECAR_BLOOM_BITS + 511) / 512);
    l->nslots = subjects ? (uint32_t)(subjects + subjects / 4 + 1) : 0;
    l->slot_bits = 0;
    while (subjects >> l->slot_bits) l->slot_bits++;
    l->bloom = section(&at, l->nblooms, 64);
    l->seq = section(&at, n, 8);
    l->ts = section(&at, n, 8);
    l->offset = section(&at, n, 4);
    l->size = section(&at, n, 4);
    l->subject = section(&at, n, 4);
    l->bytes = section(&at, h->flags & JSC_XF_BYTES ? n : 0, 4);
    l->starts = section(&at, subjects + 1, 4);
    l->postings = section(&at, n, 4);
    l->text_starts = section(&at, subjects + 1, 4);
    l->texts = section(&at, h->text_bytes, 1);
    l->slots = section(&at, l->nslots, 4);
    l->runs = section(&at, h->runs, 8);
    l->others = section(&at, h->others, 8);
    l->end = at;
}
