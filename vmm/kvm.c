/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "minivmm/bytes.h"

#define API_VERSION 12 /* the only one there is since Linux 2.6.22 */

static const struct {
    int cap;
    const char *name;
} needed[] = {
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},           {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"}, {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},         {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},       {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

static int open_failed(const char *path, int code, struct err *err)
{
    switch (-code) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return err_set(
            err, code,
            "--kvm: there is no KVM device at %s: switch on virtualization in the firmware (in a virtual "
            "machine: nested virtualization) and load the module kvm_intel or kvm_amd",
            path);
    case EACCES:
    case EPERM:
        return err_set(
            err, code,
            "--kvm: no permission to open %s: join the group that owns it (usually: sudo usermod -aG kvm "
            "$USER, then log in again)",
            path);
    default:
        return err_set(err, code, "--kvm: %s could not be opened: %s", path, strerror(-code));
    }
}

static int check(int fd, const char *path, unsigned cpus, struct err *err)
{
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return err_set(err, -ENOTTY, "--kvm: %s is not a KVM device", path);
    if (version != API_VERSION)
        return err_set(err, -ENOTSUP,
                       "--kvm: %s speaks version %d of the KVM interface, minivmm needs version %d", path,
                       version, API_VERSION);
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
        if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
            return err_set(err, -ENOTSUP,
                           "--kvm: the KVM at %s lacks %s, which minivmm needs: use a newer kernel", path,
                           needed[i].name);
    int most = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (most > 0 && cpus > (unsigned)most)
        return err_set(err, -EINVAL, "--cpus: %u, but this host's KVM runs at most %d vCPUs in a VM", cpus,
                       most);
    return 0;
}

int kvm_open(const char *path, unsigned cpus, struct err *err)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return open_failed(path, -errno, err);
    int code = check(fd, path, cpus, err);
    if (code < 0) {
        close(fd);
        return code;
    }
    return fd;
}

int kvm_create_vm(int kvm_fd, struct err *err)
{
    int fd;
    /* A signal may interrupt the creation on busy hosts; nothing was made then. */
    do
        fd = ioctl(kvm_fd, KVM_CREATE_VM, 0UL);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return err_set(err, -errno, "KVM could not create a VM: %s", strerror(errno));
    return fd;
}

int kvm_set_memory(int vm_fd, const struct guest_memory *mem, struct err *err)
{
    for (unsigned i = 0; i < mem->count; i++) {
        const struct guest_region *r = &mem->region[i];
        struct kvm_userspace_memory_region slot = {
            .slot = i,
            .flags = r->readonly ? KVM_MEM_READONLY : 0,
            .guest_phys_addr = r->gpa,
            .memory_size = r->size,
            .userspace_addr = (uintptr_t)r->hva,
        };
        if (ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
            return err_set(err, -errno, "KVM did not take %llu bytes of guest memory at %#llx: %s",
                           (unsigned long long)r->size, (unsigned long long)r->gpa, strerror(errno));
    }
    return 0;
}

int kvm_connect_irq(int vm_fd, unsigned gsi, int event_fd, struct err *err)
{
    struct kvm_irqfd irq = {.fd = (uint32_t)event_fd, .gsi = gsi};
    if (ioctl(vm_fd, KVM_IRQFD, &irq) < 0)
        return err_set(err, -errno, "KVM did not connect interrupt line %u: %s", gsi, strerror(errno));
    return 0;
}

int kvm_connect_kick(int vm_fd, uint64_t addr, uint32_t value, int event_fd, struct err *err)
{
    struct kvm_ioeventfd kick = {
        .datamatch = value,
        .addr = addr,
        .len = sizeof(uint32_t),
        .fd = event_fd,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
    };
    if (ioctl(vm_fd, KVM_IOEVENTFD, &kick) < 0)
        return err_set(err, -errno, "KVM did not connect the notification of queue %u at %#llx: %s", value,
                       (unsigned long long)addr, strerror(errno));
    return 0;
}
