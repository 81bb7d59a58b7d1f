/* The header by which a proxy says for whom it connects. */
#ifndef JSC_WIRE_PROXY_H
#define JSC_WIRE_PROXY_H
#include "../base/jsc_base.h"

enum { JSC_PROXY_LINE = 107 };
enum { JSC_PROXY_MORE = 0, JSC_PROXY_DONE = 1, JSC_PROXY_NONE = -1, JSC_PROXY_BAD = -2 };

typedef struct jsc_proxy {
    uint8_t b[JSC_PROXY_LINE + 1], whole;
    uint32_t n, want, skip;
    uint32_t port;
    char ip[48]; /* "": the socket's address stays */
    char why[72];
} jsc_proxy;

/* Reads on. NONE: this is no header; b was not taken, what was taken before are x->n bytes of x->b. BAD: x->why. */
int jsc_proxy_take(jsc_proxy *, const uint8_t *b, size_t n, size_t *used);
#endif
