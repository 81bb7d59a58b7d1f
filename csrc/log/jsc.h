/* The log engine's contract: a store is a sync thread over many logs; a log is a directory of segments holding records
 * with dense indexes. One thread (the owner) makes every call here; the store's own thread only writes and syncs.
 * The bytes are described in docs/format.md. */
#ifndef JSC_H
#define JSC_H
#include "../base/jsc_base.h"
#include "../base/jsc_vfs.h"

#include <stdbool.h>

#define JSC_FORMAT_VERSION 2

/* Kinds of record. The engine treats all alike but JSC_K_TRAILER, which is its own and has no index. */
enum {
    JSC_K_MESSAGE = 1,
    JSC_K_NOOP = 2,            /* a new leader's first entry */
    JSC_K_CONFIG = 3,          /* host: JSON */
    JSC_K_MEMBERS = 4,         /* host: a Raft configuration, JSON */
    JSC_K_PURGE = 5,           /* stream */
    JSC_K_DELETE = 6,          /* stream */
    JSC_K_CONSUMER_CREATE = 7, /* host: JSON */
    JSC_K_CONSUMER_DELETE = 8, /* host: JSON */
    JSC_K_CONSUMER_STATE = 9,  /* stream: deliveries and acks of one consumer */
    JSC_K_HOST = 10,           /* host: anything else */
    JSC_K_LIMITS = 11,         /* message log: what is kept */
    JSC_K_MOVED = 12,          /* stream: a message again, so that its older record may go */
    JSC_K_LIMITED = 13,        /* message log: where limits began, when that goes with the front */
    JSC_K_GAP = 254,           /* the engine's own: indexes whose records compaction took out */
    JSC_K_TRAILER = 255,
};

/* Record as stored and as sent to followers, little endian, starts 8-byte aligned, padded with zeros to 8:
 *   0 u32 crc     crc32c of bytes [4, len)
 *   4 u32 len     bytes of the record without padding
 *   8 u64 index
 *  16 i64 ts      unix time in ns
 *  24 u32 term
 *  28 u16 subject length
 *  30 u8 kind
 *  31 u8 flags    bit 0: bytes 32..36 are a u32 header length, 36..40 zero, and the subject starts at 40; else at 32
 *  subject, headers, payload */
#define JSC_RECORD_HEAD 32
#define JSC_F_HEADERS 1

typedef struct jsc_record {
    uint64_t index;
    int64_t ts;
    uint32_t term;
    uint8_t kind, flags;
    uint16_t subject_len;
    uint32_t headers_len, data_len;
    const char *subject, *headers, *data;
    const uint8_t *raw; /* the record's first byte */
    uint32_t raw_len;   /* with padding */
} jsc_record;

/* Decodes the record at p (n bytes readable): every length is checked before use and the CRC verified. *used = padded
 * length. JSC_ECORRUPT when it does not verify or n is too short. */
int jsc_record_decode(const void *p, size_t n, jsc_record *out, size_t *used);

typedef struct jsc_store jsc_store;
typedef struct jsc_log jsc_log;

enum { JSC_SYNC_ALWAYS = 0, JSC_SYNC_INTERVAL = 1, JSC_SYNC_NEVER = 2 };

/* One sync thread and one eventfd over any number of logs. With JSC_SYNC_INTERVAL "durable" means written to the file
 * system, and files are synced every interval_ns and at close. */
int jsc_store_open(const jsc_vfs *vfs, int sync_mode, int64_t interval_ns, jsc_store **out);
/* Readable (epoll) whenever some log's durable index moved or a log failed, until jsc_store_poll. */
int jsc_store_eventfd(jsc_store *);
/* The logs whose durable index moved or that failed since the last call; at most max, call again while == max. */
int jsc_store_poll(jsc_store *, jsc_log **out, int max);
/* Where many logs are written at once, up to `most` (32) threads more sync them, each log one at a time: a journaling file
 * system makes one commit of what is synced together. Before the first log is opened; not for simulated disks. */
int jsc_store_hands(jsc_store *, int most);
/* For a caller with thousands of logs, now and then: those that were not written to since the call before give back the
 * memory of their tails and the descriptors of their files, which come back with the next write. Pointers that jsc_log_read
 * gave are void. */
void jsc_store_relax(jsc_store *);
void jsc_store_close(jsc_store *); /* all logs must be closed */

typedef struct jsc_log_options {
    uint64_t segment_bytes; /* 0: 64 MiB; a power of two not needed */
    uint64_t first_index;   /* of a new log; 0: 1 */
    uint32_t first_term;    /* of a new log that begins later: of the record before its first */
    uint64_t synced;        /* records up to it are known to have been: what is missing of them at the end of the log
                               was damaged, not torn. 0: not known */
    uint64_t keep; /* records below it are not needed any more: segments that hold only such are removed. 0: all are */
    bool read_only; /* takes no lock and changes nothing; see jsc_log_refresh */
    bool check_lock; /* read-only, but JSC_ELOCKED when a writer has it; the lock is held until close */
    bool keep_images; /* until jsc_log_opened: the first jsc_segment_visit of the segments that were read at open (at
                         least of the newest two) reads nothing, and room for reading is kept */
    bool recycle; /* files of segments that are dropped serve again, unless readers in other processes look at them */
    struct jsc_keys *keys; /* NULL: new segments are plain. A ref is taken */
    struct jsc_block_cache *blocks; /* for packed segments; outlives the log. NULL: one of the log's own */
} jsc_log_options;

typedef struct jsc_log_recovery {
    uint64_t torn_bytes; /* cut from the tail: never acknowledged */
    uint64_t damaged_index; /* first damaged record at or below a durable position; 0: none. Records from it to the next
                                good segment or record read as JSC_ECORRUPT; nothing is cut */
    uint64_t commit; /* as recorded by jsc_log_set_commit before, 0 if never */
    char message[256]; /* a sentence for the log when torn or damaged, else empty */
} jsc_log_recovery;

/* Opens or creates the log in directory `dir` (created too), taking its lock. JSC_EFORMAT leaves everything untouched. */
int jsc_log_open(jsc_store *, const char *dir, const jsc_log_options *, jsc_log **out, jsc_log_recovery *rec);
void jsc_log_opened(jsc_log *); /* keep_images: its segments were visited; what was kept for that goes */
/* Submits what is pending, waits until it is durable, writes the clean mark, closes. Returns the first error met. */
int jsc_log_close(jsc_log *);
void jsc_log_abandon(
    jsc_log *); /* closes without writing anything more: for a log about to be deleted, or a test's crash */

/* Frames one record with index last+1 and copies it into the tail. headers_len 0 = none. Not durable, not submitted.
 * JSC_EFULL / JSC_EFAILED / JSC_EINVAL (sizes) append nothing. */
int jsc_log_append(jsc_log *, uint32_t term, int64_t ts, uint8_t kind, const void *subject, size_t subject_len,
                   const void *headers, size_t headers_len, const void *data, size_t data_len, uint64_t *index);
/* Appends framed records (a run of raw records as from jsc_log_copy), those with index < from are skipped. Verifies
 * each: JSC_ECORRUPT, and JSC_EORDER unless the first taken is last+1 and the rest dense; then nothing is appended. */
int jsc_log_append_raw(jsc_log *, const void *bytes, size_t n, uint64_t from);
/* The same of records whose checksums were verified a moment ago, in this memory: those are not looked at again. */
int jsc_log_append_verified(jsc_log *, const void *bytes, size_t n, uint64_t from);
/* Ends the batch: everything appended so far goes to the sync thread. Cheap when nothing is new. */
int jsc_log_submit(jsc_log *);
/* The same, but where no sync is asked for (JSC_SYNC_INTERVAL, JSC_SYNC_NEVER) the caller writes a little by itself: two
 * switches of threads cost more. Then the durable index has moved when this returns, and jsc_store_poll does not tell. */
int jsc_log_submit_now(jsc_log *);
bool jsc_log_is_lazy(const jsc_log *); /* the store syncs at intervals or never: durable means written */
/* When all is synced, but no trailer says so yet: writes one that does. From then on damage to the last batch is told from
 * a torn tail. For a log that fell silent. */
int jsc_log_mark(jsc_log *);
bool jsc_log_unmarked(const jsc_log *); /* there is, or will be once it is synced, something to state */
/* Removes every record with index > last; durable when it returns (it waits for the disk; rare). JSC_EINVAL where that
 * would cut an encrypted segment, or one that compaction made: those hold what was committed long ago. */
int jsc_log_truncate(jsc_log *, uint64_t last);

/* Lets go of segments, at most `most`, that hold nothing at or above `keep` and are synced. What they were needed for must
 * be durable elsewhere: nothing brings them back. Pointers into records become invalid, as by an append. */
int jsc_log_trim(jsc_log *, uint64_t keep, size_t most);
uint64_t jsc_log_trimmable(const jsc_log *, uint64_t keep); /* bytes that it would free */
uint64_t jsc_log_open_bytes(const jsc_log *, uint64_t keep); /* bytes below `keep` in the segment that appends go to */
/* Ends the segment that appends go to, so that it can be let go of one day. Nothing when it is empty. */
int jsc_log_roll(jsc_log *);

uint64_t jsc_log_first(const jsc_log *); /* first index held (last+1 when empty) */
uint64_t jsc_log_last(const jsc_log *); /* last appended; first-1 when empty */
uint64_t jsc_log_durable(const jsc_log *); /* every record <= it is on the disk; any thread may ask */
uint64_t jsc_log_synced(const jsc_log *); /* every record <= it was synced, also where durable means less; any thread */
int jsc_log_error(const jsc_log *); /* JSC_OK, or why the log no longer takes writes */
uint64_t jsc_log_bytes(const jsc_log *); /* bytes of records held */
/* Remembered in the next batch's trailer, for recovery; monotonic. */
void jsc_log_set_commit(jsc_log *, uint64_t commit);
/* Blocks until durable >= index or the log failed. For the library's own users, never for the daemon's loop. */
int jsc_log_wait(jsc_log *, uint64_t index, int64_t timeout_ns);

/* Any record held, written or not yet. Pointers stay valid until the owner's next append, submit, truncate or close.
 * Verified the first time a record is read from a mapping after open; JSC_ENOTFOUND, JSC_ECORRUPT. */
int jsc_log_read(jsc_log *, uint64_t index, jsc_record *out);
int jsc_log_term(jsc_log *, uint64_t index, uint32_t *term); /* also of the record before the first held */
/* Copies raw records [lo, hi] (trailers left out) to buf up to cap bytes, as many whole records as fit.
 * *n = bytes, *last = index of the last one copied. JSC_EFULL when not even one fits (then *n = bytes it needs). */
int jsc_log_copy(jsc_log *, uint64_t lo, uint64_t hi, void *buf, size_t cap, size_t *n, uint64_t *last);

/* For the part that owns the log: stored and given back. */
void jsc_log_set_owner(jsc_log *, void *owner);
void *jsc_log_owner(const jsc_log *);
#endif
