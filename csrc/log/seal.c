/* Sealing: the sidecar of a full segment, after which its index in memory is not needed any more. */
#include "care.h"
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { CHUNK = 256 << 10 };

int jsc_care_unlink(jsc_mlog *mlog, uint64_t first, const char *suffix) {
    char *path = jsc_segment_path(mlog->log, first, suffix);
    if (!path) return -ENOMEM;
    int rc = mlog->vfs->unlink(mlog->vfs->self, path);
    free(path);
    return rc == -ENOENT ? JSC_OK : rc;
}

int jsc_care_rename(jsc_mlog *mlog, uint64_t first, const char *from, const char *to) {
    char *a = jsc_segment_path(mlog->log, first, from), *b = jsc_segment_path(mlog->log, first, to);
    int rc = a && b ? mlog->vfs->rename(mlog->vfs->self, a, b) : -ENOMEM;
    free(a);
    free(b);
    return rc;
}

int jsc_file_digest(jsc_mlog *mlog, int fd, uint64_t *bytes, uint64_t *digest) {
    const jsc_vfs *vfs = mlog->vfs;
    uint64_t at = 0;
    ssize_t got;
    uint8_t *chunk = malloc(CHUNK);
    XXH3_state_t *state = XXH3_createState();
    int rc = chunk && state ? JSC_OK : -ENOMEM;
    if (rc == JSC_OK) XXH3_64bits_reset(state);
    while (rc == JSC_OK && (got = vfs->pread(vfs->self, fd, chunk, CHUNK, (off_t)at)) != 0) {
        if (got < 0) rc = (int)got;
        else XXH3_64bits_update(state, chunk, (size_t)got);
        at += got > 0 ? (uint64_t)got : 0;
    }
    if (rc == JSC_OK) {
        *bytes = at;
        *digest = XXH3_64bits_digest(state);
    }
    XXH3_freeState(state);
    free(chunk);
    return rc;
}

int jsc_sidecar_draft(jsc_mlog *mlog, const jsc_part *part, const jsc_sidecar_record *records, size_t n,
                      const jsc_sidecar_info *info, jsc_keys *keys, jsc_sidecar_info *full, uint64_t *bytes) {
    const jsc_vfs *vfs = mlog->vfs;
    uint8_t *p = NULL;
    size_t size = 0;
    int fd = -1, rc;
    if ((rc = jsc_sidecar_build(part, records, n, info, keys, &p, &size)) != JSC_OK) return rc;
    char *path = jsc_segment_path(mlog->log, info->first, ".idx.tmp");
    rc = path ? jsc_care_unlink(mlog, info->first, ".idx.tmp") : -ENOMEM;
    if (rc == JSC_OK) rc = fd = vfs->open(vfs->self, path, O_RDWR | O_CREAT, 0644);
    if (rc >= 0) rc = jsc_write_all(vfs, fd, p, size, 0);
    if (rc >= 0) rc = vfs->datasync(vfs->self, fd);
    if (rc >= 0) rc = jsc_sidecar_peek(vfs, fd, full);
    if (fd >= 0) vfs->close(vfs->self, fd);
    if (rc == JSC_OK) *bytes = size;
    else if (fd >= 0) vfs->unlink(vfs->self, path);
    free(path);
    free(p);
    return rc;
}

/* What a visit tells of a segment that is to be sealed. */
typedef struct survey {
    const jsc_segment *s;
    jsc_sidecar_record *records;
    size_t n, cap;
    uint64_t record_bytes;
    uint32_t last_term;
    bool fresh_damage; /* it lost records since its table was made */
} survey;

static int survey_add(survey *v, uint64_t index, uint64_t offset) {
    if (v->n == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 1024;
        jsc_sidecar_record *grown = realloc(v->records, cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        v->records = grown;
        v->cap = cap;
    }
    v->records[v->n++] = (jsc_sidecar_record){index, offset};
    return 0;
}

static int survey_record(void *ctx, const jsc_record *r, uint64_t offset) {
    survey *v = ctx;
    v->record_bytes += r->raw_len;
    v->last_term = r->term;
    return r->kind == JSC_K_GAP ? 0 : survey_add(v, r->index, offset);
}

/* The table in memory was made when the records were good, or at open, and stands. */
static int survey_lost(void *ctx, uint64_t first, uint64_t last, uint64_t offset) {
    survey *v = ctx;
    int rc = 0;
    for (uint64_t i = first; i <= last && rc == 0; i++) {
        uint64_t at = (uint64_t)v->s->at[i - v->s->first] * 8;
        if (at == JSC_AT_GAP) continue;
        if (at) v->fresh_damage = true;
        rc = survey_add(v, i, at);
    }
    return rc;
}

/* Everything between pinning and installing, without the lock. */
static int draft_sidecar(jsc_mlog *mlog, jsc_segment *s, jsc_tail *tail, const jsc_piece *about, jsc_sidecar_info *info,
                         uint64_t *bytes, bool *damaged) {
    static const jsc_visit visit = {.record = survey_record, .lost = survey_lost};
    survey v = {.s = s, .last_term = s->prev_term};
    jsc_sidecar_info built = {.salt = s->salt,
                              .first = s->first,
                              .last = s->first + s->count - 1,
                              .base_seq = about->base_seq,
                              .last_seq = about->last_seq,
                              .used = s->used};
    jsc_segment_head head = jsc_segment_head_of(s);
    if (!s->head_lost) jsc_segment_head_encode(&head, built.segment_head);
    int rc = jsc_segment_visit(mlog->log, s, &visit, &v), fd = -1;
    if (rc == JSC_OK) rc = fd = jsc_segment_open(mlog->log, s, O_RDONLY);
    if (rc >= 0) rc = jsc_file_digest(mlog, fd, &built.segment_bytes, &built.segment_digest);
    if (fd >= 0) mlog->vfs->close(mlog->vfs->self, fd);
    if (rc == JSC_OK) {
        built.record_bytes = v.record_bytes;
        built.last_term = v.last_term;
        /* The digest is to be that of the right bytes, which nobody has: one that cannot fit keeps scrubs looking. */
        if (v.fresh_damage) {
            built.segment_digest = ~built.segment_digest;
            built.record_bytes = s->bytes;
        }
        *damaged = v.fresh_damage;
        jsc_keys *keys = s->flags & JSC_SF_ENCRYPTED ? mlog->keys : NULL;
        rc = jsc_sidecar_draft(mlog, jsc_tail_part(tail), v.records, v.n, &built, keys, info, bytes);
    }
    free(v.records);
    return rc;
}

int jsc_seal(jsc_mlog *mlog, jsc_segment *s) {
    pthread_mutex_lock(&mlog->lock);
    size_t i = jsc_care_find(mlog, s);
    if (i >= mlog->npieces || !jsc_care_full(mlog, i) || !mlog->pieces[i]->tail || mlog->pieces[i]->segment->sealed ||
        !mlog->pieces[i]->segment->at) {
        pthread_mutex_unlock(&mlog->lock);
        return JSC_OK;
    }
    /* Nothing is added to the tail of a full segment, so it is read without the lock. */
    jsc_piece about = *mlog->pieces[i];
    mlog->pieces[i]->busy = true;
    jsc_segment_ref(s);
    pthread_mutex_unlock(&mlog->lock);

    jsc_sidecar_info info;
    uint64_t bytes = 0;
    bool damaged = false;
    int rc = draft_sidecar(mlog, s, about.tail, &about, &info, &bytes, &damaged);

    pthread_mutex_lock(&mlog->lock);
    size_t k = jsc_care_find(mlog, s);
    jsc_piece *p = k < mlog->npieces ? mlog->pieces[k] : NULL;
    if (p) p->busy = false;
    if (mlog->npieces && !jsc_piece_live(mlog->pieces[0])) mlog->trim_wanted = true;
    if (rc == JSC_OK && p) rc = jsc_care_rename(mlog, s->first, ".idx.tmp", ".idx");
    else if (rc == JSC_OK) jsc_care_unlink(mlog, s->first, ".idx.tmp");
    if (rc == JSC_OK && p) {
        s->info = info;
        s->sealed = true;
        s->bytes = info.record_bytes;
        free(s->at);
        s->at = NULL;
        s->cap = 0;
        jsc_tail_free(p->tail);
        p->tail = NULL;
        if (p->dead) jsc_dead_move(p->dead);
        p->disk_bytes = info.segment_bytes + bytes;
        mlog->generation++;
    }
    pthread_mutex_unlock(&mlog->lock);
    if (rc == JSC_OK && p && damaged) rc = jsc_scrub_examine(mlog, s);
    jsc_segment_unref(s);
    return rc;
}
