/* Message tracing: what a stream made of a traced message, told when that is known. */
#include "internal.h"

enum { AWAITED_MAX = 4096 };

void jsc_traced_tell(jsc_stream *s, uint64_t trace, const char *subject, size_t n, const jsc_verdict *v) {
    jsc_event e = {.type = JSC_EV_JUDGED,
                   .a = trace,
                   .b = v->err         ? (uint64_t)v->err
                        : v->duplicate ? 2
                        : v->unwanted  ? 1
                                       : 0,
                   .subject = s->name,
                   .subject_len = s->name_len,
                   .reply = subject,
                   .reply_len = (uint32_t)n,
                   .data = v->text,
                   .data_len = v->err ? (uint32_t)strlen(v->text) : 0};
    jsc_plane_emit(s->all->plane, &e);
}

void jsc_traced_refused(jsc_stream *s, uint64_t trace, const jsc_msg *m, int err, const char *text) {
    jsc_verdict v = {.err = err};
    snprintf(v.text, sizeof v.text, "%s", text);
    jsc_traced_tell(s, trace, m->subject, m->subject_len, &v);
}

void jsc_traced_await(jsc_stream *s, uint64_t trace, uint64_t index) {
    uint32_t n = 0;
    jsc_awaited **at = &s->awaited, *x;
    while (*at && n++ < AWAITED_MAX) at = &(*at)->next;
    if (*at || !(x = malloc(sizeof *x))) return; /* the host stops waiting after a while */
    *x = (jsc_awaited){.index = index, .trace = trace};
    *at = x;
}

void jsc_traced_applied(jsc_stream *s, const jsc_record *r, const jsc_verdict *v) {
    while (s->awaited && s->awaited->index <= r->index) {
        jsc_awaited *x = s->awaited;
        s->awaited = x->next;
        if (x->index == r->index) jsc_traced_tell(s, x->trace, r->subject, r->subject_len, v);
        free(x);
    }
}

void jsc_traced_only(jsc_stream *s, const jsc_msg *m) {
    jsc_verdict v;
    jsc_record r = {.kind = JSC_K_MESSAGE,
                    .ts = jsc_plane_unix(s->all->plane),
                    .subject = m->subject,
                    .subject_len = (uint16_t)m->subject_len,
                    .headers = m->headers,
                    .headers_len = m->headers_len,
                    .data = m->data,
                    .data_len = m->data_len};
    if (m->subject_len > UINT16_MAX || m->headers_len > UINT16_MAX) {
        jsc_traced_refused(s, m->trace->id, m, 10077, "message too large");
        return;
    }
    jsc_stream_judge(s, &r, &v);
    jsc_traced_tell(s, m->trace->id, m->subject, m->subject_len, &v);
    if (v.code && !s->limits.no_ack) jsc_stream_error(s, m->reply, m->reply_len, v.code, v.err, v.text, strlen(v.text));
}

void jsc_traced_forget(jsc_stream *s) {
    while (s->awaited) {
        jsc_awaited *x = s->awaited;
        s->awaited = x->next;
        free(x);
    }
}
