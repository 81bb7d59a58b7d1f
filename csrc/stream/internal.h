/* What the files of csrc/stream share: tables of one stream, consumers, and the timers that drive them. */
#ifndef JSC_STREAM_INTERNAL_H
#define JSC_STREAM_INTERNAL_H
#include "jsc_stream.h"

#define JSC_MAX_RECORD (32u << 20)       /* largest stored message, spec streams §6 */
#define JSC_BACKLOG_MSGS 100000u         /* unapplied messages before 429, spec streams §7 */
#define JSC_BACKLOG_BYTES (128ull << 20) /* unapplied bytes before 429 */
#define JSC_BACKLOG_REPLIES (64u << 20)  /* bytes of where those are to be answered, before 429 */
#define JSC_DEFERRED_BYTES (16u << 20)   /* messages held back while one is being delivered */
#define JSC_TURN_SPEND (16u << 20) /* bytes all consumers together send in a turn, each message 256 more: about 10 ms */
#define JSC_NEVER INT64_MAX
#define JSC_LONG (INT64_MAX / 4) /* durations are cut to this, 73 years, so that sums with clocks fit */

/* Whether what a record or a snapshot says is a time that sums with durations fit beside. */
static inline int jsc_is_time(uint64_t ns) { return ns <= (uint64_t)(INT64_MAX - JSC_LONG); }

/* ---- timers: one binary heap per server ---- */
typedef struct jsc_timer {
    int64_t due; /* monotonic ns */
    uint32_t pos; /* 1-based place in the heap, 0 when not armed */
    void (*fire)(void *ctx, int64_t mono, int64_t unix_ns);
    void *ctx;
} jsc_timer;
typedef struct jsc_timers {
    jsc_timer **heap; /* [1..n] */
    uint32_t n, cap;
} jsc_timers;
int jsc_timer_set(jsc_timers *, jsc_timer *, int64_t due); /* arms or moves; JSC_NEVER disarms */
void jsc_timer_stop(jsc_timers *, jsc_timer *);

/* ---- growing byte buffer ---- */
typedef struct jsc_bytes {
    uint8_t *p;
    size_t n, cap;
} jsc_bytes;
int jsc_bytes_add(jsc_bytes *, const void *data, size_t n); /* JSC_OK or -ENOMEM */
void jsc_bytes_free(jsc_bytes *);
void jsc_varint_put(jsc_bytes *, uint64_t v);
int jsc_varint_get(const uint8_t **p, const uint8_t *end, uint64_t *v); /* 0: there is none */

/* ---- who waits for which record: FIFO in index order, replies in a byte ring ---- */
typedef struct jsc_waiters {
    struct jsc_wait {
        uint64_t index;
        uint32_t off, len; /* of the reply in bytes */
    } *ring;
    uint32_t head, n, cap; /* cap a power of two */
    uint32_t held; /* bytes of replies */
    char *bytes;
    uint32_t bcap, bhead, btail; /* ring of replies; each reply contiguous; empty when n == 0 */
} jsc_waiters;
int jsc_waiters_push(jsc_waiters *, uint64_t index, const char *reply, size_t n);
/* The reply waiting for exactly this index; older ones are dropped. NULL when none. Valid until the next push. */
const char *jsc_waiters_take(jsc_waiters *, uint64_t index, uint32_t *n);
void jsc_waiters_clear(jsc_waiters *);
void jsc_waiters_free(jsc_waiters *);

/* ---- min-heap of (key, sequence) with stale entries tolerated ---- */
typedef struct jsc_seqheap {
    struct jsc_seqkey {
        int64_t key;
        uint64_t seq;
    } *a;
    uint32_t n, cap;
} jsc_seqheap;
int jsc_seqheap_push(jsc_seqheap *, int64_t key, uint64_t seq);
void jsc_seqheap_pop(jsc_seqheap *);
void jsc_seqheap_free(jsc_seqheap *);

/* ---- per sequence ---- */
#define JSC_CHUNK 4096u
#define JSC_DELETED (1ull << 63)
#define JSC_MOVED (1ull << 62)
typedef struct jsc_entry {
    uint64_t index; /* of its record; JSC_DELETED: removed or never kept, JSC_MOVED: the record is a MOVED one */
    uint32_t subject, size; /* id in the subject table; accounted bytes */
    uint32_t prev, next; /* distance to the neighbours of the same subject, 0 none */
} jsc_entry;
typedef struct jsc_chunk {
    uint32_t live;
    uint64_t bits[JSC_CHUNK / 64]; /* of the live ones */
    jsc_entry e[JSC_CHUNK];
} jsc_chunk;
typedef struct jsc_seqs {
    jsc_chunk **chunk; /* chunk[i] holds sequences (first + i) * JSC_CHUNK .. */
    uint64_t first;
    uint32_t n, cap, off; /* chunk[off .. off+n) are in use; `first` is the number of chunk[off] */
} jsc_seqs;
jsc_entry *jsc_seqs_at(const jsc_seqs *, uint64_t seq); /* NULL outside what is held */
jsc_entry *jsc_seqs_put(jsc_seqs *, uint64_t seq); /* the entry for the next sequence, zeroed; NULL: no memory */
void jsc_seqs_kill(jsc_seqs *, uint64_t seq); /* marks an entry that is held as removed */
uint64_t jsc_seqs_live_from(const jsc_seqs *, uint64_t seq, uint64_t last); /* first live >= seq, or last + 1 */
void jsc_seqs_drop_below(jsc_seqs *, uint64_t seq);
void jsc_seqs_free(jsc_seqs *);
static inline int jsc_entry_live(const jsc_entry *e) { return e && !(e->index & JSC_DELETED); }
static inline uint64_t jsc_entry_index(const jsc_entry *e) { return e->index & ~(JSC_DELETED | JSC_MOVED); }

/* ---- messages that moved: move.c ---- */
typedef struct jsc_moved {
    uint64_t index, seq;
} jsc_moved;
typedef struct jsc_moves {
    jsc_moved *a; /* [head, n) by index; those that went or moved again linger */
    size_t head, n, cap;
    uint64_t live; /* messages whose record is a MOVED one */
    uint64_t unmoved; /* every message below has moved */
    uint64_t proposed; /* the last record framed as leader */
} jsc_moves;
void jsc_moves_free(jsc_moves *);

/* ---- per subject ---- */
#define JSC_NO_SUBJECT UINT32_MAX
typedef struct jsc_subject {
    char *name; /* NULL: the id is free */
    uint64_t hash, count, first, last;
    uint32_t len, next_free;
} jsc_subject;
typedef struct jsc_subjects {
    jsc_subject *a;
    uint32_t n, cap, live, free; /* free: head of free ids, JSC_NO_SUBJECT none */
    uint32_t recent; /* the id that was found last; any, at first */
    uint32_t *table, mask; /* id + 1; 0 empty */
} jsc_subjects;
uint32_t jsc_subjects_find(const jsc_subjects *, const char *s, size_t n);
uint32_t jsc_subjects_add(jsc_subjects *, const char *s, size_t n); /* found or made; JSC_NO_SUBJECT: no memory */
void jsc_subjects_remove(jsc_subjects *, uint32_t id);
void jsc_subjects_free(jsc_subjects *);

/* ---- dedupe ---- */
typedef struct jsc_dedupe {
    struct jsc_seen {
        uint64_t hash, index, seq;
        int64_t ts;
    } *ring;
    uint64_t head, tail; /* absolute; ring[i & (cap-1)] */
    uint32_t cap, mask;
    uint64_t *table; /* absolute position + 1; 0 empty */
} jsc_dedupe;
/* The next position holding this hash after *it (start with *it = 0); NULL at the end. */
const struct jsc_seen *jsc_dedupe_find(const jsc_dedupe *, uint64_t hash, uint64_t *it);
int jsc_dedupe_add(jsc_dedupe *, uint64_t hash, uint64_t index, uint64_t seq, int64_t ts);
void jsc_dedupe_expire(jsc_dedupe *, int64_t before);
void jsc_dedupe_free(jsc_dedupe *);

/* ---- headers that decide ---- */
typedef struct jsc_span {
    const char *p;
    uint32_t n;
} jsc_span;
typedef struct jsc_headers {
    jsc_span msg_id, exp_stream, exp_last, exp_last_id, exp_subj, exp_subj_of, rollup, ttl, incr, batch_id, schedule,
        scheduler, schedule_next, min_last;
    uint8_t any;
} jsc_headers;
void jsc_headers_parse(const char *h, size_t n, jsc_headers *out);
int jsc_span_eq(jsc_span, const char *);
/* The first header of that name in any case; *line is the whole line with its end. 0 when there is none. */
int jsc_header_find(const char *h, size_t n, const char *name, jsc_span *value, jsc_span *line);
int jsc_parse_u64(const char *, size_t, uint64_t *); /* 1 when all decimal digits */

/* ---- server ---- */
typedef struct jsc_owner {
    int is_stream;
    uint64_t id;
    jsc_log *log;
    int failed; /* the failure was reported */
    struct jsc_owner *next; /* of logs without a stream */
} jsc_owner;
/* ---- what an account's streams take; index 0 memory, 1 files ---- */
typedef struct jsc_usage {
    struct jsc_usage *next;
    jsc_account *account;
    int64_t most[2], elsewhere[2], led[2];
    uint8_t said[2]; /* the last publish was too much, and the host knows */
} jsc_usage;
jsc_usage *jsc_usage_of(jsc_streams *, jsc_account *); /* found or made; NULL: no memory */
void jsc_usage_count(jsc_stream *, int sign); /* all that a stream led here holds comes (1) or goes (-1) */
int jsc_usage_full(jsc_stream *, const jsc_msg *, uint64_t size); /* whether a message of that size is too much */

struct jsc_streams {
    jsc_plane *plane;
    jsc_usage *usages;
    jsc_store *store;
    jsc_owner *owners;
    jsc_stream *all;
    jsc_stream *touched, *late; /* late: their own write comes when others were told of what it holds */
    jsc_stream *written;
    jsc_consumer *active, *active_tail; /* to be served at the end of the turn */
    jsc_consumer *dirty; /* have operations to propose */
    jsc_timers timers;
    uint64_t random, spent;
    int64_t mono, unix_ns;
    int poked;
};
void jsc_streams_poke(jsc_streams *); /* work came up outside a turn: the loop must not sleep on it */
int64_t jsc_streams_turn(void *streams, int64_t mono, int64_t unix_ns);
void jsc_streams_apply(jsc_stream *, uint64_t durable); /* solo: applies, and tells the host what stops it */
void jsc_streams_clock(jsc_streams *, int64_t *mono, int64_t *unix_ns);
uint64_t jsc_streams_random(jsc_streams *);

/* ---- stream ---- */
typedef struct jsc_pattern {
    char *s;
    uint32_t n;
    jsc_sub *sub;
    jsc_stream *stream;
    uint8_t keep;
} jsc_pattern;
typedef struct jsc_snapshot jsc_snapshot; /* snapshot.c */
typedef struct jsc_deferred {
    struct jsc_deferred *next;
    uint64_t trace; /* 0: not traced */
    uint32_t subject_len, reply_len, headers_len, data_len;
    char bytes[];
} jsc_deferred;
typedef struct jsc_awaited { /* a traced message whose record is not applied yet */
    struct jsc_awaited *next;
    uint64_t index, trace;
} jsc_awaited;
typedef struct jsc_verdict {
    int code, err; /* 0: stored */
    int unread; /* why a record that decides cannot be read; nothing was changed then */
    uint64_t seq;
    uint8_t duplicate, unwanted;
    char text[320];
} jsc_verdict;
struct jsc_stream {
    jsc_owner owner; /* first: what the log points back at */
    jsc_streams *all;
    jsc_stream *next, **prevp;
    jsc_stream *touched_next, *late_next, *written_next;
    uint8_t is_written; /* for jsc_streams_written */
    uint8_t is_touched, is_late, leading, solo, reading, applying, closing;
    uint8_t full; /* the disk took the last publish no more: said once */
    uint32_t term;
    jsc_log *log;
    jsc_account *account;
    jsc_usage *usage;
    char *name;
    uint32_t name_len, ack_head_len;
    char *ack_head; /* {"stream":"<name>","seq": */
    jsc_stream_limits limits;
    uint8_t configured;
    jsc_pattern *patterns;
    int npatterns;
    /* log */
    uint64_t applied, committed, lead_from;
    int64_t last_stamp; /* newest ts framed or applied */
    uint64_t backlog_bytes;
    jsc_waiters pubs, acks;
    jsc_deferred *deferred, **deferred_tail;
    uint32_t deferred_n;
    size_t deferred_bytes;
    jsc_awaited *awaited;
    /* state */
    uint64_t messages, bytes, first_seq, last_seq;
    uint64_t last_msg_index; /* record of the last stored message, for Nats-Expected-Last-Msg-Id; 0 none */
    int64_t last_ts;
    jsc_seqs seqs;
    jsc_moves moves;
    jsc_subjects subjects;
    jsc_dedupe dedupe;
    jsc_timer age;
    uint64_t age_proposed;
    jsc_consumer *consumers, *consumers_tail; /* in the order of creation, the same on every replica */
    jsc_consumer **by_id; /* open addressing */
    uint32_t nconsumers, by_id_cap;
    uint8_t stored; /* messages were stored since consumers were last woken */
    jsc_snapshot *snapshot; /* being taken */
    jsc_bytes restored; /* consumers of the snapshot that the stream came from, until they are there */
};
/* Makes e, the new entry of seq, a message of the stream: the newest of its subject, counted. */
void jsc_stream_link(jsc_stream *, uint64_t seq, jsc_entry *, uint64_t index, uint32_t subject, uint64_t size);
static inline void jsc_stream_grow(jsc_stream *s, int64_t size) { /* the bytes of one message come or go */
    s->bytes += (uint64_t)size;
    if (s->leading) s->usage->led[s->limits.file_storage != 0] += size * (s->limits.replicas ? s->limits.replicas : 1);
}
int jsc_stream_append(jsc_stream *, uint8_t kind, const void *subject, size_t sn, const void *headers, size_t hn,
                      const void *data, size_t n, uint64_t *index);
void jsc_stream_touch(jsc_stream *);
void jsc_stream_written(jsc_stream *); /* its log was written to, or it is new */
int jsc_stream_advance(jsc_stream *, uint64_t committed); /* as jsc_stream_commit */
void jsc_stream_hurt(jsc_stream *, int rc); /* its records cannot be read: the host is told, once */
void jsc_stream_reply(jsc_stream *, const char *to, size_t tn, const void *headers, size_t hn, const void *data,
                      size_t n);
void jsc_stream_error(jsc_stream *, const char *to, size_t tn, int code, int err, const char *text, size_t n);
int jsc_stream_read(jsc_stream *, uint64_t seq, jsc_record *out);
size_t jsc_json_text(char *out, size_t cap, const char *s, size_t n);
void jsc_stream_flush_deferred(jsc_stream *);
void jsc_stream_subscribe(jsc_stream *);
void jsc_stream_unsubscribe(jsc_stream *);
/* apply.c */
void jsc_stream_lose(jsc_stream *); /* a damaged record, most likely a message: uses up a sequence, kept as deleted */
void jsc_stream_judge(jsc_stream *, const jsc_record *, jsc_verdict *); /* what its headers and size make of it */
int jsc_stream_apply_message(jsc_stream *, const jsc_record *); /* an error: a record that decides is unreadable */
void jsc_stream_apply_control(jsc_stream *, const jsc_record *);
/* traced.c: what message traces are told of this stream */
void jsc_traced_await(jsc_stream *, uint64_t trace, uint64_t index);
void jsc_traced_applied(jsc_stream *, const jsc_record *, const jsc_verdict *);
void jsc_traced_tell(jsc_stream *, uint64_t trace, const char *subject, size_t n, const jsc_verdict *);
void jsc_traced_refused(jsc_stream *, uint64_t trace, const jsc_msg *, int err, const char *text);
void jsc_traced_only(jsc_stream *, const jsc_msg *); /* a message that is not to be stored */
void jsc_traced_forget(jsc_stream *);
/* move.c */
void jsc_moves_apply(jsc_stream *, const jsc_record *);
uint64_t jsc_moves_lowest(jsc_stream *); /* record of the message with the oldest one; UINT64_MAX: no messages */
int jsc_moves_add(jsc_stream *, uint64_t seq, uint64_t index); /* the entry says so already, or is about to */
void jsc_moves_sort(jsc_stream *); /* after they were added in another order than by index */
int jsc_moved_decode(jsc_record *, uint64_t *seq); /* a MOVED record becomes the message it holds; JSC_ECORRUPT */
/* snapshot.c */
uint64_t jsc_stream_keeps_beside_messages(const jsc_stream *); /* as jsc_stream_keeps, if no message were there */
void jsc_snapshot_moved(jsc_stream *, uint64_t seq, uint64_t was); /* a message is about to leave that record */
void jsc_snapshot_hold(jsc_stream *, uint64_t below); /* entries below that sequence are about to be freed */
/* limits.c */
void jsc_stream_remove(jsc_stream *, uint64_t seq); /* a live message; moves first_seq */
void jsc_stream_trim(jsc_stream *);
void jsc_stream_age_arm(jsc_stream *);
uint64_t jsc_stream_apply_purge(jsc_stream *, const char *filter, size_t n, uint64_t seq, uint64_t keep);
void jsc_stream_apply_expire(jsc_stream *, uint64_t below);
void jsc_stream_settle_first(jsc_stream *);
uint64_t jsc_stream_size(const jsc_stream *, size_t subject, size_t headers, size_t data);

/* ---- consumer ---- */
enum { JSC_P_GONE = 0, JSC_P_TIMED, JSC_P_HEAPED, JSC_P_READY };
typedef struct jsc_pend {
    uint64_t seq, cseq;
    int64_t ts, due; /* delivered, unix; due, unix (view only) */
    uint32_t count;
    uint8_t state;
} jsc_pend;
/* Progress of a consumer: deterministic from the records (applied), or the leader's newer view of it. */
typedef struct jsc_progress {
    uint64_t dseq, dcseq, fseq, fcseq; /* delivered and ack floor: stream sequence, consumer sequence */
    int64_t delivered_ns, ack_ns;
    jsc_pend *ring; /* sorted by seq; [head, tail) absolute */
    uint64_t head, tail;
    uint32_t cap, npending, nredelivered;
    uint64_t counted_to, pending; /* matching live messages in (dseq, counted_to] */
} jsc_progress;
typedef struct jsc_pull {
    struct jsc_pull *next, *prev;
    int64_t batch, max_bytes, expires, beat, beat_due; /* max_bytes 0 none; expires monotonic, JSC_NEVER none */
    uint64_t sent;
    uint8_t no_wait, has_bytes;
    uint32_t reply_len;
    char reply[];
} jsc_pull;
struct jsc_consumer {
    jsc_stream *stream;
    jsc_consumer *next;
    jsc_consumer *active_next, *dirty_next;
    uint8_t is_active, is_dirty, running, push, bound, stalled, more, limited;
    uint8_t unsure; /* a redelivery waits until the delivery before it is committed */
    uint64_t id;
    char *name;
    uint32_t name_len;
    int64_t created_ns;
    jsc_consumer_options o; /* with own copies behind the pointers */
    uint8_t *match; /* per subject id: 0 unknown, 1 no, 2 yes; NULL without filters */
    uint32_t match_cap;
    uint64_t *lps; /* last_per_subject: the sequences at creation, sorted */
    uint32_t nlps;
    uint64_t lps_upto;
    jsc_progress applied, view;
    /* leader */
    jsc_sub *sub_next, *sub_ack, *sub_fc;
    jsc_seqheap timed, ready;
    uint64_t timed_scan;
    jsc_pull *pulls, *pulls_tail;
    uint32_t npulls;
    int64_t pulls_due;
    jsc_timer timer;
    int64_t active_ns, beat_due, bind_due, bind_wait, replay_due, retry_due, report_due;
    uint64_t replay_ts;
    /* operations of this turn */
    jsc_bytes ops, replies;
    uint8_t run_op;
    uint64_t run_first, run_n;
    int64_t run_ts;
    uint64_t none_since; /* deliveries not yet recorded (ack none) */
    int64_t none_due;
    /* flow control */
    uint64_t fc_window, fc_out, fc_asked;
    char fc_subject[16];
    char prefix[24 + 2 * 256];
    uint32_t prefix_len; /* $JS.ACK.<stream>.<consumer>. */
};
static inline jsc_progress *jsc_consumer_now(jsc_consumer *c) { return c->stream->leading ? &c->view : &c->applied; }
/* consumer.c */
int jsc_consumer_wants(jsc_consumer *, uint64_t seq, const jsc_entry *e);
uint64_t jsc_consumer_find(jsc_consumer *, uint64_t from); /* next wanted live sequence >= from, or last + 1 */
uint64_t jsc_consumer_pending(jsc_consumer *, jsc_progress *);
void jsc_consumer_apply(jsc_stream *, const jsc_record *);
void jsc_consumer_removed(jsc_stream *, uint64_t seq, const jsc_entry *e);
void jsc_consumer_purged(jsc_stream *);
void jsc_consumer_subject_gone(jsc_stream *, uint32_t subject);
int jsc_stream_wanted(jsc_stream *, uint64_t seq, const jsc_entry *e);
void jsc_consumer_lead(jsc_consumer *);
void jsc_consumer_unlead(jsc_consumer *, const char *status, int pending);
jsc_consumer *jsc_consumer_by_id(const jsc_stream *, uint64_t id);
/* progress.c */
jsc_pend *jsc_progress_find(jsc_progress *, uint64_t seq);
int jsc_progress_deliver(jsc_progress *, uint64_t seq, int64_t ts, int track);
void jsc_progress_redeliver(jsc_progress *, jsc_pend *, int64_t ts);
void jsc_progress_done(jsc_progress *, jsc_pend *); /* acked, terminated or dropped */
void jsc_progress_below(jsc_progress *, uint64_t first);
int jsc_progress_copy(jsc_progress *to, const jsc_progress *from);
void jsc_progress_free(jsc_progress *);
/* record.c: CONSUMER_STATE operations */
enum { JSC_OP_DELIVER = 1, JSC_OP_REDELIVER = 2, JSC_OP_ACK = 3, JSC_OP_ACK_ALL = 4, JSC_OP_DROP = 5, JSC_OP_NONE = 6 };
void jsc_ops_add(jsc_consumer *, uint8_t op, uint64_t seq, int64_t ts);
void jsc_ops_none(jsc_consumer *); /* the deliveries of an ack-none consumer since the last time */
void jsc_consumer_reset_ops(jsc_consumer *);
void jsc_consumer_propose(jsc_consumer *);
void jsc_consumer_mark_dirty(jsc_consumer *);
/* deliver.c */
void jsc_consumer_wake(jsc_consumer *);
void jsc_consumer_serve(jsc_consumer *, int64_t mono, int64_t unix_ns);
void jsc_consumer_status(jsc_consumer *, const char *to, size_t n, const char *status, const char *more);
/* pull.c */
void jsc_pull_request(void *consumer, const jsc_msg *);
void jsc_pull_ask(jsc_consumer *, const char *reply, size_t rn, const char *body, size_t n);
void jsc_pull_drop(jsc_consumer *, jsc_pull *);
void jsc_pull_rotate(jsc_consumer *, jsc_pull *);
void jsc_pull_end(jsc_consumer *, jsc_pull *, const char *status, int pending);
void jsc_pull_sweep(jsc_consumer *, int64_t mono);
/* ack.c */
void jsc_ack_message(void *consumer, const jsc_msg *);
int64_t jsc_consumer_wait_ns(const jsc_consumer *, uint32_t count);
void jsc_consumer_due(jsc_consumer *, jsc_pend *, int64_t due); /* puts it on the heap */
void jsc_consumer_ready(jsc_consumer *, jsc_pend *);
void jsc_consumer_expire(jsc_consumer *, int64_t unix_ns);
int64_t jsc_consumer_next_due(jsc_consumer *); /* unix ns, JSC_NEVER none */
/* push.c */
void jsc_push_fc(void *consumer, const jsc_msg *);
int jsc_push_bound(jsc_consumer *, int64_t mono);
void jsc_push_sent(jsc_consumer *, uint64_t bytes, int64_t mono);
void jsc_push_beat(jsc_consumer *, int64_t mono);
#endif
