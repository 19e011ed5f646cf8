/* SPDX-License-Identifier: Apache-2.0 */
/* Block requests of the test guest: SLOTS at a time, each with its own header, data and status. */
#ifndef GUEST_BLOCK_H
#define GUEST_BLOCK_H

#include "virtio.h"

#define SLOTS      16u
#define SLOT_DESCS (RING_SIZE / SLOTS)
#define SLOT_BYTES 4096u

#define BLK_F_FLUSH        (1ULL << 9)
#define BLK_F_MQ           (1ULL << 12)
#define BLK_F_DISCARD      (1ULL << 13)
#define BLK_F_WRITE_ZEROES (1ULL << 14)
#define BLK_F_ICE          (1ULL << 22)

#define BLK_IN           0u
#define BLK_OUT          1u
#define BLK_FLUSH        4u
#define BLK_GET_ID       8u
#define BLK_DISCARD      11u
#define BLK_WRITE_ZEROES 13u
#define BLK_GET_CRYPTO   28u

#define BLK_OK      0u
#define BLK_IOERR   1u
#define BLK_UNSUPP  2u
#define BLK_PENDING 0xEEu /* what the status byte holds before the device writes it */

struct blk_header {
    uint32_t type, reserved;
    uint64_t sector;
};

/* Behind the header of every request, once F_ICE is negotiated (docs/ice-spec.md, 4). */
struct ice_payload {
    uint8_t slot, activate;
    uint16_t reserved1;
    uint32_t reserved2;
    uint64_t dun;
};

struct slot {
    struct blk_header header;
    struct ice_payload ice;
    volatile uint8_t status;
};

extern struct slot slots[SLOTS];
extern uint8_t data[SLOTS][SLOT_BYTES];
extern struct queue disk_queues[QUEUES_MAX];

bool disk_find(struct device *dev);

/* Puts one request into queue q by slot s (data[s], len bytes); not kicked. */
void blk_offer(struct device *dev, unsigned q, unsigned s, uint32_t type, uint64_t sector, uint32_t len);

/* One request from start to end, by interrupt; the status byte, BLK_PENDING when it never came. */
uint8_t blk_do(struct device *dev, unsigned q, unsigned s, uint32_t type, uint64_t sector, uint32_t len);

#define PATTERN_FACTOR 0x9E3779B97F4A7C15ULL

/* A pattern that differs by seed and 8-byte word: word i is seed * PATTERN_FACTOR + i. */
void pattern_fill(uint8_t *at, uint32_t len, uint64_t seed);
bool pattern_is(const uint8_t *at, uint32_t len, uint64_t seed);
bool all_bytes_are(const uint8_t *at, uint32_t len, uint8_t value);

#endif
