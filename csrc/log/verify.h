/* What the files of a verification share: verify.c (segments, the directory), verify_index.c (sidecars and checkpoint
 * against them). mlog->care is held while a segment or the caches are looked at, mlog->lock only for snapshots. */
#ifndef JSC_VERIFY_H
#define JSC_VERIFY_H
#include "mlog_internal.h"

typedef struct jsc_verify_run {
    jsc_mlog *m;
    const jsc_verify *v;
    uint64_t done, total; /* bytes of files */
    uint64_t findings;    /* of the file that is looked at */
    int rc;               /* why it must end: -ECANCELED, -ENOMEM; else JSC_OK */
} jsc_verify_run;

__attribute__((format(printf, 4, 5))) void jsc_verify_say(jsc_verify_run *, const char *file, uint64_t offset,
                                                          const char *format, ...);
/* More bytes were looked at. JSC_OK, or run->rc. */
int jsc_verify_tick(jsc_verify_run *, uint64_t bytes);

/* verify_index.c: a sidecar beside a visit of its segment */
typedef struct jsc_index_check jsc_index_check;
/* *out NULL: the sidecar does not verify, or is another segment's; that has been said. info: the one the log goes by. */
int jsc_index_check_new(jsc_verify_run *, const char *file, const jsc_segment *, const jsc_sidecar_info *info,
                        jsc_index_check **out);
/* As told by the visit. NULL is fine. */
void jsc_index_check_record(jsc_index_check *, const jsc_record *, uint64_t offset);
void jsc_index_check_lost(jsc_index_check *, uint64_t first, uint64_t last);
void jsc_index_check_end(jsc_index_check *, uint64_t last); /* last: index of the segment */
void jsc_index_check_free(jsc_index_check *);

int jsc_verify_checkpoint(jsc_verify_run *);
#endif
