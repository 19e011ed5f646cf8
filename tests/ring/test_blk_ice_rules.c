/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules of docs/ice-spec.md about what lies around encrypted transfers: the log, the raw disk behind a key,
 * and request types that stay free for others.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "blkdrv.h"
#include "icedrv.h"
#include "minivmm/bytes.h"
#include "minivmm/log.h"

enum { DISK = 3, FIRST = 20, COUNT = 8, OTHERS = 28 };

static const enum disk_engine engines[] = {DISK_ENGINE_IO_URING, DISK_ENGINE_SYNC};
static const struct ice_spec xts512 = {ICE_ALG_AES_XTS, 0, ICE_KEY_256};

static struct rig rig;
static struct ice *ice;

static void open_and_start(int i)
{
    struct err err = {""};

    ck_assert_msg(!ice_create(&(struct ice_config){.allow_ecb = false}, &ice, &err), "%s", err.text);
    ck_assert_int_eq(ice_assign(ice, FIRST, COUNT, DISK, true, &err), 0);
    ice_program(ice, FIRST, &xts512, 1);
    rig_open(&rig,
             &(struct rig_options){
                 .engine = engines[i], .index = DISK, .ice = ice, .ice_first = FIRST, .ice_count = COUNT});
    rig_start(&rig, 0);
}

static void close_all(void)
{
    rig_close(&rig);
    ck_assert(ice_all_released(ice));
    ice_destroy(ice);
}

/* 4.7: a guest that is refused without end fills no log. Two lines: the clock may pass a second meanwhile. */
START_TEST(test_denials_are_logged_once)
{
    char text[4096];
    unsigned lines = 0;
    FILE *to = tmpfile();

    ck_assert_ptr_nonnull(to);
    log_open(fileno(to), "rules", LOG_LEVEL_WARN);
    open_and_start(_i);
    for (unsigned i = 0; i < 100; i++)
        ck_assert_int_eq(
            rig_ice_request(&rig, VIRTIO_BLK_T_OUT, 0, 512, true, (struct rig_ice){OTHERS, 1, 0}),
            VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(block_counters(rig.block)->ice_denied, 100);
    close_all();
    log_open(STDERR_FILENO, NULL, LOG_LEVEL_WARN);
    ssize_t n = pread(fileno(to), text, sizeof(text) - 1, 0);
    ck_assert_int_gt(n, 0);
    text[n] = '\0';
    ck_assert_msg(strstr(text, "disk3: request refused for keyslot 28"), "%s", text);
    for (const char *at = text; (at = strchr(at, '\n')); at++)
        lines++;
    ck_assert_uint_ge(lines, 1);
    ck_assert_uint_le(lines, 2);
    fclose(to);
}
END_TEST

static bool all_zero(const uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (at[i])
            return false;
    }
    return true;
}

/* 4.19: WRITE_ZEROES and DISCARD act on the raw disk, so a key finds noise there. */
START_TEST(test_zeroes_are_raw)
{
    static const uint32_t types[] = {VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD};
    const struct rig_ice with = {FIRST, 1, 9};
    uint8_t sector[512];

    open_and_start(_i);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        memset(rig_at(&rig, rig.data), 0x5a, 512);
        ck_assert_int_eq(rig_ice_request(&rig, VIRTIO_BLK_T_OUT, 16, 512, true, with), VIRTIO_BLK_S_OK);
        memset(rig_at(&rig, rig.data), 0, 16);
        store_le64(rig_at(&rig, rig.data), 16);
        store_le32(rig_at(&rig, rig.data + 8), 1);
        ck_assert_int_eq(rig_ice_request(&rig, types[i], 0, 16, true, with), VIRTIO_BLK_S_OK);
        rig_image_read(&rig, 16 * 512, sector, sizeof(sector));
        ck_assert(all_zero(sector, sizeof(sector)));
        ck_assert_int_eq(rig_ice_request(&rig, VIRTIO_BLK_T_IN, 16, 512, false, with), VIRTIO_BLK_S_OK);
        ck_assert(!all_zero(rig_at(&rig, rig.data), 512));
    }
    close_all();
}
END_TEST

/* 7.14: in-band key operations may come one day. */
START_TEST(test_types_from_30_on_are_free)
{
    open_and_start(_i);
    for (uint32_t type = 30; type < 300; type++)
        ck_assert_int_eq(rig_ice_request(&rig, type, 0, 512, false, (struct rig_ice){FIRST, 1, 0}),
                         VIRTIO_BLK_S_UNSUPP);
    close_all();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("blk_ice_rules");
    TCase *tc = tcase_create("rules");

    tcase_add_loop_test(tc, test_denials_are_logged_once, 0, 2);
    tcase_add_loop_test(tc, test_zeroes_are_raw, 0, 2);
    tcase_add_loop_test(tc, test_types_from_30_on_are_free, 0, 2);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
