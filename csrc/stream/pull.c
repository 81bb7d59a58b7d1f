/* Pull requests: parsing, the waiting line, and how a request ends (spec consumers §11, §12). */
#include "internal.h"

typedef struct ask {
    int64_t batch, max_bytes, expires, beat;
    int no_wait;
} ask;

/* ---- JSON, as much of it as a request needs ---- */
typedef struct json {
    const char *p, *end;
    int depth;
} json;

static void json_space(json *j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r')) j->p++;
}

static int json_string(json *j, jsc_span *out) {
    if (j->p == j->end || *j->p != '"') return 0;
    const char *from = ++j->p;
    while (j->p < j->end && *j->p != '"') {
        if ((unsigned char)*j->p < 0x20) return 0;
        if (*j->p == '\\' && ++j->p == j->end) return 0;
        j->p++;
    }
    if (j->p == j->end) return 0;
    *out = (jsc_span){from, (uint32_t)(j->p - from)};
    j->p++;
    return 1;
}

static int json_value(json *j) {
    jsc_span s;
    json_space(j);
    if (j->p == j->end) return 0;
    if (*j->p == '"') return json_string(j, &s);
    if (*j->p == '{' || *j->p == '[') {
        char close = *j->p == '{' ? '}' : ']';
        int object = close == '}';
        if (++j->depth > 32) return 0;
        j->p++;
        json_space(j);
        if (j->p < j->end && *j->p == close) {
            j->p++;
            j->depth--;
            return 1;
        }
        for (;;) {
            json_space(j);
            if (object) {
                if (!json_string(j, &s)) return 0;
                json_space(j);
                if (j->p == j->end || *j->p++ != ':') return 0;
            }
            if (!json_value(j)) return 0;
            json_space(j);
            if (j->p == j->end) return 0;
            if (*j->p == ',') {
                j->p++;
                continue;
            }
            if (*j->p++ != close) return 0;
            j->depth--;
            return 1;
        }
    }
    const char *from = j->p;
    while (j->p < j->end && ((*j->p >= '0' && *j->p <= '9') || (*j->p >= 'a' && *j->p <= 'z') || *j->p == '-' ||
                             *j->p == '+' || *j->p == '.' || *j->p == 'E'))
        j->p++;
    return j->p > from;
}

static int key_is(jsc_span k, const char *name) {
    size_t n = strlen(name);
    if (k.n != n) return 0;
    for (size_t i = 0; i < n; i++)
        if (k.p[i] != name[i] && (k.p[i] | 0x20) != name[i]) return 0;
    return 1;
}

static int integer(jsc_span v, int64_t *out) {
    int minus = v.n && *v.p == '-';
    uint64_t u;
    if (!jsc_parse_u64(v.p + minus, v.n - (uint32_t)minus, &u) || u > (uint64_t)INT64_MAX) return 0;
    *out = minus ? -(int64_t)u : (int64_t)u;
    return 1;
}

static int ask_json(const char *body, size_t n, ask *a) {
    json j = {body, body + n, 0};
    json_space(&j);
    j.p++; /* the brace was seen by the caller */
    json_space(&j);
    if (j.p < j.end && *j.p == '}') return 1;
    for (;;) {
        jsc_span key;
        json_space(&j);
        if (!json_string(&j, &key)) return 0;
        json_space(&j);
        if (j.p == j.end || *j.p++ != ':') return 0;
        json_space(&j);
        const char *from = j.p;
        if (!json_value(&j)) return 0;
        jsc_span v = {from, (uint32_t)(j.p - from)};
        int64_t *number = key_is(key, "batch")            ? &a->batch
                          : key_is(key, "max_bytes")      ? &a->max_bytes
                          : key_is(key, "expires")        ? &a->expires
                          : key_is(key, "idle_heartbeat") ? &a->beat
                                                          : NULL;
        if (number) {
            if (!jsc_span_eq(v, "null") && !integer(v, number)) return 0;
        } else if (key_is(key, "no_wait")) {
            if (jsc_span_eq(v, "true")) a->no_wait = 1;
            else if (jsc_span_eq(v, "false")) a->no_wait = 0;
            else if (!jsc_span_eq(v, "null")) return 0;
        }
        json_space(&j);
        if (j.p == j.end) return 0;
        if (*j.p == '}') return 1;
        if (*j.p++ != ',') return 0;
    }
}

/* ---- the line ---- */
static void link_last(jsc_consumer *c, jsc_pull *p) {
    p->next = NULL;
    p->prev = c->pulls_tail;
    if (c->pulls_tail) c->pulls_tail->next = p;
    else c->pulls = p;
    c->pulls_tail = p;
}

static void unlink_pull(jsc_consumer *c, jsc_pull *p) {
    if (p->prev) p->prev->next = p->next;
    else c->pulls = p->next;
    if (p->next) p->next->prev = p->prev;
    else c->pulls_tail = p->prev;
}

void jsc_pull_rotate(jsc_consumer *c, jsc_pull *p) {
    if (c->pulls_tail == p) return;
    unlink_pull(c, p);
    link_last(c, p);
}

void jsc_pull_drop(jsc_consumer *c, jsc_pull *p) {
    unlink_pull(c, p);
    c->npulls--;
    free(p);
}

void jsc_pull_end(jsc_consumer *c, jsc_pull *p, const char *status, int pending) {
    char more[128];
    more[0] = 0;
    if (pending)
        snprintf(more, sizeof more, "Nats-Pending-Messages: %lld\r\nNats-Pending-Bytes: %lld\r\n", (long long)p->batch,
                 (long long)(p->has_bytes ? p->max_bytes : 0));
    unlink_pull(c, p); /* first: the receiver may ask again from inside the publish */
    c->npulls--;
    jsc_consumer_status(c, p->reply, p->reply_len, status, more);
    free(p);
}

static void pull_beat(jsc_consumer *c, jsc_pull *p) {
    char more[128];
    snprintf(more, sizeof more, "Nats-Last-Consumer: %llu\r\nNats-Last-Stream: %llu\r\n",
             (unsigned long long)c->view.dcseq, (unsigned long long)c->view.dseq);
    jsc_consumer_status(c, p->reply, p->reply_len, "100 Idle Heartbeat", more);
}

/* Ends what ran out and sends heartbeats; the next time is remembered. */
void jsc_pull_sweep(jsc_consumer *c, int64_t mono) {
    int64_t due = JSC_NEVER;
    jsc_pull *next;
    for (jsc_pull *p = c->pulls; p; p = next) {
        next = p->next;
        if (p->expires <= mono) {
            jsc_pull_end(c, p, "408 Request Timeout", 1);
            continue;
        }
        if (p->beat > 0 && p->beat_due <= mono) {
            if (p->no_wait && p->sent) { /* one that wanted what there is got some, and now has to wait: as the peer */
                jsc_pull_end(c, p, "404 No Messages", 0);
                continue;
            }
            pull_beat(c, p);
            p->beat_due = mono + p->beat;
        }
        if (p->expires < due) due = p->expires;
        if (p->beat > 0 && p->beat_due < due) due = p->beat_due;
    }
    c->pulls_due = due;
}

static void refuse(jsc_consumer *c, const char *reply, size_t n, const char *status) {
    jsc_consumer_status(c, reply, n, status, "");
}

/* A duration as Go prints it: 1m0s, 1.5s, 250ms. */
static void duration_text(char *out, size_t cap, int64_t ns) {
    if (ns < 1000000000) {
        double v = ns >= 1000000 ? (double)ns / 1e6 : ns >= 1000 ? (double)ns / 1e3 : (double)ns;
        snprintf(out, cap, "%.10g%s", v, ns >= 1000000 ? "ms" : ns >= 1000 ? "\xc2\xb5s" : "ns");
        return;
    }
    long long h = ns / 3600000000000ll, m = ns / 60000000000ll % 60;
    double sec = (double)(ns % 60000000000ll) / 1e9;
    if (h) snprintf(out, cap, "%lldh%lldm%.10gs", h, m, sec);
    else if (m) snprintf(out, cap, "%lldm%.10gs", m, sec);
    else snprintf(out, cap, "%.10gs", sec);
}

void jsc_pull_ask(jsc_consumer *c, const char *reply, size_t rn, const char *body, size_t n) {
    jsc_stream *s = c->stream;
    ask a = {.batch = 1};
    char text[128], number[48];
    int64_t mono, unix_ns;
    jsc_streams_clock(s->all, &mono, &unix_ns);
    if (!rn || rn > UINT16_MAX) return;
    if (c->push) {
        refuse(c, reply, rn, "409 Consumer is push based");
        return;
    }
    while (n && (*body == ' ' || *body == '\t' || *body == '\n' || *body == '\r')) body++, n--;
    if (n && *body == '{') {
        if (!ask_json(body, n, &a)) {
            refuse(c, reply, rn, "400 Bad Request - invalid JSON");
            return;
        }
    } else if (n) {
        uint64_t v;
        if (jsc_parse_u64(body, n, &v) && v <= INT32_MAX) a.batch = (int64_t)v;
    }
    if (a.batch <= 0) a.batch = 1;
    if (a.beat > 0 && a.expires > 0 && a.beat > a.expires / 2) {
        refuse(c, reply, rn, "400 Bad Request - heartbeat value too large");
        return;
    }
    if (a.beat > 0 && a.expires <= 0) {
        refuse(c, reply, rn, "400 Bad Request - heartbeat value too large");
        return;
    }
    if (c->o.max_batch > 0 && a.batch > c->o.max_batch) {
        snprintf(text, sizeof text, "409 Exceeded MaxRequestBatch of %lld", (long long)c->o.max_batch);
        refuse(c, reply, rn, text);
        return;
    }
    if (c->o.max_expires_ns > 0 && a.expires > c->o.max_expires_ns) {
        duration_text(number, sizeof number, c->o.max_expires_ns);
        snprintf(text, sizeof text, "409 Exceeded MaxRequestExpires of %s", number);
        refuse(c, reply, rn, text);
        return;
    }
    if (c->o.max_bytes > 0 && a.max_bytes > c->o.max_bytes) {
        snprintf(text, sizeof text, "409 Exceeded MaxRequestMaxBytes of %lld", (long long)c->o.max_bytes);
        refuse(c, reply, rn, text);
        return;
    }
    c->active_ns = mono;
    int64_t max_waiting = c->o.max_waiting > 0 ? c->o.max_waiting : 512;
    if (c->npulls >= (uint64_t)max_waiting) {
        jsc_pull_sweep(c, mono);
        jsc_pull *next;
        for (jsc_pull *p = c->pulls; p && c->npulls >= (uint64_t)max_waiting; p = next) {
            next = p->next;
            if (!jsc_interest(s->all->plane, s->account, p->reply, p->reply_len)) jsc_pull_drop(c, p);
        }
        if (c->npulls >= (uint64_t)max_waiting) {
            if (a.beat <= 0) refuse(c, reply, rn, "409 Exceeded MaxWaiting");
            return;
        }
    }
    if (a.no_wait && c->pulls) { /* others come first; nothing would be left for this one */
        uint64_t asked = 0;
        for (jsc_pull *p = c->pulls; p; p = p->next) asked += (uint64_t)p->batch;
        if (asked >= jsc_consumer_pending(c, &c->view) + c->ready.n &&
            jsc_consumer_pending(c, &c->view) + c->ready.n > 0) {
            refuse(c, reply, rn, "408 Requests Pending");
            return;
        }
    }
    jsc_pull *p = calloc(1, sizeof *p + rn);
    if (!p) return;
    p->batch = a.batch;
    p->has_bytes = a.max_bytes > 0;
    p->max_bytes = a.max_bytes > 0 ? a.max_bytes : 0;
    p->no_wait = a.no_wait != 0;
    p->expires = a.expires > 0 && a.expires < INT64_MAX / 4 ? mono + a.expires : JSC_NEVER;
    p->beat = a.beat > 0 ? a.beat : 0;
    p->beat_due = a.beat > 0 ? mono + a.beat : JSC_NEVER;
    p->reply_len = (uint32_t)rn;
    memcpy(p->reply, reply, rn);
    link_last(c, p);
    c->npulls++;
    if (p->expires < c->pulls_due) c->pulls_due = p->expires;
    if (p->beat_due < c->pulls_due) c->pulls_due = p->beat_due;
    jsc_consumer_wake(c);
}

void jsc_pull_request(void *ctx, const jsc_msg *m) {
    jsc_consumer *c = ctx;
    jsc_span level, line;
    uint64_t wanted;
    if (!c->stream->leading || c->running || !m->reply_len) return;
    if (m->headers_len && jsc_header_find(m->headers, m->headers_len, "Nats-Required-Api-Level", &level, &line) &&
        (!jsc_parse_u64(level.p, level.n, &wanted) || wanted > JSC_API_LEVEL))
        refuse(c, m->reply, m->reply_len, "412 Required Api Level");
    else jsc_pull_ask(c, m->reply, m->reply_len, m->data, m->data_len);
}
