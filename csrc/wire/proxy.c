/* The PROXY protocol, versions 1 and 2: who a connection really comes from. Bytes may come one by one; nothing is taken
 * that does not belong to the header. */
#include "proxy.h"
#include <arpa/inet.h>
#include <ctype.h>

static const uint8_t V1[6] = "PROXY ", V2[12] = {13, 10, 13, 10, 0, 13, 10, 'Q', 'U', 'I', 'T', 10};

static int bad(jsc_proxy *x, const char *why) {
    snprintf(x->why, sizeof x->why, "%s", why);
    return JSC_PROXY_BAD;
}

static int address(jsc_proxy *x, int family, const void *ip, uint32_t port) {
    inet_ntop(family, ip, x->ip, sizeof x->ip);
    x->port = port;
    return JSC_PROXY_DONE;
}

static int port_of(const char *s, uint32_t *port) {
    size_t n = strlen(s);
    if (!n || n > 5 || strspn(s, "0123456789") != n) return -1;
    *port = (uint32_t)strtoul(s, NULL, 10);
    return *port > 65535 ? -1 : 0;
}

/* PROXY TCP4|TCP6|UNKNOWN source destination port port CR LF */
static int line(jsc_proxy *x) {
    char text[JSC_PROXY_LINE + 1], *field[6] = {0}, *save = NULL;
    uint8_t ip[16], to[16];
    uint32_t port, other;
    int n = 0;
    if (x->b[x->n - 2] != '\r') return bad(x, "invalid PROXY protocol header: no CR before LF");
    memcpy(text, x->b, x->n);
    text[x->n - 2] = 0;
    if (memchr(text, 0, x->n - 2)) return bad(x, "invalid PROXY protocol header: zero byte");
    for (char *t = strtok_r(text, " ", &save); t && n < 6; t = strtok_r(NULL, " ", &save)) field[n++] = t;
    if (n > 1 && !strcmp(field[1], "UNKNOWN")) return JSC_PROXY_DONE;
    if (n < 6) return bad(x, "invalid PROXY protocol header: too few fields");
    int family = !strcmp(field[1], "TCP4") ? AF_INET : !strcmp(field[1], "TCP6") ? AF_INET6 : 0;
    if (!family) return bad(x, "unsupported PROXY protocol feature: protocol");
    if (inet_pton(family, field[2], ip) != 1 || inet_pton(family, field[3], to) != 1)
        return bad(x, "invalid PROXY protocol header: address");
    if (port_of(field[4], &port) || port_of(field[5], &other)) return bad(x, "invalid PROXY protocol header: port");
    return address(x, family, ip, port);
}

/* signature 12 · version and command 1 · family and transport 1 · length 2 · addresses, then anything */
static int binary(jsc_proxy *x) {
    uint32_t len = (uint32_t)x->b[14] << 8 | x->b[15];
    uint8_t command = x->b[12] & 15, family = x->b[13] >> 4;
    if (x->n == 16) {
        if (x->b[12] >> 4 != 2) return bad(x, "invalid PROXY protocol header: version");
        if (command > 1) return bad(x, "unknown PROXY protocol command");
        if (command == 1 && (x->b[13] & 15) != 1)
            return bad(x, "unsupported PROXY protocol feature: only STREAM protocol supported");
        if (command == 1 && family != 1 && family != 2)
            return bad(x, "unsupported PROXY protocol feature: address family");
        x->want = command == 0 ? 0 : family == 1 ? 12 : 36;
        if (len < x->want) return bad(x, "address data too short");
        x->skip = len - x->want;
        if (x->want) return JSC_PROXY_MORE;
    }
    if (x->n < 16 + x->want) return JSC_PROXY_MORE;
    if (x->want == 12) address(x, AF_INET, x->b + 16, (uint32_t)x->b[24] << 8 | x->b[25]);
    if (x->want == 36) address(x, AF_INET6, x->b + 16, (uint32_t)x->b[48] << 8 | x->b[49]);
    x->whole = 1;
    return x->skip ? JSC_PROXY_MORE : JSC_PROXY_DONE;
}

int jsc_proxy_take(jsc_proxy *x, const uint8_t *b, size_t n, size_t *used) {
    int rc = JSC_PROXY_MORE;
    for (*used = 0; *used < n && rc == JSC_PROXY_MORE;) {
        if (x->whole) {
            size_t k = n - *used < x->skip ? n - *used : x->skip;
            x->skip -= (uint32_t)k;
            *used += k;
            if (!x->skip) rc = JSC_PROXY_DONE;
            continue;
        }
        uint8_t c = b[*used];
        int one = x->n < sizeof V1 ? (!x->n || x->b[0] == V1[0]) && c == V1[x->n] : x->b[0] == V1[0];
        int two = x->n < sizeof V1 ? (!x->n || x->b[0] == V2[0]) && c == V2[x->n] : x->b[0] == V2[0];
        if (!one && !two) return JSC_PROXY_NONE;
        x->b[x->n++] = c;
        ++*used;
        if (one) {
            if (c == '\n') rc = line(x);
            else if (x->n == JSC_PROXY_LINE) rc = bad(x, "invalid PROXY protocol header: too long");
        } else if (x->n <= sizeof V2) {
            if (c != V2[x->n - 1]) rc = bad(x, "invalid PROXY protocol header: invalid signature");
        } else if (x->n >= 16) {
            rc = binary(x);
        }
    }
    return rc;
}
