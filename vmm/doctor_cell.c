/* SPDX-License-Identifier: Apache-2.0 */
/* The doctor on the walls of a VM's cell. What can't be undone is tried in a child that ends with it. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <liburing.h>

#include "minivmm/bytes.h"
#include "vmm/cgroup.h"
#include "vmm/doctor.h"

#define NO_ANSWER 255

static const struct {
    const char *name;
    int flag;
} namespaces[] = {
    {"mount", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
    {"ipc", CLONE_NEWIPC},  {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP},
};

/* What trial() gives in a child: 0..254, or NO_ANSWER when the child did not end by itself. */
static int in_child(int (*trial)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(trial());
    if (child < 0)
        return NO_ANSWER;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return NO_ANSWER;
    return WIFEXITED(status) ? WEXITSTATUS(status) : NO_ANSWER;
}

static const char *in_words(int error)
{
    return error == NO_ANSWER ? "no answer" : strerror(error);
}

static bool is_set_to(const char *sysctl, const char *value)
{
    char line[32];
    return doctor_read_line(sysctl, line, sizeof(line)) == 0 && strcmp(line, value) == 0;
}

/* What stands in the way of user namespaces; the general advice last. */
static const char *user_namespaces_mend(void)
{
    if (is_set_to("/proc/sys/kernel/unprivileged_userns_clone", "0"))
        return "sysctl -w kernel.unprivileged_userns_clone=1";
    if (is_set_to("/proc/sys/user/max_user_namespaces", "0"))
        return "sysctl -w user.max_user_namespaces=10000";
    if (is_set_to("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"))
        return "give minivmm an AppArmor profile with 'userns,', or sysctl -w "
               "kernel.apparmor_restrict_unprivileged_userns=0";
    return "allow unshare(2) and clone(2) with namespaces in the container's policy; a chroot has none";
}

static int try_user_namespace(void)
{
    return unshare(CLONE_NEWUSER) == 0 ? 0 : errno;
}

/* As a VM's process makes them: within its user namespace, or as root without. A bit for each that fails. */
static int try_namespaces(void)
{
    int failed = 0;
    (void)unshare(CLONE_NEWUSER);
    for (unsigned i = 0; i < ARRAY_SIZE(namespaces); i++)
        if (unshare(namespaces[i].flag) < 0)
            failed |= 1 << i;
    return failed;
}

static void look_at_namespaces(struct doctor_report *report)
{
    const char *mend = user_namespaces_mend();
    int error = in_child(try_user_namespace);
    if (error == 0)
        doctor_note(report, DOCTOR_OK, "user namespaces", NULL, "can be made");
    else
        doctor_note(report, DOCTOR_WARN, "user namespaces", mend, "can't be made: %s", in_words(error));
    int failed = in_child(try_namespaces);
    char names[96] = "";
    size_t at = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(namespaces); i++)
        if (failed == 0 || failed & 1 << i)
            at +=
                (size_t)snprintf(names + at, sizeof(names) - at, "%s%s", at ? ", " : "", namespaces[i].name);
    if (failed == 0)
        doctor_note(report, DOCTOR_OK, "other namespaces", NULL, "%s: can be made", names);
    else
        doctor_note(report, DOCTOR_WARN, "other namespaces", mend, "can't be made: %s", names);
}

static int try_no_new_privs(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : errno;
}

static int try_filter(void)
{
    struct sock_filter allow = {.code = BPF_RET | BPF_K, .k = SECCOMP_RET_ALLOW};
    const struct sock_fprog program = {.len = 1, .filter = &allow};
    unsigned kill = SECCOMP_RET_KILL_PROCESS;
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &kill) < 0)
        return errno;
    if (try_no_new_privs() != 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        return errno;
    return 0;
}

static int try_landlock(void)
{
    const struct landlock_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE};
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (fd < 0 || try_no_new_privs() != 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        return errno;
    return 0;
}

static void look_at_fences(struct doctor_report *report)
{
    int error = in_child(try_no_new_privs);
    if (error)
        doctor_note(report, DOCTOR_FAIL, "no_new_privs", "run a newer kernel", "%s", in_words(error));
    else
        doctor_note(report, DOCTOR_OK, "no_new_privs", NULL, "can be set");
    error = in_child(try_filter);
    if (error)
        doctor_note(
            report, DOCTOR_FAIL, "seccomp filters",
            "run a kernel with CONFIG_SECCOMP_FILTER, of version 4.14 or newer; --no-sandbox runs without",
            "%s", in_words(error));
    else
        doctor_note(report, DOCTOR_OK, "seccomp filters", NULL, "work, and can kill a process");
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    error = in_child(try_landlock);
    if (error)
        doctor_note(report, DOCTOR_WARN, "Landlock",
                    "a VM's process has one fence less; boot the host with landlock first in lsm=", "%s",
                    in_words(error));
    else
        doctor_note(report, DOCTOR_OK, "Landlock", NULL, "interface version %ld", version);
}

/* An operation that is not on a restricted ring's list must come back as refused. */
static int try_ring(struct io_uring *ring)
{
    struct io_uring_restriction only = {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ};
    int code = io_uring_register_restrictions(ring, &only, 1);
    if (code == 0)
        code = io_uring_enable_rings(ring);
    if (code < 0)
        return code;
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (!sqe)
        return -EIO;
    io_uring_prep_nop(sqe);
    code = io_uring_submit_and_wait(ring, 1);
    if (code < 0 || io_uring_peek_cqe(ring, &cqe) < 0)
        return code < 0 ? code : -EIO;
    return cqe->res == -EACCES ? 0 : -EPROTO;
}

static void look_at_ring_restrictions(struct doctor_report *report)
{
    struct io_uring ring;
    int code = io_uring_queue_init(4, &ring, IORING_SETUP_R_DISABLED);
    if (code == 0) {
        code = try_ring(&ring);
        io_uring_queue_exit(&ring);
    }
    if (code == 0)
        doctor_note(report, DOCTOR_OK, "io_uring restrictions", NULL, "can be set, and hold");
    else
        doctor_note(report, DOCTOR_WARN, "io_uring restrictions",
                    "disks fall back to the sync engine; Linux 5.10 and newer have them", "%s",
                    strerror(-code));
}

static void look_at_cgroup(struct doctor_report *report, enum cgroup_controller which, const char *what)
{
    struct cgroup_place place;
    struct err err;
    if (cgroup_find("", which, &place, &err) == 0)
        doctor_note(report, DOCTOR_OK, what, NULL, "can be set in %.200s (v%u)", place.dir, place.version);
    else
        doctor_note(report, DOCTOR_WARN, what,
                    "start minivmm in a delegated group: systemd-run --user --scope -p Delegate=yes", "%s",
                    err.text);
}

void doctor_look_at_cell(struct doctor_report *report)
{
    look_at_namespaces(report);
    look_at_fences(report);
    look_at_ring_restrictions(report);
    look_at_cgroup(report, CGROUP_CPU, "--cpu-limit");
    look_at_cgroup(report, CGROUP_MEMORY, "--memory-limit");
}
