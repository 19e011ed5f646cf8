/* SPDX-License-Identifier: Apache-2.0 */
/* The walls that the VM's process puts up around itself, in the order in which each can still be put up. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <malloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/log.h"
#include "minivmm/sandbox.h"
#include "vmm/cell.h"
#include "vmm/cell_internal.h"
#include "vmm/seccomp.h"
#include "vmm/text_file.h"

#define AS_SPARE  (256UL << 20) /* bytes of address space for malloc() in the run */
#define TASKS_MAX 1024U         /* threads of a VM, with room */
#define FDS_SPARE 64U           /* of control clients and what they pass */

/* Of the process, as irreversible as the cell itself: whether threads are to close their filters. */
static bool closed;

int sandbox_thread(enum sandbox_role role, struct err *err)
{
    return closed ? seccomp_enter((enum seccomp_role)role, err) : 0;
}

#define EMPTY_FLAGS (MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* One inode: the root itself. Nothing can be made in it even where it is not read-only. */
static bool mount_empty(const char *place)
{
    return mount("minivmm", place, "tmpfs", EMPTY_FLAGS, "size=4k,nr_inodes=1,mode=0") == 0;
}

/* Nothing of the old root is left in the namespace then. */
static int pivot_to_empty(void)
{
    /* One of them is there, as a place to mount the new root on for a moment. */
    static const char *const places[] = {"/tmp", "/usr", "/run", "/dev", "/proc"};
    bool mounted = false;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    for (unsigned i = 0; !mounted && i < ARRAY_SIZE(places); i++)
        mounted = mount_empty(places[i]) && chdir(places[i]) == 0;
    if (!mounted || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0 ||
        mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | EMPTY_FLAGS, NULL) < 0)
        return -errno;
    return 0;
}

/* Settings that a kernel does not take are no loss: the mount itself is read-only. */
static int make_detached(int fs)
{
    (void)fsconfig(fs, FSCONFIG_SET_STRING, "size", "4k", 0);
    (void)fsconfig(fs, FSCONFIG_SET_STRING, "nr_inodes", "1", 0);
    (void)fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0", 0);
    if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    return fsmount(fs, FSMOUNT_CLOEXEC,
                   MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

/*
 * For a process that is in a chroot already, whose root can't be pivoted: an empty file system that is
 * mounted nowhere, so that no other namespace gets to see it. The old root stays in the namespace, but
 * without capabilities and descriptors nothing leads there.
 */
static int change_to_empty(void)
{
    int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    int root = fs < 0 ? -1 : make_detached(fs);
    int code = root < 0 || fchdir(root) < 0 || chroot(".") < 0 ? -errno : 0;
    if (root >= 0)
        close(root);
    if (fs >= 0)
        close(fs);
    return code;
}

int cell_empty_root(struct err *err)
{
    int code = pivot_to_empty();
    if (code == -EINVAL)
        code = change_to_empty();
    if (code < 0)
        return err_set(err, code, "the cell's empty root could not be made: %s (--no-sandbox runs without)",
                       strerror(-code));
    return 0;
}

/* No user namespace may be made in ours: in one, capabilities would come back. The filters forbid it as well.
 */
static void forbid_namespaces(void)
{
    (void)text_file_write("/proc/sys/user/max_user_namespaces", "0");
}

/* A container's root may have no other user than itself: it stays, and loses its capabilities alone. */
static int change_user(uid_t uid)
{
    if (uid == geteuid())
        return 0;
    /* Groups first: the user's change takes the right to do so away. */
    if (setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0)
        return 0;
    if (errno != EINVAL)
        return -errno;
    log_warn("the VM runs as user %u, since user %u is unknown in this user namespace", (unsigned)geteuid(),
             (unsigned)uid);
    return 0;
}

/* Also out of the bounding set, where that is allowed, so that no file could bring one back. */
static int drop_capabilities(const struct cell *cell, struct err *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    for (unsigned long cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
        ;
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    (void)prctl(PR_SET_SECUREBITS, SECURE_ALL_BITS | SECURE_ALL_LOCKS, 0, 0, 0);
    if (change_user(cell->uid) < 0)
        return err_set(err, -errno, "the VM's process could not give up root: %s", strerror(errno));
    if (syscall(SYS_capset, &header, none) < 0)
        return err_set(err, -errno, "capabilities could not be dropped: %s", strerror(errno));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_set(err, -errno, "no_new_privs could not be set: %s", strerror(errno));
    return 0;
}

static void limit(int what, rlim_t most)
{
    (void)setrlimit((__rlimit_resource_t)what, &(struct rlimit){most, most});
}

static bool keeper_is_gone(const struct cell *cell)
{
    struct pollfd life = {.fd = cell->life_fd, .events = POLLIN};
    return poll(&life, 1, 0) != 0;
}

/* It may hold what the user trusts programs with, but not guests. All that reads it was loaded before. */
static void wipe_environment(void)
{
    for (char **at = environ; at && *at; at++) // NOLINT(concurrency-mt-unsafe)
        explicit_bzero(*at, strlen(*at));
    (void)clearenv(); // NOLINT(concurrency-mt-unsafe)
}

int cell_close(const struct cell *cell, struct err *err)
{
    int code = 0;
    if (cell->walls == CELL_WALLS_ALL)
        forbid_namespaces();
#ifndef MINIVMM_SANITIZED /* the leak checker reads /proc and traces its own threads when the process ends   \
                           */
    if (cell->walls != CELL_WALLS_NONE)
        code = cell_empty_root(err);
#endif
    if (code == 0)
        code = drop_capabilities(cell, err);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_MSGQUEUE, 0);
    limit(RLIMIT_RTPRIO, 0);
    /* Where the user is the VM's alone. Not 0 later: KVM makes a kernel task of ours at the first KVM_RUN. */
    if (cell->uid != getuid() || cell->root)
        limit(RLIMIT_NPROC, TASKS_MAX);
    /* One arena: for another, malloc() would look into /proc and /sys when the filters are closed. */
    (void)mallopt(M_ARENA_MAX, 1);
#ifndef MINIVMM_SANITIZED
    if (code == 0)
        code = cell_landlock(err);
    if (code == 0 && prctl(PR_SET_DUMPABLE, 0) < 0)
        code = err_set(err, -errno, "the VM's process could not be made undumpable: %s", strerror(errno));
    closed = code == 0;
#endif
    /* Last, since a change of user would undo it. */
    if (code == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        code = err_set(err, -errno, "the VM's process could not be bound to its keeper: %s", strerror(errno));
    if (keeper_is_gone(cell))
        _exit(1);
    close(cell->life_fd);
    wipe_environment();
    return code;
}

/* The address space in use, in bytes; 0: unknown. */
static unsigned long mapped_bytes(int statm_fd)
{
    char text[32] = {0};
    if (statm_fd < 0 || pread(statm_fd, text, sizeof(text) - 1, 0) <= 0)
        return 0;
    return strtoul(text, NULL, 10) * (unsigned long)sysconf(_SC_PAGESIZE);
}

void cell_limit(int statm_fd)
{
    if (!closed)
        return;
    unsigned long mapped = mapped_bytes(statm_fd);
    if (mapped)
        limit(RLIMIT_AS, mapped + AS_SPARE);
    int next = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    if (next >= 0) {
        close(next);
        limit(RLIMIT_NOFILE, (rlim_t)next + FDS_SPARE);
    }
}
