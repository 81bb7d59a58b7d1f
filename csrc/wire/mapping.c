/* Subject mappings of an account: what a client publishes on a source goes to one of its destinations, chosen by their
 * shares. Sources stand in chains by their first token, each chain in the order of the configuration; an account without
 * mappings has no table, and its publishers test one pointer. */
#include "plane.h"
#include <errno.h>

enum { HEADS = 32 }; /* and one more for sources that begin with a wildcard */

typedef struct destination {
    uint32_t below;            /* of 100: it is taken for throws below this, and not below the one before */
    jsc_transform *transform;  /* NULL: nowhere */
} destination;

typedef struct source {
    const char *text;
    uint32_t len, next, first, n; /* next: index + 1 */
    uint8_t wild;
} source;

struct jsc_mappings {
    source *sources;
    destination *destinations;
    uint32_t sources_n, destinations_n;
    uint32_t heads[HEADS + 1]; /* index + 1 */
    jsc_buf out;
    char text[];
};

void jsc_mappings_free(jsc_mappings *m) {
    if (!m) return;
    for (uint32_t i = 0; i < m->destinations_n; i++) jsc_transform_free(m->destinations[i].transform);
    free(m->destinations);
    free(m->sources);
    free(m->out.p);
    free(m);
}

static uint32_t head_of(const char *s, uint32_t n) {
    const char *dot = memchr(s, '.', n);
    return (uint32_t)jsc_hash(s, dot ? (size_t)(dot - s) : n) % HEADS;
}

static void chain(jsc_mappings *m, uint32_t i) {
    const source *s = &m->sources[i];
    int any = (*s->text == '*' || *s->text == '>') && (s->len == 1 || s->text[1] == '.');
    uint32_t *at = &m->heads[any ? HEADS : head_of(s->text, s->len)];
    while (*at) at = &m->sources[*at - 1].next;
    *at = i + 1;
}

static int add(jsc_mappings *m, const jsc_mapping *x, int follows, char *text) {
    if (!follows) {
        m->sources[m->sources_n] = (source){.text = memcpy(text, x->source, x->source_len),
                                            .len = x->source_len,
                                            .first = m->destinations_n,
                                            .wild = (uint8_t)jsc_index_has_wildcard(x->source, x->source_len)};
        chain(m, m->sources_n++);
    }
    source *s = &m->sources[m->sources_n - 1];
    destination *d = &m->destinations[m->destinations_n];
    uint32_t before = s->n ? d[-1].below : 0;
    if (x->percent > 100 - before) return JSC_EINVAL;
    *d = (destination){.below = before + x->percent};
    if (x->destination_len) {
        int rc = jsc_transform_new(x->source, x->source_len, x->destination, x->destination_len, &d->transform);
        if (rc) return rc;
    }
    m->destinations_n++;
    s->n++;
    return JSC_OK;
}

int jsc_account_map(jsc_account *a, const jsc_mapping *v, int n) {
    jsc_mappings *m = NULL;
    if (n > 0) {
        size_t bytes = 1;
        for (int i = 0; i < n; i++) {
            if (!jsc_subject_valid(v[i].source, v[i].source_len, 0)) return JSC_EINVAL;
            bytes += v[i].source_len;
        }
        if (!(m = calloc(1, sizeof *m + bytes))) return -ENOMEM;
        m->sources = calloc((size_t)n, sizeof *m->sources);
        m->destinations = calloc((size_t)n, sizeof *m->destinations);
        int rc = m->sources && m->destinations ? JSC_OK : -ENOMEM;
        char *text = m->text;
        for (int i = 0; i < n && !rc; i++) {
            int follows =
                i && v[i].source_len == v[i - 1].source_len && !memcmp(v[i].source, v[i - 1].source, v[i].source_len);
            rc = add(m, &v[i], follows, text);
            if (!follows) text += v[i].source_len;
        }
        if (rc) {
            jsc_mappings_free(m);
            return rc;
        }
    }
    jsc_mappings_free(a->mappings);
    a->mappings = m;
    return JSC_OK;
}

/* A `>` that was published stands for no single token. */
static int matches(const source *s, const char *subject, uint32_t n) {
    if (!s->wild) return s->len == n && !memcmp(s->text, subject, n);
    if (!jsc_subject_matches(s->text, s->len, subject, n)) return 0;
    return subject[n - 1] != '>' || (n > 1 && subject[n - 2] != '.') || s->text[s->len - 1] == '>';
}

/* The first source in the configuration's order; UINT32_MAX: none. */
static uint32_t find(const jsc_mappings *m, const char *s, uint32_t n) {
    uint32_t heads[2] = {m->heads[head_of(s, n)], m->heads[HEADS]}, best = UINT32_MAX;
    for (int k = 0; k < 2; k++)
        for (uint32_t i = heads[k]; i && i - 1 < best; i = m->sources[i - 1].next)
            if (matches(&m->sources[i - 1], s, n)) best = i - 1;
    return best;
}

int jsc_map(jsc_account *a, jsc_msg *msg) {
    jsc_mappings *m = a->mappings;
    if (!jsc_subject_routable(msg->subject, msg->subject_len)) return 0;
    uint32_t at = find(m, msg->subject, msg->subject_len);
    if (at == UINT32_MAX) return 0;
    const source *s = &m->sources[at];
    const destination *d = &m->destinations[s->first], *end = d + s->n;
    if (d->below < 100) {
        uint32_t throw = (uint32_t)jsc_chance(a->plane, 100);
        while (d < end && throw >= d->below) d++;
        if (d == end) return 0; /* the share that stays */
    }
    if (!d->transform) {
        msg->subject_len = 0;
        return 1;
    }
    int rc =
        jsc_transform_apply(d->transform, jsc_chance(a->plane, UINT32_MAX), msg->subject, msg->subject_len, &m->out);
    if (rc) return rc;
    msg->subject = m->out.p;
    msg->subject_len = (uint32_t)m->out.len;
    return 1;
}
