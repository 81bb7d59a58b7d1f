/* The message log's contract: a record log (jsc.h) with an index of its messages: by sequence, by time, by subject. This
 * is what `import jscore` opens. Every call may come from any thread; one lock a log. Bytes: docs/format.md.
 *
 * Sequences: messages are numbered from 1 without holes as they are appended; a tombstone (delete, purge) or a change of
 * limits takes a record index, not a sequence. "Live": appended and not deleted. */
#ifndef JSC_MLOG_H
#define JSC_MLOG_H
#include "crypt.h"
#include "filter.h"
#include "jsc.h"

typedef struct jsc_mlog jsc_mlog;

/* What is kept; 0: no limit. Recorded in the log when changed, applied as messages are appended: the oldest go first.
 * Age counts from the newest message's time, so it needs no clock. */
typedef struct jsc_limits {
    uint64_t max_messages, max_bytes; /* live messages; bytes of their records */
    uint64_t max_per_subject;
    int64_t max_age_ns;
} jsc_limits;

typedef struct jsc_mlog_options {
    int sync_mode; /* JSC_SYNC_ALWAYS, ... */
    int64_t interval_ns;
    uint64_t segment_bytes; /* 0: 64 MiB */
    uint64_t memory_bytes; /* budget of caches: subjects, blocks, decrypted sidecars. 0: 64 MiB */
    const jsc_limits *limits; /* NULL: as the log has them */
    bool read_only; /* takes no lock, changes nothing; sees what a writer adds by jsc_mlog_refresh */
    bool check_lock; /* read-only, but JSC_ELOCKED when a writer has the log; held until close */
    bool without_checkpoint; /* else JSC_ECORRUPT, and nothing changed, where `unsure` below */
    bool background; /* a thread flushes, seals, compacts, packs and scrubs; else only jsc_mlog_maintain does */
    int zstd_level; /* 0: sealed segments are not compressed; 1..19 */
    jsc_keys *keys; /* NULL: not encrypted */
    uint64_t compact_bytes_per_s, scrub_bytes_per_s; /* 0: 64 MiB/s, 8 MiB/s; UINT64_MAX: unbounded / for scrub: off */
    int64_t (*now)(void *); /* unix ns, for messages without a time of their own; NULL: the real clock */
    void *now_arg;
} jsc_mlog_options;

/* One place of damage: records [first, last] of a segment file are lost to readers until repaired. */
typedef struct jsc_damage {
    uint64_t segment; /* first index of the segment: its file's name */
    uint64_t offset; /* byte in the file (plain) or image (packed) where it starts; 0: unknown */
    uint64_t first, last; /* record indexes */
    uint64_t first_seq, last_seq; /* sequences among them; first_seq > last_seq: no message, or not known */
    bool seqs_exact; /* false: the sequences are bounds, kinds of lost records could not be told */
} jsc_damage;

typedef struct jsc_mlog_recovery {
    jsc_log_recovery log;
    uint64_t sidecars_rebuilt; /* found missing or bad at open */
    bool checkpoint_rebuilt; /* deletions were worked out by reading the whole log */
    bool unsure; /* there is no file of the checkpoint that verifies, compaction or the front that is gone took records
                    out, and limits or purges with `keep` were in force: all messages that are there and were not deleted
                    by name are live again */
} jsc_mlog_recovery;

/* *recovery is set on failure too, as far as it came. */
int jsc_mlog_open(const jsc_vfs *, const char *dir, const jsc_mlog_options *, jsc_mlog **out, jsc_mlog_recovery *);
/* Submits, waits until durable, writes a checkpoint and the clean mark. First error met; closed in any case. No message
 * or cursor may be held. */
int jsc_mlog_close(jsc_mlog *);
void jsc_mlog_abandon(jsc_mlog *); /* closes without writing: a test's crash */
/* Both in two steps, for callers whose messages and columns outlive the log (close is shut(log, true) and free, abandon
 * shut(log, false) and free). After shut the lock is given back, threads are gone, and only jsc_message_release,
 * jsc_columns_release and, when nothing is held any more, jsc_mlog_free may be called. No cursor may be held. */
int jsc_mlog_shut(jsc_mlog *, bool write);
void jsc_mlog_free(jsc_mlog *);
/* In the child after fork(), instead of every other call: gives back the descriptors, so that the child keeps no lock
 * of its parent. Takes no lock, frees nothing; what messages point to stays readable. Real files only. */
void jsc_mlog_forked(jsc_mlog *);

/* ---- writing ---- */

/* Appends one message; *seq is its sequence. Not durable yet. ts 0: now; it is raised to the last message's time where it
 * is below. JSC_EINVAL (sizes), JSC_EFULL, JSC_EFAILED, JSC_EREADONLY append nothing. */
int jsc_mlog_append(jsc_mlog *, const jsc_span *subject, const jsc_span *headers, const jsc_span *data, int64_t ts,
                    uint64_t *seq);
/* Many at once under one lock: *done messages were appended, their sequences end with *last_seq. JSC_EINVAL (sizes):
 * none. */
typedef struct jsc_mlog_new {
    jsc_span subject, headers, data;
    int64_t ts;
} jsc_mlog_new;
int jsc_mlog_extend(jsc_mlog *, const jsc_mlog_new *, size_t n, size_t *done, uint64_t *last_seq);
/* Tombstones. Delete: JSC_ENOTFOUND when not live. */
int jsc_mlog_delete(jsc_mlog *, uint64_t seq);
/* Deletes live messages below before_seq (0: all) that match (filter NULL: all), but for the newest `keep`. *n: how many
 * went. One record whatever the number. */
int jsc_mlog_purge(jsc_mlog *, const jsc_span *filter, uint64_t before_seq, uint64_t keep, uint64_t *n);
int jsc_mlog_set_limits(jsc_mlog *, const jsc_limits *);

/* Everything appended so far goes to the disk, with what is appended meanwhile (group commit); returns at once.
 * *position: hand it to jsc_mlog_wait. */
int jsc_mlog_submit(jsc_mlog *, uint64_t *position);
/* Blocks until all up to the position is durable. The first error of the log; -ETIMEDOUT. timeout_ns < 0: no end. */
int jsc_mlog_wait(jsc_mlog *, uint64_t position, int64_t timeout_ns);
/* As jsc_mlog_wait, for callers who then take a lock that others who wait want too, as an interpreter's: they come to it
 * one by one. *to_pass: jsc_mlog_pass is to be called as soon as it is taken, for the next one. */
int jsc_mlog_await(jsc_mlog *, uint64_t position, int64_t timeout_ns, bool *to_pass);
void jsc_mlog_pass(jsc_mlog *);
/* Submits, and blocks until everything appended so far is synced, whatever the sync mode (in the interval and never modes
 * "durable" means written). As jsc_mlog_wait otherwise. */
int jsc_mlog_sync(jsc_mlog *, int64_t timeout_ns);
/* For who appends without end: while more than a few full segments are not sealed, lets the thread come after. So
 * the next opening, which reads them, stays short; and so does memory, which holds their index. -ETIMEDOUT. */
int jsc_mlog_let_seal(jsc_mlog *, int64_t timeout_ns);
uint64_t jsc_mlog_position(jsc_mlog *); /* of the last record appended */
uint64_t jsc_mlog_durable_position(jsc_mlog *); /* everything up to it is durable */
uint64_t jsc_mlog_durable(jsc_mlog *); /* the highest sequence that is durable */
int jsc_mlog_error(jsc_mlog *); /* JSC_OK, or the failure that ended writing */
/* Readable when the durable position moved or the log failed, until jsc_mlog_poll (which returns the position). */
int jsc_mlog_eventfd(jsc_mlog *);
uint64_t jsc_mlog_poll(jsc_mlog *);

/* ---- reading ---- */

typedef struct jsc_message {
    uint64_t seq;
    jsc_record r; /* subject, headers, data point into what is held */
    void *hold; /* the segment, block or copy that keeps the bytes; opaque */
    uint8_t hold_kind;
} jsc_message;
/* Verified on every read. JSC_ENOTFOUND: not live, or beyond the end. JSC_ECORRUPT: lost to damage. The message stays
 * readable until released, whatever happens to the log meanwhile. */
int jsc_mlog_get(jsc_mlog *, uint64_t seq, jsc_message *out);
void jsc_message_release(jsc_mlog *, jsc_message *);

uint64_t jsc_mlog_first(jsc_mlog *); /* first live sequence; last + 1 when none */
uint64_t jsc_mlog_last(jsc_mlog *); /* last sequence given out; 0 when none ever */
/* First live sequence with a time >= ts; JSC_ENOTFOUND. */
int jsc_mlog_at(jsc_mlog *, int64_t ts, uint64_t *seq);
/* Newest and oldest live message of exactly one subject. JSC_ENOTFOUND. */
int jsc_mlog_last_of(jsc_mlog *, const jsc_span *subject, uint64_t *seq);
int jsc_mlog_first_of(jsc_mlog *, const jsc_span *subject, uint64_t *seq);
/* The same, the message itself at once; JSC_ENOTFOUND also when its sequence is below `from`. JSC_ECORRUPT: out->seq is the
 * one that is lost. */
int jsc_mlog_get_end(jsc_mlog *, const jsc_span *subject, bool last, uint64_t from, jsc_message *out);
/* Live messages with seq >= from that match. */
int jsc_mlog_count(jsc_mlog *, const jsc_filter *, uint64_t from, uint64_t *n);
/* Live messages' subjects that match, ascending, with their counts and first and last sequences; each returns 0 to go on.
 * The lock is held meanwhile: each must be short. after: NULL, or start behind this subject (for slices). */
typedef struct jsc_subject_info {
    jsc_span text;
    uint64_t count, first_seq, last_seq;
} jsc_subject_info;
int jsc_mlog_subjects(jsc_mlog *, const jsc_filter *, const jsc_span *after,
                      int (*each)(void *ctx, const jsc_subject_info *), void *ctx);

/* Walks live messages that match (filter NULL: all), from sequence `from`, itself included, upward or downward; downward
 * from beyond the end is from the end as it is at the first call. Sees what is appended behind it while it goes. One thread
 * at a time. A message whose subject is lost to damage matches no filter. */
typedef struct jsc_cursor jsc_cursor;
int jsc_cursor_new(jsc_mlog *, const jsc_filter *, uint64_t from, bool backward,
                   jsc_cursor **out); /* takes no filter over: it must outlive */
void jsc_cursor_free(jsc_cursor *);
/* Next messages, at most max; *n 0: none now. A message lost to damage ends a call early; when it is the first of a call:
 * JSC_ECORRUPT, *n 0 and out[0].seq says which; the cursor stands behind it. */
int jsc_cursor_next(jsc_cursor *, jsc_message *out, int max, int *n);
uint64_t jsc_cursor_position(const jsc_cursor *); /* where the next call starts to look */

typedef struct jsc_mlog_stats {
    uint64_t first_seq, last_seq, messages, message_bytes; /* live; bytes of their records */
    uint64_t segments, disk_bytes; /* files of all kinds, as allocated by their sizes */
    uint64_t first_index, last_index, durable_index, durable_seq;
    uint64_t heap_bytes, tail_messages, tail_heap; /* heap of indexes and caches; the open segment's share */
    uint64_t lost_records;
    uint64_t compactions, compacted_bytes, scrubbed_bytes, scrub_rounds;
    jsc_limits limits;
} jsc_mlog_stats;
int jsc_mlog_about(jsc_mlog *, jsc_mlog_stats *out);

/* Zero-copy columns of the segment that holds the first message (dead or live) with a sequence >= from, whole: start with
 * 1, go on behind the last sequence got. JSC_ENOTFOUND: there is none. Sealed segments only map; the open one is copied.
 * Dead messages are in it: `dead` has a bit for each (NULL: none), copied. Pinned until released. */
typedef struct jsc_columns {
    uint32_t count;
    const uint64_t *seq;
    const int64_t *ts;
    const uint32_t *size; /* payload bytes */
    const uint64_t *dead;
    void *hold;
} jsc_columns;
int jsc_mlog_columns(jsc_mlog *, uint64_t from, jsc_columns *out);
void jsc_columns_release(jsc_mlog *, jsc_columns *);

/* ---- following ---- */

/* Read-only logs: takes in what a writer in another process made durable since. Writers: nothing to do. */
int jsc_mlog_refresh(jsc_mlog *);
/* Blocks until a message above seq is durable (also one appended by another process), or the timeout: -ETIMEDOUT. */
int jsc_mlog_wait_beyond(jsc_mlog *, uint64_t seq, int64_t timeout_ns);

/* ---- care ---- */

enum { JSC_CARE_FLUSH = 1, JSC_CARE_SEAL = 2, JSC_CARE_COMPACT = 4, JSC_CARE_SCRUB = 8, JSC_CARE_ALL = 15 };
/* Does what the background thread would, now, in the caller's thread, until nothing is left: seals full segments, compacts
 * and packs what is due (COMPACT: every segment with anything dead when `force`), one whole round of scrubbing. */
int jsc_mlog_maintain(jsc_mlog *, int what, bool force);
/* Damage known now, ascending; at most max, *n: how many there are. */
int jsc_mlog_damage(jsc_mlog *, jsc_damage *out, size_t max, size_t *n);
/* Verifies everything: every byte of every segment against its checksums and digests, padding and unused space that must
 * be zero, sidecars and checkpoint against the segments. each(ctx, file name, offset, sentence) for each finding;
 * progress(ctx, done, total bytes) returns other than 0 to stop: -ECANCELED. Neither is called under the lock that appends
 * take; they may not call for care (maintain, repair, verify, close). A sentence starts with its class: "damage: " of
 * segments; "torn: " the end of the log, which a crash or damage left; "cache: " a sidecar or one copy of the checkpoint, which
 * the next opening for writing makes again; "remains: " files that are nobody's. -ESTALE: a reader beside a writer that
 * exchanged files meanwhile; what was still there is verified. */
typedef struct jsc_verify {
    void (*finding)(void *ctx, const char *file, uint64_t offset, const char *what);
    int (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
} jsc_verify;
int jsc_mlog_verify(jsc_mlog *, const jsc_verify *);
/* Gives back lost records: raw records as from jsc_mlog_copy_records of a replica. Takes those that are lost here and
 * verify (CRC, index, and the batch's or file's checksum where that survived), ignores the rest; *healed: how many. A
 * segment is rewritten once all its lost records are there. JSC_ECORRUPT: a record that contradicts a surviving checksum. */
int jsc_mlog_repair(jsc_mlog *, const void *raw, size_t n, uint64_t *healed);
/* Raw records [lo, hi] by index, for a replica's repair; gaps and trailers left out. malloc'ed. */
int jsc_mlog_copy_records(jsc_mlog *, uint64_t lo, uint64_t hi, uint8_t **out, size_t *n);
#endif
