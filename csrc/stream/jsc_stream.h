/* JetStream's hot half: one stream replica over its log, and its consumers. Decisions fall at apply, from the records
 * alone, so that every replica agrees; delivery is local to the leader. Same thread as the plane. */
#ifndef JSC_STREAM_H
#define JSC_STREAM_H
#include "../wire/jsc_plane.h"

typedef struct jsc_streams jsc_streams; /* all streams of one server: hooks the plane's turn, watches the store */
typedef struct jsc_stream jsc_stream;
typedef struct jsc_consumer jsc_consumer;

int jsc_streams_new(jsc_plane *, jsc_store *, jsc_streams **out);
void jsc_streams_free(jsc_streams *);
/* Logs without a stream (the meta group's, the hard-state log): their progress becomes JSC_EV_DURABLE / _FAILED with
 * this id. Stream logs are owned by their stream. */
int jsc_streams_own_log(jsc_streams *, jsc_log *, uint64_t id);
void jsc_streams_disown_log(jsc_streams *, jsc_log *); /* before closing it */

/* Bytes that an account's streams may take with all their replicas, by kind of storage; -1 any number. elsewhere: held by
 * streams that other servers lead. A publish that would exceed it is refused with 10002, and JSC_EV_QUOTA says so once. */
typedef struct jsc_quota {
    int64_t memory, storage, elsewhere_memory, elsewhere_storage;
} jsc_quota;
int jsc_streams_quota(jsc_streams *, jsc_account *, const jsc_quota *);
void jsc_streams_used(jsc_streams *, jsc_account *, int64_t *memory, int64_t *storage); /* by streams led here */
void jsc_streams_held(jsc_streams *, int64_t *memory, int64_t *storage); /* by all here, this replica of each */
/* Ids of the streams that are new, or whose log was written to, since they were last given out: at most n, call again while
 * that many came. What the host does now and then for each costs nothing for those in which nothing happens. */
size_t jsc_streams_written(jsc_streams *, uint64_t *ids, size_t n);

#define JSC_API_LEVEL 0 /* as API_LEVEL in jetstream/models.py */
#define JSC_SEQ_MAX (1ull << 62) /* no sequence is set beyond it: those after it must have numbers too */
enum { JSC_RETAIN_LIMITS = 0, JSC_RETAIN_INTEREST = 1, JSC_RETAIN_WORKQUEUE = 2 };
typedef struct jsc_stream_limits { /* -1 = none where signed; ns */
    int64_t max_msgs, max_bytes, max_msgs_per_subject, max_age_ns, duplicate_window_ns;
    int32_t max_msg_size;
    uint8_t retention, discard_new, discard_new_per_subject, no_ack, sealed, deny_delete, deny_purge, allow_rollup;
    uint8_t file_storage; /* accounted size: file 22+8(+4) else 16 */
    uint8_t replicas; /* each counts against the account's quota; 0 is 1 */
    uint64_t first_seq;
} jsc_stream_limits;

/* id: the host's number in events. The log is already open; nothing is applied yet. */
int jsc_stream_new(jsc_streams *, jsc_log *, uint64_t id, jsc_account *, const char *name, size_t n, jsc_stream **out);
/* Ends leadership, frees consumers and tables; the log is the caller's to close. */
void jsc_stream_free(jsc_stream *);
int jsc_stream_configure(jsc_stream *, const jsc_stream_limits *); /* applies from here; trims at once */
/* The patterns it captures; takes effect on subscriptions when leading. */
int jsc_stream_subjects(jsc_stream *, const char *const *subjects, const uint32_t *lens, int n);

/* Leading: subscribes to the subjects, frames what arrives as records of this term, keeps who waits for which ack. At
 * the end of a turn in which records were appended JSC_EV_APPENDED is emitted (not when solo) and the batch submitted; where
 * that is no sync it is submitted a turn later, with all that goes out for it before. */
int jsc_stream_lead(jsc_stream *, uint32_t term);
void jsc_stream_follow(jsc_stream *); /* unsubscribes; waiting publishers hear nothing */
/* As follow, at a clean stop of the server: waiting pulls get 409 Server Shutdown, a solo stream keeps the last acks. */
void jsc_stream_shutdown(jsc_stream *);
/* A group of one: what is durable on this disk is committed and applied in C, without the host language; call it before
 * the first commit. A damaged record then uses up a sequence and is passed over; with replicas the commit returns
 * JSC_ECORRUPT and stands still instead. */
void jsc_stream_solo(jsc_stream *, int on);
/* Appends a record of any other kind as leader (term of jsc_stream_lead); submitted with the turn. */
int jsc_stream_propose(jsc_stream *, uint8_t kind, const void *data, size_t n, uint64_t *index);
/* Everything up to index is committed: applies. JSC_OK when applied == index; JSC_EHOST when record applied+1 is of a
 * host kind (CONFIG, MEMBERS, CONSUMER_CREATE, CONSUMER_DELETE, HOST): the caller handles it, calls jsc_stream_skip,
 * and commits again. */
int jsc_stream_commit(jsc_stream *, uint64_t index);
int jsc_stream_skip(jsc_stream *); /* the host has applied record applied+1 */
uint64_t jsc_stream_applied(const jsc_stream *);
uint64_t jsc_stream_committed(const jsc_stream *);

/* ---- the state as of one record, so that records before it may go ----
 * Taken in steps, while the stream goes on: begin captures what applied up to now, step works for a few milliseconds at
 * most, 1 when it is done, JSC_EINVAL when too much was removed meanwhile: begin again. file: what jsc_snapshot_write
 * takes; index: of the last record applied; first: of the first record that is still needed. `host`: bytes of the host's
 * own, given back. */
int jsc_stream_snapshot_begin(jsc_stream *, const void *host, size_t n);
int jsc_stream_snapshot_step(jsc_stream *);
int jsc_stream_snapshot_file(jsc_stream *, const uint8_t **file, size_t *n, uint64_t *index, uint64_t *first);
void jsc_stream_snapshot_end(jsc_stream *); /* also when it is not done */
/* The first record that is needed by what is applied now. */
uint64_t jsc_stream_keeps(jsc_stream *);
/* As leader: appends messages again whose records lie below `below` and hold up others, the oldest first, about so many
 * bytes; submitted with the turn. 1: those are on their way, ask again; 0: there are none left; else an error. */
int jsc_stream_move(jsc_stream *, uint64_t below, uint64_t bytes);
/* A file of jsc_stream_snapshot_file (verified): the host's bytes in it. */
int jsc_stream_snapshot_host(const uint8_t *file, size_t n, const uint8_t **host, size_t *hn);
/* On a stream that has applied nothing and is configured as the host's bytes say: all but its consumers. The log holds
 * the records from `first` to `index`. `lossy`: one that does not verify is passed over, else JSC_ECORRUPT; *lost: how
 * many. Then the host adds the consumers, and restore_consumers gives each its progress; JSC_ECORRUPT: not the same ones. */
int jsc_stream_restore(jsc_stream *, const uint8_t *file, size_t n, int lossy, uint64_t *lost);
int jsc_stream_restore_consumers(jsc_stream *);

typedef struct jsc_stream_state {
    uint64_t messages, bytes, first_seq, last_seq, num_subjects, num_deleted;
    int64_t first_ts, last_ts; /* unix ns, 0 none */
} jsc_stream_state;
void jsc_stream_stat(const jsc_stream *, jsc_stream_state *out);
void jsc_stream_amount(const jsc_stream *, uint64_t *messages, uint64_t *bytes); /* no look at the log */
/* The stored message: *seq set. Reads verify. JSC_ENOTFOUND / JSC_ECORRUPT. */
int jsc_stream_get(jsc_stream *, uint64_t seq, jsc_record *out);
int jsc_stream_last(jsc_stream *, const char *pattern, size_t n, uint64_t *seq, jsc_record *out);
int jsc_stream_next(jsc_stream *, const char *pattern, size_t n, uint64_t from, uint64_t *seq, jsc_record *out);
int jsc_stream_seq_at(jsc_stream *, int64_t unix_ns, uint64_t *seq); /* first live message with ts >= */
/* Counts per subject matching the pattern: calls each(ctx, subject, len, count, last_seq). */
int jsc_stream_subject_counts(jsc_stream *, const char *pattern, size_t n,
                              int (*each)(void *ctx, const char *s, size_t n, uint64_t count, uint64_t last_seq),
                              void *ctx);
/* Deleted sequences between first and last: each(ctx, seq). */
int jsc_stream_deleted(jsc_stream *, int (*each)(void *ctx, uint64_t seq), void *ctx);
/* seq above JSC_SEQ_MAX is JSC_EINVAL. Asks for a record; when it is applied, `reply` (copied) gets the JSON answer through the plane:
 * {"type":"io.nats.jetstream.api.v1.stream_purge_response","success":true,"purged":N} ; delete likewise. */
int jsc_stream_purge(jsc_stream *, const char *filter, size_t n, uint64_t seq, uint64_t keep, const char *reply,
                     size_t rn);
int jsc_stream_delete(jsc_stream *, uint64_t seq, const char *reply, size_t rn);

/* ---- consumers ---- */
enum {
    JSC_DELIVER_ALL,
    JSC_DELIVER_LAST,
    JSC_DELIVER_NEW,
    JSC_DELIVER_BY_SEQ,
    JSC_DELIVER_BY_TIME,
    JSC_DELIVER_LAST_PER_SUBJECT
};
enum { JSC_ACK_NONE, JSC_ACK_ALL, JSC_ACK_EXPLICIT };
typedef struct jsc_consumer_options {
    uint8_t deliver_policy, ack_policy, flow_control, headers_only, replay_original;
    uint64_t opt_start_seq;
    int64_t opt_start_ns, ack_wait_ns, idle_heartbeat_ns, inactive_threshold_ns; /* 0 none */
    int64_t max_deliver, max_ack_pending, max_waiting, max_batch, max_bytes, max_expires_ns; /* -1 / 0 none */
    const int64_t *backoff_ns;
    int backoffs;
    const char *const *filters; /* 0 filters: everything */
    const uint32_t *filter_lens;
    int nfilters;
    const char *deliver_subject; /* NULL: pull */
    uint32_t deliver_subject_len;
    const char *deliver_group;
    uint32_t deliver_group_len;
} jsc_consumer_options;
/* At apply of CONSUMER_CREATE, on every replica, with the record's own time: the start position is computed from the
 * state at that point. An id that exists already is an update: progress stays, the options are replaced (push stays push,
 * pull stays pull: JSC_EINVAL otherwise) and *out is the same consumer. id: the host's number, used in events and in CONSUMER_STATE records (so equal on all replicas). */
int jsc_consumer_new(jsc_stream *, uint64_t id, const char *name, size_t n, int64_t created_ns,
                     const jsc_consumer_options *, jsc_consumer **out);
void jsc_consumer_free(jsc_consumer *); /* waiting pulls get 409 Consumer Deleted when the stream leads */
typedef struct jsc_consumer_state {
    uint64_t delivered_consumer, delivered_stream, ack_floor_consumer, ack_floor_stream;
    uint64_t num_ack_pending, num_redelivered, num_waiting, num_pending;
    int64_t last_delivered_ns, last_ack_ns;
    uint8_t push_bound;
} jsc_consumer_state;
void jsc_consumer_stat(jsc_consumer *, jsc_consumer_state *out);
/* When leading: serves MSG.NEXT on $JS.API.CONSUMER.MSG.NEXT.<stream>.<name>, acks on $JS.ACK.<stream>.<name>.>, push
 * delivery, redelivery, heartbeats, flow control, all in C. Progress is proposed as CONSUMER_STATE records once per turn.
 * A double ack (an ack with a reply) is answered when its record is applied. An inactive ephemeral becomes
 * JSC_EV_EXPIRED with a = stream id, b = consumer id: the host proposes its deletion. */
enum { JSC_EV_EXPIRED = 20 };
/* JSC_EV_FULL: a = stream id, b = 1 when its disk became full (publishers hear 10023), 0 when it takes messages again. */
enum { JSC_EV_FULL = 21 };
/* JSC_EV_QUOTA: a = stream id, b = 1 for file storage, 0 for memory: a publish was too much for the account. */
enum { JSC_EV_QUOTA = 22 };
/* JSC_EV_JUDGED: what a stream made of a traced message. a = the trace's id, b: 0 stored, 1 stored and not kept as nobody
 * wants it, 2 a duplicate, else the error's number; subject: the stream, reply: the message's subject, data: the error. */
enum { JSC_EV_JUDGED = 24 };
#endif
