/* A snapshot file: the state of whoever reads a record log, as of one record, so that records before it may go. This part
 * knows its head and its place beside the segments; what is in the body is the reader's. See docs/format.md#snapshot. */
#ifndef JSC_SNAPSHOT_H
#define JSC_SNAPSHOT_H
#include "../base/jsc_base.h"
#include "../base/jsc_vfs.h"

#define JSC_SNAPSHOT_HEAD 64
#define JSC_SNAPSHOT_MAX ((uint64_t)4 << 30)

typedef struct jsc_snapshot_head {
    uint64_t index; /* the last record whose effect is in it */
    uint64_t first; /* the first record that is still needed beside it; at most index */
    uint32_t term, before; /* of record index, and of the one before first */
} jsc_snapshot_head;

/* Fills the head of a file in memory: n bytes of which the first JSC_SNAPSHOT_HEAD were left free. */
void jsc_snapshot_seal(uint8_t *file, size_t n, const jsc_snapshot_head *);
/* JSC_EFORMAT: of another version; JSC_ECORRUPT: does not verify, to its last byte. */
int jsc_snapshot_check(const uint8_t *file, size_t n, jsc_snapshot_head *out);
/* Puts the file into the directory of a log, twice, so that one rotten block takes nothing away. When it returns JSC_OK
 * both are durable; a crash leaves the former or the new one, whole, under each of the two names. Any thread. */
int jsc_snapshot_write(const jsc_vfs *, const char *dir, const uint8_t *file, size_t n);
/* The newest of the two that verifies, malloced. JSC_ENOTFOUND: there is none. JSC_ECORRUPT: there is, but none verifies.
 * *hurt: one of them is missing or does not verify. */
int jsc_snapshot_read(const jsc_vfs *, const char *dir, uint8_t **file, size_t *n, int *hurt);
#endif
