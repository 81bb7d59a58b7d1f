/* What is worth rewriting, by what it costs on the disk and what of it is alive. Everything under the lock. */
#include "care.h"

/* The rules, in the order in which they are asked:
 * - the disk holds more than 1.8 times what is alive, and a segment more: the piece with the largest dead share, if that
 *   is above a quarter, together with its neighbours while all that is alive of them fits half a segment;
 * - small pieces side by side, four or more, become one;
 * - a sealed piece is not stored as the options say: packed, with the current key. */
enum { MERGE_MIN = 4 };

typedef struct worth {
    uint64_t live, total; /* bytes of records; what another rewrite would have to keep again counts as alive */
} worth;

static worth worth_of(const jsc_piece *p) {
    const jsc_sidecar_info *info = &p->segment->info;
    uint64_t live = jsc_piece_live_bytes(p), others = info->record_bytes - info->message_bytes;
    /* Gaps stay; control records had to, but what they were kept for may be gone. A tombstone has 40 bytes. */
    uint64_t tombstones = p->again && info->records > info->count ? (uint64_t)(info->records - info->count) * 40 : 0;
    if (p->segment->flags & JSC_SF_REWRITTEN) live += others - (tombstones < others ? tombstones : others);
    return (worth){live < info->record_bytes ? live : info->record_bytes, info->record_bytes};
}

static bool eligible(const jsc_mlog *m, size_t i) {
    const jsc_piece *p = m->pieces[i];
    const jsc_segment *s = p->segment;
    if (p->busy || p->skip || !s->sealed || s->info.lost || p->ndamage || !jsc_care_full(m, i)) return false;
    return s->count > 0 && s->count <= JSC_SPAN_MAX && !(s->key_id && !m->keys);
}

static bool badly_stored(const jsc_mlog *m, const jsc_segment *s) {
    if (!m->keys && m->options.zstd_level <= 0) return false;
    return !(s->flags & JSC_SF_PACKED) || (m->keys && s->key_id != jsc_keys_current(m->keys));
}

/* A sidecar's size is known once it was written in this process; before, a guess is good enough for a policy. */
static uint64_t disk_bytes(const jsc_piece *p) {
    if (p->disk_bytes) return p->disk_bytes;
    if (!p->segment->sealed) return p->segment->used;
    return p->segment->info.segment_bytes + 4096 + (uint64_t)p->count * 32;
}

/* Gathers neighbours of piece i that are worth taking along, as long as they fit. */
static void widen(const jsc_mlog *m, uint64_t half, bool (*along)(const jsc_mlog *, size_t), size_t *i, size_t *n) {
    uint64_t live = worth_of(m->pieces[*i]).live, span = m->pieces[*i]->segment->count;
    size_t lo = *i, hi = *i + 1;
    for (bool more = true; more;) {
        more = false;
        if (lo > 0 && along(m, lo - 1)) {
            const jsc_segment *s = m->pieces[lo - 1]->segment;
            worth w = worth_of(m->pieces[lo - 1]);
            if (s->first + s->count == m->pieces[lo]->segment->first && live + w.live <= half &&
                span + s->count <= JSC_SPAN_MAX) {
                live += w.live;
                span += s->count;
                lo--;
                more = true;
            }
        }
        if (hi < m->npieces && along(m, hi)) {
            const jsc_segment *s = m->pieces[hi]->segment, *before = m->pieces[hi - 1]->segment;
            worth w = worth_of(m->pieces[hi]);
            if (before->first + before->count == s->first && live + w.live <= half && span + s->count <= JSC_SPAN_MAX) {
                live += w.live;
                span += s->count;
                hi++;
                more = true;
            }
        }
    }
    *i = lo;
    *n = hi - lo;
}

static bool is_small(const jsc_mlog *m, size_t i) {
    return eligible(m, i) && worth_of(m->pieces[i]).live <= m->log->segment_bytes / 8;
}

static bool is_small_or_wasteful(const jsc_mlog *m, size_t i) {
    if (!eligible(m, i)) return false;
    worth w = worth_of(m->pieces[i]);
    return w.live <= m->log->segment_bytes / 8 || w.total - w.live > w.total / 4;
}

static bool any(const jsc_mlog *m, size_t i) { return eligible(m, i); }

/* The piece with the largest dead share above `least` parts of 256. */
static bool most_wasteful(const jsc_mlog *m, uint64_t least, size_t *i) {
    uint64_t best = least;
    bool found = false;
    for (size_t k = 0; k < m->npieces; k++) {
        if (!eligible(m, k)) continue;
        worth w = worth_of(m->pieces[k]);
        uint64_t share = w.total ? (uint64_t)((double)(w.total - w.live) / (double)w.total * 256) : 0;
        if (w.total > w.live && share >= best && (!found || share > best)) {
            best = share;
            *i = k;
            found = true;
        }
    }
    return found;
}

bool jsc_compact_choose(jsc_mlog *m, bool force, size_t *i, size_t *n) {
    uint64_t disk = 0, live = 0, half = m->log->segment_bytes / 2;
    for (size_t k = 0; k < m->npieces; k++) {
        disk += disk_bytes(m->pieces[k]);
        live += jsc_piece_live_bytes(m->pieces[k]);
    }
    bool too_much = disk > live + live / 5 * 4 + m->log->segment_bytes;
    if ((force || too_much) && most_wasteful(m, force ? 0 : 64, i)) {
        widen(m, half, force ? any : is_small_or_wasteful, i, n);
        return true;
    }
    for (size_t k = 0; k < m->npieces; k++) {
        size_t at = k;
        if (!(force ? eligible(m, k) : is_small(m, k))) continue;
        widen(m, half, force ? any : is_small, &at, n);
        if (*n >= (force ? 2 : MERGE_MIN)) {
            *i = at;
            return true;
        }
    }
    for (size_t k = 0; k < m->npieces; k++)
        if (eligible(m, k) && badly_stored(m, m->pieces[k]->segment)) {
            *i = k;
            *n = 1;
            return true;
        }
    return false;
}
