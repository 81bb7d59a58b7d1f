/* One new segment from old ones: without their dead messages, packed or not, healed or not. What makes a crash at any
 * moment harmless is in docs/format.md#compaction. */
#include "care.h"

#include <errno.h>

/* One of the segments to be replaced. */
typedef struct source {
    jsc_segment *segment; /* ref held */
    uint64_t *dead;       /* the bits as the checkpoint has them */
    size_t words;
    uint64_t *dead_seqs;  /* of a piece that lost records, instead: its ordinals are not those of the new one */
    size_t ndead, dead_at;
    uint32_t count;
    uint64_t base_seq, last_seq;
    bool exact; /* its tables knew where every record is: a record lost to the walk may still be read */
} source;

typedef struct job {
    jsc_mlog *mlog;
    source *sources, *now; /* now: the one that is read */
    size_t n;
    uint64_t checkpoint; /* index that the checkpoint on the disk is as of: control records up to it may go */
    uint64_t limits;     /* index of the record that set today's limits */
    bool clean_before;   /* nothing dead lies in the pieces before */
    bool clean_behind;   /* nor in those behind */
    bool unlimited;      /* the pieces before hold no change of limits */
    const jsc_healing *healing; /* records given back, NULL: this is no repair */
    bool keep_all;       /* the dead too: the state is worked out anew from the records afterwards */
    jsc_draft *draft;
    uint32_t ord;    /* of the next message of `now` */
    uint64_t next;   /* index of its next record */
    bool dropped;    /* something was taken out that was not before */
    bool unsure;     /* records of a lost gap were dropped: how many sequences it had comes with the next message */
    uint32_t *crcs;  /* stored checksums of the batch being read, for its trailer */
    uint64_t crcs_first;
    size_t ncrcs, crcs_cap;
    bool batch_healed;
} job;

static bool dead_bit(const source *s, uint32_t ord) {
    return ord / 64 < s->words && (s->dead[ord / 64] >> (ord % 64) & 1);
}

/* The next message of `now`, which is walked upward. */
static bool dead_next(job *j) {
    source *s = j->now;
    uint32_t ord = j->ord++;
    if (!s->dead_seqs) return dead_bit(s, ord);
    uint64_t seq = jsc_draft_seq(j->draft) + 1;
    while (s->dead_at < s->ndead && s->dead_seqs[s->dead_at] < seq) s->dead_at++;
    return s->dead_at < s->ndead && s->dead_seqs[s->dead_at] == seq;
}

/* ---- what may go ---- */

/* With the lock: is the message of a sequence still on the disk when this job is done? true when in doubt. */
static bool stays(job *j, uint64_t seq) {
    jsc_mlog *mlog = j->mlog;
    size_t i;
    int rc = JSC_OK;
    jsc_piece *p = jsc_mlog_piece_of(mlog, seq, &i);
    if (!p) return false;
    const jsc_part *part = jsc_piece_part(mlog, p, &rc);
    if (!part) return true;
    uint32_t ord = part->ops->find_seq(part, seq);
    if (ord >= part->ops->count(part) || part->ops->seq(part, ord) != seq) return false;
    for (size_t k = 0; k < j->n; k++)
        if (j->sources[k].segment == p->segment) return !dead_bit(&j->sources[k], ord);
    return true;
}

/* A control record has had its effect once a checkpoint is later than it; only a replay of the whole log would want it,
 * and only if what it deletes is still there. */
static bool spent(job *j, const jsc_record *r) {
    if (j->healing || r->index > j->checkpoint) return false;
    if (r->kind == JSC_K_PURGE) return j->clean_before;
    /* What comes later dies by it too; and without it an earlier one, if that stayed, would be in force where it ended. */
    if (r->kind == JSC_K_LIMITS) return j->clean_before && j->clean_behind && j->unlimited && r->index < j->limits;
    if (r->kind != JSC_K_DELETE || r->data_len != 8) return false;
    pthread_mutex_lock(&j->mlog->lock);
    bool gone = !stays(j, jsc_get64((const uint8_t *)r->data));
    pthread_mutex_unlock(&j->mlog->lock);
    return gone;
}

/* ---- reading ---- */

static int note_crc(job *j, const jsc_record *r) {
    if (!j->healing) return JSC_OK;
    if (j->ncrcs == j->crcs_cap) {
        size_t cap = j->crcs_cap ? 2 * j->crcs_cap : 256;
        uint32_t *grown = realloc(j->crcs, 2 * cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        j->crcs = grown;
        j->crcs_cap = cap;
    }
    j->crcs[2 * j->ncrcs] = (uint32_t)(r->index - j->now->segment->first);
    j->crcs[2 * j->ncrcs++ + 1] = jsc_get32(r->raw);
    return JSC_OK;
}

/* With the lock. */
static int seq_of(job *j, uint32_t ord, uint64_t *seq) {
    int rc = JSC_OK;
    size_t i = jsc_care_find(j->mlog, j->now->segment);
    const jsc_part *part = i < j->mlog->npieces ? jsc_piece_part(j->mlog, j->mlog->pieces[i], &rc) : NULL;
    if (!part) return rc < 0 ? rc : JSC_ECORRUPT;
    if (ord >= part->ops->count(part)) return JSC_ECORRUPT;
    *seq = part->ops->seq(part, ord);
    return JSC_OK;
}

/* The sequences of gaps whose records are lost: the next message tells how many there are up to it. Where another record
 * than a message comes first, nothing depends on how they are shared among the gaps on its two sides. */
static int count_gap(job *j, bool all) {
    uint64_t seq = j->now->last_seq + 1, room = jsc_draft_room(j->draft);
    int rc = JSC_OK;
    if (j->ord < j->now->count) {
        pthread_mutex_lock(&j->mlog->lock);
        rc = seq_of(j, j->ord, &seq);
        pthread_mutex_unlock(&j->mlog->lock);
        if (rc != JSC_OK) return rc;
    }
    if (seq <= jsc_draft_seq(j->draft)) return JSC_ECORRUPT;
    uint64_t n = seq - 1 - jsc_draft_seq(j->draft);
    jsc_draft_skip(j->draft, all || n < room ? n : room);
    if (all || n <= room) j->unsure = false;
    return JSC_OK;
}

static int take(job *j, const jsc_record *r) {
    int rc;
    if (r->index != j->next) return JSC_ECORRUPT;
    if ((rc = note_crc(j, r)) != JSC_OK) return rc;
    j->next++;
    if (r->kind == JSC_K_GAP) {
        uint64_t last, seqs;
        if ((rc = jsc_gap_decode(r, &last, &seqs)) != JSC_OK) return rc;
        j->next = last + 1;
        return jsc_draft_drop(j->draft, r->index, last, seqs, r->term, r->ts);
    }
    if (r->kind != JSC_K_MESSAGE) {
        if (spent(j, r)) {
            j->dropped = true;
            return jsc_draft_drop(j->draft, r->index, r->index, 0, r->term, r->ts);
        }
        if (j->unsure && (rc = count_gap(j, false)) != JSC_OK) return rc;
        return jsc_draft_keep(j->draft, r);
    }
    if (j->unsure && (rc = count_gap(j, true)) != JSC_OK) return rc;
    if (!dead_next(j)) return jsc_draft_keep(j->draft, r);
    j->dropped = true;
    return jsc_draft_drop(j->draft, r->index, r->index, 1, r->term, r->ts);
}

static int each_record(void *ctx, const jsc_record *r, uint64_t offset) { return take(ctx, r); }

/* A record that the walk over the file does not reach, but the segment's tables may. *copy is malloc'ed. */
static int read_by_table(job *j, uint64_t index, uint8_t **copy, jsc_record *out) {
    jsc_mlog *mlog = j->mlog;
    jsc_segment *s = j->now->segment;
    jsc_record r;
    jsc_block *hold = NULL;
    bool fleeting;
    uint64_t offset;
    size_t used;
    pthread_mutex_lock(&mlog->lock);
    int rc = jsc_segment_where(mlog->log, s, index, &offset);
    if (rc == JSC_OK) rc = jsc_segment_read_at(mlog->log, s, offset, &r, &hold, &fleeting);
    if (rc == JSC_OK && r.index != index) rc = JSC_ECORRUPT;
    if (rc == JSC_OK && !(*copy = malloc(r.raw_len))) rc = -ENOMEM;
    if (rc == JSC_OK) memcpy(*copy, r.raw, r.raw_len);
    if (hold) jsc_block_release(mlog->blocks, hold);
    pthread_mutex_unlock(&mlog->lock);
    return rc == JSC_OK ? jsc_record_decode(*copy, r.raw_len, out, &used) : rc;
}

static int each_lost(void *ctx, uint64_t first, uint64_t last, uint64_t offset) {
    job *j = ctx;
    int rc = JSC_OK;
    for (uint64_t i = first; i <= last && rc == JSC_OK; i++) {
        const jsc_healed *h = j->healing ? jsc_healing_find(j->healing, i) : NULL;
        uint8_t *copy = NULL;
        jsc_record r;
        size_t used;
        rc = j->now->exact ? read_by_table(j, i, &copy, &r) : JSC_ECORRUPT;
        if (rc == JSC_ENOTFOUND) { /* it was taken out before: the record of its gap is what is lost */
            rc = jsc_draft_drop(j->draft, i, i, 0, 0, 0);
            j->next = i + 1;
            j->unsure = true;
            continue;
        }
        if (rc == JSC_ECORRUPT && h) {
            rc = jsc_record_decode(j->healing->bytes + h->at, h->n, &r, &used);
            j->batch_healed = true;
        }
        if (rc == JSC_OK) rc = take(j, &r);
        free(copy);
    }
    return rc;
}

/* A trailer survived whose batch has healed records: with them its checksum must fit again, and its count of messages. */
static int each_batch(void *ctx, const jsc_trailer *t, uint64_t end) {
    job *j = ctx;
    int rc = JSC_OK;
    if (j->batch_healed && t->index + 1 == j->next && !(j->now->segment->flags & JSC_SF_ENCRYPTED)) {
        uint64_t from = t->index - t->count + 1 - j->now->segment->first;
        uint32_t crc = 0;
        for (size_t k = 0; k < j->ncrcs; k++)
            if (j->crcs[2 * k] >= from) crc = jsc_crc32c(crc, &j->crcs[2 * k + 1], sizeof crc);
        /* With the head the word is lost that the file was encrypted: then trailers sum up no records. */
        bool sums = !j->now->segment->head_lost || jsc_trailer_crc(t, 0) != t->crc;
        if (sums && jsc_trailer_crc(t, crc) != t->crc) rc = JSC_ECORRUPT;
        if (!j->unsure && t->count && t->commit != jsc_draft_seq(j->draft)) rc = JSC_ECORRUPT;
    }
    j->ncrcs = 0;
    j->batch_healed = false;
    return rc;
}

static int read_source(job *j, source *s) {
    static const jsc_visit visit = {.record = each_record, .lost = each_lost, .batch = each_batch};
    j->now = s;
    j->ord = 0;
    j->next = s->segment->first;
    j->ncrcs = 0;
    j->batch_healed = false;
    int rc = jsc_segment_visit(j->mlog->log, s->segment, &visit, j);
    if (rc != JSC_OK) return rc;
    if (j->unsure && jsc_draft_seq(j->draft) <= s->last_seq) {
        jsc_draft_skip(j->draft, s->last_seq - jsc_draft_seq(j->draft));
        j->unsure = false;
    }
    if (j->next != s->segment->first + s->segment->count) return JSC_ECORRUPT;
    if (!s->dead_seqs && j->ord != s->count) return JSC_ECORRUPT;
    return jsc_draft_seq(j->draft) == s->last_seq ? JSC_OK : JSC_ECORRUPT;
}

/* ---- begin ---- */

/* With the lock: may [i, i + n) be rewritten? */
static bool fit(const jsc_mlog *mlog, size_t i, size_t n, bool healing) {
    if (n == 0 || i + n > mlog->npieces) return false;
    uint64_t next = mlog->pieces[i]->segment->first;
    for (size_t k = i; k < i + n; k++) {
        const jsc_piece *p = mlog->pieces[k];
        if (p->busy || !jsc_care_full(mlog, k) || p->segment->first != next || !p->segment->count) return false;
        if (!healing && (!p->segment->sealed || p->segment->info.lost || p->ndamage)) return false;
        next += p->segment->count;
    }
    return true;
}

/* With the lock: the dead of a piece that lost records, by sequence. */
static int pin_seqs(source *s, const jsc_piece *p, const jsc_part *part) {
    if (!(s->dead_seqs = malloc((s->ndead = p->dead ? jsc_dead_count(p->dead) : 0) * sizeof *s->dead_seqs + 1)))
        return -ENOMEM;
    size_t n = 0;
    for (uint32_t ord = 0; ord < p->count && n < s->ndead; ord++)
        if (jsc_dead_has(p->dead, ord)) s->dead_seqs[n++] = part->ops->seq(part, ord);
    s->ndead = n;
    return JSC_OK;
}

/* With the lock: pins the pieces as they are now. */
static int pin(job *j, size_t i) {
    jsc_mlog *mlog = j->mlog;
    for (size_t k = 0; k < j->n; k++) {
        jsc_piece *p = mlog->pieces[i + k];
        source *s = &j->sources[k];
        size_t words = 0;
        s->segment = p->segment;
        jsc_segment_ref(s->segment);
        p->busy = true;
        /* Readers go on with the old file while another takes its name: they must have it already. */
        int rc = jsc_segment_map(mlog->log, s->segment);
        if (rc != JSC_OK && rc != JSC_ECORRUPT) return rc;
        rc = JSC_OK;
        const jsc_part *part = jsc_piece_part(mlog, p, &rc); /* where its sidecar is bad, it is another one now */
        if (!part) return rc;
        const uint64_t *dead = p->dead ? jsc_dead_words(p->dead, &words) : NULL;
        if (j->keep_all) words = 0;
        if (words && !(s->dead = malloc(words * sizeof *s->dead))) return -ENOMEM;
        if (words) memcpy(s->dead, dead, words * sizeof *s->dead);
        s->words = words;
        s->count = p->count;
        s->base_seq = p->base_seq;
        s->last_seq = p->last_seq;
        s->exact = p->segment->sealed && !p->segment->info.lost;
        if (j->healing && !s->exact && !j->keep_all && (rc = pin_seqs(s, p, part)) != JSC_OK) return rc;
    }
    j->limits = mlog->limits_index;
    j->clean_before = j->clean_behind = j->unlimited = true;
    for (size_t k = 0; k < i; k++) {
        /* Which kinds they are only the records say, but where all are messages none is a change of limits. */
        const jsc_segment *s = mlog->pieces[k]->segment;
        if (!s->sealed || s->info.lost || s->info.records != s->info.count) j->unlimited = false;
    }
    for (size_t k = 0; k < mlog->npieces; k++) {
        if ((k >= i && k < i + j->n) || !jsc_dead_count(mlog->pieces[k]->dead)) continue;
        if (k < i) j->clean_before = false;
        else j->clean_behind = false;
    }
    return JSC_OK;
}

static int begin(job *j, size_t i, bool healing) {
    jsc_mlog *mlog = j->mlog;
    if (i == mlog->npieces) return JSC_ENOTFOUND;
    if (!fit(mlog, i, j->n, healing)) return JSC_EINVAL;
    j->keep_all = healing && jsc_repair_replays(mlog, mlog->pieces[i]->segment);
    int rc = pin(j, i);
    bool any = false;
    for (size_t k = 0; k < j->n; k++)
        if (j->sources[k].words) any = true;
    /* Who finds the new file beside an older checkpoint takes the messages that are missing for dead, and those that are
     * there for alive: so the checkpoint must have exactly the bits that this job goes by, which are those of now. */
    if (rc == JSC_OK && any) rc = jsc_checkpoint_write(mlog);
    j->checkpoint = mlog->checkpointed;
    return rc;
}

/* ---- install ---- */

/* With the lock: deletions since the checkpoint, by the new segment's ordinals. */
static int carry_over(job *j, size_t i, jsc_dead **out) {
    jsc_mlog *mlog = j->mlog;
    const jsc_part *fresh = jsc_tail_part(jsc_draft_tail(j->draft));
    jsc_dead *dead = NULL;
    int rc = JSC_OK;
    for (size_t k = 0; k < j->n && rc == JSC_OK; k++) {
        jsc_piece *p = mlog->pieces[i + k];
        size_t words = 0;
        const uint64_t *bits = p->dead ? jsc_dead_words(p->dead, &words) : NULL;
        const jsc_part *part = NULL;
        for (size_t w = 0; w < words && rc == JSC_OK; w++) {
            uint64_t more = bits[w] & ~(w < j->sources[k].words ? j->sources[k].dead[w] : 0);
            if (more && !part && !(part = jsc_piece_part(mlog, p, &rc))) break;
            for (; more && rc == JSC_OK; more &= more - 1) {
                uint32_t ord = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(more);
                uint64_t seq = part->ops->seq(part, ord);
                uint32_t to = fresh->ops->find_seq(fresh, seq);
                if (to >= fresh->ops->count(fresh) || fresh->ops->seq(fresh, to) != seq) {
                    if (!j->healing) rc = JSC_ECORRUPT; /* else it was taken for one that is lost, and was no message */
                    continue;
                }
                if (!dead) rc = jsc_dead_new(&dead);
                if (rc == JSC_OK) jsc_dead_add(dead, fresh, to, &rc);
            }
        }
    }
    if (rc == JSC_OK) *out = dead;
    else jsc_dead_free(dead);
    return rc;
}

/* With the lock: the new file takes the first one's name, the new piece the old ones' place. *named: it has the name, so
 * that only going on is right. */
static int exchange(job *j, size_t i, const jsc_sidecar_info *info, uint64_t disk_bytes, bool *named) {
    jsc_mlog *mlog = j->mlog;
    jsc_segment *fresh = NULL;
    jsc_piece *piece = NULL;
    jsc_dead *dead = NULL;
    char *tmp = jsc_segment_path(mlog->log, info->first, ".tmp");
    int rc = tmp ? jsc_segment_adopt(mlog->log, tmp, info, &fresh) : -ENOMEM;
    free(tmp);
    if (rc == JSC_OK) rc = carry_over(j, i, &dead);
    if (rc == JSC_OK) rc = jsc_piece_new(mlog, fresh, &piece);
    if (rc == JSC_OK) rc = jsc_care_rename(mlog, info->first, ".tmp", ".seg");
    if (rc != JSC_OK) {
        if (piece) jsc_piece_free(mlog, piece);
        jsc_dead_free(dead);
        jsc_segment_unref(fresh);
        return rc;
    }
    *named = true;
    if (jsc_care_rename(mlog, info->first, ".idx.tmp", ".idx") != 0) {
        /* The old sidecar stays, and fits nothing: it is written again when the piece is sealed again. */
        fresh->sealed = false;
        rc = jsc_segment_reindex(mlog->log, fresh);
        piece->tail = jsc_draft_take_tail(j->draft);
    } else {
        jsc_dead_free(piece->dead);
        piece->dead = dead;
        if (dead) jsc_dead_move(dead);
        dead = NULL;
    }
    if (dead) {
        jsc_dead_free(piece->dead);
        piece->dead = dead;
    }
    piece->base_seq = info->base_seq;
    piece->last_seq = info->last_seq;
    piece->count = info->count;
    piece->message_bytes = info->message_bytes;
    piece->first_ts = info->first_ts;
    piece->last_ts = info->last_ts;
    piece->disk_bytes = disk_bytes;
    for (size_t k = i; k < i + j->n; k++) {
        const jsc_piece *old = mlog->pieces[k];
        if (old->dead_at > piece->dead_at) piece->dead_at = old->dead_at;
        if (old->displaced_at > piece->displaced_at) piece->displaced_at = old->displaced_at;
    }
    if (rc == JSC_OK) rc = jsc_log_replace(mlog->log, i, j->n, fresh); /* takes the segment's first ref over */
    if (rc != JSC_OK) {
        jsc_piece_free(mlog, piece);
        jsc_segment_unref(fresh);
        return rc;
    }
    for (size_t k = i; k < i + j->n; k++) {
        mlog->messages -= jsc_piece_live(mlog->pieces[k]);
        mlog->message_bytes -= jsc_piece_live_bytes(mlog->pieces[k]);
        jsc_piece_free(mlog, mlog->pieces[k]);
    }
    /* The same as before, unless what was lost is there again. */
    mlog->messages += jsc_piece_live(piece);
    mlog->message_bytes += jsc_piece_live_bytes(piece);
    if (j->healing) jsc_subjects_forget_all(mlog);
    mlog->pieces[i] = piece;
    memmove(mlog->pieces + i + 1, mlog->pieces + i + j->n, (mlog->npieces - i - j->n) * sizeof *mlog->pieces);
    mlog->npieces -= j->n - 1;
    /* What it dropped may have been what control records further on still stood for. */
    for (size_t k = i + 1; j->dropped && k < mlog->npieces; k++) mlog->pieces[k]->again = true;
    if (!jsc_piece_live(mlog->pieces[0])) mlog->trim_wanted = true;
    mlog->generation++;
    return JSC_OK;
}

static int install(job *j, const jsc_sidecar_info *info, uint64_t disk_bytes, bool *named) {
    jsc_mlog *mlog = j->mlog;
    size_t i = jsc_care_find(mlog, j->sources[0].segment);
    if (i + j->n > mlog->npieces) return -ECANCELED;
    for (size_t k = 0; k < j->n; k++)
        if (mlog->pieces[i + k]->segment != j->sources[k].segment) return -ECANCELED;
    /* A checkpoint written meanwhile may have other bits than those the new file was made by. */
    if (mlog->checkpointed != j->checkpoint) return -ECANCELED;
    int rc = exchange(j, i, info, disk_bytes, named);
    return rc != JSC_OK && *named ? jsc_mlog_break(mlog, rc) : rc;
}

static void let_go(job *j) {
    pthread_mutex_lock(&j->mlog->lock);
    for (size_t k = 0; k < j->n; k++) {
        size_t i = j->sources[k].segment ? jsc_care_find(j->mlog, j->sources[k].segment) : SIZE_MAX;
        if (i < j->mlog->npieces) j->mlog->pieces[i]->busy = false;
    }
    /* They may have died meanwhile. */
    if (j->mlog->npieces && !jsc_piece_live(j->mlog->pieces[0])) j->mlog->trim_wanted = true;
    pthread_mutex_unlock(&j->mlog->lock);
    /* The last refs of what was replaced: its files go now, the directory having been synced. */
    for (size_t k = 0; k < j->n; k++) {
        jsc_segment_unref(j->sources[k].segment);
        free(j->sources[k].dead);
        free(j->sources[k].dead_seqs);
    }
    free(j->sources);
    free(j->crcs);
}

int jsc_rewrite(jsc_mlog *mlog, jsc_segment *first, size_t n, const jsc_healing *healing) {
    job j = {.mlog = mlog, .n = n, .healing = healing};
    jsc_sidecar_info info;
    uint64_t disk_bytes = 0;
    bool named = false;
    if (!(j.sources = calloc(n ? n : 1, sizeof *j.sources))) return -ENOMEM;
    pthread_mutex_lock(&mlog->lock);
    int rc = begin(&j, jsc_care_find(mlog, first), healing != NULL);
    pthread_mutex_unlock(&mlog->lock);
    /* Without a checkpoint all records are replayed: what they say is then what counts. */
    if (rc == JSC_OK && j.keep_all) rc = jsc_checkpoint_remove(mlog);
    if (rc == JSC_OK)
        rc = jsc_draft_new(mlog, j.sources[0].segment->first, j.sources[0].segment->prev_term, j.sources[0].base_seq,
                           &j.draft);
    for (size_t k = 0; k < n && rc == JSC_OK; k++) rc = read_source(&j, &j.sources[k]);
    const source *end = &j.sources[n ? n - 1 : 0];
    if (rc == JSC_OK)
        rc =
            jsc_draft_finish(j.draft, end->segment->first + end->segment->count - 1, end->last_seq, &info, &disk_bytes);
    if (rc == JSC_OK) {
        pthread_mutex_lock(&mlog->lock);
        rc = install(&j, &info, disk_bytes, &named);
        mlog->compactions += rc == JSC_OK;
        mlog->compacted_bytes += jsc_draft_written(j.draft);
        pthread_mutex_unlock(&mlog->lock);
    }
    jsc_draft_free(j.draft, named);
    if (named) {
        int synced = mlog->vfs->syncdir(mlog->vfs->self, mlog->dir);
        if (synced < 0) {
            rc = synced;
            pthread_mutex_lock(&mlog->lock);
            jsc_mlog_break(mlog, rc);
            /* Which files a power cut leaves is not known: all of them must stay. */
            for (size_t k = 0; k < n; k++) {
                free(j.sources[k].segment->path);
                j.sources[k].segment->path = NULL;
            }
            pthread_mutex_unlock(&mlog->lock);
        }
        /* What is merged goes now, whoever still reads it: once the merged file is gone, it would pass for the log's. */
        for (size_t k = 0; k < n && synced >= 0; k++)
            if (!j.sources[k].segment->spares) (void)jsc_segment_unlink(j.sources[k].segment);
    }
    let_go(&j);
    if (rc == JSC_OK && !j.keep_all) {
        pthread_mutex_lock(&mlog->lock);
        rc = jsc_checkpoint_write(mlog);
        pthread_mutex_unlock(&mlog->lock);
    }
    return rc;
}
