/* What the files of the message log share: mlog.c (open, close, append, get), apply.c (what a record does to the index),
 * checkpoint.c, cursor.c (cursors, counts), subjects.c (last of, listings, the subject cache), maintain.c (the background
 * thread: flush, seal, compact, pack, scrub), rewrite.c (one new segment file from old ones), verify.c, repair.c,
 * follow.c. Everything here is under mlog->lock unless it says otherwise. */
#ifndef JSC_MLOG_INTERNAL_H
#define JSC_MLOG_INTERNAL_H
#include "dead.h"
#include "healing.h"
#include "jsc_mlog.h"
#include "log_internal.h"
#include "pack.h"
#include "sidecar.h"
#include "tail.h"

/* The message log's view of one segment. */
typedef struct jsc_piece {
    jsc_segment *segment; /* ref held */
    jsc_tail *tail; /* the index in memory: open segment, or full but without a sidecar; else NULL and the
                                 segment is `sealed`: segment->info, segment->side */
    jsc_dead *dead; /* NULL: nothing dead */
    uint64_t base_seq; /* sequence before its first message */
    uint64_t last_seq; /* of its last message, gaps counted; base_seq when none */
    uint32_t count; /* messages, dead ones too */
    uint64_t message_bytes; /* of all its messages' records */
    int64_t first_ts, last_ts; /* of its messages; 0 when none */
    bool busy; /* a job works on it without the lock: nobody else replaces, trims or frees it */
    bool skip; /* it could not be sealed or rewritten; not tried again while the log is open */
    uint64_t scrubbed; /* round in which it was scrubbed */
    uint64_t used_at; /* mlog->tick of the last use of the sidecar, for eviction of decrypted ones */
    uint64_t disk_bytes; /* compact.c: of its files; 0: not known */
    bool again; /* compact.c: control records that its last rewrite kept may be useless by now */
    jsc_damage *damage; /* what jsc_piece_build, or a scrub, found lost, ascending; malloc'ed */
    size_t ndamage;
    bool surveyed; /* `damage` is up to date: built from the records */
    bool suspect; /* a read found a record bad since: look again before telling */
    uint64_t dead_at; /* index of the record that killed its last live message, when all are dead */
    uint64_t displaced_at; /* index of the last record that killed one for the sake of newer messages */
} jsc_piece;

typedef struct jsc_subject_cache jsc_subject_cache; /* subjects.c */

/* What the maintenance thread remembers (maintain.c). All zero at first. */
typedef struct jsc_keeper {
    bool idle; /* the thread sleeps and a poke has to wake it */
    int64_t flush_at; /* when the pending records are handed over; 0: none seen */
    int64_t mark_at; /* when a silent log states that its last batch is synced; 0: not planned */
    uint64_t mark_index; /* its last record when that was planned */
    bool checkpoint_due; /* segments were sealed since the last one */
    int64_t look_at; /* when the policy is asked again */
    uint64_t looked; /* mlog->applied when it was asked */
    int64_t retry_at, retry_ns; /* after an error, no job before */
    int64_t scrub_at; /* when the next bytes are due */
    int64_t paid_until; /* when the bytes that compaction moved are paid for */
    bool throttled; /* care: the job is the thread's own */
    _Atomic int wanted; /* calls that wait for `care`: a job of the thread hurries up */
    struct jsc_scrub *scrub; /* care: the round under way */
    int pid; /* that started the thread: a child after fork has none */
} jsc_keeper;

/* Nobody waits for the sync thread while holding `lock`: it takes it when it has served the log. Order of the locks:
 * care, lock, turn_lock, the store's. */
struct jsc_mlog {
    pthread_mutex_t lock;
    pthread_cond_t moved; /* durable moved, or failed */
    const jsc_vfs *vfs;
    jsc_store *store;
    jsc_log *log;
    char *dir;
    jsc_mlog_options options; /* limits pointer not kept */
    jsc_limits limits;
    jsc_keys *keys;
    jsc_block_cache *blocks;
    jsc_piece **pieces; /* one per segment of the log, same order */
    size_t npieces, pieces_cap;
    uint64_t first_seq; /* first live; last_seq + 1 when none */
    uint64_t last_seq;
    uint64_t messages, message_bytes; /* live */
    int64_t last_ts;
    uint64_t applied; /* index of the last record applied */
    uint64_t checkpointed; /* index of the last checkpoint that both files on the disk hold; 0: none */
    uint64_t checkpoint_salt; /* of the one that was loaded; 0: none */
    bool checkpoint_owed; /* without one nothing may be appended */
    uint64_t checkpoint_turn; /* how many were written before, as the last one says */
    int broken; /* memory ran out between a record and its index: the state is no longer that of the
                                     log, which has failed; no checkpoint is written */
    bool trim_wanted; /* the first piece became wholly dead */
    bool deleting; /* what dies now was deleted by name, newer messages or not */
    bool starved; /* the disk was full when the sync thread last said how it went */
    int patience; /* so often nothing was said of a full disk, as what would free it was held */
    _Atomic uint64_t refused; /* log->refused, once what could be freed for it was */
    /* Segments that are out of the log while their files stay: until the record that killed them is synced, and until a
     * checkpoint knows of every change of limits in them, as the records behind are replayed under those limits. */
    struct jsc_dropped {
        jsc_segment *segment;
        uint64_t index, last, displaced_at;
    } *dropped;
    size_t ndropped, dropped_cap;
    jsc_subject_cache *subjects;
    uint64_t tick, generation; /* generation: moves when pieces are exchanged */
    /* durability */
    struct jsc_seq_mark {
        uint64_t index, seq;
    } *marks; /* FIFO: at submit, what sequence the index stands for */
    size_t marks_head, marks_n, marks_cap;
    uint64_t durable_seq, durable_index, submitted_index;
    bool flush_wanted;
    size_t unsubmitted; /* bytes appended since the last submit */
    int told; /* the failure that waiters were woken for */
    size_t followers; /* threads that wait on `moved` */
    _Atomic uint64_t asked_index; /* submitted, or to be when the sync on its way is through */
    /* Who waits (waiters.c). Under turn_lock. */
    pthread_mutex_t turn_lock;
    struct jsc_waiter *waiters, *waiters_end; /* by position */
    size_t passing; /* woken, and yet to wake the next */
    uint64_t passed, passed_before; /* how often one did, and when the sync thread last looked */
    pthread_cond_t settled; /* any progress, for those who wait for syncs or room */
    unsigned settling;
    /* maintenance */
    pthread_t thread;
    bool thread_runs, stop;
    pthread_cond_t work, sealed; /* sealed: a segment was, or could not be */
    pthread_mutex_t care; /* taken before lock: one job at a time, background or jsc_mlog_maintain */
    uint64_t compactions, compacted_bytes, scrubbed_bytes, scrub_rounds;
    jsc_keeper keeper;
    /* repair: records given back, not yet enough for their segment */
    jsc_healing healing;
    /* following */
    _Atomic uint64_t *shared; /* the LOCK file's words, mapped; see follow.c */
    int shared_fd; /* of the LOCK file, real files only; else -1 */
    bool shared_mapped, shared_writable;
    int pid; /* that opened it */
    bool shut;
    bool restoring; /* records are replayed: pieces are not complete */
    bool counts; /* restoring: records were met whose effect hangs on how many messages there are */
    bool spares_counted; /* restoring: these have none */
    bool unsure; /* no checkpoint was found that would say what they took: it is all there */
    uint64_t limits_index; /* of the record that set the limits; 0: none */
    uint64_t limits_first; /* no change of limits between the last checkpoint and it; 0: none at all */
    uint64_t limited_since; /* no change of limits was ever before this record; 0: nor since */
    uint64_t limited_index; /* of the newest record that says so; 0: none */
    bool checkpoint_wanted; /* `dropped` waits for one */
    bool gate; /* an append let the lock go to make room: others wait on `opened` */
    pthread_cond_t opened;
};

/* mlog.c, piece.c */
int jsc_piece_new(jsc_mlog *, jsc_segment *, jsc_piece **out); /* takes a ref of the segment */
void jsc_piece_free(jsc_mlog *, jsc_piece *);
/* The part to ask, opening the sidecar when needed; a bad sidecar is replaced by a tail built from the segment. NULL: *rc. */
const jsc_part *jsc_piece_part(jsc_mlog *, jsc_piece *, int *rc);
jsc_piece *jsc_mlog_piece_of(jsc_mlog *, uint64_t seq,
                             size_t *i); /* the piece whose (base_seq, last_seq] has it, or NULL */
uint64_t jsc_piece_live(const jsc_piece *); /* live messages */
uint64_t jsc_piece_live_bytes(const jsc_piece *); /* bytes of their records */
/* Reads the message of an ordinal, whose sequence is `seq`. One more in *owed: the caller takes a ref of the piece's segment
 * for it before the lock is let go. */
int jsc_mlog_load(jsc_mlog *, jsc_piece *, const jsc_part *, uint32_t ord, uint64_t seq, jsc_message *out, int *owed);
/* Builds the tail of a segment from its records (build.c). Also when part of it is damaged. The bits of the dead, if it
 * has any, are moved along. */
int jsc_piece_build(jsc_mlog *, jsc_piece *);
/* Marks a message dead and counts it out; updates first_seq and the subject cache. false: was dead. */
bool jsc_mlog_kill(jsc_mlog *, jsc_piece *, uint32_t ord, int *error);
/* All messages of a piece at once. */
int jsc_piece_kill_all(jsc_mlog *, jsc_piece *);
/* Drops pieces from the front that are wholly dead and not the last: unlinks their files (deferred by pins). */
int jsc_mlog_trim(jsc_mlog *);
/* Records up to `gone` go with the front, or went: what is to be known of limits in them is written again. */
int jsc_mlog_restate(jsc_mlog *, uint64_t gone);
/* Gives up the files of dropped segments whose records of death are synced. The lock is not needed by the unlinking. */
void jsc_mlog_reap(jsc_mlog *);
/* What could go at the front is in the hands of a job or a reader. */
bool jsc_mlog_held(const jsc_mlog *);
/* Hands what is pending to the sync thread unless a sync is on its way that will be followed by another. */
int jsc_mlog_flush(jsc_mlog *);
/* Without the lock: blocks until all records up to index are synced. JSC_EFULL while the disk is. < 0: no timeout. */
int jsc_mlog_wait_synced(jsc_mlog *, uint64_t index, int64_t timeout_ns);
/* The state can no longer follow the log: ends writing. Returns rc. */
int jsc_mlog_break(jsc_mlog *, int rc);
/* The first live message at or behind an ordinal of piece i; its sequence, or last_seq + 1. 0: *rc. */
uint64_t jsc_mlog_next_live(jsc_mlog *, size_t i, uint32_t ord, int *rc);
/* Works live totals and first_seq out again, from pieces and bits. */
int jsc_mlog_retotal(jsc_mlog *);
void jsc_mlog_note_durable(jsc_mlog *); /* reads the log's durable index, moves durable_seq, wakes and notifies */
int64_t jsc_mlog_clock(jsc_mlog *);
/* A piece for the segment that the last append began, if it did. */
int jsc_mlog_extend_pieces(jsc_mlog *);
int jsc_mlog_add_piece(jsc_mlog *, jsc_segment *); /* an empty one behind the others */
/* Starts over with new pieces, from checkpoint and records; readers, after -ESTALE, open the log again for it. On failure
 * all is as it was. With `care` for writers. */
int jsc_mlog_reload(jsc_mlog *);
/* Applies the log's records behind `applied` up to `last`. */
int jsc_mlog_catch_up(jsc_mlog *, uint64_t last);

/* commit.c: what is appended becomes durable */
int jsc_commit_init(jsc_mlog *);
void jsc_commit_served(void *mlog); /* the store's `served` */
int jsc_commit_roll(jsc_mlog *); /* jsc_log_roll, which hands over what is pending */
int jsc_commit_make_room(jsc_mlog *); /* too much is unwritten: lets the lock go until some of it is written */

/* apply.c: records to state; the same code at append and at recovery */
int jsc_apply_message(jsc_mlog *, const jsc_record *, uint64_t offset); /* then its limits */
int jsc_apply_control(jsc_mlog *, const jsc_record *); /* DELETE, PURGE, LIMITS, LIMITED; JSC_ECORRUPT: malformed */
/* A record that was lost when its turn came, and is there again; `seq`: of the last message up to it. Kills what it would
 * have killed for sure: of what a purge or a limit keeps it may not be known how much died since. */
int jsc_apply_late(jsc_mlog *, const jsc_record *, uint64_t seq);
int jsc_apply_limits(jsc_mlog *); /* of age, number and bytes, once more */
void jsc_control_delete_encode(uint64_t seq, uint8_t out[8]);
int jsc_control_limits_encode(const jsc_limits *, uint8_t out[32]);

/* build.c: from the records of a segment to a piece, at open and where a sidecar is bad */

/* Finds out what is lost in a piece, into its `damage`. Changes nothing else. */
int jsc_piece_survey(jsc_mlog *, jsc_piece *);
typedef struct jsc_checkpoint jsc_checkpoint;
/* Readers: the sidecar that the writer made of a full segment meanwhile takes the tail's place. */
void jsc_piece_adopt_sidecar(jsc_mlog *, jsc_piece *);
/* Brings a log that was just opened to its state: pieces for all segments up to record `last`, checkpoint, replay. */
int jsc_mlog_restore(jsc_mlog *, uint64_t last, jsc_mlog_recovery *);

/* checkpoint.c: files `checkpoint` and `checkpoint.copy`: the state as of an index, and each piece's dead bits */

typedef struct jsc_checkpoint_piece {
    uint64_t first, salt; /* of the segment */
    uint64_t base_seq, last_seq, dead_bytes;
    uint32_t count, nwords;
    const uint64_t *words; /* its dead, trimmed of zeros at the end */
} jsc_checkpoint_piece;

struct jsc_checkpoint {
    uint64_t index, first_seq, last_seq, messages, message_bytes;
    int64_t last_ts;
    uint64_t limits_index; /* of the record that set them; 0: none */
    uint64_t limited_since, limited_index; /* as in jsc_mlog */
    uint64_t salt; /* of the file */
    uint64_t turn; /* counts the checkpoints of the log */
    jsc_limits limits;
    jsc_checkpoint_piece *pieces; /* ascending by first */
    size_t npieces;
    uint64_t *body;
};
/* Called with `care` and the lock held: the state is that of now. Lets the lock go while it waits until every applied
 * record is synced and while it writes (tmp, sync, rename, sync of the directory), and takes it again. */
int jsc_checkpoint_write(jsc_mlog *);
typedef struct jsc_checkpoint_files {
    int rc
        [2]; /* of each of the two: JSC_OK, JSC_ENOTFOUND, JSC_ECORRUPT, JSC_EORDER (index above upto), -EIO, another */
    int best; /* the one that was taken; -1: none */
    bool alone; /* the other one does not say the same */
} jsc_checkpoint_files;
/* The newest of the two files that verifies and has an index up to `upto`. JSC_ENOTFOUND: there is neither; JSC_ECORRUPT:
 * none can be used. JSC_EFORMAT, JSC_EKEY, another -errno: of either. No lock needed; nothing of the log is changed. */
int jsc_checkpoint_read(jsc_mlog *, uint64_t upto, jsc_checkpoint **out, jsc_checkpoint_files *);
const char *jsc_checkpoint_name(int i); /* of file 0 or 1 */
/* Removes those that cannot be used, durably: a log that grows beyond their index would take them for good. */
int jsc_checkpoint_tidy(jsc_mlog *, const jsc_checkpoint_files *);
void jsc_checkpoint_free(jsc_checkpoint *);
const jsc_checkpoint_piece *jsc_checkpoint_find(const jsc_checkpoint *, uint64_t first); /* or NULL */
int jsc_checkpoint_remove(jsc_mlog *); /* both files, durably */

/* cursor.c: places in the list of pieces */
size_t jsc_pieces_from(const jsc_mlog *, uint64_t seq); /* the first with a last sequence >= seq; npieces: none */
size_t jsc_pieces_until(const jsc_mlog *, uint64_t seq); /* the last with messages <= seq, if any; SIZE_MAX: none */

/* subjects.c: hash -> {count, last sequence, first sequence}, bounded by the budget; an entry is right or absent. Killed is
 * called when a message's bit is set; added, only while there is a limit for each subject, at once when a message is in
 * its part, or first of its piece; nothing is asked meanwhile. Whoever exchanges a part for one with other subjects
 * (messages lost or healed), or begins or ends that limit, forgets all. */
int jsc_subject_cache_new(size_t budget, jsc_subject_cache **out);
void jsc_subject_cache_free(jsc_subject_cache *);
size_t jsc_subject_cache_heap(const jsc_subject_cache *);
void jsc_subjects_added(jsc_mlog *, const char *subject, size_t n, uint64_t hash, uint64_t seq);
void jsc_subjects_killed(jsc_mlog *, const char *subject, size_t n, uint64_t hash, uint64_t seq);
void jsc_subjects_forget_all(jsc_mlog *);
/* Live messages of a subject: count, first and last sequence (0 when none). From the cache, else from the pieces. */
int jsc_subjects_state(jsc_mlog *, const char *subject, size_t n, uint64_t hash, jsc_subject_info *out);
/* The last or first live message of a subject; *seq 0: there is none. */
int jsc_subjects_end(jsc_mlog *, const jsc_span *subject, bool last, uint64_t *seq);

/* commit.c */
int jsc_commit_bad(const jsc_mlog *); /* why nothing more becomes durable now: the log's error, JSC_EFULL, or JSC_OK */
int64_t jsc_commit_deadline(int64_t timeout_ns); /* -1: none */
/* waiters.c: the durable position moved, or nothing does any more. With or without the lock. */
void jsc_waiters_tell(jsc_mlog *);

/* maintain.c */
int jsc_maintain_start(jsc_mlog *);
void jsc_maintain_stop(jsc_mlog *);
void jsc_maintain_poke(jsc_mlog *); /* there may be work: a full segment, unsubmitted records */

/* rewrite.c: writes one new segment (and its sidecar) that takes the place of n pieces, the first of which is that of
 * `first`, without the dead, packed as the options say; lost records taken from `healing` when given. Called with `care`
 * held, without `lock`; takes the lock to begin and to install. JSC_ENOTFOUND: `first` is not the log's any more. */
int jsc_rewrite(jsc_mlog *, jsc_segment *first, size_t n, const jsc_healing *healing);
/* seal.c: writes the sidecar of a full segment and turns its piece into a sealed one. Same locking. */
int jsc_seal(jsc_mlog *, jsc_segment *);

/* follow.c */
int jsc_follow_open(jsc_mlog *); /* after the lock of the directory is taken. Never fails for want of a mapping */
/* Readers: the last index that a live writer calls durable; UINT64_MAX: there is none, all that is found counts. */
uint64_t jsc_follow_bound(jsc_mlog *);
void jsc_follow_close(jsc_mlog *);
void jsc_follow_publish(jsc_mlog *); /* durable_seq moved */
#endif
