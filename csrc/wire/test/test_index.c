/* The subject index against the plain rule: what matches is found, whatever came and went before. */
#include "../plane.h"
#include "../../base/test/check.h"

enum { SUBS = 400, STEPS = 60000, TOKENS = 5, DEPTH = 4 };

/* Few tokens, so that subjects share beginnings; wild: with * and > among them. */
static uint32_t subject(char *out, int wild) {
    static const char *const tokens[] = {"a", "b", "ab", "device", "17"};
    uint32_t depth = 1 + (uint32_t)rnd(DEPTH), n = 0;
    for (uint32_t i = 0; i < depth; i++) {
        const char *t = tokens[rnd(TOKENS)];
        if (wild && rnd(4) == 0) t = "*";
        if (wild && i + 1 == depth && rnd(5) == 0) t = ">";
        if (i) out[n++] = '.';
        n += (uint32_t)strlen(strcpy(out + n, t));
    }
    return n;
}

static void compare(jsc_plane *p, jsc_account *a, jsc_sub *const *subs, const char *s, uint32_t n) {
    uint32_t expected = 0;
    CHECK(jsc_index_find(a, s, n) == 0);
    for (int i = 0; i < SUBS; i++)
        expected += subs[i] && jsc_subject_matches(subs[i]->subject, subs[i]->subject_len, s, n);
    CHECK(p->found.n == expected);
    for (uint32_t i = 0; i < p->found.n; i++) {
        const jsc_sub *x = p->found.v[i];
        CHECK(jsc_subject_matches(x->subject, x->subject_len, s, n));
        for (uint32_t j = 0; j < i; j++) CHECK(p->found.v[j] != x);
    }
}

/* The same question answered from the subscriptions one by one. */
static int lone(jsc_sub *const *subs, const char *prefix, uint32_t n) {
    for (int i = 0; i < SUBS; i++) {
        if (!subs[i]) continue;
        const char *s = subs[i]->subject, *end = s + subs[i]->subject_len, *p = prefix, *pe = prefix + n;
        int same = 1;
        while (same && p <= pe && s <= end) {
            const char *sd = memchr(s, '.', (size_t)(end - s)), *se = sd ? sd : end;
            const char *pd = memchr(p, '.', (size_t)(pe - p)), *pp = pd ? pd : pe;
            int any = se - s == 1 && *s == '*';
            same = !(se - s == 1 && *s == '>') && (any || (se - s == pp - p && !memcmp(s, p, (size_t)(pp - p))));
            s = se + 1;
            p = pp + 1;
        }
        if (!same || p <= pe || s > end) continue;
        if (*s != '*' && *s != '>') return 0;
    }
    return 1;
}

int main(void) {
    jsc_plane *p;
    CHECK(jsc_plane_new(NULL, &p) == JSC_OK);
    jsc_account *a = jsc_plane_account(p, "A", 1);
    jsc_sub *subs[SUBS] = {0};
    char s[128];
    for (int step = 0; step < STEPS; step++) {
        int i = (int)rnd(step % 3000 < 1500 ? SUBS : SUBS / 20); /* full and nearly empty in turn */
        if (subs[i]) {
            jsc_index_remove(subs[i]);
            jsc_sub_free(subs[i]);
            subs[i] = NULL;
        } else {
            uint32_t n = subject(s, 1);
            subs[i] = jsc_sub_new(JSC_SUB_CLIENT, a, s, n, NULL, 0, "1", 1);
            CHECK(subs[i] && jsc_index_add(a, subs[i]) == 0);
        }
        if (step % 3000 == 1499)
            for (int k = SUBS / 20; k < SUBS; k++) {
                if (!subs[k]) continue;
                jsc_index_remove(subs[k]);
                jsc_sub_free(subs[k]);
                subs[k] = NULL;
            }
        uint32_t n = subject(s, step % 7 == 0); /* published subjects may hold wildcards, too */
        if (!memchr(s, '>', n)) compare(p, a, subs, s, n);
        n = subject(s, 0);
        CHECK(jsc_index_lone(a, s, n) == lone(subs, s, n));
    }
    for (int i = 0; i < SUBS; i++) {
        if (!subs[i]) continue;
        jsc_index_remove(subs[i]);
        jsc_sub_free(subs[i]);
    }
    CHECK(!a->root || (!a->root->kids_n && !a->root->star)); /* nothing of them is left */
    jsc_plane_free(p);
    puts("index: ok");
    return 0;
}
