/* libcrypto's HMAC and AES-GCM behind crypt.h. A cipher is one EVP context with its key schedule set up once: a message
 * costs a new nonce and the bytes, nothing is looked up or allocated. */
#include "crypt.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

#define NONCE_BYTES 12
#define PURPOSE_MAX 32
#define STEP ((size_t)1 << 30) /* EVP counts in int */
#define MESSAGE_MAX (((uint64_t)1 << 36) - 32) /* of GCM: its block counter has 32 bits */

typedef struct key {
    uint32_t id;
    uint8_t bytes[JSC_KEY_BYTES];
} key;

struct jsc_keys {
    _Atomic int refs;
    uint32_t current;
    size_t n;
    key all[];
};

struct jsc_cipher {
    EVP_CIPHER_CTX *evp;
};

static const key *key_of(const jsc_keys *k, uint32_t id) {
    for (size_t i = 0; k && i < k->n; i++)
        if (k->all[i].id == id) return &k->all[i];
    return NULL;
}

int jsc_keys_new(const uint32_t *ids, const uint8_t (*keys)[JSC_KEY_BYTES], size_t n, uint32_t current,
                 jsc_keys **out) {
    bool found = false;
    if (n == 0 || n > UINT16_MAX) return JSC_EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == 0) return JSC_EINVAL;
        for (size_t k = 0; k < i; k++)
            if (ids[k] == ids[i]) return JSC_EINVAL;
        if (ids[i] == current) found = true;
    }
    if (!found) return JSC_EINVAL;
    jsc_keys *k = malloc(sizeof *k + n * sizeof k->all[0]);
    if (!k) return -ENOMEM;
    atomic_init(&k->refs, 1);
    k->current = current;
    k->n = n;
    for (size_t i = 0; i < n; i++) {
        k->all[i].id = ids[i];
        memcpy(k->all[i].bytes, keys[i], JSC_KEY_BYTES);
    }
    *out = k;
    return JSC_OK;
}

jsc_keys *jsc_keys_ref(jsc_keys *k) {
    if (k) atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void jsc_keys_unref(jsc_keys *k) {
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1) return;
    OPENSSL_cleanse(k->all, k->n * sizeof k->all[0]);
    free(k);
}

uint32_t jsc_keys_current(const jsc_keys *k) { return k->current; }

/* The expand step of HKDF (RFC 5869) for one block of output: the master keys are keys already, nothing to extract. */
static bool derive(const key *master, uint64_t salt, const char *purpose, uint8_t out[JSC_KEY_BYTES]) {
    static const char label[] = "jscore ";
    uint8_t info[sizeof label - 1 + PURPOSE_MAX + 1 + 8 + 4 + 1];
    size_t n = 0, purpose_n = strlen(purpose);
    unsigned got = 0;
    JSC_ASSERT(purpose_n && purpose_n <= PURPOSE_MAX);
    memcpy(info, label, n = sizeof label - 1);
    memcpy(info + n, purpose, purpose_n + 1);
    n += purpose_n + 1;
    for (int i = 0; i < 8; i++) info[n++] = (uint8_t)(salt >> (8 * i));
    for (int i = 0; i < 4; i++) info[n++] = (uint8_t)(master->id >> (8 * i));
    info[n++] = 1;
    return HMAC(EVP_sha256(), master->bytes, JSC_KEY_BYTES, info, n, out, &got) && got == JSC_KEY_BYTES;
}

int jsc_cipher_new(const jsc_keys *keys, uint32_t id, uint64_t salt, const char *purpose, jsc_cipher **out) {
    const key *master = key_of(keys, id);
    if (!master) return JSC_EKEY;
    uint8_t file_key[JSC_KEY_BYTES];
    int rc = -ENOMEM; /* the only way that libcrypto fails here, short of being built without these algorithms */
    jsc_cipher *c = malloc(sizeof *c);
    if (!c) return -ENOMEM;
    c->evp = EVP_CIPHER_CTX_new();
    if (c->evp && derive(master, salt, purpose, file_key) &&
        EVP_CipherInit_ex(c->evp, EVP_aes_256_gcm(), NULL, file_key, NULL, 1) == 1)
        rc = JSC_OK;
    OPENSSL_cleanse(file_key, sizeof file_key);
    if (rc != JSC_OK) jsc_cipher_free(c);
    else *out = c;
    return rc;
}

void jsc_cipher_free(jsc_cipher *c) {
    if (!c) return;
    EVP_CIPHER_CTX_free(c->evp); /* wipes the key schedule */
    free(c);
}

/* Everything but the tag: nonce, additional data, bytes. */
static bool run(jsc_cipher *c, int seal, uint64_t nonce, const void *aad, size_t aad_n, const uint8_t *in, size_t n,
                uint8_t *out) {
    uint8_t iv[NONCE_BYTES] = {0};
    int got;
    for (int i = 0; i < 8; i++) iv[4 + i] = (uint8_t)(nonce >> (8 * i));
    if (aad_n > STEP || n > MESSAGE_MAX) return false;
    if (EVP_CipherInit_ex(c->evp, NULL, NULL, NULL, iv, seal) != 1) return false;
    if (aad_n && EVP_CipherUpdate(c->evp, NULL, &got, aad, (int)aad_n) != 1) return false;
    while (n) {
        size_t part = n < STEP ? n : STEP;
        if (EVP_CipherUpdate(c->evp, out, &got, in, (int)part) != 1 || (size_t)got != part) return false;
        in += part, out += part, n -= part;
    }
    return true;
}

int jsc_cipher_seal(jsc_cipher *c, uint64_t nonce, const void *aad, size_t aad_n, const void *in, size_t n, void *out,
                    uint8_t tag[JSC_TAG_BYTES]) {
    uint8_t none[1];
    int got;
    if (!run(c, 1, nonce, aad, aad_n, in, n, out) || EVP_CipherFinal_ex(c->evp, none, &got) != 1 ||
        EVP_CIPHER_CTX_ctrl(c->evp, EVP_CTRL_AEAD_GET_TAG, JSC_TAG_BYTES, tag) != 1)
        return n > MESSAGE_MAX || aad_n > STEP ? JSC_EINVAL : -ENOMEM;
    return JSC_OK;
}

int jsc_cipher_open(jsc_cipher *c, uint64_t nonce, const void *aad, size_t aad_n, const void *in, size_t n, void *out,
                    const uint8_t tag[JSC_TAG_BYTES]) {
    uint8_t none[1], want[JSC_TAG_BYTES];
    int got;
    memcpy(want, tag, sizeof want); /* the call takes it without const */
    if (!run(c, 0, nonce, aad, aad_n, in, n, out) ||
        EVP_CIPHER_CTX_ctrl(c->evp, EVP_CTRL_AEAD_SET_TAG, JSC_TAG_BYTES, want) != 1 ||
        EVP_CipherFinal_ex(c->evp, none, &got) != 1) {
        if (n) memset(out, 0, n);
        return JSC_ECORRUPT;
    }
    return JSC_OK;
}
