/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio.h"

uint32_t reg_read(const struct device *dev, unsigned reg)
{
    return mmio_read32(dev->base + reg);
}

void reg_write(const struct device *dev, unsigned reg, uint32_t value)
{
    mmio_write32(dev->base + reg, value);
}

/* An edge may come with no status bit left, when the work was seen with the one before: that is no error. */
static void on_irq(void *arg)
{
    struct device *dev = arg;
    uint32_t why = reg_read(dev, REG_INTERRUPT_STATUS);

    if (why)
        reg_write(dev, REG_INTERRUPT_ACK, why);
    WRITE_ONCE(dev->irqs, dev->irqs + 1);
    if (dev->hook)
        dev->hook(dev);
}

bool device_find(struct device *dev, uint32_t id, unsigned nth, struct queue *queue)
{
    for (unsigned n = 0; n < MMIO_WINDOWS; n++) {
        dev->base = MMIO_BASE + n * MMIO_STRIDE;
        dev->gsi = MMIO_GSI + n;
        dev->queue = queue;
        if (reg_read(dev, REG_MAGIC) != VIRTIO_MAGIC || reg_read(dev, REG_DEVICE_ID) != id || nth-- > 0)
            continue;
        irq_connect(dev->gsi, on_irq, dev);
        return true;
    }
    return false;
}

uint64_t device_offers(const struct device *dev)
{
    uint64_t offered;

    reg_write(dev, REG_DEVICE_FEATURES_SEL, 1);
    offered = (uint64_t)reg_read(dev, REG_DEVICE_FEATURES) << 32;
    reg_write(dev, REG_DEVICE_FEATURES_SEL, 0);
    return offered | reg_read(dev, REG_DEVICE_FEATURES);
}

void device_reset(struct device *dev)
{
    reg_write(dev, REG_STATUS, 0);
    while (reg_read(dev, REG_STATUS) != 0)
        cpu_relax();
    dev->queues = 0;
    dev->hook = NULL;
}

bool device_negotiate(struct device *dev, uint64_t wanted)
{
    device_reset(dev);
    reg_write(dev, REG_STATUS, STATUS_ACKNOWLEDGE);
    reg_write(dev, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    dev->features = device_offers(dev) & (wanted | F_VERSION_1);
    reg_write(dev, REG_DRIVER_FEATURES_SEL, 1);
    reg_write(dev, REG_DRIVER_FEATURES, (uint32_t)(dev->features >> 32));
    reg_write(dev, REG_DRIVER_FEATURES_SEL, 0);
    reg_write(dev, REG_DRIVER_FEATURES, (uint32_t)dev->features);
    reg_write(dev, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    return reg_read(dev, REG_STATUS) & STATUS_FEATURES_OK;
}

static void write_address(struct device *dev, unsigned reg, const volatile void *at)
{
    reg_write(dev, reg, (uint32_t)(uint64_t)at);
    reg_write(dev, reg + 4, (uint32_t)((uint64_t)at >> 32));
}

void queue_enable(struct device *dev, unsigned n)
{
    struct queue *q = &dev->queue[n];

    q->avail.flags = q->avail.idx = q->avail.used_event = 0;
    q->used.flags = q->used.idx = q->used.avail_event = 0;
    q->kicked = 0;
    reg_write(dev, REG_QUEUE_SEL, n);
    reg_write(dev, REG_QUEUE_NUM, RING_SIZE);
    write_address(dev, REG_QUEUE_DESC, q->desc);
    write_address(dev, REG_QUEUE_DRIVER, &q->avail);
    write_address(dev, REG_QUEUE_DEVICE, &q->used);
    reg_write(dev, REG_QUEUE_READY, 1);
}

bool device_start(struct device *dev, uint64_t wanted, unsigned queues)
{
    if (!device_negotiate(dev, wanted))
        return false;
    for (unsigned n = 0; n < queues; n++)
        queue_enable(dev, n);
    dev->queues = queues;
    reg_write(dev, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    return !(reg_read(dev, REG_STATUS) & STATUS_NEEDS_RESET);
}

void queue_chain(struct queue *q, uint16_t head, const struct seg *seg, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        q->desc[head + i] = (struct desc){
            .addr = (uint64_t)seg[i].at,
            .len = seg[i].len,
            .flags = (uint16_t)((seg[i].device_writes ? DESC_WRITE : 0) | (i + 1 < count ? DESC_NEXT : 0)),
            .next = (uint16_t)(head + i + 1),
        };
    }
}

void queue_offer(struct queue *q, uint16_t head)
{
    q->avail.ring[q->avail.idx % RING_SIZE] = head;
    barrier();
    WRITE_ONCE(q->avail.idx, (uint16_t)(q->avail.idx + 1));
}

void queue_kick(struct device *dev, unsigned n)
{
    struct queue *q = &dev->queue[n];
    uint16_t old = q->kicked, now = q->avail.idx;
    bool wanted;

    full_barrier(); /* the index must be visible before the device's wish is read */
    if (dev->features & F_EVENT_IDX)
        wanted = (uint16_t)(now - READ_ONCE(q->used.avail_event) - 1) < (uint16_t)(now - old);
    else
        wanted = !(READ_ONCE(q->used.flags) & 1);
    q->kicked = now;
    if (wanted)
        reg_write(dev, REG_QUEUE_NOTIFY, n);
}

bool queue_wait(struct device *dev, unsigned n, uint16_t used_idx)
{
    struct queue *q = &dev->queue[n];

    if (dev->features & F_EVENT_IDX) {
        WRITE_ONCE(q->avail.used_event, (uint16_t)(used_idx - 1));
        full_barrier();
    }
    for (;;) {
        uint32_t seen = dev->irqs;

        barrier();
        if (READ_ONCE(q->used.idx) == used_idx)
            return true;
        if (!wait_change32(&dev->irqs, seen))
            return false;
    }
}

bool queue_poll(struct device *dev, unsigned n, uint16_t used_idx)
{
    uint64_t until = ticks() + GIVE_UP_TICKS;

    while (READ_ONCE(dev->queue[n].used.idx) != used_idx) {
        if (ticks() > until)
            return false;
        cpu_relax();
    }
    barrier();
    return true;
}
