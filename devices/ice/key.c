/* SPDX-License-Identifier: Apache-2.0 */
#include "key.h"

#include <errno.h>
#include <string.h>

#include "arena.h"
#include "minivmm/bytes.h"

#define AES_BLOCK  16u
#define ESSIV_BITS 256u /* ice-spec 5: AES-256 under SHA-256(key), for 128-bit keys too */

/* One queue thread's expanded copies of a key. Directions apart: the key schedules differ. */
struct context {
    EVP_CIPHER_CTX *data[2]; /* [0] decrypt, [1] encrypt */
    EVP_CIPHER_CTX *iv;      /* ESSIV and BitLocker: turns the DUN into an IV */
    uint8_t *scratch;        /* one data unit, for units that segments split */
};

struct ice_key {
    const struct ice_ciphers *ciphers;
    struct ice_spec spec;
    uint8_t raw[ICE_RAW_KEY_MAX];
    size_t raw_len;
    struct context context[ICE_QUEUES_MAX];
};

int ice_ciphers_fetch(struct ice_ciphers *ciphers, const struct libcrypto *lib, struct err *err)
{
    ciphers->lib = lib;
    const struct {
        EVP_CIPHER **to;
        const char *name;
    } wanted[] = {
        {&ciphers->xts[0], "AES-128-XTS"}, {&ciphers->xts[1], "AES-256-XTS"},
        {&ciphers->cbc[0], "AES-128-CBC"}, {&ciphers->cbc[1], "AES-256-CBC"},
        {&ciphers->ecb[0], "AES-128-ECB"}, {&ciphers->ecb[1], "AES-256-ECB"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        *wanted[i].to = lib->EVP_CIPHER_fetch(NULL, wanted[i].name, NULL);
        if (!*wanted[i].to)
            return err_set(err, -ENOSYS, "libcrypto has no %s", wanted[i].name);
    }
    return 0;
}

void ice_ciphers_free(struct ice_ciphers *ciphers)
{
    for (unsigned i = 0; i < 2; i++) {
        ciphers->lib->EVP_CIPHER_free(ciphers->xts[i]);
        ciphers->lib->EVP_CIPHER_free(ciphers->cbc[i]);
        ciphers->lib->EVP_CIPHER_free(ciphers->ecb[i]);
    }
}

/* In constant time: how far two key halves agree is nobody's business. */
static bool halves_equal(const uint8_t *raw, size_t half)
{
    uint8_t differ = 0;
    for (size_t i = 0; i < half; i++)
        differ |= raw[i] ^ raw[half + i];
    return differ == 0;
}

int ice_key_create(const struct ice_ciphers *ciphers, const struct ice_spec *spec, const uint8_t *raw,
                   size_t raw_len, struct ice_key **out, struct err *err)
{
    size_t want = ice_raw_key_size(spec);
    if (raw_len != want)
        return err_set(err, -EINVAL, "a key for %s must be %zu bytes long, not %zu", ice_alg_name(spec->alg),
                       want, raw_len);
    /* OpenSSL refuses equal halves for encryption only; such a key makes XTS leak, so neither direction works
     * here. */
    if (spec->alg == ICE_ALG_AES_XTS && halves_equal(raw, raw_len / 2))
        return err_set(err, -EINVAL, "the two halves of an AES-XTS key must differ");
    libcrypto_keys_follow();
    struct ice_key *key = arena_alloc(sizeof(*key));
    if (!key)
        return err_set(err, -ENOMEM, "the memory for keys is full");
    memset(key, 0, sizeof(*key));
    key->ciphers = ciphers;
    key->spec = *spec;
    key->raw_len = raw_len;
    memcpy(key->raw, raw, raw_len);
    *out = key;
    return 0;
}

void ice_key_free(struct ice_key *key)
{
    if (!key)
        return;
    const struct libcrypto *lib = key->ciphers->lib;
    for (unsigned i = 0; i < ICE_QUEUES_MAX; i++) {
        lib->EVP_CIPHER_CTX_free(key->context[i].data[0]);
        lib->EVP_CIPHER_CTX_free(key->context[i].data[1]);
        lib->EVP_CIPHER_CTX_free(key->context[i].iv);
        arena_free(key->context[i].scratch);
    }
    arena_free(key);
}

const struct ice_spec *ice_key_spec(const struct ice_key *key)
{
    return &key->spec;
}

static EVP_CIPHER_CTX *open_context(const struct ice_key *key, const EVP_CIPHER *cipher, const uint8_t *raw,
                                    bool encrypt)
{
    const struct libcrypto *lib = key->ciphers->lib;
    static const uint8_t zero_iv[AES_BLOCK];
    EVP_CIPHER_CTX *ctx = lib->EVP_CIPHER_CTX_new();
    if (!ctx)
        return NULL;
    if (lib->EVP_CipherInit_ex2(ctx, cipher, raw, zero_iv, encrypt, NULL) != 1 ||
        lib->EVP_CIPHER_CTX_set_padding(ctx, 0) != 1) {
        lib->EVP_CIPHER_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

static EVP_CIPHER_CTX *open_data(const struct ice_key *key, bool encrypt)
{
    const struct ice_ciphers *c = key->ciphers;
    unsigned big = key->spec.key_size == ICE_KEY_256;
    const EVP_CIPHER *cipher = c->cbc[big];
    if (key->spec.alg == ICE_ALG_AES_XTS)
        cipher = c->xts[big];
    else if (key->spec.alg == ICE_ALG_AES_ECB)
        cipher = c->ecb[big];
    return open_context(key, cipher, key->raw, encrypt);
}

static EVP_CIPHER_CTX *open_iv(const struct ice_key *key)
{
    const struct ice_ciphers *c = key->ciphers;
    if (key->spec.alg == ICE_ALG_BITLOCKER_AES_CBC)
        return open_context(key, c->ecb[key->spec.key_size == ICE_KEY_256], key->raw, true);
    uint8_t *salt = arena_alloc(ESSIV_BITS / 8);
    EVP_CIPHER_CTX *ctx = NULL;
    if (salt && c->lib->EVP_Q_digest(NULL, "SHA256", NULL, key->raw, key->raw_len, salt, NULL) == 1)
        ctx = open_context(key, c->ecb[1], salt, true);
    arena_free(salt);
    return ctx;
}

static bool needs_iv_cipher(const struct ice_key *key)
{
    return key->spec.alg == ICE_ALG_ESSIV_AES_CBC || key->spec.alg == ICE_ALG_BITLOCKER_AES_CBC;
}

/* Opens what this thread lacks; later calls find it there. */
static struct context *context_of(struct ice_key *key, unsigned queue, bool encrypt)
{
    struct context *ctx = &key->context[queue];
    if (!ctx->data[encrypt])
        ctx->data[encrypt] = open_data(key, encrypt);
    if (!ctx->iv && needs_iv_cipher(key))
        ctx->iv = open_iv(key);
    if (!ctx->data[encrypt] || (needs_iv_cipher(key) && !ctx->iv))
        return NULL;
    return ctx;
}

/* ice-spec 5. */
static bool make_iv(const struct ice_key *key, const struct context *ctx, uint64_t n, uint8_t iv[AES_BLOCK])
{
    memset(iv, 0, AES_BLOCK);
    if (key->spec.alg == ICE_ALG_BITLOCKER_AES_CBC)
        n *= ice_unit_size(&key->spec);
    store_le64(iv, n);
    if (!needs_iv_cipher(key))
        return true;
    int len = 0;
    return key->ciphers->lib->EVP_CipherUpdate(ctx->iv, iv, &len, iv, AES_BLOCK) == 1 &&
           len == (int)AES_BLOCK;
}

static bool crypt_unit(const struct ice_key *key, const struct context *ctx, bool encrypt, uint64_t n,
                       const uint8_t *src, uint8_t *dst, uint32_t unit)
{
    const struct libcrypto *lib = key->ciphers->lib;
    EVP_CIPHER_CTX *data = ctx->data[encrypt];
    uint8_t iv[AES_BLOCK];
    int len = 0;
    if (key->spec.alg != ICE_ALG_AES_ECB &&
        (!make_iv(key, ctx, n, iv) || lib->EVP_CipherInit_ex2(data, NULL, NULL, iv, encrypt, NULL) != 1))
        return false;
    return lib->EVP_CipherUpdate(data, dst, &len, src, (int)unit) == 1 && len == (int)unit;
}

/* A position in a list of segments. */
struct cursor {
    const struct iovec *iov;
    unsigned left;
    size_t at; /* bytes used of iov[0] */
};

static void skip_empty(struct cursor *c)
{
    while (c->left && c->at == c->iov->iov_len) {
        c->iov++;
        c->left--;
        c->at = 0;
    }
}

/* The next n bytes as one piece, or NULL when a segment ends inside them. */
static uint8_t *whole_piece(struct cursor *c, uint32_t n)
{
    skip_empty(c);
    if (!c->left || c->iov->iov_len - c->at < n)
        return NULL;
    uint8_t *p = (uint8_t *)c->iov->iov_base + c->at;
    c->at += n;
    return p;
}

/* Copies n bytes between the segments and flat memory. False when the segments end too early. */
static bool copy_pieces(struct cursor *c, uint8_t *flat, uint32_t n, bool gather)
{
    while (n) {
        skip_empty(c);
        if (!c->left)
            return false;
        size_t part = c->iov->iov_len - c->at;
        if (part > n)
            part = n;
        uint8_t *p = (uint8_t *)c->iov->iov_base + c->at;
        if (gather)
            memcpy(flat, p, part);
        else
            memcpy(p, flat, part);
        c->at += part;
        flat += part;
        n -= (uint32_t)part;
    }
    return true;
}

static bool crypt_next(const struct ice_key *key, struct context *ctx, bool encrypt, uint64_t n,
                       struct cursor *src, struct cursor *dst, uint32_t unit)
{
    uint8_t *from = whole_piece(src, unit);
    uint8_t *to = whole_piece(dst, unit);
    if (from && to)
        return crypt_unit(key, ctx, encrypt, n, from, to, unit);
    if (!ctx->scratch)
        ctx->scratch = arena_alloc(unit);
    if (!ctx->scratch)
        return false;
    if (!from) {
        if (!copy_pieces(src, ctx->scratch, unit, true))
            return false;
        from = ctx->scratch;
    }
    if (!crypt_unit(key, ctx, encrypt, n, from, to ? to : ctx->scratch, unit))
        return false;
    return to || copy_pieces(dst, ctx->scratch, unit, false);
}

int ice_key_crypt(struct ice_key *key, unsigned queue, bool encrypt, uint64_t first_iv, uint64_t stride,
                  const struct iovec *src, unsigned src_count, const struct iovec *dst, unsigned dst_count,
                  uint64_t len)
{
    uint32_t unit = ice_unit_size(&key->spec);
    if (len % unit || queue >= ICE_QUEUES_MAX)
        return -EIO;
    struct context *ctx = context_of(key, queue, encrypt);
    if (!ctx)
        return -EIO;
    struct cursor from = {src, src_count, 0}, to = {dst, dst_count, 0};
    uint64_t n = first_iv;
    for (uint64_t done = 0; done < len; done += unit, n += stride)
        if (!crypt_next(key, ctx, encrypt, n, &from, &to, unit))
            return -EIO;
    return 0;
}
