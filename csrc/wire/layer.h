/* What lies between a connection's socket and its parser: a PROXY header, TLS, websocket frames, S2 on a compressed route.
 * A plain connection has no layer: one test of a pointer per read and per write. */
#ifndef JSC_WIRE_LAYER_H
#define JSC_WIRE_LAYER_H
#include "plane.h"
#include "proxy.h"

enum { /* in this order; each is left out where it is not asked for */
       JSC_STAGE_PROXY, /* a PROXY header may come */
       JSC_STAGE_HELLO, /* the first byte tells whether this is TLS; nothing of TLS is allocated yet */
       JSC_STAGE_SHAKE, /* in the TLS handshake */
       JSC_STAGE_HTTP, /* a websocket's request, and the host's answer */
       JSC_STAGE_OPEN,
};
enum {
    JSC_LAYER_ROOM = 40 << 10, /* more than two TLS records: what a read must have room for */
    JSC_PROXY_SECONDS = 5,
    JSC_LAYER_REST = 1 << 20, /* ciphertext that the socket did not take: a bound for answers nobody reads */
    JSC_SHAKE_TURN_NS = 2000000, /* handshakes of one turn: those that come later wait for the next */
};

struct jsc_layer {
    uint8_t stage;
    uint8_t hold; /* output waits for the handshake */
    uint8_t dials; /* we are the client of the handshake */
    uint8_t optional; /* no TLS is fine too */
    uint8_t broken; /* TLS failed: nothing more is said */
    uint8_t first; /* the handshake came before INFO */
    uint8_t fresh; /* the handshake's last read may have brought data along */
    uint8_t again; /* TLS has something to say that the socket does not announce */
    jsc_tls *tls;
    struct ssl_st *ssl;
    char *host;
    int64_t timeout_ns, fallback_ns, http_ns, ping;
    jsc_proxy *proxy;
    struct jsc_ws *ws;
    struct jsc_packed *packed; /* a compressed route */
    jsc_buf rest; /* ciphertext that the socket did not take */
    size_t rest_at;
};

/* layer.c. recv: as recv(2), after whatever lies between; the call may end the connection (EAGAIN then). */
ssize_t jsc_layer_recv(jsc_conn *, char *, size_t);
void jsc_layer_send(jsc_conn *);
void jsc_layer_late(jsc_conn *); /* its deadline is over */
void jsc_layer_close(jsc_conn *); /* last words, then frees it */
/* The socket, or TLS over it, for what lies above. push: bytes taken, -1 when none can be (blocked, or it ends). */
ssize_t jsc_layer_pull(jsc_conn *, char *, size_t);
ssize_t jsc_layer_push(jsc_conn *, const char *, size_t);
void jsc_layer_opened(jsc_conn *);
void jsc_layer_free(jsc_plane *);
void jsc_layer_broken(jsc_conn *, const char *why, const char *reason); /* ends it; the host hears why */
/* tls.c */
int jsc_tls_start(jsc_conn *); /* makes the session; JSC_OK or an error */
int jsc_tls_shake(jsc_conn *); /* 1 done, 0 more is to come, -1 failed and the connection ended */
/* As recv(2); fresh: right after the handshake, whose last read may have brought data. Room: JSC_LAYER_ROOM at least. */
ssize_t jsc_tls_recv(jsc_conn *, char *, size_t, int fresh);
ssize_t jsc_tls_send(jsc_conn *, const char *, size_t); /* bytes taken; may leave the connection blocked; -1: broken */
int jsc_tls_flush(jsc_conn *); /* what the socket did not take before; 0 when all is out, 1 blocked, -1 broken */
void jsc_tls_close(jsc_conn *); /* close_notify where it still makes sense; frees the session */
void jsc_tls_fail(jsc_conn *, const char *why);
/* packed.c */
ssize_t jsc_packed_recv(jsc_conn *, char *, size_t);
void jsc_packed_send(jsc_conn *);
void jsc_packed_rtt(jsc_conn *); /* of one that is compressed: its round-trip time was measured */
void jsc_packed_free(jsc_conn *);
#endif
