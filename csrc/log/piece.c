/* Pieces: the message log's view of its segments. Finding, reading and killing messages; letting go of what is wholly
 * dead; columns. */
#include "mlog_internal.h"

#include <errno.h>
#include <fcntl.h>

enum { HOLD_NONE, HOLD_SEGMENT, HOLD_BLOCK, HOLD_COPY };
enum { FORESEEN = 2048 }; /* bytes */
enum { EARLY = 8 };       /* segments let go of on a full disk before it is asked again */

/* ---- pieces ---- */

int jsc_piece_new(jsc_mlog *m, jsc_segment *s, jsc_piece **out) {
    jsc_piece *p = calloc(1, sizeof *p);
    if (!p) return -ENOMEM;
    jsc_segment_ref(s);
    p->segment = s;
    p->base_seq = p->last_seq = s->base_seq;
    if (s->sealed) {
        p->base_seq = s->info.base_seq;
        p->last_seq = s->info.last_seq;
        p->count = s->info.count;
        p->message_bytes = s->info.message_bytes;
        p->first_ts = s->info.first_ts;
        p->last_ts = s->info.last_ts;
    }
    *out = p;
    return JSC_OK;
}

void jsc_piece_free(jsc_mlog *m, jsc_piece *p) {
    if (!p) return;
    jsc_segment_unref(p->segment);
    jsc_tail_free(p->tail);
    jsc_dead_free(p->dead);
    free(p->damage);
    free(p);
}

uint64_t jsc_piece_live(const jsc_piece *p) { return p->count - (p->dead ? jsc_dead_count(p->dead) : 0); }
uint64_t jsc_piece_live_bytes(const jsc_piece *p) { return p->message_bytes - (p->dead ? jsc_dead_bytes(p->dead) : 0); }

const jsc_part *jsc_piece_part(jsc_mlog *m, jsc_piece *p, int *rc) {
    if (p->tail) return jsc_tail_part(p->tail);
    jsc_sidecar *side;
    int result = jsc_segment_sidecar(m->log, p->segment, &side);
    if (JSC_LIKELY(result == JSC_OK)) {
        p->used_at = ++m->tick;
        return jsc_sidecar_part(side);
    }
    if (result == JSC_ECORRUPT || result == JSC_ENOTFOUND) {
        uint32_t count = p->count;
        uint64_t bytes = p->message_bytes;
        result = jsc_piece_build(m, p);
        if (result == JSC_OK && (p->count != count || p->message_bytes != bytes) && !m->restoring)
            result = jsc_mlog_retotal(m);
        if (result == JSC_OK) jsc_maintain_poke(m);
        if (result == JSC_OK) return jsc_tail_part(p->tail);
    }
    *rc = result;
    return NULL;
}

jsc_piece *jsc_mlog_piece_of(jsc_mlog *m, uint64_t seq, size_t *i) {
    size_t lo = 0, hi = m->npieces;
    if (hi && m->pieces[hi - 1]->base_seq < seq) lo = hi - 1; /* the newest, most often */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->pieces[mid]->last_seq < seq) lo = mid + 1;
        else hi = mid;
    }
    if (lo == m->npieces || m->pieces[lo]->base_seq >= seq) return NULL;
    if (i) *i = lo;
    return m->pieces[lo];
}

/* ---- the dead ---- */

uint64_t jsc_mlog_next_live(jsc_mlog *m, size_t i, uint32_t ord, int *rc) {
    for (; i < m->npieces; i++, ord = 0) {
        jsc_piece *p = m->pieces[i];
        if (!jsc_piece_live(p)) continue;
        uint32_t at = p->dead ? jsc_dead_next_live(p->dead, ord, p->count) : ord < p->count ? ord : JSC_NONE;
        if (at == JSC_NONE) continue;
        const jsc_part *part = jsc_piece_part(m, p, rc);
        if (!part) return 0;
        return part->ops->seq(part, at);
    }
    return m->last_seq + 1;
}

int jsc_mlog_retotal(jsc_mlog *m) {
    uint64_t messages = 0, bytes = 0;
    int rc = JSC_OK;
    for (size_t i = 0; i < m->npieces; i++) {
        messages += jsc_piece_live(m->pieces[i]);
        bytes += jsc_piece_live_bytes(m->pieces[i]);
    }
    uint64_t first = jsc_mlog_next_live(m, 0, 0, &rc);
    if (!first) return rc;
    m->messages = messages;
    m->message_bytes = bytes;
    m->first_seq = first;
    return JSC_OK;
}

bool jsc_mlog_kill(jsc_mlog *m, jsc_piece *p, uint32_t ord, int *error) {
    int rc = JSC_OK;
    const jsc_part *part = jsc_piece_part(m, p, error);
    if (!part) return false;
    if (!p->dead && (rc = jsc_dead_new(&p->dead)) != JSC_OK) {
        *error = rc;
        return false;
    }
    if (!jsc_dead_add(p->dead, part, ord, &rc)) {
        if (rc != JSC_OK) *error = rc;
        return false;
    }
    uint64_t seq = part->ops->seq(part, ord);
    if (!m->deleting) p->displaced_at = m->applied;
    m->messages--;
    m->message_bytes -= part->ops->bytes(part, ord);
    if (part->ops->offset(part, ord)) {
        jsc_span text = part->ops->text(part, part->ops->subject(part, ord));
        jsc_subjects_killed(m, text.p, text.n, jsc_subject_hash(text.p, text.n), seq);
    }
    if (!jsc_piece_live(p)) {
        p->dead_at = m->applied;
        if (p == m->pieces[0]) m->trim_wanted = true;
    }
    if (seq == m->first_seq) {
        size_t i = 0;
        if (p != m->pieces[0]) jsc_mlog_piece_of(m, seq, &i);
        uint64_t first = jsc_mlog_next_live(m, i, ord + 1, &rc);
        if (first) m->first_seq = first;
        else *error = rc;
    }
    return true;
}

int jsc_piece_kill_all(jsc_mlog *m, jsc_piece *p) {
    uint64_t live = jsc_piece_live(p), bytes = jsc_piece_live_bytes(p);
    if (!live) return JSC_OK;
    int rc = JSC_OK;
    size_t n = ((size_t)p->count + 63) / 64;
    jsc_dead *dead = NULL;
    const jsc_part *part = jsc_piece_part(m, p, &rc);
    if (!part) return rc;
    uint64_t *words = malloc(n * sizeof *words);
    if (!words) return -ENOMEM;
    memset(words, 0xff, n * sizeof *words);
    if (p->count % 64) words[n - 1] = ((uint64_t)1 << p->count % 64) - 1;
    if ((rc = jsc_dead_new(&dead)) == JSC_OK && (rc = jsc_dead_load(dead, part, words, n)) == JSC_OK) {
        jsc_dead_free(p->dead);
        p->dead = dead;
        p->dead_at = m->applied;
        m->messages -= live;
        m->message_bytes -= bytes;
        jsc_subjects_forget_all(m);
        if (p == m->pieces[0]) m->trim_wanted = true;
        uint64_t first = jsc_mlog_next_live(m, 0, 0, &rc);
        if (first) m->first_seq = first;
    } else {
        jsc_dead_free(dead);
    }
    free(words);
    return rc;
}

/* ---- letting go ---- */

/* The last index that is sure to survive a power cut. A segment that the sync thread left was synced, in every mode. */
static uint64_t synced_index(const jsc_mlog *m) {
    uint64_t at = atomic_load_explicit(&m->log->synced, memory_order_acquire);
    for (size_t i = m->log->nsegments; i-- > 0;) {
        const jsc_segment *s = m->log->segments[i];
        if (!atomic_load_explicit(&s->left, memory_order_acquire)) continue;
        if (s->count && jsc_segment_last(s) > at) at = jsc_segment_last(s);
        break;
    }
    return at;
}

/* On a full disk the record that deletes cannot be written before what it deletes is gone. So that goes first: somebody
 * asked for it, and a log may begin at any segment, whose head tells where. Not what limits pushed out for the sake of
 * messages that a crash may still take, nor what is looked at. */
static bool goes_first(const jsc_mlog *m, const struct jsc_dropped *d, uint64_t safe) {
    return atomic_load_explicit(&m->log->full, memory_order_relaxed) && d->displaced_at <= safe &&
           atomic_load_explicit(&d->segment->left, memory_order_acquire);
}

static bool looked_at(const struct jsc_dropped *d) { return atomic_load(&d->segment->refs) > 1; }

bool jsc_mlog_held(const jsc_mlog *m) {
    if (m->ndropped) return goes_first(m, m->dropped, synced_index(m)) && looked_at(m->dropped);
    return m->npieces > 1 && !jsc_piece_live(m->pieces[0]) && m->pieces[0]->busy;
}

void jsc_mlog_reap(jsc_mlog *m) {
    if (!m->ndropped) return;
    uint64_t safe = synced_index(m);
    size_t n = 0, early = 0;
    for (; n < m->ndropped && early < EARLY; n++) {
        bool sure = m->dropped[n].index <= safe;
        if (!sure && (!goes_first(m, &m->dropped[n], safe) || looked_at(&m->dropped[n]))) break;
        if (m->limits_first && m->limits_first <= m->dropped[n].last) {
            m->checkpoint_wanted = m->keeper.checkpoint_due = true;
            jsc_maintain_poke(m);
            break;
        }
        /* From the front, whoever still reads one: a hole among the files would be taken for damage. */
        if (!m->dropped[n].segment->spares && jsc_segment_unlink(m->dropped[n].segment) < 0) break;
        jsc_segment_unref(m->dropped[n].segment);
        /* Nothing says yet that they are dead: after a power cut they may be missing only from the front. */
        if (!sure && (early = m->vfs->syncdir(m->vfs->self, m->dir) < 0 ? EARLY : early + 1) == EARLY) {
            n++;
            break;
        }
    }
    m->ndropped -= n;
    memmove(m->dropped, m->dropped + n, m->ndropped * sizeof *m->dropped);
    if (n && atomic_load_explicit(&m->log->full, memory_order_relaxed)) jsc_store_retry(m->log);
}

static int put_control(jsc_mlog *m, uint8_t kind, const uint8_t *bytes, size_t n, uint64_t *index) {
    int rc = jsc_log_append(m->log, 0, jsc_mlog_clock(m), kind, NULL, 0, NULL, 0, bytes, n, index);
    if (rc != JSC_OK) return rc;
    m->unsubmitted += n + JSC_RECORD_HEAD;
    m->applied = *index;
    return jsc_mlog_extend_pieces(m);
}

int jsc_mlog_restate(jsc_mlog *m, uint64_t gone) {
    uint8_t bytes[32];
    uint64_t index;
    int rc = JSC_OK;
    if (m->limited_since && m->limited_since <= gone && m->limited_index <= gone) {
        jsc_put64(bytes, m->limited_since);
        if ((rc = put_control(m, JSC_K_LIMITED, bytes, 8, &index)) != JSC_OK) return rc;
        m->limited_index = index;
    }
    if (!m->limits_index || m->limits_index > gone) return JSC_OK;
    if ((rc = jsc_control_limits_encode(&m->limits, bytes)) != JSC_OK) return rc;
    if ((rc = put_control(m, JSC_K_LIMITS, bytes, sizeof bytes, &index)) != JSC_OK) return rc;
    m->limits_index = index;
    if (!m->limits_first) m->limits_first = index;
    return JSC_OK;
}

int jsc_mlog_trim(jsc_mlog *m) {
    m->trim_wanted = false;
    if (m->options.read_only || m->restoring || m->broken || m->shut) return JSC_OK;
    jsc_mlog_reap(m);
    size_t k = 0;
    uint64_t index = 0;
    while (k + 1 < m->npieces && !jsc_piece_live(m->pieces[k]) && !m->pieces[k]->busy) {
        if (m->pieces[k]->dead_at > index) index = m->pieces[k]->dead_at;
        k++;
    }
    if (!k || jsc_log_error(m->log) != JSC_OK) return JSC_OK;
    if (m->ndropped + k > m->dropped_cap) {
        size_t cap = m->ndropped + k + 16;
        struct jsc_dropped *grown = realloc(m->dropped, cap * sizeof *grown);
        if (!grown) return -ENOMEM;
        m->dropped = grown;
        m->dropped_cap = cap;
    }
    uint64_t applied = m->applied;
    int rc = jsc_mlog_restate(m, m->pieces[k]->segment->first - 1);
    if (rc != JSC_OK) return rc;
    if (m->applied != applied) index = m->applied;
    if ((rc = jsc_log_replace(m->log, 0, k, NULL)) != JSC_OK) return rc;
    if (m->ndropped && m->dropped[m->ndropped - 1].index > index) index = m->dropped[m->ndropped - 1].index;
    for (size_t i = 0; i < k; i++) {
        jsc_segment *s = m->pieces[i]->segment;
        m->dropped[m->ndropped++] =
            (struct jsc_dropped){s, index, s->count ? jsc_segment_last(s) : s->first, m->pieces[i]->displaced_at};
        m->pieces[i]->segment = NULL;
        jsc_piece_free(m, m->pieces[i]);
    }
    m->npieces -= k;
    memmove(m->pieces, m->pieces + k, m->npieces * sizeof *m->pieces);
    m->generation++;
    jsc_mlog_reap(m);
    return JSC_OK;
}

/* ---- reading ---- */

/* Is the record at that offset the one of message `ord`? It says its own index; the table that led to it may have rotted
 * in its mapping, or the file may hold what was there before a write that got lost. */
static bool belongs(const jsc_piece *p, const jsc_part *part, uint32_t ord, uint64_t offset, const jsc_record *r) {
    const jsc_segment *s = p->segment;
    uint64_t at = r->index - s->first;
    if (r->kind != JSC_K_MESSAGE) return false;
    if (JSC_LIKELY(p->count == s->count && at == ord)) return true; /* every record is a message */
    if (!p->tail) return r->index == jsc_sidecar_index_of((const jsc_sidecar *)part, ord);
    if (s->at) return at < s->count && (uint64_t)s->at[at] * 8 == offset;
    return r->raw_len == part->ops->bytes(part, ord) && r->data_len == part->ops->size(part, ord);
}

int jsc_mlog_load(jsc_mlog *m, jsc_piece *p, const jsc_part *part, uint32_t ord, uint64_t seq, jsc_message *out,
                  int *owed) {
    uint64_t offset = part->ops->offset(part, ord);
    jsc_record r;
    jsc_block *block;
    bool fleeting;
    if (!offset) return JSC_ECORRUPT;
    int rc = jsc_segment_read_at(m->log, p->segment, offset, &r, &block, &fleeting);
    p->suspect |= rc == JSC_ECORRUPT;
    if (rc != JSC_OK) return rc;
    if (JSC_UNLIKELY(!belongs(p, part, ord, offset, &r))) {
        if (block) jsc_block_release(m->blocks, block);
        p->suspect = true;
        return JSC_ECORRUPT;
    }
    void *hold = block;
    uint8_t kind = HOLD_BLOCK;
    if (fleeting) {
        uint8_t *copy = malloc(r.raw_len);
        if (!copy) return -ENOMEM;
        memcpy(copy, r.raw, r.raw_len);
        jsc_record_view(copy, &r);
        hold = copy;
        kind = HOLD_COPY;
    } else if (!block) {
        ++*owed;
        hold = p->segment;
        kind = HOLD_SEGMENT;
    }
    *out = (jsc_message){.seq = seq, .r = r, .hold = hold, .hold_kind = kind};
    return JSC_OK;
}

void jsc_message_release(jsc_mlog *m, jsc_message *x) {
    if (x->hold_kind == HOLD_SEGMENT) jsc_segment_unref(x->hold);
    else if (x->hold_kind == HOLD_BLOCK) jsc_block_release(m->blocks, x->hold);
    else if (x->hold_kind == HOLD_COPY) free(x->hold);
    x->hold = NULL;
    x->hold_kind = HOLD_NONE;
}

/* Asks the processor for a record of usual size at once, not for its length first. */
static inline void foresee(const jsc_piece *p, uint64_t offset) {
    const jsc_segment *s = p->segment;
    if (!s->map || offset >= s->map_len) return;
    uint64_t usual = p->message_bytes / p->count;
    for (uint64_t n = 0; n <= usual && n < FORESEEN; n += 64)
        __builtin_prefetch((const void *)((uintptr_t)s->map + offset + n));
}

static int get(jsc_mlog *m, uint64_t seq, jsc_message *out) {
    int rc = JSC_OK, owed = 0;
    jsc_piece *p = seq ? jsc_mlog_piece_of(m, seq, NULL) : NULL;
    if (!p) return JSC_ENOTFOUND;
    const jsc_part *part = jsc_piece_part(m, p, &rc);
    if (!part) return rc;
    uint32_t ord = part->ops->find_seq(part, seq);
    if (ord == part->ops->count(part) || part->ops->seq(part, ord) != seq) return JSC_ENOTFOUND;
    if (p->dead && jsc_dead_has(p->dead, ord)) return JSC_ENOTFOUND;
    foresee(p, part->ops->offset(part, ord));
    rc = jsc_mlog_load(m, p, part, ord, seq, out, &owed);
    if (owed) jsc_segment_ref(p->segment);
    return rc;
}

int jsc_mlog_get(jsc_mlog *m, uint64_t seq, jsc_message *out) {
    pthread_mutex_lock(&m->lock);
    int rc = get(m, seq, out);
    if (rc == -ESTALE && (rc = jsc_mlog_reload(m)) == JSC_OK) rc = get(m, seq, out);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static int get_end(jsc_mlog *m, const jsc_span *subject, bool last, uint64_t from, jsc_message *out) {
    uint64_t seq = 0;
    int rc = jsc_subjects_end(m, subject, last, &seq);
    if (rc != JSC_OK) return rc;
    if (!seq || seq < from) return JSC_ENOTFOUND;
    if ((rc = get(m, seq, out)) == JSC_ECORRUPT) out->seq = seq;
    if (rc != JSC_OK) return rc;
    if (JSC_LIKELY(out->r.subject_len == subject->n && memcmp(out->r.subject, subject->p, subject->n) == 0))
        return JSC_OK;
    jsc_message_release(m, out); /* the postings that led there have rotted */
    return JSC_ECORRUPT;
}

int jsc_mlog_get_end(jsc_mlog *m, const jsc_span *subject, bool last, uint64_t from, jsc_message *out) {
    pthread_mutex_lock(&m->lock);
    int rc = get_end(m, subject, last, from, out);
    if (rc == -ESTALE && (rc = jsc_mlog_reload(m)) == JSC_OK) rc = get_end(m, subject, last, from, out);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

uint64_t jsc_mlog_first(jsc_mlog *m) {
    pthread_mutex_lock(&m->lock);
    uint64_t seq = m->first_seq;
    pthread_mutex_unlock(&m->lock);
    return seq;
}

uint64_t jsc_mlog_last(jsc_mlog *m) {
    pthread_mutex_lock(&m->lock);
    uint64_t seq = m->last_seq;
    pthread_mutex_unlock(&m->lock);
    return seq;
}

static int at(jsc_mlog *m, int64_t ts, uint64_t *seq) {
    int rc = JSC_OK;
    size_t lo = 0, hi = m->npieces;
    while (lo < hi) { /* the first piece with a time >= ts; those without messages go with the one before them */
        size_t mid = lo + (hi - lo) / 2, k = mid + 1;
        while (k > lo && !m->pieces[k - 1]->count) k--;
        if (k == lo || m->pieces[k - 1]->last_ts < ts) lo = mid + 1;
        else hi = k - 1;
    }
    if (lo == m->npieces) return JSC_ENOTFOUND;
    const jsc_part *part = jsc_piece_part(m, m->pieces[lo], &rc);
    if (!part) return rc;
    uint64_t found = jsc_mlog_next_live(m, lo, part->ops->find_ts(part, ts), &rc);
    if (!found) return rc;
    if (found > m->last_seq) return JSC_ENOTFOUND;
    *seq = found;
    return JSC_OK;
}

int jsc_mlog_at(jsc_mlog *m, int64_t ts, uint64_t *seq) {
    pthread_mutex_lock(&m->lock);
    int rc = at(m, ts, seq);
    if (rc == -ESTALE && (rc = jsc_mlog_reload(m)) == JSC_OK) rc = at(m, ts, seq);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* ---- columns ---- */

typedef struct columns_hold {
    jsc_sidecar *side; /* one of its own, so that nobody closes it */
    void *copy, *dead;
} columns_hold;

static int map_columns(jsc_mlog *m, jsc_piece *p, columns_hold *h, jsc_columns *out) {
    char *path = jsc_segment_path(m->log, p->segment->first, ".idx");
    if (!path) return -ENOMEM;
    int fd = m->vfs->open(m->vfs->self, path, O_RDONLY, 0), rc;
    free(path);
    if (fd < 0) return fd;
    rc = jsc_sidecar_open(m->vfs, fd, m->keys, &h->side);
    m->vfs->close(m->vfs->self, fd);
    if (rc != JSC_OK) return rc;
    const jsc_sidecar_info *info = jsc_sidecar_about(h->side);
    if (info->salt != p->segment->salt || info->count != p->count) {
        jsc_sidecar_close(h->side);
        h->side = NULL;
        return -ESTALE;
    }
    out->seq = jsc_sidecar_column(h->side, 's');
    out->ts = jsc_sidecar_column(h->side, 't');
    out->size = jsc_sidecar_column(h->side, 'z');
    return JSC_OK;
}

static int copy_columns(jsc_mlog *m, jsc_piece *p, columns_hold *h, jsc_columns *out) {
    int rc = JSC_OK;
    const jsc_part *part = jsc_piece_part(m, p, &rc);
    if (!part) return rc;
    uint32_t n = part->ops->count(part);
    uint8_t *copy = malloc((size_t)n * 20 + 1);
    if (!copy) return -ENOMEM;
    uint64_t *seq = (uint64_t *)copy;
    int64_t *ts = (int64_t *)(seq + n);
    uint32_t *size = (uint32_t *)(ts + n);
    for (uint32_t i = 0; i < n; i++) {
        seq[i] = part->ops->seq(part, i);
        ts[i] = part->ops->ts(part, i);
        size[i] = part->ops->size(part, i);
    }
    h->copy = copy;
    out->seq = seq;
    out->ts = ts;
    out->size = size;
    return JSC_OK;
}

static void hold_free(columns_hold *h) {
    if (h->side) jsc_sidecar_close(h->side);
    free(h->copy);
    free(h->dead);
    free(h);
}

static int columns(jsc_mlog *m, uint64_t from, columns_hold *h, jsc_columns *out) {
    int rc = JSC_OK;
    size_t i = 0;
    while (i < m->npieces && (m->pieces[i]->last_seq < from || !m->pieces[i]->count)) i++;
    if (i == m->npieces) return JSC_ENOTFOUND;
    jsc_piece *p = m->pieces[i];
    if (!p->tail && p->segment->sealed) rc = map_columns(m, p, h, out);
    if (!h->side) rc = copy_columns(m, p, h, out);
    if (rc != JSC_OK) return rc;
    out->count = p->count;
    out->dead = NULL;
    if (p->count && out->seq[p->count - 1] < from) return -EAGAIN; /* gaps at its end: the next one */
    if (p->dead && jsc_dead_count(p->dead)) {
        size_t have, n = ((size_t)p->count + 63) / 64;
        const uint64_t *words = jsc_dead_words(p->dead, &have);
        uint64_t *copy = calloc(n, sizeof *copy);
        if (!copy) return -ENOMEM;
        memcpy(copy, words, (have < n ? have : n) * sizeof *copy);
        h->dead = copy;
        out->dead = copy;
    }
    return JSC_OK;
}

int jsc_mlog_columns(jsc_mlog *m, uint64_t from, jsc_columns *out) {
    bool reloaded = false;
    jsc_columns c = {0};
    int rc;
    for (;;) {
        columns_hold *h = calloc(1, sizeof *h);
        if (!h) return -ENOMEM;
        pthread_mutex_lock(&m->lock);
        rc = columns(m, from, h, &c);
        if (rc == -EAGAIN) {
            jsc_piece *p = jsc_mlog_piece_of(m, c.seq[c.count - 1], NULL);
            from = p ? p->last_seq + 1 : from + 1;
        }
        bool stale = rc == -ESTALE && !reloaded;
        if (stale) rc = jsc_mlog_reload(m);
        reloaded |= stale;
        pthread_mutex_unlock(&m->lock);
        if (rc == JSC_OK && !stale) {
            c.hold = h;
            *out = c;
            return JSC_OK;
        }
        hold_free(h);
        if (rc != JSC_OK && rc != -EAGAIN) return rc;
    }
}

void jsc_columns_release(jsc_mlog *m, jsc_columns *c) {
    if (c->hold) hold_free(c->hold);
    *c = (jsc_columns){0};
}
