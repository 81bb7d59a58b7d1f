/* What the files of the data plane share among themselves. The contract for everyone else is jsc_plane.h. */
#ifndef JSC_WIRE_PLANE_H
#define JSC_WIRE_PLANE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memrchr, accept4 */
#endif
#include "jsc_plane.h"
#include "slab.h"
#include <time.h>

typedef struct jsc_conn jsc_conn;
typedef struct jsc_node jsc_node;
typedef struct jsc_match jsc_match;
typedef struct jsc_layer jsc_layer;
typedef struct jsc_link jsc_link;
typedef struct jsc_mappings jsc_mappings;
typedef struct jsc_transform jsc_transform;
typedef struct jsc_tracing jsc_tracing;
struct jsc_flow;

enum {
    JSC_READ_BYTES = 256 << 10,  /* one read; also the point of an early send */
    JSC_BUSY_BYTES = 4 << 20,    /* a receiver with more waiting pauses its publishers */
    JSC_EVENT_BYTES = 4 << 20,   /* events of one connection waiting for the host: above it reading pauses */
    JSC_PAUSE_NS = 10000000,     /* the longest pause for a slow receiver */
    JSC_ROUTE_PAYLOAD = 64 << 20, /* largest message a peer may send, whatever its own max_payload */
    JSC_TRACE_BYTES = 16 << 20, /* trace lines waiting for the host: above it they are dropped */
    JSC_TRACE_PAYLOAD = 1 << 20, /* of a payload that is shown */
    JSC_FORGET_BUDGET = 65536, /* remembered subjects compared with new wildcards in one turn, about 2 ms */
    JSC_TURNS = 64,
    /* Work is counted in deliveries, 50 to 100 ns each. One connection's part of a turn, after which others are served,
     * and how much of it makes a turn, after which timers and the host are looked after: about 2 and 5 ms. */
    JSC_WORK_CONN = 24576,
    JSC_WORK_TURN = 65536,
    JSC_WORK_OWN = 4, /* a delivery to the server itself */
    JSC_WORK_SUB = 16, /* a subscription more or less */
    JSC_CLOSE_SUBS = 1024, /* subscriptions of closing connections dropped in a turn, about 1 ms */
    JSC_CLOSE_CONNS = 32, /* closing connections that are parted from at once, about 0.5 ms */
    JSC_SENDS = 512, /* connections written to in one flush, about 3 ms; twice that in a turn at most */
    /* Packing of one turn for all compressed routes, about 2 ms, in what a byte costs: 160 KiB where it goes fast, 26
     * KiB at best. A route with more than JSC_PACK_BEHIND waiting is packed fast whatever its level. */
    JSC_PACK_TURN = 640 << 10,
    JSC_PACK_LEAST = 4096, /* less than that only when it is all */
    JSC_PACK_BEHIND = 256 << 10,
    JSC_EVENTS = 256, /* told by epoll at once */
    JSC_TRIM_NS = 1000000000,
    JSC_TRIM_BYTES = 16 << 20, /* so much given back at once: a burst is over, the allocator gives up what it holds */
    JSC_DEPTH = 64, /* publishing from callbacks of callbacks: deeper messages are dropped */
    JSC_SPARE = 16, /* output buffers kept warm */
    JSC_DENIALS = 16, /* oversteps of one connection told to the host in a second */
};

typedef struct jsc_token {
    const char *p;
    uint32_t n;
} jsc_token;

/* ---- subscriptions and the index ---- */
enum { JSC_SUB_CLIENT, JSC_SUB_ROUTE, JSC_SUB_CALL, JSC_SUB_HOST };
enum { JSC_SUB_LONE = 64 }; /* flag: the only one below a token of the index, which has no node for it */
enum { JSC_SUB_PARTLY = 128 }; /* flag: some of what matches it is denied to its client or peer */

/* There may be millions: 64 bytes and the text, subject, queue, sid one after the other. */
struct jsc_sub {
    uint8_t kind, flags, dead, told; /* told: counted in the interest that routes know */
    uint32_t pos; /* in its node's list; of a lone one: in its subject, where that token begins */
    uint32_t subject_len, queue_len, sid_len, sid_hash;
    jsc_account *account;
    jsc_conn *conn;
    union {
        jsc_node *node;
        jsc_sub *grave; /* once dead: the next */
    };
    uint64_t delivered;
    union {
        uint64_t max; /* a client's; 0: none */
        uint32_t weight; /* a route's */
    };
    char subject[];
};
static inline const char *jsc_sub_queue(const jsc_sub *s) { return s->subject + s->subject_len; }
static inline const char *jsc_sub_sid(const jsc_sub *s) { return s->subject + s->subject_len + s->queue_len; }

/* One of the server's own. */
typedef struct jsc_own {
    jsc_deliver_fn fn;
    void *ctx;
    uint64_t tag;
    struct jsc_own *next, *prev;
    jsc_sub sub;
} jsc_own;
static inline jsc_own *jsc_own_of(const jsc_sub *s) { return (jsc_own *)((char *)s - offsetof(jsc_own, sub)); }

typedef struct jsc_sublist {
    jsc_sub **v;
    uint32_t n, cap;
} jsc_sublist;

struct jsc_node {
    jsc_node *parent, *star;
    void **kids; /* open addressing, kids_cap a power of two: nodes, or with the lowest bit set a lone jsc_sub */
    uint32_t kids_cap, kids_n;
    jsc_sublist here, tail; /* subjects that end here; those that end here with `>` */
    uint64_t hash;
    uint32_t len;
    uint8_t is_star;
    char token[];
};

typedef struct jsc_target {
    jsc_sub *sub;
    uint32_t off, len; /* its rendered "HMSG subject sid " in the match's text; len 0: not rendered */
} jsc_target;

typedef struct jsc_group {
    uint32_t first, locals, remotes; /* members[first..): local ones, then routes' */
    uint64_t weight; /* of the remote ones together */
} jsc_group;

typedef struct jsc_hop {
    jsc_conn *conn;
    uint8_t plain; /* has plain interest, not only queue interest */
} jsc_hop;

/* Everyone who gets messages of one subject. A cached one is a single block; a scratch one owns growing arrays. */
struct jsc_match {
    jsc_account *account;
    jsc_match *chain_next, **chain_prev; /* cached ones with the same first token */
    uint64_t hash;
    size_t bytes;
    uint32_t pins, subject_len, n_plain, n_members, n_groups, n_hops;
    uint32_t plain_cap, members_cap, groups_cap, hops_cap;
    uint8_t cached, gone;
    uint8_t simple; /* cached, and only clients get them, each by its rendered line */
    jsc_target *plain, *members;
    jsc_group *groups;
    jsc_hop *hops;
    char *subject, *text;
};

typedef struct jsc_slot {
    jsc_match *match;
    uint64_t missed; /* hash of the last subject that was looked up here in vain */
} jsc_slot;

typedef struct jsc_prefix {
    jsc_sub *sub; /* the only one that any "prefix.token" reaches */
    char *text;
    uint32_t len;
} jsc_prefix;

typedef struct jsc_interest_entry {
    uint32_t hash, count, subject_len, queue_len;
    char text[]; /* subject, then queue */
} jsc_interest_entry;

enum { JSC_CHAINS = 64, JSC_PREFIXES = 1024, JSC_SLOTS_MIN = 256, JSC_SLOTS_MAX = 16384, JSC_CACHE_BYTES = 64 << 20 };

struct jsc_account {
    jsc_plane *plane;
    jsc_account *next;
    jsc_node *root;
    jsc_slot *slots;
    uint32_t slots_n, slots_used;
    jsc_match *chains[JSC_CHAINS];
    jsc_prefix *prefixes;
    uint32_t prefix_hint; /* which of them was found last */
    jsc_mappings *mappings; /* NULL: none */
    char *trace_dest; /* NULL: none */
    uint32_t trace_dest_len, trace_percent;
    jsc_interest_entry **interest; /* open addressing */
    uint32_t interest_n, interest_cap;
    uint64_t hash;
    jsc_tally gone, routed; /* of clients that are closed; over routes */
    jsc_tally live; /* work space of jsc_plane_accounts */
    uint64_t subs_n, inserts, removes, matches, cache_hits, slow_consumers, conns, own_subs;
    uint8_t is_system;
    uint32_t pool_hash, name_len, clients, max_clients;
    char name[];
};

/* ---- connections ---- */
typedef struct jsc_buf {
    char *p;
    size_t len, cap;
} jsc_buf;

struct jsc_conn {
    jsc_plane *plane;
    uint64_t id;
    int fd;
    uint32_t mask; /* what epoll is told */
    uint8_t kind, verbose, pedantic, echo, headers, no_responders;
    uint8_t link_version; /* a link: of its frames, as its ends agreed */
    uint8_t connected; /* a CONNECT was accepted */
    uint8_t greeted; /* and a PING after it answered: the second INFO comes no more */
    uint8_t waiting; /* for the host's answer to CONNECT or JSLINK */
    uint8_t slow_down; /* paused because a receiver of its messages is behind */
    uint8_t flooding; /* paused because its events wait */
    uint8_t blocked; /* the socket takes no more: waits for EPOLLOUT */
    uint8_t held; /* a route not active yet that sends what only active ones may */
    uint8_t closing, parted, flush_last, dirty, queued, ready, pong_seen, skip_line;
    uint8_t unfinished; /* there was more to parse than one turn may take */
    uint8_t more; /* the layer holds input that the socket no longer announces */
    uint8_t warned; /* the publish at hand has an invalid subject, and the client was told */
    uint8_t whole; /* what is being queued must not count as a slow consumer */
    uint8_t fresh; /* a client that has not shown yet who it is */
    uint8_t full; /* it is behind and no_stall: what comes next is dropped */
    uint8_t must_connect; /* and may do nothing before it has */
    uint8_t counted; /* in its account's clients */
    uint8_t track; /* permissions: what it receives it may answer */
    uint8_t traces; /* a route whose peer knows of message tracing */
    jsc_account *account;
    jsc_layer *layer; /* between socket and parser; NULL: nothing */
    jsc_link *link; /* of a replication link: its frames that are not urgent */
    jsc_buf in, out;
    size_t out_head; /* bytes of out already sent */
    size_t write_left; /* of what waited when the socket stopped taking it, and until when that must be gone */
    int64_t write_due; /* 0: nothing waits, or there is no deadline */
    size_t need; /* bytes the operation at hand needs, 0 unknown */
    uint64_t grace; /* bytes to parse before another pause */
    jsc_sub **subs; /* by sid (routes: by "account subject queue"), open addressing */
    uint32_t subs_n, subs_cap, drop_at; /* drop_at: of a closing one, where its table is still full */
    uint32_t hint; /* slot of the last subject published */
    uint64_t wait_for; /* the receiver that is behind */
    int64_t first_rtt; /* from our INFO to its CONNECT: what is known before the first PONG */
    int64_t pause_end, next_ping, ping_every, ping_sent, rtt, rtt_at, active, start_unix, active_unix;
    int32_t pings_out;
    uint32_t max_subs, max_payload; /* UINT32_MAX: the plane's */
    uint32_t verdict_hint;
    jsc_permissions *permissions;
    struct jsc_replies *replies;
    int64_t denied_at; /* the second in which `denials` were told */
    uint32_t denials, undenied;
    size_t event_bytes;
    uint64_t in_msgs, out_msgs, in_bytes, out_bytes, stalls;
    char *after_pong;
    size_t after_pong_len;
    jsc_account *only, **apart; /* of a route: see jsc_route_options */
    jsc_account *named; /* the account that its peer named last */
    uint32_t apart_n, pool_size, pool_index;
    jsc_conn *next_dirty, *next_closing, *next_run, *next_paused;
    const char *reason;
    char reason_text[96];
};

static inline size_t jsc_pending(const jsc_conn *c) { return c->out.len - c->out_head; }
static inline int jsc_conn_stopped(const jsc_conn *c) {
    return c->closing | c->waiting | c->held | c->slow_down | c->flooding;
}

typedef struct jsc_choice { /* a queue group whose message goes over a route */
    jsc_conn *conn;
    const jsc_sub *member;
} jsc_choice;

typedef struct jsc_block { /* an event in the queue */
    struct jsc_block *next;
    size_t bytes;
    jsc_event ev;
    char text[];
} jsc_block;

typedef struct jsc_queue {
    jsc_block *head, **tail;
} jsc_queue;

typedef struct jsc_call {
    void (*fn)(void *);
    void *ctx;
} jsc_call;

struct jsc_plane {
    jsc_plane_options o;
    int epoll;
    size_t busy_hi, busy_lo;
    int64_t mono, unix_ns, next_timer;
    uint8_t told_time; /* the clocks stand where jsc_plane_tell_time put them */
    jsc_conn **conns;
    uint64_t *gens;
    uint32_t *free_slots;
    uint32_t conns_n, conns_cap, free_n;
    jsc_conn *dirty, *late, **late_tail; /* late: dirty ones that a turn before had no time for */
    jsc_conn *closing, **closing_tail, *run, **run_tail, *paused;
    jsc_conn *later[2], **later_tail[2]; /* dirty for the next turn: who sent nothing in this one, and who did */
    size_t pack_left; /* of JSC_PACK_TURN */
    uint64_t work, turn_work; /* done so far; turn_work: where this turn has had enough */
    struct epoll_event *ready; /* what epoll told, and how far it was served */
    int ready_at, ready_n;
    size_t freed; /* bytes given back since the allocator was last told to give up what it holds */
    int64_t trimmed;
    jsc_conn **routes; /* ready ones */
    uint32_t routes_n, routes_cap;
    jsc_account **accounts, *all_accounts, *default_account;
    jsc_permissions *default_permissions, *imports, *exports; /* the last two of routes, NULL: all */
    uint32_t default_max_subs, default_max_payload;
    uint32_t accounts_n, accounts_cap;
    jsc_slabs slabs; /* subscriptions of others, and what routes know of them */
    jsc_own *own_subs;
    jsc_sub *dead_subs;
    uint32_t depth;
    jsc_match *scratch[JSC_DEPTH];
    jsc_match *gone;
    size_t cache_bytes;
    jsc_choice *choices;
    uint32_t choices_n, choices_cap;
    jsc_token *tokens;
    uint32_t tokens_cap;
    jsc_sublist found; /* work space of the index walk */
    char *read_buf, *cipher_in; /* cipher_in: what TLS reads at the moment */
    size_t cipher_in_at, cipher_in_n;
    jsc_buf cipher_out;
    struct z_stream_s *deflate;
    struct jsc_s2_work *s2; /* with packed_in and packed_out: made when the first route is compressed */
    char *packed_in, *packed_out;
    int64_t shake_turn, shake_spent; /* the turn of shake_spent */
    jsc_buf spare[JSC_SPARE];
    uint32_t spare_n;
    jsc_queue events[2]; /* the second: what is about clients */
    jsc_call *calls;
    int calls_n;
    jsc_turn_fn hook;
    void *hook_ctx;
    int64_t hook_next;
    uint64_t rng, untraced, traces;
    size_t trace_bytes;
    int64_t forget_at; /* the turn of forget_spent */
    uint32_t forget_spent;
    jsc_tally gone_routes;
    jsc_plane_stats stats;
};

/* Timers are looked at then, at the latest. */
static inline void jsc_timer_by(jsc_plane *p, int64_t mono) {
    if (mono < p->next_timer) p->next_timer = mono;
}
/* link.c */
int jsc_link_begin(jsc_conn *); /* JSC_OK, or -ENOMEM */
void jsc_link_feed(jsc_conn *); /* sends what is not urgent, while the socket takes it */
size_t jsc_link_waits(const jsc_conn *); /* bytes of it */
void jsc_link_free(jsc_conn *);
/* loop.c */
int64_t jsc_clock(clockid_t); /* ns */
/* conn.c */
jsc_conn *jsc_conn_find(jsc_plane *, uint64_t id);
/* Closes at the end of the turn; the first reason given stays. err: text of a last -ERR. flush: send what waits. */
void jsc_conn_end(jsc_conn *, const char *reason, const char *err, int flush);
void jsc_conn_reap(jsc_plane *, uint32_t most); /* finishes closing ones, parts from so many */
void jsc_conn_read(jsc_conn *);
void jsc_conn_resume(jsc_conn *); /* parse what it holds at the next turn, then read on */
void jsc_conn_run(jsc_plane *);
void jsc_conn_mask(jsc_conn *);
void jsc_conn_timers(jsc_plane *);
void jsc_conn_paused(jsc_plane *);
int jsc_conn_drop_subs(jsc_conn *, uint32_t *most); /* whether all are gone; what is left of `most` */
void jsc_conn_first_ping(jsc_conn *, int64_t after_ns);
jsc_sub *jsc_conn_sub(jsc_conn *, const char *sid, uint32_t n, uint64_t hash);
int jsc_conn_enter(jsc_conn *); /* a client's first verb is not CONNECT: whether it may, else it closes */
/* Told to client and host; queue and sid, which may be NULL, of what it asked for. */
void jsc_conn_denied(jsc_conn *, int what, const char *s, size_t n, const jsc_token *queue, const jsc_token *sid);
int jsc_conn_sub_add(jsc_conn *, jsc_sub *);
void jsc_conn_sub_remove(jsc_conn *, jsc_sub *);
void jsc_conn_sub_shrink(jsc_conn *);
/* out.c: room for n bytes, NULL when the connection is closing or memory is out (then it is closed) */
char *jsc_out_room(jsc_conn *, size_t n);
void jsc_out_done(jsc_conn *, char *end);
void jsc_out_put(jsc_conn *, const void *, size_t);
void jsc_out_err(jsc_conn *, const char *text, const char *s, size_t n); /* -ERR 'text' or, with s, -ERR 'text "s"' */
void jsc_out_send(jsc_conn *);
void jsc_out_try(jsc_conn *); /* the same for what is in `out` alone */
void jsc_out_dirty(jsc_conn *);
void jsc_out_later(jsc_conn *, int sent); /* this turn has done enough for it: not dirty; whether it sent something */
void jsc_out_turn(jsc_plane *); /* a new one: those that waited for it are dirty */
void jsc_out_flush(jsc_plane *); /* a bounded number of connections */
void jsc_out_flush_all(jsc_plane *);
void jsc_out_free(jsc_conn *);
/* parse.c, link.c: take what they can of n bytes, return how many */
size_t jsc_parse(jsc_conn *, const char *, size_t n);
size_t jsc_link_parse(jsc_conn *, const char *, size_t n);
void jsc_conn_publish(jsc_conn *, struct jsc_flow *); /* a client's message, whole */
#define JSC_VERB_PUB ('P' | 'U' << 8 | 'B' << 16 | (uint32_t)' ' << 24) /* "PUB " as the four bytes read at once */
/* express.c: serves the publishes at b that it can, until the plane has done `enough`; where it came to */
const char *jsc_express(jsc_conn *, const char *b, const char *end, uint64_t enough);
#define JSC_VERB_RMSG ('R' | 'M' << 8 | 'S' << 16 | (uint32_t)'G' << 24)
const char *jsc_express_routed(jsc_conn *, const char *b, const char *end, uint64_t enough); /* a ready peer's RMSG */
/* sublist.c */
int jsc_index_add(jsc_account *, jsc_sub *);
void jsc_index_remove(jsc_sub *);
int jsc_index_find(jsc_account *, const char *, uint32_t n); /* fills plane->found */
int jsc_index_lone(jsc_account *, const char *prefix, uint32_t n); /* no literal below any match of prefix */
int jsc_index_has_wildcard(const char *, size_t n);
int jsc_subject_routable(const char *, size_t n); /* no empty token: something may match it */
int jsc_list_push(jsc_sublist *, jsc_sub *);
/* account.c */
jsc_account *jsc_account_find(jsc_plane *, const char *, size_t n, int make);
void jsc_account_free(jsc_account *);
/* The account in which servers speak among themselves below $JSC., whichever the system account is. */
static inline int jsc_account_own(const jsc_account *a) { return a->name_len == 4 && !memcmp(a->name, "$SYS", 4); }
static inline int jsc_subject_own(const char *account, size_t an, const char *subject, size_t n) {
    return an == 4 && !memcmp(account, "$SYS", 4) && n > 5 && !memcmp(subject, "$JSC.", 5);
}
jsc_sub *jsc_sub_new(int kind, jsc_account *, const char *subject, size_t n, const char *queue, size_t qn,
                     const char *sid, size_t sn);
int jsc_sub_enter(jsc_sub *); /* index, caches, interest */
void jsc_sub_leave(jsc_sub *); /* the same back, and frees it once nobody iterates over it */
void jsc_sub_free(jsc_sub *);
/* match.c: pins what it returns; NULL: nesting too deep or no memory */
jsc_match *jsc_match_get(jsc_account *, jsc_conn *hint, const char *subject, uint32_t n);
/* The only one whom a subject of an inbox reaches, if that is remembered; NULL: jsc_match_get knows. */
jsc_sub *jsc_match_inbox(jsc_account *, const char *subject, uint32_t n);
void jsc_match_put(jsc_plane *, jsc_match *);
void jsc_match_forget(jsc_account *, const char *subject, uint32_t n);
void jsc_match_clear(jsc_account *);
void jsc_match_free(jsc_match *);
void jsc_plane_bury(jsc_plane *); /* frees what is dead when nobody routes */
/* permissions.c: for connections that have some */
enum { JSC_MAY_PARTLY = 2 };
jsc_permissions *jsc_permissions_keep(jsc_permissions *);
int jsc_permissions_track(const jsc_permissions *);
int jsc_may_publish(jsc_conn *, const char *, uint32_t n);
/* 0, 1, or JSC_MAY_PARTLY: yes, but what is delivered has to be asked about. */
int jsc_may_subscribe(const jsc_permissions *, const char *, uint32_t n, const char *queue, uint32_t qn);
int jsc_may_deliver(const jsc_sub *, const char *subject, uint32_t n);
void jsc_reply_note(jsc_conn *, const char *, uint32_t n); /* it received this reply subject */
void jsc_replies_free(jsc_conn *);
/* transform.c: a compiled destination. out->p grows as needed and belongs to the caller. */
int jsc_transform_new(const char *source, size_t sn, const char *destination, size_t dn, jsc_transform **out);
int jsc_transform_apply(const jsc_transform *, uint64_t random, const char *subject, uint32_t n, jsc_buf *out);
void jsc_transform_free(jsc_transform *);
/* mapping.c: 1: the message's subject is another now, in bytes that last until the next call; 0: it stays; or an error. */
int jsc_map(jsc_account *, jsc_msg *);
void jsc_mappings_free(jsc_mappings *);
/* interest.c */
void jsc_interest_change(jsc_sub *, int by);
void jsc_interest_free(jsc_account *);
void jsc_interest_tell(jsc_conn *route, const jsc_account *); /* of one account, or NULL: of all it carries */
/* pool.c */
#define JSC_POOL_SEED 2166136261u
uint32_t jsc_pool_more(uint32_t h, const char *, size_t n);
uint32_t jsc_pool_hash(const char *, size_t n);
int jsc_pool_carries(const jsc_conn *route, const jsc_account *);
/* route.c */
typedef struct jsc_flow {
    jsc_msg m; /* as shown to receivers */
    const char *tail; /* the publisher's bytes from reply or size on, when they can be sent as they are */
    const char *size; /* its size token */
    const char *match; /* matched subject */
    const char *queues, *queues_end; /* from a route: the groups named */
    jsc_conn *from;
    uint32_t tail_len, size_len, match_len;
    uint8_t server; /* published by the server itself */
    uint8_t gentle; /* can come again later: not sent to who is far behind */
    int busy;
} jsc_flow;
int jsc_route(jsc_plane *, jsc_flow *); /* how many took it, lenient ones not counted */
/* Its parts, for routing that does something beside. */
int jsc_route_give(jsc_plane *, const jsc_target *, const jsc_match *, jsc_flow *);
int jsc_route_hop(jsc_plane *, const jsc_hop *, jsc_flow *, uint32_t base);
uint32_t jsc_group_first(jsc_plane *, const jsc_match *, const jsc_group *, int remotes); /* who is tried first */
int jsc_group_choose(jsc_plane *, jsc_sub *); /* a route's member is it */
int jsc_group_chosen(const jsc_plane *, const jsc_conn *, uint32_t base); /* how many on that route, from base on */
void jsc_route_stall(jsc_conn *to, jsc_conn *from); /* `from`, if a client, waits where `to` is far behind */
uint64_t jsc_chance(jsc_plane *, uint64_t below); /* a throw of [0, below) */
void jsc_route_no_responders(jsc_conn *, const jsc_flow *);
/* traced.c: message tracing. Whether a message's headers may ask for it; a look at each line, no more. */
int jsc_trace_asked(const jsc_account *, const char *headers, size_t n);
/* NULL: not traced, or, with *drop, not to be routed at all. jsc_trace_end tells the host and frees it. */
jsc_tracing *jsc_trace_begin(jsc_conn *, jsc_flow *, int *drop);
void jsc_trace_mapped(jsc_tracing *, const jsc_flow *);
void jsc_trace_denied(jsc_tracing *, int what, const char *, size_t n);
int jsc_route_traced(jsc_tracing *, jsc_flow *);
void jsc_trace_end(jsc_tracing *, const jsc_flow *);
/* trace.c */
void jsc_trace_in(jsc_conn *, const char *line, size_t n, const char *payload, size_t pn);
void jsc_trace_out(jsc_conn *, const char *, const char *end);
/* stat.c */
void jsc_count_slow(jsc_conn *);
void jsc_count_stale(jsc_conn *);
void jsc_count_gone(jsc_conn *);
void jsc_emit_closed(jsc_conn *); /* while its subscriptions are still there */
/* packed.c */
int jsc_packed_level(const jsc_conn *); /* of compression, -1: there is none */
/* event.c */
void jsc_emit_text(jsc_conn *, int type, const char *, size_t n);

static inline char *jsc_copy(char *p, const void *s, size_t n) {
    memcpy(p, s, n);
    return p + n;
}
/* quote.c */
uint32_t jsc_utf8(const uint8_t *, size_t n, uint32_t *code); /* bytes of the character that is first, 0: it is none */
char *jsc_put_quoted(char *, const char *, size_t n); /* at most 4 n + 2 bytes */
char *jsc_put_number(char *, uint64_t);
#endif
