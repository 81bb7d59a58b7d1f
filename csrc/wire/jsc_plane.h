/* The data plane's contract: connections, the protocol parser, the subject index, routing, output queues and the epoll
 * loop of one thread. Nothing here knows Python: rare things come out as events. One plane, one thread; no locks. */
#ifndef JSC_PLANE_H
#define JSC_PLANE_H
#include "../base/jsc_base.h"
#include "../log/jsc.h"

typedef struct jsc_plane jsc_plane;
typedef struct jsc_account jsc_account;
typedef struct jsc_sub jsc_sub;
typedef struct jsc_permissions jsc_permissions;

enum { JSC_CONN_CLIENT = 0, JSC_CONN_ROUTE = 1, JSC_CONN_LINK = 2, JSC_CONN_INTERNAL = 3 };

/* What a receiver in C is told of a message that is traced. A stream that judges it counts itself in `streams` and owes
 * the host an event of its own with this id; with `only` it stores nothing. */
typedef struct jsc_msg_trace {
    uint64_t id;
    uint32_t streams;
    uint8_t only;
} jsc_msg_trace;

/* A message on its way. Pointers are borrowed for the call. origin is a connection id, 0 for the server itself. */
typedef struct jsc_msg {
    jsc_account *account;
    const char *subject, *reply, *headers, *data;
    uint32_t subject_len, reply_len, headers_len, data_len;
    uint64_t origin;
    jsc_msg_trace *trace; /* NULL: not traced */
    uint8_t origin_kind;
} jsc_msg;

/* ---- life ---- */
typedef struct jsc_plane_options {
    uint32_t max_payload;      /* 1048576 */
    uint32_t max_control_line; /* 4096; x16 on routes */
    uint64_t max_pending;      /* 67108864: above it a connection is closed as a slow consumer */
    int64_t ping_interval_ns;  /* 2 min */
    int32_t ping_max;          /* 2 */
    uint32_t max_subs;         /* of one client; 0: no bound */
    int64_t write_deadline_ns; /* a client that does not take in it what waited is closed; 0: never */
    int32_t route_ping_max;    /* as ping_max */
    int64_t route_ping_interval_ns; /* min(ping_interval_ns, 30 s) */
    uint8_t auth_required;     /* then a first verb other than CONNECT is refused */
    uint8_t no_stall;          /* a client that is behind gets no more, instead of its publishers being paused */
    uint8_t trace;             /* lines and payloads of both directions become JSC_EV_TRACE */
} jsc_plane_options;
int jsc_plane_new(const jsc_plane_options *, jsc_plane **out);
/* Other bounds from now on, for connections that are there, too; max_pending, max_subs and auth_required stay. A ping that
 * is due comes when it was. */
void jsc_plane_tune(jsc_plane *, const jsc_plane_options *);
void jsc_plane_free(jsc_plane *);
jsc_account *jsc_plane_account(jsc_plane *, const char *name, size_t n); /* found or made; lives as long as the plane */
const char *jsc_account_name(const jsc_account *, size_t *n);
/* How many clients may be connected in the account, UINT32_MAX: any number. Those that are stay. */
void jsc_account_limit(jsc_account *, uint32_t max_clients);
uint32_t jsc_account_clients(const jsc_account *);
void jsc_account_system(jsc_account *, int on); /* its clients may use what only the system account may */

/* ---- subject mappings ---- */
typedef struct jsc_mapping { /* so much of what an account's clients publish on source goes to destination */
    const char *source, *destination; /* destination empty: nowhere */
    uint32_t source_len, destination_len, percent;
} jsc_mapping;
/* Other mappings from now on, instead of all before; n 0: none. Everything is copied. The first source that matches
 * counts; the destinations of one source follow each other, and what their percents leave of 100 stays where it was.
 * JSC_EINVAL: an invalid source or destination, or more than 100 percent: nothing changed. Source: security.md 4.5. */
int jsc_account_map(jsc_account *, const jsc_mapping *, int n);

/* Where events go of so many percent of the messages whose `traceparent` says that they are sampled. n 0: nowhere.
 * JSC_EINVAL: no literal subject, or not 1 to 100 percent. Source: client-protocol.md 16. */
int jsc_account_trace(jsc_account *, const char *dest, size_t n, uint32_t percent);

/* ---- permissions ---- */
enum { JSC_PUBLISH_ALLOW, JSC_PUBLISH_DENY, JSC_SUBSCRIBE_ALLOW, JSC_SUBSCRIBE_DENY };
typedef struct
    jsc_permission { /* a subject (pattern) in one of the lists; of subscriptions perhaps for a queue (pattern) */
    uint8_t list;
    const char *subject, *queue;
    uint32_t subject_len, queue_len;
} jsc_permission;
typedef struct jsc_permissions_options {
    uint8_t no_publish; /* nothing may be published although no allow list says so: only answers */
    int32_t
        max_responses; /* answers to each message received with a reply; 0: none but what lists allow, < 0: any number */
    int64_t expires_ns; /* from delivery; < 0: never */
} jsc_permissions_options;
/* Everything is copied. An empty allow list allows all, deny wins. The caller owns one reference; connections of one
 * plane keep their own (no locks: one thread). JSC_EINVAL: an invalid subject, or a queue where none may be. */
int jsc_permissions_new(const jsc_permission *, int n, const jsc_permissions_options *, jsc_permissions **out);
void jsc_permissions_release(jsc_permissions *);

/* ---- the loop: asyncio's selector calls this, without the GIL ---- */
/* Adds, changes (mask as epoll's EPOLLIN|EPOLLOUT) or with mask 0 removes a descriptor that the host language owns. */
int jsc_plane_watch(jsc_plane *, int fd, uint32_t mask);
/* A descriptor served in C. */
int jsc_plane_watch_call(jsc_plane *, int fd, void (*fn)(void *ctx), void *ctx);
typedef struct jsc_ready {
    int fd;
    uint32_t mask;
} jsc_ready;
/* Serves connections until a host descriptor is ready, an event waits, timeout_ns is over (< 0: for ever), or a bounded
 * number of turns (64) has passed. Returns the number of ready host descriptors, >= 0, or -errno. EINTR returns 0. */
int jsc_plane_poll(jsc_plane *, int64_t timeout_ns, jsc_ready *out, int max);
/* Called at the end of each turn before output is flushed, with monotonic and unix time in ns; returns the monotonic
 * time at which it wants to be called again (INT64_MAX: only when something happens). */
typedef int64_t (*jsc_turn_fn)(void *ctx, int64_t mono_ns, int64_t unix_ns);
int jsc_plane_hook(jsc_plane *, jsc_turn_fn, void *ctx);
/* What is being delivered costs more than it seems, now or once it is applied, in deliveries of 50 to 100 ns: its
 * connection's part of the turn is over the sooner. */
void jsc_plane_spend(jsc_plane *, uint64_t deliveries);
int64_t jsc_plane_mono(const jsc_plane *); /* this turn's clocks, ns */
int64_t jsc_plane_unix(const jsc_plane *);
/* From now on its clocks stand where they are told: simulated time. */
void jsc_plane_tell_time(jsc_plane *, int64_t mono, int64_t unix_ns);
void jsc_plane_flush(jsc_plane *); /* what the loop does at a turn's end, for a caller outside the loop */

/* ---- connections ---- */
/* Takes one that waits at a listening socket: its descriptor, non-blocking, and where it comes from, an address of IPv4 as
 * such; or -errno, -EAGAIN when none waits. */
#define JSC_ADDRESS_MAX 48
int jsc_accept(int listener, char address[JSC_ADDRESS_MAX], uint16_t *port);
/* Takes over a connected, non-blocking socket. `greeting` (the INFO line with CRLF) is queued first. id > 0 out. */
int jsc_conn_adopt(jsc_plane *, int fd, int kind, const char *greeting, size_t n, uint64_t *id);
#define JSC_LIMIT_ZERO UINT32_MAX
typedef struct jsc_conn_options { /* what CONNECT decided */
    jsc_account *account;
    uint8_t verbose, pedantic, echo, headers, no_responders, protocol;
    const char *after_pong; /* a second INFO line, sent after the first PONG that follows; copied; may be NULL */
    size_t after_pong_len;
    jsc_permissions *permissions; /* NULL: may do everything */
    uint32_t max_subs, max_payload; /* beside the plane's; 0: only that one, JSC_LIMIT_ZERO: 0 */
} jsc_conn_options;
/* The answer to JSC_EV_CONNECT: parsing of that connection stopped at the CONNECT and goes on now (verbose: +OK first).
 * Without CONNECT a client runs in the plane's default account (jsc_plane_account "$G") with verbose, pedantic, echo on,
 * unless auth_required. A second CONNECT drops all subscriptions. JSC_EFULL: the account has all the clients it may have,
 * and this one is closed. */
int jsc_conn_accept(jsc_plane *, uint64_t id, const jsc_conn_options *);
/* What a client is that sends no CONNECT: account, permissions and limits of *o. NULL: CONNECT is required. */
int jsc_plane_default(jsc_plane *, const jsc_conn_options *o);
/* The same for one client of a listener that has rules of its own, before anything came from it. */
int jsc_conn_default(jsc_plane *, uint64_t id, const jsc_conn_options *o);
int jsc_conn_ping_every(jsc_plane *, uint64_t id, int64_t interval_ns); /* instead of the plane's ping_interval_ns */
/* Other permissions for a client: its subscriptions that they do not allow are dropped and it is told of each. */
int jsc_conn_permit(jsc_plane *, uint64_t id, jsc_permissions *);
/* Other bounds of its own, as in jsc_conn_options. Subscriptions beyond stay: whoever counts them may close it. */
int jsc_conn_limit(jsc_plane *, uint64_t id, uint32_t max_subs, uint32_t max_payload);
/* The answer to JSC_EV_INFO of a client or of a route that is not active yet: they wait for it, or for one that makes
 * the route compressed or active, or for jsc_conn_close. */
int jsc_conn_go_on(jsc_plane *, uint64_t id);
/* Makes a route active: all local interest is sent (RS+) and later changes follow. Until then only CONNECT, INFO, PING,
 * PONG, -ERR and JSLINK are taken from it: with the first interest or message reading stops, and goes on now. */
typedef struct jsc_route_options {
    jsc_account *only; /* a connection for this account alone: lines on it name no account */
    jsc_account **apart; /* accounts with such connections: not on this one; copied */
    uint32_t apart_n;
    uint32_t pool_size, pool_index; /* below 2: one connection carries all the others */
    uint8_t traces; /* the peer knows of message tracing */
} jsc_route_options;
int jsc_conn_route_ready(jsc_plane *, uint64_t id, const jsc_route_options *); /* NULL: the only one, for everything */
/* Of routes made ready from now on: which subjects they are told interest in, and which they may have messages of; the
 * subscribe lists count, NULL: all. Subjects of the servers' own are not asked. */
void jsc_plane_route_permissions(jsc_plane *, jsc_permissions *imports, jsc_permissions *exports);
int jsc_conn_route_tell(jsc_plane *, uint64_t id); /* all interest once more: the peer may take more of it now */
/* The account is no longer apart: the pool's connection that it hashes to is told its interest. */
int jsc_conn_route_share(jsc_plane *, uint64_t id, jsc_account *);
/* From here on the connection speaks frames (see below); bytes already received after the JSLINK line are frames. */
int jsc_conn_become_link(jsc_plane *, uint64_t id, uint8_t version); /* of its frames, from now on */
int jsc_conn_write(jsc_plane *, uint64_t id, const void *bytes, size_t n); /* queued; flushed at the end of the turn */
/* Queues -ERR 'text' if err is given, flushes what can be sent at once and closes. JSC_EV_CLOSED follows. */
int jsc_conn_close(jsc_plane *, uint64_t id, const char *reason, const char *err);
typedef struct jsc_conn_info {
    uint64_t id, in_msgs, out_msgs, in_bytes, out_bytes, pending, subs;
    int64_t rtt_ns, last_activity_ns, start_ns; /* unix ns; rtt 0 unknown */
    uint64_t stalls; /* how often it was not read on because a receiver of its messages was behind */
    const jsc_account *account;
    int fd, kind;
    int8_t level; /* of compression, -1: none */
    uint8_t greeted; /* the INFO that follows the first PONG was sent: another one may follow at any time */
} jsc_conn_info;
int jsc_conn_stat(jsc_plane *, uint64_t id, jsc_conn_info *out);
int jsc_conn_list(jsc_plane *, int kind, uint64_t *ids, int max); /* kind -1: all */
typedef struct jsc_plane_stats {
    uint64_t in_msgs, out_msgs, in_bytes, out_bytes, slow_consumers, subscriptions, clients, routes;
    uint64_t route_in_msgs, route_out_msgs, route_in_bytes, route_out_bytes; /* their part of the first four */
    uint64_t remote_subscriptions; /* told by routes; not in subscriptions */
    uint64_t slow_clients, slow_routes, stale_clients, stale_routes, stalls;
} jsc_plane_stats;
void jsc_plane_stat(const jsc_plane *, jsc_plane_stats *out);

/* ---- what lies between a socket and the protocol ---- */
typedef struct jsc_tls jsc_tls; /* TLS settings, counted: connections keep those that they began with */
typedef struct jsc_tls_options {
    uint8_t server; /* for accepted connections; 0: for dialled ones */
    uint8_t verify; /* the other side must show a certificate that verifies */
    uint8_t min_version; /* 13: TLS 1.3 only */
    uint32_t certs, pins_n;
    const char *const *cert_files, *const *key_files; /* PEM; more than one: chosen by the name the client asks for */
    const char *ca_file; /* PEM; NULL: the system's authorities */
    const char *ciphers12, *ciphers13, *groups; /* OpenSSL's lists; NULL: the defaults */
    const uint8_t *pins; /* 32 bytes each: SHA-256 of acceptable public keys (SubjectPublicKeyInfo) */
} jsc_tls_options;
/* JSC_OK, JSC_EINVAL with the reason in why, -ENOMEM. */
int jsc_tls_new(const jsc_tls_options *, jsc_tls **out, char *why, size_t cap);
void jsc_tls_release(jsc_tls *);
typedef struct jsc_layer_options {
    jsc_tls *tls; /* NULL: none */
    const char *host; /* dialled: the name the certificate must have, NULL any */
    int64_t timeout_ns; /* of the handshake */
    int64_t fallback_ns; /* handshake first: > 0: only so long, then as without `first`; 0: however long it takes */
    uint8_t first; /* what was written so far (INFO) goes out after the handshake, not before */
    uint8_t dials; /* we are the handshake's client */
    uint8_t optional; /* a client may do without TLS */
    uint8_t proxy; /* a PROXY header may come before anything else: JSC_EV_PROXY */
    uint8_t websocket; /* an HTTP request comes first: JSC_EV_HTTP. Nothing may have been written yet */
    int64_t http_ns; /* how long that may take; 0: as long as it likes */
} jsc_layer_options;
/* Puts these under a connection that has not received anything. What was written before goes out in the clear unless
 * `first`. JSC_EV_TLS follows when the handshake is over, either way. JSC_EFULL: what was written does not go out. */
int jsc_conn_layer(jsc_plane *, uint64_t id, const jsc_layer_options *);
typedef struct jsc_ws_options {
    const char *response; /* to the HTTP request; sent before the first frame */
    size_t response_len;
    uint8_t unmasked; /* its frames may come without a mask */
    uint8_t deflate; /* permessage-deflate without context takeover was agreed on */
    uint8_t browser; /* gets small fragments */
} jsc_ws_options;
/* The answer to JSC_EV_HTTP that accepts; one that refuses is jsc_conn_write and jsc_conn_close. */
int jsc_conn_ws_open(jsc_plane *, uint64_t id, const jsc_ws_options *);
/* From here on all of a route's bytes are S2, in both directions: those behind the INFO that was told last, and those
 * written from now on. Either end chooses its own level by itself. */
enum { JSC_COMPRESS_STORE, JSC_COMPRESS_FAST, JSC_COMPRESS_BETTER, JSC_COMPRESS_BEST };
typedef struct jsc_compress_options {
    uint8_t level; /* at first; for good when there are no thresholds */
    uint8_t thresholds_n;
    /* The level is the first whose threshold the round-trip time does not exceed. 0: that level is not used; beyond all
     * of them it is the best where three or more are given, else the last. */
    int64_t thresholds_ns[4];
} jsc_compress_options;
int jsc_conn_compress(jsc_plane *, uint64_t id, const jsc_compress_options *);
typedef struct jsc_conn_tls_info {
    const char *version, *cipher; /* "TLSv1.3", "TLS_AES_128_GCM_SHA256" */
    uint8_t first;
} jsc_conn_tls_info;
int jsc_conn_tls_stat(jsc_plane *, uint64_t id, jsc_conn_tls_info *out); /* JSC_ENOTFOUND: no TLS, or not yet */
/* The i-th certificate that the other side sent, DER, from malloc. JSC_ENOTFOUND after the last. */
int jsc_conn_tls_certificate(jsc_plane *, uint64_t id, int i, unsigned char **der, size_t *n);
/* ---- what monitoring shows; nothing of it costs more than a counter while nobody asks ---- */
typedef struct jsc_tally {
    uint64_t in_msgs, out_msgs, in_bytes, out_bytes;
} jsc_tally;
typedef struct jsc_account_info {
    const char *name; /* lives as long as the plane */
    uint32_t name_len;
    uint64_t conns, subs, own_subs; /* clients now; all subscriptions; those of the server itself */
    jsc_tally clients, routes; /* messages from and to clients, over routes: since the start */
    uint64_t slow_consumers;
    uint64_t inserts, removes, matches, cache_hits, cached, fanout_max, fanout_sum; /* fanout: of what is cached now */
} jsc_account_info;
/* Calls each for every account, until it returns something else than 0. */
int jsc_plane_accounts(jsc_plane *, int (*each)(void *ctx, const jsc_account_info *), void *ctx);
typedef struct jsc_sub_info { /* bytes are borrowed for the call */
    const jsc_account *account;
    const char *subject, *queue, *sid;
    uint32_t subject_len, queue_len, sid_len;
    uint64_t conn, delivered, max; /* conn 0: the server itself */
} jsc_sub_info;
typedef struct jsc_sub_query {
    uint64_t conn; /* 0: all */
    const jsc_account *account; /* NULL: all */
    const char *subject; /* not NULL: only those that get messages of this literal subject */
    size_t subject_len;
    uint64_t skip, max; /* a page of the answer */
} jsc_sub_query;
/* Calls each for the page until it returns something else than 0; the number of all that match, page or not. */
int64_t jsc_plane_subs(jsc_plane *, const jsc_sub_query *, int (*each)(void *ctx, const jsc_sub_info *), void *ctx);

/* ---- subscriptions of the server itself ---- */
enum {
    JSC_SUB_LOCAL = 1, /* not told to routes */
    JSC_SUB_LENIENT = 2, /* does not count as a responder */
};
typedef void (*jsc_deliver_fn)(void *ctx, const jsc_msg *m);
/* fn runs inside routing, may publish, subscribe and unsubscribe (itself too). queue may be NULL. */
int jsc_subscribe_call(jsc_plane *, jsc_account *, const char *subject, size_t n, const char *queue, size_t qn,
                       int flags, jsc_deliver_fn fn, void *ctx, jsc_sub **out);
/* Messages become JSC_EV_MSG with a = tag. */
int jsc_subscribe_host(jsc_plane *, jsc_account *, const char *subject, size_t n, const char *queue, size_t qn,
                       int flags, uint64_t tag, jsc_sub **out);
void jsc_unsubscribe(jsc_plane *, jsc_sub *);

/* ---- publishing from the server ---- */
/* Routes as if a client with echo had published it: local subscribers, then routes. Returns how many took it. */
int jsc_publish(jsc_plane *, const jsc_msg *m);
/* JetStream delivery: matched by `deliver`, shown with m->subject and m->reply. Over a route it travels as
 * RMSG account deliver reply@subject. Returns how many took it (0 and not *busy: no interest); *busy is set when a
 * receiver has more than 4 MiB waiting: stop for this turn. With half of max_pending waiting on a route or on the only
 * receiver nothing is sent: 0, and *busy. */
int jsc_deliver(jsc_plane *, const char *deliver, size_t n, const jsc_msg *m, int *busy);
int jsc_interest(jsc_plane *, jsc_account *, const char *subject, size_t n); /* count of subscribers incl. routes */
/* Pattern match by the subject rules; both valid subjects. */
int jsc_subject_matches(const char *pattern, size_t pn, const char *subject, size_t n);
int jsc_subject_valid(const char *s, size_t n, int literal); /* literal: no wildcard tokens */
int jsc_subject_overlap(const char *a, size_t an, const char *b, size_t bn); /* some subject matches both */

/* ---- replication links ---- */
/* Frame: 0 u32 crc32c of bytes [4, 16+len) · 4 u32 len of the body, at most 16 MiB · 8 u8 version · 9 u8 kind ·
 * 10 u16 zero · 12 u32 zero · body. A frame that does not verify closes the link with a reason that says which check. */
/* jsc_link_send's frames are urgent: they overtake what jsc_link_send_records has queued. Both say JSC_EFULL when too
 * much waits for a peer that does not read; JSC_EV_ROOM follows once records have room again. */
#define JSC_FRAME_HEAD 16
#define JSC_FRAME_MAX (16u << 20)
/* What links have in their output leaves now, unless events about servers wait that may add to it: for what somebody waits
 * for while this host has more to do. */
void jsc_link_push(jsc_plane *);
int jsc_link_send(jsc_plane *, uint64_t id, uint8_t kind, const void *body, size_t n);
/* One frame whose body is `head` followed by the raw records [lo, hi] of the log, as many as fit in cap bytes, at least
 * one. *last = index of the last one sent. Copied once, from the tail or the mapping into the output buffer. */
int jsc_link_send_records(jsc_plane *, uint64_t id, uint8_t kind, const void *head, size_t n, jsc_log *, uint64_t lo,
                          uint64_t hi, size_t cap, uint64_t *last);

/* ---- events for the host language ---- */
enum {
    JSC_EV_CONNECT = 1, /* data: the JSON of CONNECT; the connection waits for jsc_conn_accept or _close */
    JSC_EV_INFO = 2, /* data: the JSON of INFO; a client, or a route that is not active, waits as below */
    JSC_EV_LINK = 3, /* data: the JSON of JSLINK; waits for jsc_conn_become_link or _close */
    JSC_EV_CLOSED =
        4, /* data: reason; headers: its last jsc_conn_info; reply: of a client's subscriptions the first few,
                        * "subject queue sid delivered" in lines, parted by blanks */
    JSC_EV_ERROR = 5, /* data: text of a peer's -ERR */
    JSC_EV_MSG = 6, /* a: tag; subject, reply, headers, data; conn and conn_kind of the sender (0: the server) */
    JSC_EV_FRAME = 7, /* a: kind; data: body */
    JSC_EV_PONG = 8, /* first PONG from a route after jsc_conn_route_ready */
    JSC_EV_APPENDED = 9, /* a: stream id, b: last index: a leader's stream took messages this turn */
    JSC_EV_DURABLE = 10, /* a: id given to the log's owner, b: durable index */
    JSC_EV_APPLY = 11, /* a: stream id: the next record is for the host */
    JSC_EV_FAILED = 12, /* a: id, b: the code: its log no longer takes writes */
    JSC_EV_TRACE = 13, /* a: 0 received, 1 sent; b: 0 for a line without its CRLF, else the size of the payload whose
                          * first MiB is data. a = 2: b lines were dropped as too many wait */
    JSC_EV_TLS = 14, /* a: 1: data: version and cipher; 0: the handshake failed, data: why */
    JSC_EV_DENIED =
        15, /* a client overstepped: a: JSC_DENIED_...; subject, reply: the queue, data: the sid; b: how many
                         * such events of it were left out before this one */
    JSC_EV_HTTP = 16, /* data: a websocket's HTTP request, empty when it is too long; the connection waits */
    JSC_EV_BROKEN = 17, /* data: what is wrong with what came, below the protocol; the connection ends */
    JSC_EV_PROXY = 18, /* data: address and port that a PROXY header gives, a blank between */
    /* A traced message was routed. a: its id; b: its size, and << 32 how many streams have yet to say what they made of
     * it; subject: the account, reply: where the event goes, headers: its own; data: lines "kind conn error ns hop subject
     * queue" in the order of what happened: i it came (queue: the account), m mapped, d denied (JSC_DENIED_...), c to a
     * client, r to a route (JSC_TRACE_...), s to the JetStream API. */
    JSC_EV_TRACED = 19,
    JSC_EV_ROOM = 25, /* a link that had no room for records has room again */
};
enum {
    JSC_TRACE_NO_ECHO = 1,
    JSC_TRACE_DENIED,
    JSC_TRACE_CLOSED,
    JSC_TRACE_SLOW,
    JSC_TRACE_UNTRACED,
    JSC_TRACE_UNTOLD
};
enum { JSC_DENIED_PUBLISH, JSC_DENIED_SUBSCRIBE, JSC_DENIED_REPLY, JSC_DENIED_MAX_SUBS };
typedef struct jsc_event {
    uint8_t type, conn_kind;
    uint64_t conn, a, b;
    const char *subject, *reply, *headers, *data; /* inside one block that jsc_event_done frees */
    uint32_t subject_len, reply_len, headers_len, data_len;
    void *block;
} jsc_event;
int jsc_plane_next(jsc_plane *, jsc_event *out); /* 1: one taken, 0: none; those about clients come last */
/* Events about a client, messages from one and lines of a trace are in order among themselves, and so are all others
 * (JSC_EV_TRACED is one of these): a caller that takes a few of each in turn lets no crowd of clients hold up servers and
 * logs, nor the loop. */
int jsc_plane_next_of(jsc_plane *, int clients, jsc_event *out);
void jsc_event_done(jsc_event *);
/* For parts in C: bytes are copied. */
int jsc_plane_emit(jsc_plane *, const jsc_event *);
#endif
