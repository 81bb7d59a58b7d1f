/* Opening a log: which files belong to it, what each holds, what is torn and what is damaged. A segment with a sidecar that
 * fits is taken at its word; of the others every byte is read. See docs/format.md#recovery. */
#include "scan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#define FIRST_BYTES ((uint64_t)64 << 10) /* beside its largest record, in a file made for that */

typedef struct found_file {
    uint64_t first;
    int head; /* JSC_OK or why its header does not verify */
    jsc_segment_head fields;
    bool borrowed; /* the header is its sidecar's copy */
    bool superseded; /* a rewritten segment before it covers its records */
    bool open; /* nothing proves that it was synced: it may end torn, and with it the log */
    bool overlong; /* than any segment may be: read up to `size`, and left as it is */
    int64_t size;
} found_file;

typedef struct listing {
    found_file *at;
    size_t n;
    uint64_t *sidecars; /* first indexes */
    size_t nsidecars;
    char **leftovers; /* names of unfinished and spare files */
    size_t nleftovers;
    bool failed;
} listing;

static bool is_hex(const char *name, uint64_t *value) {
    *value = 0;
    for (int i = 0; i < 16; i++) {
        char c = name[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) return false;
        *value = *value << 4 | (uint64_t)digit;
    }
    return true;
}

static void leave_over(listing *l, const char *name) {
    char **grown = realloc(l->leftovers, (l->nleftovers + 1) * sizeof *grown);
    if (grown) l->leftovers = grown;
    if (!grown || !(grown[l->nleftovers] = strdup(name))) l->failed = true;
    else l->nleftovers++;
}

static void each_name(void *ctx, const char *name) {
    listing *l = ctx;
    uint64_t first;
    static const char *const unfinished[] = {"checkpoint.tmp", "checkpoint.copy.tmp", "snapshot.tmp",
                                             "snapshot.copy.tmp"};
    for (size_t i = 0; i < sizeof unfinished / sizeof *unfinished; i++)
        if (strcmp(name, unfinished[i]) == 0) leave_over(l, name);
    if (strlen(name) < 20 || !is_hex(name, &first)) return;
    if (strcmp(name + 16, ".seg") == 0) {
        found_file *grown = realloc(l->at, (l->n + 1) * sizeof *grown);
        if (!grown) l->failed = true;
        if (!grown) return;
        l->at = grown;
        l->at[l->n++] = (found_file){.first = first};
    } else if (strcmp(name + 16, ".idx") == 0) {
        uint64_t *grown = realloc(l->sidecars, (l->nsidecars + 1) * sizeof *grown);
        if (!grown) l->failed = true;
        if (!grown) return;
        l->sidecars = grown;
        l->sidecars[l->nsidecars++] = first;
    } else if (jsc_name_ends(name, ".tmp") || jsc_name_ends(name, ".free")) {
        leave_over(l, name);
    }
}

static int by_first(const void *a, const void *b) {
    const found_file *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

static void say(jsc_log *log, jsc_log_recovery *rec, uint64_t file, uint64_t at, const char *what, uint64_t index) {
    if (rec->message[0]) return;
    snprintf(rec->message, sizeof rec->message, "%.120s/%016" PRIx64 ".seg at byte %" PRIu64 ": %s %" PRIu64, log->dir,
             file, at, what, index);
}

static void damaged(jsc_log *log, jsc_log_recovery *rec, uint64_t file, uint64_t at, uint64_t index) {
    if (!rec->damaged_index || index < rec->damaged_index) rec->damaged_index = index;
    say(log, rec, file, at, "damage; first record lost is", index);
}

/* Writes [from, end) of the file again as it reads. After a failed sync the kernel may hold pages that are not on the disk
 * and take them for clean: another sync would not write them. */
static int write_again(const jsc_vfs *vfs, int fd, uint64_t from, uint64_t end) {
    const size_t piece = (size_t)1 << 20;
    uint8_t *p = from < end ? malloc(piece) : NULL;
    int rc = from < end && !p ? -ENOMEM : JSC_OK;
    while (rc == JSC_OK && from < end) {
        ssize_t got = vfs->pread(vfs->self, fd, p, end - from < piece ? (size_t)(end - from) : piece, (off_t)from);
        if (got <= 0) rc = got < 0 ? (int)got : -EIO;
        else rc = jsc_write_all(vfs, fd, p, (size_t)got, from);
        if (got > 0) from += (uint64_t)got;
    }
    free(p);
    return rc;
}

/* Cuts the file at `end` and makes that durable, or makes durable what a killed process left in the page cache, from
 * `from` on: what is before was said to be synced. */
static int settle_file(jsc_log *log, jsc_segment *s, uint64_t from, uint64_t end, bool cut) {
    if (log->read_only) return JSC_OK;
    /* Each record was synced, what calls them so may be lost again. Not for the message log: its sidecars have the digest of
     * whole files. */
    if (!cut && from && from >= end && !log->keep_images) return JSC_OK;
    const jsc_vfs *vfs = log->vfs;
    int fd = jsc_segment_open(log, s, O_RDWR), rc;
    if (fd < 0) return fd;
    rc = cut ? vfs->truncate(vfs->self, fd, (off_t)end) : 0;
    if (rc == 0) rc = write_again(vfs, fd, from, end);
    if (rc == 0) rc = vfs->datasync(vfs->self, fd);
    vfs->close(vfs->self, fd);
    if (rc == 0 && cut) s->allocated = end;
    return rc;
}

/* What the head of the sidecar beside a segment says. */
static bool peek(jsc_log *log, uint64_t first, jsc_sidecar_info *info) {
    char *path = jsc_segment_path(log, first, ".idx");
    if (!path) return false;
    int fd = log->vfs->open(log->vfs->self, path, O_RDONLY, 0);
    free(path);
    if (fd < 0) return false;
    int rc = jsc_sidecar_peek(log->vfs, fd, info);
    log->vfs->close(log->vfs->self, fd);
    return rc == JSC_OK && info->first == first && info->last >= first - 1 && info->last - first < (uint64_t)INT64_MAX;
}

/* It is of this very file. */
static bool vouched(jsc_log *log, const found_file *f, int64_t size, jsc_sidecar_info *info) {
    if (!peek(log, f->first, info) || info->salt != f->fields.salt || info->segment_bytes != (uint64_t)size)
        return false;
    return info->used <= (f->fields.flags & JSC_SF_PACKED ? f->fields.body : (uint64_t)size);
}

/* Whether the file in fd is the one that the header from its sidecar is of: its index, or its last trailer, says so. */
static bool fits(jsc_log *log, int fd, const jsc_segment_head *h, uint64_t used) {
    if (h->flags & JSC_SF_PACKED) {
        jsc_pack *pack = NULL;
        int rc = jsc_pack_open(log->vfs, fd, h, log->keys, &pack);
        jsc_pack_close(pack);
        return rc == JSC_OK;
    }
    uint64_t n = h->flags & JSC_SF_ENCRYPTED ? JSC_TRAILER_MAX : JSC_TRAILER_BYTES;
    uint8_t bytes[JSC_TRAILER_MAX];
    jsc_record r;
    size_t size;
    jsc_trailer t;
    return used >= JSC_SEGMENT_HEAD + n &&
           log->vfs->pread(log->vfs->self, fd, bytes, n, (off_t)(used - n)) == (ssize_t)n &&
           jsc_record_decode(bytes, n, &r, &size) == JSC_OK && jsc_trailer_decode(&r, &t) == JSC_OK &&
           t.salt == h->salt;
}

/* Puts it back where it was; until then all hangs on the sidecar. Without success nothing is worse than before. */
static void give_back(jsc_log *log, const char *path, const jsc_segment_head *h, uint64_t used) {
    const jsc_vfs *vfs = log->vfs;
    uint8_t head[JSC_SEGMENT_HEAD];
    int fd = vfs->open(vfs->self, path, O_RDWR, 0);
    if (fd < 0) return;
    jsc_segment_head_encode(h, head);
    if (fits(log, fd, h, used) && jsc_write_all(vfs, fd, head, sizeof head, 0) == 0) (void)vfs->datasync(vfs->self, fd);
    vfs->close(vfs->self, fd);
}

/* How much is looked at of a file that is longer than any segment: what its sidecar says, or what a segment usually has. */
static int64_t sane_size(jsc_log *log, const found_file *f) {
    jsc_sidecar_info info;
    uint64_t most = JSC_PAD((uint64_t)JSC_RECORD_MAX) + FIRST_BYTES;
    bool good = f->head == JSC_OK && f->fields.first == f->first;
    if (peek(log, f->first, &info) && (!good || info.salt == f->fields.salt) && info.segment_bytes <= JSC_SEGMENT_MAX)
        return (int64_t)info.segment_bytes;
    return (int64_t)(log->segment_bytes > most ? log->segment_bytes : most);
}

/* A damaged header is in the sidecar too. */
static void borrow_head(jsc_log *log, found_file *f, int64_t size) {
    jsc_sidecar_info info;
    jsc_segment_head h;
    if (!peek(log, f->first, &info) || info.segment_bytes != (uint64_t)size) return;
    if (jsc_segment_head_decode(info.segment_head, &h) != JSC_OK || h.salt != info.salt || h.first != f->first) return;
    f->fields = h;
    f->head = JSC_OK;
    f->borrowed = true;
    char *path = log->read_only ? NULL : jsc_segment_path(log, f->first, ".seg");
    if (path) give_back(log, path, &h, info.used);
    free(path);
}

/* The file is read: what it holds goes into s, and where it ends into the scan. */
static int scan_file(jsc_log *log, const found_file *f, uint64_t next, bool open, uint64_t known, int fd, int64_t size,
                     jsc_image *image, jsc_scan *c) {
    const jsc_segment_head *h = f->head == JSC_OK && f->fields.first == f->first ? &f->fields : NULL;
    int rc = jsc_image_load(log, fd, (uint64_t)size, h, image);
    if (rc != JSC_OK) return rc;
    jsc_scan_free(c);
    jsc_scan_init(c, f->first, !log->nsegments && h ? h->prev_term : log->last_term);
    c->p = image->bytes;
    c->size = image->size & ~(uint64_t)7;
    c->open = f->open;
    c->known = known > log->known ? known : log->known;
    c->next = next;
    c->keep_trailers = log->keep_images;
    c->stop_at_next = !open && (!h || !(h->flags & JSC_SF_REWRITTEN));
    c->headless = !h;
    if (h) {
        c->salt_known = true;
        c->salt = h->salt;
        c->flags = h->flags;
    } else if ((rc = jsc_scan_gather(c)) < 0 || (f->open && !c->ntrailers && f->first > log->known)) {
        return rc;
    }
    return jsc_scan_run(c);
}

/* What the trailers of a later file call synced, whether their batches are good or not; *bytes: what is in it. */
static int look_ahead(jsc_log *log, const found_file *f, jsc_image *image, uint64_t *synced, uint64_t *bytes) {
    const jsc_vfs *vfs = log->vfs;
    char *path = jsc_segment_path(log, f->first, ".seg");
    if (!path) return -ENOMEM;
    int fd = vfs->open(vfs->self, path, O_RDONLY, 0), rc;
    free(path);
    if (fd < 0) return fd;
    const jsc_segment_head *h = f->head == JSC_OK && f->fields.first == f->first ? &f->fields : NULL;
    jsc_scan c;
    jsc_scan_init(&c, f->first, 0);
    if ((rc = jsc_image_load(log, fd, (uint64_t)f->size, h, image)) == JSC_OK) {
        c.p = image->bytes;
        c.size = image->size & ~(uint64_t)7;
        c.salt_known = h != NULL;
        c.salt = h ? h->salt : 0;
        rc = jsc_scan_gather(&c);
        jsc_scan_end(&c);
        *bytes += c.end;
    }
    for (size_t i = 0; i < c.ntrailers; i++)
        if (c.trailers[i].t.durable > *synced) *synced = c.trailers[i].t.durable;
    jsc_scan_free(&c);
    vfs->close(vfs->self, fd);
    return rc;
}

/* Keeps what was read for the first visit; where it was copied, of the newest two segments, so that memory does not follow
 * the log. */
static int keep_fresh(jsc_log *log, jsc_segment *s, jsc_image *image, jsc_scan *c) {
    if (!(s->fresh = calloc(1, sizeof *s->fresh))) return -ENOMEM;
    s->fresh->image = *image;
    s->fresh->scan = *c;
    s->fresh->count = s->count;
    *image = (jsc_image){0};
    *c = (jsc_scan){0};
    size_t n = log->nsegments;
    jsc_segment *old = n >= 2 ? log->segments[n - 2] : NULL;
    if (old && old->fresh && !old->fresh->image.mapped) {
        jsc_fresh_free(log, old->fresh);
        old->fresh = NULL;
        *image = jsc_image_take(log);
    }
    return JSC_OK;
}

/* Fills s from the scan. */
static int take_scan(jsc_segment *s, jsc_scan *c) {
    s->salt = c->salt;
    s->at = c->table;
    s->count = c->count;
    s->cap = c->cap;
    s->bytes = c->bytes;
    s->used = c->batch_start;
    c->table = NULL;
    c->count = c->cap = 0;
    return JSC_OK;
}

static int remove_file(jsc_log *log, uint64_t first, const char *suffix) {
    char *path = jsc_segment_path(log, first, suffix);
    if (!path) return -ENOMEM;
    int rc = log->vfs->unlink(log->vfs->self, path);
    free(path);
    return rc == -ENOENT ? JSC_OK : rc;
}

/* Where the first record starts that nothing calls synced: the head, when no record of the file was. */
static uint64_t unsure_from(const jsc_segment *s, uint64_t synced) {
    if (synced < s->first) return 0;
    uint64_t k = synced + 1 - s->first;
    return k < s->count ? (uint64_t)s->at[k] * 8 : s->used;
}

static int finish_open(jsc_log *log, jsc_segment *s, jsc_scan *c, jsc_log_recovery *rec) {
    if (c->torn) {
        rec->torn_bytes += c->end > s->used ? c->end - s->used : 0;
        say(log, rec, s->first, s->used, "torn tail, never acknowledged, was cut after record", c->expected - 1);
    }
    /* The image of an encrypted file has only what its trailers vouch for: what is torn behind them does not show in it. */
    bool cut = c->torn || s->flags & JSC_SF_ENCRYPTED;
    return settle_file(log, s, unsure_from(s, c->durable > log->known ? c->durable : log->known), s->used, cut);
}

/* The log ends in file i: what is behind it was never acknowledged. The last one first, so that no cut leaves a hole. */
static int end_with(jsc_log *log, listing *l, size_t i) {
    size_t n = l->n;
    l->n = i + 1;
    if (log->read_only || n == l->n) return JSC_OK;
    while (n-- > i + 1) {
        int rc = remove_file(log, l->at[n].first, ".idx");
        if (rc == JSC_OK) rc = remove_file(log, l->at[n].first, ".seg");
        if (rc < 0) return rc;
    }
    return log->vfs->syncdir(log->vfs->self, log->dir);
}

/* An open file that is not the last was read into the scan, and does not reach the next one. Either those behind it say
 * that what is missing was synced, and it is damaged: then it is read again with that; or the log ends in it. */
static int judge_end(jsc_log *log, listing *l, size_t i, int fd, jsc_image *image, jsc_scan *c, jsc_log_recovery *rec,
                     bool *ends) {
    uint64_t synced = c->durable > log->known ? c->durable : log->known, torn = 0, next = l->at[i + 1].first;
    bool read = c->ntrailers || c->salt_known; /* else nothing in it could be told from anything else */
    int rc = JSC_OK;
    jsc_image other = {0};
    for (size_t k = i + 1; rc == JSC_OK && k < l->n; k++) rc = look_ahead(log, &l->at[k], &other, &synced, &torn);
    jsc_image_free(&other);
    *ends = synced < c->expected;
    if (rc == JSC_OK && !*ends) {
        l->at[i].open = read;
        rc = scan_file(log, &l->at[i], next, false, synced, fd, l->at[i].size, image, c);
        *ends = rc == JSC_OK && read && (c->torn || (c->expected < next && synced < c->expected));
    }
    if (rc == JSC_OK && *ends) {
        rec->torn_bytes += torn;
        if (!c->torn)
            say(log, rec, l->at[i].first, c->at,
                "the log ends here, what is behind was never acknowledged; last record is", c->expected - 1);
    }
    return rc;
}

/* reached: the index behind the last record that is there. */
static int finish_full(jsc_log *log, jsc_segment *s, jsc_scan *c, uint64_t reached, uint64_t next,
                       jsc_log_recovery *rec) {
    s->closed = true;
    /* Records that a good batch should have ended are each verified: they count, up to the next file's. */
    if (c->at > s->used) s->used = c->at;
    if (next != UINT64_MAX && reached < next) {
        damaged(log, rec, s->first, c->at, reached);
    } else if (next == UINT64_MAX && c->at < c->size) {
        damaged(log, rec, s->first, c->at, c->expected); /* how many, nothing says */
    } else if (c->pending) {
        say(log, rec, s->first, c->at, "damaged trailer; no record is lost before", c->expected);
    } else if (c->end > s->used && c->stop_at_next) {
        /* A truncation that was interrupted after the next file took over from here. */
        return settle_file(log, s, s->used, s->used, true);
    }
    return JSC_OK;
}

/* Notes the files that a merge left behind it. */
static int supersede(jsc_log *log, listing *l, size_t i) {
    for (size_t k = i + 1; k < l->n && l->at[k].first <= log->last; k++) {
        l->at[k].superseded = true;
        if (log->read_only) continue;
        int rc = remove_file(log, l->at[k].first, ".seg");
        if (rc == JSC_OK) rc = remove_file(log, l->at[k].first, ".idx");
        if (rc < 0) return rc;
    }
    return JSC_OK;
}

static uint64_t next_first(const listing *l, size_t i) { return i + 1 < l->n ? l->at[i + 1].first : UINT64_MAX; }

/* A reader beside the writer may have seen the file before its header was written, and its batches after. */
static bool header_came(const jsc_log *log, found_file *f, int fd) {
    uint8_t head[JSC_SEGMENT_HEAD];
    jsc_segment_head h;
    if (!log->read_only || log->vfs->pread(log->vfs->self, fd, head, sizeof head, 0) != (ssize_t)sizeof head)
        return false;
    if (jsc_segment_head_decode(head, &h) != JSC_OK || h.first != f->first) return false;
    f->head = JSC_OK;
    f->fields = h;
    return true;
}

/* Out of the log's way, under a name that nothing here removes. */
static int set_aside(const jsc_log *log, const char *path) {
    size_t n = strlen(path) + 16;
    char *to = malloc(n);
    if (!to) return -ENOMEM;
    snprintf(to, n, "%s.overlong", path);
    int rc = log->vfs->rename(log->vfs->self, path, to);
    free(to);
    return rc;
}

/* -EAGAIN: a reader's, once more. */
static int recover_file(jsc_log *log, listing *l, size_t i, jsc_image *image, jsc_log_recovery *rec, bool *gone) {
    const jsc_vfs *vfs = log->vfs;
    found_file *f = &l->at[i];
    bool good_head = f->head == JSC_OK && f->fields.first == f->first;
    bool rewritten = good_head && f->fields.flags & JSC_SF_REWRITTEN, is_last = i + 1 == l->n,
         open = is_last && !rewritten && !f->overlong;
    jsc_sidecar_info info;
    jsc_scan c = {0};
    jsc_segment *s = jsc_segment_new(log, f->first);
    char *path = jsc_segment_path(log, f->first, ".seg");
    int rc = -ENOMEM, fd = -1;
    bool unfinished = false; /* gone, but its file stays */
    *gone = false;
    if (!path || !s) goto out;
    if (f->borrowed) say(log, rec, f->first, 0, "damaged file header; its sidecar has it. Records start at", f->first);
    if ((rc = fd = vfs->open(vfs->self, path, O_RDONLY, 0)) < 0) goto out;
    int64_t size = f->overlong ? f->size : vfs->size(vfs->self, fd);
    rc = size<0 ? (int)size : size>(int64_t) JSC_SEGMENT_MAX ? JSC_ECORRUPT : JSC_OK;
    if (rc < 0) goto out;
    if (f->overlong)
        say(log, rec, f->first, (uint64_t)size, "longer than a segment may be; its records start at", f->first);
    uint64_t next = rewritten && next_first(l, i) != UINT64_MAX ? UINT64_MAX : next_first(l, i);
    if (good_head && !open && vouched(log, f, size, &info) && (rewritten || info.last + 1 == next_first(l, i))) {
        jsc_segment_trust(s, &f->fields, &info);
        if (info.lost) damaged(log, rec, s->first, 0, s->first);
        if (next_first(l, i) != UINT64_MAX && info.last + 1 < next_first(l, i))
            damaged(log, rec, s->first, info.used, info.last + 1);
        log->last_term = info.last_term;
        if (info.last_seq > log->commit) log->commit = info.last_seq;
        rc = JSC_OK;
    } else {
        if ((rc = scan_file(log, f, next, open, 0, fd, size, image, &c)) < 0) goto out;
        if (!good_head && header_came(log, f, fd)) {
            rc = -EAGAIN;
            goto out;
        }
        bool unread = !good_head && !c.ntrailers;
        if (f->open && !is_last && (unread || c.torn || c.expected < next)) {
            if ((rc = judge_end(log, l, i, fd, image, &c, rec, &open)) < 0) goto out;
            if (open && (rc = end_with(log, l, i)) < 0) goto out;
            is_last = open;
        }
        /* Never finished: its header is synced before anything is written. */
        if (unread && open && f->first > log->known) {
            *gone = true;
            goto out;
        }
        if (unread && f->overlong && is_last && f->first > log->known) { /* nobody's, and its name may be needed */
            *gone = unfinished = true;
            rc = log->read_only ? JSC_OK : set_aside(log, path);
            goto out;
        }
        if (good_head) {
            jsc_segment_take_head(s, &f->fields);
        } else {
            say(log, rec, s->first, 0, "damaged file header; its records start at", f->first);
            s->closed = true; /* nothing more goes behind a header that says nothing */
            s->head_lost = true;
        }
        s->created = true;
        s->overlong = f->overlong;
        s->allocated = (uint64_t)size;
        if (s->limit < image->size) s->limit = image->size;
        if (open) jsc_segment_widen(log, s);
        if (c.bad_trailer_at)
            say(log, rec, s->first, c.bad_trailer_at, "damaged trailer; no record is lost before", c.expected);
        /* A rewritten file may end behind the next one's first record: then it took that one's place. */
        uint64_t reached = c.expected, end = reached < next_first(l, i) ? next_first(l, i) : next;
        /* Of the last one too the end may be lost: then nothing is written over what was there. */
        bool whole = open && reached > log->known && (c.torn || !c.pending);
        if (open || (f->overlong && is_last)) end = log->known + 1;
        if (!whole && end != UINT64_MAX && (rc = jsc_scan_lose(&c, end - 1)) < 0) goto out;
        for (size_t k = 0; k < c.nlost; k++) damaged(log, rec, s->first, c.lost[k].at, c.lost[k].first);
        take_scan(s, &c);
        rc = whole ? finish_open(log, s, &c, rec) : finish_full(log, s, &c, reached, end, rec);
        if (rc < 0) goto out;
        if (!whole) s->allocated = s->used; /* what is behind is no reserve, and stays */
        if (c.durable > log->stated) log->stated = c.durable;
        s->unsettled = f->open && !open;
        if (s->flags & JSC_SF_ENCRYPTED) s->closed = true; /* no nonce may be used twice */
        if (open && s->closed && !s->count && !log->read_only) {
            /* The next segment has its name, and is made in its file; until then that says where the log stands. */
            *gone = unfinished = true;
            goto out;
        }
        if (s->closed && !is_last) atomic_store(&s->left, true);
        log->last_term = c.last_term;
        log->last_ts = c.last_ts;
        if (c.commit > log->commit) log->commit = c.commit;
        if (log->keep_images && (rc = keep_fresh(log, s, image, &c)) < 0) goto out;
    }
    if (log->nsegments) s->base = log->segments[log->nsegments - 1]->base + log->segments[log->nsegments - 1]->used;
    if ((rc = jsc_segment_push(log, s)) < 0) goto out;
    log->bytes += s->bytes;
    log->last = s->first + s->count - 1;
    s = NULL;
    if (rewritten) rc = supersede(log, l, i);
out:
    if (fd >= 0) vfs->close(vfs->self, fd);
    if (rc == JSC_OK && *gone && !unfinished && !log->read_only) rc = vfs->unlink(vfs->self, path);
    free(path);
    jsc_scan_free(&c);
    jsc_segment_unref(s);
    return rc;
}

/* Every header: an unknown version must be met before anything is touched. */
static int read_heads(jsc_log *log, listing *l) {
    const jsc_vfs *vfs = log->vfs;
    for (size_t i = 0; i < l->n; i++) {
        uint8_t head[JSC_SEGMENT_HEAD] = {0};
        char *path = jsc_segment_path(log, l->at[i].first, ".seg");
        if (!path) return -ENOMEM;
        int fd = vfs->open(vfs->self, path, O_RDONLY, 0);
        free(path);
        if (fd < 0) return fd;
        ssize_t got = vfs->pread(vfs->self, fd, head, sizeof head, 0);
        int64_t size = vfs->size(vfs->self, fd);
        vfs->close(vfs->self, fd);
        if (got < 0 || size < 0) return got < 0 ? (int)got : (int)size;
        found_file *f = &l->at[i];
        f->size = size;
        f->head = jsc_segment_head_decode(head, &f->fields);
        if (f->head == JSC_EFORMAT) return JSC_EFORMAT;
        f->overlong = size > (int64_t)JSC_SEGMENT_MAX;
        if (f->overlong) f->size = size = sane_size(log, f);
        if (f->head != JSC_OK || f->fields.first != f->first) borrow_head(log, f, size);
    }
    return JSC_OK;
}

/* A file was synced, and all before it were, if it is vouched for or rewritten; those before it, if its head says so. */
static void find_open(jsc_log *log, listing *l) {
    bool proven = false;
    jsc_sidecar_info info;
    for (size_t i = l->n; i-- > 0;) {
        found_file *f = &l->at[i];
        bool good = f->head == JSC_OK && f->fields.first == f->first;
        if (!proven && good && f->fields.flags & JSC_SF_REWRITTEN) proven = true;
        if (!proven && good && i + 1 < l->n) proven = vouched(log, f, f->size, &info);
        f->open = !proven && !f->overlong;
        if (good && !(f->fields.flags & JSC_SF_AHEAD)) proven = true;
    }
}

/* What was read of open files need not be on the disk. */
static int settle_open(jsc_log *log) {
    int rc = JSC_OK;
    for (size_t i = 0; i < log->nsegments && rc == JSC_OK; i++) {
        jsc_segment *s = log->segments[i];
        if (s->unsettled) rc = settle_file(log, s, unsure_from(s, log->stated), s->used, false);
        s->unsettled = false;
    }
    return rc;
}

static int drop_leftovers(jsc_log *log, listing *l) {
    size_t n = strlen(log->dir), dropped = l->nleftovers;
    for (size_t i = 0; i < l->nleftovers; i++) {
        char *path = malloc(n + strlen(l->leftovers[i]) + 2);
        if (!path) return -ENOMEM;
        sprintf(path, "%s/%s", log->dir, l->leftovers[i]);
        int rc = log->vfs->unlink(log->vfs->self, path);
        free(path);
        if (rc < 0) return rc;
    }
    for (size_t i = 0; i < l->nsidecars; i++) { /* of segments that are gone */
        found_file key = {.first = l->sidecars[i]};
        if (l->n && bsearch(&key, l->at, l->n, sizeof *l->at, by_first)) continue;
        int rc = remove_file(log, l->sidecars[i], ".idx");
        if (rc < 0) return rc;
        dropped++;
    }
    /* Names first: what follows relies on them. Of a single file we see below whether it is needed: see settle_name. */
    return l->n > 1 || dropped ? log->vfs->syncdir(log->vfs->self, log->dir) : JSC_OK;
}

/* The name of a log's only file was synced before any of its records was called so. Even with nothing to write a sync waits
 * for the disk, which takes milliseconds: thousands of logs that fell silent before the process went are opened without. */
static int settle_name(jsc_log *log, const listing *l) {
    bool stated = log->nsegments && log->stated >= log->segments[0]->first && log->stated <= log->last;
    return log->read_only || l->n != 1 || stated ? JSC_OK : log->vfs->syncdir(log->vfs->self, log->dir);
}

/* A trim that a crash interrupted may have left any of the files it was to remove. */
static int drop_unneeded(jsc_log *log, listing *l, uint64_t keep) {
    size_t n = 0;
    while (n + 1 < l->n && l->at[n + 1].first <= keep) n++;
    for (size_t i = 0; i < n && !log->read_only; i++) {
        int rc = remove_file(log, l->at[i].first, ".idx");
        if (rc == JSC_OK) rc = remove_file(log, l->at[i].first, ".seg");
        if (rc < 0) return rc;
    }
    l->n -= n;
    memmove(l->at, l->at + n, l->n * sizeof *l->at);
    return JSC_OK;
}

int jsc_log_recover(jsc_log *log, uint64_t first_index, uint64_t keep, jsc_log_recovery *rec) {
    listing l = {0};
    jsc_image image = {0};
    bool gone = false;
    int rc = log->vfs->list(log->vfs->self, log->dir, each_name, &l);
    if (rc == 0 && l.failed) rc = -ENOMEM;
    if (rc < 0) goto out;
    if (l.n) qsort(l.at, l.n, sizeof *l.at, by_first);
    if ((rc = read_heads(log, &l)) < 0) goto out;
    if (l.n && (rc = drop_unneeded(log, &l, keep)) < 0) goto out;
    if (!log->read_only && (rc = drop_leftovers(log, &l)) < 0) goto out;
    find_open(log, &l);
    log->first = l.n ? l.at[0].first : first_index;
    log->last = log->first - 1;
    for (size_t i = 0; i < l.n; i++) {
        if (l.at[i].superseded) continue;
        if ((rc = recover_file(log, &l, i, &image, rec, &gone)) == -EAGAIN)
            rc = recover_file(log, &l, i, &image, rec, &gone);
        if (rc < 0) goto out;
    }
    if (gone) {
        if (!log->read_only && (rc = log->vfs->syncdir(log->vfs->self, log->dir)) < 0) goto out;
        /* The name said that all before it was synced. */
        if (l.n > 1) log->last = l.at[l.n - 1].first - 1;
    }
    if ((rc = settle_open(log)) < 0 || (rc = settle_name(log, &l)) < 0) goto out;
    if (log->nsegments) {
        jsc_segment *s = log->segments[log->nsegments - 1];
        log->batch_start = s->used;
        atomic_store(&log->written, s->base + s->used);
    }
    rec->commit = log->commit_written = log->commit;
    atomic_store(&log->durable, log->last);
    atomic_store(&log->synced, log->last);
    log->written_index = log->last;
    rc = JSC_OK;
out:
    jsc_image_give(log, &image);
    for (size_t i = 0; i < l.nleftovers; i++) free(l.leftovers[i]);
    free(l.leftovers);
    free(l.sidecars);
    free(l.at);
    return rc;
}
