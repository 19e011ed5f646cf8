/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ordering. A plain acquire/release pair is enough between an index and the entries it covers. Two places
 * need more, store then load of different words, which only a full barrier keeps in order on every CPU:
 * publishing the used index before reading what interrupt the driver wants, and asking for a kick before
 * looking at the avail index once more. Both the store and the load are seq_cst there; that is a full barrier
 * between them on x86 and aarch64, and, unlike a fence, the thread sanitizer understands it.
 */
#include "minivmm/virtqueue.h"

#include <errno.h>
#include <stdatomic.h>

#include "minivmm/bytes.h"
#include "minivmm/virtio.h"

#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u

#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY     1u

#define DESC_BYTES 16u
#define USED_BYTES 8u

/* Rings: flags, idx, then the entries, then the event word. */
#define RING_FLAGS   0u
#define RING_IDX     2u
#define RING_ENTRIES 4u

/* No chain may hold more bytes in all (2.7.5). */
#define CHAIN_BYTES_MAX (1ULL << 32)

/* A descriptor as it lies in memory; indirect tables need no alignment, hence packed. */
struct wire_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} __attribute__((packed));

static uint16_t ring_load(const uint8_t *at, memory_order order)
{
    const _Atomic uint16_t *word = (const _Atomic uint16_t *)(const void *)at;
    return le16toh(atomic_load_explicit(word, order));
}

static void ring_store(uint8_t *at, uint16_t value, memory_order order)
{
    _Atomic uint16_t *word = (_Atomic uint16_t *)(void *)at;
    atomic_store_explicit(word, htole16(value), order);
}

static uint8_t *used_event_at(const struct virtqueue *vq)
{
    return vq->avail + RING_ENTRIES + (size_t)vq->size * 2;
}

static uint8_t *avail_event_at(const struct virtqueue *vq)
{
    return vq->used + RING_ENTRIES + (size_t)vq->size * USED_BYTES;
}

static int place(const struct guest_memory *mem, const char *what, uint64_t gpa, uint64_t len, uint64_t align,
                 enum guest_access access, uint8_t **at, struct err *err)
{
    if (gpa % align)
        return err_set(err, -EINVAL, "the %s at 0x%llx is not aligned to %llu bytes", what,
                       (unsigned long long)gpa, (unsigned long long)align);
    *at = guest_memory_at(mem, gpa, len, access);
    if (!*at)
        return err_set(err, -EINVAL, "the %s at 0x%llx (%llu bytes) is not inside %s guest memory", what,
                       (unsigned long long)gpa, (unsigned long long)len,
                       access == GUEST_WRITE ? "one region of writable" : "one region of");
    return 0;
}

int virtqueue_start(struct virtqueue *vq, const struct guest_memory *mem,
                    const struct virtqueue_layout *layout, uint64_t features, struct err *err)
{
    const uint16_t size = layout->size;

    *vq = (struct virtqueue){.mem = mem, .size = size, .broken = true, .kicks_wanted = true};
    vq->event_idx = features & VIRTIO_F_BIT_EVENT_IDX;
    vq->indirect = features & VIRTIO_F_BIT_INDIRECT_DESC;
    if (!size || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1)))
        return err_set(err, -EINVAL, "a queue size of %u is not a power of two from 1 to %u", size,
                       VIRTQUEUE_SIZE_MAX);
    /* The event words belong to the rings only when they are negotiated. */
    const uint64_t event = vq->event_idx ? 2 : 0;
    int rc = place(mem, "descriptor table", layout->desc, DESC_BYTES * (uint64_t)size, 16, GUEST_READ,
                   &vq->desc, err);
    if (!rc)
        rc = place(mem, "available ring", layout->driver, RING_ENTRIES + 2u * (uint64_t)size + event, 2,
                   GUEST_READ, &vq->avail, err);
    if (!rc)
        rc = place(mem, "used ring", layout->device, RING_ENTRIES + USED_BYTES * (uint64_t)size + event, 4,
                   GUEST_WRITE, &vq->used, err);
    vq->broken = rc != 0;
    return rc;
}

static int broken(struct virtqueue *vq)
{
    vq->broken = true;
    return -EPROTO;
}

static struct wire_desc read_desc(const uint8_t *table, uint32_t index)
{
    const volatile struct wire_desc *w =
        (const volatile struct wire_desc *)(const void *)(table + (size_t)index * DESC_BYTES);
    return (struct wire_desc){
        .addr = le64toh(w->addr),
        .len = le32toh(w->len),
        .flags = le16toh(w->flags),
        .next = le16toh(w->next),
    };
}

/* Adds one buffer to the chain, in as many segments as it spans regions. */
static int add_buffer(const struct virtqueue *vq, struct virtqueue_chain *chain, const struct wire_desc *d,
                      struct err *err)
{
    const bool write = d->flags & DESC_WRITE;
    uint64_t gpa = d->addr, left = d->len, run;

    if (d->len > CHAIN_BYTES_MAX - chain->readable_bytes - chain->writable_bytes)
        return err_set(err, -EPROTO, "a chain of more than 2^32 bytes");
    while (left) {
        void *at = guest_memory_run(vq->mem, gpa, left, write ? GUEST_WRITE : GUEST_READ, &run);
        if (!at)
            return err_set(err, -EPROTO, "a buffer at 0x%llx (%u bytes) outside %sguest memory",
                           (unsigned long long)d->addr, d->len, write ? "writable " : "");
        unsigned n = chain->readable + chain->writable;
        if (n >= chain->iov_max)
            return err_set(err, -EPROTO, "a chain of more than %u segments", chain->iov_max);
        chain->iov[n] = (struct iovec){at, run};
        if (write)
            chain->writable++;
        else
            chain->readable++;
        gpa += run;
        left -= run;
    }
    if (write)
        chain->writable_bytes += d->len;
    else
        chain->readable_bytes += d->len;
    return 0;
}

/* Where a walk through a chain is: in the queue's table, or in an indirect one. */
struct walk {
    const uint8_t *table;
    uint32_t entries;
    uint32_t index;
    uint32_t steps;
    bool indirect, writable;
};

static int enter_indirect(const struct virtqueue *vq, struct walk *w, const struct wire_desc *d,
                          struct err *err)
{
    if (!vq->indirect)
        return err_set(err, -EPROTO, "an indirect descriptor, which was not negotiated");
    if (w->indirect)
        return err_set(err, -EPROTO, "an indirect descriptor inside an indirect table");
    if (d->flags & DESC_NEXT)
        return err_set(err, -EPROTO, "an indirect descriptor that has a next one");
    if (!d->len || d->len % DESC_BYTES)
        return err_set(err, -EPROTO, "an indirect table of %u bytes, not a multiple of 16 above 0", d->len);
    w->table = guest_memory_at(vq->mem, d->addr, d->len, GUEST_READ);
    if (!w->table)
        return err_set(err, -EPROTO, "an indirect table at 0x%llx (%u bytes) outside guest memory",
                       (unsigned long long)d->addr, d->len);
    w->entries = d->len / DESC_BYTES;
    w->index = 0;
    w->indirect = true;
    return 0;
}

/*
 * No legal chain is longer than the queue (2.7.5.3.1), but Linux fills indirect tables by the device's limits
 * even where it has made the queue smaller than offered: there, what the caller has room for counts.
 */
static uint32_t steps_max(const struct virtqueue *vq, const struct virtqueue_chain *chain, bool indirect)
{
    return indirect && chain->iov_max > vq->size ? chain->iov_max : vq->size;
}

static int walk_chain(const struct virtqueue *vq, struct virtqueue_chain *chain, struct err *err)
{
    struct walk w = {.table = vq->desc, .entries = vq->size, .index = chain->head};

    for (;;) {
        if (w.index >= w.entries)
            return err_set(err, -EPROTO, "descriptor %u of a table of %u", w.index, w.entries);
        const struct wire_desc d = read_desc(w.table, w.index);
        if (d.flags & DESC_INDIRECT) {
            int rc = enter_indirect(vq, &w, &d, err);
            if (rc)
                return rc;
            continue;
        }
        /* Counting ends loops too. */
        if (++w.steps > steps_max(vq, chain, w.indirect))
            return err_set(err, -EPROTO, "a descriptor chain that loops or is longer than the queue (%u)",
                           vq->size);
        if (w.writable && !(d.flags & DESC_WRITE))
            return err_set(err, -EPROTO, "a device-readable buffer after a device-writable one");
        w.writable = d.flags & DESC_WRITE;
        int rc = add_buffer(vq, chain, &d, err);
        if (rc)
            return rc;
        if (!(d.flags & DESC_NEXT))
            return 0;
        w.index = d.next;
    }
}

int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain, struct err *err)
{
    if (vq->broken)
        return err_set(err, -EPROTO, "the queue is broken");
    const uint16_t idx = ring_load(vq->avail + RING_IDX, memory_order_acquire);
    const uint16_t ahead = (uint16_t)(idx - vq->next_avail);
    if (!ahead)
        return 0;
    if (ahead > vq->size) {
        err_set(err, -EPROTO, "the available index is %u ahead in a queue of %u", ahead, vq->size);
        return broken(vq);
    }
    const size_t slot = vq->next_avail & (vq->size - 1u);
    const uint16_t head = ring_load(vq->avail + RING_ENTRIES + 2 * slot, memory_order_relaxed);
    chain->head = head;
    chain->readable = chain->writable = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    if (walk_chain(vq, chain, err))
        return broken(vq);
    vq->next_avail++;
    return 1;
}

void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len)
{
    const size_t slot = vq->next_used & (vq->size - 1u);
    uint8_t *entry = vq->used + RING_ENTRIES + slot * USED_BYTES;
    store_le32(entry, head);
    store_le32(entry + 4, len);
    vq->next_used++;
}

bool virtqueue_publish(struct virtqueue *vq)
{
    const uint16_t now = vq->next_used, before = vq->published;
    if (now == before)
        return false;
    ring_store(vq->used + RING_IDX, now, memory_order_seq_cst);
    vq->published = now;
    if (!vq->event_idx)
        return !(ring_load(vq->avail + RING_FLAGS, memory_order_seq_cst) & AVAIL_NO_INTERRUPT);
    /* Wanted when this step passed the entry that the driver waits for; all in 16-bit wrap. */
    const uint16_t event = ring_load(used_event_at(vq), memory_order_seq_cst);
    return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

void virtqueue_refuse_kicks(struct virtqueue *vq)
{
    if (!vq->kicks_wanted)
        return;
    vq->kicks_wanted = false;
    /* With EVENT_IDX an avail_event that the driver has passed already asks for nothing. */
    if (!vq->event_idx)
        ring_store(vq->used + RING_FLAGS, USED_NO_NOTIFY, memory_order_relaxed);
}

bool virtqueue_want_kicks(struct virtqueue *vq)
{
    vq->kicks_wanted = true;
    if (vq->event_idx)
        ring_store(avail_event_at(vq), vq->next_avail, memory_order_seq_cst);
    else
        ring_store(vq->used + RING_FLAGS, 0, memory_order_seq_cst);
    return ring_load(vq->avail + RING_IDX, memory_order_seq_cst) != vq->next_avail;
}
