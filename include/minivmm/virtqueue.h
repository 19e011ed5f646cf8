/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device side of a split virtqueue (VIRTIO 1.3 section 2.7) with INDIRECT_DESC and EVENT_IDX. A queue
 * belongs to one thread at a time: nothing here locks. Rings and descriptors are hostile: each field is read
 * once into a local and then checked. After any -EPROTO the queue is broken and stays so until it is started
 * again; the owner then sets DEVICE_NEEDS_RESET.
 */
#ifndef MINIVMM_VIRTQUEUE_H
#define MINIVMM_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "minivmm/errors.h"
#include "minivmm/guest_memory.h"

#define VIRTQUEUE_SIZE_MAX 1024u

/* What the driver wrote through the transport (VIRTIO 1.3, 4.2.2.2): guest physical addresses. */
struct virtqueue_layout {
    uint16_t size; /* entries: a power of two, 1 .. VIRTQUEUE_SIZE_MAX */
    uint64_t desc, driver, device;
};

struct virtqueue {
    const struct guest_memory *mem;
    uint16_t size;
    bool event_idx, indirect, broken;
    bool kicks_wanted;            /* what the device last told the driver */
    uint8_t *desc, *avail, *used; /* host addresses of the three parts */
    uint16_t next_avail;          /* our position in the avail ring */
    uint16_t next_used;           /* used entries written, perhaps not yet published */
    uint16_t published;           /* used idx the driver can see */
};

/*
 * One descriptor chain, resolved to host addresses. iov[0 .. readable) are the device-readable segments,
 * iov[readable .. readable + writable) the device-writable ones, in chain order (2.7.4.2: readable first).
 * Segments of length 0 are dropped; a segment that spans two guest regions is split.
 * The caller gives iov and iov_max; the rest is filled by virtqueue_pop().
 */
struct virtqueue_chain {
    struct iovec *iov;
    unsigned iov_max; /* at least the queue size + 2, so that any legal chain fits */
    unsigned readable, writable;
    uint64_t readable_bytes, writable_bytes;
    uint16_t head; /* the id for the used ring */
};

/*
 * Checks size, alignment (16, 2, 4) and that each part lies in one region of guest memory (the used ring
 * writable), and sets the queue to its start: all indices 0. features: the negotiated bits (EVENT_IDX,
 * INDIRECT). 0, or -EINVAL with a sentence and the queue unusable.
 */
int virtqueue_start(struct virtqueue *vq, const struct guest_memory *mem,
                    const struct virtqueue_layout *layout, uint64_t features, struct err *err);

/*
 * Takes the next available chain. 1: chain filled; 0: ring empty; -EPROTO: the driver broke the ring (index
 * past the size, loop, chain longer than the queue, address outside memory, readable after writable, nested
 * or misplaced indirect, avail index ahead by more than the size): err says how, the queue is broken.
 */
int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain, struct err *err);

/* Writes a used entry; len: bytes written to the chain's writable part. Visible only after
 * virtqueue_publish(). */
void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len);

/*
 * Publishes all pushed entries (release store of the used index) and returns whether the driver wants an
 * interrupt for them (2.7.7, 2.7.10).
 */
bool virtqueue_publish(struct virtqueue *vq);

/*
 * Tells the driver not to kick / to kick for the next chain. virtqueue_want_kicks() returns true when chains
 * arrived meanwhile: the caller must then pop again before it sleeps (2.7.10.1).
 */
void virtqueue_refuse_kicks(struct virtqueue *vq);
bool virtqueue_want_kicks(struct virtqueue *vq);

#endif
