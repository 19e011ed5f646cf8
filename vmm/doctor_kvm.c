/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor on KVM. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "minivmm/arch.h"
#include "minivmm/bytes.h"
#include "vmm/doctor.h"

#define API_VERSION 12

static const struct {
    const char *name;
    int cap;
    bool needed;
} capabilities[] = {
    {"USER_MEMORY", KVM_CAP_USER_MEMORY, true},
    {"IRQCHIP", KVM_CAP_IRQCHIP, true},
    {"IRQFD", KVM_CAP_IRQFD, true},
    {"IOEVENTFD", KVM_CAP_IOEVENTFD, true},
    {"IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT, true},
    {"SET_TSS_ADDR", KVM_CAP_SET_TSS_ADDR, true},
    {"SET_IDENTITY_MAP_ADDR", KVM_CAP_SET_IDENTITY_MAP_ADDR, true},
    {"EXT_CPUID", KVM_CAP_EXT_CPUID, true},
    {"MP_STATE", KVM_CAP_MP_STATE, true},
    {"READONLY_MEM", KVM_CAP_READONLY_MEM, false},
    {"TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER, false},
    {"PIT2", KVM_CAP_PIT2, false},
    {"ADJUST_CLOCK", KVM_CAP_ADJUST_CLOCK, false},
};

static void note_open_failure(struct doctor_report *report, const char *path, int code)
{
    const char *mend = "find out what holds it";
    if (code == ENOENT || code == ENODEV || code == ENXIO)
        mend = "switch on VT-x or AMD-V (SVM) in the firmware, or nested virtualization in the host of a "
               "virtual "
               "machine, and modprobe kvm_intel or kvm_amd";
    else if (code == EACCES || code == EPERM)
        mend = "join the group that owns it, usually: sudo usermod -aG kvm $USER, then log in again";
    doctor_note(report, DOCTOR_FAIL, "KVM device", mend, "%s: %s", path, strerror(code));
}

/* Joins the names of the capabilities that are missing, needed or not; how many. */
static unsigned missing(int fd, bool needed, char *names, size_t size)
{
    unsigned count = 0;
    size_t at = 0;
    names[0] = '\0';
    for (unsigned i = 0; i < ARRAY_SIZE(capabilities); i++) {
        if (capabilities[i].needed != needed || ioctl(fd, KVM_CHECK_EXTENSION, capabilities[i].cap) > 0)
            continue;
        int n = snprintf(names + at, size - at, "%s%s", count++ ? ", " : "", capabilities[i].name);
        if (n > 0 && (size_t)n < size - at)
            at += (size_t)n;
    }
    return count;
}

static void look_at_capabilities(struct doctor_report *report, int fd)
{
    char names[200];
    if (missing(fd, true, names, sizeof(names)) > 0)
        doctor_note(report, DOCTOR_FAIL, "KVM capabilities", "run a newer kernel", "missing: %s", names);
    else if (missing(fd, false, names, sizeof(names)) > 0)
        doctor_note(report, DOCTOR_WARN, "KVM capabilities", "a newer kernel may have them",
                    "all that are needed; missing: %s", names);
    else
        doctor_note(report, DOCTOR_OK, "KVM capabilities", NULL, "all that minivmm uses");
    int most = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    int advised = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS);
    if (most >= (int)ARCH_VCPUS_MAX)
        doctor_note(report, DOCTOR_OK, "vCPUs", NULL, "up to %d in a VM, %d advised", most, advised);
    else
        doctor_note(report, DOCTOR_WARN, "vCPUs", "keep --cpus within that",
                    "up to %d in a VM, fewer than the %u of --cpus", most, ARCH_VCPUS_MAX);
}

static void look_at_native(struct doctor_report *report, int fd)
{
    char why[128] = "";
    int code = arch_probe_native(fd, why, sizeof(why));
    if (code == 0)
        doctor_note(report, DOCTOR_OK, "guest kernel code", NULL, "runs natively");
    else if (code > 0)
        doctor_note(report, DOCTOR_WARN, "guest kernel code",
                    "stock Linux kernels can't boot on it; use the testbed: make boot",
                    "this KVM emulates it (%s)", why);
    else
        doctor_note(report, DOCTOR_FAIL, "guest kernel code", "see the kernel's log (dmesg)",
                    "the probe could not run: %s%s%s", strerror(-code), *why ? ": " : "", why);
}

void doctor_look_at_kvm(struct doctor_report *report, const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        note_open_failure(report, path, errno);
        return;
    }
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != API_VERSION) {
        doctor_note(report, DOCTOR_FAIL, "KVM device", "name the KVM device with --kvm",
                    "%s is not a KVM device of version %d", path, API_VERSION);
    } else {
        doctor_note(report, DOCTOR_OK, "KVM device", NULL, "%s, interface version %d", path, version);
        look_at_capabilities(report, fd);
        look_at_native(report, fd);
    }
    close(fd);
}
