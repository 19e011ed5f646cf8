/* SPDX-License-Identifier: Apache-2.0 */
/* The driver's way through the virtio-mmio registers. */
#include <endian.h>

#include "ringdrv.h"

uint32_t mmio_get(struct virtio_mmio *m, uint32_t offset)
{
    uint32_t v = 0;
    virtio_mmio_bus_ops.read(m, offset, &v, sizeof(v));
    return le32toh(v);
}

void mmio_put(struct virtio_mmio *m, uint32_t offset, uint32_t value)
{
    value = htole32(value);
    virtio_mmio_bus_ops.write(m, offset, &value, sizeof(value));
}

uint64_t mmio_config_get(struct virtio_mmio *m, uint32_t offset, uint32_t width)
{
    uint64_t v = 0;
    virtio_mmio_bus_ops.read(m, VIRTIO_MMIO_CONFIG + offset, &v, width);
    return le64toh(v);
}

void mmio_config_put(struct virtio_mmio *m, uint32_t offset, uint32_t width, uint64_t value)
{
    value = htole64(value);
    virtio_mmio_bus_ops.write(m, VIRTIO_MMIO_CONFIG + offset, &value, width);
}

void mmio_reset(struct virtio_mmio *m)
{
    mmio_put(m, MMIO_STATUS, 0);
}

uint64_t mmio_offered(struct virtio_mmio *m)
{
    mmio_put(m, MMIO_FEATURES_SEL, 0);
    uint64_t low = mmio_get(m, MMIO_DEVICE_FEATURES);
    mmio_put(m, MMIO_FEATURES_SEL, 1);
    return low | (uint64_t)mmio_get(m, MMIO_DEVICE_FEATURES) << 32;
}

bool mmio_negotiate(struct virtio_mmio *m, uint64_t features)
{
    uint32_t status = VIRTIO_STATUS_ACKNOWLEDGE;

    mmio_reset(m);
    mmio_put(m, MMIO_STATUS, status);
    status |= VIRTIO_STATUS_DRIVER;
    mmio_put(m, MMIO_STATUS, status);
    mmio_put(m, MMIO_DRIVER_SEL, 1);
    mmio_put(m, MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
    mmio_put(m, MMIO_DRIVER_SEL, 0);
    mmio_put(m, MMIO_DRIVER_FEATURES, (uint32_t)features);
    mmio_put(m, MMIO_STATUS, status | VIRTIO_STATUS_FEATURES_OK);
    return mmio_get(m, MMIO_STATUS) & VIRTIO_STATUS_FEATURES_OK;
}

static void put_address(struct virtio_mmio *m, uint32_t offset, uint64_t gpa)
{
    mmio_put(m, offset, (uint32_t)gpa);
    mmio_put(m, offset + 4, (uint32_t)(gpa >> 32));
}

bool mmio_queue(struct virtio_mmio *m, uint32_t index, const struct ring *r)
{
    mmio_put(m, MMIO_QUEUE_SEL, index);
    mmio_put(m, MMIO_QUEUE_NUM, r->size);
    put_address(m, MMIO_QUEUE_DESC, r->layout.desc);
    put_address(m, MMIO_QUEUE_DRIVER, r->layout.driver);
    put_address(m, MMIO_QUEUE_DEVICE, r->layout.device);
    mmio_put(m, MMIO_QUEUE_READY, 1);
    return mmio_get(m, MMIO_QUEUE_READY) == 1;
}

void mmio_driver_ok(struct virtio_mmio *m)
{
    mmio_put(m, MMIO_STATUS, mmio_get(m, MMIO_STATUS) | VIRTIO_STATUS_DRIVER_OK);
}
