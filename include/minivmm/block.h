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
#include "minivmm/ice.h"
#include "minivmm/virtio.h"

#define BLOCK_SERIAL_MAX 20u

/* docs/ice-spec.md, 2 and 6: younger than the kernel's header. */
#define VIRTIO_BLK_F_ICE                     22u
#define VIRTIO_BLK_T_GET_CRYPTO_CAPABILITIES 28u

/*
 * Transparent mode (ice-spec 9): every IN and OUT goes through one operator slot, unknown to the guest.
 * F_ICE is not offered then. The guest sees the data segment as a disk of blocks of `unit` bytes; requests
 * that are not made of whole units fail. WRITE_ZEROES is carried out by writing encrypted zeroes.
 */
struct block_transparent {
    uint32_t unit;        /* data unit in bytes, power of two, 512 .. 4096; 0: the disk is not transparent */
    unsigned slot;        /* given to this disk by ice_assign(guest = false), holding a key of that unit */
    uint64_t data_offset; /* bytes of the image in front of the data segment, a multiple of 512 */
    uint64_t data_size;   /* bytes of the data segment, a multiple of unit; 0: all that the image has behind
                             data_offset, which must be such a multiple too */
    uint64_t iv_offset;   /* IV of unit 0 */
    bool iv_large;        /* IVs count units; else, as dm-crypt does, 512-byte sectors */
    bool discard;         /* DISCARD and SECURE_ERASE too, which show the host what is in use */
};

struct block_config {
    unsigned index;                    /* 0 ..: names threads and log lines ("disk0") */
    struct disk *disk;                 /* not owned; outlives the device */
    unsigned queues;                   /* 1 .. VIRTIO_QUEUES_MAX; more than 1 offers MQ */
    uint16_t queue_size;               /* power of two, 2 .. VIRTQUEUE_SIZE_MAX */
    char serial[BLOCK_SERIAL_MAX + 1]; /* GET_ID; NUL-padded */
    bool writeback;    /* initial cache mode; the driver may change it where it negotiated CONFIG_WCE */
    bool discard;      /* offer DISCARD / SECURE_ERASE where the disk can */
    bool write_zeroes; /* offer WRITE_ZEROES where the disk can */
    struct ice *ice;   /* not owned; outlives the device. NULL: none of what follows may be set */
    /* The guest's window of keyslots, given to this disk by ice_assign(guest = true). 0 slots: no F_ICE. */
    unsigned ice_first, ice_count;
    bool ice_required; /* ice=required: FEATURES_OK needs F_ICE, IN and OUT need activate = 1 */
    struct block_transparent transparent;
};

/* Per-disk counters, relaxed atomics. */
struct block_counters {
    _Atomic uint64_t requests, read_bytes, written_bytes, flushes, discards, write_zeroes;
    _Atomic uint64_t errors;       /* completed with S_IOERR */
    _Atomic uint64_t unsupported;  /* completed with S_UNSUPP */
    _Atomic uint64_t kicks;        /* times a queue thread was woken by a kick */
    _Atomic uint64_t ice_requests; /* with activate = 1; in transparent mode, all that need the key */
    _Atomic uint64_t ice_denied;   /* slot outside the disk's window; plaintext where ice=required */
    _Atomic uint64_t ice_empty;    /* slot without a key */
    _Atomic uint64_t ice_errors; /* bad activate, not whole units, IVs used up, slot being changed, cipher */
};

struct block;

/*
 * Creates the device and its queue threads, parked. -EINVAL with a sentence for a configuration outside the
 * ranges above, and for keyslots that are not this disk's or a transparent one without its key; -ENOMEM.
 */
int block_create(const struct block_config *config, const struct guest_memory *mem, struct block **out,
                 struct err *err);
struct virtio_device *block_device(struct block *block);
const struct block_counters *block_counters(const struct block *block);

/* Stops and joins the queue threads (draining what is in flight) and frees the device; no vCPU may be
 * running. */
void block_destroy(struct block *block);

#endif
