/* SPDX-License-Identifier: Apache-2.0 */
/* Which system call carries a disk_io on next, and what its result means. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "devices/disk/internal.h"
#include "minivmm/log.h"

/* io->stage */
enum stage {
    STAGE_DATA,     /* READ, WRITE: moves bytes, from iovec number io->pending on */
    STAGE_PUNCH,    /* WRITE_ZEROES with UNMAP, DISCARD: punches a hole */
    STAGE_ZERO,     /* WRITE_ZEROES: zeroes that stay allocated */
    STAGE_WRITE_0,  /* WRITE_ZEROES where the file system can't: writes zeroes */
    STAGE_DISCARD,  /* DISCARD of a block device that has no unmapping write of zeroes */
    STAGE_ERASE,    /* SECURE_ERASE */
    STAGE_SYNC,     /* fdatasync */
    STAGE_FINISHED, /* io->error says how */
};

static enum stage first_stage(const struct disk_io *io)
{
    switch (io->op) {
    case DISK_READ:
    case DISK_WRITE:
        return STAGE_DATA;
    case DISK_FLUSH:
        return STAGE_SYNC;
    case DISK_DISCARD:
        return STAGE_PUNCH;
    case DISK_WRITE_ZEROES:
        return io->flags & DISK_UNMAP ? STAGE_PUNCH : STAGE_ZERO;
    case DISK_SECURE_ERASE:
        return STAGE_ERASE;
    }
    return STAGE_FINISHED;
}

/*
 * When a sync fails, the kernel drops what it could not write, tells one caller, and succeeds the next time.
 * That caller may serve another queue than the one whose data is gone, so that no success can be believed any
 * more: from the first failure on, nothing is promised to be stable.
 */
static int stability(const struct disk *disk, const struct disk_io *io)
{
    bool promises = io->op == DISK_FLUSH || (io->op != DISK_READ && io->flags & DISK_FUA);

    return promises && atomic_load_explicit(&disk->sync_failed, memory_order_acquire) ? -EIO : 0;
}

static void note_sync_failure(struct disk *disk, int error)
{
    if (!atomic_exchange_explicit(&disk->sync_failed, true, memory_order_acq_rel))
        log_error("%s: the host could not put written data on stable storage (%s): what it lost is unknown, "
                  "so all flushes fail from here on; see the host's kernel log, then start the VM anew",
                  disk->path, strerrordesc_np(-error));
}

static bool is_cancelled(const struct disk_queue *q, const struct disk_io *io)
{
    bool is_long = io->op != DISK_READ && io->op != DISK_WRITE && io->op != DISK_FLUSH;

    return is_long && atomic_load_explicit(&q->cancel_long, memory_order_acquire);
}

static int refusal(const struct disk_queue *q, const struct disk_io *io)
{
    const struct disk *disk = q->disk;

    if (io->op == DISK_FLUSH)
        return stability(disk, io);
    /* The device checks too; a request that grew an image would be past mending. */
    if (!disk_range_ok(disk, io->offset, io->length))
        return -EIO;
    if (io->op != DISK_READ && disk->geometry.readonly)
        return -EROFS;
    if (io->op == DISK_SECURE_ERASE && !disk->geometry.can_secure_erase)
        return -EOPNOTSUPP;
    return is_cancelled(q, io) ? -ECANCELED : stability(disk, io);
}

void disk_step_begin(const struct disk_queue *q, struct disk_io *io)
{
    io->moved = 0;
    io->pending = 0;
    io->error = refusal(q, io);
    io->stage = io->error ? STAGE_FINISHED : first_stage(io);
    if (!io->length && io->op != DISK_FLUSH)
        io->stage = STAGE_FINISHED;
}

bool disk_step_more(const struct disk_io *io)
{
    return io->stage != STAGE_FINISHED;
}

/* Direct I/O takes whole blocks in aligned memory; what is not like that goes through the page cache. */
static bool misaligned(const struct disk *disk, const struct disk_step *step)
{
    uint64_t bits = step->offset;
    uintptr_t memory = 0;

    if (!disk->direct)
        return false;
    for (unsigned i = 0; i < step->iovcnt; i++) {
        bits |= step->iov[i].iov_len;
        memory |= (uintptr_t)step->iov[i].iov_base;
    }
    return bits & (disk->offset_align - 1) || (memory | bits) & (disk->memory_align - 1);
}

static void data_step(const struct disk_queue *q, const struct disk_io *io, struct disk_step *step)
{
    unsigned left = io->iovcnt - io->pending;

    step->kind = io->op == DISK_READ ? STEP_READ : STEP_WRITE;
    step->iov = io->iov + io->pending;
    step->iovcnt = left < IOV_MAX ? left : IOV_MAX;
    if (io->op == DISK_WRITE && io->flags & DISK_FUA && !q->no_dsync)
        step->mode = RWF_DSYNC;
    step->buffered = misaligned(q->disk, step);
}

bool disk_step_next(struct disk_queue *q, struct disk_io *io, struct disk_step *step)
{
    *step = (struct disk_step){.offset = io->offset + io->moved, .length = io->length - io->moved};
    switch ((enum stage)io->stage) {
    case STAGE_DATA:
        data_step(q, io, step);
        return true;
    case STAGE_PUNCH:
        step->kind = STEP_FALLOCATE;
        step->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        return true;
    case STAGE_ZERO:
        step->kind = STEP_FALLOCATE;
        step->mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
        return true;
    case STAGE_WRITE_0:
        step->kind = STEP_WRITE;
        step->zeroes = (struct iovec){.iov_base = q->zeroes,
                                      .iov_len = step->length < DISK_ZEROES ? step->length : DISK_ZEROES};
        step->iov = &step->zeroes;
        step->iovcnt = 1;
        step->buffered = misaligned(q->disk, step);
        return true;
    case STAGE_DISCARD:
    case STAGE_ERASE:
        step->kind = STEP_IOCTL;
        step->request = io->stage == STAGE_ERASE ? BLKSECDISCARD : BLKDISCARD;
        return true;
    case STAGE_SYNC:
        step->kind = STEP_SYNC;
        return true;
    case STAGE_FINISHED:
        break;
    }
    return false;
}

/* All of io's bytes are where they should be: what remains is to make them last. */
static void moved_all(const struct disk_queue *q, struct disk_io *io)
{
    bool sync = io->flags & DISK_FUA && io->op != DISK_READ;

    if (io->stage == STAGE_DATA && !q->no_dsync)
        sync = false;
    io->stage = sync ? STAGE_SYNC : STAGE_FINISHED;
    if (!sync)
        io->error = stability(q->disk, io); /* the sync of another may have failed meanwhile */
}

/* Takes moved bytes off the front of the iovecs that are left. */
static void advance(struct disk_io *io, size_t moved)
{
    while (io->pending < io->iovcnt && moved >= io->iov[io->pending].iov_len)
        moved -= io->iov[io->pending++].iov_len;
    if (moved) {
        struct iovec *v = &io->iov[io->pending];
        v->iov_base = (char *)v->iov_base + moved;
        v->iov_len -= moved;
    }
}

static void fail(struct disk_io *io, int error)
{
    io->error = error;
    io->stage = STAGE_FINISHED;
}

static void transferred(struct disk_queue *q, struct disk_io *io, int result)
{
    if (result == -EOPNOTSUPP && io->flags & DISK_FUA && io->stage == STAGE_DATA && !q->no_dsync) {
        q->no_dsync = true;
        return;
    }
    if (result < 0) {
        /* Through the page cache, a write with DSYNC is told of other writes' failures too. */
        if (result == -EIO && io->flags & DISK_FUA && io->op == DISK_WRITE && !q->disk->direct)
            note_sync_failure(q->disk, result);
        fail(io, result);
        return;
    }
    /* Nothing moved: a read past the end of an image that shrank, or a device that takes no more. */
    if (!result || (uint64_t)result > io->length - io->moved) {
        fail(io, -EIO);
        return;
    }
    if (io->stage == STAGE_DATA)
        advance(io, (size_t)result);
    io->moved += (uint64_t)result;
    if (io->moved == io->length)
        moved_all(q, io);
    else if (is_cancelled(q, io))
        fail(io, -ECANCELED);
}

/* The stage to try where the host can't do this one. */
static enum stage fallback(const struct disk_queue *q, const struct disk_io *io)
{
    if (io->op == DISK_WRITE_ZEROES)
        return io->stage == STAGE_PUNCH ? STAGE_ZERO : STAGE_WRITE_0;
    if (io->stage == STAGE_PUNCH && q->disk->geometry.is_block_device)
        return STAGE_DISCARD;
    /* A discard is advice: a host that can't take it loses nothing. */
    return STAGE_FINISHED;
}

static void deallocated(const struct disk_queue *q, struct disk_io *io, int result)
{
    if ((result == -EOPNOTSUPP || result == -EINVAL) && io->stage != STAGE_ERASE)
        io->stage = fallback(q, io);
    else if (result < 0)
        fail(io, result);
    else
        moved_all(q, io);
}

void disk_step_result(struct disk_queue *q, struct disk_io *io, int result)
{
    if (result == -EINTR || result == -EAGAIN)
        return;
    switch ((enum stage)io->stage) {
    case STAGE_DATA:
    case STAGE_WRITE_0:
        transferred(q, io, result);
        break;
    case STAGE_PUNCH:
    case STAGE_ZERO:
    case STAGE_DISCARD:
    case STAGE_ERASE:
        deallocated(q, io, result);
        break;
    case STAGE_SYNC:
        if (result < 0)
            note_sync_failure(q->disk, result);
        fail(io, result < 0 ? result : stability(q->disk, io));
        break;
    case STAGE_FINISHED:
        break;
    }
}

int disk_step_execute(const struct disk *disk, const struct disk_step *step)
{
    uint64_t range[2] = {step->offset, step->length};
    ssize_t rc = -1;
    int fd = step->buffered ? disk->buffered_fd : disk->fd;

    switch (step->kind) {
    case STEP_READ:
        rc = preadv2(fd, step->iov, (int)step->iovcnt, (off_t)step->offset, step->mode);
        break;
    case STEP_WRITE:
        rc = pwritev2(fd, step->iov, (int)step->iovcnt, (off_t)step->offset, step->mode);
        break;
    case STEP_SYNC:
        rc = fdatasync(disk->fd);
        break;
    case STEP_FALLOCATE:
        rc = fallocate(disk->fd, step->mode, (off_t)step->offset, (off_t)step->length);
        break;
    case STEP_IOCTL:
        rc = ioctl(disk->fd, step->request, range);
        break;
    }
    return rc < 0 ? -errno : (int)rc;
}
