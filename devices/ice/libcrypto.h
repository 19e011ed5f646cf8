/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcrypto 3, loaded at run time, since it costs milliseconds and megabytes that a VM without keys should
 * not pay. The function pointers carry OpenSSL's own names and types.
 */
#ifndef MINIVMM_ICE_LIBCRYPTO_H
#define MINIVMM_ICE_LIBCRYPTO_H

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "minivmm/errors.h"

#define LIBCRYPTO_FUNCTIONS(X)                                                                               \
    X(CRYPTO_set_mem_functions)                                                                              \
    X(OPENSSL_init_crypto)                                                                                   \
    X(EVP_CIPHER_fetch)                                                                                      \
    X(EVP_CIPHER_free)                                                                                       \
    X(EVP_CIPHER_CTX_new)                                                                                    \
    X(EVP_CIPHER_CTX_free)                                                                                   \
    X(EVP_CIPHER_CTX_set_padding)                                                                            \
    X(EVP_CIPHER_CTX_ctrl)                                                                                   \
    X(EVP_CipherInit_ex2)                                                                                    \
    X(EVP_CipherUpdate)                                                                                      \
    X(EVP_EncryptInit_ex2)                                                                                   \
    X(EVP_EncryptUpdate)                                                                                     \
    X(EVP_EncryptFinal_ex)                                                                                   \
    X(EVP_DecryptInit_ex2)                                                                                   \
    X(EVP_DecryptUpdate)                                                                                     \
    X(EVP_DecryptFinal_ex)                                                                                   \
    X(EVP_Q_digest)                                                                                          \
    X(EVP_Q_mac)                                                                                             \
    X(EVP_KDF_fetch)                                                                                         \
    X(EVP_KDF_free)                                                                                          \
    X(EVP_KDF_CTX_new)                                                                                       \
    X(EVP_KDF_CTX_free)                                                                                      \
    X(EVP_KDF_derive)

struct libcrypto {
    void *handle;
#define X(name) __typeof__(&name) name; // NOLINT(bugprone-macro-parentheses)
    LIBCRYPTO_FUNCTIONS(X)
#undef X
};

/*
 * Opens the arena, loads libcrypto and takes over its allocations. Single-threaded; the library stays for the
 * life of the process, so a second call gives the same table. -ENOSYS, -ENOMEM with a sentence.
 */
int libcrypto_load(const struct libcrypto **out, struct err *err);

/* To be called before key bytes are handed to libcrypto: from here on it allocates in the arena. Any thread.
 */
void libcrypto_keys_follow(void);

#endif
