/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's side in memory: a piece of guest RAM, split rings in it, and the driver's way through the
 * virtio-mmio registers. No VM and no KVM: kicks go to the device's eventfd, as an ioeventfd would do.
 * Timeouts here end a test that would hang; nothing is ever measured by them.
 */
#ifndef TESTS_LIB_RINGDRV_H
#define TESTS_LIB_RINGDRV_H

#include <stdbool.h>
#include <stdint.h>

#include "minivmm/guest_memory.h"
#include "minivmm/virtio.h"

#define GUEST_RAM_GPA  0x100000ull
#define GUEST_ROM_GPA  0xf0000000ull
#define GUEST_ROM_SIZE 0x1000ull

/* RAM from GUEST_RAM_GPA on, and a page of ROM (filled with 0x5a) at GUEST_ROM_GPA. */
struct guest {
    struct guest_memory mem;
    uint64_t next; /* where guest_alloc() goes on */
};

void guest_init(struct guest *g, uint64_t ram_size); /* a multiple of 4096; aborts without memory */
void guest_free(struct guest *g);
/* Zeroed guest memory, never given back; aborts when RAM is used up. align: a power of two. */
uint64_t guest_alloc(struct guest *g, uint64_t bytes, uint64_t align);
void *guest_ptr(struct guest *g, uint64_t gpa); /* aborts outside RAM and ROM */

#define RING_DESC_NEXT     1u
#define RING_DESC_WRITE    2u
#define RING_DESC_INDIRECT 4u

struct ring_buffer {
    uint64_t gpa;
    uint32_t len;
    bool device_writes;
};

enum ring_framing { RING_DIRECT, RING_INDIRECT };

struct ring {
    struct guest *g;
    uint16_t size;
    bool event_idx;
    int kick_fd; /* the device's; -1: ring_kick() only decides */
    struct virtqueue_layout layout;
    uint8_t *desc, *avail, *used;
    uint16_t avail_idx; /* shadow; ring_publish() shows it to the device */
    uint16_t kicked;    /* avail idx at the last decision to kick */
    uint16_t seen;      /* used entries taken */
    uint16_t free_head, free_count;
    uint64_t table[VIRTQUEUE_SIZE_MAX];        /* the indirect table last used for a head, */
    unsigned table_room[VIRTQUEUE_SIZE_MAX];   /* and its entries: reused when it is large enough */
    uint16_t chain_length[VIRTQUEUE_SIZE_MAX]; /* descriptors of the table held, by head */
};

/* size: a power of two. All memory comes from g. */
void ring_init(struct ring *r, struct guest *g, uint16_t size, bool event_idx);
/* All indices back to 0, for use after a device reset. */
void ring_restart(struct ring *r);

/*
 * Adds one chain to the available ring without publishing it: its head (the id in the used ring), or -1 when
 * there are too few free descriptors. The device-readable buffers must come first, as the standard wants;
 * this is not checked, so that tests can do it wrong.
 */
int ring_add(struct ring *r, const struct ring_buffer *buf, unsigned count, enum ring_framing framing);
void ring_publish(struct ring *r);
/* Signals kick_fd if the device asked for a kick since the last call; whether it did. */
bool ring_kick(struct ring *r);
/* ring_add, ring_publish and ring_kick. */
int ring_submit(struct ring *r, const struct ring_buffer *buf, unsigned count, enum ring_framing framing);

/* Takes one used entry; false when there is none. id or len may be NULL. Frees the chain's descriptors. */
bool ring_take(struct ring *r, uint32_t *id, uint32_t *len);
/* The same, waiting up to 10 s; false after that. */
bool ring_wait(struct ring *r, uint32_t *id, uint32_t *len);
/* Flag mode: sets or clears NO_INTERRUPT. EVENT_IDX: asks for an interrupt at the next used entry, or far
 * away. */
void ring_want_interrupts(struct ring *r, bool want);

/* For bad drivers: raw words. */
void ring_write_desc(struct ring *r, uint16_t i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next);
void ring_write_avail(struct ring *r, uint16_t slot, uint16_t head);
void ring_write_avail_idx(struct ring *r, uint16_t idx); /* publishes it, and moves the shadow there */
uint16_t ring_used_idx(const struct ring *r);

/* Waits up to 10 s for an eventfd to be signalled and clears it: its counter, or 0 after that time. */
uint64_t wait_event(int fd);
/* Waits up to 10 s until the device's status register has the bits. */
bool wait_status(const struct virtio_mmio *mmio, uint32_t bits);

/* Register access, as a vCPU does it. */
uint32_t mmio_get(struct virtio_mmio *m, uint32_t offset);
void mmio_put(struct virtio_mmio *m, uint32_t offset, uint32_t value);
/* Config space: width 1, 2, 4 or 8; offset from its start. */
uint64_t mmio_config_get(struct virtio_mmio *m, uint32_t offset, uint32_t width);
void mmio_config_put(struct virtio_mmio *m, uint32_t offset, uint32_t width, uint64_t value);

#define MMIO_MAGIC             0x000u
#define MMIO_VERSION           0x004u
#define MMIO_DEVICE_ID         0x008u
#define MMIO_VENDOR_ID         0x00cu
#define MMIO_DEVICE_FEATURES   0x010u
#define MMIO_FEATURES_SEL      0x014u
#define MMIO_DRIVER_FEATURES   0x020u
#define MMIO_DRIVER_SEL        0x024u
#define MMIO_QUEUE_SEL         0x030u
#define MMIO_QUEUE_NUM_MAX     0x034u
#define MMIO_QUEUE_NUM         0x038u
#define MMIO_QUEUE_READY       0x044u
#define MMIO_QUEUE_NOTIFY      0x050u
#define MMIO_INTERRUPT_STATUS  0x060u
#define MMIO_INTERRUPT_ACK     0x064u
#define MMIO_STATUS            0x070u
#define MMIO_QUEUE_DESC        0x080u
#define MMIO_QUEUE_DRIVER      0x090u
#define MMIO_QUEUE_DEVICE      0x0a0u
#define MMIO_SHM_SEL           0x0acu
#define MMIO_SHM_LEN           0x0b0u
#define MMIO_SHM_BASE          0x0b8u
#define MMIO_QUEUE_RESET       0x0c0u
#define MMIO_CONFIG_GENERATION 0x0fcu

void mmio_reset(struct virtio_mmio *m); /* writes status 0 */
uint64_t mmio_offered(struct virtio_mmio *m);
/* Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK; whether the device kept FEATURES_OK. */
bool mmio_negotiate(struct virtio_mmio *m, uint64_t features);
/* Tells the transport where ring r of this index is, and enables it; whether QueueReady reads 1 then. */
bool mmio_queue(struct virtio_mmio *m, uint32_t index, const struct ring *r);
void mmio_driver_ok(struct virtio_mmio *m);

#endif
