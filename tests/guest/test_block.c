/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk requests, one at a time and many, on one queue and two. */
#include "block.h"

/* The host wrote this at the start of HOST_SECTOR, and looks for GUEST_MARK in GUEST_SECTOR afterwards. */
#define HOST_SECTOR  100u
#define HOST_MARK    "minivmm: written by the host"
#define GUEST_SECTOR 200u
#define GUEST_MARK   "minivmm: written by the guest"

static struct device dev;

static void text_put(uint8_t *at, const char *text)
{
    while (*text)
        *at++ = (uint8_t)*text++;
}

static void test_read(void)
{
    const char *mark = HOST_MARK;

    CHECK(blk_do(&dev, 0, 0, BLK_IN, HOST_SECTOR, SECTOR) == BLK_OK);
    for (unsigned i = 0; mark[i]; i++)
        CHECK(data[0][i] == (uint8_t)mark[i]);
    CHECK(READ_ONCE(disk_queues[0].used.ring[0].len) == SECTOR + 1);
}

static void test_write(void)
{
    pattern_fill(data[1], SECTOR, 1);
    text_put(data[1], GUEST_MARK);
    CHECK(blk_do(&dev, 0, 1, BLK_OUT, GUEST_SECTOR, SECTOR) == BLK_OK);
    pattern_fill(data[1], SLOT_BYTES, 2);
    CHECK(blk_do(&dev, 0, 1, BLK_OUT, 208, SLOT_BYTES) == BLK_OK);
    CHECK(blk_do(&dev, 0, 2, BLK_IN, 208, SLOT_BYTES) == BLK_OK);
    CHECK(pattern_is(data[2], SLOT_BYTES, 2));
    /* Its neighbour is untouched. */
    CHECK(blk_do(&dev, 0, 2, BLK_IN, GUEST_SECTOR, SECTOR) == BLK_OK);
    CHECK(data[2][0] == (uint8_t)GUEST_MARK[0]);
    CHECK(((uint64_t *)(void *)data[2])[8] == 1 * PATTERN_FACTOR + 8);
}

/* Any framing (2.7.4): a header in three pieces, data in odd pieces, all in one chain. */
static void test_framing(void)
{
    const struct blk_header *h = &slots[0].header;
    struct seg seg[] = {
        {h, 5, false},
        {(const uint8_t *)h + 5, 10, false},
        {(const uint8_t *)h + 15, 1, false},
        {data[0], 100, true},
        {data[1], 1, true},
        {data[2], 411, true},
        {&slots[0].status, 1, true},
    };
    uint16_t done = (uint16_t)(disk_queues[0].used.idx + 1);

    slots[0].header = (struct blk_header){.type = BLK_IN, .sector = HOST_SECTOR};
    slots[0].status = BLK_PENDING;
    queue_chain(&disk_queues[0], 0, seg, ARRAY_SIZE(seg));
    queue_offer(&disk_queues[0], 0);
    queue_kick(&dev, 0);
    CHECK(queue_wait(&dev, 0, done));
    CHECK(slots[0].status == BLK_OK);
    CHECK(data[0][0] == (uint8_t)HOST_MARK[0] && data[0][8] == (uint8_t)HOST_MARK[8]);
}

static void test_flush(void)
{
    if (!(dev.features & BLK_F_FLUSH)) {
        skip("no FLUSH offered");
        return;
    }
    CHECK(blk_do(&dev, 0, 0, BLK_FLUSH, 0, 0) == BLK_OK);
}

static void test_get_id(void)
{
    const char *serial = cmdline_value("serial");

    CHECK(blk_do(&dev, 0, 0, BLK_GET_ID, 0, 20) == BLK_OK);
    data[0][20] = 0;
    if (serial)
        CHECK(text_equal(serial, (const char *)data[0]));
}

struct range {
    uint64_t sector;
    uint32_t sectors, flags;
};

static uint8_t do_range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    *(struct range *)(void *)data[3] = (struct range){sector, sectors, flags};
    return blk_do(&dev, 0, 3, type, 0, sizeof(struct range));
}

static void test_discard(void)
{
    if (!(dev.features & BLK_F_DISCARD)) {
        skip("no DISCARD offered: the host's file system can't punch holes");
        return;
    }
    CHECK(do_range(BLK_DISCARD, 1024, 64, 0) == BLK_OK);
    /* unmap is reserved here: 5.2.6 asks for UNSUPP */
    CHECK(do_range(BLK_DISCARD, 1024, 64, 1) == BLK_UNSUPP);
    CHECK(do_range(BLK_DISCARD, UINT64_MAX - 8, 64, 0) == BLK_IOERR);
}

static void test_write_zeroes(void)
{
    if (!(dev.features & BLK_F_WRITE_ZEROES)) {
        skip("no WRITE_ZEROES offered");
        return;
    }
    pattern_fill(data[0], SLOT_BYTES, 4);
    CHECK(blk_do(&dev, 0, 0, BLK_OUT, 320, SLOT_BYTES) == BLK_OK);
    CHECK(do_range(BLK_WRITE_ZEROES, 321, 6, 0) == BLK_OK);
    CHECK(blk_do(&dev, 0, 0, BLK_IN, 320, SLOT_BYTES) == BLK_OK);
    CHECK(pattern_is(data[0], SECTOR, 4));
    CHECK(all_bytes_are(data[0] + SECTOR, 6 * SECTOR, 0));
    CHECK(((uint64_t *)(void *)data[0])[7 * SECTOR / 8] == 4 * PATTERN_FACTOR + 7 * SECTOR / 8);
}

static void test_refusals(void)
{
    uint64_t capacity = reg_read(&dev, REG_CONFIG) | (uint64_t)reg_read(&dev, REG_CONFIG + 4) << 32;

    CHECK(capacity >= 2048);
    CHECK(blk_do(&dev, 0, 0, BLK_IN, capacity - 1, SECTOR) == BLK_OK);
    CHECK(blk_do(&dev, 0, 0, BLK_IN, capacity, SECTOR) == BLK_IOERR);
    CHECK(blk_do(&dev, 0, 0, BLK_OUT, capacity - 1, 2 * SECTOR) == BLK_IOERR);
    CHECK(blk_do(&dev, 0, 0, BLK_IN, UINT64_MAX, SECTOR) == BLK_IOERR);
    CHECK(blk_do(&dev, 0, 0, BLK_IN, 0, 100) == BLK_IOERR);
    CHECK(blk_do(&dev, 0, 0, 77, 0, SECTOR) == BLK_UNSUPP);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"read", test_read},
    {"write", test_write},
    {"framing", test_framing},
    {"flush", test_flush},
    {"get-id", test_get_id},
    {"discard", test_discard},
    {"write-zeroes", test_write_zeroes},
    {"refusals", test_refusals},
};

void test_block(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
        if (!test_begin(tests[i].name))
            continue;
        if (!disk_find(&dev) || !device_start(&dev, BLK_F_FLUSH | BLK_F_DISCARD | BLK_F_WRITE_ZEROES, 1))
            fail(__FILE__, __LINE__, "the first disk starts");
        else
            tests[i].run();
        test_end();
    }
}
