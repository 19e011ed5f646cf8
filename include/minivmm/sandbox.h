/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cell, as far as a thread has to do with it (docs/security.md). The process closes its cell before it
 * creates threads; each thread then closes its system-call filter when it has prepared itself.
 */
#ifndef MINIVMM_SANDBOX_H
#define MINIVMM_SANDBOX_H

#include "minivmm/errors.h"

enum sandbox_role {
    SANDBOX_MAIN,  /* event loop, control socket, console */
    SANDBOX_VCPU,  /* KVM_RUN, and the devices' registers */
    SANDBOX_QUEUE, /* a virtqueue's thread */
};

/*
 * Leaves the calling thread only the system calls of its role, for good; any other kills the process. Does
 * nothing where the process has no cell (--no-sandbox, unit tests). -errno with a sentence where the kernel
 * has no filters: the thread must not go on to serve a guest then.
 */
int sandbox_thread(enum sandbox_role role, struct err *err);

#endif
