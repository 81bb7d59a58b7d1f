/* All streams of one server: the plane's turn hook and the store's eventfd. */
#include "internal.h"
#include <errno.h>

void jsc_stream_hurt(jsc_stream *s, int rc) {
    if (s->owner.failed) return;
    s->owner.failed = 1;
    jsc_event e = {.type = JSC_EV_FAILED, .a = s->owner.id, .b = (uint64_t)(int64_t)rc};
    jsc_plane_emit(s->all->plane, &e);
}

void jsc_streams_apply(jsc_stream *s, uint64_t durable) {
    int rc = jsc_stream_advance(s, durable);
    jsc_event e = {.type = JSC_EV_APPLY, .a = s->owner.id};
    if (rc == JSC_EHOST) {
        jsc_plane_emit(s->all->plane, &e);
    } else if (rc != JSC_OK) {
        jsc_stream_hurt(s, rc); /* it stands still */
    }
}

void jsc_stream_written(jsc_stream *s) {
    if (s->is_written) return;
    s->is_written = 1;
    s->written_next = s->all->written;
    s->all->written = s;
}

size_t jsc_streams_written(jsc_streams *t, uint64_t *ids, size_t n) {
    size_t got = 0;
    while (t->written && got < n) {
        jsc_stream *s = t->written;
        t->written = s->written_next;
        s->is_written = 0;
        ids[got++] = s->owner.id;
    }
    return got;
}

static void streams_progress(jsc_streams *t, jsc_owner *o) {
    int err = jsc_log_error(o->log);
    uint64_t durable = jsc_log_durable(o->log);
    if (o->is_stream) jsc_stream_written((jsc_stream *)o);
    if (o->is_stream && ((jsc_stream *)o)->solo) {
        jsc_streams_apply((jsc_stream *)o, durable);
    } else {
        jsc_event e = {.type = JSC_EV_DURABLE, .a = o->id, .b = durable};
        jsc_plane_emit(t->plane, &e);
    }
    if (err != JSC_OK && !o->failed) {
        o->failed = 1;
        jsc_event e = {.type = JSC_EV_FAILED, .a = o->id, .b = (uint64_t)(int64_t)err};
        jsc_plane_emit(t->plane, &e);
    }
}

static void streams_store(void *ctx) {
    jsc_streams *t = ctx;
    jsc_log *logs[64];
    int n;
    do {
        n = jsc_store_poll(t->store, logs, 64);
        for (int i = 0; i < n; i++) {
            jsc_owner *o = jsc_log_owner(logs[i]);
            if (o) streams_progress(t, o);
        }
    } while (n == 64);
}

void jsc_streams_clock(jsc_streams *t, int64_t *mono, int64_t *unix_ns) {
    *mono = jsc_plane_mono(t->plane);
    *unix_ns = jsc_plane_unix(t->plane);
}

uint64_t jsc_streams_random(jsc_streams *t) {
    uint64_t x = (t->random += 0x9e3779b97f4a7c15ull);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* Registering the hook again makes it due at once: the host commits, creates consumers and proposes between two polls. */
void jsc_streams_poke(jsc_streams *t) {
    if (t->poked) return;
    t->poked = 1;
    jsc_plane_hook(t->plane, jsc_streams_turn, t);
}

static void submit(jsc_streams *t, jsc_stream *s) {
    jsc_log_set_commit(s->log, s->committed);
    uint64_t durable = jsc_log_durable(s->log);
    jsc_log_submit_now(s->log);
    if (jsc_log_durable(s->log) == durable) return;
    if (s->solo || !s->leading) streams_progress(t, &s->owner);
    else jsc_stream_written(s); /* a leader looks how far its log is when others answer: none commits by itself */
}

/* The turn after: what others get of them is with the kernel. */
static void submit_late(jsc_streams *t) {
    jsc_stream *s = t->late;
    t->late = NULL;
    while (s) {
        jsc_stream *next = s->late_next;
        s->is_late = 0;
        submit(t, s);
        s = next;
    }
}

/* A leader's batch. Others are to have it before it is written here, which takes as long as they take to answer; only a
 * sync, which takes longer than that, begins at once. */
static void lead(jsc_streams *t, jsc_stream *s) {
    if (!jsc_log_is_lazy(s->log)) {
        submit(t, s);
    } else if (!s->is_late) {
        s->is_late = 1;
        s->late_next = t->late;
        t->late = s;
    }
    jsc_event e = {.type = JSC_EV_APPENDED, .a = s->owner.id, .b = jsc_log_last(s->log)};
    jsc_plane_emit(t->plane, &e);
}

/* The turn: timers, consumers with something to send, their progress as records, then one submit per stream. */
int64_t jsc_streams_turn(void *ctx, int64_t mono, int64_t unix_ns) {
    jsc_streams *t = ctx;
    t->mono = mono;
    t->unix_ns = unix_ns;
    t->poked = 1; /* what comes up in here is seen before the deadline is computed */
    submit_late(t);
    while (t->timers.n && t->timers.heap[1]->due <= mono) {
        jsc_timer *x = t->timers.heap[1];
        jsc_timer_stop(&t->timers, x);
        x->fire(x->ctx, mono, unix_ns);
    }
    jsc_consumer *c = t->active;
    t->active = t->active_tail = NULL;
    t->spent = 0;
    int more = 0;
    while (c && t->spent < JSC_TURN_SPEND) {
        jsc_consumer *next = c->active_next;
        c->is_active = 0;
        if (c->stream->leading) jsc_consumer_serve(c, mono, unix_ns);
        more |= c->more;
        c = next;
    }
    if (c) { /* connections and replication come in between; the rest comes first then */
        jsc_consumer *tail = c;
        while (tail->active_next) tail = tail->active_next;
        tail->active_next = t->active;
        if (!t->active) t->active_tail = tail;
        t->active = c;
    }
    more |= t->active != NULL;
    for (c = t->dirty, t->dirty = NULL; c;) {
        jsc_consumer *next = c->dirty_next;
        c->is_dirty = 0;
        jsc_consumer_propose(c);
        c = next;
    }
    for (jsc_stream *s = t->touched; s; s = s->touched_next) jsc_stream_flush_deferred(s);
    jsc_stream *s = t->touched;
    t->touched = NULL;
    while (s) {
        jsc_stream *next = s->touched_next;
        s->is_touched = 0;
        if (!s->solo && s->leading) lead(t, s);
        else submit(t, s);
        s = next;
    }
    t->poked = 0;
    if (more || t->active || t->dirty || t->touched || t->late) return mono;
    return t->timers.n ? t->timers.heap[1]->due : INT64_MAX;
}

int jsc_streams_new(jsc_plane *plane, jsc_store *store, jsc_streams **out) {
    jsc_streams *t = calloc(1, sizeof *t);
    if (!t) return -ENOMEM;
    t->plane = plane;
    t->store = store;
    t->random = (uint64_t)jsc_plane_unix(plane) ^ (uint64_t)(uintptr_t)t;
    int rc = jsc_plane_watch_call(plane, jsc_store_eventfd(store), streams_store, t);
    if (rc >= 0) rc = jsc_plane_hook(plane, jsc_streams_turn, t);
    if (rc < 0) {
        free(t);
        return rc;
    }
    *out = t;
    return JSC_OK;
}

void jsc_streams_free(jsc_streams *t) {
    if (!t) return;
    while (t->all) jsc_stream_free(t->all);
    jsc_plane_hook(t->plane, NULL, NULL);
    jsc_plane_watch_call(t->plane, jsc_store_eventfd(t->store), NULL, NULL);
    while (t->owners) {
        jsc_owner *o = t->owners;
        t->owners = o->next;
        jsc_log_set_owner(o->log, NULL);
        free(o);
    }
    while (t->usages) {
        jsc_usage *u = t->usages;
        t->usages = u->next;
        free(u);
    }
    free(t->timers.heap);
    free(t);
}

int jsc_streams_own_log(jsc_streams *t, jsc_log *log, uint64_t id) {
    jsc_owner *o = calloc(1, sizeof *o);
    if (!o) return -ENOMEM;
    o->id = id;
    o->log = log;
    o->next = t->owners;
    t->owners = o;
    jsc_log_set_owner(log, o);
    return JSC_OK;
}

void jsc_streams_disown_log(jsc_streams *t, jsc_log *log) {
    for (jsc_owner **p = &t->owners; *p; p = &(*p)->next)
        if ((*p)->log == log) {
            jsc_owner *o = *p;
            *p = o->next;
            jsc_log_set_owner(log, NULL);
            free(o);
            return;
        }
}
