/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of devices/disk. A disk_io is carried out as a row of steps, each one system call;
 * step.c decides which step comes next and takes in its result, an engine merely executes steps. So both
 * engines share one idea of short transfers, fallbacks and durability.
 */
#ifndef MINIVMM_DISK_INTERNAL_H
#define MINIVMM_DISK_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "minivmm/disk.h"

#define DISK_WATCHES_MAX 4u
#define DISK_DEPTH_MAX   1024u
#define DISK_ZEROES      65536u /* bytes of a queue's zero buffer */

struct disk {
    char *path;
    int fd;
    int lock_fd;     /* holds the lock: fd, or better a description of its own; -1 without a lock */
    int buffered_fd; /* the same file through the page cache, which bounces what is misaligned; or -1 */
    bool direct;
    bool in_memory; /* the file system has no storage behind it: moving bytes is a copy, and never waits */
    uint32_t memory_align, offset_align; /* bytes, what direct I/O asks for; powers of two */
    bool auto_engine;                    /* an unusable io_uring may become sync */
    enum disk_engine engine;
    _Atomic bool sync_failed; /* the host lost writes: no later flush may succeed */
    struct disk_geometry geometry;
    dev_t dev; /* the device node's own number for a block device */
    ino_t ino;
};

struct disk_watch {
    int fd;
    void (*ready)(void *arg);
    void *arg;
};

struct disk_list {
    struct disk_io *head, **tail;
};

struct disk_queue;

struct disk_engine_ops {
    int (*open)(struct disk_queue *q, struct err *err);
    int (*attach)(struct disk_queue *q);
    int (*run)(struct disk_queue *q, bool wait);
    void (*close)(struct disk_queue *q);
};

extern const struct disk_engine_ops disk_engine_sync, disk_engine_uring;

struct disk_queue {
    struct disk *disk;
    const struct disk_engine_ops *ops;
    void *engine; /* the engine's own state */
    unsigned depth, inflight, watches;
    struct disk_watch watch[DISK_WATCHES_MAX];
    struct disk_list waiting; /* submitted, no step of theirs executing */
    void *zeroes;             /* DISK_ZEROES bytes, never written */
    _Atomic bool cancel_long; /* what takes long ends at its next step */
    bool no_dsync;            /* the file system knows no RWF_DSYNC: fdatasync follows instead */
};

enum disk_step_kind { STEP_READ, STEP_WRITE, STEP_SYNC, STEP_FALLOCATE, STEP_IOCTL };

struct disk_step {
    enum disk_step_kind kind;
    int mode;                /* RWF_* of READ and WRITE, the mode of FALLOCATE */
    unsigned long request;   /* of IOCTL, over offset and length */
    const struct iovec *iov; /* READ and WRITE; two and more stay valid until the result is in */
    unsigned iovcnt;
    bool buffered;       /* through buffered_fd */
    struct iovec zeroes; /* what iov points to when zeroes are written */
    uint64_t offset, length;
};

/* step.c: begin once; next until it says false (then io->error is the result); a result after each step. */
void disk_step_begin(const struct disk_queue *q, struct disk_io *io);
bool disk_step_next(struct disk_queue *q, struct disk_io *io, struct disk_step *step);
void disk_step_result(struct disk_queue *q, struct disk_io *io, int result);
bool disk_step_more(const struct disk_io *io);
/* Executes a step here and now: the sync engine, and what io_uring has no operation for. */
int disk_step_execute(const struct disk *disk, const struct disk_step *step);

/* queue.c */
void disk_list_init(struct disk_list *list);
void disk_list_add(struct disk_list *list, struct disk_io *io);
struct disk_io *disk_list_take(struct disk_list *list);
/* Takes io out of flight and calls done. */
void disk_queue_finish(struct disk_queue *q, struct disk_io *io);
/* Clears the eventfd's counter and calls ready. */
void disk_queue_woken(const struct disk_queue *q, unsigned watch);

/* lock.c */
int disk_lock(struct disk *disk, struct err *err);
void disk_unlock(struct disk *disk);

#endif
