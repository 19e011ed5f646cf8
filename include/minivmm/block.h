/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (VIRTIO 1.3, 5.2, apart from zoned), over struct disk. One thread per virtqueue, named
 * "blkD-qQ", created with the device and parked until DRIVER_OK.
 */
#ifndef MINIVMM_BLOCK_H
#define MINIVMM_BLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "minivmm/disk.h"
#include "minivmm/errors.h"
#include "minivmm/guest_memory.h"
#include "minivmm/virtio.h"

#define BLOCK_SERIAL_MAX 20u

struct block_config {
    unsigned index;                    /* 0 ..: names threads and log lines ("disk0") */
    struct disk *disk;                 /* not owned; outlives the device */
    unsigned queues;                   /* 1 .. VIRTIO_QUEUES_MAX; more than 1 offers MQ */
    uint16_t queue_size;               /* power of two, 2 .. VIRTQUEUE_SIZE_MAX */
    char serial[BLOCK_SERIAL_MAX + 1]; /* GET_ID; NUL-padded */
    bool writeback;    /* initial cache mode; the driver may change it where it negotiated CONFIG_WCE */
    bool discard;      /* offer DISCARD / SECURE_ERASE where the disk can */
    bool write_zeroes; /* offer WRITE_ZEROES where the disk can */
};

/* Per-disk counters, relaxed atomics. */
struct block_counters {
    _Atomic uint64_t requests, read_bytes, written_bytes, flushes, discards, write_zeroes;
    _Atomic uint64_t errors;      /* completed with S_IOERR */
    _Atomic uint64_t unsupported; /* completed with S_UNSUPP */
    _Atomic uint64_t kicks;       /* times a queue thread was woken by a kick */
};

struct block;

int block_create(const struct block_config *config, const struct guest_memory *mem, struct block **out,
                 struct err *err);
struct virtio_device *block_device(struct block *block);
const struct block_counters *block_counters(const struct block *block);

/* Stops and joins the queue threads (draining what is in flight) and frees the device; no vCPU may be
 * running. */
void block_destroy(struct block *block);

#endif
