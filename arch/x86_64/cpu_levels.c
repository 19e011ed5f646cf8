/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named CPU models for fleets: the x86-64 psABI's levels, as allow-lists. A guest that runs on one host under
 * a name finds the same features on every other host that accepts the name.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cpuid.h"
#include "minivmm/bytes.h"

enum { EAX, EBX, ECX, EDX };

#define LEVELS_MAX     4u
#define NOT_REQUIRED   0u /* allowed where the host has it, at every level */
#define XCR0_X87_SSE   0x3u
#define XCR0_AVX       0x4u
#define XCR0_AVX512    0xe0u
#define LEAF_PMU       0xau
#define LEAF_XSAVE     0xdu
#define LEAF_TRACE     0x14u
#define XSAVE_SUBLEAF1 0x1u /* XSAVEOPT */

/* Leaves whose feature words are cut down to what is listed in feature[]. */
static const struct {
    uint32_t function, index;
    uint8_t reg;
} words[] = {
    {1, 0, ECX}, {1, 0, EDX}, {7, 0, EBX},          {7, 0, ECX},          {7, 0, EDX},
    {7, 1, EAX}, {7, 1, EDX}, {0x80000001, 0, ECX}, {0x80000001, 0, EDX},
};

static const struct {
    uint32_t function;
    uint8_t reg, bit, level;
    const char *name;
} feature[] = {
    /* The baseline: what long mode, Linux and KVM's platform stand on. */
    {1, EDX, 0, 1, "fpu"},
    {1, EDX, 1, NOT_REQUIRED, "vme"},
    {1, EDX, 2, NOT_REQUIRED, "de"},
    {1, EDX, 3, 1, "pse"},
    {1, EDX, 4, 1, "tsc"},
    {1, EDX, 5, 1, "msr"},
    {1, EDX, 6, 1, "pae"},
    {1, EDX, 7, NOT_REQUIRED, "mce"},
    {1, EDX, 8, 1, "cx8"},
    {1, EDX, 9, 1, "apic"},
    {1, EDX, 11, NOT_REQUIRED, "sep"},
    {1, EDX, 12, NOT_REQUIRED, "mtrr"},
    {1, EDX, 13, 1, "pge"},
    {1, EDX, 14, NOT_REQUIRED, "mca"},
    {1, EDX, 15, 1, "cmov"},
    {1, EDX, 16, NOT_REQUIRED, "pat"},
    {1, EDX, 17, NOT_REQUIRED, "pse36"},
    {1, EDX, 19, 1, "clflush"},
    {1, EDX, 23, 1, "mmx"},
    {1, EDX, 24, 1, "fxsr"},
    {1, EDX, 25, 1, "sse"},
    {1, EDX, 26, 1, "sse2"},
    {1, EDX, 28, NOT_REQUIRED, "ht"},
    {1, ECX, 21, NOT_REQUIRED, "x2apic"},
    {1, ECX, 24, NOT_REQUIRED, "tsc-deadline"},
    {1, ECX, 31, NOT_REQUIRED, "hypervisor"},
    {0x80000001, EDX, 11, 1, "syscall"},
    {0x80000001, EDX, 20, 1, "nx"},
    {0x80000001, EDX, 26, NOT_REQUIRED, "pdpe1gb"},
    {0x80000001, EDX, 27, NOT_REQUIRED, "rdtscp"},
    {0x80000001, EDX, 29, 1, "lm"},
    {7, EBX, 7, NOT_REQUIRED, "smep"},
    {7, EBX, 20, NOT_REQUIRED, "smap"},
    {7, EBX, 9, NOT_REQUIRED, "erms"},
    /* Mitigations belong to the host's silicon, not to the model: a guest must see them. */
    {7, EDX, 10, NOT_REQUIRED, "md-clear"},
    {7, EDX, 26, NOT_REQUIRED, "spec-ctrl"},
    {7, EDX, 27, NOT_REQUIRED, "stibp"},
    {7, EDX, 29, NOT_REQUIRED, "arch-capabilities"},
    {7, EDX, 31, NOT_REQUIRED, "ssbd"},
    /* x86-64-v2 */
    {1, ECX, 0, 2, "sse3"},
    {1, ECX, 9, 2, "ssse3"},
    {1, ECX, 13, 2, "cx16"},
    {1, ECX, 19, 2, "sse4.1"},
    {1, ECX, 20, 2, "sse4.2"},
    {1, ECX, 23, 2, "popcnt"},
    {0x80000001, ECX, 0, 2, "lahf"},
    /* x86-64-v3 */
    {1, ECX, 12, 3, "fma"},
    {1, ECX, 22, 3, "movbe"},
    {1, ECX, 26, 3, "xsave"},
    {1, ECX, 28, 3, "avx"},
    {1, ECX, 29, 3, "f16c"},
    {7, EBX, 3, 3, "bmi1"},
    {7, EBX, 5, 3, "avx2"},
    {7, EBX, 8, 3, "bmi2"},
    {0x80000001, ECX, 5, 3, "lzcnt"},
    /* x86-64-v4 */
    {7, EBX, 16, 4, "avx512f"},
    {7, EBX, 17, 4, "avx512dq"},
    {7, EBX, 28, 4, "avx512cd"},
    {7, EBX, 30, 4, "avx512bw"},
    {7, EBX, 31, 4, "avx512vl"},
};

static const char *const names[] = {"host", "x86-64-v1", "x86-64-v2", "x86-64-v3", "x86-64-v4", NULL};

const char *const *arch_cpu_names(void)
{
    return names;
}

static uint32_t *word_of(struct kvm_cpuid_entry2 *e, unsigned reg)
{
    uint32_t *const regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};
    return regs[reg];
}

static bool host_has(struct cpuid_table *table, size_t i)
{
    struct kvm_cpuid_entry2 *e = cpuid_find(table, feature[i].function, 0);
    return e && *word_of(e, feature[i].reg) >> feature[i].bit & 1;
}

static int check_host(struct cpuid_table *table, const char *name, unsigned level, struct err *err)
{
    char lacks[256];
    size_t used = 0;
    for (size_t i = 0; i < ARRAY_SIZE(feature); i++) {
        if (feature[i].level == NOT_REQUIRED || feature[i].level > level || host_has(table, i))
            continue;
        int n = snprintf(lacks + used, sizeof(lacks) - used, " %s", feature[i].name);
        used += n > 0 && (size_t)n < sizeof(lacks) - used ? (size_t)n : 0;
    }
    if (used)
        return err_set(err, -EINVAL, "--cpu %s: this host lacks%s; choose a lower model", name, lacks);
    return 0;
}

static uint32_t allowed(uint32_t function, uint32_t index, unsigned reg, unsigned level)
{
    uint32_t mask = 0;
    for (size_t i = 0; i < ARRAY_SIZE(feature); i++)
        if (index == 0 && feature[i].function == function && feature[i].reg == reg &&
            feature[i].level <= level)
            mask |= 1u << feature[i].bit;
    return mask;
}

/* Saved state that belongs to features which are masked must go too, or the guest would try to use it. */
static void restrict_xsave(struct cpuid_table *table, unsigned level)
{
    uint32_t components = level < 3 ? 0 : XCR0_X87_SSE | XCR0_AVX | (level >= 4 ? XCR0_AVX512 : 0);
    for (uint32_t i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 *e = &table->entry[i];
        if (e->function != LEAF_XSAVE)
            continue;
        if (e->index == 0 && components) {
            e->eax &= components;
            e->edx = 0;
        } else if (e->index == 1 && components) {
            e->eax &= XSAVE_SUBLEAF1;
            e->ecx = e->edx = 0;
        } else if (e->index >= 32 || !(components >> e->index & 1)) {
            e->eax = e->ebx = e->ecx = e->edx = 0;
        }
    }
}

static unsigned level_of(const char *name)
{
    for (unsigned i = 1; i <= LEVELS_MAX; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return 0;
}

int cpuid_restrict(struct cpuid_table *table, const char *name, struct err *err)
{
    unsigned level = level_of(name);
    if (!level)
        return err_set(err, -EINVAL,
                       "--cpu: there is no CPU model '%s'; host, x86-64-v1, x86-64-v2, x86-64-v3 and "
                       "x86-64-v4 are there",
                       name);
    int r = check_host(table, name, level, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        struct kvm_cpuid_entry2 *e = cpuid_find(table, words[i].function, words[i].index);
        if (e)
            *word_of(e, words[i].reg) &= allowed(words[i].function, words[i].index, words[i].reg, level);
    }
    restrict_xsave(table, level);
    /* Performance counters and processor trace differ from model to model. */
    for (uint32_t i = 0; i < table->nent; i++)
        if (table->entry[i].function == LEAF_PMU || table->entry[i].function == LEAF_TRACE)
            table->entry[i].eax = table->entry[i].ebx = table->entry[i].ecx = table->entry[i].edx = 0;
    return 0;
}
