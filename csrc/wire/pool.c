/* The connections of one peer. A peer is reached over a pool, an account's interest and messages over the connection that
 * its name hashes to; an account may have a connection of its own, where lines do not name it. Servers without pools
 * use one connection for everything. Source: cluster-protocol.md 2.4. */
#include "plane.h"
#include <errno.h>

/* FNV-1a, 32 bits: both ends must choose alike. */
uint32_t jsc_pool_hash(const char *s, size_t n) { return jsc_pool_more(JSC_POOL_SEED, s, n); }

uint32_t jsc_pool_more(uint32_t h, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
    return h;
}

int jsc_pool_carries(const jsc_conn *c, const jsc_account *a) {
    if (c->only) return c->only == a;
    for (uint32_t i = 0; i < c->apart_n; i++)
        if (c->apart[i] == a) return 0;
    return c->pool_size < 2 || a->pool_hash % c->pool_size == c->pool_index;
}

int jsc_conn_route_ready(jsc_plane *p, uint64_t id, const jsc_route_options *o) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing) return JSC_ENOTFOUND;
    if (c->kind != JSC_CONN_ROUTE || (o && o->pool_size && o->pool_index >= o->pool_size)) return JSC_EINVAL;
    if (c->ready) return JSC_OK;
    if (p->routes_n == p->routes_cap) {
        uint32_t cap = p->routes_cap ? p->routes_cap * 2 : 8;
        jsc_conn **v = realloc(p->routes, cap * sizeof *v);
        if (!v) return -ENOMEM;
        p->routes = v;
        p->routes_cap = cap;
    }
    if (o) {
        if (o->apart_n && !o->only) {
            if (!(c->apart = malloc(o->apart_n * sizeof *c->apart))) return -ENOMEM;
            memcpy(c->apart, o->apart, o->apart_n * sizeof *c->apart);
            c->apart_n = o->apart_n;
        }
        c->only = o->only;
        c->pool_size = o->pool_size;
        c->pool_index = o->pool_index;
        c->traces = o->traces;
    }
    c->permissions = jsc_permissions_keep(p->exports);
    p->routes[p->routes_n++] = c;
    p->stats.routes = p->routes_n;
    c->ready = 1;
    jsc_conn_first_ping(c, 1000000000);
    jsc_interest_tell(c, NULL);
    c->held = c->waiting = 0;
    jsc_conn_resume(c); /* what it told us before counts from now */
    return JSC_OK;
}

int jsc_conn_route_share(jsc_plane *p, uint64_t id, jsc_account *a) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing || !c->ready) return JSC_ENOTFOUND;
    for (uint32_t i = 0; i < c->apart_n; i++)
        if (c->apart[i] == a) {
            c->apart[i] = c->apart[--c->apart_n];
            if (jsc_pool_carries(c, a)) jsc_interest_tell(c, a);
            break;
        }
    return JSC_OK;
}

void jsc_plane_route_permissions(jsc_plane *p, jsc_permissions *imports, jsc_permissions *exports) {
    jsc_permissions *old[] = {p->imports, p->exports};
    p->imports = jsc_permissions_keep(imports);
    p->exports = jsc_permissions_keep(exports);
    for (int i = 0; i < 2; i++) jsc_permissions_release(old[i]);
}

int jsc_conn_route_tell(jsc_plane *p, uint64_t id) {
    jsc_conn *c = jsc_conn_find(p, id);
    if (!c || c->closing || !c->ready) return JSC_ENOTFOUND;
    jsc_interest_tell(c, NULL);
    return JSC_OK;
}
