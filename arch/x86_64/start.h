/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MINIVMM_X86_START_H
#define MINIVMM_X86_START_H

#include <linux/kvm.h>

#include "minivmm/arch.h"

/*
 * The state in which vCPU 0 starts: 64-bit mode with the first 4 GiB mapped one to one and RSI = params
 * (Linux boot protocol, 64-bit ELF), or 32-bit flat unpaged and EBX = params (PVH). sregs: as KVM gave them,
 * altered.
 */
void start_registers(const struct arch_entry *entry, struct kvm_regs *regs, struct kvm_sregs *sregs);

#endif
