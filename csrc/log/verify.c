/* Verification of a whole log: every segment read from its file record by record, its sidecar asked about each, unused
 * bytes looked at, the checkpoint compared, names in the directory told apart. Nothing is changed.
 *
 * Between two segments the log's other work goes on; while one is read it is `busy`, so that its file stays. Of a segment
 * that is still written to, what the sync thread has written counts. */
#include "verify.h"
#include "care.h"
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

enum { CHUNK = 256 << 10, TICK = 1 << 20, LISTED = 100 };

void jsc_verify_say(jsc_verify_run *run, const char *file, uint64_t offset, const char *format, ...) {
    char text[256];
    va_list args;
    if (run->findings++ > LISTED || !run->v->finding) return;
    if (run->findings > LISTED) {
        run->v->finding(run->v->ctx, file, offset, "damage: more of this file, not listed");
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    run->v->finding(run->v->ctx, file, offset, text);
}

int jsc_verify_tick(jsc_verify_run *run, uint64_t bytes) {
    run->done += bytes;
    if (run->done > run->total) run->total = run->done; /* it grew meanwhile */
    if (run->rc == JSC_OK && run->v->progress && run->v->progress(run->v->ctx, run->done, run->total))
        run->rc = -ECANCELED;
    return run->rc;
}

/* ---- one segment ---- */

typedef struct walk {
    jsc_verify_run *run;
    const jsc_segment *s; /* a view: the numbers that hold for what is on the disk */
    char name[32];
    jsc_pack *pack;
    jsc_index_check *index;
    uint64_t at;    /* in the image: behind the last record or trailer told */
    uint64_t batch; /* behind the last trailer told */
    uint64_t told;  /* bytes already counted as progress */
    uint64_t bytes; /* of the file */
    bool lost;      /* records since `batch`: trailers on the way were not told */
    bool clean;     /* the last trailer is the mark of a clean close */
} walk;

/* A place in the image as a place in the file: for packed segments that of the block. */
static uint64_t in_file(const walk *w, uint64_t offset) {
    uint64_t at, bytes, blocks;
    if (!w->pack || offset < JSC_SEGMENT_HEAD) return offset;
    if ((blocks = jsc_pack_blocks(w->pack)) == 0) return 0;
    uint64_t i = (offset - JSC_SEGMENT_HEAD) / JSC_PACK_BLOCK;
    jsc_pack_where(w->pack, (uint32_t)(i < blocks ? i : blocks - 1), &at, &bytes);
    return at;
}

static int progress(walk *w, uint64_t image_at) {
    uint64_t at = w->pack ? in_file(w, image_at) : image_at;
    if (at < w->told + TICK || at > w->bytes) return w->run->rc;
    uint64_t more = at - w->told;
    w->told = at;
    return jsc_verify_tick(w->run, more);
}

static void no_trailer(walk *w) {
    jsc_verify_say(w->run, w->name, in_file(w, w->at),
                   "damage: the trailer of a batch does not verify; no record is lost");
}

static int walk_record(void *ctx, const jsc_record *r, uint64_t offset) {
    walk *w = ctx;
    if (offset != w->at && !w->lost) no_trailer(w);
    for (uint32_t i = jsc_get32(r->raw + 4); i < r->raw_len; i++)
        if (r->raw[i]) {
            jsc_verify_say(w->run, w->name, in_file(w, offset + i), "damage: padding of record %llu is not zero",
                           (unsigned long long)r->index);
            break;
        }
    jsc_index_check_record(w->index, r, offset);
    w->at = offset + r->raw_len;
    return progress(w, w->at);
}

static int walk_lost(void *ctx, uint64_t first, uint64_t last, uint64_t offset) {
    walk *w = ctx;
    if (first == last)
        jsc_verify_say(w->run, w->name, in_file(w, offset), "damage: record %llu is lost", (unsigned long long)first);
    else
        jsc_verify_say(w->run, w->name, in_file(w, offset), "damage: records %llu to %llu are lost",
                       (unsigned long long)first, (unsigned long long)last);
    jsc_index_check_lost(w->index, first, last);
    w->lost = true;
    return w->run->rc;
}

static int walk_batch(void *ctx, const jsc_trailer *t, uint64_t end) {
    walk *w = ctx;
    bool tagged = w->s->flags & JSC_SF_ENCRYPTED && !(w->s->flags & JSC_SF_PACKED);
    if (end - (tagged ? JSC_TRAILER_MAX : JSC_TRAILER_BYTES) != w->at && !w->lost) no_trailer(w);
    w->at = w->batch = end;
    w->lost = false;
    w->clean = t->count == 0;
    return progress(w, end);
}

static int open_file(jsc_verify_run *run, const char *name, int64_t *size) {
    const jsc_vfs *vfs = run->m->vfs;
    size_t n = strlen(run->m->dir) + strlen(name) + 2;
    char *path = malloc(n);
    if (!path) return -ENOMEM;
    snprintf(path, n, "%s/%s", run->m->dir, name);
    int fd = vfs->open(vfs->self, path, O_RDONLY, 0);
    free(path);
    if (fd < 0) return fd;
    *size = vfs->size(vfs->self, fd);
    if (*size >= 0) return fd;
    vfs->close(vfs->self, fd);
    return (int)*size;
}

/* *at: of the first byte in [from, size) that is not zero; size: there is none. */
static int first_nonzero(const jsc_vfs *vfs, int fd, uint64_t from, uint64_t size, uint64_t *at) {
    uint8_t *chunk = malloc(CHUNK);
    int rc = chunk ? JSC_OK : -ENOMEM;
    for (*at = size; rc == JSC_OK && from < size;) {
        ssize_t got =
            vfs->pread(vfs->self, fd, chunk, size - from < CHUNK ? (size_t)(size - from) : CHUNK, (off_t)from);
        if (got < 0) rc = (int)got;
        if (got <= 0) break;
        for (ssize_t i = 0; i < got; i++)
            if (chunk[i]) {
                *at = from + (uint64_t)i;
                free(chunk);
                return JSC_OK;
            }
        from += (uint64_t)got;
    }
    free(chunk);
    return rc;
}

/* What follows the last batch in the file. real: the segment itself. last: of the log. */
static int check_rest(walk *w, const jsc_segment *real, bool last, int fd) {
    jsc_mlog *m = w->run->m;
    const jsc_mlog_options *o = &m->options;
    uint64_t at;
    if (w->s->flags & (JSC_SF_RECYCLED | JSC_SF_PACKED)) return JSC_OK;
    if (last && o->read_only && !o->check_lock) return JSC_OK; /* a writer may be at it */
    int rc = first_nonzero(m->vfs, fd, w->s->used, w->bytes, &at);
    if (rc != JSC_OK || at >= w->bytes) return rc;
    pthread_mutex_lock(&m->lock);
    bool appended = at < real->used; /* and written while it was looked at */
    pthread_mutex_unlock(&m->lock);
    if (appended) return JSC_OK;
    if (last && o->read_only && !w->clean)
        jsc_verify_say(w->run, w->name, at,
                       "torn: bytes behind the last batch that verifies: a torn tail, cut by the next opening for "
                       "writing, or damage to the last batch");
    else jsc_verify_say(w->run, w->name, at, "damage: bytes behind the last batch are not zero");
    return JSC_OK;
}

static int check_head(walk *w, int fd) {
    const jsc_vfs *vfs = w->run->m->vfs;
    uint8_t bytes[JSC_SEGMENT_HEAD] = {0};
    jsc_segment_head h;
    ssize_t got = vfs->pread(vfs->self, fd, bytes, sizeof bytes, 0);
    if (got < 0) return (int)got;
    if (jsc_segment_head_decode(bytes, &h) != JSC_OK) {
        jsc_verify_say(w->run, w->name, 0, "damage: the segment's head does not verify");
        return JSC_OK;
    }
    if (h.salt != w->s->salt) return -ESTALE;
    if (h.first != w->s->first || h.flags != w->s->flags || h.base_seq != w->s->base_seq || h.key_id != w->s->key_id)
        jsc_verify_say(w->run, w->name, 0, "damage: the segment's head is not that of this segment");
    return JSC_OK;
}

/* Each block on its own, so that a finding names its place in the file. JSC_ECORRUPT: nothing of it can be read. */
static int check_blocks(walk *w, int fd) {
    jsc_mlog *m = w->run->m;
    jsc_segment_head h = jsc_segment_head_of(w->s);
    jsc_unpacker *u = NULL;
    uint8_t *block = malloc(JSC_PACK_BLOCK);
    int rc = block ? jsc_unpacker_new(&u) : -ENOMEM;
    if (rc == JSC_OK) rc = jsc_pack_open(m->vfs, fd, &h, m->keys, &w->pack);
    if (rc == JSC_ECORRUPT || rc == JSC_EKEY)
        jsc_verify_say(w->run, w->name, w->bytes,
                       "damage: the table of blocks at the end of the file does not verify%s",
                       rc == JSC_EKEY ? " under the key at hand" : "");
    if (rc == JSC_EKEY) rc = JSC_ECORRUPT;
    for (uint32_t i = 0; rc == JSC_OK && i < jsc_pack_blocks(w->pack); i++) {
        uint64_t at, bytes;
        size_t n;
        rc = jsc_unpack(u, w->pack, i, block, &n);
        if (rc != JSC_ECORRUPT) continue;
        jsc_pack_where(w->pack, i, &at, &bytes);
        jsc_verify_say(w->run, w->name, at, "damage: block %u, %llu bytes, does not verify", i,
                       (unsigned long long)bytes);
        rc = JSC_OK;
    }
    jsc_unpacker_free(u);
    free(block);
    return rc;
}

/* A sidecar that the log does not go by: it does not fit, unless it is just being made. */
static void check_unused_sidecar(walk *w, const char *name) {
    const jsc_vfs *vfs = w->run->m->vfs;
    jsc_sidecar_info info;
    int64_t size;
    int fd = open_file(w->run, name, &size);
    if (fd < 0) return;
    jsc_sidecar *side = NULL;
    int rc = jsc_sidecar_peek(vfs, fd, &info);
    if (rc == JSC_OK) rc = jsc_sidecar_open(vfs, fd, w->run->m->keys, &side);
    jsc_sidecar_close(side);
    vfs->close(vfs->self, fd);
    w->run->findings = 0;
    if (rc != JSC_OK) jsc_verify_say(w->run, name, 0, "cache: the sidecar does not verify");
    else if (info.salt != w->s->salt || info.segment_bytes != w->bytes)
        jsc_verify_say(w->run, name, 0, "cache: the sidecar is of another segment");
}

static int check_digest(walk *w, const jsc_sidecar_info *info, int fd) {
    uint64_t bytes, digest;
    int rc = jsc_file_digest(w->run->m, fd, &bytes, &digest);
    if (rc != JSC_OK) return rc;
    if (bytes != info->segment_bytes)
        jsc_verify_say(w->run, w->name, bytes, "damage: the file has %llu bytes, its sidecar says %llu",
                       (unsigned long long)bytes, (unsigned long long)info->segment_bytes);
    else if (digest != info->segment_digest)
        jsc_verify_say(w->run, w->name, 0, "damage: the file's digest is not the one in its sidecar");
    return JSC_OK;
}

/* real: pinned and busy. s: what is on the disk of it. */
static int check_file(jsc_verify_run *run, jsc_segment *real, jsc_segment *s, bool last) {
    static const jsc_visit visit = {walk_record, walk_lost, walk_batch};
    walk w = {.run = run, .s = s, .at = JSC_SEGMENT_HEAD, .batch = JSC_SEGMENT_HEAD};
    char sidecar[32];
    int64_t size = 0;
    run->findings = 0;
    snprintf(w.name, sizeof w.name, "%016llx.seg", (unsigned long long)s->first);
    snprintf(sidecar, sizeof sidecar, "%016llx.idx", (unsigned long long)s->first);
    int fd = open_file(run, w.name, &size), rc = fd < 0 ? fd : JSC_OK;
    w.bytes = (uint64_t)size;
    if (rc == JSC_OK) rc = check_head(&w, fd);
    if (rc == JSC_OK && s->sealed) rc = jsc_index_check_new(run, sidecar, s, &s->info, &w.index);
    if (rc == JSC_OK && s->flags & JSC_SF_PACKED && !s->head_lost) rc = check_blocks(&w, fd);
    /* A file that is still written to may be cut to its length while it is read: that happens once. */
    for (int tries = 0; rc == JSC_OK && tries < 2; tries++) {
        rc = jsc_segment_visit(run->m->log, s, &visit, &w);
        if (rc != -EIO || s->closed || tries) break;
        rc = JSC_OK;
    }
    if (rc == JSC_OK && w.at != w.batch && !w.lost) no_trailer(&w);
    bool overlong = w.bytes > JSC_SEGMENT_MAX;
    if (overlong) jsc_verify_say(run, w.name, JSC_SEGMENT_MAX, "damage: the file is longer than a segment may be");
    if (rc == JSC_OK && !overlong) rc = check_rest(&w, real, last, fd);
    /* Damage that was found has its place; the digest says that there is some, for what nothing else covers. */
    if (rc == JSC_OK && s->sealed && !run->findings) rc = check_digest(&w, &s->info, fd);
    if (rc == JSC_OK) jsc_index_check_end(w.index, jsc_segment_last(s));
    if (rc == JSC_OK && !s->sealed) check_unused_sidecar(&w, sidecar);
    if (rc == JSC_ECORRUPT && !run->findings) jsc_verify_say(run, w.name, 0, "damage: the segment cannot be walked");
    if (rc == JSC_EKEY) jsc_verify_say(run, w.name, 0, "damage: no key at hand fits the segment");
    if (rc == JSC_ECORRUPT || rc == JSC_EKEY) rc = JSC_OK;
    if (rc < 0 && rc > JSC_ENOTFOUND && rc != -ENOMEM && rc != -ECANCELED && rc != -ESTALE) {
        bool gone = rc == -ENOENT && run->m->options.read_only && !run->m->options.check_lock;
        if (gone) rc = -ESTALE;
        else jsc_verify_say(run, w.name, 0, "damage: the file cannot be read: %s", strerror(-rc));
        if (!gone) rc = JSC_OK;
    }
    if (fd >= 0) run->m->vfs->close(run->m->vfs->self, fd);
    jsc_index_check_free(w.index);
    jsc_pack_close(w.pack);
    uint64_t rest = w.bytes > w.told ? w.bytes - w.told : 0;
    return rc == JSC_OK ? jsc_verify_tick(run, rest) : rc;
}

/* With the lock: the numbers of a segment as far as it is on the disk. false: nothing of it is. */
static bool snapshot(const jsc_mlog *m, const jsc_segment *s, jsc_segment *view) {
    jsc_segment_head head = jsc_segment_head_of(s);
    *view = (jsc_segment){.first = s->first,
                          .base = s->base,
                          .limit = s->limit,
                          .used = s->used,
                          .count = s->count,
                          .closed = true,
                          .head_lost = s->head_lost,
                          .sealed = s->sealed,
                          .info = s->info};
    jsc_segment_take_head(view, &head);
    if (atomic_load_explicit(&s->left, memory_order_acquire) || !s->at) return true;
    if (s->used <= JSC_SEGMENT_HEAD) return s->count > 0; /* all of it was lost when the log was opened */
    uint64_t written = atomic_load_explicit(&m->log->written, memory_order_acquire);
    view->closed = false;
    if (written <= s->base + JSC_SEGMENT_HEAD) return false;
    if (written - s->base < view->used) view->used = written - s->base;
    while (view->count && (uint64_t)s->at[view->count - 1] * 8 >= view->used) view->count--;
    return true;
}

/* The next segment from *next on that has anything on the disk. *done: there is none up to `last`. */
static int check_next(jsc_verify_run *run, uint64_t *next, uint64_t last, bool *done) {
    jsc_mlog *m = run->m;
    jsc_segment *real = NULL, view;
    bool is_last = false, written = false;
    int rc = JSC_OK;
    jsc_care_take(m);
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->npieces && !real; i++)
        if (m->pieces[i]->segment->first >= *next && m->pieces[i]->segment->first <= last) {
            real = m->pieces[i]->segment;
            jsc_segment_ref(real);
            m->pieces[i]->busy = true;
            is_last = i + 1 == m->npieces;
            *next = real->first + (real->count ? real->count : 1);
            written = snapshot(m, real, &view);
        }
    pthread_mutex_unlock(&m->lock);
    *done = !real;
    if (real && written) rc = check_file(run, real, &view, is_last);
    if (real) {
        pthread_mutex_lock(&m->lock);
        size_t k = jsc_care_find(m, real);
        if (k < m->npieces) m->pieces[k]->busy = false;
        pthread_mutex_unlock(&m->lock);
        jsc_segment_unref(real);
    }
    pthread_mutex_unlock(&m->care);
    return rc;
}

/* ---- the directory ---- */

typedef struct names {
    char **at;
    size_t n, cap;
    bool failed;
} names;

static void add_name(void *ctx, const char *name) {
    names *l = ctx;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        char **grown = realloc(l->at, cap * sizeof *grown);
        if (!grown) l->failed = true;
        if (!grown) return;
        l->at = grown;
        l->cap = cap;
    }
    if ((l->at[l->n] = strdup(name))) l->n++;
    else l->failed = true;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool is_name(const char *name, const char *suffix) {
    return strspn(name, "0123456789abcdef") == 16 && strcmp(name + 16, suffix) == 0;
}

static void check_name(jsc_verify_run *run, const names *l, const char *name) {
    char segment[24], *key = segment;
    run->findings = 0;
    if (is_name(name, ".seg") || !strcmp(name, "LOCK") || !strcmp(name, "READERS")) return;
    if (!strcmp(name, jsc_checkpoint_name(0)) || !strcmp(name, jsc_checkpoint_name(1))) return;
    if (is_name(name, ".idx")) {
        snprintf(segment, sizeof segment, "%.16s.seg", name);
        if (!bsearch(&key, l->at, l->n, sizeof *l->at, by_name))
            jsc_verify_say(run, name, 0, "remains: a sidecar without its segment");
    } else if (jsc_name_ends(name, ".tmp")) {
        jsc_verify_say(run, name, 0,
                       "remains: left by a job that was cut short; the next opening for writing removes it");
    } else if (!jsc_name_ends(name, ".free")) { /* those are files that may serve as segments again */
        jsc_verify_say(run, name, 0, "remains: unknown file");
    }
}

/* Without a lock on the directory a writer's jobs may be under way there: nothing can be said. */
static int check_directory(jsc_verify_run *run) {
    jsc_mlog *m = run->m;
    names l = {0};
    if (m->options.read_only && !m->options.check_lock) return JSC_OK;
    int rc = m->vfs->list(m->vfs->self, m->dir, add_name, &l);
    if (rc == 0 && l.failed) rc = -ENOMEM;
    if (rc == 0 && l.n) qsort(l.at, l.n, sizeof *l.at, by_name);
    for (size_t i = 0; rc == 0 && i < l.n; i++) check_name(run, &l, l.at[i]);
    for (size_t i = 0; i < l.n; i++) free(l.at[i]);
    free(l.at);
    return rc;
}

/* ---- */

/* How much there is to do, by the segments of now. */
static int measure(jsc_verify_run *run, uint64_t *last) {
    jsc_mlog *m = run->m;
    pthread_mutex_lock(&m->lock);
    size_t n = m->npieces;
    uint64_t *firsts = malloc((n + 1) * sizeof *firsts);
    for (size_t i = 0; firsts && i < n; i++) firsts[i] = m->pieces[i]->segment->first;
    *last = jsc_log_last(m->log);
    if (n && m->pieces[n - 1]->segment->first > *last) *last = m->pieces[n - 1]->segment->first;
    pthread_mutex_unlock(&m->lock);
    if (!firsts) return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        char name[32];
        int64_t size;
        snprintf(name, sizeof name, "%016llx.seg", (unsigned long long)firsts[i]);
        int fd = open_file(run, name, &size);
        if (fd < 0) continue;
        m->vfs->close(m->vfs->self, fd);
        run->total += (uint64_t)size;
    }
    free(firsts);
    return JSC_OK;
}

int jsc_mlog_verify(jsc_mlog *m, const jsc_verify *v) {
    jsc_verify_run run = {.m = m, .v = v};
    uint64_t next = 0, last;
    bool done = false, stale = false;
    int rc = measure(&run, &last);
    while (rc == JSC_OK && !done) {
        rc = check_next(&run, &next, last, &done);
        if (rc == -ESTALE) { /* the rest can be verified all the same */
            stale = true;
            rc = JSC_OK;
        }
    }
    if (rc == JSC_OK) rc = jsc_verify_tick(&run, run.total - run.done); /* files were cut, or went, meanwhile */
    if (rc != JSC_OK) return rc;
    jsc_care_take(m);
    rc = jsc_verify_checkpoint(&run);
    if (rc == JSC_OK) rc = check_directory(&run);
    pthread_mutex_unlock(&m->care);
    return rc == JSC_OK && stale ? -ESTALE : rc;
}
