/* SPDX-License-Identifier: Apache-2.0 */
/* The transport, interrupts, what a hostile driver does, and the entropy device. */
#include "block.h"

static struct device dev;
static struct queue rng_queue[QUEUES_MAX];

static void run_transport(void)
{
    uint64_t offered;

    CHECK(disk_find(&dev));
    CHECK(reg_read(&dev, REG_VERSION) == 2);
    device_reset(&dev);
    offered = device_offers(&dev);
    CHECK(offered & F_VERSION_1);
    reg_write(&dev, REG_DEVICE_FEATURES_SEL, 2);
    CHECK(reg_read(&dev, REG_DEVICE_FEATURES) == 0);
    /* FEATURES_OK without VERSION_1 is refused. */
    reg_write(&dev, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    reg_write(&dev, REG_DRIVER_FEATURES_SEL, 1);
    reg_write(&dev, REG_DRIVER_FEATURES, 0);
    reg_write(&dev, REG_DRIVER_FEATURES_SEL, 0);
    reg_write(&dev, REG_DRIVER_FEATURES, 0);
    reg_write(&dev, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    CHECK(!(reg_read(&dev, REG_STATUS) & STATUS_FEATURES_OK));
    /* A queue that isn't there has size 0. */
    reg_write(&dev, REG_QUEUE_SEL, 1000);
    CHECK(reg_read(&dev, REG_QUEUE_NUM_MAX) == 0);
    CHECK(device_start(&dev, 0, 1));
    CHECK(reg_read(&dev, REG_QUEUE_READY) == 1);
    device_reset(&dev);
    reg_write(&dev, REG_QUEUE_SEL, 0);
    CHECK(reg_read(&dev, REG_QUEUE_READY) == 0);
}

static uint32_t hook_runs;

/* In the handler of the first completion: start a second request and stay until it is complete as well. */
static void submit_in_handler(struct device *d)
{
    if (hook_runs++ > 0)
        return;
    blk_offer(d, 0, 1, BLK_IN, 8, SECTOR);
    queue_kick(d, 0);
    /* Ticks stand still while interrupts are off: bounded by a count. */
    for (uint32_t i = 0; i < 20000000 && READ_ONCE(d->queue[0].used.idx) != 2; i++)
        cpu_relax();
}

static void run_in_handler(void)
{
    CHECK(disk_find(&dev));
    for (unsigned round = 0; round < 8; round++) {
        uint32_t before;

        CHECK(device_start(&dev, 0, 1));
        hook_runs = 0;
        before = dev.irqs;
        dev.hook = submit_in_handler;
        blk_offer(&dev, 0, 0, BLK_IN, 0, SECTOR);
        queue_kick(&dev, 0);
        CHECK(wait_change32(&dev.irqs, before));
        CHECK(READ_ONCE(dev.queue[0].used.idx) == 2);
        /* The interrupt raised while the first was in service must still come. */
        CHECK(dev.irqs > before + 1 || wait_change32(&dev.irqs, before + 1));
        CHECK(slots[0].status == BLK_OK && slots[1].status == BLK_OK);
    }
}

void test_interrupts(void)
{
    if (!test_begin("interrupt-in-handler"))
        return;
    run_in_handler();
    test_end();
}

static bool needs_reset(void)
{
    uint64_t until = ticks() + GIVE_UP_TICKS;

    while (!(reg_read(&dev, REG_STATUS) & STATUS_NEEDS_RESET))
        if (ticks() > until)
            return false;
    return true;
}

/* Wrong, but harmless: the device goes on working. */
static void run_ignored(void)
{
    CHECK(device_start(&dev, 0, 1));
    reg_write(&dev, REG_QUEUE_NOTIFY, 99);
    reg_write(&dev, REG_QUEUE_NOTIFY, 1);
    reg_write(&dev, REG_QUEUE_NOTIFY, UINT32_MAX);
    (void)mmio_read8(dev.base + REG_MAGIC);
    reg_write(&dev, REG_MAGIC, 0);
    reg_write(&dev, REG_DEVICE_ID, 0);
    CHECK(reg_read(&dev, REG_MAGIC) == VIRTIO_MAGIC);
    /* Enabling a queue twice, and moving it while it runs. */
    reg_write(&dev, REG_QUEUE_SEL, 0);
    reg_write(&dev, REG_QUEUE_READY, 1);
    reg_write(&dev, REG_QUEUE_DESC + 4, 0x7FFF);
    reg_write(&dev, REG_QUEUE_READY, 1);
    CHECK(blk_do(&dev, 0, 0, BLK_IN, 0, SECTOR) == BLK_OK);
}

static void run_bad_queue_address(void)
{
    CHECK(device_negotiate(&dev, 0));
    reg_write(&dev, REG_QUEUE_SEL, 0);
    reg_write(&dev, REG_QUEUE_NUM, RING_SIZE);
    reg_write(&dev, REG_QUEUE_DESC, 0);
    reg_write(&dev, REG_QUEUE_DESC + 4, 0x10000000);
    reg_write(&dev, REG_QUEUE_READY, 1);
    if (reg_read(&dev, REG_QUEUE_READY) == 0)
        return;
    reg_write(&dev, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    CHECK(needs_reset());
}

static void kick_bad(uint16_t head)
{
    queue_offer(&disk_queues[0], head);
    reg_write(&dev, REG_QUEUE_NOTIFY, 0);
}

static void run_loop(void)
{
    CHECK(device_start(&dev, 0, 1));
    disk_queues[0].desc[0] = (struct desc){(uint64_t)&slots[0].header, 16, DESC_NEXT, 1};
    disk_queues[0].desc[1] = (struct desc){(uint64_t)&slots[0].header, 16, DESC_NEXT, 0};
    kick_bad(0);
    CHECK(needs_reset());
}

static void run_bad_head(void)
{
    CHECK(device_start(&dev, 0, 1));
    kick_bad(RING_SIZE + 7);
    CHECK(needs_reset());
}

static void run_outside_memory(void)
{
    CHECK(device_start(&dev, 0, 1));
    blk_offer(&dev, 0, 0, BLK_IN, 0, SECTOR);
    disk_queues[0].desc[1].addr = 0x7FFFFFFFF000ULL;
    reg_write(&dev, REG_QUEUE_NOTIFY, 0);
    CHECK(needs_reset());
}

static void run_wrapping_address(void)
{
    CHECK(device_start(&dev, 0, 1));
    blk_offer(&dev, 0, 0, BLK_IN, 0, SECTOR);
    disk_queues[0].desc[1].addr = UINT64_MAX - 100;
    reg_write(&dev, REG_QUEUE_NOTIFY, 0);
    CHECK(needs_reset());
}

static void run_index_ahead(void)
{
    CHECK(device_start(&dev, 0, 1));
    WRITE_ONCE(disk_queues[0].avail.idx, RING_SIZE + 1);
    reg_write(&dev, REG_QUEUE_NOTIFY, 0);
    CHECK(needs_reset());
}

static void run_readable_last(void)
{
    CHECK(device_start(&dev, 0, 1));
    disk_queues[0].desc[0] = (struct desc){(uint64_t)data[0], SECTOR, DESC_WRITE | DESC_NEXT, 1};
    disk_queues[0].desc[1] = (struct desc){(uint64_t)&slots[0].header, 16, 0, 0};
    kick_bad(0);
    CHECK(needs_reset());
}

static void run_stray_indirect(void)
{
    CHECK(device_start(&dev, 0, 1)); /* INDIRECT_DESC not negotiated */
    disk_queues[0].desc[0] = (struct desc){(uint64_t)data[0], 32, DESC_INDIRECT, 0};
    kick_bad(0);
    CHECK(needs_reset());
}

static void run_nested_indirect(void)
{
    struct desc *table = (struct desc *)(void *)data[0];

    CHECK(device_start(&dev, F_INDIRECT, 1));
    table[0] = (struct desc){(uint64_t)data[1], 32, DESC_INDIRECT, 0};
    disk_queues[0].desc[0] = (struct desc){(uint64_t)table, 16, DESC_INDIRECT, 0};
    kick_bad(0);
    CHECK(needs_reset());
}

static const struct {
    const char *name;
    void (*run)(void);
} hostile[] = {
    {"hostile-ignored", run_ignored},
    {"hostile-queue-address", run_bad_queue_address},
    {"hostile-loop", run_loop},
    {"hostile-head", run_bad_head},
    {"hostile-outside-memory", run_outside_memory},
    {"hostile-wrapping-address", run_wrapping_address},
    {"hostile-index-ahead", run_index_ahead},
    {"hostile-readable-last", run_readable_last},
    {"hostile-stray-indirect", run_stray_indirect},
    {"hostile-nested-indirect", run_nested_indirect},
};

/* After each, a reset must make the device as good as new. */
static void still_works(void)
{
    CHECK(device_start(&dev, 0, 1));
    CHECK(blk_do(&dev, 0, 0, BLK_IN, 0, SECTOR) == BLK_OK);
}

void test_hostile(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(hostile); i++) {
        if (!test_begin(hostile[i].name))
            continue;
        if (disk_find(&dev)) {
            hostile[i].run();
            still_works();
        } else {
            fail(__FILE__, __LINE__, "there is a disk");
        }
        test_end();
    }
}

static void run_rng(void)
{
    dev = (struct device){0};
    if (!device_find(&dev, DEVICE_RNG, 0, rng_queue)) {
        skip("no entropy device");
        return;
    }
    CHECK(device_start(&dev, 0, 1));
    for (uint16_t i = 0; i < 2; i++) {
        queue_chain(&rng_queue[0], i, &(struct seg){data[i], 32, true}, 1);
        queue_offer(&rng_queue[0], i);
        queue_kick(&dev, 0);
        CHECK(queue_wait(&dev, 0, (uint16_t)(i + 1)));
        CHECK(rng_queue[0].used.ring[i].len >= 1 && rng_queue[0].used.ring[i].len <= 32);
    }
    CHECK(*(uint64_t *)(void *)data[0] != *(uint64_t *)(void *)data[1]);
}

void test_rng(void)
{
    if (!test_begin("rng"))
        return;
    run_rng();
    test_end();
}

void test_transport(void)
{
    if (!test_begin("transport"))
        return;
    run_transport();
    test_end();
}
