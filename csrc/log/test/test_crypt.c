/* Encryption: answers known from an independent implementation, and that nothing changed ever opens. */
#include "../crypt.h"

#include <pthread.h>

#include "../../base/test/check.h"

static const uint64_t SALT = 0x0123456789abcdefu;

static jsc_keys *ring(void) {
    uint8_t keys[2][JSC_KEY_BYTES];
    uint32_t ids[2] = {7, 900};
    for (int i = 0; i < JSC_KEY_BYTES; i++) keys[0][i] = (uint8_t)i, keys[1][i] = (uint8_t)(255 - i);
    jsc_keys *k = NULL;
    OK(jsc_keys_new(ids, (const uint8_t (*)[JSC_KEY_BYTES])keys, 2, 900, &k));
    return k;
}

static void same_hex(const uint8_t *bytes, const char *hex) {
    for (; *hex; hex += 2, bytes++) {
        unsigned v;
        CHECK(sscanf(hex, "%2x", &v) == 1 && *bytes == v);
    }
}

/* Key derivation, nonce layout and mode in one: bytes on disk that must never change. The reference was checked with test
 * cases 13 and 14 of the GCM specification. */
static void test_known_answers(void) {
    jsc_keys *k = ring();
    jsc_cipher *c = NULL;
    uint8_t out[64], tag[JSC_TAG_BYTES];
    OK(jsc_cipher_new(k, 7, SALT, "segment", &c));
    OK(jsc_cipher_seal(c, 64, "head bytes", 10, "twenty-one bytes, yes", 21, out, tag));
    same_hex(out, "a08fb7cd0cc57fa352cf2d0f84517bf4e45e1393f5");
    same_hex(tag, "407f91a878d5487775e9f1b024c7f59b");
    jsc_cipher_free(c);
    OK(jsc_cipher_new(k, 7, SALT, "pack", &c));
    OK(jsc_cipher_seal(c, 0x1122334455667788u, NULL, 0, NULL, 0, NULL, tag));
    same_hex(tag, "319690e4658a001975297a70c98ae44d");
    jsc_cipher_free(c);
    jsc_keys_unref(k);
}

static void test_ring(void) {
    uint8_t keys[2][JSC_KEY_BYTES] = {{1}, {2}};
    const uint8_t (*p)[JSC_KEY_BYTES] = (const uint8_t (*)[JSC_KEY_BYTES])keys;
    jsc_keys *k = NULL;
    jsc_cipher *c = NULL;
    CHECK(jsc_keys_new((uint32_t[]){1, 1}, p, 2, 1, &k) == JSC_EINVAL);
    CHECK(jsc_keys_new((uint32_t[]){0, 1}, p, 2, 1, &k) == JSC_EINVAL);
    CHECK(jsc_keys_new((uint32_t[]){2, 1}, p, 2, 3, &k) == JSC_EINVAL);
    CHECK(jsc_keys_new((uint32_t[]){2, 1}, p, 0, 1, &k) == JSC_EINVAL && !k);
    k = ring();
    CHECK(jsc_keys_current(k) == 900 && jsc_keys_ref(k) == k);
    jsc_keys_unref(k);
    CHECK(jsc_cipher_new(k, 8, SALT, "pack", &c) == JSC_EKEY && jsc_cipher_new(NULL, 7, SALT, "pack", &c) == JSC_EKEY);
    CHECK(!c);
    jsc_keys_unref(k);
}

/* Every bit of everything that goes in matters, and what does not verify leaves no plaintext behind. */
static void test_tampering(void) {
    jsc_keys *k = ring();
    jsc_cipher *c = NULL, *other = NULL;
    uint8_t plain[40], sealed[40], out[40], aad[9], tag[JSC_TAG_BYTES];
    static const uint8_t zero[40];
    for (size_t i = 0; i < sizeof plain; i++) plain[i] = (uint8_t)(i * 7);
    memset(aad, 3, sizeof aad);
    OK(jsc_cipher_new(k, 7, SALT, "pack", &c));
    OK(jsc_cipher_seal(c, 5, aad, sizeof aad, plain, sizeof plain, sealed, tag));
    OK(jsc_cipher_open(c, 5, aad, sizeof aad, sealed, sizeof sealed, out, tag));
    CHECK(!memcmp(out, plain, sizeof plain));
    uint8_t *parts[] = {sealed, aad, tag};
    size_t sizes[] = {sizeof sealed, sizeof aad, sizeof tag};
    for (int p = 0; p < 3; p++)
        for (size_t bit = 0; bit < 8 * sizes[p]; bit++) {
            parts[p][bit / 8] ^= (uint8_t)(1 << bit % 8);
            memset(out, 0xee, sizeof out);
            CHECK(jsc_cipher_open(c, 5, aad, sizeof aad, sealed, sizeof sealed, out, tag) == JSC_ECORRUPT);
            CHECK(!memcmp(out, zero, sizeof out));
            parts[p][bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    for (int bit = 0; bit < 64; bit++)
        CHECK(jsc_cipher_open(c, 5 ^ (uint64_t)1 << bit, aad, sizeof aad, sealed, 40, out, tag) == JSC_ECORRUPT);
    for (size_t n = 0; n < sizeof sealed; n++)
        CHECK(jsc_cipher_open(c, 5, aad, sizeof aad, sealed, n, out, tag) == JSC_ECORRUPT);
    for (size_t n = 0; n < sizeof aad; n++)
        CHECK(jsc_cipher_open(c, 5, aad, n, sealed, sizeof sealed, out, tag) == JSC_ECORRUPT);
    const struct {
        uint32_t id;
        uint64_t salt;
        const char *purpose;
    } others[] = {{900, SALT, "pack"}, {7, SALT + 1, "pack"}, {7, SALT, "sidecar"}, {7, SALT, "pac"}};
    for (int i = 0; i < 4; i++) {
        OK(jsc_cipher_new(k, others[i].id, others[i].salt, others[i].purpose, &other));
        CHECK(jsc_cipher_open(other, 5, aad, sizeof aad, sealed, sizeof sealed, out, tag) == JSC_ECORRUPT);
        jsc_cipher_free(other);
    }
    /* Sealing and opening in turns with one cipher, in place, after a failure too. */
    OK(jsc_cipher_open(c, 5, aad, sizeof aad, sealed, sizeof sealed, sealed, tag));
    CHECK(!memcmp(sealed, plain, sizeof plain));
    OK(jsc_cipher_seal(c, 6, NULL, 0, sealed, sizeof sealed, sealed, tag));
    CHECK(memcmp(sealed, plain, sizeof plain) != 0);
    OK(jsc_cipher_open(c, 6, NULL, 0, sealed, sizeof sealed, sealed, tag));
    CHECK(!memcmp(sealed, plain, sizeof plain));
    jsc_cipher_free(c);
    jsc_keys_unref(k);
}

static void *borrow(void *arg) {
    for (int i = 0; i < 2000; i++) {
        jsc_keys *k = jsc_keys_ref(arg);
        jsc_cipher *c = NULL;
        if (i % 100 == 0) {
            OK(jsc_cipher_new(k, 900, (uint64_t)i, "segment", &c));
            jsc_cipher_free(c);
        }
        jsc_keys_unref(k);
    }
    jsc_keys_unref(arg);
    return NULL;
}

static void test_shared_ring(void) {
    pthread_t t[4];
    jsc_keys *k = ring();
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&t[i], NULL, borrow, jsc_keys_ref(k)) == 0);
    jsc_keys_unref(k);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
}

int main(void) {
    test_known_answers();
    test_ring();
    test_tampering();
    test_shared_ring();
    puts("crypt: ok");
    return 0;
}
