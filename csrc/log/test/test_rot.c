/* Sidecars that rot in their mapping after they were verified: whatever bit flips, no message passes for another. */
#include "../mlog_internal.h"
#include "../sidecar_format.h"
#include "../../base/jsc_vfs.h"

#include <fcntl.h>

#define CHECK_END() abort()
#include "../../base/test/check.h"

enum { MESSAGES = 3000, SUBJECTS = 7 };

static const jsc_vfs *vfs;
static jsc_mlog *m;

/* Payloads are all of one size, so that only the records' own words tell them apart. */
static void append(uint64_t seq) {
    char subject[8], data[24];
    uint64_t got;
    jsc_span s = {subject, (size_t)sprintf(subject, "s.%d", (int)(seq % SUBJECTS))}, none = {NULL, 0};
    jsc_span d = {data, (size_t)sprintf(data, "%020llu", (unsigned long long)seq)};
    OK(jsc_mlog_append(m, &s, &none, &d, 1, &got));
    CHECK(got == seq);
}

static void check_message(jsc_message *x) {
    char want[24];
    CHECK(x->r.data_len == (size_t)sprintf(want, "%020llu", (unsigned long long)x->seq));
    CHECK(memcmp(x->r.data, want, x->r.data_len) == 0);
    jsc_message_release(m, x);
}

/* Everything that leads to a message is asked. */
static void look(uint64_t seq) {
    jsc_message x;
    jsc_cursor *c;
    char subject[8];
    if (jsc_mlog_get(m, seq, &x) == JSC_OK) {
        CHECK(x.seq == seq);
        check_message(&x);
    }
    for (int backward = 0; backward < 2; backward++) {
        jsc_message batch[8];
        int n = 0;
        OK(jsc_cursor_new(m, NULL, seq, backward, &c));
        if (jsc_cursor_next(c, batch, 8, &n) == JSC_OK)
            for (int i = 0; i < n; i++) check_message(&batch[i]);
        jsc_cursor_free(c);
    }
    jsc_span s = {subject, (size_t)sprintf(subject, "s.%d", (int)(seq % SUBJECTS))};
    pthread_mutex_lock(&m->lock);
    jsc_subjects_forget_all(m);
    pthread_mutex_unlock(&m->lock);
    if (jsc_mlog_get_end(m, &s, false, 1, &x) == JSC_OK) {
        CHECK(x.r.subject_len == s.n && memcmp(x.r.subject, s.p, s.n) == 0);
        check_message(&x);
    }
}

static jsc_sidecar *side_of(jsc_piece *p) {
    int rc = JSC_OK;
    pthread_mutex_lock(&m->lock);
    CHECK(jsc_piece_part(m, p, &rc) && !p->tail);
    pthread_mutex_unlock(&m->lock);
    return p->segment->side;
}

/* deletions: records that are no messages lie between, and compaction left gaps of both kinds of numbers. */
static void run(bool deletions) {
    jsc_sim *sim = jsc_sim_new(1);
    jsc_mlog_options o = {.sync_mode = JSC_SYNC_NEVER, .segment_bytes = 64 << 10};
    vfs = jsc_sim_vfs(sim);
    OK(jsc_mlog_open(vfs, "log", &o, &m, NULL));
    for (uint64_t seq = 1; seq <= MESSAGES; seq++) {
        append(seq);
        if (deletions && seq > 1 && seq % 11 == 0) OK(jsc_mlog_delete(m, seq - 1));
    }
    OK(jsc_mlog_sync(m, -1));
    OK(jsc_mlog_maintain(m, deletions ? JSC_CARE_SEAL | JSC_CARE_COMPACT : JSC_CARE_SEAL, deletions));
    CHECK(m->npieces > 1);
    jsc_piece *p = m->pieces[0];
    jsc_sidecar *side = side_of(p);
    CHECK((p->count == p->segment->count) == !deletions);
    uint8_t *seqs = (uint8_t *)(uintptr_t)jsc_sidecar_column(side, 's'), raw[JSC_SIDECAR_HEAD];
    uint32_t *offsets = (uint32_t *)(uintptr_t)jsc_sidecar_column(side, 'o');
    for (int i = 0; i < 2000; i++) {
        uint32_t ord = (uint32_t)rnd(p->count), other = (uint32_t)rnd(p->count), was = offsets[ord];
        uint64_t seq = jsc_sidecar_part(side)->ops->seq(jsc_sidecar_part(side), ord);
        jsc_message x;
        offsets[ord] = offsets[other];
        int rc = jsc_mlog_get(m, seq, &x);
        CHECK(rc == (ord == other ? JSC_OK : JSC_ECORRUPT));
        if (rc == JSC_OK) check_message(&x);
        look(seq);
        offsets[ord] = was;
        OK(jsc_mlog_get(m, seq, &x));
        check_message(&x);
    }
    if (!deletions) { /* where sequences jump, only the column knows them */
        char *path = jsc_segment_path(m->log, p->segment->first, ".idx");
        jsc_sidecar_head h;
        jsc_sidecar_layout l;
        int fd = vfs->open(vfs->self, path, O_RDONLY, 0);
        CHECK(fd >= 0 && vfs->pread(vfs->self, fd, raw, sizeof raw, 0) == sizeof raw);
        vfs->close(vfs->self, fd);
        free(path);
        OK(jsc_sidecar_head_decode(raw, &h));
        jsc_sidecar_lay_out(&h, &l);
        uint8_t *body = seqs - l.seq;
        for (int i = 0; i < 5000; i++) {
            uint64_t at = rnd(l.end);
            uint8_t bit = (uint8_t)(1 << rnd(8));
            body[at] ^= bit;
            /* A message near what flipped, if that is a column, and any other. */
            uint64_t near = at >= l.seq && at < l.ts        ? (at - l.seq) / 8
                            : at >= l.offset && at < l.size ? (at - l.offset) / 4
                                                            : 0;
            look(p->base_seq + 1 + near % p->count);
            look(1 + rnd(MESSAGES));
            body[at] ^= bit;
        }
    }
    OK(jsc_mlog_close(m));
    jsc_sim_free(sim);
}

int main(void) {
    rnd_state = 1;
    run(false);
    run(true);
    printf("rot ok\n");
    return 0;
}
