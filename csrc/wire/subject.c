/* The rules of subjects: validity, match, overlap. */
#include "plane.h"

static int is_wild(const char *p, size_t n) { return n == 1 && (*p == '*' || *p == '>'); }

int jsc_subject_valid(const char *s, size_t n, int literal) {
    const char *p = s, *end = s + n;
    if (!n) return 0;
    for (;;) {
        const char *dot = memchr(p, '.', (size_t)(end - p)), *te = dot ? dot : end;
        if (te == p) return 0;
        if (is_wild(p, (size_t)(te - p)) && (literal || (*p == '>' && dot))) return 0;
        for (; p < te; p++)
            if (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n') return 0;
        if (!dot) return 1;
        p = dot + 1;
    }
}

int jsc_index_has_wildcard(const char *s, size_t n) {
    const char *p = s, *end = s + n;
    for (;;) {
        const char *dot = memchr(p, '.', (size_t)(end - p)), *te = dot ? dot : end;
        if (is_wild(p, (size_t)(te - p))) return 1;
        if (!dot) return 0;
        p = dot + 1;
    }
}

int jsc_subject_matches(const char *a, size_t an, const char *b, size_t bn) {
    const char *ae = a + an, *be = b + bn;
    for (;;) {
        const char *ad = memchr(a, '.', (size_t)(ae - a)), *bd = memchr(b, '.', (size_t)(be - b));
        size_t al = (size_t)((ad ? ad : ae) - a), bl = (size_t)((bd ? bd : be) - b);
        if (al == 1 && *a == '>' && !ad) return 1;
        if (!(al == 1 && *a == '*') && (al != bl || memcmp(a, b, al))) return 0;
        if (!ad || !bd) return !ad && !bd;
        a = ad + 1;
        b = bd + 1;
    }
}

int jsc_subject_overlap(const char *a, size_t an, const char *b, size_t bn) {
    const char *ae = a + an, *be = b + bn;
    for (;;) {
        const char *ad = memchr(a, '.', (size_t)(ae - a)), *bd = memchr(b, '.', (size_t)(be - b));
        size_t al = (size_t)((ad ? ad : ae) - a), bl = (size_t)((bd ? bd : be) - b);
        if ((al == 1 && *a == '>' && !ad) || (bl == 1 && *b == '>' && !bd)) return 1;
        if (!(al == 1 && *a == '*') && !(bl == 1 && *b == '*') && (al != bl || memcmp(a, b, al))) return 0;
        if (!ad || !bd) return !ad && !bd;
        a = ad + 1;
        b = bd + 1;
    }
}

char *jsc_put_number(char *p, uint64_t v) {
    char t[20];
    int n = 0;
    do t[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n) *p++ = t[--n];
    return p;
}
