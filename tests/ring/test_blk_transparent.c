/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transparent mode (docs/ice-spec.md, 9): a driver that knows nothing of ICE, an image that holds what
 * dm-crypt would have written, as another implementation of the cipher says. Both engines.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkdrv.h"
#include "icedrv.h"
#include "minivmm/bytes.h"

enum { DISK = 2, OPERATOR = 63, SEED = 77 };

static const enum disk_engine engines[] = {DISK_ENGINE_IO_URING, DISK_ENGINE_SYNC};

/* Data unit, IV rule, place of the data and number of the first IV: plain and LUKS volumes of dm-crypt. */
struct volume {
    struct block_transparent t;
    uint64_t stride; /* what the rule comes to */
};
static const struct volume volumes[] = {
    {{.unit = 512, .slot = OPERATOR}, 1},
    {{.unit = 4096, .slot = OPERATOR}, 8},
    {{.unit = 4096, .slot = OPERATOR, .iv_large = true}, 1},
    {{.unit = 512, .slot = OPERATOR, .data_offset = 32768, .iv_offset = 1ull << 40, .iv_large = true}, 1},
    {{.unit = 4096, .slot = OPERATOR, .data_offset = 32768, .iv_offset = 77, .discard = true}, 8},
    {{.unit = 1024, .slot = OPERATOR, .data_offset = 512, .data_size = 512 * 1024}, 2},
};

static struct rig rig;
static struct ice *ice;
static struct ice_spec spec;
static const struct volume *volume;
static uint8_t plain[RIG_DATA_SIZE], cipher[RIG_DATA_SIZE], image[RIG_DATA_SIZE];

static struct ice_spec spec_for(uint32_t unit)
{
    return (struct ice_spec){ICE_ALG_AES_XTS, (uint8_t)__builtin_ctz(unit / 512), ICE_KEY_256};
}

static void open_ice(void)
{
    struct err err = {""};

    ck_assert_msg(!ice_create(&(struct ice_config){.allow_ecb = false}, &ice, &err), "%s", err.text);
    ck_assert_int_eq(ice_assign(ice, OPERATOR, 1, DISK, false, &err), 0);
    ck_assert_int_eq(ice_assign(ice, 0, 4, DISK, true, &err), 0);
    ck_assert_int_eq(ice_assign(ice, 50, 1, DISK + 1, false, &err), 0);
}

/* Loop index: the volume, and in its lowest bit the engine. */
static void open_volume(int i)
{
    volume = &volumes[i / 2];
    spec = spec_for(volume->t.unit);
    open_ice();
    ice_program(ice, OPERATOR, &spec, SEED);
    rig_open(&rig, &(struct rig_options){
                       .engine = engines[i % 2], .index = DISK, .ice = ice, .transparent = volume->t});
    rig_start(&rig, 0);
}

static void close_all(void)
{
    rig_close(&rig);
    ck_assert(ice_all_released(ice));
    ice_destroy(ice);
}

static void make_plain(unsigned seed)
{
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)(i * 7 + (i >> 9) * 5 + seed);
}

static bool all_are(const uint8_t *at, uint8_t value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (at[i] != value)
            return false;
    }
    return true;
}

/* What the image must hold for plain[0 .. len) at a sector of the guest's disk. */
static void expect(uint64_t sector, size_t len)
{
    uint8_t raw[ICE_RAW_KEY_MAX];

    ref_key(raw, SEED);
    uint64_t iv = volume->t.iv_offset + sector * 512 / volume->t.unit * volume->stride;
    ref_encrypt(&spec, raw, iv, volume->stride, plain, cipher, len);
}

static bool image_is(uint64_t sector, const uint8_t *bytes, size_t len)
{
    rig_image_read(&rig, volume->t.data_offset + sector * 512, image, len);
    return !memcmp(image, bytes, len);
}

static bool raw_untouched(uint64_t from, uint64_t to)
{
    uint8_t sector[DISK_SECTOR];

    for (uint64_t i = from; i < to; i++) {
        rig_image_read(&rig, i * DISK_SECTOR, sector, sizeof(sector));
        if (!all_are(sector, rig_fill(i), sizeof(sector)))
            return false;
    }
    return true;
}

static uint64_t capacity(void)
{
    return mmio_config_get(rig.mmio, 0, 8);
}

START_TEST(test_offer)
{
    open_volume(_i);
    const struct block_transparent *t = &volume->t;
    uint64_t bytes = t->data_size ? t->data_size : RIG_SECTORS * 512 - t->data_offset;
    ck_assert_uint_eq(capacity() * 512, bytes);
    ck_assert_uint_eq(mmio_config_get(rig.mmio, 20, 4), t->unit);
    ck_assert_uint_eq(mmio_offered(rig.mmio) & BIT(ICE), 0);
    ck_assert_uint_eq(!!(mmio_offered(rig.mmio) & BIT(DISCARD)), t->discard);
    ck_assert(mmio_offered(rig.mmio) & BIT(WRITE_ZEROES));
    ck_assert_uint_eq(mmio_config_get(rig.mmio, 56, 1), 0);
    ck_assert_uint_eq(mmio_config_get(rig.mmio, 96, 4), 0);
    ck_assert_int_eq(rig_request(&rig, 28, 0, 4096, false), VIRTIO_BLK_S_UNSUPP);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_GET_ID, 0, 20, false), VIRTIO_BLK_S_OK);
    ck_assert_mem_eq(rig_at(&rig, rig.data), RIG_SERIAL, 20);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, 0, true), VIRTIO_BLK_S_OK);
    close_all();
}
END_TEST

START_TEST(test_transfers)
{
    open_volume(_i);
    const uint32_t unit = volume->t.unit, lengths[] = {unit, 5 * unit, 65536, 65536 + unit, 200 * 1024};
    uint64_t sectors[] = {0, 3 * unit / 512, 0};
    for (size_t l = 0; l < ARRAY_SIZE(lengths); l++) {
        uint32_t len = lengths[l];
        sectors[2] = capacity() - len / 512;
        make_plain((unsigned)l);
        for (size_t s = 0; s < ARRAY_SIZE(sectors); s++) {
            memcpy(rig_at(&rig, rig.data), plain, len);
            ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, sectors[s], len, true), VIRTIO_BLK_S_OK);
            ck_assert_uint_eq(rig.len, 1);
            ck_assert_mem_eq(rig_at(&rig, rig.data), plain, len);
            expect(sectors[s], len);
            ck_assert(image_is(sectors[s], cipher, len));
            memset(rig_at(&rig, rig.data), 0x3c, len);
            ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, sectors[s], len, false), VIRTIO_BLK_S_OK);
            ck_assert_uint_eq(rig.len, len + 1);
            ck_assert_mem_eq(rig_at(&rig, rig.data), plain, len);
        }
    }
    ck_assert(raw_untouched(0, volume->t.data_offset / 512));
    if (volume->t.data_size)
        ck_assert(raw_untouched((volume->t.data_offset + volume->t.data_size) / 512, RIG_SECTORS));
    ck_assert_uint_eq(block_counters(rig.block)->ice_requests, 30);
    close_all();
}
END_TEST

/* Data in odd pieces: what another implementation encrypted is read back, across bounce buffers too. */
START_TEST(test_any_framing)
{
    static struct ring_buffer buf[64];

    open_volume(_i);
    for (uint32_t step = 1700; step < 40000; step += 4201) {
        uint32_t len = step < 3000 ? 8192 : 81920;
        unsigned n = 0;
        make_plain(step);
        expect(64, len);
        for (int read = 0; read < 2; read++) {
            memcpy(rig_at(&rig, rig.data), plain, len);
            if (read)
                memset(rig_at(&rig, rig.data), 0x3c, len);
            rig_header(&rig, rig.header, read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 64);
            n = 0;
            buf[n++] = (struct ring_buffer){rig.header, 16, false};
            for (uint32_t at = 0; at < len; at += step)
                buf[n++] = (struct ring_buffer){rig.data + at, len - at < step ? len - at : step, read};
            buf[n++] = (struct ring_buffer){rig.status, 1, true};
            ck_assert_int_eq(rig_chain(&rig, buf, n, RING_DIRECT), VIRTIO_BLK_S_OK);
            ck_assert(image_is(64, cipher, len));
            ck_assert_mem_eq(rig_at(&rig, rig.data), plain, len);
        }
    }
    close_all();
}
END_TEST

START_TEST(test_alignment_and_bounds)
{
    open_volume(_i);
    const uint32_t unit = volume->t.unit;
    const uint64_t end = capacity();
    const struct {
        uint64_t sector;
        uint32_t length;
        bool ok;
    } cases[] = {
        {1, unit, unit == 512},
        {unit / 512, unit, true},
        {0, unit / 2, false},
        {0, unit + 512, unit == 512},
        {end - 1, unit, unit == 512},
        {end - unit / 512, unit, true},
        {end, unit, false},
        {end - unit / 512, 2 * unit, false},
        {UINT64_MAX, unit, false},
        {UINT64_MAX / 512 + 1, unit, false},
        {RIG_SECTORS - unit / 512, unit, end == RIG_SECTORS},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        memset(rig_at(&rig, rig.data), 0x3c, 2 * unit);
        int status = rig_request(&rig, VIRTIO_BLK_T_IN, cases[i].sector, cases[i].length, false);
        ck_assert_int_eq(status, cases[i].ok ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
        if (!cases[i].ok) {
            ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, 2 * unit));
            ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, cases[i].sector, cases[i].length, true),
                             VIRTIO_BLK_S_IOERR);
        }
    }
    ck_assert(raw_untouched(0, RIG_SECTORS));
    close_all();
}
END_TEST

static int send_range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    uint8_t *at = rig_at(&rig, rig.data);

    store_le64(at, sector);
    store_le32(at + 8, sectors);
    store_le32(at + 12, flags);
    return rig_request(&rig, type, 0, 16, true);
}

/* Zeroes read back as zeroes, and the host sees none. */
START_TEST(test_write_zeroes)
{
    open_volume(_i);
    const uint32_t unit = volume->t.unit, lengths[] = {unit, 65536, 65536 + unit, 196608};
    memset(plain, 0, sizeof(plain));
    for (size_t l = 0; l < ARRAY_SIZE(lengths); l++) {
        uint32_t len = lengths[l];
        ck_assert_int_eq(send_range(VIRTIO_BLK_T_WRITE_ZEROES, 16, len / 512, l % 2), VIRTIO_BLK_S_OK);
        expect(16, len);
        ck_assert(image_is(16, cipher, len));
        memset(rig_at(&rig, rig.data), 0x3c, len);
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 16, len, false), VIRTIO_BLK_S_OK);
        ck_assert(all_are(rig_at(&rig, rig.data), 0, len));
    }
    uint64_t behind = volume->t.data_offset / 512 + 16 + 196608 / 512;
    ck_assert(raw_untouched(0, volume->t.data_offset / 512 + 16) && raw_untouched(behind, RIG_SECTORS));
    ck_assert_uint_eq(block_counters(rig.block)->write_zeroes, ARRAY_SIZE(lengths));
    int part = unit == 512 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
    ck_assert_int_eq(send_range(VIRTIO_BLK_T_WRITE_ZEROES, 17, unit / 512, 0), part);
    ck_assert_int_eq(send_range(VIRTIO_BLK_T_WRITE_ZEROES, 16, 1, 0), part);
    ck_assert_int_eq(send_range(VIRTIO_BLK_T_WRITE_ZEROES, capacity(), unit / 512, 0), VIRTIO_BLK_S_IOERR);
    ck_assert_int_eq(ice_slot_evict(ice, OPERATOR, 0, NULL), 0);
    ck_assert_int_eq(send_range(VIRTIO_BLK_T_WRITE_ZEROES, 0, unit / 512, 0), VIRTIO_BLK_S_IOERR);
    ck_assert(raw_untouched(0, 8));
    close_all();
}
END_TEST

START_TEST(test_discard)
{
    open_volume(_i);
    const uint32_t unit = volume->t.unit;
    const uint64_t base = volume->t.data_offset / 512;
    if (!volume->t.discard) {
        ck_assert_int_eq(send_range(VIRTIO_BLK_T_DISCARD, 16, 16, 0), VIRTIO_BLK_S_UNSUPP);
        ck_assert(raw_untouched(0, RIG_SECTORS));
    } else {
        ck_assert_int_eq(send_range(VIRTIO_BLK_T_DISCARD, 16, 16, 0), VIRTIO_BLK_S_OK);
        rig_image_read(&rig, (base + 16) * 512, image, 16 * 512);
        ck_assert(all_are(image, 0, 16 * 512));
        ck_assert(raw_untouched(0, base + 16) && raw_untouched(base + 32, RIG_SECTORS));
        ck_assert_int_eq(send_range(VIRTIO_BLK_T_DISCARD, 17, unit / 512, 0), VIRTIO_BLK_S_IOERR);
        ck_assert_int_eq(send_range(VIRTIO_BLK_T_DISCARD, capacity(), 8, 0), VIRTIO_BLK_S_IOERR);
    }
    close_all();
}
END_TEST

/* The key goes, comes back for another unit, comes back: nothing is ever written without it. */
START_TEST(test_key_changes)
{
    open_volume(_i);
    const uint32_t unit = volume->t.unit;
    struct ice_spec other = spec_for(unit == 512 ? 4096 : 512);
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(ice_slot_evict(ice, OPERATOR, 0, NULL), 0);
        if (round)
            ice_program(ice, OPERATOR, &other, SEED);
        memset(rig_at(&rig, rig.data), 0x3c, 4096);
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, 0, 4096, true), VIRTIO_BLK_S_IOERR);
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 4096, false), VIRTIO_BLK_S_IOERR);
        ck_assert(all_are(rig_at(&rig, rig.data), 0x3c, 4096));
        ck_assert(raw_untouched(0, RIG_SECTORS));
    }
    ck_assert_uint_eq(block_counters(rig.block)->ice_empty, 2);
    ck_assert_uint_eq(block_counters(rig.block)->ice_errors, 2);
    ice_program(ice, OPERATOR, &spec, SEED);
    make_plain(3);
    memcpy(rig_at(&rig, rig.data), plain, 4096);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, 8, 4096, true), VIRTIO_BLK_S_OK);
    expect(8, 4096);
    ck_assert(image_is(8, cipher, 4096));
    close_all();
}
END_TEST

/* An image that ends early: what was decrypted before the end is not shown either. */
START_TEST(test_failed_read)
{
    open_volume(_i);
    ck_assert_int_eq(ftruncate(rig.image, (off_t)volume->t.data_offset + 70000), 0);
    memset(rig_at(&rig, rig.data), 0x3c, 131072);
    ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_IN, 0, 131072, false), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig.len, 131073);
    ck_assert(all_are(rig_at(&rig, rig.data), 0, 131072));
    close_all();
}
END_TEST

/* No plaintext in the image: a marker that the guest writes everywhere occurs nowhere. */
START_TEST(test_marker)
{
    static const char marker[] = "PLAINTEXT-MARKER";
    static uint8_t all[RIG_SECTORS * 512];

    open_volume(_i);
    for (size_t at = 0; at < 65536; at += 16)
        memcpy(rig_at(&rig, rig.data) + at, marker, 16);
    const uint32_t unit = volume->t.unit;
    for (uint64_t s = 0; s < capacity(); s += 128) {
        uint64_t left = (capacity() - s) * 512;
        uint32_t len = left < 65536 ? (uint32_t)left : 65536;
        ck_assert_uint_eq(len % unit, 0);
        ck_assert_int_eq(rig_request(&rig, VIRTIO_BLK_T_OUT, s, len, true), VIRTIO_BLK_S_OK);
    }
    rig_image_read(&rig, 0, all, sizeof(all));
    ck_assert_ptr_null(memmem(all, sizeof(all), marker, 16));
    close_all();
}
END_TEST

static int try_create(struct block_transparent t, unsigned window)
{
    struct block_config config = {.index = DISK,
                                  .disk = rig.disk,
                                  .queues = 1,
                                  .queue_size = 8,
                                  .ice = ice,
                                  .ice_count = window,
                                  .transparent = t};
    struct block *block = NULL;
    struct err err = {""};
    int rc = block_create(&config, &rig.g->mem, &block, &err);

    if (!rc)
        block_destroy(block);
    ck_assert_int_eq(rc == 0, err.text[0] == '\0');
    return rc;
}

START_TEST(test_bad_configurations)
{
    const struct block_transparent good = volumes[1].t;
    struct block_transparent t = good;

    open_volume(2);
    ck_assert_int_eq(try_create(good, 0), 0);
    ck_assert_int_eq(try_create(good, 4), -EINVAL);
    static const uint32_t units[] = {1, 256, 513, 1536, 8192, 65536, 512, 1024};
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        t.unit = units[i]; /* the last two are units, but not the key's */
        ck_assert_int_eq(try_create(t, 0), -EINVAL);
    }
    static const unsigned slots[] = {0, 50, 62, 64, 255, 256, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(slots); i++) {
        t = good;
        t.slot = slots[i];
        ck_assert_int_eq(try_create(t, 0), -EINVAL);
    }
    static const uint64_t offsets[] = {1, 511, 512, RIG_SECTORS * 512, UINT64_MAX, UINT64_MAX - 511};
    for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
        t = good;
        t.data_offset = offsets[i]; /* 512 leaves no whole number of units */
        ck_assert_int_eq(try_create(t, 0), -EINVAL);
    }
    static const uint64_t sizes[] = {512, 4095, RIG_SECTORS * 512, UINT64_MAX - 4095};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        t = good;
        t.data_offset = 4096;
        t.data_size = sizes[i];
        ck_assert_int_eq(try_create(t, 0), -EINVAL);
    }
    t = good;
    t.iv_offset = UINT64_MAX - (RIG_SECTORS - 8);
    ck_assert_int_eq(try_create(t, 0), 0);
    t.iv_offset++;
    ck_assert_int_eq(try_create(t, 0), -EINVAL);
    ck_assert_int_eq(ice_slot_evict(ice, OPERATOR, 0, NULL), 0);
    ck_assert_int_eq(try_create(good, 0), -EINVAL);
    close_all();
}
END_TEST

int main(void)
{
    const int all = 2 * (int)ARRAY_SIZE(volumes);
    Suite *s = suite_create("blk_transparent");
    TCase *tc = tcase_create("transparent");

    tcase_add_test(tc, test_bad_configurations);
    tcase_add_loop_test(tc, test_offer, 0, all);
    tcase_add_loop_test(tc, test_transfers, 0, all);
    tcase_add_loop_test(tc, test_any_framing, 0, all);
    tcase_add_loop_test(tc, test_alignment_and_bounds, 0, all);
    tcase_add_loop_test(tc, test_write_zeroes, 0, all);
    tcase_add_loop_test(tc, test_discard, 0, all);
    tcase_add_loop_test(tc, test_key_changes, 0, all);
    tcase_add_loop_test(tc, test_failed_read, 0, all);
    tcase_add_loop_test(tc, test_marker, 0, all);
    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 60);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
