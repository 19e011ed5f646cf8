/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID: what KVM supports, with the host's own identity replaced by the vCPU's. */
#include "cpuid.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define LEAF1_ECX_X2APIC       (1u << 21)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define LEAF1_EDX_HTT          (1u << 28)
#define TOPOLOGY_SMT           1u
#define TOPOLOGY_CORE          2u

struct kvm_cpuid_entry2 *cpuid_find(struct cpuid_table *table, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < table->nent; i++)
        if (table->entry[i].function == function && table->entry[i].index == index)
            return &table->entry[i];
    return NULL;
}

static void drop_function(struct cpuid_table *table, uint32_t function)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < table->nent; i++)
        if (table->entry[i].function != function)
            table->entry[kept++] = table->entry[i];
    table->nent = kept;
}

static unsigned bits_for(unsigned count)
{
    return count > 1 ? 32u - (unsigned)__builtin_clz(count - 1) : 0;
}

/* One package of single-threaded cores. */
static void set_topology_leaf(struct cpuid_table *table, unsigned id, unsigned cpus)
{
    struct kvm_cpuid_entry2 *first = cpuid_find(table, 0, 0);
    drop_function(table, 0xb);
    drop_function(table, 0x1f);
    if (!first || first->eax < 0xb || table->nent + 3 > CPUID_ENTRIES_MAX)
        return;
    const struct {
        uint32_t shift, count, type;
    } level[] = {{0, 1, TOPOLOGY_SMT}, {bits_for(cpus), cpus, TOPOLOGY_CORE}, {0, 0, 0}};
    for (uint32_t i = 0; i < 3; i++)
        table->entry[table->nent++] = (struct kvm_cpuid_entry2){
            .function = 0xb,
            .index = i,
            .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .eax = level[i].shift,
            .ebx = level[i].count,
            .ecx = i | level[i].type << 8,
            .edx = id,
        };
}

static void set_cache_sharing(struct kvm_cpuid_entry2 *e, unsigned cpus)
{
    unsigned level = e->eax >> 5 & 7, sharing = level >= 3 ? cpus - 1 : 0;
    e->eax = (e->eax & ~(0xfffu << 14)) | sharing << 14;
    if (e->function == 4)
        e->eax = (e->eax & ~(0x3fu << 26)) | (cpus - 1) << 26;
}

void cpuid_for_vcpu(struct cpuid_table *table, unsigned id, unsigned cpus)
{
    for (uint32_t i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 *e = &table->entry[i];
        switch (e->function) {
        case 1:
            e->ebx = (e->ebx & 0xffffu) | cpus << 16 | id << 24;
            e->edx = cpus > 1 ? e->edx | LEAF1_EDX_HTT : e->edx & ~LEAF1_EDX_HTT;
            break;
        case 4:
        case 0x8000001d:
            if (e->eax & 0x1f)
                set_cache_sharing(e, cpus);
            break;
        case 0x80000008:
            e->ecx = bits_for(cpus) << 12 | (cpus - 1);
            break;
        case 0x8000001e:
            e->eax = id;
            e->ebx = id; /* core id, one thread a core */
            e->ecx = 0;  /* node 0 of one */
            break;
        default:
            break;
        }
    }
    set_topology_leaf(table, id, cpus);
}

int cpuid_apply(const struct arch_cpu_model *model, int vcpu_fd, unsigned id, unsigned cpus, struct err *err)
{
    struct cpuid_table table = model->table;
    cpuid_for_vcpu(&table, id, cpus);
    if (ioctl(vcpu_fd, KVM_SET_CPUID2, &table) < 0)
        return err_set(err, -errno, "KVM refused the CPUID of vCPU %u: %s", id, strerror(errno));
    return 0;
}

static int read_supported(int kvm_fd, struct cpuid_table *table, struct err *err)
{
    table->nent = CPUID_ENTRIES_MAX - 4; /* room for the topology leaves */
    if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, table) < 0)
        return err_set(err, -errno, "KVM did not tell its CPUID (KVM_GET_SUPPORTED_CPUID): %s",
                       strerror(errno));
    struct kvm_cpuid_entry2 *leaf1 = cpuid_find(table, 1, 0);
    if (!leaf1)
        return err_set(err, -ENOTSUP, "KVM's CPUID has no leaf 1");
    leaf1->ecx |= LEAF1_ECX_HYPERVISOR | LEAF1_ECX_X2APIC;
    /* KVM lists this bit only by capability: it needs the in-kernel local APIC, which we use. */
    leaf1->ecx &= ~LEAF1_ECX_TSC_DEADLINE;
    if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
        leaf1->ecx |= LEAF1_ECX_TSC_DEADLINE;
    return 0;
}

int arch_cpu_model_create(int kvm_fd, const char *name, struct arch_cpu_model **out, struct err *err)
{
    struct arch_cpu_model *model = calloc(1, sizeof(*model));
    if (!model)
        return err_set(err, -ENOMEM, "no memory for the CPU model");
    int r = read_supported(kvm_fd, &model->table, err);
    if (r == 0 && name && strcmp(name, "host") != 0)
        r = cpuid_restrict(&model->table, name, err);
    if (r < 0) {
        free(model);
        return r;
    }
    *out = model;
    return 0;
}

void arch_cpu_model_free(struct arch_cpu_model *model)
{
    free(model);
}
