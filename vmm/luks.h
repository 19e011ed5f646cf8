/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens an existing LUKS2 volume (docs/ice-spec.md, section 9): a short-lived child process loads
 * libcryptsetup, checks the header and recovers the volume key; the process that runs the VM never carries
 * that library.
 */
#ifndef MINIVMM_VMM_LUKS_H
#define MINIVMM_VMM_LUKS_H

#include <stddef.h>
#include <stdint.h>

#include "minivmm/errors.h"

#define LUKS_KEY_MAX 64u

struct luks_volume {
    uint64_t data_offset; /* bytes from the start of the image */
    uint64_t data_size;   /* bytes; 0: to the end of the image */
    uint64_t iv_offset;   /* IV of the first data unit, in 512-byte sectors */
    uint32_t sector_size; /* data unit: 512 .. 4096 */
    uint32_t key_size;    /* 32 (AES-128-XTS) or 64 (AES-256-XTS) bytes */
};

/*
 * Opens the volume in the image at path with the passphrase in passphrase_file (the whole file; where that
 * does not fit and the file ends with a newline, the file without it). key: LUKS_KEY_MAX bytes, best in
 * locked memory, written once. Single-threaded. -EINVAL, -EKEYREJECTED, -ENOSYS, ... with a sentence that
 * says why the volume is refused: not LUKS2, a cipher other than aes-xts-plain64, integrity, several
 * segments, reencryption, unknown requirements.
 */
int luks_open(const char *path, const char *passphrase_file, struct luks_volume *volume, uint8_t *key,
              struct err *err);

#endif
