/* SPDX-License-Identifier: Apache-2.0 */
/* Files of raw keys: the bytes themselves, or their hexadecimal digits with an optional newline. */
#ifndef MINIVMM_VMM_KEYFILE_H
#define MINIVMM_VMM_KEYFILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "minivmm/errors.h"
#include "minivmm/ice.h"

#define KEYFILE_KEY_MAX ICE_RAW_KEY_MAX
#define KEYFILE_SCRATCH (2 * KEYFILE_KEY_MAX + 2) /* digits, newline, and a byte that must not be there */

/*
 * Opens a key file for reading. Refuses, with sentences that name path: what is missing, no regular file, or
 * open to the group or others (chmod 600). "/dev/fd/N" is the inherited descriptor N, whose giver is trusted.
 * Returns a descriptor, the caller's, or -errno.
 */
int keyfile_open(const char *path, struct err *err);

/*
 * Reads up to size bytes of fd, from the start where it can seek. A memfd, secret or not, was made to hand a
 * secret over: it is wiped. Returns how many bytes, or -errno.
 */
ssize_t keyfile_take(int fd, uint8_t *to, size_t size);

/*
 * Takes a key as keyfile_take() does, to the end of fd. scratch is best locked memory: key bytes
 * go nowhere else; the key ends up at its start and the rest is wiped. Contents made of hexadecimal digits
 * alone (and a newline) are hexadecimal. Returns the key's length, 1 .. KEYFILE_KEY_MAX, or -errno with a
 * sentence that begins with name.
 */
int keyfile_read(int fd, const char *name, uint8_t scratch[KEYFILE_SCRATCH], struct err *err);

/* The slot's spec for an algorithm, a unit in bytes (a power of two) and a key of len bytes; -EINVAL with the
 * lengths that are possible. name begins the sentence. */
int keyfile_spec(const char *name, unsigned alg, unsigned unit, size_t len, struct ice_spec *spec,
                 struct err *err);

#endif
