/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor on what the kernel gives to processes. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <liburing.h>

#include "vmm/doctor.h"

#define NOFILE_WANTED  1024u
#define MEMLOCK_WANTED (1024ULL * 1024)

static void look_at_io_uring(struct doctor_report *report)
{
    struct io_uring ring;
    int code = io_uring_queue_init(4, &ring, 0);
    if (code == 0) {
        io_uring_queue_exit(&ring);
        doctor_note(report, DOCTOR_OK, "io_uring", NULL, "works");
        return;
    }
    char disabled[16] = "";
    const char *mend = "disks fall back to the sync engine; allow io_uring in the container's seccomp policy";
    if (doctor_read_line("/proc/sys/kernel/io_uring_disabled", disabled, sizeof(disabled)) == 0 &&
        strcmp(disabled, "0") != 0)
        mend = "disks fall back to the sync engine; sysctl -w kernel.io_uring_disabled=0 allows it";
    doctor_note(report, DOCTOR_WARN, "io_uring", mend, "%s%s%s", strerror(-code),
                *disabled ? ", kernel.io_uring_disabled=" : "", disabled);
}

static void look_at_secret_memory(struct doctor_report *report)
{
    int fd = (int)syscall(SYS_memfd_secret, 0);
    if (fd >= 0) {
        close(fd);
        doctor_note(report, DOCTOR_OK, "memfd_secret", NULL, "works: keys live outside the kernel's own map");
        return;
    }
    doctor_note(report, DOCTOR_WARN, "memfd_secret",
                "keys live in locked memory instead; boot the host with secretmem.enable=1", "%s",
                strerror(errno));
}

static void look_at_limit(struct doctor_report *report, const char *what, int resource, rlim_t wanted,
                          const char *mend)
{
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)resource, &limit) < 0)
        return;
    enum doctor_level level = limit.rlim_cur >= wanted ? DOCTOR_OK : DOCTOR_WARN;
    if (limit.rlim_cur == RLIM_INFINITY)
        doctor_note(report, level, what, mend, "unlimited");
    else
        doctor_note(report, level, what, mend, "%llu, %llu wanted", (unsigned long long)limit.rlim_cur,
                    (unsigned long long)wanted);
}

void doctor_look_at_kernel(struct doctor_report *report)
{
    look_at_io_uring(report);
    look_at_secret_memory(report);
    look_at_limit(report, "locked memory", RLIMIT_MEMLOCK, MEMLOCK_WANTED, "raise it: ulimit -l 1024");
    look_at_limit(report, "open files", RLIMIT_NOFILE, NOFILE_WANTED, "raise it: ulimit -n 1024");
}
