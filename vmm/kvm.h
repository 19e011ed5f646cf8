/* SPDX-License-Identifier: Apache-2.0 */
/* The calls to the kernel's KVM that the monitor makes apart from running vCPUs, each with a sentence when it
 * fails. */
#ifndef MINIVMM_VMM_KVM_H
#define MINIVMM_VMM_KVM_H

#include <stdint.h>

#include "minivmm/errors.h"
#include "minivmm/guest_memory.h"

/*
 * Opens the KVM device at path and checks the API version, each capability that minivmm needs, and that it
 * can run cpus vCPUs. Returns the descriptor (the caller closes it), or -errno with a sentence that tells the
 * mend.
 */
int kvm_open(const char *path, unsigned cpus, struct err *err);

/* Returns the VM's descriptor or -errno. */
int kvm_create_vm(int kvm_fd, struct err *err);

/* Makes each region a memory slot of the guest. */
int kvm_set_memory(int vm_fd, const struct guest_memory *mem, struct err *err);

/* Lets a write to the eventfd raise the edge-triggered line gsi. */
int kvm_connect_irq(int vm_fd, unsigned gsi, int event_fd, struct err *err);

/* Lets a 4-byte guest write of value to addr signal the eventfd without an exit to user space. */
int kvm_connect_kick(int vm_fd, uint64_t addr, uint32_t value, int event_fd, struct err *err);

#endif
