/* Appending, submitting, reading; opening and closing. The hot path is jsc_log_append: checks, frame, index, done. */
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

/* ---- append ---- */

/* Refusals that hold before any size is looked at. */
static int writable(const jsc_log *log) {
    if (JSC_UNLIKELY(log->read_only)) return JSC_EREADONLY;
    if (JSC_UNLIKELY(atomic_load_explicit(&log->error, memory_order_relaxed) != JSC_OK)) return JSC_EFAILED;
    if (JSC_UNLIKELY(atomic_load_explicit(&log->full, memory_order_relaxed))) return JSC_EFULL;
    return JSC_OK;
}

/* Whether the message log wants a record taken on a full disk: it lets go of others. */
static bool frees(const jsc_log *log, uint8_t kind) {
    return log->admits_control &&
           (kind == JSC_K_PURGE || kind == JSC_K_DELETE || kind == JSC_K_LIMITS || kind == JSC_K_LIMITED);
}

static bool backlogged(const jsc_log *log, size_t more, uint64_t most) {
    if (!log->tail) return false;
    uint64_t end = jsc_chunk_position(log->tail) + log->tail->used;
    return end + more - atomic_load_explicit(&log->written, memory_order_relaxed) > most;
}

void jsc_log_put_trailer(jsc_log *log) {
    jsc_chunk *c = log->tail;
    jsc_segment *s = c->segment;
    bool sealed = s->flags & JSC_SF_ENCRYPTED; /* the tag comes when the batch is written, its room is here */
    jsc_trailer t = {.index = log->last,
                     .durable = atomic_load_explicit(&log->synced, memory_order_acquire),
                     .commit = log->commit,
                     .salt = s->salt,
                     .start = log->batch_start,
                     .count = log->batch_count};
    jsc_trailer_encode(&t, log->last_ts, sealed ? 0 : log->batch_crc, c->bytes + c->used);
    size_t n = JSC_TRAILER_BYTES;
    if (sealed) {
        static const uint8_t none[JSC_TAG_BYTES];
        jsc_trailer_tag(c->bytes + c->used, none);
        n = JSC_TRAILER_MAX;
    }
    c->used += n;
    s->used += n;
    log->commit_written = log->commit;
    log->stated = t.durable;
    log->batch_count = 0;
    log->batch_crc = 0;
    log->batch_start = s->used;
}

/* A new open segment behind the others. */
static int add_segment(jsc_log *log, uint64_t limit) {
    jsc_segment *s = log->nsegments ? log->segments[log->nsegments - 1] : NULL;
    jsc_segment *next = jsc_segment_new(log, log->last + 1);
    if (!next) return -ENOMEM;
    int rc = JSC_OK;
    if (next->limit < limit) next->limit = limit;
    next->base_seq = log->commit;
    next->prev_term = log->last_term;
    next->base = s ? s->base + s->used : 0;
    if (log->keys) {
        next->flags = JSC_SF_ENCRYPTED;
        next->key_id = jsc_keys_current(log->keys);
        rc = jsc_cipher_new(log->keys, next->key_id, next->salt, "segment", &next->cipher);
        if (rc == JSC_OK) rc = jsc_image_key_check(next->cipher, &next->key_check);
        if (rc == JSC_OK) rc = jsc_segment_image(next);
    }
    if (rc == JSC_OK) rc = jsc_segment_push(log, next);
    if (rc != JSC_OK) {
        jsc_segment_unref(next);
        return rc;
    }
    if (s) {
        if (log->batch_count) jsc_log_put_trailer(log);
        next->base = s->base + s->used;
        s->closed = true;
        /* Recovered, and not written to since: it is left when the file behind it is there, no sooner, so that there
         * always is a file to say where the log stands. */
        bool pending = log->tail && log->tail->segment == s;
        if (!pending && !atomic_load_explicit(&s->entered, memory_order_acquire)) {
            atomic_store(&s->left, false);
            next->before = s;
            /* One with a sidecar, or packed, has nothing reserved behind what it holds. */
            next->cuts_before = !s->sealed && !(s->flags & (JSC_SF_PACKED | JSC_SF_REWRITTEN));
        }
    }
    log->batch_start = next->used;
    return JSC_OK;
}

/* Room for `need` bytes and a trailer at the tail: next chunk, next segment. A batch cut by the end of a segment gets
 * its own trailer there, so no batch spans two files. */
static int make_room(jsc_log *log, size_t need, uint64_t most) {
    size_t with_trailer = need + JSC_TRAILER_MAX;
    jsc_segment *s = log->nsegments ? log->segments[log->nsegments - 1] : NULL;
    if (backlogged(log, with_trailer, most)) return JSC_EFULL;
    if (s && !s->closed && s->count == 0 && s->first == log->last + 1 &&
        s->used + with_trailer + JSC_TRAILER_MAX > s->limit) {
        /* An empty segment has the name the next one would get: stretch it. */
        if (s->image) munmap(s->image, s->map_len);
        else if (s->map) log->vfs->unmap(log->vfs->self, s->map, s->map_len);
        s->limit = s->used + with_trailer + JSC_TRAILER_MAX;
        s->map = NULL;
        if (s->image) {
            int rc = jsc_segment_image(s);
            if (rc != JSC_OK) return rc;
        }
    }
    /* A file whose last records are lost takes no others: they would not be where its index says. */
    bool gap = s && s->first + s->count != log->last + 1;
    if (!s || gap || s->closed || s->used + with_trailer > s->limit) {
        int rc = add_segment(log, JSC_SEGMENT_HEAD + with_trailer + JSC_TRAILER_MAX);
        if (rc != JSC_OK) return rc;
        s = log->segments[log->nsegments - 1];
    }
    if (!log->tail || log->tail->segment != s || log->tail->used + with_trailer > log->tail->cap)
        if (!jsc_chunk_take(log, s, with_trailer)) return -ENOMEM;
    return JSC_OK;
}

static inline bool has_room(const jsc_log *log, size_t need) {
    const jsc_chunk *c = log->tail;
    size_t with_trailer = need + JSC_TRAILER_MAX;
    return c && !c->segment->closed && c->used + with_trailer <= c->cap &&
           c->segment->used + with_trailer <= c->segment->limit;
}

/* The record of `padded` bytes at the tail is framed: count it in. */
static inline int take_record(jsc_log *log, size_t padded, uint32_t crc, uint32_t term, int64_t ts) {
    jsc_chunk *c = log->tail;
    jsc_segment *s = c->segment;
    int rc = jsc_segment_index(s, s->used);
    if (JSC_UNLIKELY(rc < 0)) return rc;
    c->used += padded;
    s->used += padded;
    log->bytes += padded;
    s->bytes += padded;
    log->batch_count++;
    log->batch_crc = jsc_crc32c(log->batch_crc, &crc, sizeof crc);
    log->last_term = term;
    log->last_ts = ts;
    log->last++;
    log->changed = true;
    log->read_from_chunk = false;
    return JSC_OK;
}

int jsc_log_append(jsc_log *log, uint32_t term, int64_t ts, uint8_t kind, const void *subject, size_t subject_len,
                   const void *headers, size_t headers_len, const void *data, size_t data_len, uint64_t *index) {
    int rc = writable(log);
    if (JSC_UNLIKELY(rc != JSC_OK && !(rc == JSC_EFULL && frees(log, kind)))) return rc;
    if (JSC_UNLIKELY(!jsc_record_fits(subject_len, headers_len, data_len) || kind >= JSC_K_GAP)) return JSC_EINVAL;
    size_t at = headers_len ? 40 : JSC_RECORD_HEAD, len = at + subject_len + headers_len + data_len,
           padded = JSC_PAD(len);
    if (JSC_UNLIKELY(!has_room(log, padded))) {
        uint64_t most = frees(log, kind) ? JSC_BACKLOG_MAX + JSC_BACKLOG_CONTROL : JSC_BACKLOG_MAX;
        if ((rc = make_room(log, padded, most)) != JSC_OK) return rc;
    }

    uint8_t *p = log->tail->bytes + log->tail->used;
    jsc_put64(p + padded - 8, 0); /* the padding; what is not padding is written below */
    jsc_put32(p + 4, (uint32_t)len);
    jsc_put64(p + 8, log->last + 1);
    jsc_put64(p + 16, (uint64_t)ts);
    jsc_put32(p + 24, term);
    jsc_put16(p + 28, (uint16_t)subject_len);
    p[30] = kind;
    p[31] = headers_len ? JSC_F_HEADERS : 0;
    if (headers_len) {
        jsc_put32(p + 32, (uint32_t)headers_len);
        jsc_put32(p + 36, 0);
    }
    if (subject_len) memcpy(p + at, subject, subject_len);
    if (headers_len) memcpy(p + at + subject_len, headers, headers_len);
    if (data_len) memcpy(p + at + subject_len + headers_len, data, data_len);
    uint32_t crc = jsc_crc32c(0, p + 4, len - 4);
    jsc_put32(p, crc);
    if (JSC_UNLIKELY((rc = take_record(log, padded, crc, term, ts)) != JSC_OK)) return rc;
    *index = log->last;
    return JSC_OK;
}

typedef int decode_fn(const void *bytes, size_t n, jsc_record *, size_t *used);

static int append_raw(jsc_log *log, const void *bytes, size_t n, uint64_t from, decode_fn *decode) {
    int rc = writable(log);
    if (rc != JSC_OK) return rc;
    const uint8_t *p = bytes;
    jsc_record r;
    size_t used, take = n; /* offset of the first record taken */
    uint64_t next = log->last + 1;
    for (size_t at = 0; at < n; at += used) {
        if ((rc = decode(p + at, n - at, &r, &used)) != JSC_OK) return rc;
        if (r.kind >= JSC_K_GAP) return JSC_ECORRUPT;
        if (r.index < from) {
            if (take != n) return JSC_EORDER;
            continue;
        }
        if (r.index != next) return JSC_EORDER;
        if (take == n) take = at;
        next++;
    }
    if (backlogged(log, n - take, JSC_BACKLOG_MAX)) return JSC_EFULL;
    for (size_t at = take; at < n; at += used) {
        uint32_t len = jsc_get32(p + at + 4);
        used = JSC_PAD(len);
        if (!has_room(log, used)) rc = make_room(log, used, JSC_BACKLOG_MAX);
        if (rc == JSC_OK) {
            uint8_t *to = log->tail->bytes + log->tail->used;
            jsc_put64(to + used - 8, 0); /* the padding is ours: no checksum covers it */
            memcpy(to, p + at, len);
            rc = take_record(log, used, jsc_get32(to), jsc_get32(to + 24), (int64_t)jsc_get64(to + 16));
        }
        if (rc != JSC_OK) {
            /* Out of memory half way. All or nothing was promised, so this log stops here. */
            int none = JSC_OK;
            atomic_compare_exchange_strong(&log->error, &none, rc);
            return rc;
        }
    }
    return JSC_OK;
}

int jsc_log_append_raw(jsc_log *log, const void *bytes, size_t n, uint64_t from) {
    return append_raw(log, bytes, n, from, jsc_record_decode);
}

int jsc_log_append_verified(jsc_log *log, const void *bytes, size_t n, uint64_t from) {
    return append_raw(log, bytes, n, from, jsc_record_frame);
}

/* Hands everything up to the tail to the sync thread; with `now`, what it may write itself it writes. */
static void hand_over(jsc_log *log, bool want_sync, bool now) {
    jsc_store *s = log->store;
    jsc_chunk *from = log->submitted;
    size_t from_used = log->submitted_used;
    if (from && from_used == from->used && from->next) {
        from = from->next;
        from_used = 0;
    }
    pthread_mutex_lock(&s->lock);
    if (log->tail) {
        if (!log->mark.to) {
            log->mark.from = from;
            log->mark.from_used = from_used;
        }
        log->mark.to = log->tail;
        log->mark.to_used = log->tail->used;
    }
    log->mark.index = log->last;
    log->want_sync |= want_sync;
    if (!now || !jsc_store_write_little(log)) jsc_store_push(log);
    pthread_mutex_unlock(&s->lock);
    log->submitted = log->tail;
    log->submitted_used = log->tail ? log->tail->used : 0;
    jsc_chunks_touch(log);
}

static int submit(jsc_log *log, bool now) {
    if (!log->batch_count && (!log->tail || log->submitted_used == log->tail->used)) return JSC_OK;
    int rc = atomic_load_explicit(&log->error, memory_order_relaxed);
    if (rc != JSC_OK) return JSC_EFAILED;
    if (log->batch_count) jsc_log_put_trailer(log);
    hand_over(log, false, now);
    log->read_from_chunk = false;
    jsc_chunks_recycle(log, JSC_RING_CHUNKS);
    return JSC_OK;
}

int jsc_log_submit(jsc_log *log) { return submit(log, false); }
int jsc_log_submit_now(jsc_log *log) { return submit(log, true); }
bool jsc_log_is_lazy(const jsc_log *log) { return log->store->mode != JSC_SYNC_ALWAYS; }

int jsc_log_roll(jsc_log *log) {
    int rc = writable(log);
    if (rc != JSC_OK) return rc;
    jsc_segment *s = log->nsegments ? log->segments[log->nsegments - 1] : NULL;
    if (!s || (!s->closed && s->count == 0)) return JSC_OK;
    if ((rc = add_segment(log, 0)) != JSC_OK) return rc;
    s = log->segments[log->nsegments - 1];
    /* A mark makes the file: its name says where the segment before ends. */
    if (!jsc_chunk_take(log, s, JSC_TRAILER_MAX)) return -ENOMEM;
    jsc_log_put_trailer(log);
    hand_over(log, log->store->mode != JSC_SYNC_NEVER, false);
    log->read_from_chunk = false;
    return JSC_OK;
}

bool jsc_log_unmarked(const jsc_log *log) {
    const jsc_segment *s = log->nsegments ? log->segments[log->nsegments - 1] : NULL;
    return writable(log) == JSC_OK && s && !s->closed && s->count && s->first + s->count == log->last + 1 &&
           log->stated < log->last && s->used + 2 * JSC_TRAILER_MAX <= s->limit;
}

int jsc_log_mark(jsc_log *log) {
    int rc = writable(log);
    if (rc != JSC_OK || !jsc_log_unmarked(log) || log->batch_count) return rc;
    if (atomic_load_explicit(&log->synced, memory_order_acquire) < log->last) return JSC_OK;
    jsc_segment *s = log->segments[log->nsegments - 1];
    if (!has_room(log, 0) && !jsc_chunk_take(log, s, JSC_TRAILER_MAX)) return -ENOMEM;
    jsc_log_put_trailer(log);
    hand_over(log, false, false);
    log->read_from_chunk = false;
    return JSC_OK;
}

/* ---- read ---- */

int jsc_log_locate(jsc_log *log, uint64_t index, const uint8_t **bytes, size_t *n, bool *trusted) {
    if (index < log->first || index > log->last) return JSC_ENOTFOUND;
    jsc_segment *s = jsc_segment_find(log, index);
    if (!s) return JSC_ECORRUPT;
    uint64_t offset;
    int rc = jsc_segment_where(log, s, index, &offset);
    if (rc != JSC_OK) return rc;
    uint64_t position = s->base + offset;
    if (log->head && !(s->flags & JSC_SF_REWRITTEN) && position >= jsc_chunk_position(log->head)) {
        JSC_ASSERT(jsc_chunk_find(log, position, bytes, n));
        *trusted = true;
        log->read_from_chunk = true;
        return JSC_OK;
    }
    if ((rc = jsc_segment_map(log, s)) != JSC_OK) return rc;
    if (s->pack) {
        jsc_record r;
        jsc_block *block;
        bool fleeting;
        if ((rc = jsc_segment_read_at(log, s, offset, &r, &block, &fleeting)) != JSC_OK) return rc;
        if (log->read_block) jsc_block_release(log->blocks, log->read_block);
        log->read_block = block;
        *bytes = r.raw;
        *n = r.raw_len;
        *trusted = true;
        return JSC_OK;
    }
    if (s->used > s->map_len) return JSC_ECORRUPT;
    *bytes = s->map + offset;
    *n = (size_t)(s->used - offset);
    *trusted = false;
    return JSC_OK;
}

/* Whether the record of that index begins `n` bytes before the end of what is framed at p, in memory of ours. */
static inline bool framed(const uint8_t *p, size_t n, uint64_t index) {
    return n >= JSC_RECORD_HEAD && jsc_get64(p + 8) == index && p[30] < JSC_K_GAP;
}

int jsc_log_read(jsc_log *log, uint64_t index, jsc_record *out) {
    const uint8_t *p;
    size_t n, used;
    bool trusted = true;
    jsc_record r;
    if (index == log->ahead_index && framed(log->ahead, log->ahead_n, index)) {
        p = log->ahead;
        n = log->ahead_n;
        log->read_from_chunk = true;
    } else {
        int rc = jsc_log_locate(log, index, &p, &n, &trusted);
        if (rc == JSC_OK && !trusted) rc = jsc_record_decode(p, n, &r, &used);
        if (rc != JSC_OK) return rc;
    }
    if (trusted) {
        jsc_record_view(p, &r);
        log->ahead = p + r.raw_len;
        log->ahead_n = n - r.raw_len;
        log->ahead_index = index + 1;
    }
    if (r.index != index) return JSC_ECORRUPT;
    if (r.kind == JSC_K_GAP) return JSC_ENOTFOUND;
    *out = r;
    return JSC_OK;
}

int jsc_log_term(jsc_log *log, uint64_t index, uint32_t *term) {
    if (index == log->last && log->batch_count) { /* the leader's usual question */
        *term = log->last_term;
        return JSC_OK;
    }
    if (index + 1 == log->first) {
        const jsc_segment *s = log->nsegments ? log->segments[0] : NULL;
        if (s && s->head_lost) return JSC_ECORRUPT;
        *term = s ? s->prev_term : log->last_term;
        return JSC_OK;
    }
    jsc_record r;
    int rc = jsc_log_read(log, index, &r);
    if (rc == JSC_OK) *term = r.term;
    return rc;
}

/* The records behind the one that was read last and was `*index`, up to hi, as far as they touch each other in its chunk
 * and `room` holds them: their bytes. */
static size_t run_ahead(const jsc_log *log, uint64_t hi, size_t room, uint64_t *index) {
    size_t n = 0;
    while (*index < hi && framed(log->ahead + n, log->ahead_n - n, *index + 1)) {
        size_t padded = JSC_PAD((size_t)jsc_get32(log->ahead + n + 4));
        if (padded > room - n) break;
        n += padded;
        ++*index;
    }
    return n;
}

int jsc_log_copy(jsc_log *log, uint64_t lo, uint64_t hi, void *buf, size_t cap, size_t *n, uint64_t *last) {
    uint8_t *to = buf;
    size_t put = 0;
    uint64_t index = lo;
    jsc_record r;
    if (lo > hi) return JSC_EINVAL;
    for (; index <= hi; index++) {
        int rc = jsc_log_read(log, index, &r);
        if (rc != JSC_OK) {
            if (index > lo) break; /* the caller meets it again as the first of the next call */
            return rc;
        }
        if (r.raw_len > cap - put) {
            if (index > lo) break;
            *n = r.raw_len;
            return JSC_EFULL;
        }
        memcpy(to + put, r.raw, r.raw_len);
        size_t len = jsc_get32(r.raw + 4);
        if (len < r.raw_len) memset(to + put + len, 0, r.raw_len - len); /* no checksum covers what rots there */
        put += r.raw_len;
        if (log->ahead != r.raw + r.raw_len) continue;
        size_t more = run_ahead(log, hi, cap - put, &index);
        if (more) memcpy(to + put, log->ahead, more);
        put += more;
    }
    *n = put;
    *last = index - 1;
    return JSC_OK;
}

/* ---- taking segments out ---- */

int jsc_log_replace(jsc_log *log, size_t i, size_t n, jsc_segment *fresh) {
    if (n == 0 || i + n > log->nsegments || (!fresh && i != 0)) return JSC_EINVAL;
    bool open = i + n == log->nsegments;
    if (open && !log->segments[log->nsegments - 1]->closed) return JSC_EINVAL;
    if (open && !fresh) return JSC_EINVAL;
    jsc_segment *gone[64], **all = n <= 64 ? gone : malloc(n * sizeof *all);
    if (!all) return -ENOMEM;
    memcpy(all, log->segments + i, n * sizeof *all);
    jsc_chunks_forget(log);
    for (size_t k = 0; k < n; k++) {
        jsc_segment *s = all[k];
        uint64_t bytes = 0;
        if (s->sealed) bytes = s->info.record_bytes;
        else bytes = s->bytes;
        log->bytes -= bytes < log->bytes ? bytes : log->bytes;
        if (fresh && s->first == fresh->first) continue; /* its name is fresh's now */
        s->path = jsc_segment_path(log, s->first, ".seg");
        if (!s->path || s->flags & JSC_SF_PACKED || log->segment_bytes > JSC_SEGMENT_BYTES) continue;
        s->spares = jsc_spares_ref(log->spares);
    }
    if (fresh) {
        fresh->base = all[0]->base;
        log->bytes += fresh->info.record_bytes;
        log->segments[i] = fresh;
    }
    size_t kept = fresh ? 1 : 0;
    memmove(log->segments + i + kept, log->segments + i + n, (log->nsegments - i - n) * sizeof *log->segments);
    log->nsegments -= n - kept;
    if (i == 0 && log->nsegments) log->first = log->segments[0]->first;
    for (size_t k = 0; k < n; k++) jsc_segment_unref(all[k]);
    if (all != gone) free(all);
    return JSC_OK;
}

int jsc_segment_adopt(jsc_log *log, const char *path, const jsc_sidecar_info *info, jsc_segment **out) {
    const jsc_vfs *vfs = log->vfs;
    uint8_t head[JSC_SEGMENT_HEAD];
    jsc_segment_head h;
    int fd = vfs->open(vfs->self, path, O_RDONLY, 0), rc;
    if (fd < 0) return fd;
    ssize_t got = vfs->pread(vfs->self, fd, head, sizeof head, 0);
    vfs->close(vfs->self, fd);
    if (got < 0) return (int)got;
    if (got != (ssize_t)sizeof head) return JSC_ECORRUPT;
    if ((rc = jsc_segment_head_decode(head, &h)) != JSC_OK) return rc;
    if (h.salt != info->salt || h.first != info->first) return JSC_ECORRUPT;
    jsc_segment *s = jsc_segment_new(log, h.first);
    if (!s) return -ENOMEM;
    jsc_segment_trust(s, &h, info);
    *out = s;
    return JSC_OK;
}

/* ---- open and close ---- */

void jsc_log_opened(jsc_log *log) {
    if (!log->scratch) return;
    jsc_image_free(log->scratch);
    free(log->scratch);
    log->scratch = NULL;
}

static void log_free(jsc_log *log) {
    jsc_log_opened(log);
    if (log->read_block) jsc_block_release(log->blocks, log->read_block);
    for (size_t i = 0; i < log->nsegments; i++) jsc_segment_unref(log->segments[i]);
    free(log->segments);
    if (log->fd >= 0) log->vfs->close(log->vfs->self, log->fd);
    if (log->lock_fd >= 0) log->vfs->close(log->vfs->self, log->lock_fd);
    if (log->readers_fd >= 0) log->vfs->close(log->vfs->self, log->readers_fd);
    if (log->own_blocks) jsc_block_cache_free(log->blocks);
    jsc_spares_unref(log->spares);
    jsc_keys_unref(log->keys);
    free(log->dir);
    free(log);
}

int jsc_log_sync_parent(const jsc_log *log) {
    const jsc_vfs *vfs = log->vfs;
    const char *dir = log->dir, *slash = strrchr(dir, '/');
    if (!slash) return vfs->syncdir(vfs->self, ".");
    if (slash == dir) return vfs->syncdir(vfs->self, "/");
    char *parent = strndup(dir, (size_t)(slash - dir));
    if (!parent) return -ENOMEM;
    int rc = vfs->syncdir(vfs->self, parent);
    free(parent);
    return rc;
}

static void note_segment(void *ctx, const char *name) {
    if (strstr(name, ".seg")) *(bool *)ctx = true;
}

/* A reader's mappings stay what they are: see spares.c. A log without the file has no writer that would reuse files. */
static int share_readers(jsc_log *log) {
    const jsc_vfs *vfs = log->vfs;
    size_t n = strlen(log->dir) + 16;
    char *path = malloc(n);
    if (!path) return -ENOMEM;
    snprintf(path, n, "%s/READERS", log->dir);
    int rc = log->readers_fd = vfs->open(vfs->self, path, O_RDONLY, 0);
    free(path);
    if (rc == -ENOENT) return JSC_OK;
    /* Whoever keeps readers out is about to finish: one sync. */
    for (int tries = 0; rc >= 0 && tries < 2000; tries++) {
        if ((rc = vfs->share(vfs->self, log->readers_fd)) != -EWOULDBLOCK) break;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (tries < 1999) rc = 0;
    }
    return rc;
}

/* The directory, made if needed, and its lock. */
static int take_directory(jsc_log *log, const jsc_log_options *options) {
    const jsc_vfs *vfs = log->vfs;
    bool segments = false;
    int rc = vfs->list(vfs->self, log->dir, note_segment, &segments);
    if (rc < 0) {
        if (log->read_only) return rc;
        if ((rc = vfs->mkdir(vfs->self, log->dir, 0755)) < 0) return rc;
    }
    /* Also when somebody else made it, who may have died before he synced its name. Of a record log, of which a server may
     * make thousands, with the first segment: the sync thread waits for the disk, and until then there is nothing to lose. */
    log->unnamed = !log->read_only && !segments;
    if (log->unnamed && log->keep_images) {
        if ((rc = jsc_log_sync_parent(log)) < 0) return rc;
        log->unnamed = false;
    }
    if (log->read_only && (rc = share_readers(log)) < 0) return rc;
    if (log->read_only && !options->check_lock) return JSC_OK;
    size_t n = strlen(log->dir);
    char *lock = malloc(n + 8);
    if (!lock) return -ENOMEM;
    memcpy(lock, log->dir, n);
    memcpy(lock + n, "/LOCK", 6);
    rc = vfs->open(vfs->self, lock, log->read_only ? O_RDONLY : O_RDWR | O_CREAT, 0644);
    free(lock);
    if (rc == -ENOENT && log->read_only) return JSC_OK; /* nobody ever had it */
    if (rc < 0) return rc;
    log->lock_fd = rc;
    rc = vfs->lock(vfs->self, log->lock_fd);
    return rc == -EWOULDBLOCK ? JSC_ELOCKED : rc;
}

int jsc_log_open(jsc_store *store, const char *dir, const jsc_log_options *options, jsc_log **out,
                 jsc_log_recovery *rec) {
    static const jsc_log_options defaults;
    if (!options) options = &defaults;
    uint64_t segment_bytes = options->segment_bytes ? options->segment_bytes : JSC_SEGMENT_BYTES;
    uint64_t first_index = options->first_index ? options->first_index : 1;
    if (segment_bytes < 4096) segment_bytes = 4096;
    if (segment_bytes > JSC_SEGMENT_MAX || first_index > INT64_MAX) return JSC_EINVAL;
    jsc_log *log = calloc(1, sizeof *log);
    if (!log) return -ENOMEM;
    log->vfs = store->vfs;
    log->store = store;
    log->segment_bytes = segment_bytes;
    log->read_only = options->read_only;
    log->known = options->synced;
    log->last_term = options->first_term;
    log->keep_images = options->keep_images;
    log->fd = log->lock_fd = log->readers_fd = -1;
    jsc_trail_init(log);
    log->keys = options->keys ? jsc_keys_ref(options->keys) : NULL;
    log->blocks = options->blocks;
    jsc_log_recovery found = {0};
    int rc = -ENOMEM;
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    log->dir = strndup(dir, n);
    if (!log->dir) goto fail;
    if (!log->blocks) {
        if ((rc = jsc_block_cache_new(JSC_OWN_BLOCKS, &log->blocks)) < 0) goto fail;
        log->own_blocks = true;
    }
    if ((rc = take_directory(log, options)) < 0) goto fail;
    if (options->recycle && !log->read_only && (rc = jsc_spares_new(log->vfs, log->dir, &log->spares)) < 0) goto fail;
    rc = -ENOMEM;
    if (options->keep_images && !(log->scratch = calloc(1, sizeof *log->scratch))) goto fail;
    if ((rc = jsc_log_recover(log, first_index, options->keep, &found)) < 0) goto fail;
    store->logs++;
    if (rec) *rec = found;
    *out = log;
    return JSC_OK;
fail:
    log_free(log);
    return rc;
}

void jsc_log_abandon(jsc_log *log) {
    if (!log) return;
    jsc_store_detach(log, true);
    jsc_chunks_drop(log);
    log->store->logs--;
    log_free(log);
}

/* A trailer of its own that calls everything before it durable, and the last commit index. */
static int write_clean_mark(jsc_log *log) {
    /* What recovery found at the end and nobody has stated to be synced is unsafe from damage until somebody does. */
    bool news = log->changed || log->commit != log->commit_written || jsc_log_unmarked(log);
    if (!log->nsegments || !news) return JSC_OK;
    jsc_segment *s = log->segments[log->nsegments - 1];
    if (s->closed || s->first + s->count != log->last + 1) return JSC_OK;
    if (!log->tail || log->tail->segment != s || log->tail->used + JSC_TRAILER_MAX > log->tail->cap)
        if (!jsc_chunk_take(log, s, JSC_TRAILER_MAX)) return -ENOMEM;
    jsc_log_put_trailer(log);
    hand_over(log, log->store->mode != JSC_SYNC_NEVER, false);
    jsc_store_settle(log);
    return JSC_OK;
}

/* A closed log of messages is as long as what it holds. Who reads it elsewhere looks at nothing behind the last batch but by
 * calls that may end early; what a power cut takes of this is space. Where the end is damaged nothing is cut. */
static void give_back_reserve(jsc_log *log) {
    jsc_segment *s = log->nsegments ? log->segments[log->nsegments - 1] : NULL;
    if (!log->keep_images || !s || s->closed || !s->created || s->allocated <= s->used) return;
    bool ours = log->open_segment == s && log->fd >= 0;
    int fd = ours ? log->fd : jsc_segment_open(log, s, O_RDWR);
    if (fd < 0) return;
    if (log->vfs->truncate(log->vfs->self, fd, (off_t)s->used) == 0) s->allocated = s->used;
    if (!ours) log->vfs->close(log->vfs->self, fd);
}

int jsc_log_close(jsc_log *log) {
    int rc = atomic_load(&log->error);
    if (rc == JSC_OK && !log->read_only) {
        rc = jsc_log_submit(log);
        if (rc == JSC_OK) {
            /* An empty mark: in the interval mode it brings the sync that the clean mark relies on. */
            if (log->changed) hand_over(log, log->store->mode != JSC_SYNC_NEVER, false);
            rc = jsc_log_wait(log, log->last, -1);
            jsc_store_settle(log);
        }
        if (rc == JSC_OK) rc = write_clean_mark(log);
        if (atomic_load(&log->error) != JSC_OK) rc = atomic_load(&log->error);
        else if (rc == JSC_OK && atomic_load(&log->full)) rc = JSC_EFULL;
        if (rc == JSC_OK) give_back_reserve(log);
    }
    jsc_log_abandon(log);
    return rc;
}

/* ---- small ones ---- */

uint64_t jsc_log_first(const jsc_log *log) { return log->first; }
uint64_t jsc_log_last(const jsc_log *log) { return log->last; }
uint64_t jsc_log_durable(const jsc_log *log) { return atomic_load_explicit(&log->durable, memory_order_acquire); }
int jsc_log_error(const jsc_log *log) { return atomic_load_explicit(&log->error, memory_order_acquire); }
uint64_t jsc_log_bytes(const jsc_log *log) { return log->bytes; }
void jsc_log_set_owner(jsc_log *log, void *owner) { log->owner_data = owner; }
void *jsc_log_owner(const jsc_log *log) { return log->owner_data; }

void jsc_log_set_commit(jsc_log *log, uint64_t commit) {
    if (commit > log->commit) log->commit = commit;
}
