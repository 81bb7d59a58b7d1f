/* A segment in the making: records kept, gaps for those taken out, trailers, and with it the index for its sidecar. The
 * image is the same whether it goes to a plain file or a packed one. See docs/format.md#compaction. */
#include "care.h"

#include <errno.h>
#include <fcntl.h>

enum { BUFFER = 256 << 10, BATCH = 64 << 10, SYNC_EVERY = 8 << 20 };

struct jsc_draft {
    jsc_mlog *mlog;
    const jsc_vfs *vfs;
    int fd;
    jsc_pack_writer *pack; /* NULL: plain */
    jsc_keys *keys;
    jsc_segment_head head;
    uint8_t *buffer;
    size_t used;
    uint64_t at; /* offset in the image behind the last byte put */
    uint64_t written, synced;
    /* the batch */
    uint64_t batch_start, batch_first;
    uint32_t batch_crc;
    /* the records so far */
    uint64_t next, seq;
    uint32_t term;
    int64_t ts, message_ts;
    uint64_t gap_first, gap_seqs; /* gap_first 0: no gap open, else it ends before `next` */
    uint64_t record_bytes;
    jsc_tail *tail;
    jsc_sidecar_record *records;
    size_t nrecords, records_cap;
    bool begun;
};

static int flush(jsc_draft *d) {
    int rc = JSC_OK;
    if (!d->used) return rc;
    if (d->pack) rc = jsc_pack_add(d->pack, d->buffer, d->used);
    else rc = jsc_write_all(d->vfs, d->fd, d->buffer, d->used, d->at - d->used);
    if (rc != JSC_OK) return rc;
    d->written += d->used;
    d->used = 0;
    /* Little by little, so that the last sync is short and the writers' syncs beside it are not held up for long. */
    if (d->written - d->synced >= SYNC_EVERY) {
        if ((rc = d->vfs->datasync(d->vfs->self, d->fd)) < 0) return rc;
        d->synced = d->written;
    }
    return jsc_care_pace(d->mlog, BUFFER);
}

static int put(jsc_draft *d, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    while (n) {
        size_t some = n < BUFFER - d->used ? n : BUFFER - d->used;
        memcpy(d->buffer + d->used, p, some);
        d->used += some;
        d->at += some;
        p += some;
        n -= some;
        int rc = d->used == BUFFER ? flush(d) : JSC_OK;
        if (rc != JSC_OK) return rc;
    }
    return JSC_OK;
}

int jsc_draft_new(jsc_mlog *mlog, uint64_t first, uint32_t prev_term, uint64_t base_seq, jsc_draft **out) {
    const jsc_mlog_options *o = &mlog->options;
    bool packed = o->zstd_level > 0 || mlog->keys;
    int rc = -ENOMEM;
    jsc_draft *d = calloc(1, sizeof *d);
    if (!d) return rc;
    *d = (jsc_draft){.mlog = mlog,
                     .vfs = mlog->vfs,
                     .fd = -1,
                     .keys = mlog->keys,
                     .head = {.salt = jsc_random(),
                              .first = first,
                              .prev_term = prev_term,
                              .flags = JSC_SF_REWRITTEN,
                              .base_seq = base_seq},
                     .at = JSC_SEGMENT_HEAD,
                     .batch_start = JSC_SEGMENT_HEAD,
                     .batch_first = first,
                     .next = first,
                     .seq = base_seq,
                     .term = prev_term};
    char *path = jsc_segment_path(mlog->log, first, ".tmp");
    if (!path || !(d->buffer = malloc(BUFFER))) goto fail;
    if ((rc = jsc_tail_new(base_seq, &d->tail)) != JSC_OK) goto fail;
    /* What an interrupted run left may be longer than what comes. */
    if ((rc = jsc_care_unlink(mlog, first, ".tmp")) < 0) goto fail;
    if ((rc = d->fd = d->vfs->open(d->vfs->self, path, O_RDWR | O_CREAT, 0644)) < 0) goto fail;
    d->begun = true;
    if (packed) {
        rc = jsc_pack_begin(d->vfs, d->fd, &d->head, o->zstd_level, mlog->keys, &d->pack);
    } else {
        uint8_t head[JSC_SEGMENT_HEAD];
        jsc_segment_head_encode(&d->head, head);
        rc = jsc_write_all(d->vfs, d->fd, head, sizeof head, 0);
    }
    if (rc != JSC_OK) goto fail;
    free(path);
    *out = d;
    return JSC_OK;
fail:
    free(path);
    jsc_draft_free(d, false);
    return rc;
}

void jsc_draft_free(jsc_draft *d, bool installed) {
    if (!d) return;
    if (d->pack) jsc_pack_abandon(d->pack);
    if (d->fd >= 0) d->vfs->close(d->vfs->self, d->fd);
    if (d->begun && !installed) {
        jsc_care_unlink(d->mlog, d->head.first, ".tmp");
        jsc_care_unlink(d->mlog, d->head.first, ".idx.tmp");
    }
    jsc_tail_free(d->tail);
    free(d->records);
    free(d->buffer);
    free(d);
}

static int close_batch(jsc_draft *d) {
    if (d->next == d->batch_first) return JSC_OK;
    uint8_t bytes[JSC_TRAILER_BYTES];
    jsc_trailer t = {.index = d->next - 1,
                     .durable = d->next - 1, /* by the time the file has its name */
                     .commit = d->seq,
                     .salt = d->head.salt,
                     .start = d->batch_start,
                     .count = (uint32_t)(d->next - d->batch_first)};
    jsc_trailer_encode(&t, d->ts, d->batch_crc, bytes);
    int rc = put(d, bytes, sizeof bytes);
    d->batch_start = d->at;
    d->batch_first = d->next;
    d->batch_crc = 0;
    return rc;
}

/* One record's stored bytes, without padding, which is made anew: no checksum covers it. */
static int put_record(jsc_draft *d, const uint8_t *bytes) {
    static const uint8_t zeros[8];
    size_t len = jsc_get32(bytes + 4);
    uint32_t crc = jsc_get32(bytes);
    int rc = put(d, bytes, len);
    if (rc == JSC_OK) rc = put(d, zeros, JSC_PAD(len) - len);
    d->batch_crc = jsc_crc32c(d->batch_crc, &crc, sizeof crc);
    d->record_bytes += JSC_PAD(len);
    return rc;
}

/* Writes the open gap, as one record or, where it is very long, several. */
static int put_gap(jsc_draft *d) {
    uint64_t end = d->next;
    int rc = JSC_OK;
    while (d->gap_first && rc == JSC_OK) {
        uint64_t n = end - d->gap_first < JSC_GAP_MAX ? end - d->gap_first : JSC_GAP_MAX;
        uint64_t seqs = d->gap_seqs < n ? d->gap_seqs : n;
        uint8_t bytes[JSC_GAP_BYTES];
        jsc_gap_encode(d->gap_first, d->gap_first + n - 1, seqs, d->term, d->ts, bytes);
        rc = put_record(d, bytes);
        d->seq += seqs;
        d->gap_seqs -= seqs;
        d->gap_first = d->gap_first + n < end ? d->gap_first + n : 0;
    }
    if (rc == JSC_OK && d->gap_seqs) rc = JSC_ECORRUPT; /* more messages than records */
    return rc;
}

static int note(jsc_draft *d, uint64_t index, uint64_t offset) {
    if (d->nrecords == d->records_cap) {
        size_t cap = d->records_cap ? 2 * d->records_cap : 1024;
        jsc_sidecar_record *grown = realloc(d->records, cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        d->records = grown;
        d->records_cap = cap;
    }
    d->records[d->nrecords++] = (jsc_sidecar_record){index, offset};
    return JSC_OK;
}

int jsc_draft_keep(jsc_draft *d, const jsc_record *r) {
    if (r->index != d->next) return JSC_ECORRUPT;
    int rc = put_gap(d);
    if (rc != JSC_OK || (rc = note(d, r->index, d->at)) != JSC_OK) return rc;
    d->next++;
    d->term = r->term;
    d->ts = r->ts;
    if (r->kind == JSC_K_MESSAGE) {
        /* Times never fall from one message to the next; a record that says so is not one of ours. */
        if (r->ts < d->message_ts && d->seq > d->head.base_seq) return JSC_ECORRUPT;
        d->message_ts = r->ts;
        d->seq++;
        rc = jsc_tail_add(d->tail, d->seq, r->ts, d->at, r->data_len, r->raw_len, r->subject, r->subject_len,
                          jsc_subject_hash(r->subject, r->subject_len));
    }
    if (rc == JSC_OK) rc = put_record(d, r->raw);
    if (rc == JSC_OK && d->at - d->batch_start >= BATCH) rc = close_batch(d);
    return rc;
}

int jsc_draft_drop(jsc_draft *d, uint64_t first, uint64_t last, uint64_t seqs, uint32_t term, int64_t ts) {
    if (first != d->next || last < first || last - d->head.first >= JSC_SPAN_MAX) return JSC_ECORRUPT;
    if (!d->gap_first) d->gap_first = first;
    d->gap_seqs += seqs;
    d->next = last + 1;
    d->term = term;
    d->ts = ts;
    return JSC_OK;
}

void jsc_draft_skip(jsc_draft *d, uint64_t seqs) { d->gap_seqs += seqs; }
uint64_t jsc_draft_room(const jsc_draft *d) { return d->gap_first ? d->next - d->gap_first - d->gap_seqs : 0; }
uint64_t jsc_draft_seq(const jsc_draft *d) { return d->seq + d->gap_seqs; }
uint64_t jsc_draft_written(const jsc_draft *d) { return d->written; }
jsc_tail *jsc_draft_tail(jsc_draft *d) { return d->tail; }

jsc_tail *jsc_draft_take_tail(jsc_draft *d) {
    jsc_tail *t = d->tail;
    d->tail = NULL;
    return t;
}

int jsc_draft_finish(jsc_draft *d, uint64_t last, uint64_t last_seq, jsc_sidecar_info *info, uint64_t *disk_bytes) {
    int rc = put_gap(d);
    if (rc != JSC_OK || (rc = close_batch(d)) != JSC_OK || (rc = flush(d)) != JSC_OK) return rc;
    if (d->next != last + 1 || d->seq != last_seq) return JSC_ECORRUPT;
    jsc_sidecar_info built = {.salt = d->head.salt,
                              .first = d->head.first,
                              .last = last,
                              .base_seq = d->head.base_seq,
                              .last_seq = last_seq,
                              .used = d->at,
                              .record_bytes = d->record_bytes,
                              .last_term = d->term};
    if (d->pack) {
        uint64_t bytes;
        rc = jsc_pack_finish(d->pack, &bytes);
        d->pack = NULL;
        if (rc != JSC_OK) return rc;
    }
    if ((rc = d->vfs->datasync(d->vfs->self, d->fd)) < 0) return rc;
    if ((rc = jsc_file_digest(d->mlog, d->fd, &built.segment_bytes, &built.segment_digest)) != JSC_OK) return rc;
    ssize_t got = d->vfs->pread(d->vfs->self, d->fd, built.segment_head, sizeof built.segment_head, 0);
    if (got < 0) return (int)got;
    uint64_t bytes = 0;
    rc = jsc_sidecar_draft(d->mlog, jsc_tail_part(d->tail), d->records, d->nrecords, &built, d->keys, info, &bytes);
    if (rc == JSC_OK) *disk_bytes = info->segment_bytes + bytes;
    return rc;
}
