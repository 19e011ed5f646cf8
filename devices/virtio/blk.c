/* SPDX-License-Identifier: Apache-2.0 */
/* The block device as the driver's registers see it: features, config space, life cycle. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/virtio/blk.h"
#include "minivmm/bytes.h"
#include "minivmm/event.h"

#define DEVICE_ID_BLOCK  2u
#define AT(field)        offsetof(struct virtio_blk_config, field)
#define WRITEBACK_OFFSET AT(wce)

static struct block *block_of(struct virtio_device *dev)
{
    return container_of(dev, struct block, dev);
}

static void config_read(struct virtio_device *dev, uint32_t off, void *to, uint32_t len)
{
    struct block *b = block_of(dev);

    memcpy(to, b->config + off, len);
    if (off <= WRITEBACK_OFFSET && WRITEBACK_OFFSET - off < len)
        ((uint8_t *)to)[WRITEBACK_OFFSET - off] = atomic_load_explicit(&b->writeback, memory_order_acquire);
}

/* Only the cache switch can be written (5.2.5), by a driver that knows it, with one of its two values. */
static bool config_write(struct virtio_device *dev, uint32_t off, const void *from, uint32_t len)
{
    struct block *b = block_of(dev);
    uint8_t value = *(const uint8_t *)from;

    if (off != WRITEBACK_OFFSET || len != 1 || value > 1 ||
        !(dev->features & VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE)))
        return false;
    atomic_store_explicit(&b->writeback, value, memory_order_release);
    return true;
}

static int accept_features(struct virtio_device *dev, uint64_t features)
{
    struct block *b = block_of(dev);

    if (!(features & VIRTIO_F_BIT_VERSION_1))
        return -EINVAL;
    if (b->ice_required && !(features & VIRTIO_BIT(VIRTIO_BLK_F_ICE)))
        return -EINVAL;
    /* 5.2.5.2: a driver that sees the switch but can't flush finds it at write-through. */
    if (features & VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE) && !(features & VIRTIO_BIT(VIRTIO_BLK_F_FLUSH)))
        atomic_store_explicit(&b->writeback, false, memory_order_release);
    return 0;
}

static void activate(struct virtio_device *dev)
{
    struct block *b = block_of(dev);

    for (unsigned i = 0; i < b->queues; i++) {
        if (b->vqs[i].enabled)
            blk_queue_run(&b->queue[i]);
    }
}

static void reset(struct virtio_device *dev)
{
    struct block *b = block_of(dev);

    for (unsigned i = 0; i < b->queues; i++)
        blk_queue_park(&b->queue[i]);
    atomic_store_explicit(&b->writeback, b->writeback_initial, memory_order_release);
}

static const struct virtio_device_ops ops = {.config_read = config_read,
                                             .config_write = config_write,
                                             .accept_features = accept_features,
                                             .activate = activate,
                                             .reset = reset};

/* Discards show which blocks are in use: of a transparent disk only if the operator asked for them. */
static bool may_discard(const struct block_config *config)
{
    return config->discard && (!config->transparent.unit || config->transparent.discard);
}

static uint64_t features_of(const struct block_config *config, const struct disk_geometry *g)
{
    uint64_t f = VIRTIO_F_BIT_VERSION_1 | VIRTIO_F_BIT_INDIRECT_DESC | VIRTIO_F_BIT_EVENT_IDX |
                 VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) |
                 VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) |
                 VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE);

    if (config->queues > 1)
        f |= VIRTIO_BIT(VIRTIO_BLK_F_MQ);
    if (config->ice_count)
        f |= VIRTIO_BIT(VIRTIO_BLK_F_ICE);
    if (g->readonly)
        return f | VIRTIO_BIT(VIRTIO_BLK_F_RO);
    if (may_discard(config) && g->can_discard)
        f |= VIRTIO_BIT(VIRTIO_BLK_F_DISCARD);
    if (config->write_zeroes && (g->can_write_zeroes || config->transparent.unit))
        f |= VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
    if (may_discard(config) && g->can_secure_erase)
        f |= VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE);
    return f;
}

static uint32_t log2_of(uint32_t power)
{
    return (uint32_t)__builtin_ctz(power);
}

/* A segment can share its descriptor with header or status, so that even the smallest queue carries one. */
static uint32_t seg_max_of(const struct block_config *config)
{
    return config->queue_size > 2 ? config->queue_size - 2u : 1u;
}

/* The guest's block: the host's, or one data unit of a transparent disk. */
static uint32_t block_size_of(const struct block *b)
{
    return blk_is_transparent(b) ? b->transparent.unit : b->geometry->logical_block;
}

static void fill_topology(uint8_t *c, const struct block *b)
{
    uint32_t block = block_size_of(b), physical = b->geometry->physical_block;
    uint32_t min_io = physical > block ? physical / block : 1;

    store_le32(c + AT(blk_size), block);
    c[AT(physical_block_exp)] = (uint8_t)log2_of(min_io);
    store_le16(c + AT(min_io_size), min_io <= UINT16_MAX ? (uint16_t)min_io : UINT16_MAX);
    store_le32(c + AT(opt_io_size), b->geometry->opt_io / block);
}

/* A field whose feature is not offered stays zero. */
static void fill_config(struct block *b, const struct block_config *config)
{
    const struct disk_geometry *g = b->geometry;
    uint64_t f = b->dev.offered;
    uint32_t block = block_size_of(b);
    uint32_t granule = g->discard_granularity > block ? g->discard_granularity : block;
    uint8_t *c = b->config;

    store_le64(c + AT(capacity), b->capacity / DISK_SECTOR);
    store_le32(c + AT(size_max), BLK_SEGMENT_SIZE_MAX);
    store_le32(c + AT(seg_max), seg_max_of(config));
    fill_topology(c, b);
    if (f & VIRTIO_BIT(VIRTIO_BLK_F_MQ))
        store_le16(c + AT(num_queues), (uint16_t)config->queues);
    if (f & VIRTIO_BIT(VIRTIO_BLK_F_DISCARD)) {
        store_le32(c + AT(max_discard_sectors), BLK_RANGE_SECTORS_MAX);
        store_le32(c + AT(max_discard_seg), BLK_RANGES_MAX);
        store_le32(c + AT(discard_sector_alignment), granule / DISK_SECTOR);
    }
    if (f & VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES)) {
        store_le32(c + AT(max_write_zeroes_sectors), BLK_RANGE_SECTORS_MAX);
        store_le32(c + AT(max_write_zeroes_seg), BLK_RANGES_MAX);
        c[AT(write_zeroes_may_unmap)] = g->can_write_zeroes_unmap && !blk_is_transparent(b);
    }
    if (f & VIRTIO_BIT(VIRTIO_BLK_F_SECURE_ERASE)) {
        store_le32(c + AT(max_secure_erase_sectors), BLK_RANGE_SECTORS_MAX);
        store_le32(c + AT(max_secure_erase_seg), BLK_RANGES_MAX);
        store_le32(c + AT(secure_erase_sector_alignment), granule / DISK_SECTOR);
    }
}

static int check(const struct block_config *config, struct err *err)
{
    unsigned size = config->queue_size;

    if (config->queues < 1 || config->queues > VIRTIO_QUEUES_MAX)
        return err_set(err, -EINVAL, "disk%u: %u queues asked for, 1 to %u are possible", config->index,
                       config->queues, VIRTIO_QUEUES_MAX);
    if (size < 2 || size > VIRTQUEUE_SIZE_MAX || size & (size - 1))
        return err_set(err, -EINVAL, "disk%u: a queue size of %u is not a power of two from 2 to %u",
                       config->index, size, VIRTQUEUE_SIZE_MAX);
    return blk_ice_check(config, err);
}

static void fill_device(struct block *b, const struct block_config *config, const struct guest_memory *mem)
{
    struct virtio_device *dev = &b->dev;

    b->disk = config->disk;
    b->geometry = disk_geometry(config->disk);
    b->index = config->index;
    b->queues = config->queues;
    b->writeback_initial = config->writeback;
    atomic_init(&b->writeback, config->writeback);
    snprintf(b->name, sizeof(b->name), "disk%u", config->index);
    memcpy(b->serial, config->serial, strnlen(config->serial, sizeof(b->serial)));
    dev->ops = &ops;
    dev->name = b->name;
    dev->device_id = DEVICE_ID_BLOCK;
    dev->offered = features_of(config, b->geometry);
    dev->config_size = BLK_CONFIG_SIZE;
    dev->queue_count = config->queues;
    dev->queue = b->vqs;
    dev->mem = mem;
    blk_ice_init(b, config);
    fill_config(b, config);
}

static int open_queues(struct block *b, const struct block_config *config, struct err *err)
{
    for (unsigned i = 0; i < config->queues; i++) {
        b->vqs[i].size_max = config->queue_size;
        b->vqs[i].kick_fd = event_open();
        if (b->vqs[i].kick_fd < 0)
            return err_set(err, b->vqs[i].kick_fd, "%s: no eventfd for queue %u: %s", b->name, i,
                           strerrordesc_np(-b->vqs[i].kick_fd));
        int rc = blk_queue_open(&b->queue[i], b, i, config->index, err);
        if (rc) {
            close(b->vqs[i].kick_fd);
            return rc;
        }
        b->opened++;
    }
    return 0;
}

int block_create(const struct block_config *config, const struct guest_memory *mem, struct block **out,
                 struct err *err)
{
    int rc = check(config, err);
    if (rc)
        return rc;
    struct block *b = calloc(1, sizeof(*b));
    if (b) {
        b->vqs = calloc(config->queues, sizeof(*b->vqs));
        b->queue = calloc(config->queues, sizeof(*b->queue));
    }
    if (!b || !b->vqs || !b->queue) {
        block_destroy(b);
        return err_set(err, -ENOMEM, "disk%u: no memory for %u queues", config->index, config->queues);
    }
    fill_device(b, config, mem);
    rc = open_queues(b, config, err);
    if (rc) {
        block_destroy(b);
        return rc;
    }
    *out = b;
    return 0;
}

void block_destroy(struct block *b)
{
    if (!b)
        return;
    for (unsigned i = 0; i < b->opened; i++) {
        blk_queue_close(&b->queue[i]);
        close(b->vqs[i].kick_fd);
    }
    free(b->queue);
    free(b->vqs);
    free(b);
}

struct virtio_device *block_device(struct block *block)
{
    return &block->dev;
}

const struct block_counters *block_counters(const struct block *block)
{
    return &block->counters;
}
