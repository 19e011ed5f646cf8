/* SPDX-License-Identifier: Apache-2.0 */
#include "icedrv.h"

#include <nettle/aes.h>
#include <nettle/cbc.h>
#include <nettle/sha2.h>
#include <nettle/xts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "minivmm/bytes.h"

void ref_key(uint8_t *raw, uint8_t seed)
{
    for (unsigned i = 0; i < ICE_RAW_KEY_MAX; i++)
        raw[i] = (uint8_t)(i * 41 + i * i * 3 + seed * 11);
}

static void xts(bool big, const uint8_t *raw, const uint8_t *tweak, size_t len, uint8_t *dst,
                const uint8_t *src)
{
    struct xts_aes256_key key256;
    struct xts_aes128_key key128;

    if (big) {
        xts_aes256_set_encrypt_key(&key256, raw);
        xts_aes256_encrypt_message(&key256, tweak, len, dst, src);
    } else {
        xts_aes128_set_encrypt_key(&key128, raw);
        xts_aes128_encrypt_message(&key128, tweak, len, dst, src);
    }
}

/* CBC; with a zero IV and one block, ECB. */
static void cbc(bool big, const uint8_t *raw, uint8_t *iv, size_t len, uint8_t *dst, const uint8_t *src)
{
    struct aes256_ctx key256;
    struct aes128_ctx key128;

    if (big) {
        aes256_set_encrypt_key(&key256, raw);
        cbc_encrypt(&key256, (nettle_cipher_func *)aes256_encrypt, 16, iv, len, dst, src);
    } else {
        aes128_set_encrypt_key(&key128, raw);
        cbc_encrypt(&key128, (nettle_cipher_func *)aes128_encrypt, 16, iv, len, dst, src);
    }
}

static void encrypt_block(bool big, const uint8_t *raw, uint8_t *block)
{
    uint8_t zero[16] = {0}, out[16];

    cbc(big, raw, zero, 16, out, block);
    memcpy(block, out, 16);
}

static void encrypt_unit(const struct ice_spec *spec, const uint8_t *raw, uint64_t dun, uint32_t unit,
                         const uint8_t *src, uint8_t *dst)
{
    bool big = spec->key_size == ICE_KEY_256;
    uint8_t iv[16] = {0}, salt[32];
    struct sha256_ctx sha;

    store_le64(iv, dun);
    switch (spec->alg) {
    case ICE_ALG_AES_XTS:
        xts(big, raw, iv, unit, dst, src);
        return;
    case ICE_ALG_BITLOCKER_AES_CBC:
        store_le64(iv, dun * unit);
        encrypt_block(big, raw, iv);
        cbc(big, raw, iv, unit, dst, src);
        return;
    case ICE_ALG_ESSIV_AES_CBC:
        sha256_init(&sha);
        sha256_update(&sha, big ? 32 : 16, raw);
        sha256_digest(&sha, sizeof(salt), salt);
        encrypt_block(true, salt, iv);
        cbc(big, raw, iv, unit, dst, src);
        return;
    default: /* ECB */
        memcpy(dst, src, unit);
        for (uint32_t at = 0; at < unit; at += 16)
            encrypt_block(big, raw, dst + at);
    }
}

void ref_encrypt(const struct ice_spec *spec, const uint8_t *raw, uint64_t first_iv, uint64_t stride,
                 const uint8_t *src, uint8_t *dst, size_t len)
{
    uint32_t unit = 512u << spec->unit_exp;

    for (size_t i = 0; i < len / unit; i++)
        encrypt_unit(spec, raw, first_iv + i * stride, unit, src + i * unit, dst + i * unit);
}

void ice_program(struct ice *ice, unsigned slot, const struct ice_spec *spec, uint8_t seed)
{
    uint8_t raw[ICE_RAW_KEY_MAX];
    struct err err = {""};

    ref_key(raw, seed);
    if (!ice_slot_set(ice, slot, spec, raw, ice_raw_key_size(spec), 1000, &err))
        return;
    fprintf(stderr, "icedrv: %s\n", err.text);
    abort();
}

bool ice_all_released(struct ice *ice)
{
    bool all = true;

    for (unsigned slot = 0; slot < ICE_SLOTS_MAX; slot++)
        all &= ice_slot_evict(ice, slot, 0, NULL) == 0;
    return all;
}
