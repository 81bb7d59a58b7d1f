/* From appended to durable: group commit. One sync of a log is on its way at a time; what is appended meanwhile goes with
 * the next, which the sync thread itself starts (served, below) as soon as it is through with the one before. */
#include "mlog_internal.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

enum { MARKS = 16 };
enum { PATIENCE = 3 }; /* failed attempts, a tenth of a second apart, that a job may take to let go */

static bool full(const jsc_mlog *m) { return atomic_load_explicit(&m->log->full, memory_order_relaxed); }
/* The disk is full, and was so when everything that could be freed had been. */
static bool stuck(const jsc_mlog *m) {
    return atomic_load_explicit(&m->log->full, memory_order_acquire) &&
           atomic_load(&m->refused) > atomic_load(&m->log->outdated);
}
static uint64_t synced(const jsc_mlog *m) { return atomic_load_explicit(&m->log->synced, memory_order_acquire); }

static int wait_on(pthread_cond_t *c, pthread_mutex_t *lock, int64_t until) {
    if (until < 0) return pthread_cond_wait(c, lock);
    struct timespec t = {until / 1000000000, until % 1000000000};
    return pthread_cond_timedwait(c, lock, &t);
}

int64_t jsc_commit_deadline(int64_t timeout_ns) {
    if (timeout_ns < 0) return -1;
    int64_t now = jsc_store_clock();
    return timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
}

/* What a sync stands for, remembered until it is through. */
static void push_mark(jsc_mlog *m, uint64_t index, uint64_t seq) {
    if (m->marks_n == m->marks_cap) { /* never more than a few; the last one may stand for more */
        m->marks[(m->marks_head + m->marks_n - 1) % m->marks_cap] = (struct jsc_seq_mark){index, seq};
        return;
    }
    m->marks[(m->marks_head + m->marks_n++) % m->marks_cap] = (struct jsc_seq_mark){index, seq};
}

int jsc_commit_init(jsc_mlog *m) {
    m->marks = malloc(MARKS * sizeof *m->marks);
    if (!m->marks) return -ENOMEM;
    m->marks_cap = MARKS;
    return JSC_OK;
}

int jsc_commit_bad(const jsc_mlog *m) {
    int error = jsc_log_error(m->log);
    return error != JSC_OK ? error : stuck(m) ? JSC_EFULL : JSC_OK;
}

/* What the sync thread did since; true: something moved. */
static bool take_in(jsc_mlog *m) {
    uint64_t d = jsc_log_durable(m->log), seq = m->durable_seq;
    bool moved = d > m->durable_index;
    if (moved) m->durable_index = d;
    for (; m->marks_n && m->marks[m->marks_head].index <= d; m->marks_n--) {
        m->durable_seq = m->marks[m->marks_head].seq;
        m->marks_head = (m->marks_head + 1) % m->marks_cap;
    }
    if (d >= m->applied) m->durable_seq = m->last_seq;
    return moved || seq != m->durable_seq;
}

static void tell_followers(jsc_mlog *m, bool moved) {
    int error = jsc_log_error(m->log);
    if (moved) jsc_follow_publish(m);
    if ((moved || error != m->told) && m->followers) pthread_cond_broadcast(&m->moved);
    m->told = error;
}

void jsc_mlog_note_durable(jsc_mlog *m) {
    if (m->options.read_only || !m->log) return;
    tell_followers(m, take_in(m));
    if (m->told != JSC_OK) jsc_waiters_tell(m); /* it need not be the sync thread that met it */
}

/* All that was appended is on its way. */
static void note_submitted(jsc_mlog *m) {
    m->submitted_index = jsc_log_last(m->log);
    m->unsubmitted = 0;
    push_mark(m, m->submitted_index, m->last_seq);
}

int jsc_commit_roll(jsc_mlog *m) {
    uint64_t last = jsc_log_last(m->log);
    int rc = jsc_log_roll(m->log);
    if (rc == JSC_OK && last != m->submitted_index) {
        note_submitted(m);
        atomic_store_explicit(&m->asked_index, last, memory_order_release);
    }
    return rc;
}

/* Hands over what is pending, or sees to it that the sync thread does when the sync on its way is through. */
static int hand_over(jsc_mlog *m) {
    uint64_t last = jsc_log_last(m->log);
    if (last == m->submitted_index) return JSC_OK;
    m->flush_wanted = m->submitted_index > m->durable_index && jsc_log_error(m->log) == JSC_OK;
    if (!m->flush_wanted) {
        int rc = jsc_log_submit(m->log);
        if (rc != JSC_OK) return rc;
        note_submitted(m);
    }
    atomic_store_explicit(&m->asked_index, last, memory_order_release);
    return JSC_OK;
}

int jsc_mlog_flush(jsc_mlog *m) {
    if (m->options.read_only || m->shut) return JSC_OK;
    if (jsc_log_last(m->log) == m->submitted_index) return JSC_OK;
    if (m->submitted_index > m->durable_index) jsc_mlog_note_durable(m);
    return hand_over(m);
}

/* Who waits is told of a full disk only when nothing was left to free. True when the disk is full no more: all that waits
 * goes then; what was appended last may not have been handed over, and whoever would do it has seen no use in it since. */
static bool mind_space(jsc_mlog *m) {
    bool starved = full(m), over = m->starved && !starved;
    if (starved) {
        uint64_t refused = atomic_load(&m->log->refused);
        if (m->trim_wanted) jsc_mlog_trim(m);
        else jsc_mlog_reap(m);
        m->patience = jsc_mlog_held(m) ? m->patience + 1 : 0;
        if (!m->patience || m->patience > PATIENCE) atomic_store(&m->refused, refused);
    } else if (over) {
        m->keeper.retry_at = m->keeper.retry_ns = 0; /* its jobs found no space either */
        jsc_maintain_poke(m);
    }
    m->starved = starved;
    return over;
}

/* The sync thread is through with something of this log. What it is to do next comes first, as the disk waits. */
void jsc_commit_served(void *arg) {
    jsc_mlog *m = arg;
    pthread_mutex_lock(&m->lock);
    if (m->log && !m->shut) {
        bool over = mind_space(m), moved = take_in(m);
        if (m->flush_wanted || over) hand_over(m); /* a failure is told by the log's error */
        tell_followers(m, moved);
        jsc_waiters_tell(m);
    }
    pthread_mutex_unlock(&m->lock);
}

int jsc_mlog_submit(jsc_mlog *m, uint64_t *position) {
    pthread_mutex_lock(&m->lock);
    *position = m->options.read_only ? m->applied : jsc_log_last(m->log);
    int rc = jsc_mlog_flush(m);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* Asks the sync thread for a sync of what is written. */
static void want_sync(jsc_mlog *m) {
    jsc_store *s = m->store;
    pthread_mutex_lock(&s->lock);
    m->log->want_sync = true;
    jsc_store_push(m->log);
    pthread_mutex_unlock(&s->lock);
}

int jsc_mlog_wait_synced(jsc_mlog *m, uint64_t index, int64_t timeout_ns) {
    if (m->options.read_only) return JSC_OK;
    int64_t until = jsc_commit_deadline(timeout_ns);
    bool asked = false;
    int rc = JSC_OK;
    for (;;) {
        if (synced(m) >= index) return JSC_OK;
        if ((rc = jsc_log_error(m->log)) != JSC_OK) return rc;
        if (stuck(m)) return JSC_EFULL;
        if (jsc_log_durable(m->log) >= index) { /* written, at least */
            if (!asked) want_sync(m);
            asked = true;
        } else {
            pthread_mutex_lock(&m->lock);
            rc = jsc_mlog_flush(m);
            pthread_mutex_unlock(&m->lock);
            if (rc != JSC_OK && rc != JSC_EFAILED) return rc;
        }
        pthread_mutex_lock(&m->turn_lock);
        m->settling++;
        while (synced(m) < index && jsc_log_error(m->log) == JSC_OK && !stuck(m) &&
               (asked || jsc_log_durable(m->log) < index)) {
            if (until >= 0 && jsc_store_clock() >= until) {
                m->settling--;
                pthread_mutex_unlock(&m->turn_lock);
                return -ETIMEDOUT;
            }
            wait_on(&m->settled, &m->turn_lock, until);
        }
        m->settling--;
        pthread_mutex_unlock(&m->turn_lock);
    }
}

int jsc_mlog_sync(jsc_mlog *m, int64_t timeout_ns) { return jsc_mlog_wait_synced(m, jsc_mlog_position(m), timeout_ns); }

int jsc_commit_make_room(jsc_mlog *m) {
    uint64_t written = atomic_load_explicit(&m->log->written, memory_order_acquire);
    int rc = jsc_mlog_flush(m);
    m->gate = true;
    pthread_mutex_unlock(&m->lock);
    pthread_mutex_lock(&m->turn_lock);
    m->settling++;
    while (rc == JSC_OK && atomic_load_explicit(&m->log->written, memory_order_acquire) == written) {
        if (jsc_log_error(m->log) != JSC_OK) rc = JSC_EFAILED;
        else if (stuck(m)) rc = JSC_EFULL;
        else wait_on(&m->settled, &m->turn_lock, -1);
    }
    m->settling--;
    pthread_mutex_unlock(&m->turn_lock);
    pthread_mutex_lock(&m->lock);
    m->gate = false;
    pthread_cond_broadcast(&m->opened);
    return rc;
}

uint64_t jsc_mlog_position(jsc_mlog *m) {
    pthread_mutex_lock(&m->lock);
    uint64_t at = m->options.read_only ? m->applied : jsc_log_last(m->log);
    pthread_mutex_unlock(&m->lock);
    return at;
}

uint64_t jsc_mlog_durable_position(jsc_mlog *m) {
    pthread_mutex_lock(&m->lock);
    jsc_mlog_note_durable(m);
    uint64_t at = m->durable_index;
    pthread_mutex_unlock(&m->lock);
    return at;
}

uint64_t jsc_mlog_durable(jsc_mlog *m) {
    pthread_mutex_lock(&m->lock);
    jsc_mlog_note_durable(m);
    uint64_t seq = m->durable_seq;
    pthread_mutex_unlock(&m->lock);
    return seq;
}

int jsc_mlog_error(jsc_mlog *m) { return jsc_log_error(m->log); }
int jsc_mlog_eventfd(jsc_mlog *m) { return jsc_store_eventfd(m->store); }

uint64_t jsc_mlog_poll(jsc_mlog *m) {
    jsc_log *ready[1];
    pthread_mutex_lock(&m->lock);
    while (jsc_store_poll(m->store, ready, 1) == 1) {
    }
    jsc_mlog_note_durable(m);
    uint64_t at = m->durable_index;
    pthread_mutex_unlock(&m->lock);
    return at;
}
