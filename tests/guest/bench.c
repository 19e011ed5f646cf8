/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load for `make bench`: reads of 4 KiB with a fixed number under way, driven as an ordinary driver does:
 * one interrupt is asked for when everything seen is dealt with, and new requests are kicked once a round.
 *
 * bench=depth1 or bench=depth32, count=N: so many requests. mmio=ADDRESS stride=N gsi=N windows=N (in
 * decimal) say where another monitor has its devices.
 */
#include "block.h"

#define DEPTH_MAX 32u

static struct device dev;
static struct blk_header headers[DEPTH_MAX];
static struct desc tables[DEPTH_MAX][3] __attribute__((aligned(16)));
static uint8_t buffers[DEPTH_MAX][SLOT_BYTES] __attribute__((aligned(4096)));
static volatile uint8_t status[DEPTH_MAX];
static uint32_t handled; /* interrupts */
static uint16_t seen;    /* used.idx so far */
static uint32_t idle[DEPTH_MAX], idles;

static uint64_t number(const char *name, uint64_t standard)
{
    const char *s = cmdline_value(name);
    uint64_t n = 0;

    if (!s)
        return standard;
    for (; *s >= '0' && *s <= '9'; s++)
        n = n * 10 + (uint64_t)(*s - '0');
    return n;
}

static void on_bench_irq(void *arg)
{
    const struct device *d = arg;

    reg_write(d, REG_INTERRUPT_ACK, reg_read(d, REG_INTERRUPT_STATUS));
    handled++;
    WRITE_ONCE(dev.irqs, dev.irqs + 1);
}

static bool find(void)
{
    uint64_t base = number("mmio", MMIO_BASE), stride = number("stride", MMIO_STRIDE);
    uint64_t windows = number("windows", MMIO_WINDOWS);

    dev.queue = disk_queues;
    for (unsigned n = 0; n < windows; n++) {
        dev.base = base + n * stride;
        dev.gsi = (unsigned)number("gsi", MMIO_GSI) + n;
        if (reg_read(&dev, REG_MAGIC) != VIRTIO_MAGIC || reg_read(&dev, REG_DEVICE_ID) != DEVICE_BLOCK)
            continue;
        irq_connect(dev.gsi, on_bench_irq, &dev);
        return true;
    }
    return false;
}

static void prepare(unsigned depth)
{
    struct queue *q = &disk_queues[0];

    for (unsigned i = 0; i < depth; i++) {
        tables[i][0] = (struct desc){(uint64_t)&headers[i], sizeof(headers[i]), DESC_NEXT, 1};
        tables[i][1] = (struct desc){(uint64_t)buffers[i], SLOT_BYTES, DESC_NEXT | DESC_WRITE, 2};
        tables[i][2] = (struct desc){(uint64_t)&status[i], 1, DESC_WRITE, 0};
        q->desc[i] = (struct desc){(uint64_t)tables[i], sizeof(tables[i]), DESC_INDIRECT, 0};
        headers[i].sector = 8 * i;
    }
}

static void offer(unsigned i)
{
    status[i] = BLK_PENDING;
    queue_offer(&disk_queues[0], (uint16_t)i);
}

/* Takes in what has completed, until an interrupt is asked for and nothing came before that; false on a
 * failure. */
static bool reap(unsigned depth)
{
    struct queue *q = &disk_queues[0];

    do {
        for (; READ_ONCE(q->used.idx) != seen; seen++) {
            uint32_t id = q->used.ring[seen % RING_SIZE].id;

            if (id >= depth || status[id] != BLK_OK)
                return false;
            idle[idles++] = id;
        }
        WRITE_ONCE(q->avail.used_event, seen);
        full_barrier(); /* what completed before the device saw this wish must be seen here */
    } while (READ_ONCE(q->used.idx) != seen);
    return true;
}

/* The number of requests that succeeded of count; fewer when one failed or never came. */
static uint64_t load(unsigned depth, uint64_t count)
{
    uint64_t offered = 0;

    for (idles = 0; idles < depth; idles++)
        idle[idles] = idles;
    for (;;) {
        uint32_t irqs = READ_ONCE(dev.irqs);

        /* As in a driver, a request that another's completion lets go comes after the interrupt's work is
         * done. */
        if (!reap(depth) || (offered == count && idles == depth))
            return offered - (depth - idles);
        for (; idles && offered < count; offered++)
            offer(idle[--idles]);
        queue_kick(&dev, 0);
        if (!wait_change32(&dev.irqs, irqs))
            return offered - (depth - idles);
    }
}

static void tell(const char *what, uint64_t n)
{
    print(what);
    print_number(n);
}

void bench(void)
{
    const char *which = cmdline_value("bench");
    uint64_t count = number("count", 1000), done;
    unsigned depth = which && text_equal(which, "depth32") ? 32 : 1;

    if (!which)
        return;
    if (!find() || !device_start(&dev, F_INDIRECT | F_EVENT_IDX, 1)) {
        print("bench: no disk\n");
        outb(DEBUG_EXIT, 1);
    }
    prepare(depth);
    print("bench: start\n");
    done = load(depth, count);
    print("bench: end\n");
    tell("depth=", depth);
    tell("\nrequests=", done);
    tell("\ninterrupts=", handled);
    print("\n");
    outb(DEBUG_EXIT, done == count ? 0 : 1);
}
