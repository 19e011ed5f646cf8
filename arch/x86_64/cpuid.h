/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MINIVMM_X86_CPUID_H
#define MINIVMM_X86_CPUID_H

#include <linux/kvm.h>

#include "minivmm/arch.h"

#define CPUID_ENTRIES_MAX 128u

/* Laid out as struct kvm_cpuid2, whose open array can't stand inside another struct. */
struct cpuid_table {
    uint32_t nent, padding;
    struct kvm_cpuid_entry2 entry[CPUID_ENTRIES_MAX];
};

struct arch_cpu_model {
    struct cpuid_table table;
};

/* Patches what differs between vCPUs (APIC ids, topology) into a copy of the model and gives it to KVM. */
int cpuid_apply(const struct arch_cpu_model *model, int vcpu_fd, unsigned id, unsigned cpus, struct err *err);

/* The patching alone. */
void cpuid_for_vcpu(struct cpuid_table *table, unsigned id, unsigned cpus);

/* Masks the table down to a named level ("x86-64-v2"); -EINVAL with the names of features that the host
 * lacks. */
int cpuid_restrict(struct cpuid_table *table, const char *name, struct err *err);

struct kvm_cpuid_entry2 *cpuid_find(struct cpuid_table *table, uint32_t function, uint32_t index);

#endif
