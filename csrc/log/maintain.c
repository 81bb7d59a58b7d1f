/* The maintenance of a log: what was appended is handed over, full segments are sealed, what is wasteful is rewritten,
 * what is sealed is scrubbed. One thread a log does it in the background, or a caller of jsc_mlog_maintain; both by the
 * same steps, one at a time. */
#include "care.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define MS ((int64_t)1000000)
#define FLUSH_NS (4 * MS)  /* records wait so long for others to go with them */
#define MARK_NS (100 * MS) /* a log is silent when nothing came for so long */
#define LOOK_NS (1000 * MS) /* between two looks at what is worth compacting, while records come */
#define LEFT_NS (20 * MS)  /* a full segment that is not written yet is looked at again */
#define BURST_NS (50 * MS) /* a throttled job may be ahead by what it may do in this time */
#define SCRUB_PAUSE_NS (3600 * 1000 * MS)
#define RETRY_MIN_NS (1000 * MS)
#define RETRY_MAX_NS (60 * 1000 * MS)
enum { BACKLOG = 3 }; /* full segments that wait to be sealed, before who appends waits too */
#define COMPACT_RATE ((uint64_t)64 << 20)
#define SCRUB_RATE ((uint64_t)8 << 20)

size_t jsc_care_find(const jsc_mlog *m, const jsc_segment *s) {
    for (size_t i = 0; i < m->npieces; i++)
        if (m->pieces[i]->segment == s) return i;
    return m->npieces;
}

static int64_t cost(uint64_t bytes, uint64_t rate) { return (int64_t)((double)bytes * 1e9 / (double)rate); }

/* ---- the thread's sleep (under the lock) ---- */

static bool pending(const jsc_mlog *m) {
    return jsc_log_last(m->log) != m->submitted_index && !m->flush_wanted && !m->shut &&
           jsc_log_error(m->log) == JSC_OK && !atomic_load_explicit(&m->log->full, memory_order_relaxed);
}

static void flush_if_due(jsc_mlog *m) {
    if (!pending(m)) {
        m->keeper.flush_at = 0;
        return;
    }
    int64_t now = jsc_store_clock();
    if (!m->keeper.flush_at) m->keeper.flush_at = now + FLUSH_NS;
    if (now < m->keeper.flush_at) return;
    jsc_mlog_flush(m); /* a failure is the log's, and told there */
    m->keeper.flush_at = 0;
}

/* A log that was silent for a while says that its last batch is synced: from then on damage there is told from a torn
 * tail. */
static void mark_if_due(jsc_mlog *m) {
    jsc_keeper *k = &m->keeper;
    if (m->shut || !jsc_log_unmarked(m->log)) {
        k->mark_at = 0;
        return;
    }
    int64_t now = jsc_store_clock();
    if (!k->mark_at || k->mark_index != jsc_log_last(m->log) || now < k->mark_at) {
        if (!k->mark_at || now >= k->mark_at) k->mark_at = now + MARK_NS;
        k->mark_index = jsc_log_last(m->log);
        return;
    }
    k->mark_at = now + MARK_NS; /* again, if the sync it waits for is still on its way */
    jsc_log_mark(m->log);
}

/* Until a time (INT64_MAX: for good) or a poke; what is pending is handed over meanwhile. */
static void nap(jsc_mlog *m, int64_t until) {
    flush_if_due(m);
    mark_if_due(m);
    if (m->keeper.flush_at && m->keeper.flush_at < until) until = m->keeper.flush_at;
    if (m->keeper.mark_at && m->keeper.mark_at < until) until = m->keeper.mark_at;
    /* While a flush is due anyway, more records need no poke. */
    m->keeper.idle = !m->keeper.flush_at;
    if (until == INT64_MAX) {
        pthread_cond_wait(&m->work, &m->lock);
    } else {
        struct timespec t = {until / 1000000000, until % 1000000000};
        pthread_cond_timedwait(&m->work, &m->lock, &t);
    }
    m->keeper.idle = false;
    flush_if_due(m);
}

void jsc_maintain_poke(jsc_mlog *m) {
    if (JSC_LIKELY(!m->keeper.idle)) return;
    m->keeper.idle = false;
    pthread_cond_signal(&m->work);
}

/* ---- steps (with care, without the lock) ---- */

static bool is_unsealed(const jsc_piece *p) {
    const jsc_segment *s = p->segment;
    return p->tail && s->at && !s->sealed && !s->overlong && !p->skip;
}

/* A full segment without a sidecar; *waiting: there is one that is still being written. */
static bool find_unsealed(const jsc_mlog *m, size_t *i, bool *waiting) {
    *waiting = false;
    for (size_t k = m->npieces; k-- > 0;) {
        const jsc_piece *p = m->pieces[k];
        if (k + 1 == m->npieces || !is_unsealed(p) || p->busy) continue;
        if (jsc_care_full(m, k)) {
            *i = k;
            return true;
        }
        *waiting = true;
    }
    return false;
}

/* An error that has to do with the bytes of one segment, not with the disk or memory: others go on. */
static bool of_one(int rc) { return rc == JSC_ECORRUPT || rc == JSC_EKEY || rc == JSC_EFORMAT || rc == JSC_EINVAL; }

static void skip(jsc_mlog *m, jsc_segment **segments, size_t n, int rc) {
    for (size_t k = 0; k < n; k++) {
        if (rc == JSC_ECORRUPT) jsc_scrub_examine(m, segments[k]);
        pthread_mutex_lock(&m->lock);
        size_t i = jsc_care_find(m, segments[k]);
        if (i < m->npieces) m->pieces[i]->skip = true;
        pthread_mutex_unlock(&m->lock);
        jsc_segment_unref(segments[k]);
    }
}

/* Seals one segment. JSC_ENOTFOUND: none is due. */
static int seal_one(jsc_mlog *m) {
    size_t i = 0;
    bool waiting;
    jsc_segment *s = NULL;
    pthread_mutex_lock(&m->lock);
    if (find_unsealed(m, &i, &waiting)) {
        s = m->pieces[i]->segment;
        jsc_segment_ref(s);
    }
    pthread_mutex_unlock(&m->lock);
    if (!s) return JSC_ENOTFOUND;
    int rc = jsc_seal(m, s);
    pthread_mutex_lock(&m->lock);
    m->keeper.checkpoint_due = true;
    m->keeper.looked = UINT64_MAX; /* there is one more to choose from */
    pthread_cond_broadcast(&m->sealed);
    pthread_mutex_unlock(&m->lock);
    if (of_one(rc)) skip(m, &s, 1, rc);
    else jsc_segment_unref(s);
    return rc;
}

static int checkpoint(jsc_mlog *m) {
    pthread_mutex_lock(&m->lock);
    m->keeper.checkpoint_due = m->checkpoint_wanted = false;
    int rc = jsc_checkpoint_write(m);
    if (rc == JSC_OK) jsc_mlog_reap(m);
    else m->keeper.checkpoint_due = true;
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static int trim(jsc_mlog *m) {
    pthread_mutex_lock(&m->lock);
    int rc = m->trim_wanted ? jsc_mlog_trim(m) : JSC_OK;
    jsc_mlog_reap(m);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* Rewrites what is most worth it. JSC_ENOTFOUND: nothing is. */
static int compact_one(jsc_mlog *m, bool force) {
    size_t i, n;
    pthread_mutex_lock(&m->lock);
    bool found = jsc_compact_choose(m, force, &i, &n);
    jsc_segment **segments = found ? malloc(n * sizeof *segments) : NULL;
    for (size_t k = 0; segments && k < n; k++) {
        segments[k] = m->pieces[i + k]->segment;
        jsc_segment_ref(segments[k]);
    }
    pthread_mutex_unlock(&m->lock);
    if (!found) return JSC_ENOTFOUND;
    if (!segments) return -ENOMEM;
    int rc = jsc_rewrite(m, segments[0], n, NULL);
    if (rc == JSC_ENOTFOUND) rc = JSC_OK; /* trimmed just now: there is something else to choose */
    if (of_one(rc)) {
        skip(m, segments, n, rc);
    } else {
        for (size_t k = 0; k < n; k++) jsc_segment_unref(segments[k]);
    }
    free(segments);
    return rc;
}

/* ---- the thread ---- */

int jsc_care_pace(jsc_mlog *m, uint64_t bytes) {
    jsc_keeper *k = &m->keeper;
    if (!k->throttled) return JSC_OK;
    uint64_t rate = m->options.compact_bytes_per_s ? m->options.compact_bytes_per_s : COMPACT_RATE;
    pthread_mutex_lock(&m->lock);
    int64_t now = jsc_store_clock();
    if (k->paid_until < now - BURST_NS) k->paid_until = now - BURST_NS;
    if (rate != UINT64_MAX) k->paid_until += cost(bytes, rate);
    flush_if_due(m);
    while (!m->stop && k->paid_until > now && !atomic_load(&k->wanted)) {
        size_t i;
        bool waiting;
        if (find_unsealed(m, &i, &waiting)) break; /* the writers are ahead: finish soon */
        nap(m, k->paid_until);
        now = jsc_store_clock();
    }
    bool stop = m->stop;
    pthread_mutex_unlock(&m->lock);
    return stop ? -ECANCELED : JSC_OK;
}

enum duty { NOTHING, SEAL, CHECKPOINT, TRIM, COMPACT, SCRUB };

static uint64_t scrub_rate(const jsc_mlog *m) {
    return m->options.scrub_bytes_per_s ? m->options.scrub_bytes_per_s : SCRUB_RATE;
}

/* Under the lock: what is due now, or *until when nothing is. */
static enum duty next_duty(jsc_mlog *m, int64_t now, int64_t *until) {
    jsc_keeper *k = &m->keeper;
    size_t i;
    bool waiting;
    *until = INT64_MAX;
    if (m->broken || m->shut) return NOTHING;
    bool writable = jsc_log_error(m->log) == JSC_OK;
    if (now >= k->retry_at) {
        if (writable && find_unsealed(m, &i, &waiting)) return SEAL;
        if (writable && (k->checkpoint_due || m->checkpoint_wanted)) return CHECKPOINT;
        if (writable && m->trim_wanted) return TRIM;
        if (writable && m->applied != k->looked && now >= k->look_at) return COMPACT;
        if (scrub_rate(m) != UINT64_MAX && now >= k->scrub_at) return SCRUB;
        if (writable && waiting) *until = now + LEFT_NS;
        if (writable && m->ndropped) {
            jsc_mlog_reap(m);
            if (m->ndropped && pending(m) == false) *until = now + LEFT_NS;
        }
        if (writable && m->applied != k->looked && k->look_at < *until) *until = k->look_at;
        if (scrub_rate(m) != UINT64_MAX && k->scrub_at < *until) *until = k->scrub_at;
    } else {
        *until = k->retry_at;
    }
    return NOTHING;
}

/* With care. */
static int do_duty(jsc_mlog *m, enum duty duty) {
    jsc_keeper *k = &m->keeper;
    uint64_t bytes = 0, looked;
    bool done = false;
    int rc = JSC_OK;
    switch (duty) {
    case SEAL: rc = seal_one(m); break;
    case CHECKPOINT: rc = checkpoint(m); break;
    case TRIM: rc = trim(m); break;
    case COMPACT:
        pthread_mutex_lock(&m->lock);
        looked = m->applied;
        pthread_mutex_unlock(&m->lock);
        rc = compact_one(m, false);
        if (rc == JSC_ENOTFOUND) {
            pthread_mutex_lock(&m->lock);
            k->looked = looked;
            k->look_at = jsc_store_clock() + LOOK_NS;
            pthread_mutex_unlock(&m->lock);
        }
        break;
    case SCRUB:
        rc = jsc_scrub_step(m, &bytes, &done);
        pthread_mutex_lock(&m->lock);
        k->scrub_at = jsc_store_clock() + (done ? SCRUB_PAUSE_NS : cost(bytes, scrub_rate(m)));
        pthread_mutex_unlock(&m->lock);
        break;
    case NOTHING: break;
    }
    return rc == JSC_ENOTFOUND || of_one(rc) ? JSC_OK : rc;
}

static void *keeper_main(void *arg) {
    jsc_mlog *m = arg;
    jsc_keeper *k = &m->keeper;
    pthread_mutex_lock(&m->lock);
    while (!m->stop) {
        int64_t now = jsc_store_clock(), until;
        flush_if_due(m);
        enum duty duty = next_duty(m, now, &until);
        if (duty == NOTHING) {
            nap(m, until);
            continue;
        }
        /* Order of the locks: care first. A job of the user's that holds it must not keep this thread from flushing. */
        if (pthread_mutex_trylock(&m->care) != 0) {
            nap(m, now + FLUSH_NS);
            continue;
        }
        pthread_mutex_unlock(&m->lock);
        k->throttled = true;
        int rc = do_duty(m, duty);
        k->throttled = false;
        pthread_mutex_unlock(&m->care);
        pthread_mutex_lock(&m->lock);
        /* Nothing that fails here is lost: it is due again, later. */
        k->retry_ns = rc == JSC_OK ? 0 : k->retry_ns ? 2 * k->retry_ns : RETRY_MIN_NS;
        if (k->retry_ns > RETRY_MAX_NS) k->retry_ns = RETRY_MAX_NS;
        k->retry_at = rc == JSC_OK ? 0 : jsc_store_clock() + k->retry_ns;
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

int jsc_maintain_start(jsc_mlog *m) {
    if (m->thread_runs || m->options.read_only) return JSC_OK;
    sigset_t all, before; /* signals are the host's business */
    m->stop = false;
    m->keeper.pid = getpid();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&m->thread, NULL, keeper_main, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) return -rc;
    m->thread_runs = true;
    return JSC_OK;
}

void jsc_maintain_stop(jsc_mlog *m) {
    if (m->thread_runs && m->keeper.pid == getpid()) {
        pthread_mutex_lock(&m->lock);
        m->stop = true;
        pthread_cond_signal(&m->work);
        pthread_mutex_unlock(&m->lock);
        pthread_join(m->thread, NULL);
        m->thread_runs = false;
    }
    if (m->thread_runs) return; /* a child's: the thread is its parent's */
    jsc_scrub_drop(m);
}

static size_t unsealed(const jsc_mlog *m) {
    size_t n = 0;
    for (size_t i = 0; i + 1 < m->npieces; i++) n += is_unsealed(m->pieces[i]);
    return n;
}

int jsc_mlog_let_seal(jsc_mlog *m, int64_t timeout_ns) {
    int64_t until = jsc_store_clock() + timeout_ns;
    struct timespec t = {until / 1000000000, until % 1000000000};
    int rc = 0;
    pthread_mutex_lock(&m->lock);
    while (!rc && m->thread_runs && !m->stop && !m->broken && !m->keeper.retry_at && !jsc_log_error(m->log) &&
           unsealed(m) > BACKLOG)
        rc = pthread_cond_timedwait(&m->sealed, &m->lock, &t);
    pthread_mutex_unlock(&m->lock);
    return -rc;
}

/* ---- the same, now ---- */

/* Everything appended is on the disk, so that the segments before the open one are full. */
static int settle(jsc_mlog *m, bool roll) {
    /* On a full disk: what was deleted may have made space that nobody found yet. */
    int rc = atomic_load(&m->log->full) ? jsc_mlog_sync(m, -1) : JSC_OK;
    if (rc != JSC_OK) return rc;
    pthread_mutex_lock(&m->lock);
    rc = jsc_mlog_flush(m);
    if (rc == JSC_OK && roll) rc = jsc_commit_roll(m);
    if (rc == JSC_OK && roll) rc = jsc_mlog_extend_pieces(m);
    uint64_t index = m->applied;
    pthread_mutex_unlock(&m->lock);
    if (rc == JSC_OK) rc = jsc_mlog_wait_synced(m, index, -1);
    /* The file that was rolled to is made behind the last record. */
    if (rc == JSC_OK && roll) jsc_store_settle(m->log);
    return rc;
}

static int until_none(jsc_mlog *m, int (*step)(jsc_mlog *, bool), bool force) {
    int first = JSC_OK, rc;
    while ((rc = step(m, force)) != JSC_ENOTFOUND) {
        if (rc == JSC_OK) continue;
        if (first == JSC_OK) first = rc;
        if (!of_one(rc)) break;
    }
    return first;
}

static int seal_step(jsc_mlog *m, bool force) { return seal_one(m); }

/* Whoever wants space back gains something where the open segment ends: it holds what is dead, or is to be packed. Else
 * its sidecar would make the log larger. */
static bool gains(jsc_mlog *m) {
    pthread_mutex_lock(&m->lock);
    const jsc_piece *p = m->npieces ? m->pieces[m->npieces - 1] : NULL;
    bool yes = p && (p->segment->count > jsc_piece_live(p) || m->keys || m->options.zstd_level > 0);
    pthread_mutex_unlock(&m->lock);
    return yes;
}

int jsc_mlog_maintain(jsc_mlog *m, int what, bool force) {
    int rc, first = JSC_OK;
    if (m->options.read_only) return JSC_EREADONLY;
    jsc_care_take(m);
    bool roll = force && what & JSC_CARE_SEAL && (!(what & JSC_CARE_COMPACT) || gains(m));
    if (what) first = settle(m, roll);
    if (first == JSC_OK && what & JSC_CARE_SEAL) {
        first = until_none(m, seal_step, force);
        if ((rc = checkpoint(m)) != JSC_OK && first == JSC_OK) first = rc;
    }
    if (what & JSC_CARE_COMPACT && (first == JSC_OK || of_one(first))) {
        rc = trim(m);
        if (rc == JSC_OK) rc = until_none(m, compact_one, force);
        if (rc == JSC_OK) rc = trim(m);
        if (first == JSC_OK) first = rc;
    }
    if (what & JSC_CARE_SCRUB && (first == JSC_OK || of_one(first))) {
        bool done = false;
        uint64_t bytes;
        jsc_scrub_drop(m);
        for (rc = JSC_OK; rc == JSC_OK && !done;) rc = jsc_scrub_step(m, &bytes, &done);
        if (first == JSC_OK) first = rc;
    }
    pthread_mutex_unlock(&m->care);
    return first;
}
