/* Builds a sidecar from a part and the list of its segment's records. First everything is measured and checked, so that
 * the file is made in one piece of memory, in place. */
#include "log_internal.h"
#include "sidecar_format.h"

#include <errno.h>

/* ---- the subjects in order ---- */

/* Seven bytes of the text, big endian, and behind them how many more there are, 8 standing for eight and more: so texts of
 * different lengths differ in their keys or go on. */
typedef struct entry {
    uint64_t key;
    const char *p;
    uint32_t n, sid;
} entry;

static uint64_t key_at(const entry *e, uint32_t depth) {
    uint32_t left = e->n - depth;
    uint64_t v = 0;
    if (left >= 8) {
        memcpy(&v, e->p + depth, 8);
        return (__builtin_bswap64(v) & ~(uint64_t)255) | 8;
    }
    if (left) memcpy(&v, e->p + depth, left);
    return __builtin_bswap64(v) | left;
}

static int entry_compare(const entry *a, const entry *b) {
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    uint32_t n = a->n < b->n ? a->n : b->n;
    int c = n ? memcmp(a->p, b->p, n) : 0;
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

static void swap(entry *a, entry *b) {
    entry t = *a;
    *a = *b;
    *b = t;
}

static uint64_t random_key(const entry *a, size_t n, uint64_t *random) {
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return a[(*random >> 32) % n].key;
}

/* Quicksort of strings in pieces of 7 bytes: split in below, equal and above by the piece at `depth`, whose keys are
 * loaded; the equal go on with the next. Pivots are random, as subjects are their senders' choice. */
static void sort(entry *a, size_t n, uint32_t depth, uint64_t *random) {
    while (n > 16) {
        uint64_t x = random_key(a, n, random), y = random_key(a, n, random), z = random_key(a, n, random), t;
        if (x > y) t = x, x = y, y = t;
        uint64_t pivot = z < x ? x : z > y ? y : z; /* the middle one of three */
        size_t lo = 0, hi = n;
        for (size_t i = 0; i < hi;) {
            if (a[i].key < pivot) swap(&a[lo++], &a[i++]);
            else if (a[i].key > pivot) swap(&a[i], &a[--hi]);
            else i++;
        }
        size_t equal = hi - lo;
        if ((pivot & 255) < 8) equal = 0; /* they have no more bytes */
        for (size_t i = lo; i < lo + equal; i++) a[i].key = key_at(&a[i], depth + 7);
        /* Recursion into the two smaller parts: at most log2(n) deep. */
        if (equal >= lo && equal >= n - hi) {
            sort(a, lo, depth, random);
            sort(a + hi, n - hi, depth, random);
            a += lo;
            n = equal;
            depth += 7;
        } else {
            sort(a + lo, equal, depth + 7, random);
            if (lo > n - hi) {
                sort(a + hi, n - hi, depth, random);
                n = lo;
            } else {
                sort(a, lo, depth, random);
                a += hi;
                n -= hi;
            }
        }
    }
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k && entry_compare(&a[k], &a[k - 1]) < 0; k--) swap(&a[k], &a[k - 1]);
}

/* ---- measuring ---- */

typedef struct build {
    const jsc_part *part;
    const jsc_part_ops *ops;
    const jsc_sidecar_record *records;
    size_t nrecords;
    jsc_sidecar_head head;
    jsc_sidecar_layout l;
    entry *subjects; /* in order */
    uint32_t *rank; /* place in that order, by the part's id */
} build;

static int measure_subjects(build *b) {
    uint32_t n = b->head.info.subjects;
    uint64_t random = jsc_random();
    b->subjects = malloc(((size_t)n + 1) * sizeof *b->subjects);
    b->rank = malloc(((size_t)n + 1) * sizeof *b->rank);
    if (!b->subjects || !b->rank) return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        jsc_span t = b->ops->text(b->part, i);
        if (t.n > UINT16_MAX) return JSC_EINVAL;
        b->subjects[i] = (entry){.p = t.p, .n = (uint32_t)t.n, .sid = i};
        b->subjects[i].key = key_at(&b->subjects[i], 0);
        b->head.text_bytes += t.n;
    }
    if (b->head.text_bytes > UINT32_MAX) return JSC_EINVAL;
    sort(b->subjects, n, 0, &random);
    for (uint32_t i = 0; i < n; i++) {
        entry *e = &b->subjects[i];
        e->key = 0; /* from here on texts are compared whole */
        if (i && entry_compare(e - 1, e) >= 0) return JSC_EINVAL;
        b->rank[e->sid] = i;
    }
    return JSC_OK;
}

static int measure_messages(build *b) {
    const jsc_part_ops *ops = b->ops;
    jsc_sidecar_info *info = &b->head.info;
    uint64_t seq = info->base_seq, end = JSC_SEGMENT_HEAD;
    int64_t ts = INT64_MIN;
    for (uint32_t i = 0; i < info->count; i++) {
        uint64_t at = ops->offset(b->part, i), bytes = ops->bytes(b->part, i), size = ops->size(b->part, i);
        uint32_t sid = ops->subject(b->part, i);
        if (ops->seq(b->part, i) <= seq || ops->ts(b->part, i) < ts || sid >= info->subjects) return JSC_EINVAL;
        seq = ops->seq(b->part, i);
        ts = ops->ts(b->part, i);
        if (!at) {
            if (bytes || size) return JSC_EINVAL;
            continue;
        }
        uint64_t plain = jsc_sidecar_plain_bytes(ops->text(b->part, sid).n, size);
        if (at < end || at % 8 || bytes % 8 || bytes < plain || bytes > JSC_RECORD_MAX) return JSC_EINVAL;
        end = at + bytes;
        info->message_bytes += bytes;
        if (bytes != plain) b->head.flags |= JSC_XF_BYTES;
    }
    if (seq > info->last_seq || (info->message_bytes && end > info->used)) return JSC_EINVAL;
    if (info->count) {
        info->first_ts = ops->ts(b->part, 0);
        info->last_ts = ts;
    }
    return JSC_OK;
}

static void put_pair(jsc_sidecar_pair *to, uint32_t at, uint64_t delta, uint64_t value) {
    if (to) to[at] = (jsc_sidecar_pair){(uint32_t)delta, (uint32_t)value};
}

/* Tells messages from other records by their offsets and puts both into their tables (NULL: only counts). A lost record
 * stands for the next lost message; a lost message that has no lost record of its own, as its neighbours' loss is what
 * made it uncertain, is put where no index leads to it. */
static int place_records(build *b, jsc_sidecar_pair *runs, jsc_sidecar_pair *others) {
    jsc_sidecar_info *info = &b->head.info;
    uint64_t span = jsc_sidecar_span(info), index = info->first, before = 0, run_delta = 0;
    uint32_t nruns = 0, nothers = 0, records = 0, ord = 0, good = 0,
             run = 0; /* ord: next message, good: the next not lost */
    for (size_t i = 0; i < b->nrecords; i++) {
        const jsc_sidecar_record *r = &b->records[i];
        uint64_t delta = r->index - info->first, at = 0;
        if (r->index < index || r->index > info->last) return JSC_EINVAL;
        index = r->index + 1;
        if (r->offset) {
            if (r->offset < JSC_SEGMENT_HEAD || r->offset <= before || r->offset % 8) return JSC_EINVAL;
            if (r->offset + JSC_RECORD_HEAD > info->used) return JSC_EINVAL;
            before = r->offset;
            records++;
            if (good < ord) good = ord;
            while (good < info->count && !(at = b->ops->offset(b->part, good))) good++;
            if (good == info->count || at > r->offset) {
                put_pair(others, nothers++, delta, r->offset / 8);
                continue;
            }
            if (at < r->offset) return JSC_EINVAL; /* a message that is no record */
            if (good > ord) put_pair(runs, nruns++, delta, ord);
            if (good > ord || !nruns || delta - run_delta != ord - run) {
                run_delta = delta;
                run = good;
                put_pair(runs, nruns++, delta, good);
            }
            ord = good + 1;
        } else if (ord < info->count && !b->ops->offset(b->part, ord)) {
            if (!nruns || delta - run_delta != ord - run) {
                run_delta = delta;
                run = ord;
                put_pair(runs, nruns++, delta, ord);
            }
            ord++;
        } else {
            put_pair(others, nothers++, delta, 0);
        }
    }
    if (ord < info->count) {
        for (uint32_t i = ord; i < info->count; i++)
            if (b->ops->offset(b->part, i)) return JSC_EINVAL;
        put_pair(runs, nruns++, span, ord);
    }
    b->head.runs = nruns;
    b->head.others = nothers;
    info->records = records;
    info->lost = (uint32_t)(b->nrecords - records);
    return JSC_OK;
}

static int measure(build *b) {
    jsc_sidecar_info *info = &b->head.info;
    if (info->last == UINT64_MAX || info->first > info->last + 1 || jsc_sidecar_span(info) > UINT32_MAX)
        return JSC_EINVAL;
    if (info->used > JSC_SIDECAR_OFFSET_MAX || info->used % 8 || info->base_seq > info->last_seq) return JSC_EINVAL;
    if (info->count > JSC_SIDECAR_COUNT_MAX || info->subjects > info->count) return JSC_EINVAL;
    int rc = measure_subjects(b);
    if (!rc) rc = measure_messages(b);
    if (!rc) rc = place_records(b, NULL, NULL);
    if (rc) return rc;
    if (info->message_bytes > info->record_bytes || info->record_bytes > info->used) return JSC_EINVAL;
    jsc_sidecar_lay_out(&b->head, &b->l);
    b->head.body = b->l.end;
    return JSC_OK;
}

/* ---- the body ---- */

static void fill_columns(const build *b, uint8_t *body) {
    const jsc_part_ops *ops = b->ops;
    uint64_t *seq = (void *)(body + b->l.seq);
    int64_t *ts = (void *)(body + b->l.ts);
    uint32_t *offset = (void *)(body + b->l.offset), *size = (void *)(body + b->l.size);
    uint32_t *subject = (void *)(body + b->l.subject), *bytes = (void *)(body + b->l.bytes);
    for (uint32_t i = 0; i < b->head.info.count; i++) {
        seq[i] = ops->seq(b->part, i);
        ts[i] = ops->ts(b->part, i);
        offset[i] = (uint32_t)(ops->offset(b->part, i) / 8);
        size[i] = ops->size(b->part, i);
        subject[i] = b->rank[ops->subject(b->part, i)];
        if (b->head.flags & JSC_XF_BYTES) bytes[i] = ops->bytes(b->part, i) / 8;
    }
}

/* Each subject's ordinals, found by counting. `cursor` has room for as many numbers as there are subjects. false: a
 * subject without a message. */
static bool fill_postings(const build *b, uint8_t *body, uint32_t *cursor) {
    uint32_t *starts = (void *)(body + b->l.starts), *postings = (void *)(body + b->l.postings);
    const uint32_t *subject = (const void *)(body + b->l.subject);
    for (uint32_t i = 0; i < b->head.info.count; i++) starts[subject[i] + 1]++;
    for (uint32_t i = 0; i < b->head.info.subjects; i++) {
        if (!starts[i + 1]) return false;
        cursor[i] = starts[i];
        starts[i + 1] += starts[i];
    }
    for (uint32_t i = 0; i < b->head.info.count; i++) postings[cursor[subject[i]]++] = i;
    return true;
}

static void fill_subjects(const build *b, uint8_t *body) {
    uint32_t *starts = (void *)(body + b->l.text_starts), *slots = (void *)(body + b->l.slots), at = 0;
    memset(slots, 255, (size_t)b->l.nslots * 4);
    for (uint32_t i = 0; i < b->head.info.subjects; i++) {
        const entry *e = &b->subjects[i];
        uint64_t hash = jsc_subject_hash(e->p, e->n);
        uint32_t slot = jsc_sidecar_place(hash, b->l.nslots);
        starts[i] = at;
        if (e->n) memcpy(body + b->l.texts + at, e->p, e->n);
        at += e->n;
        jsc_sidecar_bloom_add((void *)(body + b->l.bloom), b->l.nblooms, hash);
        while (slots[slot] != JSC_SIDECAR_NO_SLOT) slot = slot + 1 < b->l.nslots ? slot + 1 : 0;
        slots[slot] = (uint32_t)(hash << b->l.slot_bits) | i;
    }
    starts[b->head.info.subjects] = at;
}

static int seal(build *b, jsc_keys *keys, uint8_t *out) {
    uint8_t *body = out + JSC_SIDECAR_HEAD;
    jsc_cipher *cipher;
    int rc = jsc_cipher_new(keys, b->head.info.key_id, b->head.own_salt, "sidecar", &cipher);
    if (rc) return rc;
    jsc_sidecar_head_encode(&b->head, out);
    /* The key is this file's alone, by its own salt: nonce 0 is used once. */
    rc = jsc_cipher_seal(cipher, 0, out, JSC_SIDECAR_SIGNED, body, b->head.body, body, body + b->head.body);
    jsc_cipher_free(cipher);
    return rc;
}

static int write_out(build *b, jsc_keys *keys, uint8_t **out, size_t *n) {
    if (keys) {
        b->head.flags |= JSC_XF_ENCRYPTED;
        b->head.info.key_id = jsc_keys_current(keys);
        b->head.own_salt = jsc_random();
    }
    size_t bytes = JSC_SIDECAR_HEAD + b->head.body + (keys ? JSC_TAG_BYTES : 0);
    uint8_t *p = calloc(1, bytes), *body = p + JSC_SIDECAR_HEAD;
    if (!p) return -ENOMEM;
    int rc = JSC_EINVAL;
    fill_columns(b, body);
    if (!fill_postings(b, body, b->rank)) goto fail; /* rank has done its work */
    fill_subjects(b, body);
    rc = place_records(b, (void *)(body + b->l.runs), (void *)(body + b->l.others));
    if (!rc && keys) rc = seal(b, keys, p);
    if (rc) goto fail;
    b->head.digest = jsc_subject_hash((const char *)body, b->head.body);
    jsc_sidecar_head_encode(&b->head, p);
    *out = p;
    *n = bytes;
    return JSC_OK;
fail:
    free(p);
    return rc;
}

int jsc_sidecar_build(const jsc_part *part, const jsc_sidecar_record *records, size_t nrecords,
                      const jsc_sidecar_info *info, jsc_keys *keys, uint8_t **out, size_t *n) {
    build b = {.part = part, .ops = part->ops, .records = records, .nrecords = nrecords, .head.info = *info};
    jsc_sidecar_info *i = &b.head.info;
    i->count = b.ops->count(part);
    i->subjects = b.ops->subjects(part);
    i->message_bytes = 0;
    i->first_ts = i->last_ts = 0;
    i->key_id = 0;
    int rc = measure(&b);
    if (!rc) rc = write_out(&b, keys, out, n);
    free(b.subjects);
    free(b.rank);
    return rc;
}
