/* SPDX-License-Identifier: Apache-2.0 */
/* The block device by the standard: config space, every request type, every framing, both engines. */
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blkdrv.h"
#include "minivmm/bytes.h"

/* Loop index -> engine: each test runs over both. */
static const enum disk_engine engines[] = {DISK_ENGINE_IO_URING, DISK_ENGINE_SYNC};

static struct rig rig;

static void open_and_start(int i, uint64_t drop)
{
    rig_open(&rig, &(struct rig_options){.engine = engines[i]});
    rig_start(&rig, drop);
}

static bool all_are(const uint8_t *at, uint8_t value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (at[i] != value)
            return false;
    }
    return true;
}

static bool image_is(uint64_t sector, uint8_t value, size_t sectors)
{
    uint8_t bytes[64 * DISK_SECTOR];

    ck_assert_uint_le(sectors, 64);
    rig_image_read(&rig, sector * DISK_SECTOR, bytes, sectors * DISK_SECTOR);
    return all_are(bytes, value, sectors * DISK_SECTOR);
}

static uint64_t config(uint32_t offset, uint32_t width)
{
    return mmio_config_get(rig.mmio, offset, width);
}

START_TEST(test_config_space)
{
    rig_open(&rig, &(struct rig_options){.queues = 3, .queue_size = 128});
    uint64_t offered = mmio_offered(rig.mmio);
    ck_assert_uint_eq(offered, VIRTIO_F_BIT_VERSION_1 | VIRTIO_F_BIT_INDIRECT_DESC | VIRTIO_F_BIT_EVENT_IDX |
                                   BIT(SIZE_MAX) | BIT(SEG_MAX) | BIT(BLK_SIZE) | BIT(TOPOLOGY) | BIT(FLUSH) |
                                   BIT(CONFIG_WCE) | BIT(MQ) | BIT(DISCARD) | BIT(WRITE_ZEROES));
    ck_assert_uint_eq(block_device(rig.block)->config_size, 100);
    ck_assert_uint_eq(config(0, 8), RIG_SECTORS);
    ck_assert_uint_gt(config(8, 4), 0);
    ck_assert_uint_eq(config(8, 4) % 65536, 0);
    ck_assert_uint_eq(config(12, 4), 126);
    ck_assert_uint_eq(config(20, 4), disk_geometry(rig.disk)->logical_block);
    ck_assert_uint_eq(config(20, 4) << config(24, 1), disk_geometry(rig.disk)->physical_block);
    ck_assert_uint_eq(config(34, 2), 3);
    ck_assert_uint_gt(config(36, 4), 0);
    ck_assert_uint_gt(config(40, 4), 1);
    ck_assert_uint_gt(config(44, 4), 0);
    ck_assert_uint_gt(config(48, 4), 0);
    ck_assert_uint_gt(config(52, 4), 1);
    ck_assert_uint_eq(config(56, 1), disk_geometry(rig.disk)->can_write_zeroes_unmap);
    /* No secure erase, nothing zoned, no ICE. */
    for (uint32_t at = 60; at < 100; at += 4)
        ck_assert_uint_eq(config(at, 4), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(test_offers_follow_options)
{
    rig_open(&rig, &(struct rig_options){.no_discard = true, .queue_size = 2});
    ck_assert_uint_eq(mmio_offered(rig.mmio) & (BIT(DISCARD) | BIT(MQ)), 0);
    ck_assert_uint_ne(mmio_offered(rig.mmio) & BIT(WRITE_ZEROES), 0);
    ck_assert_uint_eq(config(34, 2), 0);
    ck_assert_uint_eq(config(36, 4), 0);
    ck_assert_uint_eq(config(12, 4), 1);
    rig_close(&rig);
    rig_open(&rig, &(struct rig_options){.no_write_zeroes = true});
    ck_assert_uint_eq(mmio_offered(rig.mmio) & BIT(WRITE_ZEROES), 0);
    ck_assert_uint_eq(config(48, 4), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(test_version_1_is_required)
{
    rig_open(&rig, &(struct rig_options){.queues = 1});
    ck_assert(!mmio_negotiate(rig.mmio, mmio_offered(rig.mmio) & ~VIRTIO_F_BIT_VERSION_1));
    ck_assert(mmio_negotiate(rig.mmio, VIRTIO_F_BIT_VERSION_1));
    rig_close(&rig);
}
END_TEST

START_TEST(test_only_writeback_is_writable)
{
    rig_open(&rig, &(struct rig_options){.queues = 1});
    rig_start(&rig, BIT(CONFIG_WCE));
    ck_assert_uint_eq(config(32, 1), 1);
    mmio_config_put(rig.mmio, 32, 1, 0);
    ck_assert_uint_eq(config(32, 1), 1);
    rig_start(&rig, 0);
    mmio_config_put(rig.mmio, 32, 1, 2);
    ck_assert_uint_eq(config(32, 1), 1);
    mmio_config_put(rig.mmio, 32, 1, 0);
    ck_assert_uint_eq(config(32, 1), 0);
    mmio_config_put(rig.mmio, 32, 1, 1);
    ck_assert_uint_eq(config(32, 1), 1);
    mmio_config_put(rig.mmio, 32, 2, 0);
    ck_assert_uint_eq(config(32, 1), 1);
    mmio_config_put(rig.mmio, 0, 4, 7);
    ck_assert_uint_eq(config(0, 8), RIG_SECTORS);
    /* Switched off, it is as it was configured after a reset; without FLUSH it starts at write-through. */
    mmio_config_put(rig.mmio, 32, 1, 0);
    rig_start(&rig, 0);
    ck_assert_uint_eq(config(32, 1), 1);
    rig_start(&rig, BIT(FLUSH));
    ck_assert_uint_eq(config(32, 1), 0);
    rig_close(&rig);
}
END_TEST

START_TEST(test_read_and_write)
{
    open_and_start(_i, 0);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 7, 1024, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.len, 1025);
    ck_assert(all_are(rig_at(&rig, rig.data), rig_fill(7), 512));
    ck_assert(all_are(rig_at(&rig, rig.data + 512), rig_fill(8), 512));
    memset(rig_at(&rig, rig.data), 0xee, 1024);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, RIG_SECTORS - 2, 1024, true), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.len, 1);
    ck_assert(image_is(RIG_SECTORS - 2, 0xee, 2));
    ck_assert(image_is(RIG_SECTORS - 3, rig_fill(RIG_SECTORS - 3), 1));
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true), VIRTIO_BLK_S_OK);
    const struct block_counters *c = block_counters(rig.block);
    ck_assert_uint_eq(c->requests, 3);
    ck_assert_uint_eq(c->read_bytes, 1024);
    ck_assert_uint_eq(c->written_bytes, 1024);
    ck_assert_uint_eq(c->flushes, 1);
    ck_assert_uint_eq(c->errors + c->unsupported, 0);
    rig_close(&rig);
}
END_TEST

/* Splits [gpa, gpa + len) into pieces of size step, at most max of them; returns how many. */
static unsigned split(struct ring_buffer *buf, uint64_t gpa, uint32_t len, uint32_t step, bool device_writes)
{
    unsigned n = 0;

    for (uint32_t at = 0; at < len; at += step)
        buf[n++] = (struct ring_buffer){gpa + at, len - at < step ? len - at : step, device_writes};
    return n;
}

/* Header cut at one byte, data in odd pieces, status alone or in the last data piece: 16 x 2 x 2 shapes. */
static void frame(bool read, uint32_t cut, bool shared, enum ring_framing framing)
{
    struct ring_buffer buf[40];
    unsigned n = 0;
    uint64_t sector = 16 + cut;
    uint8_t mark = (uint8_t)(0x80 + cut);

    memset(rig_at(&rig, rig.data), mark, 1024);
    rig_header(&rig, rig.header, read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, sector);
    rig.status = rig.data + 1024;
    buf[n++] = (struct ring_buffer){rig.header, cut ? cut : 16, false};
    if (cut)
        buf[n++] = (struct ring_buffer){rig.header + cut, 16 - cut, false};
    n += split(buf + n, rig.data, read && shared ? 1025 : 1024, 101, read);
    if (!read || !shared)
        buf[n++] = (struct ring_buffer){rig.status, 1, true};
    ck_assert_int_eq(rig_chain(&rig, buf, n, framing), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.len, read ? 1025 : 1);
    if (read) {
        ck_assert(all_are(rig_at(&rig, rig.data), rig_fill(sector), 512));
        ck_assert(all_are(rig_at(&rig, rig.data + 512), rig_fill(sector + 1), 512));
    } else {
        ck_assert(image_is(sector, mark, 2));
    }
}

START_TEST(test_any_framing)
{
    open_and_start(_i, 0);
    for (uint32_t cut = 0; cut < 16; cut++) {
        frame(true, cut, false, RING_DIRECT);
        frame(true, cut, true, RING_DIRECT);
        frame(true, cut, true, RING_INDIRECT);
    }
    for (uint32_t cut = 0; cut < 16; cut++)
        frame(false, cut, false, cut % 2 ? RING_DIRECT : RING_INDIRECT);
    rig_close(&rig);
}
END_TEST

/* Sixteen header bytes in sixteen descriptors, header and data in one descriptor, and a byte a descriptor. */
START_TEST(test_extreme_framing)
{
    struct ring_buffer buf[64];

    open_and_start(_i, 0);
    rig_header(&rig, rig.header, VIRTIO_BLK_T_IN, 5);
    unsigned n = split(buf, rig.header, 16, 1, false);
    buf[n++] = (struct ring_buffer){rig.data, 512, true};
    buf[n++] = (struct ring_buffer){rig.status, 1, true};
    ck_assert_int_eq(rig_chain(&rig, buf, n, RING_INDIRECT), VIRTIO_BLK_S_OK);
    ck_assert(all_are(rig_at(&rig, rig.data), rig_fill(5), 512));

    uint64_t whole = guest_alloc(rig.g, 16 + 512, 16);
    rig_header(&rig, whole, VIRTIO_BLK_T_OUT, 9);
    memset(rig_at(&rig, whole + 16), 0x77, 512);
    struct ring_buffer one[] = {{whole, 528, false}, {rig.status, 1, true}};
    ck_assert_int_eq(rig_chain(&rig, one, 2, RING_DIRECT), VIRTIO_BLK_S_OK);
    ck_assert(image_is(9, 0x77, 1));
    rig_close(&rig);
}
END_TEST

START_TEST(test_get_id)
{
    open_and_start(_i, 0);
    memset(rig_at(&rig, rig.data), 0x11, 64);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_GET_ID, 0, 20, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.len, 21);
    ck_assert_mem_eq(rig_at(&rig, rig.data), RIG_SERIAL, 20);
    ck_assert(all_are(rig_at(&rig, rig.data + 20), 0x11, 8));
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_GET_ID, 0, 30, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.len, 21);
    ck_assert(all_are(rig_at(&rig, rig.data + 20), 0x11, 8));
    memset(rig_at(&rig, rig.data), 0x11, 64);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_GET_ID, 0, 19, false), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig.len, 1);
    ck_assert(all_are(rig_at(&rig, rig.data), 0x11, 20));
    rig_close(&rig);
}
END_TEST

START_TEST(test_unsupported_types)
{
    static const uint32_t types[] = {2,  3,  5,  10, 12, 14, 15, 16,         17,
                                     18, 19, 20, 22, 24, 26, 28, 0x80000000u};

    open_and_start(_i, 0);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        ck_assert_int_eq(rig_request(&rig, types[i], 0, 512, false), VIRTIO_BLK_S_UNSUPP);
        ck_assert_uint_eq(rig.len, 1);
    }
    ck_assert_uint_eq(block_counters(rig.block)->unsupported, ARRAY_SIZE(types));
    rig_start(&rig, BIT(FLUSH) | BIT(CONFIG_WCE) | BIT(DISCARD) | BIT(WRITE_ZEROES));
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true), VIRTIO_BLK_S_UNSUPP);
    ck_assert_uint_eq(rig.len, 1);
    memset(rig_at(&rig, rig.data), 0, 16);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_DISCARD, 0, 16, true), VIRTIO_BLK_S_UNSUPP);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, true), VIRTIO_BLK_S_UNSUPP);
    rig_close(&rig);
}
END_TEST

START_TEST(test_bounds)
{
    static const struct {
        uint64_t sector;
        uint32_t length;
        int status;
    } cases[] = {
        {RIG_SECTORS - 1, 512, VIRTIO_BLK_S_OK},
        {RIG_SECTORS - 1, 1024, VIRTIO_BLK_S_IOERR},
        {RIG_SECTORS, 512, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX, 512, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX / 512, 512, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX / 512 + 1, 512, VIRTIO_BLK_S_IOERR}, /* times 512 it wraps to 0 */
        {UINT64_MAX / 512 + 2, 512, VIRTIO_BLK_S_IOERR},
        {0, 511, VIRTIO_BLK_S_IOERR},
        {0, 513, VIRTIO_BLK_S_IOERR},
        {0, 1, VIRTIO_BLK_S_IOERR},
        {0, 0, VIRTIO_BLK_S_OK},
        {RIG_SECTORS, 0, VIRTIO_BLK_S_OK},
        {RIG_SECTORS + 1, 0, VIRTIO_BLK_S_IOERR},
    };
    uint8_t before[RIG_SECTORS], first[DISK_SECTOR];

    open_and_start(_i, 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        memset(rig_at(&rig, rig.data), rig_fill(RIG_SECTORS - 1), 1024);
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, cases[i].sector, cases[i].length, true),
                         cases[i].status);
        memset(rig_at(&rig, rig.data), 0x3c, 1024);
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, cases[i].sector, cases[i].length, false),
                         cases[i].status);
        if (cases[i].status != VIRTIO_BLK_S_OK)
            ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, 1024));
    }
    for (uint64_t s = 0; s < RIG_SECTORS; s++) {
        rig_image_read(&rig, s * DISK_SECTOR, first, sizeof(first));
        before[s] = first[0];
        ck_assert_uint_eq(before[s], rig_fill(s));
        ck_assert(all_are(first, rig_fill(s), sizeof(first)));
    }
    ck_assert_int_eq(lseek(rig.image, 0, SEEK_END), RIG_SECTORS * DISK_SECTOR);
    rig_close(&rig);
}
END_TEST

static void put_range(unsigned i, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    uint8_t *at = rig_at(&rig, rig.data + 16 * i);

    store_le64(at, sector);
    store_le32(at + 8, sectors);
    store_le32(at + 12, flags);
}

START_TEST(test_write_zeroes)
{
    open_and_start(_i, 0);
    put_range(0, 10, 3, 0);
    put_range(1, 20, 0, 0);
    put_range(2, 30, 5, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, 48, true), VIRTIO_BLK_S_OK);
    ck_assert(image_is(9, rig_fill(9), 1));
    ck_assert(image_is(10, 0, 3));
    ck_assert(image_is(13, rig_fill(13), 1));
    ck_assert(image_is(20, rig_fill(20), 1));
    ck_assert(image_is(30, 0, 5));
    ck_assert(image_is(35, rig_fill(35), 1));
    put_range(0, 5, 0, 0);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, true), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(block_counters(rig.block)->write_zeroes, 2);
    rig_close(&rig);
}
END_TEST

START_TEST(test_discard)
{
    open_and_start(_i, 0);
    put_range(0, 64, 8, 0);
    put_range(1, 131, 2, 0); /* not aligned to any granule: allowed, the alignment is a hint */
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_DISCARD, 0, 32, true), VIRTIO_BLK_S_OK);
    ck_assert(image_is(63, rig_fill(63), 1));
    ck_assert(image_is(64, 0, 8));
    ck_assert(image_is(72, rig_fill(72), 1));
    ck_assert(image_is(130, rig_fill(130), 1));
    ck_assert(image_is(133, rig_fill(133), 1));
    ck_assert_uint_eq(block_counters(rig.block)->discards, 1);
    rig_close(&rig);
}
END_TEST

/* A bad range anywhere in the request, and nothing of it is carried out. */
START_TEST(test_bad_ranges)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t sectors, flags;
        int status;
    } cases[] = {
        {VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0x80000001u, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, 0, 1, 1, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, 0, 1, 4, VIRTIO_BLK_S_UNSUPP},
        {VIRTIO_BLK_T_DISCARD, RIG_SECTORS, 1, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, RIG_SECTORS - 1, 2, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, UINT64_MAX, 2, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_WRITE_ZEROES, UINT64_MAX / 512 + 1, 1, 0, VIRTIO_BLK_S_IOERR},
        {VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0, VIRTIO_BLK_S_IOERR},
    };

    open_and_start(_i, 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        put_range(0, 40, 4, 0);
        put_range(1, cases[i].sector, cases[i].sectors, cases[i].flags);
        ck_assert_int_eq(rig_request(&rig, cases[i].type, 0, 32, true), cases[i].status);
        ck_assert(image_is(40, rig_fill(40), 1));
    }
    static const uint32_t lengths[] = {0, 1, 15, 17, 24, 33 * 16};
    for (unsigned i = 0; i < 33; i++)
        put_range(i, 40, 1, 0);
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, lengths[i], true),
                         VIRTIO_BLK_S_IOERR);
    ck_assert(image_is(40, rig_fill(40), 1));
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_WRITE_ZEROES, 0, 32 * 16, true), VIRTIO_BLK_S_OK);
    ck_assert(image_is(40, 0, 1));
    rig_close(&rig);
}
END_TEST

START_TEST(test_readonly)
{
    static const uint32_t changes[] = {VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
                                       VIRTIO_BLK_T_SECURE_ERASE};

    rig_open(&rig, &(struct rig_options){.engine = engines[_i], .readonly = true});
    ck_assert_uint_eq(mmio_offered(rig.mmio) & (BIT(RO) | BIT(DISCARD) | BIT(WRITE_ZEROES) | BIT(FLUSH)),
                      BIT(RO) | BIT(FLUSH));
    /* The driver's word for it doesn't count: without RO negotiated nothing is written either. */
    for (int known = 0; known < 2; known++) {
        rig_start(&rig, known ? 0 : BIT(RO));
        for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
            memset(rig_at(&rig, rig.data), 0, 512);
            ck_assert_int_eq(rig_request(&rig, changes[i], 0, i ? 16 : 512, true), VIRTIO_BLK_S_IOERR);
        }
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 3, 512, false), VIRTIO_BLK_S_OK);
        ck_assert(all_are(rig_at(&rig, rig.data), rig_fill(3), 512));
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true), VIRTIO_BLK_S_OK);
    }
    ck_assert(image_is(0, rig_fill(0), 1));
    rig_close(&rig);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("blk");
    TCase *tc = tcase_create("device"), *both = tcase_create("requests");

    tcase_add_test(tc, test_config_space);
    tcase_add_test(tc, test_offers_follow_options);
    tcase_add_test(tc, test_version_1_is_required);
    tcase_add_test(tc, test_only_writeback_is_writable);
    tcase_add_loop_test(both, test_read_and_write, 0, 2);
    tcase_add_loop_test(both, test_any_framing, 0, 2);
    tcase_add_loop_test(both, test_extreme_framing, 0, 2);
    tcase_add_loop_test(both, test_get_id, 0, 2);
    tcase_add_loop_test(both, test_unsupported_types, 0, 2);
    tcase_add_loop_test(both, test_bounds, 0, 2);
    tcase_add_loop_test(both, test_write_zeroes, 0, 2);
    tcase_add_loop_test(both, test_discard, 0, 2);
    tcase_add_loop_test(both, test_bad_ranges, 0, 2);
    tcase_add_loop_test(both, test_readonly, 0, 2);
    suite_add_tcase(s, tc);
    suite_add_tcase(s, both);
    tcase_set_timeout(tc, 60);
    tcase_set_timeout(both, 60);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
