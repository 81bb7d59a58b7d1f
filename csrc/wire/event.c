/* The queues of events for the host language: what clients are about waits apart from what servers and logs are about. A
 * connection whose events pile up is not read on. */
#include "plane.h"
#include <errno.h>

static int about_clients(const jsc_event *e) {
    if (e->type == JSC_EV_TRACE) return 1; /* lines stay in the order of what happened, a route's too */
    return e->conn && e->conn_kind == JSC_CONN_CLIENT && e->type != JSC_EV_TRACED; /* which JSC_EV_JUDGED follows */
}

int jsc_plane_emit(jsc_plane *p, const jsc_event *e) {
    size_t text = (size_t)e->subject_len + e->reply_len + e->headers_len + e->data_len;
    jsc_block *b = malloc(sizeof *b + text + 1);
    if (!b) return -ENOMEM;
    b->next = NULL;
    b->bytes = sizeof *b + text;
    b->ev = *e;
    b->ev.block = b;
    char *q = b->text;
    b->ev.subject = q;
    if (e->subject_len) q = jsc_copy(q, e->subject, e->subject_len);
    b->ev.reply = q;
    if (e->reply_len) q = jsc_copy(q, e->reply, e->reply_len);
    b->ev.headers = q;
    if (e->headers_len) q = jsc_copy(q, e->headers, e->headers_len);
    b->ev.data = q;
    if (e->data_len) q = jsc_copy(q, e->data, e->data_len);
    *q = 0;
    jsc_queue *to = &p->events[about_clients(e)];
    *to->tail = b;
    to->tail = &b->next;
    if (JSC_UNLIKELY(e->type == JSC_EV_TRACE)) p->trace_bytes += b->bytes;
    jsc_conn *c = e->conn ? jsc_conn_find(p, e->conn) : NULL;
    if (c && (c->event_bytes += b->bytes) > JSC_EVENT_BYTES && !c->flooding) {
        c->flooding = 1;
        jsc_conn_mask(c);
    }
    return JSC_OK;
}

void jsc_emit_text(jsc_conn *c, int type, const char *s, size_t n) {
    jsc_event e = {.type = (uint8_t)type, .conn_kind = c->kind, .conn = c->id, .data = s, .data_len = (uint32_t)n};
    if (jsc_plane_emit(c->plane, &e)) jsc_conn_end(c, "Internal Error", NULL, 0);
}

int jsc_plane_next_of(jsc_plane *p, int clients, jsc_event *out) {
    jsc_queue *from = &p->events[!!clients];
    jsc_block *b = from->head;
    if (!b) return 0;
    if (!(from->head = b->next)) from->tail = &from->head;
    *out = b->ev;
    if (JSC_UNLIKELY(b->ev.type == JSC_EV_TRACE)) p->trace_bytes -= b->bytes;
    jsc_conn *c = b->ev.conn ? jsc_conn_find(p, b->ev.conn) : NULL;
    if (c && c->event_bytes) {
        c->event_bytes -= b->bytes < c->event_bytes ? b->bytes : c->event_bytes;
        if (c->flooding && c->event_bytes < JSC_EVENT_BYTES / 4) {
            c->flooding = 0;
            jsc_conn_resume(c);
        }
    }
    return 1;
}

int jsc_plane_next(jsc_plane *p, jsc_event *out) {
    return jsc_plane_next_of(p, 0, out) || jsc_plane_next_of(p, 1, out);
}

void jsc_event_done(jsc_event *e) {
    free(e->block);
    e->block = NULL;
}
