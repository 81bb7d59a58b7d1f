/* What an account may store: counted by the server that leads a stream, for all of its replicas, and asked before a
 * publish is framed. What is applied is never refused: replicas may know other bounds. */
#include "internal.h"
#include <errno.h>

static int64_t bytes_held(const jsc_stream *s) {
    return (int64_t)(s->bytes * (s->limits.replicas ? s->limits.replicas : 1));
}

jsc_usage *jsc_usage_of(jsc_streams *t, jsc_account *account) {
    jsc_usage *u = t->usages;
    while (u && u->account != account) u = u->next;
    if (u) return u;
    u = calloc(1, sizeof *u);
    if (!u) return NULL;
    u->account = account;
    u->most[0] = u->most[1] = -1;
    u->next = t->usages;
    t->usages = u;
    return u;
}

int jsc_streams_quota(jsc_streams *t, jsc_account *account, const jsc_quota *q) {
    jsc_usage *u = jsc_usage_of(t, account);
    if (!u) return -ENOMEM;
    u->most[0] = q->memory;
    u->most[1] = q->storage;
    u->elsewhere[0] = q->elsewhere_memory;
    u->elsewhere[1] = q->elsewhere_storage;
    return JSC_OK;
}

void jsc_streams_used(jsc_streams *t, jsc_account *account, int64_t *memory, int64_t *storage) {
    jsc_usage *u = jsc_usage_of(t, account);
    *memory = u ? u->led[0] : 0;
    *storage = u ? u->led[1] : 0;
}

void jsc_streams_held(jsc_streams *t, int64_t *memory, int64_t *storage) {
    int64_t held[2] = {0};
    for (const jsc_stream *s = t->all; s; s = s->next) held[s->limits.file_storage != 0] += (int64_t)s->bytes;
    *memory = held[0];
    *storage = held[1];
}

void jsc_usage_count(jsc_stream *s, int sign) {
    if (s->leading) s->usage->led[s->limits.file_storage != 0] += sign * bytes_held(s);
}

/* How many bytes of the stream go when it stores `size` more: its own limits make room first. */
static uint64_t bytes_replaced(const jsc_stream *s, const jsc_msg *m, uint64_t size) {
    const jsc_stream_limits *l = &s->limits;
    uint64_t gone = 0;
    if (l->max_msgs_per_subject > 0) {
        uint32_t id = jsc_subjects_find(&s->subjects, m->subject, m->subject_len);
        if (id != JSC_NO_SUBJECT && s->subjects.a[id].count >= (uint64_t)l->max_msgs_per_subject)
            gone = jsc_seqs_at(&s->seqs, s->subjects.a[id].first)->size;
    }
    if (gone || l->discard_new || !s->messages) return gone;
    if (l->max_msgs > 0 && s->messages >= (uint64_t)l->max_msgs) gone = jsc_seqs_at(&s->seqs, s->first_seq)->size;
    if (l->max_bytes > 0 && s->bytes - gone + size > (uint64_t)l->max_bytes) gone = size;
    return gone;
}

int jsc_usage_full(jsc_stream *s, const jsc_msg *m, uint64_t size) {
    jsc_usage *u = s->usage;
    int kind = s->limits.file_storage != 0;
    if (u->most[kind] < 0) return 0;
    uint64_t replicas = s->limits.replicas ? s->limits.replicas : 1, gone = bytes_replaced(s, m, size);
    uint64_t more = (s->backlog_bytes + (size > gone ? size - gone : 0)) * replicas;
    int64_t used = u->led[kind] + u->elsewhere[kind];
    int full = more && (used > u->most[kind] || more > (uint64_t)(u->most[kind] - used));
    if (full && !u->said[kind]) {
        jsc_event e = {.type = JSC_EV_QUOTA, .a = s->owner.id, .b = (uint64_t)kind};
        jsc_plane_emit(s->all->plane, &e);
    }
    u->said[kind] = (uint8_t)full;
    return full;
}
