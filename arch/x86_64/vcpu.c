/* SPDX-License-Identifier: Apache-2.0 */
/* One vCPU's state before its first KVM_RUN. */
#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cpuid.h"
#include "minivmm/arch.h"
#include "minivmm/bytes.h"
#include "start.h"

#define MSR_MISC_ENABLE   0x1a0u
#define MISC_FAST_STRING  0x1u
#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MTRR_ENABLED_WB   0x806u
#define APIC_LVT_LINT0    0x350u
#define APIC_LVT_LINT1    0x360u
#define APIC_DELIVER_EXT  0x700u
#define APIC_DELIVER_NMI  0x400u

static int refuse(unsigned id, const char *what, struct err *err)
{
    int code = -errno;
    return err_set(err, code, "KVM refused the %s of vCPU %u: %s", what, id, strerror(-code));
}

static int set_msrs(int vcpu_fd, unsigned id, struct err *err)
{
    struct {
        uint32_t nmsrs, padding; /* as struct kvm_msrs, whose open array can't stand inside another struct */
        struct kvm_msr_entry entry[2];
    } msrs = {.nmsrs = 1, .entry = {{.index = MSR_MISC_ENABLE}}};
    /* The other bits say what the processor lacks, and are KVM's to set. */
    if (ioctl(vcpu_fd, KVM_GET_MSRS, &msrs) < 0)
        return refuse(id, "MSRs", err);
    msrs.entry[0].data |= MISC_FAST_STRING;
    msrs.entry[1] = (struct kvm_msr_entry){.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED_WB};
    msrs.nmsrs = 2;
    /* Fewer may be set where the host lacks one; neither is needed to run. */
    return ioctl(vcpu_fd, KVM_SET_MSRS, &msrs) < 0 ? refuse(id, "MSRs", err) : 0;
}

/* As firmware leaves them: the PIC's output at LINT0, NMI at LINT1. */
static int set_local_interrupts(int vcpu_fd, unsigned id, struct err *err)
{
    struct kvm_lapic_state apic;
    if (ioctl(vcpu_fd, KVM_GET_LAPIC, &apic) < 0)
        return refuse(id, "local APIC", err);
    store_le32(apic.regs + APIC_LVT_LINT0, APIC_DELIVER_EXT);
    store_le32(apic.regs + APIC_LVT_LINT1, APIC_DELIVER_NMI);
    return ioctl(vcpu_fd, KVM_SET_LAPIC, &apic) < 0 ? refuse(id, "local APIC", err) : 0;
}

static int set_start(int vcpu_fd, const struct arch_entry *entry, struct err *err)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return refuse(0, "start registers", err);
    start_registers(entry, &regs, &sregs);
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return refuse(0, "start registers", err);
    return 0;
}

int arch_vcpu_init(int kvm_fd, int vcpu_fd, unsigned id, unsigned cpus, const struct arch_cpu_model *model,
                   const struct arch_entry *entry, struct err *err)
{
    (void)kvm_fd;
    int r = cpuid_apply(model, vcpu_fd, id, cpus, err);
    if (r == 0)
        r = set_msrs(vcpu_fd, id, err);
    if (r == 0)
        r = set_local_interrupts(vcpu_fd, id, err);
    /* The others stay where KVM put them: waiting for INIT and SIPI. */
    if (r == 0 && id == 0)
        r = set_start(vcpu_fd, entry, err);
    return r;
}
