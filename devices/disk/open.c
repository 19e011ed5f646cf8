/* SPDX-License-Identifier: Apache-2.0 */
/* Opening an image: what it is, whether it can be used as a disk, and what the host says about it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "devices/disk/internal.h"
#include "minivmm/log.h"

static const char *kind_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a directory";
    case S_IFIFO:
        return "a FIFO";
    case S_IFSOCK:
        return "a socket";
    case S_IFCHR:
        return "a character device";
    default:
        return "neither file nor block device";
    }
}

static int refuse_kind(const char *path, mode_t mode, struct err *err)
{
    if (S_ISREG(mode) || S_ISBLK(mode))
        return 0;
    return err_set(err, S_ISDIR(mode) ? -EISDIR : -EINVAL,
                   "%s: is %s; a disk must be a regular file or a block device", path, kind_of(mode));
}

static int open_failed(const struct disk_config *c, int error, struct err *err)
{
    if ((error == EACCES || error == EPERM || error == EROFS || error == ETXTBSY) && !c->readonly &&
        access(c->path, R_OK) == 0)
        return err_set(err, -error, "%s: can't be written (%s); give write permission or add ro=on", c->path,
                       strerror(error));
    if (error == EINVAL && c->direct)
        return err_set(err, -error, "%s: its file system has no direct I/O; use direct=off", c->path);
    return err_set(err, -error, "%s: can't be opened: %s", c->path, strerror(error));
}

/* stat() first: the mere opening of a FIFO or of a tape can block or do things. */
static int open_path(const struct disk_config *c, int *fd, struct err *err)
{
    struct stat st;

    if (stat(c->path, &st) < 0)
        return open_failed(c, errno, err);
    int rc = refuse_kind(c->path, st.st_mode, err);
    if (rc)
        return rc;
    int flags = (c->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    *fd = open(c->path, flags | (c->direct ? O_DIRECT : 0));
    if (*fd < 0)
        return open_failed(c, errno, err);
    /* Non-blocking only guarded the open(); on a file io_uring would take it for "give EAGAIN". */
    flags = fcntl(*fd, F_GETFL);
    if (flags < 0 || fcntl(*fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return err_set(err, -errno, "%s: fcntl: %s", c->path, strerror(errno));
    return 0;
}

static int take_descriptor(const struct disk_config *c, int *fd, struct err *err)
{
    int flags = fcntl(c->fd, F_GETFL);
    if (flags < 0)
        return err_set(err, -errno, "%s: descriptor %d is not open", c->path, c->fd);
    *fd = c->fd;
    int mode = flags & O_ACCMODE;
    if (mode == O_WRONLY || (mode == O_RDONLY && !c->readonly))
        return err_set(err, -EACCES, "%s: its descriptor is open for %s only; open it for both or add ro=on",
                       c->path, mode == O_WRONLY ? "writing" : "reading");
    int want = (flags & ~(O_DIRECT | O_NONBLOCK)) | (c->direct ? O_DIRECT : 0);
    if (want != flags && fcntl(*fd, F_SETFL, want) < 0)
        return open_failed(c, errno, err);
    return 0;
}

static uint32_t queue_limit(dev_t dev, const char *name)
{
    char path[96], text[32];
    unsigned long value = 0;

    (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/%s", major(dev), minor(dev), name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        /* A partition has its queue one floor up. */
        (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../queue/%s", major(dev), minor(dev), name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    if (n > 0) {
        text[n] = 0;
        value = strtoul(text, NULL, 10);
    }
    (void)close(fd);
    return value > UINT32_MAX ? 0 : (uint32_t)value;
}

static bool is_power_of_2(uint64_t n)
{
    return n && !(n & (n - 1));
}

static bool is_block_size(uint64_t n)
{
    return n >= DISK_SECTOR && n <= 1u << 30 && is_power_of_2(n);
}

/* A start inside a sector is refused (EINVAL) before anything is erased, but only by devices that can erase.
 */
static bool can_secure_erase(int fd)
{
    uint64_t range[2] = {1, DISK_SECTOR};

    return ioctl(fd, BLKSECDISCARD, range) < 0 && errno == EINVAL;
}

static int block_geometry(struct disk *d, const struct stat *st, struct err *err)
{
    struct disk_geometry *g = &d->geometry;
    int logical = 0;
    unsigned physical = 0, opt = 0;

    if (ioctl(d->fd, BLKGETSIZE64, &g->capacity) < 0)
        return err_set(err, -errno, "%s: the block device doesn't tell its size: %s", d->path,
                       strerror(errno));
    if (!ioctl(d->fd, BLKSSZGET, &logical) && logical > 0 && is_block_size((uint64_t)logical))
        g->logical_block = (uint32_t)logical;
    if (!ioctl(d->fd, BLKPBSZGET, &physical) && is_block_size(physical))
        g->physical_block = physical;
    if (!ioctl(d->fd, BLKIOOPT, &opt))
        g->opt_io = opt;
    g->is_block_device = true;
    g->discard_granularity = queue_limit(st->st_rdev, "discard_granularity");
    g->can_discard = g->discard_granularity && queue_limit(st->st_rdev, "discard_max_hw_bytes");
    g->can_secure_erase = !g->readonly && can_secure_erase(d->fd);
    if (!g->can_discard)
        g->discard_granularity = 0;
    g->can_write_zeroes = true;
    g->can_write_zeroes_unmap = true;
    d->dev = st->st_rdev;
    d->ino = 0;
    return 0;
}

static bool has_no_storage(int fd)
{
    struct statfs fs;

    return !fstatfs(fd, &fs) && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static void file_geometry(struct disk *d, const struct stat *st)
{
    struct disk_geometry *g = &d->geometry;

    g->capacity = (uint64_t)st->st_size;
    if (is_block_size((uint64_t)st->st_blksize))
        g->physical_block = (uint32_t)st->st_blksize;
    /* A hole can be punched at any byte; only whole blocks of the file system give space back. */
    g->discard_granularity = g->physical_block;
    g->can_discard = g->can_write_zeroes = g->can_write_zeroes_unmap = true;
    d->in_memory = has_no_storage(d->fd);
    d->dev = st->st_dev;
    d->ino = st->st_ino;
}

static int read_geometry(struct disk *d, struct err *err)
{
    struct disk_geometry *g = &d->geometry;
    struct stat st;

    if (fstat(d->fd, &st) < 0)
        return err_set(err, -errno, "%s: %s", d->path, strerror(errno));
    int rc = refuse_kind(d->path, st.st_mode, err);
    if (rc)
        return rc;
    g->logical_block = g->physical_block = DISK_SECTOR;
    if (S_ISBLK(st.st_mode))
        rc = block_geometry(d, &st, err);
    else
        file_geometry(d, &st);
    if (rc)
        return rc;
    if (g->physical_block < g->logical_block)
        g->physical_block = g->logical_block;
    if (!g->capacity)
        return err_set(err, -EINVAL, "%s: is empty; make an image first, as with: truncate -s 1G %s", d->path,
                       d->path);
    if (g->capacity % DISK_SECTOR)
        return err_set(err, -EINVAL,
                       "%s: its size of %" PRIu64 " bytes is not a multiple of 512; round it up, as with: "
                       "truncate -s %%512 %s",
                       d->path, g->capacity, d->path);
    return 0;
}

/* What direct I/O wants aligned, and the second way into the file for what is not. */
static int prepare_direct(struct disk *d, struct err *err)
{
    struct disk_geometry *g = &d->geometry;
    struct statx sx = {0};
    char path[32];

    if (!d->direct)
        return 0;
    d->memory_align = 4096; /* enough for every device; where the kernel tells, it's less */
    d->offset_align = g->logical_block > DISK_SECTOR || g->is_block_device ? g->logical_block : 4096;
    if (!statx(d->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && sx.stx_mask & STATX_DIOALIGN) {
        if (!is_power_of_2(sx.stx_dio_mem_align) || !is_power_of_2(sx.stx_dio_offset_align))
            return err_set(err, -EINVAL, "%s: its file system has no direct I/O; use direct=off", d->path);
        d->memory_align = sx.stx_dio_mem_align;
        d->offset_align = sx.stx_dio_offset_align;
        if (is_block_size(d->offset_align) && d->offset_align > g->logical_block)
            g->logical_block = d->offset_align;
        if (g->physical_block < g->logical_block)
            g->physical_block = g->logical_block;
    }
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", d->fd);
    d->buffered_fd = open(path, (g->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (d->buffered_fd < 0)
        return err_set(err, -errno, "%s: direct=on needs it opened twice, and that failed: %s", d->path,
                       strerror(errno));
    return 0;
}

/* Asks without making a ring: where io_uring is there and allowed, the missing parameters are the complaint.
 */
static int probe_io_uring(void)
{
    return syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno != EFAULT ? -errno : 0;
}

static int choose_engine(struct disk *d, enum disk_engine engine, struct err *err)
{
    int rc = engine == DISK_ENGINE_SYNC ? 0 : probe_io_uring();

    d->auto_engine = engine == DISK_ENGINE_AUTO;
    d->engine = engine == DISK_ENGINE_AUTO ? DISK_ENGINE_IO_URING : engine;
    if (!rc)
        return 0;
    if (engine == DISK_ENGINE_IO_URING)
        return err_set(err, rc,
                       "%s: this host gives no io_uring (%s): allow it (sysctl kernel.io_uring_disabled, "
                       "seccomp) or use engine=sync",
                       d->path, strerror(-rc));
    log_info("%s: io_uring can't be used here (%s); the sync engine takes over", d->path, strerror(-rc));
    d->engine = DISK_ENGINE_SYNC;
    return 0;
}

static int set_up(struct disk *d, const struct disk_config *c, struct err *err)
{
    int rc = c->fd >= 0 ? take_descriptor(c, &d->fd, err) : open_path(c, &d->fd, err);
    if (!rc)
        rc = read_geometry(d, err);
    if (!rc && c->lock)
        rc = disk_lock(d, err);
    if (!rc)
        rc = prepare_direct(d, err);
    if (!rc)
        rc = choose_engine(d, c->engine, err);
    return rc;
}

int disk_open(const struct disk_config *config, struct disk **out, struct err *err)
{
    struct disk *d = calloc(1, sizeof(*d));
    char *path = strdup(config->path);

    if (!d || !path) {
        free(d);
        free(path);
        return err_set(err, -ENOMEM, "%s: no memory for a disk", config->path);
    }
    d->path = path;
    d->fd = d->lock_fd = d->buffered_fd = -1;
    d->direct = config->direct;
    d->geometry.readonly = config->readonly;
    int rc = set_up(d, config, err);
    if (rc) {
        /* A descriptor handed down stays the caller's when this fails. */
        if (d->fd == config->fd)
            d->fd = -1;
        disk_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

void disk_close(struct disk *disk)
{
    if (!disk)
        return;
    disk_unlock(disk);
    if (disk->buffered_fd >= 0)
        (void)close(disk->buffered_fd);
    if (disk->fd >= 0)
        (void)close(disk->fd);
    free(disk->path);
    free(disk);
}

const struct disk_geometry *disk_geometry(const struct disk *disk)
{
    return &disk->geometry;
}

bool disk_range_ok(const struct disk *disk, uint64_t offset, uint64_t length)
{
    return offset <= disk->geometry.capacity && length <= disk->geometry.capacity - offset;
}

bool disk_same(const struct disk *a, const struct disk *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->geometry.is_block_device == b->geometry.is_block_device;
}

const char *disk_engine_name(const struct disk *disk)
{
    return disk->engine == DISK_ENGINE_SYNC ? "sync" : "io_uring";
}
