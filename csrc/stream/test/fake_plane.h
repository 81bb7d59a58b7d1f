/* A plane without sockets for the stream tests: subscriptions, an inbox of what was published, a clock the test sets. */
#ifndef JSC_FAKE_PLANE_H
#define JSC_FAKE_PLANE_H
#include "../jsc_stream.h"

typedef struct fake_got {
    char *subject, *reply, *headers, *data, *deliver; /* zero-terminated copies */
} fake_got;
jsc_plane *fake_plane_new(void);
void fake_clock(jsc_plane *, int64_t mono, int64_t unix_ns);
void fake_store(jsc_plane *); /* the eventfd callback */
int64_t fake_turn(jsc_plane *); /* the hook; returns its deadline */
void fake_listen(jsc_plane *, const char *subject); /* a client's subscription: what it gets lands in the inbox */
void fake_deaf(jsc_plane *, const char *subject);
int fake_inbox(jsc_plane *, const fake_got **out); /* count so far */
void fake_clear(jsc_plane *);
int fake_event(jsc_plane *, int type, uint64_t *a, uint64_t *b); /* takes the oldest of this type */
void fake_pub(jsc_plane *, const char *subject, const char *reply, const char *headers, const char *data);
#endif
