/* SPDX-License-Identifier: Apache-2.0 */
/* Attempts on files: by path, by descriptors that lie about, by a changed root. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include <sys/ioctl.h>

#include "hostile.h"
#include "minivmm/bytes.h"

#define DESCRIPTORS 1024

static long open_path(const char *path)
{
    return TRY(SYS_openat, AT_FDCWD, path, O_RDONLY);
}

static long open_passwd(void)
{
    return open_path("/etc/passwd");
}

static long open_passwd_the_old_way(void)
{
    return TRY(SYS_open, "/etc/passwd", O_RDONLY);
}

static long open_passwd_by_openat2(void)
{
    const struct open_how how = {.flags = O_RDONLY};
    return TRY(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof(how));
}

static long open_passwd_upwards(void)
{
    return open_path("../../../../../../etc/passwd");
}

static long open_kvm(void)
{
    return open_path(hostile.kvm);
}

static long open_slot_map(void)
{
    return open_path(hostile.slot_map);
}

static long open_key_file(void)
{
    return open_path(hostile.key_file);
}

static long open_own_disk(void)
{
    return open_path(hostile.disk);
}

static long open_other_disk(void)
{
    return open_path(hostile.victim_disk);
}

static long open_dev_mem(void)
{
    return open_path("/dev/mem");
}

static long open_own_mem(void)
{
    return open_path("/proc/self/mem");
}

static long open_other_mem(void)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)hostile.victim);
    return open_path(path);
}

static long open_root(void)
{
    return TRY(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY);
}

static long open_by_handle(void)
{
    struct {
        struct file_handle head;
        unsigned char bytes[8];
    } handle = {.head = {.handle_bytes = 8, .handle_type = 1}};
    return TRY(SYS_open_by_handle_at, AT_FDCWD, &handle, O_RDONLY);
}

static long create_file(void)
{
    return TRY(SYS_openat, AT_FDCWD, "/new", O_RDWR | O_CREAT, 0600);
}

static long create_shared_file(void)
{
    return TRY(SYS_openat, AT_FDCWD, "/dev/shm/new", O_RDWR | O_CREAT, 0600);
}

static long create_nameless_file(void)
{
    return TRY(SYS_openat, AT_FDCWD, "/", O_RDWR | O_TMPFILE, 0600);
}

static long make_directory(void)
{
    return TRY(SYS_mkdir, "/new", 0700);
}

static long make_link(void)
{
    return TRY(SYS_symlink, "/etc", "/new");
}

static long make_device(void)
{
    return TRY(SYS_mknod, "/new", S_IFCHR | 0600, makedev(1, 1));
}

static long do_mount(void)
{
    return TRY(SYS_mount, "new", "/", "tmpfs", 0, 0);
}

static long do_mount_proc(void)
{
    return TRY(SYS_mount, "new", "/", "proc", 0, 0);
}

static long do_remount(void)
{
    return TRY(SYS_mount, 0, "/", 0, MS_REMOUNT | MS_BIND, 0);
}

static long do_umount(void)
{
    return TRY(SYS_umount2, "/", MNT_DETACH);
}

static long do_fsopen(void)
{
    return TRY(SYS_fsopen, "tmpfs", 0);
}

static long do_open_tree(void)
{
    return TRY(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE);
}

static long do_pivot_root(void)
{
    return TRY(SYS_pivot_root, "/", "/");
}

static long do_chroot(void)
{
    return TRY(SYS_chroot, "/");
}

/* Each of fn on all descriptor numbers; the first success, else the last refusal but EBADF. */
static long over_descriptors(long (*fn)(int fd))
{
    long last = -EBADF;
    for (int fd = 0; fd < DESCRIPTORS; fd++) {
        long result = fn(fd);
        if (result >= 0)
            return fd;
        if (result != -EBADF)
            last = result;
    }
    return last;
}

static long fchdir_to(int fd)
{
    return TRY(SYS_fchdir, fd);
}

/* Whoever has a directory's descriptor is not held by an empty root. */
static long leave_by_descriptor(void)
{
    return over_descriptors(fchdir_to);
}

static long open_below(int fd)
{
    return fd == STDIN_FILENO ? -EBADF : TRY(SYS_openat, fd, ".", O_RDONLY | O_DIRECTORY);
}

static long open_below_descriptors(void)
{
    return over_descriptors(open_below);
}

static long enter_namespace_of(int fd)
{
    return TRY(SYS_setns, fd, 0);
}

static long enter_namespaces(void)
{
    return over_descriptors(enter_namespace_of);
}

/* What may be there: /dev/null, the KVM device, the own disk, a listening socket, pipes and nameless things.
 */
static bool may_be_there(int fd, const struct stat *st)
{
    const unsigned kvm_minor = 232, null_minor = 3;
    char name[2];
    switch (st->st_mode & S_IFMT) {
    case S_IFCHR:
        return st->st_rdev == makedev(10, kvm_minor) || st->st_rdev == makedev(1, null_minor);
    case S_IFREG:
        /* The disk alone has this many bytes; the process's own statm has none, and nobody's device. */
        return st->st_size == (off_t)hostile.disk_size ||
               (st->st_size == 0 && major(st->st_dev) == 0 && pread(fd, name, 1, 0) == 1 && *name >= '0' &&
                *name <= '9');
    case S_IFDIR:
    case S_IFBLK:
        return false;
    default:
        return true;
    }
}

/* Gives the number of the first descriptor that should not be there. */
static long strange_descriptor(void)
{
    for (int fd = 0; fd < DESCRIPTORS; fd++) {
        struct stat st;
        if (TRY(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) == 0 && !may_be_there(fd, &st))
            return fd;
    }
    return KEPT_IN;
}

static long second_vm(int fd)
{
    return TRY(SYS_ioctl, fd, KVM_CREATE_VM, 0);
}

static long create_second_vm(void)
{
    return over_descriptors(second_vm);
}

static long type_into(int fd)
{
    return TRY(SYS_ioctl, fd, TIOCSTI, "x");
}

static long type_into_terminal(void)
{
    return over_descriptors(type_into);
}

static long duplicate(void)
{
    return TRY(SYS_fcntl, STDERR_FILENO, F_DUPFD, 0);
}

const struct attempt file_attempts[] = {
    {.name = "open /etc/passwd", .fn = open_passwd},
    {.name = "open /etc/passwd by open(2)", .fn = open_passwd_the_old_way},
    {.name = "open /etc/passwd by openat2(2)", .fn = open_passwd_by_openat2},
    {.name = "open ../../etc/passwd", .fn = open_passwd_upwards},
    {.name = "open the KVM device", .fn = open_kvm},
    {.name = "open the keyslot map", .fn = open_slot_map},
    {.name = "open the key file", .fn = open_key_file},
    {.name = "open its own disk anew", .fn = open_own_disk},
    {.name = "open another VM's disk", .fn = open_other_disk},
    {.name = "open /dev/mem", .fn = open_dev_mem},
    {.name = "open /proc/self/mem", .fn = open_own_mem},
    {.name = "open another VM's /proc/PID/mem", .fn = open_other_mem},
    {.name = "open the root directory", .fn = open_root},
    {.name = "open by file handle", .fn = open_by_handle},
    {.name = "create a file", .fn = create_file},
    {.name = "create a file in /dev/shm", .fn = create_shared_file},
    {.name = "create a file without a name", .fn = create_nameless_file},
    {.name = "make a directory", .fn = make_directory},
    {.name = "make a symbolic link", .fn = make_link},
    {.name = "make a device node", .fn = make_device},
    {.name = "mount a tmpfs", .fn = do_mount},
    {.name = "mount proc", .fn = do_mount_proc},
    {.name = "remount the root writable", .fn = do_remount},
    {.name = "unmount the root", .fn = do_umount},
    {.name = "fsopen a file system", .fn = do_fsopen},
    {.name = "clone a mount tree", .fn = do_open_tree},
    {.name = "pivot_root", .fn = do_pivot_root},
    {.name = "chroot", .fn = do_chroot},
    {.name = "fchdir to any descriptor", .fn = leave_by_descriptor},
    {.name = "open below any descriptor", .fn = open_below_descriptors},
    {.name = "setns by any descriptor", .fn = enter_namespaces},
    {.name = "find a descriptor that is not its own", .fn = strange_descriptor, .passes_filter = true},
    {.name = "type into a terminal (TIOCSTI)", .fn = type_into_terminal},
    {.name = "create a second VM", .fn = create_second_vm, .filter_only = "an empty VM is no one's"},
    {.name = "duplicate a descriptor", .fn = duplicate, .filter_only = "it is its own"},
};
const unsigned file_attempts_count = ARRAY_SIZE(file_attempts);
