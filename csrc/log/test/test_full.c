/* A full disk, on the simulated one: deletions are taken, what they free is found, writing resumes, and a crash at any
 * moment takes nothing that was acknowledged and not deleted. Many seeds. */
#include "../jsc_mlog.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_CASE " (seed %llu, round %d)", (unsigned long long)seed, round_
#define CHECK_END() abort()
#include "../../base/test/check.h"

static uint64_t seed;
static int round_;
enum { SEGMENT = 16384, CAPACITY = 150000, MOST = 800 };

typedef struct run {
    jsc_sim *sim;
    jsc_mlog *log;
    jsc_mlog_options options;
    jsc_limits limits;
    uint64_t capacity;
    uint64_t acked; /* durable, as a call said */
    uint64_t asked; /* below it somebody deleted everything, or began to */
    uint64_t kept;  /* of the purge that is not durable yet, if it leaves any: the newest at that time */
    uint64_t gone;  /* below it the deletion is durable */
} run;

static size_t size_of(uint64_t seq) { return 200 + seq * 2654435761u % (MOST - 200); }

static int append(run *r) {
    char text[MOST];
    uint64_t seq = jsc_mlog_last(r->log) + 1, got;
    jsc_span subject = {"a", 1}, data = {text, size_of(seq)};
    memset(text, (int)(seq % 251), sizeof text);
    memcpy(text, &seq, sizeof seq);
    int rc = jsc_mlog_append(r->log, &subject, NULL, &data, 0, &got);
    CHECK(rc != JSC_OK || got == seq);
    return rc;
}

/* Everything so far, synced. */
static int settle(run *r) {
    uint64_t position, last = jsc_mlog_last(r->log);
    int rc = jsc_mlog_submit(r->log, &position);
    if (rc != JSC_OK) return rc;
    rc = r->options.sync_mode == JSC_SYNC_ALWAYS ? jsc_mlog_wait(r->log, position, -1) : jsc_mlog_sync(r->log, -1);
    if (rc != JSC_OK) return rc;
    r->acked = last;
    if (r->kept && jsc_mlog_first(r->log) > r->asked) r->asked = jsc_mlog_first(r->log);
    r->gone = r->asked;
    r->kept = 0;
    return JSC_OK;
}

static void check_message(const jsc_message *m) {
    uint64_t seq;
    CHECK(m->r.data_len == size_of(m->seq));
    memcpy(&seq, m->r.data, sizeof seq);
    CHECK(seq == m->seq);
    for (size_t i = sizeof seq; i < m->r.data_len; i++) CHECK((uint8_t)m->r.data[i] == seq % 251);
}

static void check(run *r, bool crashed) {
    uint64_t first = jsc_mlog_first(r->log), last = jsc_mlog_last(r->log);
    size_t lost = 0;
    /* What limits take is what those acknowledged push out, not others that a crash took. */
    uint64_t floor = r->asked ? r->asked : 1, n = r->limits.max_messages;
    if (n && r->acked > n && r->acked - n + 1 > floor) floor = r->acked - n + 1;
    CHECK(last >= r->acked && first >= r->gone);
    CHECK(!crashed || first <= floor || (n && last - first + 1 == n) || (r->kept && last - first + 1 >= r->kept));
    for (uint64_t seq = first; seq <= last; seq++) {
        jsc_message m;
        OK(jsc_mlog_get(r->log, seq, &m));
        check_message(&m);
        jsc_message_release(r->log, &m);
    }
    OK(jsc_mlog_damage(r->log, NULL, 0, &lost));
    CHECK(lost == 0);
}

static void open_log(run *r) {
    jsc_mlog_recovery rec;
    OK(jsc_mlog_open(jsc_sim_vfs(r->sim), "disk/log", &r->options, &r->log, &rec));
    CHECK(rec.log.damaged_index == 0);
}

/* The process dies, or the machine does; with any luck some of what was not synced is there. */
static void crash(run *r) {
    jsc_mlog_abandon(r->log);
    jsc_sim_die(r->sim, 0, 0);
    if (rnd(3)) jsc_sim_crash(r->sim, (int)(rnd(3) * 50), (int)rnd(2));
    jsc_sim_capacity(r->sim, UINT64_MAX);
    open_log(r);
    check(r, true);
    /* What is here now is synced, what was deleted and came back is deleted no more. */
    r->acked = jsc_mlog_last(r->log);
    r->kept = 0;
    r->asked = r->gone = jsc_mlog_first(r->log);
}

/* JSC_OK: never full within reason; JSC_EFULL, or how the disk died. */
static int fill(run *r) {
    static const uint64_t choice[] = {0, 8, 100};
    uint64_t ahead = choice[rnd(3)];
    for (int i = 0; i < 3000; i++) {
        int rc = append(r);
        if (rc == JSC_OK && jsc_mlog_last(r->log) > r->acked + ahead) rc = settle(r);
        if (rc != JSC_OK) return rc;
    }
    return JSC_OK;
}

/* Everything below `end`, one way or another. */
static int delete_front(run *r, uint64_t end) {
    uint64_t n, first = jsc_mlog_first(r->log);
    int rc = JSC_OK;
    if (end <= first) return JSC_OK;
    if (end > r->asked) r->asked = end;
    switch (rnd(3)) {
    case 0: return jsc_mlog_purge(r->log, NULL, end, 0, &n);
    case 1: return jsc_mlog_purge(r->log, &(jsc_span){"a", 1}, end, 0, &n);
    default:
        for (uint64_t seq = first; rc == JSC_OK && seq < end; seq++) rc = jsc_mlog_delete(r->log, seq);
        return rc;
    }
}

/* Only the newest stay: what goes for their sake must not go before they are sure to stay. */
static int keep_newest(run *r, uint64_t keep) {
    uint64_t n;
    uint64_t floor = r->acked + 1 > keep ? r->acked + 1 - keep : 0;
    if (floor > r->asked) r->asked = floor;
    if (!r->kept || keep < r->kept) r->kept = keep;
    return jsc_mlog_purge(r->log, NULL, 0, keep, &n);
}

static void one_round(run *r) {
    jsc_message held;
    bool holds = false;
    jsc_sim_capacity(r->sim, r->capacity);
    int rc = fill(r);
    if (r->limits.max_messages && rc == JSC_OK) return; /* they keep it below */
    CHECK(rc == JSC_EFULL && jsc_mlog_error(r->log) == JSC_OK);
    CHECK(append(r) == JSC_EFULL);
    if (rnd(4) == 0) {
        crash(r);
        return;
    }
    uint64_t first = jsc_mlog_first(r->log), span = r->acked > first ? r->acked - first : 0;
    holds = rnd(4) == 0 && jsc_mlog_get(r->log, first, &held) == JSC_OK;
    if (rnd(3) == 0) jsc_sim_die(r->sim, (int)(1 + rnd(60)), EIO);
    bool large = rnd(2), newest = rnd(4) == 0,
         sure = !r->limits.max_messages && !r->kept && !newest && jsc_mlog_last(r->log) - r->acked < 20;
    if (newest) rc = keep_newest(r, 1 + rnd(large ? 150 : span + 1));
    else rc = delete_front(r, first + (large ? span / 2 : rnd(span + 1)));
    CHECK(rc == JSC_OK || rc == JSC_EFAILED || rc == -EIO);
    if (rnd(4) == 0) {
        if (holds) jsc_message_release(r->log, &held);
        crash(r);
        return;
    }
    if (rc == JSC_OK) rc = settle(r);
    if (holds) {
        check_message(&held);
        jsc_message_release(r->log, &held);
        while (rc == JSC_EFULL && large && sure) {
            sched_yield(); /* found within the time after which a full disk is asked again */
            rc = settle(r);
        }
    }
    if (rc != JSC_OK && rc != JSC_EFULL) { /* it died */
        crash(r);
        return;
    }
    /* Half of what was there is enough for what waits; so is a single segment, but there need not be one. */
    CHECK(rc == JSC_OK || !large || !sure);
    if (rc == JSC_OK && large && sure) {
        for (int i = 0; i < 20 && rc == JSC_OK; i++)
            if ((rc = append(r)) == JSC_EFULL) rc = settle(r); /* what is dropped meanwhile is found by waiting */
        if (rc == JSC_OK) rc = settle(r);
        CHECK(rc == JSC_OK || jsc_mlog_error(r->log) != JSC_OK);
    }
    bool dead = jsc_mlog_error(r->log) != JSC_OK;
    if (!dead) jsc_sim_die(r->sim, 0, 0);
    if (dead || rnd(2)) crash(r);
    else check(r, false);
}

static void one_run(uint64_t s) {
    seed = s;
    rnd_state = s * 77 + 5;
    run r = {.sim = jsc_sim_new(s)};
    r.options = (jsc_mlog_options){.segment_bytes = SEGMENT,
                                   .sync_mode = rnd(3) ? JSC_SYNC_ALWAYS : JSC_SYNC_NEVER,
                                   .background = rnd(2),
                                   .compact_bytes_per_s = UINT64_MAX,
                                   .scrub_bytes_per_s = UINT64_MAX};
    r.capacity = CAPACITY + rnd(2) * CAPACITY;
    if (rnd(4) == 0) r.limits.max_messages = 300 + rnd(500);
    r.options.limits = r.limits.max_messages ? &r.limits : NULL;
    round_ = -1;
    open_log(&r);
    OK(settle(&r));
    for (round_ = 0; round_ < 6; round_++) one_round(&r);
    jsc_sim_die(r.sim, 0, 0);
    jsc_sim_capacity(r.sim, UINT64_MAX);
    int rc;
    while ((rc = settle(&r)) == JSC_EFULL) sched_yield();
    if (rc == JSC_OK) OK(jsc_mlog_close(r.log));
    else jsc_mlog_abandon(r.log);
    open_log(&r);
    check(&r, false);
    OK(jsc_mlog_close(r.log));
    jsc_sim_free(r.sim);
}

/* What was appended behind the batch that waits for space was never handed over; nobody asks for it, and it goes. */
static void test_resumes(bool background) {
    seed = 0;
    round_ = 0;
    run r = {.sim = jsc_sim_new(3), .options = {.segment_bytes = SEGMENT, .background = background}};
    uint64_t position;
    open_log(&r);
    OK(append(&r));
    OK(settle(&r));
    jsc_sim_capacity(r.sim, jsc_sim_used(r.sim));
    while (jsc_mlog_last(r.log) < 40) OK(append(&r)); /* into another segment, for which there is no room */
    OK(jsc_mlog_submit(r.log, &position));
    uint64_t last = position;
    while (jsc_mlog_wait(r.log, position, 0) != JSC_EFULL) {
        if (append(&r) == JSC_OK) last = jsc_mlog_position(r.log);
        sched_yield();
    }
    jsc_sim_capacity(r.sim, UINT64_MAX);
    while (jsc_mlog_durable_position(r.log) < last) sched_yield();
    OK(jsc_mlog_close(r.log));
    jsc_sim_free(r.sim);
}

int main(int argc, char **argv) {
    uint64_t from = argc > 1 ? strtoull(argv[1], NULL, 0) : 1, n = argc > 2 ? strtoull(argv[2], NULL, 0) : 30;
    for (int i = 0; i < 2; i++) test_resumes(i);
    for (uint64_t s = from; s < from + n; s++) one_run(s);
    printf("full ok\n");
    return 0;
}
