/* Following: a writer says in a page that other processes map how far it is durable, and wakes those who wait there.
 *
 * The page is the start of the file LOCK: words of 64 bits, little endian,
 *   0 magic · 1 durable sequence · 2 durable index · 3 futex (32 bits, then 0) · 4 how many wait · 5..7 zero.
 * What they say holds only while a writer lives: it has an open file description lock on the first byte, beside the flock
 * that keeps other writers out, as that one cannot be asked for without taking it. On a disk that is not real the words
 * are memory, and there are no other processes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mlog_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x314b434c43534aull /* "JSCLCK1" */
#define SLICE_NS ((int64_t)250000000) /* a reader looks again so often, whatever it hears */
#define POLL_NS ((int64_t)5000000)    /* one that may not write to the page, so nobody wakes it */
enum { WORDS = 8, BYTES = WORDS * 8, W_MAGIC = 0, W_SEQ, W_INDEX, W_FUTEX, W_WAITERS };

static uint32_t *futex_of(jsc_mlog *m) { return (uint32_t *)(void *)&m->shared[W_FUTEX]; }

static int64_t deadline(int64_t timeout_ns) {
    if (timeout_ns < 0) return INT64_MAX;
    int64_t now = jsc_store_clock();
    return timeout_ns > INT64_MAX - now ? INT64_MAX : now + timeout_ns;
}

/* ---- the page ---- */

static int open_lock_file(jsc_mlog *m) {
    char path[strlen(m->dir) + 8];
    snprintf(path, sizeof path, "%s/LOCK", m->dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    m->shared_writable = fd >= 0;
    if (fd < 0 && m->options.read_only) fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd;
}

static void map_page(jsc_mlog *m) {
    int protection = m->shared_writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *p = mmap(NULL, BYTES, protection, MAP_SHARED, m->shared_fd, 0);
    if (p == MAP_FAILED) return;
    m->shared = p;
    m->shared_mapped = true;
}

/* The bytes are written before they are mapped, so that a full disk says so here, and not by a signal later. */
static void writer_page(jsc_mlog *m) {
    static const uint8_t zeros[BYTES];
    struct flock alive = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    off_t size = lseek(m->shared_fd, 0, SEEK_END);
    if (size < 0) return;
    if (size < BYTES && pwrite(m->shared_fd, zeros + size, (size_t)(BYTES - size), size) != BYTES - size) return;
    if (fcntl(m->shared_fd, F_OFD_SETLK, &alive) != 0) return;
    map_page(m);
}

int jsc_follow_open(jsc_mlog *m) {
    bool real = m->vfs == jsc_vfs_posix();
    if (real) {
        m->shared_fd = open_lock_file(m);
        if (m->shared_fd >= 0 && !m->options.read_only) writer_page(m);
    }
    if (!m->shared && !m->options.read_only && !(m->shared = calloc(WORDS, sizeof *m->shared))) return -ENOMEM;
    return JSC_OK;
}

void jsc_follow_close(jsc_mlog *m) {
    if (m->shared && m->shared_mapped) munmap((void *)(uintptr_t)m->shared, BYTES);
    else free((void *)(uintptr_t)m->shared);
    m->shared = NULL;
    if (m->shared_fd >= 0) close(m->shared_fd);
    m->shared_fd = -1;
}

void jsc_follow_publish(jsc_mlog *m) {
    if (!m->shared) return;
    atomic_store(&m->shared[W_INDEX], m->durable_index);
    atomic_store(&m->shared[W_SEQ], m->durable_seq);
    atomic_store(&m->shared[W_MAGIC], MAGIC);
    if (!m->shared_mapped) return;
    __atomic_fetch_add(futex_of(m), 1, __ATOMIC_SEQ_CST);
    if (atomic_load(&m->shared[W_WAITERS])) syscall(SYS_futex, futex_of(m), FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* ---- readers ---- */

/* A reader that came before any writer gets its page later. */
static bool reader_page(jsc_mlog *m) {
    if (m->shared) return true;
    if (m->shared_fd < 0 && m->vfs == jsc_vfs_posix()) m->shared_fd = open_lock_file(m);
    if (m->shared_fd >= 0 && lseek(m->shared_fd, 0, SEEK_END) >= BYTES) map_page(m);
    return m->shared != NULL;
}

static bool writer_lives(const jsc_mlog *m) {
    struct flock asked = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    return m->shared_fd >= 0 && fcntl(m->shared_fd, F_OFD_GETLK, &asked) == 0 && asked.l_type != F_UNLCK;
}

uint64_t jsc_follow_bound(jsc_mlog *m) {
    if (!reader_page(m) || !writer_lives(m) || atomic_load(&m->shared[W_MAGIC]) != MAGIC) return UINT64_MAX;
    return atomic_load(&m->shared[W_INDEX]);
}

int jsc_mlog_catch_up(jsc_mlog *m, uint64_t last) {
    jsc_log *log = m->log;
    for (uint64_t index = m->applied + 1; index <= last; index++) {
        jsc_segment *s = jsc_segment_find(log, index);
        jsc_piece *p = m->npieces ? m->pieces[m->npieces - 1] : NULL;
        jsc_record r;
        uint64_t offset;
        int rc;
        if (!s) return -ESTALE;
        while (!p || p->segment->first < s->first) {
            size_t k = m->npieces;
            if (k == log->nsegments) return -ESTALE;
            if (p) jsc_piece_adopt_sidecar(m, p);
            if ((rc = jsc_mlog_add_piece(m, log->segments[k])) != JSC_OK) return rc;
            p = m->pieces[k];
        }
        if (p->segment != s || !p->tail || s->base_seq > m->last_seq) return -ESTALE;
        if ((rc = jsc_log_read(log, index, &r)) != JSC_OK)
            return rc == JSC_ECORRUPT || rc == JSC_ENOTFOUND ? -ESTALE : rc;
        if ((rc = jsc_segment_where(log, s, index, &offset)) != JSC_OK) return rc;
        if (r.kind == JSC_K_MESSAGE) rc = jsc_apply_message(m, &r, offset);
        else rc = jsc_apply_control(m, &r);
        if (rc != JSC_OK && rc != JSC_ECORRUPT) return rc;
        m->applied = index;
    }
    return JSC_OK;
}

/* Under the lock. Damage, or files that the writer exchanged, take the long way. */
static int refresh(jsc_mlog *m) {
    bool moved = false;
    uint64_t bound = jsc_follow_bound(m);
    int rc = jsc_log_refresh(m->log, &moved);
    uint64_t last = jsc_log_last(m->log);
    if (last > bound) last = bound;
    if (rc == JSC_OK && last > m->applied) rc = jsc_mlog_catch_up(m, last);
    if (rc == -ESTALE) return jsc_mlog_reload(m);
    if (rc != JSC_OK) return rc;
    for (size_t i = m->npieces; moved && i-- > 1 && m->pieces[i - 1]->tail;)
        jsc_piece_adopt_sidecar(m, m->pieces[i - 1]);
    m->durable_index = m->applied;
    m->durable_seq = m->last_seq;
    return JSC_OK;
}

int jsc_mlog_refresh(jsc_mlog *m) {
    if (!m->options.read_only) return JSC_OK;
    pthread_mutex_lock(&m->lock);
    int rc = refresh(m);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static void sleep_ns(int64_t ns) {
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    nanosleep(&t, NULL);
}

/* Until the page says more than `seq`, at most ns. */
static void doze(jsc_mlog *m, uint64_t seq, int64_t ns) {
    if (!m->shared || !m->shared_writable || !writer_lives(m)) {
        sleep_ns(ns < POLL_NS ? ns : POLL_NS);
        return;
    }
    struct timespec t = {0, ns < SLICE_NS ? ns : SLICE_NS};
    uint32_t seen = __atomic_load_n(futex_of(m), __ATOMIC_SEQ_CST);
    atomic_fetch_add(&m->shared[W_WAITERS], 1);
    if (atomic_load(&m->shared[W_SEQ]) <= seq) syscall(SYS_futex, futex_of(m), FUTEX_WAIT, seen, &t, NULL, 0);
    else sleep_ns(100000); /* said, but the batch was not seen yet */
    atomic_fetch_sub(&m->shared[W_WAITERS], 1);
}

static int reader_wait(jsc_mlog *m, uint64_t seq, int64_t until) {
    for (;;) {
        pthread_mutex_lock(&m->lock);
        int rc = refresh(m);
        bool there = m->last_seq > seq;
        pthread_mutex_unlock(&m->lock);
        if (rc != JSC_OK) return rc;
        if (there) return JSC_OK;
        int64_t left = until - jsc_store_clock();
        if (left <= 0) return -ETIMEDOUT;
        doze(m, seq, left);
    }
}

int jsc_mlog_wait_beyond(jsc_mlog *m, uint64_t seq, int64_t timeout_ns) {
    int64_t until = deadline(timeout_ns);
    int rc = JSC_OK;
    if (m->options.read_only) return reader_wait(m, seq, until);
    pthread_mutex_lock(&m->lock);
    m->followers++;
    for (;;) {
        if (m->last_seq > seq && m->durable_seq <= seq) jsc_mlog_flush(m); /* who waits wants it */
        jsc_mlog_note_durable(m);
        if (m->durable_seq > seq || (rc = jsc_log_error(m->log)) != JSC_OK) break;
        if (until == INT64_MAX) {
            pthread_cond_wait(&m->moved, &m->lock);
        } else {
            struct timespec t = {until / 1000000000, until % 1000000000};
            if (jsc_store_clock() >= until) rc = -ETIMEDOUT;
            if (rc != JSC_OK) break;
            pthread_cond_timedwait(&m->moved, &m->lock, &t);
        }
    }
    m->followers--;
    pthread_mutex_unlock(&m->lock);
    return rc;
}
