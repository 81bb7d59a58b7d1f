/* What the files of a log's care share: maintain.c (the thread, the steps), compact.c (what is worth rewriting),
 * rewrite.c (one segment from others), draft.c (the new segment's bytes), seal.c (sidecars), scrub.c (damage looked for),
 * repair.c (damage undone). mlog->care is held everywhere here, mlog->lock where it says so. */
#ifndef JSC_CARE_H
#define JSC_CARE_H
#include "mlog_internal.h"

/* A call's turn at `care`; a job of the thread hurries up meanwhile. Given back by an unlock. */
static inline void jsc_care_take(jsc_mlog *m) {
    atomic_fetch_add(&m->keeper.wanted, 1);
    pthread_mutex_lock(&m->care);
    atomic_fetch_sub(&m->keeper.wanted, 1);
}

/* maintain.c */
/* Between two bites of a long job, without the lock: lets the thread's other duties through, and makes the thread wait
 * until `bytes` more fit its rate. -ECANCELED: the log is being closed. A call of the user's is not slowed. */
int jsc_care_pace(jsc_mlog *, uint64_t bytes);
/* With the lock: place of the piece of a segment, or npieces. */
size_t jsc_care_find(const jsc_mlog *, const jsc_segment *);
/* With the lock: nobody writes to the segment any more and it is not the one that appends go to. */
static inline bool jsc_care_full(const jsc_mlog *mlog, size_t i) {
    return i + 1 < mlog->npieces && atomic_load_explicit(&mlog->pieces[i]->segment->left, memory_order_acquire);
}

/* compact.c */
/* With the lock: the next run of pieces to rewrite; false: none. force: whatever can be gained. */
bool jsc_compact_choose(jsc_mlog *, bool force, size_t *i, size_t *n);

/* seal.c */
/* Writes NAME.idx.tmp for the segment that starts at info->first and syncs it. *full: with what the builder found. */
int jsc_sidecar_draft(jsc_mlog *, const jsc_part *, const jsc_sidecar_record *, size_t n, const jsc_sidecar_info *info,
                      jsc_keys *keys, jsc_sidecar_info *full, uint64_t *bytes);
/* XXH3-64 of a whole file. */
int jsc_file_digest(jsc_mlog *, int fd, uint64_t *bytes, uint64_t *digest);
int jsc_care_unlink(jsc_mlog *, uint64_t first, const char *suffix);
int jsc_care_rename(jsc_mlog *, uint64_t first, const char *from, const char *to);

/* draft.c: a segment in the making: NAME.tmp and NAME.idx.tmp. Without the lock. */
typedef struct jsc_draft jsc_draft;
int jsc_draft_new(jsc_mlog *, uint64_t first, uint32_t prev_term, uint64_t base_seq, jsc_draft **out);
int jsc_draft_keep(jsc_draft *, const jsc_record *); /* a message takes the next sequence */
int jsc_draft_drop(jsc_draft *, uint64_t first, uint64_t last, uint64_t seqs, uint32_t term, int64_t ts);
void jsc_draft_skip(jsc_draft *, uint64_t seqs); /* as many more sequences belong to what was dropped last */
uint64_t jsc_draft_room(const jsc_draft *);      /* how many that can be at most */
/* Both files written and synced. JSC_ECORRUPT: it does not end with `last` and `last_seq`. */
int jsc_draft_finish(jsc_draft *, uint64_t last, uint64_t last_seq, jsc_sidecar_info *info, uint64_t *disk_bytes);
uint64_t jsc_draft_seq(const jsc_draft *);
uint64_t jsc_draft_written(const jsc_draft *);
jsc_tail *jsc_draft_tail(jsc_draft *);      /* the index of the new segment */
jsc_tail *jsc_draft_take_tail(jsc_draft *); /* the caller's from now on */
void jsc_draft_free(jsc_draft *, bool installed); /* unlinks the files that did not get their names */

/* scrub.c */
/* Reads the next bytes of the round (about 256 KiB); *done: it was the last. *bytes: how many. */
int jsc_scrub_step(jsc_mlog *, uint64_t *bytes, bool *done);
void jsc_scrub_drop(jsc_mlog *);
/* Reads all records of a segment and notes in its piece which ones are lost although its tables have them. */
int jsc_scrub_examine(jsc_mlog *, jsc_segment *);
/* The records of a segment that nobody can read: ascending ranges, malloc'ed; first_seq and last_seq are offsets, 0 where
 * no table has them. */
int jsc_scrub_find(jsc_mlog *, jsc_segment *, jsc_damage **out, size_t *n);
/* With the lock: JSC_OK, or why the record cannot be read: JSC_ECORRUPT, JSC_ENOTFOUND: compaction took it. */
int jsc_care_readable(jsc_mlog *, jsc_segment *, uint64_t index, uint64_t *offset);

/* repair.c */
/* With the lock: records of the segment were lost to replay as well, and a replay of the whole log, once they are back,
 * is exact, as nothing else is lost, and nothing was taken out: no segment at the front, nor what compaction drops. */
bool jsc_repair_replays(const jsc_mlog *, const jsc_segment *);
#endif
