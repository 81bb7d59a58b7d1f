/* The sync thread: writes what the owners submitted, syncs it, says so. One lock; nothing that can reach the disk runs
 * under it. The owner takes it once per batch. */
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define RETRY_FULL_NS 100000000 /* a log that found the disk full asks again so often */
#define MIB ((uint64_t)1 << 20)
#define FIRST_STEP ((uint64_t)64 << 10) /* opening after a crash looks at all of it */
#define AHEAD_BYTES (4 * MIB) /* written to a file that no sync is asked for: the disk may begin with them */
#define LITTLE_BYTES ((uint64_t)32 << 10) /* what the owner writes itself, where no sync is asked for */
#define SLOW_WRITE_NS 2000000 /* a write that took so long had to wait for the disk: for so long, */
#define PATIENCE_NS 1000000000 /* no owner writes by itself again */
#define TRIM_LOGS 256 /* a process with fewer has little that it could return to the system */
#define TRIM_CALLS 16
#define PAGE_BYTES ((uint64_t)4096)

#ifndef IOV_MAX
#define IOV_MAX 1024
#endif
enum { IOVS = IOV_MAX < 256 ? IOV_MAX : 256 };

int64_t jsc_store_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void wait_until(pthread_cond_t *c, pthread_mutex_t *m, int64_t ns) {
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    pthread_cond_timedwait(c, m, &t);
}

/* ---- files (sync thread) ---- */

static bool no_space(int rc) { return rc == -ENOSPC || rc == -EDQUOT; }

/* Makes the file; >= 0: its descriptor. patient: it is synced, and so is its name. */
static int segment_create(jsc_log *log, jsc_segment *s, const char *path, bool patient, bool *full) {
    const jsc_vfs *vfs = log->vfs;
    if (log->unnamed) { /* the directory's own name, before there is anything in it */
        int named = jsc_log_sync_parent(log);
        if (named < 0) return named;
        log->unnamed = false;
    }
    uint8_t head[JSC_SEGMENT_HEAD];
    int64_t bytes = 0;
    jsc_segment_head fields = jsc_segment_head_of(s);
    fields.flags |= JSC_SF_RECYCLED;
    jsc_segment_head_encode(&fields, head);
    int rc = log->spares ? jsc_spares_take(log->spares, path, head, s->limit, &bytes) : JSC_ENOTFOUND;
    if (rc >= 0) {
        atomic_store(&s->recycled, true);
        s->allocated = (uint64_t)bytes;
        s->created = true;
        atomic_store(&s->named, true);
        return rc;
    }
    if (rc != JSC_ENOTFOUND) return rc;
    int fd = rc = vfs->open(vfs->self, path, O_RDWR | O_CREAT, 0644);
    *full = no_space(rc);
    if (rc < 0) return rc;
    fields.flags &= ~(uint32_t)JSC_SF_RECYCLED;
    jsc_segment_head_encode(&fields, head);
    uint64_t step = s->limit < FIRST_STEP ? s->limit : FIRST_STEP;
    rc = vfs->allocate(vfs->self, fd, 0, (off_t)step);
    *full = no_space(rc);
    if (rc == 0) rc = jsc_write_all(vfs, fd, head, sizeof head, 0);
    if (rc == 0 && patient) rc = vfs->datasync(vfs->self, fd);
    if (rc == 0 && patient) rc = vfs->syncdir(vfs->self, log->dir);
    if (rc < 0) {
        vfs->close(vfs->self, fd);
        return rc;
    }
    s->allocated = step;
    s->created = true;
    atomic_store(&s->named, patient);
    return fd;
}

/* The open file and its name are synced. */
static int sync_open(jsc_log *log) {
    jsc_segment *s = log->open_segment;
    if (!log->fd_dirty) return JSC_OK;
    int rc = log->vfs->datasync(log->vfs->self, log->fd);
    if (rc == 0 && s && !atomic_load(&s->named)) {
        if ((rc = log->vfs->syncdir(log->vfs->self, log->dir)) == 0) atomic_store(&s->named, true);
    }
    if (rc == 0) log->fd_dirty = false;
    return rc;
}

/* Everything written is synced, in order. */
static int sync_all(jsc_log *log) {
    int rc = jsc_trail_drain(log);
    return rc == JSC_OK ? sync_open(log) : rc;
}

/* What was reserved beyond the end is given back; losing this to a power cut costs nothing. */
static void cut_reserve(const jsc_log *log, jsc_segment *s, int fd) {
    if (log->vfs->truncate(log->vfs->self, fd, (off_t)s->used) == 0) s->allocated = s->used;
}

/* The same of one that was recovered, and not written to since. */
static void cut_recovered(jsc_log *log, jsc_segment *s) {
    int fd = s->allocated > s->used ? jsc_segment_open(log, s, O_RDWR) : -ENOENT;
    if (fd < 0) return;
    cut_reserve(log, s, fd);
    log->vfs->close(log->vfs->self, fd);
}

/* Makes s the open segment. In the always mode the one before is synced first: a file is never created before all
 * that precedes it is on the disk, so only the last file of a log can have a torn tail. In the others it joins the trail,
 * and the head of the new one says so. */
static int segment_switch(jsc_log *log, jsc_segment *s, bool *full) {
    const jsc_vfs *vfs = log->vfs;
    jsc_segment *before = log->open_segment;
    bool patient = log->store->mode == JSC_SYNC_ALWAYS, later = false;
    int rc = JSC_OK, fd;
    if (before) {
        later = !patient && (log->fd_dirty || jsc_trail_any(log));
        rc = patient ? sync_open(log) : later ? jsc_trail_room(log) : JSC_OK;
        if (rc < 0) return rc;
        cut_reserve(log, before, log->fd);
    } else if (s->before && s->cuts_before) {
        cut_recovered(log, s->before);
    }
    char *path = jsc_segment_path(log, s->first, ".seg");
    if (!path) return -ENOMEM;
    if (s->created) {
        fd = vfs->open(vfs->self, path, O_RDWR, 0);
        atomic_store(&s->named, true); /* by recovery, or a truncation */
    } else {
        atomic_store(&s->ahead, later);
        fd = segment_create(log, s, path, patient, full);
    }
    free(path);
    if (fd < 0) return fd;
    if (later) rc = jsc_trail_push(log, before, s);
    else if (before) vfs->close(vfs->self, log->fd);
    if (rc < 0) {
        vfs->close(vfs->self, fd);
        return rc;
    }
    log->fd = fd;
    log->fd_dirty = !atomic_load(&s->named);
    log->open_segment = s;
    log->hinted = 0;
    if (!before) before = s->before;
    if (before && !later) atomic_store_explicit(&before->left, true, memory_order_release);
    s->before = NULL;
    atomic_store_explicit(&s->entered, true, memory_order_release);
    return JSC_OK;
}

/* Space ahead of the bytes: 64 KiB, 1, 4, 16 MiB and then 16 at a time, so that a small log stays small. */
static int segment_reserve(jsc_log *log, jsc_segment *s, uint64_t end, bool *full) {
    uint64_t want = s->allocated;
    while (want < end)
        want = want < FIRST_STEP ? FIRST_STEP
               : want < MIB      ? MIB
               : want < 4 * MIB  ? 4 * MIB
               : want < 16 * MIB ? 16 * MIB
                                 : want + 16 * MIB;
    if (want > s->limit) want = s->limit > end ? s->limit : end;
    if (want == s->allocated) return JSC_OK;
    int rc = log->vfs->allocate(log->vfs->self, log->fd, (off_t)s->allocated, (off_t)(want - s->allocated));
    if (no_space(rc) && want > end) { /* the little that is needed may still fit */
        want = end;
        rc = log->vfs->allocate(log->vfs->self, log->fd, (off_t)s->allocated, (off_t)(want - s->allocated));
    }
    *full = no_space(rc);
    if (rc < 0) return rc;
    s->allocated = want;
    return JSC_OK;
}

/* Writes the iovs wholly, going on after short writes. */
static int write_iovs(const jsc_vfs *vfs, int fd, struct iovec *v, int n, uint64_t at) {
    while (n) {
        ssize_t put = vfs->pwritev(vfs->self, fd, v, n, (off_t)at);
        if (put <= 0) return put < 0 ? (int)put : -EIO;
        at += (uint64_t)put;
        size_t left = (size_t)put;
        while (n && left >= v->iov_len) {
            left -= v->iov_len;
            v++;
            n--;
        }
        if (n) {
            v->iov_base = (uint8_t *)v->iov_base + left;
            v->iov_len -= left;
        }
    }
    return JSC_OK;
}

/* The part of m's range in its first segment, as iovs or, to be encrypted, as a whole. */
typedef struct piece {
    uint64_t at, end;
    jsc_chunk *stop_chunk;
    size_t stop_used;
    struct iovec v[IOVS];
    int n;
} piece;

/* With `whole` no iov is made: only the end is wanted. Else it is no more than the disk may begin with at a time. */
static void next_piece(const jsc_mark *m, bool whole, piece *x) {
    jsc_chunk *c = m->from;
    const jsc_segment *s = c->segment;
    size_t from = m->from_used;
    x->n = 0;
    x->at = x->end = c->offset + from;
    x->stop_chunk = c;
    x->stop_used = from;
    for (; (whole || (x->n < IOVS && x->end - x->at < AHEAD_BYTES)) && c && c->segment == s; c = c->next, from = 0) {
        size_t to = c == m->to ? m->to_used : c->used;
        if (to > from && !whole) x->v[x->n++] = (struct iovec){c->bytes + from, to - from};
        x->end += to - from;
        x->stop_chunk = c;
        x->stop_used = to;
        if (c == m->to) break;
    }
}

/* Puts the plain bytes into the image, which readers use from then on, and their sealed form into one iov. The same bytes
 * come again after a full disk: they give the same result, so no nonce stands for two texts. */
static int seal_piece(jsc_mark *m, jsc_segment *s, piece *x, uint8_t **sealed) {
    size_t n = (size_t)(x->end - x->at), put = 0;
    if (x->end > s->map_len) return JSC_ECORRUPT;
    if (!(*sealed = malloc(n ? n : 1))) return -ENOMEM;
    for (jsc_chunk *c = m->from;; c = c->next) {
        size_t from = c == m->from ? m->from_used : 0, to = c == x->stop_chunk ? x->stop_used : c->used;
        memcpy(s->image + x->at + put, c->bytes + from, to - from);
        put += to - from;
        if (c == x->stop_chunk) break; /* what its `next` says is the owner's */
    }
    jsc_segment_head h = jsc_segment_head_of(s);
    int rc = jsc_image_seal(s->cipher, &h, x->at, s->image + x->at, n, *sealed);
    x->v[0] = (struct iovec){*sealed, n};
    x->n = n ? 1 : 0;
    return rc;
}

/* The sync at the end of a segment finds little left to do: the writer would wait for all of it. The last page stays, as
 * it may be written to again. */
static void write_ahead(jsc_log *log, uint64_t at, uint64_t end) {
    if (log->store->mode != JSC_SYNC_INTERVAL) return;
    if (!log->hinted) log->hinted = at;
    if (end - log->hinted < AHEAD_BYTES) return;
    end -= end % PAGE_BYTES;
    log->vfs->flush_hint(log->vfs->self, log->fd, (off_t)log->hinted, (off_t)(end - log->hinted));
    log->hinted = end;
}

/* Writes m's range; on failure m->from says where it stands. *full: a reservation found no space, nothing is broken. */
static int write_mark(jsc_log *log, jsc_mark *m, bool *full) {
    uint64_t written = atomic_load_explicit(&log->written, memory_order_relaxed);
    int rc = JSC_OK;
    while (m->from && (m->from != m->to || m->from_used < m->to_used)) {
        jsc_segment *s = m->from->segment;
        piece x;
        uint8_t *sealed = NULL;
        if (s != log->open_segment && (rc = segment_switch(log, s, full)) < 0) break;
        next_piece(m, s->cipher != NULL, &x);
        if ((rc = segment_reserve(log, s, x.end, full)) < 0) break;
        if (s->cipher) rc = seal_piece(m, s, &x, &sealed);
        /* ENOSPC here, on a file system that copies on write, is a failed write like any other. */
        if (rc == JSC_OK && x.n) rc = write_iovs(log->vfs, log->fd, x.v, x.n, x.at);
        free(sealed);
        if (rc < 0) break;
        log->fd_dirty = true;
        write_ahead(log, x.at, x.end);
        written = s->base + x.end;
        m->from = x.stop_chunk;
        m->from_used = x.stop_used;
        if (x.stop_chunk != m->to) {
            m->from = x.stop_chunk->next;
            m->from_used = 0;
        }
    }
    /* Only now: the owner may reuse chunks below it at once. */
    atomic_store_explicit(&log->written, written, memory_order_release);
    return rc;
}

/* ---- queues (under the lock) ---- */

static void push_dirty(jsc_store *s, jsc_log *log) {
    log->queued = JSC_Q_DIRTY;
    log->queue_next = NULL;
    *s->dirty_end = log;
    s->dirty_end = &log->queue_next;
}

void jsc_store_push(jsc_log *log) {
    jsc_store *s = log->store;
    if (log->queued != JSC_Q_NONE) return;
    push_dirty(s, log);
    if (s->sleeping) {
        s->sleeping = false;
        pthread_cond_signal(&s->work);
    }
}

void jsc_store_note(jsc_store *s, jsc_log *log) {
    if (!log->ready) {
        log->ready = true;
        log->ready_next = NULL;
        *s->ready_end = log;
        s->ready_end = &log->ready_next;
    }
}

/* What is ready is told. Last of all: whoever is woken takes locks that the sync thread needs to go on. */
static void signal_ready(jsc_store *s) {
    if (!s->ready || s->signalled) return;
    uint64_t one = 1;
    s->signalled = true;
    ssize_t put = write(s->eventfd, &one, sizeof one);
    JSC_ASSERT(put == (ssize_t)sizeof one);
}

static void push_unsynced(jsc_store *s, jsc_log *log) {
    if (log->unsynced) return;
    log->unsynced = true;
    if (!s->unsynced) s->sync_at = jsc_store_clock() + s->interval_ns;
    log->unsynced_next = s->unsynced;
    s->unsynced = log;
}

static void remove_unsynced(jsc_store *s, jsc_log *log) {
    if (!log->unsynced) return;
    jsc_log **p = &s->unsynced;
    while (*p != log) p = &(*p)->unsynced_next;
    *p = log->unsynced_next;
    log->unsynced = false;
}

static void remove_queued(jsc_store *s, jsc_log *log) {
    if (log->queued == JSC_Q_NONE) return;
    jsc_log **p = log->queued == JSC_Q_DIRTY ? &s->dirty : &s->stalled;
    while (*p != log) p = &(*p)->queue_next;
    *p = log->queue_next;
    for (s->dirty_end = &s->dirty; *s->dirty_end; s->dirty_end = &(*s->dirty_end)->queue_next) {
    }
    log->queued = JSC_Q_NONE;
}

static void remove_ready(jsc_store *s, jsc_log *log) {
    if (!log->ready) return;
    jsc_log **p = &s->ready;
    while (*p != log) p = &(*p)->ready_next;
    *p = log->ready_next;
    for (s->ready_end = &s->ready; *s->ready_end; s->ready_end = &(*s->ready_end)->ready_next) {
    }
    log->ready = false;
}

/* The first that no other thread is at; NULL: none. Who is at one looks here again when it is done. */
static jsc_log *pop_dirty(jsc_store *s) {
    jsc_log **p = &s->dirty, *log;
    while ((log = *p) && log->busy) p = &log->queue_next;
    if (!log) return NULL;
    *p = log->queue_next;
    if (!*p) s->dirty_end = p;
    log->queued = JSC_Q_NONE;
    return log;
}

/* The same of those that wait for the interval's sync. */
static jsc_log *pop_unsynced(jsc_store *s) {
    jsc_log **p = &s->unsynced, *log;
    while ((log = *p) && log->busy) p = &log->unsynced_next;
    if (!log) return NULL;
    *p = log->unsynced_next;
    log->unsynced = false;
    return log;
}

/* ---- the threads ---- */

/* Signals are the host's business. */
static int start_thread(pthread_t *thread, void *(*main)(void *), jsc_store *s) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(thread, NULL, main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -rc;
}

static void call_hand(jsc_store *s);

/* Writes and syncs one log. Called with the lock, drops it meanwhile. Whether its durable index moved; a failure is noted. */
static bool serve(jsc_store *s, jsc_log *log) {
    jsc_mark m = log->mark;
    bool sync_now = s->mode == JSC_SYNC_ALWAYS || log->want_sync, full = false, clean = false;
    log->mark = (jsc_mark){.index = m.index};
    log->want_sync = false;
    log->busy = true;
    uint64_t attempt = ++log->attempts;
    pthread_mutex_unlock(&s->lock);

    int rc = atomic_load_explicit(&log->error, memory_order_relaxed);
    if (rc == JSC_OK) {
        rc = write_mark(log, &m, &full);
        if (rc == JSC_OK) {
            log->written_index = m.index;
            if (sync_now) rc = sync_all(log);
            clean = rc == JSC_OK && !log->fd_dirty;
        }
    }

    pthread_mutex_lock(&s->lock);
    log->busy = false;
    bool moved = false;
    if (clean && !log->trail) atomic_store_explicit(&log->synced, m.index, memory_order_release);
    if (rc == JSC_OK) {
        atomic_store_explicit(&log->full, 0, memory_order_relaxed);
        moved = atomic_load_explicit(&log->durable, memory_order_relaxed) != m.index;
        atomic_store_explicit(&log->durable, m.index, memory_order_release);
        if ((log->fd_dirty || log->trail) && s->mode == JSC_SYNC_INTERVAL) push_unsynced(s, log);
    } else if (full) {
        /* Nothing of it was promised: keep the range, refuse more, ask again later. */
        atomic_store_explicit(&log->refused, attempt, memory_order_relaxed);
        atomic_store_explicit(&log->full, 1, memory_order_release);
        log->want_sync |= sync_now;
        if (!log->mark.to) log->mark = m;
        log->mark.from = m.from;
        log->mark.from_used = m.from_used;
        if (log->queued != JSC_Q_NONE) remove_queued(s, log);
        if (atomic_load_explicit(&log->outdated, memory_order_relaxed) >= attempt) {
            push_dirty(s, log);
        } else {
            log->queued = JSC_Q_STALLED;
            log->queue_next = s->stalled;
            s->stalled = log;
        }
    } else if (atomic_load_explicit(&log->error, memory_order_relaxed) == JSC_OK) {
        atomic_store_explicit(&log->error, rc, memory_order_release);
        jsc_store_note(s, log);
    }
    pthread_cond_broadcast(&s->done);
    return moved;
}

/* The interval's sync of one log. Called with the lock, drops it meanwhile. */
static void sync_one(jsc_store *s, jsc_log *log) {
    log->busy = true;
    pthread_mutex_unlock(&s->lock);
    int rc = sync_all(log);
    pthread_mutex_lock(&s->lock);
    log->busy = false;
    if (rc == JSC_OK) atomic_store_explicit(&log->synced, log->written_index, memory_order_release);
    if (rc < 0 && atomic_load_explicit(&log->error, memory_order_relaxed) == JSC_OK) {
        atomic_store_explicit(&log->error, rc, memory_order_release);
        jsc_store_note(s, log);
    }
    pthread_cond_broadcast(&s->done);
}

void jsc_store_tell(jsc_store *s) {
    if (s->served) {
        pthread_mutex_unlock(&s->lock);
        s->served(s->served_arg);
        pthread_mutex_lock(&s->lock);
    }
    signal_ready(s);
}

/* Writes and syncs what waits, until there is nothing that no other thread is at. Called with the lock. */
static void serve_all(jsc_store *s) {
    jsc_log *log;
    while ((log = pop_dirty(s))) {
        if (s->dirty && s->hands_most) call_hand(s);
        if (serve(s, log)) jsc_store_note(s, log);
        jsc_store_tell(s);
    }
}

/* Whether the owner may write what waits itself: nobody is at the log, it is little, and it needs no new file, no space
 * and no sync. Then every field of the sync thread's is the owner's to use. */
static bool little(const jsc_log *log) {
    const jsc_mark *m = &log->mark;
    const jsc_segment *s = log->open_segment;
    if (log->busy || log->queued != JSC_Q_NONE || log->want_sync || !m->from || !s) return false;
    if (m->from->segment != s || m->to->segment != s || log->fd < 0) return false;
    uint64_t at = m->from->offset + m->from_used, end = m->to->offset + m->to_used;
    return end - at <= LITTLE_BYTES && end <= s->allocated;
}

bool jsc_store_write_little(jsc_log *log) {
    jsc_store *s = log->store;
    if (s->mode == JSC_SYNC_ALWAYS || !little(log)) return false;
    int64_t began = jsc_store_clock();
    if (began < s->patient_until) return false;
    bool none = !s->unsynced;
    if (serve(s, log) && none && s->unsynced && s->sleeping) { /* it sleeps without an end */
        s->sleeping = false;
        pthread_cond_signal(&s->work);
    }
    signal_ready(s); /* of a failure */
    int64_t ended = jsc_store_clock();
    if (ended - began > SLOW_WRITE_NS) s->patient_until = ended + PATIENCE_NS;
    return true;
}

static void *hand_main(void *arg) {
    jsc_store *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        serve_all(s);
        if (s->stop) break;
        s->hands_idle++;
        pthread_cond_wait(&s->help, &s->lock);
        s->hands_idle--;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Somebody more is to look at what waits; each calls the next. Without one all goes on, slower. */
static void call_hand(jsc_store *s) {
    if (s->hands_idle) {
        pthread_cond_signal(&s->help);
    } else if (s->hands < s->hands_most && start_thread(&s->hand[s->hands], hand_main, s) == JSC_OK) {
        s->hands++;
    }
}

static void *sync_main(void *arg) {
    jsc_store *s = arg;
    int64_t retry_at = 0;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        serve_all(s);
        int64_t now = s->unsynced || s->stalled ? jsc_store_clock() : 0;
        if (s->unsynced && now >= s->sync_at) {
            jsc_log *log;
            while ((log = pop_unsynced(s))) {
                sync_one(s, log);
                jsc_store_tell(s);
            }
            if (s->unsynced && !s->stop) pthread_cond_wait(&s->done, &s->lock); /* a hand is at each */
            continue;
        }
        if (s->stalled && retry_at && now >= retry_at) {
            retry_at = 0;
            while (s->stalled) {
                jsc_log *log = s->stalled;
                s->stalled = log->queue_next;
                push_dirty(s, log);
            }
            continue;
        }
        if (s->stalled && !retry_at) retry_at = now + RETRY_FULL_NS;
        if (!s->stalled) retry_at = 0;
        if (s->stop) break; /* said while the lock was down */
        s->sleeping = true;
        int64_t until = s->unsynced ? s->sync_at : 0;
        if (retry_at && (!until || retry_at < until)) until = retry_at;
        if (until) wait_until(&s->work, &s->lock, until);
        else pthread_cond_wait(&s->work, &s->lock);
        s->sleeping = false;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- calls of the owner ---- */

static void store_free(jsc_store *s) {
    close(s->eventfd);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->trail_work);
    pthread_cond_destroy(&s->help);
    pthread_cond_destroy(&s->done);
    pthread_mutex_destroy(&s->lock);
    jsc_chunks_free_spare(s);
    free(s);
}

int jsc_store_open(const jsc_vfs *vfs, int sync_mode, int64_t interval_ns, jsc_store **out) {
    if (!vfs || sync_mode < JSC_SYNC_ALWAYS || sync_mode > JSC_SYNC_NEVER) return JSC_EINVAL;
    if (sync_mode == JSC_SYNC_INTERVAL && interval_ns <= 0) return JSC_EINVAL;
    jsc_store *s = calloc(1, sizeof *s);
    if (!s) return -ENOMEM;
    s->vfs = vfs;
    s->mode = sync_mode;
    s->interval_ns = interval_ns;
    s->dirty_end = &s->dirty;
    s->ready_end = &s->ready;
    s->trailing_end = &s->trailing;
    s->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->eventfd < 0) {
        int rc = -errno;
        free(s);
        return rc;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->work, &attr);
    pthread_cond_init(&s->done, &attr);
    pthread_cond_init(&s->trail_work, &attr);
    pthread_cond_init(&s->help, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&s->lock, NULL);
    int rc = start_thread(&s->thread, sync_main, s);
    if (rc < 0) store_free(s);
    else *out = s;
    return rc;
}

int jsc_store_hands(jsc_store *s, int most) {
    if (most < 0 || most > JSC_HANDS_MAX || s->logs || s->served) return JSC_EINVAL;
    pthread_mutex_lock(&s->lock);
    s->hands_most = most;
    pthread_mutex_unlock(&s->lock);
    return JSC_OK;
}

int jsc_store_eventfd(jsc_store *s) { return s->eventfd; }

int jsc_store_poll(jsc_store *s, jsc_log **out, int max) {
    int n = 0;
    pthread_mutex_lock(&s->lock);
    while (s->ready && n < max) {
        jsc_log *log = s->ready;
        s->ready = log->ready_next;
        log->ready = false;
        out[n++] = log;
    }
    if (!s->ready) {
        s->ready_end = &s->ready;
        if (s->signalled) {
            uint64_t count;
            s->signalled = false;
            if (read(s->eventfd, &count, sizeof count) < 0) count = 0;
        }
    }
    pthread_mutex_unlock(&s->lock);
    /* Logs that fell silent give their memory back. */
    s->polls++;
    if (s->relaxed) return n;
    for (jsc_log *log = s->lru_oldest, *next; log && s->polls - log->touched > 64; log = next) {
        next = log->lru_prev;
        if (!log->read_from_chunk) jsc_chunks_recycle(log, 0);
    }
    return n;
}

/* Whether it is closed, or was: all that its file holds is synced, and nobody is at it. */
static bool close_file(jsc_log *log) {
    pthread_mutex_lock(&log->store->lock);
    bool idle = !log->busy && log->queued == JSC_Q_NONE && !log->unsynced && !log->trail && !log->fd_dirty;
    pthread_mutex_unlock(&log->store->lock);
    /* The sync thread takes it up again when the owner hands something over, no sooner. */
    if (idle && log->fd >= 0) {
        log->vfs->close(log->vfs->self, log->fd);
        log->fd = -1;
        if (log->open_segment) atomic_store(&log->open_segment->entered, false);
        log->open_segment = NULL;
        log->hinted = 0;
    }
    return idle;
}

void jsc_store_relax(jsc_store *s) {
    for (jsc_log *log = s->lru_oldest, *next; log && log->touched < s->relaxed; log = next) {
        next = log->lru_prev;
        if (log->keep_images || !close_file(log)) continue;
        log->read_from_chunk = false;
        jsc_chunks_recycle(log, 0);
    }
    s->relaxed = ++s->polls;
#ifdef __GLIBC__
    /* What was freed lies between what is still used, and malloc keeps it: a third of what a process with a thousand logs
     * had. It walks over all that is free, which is not for each call. */
    if (s->logs < TRIM_LOGS || ++s->untrimmed < TRIM_CALLS) return;
    s->untrimmed = 0;
    malloc_trim(0);
#endif
}

void jsc_store_close(jsc_store *s) {
    if (!s) return;
    JSC_ASSERT(s->logs == 0);
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->work);
    pthread_cond_broadcast(&s->help);
    pthread_cond_broadcast(&s->done);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL); /* first: it may have started a hand */
    for (int i = 0; i < s->hands; i++) pthread_join(s->hand[i], NULL);
    jsc_trail_stop(s);
    store_free(s);
}

void jsc_store_settle(jsc_log *log) {
    jsc_store *s = log->store;
    pthread_mutex_lock(&s->lock);
    while (log->busy || log->queued == JSC_Q_DIRTY || (log->trail && jsc_log_error(log) == JSC_OK))
        pthread_cond_wait(&s->done, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

void jsc_store_retry(jsc_log *log) {
    jsc_store *s = log->store;
    pthread_mutex_lock(&s->lock);
    atomic_store_explicit(&log->outdated, log->attempts, memory_order_relaxed);
    if (log->queued == JSC_Q_STALLED) {
        remove_queued(s, log);
        jsc_store_push(log);
    }
    pthread_mutex_unlock(&s->lock);
}

void jsc_store_detach(jsc_log *log, bool forget_notice) {
    jsc_store *s = log->store;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        remove_queued(s, log);
        remove_unsynced(s, log);
        if (forget_notice) remove_ready(s, log);
        if (!log->busy) break;
        pthread_cond_wait(&s->done, &s->lock);
    }
    jsc_trail_forget(log);
    pthread_mutex_unlock(&s->lock);
}

int jsc_log_wait(jsc_log *log, uint64_t index, int64_t timeout_ns) {
    jsc_store *s = log->store;
    int64_t until = timeout_ns >= 0 ? jsc_store_clock() + timeout_ns : 0;
    int rc = JSC_OK;
    pthread_mutex_lock(&s->lock);
    while (atomic_load_explicit(&log->durable, memory_order_acquire) < index) {
        if ((rc = atomic_load_explicit(&log->error, memory_order_relaxed)) != JSC_OK) break;
        if (atomic_load_explicit(&log->full, memory_order_relaxed)) {
            rc = JSC_EFULL;
            break;
        }
        if (timeout_ns < 0) {
            pthread_cond_wait(&s->done, &s->lock);
        } else if (jsc_store_clock() >= until) {
            rc = -ETIMEDOUT;
            break;
        } else {
            wait_until(&s->done, &s->lock, until);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}
