/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of the block device. A request goes through three stages, all on its queue's thread:
 * parse (chain -> checked private copy), submit (to the disk engine), complete (status byte, used ring).
 * blk.c has the device, blk_queue.c the thread's loop and the slab, blk_request.c the stages.
 */
#ifndef MINIVMM_VIRTIO_BLK_H
#define MINIVMM_VIRTIO_BLK_H

#include <linux/virtio_blk.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "devices/virtio/worker.h"
#include "minivmm/block.h"
#include "minivmm/disk.h"
#include "minivmm/log.h"
#include "minivmm/virtio.h"

/* VIRTIO 1.3 knows a 72-byte struct up to secure erase, zoned in 72 .. 95 and ICE in 96 .. 99 (ice-spec 3).
 */
#define BLK_CONFIG_SIZE    100u
#define BLK_HEADER_SIZE    16u
#define BLK_T_GET_LIFETIME 10u /* younger than the kernel header of Linux 6.1 */

/* Ranges that one DISCARD, WRITE_ZEROES or SECURE_ERASE may name, and the sectors of one range (2 GiB). */
#define BLK_RANGES_MAX        32u
#define BLK_RANGE_SECTORS_MAX (4u << 20)

/*
 * The longest data segment we ask for. With the largest queue, seg_max segments of it stay below the 2^32
 * bytes that used.len can tell; a multiple of 64 KiB, so that encrypted data units are never split.
 */
#define BLK_SEGMENT_SIZE_MAX (4u << 20)

/* Segment lists up to this length lie in the request itself, longer ones in its part of the queue's area. */
#define BLK_FEW 8u

/* One range of DISCARD, WRITE_ZEROES or SECURE_ERASE, in sectors. As large as an iovec: they share storage.
 */
struct blk_range {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
};

struct blk_queue;

struct blk_request {
    struct disk_io io;
    struct blk_queue *queue;
    struct blk_request *next_free;
    uint8_t *status;  /* guest memory; written last */
    uint64_t room;    /* bytes of the chain's writable part in front of the status byte */
    uint64_t written; /* how many of them hold an answer, counted from the first */
    uint16_t head;
    /* READ: the guest's buffers, kept apart from the copy that the engine consumes. */
    struct iovec *buffers;
    unsigned buffer_count;
    /* DISCARD, WRITE_ZEROES, SECURE_ERASE: checked ranges, carried out one after the other. */
    struct blk_range *ranges;
    unsigned range_count, range_next;
    union {
        struct iovec iov[BLK_FEW];
        struct blk_range range[BLK_FEW];
    } few;
};

struct block;

struct blk_queue {
    struct block *block;
    struct virtio_queue *vq;
    struct disk_queue *disk_queue;
    struct worker worker;
    unsigned index;
    bool broken;        /* the driver broke the ring: no more requests until reset */
    bool answered;      /* used entries wait for virtqueue_publish() */
    unsigned transfers; /* READs and WRITEs in flight */
    /* One mapping: requests, the segments of the chain being parsed, and a long list for each request. */
    void *slab;
    size_t slab_size, list_size;
    struct blk_request *requests, *free;
    unsigned touched; /* requests that were ever used */
    struct iovec *scratch;
    uint8_t *lists;
};

struct block {
    struct virtio_device dev;
    struct disk *disk;
    const struct disk_geometry *geometry;
    char name[16];
    char serial[VIRTIO_BLK_ID_BYTES];
    uint8_t config[BLK_CONFIG_SIZE]; /* constant but for the writeback byte, which lies in writeback */
    bool writeback_initial;
    _Atomic bool writeback;
    struct block_counters counters;
    struct log_limit failures;
    unsigned queues, opened; /* asked for; in existence, which differ only while creation fails */
    struct virtio_queue *vqs;
    struct blk_queue *queue;
};

/* blk_queue.c */
/* The queue's slab, engine and thread "blkD-qQ", parked. */
int blk_queue_open(struct blk_queue *q, struct block *block, unsigned index, unsigned disk, struct err *err);
void blk_queue_run(struct blk_queue *q);
/* Returns when nothing is in flight and the thread has let go of guest memory. */
void blk_queue_park(struct blk_queue *q);
void blk_queue_close(struct blk_queue *q);
void blk_request_free(struct blk_request *r);
/* Storage for bytes of segments or ranges: in the request where they fit, else in its long list. */
void *blk_request_storage(struct blk_request *r, size_t bytes);

/* blk_request.c */
enum blk_verdict {
    BLK_ANSWERED, /* the answer is in the used ring, the request is free again */
    BLK_SUBMITTED,
    BLK_BROKEN, /* the chain has no place for a status: the device needs a reset */
};
enum blk_verdict blk_request_start(struct blk_request *r, const struct virtqueue_chain *chain);

static inline void blk_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

#endif
