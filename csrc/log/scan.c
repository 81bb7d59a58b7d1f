/* The walk over a segment's image. */
#include "scan.h"

#include <errno.h>

void jsc_scan_init(jsc_scan *c, uint64_t first, uint32_t last_term) {
    *c = (jsc_scan){.first = first, .expected = first, .last_term = last_term, .batch_term = last_term};
}

void jsc_scan_free(jsc_scan *c) {
    free(c->table);
    free(c->trailers);
    free(c->good);
    free(c->lost);
    c->table = NULL;
    c->trailers = c->good = NULL;
    c->lost = NULL;
}

static int grow(void **p, size_t n, size_t *cap, size_t item) { return jsc_reserve(p, n, 1, cap, item); }

static int note(jsc_scan *c, uint32_t value) {
    int rc = grow((void **)&c->table, c->count, &c->cap, sizeof *c->table);
    if (rc == JSC_OK) c->table[c->count++] = value;
    return rc;
}

/* Counts in the record at `at`: one index, or those of a gap. JSC_ECORRUPT: a gap that claims too much. */
static int take(jsc_scan *c, const jsc_record *r, uint64_t at) {
    uint64_t last = r->index, seqs;
    int rc;
    if (r->kind == JSC_K_GAP) {
        if (jsc_gap_decode(r, &last, &seqs) != JSC_OK) return JSC_ECORRUPT;
        uint64_t span = last - c->first + 1, most = c->size / JSC_RECORD_HEAD;
        if (span > (most > JSC_SPAN_MAX ? most : JSC_SPAN_MAX)) return JSC_ECORRUPT;
    }
    if ((rc = note(c, (uint32_t)(at / 8))) < 0) return rc;
    for (uint64_t i = r->index; i < last; i++)
        if ((rc = note(c, JSC_AT_GAP / 8)) < 0) return rc;
    c->pending += (uint32_t)(last - r->index + 1);
    c->expected = last + 1;
    c->last_term = r->term;
    c->last_ts = r->ts;
    return JSC_OK;
}

/* Trailers of the segment's salt; where that is not known, of the first that is found, which must be the first batch's
 * unless `any`. */
static int gather(jsc_scan *c, bool any) {
    for (uint64_t at = JSC_SEGMENT_HEAD; at + JSC_TRAILER_BYTES <= c->size; at += 8) {
        const uint8_t *p = c->p + at;
        if (p[30] != JSC_K_TRAILER) continue;
        uint32_t len = jsc_get32(p + 4);
        if ((len != JSC_TRAILER_BYTES && len != JSC_TRAILER_MAX) || len > c->size - at) continue;
        jsc_record r;
        size_t used;
        jsc_trailer t;
        if (jsc_record_decode(p, len, &r, &used) != JSC_OK || jsc_trailer_decode(&r, &t) != JSC_OK) continue;
        if (t.start > at || t.start < JSC_SEGMENT_HEAD || t.start % 8) continue;
        if (t.count > t.index || t.index - t.count + 1 < c->first) continue;
        if (!c->salt_known) {
            bool first = t.start == JSC_SEGMENT_HEAD && (!t.count || t.index - t.count + 1 == c->first);
            if (!first && !any) continue;
            c->salt = t.salt;
            c->salt_known = true;
        }
        if (t.salt != c->salt) continue;
        int rc = grow((void **)&c->trailers, c->ntrailers, &c->trailers_cap, sizeof *c->trailers);
        if (rc < 0) return rc;
        c->trailers[c->ntrailers++] = (jsc_found_trailer){at, len, t};
    }
    return JSC_OK;
}

int jsc_scan_gather(jsc_scan *c) {
    if (c->gathered) return JSC_OK;
    c->gathered = true;
    int rc = gather(c, false);
    if (rc != JSC_OK || c->salt_known || c->size < JSC_SEGMENT_HEAD) return rc;
    /* Without a head the first batch's trailer names the salt. With that lost too, any does, as what a recycled file has
     * behind its own is of earlier indexes; but only where there was a head: one that is all zeros was never written, and
     * what is behind it never synced. */
    for (size_t i = 0; i < JSC_SEGMENT_HEAD; i++)
        if (c->p[i]) return gather(c, true);
    return rc;
}

/* Notes the lost records [c->expected, hi]; the first one starts, or should, at c->at. */
static int lose(jsc_scan *c, uint64_t hi) {
    int rc = JSC_OK;
    if (c->expected > hi) return JSC_OK;
    jsc_lost *before = c->nlost ? &c->lost[c->nlost - 1] : NULL;
    if (before && before->last + 1 == c->expected) {
        before->last = hi;
    } else {
        if ((rc = grow((void **)&c->lost, c->nlost, &c->lost_cap, sizeof *c->lost)) < 0) return rc;
        c->lost[c->nlost++] = (jsc_lost){c->expected, hi, c->at};
    }
    size_t more = (size_t)(hi + 1 - c->expected); /* many, when a file is gone: one step for all */
    if ((rc = jsc_reserve((void **)&c->table, c->count, more, &c->cap, sizeof *c->table)) < 0) return rc;
    memset(c->table + c->count, 0, more * sizeof *c->table);
    c->count += more;
    c->expected = hi + 1;
    return rc;
}

int jsc_scan_lose(jsc_scan *c, uint64_t last) { return last - c->first < JSC_SPAN_MAX ? lose(c, last) : JSC_OK; }

static void rewind_to(jsc_scan *c, uint64_t index) {
    c->count = (size_t)(index - c->first);
    c->expected = index;
    while (c->nlost && c->lost[c->nlost - 1].first >= index) c->nlost--;
    if (c->nlost && c->lost[c->nlost - 1].last >= index) c->lost[c->nlost - 1].last = index - 1;
}

static void start_batch(jsc_scan *c, uint64_t at) {
    c->at = c->batch_start = at;
    c->pending = 0;
    c->batch_crc = 0;
    c->batch_term = c->last_term;
}

static int keep_trailer(jsc_scan *c, const jsc_found_trailer *f) {
    if (f->t.commit > c->commit) c->commit = f->t.commit;
    if (f->t.durable > c->durable) c->durable = f->t.durable;
    if (!c->keep_trailers) return JSC_OK;
    int rc = grow((void **)&c->good, c->ngood, &c->good_cap, sizeof *c->good);
    if (rc == JSC_OK) c->good[c->ngood++] = *f;
    return rc;
}

enum { BAD_MAX = 8 }; /* bad records of a batch among which the good ones can be told */

typedef struct bad_places {
    uint64_t at[BAD_MAX], end[BAD_MAX];
    size_t n;
} bad_places;

/* The records found around the bad ones are the batch's own, and not what a payload made of itself: the trailer's
 * checksum over all records' stored checksums fits, with what stands in the bad ones' checksum fields or, where those are
 * what is damaged, with what they should be. */
static bool proven(const jsc_scan *c, const jsc_found_trailer *f, const bad_places *b) {
    for (int recomputed = 0; recomputed < 2; recomputed++) {
        uint32_t crc = 0;
        size_t k = 0;
        for (uint64_t at = c->batch_start; at < f->at;) {
            uint32_t stored = jsc_get32(c->p + at), len = jsc_get32(c->p + at + 4);
            if (k < b->n && at == b->at[k]) {
                if (recomputed && len >= JSC_RECORD_HEAD && len <= b->end[k] - at)
                    stored = jsc_crc32c(0, c->p + at + 4, len - 4);
                at = b->end[k++];
            } else {
                at += JSC_PAD((uint64_t)len);
            }
            crc = jsc_crc32c(crc, &stored, sizeof stored);
        }
        if (jsc_trailer_crc(&f->t, crc) == f->t.crc) return true;
    }
    return false;
}

/* Follows good records from c->at; where it stands at the end is for the caller to judge. */
static int follow(jsc_scan *c, const jsc_found_trailer *f) {
    jsc_record r;
    size_t used;
    while (c->at < f->at && c->expected <= f->t.index &&
           jsc_record_decode(c->p + c->at, (size_t)(f->at - c->at), &r, &used) == JSC_OK && r.index == c->expected &&
           r.kind != JSC_K_TRAILER) {
        int rc = take(c, &r, c->at);
        if (rc == JSC_ECORRUPT) break;
        if (rc < 0) return rc;
        c->at += used;
    }
    return JSC_OK;
}

/* The end of the bad record at c->at: where its length leads, if that makes sense; else the next place where a record
 * with a later index verifies. *index: of that one. 0: none. */
static uint64_t end_of_bad(const jsc_scan *c, const jsc_found_trailer *f, bool by_length, uint64_t *index) {
    if (by_length) {
        size_t len = jsc_get32(c->p + c->at + 4);
        *index = c->expected + 1;
        return len < JSC_RECORD_HEAD || len > f->at - c->at || JSC_PAD(len) > f->at - c->at ? 0 : c->at + JSC_PAD(len);
    }
    for (uint64_t at = c->at + 8; at + JSC_RECORD_HEAD <= f->at; at += 8) {
        jsc_record r;
        size_t used;
        *index = jsc_get64(c->p + at + 8);
        if (*index != c->expected + 1 || *index > f->t.index) continue;
        if (jsc_record_decode(c->p + at, (size_t)(f->at - at), &r, &used) == JSC_OK && r.kind != JSC_K_TRAILER)
            return at;
    }
    *index = f->t.index + 1; /* it was the last of the batch */
    return c->expected == f->t.index ? f->at : 0;
}

/* The batch of trailer f starts where c's does and has bad records, the first at c->at. Loses only those if that can be
 * proven, else all from the first bad one to the end of the batch. */
static int step_over(jsc_scan *c, const jsc_found_trailer *f) {
    const uint64_t first_bad = c->expected, bad_at = c->at;
    int rc;
    for (int by_length = 1; by_length >= 0; by_length--) {
        bad_places b = {.n = 0};
        while (c->at < f->at && c->expected <= f->t.index && b.n < BAD_MAX) {
            uint64_t index, end = end_of_bad(c, f, by_length, &index);
            if (!end) break;
            b.at[b.n] = c->at;
            b.end[b.n++] = end;
            if ((rc = lose(c, index - 1)) < 0) return rc;
            c->at = end;
            if ((rc = follow(c, f)) < 0) return rc;
        }
        if (c->at == f->at && c->expected == f->t.index + 1 && proven(c, f, &b)) return JSC_OK;
        rewind_to(c, first_bad);
        c->at = bad_at;
    }
    return lose(c, f->t.index);
}

/* Something at c->at does not verify. Sets c->torn, or steps to the next good batch; *stop: nothing follows. */
static int bad(jsc_scan *c, bool *stop) {
    int rc;
    *stop = false;
    uint64_t first = c->expected - c->pending, durable = c->open ? c->known : c->next - 1;
    if (!c->pending && c->end <= c->at) { /* zeros to the end */
        *stop = true;
        return JSC_OK;
    }
    if ((rc = jsc_scan_gather(c)) < 0) return rc;
    const jsc_found_trailer *f = NULL;
    for (size_t i = c->ntrailers; i-- > 0 && c->trailers[i].at >= c->at;) {
        f = &c->trailers[i];
        if (c->open && f->t.durable > durable) durable = f->t.durable;
    }
    if (c->open && durable < first) {
        *stop = true;
        if (!c->pending && !f && (c->flags & JSC_SF_RECYCLED)) return JSC_OK; /* the file's former life */
        rewind_to(c, first);
        c->last_term = c->batch_term;
        c->torn = true;
        return JSC_OK;
    }
    if (!f) { /* the rest of a file that is complete */
        *stop = true;
        return JSC_OK;
    }
    uint64_t batch_first = f->t.index - f->t.count + 1;
    if (f->t.start <= c->batch_start) {
        if (f->t.start == c->batch_start && f->at > c->at && batch_first == first && c->expected <= f->t.index) {
            if ((rc = step_over(c, f)) < 0) return rc;
        } else if (batch_first == first) { /* each record verifies, the batch does not */
            rewind_to(c, first);
            c->at = c->batch_start;
            if ((rc = lose(c, f->t.index)) < 0) return rc;
        } else {
            return JSC_ECORRUPT;
        }
        start_batch(c, f->at + f->bytes);
        return keep_trailer(c, f);
    }
    /* Trailers are missing up to another batch. What was read of this one stands: each record verified. */
    if (batch_first < c->expected) {
        if (batch_first < first) return JSC_ECORRUPT;
        rewind_to(c, batch_first);
    } else if (batch_first - c->expected > (f->t.start - c->batch_start) / JSC_RECORD_HEAD &&
               !(c->flags & JSC_SF_REWRITTEN)) {
        return JSC_ECORRUPT;
    } else if (batch_first - c->expected > JSC_SPAN_MAX) {
        return JSC_ECORRUPT;
    }
    if (batch_first > c->expected) {
        if ((rc = lose(c, batch_first - 1)) < 0) return rc;
    } else if (!c->bad_trailer_at) {
        c->bad_trailer_at = c->at;
    }
    start_batch(c, f->t.start);
    return JSC_OK;
}

static int walk(jsc_scan *c) {
    int rc;
    bool stop = false;
    while (!stop) {
        jsc_record r;
        size_t used;
        jsc_trailer t;
        bool complete = c->stop_at_next && !c->pending && c->expected >= c->next;
        if (c->at >= c->size || jsc_record_decode(c->p + c->at, (size_t)(c->size - c->at), &r, &used) != JSC_OK) {
            if (complete) break;
            if ((rc = bad(c, &stop)) < 0) return rc;
            continue;
        }
        if (complete && r.kind != JSC_K_TRAILER) break;
        if (r.kind != JSC_K_TRAILER && r.index == c->expected) {
            rc = take(c, &r, c->at);
            if (rc == JSC_ECORRUPT) rc = bad(c, &stop);
            else if (rc == JSC_OK) {
                uint32_t crc = jsc_get32(c->p + c->at);
                c->batch_crc = jsc_crc32c(c->batch_crc, &crc, sizeof crc);
                c->at += used;
            }
            if (rc < 0) return rc;
            continue;
        }
        bool tagged =
            c->headless ? used == JSC_TRAILER_MAX : c->flags & JSC_SF_ENCRYPTED && !(c->flags & JSC_SF_PACKED);
        if (jsc_trailer_decode(&r, &t) != JSC_OK || t.salt != c->salt || t.start != c->batch_start ||
            t.count != c->pending || t.index != c->expected - 1 || (used == JSC_TRAILER_MAX) != tagged ||
            t.crc != jsc_trailer_crc(&t, tagged ? 0 : c->batch_crc)) {
            if (complete) break;
            if ((rc = bad(c, &stop)) < 0) return rc;
            continue;
        }
        if ((rc = keep_trailer(c, &(jsc_found_trailer){c->at, (uint32_t)used, t})) < 0) return rc;
        start_batch(c, c->at + used);
    }
    return JSC_OK;
}

void jsc_scan_end(jsc_scan *c) {
    for (c->end = c->size; c->end >= 8 && jsc_get64(c->p + c->end - 8) == 0;) c->end -= 8;
}

int jsc_scan_run(jsc_scan *c) {
    jsc_scan_end(c);
    if (!c->open && c->next == UINT64_MAX && c->flags & JSC_SF_REWRITTEN) c->end = c->size; /* no reserved space */
    start_batch(c, JSC_SEGMENT_HEAD);
    int rc = walk(c);
    if (rc < 0) return rc;
    for (size_t i = 0; i < c->count; i++)
        if (c->table[i] > JSC_AT_GAP / 8) c->bytes += JSC_PAD((size_t)jsc_get32(c->p + (uint64_t)c->table[i] * 8 + 4));
    return JSC_OK;
}
