/* Websocket framing of one connection (RFC 6455), and compression without context (RFC 7692). */
#ifndef JSC_WIRE_WS_H
#define JSC_WIRE_WS_H
#include "layer.h"

enum {
    JSC_WS_HEAD_MAX = 16 << 10, /* of the HTTP request */
    JSC_WS_SLACK = 16,          /* room before the output for a frame's head */
    JSC_WS_PACK = 64 << 10,     /* at most this much goes into one compressed frame */
    JSC_WS_FRAGMENT = 4096,     /* for browsers */
};
enum { JSC_WS_HTTP, JSC_WS_ASKED, JSC_WS_OPEN, JSC_WS_DONE };

typedef struct jsc_ws {
    uint8_t state, unmasked, deflate, browser;
    /* in */
    uint8_t head[14], head_n, head_need, fin, opcode, packed, in_message, ended, tail, full, masked;
    uint8_t control[125], control_n;
    uint8_t mask[4];
    uint32_t mask_at;
    uint64_t left, message;
    struct z_stream_s *z;
    jsc_buf raw; /* the HTTP request, or input that waits for room */
    size_t raw_at;
    /* out */
    size_t framed; /* where the frame ends whose bytes are on their way; in out or in pack */
    uint8_t reply[127], reply_n, reply_at, fragments;
    jsc_buf pack; /* a compressed frame on its way */
    size_t pack_at;
} jsc_ws;

int jsc_ws_new(jsc_conn *);
void jsc_ws_free(jsc_conn *);
ssize_t jsc_ws_recv(jsc_conn *, char *, size_t);
void jsc_ws_send(jsc_conn *);
void jsc_ws_moved(jsc_conn *, size_t by); /* the output moved towards the front of its buffer */
void jsc_ws_goodbye(jsc_conn *);          /* a close frame for the reason the connection ends for */
#endif
