/* One stream replica: life, leadership, and walking the log up to the commit. */
#include "internal.h"
#include <errno.h>

int jsc_stream_new(jsc_streams *t, jsc_log *log, uint64_t id, jsc_account *account, const char *name, size_t n,
                   jsc_stream **out) {
    if (!n || n > 255) return JSC_EINVAL;
    jsc_stream *s = calloc(1, sizeof *s);
    char *copy = malloc(n + 1);
    jsc_usage *usage = jsc_usage_of(t, account);
    if (!s || !copy || !usage) {
        free(s);
        free(copy);
        return -ENOMEM;
    }
    memcpy(copy, name, n);
    copy[n] = 0;
    char head[2000];
    size_t hn = (size_t)snprintf(head, sizeof head, "{\"stream\":\"");
    hn += jsc_json_text(head + hn, sizeof head - hn, name, n);
    hn += (size_t)snprintf(head + hn, sizeof head - hn, "\",\"seq\":");
    s->ack_head = malloc(hn + 1);
    if (!s->ack_head) {
        free(copy);
        free(s);
        return -ENOMEM;
    }
    memcpy(s->ack_head, head, hn + 1);
    s->ack_head_len = (uint32_t)hn;
    s->name = copy;
    s->name_len = (uint32_t)n;
    s->owner = (jsc_owner){.is_stream = 1, .id = id, .log = log};
    s->all = t;
    s->log = log;
    s->account = account;
    s->usage = usage;
    s->deferred_tail = &s->deferred;
    s->applied = s->committed = jsc_log_first(log) - 1;
    s->limits = (jsc_stream_limits){.max_msgs = -1,
                                    .max_bytes = -1,
                                    .max_msgs_per_subject = -1,
                                    .max_msg_size = -1,
                                    .duplicate_window_ns = 120000000000ll,
                                    .file_storage = 1};
    s->subjects.free = JSC_NO_SUBJECT;
    s->first_seq = 0;
    s->next = t->all;
    s->prevp = &t->all;
    if (t->all) t->all->prevp = &s->next;
    t->all = s;
    jsc_log_set_owner(log, &s->owner);
    jsc_stream_written(s);
    *out = s;
    return JSC_OK;
}

void jsc_stream_free(jsc_stream *s) {
    if (!s) return;
    s->closing = 1;
    while (s->consumers) jsc_consumer_free(s->consumers);
    jsc_stream_follow(s);
    for (jsc_stream **p = &s->all->touched; *p; p = &(*p)->touched_next)
        if (*p == s) {
            *p = s->touched_next;
            break;
        }
    for (jsc_stream **p = &s->all->late; s->is_late && *p; p = &(*p)->late_next)
        if (*p == s) {
            *p = s->late_next;
            break;
        }
    for (jsc_stream **p = &s->all->written; s->is_written && *p; p = &(*p)->written_next)
        if (*p == s) {
            *p = s->written_next;
            break;
        }
    *s->prevp = s->next;
    if (s->next) s->next->prevp = s->prevp;
    jsc_log_set_owner(s->log, NULL);
    for (int i = 0; i < s->npatterns; i++) free(s->patterns[i].s);
    free(s->patterns);
    jsc_waiters_free(&s->pubs);
    jsc_waiters_free(&s->acks);
    jsc_seqs_free(&s->seqs);
    jsc_moves_free(&s->moves);
    jsc_subjects_free(&s->subjects);
    jsc_dedupe_free(&s->dedupe);
    free(s->by_id);
    jsc_stream_snapshot_end(s);
    jsc_bytes_free(&s->restored);
    free(s->ack_head);
    free(s->name);
    free(s);
}

int jsc_stream_configure(jsc_stream *s, const jsc_stream_limits *l) {
    if (l->retention > JSC_RETAIN_WORKQUEUE) return JSC_EINVAL;
    jsc_usage_count(s, -1);
    s->limits = *l;
    jsc_usage_count(s, 1);
    int64_t *durations[] = {&s->limits.max_age_ns, &s->limits.duplicate_window_ns};
    for (int i = 0; i < 2; i++)
        if (*durations[i] > JSC_LONG) *durations[i] = JSC_LONG;
    if (l->first_seq > JSC_SEQ_MAX) s->limits.first_seq = 0;
    l = &s->limits;
    if (!s->configured && !s->last_seq && l->first_seq > 1) {
        s->first_seq = l->first_seq;
        s->last_seq = l->first_seq - 1;
    }
    if (l->duplicate_window_ns <= 0) jsc_dedupe_free(&s->dedupe); /* what is stored meanwhile is in no window */
    s->configured = 1;
    jsc_stream_trim(s);
    jsc_stream_age_arm(s);
    return JSC_OK;
}

int jsc_stream_lead(jsc_stream *s, uint32_t term) {
    if (s->leading) {
        s->term = term;
        return JSC_OK;
    }
    s->leading = 1;
    jsc_usage_count(s, 1);
    s->term = term;
    s->lead_from = jsc_log_last(s->log) + 1;
    s->backlog_bytes = 0;
    s->age_proposed = 0;
    s->moves.proposed = 0;
    jsc_record r; /* stamps go on from the newest record held, applied or not */
    if (jsc_log_last(s->log) >= jsc_log_first(s->log) && jsc_log_read(s->log, jsc_log_last(s->log), &r) == JSC_OK &&
        r.ts > s->last_stamp)
        s->last_stamp = r.ts;
    jsc_stream_subscribe(s);
    for (jsc_consumer *c = s->consumers; c; c = c->next) jsc_consumer_lead(c);
    jsc_stream_age_arm(s);
    return JSC_OK;
}

static void stop_leading(jsc_stream *s, const char *status, int pending) {
    if (!s->leading) return;
    jsc_stream_unsubscribe(s);
    for (jsc_consumer *c = s->consumers; c; c = c->next) jsc_consumer_unlead(c, status, pending);
    jsc_usage_count(s, -1);
    s->leading = 0;
    jsc_waiters_clear(&s->pubs);
    jsc_waiters_clear(&s->acks);
    jsc_traced_forget(s);
    while (s->deferred) {
        jsc_deferred *d = s->deferred;
        s->deferred = d->next;
        free(d);
    }
    s->deferred_tail = &s->deferred;
    s->deferred_n = 0;
    s->deferred_bytes = 0;
    jsc_timer_stop(&s->all->timers, &s->age);
}

void jsc_stream_follow(jsc_stream *s) { stop_leading(s, "409 Leadership Change", 0); }

void jsc_stream_shutdown(jsc_stream *s) {
    if (s->leading && s->solo) { /* with replicas a record that nobody was told of does harm */
        for (jsc_consumer *c = s->consumers; c; c = c->next) jsc_consumer_propose(c);
        jsc_log_submit(s->log);
    }
    stop_leading(s, "409 Server Shutdown", 1);
}

void jsc_stream_solo(jsc_stream *s, int on) {
    s->solo = on != 0;
    if (on) jsc_streams_apply(s, jsc_log_durable(s->log));
}

uint64_t jsc_stream_applied(const jsc_stream *s) { return s->applied; }
uint64_t jsc_stream_committed(const jsc_stream *s) { return s->committed; }

int jsc_stream_commit(jsc_stream *s, uint64_t index) { return jsc_stream_advance(s, index); }

static int host_kind(uint8_t kind) {
    return kind == JSC_K_CONFIG || kind == JSC_K_MEMBERS || kind == JSC_K_CONSUMER_CREATE ||
           kind == JSC_K_CONSUMER_DELETE || kind == JSC_K_HOST;
}

static void stream_wake(jsc_stream *s) {
    if (!s->stored || !s->leading) return;
    s->stored = 0;
    for (jsc_consumer *c = s->consumers; c; c = c->next)
        if (c->npulls || c->push) jsc_consumer_wake(c);
}

int jsc_stream_advance(jsc_stream *s, uint64_t committed) {
    if (committed > s->committed) s->committed = committed;
    if (s->applying) return JSC_OK;
    s->applying = 1;
    int rc = JSC_OK;
    uint64_t last = jsc_log_last(s->log);
    while (s->applied < s->committed && s->applied < last) {
        jsc_record r;
        rc = jsc_log_read(s->log, s->applied + 1, &r);
        if (rc == JSC_ECORRUPT && s->solo) {
            jsc_stream_lose(s); /* alone, there is nobody to get it from: what follows must stay readable */
            s->applied++;
            rc = JSC_OK;
            continue;
        }
        if (rc != JSC_OK)
            break; /* with replicas: passing over damage would give later messages other sequences than elsewhere */
        if (host_kind(r.kind)) {
            rc = JSC_EHOST;
            break;
        }
        if (r.ts > s->last_stamp) s->last_stamp = r.ts;
        s->applied++;
        if (r.kind != JSC_K_MESSAGE) {
            jsc_stream_apply_control(s, &r);
        } else if ((rc = jsc_stream_apply_message(s, &r)) != JSC_OK) {
            s->applied--; /* what it depends on cannot be read here: others decide by it, so this one must not guess */
            break;
        }
    }
    s->applying = 0;
    stream_wake(s);
    if (s->leading && s->limits.max_age_ns > 0 && !s->age.pos) jsc_stream_age_arm(s);
    return rc;
}

int jsc_stream_skip(jsc_stream *s) {
    if (s->applied >= s->committed) return JSC_EINVAL;
    s->applied++;
    return JSC_OK;
}
