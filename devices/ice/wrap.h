/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrapped keys (ice-spec 7): AES-256-GCM blobs that only this VM can open. Long-term blobs live across boots,
 * under a key derived from the host's key-encryption key; ephemeral ones under a key of this boot. What a
 * blob holds is a secret from which the inline key and the software secret come by separate KDF labels, so
 * neither tells the other.
 */
#ifndef MINIVMM_ICE_WRAP_H
#define MINIVMM_ICE_WRAP_H

#include <stddef.h>
#include <stdint.h>

#include "libcrypto.h"

#define WRAP_KEY_BYTES  32u
#define WRAP_UUID_BYTES 16u
#define WRAP_SECRET_MIN 16u
#define WRAP_SECRET_MAX 64u
#define WRAP_BLOB_MAX   (WRAP_SECRET_MAX + 32u)

enum wrap_kind { WRAP_LONG_TERM = 1, WRAP_EPHEMERAL = 2 };

struct wrap;

/*
 * vm_key: WRAP_KEY_BYTES from wrap_derive_vm_key(), copied; NULL: random, so that blobs end with this boot.
 * -ENOMEM, -EIO with a sentence.
 */
int wrap_create(const struct libcrypto *lib, const uint8_t *vm_key, const uint8_t uuid[WRAP_UUID_BYTES],
                struct wrap **out, struct err *err);
void wrap_destroy(struct wrap *wrap); /* wipes; NULL is fine */

/* What a VM gets in place of the host's key: HKDF-SHA256(kek, salt UUID, label long-term). */
int wrap_derive_vm_key(const struct libcrypto *lib, const uint8_t *kek, size_t kek_len,
                       const uint8_t uuid[WRAP_UUID_BYTES], uint8_t vm_key[WRAP_KEY_BYTES]);

/* secret: WRAP_SECRET_MIN .. MAX bytes; blob: room for WRAP_BLOB_MAX. 0, -EINVAL, -EIO. */
int wrap_seal(struct wrap *wrap, enum wrap_kind kind, const uint8_t *secret, size_t len, uint8_t *blob,
              size_t *blob_len);

/* secret: room for WRAP_SECRET_MAX. -EBADMSG: not sealed by this VM, this boot or for this kind, or altered.
 */
int wrap_open(struct wrap *wrap, enum wrap_kind kind, const uint8_t *blob, size_t blob_len, uint8_t *secret,
              size_t *len);

/* The two uses of a secret. */
int wrap_inline_key(struct wrap *wrap, const uint8_t *secret, size_t len, uint8_t *raw, size_t raw_len);
int wrap_software_secret(struct wrap *wrap, const uint8_t *secret, size_t len, uint8_t out[32]);

#endif
