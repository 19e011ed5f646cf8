/* SPDX-License-Identifier: Apache-2.0 */
/* What can be programmed: algorithms, key sizes, data unit sizes, and how they are advertised (ice-spec 5,
 * 6). */
#include <errno.h>

#include "minivmm/bytes.h"
#include "minivmm/ice.h"
#include "spec.h"

#define EXP_512   0u
#define EXP_4096  3u
#define EXP_65536 7u

uint32_t ice_unit_size(const struct ice_spec *spec)
{
    return ICE_UNIT_MIN << spec->unit_exp;
}

size_t ice_raw_key_size(const struct ice_spec *spec)
{
    size_t aes = spec->key_size == ICE_KEY_256 ? 32 : 16;
    return spec->alg == ICE_ALG_AES_XTS ? 2 * aes : aes;
}

const char *ice_alg_name(unsigned alg)
{
    static const char *const names[ICE_ALG_COUNT] = {"aes-xts", "bitlocker-aes-cbc", "aes-ecb",
                                                     "essiv-aes-cbc"};
    return alg < ICE_ALG_COUNT ? names[alg] : NULL;
}

int ice_spec_check(const struct ice *ice, const struct ice_spec *spec, struct err *err)
{
    const char *name = ice_alg_name(spec->alg);
    if (!name)
        return err_set(err, -EINVAL, "there is no algorithm %u", spec->alg);
    if (spec->alg == ICE_ALG_AES_ECB && !ice_allows_ecb(ice))
        return err_set(err, -EINVAL, "%s leaks which data units are equal and is off unless ice-ecb=on",
                       name);
    if (spec->key_size != ICE_KEY_128 && spec->key_size != ICE_KEY_256)
        return err_set(err, -EINVAL, "key size %u is not offered: 1 (128 bits) and 3 (256 bits) are",
                       spec->key_size);
    if (spec->unit_exp > EXP_65536)
        return err_set(err, -EINVAL,
                       "data unit exponent %u is not offered: 0 (512 bytes) to 7 (65536 bytes) are",
                       spec->unit_exp);
    if (spec->alg != ICE_ALG_AES_XTS && spec->unit_exp != EXP_512 && spec->unit_exp != EXP_4096)
        return err_set(err, -EINVAL, "%s is offered with data units of 512 and 4096 bytes only, not %u", name,
                       ice_unit_size(spec));
    return 0;
}

unsigned ice_capabilities(const struct ice *ice, struct ice_spec *caps)
{
    static const uint8_t key_sizes[] = {ICE_KEY_128, ICE_KEY_256};
    unsigned n = 0;
    for (unsigned alg = 0; alg < ICE_ALG_COUNT; alg++)
        for (unsigned k = 0; k < ARRAY_SIZE(key_sizes); k++)
            for (unsigned exp = EXP_512; exp <= EXP_65536; exp++) {
                struct ice_spec spec = {(uint8_t)alg, (uint8_t)exp, key_sizes[k]};
                if (ice_spec_check(ice, &spec, NULL) == 0)
                    caps[n++] = spec;
            }
    return n;
}

bool ice_dun_ok(uint64_t first_iv, uint64_t stride, uint64_t units)
{
    uint64_t span, last;
    return units == 0 || (!__builtin_mul_overflow(units - 1, stride, &span) &&
                          !__builtin_add_overflow(first_iv, span, &last));
}
