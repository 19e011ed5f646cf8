/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport under a driver that does anything: the input is a list of 8-byte steps, each a register
 * access, a change of guest memory, or a turn of the device, which serves its queues on this thread so that a
 * finding can be repeated.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "minivmm/bytes.h"
#include "minivmm/event.h"
#include "minivmm/log.h"
#include "minivmm/virtio.h"

#define RAM_GPA          0x10000u
#define RAM_SIZE         0x4000u
#define CONFIG           24u
#define QUEUES           3u
#define SIZE_MAX_ENTRIES 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct toy {
    struct virtio_device dev;
    struct virtio_queue queue[QUEUES];
    uint8_t config[CONFIG];
    bool active;
};

static void toy_read(struct virtio_device *dev, uint32_t off, void *to, uint32_t len)
{
    if (off + len > CONFIG)
        abort();
    memcpy(to, ((struct toy *)dev)->config + off, len);
}

static bool toy_write(struct virtio_device *dev, uint32_t off, const void *from, uint32_t len)
{
    if (off + len > CONFIG)
        abort();
    memcpy(((struct toy *)dev)->config + off, from, len);
    return true;
}

static void toy_activate(struct virtio_device *dev)
{
    struct toy *t = (struct toy *)dev;
    if (t->active || !(dev->features & VIRTIO_F_BIT_VERSION_1) || (dev->features & ~dev->offered))
        abort();
    t->active = true;
}

static void toy_reset(struct virtio_device *dev)
{
    ((struct toy *)dev)->active = false;
}

static const struct virtio_device_ops ops = {
    .config_read = toy_read, .config_write = toy_write, .activate = toy_activate, .reset = toy_reset};

static void serve(struct toy *t)
{
    struct iovec iov[SIZE_MAX_ENTRIES + 2];
    struct virtqueue_chain chain = {.iov = iov, .iov_max = SIZE_MAX_ENTRIES + 2};
    struct err err;

    for (unsigned i = 0; t->active && i < QUEUES; i++) {
        struct virtqueue *vq = &t->queue[i].vq;
        if (!t->queue[i].enabled || vq->broken)
            continue;
        int rc = virtqueue_pop(vq, &chain, &err);
        if (rc < 0)
            virtio_notify_broken(&t->dev, err.text);
        if (rc <= 0)
            continue;
        for (unsigned k = 0; k < chain.writable; k++)
            memset(iov[chain.readable + k].iov_base, 0x33, iov[chain.readable + k].iov_len);
        virtqueue_push(vq, chain.head, (uint32_t)chain.writable_bytes);
        if (virtqueue_publish(vq))
            virtio_notify_used(&t->dev);
    }
}

/* A step: kind, width, a 16-bit offset, 32 bits of value. */
static void step(struct toy *t, uint8_t *ram, const uint8_t *s)
{
    uint8_t wide[8] = {0};
    const uint32_t width = 1u << (s[1] & 3);
    const uint16_t offset = load_le16(s + 2);

    memcpy(wide, s + 4, 4);
    switch (s[0] & 7) {
    case 0: /* registers, mostly well-formed */
    case 1:
        virtio_mmio_bus_ops.write(t->dev.transport, offset & 0xfc, wide, 4);
        break;
    case 2:
        virtio_mmio_bus_ops.write(t->dev.transport, offset % VIRTIO_MMIO_SIZE, wide, width);
        break;
    case 3:
        virtio_mmio_bus_ops.read(t->dev.transport, offset % VIRTIO_MMIO_SIZE, wide, width);
        break;
    case 4:
    case 5:
        memcpy(ram + offset % (RAM_SIZE - 4), s + 4, 4);
        break;
    case 6:
        virtio_notify_config(&t->dev);
        break;
    default:
        serve(t);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *ram = calloc(1, RAM_SIZE);
    struct guest_memory mem = {.region = {{.gpa = RAM_GPA, .size = RAM_SIZE, .hva = ram}}, .count = 1};
    struct toy toy = {
        .dev = {.ops = &ops,
                .name = "toy",
                .device_id = 4,
                .offered = VIRTIO_F_BIT_VERSION_1 | VIRTIO_F_BIT_EVENT_IDX | VIRTIO_F_BIT_INDIRECT_DESC,
                .config_size = CONFIG,
                .queue_count = QUEUES,
                .mem = &mem}};
    struct virtio_mmio *mmio;
    const int event = event_open();

    if (!ram || event < 0)
        abort();
    log_open(-1, NULL, LOG_LEVEL_ERROR);
    toy.dev.queue = toy.queue;
    for (unsigned i = 0; i < QUEUES; i++)
        toy.queue[i] = (struct virtio_queue){.size_max = SIZE_MAX_ENTRIES, .kick_fd = event};
    if (virtio_mmio_create(&toy.dev, event, &mmio, NULL))
        abort();
    for (size_t at = 0; at + 8 <= size; at += 8)
        step(&toy, ram, data + at);

    /* Whatever happened, writing 0 leads back to the start. */
    uint32_t word = 0;
    virtio_mmio_bus_ops.write(mmio, 0x70, &word, 4);
    virtio_mmio_bus_ops.read(mmio, 0x60, &word, 4);
    if (word || virtio_mmio_status(mmio) || toy.active || toy.dev.features)
        abort();
    virtio_mmio_destroy(mmio);
    close(event);
    free(ram);
    return 0;
}
