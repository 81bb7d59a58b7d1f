/* What the files of the log engine share. Two threads touch a log: its owner (every call of jsc.h) and the store's sync
 * thread. Fields say whose they are; "shared" ones are atomics or under store->lock. */
#ifndef JSC_LOG_INTERNAL_H
#define JSC_LOG_INTERNAL_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "format.h"
#include "pack.h"
#include "sidecar.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define JSC_SMALL_CHUNK ((size_t)16 << 10)
#define JSC_LARGE_CHUNK ((size_t)256 << 10)
#define JSC_SPARE_CHUNKS 64
#define JSC_RING_CHUNKS 4 /* written chunks a busy log keeps for reads of its newest records */
#define JSC_BACKLOG_MAX ((uint64_t)256 << 20) /* unwritten bytes a log holds before it refuses more */
#define JSC_BACKLOG_CONTROL ((uint64_t)1 << 20) /* more of them for records that free space */
#define JSC_SEGMENT_BYTES ((uint64_t)64 << 20)
#define JSC_OWN_BLOCKS ((size_t)4 << 20) /* cache of a log that was given none */

/* A position is a byte counter over the whole log: segment base + offset in the segment. It only grows, except by
 * jsc_log_truncate. */
typedef struct jsc_spares jsc_spares;
typedef struct jsc_fresh jsc_fresh; /* scan.h */
typedef struct jsc_image jsc_image;

typedef struct jsc_segment {
    uint64_t first, salt, base;
    uint64_t limit; /* the file never grows beyond */
    uint64_t used; /* owner: bytes appended, header included; of the image when packed */
    uint32_t *at; /* owner: at[i] * 8 = offset of record first + i; 0: damaged; 1: JSC_AT_GAP. NULL: ask the sidecar */
    size_t count, cap; /* count: indexes covered, gaps and damaged ones too */
    uint64_t bytes; /* of good records with padding */
    const uint8_t *map; /* owner */
    size_t map_len;
    uint8_t *image; /* open and encrypted: the plain bytes; map points to it */
    jsc_cipher *cipher; /* sync thread: of the open, encrypted file */
    uint64_t base_seq, body;
    uint32_t prev_term, flags, key_id, key_check;
    bool closed; /* owner: takes no more appends */
    bool base_known; /* although the head is lost: base_seq */
    bool overlong; /* its file has more bytes than any segment: never written to, nor sealed as it is */
    bool head_lost; /* the head on the disk is damaged: flags, prev_term and base_seq are not known */
    jsc_pack *pack; /* when packed and opened */
    jsc_fresh *fresh;
    bool sealed; /* a sidecar with a good head that fits is beside it: `info` */
    jsc_sidecar_info info;
    jsc_sidecar *side; /* opened by jsc_segment_sidecar */
    _Atomic int refs; /* views and pieces, and 1 of the log itself */
    char *path; /* of its file, once doomed: what to unlink or recycle; NULL: another file took the name, or none */
    jsc_spares *spares;
    const jsc_vfs *vfs;
    jsc_block_cache *blocks;
    struct jsc_segment *before; /* sync thread: to be marked as left when this one's file is there */
    bool cuts_before; /* and to be cut to its length */
    /* Of a full one that is not synced yet, see trail.c: its descriptor, else -1; what is behind it; its last record. */
    int fd;
    struct jsc_segment *behind, *after; /* after: the next of the trail */
    uint64_t ends;
    bool unsettled; /* recovery: what was read of it need not be on the disk */
    uint64_t allocated; /* sync thread */
    bool created; /* sync thread */
    _Atomic bool recycled; /* its file is a spare: JSC_SF_RECYCLED, known when it is made */
    _Atomic bool ahead; /* JSC_SF_AHEAD, known when its file is made */
    _Atomic bool named; /* its head and its name are on the disk */
    _Atomic bool entered; /* the sync thread opened it */
    _Atomic bool
        left; /* the sync thread is done with it: all written, synced, cut to its length, closed; and the file of
                          the next one is there */
} jsc_segment;

/* A piece of a segment not yet written, or written a moment ago. The owner appends; the sync thread writes out what a
 * mark covers. Freed or reused by the owner, once it is written and no mark starts in it. */
typedef struct jsc_chunk {
    struct jsc_chunk *next;
    jsc_segment *segment;
    uint64_t offset; /* of bytes[0] in the segment */
    uint64_t position; /* of bytes[0] in the log; written chunks outlive their segment */
    size_t used, cap;
    _Alignas(64) uint8_t bytes[];
} jsc_chunk;

static inline uint64_t jsc_chunk_position(const jsc_chunk *c) { return c->position; }

/* A range of bytes for the sync thread: from one place in the chunk list to another. */
typedef struct jsc_mark {
    jsc_chunk *from, *to;
    size_t from_used, to_used;
    uint64_t index; /* last record covered */
} jsc_mark;

enum { JSC_Q_NONE, JSC_Q_DIRTY, JSC_Q_STALLED };

struct jsc_log {
    jsc_store *store;
    const jsc_vfs *vfs;
    char *dir;
    int lock_fd, readers_fd;
    void *owner_data;
    uint64_t segment_bytes;
    bool read_only, keep_images;
    jsc_image *scratch; /* while a log is opened: room for what is read, one segment after the other; else NULL */
    jsc_keys *keys;
    jsc_block_cache *blocks;
    bool own_blocks;
    jsc_spares *spares;
    jsc_block *read_block; /* keeps the record that jsc_log_read gave last, of a packed segment */
    /* owner */
    jsc_segment **segments;
    size_t nsegments, segments_cap;
    jsc_chunk *head, *tail, *hint;
    /* What follows, in its chunk, the record that was read last: most reads go on from one to the next. `ahead_n` bytes, and
     * the next index, if no trailer stands there. Gone whenever a chunk or a segment may be. */
    const uint8_t *ahead;
    size_t ahead_n;
    uint64_t ahead_index;
    jsc_chunk *submitted; /* where the next mark starts */
    size_t submitted_used;
    uint64_t first, last, bytes, commit, commit_written;
    uint64_t stated; /* what the newest trailer calls synced */
    uint64_t known; /* records up to it were synced when the log was opened, by another's word */
    uint32_t last_term, batch_count, batch_crc;
    uint64_t batch_start;
    int64_t last_ts;
    bool read_from_chunk; /* a caller may hold pointers into a chunk */
    bool changed; /* appended to, or truncated, since open */
    bool
        admits_control; /* the message log's: tombstones and limits are taken while the disk is full, as they free it */
    struct jsc_log *lru_next, *lru_prev; /* logs that hold chunks, newest first */
    bool in_lru;
    uint64_t touched; /* store->polls at the last submit */
    /* shared: atomics */
    _Atomic uint64_t durable, synced, written;
    _Atomic int error;
    _Atomic int full;
    /* Attempts to write, counted as they begin: the last one that found the disk full, and the last one that began before
     * space was freed, whose failure says nothing any more. */
    _Atomic uint64_t refused, outdated;
    /* shared: store->lock */
    jsc_mark mark;
    uint64_t attempts;
    bool busy, ready, want_sync;
    int queued;
    struct jsc_log *queue_next, *ready_next;
    bool unsynced;
    struct jsc_log *unsynced_next;
    jsc_segment *trail, **trail_end; /* full segments to be synced, oldest first */
    int trail_n;
    uint64_t trail_bytes;
    bool trail_busy, trailing; /* the first is being synced; the log waits for the trail's thread */
    struct jsc_log *trailing_next;
    /* sync thread (the owner when not busy and not queued) */
    int fd;
    jsc_segment *open_segment;
    bool fd_dirty;
    bool unnamed; /* no segment yet, and the directory's name may not be on the disk */
    uint64_t hinted; /* bytes of the open file below it were hinted at; 0: none yet */
    uint64_t written_index;
};

enum { JSC_HANDS_MAX = 32 };

struct jsc_store {
    const jsc_vfs *vfs;
    int mode, eventfd;
    int64_t interval_ns;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool sleeping, stop, signalled;
    /* Hands: threads that sync beside the sync thread when several logs wait. They come with the first such moment. */
    pthread_t hand[JSC_HANDS_MAX];
    pthread_cond_t help;
    int hands, hands_most, hands_idle;
    jsc_log *dirty, **dirty_end, *stalled, *ready, **ready_end, *unsynced;
    jsc_log *trailing, **trailing_end; /* logs with a trail */
    pthread_t trail_thread;
    pthread_cond_t trail_work;
    bool trail_runs;
    int64_t sync_at;
    int logs;
    /* The message log's: called by the sync thread, or the trail's, without the lock after it wrote or synced a log, or
     * failed to. Set before the first submit. Who holds a lock that it takes must not wait for the sync thread.
     * NULL: none */
    void (*served)(void *);
    void *served_arg;
    /* owner */
    jsc_chunk *spare_small, *spare_large;
    int nspare_small, nspare_large;
    jsc_log *lru_newest, *lru_oldest;
    uint64_t polls; /* and calls of jsc_store_relax */
    uint64_t relaxed; /* what polls was at the last one of these; 0: there was none */
    int untrimmed; /* calls of it since free memory was returned to the system */
    int64_t patient_until; /* an owner's write took long: until then all go to the sync thread */
};

/* store.c */
void jsc_store_push(jsc_log *); /* under store->lock: queue for the sync thread */
/* By the owner, with the lock, which is dropped meanwhile: writes log->mark at once if that is little and no sync is
 * asked for. False: nothing was done. */
bool jsc_store_write_little(jsc_log *);
/* Waits until the sync thread has nothing of this log, and no full segment is to be synced; not while it is full. */
void jsc_store_settle(jsc_log *);
/* Forgets queued work and waits until the sync thread let go; forget_notice: jsc_store_poll will not return it either. */
void jsc_store_detach(jsc_log *, bool forget_notice);
void jsc_store_retry(jsc_log *); /* space was freed: a log that waits for it asks at once */
int64_t jsc_store_clock(void);
int jsc_log_sync_parent(const jsc_log *); /* log.c: the directory's name is on the disk */
void jsc_store_tell(jsc_store *); /* with the lock, dropped meanwhile: something of a log moved */
void jsc_store_note(jsc_store *, jsc_log *); /* with the lock: jsc_store_poll is to return it */

/* trail.c: full segments that the next one did not wait for are synced in order, by a thread that comes with the first */
void jsc_trail_init(jsc_log *);
/* By the sync thread, without the lock: */
int jsc_trail_room(jsc_log *); /* waits until the open segment may go there */
int jsc_trail_push(jsc_log *, jsc_segment *full, jsc_segment *behind); /* takes log->fd; the file behind it is there */
bool jsc_trail_any(jsc_log *);
int jsc_trail_drain(jsc_log *); /* all of them are synced when it returns */
void jsc_trail_forget(
    jsc_log *); /* owner, with the lock: waits for the one that is being synced, lets go of the others */
void jsc_trail_stop(jsc_store *);

/* chunk.c (owner) */
jsc_chunk *jsc_chunk_take(jsc_log *, jsc_segment *, size_t need);
void jsc_chunks_recycle(jsc_log *, int keep); /* gives back what is written, but for `keep` chunks */
void jsc_chunks_touch(jsc_log *); /* it was busy just now */
void jsc_chunks_drop(jsc_log *); /* all of them; the sync thread must have let go */
void jsc_chunks_free_spare(jsc_store *);
static inline void jsc_chunks_forget(jsc_log *log) { /* what reads remember of them */
    log->hint = NULL;
    log->ahead_n = 0;
}
bool jsc_chunk_find(jsc_log *, uint64_t position, const uint8_t **bytes, size_t *n); /* remembers it as the hint */

/* segment.c */
jsc_segment *jsc_segment_new(jsc_log *, uint64_t first);
int jsc_segment_push(jsc_log *, jsc_segment *); /* takes it as the log's last */
int jsc_segment_index(jsc_segment *, uint64_t offset); /* notes the next record's offset; 0: damaged */
int jsc_segment_open(jsc_log *, const jsc_segment *, int flags); /* a descriptor, or -errno */
int jsc_segment_map(jsc_log *, jsc_segment *); /* or opens the pack, or decrypts. -ESTALE: see jsc_log_refresh */
/* A reader's open segment grows under it: address space for that, as much as segments usually have. */
void jsc_segment_widen(const jsc_log *, jsc_segment *);
int jsc_segment_image(jsc_segment *); /* room for the plain bytes of an encrypted one */
int jsc_segment_reindex(jsc_log *, jsc_segment *); /* makes s->at again from the file */
void jsc_segment_trust(jsc_segment *, const jsc_segment_head *,
                       const jsc_sidecar_info *); /* takes over what they say */
/* Offset of a record; JSC_ECORRUPT: lost; JSC_ENOTFOUND: compaction took it. */
int jsc_segment_where(jsc_log *, jsc_segment *, uint64_t index, uint64_t *offset);
/* The sidecar, opened when it is not yet. JSC_ENOTFOUND: not sealed; JSC_ECORRUPT: bad, `sealed` is false from now on and
 * s->at is rebuilt from the file. */
int jsc_segment_sidecar(jsc_log *, jsc_segment *, jsc_sidecar **out);
void jsc_segment_close_sidecar(jsc_segment *);
void jsc_segment_ref(jsc_segment *);
void jsc_segment_unref(jsc_segment *); /* any thread */
/* Gives up the files of a segment that is out of the log, also while it is read: its mapping stays. Not one whose file
 * may serve again. An error: the file is still there. */
int jsc_segment_unlink(jsc_segment *);
static inline uint64_t jsc_segment_last(const jsc_segment *s) { return s->first + s->count - 1; }
/* A verified record at an offset of the image. *hold: a block that keeps it (packed); else NULL and a ref of the segment
 * keeps it. *fleeting: not written yet, valid only until the owner's next append or submit. */
int jsc_segment_read_at(jsc_log *, jsc_segment *, uint64_t offset, jsc_record *out, jsc_block **hold, bool *fleeting);
/* Reads a segment from start to end, every byte verified; NULL members are skipped; a call that returns other than 0 ends
 * it. Gap records go to `record` like others. `lost`: indexes [first, last] do not verify; offset: where the first one
 * starts or should. `batch`: a good trailer, and the offset behind it. Not while the owner appends to it. */
typedef struct jsc_visit {
    int (*record)(void *ctx, const jsc_record *, uint64_t offset);
    int (*lost)(void *ctx, uint64_t first, uint64_t last, uint64_t offset);
    int (*batch)(void *ctx, const jsc_trailer *, uint64_t end);
} jsc_visit;
int jsc_segment_visit(jsc_log *, jsc_segment *, const jsc_visit *, void *ctx);
/* A segment object for a finished file at `path` (flags REWRITTEN) whose sidecar is built: not the log's yet. */
int jsc_segment_adopt(jsc_log *, const char *path, const jsc_sidecar_info *, jsc_segment **out);
jsc_segment *jsc_segment_find(const jsc_log *, uint64_t index);
static inline bool jsc_name_ends(const char *name, const char *suffix) {
    size_t n = strlen(name), k = strlen(suffix);
    return n >= k && strcmp(name + n - k, suffix) == 0;
}
char *jsc_segment_path(const jsc_log *, uint64_t first, const char *suffix);
int jsc_write_all(const jsc_vfs *, int fd, const void *bytes, size_t n, uint64_t at);
uint64_t jsc_random(void);

/* spares.c: files of dropped segments that may serve again, shared by a log and its doomed segments */
int jsc_spares_new(const jsc_vfs *, const char *dir, jsc_spares **out);
jsc_spares *jsc_spares_ref(jsc_spares *);
void jsc_spares_unref(jsc_spares *); /* NULL is fine */
bool jsc_spares_offer(jsc_spares *, const char *path); /* takes the file (renames it), or false. Any thread */
/* A spare file becomes the segment `path` with this head, durably. >= 0: its descriptor, *bytes its length;
 * JSC_ENOTFOUND: none. */
int jsc_spares_take(jsc_spares *, const char *path, const uint8_t head[JSC_SEGMENT_HEAD], uint64_t most,
                    int64_t *bytes);

/* recover.c */
int jsc_log_recover(jsc_log *, uint64_t first_index, uint64_t keep, jsc_log_recovery *);

/* log.c */
int jsc_log_locate(jsc_log *, uint64_t index, const uint8_t **bytes, size_t *n, bool *trusted);
void jsc_log_put_trailer(jsc_log *);
/* Takes segments [i, i + n) out of the log and puts `fresh` (may be NULL: they are only dropped, i is 0) in their place.
 * They are doomed: the one that fresh's file was renamed over keeps no name; the others' files, and sidecars, are
 * unlinked with their last ref, so the directory must have been synced before. Never the segment that appends go to. Does not sync the directory. */
int jsc_log_replace(jsc_log *, size_t i, size_t n, jsc_segment *fresh);
/* Read-only logs: takes in batches, and segments, that a writer added since. *moved: there were any. -ESTALE, here or from
 * a read: the writer put other files in the place of those known; open the log again. */
int jsc_log_refresh(jsc_log *, bool *moved);

#endif
