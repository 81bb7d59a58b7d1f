/* The caches of a log against what they were made from: each answer a sidecar gives about a record is asked for, and has
 * to be what the record itself says; the checkpoint must be about the segments that are there. */
#include "verify.h"

#include <errno.h>
#include <fcntl.h>

struct jsc_index_check {
    jsc_verify_run *run;
    char file[32];
    jsc_sidecar *side;
    const jsc_part *part;
    const jsc_part_ops *ops;
    const jsc_sidecar_info *info;
    uint32_t ord, count; /* the next message of the sidecar */
    uint64_t seq; /* of the message before, gaps counted */
    bool seq_known, lost; /* lost: some record of the segment is */
    uint32_t *told; /* of each subject, how many of its messages came by */
    uint64_t record_bytes, message_bytes;
    uint32_t records, messages;
    int64_t first_ts, last_ts;
};

int jsc_index_check_new(jsc_verify_run *run, const char *file, const jsc_segment *s, const jsc_sidecar_info *info,
                        jsc_index_check **out) {
    const jsc_vfs *vfs = run->m->vfs;
    char *path = jsc_segment_path(run->m->log, s->first, ".idx");
    jsc_index_check *x = calloc(1, sizeof *x);
    int fd = -1, rc = path && x ? JSC_OK : -ENOMEM;
    *out = NULL;
    if (rc == JSC_OK) rc = fd = vfs->open(vfs->self, path, O_RDONLY, 0);
    if (rc >= 0) rc = jsc_sidecar_open(vfs, fd, run->m->keys, &x->side);
    if (fd >= 0) vfs->close(vfs->self, fd);
    free(path);
    if (rc != JSC_OK) {
        free(x);
        if (rc == -ENOMEM) return rc;
        if (rc == JSC_EKEY) jsc_verify_say(run, file, 0, "cache: no key that fits this sidecar");
        else if (rc <= JSC_ENOTFOUND) jsc_verify_say(run, file, 0, "cache: the sidecar does not verify");
        else jsc_verify_say(run, file, 0, "cache: the sidecar cannot be read: %s", strerror(-rc));
        return JSC_OK;
    }
    x->run = run;
    snprintf(x->file, sizeof x->file, "%s", file);
    x->part = jsc_sidecar_part(x->side);
    x->ops = x->part->ops;
    x->info = jsc_sidecar_about(x->side);
    x->count = x->ops->count(x->part);
    x->seq = x->info->base_seq;
    x->seq_known = true;
    x->told = calloc((size_t)x->ops->subjects(x->part) + 1, sizeof *x->told);
    if (!x->told) {
        jsc_index_check_free(x);
        return -ENOMEM;
    }
    const jsc_sidecar_info *i = x->info;
    if (i->salt != info->salt || i->segment_bytes != info->segment_bytes || i->segment_digest != info->segment_digest ||
        i->first != info->first || i->last != info->last || i->base_seq != info->base_seq ||
        i->last_seq != info->last_seq || i->used != info->used || i->count != info->count)
        jsc_verify_say(run, file, 0, "cache: the sidecar is not the one that the log goes by");
    if (!s->head_lost && i->base_seq != s->base_seq)
        jsc_verify_say(run, file, 0, "cache: the sidecar starts behind sequence %llu, its segment behind %llu",
                       (unsigned long long)i->base_seq, (unsigned long long)s->base_seq);
    *out = x;
    return JSC_OK;
}

void jsc_index_check_free(jsc_index_check *x) {
    if (!x) return;
    jsc_sidecar_close(x->side);
    free(x->told);
    free(x);
}

static void wrong(const jsc_index_check *x, const jsc_record *r, uint64_t offset, const char *what) {
    jsc_verify_say(x->run, x->file, 0, "cache: the sidecar has another %s for record %llu at byte %llu", what,
                   (unsigned long long)r->index, (unsigned long long)offset);
}

/* Messages of the sidecar before `offset` that no record came for: rightly so when records are lost. */
static void skip_lost(jsc_index_check *x, uint64_t offset) {
    for (; x->ord < x->count; x->ord++) {
        uint64_t at = x->ops->offset(x->part, x->ord);
        if (at >= offset) break;
        if (at && !x->lost)
            jsc_verify_say(x->run, x->file, 0, "cache: the sidecar has a message at byte %llu that is not there",
                           (unsigned long long)at);
        x->told[x->ops->subject(x->part, x->ord)]++;
    }
}

static void check_subject(jsc_index_check *x, const jsc_record *r, uint64_t offset) {
    uint32_t sid = x->ops->subject(x->part, x->ord), k = x->told[sid]++;
    jsc_span text = x->ops->text(x->part, sid);
    if (text.n != r->subject_len || (text.n && memcmp(text.p, r->subject, text.n) != 0)) {
        wrong(x, r, offset, "subject");
        return;
    }
    if (k == 0 && x->ops->find_subject(x->part, text.p, text.n, jsc_subject_hash(text.p, text.n)) != sid)
        jsc_verify_say(x->run, x->file, 0, "cache: the sidecar does not find the subject of record %llu",
                       (unsigned long long)r->index);
    if (k >= x->ops->occurrences(x->part, sid) || x->ops->posting(x->part, sid, k) != x->ord)
        jsc_verify_say(x->run, x->file, 0, "cache: record %llu is not in the sidecar's list of its subject",
                       (unsigned long long)r->index);
}

static void check_message(jsc_index_check *x, const jsc_record *r, uint64_t offset) {
    const jsc_part *p = x->part;
    x->message_bytes += r->raw_len;
    x->messages++;
    if (x->messages == 1) x->first_ts = r->ts;
    x->last_ts = r->ts;
    skip_lost(x, offset);
    if (x->ord == x->count || x->ops->offset(p, x->ord) != offset) {
        /* A good message among lost ones whose sequence could not be told counts as lost as well. */
        if (!x->lost)
            jsc_verify_say(x->run, x->file, 0, "cache: the sidecar lacks the message at byte %llu, record %llu",
                           (unsigned long long)offset, (unsigned long long)r->index);
        x->seq_known = false;
        return;
    }
    uint64_t seq = x->ops->seq(p, x->ord);
    if (x->seq_known ? seq != x->seq + 1 : seq <= x->seq) wrong(x, r, offset, "sequence");
    if (x->ops->ts(p, x->ord) != r->ts) wrong(x, r, offset, "time");
    if (x->ops->size(p, x->ord) != r->data_len) wrong(x, r, offset, "payload size");
    if (x->ops->bytes(p, x->ord) != r->raw_len) wrong(x, r, offset, "record size");
    check_subject(x, r, offset);
    x->seq = seq;
    x->seq_known = true;
    x->ord++;
}

/* Indexes [first, last] are not to be found as records. */
static void check_gap(jsc_index_check *x, uint64_t first, uint64_t last) {
    for (uint64_t i = first; i <= last; i++) {
        uint64_t at = jsc_sidecar_record_at(x->side, i);
        if (at == JSC_AT_GAP) continue;
        jsc_verify_say(x->run, x->file, 0, "cache: the sidecar has record %llu, which compaction took out",
                       (unsigned long long)i);
        return;
    }
}

void jsc_index_check_record(jsc_index_check *x, const jsc_record *r, uint64_t offset) {
    uint64_t last = r->index, seqs = 0;
    if (!x) return;
    x->record_bytes += r->raw_len;
    if (r->kind == JSC_K_GAP && jsc_gap_decode(r, &last, &seqs) != JSC_OK) last = r->index;
    if (r->index < x->info->first || last > x->info->last) {
        wrong(x, r, offset, "range of indexes");
        return;
    }
    if (r->kind == JSC_K_GAP) {
        check_gap(x, r->index, last);
        x->seq += seqs;
        return;
    }
    x->records++;
    if (jsc_sidecar_record_at(x->side, r->index) != offset) wrong(x, r, offset, "offset");
    if (r->kind == JSC_K_MESSAGE) {
        check_message(x, r, offset);
    } else {
        skip_lost(x, offset);
        if (x->ord < x->count && x->ops->offset(x->part, x->ord) == offset) wrong(x, r, offset, "kind");
    }
}

void jsc_index_check_lost(jsc_index_check *x, uint64_t first, uint64_t last) {
    if (!x) return;
    x->lost = true;
    x->seq_known = false;
    for (uint64_t i = first; i <= last && i >= x->info->first && i <= x->info->last; i++)
        if (jsc_sidecar_record_at(x->side, i) == JSC_AT_GAP) {
            jsc_verify_say(x->run, x->file, 0, "cache: the sidecar calls record %llu taken out, which is lost",
                           (unsigned long long)i);
            return;
        }
}

void jsc_index_check_end(jsc_index_check *x, uint64_t last) {
    if (!x) return;
    const jsc_sidecar_info *i = x->info;
    skip_lost(x, UINT64_MAX);
    if (i->last != last)
        jsc_verify_say(x->run, x->file, 0, "cache: the sidecar ends with record %llu, its segment with %llu",
                       (unsigned long long)i->last, (unsigned long long)last);
    for (uint32_t sid = 0; sid < x->ops->subjects(x->part); sid++)
        if (x->told[sid] != x->ops->occurrences(x->part, sid)) {
            jsc_verify_say(x->run, x->file, 0, "cache: the sidecar counts %u messages of a subject that has %u",
                           x->ops->occurrences(x->part, sid), x->told[sid]);
            break;
        }
    if (x->lost) return; /* sums are those of before the loss, or after it */
    if (i->records != x->records || i->record_bytes != x->record_bytes || i->message_bytes != x->message_bytes ||
        i->lost || i->count != x->messages || i->last_seq != x->seq)
        jsc_verify_say(x->run, x->file, 0, "cache: the sidecar's sums are not those of its segment");
    if (x->messages && (i->first_ts != x->first_ts || i->last_ts != x->last_ts))
        jsc_verify_say(x->run, x->file, 0, "cache: the sidecar's times are not those of its segment");
}

/* ---- the checkpoint ---- */

/* With the lock. The first piece that the checkpoint does not fit, or NULL. Those rewritten, trimmed or added since are
 * none of its business. now: it is of this very state. */
static const jsc_piece *misfit(const jsc_mlog *m, const jsc_checkpoint *c, bool now) {
    for (size_t i = 0; i < m->npieces; i++) {
        const jsc_piece *p = m->pieces[i];
        const jsc_checkpoint_piece *q = jsc_checkpoint_find(c, p->segment->first);
        if (!q || q->salt != p->segment->salt) continue;
        if (q->base_seq != p->base_seq || q->last_seq > p->last_seq || q->count > p->count) return p;
        size_t n = 0, k = 0;
        const uint64_t *words = p->dead ? jsc_dead_words(p->dead, &n) : NULL;
        if (!now) continue;
        for (; k < n && k < q->nwords; k++)
            if (words[k] != q->words[k]) return p;
        for (; k < n; k++)
            if (words[k]) return p;
        for (; k < q->nwords; k++)
            if (q->words[k]) return p;
    }
    return NULL;
}

/* With the lock: nothing of the log is known to be lost, so that its sums are what they should be. */
static bool sound(const jsc_mlog *m) {
    for (size_t i = 0; i < m->npieces; i++)
        if (m->pieces[i]->ndamage) return false;
    return true;
}

static void compare_checkpoint(jsc_verify_run *run, const char *name, const jsc_checkpoint *c) {
    jsc_mlog *m = run->m;
    pthread_mutex_lock(&m->lock);
    uint64_t applied = m->applied;
    bool now = c->index == applied, alone = !m->options.read_only || m->options.check_lock;
    bool other_state = now && sound(m) &&
                       (c->first_seq != m->first_seq || c->last_seq != m->last_seq || c->messages != m->messages ||
                        c->message_bytes != m->message_bytes);
    const jsc_piece *p = misfit(m, c, now && sound(m));
    uint64_t first = p ? p->segment->first : 0;
    pthread_mutex_unlock(&m->lock);
    if (c->index > applied && alone)
        jsc_verify_say(run, name, 0, "cache: the checkpoint is of record %llu, the log ends with %llu",
                       (unsigned long long)c->index, (unsigned long long)applied);
    if (other_state) jsc_verify_say(run, name, 0, "cache: the checkpoint's sums are not those of the log");
    if (first)
        jsc_verify_say(run, name, 0, "cache: the checkpoint does not fit segment %016llx", (unsigned long long)first);
}

static void judge_checkpoint(jsc_verify_run *run, int i, int rc) {
    const char *name = jsc_checkpoint_name(i);
    run->findings = 0;
    if (rc == JSC_EKEY) jsc_verify_say(run, name, 0, "cache: no key that fits the checkpoint");
    else if (rc < 0 && rc > JSC_ENOTFOUND)
        jsc_verify_say(run, name, 0, "cache: the checkpoint cannot be read: %s", strerror(-rc));
    else if (rc != JSC_OK && rc != JSC_ENOTFOUND) /* none: a new log, or one whose next opening replays it */
        jsc_verify_say(run, name, 0, "cache: the checkpoint does not verify");
}

int jsc_verify_checkpoint(jsc_verify_run *run) {
    jsc_checkpoint *c = NULL;
    jsc_checkpoint_files files;
    int rc = jsc_checkpoint_read(run->m, UINT64_MAX, &c, &files);
    if (rc == -ENOMEM) return rc;
    for (int i = 0; i < 2; i++) judge_checkpoint(run, i, files.rc[i]);
    run->findings = 0;
    if (run->m->unsure && rc != JSC_OK)
        jsc_verify_say(run, jsc_checkpoint_name(0), 0,
                       "damage: it is lost with its copy, and the records alone do not say which messages limits and "
                       "purges took: these are there again");
    if (rc != JSC_OK) return JSC_OK;
    compare_checkpoint(run, jsc_checkpoint_name(files.best), c);
    jsc_checkpoint_free(c);
    return JSC_OK;
}
