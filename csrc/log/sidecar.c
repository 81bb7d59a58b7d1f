/* Reads sidecars: verifies one whole when it is opened, and answers a part's questions from its bytes where they lie.
 *
 * A mapping can change under us in one way: a page that is read from the disk again later may have rotted. So the ids that
 * callers use as places in tables are held inside their bounds as they are read. That costs nothing that can be measured,
 * and leaves wrong numbers at worst, which the record they lead to gives away. */
#define XXH_INLINE_ALL
#include "sidecar_format.h"

#include <errno.h>
#include <xxhash.h>

struct jsc_sidecar {
    jsc_part part;
    jsc_sidecar_head head;
    jsc_sidecar_layout l;
    bool dense; /* no sequence between first and last is missing: they follow from the head */
    const jsc_vfs *vfs;
    const uint8_t *map; /* plain: the file */
    size_t map_len;
    uint8_t *heap; /* encrypted: the body in the clear, and the tag */
    /* the body's sections */
    const uint64_t *bloom, *seqs;
    const int64_t *times;
    const uint32_t *offsets, *sizes, *ids, *bytes; /* bytes: NULL when they follow from the rest */
    const uint32_t *starts, *postings, *text_starts, *slots;
    const char *texts;
    const jsc_sidecar_pair *runs, *others;
};

uint64_t jsc_subject_hash(const char *text, size_t n) { return XXH3_64bits(text, n); }

static inline const jsc_sidecar *of(const jsc_part *p) { return (const jsc_sidecar *)p; }
static inline uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* ---- a part's questions ---- */

static uint32_t part_count(const jsc_part *p) { return of(p)->head.info.count; }
static uint64_t part_seq(const jsc_part *p, uint32_t ord) {
    const jsc_sidecar *s = of(p);
    return s->dense ? s->head.info.base_seq + 1 + ord : s->seqs[ord];
}
static int64_t part_ts(const jsc_part *p, uint32_t ord) { return of(p)->times[ord]; }
static uint64_t part_offset(const jsc_part *p, uint32_t ord) { return (uint64_t)of(p)->offsets[ord] * 8; }
static uint32_t part_size(const jsc_part *p, uint32_t ord) { return of(p)->sizes[ord]; }
static uint32_t part_subjects(const jsc_part *p) { return of(p)->head.info.subjects; }

static uint32_t part_subject(const jsc_part *p, uint32_t ord) {
    return least(of(p)->ids[ord], of(p)->head.info.subjects - 1);
}

static inline jsc_span text_of(const jsc_sidecar *s, uint32_t sid) {
    uint32_t end = least(s->text_starts[sid + 1], (uint32_t)s->head.text_bytes),
             start = least(s->text_starts[sid], end);
    return (jsc_span){s->texts + start, end - start};
}

static jsc_span part_text(const jsc_part *p, uint32_t sid) { return text_of(of(p), sid); }

static uint32_t part_bytes(const jsc_part *p, uint32_t ord) {
    const jsc_sidecar *s = of(p);
    if (s->bytes) return s->bytes[ord] * 8;
    if (!s->offsets[ord]) return 0;
    return (uint32_t)jsc_sidecar_plain_bytes(text_of(s, part_subject(p, ord)).n, s->sizes[ord]);
}

static uint32_t part_find_seq(const jsc_part *p, uint64_t seq) {
    const jsc_sidecar *s = of(p);
    uint32_t n = s->head.info.count, lo = 0, hi = n;
    if (s->dense) {
        uint64_t before = s->head.info.base_seq;
        return seq <= before ? 0 : seq - before - 1 < n ? (uint32_t)(seq - before - 1) : n;
    }
    if (!n || seq > s->seqs[n - 1]) return n;
    if (seq <= s->seqs[0]) return 0;
    /* No two are equal, so it lies no further from either end than the sequences do: without gaps that is the place. */
    uint64_t from_first = seq - s->seqs[0], from_last = s->seqs[n - 1] - seq;
    if (from_first < hi) hi = (uint32_t)from_first;
    if (from_last < n - 1) lo = n - 1 - (uint32_t)from_last;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->seqs[mid] < seq) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static uint32_t part_find_ts(const jsc_part *p, int64_t ts) {
    const jsc_sidecar *s = of(p);
    uint32_t n = s->head.info.count;
    if (!n || ts > s->times[n - 1]) return n;
    if (ts <= s->times[0]) return 0;
    /* Times mostly pass evenly: a guess, then steps of doubling width away from it, then by halves. `lo` is the place
     * behind one that is known to be below, hi is known not to be below. */
    uint64_t all = (uint64_t)s->times[n - 1] - (uint64_t)s->times[0], part = (uint64_t)ts - (uint64_t)s->times[0];
    uint64_t lo = 1, hi = n - 1, width = 1, at = all ? (uint64_t)((double)part / (double)all * (n - 1)) : 0;
    if (at >= n) at = n - 1;
    if (s->times[at] < ts) {
        for (lo = at + 1; lo + width < hi && s->times[lo + width] < ts; width *= 2) lo += width + 1;
        if (lo + width < hi) hi = lo + width;
    } else {
        for (hi = at; hi > lo + width && s->times[hi - width] >= ts; width *= 2) hi -= width;
        if (hi > lo + width) lo = hi - width + 1;
    }
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        if (s->times[mid] < ts) lo = mid + 1;
        else hi = mid;
    }
    return (uint32_t)lo;
}

static uint32_t part_find_subject(const jsc_part *p, const char *text, size_t n, uint64_t hash) {
    const jsc_sidecar *s = of(p);
    int bits = s->l.slot_bits;
    if (!s->l.nslots || !jsc_sidecar_bloom_has(s->bloom, s->l.nblooms, hash)) return JSC_NONE;
    uint32_t slot = jsc_sidecar_place(hash, s->l.nslots), tag = (uint32_t)(hash << bits) >> bits;
    for (uint32_t probes = 0; probes < s->l.nslots; probes++) {
        uint32_t v = s->slots[slot], sid = v & (((uint32_t)1 << bits) - 1);
        if (v == JSC_SIDECAR_NO_SLOT) return JSC_NONE;
        if (v >> bits == tag && sid < s->head.info.subjects) {
            jsc_span t = text_of(s, sid);
            if (t.n == n && memcmp(t.p, text, n) == 0) return sid;
        }
        slot = slot + 1 < s->l.nslots ? slot + 1 : 0;
    }
    return JSC_NONE;
}

static uint32_t part_occurrences(const jsc_part *p, uint32_t sid) {
    const jsc_sidecar *s = of(p);
    uint32_t end = least(s->starts[sid + 1], s->head.info.count);
    return end - least(s->starts[sid], end);
}

static uint32_t part_posting(const jsc_part *p, uint32_t sid, uint32_t k) {
    const jsc_sidecar *s = of(p);
    uint32_t last = s->head.info.count - 1;
    return least(s->postings[least(s->starts[sid] + k, last)], last);
}

static jsc_span list_text(const void *list, uint32_t i) { return text_of(list, i); }

static int part_select(const jsc_part *p, const jsc_filter *f, int (*each)(void *ctx, uint32_t sid), void *ctx) {
    const jsc_sidecar *s = of(p);
    jsc_span one;
    if (!jsc_filter_literal(f, &one)) return jsc_filter_scan(f, s, s->head.info.subjects, list_text, each, ctx);
    uint32_t sid = part_find_subject(p, one.p, one.n, jsc_subject_hash(one.p, one.n));
    return sid == JSC_NONE ? 0 : each(ctx, sid);
}

static const jsc_part_ops sidecar_ops = {
    .count = part_count,
    .seq = part_seq,
    .ts = part_ts,
    .offset = part_offset,
    .size = part_size,
    .bytes = part_bytes,
    .subject = part_subject,
    .find_seq = part_find_seq,
    .find_ts = part_find_ts,
    .subjects = part_subjects,
    .text = part_text,
    .find_subject = part_find_subject,
    .occurrences = part_occurrences,
    .posting = part_posting,
    .select = part_select,
};

/* ---- verifying ---- */

static bool subjects_sound(const jsc_sidecar *s) {
    uint32_t n = s->head.info.subjects, used = 0;
    if (s->text_starts[0] || s->text_starts[n] != s->head.text_bytes) return false;
    for (uint32_t i = 0; i < n; i++) /* ends first: so that every text lies in its section */
        if (s->text_starts[i] > s->text_starts[i + 1] || s->text_starts[i + 1] - s->text_starts[i] > UINT16_MAX)
            return false;
    for (uint32_t i = 1; i < n; i++) {
        jsc_span a = text_of(s, i - 1), b = text_of(s, i);
        int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
        if (c > 0 || (c == 0 && a.n >= b.n)) return false;
    }
    uint32_t mask = ((uint32_t)1 << s->l.slot_bits) - 1;
    for (uint32_t i = 0; i < s->l.nslots; i++) {
        if (s->slots[i] == JSC_SIDECAR_NO_SLOT) continue;
        if ((s->slots[i] & mask) >= n) return false;
        used++;
    }
    return used == n;
}

static bool messages_sound(const jsc_sidecar *s) {
    const jsc_sidecar_info *info = &s->head.info;
    uint64_t end = JSC_SEGMENT_HEAD / 8, used = info->used / 8, total = 0;
    uint32_t n = info->count, bad = 0;
    if (!n) return true;
    if (s->seqs[0] <= info->base_seq || s->seqs[n - 1] > info->last_seq) return false;
    if (s->times[0] != info->first_ts || s->times[n - 1] != info->last_ts) return false;
    for (uint32_t i = 1; i < n; i++) bad |= (s->seqs[i - 1] >= s->seqs[i]) | (s->times[i - 1] > s->times[i]);
    if (bad) return false;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = s->offsets[i], bytes;
        uint32_t sid = s->ids[i];
        if (sid >= info->subjects) return false;
        if (!at) {
            if (s->sizes[i] || (s->bytes && s->bytes[i])) return false;
            continue;
        }
        bytes = jsc_sidecar_plain_bytes(s->text_starts[sid + 1] - s->text_starts[sid], s->sizes[i]) / 8;
        if (s->bytes) {
            if (s->bytes[i] < bytes) return false;
            bytes = s->bytes[i];
        }
        if (at < end || bytes > JSC_RECORD_MAX / 8 || at + bytes > used) return false;
        end = at + bytes;
        total += bytes;
    }
    return total * 8 == info->message_bytes;
}

/* Each ordinal stands with its own subject, ascending, and they are as many as there are messages: so each stands once. */
static bool postings_sound(const jsc_sidecar *s) {
    uint32_t n = s->head.info.count, subjects = s->head.info.subjects;
    if (s->starts[0] || s->starts[subjects] != n) return false;
    for (uint32_t sid = 0; sid < subjects; sid++)
        if (s->starts[sid] >= s->starts[sid + 1]) return false;
    for (uint32_t sid = 0; sid < subjects; sid++) {
        uint32_t next = 0;
        for (uint32_t k = s->starts[sid]; k < s->starts[sid + 1]; k++) {
            uint32_t ord = s->postings[k];
            if (ord < next || ord >= n || s->ids[ord] != sid) return false;
            next = ord + 1;
        }
    }
    return true;
}

static bool records_sound(const jsc_sidecar *s) {
    const jsc_sidecar_head *h = &s->head;
    uint64_t span = jsc_sidecar_span(&h->info), next = 0, before = 0, placed = 0;
    if (h->runs && s->runs[0].value) return false;
    for (uint32_t i = 0; i < h->runs; i++) {
        jsc_sidecar_pair r = s->runs[i], end = {(uint32_t)span, h->info.count};
        if (i + 1 < h->runs) end = s->runs[i + 1];
        if (r.value >= end.value || end.value > h->info.count || r.delta > end.delta) return false;
        if (r.delta == end.delta) continue; /* no index leads to these */
        if (end.delta - r.delta < end.value - r.value) return false;
        placed += end.value - r.value;
    }
    for (uint32_t i = 0; i < h->others; i++) {
        jsc_sidecar_pair o = s->others[i];
        uint64_t at = (uint64_t)o.value * 8;
        if (o.delta < next || o.delta >= span) return false;
        next = (uint64_t)o.delta + 1;
        if (!at) continue;
        if (at < JSC_SEGMENT_HEAD || at <= before || at + JSC_RECORD_HEAD > h->info.used) return false;
        before = at;
    }
    return placed + h->others == (uint64_t)h->info.records + h->info.lost;
}

static int verify(jsc_sidecar *s, const uint8_t *body) {
    const jsc_sidecar_layout *l = &s->l;
    s->bloom = (const void *)(body + l->bloom);
    s->seqs = (const void *)(body + l->seq);
    s->times = (const void *)(body + l->ts);
    s->offsets = (const void *)(body + l->offset);
    s->sizes = (const void *)(body + l->size);
    s->ids = (const void *)(body + l->subject);
    s->bytes = s->head.flags & JSC_XF_BYTES ? (const void *)(body + l->bytes) : NULL;
    s->starts = (const void *)(body + l->starts);
    s->postings = (const void *)(body + l->postings);
    s->text_starts = (const void *)(body + l->text_starts);
    s->texts = (const char *)body + l->texts;
    s->slots = (const void *)(body + l->slots);
    s->runs = (const void *)(body + l->runs);
    s->others = (const void *)(body + l->others);
    bool sound = subjects_sound(s) && messages_sound(s) && postings_sound(s) && records_sound(s);
    /* Ascending, all of them above base_seq and none above last_seq, and as many as fit in between. */
    s->dense = s->head.info.last_seq - s->head.info.base_seq == s->head.info.count;
    return sound ? JSC_OK : JSC_ECORRUPT;
}

/* ---- the file ---- */

static int read_all(const jsc_vfs *vfs, int fd, void *to, size_t n, uint64_t at) {
    for (uint8_t *p = to; n;) {
        ssize_t got = vfs->pread(vfs->self, fd, p, n, (off_t)at);
        if (got < 0) return (int)got;
        if (got == 0) return JSC_ECORRUPT;
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return JSC_OK;
}

static uint64_t file_bytes(const jsc_sidecar_head *h) {
    return JSC_SIDECAR_HEAD + h->body + (h->flags & JSC_XF_ENCRYPTED ? JSC_TAG_BYTES : 0);
}

/* The head, and whether the file is as long as it says. raw: JSC_SIDECAR_HEAD bytes. */
static int read_head(const jsc_vfs *vfs, int fd, uint8_t *raw, jsc_sidecar_head *out) {
    int rc = read_all(vfs, fd, raw, JSC_SIDECAR_HEAD, 0);
    if (!rc) rc = jsc_sidecar_head_decode(raw, out);
    if (rc) return rc;
    int64_t size = vfs->size(vfs->self, fd);
    if (size < 0) return (int)size;
    return (uint64_t)size == file_bytes(out) ? JSC_OK : JSC_ECORRUPT;
}

int jsc_sidecar_peek(const jsc_vfs *vfs, int fd, jsc_sidecar_info *out) {
    uint8_t raw[JSC_SIDECAR_HEAD];
    jsc_sidecar_head h;
    int rc = read_head(vfs, fd, raw, &h);
    if (!rc) *out = h.info;
    return rc;
}

static int decrypt(jsc_sidecar *s, const jsc_keys *keys, const uint8_t *raw) {
    uint64_t body = s->head.body;
    jsc_cipher *cipher;
    int rc = jsc_cipher_new(keys, s->head.info.key_id, s->head.own_salt, "sidecar", &cipher);
    if (rc) return rc;
    rc = jsc_cipher_open(cipher, 0, raw, JSC_SIDECAR_SIGNED, s->heap, body, s->heap, s->heap + body);
    jsc_cipher_free(cipher);
    return rc;
}

int jsc_sidecar_open(const jsc_vfs *vfs, int fd, const jsc_keys *keys, jsc_sidecar **out) {
    uint8_t raw[JSC_SIDECAR_HEAD];
    jsc_sidecar *s = calloc(1, sizeof *s);
    if (!s) return -ENOMEM;
    s->part.ops = &sidecar_ops;
    s->vfs = vfs;
    int rc = read_head(vfs, fd, raw, &s->head);
    if (rc) goto fail;
    jsc_sidecar_lay_out(&s->head, &s->l);
    const uint8_t *body;
    bool encrypted = s->head.flags & JSC_XF_ENCRYPTED;
    size_t n = file_bytes(&s->head);
    if (encrypted) {
        /* As long as the file, so no more than somebody took the trouble to store. */
        body = s->heap = malloc(n - JSC_SIDECAR_HEAD);
        rc = s->heap ? read_all(vfs, fd, s->heap, n - JSC_SIDECAR_HEAD, JSC_SIDECAR_HEAD) : -ENOMEM;
    } else {
        rc = vfs->map(vfs->self, fd, n, (const void **)&s->map);
        if (rc) goto fail;
        s->map_len = n;
        body = s->map + JSC_SIDECAR_HEAD;
        if (memcmp(s->map, raw, sizeof raw) != 0) rc = JSC_ECORRUPT;
    }
    if (rc) goto fail;
    if (jsc_subject_hash((const char *)body, s->head.body) != s->head.digest) rc = JSC_ECORRUPT;
    if (!rc && encrypted) rc = decrypt(s, keys, raw);
    if (!rc) rc = verify(s, body);
    if (rc) goto fail;
    *out = s;
    return JSC_OK;
fail:
    jsc_sidecar_close(s);
    return rc;
}

void jsc_sidecar_close(jsc_sidecar *s) {
    if (!s) return;
    if (s->map) s->vfs->unmap(s->vfs->self, s->map, s->map_len);
    free(s->heap);
    free(s);
}

const jsc_sidecar_info *jsc_sidecar_about(const jsc_sidecar *s) { return &s->head.info; }
size_t jsc_sidecar_heap(const jsc_sidecar *s) { return s->heap ? s->head.body + JSC_TAG_BYTES : 0; }

/* The last of n pairs whose delta is not above; n when there is none. */
static uint32_t pair_at(const jsc_sidecar_pair *p, uint32_t n, uint32_t delta) {
    uint32_t lo = 0, hi = n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (p[mid].delta <= delta) lo = mid + 1;
        else hi = mid;
    }
    return lo ? lo - 1 : n;
}

uint64_t jsc_sidecar_record_at(const jsc_sidecar *s, uint64_t index) {
    const jsc_sidecar_head *h = &s->head;
    uint32_t delta = (uint32_t)(index - h->info.first), i = pair_at(s->runs, h->runs, delta);
    if (i < h->runs) {
        uint64_t ord = (uint64_t)s->runs[i].value + (delta - s->runs[i].delta);
        if (ord < (i + 1 < h->runs ? least(s->runs[i + 1].value, h->info.count) : h->info.count))
            return (uint64_t)s->offsets[ord] * 8;
    }
    i = pair_at(s->others, h->others, delta);
    if (i < h->others && s->others[i].delta == delta) return (uint64_t)s->others[i].value * 8;
    return JSC_AT_GAP;
}

uint64_t jsc_sidecar_index_of(const jsc_sidecar *s, uint32_t ord) {
    uint32_t lo = 0, hi = s->head.runs; /* the last run that begins at or before ord */
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->runs[mid].value <= ord) lo = mid + 1;
        else hi = mid;
    }
    if (!lo) return 0;
    uint64_t delta = (uint64_t)s->runs[lo - 1].delta + (ord - s->runs[lo - 1].value);
    uint64_t end = lo < s->head.runs ? s->runs[lo].delta : jsc_sidecar_span(&s->head.info);
    return delta < end ? s->head.info.first + delta : 0;
}

const void *jsc_sidecar_column(const jsc_sidecar *s, char which) {
    switch (which) {
    case 's': return s->seqs;
    case 't': return s->times;
    case 'o': return s->offsets;
    case 'z': return s->sizes;
    case 'j': return s->ids;
    default: return NULL;
    }
}
