/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio-mmio transport. Registers are guarded by a lock that vCPU threads share; what queue threads
 * change, the device status and InterruptStatus, lies in one atomic word beside it. One word, because an
 * interrupt may be raised only while DRIVER_OK is set: a late notification then can't leave a bit behind a
 * reset.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "minivmm/bytes.h"
#include "minivmm/event.h"
#include "minivmm/log.h"
#include "minivmm/virtio.h"

/* Register offsets: VIRTIO 1.3, 4.2.2. */
#define REG_MAGIC             0x000u
#define REG_VERSION           0x004u
#define REG_DEVICE_ID         0x008u
#define REG_VENDOR_ID         0x00cu
#define REG_DEVICE_FEATURES   0x010u
#define REG_DEVICE_SEL        0x014u
#define REG_DRIVER_FEATURES   0x020u
#define REG_DRIVER_SEL        0x024u
#define REG_QUEUE_SEL         0x030u
#define REG_QUEUE_NUM_MAX     0x034u
#define REG_QUEUE_NUM         0x038u
#define REG_QUEUE_READY       0x044u
#define REG_INTERRUPT_STATUS  0x060u
#define REG_INTERRUPT_ACK     0x064u
#define REG_STATUS            0x070u
#define REG_DESC_LOW          0x080u
#define REG_DESC_HIGH         0x084u
#define REG_DRIVER_LOW        0x090u
#define REG_DRIVER_HIGH       0x094u
#define REG_DEVICE_LOW        0x0a0u
#define REG_DEVICE_HIGH       0x0a4u
#define REG_SHM_SEL           0x0acu
#define REG_SHM_LEN_LOW       0x0b0u
#define REG_SHM_LEN_HIGH      0x0b4u
#define REG_SHM_BASE_LOW      0x0b8u
#define REG_SHM_BASE_HIGH     0x0bcu
#define REG_QUEUE_RESET       0x0c0u
#define REG_CONFIG_GENERATION 0x0fcu

#define MAGIC        0x74726976u /* "virt" */
#define MMIO_VERSION 2u
#define VENDOR       0x4d4d564du /* "MVMM" */

#define STATUS_BITS                                                                                          \
    (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_DRIVER_OK |                            \
     VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_NEEDS_RESET | VIRTIO_STATUS_FAILED)
#define STATUS_MASK 0xffu

#define INT_USED   1u
#define INT_CONFIG 2u
#define INT_SHIFT  8

struct virtio_mmio {
    struct virtio_device *dev;
    int irq_fd;
    _Atomic uint32_t word; /* device status, and InterruptStatus << INT_SHIFT */
    _Atomic uint32_t generation;
    struct log_limit limit;
    /* guarded by lock: */
    pthread_mutex_t lock;
    uint32_t device_sel, driver_sel, queue_sel;
    uint64_t driver_features;
    bool driver_asks_beyond; /* for a feature above bit 63: none is offered there */
};

static void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static uint32_t word_of(const struct virtio_mmio *m)
{
    return atomic_load_explicit(&m->word, memory_order_acquire);
}

static uint32_t status_of(const struct virtio_mmio *m)
{
    return word_of(m) & STATUS_MASK;
}

static void set_status(struct virtio_mmio *m, uint32_t bits)
{
    atomic_fetch_or_explicit(&m->word, bits, memory_order_acq_rel);
}

/* Sets an InterruptStatus bit, but only with DRIVER_OK, and then always makes an edge: whether the driver has
 * seen the bit that was set before can't be known here. */
static void interrupt(struct virtio_mmio *m, uint32_t bit)
{
    uint32_t word = word_of(m);
    do {
        if (!(word & VIRTIO_STATUS_DRIVER_OK))
            return;
    } while (!atomic_compare_exchange_weak_explicit(&m->word, &word, word | bit << INT_SHIFT,
                                                    memory_order_acq_rel, memory_order_acquire));
    count(&m->dev->counters.interrupts);
    event_signal(m->irq_fd);
}

void virtio_notify_used(struct virtio_device *dev)
{
    interrupt(dev->transport, INT_USED);
}

void virtio_notify_config(struct virtio_device *dev)
{
    atomic_fetch_add_explicit(&dev->transport->generation, 1, memory_order_acq_rel);
    interrupt(dev->transport, INT_CONFIG);
}

void virtio_notify_broken(struct virtio_device *dev, const char *why)
{
    struct virtio_mmio *m = dev->transport;
    uint32_t before = atomic_fetch_or_explicit(&m->word, VIRTIO_STATUS_NEEDS_RESET, memory_order_acq_rel);

    if (!(before & VIRTIO_STATUS_NEEDS_RESET))
        count(&dev->counters.needs_reset);
    log_warn_limited(&m->limit, "%s: the guest's driver broke the device, which now needs a reset: %s",
                     dev->name, why);
    interrupt(m, INT_CONFIG);
}

uint32_t virtio_mmio_status(const struct virtio_mmio *mmio)
{
    return status_of(mmio);
}

/* NULL when the selected queue does not exist. */
static struct virtio_queue *selected(const struct virtio_mmio *m)
{
    return m->queue_sel < m->dev->queue_count ? &m->dev->queue[m->queue_sel] : NULL;
}

static uint32_t read_features(const struct virtio_mmio *m)
{
    if (m->device_sel > 1)
        return 0;
    return (uint32_t)(m->dev->offered >> (32 * m->device_sel));
}

static uint32_t read_register(struct virtio_mmio *m, uint32_t offset)
{
    const struct virtio_queue *q = selected(m);

    switch (offset) {
    case REG_MAGIC:
        return MAGIC;
    case REG_VERSION:
        return MMIO_VERSION;
    case REG_DEVICE_ID:
        return m->dev->device_id;
    case REG_VENDOR_ID:
        return VENDOR;
    case REG_DEVICE_FEATURES:
        return read_features(m);
    case REG_QUEUE_NUM_MAX:
        return q ? q->size_max : 0;
    case REG_QUEUE_READY:
        return q ? q->enabled : 0;
    case REG_INTERRUPT_STATUS:
        return word_of(m) >> INT_SHIFT;
    case REG_STATUS:
        return status_of(m);
    case REG_SHM_LEN_LOW:
    case REG_SHM_LEN_HIGH:
    case REG_SHM_BASE_LOW:
    case REG_SHM_BASE_HIGH:
        return UINT32_MAX; /* no such region (4.2.2) */
    case REG_QUEUE_RESET:
        return 0;
    case REG_CONFIG_GENERATION:
        return atomic_load_explicit(&m->generation, memory_order_acquire);
    default:
        count(&m->dev->counters.bad_access);
        return 0;
    }
}

static void reset(struct virtio_mmio *m)
{
    struct virtio_device *dev = m->dev;

    /* First without DRIVER_OK, so that draining raises no interrupts; then again, since draining may have
     * found a broken ring. */
    atomic_store_explicit(&m->word, 0, memory_order_release);
    dev->ops->reset(dev);
    atomic_store_explicit(&m->word, 0, memory_order_release);
    dev->features = 0;
    m->device_sel = m->driver_sel = m->queue_sel = 0;
    m->driver_features = 0;
    m->driver_asks_beyond = false;
    for (unsigned i = 0; i < dev->queue_count; i++) {
        dev->queue[i].enabled = false;
        dev->queue[i].layout = (struct virtqueue_layout){0};
        dev->queue[i].vq = (struct virtqueue){.broken = true};
    }
}

static bool features_acceptable(const struct virtio_mmio *m)
{
    struct virtio_device *dev = m->dev;

    if (m->driver_asks_beyond || (m->driver_features & ~dev->offered) ||
        !(m->driver_features & VIRTIO_F_BIT_VERSION_1))
        return false;
    return !dev->ops->accept_features || !dev->ops->accept_features(dev, m->driver_features);
}

static void write_status(struct virtio_mmio *m, uint32_t value)
{
    struct virtio_device *dev = m->dev;
    const uint32_t before = status_of(m);

    if (!value) {
        reset(m);
        return;
    }
    if (value & ~STATUS_BITS)
        count(&dev->counters.bad_access);
    /* Only a reset clears bits. NEEDS_RESET is the device's own: a driver just writes back what it read. */
    if (before & ~value & ~VIRTIO_STATUS_NEEDS_RESET)
        count(&dev->counters.bad_order);
    uint32_t fresh = value & STATUS_BITS & ~before & ~VIRTIO_STATUS_NEEDS_RESET;
    set_status(m, fresh & (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FAILED));
    if (fresh & VIRTIO_STATUS_FEATURES_OK) {
        if (!(status_of(m) & VIRTIO_STATUS_DRIVER)) {
            count(&dev->counters.bad_order);
        } else if (features_acceptable(m)) {
            dev->features = m->driver_features;
            set_status(m, VIRTIO_STATUS_FEATURES_OK);
        }
    }
    if (fresh & VIRTIO_STATUS_DRIVER_OK) {
        const uint32_t now = status_of(m);
        if (!(now & VIRTIO_STATUS_FEATURES_OK) ||
            (now & (VIRTIO_STATUS_FAILED | VIRTIO_STATUS_NEEDS_RESET))) {
            count(&dev->counters.bad_order);
            return;
        }
        /* Before the queues run, or their first interrupt would be lost. */
        set_status(m, VIRTIO_STATUS_DRIVER_OK);
        dev->ops->activate(dev);
    }
}

static void write_driver_features(struct virtio_mmio *m, uint32_t value)
{
    if (status_of(m) & VIRTIO_STATUS_FEATURES_OK) {
        count(&m->dev->counters.bad_order);
    } else if (m->driver_sel > 1) {
        m->driver_asks_beyond = value != 0;
    } else {
        const unsigned shift = 32 * m->driver_sel;
        m->driver_features &= ~((uint64_t)UINT32_MAX << shift);
        m->driver_features |= (uint64_t)value << shift;
    }
}

static void enable_queue(struct virtio_mmio *m, struct virtio_queue *q)
{
    struct err err = {.text = ""};

    if (virtqueue_start(&q->vq, m->dev->mem, &q->layout, m->dev->features, &err))
        virtio_notify_broken(m->dev, err.text);
    else
        q->enabled = true;
}

static void write_ready(struct virtio_mmio *m, struct virtio_queue *q, uint32_t value)
{
    if (value > 1) {
        count(&m->dev->counters.bad_access);
    } else if (value == q->enabled) {
        /* Drivers clear QueueReady of queues that a reset has disabled; enabling twice is a mistake. */
        if (value)
            count(&m->dev->counters.bad_order);
    } else if (value) {
        enable_queue(m, q);
    } else {
        q->enabled = false;
    }
}

static void put_half(uint64_t *address, bool high, uint32_t value)
{
    if (high)
        *address = (*address & UINT32_MAX) | (uint64_t)value << 32;
    else
        *address = (*address & ~(uint64_t)UINT32_MAX) | value;
}

static void write_queue_register(struct virtio_mmio *m, uint32_t offset, uint32_t value)
{
    struct virtio_queue *q = selected(m);
    const uint32_t phase = status_of(m) & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK);
    const bool clears_nothing = q && offset == REG_QUEUE_READY && !value && !q->enabled;

    if (clears_nothing)
        return;
    if (!q || phase != VIRTIO_STATUS_FEATURES_OK || (q->enabled && offset != REG_QUEUE_READY)) {
        count(&m->dev->counters.bad_order);
        return;
    }
    switch (offset) {
    case REG_QUEUE_NUM:
        /* Size 0 then fails when the queue is enabled. */
        q->layout.size = value <= q->size_max ? (uint16_t)value : 0;
        break;
    case REG_QUEUE_READY:
        write_ready(m, q, value);
        break;
    case REG_DESC_LOW:
    case REG_DESC_HIGH:
        put_half(&q->layout.desc, offset == REG_DESC_HIGH, value);
        break;
    case REG_DRIVER_LOW:
    case REG_DRIVER_HIGH:
        put_half(&q->layout.driver, offset == REG_DRIVER_HIGH, value);
        break;
    default:
        put_half(&q->layout.device, offset == REG_DEVICE_HIGH, value);
        break;
    }
}

static void write_notify(struct virtio_mmio *m, uint32_t value)
{
    struct virtio_device *dev = m->dev;

    if (value < dev->queue_count && dev->queue[value].enabled && (status_of(m) & VIRTIO_STATUS_DRIVER_OK))
        event_signal(dev->queue[value].kick_fd);
    else
        count(&dev->counters.bad_notify);
}

static void write_register(struct virtio_mmio *m, uint32_t offset, uint32_t value)
{
    switch (offset) {
    case REG_DEVICE_SEL:
        m->device_sel = value;
        break;
    case REG_DRIVER_FEATURES:
        write_driver_features(m, value);
        break;
    case REG_DRIVER_SEL:
        m->driver_sel = value;
        break;
    case REG_QUEUE_SEL:
        m->queue_sel = value;
        break;
    case REG_QUEUE_NUM:
    case REG_QUEUE_READY:
    case REG_DESC_LOW:
    case REG_DESC_HIGH:
    case REG_DRIVER_LOW:
    case REG_DRIVER_HIGH:
    case REG_DEVICE_LOW:
    case REG_DEVICE_HIGH:
        write_queue_register(m, offset, value);
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        write_notify(m, value);
        break;
    case REG_INTERRUPT_ACK:
        atomic_fetch_and_explicit(&m->word, ~((value & (INT_USED | INT_CONFIG)) << INT_SHIFT),
                                  memory_order_acq_rel);
        break;
    case REG_STATUS:
        write_status(m, value);
        break;
    case REG_SHM_SEL:
        break; /* whichever is selected, there is none */
    default:
        count(&m->dev->counters.bad_access);
        break;
    }
}

/* Whether an access goes to config space as the standard allows it: aligned to its width, and inside. */
static bool config_access_ok(const struct virtio_mmio *m, uint64_t offset, uint32_t len)
{
    const uint64_t at = offset - VIRTIO_MMIO_CONFIG, size = m->dev->config_size;
    const bool width = len == 1 || len == 2 || len == 4 || len == 8;
    return width && at % len == 0 && at < size && len <= size - at;
}

static void mmio_read(void *dev, uint64_t offset, void *data, uint32_t len)
{
    struct virtio_mmio *m = dev;

    memset(data, 0, len);
    pthread_mutex_lock(&m->lock);
    if (offset >= VIRTIO_MMIO_CONFIG && config_access_ok(m, offset, len))
        m->dev->ops->config_read(m->dev, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, len);
    else if (offset < VIRTIO_MMIO_CONFIG && len == 4 && offset % 4 == 0)
        store_le32(data, read_register(m, (uint32_t)offset));
    else
        count(&m->dev->counters.bad_access);
    pthread_mutex_unlock(&m->lock);
}

static void mmio_write(void *dev, uint64_t offset, const void *data, uint32_t len)
{
    struct virtio_mmio *m = dev;
    bool taken = false;

    pthread_mutex_lock(&m->lock);
    if (offset >= VIRTIO_MMIO_CONFIG && config_access_ok(m, offset, len)) {
        taken = m->dev->ops->config_write(m->dev, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, len);
    } else if (offset < VIRTIO_MMIO_CONFIG && len == 4 && offset % 4 == 0) {
        write_register(m, (uint32_t)offset, load_le32(data));
        taken = true;
    }
    if (!taken)
        count(&m->dev->counters.bad_access);
    pthread_mutex_unlock(&m->lock);
}

const struct bus_ops virtio_mmio_bus_ops = {.read = mmio_read, .write = mmio_write};

int virtio_mmio_create(struct virtio_device *dev, int irq_fd, struct virtio_mmio **out, struct err *err)
{
    struct virtio_mmio *m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(err, -ENOMEM, "%s: no memory for its virtio-mmio transport", dev->name);
    m->dev = dev;
    m->irq_fd = irq_fd;
    pthread_mutex_init(&m->lock, NULL);
    dev->features = 0;
    dev->transport = m;
    *out = m;
    return 0;
}

void virtio_mmio_destroy(struct virtio_mmio *mmio)
{
    if (!mmio)
        return;
    pthread_mutex_destroy(&mmio->lock);
    free(mmio);
}
