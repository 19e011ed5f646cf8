/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes ice.txt: one line for every algorithm, key size, data unit size and some data unit numbers, computed
 * with nettle alone, since what minivmm itself uses is OpenSSL. Build and run (libnettle and nettle-dev): cc
 * -o generate tests/vectors/generate.c -lnettle && ./generate > tests/vectors/ice.txt Line: ALG KEY_SIZE
 * UNIT_EXP DUN UNITS KEY_HEX SHA256_OF_CIPHERTEXT FIRST_32_BYTES_OF_CIPHERTEXT Plaintext byte j of a vector
 * is the low byte of (j * 167 + (j >> 8) * 13 + seed), seed = first key byte.
 */
#include <inttypes.h>
#include <nettle/aes.h>
#include <nettle/cbc.h>
#include <nettle/sha2.h>
#include <nettle/xts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNITS 2u

enum { XTS, BITLOCKER, ECB, ESSIV };

static uint8_t plain[65536 * UNITS], cipher[65536 * UNITS];

static void le64(uint8_t out[16], uint64_t v)
{
    memset(out, 0, 16);
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(v >> (8 * i));
}

static void ecb(unsigned bits, const uint8_t *key, size_t len, uint8_t *dst, const uint8_t *src)
{
    if (bits == 256) {
        struct aes256_ctx ctx;
        aes256_set_encrypt_key(&ctx, key);
        aes256_encrypt(&ctx, len, dst, src);
    } else {
        struct aes128_ctx ctx;
        aes128_set_encrypt_key(&ctx, key);
        aes128_encrypt(&ctx, len, dst, src);
    }
}

static void xts(unsigned bits, const uint8_t *key, uint8_t *tweak, size_t len, uint8_t *dst,
                const uint8_t *src)
{
    if (bits == 256) {
        struct xts_aes256_key ctx;
        xts_aes256_set_encrypt_key(&ctx, key);
        xts_aes256_encrypt_message(&ctx, tweak, len, dst, src);
    } else {
        struct xts_aes128_key ctx;
        xts_aes128_set_encrypt_key(&ctx, key);
        xts_aes128_encrypt_message(&ctx, tweak, len, dst, src);
    }
}

static void cbc(unsigned bits, const uint8_t *key, uint8_t *iv, size_t len, uint8_t *dst, const uint8_t *src)
{
    if (bits == 256) {
        struct aes256_ctx ctx;
        aes256_set_encrypt_key(&ctx, key);
        cbc_encrypt(&ctx, (nettle_cipher_func *)aes256_encrypt, 16, iv, len, dst, src);
    } else {
        struct aes128_ctx ctx;
        aes128_set_encrypt_key(&ctx, key);
        cbc_encrypt(&ctx, (nettle_cipher_func *)aes128_encrypt, 16, iv, len, dst, src);
    }
}

static void encrypt_unit(int alg, unsigned bits, const uint8_t *key, uint64_t dun, uint32_t unit,
                         uint8_t *dst, const uint8_t *src)
{
    uint8_t block[16], iv[16], salt[32];
    struct sha256_ctx sha;
    le64(block, alg == BITLOCKER ? dun * unit : dun);
    switch (alg) {
    case XTS:
        xts(bits, key, block, unit, dst, src);
        break;
    case BITLOCKER:
        ecb(bits, key, 16, iv, block);
        cbc(bits, key, iv, unit, dst, src);
        break;
    case ECB:
        ecb(bits, key, unit, dst, src);
        break;
    case ESSIV:
        sha256_init(&sha);
        sha256_update(&sha, bits / 8, key);
        sha256_digest(&sha, 32, salt);
        ecb(256, salt, 16, iv, block);
        cbc(bits, key, iv, unit, dst, src);
        break;
    }
}

static void hex(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%02x", p[i]);
}

static void vector(int alg, unsigned bits, unsigned exp, uint64_t dun, unsigned number)
{
    uint8_t key[64], digest[32];
    size_t key_len = bits / 8 * (alg == XTS ? 2 : 1);
    uint32_t unit = 512u << exp;
    struct sha256_ctx sha;
    for (size_t i = 0; i < key_len; i++)
        key[i] = (uint8_t)(i * 29 + number * 7 + 3);
    for (size_t j = 0; j < (size_t)unit * UNITS; j++)
        plain[j] = (uint8_t)(j * 167 + (j >> 8) * 13 + key[0]);
    for (unsigned u = 0; u < UNITS; u++)
        encrypt_unit(alg, bits, key, dun + u, unit, cipher + (size_t)u * unit, plain + (size_t)u * unit);
    sha256_init(&sha);
    sha256_update(&sha, (size_t)unit * UNITS, cipher);
    sha256_digest(&sha, sizeof(digest), digest);
    printf("%d %d %u %" PRIu64 " %u ", alg, bits == 256 ? 3 : 1, exp, dun, UNITS);
    hex(key, key_len);
    printf(" ");
    hex(digest, sizeof(digest));
    printf(" ");
    hex(cipher, 32);
    printf("\n");
}

int main(void)
{
    static const uint64_t duns[] = {0, 1, 0x3333333333, UINT64_MAX - 1, 0x0123456789abcdef};
    unsigned number = 0;
    printf("# ALG KEY_SIZE UNIT_EXP DUN UNITS KEY SHA256(CIPHERTEXT) CIPHERTEXT[0..32); made by generate.c "
           "with nettle\n");
    for (int alg = XTS; alg <= ESSIV; alg++)
        for (unsigned bits = 128; bits <= 256; bits += 128)
            for (unsigned exp = 0; exp <= 7; exp++)
                for (unsigned d = 0; d < sizeof(duns) / sizeof(duns[0]); d++)
                    if (alg == XTS || exp == 0 || exp == 3)
                        vector(alg, bits, exp, duns[d], number++);
    return 0;
}
