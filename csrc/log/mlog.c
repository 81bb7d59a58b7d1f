/* The message log: opening, closing, appending, tombstones. The hot path is append_one: a record is framed into the log's
 * tail, its message goes into the index, done. */
#include "mlog_internal.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_BYTES ((uint64_t)64 << 20)
#define FLUSH_BYTES ((size_t)1 << 20) /* appended since the last submit: they go without being asked */
enum { READER_TRIES = 50 };

int64_t jsc_mlog_clock(jsc_mlog *m) {
    if (m->options.now) return m->options.now(m->options.now_arg);
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int jsc_mlog_break(jsc_mlog *m, int rc) {
    int none = JSC_OK;
    if (m->broken == JSC_OK) m->broken = rc;
    atomic_compare_exchange_strong(&m->log->error, &none, rc);
    jsc_mlog_note_durable(m);
    return rc;
}

/* ---- append ---- */

/* Refused although the disk is not full: too much waits to be written. */
static bool only_busy(const jsc_mlog *m, int rc) {
    return rc == JSC_EFULL && !atomic_load_explicit(&m->log->full, memory_order_relaxed) &&
           jsc_log_error(m->log) == JSC_OK;
}

static inline int refuse(const jsc_mlog *m) { return m->options.read_only ? JSC_EREADONLY : JSC_EINVAL; }

/* What was framed last is in the log, whatever happens to its index. */
static inline int index_message(jsc_mlog *m, jsc_record *r) {
    jsc_log *log = m->log;
    jsc_segment *s = log->segments[log->nsegments - 1];
    int rc;
    if (JSC_UNLIKELY(m->npieces != log->nsegments) && (rc = jsc_mlog_extend_pieces(m)) != JSC_OK) return rc;
    if (JSC_UNLIKELY(!m->pieces[m->npieces - 1]->tail)) return JSC_ECORRUPT;
    return jsc_apply_message(m, r, (uint64_t)s->at[s->count - 1] * 8);
}

/* Who had to make room goes first: the messages of one call stay together. */
static inline void pass_gate(jsc_mlog *m) {
    while (JSC_UNLIKELY(m->gate)) pthread_cond_wait(&m->opened, &m->lock);
}

/* The last thing of a call, as it may let the lock go. Without a thread nobody else writes the checkpoint that files of
 * dropped segments wait for; a failure is tried again with the next segment. */
static void tidy(jsc_mlog *m) {
    if (JSC_LIKELY(!m->checkpoint_wanted) || m->options.background) return;
    m->checkpoint_wanted = false;
    if (pthread_mutex_trylock(&m->care) != 0) return;
    if (jsc_checkpoint_write(m) == JSC_OK) jsc_mlog_reap(m);
    pthread_mutex_unlock(&m->care);
}

static inline int append_one(jsc_mlog *m, const jsc_span *subject, const jsc_span *headers, const jsc_span *data,
                             int64_t ts) {
    uint64_t index;
    int rc;
    if (ts < m->last_ts) ts = m->last_ts;
    for (;;) {
        rc = jsc_log_append(m->log, 0, ts, JSC_K_MESSAGE, subject->p, subject->n, headers->p, headers->n, data->p,
                            data->n, &index);
        if (JSC_LIKELY(rc == JSC_OK)) break;
        if (!only_busy(m, rc)) return rc;
        if ((rc = jsc_commit_make_room(m)) != JSC_OK) return rc;
        if (ts < m->last_ts) ts = m->last_ts; /* others appended meanwhile */
    }
    size_t at = headers->n ? JSC_RECORD_HEAD + 8 : JSC_RECORD_HEAD;
    jsc_record r = {.index = index,
                    .ts = ts,
                    .kind = JSC_K_MESSAGE,
                    .subject_len = (uint16_t)subject->n,
                    .data_len = (uint32_t)data->n,
                    .subject = subject->p ? subject->p : "",
                    .raw_len = (uint32_t)JSC_PAD(at + subject->n + headers->n + data->n)};
    if (JSC_UNLIKELY((rc = index_message(m, &r)) != JSC_OK)) return jsc_mlog_break(m, rc);
    m->log->commit = m->last_seq;
    if (m->unsubmitted == 0) jsc_maintain_poke(m);
    m->unsubmitted += r.raw_len;
    if (JSC_UNLIKELY(m->unsubmitted >= FLUSH_BYTES) && !m->flush_wanted) jsc_mlog_flush(m);
    if (JSC_UNLIKELY(m->trim_wanted)) jsc_mlog_trim(m); /* its failure is tried again, nothing depends on it */
    return JSC_OK;
}

int jsc_mlog_append(jsc_mlog *m, const jsc_span *subject, const jsc_span *headers, const jsc_span *data, int64_t ts,
                    uint64_t *seq) {
    static const jsc_span none;
    if (m->options.read_only) return refuse(m);
    if (!ts) ts = jsc_mlog_clock(m);
    pthread_mutex_lock(&m->lock);
    pass_gate(m);
    int rc = append_one(m, subject ? subject : &none, headers ? headers : &none, data ? data : &none, ts);
    if (rc == JSC_OK) *seq = m->last_seq;
    tidy(m);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

int jsc_mlog_extend(jsc_mlog *m, const jsc_mlog_new *x, size_t n, size_t *done, uint64_t *last_seq) {
    if (m->options.read_only) return refuse(m);
    int64_t now = 0;
    int rc = JSC_OK;
    size_t i = 0;
    *done = 0;
    for (size_t k = 0; k < n; k++) {
        if (!jsc_record_fits(x[k].subject.n, x[k].headers.n, x[k].data.n)) return JSC_EINVAL;
        if (!x[k].ts && !now) now = jsc_mlog_clock(m);
    }
    pthread_mutex_lock(&m->lock);
    pass_gate(m);
    for (; i < n; i++)
        if ((rc = append_one(m, &x[i].subject, &x[i].headers, &x[i].data, x[i].ts ? x[i].ts : now)) != JSC_OK) break;
    *done = i;
    *last_seq = m->last_seq;
    tidy(m);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* ---- control records ---- */

/* Frames one and applies it. */
static int control(jsc_mlog *m, uint8_t kind, const jsc_span *subject, const uint8_t *data, size_t n) {
    int64_t ts = jsc_mlog_clock(m);
    uint64_t index;
    int rc;
    if (ts < m->last_ts) ts = m->last_ts;
    for (;;) {
        rc = jsc_log_append(m->log, 0, ts, kind, subject->p, subject->n, NULL, 0, data, n, &index);
        if (rc == JSC_OK) break;
        if (!only_busy(m, rc)) return rc;
        if ((rc = jsc_commit_make_room(m)) != JSC_OK) return rc;
    }
    jsc_record r = {.index = index,
                    .ts = ts,
                    .kind = kind,
                    .subject_len = (uint16_t)subject->n,
                    .subject = subject->p,
                    .data = (const char *)data,
                    .data_len = (uint32_t)n};
    rc = jsc_mlog_extend_pieces(m);
    if (rc == JSC_OK) rc = jsc_apply_control(m, &r);
    if (rc != JSC_OK) return jsc_mlog_break(m, rc);
    if (m->unsubmitted == 0) jsc_maintain_poke(m);
    m->unsubmitted += JSC_RECORD_HEAD + subject->n + n;
    if (m->unsubmitted >= FLUSH_BYTES) jsc_mlog_flush(m);
    if (m->trim_wanted) jsc_mlog_trim(m);
    if (JSC_UNLIKELY(atomic_load_explicit(&m->log->full, memory_order_relaxed))) {
        jsc_mlog_reap(m); /* what somebody held when the disk was asked last may be free now */
        if (jsc_mlog_held(m)) {
            m->patience = 0;
            jsc_store_retry(m->log);
        }
    }
    return JSC_OK;
}

static int is_live(jsc_mlog *m, uint64_t seq) {
    int rc = JSC_OK;
    jsc_piece *p = seq ? jsc_mlog_piece_of(m, seq, NULL) : NULL;
    if (!p) return JSC_ENOTFOUND;
    const jsc_part *part = jsc_piece_part(m, p, &rc);
    if (!part) return rc;
    uint32_t ord = part->ops->find_seq(part, seq);
    if (ord == part->ops->count(part) || part->ops->seq(part, ord) != seq) return JSC_ENOTFOUND;
    return p->dead && jsc_dead_has(p->dead, ord) ? JSC_ENOTFOUND : JSC_OK;
}

int jsc_mlog_delete(jsc_mlog *m, uint64_t seq) {
    static const jsc_span none;
    uint8_t data[8];
    if (m->options.read_only) return JSC_EREADONLY;
    jsc_control_delete_encode(seq, data);
    pthread_mutex_lock(&m->lock);
    pass_gate(m);
    int rc = is_live(m, seq);
    if (rc == JSC_OK) rc = control(m, JSC_K_DELETE, &none, data, sizeof data);
    tidy(m);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

int jsc_mlog_purge(jsc_mlog *m, const jsc_span *filter, uint64_t before_seq, uint64_t keep, uint64_t *n) {
    static const jsc_span all;
    uint8_t data[16];
    int rc = JSC_OK;
    if (m->options.read_only) return JSC_EREADONLY;
    if (filter) { /* as apply.c will read it */
        jsc_filter *compiled;
        if (!filter->n || (rc = jsc_filter_new(filter, 1, &compiled)) != JSC_OK) return rc == JSC_OK ? JSC_EINVAL : rc;
        jsc_filter_free(compiled);
    }
    jsc_put64(data, before_seq);
    jsc_put64(data + 8, keep);
    pthread_mutex_lock(&m->lock);
    pass_gate(m);
    uint64_t before = m->messages;
    if (before > keep) rc = control(m, JSC_K_PURGE, filter ? filter : &all, data, sizeof data);
    if (rc == JSC_OK) *n = before - m->messages;
    tidy(m);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static int set_limits(jsc_mlog *m, const jsc_limits *l) {
    static const jsc_span none;
    uint8_t data[32], now[32];
    int rc = jsc_control_limits_encode(l, data);
    if (rc != JSC_OK) return rc;
    jsc_control_limits_encode(&m->limits, now);
    return memcmp(data, now, sizeof now) == 0 ? JSC_OK : control(m, JSC_K_LIMITS, &none, data, sizeof data);
}

int jsc_mlog_set_limits(jsc_mlog *m, const jsc_limits *l) {
    if (m->options.read_only) return JSC_EREADONLY;
    pthread_mutex_lock(&m->lock);
    pass_gate(m);
    int rc = set_limits(m, l);
    tidy(m);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* ---- open ---- */

static void locks_init(jsc_mlog *m) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&m->lock, NULL);
    pthread_mutex_init(&m->care, NULL);
    pthread_mutex_init(&m->turn_lock, NULL);
    pthread_cond_t *conds[] = {&m->moved, &m->work, &m->settled, &m->opened, &m->sealed};
    for (size_t i = 0; i < sizeof conds / sizeof *conds; i++) pthread_cond_init(conds[i], &attr);
    pthread_condattr_destroy(&attr);
}

static void pieces_free(jsc_mlog *m, jsc_piece **pieces, size_t n) {
    for (size_t i = 0; i < n; i++) jsc_piece_free(m, pieces[i]);
    free(pieces);
}

/* The log and its state, once. A reader beside a writer may find the two out of step: -ESTALE. */
static int open_log(jsc_mlog *m, jsc_mlog_recovery *rec) {
    jsc_checkpoint *before = NULL;
    jsc_checkpoint_files files;
    uint64_t salt = 0, synced = 0;
    if (jsc_checkpoint_read(m, UINT64_MAX, &before, &files) == JSC_OK) {
        salt = before->salt;
        synced = before->index;
    }
    jsc_checkpoint_free(before);
    jsc_log_options o = {.segment_bytes = m->options.segment_bytes,
                         .synced = synced,
                         .read_only = m->options.read_only,
                         .check_lock = m->options.check_lock,
                         .keep_images = true,
                         .keys = m->keys,
                         .blocks = m->blocks};
    int rc = jsc_log_open(m->store, m->dir, &o, &m->log, &rec->log);
    if (rc != JSC_OK) return rc;
    m->log->admits_control = true;
    rc = m->shared || m->shared_fd >= 0 ? JSC_OK : jsc_follow_open(m);
    uint64_t bound = rc == JSC_OK && m->options.read_only ? jsc_follow_bound(m) : UINT64_MAX;
    uint64_t last = jsc_log_last(m->log);
    if (rc == JSC_OK) rc = jsc_mlog_restore(m, bound < last ? bound : last, rec);
    jsc_log_opened(m->log);
    if (rc == JSC_OK && bound != UINT64_MAX && m->checkpoint_salt != salt) rc = -ESTALE;
    return rc;
}

static void drop_log(jsc_mlog *m) {
    pieces_free(m, m->pieces, m->npieces);
    m->pieces = NULL;
    m->npieces = m->pieces_cap = 0;
    if (m->log) jsc_log_abandon(m->log);
    m->log = NULL;
}

static bool worth_another_try(const jsc_mlog *m, int rc) {
    return m->options.read_only && (rc == -ESTALE || rc == -ENOENT || rc == JSC_ECORRUPT);
}

static void breathe(void) {
    struct timespec t = {0, 2000000};
    nanosleep(&t, NULL);
}

/* A writer renames, recycles and unlinks files while a reader goes through them: what it saw once need not be what is. */
static int open_tries(jsc_mlog *m, jsc_mlog_recovery *rec) {
    int rc;
    for (int i = 0; i < READER_TRIES; i++) {
        *rec = (jsc_mlog_recovery){0};
        if ((rc = open_log(m, rec)) == JSC_OK || !worth_another_try(m, rc)) break;
        if (rc == -ENOENT && i >= 2) break; /* no such directory */
        drop_log(m);
        if (rc == JSC_ECORRUPT && i >= 4) break;
        if (i) breathe();
    }
    return rc;
}

/* What the records gave is the state from now on, whatever comes. */
static int owed_checkpoint(jsc_mlog *m) {
    pthread_mutex_lock(&m->care);
    pthread_mutex_lock(&m->lock);
    int rc = jsc_checkpoint_write(m);
    m->checkpoint_owed = m->unsure = false;
    pthread_mutex_unlock(&m->lock);
    pthread_mutex_unlock(&m->care);
    return rc;
}

static int start(jsc_mlog *m, const jsc_limits *limits) {
    m->durable_index = m->submitted_index = m->options.read_only ? m->applied : jsc_log_last(m->log);
    m->asked_index = m->submitted_index;
    m->durable_seq = m->last_seq;
    if (m->options.read_only) return JSC_OK;
    jsc_follow_publish(m);
    m->pid = (int)getpid();
    int rc = m->checkpoint_owed ? owed_checkpoint(m) : JSC_OK;
    if (rc != JSC_OK) return rc;
    pthread_mutex_lock(&m->lock);
    /* A front that went on a full disk, or under an engine that did not say so. */
    if (m->log->first > 1) rc = jsc_mlog_restate(m, m->log->first - 1);
    if (rc == JSC_OK && limits) rc = set_limits(m, limits);
    if (rc == JSC_OK && m->npieces && !jsc_piece_live(m->pieces[0])) rc = jsc_mlog_trim(m);
    pthread_mutex_unlock(&m->lock);
    return rc == JSC_OK && m->options.background ? jsc_maintain_start(m) : rc;
}

int jsc_mlog_open(const jsc_vfs *vfs, const char *dir, const jsc_mlog_options *options, jsc_mlog **out,
                  jsc_mlog_recovery *recovery) {
    jsc_mlog_recovery rec = {0};
    size_t n = strlen(dir);
    uint64_t memory = options->memory_bytes ? options->memory_bytes : MEMORY_BYTES;
    uint8_t scratch[32];
    while (n > 1 && dir[n - 1] == '/') n--;
    if (!n || (options->limits && jsc_control_limits_encode(options->limits, scratch) != JSC_OK)) return JSC_EINVAL;
    if (options->zstd_level < 0 || options->zstd_level > 19) return JSC_EINVAL;
    jsc_mlog *m = calloc(1, sizeof *m);
    if (!m) return -ENOMEM;
    locks_init(m);
    m->vfs = vfs;
    m->options = *options;
    m->options.limits = NULL;
    if (m->options.check_lock) m->options.read_only = true;
    if (m->options.read_only) m->options.background = false;
    m->shared_fd = -1;
    m->pid = (int)getpid();
    if (options->keys) m->keys = jsc_keys_ref(options->keys);
    int rc = -ENOMEM;
    if (!(m->dir = strndup(dir, n))) goto fail;
    if ((rc = jsc_block_cache_new(memory / 4, &m->blocks)) != JSC_OK) goto fail;
    if ((rc = jsc_subject_cache_new(memory / 2, &m->subjects)) != JSC_OK) goto fail;
    if ((rc = jsc_commit_init(m)) != JSC_OK) goto fail;
    if ((rc = jsc_store_open(vfs, options->sync_mode, options->interval_ns, &m->store)) != JSC_OK) goto fail;
    m->store->served_arg = m;
    m->store->served = jsc_commit_served;
    if ((rc = open_tries(m, &rec)) != JSC_OK) goto fail;
    if ((rc = start(m, options->limits)) != JSC_OK) goto fail;
    if (recovery) *recovery = rec;
    *out = m;
    return JSC_OK;
fail:
    if (recovery) *recovery = rec;
    jsc_mlog_shut(m, false);
    jsc_mlog_free(m);
    return rc;
}

/* Under the lock. What is not yet written is read from the log's memory. */
int jsc_mlog_reload(jsc_mlog *m) {
    jsc_mlog_recovery rec = {0};
    jsc_mlog old = *m;
    int rc;
    m->pieces = NULL;
    m->npieces = m->pieces_cap = 0;
    jsc_subjects_forget_all(m); /* the records are counted anew */
    if (m->options.read_only) {
        m->log = NULL;
        rc = open_tries(m, &rec);
    } else {
        rc = jsc_mlog_restore(m, jsc_log_durable(m->log), &rec);
    }
    jsc_subjects_forget_all(m);
    m->generation++;
    if (rc != JSC_OK) { /* as it was */
        pieces_free(m, m->pieces, m->npieces);
        if (m->options.read_only && m->log) jsc_log_abandon(m->log);
        m->log = old.log;
        m->pieces = old.pieces;
        m->npieces = old.npieces;
        m->pieces_cap = old.pieces_cap;
        m->first_seq = old.first_seq;
        m->last_seq = old.last_seq;
        m->messages = old.messages;
        m->message_bytes = old.message_bytes;
        m->last_ts = old.last_ts;
        m->applied = old.applied;
        m->limits = old.limits;
        m->limits_index = old.limits_index;
        m->limited_since = old.limited_since;
        m->limited_index = old.limited_index;
        return rc;
    }
    pieces_free(m, old.pieces, old.npieces);
    if (m->options.read_only) {
        jsc_log_abandon(old.log);
        m->durable_index = m->applied;
        m->durable_seq = m->last_seq;
        return JSC_OK;
    }
    m->applied = jsc_log_durable(m->log);
    rc = jsc_mlog_catch_up(m, jsc_log_last(m->log));
    return rc == JSC_OK ? rc : jsc_mlog_break(m, rc == -ESTALE ? JSC_ECORRUPT : rc);
}

/* ---- close ---- */

/* Everything is synced: the state goes with it. What it says the records do too, so a full disk does not
 * matter. */
static int last_checkpoint(jsc_mlog *m) {
    pthread_mutex_lock(&m->care);
    pthread_mutex_lock(&m->lock);
    jsc_mlog_trim(m);
    int rc = m->applied != m->checkpointed ? jsc_checkpoint_write(m) : JSC_OK;
    jsc_mlog_reap(m);
    pthread_mutex_unlock(&m->lock);
    pthread_mutex_unlock(&m->care);
    return rc == -ENOSPC || rc == -EDQUOT || rc == -EFBIG ? JSC_OK : rc;
}

int jsc_mlog_shut(jsc_mlog *m, bool write) {
    int rc = JSC_OK, closed;
    if (m->shut) return JSC_OK;
    jsc_maintain_stop(m);
    bool writer = m->log && !m->options.read_only;
    if (writer && write && (rc = jsc_mlog_wait_synced(m, jsc_log_last(m->log), -1)) == JSC_OK) rc = last_checkpoint(m);
    pthread_mutex_lock(&m->lock);
    m->shut = true; /* the sync thread has no more to tell */
    pthread_mutex_unlock(&m->lock);
    jsc_follow_close(m);
    jsc_log *log = m->log;
    if (writer && write) {
        closed = jsc_log_close(log);
        if (rc == JSC_OK) rc = closed;
    } else if (log) {
        jsc_log_abandon(log);
    }
    for (size_t i = 0; i < m->ndropped; i++) { /* not known to be synced: the files stay */
        free(m->dropped[i].segment->path);
        m->dropped[i].segment->path = NULL;
        jsc_segment_unref(m->dropped[i].segment);
    }
    pieces_free(m, m->pieces, m->npieces);
    m->pieces = NULL;
    m->npieces = m->ndropped = 0;
    jsc_store_close(m->store);
    m->store = NULL;
    m->log = NULL;
    return rc;
}

void jsc_mlog_free(jsc_mlog *m) {
    if (!m) return;
    pthread_cond_t *conds[] = {&m->moved, &m->work, &m->settled, &m->opened, &m->sealed};
    for (size_t i = 0; i < sizeof conds / sizeof *conds; i++) pthread_cond_destroy(conds[i]);
    pthread_mutex_destroy(&m->lock);
    pthread_mutex_destroy(&m->care);
    pthread_mutex_destroy(&m->turn_lock);
    if (m->blocks) jsc_block_cache_free(m->blocks);
    jsc_subject_cache_free(m->subjects);
    if (m->keys) jsc_keys_unref(m->keys);
    free(m->marks);
    free(m->dropped);
    jsc_healing_free(&m->healing);
    free(m->dir);
    free(m);
}

int jsc_mlog_close(jsc_mlog *m) {
    int rc = jsc_mlog_shut(m, true);
    jsc_mlog_free(m);
    return rc;
}

void jsc_mlog_abandon(jsc_mlog *m) {
    if (!m || m->pid != (int)getpid()) return; /* in a child the threads do not exist: see jsc_mlog_forked */
    jsc_mlog_shut(m, false);
    jsc_mlog_free(m);
}

void jsc_mlog_forked(jsc_mlog *m) {
    if (m->shut) return;
    if (m->log && m->log->fd >= 0) close(m->log->fd);
    if (m->log && m->log->lock_fd >= 0) close(m->log->lock_fd);
    if (m->shared_fd >= 0) close(m->shared_fd);
    if (m->store) close(m->store->eventfd);
}
