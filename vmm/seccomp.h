/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system-call filters of a VM's threads, one a role (docs/security.md lists every call and why). The
 * programs are made when minivmm is built, from vmm/seccomp_policy.h with libseccomp, so that a VM's process
 * carries no library for it.
 */
#ifndef MINIVMM_VMM_SECCOMP_H
#define MINIVMM_VMM_SECCOMP_H

#include "minivmm/errors.h"

enum seccomp_role {
    SECCOMP_MAIN,  /* loop, control socket, console, key service calls */
    SECCOMP_VCPU,  /* KVM_RUN, and devices' registers */
    SECCOMP_QUEUE, /* a virtqueue's thread: disk or random numbers; key service */
    SECCOMP_ROLES
};

/*
 * Closes the filter of a role over the calling thread alone, for good; no_new_privs must be set. What it does
 * not allow kills the process (SECCOMP_RET_KILL_PROCESS). -ENOSYS (with a sentence) where the kernel has no
 * seccomp filters.
 */
int seccomp_enter(enum seccomp_role role, struct err *err);

#endif
