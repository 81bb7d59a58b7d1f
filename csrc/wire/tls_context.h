/* What connections with the same TLS settings share. */
#ifndef JSC_WIRE_TLS_CONTEXT_H
#define JSC_WIRE_TLS_CONTEXT_H
#include "jsc_plane.h"
#include <openssl/ssl.h>

struct jsc_tls {
    uint32_t refs, n, pins_n;
    struct bio_method_st *bio;
    SSL_CTX **ctx; /* one per certificate; the first serves names that no certificate has */
    uint8_t *pins; /* 32 bytes each */
};
void jsc_tls_hold(jsc_tls *);
int jsc_tls_bio(struct bio_method_st **out);
#endif
