/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MINIVMM_VMM_LUKS_CHILD_H
#define MINIVMM_VMM_LUKS_CHILD_H

#include <sys/types.h>

#include "luks.h"

/* What the child writes to the pipe; volume.key_size bytes of key follow when code is 0. */
struct luks_answer {
    int code;
    struct luks_volume volume;
    char text[512];
};

/* The child's whole life, which ends with its parent's: opens the volume and writes the answer to fd. name:
 * the passphrase's, for sentences. */
void luks_child_run(const char *path, int passphrase_fd, const char *name, pid_t parent, int fd);

#endif
