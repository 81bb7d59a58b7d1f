/* The trail of a log: full segments that the next one did not wait for, in the interval and never modes. They are synced in
 * order, each with the head and the name of the one behind it, by a thread of the store's that comes with the first, or by
 * the sync thread when somebody waits for a sync. See docs/format.md#append. */
#include "log_internal.h"

#include <fcntl.h>
#include <signal.h>

#define TRAIL_BYTES ((uint64_t)128 << 20) /* opening after a crash reads as much */
enum { TRAIL_SEGMENTS = 8 };

void jsc_trail_init(jsc_log *log) { log->trail_end = &log->trail; }

/* ---- under the lock ---- */

static int failed(const jsc_log *log) { return atomic_load_explicit(&log->error, memory_order_relaxed); }

static void enqueue(jsc_store *s, jsc_log *log) {
    if (log->trailing) return;
    log->trailing = true;
    log->trailing_next = NULL;
    *s->trailing_end = log;
    s->trailing_end = &log->trailing_next;
}

static void dequeue(jsc_store *s, jsc_log *log) {
    if (!log->trailing) return;
    jsc_log **p = &s->trailing;
    while (*p != log) p = &(*p)->trailing_next;
    *p = log->trailing_next;
    for (s->trailing_end = &s->trailing; *s->trailing_end; s->trailing_end = &(*s->trailing_end)->trailing_next) {
    }
    log->trailing = false;
}

static jsc_segment *pop(jsc_log *log) {
    jsc_segment *q = log->trail;
    log->trail = q->after;
    q->after = NULL;
    if (!log->trail) log->trail_end = &log->trail;
    log->trail_n--;
    log->trail_bytes -= q->allocated;
    return q;
}

static void let_go(jsc_log *log, jsc_segment *q) {
    log->vfs->close(log->vfs->self, q->fd);
    q->fd = -1;
    jsc_segment *behind = q->behind;
    q->behind = NULL;
    jsc_segment_unref(behind);
    jsc_segment_unref(q);
}

/* ---- without the lock ---- */

/* A file is full for good when the head of the next is on the disk, whose name says where it ends. */
static int sync_name(jsc_log *log, jsc_segment *q) {
    const jsc_vfs *vfs = log->vfs;
    jsc_segment *next = q->behind;
    if (atomic_load(&q->named) && atomic_load(&next->named)) return JSC_OK;
    int fd = jsc_segment_open(log, next, O_RDWR), rc;
    if (fd < 0) return fd;
    rc = vfs->datasync(vfs->self, fd);
    vfs->close(vfs->self, fd);
    if (rc == 0) rc = vfs->syncdir(vfs->self, log->dir);
    if (rc < 0) return rc;
    atomic_store(&q->named, true);
    atomic_store(&next->named, true);
    return JSC_OK;
}

/* Syncs the first. With the lock, dropped meanwhile; nobody else is at it. */
static void sync_first(jsc_store *s, jsc_log *log) {
    jsc_segment *q = log->trail;
    log->trail_busy = true;
    pthread_mutex_unlock(&s->lock);
    int rc = log->vfs->datasync(log->vfs->self, q->fd);
    if (rc == JSC_OK) rc = sync_name(log, q);
    pthread_mutex_lock(&s->lock);
    log->trail_busy = false;
    if (rc == JSC_OK) {
        pop(log);
        if (q->ends > atomic_load_explicit(&log->synced, memory_order_relaxed))
            atomic_store_explicit(&log->synced, q->ends, memory_order_release);
        atomic_store_explicit(&q->left, true, memory_order_release);
        let_go(log, q);
    } else if (failed(log) == JSC_OK) {
        atomic_store_explicit(&log->error, rc, memory_order_release);
        jsc_store_note(s, log);
    }
    pthread_cond_broadcast(&s->done);
}

static void *trail_main(void *arg) {
    jsc_store *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        jsc_log *log = s->trailing;
        if (!log) {
            pthread_cond_wait(&s->trail_work, &s->lock);
            continue;
        }
        dequeue(s, log);
        if (log->trail_busy || !log->trail || failed(log)) continue; /* who is at it asks again for what is left */
        sync_first(s, log);
        if (log->trail && failed(log) == JSC_OK) enqueue(s, log);
        jsc_store_tell(s);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int start(jsc_store *s) {
    sigset_t all, before; /* signals are the host's business */
    if (s->trail_runs) return JSC_OK;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&s->trail_thread, NULL, trail_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    s->trail_runs = rc == 0;
    return -rc;
}

int jsc_trail_room(jsc_log *log) {
    jsc_store *s = log->store;
    uint64_t more = log->open_segment->used;
    pthread_mutex_lock(&s->lock);
    while (failed(log) == JSC_OK && log->trail &&
           (log->trail_n >= TRAIL_SEGMENTS || log->trail_bytes + more > TRAIL_BYTES))
        pthread_cond_wait(&s->done, &s->lock);
    int rc = failed(log);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int jsc_trail_push(jsc_log *log, jsc_segment *q, jsc_segment *behind) {
    jsc_store *s = log->store;
    pthread_mutex_lock(&s->lock);
    int rc = start(s);
    if (rc == JSC_OK) {
        jsc_segment_ref(q);
        jsc_segment_ref(behind);
        q->fd = log->fd;
        q->behind = behind;
        q->ends = behind->first - 1;
        *log->trail_end = q;
        log->trail_end = &q->after;
        log->trail_n++;
        log->trail_bytes += q->allocated;
        enqueue(s, log);
        pthread_cond_signal(&s->trail_work);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

bool jsc_trail_any(jsc_log *log) {
    pthread_mutex_lock(&log->store->lock);
    bool any = log->trail != NULL;
    pthread_mutex_unlock(&log->store->lock);
    return any;
}

int jsc_trail_drain(jsc_log *log) {
    jsc_store *s = log->store;
    if (s->mode == JSC_SYNC_ALWAYS) return JSC_OK;
    pthread_mutex_lock(&s->lock);
    while (log->trail && failed(log) == JSC_OK) {
        if (log->trail_busy) pthread_cond_wait(&s->done, &s->lock);
        else sync_first(s, log);
    }
    int rc = failed(log);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void jsc_trail_forget(jsc_log *log) {
    jsc_store *s = log->store;
    dequeue(s, log);
    while (log->trail_busy) pthread_cond_wait(&s->done, &s->lock);
    dequeue(s, log); /* put back by who was at it */
    while (log->trail) let_go(log, pop(log));
}

void jsc_trail_stop(jsc_store *s) {
    if (!s->trail_runs) return;
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->trail_work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->trail_thread, NULL);
    s->trail_runs = false;
}
