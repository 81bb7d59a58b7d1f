/* Encryption at rest: AES-256-GCM of libcrypto. A key ring holds the master keys a user gave, by id; each file has a key
 * of its own, derived (HMAC-SHA256) from a master key, the file's salt and a purpose, so that nonces only have to be
 * unique within one file. Rotation: new files use the ring's current key, old ones name theirs. See docs/format.md. */
#ifndef JSC_CRYPT_H
#define JSC_CRYPT_H
#include "../base/jsc_base.h"

#define JSC_KEY_BYTES 32
#define JSC_TAG_BYTES 16

typedef struct jsc_keys jsc_keys;
typedef struct jsc_cipher jsc_cipher; /* one file's key, ready for use; one thread at a time */

/* ids: 1 .. UINT32_MAX, different; keys: JSC_KEY_BYTES each. current: id for what is written from now on. */
int jsc_keys_new(const uint32_t *ids, const uint8_t (*keys)[JSC_KEY_BYTES], size_t n, uint32_t current, jsc_keys **out);
jsc_keys *jsc_keys_ref(jsc_keys *);
void jsc_keys_unref(jsc_keys *); /* wipes at the last */
uint32_t jsc_keys_current(const jsc_keys *);

/* JSC_EKEY: no key of that id in the ring (or no ring). purpose: a short constant text ("segment", "sidecar", ...). */
int jsc_cipher_new(const jsc_keys *, uint32_t id, uint64_t salt, const char *purpose, jsc_cipher **out);
void jsc_cipher_free(jsc_cipher *);
/* nonce: never twice with one cipher for sealing. in == out is allowed; out has n bytes, the tag goes to tag. */
int jsc_cipher_seal(jsc_cipher *, uint64_t nonce, const void *aad, size_t aad_n, const void *in, size_t n, void *out,
                    uint8_t tag[JSC_TAG_BYTES]);
/* JSC_ECORRUPT when it does not verify; then out is zeroed. */
int jsc_cipher_open(jsc_cipher *, uint64_t nonce, const void *aad, size_t aad_n, const void *in, size_t n, void *out,
                    const uint8_t tag[JSC_TAG_BYTES]);
#endif
