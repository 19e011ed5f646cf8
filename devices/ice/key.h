/* SPDX-License-Identifier: Apache-2.0 */
/* A key with its algorithm and data unit size, and the cipher contexts that each queue thread keeps for it.
 */
#ifndef MINIVMM_ICE_KEY_H
#define MINIVMM_ICE_KEY_H

#include "libcrypto.h"
#include "minivmm/ice.h"

/* The ciphers that keys are made of, fetched once. */
struct ice_ciphers {
    const struct libcrypto *lib;
    EVP_CIPHER *xts[2], *cbc[2], *ecb[2]; /* [0] 128-bit, [1] 256-bit AES keys */
};

int ice_ciphers_fetch(struct ice_ciphers *ciphers, const struct libcrypto *lib, struct err *err);
void ice_ciphers_free(struct ice_ciphers *ciphers);

/* Immutable but for the contexts, each of which belongs to one queue thread. Lives in the arena. */
struct ice_key;

/*
 * Copies raw (its length checked against spec, which the caller has checked). -EINVAL for XTS with equal
 * halves, -ENOMEM when the arena is full.
 */
int ice_key_create(const struct ice_ciphers *ciphers, const struct ice_spec *spec, const uint8_t *raw,
                   size_t raw_len, struct ice_key **out, struct err *err);

/* Wipes the key and every expanded copy of it. No thread may be using it. NULL is fine. */
void ice_key_free(struct ice_key *key);

const struct ice_spec *ice_key_spec(const struct ice_key *key);

/* ice_crypt() for one key; see there. */
int ice_key_crypt(struct ice_key *key, unsigned queue, bool encrypt, uint64_t first_iv, uint64_t stride,
                  const struct iovec *src, unsigned src_count, const struct iovec *dst, unsigned dst_count,
                  uint64_t len);

#endif
