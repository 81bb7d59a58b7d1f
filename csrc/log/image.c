/* From the bytes of a file to the image of a segment and back: packed blocks, encrypted batches. */
#include "scan.h"

#include <errno.h>
#include <sys/mman.h>

enum { AAD_HEAD = 60, AAD_TRAILER = JSC_TRAILER_DATA };

static void aad_of(const jsc_segment_head *h, const uint8_t *trailer, uint8_t out[AAD_HEAD + AAD_TRAILER]) {
    uint8_t head[JSC_SEGMENT_HEAD];
    jsc_segment_head_encode(h, head);
    memcpy(out, head, AAD_HEAD);
    memcpy(out + AAD_HEAD, trailer + JSC_RECORD_HEAD, AAD_TRAILER);
}

int jsc_image_key_check(jsc_cipher *cipher, uint32_t *out) {
    uint8_t tag[JSC_TAG_BYTES];
    /* No batch starts there, so the nonce is this one message's. */
    int rc = jsc_cipher_seal(cipher, UINT64_MAX, NULL, 0, NULL, 0, NULL, tag);
    if (rc == JSC_OK) *out = jsc_get32(tag);
    return rc;
}

int jsc_image_seal(jsc_cipher *cipher, const jsc_segment_head *h, uint64_t at, uint8_t *plain, size_t n, uint8_t *out) {
    uint8_t aad[AAD_HEAD + AAD_TRAILER], tag[JSC_TAG_BYTES];
    for (size_t start = 0, end = 0; end < n;) {
        size_t len = jsc_get32(plain + end + 4);
        if (plain[end + 30] != JSC_K_TRAILER) {
            end += JSC_PAD(len);
            continue;
        }
        JSC_ASSERT(len == JSC_TRAILER_MAX && len <= n - end);
        aad_of(h, plain + end, aad);
        int rc = jsc_cipher_seal(cipher, at + start, aad, sizeof aad, plain + start, end - start, out + start, tag);
        if (rc != JSC_OK) return rc;
        jsc_trailer_tag(plain + end, tag);
        memcpy(out + end, plain + end, JSC_TRAILER_MAX);
        start = end += JSC_TRAILER_MAX;
    }
    return JSC_OK;
}

int jsc_image_open(jsc_cipher *cipher, const jsc_segment_head *h, const uint8_t *p, const jsc_found_trailer *f,
                   uint8_t *plain) {
    uint8_t aad[AAD_HEAD + AAD_TRAILER];
    aad_of(h, p + f->at, aad);
    memcpy(plain + f->at, p + f->at, f->bytes);
    if (f->bytes != JSC_TRAILER_MAX) return JSC_ECORRUPT;
    return jsc_cipher_open(cipher, f->t.start, aad, sizeof aad, p + f->t.start, (size_t)(f->at - f->t.start),
                           plain + f->t.start, p + f->at + JSC_TRAILER_BYTES);
}

/* *read: less than asked for where a writer in another process has just cut the file's reserved end. */
static int read_all(const jsc_vfs *vfs, int fd, uint8_t *buf, uint64_t n, uint64_t *read) {
    uint64_t at = 0;
    while (at < n) {
        size_t want = n - at < ((uint64_t)8 << 20) ? (size_t)(n - at) : (size_t)8 << 20;
        ssize_t got = vfs->pread(vfs->self, fd, buf + at, want, (off_t)at);
        if (got < 0) return (int)got;
        if (got == 0) break;
        at += (uint64_t)got;
    }
    *read = at;
    return JSC_OK;
}

void jsc_image_free(jsc_image *m) {
    if (m->mapped) m->mapped->unmap(m->mapped->self, m->bytes, m->cap);
    else free(m->bytes);
    *m = (jsc_image){0};
}

#define HUGE_PAGE ((uint64_t)2 << 20)

/* Large images in huge pages, where the system has them: a quarter of the time of reading one is its page faults. */
static int make_room(jsc_image *m, uint64_t n) {
    if (n <= m->cap && !m->mapped) return JSC_OK;
    jsc_image_free(m);
    uint64_t room = n < HUGE_PAGE ? n : (n + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    if (n < HUGE_PAGE) m->bytes = malloc(room);
    else if ((m->bytes = aligned_alloc(HUGE_PAGE, room))) madvise(m->bytes, room, MADV_HUGEPAGE);
    if (!m->bytes) return -ENOMEM;
    m->cap = room;
    return JSC_OK;
}

jsc_image jsc_image_take(jsc_log *log) {
    jsc_image m = {0};
    if (!log->scratch) return m;
    m = *log->scratch;
    *log->scratch = (jsc_image){0};
    return m;
}

void jsc_image_give(jsc_log *log, jsc_image *m) {
    if (log->scratch && log->scratch->cap < m->cap && !m->mapped) {
        jsc_image smaller = *log->scratch;
        *log->scratch = *m;
        *m = smaller;
    }
    jsc_image_free(m);
}

static int unpack(jsc_log *log, int fd, const jsc_segment_head *h, jsc_image *m) {
    jsc_pack *pack;
    int rc = jsc_pack_open(log->vfs, fd, h, log->keys, &pack);
    if (rc == JSC_ECORRUPT) { /* nothing says where its blocks are: every record is lost */
        if ((rc = make_room(m, JSC_SEGMENT_HEAD)) != JSC_OK) return rc;
        memset(m->bytes, 0, JSC_SEGMENT_HEAD);
        m->size = JSC_SEGMENT_HEAD;
        return JSC_OK;
    }
    if (rc != JSC_OK) return rc;
    uint64_t size = jsc_pack_image_bytes(pack);
    uint32_t blocks = jsc_pack_blocks(pack);
    /* Blocks are written whole; the last one may be shorter than its room. */
    if ((rc = make_room(m, JSC_SEGMENT_HEAD + (uint64_t)blocks * JSC_PACK_BLOCK)) == JSC_OK) {
        m->size = size;
        memset(m->bytes, 0, JSC_SEGMENT_HEAD);
        for (uint32_t i = 0; i < blocks && rc == JSC_OK; i++) {
            uint8_t *to = m->bytes + JSC_SEGMENT_HEAD + (uint64_t)i * JSC_PACK_BLOCK;
            size_t n = 0;
            rc = jsc_pack_block(pack, i, to, &n);
            if (rc == JSC_ECORRUPT) {
                memset(to, 0, JSC_PACK_BLOCK);
                rc = JSC_OK;
            }
        }
    }
    jsc_pack_close(pack);
    return rc;
}

/* The trailers are plain: each opens its batch. What no trailer vouches for stays zero. */
static int decrypt(jsc_log *log, const jsc_segment_head *h, const uint8_t *p, uint64_t n, uint8_t *plain) {
    jsc_cipher *cipher;
    int rc = jsc_cipher_new(log->keys, h->key_id, h->salt, "segment", &cipher);
    if (rc != JSC_OK) return rc;
    jsc_scan c;
    jsc_scan_init(&c, h->first, 0);
    c.p = p;
    c.size = n & ~(uint64_t)7;
    c.salt = h->salt;
    c.salt_known = true;
    uint32_t check = 0;
    rc = jsc_image_key_check(cipher, &check);
    if (rc == JSC_OK && check != h->key_check) rc = JSC_EKEY;
    if (rc == JSC_OK) rc = jsc_scan_gather(&c);
    uint64_t from = JSC_SEGMENT_HEAD;
    for (size_t i = 0; i < c.ntrailers && rc == JSC_OK; i++) {
        const jsc_found_trailer *f = &c.trailers[i];
        if (f->t.start < from) continue; /* inside a batch that is open already: no trailer of ours */
        rc = jsc_image_open(cipher, h, p, f, plain);
        if (rc == JSC_ECORRUPT) rc = JSC_OK; /* jsc_cipher_open left zeros */
        from = f->at + f->bytes;
    }
    jsc_scan_free(&c);
    jsc_cipher_free(cipher);
    return rc;
}

/* Without a copy: what is read stays in the system's cache. -ENOSYS: not this one. A reader cannot: the writer, in another
 * process, may cut the file, and the bytes behind its end are not there to be looked at. */
static int map_file(jsc_log *log, int fd, uint64_t n, jsc_image *m) {
    const void *p;
    if (log->read_only || !n) return -ENOSYS;
    int rc = log->vfs->map_read(log->vfs->self, fd, n, &p);
    if (rc != JSC_OK) return rc == -ENOMEM ? -ENOSYS : rc;
    jsc_image_free(m);
    *m = (jsc_image){.bytes = (uint8_t *)(uintptr_t)p, .size = n, .cap = n, .mapped = log->vfs};
    return JSC_OK;
}

int jsc_image_load(jsc_log *log, int fd, uint64_t file_bytes, const jsc_segment_head *h, jsc_image *m) {
    if (h && h->flags & JSC_SF_PACKED) return unpack(log, fd, h, m);
    if (!h || !(h->flags & JSC_SF_ENCRYPTED)) {
        int rc = map_file(log, fd, file_bytes, m);
        if (rc != -ENOSYS) return rc;
        rc = make_room(m, file_bytes);
        if (rc == JSC_OK) rc = read_all(log->vfs, fd, m->bytes, file_bytes, &m->size);
        return rc;
    }
    uint8_t *sealed = malloc(file_bytes ? file_bytes : 1);
    if (!sealed) return -ENOMEM;
    int rc = make_room(m, file_bytes);
    if (rc == JSC_OK) rc = read_all(log->vfs, fd, sealed, file_bytes, &m->size);
    if (rc == JSC_OK) {
        memset(m->bytes, 0, file_bytes);
        rc = decrypt(log, h, sealed, m->size, m->bytes);
    }
    free(sealed);
    return rc;
}
