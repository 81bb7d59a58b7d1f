/* What the files of the message log share: mlog.c (open, close, append, get), apply.c (what a record does to the index),
 * checkpoint.c, cursor.c (cursors, counts), subjects.c (last of, listings, the subject cache), maintain.c (the background
 * thread: flush, seal, compact, pack, scrub), rewrite.c (one new segment file from old ones), verify.c, repair.c,
 * follow.c. Everything here is under mlog->lock unless it says otherwise. */
#ifndef JSC_MLOG_INTERNAL_H
#define JSC_MLOG_INTERNAL_H
#include "dead.h"
#include "jsc_mlog.h"
#include "log_internal.h"
#include "pack.h"
#include "sidecar.h"
#include "tail.h"

/* The message log's view of one segment. */
typedef struct jsc_piece {
    jsc_segment *segment;     /* ref held */
    jsc_tail *tail;           /* the index in memory: open segment, or full but without a sidecar; else NULL and the
                                 segment is `sealed`: segment->info, segment->side */
    jsc_dead *dead;           /* NULL: nothing dead */
    uint64_t base_seq;        /* sequence before its first message */
    uint64_t last_seq;        /* of its last message, gaps counted; base_seq when none */
    uint32_t count;           /* messages, dead ones too */
    uint64_t message_bytes;   /* of all its messages' records */
    bool busy;                /* a job of the maintenance thread works on it: it is not replaced by another */
    uint64_t scrubbed;        /* round in which it was scrubbed */
    uint64_t used_at;         /* mlog->tick of the last use of the sidecar, for eviction of decrypted ones */
} jsc_piece;

typedef struct jsc_subject_cache jsc_subject_cache; /* subjects.c */

struct jsc_mlog {
    pthread_mutex_t lock;
    pthread_cond_t moved;         /* durable moved, or failed */
    const jsc_vfs *vfs;
    jsc_store *store;
    jsc_log *log;
    char *dir;
    jsc_mlog_options options;     /* limits pointer not kept */
    jsc_limits limits;
    jsc_keys *keys;
    jsc_block_cache *blocks;
    jsc_piece **pieces;           /* one per segment of the log, same order */
    size_t npieces, pieces_cap;
    uint64_t first_seq;           /* first live; last_seq + 1 when none */
    uint64_t last_seq;
    uint64_t messages, message_bytes; /* live */
    int64_t last_ts;
    uint64_t applied;             /* index of the last record applied */
    uint64_t checkpointed;        /* index of the last checkpoint on the disk */
    jsc_subject_cache *subjects;
    uint64_t tick, generation;    /* generation: moves when pieces are exchanged */
    /* durability */
    struct jsc_seq_mark { uint64_t index, seq; } *marks; /* FIFO: at submit, what sequence the index stands for */
    size_t marks_head, marks_n, marks_cap;
    uint64_t durable_seq, durable_index, submitted_index;
    bool flush_wanted;
    /* maintenance */
    pthread_t thread;
    bool thread_runs, stop;
    pthread_cond_t work;
    pthread_mutex_t care;         /* taken before lock: one job at a time, background or jsc_mlog_maintain */
    uint64_t compactions, compacted_bytes, scrubbed_bytes, scrub_rounds;
    /* repair: records given back, not yet enough for their segment */
    uint8_t *healing;
    size_t healing_n;
    /* following */
    _Atomic uint64_t *shared;     /* the LOCK file's words, mapped; see follow.c */
};

/* mlog.c */
int jsc_piece_new(jsc_mlog *, jsc_segment *, jsc_piece **out); /* takes a ref of the segment */
void jsc_piece_free(jsc_mlog *, jsc_piece *);
/* The part to ask, opening the sidecar when needed; a bad sidecar is replaced by a tail built from the segment. NULL: *rc. */
const jsc_part *jsc_piece_part(jsc_mlog *, jsc_piece *, int *rc);
jsc_piece *jsc_mlog_piece_of(jsc_mlog *, uint64_t seq, size_t *i); /* the piece whose (base_seq, last_seq] has it, or NULL */
uint64_t jsc_piece_live(const jsc_piece *);       /* live messages */
uint64_t jsc_piece_live_bytes(const jsc_piece *); /* bytes of their records */
/* Reads the message of an ordinal with its hold. */
int jsc_mlog_load(jsc_mlog *, jsc_piece *, const jsc_part *, uint32_t ord, jsc_message *out);
/* Builds the tail of a segment from its records. Also when part of it is damaged. */
int jsc_piece_build(jsc_mlog *, jsc_piece *);
/* Marks a message dead and counts it out; updates first_seq and the subject cache. false: was dead. */
bool jsc_mlog_kill(jsc_mlog *, jsc_piece *, uint32_t ord, int *error);
/* Drops pieces from the front that are wholly dead and not the last: unlinks their files (deferred by pins). */
int jsc_mlog_trim(jsc_mlog *);
/* Hands what is pending to the sync thread unless a sync is on its way that will be followed by another. */
int jsc_mlog_flush(jsc_mlog *);
void jsc_mlog_note_durable(jsc_mlog *); /* reads the log's durable index, moves durable_seq, wakes and notifies */
int64_t jsc_mlog_clock(jsc_mlog *);

/* apply.c: records to state; the same code at append and at recovery */
int jsc_apply_message(jsc_mlog *, const jsc_record *, uint64_t offset, const uint64_t *hash); /* then its limits */
int jsc_apply_control(jsc_mlog *, const jsc_record *); /* DELETE, PURGE, LIMITS; JSC_ECORRUPT: malformed */
void jsc_control_delete_encode(uint64_t seq, uint8_t out[8]);
int jsc_control_limits_encode(const jsc_limits *, uint8_t out[32]);

/* checkpoint.c: file `checkpoint`: the state as of an index, and each piece's dead bits */
int jsc_checkpoint_write(jsc_mlog *); /* as of now; all applied records must be durable. tmp, sync, rename, sync */
/* Loads it into pieces; *index: state is as of it. JSC_ENOTFOUND, JSC_ECORRUPT: nothing changed. */
int jsc_checkpoint_load(jsc_mlog *, uint64_t *index);

/* subjects.c: hash -> {count, last sequence, first sequence}, bounded by the budget; an entry is right or absent */
int jsc_subject_cache_new(size_t budget, jsc_subject_cache **out);
void jsc_subject_cache_free(jsc_subject_cache *);
size_t jsc_subject_cache_heap(const jsc_subject_cache *);
void jsc_subjects_added(jsc_mlog *, const char *subject, size_t n, uint64_t hash, uint64_t seq);
void jsc_subjects_killed(jsc_mlog *, const char *subject, size_t n, uint64_t hash, uint64_t seq);
void jsc_subjects_forget_all(jsc_mlog *);
/* Live messages of a subject: count, first and last sequence (0 when none). From the cache, else from the pieces. */
int jsc_subjects_state(jsc_mlog *, const char *subject, size_t n, uint64_t hash, jsc_subject_info *out);

/* maintain.c */
int jsc_maintain_start(jsc_mlog *);
void jsc_maintain_stop(jsc_mlog *);
void jsc_maintain_poke(jsc_mlog *); /* there may be work: a full segment, unsubmitted records */

/* rewrite.c: writes one new segment (and its sidecar) that takes the place of pieces [i, i + n), without the dead, packed
 * as the options say; lost records taken from `healing` when given. Called with `care` held, without `lock`; takes the
 * lock to begin and to install. */
int jsc_rewrite(jsc_mlog *, size_t i, size_t n, const uint8_t *healing, size_t healing_n);
/* Writes the sidecar of a full segment and turns its piece into a sealed one. Same locking. */
int jsc_seal(jsc_mlog *, size_t i);

/* follow.c */
int jsc_follow_open(jsc_mlog *);
void jsc_follow_close(jsc_mlog *);
void jsc_follow_publish(jsc_mlog *); /* durable_seq moved */
#endif
