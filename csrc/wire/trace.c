/* Protocol lines for the host's log, when it asks for them. Costs nothing otherwise: one branch where an operation ends. */
#include "plane.h"

static void trace(jsc_conn *c, int out, const char *s, size_t n, uint64_t payload) {
    jsc_plane *p = c->plane;
    if (n > JSC_TRACE_PAYLOAD) n = JSC_TRACE_PAYLOAD;
    if (p->trace_bytes + n > JSC_TRACE_BYTES) { /* the log is slower than the traffic */
        p->untraced++;
        return;
    }
    if (p->untraced) {
        jsc_event lost = {.type = JSC_EV_TRACE, .a = 2, .b = p->untraced};
        if (jsc_plane_emit(p, &lost)) return;
        p->untraced = 0;
    }
    jsc_event e = {.type = JSC_EV_TRACE,
                   .conn_kind = c->kind,
                   .conn = c->id,
                   .a = (uint64_t)out,
                   .b = payload,
                   .data = s,
                   .data_len = (uint32_t)n};
    jsc_plane_emit(p, &e);
}

void jsc_trace_in(jsc_conn *c, const char *line, size_t n, const char *payload, size_t pn) {
    trace(c, 0, line, n, 0);
    if (pn) trace(c, 0, payload, pn, pn);
}

static int carries(const char *s, size_t n) {
    return n > 5 && (!memcmp(s, "MSG ", 4) || !memcmp(s, "HMSG ", 5) || !memcmp(s, "RMSG ", 5));
}

/* What was just queued: one message, or lines. */
void jsc_trace_out(jsc_conn *c, const char *s, const char *end) {
    if (c->kind == JSC_CONN_LINK) return;
    while (s < end) {
        const char *lf = memchr(s, '\n', (size_t)(end - s)), *le = lf ? lf : end;
        if (le > s && le[-1] == '\r') le--;
        trace(c, 1, s, (size_t)(le - s), 0);
        if (!lf) return;
        if (carries(s, (size_t)(le - s))) {
            if (end - lf > 3) trace(c, 1, lf + 1, (size_t)(end - lf) - 3, (size_t)(end - lf) - 3);
            return;
        }
        s = lf + 1;
    }
}
