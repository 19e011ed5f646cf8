/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk image under a block device: a raw file or a host block device, driven asynchronously. Two engines
 * with one contract: io_uring (liburing), and sync (preadv2/pwritev2) where io_uring is forbidden. A
 * disk_queue is one thread's engine instance and that thread's only blocking point: kick and stop eventfds
 * are watched in it.
 */
#ifndef MINIVMM_DISK_H
#define MINIVMM_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "minivmm/errors.h"

#define DISK_SECTOR 512u

enum disk_engine { DISK_ENGINE_AUTO, DISK_ENGINE_IO_URING, DISK_ENGINE_SYNC };

struct disk_config {
    const char *path; /* for messages, and opened when fd is -1 */
    int fd;           /* an open descriptor handed down (then owned by the disk), or -1 */
    bool readonly;    /* opens O_RDONLY and locks shared; otherwise O_RDWR and locks exclusive */
    bool direct;      /* O_DIRECT: the engine bounces what is not aligned */
    bool lock;        /* false only where the caller holds the lock itself */
    enum disk_engine engine;
};

/* What the host told about the image at open; constant afterwards. */
struct disk_geometry {
    uint64_t capacity;            /* bytes, a multiple of 512 */
    uint32_t logical_block;       /* bytes, power of two >= 512 */
    uint32_t physical_block;      /* bytes, power of two >= logical_block */
    uint32_t opt_io;              /* preferred I/O size in bytes, 0 when unknown */
    uint32_t discard_granularity; /* bytes, 0 when discard is not possible */
    bool can_discard, can_write_zeroes, can_write_zeroes_unmap, can_secure_erase;
    bool readonly, is_block_device;
};

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES, DISK_SECURE_ERASE };

#define DISK_FUA                                                                                             \
    1u /* WRITE, WRITE_ZEROES, DISCARD: on stable storage before completion (RWF_DSYNC or fdatasync) */
#define DISK_UNMAP 2u /* WRITE_ZEROES: may deallocate */

struct disk_io;
/* result: 0 or -errno (-EIO for a read past a truncated end). Called on the queue's thread by
 * disk_queue_run(). */
typedef void disk_done_fn(struct disk_io *io, int result);

/*
 * One operation. The caller owns it and the memory that iov points to until done is called. The engine may
 * alter the iovec array (to resume short transfers), never what a write's iovecs point to. offset and length
 * are in bytes, multiples of 512 for READ/WRITE, inside the capacity; iov adds up to length. FLUSH has none.
 */
struct disk_io {
    enum disk_op op;
    unsigned flags;
    uint64_t offset, length;
    struct iovec *iov;
    unsigned iovcnt; /* any number; engines split at IOV_MAX */
    disk_done_fn *done;
    /* the engine's own, not to be touched between submit and done: */
    struct disk_io *next;
    uint64_t moved;
    unsigned stage;
    int error;
    unsigned pending;
};

struct disk;
struct disk_queue;

/*
 * Opens the image: regular file or block device; refuses directories, sizes 0 or not a multiple of 512, and
 * an image that another process has locked (OFD lock over the whole file, plus the byte ranges by which QEMU
 * locks images, so that neither writes under the other; names the holder where the kernel tells). Sentences
 * name the path. -EINVAL, -EBUSY, -EISDIR, -EACCES, -ENOENT ...
 */
int disk_open(const struct disk_config *config, struct disk **out, struct err *err);
void disk_close(struct disk *disk); /* after all its queues; drops the lock. NULL is fine. */

const struct disk_geometry *disk_geometry(const struct disk *disk);

/* True when [offset, offset + length) lies inside the capacity, without overflow. */
bool disk_range_ok(const struct disk *disk, uint64_t offset, uint64_t length);

/* The same file by device and inode: two disks of one VM must not be one image. */
bool disk_same(const struct disk *a, const struct disk *b);

/* The engine in use, for status and logs: "io_uring" or "sync". */
const char *disk_engine_name(const struct disk *disk);

/*
 * One queue's engine. Created on the main thread (rings start disabled, with an opcode allow-list); depth:
 * most operations in flight, 1 .. 1024. disk_queue_attach() is called once on the owning thread before
 * anything else.
 */
int disk_queue_open(struct disk *disk, unsigned depth, struct disk_queue **out, struct err *err);
int disk_queue_attach(struct disk_queue *q);
void disk_queue_close(struct disk_queue *q); /* nothing in flight; any thread after the owner ended */

/*
 * Watches an eventfd: ready(arg) runs on the queue's thread inside disk_queue_run() when it is readable,
 * after the engine cleared its counter. At most 4 watches; call before attach.
 */
int disk_queue_watch(struct disk_queue *q, int event_fd, void (*ready)(void *arg), void *arg);

/*
 * Takes an operation. Never calls done; never blocks with io_uring. The caller keeps at most depth in flight.
 * Failures come through done.
 */
void disk_queue_submit(struct disk_queue *q, struct disk_io *io);

/*
 * One turn of the loop: starts what was submitted, then waits until at least one completion or watch is there
 * (wait = false: does not wait) and dispatches all that are. 0, or -errno when the engine itself failed for
 * good.
 */
int disk_queue_run(struct disk_queue *q, bool wait);

/*
 * on: WRITE_ZEROES, DISCARD and SECURE_ERASE, which can take minutes, end soon, with -ECANCELED; until off.
 * Any thread.
 */
void disk_queue_cancel_long(struct disk_queue *q, bool on);

unsigned disk_queue_inflight(const struct disk_queue *q);

#endif
