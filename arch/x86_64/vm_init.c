/* SPDX-License-Identifier: Apache-2.0 */
/* Everything between KVM_CREATE_VM and the first vCPU. */
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "layout.h"
#include "minivmm/arch.h"

static int refuse(const char *what, struct err *err)
{
    int code = -errno;
    return err_set(err, code, "KVM refused %s: %s", what, strerror(-code));
}

int arch_vm_init(int kvm_fd, int vm_fd, struct err *err)
{
    (void)kvm_fd;
    /* Intel hosts without unrestricted guest need both ranges, out of the way of memory and devices. */
    uint64_t identity_map = LAYOUT_IDENTITY_MAP;
    if (ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return refuse("the identity map address (KVM_SET_IDENTITY_MAP_ADDR)", err);
    if (ioctl(vm_fd, KVM_SET_TSS_ADDR, LAYOUT_TSS) < 0)
        return refuse("the TSS address (KVM_SET_TSS_ADDR)", err);
    if (ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return refuse("an interrupt controller (KVM_CREATE_IRQCHIP)", err);
    /* For guests without kvmclock, which calibrate their clocks against it. */
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    if (ioctl(vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return refuse("an interval timer (KVM_CREATE_PIT2)", err);
    return 0;
}
