/* Sources, destinations and subjects of a hostile configuration and client: three texts parted by LF. */
#include "../plane.h"
#include "../../base/fuzz/driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *s = (const char *)data, *end = s + n;
    const char *destination = memchr(s, '\n', n), *subject;
    if (n > 8192 || !destination++ || !(subject = memchr(destination, '\n', (size_t)(end - destination)))) return 0;
    subject++;
    size_t sn = (size_t)(destination - s) - 1, dn = (size_t)(subject - destination) - 1, un = (size_t)(end - subject);
    jsc_transform *t;
    jsc_buf out = {0};
    if (!jsc_transform_new(s, sn, destination, dn, &t)) {
        /* Whatever the subject: the caller asks only for those that the source matches, and must get away with others. */
        if (!jsc_transform_apply(t, 7, subject, (uint32_t)un, &out) && out.len > out.cap) abort();
        jsc_transform_free(t);
        free(out.p);
    }
    jsc_plane *p;
    if (jsc_plane_new(NULL, &p)) return 0;
    jsc_mapping v[] = {{s, destination, (uint32_t)sn, (uint32_t)dn, 60}, {s, destination, (uint32_t)sn, 0, 40}};
    if (!jsc_account_map(p->default_account, v, 2)) {
        for (int i = 0; i < 3; i++) {
            jsc_msg m = {.subject = subject, .subject_len = (uint32_t)un};
            if (jsc_map(p->default_account, &m) < 0 && jsc_subject_matches(s, sn, subject, un)) abort();
        }
    }
    jsc_plane_free(p);
    return 0;
}

static void jsc_fuzz_plan_fill(jsc_fuzz_plan *p) {
    static const char *const seeds[] = {
        "a.*.*\nb.$2.{{wildcard(1)}}\na.x.y",
        "a.*.*\n{{partition(10,1,2)}}.{{partition(3)}}.{{random(9)}}\na.x.y",
        "a.*.>\n{{split(1,-)}}.x.>\na.x-y--z.b.c",
        "a.*\n{{splitfromleft(1,3)}}.{{SplitFromRight(1,2)}}.{{slicefromleft(1,1)}}.{{SliceFromRight(1,3)}}\na."
        "abcdefgh",
        ">\nall.>\na.b",
    };
    p->likes = "*>.$1290{}(),-\n";
    p->nlikes = strlen(p->likes);
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) jsc_fuzz_add(p, "", seeds[i], strlen(seeds[i]));
}
