/* The plane and its loop. Turn: parse what waits, wait for descriptors, read, timers, the hook, send, close. */
#include "layer.h"
#include <errno.h>
#include <malloc.h>
#include <sys/epoll.h>
#include <unistd.h>

#define HOST_FD (1ull << 63)
#define CALL_FD (1ull << 62)

int64_t jsc_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void clocks(jsc_plane *p) {
    if (p->told_time) return;
    p->mono = jsc_clock(CLOCK_MONOTONIC);
    p->unix_ns = jsc_clock(CLOCK_REALTIME);
}

static void defaults(jsc_plane_options *o) {
    if (!o->max_payload) o->max_payload = 1048576;
    if (!o->max_control_line) o->max_control_line = 4096;
    if (!o->max_pending) o->max_pending = 67108864;
    if (o->ping_interval_ns <= 0) o->ping_interval_ns = 120000000000;
    if (o->ping_max <= 0) o->ping_max = 2;
    if (o->route_ping_interval_ns <= 0 || o->route_ping_interval_ns > 30000000000)
        o->route_ping_interval_ns = o->ping_interval_ns < 30000000000 ? o->ping_interval_ns : 30000000000;
    if (o->route_ping_max <= 0) o->route_ping_max = o->ping_max;
}

void jsc_plane_tune(jsc_plane *p, const jsc_plane_options *o) {
    jsc_plane_options was = p->o;
    p->o = *o;
    p->o.max_pending = was.max_pending;
    p->o.max_subs = was.max_subs;
    p->o.auth_required = was.auth_required;
    defaults(&p->o);
}

int jsc_plane_new(const jsc_plane_options *o, jsc_plane **out) {
    jsc_plane *p = calloc(1, sizeof *p);
    if (!p) return -ENOMEM;
#ifdef __SANITIZE_ADDRESS__
    p->slabs.off = 1;
#endif
    if (o) p->o = *o;
    defaults(&p->o);
    p->busy_hi = p->o.max_pending / 4 < JSC_BUSY_BYTES ? p->o.max_pending / 4 : JSC_BUSY_BYTES;
    p->busy_lo = p->busy_hi / 4;
    for (int clients = 0; clients < 2; clients++) p->events[clients].tail = &p->events[clients].head;
    p->closing_tail = &p->closing;
    p->late_tail = &p->late;
    for (int sent = 0; sent < 2; sent++) p->later_tail[sent] = &p->later[sent];
    p->pack_left = JSC_PACK_TURN;
    p->run_tail = &p->run;
    p->hook_next = p->next_timer = INT64_MAX;
    clocks(p);
    p->rng = (uint64_t)p->mono * 0x9e3779b97f4a7c15u | 1;
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->read_buf = malloc(JSC_READ_BYTES);
    p->ready = malloc(JSC_EVENTS * sizeof *p->ready);
    int rc = p->epoll < 0 ? -errno : -ENOMEM;
    if (p->epoll < 0 || !p->read_buf || !p->ready || !(p->default_account = jsc_plane_account(p, "$G", 2))) {
        jsc_plane_free(p);
        return rc;
    }
    *out = p;
    return JSC_OK;
}

void jsc_plane_free(jsc_plane *p) {
    if (!p) return;
    for (uint32_t i = 0; i < p->conns_n; i++)
        if (p->conns[i]) jsc_conn_end(p->conns[i], "Server Shutdown", NULL, 1);
    p->depth = 0;
    while (p->closing) jsc_conn_reap(p, UINT32_MAX);
    while (p->own_subs) jsc_unsubscribe(p, &p->own_subs->sub);
    jsc_plane_bury(p);
    for (jsc_event e; jsc_plane_next(p, &e);) jsc_event_done(&e);
    for (jsc_account *a = p->all_accounts, *next; a; a = next) {
        next = a->next;
        jsc_account_free(a);
    }
    jsc_permissions_release(p->default_permissions);
    jsc_permissions_release(p->imports);
    jsc_permissions_release(p->exports);
    jsc_slabs_free(&p->slabs);
    for (int i = 0; i < JSC_DEPTH; i++) jsc_match_free(p->scratch[i]);
    while (p->spare_n) free(p->spare[--p->spare_n].p);
    free(p->accounts);
    free(p->conns);
    free(p->gens);
    free(p->free_slots);
    free(p->routes);
    free(p->choices);
    free(p->tokens);
    free(p->found.v);
    free(p->read_buf);
    free(p->ready);
    free(p->cipher_in);
    free(p->cipher_out.p);
    free(p->s2);
    free(p->packed_in);
    free(p->packed_out);
    jsc_layer_free(p);
    free(p->calls);
    if (p->epoll >= 0) close(p->epoll);
    free(p);
}

static int control(jsc_plane *p, int fd, uint32_t mask, uint64_t tag) {
    struct epoll_event ev = {.events = mask, .data.u64 = tag};
    if (!mask) {
        for (int i = p->ready_at; i < p->ready_n; i++) /* what epoll said of it before means nothing any more */
            if (p->ready[i].data.u64 == tag) p->ready[i].data.u64 = 0;
        if (!epoll_ctl(p->epoll, EPOLL_CTL_DEL, fd, NULL) || errno == ENOENT || errno == EBADF) return JSC_OK;
        return -errno;
    }
    if (!epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &ev)) return JSC_OK;
    if (errno == EEXIST && !epoll_ctl(p->epoll, EPOLL_CTL_MOD, fd, &ev)) return JSC_OK;
    return -errno;
}

int jsc_plane_watch(jsc_plane *p, int fd, uint32_t mask) {
    return fd < 0 ? JSC_EINVAL : control(p, fd, mask, HOST_FD | (uint32_t)fd);
}

int jsc_plane_watch_call(jsc_plane *p, int fd, void (*fn)(void *), void *ctx) {
    if (fd < 0) return JSC_EINVAL;
    if (fn && fd >= p->calls_n) {
        int n = fd + 16;
        jsc_call *v = realloc(p->calls, (size_t)n * sizeof *v);
        if (!v) return -ENOMEM;
        memset(v + p->calls_n, 0, (size_t)(n - p->calls_n) * sizeof *v);
        p->calls = v;
        p->calls_n = n;
    }
    if (fd < p->calls_n) p->calls[fd] = (jsc_call){fn, ctx};
    return control(p, fd, fn ? EPOLLIN : 0, CALL_FD | (uint32_t)fd);
}

int jsc_plane_hook(jsc_plane *p, jsc_turn_fn fn, void *ctx) {
    p->hook = fn;
    p->hook_ctx = ctx;
    p->hook_next = fn ? p->mono : INT64_MAX;
    return JSC_OK;
}

void jsc_plane_tell_time(jsc_plane *p, int64_t mono, int64_t unix_ns) {
    p->told_time = 1;
    p->mono = mono;
    p->unix_ns = unix_ns;
}

void jsc_plane_spend(jsc_plane *p, uint64_t deliveries) { p->work += deliveries; }
int64_t jsc_plane_mono(const jsc_plane *p) { return p->mono; }
int64_t jsc_plane_unix(const jsc_plane *p) { return p->unix_ns; }

void jsc_plane_flush(jsc_plane *p) {
    clocks(p);
    if (p->hook && !p->depth) p->hook_next = p->hook(p->hook_ctx, p->mono, p->unix_ns);
    jsc_out_flush_all(p);
    jsc_conn_reap(p, UINT32_MAX);
    jsc_out_flush_all(p); /* interest that went with the closed ones */
}

static void serve(jsc_plane *p, uint64_t id, uint32_t got) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return;
    if (got & EPOLLOUT) {
        c->blocked = 0;
        jsc_out_send(c);
        if (c->closing) return;
        if (!jsc_pending(c)) jsc_out_free(c);
    }
    if (c->queued) return; /* it holds input that comes first */
    if (!jsc_conn_stopped(c) && (got & (EPOLLIN | EPOLLHUP | EPOLLERR))) jsc_conn_read(c);
    else if (got & (EPOLLHUP | EPOLLERR)) /* paused, and nobody is there any more: epoll would report it for ever */
        jsc_conn_end(c, "Client Closed", NULL, 0);
    jsc_conn_mask(c);
}

/* Milliseconds for epoll, rounded up so that a deadline is over when it returns. */
static int until(const jsc_plane *p, int64_t end) {
    int64_t at = end;
    if (p->hook_next < at) at = p->hook_next;
    if (p->next_timer < at) at = p->next_timer;
    for (const jsc_conn *c = p->paused; c; c = c->next_paused)
        if (c->pause_end < at) at = c->pause_end;
    if (at == INT64_MAX) return -1;
    if (at <= p->mono) return 0;
    int64_t ms = (at - p->mono + 999999) / 1000000;
    return ms > 60000 ? 60000 : (int)ms;
}

/* What the last call of epoll told, as far as this turn has time for it. */
static int serve_ready(jsc_plane *p, jsc_ready *out, int max) {
    int ready = 0;
    while (p->ready_at < p->ready_n && p->work < p->turn_work) {
        struct epoll_event *ev = &p->ready[p->ready_at++];
        uint64_t tag = ev->data.u64;
        if (tag & HOST_FD) {
            if (ready < max) out[ready++] = (jsc_ready){(int)(uint32_t)tag, ev->events};
        } else if (tag & CALL_FD) {
            int fd = (int)(uint32_t)tag;
            if (fd < p->calls_n && p->calls[fd].fn) p->calls[fd].fn(p->calls[fd].ctx);
        } else {
            serve(p, tag, ev->events);
        }
    }
    return ready;
}

static int has_events(const jsc_plane *p) { return p->events[0].head || p->events[1].head; }

/* Nothing happens: the time to hand back what a burst made the allocator take. */
static void trim(jsc_plane *p) {
    if (p->freed < JSC_TRIM_BYTES || p->mono - p->trimmed < JSC_TRIM_NS) return;
    p->freed = 0;
    p->trimmed = p->mono;
    malloc_trim(0);
}

int jsc_plane_poll(jsc_plane *p, int64_t timeout_ns, jsc_ready *out, int max) {
    int ready = 0;
    if (max < 1) return JSC_EINVAL;
    clocks(p);
    int64_t end = timeout_ns < 0 || timeout_ns > INT64_MAX - p->mono ? INT64_MAX : p->mono + timeout_ns;
    jsc_out_turn(p);
    jsc_conn_reap(p, JSC_CLOSE_CONNS);
    jsc_out_flush(p);
    for (int turn = 0; turn < JSC_TURNS && !ready; turn++) {
        p->turn_work = p->work + JSC_WORK_TURN;
        if (turn) jsc_out_turn(p);
        jsc_conn_run(p);
        jsc_out_flush(p);
        if (p->ready_at == p->ready_n) {
            int idle =
                !has_events(p) && !p->run && !p->closing && !p->dirty && !p->late && !p->later[0] && !p->later[1];
            if (idle && p->freed >= JSC_TRIM_BYTES) jsc_timer_by(p, p->trimmed + JSC_TRIM_NS);
            int n = epoll_wait(p->epoll, p->ready, JSC_EVENTS, idle ? until(p, end) : 0);
            if (n < 0) return errno == EINTR ? 0 : -errno;
            p->ready_at = 0;
            p->ready_n = n;
            clocks(p);
            if (idle && !n) trim(p);
        } else {
            clocks(p);
        }
        ready = serve_ready(p, out, max);
        jsc_conn_timers(p);
        if (p->hook) p->hook_next = p->hook(p->hook_ctx, p->mono, p->unix_ns);
        jsc_out_flush(p);
        jsc_conn_reap(p, JSC_CLOSE_CONNS);
        jsc_out_flush(p);
        if (p->paused) jsc_conn_paused(p);
        if (has_events(p) || p->mono >= end) break;
    }
    return ready;
}
