/* A subject made from another one: the destination of a mapping, compiled. Its tokens are text, or functions of the
 * tokens that the source's wildcards matched. Source: security.md 4.5. */
#include "plane.h"
#include <errno.h>
#include <strings.h>

enum { TEXT, REST, WILDCARD, PARTITION, RANDOM, SPLIT, SPLIT_LEFT, SPLIT_RIGHT, SLICE_LEFT, SLICE_RIGHT };

static const struct function {
    const char *name;
    uint8_t kind, places, numbers; /* places 255: any number of them */
} functions[] = {
    {"wildcard", WILDCARD, 1, 0},
    {"partition", PARTITION, 255, 1},
    {"random", RANDOM, 0, 1},
    {"split", SPLIT, 1, 0},
    {"splitfromleft", SPLIT_LEFT, 1, 1},
    {"splitfromright", SPLIT_RIGHT, 1, 1},
    {"slicefromleft", SLICE_LEFT, 1, 1},
    {"slicefromright", SLICE_RIGHT, 1, 1},
};

typedef struct part { /* of the destination; a dot stands between two */
    uint8_t kind;
    int32_t number;
    uint32_t first, n;    /* its places in `places` */
    const char *text;     /* TEXT; SPLIT: where to cut */
    uint32_t text_len;
} part;

struct jsc_transform {
    part *parts;
    uint32_t n, places_n, deepest; /* deepest: tokens of the subject that are looked at, from the first */
    uint32_t rest;                 /* tokens before the source's `>` */
    uint32_t *places;              /* of tokens in the subject, from 0 */
    jsc_token *tokens;             /* work space: the subject's first ones */
    char text[];
};

void jsc_transform_free(jsc_transform *t) {
    if (!t) return;
    free(t->parts);
    free(t->places);
    free(t->tokens);
    free(t);
}

/* ---- compiling ---- */
static const char *token_end(const char *s, const char *end) {
    const char *dot = memchr(s, '.', (size_t)(end - s));
    return dot ? dot : end;
}

/* Where the w-th wildcard of the source is. Below 1 it is the first token: so does the peer. UINT32_MAX: no such one. */
static uint32_t place_of(const char *s, const char *end, int64_t w) {
    if (w < 1) return 0;
    for (uint32_t i = 0;; i++) {
        const char *te = token_end(s, end);
        if (te - s == 1 && *s == '*' && --w == 0) return i;
        if (te == end) return UINT32_MAX;
        s = te + 1;
    }
}

static int is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static int number_of(const char *s, const char *end, int64_t *out) {
    int64_t v = 0, sign = 1;
    while (s < end && is_space(*s)) s++;
    while (end > s && is_space(end[-1])) end--;
    if (s < end && (*s == '-' || *s == '+')) sign = *s++ == '-' ? -1 : 1;
    if (s == end || end - s > 10) return -1;
    for (; s < end; s++) {
        if (*s < '0' || *s > '9') return -1;
        v = v * 10 + (*s - '0');
    }
    v *= sign;
    if (v < INT32_MIN || v > INT32_MAX) return -1;
    *out = v;
    return 0;
}

static int add_place(jsc_transform *t, part *p, const char *source, const char *source_end, int64_t w) {
    uint32_t at = place_of(source, source_end, w);
    uint32_t *v = at == UINT32_MAX ? NULL : realloc(t->places, (t->places_n + 1) * sizeof *v);
    if (!v) return at == UINT32_MAX ? JSC_EINVAL : -ENOMEM;
    t->places = v;
    v[t->places_n++] = at;
    p->n++;
    if (at >= t->deepest) t->deepest = at + 1;
    return JSC_OK;
}

/* The arguments of f: number and places in the order that the function has them. */
static int arguments(jsc_transform *t, part *p, const struct function *f, const char *s, const char *end,
                     const char *source, const char *source_end) {
    uint32_t i = 0, places = 0, numbers = 0;
    while (s < end && is_space(*s)) s++;
    while (end > s && is_space(end[-1])) end--;
    for (int more = 1; more; i++) {
        const char *comma = memchr(s, ',', (size_t)(end - s)), *ae = comma ? comma : end;
        int64_t v;
        if (f->kind == SPLIT && i == 1) {
            p->text = s;
            p->text_len = (uint32_t)(ae - s);
        } else if (number_of(s, ae, &v)) {
            return JSC_EINVAL;
        } else if (f->numbers && (f->places == 1 ? i == 1 : i == 0)) {
            p->number = (int32_t)v;
            numbers++;
        } else {
            int rc = add_place(t, p, source, source_end, v);
            if (rc) return rc;
            places++;
        }
        more = comma != NULL;
        if (comma)
            for (s = comma + 1; s < end && is_space(*s);) s++;
    }
    return numbers != f->numbers || (f->places != 255 && places != f->places) || (f->kind == SPLIT ? i != 2 : 0)
               ? JSC_EINVAL
               : JSC_OK;
}

/* "{{ name(arguments) }}" */
static int function(jsc_transform *t, part *p, const char *s, const char *end, const char *source,
                    const char *source_end) {
    s += 2;
    end -= 2;
    while (s < end && is_space(*s)) s++;
    while (end > s && is_space(end[-1])) end--;
    const char *open = memchr(s, '(', (size_t)(end - s)), *name_end = open;
    if (!open || end[-1] != ')') return JSC_EINVAL;
    while (name_end > s && is_space(name_end[-1])) name_end--;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        const struct function *f = &functions[i];
        if (strlen(f->name) != (size_t)(name_end - s) || strncasecmp(f->name, s, (size_t)(name_end - s))) continue;
        p->kind = f->kind;
        return arguments(t, p, f, open + 1, end - 1, source, source_end);
    }
    return JSC_EINVAL;
}

static int compile(jsc_transform *t, const char *source, const char *source_end, const char *s, const char *end) {
    int rest = source_end - source >= 1 && source_end[-1] == '>' && (source_end - source == 1 || source_end[-2] == '.');
    for (const char *x = source; x < source_end; x++) t->rest += *x == '.';
    for (uint32_t cap = 0;;) {
        const char *te = token_end(s, end);
        size_t n = (size_t)(te - s);
        if (!n) return JSC_EINVAL;
        if (t->n == cap) {
            part *v = realloc(t->parts, (cap = cap ? cap * 2 : 4) * sizeof *v);
            if (!v) return -ENOMEM;
            t->parts = v;
        }
        part *p = &t->parts[t->n], *before = t->n ? p - 1 : NULL;
        *p = (part){.kind = TEXT, .first = t->places_n, .text = s, .text_len = (uint32_t)n};
        int64_t w;
        int rc = JSC_OK;
        if (n == 1 && *s == '>') {
            if (te != end || !rest) return JSC_EINVAL;
            p->kind = REST;
        } else if (n == 1 && *s == '*') {
            return JSC_EINVAL;
        } else if (*s == '$' && n > 1 && s[1] >= '0' && s[1] <= '9' && !number_of(s + 1, te, &w)) {
            p->kind = WILDCARD;
            rc = add_place(t, p, source, source_end, w);
        } else if (n > 4 && s[0] == '{' && s[1] == '{' && te[-1] == '}' && te[-2] == '}') {
            rc = function(t, p, s, te, source, source_end);
        } else if (before && before->kind == TEXT) { /* one piece with the text before it */
            before->text_len += (uint32_t)n + 1;
            t->n--;
        }
        if (rc) return rc;
        t->n++;
        if (te == end) break;
        s = te + 1;
    }
    if (rest != (t->parts[t->n - 1].kind == REST)) return JSC_EINVAL;
    if (rest && t->rest > t->deepest) t->deepest = t->rest;
    return t->deepest && !(t->tokens = malloc(t->deepest * sizeof *t->tokens)) ? -ENOMEM : JSC_OK;
}

int jsc_transform_new(const char *source, size_t sn, const char *dest, size_t dn, jsc_transform **out) {
    if (!jsc_subject_valid(source, sn, 0) || !dn) return JSC_EINVAL;
    jsc_transform *t = calloc(1, sizeof *t + dn);
    if (!t) return -ENOMEM;
    memcpy(t->text, dest, dn);
    int rc = compile(t, source, source + sn, t->text, t->text + dn);
    if (rc) jsc_transform_free(t);
    else *out = t;
    return rc;
}

/* ---- applying ---- */
static char *pieces(char *q, const char *s, uint32_t n, uint32_t first, uint32_t each) {
    q = jsc_copy(q, s, first);
    for (uint32_t at = first; at < n;) {
        uint32_t k = n - at < each ? n - at : each;
        *q++ = '.';
        q = jsc_copy(q, s + at, k);
        at += k;
    }
    return q;
}

/* The pieces of s that are not empty between the places where `by` stands; '' cuts between any two characters. */
static char *split(char *q, const char *s, uint32_t n, const char *by, uint32_t bn) {
    const char *end = s + n, *start = q;
    while (s < end) {
        const char *cut = bn ? memmem(s, (size_t)(end - s), by, bn) : NULL;
        uint32_t code,
            k = bn ? (uint32_t)((cut ? cut : end) - s) : jsc_utf8((const uint8_t *)s, (size_t)(end - s), &code);
        if (!bn && !k) k = 1;
        if (k) {
            if (q > start) *q++ = '.';
            q = jsc_copy(q, s, k);
        }
        s += k + (cut ? bn : 0);
    }
    return q;
}

static char *put(char *q, const jsc_transform *t, const part *p, uint64_t random, const char *subject, uint32_t n) {
    const jsc_token *x = p->n ? &t->tokens[t->places[p->first]] : NULL;
    uint32_t k = p->number > 0 ? (uint32_t)p->number : 0, h;
    switch (p->kind) {
    case TEXT: return jsc_copy(q, p->text, p->text_len);
    case REST: {
        const char *from = t->rest ? t->tokens[t->rest - 1].p + t->tokens[t->rest - 1].n + 1 : subject;
        return jsc_copy(q, from, (size_t)(subject + n - from));
    }
    case PARTITION:
        h = JSC_POOL_SEED;
        if (!p->n) h = jsc_pool_more(h, subject, n);
        for (uint32_t i = 0; i < p->n; i++) {
            x = &t->tokens[t->places[p->first + i]];
            h = jsc_pool_more(h, x->p, x->n);
        }
        return jsc_put_number(q, p->number ? h % (uint32_t)p->number : 0);
    case RANDOM: return jsc_put_number(q, k ? random % k : 0);
    case SPLIT: return split(q, x->p, x->n, p->text, p->text_len);
    case SPLIT_LEFT: return pieces(q, x->p, x->n, k && k < x->n ? k : x->n, x->n);
    case SPLIT_RIGHT: return pieces(q, x->p, x->n, k && k < x->n ? x->n - k : x->n, x->n);
    case SLICE_LEFT: return pieces(q, x->p, x->n, k && k < x->n ? k : x->n, k);
    case SLICE_RIGHT: return pieces(q, x->p, x->n, k && k < x->n ? (x->n % k ? x->n % k : k) : x->n, k);
    default: return jsc_copy(q, x->p, x->n);
    }
}

int jsc_transform_apply(const jsc_transform *t, uint64_t random, const char *s, uint32_t n, jsc_buf *out) {
    const char *at = s, *end = s + n;
    for (uint32_t i = 0; i < t->deepest; i++) {
        if (at > end) return JSC_EINVAL; /* shorter than the source: it did not match */
        const char *te = token_end(at, end);
        t->tokens[i] = (jsc_token){at, (uint32_t)(te - at)};
        at = te + 1;
    }
    if (t->parts[t->n - 1].kind == REST && at > end) return JSC_EINVAL;
    out->len = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        size_t need = out->len + t->parts[i].text_len + 2 * (size_t)n + 24; /* a dot after each byte, at most */
        if (need > out->cap) {
            char *v = realloc(out->p, need * 2);
            if (!v) return -ENOMEM;
            out->p = v;
            out->cap = need * 2;
        }
        char *q = out->p + out->len;
        if (i) *q++ = '.';
        out->len = (size_t)(put(q, t, &t->parts[i], random, s, n) - out->p);
    }
    return JSC_OK;
}
