/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam between a virtio device and its transport (devices/virtio/mmio.c). The transport owns registers,
 * status machine, feature negotiation and queue layouts; the device owns queue threads and config space.
 * Register accesses come from vCPU threads under the transport's lock; queue threads never take that lock.
 */
#ifndef MINIVMM_VIRTIO_H
#define MINIVMM_VIRTIO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "minivmm/bus.h"
#include "minivmm/errors.h"
#include "minivmm/guest_memory.h"
#include "minivmm/virtqueue.h"

#define VIRTIO_QUEUES_MAX 32u

/* Device status bits (VIRTIO 1.3, 2.1). */
#define VIRTIO_STATUS_ACKNOWLEDGE 0x01u
#define VIRTIO_STATUS_DRIVER      0x02u
#define VIRTIO_STATUS_DRIVER_OK   0x04u
#define VIRTIO_STATUS_FEATURES_OK 0x08u
#define VIRTIO_STATUS_NEEDS_RESET 0x40u
#define VIRTIO_STATUS_FAILED      0x80u

#define VIRTIO_BIT(n)              (1ULL << (n))
/* Device-independent feature bits (VIRTIO 1.3, 6). */
#define VIRTIO_F_BIT_INDIRECT_DESC VIRTIO_BIT(28)
#define VIRTIO_F_BIT_EVENT_IDX     VIRTIO_BIT(29)
#define VIRTIO_F_BIT_VERSION_1     VIRTIO_BIT(32)

/* Size of the register window that a virtio-mmio device takes: registers and config space from 0x100. */
#define VIRTIO_MMIO_SIZE         0x1000u
#define VIRTIO_MMIO_QUEUE_NOTIFY 0x050u
#define VIRTIO_MMIO_CONFIG       0x100u

struct virtio_device;
struct virtio_mmio;

struct virtio_device_ops {
    /* Config space; the transport has checked that [off, off + len) lies inside config_size. */
    void (*config_read)(struct virtio_device *dev, uint32_t off, void *to, uint32_t len);
    /* True when the write was taken, false when that part is read-only or the value is refused (ignored,
     * counted). */
    bool (*config_write)(struct virtio_device *dev, uint32_t off, const void *from, uint32_t len);
    /* Device-specific check at FEATURES_OK of a subset of the offered bits: 0, or -EINVAL to refuse. May be
     * NULL. */
    int (*accept_features)(struct virtio_device *dev, uint64_t features);
    /*
     * DRIVER_OK was set: dev->features is final, queue[i].enabled and .vq say which queues run. Hand each
     * enabled queue to its thread. From here until reset() returns, vq belongs to that thread.
     */
    void (*activate)(struct virtio_device *dev);
    /*
     * The driver wrote status 0: stop all queues, drain requests in flight, and return only when no thread
     * will touch guest memory for this device again. Called on a vCPU thread; must not depend on any vCPU.
     * Also called, harmlessly, when the device was never activated.
     */
    void (*reset)(struct virtio_device *dev);
};

struct virtio_queue {
    uint16_t size_max; /* QueueNumMax */
    bool enabled;      /* QueueReady = 1 was accepted */
    struct virtqueue_layout layout;
    struct virtqueue vq;
    int kick_fd; /* eventfd: signalled on QueueNotify of this queue; owned by the device */
};

/* Counters of what the driver did wrong, for status and tests; relaxed atomics. */
struct virtio_counters {
    _Atomic uint64_t
        bad_access;             /* wrong width, alignment or offset; write to read-only; read of write-only */
    _Atomic uint64_t bad_order; /* registers or status bits out of their order */
    _Atomic uint64_t bad_notify;  /* QueueNotify for an absent or disabled queue */
    _Atomic uint64_t needs_reset; /* times that DEVICE_NEEDS_RESET was set */
    _Atomic uint64_t interrupts;  /* used-buffer and config interrupts raised */
};

/* A device fills everything above the line before virtio_mmio_create(); the transport fills the rest. */
struct virtio_device {
    const struct virtio_device_ops *ops;
    const char *name;           /* "disk0", "rng": in log lines; kept by reference */
    uint32_t device_id;         /* 2 block, 4 entropy */
    uint64_t offered;           /* all feature bits offered, VERSION_1 included */
    uint32_t config_size;       /* bytes of config space */
    unsigned queue_count;       /* 1 .. VIRTIO_QUEUES_MAX */
    struct virtio_queue *queue; /* queue_count entries, owned by the device */
    const struct guest_memory *mem;
    /* ---- */
    uint64_t features; /* negotiated; final at FEATURES_OK */
    struct virtio_mmio *transport;
    struct virtio_counters counters;
};

/*
 * Calls for queue threads (any thread).
 * used: sets bit 0 of InterruptStatus, then signals the interrupt eventfd (in that order: the line is an
 * edge). config: bumps ConfigGeneration, sets bit 1, signals. broken: sets DEVICE_NEEDS_RESET, and raises a
 * config interrupt when DRIVER_OK is set (2.1.2); logs why.
 */
void virtio_notify_used(struct virtio_device *dev);
void virtio_notify_config(struct virtio_device *dev);
void virtio_notify_broken(struct virtio_device *dev, const char *why);

/*
 * The virtio-mmio transport, version 2 (VIRTIO 1.3, 4.2). irq_fd: eventfd of the interrupt line, not owned.
 * dev must outlive the transport. -ENOMEM on failure.
 */
int virtio_mmio_create(struct virtio_device *dev, int irq_fd, struct virtio_mmio **out, struct err *err);
void virtio_mmio_destroy(struct virtio_mmio *mmio);

/* The bus handler for the register window; dev argument: the struct virtio_mmio. */
extern const struct bus_ops virtio_mmio_bus_ops;

/* The device's status register as the driver would read it; any thread (for status output and tests). */
uint32_t virtio_mmio_status(const struct virtio_mmio *mmio);

/*
 * virtio-rng (VIRTIO 1.3, 5.4): one queue, one thread, getrandom(2). Create and destroy on the main thread,
 * with no vCPU running; destroy stops the thread. The struct virtio_device is embedded; see
 * virtio_rng_device().
 */
struct virtio_rng;
int virtio_rng_create(const struct guest_memory *mem, struct virtio_rng **out, struct err *err);
struct virtio_device *virtio_rng_device(struct virtio_rng *rng);
void virtio_rng_destroy(struct virtio_rng *rng);

#endif
