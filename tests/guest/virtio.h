/* SPDX-License-Identifier: Apache-2.0 */
/* The driver side of virtio-mmio (VIRTIO 1.3, 4.2) and of a split virtqueue (2.7), kept small. */
#ifndef GUEST_VIRTIO_H
#define GUEST_VIRTIO_H

#include "guest.h"

#define RING_SIZE    64u
#define QUEUES_MAX   2u
#define DEVICE_BLOCK 2u
#define DEVICE_RNG   4u

enum virtio_register {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC = 0x080,
    REG_QUEUE_DRIVER = 0x090,
    REG_QUEUE_DEVICE = 0x0A0,
    REG_CONFIG_GENERATION = 0x0FC,
    REG_CONFIG = 0x100,
};

#define VIRTIO_MAGIC 0x74726976u

#define STATUS_ACKNOWLEDGE 0x01u
#define STATUS_DRIVER      0x02u
#define STATUS_DRIVER_OK   0x04u
#define STATUS_FEATURES_OK 0x08u
#define STATUS_NEEDS_RESET 0x40u

#define F_INDIRECT  (1ULL << 28)
#define F_EVENT_IDX (1ULL << 29)
#define F_VERSION_1 (1ULL << 32)

#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct avail {
    uint16_t flags, idx, ring[RING_SIZE], used_event;
};

struct used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[RING_SIZE];
    uint16_t avail_event;
};

struct queue {
    struct desc desc[RING_SIZE] __attribute__((aligned(4096)));
    struct avail avail __attribute__((aligned(4096)));
    struct used used __attribute__((aligned(4096)));
    uint16_t kicked; /* avail.idx when the device was last asked about a kick */
};

struct device {
    uint64_t base;
    unsigned gsi;
    uint64_t features; /* negotiated */
    unsigned queues;   /* set up */
    volatile uint32_t irqs;
    void (*hook)(struct device *dev); /* runs in the handler, after the acknowledge */
    struct queue *queue;
};

struct seg {
    const volatile void *at;
    uint32_t len;
    bool device_writes;
};

/* Finds the nth device with this id; false when there is none. queue: memory for QUEUES_MAX queues. */
bool device_find(struct device *dev, uint32_t id, unsigned nth, struct queue *queue);
uint32_t reg_read(const struct device *dev, unsigned reg);
void reg_write(const struct device *dev, unsigned reg, uint32_t value);
uint64_t device_offers(const struct device *dev);
void device_reset(struct device *dev);
/* Reset, negotiation of wanted (what is offered of it, and VERSION_1), queues, DRIVER_OK. */
bool device_start(struct device *dev, uint64_t wanted, unsigned queues);
/* The same up to FEATURES_OK. */
bool device_negotiate(struct device *dev, uint64_t wanted);
void queue_enable(struct device *dev, unsigned q);

/* Writes a chain into descriptors head ..; queue_offer() makes it available (a kick is the caller's). */
void queue_chain(struct queue *q, uint16_t head, const struct seg *seg, unsigned count);
void queue_offer(struct queue *q, uint16_t head);
void queue_kick(struct device *dev, unsigned q);                    /* unless the device asked for none */
bool queue_wait(struct device *dev, unsigned q, uint16_t used_idx); /* by interrupt */
bool queue_poll(struct device *dev, unsigned q, uint16_t used_idx); /* interrupts not needed */

#endif
