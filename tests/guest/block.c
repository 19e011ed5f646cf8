/* SPDX-License-Identifier: Apache-2.0 */
#include "block.h"

struct slot slots[SLOTS] __attribute__((aligned(64)));
uint8_t data[SLOTS][SLOT_BYTES] __attribute__((aligned(4096)));
struct queue disk_queues[QUEUES_MAX];

bool disk_find(struct device *dev)
{
    *dev = (struct device){0};
    return device_find(dev, DEVICE_BLOCK, 0, disk_queues);
}

void blk_offer(struct device *dev, unsigned q, unsigned s, uint32_t type, uint64_t sector, uint32_t len)
{
    bool reads = type == BLK_IN || type == BLK_GET_ID;
    struct seg seg[3] = {{&slots[s].header, sizeof(struct blk_header), false}};
    unsigned n = 1;

    slots[s].header = (struct blk_header){.type = type, .sector = sector};
    slots[s].status = BLK_PENDING;
    if (len)
        seg[n++] = (struct seg){data[s], len, reads};
    seg[n++] = (struct seg){&slots[s].status, 1, true};
    queue_chain(&dev->queue[q], (uint16_t)(s * SLOT_DESCS), seg, n);
    queue_offer(&dev->queue[q], (uint16_t)(s * SLOT_DESCS));
}

uint8_t blk_do(struct device *dev, unsigned q, unsigned s, uint32_t type, uint64_t sector, uint32_t len)
{
    blk_offer(dev, q, s, type, sector, len);
    queue_kick(dev, q);
    queue_wait(dev, q, dev->queue[q].avail.idx);
    return slots[s].status;
}

void pattern_fill(uint8_t *at, uint32_t len, uint64_t seed)
{
    for (uint32_t i = 0; i < len / 8; i++)
        ((uint64_t *)(void *)at)[i] = seed * PATTERN_FACTOR + i;
}

bool pattern_is(const uint8_t *at, uint32_t len, uint64_t seed)
{
    for (uint32_t i = 0; i < len / 8; i++)
        if (((const uint64_t *)(const void *)at)[i] != seed * PATTERN_FACTOR + i)
            return false;
    return true;
}

bool all_bytes_are(const uint8_t *at, uint32_t len, uint8_t value)
{
    for (uint32_t i = 0; i < len; i++)
        if (at[i] != value)
            return false;
    return true;
}
