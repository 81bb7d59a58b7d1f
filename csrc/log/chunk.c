/* The tail of a log in memory: a list of chunks, reused in a ring. All calls are the owner's. */
#include "log_internal.h"

static void lru_remove(jsc_log *log) {
    jsc_store *s = log->store;
    if (!log->in_lru) return;
    if (log->lru_prev) log->lru_prev->lru_next = log->lru_next;
    else s->lru_newest = log->lru_next;
    if (log->lru_next) log->lru_next->lru_prev = log->lru_prev;
    else s->lru_oldest = log->lru_prev;
    log->lru_next = log->lru_prev = NULL;
    log->in_lru = false;
}

static void lru_add(jsc_log *log) {
    jsc_store *s = log->store;
    if (log->in_lru) return;
    log->lru_next = s->lru_newest;
    if (s->lru_newest) s->lru_newest->lru_prev = log;
    else s->lru_oldest = log;
    s->lru_newest = log;
    log->in_lru = true;
}

void jsc_chunks_touch(jsc_log *log) {
    log->touched = log->store->polls;
    if (!log->in_lru || log->store->lru_newest == log) return;
    lru_remove(log);
    lru_add(log);
}

static void give_back(jsc_store *s, jsc_chunk *c) {
    if (c->cap == JSC_SMALL_CHUNK && s->nspare_small < JSC_SPARE_CHUNKS) {
        c->next = s->spare_small;
        s->spare_small = c;
        s->nspare_small++;
    } else if (c->cap == JSC_LARGE_CHUNK && s->nspare_large < JSC_SPARE_CHUNKS) {
        c->next = s->spare_large;
        s->spare_large = c;
        s->nspare_large++;
    } else {
        free(c);
    }
}

jsc_chunk *jsc_chunk_take(jsc_log *log, jsc_segment *segment, size_t need) {
    jsc_store *s = log->store;
    jsc_chunks_recycle(log, JSC_RING_CHUNKS);
    size_t cap = !log->head && need <= JSC_SMALL_CHUNK ? JSC_SMALL_CHUNK : JSC_LARGE_CHUNK;
    if (need > cap) cap = (need + 4095) & ~(size_t)4095;
    jsc_chunk *c = NULL;
    if (cap == JSC_SMALL_CHUNK && s->spare_small) {
        c = s->spare_small;
        s->spare_small = c->next;
        s->nspare_small--;
    } else if (cap == JSC_LARGE_CHUNK && s->spare_large) {
        c = s->spare_large;
        s->spare_large = c->next;
        s->nspare_large--;
    } else {
        c = aligned_alloc(64, (sizeof *c + cap + 63) & ~(size_t)63);
        if (!c) return NULL;
    }
    *c =
        (jsc_chunk){.segment = segment, .offset = segment->used, .position = segment->base + segment->used, .cap = cap};
    if (log->tail) log->tail->next = c;
    else log->head = c;
    log->tail = c;
    if (!log->submitted) {
        log->submitted = c;
        log->submitted_used = 0;
    }
    lru_add(log);
    return c;
}

void jsc_chunks_recycle(jsc_log *log, int keep) {
    uint64_t written = atomic_load_explicit(&log->written, memory_order_acquire);
    int free_able = 0;
    for (jsc_chunk *c = log->head; c && c != log->submitted && jsc_chunk_position(c) + c->used <= written; c = c->next)
        free_able++;
    jsc_chunks_forget(log);
    for (; free_able > keep; free_able--) {
        jsc_chunk *c = log->head;
        log->head = c->next;
        give_back(log->store, c);
    }
    /* Nothing pending at all: the last chunk goes too. */
    jsc_chunk *last = log->head;
    if (keep == 0 && last && last == log->tail && last == log->submitted && log->submitted_used == last->used &&
        jsc_chunk_position(last) + last->used <= written) {
        log->head = log->tail = log->submitted = NULL;
        give_back(log->store, last);
        lru_remove(log);
    }
}

void jsc_chunks_drop(jsc_log *log) {
    while (log->head) {
        jsc_chunk *c = log->head;
        log->head = c->next;
        give_back(log->store, c);
    }
    log->tail = log->submitted = NULL;
    jsc_chunks_forget(log);
    lru_remove(log);
}

void jsc_chunks_free_spare(jsc_store *s) {
    while (s->spare_small) {
        jsc_chunk *c = s->spare_small;
        s->spare_small = c->next;
        free(c);
    }
    while (s->spare_large) {
        jsc_chunk *c = s->spare_large;
        s->spare_large = c->next;
        free(c);
    }
}

bool jsc_chunk_find(jsc_log *log, uint64_t position, const uint8_t **bytes, size_t *n) {
    jsc_chunk *c = log->hint && jsc_chunk_position(log->hint) <= position ? log->hint : log->head;
    while (c && position >= jsc_chunk_position(c) + c->used) c = c->next;
    if (!c || position < jsc_chunk_position(c)) return false;
    log->hint = c;
    size_t at = (size_t)(position - jsc_chunk_position(c));
    *bytes = c->bytes + at;
    *n = c->used - at;
    return true;
}
