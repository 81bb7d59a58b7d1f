/* Apply: every rule about a published message, decided from the record and the state alone, in the order of the
 * specification (spec streams §7). Publishers are answered here, by the leader that framed the record. */
#include "internal.h"

static void refuse(jsc_verdict *v, int code, int err, const char *text) {
    v->code = code;
    v->err = err;
    snprintf(v->text, sizeof v->text, "%s", text);
}

static int span_lower_eq(jsc_span s, const char *text) {
    size_t n = strlen(text);
    if (s.n != n) return 0;
    for (size_t i = 0; i < n; i++)
        if ((s.p[i] | 0x20) != text[i]) return 0;
    return 1;
}

/* The newest sequence of a subject or pattern, 0 when there is none. */
static uint64_t subject_last(const jsc_stream *s, const char *p, size_t n) {
    if (jsc_subject_valid(p, n, 1)) {
        uint32_t id = jsc_subjects_find(&s->subjects, p, n);
        return id == JSC_NO_SUBJECT ? 0 : s->subjects.a[id].last;
    }
    uint64_t last = 0;
    if (!jsc_subject_valid(p, n, 0)) return 0;
    for (uint32_t i = 0; i < s->subjects.n; i++) {
        const jsc_subject *x = &s->subjects.a[i];
        if (x->name && x->last > last && jsc_subject_matches(p, n, x->name, x->len)) last = x->last;
    }
    return last;
}

/* Of a damaged one v->unread is set: others decide by it. Alone, there is nobody who does. */
static jsc_span record_msg_id(jsc_stream *s, uint64_t index, jsc_verdict *v) {
    jsc_record r;
    jsc_headers h = {.any = 0};
    int rc = index ? jsc_log_read(s->log, index, &r) : JSC_ENOTFOUND;
    if (rc == JSC_OK && r.headers_len) jsc_headers_parse(r.headers, r.headers_len, &h);
    if (rc == JSC_ECORRUPT && !s->solo) v->unread = rc;
    return h.msg_id;
}

/* Checks 4 to 15 of the specification's table. Returns 1 when the message may be stored. */
static int check_headers(jsc_stream *s, const jsc_record *r, const jsc_headers *h, uint64_t hash, jsc_verdict *v) {
    const jsc_stream_limits *l = &s->limits;
    uint64_t n;
    if (h->batch_id.p) {
        refuse(v, 400, 10174, "atomic publish is disabled");
        return 0;
    }
    if (h->incr.p) {
        refuse(v, 400, 10168, "message counters is disabled");
        return 0;
    }
    if (h->exp_stream.n && (h->exp_stream.n != s->name_len || memcmp(h->exp_stream.p, s->name, s->name_len))) {
        refuse(v, 400, 10060, "expected stream does not match");
        return 0;
    }
    if (h->ttl.n && !jsc_span_eq(h->ttl, "0")) {
        refuse(v, 400, 10166, "per-message TTL is disabled");
        return 0;
    }
    if (h->exp_subj.p) {
        uint64_t last = h->exp_subj_of.n ? subject_last(s, h->exp_subj_of.p, h->exp_subj_of.n)
                                         : subject_last(s, r->subject, r->subject_len);
        if (!jsc_parse_u64(h->exp_subj.p, h->exp_subj.n, &n) || n != last) {
            refuse(v, 400, 10071, "");
            snprintf(v->text, sizeof v->text, "wrong last sequence: %llu", (unsigned long long)last);
            return 0;
        }
    } else if (h->exp_subj_of.n) {
        refuse(v, 400, 10193, "missing sequence for expected last sequence per subject");
        return 0;
    }
    if (h->exp_last.p && (!jsc_parse_u64(h->exp_last.p, h->exp_last.n, &n) || n != s->last_seq)) {
        refuse(v, 400, 10071, "");
        snprintf(v->text, sizeof v->text, "wrong last sequence: %llu", (unsigned long long)s->last_seq);
        return 0;
    }
    if (h->schedule.p || h->schedule_next.p || h->scheduler.p) {
        refuse(v, 400, 10188, "message schedules is disabled");
        return 0;
    }
    if (h->msg_id.n && l->duplicate_window_ns > 0) {
        uint64_t it = 0;
        const struct jsc_seen *x;
        while ((x = jsc_dedupe_find(&s->dedupe, hash, &it))) {
            jsc_span id = record_msg_id(s, x->index, v);
            if (v->unread) return 0;
            if (!id.p || (id.n == h->msg_id.n && !memcmp(id.p, h->msg_id.p, id.n))) { /* damaged: its hash has to do */
                v->duplicate = 1;
                v->seq = x->seq;
                return 0;
            }
        }
    }
    if (h->exp_last_id.n) {
        jsc_span id = record_msg_id(s, s->last_msg_index, v);
        if (v->unread) return 0;
        if (id.n != h->exp_last_id.n || memcmp(id.p, h->exp_last_id.p, id.n)) {
            refuse(v, 400, 10070, "");
            snprintf(v->text, sizeof v->text, "wrong last msg ID: %.*s", (int)(id.n > 256 ? 256 : id.n),
                     id.p ? id.p : "");
            return 0;
        }
    }
    if (h->rollup.n) {
        if (!l->allow_rollup || l->deny_purge) {
            refuse(v, 500, 10111, "rollup not permitted");
            return 0;
        }
        if (!span_lower_eq(h->rollup, "sub") && !span_lower_eq(h->rollup, "all")) {
            refuse(v, 500, 10111, "");
            snprintf(v->text, sizeof v->text, "rollup value invalid: \"%.*s\"",
                     (int)(h->rollup.n > 200 ? 200 : h->rollup.n), h->rollup.p);
            return 0;
        }
    }
    return 1;
}

static int check_discard_new(jsc_stream *s, uint32_t subject, uint64_t size, int rollup_sub, jsc_verdict *v) {
    const jsc_stream_limits *l = &s->limits;
    uint64_t gone = 0, gone_size = 0;
    if (subject != JSC_NO_SUBJECT && l->max_msgs_per_subject > 0 &&
        s->subjects.a[subject].count >= (uint64_t)l->max_msgs_per_subject) {
        if (l->discard_new_per_subject && !rollup_sub) {
            refuse(v, 503, 10077, "maximum messages per subject exceeded");
            return 0;
        }
        gone = 1;
        gone_size = jsc_seqs_at(&s->seqs, s->subjects.a[subject].first)->size;
    }
    if (l->max_msgs > 0 && s->messages + 1 - gone > (uint64_t)l->max_msgs) {
        refuse(v, 503, 10077, "maximum messages exceeded");
        return 0;
    }
    if (l->max_bytes > 0 && s->bytes + size - gone_size > (uint64_t)l->max_bytes) {
        refuse(v, 503, 10077, "maximum bytes exceeded");
        return 0;
    }
    return 1;
}

void jsc_stream_link(jsc_stream *s, uint64_t seq, jsc_entry *e, uint64_t index, uint32_t subject, uint64_t size) {
    jsc_subject *x = &s->subjects.a[subject];
    e->index = index;
    e->subject = subject;
    e->size = (uint32_t)size;
    if (x->count) {
        e->prev = (uint32_t)(seq - x->last);
        jsc_seqs_at(&s->seqs, x->last)->next = e->prev;
    } else {
        x->first = seq;
    }
    x->last = seq;
    x->count++;
    s->messages++;
    jsc_stream_grow(s, (int64_t)size);
}

/* Gives the message its sequence. 0 when memory is out. */
static int store(jsc_stream *s, const jsc_record *r, uint32_t subject, uint64_t size, const jsc_headers *h,
                 jsc_verdict *v) {
    uint64_t seq = s->last_seq + 1;
    jsc_entry *e = jsc_seqs_put(&s->seqs, seq);
    if (!e) return 0;
    jsc_stream_link(s, seq, e, r->index, subject, size);
    if (!s->first_seq) s->first_seq = 1;
    s->last_seq = seq;
    s->last_ts = r->ts;
    s->last_msg_index = r->index;
    v->seq = seq;
    s->stored = 1;
    if (s->limits.retention == JSC_RETAIN_INTEREST && !jsc_stream_wanted(s, seq, e)) {
        v->unwanted = 1;
        jsc_stream_remove(s, seq); /* the sequence is used up, the message is not kept */
        return 1;
    }
    if (h && h->rollup.n) {
        if (span_lower_eq(h->rollup, "all")) {
            while (s->first_seq < seq) jsc_stream_remove(s, s->first_seq);
        } else if (!jsc_subject_valid(r->subject, r->subject_len, 1)) {
            /* Publishers may use a subject with wildcards, and here it means all it matches: buckets purge so. */
            jsc_stream_apply_purge(s, r->subject, r->subject_len, seq, 0);
        } else {
            while (s->subjects.a[subject].first < seq) jsc_stream_remove(s, s->subjects.a[subject].first);
        }
    }
    const jsc_stream_limits *l = &s->limits;
    if (l->max_msgs_per_subject > 0)
        while (s->subjects.a[subject].name && s->subjects.a[subject].count > (uint64_t)l->max_msgs_per_subject)
            jsc_stream_remove(s, s->subjects.a[subject].first);
    if (!l->discard_new)
        while (s->messages && ((l->max_msgs > 0 && s->messages > (uint64_t)l->max_msgs) ||
                               (l->max_bytes > 0 && s->bytes > (uint64_t)l->max_bytes)))
            jsc_stream_remove(s, s->first_seq);
    return 1;
}

void jsc_stream_lose(jsc_stream *s) {
    uint64_t seq = s->last_seq + 1;
    jsc_entry *e = jsc_seqs_put(&s->seqs, seq);
    JSC_ASSERT(e);
    jsc_seqs_kill(&s->seqs, seq);
    s->last_seq = seq;
    if (!s->first_seq) s->first_seq = 1;
    if (!s->messages) jsc_stream_settle_first(s);
}

/* Every check but those of the stream's limits. *hash is of its id. 1: it may be stored. */
static int judge(jsc_stream *s, const jsc_record *r, jsc_headers *h, uint64_t *hash, jsc_verdict *v) {
    const jsc_stream_limits *l = &s->limits;
    if (l->sealed) {
        refuse(v, 400, 10109, "invalid operation on sealed stream");
        return 0;
    }
    h->any = 0;
    if (r->headers_len) {
        jsc_headers_parse(r->headers, r->headers_len, h);
        if (h->any) {
            if (h->msg_id.n) *hash = jsc_hash(h->msg_id.p, h->msg_id.n);
            if (!check_headers(s, r, h, *hash, v))
                return 0; /* it read other records too; this one stays in place as nothing is appended meanwhile */
        }
    }
    if (l->max_msg_size >= 0 && (uint64_t)r->headers_len + r->data_len > (uint64_t)l->max_msg_size) {
        refuse(v, 400, 10054, "message size exceeds maximum allowed");
        return 0;
    }
    return 1;
}

void jsc_stream_judge(jsc_stream *s, const jsc_record *r, jsc_verdict *v) {
    jsc_headers h;
    uint64_t hash = 0;
    memset(v, 0, sizeof *v);
    judge(s, r, &h, &hash, v);
}

static void decide(jsc_stream *s, const jsc_record *r, jsc_verdict *v) {
    const jsc_stream_limits *l = &s->limits;
    jsc_headers h;
    uint64_t hash = 0;
    if (l->duplicate_window_ns > 0) jsc_dedupe_expire(&s->dedupe, r->ts - l->duplicate_window_ns);
    if (!judge(s, r, &h, &hash, v)) return;
    uint64_t size = jsc_stream_size(s, r->subject_len, r->headers_len, r->data_len);
    if (l->discard_new && !check_discard_new(s, jsc_subjects_find(&s->subjects, r->subject, r->subject_len), size,
                                             h.any && h.rollup.n && span_lower_eq(h.rollup, "sub"), v))
        return;
    uint32_t subject = jsc_subjects_add(&s->subjects, r->subject, r->subject_len);
    JSC_ASSERT(subject != JSC_NO_SUBJECT); /* out of memory at apply: a replica must not go on with another state */
    JSC_ASSERT(store(s, r, subject, size, h.any ? &h : NULL, v));
    if (h.any && h.msg_id.n && l->duplicate_window_ns > 0)
        JSC_ASSERT(jsc_dedupe_add(&s->dedupe, hash, r->index, v->seq, r->ts) == JSC_OK);
}

int jsc_stream_apply_message(jsc_stream *s, const jsc_record *r) {
    jsc_verdict v;
    v.code = v.err = v.unread = 0;
    v.duplicate = v.unwanted = 0;
    v.seq = 0;
    decide(s, r, &v);
    if (JSC_UNLIKELY(v.unread)) return v.unread;
    if (!s->leading) return JSC_OK;
    if (r->index >= s->lead_from) {
        uint64_t n = (uint64_t)r->subject_len + r->headers_len + r->data_len;
        s->backlog_bytes -= n < s->backlog_bytes ? n : s->backlog_bytes;
    }
    if (JSC_UNLIKELY(s->awaited != NULL)) jsc_traced_applied(s, r, &v);
    if (!s->pubs.n) return JSC_OK;
    uint32_t tn;
    const char *reply = jsc_waiters_take(&s->pubs, r->index, &tn);
    if (!reply) return JSC_OK;
    if (v.code) {
        jsc_stream_error(s, reply, tn, v.code, v.err, v.text, strlen(v.text));
        return JSC_OK;
    }
    char body[2048]; /* ack_head is at most 255 characters of 6 bytes and the fixed parts */
    size_t n = s->ack_head_len;
    memcpy(body, s->ack_head, n);
    char digits[20];
    int k = 20;
    uint64_t x = v.seq;
    do digits[--k] = (char)('0' + x % 10);
    while (x /= 10);
    memcpy(body + n, digits + k, (size_t)(20 - k));
    n += (size_t)(20 - k);
    if (v.duplicate) {
        memcpy(body + n, ",\"duplicate\": true", 18);
        n += 18;
    }
    body[n++] = '}';
    jsc_stream_reply(s, reply, tn, NULL, 0, body, n);
    return JSC_OK;
}

/* PURGE body: u8 1 · u8 form · form 1: u64 seq · u64 keep · u16 n · filter; form 2 (expiry): u64 below.
 * DELETE body: u8 1 · u64 seq. */
static void apply_purge(jsc_stream *s, const jsc_record *r) {
    const uint8_t *p = (const uint8_t *)r->data;
    if (r->data_len >= 10 && p[0] == 1 && p[1] == 2) {
        jsc_stream_apply_expire(s, jsc_get64(p + 2));
        if (s->leading) jsc_stream_age_arm(s);
        return;
    }
    uint64_t purged = 0;
    if (r->data_len >= 20 && p[0] == 1 && p[1] == 1) {
        size_t n = (size_t)p[18] | (size_t)p[19] << 8;
        if (r->data_len >= 20 + n)
            purged = jsc_stream_apply_purge(s, (const char *)p + 20, n, jsc_get64(p + 2), jsc_get64(p + 10));
    }
    uint32_t tn;
    const char *reply = s->leading ? jsc_waiters_take(&s->acks, r->index, &tn) : NULL;
    if (reply) {
        char body[160];
        int n =
            snprintf(body, sizeof body,
                     "{\"type\":\"io.nats.jetstream.api.v1.stream_purge_response\",\"success\":true,\"purged\":%llu}",
                     (unsigned long long)purged);
        jsc_stream_reply(s, reply, tn, NULL, 0, body, (size_t)n);
    }
}

static void apply_delete(jsc_stream *s, const jsc_record *r) {
    const uint8_t *p = (const uint8_t *)r->data;
    uint64_t seq = r->data_len >= 9 && p[0] == 1 ? jsc_get64(p + 1) : 0;
    int found = seq && jsc_entry_live(jsc_seqs_at(&s->seqs, seq)), beyond = seq > s->last_seq;
    if (found) jsc_stream_remove(s, seq);
    uint32_t tn;
    const char *reply = s->leading ? jsc_waiters_take(&s->acks, r->index, &tn) : NULL;
    if (reply) {
        char body[300];
        int n;
        static const char type[] = "io.nats.jetstream.api.v1.stream_msg_delete_response";
        if (found) n = snprintf(body, sizeof body, "{\"type\":\"%s\",\"success\":true}", type);
        else if (beyond || !seq)
            n = snprintf(body, sizeof body,
                         "{\"type\":\"%s\",\"error\":{\"code\":500,\"err_code\":10057,\"description\":\"%s\"},"
                         "\"success\":false}",
                         type, seq ? "stream store EOF" : "no message found");
        else
            n = snprintf(
                body, sizeof body,
                "{\"type\":\"%s\",\"error\":{\"code\":400,\"err_code\":10043,\"description\":\"sequence %llu not "
                "found\"},\"success\":false}",
                type, (unsigned long long)seq);
        jsc_stream_reply(s, reply, tn, NULL, 0, body, (size_t)n);
    }
}

void jsc_stream_apply_control(jsc_stream *s, const jsc_record *r) {
    /* Stamps rise along a log, so this takes nothing from the messages to come; it lets old records go. */
    if (r->kind != JSC_K_NOOP && s->limits.duplicate_window_ns > 0)
        jsc_dedupe_expire(&s->dedupe, r->ts - s->limits.duplicate_window_ns);
    switch (r->kind) {
    case JSC_K_PURGE: apply_purge(s, r); break;
    case JSC_K_DELETE: apply_delete(s, r); break;
    case JSC_K_CONSUMER_STATE: jsc_consumer_apply(s, r); break;
    case JSC_K_MOVED: jsc_moves_apply(s, r); break;
    default: /* NOOP, and kinds of a later version that change nothing here */ break;
    }
}
