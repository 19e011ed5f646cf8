/* SPDX-License-Identifier: Apache-2.0 */
#include "wrap.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

#include "arena.h"

#define BLOB_VERSION 1u
#define HEADER_BYTES 4u
#define NONCE_BYTES  12u
#define TAG_BYTES    16u
#define OVERHEAD     (HEADER_BYTES + NONCE_BYTES + TAG_BYTES)

#define LABEL_VM_KEY   "minivmm ice long-term wrapping key v1"
#define LABEL_INLINE   "minivmm ice inline key v1"
#define LABEL_SOFTWARE "minivmm ice software secret v1"

struct wrap {
    const struct libcrypto *lib;
    EVP_CIPHER *gcm;
    uint8_t uuid[WRAP_UUID_BYTES];
    uint8_t key[3][WRAP_KEY_BYTES]; /* by enum wrap_kind */
};

static int hkdf(const struct libcrypto *lib, const uint8_t *secret, size_t len, const uint8_t *salt,
                size_t salt_len, const char *label, uint8_t *out, size_t out_len)
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA256"}, 6),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)secret, len),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt, salt_len),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)label, strlen(label)),
        OSSL_PARAM_END,
    };
    libcrypto_keys_follow();
    EVP_KDF *kdf = lib->EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? lib->EVP_KDF_CTX_new(kdf) : NULL;
    int ok = ctx && lib->EVP_KDF_derive(ctx, out, out_len, params) == 1;
    lib->EVP_KDF_CTX_free(ctx);
    lib->EVP_KDF_free(kdf);
    return ok ? 0 : -EIO;
}

int wrap_derive_vm_key(const struct libcrypto *lib, const uint8_t *kek, size_t kek_len,
                       const uint8_t uuid[WRAP_UUID_BYTES], uint8_t vm_key[WRAP_KEY_BYTES])
{
    return hkdf(lib, kek, kek_len, uuid, WRAP_UUID_BYTES, LABEL_VM_KEY, vm_key, WRAP_KEY_BYTES);
}

static int random_bytes(void *to, size_t len)
{
    return getrandom(to, len, 0) == (ssize_t)len ? 0 : -EIO;
}

int wrap_create(const struct libcrypto *lib, const uint8_t *vm_key, const uint8_t uuid[WRAP_UUID_BYTES],
                struct wrap **out, struct err *err)
{
    libcrypto_keys_follow();
    struct wrap *w = arena_alloc(sizeof(*w));
    if (!w)
        return err_set(err, -ENOMEM, "the memory for keys is full");
    memset(w, 0, sizeof(*w));
    w->lib = lib;
    memcpy(w->uuid, uuid, WRAP_UUID_BYTES);
    w->gcm = lib->EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    int r = w->gcm ? random_bytes(w->key[WRAP_EPHEMERAL], WRAP_KEY_BYTES) : -ENOSYS;
    if (vm_key)
        memcpy(w->key[WRAP_LONG_TERM], vm_key, WRAP_KEY_BYTES);
    else if (r == 0)
        r = random_bytes(w->key[WRAP_LONG_TERM], WRAP_KEY_BYTES);
    if (r < 0) {
        wrap_destroy(w);
        return err_set(err, r, "the key wrapping could not be set up: %s", strerror(-r));
    }
    *out = w;
    return 0;
}

void wrap_destroy(struct wrap *w)
{
    if (!w)
        return;
    w->lib->EVP_CIPHER_free(w->gcm);
    arena_free(w);
}

/* The associated data binds a blob to its format, its VM and its use. */
static bool add_context(const struct wrap *w, EVP_CIPHER_CTX *ctx, bool seal,
                        const uint8_t header[HEADER_BYTES])
{
    int len;
    uint8_t aad[HEADER_BYTES + WRAP_UUID_BYTES];
    memcpy(aad, header, HEADER_BYTES);
    memcpy(aad + HEADER_BYTES, w->uuid, WRAP_UUID_BYTES);
    return seal ? w->lib->EVP_EncryptUpdate(ctx, NULL, &len, aad, sizeof(aad)) == 1
                : w->lib->EVP_DecryptUpdate(ctx, NULL, &len, aad, sizeof(aad)) == 1;
}

int wrap_seal(struct wrap *w, enum wrap_kind kind, const uint8_t *secret, size_t len, uint8_t *blob,
              size_t *blob_len)
{
    if (len < WRAP_SECRET_MIN || len > WRAP_SECRET_MAX)
        return -EINVAL;
    const struct libcrypto *lib = w->lib;
    uint8_t *nonce = blob + HEADER_BYTES, *body = nonce + NONCE_BYTES;
    int n = 0, tail = 0;
    memcpy(blob, (uint8_t[HEADER_BYTES]){BLOB_VERSION, (uint8_t)kind, 0, 0}, HEADER_BYTES);
    if (random_bytes(nonce, NONCE_BYTES) < 0)
        return -EIO;
    EVP_CIPHER_CTX *ctx = lib->EVP_CIPHER_CTX_new();
    bool ok = ctx && lib->EVP_EncryptInit_ex2(ctx, w->gcm, w->key[kind], nonce, NULL) == 1 &&
              add_context(w, ctx, true, blob) &&
              lib->EVP_EncryptUpdate(ctx, body, &n, secret, (int)len) == 1 &&
              lib->EVP_EncryptFinal_ex(ctx, body + n, &tail) == 1 &&
              lib->EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, body + len) == 1;
    lib->EVP_CIPHER_CTX_free(ctx);
    *blob_len = len + OVERHEAD;
    return ok ? 0 : -EIO;
}

int wrap_open(struct wrap *w, enum wrap_kind kind, const uint8_t *blob, size_t blob_len, uint8_t *secret,
              size_t *len)
{
    if (blob_len < OVERHEAD + WRAP_SECRET_MIN || blob_len > OVERHEAD + WRAP_SECRET_MAX)
        return -EBADMSG;
    const struct libcrypto *lib = w->lib;
    const uint8_t *nonce = blob + HEADER_BYTES, *body = nonce + NONCE_BYTES;
    size_t body_len = blob_len - OVERHEAD;
    uint8_t tag[TAG_BYTES];
    int n = 0, tail = 0;
    if (memcmp(blob, (uint8_t[HEADER_BYTES]){BLOB_VERSION, (uint8_t)kind, 0, 0}, HEADER_BYTES) != 0)
        return -EBADMSG;
    memcpy(tag, body + body_len, TAG_BYTES);
    EVP_CIPHER_CTX *ctx = lib->EVP_CIPHER_CTX_new();
    bool ok = ctx && lib->EVP_DecryptInit_ex2(ctx, w->gcm, w->key[kind], nonce, NULL) == 1 &&
              add_context(w, ctx, false, blob) &&
              lib->EVP_DecryptUpdate(ctx, secret, &n, body, (int)body_len) == 1 &&
              lib->EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) == 1 &&
              lib->EVP_DecryptFinal_ex(ctx, secret + n, &tail) == 1;
    lib->EVP_CIPHER_CTX_free(ctx);
    if (!ok)
        explicit_bzero(secret, body_len); /* GCM gives plaintext before it knows that it is genuine */
    *len = body_len;
    return ok ? 0 : -EBADMSG;
}

int wrap_inline_key(struct wrap *w, const uint8_t *secret, size_t len, uint8_t *raw, size_t raw_len)
{
    return hkdf(w->lib, secret, len, w->uuid, WRAP_UUID_BYTES, LABEL_INLINE, raw, raw_len);
}

int wrap_software_secret(struct wrap *w, const uint8_t *secret, size_t len, uint8_t out[32])
{
    return hkdf(w->lib, secret, len, w->uuid, WRAP_UUID_BYTES, LABEL_SOFTWARE, out, 32);
}
