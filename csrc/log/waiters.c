/* Who waits for durability: a list by position, from which each is woken by the one before. Nobody is woken in vain, the
 * sync thread wakes one at most, and threads that share a lock of their own, as an interpreter's, come to it one by one
 * instead of all at once. */
#include "mlog_internal.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* On the stack of its thread. Whoever takes it off the list sets the word, after which it may be gone. */
typedef struct jsc_waiter {
    struct jsc_waiter *next, *before;
    uint64_t position;
    _Atomic uint32_t word; /* WAITS; PASSED: woken, and to wake the next; LET_GO */
} jsc_waiter;

enum { WAITS, PASSED, LET_GO };

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *until) {
    return syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, until, NULL, FUTEX_BITSET_MATCH_ANY);
}

/* A word of a thread that is gone by now wakes nobody, or somebody who looks again, as everybody does after a futex. */
static void wake(_Atomic uint32_t *word) { futex(word, FUTEX_WAKE, 1, NULL); }

/* ---- the list, under turn_lock ---- */

static void put(jsc_mlog *m, jsc_waiter *w) {
    jsc_waiter *at = m->waiters_end;
    while (at && at->position > w->position) at = at->before; /* almost always the last */
    w->before = at;
    w->next = at ? at->next : m->waiters;
    *(w->next ? &w->next->before : &m->waiters_end) = w;
    *(at ? &at->next : &m->waiters) = w;
}

static void take(jsc_mlog *m, jsc_waiter *w) {
    *(w->before ? &w->before->next : &m->waiters) = w->next;
    *(w->next ? &w->next->before : &m->waiters_end) = w->before;
}

static void let_all_go(jsc_mlog *m) {
    while (m->waiters) {
        _Atomic uint32_t *word = &m->waiters->word;
        take(m, m->waiters);
        atomic_store_explicit(word, LET_GO, memory_order_release);
        wake(word);
    }
}

/* The next who is served, taken off; NULL: none. To be woken without the lock. */
static _Atomic uint32_t *next_served(jsc_mlog *m) {
    jsc_waiter *w = m->waiters;
    if (!w || w->position > jsc_log_durable(m->log)) return NULL;
    take(m, w);
    m->passing++;
    atomic_store_explicit(&w->word, PASSED, memory_order_release);
    return &w->word;
}

/* ---- waking ---- */

void jsc_waiters_tell(jsc_mlog *m) {
    _Atomic uint32_t *word = NULL;
    pthread_mutex_lock(&m->turn_lock);
    if (m->settling) pthread_cond_broadcast(&m->settled);
    if (m->waiters && jsc_commit_bad(m)) let_all_go(m);
    /* Who has to wake the next does so soon. Since the last time nobody did: perhaps its thread has ended. */
    if (!m->passing || m->passed == m->passed_before) word = next_served(m);
    m->passed_before = m->passed;
    pthread_mutex_unlock(&m->turn_lock);
    if (word) wake(word);
}

/* Wakes the next `n`. */
static void pass(jsc_mlog *m, int n) {
    _Atomic uint32_t *words[2];
    int got = 0;
    pthread_mutex_lock(&m->turn_lock);
    m->passing--;
    m->passed++;
    while (got < n && (words[got] = next_served(m))) got++;
    pthread_mutex_unlock(&m->turn_lock);
    for (int i = 0; i < got; i++) wake(words[i]);
}

void jsc_mlog_pass(jsc_mlog *m) { pass(m, 1); }

/* ---- waiting ---- */

/* Until the word is set, or the time comes. */
static void sleep_on(jsc_waiter *w, int64_t until) {
    struct timespec t = {until / 1000000000, until % 1000000000};
    while (atomic_load_explicit(&w->word, memory_order_acquire) == WAITS)
        if (futex(&w->word, FUTEX_WAIT_BITSET, WAITS, until < 0 ? NULL : &t) != 0 && errno == ETIMEDOUT) return;
}

int jsc_mlog_await(jsc_mlog *m, uint64_t position, int64_t timeout_ns, bool *to_pass) {
    int rc = JSC_OK;
    *to_pass = false;
    if (m->options.read_only || jsc_log_durable(m->log) >= position) return JSC_OK;
    int64_t until = jsc_commit_deadline(timeout_ns);
    if (atomic_load_explicit(&m->asked_index, memory_order_acquire) < position) {
        pthread_mutex_lock(&m->lock);
        rc = position > jsc_log_last(m->log) ? JSC_EINVAL : jsc_mlog_flush(m);
        pthread_mutex_unlock(&m->lock);
        if (rc != JSC_OK && rc != JSC_EFAILED) return rc;
    }
    for (;;) {
        jsc_waiter w = {.position = position};
        pthread_mutex_lock(&m->turn_lock);
        bool there = jsc_log_durable(m->log) >= position;
        if (!there && (rc = jsc_commit_bad(m)) == JSC_OK && until >= 0 && jsc_store_clock() >= until) rc = -ETIMEDOUT;
        if (!there && rc == JSC_OK) put(m, &w);
        pthread_mutex_unlock(&m->turn_lock);
        if (there) return JSC_OK;
        if (rc != JSC_OK) return rc;
        sleep_on(&w, until);
        if (atomic_load_explicit(&w.word, memory_order_acquire) == WAITS) {
            pthread_mutex_lock(&m->turn_lock);
            if (atomic_load_explicit(&w.word, memory_order_acquire) == WAITS) take(m, &w);
            pthread_mutex_unlock(&m->turn_lock);
        }
        if (atomic_load_explicit(&w.word, memory_order_acquire) == PASSED) {
            *to_pass = true;
            return JSC_OK;
        }
    }
}

int jsc_mlog_wait(jsc_mlog *m, uint64_t position, int64_t timeout_ns) {
    bool to_pass;
    int rc = jsc_mlog_await(m, position, timeout_ns, &to_pass);
    if (to_pass) pass(m, 2);
    return rc;
}
