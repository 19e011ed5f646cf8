/* SPDX-License-Identifier: Apache-2.0 */
/* A block device with its real queue threads over an image in memory, and a driver's way to send requests. */
#ifndef TESTS_LIB_BLKDRV_H
#define TESTS_LIB_BLKDRV_H

#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stdint.h>

#include "minivmm/block.h"
#include "ringdrv.h"

#define RIG_QUEUES   4u
#define RIG_SECTORS  2048u
#define RIG_SERIAL   "minivmm-test-0123456" /* exactly 20 bytes */
#define RIG_LATER    0xffu                  /* the status byte before the device writes it */
#define BIT(feature) VIRTIO_BIT(VIRTIO_BLK_F_##feature)

struct rig_options {
    enum disk_engine engine;
    bool readonly, writethrough, no_discard, no_write_zeroes;
    unsigned queues;     /* 0: 1 */
    uint16_t queue_size; /* 0: 64 */
    struct guest *share; /* another rig's guest, to have two devices in one VM */
    unsigned index;      /* the disk's number, which owns its keyslots */
    struct ice *ice;
    unsigned ice_first, ice_count;
    bool ice_required;
    struct block_transparent transparent;
};

struct rig {
    struct guest own, *g;
    struct disk *disk;
    struct block *block;
    struct virtio_mmio *mmio;
    int image, line;
    unsigned queues;
    uint16_t queue_size;
    struct ring ring[RIG_QUEUES];
    uint64_t header, status, data; /* guest addresses of a header, a status byte and 256 KiB */
    uint32_t len;                  /* used.len of the last rig_chain() */
};

#define RIG_DATA_SIZE (256u * 1024u)

/* Opens image, disk and device, and allocates rings; aborts on failure. Sector n is filled with rig_fill(n).
 */
void rig_open(struct rig *rig, const struct rig_options *options);
void rig_close(struct rig *rig);
uint8_t rig_fill(uint64_t sector);

/* Resets and starts the device with all offered features but those in drop. */
void rig_start(struct rig *rig, uint64_t drop);

/* Writes the 16-byte header at a guest address. */
void rig_header(struct rig *rig, uint64_t at, uint32_t type, uint64_t sector);
uint8_t *rig_at(struct rig *rig, uint64_t gpa);

/* The 32-byte header of F_ICE (ice-spec 4); its reserved fields get noise. */
struct rig_ice {
    uint8_t slot, activate;
    uint64_t dun;
};
#define RIG_ICE_HEADER 32u
void rig_ice_header(struct rig *rig, uint64_t at, uint32_t type, uint64_t sector, struct rig_ice ice);

/* Sends a chain on queue 0, waits for it and returns the byte at rig->status, RIG_LATER before. -1: no
 * answer. */
int rig_chain(struct rig *rig, const struct ring_buffer *buf, unsigned count, enum ring_framing framing);

/* One request in the usual framing: header, data (to_device or not) at rig->data, status; its status. */
int rig_request(struct rig *rig, uint32_t type, uint64_t sector, uint32_t length, bool to_device);

/* The same with the header of F_ICE. */
int rig_ice_request(struct rig *rig, uint32_t type, uint64_t sector, uint32_t length, bool to_device,
                    struct rig_ice ice);

/* The image's bytes, by the host. */
void rig_image_write(const struct rig *rig, uint64_t offset, const void *from, size_t len);
void rig_image_read(const struct rig *rig, uint64_t offset, void *to, size_t len);

#endif
