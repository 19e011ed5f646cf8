/* SPDX-License-Identifier: Apache-2.0 */
/* One writer, or any number of readers, of an image: by OFD locks, which die with the last descriptor. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "devices/disk/internal.h"

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

int disk_lock(struct disk *disk, struct err *err)
{
    bool shared = disk->geometry.readonly;
    struct flock whole = {.l_type = shared ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    disk->lock_fd = lock_descriptor(disk);
    if (!fcntl(disk->lock_fd, F_OFD_SETLK, &whole))
        return 0;
    if (errno != EAGAIN && errno != EACCES)
        return err_set(err, -errno, "%s: can't be locked: %s", disk->path, strerror(errno));
    return err_set(err, -EBUSY, "%s: another process uses this image; stop it or give each VM its own image",
                   disk->path);
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
