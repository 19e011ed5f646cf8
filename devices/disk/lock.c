/* SPDX-License-Identifier: Apache-2.0 */
/* One writer, or any number of readers, of an image: by OFD locks, which die with the last descriptor. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/disk/internal.h"
#include "minivmm/bytes.h"

/*
 * A description of its own for the lock: a ring gives its registered files back some time after its process
 * died, and the next start must not find the image locked by the dead.
 */
static int lock_descriptor(const struct disk *disk)
{
    char path[32];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", disk->fd);
    int fd = open(path, (disk->geometry.readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    return fd < 0 ? disk->fd : fd;
}

/*
 * QEMU (file-posix) holds OFD read locks on single bytes: PERM_BASE + n while it uses permission n of the
 * image, SHARED_BASE + n while it lets nobody else use it; then it looks whether others hold the counterpart.
 */
enum { PERM_BASE = 100, SHARED_BASE = 200 };
enum { PERM_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3 };

struct span {
    short type;
    off_t start, length; /* length 0: to the end of time */
};

/* Nobody may be there with us. */
static const struct span writer[] = {{F_WRLCK, 0, 0}};

/*
 * Locked for reading: all but the bytes that would tell QEMU that we write (PERM_BASE + n) or want to be the
 * only reader (SHARED_BASE + PERM_READ). Left in are those that forbid writing and resizing to it.
 */
static const struct span reader[] = {{F_RDLCK, 0, PERM_BASE + PERM_READ + 1},
                                     {F_RDLCK, SHARED_BASE + PERM_WRITE, 1},
                                     {F_RDLCK, SHARED_BASE + PERM_RESIZE, 0}};

/* Held by anybody, these forbid us to read: a QEMU that writes, resizes, or shares with nobody. */
static const struct span forbidding[] = {{F_WRLCK, PERM_BASE + PERM_WRITE, 1},
                                         {F_WRLCK, PERM_BASE + PERM_RESIZE, 1},
                                         {F_WRLCK, SHARED_BASE + PERM_READ, 1}};

static struct flock flock_of(const struct span *s)
{
    return (struct flock){.l_type = s->type, .l_whence = SEEK_SET, .l_start = s->start, .l_len = s->length};
}

static int take(int fd, const struct span *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct flock l = flock_of(&s[i]);
        if (fcntl(fd, F_OFD_SETLK, &l) < 0)
            return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
    }
    return 0;
}

static int look(int fd, const struct span *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct flock l = flock_of(&s[i]);
        if (fcntl(fd, F_OFD_GETLK, &l) < 0)
            return -errno;
        if (l.l_type != F_UNLCK)
            return -EBUSY;
    }
    return 0;
}

/* Whether process pid holds a lock through one of its descriptors of this very file. */
static bool process_locks(const char *pid, const struct stat *image)
{
    char path[64 + 2 * NAME_MAX], line[128];
    struct dirent *e;
    bool found = false;

    (void)snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    DIR *dir = opendir(path);
    while (dir && !found && (e = readdir(dir))) { // NOLINT(concurrency-mt-unsafe)
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, 0) < 0 || st.st_dev != image->st_dev ||
            st.st_ino != image->st_ino)
            continue;
        (void)snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, e->d_name);
        FILE *info = fopen(path, "re");
        while (info && !found && fgets(line, sizeof(line), info))
            found = !strncmp(line, "lock:", 5);
        if (info)
            (void)fclose(info);
    }
    if (dir)
        (void)closedir(dir);
    return found;
}

/* The kernel names no process for an OFD lock, but /proc shows locks with the descriptors. 0: not found. */
static long holder(const struct disk *disk)
{
    struct stat image;
    struct dirent *e;
    long pid = 0;
    DIR *proc = opendir("/proc");

    if (proc && !fstat(disk->fd, &image))
        while (!pid && (e = readdir(proc))) // NOLINT(concurrency-mt-unsafe)
            if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && process_locks(e->d_name, &image))
                pid = strtol(e->d_name, NULL, 10);
    if (proc)
        (void)closedir(proc);
    return pid;
}

static int busy(const struct disk *disk, struct err *err)
{
    const char *mend = disk->geometry.readonly ? "stop the one that writes to it, or give this VM a copy"
                                               : "stop the other, give each VM its own image, or open it "
                                                 "read-only everywhere (ro=on)";
    long pid = holder(disk);

    if (pid == getpid())
        return err_set(err, -EBUSY,
                       "%s: is in use by this process (%ld) already; give each disk its own image",
                       disk->path, pid);
    if (pid)
        return err_set(err, -EBUSY, "%s: is locked by process %ld; %s", disk->path, pid, mend);
    return err_set(err, -EBUSY, "%s: is locked by another process; %s", disk->path, mend);
}

int disk_lock(struct disk *disk, struct err *err)
{
    int rc, fd = disk->lock_fd = lock_descriptor(disk);

    if (disk->geometry.readonly) {
        rc = take(fd, reader, ARRAY_SIZE(reader));
        if (!rc)
            rc = look(fd, forbidding, ARRAY_SIZE(forbidding));
    } else {
        rc = take(fd, writer, ARRAY_SIZE(writer));
    }
    if (rc == -EBUSY) {
        disk_unlock(disk);
        return busy(disk, err);
    }
    if (rc)
        return err_set(err, rc, "%s: can't be locked: %s", disk->path, strerror(-rc));
    return 0;
}

void disk_unlock(struct disk *disk)
{
    struct flock none = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    if (disk->lock_fd < 0)
        return;
    (void)fcntl(disk->lock_fd, F_OFD_SETLK, &none);
    if (disk->lock_fd != disk->fd)
        (void)close(disk->lock_fd);
    disk->lock_fd = -1;
}
