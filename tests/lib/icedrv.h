/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ciphers of docs/ice-spec.md, 5, by nettle, which shares nothing with what minivmm itself uses; and keys
 * for tests.
 */
#ifndef TESTS_LIB_ICEDRV_H
#define TESTS_LIB_ICEDRV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "minivmm/ice.h"

/* A key of its own for each seed; ICE_RAW_KEY_MAX bytes, of which a spec takes the first. */
void ref_key(uint8_t *raw, uint8_t seed);

/* Encrypts len bytes, a multiple of the unit: unit i with IV first_iv + i * stride. src and dst apart. */
void ref_encrypt(const struct ice_spec *spec, const uint8_t *raw, uint64_t first_iv, uint64_t stride,
                 const uint8_t *src, uint8_t *dst, size_t len);

/* Programs ref_key(seed) into a slot; aborts on failure. */
void ice_program(struct ice *ice, unsigned slot, const struct ice_spec *spec, uint8_t seed);

/* True when no request holds a slot's key: all slots can be emptied at once. Leaves them empty. */
bool ice_all_released(struct ice *ice);

#endif
