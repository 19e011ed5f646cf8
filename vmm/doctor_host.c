/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor on processor, memory and folders. */
#include <cpuid.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/doctor.h"

#define LEAF1_ECX_AES  (1u << 25)
#define LEAF1_ECX_VMX  (1u << 5)
#define LEAF7_ECX_VAES (1u << 9)
#define EXT1_ECX_SVM   (1u << 2)

static void look_at_processor(struct doctor_report *report)
{
    unsigned a, b, c = 0, d, ext = 0, seven = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        c = 0;
    if (!__get_cpuid(0x80000001, &a, &b, &ext, &d))
        ext = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &seven, &d))
        seven = 0;
    if (c & LEAF1_ECX_VMX || ext & EXT1_ECX_SVM)
        doctor_note(report, DOCTOR_OK, "processor virtualization", NULL, "%s",
                    c & LEAF1_ECX_VMX ? "VT-x" : "AMD-V (SVM)");
    else
        doctor_note(
            report, DOCTOR_WARN, "processor virtualization",
            "switch it on in the firmware, or nested virtualization in the host of this virtual machine",
            "neither VT-x nor AMD-V (SVM) is shown");
    if (c & LEAF1_ECX_AES)
        doctor_note(report, DOCTOR_OK, "AES instructions", NULL,
                    seven & LEAF7_ECX_VAES ? "AES-NI and VAES" : "AES-NI");
    else
        doctor_note(report, DOCTOR_WARN, "AES instructions", "disk encryption will be slow on this processor",
                    "none");
}

static void look_at_hugepages(struct doctor_report *report)
{
    char count[32], mode[64];
    const char *file = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    if (doctor_read_line(file, count, sizeof(count)) < 0)
        snprintf(count, sizeof(count), "no");
    bool none = strtoul(count, NULL, 10) == 0;
    doctor_note(report, none ? DOCTOR_WARN : DOCTOR_OK, "2 MiB pages",
                "--hugepages needs some: sysctl -w vm.nr_hugepages=N, half the MiB of --memory", "%s free",
                count);
    if (doctor_read_line("/sys/kernel/mm/transparent_hugepage/enabled", mode, sizeof(mode)) < 0)
        doctor_note(report, DOCTOR_WARN, "transparent huge pages", "the kernel is built without them",
                    "absent");
    else
        doctor_note(report, strstr(mode, "[never]") ? DOCTOR_WARN : DOCTOR_OK, "transparent huge pages",
                    "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled", "%s", mode);
}

/* The deepest folder on the way to path that exists: what mkdir would have to write to. */
static void existing_parent(char *path)
{
    struct stat st;
    while (stat(path, &st) < 0 && errno == ENOENT) {
        char *slash = strrchr(path, '/');
        if (!slash || slash == path)
            break;
        *slash = '\0';
    }
}

static void look_at_run_folder(struct doctor_report *report)
{
    char path[512], parent[512];
    const char *named = getenv("MINIVMM_RUN_DIR"), *runtime = getenv("XDG_RUNTIME_DIR");
    if (named && *named) {
        snprintf(path, sizeof(path), "%s", named);
    } else if (geteuid() == 0) {
        snprintf(path, sizeof(path), "/run/minivmm");
    } else if (runtime && *runtime) {
        snprintf(path, sizeof(path), "%.*s/minivmm", 400, runtime);
    } else {
        doctor_note(report, DOCTOR_WARN, "run folder",
                    "set XDG_RUNTIME_DIR or MINIVMM_RUN_DIR, or use --no-control",
                    "no place for control sockets is known");
        return;
    }
    memcpy(parent, path, sizeof(parent));
    existing_parent(parent);
    if (access(parent, W_OK | X_OK) == 0)
        doctor_note(report, DOCTOR_OK, "run folder", NULL, "%.200s is writable", path);
    else
        doctor_note(report, DOCTOR_WARN, "run folder",
                    "set MINIVMM_RUN_DIR to a folder of yours, or use --no-control", "%.200s: %s", path,
                    strerror(errno));
}

void doctor_look_at_host(struct doctor_report *report)
{
    look_at_processor(report);
    look_at_hugepages(report);
    look_at_run_folder(report);
}
