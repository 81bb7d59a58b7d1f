/* The tables of permissions: lists, queues, verdicts that are remembered, leave to answer. */
#include "../plane.h"
#include <assert.h>

#define SECOND 1000000000LL

static jsc_permission rule(int list, const char *subject, const char *queue) {
    return (jsc_permission){(uint8_t)list, subject, queue, (uint32_t)strlen(subject),
                            queue ? (uint32_t)strlen(queue) : 0};
}

static jsc_permissions *made(const jsc_permission *v, int n, jsc_permissions_options o) {
    jsc_permissions *p;
    assert(!jsc_permissions_new(v, n, &o, &p));
    return p;
}

static int publishes(jsc_conn *c, const char *s) { return jsc_may_publish(c, s, (uint32_t)strlen(s)); }

static int subscribes(const jsc_permissions *p, const char *s, const char *q) {
    return jsc_may_subscribe(p, s, (uint32_t)strlen(s), q, q ? (uint32_t)strlen(q) : 0);
}

static void test_what_is_no_subject_is_refused(void) {
    jsc_permission bad[] = {rule(JSC_PUBLISH_ALLOW, "a..b", NULL), rule(JSC_PUBLISH_DENY, "a", "q"),
                            rule(JSC_SUBSCRIBE_DENY, "", NULL), rule(JSC_SUBSCRIBE_ALLOW, "a", ">.b"),
                            rule(4, "a", NULL)};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        jsc_permissions *p = NULL;
        assert(jsc_permissions_new(&bad[i], 1, NULL, &p) == JSC_EINVAL && !p);
    }
}

static void test_queues(void) {
    jsc_permission v[] = {rule(JSC_SUBSCRIBE_ALLOW, "foo", NULL),   rule(JSC_SUBSCRIBE_ALLOW, "foo", "v1"),
                          rule(JSC_SUBSCRIBE_ALLOW, "foo", "v2.*"), rule(JSC_SUBSCRIBE_ALLOW, "bar", "q"),
                          rule(JSC_SUBSCRIBE_ALLOW, "baz.*", NULL), rule(JSC_SUBSCRIBE_DENY, "baz.x", NULL),
                          rule(JSC_SUBSCRIBE_DENY, "baz.y", "q")};
    jsc_permissions *p = made(v, 7, (jsc_permissions_options){0});
    assert(subscribes(p, "foo", NULL) && subscribes(p, "foo", "v1") && subscribes(p, "foo", "v2.x"));
    assert(!subscribes(p, "foo", "v2") && !subscribes(p, "foo", "other"));
    assert(subscribes(p, "bar", "q") && !subscribes(p, "bar", NULL) && !subscribes(p, "bar", "r"));
    assert(subscribes(p, "baz.z", NULL) == 1 && !subscribes(p, "baz.x", NULL) && !subscribes(p, "baz.x", "q"));
    assert(subscribes(p, "baz.y", NULL) == 1 && !subscribes(p, "baz.y", "q") && subscribes(p, "baz.y", "r") == 1);
    assert(subscribes(p, "baz.*", NULL) == JSC_MAY_PARTLY && subscribes(p, "baz.>", "q") == JSC_MAY_PARTLY);
    assert(!subscribes(p, ">", NULL) && !subscribes(p, "*", NULL) && !subscribes(p, "baz..x", NULL));

    jsc_conn c = {.permissions = p, .verdict_hint = UINT32_MAX};
    jsc_plane plane = {.slabs.off = 1};
    jsc_account a = {.plane = &plane};
    jsc_sub *plain = jsc_sub_new(JSC_SUB_CLIENT, &a, "baz.*", 5, NULL, 0, NULL, 0),
            *queue = jsc_sub_new(JSC_SUB_CLIENT, &a, "baz.*", 5, "q", 1, NULL, 0);
    assert(plain && queue);
    plain->conn = queue->conn = &c;
    for (int again = 0; again < 2; again++) {
        assert(!jsc_may_deliver(plain, "baz.x", 5) && jsc_may_deliver(plain, "baz.y", 5));
        assert(!jsc_may_deliver(queue, "baz.x", 5) && !jsc_may_deliver(queue, "baz.y", 5));
        assert(jsc_may_deliver(queue, "baz.z", 5));
    }
    jsc_sub_free(plain);
    jsc_sub_free(queue);
    jsc_permissions_release(p);
}

/* Many subjects through few places of the cache, long ones past it: each time as the lists say. */
static void test_what_is_remembered_is_what_the_lists_say(void) {
    const char *allow[] = {"a.*", "b.>", "c.1", "*.7", "long.>"}, *deny[] = {"b.3", "b.*.4", "a.5"};
    jsc_permission v[8];
    for (int i = 0; i < 5; i++) v[i] = rule(JSC_PUBLISH_ALLOW, allow[i], NULL);
    for (int i = 0; i < 3; i++) v[5 + i] = rule(JSC_PUBLISH_DENY, deny[i], NULL);
    jsc_permissions *p = made(v, 8, (jsc_permissions_options){0});
    jsc_conn c = {.permissions = p, .verdict_hint = UINT32_MAX};
    uint64_t r = 1;
    for (int i = 0; i < 200000; i++) {
        char s[512];
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        int k = (int)(r % 5), x = (int)(r >> 8) % 3000, y = (int)(r >> 40) % 8;
        if (x < 0) x = -x;
        if (k == 4) snprintf(s, sizeof s, "long.%0*d", 200 + y * 20, x);
        else if (y < 6) snprintf(s, sizeof s, "%c.%d", 'a' + k, x % (i % 2 ? 10 : 3000));
        else snprintf(s, sizeof s, "%c.%d.%d", 'a' + k, x, y - 2);
        size_t n = strlen(s);
        int want = 0;
        for (int j = 0; j < 5; j++) want |= jsc_subject_matches(allow[j], strlen(allow[j]), s, n);
        for (int j = 0; j < 3; j++) want &= !jsc_subject_matches(deny[j], strlen(deny[j]), s, n);
        assert(publishes(&c, s) == want && publishes(&c, s) == want);
    }
    assert(!publishes(&c, "b..x") && !publishes(&c, "b.") && !publishes(&c, "."));
    jsc_permissions_release(p);
}

static void test_answers(void) {
    jsc_plane *pl;
    assert(!jsc_plane_new(NULL, &pl));
    jsc_permission v[] = {rule(JSC_PUBLISH_DENY, "r", NULL)};
    jsc_permissions *p =
        made(v, 1, (jsc_permissions_options){.no_publish = 1, .max_responses = 2, .expires_ns = SECOND});
    jsc_conn c = {.plane = pl, .permissions = p, .verdict_hint = UINT32_MAX};
    assert(!publishes(&c, "r") && !publishes(&c, "x"));
    jsc_reply_note(&c, "r", 1);
    assert(publishes(&c, "r") && publishes(&c, "r") && !publishes(&c, "r"));
    jsc_reply_note(&c, "r", 1);
    assert(publishes(&c, "r"));
    jsc_reply_note(&c, "r", 1); /* asked once more: it counts anew */
    assert(publishes(&c, "r") && publishes(&c, "r") && !publishes(&c, "r"));
    jsc_reply_note(&c, "r", 1);
    pl->mono += SECOND + 1;
    assert(!publishes(&c, "r"));
    /* Whoever is asked without end keeps leave for the newest only. */
    char s[32];
    for (int i = 0; i < 100000; i++) {
        snprintf(s, sizeof s, "reply.%d", i);
        jsc_reply_note(&c, s, (uint32_t)strlen(s));
    }
    assert(publishes(&c, "reply.99999") && publishes(&c, "reply.40000") && !publishes(&c, "reply.0"));
    jsc_replies_free(&c);
    assert(!publishes(&c, "reply.99999"));
    jsc_permissions_release(p);
    jsc_plane_free(pl);
}

int main(void) {
    test_what_is_no_subject_is_refused();
    test_queues();
    test_what_is_remembered_is_what_the_lists_say();
    test_answers();
    return 0;
}
