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
#include <sys/types.h>

#include "minivmm/errors.h"

#define LUKS_KEY_MAX 64u

struct luks_volume {
    uint64_t data_offset; /* bytes from the start of the image */
    uint64_t data_size;   /* bytes; 0: to the end of the image */
    uint64_t iv_offset;   /* IV of the first data unit, in 512-byte sectors */
    uint32_t sector_size; /* data unit: 512 .. 4096 */
    uint32_t key_size;    /* 32 (AES-128-XTS) or 64 (AES-256-XTS) bytes */
};

/* A child at work; zero-initialise. */
struct luks_job {
    int answer_fd; /* 0: there is none */
    pid_t child;
};

/*
 * Starts a child that opens the volume in the image at path with the passphrase in passphrase_fd (all of it;
 * where that does not fit and it ends with a newline, without it), which it reads from its start. name: the
 * passphrase's, for sentences. Single-threaded; the descriptor stays the caller's and may be closed at once.
 */
int luks_start(const char *path, int passphrase_fd, const char *name, struct luks_job *job, struct err *err);

/*
 * Waits for the child's answer, in this process or a fork of it that inherited the job. key: LUKS_KEY_MAX
 * bytes, best in locked memory, written once. -EINVAL, -EKEYREJECTED, -ENOSYS, ... with a sentence that says
 * why the volume is refused: not LUKS2, a cipher other than aes-xts-plain64, integrity, several segments,
 * reencryption, unknown requirements.
 */
int luks_finish(struct luks_job *job, const char *path, struct luks_volume *volume, uint8_t *key,
                struct err *err);

/* Forgets a job that was not finished; its child ends when it finds nobody there. */
void luks_drop(struct luks_job *job);

#endif
