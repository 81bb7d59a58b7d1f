/* What a log says of itself: totals, bytes on the disk, heap, damage. */
#include "mlog_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>

typedef struct names {
    char **at;
    size_t n;
    bool failed;
} names;

static void each_name(void *ctx, const char *name) {
    names *l = ctx;
    char **grown = realloc(l->at, (l->n + 1) * sizeof *grown), *copy = grown ? strdup(name) : NULL;
    if (grown) l->at = grown;
    if (copy) l->at[l->n++] = copy;
    else l->failed = true;
}

/* By the sizes of all files there are, those too that only a reader's view keeps from going. */
static int disk_bytes(const jsc_mlog *m, uint64_t *bytes) {
    const jsc_vfs *vfs = m->vfs;
    names l = {0};
    uint64_t sum = 0;
    int rc = vfs->list(vfs->self, m->dir, each_name, &l);
    if (rc == 0 && l.failed) rc = -ENOMEM;
    for (size_t i = 0; i < l.n; i++) {
        size_t n = strlen(m->dir) + strlen(l.at[i]) + 2;
        char *path = malloc(n);
        int fd = -ENOMEM;
        if (path) {
            snprintf(path, n, "%s/%s", m->dir, l.at[i]);
            fd = vfs->open(vfs->self, path, O_RDONLY, 0);
        }
        int64_t size = fd >= 0 ? vfs->size(vfs->self, fd) : 0; /* gone since */
        if (fd >= 0) vfs->close(vfs->self, fd);
        if (size > 0) sum += (uint64_t)size;
        free(path);
        free(l.at[i]);
    }
    free(l.at);
    if (rc == 0) *bytes = sum;
    return rc;
}

static uint64_t heap_of(const jsc_piece *p) {
    const jsc_segment *s = p->segment;
    uint64_t n = sizeof *p + sizeof *s + s->cap * sizeof *s->at + p->ndamage * sizeof *p->damage;
    if (p->tail) n += jsc_tail_heap(p->tail);
    if (p->dead) n += jsc_dead_heap(p->dead);
    if (s->side) n += jsc_sidecar_heap(s->side);
    return n;
}

int jsc_mlog_about(jsc_mlog *m, jsc_mlog_stats *out) {
    jsc_mlog_stats a = {0};
    int rc = disk_bytes(m, &a.disk_bytes);
    if (rc != JSC_OK) return rc;
    pthread_mutex_lock(&m->lock);
    jsc_mlog_note_durable(m);
    a.first_seq = m->first_seq;
    a.last_seq = m->last_seq;
    a.messages = m->messages;
    a.message_bytes = m->message_bytes;
    a.segments = m->npieces;
    a.first_index = jsc_log_first(m->log);
    a.last_index = m->options.read_only ? m->applied : jsc_log_last(m->log);
    a.durable_index = m->durable_index;
    a.durable_seq = m->durable_seq;
    a.heap_bytes = sizeof *m + jsc_subject_cache_heap(m->subjects) + jsc_block_cache_heap(m->blocks) +
                   m->pieces_cap * sizeof *m->pieces;
    for (size_t i = 0; i < m->npieces; i++) {
        const jsc_piece *p = m->pieces[i];
        a.heap_bytes += heap_of(p);
        if (p->surveyed || p->ndamage || !p->segment->sealed)
            for (size_t k = 0; k < p->ndamage; k++) a.lost_records += p->damage[k].last - p->damage[k].first + 1;
        else a.lost_records += p->segment->info.lost;
    }
    if (m->npieces && m->pieces[m->npieces - 1]->tail) {
        a.tail_messages = m->pieces[m->npieces - 1]->count;
        a.tail_heap = jsc_tail_heap(m->pieces[m->npieces - 1]->tail);
    }
    a.compactions = m->compactions;
    a.compacted_bytes = m->compacted_bytes;
    a.scrubbed_bytes = m->scrubbed_bytes;
    a.scrub_rounds = m->scrub_rounds;
    a.limits = m->limits;
    pthread_mutex_unlock(&m->lock);
    *out = a;
    return JSC_OK;
}

static int damage(jsc_mlog *m, jsc_damage *out, size_t max, size_t *n) {
    size_t found = 0;
    for (size_t i = 0; i < m->npieces; i++) {
        jsc_piece *p = m->pieces[i];
        if (p->suspect || (!p->surveyed && p->segment->sealed && p->segment->info.lost)) {
            int rc = jsc_piece_survey(m, p);
            if (rc != JSC_OK) return rc;
            p->suspect = false;
        }
        for (size_t k = 0; k < p->ndamage; k++, found++)
            if (found < max) out[found] = p->damage[k];
    }
    *n = found;
    return JSC_OK;
}

int jsc_mlog_damage(jsc_mlog *m, jsc_damage *out, size_t max, size_t *n) {
    pthread_mutex_lock(&m->lock);
    int rc = damage(m, out, max, n);
    if (rc == -ESTALE && (rc = jsc_mlog_reload(m)) == JSC_OK) rc = damage(m, out, max, n);
    pthread_mutex_unlock(&m->lock);
    return rc;
}
