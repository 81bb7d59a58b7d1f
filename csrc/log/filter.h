/* A set of subject filters ("orders.*.new", "a.>"), compiled: does a subject match any of them, and where in a sorted
 * list of subjects could the next match be. Subjects are bytes; tokens are what stands between dots, also when that is
 * nothing ("a." has two), but the empty subject has none; `*` is one token, `>` at the end one or more, both only as a
 * whole token. No wildcard has a meaning inside a subject. Pure: no files, no locks; a filter does not change, so any
 * number of threads may use one. */
#ifndef JSC_FILTER_H
#define JSC_FILTER_H
#include "../base/jsc_base.h"

#include <stdbool.h>

typedef struct jsc_span {
    const char *p;
    size_t n;
} jsc_span;

typedef struct jsc_filter jsc_filter;

/* Copies the texts. n == 0: everything matches, the empty subject too (with ">" alone it does not). JSC_EINVAL: an
 * empty token, `>` not at the end, a text above 65535 bytes; more than 65536 filters. */
int jsc_filter_new(const jsc_span *texts, size_t n, jsc_filter **out);
void jsc_filter_free(jsc_filter *);
bool jsc_filter_match(const jsc_filter *, const char *subject, size_t n);
bool jsc_filter_all(const jsc_filter *); /* n was 0 */
/* The filter is exactly one subject without wildcards: its text. */
bool jsc_filter_literal(const jsc_filter *, jsc_span *out);

/* Calls each(ctx, i) in ascending order for every matching entry of a strictly ascending (memcmp, then length) list of
 * `count` subjects; text(list, i) gives entry i. Skips over ranges that cannot match by binary search, so the cost
 * follows the matches and the distinct token prefixes that a `*` has to try, not `count`. Stops early, returning its
 * result, when each() returns other than 0. -ENOMEM only with more than 15 wildcard filters. A list that is not in order
 * (a damaged one) gives wrong matches, but ends. */
int jsc_filter_scan(const jsc_filter *, const void *list, uint32_t count,
                    jsc_span (*text)(const void *list, uint32_t i), int (*each)(void *ctx, uint32_t i), void *ctx);
#endif
