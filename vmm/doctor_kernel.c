/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor on what the kernel gives to processes. */
#include <errno.h>
#include <linux/landlock.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
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

static void look_at_landlock(struct doctor_report *report)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi > 0)
        doctor_note(report, DOCTOR_OK, "Landlock", NULL, "interface version %ld", abi);
    else
        doctor_note(report, DOCTOR_WARN, "Landlock",
                    "a VM's process has one fence less; boot the host with landlock first in lsm=", "%s",
                    strerror(errno));
}

/* In a child, since a process that made a namespace stays in it. */
static void look_at_user_namespaces(struct doctor_report *report)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0)
        _exit(unshare(CLONE_NEWUSER) == 0 ? 0 : errno);
    if (child > 0)
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
    if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        doctor_note(report, DOCTOR_OK, "user namespaces", NULL, "can be made");
    else
        doctor_note(report, DOCTOR_WARN, "user namespaces",
                    "see sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone",
                    "can't be made: %s",
                    child > 0 && WIFEXITED(status) ? strerror(WEXITSTATUS(status)) : "no answer");
}

static void look_at_cgroups(struct doctor_report *report)
{
    struct statfs fs;
    if (statfs("/sys/fs/cgroup", &fs) < 0) {
        doctor_note(report, DOCTOR_WARN, "cgroups", "mount cgroup2 at /sys/fs/cgroup to limit VMs",
                    "not mounted");
        return;
    }
    int version = fs.f_type == CGROUP2_SUPER_MAGIC ? 2 : 1;
    char line[512] = "", folder[600];
    const char *own = NULL;
    if (version == 2 && doctor_read_line("/proc/self/cgroup", line, sizeof(line)) == 0)
        own = strstr(line, "::");
    snprintf(folder, sizeof(folder), "/sys/fs/cgroup%s", own ? own + 2 : "");
    if (access(folder, W_OK) == 0)
        doctor_note(report, DOCTOR_OK, "cgroups", NULL, "version %d, writable here", version);
    else
        doctor_note(report, DOCTOR_WARN, "cgroups",
                    "limits on VMs need a delegated group: systemd-run --user --scope -p Delegate=yes",
                    "version %d, not delegated to this user", version);
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
    look_at_landlock(report);
    look_at_user_namespaces(report);
    look_at_cgroups(report);
    look_at_limit(report, "locked memory", RLIMIT_MEMLOCK, MEMLOCK_WANTED, "raise it: ulimit -l 1024");
    look_at_limit(report, "open files", RLIMIT_NOFILE, NOFILE_WANTED, "raise it: ulimit -n 1024");
}
