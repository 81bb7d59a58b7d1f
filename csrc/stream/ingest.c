/* The leader's side of publishing: checks that need no state, framing, and who waits for which record. */
#include "internal.h"
#include <errno.h>

enum { SUBJECTS_FREE = 512, SUBJECTS_A_DELIVERY = 4 }; /* compared in the time of a delivery */

void jsc_stream_reply(jsc_stream *s, const char *to, size_t tn, const void *headers, size_t hn, const void *data,
                      size_t n) {
    jsc_msg m = {.account = s->account,
                 .subject = to,
                 .subject_len = (uint32_t)tn,
                 .headers = headers,
                 .headers_len = (uint32_t)hn,
                 .data = data,
                 .data_len = (uint32_t)n};
    jsc_publish(s->all->plane, &m);
}

/* Text as the inside of a JSON string; what does not fit is left out. */
size_t jsc_json_text(char *out, size_t cap, const char *s, size_t n) {
    size_t at = 0;
    for (size_t i = 0; i < n && at + 7 < cap; i++) {
        unsigned char ch = (unsigned char)s[i];
        if (ch == '"' || ch == '\\') {
            out[at++] = '\\';
            out[at++] = (char)ch;
        } else if (ch < 0x20 || ch == '<' || ch == '>' || ch == '&') {
            at += (size_t)snprintf(out + at, 7, "\\u%04x", ch);
        } else {
            out[at++] = (char)ch;
        }
    }
    return at;
}

void jsc_stream_error(jsc_stream *s, const char *to, size_t tn, int code, int err, const char *text, size_t n) {
    if (!tn) return;
    char desc[1024], body[3072];
    size_t dn = jsc_json_text(desc, sizeof desc, text, n);
    int bn = snprintf(body, sizeof body, "{\"error\":{\"code\":%d,\"err_code\":%d,\"description\":\"%.*s\"},%s0}", code,
                      err, (int)dn, desc, s->ack_head + 1);
    static const char busy[] = "NATS/1.0 429 Too Many Requests\r\n\r\n";
    jsc_stream_reply(s, to, tn, code == 429 ? busy : NULL, code == 429 ? sizeof busy - 1 : 0, body, (size_t)bn);
}

void jsc_stream_touch(jsc_stream *s) {
    if (s->is_touched) return;
    s->is_touched = 1;
    s->touched_next = s->all->touched;
    s->all->touched = s;
    jsc_streams_poke(s->all);
}

int jsc_stream_append(jsc_stream *s, uint8_t kind, const void *subject, size_t sn, const void *headers, size_t hn,
                      const void *data, size_t n, uint64_t *index) {
    int64_t ts = jsc_plane_unix(s->all->plane);
    if (ts <= s->last_stamp) ts = s->last_stamp + 1;
    int rc = jsc_log_append(s->log, s->term, ts, kind, subject, sn, headers, hn, data, n, index);
    if (rc != JSC_OK) return rc;
    s->last_stamp = ts;
    jsc_stream_touch(s);
    return JSC_OK;
}

int jsc_stream_propose(jsc_stream *s, uint8_t kind, const void *data, size_t n, uint64_t *index) {
    if (!s->leading || s->reading) return JSC_EINVAL;
    return jsc_stream_append(s, kind, NULL, 0, NULL, 0, data, n, index);
}

/* A status line a client wrote is not stored, nor what only a server may say of a request. Returns headers to store, in
 * scratch when they had to change; NULL when none are left. */
static const char *ingest_headers(const char *h, uint32_t *n, char **scratch, uint64_t trace) {
    static const char plain[] = "NATS/1.0\r\n", info[] = "Nats-Request-Info", dest[] = "Nats-Trace-Dest",
                      off[] = "Nats-Trace-Dest: trace disabled\r\n\r\n";
    jsc_span value, line;
    if (*n < 12 || memcmp(h, plain, 8)) return h;
    const char *nl = memchr(h, '\n', *n);
    int status = memcmp(h, plain, 10) != 0;
    if (!nl || (!status && !trace && !jsc_header_find(h, *n, info, &value, &line))) return h;
    uint32_t rest = *n - (uint32_t)(nl + 1 - h);
    char *p = malloc(rest + 10u + sizeof off);
    if (!p) return h;
    memcpy(p, plain, 10);
    memcpy(p + 10, nl + 1, rest);
    *scratch = p;
    *n = rest + 10;
    while (jsc_header_find(p, *n, info, &value, &line) || (trace && jsc_header_find(p, *n, dest, &value, &line))) {
        *n -= line.n;
        memmove(p + (line.p - p), line.p + line.n, *n - (size_t)(line.p - p));
    }
    if (trace) { /* or what is delivered from here would be traced again */
        if (*n >= 12 && !memcmp(p + *n - 4, "\r\n\r\n", 4)) *n -= 2;
        memcpy(p + *n, off, sizeof off - 1);
        *n += sizeof off - 1;
    }
    return *n <= 12 ? (*n = 0, NULL) : p;
}

static void turn_down(jsc_stream *s, const jsc_msg *m, uint64_t trace, int code, int err, const char *text) {
    if (trace) jsc_traced_refused(s, trace, m, err, text);
    jsc_stream_error(s, m->reply, s->limits.no_ack ? 0 : m->reply_len, code, err, text, strlen(text));
}

/* At apply, which has no turns, such a message is compared with all subjects. So that not thousands of them come to be
 * applied together they are paid for here. */
static void pay(jsc_stream *s, const jsc_msg *m) {
    jsc_span value, line;
    if (s->subjects.n < SUBJECTS_FREE) return;
    if ((jsc_header_find(m->headers, m->headers_len, "Nats-Expected-Last-Subject-Sequence-Subject", &value, &line) &&
         value.n && !jsc_subject_valid(value.p, value.n, 1)) ||
        (jsc_header_find(m->headers, m->headers_len, "Nats-Rollup", &value, &line) &&
         !jsc_subject_valid(m->subject, m->subject_len, 1)))
        jsc_plane_spend(s->all->plane, s->subjects.n / SUBJECTS_A_DELIVERY);
}

static void ingest_message(jsc_stream *s, const jsc_msg *m, uint64_t trace) {
    size_t rn = s->limits.no_ack ? 0 : m->reply_len;
    uint64_t size = jsc_stream_size(s, m->subject_len, m->headers_len, m->data_len);
    if (m->subject_len > UINT16_MAX || size > JSC_MAX_RECORD) {
        turn_down(s, m, trace, 503, 10077, "message too large");
        return;
    }
    if (m->headers_len > 65535) {
        turn_down(s, m, trace, 400, 10097, "header size exceeds maximum allowed of 64k");
        return;
    }
    if (jsc_log_last(s->log) - s->applied >= JSC_BACKLOG_MSGS || s->backlog_bytes + size > JSC_BACKLOG_BYTES ||
        s->pubs.held + rn > JSC_BACKLOG_REPLIES) {
        turn_down(s, m, trace, 429, 10167, "too many requests");
        return;
    }
    if (jsc_usage_full(s, m, size)) {
        turn_down(s, m, trace, 400, 10002, "resource limits exceeded for account");
        return;
    }
    if (m->headers_len) pay(s, m);
    char *scratch = NULL;
    uint32_t hn = m->headers_len;
    const char *h = hn ? ingest_headers(m->headers, &hn, &scratch, trace) : NULL;
    uint64_t index;
    int rc = jsc_stream_append(s, JSC_K_MESSAGE, m->subject, m->subject_len, h, hn, m->data, m->data_len, &index);
    free(scratch);
    if (s->full != (rc == JSC_EFULL)) {
        s->full = rc == JSC_EFULL;
        jsc_event e = {.type = JSC_EV_FULL, .a = s->owner.id, .b = s->full};
        jsc_plane_emit(s->all->plane, &e);
    }
    if (rc != JSC_OK) {
        if (rc == JSC_EINVAL) turn_down(s, m, trace, 503, 10077, "message too large");
        else turn_down(s, m, trace, 503, 10023, "insufficient resources");
        return;
    }
    s->backlog_bytes += (uint64_t)m->subject_len + hn + m->data_len;
    if (JSC_UNLIKELY(trace)) jsc_traced_await(s, trace, index);
    if (rn) jsc_waiters_push(&s->pubs, index, m->reply, rn); /* no memory: the publisher times out and tries again */
}

/* A message that arrives while a record of the same log is being delivered: framing it now could move that record. */
static void ingest_defer(jsc_stream *s, const jsc_msg *m) {
    size_t size = (size_t)m->subject_len + m->reply_len + m->headers_len + m->data_len;
    if (s->deferred_n >= 1024 || s->deferred_bytes + size > JSC_DEFERRED_BYTES)
        return; /* only a client that feeds a stream's deliveries back into it gets here */
    jsc_deferred *d = malloc(sizeof *d + size);
    if (!d) return;
    d->next = NULL;
    d->trace = m->trace ? m->trace->id : 0;
    d->subject_len = m->subject_len;
    d->reply_len = m->reply_len;
    d->headers_len = m->headers_len;
    d->data_len = m->data_len;
    char *p = d->bytes;
    const void *from[] = {m->subject, m->reply, m->headers, m->data};
    uint32_t len[] = {m->subject_len, m->reply_len, m->headers_len, m->data_len};
    for (int i = 0; i < 4; i++) {
        if (len[i]) memcpy(p, from[i], len[i]);
        p += len[i];
    }
    *s->deferred_tail = d;
    s->deferred_tail = &d->next;
    s->deferred_n++;
    s->deferred_bytes += size;
    jsc_stream_touch(s);
}

void jsc_stream_flush_deferred(jsc_stream *s) {
    jsc_deferred *d = s->deferred;
    s->deferred = NULL;
    s->deferred_tail = &s->deferred;
    s->deferred_n = 0;
    s->deferred_bytes = 0;
    while (d) {
        jsc_deferred *next = d->next;
        jsc_msg m = {.account = s->account,
                     .subject_len = d->subject_len,
                     .reply_len = d->reply_len,
                     .headers_len = d->headers_len,
                     .data_len = d->data_len};
        m.subject = d->bytes;
        m.reply = m.subject + m.subject_len;
        m.headers = m.reply + m.reply_len;
        m.data = m.headers + m.headers_len;
        if (s->leading) ingest_message(s, &m, d->trace);
        free(d);
        d = next;
    }
}

static void ingest(void *ctx, const jsc_msg *m) {
    jsc_pattern *p = ctx;
    jsc_stream *s = p->stream;
    if (!s->leading) return;
    if (JSC_UNLIKELY(m->trace != NULL)) {
        m->trace->streams++;
        if (m->trace->only) {
            jsc_traced_only(s, m);
            return;
        }
    }
    if (s->reading) ingest_defer(s, m);
    else ingest_message(s, m, JSC_UNLIKELY(m->trace != NULL) ? m->trace->id : 0);
}

void jsc_stream_subscribe(jsc_stream *s) {
    for (int i = 0; i < s->npatterns; i++) {
        jsc_pattern *p = &s->patterns[i];
        if (!p->sub) jsc_subscribe_call(s->all->plane, s->account, p->s, p->n, NULL, 0, 0, ingest, p, &p->sub);
    }
}

void jsc_stream_unsubscribe(jsc_stream *s) {
    for (int i = 0; i < s->npatterns; i++)
        if (s->patterns[i].sub) {
            jsc_unsubscribe(s->all->plane, s->patterns[i].sub);
            s->patterns[i].sub = NULL;
        }
}

int jsc_stream_subjects(jsc_stream *s, const char *const *subjects, const uint32_t *lens, int n) {
    jsc_pattern *a = calloc((size_t)n + 1, sizeof *a);
    if (!a) return -ENOMEM;
    for (int i = 0; i < n; i++) {
        a[i].s = malloc(lens[i] + 1u);
        if (!a[i].s) {
            while (i--) free(a[i].s);
            free(a);
            return -ENOMEM;
        }
        memcpy(a[i].s, subjects[i], lens[i]);
        a[i].s[lens[i]] = 0;
        a[i].n = lens[i];
        a[i].stream = s;
    }
    jsc_stream_unsubscribe(s);
    for (int i = 0; i < s->npatterns; i++) free(s->patterns[i].s);
    free(s->patterns);
    s->patterns = a;
    s->npatterns = n;
    if (s->leading) jsc_stream_subscribe(s);
    return JSC_OK;
}
