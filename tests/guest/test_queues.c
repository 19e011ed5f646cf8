/* SPDX-License-Identifier: Apache-2.0 */
/* Multi-queue, many in flight, indirect descriptors, event indices, reset, a second CPU. */
#include "block.h"

static struct device dev;

static unsigned disk_queue_count(void)
{
    return reg_read(&dev, REG_CONFIG + 32) >> 16; /* writeback at 32, num_queues at 34 */
}

/* Fills the ring several times over, so that indices and ring positions wrap. */
static void test_depth(void)
{
    CHECK(device_start(&dev, F_EVENT_IDX, 1));
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned s = 0; s < SLOTS; s++) {
            pattern_fill(data[s], SECTOR, round * SLOTS + s);
            blk_offer(&dev, 0, s, BLK_OUT, 400 + s, SECTOR);
        }
        queue_kick(&dev, 0);
        CHECK(queue_wait(&dev, 0, disk_queues[0].avail.idx));
        for (unsigned s = 0; s < SLOTS; s++) {
            CHECK(slots[s].status == BLK_OK);
            blk_offer(&dev, 0, s, BLK_IN, 400 + s, SECTOR);
        }
        queue_kick(&dev, 0);
        CHECK(queue_wait(&dev, 0, disk_queues[0].avail.idx));
        for (unsigned s = 0; s < SLOTS; s++)
            CHECK(slots[s].status == BLK_OK && pattern_is(data[s], SECTOR, round * SLOTS + s));
    }
}

static void test_multi_queue(void)
{
    if (!(device_offers(&dev) & BLK_F_MQ)) {
        skip("the disk has one queue");
        return;
    }
    CHECK(device_start(&dev, BLK_F_MQ, 2));
    CHECK(disk_queue_count() >= 2);
    pattern_fill(data[0], SECTOR, 10);
    pattern_fill(data[8], SECTOR, 11);
    blk_offer(&dev, 0, 0, BLK_OUT, 500, SECTOR);
    blk_offer(&dev, 1, 8, BLK_OUT, 501, SECTOR);
    queue_kick(&dev, 1);
    queue_kick(&dev, 0);
    CHECK(queue_wait(&dev, 0, 1) && queue_wait(&dev, 1, 1));
    CHECK(slots[0].status == BLK_OK && slots[8].status == BLK_OK);
    /* What one queue wrote the other reads. */
    CHECK(blk_do(&dev, 1, 8, BLK_IN, 500, SECTOR) == BLK_OK && pattern_is(data[8], SECTOR, 10));
    CHECK(blk_do(&dev, 0, 0, BLK_IN, 501, SECTOR) == BLK_OK && pattern_is(data[0], SECTOR, 11));
}

static void test_indirect(void)
{
    static struct desc table[3] __attribute__((aligned(16)));
    struct queue *q = &disk_queues[0];

    CHECK(device_start(&dev, F_INDIRECT, 1));
    CHECK(dev.features & F_INDIRECT);
    pattern_fill(data[0], SLOT_BYTES, 20);
    for (unsigned i = 0; i < 2; i++) {
        slots[i].header = (struct blk_header){.type = i == 0 ? BLK_OUT : BLK_IN, .sector = 520};
        slots[i].status = BLK_PENDING;
        table[0] = (struct desc){(uint64_t)&slots[i].header, 16, DESC_NEXT, 1};
        table[1] =
            (struct desc){(uint64_t)data[i], SLOT_BYTES, (uint16_t)(DESC_NEXT | (i ? DESC_WRITE : 0)), 2};
        table[2] = (struct desc){(uint64_t)&slots[i].status, 1, DESC_WRITE, 0};
        q->desc[5] = (struct desc){(uint64_t)table, sizeof(table), DESC_INDIRECT, 0};
        queue_offer(q, 5);
        queue_kick(&dev, 0);
        CHECK(queue_wait(&dev, 0, (uint16_t)(i + 1)));
        CHECK(slots[i].status == BLK_OK && READ_ONCE(q->used.ring[i].id) == 5);
    }
    CHECK(pattern_is(data[1], SLOT_BYTES, 20));
}

/*
 * The device interrupts when used.idx passes used_event, not before. The first interrupt after a start is
 * left out of it: a device may give one for want of an earlier index to compare with.
 */
static void test_event_idx(void)
{
    struct queue *q = &disk_queues[0];
    uint32_t before;

    CHECK(device_start(&dev, F_EVENT_IDX, 1));
    CHECK(dev.features & F_EVENT_IDX);
    CHECK(blk_do(&dev, 0, 0, BLK_IN, 0, SECTOR) == BLK_OK);
    CHECK(wait_change32(&dev.irqs, 0));
    before = dev.irqs;
    WRITE_ONCE(q->avail.used_event, 3);
    for (uint16_t i = 2; i <= 3; i++) {
        blk_offer(&dev, 0, i, BLK_IN, 0, SECTOR);
        queue_kick(&dev, 0);
        CHECK(queue_poll(&dev, 0, i));
    }
    CHECK(dev.irqs == before);
    blk_offer(&dev, 0, 4, BLK_IN, 0, SECTOR);
    queue_kick(&dev, 0);
    CHECK(wait_change32(&dev.irqs, before));
    CHECK(READ_ONCE(q->used.idx) == 4 && dev.irqs == before + 1);
}

/* Reset with requests in flight: once status reads 0 the device is out of our memory for good. */
static void test_reset(void)
{
    for (unsigned round = 0; round < 4; round++) {
        CHECK(device_start(&dev, 0, 1));
        for (unsigned s = 0; s < SLOTS - 1; s++)
            blk_offer(&dev, 0, s, BLK_IN, 8 * s, SLOT_BYTES);
        queue_kick(&dev, 0);
        device_reset(&dev);
        for (unsigned s = 0; s < SLOTS - 1; s++) {
            slots[s].status = BLK_PENDING;
            for (unsigned i = 0; i < SLOT_BYTES; i += 512)
                data[s][i] = 0xA5;
        }
        CHECK(device_start(&dev, 0, 1));
        CHECK(disk_queues[0].used.idx == 0);
        CHECK(blk_do(&dev, 0, SLOTS - 1, BLK_IN, 0, SECTOR) == BLK_OK);
        for (unsigned s = 0; s < SLOTS - 1; s++) {
            CHECK(slots[s].status == BLK_PENDING);
            for (unsigned i = 0; i < SLOT_BYTES; i += 512)
                CHECK(data[s][i] == 0xA5);
        }
    }
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"depth", test_depth},         {"multi-queue", test_multi_queue}, {"indirect", test_indirect},
    {"event-idx", test_event_idx}, {"reset-in-flight", test_reset},
};

void test_block_queues(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
        if (!test_begin(tests[i].name))
            continue;
        if (disk_find(&dev))
            tests[i].run();
        else
            fail(__FILE__, __LINE__, "there is a disk");
        test_end();
    }
}

#define SMP_ROUNDS 16u

static volatile uint32_t ap_result;

/* On the second CPU: writes and reads back over queue 1, polling. */
static void ap_work(void)
{
    bool good = true;

    for (unsigned i = 0; i < SMP_ROUNDS && good; i++) {
        for (unsigned pass = 0; pass < 2 && good; pass++) {
            if (pass == 0)
                pattern_fill(data[8], SECTOR, 100 + i);
            blk_offer(&dev, 1, 8, pass == 0 ? BLK_OUT : BLK_IN, 600 + i, SECTOR);
            queue_kick(&dev, 1);
            good = queue_poll(&dev, 1, disk_queues[1].avail.idx) && slots[8].status == BLK_OK;
        }
        good = good && pattern_is(data[8], SECTOR, 100 + i);
    }
    ap_result = good ? 1 : 2;
}

static void run_smp(void)
{
    const char *cpus = cmdline_value("cpus");

    if (!cpus || *cpus != '2') {
        skip("one CPU");
        return;
    }
    CHECK(disk_find(&dev));
    CHECK(device_start(&dev, BLK_F_MQ, 2));
    CHECK(ap_start(ap_work));
    for (unsigned i = 0; i < SMP_ROUNDS; i++) {
        pattern_fill(data[0], SECTOR, 200 + i);
        CHECK(blk_do(&dev, 0, 0, BLK_OUT, 700 + i, SECTOR) == BLK_OK);
        CHECK(blk_do(&dev, 0, 0, BLK_IN, 700 + i, SECTOR) == BLK_OK);
        CHECK(pattern_is(data[0], SECTOR, 200 + i));
    }
    CHECK(wait_change32(&ap_result, 0));
    CHECK(ap_result == 1);
}

void test_smp(void)
{
    if (!test_begin("smp"))
        return;
    run_smp();
    test_end();
}
