/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VIRTIO_BLK_F_ICE by docs/ice-spec.md: what is offered, what is checked, and that the image holds what
 * another implementation of the ciphers says. Both engines.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkdrv.h"
#include "icedrv.h"
#include "minivmm/bytes.h"

enum {
    DISK = 3,
    FIRST = 20, /* the disk's window: 20 .. 27 */
    COUNT = 8,
    OTHER_DISKS = 28,
    BELOW = 19, /* another disk's too: a window on either side */
    OPERATOR = 60,
    EMPTY = 27,
};

static const enum disk_engine engines[] = {DISK_ENGINE_IO_URING, DISK_ENGINE_SYNC};
static const struct ice_spec xts4096 = {ICE_ALG_AES_XTS, 3, ICE_KEY_256};
static const struct ice_spec xts512 = {ICE_ALG_AES_XTS, 0, ICE_KEY_128};

static struct rig rig;
static struct ice *ice;
static uint8_t plain[RIG_DATA_SIZE], cipher[RIG_DATA_SIZE], image[RIG_DATA_SIZE];

static void open_ice(bool ecb)
{
    struct err err = {""};

    ck_assert_msg(!ice_create(&(struct ice_config){.allow_ecb = ecb}, &ice, &err), "%s", err.text);
    ck_assert_int_eq(ice_assign(ice, FIRST, COUNT, DISK, true, &err), 0);
    ck_assert_int_eq(ice_assign(ice, BELOW, 1, 1, true, &err), 0);
    ck_assert_int_eq(ice_assign(ice, OTHER_DISKS, 1, 1, true, &err), 0);
    ck_assert_int_eq(ice_assign(ice, OPERATOR, 1, DISK, false, &err), 0);
}

static void open_with(int i, struct rig_options options)
{
    open_ice(true);
    options.engine = engines[i];
    options.index = DISK;
    options.ice = ice;
    options.ice_first = FIRST;
    options.ice_count = COUNT;
    rig_open(&rig, &options);
    rig_start(&rig, 0);
}

static void open_and_start(int i)
{
    open_with(i, (struct rig_options){.queues = 1});
}

static void close_all(void)
{
    rig_close(&rig);
    ck_assert(ice_all_released(ice));
    ice_destroy(ice);
}

static bool all_are(const uint8_t *at, uint8_t value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (at[i] != value)
            return false;
    }
    return true;
}

static bool image_untouched(void)
{
    uint8_t sector[DISK_SECTOR];

    for (uint64_t i = 0; i < RIG_SECTORS; i++) {
        rig_image_read(&rig, i * DISK_SECTOR, sector, sizeof(sector));
        if (!all_are(sector, rig_fill(i), sizeof(sector)))
            return false;
    }
    return true;
}

static void make_plain(unsigned seed)
{
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)(i * 7 + (i >> 9) * 5 + seed);
}

static void expect(const struct ice_spec *spec, uint8_t seed, uint64_t dun, size_t len)
{
    uint8_t raw[ICE_RAW_KEY_MAX];

    ref_key(raw, seed);
    ref_encrypt(spec, raw, dun, 1, plain, cipher, len);
}

static int write_at(uint64_t sector, uint32_t len, struct rig_ice i)
{
    memcpy(rig_at(&rig, rig.data), plain, len);
    return rig_ice_request(&rig, VIRTIO_BLK_T_OUT, sector, len, true, i);
}

static int read_at(uint64_t sector, uint32_t len, struct rig_ice i)
{
    memset(rig_at(&rig, rig.data), 0x3c, len);
    return rig_ice_request(&rig, VIRTIO_BLK_T_IN, sector, len, false, i);
}

static bool data_is(const uint8_t *bytes, size_t len)
{
    return !memcmp(rig_at(&rig, rig.data), bytes, len);
}

static bool image_is(uint64_t sector, const uint8_t *bytes, size_t len)
{
    rig_image_read(&rig, sector * DISK_SECTOR, image, len);
    return !memcmp(image, bytes, len);
}

static uint64_t counted(_Atomic uint64_t *counter)
{
    return atomic_load(counter);
}

START_TEST(test_offer)
{
    struct ice_spec caps[ICE_CAPS_MAX];

    open_and_start(0);
    ck_assert(mmio_offered(rig.mmio) & BIT(ICE));
    ck_assert_uint_eq(VIRTIO_BLK_F_ICE, 22);
    ck_assert_uint_eq(mmio_config_get(rig.mmio, 96, 2), COUNT << 8 | FIRST);
    ck_assert_uint_eq(mmio_config_get(rig.mmio, 98, 2), ice_capabilities(ice, caps));
    ck_assert_uint_eq(mmio_config_get(rig.mmio, 8, 4) % 65536, 0);
    uint64_t bad = counted(&block_device(rig.block)->counters.bad_access);
    mmio_config_put(rig.mmio, 96, 2, 0);
    mmio_config_put(rig.mmio, 98, 1, 0);
    ck_assert_uint_eq(mmio_config_get(rig.mmio, 96, 2), COUNT << 8 | FIRST);
    ck_assert_uint_eq(counted(&block_device(rig.block)->counters.bad_access), bad + 2);
    close_all();
}
END_TEST

START_TEST(test_capabilities)
{
    struct ice_spec caps[ICE_CAPS_MAX];
    struct rig_ice noise = {255, 77, UINT64_MAX};

    open_and_start(_i);
    unsigned n = ice_capabilities(ice, caps);
    const uint32_t size = 4 * n;
    memset(rig_at(&rig, rig.data), 0x3c, size + 64);
    ck_assert_int_eq(rig_ice_request(&rig, 28, 0, size - 1, false, noise), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig.len, 1);
    ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, size));
    ck_assert_int_eq(rig_ice_request(&rig, 28, 0, size, false, noise), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.len, size + 1);
    const uint8_t *at = rig_at(&rig, rig.data);
    for (unsigned i = 0; i < n; i++, at += 4)
        ck_assert(at[0] == caps[i].alg && at[1] == caps[i].unit_exp && at[2] == caps[i].key_size && !at[3]);
    ck_assert(all_are(at, 0x3c, 64));
    /* A longer buffer in odd pieces. */
    rig_ice_header(&rig, rig.header, 28, 0, noise);
    uint8_t want[4 * ICE_CAPS_MAX];
    memcpy(want, rig_at(&rig, rig.data), size);
    memset(rig_at(&rig, rig.data), 0x3c, size + 64);
    struct ring_buffer buf[] = {{rig.header, 32, false},
                                {rig.data, 7, true},
                                {rig.data + 7, size, true},
                                {rig.data + 7 + size, 33, true},
                                {rig.status, 1, true}};
    ck_assert_int_eq(rig_chain(&rig, buf, 5, RING_INDIRECT), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.len, size + 41);
    ck_assert(data_is(want, size));
    ck_assert(all_are(rig_at(&rig, rig.data + size), 0, 40));
    ck_assert(all_are(rig_at(&rig, rig.data + size + 40), 0x3c, 24));
    rig_start(&rig, BIT(ICE));
    ck_assert_int_eq(rig_request(&rig, 28, 0, size, false), VIRTIO_BLK_S_UNSUPP);
    close_all();
}
END_TEST

/* Every algorithm, key size and unit that is offered; lengths from one unit to several bounce buffers. */
START_TEST(test_all_ciphers)
{
    struct ice_spec caps[ICE_CAPS_MAX];

    open_and_start(_i);
    unsigned n = ice_capabilities(ice, caps);
    ck_assert_uint_gt(n, 20);
    for (unsigned c = 0; c < n; c++) {
        uint32_t unit = 512u << caps[c].unit_exp;
        const uint32_t lengths[] = {unit, 3 * unit, 196608};
        make_plain(c);
        ice_program(ice, FIRST + 1, &caps[c], (uint8_t)c);
        for (size_t l = 0; l < ARRAY_SIZE(lengths); l++) {
            uint64_t dun = 1000003ull * c + l;
            struct rig_ice with = {FIRST + 1, 1, dun};
            /* The sector need not be aligned to the unit. */
            ck_assert_int_eq(write_at(3 + c, lengths[l], with), VIRTIO_BLK_S_OK);
            ck_assert_uint_eq(rig.len, 1);
            ck_assert(data_is(plain, lengths[l]));
            expect(&caps[c], (uint8_t)c, dun, lengths[l]);
            ck_assert(image_is(3 + c, cipher, lengths[l]));
            ck_assert_int_eq(read_at(3 + c, lengths[l], with), VIRTIO_BLK_S_OK);
            ck_assert_uint_eq(rig.len, lengths[l] + 1);
            ck_assert(data_is(plain, lengths[l]));
            with.dun++;
            ck_assert_int_eq(read_at(3 + c, lengths[l], with), VIRTIO_BLK_S_OK);
            ck_assert(caps[c].alg == ICE_ALG_AES_ECB || !data_is(plain, lengths[l]));
        }
        ice_program(ice, FIRST + 1, &caps[c], (uint8_t)(c + 1));
        ck_assert_int_eq(read_at(3 + c, unit, (struct rig_ice){FIRST + 1, 1, 1000003ull * c + 2}),
                         VIRTIO_BLK_S_OK);
        ck_assert(!data_is(plain, unit));
    }
    ck_assert_uint_eq(block_counters(rig.block)->errors, 0);
    close_all();
}
END_TEST

START_TEST(test_last_iv)
{
    static const struct {
        uint64_t dun;
        uint32_t units;
        int status;
    } cases[] = {
        {UINT64_MAX, 1, VIRTIO_BLK_S_OK},     {UINT64_MAX - 39, 40, VIRTIO_BLK_S_OK},
        {UINT64_MAX, 2, VIRTIO_BLK_S_IOERR},  {UINT64_MAX - 38, 40, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX, 40, VIRTIO_BLK_S_IOERR},
    };

    open_and_start(_i);
    ice_program(ice, FIRST, &xts4096, 9);
    make_plain(1);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig_ice with = {FIRST, 1, cases[i].dun};
        uint32_t len = 4096 * cases[i].units;
        if (cases[i].status == VIRTIO_BLK_S_OK)
            continue;
        ck_assert_int_eq(write_at(8, len, with), cases[i].status);
        ck_assert_int_eq(read_at(8, len, with), cases[i].status);
        ck_assert_uint_eq(rig.len, 1);
        ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, len));
        ck_assert(image_untouched());
    }
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig_ice with = {FIRST, 1, cases[i].dun};
        uint32_t len = 4096 * cases[i].units;
        if (cases[i].status != VIRTIO_BLK_S_OK)
            continue;
        ck_assert_int_eq(write_at(8, len, with), VIRTIO_BLK_S_OK);
        expect(&xts4096, 9, cases[i].dun, len);
        ck_assert(image_is(8, cipher, len));
        ck_assert_int_eq(read_at(8, len, with), VIRTIO_BLK_S_OK);
        ck_assert(data_is(plain, len));
    }
    ck_assert_uint_eq(block_counters(rig.block)->ice_errors, 6);
    close_all();
}
END_TEST

START_TEST(test_window)
{
    static const uint8_t outside[] = {0, BELOW, OTHER_DISKS, 29, OPERATOR, 128, 255};

    open_and_start(_i);
    for (unsigned slot = BELOW; slot <= OPERATOR; slot++)
        if (slot != EMPTY)
            ice_program(ice, slot, &xts512, (uint8_t)slot);
    make_plain(2);
    for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
        struct rig_ice with = {outside[i], 1, 0};
        uint64_t denied = counted(&ice_slot_counters(ice, outside[i])->denied);
        ck_assert_int_eq(write_at(0, 1024, with), VIRTIO_BLK_S_IOERR);
        ck_assert_int_eq(read_at(0, 1024, with), VIRTIO_BLK_S_IOERR);
        ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, 1024));
        ck_assert_int_eq(rig_ice_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true, with), VIRTIO_BLK_S_IOERR);
        ck_assert_uint_eq(counted(&ice_slot_counters(ice, outside[i])->denied), denied + 3);
    }
    ck_assert_uint_eq(block_counters(rig.block)->ice_denied, 3 * ARRAY_SIZE(outside));
    ck_assert_uint_eq(block_counters(rig.block)->ice_requests, 3 * ARRAY_SIZE(outside));
    ck_assert(image_untouched());
    /* Empty: never plaintext. */
    struct rig_ice empty = {EMPTY, 1, 0};
    ck_assert_int_eq(write_at(0, 1024, empty), VIRTIO_BLK_S_IOERR);
    ck_assert_int_eq(read_at(0, 1024, empty), VIRTIO_BLK_S_IOERR);
    ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, 1024));
    ck_assert(image_untouched());
    ck_assert_uint_eq(block_counters(rig.block)->ice_empty, 2);
    ck_assert_uint_eq(block_counters(rig.block)->errors, 3 * ARRAY_SIZE(outside) + 2);
    /* The window's own edges. */
    static const uint8_t edges[] = {FIRST, FIRST + COUNT - 2};
    for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
        ck_assert_int_eq(write_at(0, 1024, (struct rig_ice){edges[i], 1, 5}), VIRTIO_BLK_S_OK);
        expect(&xts512, edges[i], 5, 1024);
        ck_assert(image_is(0, cipher, 1024));
    }
    close_all();
}
END_TEST

/* A window that ends with the last physical slot. */
START_TEST(test_last_slot)
{
    struct err err = {""};

    ck_assert(!ice_create(&(struct ice_config){.allow_ecb = false}, &ice, &err));
    ck_assert_int_eq(ice_assign(ice, 1, 255, 0, true, &err), 0);
    rig_open(&rig,
             &(struct rig_options){.engine = engines[_i], .ice = ice, .ice_first = 1, .ice_count = 255});
    rig_start(&rig, 0);
    ck_assert_uint_eq(mmio_config_get(rig.mmio, 96, 2), 255 << 8 | 1);
    ice_program(ice, 255, &xts512, 3);
    make_plain(3);
    ck_assert_int_eq(write_at(0, 512, (struct rig_ice){255, 1, 0}), VIRTIO_BLK_S_OK);
    expect(&xts512, 3, 0, 512);
    ck_assert(image_is(0, cipher, 512));
    ck_assert_int_eq(write_at(0, 512, (struct rig_ice){0, 1, 0}), VIRTIO_BLK_S_IOERR);
    close_all();
}
END_TEST

START_TEST(test_length)
{
    static const uint32_t lengths[] = {512, 3584, 4608, 8192 + 512, 135168 + 2048};

    open_and_start(_i);
    ice_program(ice, FIRST, &xts4096, 9);
    make_plain(1);
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        ck_assert_int_eq(write_at(8, lengths[i], (struct rig_ice){FIRST, 1, 0}), VIRTIO_BLK_S_IOERR);
        ck_assert_int_eq(read_at(8, lengths[i], (struct rig_ice){FIRST, 1, 0}), VIRTIO_BLK_S_IOERR);
        ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, lengths[i]));
    }
    ck_assert_int_eq(write_at(RIG_SECTORS - 7, 4096, (struct rig_ice){FIRST, 1, 0}), VIRTIO_BLK_S_IOERR);
    ck_assert(image_untouched());
    ck_assert_int_eq(write_at(0, 0, (struct rig_ice){FIRST, 1, 0}), VIRTIO_BLK_S_OK);
    ck_assert_int_eq(write_at(0, 0, (struct rig_ice){OTHER_DISKS, 1, 0}), VIRTIO_BLK_S_IOERR);
    close_all();
}
END_TEST

START_TEST(test_activate)
{
    static const uint8_t bad[] = {2, 3, 0x80, 0xff};

    open_and_start(_i);
    ice_program(ice, FIRST, &xts512, 1);
    make_plain(4);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct rig_ice with = {FIRST, bad[i], 0};
        ck_assert_int_eq(write_at(0, 512, with), VIRTIO_BLK_S_IOERR);
        ck_assert_int_eq(read_at(0, 512, with), VIRTIO_BLK_S_IOERR);
        ck_assert_int_eq(rig_ice_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true, with), VIRTIO_BLK_S_IOERR);
        ck_assert(image_untouched());
    }
    /* Not activated: plaintext, whatever else the payload says. */
    ck_assert_int_eq(write_at(9, 512, (struct rig_ice){255, 0, UINT64_MAX}), VIRTIO_BLK_S_OK);
    ck_assert(image_is(9, plain, 512));
    ck_assert_int_eq(read_at(9, 512, (struct rig_ice){255, 0, UINT64_MAX}), VIRTIO_BLK_S_OK);
    ck_assert(data_is(plain, 512));
    /* Ignored for other types. */
    struct rig_ice noise = {255, 99, UINT64_MAX};
    ck_assert_int_eq(rig_ice_request(&rig, VIRTIO_BLK_T_GET_ID, 0, 20, false, noise), VIRTIO_BLK_S_OK);
    ck_assert_mem_eq(rig_at(&rig, rig.data), RIG_SERIAL, 20);
    static const uint32_t types[] = {VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD};
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        memset(rig_at(&rig, rig.data), 0, 16);
        store_le64(rig_at(&rig, rig.data), 16 + i);
        store_le32(rig_at(&rig, rig.data + 8), 1);
        ck_assert_int_eq(rig_ice_request(&rig, types[i], 0, 16, true, noise), VIRTIO_BLK_S_OK);
        memset(plain, 0, 512);
        ck_assert(image_is(16 + i, plain, 512));
    }
    ck_assert_int_eq(rig_ice_request(&rig, 77, 0, 512, false, noise), VIRTIO_BLK_S_UNSUPP);
    close_all();
}
END_TEST

START_TEST(test_flush)
{
    open_and_start(_i);
    ck_assert_int_eq(rig_ice_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true, (struct rig_ice){EMPTY, 1, 7}),
                     VIRTIO_BLK_S_OK);
    ck_assert_int_eq(rig_ice_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true, (struct rig_ice){255, 0, 7}),
                     VIRTIO_BLK_S_OK);
    ck_assert_int_eq(rig_ice_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true, (struct rig_ice){BELOW, 1, 7}),
                     VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(block_counters(rig.block)->flushes, 2);
    ck_assert_uint_eq(block_counters(rig.block)->ice_requests, 2);
    close_all();
}
END_TEST

START_TEST(test_short_header)
{
    open_and_start(_i);
    ice_program(ice, FIRST, &xts512, 1);
    for (uint32_t len = 1; len < 32; len++) {
        rig_ice_header(&rig, rig.header, len % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 0,
                       (struct rig_ice){FIRST, 1, 0});
        memset(rig_at(&rig, rig.data), 0x3c, 512);
        struct ring_buffer buf[] = {{rig.header, len, false}, {rig.data, 512, true}, {rig.status, 1, true}};
        ck_assert_int_eq(rig_chain(&rig, buf, 3, RING_DIRECT), VIRTIO_BLK_S_IOERR);
        ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, 512));
    }
    ck_assert(image_untouched());
    close_all();
}
END_TEST

/* Splits [gpa, gpa + len) into pieces whose sizes a seed decides, none longer than most; returns how many. */
static unsigned split(struct ring_buffer *buf, uint64_t gpa, uint32_t len, uint32_t most, bool device_writes,
                      uint32_t seed)
{
    unsigned n = 0;

    for (uint32_t at = 0; at < len; n++) {
        seed = seed * 1103515245u + 12345u;
        uint32_t part = 1 + (seed >> 8) % most;
        part = part < len - at ? part : len - at;
        buf[n] = (struct ring_buffer){gpa + at, part, device_writes};
        at += part;
    }
    return n;
}

/* The header cut at every byte, the data in odd pieces, on both sides of a bounce buffer's size. */
START_TEST(test_any_framing)
{
    static struct ring_buffer buf[512];
    static const uint32_t lengths[] = {4096, 8192, 65536 + 4096};

    open_with(_i, (struct rig_options){.queue_size = 512});
    ice_program(ice, FIRST, &xts4096, 6);
    for (uint32_t cut = 1; cut <= 32; cut++) {
        uint32_t len = lengths[cut % ARRAY_SIZE(lengths)];
        struct rig_ice with = {FIRST, 1, 50 + cut};
        make_plain(cut);
        expect(&xts4096, 6, with.dun, len);
        for (int read = 0; read < 2; read++) {
            memcpy(rig_at(&rig, rig.data), plain, len);
            if (read)
                memset(rig_at(&rig, rig.data), 0x3c, len);
            rig_ice_header(&rig, rig.header, read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 24, with);
            unsigned n = 0;
            buf[n++] = (struct ring_buffer){rig.header, cut, false};
            if (cut < 32)
                buf[n++] = (struct ring_buffer){rig.header + cut, 32 - cut, false};
            n += split(buf + n, rig.data, len, 700, read, cut);
            buf[n++] = (struct ring_buffer){rig.status, 1, true};
            ck_assert_int_eq(rig_chain(&rig, buf, n, cut % 2 ? RING_INDIRECT : RING_DIRECT), VIRTIO_BLK_S_OK);
            ck_assert(image_is(24, cipher, len));
            ck_assert(data_is(plain, len));
        }
    }
    close_all();
}
END_TEST

START_TEST(test_required)
{
    open_ice(false);
    rig_open(&rig, &(struct rig_options){.engine = engines[_i],
                                         .index = DISK,
                                         .ice = ice,
                                         .ice_first = FIRST,
                                         .ice_count = COUNT,
                                         .ice_required = true});
    ck_assert(!mmio_negotiate(rig.mmio, mmio_offered(rig.mmio) & ~BIT(ICE)));
    ck_assert(!mmio_queue(rig.mmio, 0, &rig.ring[0]));
    mmio_driver_ok(rig.mmio);
    ck_assert_uint_eq(virtio_mmio_status(rig.mmio) & VIRTIO_STATUS_DRIVER_OK, 0);
    rig_start(&rig, 0);
    ice_program(ice, FIRST, &xts512, 1);
    make_plain(5);
    ck_assert_int_eq(write_at(0, 512, (struct rig_ice){FIRST, 0, 0}), VIRTIO_BLK_S_IOERR);
    ck_assert_int_eq(read_at(0, 512, (struct rig_ice){FIRST, 0, 0}), VIRTIO_BLK_S_IOERR);
    ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, 512));
    ck_assert(image_untouched());
    ck_assert_uint_eq(block_counters(rig.block)->ice_denied, 2);
    ck_assert_int_eq(rig_ice_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true, (struct rig_ice){0, 0, 0}),
                     VIRTIO_BLK_S_OK);
    ck_assert_int_eq(write_at(0, 512, (struct rig_ice){FIRST, 1, 0}), VIRTIO_BLK_S_OK);
    expect(&xts512, 1, 0, 512);
    ck_assert(image_is(0, cipher, 512));
    close_all();
}
END_TEST

/* Without the bit the header has 16 bytes, and byte 16 is data. */
START_TEST(test_not_negotiated)
{
    open_and_start(_i);
    rig_start(&rig, BIT(ICE));
    uint64_t whole = guest_alloc(rig.g, 16 + 512, 16);
    rig_header(&rig, whole, VIRTIO_BLK_T_OUT, 9);
    memset(rig_at(&rig, whole + 16), 0x77, 512);
    struct ring_buffer one[] = {{whole, 528, false}, {rig.status, 1, true}};
    ck_assert_int_eq(rig_chain(&rig, one, 2, RING_DIRECT), VIRTIO_BLK_S_OK);
    memset(plain, 0x77, 512);
    ck_assert(image_is(9, plain, 512));
    close_all();
}
END_TEST

/* A read that fails after part of it came leaves no ciphertext behind. */
START_TEST(test_failed_read)
{
    open_and_start(_i);
    ice_program(ice, FIRST, &xts512, 1);
    ck_assert_int_eq(ftruncate(rig.image, 101 * 512), 0);
    ck_assert_int_eq(read_at(96, 8192, (struct rig_ice){FIRST, 1, 0}), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig.len, 8193);
    ck_assert(all_are(rig_at(&rig, rig.data), 0, 8192));
    close_all();
}
END_TEST

static int try_create(struct block_config config)
{
    struct block *block = NULL;
    struct err err = {""};

    config.index = DISK;
    config.disk = rig.disk;
    config.queues = 1;
    config.queue_size = 8;
    int rc = block_create(&config, &rig.g->mem, &block, &err);
    if (!rc)
        block_destroy(block);
    ck_assert_int_eq(rc == 0, err.text[0] == '\0');
    return rc;
}

START_TEST(test_bad_configurations)
{
    open_and_start(0);
    ck_assert_int_eq(try_create((struct block_config){.ice = ice}), 0);
    ck_assert_int_eq(try_create((struct block_config){.ice = ice, .ice_first = 20, .ice_count = 8}), 0);
    ck_assert_int_eq(try_create((struct block_config){.ice_first = 20, .ice_count = 8}), -EINVAL);
    ck_assert_int_eq(try_create((struct block_config){.ice = ice, .ice_first = 20, .ice_count = 9}), -EINVAL);
    ck_assert_int_eq(try_create((struct block_config){.ice = ice, .ice_first = 19, .ice_count = 2}), -EINVAL);
    ck_assert_int_eq(try_create((struct block_config){.ice = ice, .ice_first = 60, .ice_count = 1}), -EINVAL);
    ck_assert_int_eq(try_create((struct block_config){.ice = ice, .ice_first = 0, .ice_count = 256}),
                     -EINVAL);
    ck_assert_int_eq(try_create((struct block_config){.ice = ice, .ice_first = 256, .ice_count = 1}),
                     -EINVAL);
    ck_assert_int_eq(try_create((struct block_config){.ice = ice, .ice_first = UINT32_MAX, .ice_count = 2}),
                     -EINVAL);
    ck_assert_int_eq(try_create((struct block_config){.ice = ice, .ice_required = true}), -EINVAL);
    close_all();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("blk_ice");
    TCase *tc = tcase_create("ice");

    tcase_add_test(tc, test_offer);
    tcase_add_test(tc, test_bad_configurations);
    tcase_add_loop_test(tc, test_capabilities, 0, 2);
    tcase_add_loop_test(tc, test_all_ciphers, 0, 2);
    tcase_add_loop_test(tc, test_last_iv, 0, 2);
    tcase_add_loop_test(tc, test_window, 0, 2);
    tcase_add_loop_test(tc, test_last_slot, 0, 2);
    tcase_add_loop_test(tc, test_length, 0, 2);
    tcase_add_loop_test(tc, test_activate, 0, 2);
    tcase_add_loop_test(tc, test_flush, 0, 2);
    tcase_add_loop_test(tc, test_short_header, 0, 2);
    tcase_add_loop_test(tc, test_any_framing, 0, 2);
    tcase_add_loop_test(tc, test_required, 0, 2);
    tcase_add_loop_test(tc, test_not_negotiated, 0, 2);
    tcase_add_loop_test(tc, test_failed_read, 0, 2);
    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 60);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
