/* The checkpoint: the message log's state as of one record, so that opening it replays only what came later. Two files, the
 * same twice: once compaction took records out, what limits and purges took may be known from nowhere else. Layout:
 * docs/format.md#checkpoint. */
#include "mlog_internal.h"

#include <errno.h>
#include <fcntl.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define MAGIC 0x31504b4343534aull /* "JSCCKP1" */
#define BODY_MAX ((uint64_t)1 << 30)
enum { VERSION = 1, HEAD = 64, STATE = 128, PIECE = 48, COPIES = 2 };

static const char *const names[COPIES] = {"checkpoint", "checkpoint.copy"};
static const char *const drafts[COPIES] = {"checkpoint.tmp", "checkpoint.copy.tmp"};

const char *jsc_checkpoint_name(int i) { return names[i]; }

static char *path_of(const jsc_mlog *m, const char *name) {
    size_t n = strlen(m->dir) + strlen(name) + 2;
    char *path = malloc(n);
    if (path) snprintf(path, n, "%s/%s", m->dir, name);
    return path;
}

/* ---- writing ---- */

static size_t words_used(const jsc_piece *p, const uint64_t **words) {
    size_t n = 0;
    *words = NULL;
    if (!p->dead || !jsc_dead_count(p->dead)) return 0;
    *words = jsc_dead_words(p->dead, &n);
    while (n && (*words)[n - 1] == 0) n--;
    return n;
}

/* The head in front, room for a tag behind. */
static int capture(jsc_mlog *m, uint8_t **out, uint64_t *body) {
    const uint64_t *words;
    uint64_t n = STATE;
    for (size_t i = 0; i < m->npieces; i++) n += PIECE + words_used(m->pieces[i], &words) * 8;
    if (n > BODY_MAX) return -EFBIG;
    uint8_t *file = malloc(HEAD + n + JSC_TAG_BYTES);
    if (!file) return -ENOMEM;
    uint8_t *p = file + HEAD;
    memset(p, 0, STATE);
    jsc_put64(p, m->applied);
    jsc_put64(p + 8, m->first_seq);
    jsc_put64(p + 16, m->last_seq);
    jsc_put64(p + 24, m->messages);
    jsc_put64(p + 32, m->message_bytes);
    jsc_put64(p + 40, (uint64_t)m->last_ts);
    jsc_put64(p + 48, m->limits_index);
    jsc_control_limits_encode(&m->limits, p + 56);
    jsc_put64(p + 88, m->npieces);
    jsc_put64(p + 96, m->checkpoint_turn + 1);
    jsc_put64(p + 104, m->limited_since);
    jsc_put64(p + 112, m->limited_index);
    p += STATE;
    for (size_t i = 0; i < m->npieces; i++) {
        const jsc_piece *piece = m->pieces[i];
        size_t used = words_used(piece, &words);
        jsc_put64(p, piece->segment->first);
        jsc_put64(p + 8, piece->segment->salt);
        jsc_put64(p + 16, piece->base_seq);
        jsc_put64(p + 24, piece->last_seq);
        jsc_put64(p + 32, used ? jsc_dead_bytes(piece->dead) : 0);
        jsc_put32(p + 40, piece->count);
        jsc_put32(p + 44, (uint32_t)used);
        if (used) memcpy(p + PIECE, words, used * 8);
        p += PIECE + used * 8;
    }
    *out = file;
    *body = n;
    return JSC_OK;
}

/* Fills in the head and, with keys, encrypts. *size: of the file. */
static int finish(jsc_mlog *m, uint8_t *file, uint64_t body, uint64_t *size) {
    uint64_t salt = jsc_random(), stored = body + (m->keys ? JSC_TAG_BYTES : 0);
    uint32_t key = m->keys ? jsc_keys_current(m->keys) : 0;
    memset(file, 0, HEAD);
    jsc_put64(file, MAGIC);
    jsc_put32(file + 8, VERSION);
    jsc_put32(file + 12, key);
    jsc_put64(file + 16, salt);
    jsc_put64(file + 24, body);
    if (m->keys) {
        jsc_cipher *cipher;
        int rc = jsc_cipher_new(m->keys, key, salt, "checkpoint", &cipher);
        if (rc != JSC_OK) return rc;
        rc = jsc_cipher_seal(cipher, 0, file, 32, file + HEAD, body, file + HEAD, file + HEAD + body);
        jsc_cipher_free(cipher);
        if (rc != JSC_OK) return rc;
    }
    jsc_put64(file + 32, XXH3_64bits(file + HEAD, stored));
    jsc_put32(file + HEAD - 4, jsc_crc32c(0, file, HEAD - 4));
    *size = HEAD + stored;
    return JSC_OK;
}

static int write_draft(jsc_mlog *m, int i, const uint8_t *file, uint64_t size) {
    const jsc_vfs *vfs = m->vfs;
    char *path = path_of(m, drafts[i]);
    int fd = -1, rc = -ENOMEM;
    if (!path) return rc;
    if ((rc = fd = vfs->open(vfs->self, path, O_RDWR | O_CREAT | O_TRUNC, 0644)) < 0) goto out;
    if ((rc = vfs->truncate(vfs->self, fd, 0)) < 0) goto out;
    if ((rc = jsc_write_all(vfs, fd, file, size, 0)) < 0) goto out;
    rc = vfs->datasync(vfs->self, fd);
out:
    if (fd >= 0) vfs->close(vfs->self, fd);
    free(path);
    return rc < 0 ? rc : JSC_OK;
}

static int name_draft(jsc_mlog *m, int i) {
    char *from = path_of(m, drafts[i]), *to = path_of(m, names[i]);
    int rc = from && to ? m->vfs->rename(m->vfs->self, from, to) : -ENOMEM;
    free(from);
    free(to);
    return rc;
}

/* Both are on the disk before either takes the place of one that was: whatever a power cut keeps of the two renames, there
 * are two whole files. */
static int replace_files(jsc_mlog *m, const uint8_t *file, uint64_t size) {
    int rc = JSC_OK;
    for (int i = 0; i < COPIES && rc == JSC_OK; i++) rc = write_draft(m, i, file, size);
    for (int i = 0; i < COPIES && rc == JSC_OK; i++) rc = name_draft(m, i);
    return rc == JSC_OK ? m->vfs->syncdir(m->vfs->self, m->dir) : rc;
}

int jsc_checkpoint_write(jsc_mlog *m) {
    if (m->options.read_only) return JSC_EREADONLY;
    if (m->broken || jsc_log_error(m->log) != JSC_OK) return JSC_EFAILED;
    uint64_t index = m->applied, body, size;
    uint8_t *file;
    int rc = capture(m, &file, &body);
    if (rc != JSC_OK) return rc;
    pthread_mutex_unlock(&m->lock);
    /* A state of records that a power cut takes would outlive them. */
    rc = jsc_mlog_wait_synced(m, index, -1);
    if (rc == JSC_OK) rc = finish(m, file, body, &size);
    if (rc == JSC_OK) rc = replace_files(m, file, size);
    free(file);
    pthread_mutex_lock(&m->lock);
    if (rc != JSC_OK) return rc;
    m->checkpointed = index;
    m->checkpoint_turn++;
    m->checkpoint_wanted = false;
    if (m->limits_first <= index) m->limits_first = m->limits_index > index ? index + 1 : 0;
    return JSC_OK;
}

static int remove_one(jsc_mlog *m, int i) {
    char *name = path_of(m, names[i]);
    if (!name) return -ENOMEM;
    int rc = m->vfs->unlink(m->vfs->self, name);
    free(name);
    return rc == -ENOENT ? JSC_OK : rc;
}

int jsc_checkpoint_remove(jsc_mlog *m) {
    int rc = JSC_OK;
    for (int i = 0; i < COPIES && rc == JSC_OK; i++) rc = remove_one(m, i);
    return rc < 0 ? rc : m->vfs->syncdir(m->vfs->self, m->dir);
}

int jsc_checkpoint_tidy(jsc_mlog *m, const jsc_checkpoint_files *files) {
    bool any = false;
    for (int i = 0; i < COPIES; i++) {
        if (files->rc[i] == JSC_OK || files->rc[i] == JSC_ENOTFOUND) continue;
        int rc = remove_one(m, i);
        if (rc < 0) return rc;
        any = true;
    }
    return any ? m->vfs->syncdir(m->vfs->self, m->dir) : JSC_OK;
}

/* ---- reading ---- */

void jsc_checkpoint_free(jsc_checkpoint *c) {
    if (!c) return;
    free(c->pieces);
    free(c->body);
    free(c);
}

const jsc_checkpoint_piece *jsc_checkpoint_find(const jsc_checkpoint *c, uint64_t first) {
    size_t lo = 0, hi = c->npieces;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c->pieces[mid].first < first) lo = mid + 1;
        else hi = mid;
    }
    return lo < c->npieces && c->pieces[lo].first == first ? &c->pieces[lo] : NULL;
}

/* c->body has `n` bytes, a multiple of 8, at least STATE. */
static int parse(jsc_checkpoint *c, uint64_t n) {
    const uint8_t *p = (const uint8_t *)c->body;
    c->index = jsc_get64(p);
    c->first_seq = jsc_get64(p + 8);
    c->last_seq = jsc_get64(p + 16);
    c->messages = jsc_get64(p + 24);
    c->message_bytes = jsc_get64(p + 32);
    c->last_ts = (int64_t)jsc_get64(p + 40);
    c->limits_index = jsc_get64(p + 48);
    c->limits = (jsc_limits){.max_messages = jsc_get64(p + 56),
                             .max_bytes = jsc_get64(p + 64),
                             .max_per_subject = jsc_get64(p + 72),
                             .max_age_ns = (int64_t)jsc_get64(p + 80)};
    c->turn = jsc_get64(p + 96);
    c->limited_since = jsc_get64(p + 104);
    c->limited_index = jsc_get64(p + 112);
    if (!c->limited_since && c->limits_index) c->limited_since = 1; /* of before it was noted */
    uint64_t count = jsc_get64(p + 88), at = STATE;
    if (count > (n - STATE) / PIECE || c->limits.max_age_ns < 0) return JSC_ECORRUPT;
    if (!(c->pieces = calloc(count ? count : 1, sizeof *c->pieces))) return -ENOMEM;
    for (; c->npieces < count; c->npieces++) {
        if (n - at < PIECE) return JSC_ECORRUPT;
        jsc_checkpoint_piece *x = &c->pieces[c->npieces];
        *x = (jsc_checkpoint_piece){.first = jsc_get64(p + at),
                                    .salt = jsc_get64(p + at + 8),
                                    .base_seq = jsc_get64(p + at + 16),
                                    .last_seq = jsc_get64(p + at + 24),
                                    .dead_bytes = jsc_get64(p + at + 32),
                                    .count = jsc_get32(p + at + 40),
                                    .nwords = jsc_get32(p + at + 44)};
        at += PIECE;
        if (x->nwords > (n - at) / 8 || x->nwords > ((uint64_t)x->count + 63) / 64) return JSC_ECORRUPT;
        if (c->npieces && x->first <= x[-1].first) return JSC_ECORRUPT;
        x->words = c->body + at / 8;
        if (x->count % 64 && x->nwords == x->count / 64 + 1 && x->words[x->nwords - 1] >> x->count % 64)
            return JSC_ECORRUPT;
        at += (uint64_t)x->nwords * 8;
    }
    return at == n ? JSC_OK : JSC_ECORRUPT;
}

static int read_body(jsc_mlog *m, int fd, const uint8_t *head, jsc_checkpoint *c) {
    uint32_t key = jsc_get32(head + 12);
    uint64_t body = jsc_get64(head + 24), stored = body + (key ? JSC_TAG_BYTES : 0);
    int64_t size = m->vfs->size(m->vfs->self, fd);
    if (size < 0) return (int)size;
    if (body > BODY_MAX || body < STATE || body % 8 || (uint64_t)size != HEAD + stored) return JSC_ECORRUPT;
    c->salt = jsc_get64(head + 16);
    if (!(c->body = malloc(stored))) return -ENOMEM;
    uint8_t *p = (uint8_t *)c->body;
    for (uint64_t at = 0; at < stored;) {
        ssize_t got = m->vfs->pread(m->vfs->self, fd, p + at, stored - at, (off_t)(HEAD + at));
        if (got < 0) return (int)got;
        if (got == 0) return JSC_ECORRUPT;
        at += (uint64_t)got;
    }
    if (XXH3_64bits(p, stored) != jsc_get64(head + 32)) return JSC_ECORRUPT;
    if (key) {
        jsc_cipher *cipher;
        int rc = jsc_cipher_new(m->keys, key, c->salt, "checkpoint", &cipher);
        if (rc != JSC_OK) return rc;
        rc = jsc_cipher_open(cipher, 0, head, 32, p, body, p, p + body);
        jsc_cipher_free(cipher);
        if (rc != JSC_OK) return rc;
    }
    return parse(c, body);
}

static int read_one(jsc_mlog *m, int i, jsc_checkpoint **out) {
    const jsc_vfs *vfs = m->vfs;
    char *name = path_of(m, names[i]);
    uint8_t head[HEAD];
    if (!name) return -ENOMEM;
    int fd = vfs->open(vfs->self, name, O_RDONLY, 0), rc;
    free(name);
    if (fd == -ENOENT) return JSC_ENOTFOUND;
    if (fd < 0) return fd;
    jsc_checkpoint *c = calloc(1, sizeof *c);
    ssize_t got = vfs->pread(vfs->self, fd, head, HEAD, 0);
    if (!c) rc = -ENOMEM;
    else if (got < 0) rc = (int)got;
    else if (got != HEAD || jsc_get64(head) != MAGIC || jsc_crc32c(0, head, HEAD - 4) != jsc_get32(head + HEAD - 4))
        rc = JSC_ECORRUPT;
    else if (jsc_get32(head + 8) != VERSION) rc = JSC_EFORMAT;
    else rc = read_body(m, fd, head, c);
    vfs->close(vfs->self, fd);
    if (rc == JSC_OK) *out = c;
    else jsc_checkpoint_free(c);
    return rc;
}

static bool newer(const jsc_checkpoint *a, const jsc_checkpoint *b) {
    return a->index != b->index ? a->index > b->index : a->turn > b->turn;
}

int jsc_checkpoint_read(jsc_mlog *m, uint64_t upto, jsc_checkpoint **out, jsc_checkpoint_files *files) {
    jsc_checkpoint *c[COPIES] = {NULL};
    int best = -1, rc = JSC_ENOTFOUND;
    for (int i = 0; i < COPIES; i++) {
        files->rc[i] = read_one(m, i, &c[i]);
        if (files->rc[i] == JSC_OK && c[i]->index > upto) files->rc[i] = JSC_EORDER;
        if (files->rc[i] == JSC_OK && (best < 0 || newer(c[i], c[best]))) best = i;
    }
    files->best = best;
    files->alone = best < 0 || !c[0] || !c[1] || c[0]->salt != c[1]->salt;
    for (int i = 0; i < COPIES; i++) {
        int one = files->rc[i];
        if (one == JSC_EORDER || one == -EIO) one = JSC_ECORRUPT; /* what cannot be read is as good as rotten */
        /* Of a newer version, or another key, or no memory: nothing is done by what the other one says. */
        if (one != JSC_OK && one != JSC_ENOTFOUND && (rc == JSC_ENOTFOUND || rc == JSC_ECORRUPT)) rc = one;
        if (i != best) jsc_checkpoint_free(c[i]);
    }
    if (best < 0) return rc;
    if (rc != JSC_ENOTFOUND && rc != JSC_ECORRUPT) {
        jsc_checkpoint_free(c[best]);
        return rc;
    }
    *out = c[best];
    return JSC_OK;
}
