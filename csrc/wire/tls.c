/* One connection's TLS: OpenSSL over a BIO that never waits. A read takes what the socket has in one call and decrypts
 * all of it; a write encrypts up to 256 KiB of output and hands it over in one call. What the socket does not take is
 * kept as ciphertext, so OpenSSL never sees a short write. */
#include "layer.h"
#include "tls_context.h"
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <arpa/inet.h>
#include <sys/socket.h>

/* ---- the BIO: ciphertext of the plane's two work buffers ---- */
static int bio_read(BIO *b, char *out, int n) {
    jsc_plane *p = ((jsc_conn *)BIO_get_data(b))->plane;
    BIO_clear_retry_flags(b);
    size_t k = p->cipher_in_n - p->cipher_in_at;
    if (!k) {
        BIO_set_retry_read(b);
        return -1;
    }
    if (k > (size_t)n) k = (size_t)n;
    memcpy(out, p->cipher_in + p->cipher_in_at, k);
    p->cipher_in_at += k;
    return (int)k;
}

static int grow(jsc_buf *b, size_t n, size_t limit) {
    if (b->len + n > limit) return -1;
    if (b->len + n <= b->cap) return 0;
    size_t cap = b->cap ? b->cap : 4096;
    while (cap < b->len + n) cap *= 2;
    char *q = realloc(b->p, cap);
    if (!q) return -1;
    b->p = q;
    b->cap = cap;
    return 0;
}

static int bio_write(BIO *b, const char *in, int n) {
    jsc_plane *p = ((jsc_conn *)BIO_get_data(b))->plane;
    BIO_clear_retry_flags(b);
    if (n <= 0 || grow(&p->cipher_out, (size_t)n, 2 * JSC_READ_BYTES)) return -1;
    memcpy(p->cipher_out.p + p->cipher_out.len, in, (size_t)n);
    p->cipher_out.len += (size_t)n;
    return n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr) {
    (void)b, (void)num, (void)ptr;
    return cmd == BIO_CTRL_FLUSH;
}

int jsc_tls_bio(struct bio_method_st **out) {
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "connection");
    if (!m) return -ENOMEM;
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_ctrl(m, bio_ctrl);
    *out = m;
    return JSC_OK;
}

/* Sends what OpenSSL has written since, behind what waits already. 0 all is out, 1 blocked, -1 broken. */
static int push(jsc_conn *c) {
    jsc_layer *l = c->layer;
    jsc_plane *p = c->plane;
    int rc = jsc_tls_flush(c);
    const char *b = p->cipher_out.p;
    size_t n = p->cipher_out.len, at = 0;
    p->cipher_out.len = 0;
    while (!rc && at < n) {
        ssize_t k = send(c->fd, b + at, n - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k >= 0) at += (size_t)k;
        else if (errno == EAGAIN || errno == EWOULDBLOCK) rc = 1;
        else if (errno != EINTR) rc = -1;
    }
    if (rc == 1) {
        if (grow(&l->rest, n - at, JSC_LAYER_REST)) return -1;
        if (at < n) memcpy(l->rest.p + l->rest.len, b + at, n - at);
        l->rest.len += n - at;
        c->blocked = 1;
    }
    return rc;
}

int jsc_tls_flush(jsc_conn *c) {
    jsc_layer *l = c->layer;
    while (l->rest_at < l->rest.len) {
        ssize_t k = send(c->fd, l->rest.p + l->rest_at, l->rest.len - l->rest_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) return -1;
            c->blocked = 1;
            return 1;
        }
        l->rest_at += (size_t)k;
    }
    if (l->rest.p) {
        free(l->rest.p);
        memset(&l->rest, 0, sizeof l->rest);
        l->rest_at = 0;
    }
    return 0;
}

/* Takes what the socket has, at most n bytes. > 0, 0 at its end, -1 with errno. */
static ssize_t fill(jsc_conn *c, size_t n) {
    jsc_plane *p = c->plane;
    if (!p->cipher_in && !(p->cipher_in = malloc(JSC_READ_BYTES))) {
        errno = ENOMEM;
        return -1;
    }
    ssize_t k = recv(c->fd, p->cipher_in, n < JSC_READ_BYTES ? n : JSC_READ_BYTES, MSG_DONTWAIT);
    p->cipher_in_at = 0;
    p->cipher_in_n = k > 0 ? (size_t)k : 0;
    return k;
}

/* ---- failures, in the words that operators know ---- */
static const char *alert_text(int alert) {
    switch (alert) {
    case SSL_AD_UNEXPECTED_MESSAGE: return "unexpected message";
    case SSL_AD_BAD_RECORD_MAC: return "bad record MAC";
    case SSL_AD_HANDSHAKE_FAILURE: return "handshake failure";
    case SSL_AD_BAD_CERTIFICATE: return "bad certificate";
    case SSL_AD_UNSUPPORTED_CERTIFICATE: return "unsupported certificate";
    case SSL_AD_CERTIFICATE_REVOKED: return "revoked certificate";
    case SSL_AD_CERTIFICATE_EXPIRED: return "expired certificate";
    case SSL_AD_CERTIFICATE_UNKNOWN: return "unknown certificate";
    case SSL_AD_ILLEGAL_PARAMETER: return "illegal parameter";
    case SSL_AD_UNKNOWN_CA: return "unknown certificate authority";
    case SSL_AD_ACCESS_DENIED: return "access denied";
    case SSL_AD_DECODE_ERROR: return "error decoding message";
    case SSL_AD_DECRYPT_ERROR: return "error decrypting message";
    case SSL_AD_PROTOCOL_VERSION: return "protocol version not supported";
    case SSL_AD_INSUFFICIENT_SECURITY: return "insufficient security level";
    case SSL_AD_INTERNAL_ERROR: return "internal error";
    case SSL_AD_USER_CANCELLED: return "user canceled";
    case SSL_AD_MISSING_EXTENSION: return "missing extension";
    case SSL_AD_UNRECOGNIZED_NAME: return "unrecognized name";
    case SSL_AD_CERTIFICATE_REQUIRED: return "certificate required";
    case SSL_AD_NO_APPLICATION_PROTOCOL: return "no application protocol";
    }
    return "unknown alert";
}

static const char *verify_text(long result) {
    switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID: return "certificate has expired or is not yet valid";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return "certificate is not valid for the name that was dialled";
    case X509_V_ERR_INVALID_PURPOSE: return "certificate specifies an incompatible key usage";
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: return "certificate signed by unknown authority";
    }
    return X509_verify_cert_error_string(result);
}

static void explain(jsc_conn *c, int code, int eof, char *out, size_t cap) {
    unsigned long e = ERR_get_error();
    int reason = ERR_GET_REASON(e);
    if (!e || code == SSL_ERROR_SYSCALL || code == SSL_ERROR_ZERO_RETURN) {
        snprintf(out, cap, "%s", eof ? "EOF" : errno ? strerror(errno) : "connection closed");
    } else if (ERR_GET_LIB(e) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256) {
        snprintf(out, cap, "remote error: tls: %s", alert_text(reason - SSL_AD_REASON_OFFSET));
    } else if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        snprintf(out, cap, "tls: failed to verify certificate: x509: %s",
                 verify_text(SSL_get_verify_result(c->layer->ssl)));
    } else if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        snprintf(out, cap, "tls: client didn't provide a certificate");
    } else if (reason == SSL_R_NO_SHARED_CIPHER) {
        snprintf(out, cap, "tls: no cipher suite supported by both client and server");
    } else if (reason == SSL_R_UNSUPPORTED_PROTOCOL || reason == SSL_R_VERSION_TOO_LOW) {
        snprintf(out, cap, "tls: client offered only unsupported versions");
    } else if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST) {
        snprintf(out, cap, "tls: first record does not look like a TLS handshake");
    } else {
        const char *text = ERR_reason_error_string(e);
        snprintf(out, cap, "tls: %s", text ? text : "handshake failure");
    }
    ERR_clear_error();
}

void jsc_tls_fail(jsc_conn *c, const char *why) {
    jsc_event e = {
        .type = JSC_EV_TLS, .conn_kind = c->kind, .conn = c->id, .data = why, .data_len = (uint32_t)strlen(why)};
    jsc_plane_emit(c->plane, &e);
    jsc_conn_end(c, "TLS Handshake Failure", NULL, 1);
}

/* ---- the handshake ---- */
int jsc_tls_start(jsc_conn *c) {
    jsc_layer *l = c->layer;
    unsigned char address[16];
    SSL *s = SSL_new(l->tls->ctx[0]);
    BIO *b = s ? BIO_new(l->tls->bio) : NULL;
    if (!b) goto fail;
    BIO_set_data(b, c);
    BIO_set_init(b, 1);
    SSL_set_bio(s, b, b);
    if (!l->dials) {
        SSL_set_accept_state(s);
    } else {
        int named = l->host && *l->host;
        int is_ip = named && (inet_pton(AF_INET, l->host, address) == 1 || inet_pton(AF_INET6, l->host, address) == 1);
        if (is_ip && !X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(s), l->host)) goto fail;
        if (named && !is_ip && (!SSL_set1_host(s, l->host) || !SSL_set_tlsext_host_name(s, l->host))) goto fail;
        SSL_set_connect_state(s);
    }
    l->ssl = s;
    return JSC_OK;
fail:
    ERR_clear_error();
    SSL_free(s);
    return -ENOMEM;
}

static int pinned(jsc_conn *c) {
    const jsc_tls *t = c->layer->tls;
    unsigned char *spki = NULL, digest[32];
    if (!t->pins_n) return 1;
    X509 *x = SSL_get1_peer_certificate(c->layer->ssl);
    int n = x ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki) : 0, found = 0;
    if (n > 0 && EVP_Digest(spki, (size_t)n, digest, NULL, EVP_sha256(), NULL))
        for (uint32_t i = 0; i < t->pins_n; i++) found |= !memcmp(t->pins + 32 * i, digest, 32);
    OPENSSL_free(spki);
    X509_free(x);
    return found;
}

int jsc_tls_shake(jsc_conn *c) {
    jsc_layer *l = c->layer;
    jsc_plane *p = c->plane;
    char why[160];
    int64_t begin = jsc_clock(CLOCK_MONOTONIC);
    if (p->shake_turn != p->mono) {
        p->shake_turn = p->mono;
        p->shake_spent = 0;
    }
    if (p->shake_spent > JSC_SHAKE_TURN_NS) return 0; /* the socket stays readable: its turn comes */
    ssize_t got = fill(c, JSC_LAYER_ROOM / 2);
    if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        jsc_tls_fail(c, strerror(errno));
        return -1;
    }
    ERR_clear_error();
    int rc = SSL_do_handshake(l->ssl);
    int code = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(l->ssl, rc);
    p->shake_spent += jsc_clock(CLOCK_MONOTONIC) - begin;
    if (push(c) < 0 && code != SSL_ERROR_SSL) {
        l->broken = 1;
        jsc_tls_fail(c, "EOF");
        return -1;
    }
    if (rc != 1) {
        if (code == SSL_ERROR_WANT_READ && got != 0) return 0;
        explain(c, code, got == 0, why, sizeof why);
        l->broken = 1;
        jsc_tls_fail(c, why);
        return -1;
    }
    if (!pinned(c)) {
        jsc_tls_fail(c, "certificate not pinned");
        return -1;
    }
    int n = snprintf(why, sizeof why, "%s %s", SSL_get_version(l->ssl),
                     SSL_CIPHER_standard_name(SSL_get_current_cipher(l->ssl)));
    jsc_event e = {.type = JSC_EV_TLS,
                   .conn_kind = c->kind,
                   .conn = c->id,
                   .a = 1,
                   .data = why,
                   .data_len = (uint32_t)(n < (int)sizeof why ? n : (int)sizeof why - 1)};
    jsc_plane_emit(p, &e);
    return 1;
}

/* ---- data ---- */
static ssize_t decrypt(jsc_conn *c, char *b, size_t cap, ssize_t got) {
    jsc_layer *l = c->layer;
    size_t n = 0;
    l->again = 0;
    ERR_clear_error();
    while (n < cap) {
        size_t k = 0;
        if (SSL_read_ex(l->ssl, b + n, cap - n, &k)) {
            n += k;
            continue;
        }
        int code = SSL_get_error(l->ssl, 0);
        if (code == SSL_ERROR_WANT_READ) break;
        if (n) { /* first what is whole; the next call says it again */
            l->again = 1;
            break;
        }
        ERR_clear_error();
        l->broken = code != SSL_ERROR_ZERO_RETURN;
        errno = EPROTO;
        return l->broken ? -1 : 0;
    }
    if (c->plane->cipher_out.len && push(c) < 0) {
        errno = EPIPE;
        return -1;
    }
    if (n) return (ssize_t)n;
    if (!got) return 0;
    errno = EAGAIN;
    return -1;
}

ssize_t jsc_tls_recv(jsc_conn *c, char *b, size_t cap, int fresh) {
    /* Plaintext is never longer than its ciphertext: with a record's room to spare all that is taken now fits. */
    ssize_t got = 1;
    JSC_ASSERT(cap >= JSC_LAYER_ROOM);
    if (!fresh) c->plane->cipher_in_at = c->plane->cipher_in_n = 0;
    if (!fresh && !c->layer->again) {
        got = fill(c, cap - JSC_LAYER_ROOM / 2);
        if (got < 0) return got;
    }
    return decrypt(c, b, cap, got);
}

ssize_t jsc_tls_send(jsc_conn *c, const char *b, size_t n) {
    jsc_layer *l = c->layer;
    size_t at = 0;
    if (n > JSC_READ_BYTES) n = JSC_READ_BYTES;
    ERR_clear_error();
    while (at < n) {
        size_t k = 0;
        if (!SSL_write_ex(l->ssl, b + at, n - at, &k)) {
            ERR_clear_error();
            l->broken = 1;
            return -1;
        }
        at += k;
    }
    return push(c) < 0 ? -1 : (ssize_t)at;
}

void jsc_tls_close(jsc_conn *c) {
    jsc_layer *l = c->layer;
    if (!l->ssl) return;
    if (!l->broken && !c->blocked && l->stage > JSC_STAGE_SHAKE) {
        SSL_shutdown(l->ssl);
        push(c);
    }
    ERR_clear_error();
    SSL_free(l->ssl);
    l->ssl = NULL;
}

/* ---- what the host asks ---- */
int jsc_conn_tls_stat(jsc_plane *p, uint64_t id, jsc_conn_tls_info *out) {
    const jsc_conn *c = jsc_conn_find(p, id);
    if (!c || !c->layer || !c->layer->ssl || c->layer->stage <= JSC_STAGE_SHAKE) return JSC_ENOTFOUND;
    *out = (jsc_conn_tls_info){.version = SSL_get_version(c->layer->ssl),
                               .cipher = SSL_CIPHER_standard_name(SSL_get_current_cipher(c->layer->ssl)),
                               .first = c->layer->first};
    return JSC_OK;
}

int jsc_conn_tls_certificate(jsc_plane *p, uint64_t id, int i, unsigned char **der, size_t *n) {
    const jsc_conn *c = jsc_conn_find(p, id);
    if (!c || !c->layer || !c->layer->ssl || i < 0) return JSC_ENOTFOUND;
    X509 *x = NULL, *leaf = SSL_get1_peer_certificate(c->layer->ssl);
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(c->layer->ssl);
    if (!i) x = leaf;
    else if (leaf && chain) x = sk_X509_value(chain, c->layer->dials ? i : i - 1);
    unsigned char *b = NULL;
    int k = x ? i2d_X509(x, NULL) : 0, rc = JSC_ENOTFOUND;
    if (k > 0) {
        unsigned char *q = b = malloc((size_t)k);
        rc = b && i2d_X509(x, &q) == k ? JSC_OK : -ENOMEM;
    }
    X509_free(leaf);
    if (rc) {
        free(b);
        return rc;
    }
    *der = b;
    *n = (size_t)k;
    return JSC_OK;
}
