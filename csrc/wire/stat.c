/* What monitoring asks: figures of connections, accounts and the plane, lists of subscriptions, the last words of a
 * closed connection. Traffic pays for counters only; sums are made when somebody asks. */
#include "plane.h"

enum { CLOSED_SUBS = 32, CLOSED_BYTES = 2048 }; /* of a closed client's subscriptions: what is kept to be shown */

static void add(jsc_tally *to, const jsc_conn *c) {
    to->in_msgs += c->in_msgs;
    to->out_msgs += c->out_msgs;
    to->in_bytes += c->in_bytes;
    to->out_bytes += c->out_bytes;
}

void jsc_count_slow(jsc_conn *c) {
    jsc_plane_stats *s = &c->plane->stats;
    s->slow_consumers++;
    if (c->kind == JSC_CONN_CLIENT) {
        s->slow_clients++;
        c->account->slow_consumers++;
    } else if (c->kind == JSC_CONN_ROUTE) {
        s->slow_routes++;
    }
}

void jsc_count_stale(jsc_conn *c) {
    if (c->kind == JSC_CONN_CLIENT) c->plane->stats.stale_clients++;
    else if (c->kind == JSC_CONN_ROUTE) c->plane->stats.stale_routes++;
}

void jsc_count_gone(jsc_conn *c) {
    if (c->kind == JSC_CONN_CLIENT) add(&c->account->gone, c);
    else if (c->kind == JSC_CONN_ROUTE) add(&c->plane->gone_routes, c);
}

/* ---- connections ---- */
static jsc_conn_info info_of(const jsc_conn *c) {
    return (jsc_conn_info){.id = c->id,
                           .in_msgs = c->in_msgs,
                           .out_msgs = c->out_msgs,
                           .in_bytes = c->in_bytes,
                           .out_bytes = c->out_bytes,
                           .pending = jsc_pending(c) + jsc_link_waits(c),
                           .subs = c->subs_n,
                           .rtt_ns = c->rtt ? c->rtt : c->first_rtt,
                           .last_activity_ns = c->active_unix,
                           .start_ns = c->start_unix,
                           .stalls = c->stalls,
                           .account = c->account,
                           .fd = c->fd,
                           .kind = c->kind,
                           .level = (int8_t)jsc_packed_level(c),
                           .greeted = c->greeted};
}

int jsc_conn_stat(jsc_plane *p, uint64_t id, jsc_conn_info *out) {
    const jsc_conn *c = jsc_conn_find(p, id);
    if (!c) return JSC_ENOTFOUND;
    *out = info_of(c);
    return JSC_OK;
}

void jsc_emit_closed(jsc_conn *c) {
    char text[CLOSED_BYTES], *q = text;
    jsc_conn_info info = info_of(c);
    uint32_t n = 0;
    for (uint32_t i = 0; c->kind == JSC_CONN_CLIENT && i < c->subs_cap && n < CLOSED_SUBS; i++) {
        const jsc_sub *s = c->subs[i];
        if (!s || (size_t)(text + sizeof text - q) < s->subject_len + s->queue_len + s->sid_len + 24u) continue;
        q = jsc_copy(q, s->subject, s->subject_len);
        *q++ = ' ';
        q = jsc_copy(q, jsc_sub_queue(s), s->queue_len);
        *q++ = ' ';
        q = jsc_copy(q, jsc_sub_sid(s), s->sid_len);
        *q++ = ' ';
        q = jsc_put_number(q, s->delivered);
        *q++ = '\n';
        n++;
    }
    jsc_event e = {.type = JSC_EV_CLOSED,
                   .conn_kind = c->kind,
                   .conn = c->id,
                   .reply = text,
                   .reply_len = (uint32_t)(q - text),
                   .headers = (const char *)&info,
                   .headers_len = sizeof info,
                   .data = c->reason_text,
                   .data_len = (uint32_t)strlen(c->reason_text)};
    jsc_plane_emit(c->plane, &e);
}

/* ---- the plane and its accounts ---- */
void jsc_plane_stat(const jsc_plane *p, jsc_plane_stats *out) {
    jsc_tally routes = p->gone_routes;
    for (uint32_t i = 0; i < p->conns_n; i++)
        if (p->conns[i] && p->conns[i]->kind == JSC_CONN_ROUTE) add(&routes, p->conns[i]);
    *out = p->stats;
    out->route_in_msgs = routes.in_msgs;
    out->route_out_msgs = routes.out_msgs;
    out->route_in_bytes = routes.in_bytes;
    out->route_out_bytes = routes.out_bytes;
}

int jsc_plane_accounts(jsc_plane *p, int (*each)(void *, const jsc_account_info *), void *ctx) {
    for (jsc_account *a = p->all_accounts; a; a = a->next) {
        a->live = a->gone;
        a->conns = a->own_subs = 0;
    }
    for (uint32_t i = 0; i < p->conns_n; i++) {
        const jsc_conn *c = p->conns[i];
        if (!c || c->kind != JSC_CONN_CLIENT) continue;
        add(&c->account->live, c);
        c->account->conns += c->connected;
    }
    for (const jsc_own *s = p->own_subs; s; s = s->next) s->sub.account->own_subs++;
    for (const jsc_account *a = p->all_accounts; a; a = a->next) {
        jsc_account_info info = {.name = a->name,
                                 .name_len = a->name_len,
                                 .conns = a->conns,
                                 .subs = a->subs_n,
                                 .own_subs = a->own_subs,
                                 .clients = a->live,
                                 .routes = a->routed,
                                 .slow_consumers = a->slow_consumers,
                                 .inserts = a->inserts,
                                 .removes = a->removes,
                                 .matches = a->matches,
                                 .cache_hits = a->cache_hits,
                                 .cached = a->slots_used};
        for (uint32_t i = 0; i < a->slots_n; i++) {
            const jsc_match *m = a->slots[i].match;
            if (!m) continue;
            uint64_t n = (uint64_t)m->n_plain + m->n_members;
            info.fanout_sum += n;
            if (n > info.fanout_max) info.fanout_max = n;
        }
        int rc = each(ctx, &info);
        if (rc) return rc;
    }
    return 0;
}

/* ---- subscriptions ---- */
typedef struct listing {
    const jsc_sub_query *q;
    int (*each)(void *, const jsc_sub_info *);
    void *ctx;
    uint64_t seen;
    int stop;
} listing;

static void show(listing *l, const jsc_sub *s) {
    const jsc_sub_query *q = l->q;
    if ((q->account && s->account != q->account) || (q->conn && (!s->conn || s->conn->id != q->conn))) return;
    uint64_t at = l->seen++;
    if (at < q->skip || at - q->skip >= q->max || l->stop) return;
    jsc_sub_info info = {.account = s->account,
                         .subject = s->subject,
                         .queue = jsc_sub_queue(s),
                         .sid = jsc_sub_sid(s),
                         .subject_len = s->subject_len,
                         .queue_len = s->queue_len,
                         .sid_len = s->sid_len,
                         .conn = s->conn ? s->conn->id : 0,
                         .delivered = s->delivered,
                         .max = s->kind == JSC_SUB_CLIENT ? s->max : 0};
    l->stop = l->each(l->ctx, &info);
}

static void show_conn(listing *l, const jsc_conn *c) {
    for (uint32_t i = 0; i < c->subs_cap; i++)
        if (c->subs[i]) show(l, c->subs[i]);
}

int64_t jsc_plane_subs(jsc_plane *p, const jsc_sub_query *q, int (*each)(void *, const jsc_sub_info *), void *ctx) {
    listing l = {.q = q, .each = each, .ctx = ctx};
    if (q->subject) {
        if (!jsc_subject_valid(q->subject, q->subject_len, 1)) return 0;
        for (jsc_account *a = p->all_accounts; a; a = a->next) {
            if ((q->account && a != q->account) || jsc_index_find(a, q->subject, (uint32_t)q->subject_len)) continue;
            for (uint32_t i = 0; i < p->found.n; i++) show(&l, p->found.v[i]);
        }
    } else if (q->conn) {
        const jsc_conn *c = jsc_conn_find(p, q->conn);
        if (c) show_conn(&l, c);
    } else {
        for (uint32_t i = 0; i < p->conns_n; i++)
            if (p->conns[i]) show_conn(&l, p->conns[i]);
        for (const jsc_own *s = p->own_subs; s; s = s->next) show(&l, &s->sub);
    }
    return (int64_t)l.seen;
}
