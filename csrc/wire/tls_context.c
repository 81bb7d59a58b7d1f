/* TLS settings: certificates, authorities, versions, ciphers. New settings serve new connections, old ones live as long
 * as a connection that began with them. */
#include "tls_context.h"
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

/* No resumption: each handshake proves the certificate anew, and nothing has to be remembered. */
#define OPTIONS                                                                                                        \
    (SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET | SSL_OP_IGNORE_UNEXPECTED_EOF |               \
     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA)
#define TLS12                                                                                                          \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"                         \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"                           \
    "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:ECDHE-RSA-AES256-SHA"
#define TLS13 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

static int no_password(char *buf, int size, int writing, void *ctx) {
    (void)buf, (void)size, (void)writing, (void)ctx;
    return 0; /* a server has nobody to ask */
}

static void say(char *why, size_t cap, const char *what, const char *name) {
    unsigned long e = ERR_peek_last_error();
    const char *text = e ? ERR_reason_error_string(e) : NULL;
    if (ERR_GET_LIB(e) == ERR_LIB_SYS) text = strerror(ERR_GET_REASON(e));
    snprintf(why, cap, "%s%s%s: %s", what, name ? " " : "", name ? name : "", text ? text : "not accepted");
}

/* The certificate whose name the client asks for; the first one when there is none. */
static int choose(SSL *s, int *alert, void *arg) {
    jsc_tls *t = arg;
    const char *name = SSL_get_servername(s, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    for (uint32_t i = 0; name && i < t->n; i++) {
        X509 *x = SSL_CTX_get0_certificate(t->ctx[i]);
        if (x && X509_check_host(x, name, 0, 0, NULL) == 1) {
            SSL_set_SSL_CTX(s, t->ctx[i]);
            break;
        }
    }
    return SSL_TLSEXT_ERR_OK;
}

static int authorities(SSL_CTX *x, const jsc_tls_options *o, char *why, size_t cap) {
    if (!o->ca_file) {
        SSL_CTX_set_default_verify_paths(x);
        return 0;
    }
    if (!SSL_CTX_load_verify_file(x, o->ca_file)) {
        say(why, cap, "ca_file", o->ca_file);
        return -1;
    }
    if (o->server) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(o->ca_file);
        if (names) SSL_CTX_set_client_CA_list(x, names);
    }
    return 0;
}

static int settings(SSL_CTX *x, const jsc_tls_options *o, char *why, size_t cap) {
    SSL_CTX_set_options(x, OPTIONS);
    SSL_CTX_set_mode(x, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(x, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(x, 0);
    SSL_CTX_set_default_passwd_cb(x, no_password);
    SSL_CTX_set_min_proto_version(x, o->min_version == 13 ? TLS1_3_VERSION : TLS1_2_VERSION);
    if (!SSL_CTX_set_cipher_list(x, o->ciphers12 ? o->ciphers12 : TLS12) ||
        !SSL_CTX_set_ciphersuites(x, o->ciphers13 ? o->ciphers13 : TLS13)) {
        say(why, cap, "cipher_suites", NULL);
        return -1;
    }
    if (o->groups && !SSL_CTX_set1_groups_list(x, o->groups)) {
        say(why, cap, "curve_preferences", NULL);
        return -1;
    }
    int server = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(x, !o->verify ? SSL_VERIFY_NONE : o->server ? server : SSL_VERIFY_PEER, NULL);
    return authorities(x, o, why, cap);
}

static int certificate(SSL_CTX *x, const char *cert, const char *key, char *why, size_t cap) {
    if (SSL_CTX_use_certificate_chain_file(x, cert) <= 0) say(why, cap, "cert_file", cert);
    else if (SSL_CTX_use_PrivateKey_file(x, key, SSL_FILETYPE_PEM) <= 0) say(why, cap, "key_file", key);
    else if (!SSL_CTX_check_private_key(x)) say(why, cap, "key_file", key);
    else return 0;
    return -1;
}

int jsc_tls_new(const jsc_tls_options *o, jsc_tls **out, char *why, size_t cap) {
    uint32_t n = o->certs ? o->certs : 1;
    jsc_tls *t = calloc(1, sizeof *t);
    int rc = -ENOMEM;
    snprintf(why, cap, "out of memory");
    ERR_clear_error();
    if (!t) return rc;
    t->refs = 1;
    if (!(t->ctx = calloc(n, sizeof *t->ctx)) || jsc_tls_bio(&t->bio)) goto done;
    if (o->pins_n) {
        if (!(t->pins = malloc(32 * (size_t)o->pins_n))) goto done;
        memcpy(t->pins, o->pins, 32 * (size_t)o->pins_n);
        t->pins_n = o->pins_n;
    }
    for (uint32_t i = 0; i < n; i++) {
        SSL_CTX *x = t->ctx[i] = SSL_CTX_new(o->server ? TLS_server_method() : TLS_client_method());
        if (!x) goto done;
        t->n = i + 1;
        rc = JSC_EINVAL;
        if (settings(x, o, why, cap)) goto done;
        if (o->certs && certificate(x, o->cert_files[i], o->key_files[i], why, cap)) goto done;
        rc = -ENOMEM;
    }
    if (t->n > 1) {
        SSL_CTX_set_tlsext_servername_callback(t->ctx[0], choose);
        SSL_CTX_set_tlsext_servername_arg(t->ctx[0], t);
    }
    *out = t;
    t = NULL;
    rc = JSC_OK;
done:
    ERR_clear_error();
    jsc_tls_release(t);
    return rc;
}

void jsc_tls_hold(jsc_tls *t) { t->refs++; }

void jsc_tls_release(jsc_tls *t) {
    if (!t || --t->refs) return;
    for (uint32_t i = 0; t->ctx && i < t->n; i++) SSL_CTX_free(t->ctx[i]);
    BIO_meth_free(t->bio);
    free(t->ctx);
    free(t->pins);
    free(t);
}
